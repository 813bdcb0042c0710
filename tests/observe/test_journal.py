"""The line of a message: what it says, that nobody's text can break it, and that it can leave out local parts."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter import engine, runtime
from authmilter.arc.result import ArcProblem, ArcResult, ArcSet, ArcStatus
from authmilter.bimi.result import BimiProblem, BimiResult, BimiStatus
from authmilter.config import load as config_load
from authmilter.config.load import Loaded
from authmilter.config.model import Config
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import DmarcPolicy, DmarcProblem, DmarcResult, DmarcStatus
from authmilter.dns.zone import ZoneResolver
from authmilter.evidence import Evidence
from authmilter.iprev.result import IprevResult, IprevStatus
from authmilter.mail import BodyFacts, Envelope, Mail, Origin, Session
from authmilter.message import Message
from authmilter.names import Domain, parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.observe.journal import LogJournal, LogSettings, make_log
from authmilter.policy import loader
from authmilter.spf.result import SpfIdentity, SpfResult, SpfStatus
from authmilter.text import printable
from authmilter.verdict import (
    Decision,
    Disposition,
    OverrideReason,
    Sealing,
    Signing,
    SmtpReply,
    Step,
    Verdict,
    WouldHave,
)

ZONE = {
    "example.com": {"TXT": ["v=spf1 exp=why.example.com -all"]},
    "why.example.com": {"TXT": ["%{l} may not"]},
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
}
#: A policy whose reply repeats every address there is.
TALKATIVE = """
rules:
  - id: all
    when: {dmarc.status: [fail, none]}
    then: {reject: {text: "{mail_from.address} {rcpt.addresses} {message.author.addresses} {spf.explanation}"}}
    because: it says too much
