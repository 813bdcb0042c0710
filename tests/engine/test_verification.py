"""The one road: stages, budgets, origins, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from authmilter import engine, runtime
from authmilter.config.load import Loaded, parse
from authmilter.deadline import Deadline
from authmilter.dns.answer import Answer, Failed, FailureKind, Question
from authmilter.dns.cache import CachingResolver
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Budget, Runtime, Verification
from authmilter.evidence import Evidence
from authmilter.mail import Envelope, Mail, Origin, Session
from authmilter.memory import ResultMemory
from authmilter.message import Message
from authmilter.names import parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.pipeline import METHODS
from authmilter.ports import Lookup
from authmilter.verdict import Disposition, Verdict
from tests.support.scenarios import RCPT, SCENARIOS, Scenario, signed, zone

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Notes:
    """A journal that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Verdict] = []
        self.bugs: list[tuple[str, BaseException]] = []

    def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:  # noqa: ARG002 - the port's shape
        self.records.append(verdict)

    def bug(self, where: str, error: BaseException) -> None:
        self.bugs.append((where, error))


def a_runtime(
    config: str = "policy: enforce", *, resolver: object | None = None, notes: Notes | None = None
) -> Runtime:
    loaded = Loaded(config=parse(config, "test.yaml"), path=None, base=Path.cwd())
    return replace(
        runtime.build(loaded, journal=notes or Notes(), resolver=resolver or ZoneResolver(zone())),  # type: ignore[arg-type]  # tests hand in resolvers of their own
        now=lambda: NOW,
        new_id=lambda: "TESTID",
    )


def judge(scenario: Scenario, built: Runtime) -> tuple[Mail, Verdict]:
    session = Session(
        client_ip=parse_ip(scenario.client_ip), helo=parse_helo(scenario.helo), authenticated=scenario.login
    )
    envelope = Envelope(
        mail_from=parse_reverse_path(scenario.mail_from),
        rcpt_to=tuple(parse_recipient(r) for r in scenario.rcpt_to),
    )
    return asyncio.run(engine.verify(scenario.message, built, session=session, envelope=envelope))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
def test_the_corpus_is_judged_as_it_must_be(scenario: Scenario) -> None:
    notes = Notes()
    _mail, verdict = judge(scenario, a_runtime(notes=notes))
    found = verdict.evidence
    assert (found.spf.status if found.spf else None) == scenario.spf
    assert (found.dmarc.status if found.dmarc else None) == scenario.dmarc
    if scenario.dkim is not None:
        assert found.dkim is not None
        assert sorted(r.status for r in found.dkim) == sorted(scenario.dkim)
    reply = verdict.decision.reply
    assert (reply.code if reply else 250) == scenario.code
    assert notes.records == [verdict]
    assert notes.bugs == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
def test_monitor_refuses_nothing_and_says_what_it_would_have_done(scenario: Scenario) -> None:
    _mail, verdict = judge(scenario, a_runtime("policy: monitor"))
    assert verdict.decision.disposition is Disposition.ACCEPT
    if scenario.code == 550:
        assert any(w.disposition is Disposition.REJECT for w in verdict.decision.would_have)


class Cold:
    """A resolver that has nothing at hand: what the network is to a cold cache. Counts its rounds."""

    def __init__(self, zone_: dict[str, object]) -> None:
        self._zone = ZoneResolver(zone_)
        self.asked: list[Question] = []

    def known(self, question: Question) -> Answer | None:  # noqa: ARG002 - the port's shape
        return None

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:  # noqa: ARG002 - as above
        self.asked.append(question)
        await asyncio.sleep(0)
        return self._zone.known(question)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
