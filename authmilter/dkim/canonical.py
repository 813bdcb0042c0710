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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from authmilter.mail import BodyFacts
from authmilter.makers import maker
from authmilter.octets.chosen import bare_line_ends, relaxed_body, relaxed_field

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


@dataclass(frozen=True, slots=True)
class BodyNeed:
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
    if how is Canonicalization.SIMPLE:
        return name + b":" + value  # RFC 6376 §3.4.1
    return relaxed_field(name, value)


#: RFC 5322 §2.1.1: octets in a line, without its CRLF.
MAX_LINE = 998
#: Empty lines held back are written out in pieces of this many.
_EMPTY_LINES = 4096
_CRLFS = b"\r\n" * _EMPTY_LINES


_make_digest = maker(BodyDigest)
_make_facts = maker(BodyFacts)


class _Sink:
    """One digest in the making, over the first `left` octets or (None) over all of them."""

    __slots__ = ("hash", "left", "need")

    def __init__(self, need: BodyNeed) -> None:
        self.need = need
        self.hash = hashlib.new(need.hash)
        self.left = need.length

    def take(self, data: bytes) -> None:
        if self.left is None:
            self.hash.update(data)
        elif self.left:
            # RFC 6376 §3.5 l=: the number of octets of the body *after* canonicalization
            part = data[: self.left]
            self.hash.update(part)
            self.left -= len(part)


class _Stream:
    """One canonical form of the body in the making, and the digests over it."""

    __slots__ = ("_empty", "_held", "_relaxed", "_sinks", "length")

    def __init__(self, how: Canonicalization, needs: Iterable[BodyNeed]) -> None:
        self._relaxed = how is Canonicalization.RELAXED
        self._sinks = tuple([_Sink(need) for need in needs])
        # the end of the last piece, as long as what follows decides what it means: [SP] [CR]
        self._held = b""
        # CRLFs that are only part of the canonical body if something follows them
        self._empty = 0
        self.length = 0

    def update(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        held = b""
        if data.endswith(b"\r"):
            held = b"\r"
            data = data[:-1]
        if self._relaxed:
            stripped = data.rstrip(b" \t")
            if len(stripped) != len(data):
                held = b" " + held
                data = stripped
            data = relaxed_body(data)
        self._held = held
        self._take(data)

    def finish(self) -> None:
        if self._held.endswith(b"\r"):
            self._take(self._held)  # nothing followed: a bare CR, and the blank before it, are content
        self._held = b""
        # RFC 6376 §3.4.3: empty lines at the end become one CRLF, and an empty body becomes one too.
        # RFC 6376 §3.4.4: they vanish, a last line without CRLF gets one, an empty body stays empty.
        if self.length or not self._relaxed:
            self._emit(b"\r\n")

    def digests(self) -> Iterable[tuple[BodyNeed, BodyDigest]]:
        return [(sink.need, _make_digest(sink.hash.digest(), self.length)) for sink in self._sinks]

    def _take(self, data: bytes) -> None:
        empty = 0
        if data.endswith(b"\r\n"):
            # Count the CRLFs at the end: whatever CR and LF stand there, with each CRLF as one mark.
            tail = data[len(data.rstrip(b"\r\n")) :].replace(b"\r\n", b".")
            empty = len(tail) - len(tail.rstrip(b"."))
            data = data[: len(data) - 2 * empty]
        if data:
            while self._empty:
                lines = min(self._empty, _EMPTY_LINES)
                self._emit(_CRLFS[: 2 * lines])
                self._empty -= lines
            self._emit(data)
        self._empty += empty

    def _emit(self, data: bytes) -> None:
        self.length += len(data)
        for sink in self._sinks:
            sink.take(data)


class BodyHasher:
    """Hashes a body as it arrives: `update` any number of times, then `finish`; memory does not grow with it.

    Args:
        needs: the digests wanted. Needs that differ in length only share the work of canonicalization.
        watch: also look for what a later hop may change: long lines and octets over 127 (see `BodyFacts`).
    """

    __slots__ = (
        "_after_cr",
        "_bare_cr",
        "_bare_lf",
        "_eight_bit",
        "_line",
        "_long_line",
        "_size",
        "_streams",
        "_watch",
    )

    def __init__(self, needs: frozenset[BodyNeed], *, watch: bool = False) -> None:
        by_form: dict[Canonicalization, list[BodyNeed]] = {}
        for need in needs:
            by_form.setdefault(need.canonicalization, []).append(need)
        self._streams = tuple([_Stream(how, wanted) for how, wanted in by_form.items()])
        self._size = 0
        self._after_cr = False
        self._bare_cr = False
        self._bare_lf = False
        self._watch = watch
        self._eight_bit = False
        self._long_line = False
        # octets since the last LF
        self._line = 0

    def update(self, chunk: bytes) -> None:
        """Take the next octets of the body; they may be cut anywhere."""
        if not chunk:
            return
        self._size += len(chunk)
        if not (self._bare_cr and self._bare_lf):
            bare_cr, bare_lf, self._after_cr = bare_line_ends(chunk, self._after_cr)
            self._bare_cr |= bare_cr
            self._bare_lf |= bare_lf
        if self._watch:
            self._look_ahead(chunk)
        for stream in self._streams:
            stream.update(chunk)

    def finish(self) -> BodyDigests:
        """Return the digest of each need. Call it once, after the last `update`."""
        found: dict[BodyNeed, BodyDigest] = {}
        for stream in self._streams:
            stream.finish()
            found.update(stream.digests())
        return found

    def facts(self) -> BodyFacts:
        """Return what is known of the body as received so far; at any time."""
        return _make_facts(
            size=self._size,
            bare_cr=self._bare_cr or self._after_cr,
            bare_lf=self._bare_lf,
            # (a last line that has no end yet is as long as it is)
            long_line=self._long_line or self._line > MAX_LINE,
            eight_bit=self._eight_bit,
        )

    def _look_ahead(self, chunk: bytes) -> None:
        """Find octets over 127, and lines over 998 octets: each step goes as far as a line may, back to its last LF."""
        if not self._eight_bit:
            self._eight_bit = not chunk.isascii()
        if self._long_line:
            return
        begin, size = -self._line, len(chunk)
        while True:
            # 998 octets, CR and LF
            found = chunk.rfind(b"\n", max(begin, 0), begin + MAX_LINE + 2)
            if found < 0:
                if size - begin >= MAX_LINE + 2:
                    self._long_line = True
                    return
                break
            begin = found + 1
        self._line = size - begin
