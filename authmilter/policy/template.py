"""Texts with placeholders, for replies and header tags.

`Unauthenticated mail from {message.author.domain}`: a placeholder names a fact; `{{` and `}}` stand for braces.
What a fact holds may come from a stranger, so it is written as printable US-ASCII, and not much of it; the
text itself is checked when the policy is loaded. Whatever the mail, the result is one line of printable US-ASCII.
A `%` is an ordinary character here (the milter door doubles it where the protocol wants that).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from authmilter.policy.facts import SCHEMA, Facts, Value
from authmilter.text import printable

__all__ = ["MAX_TEXT", "MAX_VALUE", "NO_VALUE", "Template"]

#: Characters of a reply's text or a tag's value, support id included: RFC 5321 §4.5.3.1.5 allows a reply line
#: of 512 octets, and servers add to it.
MAX_TEXT = 400
#: Characters that one placeholder gives.
MAX_VALUE = 120
#: What is written for a fact without a value.
NO_VALUE = "unknown"

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def _written(value: Value | None) -> str:
    if value is None or value == ():
        return NO_VALUE
    if isinstance(value, tuple):
        return printable(", ".join(value[:10]), MAX_VALUE)
    if isinstance(value, bool):
        return "true" if value else "false"
    return printable(str(value), MAX_VALUE)


@dataclass(frozen=True, slots=True)
class Template:
    """A text in `pieces`: as they stand, and (as a tuple of one) the names of facts."""

    pieces: tuple[str | tuple[str], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a text with placeholders.

        Raises:
            ValueError: a lone brace, an unknown fact, or one that may not be written; argument 2 is the culprit.
        """
        pieces: list[str | tuple[str]] = []
        at = 0
        for found in _PIECE.finditer(text):
            pieces.append(text[at : found.start()])
            at = found.end()
            token = found.group()
            if token in {"{{", "}}"}:
                pieces.append(token[0])
                continue
            name = found.group(1)
            if name is None:
                raise ValueError("a brace stands alone; write it twice if a brace is meant", "")
            fact = SCHEMA.get(name)
            if fact is None:
                raise ValueError(f"unknown placeholder `{{{name}}}`", name)
            if not fact.echo:
                raise ValueError(
                    f"`{{{name}}}` is a stranger's text: rules may ask about it, not repeat it", ""
                )
            pieces.append((name,))
        pieces.append(text[at:])
        return cls(tuple(p for p in pieces if p))

    @property
    def is_fixed(self) -> bool:
        """True if it names no fact, so that it is the same for every message."""
        return all(isinstance(piece, str) for piece in self.pieces)

    def render(self, facts: Facts, limit: int = MAX_TEXT) -> str:
        """Return the text with the facts' values, at most `limit` characters. Total."""
        text = "".join([p if isinstance(p, str) else _written(facts.get(p[0])) for p in self.pieces])
        return text if len(text) <= limit else text[: limit - 3] + "..."