def test_a_cold_resolver_gives_the_same_verdict_as_a_warm_one(scenario: Scenario) -> None:
    cold = judge(scenario, a_runtime(resolver=CachingResolver(Cold(zone()))))[1]
    warm = judge(scenario, a_runtime())[1]
    assert cold.evidence == warm.evidence
    assert cold.decision == warm.decision
    assert cold.edits == warm.edits


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
def test_a_message_that_waited_for_answers_leaves_nothing_to_the_collector(scenario: Scenario) -> None:
    """An exception that is kept holds the frames it came through: a circle for each round of a check."""
    built = a_runtime(resolver=CachingResolver(Cold(zone()), max_bytes=0))
    session = Session(
        client_ip=parse_ip(scenario.client_ip), helo=parse_helo(scenario.helo), authenticated=scenario.login
    )
    envelope = Envelope(mail_from=parse_reverse_path(scenario.mail_from))

    async def twice() -> int:
        await engine.verify(scenario.message, built, session=session, envelope=envelope)
        gc.collect()
        gc.disable()
        try:
            await engine.verify(
                scenario.message, replace(built, memory=ResultMemory(0)), session=session, envelope=envelope
            )
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(twice()) == 0


class BlackHole:
    """Answers from a zone, but never for names that match."""

    def __init__(self, zone_: dict[str, object], hole: Callable[[str], bool]) -> None:
        self._zone = ZoneResolver(zone_)
        self._hole = hole

    def known(self, question: Question) -> Answer | None:
        return None if self._hole(question.name) else self._zone.known(question)

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        if not self._hole(question.name):
            return self._zone.known(question)
        await asyncio.sleep(min(deadline.remaining, 30.0))
        return Failed(FailureKind.TIMEOUT)


def test_ten_black_holed_signatures_and_a_slow_body_still_end_in_fail_and_550() -> None:
    message = b"From: service@bank.example\r\nTo: user@recv.example\r\nSubject: x\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n\r\nhi\r\n"
    for n in range(10):
        message = signed(message, "attacker.example").replace(
            b"d=attacker.example", b"d=hole%d.example" % n, 1
        )
    built = replace(
        a_runtime(resolver=BlackHole(zone(), lambda name: "hole" in name)),
        budget=Budget(message=2.0, checks=0.2, question=0.1),
    )

    async def slowly() -> Verdict:
        work = Verification(
            built, Session(client_ip=parse_ip("203.0.113.66"), helo=parse_helo("helo.attacker.example"))
        )
        work.sender(parse_reverse_path("x@attacker.example"))
        work.recipient(parse_recipient(RCPT))
        parsed, start = Message.parse(message)
        work.headers(parsed)
        for octet in message[start:]:
            await asyncio.sleep(0.01)
            work.body(bytes((octet,)))
        return await work.verdict()

    verdict = asyncio.run(slowly())
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "fail"
    assert verdict.decision.reply is not None
    assert verdict.decision.reply.code == 550
    assert verdict.evidence.dkim is not None
    assert {r.status for r in verdict.evidence.dkim} <= {"temperror", "policy"}


def test_a_black_holed_policy_record_ends_as_temperror_within_the_budget() -> None:
    built = replace(
        a_runtime(resolver=BlackHole(zone(), lambda name: name.startswith("_dmarc."))),
        budget=Budget(message=0.3, checks=0.2, question=5.0),
    )
    _mail, verdict = judge(SCENARIOS[1], built)
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "temperror"
    assert verdict.evidence.dmarc.problem == "limit"
    assert verdict.elapsed_ms < 5000
    assert any(step.limited for step in verdict.trace)


class Faulty(Cold):
    """A resolver with a bug: it raises where its port says that it answers."""

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        await super().fetch(question, deadline)
        raise RuntimeError("a bug in the resolver")


def test_a_resolver_that_raises_is_a_bug_and_no_limit() -> None:
    notes = Notes()
    _mail, verdict = judge(SCENARIOS[0], a_runtime(resolver=Faulty({}), notes=notes))
    assert verdict.evidence.spf is not None
    assert verdict.evidence.spf.status == "internal_error"
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "internal_error"
    assert verdict.decision.rule == "on_error"
    assert {where for where, _ in notes.bugs} >= {"method:spf", "method:dmarc"}


