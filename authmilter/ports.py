"""The only ways to the outside world, as protocols.

A check is given a `Lookup` and never waits: `ask` returns the answer if it is at hand, else raises `Missing`
with every question it could name, so that whoever runs the check can fetch them all at once and run it again.
A `Resolver` is what fetches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from authmilter.deadline import Deadline
    from authmilter.dns.answer import Answer, Question
    from authmilter.mail import Mail
    from authmilter.verdict import Verdict

__all__ = ["Journal", "Lookup", "Missing", "Resolver"]


class Missing(Exception):  # noqa: N818 - a control-flow signal, not an error
    """Raised out of a check by `Lookup.ask`: these questions have no answer at hand yet."""

    def __init__(self, questions: tuple[Question, ...]) -> None:
        super().__init__(questions)
        self.questions = questions


class Lookup(Protocol):
    """Answers for one method on one message, with its own limit on how many questions it may ask."""

    def ask(self, question: Question) -> Answer:
        """Return the answer to `question`; `Failed(LIMIT)` when the method's own budget is spent.

        Raises:
            Missing: the answer is not at hand; fetch it and run the check again.
        """

    def ask_all(self, questions: Iterable[Question]) -> tuple[Answer, ...]:
        """Return the answers in order.

        Raises:
            Missing: with all the questions that have no answer at hand, not only the first.
        """

    def want(self, questions: Iterable[Question]) -> None:
        """Name questions that will probably follow: they are fetched together with the next `Missing`.

        A hint: never raises, and counts neither as a term nor as a void lookup; a share of its own bounds it.
        """

    def peek(self, question: Question) -> Answer | None:
        """Return the answer to a question asked or wanted before, if it is at hand. Never counts, never raises."""


class Resolver(Protocol):
    """A source of answers. Implementations: the network, a cache around another, a zone file."""

    def known(self, question: Question) -> Answer | None:
        """Return the answer if it is at hand now, without waiting."""

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        """Return the answer, waiting until `deadline` at most; total: trouble is `Failed`."""


class Journal(Protocol):
    """Where verdicts and bugs are written down. Neither call may raise or wait."""

    def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:
        """Write the one line of a finished message."""

    def bug(self, where: str, error: BaseException) -> None:
        """Count an unforeseen exception and write its traceback."""
