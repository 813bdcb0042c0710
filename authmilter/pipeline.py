"""METHODS: the ordered table of checks, when each can start, and its share of questions.

A method is a pure function of an `Inquiry` (what is known so far) and a `Lookup`. It may be run again, from
the start, whenever answers it missed have come; the same functions serve every door.

Shares are each method's own (ARCHITECTURE.md, Budgets): no method can spend DMARC's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum

from authmilter.dkim import check as dkim_check
from authmilter.dkim.canonical import BodyDigests
from authmilter.dkim.check import HeaderOutcome
from authmilter.dkim.result import DkimResult
from authmilter.dkim.signature import DkimLimits, Signature
from authmilter.dmarc import check as dmarc_check
from authmilter.dmarc.result import DmarcProblem, DmarcResult, DmarcStatus
from authmilter.dmarc.settings import DmarcSettings
from authmilter.iprev import check as iprev_check
from authmilter.iprev.check import IprevLimits
from authmilter.iprev.result import IprevProblem, IprevResult, IprevStatus
from authmilter.mail import Session
from authmilter.message import Message
from authmilter.names import Address, Domain, NullPath, ReversePath
from authmilter.ports import Lookup
from authmilter.spf import check as spf_check
from authmilter.spf.check import SpfLimits
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus

__all__ = ["METHODS", "CheckSettings", "Inquiry", "Method", "Stage"]


class Stage(IntEnum):
    """When a method's input is there."""

    MAIL = 1
    HEADERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """The limits and choices of every check; `receiver` is our own host name (SPF macro `r`)."""

    spf: SpfLimits = field(default_factory=SpfLimits)
    dkim: DkimLimits = field(default_factory=DkimLimits)
    dmarc: DmarcSettings = field(default_factory=DmarcSettings)
    iprev: IprevLimits = field(default_factory=IprevLimits)
    receiver: str = "unknown"


@dataclass(slots=True)
class Inquiry:
    """What is known of one message so far. The engine fills it in; methods only read it."""

    settings: CheckSettings
    session: Session
    received_at: datetime
    mail_from: ReversePath = field(default_factory=NullPath)
    message: Message = field(default_factory=Message)
    signatures: tuple[Signature, ...] = ()
    spf: SpfResult | None = None
    dkim: tuple[DkimResult, ...] = ()
    spf_candidate: Domain | None = None


def _no_key(inquiry: Inquiry) -> Hashable | None:  # noqa: ARG001 - the row's shape
    return None


def _as_kept(inquiry: Inquiry, kept: object) -> object:  # noqa: ARG001 - the row's shape
    return kept


@dataclass(frozen=True, slots=True)
class Method:
    """One row. `questions` and `hints` bound its DNS, `early` runs when the stage is reached, `broken` is the
    result it has when it fails in a way nobody foresaw. `key` names all that its result follows from besides DNS
    (None: it is not kept), `recall` makes this message's result of a kept one.
    """

    name: str
    stage: Stage
    questions: int
    hints: int
    early: Callable[[Inquiry, Lookup], object]
    broken: Callable[[Inquiry], object]
    key: Callable[[Inquiry], Hashable | None] = _no_key
    recall: Callable[[Inquiry, object], object] = _as_kept


def _iprev(inquiry: Inquiry, lookup: Lookup) -> IprevResult:
    ip = inquiry.session.client_ip
    assert ip is not None  # the engine asks iprev only where the client is known
    return iprev_check.check(ip, lookup, inquiry.settings.iprev)


def _iprev_broken(inquiry: Inquiry) -> IprevResult:
    ip = inquiry.session.client_ip
    assert ip is not None  # as above
    return IprevResult(status=IprevStatus.INTERNAL_ERROR, ip=ip, problem=IprevProblem.INTERNAL)


def _spf_helo(inquiry: Inquiry, lookup: Lookup) -> SpfResult:
    settings = inquiry.settings
    return spf_check.check_helo(inquiry.session, lookup, settings.spf, receiver=settings.receiver)


