"""The milter protocol's wire format, without any I/O: bytes to events, replies to bytes, and the negotiation.

The protocol has no RFC; its reference is libmilter's own header `mfdef.h` (versions 2 to 6) and what Postfix and
Sendmail do. A packet is a 32-bit length, one command octet, and length - 1 octets of arguments; strings end in
NUL, numbers are big-endian.

Promise, in one sentence: whatever bytes `Decoder.feed` is given, in whatever pieces, it returns the events in them
or raises `RemoteProtocolError`, never another exception, and it holds at most one unfinished packet.

How it fails: `RemoteProtocolError` for what the MTA did wrong (it carries the events before the fault, so that
the result does not depend on how the bytes were cut), `LocalProtocolError` for a reply that we must not send.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntFlag, StrEnum
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from authmilter.errors import AuthMilterError
from authmilter.makers import maker
from authmilter.message import Header as HeaderField
from authmilter.octets.chosen import edit_packet, read_packets
from authmilter.octets.python import PacketTable, Reading, Shape

__all__ = [
    "NEWEST_VERSION",
    "OLDEST_VERSION",
    "Abilities",
    "Abort",
    "Action",
    "AddField",
    "Body",
    "ChangeField",
    "Connect",
    "Data",
    "Decoder",
    "EndOfHeaders",
    "EndOfMessage",
    "Event",
    "Family",
    "Fields",
    "Header",
    "Helo",
    "InsertField",
    "Lack",
    "LocalProtocolError",
    "Macros",
    "Mail",
    "Negotiate",
    "Negotiated",
    "QuarantineMessage",
    "Quit",
    "QuitNew",
    "Rcpt",
    "RemoteProtocolError",
    "Repeated",
    "Reply",
    "ReplyCode",
    "Stage",
    "Step",
    "Unknown",
    "Verb",
    "negotiate",
]

OLDEST_VERSION = 2
NEWEST_VERSION = 6

#: The largest packet that is read by default. libmilter's own limit is 64 KiB, but Postfix sends a header field of
#: up to `header_size_limit` (102400) octets in one packet: a limit below that would let a stranger end the milter
#: session at will, and with `milter_default_action = accept` get round every check.
DEFAULT_MAX_PACKET = 256 * 1024 + 1024

#: A body chunk is at most this long (mfdef.h MILTER_CHUNK_SIZE) unless larger ones were negotiated, which we never do.
CHUNK_SIZE = 65535

#: How many strings are read from one packet: SMTP arguments of one command, names and values of macros.
MAX_STRINGS = 256


class RemoteProtocolError(Exception):
    """The MTA did something that the protocol does not allow.

    `events` are those that came before the fault in the same piece of data.
    """

    def __init__(self, message: str, events: tuple[Event, ...] = ()) -> None:
        super().__init__(message)
        self.events = events


class LocalProtocolError(AuthMilterError):
    """We were about to send something that the protocol does not allow; nothing was sent."""


class Action(IntFlag):
    """What a milter may do to a message (SMFIF_*)."""

    ADD_HEADERS = 0x1
    CHANGE_BODY = 0x2
    ADD_RCPT = 0x4
    DELETE_RCPT = 0x8
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_FROM = 0x40
    ADD_RCPT_ARGS = 0x80
    SET_SYMBOLS = 0x100


class Step(IntFlag):
    """What the MTA need not send or wait for, and what it understands (SMFIP_*)."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADERS = 0x40
    NO_REPLY_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RCPT = 0x800
    NO_REPLY_CONNECT = 0x1000
    NO_REPLY_HELO = 0x2000
    NO_REPLY_MAIL = 0x4000
    NO_REPLY_RCPT = 0x8000
    NO_REPLY_DATA = 0x10000
    NO_REPLY_UNKNOWN = 0x20000
    NO_REPLY_END_OF_HEADERS = 0x40000
    NO_REPLY_BODY = 0x80000
    LEADING_SPACE = 0x100000
    CHUNKS_256K = 0x10000000
    CHUNKS_1M = 0x20000000


