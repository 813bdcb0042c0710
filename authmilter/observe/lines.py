"""Log lines written in batches, off the event loop: a reader of our log that stalls must not stall the mail.

A line is handed at once to a thread, which writes it; those that come within a moment of it are gathered and
handed over together, each whole and in order, so that a busy worker writes a batch a moment. What the thread cannot write yet is kept up to a limit; beyond it lines are dropped and counted. A process that is killed
loses the lines of its last moment (`GATHER`), never a mail.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TextIO

__all__ = ["GATHER", "LineWriter"]

#: How long lines are gathered, in seconds.
GATHER = 0.05
#: Lines that are handed over at once, however short the moment.
_BATCH = 500
#: Lines that may wait for a reader that stalls.
_MOST_WAITING = 20_000
#: How long `close` waits for the rest to be written, in seconds.
_CLOSING = 5.0


class LineWriter:
    """Writes lines to `stream` from a thread of its own.

    Args:
        stream: where to; whole batches are written and flushed.
        later: calls a function after so many seconds on the event loop that also calls `put`.
        failed: told of every batch that could not be written, or had to be dropped, with its number of lines; called
            from the thread or from `put`.
    """

    __slots__ = (
        "_done",
        "_failed",
        "_gathered",
        "_handed",
        "_later",
        "_stream",
        "_thread",
        "_timed",
        "_to_write",
    )

    def __init__(
        self,
        stream: TextIO,
        later: Callable[[float, Callable[[], None]], object],
        failed: Callable[[int], None],
    ) -> None:
        self._stream = stream
        self._later = later
        self._failed = failed
        self._gathered: list[str] = []
        #: a moment is running
        self._timed = False
        self._to_write: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        # Lines handed over, and done with: each number is written by one side only.
        self._handed = 0
        self._done = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Take a line, its newline included. Never waits, never raises."""
        self._gathered.append(line)
        if not self._timed:
            self._hand_over()
            self._timed = True
            self._later(GATHER, self._moment_over)
        elif len(self._gathered) >= _BATCH:
            self._hand_over()

    def close(self) -> None:
        """Write what is left, waiting for it a few seconds at most. No `put` may follow."""
        self._hand_over()
        self._to_write.put(None)
        self._thread.join(_CLOSING)

    def _moment_over(self) -> None:
        self._timed = bool(self._gathered)
        if self._timed:
            self._hand_over()
            self._later(GATHER, self._moment_over)

    def _hand_over(self) -> None:
        lines, self._gathered = self._gathered, []
        if not lines:
            return
        if self._handed - self._done > _MOST_WAITING:
            self._failed(len(lines))
            return
        self._handed += len(lines)
        self._to_write.put(lines)

    def _write_all(self) -> None:
        while (lines := self._to_write.get()) is not None:
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):  # a full disk, a closed pipe or stream
                self._failed(len(lines))
            self._done += len(lines)
