"""Where a milter listens: the socket's written forms, and opening it.

`ListenSpec.parse` reads every form that administrators know: `inet:port@host` and `inet6:port@[host]` (libmilter,
OpenDKIM), `inet:host:port`, `inet:[host]:port`, `unix:/path` and `local:/path` (as written in Postfix's
`smtpd_milters`), `unix:///path`, and a bare path.

`open_listener` gives a listening, non-blocking socket. A unix socket appears under its path at once with its
right owner and mode (it is made beside it and renamed), and only ever replaces a socket that nobody listens on.

How it fails: a text that is no such form is `InvalidName`; an address that cannot be had is `OSError` (with the
path or address in it); an owner or group that does not exist is `AuthMilterError`.
"""

from __future__ import annotations

import errno
import grp
import ipaddress
import os
import pwd
import re
import socket
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from authmilter.errors import AuthMilterError, InvalidName

__all__ = ["Family", "ListenSpec", "open_listener", "owner_ids", "refuse_if_taken", "remove_listener"]

#: sizeof(sun_path) is 108 on Linux, its final NUL included (unix(7)).
MAX_UNIX_PATH = 107

#: How many connections may wait to be accepted; the kernel cuts it to net.core.somaxconn.
DEFAULT_BACKLOG = 1024

#: A unix socket's mode unless told otherwise: for the MTA's group, not for everybody.
DEFAULT_MODE = 0o660

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_FORMS = "inet:8891@127.0.0.1, inet6:8891@[::1] or unix:/run/authmilter/milter.sock"


class Family(StrEnum):
    """What kind of socket it is."""

    INET = "inet"
    INET6 = "inet6"
    UNIX = "unix"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSpec:
    """One place to listen: `host` and `port` (0: the system chooses) of a TCP socket, or the `path` of a unix one.

    `host` is an address in its usual text form, or a host name, which is looked up when the socket is opened.
    """

    family: Family
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> ListenSpec:
        """Read one of the forms above.

        Raises:
            InvalidName: not such a form; the message says what is wrong and shows one that is right.
        """
        if text.startswith("/"):
            return cls._unix(text, text)
        scheme, colon, rest = text.partition(":")
        scheme = scheme.lower()
        if not colon or scheme not in {"inet", "inet6", "unix", "local"}:
            raise InvalidName(f"`{text}` is no listening address; write {_FORMS}")
        if scheme in {"unix", "local"}:
            return cls._unix(text, rest[2:] if rest.startswith("///") else rest)
        return cls._tcp(text, Family(scheme), rest)

    @classmethod
    def _unix(cls, text: str, path: str) -> ListenSpec:
        if not path.startswith("/") or path.endswith("/"):
            raise InvalidName(
                f"`{text}` needs the absolute path of a socket, as in unix:/run/authmilter/milter.sock"
            )
        if "\0" in path:
            raise InvalidName("a NUL character in the path of a unix socket")
        if len(os.fsencode(path)) > MAX_UNIX_PATH:
            raise InvalidName(f"`{text}`: the path of a unix socket has at most {MAX_UNIX_PATH} octets")
        return cls(family=Family.UNIX, path=path)

    @classmethod
    def _tcp(cls, text: str, family: Family, rest: str) -> ListenSpec:
        if "@" in rest:
            port, _, host = rest.partition("@")  # libmilter's form
        else:
            host, _, port = rest.rpartition(":")  # Postfix's form
        if not host:
            raise InvalidName(
                f"`{text}` names no address; write {family}:{rest}@127.0.0.1, or @0.0.0.0 for all"
            )
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise InvalidName(f"`{port}` in `{text}` is no port number (1 to 65535)")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            if not _HOST_NAME.fullmatch(host):
                raise InvalidName(f"`{host}` in `{text}` is neither an address nor a host name") from None
        else:
            if family is Family.INET6 and ip.version == 4:
                raise InvalidName(f"`{text}` is an IPv4 address; write inet:{port}@{host}")
            family = Family.INET if ip.version == 4 else Family.INET6  # Postfix writes inet:[::1]:8891
            host = str(ip)
        return cls(family=family, host=host, port=int(port))

    def __str__(self) -> str:
        if self.family is Family.UNIX:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.family}:{self.port}@{host}"

    @property
    def for_postfix(self) -> str:
        """The same place as Postfix's `smtpd_milters` writes it."""
        if self.family is Family.UNIX:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"inet:{host}:{self.port}"

    @property
    def for_libmilter(self) -> str:
        """The same place as smfi_setconn() takes it (no brackets)."""
        if self.family is Family.UNIX:
            return f"unix:{self.path}"
        return f"{self.family}:{self.port}@{self.host}"