class Stage(StrEnum):
    """The command that a set of macros belongs to; the value is its octet."""

    CONNECT = "C"
    HELO = "H"
    MAIL = "M"
    RCPT = "R"
    DATA = "T"
    HEADER = "L"
    END_OF_HEADERS = "N"
    BODY = "B"
    END_OF_MESSAGE = "E"
    UNKNOWN = "U"


class Family(StrEnum):
    """The SMTP client's address family (SMFIA_*); the value is its octet."""

    UNKNOWN = "U"
    UNIX = "L"
    INET = "4"
    INET6 = "6"


# -- events: what the MTA says ---------------------------------------------------------------------------------


class Negotiate(NamedTuple):
    """The MTA's offer: its protocol `version`, the `actions` it allows and the `steps` it understands."""

    version: int
    actions: int
    steps: int


@dataclass(frozen=True, slots=True)
class Macros:
    """Macro `values` (name as the MTA writes it, `{auth_type}` or `i`) for the next command of `stage`."""

    stage: Stage
    values: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Connect:
    """An SMTP client: the name the MTA has for it, and its address (or the path of a unix socket)."""

    hostname: bytes
    family: Family
    port: int
    address: bytes


@dataclass(frozen=True, slots=True)
class Helo:
    """HELO or EHLO and its argument."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM: the address (with or without its `<>`), then ESMTP arguments."""

    args: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO: the address (with or without its `<>`), then ESMTP arguments."""

    args: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """The DATA command."""


class Header(NamedTuple):
    """One header field, where an engine has them one by one; folds in `value` are as the MTA sends them (LF)."""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Fields:
    """Header fields that came one after another, as many as there were at once; their folds are CRLF."""

    fields: list[HeaderField]


@dataclass(frozen=True, slots=True)
class EndOfHeaders:
    """The empty line after the header."""


@dataclass(frozen=True, slots=True)
class Body:
    """A piece of the body."""

    chunk: bytes


@dataclass(frozen=True, slots=True)
class EndOfMessage:
    """The end of the message, with the last piece of its body (mostly empty)."""

    chunk: bytes = b""


@dataclass(frozen=True, slots=True)
class Abort:
    """The transaction is over (RSET, a failed command, the client is gone); the connection stays."""


@dataclass(frozen=True, slots=True)
class Quit:
    """The connection is over."""


@dataclass(frozen=True, slots=True)
class QuitNew:
    """The SMTP client is gone; another one follows on the same connection (Sendmail)."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An SMTP command the MTA does not know."""

    command: bytes


Event = (
    Negotiate
    | Macros
    | Connect
    | Helo
    | Mail
    | Rcpt
    | Data
    | Header
    | Fields
    | EndOfHeaders
    | Body
    | EndOfMessage
    | Abort
    | Quit
    | QuitNew
    | Unknown
)

# -- replies: what we say ----------------------------------------------------------------------------------------

_OFFER = Struct(">III")
_NUMBER = Struct(">I")


def _packet(command: bytes, payload: bytes = b"") -> bytes:
    return _NUMBER.pack(len(payload) + 1) + command + payload


def _edit(command: bytes, number: int | None, name: bytes, value: bytes) -> bytes:
    packet = edit_packet(command[0], number, name, value)
    if isinstance(packet, str):
        raise LocalProtocolError(packet)
    return packet


class Verb(Enum):
    """The replies without arguments."""

    CONTINUE = _packet(b"c")
    ACCEPT = _packet(b"a")
    REJECT = _packet(b"r")
    TEMPFAIL = _packet(b"t")
    DISCARD = _packet(b"d")
    SKIP = _packet(b"s")
    PROGRESS = _packet(b"p")
    SHUTDOWN = _packet(b"4")

    @property
    def wire(self) -> bytes:
        """The reply's bytes."""
        octets: bytes = self._value_
        return octets


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same reply to each of several commands that came at once."""

    verb: Verb
    times: int

    @property
    def wire(self) -> bytes:
        """The replies' bytes."""
        return self.verb.wire * self.times


