"""The network as a `Resolver`: the one room of dnspython.

dnspython builds names and reads messages; the sockets are ours (`transport.py`), because a socket, a message
object and a timer for each question cost more than all checks together. Names are absolute: no search list is
ever used. Whatever comes from a server is an `Answer` in the end; `fetch` raises nothing.

What a failure is called: the word a server said (SERVFAIL, REFUSED) beats what could not be read, that beats
a server that cannot be reached, and that beats silence.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.wire

from authmilter.deadline import Deadline, monotonic
from authmilter.dns.answer import (
    Answer,
    Failed,
    FailureKind,
    Found,
    Mx,
    NoData,
    NxDomain,
    Question,
    RdType,
    Record,
)
from authmilter.dns.resolv_conf import named_servers
from authmilter.dns.servers import Circuits, Server
from authmilter.dns.transport import Event, Query, Race, Transport, Trouble

__all__ = ["Alias", "NetworkResolver", "NetworkStats", "ResolverSettings", "read_reply"]

_IN = 1
_NS = 2
_CNAME = 5
_SOA = 6
_OPT = 41
_TYPES = {RdType.A: 1, RdType.PTR: 12, RdType.MX: 15, RdType.TXT: 16, RdType.AAAA: 28}

_FORMERR = 1
_SERVFAIL = 2
_NXDOMAIN = 3
_NOTIMP = 4
_RCODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH", 16: "BADVERS"}
#: RFC 6891 §7: what a server says that does not know EDNS.
_WITHOUT_EDNS = frozenset({_FORMERR, _NOTIMP})

#: RD set, one question; with and without one additional record (RFC 1035 §4.1.1).
_HEADER_EDNS = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
_HEADER_PLAIN = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
_HEADER = struct.Struct("!HBBHHHH")
_AA = 0x04
_TC = 0x02
_RECORD = "!HHIH"

#: How many CNAMEs are followed, as resolvers do (BIND 9.18.28 and Unbound stop after eleven).
_MAX_CNAMES = 11
#: How many records of an answer are read; more is no answer to a question about mail.
_MAX_RECORDS = 1000
#: A server that kept silent this often in a row is asked last for that many seconds.
_STRIKES = 3
_REST = 10.0

_Labels = tuple[bytes, ...]


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


@dataclass(frozen=True, slots=True)
class Alias:
    """The server gave CNAMEs and stopped: `target` is to be asked next; `hops` of them, kept for `ttl` seconds."""

    target: _Labels
    ttl: float
    hops: int


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
_TOO_LONG = Failed(FailureKind.SERVFAIL, f"more than {_MAX_CNAMES} CNAMEs follow each other")
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
            # RFC 6891 §6.1.2: root name, type, payload size as class, extended RCODE and flags 0, no options.
            struct.pack("!BHHIH", 0, _OPT, settings.edns_payload, 0, 0),
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
            name = dns.name.Name((*question.name.encode("ascii").lower().split(b"."), b""))
        except (UnicodeError, dns.exception.DNSException):
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
            return await self._resolve(transport, name.labels[:-1], question.rdtype, until)
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

    async def _resolve(self, transport: Transport, name: _Labels, rdtype: RdType, until: float) -> Answer:
        ttl = math.inf
        hops = 0
        while hops <= _MAX_CNAMES:
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
        name: _Labels,
        rdtype: RdType,
        until: float,
    ) -> None:
        self._shared = shared
        self._transport = transport
        self._plan = plan
        self._name = name
        self._rdtype = rdtype
        self._until = until
        labels = b"".join(len(label).to_bytes(1, "big") + label for label in name)
        question = labels + struct.pack("!BHH", 0, _TYPES[rdtype], _IN)
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


def read_reply(wire: bytes, name: _Labels, rdtype: RdType) -> Answer | Alias:
    """Read a server's message as the answer to a question.

    Args:
        wire: the whole message, already known to be the reply to this question (`transport.is_reply`).
        name: the labels asked for, lower case, without the root.
        rdtype: the type asked for.

    Returns:
        The answer, or an `Alias` to be asked next. Total: what cannot be read is `Failed(MALFORMED)`; the
        detail of a failure continues "SERVER ...".
    """
    try:
        return _read(wire, name, rdtype)
    except (dns.exception.DNSException, ValueError):
        return Failed(FailureKind.MALFORMED, "sent an answer that cannot be read")


def _read(wire: bytes, name: _Labels, rdtype: RdType) -> Answer | Alias:
    if len(wire) < _HEADER.size:
        raise ValueError("short header")
    _, flags, rcode, questions, answers, authorities, additionals = _HEADER.unpack_from(wire)
    rcode &= 0x0F
    if rcode not in {0, _NXDOMAIN}:
        return _refusal(rcode)
    if flags & _TC:
        return Failed(FailureKind.MALFORMED, "sent a truncated answer over TCP")
    if questions != 1:
        raise ValueError("the question is missing")
    if answers + authorities + additionals > _MAX_RECORDS:
        return Failed(FailureKind.MALFORMED, f"sent more than {_MAX_RECORDS} records")
    parser = dns.wire.Parser(wire, _HEADER.size + sum(map(len, name)) + len(name) + 5)
    records, aliases = _answer_section(parser, answers, rdtype)
    last, ttl, hops = name, math.inf, 0
    while last in aliases and last not in records:
        alias_ttl, last = aliases[last]
        ttl = min(ttl, alias_ttl)
        hops += 1
        if hops > _MAX_CNAMES:
            return Failed(FailureKind.SERVFAIL, f"sent more than {_MAX_CNAMES} CNAMEs that follow each other")
    found = records.get(last)
    if found:
        if rcode == _NXDOMAIN:
            return Failed(FailureKind.MALFORMED, "sent records of a name that does not exist")
        # RFC 2181 §5: a set holds a record once, and its TTL is the smallest.
        return Found(tuple(dict.fromkeys(r for _, r in found)), min(ttl, *(t for t, _ in found)))
    negative_ttl, referral = _authority_section(parser, authorities, last)
    extended = _extended_rcode(parser, additionals)
    if extended:
        return _refusal(extended << 4 | rcode)
    if rcode == _NXDOMAIN:
        # RFC 6604 §3: the RCODE is about the last name of the chain; for who asked, no such name either way.
        return NxDomain(min(ttl, negative_ttl or 0.0))
    if negative_ttl is not None:
        return NoData(min(ttl, negative_ttl))
    if hops:
        return Alias(last, ttl, hops)
    if referral and not flags & _AA:
        # RFC 2308 §2.2: name servers without a SOA point elsewhere; "ask there" is not "no such record".
        return Failed(FailureKind.REFUSED, "does not resolve for us, it refers to other servers")
    return NoData(0.0)


def _refusal(rcode: int) -> Failed:
    kind = FailureKind.SERVFAIL if rcode == _SERVFAIL else FailureKind.REFUSED
    return Failed(kind, f"answered {_RCODES.get(rcode, f'RCODE {rcode}')}")


_Found = dict[_Labels, list[tuple[float, Record]]]
_Aliases = dict[_Labels, tuple[float, _Labels]]


def _answer_section(parser: dns.wire.Parser, count: int, rdtype: RdType) -> tuple[_Found, _Aliases]:
    """Read the records of the asked type, and the CNAMEs, by owner; other types and classes are skipped."""
    wanted = _TYPES[rdtype]
    read = _READERS[rdtype]
    records: _Found = {}
    aliases: _Aliases = {}
    for _ in range(count):
        owner = _labels(parser)
        kind, rdclass, ttl, size = parser.get_struct(_RECORD)
        with parser.restrict_to(size):
            if rdclass == _IN and kind == wanted:
                records.setdefault(owner, []).append((_seconds(ttl), read(parser)))
            elif rdclass == _IN and kind == _CNAME:
                # RFC 1034 §3.6.2: a name has one CNAME; the first counts.
                aliases.setdefault(owner, (_seconds(ttl), _labels(parser)))
            else:
                parser.get_remaining()
    return records, aliases


def _authority_section(parser: dns.wire.Parser, count: int, name: _Labels) -> tuple[float | None, bool]:
    """Return for how long `name` may be taken to be absent (None: no SOA says so), and if NS records are there."""
    negative_ttl: float | None = None
    referral = False
    for _ in range(count):
        owner = _labels(parser)
        kind, rdclass, ttl, size = parser.get_struct(_RECORD)
        with parser.restrict_to(size):
            if rdclass == _IN and kind == _SOA and name[len(name) - len(owner) :] == owner:
                dns.name.from_wire_parser(parser)  # MNAME
                dns.name.from_wire_parser(parser)  # RNAME
                *_, minimum = parser.get_struct("!IIIII")
                # RFC 2308 §5: the smaller of the SOA's own TTL and its MINIMUM.
                negative_ttl = min(_seconds(ttl), _seconds(minimum))
            else:
                referral = referral or kind == _NS
                parser.get_remaining()
    return negative_ttl, referral


def _extended_rcode(parser: dns.wire.Parser, count: int) -> int:
    """Return the upper eight bits of the RCODE (RFC 6891 §6.1.3), 0 without an OPT record."""
    for _ in range(count):
        dns.name.from_wire_parser(parser)
        kind, _, flags, size = parser.get_struct(_RECORD)
        parser.get_bytes(size)
        if kind == _OPT:
            return int(flags) >> 24
    return 0


def _labels(parser: dns.wire.Parser) -> _Labels:
    """Read a name: its labels in lower case (RFC 4343), without the root."""
    return tuple(map(bytes.lower, dns.name.from_wire_parser(parser).labels[:-1]))


def _seconds(ttl: int) -> float:
    # RFC 2181 §8: with its topmost bit set, a TTL is 0.
    return float(ttl) if ttl < 1 << 31 else 0.0


def _text(labels: _Labels) -> str:
    r"""Write a name with dots between its labels.

    What cannot stand in a `Question` (a dot within a label, an octet that is not printable ASCII) is written
    `\DDD` (RFC 1035 §5.1), so that it is neither taken for two labels nor for anything else in a log.
    """
    text = b".".join(labels)
    if (
        text.isascii()
        and (plain := text.decode()).isprintable()
        and plain.count(".") == max(0, len(labels) - 1)
    ):
        return plain
    return ".".join("".join(map(_character, label)) for label in labels)


def _character(octet: int) -> str:
    return chr(octet) if 0x20 <= octet < 0x7F and octet != 0x2E else f"\\{octet:03d}"


def _read_a(parser: dns.wire.Parser) -> Record:
    return ipaddress.IPv4Address(parser.get_remaining())


def _read_aaaa(parser: dns.wire.Parser) -> Record:
    return ipaddress.IPv6Address(parser.get_remaining())


def _read_mx(parser: dns.wire.Parser) -> Record:
    # RFC 7505 §3: the exchange "." (no labels) is the null MX, here the empty text.
    return Mx(parser.get_uint16(), _text(_labels(parser)))


def _read_ptr(parser: dns.wire.Parser) -> Record:
    return _text(_labels(parser))


def _read_txt(parser: dns.wire.Parser) -> Record:
    strings = []
    while parser.remaining():
        strings.append(parser.get_counted_bytes())
    return b"".join(strings)


_READERS: dict[RdType, Callable[[dns.wire.Parser], Record]] = {
    RdType.A: _read_a,
    RdType.AAAA: _read_aaaa,
    RdType.MX: _read_mx,
    RdType.PTR: _read_ptr,
    RdType.TXT: _read_txt,
}


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
