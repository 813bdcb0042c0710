"""A policy as a value: rules in order, each with its conditions, its action and its tags; all frozen.

The loader is the only one that makes these; `decide` reads them, `lint` looks for what cannot be meant.
A condition is total: on a missing value it is false, and `not` turns that around.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from authmilter.errors import Complaint, Span
from authmilter.policy.exceptions import ForwarderException
from authmilter.policy.facts import SCHEMA, Facts, Kind
from authmilter.policy.match import Matches, Range
from authmilter.policy.template import Template
from authmilter.policy.tree import Question, Tree
from authmilter.verdict import Decision, Disposition, OverrideReason, PassedOver

__all__ = [
    "DEFAULT_ID",
    "ERROR_HEADER",
    "ON_ERROR_ID",
    "QUARANTINE_HEADER",
    "RESERVED_IDS",
    "Action",
    "ActionKind",
    "AllOf",
    "AnyOf",
    "Condition",
    "Course",
    "HeaderTag",
    "Leaf",
    "Mode",
    "NamedList",
    "Not",
    "OnMixed",
    "Policy",
    "PrefixTag",
    "QuarantineBy",
    "ReplySpec",
    "Rule",
    "TagSpec",
    "asks",
]


#: The name under which the default decides.
DEFAULT_ID = "default"
#: The name under which `on_error` decides.
ON_ERROR_ID = "on_error"
#: Ids that a policy's rules may not have.
RESERVED_IDS = frozenset({DEFAULT_ID, ON_ERROR_ID})
#: The field that marks a message accepted although a check failed inside authmilter.
ERROR_HEADER = "X-Authmilter-Error"
#: The field that marks a message quarantined by header, where a rule names no other.
QUARANTINE_HEADER = "X-Authmilter-Quarantine"


class Mode(StrEnum):
    """Whether what is decided is done."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class OnMixed(StrEnum):
    """Which answer counts where recipients would be judged differently (one reply answers all of them)."""

    LEAST_SEVERE = "least-severe"
    MOST_SEVERE = "most-severe"


class QuarantineBy(StrEnum):
    """How a message is set apart: the MTA holds it, or it is delivered with a header field that says so."""

    HOLD = "hold"
    HEADER = "header"


