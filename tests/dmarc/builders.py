"""Builders of what DMARC is given, and a lookup that starts cold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.check import check
from authmilter.dmarc.result import DmarcResult
from authmilter.dmarc.settings import DmarcSettings
from authmilter.dns.answer import Answer, Question
from authmilter.dns.budget import BudgetLookup
from authmilter.dns.zone import ZoneResolver
from authmilter.message import AuthorHeader, AuthorProblem
from authmilter.names import Address, Domain
from authmilter.ports import Lookup, Missing
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from tests.support.builders import a_lookup

_T = TypeVar("_T")
Zone = Mapping[str, object]


def a_domain(text: str) -> Domain:
    return Domain.parse(text)


def an_author(*domains: str, problem: AuthorProblem | None = None) -> AuthorHeader:
    """The authors of a message from `user` at each of `domains`."""
    parsed = tuple(Domain.parse(d) for d in domains)
    if problem is None and len(parsed) > 1:
        problem = AuthorProblem.SEVERAL_AUTHOR_DOMAINS
    return AuthorHeader(
        fields=1, addresses=tuple(Address("user", d) for d in parsed), domains=parsed, problem=problem
    )


def spf(
    domain: str | None,
    status: SpfStatus = SpfStatus.PASS,
    *,
    identity: SpfIdentity = SpfIdentity.MAILFROM,
    problem: SpfProblem | None = None,
    broad: bool = False,
) -> SpfResult:
    return SpfResult(
        status=status,
        identity=identity,
        domain=None if domain is None else Domain.parse(domain),
        problem=problem,
        broad=broad,
    )


def dkim(
    domain: str | None,
    status: DkimStatus = DkimStatus.PASS,
    *,
    problem: DkimProblem | None = None,
    testing: bool = False,
) -> DkimResult:
    return DkimResult(
        status=status,
        domain=None if domain is None else Domain.parse(domain),
        problem=problem,
        testing=testing,
    )


def evaluate(
    author: str | AuthorHeader,
    zone: Zone | None = None,
    *,
    spf: SpfResult | None = None,
    dkim: tuple[DkimResult, ...] = (),
    settings: DmarcSettings | None = None,
    questions: int = 1000,
) -> DmarcResult:
    """Run the check with every answer of the zone at hand."""
    authors = an_author(author) if isinstance(author, str) else author
    lookup = a_lookup(zone, questions=questions)
    return check(authors, spf, dkim, lookup, settings or DmarcSettings())


class ColdResolver:
    """Knows the names of `warm` only until it is asked to fetch; then answers from a zone."""

    def __init__(self, zone: Zone, warm: frozenset[str] = frozenset()) -> None:
        self.zone = ZoneResolver(zone)
        self._warm = warm

    def known(self, question: Question) -> Answer | None:
        return self.zone.known(question) if question.name in self._warm else None

    async def fetch(self, question: Question, deadline: object) -> Answer:  # noqa: ARG002 - the port's shape
        return self.zone.known(question)


class ColdLookup:
    """Runs a check from an empty cache as the engine does, and counts rounds and questions sent."""

    def __init__(
        self, zone: Zone, *, questions: int = 100, hints: int = 100, warm: frozenset[str] = frozenset()
    ) -> None:
        self._resolver = ColdResolver(zone, warm)
        self.lookup = BudgetLookup(self._resolver, questions=questions, hints=hints)
        self.rounds = 0
        self.sent: list[str] = []

    def run(self, evaluation: Callable[[Lookup], _T]) -> _T:
        for _ in range(50):
            try:
                return evaluation(self.lookup)
            except Missing as missing:
                self.rounds += 1
                for question in missing.questions:
                    self.sent.append(str(question))
                    self.lookup.give(question, self._resolver.zone.known(question))
        raise AssertionError("the check asks without end")
