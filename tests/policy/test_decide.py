"""From facts to a decision: order, actions, tags, monitor mode, recipients, origins, our own faults."""

from __future__ import annotations

import pytest

from authmilter.evidence import Evidence
from authmilter.mail import Origin
from authmilter.policy.decide import OnError, judge, judge_facts, on_error_decision
from authmilter.policy.rules import Policy
from authmilter.spf.result import SpfIdentity, SpfResult, SpfStatus
from authmilter.verdict import (
    Decision,
    Disposition,
    OverrideReason,
    SmtpReply,
    SubjectPrefix,
    TagHeader,
    WouldHave,
)
from tests.support.policies import a_mail, a_policy, a_rule, facts, judged


def test_the_first_rule_that_holds_decides() -> None:
    policy = a_policy(
        "rules:\n"
        "  - {id: a, when: {spf.status: pass}, then: discard, because: first}\n"
        "  - {id: b, when: {spf.status: fail}, then: tempfail, because: second}\n"
        "  - {id: c, when: {spf.status: fail}, then: discard}\n"
    )
    decision = judged(policy, spf__status="fail")
    assert (decision.rule, decision.because, decision.policy) == ("b", "second", "p")
    assert [p.rule for p in decision.passed_over] == ["a"]


def test_the_default_decides_when_no_rule_does() -> None:
    policy = a_policy("default: {then: quarantine, because: nothing known, tag: {subject_prefix: '[?] '}}")
    decision = judged(policy)
    assert (decision.disposition, decision.rule, decision.because) == (
        Disposition.QUARANTINE,
        "default",
        "nothing known",
    )
    assert decision.tags == (SubjectPrefix(prefix="[?] "),)
    assert judged(a_policy("")).because == "no rule decided"


@pytest.mark.parametrize(
    ("then", "reply"),
    [
        ("reject", "550 5.7.1 Not accepted by local policy (id ABC)"),
        ("{reject: ~}", "550 5.7.1 Not accepted by local policy (id ABC)"),
        ("{reject: {code: 554, enhanced: 5.7.0, text: no}}", "554 5.7.0 no (id ABC)"),
        ("{reject: {code: 521}}", "521 5.7.1 Not accepted by local policy (id ABC)"),
        ("tempfail", "451 4.7.1 Not accepted now by local policy, try again later (id ABC)"),
        (
            "{tempfail: {code: 450, enhanced: 4.7.25}}",
            "450 4.7.25 Not accepted now by local policy, try again later (id ABC)",
        ),
        ("accept", None),
        ("discard", None),
        ("quarantine", None),
    ],
)
def test_replies(then: str, reply: str | None) -> None:
    decision = judged(a_rule("{tls: true}", then), tls=True)
    assert (None if decision.reply is None else str(decision.reply)) == reply
    assert decision.ends_session is False


def test_421_ends_the_session() -> None:
    decision = judged(a_rule("always", "{tempfail: {code: 421, text: Go away}}"))
    assert str(decision.reply) == "421 4.7.1 Go away (id ABC)"
    assert (decision.disposition, decision.ends_session) == (Disposition.TEMPFAIL, True)


