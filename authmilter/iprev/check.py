"""iprev: does a name of the client's address lead back to the address? (RFC 8601 §2.7.3)

Pure and restartable: one question for the names, then one round for all their addresses. The names come from
whoever runs the reverse zone: their number is capped, and only host names are asked for.

How it fails: never, but for `Missing`, which says that answers are not at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address

from authmilter.dns.answer import Failed, FailureKind, Found, NxDomain, Question, RdType
from authmilter.iprev.result import IprevProblem, IprevResult, IprevStatus
from authmilter.names import Domain, IPAddress
from authmilter.ports import Lookup

__all__ = ["IprevLimits", "check", "reverse_question"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IprevLimits:
    """`names`: how many names of the address are looked at (1 or more); the rest is ignored."""

    names: int = 10


def reverse_question(ip: IPAddress) -> Question:
    """Return the question for the names of `ip`, below in-addr.arpa or ip6.arpa (RFC 1035 §3.5, RFC 3596 §2.5)."""
    return Question(ip.reverse_pointer, RdType.PTR)


def check(client_ip: IPAddress, lookup: Lookup, limits: IprevLimits) -> IprevResult:
    """Check the reverse name of the client (RFC 8601 §2.7.3, §3).

    Args:
        client_ip: the client's address; an IPv4-mapped one is taken as IPv4.
        lookup: where answers come from.
        limits: limits of the check.

    Raises:
        Missing: answers are not at hand.
    """
    ip = _plain(client_ip)
    answer = lookup.ask(reverse_question(ip))
    if isinstance(answer, Failed):
        return _trouble(ip, answer, f"{ip} PTR: {answer.kind}")
    if not isinstance(answer, Found):
        # RFC 8601 §2.7.3: no name is permerror, a later attempt would not find one either
        what = "the reverse name does not exist" if isinstance(answer, NxDomain) else "no PTR record"
        return IprevResult(status=IprevStatus.PERMERROR, ip=ip, problem=IprevProblem.NO_NAME, detail=what)
    names = answer.names()
    return _forward(ip, names[: limits.names], len(names), lookup)


def _forward(ip: IPAddress, names: tuple[str, ...], published: int, lookup: Lookup) -> IprevResult:
    hosts = [d.ascii for d in dict.fromkeys(Domain.maybe(name) for name in names) if d is not None]
    rdtype = RdType.A if ip.version == 4 else RdType.AAAA
    failed: Failed | None = None
    for host, answer in zip(hosts, lookup.ask_all([Question(host, rdtype) for host in hosts]), strict=True):
        if isinstance(answer, Found) and ip in answer.addresses():
            return IprevResult(status=IprevStatus.PASS, ip=ip, name=host)
        # a failure of DNS says more than one of our own budget
        if isinstance(answer, Failed) and (failed is None or failed.kind is FailureKind.LIMIT):
            failed = answer
    if failed is not None:
        return _trouble(ip, failed, f"no match, and not every name could be asked: {failed.kind}")
    detail = f"none of {published} names leads back" if published > 1 else "the name does not lead back"
    if published > len(names):
        detail = f"none of the first {len(names)} of {published} names leads back"
    return IprevResult(status=IprevStatus.FAIL, ip=ip, problem=IprevProblem.NO_MATCH, detail=detail)


def _trouble(ip: IPAddress, failed: Failed, detail: str) -> IprevResult:
    limited = failed.kind is FailureKind.LIMIT
    problem = IprevProblem.LIMIT if limited else IprevProblem.DNS
    return IprevResult(status=IprevStatus.TEMPERROR, ip=ip, problem=problem, detail=detail)


def _plain(ip: IPAddress) -> IPAddress:
    """Return an IPv4-mapped address as IPv4, and any other without its zone."""
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped or (IPv6Address(int(ip)) if ip.scope_id else ip)
    return ip
