"""What the parts of the loader share: the document, the complaints about it, and the small pieces they read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from authmilter.documents import Data, Document, Path
from authmilter.errors import Complaint, Span
from authmilter.policy.facts import SCHEMA
from authmilter.policy.template import MAX_TEXT, Template

__all__ = ["Notes", "items_of", "near", "shown"]

MAX_COMPLAINTS = 200
#: A misspelt name is looked for among this many at most.
MAX_KNOWN = 500

_ASCII_LINE = re.compile(r"[ -~]*")

E = TypeVar("E", bound=StrEnum)


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint at the one of `known` that `name` is probably meant to be, or at all where they are few."""
    names = list(known)[:MAX_KNOWN]
    close = difflib.get_close_matches(name[:80].lower(), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(names) if 0 < len(names) <= 12 else ""


def shown(data: object) -> str:
    """Return plain data as a complaint shows it: short, printable, in one line."""
    if isinstance(data, bool):
        return "`true`" if data else "`false`"
    if data is None:
        return "nothing"
    if isinstance(data, dict):
        return "a mapping"
    if isinstance(data, list):
        return "a list" if data else "an empty list"
    text = "".join(c if c.isprintable() else "?" for c in str(data)[:100])
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def items_of(data: Data, path: Path) -> list[tuple[Data, Path]]:
    """Return the entries of a list with their paths; of anything else, itself."""
    if isinstance(data, list):
        return [(item, (*path, position)) for position, item in enumerate(data)]
    return [(data, path)]


class Notes:
    """A document and the complaints about it; what cannot be read is complained of, and None."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.complaints: list[Complaint] = []

    def complain(self, span: Span, message: str, hint: str = "") -> None:
        """Note a mistake at `span`."""
        if len(self.complaints) < MAX_COMPLAINTS:
            self.complaints.append(Complaint(span=span, message=message, hint=hint))

    def at(self, path: Path, message: str, hint: str = "") -> None:
        """Note a mistake in the value at `path`."""
        self.complain(self.document.span(path), message, hint)

    def at_key(self, path: Path, message: str, hint: str = "") -> None:
        """Note a mistake in the key that ends `path`."""
        self.complain(self.document.key_span(path), message, hint)

    def in_order(self) -> tuple[Complaint, ...]:
        """Return the complaints about the document in order of place, then those about other files."""
        file = self.document.file
        return tuple(sorted(self.complaints, key=lambda c: (c.span.file != file, c.span.line, c.span.column)))

    def keys(self, data: dict[str, Data], path: Path, known: Sequence[str], what: str) -> None:
        """Complain of the keys that are not among `known`."""
        for key in data:
            if key not in known:
                self.at_key((*path, key), f"unknown {what} {shown(key)}", near(key, known))

    def word(self, kind: type[E], data: Data, path: Path, what: str) -> E | None:
        """Read one word of a closed list."""
        words = [str(member) for member in kind]
        if isinstance(data, str) and data in words:
            return kind(data)
        hint = near(data, words) if isinstance(data, str) else "known: " + ", ".join(words)
        self.at(path, f"{what} cannot be {shown(data)}", hint)
        return None

    def line(self, data: Data, path: Path, what: str, limit: int) -> str | None:
        """Read one line of printable US-ASCII that is not blank, at most `limit` characters."""
        if not isinstance(data, str):
            hint = "" if data is None or isinstance(data, dict | list) else "put it in quotes"
            self.at(path, f"{what} wants text, not {shown(data)}", hint)
        elif not _ASCII_LINE.fullmatch(data):
            self.at(path, f"{what} may hold printable US-ASCII only, in one line")
        elif not data.strip():
            self.at(path, f"{what} is empty")
        elif len(data) > limit:
            self.at(path, f"{what} is {len(data)} characters long, at most {limit} are allowed")
        else:
            return data
        return None

    def template(self, data: Data, path: Path, what: str) -> Template | None:
        """Read a text with placeholders."""
        text = self.line(data, path, what, MAX_TEXT)
        if text is None:
            return None
        try:
            return Template.parse(text)
        except ValueError as e:
            message, culprit = e.args
            hint = near(culprit, (n for n, f in SCHEMA.items() if f.echo)) if culprit else ""
            self.at(path, f"{what}: {message}", hint)
            return None
