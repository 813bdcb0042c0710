"""A small strict reader of DER (X.690 §10), for the one extension that `cryptography` does not read.

Promises: linear in the octets given, no recursion, and nothing lenient: indefinite or overlong lengths, high tag
numbers and octets left over are errors. How it fails: `DerError`, with our own words, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "IA5_STRING",
    "MAX_ITEMS",
    "OCTET_STRING",
    "OID",
    "SEQUENCE",
    "DerError",
    "Element",
    "children",
    "context",
    "oid",
    "only",
]

#: Identifier octets of the universal types that are read (X.690 §8.1.2).
OCTET_STRING, OID, IA5_STRING, SEQUENCE = 0x04, 0x06, 0x16, 0x30
#: Elements of one SEQUENCE that are read.
MAX_ITEMS = 64
#: Octets of an object identifier, and the value of one of its arcs, that are read.
_MAX_OID, _MAX_ARC = 64, 2**64
#: Bits of an identifier octet: the class and form of a constructed context-specific tag, and its number.
_CONTEXT_CONSTRUCTED, _NUMBER = 0xA0, 0x1F


class DerError(ValueError):
    """The octets are not the DER they should be; the message says why in our own words."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its identifier octet `tag` (class, form and number; 0-255) and its `content`."""

    tag: int
    content: bytes


def context(number: int) -> int:
    """Return the identifier octet of the constructed context-specific tag `number` (0-30)."""
    return _CONTEXT_CONSTRUCTED | number


def only(octets: bytes, tag: int) -> bytes:
    """Return the content of the one element that `octets` are, which has the identifier octet `tag`.

    Raises:
        DerError: it is another element, not well formed, or something follows.
    """
    element, end = _read(octets, 0)
    if end != len(octets):
        raise DerError("octets follow the element")
    if element.tag != tag:
        raise DerError(f"an element has tag {element.tag:#04x} where {tag:#04x} should be")
    return element.content


def children(content: bytes) -> tuple[Element, ...]:
    """Return the elements that `content` is made of, at most `MAX_ITEMS`.

    Raises:
        DerError: they are too many or not well formed.
    """
    found: list[Element] = []
    at = 0
    while at < len(content):
        if len(found) == MAX_ITEMS:
            raise DerError(f"more than {MAX_ITEMS} elements in one")
        element, at = _read(content, at)
        found.append(element)
    return tuple(found)


def oid(content: bytes) -> str:
    """Return an object identifier's content as text with dots (X.690 §8.19).

    Raises:
        DerError: it is empty, too long, cut or not in its shortest form.
    """
    if not 0 < len(content) <= _MAX_OID or content[-1] & 0x80:
        raise DerError("an object identifier is empty, too long or cut")
    arcs: list[int] = []
    value, begins = 0, True
    for octet in content:
        if begins and octet == 0x80:  # X.690 §8.19.2: no leading zero groups
            raise DerError("an object identifier is not in its shortest form")
        value = value << 7 | octet & 0x7F
        begins = not octet & 0x80
        if value >= _MAX_ARC:
            raise DerError("an object identifier has too large an arc")
        if begins:
            arcs.append(value)
            value = 0
    # X.690 §8.19.4: the first two arcs share one number
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))


def _read(octets: bytes, at: int) -> tuple[Element, int]:
    """Return the element that begins at `at`, and where it ends."""
    if len(octets) - at < 2:
        raise DerError("an element is cut")
    tag, length = octets[at], octets[at + 1]
    if tag & _NUMBER == _NUMBER:
        raise DerError("a tag number over 30 is not read")
    at += 2
    if length >= 0x80:
        size = length & 0x7F
        # X.690 §10.1: the definite form only, in the fewest octets
        if not 0 < size <= 4:
            raise DerError("a length is indefinite or beyond measure")
        if len(octets) - at < size or octets[at] == 0:
            raise DerError("a length is cut or not in its shortest form")
        length = int.from_bytes(octets[at : at + size], "big")
        if length < 0x80:
            raise DerError("a length is not in its shortest form")
        at += size
    if length > len(octets) - at:
        raise DerError("an element is cut")
    return Element(tag, octets[at : at + length]), at + length
