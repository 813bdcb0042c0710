"""Where gRPC listens: ports that the parent reserves, and paths that are links to a worker's own socket.

gRPC opens its sockets itself, so that none can be handed to it. On TCP several processes may bind a port together
(SO_REUSEPORT); the parent holds it with a socket that is bound and does not listen, so that it is ours from the start
and while no worker lives. It is bound without that option first, which fails where anybody else has the port: two
services would share their calls unnoticed. A unix socket cannot be shared: a second server silently takes the path from
the first, and whoever stops removes it. So each worker binds a path of its own (a hidden name beside, with its process
number), and the path of the settings is a symbolic link that is replaced at once when the next worker is ready.

How it fails: `StartError` in an administrator's words.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from authmilter.errors import AuthMilterError
from authmilter.milter.sockets import MAX_UNIX_PATH, Family, ListenSpec, owner_ids, refuse_if_taken
from authmilter.startup import StartError

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["GRPC_CONNECTIONS", "Place", "dress", "forget_path", "own_path", "publish", "release", "reserve"]

#: Octets that a worker's own path needs beyond its folder: `/.400000.ffffffl`.
_OWN_NAME = 16


#: Connections for which a worker is to have descriptors: gRPC has no limit of its own.
GRPC_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One place to listen, as written in the settings.

    `reserved` holds a port, and `bound` is its address in numbers; of a unix socket they are None and empty. (A worker
    has closed its copy of `reserved`.)
    """

    text: str
    spec: ListenSpec
    reserved: socket.socket | None = None
    bound: str = ""

    def address(self, pid: int) -> str:
        """Return what gRPC is to bind in the worker `pid`."""
        return self.bound or f"unix:{own_path(self, pid)}"

    @property
    def name(self) -> str:
        """The place for people: with the port that it has."""
        return self.bound or self.text


def reserve(text: str) -> Place:
    """Make sure of the place that `text` names (`HOST:PORT` or `unix:/path`).

    Raises:
        StartError: it cannot be had.
    """
    try:
        spec = ListenSpec.parse(text if text.startswith("unix:") else f"inet:{text}")
        if spec.family is Family.UNIX:
            _refuse_path(spec.path)
            return Place(text, spec)
        sock = _reserved_port(spec)
    except (OSError, AuthMilterError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise StartError(f"cannot listen on {text}: {reason}") from e
    host, port = sock.getsockname()[:2]
    return Place(text, spec, sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _refuse_path(path: str) -> None:
    """Refuse a path where a worker's socket and a link to it cannot be made.

    Raises:
        OSError: why.
    """
    folder = Path(path).parent
    if len(os.fsencode(folder)) + _OWN_NAME > MAX_UNIX_PATH:
        raise OSError(errno.ENAMETOOLONG, "the folder's name is too long for a unix socket")
    folder.stat()
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "the service user cannot write to the folder")
    refuse_if_taken(os.path.realpath(path))


def _reserved_port(spec: ListenSpec) -> socket.socket:
    kind = socket.AF_INET if spec.family is Family.INET else socket.AF_INET6
    found = socket.getaddrinfo(spec.host, spec.port, kind, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    with socket.socket(kind, socket.SOCK_STREAM) as first, contextlib.ExitStack() as undo:
        # Connections of a service that has ended do not matter, whoever listens does.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(found[0][4])
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # This one has only the option that the workers have: nobody else can bind beside it, and listen.
        hold = socket.socket(kind, socket.SOCK_STREAM)
        undo.callback(hold.close)
        hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        hold.bind(first.getsockname())
        undo.pop_all()
    return hold


def own_path(place: Place, pid: int) -> str:
    """Return the path that the worker `pid` binds for a unix place."""
    path = Path(place.spec.path)
    return str(path.parent / f".{pid:x}.{_short(path.name)}")


def _short(name: str) -> str:
    """Return letters and digits for a socket's name, so that two in one folder do not meet."""
    return f"{zlib.crc32(os.fsencode(name)) & 0xFFFFFF:x}"


def dress(place: Place, pid: int, config: Config) -> None:
    """Give a worker's own unix socket the mode and owner that the settings ask for; nothing for a port.

    Raises:
        StartError: that is not ours to give.
    """
    if place.reserved is not None:
        return
    grpc = config.grpc
    path = Path(own_path(place, pid))
    try:
        uid, gid = owner_ids(grpc.socket_owner or None, grpc.socket_group or None)
        if uid not in {-1, os.geteuid()} or gid not in {-1, os.getegid()}:
            os.chown(path, uid, gid)
        path.chmod(grpc.socket_mode)
    except (OSError, AuthMilterError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise StartError(f"cannot set owner and mode of {place.text}: {reason}") from e


def publish(place: Place, pid: int) -> None:
    """Let the path of the settings lead to this worker's socket, at once; nothing for a port.

    Raises:
        StartError: the link cannot be made.
    """
    if place.reserved is not None:
        return
    own = Path(own_path(place, pid))
    beside = own.with_name(own.name + "l")
    try:
        beside.unlink(missing_ok=True)
        beside.symlink_to(own.name)
        beside.rename(place.spec.path)
    except OSError as e:
        raise StartError(f"cannot listen on {place.text}: {e.strerror}") from e


def forget_path(place: Place, pid: int) -> None:
    """Remove what a worker that has ended left of its own path (one that was killed leaves it)."""
    if place.reserved is None:
        with contextlib.suppress(OSError):
            Path(own_path(place, pid)).unlink(missing_ok=True)


def release(place: Place) -> None:
    """Give the place up: the port, or the link if it leads nowhere any more or to one of our own."""
    if place.reserved is not None:
        place.reserved.close()
        return
    path = Path(place.spec.path)
    with contextlib.suppress(OSError):
        target = path.readlink().name
        if target.startswith(".") and target.endswith(f".{_short(path.name)}"):
            path.unlink()
