"""Named lists of a policy: written in it, or read from files, one entry a line.

What the entries are (domains, networks, texts) follows from the facts they are compared with, so each list is
made ready for each kind of fact once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from authmilter.documents import Data, Path
from authmilter.errors import ConfigError, Span
from authmilter.policy import match
from authmilter.policy.facts import Kind
from authmilter.policy.match import Matches
from authmilter.policy.notes import Notes, items_of, near, shown
from authmilter.policy.rules import NamedList

__all__ = ["Lists", "ReadList"]

#: Returns the text of a list's file, by the name that the policy gives.
ReadList = Callable[[str], str]

MAX_LIST_ENTRIES = 1_000_000

_LIST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?")


@dataclass(slots=True)
class _List:
    """A named list as it was written: the entries, where the list stands, and where its n-th entry does.

    A place is looked for when there is something to complain of: a million of them would be most of the memory.
    """

    entries: tuple[str, ...]
    place: Callable[[int], Span]
    span: Span
    used: bool = False


class Lists:
    """The lists of one policy while it is loaded."""

    def __init__(self, notes: Notes, read_list: ReadList | None, data: Data) -> None:
        self._notes = notes
        self._read_list = read_list
        self._lists: dict[str, _List] = {}
        self._matchers: dict[tuple[str, Kind], Matches | None] = {}
        #: the texts of the files that were read
        self.texts: list[str] = []
        self._read(data)

    def named(self) -> tuple[NamedList, ...]:
        """Return what is to be said of the lists."""
        return tuple(
            NamedList(name=name, entries=len(each.entries), used=each.used, span=each.span)
            for name, each in self._lists.items()
        )

    def matcher(self, data: Data, kind: Kind, path: Path) -> Matches | None:
        """Return the matcher of the list called `data` for facts of `kind`; None after a complaint."""
        named = self._lists.get(data) if isinstance(data, str) else None
        if named is None or not isinstance(data, str):
            hint = near(data, self._lists) if isinstance(data, str) else ""
            self._notes.at(path, f"there is no list {shown(data)}", hint or "lists stand under `lists`")
            return None
        named.used = True
        key = (data, kind)
        if key not in self._matchers:
            # made once, so that its mistakes are told once
            self._matchers[key] = self._make_matcher(named, kind)
        return self._matchers[key]

    def _make_matcher(self, named: _List, kind: Kind) -> Matches | None:
        wrong: list[int] = []
        made = match.matcher(kind, self._entries(named, kind, wrong))
        return None if wrong else made

    def _entries(self, named: _List, kind: Kind, wrong: list[int]) -> Iterator[match.Entry]:
        """Yield the entries as they are compared; complain of the others and add their numbers to `wrong`."""
        for number, text in enumerate(named.entries):
            if text.startswith("!"):
                hint = "use a second list with `not_in_list`"
                self._notes.complain(named.place(number), f"{shown(text)}: a list has no exceptions", hint)
                wrong.append(number)
                continue
            try:
                yield match.read(kind, text)
            except ValueError as e:
                self._notes.complain(named.place(number), *map(str, e.args))
                wrong.append(number)

    def _read(self, data: Data) -> None:
        if data is None:
            return
        if not isinstance(data, dict):
            self._notes.at(("lists",), f"`lists` wants a mapping of names, not {shown(data)}")
            return
        for name, given in data.items():
            path: Path = ("lists", name)
            if not _LIST_NAME.fullmatch(name):
                self._notes.at_key(
                    path, f"a list cannot be called {shown(name)}", "small letters, digits, `-`, `_` and `.`"
                )
                continue
            entries: tuple[str, ...] = ()
            span = self._notes.document.key_span(path)
            place = _at(span)
            if isinstance(given, list):
                entries, place = self._inline_entries(given, path)
            elif isinstance(given, dict):
                entries, place = self._file_entries(given, path)
            else:
                self._notes.at(path, f"a list is written as `[a, b]` or `{{file: NAME}}`, not {shown(given)}")
            if len(entries) > MAX_LIST_ENTRIES:
                self._notes.at(path, f"a list has at most {MAX_LIST_ENTRIES} entries")
                entries = ()
            self._lists[name] = _List(entries, place, span)

    def _inline_entries(self, data: list[Data], path: Path) -> tuple[tuple[str, ...], Callable[[int], Span]]:
        entries: list[str] = []
        places: list[Path] = []
        for item, where in items_of(data, path):
            if isinstance(item, str) and item.strip():
                entries.append(item.strip())
                places.append(where)
            else:
                self._notes.at(where, f"an entry of a list is text, not {shown(item)}")
        return tuple(entries), lambda number: self._notes.document.span(places[number])

    def _file_entries(
        self, data: dict[str, Data], path: Path
    ) -> tuple[tuple[str, ...], Callable[[int], Span]]:
        nothing = (), _at(self._notes.document.key_span(path))
        self._notes.keys(data, path, ("file",), "key of a list")
        file = data.get("file")
        where: Path = (*path, "file")
        if not isinstance(file, str) or not file:
            self._notes.at(where, f"`file` wants the name of a file, not {shown(file)}")
            return nothing
        if self._read_list is None:
            self._notes.at(where, f"the list {shown(file)} cannot be read here")
            return nothing
        try:
            text = self._read_list(file)
        except ConfigError as e:
            self._notes.at(
                where, f"the list {shown(file)} cannot be used", "; ".join(c.message for c in e.complaints)
            )
            return nothing
        except (OSError, ValueError) as e:
            reason = e.strerror if isinstance(e, OSError) and e.strerror else "it is no text"
            self._notes.at(where, f"the list {shown(file)} cannot be read", reason)
            return nothing
        self.texts.append(text)
        return tuple(_in_file(text)), _places_in(file, text)


def _at(span: Span) -> Callable[[int], Span]:
    """Return what says of every entry that it stands at `span`."""
    return lambda _number: span


def _in_file(text: str) -> Iterator[str]:
    """Yield the entries of a list's file: one a line, without comments and blank lines."""
    for line in text.split("\n"):
        entry = line.partition("#")[0].strip()
        if entry:
            yield entry


def _places_in(file: str, text: str) -> Callable[[int], Span]:
    """Return what finds the place of the n-th entry of a list's file."""

    @lru_cache(maxsize=1)
    def lines() -> tuple[tuple[int, int], ...]:
        found = []
        for number, line in enumerate(text.split("\n"), start=1):
            entry = line.partition("#")[0].strip()
            if entry:
                found.append((number, line.index(entry) + 1))
        return tuple(found)

    def place(number: int) -> Span:
        line, column = lines()[number]
        return Span(file=file, line=line, column=column)

    return place
