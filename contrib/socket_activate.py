#!/usr/bin/env python3
"""Open listening sockets and start a service with them, as a systemd socket unit does.

For machines without systemd, and to try socket activation in a terminal. Speaks sd_listen_fds(3).

    contrib/socket_activate.py --listen milter=inet:8891@127.0.0.1 -- authmilter run

Each `--listen` is a name and a place: `inet:PORT@HOST`, `inet6:PORT@HOST` or `unix:/path` (a socket that stands there
is replaced). The name `control` is the control socket. With `--keep` the command is started anew, with the same
sockets, whenever it ends well: who connects in between waits.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

_FIRST = 3


def open_socket(place: str) -> socket.socket:
    """Open the listening socket that `place` names.

    Raises:
        ValueError: it names none.
        OSError: it cannot be opened.
    """
    kind, _, rest = place.partition(":")
    if kind == "unix":
        path = Path(rest)
        if path.is_socket():
            path.unlink()
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(rest)
        path.chmod(0o660)
    elif kind in {"inet", "inet6"}:
        port, at, host = rest.partition("@")
        if not at:
            raise ValueError(f"`{place}` names no address")
        family = socket.AF_INET6 if kind == "inet6" else socket.AF_INET
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), int(port)))
    else:
        raise ValueError(f"`{place}` is none of inet:, inet6:, unix:")
    sock.listen(1024)
    return sock


def become(command: list[str], sockets: dict[str, socket.socket]) -> None:
    """Replace this process by the command, with the sockets as its descriptors 3, 4, ...; never returns."""
    high = [os.dup2(sock.fileno(), 200 + n, inheritable=False) for n, sock in enumerate(sockets.values())]
    for n, fd in enumerate(high, _FIRST):
        os.dup2(fd, n)
    passed = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(sockets)),
        "LISTEN_FDNAMES": ":".join(sockets),
    }
    os.execvpe(command[0], command, {**os.environ, **passed})  # noqa: S606 - to start a command is its purpose


def main() -> int:
    """Read the command line and do it; returns the exit code."""
    parser = argparse.ArgumentParser(description="Open listening sockets and start a service with them.")
    parser.add_argument("--listen", action="append", required=True, metavar="NAME=PLACE")
    parser.add_argument("--keep", action="store_true", help="start the command anew whenever it ends well")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    sockets = {}
    for item in given.listen:
        name, _, place = item.partition("=")
        try:
            sockets[name] = open_socket(place)
        except (OSError, ValueError) as e:
            parser.error(f"{item}: {e}")
    if not given.keep:
        become(given.command, sockets)
    code = 0
    while code == 0:
        pid = os.fork()
        if pid == 0:
            become(given.command, sockets)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code


if __name__ == "__main__":
    sys.exit(main())
