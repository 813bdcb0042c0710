"""The milter engine on an asyncio loop: sockets on one side, `MilterSession` on the other.

One `MilterServer` for one loop. What one read brings is handled in one pass and answered with one write; a verdict
that needs not wait is given in that same pass, without a task. Memory is bounded for each connection by one unfinished
packet and the replies the MTA has not read yet (reading stops while those pile up), and by `max_sessions` for all.

How it fails: a peer that breaks the protocol, is silent for `idle_timeout`, or takes longer than `header_timeout` for a
header is closed and counted, and its verification cancelled. A verdict that takes longer than `verdict_timeout` is
a bug, and answered with the session's `on_error`. Nothing that one connection does ends another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from authmilter.milter.poller import NOTHING, READ, WRITE, Poller
from authmilter.milter.protocol import (
    DEFAULT_MAX_PACKET,
    Decoder,
    Event,
    RemoteProtocolError,
    Reply,
    Verb,
)
from authmilter.milter.seats import Board, Seat
from authmilter.milter.session import MilterSession, Phase
from authmilter.milter.sockets import DEFAULT_BACKLOG
from authmilter.resumed import resumed

__all__ = ["Counters", "Drained", "MilterServer", "NativeSettings", "serve"]

#: How long a worker looks away from a connection that it leaves to another, in seconds.
_LOOK_AWAY = 0.001
#: For how many turns of its loop an idle worker leaves a connection to those before it: some 50 microseconds.
_TURNS = 8
#: Of how many connections it may find, in vain, that they were taken in that time; each that it takes makes up for four.
_NOT_NEEDED = 16
_NEEDED = 4
#: How long it rests then, and accepts nothing, in seconds: being woken for each costs what a quarter of a message does.
_REST = 0.01
#: No descriptor is left, or no memory for one.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Octets read at once: more than most messages have; much more, and `malloc` asks the kernel each time.
_AT_ONCE = 64 * 1024
# Python 3.11 looks up a member of an enumeration by a call.
_NEW, _HEADERS, _JUDGING, _CLOSED = Phase.NEW, Phase.HEADERS, Phase.JUDGING, Phase.CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeSettings:
    """Limits of the engine; times in seconds.

    `max_sessions`: connections open at a time; more wait to be accepted. `idle_timeout`: how long a connection may say nothing (an SMTP client may, for as long as
    the MTA lets it). `header_timeout`: from the first header field to the last. `progress`: how often the MTA is told
    that a verdict is still coming. `verdict_timeout`: how long that goes on. `sweep`: how often connections that are
    over their time are looked for. `max_packet`: the largest packet in octets.
    """

    max_sessions: int = 1000
    idle_timeout: float = 7200.0
    header_timeout: float = 300.0
    progress: float = 3.0
    verdict_timeout: float = 120.0
    sweep: float = 1.0
    max_packet: int = DEFAULT_MAX_PACKET


@dataclass(slots=True, kw_only=True)
class Counters:
    """What a server has done since it started."""

    accepted: int = 0
    messages: int = 0
    protocol_errors: int = 0
    idle_closed: int = 0
    header_timeouts: int = 0
    verdict_timeouts: int = 0
    paused: int = 0
    cut: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How a drain ended: connections that ended by themselves, were closed between two messages, or were cut in one."""

    finished: int
    closed: int
    cut: int


