"""Canonical forms of header fields and bodies (RFC 6376 §3.4), and the streamed hash of a body.

A `BodyHasher` takes the body piece by piece as the door receives it. It keeps no body: between two pieces it
holds at most a blank and a CR, and empty lines as a number. The digests do not depend on how the body was
cut. Work is linear in the body whatever it holds: every step is a search or replacement in compiled code (octets/).
Only CRLF ends a line; a bare CR or LF is hashed as it stands, and told in `facts`.

dkimpy's header canonicalization is right for ordinary fields, but takes three times as long, strips vertical
tabs and form feeds, and drops bare LFs; its body canonicalization is quadratic in runs of blanks. It is the
oracle of the tests instead.

Fails never: everything here is total.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal, NamedTuple

from authmilter.mail import BodyFacts
from authmilter.makers import maker
from authmilter.octets.chosen import AFTER_CR, BARE_CR, BARE_LF, body_piece, line_ends, relaxed_field

__all__ = [
    "BodyDigest",
    "BodyDigests",
    "BodyHasher",
    "BodyNeed",
    "Canonicalization",
    "canonical_field",
]


class Canonicalization(StrEnum):
    """The algorithms of c= (RFC 6376 §3.4)."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


_SIMPLE, _RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED


class BodyNeed(NamedTuple):
    """A hash that some signature needs: of the body in that form, its first `length` octets or (None) all of it."""

    canonicalization: Canonicalization
    hash: Literal["sha256"] = "sha256"
    length: int | None = None


@dataclass(frozen=True, slots=True)
class BodyDigest:
    """A body's `digest`, and the `length` in octets of the whole canonical body (whatever part was hashed)."""

    digest: bytes
    length: int


BodyDigests = Mapping[BodyNeed, BodyDigest]


def canonical_field(name: bytes, value: bytes, how: Canonicalization) -> bytes:
    """Return a header field in canonical form, without the CRLF at its end.

    `name` and `value` are the octets before and after the colon, folds as CRLF and a blank or tab.
    """
    if how is _SIMPLE:
        return name + b":" + value  # RFC 6376 §3.4.1
    return relaxed_field(name, value)


#: RFC 5322 §2.1.1: octets in a line, without its CRLF.
MAX_LINE = 998
#: Empty lines held back are written out in pieces of this many.
_EMPTY_LINES = 4096
_CRLFS = b"\r\n" * _EMPTY_LINES


_NO_LF = BARE_CR | AFTER_CR


_make_digest = maker(BodyDigest)
_make_facts = maker(BodyFacts)


class _Form(NamedTuple):
    """The digests wanted of one canonical form: of all of it, if so, and of its first octets (RFC 6376 §3.5 l=)."""

    relaxed: bool
    whole: BodyNeed | None
    parts: tuple[BodyNeed, ...]


@lru_cache(maxsize=64)
def _forms(needs: frozenset[BodyNeed]) -> tuple[_Form, ...]:
    """Sort the needs by canonical form. Most messages have one, and the same as the last."""
    forms: list[_Form] = []
    for how in Canonicalization:
        wanted = [need for need in needs if need.canonicalization is how]
        if wanted:
            whole = next((need for need in wanted if need.length is None), None)
            parts = tuple([need for need in wanted if need.length is not None])
            forms.append(_Form(how is _RELAXED, whole, parts))
    return tuple(forms)


class _Part:
    """The digest over the first octets in the making; `left` of them are still to come."""

    __slots__ = ("hash", "left", "need")

    def __init__(self, need: BodyNeed) -> None:
        self.need = need
        self.hash = hashlib.sha256()
        self.left = need.length or 0

    def take(self, data: bytes) -> None:
        if self.left:
            # RFC 6376 §3.5 l=: the number of octets of the body *after* canonicalization
            part = data[: self.left]
            self.hash.update(part)
            self.left -= len(part)


