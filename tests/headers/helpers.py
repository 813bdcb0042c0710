"""What the header tests share: a mail, evidence, and a strict reader of RFC 8601 written apart from the code.

The reader is the oracle: it takes only what the grammar of RFC 8601 §2.2 allows without obsolete forms, so that
whatever it reads, every other reader reads alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from authmilter.dkim.result import DkimResult, DkimStatus
from authmilter.dmarc.result import DmarcPolicy, DmarcRecord, DmarcResult, DmarcStatus
from authmilter.evidence import Evidence
from authmilter.iprev.result import IprevResult, IprevStatus
from authmilter.mail import Envelope, Mail, Origin, Session
from authmilter.message import Message
from authmilter.names import Domain, Helo, ReversePath, parse_reverse_path
from authmilter.spf.result import SpfIdentity, SpfResult, SpfStatus
from authmilter.verdict import Decision, Disposition, Edit

OUR_ID = "mx.our.example"

Property = tuple[str, str]


@dataclass(frozen=True)
class Clause:
    method: str
    result: str
    reason: str | None
    properties: tuple[Property, ...]


_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_QTEXT = r"(?:[ !#-\[\]-~]|[^\x00-\x9f]|\\[ -~])"
_ATOM = r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]|[^\x00-\x9f])+"
_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)+"
_ADDRESS = re.compile(rf'(?:{_ATOM}(?:\.{_ATOM})*|"{_QTEXT}*")?@{_DOMAIN}(?=[ ;]|$)')
_QUOTED = re.compile(rf'"({_QTEXT}*)"(?=[ ;]|$)')
_PLAIN = re.compile(rf"{_TOKEN}(?=[ ;]|$)")
_COMMENT = re.compile(r"\((?:[ !-'*-\[\]-~]|\\[ -~])*\)(?=[ ;]|$)")
_METHOD = re.compile(r"(spf|dkim|dmarc|iprev|auth)=([a-z]+)(?=[ ;]|$)")
_NAME = re.compile(r"((?:smtp|header|policy)\.[a-z]+|reason)=")


def unfold(value: bytes, name: str = "Authentication-Results") -> str:
    """Check lines and octets of a written value, and return it without its folds."""
    text = value.decode("utf-8")
    lines = (name + ": " + text).split("\r\n")
    for n, line in enumerate(lines):
        assert len(line.encode()) <= 998, "RFC 5322 §2.1.1: 998 octets"
        assert n == 0 or re.match(r" [^ \t]", line), "a fold is CRLF, one space, text"
        words = line.strip().split(" ")
        assert len(line) <= 78 or '"' in line or "(" in line or len(words) <= 3 or n == 0, (
            f"not folded: {line!r}"
        )
        assert all(c == "\t" or c.isprintable() for c in line), "a control or invisible character"
    return text.replace("\r\n", "")


def strict_read(value: bytes) -> tuple[str, list[Clause]]:
    """Read an Authentication-Results value; AssertionError where the grammar does not allow it."""
    text = unfold(value)
    head, at = _value(text, 0)
    clauses: list[Clause] = []
    if text[at:] == "; none":
        return head, []
    while at < len(text):
        assert text.startswith("; ", at), f"no clause at {text[at:]!r}"
        method = _METHOD.match(text, at + 2)
        assert method, f"no method at {text[at:]!r}"
        at = method.end()
        reason: str | None = None
        properties: list[Property] = []
        while text.startswith(" ", at):
            at += 1
            if said := _COMMENT.match(text, at):
                at = said.end()
                continue
            name = _NAME.match(text, at)
            assert name, f"no property at {text[at:]!r}"
            found, at = _value(text, name.end())
            if name.group(1) == "reason":
                assert reason is None
                assert not properties, "the reason stands before the properties"
                reason = found
            else:
                properties.append((name.group(1), found))
        clauses.append(Clause(method.group(1), method.group(2), reason, tuple(properties)))
    return head, clauses


def _value(text: str, at: int) -> tuple[str, int]:
    if address := _ADDRESS.match(text, at):
        return address.group(), address.end()
    if quoted := _QUOTED.match(text, at):
        return re.sub(r"\\(.)", r"\1", quoted.group(1)), quoted.end()
    plain = _PLAIN.match(text, at)
    assert plain, f"no value at {text[at:]!r}"
    return plain.group(), plain.end()


def a_mail(
    *headers: tuple[bytes, bytes],
    mail_from: str | ReversePath = "<joe@sender.example>",
    options: tuple[str, ...] = (),
    origin: Origin = Origin.INTERNET,
    authenticated: str | None = None,
    helo: Helo | None = None,
    local_name: str = OUR_ID,
    ip: str | None = "192.0.2.1",
) -> Mail:
    return Mail(
        id="m1",
        session=Session(
            client_ip=None if ip is None else ip_address(ip),
            helo=helo,
            local_name=Domain.parse(local_name) if local_name else None,
            authenticated=authenticated,
        ),
        envelope=Envelope(
            mail_from=parse_reverse_path(mail_from) if isinstance(mail_from, str) else mail_from,
            mail_options=options,
        ),
        message=Message.of_fields(headers),
        received_at=datetime(2026, 11, 1, tzinfo=UTC),
        origin=origin,
    )


def a_decision(disposition: Disposition = Disposition.ACCEPT) -> Decision:
    return Decision(disposition=disposition, rule="default", because="a test")


def some_evidence() -> Evidence:
    domain = Domain.parse("sender.example")
    return Evidence(
        iprev=IprevResult(status=IprevStatus.PASS, ip=ip_address("192.0.2.1"), name="mail.sender.example"),
        spf_helo=SpfResult(
            status=SpfStatus.PASS, identity=SpfIdentity.HELO, domain=Domain.parse("mail.sender.example")
        ),
        spf=SpfResult(status=SpfStatus.PASS, identity=SpfIdentity.MAILFROM, domain=domain),
        dkim=(
            DkimResult(
                status=DkimStatus.PASS,
                domain=domain,
                selector="s1",
                algorithm="rsa-sha256",
                key_bits=2048,
                signature_start="Kd8a/x3=",
            ),
        ),
        dmarc=DmarcResult(
            status=DmarcStatus.PASS,
            author=domain,
            record=DmarcRecord(p=DmarcPolicy.REJECT),
            policy=DmarcPolicy.REJECT,
        ),
    )


def shown(edits: tuple[Edit, ...]) -> list[str]:
    """Return edits as short text: `delete x-a 2`, `insert X: v`."""
    out: list[str] = []
    for edit in edits:
        kind = type(edit).__name__.removesuffix("Header").lower()
        name = getattr(edit, "name", b"").decode("latin-1")
        nth = getattr(edit, "nth", "")
        value = getattr(edit, "value", b"").decode("utf-8", "replace")
        out.append(" ".join(str(x) for x in (kind, name, nth, value) if x != ""))
    return out


def applied(headers: tuple[tuple[bytes, bytes], ...], edits: tuple[Edit, ...]) -> list[tuple[bytes, bytes]]:
    """Apply edits one after another to a list of fields, as an MTA does: by name in any case, from 1, at an index."""
    from authmilter.verdict import ChangeHeader, DeleteHeader, InsertHeader  # noqa: PLC0415 - beside its only use

    fields = list(headers)
    for edit in edits:
        if isinstance(edit, InsertHeader):
            fields.insert(edit.at, (edit.name, b" " + edit.value))
        elif isinstance(edit, DeleteHeader | ChangeHeader):
            wanted = edit.name.lower()
            places = [n for n, f in enumerate(fields) if f[0].rstrip(b" \t\r\n").lower() == wanted]
            at = places[edit.nth - 1]
            if isinstance(edit, DeleteHeader):
                del fields[at]
            else:
                fields[at] = (fields[at][0], b" " + edit.value)
    return fields
