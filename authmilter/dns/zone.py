"""A zone as data: answers instead of the network, for tests, `--zone` and the documentation.

    example.com: {TXT: ["v=spf1 -all"], A: [192.0.2.1], MX: ["10 mx.example.com"]}
    long.example: {TXT: [["one record ", "of two strings"]]}
    www.example.com: {CNAME: example.com}
    broken.example: TIMEOUT
    half.example: {TXT: SERVFAIL}

A name that is not listed and has nothing below it is NXDOMAIN; one that is listed, or has something below
it, exists (RFC 8020).
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

_FAILURES = {"TIMEOUT": FailureKind.TIMEOUT, "SERVFAIL": FailureKind.SERVFAIL, "REFUSED": FailureKind.REFUSED}
#: How many CNAMEs are followed, as resolvers do.
_MAX_CNAMES = 8
_TTL = 300.0

_Node = dict[str, tuple[Record, ...] | Failed]


class ZoneResolver:
    """Implements `ports.Resolver` over a mapping; nothing is ever missing.

    Args:
        zone: name -> `{TYPE: [records] | word}` or a word (TIMEOUT, SERVFAIL, REFUSED), see the module's text.

    Raises:
        DecodeError: the mapping is not a zone; the message lists every wrong entry.
    """

    __slots__ = ("_exists", "_nodes")

    def __init__(self, zone: Mapping[str, object]) -> None:
        self._nodes: dict[str, _Node | Failed] = {}
        wrong: list[str] = []
        for name, content in zone.items():
            self._add(str(name), content, wrong)
        if wrong:
            raise DecodeError("this is not a zone:\n" + "\n".join(wrong))
        self._exists: set[str] = set()
        for name in self._nodes:
            labels = name.split(".")
            self._exists.update(".".join(labels[i:]) for i in range(len(labels)))

    def _add(self, name: str, content: object, wrong: list[str]) -> None:
        try:
            key = Question.of(name, RdType.TXT).name
        except InvalidName as e:
            wrong.append(f"`{name}`: {e}")
            return
        if isinstance(content, str):
            if content.upper() not in _FAILURES:
                wrong.append(f"`{name}`: `{content}` is none of {', '.join(_FAILURES)}")
                return
            self._nodes[key] = Failed(_FAILURES[content.upper()])
            return
        if not isinstance(content, Mapping):
            wrong.append(f"`{name}`: expected a mapping of record types or a word")
            return
        node: _Node = {}
        for rdtype, records in content.items():
            try:
                node[str(rdtype).upper()] = _records(str(rdtype).upper(), records)
            except (ValueError, InvalidName) as e:
                wrong.append(f"`{name}` {rdtype}: {e}")
        self._nodes[key] = node

    def known(self, question: Question) -> Answer:
        """Return the answer; never None."""
        name = question.name
        for _ in range(_MAX_CNAMES):
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
            if alias is None or isinstance(alias, Failed):
                return alias or NoData(_TTL)
            name = str(alias[0])
        return Failed(FailureKind.SERVFAIL, "CNAME chain is too long")

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:  # noqa: ARG002 - the port's shape
        """Return what `known` returns."""
        return self.known(question)


def _records(rdtype: str, records: object) -> tuple[Record, ...] | Failed:
    """Read the records of one type; ValueError where they are none."""
    if isinstance(records, str) and records.upper() in _FAILURES:
        return Failed(_FAILURES[records.upper()])
    items = records if isinstance(records, list | tuple) else [records]
    return tuple(_record(rdtype, item) for item in items)


def _record(rdtype: str, item: object) -> Record:
    if rdtype == "TXT":
        strings = item if isinstance(item, list | tuple) else [item]
        return b"".join(
            s if isinstance(s, bytes) else str(s).encode("utf-8", "surrogateescape") for s in strings
        )
    text = str(item)
    if rdtype == "A":
        return ipaddress.IPv4Address(text)
    if rdtype == "AAAA":
        return ipaddress.IPv6Address(text)
    if rdtype == "MX":
        preference, _, exchange = text.strip().partition(" ")
        # An MX of "." is the null MX (RFC 7505): no exchange at all.
        host = exchange.strip()
        return Mx(int(preference), "" if host == "." else host.removesuffix(".").lower())
    if rdtype in {"PTR", "CNAME"}:
        return text.removesuffix(".").lower()
    raise ValueError(f"record type `{rdtype}` is none of A, AAAA, CNAME, MX, PTR, TXT")
