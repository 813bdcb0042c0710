"""Forwarder exceptions: a pair of author domain and forwarder, proven, for failures that look like forwarding, for a while."""

from __future__ import annotations

from datetime import date

import pytest

from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import DmarcResult, DmarcStatus
from authmilter.errors import PolicyError
from authmilter.evidence import Evidence
from authmilter.names import Domain
from authmilter.policy import loader
from authmilter.policy.decide import judge_facts
from authmilter.policy.facts import Facts
from authmilter.policy.rules import Policy
from authmilter.spf.result import SpfIdentity, SpfResult, SpfStatus
from authmilter.verdict import Disposition, OverrideReason
from tests.support.policies import a_mail

ENTRY = """
  - author: bank.example
    forwarder: alumni.example
    owner: jane@here.example
    reason: alumni forwarding, ticket 4711
    expires: 2027-06-30
"""
RULES = """
rules:
  - id: excepted
    when: {dmarc.status: fail, exception.applies: true}
    then: accept
    tag: {header: {name: X-Note, value: "let in for {exception.forwarder}"}}
    override: trusted_forwarder
  - id: dmarc-reject
    when: {dmarc.status: fail}
    then: reject
default: accept
"""
FACTS: dict[str, object] = {
    "mail.date": "2026-11-22",
    "message.author.domain": "bank.example",
    "dmarc.status": "fail",
    "dmarc.policy": "reject",
    "dmarc.forwarding": ["body"],
    "dkim.pass_domains": ["mx.alumni.example"],
}


def a_policy(entry: str = ENTRY, rules: str = RULES, *, today: date | None = None) -> Policy:
    return loader.load(f"exceptions:{entry}{rules}", "p.yaml", today=today)


def test_the_pair_is_let_in_and_everybody_is_told_why() -> None:
    decision = judge_facts(Facts.from_mapping(FACTS), a_policy())
    assert decision.disposition is Disposition.ACCEPT
    assert decision.rule == "excepted"
    assert decision.override is OverrideReason.TRUSTED_FORWARDER
    assert decision.override_comment == "forwarder=alumni.example"
    assert decision.because.endswith(
        "exception for bank.example through alumni.example until 2027-06-30, jane@here.example: "
        "alumni forwarding, ticket 4711"
    )
    assert str(decision.tags).count("let in for alumni.example") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"message.author.domain": "other.example"},
        {"message.author.domain": "sub.bank.example"},
        {"message.author.domain": None},
        {"dkim.pass_domains": ["evilalumni.example"]},
        {"dkim.pass_domains": ["example"]},
        {"dkim.pass_domains": []},
        {"dmarc.forwarding": []},
        {"dmarc.forwarding": None},
        {"mail.date": "2027-07-01"},
        {"mail.date": None},
        {"dkim.pass_domains": [], "spf.status": "fail", "spf.domain": "alumni.example"},
        {"dkim.pass_domains": [], "spf.status": "pass", "spf.domain": "alumni.example", "spf.broad": True},
        {"dkim.pass_domains": [], "arc.status": "fail", "arc.sealer": "alumni.example"},
        # only where it is asked for
        {"dkim.pass_domains": [], "iprev.status": "pass", "iprev.name": "mx.alumni.example"},
    ],
)
def test_nothing_else_is(change: dict[str, object]) -> None:
    decision = judge_facts(Facts.from_mapping({**FACTS, **change}), a_policy())
    assert decision.rule == "dmarc-reject"
    assert decision.override is None
    assert decision.override_comment == ""


@pytest.mark.parametrize(
    ("proofs", "change"),
    [
        ("", {"spf.status": "pass", "spf.domain": "bounces.alumni.example"}),
        ("", {"arc.status": "pass", "arc.sealer": "alumni.example"}),
        ("    proven_by: iprev\n", {"iprev.status": "pass", "iprev.name": "mx.alumni.example"}),
        ("    proven_by: [iprev, spf]\n", {"spf.status": "pass", "spf.domain": "alumni.example"}),
    ],
)
def test_each_way_to_prove_the_forwarder(proofs: str, change: dict[str, object]) -> None:
    facts = Facts.from_mapping({**FACTS, "dkim.pass_domains": [], **change})
    assert judge_facts(facts, a_policy(ENTRY + proofs)).rule == "excepted"


