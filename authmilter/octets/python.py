"""What walks over every octet of a message, in Python: the canonical forms of DKIM, line ends, the header's index, packets.

These functions define the behaviour; `_compiled.c` has to give the same for every input, which
tests/octets holds against each other. All are total over the octets they are given, and linear in them.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple, TypeVar

from authmilter import grammar

__all__ = [
    "AFTER_CR",
    "BARE_CR",
    "BARE_LF",
    "PacketTable",
    "Reading",
    "Shape",
    "base64_octets",
    "body_piece",
    "edit_packet",
    "fields_size",
    "index_fields",
    "line_ends",
    "plain_tags",
    "read_packets",
    "relaxed_field",
    "signed_data",
    "unsigned_value",
]

Field = tuple[bytes, bytes]
F = TypeVar("F", bound=Field)

# -- bodies ------------------------------------------------------------------------------------------------------

_BLANKS = re.compile(rb"  +")
# One for CR or LF, zero for every other octet.
_CR_ONLY = bytes(octet == 13 for octet in range(256))
_LF_ONLY = bytes(octet == 10 for octet in range(256))


def body_piece(data: bytes, relaxed: bool) -> tuple[bytes, int, bytes]:  # noqa: FBT001 - called for each piece of each body, and compiled
    """Return the next piece of a body in canonical form (RFC 6376 §3.4.3, §3.4.4).

    Args:
        data: what was held back of the piece before, and the piece.
        relaxed: the relaxed form, or the simple one.

    Returns:
        The piece without the empty lines at its end, since they are part of the form only if something follows; how
        many these are; and what is held back, because what follows decides what it means: [SP] [CR]. A piece of
        nothing but CRLFs is all empty lines, whatever stood before it.
    """
    held = b""
    if data.endswith(b"\r"):
        held = b"\r"
        data = data[:-1]
    if relaxed:
        stripped = data.rstrip(b" \t")
        if len(stripped) != len(data):
            held = b" " + held
        data = _relaxed_body(stripped)
    if not data.endswith(b"\r\n"):
        return data, 0, held
    # Count the CRLFs at the end: whatever CR and LF stand there, with each CRLF as one mark.
    tail = data[len(data.rstrip(b"\r\n")) :].replace(b"\r\n", b".")
    empty = len(tail) - len(tail.rstrip(b"."))
    if 2 * empty < len(data):
        empty -= 1  # the first of them ends the last line
    return data[: len(data) - 2 * empty], empty, held


def _relaxed_body(data: bytes) -> bytes:
    """Reduce runs of blanks and tabs to one blank, and remove it before CRLF (RFC 6376 §3.4.4)."""
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    # Looking for one octet is a hundred times faster than for two, and encoded bodies hold no blanks at all.
    if b" " in data:
        if b"  " in data:
            data = _join_blanks(data)
        if b" \r\n" in data:
            data = data.replace(b" \r\n", b"\r\n")
    return data


#: How many octets are taken for one number; more would not fit into the processor's caches.
_WIDTH = 1 << 16
_EACH_BLANK, _EACH_7F, _EACH_80 = (int.from_bytes(octet * _WIDTH) for octet in (b" ", b"\x7f", b"\x80"))
_FIRST_80 = 0x80 << 8 * (_WIDTH - 1)
#: A blank with its topmost bit set, which no octet of US-ASCII has.
_MARKED = b"\xa0"


def _join_blanks(data: bytes) -> bytes:
    """Reduce runs of blanks to one.

    US-ASCII is taken as large numbers, in which every blank behind another is marked at once, however many there are,
    and then removed; elsewhere the expression pays for each run.
    """
    if not data.isascii():
        return _BLANKS.sub(b" ", data)
    joined: list[bytes] = []
    for at in range(0, len(data), _WIDTH):
        piece = data[at : at + _WIDTH]
        number = int.from_bytes(piece)
        # 0x80 for each octet that is no blank: adding 0x7f to all but 0 sets that bit, and carries nothing further
        others = ((number ^ _EACH_BLANK) + _EACH_7F) & _EACH_80
        # and none where the octet before it is one, too; before the first there is none
        behind_blanks = (others | others >> 8 | _FIRST_80) ^ _EACH_80
        piece = (number | behind_blanks).to_bytes(len(piece)).translate(None, _MARKED)
        if joined and joined[-1].endswith(b" ") and piece.startswith(b" "):
            piece = piece[1:]  # the run began in the piece before
        if piece:
            joined.append(piece)
    return b"".join(joined)


#: What `line_ends` knows: there was a CR without LF, an LF without CR, and the last octet is a CR.
BARE_CR, BARE_LF, AFTER_CR = 1, 2, 4


def line_ends(data: bytes, known: int) -> int:
    """Look for line ends that are none, CR or LF alone, in the next piece of a body.

    Args:
        data: the piece.
        known: what this function returned for the piece before; 0 for the first.

    Returns:
        BARE_CR, BARE_LF and AFTER_CR, added: in AFTER_CR it is the next piece that decides.
    """
    if not data:
        return known
    crs, lfs = data.translate(_CR_ONLY), data.translate(_LF_ONLY)
    after_cr, begins, ends = known & AFTER_CR != 0, lfs[0] != 0, crs[-1] != 0
    if after_cr and not begins:
        known |= BARE_CR
    if begins and not after_cr:
        known |= BARE_LF
    # A mark for each CR and each LF: where every CR has its LF, the one is the other, moved by one octet.
    if crs[:-1] != lfs[1:]:
        pairs = data.count(b"\r\n")
        if crs.count(1) - ends != pairs:
            known |= BARE_CR
        if lfs.count(1) - begins != pairs:
            known |= BARE_LF
    return known | AFTER_CR if ends else known & ~AFTER_CR


# -- header fields -------------------------------------------------------------------------------------------------


def relaxed_field(name: bytes, value: bytes) -> bytes:
    """Return a header field in relaxed form (RFC 6376 §3.4.2), without the CRLF at its end.

    `name` and `value` are the octets before and after the colon, folds as CRLF and a blank or tab.
    """
    # the tests first, because most fields hold none of these
    if b"\r\n" in value:
        value = value.replace(b"\r\n", b"")
    if b"\t" in value:
        value = value.replace(b"\t", b" ")
    while b"  " in value:
        value = value.replace(b"  ", b" ")
    return name.rstrip(b" \t\r\n").lower() + b":" + value.strip(b" ")


def signed_data(
    index: Mapping[str, tuple[F, ...]],
    names: tuple[str, ...],
    own: Field,
    relaxed: bool,  # noqa: FBT001 - as above
) -> bytes:
    """Return what b= is computed over (RFC 6376 §3.7): the fields that h= names in canonical form, each with its CRLF, and
    the signature itself, without b= and CRLF.

    Args:
        index: the fields of a message by their names in lower case, each from top to bottom.
        names: h=, in lower case.
        own: the signature itself; it is never among the fields, by identity.
        relaxed: the relaxed form, or the simple one.
    """
    unused: dict[str, list[F]] = {}
    parts: list[bytes] = []
    for name in names:
        fields = unused.get(name)
        if fields is None:
            # (RFC 6376 §3.5 h=: the signature is not among the fields it names)
            fields = unused[name] = [field for field in index.get(name, ()) if field is not own]
        # RFC 6376 §5.4.2: the last one not yet used; a name without one stands for nothing, so that
        # a field added later would be signed in its place and break the signature.
        if fields:
            label, value = fields.pop()
            parts.append(relaxed_field(label, value) if relaxed else label + b":" + value)
            parts.append(b"\r\n")
    label, value = own[0], unsigned_value(own[1])
    parts.append(relaxed_field(label, value) if relaxed else label + b":" + value)
    return b"".join(parts)


def index_fields(
    fields: tuple[F, ...], longest: int, room: int
) -> tuple[dict[str, tuple[F, ...]], tuple[str, ...]] | None:
    """Return the fields by their names in lower case, each from top to bottom, and the names that stand more than once.

    None if anything about any is odd.

    Nothing is odd where all names are well-formed (RFC 5322 §3.6.8), every CR and LF belongs to a fold, there is no
    NUL and no octet over 127, no line is over `longest` octets, and all, with colons and line ends, are within `room`.
    """
    if not fields:
        return {}, ()
    if sum([len(name) + len(value) for name, value in fields]) + 3 * len(fields) > room:
        return None
    names = b":".join([name for name, _value in fields])
    # (a name with a colon in it would look like two)
    if names.count(b":") != len(fields) - 1 or not grammar.FIELD_NAMES.fullmatch(names):
        return None
    if not _is_plain(fields, longest):
        return None
    lists: dict[str, list[F]] = {}
    for field in fields:
        key = field[0].lower().decode("ascii")
        if key in lists:
            lists[key].append(field)
        else:
            lists[key] = [field]
    index = {key: tuple(group) for key, group in lists.items()}
    return index, tuple(key for key, group in index.items() if len(group) > 1)


def fields_size(fields: list[F]) -> int:
    """Return how many octets the names and values of some fields have."""
    return sum([len(name) + len(value) for name, value in fields])


def _is_plain(fields: tuple[Field, ...], longest: int) -> bool:
    """True if no field (all names well-formed) has any defect in its octets; asked at once for all of them."""
    block = b"\r\n".join([name + b":" + value for name, value in fields])
    lines = block.split(b"\r\n")
    return (
        block.isascii()
        and b"\0" not in block
        and block.count(b"\r") == block.count(b"\n") == len(lines) - 1
        and max(map(len, lines)) <= longest
        # every line is a field's first or a fold
        and block.count(b"\n ") + block.count(b"\n\t") + len(fields) == len(lines)
    )


# -- tag lists ------------------------------------------------------------------------------------------------------


def unsigned_value(value: bytes) -> bytes:
    """Return a signature field's value with the value of b= taken out, white space around it too (RFC 6376 §3.7)."""
    specs = value.split(b";")
    for i, spec in enumerate(specs):
        name, equals, _ = spec.partition(b"=")
        if name.strip(b" \t\r\n") == b"b":
            specs[i] = name + equals
            break
    return b";".join(specs)


