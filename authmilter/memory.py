"""Whole results kept for as long as the answers they stand on: the same client and domain come again and again.

A result may be kept only if it follows from its key and from DNS answers that were all had, and no longer than the
first of those answers lives. One memory belongs to one resolver: a zone-file run never meets the network's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, fields, is_dataclass

from authmilter.deadline import monotonic
from authmilter.dns.answer import Answer, Failed, Found, Question

__all__ = ["MemoryStats", "ResultMemory", "lifetime"]

#: No result is kept for longer than this, in seconds, whatever its TTLs say.
_LONGEST = 3600.0


#: What a value costs in memory, about, in octets, besides its text; and how deep values are looked into.
_ENTRY_COST = 200
_VALUE_COST = 56
_DEEPEST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """What a memory has done so far (`hits`, `misses`, `evictions`), and what it holds (`entries`, `octets`)."""

    hits: int
    misses: int
    evictions: int
    entries: int
    octets: int


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
    result: object
    octets: int


class ResultMemory:
    """Results by key, each until its time; the least recently used go first.

    Args:
        most: octets that may be kept, about (0: nothing is kept).
        clock: returns monotonic seconds.
    """

    __slots__ = ("_clock", "_evictions", "_hits", "_kept", "_misses", "_most", "_octets")

    def __init__(self, most: int = 16 << 20, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._octets = 0
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    def get(self, key: Hashable) -> object | None:
        """Return the result kept under `key`, or None."""
        held = self._kept.get(key)
        if held is not None:
            if held.until > self._clock():
                self._kept.move_to_end(key)
                self._hits += 1
                return held.result
            self._forget(key)
        self._misses += 1
        return None

    def put(self, key: Hashable, result: object, seconds: float) -> None:
        """Keep `result` for `seconds` (0 or less: not at all)."""
        if seconds <= 0 or not self._most:
            return
        octets = _ENTRY_COST + _octets(key) + _octets(result)
        if octets > self._most:
            return
        if key in self._kept:
            self._forget(key)
        self._kept[key] = _Kept(self._clock() + min(seconds, _LONGEST), result, octets)
        self._octets += octets
        while self._octets > self._most:
            self._forget(next(iter(self._kept)))
            self._evictions += 1

    def stats(self) -> MemoryStats:
        """Return the counts so far."""
        return MemoryStats(
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            entries=len(self._kept),
            octets=self._octets,
        )

    def _forget(self, key: Hashable) -> None:
        self._octets -= self._kept.pop(key).octets


def _octets(value: object, depth: int = 0) -> int:
    """Estimate what a value of ours costs in memory; what it shares with others is counted each time."""
    if isinstance(value, str | bytes):
        return _VALUE_COST + len(value)
    if depth < _DEEPEST:
        if isinstance(value, tuple | list | frozenset | set):
            return _VALUE_COST + sum([8 + _octets(item, depth + 1) for item in value])
        if is_dataclass(value):
            return _VALUE_COST + sum([8 + _octets(getattr(value, f.name), depth + 1) for f in fields(value)])
    return _VALUE_COST if value is not None else 0


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
