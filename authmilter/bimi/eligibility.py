"""Which messages may have a logo at all (BIMI draft -12 §7.1), and which selector they name (§5.1, §5.5).

Pure functions of results; nothing is asked here. `screen` is what every message goes through: it makes no new value for
one that does not qualify by DMARC.

What the draft leaves open, or says for RFC 7489 only:

* DMARC pass means our own DMARC pass. A trusted forwarder or ARC chain is a reason for a policy to take a message, none
  to show a logo (§7.1 step 5 allows it, and does not ask for it).
* `np=none` counts as `sp=none` does, and `t=y` as no enforcement: both leave mail in the domain's name unpunished.
* `pct` below 100 with p=quarantine is no enforcement (§7.1 step 9), though DMARC itself ignores the tag now.
* A domain without a record at its Organizational Domain has no policy there, so it is not enforcing.
* A signature counts if DMARC counts it as aligned, it signs the whole body (no `l=`, whatever its length) and its key
  is not in testing mode.
* Several BIMI-Selector fields are followed as little as an unsigned one: a signature may cover the other one.
"""

from __future__ import annotations

from collections.abc import Iterable

from authmilter.bimi.record import read_selector
from authmilter.bimi.result import BimiProblem, BimiResult, BimiStatus, SelectorFault, SelectorSource
from authmilter.bimi.settings import BimiSettings
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import (
    AlignedBy,
    Alignment,
    DmarcPolicy,
    DmarcProblem,
    DmarcRecord,
    DmarcResult,
    DmarcStatus,
    DmarcSurvey,
)
from authmilter.message import AuthorHeader, Message
from authmilter.names import Domain
from authmilter.spf.result import SpfResult

__all__ = [
    "DEFAULT_SELECTOR",
    "judge_policies",
    "judge_signatures",
    "screen",
    "selector_of",
    "whole_signatures",
]

#: BIMI §4.4
DEFAULT_SELECTOR = "default"

_ENFORCING = frozenset({DmarcPolicy.QUARANTINE, DmarcPolicy.REJECT})

_NO_SINGLE_AUTHOR = BimiResult(
    status=BimiStatus.SKIPPED,
    problem=BimiProblem.NO_SINGLE_AUTHOR,
    detail="the message does not have exactly one From field with exactly one address",
)
_NO_DMARC_PASS = {
    status: BimiResult(
        status=BimiStatus.SKIPPED, problem=BimiProblem.DMARC_NOT_PASS, detail=f"DMARC is {status}"
    )
    for status in DmarcStatus
}
_DMARC_NOT_ASKED = BimiResult(
    status=BimiStatus.SKIPPED, problem=BimiProblem.DMARC_NOT_PASS, detail="DMARC was not evaluated"
)


def screen(authors: AuthorHeader, dmarc: DmarcResult | None) -> BimiResult | None:
    """Return why a message cannot have a logo, as far as its authors and DMARC result tell; None: it may.

    BIMI §7.1 steps 1 and 6. A None leaves no doubt that there is one Author Domain and DMARC passed for it.
    """
    if authors.problem is not None or authors.fields != 1 or len(authors.addresses) != 1:
        return _NO_SINGLE_AUTHOR
    if dmarc is None:
        return _DMARC_NOT_ASKED
    if dmarc.status is not DmarcStatus.PASS or dmarc.author is None or dmarc.author != authors.domain:
        return _NO_DMARC_PASS[dmarc.status]
    return None


def whole_signatures(dkim: Iterable[DkimResult], dmarc: DmarcResult) -> tuple[DkimResult, ...]:
    """Return the signatures that pass, are aligned as DMARC has it, and sign the whole body with a key in earnest."""
    if AlignedBy.DKIM not in dmarc.aligned:
        return ()
    record, author = dmarc.record, dmarc.author
    strict = record is not None and record.adkim is Alignment.STRICT
    return tuple(
        r
        for r in dkim
        if r.status is DkimStatus.PASS
        and r.domain in dmarc.aligned_domains
        and (not strict or r.domain == author)
        and r.body_length is None
        and not r.unsigned_body_bytes
        and not r.testing
    )


