"""BIMI of one message: is it eligible, which record speaks for it, and what is known of its logo (BIMI draft -12 §7).

`check` is pure and restartable: it asks a `Lookup` and lets `Missing` through; besides that it is total. It asks
nothing for a message that is not eligible (§7.2), and at most `MAX_QUERIES` questions for records.

It never fetches. What stands at the addresses of a record comes from an `EvidenceSource`, which fetches in the
background. A pass is only what was verified: until the documents are here the result is `skipped` with the problem
`evidence_pending`, and the next message has them.

Where the draft is silent or leaves a choice:

* A DNS failure is temperror wherever the answer could have changed the outcome, also for the record of a local part.
* Several records at a name are `fail`, and end the discovery as the draft says; a record that cannot be used is `fail`,
  too, and hides that of the Organizational Domain as a good one would.
* A record of a local part that cannot be used is as none (§7.2 steps 5 and 8 ask for a valid one); one that declines,
  declines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from authmilter.bimi.eligibility import (
    judge_policies,
    judge_signatures,
    screen,
    selector_of,
    whole_signatures,
)
from authmilter.bimi.evidence import EvidenceSource, EvidenceStatus, MarkEvidence
from authmilter.bimi.record import Fault, local_part_selector, select
from authmilter.bimi.result import BimiProblem, BimiQuery, BimiRecord, BimiResult, BimiStatus, SelectorSource
from authmilter.bimi.settings import BimiSettings
from authmilter.dkim.result import DkimResult
from authmilter.dmarc.result import DmarcResult, DmarcSurvey
from authmilter.dns.answer import Failed, FailureKind, Found, NxDomain, Question, RdType
from authmilter.errors import InvalidName
from authmilter.message import Message
from authmilter.names import Domain
from authmilter.ports import Lookup
from authmilter.spf.result import SpfResult

__all__ = ["MAX_QUERIES", "check"]

#: BIMI §7.2: two domains, and for each the record of the selector and that of the local part.
MAX_QUERIES = 4


def check(
    message: Message,
    *,
    spf: SpfResult | None,
    dkim: tuple[DkimResult, ...],
    dmarc: DmarcResult | None,
    published: Callable[[Domain], DmarcSurvey],
    lookup: Lookup,
    settings: BimiSettings,
    source: EvidenceSource | None,
    now: datetime,
) -> BimiResult:
    """Evaluate BIMI for a message (BIMI §7).

    Args:
        message: the header block.
        spf: the result for the MAIL FROM identity (None: not checked).
        dkim: one result for each signature.
        dmarc: the DMARC result (None: not evaluated).
        published: what an Author Domain and its Organizational Domain publish for DMARC; asked of an eligible message
            only, and may raise `Missing`.
        lookup: where answers come from.
        settings: the administrator's choices.
        source: where evidence comes from; None: nothing is fetched, and so nothing passes.
        now: the time, with its zone.

    Raises:
        Missing: answers are not at hand; fetch them and call again.
    """
    unfit = screen(message.authors, dmarc)
    if unfit is not None:
        return unfit
    assert dmarc is not None  # screen looked
    whole = whole_signatures(dkim, dmarc)
    unfit = judge_signatures(whole, dkim, spf, dmarc, settings)
    if unfit is not None:
        return unfit
    author = message.authors.addresses[0]
    survey = published(author.domain)
    unfit = judge_policies(survey)
    if unfit is not None:
        return unfit
    selector, origin, ignored = selector_of(message, whole, settings)
    discovery = _Discovery(lookup, author.local, settings)
    organization = survey.organizational_domain or author.domain
    found = discovery.find(author.domain, organization, selector, origin)
    result = _conclude(found, settings, source, now)
    return replace(result, selector_ignored=ignored, queries=tuple(discovery.queries))


class _Discovery:
    """Assertion Record Discovery for one message (BIMI §7.2)."""

    __slots__ = ("_local", "_lookup", "_settings", "queries")

    def __init__(self, lookup: Lookup, local: str, settings: BimiSettings) -> None:
        self._lookup = lookup
        self._local = local
        self._settings = settings
        self.queries: list[BimiQuery] = []

    def find(self, author: Domain, organization: Domain, selector: str, source: SelectorSource) -> BimiResult:
        """Return a result with the record that speaks for the author, or why there is none.

        The status is pass where there is a record, for `_conclude` to go on with.
        """
        for domain in (author,) if organization == author else (author, organization):
            found = self._ask(selector, domain)
            if found is None:
                continue
            here = BimiResult(
                status=BimiStatus.PASS, domain=domain, selector=selector, selector_source=source
            )
            if isinstance(found, Failed):
                return _failed(here, found)
            if isinstance(found, Fault):
                return replace(here, status=BimiStatus.FAIL, problem=found.problem, detail=found.detail)
            return self._of_local_part(replace(here, record=found), found, domain)
        return BimiResult(
            status=BimiStatus.NONE,
            problem=BimiProblem.NO_RECORD,
            detail=f"neither {author} nor its Organizational Domain {organization} has a record"
            if organization != author
            else f"{author} has no record",
            selector=selector,
            selector_source=source,
        )

    def _of_local_part(self, here: BimiResult, record: BimiRecord, domain: Domain) -> BimiResult:
        """Return the result with the record of the author's local part where `lps` asks for it (§7.2 steps 5, 8)."""
        selector = local_part_selector(record, self._local) if self._settings.selectors else None
        if selector is None or selector == here.selector:
            return here
        found = self._ask(selector, domain)
        there = replace(here, selector=selector, selector_source=SelectorSource.LOCAL_PART)
        if isinstance(found, Failed):
            return _failed(there, found)
        return replace(there, record=found) if isinstance(found, BimiRecord) else here

    def _ask(self, selector: str, domain: Domain) -> BimiRecord | Fault | Failed | None:
        """Ask for the record of a selector; None where there is none."""
        name = f"{selector}._bimi.{domain.ascii}"
        try:
            question = Question.of(name, RdType.TXT)
        except InvalidName:
            self.queries.append(BimiQuery(name=name, answer="not asked: the name is too long"))
            return None
        answer = self._lookup.ask(question)
        found: BimiRecord | Fault | Failed | None = None
        if isinstance(answer, Failed):
            found, word = answer, f"failed: {answer.kind}"
        elif isinstance(answer, Found):
            found = select(answer.texts())
            if isinstance(found, Fault):
                several = found.problem is BimiProblem.SEVERAL_RECORDS
                word = "several records" if several else "unusable record"
            else:
                word = "no record" if found is None else "record"
        else:
            word = "nxdomain" if isinstance(answer, NxDomain) else "no record"
        self.queries.append(BimiQuery(name=question.name, answer=word))
        return found


