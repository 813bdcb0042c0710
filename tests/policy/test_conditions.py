"""What conditions mean."""

from __future__ import annotations

import pytest

from authmilter.policy.decide import decide
from tests.support.policies import a_policy, a_rule, facts, holds, judged


@pytest.mark.parametrize(
    ("when", "values", "expected"),
    [
        # words
        ("{spf.status: fail}", {"spf__status": "fail"}, True),
        ("{spf.status: fail}", {"spf__status": "pass"}, False),
        ("{spf.status: [fail, softfail]}", {"spf__status": "softfail"}, True),
        ("{spf.status: {not: pass}}", {"spf__status": "fail"}, True),
        ("{spf.status: {not: [pass, none]}}", {"spf__status": "none"}, False),
        # a missing value makes a condition false, whatever it wants
        ("{spf.status: fail}", {}, False),
        ("{spf.status: {not: pass}}", {}, False),
        ("{message.size: {below: 5}}", {}, False),
        ("{dkim.pass_domains: {none: a.example}}", {}, False),
        ("{client.ip: {not: 192.0.2.1}}", {}, False),
        # and `not` turns that around
        ("{not: {spf.status: fail}}", {}, True),
        ("{not: {spf.status: fail}}", {"spf__status": "fail"}, False),
        # presence
        ("{spf.domain: {present: true}}", {"spf__domain": "a.example"}, True),
        ("{spf.domain: {present: true}}", {}, False),
        ("{spf.domain: {present: false}}", {}, True),
        ("{spf.domain: {present: false}}", {"spf__domain": "a.example"}, False),
        ("{dkim.problems: {present: true}}", {"dkim__problems": ["syntax"]}, True),
        ("{dkim.problems: {present: true}}", {"dkim__problems": []}, False),
        ("{dkim.problems: {present: false}}", {"dkim__problems": []}, True),
        ("{dkim.problems: {present: false}}", {}, True),
        ("{spf.domain: {present: true, not: a.example}}", {"spf__domain": "b.example"}, True),
        # truth
        ("{spf.broad: true}", {"spf__broad": True}, True),
        ("{spf.broad: false}", {"spf__broad": False}, True),
        ("{spf.broad: false}", {"spf__broad": True}, False),
        ("{spf.broad: {present: true}}", {"spf__broad": False}, True),
        # numbers
        ("{rcpt.count: 3}", {"rcpt__count": 3}, True),
        ("{rcpt.count: [1, 2]}", {"rcpt__count": 3}, False),
        ("{rcpt.count: {above: 3}}", {"rcpt__count": 3}, False),
        ("{rcpt.count: {at_least: 3}}", {"rcpt__count": 3}, True),
        ("{rcpt.count: {below: 3}}", {"rcpt__count": 2}, True),
        ("{rcpt.count: {at_most: 3, above: 1}}", {"rcpt__count": 1}, False),
        ("{rcpt.count: {not: [3, 4]}}", {"rcpt__count": 5}, True),
        # domains and texts
        ("{mail_from.domain: '*.a.example'}", {"mail_from__domain": "x.a.example"}, True),
        ("{mail_from.domain: {at_or_below: a.example}}", {"mail_from__domain": "a.example"}, True),
        (
            "{mail_from.domain: {at_or_below: [b.example, a.example]}}",
            {"mail_from__domain": "x.a.example"},
            True,
        ),
        ("{mail_from.domain: {not: ['*.a.example', a.example]}}", {"mail_from__domain": "b.example"}, True),
        ("{mail_from.address: 'News@*'}", {"mail_from__address": "news@a.example"}, True),
        # addresses
        ("{client.ip: 192.0.2.0/24}", {"client__ip": "192.0.2.7"}, True),
        ("{client.ip: [10.0.0.0/8, '2001:db8::/32']}", {"client__ip": "2001:db8::1"}, True),
        ("{client.ip: {not: 192.0.2.0/24}}", {"client__ip": "198.51.100.1"}, True),
        # lists: a value means any of the list
        ("{dkim.pass_domains: a.example}", {"dkim__pass_domains": ["b.example", "a.example"]}, True),
        ("{dkim.pass_domains: a.example}", {"dkim__pass_domains": []}, False),
        ("{dkim.problems: [syntax, sha1]}", {"dkim__problems": ["sha1"]}, True),
        ("{dkim.pass_domains: {any: '*.example'}}", {"dkim__pass_domains": ["a.test", "a.example"]}, True),
        ("{dkim.pass_domains: {any: {at_or_below: example}}}", {"dkim__pass_domains": ["a.example"]}, True),
        ("{dkim.pass_domains: {all: '*.example'}}", {"dkim__pass_domains": ["a.test", "a.example"]}, False),
        ("{dkim.pass_domains: {all: '*.example'}}", {"dkim__pass_domains": ["b.example", "a.example"]}, True),
        ("{dkim.pass_domains: {all: '*.example'}}", {"dkim__pass_domains": []}, False),
        ("{dkim.pass_domains: {none: '*.example'}}", {"dkim__pass_domains": ["a.test"]}, True),
        ("{dkim.pass_domains: {none: '*.example'}}", {"dkim__pass_domains": []}, True),
        ("{dkim.pass_domains: {none: {not: a.example}}}", {"dkim__pass_domains": ["a.example"]}, True),
        ("{dkim.pass_domains: {count: 2}}", {"dkim__pass_domains": ["a.example", "b.example"]}, True),
        (
            "{dkim.pass_domains: {count: {above: 2}}}",
            {"dkim__pass_domains": ["a.example", "b.example"]},
            False,
        ),
        (
            "{dkim.pass_domains: {any: a.example, none: b.example}}",
            {"dkim__pass_domains": ["a.example", "b.example"]},
            False,
        ),
        # the tree
        ("{spf.status: fail, tls: true}", {"spf__status": "fail", "tls": False}, False),
        ("{any: [{spf.status: pass}, {tls: true}]}", {"tls": True}, True),
        ("{any: [{spf.status: pass}, {tls: true, spf.broad: true}]}", {"tls": True}, False),
        ("{all: [{spf.status: fail}, {tls: true}]}", {"spf__status": "fail", "tls": True}, True),
        ("{not: {any: [{spf.status: pass}, {tls: true}]}}", {"tls": True}, False),
        ("{not: {spf.status: fail, tls: true}}", {"spf__status": "fail", "tls": False}, True),
        ("always", {}, True),
    ],
)
def test_a_condition_means(when: str, values: dict[str, object], expected: bool) -> None:  # noqa: FBT001 - a table's column
    assert holds(when, **values) is expected


