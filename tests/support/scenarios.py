"""One corpus for every door: sessions, messages, the zone they live in, and what must come of them.

Used by the demonstration, the end-to-end tests through Postfix and Sendmail, and the parity test.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import lru_cache

from tests.support import arc, dkim_keys

__all__ = ["AUTHSERV_ID", "RCPT", "SCENARIOS", "Scenario", "a_message", "signed", "zone"]

AUTHSERV_ID = "mx.recv.example"
RCPT = "user@recv.example"
_NAMES = ("from", "to", "subject", "date")
GOOD_IP, EVIL_IP, DOWN_IP = "192.0.2.10", "203.0.113.66", "198.51.100.7"


def signed(message: bytes, domain: str, *, ed25519_too: bool = False) -> bytes:
    """Return `message` (CRLF) with a DKIM signature of `domain` on top, selector s1 (and e1 for Ed25519)."""
    out = dkim_keys.sign(message, dkim_keys.rsa_key(), domain=domain, selector="s1", names=_NAMES)
    if ed25519_too:
        second = dkim_keys.sign(message, dkim_keys.ed25519_key(), domain=domain, selector="e1", names=_NAMES)
        out = second.removesuffix(message) + out
    return out


def zone() -> dict[str, object]:
    """Return the zone of the corpus."""
    found: dict[str, object] = {
        "good.example": {
            "TXT": ["v=spf1 ip4:192.0.2.0/24 -all"],
            "A": [GOOD_IP],
            "MX": ["10 mail.good.example"],
        },
        "mail.good.example": {"A": [GOOD_IP], "TXT": ["v=spf1 ip4:192.0.2.10 -all"]},
        "_dmarc.good.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:d@good.example"]},
        "bank.example": {"TXT": ["v=spf1 -all"], "A": ["192.0.2.80"]},
        "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]},
        "quar.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"], "A": ["192.0.2.81"]},
        "_dmarc.quar.example": {"TXT": ["v=DMARC1; p=quarantine"]},
        "attacker.example": {"TXT": ["v=spf1 ip4:203.0.113.0/24 -all"], "A": [EVIL_IP]},
        "helo.attacker.example": {"TXT": ["v=spf1 ip4:203.0.113.0/24 -all"], "A": [EVIL_IP]},
        "down.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"], "A": ["192.0.2.82"]},
        "_dmarc.down.example": "TIMEOUT",
        "10.2.0.192.in-addr.arpa": {"PTR": ["mail.good.example"]},
        "66.113.0.203.in-addr.arpa": {"PTR": ["helo.attacker.example"]},
    }
    for name in ("good.example", "quar.example", "attacker.example"):
        found[f"s1._domainkey.{name}"] = {"TXT": [dkim_keys.rsa_key().record]}
        found[f"e1._domainkey.{name}"] = {"TXT": [dkim_keys.ed25519_key().record]}
    return {**found, **arc.zone_of("sealer.example", "second.example")}


def a_message(
    author: str, *, subject: str = "hello", extra: bytes = b"", body: bytes = b"Hello,\r\nthis is a test.\r\n"
) -> bytes:
    """Return a message of `author`, unsigned; `extra` are further header lines (CRLF), below the others."""
    head = (
        f"From: {author}\r\nTo: {RCPT}\r\nSubject: {subject}\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
        f"Message-ID: <{zlib.crc32((author + subject).encode())}@test.example>\r\nMIME-Version: 1.0\r\n"
    )
    return head.encode() + extra + b"\r\n" + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A session, its message, and what must come of it with `enforce` (reply code) and in the evidence.

    `monitor` delivers everything; `headers_gone` and `headers_kept` are what the delivered message must not and
    must have.
    """

    name: str
    about: str
    message: bytes
    client_ip: str = GOOD_IP
    helo: str = "mail.good.example"
    mail_from: str = "news@good.example"
    login: str | None = None
    spf: str | None = None
    dkim: tuple[str, ...] | None = None
    dmarc: str | None = None
    code: int = 250
    enhanced: str = "2.0.0"
    headers_gone: tuple[bytes, ...] = ()
    headers_kept: tuple[bytes, ...] = ()
    rcpt_to: tuple[str, ...] = field(default=(RCPT,))


