"""dnspython as the judge of our reading of replies (`authmilter.dns.wire`): the same answer from its parser.

What is asked of a reply is written here as it is there; the octets, names and lengths are dnspython's to read.
"""

from __future__ import annotations

import ipaddress
import math
import struct
from collections.abc import Callable

import dns.exception
import dns.name
import dns.wire

from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Mx, NoData, NxDomain, RdType, Record
from authmilter.dns.wire import Alias

__all__ = ["read_reply"]

_Labels = tuple[bytes, ...]

_IN = 1
_NS = 2
_CNAME = 5
_SOA = 6
_OPT = 41
_TYPES = {RdType.A: 1, RdType.PTR: 12, RdType.MX: 15, RdType.TXT: 16, RdType.AAAA: 28}
_SERVFAIL = 2
_NXDOMAIN = 3
_RCODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH", 16: "BADVERS"}
_HEADER = struct.Struct("!HBBHHHH")
_AA = 0x04
_TC = 0x02
_RECORD = "!HHIH"
_MAX_CNAMES = 11
_MAX_RECORDS = 1000


def read_reply(wire: bytes, name: _Labels, rdtype: RdType) -> Answer | Alias:
    """Read a server's message as the answer to a question, as `authmilter.dns.wire.read_reply` does."""
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
