"""METHODS: the ordered table of checks, when each can start, and its share of questions.

A method is a row of functions of an `Inquiry` (what is known so far) and a `Lookup`: `prepare` reads the header
block, `early` runs as soon as its input is there, `conclude` makes the result at the end of the message, when the
body's digests and the results of the methods before it in `CONCLUDING` are known. Each may be run again, from the
start, whenever answers it missed have come; the same functions serve every door.

Shares are each method's own (ARCHITECTURE.md, Budgets): no method can spend DMARC's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any

from authmilter.arc import chain as arc_chain
from authmilter.arc import check as arc_check
from authmilter.arc.chain import Chain
from authmilter.arc.check import ArcOutcome
from authmilter.arc.result import ArcResult, ArcStatus
from authmilter.arc.settings import ArcSettings
from authmilter.bimi import check as bimi_check
from authmilter.bimi.evidence import EvidenceSource
from authmilter.bimi.result import BimiProblem, BimiResult, BimiStatus
from authmilter.bimi.settings import BimiSettings
from authmilter.dkim import check as dkim_check
from authmilter.dkim.canonical import BodyDigests, BodyNeed
from authmilter.dkim.check import HeaderOutcome
from authmilter.dkim.result import DkimResult
from authmilter.dkim.signature import DkimLimits, Signature
from authmilter.dkim.signature import read as read_signatures
from authmilter.dmarc import check as dmarc_check
from authmilter.dmarc.result import DmarcProblem, DmarcResult, DmarcStatus
from authmilter.dmarc.settings import DmarcSettings
from authmilter.dmarc.survey import survey
from authmilter.iprev import check as iprev_check
from authmilter.iprev.check import IprevLimits
from authmilter.iprev.result import IprevProblem, IprevResult, IprevStatus
from authmilter.mail import Session
from authmilter.makers import maker
from authmilter.message import Message
from authmilter.names import Address, Domain, NullPath, ReversePath
from authmilter.ports import Lookup
from authmilter.spf import check as spf_check
from authmilter.spf.check import SpfLimits
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus

__all__ = ["CONCLUDING", "METHODS", "CheckSettings", "Inquiry", "Method", "Schedule", "Stage"]


class Stage(IntEnum):
    """When a method's input is there."""

    MAIL = 1
    HEADERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """The limits and choices of every check; `receiver` is our own host name (SPF macro `r`).

    `bimi` is None where no logos are looked for, `marks` where the documents of BIMI come from.
    """

    spf: SpfLimits = field(default_factory=SpfLimits)
    dkim: DkimLimits = field(default_factory=DkimLimits)
    dmarc: DmarcSettings = field(default_factory=DmarcSettings)
    iprev: IprevLimits = field(default_factory=IprevLimits)
    arc: ArcSettings = field(default_factory=ArcSettings)
    bimi: BimiSettings | None = None
    marks: EvidenceSource | None = field(default=None, compare=False, repr=False)
    receiver: str = "unknown"


#: What every inquiry begins with: values, which all may share.
_NO_PATH = NullPath()
_NO_MESSAGE = Message()
_NO_CHAIN = Chain()
_NO_NEEDS: frozenset[BodyNeed] = frozenset()


