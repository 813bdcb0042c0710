"""One method's share of the DNS for one message: a `Lookup` over a `Resolver`, with its own limits.

Answers are kept for as long as the method runs, so that a check that is run again sees what it saw before.
Running out of the share gives `Failed(LIMIT)`, which no check takes for DNS trouble.
"""

from __future__ import annotations

from collections.abc import Iterable

from authmilter.dns.answer import Answer, Failed, FailureKind, Question
from authmilter.ports import Missing, Resolver

__all__ = ["BudgetLookup"]

_OVER = Failed(FailureKind.LIMIT, "the method's share of DNS questions is spent")
_LATE = Failed(FailureKind.LIMIT, "the method's share of time is spent")


class BudgetLookup:
    """Implements `ports.Lookup`.

    Args:
        resolver: where answers at hand come from (`known` only; fetching is the engine's).
        questions: how many different questions the check may ask (1 or more).
        hints: how many further questions it may name ahead with `want` (0 or more).
    """

    __slots__ = (
        "_answers",
        "_asked",
        "_closed",
        "_hinted",
        "_hints",
        "_questions",
        "_resolver",
        "_waiting",
        "limited",
        "remembered",
    )

    def __init__(self, resolver: Resolver, *, questions: int, hints: int = 0) -> None:
        self._resolver = resolver
        self._questions = questions
        self._hints = hints
        self._answers: dict[Question, Answer] = {}
        self._asked: set[Question] = set()
        # what was named ahead, and whether its answer was at hand; and what of it nobody was told to fetch
        self._hinted: dict[Question, bool] = {}
        self._waiting: dict[Question, None] = {}
        self._closed = False
        #: how many of the questions asked were answered from memory
        self.remembered = 0
        #: True once a question was refused by this budget
        self.limited = False

    @property
    def asked(self) -> int:
        """How many different questions the check has asked so far (hints not counted)."""
        return len(self._asked)

    @property
    def exchanged(self) -> tuple[tuple[Question, Answer], ...]:
        """Every question answered so far, hints included, with its answer, in the order they came."""
        return tuple(self._answers.items())

    def ask(self, question: Question) -> Answer:
        """Return the answer, `Failed(LIMIT)` over budget; raise `Missing` if it is not at hand."""
        answer = self._admit(question)
        if answer is None:
            raise Missing((question, *self._take_hints(question)))
        return answer

    def ask_all(self, questions: Iterable[Question]) -> tuple[Answer, ...]:
        """Return the answers in order; raise `Missing` with all that are not at hand."""
        given: list[Answer] = []
        missing: dict[Question, None] = {}
        for question in questions:
            answer = self._admit(question)
            if answer is not None:
                given.append(answer)
            else:
                missing[question] = None
        if missing:
            raise Missing((*missing, *self._take_hints(*missing)))
        return tuple(given)

    def want(self, questions: Iterable[Question]) -> None:
        """Note questions to be fetched together with the next one that is missing."""
        for question in questions:
            if question in self._answers or question in self._hinted:
                continue
            if self._closed or len(self._hinted) >= self._hints:
                return
            answer = self._resolver.known(question)
            self._hinted[question] = answer is not None
            if answer is None:
                self._waiting[question] = None
            else:
                self._answers[question] = answer

    def peek(self, question: Question) -> Answer | None:
        """Return the answer to a question asked or wanted before, if it is at hand."""
        return self._answers.get(question)

    def give(self, question: Question, answer: Answer) -> None:
        """Hand in a fetched answer (first one wins: a check must not see an answer change)."""
        self._answers.setdefault(question, answer)

    def close(self) -> None:
        """Time is up: whatever is not at hand is `Failed(LIMIT)` from now on."""
        self._closed = True

    def _admit(self, question: Question) -> Answer | None:
        asked = self._asked
        if question not in asked:
            if len(asked) >= self._questions:
                self.limited = True
                return _OVER
            asked.add(question)
            if self._hinted and self._hinted.get(question):
                self.remembered += 1
        answer = self._answers.get(question)
        if answer is None:
            answer = self._resolver.known(question)
            if answer is not None:
                self.remembered += 1
                self._answers[question] = answer
            elif self._closed:
                self.limited = True
                answer = self._answers[question] = _LATE
        return answer

    def _take_hints(self, *but: Question) -> tuple[Question, ...]:
        answers = self._answers
        hints = tuple([q for q in self._waiting if q not in but and q not in answers])
        self._waiting.clear()
        return hints
