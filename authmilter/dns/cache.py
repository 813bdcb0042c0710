"""Answers kept for as long as DNS allows: a `Resolver` around a `Resolver`.

* Found, no-data and NXDOMAIN answers are kept for their TTL within bounds (RFC 2308 §5), failures for some
  seconds (RFC 9520 §3.2), and what only our own limits caused (`FailureKind.LIMIT`) not at all.
* Each question has an entry of its own. RFC 8020 would let NXDOMAIN speak for all names below; an answer does
  not tell whether a CNAME led to it, in which case that is wrong, so this is left to the name server.
* Many who ask one question at the same time share one query (single flight). The query runs with the inner
  resolver's own limit, whatever the deadlines of those who wait: nobody's impatience or cancellation shortens
  it for others, and its answer is kept even if nobody waits any more.
* Who waits until the own deadline gets `Failed(TIMEOUT)`: DNS gave no answer in the time that a question
  has. Who comes with no time left gets `Failed(LIMIT)`: DNS was not asked. Neither is kept.
* The size in octets is bounded; what was not used for longest goes first.

One event loop at a time, one thread at a time. Entries outlive a loop; queries in flight do not.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from authmilter.deadline import Deadline, monotonic
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Mx, NoData, NxDomain, Question
from authmilter.makers import maker
from authmilter.ports import Resolver

__all__ = ["CacheStats", "CachingResolver"]

#: The inner resolver's own limit is the only one on a shared query.
_NO_DEADLINE = Deadline(math.inf)
_NO_TIME = Failed(FailureKind.LIMIT, "no time was left to ask")
_LATE = Failed(FailureKind.TIMEOUT, "DNS gave no answer in the time that the question had")
_STOPPED = Failed(FailureKind.LIMIT, "the resolver was stopped")

# What an entry costs besides the octets of its texts (CPython 3.11, 64 bit; tests hold the sum against tracemalloc).
_ENTRY_COST = 500
_TEXT_COST = 70
_OBJECT_COST = 140


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """A snapshot: counts since the start, and the present `entries` and `octets`."""

    #: questions answered from memory
    hits: int = 0
    #: questions that started a query
    misses: int = 0
    #: questions that joined a query in flight
    joined: int = 0
    #: queries that ended as `Failed`
    failures: int = 0
    #: entries dropped for want of room
    evictions: int = 0
    entries: int = 0
    octets: int = 0


class _Entry(NamedTuple):
    answer: Answer
    expires: float
    octets: int


@runtime_checkable
class _Prompt(Protocol):
    """A resolver that asks without a task of the caller's: `begin` is `fetch` that has begun."""

    def begin(self, question: Question, deadline: Deadline) -> asyncio.Future[Answer]: ...


class _Flight:
    """One query under way, and who waits for it."""

    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Future[Answer]) -> None:
        self.task = task
        self.waiters: list[asyncio.Future[Answer]] = []


_make_found = maker(Found)


