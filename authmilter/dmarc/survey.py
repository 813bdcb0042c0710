"""What a domain and its Organizational Domain publish, for a method that asks more of them than DMARC does (BIMI).

Pure and restartable like the check: `survey` asks a `Lookup`, lets `Missing` through, and is total besides that. It
asks what a walk of RFC 9989 §4.10 asks, most of which DMARC has asked before.
"""

from __future__ import annotations

from authmilter.dmarc.discovery import Discovery, Failure
from authmilter.dmarc.result import DmarcProblem, DmarcSurvey
from authmilter.dmarc.settings import DmarcSettings
from authmilter.names import Domain
from authmilter.ports import Lookup

__all__ = ["survey"]


def survey(author: Domain, lookup: Lookup, settings: DmarcSettings) -> DmarcSurvey:
    """Return the records at `author` and at its Organizational Domain (RFC 9989 §4.10.2, or by the list).

    Raises:
        Missing: answers are not at hand; fetch them and call again.
    """
    discovery = Discovery(lookup, settings.discovery)
    organization = discovery.organization(author)
    if organization.domain is None:
        return _unknown(author, organization.failure)
    own = discovery.published(author)
    if isinstance(own, Failure):
        return _unknown(author, own)
    organizational = own if organization.domain == author else discovery.published(organization.domain)
    if isinstance(organizational, Failure):
        return _unknown(author, organizational)
    return DmarcSurvey(
        author=author, organizational_domain=organization.domain, own=own, organizational=organizational
    )


def _unknown(author: Domain, failure: Failure | None) -> DmarcSurvey:
    limited = failure is not None and failure.limited
    return DmarcSurvey(
        author=author, problem=DmarcProblem.LIMIT if limited else DmarcProblem.DNS, detail=str(failure or "")
    )
