"""DMARC of one message (RFC 9989 §5.3): policy discovery, alignment, result and the policy that applies.

`check` is pure and restartable: it asks a `Lookup` and lets `Missing` through; besides that it is total.
`prefetch` asks early what `check` will need, as soon as the header block is there.

What makes a result other than pass, fail and none:

* `temperror`: a DNS question failed and could have changed the answer: one that decides which record applies, or
  one about an identifier that could be aligned (SPF or DKIM temperror at or below the author's
  Organizational Domain, or the walk of one that passed), while nothing else passed aligned (RFC 9989 §5.3.6).
* Our own budget: if it hides the record, the result is temperror with the problem `limit`; if it hides only an
  identifier that could be aligned, that one did not pass, and a fail carries the problem `limit`. Never a pass.
* `permerror`: no single Author Domain, or a record without a usable policy (§4.10.1).
* `internal_error`: SPF or DKIM failed by our own fault where it could have decided, and nothing else passed
  aligned: a bug of ours must not read as the sender's failure.

Where the standard is silent or leaves a choice:

* A record without `p` and without a usable `rua` is permerror, as is one with an invalid p, sp or np and without
  a usable `rua` (§4.7, §4.10.1, §9.2). With a `rua`, a missing p is p=none and a valid sp or np keeps its
  meaning (§4.7); an invalid p, sp or np makes the whole policy none (§4.10.1).
* Whether the Author Domain exists is only asked where np would change the policy and the message does not pass.
* Several Author Domains (§11.5): each is evaluated, at most `max_authors`; the result is permerror with the
  strictest policy among those that do not pass by themselves. With a repeated or malformed From nothing can be
  aligned (§4.4), so the strictest of all.
* The Organizational Domain of an author with a record of its own is only looked up where alignment needs it. Where
  all that passed is the Author Domain itself, that is the Organizational Domain (§4.10.2); so it is where the guards
  or its own `psd` leave no other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc import psl
from authmilter.dmarc.alignment import Bond, Identifier, align, may_share
from authmilter.dmarc.discovery import Discovery, Failure, Policy
from authmilter.dmarc.result import (
    AlignedBy,
    Alignment,
    DiscoveryMethod,
    DmarcPolicy,
    DmarcProblem,
    DmarcRecord,
    DmarcResult,
    DmarcStatus,
    PolicySource,
    Psd,
)
from authmilter.dmarc.settings import DmarcSettings, KeysInTesting
from authmilter.message import AuthorHeader, AuthorProblem
from authmilter.names import Domain
from authmilter.ports import Lookup
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus

__all__ = ["check", "key", "prefetch"]

_Key = tuple[AlignedBy, Domain]

# (looked up once: a member of an enum costs as much as a call)
_SPF_LIMIT = SpfProblem.LIMIT
_DKIM_LIMIT = DkimProblem.LIMIT

_PROBLEMS = {
    AuthorProblem.NO_AUTHOR: DmarcProblem.NO_AUTHOR,
    AuthorProblem.REPEATED_FROM: DmarcProblem.REPEATED_FROM,
    AuthorProblem.MALFORMED_FROM: DmarcProblem.MALFORMED_FROM,
    AuthorProblem.SEVERAL_AUTHOR_DOMAINS: DmarcProblem.SEVERAL_AUTHOR_DOMAINS,
}
_STRICTNESS = {DmarcPolicy.NONE: 0, DmarcPolicy.QUARANTINE: 1, DmarcPolicy.REJECT: 2}
#: RFC 9989 §4.7 `t`: one level below.
_LOWERED = {
    DmarcPolicy.REJECT: DmarcPolicy.QUARANTINE,
    DmarcPolicy.QUARANTINE: DmarcPolicy.NONE,
    DmarcPolicy.NONE: DmarcPolicy.NONE,
}


@dataclass(frozen=True, slots=True)
class _Identifiers:
    """What SPF and DKIM left to align, as (by, domain): what passed, what DNS hid, what our own fault hid, and what
    our own limit did.

    `broken` True: one of our own faults has no domain, so it could be any. `left_out`: over `max_identifiers`.
    `notes` say what passed and was not credited.
    """

    passed: tuple[_Key, ...]
    undecided: tuple[_Key, ...]
    faulty: tuple[_Key, ...]
    limited: tuple[_Key, ...]
    broken: bool
    left_out: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Published:
    """The policy before t=y, where it came from, and why."""

    policy: DmarcPolicy
    source: PolicySource
    because: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The status before the policy is looked at, what is aligned, and the author's Organizational Domain."""

    status: DmarcStatus
    organization: Domain | None
    because: tuple[str, ...]
    hits: tuple[Identifier, ...] = ()
    problem: DmarcProblem | None = None
    detail: str = ""


