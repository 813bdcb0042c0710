"""What a service does before it serves: its listening sockets, its limit of open files, another user.

Used by the supervisor, and by a worker that runs alone. How it fails: `StartError` in an administrator's words.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from pwd import getpwnam
from typing import TYPE_CHECKING

from authmilter.errors import AuthMilterError
from authmilter.milter.sockets import (
    DEFAULT_BACKLOG,
    Family,
    ListenSpec,
    open_listener,
    owner_ids,
    remove_listener,
)
from authmilter.systemd import Passed

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = [
    "Listener",
    "StartError",
    "adapt",
    "adopted",
    "become",
    "close_listener",
    "listen",
    "make_folder",
    "raise_file_limit",
]

#: Open files a process needs besides its sessions: name servers asked, log, channels.
_OTHER_FILES = 1200


class StartError(AuthMilterError):
    """The service cannot start for a reason outside its configuration file (a socket, a user)."""


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A listening socket: its place as written in the settings, and whether a service manager holds it too."""

    spec: ListenSpec
    sock: socket.socket
    activated: bool = False

    @property
    def name(self) -> str:
        """The place in the settings' form."""
        return str(self.spec)

    @property
    def reachable(self) -> bool:
        """False of a unix socket whose path is no socket any more."""
        return self.spec.family is not Family.UNIX or self.activated or Path(self.spec.path).is_socket()


def listen(config: Config, text: str) -> Listener:
    """Open the milter socket that `text` names, with mode and owner of the settings.

    Raises:
        StartError: it cannot be had.
    """
    milter = config.milter
    spec = ListenSpec.parse(text)
    service_user = config.user if os.geteuid() == 0 else ""
    try:
        sock = open_listener(
            spec,
            backlog=DEFAULT_BACKLOG,
            mode=milter.socket_mode,
            owner=milter.socket_owner or service_user or None,
            group=milter.socket_group or None,
        )
    except (OSError, AuthMilterError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise StartError(f"cannot listen on {text}: {reason}") from e
    return Listener(spec, sock)


def adapt(config: Config, listener: Listener) -> None:
    """Give an open unix socket the mode and owner that the settings now ask for.

    Raises:
        StartError: that is not ours to give.
    """
    if listener.activated or listener.spec.family is not Family.UNIX:
        return
    milter = config.milter
    try:
        path = Path(listener.spec.path)
        found = path.stat()
        uid, gid = owner_ids(milter.socket_owner or None, milter.socket_group or None)
        # Only what differs: a service that has given root up may not even set what is there already.
        if uid not in {-1, found.st_uid} or gid not in {-1, found.st_gid}:
            os.chown(path, uid, gid)
        if stat.S_IMODE(found.st_mode) != milter.socket_mode:
            path.chmod(milter.socket_mode)
    except (OSError, AuthMilterError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise StartError(f"cannot change owner and mode of {listener.name}: {reason}") from e


def adopted(passed: Passed) -> Listener:
    """Return a socket of the service manager as a listener."""
    sock = passed.sock
    place = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = place if isinstance(place, str) else "@" + place[1:].decode("utf-8", "replace")
        spec = ListenSpec(family=Family.UNIX, path=path)
    else:
        family = Family.INET6 if sock.family == socket.AF_INET6 else Family.INET
        spec = ListenSpec(family=family, host=place[0], port=place[1])
    return Listener(spec, sock, activated=True)


def close_listener(listener: Listener) -> bool:
    """Close a listening socket and remove its path. False if the path stays because someone still listens there."""
    if listener.activated:
        listener.sock.close()
        return True
    try:
        removed = remove_listener(listener.spec, listener.sock)
    except OSError:
        removed = True  # not ours to remove; the next start replaces a socket that nobody listens on
    listener.sock.close()
    return removed or listener.spec.family is not Family.UNIX


def make_folder(folder: Path, config: Config) -> None:
    """Make a missing folder for sockets, and give it to the service user (if we are root).

    Raises:
        OSError: it cannot be made.
    """
    if folder.exists():
        return
    folder.mkdir(mode=0o755, parents=True)
    if os.geteuid() == 0 and config.user:
        user = getpwnam(config.user)
        os.chown(folder, user.pw_uid, user.pw_gid)


def raise_file_limit(sessions: int) -> int:
    """Allow this process and its children the open files that `sessions` sessions each need.

    Returns how many sessions that really is: fewer where the hard limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sessions + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return sessions
    if hard != resource.RLIM_INFINITY and hard < wanted and os.geteuid() == 0:
        with contextlib.suppress(ValueError, OSError):  # the kernel has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, wanted))
            hard = wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= wanted:
        return sessions
    return max(allowed - _OTHER_FILES, allowed // 2, 1)


def become(config: Config) -> None:
    """Become the user and group of the settings, for good; nothing where none is named.

    Raises:
        StartError: there is no such user or group, or we may not become it.
    """
    if not config.user and not config.group:
        return
    try:
        user = getpwnam(config.user) if config.user else None
    except KeyError:
        raise StartError(f"`user`: there is no user `{config.user}`") from None
    try:
        group = owner_ids(None, config.group)[1] if config.group else -1
    except AuthMilterError:
        raise StartError(f"`group`: there is no group `{config.group}`") from None
    uid = user.pw_uid if user is not None else os.geteuid()
    gid = group if group != -1 else user.pw_gid if user is not None else os.getegid()
    if os.geteuid() != 0:
        if uid != os.geteuid() or gid != os.getegid():
            who = config.user or config.group
            raise StartError(f"cannot become `{who}`: only a service started as root can")
        return
    # The order matters: once the user has changed, the groups cannot.
    if user is not None:
        os.initgroups(user.pw_name, gid)
    else:
        os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
