"""The cache: TTLs by a clock that the tests turn, one query for many who ask, a bound in octets."""

from __future__ import annotations

import asyncio
import gc
import math
import tracemalloc
import warnings
from collections.abc import Callable, Coroutine
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address

import pytest
import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from authmilter.deadline import Deadline
from authmilter.dns.answer import (
    Answer,
    Failed,
    FailureKind,
    Found,
    Mx,
    NoData,
    NxDomain,
    Question,
    RdType,
    Record,
)
from authmilter.dns.cache import CacheStats, CachingResolver
from authmilter.dns.resolver import NetworkResolver, ResolverSettings
from authmilter.dns.zone import ZoneResolver
from tests.support.nameserver import NameServer

Run = Callable[[Coroutine[object, object, Answer]], Answer]

Q = Question.of("example.com", RdType.TXT)
LONG = Deadline.after(3600)
TEXT = (b"v=spf1 -all",)
GONE = NxDomain(60.0)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """A resolver that gives `answer`, once `gate` (if there is one) is open; counts what it is asked."""

    def __init__(self, answer: Answer = GONE) -> None:
        self.answer = answer
        self.gate: asyncio.Event | None = None
        self.asked: list[tuple[Question, Deadline]] = []
        self.closed = 0

    def known(self, question: Question) -> Answer | None:
        raise AssertionError(f"nobody asks what the network knows of {question}")

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        self.asked.append((question, deadline))
        if self.gate is not None:
            await self.gate.wait()
        return self.answer

    def close(self) -> None:
        self.closed += 1


def fetch(cache: CachingResolver, question: Question = Q) -> Answer:
    return asyncio.run(cache.fetch(question, LONG))


def test_an_answer_is_kept_for_its_ttl_and_counts_down() -> None:
    clock, source = Clock(), Source(Found(TEXT, 300.0))
    cache = CachingResolver(source, clock=clock)
    assert cache.known(Q) is None
    assert fetch(cache) == Found(TEXT, 300.0)
    assert cache.known(Q) == Found(TEXT, 300.0)
    clock.now += 100
    assert cache.known(Q) == Found(TEXT, 200.0)
    assert fetch(cache) == Found(TEXT, 200.0)
    clock.now += 199.5
    assert cache.known(Q) == Found(TEXT, 0.5)
    clock.now += 0.5
    assert cache.known(Q) is None
    assert len(source.asked) == 1
    fetch(cache)
    assert len(source.asked) == 2


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Found(TEXT, 0.0), 5.0),
        (Found(TEXT, 4.0), 5.0),
        (Found(TEXT, 6.0), 6.0),
        (Found(TEXT, 2e9), 86400.0),
        (NoData(0.0), 5.0),
        (NoData(300.0), 300.0),
        (NoData(86400.0), 900.0),
        (NxDomain(0.0), 5.0),
        (NxDomain(300.0), 300.0),
        (NxDomain(86400.0), 900.0),
        (Failed(FailureKind.TIMEOUT), 3.0),
        (Failed(FailureKind.SERVFAIL), 3.0),
        (Failed(FailureKind.REFUSED), 3.0),
        (Failed(FailureKind.NETWORK), 3.0),
        (Failed(FailureKind.MALFORMED), 3.0),
        (Failed(FailureKind.LIMIT), 0.0),
    ],
)
def test_how_long_each_kind_of_answer_is_kept(answer: Answer, seconds: float) -> None:
    clock = Clock()
    cache = CachingResolver(Source(answer), clock=clock)
    fetch(cache)
    if not seconds:
        assert cache.known(Q) is None
        return
    clock.now += seconds - 0.001
    kept = cache.known(Q)
    assert kept is not None
    assert type(kept) is type(answer)
    clock.now += 0.002
    assert cache.known(Q) is None


def test_bounds_of_ttls_can_be_set() -> None:
    clock = Clock()
    cache = CachingResolver(
        Source(Found(TEXT, 100.0)), clock=clock, min_ttl=0, max_ttl=50, negative_max_ttl=70, failure_ttl=1
    )
    fetch(cache)
    assert cache.known(Q) == Found(TEXT, 50.0)
    for answer, kept in (
        (NoData(100.0), NoData(50.0)),
        (NxDomain(20.0), NxDomain(20.0)),
        (NoData(0.0), None),
    ):
        cache = CachingResolver(Source(answer), clock=clock, min_ttl=0, max_ttl=50, negative_max_ttl=70)
        fetch(cache)
        assert cache.known(Q) == kept


def test_a_low_maximum_beats_a_high_minimum() -> None:
    cache = CachingResolver(Source(Found(TEXT, 0.0)), clock=Clock(), min_ttl=60, max_ttl=10)
    fetch(cache)
    assert cache.known(Q) == Found(TEXT, 10.0)