_PLAIN = re.compile(rb"[\t -~]*+")
# RFC 6376 §3.2
#   tag-spec      =  [FWS] tag-name [FWS] "=" [FWS] tag-value [FWS]
#   tag-name      =  ALPHA *ALNUMPUNC
#   ALNUMPUNC     =  ALPHA / DIGIT / "_"
_TAG = re.compile(r"[ \t]*+([A-Za-z][A-Za-z0-9_]*+)[ \t]*+=(.*+)", re.DOTALL)


def plain_tags(text: bytes) -> dict[str, str] | None:
    """Return the tags of a tag list (RFC 6376 §3.2) in their order, values without white space around them.

    None if anything is odd, of which `dkim.taglist` then says what: an octet that is no printable US-ASCII, blank, tab or
    fold; a part between semicolons that is no tag; a name that stands twice.
    """
    if b"\r\n" in text:
        text = text.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    if not _PLAIN.fullmatch(text):
        return None
    specs = text.decode("ascii").split(";")
    if len(specs) > 1 and not specs[-1].strip(" \t"):
        specs.pop()  # tag-list = tag-spec *( ";" tag-spec ) [ ";" ]
    values: dict[str, str] = {}
    for spec in specs:
        tag = _TAG.fullmatch(spec)
        if tag is None or tag.group(1) in values:
            return None
        values[tag.group(1)] = tag.group(2).strip(" \t")
    return values