class ActionKind(StrEnum):
    """What a rule does."""

    ACCEPT = "accept"
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    QUARANTINE = "quarantine"
    DISCARD = "discard"
    CONTINUE = "continue"

    @property
    def disposition(self) -> Disposition | None:
        """The disposition that a message gets by this; None for `continue`."""
        return None if self is ActionKind.CONTINUE else Disposition(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One fact and what is wanted of it.

    `text` says it in words; `if_missing` is the answer where the fact has no value; `shows` tells whether its value
    may be named in a reason (words of our own only). For lint: `allowed` are the words (or `true`, `false`) that
    meet it, `interval` the numbers, `elements` the texts wanted, where it is as simple as that.
    """

    fact: str
    text: str
    matches: Matches = field(compare=False)
    span: Span = field(compare=False)
    if_missing: bool = False
    shows: bool = False
    proof: bool = False
    claim: bool = False
    allowed: frozenset[str] | None = None
    interval: Range | None = None
    elements: frozenset[str] | None = None

    def holds(self, facts: Facts) -> bool:
        """True if the fact is as wanted. Total."""
        value = facts.get(self.fact)
        return self.if_missing if value is None else self.matches(value)

    def why_not(self, facts: Facts) -> str:
        """Return why it does not hold, in our own words."""
        value = facts.get(self.fact)
        if value is None:
            return f"{self.fact} has no value"
        if not self.shows:
            return f"not: {self.text}"
        if isinstance(value, bool):
            return f"{self.fact} is {'true' if value else 'false'}"
        return f"{self.fact} is {value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllOf:
    """Every part holds (true for no parts)."""

    parts: tuple[Condition, ...]
    text: str

    def holds(self, facts: Facts) -> bool:
        """True if every part holds."""
        return all(part.holds(facts) for part in self.parts)

    def why_not(self, facts: Facts) -> str:
        """Return why the first part that does not hold does not."""
        for part in self.parts:
            if not part.holds(facts):
                return part.why_not(facts)
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Condition, ...]
    text: str

    def holds(self, facts: Facts) -> bool:
        """True if a part holds."""
        return any(part.holds(facts) for part in self.parts)

    def why_not(self, _facts: Facts) -> str:
        """Return that none of them holds."""
        return f"not: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """The part does not hold."""

    part: Condition
    text: str

    def holds(self, facts: Facts) -> bool:
        """True if the part does not hold."""
        return not self.part.holds(facts)

    def why_not(self, _facts: Facts) -> str:
        """Return that the part holds."""
        return f"it holds that {self.part.text}"


Condition = Leaf | AllOf | AnyOf | Not


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplySpec:
    """A reply: `code`, `enhanced` (None: 5.7.26 where neither SPF nor DKIM passed, else 5.7.1), and `text`."""

    code: int
    enhanced: str | None
    text: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a rule does; `reply` for reject and tempfail, `by`, `header` and `value` for quarantine."""

    kind: ActionKind
    reply: ReplySpec | None = None
    by: QuarantineBy = QuarantineBy.HOLD
    header: str = ""
    value: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderTag:
    """Add a header field."""

    name: str
    value: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixTag:
    """Put a prefix before the Subject."""

    prefix: str


TagSpec = HeaderTag | PrefixTag


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: all of `conditions` hold, so `action` is done. `span` is where its id stands."""

    id: str
    conditions: tuple[Condition, ...]
    action: Action
    because: str
    tags: tuple[TagSpec, ...] = ()
    override: OverrideReason | None = None
    mode: Mode = Mode.ENFORCE
    span: Span = Span(file="")


def asks(conditions: tuple[Condition, ...], prefix: str) -> bool:
    """True if one of the conditions is about a fact whose name begins with `prefix`."""
    for part in conditions:
        if isinstance(part, Leaf):
            if part.fact.startswith(prefix):
                return True
        elif asks((part.part,) if isinstance(part, Not) else part.parts, prefix):
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """What the rules come to for a message, or for one of its recipients, before a text is written.

    `decided` decides; `held` are the rules before it that hold and go on, or that monitor mode holds back;
    `passed_over` are those that do not hold. In `numbers`, by place in `passed_over`, are those whose reason names a
    number of the message. `override` is what the last of the rules says that names one, `spared_by`.

    `decision` is what it comes to where that is the same for every message of this course (None: for some it differs, or
    it is for one recipient).
    """

    decided: Rule
    held: tuple[Rule, ...]
    passed_over: tuple[PassedOver, ...]
    numbers: tuple[tuple[int, Rule, Condition], ...]
    override: OverrideReason | None
    spared_by: Rule | None
    decision: Decision | None = None


#: The facts that say whether a DMARC policy was spared; all closed lists.
OVERRIDE_FACTS = ("dmarc.status", "dmarc.policy", "dmarc.published", "dmarc.testing")


def _questions(rules: tuple[Rule, ...]) -> dict[str, Question]:
    """Return what the rules ask of each fact."""
    tests: dict[str, dict[int, Matches]] = {name: {} for name in OVERRIDE_FACTS}
    for rule in rules:
        _gather(rule.conditions, tests)
    return {
        name: Question(name, None if _is_closed(name) else tuple(found.values()))
        for name, found in tests.items()
    }


def _gather(conditions: tuple[Condition, ...], tests: dict[str, dict[int, Matches]]) -> None:
    """Add the tests of each fact to `tests`, each once: rules that name one list share its matcher."""
    for part in conditions:
        if isinstance(part, Leaf):
            tests.setdefault(part.fact, {})[id(part.matches)] = part.matches
        else:
            _gather((part.part,) if isinstance(part, Not) else part.parts, tests)


def _is_closed(name: str) -> bool:
    """True if the values of the fact are one word of a closed list, so that reasons may name them."""
    fact = SCHEMA[name]
    return fact.kind in {Kind.WORD, Kind.BOOL} and not fact.many


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedList:
    """A list as the policy names it: how many entries, and whether a rule uses it."""

    name: str
    entries: int
    used: bool
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy, checked.

    `reads`: the methods whose results its rules ask about. `recipient_key`: `address` or `domain` where rules ask
    about single recipients, else ``. `tag_names`: lower-case names of all header fields it may add, so that
    forged ones can be removed from what comes in. `digest`: 16 hexadecimal digits over its text and lists.
    """

    name: str
    rules: tuple[Rule, ...]
    default: Rule
    mode: Mode = Mode.ENFORCE
    on_mixed: OnMixed = OnMixed.LEAST_SEVERE
    quarantine_by: QuarantineBy = QuarantineBy.HOLD
    would_have_header: str = ""
    lists: tuple[NamedList, ...] = ()
    exceptions: tuple[ForwarderException, ...] = ()
    reads: frozenset[str] = frozenset()
    recipient_key: str = ""
    tag_names: frozenset[str] = frozenset()
    warnings: tuple[Complaint, ...] = ()
    digest: str = ""
    # What the rules came to before; it follows from the rules, so no copy of a policy has it and none is unequal by it.
    courses: Tree[Course] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "courses", Tree(_questions(self.rules)))
