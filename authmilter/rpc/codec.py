"""Requests to pieces of a mail, results to messages; and messages back to the One JSON, for clients.

`encode` cannot drift from the results: it walks any of our frozen values by the fields of the message of the same shape,
so that a field of the one that the other lacks is a failing test, and a word without its enum value an error. It
makes nested dicts, of which the message is built in one step (measured: three times as fast as message by message).

How it fails: decoding raises `Refused` with every wrong field; encoding is total for values of the mirrored types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from authmilter.dns.zone import ZoneResolver
from authmilter.errors import DecodeError
from authmilter.mail import Envelope, Origin, Session, TlsInfo
from authmilter.names import Domain, parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.refusal import Violation, bad_request
from authmilter.text import as_unicode, printable

__all__ = ["Options", "Problems", "encode", "plain", "word_of", "words"]

#: Octets of a caller's own name for a message.
_MAX_ID = 256
#: Characters of any text of a session or envelope.
_MAX_TEXT = 1024
_MAX_RECIPIENTS = 10_000
#: Recipients that are not ASCII: reading the name of such a domain takes hundreds of times as long.
_MAX_WIDE = 1000
_MAX_OPTIONS = 100
#: Octets of a zone that a caller brings along, as it is sent; characters of what is said about a wrong one.
_MAX_ZONE = 1 << 20
_MAX_COMPLAINT = 500

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_MAX_UINT32 = (1 << 32) - 1
_MAX_UINT64 = (1 << 64) - 1


# -- requests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`VerifyOptions`, read. `now` has its zone; `zone` is not yet allowed."""

    policy: str = ""
    authserv_id: str = ""
    now: datetime | None = None
    origin: Origin | None = None
    record: bool = True
    explain: bool = False
    zone: ZoneResolver | None = None