class _Stream:
    """One canonical form of the body in the making, and the digests over it."""

    __slots__ = ("_empty", "_form", "_held", "_length", "_open", "_parts", "_whole")

    def __init__(self, form: _Form) -> None:
        self._form = form
        self._whole = None if form.whole is None else hashlib.sha256()
        self._parts = tuple(map(_Part, form.parts))
        # the end of what has come, as long as what follows decides what it means
        self._held = b""
        # whether a CRLF is missing to end the last line: RFC 6376 §3.4.3 makes one of an empty body, §3.4.4 does not
        self._open = not form.relaxed
        # CRLFs that are only part of the canonical body if something follows them
        self._empty = 0
        self._length = 0

    def update(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        piece, empty, self._held = body_piece(data, self._form.relaxed)
        if piece:
            if self._empty:
                self._write_empty_lines()
            self._write(piece)
            self._open = not piece.endswith(b"\r\n")
        self._empty += empty

    def finish(self, found: dict[BodyNeed, BodyDigest]) -> None:
        """Put the digest of each need into `found`."""
        if self._held.endswith(b"\r"):
            # nothing followed: a bare CR, and the blank before it, are content
            self._write_empty_lines()
            self._write(self._held)
            self._open = True
        if self._open:
            self._write(b"\r\n")
        form = self._form
        if form.whole is not None and self._whole is not None:
            found[form.whole] = _make_digest(self._whole.digest(), self._length)
        for part in self._parts:
            found[part.need] = _make_digest(part.hash.digest(), self._length)

    def _write(self, data: bytes) -> None:
        self._length += len(data)
        if self._whole is not None:
            self._whole.update(data)
        for part in self._parts:
            part.take(data)

    def _write_empty_lines(self) -> None:
        while self._empty:
            lines = min(self._empty, _EMPTY_LINES)
            self._write(_CRLFS[: 2 * lines])
            self._empty -= lines


class _Watch:
    """Looks for octets over 127, and lines over 998 octets; `line` is how many came since the last LF."""

    __slots__ = ("eight_bit", "line", "long_line")

    def __init__(self) -> None:
        self.eight_bit = False
        self.long_line = False
        self.line = 0

    def update(self, chunk: bytes) -> None:
        """Take the next octets: each step goes as far as a line may, back to its last LF."""
        if not self.eight_bit:
            self.eight_bit = not chunk.isascii()
        if self.long_line:
            return
        begin, size = -self.line, len(chunk)
        while True:
            # 998 octets, CR and LF
            found = chunk.rfind(b"\n", max(begin, 0), begin + MAX_LINE + 2)
            if found < 0:
                if size - begin >= MAX_LINE + 2:
                    self.long_line = True
                    return
                break
            begin = found + 1
        self.line = size - begin


class BodyHasher:
    """Hashes a body as it arrives: `update` any number of times, then `finish`; memory does not grow with it.

    Args:
        needs: the digests wanted. Needs that differ in length only share the work of canonicalization.
        watch: also look for what a later hop may change: long lines and octets over 127 (see `BodyFacts`).
    """

    __slots__ = ("_ends", "_size", "_streams", "_watch")

    def __init__(self, needs: frozenset[BodyNeed], *, watch: bool = False) -> None:
        self._streams = tuple(map(_Stream, _forms(needs)))
        self._size = 0
        # what `line_ends` knows of the body so far
        self._ends = 0
        self._watch = _Watch() if watch else None

    def update(self, chunk: bytes) -> None:
        """Take the next octets of the body; they may be cut anywhere."""
        if not chunk:
            return
        self._size += len(chunk)
        self._ends = line_ends(chunk, self._ends)
        if self._watch is not None:
            self._watch.update(chunk)
        for stream in self._streams:
            stream.update(chunk)

    def finish(self) -> BodyDigests:
        """Return the digest of each need. Call it once, after the last `update`."""
        found: dict[BodyNeed, BodyDigest] = {}
        for stream in self._streams:
            stream.finish(found)
        return found

    def facts(self) -> BodyFacts:
        """Return what is known of the body as received so far; at any time."""
        ends, watch = self._ends, self._watch
        # (nothing follows a CR at the end)
        bare_cr, bare_lf = ends & _NO_LF != 0, ends & BARE_LF != 0
        if watch is None:
            return _make_facts(size=self._size, bare_cr=bare_cr, bare_lf=bare_lf)
        # (a last line that has no end yet is as long as it is)
        long_line = watch.long_line or watch.line > MAX_LINE
        return _make_facts(
            size=self._size,
            bare_cr=bare_cr,
            bare_lf=bare_lf,
            long_line=long_line,
            eight_bit=watch.eight_bit,
        )