class _Connection:
    """One connection from an MTA."""

    __slots__ = (
        "_decoder",
        "_descriptor",
        "_loop",
        "_phase",
        "_server",
        "_session",
        "_sock",
        "_task",
        "_timer",
        "_unsent",
        "judged_since",
        "last",
        "phase_since",
    )

    def __init__(self, server: MilterServer, session: MilterSession, sock: socket.socket) -> None:
        self._server = server
        self._loop = server.loop
        self._session = session
        self._sock: socket.socket | None = sock
        self._descriptor = sock.fileno()
        self._decoder = Decoder(server.settings.max_packet)
        self._task: asyncio.Task[tuple[Reply, ...]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: replies that the MTA has not made room for; nothing is read meanwhile
        self._unsent = b""
        self._phase = _NEW
        self.last = self.phase_since = self.judged_since = self._loop.time()

    # -- what the poller calls ---------------------------------------------------------------------------------

    def ready(self) -> None:
        """Go on: read what has come, or write what was left."""
        sock = self._sock
        if sock is None:
            return
        if self._unsent:
            self._send(self._unsent)
            return
        try:
            data = sock.recv(_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.abort()
            return
        session = self._session
        self.last = self._loop.time()
        replies: list[Reply] = []
        error: RemoteProtocolError | None = None
        try:
            try:
                events: Iterator[Event] = iter(self._decoder.feed(data))
            except RemoteProtocolError as e:
                events, error = iter(e.events), e
            try:
                while session.take(events, replies):
                    self._judge(replies)
            except RemoteProtocolError as e:
                error = e
            if replies:
                self._write(b"".join([reply.wire for reply in replies]))
        except Exception as e:  # noqa: BLE001 - a bug ends its connection: it would be told of the same octets for ever
            self._server.note("milter_connection_broken", f"{session.listener}: {e!r}")
            self.abort()
            return
        phase = session.phase
        if phase is not self._phase:
            self._phase = phase
            self.phase_since = self.last
        if self._task is not None and phase is not _JUDGING:
            self._forget_task()  # the MTA gave up before it had its verdict
        if error is not None:
            self._server.counters.protocol_errors += 1
            self._server.note("milter_protocol_error", f"{session.listener}: {error}")
            self.close()
        elif phase is _CLOSED or (self._server.closing and session.between_messages):
            self.close()

    # -- what the server calls ---------------------------------------------------------------------------------

    @property
    def between_messages(self) -> bool:
        """True where closing costs no message."""
        return self._session.between_messages

    def close(self) -> None:
        """Close after what was written is gone; the session ends at once."""
        if self._task is not None:
            self._forget_task()
        self._session.lost()
        if not self._unsent:
            self._shut()

    def abort(self) -> None:
        """Close at once."""
        if self._task is not None:
            self._forget_task()
        self._session.lost()
        self._shut()

    def _shut(self) -> None:
        sock, self._sock, self._unsent = self._sock, None, b""
        if sock is not None:
            self._server.poller.forget(self._descriptor)
            sock.close()
            self._server.gone(self)

    def overdue(self, now: float) -> str:
        """Say which limit this connection is over: the name of its counter, or nothing."""
        if self._task is not None:
            return ""  # its own timer watches the verdict
        settings = self._server.settings
        if self._phase is _HEADERS and now - self.phase_since > settings.header_timeout:
            return "header_timeouts"
        return "idle_closed" if now - self.last > settings.idle_timeout else ""

    # -- the verdict -------------------------------------------------------------------------------------------

    def _judge(self, replies: list[Reply]) -> None:
        """Give the verdict now if that needs no waiting, else leave it to a task."""
        self._server.counters.messages += 1
        if self._task is not None:
            self._forget_task()  # of a message that the MTA has given up in the same piece of data
        answer = self._session.answer()
        try:
            waits_for = answer.send(None)
        except StopIteration as done:
            replies += done.value
            return
        except asyncio.CancelledError as e:  # raised from within: nothing here was cancelled
            replies += self._session.failed(e)
            return
        settings = self._server.settings
        self.judged_since = self._loop.time()
        self._task = self._loop.create_task(resumed(answer, waits_for))
        self._task.add_done_callback(self._judged)
        self._timer = self._loop.call_later(settings.progress, self._still_judging)

    def _still_judging(self) -> None:
        settings = self._server.settings
        waited = self._loop.time() - self.judged_since
        if waited >= settings.verdict_timeout:
            self._server.counters.verdict_timeouts += 1
            self._forget_task()
            self._finish(self._session.failed(TimeoutError(f"no verdict after {waited:.0f} seconds")))
            return
        self._write(Verb.PROGRESS.wire)
        self._timer = self._loop.call_later(settings.progress, self._still_judging)

    def _judged(self, task: asyncio.Task[tuple[Reply, ...]]) -> None:
        if task is not self._task:
            return  # given up in the meantime
        self._task = None
        self._forget_task()
        if task.cancelled():
            self._finish(
                self._session.failed(asyncio.CancelledError("the verdict was cancelled from within"))
            )
        else:
            self._finish(task.result())

    def _finish(self, replies: tuple[Reply, ...]) -> None:
        self._phase = self._session.phase
        self.last = self.phase_since = self._loop.time()
        self._write(b"".join([reply.wire for reply in replies]))
        if self._server.closing:
            self.close()

    def _forget_task(self) -> None:
        task, self._task = self._task, None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if task is not None:
            task.cancel()

    def _write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data  # bounded: nothing is read, so only a verdict on its way can add to it
        elif self._sock is not None:
            self._send(data)

    def _send(self, data: bytes) -> None:
        """Send as much as there is room for; the rest follows when there is more, and reading waits for that."""
        sock = self._sock
        assert sock is not None  # whoever calls has looked
        try:
            sent = sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # the other side has gone
            self._unsent = b""
            self.abort()
            return
        if sent < len(data):
            if not self._unsent:
                self._server.poller.change(self._descriptor, WRITE)
            self._unsent = data[sent:]
        elif self._unsent:
            self._unsent = b""
            self._server.poller.change(self._descriptor, READ)
            if self._session.phase is _CLOSED:
                self._shut()


class MilterServer:
    """The connections of one worker; made by `serve`.

    It accepts one connection of each listener in a turn of the loop, and leaves those to other workers that are theirs
    (`seats.py`): then it looks away for a moment instead of being told again and again that somebody waits. Where mail
    comes one at a time the first worker takes it, and the others rest most of the time.
    """

    def __init__(
        self,
        listeners: Sequence[tuple[str, socket.socket]],
        session_factory: Callable[[str], MilterSession],
        settings: NativeSettings,
        note: Callable[[str, str], None],
        seat: Seat | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.note = note
        self.counters = Counters()
        #: True once connections are to be closed between messages
        self.closing = False
        self._factory = session_factory
        self._listeners = tuple(listeners)
        self._seat = seat or Seat(Board(1), 0)
        #: what tells which connections can go on
        self.poller = Poller(self.loop)
        self._connections: set[_Connection] = set()
        self._wanted = False
        self._watching = False
        # of a worker in reserve: how often it was not needed, when it noticed who waits, and how many turns ago
        self._left = 0
        self._noticed = 0.0
        self._turns = 0
        self._waiting = select.poll()
        self._away: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweeper = self.loop.call_later(self.settings.sweep, self._sweep)

    @property
    def open_sessions(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def start(self) -> None:
        """Begin to accept on all listeners.

        Raises:
            OSError: a socket that cannot be listened on.
        """
        for name, sock in self._listeners:
            if not sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            ):  # a loop would find nothing wrong
                raise OSError(errno.EINVAL, "not a listening socket", name)
        for name, sock in self._listeners:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:  # its connections have this of it
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._waiting.register(sock, select.POLLIN)
            self.poller.watch(sock.fileno(), partial(self._ready, name, sock), NOTHING)
        self._wanted = True
        self._watch()

    def stop_accepting(self) -> None:
        """Accept nothing more; what is open goes on."""
        if self._wanted:
            self._wanted = False
            self._look_away()
            for _, sock in self._listeners:
                self.poller.unwatch(sock.fileno())
        self._seat.accept(False)

    def empty(self, name: str) -> None:
        """Take all who wait on a listener that will be closed."""
        for listener, sock in self._listeners:
            waiting = (
                DEFAULT_BACKLOG if listener == name else 0
            )  # more cannot wait; those who come later are late
            while waiting and self._take(listener, sock):
                waiting -= 1

    async def drain(self, seconds: float, *, grace: float = 60.0) -> Drained:
        """Accept nothing more and let open connections end by themselves for `seconds`; then close them between two
        messages, and after `grace` more seconds in whatever they are at.
        """
        self.stop_accepting()
        at_first = self.open_sessions
        await self._wait_empty(seconds)
        self.closing = True
        between = [c for c in self._connections if c.between_messages]
        closed, in_message = len(between), self.open_sessions - len(between)
        for connection in between:
            connection.close()
        await self._wait_empty(grace)
        cut = self.open_sessions
        self.counters.cut += cut
        await self.close()
        return Drained(finished=at_first - closed - in_message, closed=closed + in_message - cut, cut=cut)

    async def close(self) -> None:
        """Close everything now."""
        self.closing = True
        self.stop_accepting()
        self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        self.poller.close()

    # -- what a connection calls -------------------------------------------------------------------------------

    def gone(self, connection: _Connection) -> None:
        """Forget a connection; accept again below the limit."""
        self._connections.discard(connection)
        self._seat.closed()
        if not self._connections:
            self._empty.set()
        if self._away is not None:
            self._look_again()
        elif not self._watching:
            self._watch()

    # -- accepting ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Be told of those who wait, where that is wanted and there is room."""
        if self._watching or not self._wanted or len(self._connections) >= self.settings.max_sessions:
            return
        if self._away is not None:
            self._away.cancel()
            self._away = None
        self._watching = True
        self._seat.accept(True)
        for _, sock in self._listeners:
            self.poller.change(sock.fileno(), READ)

    def _look_away(self) -> None:
        """Be told of nobody for now; they wait in the kernel's queue."""
        if self._away is not None:
            self._away.cancel()
            self._away = None
        if self._watching:
            self._watching = False
            for _, sock in self._listeners:
                self.poller.change(sock.fileno(), NOTHING)

    def _look_again(self) -> None:
        """See whether somebody still waits whom another worker should have taken."""
        assert self._away is not None  # we have looked away
        self._away.cancel()
        self._away = None
        if not self._waiting.poll(0):
            self._seat.nobody_waits()
            if self._seat.needed:
                self._left = 0
        elif not self._seat.may_take(self.loop.time()):
            self._away = self.loop.call_later(_LOOK_AWAY, self._look_again)
            return
        else:
            self._left = 0
        self._watch()

    def _pause(self) -> None:
        """Leave those who wait to other workers until a session has ended, or the next sweep."""
        self.counters.paused += 1
        self._look_away()
        self._seat.accept(False)

    def _ready(self, name: str, sock: socket.socket) -> None:
        if not self._watching:
            return  # another listener in the same turn was the reason to look away
        now = self.loop.time()
        if self._seat.in_reserve and self._hesitates(now):
            return
        if not self._seat.may_take(now):
            self._look_away()
            self._away = self.loop.call_later(_LOOK_AWAY, self._look_again)
            return
        self._left = max(0, self._left - _NEEDED)
        self._noticed = 0.0
        self._take(name, sock)
        if self._watching and len(self._connections) >= self.settings.max_sessions:
            self._pause()

    def _hesitates(self, now: float) -> bool:
        """Give those before this idle worker a few turns: the first may be about to end its only session."""
        if now - self._noticed > _LOOK_AWAY:
            if self._noticed:
                self._left += 1  # somebody else has the one of that time
            self._noticed, self._turns = now, 0
            if self._left >= _NOT_NEEDED:
                self._look_away()
                self._seat.accept(False)
                self._away = self.loop.call_later(_REST, self._look_again)
                return True
        self._turns += 1
        return self._turns < _TURNS

    def _take(self, name: str, listener: socket.socket) -> bool:
        """Accept a connection; False if there is none, or it cannot be taken."""
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker has it, or it has gone
        except OSError as e:
            if e.errno in _EXHAUSTED:
                self.note(
                    "no_descriptors", "no descriptor is left for a connection: raise the limit of open files"
                )
            else:
                self.note("milter_cannot_accept", str(e))
            self._pause()
            return False
        sock.setblocking(False)
        connection = _Connection(self, self._factory(name), sock)
        try:
            self.poller.watch(sock.fileno(), connection.ready)
        except OSError as e:  # no memory, or too many are watched
            sock.close()
            self.note("milter_cannot_accept", str(e))
            self._pause()
            return False
        self.counters.accepted += 1
        self._connections.add(connection)
        self._seat.opened()
        self._empty.clear()
        connection.ready()  # an MTA speaks first, and mostly has
        return True

    # -- inside ------------------------------------------------------------------------------------------------

    async def _wait_empty(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), max(0.0, seconds))

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in tuple(self._connections):
            counter = connection.overdue(now)
            if counter:
                setattr(self.counters, counter, getattr(self.counters, counter) + 1)
                connection.abort()
        self._watch()
        self._sweeper = self.loop.call_later(self.settings.sweep, self._sweep)


async def serve(
    listeners: Sequence[tuple[str, socket.socket]],
    session_factory: Callable[[str], MilterSession],
    settings: NativeSettings | None = None,
    *,
    note: Callable[[str, str], None] = lambda _name, _sentence: None,
    seat: Seat | None = None,
) -> MilterServer:
    """Serve milter connections on the running loop, and return the server at once.

    Args:
        listeners: name and listening stream socket of each; the sockets stay the caller's, who may close them
            after the server has stopped.
        session_factory: makes the session of a connection, given the listener's name.
        settings: the limits.
        note: told of what an administrator should know (a short name, the sentence).
        seat: which connections are this server's, where others accept on the same sockets; None: all are.

    Raises:
        OSError: a socket that cannot be listened on.
    """
    server = MilterServer(listeners, session_factory, settings or NativeSettings(), note, seat)
    server.start()
    return server
