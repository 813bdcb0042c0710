"""Outbound mail on the one road: signed by the configured keys, verified by our own road on the other side."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authmilter import engine, runtime
from authmilter.config.load import Loaded, parse
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime
from authmilter.errors import ConfigError
from authmilter.mail import Envelope, Mail, Session
from authmilter.names import parse_ip, parse_reverse_path
from authmilter.verdict import DeleteHeader, Disposition, InsertHeader, Verdict
from tests.engine.test_verification import Notes, a_runtime
from tests.support import dkim_keys

MESSAGE = (
    b"From: Joe <joe@good.example>\r\nTo: a@b.example\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@good.example>\r\n\r\nHello,\r\nthis is a test.\r\n"
)


def _signing(folder: Path, more: str = "") -> Runtime:
    for name, key in (("rsa.pem", dkim_keys.rsa_key()), ("ed.pem", dkim_keys.ed25519_key())):
        file = folder / name
        pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(pem)
        file.chmod(0o600)
    config = (
        "policy: enforce\nsigning:\n  domains:\n"
        "    - {domain: good.example, selector: s1, key: rsa.pem}\n"
        "    - {domain: good.example, selector: e1, key: ed.pem}\n" + more
    )
    loaded = Loaded(config=parse(config, "test.yaml"), path=None, base=folder)
    return runtime.build(loaded, journal=Notes(), resolver=ZoneResolver({}))


def _send(built: Runtime, message: bytes, session: Session) -> tuple[Mail, Verdict]:
    envelope = Envelope(mail_from=parse_reverse_path("joe@good.example"))
    return asyncio.run(engine.verify(message, built, session=session, envelope=envelope))


def _left(message: bytes, verdict: Verdict) -> bytes:
    """The message as the MTA sends it on: inserts applied in their order (no other edits in these tests)."""
    assert not any(isinstance(e, DeleteHeader) for e in verdict.edits)
    for edit in verdict.edits:
        assert isinstance(edit, InsertHeader)
        message = edit.name + b": " + edit.value + b"\r\n" + message
    return message


SUBMISSION = Session(client_ip=parse_ip("203.0.113.5"), authenticated="joe@good.example")


def test_submitted_mail_leaves_with_two_signatures_that_verify(tmp_path: Path) -> None:
    built = _signing(tmp_path)
    _mail, verdict = _send(built, MESSAGE, SUBMISSION)
    assert verdict.signing is not None
    assert verdict.signing.signed == ("good.example/s1", "good.example/e1")
    left = _left(MESSAGE, verdict)
    assert left.startswith(b"Authentication-Results: ")
    # t= of the signature is now
    here = replace(a_runtime(), now=runtime.now)
    _mail, other = asyncio.run(engine.verify(left, here, session=Session()))
    assert other.evidence.dkim is not None
    assert [r.status for r in other.evidence.dkim] == ["pass", "pass"]
    assert other.evidence.dmarc is not None
    assert other.evidence.dmarc.status == "pass"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            MESSAGE.replace(b"From: Joe <joe@good.example>", b"From: a@good.example, b@good.example"),
            "several_authors",
        ),
        (b"From: x@good.example\r\n" + MESSAGE, "several_authors"),
        (MESSAGE.replace(b"joe@good.example>", b"joe@elsewhere.example>", 1), "no_key"),
        (MESSAGE.replace(b"From: Joe <joe@good.example>\r\n", b""), "no_author"),
        (MESSAGE.replace(b"<joe@good.example>", b"<joe@good.example", 1), "malformed_from"),
    ],
)
def test_mail_without_one_author_of_ours_is_never_signed(tmp_path: Path, message: bytes, reason: str) -> None:
    _mail, verdict = _send(_signing(tmp_path), message, SUBMISSION)
    assert verdict.signing is not None
    assert (verdict.signing.signed, verdict.signing.reason) == ((), reason)
    assert verdict.signing.line
    assert verdict.decision.disposition is Disposition.ACCEPT


def test_internet_mail_is_not_signed_and_a_bound_login_signs_its_own_domain_only(tmp_path: Path) -> None:
    _mail, verdict = _send(_signing(tmp_path), MESSAGE, Session(client_ip=parse_ip("203.0.113.5")))
    assert verdict.signing is None or verdict.signing.reason == "not_outbound"
    bound = _signing(tmp_path, "  senders:\n    - {users: ['*'], authors: ['{login}']}\n")
    assert _send(bound, MESSAGE, SUBMISSION)[1].signing is not None
    _mail, forged = _send(bound, MESSAGE, replace(SUBMISSION, authenticated="eve@good.example"))
    assert forged.signing is not None
    assert (forged.signing.signed, forged.signing.reason) == ((), "sender_not_allowed")
    assert forged.signing.detail == "the session may not write as good.example"


def test_an_unsafe_body_is_deferred_where_the_administrator_says_so(tmp_path: Path) -> None:
    unsafe = MESSAGE + b"x" * 1200 + b"\r\n"
    _mail, warned = _send(_signing(tmp_path), unsafe, SUBMISSION)
    assert warned.signing is not None
    assert len(warned.signing.signed) == 2
    assert "long_line" in warned.signing.risks
    assert warned.signing.detail == ""
    _mail, deferred = _send(_signing(tmp_path, "  on_unsafe_body: tempfail\n"), unsafe, SUBMISSION)
    assert deferred.decision.disposition is Disposition.TEMPFAIL
    assert deferred.decision.reply is not None
    assert deferred.decision.reply.code == 451
    assert deferred.signing is not None
    assert (deferred.signing.reason, deferred.signing.detail) == ("unsafe_body", "tempfail by on_unsafe_body")
    assert deferred.edits == ()


def test_a_key_that_others_may_read_or_that_is_missing_is_refused_at_load(tmp_path: Path) -> None:
    _signing(tmp_path)
    (tmp_path / "rsa.pem").chmod(0o644)
    with pytest.raises(ConfigError, match=r"rsa\.pem"):
        runtime.build(
            Loaded(config=parse(json.dumps({"signing": {"domains": [{"domain": "good.example", "selector": "s1", "key": "rsa.pem"}, {"domain": "good.example", "selector": "x", "key": "missing.pem"}]}}), "t"), path=None, base=tmp_path),
            journal=Notes(), resolver=ZoneResolver({}),
        )  # fmt: skip
