"""How many sessions each worker has, in memory that all of them see, so that each knows whether a connection is its.

A `Board` is made by the parent before it forks; each worker writes its own `Seat` and reads all of them. Nothing is
locked: a number that is a moment old costs a little evenness, never a connection.

A worker takes a connection where nobody else who accepts has fewer sessions, give or take an eighth. Of idle workers the
first goes: what comes one at a time is one worker's, whose caches are warm, and the others sleep. Whoever has fewer and does not move for `PATIENCE` (it is busy with a large message, or hangs) is left out until it
moves, for a second at most, so that nobody waits for it.
"""

from __future__ import annotations

import mmap

__all__ = ["PATIENCE", "Board", "Seat"]

#: How long a connection is left to a worker with fewer sessions, in seconds.
PATIENCE = 0.05
#: After this it is looked at anew: it may be awake and only never be the quickest.
_FORGIVEN = 1.0
#: Added to the sessions of a worker that accepts nothing; more than anybody can have.
_CLOSED = 1 << 40
#: Sessions of which a worker may have one more than another: at few sessions none, at 100 of 4 workers 3.
_SLACK = 3


class Board:
    """The numbers of all workers of a generation.

    Args:
        seats: how many workers.
    """

    def __init__(self, seats: int) -> None:
        self.seats = seats
        # One row of sessions and one of connections taken; 8 octets each are written at once.
        self.numbers = memoryview(mmap.mmap(-1, 16 * seats)).cast("q")
        for number in range(seats):
            self.clear(number)

    def clear(self, number: int) -> None:
        """Empty a seat: its worker has ended, or there was none yet. What it has taken is the next one's to go on with."""
        self.numbers[number] = _CLOSED

    def sessions(self, number: int) -> int:
        """Return how many sessions a worker has."""
        return self.numbers[number] % _CLOSED

    def taken(self, number: int) -> int:
        """Return how many connections the workers of a seat have taken."""
        return self.numbers[self.seats + number]


class Seat:
    """The numbers of one worker, and what they are compared with; for that worker alone.

    Args:
        board: all numbers.
        number: which are its own.
    """

    __slots__ = (
        "_accepts",
        "_all",
        "_count",
        "_forgiven",
        "_number",
        "_seen",
        "_sessions",
        "_since",
        "_stuck",
        "_taken",
    )

    def __init__(self, board: Board, number: int) -> None:
        self._all = board.numbers
        self._count = board.seats
        self._number = number
        self._sessions = 0
        # Not from 0: this number only grows, whoever has the seat.
        self._taken = self._all[self._count + number]
        self._accepts = False
        self._stuck: dict[int, tuple[int, int]] = {}
        self._seen: list[int] = []
        self._since = self._forgiven = 0.0
        board.clear(number)

    def accept(self, yes: bool) -> None:  # noqa: FBT001 - its only argument
        """Say whether this worker takes connections at all."""
        self._accepts = yes
        self._write()

    def opened(self) -> None:
        """Count a session that this worker has begun."""
        self._sessions += 1
        self._taken += 1
        self._all[self._count + self._number] = self._taken
        self._write()

    def closed(self) -> None:
        """Count a session that has ended."""
        self._sessions -= 1
        self._write()

    def _write(self) -> None:
        self._all[self._number] = self._sessions if self._accepts else self._sessions + _CLOSED

    def may_take(self, now: float) -> bool:
        """Say whether a connection that waits is this worker's; who is told no asks again until it has gone.

        Args:
            now: monotonic seconds.
        """
        if self._stuck and now >= self._forgiven:
            self._stuck = {}
        if self._count == 1 or self._is_first():
            self._since = 0.0
            return True
        if not self._since:
            self._since, self._seen = now, self._all.tolist()
        if now - self._since < PATIENCE:
            return False
        # It is still there: those before us who have not moved since are not waited for.
        count, before = self._count, self._seen
        self._since, self._seen = now, self._all.tolist()
        self._forgiven = now + _FORGIVEN
        self._stuck = {
            n: (before[n], before[count + n])
            for n in range(count)
            if self._is_before_us(n)
            and (before[n], before[count + n]) == (self._seen[n], self._seen[count + n])
        }
        return self._is_first()

    @property
    def in_reserve(self) -> bool:
        """True for an idle worker while another accepts that goes before it when both are idle."""
        return not self._sessions and self._number > 0 and min(self._all[: self._number]) < _CLOSED

    @property
    def needed(self) -> bool:
        """True while all who go before this worker when idle have something to do besides the session they may be ending."""
        return min(self._all[: self._number], default=0) > 1

    def nobody_waits(self) -> None:
        """Hear that the connection has gone that this worker was not to take."""
        self._since = 0.0

    def _is_before_us(self, number: int) -> bool:
        theirs, mine = self._all[number], self._sessions
        if mine:
            return theirs < mine - (mine >> _SLACK)
        return theirs == 0 and number < self._number

    def _is_first(self) -> bool:
        everybody, count, mine = self._all, self._count, self._sessions
        if self._stuck:
            self._stuck = {
                n: was for n, was in self._stuck.items() if was == (everybody[n], everybody[count + n])
            }
        elif mine:
            return min(everybody[:count]) >= mine - (mine >> _SLACK)
        return not any(self._is_before_us(n) and n not in self._stuck for n in range(count))
