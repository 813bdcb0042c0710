"""ARC for tests: sealers with keys, sets made by us, chains of any form made by hand, and the zone that publishes the keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from authmilter.arc import chain, check, seal
from authmilter.arc.result import ArcResult
from authmilter.arc.seal import NotSealed, Sealable, SealSettings
from authmilter.arc.settings import ArcSettings, TrustedSealers
from authmilter.dkim.canonical import BodyHasher, Canonicalization, canonical_field
from authmilter.dkim.crypto import KeyKind, SigningKey, generate_signing_key
from authmilter.dkim.sign import SigningEntry
from authmilter.message import Message
from authmilter.names import Domain
from tests.support.builders import a_lookup

__all__ = [
    "AAR",
    "MESSAGE",
    "NOW",
    "Forged",
    "a_sealer",
    "forge",
    "sealed",
    "trusting",
    "validate",
    "zone_of",
]

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MESSAGE = (
    b"From: Alice <alice@victim.example>\r\nTo: list@lists.example\r\nSubject: Hello\r\n"
    b"Date: Sun, 22 Nov 2026 11:00:00 +0000\r\nMessage-ID: <1@victim.example>\r\n\r\nHello there\r\n"
)
AAR = (
    b"mx.sealer.example;\r\n spf=pass smtp.mailfrom=victim.example;\r\n dmarc=pass header.from=victim.example"
)


@cache
def _key_of(domain: str) -> SigningKey:
    """A key for each sealer, made once; short, because the oracle computes in pure Python."""
    assert domain
    return generate_signing_key(KeyKind.RSA, rsa_bits=1024)


def a_sealer(domain: str = "sealer.example", selector: str = "arc1") -> SigningEntry:
    return SigningEntry(domain=Domain.parse(domain), selector=selector, key=_key_of(domain))


def zone_of(*domains: str) -> dict[str, object]:
    """The key records of these sealers."""
    return {a_sealer(d).question.name: {"TXT": [a_sealer(d).key.record]} for d in domains}


def trusting(*names: str) -> ArcSettings:
    return ArcSettings(trusted=TrustedSealers.of(names))


def validate(
    raw: bytes, zone: Mapping[str, object], settings: ArcSettings | None = None, *, now: datetime = NOW
) -> ArcResult:
    message, start = Message.parse(raw)
    return check.verify(message, raw[start:], a_lookup(zone), settings or ArcSettings(), now=now)


def sealed(raw: bytes, domain: str = "sealer.example", *, results: bytes = AAR, cv: str = "") -> bytes:
    """Put a set of ours on top of a message; `cv` by default what is due in a chain that passes."""
    message, start = Message.parse(raw)
    before = chain.read(message, ArcSettings())
    hasher = BodyHasher(frozenset({seal.NEED}))
    hasher.update(raw[start:])
    place = Sealable(before.highest + 1, cv or ("pass" if before.highest else "none"))
    settings = SealSettings(entry=a_sealer(domain))
    made = seal.make(message, hasher.finish(), place, results, chain=before, settings=settings, now=NOW)
    assert not isinstance(made, NotSealed), made
    return b"".join(name + b": " + value + b"\r\n" for name, value in made) + raw


@dataclass(frozen=True, kw_only=True)
class Forged:
    """One set made by hand: any tags, signed with the sealer's key; None leaves a tag out, a field in `without` out."""

    domain: str = "sealer.example"
    results: bytes = AAR
    aar_instance: str = ""
    ams: Mapping[str, str | None] = field(default_factory=dict)
    seal: Mapping[str, str | None] = field(default_factory=dict)
    without: tuple[str, ...] = ()


def forge(raw: bytes, sets: Iterable[Forged]) -> bytes:
    """Put sets made by hand on top of a message, in their order, with a slow signer of the test's own."""
    lines: list[bytes] = []
    covered: list[bytes] = []
    head, _, body = raw.partition(b"\r\n\r\n")
    body_hash = base64.b64encode(hashlib.sha256(body).digest()).decode()
    for number, each in enumerate(sets, 1):
        entry = a_sealer(each.domain)
        aar = f"i={each.aar_instance or number}; ".encode() + each.results
        tags: dict[str, str | None] = {
            "i": str(number), "a": "rsa-sha256", "c": "relaxed/simple", "d": each.domain, "s": "arc1",
            "h": "from:to:subject", "bh": body_hash, **each.ams,
        }  # fmt: skip
        ams = _text(tags) + b" b="
        data = b""
        fields = [line.partition(b":") for line in head.split(b"\r\n")]
        for name in (tags["h"] or "").split(":"):
            for found, _, value in fields:
                if found.lower() == name.lower().encode():
                    data += _relaxed(found, value) + b"\r\n"
        ams += base64.b64encode(entry.key.sign(data + _relaxed(b"ARC-Message-Signature", ams)))
        tags = {
            "i": str(number), "a": "rsa-sha256", "cv": "none" if number == 1 else "pass", "d": each.domain,
            "s": "arc1", "t": "12345", **each.seal,
        }  # fmt: skip
        own = _text(tags) + b" b="
        covered += [_relaxed(b"ARC-Authentication-Results", aar), _relaxed(b"ARC-Message-Signature", ams)]
        signature = base64.b64encode(entry.key.sign(b"\r\n".join([*covered, _relaxed(b"ARC-Seal", own)])))
        covered.append(_relaxed(b"ARC-Seal", own + signature))
        made = {
            b"ARC-Seal": own + signature, b"ARC-Message-Signature": ams, b"ARC-Authentication-Results": aar,
        }  # fmt: skip
        lines = [n + b": " + v for n, v in made.items() if n.decode().lower() not in each.without] + lines
    return b"\r\n".join([*lines, raw])


def _text(tags: Mapping[str, str | None]) -> bytes:
    return "".join(f" {name}={value};" for name, value in tags.items() if value is not None).encode()


def _relaxed(name: bytes, value: bytes) -> bytes:
    return canonical_field(name, value, Canonicalization.RELAXED)