@pytest.mark.parametrize(
    ("when", "values", "reply"),
    [
        # RFC 7372 where it fits
        ("{dmarc.status: fail}", {"dmarc__status": "fail", "message__author__domain": "a.example"}, "550 5.7.26 Unauthenticated mail from a.example is not accepted due to its DMARC policy"),
        ("{dmarc.status: fail}", {"dmarc__status": "fail", "spf__status": "pass"}, "550 5.7.1 Unauthenticated mail from unknown is not accepted due to its DMARC policy"),
        ("{dmarc.status: fail}", {"dmarc__status": "fail", "dkim__status": "pass"}, "550 5.7.1 Unauthenticated*"),
        ("{dmarc.status: permerror}", {"dmarc__status": "permerror"}, "550 5.7.1 DMARC cannot be evaluated for mail from unknown"),
        ("{dmarc.problem: limit}", {"dmarc__problem": "limit"}, "550 5.7.1 DMARC cannot be evaluated*"),
        ("{dmarc.status: none, spf.status: fail}", {"dmarc__status": "none", "spf__status": "fail", "client__ip": "192.0.2.1", "spf__domain": "s.example"}, "550 5.7.23 SPF does not allow 192.0.2.1 to send mail for s.example"),
        ("{spf.status: [temperror, permerror]}", {"spf__status": "permerror"}, "550 5.7.24 The SPF record of unknown cannot be evaluated"),
        ("{spf_helo.status: fail}", {"spf_helo__status": "fail"}, "550 5.7.23 SPF does not allow unknown to call itself unknown"),
        ("{spf_helo.status: permerror}", {"spf_helo__status": "permerror"}, "550 5.7.24 *"),
        ("{spf.status: fail, dkim.status: {not: pass}}", {"spf__status": "fail", "dkim__status": "none"}, "550 5.7.26 Neither SPF nor DKIM authenticates this mail"),
        ("{dkim.status: {not: pass}}", {"dkim__status": "none"}, "550 5.7.20 No passing DKIM signature"),
        ("{dkim.pass_domains: bad.example}", {"dkim__pass_domains": "bad.example"}, "550 5.7.21 No acceptable DKIM signature"),
        ("{dkim.aligned: false}", {"dkim__aligned": False}, "550 5.7.22 No passing DKIM signature is of the author's domain"),
        ("{iprev.status: fail}", {"iprev__status": "fail", "client__ip": "192.0.2.1"}, "550 5.7.25 No name of 192.0.2.1 in DNS leads back to it"),
        ("{message.author.problem: no_author}", {"message__author__problem": "no_author"}, "550 5.6.0 The From field does not name one author"),
        ("{message.defects: nul}", {"message__defects": "nul"}, "550 5.6.0 The form of the message is not that of RFC 5322"),
        # what must not hold is no cause
        ("{not: {spf.status: fail}}", {}, "550 5.7.1 Not accepted by local policy"),
        ("{any: [{tls: true}, {all: [{iprev.status: fail}]}]}", {"tls": True}, "550 5.7.25 *"),
    ],
)  # fmt: skip
def test_a_refusal_without_words_gets_fitting_ones(when: str, values: dict[str, object], reply: str) -> None:
    got = str(judged(a_rule(when), **values).reply).removesuffix(" (id ABC)")
    assert got.startswith(reply[:-1]) if reply.endswith("*") else got == reply


@pytest.mark.parametrize(
    ("when", "values", "reply"),
    [
        ("{dmarc.status: temperror}", {"dmarc__status": "temperror"}, "451 4.4.3 DMARC"),
        ("{dmarc.policy: reject}", {"dmarc__policy": "reject"}, "451 4.7.1 DMARC"),
        ("{spf.status: temperror}", {"spf__status": "temperror"}, "451 4.7.24 "),
        ("{dkim.status: temperror}", {"dkim__status": "temperror"}, "451 4.7.20 "),
        ("{iprev.status: temperror}", {"iprev__status": "temperror"}, "450 4.7.25 "),
    ],
)
def test_a_deferral_without_words_gets_fitting_ones(when: str, values: dict[str, object], reply: str) -> None:
    assert str(judged(a_rule(when, "tempfail"), **values).reply).startswith(reply)


# -- texts -------------------------------------------------------------------------------------------------------------


def reply_text(text: str, **values: object) -> str:
    decision = judged(a_rule("always", f"{{reject: {{text: {text!r}}}}}"), **values)
    assert decision.reply is not None
    return decision.reply.text


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("100% of {spf.domain}", {"spf__domain": "a.example"}, "100% of a.example (id ABC)"),
        ("{{literally}} {spf.domain}", {}, "{literally} unknown (id ABC)"),
        ("{client.ip} {rcpt.count} {tls}", {"client__ip": "2001:db8::1", "rcpt__count": 2, "tls": True}, "2001:db8::1 2 true (id ABC)"),
        ("{dkim.pass_domains}|{dkim.domains}", {"dkim__pass_domains": ["a.example", "b.example"], "dkim__domains": []}, "a.example, b.example|unknown (id ABC)"),
        ("<{mail_from.address}>", {"mail_from__address": "ü\r\n250 ok\x00@x"}, "<\\xfc\\r\\n250 ok\\x00@x> (id ABC)"),
    ],
)  # fmt: skip
def test_placeholders(text: str, values: dict[str, object], expected: str) -> None:
    assert reply_text(text, **values) == expected