@dataclass(frozen=True, slots=True)
class Negotiated:
    """Our answer to an offer; `symbols` are the macros we want, by SMFIM_* stage number. `wire` has the reply's bytes."""

    version: int
    actions: int
    steps: int
    symbols: tuple[tuple[int, bytes], ...] = ()
    #: made once: the same answer is given to every connection
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lists = b"".join(_NUMBER.pack(stage) + names + b"\0" for stage, names in self.symbols)
        wire = _packet(b"O", _OFFER.pack(self.version, self.actions, self.steps) + lists)
        object.__setattr__(self, "wire", wire)


@dataclass(frozen=True, slots=True)
class ReplyCode:
    """An SMTP reply of our own: `code` (400-599), `enhanced` code of the same class, `lines` of printable US-ASCII.

    Raises:
        LocalProtocolError: what cannot be sent; Postfix would take it for a broken milter.
    """

    code: int
    enhanced: str
    lines: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 400 <= self.code <= 599 or not self.lines or self.enhanced[:2] != f"{self.code // 100}.":
            raise LocalProtocolError(f"an SMTP reply of code {self.code} {self.enhanced} cannot be sent")
        if not all(text.isascii() and text.isprintable() for text in (self.enhanced, *self.lines)):
            raise LocalProtocolError("an SMTP reply line that is not printable US-ASCII")

    @property
    def wire(self) -> bytes:
        """The reply's bytes. A per cent sign is doubled: Sendmail uses the text as a format, Postfix undoes it."""
        last = len(self.lines) - 1
        text = "\r\n".join(
            f"{self.code}{' ' if n == last else '-'}{self.enhanced} {line}"
            for n, line in enumerate(self.lines)
        )
        return _packet(b"y", text.replace("%", "%%").encode("ascii") + b"\0")


@dataclass(frozen=True, slots=True)
class AddField:
    """Add a header field at the end of the header.

    Raises:
        LocalProtocolError: name or value would not stay one field.
    """

    name: bytes
    value: bytes
    #: the reply's bytes
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire", _edit(b"h", None, self.name, self.value))


@dataclass(frozen=True, slots=True)
class InsertField:
    """Insert a header field so that it becomes number `at` (0: above everything, the MTA's own Received too).

    Raises:
        LocalProtocolError: name or value would not stay one field.
    """

    at: int
    name: bytes
    value: bytes
    #: the reply's bytes
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire", _edit(b"i", self.at, self.name, self.value))


@dataclass(frozen=True, slots=True)
class ChangeField:
    """Replace the value of the `nth` (from 1) field of that name; an empty value deletes it.

    Raises:
        LocalProtocolError: name or value would not stay one field.
    """

    nth: int
    name: bytes
    value: bytes
    #: the reply's bytes
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire", _edit(b"m", self.nth, self.name, self.value))


@dataclass(frozen=True, slots=True)
class QuarantineMessage:
    """Ask the MTA to hold the message; `reason` is printable US-ASCII and not empty.

    Raises:
        LocalProtocolError: it is not.
    """

    reason: str

    def __post_init__(self) -> None:
        if not (self.reason and self.reason.isascii() and self.reason.isprintable()):
            raise LocalProtocolError("a quarantine reason that is not printable US-ASCII")

    @property
    def wire(self) -> bytes:
        """The reply's bytes."""
        return _packet(b"q", self.reason.encode("ascii") + b"\0")


Reply = Verb | Repeated | Negotiated | ReplyCode | AddField | InsertField | ChangeField | QuarantineMessage

# -- negotiation -------------------------------------------------------------------------------------------------


