"""The manual's table of facts, made of the schema.

`python -m authmilter.policy.reference < docs/policy-language.md` writes the manual with the table as it is now.
"""

from __future__ import annotations

import sys

from authmilter.policy.facts import SCHEMA

__all__ = ["facts_table", "updated"]

_BEGIN = "<!-- facts: made by authmilter/policy/reference.py, do not edit -->"
_END = "<!-- end of facts -->"


def facts_table() -> str:
    """Return all facts as a Markdown table."""
    rows = ["| fact | type | meaning |", "|---|---|---|"]
    rows += [f"| `{fact.name}` | {fact.type_text} | {fact.doc} |" for fact in SCHEMA.values()]
    return "\n".join(rows) + "\n"


def updated(manual: str) -> str:
    """Return the manual's text with the table between its two marks as it is now.

    Raises:
        ValueError: a mark is missing.
    """
    head, begin, rest = manual.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the manual has no place for the table of facts")
    return f"{head}{_BEGIN}\n\n{facts_table()}\n{_END}{tail}"


if __name__ == "__main__":
    sys.stdout.write(updated(sys.stdin.read()))