def test_a_method_that_breaks_is_an_internal_error_and_on_error_answers() -> None:
    def broken(_inquiry: object, _lookup: Lookup) -> object:
        raise ZeroDivisionError

    methods = tuple(replace(m, early=broken) if m.name == "spf" else m for m in METHODS)
    notes = Notes()
    built = replace(a_runtime(notes=notes), methods=methods)
    _mail, verdict = judge(SCENARIOS[0], built)
    assert verdict.evidence.spf is not None
    assert verdict.evidence.spf.status == "internal_error"
    assert verdict.decision.disposition is Disposition.TEMPFAIL
    assert verdict.decision.reply is not None
    assert (verdict.decision.reply.code, verdict.decision.reply.enhanced) == (451, "4.3.0")
    assert "ZeroDivision" not in str(verdict.decision.reply)
    assert [where for where, _ in notes.bugs] == ["method:spf"]
    assert "smtp.mailfrom" not in verdict.authentication_results


@pytest.mark.parametrize(
    ("config", "session", "origin"),
    [
        ("{}", Session(client_ip=parse_ip("203.0.113.66")), Origin.INTERNET),
        ("{}", Session(client_ip=parse_ip("203.0.113.66"), authenticated="joe"), Origin.SUBMISSION),
        ("{}", Session(client_ip=parse_ip("203.0.113.66"), daemon_name="ORIGINATING"), Origin.SUBMISSION),
        ("{}", Session(client_ip=parse_ip("127.0.0.1")), Origin.INTERNAL),
        ("{}", Session(client_ip=parse_ip("::1")), Origin.INTERNAL),
        ("{}", Session(client_ip=None), Origin.INTERNET),
        ("internal: {networks: ['::/96']}", Session(client_ip=parse_ip("192.0.2.1")), Origin.INTERNET),
        ("internal: {networks: [0.0.0.0/0]}", Session(client_ip=parse_ip("::1")), Origin.INTERNET),
        ("internal: {networks: [192.0.2.0/25, 198.51.100.4/30]}", Session(client_ip=parse_ip("198.51.100.7")), Origin.INTERNAL),
        ("internal: {networks: [192.0.2.0/25, 198.51.100.4/30]}", Session(client_ip=parse_ip("198.51.100.8")), Origin.INTERNET),
        ("trusted_hops: [{networks: [127.0.0.1]}]", Session(client_ip=parse_ip("127.0.0.1")), Origin.TRUSTED_HOP),
        ("trusted_hops: [{networks: [127.0.0.1], daemon_names: [back]}]", Session(client_ip=parse_ip("127.0.0.1")), Origin.INTERNAL),
        ("trusted_relays: [{networks: [198.51.100.0/24]}]", Session(client_ip=parse_ip("198.51.100.7")), Origin.TRUSTED_RELAY),
        ("submission: {authenticated: false}", Session(client_ip=parse_ip("203.0.113.66"), authenticated="joe"), Origin.INTERNET),
    ],
)  # fmt: skip
def test_the_first_line_that_fits_decides_the_origin_and_is_named(
    config: str, session: Session, origin: Origin
) -> None:
    found, because, _relay = a_runtime(config).origins.decide(session)
    assert found is origin
    assert because


def test_the_network_that_decided_is_named_as_it_is_written_and_a_hop_has_its_names() -> None:
    rules = a_runtime(
        "trusted_hops: [{networks: [10.0.0.0/8], daemon_names: [a]}, {networks: [10.1.0.0/16]}]"
    ).origins
    found = [
        rules.decide(Session(client_ip=parse_ip("10.1.2.3"), daemon_name=name))[:2] for name in ("a", "b")
    ]
    assert found == [
        (Origin.TRUSTED_HOP, "trusted_hops[0]: 10.0.0.0/8"),
        (Origin.TRUSTED_HOP, "trusted_hops[1]: 10.1.0.0/16"),
    ]


