"""What a policy says but cannot mean."""

from __future__ import annotations

import pytest

from tests.support.policies import a_policy


def warned(*rules: str, more: str = "") -> list[str]:
    body = "".join(f"  - {{{rule}}}\n" for rule in rules)
    return [str(w) for w in a_policy(f"default: accept\n{more}rules:\n{body}").warnings]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("always", "{tls: true}"),
        ("{tls: true}", "{tls: true}"),
        ("{tls: true}", "{spf.status: fail, tls: true}"),
        ("{spf.status: [fail, softfail]}", "{spf.status: fail}"),
        ("{spf.status: {not: pass}}", "{spf.status: [none, fail]}"),
        ("{rcpt.count: {above: 3}}", "{rcpt.count: {above: 5, below: 9}}"),
        ("{rcpt.count: {at_least: 3}}", "{rcpt.count: 3}"),
        ("{client.ip: [10.0.0.0/8, 192.0.2.1]}", "{client.ip: 192.0.2.1}"),
        ("{mail_from.domain: ['*.a.example', b.example]}", "{mail_from.domain: B.example}"),
        ("{dkim.pass_domains: [a.example, b.example]}", "{dkim.pass_domains: {any: a.example}}"),
        ("{any: [{tls: true}, {spf.status: fail}]}", "{spf.status: fail, rcpt.count: 1}"),
        (
            "{spf.status: [fail, softfail]}",
            "{any: [{spf.status: fail}, {all: [{tls: true}, {spf.status: softfail}]}]}",
        ),
        ("{not: {tls: true}}", "{not: {tls: true}, rcpt.count: 1}"),
        ("{any: [{tls: true, rcpt.count: 1}]}", "{tls: true, rcpt.count: 1}"),
        ("{tls: {present: false}}", "{tls: {present: false}}"),
    ],
)
def test_a_rule_that_is_never_reached(earlier: str, later: str) -> None:
    what = "every message" if earlier == "always" else "all that it could take"
    assert warned(f"id: a, when: {earlier}, then: discard", f"id: b, when: {later}, then: reject") == [
        f"p.yaml:4:10: rule `b` is never reached: rule `a` at line 3 takes {what}"
    ]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("{spf.status: fail}", "{spf.status: [fail, softfail]}"),
        ("{spf.status: fail, tls: true}", "{spf.status: fail}"),
        ("{rcpt.count: {above: 3}}", "{rcpt.count: {above: 2}}"),
        ("{mail_from.domain: a.example}", "{spf.domain: a.example}"),
        ("{any: [{tls: true}, {spf.status: fail}]}", "{rcpt.count: 1}"),
        ("{dkim.pass_domains: {all: a.example}}", "{dkim.pass_domains: a.example}"),
        # `present: false` also holds where there is no value
        ("{spf.status: {not: pass}}", "{spf.status: {present: false}}"),
        # what a reason leaves out may differ
        (
            "{mail_from.domain: {not: [a.x, b.x, c.x, d.x, e.x, f.x, g.x]}}",
            "{mail_from.domain: {not: [a.x, b.x, c.x, d.x, e.x, f.x, h.x]}}",
        ),
    ],
)
def test_a_rule_that_can_be_reached(earlier: str, later: str) -> None:
    assert warned(f"id: a, when: {earlier}, then: discard", f"id: b, when: {later}, then: reject") == []


def test_rules_that_go_on_hide_nothing() -> None:
    assert (
        warned(
            "id: a, when: always, then: continue, tag: {subject_prefix: x}",
            "id: b, when: {tls: true}, then: reject",
        )
        == []
    )
    assert (
        warned("id: a, when: always, then: reject, mode: monitor", "id: b, when: {tls: true}, then: reject")
        == []
    )


@pytest.mark.parametrize(
    ("when", "clash", "column"),
    [
        ("{spf.status: pass, all: [{spf.status: fail}]}", "`spf.status is pass` contradicts `spf.status is fail`", 45),
        ("{rcpt.count: {above: 5}, all: [{rcpt.count: {below: 3}}]}", "`rcpt.count is above 5` contradicts `rcpt.count is below 3`", 51),
        ("{rcpt.count: {above: 5, below: 3}}", "nothing meets `rcpt.count is above 5 and is below 3`", 20),
        ("{spf.status: {not: [none, neutral, pass, fail, softfail, temperror, permerror, internal_error]}}",
         "nothing meets `spf.status is not none, neutral, pass, fail, softfail, temperror or 2 more`", 20),
    ],
)  # fmt: skip
def test_conditions_that_contradict_each_other(when: str, clash: str, column: int) -> None:
    found = warned(
        f"id: a, when: {when}, then: reject", "id: b, when: {spf.status: fail, rcpt.count: 1}, then: reject"
    )
    assert found == [f"p.yaml:3:{column}: rule `a` never holds: {clash}"]


def test_a_rule_that_does_nothing() -> None:
    assert warned("id: a, when: {tls: true}, then: continue") == [
        "p.yaml:3:10: rule `a` does nothing: it goes on and adds no tag"
    ]


def test_a_list_that_no_rule_uses() -> None:
    assert warned(more="lists: {x: [a.example]}\n") == ["p.yaml:2:9: no rule uses the list `x`"]


HINT = "(add what proves them, such as `dmarc.status: pass`, `dkim.pass_domains` or `client.ip`)"


@pytest.mark.parametrize(
    ("when", "trusting"),
    [
        ("{mail_from.domain: partner.example}", True),
        ("{message.author.domain: partner.example, dmarc.status: fail}", True),
        ("{mail_from.domain: partner.example, tls: true, origin: internet}", True),
        ("{any: [{client.ip: 192.0.2.1}, {helo: mx.partner.example}]}", True),
        ("{mail_from.domain: partner.example, client.ip: {not: 192.0.2.1}}", True),
        ("{mail_from.domain: partner.example, dkim.pass_domains: {none: x.example}}", True),
        ("{mail_from.domain: partner.example, spf.status: [pass, none]}", True),
        ("{mail_from.domain: partner.example, iprev.name: {present: true}}", True),
        ("{mail_from.domain: partner.example, spf.status: pass}", False),
        ("{message.author.domain: partner.example, dkim.aligned: true}", False),
        (
            "{message.author.domain: partner.example, dkim.pass_domains: {at_or_below: partner.example}}",
            False,
        ),
        ("{helo: mx.partner.example, client.ip: 192.0.2.0/24}", False),
        ("{mail_from.domain: partner.example, origin: trusted_relay}", False),
        (
            "{helo: mx.partner.example, all: [{any: [{client.ip: 192.0.2.1}, {all: [{tls: true}, {authenticated: true}]}]}]}",
            False,
        ),
        ("{rcpt.addresses: postmaster@here.example}", False),
        ("{not: {mail_from.domain: partner.example}}", False),
        ("{mail_from.domain: {present: false}}", False),
        ("{dmarc.status: temperror}", False),
    ],
)
def test_mail_accepted_on_names_that_anybody_can_write(when: str, trusting: bool) -> None:  # noqa: FBT001 - a table's column
    found = warned(f"id: a, when: {when}, then: accept")
    assert found == (
        [f"p.yaml:3:10: rule `a` accepts mail on names that any sender can write {HINT}"] if trusting else []
    )
    assert warned(f"id: a, when: {when}, then: reject") == []


def test_a_long_policy_is_checked_in_reasonable_time() -> None:
    rules = [
        f"id: r{i}, when: {{mail_from.domain: d{i}.example, spf.status: fail}}, then: reject"
        for i in range(1000)
    ]
    assert warned(*rules) == []
