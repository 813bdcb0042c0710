"""A zone as data: answers instead of the network, for tests, `--zone` and the documentation.

    example.com: {TXT: ["v=spf1 -all"], A: [192.0.2.1], MX: ["10 mx.example.com"]}
    long.example: {TXT: [["one record ", "of two strings"]]}
    www.example.com: {CNAME: example.com}
    1.2.0.192.in-addr.arpa: {PTR: [mx.example.com]}
    broken.example: TIMEOUT
    half.example: {TXT: SERVFAIL}

A type has a list of records, one record, or a word (TIMEOUT, SERVFAIL, REFUSED); so has a whole name. A name
that is not listed and has nothing below it is NXDOMAIN; one that is listed, or has something below it, exists
(RFC 8020). Types beside a CNAME are answered before it is followed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from authmilter.deadline import Deadline
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
from authmilter.errors import DecodeError, InvalidName

__all__ = ["ZoneResolver"]

_FAILURES = {
    "TIMEOUT": Failed(FailureKind.TIMEOUT, "the zone file says TIMEOUT"),
    "SERVFAIL": Failed(FailureKind.SERVFAIL, "the zone file says SERVFAIL"),
    "REFUSED": Failed(FailureKind.REFUSED, "the zone file says REFUSED"),
}
_TYPES = frozenset({*RdType, "CNAME"})
#: How many CNAMEs are followed, as resolvers do.
_MAX_CNAMES = 11
_TOO_LONG = Failed(FailureKind.SERVFAIL, f"more than {_MAX_CNAMES} CNAMEs follow each other")
_TTL = 300.0

_Node = dict[str, tuple[Record, ...] | Failed]


class ZoneResolver:
    """Implements `ports.Resolver` over a mapping; nothing is ever missing.

    Args:
        zone: name -> `{TYPE: records | word}` or a word, see the module's text. A TXT record is text (sent as
            UTF-8; surrogates stand for the octets they escape), octets, or a list of these: its strings.

    Raises:
        DecodeError: the mapping is not a zone; the message lists every wrong entry, a line each.
    """

    __slots__ = ("_exists", "_nodes")

    def __init__(self, zone: Mapping[str, object]) -> None:
        self._nodes: dict[str, _Node | Failed] = {}
        wrong: list[str] = []
        for name, content in zone.items():
            self._add(name, content, wrong)
        if wrong:
            raise DecodeError("this is not a zone:\n" + "\n".join(wrong))
        self._exists: set[str] = set()
        for name in self._nodes:
            labels = name.split(".")
            self._exists.update(".".join(labels[i:]) for i in range(len(labels)))

    def known(self, question: Question) -> Answer:
        """Return the answer; never None."""
        name = question.name
        for _ in range(_MAX_CNAMES + 1):
            node = self._nodes.get(name)
            if node is None:
                return NoData(_TTL) if name in self._exists else NxDomain(_TTL)
            if isinstance(node, Failed):
                return node
            records = node.get(question.rdtype)
            if isinstance(records, Failed):
                return records
            if records:
                return Found(records, _TTL)
            alias = node.get("CNAME")
            if isinstance(alias, Failed):
                return alias
            if not alias:
                return NoData(_TTL)
            name = str(alias[0])
        return _TOO_LONG

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:  # noqa: ARG002 - the port's shape
        """Return what `known` returns."""
        return self.known(question)

    def _add(self, name: object, content: object, wrong: list[str]) -> None:
        try:
            key = _name(name)
        except ValueError as e:
            wrong.append(str(e))
            return
        if key in self._nodes:
            wrong.append(f"`{name}`: the name is given twice")
            return
        if isinstance(content, str) and content in _FAILURES:
            self._nodes[key] = _FAILURES[content]
            return
        node = self._nodes[key] = _Node()
        if not isinstance(content, Mapping):
            wrong.append(f"`{name}`: expected a mapping of record types, or one of {', '.join(_FAILURES)}")
            return
        for word, records in content.items():
            rdtype = str(word).upper()
            if rdtype not in _TYPES:
                wrong.append(f"`{name}` {word}: the record type is none of {', '.join(sorted(_TYPES))}")
            elif rdtype in node:
                wrong.append(f"`{name}` {word}: the type is given twice")
            else:
                try:
                    node[rdtype] = _records(rdtype, records)
                except ValueError as e:
                    wrong.append(f"`{name}` {word}: {e}")


def _records(rdtype: str, records: object) -> tuple[Record, ...] | Failed:
    """Read the records of one type; ValueError where they are none."""
    if isinstance(records, str) and records in _FAILURES:
        return _FAILURES[records]
    items = records if isinstance(records, list | tuple) else [records]
    if rdtype == "CNAME" and len(items) > 1:
        raise ValueError("a name has one CNAME")
    # RFC 2181 §5: a set holds a record once.
    return tuple(dict.fromkeys(_record(rdtype, item) for item in items))


def _record(rdtype: str, item: object) -> Record:
    if rdtype == "TXT":
        strings = item if isinstance(item, list | tuple) else [item]
        return b"".join(map(_octets, strings))
    if not isinstance(item, str):
        raise ValueError(f"`{item}` is not a text")  # noqa: TRY004 - one kind of error for every mistake in a zone
    if rdtype == "A":
        return ipaddress.IPv4Address(item)
    if rdtype == "AAAA":
        return ipaddress.IPv6Address(item)
    if rdtype == "MX":
        return _mx(item)
    return _name(item)


def _octets(string: object) -> bytes:
    if isinstance(string, bytes):
        return string
    if isinstance(string, str):
        return string.encode("utf-8", "surrogateescape")
    raise ValueError(f"`{string}` is not a text")


def _mx(text: str) -> Mx:
    preference, _, exchange = text.strip().partition(" ")
    if not (preference.isascii() and preference.isdigit() and int(preference) < 65536 and exchange.strip()):
        raise ValueError(f"`{text}` is not an MX record: expected `10 mx.example.com`")
    host = exchange.strip()
    # RFC 7505 §3: an MX of "." is the null MX: no exchange at all.
    return Mx(int(preference), "" if host == "." else _name(host))


def _name(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"`{text}` is not a name")  # noqa: TRY004 - one kind of error for every mistake in a zone
    try:
        return Question.of(text, RdType.A).name
    except InvalidName as e:
        raise ValueError(f"`{text}` is not a name: {e}") from None
