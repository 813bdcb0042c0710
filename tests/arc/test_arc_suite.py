"""The published ARC suite: every validation case, and every signing case."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from authmilter.arc import chain, check, seal
from authmilter.arc.result import ArcResult, ArcStatus
from authmilter.arc.seal import NotSealed, NotSealedReason, SealSettings
from authmilter.arc.settings import ArcSettings
from authmilter.dkim.canonical import BodyHasher, Canonicalization, canonical_field
from authmilter.dkim.crypto import SigningKey, load_signing_key
from authmilter.dkim.sign import SigningEntry
from authmilter.headers.edits import own_ids
from authmilter.headers.foreign import authserv_id_of
from authmilter.message import Message
from authmilter.names import Domain
from authmilter.octets.chosen import unsigned_value
from tests.support.arc import NOW, validate
from tests.support.suites import suite_path

#: ValiMail's signing cases, with their licence beside them.
_SIGNING = Path(__file__).resolve().parents[1] / "vectors" / "arc" / "arc-draft-sign-tests.yml"


@cache
def _documents(file: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(file.read_text("utf-8")) if d]


def _zone(document: dict[str, Any]) -> dict[str, object]:
    return {n: {"TXT": ["".join(t.split("\n"))]} for n, t in (document.get("txt-records") or {}).items()}


def _octets(text: str) -> bytes:
    return text.encode().replace(b"\n", b"\r\n")


def test_every_validation_case() -> None:
    wrong = []
    count = 0
    for document in _documents(suite_path("arc/arc-draft-validation-tests.yml")):
        for name, case in document["tests"].items():
            count += 1
            # RFC 8617 §5.2: where the suite leaves cv empty (the newest seal says fail), the status is fail
            expected = (case["cv"] or "fail").lower()
            found = validate(_octets(case["message"]), _zone(document))
            if found.status != expected:
                wrong.append(f"{name}: {found.status} ({found.problem}: {found.detail}), not {expected}")
    assert wrong == []
    assert count == 171


def _cases() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    return [(n, c, d) for d in _documents(_SIGNING) for n, c in d["tests"].items()]


def test_there_are_as_many_signing_cases_as_were_published() -> None:
    assert len(_cases()) == 17


def _folded(text: str) -> bytes:
    return text.strip().replace("\n", "\r\n ").encode()


_B_TAG = re.compile(rb"(?<=[; \n])b=[^;]*")
_AMS = re.compile(rb"^ARC-Message-Signature:[^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE)


def _in_one_piece(field: bytes) -> bytes:
    return _B_TAG.sub(lambda m: re.sub(rb"\s", b"", m.group()), field, count=1)


def _signature_of(value: bytes) -> bytes:
    found = re.search(rb"(?:\A|;)\s*b=([^;]*)", value)
    assert found is not None
    return base64.b64decode(re.sub(rb"\s", b"", found.group(1)))


def _bare(value: bytes) -> bytes:
    return unsigned_value(value)


@pytest.mark.parametrize(("name", "case", "document"), _cases(), ids=[c[0] for c in _cases()])
def test_a_signing_case(name: str, case: dict[str, Any], document: dict[str, Any]) -> None:
    """Our set for the suite's message validates, says what the suite's says, and the suite's own two signatures come
    out of our canonical forms and key to the octet.
    """
    # The suite prints b= of message signatures in folded lines, and its seals were made over them in one piece.
    raw = _AMS.sub(lambda m: _in_one_piece(m.group()), _octets(case["message"]))
    message, start = Message.parse(raw)
    zone, settings = _zone(document), ArcSettings()
    key: SigningKey = load_signing_key(document["privatekey"].encode())
    entry = SigningEntry(domain=Domain.parse(document["domain"]), selector=document["sel"], key=key)
    before = chain.read(message, settings)
    # The suite's sealer takes the chain's status from its Authentication-Results, as ours does of mail that comes back.
    told = re.search(rb"arc=(none|pass|fail)", raw)
    assert told is not None
    status = ArcStatus(told.group(1).decode())
    place = seal.status_of(ArcResult(status=status), before)
    holds = validate(raw, zone).status is status
    if not case["AS"]:
        assert isinstance(place, NotSealed), name
        assert place.reason is NotSealedReason.CHAIN_ENDED
        return
    assert not isinstance(place, NotSealed), place
    suite = {k: _folded(case[k]) for k in ("AAR", "AMS", "AS")}
    suite["AMS"] = _in_one_piece(suite["AMS"])

    # what the suite expects of the set
    assert f"i={place.instance}".encode() in suite["AS"]
    assert f"cv={place.cv}".encode() in suite["AS"]
    results = _merged(message, case["srv-id"])
    relaxed = Canonicalization.RELAXED
    words = canonical_field(
        b"A", b"i=%d; %b; %b" % (place.instance, case["srv-id"].encode(), results), relaxed
    )
    assert sorted(words.split(b";")) == sorted(canonical_field(b"A", suite["AAR"], relaxed).split(b";"))

    # the suite's own signatures, made again with its key over our canonical forms (PKCS #1 v1.5 has no randomness)
    own = b"".join(
        n + b": " + suite[k] + b"\r\n"
        for k, n in (
            ("AS", b"ARC-Seal"),
            ("AMS", b"ARC-Message-Signature"),
            ("AAR", b"ARC-Authentication-Results"),
        )
    )
    whole, _ = Message.parse(own + raw)
    after = chain.read(whole, settings)
    if place.cv == "fail":
        assert after.ended
    else:
        assert not holds or validate(own + raw, zone).status == "pass"
        link = after.links[-1]
        assert key.sign(check.signed_block(whole, link.signature)) == link.signature.signature
        hasher = BodyHasher(frozenset({seal.NEED}))
        hasher.update(raw[start:])
        assert hasher.finish()[seal.NEED].digest == link.signature.body_hash
    links = () if place.cv == "fail" else before.links
    covered = [
        canonical_field(h.name, h.value, relaxed)
        for x in links
        for h in (x.results, x.signature.header, x.seal.header)
    ]
    covered += [
        canonical_field(b"ARC-Authentication-Results", suite["AAR"], relaxed),
        canonical_field(b"ARC-Message-Signature", suite["AMS"], relaxed),
        canonical_field(b"ARC-Seal", _bare(b" " + suite["AS"]), relaxed),
    ]
    # (two messages of the suite hold sets whose seals do not hold in the text as published: nor can the next be made)
    assert not holds or key.sign(b"\r\n".join(covered)) == _signature_of(suite["AS"])
    assert holds or name in {"i1_base", "i2_base"}

    # our own set
    hasher = BodyHasher(frozenset({seal.NEED}))
    hasher.update(raw[start:])
    made = seal.make(
        message,
        hasher.finish(),
        place,
        case["srv-id"].encode() + b"; " + results,
        chain=before,
        settings=SealSettings(entry=entry),
        now=datetime.fromtimestamp(case["t"], UTC),
    )
    assert not isinstance(made, NotSealed), made
    ours = b"".join(n + b": " + v + b"\r\n" for n, v in made) + raw
    expected = "fail" if place.cv == "fail" or not holds else "pass"
    assert validate(ours, zone, now=NOW).status == expected


def _merged(message: Message, server: str) -> bytes:
    """The results of all fields of that server, in one (RFC 8617 §5.1: a single, merged payload)."""
    parts = [
        h.value.partition(b";")[2].strip(b" \t\r\n;")
        for h in message.fields("authentication-results")
        if authserv_id_of(h.value) in own_ids(server, (), None).whole
    ]
    return b"; ".join(parts)
