"""Builders of what BIMI is given: a zone, a signed message, results, and a source of evidence as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from authmilter.bimi.check import check
from authmilter.bimi.evidence import EvidenceSource, EvidenceStatus, Indicator, MarkEvidence
from authmilter.bimi.result import BimiResult
from authmilter.bimi.settings import BimiSettings
from authmilter.dkim.result import DkimResult, DkimStatus
from authmilter.dmarc.check import check as dmarc_check
from authmilter.dmarc.result import DmarcResult
from authmilter.dmarc.settings import DmarcSettings
from authmilter.dmarc.survey import survey
from authmilter.message import Message
from authmilter.names import Domain
from authmilter.ports import Lookup
from authmilter.spf.result import SpfIdentity, SpfResult, SpfStatus
from tests.support.builders import a_lookup

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LOGO = "https://brand.example/logo.svg"
CERTIFICATE = "https://brand.example/mark.pem"
RECORD = f"v=BIMI1; l={LOGO}; a={CERTIFICATE}"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps"><title>b</title></svg>'
INDICATOR = Indicator(location=LOGO, svg_sha256="0123456789abcdef" * 4, svg=SVG)
VERIFIED = MarkEvidence(
    status=EvidenceStatus.PASS,
    mark_type="Registered Mark",
    authority=CERTIFICATE,
    issuer="CN=Mark CA",
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    indicator=INDICATOR,
)
#: an Organizational Domain that enforces, and has a logo
ZONE: Mapping[str, object] = {
    "_dmarc.brand.example": {"TXT": ["v=DMARC1; p=reject"]},
    "default._bimi.brand.example": {"TXT": [RECORD]},
}


@dataclass
class Marks:
    """A source of evidence that has the same answer for every record, and notes what it is asked."""

    answer: MarkEvidence | None = VERIFIED
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)

    def peek(self, domain: Domain, selector: str, location: str, authority: str) -> MarkEvidence | None:
        self.asked.append((domain.ascii, selector, location, authority))
        return self.answer


def a_message(*fields: str, author: str = "news@brand.example") -> Message:
    """The header block of a message; further `fields` as `Name: value`."""
    lines = (f"From: Brand <{author}>", *fields)
    return Message.parse("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")[0]


def a_signature(domain: str = "brand.example", **changes: object) -> DkimResult:
    given: dict[str, object] = {
        "status": DkimStatus.PASS,
        "domain": Domain.parse(domain),
        "signed_headers": ("from", "subject", "bimi-selector"),
        **changes,
    }
    return DkimResult(**given)  # type: ignore[arg-type]  # fields by name, as the tests give them


def an_spf(domain: str = "brand.example", *, broad: bool = False) -> SpfResult:
    return SpfResult(
        status=SpfStatus.PASS, identity=SpfIdentity.MAILFROM, domain=Domain.parse(domain), broad=broad
    )


def evaluate(
    zone: Mapping[str, object] = ZONE,
    *,
    message: Message | None = None,
    dkim: tuple[DkimResult, ...] | None = None,
    spf: SpfResult | None = None,
    dmarc: DmarcResult | None = None,
    settings: BimiSettings | None = None,
    source: EvidenceSource | None = None,
    sourced: bool = True,
    now: datetime = NOW,
    lookup: Lookup | None = None,
) -> BimiResult:
    """Run DMARC and BIMI over a zone as data; `sourced` False: nothing is fetched."""
    message = a_message() if message is None else message
    dkim = (a_signature(),) if dkim is None else dkim
    lookup = a_lookup(zone) if lookup is None else lookup
    found = dmarc or dmarc_check(message.authors, spf, dkim, a_lookup(zone), DmarcSettings())
    return check(
        message,
        spf=spf,
        dkim=dkim,
        dmarc=found,
        published=lambda author: survey(author, lookup, DmarcSettings()),
        lookup=lookup,
        settings=settings or BimiSettings(),
        source=(source or Marks()) if sourced else None,
        now=now,
    )