def test_a_reply_is_one_bounded_line_and_keeps_its_id() -> None:
    text = reply_text("{mail_from.address}" * 20, mail_from__address="é" * 1000)
    assert len(text) == 400
    assert text.endswith("... (id ABC)")
    assert text.isascii()
    assert text.isprintable()


def test_without_an_id_none_is_written() -> None:
    policy = a_rule("always", "{reject: {text: no}}")
    assert str(judged(policy, mail__id=None).reply) == "550 5.7.1 no"


# -- tags, quarantine ------------------------------------------------------------------------------------------------------


def test_tags_accumulate_and_stand_once() -> None:
    policy = a_policy(
        "rules:\n"
        "  - {id: a, when: {tls: false}, then: continue, tag: {header: {name: X-A, value: 'no tls'}}}\n"
        "  - {id: b, when: {tls: true}, then: continue, tag: {header: {name: X-B, value: b}}}\n"
        "  - {id: c, when: always, then: continue, tag: [{header: {name: X-A, value: 'no tls'}}, {subject_prefix: '[x] '}]}\n"
        "  - {id: d, when: always, then: accept, tag: {header: {name: X-D, value: '{spf.domain}'}, subject_prefix: '[y] '}}\n"
        "  - {id: e, when: always, then: accept, tag: {header: {name: X-E, value: e}}}\n"
    )
    decision = judged(policy, tls=False, spf__domain="a.example")
    assert decision.tags == (
        TagHeader(name="X-A", value="no tls"),
        SubjectPrefix(prefix="[x] "),
        TagHeader(name="X-D", value="a.example"),
        SubjectPrefix(prefix="[y] "),
    )
    assert [p.rule for p in decision.passed_over] == ["b"]
    assert policy.tag_names == {"x-a", "x-b", "x-d", "x-e", "x-authmilter-quarantine", "x-authmilter-error"}


def test_quarantine_by_holding() -> None:
    decision = judged(a_policy("rules:\n  - {id: r, when: always, then: quarantine, because: it looks ödd}"))
    assert decision.disposition is Disposition.QUARANTINE
    assert decision.quarantine_reason == "r: it looks \\xf6dd"
    assert decision.tags == ()


@pytest.mark.parametrize(
    ("more", "then", "tag"),
    [
        ("", "{quarantine: {by: header}}", TagHeader(name="X-Authmilter-Quarantine", value="r")),
        ("quarantine_by: header", "quarantine", TagHeader(name="X-Authmilter-Quarantine", value="r")),
        (
            "",
            "{quarantine: {header: X-Junk, value: '{spf.status}!'}}",
            TagHeader(name="X-Junk", value="fail!"),
        ),
        ("", "{quarantine: {value: 'yes'}}", TagHeader(name="X-Authmilter-Quarantine", value="yes")),
    ],
)
def test_quarantine_by_header(more: str, then: str, tag: TagHeader) -> None:
    decision = judged(a_rule("always", then, more=more), spf__status="fail")
    assert (decision.disposition, decision.quarantine_reason, decision.tags) == (
        Disposition.QUARANTINE,
        "",
        (tag,),
    )


# -- monitor -------------------------------------------------------------------------------------------------------------


def test_a_rule_in_monitor_mode_is_written_down_and_evaluation_goes_on() -> None:
    policy = a_policy(
        "would_have_header: X-Would\n"
        "rules:\n"
        "  - {id: a, when: always, then: reject, mode: monitor, tag: {header: {name: X-A, value: a}}}\n"
        "  - {id: b, when: always, then: continue, mode: monitor}\n"
        "  - {id: c, when: always, then: discard, mode: monitor}\n"
        "  - {id: d, when: always, then: tempfail}\n"
    )
    decision = judged(policy)
    reply = SmtpReply(code=550, enhanced="5.7.1", text="Not accepted by local policy (id ABC)")
    assert decision.disposition is Disposition.TEMPFAIL
    assert decision.would_have == (
        WouldHave(disposition=Disposition.REJECT, rule="a", reply=reply),
        WouldHave(disposition=Disposition.DISCARD, rule="c"),
    )
    assert decision.passed_over == ()
    assert decision.tags == (
        TagHeader(name="X-Would", value="reject; rule=a; reply=550 5.7.1"),
        TagHeader(name="X-Would", value="discard; rule=c"),
    )