class Problems:
    """Reads the parts of a request, and collects what is wrong with them.

    Args:
        at: the path of the message that is read, with its dot, or empty.
    """

    __slots__ = ("_at", "found")

    def __init__(self, at: str = "") -> None:
        self._at = at
        self.found: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Note that a field is wrong."""
        self.found.append((self._at + field, description))

    def check(self) -> None:
        """Refuse the request if anything was wrong.

        Raises:
            Refused: INVALID_ARGUMENT.
        """
        if self.found:
            raise bad_request(self.found)

    def ident(self, value: str) -> str:
        """Read an id."""
        if len(value) > _MAX_ID or len(value.encode()) > _MAX_ID:
            self.add("id", f"longer than {_MAX_ID} octets")
            return ""
        return value

    def session(self, given: pb.Session, field: str = "session") -> Session:
        """Read an SMTP session."""
        ip = parse_ip(given.client_ip) if given.client_ip else None
        if given.client_ip and ip is None:
            self.add(f"{field}.client_ip", f"`{printable(given.client_ip, 64)}` is no IP address")
        local_name = Domain.maybe(given.local_name) if given.local_name else None
        if given.local_name and local_name is None:
            self.add(f"{field}.local_name", f"`{printable(given.local_name, 64)}` is no host name")
        tls = None
        if given.HasField("tls"):
            tls = TlsInfo(
                version=self._text(given.tls.version, f"{field}.tls.version"),
                cipher=self._text(given.tls.cipher, f"{field}.tls.cipher"),
                subject=self._text(given.tls.subject, f"{field}.tls.subject"),
            )
        authenticated = None
        if given.HasField("authenticated"):
            authenticated = self._text(given.authenticated, f"{field}.authenticated")
        return Session(
            client_ip=ip,
            client_name=self._text(given.client_name, f"{field}.client_name"),
            helo=parse_helo(given.helo) if self._text(given.helo, f"{field}.helo") else None,
            local_name=local_name,
            authenticated=authenticated,
            daemon_name=self._text(given.daemon_name, f"{field}.daemon_name"),
            tls=tls,
        )

    def envelope(self, given: pb.Envelope, field: str = "envelope") -> Envelope:
        """Read an SMTP envelope."""
        if len(given.rcpt_to) > _MAX_RECIPIENTS:
            self.add(f"{field}.rcpt_to", f"more than {_MAX_RECIPIENTS}")
            return Envelope()
        if sum(not r.isascii() for r in given.rcpt_to) > _MAX_WIDE:
            self.add(f"{field}.rcpt_to", f"more than {_MAX_WIDE} that are not ASCII")
            return Envelope()
        if len(given.mail_options) > _MAX_OPTIONS:
            self.add(f"{field}.mail_options", f"more than {_MAX_OPTIONS}")
            return Envelope()
        return Envelope(
            mail_from=parse_reverse_path(self._text(given.mail_from, f"{field}.mail_from")),
            rcpt_to=tuple(
                parse_recipient(self._text(r, f"{field}.rcpt_to[{n}]")) for n, r in enumerate(given.rcpt_to)
            ),
            mail_options=tuple(
                self._text(o, f"{field}.mail_options[{n}]") for n, o in enumerate(given.mail_options)
            ),
        )

    def options(self, given: pb.VerifyOptions) -> Options:
        """Read how a message is to be judged."""
        authserv_id = Domain.maybe(given.authserv_id) if given.authserv_id else None
        if given.authserv_id and authserv_id is None:
            self.add("options.authserv_id", f"`{printable(given.authserv_id, 64)}` is no host name")
        origin = word_of(pb.Origin.DESCRIPTOR, given.origin)
        if origin is None and given.origin:
            self.add("options.origin", f"{given.origin} is no value of Origin")
        return Options(
            policy=self._text(given.policy, "options.policy"),
            authserv_id=authserv_id.ascii if authserv_id is not None else "",
            now=self._time(given.now, "options.now") if given.HasField("now") else None,
            origin=Origin(origin) if origin is not None else None,
            record=given.record or not given.HasField("record"),
            explain=given.explain,
            zone=self.zone(given.zone, "options.zone") if given.HasField("zone") else None,
        )

    def zone(self, given: Struct, field: str) -> ZoneResolver | None:
        """Read a zone."""
        if given.ByteSize() > _MAX_ZONE:
            self.add(field, f"larger than {_MAX_ZONE} octets")
            return None
        try:
            return ZoneResolver(json_format.MessageToDict(given))
        except (DecodeError, json_format.SerializeToJsonError) as e:
            self.add(field, printable(str(e), _MAX_COMPLAINT))
            return None

    def domain(self, given: str, field: str = "domain") -> Domain:
        """Read a domain that must be there."""
        domain = Domain.maybe(given) if given else None
        if domain is None:
            self.add(field, f"`{printable(given, 64)}` is no domain name" if given else "is missing")
        return domain or Domain("invalid")

    def _time(self, given: Timestamp, field: str) -> datetime | None:
        try:
            return given.ToDatetime(UTC)
        except (ValueError, OverflowError):
            self.add(field, "is no time between the years 1 and 9999")
            return None

    def _text(self, text: str, field: str) -> str:
        # Nothing else is refused: what no name may be is judged as malformed, as at the other doors.
        if len(text) > _MAX_TEXT:
            self.add(field, f"longer than {_MAX_TEXT} characters")
            return ""
        return text


# -- results -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def words(enum: EnumDescriptor) -> Mapping[str, int]:
    """Return the words of an enum and their numbers: names without their prefix, in lower case, but not the zero."""
    prefix = _CAPITAL.sub("_", enum.name).upper() + "_"
    return {v.name.removeprefix(prefix).lower(): v.number for v in enum.values if v.number}


@lru_cache(maxsize=128)
def _by_number(enum: EnumDescriptor) -> Mapping[int, str]:
    return {number: word for word, number in words(enum).items()}


def word_of(enum: EnumDescriptor, number: int) -> str | None:
    """Return the word of an enum's number; None for the zero, and for one that is not known here."""
    return _by_number(enum).get(number)


_Converter = Callable[[Any], Any]


def _fields(descriptor: Descriptor) -> list[FieldDescriptor]:
    found = cast("list[FieldDescriptor]", list(descriptor.fields))  # two classes of one shape
    return [f for f in found if f.full_name not in _LEFT_OUT]