@dataclass(slots=True)
class Inquiry:
    """What is known of one message so far. The engine fills it in; methods only read it, but for `prepare`.

    Made by `of`. `client` is the address of the session's client in octets, as it stands in keys, or None.
    `signatures`, `chain` and `spf_candidate` come from `prepare`; `digests` is None until the end of the message, and then if
    the body was not read whole. The fields with a method's name hold its result once it has concluded.
    """

    settings: CheckSettings
    session: Session
    received_at: datetime
    client: bytes | None
    mail_from: ReversePath = _NO_PATH
    message: Message = _NO_MESSAGE
    signatures: tuple[Signature, ...] = ()
    chain: Chain = _NO_CHAIN
    spf_candidate: Domain | None = None
    digests: BodyDigests | None = None
    iprev: IprevResult | None = None
    spf_helo: SpfResult | None = None
    spf: SpfResult | None = None
    dkim: tuple[DkimResult, ...] | None = None
    arc: ArcResult | None = None
    dmarc: DmarcResult | None = None
    bimi: BimiResult | None = None

    @staticmethod
    def of(settings: CheckSettings, session: Session, received_at: datetime) -> Inquiry:
        """Return what is known when a message begins."""
        ip = session.client_ip
        return _make_inquiry(settings, session, received_at, ip.packed if ip is not None else None)

    def ask_about(self, session: Session) -> None:
        """Take another session for the one that is asked about: behind a relay, its client's."""
        ip = session.client_ip
        self.session = session
        self.client = ip.packed if ip is not None else None


