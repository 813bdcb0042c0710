"""A name server for tests: UDP and TCP on one loopback port, answering from a zone, with faults on demand.

    with NameServer({"example.com": {"TXT": ["v=spf1 -all"]}}) as server:
        server.fault("slow.example", Fault.DROP)
        resolver = NetworkResolver(ResolverSettings(nameservers=(server.address,)))

The zone has the shape that `authmilter.dns.zone` reads; here TIMEOUT means that no answer comes. Messages are
read and written by this file alone, so that it is also a second opinion on the wire format.

From a shell: `python -m tests.support.nameserver ZONE.json [--host IP] [--port N]` prints `ready IP:PORT` and
serves until SIGTERM; SIGHUP reads the file again, and prints that line again.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from authmilter.dns.zone import ZoneResolver

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "OPT": 41}
_NAMES = {number: name for name, number in TYPES.items()}
_RCODES = {"FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}
_QR_RD_RA = 0x8180
_TC = 0x0200
_PORT_TRIES = 50
_MAX_CNAMES = 20


class Fault(StrEnum):
    """What goes wrong with the answers about a name."""

    #: no answer at all
    DROP = "drop"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    #: FORMERR to a question with EDNS; without it the answer is right
    NO_EDNS = "no-edns"
    #: over UDP an empty answer with TC set; over TCP the answer is right
    TRUNCATE = "truncate"
    #: the same, and over TCP nobody answers
    TRUNCATE_ONLY = "truncate-only"
    #: a forged NXDOMAIN with another id comes before the right answer
    WRONG_ID = "wrong-id"
    #: a forged NXDOMAIN about another name comes before the right answer
    WRONG_QUESTION = "wrong-question"
    #: the right header and question, then bytes that are no records
    GARBAGE = "garbage"
    #: of a chain of CNAMEs only the first, as a server sends it that does not resolve
    CNAME_ONLY = "cname-only"
    #: negative answers come without SOA (RFC 2308 §2.2, type 3)
    NO_SOA = "no-soa"
    #: no answer, but the names of other servers
    REFERRAL = "referral"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that arrived: `transport` is `udp` or `tcp`, `edns` the payload offered (0: none)."""

    name: str
    rdtype: str
    transport: str
    edns: int
    client_port: int
    number: int


#: Called with the query, returns the datagrams to send, as they are.
Reply = Callable[[bytes], list[bytes]]


@dataclass(slots=True)
class _Trick:
    fault: Fault | None
    reply: Reply | None
    rdtype: str | None
    left: int | None
    delay: float


