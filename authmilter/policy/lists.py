"""Named lists of a policy: written in it, or read from files, one entry a line.

What the entries are (domains, networks, texts) follows from the facts they are compared with, so each list is
made ready for each kind of fact once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

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

MAX_LIST_ENTRIES = 500_000

_LIST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?")


@dataclass(slots=True)
class _List:
    """A named list as it was written: each entry and where it stands."""

    entries: tuple[tuple[str, Span], ...]
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
        entries: list[match.Entry] = []
        for text, span in named.entries:
            if text.startswith("!"):
                hint = "use a second list with `not_in_list`"
                self._notes.complain(span, f"{shown(text)}: a list has no exceptions", hint)
                continue
            try:
                entries.append(match.read(kind, text))
            except ValueError as e:
                self._notes.complain(span, *map(str, e.args))
        return match.matcher(kind, entries) if len(entries) == len(named.entries) else None

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
            entries: tuple[tuple[str, Span], ...] = ()
            if isinstance(given, list):
                entries = self._inline_entries(given, path)
            elif isinstance(given, dict):
                entries = self._file_entries(given, path)
            else:
                self._notes.at(path, f"a list is written as `[a, b]` or `{{file: NAME}}`, not {shown(given)}")
            if len(entries) > MAX_LIST_ENTRIES:
                self._notes.at(path, f"a list has at most {MAX_LIST_ENTRIES} entries")
                entries = ()
            self._lists[name] = _List(entries, self._notes.document.key_span(path))

    def _inline_entries(self, data: list[Data], path: Path) -> tuple[tuple[str, Span], ...]:
        entries: list[tuple[str, Span]] = []
        for item, where in items_of(data, path):
            if isinstance(item, str) and item.strip():
                entries.append((item.strip(), self._notes.document.span(where)))
            else:
                self._notes.at(where, f"an entry of a list is text, not {shown(item)}")
        return tuple(entries)

    def _file_entries(self, data: dict[str, Data], path: Path) -> tuple[tuple[str, Span], ...]:
        self._notes.keys(data, path, ("file",), "key of a list")
        file = data.get("file")
        where: Path = (*path, "file")
        if not isinstance(file, str) or not file:
            self._notes.at(where, f"`file` wants the name of a file, not {shown(file)}")
            return ()
        if self._read_list is None:
            self._notes.at(where, f"the list {shown(file)} cannot be read here")
            return ()
        try:
            text = self._read_list(file)
        except ConfigError as e:
            self._notes.at(
                where, f"the list {shown(file)} cannot be used", "; ".join(c.message for c in e.complaints)
            )
            return ()
        except (OSError, ValueError) as e:
            reason = e.strerror if isinstance(e, OSError) and e.strerror else "it is no text"
            self._notes.at(where, f"the list {shown(file)} cannot be read", reason)
            return ()
        self.texts.append(text)
        entries: list[tuple[str, Span]] = []
        for number, line in enumerate(text.split("\n"), start=1):
            entry = line.partition("#")[0].strip()
            if entry:
                column = line.index(entry) + 1
                entries.append((entry, Span(file=file, line=number, column=column)))
        return tuple(entries)
