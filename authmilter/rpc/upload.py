"""A message that comes in pieces: its header block is gathered, its body passed on, hashed and forgotten.

The same message gives the same `Message` and the same body however it is cut, and the same as if it had come whole. A
message whose header block has no CRLF is a file with LF line ends, and is read as SMTP would carry it.

How it fails: it does not. Of a header block over the limit the first `MAX_HEADER_OCTETS` are kept, which is what would
be read of it.
"""

from __future__ import annotations

from typing import Protocol

from authmilter.message import MAX_HEADER_OCTETS, Message

__all__ = ["MessageFeed", "Target"]

_CRLF = b"\r\n"
#: The longest end of a header block, less one octet: it may be cut anywhere.
_TAIL = 2


class Target(Protocol):
    """What takes the message: `engine.Verification`."""

    def headers(self, message: Message) -> bool:
        """Take the header block."""

    def body(self, chunk: bytes) -> bool:
        """Take a piece of the body."""


class MessageFeed:
    """Feeds a message to `target` as it comes."""

    __slots__ = ("_gathered", "_held_cr", "_in_body", "_lf_only", "_tail", "_target")

    def __init__(self, target: Target) -> None:
        self._target = target
        self._gathered = bytearray()
        self._tail = b""
        self._in_body = False
        self._lf_only = False
        self._held_cr = False

    def feed(self, chunk: bytes) -> None:
        """Take the next piece, of any size."""
        if self._in_body:
            self._pass_on(chunk)
            return
        gathered = self._gathered
        if len(gathered) > MAX_HEADER_OCTETS:
            # Enough is gathered; only where the body begins is still looked for.
            window = self._tail + chunk
            end = _header_end(window, 0)
            if end < 0:
                self._tail = window[-_TAIL:]
                return
            rest = window[end:]
        else:
            before = len(gathered)
            gathered += chunk
            end = _first_end(gathered) if before < _TAIL else -1
            if end < 0:
                end = _header_end(gathered, max(0, before - _TAIL))
            if end < 0:
                self._tail = bytes(gathered[-_TAIL:])
                return
            rest = bytes(gathered[end:])
            del gathered[end:]
        self._begin_body()
        if rest:
            self._pass_on(rest)

    def end(self) -> None:
        """Say that this was all."""
        if not self._in_body:
            self._begin_body()
        if self._held_cr:
            self._held_cr = False
            self._target.body(b"\r")

    def _begin_body(self) -> None:
        head = bytes(self._gathered)
        self._gathered = bytearray()
        self._in_body = True
        if _CRLF not in head:
            self._lf_only = True
            head = head.replace(b"\n", _CRLF)
        message, _start = Message.parse(head)
        self._target.headers(message)

    def _pass_on(self, chunk: bytes) -> None:
        if self._lf_only:
            if self._held_cr:
                chunk = b"\r" + chunk
            self._held_cr = chunk.endswith(b"\r")
            if self._held_cr:
                chunk = chunk[:-1]
            chunk = chunk.replace(_CRLF, b"\n").replace(b"\n", _CRLF)
        if chunk:
            self._target.body(chunk)


def _first_end(data: bytearray) -> int:
    """Return where the body begins of a message that has no header fields, or -1."""
    if data.startswith(_CRLF):
        return 2
    return 1 if data.startswith(b"\n") else -1


def _header_end(data: bytes | bytearray, start: int) -> int:
    """Return the end of the first empty line at or after `start`, or -1."""
    crlf = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return crlf + 3 if crlf >= 0 else -1