@pytest.mark.parametrize(
    "then", ["reject", "{tempfail: {code: 421}}", "quarantine", "{quarantine: {by: header}}", "discard"]
)
def test_a_policy_in_monitor_mode_accepts_and_keeps_its_tags(then: str) -> None:
    policy = a_policy(
        f"mode: monitor\nrules:\n  - {{id: r, when: always, then: {then}, tag: {{subject_prefix: x}}}}\n"
    )
    decision = judged(policy)
    assert (decision.disposition, decision.reply, decision.quarantine_reason, decision.ends_session) == (
        Disposition.ACCEPT,
        None,
        "",
        False,
    )
    assert decision.tags == (SubjectPrefix(prefix="x"),)
    assert [w.rule for w in decision.would_have] == ["r"]
    assert decision.rule == "r"


# -- DMARC overrides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "more", "values", "override"),
    [
        ("accept", "", {"dmarc__status": "fail", "dmarc__policy": "reject"}, OverrideReason.LOCAL_POLICY),
        ("accept", ", override: mailing_list", {"dmarc__status": "fail", "dmarc__policy": "reject"}, OverrideReason.MAILING_LIST),
        ("quarantine", ", override: other", {"dmarc__status": "fail", "dmarc__policy": "reject"}, OverrideReason.OTHER),
        ("quarantine", "", {"dmarc__status": "fail", "dmarc__policy": "quarantine"}, None),
        ("quarantine", "", {"dmarc__status": "fail", "dmarc__policy": "quarantine", "dmarc__published": "reject", "dmarc__testing": True}, OverrideReason.POLICY_TEST_MODE),
        ("accept", "", {"dmarc__status": "fail", "dmarc__policy": "quarantine", "dmarc__published": "reject", "dmarc__testing": True}, OverrideReason.LOCAL_POLICY),
        ("reject", "", {"dmarc__status": "fail", "dmarc__policy": "reject"}, None),
        ("tempfail", "", {"dmarc__status": "fail", "dmarc__policy": "reject"}, None),
        ("accept", ", override: mailing_list", {"dmarc__status": "pass", "dmarc__policy": "reject"}, None),
        ("accept", ", override: mailing_list", {"dmarc__status": "fail", "dmarc__policy": "none"}, None),
        ("reject", ", mode: monitor", {"dmarc__status": "fail", "dmarc__policy": "reject"}, OverrideReason.LOCAL_POLICY),
    ],
)  # fmt: skip
def test_why_a_dmarc_policy_was_not_applied(
    then: str, more: str, values: dict[str, object], override: OverrideReason | None
) -> None:
    policy = a_policy(f"rules:\n  - {{id: r, when: always, then: {then}{more}}}\n")
    assert judged(policy, **values).override is override


def test_an_override_on_the_way_counts_unless_the_deciding_rule_has_one() -> None:
    text = "rules:\n  - {{id: a, when: always, then: continue, override: trusted_forwarder, tag: {{subject_prefix: x}}}}\n  - {{id: b, when: always, then: accept{}}}\n"
    values: dict[str, object] = {"dmarc__status": "fail", "dmarc__policy": "reject"}
    assert judged(a_policy(text.format("")), **values).override is OverrideReason.TRUSTED_FORWARDER
    assert judged(a_policy(text.format(", override: other")), **values).override is OverrideReason.OTHER


# -- several recipients ------------------------------------------------------------------------------------------------------

