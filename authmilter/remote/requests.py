"""Requests from keyword arguments, answers as the One JSON, messages in pieces.

How it fails: `ValueError` for a value that the request cannot hold; the server says what is wrong with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, TypedDict, Unpack, cast

from google.protobuf import json_format
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

from authmilter.remote.errors import CallError, failure_of_status
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.codec import plain, word_of, words

__all__ = [
    "About",
    "Sender",
    "StreamAnswer",
    "Zone",
    "answer_of",
    "pieces",
    "sign_request",
    "sign_start",
    "to_dict",
    "verify_request",
    "verify_start",
    "word",
    "zone_field",
]

#: DNS as data: `{"example.com": {"TXT": ["v=spf1 -all"]}}`; names to records, as in a zone file.
Zone = Mapping[str, Any]
#: Octets of a piece of an upload.
_PIECE = 64 << 10


class Sender(TypedDict, total=False):
    """What is known of a message besides itself: its id, session and envelope; all may be left out.

    `id` is echoed. `client_ip` is text; without it SPF and iprev are not asked. `login` is that of an authenticated
    client, None for none; `mail_from` may have its angle brackets, and empty or `<>` is a bounce. The others are as in
    authmilter.proto.
    """

    id: str
    client_ip: str | None
    client_name: str
    helo: str | None
    local_name: str | None
    login: str | None
    daemon_name: str
    tls: pb.TlsInfo | None
    mail_from: str
    rcpt_to: Sequence[str]
    mail_options: Sequence[str]


class About(Sender, total=False):
    """The same, and how the message is to be judged.

    `policy` names one of the server's. `now` judges as of then (UTC where it has no zone). `origin` is a word of
    `authmilter.mail.Origin`. `record=False` keeps the message out of records and counters, `explain=True` has the mail
    as it was read in the answer, `zone` is asked instead of the network, if the caller may.
    """

    policy: str
    authserv_id: str
    now: datetime | None
    origin: str | None
    record: bool
    explain: bool
    zone: Zone | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAnswer:
    """The answer to one message of a stream: `response`, or the `error` it ended with."""

    id: str
    response: pb.VerifyResponse | None = None
    error: CallError | None = None

    def verdict(self) -> pb.Verdict:
        """Return the verdict.

        Raises:
            CallError: there is none.
        """
        if self.response is None:
            assert self.error is not None  # one of both is there
            raise self.error
        return self.response.verdict


def verify_request(message: bytes, **about: Unpack[About]) -> pb.VerifyRequest:
    """Return a request to judge `message`.

    Raises:
        ValueError: `origin` is no origin, or `zone` not plain data.
    """
    return pb.VerifyRequest(message=message, **_about(about))


def verify_start(**about: Unpack[About]) -> pb.VerifyUploadStart:
    """Return the first piece of an upload; raises as `verify_request`."""
    return pb.VerifyUploadStart(**_about(about))


def sign_request(message: bytes, **sender: Unpack[Sender]) -> pb.SignRequest:
    """Return a request to sign `message`."""
    return pb.SignRequest(message=message, **_sender(sender))


def sign_start(**sender: Unpack[Sender]) -> pb.SignUploadStart:
    """Return the first piece of an upload that is to be signed."""
    return pb.SignUploadStart(**_sender(sender))


def _sender(given: Sender) -> dict[str, Any]:
    session = pb.Session(
        client_name=given.get("client_name", ""),
        daemon_name=given.get("daemon_name", ""),
        client_ip=given.get("client_ip"),
        helo=given.get("helo"),
        local_name=given.get("local_name"),
        authenticated=given.get("login"),
        tls=given.get("tls"),
    )
    envelope = pb.Envelope(
        mail_from=given.get("mail_from", ""),
        rcpt_to=given.get("rcpt_to", ()),
        mail_options=given.get("mail_options", ()),
    )
    return {"id": given.get("id", ""), "session": session, "envelope": envelope}


def _about(given: About) -> dict[str, Any]:
    options = pb.VerifyOptions(
        policy=given.get("policy", ""),
        authserv_id=given.get("authserv_id", ""),
        explain=given.get("explain", False),
        origin=_origin(given.get("origin")),
    )
    if not given.get("record", True):
        options.record = False
    now = given.get("now")
    if now is not None:
        options.now.FromDatetime(now)
    zone_field(options, given.get("zone"))
    return {**_sender(given), "options": options}


def _origin(word: str | None) -> str | None:
    """Return the name of an origin in authmilter.proto."""
    known = words(pb.Origin.DESCRIPTOR)
    if word is not None and word not in known:
        raise ValueError(f"`{word}` is no origin; there are: {', '.join(known)}")
    return f"ORIGIN_{word.upper()}" if word is not None else None


def zone_field(request: Any, zone: Zone | None) -> None:
    """Put a zone into a request's field `zone`.

    Raises:
        ValueError: it is not plain data.
    """
    if zone is None:
        return
    try:
        json_format.ParseDict(dict(zone), request.zone)
    except json_format.ParseError as e:
        raise ValueError(f"the zone is not plain data: {e}") from None


def pieces(source: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """Return a message in pieces: a file's octets, or what an iterator gives, cut where a piece is large."""
    if isinstance(source, bytes | bytearray | memoryview):
        source = (bytes(source),)
    if hasattr(source, "read"):
        while piece := source.read(_PIECE):
            yield piece
        return
    for given in source:
        for at in range(0, len(given), _PIECE):
            yield given[at : at + _PIECE]


def answer_of(answer: pb.VerifyStreamResponse) -> StreamAnswer:
    """Return one answer of a stream."""
    if answer.HasField("response"):
        return StreamAnswer(id=answer.id, response=answer.response)
    return StreamAnswer(id=answer.id, error=failure_of_status(answer.error))


def word(message: Message, field: str) -> str | None:
    """Return an enum field as its word: `word(verdict.decision, "disposition")` is `reject`; None where it is not set.

    Raises:
        KeyError: there is no such enum field.
    """
    found = message.DESCRIPTOR.fields_by_name[field].enum_type
    if found is None:
        raise KeyError(field)
    return word_of(cast("EnumDescriptor", found), getattr(message, field))


def to_dict(message: Message) -> dict[str, object]:
    """Return an answer, or a part of it, as the One JSON has it.

    Of a `Verdict` it is what `authmilter verify --json` prints, of a `GetStatusResponse` what `authmilter status --json`
    prints.
    """
    if isinstance(message, pb.GetStatusResponse):
        found = _whole(json_format.MessageToDict(message.details))
        assert isinstance(found, dict)  # as a Struct is
        return found
    return plain(message)


def _whole(value: object) -> object:
    """Return data with its whole numbers as such: a Struct has only doubles."""
    if isinstance(value, dict):
        return {k: _whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_whole(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