def _failed(here: BimiResult, answer: Failed) -> BimiResult:
    """A DNS failure is never "no record"."""
    limited = answer.kind is FailureKind.LIMIT
    return replace(
        here,
        status=BimiStatus.TEMPERROR,
        problem=BimiProblem.LIMIT if limited else BimiProblem.DNS,
        detail=f"the record {here.selector}._bimi.{here.domain} is not known: {answer.kind}",
        record=None,
    )


def _conclude(
    found: BimiResult, settings: BimiSettings, source: EvidenceSource | None, now: datetime
) -> BimiResult:
    """Return the result of a discovery with what is known of the record's documents (BIMI §7.3 to §7.6)."""
    record, domain = found.record, found.domain
    if record is None or domain is None:
        return found
    if record.declines:
        # BIMI §4.3.1, §7.5
        return replace(found, status=BimiStatus.DECLINED, detail="the sender asks for no logo")
    if settings.require_evidence and not record.authority:
        return _skipped(found, BimiProblem.NO_CERTIFICATE, "the record names no mark certificate")
    if source is None:
        return _skipped(found, BimiProblem.NOT_FETCHED, "what the record names is not fetched here")
    evidence = source.peek(domain, found.selector, record.location, record.authority)
    if evidence is None:
        return _skipped(found, BimiProblem.PENDING, "what the record names is being fetched")
    return _weigh(replace(found, evidence=evidence), evidence, record, settings, now)


def _weigh(
    found: BimiResult, evidence: MarkEvidence, record: BimiRecord, settings: BimiSettings, now: datetime
) -> BimiResult:
    """Return the result for documents that were fetched, or could not be."""
    if evidence.status is EvidenceStatus.TEMPERROR:
        detail = evidence.detail or f"what the record names could not be fetched: {evidence.problem}"
        return replace(found, status=BimiStatus.TEMPERROR, problem=BimiProblem.UNAVAILABLE, detail=detail)
    if evidence.status is EvidenceStatus.FAIL:
        detail = evidence.detail or f"what the record names does not hold: {evidence.problem}"
        return _fail(found, BimiProblem.EVIDENCE, detail)
    if evidence.status is EvidenceStatus.NONE and record.authority:
        # a source that did not look at the certificate has not vouched for it
        return _fail(found, BimiProblem.EVIDENCE, "the mark certificate was not checked")
    if evidence.not_after is not None and evidence.not_after < now:
        return _fail(found, BimiProblem.EXPIRED, "the mark certificate has expired")
    if evidence.status is EvidenceStatus.PASS and evidence.mark_type not in settings.mark_types:
        return _skipped(found, BimiProblem.MARK_TYPE, "the settings do not accept marks of this type")
    if evidence.indicator is None:
        return _fail(found, BimiProblem.NO_INDICATOR, evidence.detail or "no image that may be shown")
    return found


def _skipped(found: BimiResult, problem: BimiProblem, detail: str) -> BimiResult:
    return replace(found, status=BimiStatus.SKIPPED, problem=problem, detail=detail)


def _fail(found: BimiResult, problem: BimiProblem, detail: str) -> BimiResult:
    return replace(found, status=BimiStatus.FAIL, problem=problem, detail=detail)
