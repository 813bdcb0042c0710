"""The control socket: one request and one answer for each connection, each a line of JSON.

It lives in the supervisor's selector and never waits for anybody: a client that is slow, silent, says too much or does
not read its answer is closed after its time, and there are only so many at once.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable

__all__ = ["Client", "ControlServer"]

_MAX_REQUEST = 64 * 1024
_MAX_CLIENTS = 32
#: Seconds to say what is wanted, and to take the answer.
_PATIENCE = 10.0


class Client:
    """One connection; `answer` ends it."""

    __slots__ = ("_data", "_out", "_server", "_sock", "until")

    def __init__(self, server: ControlServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._data = bytearray()
        self._out = b""
        #: when its time is over (monotonic seconds); None while it waits for us
        self.until: float | None = time.monotonic() + _PATIENCE

    def answer(self, answer: dict[str, object]) -> None:
        """Write the answer, as fast as it is read, and close; nothing if the client has gone."""
        if self._sock.fileno() < 0 or self._out:
            return
        self._out = json.dumps(answer).encode() + b"\n"
        self.until = time.monotonic() + _PATIENCE
        self._server.watch(self._sock, selectors.EVENT_WRITE, self.ready)

    def ready(self, events: int) -> None:
        """Go on where the socket can be read or written."""
        try:
            if events & selectors.EVENT_WRITE:
                self._out = self._out[self._sock.send(self._out) :]
                if not self._out:
                    self.close()
                return
            piece = self._sock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self._data += piece
        if b"\n" not in piece and piece and len(self._data) <= _MAX_REQUEST:
            return
        self.until = None
        self._server.unwatch(
            self._sock
        )  # what else it says, and that it hangs up, is found when it is answered
        self._server.handle(self, _command(bytes(self._data)))

    def close(self) -> None:
        """Hang up."""
        if self._sock.fileno() >= 0:
            self._server.unwatch(self._sock)
            self._server.forget(self)
            self._sock.close()

    def fileno(self) -> int:
        """Return the descriptor, which a child process closes."""
        return self._sock.fileno()


class ControlServer:
    """Accepts clients and hands each request on.

    Args:
        selector: where the sockets are watched; every key's data is called with the ready events.
        sock: the listening socket; closed by `close`.
        handle: called with the client and its command (an empty text where it said nothing we know).
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        sock: socket.socket,
        handle: Callable[[Client, str], None],
    ) -> None:
        self._selector = selector
        self._sock = sock
        self._clients: dict[Client, None] = {}
        self.handle = handle
        selector.register(sock, selectors.EVENT_READ, self._accept)

    def sweep(self, now: float) -> None:
        """Close the clients whose time is over."""
        for client in [c for c in self._clients if c.until is not None and c.until < now]:
            client.close()

    def close(self) -> None:
        """Close everything."""
        for client in tuple(self._clients):
            client.close()
        self._selector.unregister(self._sock)
        self._sock.close()

    def filenos(self) -> list[int]:
        """Return all descriptors, which a child process closes."""
        return [self._sock.fileno(), *(client.fileno() for client in self._clients)]

    def watch(self, sock: socket.socket, events: int, ready: Callable[[int], None]) -> None:
        """Call `ready` when a client's socket is."""
        self._selector.register(sock, events, ready)

    def unwatch(self, sock: socket.socket) -> None:
        """Watch a client's socket no more."""
        if sock in self._selector.get_map():
            self._selector.unregister(sock)

    def forget(self, client: Client) -> None:
        """Let go of a client."""
        self._clients.pop(client, None)

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        if len(self._clients) >= _MAX_CLIENTS:
            sock.close()
            return
        sock.setblocking(False)
        client = Client(self, sock)
        self._clients[client] = None
        self.watch(sock, selectors.EVENT_READ, client.ready)


def _command(data: bytes) -> str:
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    command = request.get("command") if isinstance(request, dict) else None
    return command if isinstance(command, str) else ""
