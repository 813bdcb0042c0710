"""A milter client for tests: what Postfix's smtpd says and does, without any of our own code.

Written against mfdef.h and Postfix's behaviour (milter versions 2 to 6), so that it is a second reading of the
protocol beside `authmilter.milter.protocol`. A `Conversation` is sans-IO: its methods are generators that yield bytes
to send, or None to be given the next packet. `converse` runs them over a stream, `Local` over a session in memory.

`deliver` is the whole of it: connect, say one message, and return the `Outcome`, with the header block as the MTA
would deliver it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from authmilter.milter.protocol import Decoder
from authmilter.milter.session import MilterSession, Pending

T = TypeVar("T")
Packet = tuple[str, bytes]
Talk = Generator[bytes | None, Packet, T]

ADDHDRS, CHGHDRS, QUARANTINE, SETSYMLIST = 0x1, 0x10, 0x20, 0x100
ALL_ACTIONS = 0x1FF
NOCONNECT, NOHELO, NOMAIL, NORCPT, NOBODY, NOHDRS, NOEOH = (1 << n for n in range(7))
(
    NR_HDR,
    NOUNKNOWN,
    NODATA,
    SKIP,
    RCPT_REJ,
    NR_CONN,
    NR_HELO,
    NR_MAIL,
    NR_RCPT,
    NR_DATA,
    NR_UNKN,
    NR_EOH,
    NR_BODY,
    LEADSPC,
) = (1 << n for n in range(7, 21))
ALL_STEPS = 0x1FFFFF
#: What a milter protocol version may offer at most (mfdef.h, Postfix's milter8.c).
STEPS_OF_VERSION = {
    2: 0x7F,
    3: 0x7F | NOUNKNOWN,
    4: 0x7F | NOUNKNOWN | NODATA | NR_HDR,
    5: 0x7F | NOUNKNOWN | NODATA | NR_HDR,
    6: ALL_STEPS,
}
ACTIONS_OF_VERSION = {2: 0x3F, 3: 0x3F, 4: 0x3F, 5: 0x3F, 6: ALL_ACTIONS}
STAGES = {"C": 0, "H": 1, "M": 2, "R": 3, "T": 4, "E": 5, "N": 6}
CHUNK = 65535
OWN_RECEIVED = (b"Received", b" by mx.rig.example; Mon, 1 Jun 2026 10:00:00 +0000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the MTA offers to begin with."""

    version: int = 6
    actions: int = ALL_ACTIONS
    steps: int = ALL_STEPS

    @classmethod
    def of_version(cls, version: int) -> Offer:
        return cls(version=version, actions=ACTIONS_OF_VERSION[version], steps=STEPS_OF_VERSION[version])


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An SMTP client and its envelope, as the MTA reports them; `macros` are added to the usual ones, by stage."""

    hostname: bytes = b"mail.example.org"
    family: str = "4"
    address: bytes = b"192.0.2.1"
    port: int = 4711
    helo: bytes | None = b"mail.example.org"
    mail_from: tuple[bytes, ...] = (b"<alice@example.org>", b"SIZE=1000")
    rcpt_to: tuple[tuple[bytes, ...], ...] = ((b"<bob@rig.example>",),)
    macros: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    queue_id: bytes = b"4cRgTestId"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a message. `final` is accept, reject, tempfail, discard, shutdown; `reply` the SMTP reply's text;
    `replies` are those to its end."""

    final: str = ""
    reply: str = ""
    stage: str = ""
    replies: list[Packet] = field(default_factory=list)
    edits: list[tuple[str, int, bytes, bytes]] = field(default_factory=list)
    progress: int = 0
    quarantined: str | None = None
    skipped: bool = False
    body_octets: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def header_block(self) -> bytes:
        """The delivered header, byte for byte."""
        return b"".join(name + b":" + value + b"\r\n" for name, value in self.headers)


class MilterGone(Exception):  # noqa: N818 - the fact it states
    """The milter closed the connection."""


class IllegalReply(Exception):  # noqa: N818 - the fact it states
    """The milter sent what it must not send there."""


def packet(command: str, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload) + 1) + command.encode("latin-1") + payload


def strings(*values: bytes) -> bytes:
    return b"".join(value + b"\0" for value in values)


def split_message(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Split a message (CRLF) into its fields (value with its leading space, folds as CRLF) and its body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    fields: list[tuple[bytes, bytes]] = []
    for line in head.split(b"\r\n") if head else []:
        if line[:1] in {b" ", b"\t"} and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + b"\r\n" + line)
        else:
            name, _, value = line.partition(b":")
            fields.append((name, value))
    return fields, body