@lru_cache(maxsize=1)
def _scenarios() -> tuple[Scenario, ...]:
    good = signed(a_message("News <news@good.example>"), "good.example", ed25519_too=True)
    broken = signed(a_message("Quarry <info@quar.example>"), "quar.example").replace(
        b"this is a test", b"this is a trap"
    )
    forged_ar = (
        b"Authentication-Results: mx.recv.example; dmarc=pass header.from=bank.example\r\n"
        b'authentication-results: (x) "MX.Recv.Example" 1 (y); spf=pass\r\n'
        b"Authentication-Results: other.example; spf=pass smtp.mailfrom=good.example\r\n"
        b"BIMI-Location: v=BIMI1; l=https://evil.example/logo.svg\r\n"
    )
    return (
        Scenario(
            name="all-pass", about="SPF, both DKIM signatures and DMARC pass", message=good,
            spf="pass", dkim=("pass", "pass"), dmarc="pass",
        ),
        Scenario(
            name="forged", about="From a bank with p=reject, own SPF and DKIM of the attacker",
            message=signed(a_message("Your Bank <service@bank.example>"), "attacker.example"),
            client_ip=EVIL_IP, helo="helo.attacker.example", mail_from="x@attacker.example",
            spf="pass", dkim=("pass",), dmarc="fail", code=550, enhanced="5.7.1",
        ),
        Scenario(
            name="spf-fail", about="MAIL FROM and From of good.example, from elsewhere, unsigned",
            message=a_message("News <news@good.example>"), client_ip=EVIL_IP, helo="helo.attacker.example",
            spf="fail", dkim=(), dmarc="fail", code=550, enhanced="5.7.26",
        ),
        Scenario(
            name="broken-dkim", about="body altered on the way, p=quarantine", message=broken,
            client_ip=DOWN_IP, helo="relay.unknown.example", mail_from="info@quar.example",
            spf="fail", dkim=("fail",), dmarc="fail",
        ),
        Scenario(
            name="two-from", about="two From fields", message=b"From: ceo@bank.example\r\n" + good,
            spf="pass", dmarc="permerror", code=550, enhanced="5.6.0",
        ),
        Scenario(
            name="forged-results", about="brings Authentication-Results in our name", message=forged_ar + good,
            spf="pass", dkim=("pass", "pass"), dmarc="pass",
            headers_gone=(b"dmarc=pass header.from=bank.example", b"MX.Recv.Example", b"BIMI-Location"),
            headers_kept=(b"Authentication-Results: other.example; spf=pass",),
        ),
        Scenario(
            name="arc-chain", about="sealed by two hops, of which the first added a footer after it",
            message=arc.sealed(arc.sealed(good, "sealer.example") + b"-- \r\na list\r\n", "second.example"),
            spf="pass", dkim=("fail", "fail"), dmarc="pass",
        ),
        Scenario(
            name="null-sender", about="a bounce: SPF checks postmaster@HELO",
            message=signed(a_message("Mailer <mailer-daemon@good.example>"), "good.example"), mail_from="<>",
            spf="pass", dkim=("pass",), dmarc="pass",
        ),
        Scenario(
            name="dns-down", about="the author's DMARC record cannot be had",
            message=a_message("Info <info@down.example>"), client_ip=EVIL_IP, helo="helo.attacker.example",
            mail_from="x@attacker.example", spf="pass", dkim=(), dmarc="temperror",
        ),
        Scenario(
            name="no-policy", about="an author domain without any DMARC record",
            message=a_message("Eve <eve@attacker.example>"), client_ip=EVIL_IP, helo="helo.attacker.example",
            mail_from="eve@attacker.example", spf="pass", dkim=(), dmarc="none",
        ),
        Scenario(
            name="submission", about="an authenticated user submits mail",
            message=forged_ar + a_message("Local User <user@recv.example>"), login="user", mail_from="user@recv.example",
            client_ip=EVIL_IP, helo="laptop", headers_gone=(b"dmarc=pass header.from=bank.example",),
        ),
    )  # fmt: skip


SCENARIOS = _scenarios()
