"""A message's header block: parsed once, bytes kept exactly as they came.

`Message.parse` and `Message.of_fields` are total: any bytes give a `Message`, and what is wrong with it is
listed in `defects`. Nothing is repaired, nothing is decoded before it is parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from authmilter.names import Address, Domain

__all__ = ["AuthorHeader", "AuthorProblem", "Defect", "DefectKind", "Header", "Message"]


@dataclass(frozen=True, slots=True)
class Header:
    """One header field: exactly the bytes before the colon and after it (no final CRLF, folds as CRLF + WSP)."""

    name: bytes
    value: bytes

    @property
    def key(self) -> str:
        """The field name for comparing: lower case, without white space before the colon (obs, RFC 5322 §4.5)."""
        return self.name.rstrip(b" \t\r\n").lower().decode("latin-1")

    @property
    def raw(self) -> bytes:
        """The field as it stands in the message, without its final CRLF."""
        return self.name + b":" + self.value


class DefectKind(StrEnum):
    """What can be wrong with a header block or body; a closed list."""

    #: a line that is neither a field nor a continuation
    NOT_A_FIELD = "not_a_field"
    #: the first line is a continuation of nothing
    LEADING_CONTINUATION = "leading_continuation"
    #: white space (or a fold) between a field's name and its colon
    SPACE_BEFORE_COLON = "space_before_colon"
    #: a field name with a character outside RFC 5322 §3.6.8
    FIELD_NAME = "field_name"
    #: a NUL octet
    NUL = "nul"
    #: a CR without LF, or an LF without CR
    BARE_CR = "bare_cr"
    BARE_LF = "bare_lf"
    #: an octet over 127 in a header (fine with SMTPUTF8 if it is UTF-8)
    EIGHT_BIT = "eight_bit"
    #: an octet over 127 that is not part of UTF-8
    NOT_UTF8 = "not_utf8"
    #: a field that RFC 5322 §3.6 allows once stands more than once
    REPEATED_SINGLETON = "repeated_singleton"
    #: a line over 998 octets (RFC 5322 §2.1.1)
    LONG_LINE = "long_line"
    #: more fields, or more octets of header, than are read
    TOO_MANY_FIELDS = "too_many_fields"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: its kind, and the field's name (cleaned to printable ASCII, or empty)."""

    kind: DefectKind
    field: str = ""


class AuthorProblem(StrEnum):
    """Why a message has no single Author Domain (RFC 9989 §5.3.1, §4.4, §11.5)."""

    #: no From field, or one that names no address (empty, empty group)
    NO_AUTHOR = "no_author"
    #: more than one From field, whatever its spelling
    REPEATED_FROM = "repeated_from"
    #: the From field does not parse, or an address in it has no valid domain
    MALFORMED_FROM = "malformed_from"
    #: several authors of different domains
    SEVERAL_AUTHOR_DOMAINS = "several_author_domains"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorHeader:
    """The authors of a message, from its From field(s).

    `addresses` are the mailboxes in order (all that could be read, also where there is a problem), `domains`
    their distinct domains in order, `problem` why there is no single Author Domain, `detail` our own words.
    """

    fields: int = 0
    addresses: tuple[Address, ...] = ()
    domains: tuple[Domain, ...] = ()
    problem: AuthorProblem | None = None
    detail: str = ""

    @property
    def domain(self) -> Domain | None:
        """The one Author Domain, or None."""
        return self.domains[0] if self.problem is None and len(self.domains) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A header block: its fields top to bottom, what is wrong with it, and its authors."""

    headers: tuple[Header, ...] = ()
    defects: tuple[Defect, ...] = ()
    authors: AuthorHeader = AuthorHeader()
