"""Reading ahead: which questions an SPF evaluation will probably ask next.

pyspf walks a record one question at a time; a cold record of three includes would take as many rounds as it has
names. When an answer is missing, this names what the records already at hand will lead to, so that it is
fetched together. These are hints: they count neither as terms nor as void lookups (only the walk itself does),
and a share of their own bounds them.
"""

from __future__ import annotations

from collections.abc import Iterable

from authmilter.dns.answer import Found, Question, RdType
from authmilter.errors import InvalidName
from authmilter.names import IPAddress
from authmilter.ports import Lookup
from authmilter.spf.limits import SpfLimits
from authmilter.spf.record import Record, TargetKind, read_record, spf_records

__all__ = ["address_type", "question", "read_ahead"]


def address_type(ip: IPAddress) -> RdType:
    """Return the type of address record that can match `ip` (RFC 7208 §5)."""
    return RdType.A if ip.version == 4 else RdType.AAAA


def question(name: str, rdtype: RdType) -> Question | None:
    """Return the question, or None where no such name can be asked (RFC 7208 §4.8 leaves that open: no match)."""
    try:
        return Question.of(name, rdtype)
    except InvalidName:
        return None


def read_ahead(record: Record, domain: str, ip: IPAddress, lookup: Lookup, limits: SpfLimits) -> None:
    """Tell `lookup` which questions `record`, the SPF record of `domain`, will lead to for the client `ip`.

    Follows records and exchanges that are at hand, within `limits.terms` terms in all. Never raises.
    """
    _follow(record, domain, limits.terms, ip=ip, lookup=lookup, limits=limits)


def _follow(
    record: Record, domain: str, terms: int, *, ip: IPAddress, lookup: Lookup, limits: SpfLimits
) -> int:
    """Do the work for one record, and return how many of `terms` are left; each level takes at least one."""
    wanted: list[tuple[TargetKind, Question]] = []
    for target in record.targets[:terms]:
        terms -= 1
        if target.kind is TargetKind.PTR:
            ask = question(ip.reverse_pointer, RdType.PTR)
        elif target.name is None:
            continue
        else:
            ask = question(target.name or domain, _type(target.kind, ip))
        if ask is not None:
            wanted.append((target.kind, ask))
    lookup.want(ask for _, ask in wanted)
    for kind, ask in wanted:
        answer = lookup.peek(ask)
        if not isinstance(answer, Found):
            continue
        if kind is TargetKind.MX:
            _want_addresses((m.exchange for m in answer.exchanges()[: limits.mx]), ip, lookup)
        elif kind is TargetKind.PTR:
            _want_addresses(answer.names()[: limits.ptr], ip, lookup)
        elif kind in {TargetKind.INCLUDE, TargetKind.REDIRECT}:
            records = spf_records(answer.texts())
            if len(records) == 1:
                found = read_record(records[0])
                terms = _follow(found, ask.name, terms, ip=ip, lookup=lookup, limits=limits)
    return terms


def _type(kind: TargetKind, ip: IPAddress) -> RdType:
    if kind in {TargetKind.INCLUDE, TargetKind.REDIRECT}:
        return RdType.TXT
    if kind is TargetKind.MX:
        return RdType.MX
    # RFC 7208 §5.7: exists asks for A records, whatever the client's address
    return RdType.A if kind is TargetKind.EXISTS else address_type(ip)


def _want_addresses(names: Iterable[str], ip: IPAddress, lookup: Lookup) -> None:
    rdtype = address_type(ip)
    asks = (question(name, rdtype) for name in names)
    lookup.want(ask for ask in asks if ask is not None)
