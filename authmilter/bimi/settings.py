"""What an administrator may choose about BIMI: values, nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MARK_TYPES", "BimiSettings", "EvidenceSettings"]

#: The mark types of VMC (the first two) and CMC, as the certificate's subject writes them.
MARK_TYPES = ("Registered Mark", "Government Mark", "Prior Use Mark", "Modified Registered Mark")


@dataclass(frozen=True, slots=True, kw_only=True)
class BimiSettings:
    """Which messages have a logo, and what is asked of it.

    `require_evidence`: only a logo that a mark certificate vouches for. `require_dkim`: a DMARC pass by SPF alone is
    not enough, there must be an aligned DKIM signature over the whole body. `selectors`: BIMI-Selector and `lps=` are
    followed, else only the record named `default` counts. `mark_types`: those of a certificate that are accepted.
    """

    require_evidence: bool = True
    require_dkim: bool = True
    selectors: bool = True
    mark_types: frozenset[str] = frozenset(MARK_TYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSettings:
    """How the documents of records are fetched, checked and kept.

    `trust_roots` are absolute paths of PEM files with the roots of mark certificates, `cache_folder` an absolute path
    or empty (kept in memory only), `cache_ttl` and `fetch_timeout` seconds; `max_svg` bounds an image and
    `max_certificate` a certificate file, in octets as fetched; `crl`: ask the certificate's revocation list.
    """

    trust_roots: tuple[str, ...] = ()
    cache_folder: str = ""
    cache_ttl: float = 86400.0
    fetch_timeout: float = 10.0
    max_svg: int = 32 << 10
    max_certificate: int = 128 << 10
    crl: bool = True