_make_inquiry = maker(Inquiry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row.

    Args:
        name: the method, and the field of `Inquiry` and `Evidence` its result goes to.
        stage: when `early` can run.
        questions: how many DNS questions it may ask.
        hints: how many more it may name ahead.
        broken: the result it has when it fails in a way nobody foresaw.
        wanted: False where the settings leave the method out altogether. None: they never do.
        applies: False where the method is not asked at all; looked at when the stage is reached. None: it always is.
        prepare: reads the header block, notes what it found in the inquiry, and returns the body hashes it needs; None:
            there is nothing to read.
        early: asks, and works out what it can.
        conclude: makes the result from what `early` returned; None: that is the result.
        key: names all that the result of `early` follows from besides DNS; None, or where it returns None: it is not kept.
            Where there is a key the method applies.
            Made of texts and octets: keys are hashed for every message, and theirs is cheap and nobody else can tell it.
        recall: makes this message's result of a kept one; None: they are the same.
        final_key: the same as `key`, for `conclude`.
        whole_budget: True if it may use all of the message's time, not only the checks' share.
    """

    name: str
    stage: Stage
    questions: int
    hints: int = 0
    broken: Callable[[Inquiry], object]
    wanted: Callable[[CheckSettings], bool] | None = None
    applies: Callable[[Inquiry], bool] | None = None
    prepare: Callable[[Inquiry], frozenset[BodyNeed]] | None = None
    early: Callable[[Inquiry, Lookup], object]
    conclude: Callable[[Inquiry, object, Lookup], object] | None = None
    key: Callable[[Inquiry], Hashable | None] | None = None
    recall: Callable[[Inquiry, object], object] | None = None
    final_key: Callable[[Inquiry], Hashable | None] | None = None
    whole_budget: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """A table of methods, sorted once: which start `at_mail` and `at_headers`, and what is `preparing` for which."""

    at_mail: tuple[Method, ...]
    at_headers: tuple[Method, ...]
    preparing: tuple[tuple[Method, Callable[[Inquiry], frozenset[BodyNeed]]], ...]

    @classmethod
    def of(cls, methods: tuple[Method, ...], settings: CheckSettings) -> Schedule:
        """Return the schedule of those methods of a table that the settings want; each part has the table's order.

        Raises:
            ValueError: a method that `CONCLUDING` does not name.
        """
        strange = {m.name for m in methods}.difference(CONCLUDING)
        if strange:
            raise ValueError(f"not among the methods that are concluded: {', '.join(sorted(strange))}")
        wanted = [m for m in methods if m.wanted is None or m.wanted(settings)]
        return cls(
            tuple(m for m in wanted if m.stage is Stage.MAIL),
            tuple(m for m in wanted if m.stage is Stage.HEADERS),
            tuple((m, m.prepare) for m in wanted if m.prepare is not None),
        )


def _client_known(inquiry: Inquiry) -> bool:
    """A client that is not known was not asked about, which is not a failure (RFC 7208 §2.5)."""
    return inquiry.client is not None


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
    client = inquiry.client
    return ("iprev", client) if client is not None else None


def _spf_helo_key(inquiry: Inquiry) -> Hashable | None:
    client, helo = inquiry.client, inquiry.session.helo
    return ("spf_helo", client, helo.ascii) if client is not None and isinstance(helo, Domain) else None


def _spf_key(inquiry: Inquiry) -> Hashable | None:
    client, path = inquiry.client, inquiry.mail_from
    if client is None:
        return None
    if isinstance(path, Address):
        return "spf", client, path.domain.ascii
    helo = inquiry.session.helo
    if isinstance(path, NullPath) and isinstance(helo, Domain):
        return "spf_null", client, helo.ascii  # RFC 7208 §2.4: postmaster@HELO
    return None


def _spf_recall(inquiry: Inquiry, kept: Any) -> SpfResult:
    """The record names no macro, so the local part is only told, and is this message's."""
    result: SpfResult = kept  # what _spf returned
    path = inquiry.mail_from
    if isinstance(path, Address) and path.local and path.local != result.local:
        return result.told_of(path.local)
    return result


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


def _dkim_prepare(inquiry: Inquiry) -> frozenset[BodyNeed]:
    inquiry.signatures = read_signatures(inquiry.message, inquiry.settings.dkim)
    return dkim_check.body_needs(inquiry.signatures)


def _dkim_conclude(inquiry: Inquiry, early: Any, lookup: Lookup) -> tuple[DkimResult, ...]:  # noqa: ARG001 - the row's shape
    outcomes: tuple[HeaderOutcome, ...] = early
    return dkim_check.conclude(outcomes, inquiry.digests, inquiry.settings.dkim)


_NO_ARC = ArcResult(status=ArcStatus.NONE)


def _arc_present(inquiry: Inquiry) -> bool:
    return inquiry.chain.present


def _arc_prepare(inquiry: Inquiry) -> frozenset[BodyNeed]:
    inquiry.chain = arc_chain.read(inquiry.message, inquiry.settings.arc)
    if not inquiry.chain.present:
        # Most mail: the result is there, and the method need not run.
        inquiry.arc = _NO_ARC
        return _NO_NEEDS
    return arc_check.body_needs(inquiry.chain, inquiry.settings.arc)


def _arc(inquiry: Inquiry, lookup: Lookup) -> ArcOutcome:
    return arc_check.verify_headers(
        inquiry.message, inquiry.chain, lookup, inquiry.settings.arc, now=inquiry.received_at
    )


def _arc_conclude(inquiry: Inquiry, early: Any, lookup: Lookup) -> ArcResult:  # noqa: ARG001 - the row's shape
    outcome: ArcOutcome = early
    return arc_check.conclude(outcome, inquiry.digests, inquiry.message, inquiry.settings.arc)


def _arc_broken(inquiry: Inquiry) -> ArcResult:  # noqa: ARG001 - the row's shape
    return arc_check.broken()


def _dmarc_prepare(inquiry: Inquiry) -> frozenset[BodyNeed]:
    path = inquiry.mail_from
    if isinstance(path, Address):
        inquiry.spf_candidate = path.domain
    elif isinstance(path, NullPath) and isinstance(inquiry.session.helo, Domain):
        inquiry.spf_candidate = inquiry.session.helo  # RFC 7208 §2.4: postmaster@HELO
    return _NO_NEEDS


def _dmarc_early(inquiry: Inquiry, lookup: Lookup) -> bool:
    domains = [s.domain for s in inquiry.signatures if s.domain is not None]
    dmarc_check.prefetch(
        inquiry.message.authors, domains, inquiry.spf_candidate, lookup, inquiry.settings.dmarc
    )
    return True


def _dmarc_key(inquiry: Inquiry) -> Hashable | None:
    """Where all that may be asked was asked before and lives, nothing has to be asked ahead."""
    author = inquiry.message.authors.domain
    if author is None:
        return None
    candidate = inquiry.spf_candidate
    return (
        "dmarc_early",
        author.ascii,
        candidate.ascii if candidate is not None else None,
        *[s.domain.ascii for s in inquiry.signatures if s.domain is not None],
    )


def _dmarc(inquiry: Inquiry, early: object, lookup: Lookup) -> DmarcResult:  # noqa: ARG001 - the row's shape
    return dmarc_check.check(
        inquiry.message.authors, inquiry.spf, inquiry.dkim or (), lookup, inquiry.settings.dmarc
    )


def _dmarc_final_key(inquiry: Inquiry) -> Hashable | None:
    return dmarc_check.key(inquiry.message.authors, inquiry.spf, inquiry.dkim or ())


def _dmarc_broken(inquiry: Inquiry) -> DmarcResult:
    return DmarcResult(
        status=DmarcStatus.INTERNAL_ERROR,
        author=inquiry.message.authors.domain,
        problem=DmarcProblem.INTERNAL,
    )


def _bimi_wanted(settings: CheckSettings) -> bool:
    return settings.bimi is not None


def _bimi_early(inquiry: Inquiry, lookup: Lookup) -> None:
    """Nothing is asked ahead: BIMI draft -12 §7.2, discovery MUST NOT be attempted before the message has passed."""


def _bimi(inquiry: Inquiry, early: object, lookup: Lookup) -> BimiResult:  # noqa: ARG001 - the row's shape
    settings = inquiry.settings
    assert settings.bimi is not None  # _bimi_wanted
    return bimi_check.check(
        inquiry.message,
        spf=inquiry.spf,
        dkim=inquiry.dkim or (),
        dmarc=inquiry.dmarc,
        published=lambda author: survey(author, lookup, settings.dmarc),
        lookup=lookup,
        settings=settings.bimi,
        source=settings.marks,
        now=inquiry.received_at,
    )


def _bimi_broken(inquiry: Inquiry) -> BimiResult:  # noqa: ARG001 - the row's shape
    return BimiResult(status=BimiStatus.INTERNAL_ERROR, problem=BimiProblem.INTERNAL)


# The order is the order of asking: DMARC's discovery goes out before any key is asked for.
METHODS: tuple[Method, ...] = (
    Method(
        name="iprev", stage=Stage.MAIL, questions=21, applies=_client_known,
        early=_iprev, broken=_iprev_broken, key=_iprev_key,
    ),
    Method(
        name="spf_helo", stage=Stage.MAIL, questions=150, hints=60, applies=_client_known,
        early=_spf_helo, broken=_spf_broken(SpfIdentity.HELO), key=_spf_helo_key,
    ),
    Method(
        name="spf", stage=Stage.MAIL, questions=150, hints=60, applies=_client_known,
        early=_spf, broken=_spf_broken(SpfIdentity.MAILFROM), key=_spf_key, recall=_spf_recall,
    ),
    Method(
        name="dmarc", stage=Stage.HEADERS, questions=60, hints=30, whole_budget=True, prepare=_dmarc_prepare,
        early=_dmarc_early, conclude=_dmarc, broken=_dmarc_broken, key=_dmarc_key, final_key=_dmarc_final_key,
    ),
    Method(
        name="dkim", stage=Stage.HEADERS, questions=100, prepare=_dkim_prepare,
        early=_dkim, conclude=_dkim_conclude, broken=_dkim_broken,
    ),
    Method(
        name="arc", stage=Stage.HEADERS, questions=60, applies=_arc_present, prepare=_arc_prepare,
        early=_arc, conclude=_arc_conclude, broken=_arc_broken,
    ),
    Method(
        name="bimi", stage=Stage.HEADERS, questions=16, wanted=_bimi_wanted,
        early=_bimi_early, conclude=_bimi, broken=_bimi_broken,
    ),
)  # fmt: skip

#: The order in which the results are made: each may use those before it.
CONCLUDING = ("iprev", "spf_helo", "spf", "dkim", "arc", "dmarc", "bimi")