def check(
    authors: AuthorHeader,
    spf: SpfResult | None,
    dkim: tuple[DkimResult, ...],
    lookup: Lookup,
    settings: DmarcSettings,
) -> DmarcResult:
    """Evaluate DMARC for a message (RFC 9989 §5.3).

    Args:
        authors: who the message says it is from.
        spf: the result for the MAIL FROM identity (None: not checked). A HELO result counts for nothing.
        dkim: one result for each signature.
        lookup: where answers come from.
        settings: the administrator's choices.

    Raises:
        Missing: answers are not at hand; fetch them and call again.
    """
    author = authors.domain
    if author is None:
        return _without_author(authors, spf, dkim, lookup, settings)
    return _judge(author, _identifiers(author, spf, dkim, settings), lookup, settings)


def key(authors: AuthorHeader, spf: SpfResult | None, dkim: tuple[DkimResult, ...]) -> Hashable | None:
    """Return all that `check` takes from these besides DNS and the settings; None without a single Author Domain.

    Two messages with the same key have the same result for as long as the DNS answers live.
    """
    author = authors.domain
    if author is None:
        return None
    spf_part: Hashable = None
    if spf is not None:
        domain = spf.domain
        spf_part = (
            spf.identity,
            spf.status,
            domain.ascii if domain is not None else None,
            spf.broad,
            spf.problem is _SPF_LIMIT,
        )
    dkim_part = [
        (r.domain.ascii if r.domain is not None else None, r.status, r.testing, r.problem is _DKIM_LIMIT)
        for r in dkim
    ]
    return "dmarc", author.ascii, spf_part, *dkim_part


def prefetch(
    authors: AuthorHeader,
    dkim_domains: Iterable[Domain],
    spf_domain: Domain | None,
    lookup: Lookup,
    settings: DmarcSettings,
) -> None:
    """Ask what `check` will need, as far as it can be told before SPF and DKIM have results.

    Args:
        authors: who the message says it is from.
        dkim_domains: the d= of its signatures.
        spf_domain: the domain of the MAIL FROM identity, if any.
        lookup: where answers come from.
        settings: the administrator's choices.

    Raises:
        Missing: answers are not at hand; fetch them and call again until it returns.
    """
    domains = dict.fromkeys(dkim_domains)
    if spf_domain is not None:
        domains[spf_domain] = None
    judged = authors.domains[: settings.max_authors]
    if len(judged) > 1:
        Discovery(lookup, settings.discovery).expect_policy(judged)
    for author in judged:
        discovery = Discovery(lookup, settings.discovery)
        related = [d for d in domains if d != author and may_share(author, d)][: settings.max_identifiers]
        if related:
            discovery.expect((author, *related))
        found = discovery.find_policy(author)
        record = found.record
        if record is None or _unusable(record) or found.at is None:
            continue
        if _existence_decides(record, author, found.at):
            discovery.exists(author)
        if not related or (record.adkim is Alignment.STRICT and record.aspf is Alignment.STRICT):
            continue
        identifiers = [Identifier(by=AlignedBy.DKIM, domain=d, mode=Alignment.RELAXED) for d in related]
        align(author, identifiers, discovery, found.organization)


# -- one Author Domain


