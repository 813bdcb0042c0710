"""Sockets toward name servers: bytes out, bytes in; knows of a DNS message only what tells whose it is.

A `Transport` belongs to one event loop. Each question starts a `Race`: its tries may go to several servers
one after another, and whichever answers first counts, also a try that was given up before. A datagram is
taken only if it comes from the server that was asked (the socket is connected), to the port it was asked
from, with the id and the question that were sent (RFC 5452 §9.1); whatever else arrives is dropped.

Toward loopback and private addresses a socket is kept for some seconds and shared by many questions. Toward
all others each try has its own socket, on a port drawn at random (RFC 5452 §9.2).

Nothing here raises for trouble with the network: that is an event of the race, or a `Trouble`.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from authmilter.deadline import monotonic
from authmilter.dns.servers import Server

__all__ = ["Event", "Query", "Race", "Transport", "Trouble", "Turns", "is_reply"]

_HEADER = 12
#: QR, and the four bits of the opcode, of the third octet of a message (RFC 1035 §4.1.1).
_QR_OPCODE = 0xF8
_QR = 0x80
#: RCODEs with which a server may leave the question out: FORMERR, SERVFAIL, NOTIMP, REFUSED.
_BARE_RCODES = frozenset({1, 2, 4, 5})
#: No server may send more than the payload we offered, which is below this.
_DATAGRAM = 4096
#: How many datagrams one wake-up of a socket takes in, so that a flood cannot hold the loop.
_READS = 64
#: This many wrong answers at a socket that asked one question look like guessing (RFC 5452 §9.3).
_MAX_STRAYS = 16
#: How often a random port is tried before the kernel picks one.
_PORT_TRIES = 8
_FIRST_PORT = 16384
#: How many questions a kept socket may ask before the next one takes over.
_QUESTIONS_PER_SOCKET = 10_000
#: Room for the answers to many questions at once (the kernel grants what it allows).
_RECEIVE_BUFFER = 1 << 20


class Trouble(StrEnum):
    """What happened instead of an answer."""

    UNREACHABLE = "cannot be reached"
    #: somebody sends answers that do not match: ask over TCP, where guessing does not help
    GUESSED = "answers do not match"
    TIMEOUT = "gave no answer in time"
    MALFORMED = "sent what is not an answer"


class Query(NamedTuple):
    """A DNS message without its id: `tail` is all after the id, `question` its question section, lower case."""

    tail: bytes
    question: bytes


def is_reply(wire: bytes, number: int, question: bytes) -> bool:
    """True if `wire` answers the question (lower-case wire format) that was asked with the id `number`.

    An answer repeats the question; FORMERR, SERVFAIL, NOTIMP and REFUSED may come without one.
    """
    if len(wire) < _HEADER or (wire[0] << 8 | wire[1]) != number or wire[2] & _QR_OPCODE != _QR:
        return False
    if wire[4:6] == b"\x00\x01":
        # RFC 4343 §3: case does not count. Neither type, class nor the lengths of labels hold a letter.
        return wire[_HEADER : _HEADER + len(question)].lower() == question
    return wire[4:6] == b"\x00\x00" and wire[3] & 0x0F in _BARE_RCODES


class _Try:
    """One datagram sent and not yet answered."""

    __slots__ = ("index", "line", "number", "question", "race", "server", "strays")

    def __init__(self, race: Race, index: int, server: Server, question: bytes) -> None:
        self.race = race
        self.index = index
        self.server = server
        self.question = question
        self.line: _Line | None = None
        self.number = -1
        self.strays = 0


class Event(NamedTuple):
    """What came of a try: `payload` is the whole message, or the trouble; `attempt` is the try's number."""

    attempt: int
    server: Server
    payload: bytes | Trouble


