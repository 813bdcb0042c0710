"""Accepting milter connections, and handing each to the worker with the fewest open sessions (SCM_RIGHTS).

Why the parent accepts, for TCP too: workers that accept on one socket do not share the load, and the kernel's
SO_REUSEPORT spreads by hash, which for 16 connections is often 11 to 5. Counting spreads evenly, and as the
listening sockets live in one process, no reload, no worker's death and no new generation refuses a connection. A
connection stays open here until its worker has said that it took it: where the worker dies before, another gets it.
(With `engine: libmilter` a worker accepts by itself, on the same listening socket: libmilter takes no connections.)

How it fails: never by itself; a connection that nobody can take waits, here or in the kernel's queue.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from authmilter.startup import Listener
from authmilter.supervise.loop import Loop
from authmilter.supervise.member import Member
from authmilter.supervise.settings import Role
from authmilter.supervise.state import State

__all__ = ["Balancer"]

#: Connections accepted in one go before anything else is looked at.
_ACCEPT_BURST = 64


class Balancer:
    """Spreads connections over the milter workers of the generation that serves.

    Args:
        state: says which generation that is.
        loop: watches the listening sockets.
        members: gives all workers there are.
    """

    def __init__(self, state: State, loop: Loop, members: Callable[[], Iterable[Member]]) -> None:
        self._state = state
        self._loop = loop
        self._members = members
        self._accepting = False
        self._held: deque[tuple[socket.socket, str]] = deque()
        #: sessions that a worker may have at most
        self.most = state.config.milter.max_sessions
        #: connections closed because nobody could take them
        self.cut = 0

    @property
    def waiting(self) -> int:
        """How many connections were accepted and wait for a worker."""
        return len(self._held)

    def pause(self) -> None:
        """Accept nothing for now; connections wait in the kernel's queue."""
        if not self._accepting:
            return
        for listener in self._state.serving.listeners:
            self._loop.forget(listener.sock)
        self._accepting = False

    def resume(self) -> None:
        """Go on where it had to wait for a worker."""
        while self._held and self._taker() is not None:
            before = len(self._held)
            self.hand_over(*self._held.popleft())
            if len(self._held) >= before:
                self._held.rotate(1)  # it was put back at the end
                return
        if not self._held and not self._accepting and self._taker() is not None:
            self._start()

    def hand_over(self, connection: socket.socket, listener: str) -> None:
        """Hand a connection to a worker; hold it while none can take it."""
        failed: Member | None = None
        while (taker := self._taker(failed)) is not None:
            message = json.dumps({"open": listener, "n": taker.given + 1}).encode()
            try:
                socket.send_fds(taker.channel, [message], [connection.fileno()])
            except OSError:
                if failed is not None:
                    break
                failed = taker  # its queue is full, or it has just died: another one, or wait
                continue
            taker.given += 1
            taker.pending[taker.given] = (time.monotonic(), connection, listener)
            return
        self._held.append((connection, listener))

    def take_back(self, item: Member) -> None:
        """Hold what a worker that has ended never took: another one can."""
        self._held.extendleft((sock, listener) for _, sock, listener in reversed(item.pending.values()))

    def empty(self, listener: Listener) -> None:
        """Hand over who has connected already to a listening socket that will be closed."""
        if listener.activated or not self._state.serving.native:
            return
        for _ in range(_ACCEPT_BURST * 16):
            try:
                connection, _peer = listener.sock.accept()
            except OSError:
                break
            self.hand_over(connection, listener.name)

    def drop(self) -> None:
        """Close what waits for a worker."""
        while self._held:
            self.cut += 1
            self._held.popleft()[0].close()

    def filenos(self) -> set[int]:
        """Return the descriptors of what waits."""
        return {sock.fileno() for sock, _ in self._held}

    def _start(self) -> None:
        if self._accepting or self._state.stopping or not self._state.serving.native:
            return
        for listener in self._state.serving.listeners:
            self._loop.watch(listener.sock, selectors.EVENT_READ, partial(self._accept, listener))
        self._accepting = True

    def _accept(self, listener: Listener, _events: int) -> None:
        for _ in range(_ACCEPT_BURST):
            if self._held or self._taker() is None:
                # Nobody can take it: it waits in the kernel's queue, which is not a refusal.
                self.pause()
                return
            try:
                connection, _peer = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                self._state.say("error", "accept", listen=listener.name, error=e.strerror)
                self.pause()
                return  # the next tick tries again
            self.hand_over(connection, listener.name)

    def _taker(self, without: Member | None = None) -> Member | None:
        """Return the worker with the fewest sessions (of these, the one that was handed the fewest so far)."""
        serving = self._state.serving
        if not serving.native:
            return None
        now = time.monotonic()
        return min(
            (
                w for w in self._members()
                if w.role is Role.MILTER and w.generation == serving.number
                and w is not without and w.takes(now, self.most)
            ),
            key=lambda w: (w.load, w.given),
            default=None,
        )  # fmt: skip
