"""Conditions of rules: from plain data to `Condition`, every mistake with its place.

A condition is a mapping: of facts to what is wanted of them, and `all`, `any`, `not` of further conditions; all
of its entries must hold. What is wanted is a value, a list of values, or operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from authmilter.documents import Data, Path
from authmilter.policy import match
from authmilter.policy.facts import SCHEMA, Fact, Kind, Standing
from authmilter.policy.lists import Lists
from authmilter.policy.match import Matches, Range
from authmilter.policy.notes import Notes, items_of, near, shown
from authmilter.policy.rules import AllOf, AnyOf, Condition, Leaf, Not

__all__ = ["OPERATORS", "Conditions", "list_operators", "text_of"]


@dataclass(frozen=True, slots=True)
class _Test:
    """What is wanted of one fact, while it is put together; `phrase` goes after the fact's name."""

    matches: Matches
    phrase: str
    if_missing: bool = False
    allowed: frozenset[str] | None = None
    interval: Range | None = None
    elements: frozenset[str] | None = None


#: The operators that go with each kind of single value.
OPERATORS: dict[Kind, tuple[str, ...]] = {
    Kind.WORD: ("not", "present"),
    Kind.BOOL: ("present",),
    Kind.INT: ("above", "at_least", "below", "at_most", "not", "present"),
    Kind.DOMAIN: ("at_or_below", "in_list", "not_in_list", "not", "present"),
    Kind.IP: ("in_list", "not_in_list", "not", "present"),
    Kind.TEXT: ("in_list", "not_in_list", "not", "present"),
}

#: The operators that go with a list.
LIST_OPERATORS = ("any", "all", "none", "in_list", "at_or_below", "count", "present")
_ALL_OPERATORS = frozenset(LIST_OPERATORS).union(*OPERATORS.values())

_KIND_TEXT = {
    Kind.WORD: "a word",
    Kind.BOOL: "true or false",
    Kind.INT: "a number",
    Kind.DOMAIN: "a domain",
    Kind.IP: "an IP address",
    Kind.TEXT: "a text",
}


