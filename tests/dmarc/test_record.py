"""DMARC Policy Records (RFC 9989 §4.5, §4.7, §4.8)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dmarc.record import MAX_RECORD, MAX_TAGS, MAX_TEXTS, MAX_URIS, Absence, parse, select
from authmilter.dmarc.result import Alignment, DmarcPolicy, DmarcRecord, Psd

_PLAIN = DmarcRecord(p=DmarcPolicy.REJECT)


def record(text: str | bytes) -> DmarcRecord:
    found = parse(text.encode() if isinstance(text, str) else text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "v=DMARC1; p=reject",
        "v = DMARC1 ; p = reject",
        "v=DMARC1;p=reject;",
        "V=DMARC1;\tp=REJECT ;",
        "v=DMARC1; P=Reject",
    ],
)
def test_spellings_of_the_same_record(text: str) -> None:
    assert record(text) == _PLAIN


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"v=spf1 -all",
        b"v=dmarc1; p=reject",
        b"v=DMARC1x; p=reject",
        b"v=DMARC; p=reject",
        b"v=DMARC2; p=reject",
        b" v=DMARC1; p=reject",
        b"p=reject; v=DMARC1",
        b"vv=DMARC1; p=reject",
        b"v=DMARC1 p=reject",
        b"\xffv=DMARC1",
    ],
)
def test_texts_that_are_no_record(text: bytes) -> None:
    assert parse(text) is None


def test_the_version_alone_is_a_record_without_a_policy() -> None:
    assert record("v=DMARC1") == DmarcRecord()
    assert record("v=DMARC1;") == DmarcRecord()


def test_every_tag() -> None:
    text = (
        "v=DMARC1; rua=mailto:a@example.com!10m, https://r.example/x; p=quarantine; sp=reject; np=none; "
        "adkim=s; aspf=s; psd=n; t=y; fo=1:d:s; ruf=mailto:f@example.com; pct=25; rf=afrf; ri=86400; x=y"
    )
    assert record(text) == DmarcRecord(
        p=DmarcPolicy.QUARANTINE,
        sp=DmarcPolicy.REJECT,
        np=DmarcPolicy.NONE,
        adkim=Alignment.STRICT,
        aspf=Alignment.STRICT,
        psd=Psd.NO,
        testing=True,
        fo=("1", "d", "s"),
        rua=("mailto:a@example.com", "https://r.example/x"),
        ruf=("mailto:f@example.com",),
        pct=25,
    )


@pytest.mark.parametrize("tag", ["p", "sp", "np", "adkim", "aspf", "psd", "t"])
@pytest.mark.parametrize("value", ["rejected", "", "reject none", "r=s", "réject"])
def test_a_bad_value_is_discarded_and_named(tag: str, value: str) -> None:
    found = record(f"v=DMARC1; {'' if tag == 'p' else 'p=reject; '}{tag}={value}")
    assert found == DmarcRecord(p=None if tag == "p" else DmarcPolicy.REJECT, faults=(tag,))


def test_parts_that_are_no_tag_are_discarded() -> None:
    found = record("v=DMARC1; nonsense; p=reject; =x; 1=2;; evil\r\n=x")
    assert found == DmarcRecord(p=DmarcPolicy.REJECT, faults=("syntax",))


def test_faults_hold_nothing_of_the_stranger() -> None:
    found = record(b"v=DMARC1; <script>=1; \xe2\x80\xae; p=\x00; rua=javascript")
    assert set(found.faults) == {"syntax", "p", "rua"}


def test_of_a_repeated_tag_the_first_counts() -> None:
    assert record("v=DMARC1; p=reject; p=none") == DmarcRecord(p=DmarcPolicy.REJECT, faults=("p",))
    assert record("v=DMARC1; p=wrong; p=none").p is None
    assert record("v=DMARC1; p=\x07; p=none").p is None


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("0", ("0",)),
        ("1", ("1",)),
        ("d", ("d",)),
        ("D:S:1", ("d", "s", "1")),
        ("0 : s", ("0", "s")),
        ("s:d", ("s", "d")),
    ],
)
def test_failure_options(text: str, options: tuple[str, ...]) -> None:
    assert record(f"v=DMARC1; p=none; ruf=mailto:a@b.example; fo={text}").fo == options


@pytest.mark.parametrize("text", ["0:1", "d:d", "x", "0:", ":", "1:d:s:1"])
def test_bad_failure_options_have_the_default(text: str) -> None:
    found = record(f"v=DMARC1; p=none; ruf=mailto:a@b.example; fo={text}")
    assert found.fo == ("0",)
    assert found.faults == ("fo",)


def test_failure_options_are_ignored_without_ruf() -> None:
    assert record("v=DMARC1; p=none; fo=1:x").faults == ()
    assert record("v=DMARC1; p=none; fo=1").fo == ("0",)
    assert record("v=DMARC1; p=none; fo=1; ruf=nothing").fo == ("0",)


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        ("mailto:a@b.example", ("mailto:a@b.example",)),
        ("mailto:a@b.example!50k", ("mailto:a@b.example",)),
        ("mailto:a@b.example!5", ("mailto:a@b.example",)),
        ("MAILTO:a@b.example?subject=x", ("MAILTO:a@b.example?subject=x",)),
        (
            "https://x.example/%41 , mailto:a%2Cb@c.example",
            ("https://x.example/%41", "mailto:a%2Cb@c.example"),
        ),
    ],
)
def test_report_addresses(text: str, uris: tuple[str, ...]) -> None:
    found = record(f"v=DMARC1; p=none; rua={text}")
    assert found.rua == uris
    assert found.faults == ()


@pytest.mark.parametrize(
    "text",
    [
        "a@b.example",
        "mailto:",
        "mailto:a",
        "mailto:@b",
        "mailto:a@",
        "mailto:a b@c",
        "x:%zz",
        "x:a!b",
        "mailto:a@b!5x",
        ",",
    ],
)
def test_report_addresses_that_are_none(text: str) -> None:
    found = record(f"v=DMARC1; p=none; rua={text}")
    assert found.rua == ()
    assert found.faults == ("rua",)


def test_a_good_address_beside_a_bad_one_is_kept() -> None:
    found = record("v=DMARC1; p=none; rua=foo,mailto:a@b.example")
    assert found.rua == ("mailto:a@b.example",)
    assert found.faults == ("rua",)


@pytest.mark.parametrize(
    ("text", "pct"), [("0", 0), ("50", 50), ("100", 100), ("101", 100), ("-1", 100), ("x", 100)]
)
def test_pct_is_kept_and_never_a_fault(text: str, pct: int) -> None:
    found = record(f"v=DMARC1; p=none; pct={text}")
    assert found.pct == pct
    assert found.faults == ()


def test_too_long_a_record_has_no_policy() -> None:
    assert record(b"v=DMARC1; p=none; " + b"x" * MAX_RECORD) == DmarcRecord(faults=("limit",))


def test_too_many_tags_and_addresses_are_cut() -> None:
    many = "v=DMARC1; p=reject;" + "x=1;" * (MAX_TAGS + 5) + "sp=none"
    assert record(many) == DmarcRecord(p=DmarcPolicy.REJECT, faults=("limit",))
    uris = ",".join(["mailto:a@b.example"] * (MAX_URIS + 5))
    assert len(record(f"v=DMARC1; p=none; rua={uris}").rua) == MAX_URIS


def test_one_record_among_other_texts_is_selected() -> None:
    assert select([b"x", b"v=DMARC1; p=reject", b"v=spf1 -all"]) == _PLAIN


def test_no_record_and_several() -> None:
    assert select([]) is Absence.NO_RECORD
    assert select([b"x", b"v=dmarc1; p=none"]) is Absence.NO_RECORD
    assert select([b"v=DMARC1; p=reject", b"v=DMARC1; p=reject"]) is Absence.SEVERAL
    assert select([b"v=DMARC1", b"x", b"v=DMARC1; p=none"]) is Absence.SEVERAL
    assert select([b"x"] * MAX_TEXTS + [b"v=DMARC1"]) is Absence.NO_RECORD


_WORDS = st.sampled_from(
    [b"v=DMARC1", b";", b"=", b" ", b"p", b"sp", b"np", b"reject", b"none", b"rua", b"mailto:a@b.c", b",", b"!1k", b"fo",
     b":", b"0", b"1", b"d", b"t", b"y", b"psd", b"\xff", b"\x00", b"%4", b"pct", b"ruf"]
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200), st.lists(_WORDS, max_size=40).map(lambda w: b"v=DMARC1;" + b"".join(w))
    )
)
def test_parsing_is_total_and_keeps_only_printable_text(text: bytes) -> None:
    found = parse(text)
    assert found is None or all(
        x.isascii() and x.isprintable() for x in (*found.rua, *found.ruf, *found.fo, *found.faults)
    )


@pytest.mark.parametrize(
    "piece", [b"p=reject;", b" ", b"=", b"a=b,", b"rua=x:!1!1!1,", b"!1", b"v=DMARC1;", b"%41"]
)
def test_long_input_takes_linear_time(piece: bytes) -> None:
    text = (b"v=DMARC1; rua=mailto:" + piece * MAX_RECORD)[:MAX_RECORD]
    start = time.perf_counter()
    assert parse(text) is not None
    assert time.perf_counter() - start < 0.25
