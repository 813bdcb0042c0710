"""The control socket: opening it, trying again where that cannot be, closing it.

How it fails: the service goes on without; the first failure and its end are logged.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from authmilter.control import Client, ControlServer
from authmilter.errors import AuthMilterError
from authmilter.milter.sockets import Family, ListenSpec, open_listener
from authmilter.startup import Listener, close_listener, make_folder
from authmilter.supervise.loop import Loop
from authmilter.supervise.state import State

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["Desk"]

_RETRY = 5.0


class Desk:
    """Where commands are taken.

    Args:
        state: the service as it stands.
        loop: watches the socket and its clients.
        handle: is called with the client and its command.
    """

    def __init__(self, state: State, loop: Loop, handle: Callable[[Client, str], None]) -> None:
        self._state = state
        self._loop = loop
        self._handle = handle
        self._server: ControlServer | None = None
        self._listener: Listener | None = None
        self._passed: socket.socket | None = None
        self._trouble = ""

    def begin(self, config: Config, passed: socket.socket | None = None) -> None:
        """Open the control socket, or take the one that the service manager has handed in."""
        self._passed = passed
        self._open(config)

    def _open(self, config: Config) -> None:
        sock, self._listener = self._passed, None
        if sock is None:
            path = config.control.socket
            if not path:
                return
            try:
                spec = ListenSpec(family=Family.UNIX, path=str(Path(path).absolute()))
                make_folder(Path(spec.path).parent, config)
                user = config.user if os.geteuid() == 0 else ""
                sock = open_listener(spec, mode=0o600, owner=user or None, backlog=64)
                self._listener = Listener(spec, sock)
            except (OSError, AuthMilterError) as e:
                reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
                if reason != self._trouble:
                    self._state.say("warning", "no control socket", path=path, error=reason)
                self._trouble = reason
                self._loop.later(_RETRY, self._retry)
                return
        if self._trouble:
            self._state.say("info", "control socket open", path=config.control.socket)
        self._trouble = ""
        self._server = ControlServer(self._loop.selector, sock, self._handle)

    def _retry(self) -> None:
        if self._server is None and not self._state.stopping:
            self._open(self._state.config)

    def reopen(self, config: Config) -> None:
        """Open it where the settings now say; one that was handed in stays."""
        if self._passed is None:
            self.close()
            self._open(config)

    def sweep(self, now: float) -> None:
        """Close the clients whose time is over."""
        if self._server is not None:
            self._server.sweep(now)

    def close(self) -> None:
        """Close everything."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if self._listener is not None:
            close_listener(self._listener)

    def filenos(self) -> set[int]:
        """Return all descriptors, which a child process closes."""
        return set(self._server.filenos()) if self._server is not None else set()
