"""What stands between the check and the documents a record names: mark certificates and images.

The check never fetches. It asks an `EvidenceSource` whether the documents of a record were fetched and verified
before; a source that has nothing begins to fetch in the background and says None, and the next message finds it.
Values only: nothing here reads or fetches.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from authmilter.names import Domain

__all__ = ["EvidenceSource", "EvidenceStatus", "Indicator", "MarkEvidence"]


class EvidenceStatus(StrEnum):
    """What is known of the documents a BIMI record names (draft -12, Indicator Discovery and Validation)."""

    #: the mark certificate (and the image it holds) was verified
    PASS = "pass"  # noqa: S105 - a result word
    #: it was fetched and does not hold, or what was fetched is no such document
    FAIL = "fail"
    #: it could not be fetched, for a reason that may pass
    TEMPERROR = "temperror"
    #: the record has no `a=`: there is no mark certificate, only the image of `l=`
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """An image that was checked against the SVG Tiny PS profile.

    `location` is the `l=` whose document is this image, octet for octet once uncompressed; empty where that document
    was not compared and the image is known from the mark certificate alone. `svg` is the document, uncompressed and
    bounded, `svg_sha256` its SHA-256 in lower-case hexadecimal.
    """

    location: str
    svg_sha256: str
    svg: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkEvidence:
    """What was found at the addresses of a record.

    `problem` is a short machine word (empty on a pass), `detail` our own words. `mark_type` is the mark type of the
    certificate (`Registered Mark`, ...), `authority` the URI of `a=`, `issuer` the certificate's issuer, `not_after`
    (UTC) the end of its validity; empty or None where there is no certificate. `indicator` is None unless an
    image was checked and may be shown.
    """

    status: EvidenceStatus
    problem: str = ""
    detail: str = ""
    mark_type: str = ""
    authority: str = ""
    issuer: str = ""
    not_after: datetime | None = None
    indicator: Indicator | None = None


class EvidenceSource(Protocol):
    """Where evidence comes from: a store that is filled in the background."""

    def peek(self, domain: Domain, selector: str, location: str, authority: str) -> MarkEvidence | None:
        """Return what is known of a record's documents, or None: not here yet, and a fetch has been begun.

        Args:
            domain: the domain the record was found at (the Author Domain or its Organizational Domain).
            selector: the selector it was found under (a mark certificate may name one).
            location: its `l=`, an https URI or empty.
            authority: its `a=`, an https URI or empty; not both are empty.

        Never waits and never raises.
        """
