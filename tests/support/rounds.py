"""A resolver with nothing at hand, and a driver that runs a check as the engine does and counts its rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from authmilter.deadline import Deadline
from authmilter.dns.answer import Answer, Failed, FailureKind, Question
from authmilter.dns.budget import BudgetLookup
from authmilter.dns.zone import ZoneResolver
from authmilter.ports import Lookup, Missing

T = TypeVar("T")


class NothingAtHand:
    """Implements `ports.Resolver`: every answer is missing."""

    def known(self, question: Question) -> Answer | None:  # noqa: ARG002 - the port's shape
        return None

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:  # noqa: ARG002 - the port's shape
        return Failed(FailureKind.TIMEOUT)


def in_rounds(
    check: Callable[[Lookup], T], zone: Mapping[str, object], *, questions: int = 150, hints: int = 60
) -> tuple[T, int, BudgetLookup]:
    """Run `check` until nothing is missing, each time with all the answers it missed; return result and rounds."""
    answers = ZoneResolver(zone)
    lookup = BudgetLookup(NothingAtHand(), questions=questions, hints=hints)
    rounds = 0
    while True:
        try:
            return check(lookup), rounds, lookup
        except Missing as missing:
            rounds += 1
            assert rounds < 200
            for question in missing.questions:
                lookup.give(question, answers.known(question))