class Conditions:
    """Reads the conditions of one policy; `methods` and `recipient_facts` gather what they ask about."""

    def __init__(self, notes: Notes, lists: Lists) -> None:
        self._notes = notes
        self._lists = lists
        self.methods: set[str] = set()
        self.recipient_facts: set[str] = set()

    def when(self, data: Data, path: Path) -> tuple[Condition, ...] | None:
        """Read the conditions at `path`, all of which must hold (none: always); None after a complaint."""
        if data == "always":
            return ()
        return self._conjunction(data, path)

    def _conjunction(self, data: Data, path: Path) -> tuple[Condition, ...] | None:
        """Read a mapping of facts, `all`, `any` and `not`; None where there is a mistake in it."""
        if not isinstance(data, dict):
            hint = "did you mean `always`?" if isinstance(data, str) else "for every message: `when: always`"
            self._notes.at(path, f"conditions are a mapping of facts, not {shown(data)}", hint)
            return None
        if not data:
            self._notes.at(path, "there is no condition", "for every message: `when: always`")
            return None
        parts: list[Condition] = []
        good = True
        for key, value in data.items():
            where: Path = (*path, key)
            found: tuple[Condition, ...] | None
            if key in {"all", "any"}:
                found = self._several(key, value, where)
            elif key == "not":
                inner = self._conjunction(value, where)
                found = None if inner is None else (Not(part=_one_of(inner), text=f"not ({text_of(inner)})"),)
            else:
                leaf = self._leaf(key, value, where)
                found = None if leaf is None else (leaf,)
            if found is None:
                good = False
            else:
                parts.extend(found)
        return tuple(parts) if good else None

    def _several(self, key: str, data: Data, path: Path) -> tuple[Condition, ...] | None:
        if not isinstance(data, list) or not data:
            self._notes.at(path, f"`{key}` wants a list of conditions, not {shown(data)}")
            return None
        groups = [self._conjunction(item, (*path, position)) for position, item in enumerate(data)]
        whole = [group for group in groups if group is not None]
        if len(whole) != len(groups):
            return None
        if key == "all":
            return tuple(part for group in whole for part in group)
        return (
            AnyOf(
                parts=tuple(_one_of(g) for g in whole),
                text="(" + " or ".join(text_of(g) for g in whole) + ")",
            ),
        )

    def _leaf(self, name: str, data: Data, path: Path) -> Leaf | None:
        fact = SCHEMA.get(name)
        if fact is None:
            known = [*SCHEMA, "all", "any", "not"]
            self._notes.at_key(path, f"unknown fact {shown(name)}", near(name, known))
            return None
        if fact.method:
            self.methods.add(fact.method)
        if fact.each:
            self.recipient_facts.add(name)
        test = self._list_test(fact, data, path) if fact.many else self._test(fact, data, path)
        if test is None:
            return None
        return Leaf(
            fact=name,
            text=f"{name} {test.phrase}",
            matches=test.matches,
            span=self._notes.document.key_span(path),
            if_missing=test.if_missing,
            shows=fact.kind in {Kind.WORD, Kind.BOOL, Kind.INT} and not fact.many,
            proof=_proves(fact, test),
            claim=fact.standing is Standing.CLAIM,
            allowed=test.allowed,
            interval=test.interval,
            elements=test.elements,
        )

    def _list_test(self, fact: Fact, data: Data, path: Path) -> _Test | None:
        """Read what is wanted of a list fact: a value means that one of the list's is it."""
        one = replace(fact, many=False)
        if not isinstance(data, dict):
            test = self._test(one, data, path)
            return None if test is None else _any(test)
        tests: list[_Test | None] = []
        for op, wanted in data.items():
            where: Path = (*path, op)
            if op in {"any", "all", "none"}:
                inner = self._test(one, wanted, where)
                tests.append(None if inner is None else {"any": _any, "all": _all, "none": _none}[op](inner))
            elif op in {"in_list", "at_or_below"} and op in OPERATORS[fact.kind]:
                inner = self._test(one, {op: wanted}, path)
                tests.append(None if inner is None else _any(inner))
            elif op == "count":
                inner = self._test(SCHEMA["rcpt.count"], wanted, where)
                tests.append(None if inner is None else _count(inner))
            elif op == "present":
                tests.append(self._present(wanted, where, many=True))
            else:
                message = (
                    f"unknown operator {shown(op)}"
                    if op not in _ALL_OPERATORS
                    else f"`{op}` does not go with a list of {fact.kind}s"
                )
                self._notes.at_key(where, message, near(op, list_operators(fact)))
                tests.append(None)
        return self._joined(tests, path)

    def _test(self, fact: Fact, data: Data, path: Path) -> _Test | None:
        """Read what is wanted of a single value."""
        if not isinstance(data, dict):
            return self._values(fact, data, path)
        tests: list[_Test | None] = []
        operators = OPERATORS[fact.kind]
        for op, wanted in data.items():
            where: Path = (*path, op)
            if op not in operators:
                if op in _ALL_OPERATORS:
                    message = f"`{op}` does not go with `{fact.name}`, {_KIND_TEXT[fact.kind]}"
                    self._notes.at_key(where, message, "known: " + ", ".join(operators))
                else:
                    self._notes.at_key(where, f"unknown operator {shown(op)}", near(op, operators))
                tests.append(None)
            elif op == "present":
                tests.append(self._present(wanted, where, many=False))
            elif op == "not":
                inner = self._values(fact, wanted, where)
                tests.append(None if inner is None else _not(inner, fact))
            elif op in {"in_list", "not_in_list"}:
                tests.append(self._in_list(fact, wanted, where, negated=op == "not_in_list"))
            elif op == "at_or_below":
                tests.append(self._at_or_below(wanted, where))
            else:
                tests.append(self._compare(op, wanted, where))
        return self._joined(tests, path)

    def _joined(self, tests: list[_Test | None], path: Path) -> _Test | None:
        if not tests:
            self._notes.at(path, "nothing is wanted of the fact")
            return None
        whole = [test for test in tests if test is not None]
        if len(whole) != len(tests):
            return None
        return whole[0] if len(whole) == 1 else _both(whole)

    def _values(self, fact: Fact, data: Data, path: Path) -> _Test | None:
        if data == []:
            self._notes.at(path, "an empty list: the condition could never hold")
            return None
        items = items_of(data, path)
        if fact.kind is Kind.BOOL:
            return self._bool(fact, data, path)
        if fact.kind is Kind.INT:
            return self._ints(fact, items)
        entries: list[match.Entry] = []
        for item, where in items:
            if not isinstance(item, str):
                hint = (
                    "put it in quotes"
                    if fact.kind is Kind.TEXT and isinstance(item, bool | int | float)
                    else ""
                )
                if item is None and "none" in fact.words:
                    hint = "did you mean `none`?"
                self._notes.at(where, f"`{fact.name}` wants {_a(fact)}, not {shown(item)}", hint)
            elif fact.kind is Kind.WORD:
                if item in fact.words:
                    entries.append(item)
                else:
                    self._notes.at(where, f"`{fact.name}` cannot be {shown(item)}", near(item, fact.words))
            else:
                try:
                    entries.append(match.read(fact.kind, item))
                except ValueError as e:
                    self._notes.at(where, *map(str, e.args))
        if len(entries) != len(items):
            return None
        elements = frozenset(map(str, entries))
        phrase = _is([str(item) for item, _ in items])
        if fact.kind is Kind.WORD:
            return _Test(elements.__contains__, phrase, allowed=elements)
        return _Test(match.matcher(fact.kind, entries), phrase, elements=elements)

    def _bool(self, fact: Fact, data: Data, path: Path) -> _Test | None:
        if not isinstance(data, bool):
            meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(str(data).lower())
            self._notes.at(
                path,
                f"`{fact.name}` wants true or false, not {shown(data)}",
                f"did you mean `{meant}`?" if meant else "",
            )
            return None
        word = "true" if data else "false"
        return _Test(
            (lambda value: value is True) if data else (lambda value: value is False),
            f"is {word}",
            allowed=frozenset({word}),
        )

    def _ints(self, fact: Fact, items: list[tuple[Data, Path]]) -> _Test | None:
        numbers: list[int] = []
        good = True
        for item, where in items:
            if isinstance(item, bool) or not isinstance(item, int):
                self._notes.at(where, f"`{fact.name}` wants a number, not {shown(item)}")
                good = False
            else:
                numbers.append(item)
        if not good:
            return None
        interval = Range(numbers[0], numbers[0]) if len(numbers) == 1 else None
        return _Test(frozenset(numbers).__contains__, _is([str(n) for n in numbers]), interval=interval)

    def _compare(self, op: str, data: Data, path: Path) -> _Test | None:
        if isinstance(data, bool) or not isinstance(data, int):
            self._notes.at(path, f"`{op}` wants a number, not {shown(data)}")
            return None
        interval = {
            "above": Range(low=data + 1),
            "at_least": Range(low=data),
            "below": Range(high=data - 1),
            "at_most": Range(high=data),
        }[op]
        return _Test(interval.matches, f"is {op.replace('_', ' ')} {data}", interval=interval)

    def _present(self, data: Data, path: Path, *, many: bool) -> _Test | None:
        if not isinstance(data, bool):
            self._notes.at(path, f"`present` wants true or false, not {shown(data)}")
            return None
        phrase = "has a value" if data else "has no value"
        # An empty list has no value in it; whatever else is there is a value.
        wanted = data
        return _Test(lambda value: (value != () if many else True) == wanted, phrase, if_missing=not data)

    def _at_or_below(self, data: Data, path: Path) -> _Test | None:
        items = items_of(data, path) if data != [] else [(data, path)]
        names: list[str] = []
        for item, where in items:
            if not isinstance(item, str):
                self._notes.at(where, f"`at_or_below` wants a domain, not {shown(item)}")
                continue
            try:
                name = match.domain_pattern(item)
            except ValueError as e:
                self._notes.at(where, str(e.args[0]))
                continue
            if "*" in name:
                self._notes.at(where, f"`at_or_below` wants a domain, not the pattern {shown(item)}")
                continue
            names.append(name)
        if len(names) != len(items):
            return None
        phrase = f"is at or below {_or(names)}"
        elements = frozenset(f"at or below {n}" for n in names)
        return _Test(match.AtOrBelow(frozenset(names)), phrase, elements=elements)

    def _in_list(self, fact: Fact, data: Data, path: Path, *, negated: bool) -> _Test | None:
        matches = self._lists.matcher(data, fact.kind, path)
        if matches is None:
            return None
        if negated:
            return _Test(lambda value: not matches(value), f"is not in list {data}")
        return _Test(matches, f"is in list {data}", elements=frozenset({f"list {data}"}))


