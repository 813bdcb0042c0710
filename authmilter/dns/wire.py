"""DNS messages as octets: the question we send, and what a reply says (RFC 1035 §4).

A message object for each answer, with its names, sections and records, cost more than everything else about an answer,
and a check wants the records of one name only. So this reads just these, in one pass. The tests hold it against
dnspython, answer for answer.

How it fails: `read_reply` is total. The octets are a stranger's: nothing is read beyond their end, a compressed name
leads backward only, and no more than sixteen times, and no more than a thousand records are looked at.
"""

from __future__ import annotations

import ipaddress
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Mx, NoData, NxDomain, RdType, Record
from authmilter.errors import InvalidName

__all__ = [
    "MAX_CNAMES",
    "Alias",
    "Labels",
    "encoded",
    "octets_of",
    "opt_record",
    "question_section",
    "read_reply",
]

#: The labels of a name in lower case, without the root.
Labels = tuple[bytes, ...]

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
#: type, class, TTL, length of the data (RFC 1035 §3.2.1)
_RECORD = struct.Struct("!HHIH")
#: the five numbers at the end of a SOA's data (RFC 1035 §3.3.13)
_SOA_NUMBERS = struct.Struct("!IIIII")
#: How many octets of a question stand behind its name.
_TYPE_AND_CLASS = 4
#: A compressed owner that is the name asked for: it stands right behind the header (RFC 1035 §4.1.4).
_ASKED = b"\xc0\x0c"

_MAX_LABEL = 63
_MAX_NAME = 255
#: How often one name may be continued elsewhere in the message.
_MAX_POINTERS = 16
#: How many CNAMEs are followed, as resolvers do (BIND 9.18.28 and Unbound stop after eleven).
MAX_CNAMES = 11
#: How many records of an answer are read; more is no answer to a question about mail.
_MAX_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Alias:
    """The server gave CNAMEs and stopped: `target` is to be asked next; `hops` of them, kept for `ttl` seconds."""

    target: Labels
    ttl: float
    hops: int


@lru_cache(maxsize=4096)
def encoded(name: str) -> tuple[Labels, bytes]:
    """Return the labels of an absolute name written with dots, and the octets that it is on the wire.

    Remembered for the names that were asked last, which come again where no answer is kept.

    Raises:
        InvalidName: there is no such name (RFC 1035 §2.3.4).
    """
    try:
        labels = tuple(name.encode("ascii").lower().split(b"."))
    except UnicodeError:
        raise InvalidName("DNS name has a character that is not ASCII") from None
    for label in labels:
        if not 0 < len(label) <= _MAX_LABEL:
            raise InvalidName("DNS name has an empty or over-long label")
    # each label has its length before it, and the root one more
    if len(name) + 2 > _MAX_NAME:
        raise InvalidName("DNS name is longer than 255 octets")
    return labels, octets_of(labels)


def octets_of(labels: Labels) -> bytes:
    """Return what a name is on the wire, uncompressed."""
    return b"".join([bytes((len(label),)) + label for label in labels]) + b"\x00"


def question_section(octets: bytes, rdtype: RdType) -> bytes:
    """Return the question for a name (RFC 1035 §4.1.2), class IN."""
    return octets + _ENDS[rdtype]


def opt_record(payload: int) -> bytes:
    """Return the OPT record that offers UDP answers of up to `payload` octets (RFC 6891 §6.1.2), without options."""
    return struct.pack("!BHHIH", 0, _OPT, payload, 0, 0)


def read_reply(wire: bytes, name: Labels, rdtype: RdType) -> Answer | Alias:
    """Read a server's message as the answer to a question.

    Args:
        wire: the whole message, already known to be the reply to this question (`transport.is_reply`).
        name: the labels asked for.
        rdtype: the type asked for.

    Returns:
        The answer, or an `Alias` to be asked next. Total: what cannot be read is `Failed(MALFORMED)`; the
        detail of a failure continues "SERVER ...".
    """
    try:
        return _read(wire, name, rdtype)
    except (ValueError, struct.error):
        return Failed(FailureKind.MALFORMED, "sent an answer that cannot be read")


def _read(wire: bytes, name: Labels, rdtype: RdType) -> Answer | Alias:
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
    at = _HEADER.size + sum(map(len, name)) + len(name) + 5
    if at > len(wire):
        raise ValueError("the question is cut short")
    records, aliases, at = _answer_section(wire, at, answers, name, rdtype)
    last, ttl, hops = name, math.inf, 0
    while last in aliases and last not in records:
        alias_ttl, last = aliases[last]
        ttl = min(ttl, alias_ttl)
        hops += 1
        if hops > MAX_CNAMES:
            return Failed(FailureKind.SERVFAIL, f"sent more than {MAX_CNAMES} CNAMEs that follow each other")
    found = records.get(last)
    if found:
        if rcode == _NXDOMAIN:
            return Failed(FailureKind.MALFORMED, "sent records of a name that does not exist")
        # RFC 2181 §5: a set holds a record once, and its TTL is the smallest.
        return Found(tuple(dict.fromkeys([r for _, r in found])), min([ttl, *[t for t, _ in found]]))
    negative_ttl, referral, at = _authority_section(wire, at, authorities, last)
    extended = _extended_rcode(wire, at, additionals)
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


_Found = dict[Labels, list[tuple[float, Record]]]
_Aliases = dict[Labels, tuple[float, Labels]]