MIXED = """\
{more}
rules:
  - {{id: sales, when: {{rcpt.domain: sales.example}}, then: accept, tag: {{header: {{name: X-S, value: s}}}}}}
  - {{id: lab, when: {{rcpt.domain: lab.example}}, then: quarantine}}
  - {{id: rest, when: always, then: {{reject: {{text: 'not for {{rcpt.domain}}'}}}}, tag: {{header: {{name: X-R, value: r}}}}}}
default: accept
"""


def mixed(more: str, *rcpt: str) -> Decision:
    return judged(a_policy(MIXED.format(more=more)), rcpt__addresses=list(rcpt))


def test_recipients_that_are_judged_alike_get_that_answer() -> None:
    decision = mixed("", "a@x.example", "b@x.example", "c@y.example")
    assert str(decision.reply) == "550 5.7.1 not for x.example (id ABC)"
    assert (decision.rule, decision.because, decision.would_have) == ("rest", "every message", ())


def test_the_mildest_answer_counts_and_the_others_are_named() -> None:
    decision = mixed("", "a@x.example", "b@sales.example", "c@x.example", "d@lab.example")
    assert (decision.disposition, decision.rule, decision.reply) == (Disposition.ACCEPT, "sales", None)
    assert decision.because == (
        "rcpt.domain is sales.example; on_mixed least-severe, otherwise "
        "reject by rule rest for recipient 1, 3 (at x.example); quarantine by rule lab for recipient 4 (at lab.example)"
    )
    assert [(w.disposition, w.rule) for w in decision.would_have] == [
        ("reject", "rest"),
        ("quarantine", "lab"),
    ]
    assert decision.tags == (TagHeader(name="X-R", value="r"), TagHeader(name="X-S", value="s"))


def test_or_the_most_severe() -> None:
    decision = mixed("on_mixed: most-severe", "b@sales.example", "a@x.example", "d@lab.example")
    assert (decision.disposition, decision.rule) == (Disposition.REJECT, "rest")
    assert str(decision.reply) == "550 5.7.1 not for x.example (id ABC)"
    assert decision.because.startswith(
        "every message; on_mixed most-severe, otherwise accept by rule sales for recipient 1 "
    )


def test_monitor_mode_weighs_before_it_accepts() -> None:
    decision = mixed("mode: monitor\non_mixed: most-severe", "b@sales.example", "a@x.example")
    assert (decision.disposition, decision.rule) == (Disposition.ACCEPT, "rest")
    assert [w.rule for w in decision.would_have] == ["sales", "rest"]


def test_no_recipient_is_judged_once_without_one() -> None:
    assert mixed("").rule == "rest"
    assert mixed("", "postmaster").rule == "rest"


def test_single_addresses_and_many_of_them() -> None:
    policy = a_policy("rules:\n  - {id: r, when: {rcpt.address: 'u7@*'}, then: discard}\n")
    assert (
        judged(policy, rcpt__addresses=[f"u{i}@a.example" for i in range(9)]).disposition
        is Disposition.ACCEPT
    )
    mail = a_mail(rcpt=tuple(f"<u{i}@d{i}.example>" for i in range(3000)))
    decision = judge(mail, Evidence(), policy)
    assert (
        decision.because
        == "no rule decided; on_mixed least-severe, otherwise discard by rule r for recipient 8 (at d7.example)"
    )


def test_recipients_are_named_without_their_local_parts_and_not_all() -> None:
    policy = a_policy("rules:\n  - {id: r, when: {rcpt.address: 's*'}, then: reject}\n")
    decision = judged(policy, rcpt__addresses=["u@a.example", *(f"s{i}@d{i}.example" for i in range(20))])
    assert "s1@" not in decision.because
    assert decision.because.endswith("; and 15 more")


def test_recipients_of_a_mail_with_odd_ones() -> None:
    policy = a_policy("rules:\n  - {id: r, when: {rcpt.domain: {present: false}}, then: reject}\n")
    mail = a_mail(rcpt=("<postmaster>", "<u@[192.0.2.1]>", "<(bad>", "<u@a.example>", "<v@a.example>"))
    decision = judge(mail, Evidence(), policy)
    assert (
        decision.because
        == "no rule decided; on_mixed least-severe, otherwise reject by rule r for recipient 1, 2, 3"
    )


