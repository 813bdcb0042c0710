"""What is remembered of the way through the rules never changes a decision, and is bounded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.arc.result import ArcResult, ArcSet, ArcStatus
from authmilter.dkim.result import DkimResult, DkimStatus
from authmilter.dmarc.result import AlignedBy, DmarcPolicy, DmarcProblem, DmarcResult, DmarcStatus
from authmilter.evidence import Evidence
from authmilter.mail import Mail
from authmilter.names import Domain, parse_ip
from authmilter.policy import loader, shipped
from authmilter.policy.conditions import OPERATORS, list_operators
from authmilter.policy.decide import decide, judge
from authmilter.policy.facts import SCHEMA, Fact, Facts, Kind
from authmilter.policy.rules import Condition, Mode, Policy
from authmilter.policy.tree import MANY_TESTS, MAX_KEPT, Question, Tree
from authmilter.spf.result import SpfIdentity, SpfResult, SpfStatus
from authmilter.verdict import Disposition, OverrideReason, PassedOver
from tests.support.policies import a_mail, a_policy, a_rule, facts, judged

SHIPPED = tuple(loader.load(shipped.shipped_text(n), n) for n in shipped.NAMES)

# -- the same as without a memory ----------------------------------------------------------------------------------------

# Facts that are asked for often, so that messages meet on their way and part again.
_OFTEN = (
    "dmarc.status", "dmarc.policy", "spf.status", "dkim.aligned", "arc.dmarc_passed", "rcpt.count", "message.size",
    "client.ip", "spf.domain", "arc.sealer", "message.defects", "dkim.pass_domains", "rcpt.addresses", "rcpt.domain",
    "exception.applies", "exception.forwarder",
)  # fmt: skip
_FACT = st.sampled_from([SCHEMA[n] for n in _OFTEN]) | st.sampled_from(list(SCHEMA.values()))
_DOMAINS = ("a.example", "x.a.example", "b.example", "c.example")


def _wanted(fact: Fact) -> st.SearchStrategy[object]:
    if fact.kind is Kind.BOOL:
        return st.booleans()
    if fact.kind is Kind.INT:
        return st.integers(0, 3)
    values = {Kind.WORD: fact.words, Kind.IP: ("192.0.2.0/24", "::1")}
    value = st.sampled_from(values.get(fact.kind, (*_DOMAINS, "*.example", "x*")))
    return value | st.lists(value, min_size=1, max_size=3)


@st.composite
def _conditions(draw: st.DrawFn, depth: int = 0) -> dict[str, object]:
    if depth < 2 and draw(st.integers(0, 3)) == 0:
        word = draw(st.sampled_from(["any", "all", "not"]))
        inner = draw(st.lists(_conditions(depth + 1), min_size=1, max_size=3))
        return {word: inner[0] if word == "not" else inner}
    fact = draw(_FACT)
    wanted = draw(_wanted(fact))
    if draw(st.integers(0, 2)) == 0:
        op = draw(st.sampled_from(list_operators(fact) if fact.many else OPERATORS[fact.kind]))
        fixed: dict[str, object] = {"in_list": "l", "not_in_list": "l", "at_or_below": "a.example"}
        if op in {"above", "at_least", "below", "at_most", "count"}:
            wanted = draw(st.integers(0, 3))
        wanted = {op: draw(st.booleans()) if op == "present" else fixed.get(op, wanted)}
    if fact.kind is Kind.IP and isinstance(wanted, dict) and {"in_list", "not_in_list"} & wanted.keys():
        wanted = "192.0.2.1"
    return {fact.name: wanted} | (draw(_conditions(depth + 1)) if draw(st.booleans()) else {})


_TEXT = st.sampled_from(
    ["as ever", "{spf.domain}", "{client.ip} {dmarc.status}", "{rcpt.domain}", "{rcpt.count}"]
)
_TAG = _TEXT.map(lambda text: {"header": {"name": "X-Tag", "value": text}}) | st.just(
    {"subject_prefix": "[?] "}
)
_THEN = st.sampled_from(["accept", "discard", "reject", "tempfail", "quarantine", "continue", "continue"])
_REPLY = _TEXT.map(lambda text: {"reject": {"text": text}})
_MARK = _TEXT.map(lambda text: {"quarantine": {"by": "header", "value": text}})
_OVERRIDE = st.sampled_from([str(reason) for reason in OverrideReason])


@st.composite
def _policies(draw: st.DrawFn) -> Policy:
    rules: list[dict[str, object]] = []
    for number in range(draw(st.integers(1, 6))):
        rule: dict[str, object] = {"id": f"r{number}", "then": draw(_THEN | _REPLY | _MARK)}
        rule["when"] = draw(_conditions() | st.just("always"))
        if draw(st.booleans()):
            rule["tag"] = draw(_TAG)
        if rule["then"] in ("accept", "continue", "quarantine"):
            rule |= draw(st.fixed_dictionaries({}, optional={"override": _OVERRIDE}))
        rules.append(rule | draw(st.fixed_dictionaries({}, optional={"mode": st.just("monitor")})))
    whole = {
        "lists": {"l": ["a.example", "*.b.example"]},
        "mode": draw(st.sampled_from(["enforce", "monitor"])),
        "on_mixed": draw(st.sampled_from(["least-severe", "most-severe"])),
        "exceptions": [
            {
                "author": "a.example",
                "forwarder": "b.example",
                "owner": "o",
                "reason": "r",
                "expires": "2027-06-30",
            }
        ]
        if draw(st.booleans())
        else [],
        "rules": rules,
        "default": draw(st.sampled_from(["accept", "reject"])),
    }
    if draw(st.booleans()):
        whole["would_have_header"] = "X-Would"
    return loader.load(json.dumps(whole), "p.yaml")


def _given(fact: Fact) -> st.SearchStrategy[object]:
    if fact.kind is Kind.BOOL:
        return st.booleans()
    if fact.kind is Kind.INT:
        return st.integers(0, 4)
    one = st.sampled_from(
        fact.words or (("192.0.2.1", "::1") if fact.kind is Kind.IP else (*_DOMAINS, "z@a.example"))
    )
    return st.lists(one, max_size=3) if fact.many else one


_FACTS = st.fixed_dictionaries(
    {"mail.id": st.sampled_from(["A1", "B2"]), "mail.date": st.just("2026-11-22")},
    optional={n: _given(f) for n, f in SCHEMA.items() if not n.startswith(("exception.", "mail."))},
)


def fresh(policy: Policy) -> Policy:
    """The same policy, without a memory."""
    return replace(policy)


@settings(max_examples=80, deadline=None)
@given(_policies() | st.sampled_from(SHIPPED), st.lists(_FACTS, min_size=1, max_size=6), st.data())
def test_what_is_remembered_changes_no_decision(
    policy: Policy, messages: list[dict[str, object]], data: st.DataObject
) -> None:
    policy = fresh(policy)
    # messages that differ in one fact only go the same way for a while
    for message in list(messages):
        fact = data.draw(st.sampled_from([SCHEMA[n] for n in _OFTEN[:13]]))
        messages.append({**message, fact.name: data.draw(_given(fact)), "mail.id": "C3"})
    for message in [*messages, *messages]:
        assert decide(Facts.from_mapping(message), policy) == decide(
            Facts.from_mapping(message), fresh(policy)
        )


_D = [Domain.parse(d) for d in _DOMAINS]
_DKIM = st.builds(
    DkimResult,
    status=st.sampled_from(DkimStatus),
    domain=st.sampled_from(_D),
    unsigned_critical=st.sampled_from([(), ("subject",), ("subject", "date")]),
    signed_headers=st.just(("list-id",)),
)
_DMARC = st.builds(
    DmarcResult,
    status=st.sampled_from(DmarcStatus),
    policy=st.sampled_from([None, *DmarcPolicy]),
    published=st.sampled_from([None, *DmarcPolicy]),
    aligned=st.lists(st.sampled_from(AlignedBy), unique=True).map(tuple),
    testing=st.booleans(),
    problem=st.sampled_from([None, DmarcProblem.LIMIT]),
)
_SPF = st.builds(
    SpfResult,
    status=st.sampled_from(SpfStatus),
    identity=st.just(SpfIdentity.MAILFROM),
    domain=st.sampled_from(_D),
    broad=st.booleans(),
)
_ARC = st.builds(
    ArcResult,
    status=st.sampled_from(ArcStatus),
    sets=st.just((ArcSet(instance=1, sealer=_D[0], selector="s", remote_ip=parse_ip("192.0.2.9")),)),
    whole=st.booleans(),
    dmarc_passed_at=st.integers(0, 1),
)
_EVIDENCE = st.builds(
    Evidence,
    spf=st.none() | _SPF,
    dkim=st.none() | st.lists(_DKIM, max_size=2).map(tuple),
    dmarc=st.none() | _DMARC,
    arc=st.none() | _ARC,
)
_MAILS = st.builds(
    a_mail,
    ip=st.sampled_from([None, "192.0.2.1", "203.0.113.254"]),
    rcpt=st.sampled_from([(), ("<postmaster>",), ("<u@a.example>", "<postmaster@b.example>")]),
    headers=st.sampled_from([(), (("List-Id", "<x.a.example>"),)]),
)


@settings(max_examples=80, deadline=None)
@given(_policies() | st.sampled_from(SHIPPED), st.lists(st.tuples(_MAILS, _EVIDENCE), min_size=2, max_size=6))
def test_what_is_remembered_of_mails_changes_no_decision(
    policy: Policy, messages: list[tuple[Mail, Evidence]]
) -> None:
    policy = fresh(policy)
    for mail, evidence in [*messages, *messages]:
        assert judge(mail, evidence, policy) == judge(mail, evidence, fresh(policy))


def plain(asked: Facts, policy: Policy) -> tuple[str, list[str], list[PassedOver]]:
    """Which rule decides, which were held back by monitor mode, and what was passed over, as the manual says it."""
    passed: list[PassedOver] = []
    would: list[str] = []
    for rule in policy.rules:
        failing: Condition | None = next((c for c in rule.conditions if not c.holds(asked)), None)
        if failing is not None:
            passed.append(PassedOver(rule=rule.id, because=failing.why_not(asked)))
        elif rule.action.kind.disposition is not None:
            if rule.mode is Mode.ENFORCE:
                return rule.id, would, passed
            would.append(rule.id)
    return policy.default.id, would, passed


@settings(max_examples=50, deadline=None)
@given(_policies(), st.lists(_FACTS, min_size=1, max_size=5))
def test_the_first_rule_that_holds_decides_whatever_is_remembered(
    policy: Policy, messages: list[dict[str, object]]
) -> None:
    policy = replace(policy, recipient_key="", exceptions=(), mode=Mode.ENFORCE)
    for message in [*messages, *messages]:
        decision = decide(Facts.from_mapping(message), policy)
        rule, would, passed = plain(Facts.from_mapping(message), policy)
        assert decision.rule == rule
        assert [w.rule for w in decision.would_have] == would
        assert list(decision.passed_over) == passed


# -- what is a message's own -----------------------------------------------------------------------------------------------


def test_a_decision_without_texts_of_the_message_is_one_value() -> None:
    policy = a_policy(
        "rules:\n  - {id: a, when: {spf.status: fail}, then: continue, tag: {header: {name: X-A, value: fails}}}\n"
    )
    one, other = (judged(policy, mail__id=i, spf__status="fail", spf__domain=f"{i}.example") for i in "ab")
    assert one is other
    assert judged(policy, mail__id="a", spf__status="pass") is not one


@pytest.mark.parametrize(
    ("then", "more"),
    [
        ("reject", ""),
        ("{quarantine: {by: header, value: 'of {spf.domain}'}}", ""),
        ("accept", "tag: {header: {name: X-A, value: 'of {spf.domain}'}}"),
        ("reject", "mode: monitor"),
    ],
)
def test_each_message_has_its_own_texts(then: str, more: str) -> None:
    extra = f", {more}" if more else ""
    policy = a_policy(f"rules:\n  - {{id: r, when: {{spf.status: fail}}, then: {then}{extra}}}\n")
    for each in ("a", "b", "a"):
        values: dict[str, object] = {
            "mail__id": f"ID-{each}",
            "spf__status": "fail",
            "spf__domain": f"{each}.example",
        }
        decision = judged(policy, **values)
        assert f"ID-{each}" in str(decision) or f"of {each}.example" in str(decision)
        assert decision == judged(fresh(policy), **values)


def test_a_reason_names_the_number_of_its_message() -> None:
    policy = a_policy(
        "rules:\n"
        "  - {id: many, when: {rcpt.count: {above: 9}}, then: discard}\n"
        "  - {id: any, when: {any: [{all: [{tls: true}, {rcpt.count: {above: 9}}]}, {message.size: 1}]}, then: discard}\n"
        "  - {id: all, when: {all: [{tls: true}, {message.size: {above: 100}}]}, then: discard}\n"
    )
    for count in (1, 2, 1):
        decision = judged(policy, rcpt__count=count, message__size=10 * count, tls=True)
        assert [p.because for p in decision.passed_over] == [
            f"rcpt.count is {count}",
            "not: (tls is true and rcpt.count is above 9 or message.size is 1)",
            f"message.size is {10 * count}",
        ]


def test_no_value_and_a_value_that_does_not_meet_the_rule_are_told_apart() -> None:
    policy = a_rule("{spf.domain: a.example}")
    for value, reason in (
        (None, "spf.domain has no value"),
        ("b.example", "not: spf.domain is a.example"),
    ) * 2:
        assert judged(policy, spf__domain=value).passed_over == (PassedOver(rule="r", because=reason),)


def test_the_reason_of_an_override_is_each_message_s_own() -> None:
    policy = a_policy("")
    values: dict[str, object] = {
        "dmarc__status": "fail",
        "dmarc__policy": "none",
        "dmarc__published": "reject",
    }
    for testing, reason in (
        (True, OverrideReason.POLICY_TEST_MODE),
        (False, OverrideReason.LOCAL_POLICY),
    ) * 2:
        assert judged(policy, dmarc__testing=testing, **values).override is reason
    assert judged(policy, dmarc__status="pass").override is None


def test_policies_do_not_share_what_they_remember() -> None:
    one = a_rule("{tls: true}", "discard")
    assert judged(one, tls=True).disposition is Disposition.DISCARD
    other = replace(one, mode=Mode.MONITOR)
    assert other.courses is not one.courses
    assert judged(other, tls=True).disposition is Disposition.ACCEPT
    assert judged(one, tls=True).disposition is Disposition.DISCARD


def test_a_policy_is_equal_whatever_it_remembers() -> None:
    one = a_rule("{tls: true}")
    other = fresh(one)
    judged(one, tls=True)
    assert one == other
    assert "courses" not in repr(one)


# -- bounds ----------------------------------------------------------------------------------------------------------------


def of_domain(*names: str) -> Question:
    return Question("spf.domain", [frozenset({name}).__contains__ for name in names])


def test_a_tree_keeps_no_more_than_it_may() -> None:
    # one question and 50 parts each: three ways fit into 300 parts, and with the fourth all is begun anew
    tree: Tree[str] = Tree({"spf.status": Question("spf.status", None)}, most=300)
    words = ("pass", "fail", "none", "neutral")
    for word in words[:3]:
        tree.add({"spf.status": word}, word, 50)
    assert [tree.find(facts(spf__status=w)) for w in words] == ["pass", "fail", "none", None]
    assert tree.parts == 300
    tree.add({"spf.status": "neutral"}, "neutral", 50)
    assert [tree.find(facts(spf__status=w)) for w in words] == [None, None, None, "neutral"]
    assert tree.parts == 100
    tree.add({"spf.status": "pass"}, "pass", 251)
    assert (tree.find(facts(spf__status="pass")), tree.parts) == (None, 0)


def test_what_senders_write_does_not_fill_a_policy_s_tree() -> None:
    policy = a_policy("rules:\n  - {id: r, when: {spf.domain: [a.example, '*.a.example']}, then: reject}\n")
    judged(policy, spf__domain="b.example")
    parts = policy.courses.parts
    for number in range(200):
        assert judged(policy, spf__domain=f"d{number}.example", message__size=number).rule == "default"
    assert policy.courses.parts == parts < MAX_KEPT


@pytest.mark.parametrize("count", [1, 2, MANY_TESTS - 1, MANY_TESTS, 40])
def test_an_answer_tells_which_tests_are_met_and_nothing_else(count: int) -> None:
    question = of_domain(*(f"d{n}.example" for n in range(count)))
    listed = {question.answer(f"d{n}.example") for n in range(count)}
    assert len(listed) == count
    others = {question.answer(value) for value in ("other.example", "", "x" * 1000)}
    assert len(others) == 1
    assert not others & listed
    assert question.answer(None) is None