def test_a_failure_is_forgotten_after_its_seconds_and_the_answer_comes_through() -> None:
    clock, source = Clock(), Source(Failed(FailureKind.SERVFAIL, "x"))
    cache = CachingResolver(source, clock=clock, failure_ttl=1.0)
    assert fetch(cache) == fetch(cache) == Failed(FailureKind.SERVFAIL, "x")
    assert len(source.asked) == 1
    source.answer = Found(TEXT, 60.0)
    clock.now += 1.0
    assert fetch(cache) == Found(TEXT, 60.0)
    assert cache.stats().failures == 1


def test_each_question_has_its_own_entry() -> None:
    cache = CachingResolver(ZoneResolver({"example.com": {"TXT": ["a"]}}), clock=Clock())
    fetch(cache, Question.of("com", RdType.TXT))
    fetch(cache, Question.of("nx.example", RdType.A))
    assert cache.known(Q) is None
    assert cache.known(Question.of("sub.nx.example", RdType.A)) is None
    assert cache.known(Question.of("nx.example", RdType.AAAA)) is None
    assert cache.known(Question.of("NX.example.", RdType.A)) == NxDomain(300.0)


def test_many_who_ask_at_once_share_one_query(run: Run) -> None:
    source = Source(Found(TEXT, 60.0))
    cache = CachingResolver(source, clock=Clock())

    async def main() -> Answer:
        source.gate = asyncio.Event()
        tasks = [asyncio.create_task(cache.fetch(Q, LONG)) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        source.gate.set()
        answers = await asyncio.gather(*tasks)
        assert answers == [Found(TEXT, 60.0)] * 50
        return answers[0]

    run(main())
    assert len(source.asked) == 1
    assert cache.stats() == CacheStats(misses=1, joined=49, entries=1, octets=cache.stats().octets)
    cache.known(Q)
    assert cache.stats().hits == 1


def test_many_who_ask_at_once_send_one_datagram(run: Run, server: NameServer) -> None:
    network = NetworkResolver(ResolverSettings(nameservers=(server.address,)))

    async def main() -> Answer:
        answers = await asyncio.gather(*(cache.fetch(Q, LONG) for _ in range(50)))
        assert len(set(answers)) == 1
        return answers[0]

    with closing(CachingResolver(network)) as cache:
        assert isinstance(run(main()), Found)
    assert server.count() == 1


def test_the_shared_query_has_no_deadline_but_its_own(run: Run) -> None:
    source = Source()
    cache = CachingResolver(source, clock=Clock())
    run(cache.fetch(Q, Deadline.after(1.0)))
    assert source.asked == [(Q, Deadline(math.inf))]


def test_who_waits_too_long_gets_a_timeout_and_the_others_their_answer(run: Run) -> None:
    source = Source(Found(TEXT, 60.0))
    cache = CachingResolver(source, clock=Clock())

    async def main() -> Answer:
        source.gate = asyncio.Event()
        patient = asyncio.create_task(cache.fetch(Q, LONG))
        first = await cache.fetch(Q, Deadline.after(0.01))
        assert not patient.done()
        source.gate.set()
        assert await patient == Found(TEXT, 60.0)
        return first

    answer = run(main())
    assert isinstance(answer, Failed)
    assert answer.kind is FailureKind.TIMEOUT
    assert cache.known(Q) == Found(TEXT, 60.0), "the impatient one's timeout was not kept"
    assert len(source.asked) == 1


def test_the_answer_is_kept_even_if_nobody_waits_any_more(run: Run) -> None:
    source = Source(Found(TEXT, 60.0))
    cache = CachingResolver(source, clock=Clock())

    async def main() -> Answer:
        source.gate = asyncio.Event()
        assert isinstance(await cache.fetch(Q, Deadline.after(0.01)), Failed)
        source.gate.set()
        return await cache.fetch(Q, LONG)

    assert run(main()) == Found(TEXT, 60.0)
    assert len(source.asked) == 1


def test_one_who_is_cancelled_takes_nobody_along(run: Run) -> None:
    source = Source(Found(TEXT, 60.0))
    cache = CachingResolver(source, clock=Clock())

    async def main() -> Answer:
        source.gate = asyncio.Event()
        first = asyncio.create_task(cache.fetch(Q, LONG))
        second = asyncio.create_task(cache.fetch(Q, LONG))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        source.gate.set()
        return await second

    assert run(main()) == Found(TEXT, 60.0)
    assert len(source.asked) == 1


def test_who_has_no_time_left_gets_what_is_kept_or_our_limit(run: Run) -> None:
    source = Source(Found(TEXT, 60.0))
    cache = CachingResolver(source, clock=Clock())
    answer = run(cache.fetch(Q, Deadline.after(0)))
    assert isinstance(answer, Failed)
    assert answer.kind is FailureKind.LIMIT
    assert source.asked == []
    run(cache.fetch(Q, LONG))
    assert run(cache.fetch(Q, Deadline.after(0))) == Found(TEXT, 60.0)


def test_a_deadline_that_never_comes_is_allowed(run: Run) -> None:
    assert run(CachingResolver(Source(NoData(7.0)), clock=Clock()).fetch(Q, Deadline(math.inf))) == NoData(
        7.0
    )


def test_entries_outlive_a_loop_and_queries_in_flight_do_not() -> None:
    source = Source(Found(TEXT, 60.0))
    cache = CachingResolver(source, clock=Clock())

    async def leave_in_flight() -> Answer:
        source.gate = asyncio.Event()
        return await cache.fetch(Q, Deadline.after(0.01))

    async def again() -> Answer:
        source.gate = None
        return await cache.fetch(Q, LONG)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for runner in (asyncio.run, uvloop.run):
            left = runner(leave_in_flight())
            assert isinstance(left, Failed)
            assert left.kind is FailureKind.TIMEOUT
            assert cache._flights == {}
        assert uvloop.run(again()) == Found(TEXT, 60.0)
        assert asyncio.run(cache.fetch(Q, LONG)) == Found(TEXT, 60.0)
        gc.collect()
    assert len(source.asked) == 3


def test_a_loop_that_was_stopped_with_queries_in_flight_does_not_block_the_next() -> None:
    source = Source(Found(TEXT, 60.0))
    cache = CachingResolver(source, clock=Clock())

    async def leave_in_flight() -> Answer:
        source.gate = asyncio.Event()
        return await cache.fetch(Q, Deadline.after(0.01))

    old = asyncio.new_event_loop()
    assert isinstance(old.run_until_complete(leave_in_flight()), Failed)
    source.gate = None
    assert asyncio.run(cache.fetch(Q, LONG)) == Found(TEXT, 60.0)
    for task in asyncio.all_tasks(old):
        task.cancel()
    old.run_until_complete(asyncio.sleep(0))
    old.close()
    assert cache.known(Q) == Found(TEXT, 60.0)


def test_closing_ends_the_queries_in_flight_and_closes_what_is_inside(run: Run) -> None:
    source = Source()
    cache = CachingResolver(source, clock=Clock())

    async def main() -> Answer:
        source.gate = asyncio.Event()
        task = asyncio.create_task(cache.fetch(Q, LONG))
        await asyncio.sleep(0)
        cache.close()
        return await task

    answer = run(main())
    assert isinstance(answer, Failed)
    assert answer.kind is FailureKind.LIMIT
    assert source.closed == 1
    assert cache.stats().entries == 0


def test_closing_a_cache_around_what_cannot_be_closed_is_fine() -> None:
    cache = CachingResolver(ZoneResolver({}), clock=Clock())
    fetch(cache)
    cache.close()
    assert cache.known(Q) == NxDomain(300.0)


class Broken(Source):
    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        await super().fetch(question, deadline)
        raise ZeroDivisionError


def test_a_bug_in_the_resolver_reaches_everybody_who_asked(run: Run) -> None:
    source = Broken()
    cache = CachingResolver(source, clock=Clock())

    async def main() -> Answer:
        results = await asyncio.gather(*(cache.fetch(Q, LONG) for _ in range(3)), return_exceptions=True)
        assert [type(r) for r in results] == [ZeroDivisionError] * 3
        return NoData()

    run(main())
    assert cache.stats().entries == 0
    assert len(source.asked) == 1


def test_a_bug_that_nobody_waits_for_reaches_the_loops_handler(run: Run) -> None:
    source = Broken()
    cache = CachingResolver(source, clock=Clock())
    seen: list[dict[str, object]] = []

    async def main() -> Answer:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        source.gate = asyncio.Event()
        answer = await cache.fetch(Q, Deadline.after(0.01))
        (flight,) = cache._flights.values()
        source.gate.set()
        assert flight.task is not None
        await asyncio.wait([flight.task])
        return answer

    assert isinstance(run(main()), Failed)
    assert [type(c["exception"]) for c in seen] == [ZeroDivisionError]


def question(number: int) -> Question:
    return Question.of(f"n{number:06d}.example.com", RdType.TXT)


def test_the_bound_in_octets_holds_and_the_least_used_goes_first() -> None:
    cache = CachingResolver(Source(Found((b"x" * 1000,), 60.0)), clock=Clock(), max_bytes=20_000)
    for number in range(10):
        fetch(cache, question(number))
    assert cache.stats().evictions == 0
    for number in range(10, 20):
        assert cache.known(question(0)) is not None
        fetch(cache, question(number))
        assert cache.stats().octets <= 20_000
    stats = cache.stats()
    assert stats.evictions == 20 - stats.entries > 0
    kept = [n for n in range(20) if cache.known(question(n)) is not None]
    assert kept == [0, *range(21 - stats.entries, 20)]


def test_an_answer_larger_than_the_bound_is_given_but_not_kept() -> None:
    cache = CachingResolver(Source(Found((b"x" * 60_000,), 60.0)), clock=Clock(), max_bytes=50_000)
    fetch(cache, question(1))
    assert fetch(cache, question(1)) == Found((b"x" * 60_000,), 60.0)
    assert cache.stats() == CacheStats(misses=2)


def test_a_cache_of_size_zero_keeps_nothing() -> None:
    cache = CachingResolver(Source(NxDomain(60.0)), clock=Clock(), max_bytes=0)
    assert fetch(cache) == fetch(cache) == NxDomain(60.0)
    assert cache.stats() == CacheStats(misses=2)


def test_an_expired_entry_gives_its_room_back() -> None:
    clock = Clock()
    cache = CachingResolver(Source(Found(TEXT, 60.0)), clock=clock)
    fetch(cache)
    assert cache.stats().octets > 0
    clock.now += 60
    assert cache.known(Q) is None
    assert (cache.stats().entries, cache.stats().octets) == (0, 0)


@pytest.mark.parametrize(
    "records",
    [
        (),
        (b"x" * 40,),
        tuple(b"v=%d" % i for i in range(8)),
        tuple(IPv4Address(0xC0000200 + i) for i in range(4)),
        tuple(IPv6Address((0x20010DB8 << 96) + i) for i in range(4)),
        tuple(Mx(1000 + i, f"mx{i}.example.com") for i in range(8)),
        tuple(f"host{i}.example.com" for i in range(4)),
    ],
)
def test_the_octets_counted_are_no_less_than_those_taken(records: tuple[Record, ...]) -> None:
    def copy(record: Record) -> Record:
        if isinstance(record, bytes):
            return bytes(bytearray(record))
        if isinstance(record, str):
            return record[:1] + record[1:]
        if isinstance(record, Mx):
            return Mx(record.preference + 1000, record.exchange[:1] + record.exchange[1:])
        return type(record)(int(record))

    cache = CachingResolver(Source(), clock=Clock())
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2000):
            answer = Found(tuple(map(copy, records)), number + 0.5) if records else NxDomain(number + 0.5)
            cache._keep(question(number), answer)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.stats().entries == 2000
    assert 0.5 < cache.stats().octets / (after - before) < 2
    assert cache.stats().octets >= (after - before) * 0.98


