"""One method's share of DNS: what it may ask, what it is told when that is spent, what it names ahead."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.deadline import Deadline
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, NoData, NxDomain, Question, RdType
from authmilter.dns.budget import BudgetLookup
from authmilter.dns.zone import ZoneResolver
from authmilter.ports import Missing


class Memory:
    """A resolver that has at hand what it was told."""

    def __init__(self, answers: dict[Question, Answer] | None = None) -> None:
        self.answers = answers or {}

    def known(self, question: Question) -> Answer | None:
        return self.answers.get(question)

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        raise AssertionError(f"a lookup fetches nothing: {question} {deadline}")


def q(name: str, rdtype: RdType = RdType.A) -> Question:
    return Question.of(f"{name}.example", rdtype)


A, B, C, D = q("a"), q("b"), q("c"), q("d")
X, Y = NxDomain(1.0), NoData(2.0)


def limited(answer: Answer) -> bool:
    return isinstance(answer, Failed) and answer.kind is FailureKind.LIMIT


def missing(lookup: BudgetLookup, *questions: Question) -> tuple[Question, ...]:
    with pytest.raises(Missing) as caught:
        lookup.ask_all(questions)
    return caught.value.questions


def test_what_is_at_hand_is_answered_and_counted() -> None:
    lookup = BudgetLookup(ZoneResolver({"a.example": {"A": ["192.0.2.1"]}}), questions=10)
    assert isinstance(lookup.ask(A), Found)
    assert isinstance(lookup.ask(A), Found)
    assert isinstance(lookup.ask(B), NxDomain)
    assert (lookup.asked, lookup.remembered, lookup.limited) == (2, 2, False)
    assert [question for question, _ in lookup.exchanged] == [A, B]


def test_what_is_not_at_hand_is_missing_until_it_is_given() -> None:
    lookup = BudgetLookup(Memory(), questions=10)
    with pytest.raises(Missing) as caught:
        lookup.ask(A)
    assert caught.value.questions == (A,)
    lookup.give(A, X)
    assert lookup.ask(A) is X
    assert (lookup.asked, lookup.remembered) == (1, 0)


def test_all_that_is_missing_is_named_once() -> None:
    lookup = BudgetLookup(Memory({B: Y}), questions=10)
    assert missing(lookup, A, B, C, A) == (A, C)
    lookup.give(A, X)
    lookup.give(C, X)
    assert lookup.ask_all((A, B, C, A)) == (X, Y, X, X)
    assert lookup.ask_all(()) == ()


def test_a_check_never_sees_an_answer_change() -> None:
    memory = Memory({A: X})
    lookup = BudgetLookup(memory, questions=10)
    assert lookup.ask(A) is X
    memory.answers[A] = Y
    lookup.give(A, Y)
    assert lookup.ask(A) is X
    memory.answers.clear()
    assert lookup.ask(A) is X


def test_over_the_number_of_questions_the_answer_is_our_limit() -> None:
    lookup = BudgetLookup(Memory({A: X, B: X, C: X}), questions=2)
    assert [lookup.ask(A), lookup.ask(B)] == [X, X]
    before = lookup.limited
    assert limited(lookup.ask(C))
    assert (before, lookup.limited) == (False, True)
    assert lookup.ask(A) is X, "what was asked before is still answered"
    assert lookup.asked == 2


def test_asking_again_costs_nothing() -> None:
    lookup = BudgetLookup(Memory({A: X}), questions=1)
    assert {lookup.ask(A) for _ in range(5)} == {X}
    assert not lookup.limited


def test_all_at_once_over_the_number_gives_limits_beside_answers() -> None:
    lookup = BudgetLookup(Memory({A: X, B: Y, C: X}), questions=2)
    answers = lookup.ask_all((A, B, C))
    assert answers[:2] == (X, Y)
    assert limited(answers[2])


def test_after_closing_what_is_not_at_hand_is_our_limit_and_stays_so() -> None:
    memory = Memory({A: X})
    lookup = BudgetLookup(memory, questions=10)
    lookup.close()
    assert lookup.ask(A) is X
    assert limited(lookup.ask(B))
    assert lookup.limited
    memory.answers[B] = Y
    lookup.give(B, Y)
    assert limited(lookup.ask(B)), "a check must not see an answer change"


def test_hints_are_fetched_with_the_next_missing_answer_and_only_once() -> None:
    lookup = BudgetLookup(Memory(), questions=10, hints=10)
    lookup.want((B, C))
    assert missing(lookup, A) == (A, B, C)
    lookup.want((B, C))
    assert missing(lookup, A) == (A,)


def test_hints_cost_no_question_until_they_are_asked() -> None:
    lookup = BudgetLookup(Memory(), questions=2, hints=10)
    lookup.want((B, C))
    assert missing(lookup, A) == (A, B, C)
    for question in (A, B, C):
        lookup.give(question, X)
    assert [lookup.ask(A), lookup.ask(B)] == [X, X]
    assert limited(lookup.ask(C))


def test_hints_have_a_share_of_their_own() -> None:
    lookup = BudgetLookup(Memory(), questions=10, hints=2)
    lookup.want(q(f"n{i}") for i in range(100))
    assert len(missing(lookup, A)) == 3
    lookup = BudgetLookup(Memory(), questions=10)
    lookup.want((B,))
    assert missing(lookup, A) == (A,)


def test_hints_that_are_at_hand_are_not_fetched_and_count_as_remembered_when_asked() -> None:
    lookup = BudgetLookup(Memory({B: X, C: X}), questions=10, hints=10)
    lookup.want((B, C, D))
    assert missing(lookup, A) == (A, D)
    assert lookup.remembered == 0
    assert lookup.ask(B) is X
    assert lookup.ask(B) is X
    assert lookup.remembered == 1
    assert lookup.peek(C) is X
    assert lookup.peek(D) is None


def test_a_hint_that_came_to_hand_meanwhile_is_not_fetched() -> None:
    memory = Memory()
    lookup = BudgetLookup(memory, questions=10, hints=10)
    lookup.want((B, C))
    memory.answers[B] = X
    assert lookup.ask(B) is X
    assert missing(lookup, A) == (A, C)


def test_a_hint_that_is_asked_is_named_once() -> None:
    lookup = BudgetLookup(Memory(), questions=10, hints=10)
    lookup.want((A, B))
    assert missing(lookup, A) == (A, B)


def test_nothing_is_hinted_after_closing() -> None:
    lookup = BudgetLookup(Memory({B: X}), questions=10, hints=10)
    lookup.close()
    lookup.want((B,))
    assert lookup.exchanged == ()


@settings(max_examples=200)
@given(
    st.integers(1, 4),
    st.integers(0, 3),
    st.lists(st.tuples(st.sampled_from(["ask", "want", "give", "close"]), st.integers(0, 7)), max_size=30),
)
def test_whatever_a_check_does_it_stays_within_its_share(
    questions: int, hints: int, steps: list[tuple[str, int]]
) -> None:
    lookup = BudgetLookup(Memory({q("n0"): X}), questions=questions, hints=hints)
    named: set[Question] = set()
    seen: dict[Question, Answer] = {}
    for step, number in steps:
        question = q(f"n{number}")
        if step == "want":
            lookup.want((question,))
        elif step == "give":
            lookup.give(question, Y)
        elif step == "close":
            lookup.close()
        else:
            try:
                answer = lookup.ask(question)
            except Missing as e:
                named |= set(e.questions)
            else:
                assert seen.setdefault(question, answer) == answer
    assert lookup.asked <= questions
    assert len(named) <= questions + hints