# RFC 6376 §2.10    base64string, its white space removed
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def base64_octets(text: str) -> bytes | None:
    """Return the octets of a base64string (RFC 6376 §2.10, blanks and tabs allowed anywhere); None if it is none."""
    compact = text.replace(" ", "").replace("\t", "")
    if len(compact) % 4 or not _BASE64.fullmatch(compact):
        return None
    return binascii.a2b_base64(compact)


# -- packets of the milter protocol --------------------------------------------------------------------------------

_HEAD = Struct(">IB")
_THREE_NUMBERS = Struct(">III")
_PORT = Struct(">H")
#: the address family of a client whose address is not told (SMFIA_UNKNOWN)
_NO_FAMILY = ord("U")


class Shape(IntEnum):
    """What the arguments of a packet are."""

    #: nothing: all packets of the command are the same event
    NOTHING = 0
    #: octets
    OCTETS = 1
    #: a string; what stands behind it is dropped
    STRING = 2
    #: strings, at least one
    STRINGS = 3
    #: three numbers
    NUMBERS = 4
    #: the octet of a command, then names and values
    MACROS = 5
    #: a client: its name, the octet of its address family, its port and its address
    CLIENT = 6
    #: name and value of a header field
    FIELD = 7


class Reading(NamedTuple):
    """How the packets of one command become events.

    `shape` is that of the arguments, `make` takes them and returns the event (for `Shape.NOTHING` it is the event).
    `word` is what the packet is called where it is faulty, `known` what the octet of a command or family stands for.
    """

    shape: Shape
    make: Any
    word: str = ""
    known: Mapping[int, Any] = {}


