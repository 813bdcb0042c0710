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

import dns.exception
import dns.resolver

from authmilter.deadline import Deadline, monotonic
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, NoData, NxDomain, Question, RdType
from authmilter.dns.servers import Circuits, Server
from authmilter.dns.transport import Event, Query, Race, Transport, Trouble
from authmilter.dns.wire import MAX_CNAMES, Alias, Labels, labels_of, opt_record, question_section, read_reply
from authmilter.errors import Complaint, ConfigError, InvalidName, Span

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
        texts = settings.nameservers or _resolv_conf(settings.resolv_conf)
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
        self._shared.questions += 1
        answer = await self._fetch(question, deadline)
        if isinstance(answer, Failed):
            self._shared.failed += 1
        return answer

    def close(self) -> None:
        """Close the kept sockets; the resolver can be used again (it opens new ones)."""
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()

    async def _fetch(self, question: Question, deadline: Deadline) -> Answer:
        try:
            name = labels_of(question.name)
        except InvalidName:
            return _CANNOT_ASK
        until = min(deadline.at, monotonic() + self._settings.timeout)
        if until <= monotonic():
            return _NO_TIME
        transport = self._transport()
        if not transport.turns.locked():
            await transport.turns.acquire()
        elif not await _take_turn(transport.turns, until):
            return _NO_TURN
        try:
            return await self._resolve(transport, name, question.rdtype, until)
        finally:
            transport.turns.release()

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

    async def _resolve(self, transport: Transport, name: Labels, rdtype: RdType, until: float) -> Answer:
        ttl = math.inf
        hops = 0
        while hops <= MAX_CNAMES:
            plan = self._shared.circuits.order(self._servers, monotonic()) * self._settings.attempts
            inquiry = _Inquiry(self._shared, transport, plan, name=name, rdtype=rdtype, until=until)
            reply = await inquiry.run()
            if not isinstance(reply, Alias):
                return _kept_for(reply, ttl)
            # RFC 1034 §3.6.2: the query is restarted at the canonical name.
            name, ttl, hops = reply.target, min(ttl, reply.ttl), hops + reply.hops
        return _TOO_LONG


class _Inquiry:
    """One name asked: server after server, listening to all that were asked until one gives an answer."""

    __slots__ = (
        "_attempt",
        "_failure",
        "_heard",
        "_name",
        "_plain",
        "_plan",
        "_query",
        "_race",
        "_rdtype",
        "_shared",
        "_transport",
        "_until",
    )

    def __init__(
        self,
        shared: _Shared,
        transport: Transport,
        plan: tuple[Server, ...],
        *,
        name: Labels,
        rdtype: RdType,
        until: float,
    ) -> None:
        self._shared = shared
        self._transport = transport
        self._plan = plan
        self._name = name
        self._rdtype = rdtype
        self._until = until
        question = question_section(name, rdtype)
        self._query = Query(_HEADER_EDNS + question + shared.opt, question)
        self._race = Race(transport)
        #: the try whose turn it is
        self._attempt = -1
        #: servers that have said their word: they are not asked again
        self._heard: set[Server] = set()
        #: servers that want no EDNS
        self._plain: set[Server] = set()
        self._failure: Failed | None = None

    async def run(self) -> Answer | Alias:
        try:
            for position, server in enumerate(self._plan):
                if server in self._heard:
                    continue
                now = monotonic()
                if now >= self._until:
                    break
                left = sum(1 for each in self._plan[position:] if each not in self._heard)
                reply = await self._turn(server, now + (self._until - now) / left)
                if reply is not None:
                    return reply
            # Nobody is left to ask; one that kept silent may still answer.
            while (event := await self._race.event(self._until)) is not None:
                reply = await self._judge(event, self._until)
                if reply is not None:
                    return reply
        finally:
            self._race.close()
        return self._failure or _TIMEOUT

    async def _turn(self, server: Server, until: float) -> Answer | Alias | None:
        """Ask `server`; None once it has failed or its turn is over."""
        self._send(server)
        while (event := await self._race.event(until)) is not None:
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
                self._heard.add(server)
            else:
                self._silent(server)
            return None
        self._shared.circuits.spoke(server)
        if payload[3] & 0x0F in _WITHOUT_EDNS and server not in self._plain:
            # RFC 6891 §7: once more without EDNS.
            self._plain.add(server)
            self._send(server)
            return None
        reply = read_reply(payload, self._name, self._rdtype)
        if isinstance(reply, Failed):
            self._note(Failed(reply.kind, f"{server} {reply.detail}"))
            self._heard.add(server)
            return None
        return reply

    def _query_for(self, server: Server) -> Query:
        if server in self._plain:
            return Query(_HEADER_PLAIN + self._query.question, self._query.question)
        return self._query

    def _send(self, server: Server) -> None:
        self._shared.sent += 1
        self._attempt = self._race.send(server, self._query_for(server))

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


async def _take_turn(turns: asyncio.Semaphore, until: float) -> bool:
    """Wait for a turn until `until`; False if none came."""
    try:
        async with asyncio.timeout(max(0.0, until - monotonic())):
            await turns.acquire()
    except TimeoutError:
        return False
    return True


def _resolv_conf(path: str) -> tuple[str, ...]:
    """Return the name servers that `path` names."""
    reader = dns.resolver.Resolver(configure=False)
    try:
        reader.read_resolv_conf(path)
        texts = tuple(str(each) for each in reader.nameservers)
        for text in texts:
            Server.parse(text)
    except (dns.exception.DNSException, ValueError, OSError):
        complaint = Complaint(
            span=Span(file=path),
            message="no usable name server is named here",
            hint="name one in `dns: nameservers`",
        )
        raise ConfigError((complaint,)) from None
    return texts