def _judge(author: Domain, identifiers: _Identifiers, lookup: Lookup, settings: DmarcSettings) -> DmarcResult:
    discovery = Discovery(lookup, settings.discovery)
    found = discovery.find_policy(author)
    record = found.record
    if record is None or found.at is None:
        return _without_record(author, found, discovery, settings)
    if _unusable(record):
        detail = f"the record at {found.at} has no usable policy and no usable rua"
        return DmarcResult(
            status=DmarcStatus.PERMERROR,
            author=author,
            record_at=found.at,
            organizational_domain=_organization(author, record, found, settings),
            record=record,
            testing=record.testing,
            discovery=settings.discovery,
            queries=discovery.queries,
            because=(found.because, detail),
            guards=discovery.guards,
            problem=DmarcProblem.UNUSABLE_RECORD,
            detail=detail,
        )
    outcome = _decide(author, record, identifiers, discovery, found)
    # np matters to a message that does not pass; for one that passes the question is saved
    exists = (
        outcome.status is DmarcStatus.PASS
        or not _existence_decides(record, author, found.at)
        or discovery.exists(author)
    )
    published = _published(record, author, found.at, exists=exists)
    because = [found.because, *identifiers.notes, *outcome.because, published.because]
    policy = published.policy
    if record.testing:
        # RFC 9989 §4.7 `t`, §A.6
        policy = _LOWERED[policy]
        because.append(f"t=y lowers the policy to {policy}")
    return DmarcResult(
        status=outcome.status,
        author=author,
        record_at=found.at,
        organizational_domain=outcome.organization or _organization(author, record, found, settings),
        record=record,
        policy=policy,
        published=published.policy,
        policy_source=published.source,
        aligned=tuple(by for by in AlignedBy if any(i.by is by for i in outcome.hits)),
        aligned_domains=tuple(dict.fromkeys(i.domain for i in outcome.hits)),
        testing=record.testing,
        discovery=settings.discovery,
        queries=discovery.queries,
        because=tuple(because),
        guards=discovery.guards,
        problem=outcome.problem,
        detail=outcome.detail,
    )


def _without_record(
    author: Domain, found: Policy, discovery: Discovery, settings: DmarcSettings
) -> DmarcResult:
    """No record applies (RFC 9989 §5.3.2), or it is not known whether one does (§5.3.6)."""
    failure = found.failure
    because = found.because if failure is None else f"the DMARC record of {author} is not known: {failure}"
    return DmarcResult(
        status=DmarcStatus.NONE if failure is None else DmarcStatus.TEMPERROR,
        author=author,
        organizational_domain=found.organization.domain if found.organization else None,
        discovery=settings.discovery,
        queries=discovery.queries,
        because=(because,),
        guards=discovery.guards,
        problem=None if failure is None else _problem(failure),
        detail="" if failure is None else str(failure),
    )


def _decide(
    author: Domain, record: DmarcRecord, identifiers: _Identifiers, discovery: Discovery, found: Policy
) -> _Outcome:
    """Align the identifiers and decide pass, fail or an error (RFC 9989 §5.3.4-§5.3.6)."""
    modes = {AlignedBy.SPF: record.aspf, AlignedBy.DKIM: record.adkim}
    candidates = [
        Identifier(by=by, domain=domain, mode=modes[by], passed=passed)
        for group, passed in (
            (identifiers.passed, True),
            (identifiers.undecided, False),
            (identifiers.faulty, False),
            (identifiers.limited, False),
        )
        for by, domain in group
    ]
    aligned = align(author, candidates, discovery, found.organization)
    bonds = aligned.bonds
    organization = aligned.organization.domain if aligned.organization else None
    hits = tuple(i for i, bond in zip(candidates, bonds, strict=True) if bond is Bond.ALIGNED)
    if hits:
        # RFC 9989 §5.3.5; whatever else could not be told was not needed
        if organization is None and len(hits) == len(identifiers.passed):
            # RFC 9989 §4.10.2: all are the same domain (else it had been looked up), and it has a record
            organization = author
        return _Outcome(DmarcStatus.PASS, organization, aligned.because, hits)
    status, problem, detail = DmarcStatus.FAIL, None, ""
    known = len(identifiers.passed) + len(identifiers.undecided)
    limited = known + len(identifiers.faulty)
    if identifiers.broken or Bond.POSSIBLE in bonds[known:limited]:
        status, problem = DmarcStatus.INTERNAL_ERROR, DmarcProblem.INTERNAL
        detail = "SPF or DKIM could not be evaluated by our own fault"
    elif Bond.UNKNOWN in bonds:
        status, problem, detail = DmarcStatus.TEMPERROR, DmarcProblem.DNS, str(aligned.failure)
    elif Bond.POSSIBLE in bonds[:known]:
        hidden = candidates[bonds.index(Bond.POSSIBLE)]
        status, problem = DmarcStatus.TEMPERROR, DmarcProblem.DNS
        detail = f"{hidden.by.upper()} for {hidden.domain} ended in DNS trouble and could be aligned"
    elif Bond.LIMIT in bonds or Bond.POSSIBLE in bonds or identifiers.left_out:
        problem = DmarcProblem.LIMIT
        detail = "our own limit hides whether an identifier is aligned"
    return _Outcome(status, organization, aligned.because, problem=problem, detail=detail)


