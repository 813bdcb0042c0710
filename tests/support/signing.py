"""Signing for tests: keys made once, entries, signed messages and the zone that publishes the keys."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from authmilter.dkim.canonical import BodyHasher
from authmilter.dkim.crypto import KeyKind, SigningKey, generate_signing_key
from authmilter.dkim.sign import SignatureSettings, SigningEntry, SigningPlan, body_needs, finish, plan
from authmilter.message import Message
from authmilter.names import Domain
from tests.support.postfix import Delivered, SmtpResult, wait_until
from tests.support.service import Service

#: when the tests sign
SIGNED_AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@cache
def signing_key(kind: KeyKind = KeyKind.ED25519, bits: int = 1024) -> SigningKey:
    """A key, made once; RSA keys are short, because the oracle computes in pure Python."""
    return generate_signing_key(kind, rsa_bits=bits)


def an_entry(
    kind: KeyKind = KeyKind.ED25519, *, domain: str = "example.com", selector: str = ""
) -> SigningEntry:
    return SigningEntry(
        domain=Domain.parse(domain), selector=selector or f"{kind.value}1", key=signing_key(kind)
    )


def both(domain: str = "example.com") -> tuple[SigningEntry, ...]:
    return an_entry(KeyKind.RSA, domain=domain), an_entry(KeyKind.ED25519, domain=domain)


def zone_of(entries: Iterable[SigningEntry]) -> dict[str, object]:
    return {entry.question.name: {"TXT": [entry.key.record]} for entry in entries}


def sign_values(
    raw: bytes,
    entries: tuple[SigningEntry, ...],
    settings: SignatureSettings | None = None,
    *,
    cuts: Iterable[int] = (),
) -> tuple[bytes, ...]:
    """Sign a message whose body arrives cut at `cuts`."""
    message, start = Message.parse(raw)
    planned = plan(message, entries, settings or SignatureSettings())
    assert isinstance(planned, SigningPlan), planned
    hasher = BodyHasher(body_needs(planned), watch=True)
    body = raw[start:]
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for begin, end in itertools.pairwise(places):
        hasher.update(body[begin:end])
    return finish(planned, hasher.finish(), SIGNED_AT)


def with_signatures(raw: bytes, values: Iterable[bytes]) -> bytes:
    """Put the fields on top, as the MTA writes them."""
    return b"".join(b"DKIM-Signature: " + value + b"\r\n" for value in values) + raw


def logged(service: Service, mail: Delivered | SmtpResult) -> dict[str, Any]:
    """Wait for the line about a message: its Received fields, or the reply, have an id that the line has too."""
    text = mail.header.decode("utf-8", "replace") if isinstance(mail, Delivered) else mail.text
    ids = set(re.findall(r"\bid (\w+)", text))
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [line for line in service.log_lines() if {line["id"], line["queue_id"]} & ids]
        return bool(found)

    wait_until(there, 10, lambda: f"the line of {ids}\n{service.log_text()[-2000:]}")
    return found[0]
