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


class _Fork(Generic[T]):
    """A question, and what follows from each answer."""

    __slots__ = ("branches", "name", "reads", "source")

    def __init__(self, question: Question) -> None:
        self.name = question.name
        self.source = SCHEMA[question.name].source
        self.reads = question.reads
        self.branches: dict[Answer, _Fork[T] | T] = {}


class Tree(Generic[T]):
    """What was found before. `questions`: those that can be asked, by the names of their facts; `most`: parts kept."""

    __slots__ = ("_kept", "_most", "_questions", "_start")

    def __init__(self, questions: Mapping[str, Question], most: int = MAX_KEPT) -> None:
        self._questions = questions
        self._most = most
        # under None the first fork, or what was found where nothing is asked
        self._start: dict[Answer, _Fork[T] | T] = {}
        self._kept = 0

    @property
    def parts(self) -> int:
        """How much is kept."""
        return self._kept

    def find(self, facts: Facts) -> T | None:
        """Return what was found for a message of the same answers; None where there was none yet."""
        node = self._start.get(None)
        whole = facts.whole
        if whole is None:
            get = facts.get
            while isinstance(node, _Fork):
                value = get(node.name)
                reads = node.reads
                node = node.branches.get(value if value is None or reads is None else reads(value))
            return node
        # Of a mail that no fact was given of, without keeping the values: on this way no question comes twice.
        mail, evidence = whole
        while isinstance(node, _Fork):
            value = node.source(mail, evidence)
            reads = node.reads
            node = node.branches.get(value if value is None or reads is None else reads(value))
        return node

    def add(self, asked: Mapping[str, Value | None], found: T, weight: int) -> None:
        """Keep what was found after these facts were asked for, in their order; `weight` is what it holds, in parts."""
        weight += _FORK * len(asked)
        if self._kept + weight > self._most:
            self._start, self._kept = {}, 0
            if weight > self._most:
                return
        branches: dict[Answer, _Fork[T] | T] = self._start
        answer: Answer = None
        for name, value in asked.items():
            question = self._questions[name]
            fork = branches.get(answer)
            if not isinstance(fork, _Fork):
                fork = branches[answer] = _Fork(question)
            branches, answer = fork.branches, question.answer(value)
            if isinstance(answer, tuple):
                weight += len(answer)
        branches[answer] = found
        self._kept += weight