def list_operators(fact: Fact) -> tuple[str, ...]:
    """Return the operators that go with a list of this kind."""
    single = {"in_list", "at_or_below"}
    return tuple(op for op in LIST_OPERATORS if op not in single or op in OPERATORS[fact.kind])


def _a(fact: Fact) -> str:
    return fact.type_text if fact.kind in {Kind.BOOL, Kind.WORD} else _KIND_TEXT[fact.kind]


#: Values that a reason names.
_LISTED = 6


def _or(texts: Sequence[str]) -> str:
    if len(texts) > _LISTED:
        return ", ".join(texts[:_LISTED]) + f" or {len(texts) - _LISTED} more"
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " or " + texts[-1]


def _is(texts: Sequence[str]) -> str:
    return f"is {_or(texts)}"


def text_of(conditions: tuple[Condition, ...]) -> str:
    """Return conditions in words."""
    return " and ".join(c.text for c in conditions)


def _one_of(group: tuple[Condition, ...]) -> Condition:
    return group[0] if len(group) == 1 else AllOf(parts=group, text=text_of(group))


def _proves(fact: Fact, test: _Test) -> bool:
    """True if a sender cannot meet the test as they like."""
    if fact.standing is not Standing.PROOF or test.if_missing:
        return False
    if fact.name == "origin":
        return test.allowed is not None and "internet" not in test.allowed
    if test.allowed is not None:
        return test.allowed in ({"pass"}, {"true"})
    return test.elements is not None


