"""What was found before, by the answers that led to it: a tree of questions about a message.

Going through the rules is a pure function of the answers to the questions they ask, and after the same answers it asks
the same next question. So the way of one message is kept: each fork is a question, its branches are the answers seen,
and at the end stands what the rules came to. The next message of the same answers goes straight there: instead of
the shipped policies' twenty rules it meets five questions or so.

A question is not the value of a fact but what the rules can tell of it (`Question`): of a closed list (words, truth
values) the word itself, of everything else which of the policy's tests on it are met. So a stranger's names and
numbers are no keys of the tree, and what it can hold is bounded by the policy, not by what comes in. Where that is still
much (many lists, many rules), `MAX_KEPT` bounds it: then all is forgotten and begun anew.

Promises: `find` answers with what `add` was given for a message of the same answers, or with None. Threads may share
a tree: what two of them add at once is kept or lost, never mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from authmilter.evidence import Evidence
from authmilter.mail import Mail
from authmilter.policy.facts import SCHEMA, Facts, Value
from authmilter.policy.match import Index, Matches

__all__ = ["MANY_TESTS", "MAX_KEPT", "Answer", "Question", "Tree"]

#: What a tree keeps at most, in parts of about eight octets.
MAX_KEPT = 1_000_000
#: Parts that a question on the way counts for.
_FORK = 50

#: With so many tests on one fact they are looked up together.
MANY_TESTS = 4

#: What the rules can tell of a fact's value; None: it has none.
Answer = Hashable

T = TypeVar("T")


class Question:
    """What the rules of one policy can tell of the fact `name`.

    `tests`: all that they want to know of it, where its values are no closed list.
    """

    __slots__ = ("_tests", "name", "reads")

    def __init__(self, name: str, tests: Sequence[Matches] | None) -> None:
        self.name = name
        self._tests = tuple(tests or ())
        #: Makes a value (not None) an answer; None where the value is one.
        self.reads: Callable[[Value], Answer] | None = None
        if tests is None:
            return
        if len(self._tests) == 1:
            self.reads = self._tests[0]
        else:
            self.reads = self._all if len(self._tests) < MANY_TESTS else Index(self._tests).met

    def answer(self, value: Value | None) -> Answer:
        """Return what the rules can tell of `value`."""
        return value if value is None or self.reads is None else self.reads(value)

    def _all(self, value: Value) -> Answer:
        return tuple([test(value) for test in self._tests])


class _Place(Generic[T]):
    """A place on the way: a question and what follows from each answer, or the end (no question) and what was found.

    `ask` gives the answer of a mail of which no fact is given.
    """

    __slots__ = ("ask", "branches", "found", "question")

    def __init__(self, question: Question | None, found: T | None = None) -> None:
        self.question = question
        self.ask = None if question is None else _asking(question)
        self.branches: dict[Answer, _Place[T]] = {}
        self.found = found


def _asking(question: Question) -> Callable[[Mail, Evidence], Answer]:
    source, reads = SCHEMA[question.name].source, question.reads
    if reads is None:
        return source

    def ask(mail: Mail, evidence: Evidence) -> Answer:
        value = source(mail, evidence)
        return None if value is None else reads(value)

    return ask


class Tree(Generic[T]):
    """What was found before. `questions`: those that can be asked, by the names of their facts; `most`: parts kept."""

    __slots__ = ("_kept", "_most", "_nowhere", "_questions", "_start")

    def __init__(self, questions: Mapping[str, Question], most: int = MAX_KEPT) -> None:
        self._questions = questions
        self._most = most
        # under None the first place
        self._start: dict[Answer, _Place[T]] = {}
        self._nowhere: _Place[T] = _Place(None)
        self._kept = 0

    @property
    def parts(self) -> int:
        """How much is kept."""
        return self._kept

    def find(self, facts: Facts) -> T | None:
        """Return what was found for a message of the same answers; None where there was none yet."""
        whole = facts.whole
        if whole is not None:
            return self.find_of(*whole)
        place = self._start.get(None, self._nowhere)
        while (question := place.question) is not None:
            place = place.branches.get(question.answer(facts.get(question.name)), self._nowhere)
        return place.found

    def find_of(self, mail: Mail, evidence: Evidence) -> T | None:
        """Do the same for a mail of which no fact is given, and keep no values: on this way no question comes twice."""
        nowhere = self._nowhere
        place = self._start.get(None, nowhere)
        while (ask := place.ask) is not None:
            place = place.branches.get(ask(mail, evidence), nowhere)
        return place.found

    def add(self, asked: Mapping[str, Value | None], found: T, weight: int) -> None:
        """Keep what was found after these facts were asked for, in their order; `weight` is what it holds, in parts."""
        weight += _FORK * len(asked)
        if self._kept + weight > self._most:
            self._start, self._kept = {}, 0
            if weight > self._most:
                return
        branches = self._start
        answer: Answer = None
        for name, value in asked.items():
            question = self._questions[name]
            place = branches.get(answer)
            if place is None or place.question is None:
                place = branches[answer] = _Place(question)
            branches, answer = place.branches, question.answer(value)
            if isinstance(answer, tuple):
                weight += len(answer)
        branches[answer] = _Place(None, found)
        self._kept += weight
