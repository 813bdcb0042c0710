"""The room of pyyaml: YAML text -> plain data, with the place of every value.

Configuration, policies, policy tests and zone files are read by this one function. What it takes is the plain
core of YAML 1.2, so that a file means what it looks like:

* `true` and `false` are the only booleans; `yes`, `no`, `on`, `off` are text;
* a number with a leading zero (`0660`), a sexagesimal (`1:30`) and a date are text;
* a key is always text, as written (`550:` is the key "550");
* a duplicate key, a tag (but `!!str`), a merge key, a second document are mistakes.

JSON is read as well, tabs included.

Promises: `parse` returns a `Document` or raises `ConfigError` with every mistake it could tell; time and memory
are bounded by the named limits (an alias bomb is refused before anybody walks it). A `Document` is not to be
changed: values under an alias are shared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)

from authmilter.errors import Complaint, ConfigError, Span

__all__ = ["Data", "Document", "Path", "dump", "parse"]

#: Plain data: what JSON has.
Data = None | bool | int | float | str | list["Data"] | dict[str, "Data"]
#: Where a value stands: keys and list positions from the top.
Path = tuple[str | int, ...]

#: Characters in a file.
MAX_CHARS = 2 * 1024 * 1024
#: Lists and mappings within each other.
MAX_DEPTH = 40
#: Uses of an anchor (`*name`).
MAX_ALIASES = 200
#: Values, counted as often as they are reached through aliases.
MAX_VALUES = 300_000
#: Mistakes that are listed.
MAX_COMPLAINTS = 100

# YAML 1.2.2 §10.3.2 (core schema), less what surprises: no octal, no hexadecimal, no infinity.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}(?:[eE][-+]?[0-9]{1,2})?")
# YAML 1.2.2 §5.1 c-printable, as the library has it.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_OTHER_BREAK = re.compile("[\x85\u2028\u2029]")
_STR_TAG = "tag:yaml.org,2002:str"


@dataclass(slots=True, eq=False)
class _Node:
    """A value while and after it is read; `weight` counts the values in it, those under aliases too."""

    span: Span
    data: Data = None
    keys: dict[str, Span] = field(default_factory=dict)
    items: dict[str | int, _Node] = field(default_factory=dict)
    weight: int = 1
    closed: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A file as `data`, and where each value and key of it stands. `data` is None for an empty file."""

    file: str
    data: Data
    _root: _Node

    def span(self, path: Path = ()) -> Span:
        """Return where the value at `path` begins; of a path that leads nowhere, where it left the file."""
        node = self._root
        for step in path:
            following = node.items.get(step)
            if following is None:
                break
            node = following
        return node.span

    def key_span(self, path: Path) -> Span:
        """Return where the key that ends `path` stands; where it is no key, the value's place as `span`."""
        node = self._root
        for step in path[:-1]:
            following = node.items.get(step)
            if following is None:
                return node.span
            node = following
        if path and isinstance(path[-1], str) and path[-1] in node.keys:
            return node.keys[path[-1]]
        return self.span(path)


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is open; `key` None: a mapping's next value is a key (`refused`: is dropped)."""

    node: _Node
    is_mapping: bool
    key: str | None = None
    refused: bool = False


class _Refused(Exception):  # noqa: N818 - a signal within this file: reading cannot go on
    pass


