"""A domain's logo, looked at rule by rule: policy, record, certificate and image, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from authmilter.bimi.evidence import EvidenceStatus
from authmilter.bimi.fetch import Fetcher
from authmilter.bimi.inspect import DomainReport, inspect_domain, is_selector
from authmilter.bimi.result import BimiStatus
from authmilter.bimi.settings import EvidenceSettings
from authmilter.bimi.vmc import read_roots
from authmilter.dmarc.settings import DmarcSettings
from authmilter.dns.zone import ZoneResolver
from authmilter.names import Domain
from tests.support.marks import NOW, SVG, Mark, a_bundle, pem, root
from tests.support.webserver import answer, serving

ZONE: dict[str, object] = {
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
    "default._bimi.example.com": {"TXT": ["v=BIMI1; l=LOGO; a=MARK"]},
    "brand._bimi.example.com": {"TXT": ["v=BIMI1; l=LOGO; a=MARK"]},
    "plain._bimi.example.com": {"TXT": ["v=BIMI1; l=LOGO"]},
    "no._bimi.example.com": {"TXT": ["v=BIMI1; l=; a="]},
    "bad._bimi.example.com": {"TXT": ["v=BIMI1; l=http://example.com/logo.svg"]},
    "late._bimi.example.com": {"TXT": "SERVFAIL"},
    "sub.example.com": {"A": ["192.0.2.1"]},
    "_dmarc.lax.example": {"TXT": ["v=DMARC1; p=none"]},
    "default._bimi.lax.example": {"TXT": ["v=BIMI1; l=LOGO; a=MARK"]},
    "_dmarc.dark.example": {"TXT": "TIMEOUT"},
    "dark.example": {"A": ["192.0.2.1"]},
    "logo.example": {"A": ["127.0.0.1"]},
}
PAGES = {"/mark.pem": answer(a_bundle()), "/logo.svg": answer(SVG)}


def inspected(
    folder: Path, domain: str, *, selector: str = "default", pages: Mapping[str, bytes] = PAGES
) -> DomainReport:
    async def run() -> DomainReport:
        async with serving(folder, pages) as server:
            logo, mark = server.url("/logo.svg"), server.url("/mark.pem")

            def placed(value: object) -> object:
                if not isinstance(value, list):
                    return value
                return [str(text).replace("LOGO", logo).replace("MARK", mark) for text in value]

            zone = {
                name: {k: placed(v) for k, v in node.items()}
                for name, node in ZONE.items()
                if isinstance(node, dict)
            }
            resolver = ZoneResolver(zone)
            return await inspect_domain(
                Domain.parse(domain),
                resolver=resolver,
                fetcher=Fetcher(resolver, server.settings),
                roots=read_roots(pem(root().certificate)),
                evidence=EvidenceSettings(crl=False),
                dmarc=DmarcSettings(),
                now=NOW,
                selector=selector,
            )

    return asyncio.run(run())


def problems(report: DomainReport) -> set[str]:
    return {f.problem for f in report.findings if not f.passed}


@pytest.mark.parametrize("selector", ["default", "brand"])
def test_everything_about_a_good_domain_is_told(tmp_path: Path, selector: str) -> None:
    report = inspected(tmp_path, "example.com", selector=selector)
    assert all(f.passed for f in report.findings)
    assert {f.rule for f in report.findings} >= {
        "dmarc_policy", "bimi_record", "bimi_authority", "fetch_authority", "mark_chain", "mark_san", "fetch_location",
        "svg_title", "indicator_match",
    }  # fmt: skip
    assert report.evidence is not None
    assert report.evidence.status is EvidenceStatus.PASS
    assert report.svg == SVG
    assert not report.temporary


def test_a_subdomain_has_the_record_of_its_organization(tmp_path: Path) -> None:
    report = inspected(tmp_path, "sub.example.com")
    assert problems(report) == set()
    assert report.result is not None
    assert report.result.domain == Domain.parse("example.com")


def test_a_domain_without_enforcement_is_told_and_looked_at_further(tmp_path: Path) -> None:
    report = inspected(tmp_path, "lax.example")
    assert problems(report) == {"policy_not_enforcing", "mark_san"}
    assert "svg_title" in {f.rule for f in report.findings}


@pytest.mark.parametrize(
    ("selector", "expected", "status"),
    [
        ("plain", {"no_certificate"}, BimiStatus.SKIPPED),
        ("no", set(), BimiStatus.DECLINED),
        ("bad", {"location"}, BimiStatus.FAIL),
        ("missing", {"no_record"}, BimiStatus.NONE),
        ("late", {"dns"}, BimiStatus.TEMPERROR),
    ],
)
def test_each_state_of_a_record_is_told(
    tmp_path: Path, selector: str, expected: set[str], status: BimiStatus
) -> None:
    report = inspected(tmp_path, "example.com", selector=selector)
    assert problems(report) == expected
    assert report.result is not None
    assert report.result.status is status
    assert report.temporary is (status is BimiStatus.TEMPERROR)


def test_a_policy_that_cannot_be_asked_may_be_had_later(tmp_path: Path) -> None:
    report = inspected(tmp_path, "dark.example")
    assert problems(report) == {"dns"}
    assert report.temporary


def test_the_image_is_looked_at_where_the_certificate_fails(tmp_path: Path) -> None:
    pages = {
        "/mark.pem": answer(a_bundle(Mark(mark_types=()))),
        "/logo.svg": answer(SVG.replace(b"1.2", b"1.1")),
    }
    report = inspected(tmp_path, "example.com", pages=pages)
    assert problems(report) == {"mark_type_missing", "svg_version", "indicator_mismatch"}
    assert report.evidence is not None
    assert report.evidence.problem == "mark_type_missing"


@pytest.mark.parametrize(
    ("text", "holds"),
    [("default", True), ("a.b", True), ("", False), ("a b", False), ("\u00e4", False), ("a;", False)],
)
def test_a_selector_is_one_or_not(text: str, *, holds: bool) -> None:
    assert is_selector(text) is holds