class Race:
    """The tries of one question; close it when the question is settled. For one task at a time, or one listener."""

    __slots__ = ("_events", "_transport", "_tries", "_waiter", "listener")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._tries: list[_Try] = []
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        #: called at each event while no task waits
        self.listener: Callable[[], None] | None = None

    @property
    def heard(self) -> bool:
        """True if an event is there."""
        return bool(self._events)

    def first(self) -> Event:
        """Return the next event, and leave it."""
        return self._events[0]

    def send(self, server: Server, query: Query) -> int:
        """Ask `server`; return the number of this try. Trouble is an event, which may be there at once."""
        attempt = _Try(self, len(self._tries), server, query.question)
        self._tries.append(attempt)
        self._transport.send(attempt, query.tail)
        return attempt.index

    async def event(self, at: float) -> Event | None:
        """Wait until `at` (monotonic seconds) for the next event; None if there is none, or none can come."""
        if not self._events:
            delay = at - monotonic()
            if delay <= 0 or all(t.line is None for t in self._tries):
                return None
            loop = self._transport.loop
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(delay, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
            if not self._events:
                return None
        return self._events.popleft()

    def deliver(self, attempt: _Try, payload: bytes | Trouble) -> None:
        """Take what came of `attempt`; called by its socket."""
        self._events.append(Event(attempt.index, attempt.server, payload))
        if self._waiter is not None:
            _wake(self._waiter)
        elif self.listener is not None:
            self.listener()

    def close(self) -> None:
        """Forget the tries: what still arrives is dropped."""
        for attempt in self._tries:
            if attempt.line is not None:
                attempt.line.forget(attempt)
        self._tries.clear()


class _Line:
    """One connected UDP socket, which is in `among` for as long as it is open.

    Raises:
        OSError: no socket, or no way to the server.
    """

    __slots__ = ("_among", "_loop", "_pending", "_retired", "_shared", "_sock", "_timer", "asked")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, server: Server, among: set[_Line], *, shared: bool
    ) -> None:
        self._loop = loop
        self._among = among
        self._shared = shared
        self._pending: dict[int, _Try] = {}
        self._retired = not shared
        self._timer: asyncio.TimerHandle | None = None
        self.asked = 0
        sock = socket.socket(socket.AF_INET6 if server.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            else:
                _bind_to_random_port(sock)
            sock.connect((server.host, server.port))
            loop.add_reader(sock.fileno(), self._readable)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        among.add(self)

    @property
    def usable(self) -> bool:
        """True if another question may be sent."""
        return not self._retired and self.asked < _QUESTIONS_PER_SOCKET

    def keep_for(self, seconds: float) -> None:
        """Send no more questions after `seconds`; close once the last one is answered or given up."""
        self._timer = self._loop.call_later(seconds, self.retire)

    def retire(self) -> None:
        """Send no more questions; close as soon as nobody waits."""
        self._retired = True
        if not self._pending:
            self.close()

    def send(self, attempt: _Try, tail: bytes) -> None:
        """Send the message with a new id.

        Raises:
            OSError: it cannot be sent; whoever else waits on this socket has been told.
        """
        number = secrets.randbits(16)
        while number in self._pending:  # ends: a transport has far fewer questions open than there are ids
            number = secrets.randbits(16)
        try:
            self._sock.send(number.to_bytes(2, "big") + tail)
        except OSError as e:
            # A full buffer says nothing about the questions that others have open here.
            if not self._shared or not isinstance(e, BlockingIOError):
                self.close()
            raise
        self.asked += 1
        attempt.number = number
        attempt.line = self
        self._pending[number] = attempt

    def forget(self, attempt: _Try) -> None:
        """Nobody waits for `attempt` any more."""
        self._pending.pop(attempt.number, None)
        attempt.line = None
        if self._retired and not self._pending:
            self.close()

    def close(self) -> None:
        """Close the socket; whoever waits is told that the server cannot be reached."""
        self._retired = True
        if self._timer is not None:
            self._timer.cancel()
        if self._sock.fileno() >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        self._among.discard(self)
        if not self._loop.is_closed():  # else nobody is left to tell
            self._tell_all(Trouble.UNREACHABLE)

    def _tell_all(self, trouble: Trouble) -> None:
        tries = list(self._pending.values())
        self._pending.clear()
        for attempt in tries:
            attempt.line = None
            attempt.race.deliver(attempt, trouble)

    def _readable(self) -> None:
        for _ in range(_READS):
            try:
                wire = self._sock.recv(_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an ICMP error came back: port or host unreachable
                self.close()
                return
            self._take(wire)
            if not self._pending:  # nothing is waited for, and the socket may be closed
                return

    def _take(self, wire: bytes) -> None:
        number = int.from_bytes(wire[:2], "big")
        attempt = self._pending.get(number)
        if attempt is not None and is_reply(wire, number, attempt.question):
            del self._pending[number]
            attempt.line = None
            attempt.race.deliver(attempt, wire)
            if self._retired and not self._pending:
                self.close()
        elif not self._shared:
            self._stray()

    def _stray(self) -> None:
        for attempt in self._pending.values():
            attempt.strays += 1
            if attempt.strays >= _MAX_STRAYS:
                self._tell_all(Trouble.GUESSED)
                self.close()
                return


class Turns:
    """How many may do something at a time; who comes when all turns are taken waits, first come, first served.

    Args:
        loop: the loop of those who wait.
        count: how many turns there are (1 or more).
    """

    __slots__ = ("_free", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self._loop = loop
        self._free = count
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def take(self) -> bool:
        """Take a turn if one is free."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    async def wait(self, at: float) -> bool:
        """Take a turn, waiting for it until `at` (monotonic seconds); False if none came."""
        if self.take():
            return True
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append(waiter)
        timer = self._loop.call_later(max(0.0, at - monotonic()), _no_turn, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.release()  # the turn came, and who waited was gone
            raise
        finally:
            timer.cancel()

    def release(self) -> None:
        """Give a turn back, to whoever has waited longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(True)
                return
        self._free += 1


class Transport:
    """The sockets of one event loop.

    Args:
        loop: the loop, which must be the running one whenever something is sent.
        keep: for how many seconds a socket toward a near server is used (0 or more; 0: for one question).
        outstanding: how many questions may be open at a time (1 or more); others wait their turn.
    """

    __slots__ = ("_closed", "_keep", "_lines", "_open", "loop", "turns")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, keep: float, outstanding: int) -> None:
        self.loop = loop
        self._keep = keep
        #: those that are kept
        self._lines: dict[Server, _Line] = {}
        #: all
        self._open: set[_Line] = set()
        self._closed = False
        #: taken by each question while it is open
        self.turns = Turns(loop, outstanding)

    def send(self, attempt: _Try, tail: bytes) -> None:
        """Send for a race; trouble is delivered to it."""
        try:
            if self._closed:
                raise ConnectionAbortedError
            self._line(attempt.server).send(attempt, tail)
        except OSError:
            attempt.race.deliver(attempt, Trouble.UNREACHABLE)

    async def over_tcp(self, server: Server, query: Query, at: float) -> bytes | Trouble:
        """Ask `server` over TCP (RFC 7766 §5), until `at` (monotonic seconds); return the whole message."""
        family = socket.AF_INET6 if server.is_ipv6 else socket.AF_INET
        try:
            async with asyncio.timeout(max(0.0, at - monotonic())):
                with socket.socket(family, socket.SOCK_STREAM) as sock:
                    sock.setblocking(False)
                    await self.loop.sock_connect(sock, (server.host, server.port))
                    number = secrets.randbits(16)
                    message = number.to_bytes(2, "big") + query.tail
                    # RFC 7766 §8: the length and the message in one write.
                    await self.loop.sock_sendall(sock, len(message).to_bytes(2, "big") + message)
                    length = int.from_bytes(await self._read(sock, 2), "big")
                    wire = await self._read(sock, length)
        except TimeoutError:
            return Trouble.TIMEOUT
        except OSError:
            return Trouble.UNREACHABLE
        return wire if is_reply(wire, number, query.question) else Trouble.MALFORMED

    def close(self) -> None:
        """Close every socket; who waits is told, and nothing is sent any more."""
        self._closed = True
        for line in tuple(self._open):
            line.close()
        self._lines.clear()

    def _line(self, server: Server) -> _Line:
        if not server.near or self._keep <= 0:
            return _Line(self.loop, server, self._open, shared=False)
        line = self._lines.get(server)
        if line is None or not line.usable:
            if line is not None:
                line.retire()
            line = self._lines[server] = _Line(self.loop, server, self._open, shared=True)
            line.keep_for(self._keep)
        return line

    async def _read(self, sock: socket.socket, size: int) -> bytes:
        """Read exactly `size` octets; ConnectionResetError if the server closes before."""
        data = bytearray()
        while len(data) < size:
            piece = await self.loop.sock_recv(sock, size - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return bytes(data)


def _bind_to_random_port(sock: socket.socket) -> None:
    """Bind to a port drawn at random; where none can be had, leave the choice to the kernel."""
    for _ in range(_PORT_TRIES):
        try:
            sock.bind(("", _FIRST_PORT + secrets.randbelow(65536 - _FIRST_PORT)))
        except OSError:
            continue
        return


def _no_turn(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