class Conversation:
    """The MTA's side of one milter connection."""

    def __init__(self, offer: Offer | None = None, *, last_chunk_with_end: bool = False) -> None:
        self.offer = offer or Offer()
        self.last_chunk_with_end = last_chunk_with_end
        self.version = self.actions = self.steps = 0
        self.symbols: dict[int, list[str]] = {}

    # -- the connection ----------------------------------------------------------------------------------------

    def negotiate(self) -> Talk[None]:
        offer = self.offer
        yield packet("O", struct.pack(">III", offer.version, offer.actions, offer.steps))
        command, payload = yield None
        if command != "O" or len(payload) < 12:
            raise IllegalReply(f"{command} to a negotiation")
        self.version, self.actions, self.steps = struct.unpack_from(">III", payload)
        if self.version > offer.version or self.actions & ~offer.actions or self.steps & ~offer.steps:
            raise IllegalReply(f"asked for more than was offered: {payload!r}")
        rest = payload[12:]
        while rest:
            if not self.actions & SETSYMLIST:
                raise IllegalReply("a macro list that was not agreed on")
            (stage,) = struct.unpack_from(">I", rest)
            names, nul, rest = rest[4:].partition(b"\0")
            if not nul:
                raise IllegalReply("a macro list without its end")
            self.symbols[stage] = names.decode().split()

    def connect(self, client: Client) -> Talk[None]:
        usual = {
            "j": b"mx.rig.example",
            "{daemon_name}": b"smtpd",
            "{daemon_addr}": b"192.0.2.99",
            "v": b"Postfix 3.9",
            "_": client.hostname + b" [" + client.address + b"]",
            "{client_addr}": client.address,
            "{client_name}": client.hostname,
            "{client_ptr}": client.hostname,
        }
        yield self._macros("C", usual, client)
        payload = strings(client.hostname) + client.family.encode()
        if client.family != "U":
            payload += struct.pack(">H", client.port) + strings(client.address)
        yield from self._command("C", payload, NOCONNECT, NR_CONN)

    def helo(self, client: Client) -> Talk[None]:
        if client.helo is not None:
            yield self._macros("H", {}, client)
            yield from self._command("H", strings(client.helo), NOHELO, NR_HELO)

    def hello(self, client: Client) -> Talk[None]:
        """Negotiate, report the client and its HELO."""
        yield from self.negotiate()
        yield from self.connect(client)
        yield from self.helo(client)

    def mail(self, client: Client) -> Talk[None]:
        usual = {
            "{mail_addr}": client.mail_from[0].strip(b"<>"),
            "{mail_host}": b"",
            "{mail_mailer}": b"local",
        }
        yield self._macros("M", usual, client)
        yield from self._command("M", strings(*client.mail_from), NOMAIL, NR_MAIL)

    def rcpt(self, client: Client) -> Talk[None]:
        for n, args in enumerate(client.rcpt_to):
            usual = {
                "{rcpt_addr}": args[0].strip(b"<>"),
                "{rcpt_host}": b"rig.example",
                "{rcpt_mailer}": b"smtp",
            }
            if n:
                usual["i"] = client.queue_id  # Postfix has none before the first recipient is accepted
            yield self._macros("R", usual, client)
            yield from self._command("R", strings(*args), NORCPT, NR_RCPT)

    def data(self, client: Client) -> Talk[None]:
        yield self._macros("T", {"i": client.queue_id}, client)
        if self.offer.version >= 4:
            yield from self._command("T", b"", NODATA, NR_DATA)

    def unknown(self, command: bytes) -> Talk[None]:
        if self.offer.version >= 3:
            yield from self._command("U", strings(command), NOUNKNOWN, NR_UNKN)

    def header(self, name: bytes, value: bytes) -> Talk[None]:
        value = value.replace(b"\r\n", b"\n")
        if not self.steps & LEADSPC:
            value = value.removeprefix(b" ")
        yield from self._command("L", strings(name, value), NOHDRS, NR_HDR)

    def end_of_headers(self, client: Client) -> Talk[None]:
        yield self._macros("N", {"i": client.queue_id}, client)
        yield from self._command("N", b"", NOEOH, NR_EOH)

    def body(self, body: bytes, outcome: Outcome) -> Talk[bytes]:
        """Send the body, until told to skip it; return what goes with the end of the message."""
        at = 0
        while at < len(body) and not self.steps & NOBODY:
            chunk = body[at : at + CHUNK]
            at += len(chunk)
            if self.last_chunk_with_end and at >= len(body):
                return chunk
            outcome.body_octets += len(chunk)
            yield packet("B", chunk)
            if self.steps & NR_BODY:
                continue
            command, payload = yield from self._reply(outcome)
            if command == "s" and self.steps & SKIP and not payload:
                outcome.skipped = True
                break
            if command != "c" or payload:
                raise IllegalReply(f"{command} to a body chunk")
        return b""

    def abort(self) -> Talk[None]:
        yield packet("A")

    def quit(self, *, new: bool = False) -> Talk[None]:
        yield packet("K" if new else "Q")

    # -- a message -----------------------------------------------------------------------------------------------

    def message(self, client: Client, raw: bytes) -> Talk[Outcome]:
        """Say one message, from MAIL to the milter's last word."""
        outcome = Outcome()
        fields, body = split_message(raw)
        yield from self.mail(client)
        yield from self.rcpt(client)
        yield from self.data(client)
        for name, value in fields:
            yield from self.header(name, value)
        yield from self.end_of_headers(client)
        last = yield from self.body(body, outcome)
        yield self._macros("E", {"i": client.queue_id}, client)
        yield packet("E", last)
        outcome.stage = "E"
        visible = list(fields)
        inserted: list[tuple[int, bytes, bytes]] = []
        while not outcome.final:
            command, payload = yield from self._reply(outcome)
            # at the end of a message, to accept it is to go on
            outcome.replies.append(("a" if command == "c" else command, payload))
            self._take(command, payload, outcome, visible, inserted)
        outcome.headers = [OWN_RECEIVED, *visible]
        for at, name, value in inserted:
            outcome.headers.insert(at if at >= 0 else len(outcome.headers), (name, value))
        return outcome

    def deliver(self, client: Client, raw: bytes) -> Talk[Outcome]:
        """Say everything, for one message."""
        yield from self.hello(client)
        outcome = yield from self.message(client, raw)
        yield from self.abort()  # Postfix does, after each message
        yield from self.quit()
        return outcome

    # -- the parts -----------------------------------------------------------------------------------------------

    def _macros(self, stage: str, usual: Mapping[str, bytes], client: Client) -> bytes:
        values = {**usual, **client.macros.get(stage, {})}
        wanted = self.symbols.get(STAGES[stage])
        if wanted is not None:
            values.setdefault("j", b"mx.rig.example")  # known at every stage, sent where asked for
        sent = [
            (name, value) for name, value in values.items() if value and (wanted is None or name in wanted)
        ]
        if not sent:
            return b""
        return packet("D", stage.encode() + b"".join(strings(name.encode(), value) for name, value in sent))

    def _command(self, command: str, payload: bytes, unwanted: int, silent: int) -> Talk[None]:
        if self.steps & unwanted:
            return
        yield packet(command, payload)
        if self.steps & silent:
            return
        answer, rest = yield None
        if answer != "c" or rest:
            raise IllegalReply(f"{answer}{rest!r} to {command}")

    def _reply(self, outcome: Outcome) -> Talk[Packet]:
        while True:
            command, payload = yield None
            if command != "p":
                return command, payload
            if payload:
                raise IllegalReply("a sign of progress with data")
            outcome.progress += 1

    def _value(self, value: bytes) -> bytes:
        if b"\r" in value:
            raise IllegalReply("a CR in a header value")
        return (value if self.steps & LEADSPC else b" " + value).replace(b"\n", b"\r\n")

    def _take(
        self,
        command: str,
        payload: bytes,
        outcome: Outcome,
        visible: list[tuple[bytes, bytes]],
        inserted: list[tuple[int, bytes, bytes]],
    ) -> None:
        finals = {
            "a": "accept",
            "c": "accept",
            "r": "reject",
            "t": "tempfail",
            "d": "discard",
            "4": "shutdown",
        }
        if command in finals:
            if payload:
                raise IllegalReply(f"{command} with data")
            outcome.final = finals[command]
        elif command == "y":
            outcome.final, outcome.reply = _smtp_reply(payload)
        elif command == "q":
            self._allowed(QUARANTINE)
            outcome.quarantined = payload.removesuffix(b"\0").decode("ascii")
        elif command in {"i", "m"}:
            self._allowed(ADDHDRS if command == "i" else CHGHDRS)
            (at,) = struct.unpack_from(">I", payload)
            name, value = _two_strings(payload[4:])
            outcome.edits.append((command, at, name, value))
            if command == "i":
                inserted.append((at, name, self._value(value)))
                return
            places = [n for n, (other, _) in enumerate(visible) if other.lower() == name.lower()]
            if max(at, 1) > len(places):
                return
            place = places[max(at, 1) - 1]
            visible[place : place + 1] = [(name, self._value(value))] if value else []
        elif command == "h":
            self._allowed(ADDHDRS)
            name, value = _two_strings(payload)
            outcome.edits.append((command, 0, name, value))
            inserted.append((-1, name, self._value(value)))
        else:
            raise IllegalReply(f"{command} at the end of a message")

    def _allowed(self, action: int) -> None:
        if not self.actions & action:
            raise IllegalReply(f"an edit that was not agreed on (0x{action:x})")