def judge_signatures(
    whole: tuple[DkimResult, ...],
    dkim: Iterable[DkimResult],
    spf: SpfResult | None,
    dmarc: DmarcResult,
    settings: BimiSettings,
) -> BimiResult | None:
    """Return why what DMARC passed by is not enough for a logo; None: it is.

    Args:
        whole: what `whole_signatures` gave.
        dkim: the results of all signatures.
        spf: the result for the MAIL FROM identity.
        dmarc: a pass.
        settings: the administrator's choices.
    """
    if whole:
        return None
    if settings.require_dkim:
        domain = dmarc.organizational_domain or dmarc.author
        unknown = next((r for r in dkim if _hidden(r, domain)), None)
        if unknown is not None:
            return BimiResult(
                status=BimiStatus.TEMPERROR,
                problem=BimiProblem.LIMIT
                if unknown.problem is DkimProblem.LIMIT
                else BimiProblem.DKIM_UNKNOWN,
                detail=f"whether the signature of {unknown.domain} holds is not known",
            )
        return BimiResult(
            status=BimiStatus.SKIPPED,
            problem=BimiProblem.NO_ALIGNED_DKIM,
            detail="no aligned DKIM signature signs the whole body",
        )
    if AlignedBy.DKIM not in dmarc.aligned and spf is not None and spf.broad:
        return BimiResult(
            status=BimiStatus.SKIPPED,
            problem=BimiProblem.BROAD_SPF,
            detail="DMARC passes only by an SPF record that lets nearly everybody send",
        )
    return None


def _hidden(result: DkimResult, domain: Domain | None) -> bool:
    """True of a signature at or below `domain` whose key is not known: it could have been aligned."""
    return (
        result.status is DkimStatus.TEMPERROR
        and result.domain is not None
        and domain is not None
        and result.domain.is_at_or_below(domain)
    )


def judge_policies(survey: DmarcSurvey) -> BimiResult | None:
    """Return why what the domains publish is not enough for a logo; None: it is (BIMI §7.1 steps 7 to 9)."""
    organization = survey.organizational_domain
    if survey.problem is not None or organization is None:
        limited = survey.problem is DmarcProblem.LIMIT
        return BimiResult(
            status=BimiStatus.TEMPERROR,
            problem=BimiProblem.LIMIT if limited else BimiProblem.DNS,
            detail=f"the DMARC policies of {survey.author} are not known: {survey.detail}",
        )
    if survey.organizational is None:
        return _not_enforcing(f"the Organizational Domain {organization} has no DMARC record")
    lax = _laxity(survey.organizational)
    if lax:
        return _not_enforcing(f"the DMARC record of {organization} says {lax}")
    if survey.own is not None and organization != survey.author:
        lax = _laxity(survey.own)
        if lax:
            return _not_enforcing(f"the DMARC record of {survey.author} says {lax}")
    return None


def _laxity(record: DmarcRecord) -> str:
    """Return what in a record is less than enforcement, or nothing."""
    if record.p not in _ENFORCING:
        return f"p={record.p}" if record.p is not None else "no valid p"
    # BIMI §7.1 step 8 names sp; np (RFC 9989 §4.7) is the same for names that do not exist
    for tag, policy in (("sp", record.sp), ("np", record.np)):
        if policy is DmarcPolicy.NONE or (policy is None and tag in record.faults):
            return f"{tag}=none" if policy is not None else f"no valid {tag}"
    if record.testing:
        return "t=y"
    if record.p is DmarcPolicy.QUARANTINE and record.pct < 100:
        return f"pct={record.pct}"
    return ""


def _not_enforcing(detail: str) -> BimiResult:
    return BimiResult(status=BimiStatus.SKIPPED, problem=BimiProblem.POLICY_NOT_ENFORCING, detail=detail)


def selector_of(
    message: Message, whole: tuple[DkimResult, ...], settings: BimiSettings
) -> tuple[str, SelectorSource, SelectorFault | None]:
    """Return the selector of a message, where it came from, and why a BIMI-Selector was not followed.

    BIMI §7.2 step 2, §5.5: the field counts if one of the signatures in `whole` covers it.
    """
    fields = message.fields("bimi-selector") if settings.selectors else ()
    if not fields:
        return DEFAULT_SELECTOR, SelectorSource.DEFAULT, None
    fault: SelectorFault | None = None
    if len(fields) > 1:
        fault = SelectorFault.REPEATED
    elif not any("bimi-selector" in r.signed_headers for r in whole):
        fault = SelectorFault.UNSIGNED
    else:
        selector = read_selector(fields[0].value)
        if selector is not None:
            return selector, SelectorSource.HEADER, None
        fault = SelectorFault.MALFORMED
    return DEFAULT_SELECTOR, SelectorSource.DEFAULT, fault