LISTS = """\
lists:
  names: [a.example, '*.b.example']
  nets: {file: nets.txt}
  words: ['*casino*', lottery]
  none: []
"""


@pytest.mark.parametrize(
    ("when", "values", "expected"),
    [
        ("{mail_from.domain: {in_list: names}}", {"mail_from__domain": "x.b.example"}, True),
        ("{mail_from.domain: {in_list: names}}", {"mail_from__domain": "b.example"}, False),
        ("{mail_from.domain: {in_list: none}}", {"mail_from__domain": "b.example"}, False),
        ("{mail_from.domain: {not_in_list: names}}", {"mail_from__domain": "b.example"}, True),
        ("{mail_from.domain: {not_in_list: names}}", {}, False),
        ("{client.ip: {in_list: nets}}", {"client__ip": "2001:db8::9"}, True),
        ("{client.ip: {not_in_list: nets}}", {"client__ip": "192.0.2.200"}, False),
        ("{message.subject: {in_list: words}}", {"message__subject": "Grand CASINO"}, True),
        ("{dkim.pass_domains: {in_list: names}}", {"dkim__pass_domains": ["c.example", "a.example"]}, True),
        ("{dkim.pass_domains: {none: {in_list: names}}}", {"dkim__pass_domains": ["c.example"]}, True),
        # the same list for two kinds of fact
        ("{mail_from.address: {in_list: names}}", {"mail_from__address": "A.example"}, True),
    ],
)
def test_named_lists(when: str, values: dict[str, object], expected: bool) -> None:  # noqa: FBT001 - a table's column
    files = {"nets.txt": "# ours\n192.0.2.128/25  # a half\r\n\n2001:db8::/64\n"}
    policy = a_policy(
        f"{LISTS}rules:\n  - {{id: r, when: {when}, then: discard}}\n", read_list=files.__getitem__
    )
    assert (judged(policy, **values).rule == "r") is expected