def test_a_relay_is_judged_for_the_client_it_names_and_never_refused() -> None:
    config = "{policy: enforce, trusted_relays: [{networks: [198.51.100.0/24], received_by: [backup.recv.example]}]}"
    received = b"Received: from helo.attacker.example (unknown [203.0.113.66])\r\n\tby backup.recv.example (Postfix) with ESMTP id 1;\r\n\tSun, 22 Nov 2026 12:00:00 +0000\r\n"
    forged = SCENARIOS[1]
    _mail, verdict = judge(
        replace(forged, message=received + forged.message, client_ip="198.51.100.7"), a_runtime(config)
    )
    assert verdict.origin is Origin.TRUSTED_RELAY
    assert verdict.evidence.spf is not None
    assert verdict.evidence.spf.status == "pass"
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "fail"
    assert verdict.decision.disposition is Disposition.QUARANTINE


def test_a_relay_without_a_readable_received_field_leaves_spf_unasked() -> None:
    config = "{policy: enforce, trusted_relays: [{networks: [198.51.100.0/24], received_by: [backup.recv.example]}]}"
    lying = b"Received: from helo.attacker.example (unknown [192.0.2.10]) by elsewhere.example with ESMTP;\r\n\tSun, 22 Nov 2026 12:00:00 +0000\r\n"
    _mail, verdict = judge(
        replace(SCENARIOS[0], message=lying + SCENARIOS[0].message, client_ip="198.51.100.7"),
        a_runtime(config),
    )
    assert verdict.evidence.spf is None
    assert verdict.evidence.iprev is None
    assert verdict.evidence.dkim is not None


def test_our_own_mail_is_not_judged() -> None:
    _mail, verdict = judge(replace(SCENARIOS[1], client_ip="127.0.0.1"), a_runtime())
    assert verdict.evidence == Evidence()
    assert verdict.decision.disposition is Disposition.ACCEPT


def test_without_a_client_address_spf_is_not_asked_and_the_rest_is() -> None:
    built = a_runtime()
    _mail, verdict = asyncio.run(engine.verify(SCENARIOS[0].message, built, session=Session()))
    assert verdict.evidence.spf is None
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "pass"


def test_with_all_answers_at_hand_a_verdict_never_waits() -> None:
    async def run() -> None:
        work = Verification(
            a_runtime(), Session(client_ip=parse_ip("192.0.2.10"), helo=parse_helo("mail.good.example"))
        )
        work.sender(parse_reverse_path("news@good.example"))
        message, start = Message.parse(SCENARIOS[0].message)
        work.headers(message)
        work.body(SCENARIOS[0].message[start:])
        pending = work.verdict()
        with pytest.raises(StopIteration) as done:
            pending.send(None)
        assert isinstance(done.value.value, Verdict)

    asyncio.run(run())


def test_cancelling_at_any_stage_leaves_no_task() -> None:
    async def run(stage: int) -> None:
        built = a_runtime(resolver=BlackHole(zone(), lambda _: True))
        work = Verification(
            built, Session(client_ip=parse_ip("192.0.2.10"), helo=parse_helo("mail.good.example"))
        )
        if stage > 0:
            work.sender(parse_reverse_path("news@good.example"))
        if stage > 1:
            work.headers(Message.parse(SCENARIOS[0].message)[0])
        await asyncio.sleep(0)
        work.cancel()
        work.cancel()
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1

    for stage in range(3):
        asyncio.run(run(stage))


def test_a_verdict_that_is_given_up_while_it_waits_leaves_no_task() -> None:
    async def run() -> None:
        built = a_runtime(resolver=BlackHole(zone(), lambda _: True))
        work = Verification(
            built, Session(client_ip=parse_ip("192.0.2.10"), helo=parse_helo("mail.good.example"))
        )
        work.sender(parse_reverse_path("news@good.example"))
        work.headers(Message.parse(SCENARIOS[0].message)[0])
        pending = asyncio.create_task(work.verdict())
        await asyncio.sleep(0.01)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
