"""What is written of BIMI: the clause in Authentication-Results, and the fields a mail reader shows a logo by."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.bimi.evidence import EvidenceStatus, Indicator, MarkEvidence
from authmilter.bimi.record import parse
from authmilter.bimi.result import BimiProblem, BimiRecord, BimiResult, BimiStatus, Preference
from authmilter.evidence import Evidence
from authmilter.headers import bimi
from authmilter.headers.edits import plan
from authmilter.headers.foreign import ForeignResults, read
from authmilter.headers.results import authentication_results
from authmilter.headers.settings import HeaderSettings
from authmilter.mail import Origin
from authmilter.names import Domain
from authmilter.verdict import Decision, DeleteHeader, Disposition, InsertHeader
from tests.bimi.builders import CERTIFICATE, INDICATOR, LOGO, SVG, VERIFIED
from tests.headers.helpers import a_mail

QUIET = HeaderSettings(authserv_id="mx.example.com", comments=False)
SPOKEN = HeaderSettings(authserv_id="mx.example.com")
PASS = BimiResult(
    status=BimiStatus.PASS,
    domain=Domain.parse("brand.example"),
    selector="default",
    record=BimiRecord(location=LOGO, authority=CERTIFICATE),
    evidence=VERIFIED,
)


def clause(result: BimiResult, chosen: HeaderSettings = QUIET) -> str:
    value = authentication_results("mx.example.com", Evidence(bimi=result), a_mail(), chosen).decode()
    return " ".join(value.split()).removeprefix("mx.example.com; ")


HASH = INDICATOR.svg_sha256[-32:]
CLAUSES = [
    (
        PASS,
        ("bimi=pass header.d=brand.example header.selector=default policy.authority=pass"
        f' policy.authority-uri="{CERTIFICATE}" policy.indicator-uri="{LOGO}" policy.indicator-hash={HASH}'
        " policy.logo-preference=brand"),
    ),
    (
        replace(PASS, record=BimiRecord(location=LOGO, authority=CERTIFICATE, preference=None)),
        ("bimi=pass header.d=brand.example header.selector=default policy.authority=pass"
        f' policy.authority-uri="{CERTIFICATE}" policy.indicator-uri="{LOGO}" policy.indicator-hash={HASH}'),
    ),
    (
        replace(PASS, record=BimiRecord(location=LOGO), evidence=MarkEvidence(status=EvidenceStatus.NONE, indicator=INDICATOR)),
        ("bimi=pass header.d=brand.example header.selector=default policy.authority=none"
        f' policy.indicator-uri="{LOGO}" policy.indicator-hash={HASH} policy.logo-preference=brand'),
    ),
    (
        replace(PASS, evidence=replace(VERIFIED, indicator=replace(INDICATOR, location=""))),
        ("bimi=pass header.d=brand.example header.selector=default policy.authority=pass"
        f' policy.authority-uri="{CERTIFICATE}" policy.indicator-hash={HASH} policy.logo-preference=brand'),
    ),
    (BimiResult(status=BimiStatus.NONE, problem=BimiProblem.NO_RECORD, selector="default"), "bimi=none reason=no_record"),
    (BimiResult(status=BimiStatus.SKIPPED, problem=BimiProblem.DMARC_NOT_PASS), "bimi=skipped reason=dmarc_not_pass"),
    (
        replace(PASS, status=BimiStatus.DECLINED, record=BimiRecord(), evidence=None),
        "bimi=declined header.d=brand.example header.selector=default",
    ),
    (
        replace(PASS, status=BimiStatus.SKIPPED, problem=BimiProblem.PENDING, evidence=None),
        "bimi=skipped reason=evidence_pending header.d=brand.example header.selector=default policy.authority=none",
    ),
    (
        replace(PASS, status=BimiStatus.FAIL, problem=BimiProblem.EVIDENCE, evidence=replace(VERIFIED, status=EvidenceStatus.FAIL)),
        ("bimi=fail reason=evidence header.d=brand.example header.selector=default policy.authority=fail"
        f' policy.authority-uri="{CERTIFICATE}"'),
    ),
    (
        replace(PASS, status=BimiStatus.TEMPERROR, problem=BimiProblem.UNAVAILABLE, evidence=MarkEvidence(status=EvidenceStatus.TEMPERROR)),
        "bimi=temperror reason=evidence_unavailable header.d=brand.example header.selector=default policy.authority=none",
    ),
    (
        BimiResult(status=BimiStatus.FAIL, problem=BimiProblem.SYNTAX, domain=Domain.parse("brand.example"), selector="default"),
        "bimi=fail reason=syntax",
    ),
    (BimiResult(status=BimiStatus.INTERNAL_ERROR, problem=BimiProblem.INTERNAL), "none"),
]  # fmt: skip


@pytest.mark.parametrize(("result", "wanted"), CLAUSES)
def test_the_clause(result: BimiResult, wanted: str) -> None:
    assert clause(result) == wanted


def test_the_mark_type_is_a_comment() -> None:
    assert "bimi=pass (Registered Mark) header.d=" in clause(PASS, SPOKEN)
    odd = replace(PASS, evidence=replace(VERIFIED, mark_type='x) dmarc=pass "\\('))
    assert r'bimi=pass (x\) dmarc=pass "\\\() header.d=' in clause(odd, SPOKEN)
    hidden = replace(PASS, evidence=replace(VERIFIED, mark_type="x\r\nX: y"))
    assert "X: y" not in clause(hidden, SPOKEN)


def test_the_hash_is_only_shown_beside_the_image() -> None:
    assert "policy.indicator-hash" not in clause(PASS, replace(QUIET, bimi_indicator=False))
    large = replace(VERIFIED, indicator=replace(INDICATOR, svg=b"x" * 50_000))
    assert "policy.indicator-hash" not in clause(replace(PASS, evidence=large))


def inserted(result: BimiResult, chosen: HeaderSettings = QUIET) -> dict[bytes, bytes]:
    decision = Decision(disposition=Disposition.ACCEPT, rule="r", because="b")
    edits = plan(a_mail(), Evidence(bimi=result), decision, chosen).edits
    return {e.name: e.value for e in edits if isinstance(e, InsertHeader)}


def test_a_pass_writes_three_fields() -> None:
    found = inserted(PASS)
    assert list(found) == [
        b"BIMI-Logo-Preference",
        b"BIMI-Indicator",
        b"BIMI-Location",
        b"Authentication-Results",
    ]
    assert found[b"BIMI-Location"] == f"v=BIMI1;\r\n l={LOGO};\r\n a={CERTIFICATE}".encode()
    assert found[b"BIMI-Logo-Preference"] == b"avp=brand;"
    assert base64.b64decode(found[b"BIMI-Indicator"]) == SVG
    lines = (b"BIMI-Indicator: " + found[b"BIMI-Indicator"]).split(b"\r\n")
    assert max(map(len, lines)) <= 78
    assert all(line.startswith(b" ") for line in lines[1:])


@pytest.mark.parametrize("result", [c[0] for c in CLAUSES if c[0].status is not BimiStatus.PASS])
def test_anything_else_writes_none(result: BimiResult) -> None:
    assert set(inserted(result)) == {b"Authentication-Results"}


def test_the_location_names_what_was_verified_only() -> None:
    elsewhere = replace(PASS, evidence=replace(VERIFIED, indicator=replace(INDICATOR, location="")))
    assert bimi.location(elsewhere) == f"v=BIMI1;\r\n a={CERTIFICATE}".encode()
    image = MarkEvidence(status=EvidenceStatus.NONE, indicator=INDICATOR)
    alone = replace(PASS, record=BimiRecord(location=LOGO), evidence=image)
    assert bimi.location(alone) == f"v=BIMI1;\r\n l={LOGO}".encode()
    assert bimi.location(replace(alone, evidence=replace(image, indicator=None))) is None


def test_preference_is_what_the_record_says_if_it_is_valid() -> None:
    for value, wanted in (
        (Preference.PERSONAL, b"avp=personal;"),
        (Preference.BRAND, b"avp=brand;"),
        (None, None),
    ):
        record = BimiRecord(location=LOGO, authority=CERTIFICATE, preference=value)
        assert bimi.preference(replace(PASS, record=record)) == wanted


@pytest.mark.parametrize("size", [1, 44, 45, 46, 101, 102, 103, 32 << 10, 43_000])
def test_an_image_of_any_usual_size_is_written_whole(size: int) -> None:
    svg = bytes(i % 251 for i in range(size))
    value = bimi.indicator(
        replace(PASS, evidence=replace(VERIFIED, indicator=replace(INDICATOR, svg=svg))), QUIET
    )
    assert value is not None
    assert base64.b64decode(value) == svg
    assert len(value) <= bimi.MAX_INDICATOR


@pytest.mark.parametrize("svg", [b"", b"x" * 45_000, b"x" * 1_000_000])
def test_an_image_that_no_mta_would_take_is_not_written(svg: bytes) -> None:
    large = replace(
        PASS, evidence=replace(VERIFIED, indicator=Indicator(location=LOGO, svg_sha256="", svg=svg))
    )
    assert bimi.indicator(large, QUIET) is None
    assert b"BIMI-Indicator" not in inserted(large)


def test_the_image_can_be_left_out() -> None:
    found = inserted(PASS, replace(QUIET, bimi_indicator=False))
    assert set(found) == {b"Authentication-Results", b"BIMI-Location", b"BIMI-Logo-Preference"}


def test_a_refused_mail_gets_none() -> None:
    decision = Decision(disposition=Disposition.REJECT, rule="r", because="b")
    found = plan(a_mail(), Evidence(bimi=PASS), decision, QUIET)
    assert found.edits == ()
    assert "bimi=pass" in found.authentication_results


# -- what others wrote (§5.6, §7.8)

FORGED = (
    (b"BIMI-Location", b" v=BIMI1; l=https://evil.example/l.svg"),
    (b"bimi-indicator ", b" PHN2Zz4="),
    (b"BIMI-LOGO-PREFERENCE", b" avp=brand"),
    (b"BIMI-Location\xc2\xa0", b" v=BIMI1; l=https://evil.example/l.svg"),
    (b"BIMI-Selector", b" v=BIMI1; s=x"),
)


@pytest.mark.parametrize(
    "origin", [Origin.INTERNET, Origin.TRUSTED_RELAY, Origin.SUBMISSION, Origin.INTERNAL]
)
@pytest.mark.parametrize("evidence", [Evidence(), Evidence(bimi=PASS)], ids=["off", "on"])
def test_the_fields_of_others_are_removed_whether_or_not_logos_are_looked_for(
    origin: Origin, evidence: Evidence
) -> None:
    mail = a_mail(*FORGED, origin=origin)
    decision = Decision(disposition=Disposition.ACCEPT, rule="r", because="b")
    gone = {e.name for e in plan(mail, evidence, decision, QUIET).edits if isinstance(e, DeleteHeader)}
    assert {name.strip() for name in gone} == {f[0].strip() for f in FORGED[:4]}


def test_a_trusted_hop_keeps_ours() -> None:
    mail = a_mail(*FORGED, origin=Origin.TRUSTED_HOP)
    decision = Decision(disposition=Disposition.ACCEPT, rule="r", because="b")
    assert plan(mail, Evidence(), decision, QUIET).edits == ()


# -- whatever a record holds, the field stays one field


@given(
    st.text(alphabet=st.sampled_from("abz.:/?#[]@!$&'()*+,;=%41\"\\<> \t\r\n\u00e9-"), max_size=60),
    st.sampled_from(["a.b-c", "default", "x" * 63]),
)
@settings(max_examples=300, deadline=None)
def test_no_record_breaks_the_field(rest: str, selector: str) -> None:
    uri = "https://brand.example/" + rest
    record = parse(f"v=BIMI1; l={uri}; a={uri}".encode())
    if not isinstance(record, BimiRecord) or not record.location:
        return
    indicator = replace(INDICATOR, location=record.location)
    result = replace(PASS, record=record, selector=selector, evidence=replace(VERIFIED, indicator=indicator))
    evidence = Evidence(bimi=result)
    value = authentication_results("mx.example.com", evidence, a_mail(), QUIET)
    found = read(value)
    assert isinstance(found, ForeignResults)
    assert len(found.results) == 1
    assert value.count(b"bimi=") == 1 + value.count(b'bimi="')
    location = bimi.location(result)
    assert location is not None
    assert not re.search(rb"\r\n(?![ \t])|\r(?!\n)|(?<!\r)\n|\0", value + b"\r\n " + location)
    assert max(map(len, (value + b"\r\n" + location).split(b"\r\n"))) < 998
