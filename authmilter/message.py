"""A message's header block: parsed once, bytes kept exactly as they came.

`Message.parse` and `Message.of_fields` are total: any bytes give a `Message`, and what is wrong with it is
listed in `defects`. Nothing is repaired, nothing is decoded before it is parsed. Both go the same way, so that a
message gives the same value through every door.

What counts as a From field is judged by the most gullible reader: `From :`, a colon on the next line, a first line
that continues nothing, a name with octets that no name may have, text behind a bare CR. Each counts as a From
field, and each leaves the message without an Author Domain. That goes beyond the grammar (RFC 5322 §4.5 lets white
space stand before a colon): where two readers may see two authors, neither is authenticated.

Work is linear in the octets and bounded by the constants below. What lies beyond a bound is not read, and then the
message has no Author Domain either: the field that was not read may have been another From.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from authmilter import grammar
from authmilter.mailboxes import read_mailboxes
from authmilter.makers import maker
from authmilter.names import Address, Domain
from authmilter.octets.chosen import index_fields
from authmilter.text import printable

__all__ = [
    "MAX_FIELDS",
    "MAX_FROM_FIELDS_READ",
    "MAX_HEADER_OCTETS",
    "AuthorHeader",
    "AuthorProblem",
    "Defect",
    "DefectKind",
    "Header",
    "Message",
    "normalize_line_endings",
]

#: Fields (and lines that are none) that are read. Honest mail stays under 300; the limit is above what fits into
#: Postfix's header_size_limit (102400 octets at 4 each), so that no forged field can hide behind it there.
MAX_FIELDS = 30_000

#: Octets of header that are read, line ends included. Postfix's header_size_limit is 102,400 for one field.
MAX_HEADER_OCTETS = 1024 * 1024

#: From fields whose addresses are read: one is the rule, the others are for the administrator to look at.
MAX_FROM_FIELDS_READ = 8

#: RFC 5322 §2.1.1: octets in a line, without its CRLF.
_MAX_LINE = 998

# Octets that no field name has: all but RFC 5322 §3.6.8 ftext.
_NO_FTEXT = bytes(octet for octet in range(256) if not 33 <= octet <= 126 or octet == ord(":"))

#: How much of a field's name a defect shows.
_MAX_NAME_SHOWN = 64

# RFC 5322 §3.6 (maximum number 1) and RFC 2045 §3, RFC 2183 §2: the meaning of a message hangs on which of two such
# fields a reader takes.
_SINGLETONS = frozenset(
    {
        "bcc",
        "cc",
        "content-description",
        "content-disposition",
        "content-id",
        "content-transfer-encoding",
        "content-type",
        "date",
        "from",
        "in-reply-to",
        "message-id",
        "mime-version",
        "references",
        "reply-to",
        "sender",
        "subject",
        "to",
    }
)


class Header(NamedTuple):
    """One header field: exactly the bytes before the colon and after it, folds included, without the final line end.

    Folds are CRLF and white space; `Message.parse` keeps a bare LF where the message has one, and lists the defect.
    """

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
    """What can be wrong with a header block; a closed list (a body's defects are in `BodyFacts`)."""

    #: a line that is neither a field nor a continuation; it is not among the headers
    NOT_A_FIELD = "not_a_field"
    #: the first line is a continuation of nothing; it is not among the headers
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
    #: a field that RFC 5322 §3.6 or MIME allows once stands more than once
    REPEATED_SINGLETON = "repeated_singleton"
    #: a line over 998 octets (RFC 5322 §2.1.1)
    LONG_LINE = "long_line"
    #: more fields, or more octets of header, than are read
    TOO_MANY_FIELDS = "too_many_fields"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: its kind, and the field's name (lower case, cleaned to printable ASCII, or empty)."""

    kind: DefectKind
    field: str = ""


class AuthorProblem(StrEnum):
    """Why a message has no single Author Domain (RFC 9989 §5.3.1, §4.4, §11.5)."""

    #: no From field, or one that names no address (empty, empty group)
    NO_AUTHOR = "no_author"
    #: more than one From field, whatever its spelling
    REPEATED_FROM = "repeated_from"
    #: the From field does not parse, or an address in it has no valid domain, or not all fields could be read
    MALFORMED_FROM = "malformed_from"
    #: several authors of different domains
    SEVERAL_AUTHOR_DOMAINS = "several_author_domains"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorHeader:
    """The authors of a message, from its From field(s).

    `fields` counts the From fields, whatever their spelling. `addresses` are the mailboxes in order (all that could
    be read, also where there is a problem), `domains` their distinct domains in order, `problem` why there is no
    single Author Domain, `detail` our own words.
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


_Index = dict[str, tuple[Header, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A header block: its fields top to bottom, what is wrong with it, and its authors."""

    headers: tuple[Header, ...] = ()
    defects: tuple[Defect, ...] = ()
    authors: AuthorHeader = AuthorHeader()
    # Made with the message by `parse` and `of_fields`, else on first use; it follows from `headers` alone.
    _index: _Index | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def by_name(self) -> dict[str, tuple[Header, ...]]:
        """The fields by their `Header.key`, each from top to bottom; not to be changed."""
        index = self._index
        if index is None:
            index = _index_of(self.headers)
            object.__setattr__(self, "_index", index)
        return index

    def fields(self, key: str) -> tuple[Header, ...]:
        """Return the fields whose `Header.key` is `key` (lower case), top to bottom; none: an empty tuple."""
        index = self._index
        return (self.by_name if index is None else index).get(key, ())

    @classmethod
    def parse(cls, data: bytes) -> tuple[Message, int]:
        """Read a message, or its header block alone; return it and the offset in `data` where the body begins.

        Without an empty line there is no body and the offset is `len(data)`. Lines end in CRLF or bare LF (a
        defect). A line that is no field does not end the header block: only an empty line does (RFC 5322 §2.1).
        """
        end, body = _header_end(data)
        reader = _FieldReader()
        if data[end:body] == b"\n":
            reader.note(DefectKind.BARE_LF)
        for match in grammar.FIELD_LINES.finditer(data, 0, end):
            start, stop = match.span()
            if start == stop or not reader.has_room(stop - start):
                break
            _read_lines(reader, match.group(), first=start == 0)
        return reader.message(), body

    @classmethod
    def of_fields(cls, fields: Iterable[tuple[bytes, bytes]]) -> Message:
        """Build a message of (name, value) pairs, top to bottom, as a milter is given them.

        The value is all after the colon, with its leading space, folds as CRLF and white space, without the final
        CRLF. The result is what `parse` gives for the message these fields were taken from.
        """
        read: list[Header] = []
        octets = 0
        for name, value in fields:
            octets += len(name) + len(value) + 3
            read.append(Header(name, value))
            if octets > MAX_HEADER_OCTETS or len(read) > MAX_FIELDS:
                return cls._of_any(read)
        return cls.of_headers(read)

    @classmethod
    def of_headers(cls, headers: Sequence[Header]) -> Message:
        """Do the same where the fields are at hand as `Header`s, as many as there are.

        The honest message, whose fields have nothing odd about them, is looked at in one go.
        """
        if len(headers) > MAX_FIELDS:
            return cls._of_any(headers)
        whole = tuple(headers)
        found = index_fields(whole, _MAX_LINE, MAX_HEADER_OCTETS)
        if found is None:
            return cls._of_any(headers)
        index, repeated = found
        defects: tuple[Defect, ...] = ()
        if repeated and not _SINGLETONS.isdisjoint(repeated):
            wrong = [key for key in repeated if key in _SINGLETONS]
            wrong.sort(key=lambda key: key != "from")  # From first, as `_FieldReader` notes it
            defects = tuple([Defect(DefectKind.REPEATED_SINGLETON, key) for key in wrong])
        return _made(whole, defects, _authors_of(index.get("from", ())), index)

    @classmethod
    def _of_any(cls, headers: Iterable[Header]) -> Message:
        reader = _FieldReader()
        for header in headers:
            if not reader.has_room(len(header.name) + len(header.value) + 3):
                break
            reader.add(header)
        return reader.message()


_make_author_header = maker(AuthorHeader)
_make_message = maker(Message)


def _made(
    headers: tuple[Header, ...], defects: tuple[Defect, ...], authors: AuthorHeader, index: _Index
) -> Message:
    message = _make_message(headers=headers, defects=defects, authors=authors)
    object.__setattr__(message, "_index", index)
    return message


def normalize_line_endings(data: bytes) -> bytes:
    """Return a message as SMTP would carry it: a file without any CRLF gets CRLF for LF; others are not touched.

    For mail read from files, where LF is the system's line end and no defect. A file that has both is left as it
    is, because what ends a line there is the sender's doing.
    """
    return data if b"\r\n" in data else data.replace(b"\n", b"\r\n")


def _header_end(data: bytes) -> tuple[int, int]:
    """Return where the header block ends (its last line end included) and where the body begins."""
    if data.startswith(b"\r\n"):
        return 0, 2
    if data.startswith(b"\n"):
        return 0, 1
    crlf = data.find(b"\n\r\n")
    bare = data.find(b"\n\n", 0, crlf + 1 if crlf >= 0 else len(data))
    if bare >= 0:
        return bare + 1, bare + 2
    if crlf >= 0:
        return crlf + 1, crlf + 3
    return len(data), len(data)


def _index_of(headers: Iterable[Header]) -> _Index:
    lists: dict[str, list[Header]] = {}
    for header in headers:
        key = header.key
        if key in lists:
            lists[key].append(header)
        else:
            lists[key] = [header]
    return {key: tuple(group) for key, group in lists.items()}


def _name(header: Header) -> str:
    """Return a field's name as a defect shows it."""
    return printable(header.key, _MAX_NAME_SHOWN)


def _is_from(name: bytes) -> bool:
    """True if some reader may take `name` for From: what is left without octets that no name may have."""
    return name.translate(None, _NO_FTEXT).lower() == b"from"


def _read_lines(reader: _FieldReader, lines: bytes, *, first: bool) -> None:
    """Give the reader one field with its continuation lines, or what stands where a field should."""
    if lines.endswith(b"\r\n"):
        text, bare_lf = lines[:-2], False
    else:
        text, bare_lf = lines.removesuffix(b"\n"), lines.endswith(b"\n")
    if first and text.startswith((b" ", b"\t")):
        reader.add_junk(DefectKind.LEADING_CONTINUATION, text)
        name = ""
    else:
        folded = grammar.FOLDED_NAME.match(text)
        colon = folded.end() if folded is not None else text.partition(b"\n")[0].find(b":")
        if colon < 0:
            reader.add_junk(DefectKind.NOT_A_FIELD, text)
            name = ""
        else:
            header = Header(text[:colon], text[colon + 1 :])
            reader.add(header)
            name = _name(header)
    if bare_lf:
        reader.note(DefectKind.BARE_LF, name)


class _FieldReader:
    """Collects fields top to bottom, within the limits, and makes the message of them."""

    __slots__ = (
        "_defects",
        "_headers",
        "_hidden_from",
        "_irregular",
        "_junk_at",
        "_octets",
        "_places",
        "_unread",
    )

    def __init__(self) -> None:
        self._headers: list[Header] = []
        self._defects: dict[Defect, None] = {}
        self._places = 0
        self._octets = 0
        #: a limit was reached
        self._unread = False
        #: a field name was not well-formed
        self._irregular = False
        #: how many fields stood above the first line that is none
        self._junk_at: int | None = None
        #: From fields that only some reader would see
        self._hidden_from = 0

    def note(self, kind: DefectKind, name: str = "") -> None:
        """List a defect, once."""
        self._defects[Defect(kind, name)] = None

    def has_room(self, octets: int) -> bool:
        """Make room for a field of that many octets, colon and line end included; False: read no more."""
        if self._places >= MAX_FIELDS:
            self.note(DefectKind.TOO_MANY_FIELDS)
            self._unread = True
        elif self._octets + octets > MAX_HEADER_OCTETS:
            self.note(DefectKind.TOO_LARGE)
            self._unread = True
        self._places += 1
        self._octets += octets
        return not self._unread

    def add(self, header: Header) -> None:
        """Add a field; one without a name is no field."""
        if not grammar.FIELD_NAME.fullmatch(header.name):
            bare = header.name.rstrip(b" \t\r\n")
            if not bare:
                self.add_junk(DefectKind.NOT_A_FIELD, header.raw)
                return
            self._irregular = True
            if bare != header.name:
                self.note(DefectKind.SPACE_BEFORE_COLON, _name(header))
            if not grammar.FIELD_NAME.fullmatch(bare):
                self.note(DefectKind.FIELD_NAME, _name(header))
        self._headers.append(header)

    def add_junk(self, kind: DefectKind, text: bytes) -> None:
        """Note a line (with its continuation lines) that is no field."""
        self.note(kind)
        self._note_octets(text, None)
        if self._junk_at is None:
            self._junk_at = len(self._headers)
        self._hidden_from += len(grammar.HIDDEN_FROM.findall(text))

    def message(self) -> Message:
        """Return the message of all that was added."""
        headers = tuple(self._headers)
        index: _Index | None = None
        if not self._irregular:
            found = index_fields(headers, _MAX_LINE, MAX_HEADER_OCTETS)
            index = found[0] if found is not None else None
        if index is None:
            index = _index_of(headers)
            for header in headers:
                self._look_into(header)
        authors = self._authors(index)
        if authors.fields > 1:
            self.note(DefectKind.REPEATED_SINGLETON, "from")
        for key, group in index.items():
            if len(group) > 1 and key in _SINGLETONS:
                self.note(DefectKind.REPEATED_SINGLETON, key)
        return _made(headers, tuple(self._defects), authors, index)

    def _look_into(self, header: Header) -> None:
        """Note what is wrong with a field's octets, and what in its value may be read as a From field."""
        raw = header.raw
        self._note_octets(raw, header)
        begin = len(header.name) if _is_from(header.name) else 0
        self._hidden_from += len(grammar.HIDDEN_FROM_IN_VALUE.findall(raw, begin))

    def _note_octets(self, raw: bytes, header: Header | None) -> None:
        kinds: list[DefectKind] = []
        if b"\0" in raw:
            kinds.append(DefectKind.NUL)
        if grammar.BARE_CR.search(raw):
            kinds.append(DefectKind.BARE_CR)
        if grammar.BARE_LF.search(raw):
            kinds.append(DefectKind.BARE_LF)
        if not raw.isascii():
            kinds.append(DefectKind.EIGHT_BIT)
            if not _is_utf8(raw):
                kinds.append(DefectKind.NOT_UTF8)
        if any(len(line.removesuffix(b"\r")) > _MAX_LINE for line in raw.split(b"\n")):
            kinds.append(DefectKind.LONG_LINE)
        if grammar.UNFOLDED_LF.search(raw):
            kinds.append(DefectKind.NOT_A_FIELD)
        if kinds:
            name = _name(header) if header is not None else ""
            for kind in kinds:
                self.note(kind, name)

    def _authors(self, index: _Index) -> AuthorHeader:
        """Find the authors, or why there are none that all readers agree on."""
        froms = index.get("from", ())
        odd_name = False
        if self._irregular:
            froms = tuple(h for h in self._headers if _is_from(h.name))
            odd_name = any(not grammar.FIELD_NAME.fullmatch(h.name) for h in froms)
        oddity = ""
        if odd_name or self._hidden_from:
            oddity = "the From field's name is not well-formed"
        elif froms and self._junk_at is not None and self._headers.index(froms[0]) >= self._junk_at:
            # Mail servers let the header block end at such a line, and would not see this From field.
            oddity = "the From field stands below a line that is no field"
        return _authors_of(froms, hidden=self._hidden_from, unread=self._unread, oddity=oddity)


def _authors_of(
    froms: tuple[Header, ...], *, hidden: int = 0, unread: bool = False, oddity: str = ""
) -> AuthorHeader:
    """Find the authors.

    Args:
        froms: the From fields.
        hidden: how many more there are that only some reader would see.
        unread: not all fields were read.
        oddity: what about the one From field readers may not agree on.
    """
    addresses: tuple[Address, ...] = ()
    complaint = ""
    for header in froms[:MAX_FROM_FIELDS_READ]:
        mailboxes = read_mailboxes(header.value)
        addresses += mailboxes.addresses
        complaint = complaint or mailboxes.complaint
    fields = len(froms) + hidden
    if fields == len(addresses) == 1 and not (unread or oddity or complaint):
        # most mail
        return _make_author_header(fields=1, addresses=addresses, domains=(addresses[0].domain,))
    domains = tuple(dict.fromkeys([a.domain for a in addresses]))
    problem: AuthorProblem | None = AuthorProblem.MALFORMED_FROM
    detail = ""
    if unread:
        detail = "the header block is longer than what is read"
    elif fields > 1:
        # RFC 9989 §4.4: an invalid message; the first is never picked
        problem, detail = AuthorProblem.REPEATED_FROM, f"{fields} From fields"
    elif fields == 0:
        problem, detail = AuthorProblem.NO_AUTHOR, "no From field"
    elif oddity:
        detail = oddity
    elif complaint:
        detail = complaint
    elif not domains:
        problem, detail = AuthorProblem.NO_AUTHOR, "the From field names nobody"
    elif len(domains) > 1:
        problem, detail = AuthorProblem.SEVERAL_AUTHOR_DOMAINS, f"authors of {len(domains)} domains"
    else:
        problem = None
    return _make_author_header(
        fields=fields, addresses=addresses, domains=domains, problem=problem, detail=detail
    )


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