class _Reader:
    """Builds nodes from the library's events, without recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.complaints: list[Complaint] = []
        self.root: _Node | None = None
        self._stack: list[_Frame] = []
        self._anchors: dict[str, _Node] = {}
        self._aliases = 0
        self._documents = 0

    def complain(self, span: Span, message: str, hint: str = "") -> None:
        if len(self.complaints) < MAX_COMPLAINTS:
            self.complaints.append(Complaint(span=span, message=message, hint=hint))

    def stop(self, span: Span, message: str, hint: str = "") -> _Refused:
        self.complain(span, message, hint)
        return _Refused()

    def take(self, events: Iterator[Event]) -> None:
        for event in events:
            if isinstance(event, ScalarEvent):
                self._scalar(event)
            elif isinstance(event, CollectionStartEvent):
                self._open(event)
            elif isinstance(event, CollectionEndEvent):
                self._close()
            elif isinstance(event, AliasEvent):
                self._alias(event)
            elif isinstance(event, DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise self.stop(
                        self._span(event), "a second document begins here", "one file holds one document"
                    )

    def _span(self, event: Event) -> Span:
        mark = event.start_mark
        if mark is None:
            return Span(file=self.file)
        return Span(file=self.file, line=mark.line + 1, column=mark.column + 1)

    def _scalar(self, event: ScalarEvent) -> None:
        span = self._span(event)
        text = _whole_characters(event.value)
        if text is None:
            self.complain(span, "half of a surrogate pair is no character")
            text = ""
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.is_mapping and frame.key is None:
            self._key(frame, text, span, plain=event.style is None)
            return
        tag = event.tag
        if tag is not None and tag not in {_STR_TAG, "!"}:
            self.complain(span, f"the tag `{_short(tag)}` is not known", "write the value without it")
        plain = tag is None and event.style is None
        node = _Node(span=span, data=_resolve(text) if plain else text)
        self._name(event.anchor, node)
        self._add(node)

    def _key(self, frame: _Frame, text: str, span: Span, *, plain: bool) -> None:
        frame.key, frame.refused = text, True
        if plain and text == "<<":
            self.complain(span, "merge keys (`<<`) are not known", "repeat the settings")
        elif plain and text in _NULL:
            self.complain(
                span, "a key is missing before the colon" if not text else f"`{text}` cannot be a key"
            )
        elif text in frame.node.keys:
            first = frame.node.keys[text]
            self.complain(span, f"duplicate key `{_short(text)}`", f"it stands already at line {first.line}")
        else:
            frame.node.keys[text] = span
            frame.refused = False

    def _open(self, event: CollectionStartEvent) -> None:
        span = self._span(event)
        if len(self._stack) >= MAX_DEPTH:
            raise self.stop(span, f"more than {MAX_DEPTH} lists and mappings within each other")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.is_mapping and frame.key is None:
            raise self.stop(span, "a key must be text")
        if event.tag is not None and not event.implicit and event.tag != "!":
            self.complain(span, f"the tag `{_short(event.tag)}` is not known", "write the value without it")
        is_mapping = isinstance(event, MappingStartEvent)
        node = _Node(span=span, data={} if is_mapping else [], closed=False)
        self._name(event.anchor, node)
        self._stack.append(_Frame(node, is_mapping))

    def _close(self) -> None:
        node = self._stack.pop().node
        node.closed = True
        self._add(node)

    def _alias(self, event: AliasEvent) -> None:
        span = self._span(event)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.is_mapping and frame.key is None:
            raise self.stop(span, "a key must be text")
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self.stop(span, f"more than {MAX_ALIASES} aliases")
        target = self._anchors.get(event.anchor or "")
        if target is None:
            raise self.stop(span, f"there is no anchor `&{_short(event.anchor or '')}` before this alias")
        if not target.closed:
            raise self.stop(span, f"the alias `*{_short(event.anchor or '')}` stands within its own anchor")
        # The place is the alias's, so that a complaint leads to where the value is used.
        self._add(
            _Node(span=span, data=target.data, keys=target.keys, items=target.items, weight=target.weight)
        )

    def _name(self, anchor: str | None, node: _Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _add(self, node: _Node) -> None:
        if not self._stack:
            self.root = node
            if node.weight > MAX_VALUES:
                raise self.stop(node.span, f"more than {MAX_VALUES} values")
            return
        frame = self._stack[-1]
        parent = frame.node
        parent.weight += node.weight
        if parent.weight > MAX_VALUES:
            raise self.stop(node.span, f"more than {MAX_VALUES} values")
        if isinstance(parent.data, dict):
            key, frame.key = frame.key or "", None
            if frame.refused:
                return
            parent.data[key] = node.data
            parent.items[key] = node
        elif isinstance(parent.data, list):
            parent.items[len(parent.data)] = node
            parent.data.append(node.data)


def parse(text: str, file: str, *, mistakes: list[Complaint] | None = None) -> Document:
    """Read `text` (YAML or JSON; `file` is its name for complaints) as plain data.

    With `mistakes`, what is wrong but leaves the rest readable (a duplicate key, a tag) is added there, and the
    document is returned without it: the caller lists it together with what it finds itself.

    Raises:
        ConfigError: with all mistakes that could be told, each with line and column. After a syntax error
            nothing further is read.
    """
    reader = _Reader(file)
    if len(text) > MAX_CHARS:
        raise ConfigError(
            (Complaint(span=Span(file=file), message=f"is longer than {MAX_CHARS} characters"),)
        )
    odd = _UNPRINTABLE.search(text)
    if odd is not None:
        span = _span_at(text, odd.start(), file)
        message = f"the character U+{ord(odd.group()):04X} may not stand in a file"
        raise ConfigError((Complaint(span=span, message=message),))
    if "\t" in text and text.lstrip()[:1] in {"{", "["} and _is_json(text):
        # In JSON a tab stands between values only; YAML does not take it there.
        text = text.replace("\t", " ")
    whole = False
    try:
        reader.take(yaml.parse(text, Loader=yaml.SafeLoader))
        whole = True
    except _Refused:
        pass
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        span = (
            Span(file=file) if mark is None else Span(file=file, line=mark.line + 1, column=mark.column + 1)
        )
        reader.complain(span, _syntax(e), "a tab cannot indent" if "'\\t'" in str(e.problem) else "")
    except (yaml.YAMLError, ValueError, OverflowError):
        # ValueError, OverflowError: the library on a huge version number or an escape beyond Unicode.
        reader.complain(Span(file=file), "is not YAML")
    if reader.complaints:
        if mistakes is None or not whole:
            raise ConfigError(tuple(reader.complaints))
        mistakes.extend(reader.complaints)
    root = reader.root if reader.root is not None else _Node(span=Span(file=file, line=1, column=1))
    return Document(file, root.data, root)


def dump(data: Data) -> str:
    """Return plain data as YAML, keys in their order; `parse` reads the same back from it.

    Not for numbers beyond what `_INT` and `_FLOAT` know, nor for infinities: `parse` takes those for text.
    """
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """The library's writer, without anchors: a value that stands in two places is written twice.

    Text with a line end other than LF is written with escapes: in single quotes the library folds there, and what it
    reads again is a space.
    """

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's shape
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Return the node of a text."""
        escaped = '"' if _OTHER_BREAK.search(data) else None
        return self.represent_scalar(_STR_TAG, data, style=escaped)


_Dumper.add_representer(str, _Dumper.represent_str)


def _resolve(text: str) -> Data:
    """Return what a plain (unquoted) scalar means."""
    if text in _NULL:
        return None
    known = _BOOLEANS.get(text)
    if known is not None:
        return known
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _whole_characters(text: str) -> str | None:
    """Join the surrogate pairs that JSON's escapes leave; None if half a pair is left over."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            return None
    return text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _syntax(error: yaml.MarkedYAMLError) -> str:
    context = f" ({error.context})" if error.context else ""
    return f"is not YAML: {error.problem or 'syntax error'}{context}"


def _span_at(text: str, position: int, file: str) -> Span:
    before = text[:position]
    line, start = 1, 0
    for found in _LINE_BREAK.finditer(before):
        line, start = line + 1, found.end()
    return Span(file=file, line=line, column=position - start + 1)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
