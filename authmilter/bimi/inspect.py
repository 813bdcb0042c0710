"""Everything there is to say of a domain's logo, rule by rule, for a person who asks: the road of a message without one.

`inspect_domain` makes up a message of the domain that passes DMARC by a signature over everything, and lets the check
look for its record; what the record names is fetched and held against the rules as the store does, but waited for.
Total: what fails is a finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from authmilter.bimi import check as bimi_check
from authmilter.bimi.eligibility import DEFAULT_SELECTOR, judge_policies
from authmilter.bimi.evidence import MarkEvidence
from authmilter.bimi.fetch import Fetcher
from authmilter.bimi.findings import Finding
from authmilter.bimi.record import read_selector
from authmilter.bimi.result import BimiResult, BimiStatus
from authmilter.bimi.settings import BimiSettings, EvidenceSettings
from authmilter.bimi.store import Key, collect
from authmilter.bimi.vmc import TrustRoots
from authmilter.deadline import Deadline
from authmilter.dkim.result import DkimResult, DkimStatus
from authmilter.dmarc.result import (
    AlignedBy,
    DmarcPolicy,
    DmarcRecord,
    DmarcResult,
    DmarcStatus,
    DmarcSurvey,
)
from authmilter.dmarc.settings import DmarcSettings
from authmilter.dmarc.survey import survey
from authmilter.dns.budget import BudgetLookup
from authmilter.message import Message
from authmilter.names import Domain
from authmilter.ports import Missing, Resolver

__all__ = ["DomainReport", "inspect_domain", "is_selector"]

T = TypeVar("T")

#: Questions for one domain, how often the check may begin again, and the seconds a question may take.
_QUESTIONS, _ROUNDS, _PATIENCE = 64, 64, 10.0
#: Nothing is left out: every record is followed, whether or not the settings would.
_EVERYTHING = BimiSettings(require_evidence=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainReport:
    """What was found: `result` of the discovery (None: it was not reached), the `evidence` and the image (`svg`) where
    documents were fetched, and every finding on the way. `temporary`: what failed may pass by itself.
    """

    domain: Domain
    selector: str
    findings: tuple[Finding, ...]
    result: BimiResult | None = None
    evidence: MarkEvidence | None = None
    svg: bytes | None = None
    temporary: bool = False


class _Wanted:
    """An evidence source that has nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.key: Key | None = None

    def peek(self, domain: Domain, selector: str, location: str, authority: str) -> MarkEvidence | None:
        self.key = Key(domain, selector, location, authority)
        return None


def is_selector(text: str) -> bool:
    """True if a BIMI-Selector field may name this selector."""
    if not text.isascii() or set(text) & set("; \t"):
        return False
    return read_selector(f"v=BIMI1; s={text}".encode("ascii")) is not None


