"""SPF: which identity is checked, and its result (RFC 7208 §2.3, §2.4, §4.3).

Pure and restartable. A reverse-path that is not one address never becomes another one: malformed text has no
identity, and only the null reverse-path is checked as postmaster at the HELO domain.

How it fails: never, but for `Missing`, which says that answers are not at hand.
"""

from __future__ import annotations

from ipaddress import IPv6Address

from authmilter.mail import Session
from authmilter.names import Address, Domain, IPAddress, Malformed, NullPath, ReversePath
from authmilter.ports import Lookup
from authmilter.spf import _pyspf
from authmilter.spf.limits import SpfLimits
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from authmilter.text import printable

__all__ = ["SpfLimits", "check_helo", "check_mailfrom"]

#: RFC 7208 §2.4, §4.3: the local part of an identity that has none
_POSTMASTER = "postmaster"


def check_helo(session: Session, lookup: Lookup, limits: SpfLimits, *, receiver: str) -> SpfResult:
    """Check the HELO identity (RFC 7208 §2.3); `none` where HELO is no domain of several labels.

    Args:
        session: the SMTP session; without a client address there is nothing to check (`none`).
        lookup: where answers come from.
        limits: limits of the evaluation.
        receiver: our own host name, for explanations.

    Raises:
        Missing: answers are not at hand.
    """
    return _of_helo(SpfIdentity.HELO, session, lookup, limits, receiver)


def check_mailfrom(
    session: Session, mail_from: ReversePath, lookup: Lookup, limits: SpfLimits, *, receiver: str
) -> SpfResult:
    """Check the MAIL FROM identity (RFC 7208 §2.4); the null reverse-path is postmaster at the HELO domain.

    Args:
        session: the SMTP session; without a client address there is nothing to check (`none`).
        mail_from: the reverse-path; a malformed one is `none` with a problem, never the HELO domain.
        lookup: where answers come from.
        limits: limits of the evaluation.
        receiver: our own host name, for explanations.

    Raises:
        Missing: answers are not at hand.
    """
    identity = SpfIdentity.MAILFROM
    if isinstance(mail_from, NullPath):
        return _of_helo(identity, session, lookup, limits, receiver)
    if isinstance(mail_from, Malformed):
        return _none(identity, SpfProblem.MALFORMED_PATH, printable(mail_from.why, 100))
    if not isinstance(mail_from, Address):
        return _none(identity, SpfProblem.NO_DOMAIN, "the reverse-path has no domain")
    # RFC 7208 §4.3: a sender without a local part has the local part postmaster
    local = mail_from.local or _POSTMASTER
    return _check(identity, local, mail_from.domain, session, lookup=lookup, limits=limits, receiver=receiver)


def _of_helo(
    identity: SpfIdentity, session: Session, lookup: Lookup, limits: SpfLimits, receiver: str
) -> SpfResult:
    if not isinstance(session.helo, Domain):
        return _none(identity, SpfProblem.NO_DOMAIN, "HELO is no domain")
    return _check(
        identity, _POSTMASTER, session.helo, session, lookup=lookup, limits=limits, receiver=receiver
    )


def _check(
    identity: SpfIdentity,
    local: str,
    domain: Domain,
    session: Session,
    *,
    lookup: Lookup,
    limits: SpfLimits,
    receiver: str,
) -> SpfResult:
    if session.client_ip is None:
        return _none(identity, None, "the client's address is not known")
    if "." not in domain.ascii:
        # RFC 7208 §4.3: a single label is not asked
        return _none(identity, SpfProblem.NO_DOMAIN, f"{domain} is a single label")
    return _pyspf.evaluate(
        client_ip=_plain(session.client_ip),
        identity=identity,
        local=local,
        domain=domain,
        helo=str(session.helo or ""),
        receiver=receiver,
        lookup=lookup,
        limits=limits,
    )


def _plain(ip: IPAddress) -> IPAddress:
    """Return an IPv4-mapped address as IPv4 (RFC 7208 §5), and any other without its zone."""
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped or (IPv6Address(int(ip)) if ip.scope_id else ip)
    return ip


def _none(identity: SpfIdentity, problem: SpfProblem | None, detail: str) -> SpfResult:
    return SpfResult(status=SpfStatus.NONE, identity=identity, problem=problem, detail=detail)
