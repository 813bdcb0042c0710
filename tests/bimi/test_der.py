"""The strict reader of DER."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.bimi import der
from authmilter.bimi.der import DerError, Element
from authmilter.bimi.logotype import LogotypeError, read_logotype
from tests.support.marks import der as written
from tests.support.marks import logotype


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_what_is_written_is_read(size: int) -> None:
    assert der.only(written(0x04, bytes(size)), der.OCTET_STRING) == bytes(size)


def test_elements_follow_each_other() -> None:
    assert der.children(b"\x04\x01a\x30\x00") == (Element(0x04, b"a"), Element(0x30, b""))
    assert der.children(b"") == ()


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x04",
        b"\x04\x02a",
        b"\x04\x80\x00\x00",
        b"\x04\x81\x7f" + bytes(127),
        b"\x04\x82\x00\x80" + bytes(128),
        b"\x04\x85\x00\x00\x00\x00\x01a",
        b"\x04\x82\x01",
        b"\x04\xff",
        b"\x1f\x01\x00",
        b"\x04\x01ab",
        b"\x05\x00",
    ],
    ids=[
        "nothing", "a tag", "cut", "indefinite", "long form of a short length", "zero in front", "five octets of length",
        "cut length", "reserved length", "high tag number", "something behind", "another tag",
    ],
)  # fmt: skip
def test_what_is_not_der_is_refused(octets: bytes) -> None:
    with pytest.raises(DerError):
        der.only(octets, der.OCTET_STRING)


def test_elements_are_counted() -> None:
    assert len(der.children(b"\x05\x00" * der.MAX_ITEMS)) == der.MAX_ITEMS
    with pytest.raises(DerError):
        der.children(b"\x05\x00" * (der.MAX_ITEMS + 1))


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"\x2b\x0e\x03\x02\x1a", "1.3.14.3.2.26"),
        (b"\x60\x86\x48\x01\x65\x03\x04\x02\x01", "2.16.840.1.101.3.4.2.1"),
        (b"\x00", "0.0"),
        (b"\x27", "0.39"),
        (b"\x88\x37", "2.999"),
    ],
)
def test_object_identifiers_are_read(octets: bytes, text: str) -> None:
    assert der.oid(octets) == text


@pytest.mark.parametrize("octets", [b"", b"\x80\x01", b"\x2b\x80", b"\x2b" * 65, b"\xff" * 12 + b"\x01"])
def test_object_identifiers_that_are_none_are_refused(octets: bytes) -> None:
    with pytest.raises(DerError):
        der.oid(octets)


GOOD = logotype()


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_logotype_with_wrong_octets_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    octets = bytearray(GOOD)
    for at, octet in changes:
        octets[at] = octet
    assert _word(bytes(octets)).startswith(("read", "logotype_"))


def _word(octets: bytes) -> str:
    try:
        return "read" if read_logotype(octets).svg else ""
    except LogotypeError as e:
        return e.problem
