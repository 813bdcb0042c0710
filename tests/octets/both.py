"""What the functions of `authmilter.octets` make of any octets: the same work for the Python and the compiled ones.

From a shell: `python tests/octets/both.py COMPILED.so [ROUNDS] [SEED]` holds a built module against the Python functions
over random octets, without pytest: for a module that was built with sanitizers.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from authmilter.makers import maker
from authmilter.message import Header
from authmilter.octets import chosen, python
from authmilter.octets.python import PacketTable, Reading, Shape

__all__ = ["PIECES", "TABLE", "Read", "difference", "outcomes", "random_octets", "same"]

#: What octets are made of, so that they hold what the functions look for.
PIECES = (
    b" ", b"  ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n ", b"\r\n\t", b"\n ", b"a", b"B", b"b", b":", b";", b"=", b"\0", b"\xff",
    b"~", b"x" * 63, b"x" * 64, b"y" * 65, b"z" * 990, b"From", b"to", b"X-1_2", b"b=AA==; ", b"h=from:to; ", b"v=1",
    b"\x00\x00\x00\x06LA\x00b\x00", b"\x00\x00\x00\x01Q", b"\x00\x00\x00\x05B\r\n.\n", b"\xff\xff\xff\xff",
    b"QUJDRA==", b"+/9", b"===", b" \t",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Read:
    """What a packet becomes here."""

    a: object
    b: object = None
    c: object = None
    d: object = None


_read = maker(Read)

_OF_COMMANDS = {
    "A": Reading(Shape.NOTHING, Read("A")),
    "B": Reading(Shape.OCTETS, _read),
    "C": Reading(Shape.CLIENT, Read, "a client", {ord("4"): "four", ord("U"): "none"}),
    "D": Reading(Shape.MACROS, _read, "macros", {ord("M"): "mail", ord("C"): "client"}),
    "H": Reading(Shape.STRING, lambda name: name, "a name"),
    "L": Reading(Shape.FIELD, _read, "a field"),
    "M": Reading(Shape.STRINGS, _read, "words"),
    "O": Reading(Shape.NUMBERS, Read, "numbers"),
    "R": Reading(Shape.STRINGS, Read, "r\u00e9ponse"),
}

#: What becomes of packets here; of each at most three strings are read.
TABLE = PacketTable(tuple(_OF_COMMANDS.get(chr(octet)) for octet in range(256)), Header, 3)

_NO_BASE64 = bytes(set(range(256)) - set(b"ABCXYZabcxyz019+/= \t"))
_NAMES = ("from", "to", "from", "x-1_2", "none", "a", "from", "to", "to")


def _fields(octets: bytes) -> tuple[Header, ...]:
    """Fields as lines give them, whatever stands in them, after two that are as they should be."""
    found = [Header(b"From", b" a@b.example"), Header(b"To", b" c,\r\n\td")]
    for line in octets.split(b"~"):
        name, _, value = line.partition(b":")
        found.append(Header(name, value))
        found.append(Header(name.strip(b"\r\n \t\0\xff:") or b"from", value))
    return tuple(found)


def outcomes(functions: Any, octets: bytes) -> Iterator[tuple[str, object]]:
    """Yield what each function gives for inputs made of these octets, with its name."""
    for relaxed in (False, True):
        yield "body_piece", functions.body_piece(octets, relaxed)
    for known in range(8):
        yield "line_ends", functions.line_ends(octets, known)
    name, _, value = octets.partition(b":")
    yield "relaxed_field", functions.relaxed_field(name, value)
    yield "unsigned_value", functions.unsigned_value(octets)
    tags = functions.plain_tags(octets)
    yield "plain_tags", tags if tags is None else list(tags.items())
    for text in (
        octets.decode("latin-1"),
        octets.translate(None, _NO_BASE64).decode("ascii"),
        "\u0100" * len(octets),
    ):
        yield "base64_octets", functions.base64_octets(text)
        yield "base64_octets", functions.base64_octets(text.rstrip("=") + "=" * (len(text.rstrip("=")) % 4))
    odd = _fields(octets)
    for fields, longest, room in (
        (odd, 998, 10**6),
        (odd[:2], 998, 10**6),
        (odd[:2], 10, 10**6),
        (odd[:2], 998, 30),
    ):
        index = functions.index_fields(fields, longest, room)
        yield "index_fields", index if index is None else (list(index[0].items()), index[1])
    yield "fields_size", functions.fields_size(list(odd))
    by_name: dict[str, tuple[Header, ...]] = {}
    for field in odd:
        by_name[field.key] = (*by_name.get(field.key, ()), field)
    for own in (odd[0], odd[-1]):
        for relaxed in (False, True):
            yield "signed_data", functions.signed_data(by_name, _NAMES, own, relaxed)
    lines = octets.replace(b"\r", b"").replace(b"\0", b"")
    for number, name, value in (
        (0, b"X-A", octets),
        (1, b"X-A", lines),
        (None, b"X", lines.replace(b"\n", b"\n ")),
        (2**32 - 1, b"X", lines.replace(b"\n", b"\n\t").replace(b"b", b"\v\f")),
        (len(octets) - 5, octets[:9], b""),
        (2**32 - len(lines), lines[:3], lines[3:]),
    ):
        yield "edit_packet", functions.edit_packet(0x69, number, name, value)
    for data in _packets(octets):
        events, *rest = functions.read_packets(data, 300, TABLE)
        # a dict is its names in their order, and all are of their own types
        yield "read_packets", (repr(events), events, *rest)


def _packets(octets: bytes) -> Iterator[bytes]:
    """Yield packets that hold these octets: as they are, as every command, and whole and not after header fields."""
    yield octets
    pieces = octets.split(b"~")
    fields = b"".join(_packet(b"L", piece) for piece in pieces)
    yield fields[:-1]
    yield fields + octets
    yield fields + _packet(b"N") + fields
    for command in b"ABCDEHKLMNOQRTUZ":
        yield b"".join(_packet(bytes([command]), piece) for piece in pieces)
    strings = octets.replace(b"~", b"\0") + b"\0"
    yield b"".join(_packet(head, strings) for head in (b"H", b"M", b"R", b"U", b"DM", b"DZ", b"DC", b"L"))
    yield b"".join(
        _packet(b"C" + head + strings) for head in (b"h\x004", b"\x006", b"\0U", b"\0X", b"h\x004\0")
    )


def _packet(command: bytes, payload: bytes = b"") -> bytes:
    return (len(command) + len(payload)).to_bytes(4, "big") + command + payload


def difference(compiled: Any, octets: bytes) -> str:
    """Say where the compiled functions and Python's differ over these octets; empty where they do not."""
    for (name, expected), (_, given) in zip(
        outcomes(python, octets), outcomes(compiled, octets), strict=True
    ):
        if expected != given:
            return f"{name} of {octets!r}: {given!r} instead of {expected!r}"
    return ""


def same(octets: bytes) -> str:
    """Hold what is in use against Python's functions (`chosen.COMPILED` says whether there is anything to be held).

    Raises:
        AssertionError: they differ.
    """
    found = difference(chosen, octets)
    assert not found, found
    return found


def random_octets(source: random.Random) -> bytes:
    """Return pieces at random, mostly few."""
    most = source.choice((2, 6, 20, 60))
    octets = b"".join(source.choice(PIECES) for _ in range(source.randrange(most)))
    return octets + source.randbytes(source.choice((0, 0, 0, 3)))


def _load(path: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader("authmilter.octets._compiled", path)
    spec = importlib.util.spec_from_loader("authmilter.octets._compiled", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def main(words: list[str]) -> int:
    """Compare as the module says; 1 at the first difference."""
    compiled = _load(words[0])
    rounds = int(words[1]) if len(words) > 1 else 10_000
    source = random.Random(words[2] if len(words) > 2 else "0")
    for _ in range(rounds):
        found = difference(compiled, random_octets(source))
        if found:
            print(found)
            return 1
    print(f"{rounds} inputs, no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
