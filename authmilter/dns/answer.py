"""DNS questions and answers as values.

An answer is one of four things, and they stay four different things all the way up: `Found`, `NoData`
(the name exists, not this type), `NxDomain` (the name does not exist) and `Failed` (nobody knows).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from authmilter.errors import InvalidName

__all__ = [
    "Answer",
    "Failed",
    "FailureKind",
    "Found",
    "Mx",
    "NoData",
    "NxDomain",
    "Question",
    "RdType",
    "Record",
]


class RdType(StrEnum):
    """The record types that the checks ask for."""

    A = "A"
    AAAA = "AAAA"
    MX = "MX"
    PTR = "PTR"
    TXT = "TXT"


class Question(NamedTuple):
    """One question: an absolute `name` (lower-case ASCII, no dot at the end) and a type; build with `of`.

    A tuple, because every look-up on the way of a question hashes and compares it.
    """

    name: str
    rdtype: RdType

    @classmethod
    def of(cls, name: str, rdtype: RdType) -> Question:
        """Return the question for `name`.

        The name may hold any printable ASCII (SPF macros make such names); a dot always separates labels.

        Raises:
            InvalidName: an empty label, one over 63 octets, a name over 253, or a byte that is not printable
                ASCII (RFC 1035 §2.3.4): such a name cannot be asked.
        """
        text = name.removesuffix(".").lower()
        if len(text) > 253:
            raise InvalidName("DNS name is longer than 253 octets")
        for label in text.split("."):
            if not 0 < len(label) <= 63:
                raise InvalidName("DNS name has an empty or over-long label")
        if not text.isascii() or not text.isprintable():
            raise InvalidName("DNS name has a character that is not printable ASCII")
        return cls(text, rdtype)

    def __str__(self) -> str:
        return f"{self.name} {self.rdtype}"


@dataclass(frozen=True, slots=True, order=True)
class Mx:
    """An MX record: `preference` (0-65535, lower first) and the `exchange` host name (lower case, no dot at the end)."""

    preference: int
    exchange: str


#: TXT: the record's strings joined without anything between (RFC 7208 §3.3, RFC 6376 §3.6.2.2);
#: A, AAAA: the address; MX: `Mx`; PTR: the name, lower case, no dot at the end.
Record = bytes | IPv4Address | IPv6Address | Mx | str


class FailureKind(StrEnum):
    """Why nobody knows."""

    #: no answer in time
    TIMEOUT = "timeout"
    #: the server answered SERVFAIL
    SERVFAIL = "servfail"
    #: the server answered REFUSED or another RCODE that is neither NOERROR nor NXDOMAIN
    REFUSED = "refused"
    #: the server could not be reached
    NETWORK = "network"
    #: the answer could not be understood
    MALFORMED = "malformed"
    #: our own budget of questions or time ran out: says nothing about DNS
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Found:
    """The records of the asked type (CNAMEs followed), never empty; `ttl` is how long it may be kept, in seconds."""

    records: tuple[Record, ...]
    ttl: float = 0.0

    def texts(self) -> tuple[bytes, ...]:
        """The TXT records, each as its joined strings."""
        return tuple([r for r in self.records if isinstance(r, bytes)])

    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The A or AAAA records."""
        return tuple(r for r in self.records if isinstance(r, IPv4Address | IPv6Address))

    def exchanges(self) -> tuple[Mx, ...]:
        """The MX records."""
        return tuple(r for r in self.records if isinstance(r, Mx))

    def names(self) -> tuple[str, ...]:
        """The PTR records."""
        return tuple(r for r in self.records if isinstance(r, str))


@dataclass(frozen=True, slots=True)
class NoData:
    """The name exists, and has no record of the asked type (RFC 2308 §2.2)."""

    ttl: float = 0.0


@dataclass(frozen=True, slots=True)
class NxDomain:
    """The name does not exist, nor does anything below it (RFC 8020)."""

    ttl: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """Nobody knows: `kind` says why, `detail` is our own words for the log."""

    kind: FailureKind
    detail: str = ""


Answer = Found | NoData | NxDomain | Failed
