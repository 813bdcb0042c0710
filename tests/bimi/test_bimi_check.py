"""Which record speaks for a message (BIMI draft -12 §7.2, §7.3), and what its documents make of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.bimi.check import MAX_QUERIES
from authmilter.bimi.evidence import EvidenceStatus, MarkEvidence
from authmilter.bimi.result import BimiProblem, BimiResult, BimiStatus, SelectorSource
from authmilter.bimi.settings import BimiSettings
from tests.bimi.builders import (
    CERTIFICATE,
    LOGO,
    NOW,
    RECORD,
    VERIFIED,
    ZONE,
    Marks,
    a_message,
    a_signature,
    evaluate,
)
from tests.dmarc.builders import ColdLookup

A, O = "mail.brand.example", "brand.example"  # noqa: E741 - author and organization
REJECT: Mapping[str, object] = {"_dmarc.brand.example": {"TXT": ["v=DMARC1; p=reject"]}}
GOOD, OTHER = RECORD, "v=BIMI1; l=https://brand.example/o.svg; a=https://brand.example/o.pem"
DECLINE, BAD = "v=BIMI1; l=; a=;", "v=BIMI1; l=http://brand.example/l.svg"
LPS = RECORD + "; lps="
SERVFAIL = "servfail"


def bimi_zone(records: Mapping[str, object]) -> dict[str, object]:
    """A zone with BIMI records: `default.A` is `default._bimi.mail.brand.example`, `.O` the organization."""
    zone: dict[str, object] = dict(REJECT)
    for name, texts in records.items():
        selector, _, which = name.rpartition(".")
        full = f"{selector}._bimi.{A if which == 'A' else O}"
        if texts == SERVFAIL:
            zone[full] = "SERVFAIL"
        else:
            zone[full] = {"TXT": [texts] if isinstance(texts, str) else texts}
    return zone


def of(records: Mapping[str, object], author: str = f"no.reply+x@{A}", *fields: str) -> BimiResult:
    return evaluate(
        bimi_zone(records), message=a_message(*fields, author=author), dkim=(a_signature(),), source=Marks()
    )


#: records; status; problem; where and under which selector the record was; names asked
DISCOVERY: list[tuple[str, Mapping[str, object], str, str | None, str, tuple[str, ...]]] = [
    ("the author's own", {"default.A": GOOD, "default.O": OTHER}, "pass", None, "default.A", ("default.A",)),
    ("the organization's", {"default.O": GOOD}, "pass", None, "default.O", ("default.A", "default.O")),
    ("nobody's", {}, "none", "no_record", "", ("default.A", "default.O")),
    ("other text is no record", {"default.A": "v=spf1 -all", "default.O": GOOD}, "pass", None, "default.O", ("default.A", "default.O")),
    ("another version is no record", {"default.A": "v=BIMI2; l=", "default.O": GOOD}, "pass", None, "default.O", ("default.A", "default.O")),
    ("the author declines", {"default.A": DECLINE, "default.O": GOOD}, "declined", None, "default.A", ("default.A",)),
    ("the organization declines", {"default.O": DECLINE}, "declined", None, "default.O", ("default.A", "default.O")),
    ("several", {"default.A": [GOOD, OTHER], "default.O": GOOD}, "fail", "several_records", "default.A", ("default.A",)),
    ("one among other texts", {"default.A": [GOOD, "x"]}, "pass", None, "default.A", ("default.A",)),
    ("a bad one hides the other", {"default.A": BAD, "default.O": GOOD}, "fail", "location", "default.A", ("default.A",)),
    ("dns hides the author's", {"default.A": SERVFAIL, "default.O": GOOD}, "temperror", "dns", "default.A", ("default.A",)),
    ("dns hides the organization's", {"default.O": SERVFAIL}, "temperror", "dns", "default.O", ("default.A", "default.O")),
    # -- local parts (§4.5)
    ("lps", {"default.A": LPS, "no-reply.A": OTHER}, "pass", None, "no-reply.A", ("default.A", "no-reply.A")),
    ("lps without a record", {"default.A": LPS}, "pass", None, "default.A", ("default.A", "no-reply.A")),
    ("lps declines", {"default.A": LPS, "no-reply.A": DECLINE}, "declined", None, "no-reply.A", ("default.A", "no-reply.A")),
    ("lps of a declination", {"default.A": DECLINE + " lps=", "no-reply.A": OTHER}, "pass", None, "no-reply.A", ("default.A", "no-reply.A")),
    ("lps of a declination without a record", {"default.A": DECLINE + " lps="}, "declined", None, "default.A", ("default.A", "no-reply.A")),
    ("lps with a bad record", {"default.A": LPS, "no-reply.A": BAD}, "pass", None, "default.A", ("default.A", "no-reply.A")),
    ("lps with several records", {"default.A": LPS, "no-reply.A": [GOOD, OTHER]}, "pass", None, "default.A", ("default.A", "no-reply.A")),
    ("dns hides the local part's", {"default.A": LPS, "no-reply.A": SERVFAIL}, "temperror", "dns", "no-reply.A", ("default.A", "no-reply.A")),
    ("a beginning that fits", {"default.A": LPS + "news,no", "no-reply.A": OTHER}, "pass", None, "no-reply.A", ("default.A", "no-reply.A")),
    ("a beginning that does not", {"default.A": LPS + "news", "no-reply.A": OTHER}, "pass", None, "default.A", ("default.A",)),
    ("lps at the organization", {"default.O": LPS, "no-reply.O": OTHER}, "pass", None, "no-reply.O", ("default.A", "default.O", "no-reply.O")),
    ("lps at the organization only asks there", {"default.O": LPS, "no-reply.A": OTHER}, "pass", None, "default.O", ("default.A", "default.O", "no-reply.O")),
    ("a record of lps does not ask again", {"default.A": LPS, "no-reply.A": LPS}, "pass", None, "no-reply.A", ("default.A", "no-reply.A")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "status", "problem", "where", "asked"),
    [d[1:] for d in DISCOVERY],
    ids=[d[0] for d in DISCOVERY],
)
def test_discovery(
    records: Mapping[str, object], status: str, problem: str | None, where: str, asked: tuple[str, ...]
) -> None:
    result = of(records)
    assert (result.status, result.problem) == (status, problem), result.detail
    selector, _, which = where.rpartition(".")
    if where:
        assert result.domain is not None
        assert (result.selector, result.domain.ascii) == (selector, A if which == "A" else O)
    names = [q.name for q in result.queries]
    assert names == [f"{n.rpartition('.')[0]}._bimi.{A if n.endswith('.A') else O}" for n in asked]


def test_a_missing_custom_selector_falls_back_to_itself_at_the_organization() -> None:
    field = "BIMI-Selector: v=BIMI1; s=spring"
    result = of({"default.A": GOOD, "default.O": GOOD, "spring.O": OTHER}, f"x@{A}", field)
    assert (result.selector, str(result.domain)) == ("spring", O)
    # not to `default` (BIMI §7.2 step 6, appendix B.5)
    result = of({"default.A": GOOD, "default.O": GOOD}, f"x@{A}", field)
    assert (result.status, result.problem, result.selector) == (
        BimiStatus.NONE,
        BimiProblem.NO_RECORD,
        "spring",
    )


def test_a_local_part_that_is_the_selector_is_not_asked_again() -> None:
    assert [q.name for q in of({"default.A": LPS}, f"Default@{A}").queries] == [f"default._bimi.{A}"]


def test_where_the_author_is_the_organization_it_is_asked_once() -> None:
    result = of({}, f"x@{O}")
    assert [q.name for q in result.queries] == [f"default._bimi.{O}"]
    assert result.detail == "brand.example has no record"


def test_a_name_that_cannot_exist_is_not_asked() -> None:
    long = ".".join(["s" * 60] * 3) + ".sssssssss"
    result = of({}, f"x@{'a' * 60}.brand.example", f"BIMI-Selector: v=BIMI1; s={long}")
    assert result.queries[0].answer == "not asked: the name is too long"
    assert result.status is BimiStatus.NONE


_RECORDS = st.sampled_from(
    [None, GOOD, OTHER, DECLINE, BAD, LPS, LPS + "no", DECLINE + "lps=", SERVFAIL, "x", (GOOD, LPS)]
)


@given(st.tuples(_RECORDS, _RECORDS, _RECORDS, _RECORDS))
@settings(max_examples=300, deadline=None)
def test_whatever_is_published_at_most_four_questions_are_asked(choice: tuple[object, ...]) -> None:
    names = ("default.A", "default.O", "no-reply.A", "no-reply.O")
    records = {
        n: list(c) if isinstance(c, tuple) else c for n, c in zip(names, choice, strict=True) if c is not None
    }
    result = of(records)
    assert len(result.queries) <= MAX_QUERIES
    assert len({q.name for q in result.queries}) == len(result.queries)
    assert (result.status is BimiStatus.PASS) <= (result.record is not None and not result.record.declines)


def test_from_a_cold_cache_the_records_take_a_round_each() -> None:
    zone = bimi_zone({"default.O": LPS, "no-reply.O": OTHER})
    cold = ColdLookup(zone)
    result = cold.run(lambda lookup: evaluate(zone, message=a_message(author=f"no.reply@{A}"), lookup=lookup))
    assert result.status is BimiStatus.PASS
    assert sum("_bimi" in name for name in cold.sent) == 3
    assert cold.rounds <= 5


# -- the documents (§7.3 to §7.6)

_NO_CERTIFICATE = {**ZONE, "default._bimi.brand.example": {"TXT": [f"v=BIMI1; l={LOGO}"]}}
_ANY = BimiSettings(require_evidence=False)
_IMAGE_ONLY = MarkEvidence(status=EvidenceStatus.NONE, indicator=VERIFIED.indicator)


def _with(
    answer: MarkEvidence | None, zone: Mapping[str, object] = ZONE, chosen: BimiSettings | None = None
) -> BimiResult:
    return evaluate(zone, source=Marks(answer), settings=chosen)


def test_a_verified_certificate_is_a_pass() -> None:
    marks = Marks()
    result = evaluate(source=marks)
    assert (result.status, result.problem, result.evidence) == (BimiStatus.PASS, None, VERIFIED)
    assert (result.selector_source, str(result.domain)) == (SelectorSource.DEFAULT, O)
    assert marks.asked == [(O, "default", LOGO, CERTIFICATE)]


DOCUMENTS: list[tuple[str, MarkEvidence | None, str, str | None]] = [
    ("nothing here yet", None, "skipped", "evidence_pending"),
    ("a certificate that does not hold", replace(VERIFIED, status=EvidenceStatus.FAIL, problem="expired"), "fail", "evidence"),
    ("a server that does not answer", MarkEvidence(status=EvidenceStatus.TEMPERROR, problem="timeout"), "temperror", "evidence_unavailable"),
    ("a source that did not look", replace(VERIFIED, status=EvidenceStatus.NONE), "fail", "evidence"),
    ("expired since", replace(VERIFIED, not_after=datetime(2026, 11, 22, 11, 59, tzinfo=UTC)), "fail", "expired"),
    ("valid to the second", replace(VERIFIED, not_after=NOW), "pass", None),
    ("no image", replace(VERIFIED, indicator=None), "fail", "no_indicator"),
    ("a mark of another type", replace(VERIFIED, mark_type="Made-up Mark"), "skipped", "mark_type"),
    ("a mark of no type", replace(VERIFIED, mark_type=""), "skipped", "mark_type"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "status", "problem"), [d[1:] for d in DOCUMENTS], ids=[d[0] for d in DOCUMENTS]
)
def test_what_the_documents_make_of_it(answer: MarkEvidence | None, status: str, problem: str | None) -> None:
    for chosen in (BimiSettings(), _ANY):
        result = _with(answer, chosen=chosen)
        assert (result.status, result.problem) == (status, problem)
        assert bool(result.detail) is (status != "pass")


def test_without_a_source_nothing_passes() -> None:
    result = evaluate(sourced=False)
    assert (result.status, result.problem) == (BimiStatus.SKIPPED, BimiProblem.NOT_FETCHED)
    assert result.record is not None


def test_a_logo_without_a_certificate_is_for_those_who_choose_it() -> None:
    marks = Marks(_IMAGE_ONLY)
    strict = evaluate(_NO_CERTIFICATE, source=marks)
    assert (strict.status, strict.problem) == (BimiStatus.SKIPPED, BimiProblem.NO_CERTIFICATE)
    assert marks.asked == []  # and nothing is fetched for it
    assert _with(_IMAGE_ONLY, _NO_CERTIFICATE, _ANY).status is BimiStatus.PASS
    assert _with(None, _NO_CERTIFICATE, _ANY).problem is BimiProblem.PENDING


def test_mark_types_can_be_narrowed() -> None:
    vmc = BimiSettings(mark_types=frozenset({"Registered Mark", "Government Mark"}))
    assert _with(VERIFIED, chosen=vmc).status is BimiStatus.PASS
    assert _with(replace(VERIFIED, mark_type="Prior Use Mark"), chosen=vmc).problem is BimiProblem.MARK_TYPE


def test_a_declination_fetches_nothing() -> None:
    marks = Marks()
    evaluate({**ZONE, "default._bimi.brand.example": {"TXT": [DECLINE]}}, source=marks)
    assert marks.asked == []


def test_every_problem_belongs_to_one_status() -> None:
    seen: dict[BimiProblem, set[BimiStatus]] = {}
    for (_, records, *_), answer in itertools.product(DISCOVERY, [None, VERIFIED]):
        result = evaluate(bimi_zone(records), message=a_message(author=f"no.reply@{A}"), source=Marks(answer))
        if result.problem is not None:
            seen.setdefault(result.problem, set()).add(result.status)
    assert len(seen) >= 5
    assert all(len(statuses) == 1 for statuses in seen.values())
