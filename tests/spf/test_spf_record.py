"""Reading a record: what is a mechanism, what is a modifier, what will be asked for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.spf.record import MAX_RECORD, MAX_TERM, Target, TargetKind, read_record, spf_records


def test_a_record_begins_with_its_version_and_a_space_or_ends_there() -> None:
    texts = [
        b"v=spf1",
        b"V=SPF1 a",
        b"v=spf10 a",
        b"v=spf1a",
        b" v=spf1",
        b"v=spf1\t",
        b"v=spf1\n",
        b"v=spf",
        b"",
    ]
    assert spf_records(texts) == [b"v=spf1", b"V=SPF1 a"]


def test_modifiers_are_taken_out() -> None:
    record = read_record(b"v=spf1 Exp=e.example  a x=y MX:m.example/24 redirect=r.example")
    assert record.fault == ""
    assert record.mechanisms == "v=spf1 a MX:m.example/24"
    assert record.redirect == "r.example"
    assert record.explanation == "e.example"
    assert record.targets == (
        Target(TargetKind.A, ""),
        Target(TargetKind.MX, "m.example"),
        Target(TargetKind.REDIRECT, "r.example"),
    )


def test_targets_end_at_all_and_redirect_goes_with_it() -> None:
    record = read_record(
        b"v=spf1 ?include:i.example ip4:192.0.2.1 exists:%{i}.x.example ptr -ALL a:z.example redirect=r.example"
    )
    assert record.redirect is None
    assert record.targets == (
        Target(TargetKind.INCLUDE, "i.example"),
        Target(TargetKind.EXISTS, None),
        Target(TargetKind.PTR, ""),
    )


def test_prefix_lengths_are_no_part_of_a_target() -> None:
    record = read_record(
        b"v=spf1 a:x.example/24 a:y.example//64 mx:z.example/24//64 a/24 exists:a/b.example/24"
    )
    assert [t.name for t in record.targets] == ["x.example", "y.example", "z.example", "", "a/b.example/24"]


@pytest.mark.parametrize(
    "text",
    [
        b"v=spf1 redirect=",
        b"v=spf1 exp=-all",
        b"v=spf1 foo=%a",
        b"v=spf1 \x80",
        b"v=spf1 a\x00",
        b"v=spf1 a\r\n",
    ],
)
def test_faults(text: bytes) -> None:
    record = read_record(text)
    assert record.fault
    assert not record.oversized


def test_our_own_limits_are_told_from_faults() -> None:
    assert read_record(b"v=spf1 " + b"a " * MAX_RECORD).oversized
    assert read_record(b"v=spf1 a:" + b"a" * MAX_TERM).oversized
    whole = read_record(b"v=spf1 a:" + b"a" * (MAX_TERM - 2))
    assert not whole.fault
    assert len(read_record(b"v=spf1 " + b"a " * 4000).targets) <= 32


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_reading_is_total(tail: bytes) -> None:
    record = read_record(b"v=spf1 " + tail)
    assert record.fault.isascii()
    assert bool(record.fault) != record.mechanisms.startswith("v=spf1")
