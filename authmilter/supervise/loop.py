"""The parent's only loop: descriptors, times and signals, one after the other, none of which may end it.

What it promises: an action that raises is reported and the loop goes on; a signal that comes while nothing is waited
for is not lost. It never runs two things at once, so the parts of the parent need no locks.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Protocol

__all__ = ["HasFileno", "Loop"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class HasFileno(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Loop:
    """Waits for the next thing to do and does it; from its making on, signals are noted."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._signals: list[int] = []
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        for number in _SIGNALS:
            signal.signal(number, self._note_signal)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self.watch(self._wake_read, selectors.EVENT_READ, self._wake)

    def turn(self, obey: Callable[[list[int]], None], bug: Callable[[Exception], None]) -> None:
        """Wait for the next thing to do and do it.

        Args:
            obey: is called with the numbers of the signals that have come, if any have.
            bug: is told of an exception that an action raised.
        """
        due = min((at for at, _ in self._due), default=0.0)
        watched = self.selector.get_map()
        for key, events in self.selector.select(max(0.0, due - time.monotonic())):
            current = watched.get(key.fd)
            if current is not None and current.fileobj is key.fileobj:  # else this turn has closed it already
                _guarded(partial(current.data, events), bug)
        if self._signals:
            signals, self._signals = self._signals, []
            _guarded(partial(obey, signals), bug)
        now = time.monotonic()
        ready = [action for at, action in self._due if at <= now]
        self._due = [item for item in self._due if item[0] > now]
        for action in ready:
            _guarded(action, bug)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after so many seconds."""
        self._due.append((time.monotonic() + seconds, action))

    def watch(self, source: HasFileno | int, events: int, call: Callable[[int], None]) -> None:
        """Call `call` with the events whenever a descriptor is ready for them."""
        self.selector.register(source, events, call)

    def rewatch(self, source: HasFileno | int, events: int, call: Callable[[int], None]) -> None:
        """Wait for other events of a descriptor that is watched."""
        self.selector.modify(source, events, call)

    def forget(self, source: HasFileno | int) -> None:
        """Watch a descriptor no more."""
        self.selector.unregister(source)

    def leave(self) -> set[int]:
        """Take a process that has just been forked out of this loop; return the descriptors it should close.

        They are to be closed by number: the objects would take themselves out of the parent's epoll, which is the
        child's too.
        """
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS[:-1]:
            # They reach the whole group or control group; the parent decides what becomes of us.
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        mine = {key.fd for key in self.selector.get_map().values()}
        self.selector.close()
        return mine | {self._wake_write.fileno()}

    def close(self) -> None:
        """Watch nothing any more."""
        self.selector.close()

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _wake(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass


def _guarded(action: Callable[[], None], bug: Callable[[Exception], None]) -> None:
    try:
        action()
    except Exception as e:  # noqa: BLE001 - the parent outlives its bugs
        bug(e)