@pytest.mark.parametrize(
    "values",
    [
        {"max_bytes": -1},
        {"min_ttl": -1.0},
        {"max_ttl": math.inf},
        {"negative_max_ttl": math.nan},
        {"failure_ttl": 0.5},
        {"failure_ttl": 6.0},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        CachingResolver(ZoneResolver({}), **values)  # type: ignore[arg-type]  # wrong on purpose


class Model(RuleBasedStateMachine):
    """Any order of asking, changing answers and passing time: what is kept is what was answered, never too old."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.source = Source()
        self.cache = CachingResolver(self.source, clock=self.clock, max_bytes=5000)
        self.answered: dict[Question, tuple[Answer, float]] = {}

    @rule(
        number=st.integers(0, 12),
        answer=st.one_of(
            st.builds(Found, st.tuples(st.binary(max_size=2000)), st.floats(0, 200)),
            st.builds(NoData, st.floats(0, 2000)),
            st.builds(NxDomain, st.floats(0, 2000)),
            st.builds(Failed, st.sampled_from(FailureKind)),
        ),
    )
    def ask(self, number: int, answer: Answer) -> None:
        asked = len(self.source.asked)
        self.source.answer = answer
        got = fetch(self.cache, question(number))
        if len(self.source.asked) > asked:
            assert got == answer
            self.answered[question(number)] = (answer, self.clock.now)
        else:
            self.check(question(number), got)

    @rule(seconds=st.floats(0.1, 400))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(number=st.integers(0, 12))
    def look(self, number: int) -> None:
        got = self.cache.known(question(number))
        if got is not None:
            self.check(question(number), got)

    def check(self, asked: Question, got: Answer) -> None:
        answer, when = self.answered[asked]
        assert type(got) is type(answer)
        if isinstance(answer, Failed):
            assert answer.kind is not FailureKind.LIMIT
            assert self.clock.now < when + 3.0
        else:
            assert self.clock.now < when + max(answer.ttl, 5.0) + 1e-6
        if isinstance(got, Found) and isinstance(answer, Found):
            assert got.records == answer.records

    @invariant()
    def bounded(self) -> None:
        stats = self.cache.stats()
        assert 0 <= stats.octets <= 5000
        assert stats.octets == sum(e.octets for e in self.cache._entries.values())


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