def test_the_last_day_counts_and_a_name_below_needs_its_own_sign() -> None:
    below = ENTRY.replace("author: bank.example", 'author: "*.bank.example"')
    last = Facts.from_mapping({**FACTS, "mail.date": "2027-06-30"})
    assert judge_facts(last, a_policy()).rule == "excepted"
    sub = Facts.from_mapping({**FACTS, "message.author.domain": "sub.bank.example"})
    assert judge_facts(sub, a_policy(below)).rule == "excepted"
    assert judge_facts(Facts.from_mapping(FACTS), a_policy(below)).rule == "dmarc-reject"


def test_the_policy_reads_what_its_exceptions_ask_for() -> None:
    assert a_policy(ENTRY + "    proven_by: [dkim, arc]\n").reads == {"dmarc", "dkim", "arc"}
    silent = a_policy(rules="default: accept\n")
    assert silent.reads == frozenset()
    # A check that failed inside authmilter is no proof, and no reason to go on.
    broken = Facts.from_mapping({**FACTS, "internal_errors": ["arc"]})
    assert judge_facts(broken, a_policy()).rule == "on_error"


def test_warnings() -> None:
    texts = [str(w) for w in a_policy(today=date(2027, 7, 1)).warnings]
    assert len(texts) == 1
    assert texts[0].startswith(
        "p.yaml:2:5: the exception for bank.example through alumni.example expired on 2027-06-30"
    )
    assert texts[0].endswith("is not applied (ask its owner, jane@here.example, or remove it)")
    assert a_policy(today=date(2027, 6, 30)).warnings == ()
    assert "lasts longer than a year" in str(a_policy(today=date(2026, 1, 1)).warnings[0])
    assert "no rule asks about the exceptions" in str(a_policy(rules="default: accept\n").warnings[0])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (" 5\n", "`exceptions` wants a list"),
        (" [x]\n", "an exception is a mapping"),
        (" [{author: a.example}]\n", "has no `forwarder`, `owner`, `reason`, `expires`"),
        (ENTRY.replace("bank.example", "example"), "whole top-level domain"),
        (ENTRY.replace("bank.example", "-bad-"), "`author` cannot be"),
        (ENTRY.replace("alumni.example", '"*.alumni.example"'), "`forwarder` cannot be"),
        (ENTRY.replace("2027-06-30", "30.6.2027"), "`expires` cannot be"),
        (ENTRY.replace("2027-06-30", "2027-02-30"), "`expires` cannot be"),
        (ENTRY.replace("2027-06-30", "2027-W10-1"), "`expires` cannot be"),
        (ENTRY.replace("jane@here.example", '""'), "`owner` is empty"),
        (ENTRY + "    proven_by: helo\n", "`proven_by` cannot be"),
        (ENTRY + "    proven_by: []\n", "`proven_by` names nothing"),
        (ENTRY + "    until: never\n", "unknown key of an exception"),
    ],
)
def test_mistakes(entry: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        a_policy(entry)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("dkim", "spf", "expected"),
    [
        ((("bank.example", DkimProblem.BODY_HASH),), SpfStatus.FAIL, ("body",)),
        ((("mail.bank.example", DkimProblem.SIGNATURE),), SpfStatus.PASS, ("header",)),
        ((("bank.example", DkimProblem.NO_KEY),), SpfStatus.FAIL, ()),
        ((("bank.example", DkimProblem.KEY_REVOKED), ("forger.example", None)), SpfStatus.FAIL, ()),
        ((("forger.example", DkimProblem.BODY_HASH),), SpfStatus.FAIL, ("spf",)),
        ((), SpfStatus.FAIL, ("spf",)),
        ((), SpfStatus.TEMPERROR, ()),
    ],
)
def test_what_forwarding_explains(
    dkim: tuple[tuple[str, DkimProblem | None], ...], spf: SpfStatus, expected: tuple[str, ...]
) -> None:
    bank = Domain.parse("bank.example")
    evidence = Evidence(
        spf=SpfResult(status=spf, identity=SpfIdentity.MAILFROM),
        dkim=tuple(
            DkimResult(
                status=DkimStatus.PASS if problem is None else DkimStatus.FAIL,
                domain=Domain.parse(domain),
                problem=problem,
            )
            for domain, problem in dkim
        ),
        dmarc=DmarcResult(status=DmarcStatus.FAIL, author=bank, organizational_domain=bank),
    )
    mail = a_mail(headers=(("From", "a@bank.example"),))
    assert Facts.of(mail, evidence).get("dmarc.forwarding") == expected
