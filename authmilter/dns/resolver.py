"""The network as a `Resolver`; and the one room of dnspython, which reads resolv.conf.

Messages (`wire.py`) and sockets (`transport.py`) are ours, because a socket, a message object and a timer for each
question cost more than all checks together. Names are absolute: no search list is ever used.
Whatever comes from a server is an `Answer` in the end; `fetch` raises nothing.

What a failure is called: the word a server said (SERVFAIL, REFUSED) beats what could not be read, that beats
a server that cannot be reached, and that beats silence.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from authmilter.deadline import Deadline, monotonic
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, NoData, NxDomain, Question, RdType
from authmilter.dns.resolv_conf import named_servers
from authmilter.dns.servers import Circuits, Server
from authmilter.dns.transport import Event, Query, Race, Transport, Trouble
from authmilter.dns.wire import (
    MAX_CNAMES,
    Alias,
    Labels,
    encoded,
    octets_of,
    opt_record,
    question_section,
    read_reply,
)
from authmilter.errors import InvalidName

__all__ = ["NetworkResolver", "NetworkStats", "ResolverSettings"]

#: RFC 6891 §7: what a server says that does not know EDNS: FORMERR, NOTIMP.
_WITHOUT_EDNS = frozenset({1, 4})

#: RD set, one question; with and without one additional record (RFC 1035 §4.1.1).
_HEADER_EDNS = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
_HEADER_PLAIN = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
_TC = 0x02

#: A server that kept silent this often in a row is asked last for that many seconds.
_STRIKES = 3
_REST = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverSettings:
    """How the network is asked.

    Raises:
        ValueError: a value is out of its range, or a name server is none; the message says which.
    """

    #: `IP`, `IP:port` or `[IPv6]:port`, asked in this order; empty: those of `resolv_conf`
    nameservers: tuple[str, ...] = ()
    #: the longest one question may take, repeats included, in seconds (above 0)
    timeout: float = 5.0
    #: how often each server is asked at most (1 to 10)
    attempts: int = 2
    #: the largest UDP answer we ask for, in octets (RFC 6891 §6.2.3; 512 to 4096)
    edns_payload: int = 1232
    #: how long a socket toward a loopback or private server is used, in seconds (0: for one question)
    keep: float = 10.0
    #: how many questions may be open at a time (1 to 10,000); others wait their turn
    outstanding: int = 1000
    #: read once, where `nameservers` is empty; its `search` and `options` are not used
    resolv_conf: str = "/etc/resolv.conf"

    def __post_init__(self) -> None:
        for text in self.nameservers:
            Server.parse(text)
        if not 0 < self.timeout < math.inf:
            raise ValueError("timeout must be above 0 seconds")
        if not 1 <= self.attempts <= 10:
            raise ValueError("attempts must be from 1 to 10")
        if not 512 <= self.edns_payload <= 4096:
            raise ValueError("edns_payload must be from 512 to 4096 octets")
        if not 0 <= self.keep < math.inf:
            raise ValueError("keep must be 0 seconds or more")
        if not 1 <= self.outstanding <= 10_000:
            raise ValueError("outstanding must be from 1 to 10000")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStats:
    """What the network was asked since the start: all are counts."""

    #: questions
    questions: int = 0
    #: datagrams sent
    sent: int = 0
    #: answers asked for over TCP
    tcp: int = 0
    #: tries that a server left unanswered, or that could not reach it
    silent: int = 0
    #: questions that ended as `Failed`
    failed: int = 0


@dataclass(slots=True)
class _Shared:
    """What all questions of a resolver share: who kept silent, the OPT record, and the counts."""

    circuits: Circuits
    opt: bytes
    questions: int = 0
    sent: int = 0
    tcp: int = 0
    silent: int = 0
    failed: int = 0


#: The first of these that happened is the answer.
_RANK = {
    kind: rank
    for rank, kind in enumerate(
        (
            FailureKind.SERVFAIL,
            FailureKind.REFUSED,
            FailureKind.MALFORMED,
            FailureKind.NETWORK,
            FailureKind.TIMEOUT,
            FailureKind.LIMIT,
        )
    )
}
_TROUBLES = {
    Trouble.UNREACHABLE: FailureKind.NETWORK,
    Trouble.TIMEOUT: FailureKind.TIMEOUT,
    Trouble.MALFORMED: FailureKind.MALFORMED,
}
_NO_TIME = Failed(FailureKind.LIMIT, "no time was left to ask")
_NO_TURN = Failed(FailureKind.LIMIT, "too many questions are open")
_TIMEOUT = Failed(FailureKind.TIMEOUT, "no name server answered in time")
_TOO_LONG = Failed(FailureKind.SERVFAIL, f"more than {MAX_CNAMES} CNAMEs follow each other")
_NOBODY: frozenset[Server] = frozenset()
_CANNOT_ASK = Failed(FailureKind.MALFORMED, "the name cannot be asked")


class NetworkResolver:
    """Implements `ports.Resolver` over UDP and TCP; remembers no answers (`CachingResolver` does).

    Works under any event loop that knows `add_reader`, in several of them one after another or in several
    threads; sockets are bound to the loop that runs when they are needed.

    Args:
        settings: how to ask.

    Raises:
        ConfigError: no name server is configured and resolv.conf names none.
    """

    __slots__ = ("_servers", "_settings", "_shared", "_transports")

    def __init__(self, settings: ResolverSettings | None = None) -> None:
        self._settings = settings = settings or ResolverSettings()
        texts = settings.nameservers or named_servers(settings.resolv_conf)
        self._servers = tuple(dict.fromkeys(Server.parse(t) for t in texts))
        self._shared = _Shared(
            Circuits(strikes=_STRIKES, rest=_REST),
            opt_record(settings.edns_payload),
        )
        self._transports: dict[asyncio.AbstractEventLoop, Transport] = {}

    @property
    def servers(self) -> tuple[str, ...]:
        """The name servers in their order, as `IP:port`."""
        return tuple(str(s) for s in self._servers)

    def stats(self) -> NetworkStats:
        """Return the counts so far."""
        s = self._shared
        return NetworkStats(questions=s.questions, sent=s.sent, tcp=s.tcp, silent=s.silent, failed=s.failed)

    def known(self, question: Question) -> Answer | None:  # noqa: ARG002 - the port's shape
        """Return None: the network has nothing at hand."""
        return None

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        """Ask, until `deadline` or the settings' timeout, whichever is earlier.

        Returns:
            The answer. `Failed(TIMEOUT)` where time ran out while a server was asked; `Failed(LIMIT)` where
            none was asked, because there was no time or no turn.
        """
        return await self.begin(question, deadline)

    def begin(self, question: Question, deadline: Deadline) -> asyncio.Future[Answer]:
        """Ask as `fetch` does, at once; the future has the answer, and cancelling it ends the question."""
        errand = _Errand(self._shared, self._servers, self._settings, self._transport())
        errand.begin(question, deadline)
        return errand.future

    def close(self) -> None:
        """Close the kept sockets; the resolver can be used again (it opens new ones)."""
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()

    def _transport(self) -> Transport:
        loop = asyncio.get_running_loop()
        transport = self._transports.get(loop)
        if transport is None:
            for ended in [each for each in tuple(self._transports) if each.is_closed()]:
                left = self._transports.pop(ended, None)  # another thread may have been faster
                if left is not None:
                    left.close()
            transport = Transport(loop, keep=self._settings.keep, outstanding=self._settings.outstanding)
            self._transports[loop] = transport
        return transport


class _Errand:
    """One question on its way, from a turn to `future`.

    Nearly every question is answered by the first server that is asked, and needs no task for that. Silence, trouble,
    a truncated answer or an alias, and a question that has to wait for its turn, are a coroutine's to go on with.
    """

    __slots__ = (
        "_inquiry",
        "_servers",
        "_settings",
        "_shared",
        "_task",
        "_timer",
        "_transport",
        "_turn",
        "future",
    )

    def __init__(
        self, shared: _Shared, servers: tuple[Server, ...], settings: ResolverSettings, transport: Transport
    ) -> None:
        self._shared = shared
        self._servers = servers
        self._settings = settings
        self._transport = transport
        self._inquiry: _Inquiry | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Answer] | None = None
        self._turn = False
        self.future: asyncio.Future[Answer] = transport.loop.create_future()

    def begin(self, question: Question, deadline: Deadline) -> None:
        """Ask the first server, or wait for a turn."""
        self._shared.questions += 1
        self.future.add_done_callback(self._over)
        now = monotonic()
        until = min(deadline.at, now + self._settings.timeout)
        try:
            name, octets = encoded(question.name)
        except InvalidName:
            self._settle(_CANNOT_ASK)
            return
        if until <= now:
            self._settle(_NO_TIME)
            return
        inquiry = self._inquiry = self._inquire(name, octets, question.rdtype, until=until, now=now)
        self._turn = self._transport.turns.take()
        if not self._turn:
            self._go_on()
            return
        turn = inquiry.begin(now)
        if inquiry.race.heard:
            self._go_on()
            return
        inquiry.race.listener = self._heard
        self._timer = self._transport.loop.call_later(turn, self._go_on)

    def _inquire(self, name: Labels, octets: bytes, rdtype: RdType, *, until: float, now: float) -> _Inquiry:
        plan = self._shared.circuits.order(self._servers, now) * self._settings.attempts
        return _Inquiry(
            self._shared, self._transport, plan, name=name, octets=octets, rdtype=rdtype, until=until
        )

    def _heard(self) -> None:
        """Take the first that came, if it is an answer."""
        assert self._inquiry is not None  # begin made it
        answer = self._inquiry.plain_answer()
        if answer is not None:
            self._settle(answer)
        else:
            self._go_on()

    def _go_on(self) -> None:
        assert self._inquiry is not None  # as above
        self._inquiry.race.listener = None
        if self._timer is not None:
            self._timer.cancel()
        self._task = self._transport.loop.create_task(self._rest(self._inquiry))
        self._task.add_done_callback(self._ended)

    async def _rest(self, inquiry: _Inquiry) -> Answer:
        if not self._turn:
            self._turn = await self._transport.turns.wait(inquiry.until)
            if not self._turn:
                return _NO_TURN
        ttl = math.inf
        hops = 0
        while hops <= MAX_CNAMES:
            self._inquiry = inquiry
            try:
                reply = await inquiry.run()
            finally:
                inquiry.race.close()
            if not isinstance(reply, Alias):
                return _kept_for(reply, ttl)
            # RFC 1034 §3.6.2: the query is restarted at the canonical name.
            ttl, hops = min(ttl, reply.ttl), hops + reply.hops
            inquiry = self._inquire(
                reply.target, octets_of(reply.target), inquiry.rdtype, until=inquiry.until, now=monotonic()
            )
        return _TOO_LONG

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        """Hand on what the coroutine found."""
        if self.future.done():
            return
        if task.cancelled():
            self.future.cancel()
            return
        bug = task.exception()
        if bug is not None:
            self.future.set_exception(bug)
        else:
            self._settle(task.result())

    def _settle(self, answer: Answer) -> None:
        if isinstance(answer, Failed):
            self._shared.failed += 1
        if not self.future.done():
            self.future.set_result(answer)

    def _over(self, _future: asyncio.Future[Answer]) -> None:
        """Leave nothing behind, however it ended."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._inquiry is not None:
            self._inquiry.race.listener = None
            self._inquiry.race.close()
        if self._turn:
            self._turn = False
            self._transport.turns.release()