class Lack(StrEnum):
    """An ability that the MTA does not offer; the value says what follows from it."""

    ADD_HEADERS = "the MTA allows no header field to be added: results and tags are not written into messages"
    CHANGE_HEADERS = (
        "the MTA allows no header field to be changed: forged result fields and subjects stay as they came"
    )
    QUARANTINE = "the MTA cannot hold messages: what is to be held is delivered with its tags instead"
    SYMBOLS = (
        "the MTA takes no macro lists: it has to be configured to send {auth_authen}, {daemon_name} and j"
    )
    LEADING_SPACE = (
        "the MTA strips the space after a header field's colon: one is put back, which breaks signatures of simple "
        "header canonicalization where there was none or more"
    )
    SKIP = "the MTA does not understand SKIP: it sends bodies to their end, the unwanted rest is dropped"
    NO_REPLY = "the MTA waits for a reply to every command: each costs a round trip"


#: What we would do to a message.
_ACTIONS = Action.ADD_HEADERS | Action.CHANGE_HEADERS | Action.QUARANTINE | Action.SET_SYMBOLS

#: What we do not want to see, and the commands that we never answer before the end of the message.
_UNWANTED = Step.NO_UNKNOWN | Step.NO_DATA
_SILENT = (
    Step.NO_REPLY_CONNECT
    | Step.NO_REPLY_HELO
    | Step.NO_REPLY_MAIL
    | Step.NO_REPLY_RCPT
    | Step.NO_REPLY_DATA
    | Step.NO_REPLY_UNKNOWN
    | Step.NO_REPLY_HEADER
    | Step.NO_REPLY_END_OF_HEADERS
)

#: The commands that get a reply, and the step that takes it away.
_NO_REPLY: tuple[tuple[type, Step], ...] = (
    (Connect, Step.NO_REPLY_CONNECT),
    (Helo, Step.NO_REPLY_HELO),
    (Mail, Step.NO_REPLY_MAIL),
    (Rcpt, Step.NO_REPLY_RCPT),
    (Data, Step.NO_REPLY_DATA),
    (Header, Step.NO_REPLY_HEADER),
    (EndOfHeaders, Step.NO_REPLY_END_OF_HEADERS),
    (Body, Step.NO_REPLY_BODY),
    (Unknown, Step.NO_REPLY_UNKNOWN),
)