class NameServer:
    """A context manager; the server runs in a thread of its own until the block ends.

    Args:
        zone: what it answers from; can be replaced at any time.
        host: the address to listen on (127.0.0.0/8 or ::1).
        port: 0 for any free one.
        ttl: the TTL of every record, in seconds.
        negative_ttl: the MINIMUM of the SOA in negative answers, in seconds.
    """

    def __init__(
        self,
        zone: Mapping[str, object] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ttl: int = 300,
        negative_ttl: int = 60,
    ) -> None:
        self.host = host
        self.port = port
        self.ttl = ttl
        self.negative_ttl = negative_ttl
        self._lock = threading.Lock()
        self._tricks: dict[str, _Trick] = {}
        self._asked: list[Asked] = []
        self._zone = _Zone({})
        self.replace(zone or {})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tcp: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        """`IP:port` as the resolver's settings take it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Every question that arrived, in order."""
        with self._lock:
            return tuple(self._asked)

    def count(self, name: str | None = None, rdtype: str | None = None, transport: str | None = None) -> int:
        """How many questions arrived about `name`, of `rdtype`, over `transport` (None: any)."""
        return sum(
            1
            for a in self.asked
            if name in {None, a.name} and rdtype in {None, a.rdtype} and transport in {None, a.transport}
        )

    def forget(self) -> None:
        """Start counting anew."""
        with self._lock:
            self._asked.clear()

    def replace(self, zone: Mapping[str, object]) -> None:
        """Answer from `zone` from now on; DecodeError if it is none."""
        ZoneResolver(zone)
        new = _Zone(zone)
        with self._lock:
            self._zone = new

    def fault(
        self,
        name: str,
        fault: Fault | None = None,
        *,
        rdtype: str | None = None,
        times: int | None = None,
        delay: float = 0.0,
    ) -> None:
        """Make answers about `name` (of `rdtype` only) go wrong, `times` times or for good, after `delay` seconds."""
        with self._lock:
            self._tricks[name.lower()] = _Trick(fault, None, rdtype, times, delay)

    def reply_with(self, name: str, reply: Reply, *, times: int | None = None) -> None:
        """Send what `reply` makes of the query about `name`, as it is."""
        with self._lock:
            self._tricks[name.lower()] = _Trick(None, reply, None, times, 0.0)

    def heal(self, name: str | None = None) -> None:
        """Take back the faults of `name`, or all."""
        with self._lock:
            if name is None:
                self._tricks.clear()
            else:
                self._tricks.pop(name.lower(), None)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nameserver", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        wanted = self.port
        for _ in range(_PORT_TRIES):
            tcp = await asyncio.start_server(self._serve_tcp, self.host, wanted)
            port = int(tcp.sockets[0].getsockname()[1])
            try:
                self._udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _Udp(self), local_addr=(self.host, port)
                )
            except OSError:
                tcp.close()
                if wanted:
                    raise
                continue
            self._tcp, self.port = tcp, port
            return
        raise OSError("no port is free for both UDP and TCP")

    async def _shut(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                query = await reader.readexactly(size)
                client_port = int(writer.get_extra_info("peername")[1])
                messages, delay = self.answer(query, "tcp", client_port)
                if delay:
                    await asyncio.sleep(delay)
                for message in messages:
                    writer.write(len(message).to_bytes(2, "big") + message)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def answer(self, query: bytes, transport: str = "udp", client_port: int = 0) -> tuple[list[bytes], float]:
        """Return the messages to send, and after how many seconds."""
        try:
            asked, question, labels = _read_query(query, transport, client_port)
        except (ValueError, IndexError, struct.error):
            return [], 0.0
        with self._lock:
            self._asked.append(asked)
            zone = self._zone
            trick = self._tricks.get(asked.name)
            if trick is not None and trick.rdtype in {None, asked.rdtype} and trick.left != 0:
                fault, reply, delay = trick.fault, trick.reply, trick.delay
                if trick.left is not None:
                    trick.left -= 1
            else:
                fault, reply, delay = None, None, 0.0
        if reply is not None:
            return reply(query), delay
        return self._messages(zone, asked, question, labels, fault), delay

    def _messages(
        self, zone: _Zone, asked: Asked, question: bytes, labels: tuple[bytes, ...], fault: Fault | None
    ) -> list[bytes]:
        udp = asked.transport == "udp"
        header = Header(asked.number, question, asked.edns)
        if fault is Fault.DROP or (fault is Fault.TRUNCATE_ONLY and not udp):
            return []
        if fault in {Fault.TRUNCATE, Fault.TRUNCATE_ONLY} and udp:
            return [header.message(flags=_TC)]
        if fault is Fault.SERVFAIL or fault is Fault.REFUSED:
            return [header.message(rcode=_RCODES[fault.upper()])]
        if fault is Fault.NO_EDNS and asked.edns:
            return [Header(asked.number, b"", 0).message(rcode=_RCODES["FORMERR"])]
        if fault is Fault.GARBAGE:
            return [header.message(answers=[b"\xc0\x0c\x00\x10garbage"])]
        if fault is Fault.REFERRAL:
            ns = record(labels[-1:], "NS", self.ttl, wire_name((b"ns", b"example")))
            return [header.message(authority=[ns])]
        forged: list[bytes] = []
        if fault is Fault.WRONG_ID:
            forged = [Header(asked.number ^ 0x5555, question, 0).message(rcode=_RCODES["NXDOMAIN"])]
        if fault is Fault.WRONG_QUESTION:
            other = wire_name((b"other", b"example")) + question[-4:]
            forged = [Header(asked.number, other, 0).message(rcode=_RCODES["NXDOMAIN"])]
        message = zone.message(
            header, labels, asked.rdtype, fault, ttl=self.ttl, negative_ttl=self.negative_ttl
        )
        if message is None:
            return []
        if udp and len(message) > max(512, asked.edns):
            message = header.message(flags=_TC)
        return [*forged, message]


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        messages, delay = self._server.answer(data, "udp", addr[1])
        if delay:
            asyncio.get_running_loop().call_later(delay, self._send, messages, addr)
        else:
            self._send(messages, addr)

    def _send(self, messages: list[bytes], addr: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            for message in messages:
                self._transport.sendto(message, addr)


@dataclass(frozen=True, slots=True)
class Header:
    """What all messages about one query share: id, question section, and the EDNS payload offered (0: none)."""

    number: int
    question: bytes
    edns: int

    def message(
        self,
        *,
        answers: list[bytes] | None = None,
        authority: list[bytes] | None = None,
        rcode: int = 0,
        flags: int = 0,
    ) -> bytes:
        answers, authority = answers or [], authority or []
        extra = [struct.pack("!BHHIH", 0, TYPES["OPT"], 1232, 0, 0)] if self.edns else []
        head = struct.pack(
            "!HHHHHH",
            self.number,
            _QR_RD_RA | flags | rcode,
            1 if self.question else 0,
            len(answers),
            len(authority),
            len(extra),
        )
        return b"".join((head, self.question, *answers, *authority, *extra))


class _Zone:
    """The zone, its records as wire format: name -> type -> record data, or the word of a failure."""

    def __init__(self, zone: Mapping[str, object]) -> None:
        self._nodes: dict[str, str | dict[str, str | list[bytes]]] = {}
        self._aliases: dict[str, str] = {}
        self._exists: set[str] = set()
        for name, content in zone.items():
            key = name.removesuffix(".").lower()
            labels = key.split(".")
            self._exists.update(".".join(labels[i:]) for i in range(len(labels)))
            if isinstance(content, str):
                self._nodes[key] = content
            elif isinstance(content, Mapping):
                self._nodes[key] = {t.upper(): self._type(key, t.upper(), r) for t, r in content.items()}

    def _type(self, name: str, rdtype: str, records: object) -> str | list[bytes]:
        if isinstance(records, str) and records in {"TIMEOUT", "SERVFAIL", "REFUSED"}:
            return records
        items = records if isinstance(records, list | tuple) else [records]
        if rdtype == "CNAME" and items:
            self._aliases[name] = str(items[0]).removesuffix(".").lower()
        return [_rdata(rdtype, item) for item in items]

    def message(
        self,
        header: Header,
        labels: tuple[bytes, ...],
        rdtype: str,
        fault: Fault | None,
        *,
        ttl: int,
        negative_ttl: int,
    ) -> bytes | None:
        """Return the answer to a question; None where none shall come."""
        answers: list[bytes] = []
        soa = [] if fault is Fault.NO_SOA else [soa_record(ttl, negative_ttl)]
        for _ in range(_MAX_CNAMES):
            name = b".".join(labels).decode("latin-1").lower()
            node = self._nodes.get(name)
            if node is None:
                rcode = 0 if name in self._exists else _RCODES["NXDOMAIN"]
                return header.message(answers=answers, authority=soa, rcode=rcode)
            records = node if isinstance(node, str) else node.get(rdtype, [])
            alias = "" if isinstance(node, str) else node.get("CNAME", "")
            if isinstance(alias, str) and alias and not records:
                records = alias
            if isinstance(records, str):
                return None if records == "TIMEOUT" else header.message(rcode=_RCODES[records])
            if records or not alias:
                answers += [record(labels, rdtype, ttl, data) for data in records]
                return header.message(answers=answers, authority=[] if records else soa)
            target = _labels_of(self._aliases[name])
            answers.append(record(labels, "CNAME", ttl, wire_name(target)))
            if fault is Fault.CNAME_ONLY:
                return header.message(answers=answers)
            labels = target
        return header.message(rcode=_RCODES["SERVFAIL"])


def _read_query(query: bytes, transport: str, client_port: int) -> tuple[Asked, bytes, tuple[bytes, ...]]:
    number, _, questions, _, _, additionals = struct.unpack_from("!HHHHHH", query)
    if questions != 1:
        raise ValueError("not one question")
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    rdtype, _ = struct.unpack_from("!HH", query, at + 1)
    question = query[12 : at + 5]
    edns = struct.unpack_from("!H", query, at + 8)[0] if additionals else 0
    name = b".".join(labels).decode("latin-1").lower()
    asked = Asked(name, _NAMES.get(rdtype, str(rdtype)), transport, edns, client_port, number)
    return asked, question, tuple(labels)


def _labels_of(name: str) -> tuple[bytes, ...]:
    return (
        tuple(label.encode("latin-1") for label in name.removesuffix(".").split(".")) if name != "." else ()
    )


def wire_name(labels: tuple[bytes, ...]) -> bytes:
    """Write a name, uncompressed; `labels` without the root."""
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"


def record(owner: tuple[bytes, ...], rdtype: str, ttl: int, data: bytes) -> bytes:
    """Write a record of class IN."""
    return wire_name(owner) + struct.pack("!HHIH", TYPES[rdtype], 1, ttl, len(data)) + data


def soa_record(ttl: int, minimum: int, owner: tuple[bytes, ...] = ()) -> bytes:
    """Write a SOA; by default the root's, which is above every name."""
    data = wire_name((b"ns",)) + wire_name((b"admin",)) + struct.pack("!IIIII", 1, 2, 3, 4, minimum)
    return record(owner, "SOA", ttl, data)


def _rdata(rdtype: str, item: object) -> bytes:
    if rdtype == "A":
        return ipaddress.IPv4Address(item).packed
    if rdtype == "AAAA":
        return ipaddress.IPv6Address(item).packed
    if rdtype == "MX":
        preference, _, exchange = str(item).strip().partition(" ")
        return struct.pack("!H", int(preference)) + wire_name(_labels_of(exchange.strip()))
    if rdtype == "TXT":
        strings = item if isinstance(item, list | tuple) else [item]
        octets = [s if isinstance(s, bytes) else str(s).encode("utf-8", "surrogateescape") for s in strings]
        # RFC 1035 §3.3: a character-string has 255 octets at most.
        pieces = [o[i : i + 255] for o in octets for i in range(0, max(1, len(o)), 255)]
        return b"".join(bytes((len(p),)) + p for p in pieces)
    return wire_name(_labels_of(str(item)))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="a name server for tests")
    parser.add_argument("zone", type=Path, help="a JSON file: name -> {TYPE: [records]} or TIMEOUT, SERVFAIL")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    signals = {signal.SIGHUP, signal.SIGTERM, signal.SIGINT}
    # Blocked before the server's thread starts, so that only the wait below takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with NameServer(json.loads(options.zone.read_text()), host=options.host, port=options.port) as server:
        while True:
            sys.stdout.write(f"ready {server.address}\n")
            sys.stdout.flush()
            if signal.sigwait(signals) != signal.SIGHUP:
                return 0
            server.replace(json.loads(options.zone.read_text()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
