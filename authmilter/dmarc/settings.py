"""What an administrator may choose about DMARC: a value, nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from authmilter.dmarc.result import DiscoveryMethod

__all__ = ["DmarcSettings", "KeysInTesting"]


class KeysInTesting(StrEnum):
    """What a pass made with a DKIM key in testing mode (t=y, RFC 6376 §3.6.1) is worth."""

    #: it counts as any other pass (what most receivers do)
    CREDIT = "credit"
    #: it does not count (the strict reading: no different from an unsigned message)
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcSettings:
    """How DMARC is evaluated.

    `discovery` is how records and Organizational Domains are found, `testing_keys` what a pass with a testing
    key is worth, `credit_broad_spf` whether an SPF pass by `+all` or a huge network counts, `max_authors`
    (1 or more) how many of several Author Domains are evaluated (RFC 9989 §11.5), `max_identifiers` (1 or more)
    how many different authenticated identifiers are looked at.
    """

    discovery: DiscoveryMethod = DiscoveryMethod.TREEWALK
    testing_keys: KeysInTesting = KeysInTesting.CREDIT
    credit_broad_spf: bool = True
    max_authors: int = 4
    max_identifiers: int = 20