default: accept
"""


def line_of(
    mail_from: str = "hidden.sender@example.com",
    *,
    settings: LogSettings,
    helo: str = "mail.example.com",
    login: str | None = None,
) -> str:
    """Judge a message and return what was logged of it."""
    out = io.StringIO()
    journal = LogJournal(make_log(settings, out), settings)
    judge(journal, ZoneResolver(ZONE), mail_from, helo=helo, login=login)
    return out.getvalue()


def judged_line(*, settings: LogSettings) -> dict[str, Any]:
    """Judge a message and return what was logged of it, read."""
    line: dict[str, Any] = json.loads(line_of(settings=settings))
    return line


def test_the_line_says_why_a_dmarc_policy_was_not_applied() -> None:
    kept: list[tuple[Mail, Verdict]] = []

    class Keep(LogJournal):
        def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:
            del queue_id, listener
            kept.append((mail, verdict))

    settings = LogSettings()
    out = io.StringIO()
    log = make_log(settings, out)
    judge(Keep(log, settings), ZoneResolver(ZONE))
    ((mail, verdict),) = kept
    spared = replace(
        verdict.decision,
        override=OverrideReason.LOCAL_POLICY,
        override_comment="arc=pass as[1].d=list.example",
    )
    LogJournal(log, settings).record(mail, replace(verdict, decision=spared), queue_id="", listener="x")
    line = json.loads(out.getvalue())
    assert (line["override"], line["override_comment"]) == ("local_policy", "arc=pass as[1].d=list.example")
    assert "override" not in judged_line(settings=settings)


def judge(
    journal: LogJournal,
    resolver: ZoneResolver,
    mail_from: str = "hidden.sender@example.com",
    *,
    helo: str = "mail.example.com",
    login: str | None = None,
) -> None:
    """Judge a message with this journal."""
    built = runtime.build(
        Loaded(config=Config(), path=None, base=config_load.DEFAULT_PATH.parent),
        journal=journal,
        resolver=resolver,
        policy=loader.load(TALKATIVE, "talkative.yaml"),
    )
    session = Session(client_ip=parse_ip("192.0.2.1"), helo=parse_helo(helo), authenticated=login)
    envelope = Envelope(
        mail_from=parse_reverse_path(mail_from), rcpt_to=(parse_recipient("hidden.rcpt@example.org"),)
    )
    raw = b"From: hidden.author@example.com\r\n\r\nx\r\n"
    asyncio.run(engine.verify(raw, built, session=session, envelope=envelope))


def test_the_line_says_who_what_and_why() -> None:
    line: dict[str, Any] = json.loads(line_of(settings=LogSettings()))
    assert line["event"] == "message"
    assert line["mail_from"] == "hidden.sender@example.com"
    assert (line["author"], line["spf"], line["dmarc"]) == ("example.com", "fail", "fail")
    assert (line["disposition"], line["rule"]) == ("reject", "all")
    assert "hidden.sender@example.com" in line["reply"]
    assert "hidden.sender may not" in line["reply"]
    assert line["dns_questions"] > 0


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize(
    "mail_from",
    [
        "hidden.sender@example.com",
        "hidden.sender@[192.0.2.7]",
        "hidden.sender@[IPv6:2001:db8::7]",
        "hidden.sender",
        "hidden.sender@@example.com",
        "<>",
    ],
)
@pytest.mark.parametrize("login", [None, "hidden.login"])
def test_with_redaction_no_local_part_is_anywhere_in_the_line(
    format_: str, mail_from: str, login: str | None
) -> None:
    line = line_of(mail_from, settings=LogSettings(format=format_, redact_local_parts=True), login=login)
    assert "hidden" not in line
    assert "disposition" in line


def test_what_is_left_of_a_redacted_line_still_tells_the_kinds_apart() -> None:
    settings = LogSettings(redact_local_parts=True)
    told = {
        path: json.loads(line_of(path, settings=settings)) for path in ("a@example.com", "a@[192.0.2.7]", "a")
    }
    assert told["a@example.com"]["mail_from"] == "*@example.com"
    assert told["a@[192.0.2.7]"]["mail_from"] == "*@[192.0.2.7]"
    assert told["a"]["mail_from"] == "*"
    assert told["a"]["reply"] == "550 5.7.1"


@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_text_of_a_stranger_breaks_a_line_or_reaches_a_terminal(format_: str) -> None:
    nasty = "\x1b[31m\r\nevent=forged \x9b\u202e\x00"
    line = line_of(f"{nasty}@example.com", settings=LogSettings(format=format_), helo=nasty)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line[:-1].isascii()
    assert line[:-1].isprintable()


def test_why_a_mail_is_not_signed_is_in_its_line() -> None:
    out = io.StringIO()
    settings = LogSettings()
    journal = LogJournal(make_log(settings, out), settings)
    told: list[dict[str, Any]] = []
    for signing in (
        Signing(
            line="signing.senders[0]", reason="sender_not_allowed", detail="may not write as example.com"
        ),
        Signing(line="signing: no line is for example.com", reason="no_key"),
    ):
        built = runtime.build(
            Loaded(config=Config(), path=None, base=config_load.DEFAULT_PATH.parent),
            resolver=ZoneResolver(ZONE),
        )
        mail, verdict = asyncio.run(
            engine.verify(b"From: a@example.com\r\n\r\nx\r\n", built, session=Session())
        )
        journal.record(mail, replace(verdict, signing=signing), queue_id="", listener="test")
        told.append(json.loads(out.getvalue().splitlines()[-1]))
    assert told[0]["not_signed"] == "sender_not_allowed"
    assert told[0]["not_signed_detail"] == "may not write as example.com"
    assert (told[1]["not_signed"], "not_signed_detail" in told[1]) == ("no_key", False)


# -- all that can stand in a line ------------------------------------------------------------------------------------

IP = parse_ip("2001:db8::7")
EVERYTHING = Evidence(
    iprev=IprevResult(status=IprevStatus.FAIL, ip=parse_ip("192.0.2.1")),  # type: ignore[arg-type]  # it is one
    spf_helo=SpfResult(status=SpfStatus.NONE, identity=SpfIdentity.HELO),
    spf=SpfResult(status=SpfStatus.SOFTFAIL, identity=SpfIdentity.MAILFROM),
    dkim=(
        DkimResult(status=DkimStatus.PASS, domain=Domain("example.com")),
        DkimResult(status=DkimStatus.PERMERROR, problem=DkimProblem.SYNTAX),
    ),
    arc=ArcResult(
        status=ArcStatus.PASS, sets=(ArcSet(instance=1, sealer=Domain("list.example")), ArcSet(instance=2))
    ),
    dmarc=DmarcResult(status=DmarcStatus.FAIL, policy=DmarcPolicy.REJECT, problem=DmarcProblem.DNS),
    bimi=BimiResult(status=BimiStatus.FAIL, problem=BimiProblem.INTERNAL),
)
#: In the order they stand in.
SAID: dict[str, Any] = {
    "id": "M1", "queue_id": '4c"x', "listener": "inet:8891@127.0.0.1", "origin": "trusted_relay",
    "origin_because": "trusted_relays[0]", "client": "2001:db8::7", "helo": "mail.example.com",
    "mail_from": "joe@example.com", "recipients": 2, "author": "", "author_problem": "no_author",
    "authenticated": "joe", "iprev": "fail", "spf_helo": "none", "spf": "softfail",
    "dkim": ["pass:example.com", "permerror:-:syntax"], "arc": "pass", "arc_sealers": ["list.example", "-"],
    "dmarc": "fail", "dmarc_policy": "reject", "dmarc_problem": "dns", "bimi": "fail", "bimi_problem": "internal",
    "sealing": {"mode": "inbound", "sealed": "example.com/s", "instance": 3, "cv": "pass"},
    "signed": ["example.com/s"], "signing_line": "signing.senders[0]", "not_signed": "unsafe_body",
    "not_signed_detail": "refused", "signing_risks": ["long_line"], "disposition": "reject", "rule": "r1",
    "policy": "p1", "because": 'caf\u00e9 "x"', "override": "local_policy", "override_comment": "arc=pass",
    "reply": "550 5.7.1 no", "would_have": ["reject:r0"], "size": 42, "elapsed_ms": 1.25, "dns_questions": 5,
    "dns_remembered": 3, "event": "message", "level": "info",
}  # fmt: skip


def said_in_full() -> tuple[Mail, Verdict]:
    """Return a mail and a verdict of which there is everything to say."""
    mail = Mail(
        id="M1",
        session=Session(client_ip=IP, helo=parse_helo("mail.example.com"), authenticated="joe"),
        envelope=Envelope(
            mail_from=parse_reverse_path("joe@example.com"),
            rcpt_to=(parse_recipient("a@example.org"), parse_recipient("b@example.org")),
        ),
        message=Message.of_fields([(b"Subject", b" x")]),
        received_at=datetime(2026, 11, 1, tzinfo=UTC),
        body=BodyFacts(size=42),
        origin=Origin.TRUSTED_RELAY,
    )
    decision = Decision(
        disposition=Disposition.REJECT,
        rule="r1",
        policy="p1",
        because='caf\u00e9 "x"',
        reply=SmtpReply(code=550, enhanced="5.7.1", text="no"),
        override=OverrideReason.LOCAL_POLICY,
        override_comment="arc=pass",
        would_have=(WouldHave(disposition=Disposition.REJECT, rule="r0"),),
    )
    verdict = Verdict(
        mail_id="M1",
        origin=mail.origin,
        origin_because="trusted_relays[0]",
        evidence=EVERYTHING,
        decision=decision,
        edits=(),
        authentication_results="",
        signing=Signing(
            signed=("example.com/s",),
            line="signing.senders[0]",
            reason="unsafe_body",
            risks=("long_line",),
            detail="refused",
        ),
        sealing=Sealing(mode="inbound", sealed="example.com/s", instance=3, cv="pass"),
        trace=(Step(method="spf", questions=4, remembered=3), Step(method="dkim", questions=1)),
        elapsed_ms=1.25,
    )
    return mail, verdict


def recorded(mail: Mail, verdict: Verdict, queue_id: str = '4c"x', **how: Any) -> str:
    out = io.StringIO()
    settings_ = LogSettings(**how)
    journal = LogJournal(make_log(settings_, out), settings_)
    journal.record(mail, verdict, queue_id=queue_id, listener="inet:8891@127.0.0.1")
    assert "journal_failures" not in journal.counters.snapshot()
    return out.getvalue()


def test_a_line_says_everything_in_its_order_as_the_library_would_write_it() -> None:
    text = recorded(*said_in_full())
    line = json.loads(text)
    arrived = line.pop("timestamp")
    assert list(line.items()) == list(SAID.items())
    assert text == json.dumps({**SAID, "timestamp": arrived}) + "\n"
    assert abs((datetime.now(UTC) - datetime.fromisoformat(arrived)).total_seconds()) < 60


def test_a_line_leaves_out_what_there_is_nothing_to_say_of() -> None:
    mail, verdict = said_in_full()
    decision = Decision(disposition=Disposition.ACCEPT, rule="default", because="", policy="p1")
    plain = replace(verdict, evidence=Evidence(), decision=decision, signing=None, sealing=None)
    line = json.loads(recorded(replace(mail, session=Session()), plain))
    assert set(SAID) - set(line) == {
        "authenticated", "iprev", "spf_helo", "spf", "dkim", "arc", "arc_sealers", "dmarc", "dmarc_policy",
        "dmarc_problem", "bimi", "bimi_problem", "sealing", "signed", "signing_line", "not_signed",
        "not_signed_detail", "signing_risks", "override", "override_comment", "reply", "would_have",
    }  # fmt: skip
    assert (line["client"], line["helo"]) == ("", "")
    failed = replace(
        plain,
        evidence=Evidence(arc=ArcResult(status=ArcStatus.FAIL, problem=ArcProblem.SEAL), dkim=()),
        sealing=Sealing(mode="outbound", reason="no_key"),
    )
    line = json.loads(recorded(mail, failed))
    assert (line["arc"], line["arc_problem"], line["dkim"]) == ("fail", "seal", [])
    assert line["sealing"] == {"mode": "outbound", "reason": "no_key"}


def test_the_console_form_says_the_same() -> None:
    text = recorded(*said_in_full(), format="console")
    for key, value in SAID.items():
        if key not in {"event", "level"}:
            assert f"{key}=" in text
            assert str(value) in text or repr(value) in text
    assert text.count("\n") == 1


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(alphabet=st.characters(exclude_categories=())), st.text())
def test_whatever_a_text_holds_it_stays_one_value_of_one_line(
    because: str, login: str, queue_id: str
) -> None:
    mail, verdict = said_in_full()
    mail = replace(
        mail,
        session=replace(mail.session, authenticated=login, helo=parse_helo(login)),
        envelope=replace(mail.envelope, mail_from=parse_reverse_path(login)),
    )
    verdict = replace(
        verdict,
        origin_because=because,
        decision=replace(verdict.decision, because=because, rule=because, override_comment="x" + login),
    )
    text = recorded(mail, verdict, queue_id)
    assert text.endswith("}\n")
    assert text.isascii()
    assert all(character >= " " for character in text[:-1])
    line = json.loads(text)
    assert list(line) == [*SAID, "timestamp"]
    assert line["because"] == line["rule"] == line["origin_because"] == because
    assert line["would_have"] == SAID["would_have"]
    assert line["queue_id"] == printable(queue_id, 64)
    assert line["authenticated"] == printable(login, 128)
    assert line["helo"] == printable(str(mail.session.helo), 256)
    assert line["mail_from"] == printable(str(mail.envelope.mail_from), 320)