class PacketTable(NamedTuple):
    """How all packets become events.

    `readings` has one for each command octet, 256 in all, None where there is no such command. `field` is the named tuple
    of two that a header field becomes; `most` is how many strings, and names with their values, are read of one packet.
    """

    readings: tuple[Reading | None, ...]
    field: Any
    most: int


class _PacketError(Exception):
    """The arguments of a packet are not those of its command; the text says why, in our words."""


def _terminated(payload: bytes, what: str) -> bytes:
    if not payload.endswith(b"\0"):
        raise _PacketError(f"{what} without a final NUL")
    return payload


def _read_string(payload: bytes, reading: Reading, _most: int) -> Any:
    return reading.make(_terminated(payload, reading.word).partition(b"\0")[0])


def _read_strings(payload: bytes, reading: Reading, most: int) -> Any:
    return reading.make(tuple(_terminated(payload, reading.word)[:-1].split(b"\0", most)[:most]))


def _read_numbers(payload: bytes, reading: Reading, _most: int) -> Any:
    if len(payload) < _THREE_NUMBERS.size:
        raise _PacketError(f"{reading.word} that is too short")
    return reading.make(*_THREE_NUMBERS.unpack_from(payload))


def _read_macros(payload: bytes, reading: Reading, most: int) -> Any:
    command = reading.known.get(payload[0]) if payload else None
    if command is None:
        raise _PacketError(f"{reading.word} of no known command")
    if len(payload) == 1:
        return reading.make(command, {})
    parts = _terminated(payload, reading.word)[1:-1].split(b"\0", 2 * most)[: 2 * most]
    # of each name the last value counts; a name without a value is none
    return reading.make(command, dict(zip(parts[::2], parts[1::2], strict=False)))


def _read_client(payload: bytes, reading: Reading, _most: int) -> Any:
    name, nul, rest = payload.partition(b"\0")
    family = reading.known.get(rest[0]) if rest else None
    if not nul or family is None:
        raise _PacketError(f"{reading.word} of no known address family")
    if rest[0] == _NO_FAMILY:
        return reading.make(name, family, 0, b"")
    if len(rest) < 4 or not rest.endswith(b"\0"):
        raise _PacketError(f"{reading.word} without its address")
    (port,) = _PORT.unpack_from(rest, 1)
    return reading.make(name, family, port, rest[3 : rest.index(b"\0", 3)])


