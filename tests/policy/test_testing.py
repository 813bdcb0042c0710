"""Tests that administrators write for their policies."""

from __future__ import annotations

import pytest

from authmilter.errors import PolicyError
from authmilter.policy import testing
from tests.support.policies import a_policy

POLICY = a_policy(
    "would_have_header: X-W\n"
    "rules:\n"
    "  - {id: note, when: {tls: false}, then: continue, tag: {header: {name: X-N, value: n}, subject_prefix: '[x] '}}\n"
    "  - {id: try, when: {spf.broad: true}, then: discard, mode: monitor}\n"
    "  - {id: bad, when: {spf.status: fail}, then: {tempfail: {code: 421, text: go}}, because: spf failed}\n"
    "  - {id: odd, when: {dmarc.status: fail}, then: quarantine, override: other}\n"
)


def case(facts: str, expect: str, more: str = "") -> str:
    return f"cases:\n  - name: one\n    facts: {facts}\n    expect: {expect}\n{more}"


@pytest.mark.parametrize(
    ("facts", "expect", "problem"),
    [
        ("{spf.status: fail}", "{disposition: tempfail, rule: bad, reply: '421 4.7.24 go (id TEST)', because: spf failed, ends_session: true}", ""),
        ("{spf.status: fail}", "{reply: '421 *', tags: [], would_have: [], override: ~, quarantine_reason: ~}", ""),
        ("{tls: false, spf.broad: true}", "{tags: ['X-N: n', 'Subject: [x] ', 'X-W: discard; *'], would_have: ['discard:try'], ends_session: false}", ""),
        ("{dmarc.status: fail, dmarc.policy: reject}", "{override: other, quarantine_reason: 'odd: *', reply: ~}", ""),
        ("{origin: internal}", "{rule: 'origin:internal'}", ""),
        ("{spf.status: fail}", "{disposition: reject}", "disposition is `tempfail`, not `reject`"),
        ("{spf.status: pass}", "{rule: bad, reply: '4*'}", "rule is `default`, not `bad`; reply is nothing, not `4*`; that rule was passed over: spf.status is pass"),
        ("{tls: false}", "{tags: ['X-N: n']}", "tags is [`X-N: n`, `Subject: [x] `], not [`X-N: n`]"),
        ("{spf.status: fail}", "{reply: ~}", "reply is `421 4.7.24 go (id TEST)`, not nothing"),
    ],
)  # fmt: skip
def test_a_case(facts: str, expect: str, problem: str) -> None:
    (outcome,) = testing.run(POLICY, case(facts, expect), "p.test.yaml")
    assert (outcome.name, outcome.problem) == ("one", problem)


def test_shared_facts_may_be_taken_back() -> None:
    text = "facts: {spf.status: fail}\n" + case("{spf.status: ~}", "{rule: default}")
    assert testing.run(POLICY, text, "p.test.yaml")[0].problem == ""


def test_on_error_is_the_case_s_own() -> None:
    text = case("{internal_errors: [spf]}", "{rule: on_error, disposition: accept}", "    on_error: accept\n")
    assert testing.run(POLICY, text, "p.test.yaml")[0].problem == ""


def test_rules_that_no_case_reaches_are_named() -> None:
    text = (
        case("{tls: false, spf.status: fail}", "{rule: bad}")
        + case("{internal_errors: [spf]}", "{rule: on_error}").partition("\n")[2]
    )
    assert testing.uncovered(POLICY, testing.run(POLICY, text, "p.test.yaml")) == ("try", "odd")
    text = case("{spf.broad: true}", "{rule: default}")
    assert testing.uncovered(POLICY, testing.run(POLICY, text, "p.test.yaml")) == ("note", "bad", "odd")


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("[]", ["1:1: tests of a policy are a mapping with `cases`, not an empty list"]),
        ("{}", ["1:1: `cases` wants a list of 1 to 10000 cases, not nothing"]),
        ("cases: []\ncase: 1", ["1:8: `cases` wants a list of 1 to 10000 cases, not an empty list", "2:1: unknown key `case` (did you mean `cases`?)"]),
        ("cases: [x]", ["1:9: a case is a mapping, not `x`"]),
        ("cases: [{facts: {tls: true}, expect: {rule: x}}]", ["1:9: the case has no `name` (say what it shows)"]),
        ("cases: [{name: x}]", ["1:9: `expect` wants a mapping, not nothing (known: disposition, rule, reply, tags, quarantine_reason, override, override_comment, would_have, ends_session, because)"]),
        ("cases: [{name: x, fact: 1, expect: {rule: x}}]", ["1:19: unknown key of a case `fact` (did you mean `facts`?)"]),
        ("cases: [{name: x, on_error: ignore, expect: {rule: x}}]", ["1:29: `on_error` cannot be `ignore` (known: tempfail, accept)"]),
        ("facts: 1\ncases: [{name: x, expect: {rule: x}}]", ["1:8: `facts` wants a mapping, not `1`"]),
        (case("{spf.statsu: fail}", "{rule: x}"), ["3:13: unknown fact `spf.statsu` (did you mean `spf.status`?)"]),
        (case("{rcpt.domain: a.example}", "{rule: x}"), ["3:13: unknown fact `rcpt.domain` (give `rcpt.addresses`)"]),
        (case("{spf.status: fial}", "{rule: x}"), ["3:25: `spf.status` (one of none, neutral, pass, fail, softfail, temperror, permerror, internal_error) cannot be `fial` (did you mean `fail`?)"]),
        (case("{client.ip: x}", "{rule: x}"), ["3:24: `client.ip` (IP address) cannot be `x`"]),
        (case("{tls: true}", "{disposition: refuse, overide: x}"), ["4:27: `disposition` cannot be `refuse` (known: accept, quarantine, reject, tempfail, discard)", "4:35: unknown expectation `overide` (did you mean `override`?)"]),
        (case("{tls: true}", "{tags: x}"), ["4:20: `tags` wants a list of texts, not `x`"]),
        (case("{tls: true}", "{rule: 7}"), ["4:20: `rule` cannot be `7`"]),
        (case("{tls: true}", "{reply: '*********'}"), ["4:21: a pattern has at most 8 stars"]),
        ("cases: [", ["1:9: is not YAML: expected the node content, but found '<stream end>' (while parsing a flow node)"]),
    ],
)  # fmt: skip
def test_mistakes_in_cases_are_told_with_their_places(text: str, complaints: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        testing.run(POLICY, text, "p.test.yaml")
    assert [str(c) for c in caught.value.complaints] == [f"p.test.yaml:{c}" for c in complaints]