class CachingResolver:
    """Implements `ports.Resolver`.

    Args:
        resolver: who is asked; each of its queries must end by itself.
        clock: returns monotonic seconds.
        max_bytes: how many octets the entries may take together (0: keep nothing).
        min_ttl: no answer is kept for less, in seconds (0 or more). A few seconds make one message's methods
            see one answer; RFC 1035 §3.2.1 lets an answer with TTL 0 serve the transaction in progress.
        max_ttl: no answer is kept for longer, in seconds.
        negative_max_ttl: no NXDOMAIN or no-data answer is kept for longer, in seconds.
        failure_ttl: how long a failure is kept, in seconds (1 to 5).

    Raises:
        ValueError: a value is out of its range; the message says which.
    """

    __slots__ = (
        "_begin",
        "_clock",
        "_entries",
        "_evictions",
        "_failure_ttl",
        "_failures",
        "_flights",
        "_hits",
        "_joined",
        "_loop",
        "_max_bytes",
        "_max_ttl",
        "_min_ttl",
        "_misses",
        "_negative_max_ttl",
        "_octets",
        "_resolver",
    )

    def __init__(
        self,
        resolver: Resolver,
        *,
        clock: Callable[[], float] = monotonic,
        max_bytes: int = 32 << 20,
        min_ttl: float = 5.0,
        max_ttl: float = 86400.0,
        negative_max_ttl: float = 900.0,
        failure_ttl: float = 3.0,
    ) -> None:
        if max_bytes < 0:
            raise ValueError("max_bytes must be 0 or more")
        if not 0 <= min_ttl < math.inf or not 0 <= max_ttl < math.inf or not 0 <= negative_max_ttl < math.inf:
            raise ValueError("a TTL must be 0 seconds or more")
        if not 1 <= failure_ttl <= 5:
            raise ValueError("failure_ttl must be from 1 to 5 seconds (RFC 9520 §3.2)")
        self._resolver = resolver
        self._begin = resolver.begin if isinstance(resolver, _Prompt) else None
        self._clock = clock
        self._max_bytes = max_bytes
        self._min_ttl = min_ttl
        self._max_ttl = max_ttl
        self._negative_max_ttl = negative_max_ttl
        self._failure_ttl = failure_ttl
        self._entries: OrderedDict[Question, _Entry] = OrderedDict()
        self._octets = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flights: dict[Question, _Flight] = {}
        self._hits = 0
        self._misses = 0
        self._joined = 0
        self._failures = 0
        self._evictions = 0

    def known(self, question: Question) -> Answer | None:
        """Return the kept answer, its `ttl` what is left of it; None if there is none or it has expired."""
        entries = self._entries
        entry = entries.get(question) if entries else None
        if entry is None:
            return None
        left = entry.expires - self._clock()
        if left <= 0:
            self._drop(question)
            return None
        self._entries.move_to_end(question)
        self._hits += 1
        return _with_ttl(entry.answer, left)

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        """Return the kept answer, or ask and wait until `deadline` at most (see the module's text)."""
        answer = self.known(question)
        if answer is not None:
            return answer
        left = deadline.remaining
        if left <= 0:
            return _NO_TIME
        loop = asyncio.get_running_loop()
        flight = self._join(question, loop)
        waiter: asyncio.Future[Answer] = loop.create_future()
        flight.waiters.append(waiter)
        timer = loop.call_later(left, _settle, waiter, _LATE) if left < math.inf else None
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()

    def stats(self) -> CacheStats:
        """Return the counts so far."""
        return CacheStats(
            hits=self._hits,
            misses=self._misses,
            joined=self._joined,
            failures=self._failures,
            evictions=self._evictions,
            entries=len(self._entries),
            octets=self._octets,
        )

    def close(self) -> None:
        """Stop the queries in flight, and close the inner resolver if it can be closed; entries stay."""
        self._abandon()
        close = getattr(self._resolver, "close", None)
        if callable(close):
            close()

    def _join(self, question: Question, loop: asyncio.AbstractEventLoop) -> _Flight:
        """Return the query in flight for `question`, a new one if there is none."""
        if loop is not self._loop:
            self._abandon()
            self._loop = loop
        flight = self._flights.get(question)
        if flight is not None:
            self._joined += 1
            return flight
        self._misses += 1
        begin = self._begin
        flight = self._flights[question] = _Flight(
            begin(question, _NO_DEADLINE)
            if begin is not None
            else loop.create_task(self._resolver.fetch(question, _NO_DEADLINE))
        )
        flight.task.add_done_callback(lambda task: self._land(question, flight, task))
        return flight

    def _land(self, question: Question, flight: _Flight, task: asyncio.Future[Answer]) -> None:
        if self._flights.get(question) is flight:
            del self._flights[question]
        if task.cancelled():
            _settle_all(flight, _STOPPED)
            return
        bug = task.exception()
        if bug is not None:  # a resolver never raises; if it does, whoever asked learns of it, else the loop
            waiters = [w for w in flight.waiters if not w.done()]
            for waiter in waiters:
                waiter.set_exception(bug)
            if not waiters:
                context = {"message": "a resolver raised", "exception": bug, "task": task}
                task.get_loop().call_exception_handler(context)
            return
        answer = task.result()
        if isinstance(answer, Failed):
            self._failures += 1
        self._keep(question, answer)
        _settle_all(flight, answer)

    def _abandon(self) -> None:
        """Give up the queries in flight: those of a loop that has ended are gone anyway."""
        flights, self._flights = self._flights, {}
        loop, self._loop = self._loop, None
        for flight in flights.values():
            if loop is not None and not loop.is_closed():
                flight.task.cancel()

    def _ttl(self, answer: Answer) -> float:
        """Return for how long to keep `answer`, in seconds; 0: not at all."""
        if isinstance(answer, Failed):
            return 0.0 if answer.kind is FailureKind.LIMIT else self._failure_ttl
        longest = self._max_ttl if isinstance(answer, Found) else min(self._max_ttl, self._negative_max_ttl)
        return min(max(answer.ttl, self._min_ttl), longest)

    def _keep(self, question: Question, answer: Answer) -> None:
        if not self._max_bytes:
            return
        if question in self._entries:
            self._drop(question)
        ttl = self._ttl(answer)
        octets = _octets(question, answer)
        if ttl <= 0 or octets > self._max_bytes:
            return
        self._entries[question] = _Entry(answer, self._clock() + ttl, octets)
        self._octets += octets
        while self._octets > self._max_bytes:
            _, evicted = self._entries.popitem(last=False)
            self._octets -= evicted.octets
            self._evictions += 1

    def _drop(self, question: Question) -> None:
        self._octets -= self._entries.pop(question).octets


def _with_ttl(answer: Answer, ttl: float) -> Answer:
    if isinstance(answer, Found):
        return _make_found(answer.records, ttl)
    if isinstance(answer, NoData):
        return NoData(ttl)
    if isinstance(answer, NxDomain):
        return NxDomain(ttl)
    return answer


def _octets(question: Question, answer: Answer) -> int:
    """Estimate what an entry costs in memory."""
    octets = _ENTRY_COST + len(question.name)
    if isinstance(answer, Found):
        for record in answer.records:
            if isinstance(record, bytes | str):
                octets += _TEXT_COST + len(record)
            else:
                octets += _OBJECT_COST + (len(record.exchange) if isinstance(record, Mx) else 0)
    elif isinstance(answer, Failed):
        octets += len(answer.detail)
    return octets


def _settle(waiter: asyncio.Future[Answer], answer: Answer) -> None:
    if not waiter.done():
        waiter.set_result(answer)


def _settle_all(flight: _Flight, answer: Answer) -> None:
    for waiter in flight.waiters:
        _settle(waiter, answer)
