"""BIMI Assertion Records and BIMI-Selector fields: what is read, what is refused, what any octets give."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.bimi.record import (
    MAX_RECORD,
    MAX_TAGS,
    MAX_URI,
    Fault,
    local_part_selector,
    parse,
    read_selector,
    select,
)
from authmilter.bimi.result import BimiProblem, BimiRecord, Preference

LOGO = "https://a.example/l.svg"

RECORDS: list[tuple[str, BimiRecord | BimiProblem | None]] = [
    # -- the version comes first and is exact (§4.3)
    (f"v=BIMI1; l={LOGO}", BimiRecord(location=LOGO)),
    (f"v = BIMI1 ;l={LOGO};", BimiRecord(location=LOGO)),
    (f"v=bimi1; l={LOGO}", None),
    (f"V=BIMI1; l={LOGO}", None),
    (f"v=BIMI2; l={LOGO}", None),
    (f"v=BIMI10; l={LOGO}", None),
    (f"v=BIMI1 l={LOGO}", None),
    (f" v=BIMI1; l={LOGO}", None),
    (f"l={LOGO}; v=BIMI1", None),
    ("", None),
    ("v=spf1 -all", None),
    # -- the location is required, the authority is not
    ("v=BIMI1", BimiProblem.NO_LOCATION),
    ("v=BIMI1;", BimiProblem.NO_LOCATION),
    ("v=BIMI1; a=https://a.example/c.pem", BimiProblem.NO_LOCATION),
    ("v=BIMI1; L=https://a.example/l.svg", BimiProblem.NO_LOCATION),
    ("v=BIMI1; l=; a=https://a.example/c.pem", BimiProblem.NO_LOCATION),
    (
        f"v=BIMI1; a=https://a.example/c.pem;l={LOGO}",
        BimiRecord(location=LOGO, authority="https://a.example/c.pem"),
    ),
    (f"v=BIMI1; l={LOGO}; a=", BimiRecord(location=LOGO)),
    # -- both empty: declination (§4.3.1)
    ("v=BIMI1; l=; a=;", BimiRecord()),
    ("v=BIMI1; l=", BimiRecord()),
    ("v=BIMI1; l=; a=; lps=", BimiRecord(local_parts=())),
    # -- unknown tags are ignored, known ones are read in any order
    (f"v=BIMI1; x=1; l={LOGO}; selector=y", BimiRecord(location=LOGO)),
    (f"v=BIMI1; avp=personal; l={LOGO}", BimiRecord(location=LOGO, preference=Preference.PERSONAL)),
    (f"v=BIMI1; l={LOGO}; avp=brand", BimiRecord(location=LOGO)),
    (f"v=BIMI1; l={LOGO}; avp=Personal", BimiRecord(location=LOGO, preference=None)),
    (f"v=BIMI1; l={LOGO}; avp=", BimiRecord(location=LOGO, preference=None)),
    (f"v=BIMI1; l={LOGO}; lps=", BimiRecord(location=LOGO, local_parts=())),
    (f"v=BIMI1; l={LOGO}; lps=no-reply , Sales", BimiRecord(location=LOGO, local_parts=("no-reply", "sales"))),
    (f"v=BIMI1; l={LOGO}; lps=a.b,c", BimiRecord(location=LOGO, local_parts=("c",))),
    (f"v=BIMI1; l={LOGO}; lps=a_b", BimiRecord(location=LOGO, local_parts=None)),
    # -- no list of tags
    (f"v=BIMI1;; l={LOGO}", BimiProblem.SYNTAX),
    (f"v=BIMI1; l={LOGO};;", BimiProblem.SYNTAX),
    (f"v=BIMI1; l={LOGO}; nonsense", BimiProblem.SYNTAX),
    (f"v=BIMI1; l={LOGO}; 1=x", BimiProblem.SYNTAX),
    (f"v=BIMI1; l={LOGO}; l={LOGO}", BimiProblem.SYNTAX),
    (f"v=BIMI1; v=BIMI1; l={LOGO}", BimiProblem.SYNTAX),
    (f"v=BIMI1; l={LOGO}; n=\u00e9", BimiProblem.SYNTAX),
    (f"v=BIMI1; l={LOGO}; n=\0", BimiProblem.SYNTAX),
    (f"v=BIMI1; l={LOGO}\r\nX: y", BimiProblem.SYNTAX),
    # -- beyond a limit
    (f"v=BIMI1; l={LOGO}; n=" + "x" * MAX_RECORD, BimiProblem.TOO_LONG),
    (f"v=BIMI1; l={LOGO};" + "".join(f"n{i}=;" for i in range(MAX_TAGS)), BimiProblem.TOO_LONG),
    # -- an image that is no SVG (§4.3.2)
    ("v=BIMI1; l=https://a.example/l.png", BimiProblem.LOCATION_FORMAT),
    ("v=BIMI1; l=https://a.example/l.JPEG", BimiProblem.LOCATION_FORMAT),
    ("v=BIMI1; l=https://a.example/l.svg.gif?x=.svg", BimiProblem.LOCATION_FORMAT),
    ("v=BIMI1; l=https://a.example/l.svgz", BimiRecord(location="https://a.example/l.svgz")),
    ("v=BIMI1; l=https://a.example/logo", BimiRecord(location="https://a.example/logo")),
    ("v=BIMI1; l=https://a.example/l?f=x.png", BimiRecord(location="https://a.example/l?f=x.png")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), RECORDS, ids=[r[0][:50] for r in RECORDS])
def test_a_record_is_read_as_the_draft_has_it(text: str, wanted: BimiRecord | BimiProblem | None) -> None:
    found = parse(text.encode())
    assert (found.problem if isinstance(found, Fault) else found) == wanted


GOOD_URIS = (
    "https://brand.example",
    "https://brand.example/",
    "HTTPS://Brand.Example/A.svg",
    "https://brand.example:443/l.svg",
    "https://brand.example:8443/l.svg",
    "https://cdn.brand.example/a/b%20c/d.svg?v=1&x=(2)#top",
    "https://xn--bcher-kva.example/l.svg",
)
BAD_URIS = (
    "http://brand.example/l.svg",
    "ftp://brand.example/l.svg",
    "file:///etc/passwd",
    "data:image/svg+xml;base64,AAAA",
    "//brand.example/l.svg",
    "brand.example/l.svg",
    "https:/brand.example/l.svg",
    "https:///l.svg",
    "https://user@brand.example/l.svg",
    "https://user:secret@brand.example/l.svg",
    "https://brand.example@evil.example/l.svg",
    "https://brand/l.svg",
    "https://localhost/l.svg",
    "https://127.0.0.1/l.svg",
    "https://127.1/l.svg",
    "https://2130706433/l.svg",
    "https://0x7f.0.0.0x1/l.svg",
    "https://0177.0.0.01/l.svg",
    "https://[::1]/l.svg",
    "https://[::ffff:127.0.0.1]/l.svg",
    "https://brand.example./l.svg",
    "https://brand..example/l.svg",
    "https://.brand.example/l.svg",
    "https://-brand.example/l.svg",
    "https://brand.example:/l.svg",
    "https://brand.example:0/l.svg",
    "https://brand.example:65536/l.svg",
    "https://brand.example:99999999/l.svg",
    "https://brand.example:https/l.svg",
    "https://b\u00fccher.example/l.svg",
    "https://brand.example/l\u00f6go.svg",
    "https://brand.example/a b.svg",
    "https://brand.example/a,b.svg",
    'https://brand.example/".svg',
    "https://brand.example/<.svg",
    "https://brand.example/\\.svg",
    "https://brand.example/%zz.svg",
    "https://brand.example/%2",
    "https://brand.example\\@evil.example/l.svg",
    "https://brand.example/l.svg\t; x",
    "https://brand.example/" + "x" * MAX_URI,
)


@pytest.mark.parametrize("uri", GOOD_URIS)
def test_an_https_uri_with_a_host_name_is_kept_as_it_is(uri: str) -> None:
    assert parse(f"v=BIMI1; l={uri}; a={uri}".encode()) == BimiRecord(location=uri, authority=uri)


@pytest.mark.parametrize("uri", BAD_URIS)
def test_any_other_uri_is_refused(uri: str) -> None:
    for tag, others in (("l", ""), ("a", "l=https://a.example/l.svg;")):
        found = parse(f"v=BIMI1;{others}{tag}={uri}".encode())
        assert isinstance(found, Fault)
        wanted = BimiProblem.LOCATION if tag == "l" else BimiProblem.AUTHORITY
        assert found.problem in {wanted, BimiProblem.SYNTAX}
        assert uri not in found.detail


def test_of_the_records_at_a_name_there_may_be_one() -> None:
    good, other = f"v=BIMI1; l={LOGO}".encode(), b"google-site-verification=x"
    assert select([other, good, other]) == BimiRecord(location=LOGO)
    assert select([other]) is None
    assert select([]) is None
    several = select([good, good])
    assert isinstance(several, Fault)
    assert several.problem is BimiProblem.SEVERAL_RECORDS
    # what cannot be used is a record too
    assert select([good, b"v=BIMI1; l=x"]) == several


LOCAL_PARTS = [
    ("news", "news"),
    ("News", "news"),
    ("news+tag+more", "news"),
    ("no_reply", "no-reply"),
    ("a._.b", "a-b"),
    ("_.a.b_", "a-b"),
    ("a--b", "a--b"),
    ("-a-", "a"),
    ("", None),
    ("+tag", None),
    ("._", None),
    ("a'b", None),
    ("a b", None),
    ("b\u00fccher", None),
    ("\u212aelvin", None),
    ("x" * 63, "x" * 63),
    ("x" * 64, None),
]


@pytest.mark.parametrize(("local", "wanted"), LOCAL_PARTS)
def test_a_local_part_is_normalized_as_the_draft_has_it(local: str, wanted: str | None) -> None:
    assert local_part_selector(BimiRecord(local_parts=()), local) == wanted
    assert local_part_selector(BimiRecord(), local) is None


def test_a_list_of_local_parts_is_a_list_of_beginnings() -> None:
    record = BimiRecord(local_parts=("news", "no-reply"))
    assert local_part_selector(record, "News.Letter") == "news-letter"
    assert local_part_selector(record, "no_reply") == "no-reply"
    assert local_part_selector(record, "anews") is None


SELECTORS = [
    (b" v=BIMI1; s=brand;", "brand"),
    (b"v=BIMI1;s=Brand", "brand"),
    (b" v = BIMI1 ; s = a.b-c ; ", "a.b-c"),
    (b" v=BIMI1;\r\n\ts=brand", "brand"),
    (b" v=BIMI1; s=brand; x=y", None),
    (b" s=brand", None),
    (b" s=brand; v=BIMI1", None),
    (b" v=BIMI2; s=brand", None),
    (b" v=bimi1; s=brand", None),
    (b" v=BIMI1", None),
    (b" v=BIMI1; s=", None),
    (b" v=BIMI1; s=a..b", None),
    (b" v=BIMI1; s=.a", None),
    (b" v=BIMI1; s=-a", None),
    (b" v=BIMI1; s=a_b", None),
    (b" v=BIMI1; s=" + b"x" * 64, None),
    (b" v=BIMI1; s=a b", None),
    (b" v=BIMI1; s=a\0", None),
    (b" v=BIMI1; s=a\r\nX: y", None),
    (b" v=BIMI1; s=\xc3\xa9", None),
    (b" v=BIMI1; s=" + b"a." * 400 + b"a", None),
]


@pytest.mark.parametrize(("value", "wanted"), SELECTORS)
def test_a_selector_field_is_read_or_malformed(value: bytes, wanted: str | None) -> None:
    assert read_selector(value) == wanted


_PIECES = st.sampled_from(
    [b"v=BIMI1", b";", b"=", b" ", b"l", b"a", b"avp", b"lps", b"brand", b"https://", b"a.example", b"/", b"@", b":",
     b"%", b"%41", b",", b".svg", b".png", b"\xff", b"\0", b"[", b"?", b"#", b"personal", b"-"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=30).map(b"".join) | st.binary(max_size=100))
@settings(max_examples=400, deadline=None)
def test_any_octets_give_a_record_that_can_be_written_or_a_fault(octets: bytes) -> None:
    for text in (octets, b"v=BIMI1;" + octets, b"v=BIMI1; l=https://a.example/" + octets):
        found = parse(text)
        if isinstance(found, BimiRecord):
            for uri in (found.location, found.authority):
                assert uri.isascii()
                assert uri.isprintable()
                assert not set(uri) & set(' ",;<>\\^`{|}')
                assert not uri or uri.lower().startswith("https://")
                assert len(uri) <= MAX_URI


@given(st.binary(max_size=100) | st.lists(_PIECES, max_size=20).map(b"".join))
@settings(max_examples=200, deadline=None)
def test_any_octets_give_a_selector_that_is_a_name_or_none(octets: bytes) -> None:
    for value in (octets, b" v=BIMI1; s=" + octets):
        found = read_selector(value)
        assert found is None or (found == found.lower() and found.replace("-", "").replace(".", "").isalnum())


@pytest.mark.parametrize(
    "hostile",
    [
        b"v=BIMI1; l=https://" + b"a." * 2000,
        b"v=BIMI1; l=https://a.example" + b"/" * 4000,
        b"v=BIMI1; l=https://a.example/" + b"%41" * 1300 + b"%",
        b"v=BIMI1;" + b" " * 4000,
        b"v=BIMI1" + b" " * 4000 + b"x",
        b"v=BIMI1; lps=" + b"a," * 2000,
        b"v=BIMI1; l=https://a.example/?" + b"?/" * 2000 + b"\xff",
    ],
)
def test_a_hostile_record_costs_little(hostile: bytes) -> None:
    begun = time.perf_counter()
    parse(hostile)
    read_selector(hostile)
    assert time.perf_counter() - begun < 0.05