# -- tests made of tests -----------------------------------------------------------------------------------------------


def _any(test: _Test) -> _Test:
    return _Test(match.Any(test.matches), f"(any) {test.phrase}", elements=_wanted(test))


def _all(test: _Test) -> _Test:
    one = test.matches

    # Nothing is shown by a list with nothing in it.
    def matches(value: object) -> bool:
        return isinstance(value, tuple) and bool(value) and all(map(one, value))

    return _Test(matches, f"(each) {test.phrase}")


def _none(test: _Test) -> _Test:
    def matches(value: object) -> bool:
        return isinstance(value, tuple) and not any(map(test.matches, value))

    return _Test(matches, f"(none) {test.phrase}")


def _count(test: _Test) -> _Test:
    def matches(value: object) -> bool:
        return isinstance(value, tuple) and test.matches(len(value))

    return _Test(matches, f"(count) {test.phrase}")


def _not(test: _Test, fact: Fact) -> _Test:
    wanted = test.matches
    allowed = (
        frozenset(fact.words) - test.allowed if test.allowed is not None and fact.kind is Kind.WORD else None
    )
    return _Test(
        lambda value: not wanted(value), "is not " + test.phrase.removeprefix("is "), allowed=allowed
    )


def _both(tests: list[_Test]) -> _Test:
    parts = tuple(test.matches for test in tests)
    allowed: frozenset[str] | None = None
    interval: Range | None = None
    for test in tests:
        if test.allowed is not None:
            allowed = test.allowed if allowed is None else allowed & test.allowed
        if test.interval is not None:
            interval = test.interval if interval is None else interval.meet(test.interval)
    return _Test(
        lambda value: all(part(value) for part in parts),
        " and ".join(test.phrase for test in tests),
        if_missing=all(test.if_missing for test in tests),
        allowed=allowed,
        interval=interval,
    )


def _wanted(test: _Test) -> frozenset[str] | None:
    return test.elements if test.elements is not None else test.allowed