def _answer_section(
    wire: bytes, at: int, count: int, name: Labels, rdtype: RdType
) -> tuple[_Found, _Aliases, int]:
    """Read the records of the asked type, and the CNAMEs, by owner; other types and classes are skipped.

    Like its siblings below it begins at `at`, here right behind the question, and returns where the section ends. Most
    owners are the name asked for, as a pointer or in the same octets.
    """
    wanted = _TYPES[rdtype]
    read = _READERS[rdtype]
    asked = wire[_HEADER.size : at - _TYPE_AND_CLASS]
    records: _Found = {}
    aliases: _Aliases = {}
    for _ in range(count):
        if wire.startswith(_ASKED, at):
            owner, at = name, at + len(_ASKED)
        elif wire.startswith(asked, at):
            owner, at = name, at + len(asked)
        else:
            owner, at = _labels(wire, at, len(wire))
        kind, rdclass, ttl, start, at = _record(wire, at)
        if rdclass != _IN:
            continue
        if kind == wanted:
            records.setdefault(owner, []).append((_seconds(ttl), read(wire, start, at)))
        elif kind == _CNAME:
            # RFC 1034 §3.6.2: a name has one CNAME; the first counts.
            aliases.setdefault(owner, (_seconds(ttl), _whole_name(wire, start, at)))
    return records, aliases, at


def _authority_section(wire: bytes, at: int, count: int, name: Labels) -> tuple[float | None, bool, int]:
    """Return for how long `name` may be taken to be absent (None: no SOA says so), and if NS records are there."""
    negative_ttl: float | None = None
    referral = False
    for _ in range(count):
        owner, at = _labels(wire, at, len(wire))
        kind, rdclass, ttl, start, at = _record(wire, at)
        if rdclass == _IN and kind == _SOA and name[len(name) - len(owner) :] == owner:
            _, start = _labels(wire, start, at)  # MNAME
            _, start = _labels(wire, start, at)  # RNAME
            *_, minimum = _SOA_NUMBERS.unpack(wire[start:at])
            # RFC 2308 §5: the smaller of the SOA's own TTL and its MINIMUM.
            negative_ttl = min(_seconds(ttl), _seconds(minimum))
        else:
            referral = referral or kind == _NS
    return negative_ttl, referral, at


def _extended_rcode(wire: bytes, at: int, count: int) -> int:
    """Return the upper eight bits of the RCODE (RFC 6891 §6.1.3), 0 without an OPT record."""
    for _ in range(count):
        _, at = _labels(wire, at, len(wire))
        kind, _, flags, _, at = _record(wire, at)
        if kind == _OPT:
            return flags >> 24
    return 0


def _record(wire: bytes, at: int) -> tuple[int, int, int, int, int]:
    """Read what comes behind a record's owner: type, class, TTL, and where its data begins and ends."""
    kind, rdclass, ttl, size = _RECORD.unpack_from(wire, at)
    start: int = at + _RECORD.size
    end: int = start + size
    if end > len(wire):
        raise ValueError("a record is cut short")
    return kind, rdclass, ttl, start, end


def _labels(wire: bytes, at: int, end: int) -> tuple[Labels, int]:
    """Read a name that begins at `at` and stays before `end`; return its labels, and where what follows begins."""
    labels: list[bytes] = []
    size = 1
    pointers = 0
    start = at
    follows = -1
    while True:
        if at >= end:
            raise ValueError("a name is cut short")
        length = wire[at]
        at += 1
        if length == 0:
            return tuple(labels), at if follows < 0 else follows
        if length <= _MAX_LABEL:
            size += length + 1
            if at + length > end or size > _MAX_NAME:
                raise ValueError("a name is cut short, or too long")
            # RFC 4343: names are the same in lower case
            labels.append(wire[at : at + length].lower())
            at += length
            continue
        pointers += 1
        if length < 0xC0 or at >= end or pointers > _MAX_POINTERS:
            raise ValueError("a label of another kind, or a name in too many pieces")
        target = (length & 0x3F) << 8 | wire[at]
        if target >= start:
            raise ValueError("a name that is continued further on")
        if follows < 0:
            follows = at + 1
        # What is pointed to ends before that which points to it.
        at, end, start = target, start, target


def _whole_name(wire: bytes, start: int, end: int) -> Labels:
    """Read data that is a name and nothing else."""
    labels, follows = _labels(wire, start, end)
    if follows != end:
        raise ValueError("there is more than a name")
    return labels


def _seconds(ttl: int) -> float:
    # RFC 2181 §8: with its topmost bit set, a TTL is 0.
    return float(ttl) if ttl < 1 << 31 else 0.0


def _text(labels: Labels) -> str:
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


def _read_a(wire: bytes, start: int, end: int) -> Record:
    return ipaddress.IPv4Address(wire[start:end])


def _read_aaaa(wire: bytes, start: int, end: int) -> Record:
    return ipaddress.IPv6Address(wire[start:end])


def _read_mx(wire: bytes, start: int, end: int) -> Record:
    if end - start < 2:
        raise ValueError("no preference")
    # RFC 7505 §3: the exchange "." (no labels) is the null MX, here the empty text.
    return Mx(wire[start] << 8 | wire[start + 1], _text(_whole_name(wire, start + 2, end)))


def _read_ptr(wire: bytes, start: int, end: int) -> Record:
    return _text(_whole_name(wire, start, end))


def _read_txt(wire: bytes, start: int, end: int) -> Record:
    strings = []
    while start < end:
        first = start + 1
        start = first + wire[start]
        if start > end:
            raise ValueError("a string is cut short")
        strings.append(wire[first:start])
    return b"".join(strings)


_READERS: dict[RdType, Callable[[bytes, int, int], Record]] = {
    RdType.A: _read_a,
    RdType.AAAA: _read_aaaa,
    RdType.MX: _read_mx,
    RdType.PTR: _read_ptr,
    RdType.TXT: _read_txt,
}

#: How a question ends: the type, the class.
_ENDS = {rdtype: struct.pack("!HH", number, _IN) for rdtype, number in _TYPES.items()}