def _message_of(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None  # by the field's type
    return field.message_type


def _enum_of(field: FieldDescriptor) -> EnumDescriptor:
    assert field.enum_type is not None  # by the field's type
    return field.enum_type


def _string(value: object) -> str:
    if type(value) is str:
        return value if value.isascii() else as_unicode(value)
    return as_unicode(str(value))


def _uint32(value: int) -> int:
    return min(max(value, 0), _MAX_UINT32)


def _uint64(value: int) -> int:
    return min(max(value, 0), _MAX_UINT64)


def _as_it_is(value: object) -> object:
    return value


def _timestamp(value: datetime) -> dict[str, int]:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return {"seconds": stamp.seconds, "nanos": stamp.nanos}


def _one_of(descriptor: Descriptor) -> _Converter:
    """Return what writes one of several kinds: `InsertHeader` is the field `insert_header`."""
    fields = {_message_of(f).name: (f.name, _writer(_message_of(f))) for f in _fields(descriptor)}

    def convert(value: object) -> dict[str, Any]:
        name, write = fields[type(value).__name__]
        return {name: write(value)}

    return convert


def _listed(descriptor: Descriptor) -> _Converter:
    """Return what writes a tuple that is a message: `None` and empty differ there."""
    (field,) = _fields(descriptor)
    convert = _single(field)

    def write(values: tuple[object, ...]) -> dict[str, Any]:
        return {field.name: [convert(v) for v in values]}

    return write


#: Messages that are not written field by field.
_SPECIAL: dict[str, Callable[[Descriptor], _Converter]] = {
    "google.protobuf.Timestamp": lambda _: _timestamp,
    "authmilter.v1.DkimResults": _listed,
    "authmilter.v1.LocalParts": _listed,
    "authmilter.v1.Edit": _one_of,
    "authmilter.v1.Tag": _one_of,
}
#: Fields that the One JSON has not, and that are large.
_LEFT_OUT = frozenset({"authmilter.v1.Indicator.svg"})
_BY_TYPE: dict[int, _Converter] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_UINT32: _uint32,
    FieldDescriptor.TYPE_UINT64: _uint64,
}


def _single(field: FieldDescriptor) -> _Converter:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _writer(_message_of(field))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return words(_enum_of(field)).__getitem__
    return _BY_TYPE.get(field.type, _as_it_is)


@lru_cache(maxsize=128)
def _writer(descriptor: Descriptor) -> _Converter:
    """Return what makes a dict of a value, by the fields of the message that mirrors it."""
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special(descriptor)
    single = [(f.name, _single(f), f.has_presence) for f in _fields(descriptor) if not f.is_repeated]
    repeated = [(f.name, _single(f)) for f in _fields(descriptor) if f.is_repeated]

    def write(value: object) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, convert, has_presence in single:
            item = getattr(value, name)
            # What is not set is as good as the default, and need not be written.
            if item if not has_presence else item is not None:
                out[name] = convert(item)
        for name, convert in repeated:
            items = getattr(value, name)
            if items:
                out[name] = [convert(item) for item in items]
        return out

    return write


def encode(value: object, message: type[Message]) -> Any:
    """Return one of our values as what the message that mirrors it is built of: `pb.Verdict(**encode(v, pb.Verdict))`.

    Where the message is a field of another, the dict is given as that field.
    """
    return _writer(cast("Descriptor", message.DESCRIPTOR))(value)


# -- back to the One JSON ----------------------------------------------------------------------------------------------


def plain(message: Message) -> dict[str, object]:
    """Return a message as the One JSON has it (`authmilter.verdict_json`): for a `Verdict`, what `verdict_to_dict` gives."""
    out: dict[str, object] = {}
    for field in _fields(cast("Descriptor", message.DESCRIPTOR)):
        if field.is_repeated:
            out[field.name] = [_plain_value(field, item) for item in getattr(message, field.name)]
        elif not field.has_presence or message.HasField(field.name):
            value = _plain_value(field, getattr(message, field.name))
            if value is not None:
                out[field.name] = value
    return out


def _plain_value(field: FieldDescriptor, value: Any) -> object:
    if field.type == FieldDescriptor.TYPE_ENUM:
        return word_of(_enum_of(field), value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return cast("bytes", value).decode("utf-8", "backslashreplace")
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        return cast("object", value)
    name = _message_of(field).full_name
    if name == "google.protobuf.Timestamp":
        return cast("Timestamp", value).ToDatetime(UTC).isoformat()
    special = _SPECIAL.get(name)
    if special is _listed:
        (inner,) = _fields(_message_of(field))
        return [_plain_value(inner, item) for item in getattr(value, inner.name)]
    if special is _one_of:
        op = value.WhichOneof("op")
        return {"op": op, **plain(getattr(value, op))} if op else {}
    return plain(value)