def _read_field(payload: bytes, kind: Callable[[bytes, bytes], F], what: str) -> F:
    name, _, value = payload.partition(b"\0")
    if not value.endswith(b"\0"):
        raise _PacketError(f"{what} without its two strings")
    value = value[:-1]
    if b"\n" in value:
        value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return kind(name, value)


#: Shape.FIELD is not among them: fields that come one after another become one event.
_READ: Mapping[Shape, Callable[[bytes, Reading, int], Any]] = {
    Shape.NOTHING: lambda _payload, reading, _most: reading.make,
    Shape.OCTETS: lambda payload, reading, _most: reading.make(payload),
    Shape.STRING: _read_string,
    Shape.STRINGS: _read_strings,
    Shape.NUMBERS: _read_numbers,
    Shape.MACROS: _read_macros,
    Shape.CLIENT: _read_client,
}


def read_packets(data: bytes, largest: int, table: PacketTable) -> tuple[list[Any], bytes, int, str]:
    """Make events of the bytes of a milter connection.

    Args:
        data: the bytes, from the beginning of a packet on.
        largest: the largest length field that is believed (octets).
        table: what becomes of each packet.

    Returns:
        The event of each whole packet, in order; header fields that come one after another are one event, made of a list
        of `table.field` with names and values, folds as CRLF. Then the octets that were not read, how many of them are
        needed to go on, and what is wrong with the first of them: our words, or nothing.
    """
    events: list[Any] = []
    run: list[Any] | None = None
    at, end = 0, len(data)
    while end - at >= 5:
        length, command = _HEAD.unpack_from(data, at)
        if not 0 < length <= largest:
            return events, data[at:], 5, f"a packet of {length} octets"
        stop = at + 4 + length
        if stop > end:
            return events, data[at:], 4 + length, ""
        reading = table.readings[command]
        if reading is None:
            return events, data[at:], 5, f"an unknown command octet 0x{command:02x}"
        payload = data[at + 5 : stop]
        try:
            if reading.shape == Shape.FIELD:
                # the hot path: some twenty of thirty packets of a message
                field = _read_field(payload, table.field, reading.word)
                if run is None:
                    run = []
                    events.append(reading.make(run))
                run.append(field)
            else:
                run = None
                events.append(_READ[reading.shape](payload, reading, table.most))
        except _PacketError as e:
            return events, data[at:], 5, str(e)
        at = stop
    return events, data[at:], 5, ""


_NUMBER = Struct(">I")

# RFC 5322 §2.2.3: a line end before white space is a fold; here more has to follow on that line, since readers take
# an empty one for the end of the header.
_NO_FOLD = re.compile(rb"\n(?:[^ \t]|\Z|[ \t\v\f]*+(?:\n|\Z))")


def edit_packet(command: int, number: int | None, name: bytes, value: bytes) -> bytes | str:
    """Return the packet that adds, inserts or changes a header field, or in our words why it must not be sent.

    Nothing is sent that would not stay one field: nothing in it may begin a new field or end the header.

    Args:
        command: the command octet.
        number: which field it is; None where the command has no number.
        name: its name.
        value: its value, folds as LF and white space.
    """
    if number is not None and not 0 <= number < 2**32:
        return "a header field number that is none"
    if not grammar.FIELD_NAME.fullmatch(name):
        return "an ill-formed header field name"
    if b"\r" in value or b"\0" in value:
        return "a CR or NUL octet in a header field value"
    if _NO_FOLD.search(value):
        return "an ill-formed fold in a header field value"
    place = b"" if number is None else _NUMBER.pack(number)
    arguments = place + name + b"\0" + value + b"\0"
    return _HEAD.pack(len(arguments) + 1, command) + arguments