async def inspect_domain(
    domain: Domain,
    *,
    resolver: Resolver,
    fetcher: Fetcher,
    roots: TrustRoots,
    evidence: EvidenceSettings,
    dmarc: DmarcSettings,
    now: datetime,
    selector: str = DEFAULT_SELECTOR,
) -> DomainReport:
    """Look at the logo that mail from `domain` would have.

    Args:
        domain: an Author Domain.
        resolver: where DNS answers come from.
        fetcher: fetches what a record names.
        roots: what mark certificates have to lead to.
        evidence: sizes, and whether revocation lists are asked.
        dmarc: how Organizational Domains are found.
        now: the time at which certificates have to be valid.
        selector: one that `is_selector`.
    """
    lookup = BudgetLookup(resolver, questions=_QUESTIONS, hints=_QUESTIONS)
    published = await _answered(lambda: survey(domain, lookup, dmarc), lookup, resolver)
    unfit = judge_policies(published)
    temporary = unfit is not None and unfit.status is BimiStatus.TEMPERROR
    findings = [_of_policy(published, unfit)]
    if published.organizational_domain is None:
        return DomainReport(domain=domain, selector=selector, findings=tuple(findings), temporary=temporary)
    wanted = _Wanted()
    message = Message.parse(
        f"From: <logo@{domain}>\r\nBIMI-Selector: v=BIMI1; s={selector}\r\n\r\n".encode("ascii")
    )[0]
    record = DmarcRecord(p=DmarcPolicy.REJECT)
    enforcing = DmarcSurvey(
        author=domain,
        organizational_domain=published.organizational_domain,
        own=record,
        organizational=record,
    )
    found = await _answered(
        lambda: bimi_check.check(
            message,
            spf=None,
            dkim=(
                DkimResult(status=DkimStatus.PASS, domain=domain, signed_headers=("from", "bimi-selector")),
            ),
            dmarc=DmarcResult(
                status=DmarcStatus.PASS,
                author=domain,
                aligned=(AlignedBy.DKIM,),
                aligned_domains=(domain,),
                record=record,
                organizational_domain=published.organizational_domain,
            ),
            published=lambda _: enforcing,
            lookup=lookup,
            settings=_EVERYTHING,
            source=wanted,
            now=now,
        ),
        lookup,
        resolver,
    )
    findings += _of_record(found)
    if wanted.key is None:
        return DomainReport(
            domain=domain,
            selector=selector,
            findings=tuple(findings),
            result=found,
            temporary=temporary or found.status is BimiStatus.TEMPERROR,
        )
    got = await collect(wanted.key, fetcher=fetcher, roots=roots, settings=evidence, now=now)
    indicator = got.evidence.indicator
    return DomainReport(
        domain=domain,
        selector=selector,
        findings=(*findings, *got.findings),
        result=found,
        evidence=got.evidence,
        svg=indicator.svg if indicator is not None else None,
        temporary=temporary or got.evidence.status.value == "temperror",
    )


async def _answered(ask: Callable[[], T], lookup: BudgetLookup, resolver: Resolver) -> T:
    """Run a check until it misses no answer."""
    for _ in range(_ROUNDS):
        try:
            return ask()
        except Missing as missing:
            questions = missing.questions
        deadline = Deadline.after(_PATIENCE)
        answers = await asyncio.gather(*(resolver.fetch(q, deadline) for q in questions))
        for question, answer in zip(questions, answers, strict=True):
            lookup.give(question, answer)
    lookup.close()
    return ask()


def _of_policy(published: DmarcSurvey, unfit: BimiResult | None) -> Finding:
    if unfit is not None:
        problem = unfit.problem.value if unfit.problem is not None else "dmarc_policy"
        return Finding(rule="dmarc_policy", passed=False, message=unfit.detail, problem=problem)
    record = published.organizational
    policy = f"p={record.p}" if record is not None else "its policy"
    return Finding(
        rule="dmarc_policy",
        passed=True,
        message=f"DMARC is enforced: {published.organizational_domain} says {policy}",
    )


def _of_record(found: BimiResult) -> list[Finding]:
    """Return what is to be said of a record: where it is, that it can be used, and what it names."""
    where = f"{found.selector}._bimi.{found.domain}"
    if found.record is None:
        asked = ", ".join(f"{q.name}: {q.answer}" for q in found.queries)
        problem = found.problem.value if found.problem is not None else "no_record"
        return [
            Finding(
                rule="bimi_record",
                passed=False,
                message=f"{found.detail} ({asked})" if asked else found.detail,
                problem=problem,
            )
        ]
    if found.status is BimiStatus.DECLINED:
        return [
            Finding(
                rule="bimi_record", passed=True, message=f"the record at {where} says that there is no logo"
            )
        ]
    named = bool(found.record.authority)
    return [
        Finding(rule="bimi_record", passed=True, message=f"there is one record, at {where}"),
        Finding(
            rule="bimi_authority",
            passed=named,
            message="the record names a mark certificate"
            if named
            else "the record names no mark certificate (a=), which most receivers ask for",
            advisory=True,
            problem="" if named else "no_certificate",
        ),
    ]
