"""Canonical forms and the streamed body hash: the same digest however the body is cut."""

from __future__ import annotations

import hashlib
import re
import time
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authmilter.dkim.canonical import BodyDigest, BodyHasher, BodyNeed, Canonicalization, canonical_field
from authmilter.mail import BodyFacts
from tests.support.dkim_keys import dkimpy_body, dkimpy_header, naive_body, naive_header

SIMPLE, RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED
NEEDS = frozenset(
    BodyNeed(form, "sha256", length) for form in (SIMPLE, RELAXED) for length in (None, 0, 1, 3, 10, 1000)
)

pieces = st.sampled_from(
    [b"a", b"bc", b" ", b"  ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" \r\n", b"\x80"]
)
bodies = st.lists(pieces, max_size=30).map(b"".join)
cuts = st.lists(st.integers(min_value=0, max_value=60), max_size=12)


def hash_in_pieces(body: bytes, places: list[int], needs: frozenset[BodyNeed] = NEEDS) -> BodyHasher:
    hasher = BodyHasher(needs)
    start = 0
    for end in sorted(min(p, len(body)) for p in places):
        hasher.update(body[start:end])
        start = end
    hasher.update(body[start:])
    return hasher


def expected(body: bytes, need: BodyNeed) -> BodyDigest:
    canonical = naive_body(body, need.canonicalization)
    return BodyDigest(hashlib.sha256(canonical[: need.length]).digest(), len(canonical))


@settings(max_examples=400)
@given(bodies, cuts)
@example(b"a \r\nb", [2])
@example(b"a \r\nb", [3])
@example(b"a \r\rb \t\r", [3, 4])
@example(b" \r\n \r\n", [1, 2, 3, 4, 5])
@example(b"a\r\n\r\n\r\n", [4, 5])
def test_any_chunking_gives_the_hash_of_the_naive_reference(body: bytes, places: list[int]) -> None:
    digests = hash_in_pieces(body, places).finish()
    assert digests == {need: expected(body, need) for need in NEEDS}


@settings(max_examples=100)
@given(bodies)
def test_octet_by_octet_gives_the_same_hash(body: bytes) -> None:
    assert hash_in_pieces(body, list(range(len(body)))).finish() == {n: expected(body, n) for n in NEEDS}


@settings(max_examples=300)
@given(bodies.map(lambda b: b + b"\r\n"))
@example(b"\r\n")
@example(b" \t\r\n\r\n")
def test_bodies_that_end_their_last_line_are_hashed_as_dkimpy_does(body: bytes) -> None:
    needs = frozenset({BodyNeed(SIMPLE), BodyNeed(RELAXED)})
    digests = hash_in_pieces(body, [], needs).finish()
    for need in needs:
        assert digests[need].digest == hashlib.sha256(dkimpy_body(body, need.canonicalization)).digest()


@settings(max_examples=300)
@given(bodies, cuts)
@example(b"\r", [])
@example(b"\r\n", [1])
@example(b"\n", [])
def test_bare_cr_and_bare_lf_are_told(body: bytes, places: list[int]) -> None:
    assert hash_in_pieces(body, places).facts() == BodyFacts(
        size=len(body),
        bare_cr=re.search(rb"\r(?!\n)", body) is not None,
        bare_lf=re.search(rb"(?<!\r)\n", body) is not None,
    )


def test_facts_need_no_hashes() -> None:
    hasher = BodyHasher(frozenset())
    hasher.update(b"one\ntwo\r")
    assert hasher.facts() == BodyFacts(size=8, bare_cr=True, bare_lf=True)
    assert hasher.finish() == {}


names = st.sampled_from([b"From", b"X-y", b"SUBJECT", b"From ", b"To\t"])
values = st.lists(
    st.sampled_from([b"a", b"B ", b" ", b"\t", b"\r\n ", b"\r\n\t", b":", b"\xc3\xa9"]), max_size=12
)


@settings(max_examples=300)
@given(names, values.map(b"".join))
def test_relaxed_fields_are_those_of_the_reference_and_of_dkimpy(name: bytes, value: bytes) -> None:
    ours = canonical_field(name, value, RELAXED)
    assert ours == naive_header(name + b":" + value, "relaxed")
    assert ours == dkimpy_header(name, value)


@given(names, values.map(b"".join))
def test_simple_fields_are_kept_as_they_are(name: bytes, value: bytes) -> None:
    assert canonical_field(name, value, SIMPLE) == name + b":" + value


def test_only_blank_and_tab_are_white_space() -> None:
    assert canonical_field(b"A", b" \x0b b \x0c\n c\r", RELAXED) == b"a:\x0b b \x0c\n c\r"


@pytest.mark.parametrize("longest", [1, 2, 3, 4, 7, 16, 60, 300])
def test_every_run_of_blanks_becomes_one_blank_however_long_the_others_are(longest: int) -> None:
    # Short runs are joined in another way than long ones, and each way has to do it all.
    runs = [n for n in range(1, longest + 1) for _ in range(3)]
    body = b"".join(b"x" + b" " * n for n in runs) + b"x\r\n"
    wanted = b"x " * len(runs) + b"x\r\n"
    need = BodyNeed(RELAXED)
    hasher = BodyHasher(frozenset({need}))
    hasher.update(body)
    assert hasher.finish()[need] == BodyDigest(hashlib.sha256(wanted).digest(), len(wanted))


# ----- linear, whatever it is given -----------------------------------------------------------------------------

MEGABYTE = 1 << 20
NASTY = {
    "blanks": b" " * MEGABYTE,
    "tabs and blanks": b" \t" * (MEGABYTE // 2),
    "empty lines": b"\r\n" * (MEGABYTE // 2),
    "blank lines": b" \r\n" * (MEGABYTE // 3),
    "CRs": b"\r" * MEGABYTE,
    "LFs": b"\n" * MEGABYTE,
    "CR CR LF": b"\r\r\n" * (MEGABYTE // 3),
    "a  a": b"a  " * (MEGABYTE // 3),
    "runs of growing length": b"x".join(b" " * n for n in range(1400)),
    "one line of blanks": b" " * MEGABYTE + b"x\r\n",
    "empty lines, then text": b"\r\n" * (MEGABYTE // 2) + b"x",
}


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("size", [MEGABYTE, 65535, 1000])
def test_a_megabyte_of_anything_is_hashed_in_a_moment(name: str, size: int) -> None:
    body = NASTY[name]
    needs = frozenset({BodyNeed(SIMPLE), BodyNeed(RELAXED), BodyNeed(RELAXED, "sha256", 100)})
    hasher = BodyHasher(needs)
    started = time.process_time()
    for start in range(0, len(body), size):
        hasher.update(body[start : start + size])
    digests = hasher.finish()
    # ten to fifty milliseconds; anything quadratic takes minutes
    assert time.process_time() - started < 2.0
    assert digests == {need: expected(body, need) for need in needs}


@pytest.mark.parametrize("chunk", [b"\r\n" * 30000, b" \t" * 30000, b"\r" * 60000, b"a b\r\n" * 12000])
def test_memory_does_not_grow_with_the_body(chunk: bytes) -> None:
    hasher = BodyHasher(frozenset({BodyNeed(SIMPLE), BodyNeed(RELAXED)}))
    hasher.update(chunk)
    tracemalloc.start()
    try:
        for _ in range(200):
            hasher.update(chunk)
        _, peak = tracemalloc.get_traced_memory()
        hasher.update(b"x")
        hasher.finish()
        _, peak_at_end = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(chunk)
    assert peak_at_end < 8 * len(chunk)
    assert hasher.facts().size == 201 * len(chunk) + 1
