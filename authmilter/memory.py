"""Whole results kept for as long as the answers they stand on: the same client and domain come again and again.

A result may be kept only if it follows from its key and from DNS answers that were all had, and no longer than the
first of those answers lives. One memory belongs to one resolver: a zone-file run never meets the network's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

from authmilter.deadline import monotonic
from authmilter.dns.answer import Answer, Failed, Found, Question

__all__ = ["ResultMemory", "lifetime"]

#: No result is kept for longer than this, in seconds, whatever its TTLs say.
_LONGEST = 3600.0


class ResultMemory:
    """Results by key, each until its time; the least recently used go first.

    Args:
        most: how many are kept (about 1 KB each; 0: none).
        clock: returns monotonic seconds.
    """

    __slots__ = ("_clock", "_kept", "_most", "hits", "misses")

    def __init__(self, most: int = 10_000, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, object]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable) -> object | None:
        """Return the result kept under `key`, or None."""
        held = self._kept.get(key)
        if held is None:
            self.misses += 1
            return None
        if held[0] <= self._clock():
            del self._kept[key]
            self.misses += 1
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        return held[1]

    def put(self, key: Hashable, result: object, seconds: float) -> None:
        """Keep `result` for `seconds` (0 or less: not at all)."""
        if seconds <= 0 or self._most == 0:
            return
        self._kept[key] = (self._clock() + min(seconds, _LONGEST), result)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


def lifetime(exchanged: Iterable[tuple[Question, Answer]]) -> float:
    """Return for how many seconds a result that used these answers may be kept; 0 for not at all.

    Not at all: a failed answer, or a text with a `%` (an SPF macro, RFC 7208 §7, may name the local part or the
    HELO name, which are in no key).
    """
    shortest = _LONGEST
    for _question, answer in exchanged:
        if isinstance(answer, Failed):
            return 0.0
        if isinstance(answer, Found) and any(b"%" in text for text in answer.texts()):
            return 0.0
        shortest = min(shortest, answer.ttl)
    return shortest