def _organization(
    author: Domain, record: DmarcRecord, found: Policy, settings: DmarcSettings
) -> Domain | None:
    """Return the author's Organizational Domain where it is known without another question."""
    if found.organization is not None:
        return found.organization.domain
    if found.at != author:
        return None
    # RFC 9989 §4.10.2: with a `psd` tag the walk ends at the author's own record. Without one the Organizational
    # Domain is the author or above it, and by the guards never above the registrable name.
    tagged = settings.discovery is DiscoveryMethod.TREEWALK and record.psd is not Psd.UNKNOWN
    return author if tagged or psl.organizational_domain(author) == author else None


def _problem(failure: Failure) -> DmarcProblem:
    return DmarcProblem.LIMIT if failure.limited else DmarcProblem.DNS


# -- the policy


def _invalid(record: DmarcRecord) -> bool:
    """True if p, sp or np is there and not valid (RFC 9989 §4.10.1)."""
    return any(
        value is None and name in record.faults
        for name, value in (("p", record.p), ("sp", record.sp), ("np", record.np))
    )


def _unusable(record: DmarcRecord) -> bool:
    """True if the record says no policy and asks for no reports: no DMARC processing (RFC 9989 §4.10.1)."""
    return not record.rua and (record.p is None or _invalid(record))


def _existence_decides(record: DmarcRecord, author: Domain, at: Domain) -> bool:
    """True if the policy depends on whether the Author Domain exists."""
    if author == at or record.np is None or _invalid(record):
        return False
    return record.np is not (record.sp or record.p or DmarcPolicy.NONE)


def _published(record: DmarcRecord, author: Domain, at: Domain, *, exists: bool) -> _Published:
    """Return the policy of a usable record for `author` (RFC 9989 §4.7, §4.10.1)."""
    if _invalid(record):
        because = "p, sp or np is not valid, and there is a rua: as p=none"
        return _Published(DmarcPolicy.NONE, PolicySource.P, because)
    base = record.p or DmarcPolicy.NONE
    if author == at:
        return _Published(
            base, PolicySource.P, f"p={base} applies" if record.p else "p is missing: as p=none"
        )
    if not exists and record.np is not None:
        return _Published(record.np, PolicySource.NP, f"{author} does not exist: np={record.np} applies")
    if record.sp is not None:
        return _Published(record.sp, PolicySource.SP, f"{author} is below {at}: sp={record.sp} applies")
    because = f"{author} is below {at}, which has no sp for it: p={base} applies"
    return _Published(base, PolicySource.P, because)


# -- what SPF and DKIM say


