"""Identifier alignment (RFC 9989 §4.10.2): which authenticated identifiers speak for the Author Domain.

Strict is equality. Relaxed is the same Organizational Domain, found for each name by its own walk. Walks that
cannot change the answer are left out, and only those:

* An identifier equal to the Author Domain is aligned.
* An Organizational Domain is always the name itself or above it, so an identifier that is not at or below the
  author's Organizational Domain cannot have it.
* By the guards of `discovery` it is also never above the registrable name of the public suffix list, so two
  names with different registrable names cannot share it: not even the author's walk is needed.

So identifiers of strangers cost no question, however slow their DNS is.

Promises: total besides `Missing`, which `Discovery` may raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from authmilter.dmarc import psl
from authmilter.dmarc.discovery import Discovery, Failure, Organization
from authmilter.dmarc.result import AlignedBy, Alignment
from authmilter.names import Domain

__all__ = ["Aligned", "Bond", "Identifier", "align", "may_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """A domain that SPF or DKIM spoke of: who did, under which mode, and whether it `passed`."""

    by: AlignedBy
    domain: Domain
    mode: Alignment
    passed: bool = True


class Bond(StrEnum):
    """What an identifier is to the Author Domain."""

    #: it passed and is aligned
    ALIGNED = "aligned"
    #: it is not aligned
    APART = "apart"
    #: it did not pass, and could be aligned if it did (no walk of its own was made)
    POSSIBLE = "possible"
    #: it passed, and a failed question hides whether it is aligned
    UNKNOWN = "unknown"
    #: it passed, and our own budget ran out before it was known
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Aligned:
    """The bonds in the order of the identifiers; `organization` of the author where it was needed or known."""

    bonds: tuple[Bond, ...]
    organization: Organization | None
    because: tuple[str, ...] = ()
    failure: Failure | None = None


def may_share(author: Domain, identifier: Domain) -> bool:
    """True if the two could have the same Organizational Domain, whatever DNS says."""
    return psl.organizational_domain(author) == psl.organizational_domain(identifier)


def align(
    author: Domain, identifiers: Sequence[Identifier], discovery: Discovery, known: Organization | None
) -> Aligned:
    """Say what each identifier is to `author` (RFC 9989 §4.4, §4.10.2).

    Args:
        author: the Author Domain, for which a record was found (else alignment means nothing).
        identifiers: the authenticated ones, and those that could not be decided (`passed` False).
        discovery: where Organizational Domains come from.
        known: the author's Organizational Domain, if it was found already.

    Raises:
        Missing: answers are not at hand.
    """
    bonds: dict[int, Bond] = {}
    because: list[str] = []
    open_: list[int] = []
    for index, identifier in enumerate(identifiers):
        domain = identifier.domain
        if domain == author:
            bonds[index] = Bond.ALIGNED if identifier.passed else Bond.POSSIBLE
            if identifier.passed:
                because.append(f"{_name(identifier)} is the Author Domain: aligned")
        elif identifier.mode is Alignment.STRICT:
            bonds[index] = Bond.APART
            because.append(
                f"{_name(identifier)} is not the Author Domain, and the record asks for strict alignment"
            )
        elif not may_share(author, domain):
            bonds[index] = Bond.APART
            because.append(f"{_name(identifier)} has nothing to do with {author}: not aligned")
            if author.is_at_or_below(domain):
                what = f"a public suffix ({psl.version()})" if "." in domain.ascii else "a single label"
                discovery.guard(f"{_name(identifier)} is {what}: never aligned with names below it")
        else:
            open_.append(index)
    failure: Failure | None = None
    if open_:
        if known is None:
            discovery.expect(identifiers[i].domain for i in open_ if identifiers[i].passed)
            known = discovery.organization(author)
            if known.domain is not None:
                because.append(f"the Organizational Domain of {author} is {known.domain}: {known.because}")
        failure = _align_by_walks([(i, identifiers[i]) for i in open_], discovery, known, bonds, because)
    return Aligned(tuple(bonds[i] for i in range(len(identifiers))), known, tuple(because), failure)


def _align_by_walks(
    open_: Sequence[tuple[int, Identifier]],
    discovery: Discovery,
    author: Organization,
    bonds: dict[int, Bond],
    because: list[str],
) -> Failure | None:
    """Decide the identifiers that only DNS can tell; return the first failure that hides one."""
    top = author.domain
    if top is None:
        for index, identifier in open_:
            bonds[index] = _hidden(author.failure) if identifier.passed else Bond.POSSIBLE
        return author.failure
    failure: Failure | None = None
    below = [i for _, i in open_ if i.domain.is_at_or_below(top)]
    # RFC 9989 §4.10.2: separate walks; asked together
    discovery.ask_ahead(i.domain for i in below if i.passed)
    for index, identifier in open_:
        if not identifier.domain.is_at_or_below(top):
            bonds[index] = Bond.APART
            because.append(f"{_name(identifier)} is not at or below {top}: not aligned")
            continue
        if not identifier.passed:
            bonds[index] = Bond.POSSIBLE
            continue
        own = discovery.organization(identifier.domain)
        if own.domain is None:
            bonds[index] = _hidden(own.failure)
            if failure is None or failure.limited:
                failure = own.failure  # DNS trouble is told before our own limit
        elif own.domain == top:
            bonds[index] = Bond.ALIGNED
            because.append(f"{_name(identifier)} has the Organizational Domain {top}, too: aligned")
        else:
            bonds[index] = Bond.APART
            because.append(
                f"{_name(identifier)} has the Organizational Domain {own.domain}: not aligned ({own.because})"
            )
    return failure


def _hidden(failure: Failure | None) -> Bond:
    return Bond.LIMIT if failure is not None and failure.limited else Bond.UNKNOWN


def _name(identifier: Identifier) -> str:
    return f"{identifier.by.upper()} domain {identifier.domain}"
