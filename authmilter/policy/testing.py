"""A policy's own tests: facts in, decision out, written in YAML beside the policy.

    facts: {client.ip: 192.0.2.1}         # what all cases share
    cases:
      - name: forged mail of a domain with p=reject is refused
        facts: {dmarc.status: fail, dmarc.policy: reject, message.author.domain: bank.example}
        expect: {disposition: reject, rule: dmarc-reject, reply: "550 5.7.26 Unauthenticated mail from bank.example *"}

What is not expected is not compared. A fact that is not given has no value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from authmilter import documents
from authmilter.documents import Data, Path
from authmilter.errors import ConfigError, PolicyError
from authmilter.policy import match
from authmilter.policy.decide import OnError, judge_facts
from authmilter.policy.facts import SCHEMA, Facts, Kind, value_of
from authmilter.policy.notes import Notes, items_of, near, shown
from authmilter.policy.rules import Policy
from authmilter.verdict import Decision, Disposition, OverrideReason, TagHeader

__all__ = ["Case", "Outcome", "cases", "run", "uncovered"]

#: Cases in a file.
MAX_CASES = 10_000

_FILE_KEYS = ("facts", "cases")
_CASE_KEYS = ("name", "facts", "on_error", "expect")
#: What may be expected, in the order in which it is compared.
_EXPECT_KEYS = (
    "disposition",
    "rule",
    "reply",
    "tags",
    "quarantine_reason",
    "override",
    "override_comment",
    "would_have",
    "ends_session",
    "because",
)
#: What every case has unless it says otherwise.
_BASE: dict[str, object] = {"origin": "internet", "mail.id": "TEST"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test: facts by name, the listener's `on_error`, and what is expected of the decision, as text.

    In `expect` a missing value is None; a text may hold `*`; a tuple is a whole list, each entry such a text.
    """

    name: str
    facts: dict[str, object]
    expect: dict[str, str | tuple[str, ...] | None]
    on_error: OnError = OnError.TEMPFAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a case: the `decision`, and the `problem` in words (empty: as expected)."""

    name: str
    problem: str
    decision: Decision


def run(policy: Policy, text: str, file: str) -> tuple[Outcome, ...]:
    """Run the cases in `text` (`file` is its name, for complaints) against `policy`.

    Raises:
        PolicyError: the file of cases has mistakes; lists all of them.
    """
    return tuple(_run(policy, case) for case in cases(text, file))


def uncovered(policy: Policy, outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """Return the ids of the rules that held in none of the cases, in order."""
    order = [rule.id for rule in policy.rules]
    left = dict.fromkeys(order)
    for decision in (outcome.decision for outcome in outcomes):
        if decision.rule == policy.default.id:
            looked_at = order
        elif decision.rule in order:
            looked_at = order[: order.index(decision.rule) + 1]
        else:
            # decided before the rules
            looked_at = []
        passed = {p.rule for p in decision.passed_over}
        for name in looked_at:
            if name not in passed:
                left.pop(name, None)
    return tuple(left)


def _run(policy: Policy, case: Case) -> Outcome:
    decision = judge_facts(Facts.from_mapping({**_BASE, **case.facts}), policy, case.on_error)
    found = _as_texts(decision)
    problems = [
        f"{key} is {_quoted(found[key])}, not {_quoted(case.expect[key])}"
        for key in _EXPECT_KEYS
        if key in case.expect and not _meets(found[key], case.expect[key])
    ]
    problem = "; ".join(problems)
    if problem and "rule" in case.expect and found["rule"] != case.expect["rule"]:
        wanted = [p for p in decision.passed_over if p.rule == case.expect["rule"]]
        problem += "".join(f"; that rule was passed over: {p.because}" for p in wanted)
    return Outcome(name=case.name, problem=problem, decision=decision)


def _as_texts(decision: Decision) -> dict[str, str | tuple[str, ...] | None]:
    return {
        "disposition": str(decision.disposition),
        "rule": decision.rule,
        "reply": None if decision.reply is None else str(decision.reply),
        "tags": tuple(
            f"{t.name}: {t.value}" if isinstance(t, TagHeader) else f"Subject: {t.prefix}"
            for t in decision.tags
        ),
        "quarantine_reason": decision.quarantine_reason or None,
        "override": None if decision.override is None else str(decision.override),
        "override_comment": decision.override_comment or None,
        "would_have": tuple(f"{w.disposition}:{w.rule}" for w in decision.would_have),
        "ends_session": "true" if decision.ends_session else "false",
        "because": decision.because,
    }


def _meets(found: str | tuple[str, ...] | None, wanted: str | tuple[str, ...] | None) -> bool:
    if isinstance(found, tuple) and isinstance(wanted, tuple):
        return len(found) == len(wanted) and all(map(_meets, found, wanted))
    if isinstance(found, str) and isinstance(wanted, str):
        return match.matcher(Kind.TEXT, [match.read(Kind.TEXT, wanted)])(found)
    return found is None and wanted is None


def _quoted(value: str | tuple[str, ...] | None) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    return "nothing" if value is None else f"`{value}`"


def cases(text: str, file: str) -> tuple[Case, ...]:
    """Read a file of cases.

    Raises:
        PolicyError: with every mistake in it.
    """
    try:
        document = documents.parse(text, file)
    except ConfigError as e:
        raise PolicyError(e.complaints) from None
    notes = Notes(document)
    found = _Cases(notes).read(document.data)
    if notes.complaints:
        raise PolicyError(notes.in_order())
    return found


class _Cases:
    """Reads one file of cases; every mistake is noted."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def read(self, data: Data) -> tuple[Case, ...]:
        if not isinstance(data, dict):
            self._notes.at((), f"tests of a policy are a mapping with `cases`, not {shown(data)}")
            return ()
        self._notes.keys(data, (), _FILE_KEYS, "key")
        shared = self._facts(data.get("facts"), ("facts",))
        listed = data.get("cases")
        if not isinstance(listed, list) or not listed or len(listed) > MAX_CASES:
            self._notes.at(("cases",), f"`cases` wants a list of 1 to {MAX_CASES} cases, not {shown(listed)}")
            return ()
        found = [self._case(item, ("cases", position), shared) for position, item in enumerate(listed)]
        return tuple(case for case in found if case is not None)

    def _case(self, data: Data, path: Path, shared: dict[str, object]) -> Case | None:
        if not isinstance(data, dict):
            self._notes.at(path, f"a case is a mapping, not {shown(data)}")
            return None
        self._notes.keys(data, path, _CASE_KEYS, "key of a case")
        name = data.get("name")
        if not isinstance(name, str) or not name.strip():
            self._notes.at((*path, "name"), "the case has no `name`", "say what it shows")
            name = ""
        facts = self._facts(data.get("facts"), (*path, "facts"))
        on_error = OnError.TEMPFAIL
        if "on_error" in data:
            on_error = (
                self._notes.word(OnError, data["on_error"], (*path, "on_error"), "`on_error`") or on_error
            )
        expect = self._expect(data.get("expect"), (*path, "expect"))
        return Case(name=name, facts={**shared, **facts}, expect=expect, on_error=on_error)

    def _facts(self, data: Data, path: Path) -> dict[str, object]:
        if data is None:
            return {}
        if not isinstance(data, dict):
            self._notes.at(path, f"`facts` wants a mapping, not {shown(data)}")
            return {}
        known = [name for name, fact in SCHEMA.items() if not fact.each]
        facts: dict[str, object] = {}
        for name, given in data.items():
            if name not in known:
                hint = "give `rcpt.addresses`" if name in SCHEMA else near(name, known)
                self._notes.at_key((*path, name), f"unknown fact {shown(name)}", hint)
                continue
            fact = SCHEMA[name]
            value = value_of(fact, given)
            if given is not None and value is None:
                hint = near(given, fact.words) if isinstance(given, str) and fact.words else ""
                self._notes.at((*path, name), f"`{name}` ({fact.type_text}) cannot be {shown(given)}", hint)
            facts[name] = value
        return facts

    def _expect(self, data: Data, path: Path) -> dict[str, str | tuple[str, ...] | None]:
        if not isinstance(data, dict) or not data:
            self._notes.at(
                path, f"`expect` wants a mapping, not {shown(data)}", "known: " + ", ".join(_EXPECT_KEYS)
            )
            return {}
        self._notes.keys(data, path, _EXPECT_KEYS, "expectation")
        return {key: self._expected(key, data[key], (*path, key)) for key in _EXPECT_KEYS if key in data}

    def _expected(self, key: str, data: Data, path: Path) -> str | tuple[str, ...] | None:
        kinds: dict[str, type[StrEnum]] = {"disposition": Disposition, "override": OverrideReason}
        if key in {"tags", "would_have"}:
            if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
                self._notes.at(path, f"`{key}` wants a list of texts, not {shown(data)}")
                return ()
            return tuple(self._pattern(str(item), where) for item, where in items_of(data, path))
        if key == "ends_session" and isinstance(data, bool):
            return "true" if data else "false"
        if data is None:
            return None
        if not isinstance(data, str):
            self._notes.at(path, f"`{key}` cannot be {shown(data)}")
            return None
        if key in kinds:
            return self._notes.word(kinds[key], data, path, f"`{key}`")
        return self._pattern(data, path)

    def _pattern(self, text: str, path: Path) -> str:
        try:
            match.read(Kind.TEXT, text)
        except ValueError as e:
            self._notes.at(path, *map(str, e.args))
        return text
