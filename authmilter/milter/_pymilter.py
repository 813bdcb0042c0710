"""The room of pymilter: the second milter engine, libmilter's own, over the same session as the first.

It costs some ten times the processor time of the native engine and is there as a second reading of the protocol.
libmilter calls back in a thread for each connection; a callback only writes down its event. The events are
handled by `MilterSession` in one asyncio loop, in a thread beside, where verifications live; a callback waits for
that loop where there is something to wait for: at the negotiation, at body chunks (so that they do not pile up), and
at the end of the message, telling the MTA every few seconds that the verdict is still coming.

Installed by `authmilter[libmilter]` (GPL; needs libmilter's headers and a C compiler); without it, using this module
raises `AuthMilterError`, importing it does not.

Known limits, of libmilter and pymilter and not of this module; the native engine has none of them:

* libmilter's callbacks are global: one engine in a process, on one socket, and it owns the process's signals (SIGTERM,
  SIGHUP and SIGINT end `run`, which gives up open sessions after 5 seconds).
* A packet over 64 KiB, such as a header field of that size, ends the connection.
* A HELO argument or a header field's name that is not UTF-8 never arrives; pymilter prints a traceback. A macro's value
  that is not UTF-8 is known only to be there, and read as `?`.
* A value that is not UTF-8 cannot be written into a header field: that edit is left out, and noted.
* After QUIT_NC pymilter has forgotten the connection and the negotiation; the last negotiation of the process is
  taken to be the one.
* On an MTA that sends no macros with a command, libmilter goes on to give those of an earlier message.
* After a reply or ABORT that ended a message, libmilter overlooks QUIT_NC and the CONNECT after it. The next client is
  then known from its macros only, and not at all where the MTA sends no {client_addr}.
* What cannot follow is ignored by libmilter, where the native engine closes the connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from authmilter.errors import AuthMilterError
from authmilter.milter.protocol import (
    NEWEST_VERSION,
    SYMBOLS,
    Abort,
    Body,
    ChangeField,
    Connect,
    Data,
    EndOfHeaders,
    EndOfMessage,
    Event,
    Family,
    Header,
    Helo,
    InsertField,
    Macros,
    Mail,
    Negotiate,
    Negotiated,
    QuarantineMessage,
    QuitNew,
    Rcpt,
    RemoteProtocolError,
    Reply,
    ReplyCode,
    Stage,
    Step,
    Unknown,
    Verb,
)
from authmilter.milter.session import MilterSession, Pending, SessionFactory
from authmilter.milter.sockets import DEFAULT_BACKLOG, DEFAULT_MODE, ListenSpec, owner_ids, refuse_if_taken
from authmilter.milter.sockets import Family as SocketFamily

try:
    import milter
except ImportError:  # the optional extra is not installed
    milter = None

__all__ = ["LibmilterEngine", "LibmilterSettings", "available", "run"]

T = TypeVar("T")

#: How long a callback waits for the loop's thread where nothing has to be waited for, in seconds: only a bug takes longer.
_PATIENCE = 60.0

_FAMILIES: dict[int, Family] = {
    socket.AF_INET: Family.INET,
    socket.AF_INET6: Family.INET6,
    socket.AF_UNIX: Family.UNIX,
}

#: The macros to be looked up at each stage; libmilter numbers the stages as SMFIM_* does.
_STAGE_NUMBERS = {
    Stage.CONNECT: 0,
    Stage.HELO: 1,
    Stage.MAIL: 2,
    Stage.RCPT: 3,
    Stage.END_OF_HEADERS: 6,
    Stage.END_OF_MESSAGE: 5,
}

#: libmilter keeps the macros of a HELO or MAIL until others come; one that always has a value makes them come.
_ALWAYS_THERE = {1: ("j",), 2: ("{mail_mailer}",)}

_CLIENT_ADDR = "{client_addr}"

_MACROS = {stage: tuple(dict(SYMBOLS)[number].decode().split()) for stage, number in _STAGE_NUMBERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LibmilterSettings:
    """Times in seconds: `progress` between two signs of life to the MTA, `verdict_timeout` until they end, and
    `idle_timeout` for a silent MTA.
    """

    progress: float = 3.0
    verdict_timeout: float = 120.0
    idle_timeout: int = 7200
    backlog: int = DEFAULT_BACKLOG


def available() -> bool:
    """Say whether pymilter is installed."""
    return milter is not None


def run(
    spec: ListenSpec,
    session_factory: SessionFactory,
    settings: LibmilterSettings | None = None,
    *,
    mode: int = DEFAULT_MODE,
    owner: str | None = None,
    group: str | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    """Listen at `spec` and serve until the process is told to stop; see `LibmilterEngine`.

    Raises:
        AuthMilterError: pymilter is not installed, or libmilter cannot listen there.
        OSError: the socket's owner or mode cannot be set.
    """
    engine = LibmilterEngine(session_factory, settings, loop_factory=loop_factory)
    engine.open(spec, mode=mode, owner=owner, group=group)
    engine.run()


class LibmilterEngine:
    """libmilter in this process; there can be one.

    Args:
        session_factory: makes sessions; its `bug` and `note` are told of this engine's, too.
        settings: see there.
        loop_factory: makes the event loop of the verifications.

    Raises:
        AuthMilterError: pymilter is not installed, or libmilter is in use already.
    """

    def __init__(
        self,
        session_factory: SessionFactory,
        settings: LibmilterSettings | None = None,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        if milter is None:
            raise AuthMilterError(
                "`engine: libmilter` needs pymilter: install authmilter[libmilter] (with libmilter-dev and gcc),"
                " or set `engine: native`"
            )
        self.factory = session_factory
        self.settings = settings or LibmilterSettings()
        self.listener = ""
        self.loop = loop_factory()
        #: the last offer an MTA made, for connections that come without one
        self.offer = Negotiate(NEWEST_VERSION, 0, 0)
        #: those that are open, and what is called in the loop when one has ended
        self.connections: set[_Connection] = set()
        self.ended: Callable[[], None] = lambda: None
        self._descriptor = -1
        self._register()

    def open(
        self,
        spec: ListenSpec,
        *,
        mode: int = DEFAULT_MODE,
        owner: str | None = None,
        group: str | None = None,
    ) -> None:
        """Open the listening socket; a unix socket that nobody listens on is replaced.

        Raises:
            AuthMilterError: libmilter cannot listen there, or no such owner or group.
            OSError: the path is taken, or the socket's owner or mode cannot be set.
        """
        self.listener = str(spec)
        uid, gid = owner_ids(owner, group)
        if spec.family is SocketFamily.UNIX:
            refuse_if_taken(spec.path)  # libmilter would take a living server's
        try:
            milter.setconn(spec.for_libmilter)
            milter.setbacklog(self.settings.backlog)
            milter.settimeout(self.settings.idle_timeout)
            milter.opensocket(True)
        except milter.error as e:
            raise AuthMilterError(f"libmilter cannot listen at {spec}: {e}") from None
        if spec.family is SocketFamily.UNIX:
            if uid != -1 or gid != -1:
                os.chown(spec.path, uid, gid)
            Path(spec.path).chmod(mode)

    def serve_on(self, spec: ListenSpec, sock: socket.socket) -> None:
        """Serve a listening socket that is open already, and that other processes may serve too.

        libmilter only opens sockets itself. So it opens one that nobody else knows, and its descriptor then
        is made to mean `sock`.

        Args:
            spec: what the socket is called.
            sock: a listening, non-blocking stream socket; it stays the caller's.

        Raises:
            AuthMilterError: libmilter's own socket is not where it should be, or cannot be opened.
            OSError: no descriptor is left.
        """
        with tempfile.TemporaryDirectory(prefix="authmilter-") as folder:
            unknown = {
                SocketFamily.UNIX: ListenSpec(family=SocketFamily.UNIX, path=f"{folder}/s"),
                SocketFamily.INET: ListenSpec(family=SocketFamily.INET, host="127.0.0.1"),
                SocketFamily.INET6: ListenSpec(family=SocketFamily.INET6, host="::1"),
            }
            lowest = os.dup(sock.fileno())  # the number that the next one will have, too
            os.close(lowest)
            self.open(unknown[spec.family])
        with socket.socket(fileno=os.dup(lowest)) as theirs:
            listening = theirs.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not listening or theirs.getsockname() == sock.getsockname():
                raise AuthMilterError("libmilter's listening socket cannot be found")
        os.dup2(sock.fileno(), lowest, inheritable=False)
        self._descriptor = lowest
        self.listener = str(spec)

    def stop_accepting(self) -> None:
        """Take no further connections from the socket given to `serve_on`; the open ones go on."""
        if self._descriptor >= 0:
            nothing, _never_written = os.pipe()
            os.dup2(nothing, self._descriptor, inheritable=False)
            os.close(nothing)
            self._descriptor = -1

    def run(self) -> None:
        """Serve until a signal or `stop`; call it in the main thread, and after any fork.

        Raises:
            AuthMilterError: libmilter could not go on.
        """
        thread = threading.Thread(target=self.loop.run_forever, name="verifications", daemon=True)
        thread.start()
        try:
            milter.main()
        except milter.error as e:
            raise AuthMilterError(f"libmilter stopped: {e}") from None
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            thread.join(_PATIENCE)
            if not thread.is_alive():
                self.loop.close()

    @staticmethod
    def stop() -> None:
        """Ask libmilter to stop, from any thread."""
        milter.stop()

    def _register(self) -> None:
        try:
            milter.set_flags(milter.ADDHDRS | milter.CHGHDRS | milter.QUARANTINE | milter.SETSYMLIST)
            milter.set_exception_policy(milter.CONTINUE)  # see `_wrap`; for what pymilter cannot hand over
            milter.set_connect_callback(self._wrap("connect"))
            milter.set_helo_callback(self._wrap("helo"))
            milter.set_envfrom_callback(self._wrap("mail"))
            milter.set_envrcpt_callback(self._wrap("rcpt"))
            milter.set_header_callback(self._wrap("header"))
            milter.set_eoh_callback(self._wrap("end_of_headers"))
            milter.set_body_callback(self._wrap("body"))
            milter.set_eom_callback(self._wrap("end_of_message"))
            milter.set_abort_callback(self._wrap("abort"))
            milter.set_close_callback(self._wrap("close"))
            milter.register(
                "authmilter",
                unknown=self._wrap("unknown"),
                data=self._wrap("data"),
                negotiate=self._wrap("negotiate"),
            )
        except milter.error as e:
            raise AuthMilterError(f"libmilter cannot be set up: {e}") from None

    def _wrap(self, name: str) -> Callable[..., int]:
        """Return libmilter's callback: the connection's method of that name, and no exception out of it.

        Only a negotiation and the end of a message may be refused: libmilter forgets where it is when a callback is
        refused that the MTA expects no reply to, and never comes to the end of the message.
        """
        method: Callable[..., int] = getattr(_Connection, name)
        refused = _code("TEMPFAIL" if name in {"negotiate", "end_of_message"} else "CONTINUE")

        def callback(ctx: Any, *args: Any) -> int:
            connection: _Connection | None = None
            try:
                connection = ctx.getpriv()
                if connection is None:
                    connection = _Connection(self)
                    ctx.setpriv(connection)
                    if name not in {"negotiate", "close"}:
                        connection.negotiate_again()
                return method(connection, ctx, *args)
            except Exception as e:  # noqa: BLE001 - the outermost line of a door: libmilter gets an answer, the journal a bug
                self.factory.bug(f"libmilter:{name}", e)
                if connection is not None:
                    connection.broken = True
                return refused

        return callback


class _Connection:
    """One connection from an MTA: small callbacks that write down events, and the way to the loop and back."""

    __slots__ = ("_address", "_engine", "_events", "_session", "broken")

    def __init__(self, engine: LibmilterEngine) -> None:
        self._engine = engine
        engine.connections.add(self)
        self._session: MilterSession = engine.factory(engine.listener)
        self._events: list[Event] = []
        self._address: bytes | None = None
        #: a bug has cost the message; its end is answered with `on_error`
        self.broken = False

    # -- callbacks ---------------------------------------------------------------------------------------------

    def negotiate(self, ctx: Any, options: list[int]) -> int:
        # libmilter feigns the no-reply steps an MTA does not know, and hides the MTA's version. Bodies are answered:
        # libmilter forgets the end of a message whose last chunk comes with it and gets no reply.
        self._engine.offer = Negotiate(NEWEST_VERSION, options[0], options[1] & ~Step.NO_REPLY_BODY)
        reply = self.negotiate_again()
        options[:] = [reply.actions, reply.steps, 0, 0]
        for stage, names in reply.symbols:
            ctx.setsymlist(stage, " ".join((names.decode(), *_ALWAYS_THERE.get(stage, ()))))
        return _code("CONTINUE")

    def negotiate_again(self) -> Negotiated:
        self._events.append(self._engine.offer)
        reply = self._wait()
        assert isinstance(reply, Negotiated)  # what a session says to an offer
        return reply

    def connect(self, ctx: Any, hostname: str, family: int, address: Any) -> int:
        self._address = self._look_up(ctx, Stage.CONNECT).get(_CLIENT_ADDR.encode())
        known = _FAMILIES.get(family, Family.UNKNOWN)
        host, port = (address, 0) if isinstance(address, str) else (address or ("", 0))[:2]
        return self._note(Connect(_bytes(hostname), known, port, _bytes(host)))

    def helo(self, ctx: Any, name: str) -> int:
        self._check_client(ctx)
        self._look_up(ctx, Stage.HELO)
        return self._note(Helo(_bytes(name)))

    def mail(self, ctx: Any, *args: bytes) -> int:
        self.broken = False
        self._check_client(ctx)
        self._look_up(ctx, Stage.MAIL)
        code = self._note(Mail(args or (b"",)))
        self._tell()  # so that its questions are asked while the MTA goes on
        return code

    def rcpt(self, ctx: Any, *args: bytes) -> int:
        self._look_up(ctx, Stage.RCPT)
        return self._note(Rcpt(args or (b"",)))

    def data(self, ctx: Any) -> int:
        del ctx
        return self._note(Data())

    def unknown(self, ctx: Any, command: str) -> int:
        del ctx
        return self._note(Unknown(_bytes(command)))

    def header(self, ctx: Any, name: str, value: bytes) -> int:
        del ctx
        return self._note(Header(_bytes(name), value))

    def end_of_headers(self, ctx: Any) -> int:
        self._look_up(ctx, Stage.END_OF_HEADERS)
        code = self._note(EndOfHeaders())
        self._tell()
        return code

    def body(self, ctx: Any, chunk: bytes) -> int:
        del ctx
        code = self._note(Body(chunk))
        return _code("SKIP") if self._wait() is Verb.SKIP else code

    def end_of_message(self, ctx: Any) -> int:
        if self.broken:
            self.broken = False
            return self._apply(ctx, self._in_loop(self._give_up))
        self._look_up(ctx, Stage.END_OF_MESSAGE)
        self._events.append(EndOfMessage())
        judging = self._submit(self._judge(self._take()))
        settings = self._engine.settings
        waited = 0.0
        while not concurrent.futures.wait((judging,), settings.progress).done:
            waited += settings.progress
            if waited >= settings.verdict_timeout:
                judging.cancel()
                return self._apply(ctx, self._fail(TimeoutError(f"no verdict after {waited:.0f} seconds")))
            try:
                ctx.progress()
            except milter.error:  # the MTA is gone; libmilter will find out
                judging.cancel()
                self.abort(ctx)
                return _code("TEMPFAIL")
        try:
            replies = judging.result()
        except concurrent.futures.CancelledError as e:
            replies = self._fail(e)
        return self._apply(ctx, replies)

    def abort(self, ctx: Any) -> int:
        del ctx
        self.broken = False
        self._events.append(Abort())
        self._tell()
        return _code("CONTINUE")

    def close(self, ctx: Any) -> int:
        del ctx
        self._engine.connections.discard(self)
        self._tell()
        self._engine.loop.call_soon_threadsafe(self._session.lost)
        self._engine.loop.call_soon_threadsafe(self._engine.ended)
        return _code("CONTINUE")

    # -- from the callback's thread to the loop's ----------------------------------------------------------------

    def _note(self, event: Event) -> int:
        """Write an event down, and return the answer that was agreed on for its kind."""
        if not self.broken:
            self._events.append(event)
        return _code("CONTINUE" if type(event) in self._session.abilities.answers else "NOREPLY")

    def _check_client(self, ctx: Any) -> None:
        """Find out whether libmilter overlooked a new client, and report it as its macros have it."""
        if self._address is None or _symbol(ctx, _CLIENT_ADDR) in {self._address, None}:
            return
        self._events.append(QuitNew())
        macros = self._look_up(ctx, Stage.CONNECT)
        self._address = macros.get(_CLIENT_ADDR.encode())
        self._events.append(Connect(macros.get(b"{client_name}", b""), Family.UNKNOWN, 0, b""))

    def _look_up(self, ctx: Any, stage: Stage) -> Mapping[bytes, bytes]:
        """Write down the macros of a stage."""
        found = ((name, _symbol(ctx, name)) for name in _MACROS[stage])
        values = {name.encode(): value for name, value in found if value is not None}
        self._events.append(Macros(stage, values))
        return values

    def _take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _tell(self) -> None:
        """Hand the events over and go on."""
        self._engine.loop.call_soon_threadsafe(self._handle, self._take())

    def _wait(self) -> Reply | Pending | None:
        """Hand the events over and return what the session says to the last."""
        events = self._take()
        return self._in_loop(lambda: self._handle(events))

    def _in_loop(self, work: Callable[[], T]) -> T:
        async def step() -> T:
            return work()

        return self._submit(step()).result(_PATIENCE)

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._engine.loop)

    # -- in the loop's thread ------------------------------------------------------------------------------------

    def _handle(self, events: list[Event]) -> Reply | Pending | None:
        reply: Reply | Pending | None = None
        for event in events:
            try:
                reply = self._session.handle(event)
            except RemoteProtocolError as e:
                # libmilter lets through only what can follow: its order and ours differ
                self._engine.factory.bug("libmilter:order", e)
        return reply

    async def _judge(self, events: list[Event]) -> tuple[Reply, ...]:
        if not isinstance(self._handle(events), Pending):
            return self._session.conclude(None)
        return await self._session.answer()

    def _give_up(self) -> tuple[Reply, ...]:
        self._events.clear()
        with contextlib.suppress(RemoteProtocolError):
            self._session.handle(Abort())
        return self._session.conclude(None)

    def _fail(self, error: Exception) -> tuple[Reply, ...]:
        return self._in_loop(lambda: self._session.failed(error))

    # -- replies -------------------------------------------------------------------------------------------------

    def _apply(self, ctx: Any, replies: tuple[Reply, ...]) -> int:
        """Give libmilter the edits and return the code that decides."""
        code = _code("TEMPFAIL")
        for reply in replies:
            try:
                code = _give(ctx, reply, code)
            except UnicodeError:
                self._engine.factory.note(
                    "milter_edit_not_possible",
                    f"{self._engine.listener}: pymilter cannot write a header value that is not UTF-8",
                )
        return code


def _give(ctx: Any, reply: Reply, code: int) -> int:
    """Give libmilter one reply; return the code it decides for, else `code`."""
    if isinstance(reply, InsertField):
        ctx.addheader(reply.name.decode(), _str(reply.value), reply.at)
    elif isinstance(reply, ChangeField):
        ctx.chgheader(reply.name.decode(), reply.nth, _str(reply.value))
    elif isinstance(reply, QuarantineMessage):
        ctx.quarantine(reply.reason)
    elif isinstance(reply, ReplyCode):
        lines = [line.replace("%", "%%") for line in reply.lines]
        ctx.setreply(str(reply.code), reply.enhanced, *lines)
        return _code("REJECT" if reply.code >= 500 else "TEMPFAIL")
    elif isinstance(reply, Verb):
        # to libmilter an accepted message is not as over as one that goes on
        return _code("CONTINUE" if reply is Verb.ACCEPT else reply.name)
    return code


def _symbol(ctx: Any, name: str) -> bytes | None:
    """Return a macro's value, None where it has none."""
    try:
        value = ctx.getsymval(name)
    except UnicodeDecodeError:
        return b"?"
    return None if value is None else _bytes(value)


def _code(name: str) -> int:
    value: int = getattr(milter, name)
    return value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _str(value: bytes) -> str:
    return value.decode("utf-8")
