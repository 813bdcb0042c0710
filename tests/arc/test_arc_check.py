"""Chains by hand: structure, keys, DNS, limits, oldest-pass, what is told, and that nothing costs the square."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.arc import chain, check
from authmilter.arc.result import ArcCheck, ArcProblem, ArcStatus
from authmilter.arc.settings import ArcSettings
from authmilter.dkim.canonical import BodyHasher
from authmilter.message import Header, Message
from tests.support.arc import MESSAGE, NOW, Forged, a_sealer, forge, sealed, trusting, validate, zone_of
from tests.support.builders import a_lookup

ZONE = zone_of("sealer.example", "second.example", "third.example")
AAR_TEXT = b"mx.sealer.example; dmarc=pass header.from=victim.example"
SEAL, AMS, AAR = "arc-seal", "arc-message-signature", "arc-authentication-results"


def test_without_arc_fields_there_is_none_and_nothing_is_asked() -> None:
    lookup = a_lookup(ZONE)
    message, start = Message.parse(MESSAGE)
    found = check.verify(message, MESSAGE[start:], lookup, ArcSettings(), now=NOW)
    assert found.status is ArcStatus.NONE
    assert found.problem is None
    assert lookup.asked == 0


def test_a_chain_of_three() -> None:
    raw = sealed(sealed(sealed(MESSAGE), "second.example"), "third.example")
    found = validate(raw, ZONE)
    assert found.status is ArcStatus.PASS
    assert found.oldest_pass == 0
    assert found.whole
    assert [str(s.sealer) for s in found.sets] == ["sealer.example", "second.example", "third.example"]
    assert [s.cv for s in found.sets] == ["none", "pass", "pass"]
    assert {s.seal for s in found.sets} | {s.signature for s in found.sets} == {ArcCheck.PASS}


def test_oldest_pass_is_the_one_after_the_first_that_fails() -> None:
    listed = sealed(MESSAGE).replace(b"Subject: Hello", b"Subject: [list] Hello")
    raw = sealed(sealed(listed, "second.example"), "third.example")
    found = validate(raw, ZONE)
    assert found.status is ArcStatus.PASS
    assert found.oldest_pass == 2
    assert [s.signature for s in found.sets] == [ArcCheck.FAIL, ArcCheck.PASS, ArcCheck.PASS]
    newest = validate(raw.replace(b"[list]", b"[other]"), ZONE)
    assert newest.status is ArcStatus.FAIL
    assert newest.problem is ArcProblem.MESSAGE_SIGNATURE
    assert newest.instance == 3


_ONE, _TWO = Forged(), Forged()


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        ([Forged(seal={"cv": "pass"})], ArcProblem.CHAIN_VALUE),
        ([Forged(seal={"cv": "fail"})], ArcProblem.FAILED_BEFORE),
        ([_ONE, Forged(seal={"cv": "none"})], ArcProblem.CHAIN_VALUE),
        ([_ONE, Forged(seal={"cv": "fail"})], ArcProblem.FAILED_BEFORE),
        ([Forged(seal={"cv": "fail"}), _TWO], ArcProblem.CHAIN_VALUE),
        ([Forged(seal={"cv": "Pass"})], ArcProblem.CHAIN_VALUE),
        ([Forged(seal={"h": "from"})], ArcProblem.SEAL_NAMES_FIELDS),
        ([Forged(seal={"d": None})], ArcProblem.MISSING_TAG),
        ([Forged(seal={"d": "-x-"})], ArcProblem.BAD_DOMAIN),
        ([Forged(seal={"a": "rsa-sha1"})], ArcProblem.ALGORITHM),
        ([Forged(seal={"t": "soon"})], ArcProblem.SYNTAX),
        ([Forged(seal={"t": "99999999999"})], ArcProblem.TIMES),
        ([Forged(seal={"s": "other"})], ArcProblem.NO_KEY),
        ([Forged(ams={"bh": "AAAA"})], ArcProblem.BODY_HASH),
        ([Forged(ams={"h": "from:arc-seal"})], ArcProblem.COVERS_SEAL),
        ([Forged(ams={"x": "12346", "t": "12345"})], ArcProblem.TIMES),
        ([Forged(ams={"x": "1", "t": "2"})], ArcProblem.TIMES),
        ([Forged(ams={"i": "51"})], ArcProblem.INSTANCE),
        ([Forged(ams={"i": "01"})], ArcProblem.INSTANCE),
        ([Forged(aar_instance="0")], ArcProblem.INSTANCE),
        ([_ONE, Forged(aar_instance="1")], ArcProblem.REPEATED),
        ([_ONE, Forged(ams={"i": "3"})], ArcProblem.INCOMPLETE),
        ([Forged(without=(SEAL,))], ArcProblem.INCOMPLETE),
        ([Forged(without=(AMS,))], ArcProblem.INCOMPLETE),
        ([_ONE, Forged(without=(AAR,))], ArcProblem.INCOMPLETE),
        ([Forged(without=(SEAL, AMS, AAR)), _TWO], ArcProblem.INCOMPLETE),
    ],
)  # fmt: skip
def test_what_makes_a_chain_fail(sets: list[Forged], problem: ArcProblem) -> None:
    assert validate(forge(MESSAGE, [_ONE, _TWO]), ZONE).status is ArcStatus.PASS
    found = validate(forge(MESSAGE, sets), ZONE)
    assert found.status is ArcStatus.FAIL
    assert found.problem is problem, found.detail
    assert found.detail
    assert found.sure
    assert found.oldest_pass is None


def test_fifty_sets_pass_and_one_more_does_not() -> None:
    fifty = forge(MESSAGE, [Forged()] * 50)
    found = validate(fifty, ZONE)
    assert found.status is ArcStatus.PASS, found.detail
    assert len(found.sets) == 50
    beyond = validate(forge(MESSAGE, [Forged()] * 51), ZONE)
    assert beyond.problem is ArcProblem.TOO_MANY_SETS
    assert beyond.sets == ()


@pytest.mark.parametrize("answer", ["SERVFAIL", "TIMEOUT"])
def test_dns_trouble_is_fail_and_kept_apart(answer: str) -> None:
    raw = sealed(sealed(MESSAGE), "second.example")
    name = a_sealer("second.example").question.name
    found = validate(raw, {**ZONE, name: {"TXT": answer}})
    assert found.status is ArcStatus.FAIL
    assert found.problem is ArcProblem.DNS
    assert not found.sure
    # What is established counts more: the body is another one, whatever the key.
    changed = validate(raw + b"more", {**ZONE, name: {"TXT": answer}})
    assert changed.problem is ArcProblem.BODY_HASH
    assert changed.sure
    # So does a seal that does not hold, where the other one's key is not to be had.
    forged = validate(raw.replace(b"spf=pass", b"spf=fail", 1), {**ZONE, name: {"TXT": answer}})
    assert forged.problem is ArcProblem.DNS
    broken = raw.replace(b"i=1; mx.sealer", b"i=1; my.sealer")
    assert validate(broken, {**ZONE, name: {"TXT": answer}}).problem is ArcProblem.SEAL


def test_an_older_signature_without_a_key_only_moves_oldest_pass() -> None:
    sets = [Forged(ams={"d": "gone.example"}), Forged(domain="second.example")]
    found = validate(forge(MESSAGE, sets), {**ZONE, "arc1._domainkey.gone.example": {"TXT": "SERVFAIL"}})
    assert found.status is ArcStatus.PASS
    assert found.oldest_pass == 2
    assert found.sets[0].signature is ArcCheck.UNCHECKED


def test_our_limits_are_no_verdict() -> None:
    raw = sealed(sealed(MESSAGE), "second.example")
    for limits in (ArcSettings(header_bytes=200), ArcSettings(folds=2), ArcSettings(h_names=3)):
        found = validate(raw, ZONE, limits)
        assert found.status is ArcStatus.FAIL
        assert found.problem is ArcProblem.LIMIT
        assert not found.sure
    large = sealed(MESSAGE, results=AAR_TEXT + b"; x=" + b"a" * 16384)
    assert validate(large, ZONE).problem is ArcProblem.LIMIT
    message, start = Message.parse(raw)
    read = chain.read(message, ArcSettings())
    hasher = BodyHasher(check.body_needs(read, ArcSettings()))
    hasher.update(raw[start:])
    digests = hasher.finish()
    outcome = check.verify_headers(message, read, a_lookup(ZONE, questions=1), ArcSettings(), now=NOW)
    assert check.conclude(outcome, digests, message, ArcSettings()).problem is ArcProblem.LIMIT
    whole = check.verify_headers(message, read, a_lookup(ZONE), ArcSettings(), now=NOW)
    assert check.conclude(whole, None, message, ArcSettings()).problem is ArcProblem.LIMIT
    assert check.conclude(whole, digests, message, ArcSettings()).status is ArcStatus.PASS
    few = validate(raw, ZONE, ArcSettings(signed_octets=0))
    assert few.status is ArcStatus.PASS
    assert few.oldest_pass == 2


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ("v=DKIM1; p=", ArcProblem.KEY),
        ("v=DKIM1; h=sha1; p=%s", ArcProblem.KEY),
        ("v=DKIM1; s=other; p=%s", ArcProblem.KEY),
        ("v=DKIM1; k=ed25519; p=%s", ArcProblem.KEY),
        ("hello", ArcProblem.KEY),
    ],
)
def test_keys_that_cannot_be_used(record: str, problem: ArcProblem) -> None:
    entry = a_sealer()
    public = entry.key.record.partition("p=")[2]
    text = record % public if "%s" in record else record
    found = validate(sealed(MESSAGE), {entry.question.name: {"TXT": [text]}})
    assert found.problem is problem
    short = validate(sealed(MESSAGE), ZONE, ArcSettings(min_rsa_bits=2048))
    assert short.problem is ArcProblem.KEY


def test_a_signature_that_leaves_the_author_or_the_end_open_is_not_whole() -> None:
    open_author = forge(MESSAGE, [Forged(ams={"h": "to:subject"})])
    changed = open_author.replace(b"From: Alice", b"From: Mallory")
    first = base64.b64encode(hashlib.sha256(b"Hello").digest()).decode()
    open_end = forge(MESSAGE, [Forged(ams={"l": "5", "bh": first})]) + b"and more"
    for raw in (open_author, changed, open_end):
        found = validate(raw, ZONE, trusting("sealer.example"))
        assert found.status is ArcStatus.PASS, found.detail
        assert not found.whole
        assert not found.trusted
        assert found.dmarc_passed_at == 0
    twice = b"From: <x@forger.example>\r\n" + sealed(MESSAGE)
    assert validate(twice, ZONE).status is ArcStatus.FAIL


def test_it_is_a_pass_until_the_clock_says_otherwise() -> None:
    raw = sealed(MESSAGE)
    assert validate(raw, ZONE, now=NOW - timedelta(seconds=200)).status is ArcStatus.PASS
    assert validate(raw, ZONE, now=NOW - timedelta(hours=1)).problem is ArcProblem.TIMES


def test_many_long_sets_cost_in_proportion() -> None:
    """Twice the sets and twice the octets: about four times the time, never sixteen."""

    def seconds(sets: int, filler: int) -> float:
        big = b"mx.sealer.example; x=" + b" a" * filler
        raw = forge(MESSAGE, [Forged(results=big)] * sets)
        message, start = Message.parse(raw)
        best = 9.0
        for _ in range(3):
            began = time.perf_counter()
            found = check.verify(message, raw[start:], a_lookup(ZONE), ArcSettings(), now=NOW)
            best = min(best, time.perf_counter() - began)
        assert found.status is ArcStatus.PASS, found.detail
        return best

    assert seconds(50, 6000) < 12 * seconds(12, 6000) + 0.05


def test_a_header_block_full_of_pieces_is_read_in_bounded_time() -> None:
    fields = [
        Header(name, b" i=1;" + b" x=y;" * 3000)
        for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results")
        for _ in range(3000)
    ]
    began = time.perf_counter()
    found = chain.read(Message(headers=tuple(fields)), ArcSettings())
    assert found.problem is ArcProblem.TOO_MANY_SETS
    assert time.perf_counter() - began < 1.0


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"]),
            st.one_of(
                st.binary(max_size=80),
                st.from_regex(rb"i=[0-9]{1,3}; (a=rsa-sha256; )?(cv=(none|pass|fail); )?(b=[A-Z]{4}; )?d=a\.b; s=c;", fullmatch=True),
            ),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_any_fields_give_a_result(fields: list[tuple[bytes, bytes]]) -> None:
    message = Message.of_fields((*fields, (b"From", b" a@victim.example")))
    found = check.verify(message, b"", a_lookup(ZONE), ArcSettings(), now=NOW)
    assert found.status in {ArcStatus.NONE, ArcStatus.FAIL}
    assert (found.status is ArcStatus.NONE) == (not fields or not chain.read(message, ArcSettings()).present)


def test_a_broken_check_is_never_a_pass() -> None:
    found = check.broken()
    assert found.status is ArcStatus.INTERNAL_ERROR
    assert not found.sure
    assert not found.trusted
    assert not replace(found, status=ArcStatus.FAIL).trusted