def _two_strings(payload: bytes) -> tuple[bytes, bytes]:
    name, value, end = payload.split(b"\0")
    if end or not name:
        raise IllegalReply(f"{payload!r} is no header field")
    return name, value


def _smtp_reply(payload: bytes) -> tuple[str, str]:
    """Check a reply as Postfix does, and undo the doubling of per cent signs."""
    if not payload.endswith(b"\0"):
        raise IllegalReply("an SMTP reply without its final NUL")
    lines = payload[:-1].decode("ascii").split("\r\n")
    for n, line in enumerate(lines):
        sound = line[:3].isdigit() and line[0] in "45" and line[4:5] == line[0] and line[:3] == lines[0][:3]
        if not sound or line[3] != (" " if n == len(lines) - 1 else "-") or len(line) > 510:
            raise IllegalReply(f"Postfix would not take {line!r}")
    text = "\r\n".join(lines)
    if text.replace("%%", "").count("%"):
        raise IllegalReply("a per cent sign that is not doubled")
    return ("reject" if text[0] == "5" else "tempfail"), text.replace("%%", "%")


# -- running a conversation ----------------------------------------------------------------------------------------


class Local:
    """Runs conversations against a session in memory; verdicts must not have to wait."""

    def __init__(self, session: MilterSession) -> None:
        self.session = session
        self._decoder = Decoder()
        self._replies = bytearray()

    def run(self, talk: Talk[T]) -> T:
        asked = False
        try:
            item = next(talk)
            while True:
                if item is None:
                    item = talk.send(self._next())
                    asked = True
                else:
                    self._feed(item)
                    item = next(talk)
        except StopIteration as done:
            assert asked or not self._replies
            value: T = done.value
            return value

    @property
    def unread(self) -> bytes:
        """Replies that nobody asked for."""
        return bytes(self._replies)

    def _feed(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            reply = self.session.handle(event)
            if isinstance(reply, Pending):
                try:
                    self.session.answer().send(None)
                except StopIteration as done:
                    for each in done.value:
                        self._replies += each.wire
            elif reply is not None:
                self._replies += reply.wire

    def _next(self) -> Packet:
        if len(self._replies) < 5:
            raise MilterGone("no reply is there, and the MTA would wait for one")
        (length,) = struct.unpack_from(">I", self._replies)
        payload = bytes(self._replies[4 : 4 + length])
        del self._replies[: 4 + length]
        return chr(payload[0]), payload[1:]


async def converse(
    talk: Talk[T], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, seconds: float = 30.0
) -> T:
    """Run a conversation over a stream; what is to be sent is sent when a reply is wanted, as Postfix does."""
    pending: list[bytes] = []
    try:
        async with asyncio.timeout(seconds):
            item = next(talk)
            while True:
                if item is not None:
                    pending.append(item)
                    if sum(map(len, pending)) > 4 * CHUNK:
                        writer.write(b"".join(pending))
                        pending.clear()
                        await writer.drain()
                    item = next(talk)
                    continue
                writer.write(b"".join(pending))
                pending.clear()
                await writer.drain()
                item = talk.send(await read_packet(reader))
    except StopIteration as done:
        writer.write(b"".join(pending))
        value: T = done.value
        return value


async def read_packet(reader: asyncio.StreamReader) -> Packet:
    """Read one packet.

    Raises:
        MilterGone: the connection ended instead.
    """
    try:
        (length,) = struct.unpack(">I", await reader.readexactly(4))
        payload = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as e:
        raise MilterGone from e
    return chr(payload[0]), payload[1:]


async def open_stream(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to `unix:/path` or `inet:host:port`."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return await asyncio.open_unix_connection(rest)
    host, _, port = rest.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


async def deliver(
    address: str,
    raw: bytes,
    client: Client | None = None,
    *,
    offer: Offer | None = None,
    seconds: float = 30.0,
) -> Outcome:
    """Connect to a milter, say one message as Postfix does, and return what came of it."""
    outcomes = await deliver_all(address, [(client or Client(), raw)], offer=offer, seconds=seconds)
    return outcomes[0]


async def deliver_all(
    address: str,
    messages: Sequence[tuple[Client, bytes]],
    *,
    offer: Offer | None = None,
    seconds: float = 30.0,
) -> list[Outcome]:
    """The same with several messages of one SMTP session (the first one's client)."""
    reader, writer = await open_stream(address)
    conversation = Conversation(offer)
    outcomes: list[Outcome] = []
    try:
        await converse(conversation.hello(messages[0][0]), reader, writer, seconds=seconds)
        for client, raw in messages:
            outcomes.append(
                await converse(conversation.message(client, raw), reader, writer, seconds=seconds)
            )
            await converse(conversation.abort(), reader, writer, seconds=seconds)
        await converse(conversation.quit(), reader, writer, seconds=seconds)
    finally:
        writer.close()
    return outcomes
