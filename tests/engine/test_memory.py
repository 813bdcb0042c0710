"""Whole results recalled: only where nothing but the key and the answers made them, and never beyond those."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from authmilter import engine
from authmilter.dns.answer import Failed, FailureKind, Found, NoData, NxDomain, Question, RdType
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime
from authmilter.mail import Envelope, Session
from authmilter.memory import ResultMemory, lifetime
from authmilter.names import parse_helo, parse_ip, parse_reverse_path
from authmilter.spf.result import SpfResult
from tests.engine.test_verification import a_runtime

Q = Question.of("example.com", RdType.TXT)


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_result_is_kept_until_its_time_and_the_least_used_goes_first() -> None:
    clock = Hand()
    room = ResultMemory(clock=clock)
    room.put("a", 1, 10)
    memory = ResultMemory(2 * room.stats().octets, clock)
    memory.put("a", 1, 10)
    memory.put("b", 2, 10)
    assert memory.get("a") == 1
    memory.put("c", 3, 10)
    assert memory.get("b") is None
    assert (memory.get("a"), memory.get("c")) == (1, 3)
    clock.now = 109.9
    assert memory.get("a") == 1
    clock.now = 110.0
    assert memory.get("a") is None
    memory.put("d", 4, 0)
    assert memory.get("d") is None
    stats = memory.stats()
    assert (stats.hits, stats.misses, stats.evictions, stats.entries) == (4, 3, 1, 1)


def test_a_memory_is_bounded_in_octets_whatever_is_kept_in_it() -> None:
    memory = ResultMemory(100_000)
    for number in range(1000):
        memory.put(number, ("x" * number, b"y" * 10), 100)
        memory.put(number, ("x" * number, b"y" * 10), 100)  # (kept twice, counted once)
        assert memory.stats().octets <= 100_000
    assert 60 < memory.stats().entries < 120
    memory.put("too large", "x" * 100_000, 100)
    assert memory.get("too large") is None
    nothing = ResultMemory(0)
    nothing.put("a", 1, 100)
    assert nothing.get("a") is None
    assert nothing.stats().octets == 0


def test_a_result_lives_as_long_as_its_first_answer_and_not_at_all_after_a_failure_or_with_a_macro() -> None:
    assert lifetime([(Q, Found((b"v=spf1 -all",), 300.0)), (Q, NxDomain(60.0)), (Q, NoData(90.0))]) == 60.0
    assert lifetime([(Q, Found((b"v=spf1 -all",), 300.0)), (Q, Failed(FailureKind.TIMEOUT))]) == 0.0
    assert lifetime([(Q, Found((b"v=spf1 exists:%{l}.example.com -all",), 300.0))]) == 0.0
    assert lifetime([(Q, Found((b"v=spf1 -all",), 86400.0))]) == 3600.0


def _spf(built: Runtime, mail_from: str, ip: str = "192.0.2.10") -> tuple[SpfResult, bool]:
    session = Session(client_ip=parse_ip(ip), helo=parse_helo("mail.good.example"))
    envelope = Envelope(mail_from=parse_reverse_path(mail_from))
    _mail, verdict = asyncio.run(
        engine.verify(b"From: a@b.example\r\n\r\n", built, session=session, envelope=envelope)
    )
    assert verdict.evidence.spf is not None
    return verdict.evidence.spf, next(s.recalled for s in verdict.trace if s.method == "spf")


def test_the_second_message_of_a_domain_is_recalled_with_its_own_local_part() -> None:
    built = a_runtime()
    first, recalled = _spf(built, "a@good.example")
    assert not recalled
    second, recalled = _spf(built, "b@good.example")
    assert recalled
    assert (first.local, second.local) == ("a", "b")
    assert replace(first, local="b") == second
    other, recalled = _spf(built, "a@good.example", ip="203.0.113.66")
    assert not recalled
    assert other.status == "fail"


def test_a_record_that_names_the_local_part_is_evaluated_for_each() -> None:
    zone = {
        "good.example": {"TXT": ["v=spf1 exists:%{l}.ok.good.example -all"]},
        "a.ok.good.example": {"A": ["127.0.0.2"]},
    }
    built = a_runtime(resolver=ZoneResolver(zone))
    assert _spf(built, "a@good.example")[0].status == "pass"
    again, recalled = _spf(built, "b@good.example")
    assert (again.status, recalled) == ("fail", False)


def test_a_failure_is_not_remembered_beyond_its_own_answer() -> None:
    built = a_runtime(resolver=ZoneResolver({"good.example": "TIMEOUT"}))
    assert _spf(built, "a@good.example") == _spf(built, "a@good.example")
    assert _spf(built, "a@good.example")[1] is False
