"""One milter connection, without any I/O: events in, replies out, and a verification driven in between.

How a conversation goes
-----------------------
The MTA opens a connection for (mostly) one SMTP session, both sides agree on what they can do, and the MTA reports
the client (CONNECT), its HELO, and then one message after the other: MAIL, RCPT (several), DATA, header fields, the
end of the header, body chunks, the end of the message. Only that last one is ever answered with more than "go on":
one reply decides about the whole message, with its edits before it. Before each command the MTA may send macros,
which belong to that command. At any point ABORT ends the message (RSET, a refused recipient, a lost client), QUIT
ends the connection, and QUIT_NC ends the client, with another one to follow on the same connection.

Rules of the machine
--------------------
1. `TRANSITIONS` says for each phase which events may come and which phase follows. An event that is not there is
   a fault of the MTA (`RemoteProtocolError`): an answer could be taken for another command's, so the connection is
   closed and the MTA falls back on its own default action. libmilter ignores such events; then both sides wait.
2. HELO and MAIL inside a message begin anew: what was open is aborted first. Postfix does send EHLO before its ABORT.
3. A message needs no RCPT, DATA or end of headers to be judged: old MTAs do not send all of them.
4. While the verdict is awaited (JUDGING) the MTA waits too: only ABORT, QUIT and QUIT_NC may come.
5. Macros belong to the next command of their kind and to no later one, so that nobody inherits the
   authentication of a message before. HELO's and CONNECT's stay until the next HELO and CONNECT.
6. An exception in here or in the verification breaks the message, never the session: it is told to `bug`, and the end
   of the message is answered with `on_error`.

How it fails: `handle` raises `RemoteProtocolError` and nothing else; `answer`, `conclude` and `lost` raise nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Protocol

from authmilter.mail import Session, TlsInfo
from authmilter.makers import maker
from authmilter.message import MAX_FIELDS, MAX_HEADER_OCTETS, Message
from authmilter.message import Header as HeaderField
from authmilter.milter.protocol import (
    Abilities,
    Abort,
    Body,
    ChangeField,
    Connect,
    Data,
    EndOfHeaders,
    EndOfMessage,
    Event,
    Family,
    Fields,
    Header,
    Helo,
    InsertField,
    Lack,
    Macros,
    Mail,
    Negotiate,
    QuarantineMessage,
    Quit,
    QuitNew,
    Rcpt,
    RemoteProtocolError,
    Repeated,
    Reply,
    ReplyCode,
    Stage,
    Unknown,
    Verb,
    negotiate,
)
from authmilter.names import (
    Domain,
    IPAddress,
    Recipient,
    ReversePath,
    parse_helo,
    parse_ip,
    parse_recipient,
    parse_reverse_path,
)
from authmilter.names import Helo as HeloName
from authmilter.octets.chosen import fields_size
from authmilter.verdict import (
    ChangeHeader,
    Decision,
    DeleteHeader,
    Disposition,
    InsertHeader,
    Quarantine,
    SmtpReply,
    Verdict,
)

__all__ = [
    "PENDING",
    "TRANSITIONS",
    "MilterSession",
    "Pending",
    "Phase",
    "SessionFactory",
    "SessionSettings",
    "Verification",
    "translate",
]


class Phase(StrEnum):
    """Where a connection stands."""

    #: nothing was said yet
    NEW = "new"
    #: agreed on the protocol; no SMTP client
    IDLE = "idle"
    #: an SMTP client, no message
    CLIENT = "client"
    #: MAIL was seen, RCPT may have been
    ENVELOPE = "envelope"
    #: DATA or a header field was seen
    HEADERS = "headers"
    #: the header is complete
    BODY = "body"
    #: the message is complete, its verdict awaited
    JUDGING = "judging"
    #: over
    CLOSED = "closed"


_ANEW: Final[dict[type, Phase]] = {
    Helo: Phase.CLIENT,
    Mail: Phase.ENVELOPE,
    Abort: Phase.CLIENT,
    QuitNew: Phase.IDLE,
    Quit: Phase.CLOSED,
}

#: Which events may come in which phase, and the phase after them.
TRANSITIONS: Final[Mapping[Phase, Mapping[type, Phase]]] = MappingProxyType(
    {
        Phase.NEW: {Negotiate: Phase.IDLE, Quit: Phase.CLOSED},
        Phase.IDLE: {
            Macros: Phase.IDLE,
            Connect: Phase.CLIENT,
            Unknown: Phase.IDLE,
            Abort: Phase.IDLE,
            QuitNew: Phase.IDLE,
            Quit: Phase.CLOSED,
        },
        Phase.CLIENT: {**_ANEW, Macros: Phase.CLIENT, Unknown: Phase.CLIENT},
        Phase.ENVELOPE: {
            **_ANEW,
            Macros: Phase.ENVELOPE,
            Unknown: Phase.ENVELOPE,
            Rcpt: Phase.ENVELOPE,
            Data: Phase.HEADERS,
            Header: Phase.HEADERS,
            Fields: Phase.HEADERS,
            EndOfHeaders: Phase.BODY,
            Body: Phase.BODY,
            EndOfMessage: Phase.JUDGING,
        },
        Phase.HEADERS: {
            **_ANEW,
            Macros: Phase.HEADERS,
            Header: Phase.HEADERS,
            Fields: Phase.HEADERS,
            EndOfHeaders: Phase.BODY,
            Body: Phase.BODY,
            EndOfMessage: Phase.JUDGING,
        },
        Phase.BODY: {
            **_ANEW,
            Macros: Phase.BODY,
            Body: Phase.BODY,
            EndOfMessage: Phase.JUDGING,
        },
        Phase.JUDGING: {Abort: Phase.CLIENT, QuitNew: Phase.IDLE, Quit: Phase.CLOSED},
        Phase.CLOSED: {},
    }
)


class Pending(Enum):
    """What `handle` returns at the end of a message: await `answer`, then send what it returns."""

    PENDING = "pending"


PENDING: Final = Pending.PENDING


class Verification(Protocol):
    """One message on its way to a verdict; the calls come in this order, `cancel` at any time."""

    def queue_id(self, queue_id: str, /) -> None:
        """Take the MTA's queue id, as soon as it is known (with Postfix after MAIL)."""

    def sender(self, mail_from: ReversePath, options: tuple[str, ...], /) -> None:
        """Take the reverse-path and the ESMTP arguments of MAIL."""

    def recipient(self, rcpt: Recipient, /) -> None:
        """Take one recipient."""

    def headers(self, message: Message, /) -> bool:
        """Take the header; True if the body is wanted."""

    def body(self, chunk: bytes, /) -> bool:
        """Take a piece of the body; True if more is wanted."""

    def body_cut(self) -> None:
        """Learn that the body is longer than what will be given."""

    async def verdict(self) -> Verdict:
        """Judge the message.

        The first step may run outside any task: what needs the current task (`asyncio.timeout`, a task group) may
        stand only after the first suspension. `asyncio.wait` and `gather` are fine from the start.
        """

    def cancel(self) -> None:
        """Stop: no verdict is wanted any more. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What an administrator may set of a session.

    `body_cap`: octets of a body that are looked at; None: all of it (then bodies come without replies, which is
    faster, and cannot be ended early). `max_recipients`: how many are kept of one message. `on_error`: TEMPFAIL or ACCEPT, the answer to a message
    that an error of ours broke.
    """

    body_cap: int | None = None
    max_recipients: int = 1000
    on_error: Disposition = Disposition.TEMPFAIL

    def __post_init__(self) -> None:
        if self.on_error not in {Disposition.TEMPFAIL, Disposition.ACCEPT}:
            raise ValueError("on_error is tempfail or accept")
        if self.body_cap is not None and self.body_cap < 0:
            raise ValueError("body_cap is a number of octets, or none")