def _spf(inquiry: Inquiry, lookup: Lookup) -> SpfResult:
    settings = inquiry.settings
    return spf_check.check_mailfrom(
        inquiry.session, inquiry.mail_from, lookup, settings.spf, receiver=settings.receiver
    )


def _iprev_key(inquiry: Inquiry) -> Hashable | None:
    return "iprev", inquiry.session.client_ip


def _spf_helo_key(inquiry: Inquiry) -> Hashable | None:
    helo = inquiry.session.helo
    return ("spf_helo", inquiry.session.client_ip, helo) if isinstance(helo, Domain) else None


def _spf_key(inquiry: Inquiry) -> Hashable | None:
    path = inquiry.mail_from
    return ("spf", inquiry.session.client_ip, path.domain) if isinstance(path, Address) else None


def _spf_recall(inquiry: Inquiry, kept: object) -> object:
    """The record names no macro, so the local part is only told, and is this message's."""
    assert isinstance(kept, SpfResult)  # what _spf returned
    path = inquiry.mail_from
    if isinstance(path, Address) and path.local and path.local != kept.local:
        return replace(kept, local=path.local)
    return kept


def _spf_broken(identity: SpfIdentity) -> Callable[[Inquiry], SpfResult]:
    def broken(inquiry: Inquiry) -> SpfResult:  # noqa: ARG001 - the row's shape
        return SpfResult(status=SpfStatus.INTERNAL_ERROR, identity=identity, problem=SpfProblem.INTERNAL)

    return broken


def _dkim(inquiry: Inquiry, lookup: Lookup) -> tuple[HeaderOutcome, ...]:
    return dkim_check.verify_headers(
        inquiry.message, inquiry.signatures, lookup, inquiry.settings.dkim, now=inquiry.received_at
    )


def _dkim_broken(inquiry: Inquiry) -> tuple[DkimResult, ...]:
    return dkim_check.broken(inquiry.signatures)


def dkim_results(
    outcomes: tuple[HeaderOutcome, ...], digests: BodyDigests | None, limits: DkimLimits
) -> tuple[DkimResult, ...]:
    """Join what the headers gave with the body's hashes."""
    return dkim_check.conclude(outcomes, digests, limits)


def _dmarc_early(inquiry: Inquiry, lookup: Lookup) -> None:
    domains = [s.domain for s in inquiry.signatures if s.domain is not None]
    dmarc_check.prefetch(
        inquiry.message.authors, domains, inquiry.spf_candidate, lookup, inquiry.settings.dmarc
    )


def dmarc(inquiry: Inquiry, lookup: Lookup) -> DmarcResult:
    """Judge by DMARC, once SPF and DKIM are known."""
    return dmarc_check.check(
        inquiry.message.authors, inquiry.spf, inquiry.dkim, lookup, inquiry.settings.dmarc
    )


def _dmarc_broken(inquiry: Inquiry) -> DmarcResult:
    return DmarcResult(
        status=DmarcStatus.INTERNAL_ERROR,
        author=inquiry.message.authors.domain,
        problem=DmarcProblem.INTERNAL,
    )


# The order is the order of asking: DMARC's discovery goes out before any key is asked for.
METHODS: tuple[Method, ...] = (
    Method("iprev", Stage.MAIL, 21, 0, _iprev, _iprev_broken, _iprev_key),
    Method("spf_helo", Stage.MAIL, 150, 60, _spf_helo, _spf_broken(SpfIdentity.HELO), _spf_helo_key),
    Method("spf", Stage.MAIL, 150, 60, _spf, _spf_broken(SpfIdentity.MAILFROM), _spf_key, _spf_recall),
    Method("dmarc", Stage.HEADERS, 60, 30, _dmarc_early, _dmarc_broken),
    Method("dkim", Stage.HEADERS, 100, 0, _dkim, _dkim_broken),
)
