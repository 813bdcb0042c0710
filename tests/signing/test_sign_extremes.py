"""Signatures of what is odd: bodies with every line end there is, headers of the largest size, names that stand twice."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authmilter.dkim.canonical import Canonicalization
from authmilter.dkim.result import DkimStatus
from authmilter.dkim.sign import Risk, SignatureSettings, SigningPlan, Unsignable, UnsignableReason, plan
from authmilter.mail import Origin, Session
from authmilter.message import MAX_FIELDS, Message
from authmilter.names import Address, Domain
from authmilter.signing.keys import KeyRing, KeySource
from authmilter.signing.settings import NotSigned, NotSignedReason, SigningSettings, sign_message
from authmilter.signing.table import DomainTable, parse_table
from tests.support.dkim_keys import dkimpy_verifies, judge
from tests.support.signing import SIGNED_AT, both, sign_values, signing_key, with_signatures, zone_of

ENTRIES = both()
ZONE = zone_of(ENTRIES)
HEADER = (
    b"From: Alice <alice@example.com>\r\nTo: b@example.net\r\nSubject: s\r\nDate: d\r\nMessage-ID: <1@a>\r\n"
)
SETTINGS = SignatureSettings()
#: Seconds that the largest header block may take, with two signatures; it takes a tenth.
PATIENCE = 3.0

pieces = st.one_of(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0", b" ", b"\t", b"\xff\xfe", b".", b" \r\n"]
    ),
    st.binary(max_size=40),
    st.integers(0, 1100).map(lambda n: b"x" * n),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(pieces, max_size=14).map(b"".join),
    st.lists(st.integers(0, 20_000), max_size=6),
    st.sampled_from(list(Canonicalization)),
)
@example(b"a\r", [2], Canonicalization.RELAXED)
@example(b" \r\n\t", [1, 2, 3], Canonicalization.RELAXED)
@example(b"\n\r\n\r", [1, 2, 3, 4], Canonicalization.SIMPLE)
def test_any_octets_of_a_body_in_any_pieces_are_signed_as_they_are_verified(
    body: bytes, cuts: list[int], form: Canonicalization
) -> None:
    raw = HEADER + b"\r\n" + body
    values = sign_values(raw, ENTRIES, SignatureSettings(body_form=form), cuts=cuts)
    signed = with_signatures(raw, values)
    results = judge(signed, ZONE, now=SIGNED_AT + timedelta(hours=1))
    assert [r.status for r in results] == [DkimStatus.PASS] * 2
    # dkimpy makes every LF a CRLF before it looks, and keeps blanks before the end where no CRLF is (SMTP has always one)
    if b"\n" not in body.replace(b"\r\n", b"") and not body.endswith((b" ", b"\t")):
        assert [dkimpy_verifies(signed, ZONE, i) for i in (0, 1)] == [True, True]


def _timed(raw: bytes) -> SigningPlan | Unsignable:
    begun = time.process_time()
    message, _ = Message.parse(raw)
    planned = plan(message, ENTRIES, SETTINGS)
    if isinstance(planned, SigningPlan):
        sign_values(raw, ENTRIES, SETTINGS)
    assert time.process_time() - begun < PATIENCE
    return planned


@pytest.mark.parametrize("name", ["X-a", "Received", "x" * 20])
def test_as_many_fields_as_are_read_are_signed_in_little_time(name: str) -> None:
    raw = HEADER + f"{name}: value\r\n".encode() * (MAX_FIELDS - 5) + b"\r\nbody\r\n"
    assert isinstance(_timed(raw), SigningPlan)


@pytest.mark.parametrize("name", ["To", "Subject", "Date", "References"])
def test_as_many_signed_fields_are_not_signed_and_refused_in_little_time(name: str) -> None:
    planned = _timed(HEADER + f"{name}: value\r\n".encode() * (MAX_FIELDS - 5) + b"\r\nbody\r\n")
    assert isinstance(planned, Unsignable)
    assert planned.reason is UnsignableReason.TOO_MANY_FIELDS


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 1_000_000,
        b"\r\n x" * 200_000,
        b" " * 1_000_000 + b"x",
        b"\r\n \t" * 200_000 + b"x",
        b"<a@b>, " * 140_000,
    ],
)
@pytest.mark.parametrize("name", [b"To", b"Subject", b"X-other"])
def test_a_field_of_a_megabyte_is_signed_in_little_time_and_verifies(name: bytes, value: bytes) -> None:
    fields = b"".join(line for line in HEADER.splitlines(keepends=True) if not line.startswith(name + b":"))
    raw = fields + name + b": " + value + b"\r\n\r\nbody\r\n"
    assert isinstance(_timed(raw), SigningPlan)
    signed = with_signatures(raw, sign_values(raw, ENTRIES))
    parsed, start = Message.parse(signed)
    if not parsed.defects or len(signed) - start < 1_048_576 - 4000:
        results = judge(signed, ZONE, now=SIGNED_AT + timedelta(hours=1))
        assert [r.status for r in results] == [DkimStatus.PASS] * 2


@pytest.mark.parametrize("name", ["To", "cc", "SUBJECT", "Message-ID"])
def test_a_field_that_may_stand_once_and_stands_twice_is_told(name: str) -> None:
    message, _ = Message.parse(f"{name}: 1\r\n{name}: 2\r\n".encode() + HEADER + b"\r\n")
    planned = plan(message, ENTRIES, SETTINGS)
    assert isinstance(planned, SigningPlan)
    assert Risk.REPEATED_FIELD in planned.risks
    once = plan(Message.parse(HEADER + b"\r\n")[0], ENTRIES, SETTINGS)
    assert isinstance(once, SigningPlan)
    assert once.risks == frozenset()


def test_nothing_of_a_message_gets_into_its_signature() -> None:
    raw = HEADER.replace(b"alice@", b'"a; d=evil.example; b=\r\n x"@').replace(
        b"s\r\n", b"=?utf-8?q?=0d=0aX: 1?=\r\n"
    )
    for value in sign_values(raw + b"\r\nbody\r\n", ENTRIES):
        assert b"evil" not in value
        assert all(line.startswith(b" ") for line in value.split(b"\r\n")[1:])
        assert b"\n" not in value.replace(b"\r\n", b"")


def test_a_table_of_a_thousand_authors_is_read_and_asked_in_little_time() -> None:
    key = signing_key()
    text = "".join(f"d{n}.example rsa-1 k.pem\n*.d{n}.example rsa-1 k.pem\n" for n in range(1000))
    begun = time.process_time()
    table = DomainTable.of(parse_table(text, "t"), KeyRing(keys={KeySource(path="k.pem"): key}))
    sign_all = SigningSettings(tables=(table,))
    for n in range(1000):
        match = table.find(Address("a", Domain.parse(f"x.y.d{n}.example")))
        assert match is not None
        assert match.line == f"t:{2 * n + 2}: *.d{n}.example"
    assert time.process_time() - begun < PATIENCE
    values, _ = sign_message(
        b"From: a@d7.example\r\n\r\n", sign_all, session=Session(), origin=Origin.SUBMISSION, now=SIGNED_AT
    )
    assert not isinstance(values, NotSigned)
    values, _ = sign_message(
        b"From: a@d1000.example\r\n\r\n", sign_all, session=Session(), origin=Origin.SUBMISSION, now=SIGNED_AT
    )
    assert isinstance(values, NotSigned)
    assert values.reason is NotSignedReason.NO_KEY