def test_what_a_policy_reads_is_what_its_conditions_ask() -> None:
    policy = a_policy(
        "rules:\n"
        "  - {id: a, when: {any: [{spf.status: fail}, {not: {dkim.aligned: true}}]}, then: {reject: {text: '{iprev.name}'}}}\n"
        "  - {id: b, when: {message.is_list: true}, then: discard}\n"
    )
    assert policy.reads == {"spf", "dmarc", "dkim"}
    assert policy.recipient_key == ""
    assert a_rule("{rcpt.domain: a.example}").recipient_key == "domain"
    assert a_rule("{rcpt.domain: a.example, rcpt.address: b@a.example}").recipient_key == "address"


@pytest.mark.parametrize(
    ("when", "values", "because"),
    [
        ("{spf.status: fail}", {"spf__status": "pass"}, "spf.status is pass"),
        ("{spf.status: fail}", {}, "spf.status has no value"),
        ("{spf.broad: true}", {"spf__broad": False}, "spf.broad is false"),
        ("{rcpt.count: {above: 3}}", {"rcpt__count": 2}, "rcpt.count is 2"),
        # nothing a stranger wrote is repeated
        ("{message.subject: x}", {"message__subject": "evil\r\n"}, "not: message.subject is x"),
        ("{client.ip: 192.0.2.1}", {"client__ip": "192.0.2.2"}, "not: client.ip is 192.0.2.1"),
        ("{rcpt.addresses: {all: ['a@*', b]}}", {"rcpt__addresses": ["x"]}, "not: rcpt.addresses (each) is a@* or b"),
        ("{any: [{tls: true}, {spf.status: pass, spf.broad: false}]}", {}, "not: (tls is true or spf.status is pass and spf.broad is false)"),
        ("{not: {tls: true}}", {"tls": True}, "it holds that tls is true"),
        ("{not: {tls: true, spf.broad: true}}", {"tls": True, "spf__broad": True}, "it holds that tls is true and spf.broad is true"),
        ("{tls: true, spf.status: fail}", {"tls": True, "spf__status": "pass"}, "spf.status is pass"),
        ("{rcpt.count: [1, 2, 3, 4, 5, 6, 7, 8]}", {}, "rcpt.count has no value"),
        ("{mail_from.domain: [a.x, b.x, c.x, d.x, e.x, f.x, g.x, h.x]}", {"mail_from__domain": "z.x"}, "not: mail_from.domain is a.x, b.x, c.x, d.x, e.x, f.x or 2 more"),
    ],
)  # fmt: skip
def test_a_rule_passed_over_says_why(when: str, values: dict[str, object], because: str) -> None:
    decision = decide(facts(**values), a_rule(when))
    assert [(p.rule, p.because) for p in decision.passed_over] == [("r", because)]


def test_a_rule_without_a_because_gives_its_conditions() -> None:
    decision = judged(a_rule("{spf.status: [fail, softfail], not: {tls: true}}"), spf__status="fail")
    assert decision.because == "spf.status is fail or softfail and not (tls is true)"
    assert judged(a_rule("always")).because == "every message"