#: RFC 3463 §3.4 X.3.0 with RFC 5321 §4.2.3 451: our fault, not the sender's; nothing of the error is told.
_ERROR_REPLY = ReplyCode(451, "4.3.0", ("Internal error, please try again later",))
_REJECT_REPLY = SmtpReply(code=550, enhanced="5.7.1", text="Message refused")
_TEMPFAIL_REPLY = SmtpReply(
    code=451, enhanced="4.7.1", text="Message not accepted now, please try again later"
)

#: RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets with its code and CRLF; longer texts are sent as several lines.
_MAX_REPLY_LINE = 400
_MAX_REPLY_LINES = 5

#: What ends without the message being delivered or held: none of its edits matter.
_REFUSED: Final = frozenset({Disposition.REJECT, Disposition.TEMPFAIL, Disposition.DISCARD})
_ACCEPT: Final = Verb.ACCEPT

#: A quarantine reason stands in a line of the MTA's log and queue file.
_MAX_REASON = 200


def _printable(text: str) -> str:
    """Return text with all but printable US-ASCII as `?`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _reply(reply: SmtpReply) -> ReplyCode:
    """Return an SMTP reply for the wire: printable, with lines that fit, and classes that agree."""
    text = _printable(reply.text)
    lines: list[str] = []
    while text and len(lines) < _MAX_REPLY_LINES:
        if len(text) <= _MAX_REPLY_LINE:
            lines.append(text)
            break
        at = text.rfind(" ", 1, _MAX_REPLY_LINE + 1)
        cut = at if at > 0 else _MAX_REPLY_LINE
        lines.append(text[:cut])
        text = text[cut:].lstrip(" ")
    enhanced = reply.enhanced
    if enhanced[:2] != f"{reply.code // 100}.":
        enhanced = f"{reply.code // 100}.7.1"  # Postfix takes a disagreeing class for a broken milter
    return ReplyCode(reply.code, enhanced, tuple(lines) or ("Refused",))


def _wire_value(value: bytes, *, leading_space: bool) -> bytes:
    """Return a header value for the wire: folds as LF, and the space after the colon where it is ours to give."""
    value = value.replace(b"\r\n", b"\n")
    if leading_space:
        return value if value.startswith((b" ", b"\t")) else b" " + value
    return value.removeprefix(b" ")  # the MTA puts one there


def translate(verdict: Verdict, abilities: Abilities) -> tuple[tuple[Reply, ...], tuple[Lack, ...]]:
    """Return a verdict as replies (the edits, then the one that decides), and what could not be done.

    Edits go with messages that are delivered or held, in this order: values first, deletions from the highest
    number down, insertions as listed; so that each number still means what it meant in the message as received.

    Raises:
        LocalProtocolError: an edit or reply that must not be sent.
    """
    decision = verdict.decision
    if decision.disposition in _REFUSED:
        return (_refusal(decision),), ()
    changes: list[ChangeField] = []
    deletions: list[ChangeField] = []
    insertions: list[InsertField] = []
    held: list[QuarantineMessage] = []
    space = abilities.leading_space
    for edit in verdict.edits:
        if isinstance(edit, InsertHeader):
            insertions.append(InsertField(edit.at, edit.name, _wire_value(edit.value, leading_space=space)))
        elif isinstance(edit, DeleteHeader):
            deletions.append(ChangeField(edit.nth, edit.name, b""))
        elif isinstance(edit, ChangeHeader):
            changes.append(ChangeField(edit.nth, edit.name, _wire_value(edit.value, leading_space=space)))
        else:
            held.append(_quarantine(edit))
    if deletions:
        deletions.sort(key=_number, reverse=True)
    lacks: list[Lack] = []
    if (changes or deletions) and not abilities.can_change:
        lacks.append(Lack.CHANGE_HEADERS)
        changes, deletions = [], []
    if insertions and not abilities.can_add:
        lacks.append(Lack.ADD_HEADERS)
        insertions = []
    if held and not abilities.can_quarantine:
        lacks.append(Lack.QUARANTINE)
        held = []
    return (*changes, *deletions, *insertions, *held, _ACCEPT), tuple(lacks)


_number = attrgetter("nth")


def _refusal(decision: Decision) -> ReplyCode | Verb:
    """Return the reply to a message that is not taken, or taken and dropped."""
    disposition = decision.disposition
    if disposition is Disposition.REJECT:
        return _reply(decision.reply or _REJECT_REPLY)
    if disposition is Disposition.TEMPFAIL:
        reply = decision.reply or _TEMPFAIL_REPLY
        if decision.ends_session and reply.code != 421:
            reply = SmtpReply(code=421, enhanced=reply.enhanced, text=reply.text)  # RFC 5321 §3.8
        return _reply(reply)
    return Verb.DISCARD


def _quarantine(edit: Quarantine) -> QuarantineMessage:
    return QuarantineMessage(_printable(edit.reason[:_MAX_REASON]) or "held by policy")


class SessionFactory:
    """Makes the sessions of a service, and tells each lack of its MTAs once.

    Args:
        begin: makes the verification of one message, at MAIL: called with the SMTP session and the listener's name.
        bug: told of every unforeseen exception (where, the exception).
        note: told of what an administrator should know (a short name, the sentence).
        settings: see there.
    """

    def __init__(
        self,
        begin: Callable[[Session, str], Verification],
        *,
        bug: Callable[[str, BaseException], None],
        note: Callable[[str, str], None],
        settings: SessionSettings | None = None,
    ) -> None:
        self.begin = begin
        self.bug = bug
        self.note = note
        self.settings = settings or SessionSettings()
        #: the answer to a message that an error of ours broke
        self.apology: tuple[Reply, ...] = (
            (_ERROR_REPLY,) if self.settings.on_error is Disposition.TEMPFAIL else (Verb.ACCEPT,)
        )
        self._told: set[tuple[str, Lack]] = set()

    def __call__(self, listener: str) -> MilterSession:
        """Return the session of a new connection to `listener`."""
        return MilterSession(self, listener)

    def lacking(self, listener: str, missing: tuple[Lack, ...]) -> None:
        """Note what an MTA does not offer, once for each listener."""
        for lack in missing:
            if (listener, lack) not in self._told:
                self._told.add((listener, lack))  # bounded: listeners times lacks
                self.note(f"milter_lacks_{lack.name.lower()}", f"{listener}: {lack}")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


_make_session = maker(Session)
_make_tls = maker(TlsInfo)
_NOTHING_AGREED: Final = Abilities()
# Members of enumerations by a name of this module: Python 3.11 looks each up by a call, wherever it stands.
_CONNECT, _HELO, _MAIL, _UNIX = Stage.CONNECT, Stage.HELO, Stage.MAIL, Family.UNIX
_NEW, _CLIENT, _CLOSED = Phase.NEW, Phase.CLIENT, Phase.CLOSED
_BETWEEN = frozenset({Phase.NEW, Phase.IDLE, Phase.CLIENT, Phase.CLOSED})
#: never added to
_NO_MACROS: Final[Mapping[bytes, bytes]] = {}

_ADDRESSES = frozenset((Family.INET, Family.INET6))

#: {verify} of a client whose certificate holds, or who has none
_VERIFIED = (b"", b"OK")


def _authenticated(mail: Mapping[bytes, bytes]) -> str | None:
    """Return who is authenticated by the macros of MAIL."""
    user = mail.get(b"{auth_authen}", b"")
    # {auth_author} does not count: the client writes it. A mechanism without a name does (EXTERNAL).
    return _text(user) if user or mail.get(b"{auth_type}") else None


def _tls(known: Mapping[bytes, bytes]) -> TlsInfo:
    """Return what the macros say of TLS."""
    subject = known.get(b"{cert_subject}", b"")
    # Sendmail names the subject of any certificate, and in {verify} whether it holds; Postfix only of a good one
    if subject and known.get(b"{verify}", b"") not in _VERIFIED:
        subject = b""
    version, cipher = known[b"{tls_version}"], known.get(b"{cipher}", b"")
    return _make_tls(version=_text(version), cipher=_text(cipher), subject=_text(subject))


class MilterSession:
    """The state of one connection. Feed `handle`; when it says `PENDING`, await `answer`."""

    __slots__ = (
        "_answers",
        "_body_octets",
        "_client_ip",
        "_client_name",
        "_connect_macros",
        "_factory",
        "_fields",
        "_header_octets",
        "_helo",
        "_helo_macros",
        "_moves",
        "_next_macros",
        "_queue_id",
        "_recipients",
        "_verification",
        "_wants_body",
        "abilities",
        "listener",
        "phase",
    )

    def __init__(self, factory: SessionFactory, listener: str) -> None:
        self._factory = factory
        self.listener = listener
        self.phase = _NEW
        self.abilities = _NOTHING_AGREED
        self._moves = _MOVES[_NEW]
        self._answers: Mapping[type, Verb] = _NOTHING_AGREED.answers
        # of the SMTP client
        self._client_ip: IPAddress | None = None
        self._client_name = ""
        self._helo: HeloName | None = None
        self._connect_macros = self._helo_macros = _NO_MACROS
        self._next_macros: dict[Stage, Mapping[bytes, bytes]] = {}
        # of the message; without a verification there are no fields either, and the rest means nothing
        self._verification: Verification | None = None
        self._fields: list[HeaderField] | None = None

    def _begin_message(self, queue_id: bytes) -> None:
        self._queue_id = queue_id
        self._fields = []
        self._header_octets = self._body_octets = self._recipients = 0
        self._wants_body = True

    # -- what an engine calls --------------------------------------------------------------------------------

    def take(self, events: Iterator[Event], replies: list[Reply]) -> bool:
        """Take events in their order, and add the replies to send.

        Returns:
            True at the end of a message: await `answer`, send what it returns, and go on with the rest of `events`.
            False: there are no more.

        Raises:
            RemoteProtocolError: an event that cannot come here. Send `replies`, close the connection and call `lost`.
        """
        moves = self._moves
        for event in events:
            try:
                work, after = moves[type(event)]
            except KeyError:
                raise RemoteProtocolError(f"{type(event).__name__} came in phase {self.phase}") from None
            try:
                reply: Reply | Pending | None = work(self, event)
            except RemoteProtocolError:
                raise
            except Exception as e:  # noqa: BLE001 - rule 6: a bug breaks the message, never the session
                self._break("milter:" + type(event).__name__, e)
                reply = PENDING if isinstance(event, EndOfMessage) else None
            if after is not None:
                self.phase, moves = after
                self._moves = moves
            if reply is None and self._answers:
                reply = self._agreed_answer(event)
            if reply is not None:
                if reply is PENDING:
                    return True
                replies.append(reply)
        return False

    def handle(self, event: Event) -> Reply | Pending | None:
        """Take one event; return the reply to send, `PENDING` at the end of a message, or None where none is due.

        Raises:
            RemoteProtocolError: as `take`.
        """
        replies: list[Reply] = []
        if self.take(iter((event,)), replies):
            return PENDING
        return replies[0] if replies else None

    def _agreed_answer(self, event: Event) -> Reply | None:
        """Return what the MTA waits for after an event to which there is nothing to say."""
        if not isinstance(event, Fields):
            return self._answers.get(type(event))
        verb = self._answers.get(Header)
        return None if verb is None else Repeated(verb, len(event.fields))

    async def answer(self) -> tuple[Reply, ...]:
        """Await the verdict and return the replies to send; total."""
        verification = self._verification
        if verification is None:
            return self.conclude(None)
        try:
            verdict = await verification.verdict()
        except Exception as e:  # noqa: BLE001 - rule 6
            return self.failed(e)
        return self.conclude(verdict)

    def failed(self, error: BaseException) -> tuple[Reply, ...]:
        """Tell a bug that cost the verdict, and return the replies to send; total."""
        self._break("milter:verdict", error)
        return self.conclude(None)

    def conclude(self, verdict: Verdict | None) -> tuple[Reply, ...]:
        """End the message with its verdict (None: there is none) and return the replies to send; total."""
        replies = self._factory.apology
        if verdict is not None:
            try:
                replies, lacks = translate(verdict, self.abilities)
            except Exception as e:  # noqa: BLE001 - rule 6
                self._break("milter:reply", e)
            else:
                for lack in lacks:
                    self._factory.note("milter_edit_not_possible", f"{verdict.mail_id}: {lack}")
        self._verification = self._fields = None
        self._enter(_CLIENT)
        return replies

    def lost(self) -> None:
        """Take note that the connection is gone, in whatever phase; total, idempotent."""
        if self.phase is not _CLOSED:
            self._abort()
            self._enter(_CLOSED)

    @property
    def between_messages(self) -> bool:
        """True where closing the connection costs no message."""
        return self.phase in _BETWEEN

    # -- what happens at each event --------------------------------------------------------------------------

    def _on_negotiate(self, event: Negotiate) -> Reply:
        factory = self._factory
        self.abilities, reply = negotiate(event, want_skip=factory.settings.body_cap is not None)
        self._answers = self.abilities.answers
        if self.abilities.missing:
            factory.lacking(self.listener, self.abilities.missing)
        return reply

    def _on_macros(self, event: Macros) -> None:
        values = event.values
        self._next_macros[event.stage] = values
        if self._verification is not None:
            queue_id = values.get(b"i")
            if queue_id is not None and queue_id != self._queue_id and event.stage is not _MAIL:
                self._queue_id = queue_id
                self._verification.queue_id(_text(queue_id))

    def _on_connect(self, event: Connect) -> None:
        macros = self._connect_macros = self._macros_for(_CONNECT)
        if event.family in _ADDRESSES:
            self._client_ip = parse_ip(_text(event.address))
        if self._client_ip is None and event.family is not _UNIX:
            # an address the MTA had no family for, as it names it in a macro; "unknown" is none
            self._client_ip = parse_ip(_text(macros.get(b"{client_addr}", b"")))
        self._client_name = _text(event.hostname or macros.get(b"{client_name}", b""))

    def _on_helo(self, event: Helo) -> None:
        self._abort()
        self._helo_macros = self._macros_for(_HELO)
        self._helo = parse_helo(_text(event.name))

    def _on_mail(self, event: Mail) -> None:
        self._abort()
        macros = self._macros_for(_MAIL)
        queue_id = macros.get(b"i", b"")  # Sendmail knows it here, Postfix does not
        self._begin_message(queue_id)
        verification = self._factory.begin(self._session(macros), self.listener)
        self._verification = verification
        if queue_id:
            verification.queue_id(_text(queue_id))
        path, *options = map(_text, event.args)
        verification.sender(parse_reverse_path(path), tuple(options))

    def _on_rcpt(self, event: Rcpt) -> None:
        verification = self._verification
        if verification is None:
            return
        self._recipients += 1
        most = self._factory.settings.max_recipients
        if self._recipients <= most:
            verification.recipient(parse_recipient(_text(event.args[0])))
        elif self._recipients == most + 1:
            self._factory.note("milter_recipients_dropped", f"a message has more than {most} recipients")

    def _on_header(self, event: Header) -> None:
        name, value = event
        if b"\n" in value:
            value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._on_fields(Fields([HeaderField(name, value)]))

    def _on_fields(self, event: Fields) -> None:
        fields = self._fields
        if fields is None:
            return
        new = event.fields
        if not self.abilities.leading_space:
            new = [HeaderField(name, b" " + value) for name, value in new]
        if not fields:
            self._fields = new
        # `Message` lists too much of a header as a defect, so it is shown what came with the first field that is too
        # much, and no more
        elif len(fields) <= MAX_FIELDS and self._header_octets <= MAX_HEADER_OCTETS:
            fields += new
        self._header_octets += fields_size(new)

    def _on_end_of_headers(self, _event: EndOfHeaders) -> None:
        self._end_headers()

    def _on_body(self, event: Body) -> Reply | None:
        if self._fields is not None:
            self._end_headers()
        self._give_body(event.chunk)
        return None if self._wants_body or not self.abilities.can_skip else Verb.SKIP

    def _on_end_of_message(self, event: EndOfMessage) -> Pending:
        if self._fields is not None:
            self._end_headers()
        if event.chunk:
            self._give_body(event.chunk)
        return PENDING

    def _on_abort(self, _event: Abort) -> None:
        self._abort()

    def _on_quit_new(self, _event: QuitNew) -> None:
        self._abort()
        self._forget_client()

    def _on_quit(self, _event: Quit) -> None:
        self._abort()

    def _on_nothing(self, _event: Data | Unknown) -> None:
        """Nothing hangs on these commands."""

    # -- the parts they are made of --------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._moves = _MOVES[phase]

    def _forget_client(self) -> None:
        self._client_ip = None
        self._client_name = ""
        self._helo = None
        self._connect_macros = self._helo_macros = _NO_MACROS
        self._next_macros.clear()

    def _abort(self) -> None:
        verification = self._verification
        if verification is not None:
            self._verification = self._fields = None
            self._cancel(verification)

    def _break(self, where: str, error: BaseException) -> None:
        verification, self._verification = self._verification, None
        self._fields = None
        self._factory.bug(where, error)
        if verification is not None:
            self._cancel(verification)

    def _cancel(self, verification: Verification) -> None:
        try:
            verification.cancel()
        except Exception as e:  # noqa: BLE001 - rule 6
            self._factory.bug("milter:cancel", e)

    def _macros_for(self, stage: Stage) -> Mapping[bytes, bytes]:
        """Return the macros that came before this command, or none; a later one does not get them again."""
        return self._next_macros.pop(stage, _NO_MACROS)

    def _session(self, mail: Mapping[bytes, bytes]) -> Session:
        """Return the SMTP session as it is known at MAIL, with the macros of that."""
        known = {**self._connect_macros, **self._helo_macros, **mail}  # a later one's value counts
        name = known.get(b"j")
        return _make_session(
            client_ip=self._client_ip,
            client_name=self._client_name,
            helo=self._helo,
            local_name=Domain.maybe(_text(name)) if name else None,
            authenticated=_authenticated(mail) if mail else None,
            daemon_name=_text(known.get(b"{daemon_name}", b"")),
            tls=_tls(known) if known.get(b"{tls_version}") else None,
        )

    def _end_headers(self) -> None:
        """Give the header to the verification, once."""
        fields, self._fields = self._fields, None
        if fields is not None and self._verification is not None:
            self._wants_body = self._verification.headers(Message.of_headers(fields))

    def _give_body(self, chunk: bytes) -> None:
        verification = self._verification
        if verification is None or not self._wants_body:
            return
        cap = self._factory.settings.body_cap
        if cap is not None:
            room = cap - self._body_octets
            if len(chunk) > room:
                self._wants_body = False
                if room:
                    verification.body(chunk[:room])
                verification.body_cut()
                return
            self._body_octets += len(chunk)
        self._wants_body = verification.body(chunk)

    @classmethod
    def handlers(cls) -> Mapping[type, Callable[[MilterSession, Any], Reply | Pending | None]]:
        """Return what each event does; `TRANSITIONS` says when it may."""
        return {
            Negotiate: cls._on_negotiate,
            Macros: cls._on_macros,
            Connect: cls._on_connect,
            Helo: cls._on_helo,
            Mail: cls._on_mail,
            Rcpt: cls._on_rcpt,
            Data: cls._on_nothing,
            Header: cls._on_header,
            Fields: cls._on_fields,
            EndOfHeaders: cls._on_end_of_headers,
            Body: cls._on_body,
            EndOfMessage: cls._on_end_of_message,
            Abort: cls._on_abort,
            Quit: cls._on_quit,
            QuitNew: cls._on_quit_new,
            Unknown: cls._on_nothing,
        }


_HANDLERS = MilterSession.handlers()

#: For each event that may come: what it does, and the phase after it with its own moves, if that is another one.
_Moves = dict[
    type, tuple[Callable[[MilterSession, Any], Reply | Pending | None], "tuple[Phase, _Moves] | None"]
]


def _moves() -> Mapping[Phase, _Moves]:
    """Return the moves of each phase, as `TRANSITIONS` and the handlers say."""
    moves: dict[Phase, _Moves] = {phase: {} for phase in TRANSITIONS}
    for phase, row in TRANSITIONS.items():
        for kind, after in row.items():
            moves[phase][kind] = (_HANDLERS[kind], None if after is phase else (after, moves[after]))
    return moves


_MOVES: Final = _moves()
