"""The line of a message: what it says, that nobody's text can break it, and that it can leave out local parts."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from authmilter import engine, runtime
from authmilter.config import load as config_load
from authmilter.config.load import Loaded
from authmilter.config.model import Config
from authmilter.dns.zone import ZoneResolver
from authmilter.mail import Envelope, Mail, Session
from authmilter.names import parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.observe.journal import LogJournal, LogSettings, make_log
from authmilter.policy import loader
from authmilter.verdict import OverrideReason, Signing, Verdict

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