class _Inquiry:
    """One name asked: server after server, listening to all that were asked until one gives an answer."""

    __slots__ = (
        "_attempt",
        "_failure",
        "_first",
        "_heard",
        "_name",
        "_plain",
        "_plan",
        "_query",
        "_shared",
        "_transport",
        "race",
        "rdtype",
        "until",
    )

    def __init__(
        self,
        shared: _Shared,
        transport: Transport,
        plan: tuple[Server, ...],
        *,
        name: Labels,
        octets: bytes,
        rdtype: RdType,
        until: float,
    ) -> None:
        self._shared = shared
        self._transport = transport
        self._plan = plan
        self._name = name
        self.rdtype = rdtype
        self.until = until
        question = question_section(octets, rdtype)
        self._query = Query(_HEADER_EDNS + question + shared.opt, question)
        self.race = Race(transport)
        #: the try whose turn it is
        self._attempt = -1
        #: when the first server's turn is over, once it was asked
        self._first = 0.0
        #: servers that have said their word: they are not asked again
        self._heard = _NOBODY
        #: servers that want no EDNS
        self._plain = _NOBODY
        self._failure: Failed | None = None

    def begin(self, now: float) -> float:
        """Ask the first server; return how many seconds its turn has."""
        turn = (self.until - now) / len(self._plan)
        self._first = now + turn
        self._send(self._plan[0])
        return turn

    def plain_answer(self) -> Answer | None:
        """Return what came first, if it is an answer; None leaves it for `run`."""
        event = self.race.first()
        payload = event.payload
        if isinstance(payload, Trouble) or payload[2] & _TC:
            return None
        reply = read_reply(payload, self._name, self.rdtype)
        if isinstance(reply, Failed | Alias):
            return None
        self._shared.circuits.spoke(event.server)
        return reply

    async def run(self) -> Answer | Alias:
        """Ask server after server, from the first on if `begin` has not; `race` is the caller's to close."""
        for position, server in enumerate(self._plan):
            if server in self._heard:
                continue
            turn = self._first
            if position or not turn:
                now = monotonic()
                if now >= self.until:
                    break
                left = sum(1 for each in self._plan[position:] if each not in self._heard)
                turn = now + (self.until - now) / left
                self._send(server)
            reply = await self._turn(server, turn)
            if reply is not None:
                return reply
        # Nobody is left to ask; one that kept silent may still answer.
        while (event := await self.race.event(self.until)) is not None:
            reply = await self._judge(event, self.until)
            if reply is not None:
                return reply
        return self._failure or _TIMEOUT

    async def _turn(self, server: Server, until: float) -> Answer | Alias | None:
        """Listen until `server`, who was asked, has failed or its turn is over: None."""
        while (event := await self.race.event(until)) is not None:
            attempt = self._attempt
            reply = await self._judge(event, until)
            if reply is not None:
                return reply
            if event.attempt == attempt == self._attempt:
                return None
        self._silent(server)
        return None

    async def _judge(self, event: Event, until: float) -> Answer | Alias | None:
        """Return the answer in `event`; None, and the failure noted, if it is no good."""
        server, payload = event.server, event.payload
        if payload is Trouble.GUESSED or (isinstance(payload, bytes) and payload[2] & _TC):
            # RFC 7766 §5: a truncated answer is asked for again over TCP.
            self._shared.tcp += 1
            payload = await self._transport.over_tcp(server, self._query_for(server), until)
        if isinstance(payload, Trouble):
            self._note(Failed(_TROUBLES[payload], f"{server} {payload}"))
            if payload is Trouble.MALFORMED:
                self._heard |= {server}
            else:
                self._silent(server)
            return None
        self._shared.circuits.spoke(server)
        if payload[3] & 0x0F in _WITHOUT_EDNS and server not in self._plain:
            # RFC 6891 §7: once more without EDNS.
            self._plain |= {server}
            self._send(server)
            return None
        reply = read_reply(payload, self._name, self.rdtype)
        if isinstance(reply, Failed):
            self._note(Failed(reply.kind, f"{server} {reply.detail}"))
            self._heard |= {server}
            return None
        return reply

    def _query_for(self, server: Server) -> Query:
        if server in self._plain:
            return Query(_HEADER_PLAIN + self._query.question, self._query.question)
        return self._query

    def _send(self, server: Server) -> None:
        self._shared.sent += 1
        self._attempt = self.race.send(server, self._query_for(server))

    def _silent(self, server: Server) -> None:
        self._shared.silent += 1
        self._shared.circuits.silent(server, monotonic())

    def _note(self, failure: Failed) -> None:
        if self._failure is None or _RANK[failure.kind] < _RANK[self._failure.kind]:
            self._failure = failure


def _kept_for(answer: Answer, ttl: float) -> Answer:
    """Return `answer` with its TTL no longer than that of the CNAMEs which led to it."""
    if isinstance(answer, Found):
        return answer if answer.ttl <= ttl else Found(answer.records, ttl)
    if isinstance(answer, Failed) or answer.ttl <= ttl:
        return answer
    return NoData(ttl) if isinstance(answer, NoData) else NxDomain(ttl)
