"""What a rule said of a document: one value for images, certificates and fetches, for programs and for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Finding", "first_failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one rule.

    `rule` is its machine word (lower case, `_`), `passed` whether it holds, `message` one sentence of our own (what a
    stranger wrote in it is printable ASCII and short), `line` the line of the document counted from 1 (0: unknown).
    An `advisory` one that does not hold is worth a look and fails nothing. `problem` is the machine word of what is
    wrong (empty where the rule holds); a rule that can be broken in several ways has several.
    """

    rule: str
    passed: bool
    message: str
    line: int = 0
    advisory: bool = False
    problem: str = ""


def first_failure(findings: Iterable[Finding]) -> Finding | None:
    """Return the first finding that fails its document, or None."""
    return next((f for f in findings if not f.passed and not f.advisory), None)