def open_listener(
    spec: ListenSpec,
    *,
    mode: int = DEFAULT_MODE,
    owner: str | None = None,
    group: str | None = None,
    backlog: int = DEFAULT_BACKLOG,
    reuse_port: bool = False,
) -> socket.socket:
    """Open the socket, bind it and listen; it is non-blocking and not inherited over exec.

    Args:
        spec: where.
        mode: of a unix socket (`0o660`).
        owner: user name or number that shall own a unix socket; None: as it comes.
        group: the same for its group.
        backlog: how many connections may wait.
        reuse_port: let several sockets share a TCP address, each with its share of the connections.

    Raises:
        OSError: the address cannot be had; a unix path where a living server listens is EADDRINUSE, and one
            that is not a socket is ENOTSOCK (it is left alone).
        AuthMilterError: no such owner or group.
    """
    if spec.family is Family.UNIX:
        uid, gid = owner_ids(owner, group)
        return _open_unix(spec.path, mode, uid, gid, backlog)
    kind = socket.AF_INET if spec.family is Family.INET else socket.AF_INET6
    found = socket.getaddrinfo(spec.host, spec.port, kind, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    sock = socket.socket(kind, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(found[0][4])
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as e:
        sock.close()
        raise OSError(e.errno, e.strerror, str(spec)) from None
    return sock


def remove_listener(spec: ListenSpec, sock: socket.socket) -> bool:
    """Remove a unix socket's path if it still is `sock`'s (a successor may have replaced it). True if removed."""
    if spec.family is not Family.UNIX:
        return False
    # The path leads to the file system's inode and the descriptor to the socket's own, so that the two cannot be
    # compared; but nobody can connect to a path whose listener is gone, and a successor's path can be connected to.
    sock.close()
    if _state(spec.path) is not _State.STALE:
        return False
    Path(spec.path).unlink(missing_ok=True)
    return True


class _State(StrEnum):
    ABSENT = "absent"
    STALE = "stale"
    ALIVE = "alive"
    OTHER = "other"


def _state(path: str) -> _State:
    """Say what stands at `path`: nothing, a socket nobody listens on, a living one, or something else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return _State.ABSENT
    if not stat.S_ISSOCK(found.st_mode):
        return _State.OTHER
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        return _State.STALE
    if code == errno.ENOENT:
        return _State.ABSENT
    return _State.ALIVE  # connected, or its backlog is full (EAGAIN), or not for us to know (EACCES)


def refuse_if_taken(path: str) -> None:
    """Refuse the path of a unix socket that may not be replaced.

    Raises:
        OSError: EADDRINUSE where a living server listens, ENOTSOCK where something else stands.
    """
    state = _state(path)
    if state is _State.ALIVE:
        raise OSError(errno.EADDRINUSE, "another server listens on this socket", path)
    if state is _State.OTHER:
        raise OSError(errno.ENOTSOCK, "this path exists and is not a socket", path)


def _open_unix(path: str, mode: int, uid: int, gid: int, backlog: int) -> socket.socket:
    refuse_if_taken(path)
    beside = Path(path).parent / f".{os.getpid():x}.s"
    if len(os.fsencode(str(beside))) > MAX_UNIX_PATH:
        raise OSError(errno.ENAMETOOLONG, "the folder's name is too long for a unix socket", path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        beside.unlink(missing_ok=True)
        sock.bind(str(beside))
        try:
            if uid != -1 or gid != -1:
                os.chown(beside, uid, gid)
            beside.chmod(mode)
            sock.listen(backlog)
            sock.setblocking(False)
            beside.rename(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    except OSError as e:
        sock.close()
        raise OSError(e.errno, e.strerror, path) from None
    return sock


def owner_ids(owner: str | None, group: str | None) -> tuple[int, int]:
    """Return the numbers of a user and a group given by name or number; -1 for None.

    Raises:
        AuthMilterError: no such user or group.
    """
    uid = gid = -1
    if owner is not None:
        try:
            uid = int(owner) if owner.isascii() and owner.isdigit() else pwd.getpwnam(owner).pw_uid
        except KeyError:
            raise AuthMilterError(f"there is no user `{owner}` to own the socket") from None
    if group is not None:
        try:
            gid = int(group) if group.isascii() and group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise AuthMilterError(f"there is no group `{group}` to own the socket") from None
    return uid, gid
