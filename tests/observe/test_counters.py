"""What is counted of a message: the same numbers whether its kind came before or not, and never too many of them."""

from __future__ import annotations

from dataclasses import replace

from authmilter.dkim.result import DkimResult, DkimStatus
from authmilter.evidence import Evidence
from authmilter.observe.counters import Counters
from authmilter.verdict import Decision, Disposition
from tests.observe.test_journal import said_in_full


def test_each_message_counts_under_all_its_keys_however_often_its_kind_comes() -> None:
    mail, verdict = said_in_full()
    counters = Counters()
    for _ in range(3):
        counters.count(mail, verdict)
    assert counters.snapshot() == {
        "messages": 3,
        "messages{origin=trusted_relay}": 3,
        "disposition{reject}": 3,
        "rule{r1}": 3,
        "spf{softfail}": 3,
        "dkim{pass}": 3,
        "dmarc{fail}": 3,
        "bimi{fail}": 3,
        "would_have{reject,rule=r0}": 3,
        "signed": 3,
        "signing_risk{long_line}": 3,
        "verdict_seconds": 0.00375,
        "dns_questions": 15,
        "dns_remembered": 9,
    }


def test_kinds_are_not_mixed_up() -> None:
    mail, verdict = said_in_full()
    counters = Counters()
    accepted = replace(verdict, decision=Decision(disposition=Disposition.ACCEPT, rule="r2", because=""))
    for each in (verdict, accepted, replace(accepted, evidence=Evidence()), replace(accepted, signing=None)):
        counters.count(mail, each)
    counted = counters.snapshot()
    assert (counted["rule{r1}"], counted["rule{r2}"]) == (1, 3)
    assert (counted["disposition{reject}"], counted["disposition{accept}"]) == (1, 3)
    assert (counted["spf{softfail}"], counted["signed"], counted["messages"]) == (3, 3, 4)


def test_of_several_signatures_the_best_is_counted() -> None:
    mail, verdict = said_in_full()
    for statuses, counted in (
        ((), "none"),
        ((DkimStatus.FAIL,), "fail"),
        ((DkimStatus.NEUTRAL, DkimStatus.PERMERROR, DkimStatus.FAIL), "fail"),
        (tuple(DkimStatus), "pass"),
    ):
        counters = Counters()
        evidence = Evidence(dkim=tuple(DkimResult(status=status) for status in statuses))
        counters.count(mail, replace(verdict, evidence=evidence))
        assert counters.snapshot()[f"dkim{{{counted}}}"] == 1


def test_beyond_the_limit_all_others_are_counted_together() -> None:
    mail, verdict = said_in_full()
    counters = Counters()
    for number in range(3000):
        decision = replace(verdict.decision, rule=f"rule{number}")
        for _ in range(2):
            counters.count(mail, replace(verdict, decision=decision))
    counted = counters.snapshot()
    assert len(counted) == 2001
    assert counted["messages"] == 6000
    of_rules = sum(value for key, value in counted.items() if key.startswith("rule{"))
    assert of_rules + counted["other"] >= 6000
    assert counted["rule{rule7}"] == 2