def _identifiers(
    author: Domain, spf: SpfResult | None, dkim: tuple[DkimResult, ...], settings: DmarcSettings
) -> _Identifiers:
    """Sort the results into what can be aligned (RFC 9989 §4.4.1, §4.4.2); the Author Domain itself first."""
    passed: dict[_Key, None] = {}
    undecided: dict[_Key, None] = {}
    faulty: dict[_Key, None] = {}
    limited: dict[_Key, None] = {}
    broken = False
    notes: list[str] = []
    # RFC 9989 §4.4.2: the MAIL FROM identity only, which with a null reverse-path is postmaster@HELO (RFC 7208 §2.4)
    if spf is not None and spf.identity is SpfIdentity.MAILFROM:
        if spf.status is SpfStatus.INTERNAL_ERROR and spf.domain is None:
            broken = True
        if spf.domain is not None:
            key = (AlignedBy.SPF, spf.domain)
            if spf.status is SpfStatus.PASS:
                if spf.broad and not settings.credit_broad_spf:
                    notes.append(f"the SPF pass for {spf.domain} is too broad to count")
                else:
                    passed[key] = None
            elif spf.status is SpfStatus.TEMPERROR:
                (limited if spf.problem is SpfProblem.LIMIT else undecided)[key] = None
            elif spf.status is SpfStatus.INTERNAL_ERROR:
                faulty[key] = None
    for result in dkim:
        if result.domain is None:
            broken = broken or result.status is DkimStatus.INTERNAL_ERROR
            continue
        key = (AlignedBy.DKIM, result.domain)
        if result.status is DkimStatus.PASS:
            if result.testing and settings.testing_keys is KeysInTesting.IGNORE:
                notes.append(f"the DKIM pass for {result.domain} is by a testing key and does not count")
            else:
                passed[key] = None
        elif result.status is DkimStatus.TEMPERROR:
            (limited if result.problem is DkimProblem.LIMIT else undecided)[key] = None
        elif result.status is DkimStatus.INTERNAL_ERROR:
            faulty[key] = None
    limit = settings.max_identifiers
    return _Identifiers(
        passed=_first(passed, author, limit),
        undecided=_first(undecided, author, limit),
        faulty=_first(faulty, author, limit),
        limited=_first(limited, author, limit),
        broken=broken,
        left_out=max(0, len(passed) - limit),
        notes=tuple(notes),
    )


def _first(keys: Iterable[_Key], author: Domain, limit: int) -> tuple[_Key, ...]:
    """Return at most `limit`, the author's own domain first: the limit never hides what needs no question."""
    return tuple(sorted(keys, key=lambda key: key[1] != author)[:limit])


# -- no single Author Domain


def _without_author(
    authors: AuthorHeader,
    spf: SpfResult | None,
    dkim: tuple[DkimResult, ...],
    lookup: Lookup,
    settings: DmarcSettings,
) -> DmarcResult:
    """Never a pass (RFC 9989 §4.4, §5.3.1); the strictest policy that would apply is told (§11.5)."""
    problem = _PROBLEMS[authors.problem or AuthorProblem.NO_AUTHOR]
    several = problem is DmarcProblem.SEVERAL_AUTHOR_DOMAINS
    judged = authors.domains[: settings.max_authors]
    Discovery(lookup, settings.discovery).expect_policy(judged)
    results: list[DmarcResult] = []
    for domain in judged:
        # RFC 9989 §4.4: without a valid From field nothing is aligned
        identifiers = _identifiers(domain, spf if several else None, dkim if several else (), settings)
        results.append(_judge(domain, identifiers, lookup, settings))
    failing = [r for r in results if r.policy is not None and r.status is not DmarcStatus.PASS]
    strictest = max(failing, key=lambda r: _STRICTNESS[r.policy or DmarcPolicy.NONE], default=None)
    because = [authors.detail or "the message has no single Author Domain"]
    if len(authors.domains) > len(judged):
        because.append(
            f"only the first {len(judged)} of {len(authors.domains)} Author Domains were evaluated"
        )
    because.extend(f"{r.author} alone: {r.status}, policy {r.policy or 'unknown'}" for r in results)
    result = DmarcResult(
        status=DmarcStatus.PERMERROR,
        authors=authors.domains,
        discovery=settings.discovery,
        queries=tuple(dict.fromkeys(q for r in results for q in r.queries)),
        because=tuple(because),
        guards=tuple(dict.fromkeys(g for r in results for g in r.guards)),
        problem=problem,
        detail=authors.detail,
    )
    if strictest is None:
        return result
    return replace(
        result,
        record_at=strictest.record_at,
        organizational_domain=strictest.organizational_domain,
        record=strictest.record,
        policy=strictest.policy,
        published=strictest.published,
        policy_source=strictest.policy_source,
        testing=strictest.testing,
    )