# -- origins and faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [Origin.SUBMISSION, Origin.INTERNAL, Origin.TRUSTED_HOP])
def test_own_mail_is_not_judged(origin: Origin) -> None:
    decision = judge(a_mail(origin=origin), Evidence(), a_rule("always"))
    assert (decision.disposition, decision.rule) == (Disposition.ACCEPT, f"origin:{origin}")
    assert decision.policy == "p"


@pytest.mark.parametrize("then", ["reject", "{tempfail: {code: 421}}", "discard"])
@pytest.mark.parametrize("by", ["hold", "header"])
def test_a_trusted_relay_is_never_refused(then: str, by: str) -> None:
    policy = a_rule("always", then, more=f"quarantine_by: {by}")
    decision = judge(a_mail(origin=Origin.TRUSTED_RELAY), Evidence(), policy)
    assert decision.disposition is Disposition.QUARANTINE
    assert (decision.reply, decision.ends_session) == (None, False)
    assert "trusted relay is not refused" in decision.because
    assert [w.rule for w in decision.would_have] == ["r"]
    if by == "hold":
        assert decision.quarantine_reason.startswith("r: every message; quarantined")
    else:
        assert (decision.quarantine_reason, decision.tags) == (
            "",
            (TagHeader(name="X-Authmilter-Quarantine", value="r"),),
        )


def test_what_a_trusted_relay_brings_is_accepted_or_tagged_as_ever() -> None:
    policy = a_rule("always", "accept")
    assert judge(a_mail(origin=Origin.TRUSTED_RELAY), Evidence(), policy).disposition is Disposition.ACCEPT


BROKEN = Evidence(spf=SpfResult(status=SpfStatus.INTERNAL_ERROR, identity=SpfIdentity.MAILFROM))
READS_SPF = "rules:\n  - {id: r, when: {spf.status: fail}, then: reject}\n"


def test_a_fault_in_a_method_that_is_read_is_answered_before_the_rules() -> None:
    policy = a_policy(READS_SPF)
    decision = judge(a_mail(), BROKEN, policy)
    assert (decision.disposition, decision.rule) == (Disposition.TEMPFAIL, "on_error")
    assert str(decision.reply) == "451 4.3.0 A check failed here, try again later (id ABC123)"
    assert decision.because == "spf failed inside authmilter"
    accepted = judge(a_mail(), BROKEN, policy, OnError.ACCEPT)
    assert (accepted.disposition, accepted.rule, accepted.reply) == (Disposition.ACCEPT, "on_error", None)
    assert accepted.tags == (TagHeader(name="X-Authmilter-Error", value="spf"),)
    assert accepted.would_have == ()


def test_a_fault_in_a_method_that_is_not_read_changes_nothing() -> None:
    assert judge(a_mail(), BROKEN, a_rule("{dkim.status: none}")).rule == "default"


def test_in_monitor_mode_a_fault_accepts() -> None:
    decision = judge(a_mail(), BROKEN, a_policy("mode: monitor\n" + READS_SPF))
    assert decision.disposition is Disposition.ACCEPT
    assert decision.tags == (TagHeader(name="X-Authmilter-Error", value="spf"),)
    assert [(w.disposition, w.rule) for w in decision.would_have] == [("tempfail", "on_error")]


def test_a_trusted_relay_is_not_deferred_for_a_fault() -> None:
    decision = judge(a_mail(origin=Origin.TRUSTED_RELAY), BROKEN, a_policy(READS_SPF))
    assert (decision.disposition, decision.rule) == (Disposition.QUARANTINE, "on_error")


def test_a_fault_of_the_policy_itself() -> None:
    policy = a_policy(READS_SPF)
    decision = on_error_decision(policy, OnError.TEMPFAIL, "policy", a_mail())
    assert str(decision.reply) == "451 4.3.0 A check failed here, try again later (id ABC123)"
    assert on_error_decision(policy, OnError.ACCEPT, "policy", a_mail()).disposition is Disposition.ACCEPT


def test_facts_without_an_origin_are_from_the_internet() -> None:
    policy: Policy = a_rule("always")
    assert judge_facts(facts(origin=None), policy).rule == "r"
