"""Whole results recalled: only where nothing but the key and the answers made them, and never beyond those."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from authmilter import engine
from authmilter.dkim.canonical import BodyNeed
from authmilter.dns.answer import Failed, FailureKind, Found, NoData, NxDomain, Question, RdType
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime
from authmilter.mail import Envelope, Session
from authmilter.memory import ResultMemory, lifetime
from authmilter.names import Domain, parse_helo, parse_ip, parse_reverse_path
from authmilter.pipeline import METHODS
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from authmilter.verdict import Disposition
from tests.engine.test_verification import Cold, Notes, a_runtime, judge
from tests.support.scenarios import SCENARIOS, zone

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


def test_a_bounce_is_recalled_for_its_helo_and_never_taken_for_mail_of_that_domain() -> None:
    built = a_runtime()
    mail, recalled = _spf(built, "a@mail.good.example")
    assert not recalled
    first, recalled = _spf(built, "<>")
    assert not recalled
    assert (first.domain, first.local) == (Domain("mail.good.example"), "postmaster")
    assert _spf(built, "<>") == (first, True)
    assert _spf(built, "a@mail.good.example") == (mail, True)
    assert not _spf(built, "<>", ip="203.0.113.66")[1]


def test_every_field_of_a_recalled_result_but_the_local_part_is_that_of_before() -> None:
    whole = SpfResult(
        status=SpfStatus.FAIL,
        identity=SpfIdentity.MAILFROM,
        domain=Domain("a.example"),
        local="a",
        mechanism="-all",
        problem=SpfProblem.DNS,
        detail="detail",
        explanation="explanation",
        lookups=3,
        voids=1,
        broad=True,
    )
    assert all(getattr(whole, f.name) != f.default for f in fields(SpfResult))
    assert whole.told_of("b") == replace(whole, local="b")


def test_a_message_like_one_before_recalls_all_that_does_not_hang_on_its_octets() -> None:
    built = a_runtime()
    scenario = SCENARIOS[0]
    first, second = judge(scenario, built)[1], judge(scenario, built)[1]
    assert first.evidence == second.evidence
    assert [s.method for s in second.trace] == [s.method for s in first.trace]
    assert {s.method for s in first.trace if s.recalled} == set()
    recalled = [s for s in second.trace if s.recalled]
    assert {s.method for s in recalled} == {"iprev", "spf_helo", "spf", "dmarc"}
    assert [(s.questions, s.remembered, s.bug, s.limited) for s in recalled] == [(0, 0, False, False)] * 4
    assert {s.elapsed_ms for s in recalled} == {0.0}
    assert all(0 <= s.elapsed_ms < 1000 for s in second.trace)


def test_another_client_domain_or_signature_has_results_of_its_own() -> None:
    built = a_runtime()
    scenario = SCENARIOS[0]
    judge(scenario, built)
    other = judge(replace(scenario, client_ip="2001:db8::66"), built)[1]
    assert {s.method for s in other.trace if s.recalled} == set()
    unsigned = scenario.message[scenario.message.index(b"From:") :]
    bare = judge(replace(scenario, message=unsigned), built)[1]
    assert bare.evidence.dkim == ()
    assert not next(s.recalled for s in bare.trace if s.method == "dmarc")


@pytest.mark.parametrize("resolver", [ZoneResolver, Cold], ids=["at hand", "to be waited for"])
def test_dmarc_goes_on_from_an_early_part_that_was_recalled(
    resolver: Callable[[dict[str, object]], object],
) -> None:
    built = a_runtime(resolver=resolver(zone()))
    first, elsewhere = SCENARIOS[0], replace(SCENARIOS[0], client_ip="203.0.113.66")
    judge(first, built)
    misses = built.memory.stats().misses
    other = judge(elsewhere, built)[1]
    # iprev, both of SPF, and the result of DMARC; what DMARC asks early is that of the message before
    assert built.memory.stats().misses == misses + 4
    step = next(s for s in other.trace if s.method == "dmarc")
    assert (step.recalled, step.bug, step.limited) == (False, False, False)
    assert step.questions > 0
    fresh = judge(elsewhere, a_runtime(resolver=resolver(zone())))[1]
    assert other.evidence == fresh.evidence
    assert other.decision == fresh.decision
    assert [s.method for s in other.trace] == [s.method for s in fresh.trace]
    again = judge(elsewhere, built)[1]
    assert again.evidence == fresh.evidence
    assert next(s for s in again.trace if s.method == "dmarc").recalled


def test_a_method_that_cannot_read_the_header_block_is_broken_whatever_is_remembered() -> None:
    def broken(_inquiry: object) -> frozenset[BodyNeed]:
        raise ZeroDivisionError

    notes = Notes()
    built = a_runtime(notes=notes)
    judge(SCENARIOS[0], built)
    judge(SCENARIOS[0], built)
    methods = tuple(replace(m, prepare=broken) if m.name == "dmarc" else m for m in METHODS)
    verdict = judge(SCENARIOS[0], replace(built, methods=methods))[1]
    assert [where for where, _ in notes.bugs] == ["method:dmarc"]
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "internal_error"
    assert verdict.evidence.dkim is not None
    assert {r.status for r in verdict.evidence.dkim} == {"pass"}
    steps = {s.method: (s.recalled, s.bug) for s in verdict.trace}
    assert steps == {
        "iprev": (True, False),
        "spf_helo": (True, False),
        "spf": (True, False),
        "dmarc": (False, True),
        "dkim": (False, False),
    }
    assert verdict.decision.disposition is Disposition.TEMPFAIL


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
