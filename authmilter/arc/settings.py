"""What an administrator may choose about ARC: limits, and whose chains are believed. Values; nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass

from authmilter.errors import InvalidName
from authmilter.names import Domain

__all__ = ["ArcSettings", "TrustedSealers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedSealers:
    """The sealers whose ARC-Authentication-Results are believed: `exact` domains, and all names `below` others."""

    exact: frozenset[Domain] = frozenset()
    below: frozenset[Domain] = frozenset()

    @classmethod
    def of(cls, names: tuple[str, ...]) -> TrustedSealers:
        """Build it of `example.com` (that name) and `*.example.com` (every name below it).

        Raises:
            ValueError: one of them is neither; it is named.
        """
        exact: set[Domain] = set()
        below: set[Domain] = set()
        for name in names:
            stem = name.removeprefix("*.")
            try:
                (exact if stem == name else below).add(Domain.parse(stem))
            except InvalidName as e:
                raise ValueError(f"{name!a} is no domain: {e}") from None
        return cls(exact=frozenset(exact), below=frozenset(below))

    def __bool__(self) -> bool:
        return bool(self.exact or self.below)

    def covers(self, sealer: Domain | None) -> bool:
        """True if the seals of that domain are believed."""
        if sealer is None:
            return False
        if sealer in self.exact:
            return True
        above = sealer.parent if self.below else None
        while above is not None:
            if above in self.below:
                return True
            above = above.parent
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ArcSettings:
    """The limits and choices of ARC validation; the defaults are those of the documentation.

    `header_bytes` and `folds` bound one ARC field, `h_names` the names in h= of a message signature, `key_lookups`
    the keys asked for (those of the seals and of the newest message signature come first: 51 at most), `body_hashes`
    the different hashes made of the body, `signed_octets` what is hashed for message signatures older than the newest.
    `key_records`, `txt_bytes`, `min_rsa_bits`, `max_rsa_bits` and `clock_skew` are as for DKIM. `trusted` are the
    sealers that are believed.
    """

    header_bytes: int = 16384
    folds: int = 256
    h_names: int = 200
    key_lookups: int = 60
    body_hashes: int = 4
    signed_octets: int = 4 << 20
    key_records: int = 3
    txt_bytes: int = 4096
    min_rsa_bits: int = 1024
    max_rsa_bits: int = 8192
    clock_skew: int = 300
    trusted: TrustedSealers = TrustedSealers()
