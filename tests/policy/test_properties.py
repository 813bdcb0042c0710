"""Whatever the text, the loader gives a policy or complaints; whatever the facts, there is a decision."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.errors import PolicyError
from authmilter.policy import loader, shipped, testing
from authmilter.policy.conditions import OPERATORS, list_operators
from authmilter.policy.decide import OnError, decide, judge_facts
from authmilter.policy.facts import SCHEMA, Facts, Kind
from authmilter.policy.rules import Policy
from authmilter.verdict import Decision, Disposition, TagHeader
from tests.support.policies import a_policy

SHIPPED = tuple(loader.load(shipped.shipped_text(n), n) for n in shipped.NAMES)
EVERY_RECIPIENT = a_policy(
    "on_mixed: most-severe\nquarantine_by: header\nwould_have_header: X-W\n"
    "rules:\n"
    "  - {id: a, when: {rcpt.address: 'a*'}, then: {reject: {text: '{rcpt.address} {mail_from.address} {client.ip}'}}}\n"
    "  - {id: b, when: {rcpt.domain: {at_or_below: example}}, then: quarantine, tag: {header: {name: X, value: '{helo}'}}}\n"
    "  - {id: c, when: {rcpt.domain: {present: false}}, then: discard, mode: monitor}\n"
)

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**12)
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "pass",
            "fail",
            "reject",
            "a.example",
            "a@b.example",
            "192.0.2.1",
            "postmaster",
            "internet",
            "trusted_relay",
            "dns",
            "limit",
        ]
    )
)
_VALUES = (
    _SCALARS | st.lists(_SCALARS, max_size=4) | st.dictionaries(st.text(max_size=3), _SCALARS, max_size=2)
)
_FACTS = st.dictionaries(st.sampled_from([*SCHEMA, "no.fact"]), _VALUES, max_size=12)


def _is_whole(decision: Decision) -> None:
    reply = decision.reply
    assert (reply is not None) is (decision.disposition in {Disposition.REJECT, Disposition.TEMPFAIL})
    if reply is not None:
        assert 400 <= reply.code <= 599
        assert (
            str(reply.code)[0]
            == reply.enhanced[0]
            == ("5" if decision.disposition is Disposition.REJECT else "4")
        )
        assert reply.text.isascii()
        assert reply.text.isprintable()
        assert 0 < len(reply.text) <= 400
    assert decision.quarantine_reason.isascii()
    assert decision.quarantine_reason.isprintable() or not decision.quarantine_reason
    for tag in decision.tags:
        if isinstance(tag, TagHeader):
            assert tag.value.isascii()
            assert tag.value.isprintable()
    assert decision.rule
    assert decision.because
    assert "\n" not in decision.because


@settings(max_examples=300)
@given(_FACTS, st.sampled_from([*SHIPPED, EVERY_RECIPIENT]), st.sampled_from(OnError))
def test_there_is_a_decision_for_any_facts(
    facts: dict[str, object], policy: Policy, on_error: OnError
) -> None:
    decision = judge_facts(Facts.from_mapping(facts), policy, on_error)
    _is_whole(decision)
    assert decision == judge_facts(Facts.from_mapping(facts), policy, on_error)


_WORDS = st.sampled_from(
    [w for fact in SCHEMA.values() for w in fact.words]
    + ["true", "a.example", "*.example", "10.0.0.0/8", "x", "7", "~"]
)


@st.composite
def _conditions(draw: st.DrawFn, depth: int = 0) -> object:
    kind = draw(st.integers(0, 9))
    if kind >= 8 and depth < 3:
        word = draw(st.sampled_from(["any", "all", "not"]))
        inner = [draw(_conditions(depth + 1)) for _ in range(draw(st.integers(1, 3)))]
        return {word: inner[0] if word == "not" else inner}
    fact = draw(st.sampled_from(list(SCHEMA.values())))
    value: object
    if fact.kind is Kind.BOOL:
        value = draw(st.booleans())
    elif fact.kind is Kind.INT:
        value = draw(st.integers(0, 5))
    elif fact.kind is Kind.WORD:
        value = draw(st.sampled_from(fact.words))
    elif fact.kind is Kind.IP:
        value = draw(st.sampled_from(["192.0.2.0/24", "::1"]))
    else:
        value = draw(st.sampled_from(["a.example", "*.example", "b*"]))
    if kind >= 5:
        op = draw(st.sampled_from(list_operators(fact) if fact.many else OPERATORS[fact.kind]))
        value = {
            op: {"present": True, "in_list": "l", "not_in_list": "l", "count": 1}.get(
                op, "a.example" if op == "at_or_below" else value
            )
        }
    return {fact.name: value}


_FULL_FACTS = st.fixed_dictionaries(
    {},
    optional={
        name: st.booleans()
        if fact.kind is Kind.BOOL
        else st.integers(0, 5)
        if fact.kind is Kind.INT
        else (st.lists(st.sampled_from(fact.words or ("a.example", "x.b.example")), max_size=3) if fact.many else st.sampled_from(fact.words or ("a.example", "192.0.2.1", "x")))
        for name, fact in SCHEMA.items()
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(_conditions(), min_size=1, max_size=4), _FULL_FACTS)
def test_any_policy_that_loads_decides_and_its_warnings_are_true(
    conditions: list[object], facts: dict[str, object]
) -> None:
    rules = [{"id": f"r{i}", "when": c, "then": "discard"} for i, c in enumerate(conditions)]
    text = json.dumps({"lists": {"l": []}, "rules": rules, "default": "accept"})
    policy = loader.load(text, "p.yaml")
    given_facts = Facts.from_mapping(facts)
    decision = decide(given_facts, policy)
    _is_whole(decision)
    for warning in policy.warnings:
        if "never" in warning.message:
            # what lint says never happens does not happen
            assert decision.rule != warning.message.split("`")[1]


_JUNK = st.recursive(
    _WORDS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["rules", "default", "lists", "id", "when", "then", "tag", "reject", "code", "enhanced", "text", "any", "not", "header", "name", "value", "spf.status", "client.ip", "in_list", "mode", "cases", "facts", "expect", "reply"]),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=400)
@given(st.text(max_size=50) | _JUNK.map(json.dumps))
def test_the_loader_raises_nothing_but_policy_error(text: str) -> None:
    complaints: tuple[object, ...] = ("none",)
    for read in (lambda t: loader.load(t, "p.yaml", read_list=str), lambda t: testing.cases(t, "p.yaml")):
        try:
            read(text)
        except PolicyError as e:
            complaints = e.complaints
        assert complaints
