"""Showing strangers' text in our own: in logs, traces and replies.

Promise: what `printable` returns is printable US-ASCII of bounded length, whatever it was given. It is for people and
for one-line texts; it does not quote for a header field or an SMTP reply. Never raises.
"""

from __future__ import annotations

__all__ = ["as_unicode", "printable"]

#: What stands where text was cut.
_CUT = "..."


def printable(text: bytes | str, limit: int) -> str:
    r"""Return `text` as at most `limit` (3 or more) characters of printable US-ASCII.

    Everything else is backslash-escaped as in a Python literal (`\n`, `\xff`, `\u202e`), the backslash too, so that no
    text can pass for the escape of another. Octets over 127 are shown one by one. Longer text ends in `...`,
    never in half an escape. Total; the work done depends on `limit`, not on the text's length.
    """
    head = text[:limit]
    if isinstance(head, bytes):
        head = head.decode("latin-1")
    whole = len(text) <= limit
    if head.isascii() and head.isprintable() and "\\" not in head:
        return head if whole else head[: max(0, limit - len(_CUT))] + _CUT
    pieces = [_escaped(character) for character in head]
    if whole and sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    room = limit - len(_CUT)
    kept: list[str] = []
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + _CUT


def as_unicode(text: str) -> str:
    r"""Return text that is Unicode: raw octets that Python keeps as surrogates become `\xNN`, others `\uNNNN`. Total."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def _escaped(character: str) -> str:
    # `unicode_escape` covers surrogates too, which stand for raw octets in text decoded with surrogateescape
    return character.encode("unicode_escape").decode("ascii")
