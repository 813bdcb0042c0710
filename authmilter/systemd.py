"""The two small protocols between a service manager and a service: sockets handed in, and words handed out.

Both are systemd's, are spoken by others too, and need no library: sd_listen_fds(3) and sd_notify(3). Where nobody
speaks them, `passed_sockets` finds none and `notify` says nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass

from authmilter.errors import AuthMilterError

__all__ = ["Passed", "notify", "passed_sockets", "watchdog_seconds"]

_FIRST = 3
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


@dataclass(frozen=True, slots=True)
class Passed:
    """A listening stream socket that the service manager opened, and what it calls it (`FileDescriptorName=`)."""

    name: str
    sock: socket.socket


def passed_sockets() -> tuple[Passed, ...]:
    """Take over the listening sockets of sd_listen_fds(3); the environment forgets them, so that they are taken once.

    Raises:
        AuthMilterError: a descriptor is no listening stream socket.
    """
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    count = os.environ.pop("LISTEN_FDS", "")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return ()
    found = []
    for number in range(int(count)):
        fd = _FIRST + number
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
            sound = (
                sock.family in _FAMILIES
                and sock.type == socket.SOCK_STREAM
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            )
        except OSError:
            sound = 0
        if not sound:
            raise AuthMilterError(f"descriptor {fd} of the service manager is no listening stream socket")
        sock.setblocking(False)
        found.append(Passed(names[number] if number < len(names) else "", sock))
    return tuple(found)


def notify(*lines: str) -> None:
    """Tell the service manager (sd_notify(3)): assignments such as `READY=1`. Never raises, never waits."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.send("\n".join(lines).encode())


def watchdog_seconds() -> float:
    """Return how often to say `WATCHDOG=1` (sd_watchdog_enabled(3): twice as often as demanded); 0: never."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not (usec.isascii() and usec.isdigit()):
        return 0.0
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(usec) / 2e6