#: The macros we use, by SMFIM_* stage number. {auth_author} is not among them: it is what the client wrote into MAIL's
#: AUTH= argument. The queue id `i` is for the log, so the last stage is early enough, and Sendmail has it at MAIL; where
#: nothing is asked for an empty list says so, else the MTA would send what it is configured to.
SYMBOLS: tuple[tuple[int, bytes], ...] = (
    (0, b"j {daemon_name} {client_addr} {client_name}"),
    (1, b"{tls_version} {cipher} {cert_subject} {verify}"),
    (2, b"i {auth_type} {auth_authen}"),
    (3, b""),
    (4, b""),
    (6, b""),
    (5, b"i"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What both sides agreed on.

    `can_add`, `can_change`: header fields may be added, and changed or deleted. `can_quarantine`: the MTA can hold a
    message. `can_skip`: a body chunk may be answered with SKIP. `leading_space`: header values come and go with the
    exact space after their colon. `missing`: what we had to do without. `answers`: the reply that each kind of event
    gets where there is nothing else to say; a kind that is not in it gets none.
    """

    version: int = 0
    can_add: bool = False
    can_change: bool = False
    can_quarantine: bool = False
    can_skip: bool = False
    leading_space: bool = False
    missing: tuple[Lack, ...] = ()
    answers: Mapping[type, Verb] = field(default_factory=dict)


@lru_cache(maxsize=64)
def negotiate(offer: Negotiate, *, want_skip: bool) -> tuple[Abilities, Negotiated]:
    """Answer an offer: of what we would have, that which is offered.

    Args:
        offer: the MTA's.
        want_skip: keep the replies to body chunks, to be able to end a body early; else do without them.

    Raises:
        RemoteProtocolError: a version before 2.
    """
    if offer.version < OLDEST_VERSION:
        raise RemoteProtocolError(f"milter protocol version {offer.version} is not spoken here")
    version = min(offer.version, NEWEST_VERSION)
    actions = int(_ACTIONS) & offer.actions
    wish = int(_UNWANTED | _SILENT | Step.LEADING_SPACE)
    steps = wish & offer.steps
    if want_skip and offer.steps & Step.SKIP:
        steps |= Step.SKIP
    else:
        steps |= Step.NO_REPLY_BODY & offer.steps
    missing = [
        lack
        for lack, flag in (
            (Lack.ADD_HEADERS, Action.ADD_HEADERS),
            (Lack.CHANGE_HEADERS, Action.CHANGE_HEADERS),
            (Lack.QUARANTINE, Action.QUARANTINE),
            (Lack.SYMBOLS, Action.SET_SYMBOLS),
        )
        if not actions & flag
    ]
    if not steps & Step.LEADING_SPACE:
        missing.append(Lack.LEADING_SPACE)
    if want_skip and not steps & Step.SKIP:
        missing.append(Lack.SKIP)
    if steps & _SILENT != _SILENT:
        missing.append(Lack.NO_REPLY)
    abilities = Abilities(
        version=version,
        can_add=bool(actions & Action.ADD_HEADERS),
        can_change=bool(actions & Action.CHANGE_HEADERS),
        can_quarantine=bool(actions & Action.QUARANTINE),
        can_skip=bool(steps & Step.SKIP),
        leading_space=bool(steps & Step.LEADING_SPACE),
        missing=tuple(missing),
        answers={kind: Verb.CONTINUE for kind, flag in _NO_REPLY if not steps & flag},
    )
    symbols = SYMBOLS if actions & Action.SET_SYMBOLS else ()
    return abilities, Negotiated(version, actions, int(steps), symbols)


# -- bytes to events ---------------------------------------------------------------------------------------------

_READINGS: Final[Mapping[str, Reading]] = {
    "A": Reading(Shape.NOTHING, Abort()),
    "B": Reading(Shape.OCTETS, maker(Body)),
    "C": Reading(Shape.CLIENT, maker(Connect), "a connection", {ord(family): family for family in Family}),
    "D": Reading(Shape.MACROS, maker(Macros), "macros", {ord(stage): stage for stage in Stage}),
    "E": Reading(Shape.OCTETS, maker(EndOfMessage)),
    "H": Reading(Shape.STRING, maker(Helo), "HELO"),
    "K": Reading(Shape.NOTHING, QuitNew()),
    "L": Reading(Shape.FIELD, maker(Fields), "a header packet"),
    "M": Reading(Shape.STRINGS, maker(Mail), "MAIL"),
    "N": Reading(Shape.NOTHING, EndOfHeaders()),
    "O": Reading(Shape.NUMBERS, Negotiate, "a negotiation packet"),
    "Q": Reading(Shape.NOTHING, Quit()),
    "R": Reading(Shape.STRINGS, maker(Rcpt), "RCPT"),
    "T": Reading(Shape.NOTHING, Data()),
    "U": Reading(Shape.STRING, maker(Unknown), "an unknown command"),
}

#: What makes an event of each packet.
_PACKETS: Final = PacketTable(
    readings=tuple(_READINGS.get(chr(octet)) for octet in range(256)), field=HeaderField, most=MAX_STRINGS
)


class Decoder:
    """Turns the bytes of one connection into events.

    Args:
        max_packet: the largest length field that is believed (octets).
    """

    __slots__ = ("_failed", "_held", "_max_packet", "_needed")

    def __init__(self, max_packet: int = DEFAULT_MAX_PACKET) -> None:
        self._max_packet = max_packet
        self._held = bytearray()
        self._needed = 0
        self._failed = ""

    @property
    def held(self) -> int:
        """How many octets of an unfinished packet are kept."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return the events that are complete, in order.

        Raises:
            RemoteProtocolError: the bytes are no milter protocol; so is every later call.
        """
        if self._failed:
            raise RemoteProtocolError(self._failed)
        held = self._held
        if held:
            held += data
            if len(held) < self._needed:
                return []
            data = bytes(held)
            held.clear()
        events, rest, self._needed, self._failed = read_packets(data, self._max_packet, _PACKETS)
        if self._failed:
            raise RemoteProtocolError(self._failed, tuple(events))
        if rest:
            held += rest
        return events
