"""The functions that walk over every octet: what they do, and that the compiled ones do the same as Python's."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.message import Header
from authmilter.octets import chosen, python
from authmilter.octets.chosen import AFTER_CR, BARE_CR, BARE_LF
from authmilter.octets.python import PacketTable, Reading, Shape
from tests.octets.both import PIECES, TABLE, Read, difference, random_octets

ROOT = Path(__file__).resolve().parents[2]

compiled: Any = None
with contextlib.suppress(ImportError):
    compiled = importlib.import_module("authmilter.octets._compiled")

BOTH = [pytest.param(python, id="python")]
if compiled is not None:
    BOTH.append(pytest.param(compiled, id="compiled"))

needs_compiled = pytest.mark.skipif(
    compiled is None and not os.environ.get("CI"), reason="the compiled functions were not built: no compiler"
)


def test_the_compiled_functions_are_there_where_tests_must_run() -> None:
    if compiled is None:
        assert not os.environ.get("CI"), "authmilter.octets._compiled was not built"
        pytest.skip("the compiled functions were not built: no compiler")
    assert chosen.COMPILED is not bool(os.environ.get("AUTHMILTER_PURE"))


def test_the_environment_can_choose_python() -> None:
    code = "from authmilter.octets import chosen, python; print(chosen.COMPILED, chosen.body_piece is python.body_piece)"
    asked = {**os.environ, "AUTHMILTER_PURE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=asked, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("body", "relaxed"),
    [
        (b"", (b"", 0, b"")),
        (b"a b", (b"a b", 0, b"")),
        (b"a  \t b \t\r\n", (b"a b\r\n", 0, b"")),
        (b"\t\r\n  x", (b"\r\n x", 0, b"")),
        (b" \r", (b"", 0, b" \r")),
        (b"a\r\n\t\r\n \t \r", (b"a\r\n", 1, b" \r")),
        (b" \n", (b" \n", 0, b"")),
        (b"a ", (b"a", 0, b" ")),
        (b"\n\r\n\r\r\n\r\n", (b"\n\r\n\r\r\n", 1, b"")),
        (b"x" * 63 + b"  y", (b"x" * 63 + b" y", 0, b"")),
        (b"x" * 63 + b" \r\nz", (b"x" * 63 + b"\r\nz", 0, b"")),
        (b"x" * 64 + b"\t" + b"y" * 100, (b"x" * 64 + b" " + b"y" * 100, 0, b"")),
        (b" " * 1000 + b"\r\n" + b" " * 1000, (b"", 1, b" ")),
    ],
)
def test_a_piece_of_a_body_in_relaxed_form(
    functions: Any, body: bytes, relaxed: tuple[bytes, int, bytes]
) -> None:
    assert functions.body_piece(body, True) == relaxed


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("body", "simple"),
    [
        (b"", (b"", 0, b"")),
        (b"a \t\r\n", (b"a \t\r\n", 0, b"")),
        (b" \r", (b" ", 0, b"\r")),
        (b"\r\n\r\n", (b"", 2, b"")),
        (b"a\r\n\n\r\n\r\n\r", (b"a\r\n\n\r\n", 1, b"\r")),
    ],
)
def test_a_piece_of_a_body_in_simple_form(
    functions: Any, body: bytes, simple: tuple[bytes, int, bytes]
) -> None:
    assert functions.body_piece(body, False) == simple


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("piece", "known", "found"),
    [
        (b"", 0, 0),
        (b"", AFTER_CR | BARE_LF, AFTER_CR | BARE_LF),
        (b"a\r\nb", 0, 0),
        (b"\n", AFTER_CR, 0),
        (b"\n", 0, BARE_LF),
        (b"a", AFTER_CR, BARE_CR),
        (b"a\r", 0, AFTER_CR),
        (b"a\rb\nc", 0, BARE_CR | BARE_LF),
        (b"\n\r\r", AFTER_CR, BARE_CR | AFTER_CR),
        (b"a\r\nb\r", BARE_CR | BARE_LF, BARE_CR | BARE_LF | AFTER_CR),
    ],
)
def test_line_ends_that_are_none(functions: Any, piece: bytes, known: int, found: int) -> None:
    assert functions.line_ends(piece, known) == found


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("QUJD", b"ABC"),
        (" Q U\tJ D\t", b"ABC"),
        ("QUI=", b"AB"),
        ("QU I\t=", b"AB"),
        ("QQ==", b"A"),
        ("QR==", b"A"),
        ("+/+/", b"\xfb\xff\xbf"),
        ("", None),
        ("  ", None),
        ("====", None),
        ("Q===", None),
        ("QQ=", None),
        ("QQ", None),
        ("QUJDQ", None),
        ("QQ==QQ==", None),
        ("QUJD====", None),
        ("QUJ-", None),
        ("QUJ\n", None),
        ("QUJ\u0100", None),
    ],
)
def test_base64_is_decoded_if_nothing_is_wrong_with_it(
    functions: Any, text: str, decoded: bytes | None
) -> None:
    assert functions.base64_octets(text) == decoded


@pytest.mark.parametrize("functions", BOTH)
def test_a_name_takes_its_fields_from_the_bottom_and_never_the_signature_itself(functions: Any) -> None:
    fields = (Header(b"A", b" 1"), Header(b"a", b"  2 "), Header(b"B", b" 3"), Header(b"A", b"4"))
    index, repeated = functions.index_fields(fields, 998, 1000)
    assert list(index) == ["a", "b"]
    assert repeated == ("a",)
    names = ("a", "b", "a", "none", "a", "b")
    own = Header(b"S", b" a=1;\r\n\tb=QQ==\r\n ; c= 2")
    chosen_fields = b"a:4\r\nb:3\r\na:2\r\na:1\r\n"
    assert functions.signed_data(index, names, own, True) == chosen_fields + b"s:a=1; b=; c= 2"
    assert functions.signed_data(index, names, fields[1], False) == b"A:4\r\nB: 3\r\nA: 1\r\na:  2 "
    # the same octets in another field are another field
    assert functions.signed_data(index, ("b",), Header(b"B", b" 3"), True) == b"b:3\r\nb:3"


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    "odd",
    [
        Header(b"", b" x"), Header(b"A B", b""), Header(b"A:B", b""), Header(b"\xff", b""), Header(b"A", b"\0"),
        Header(b"A", b"\r"), Header(b"A", b"\n"), Header(b"A", b"\r\n"), Header(b"A", b"\r\nx"), Header(b"A", b"\x80"),
        Header(b"A", b"x" * 997), Header(b"A", b"\r\n " + b"x" * 998),
    ],
)  # fmt: skip
def test_what_is_odd_in_a_header_block_is_not_indexed(functions: Any, odd: Header) -> None:
    plain = Header(b"A", b" b\r\n\tc")
    assert functions.index_fields((plain, plain), 998, 1000) == ({"a": (plain, plain)}, ("a",))
    assert functions.index_fields((plain, odd, plain), 998, 10_000) is None


@pytest.mark.parametrize("functions", BOTH)
def test_the_longest_line_and_the_room_are_counted_to_the_octet(functions: Any) -> None:
    field = Header(b"Name", b"x" * 993 + b"\r\n " + b"y" * 997)
    size = len(field.raw) + 2
    assert functions.index_fields((field,), 998, size) == ({"name": (field,)}, ())
    assert functions.index_fields((field,), 997, size) is None
    assert functions.index_fields((field,), 998, size - 1) is None


def packet(command: bytes, payload: bytes = b"") -> bytes:
    return (1 + len(payload)).to_bytes(4, "big") + command + payload


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("command", "payload", "event"),
    [
        (b"A", b"", Read("A")),
        (b"A", b"anything", Read("A")),
        (b"B", b"", Read(b"")),
        (b"B", b"a\0\n", Read(b"a\0\n")),
        (b"C", b"h\x004\x12\x67192.0.2.1\0", Read(b"h", "four", 0x1267, b"192.0.2.1")),
        (b"C", b"\x004\xff\xff\0\0", Read(b"", "four", 65535, b"")),
        (b"C", b"h\0U", Read(b"h", "none", 0, b"")),
        (b"C", b"h\0Uanything", Read(b"h", "none", 0, b"")),
        (b"D", b"M", Read("mail", {})),
        (b"D", b"M\0", Read("mail", {})),
        (b"D", b"Mi\0", Read("mail", {})),
        (b"D", b"Mi\0Q1\0", Read("mail", {b"i": b"Q1"})),
        (b"D", b"Ci\0Q1\0j\0", Read("client", {b"i": b"Q1"})),
        (b"D", b"M\0\0", Read("mail", {b"": b""})),
        (b"D", b"Ma\0b\0a\0c\0", Read("mail", {b"a": b"c"})),
        (b"D", b"M" + b"".join(b"%d\0v\0" % n for n in range(9)), Read("mail", dict.fromkeys((b"0", b"1", b"2"), b"v"))),
        (b"H", b"\0", b""),
        (b"H", b"a\0b\0", b"a"),
        (b"M", b"\0", Read((b"",))),
        (b"M", b"a\0\0b\0", Read((b"a", b"", b"b"))),
        (b"M", b"a\0b\0c\0d\0", Read((b"a", b"b", b"c"))),
        (b"O", b"\0\0\0\1\0\0\1\0\xff\xff\xff\xffmore", Read(1, 256, 2**32 - 1)),
    ],
)  # fmt: skip
def test_what_a_packet_becomes(functions: Any, command: bytes, payload: bytes, event: object) -> None:
    data = packet(command, payload)
    assert functions.read_packets(data * 2, 100, TABLE) == ([event, event], b"", 5, "")
    # one that is not whole is left, with how much of it is needed
    assert functions.read_packets(data + data[:-1], 100, TABLE) == (
        [event],
        data[:-1],
        max(5, len(data)),
        "",
    )


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (b"\0\0\0\0A", "a packet of 0 octets"),
        (b"\0\0\0\x65A", "a packet of 101 octets"),
        (b"\xff\xff\xff\xffA", "a packet of 4294967295 octets"),
        (packet(b"Z"), "an unknown command octet 0x5a"),
        (packet(b"\xff"), "an unknown command octet 0xff"),
        (packet(b"\0"), "an unknown command octet 0x00"),
        (packet(b"C"), "a client of no known address family"),
        (packet(b"C", b"h\0"), "a client of no known address family"),
        (packet(b"C", b"h\0X"), "a client of no known address family"),
        (packet(b"C", b"h\x004\0\0"), "a client without its address"),
        (packet(b"C", b"h\x004\0\0a"), "a client without its address"),
        (packet(b"D"), "macros of no known command"),
        (packet(b"D", b"Z"), "macros of no known command"),
        (packet(b"D", b"Mi"), "macros without a final NUL"),
        (packet(b"H"), "a name without a final NUL"),
        (packet(b"M", b"a\0b"), "words without a final NUL"),
        (packet(b"R", b"a"), "r\u00e9ponse without a final NUL"),
        (packet(b"L"), "a field without its two strings"),
        (packet(b"L", b"a\0"), "a field without its two strings"),
        (packet(b"L", b"a\0b"), "a field without its two strings"),
        (packet(b"O", b"x" * 11), "numbers that is too short"),
    ],
)
def test_what_is_wrong_with_a_packet_is_said_behind_the_events_before_it(
    functions: Any, bad: bytes, fault: str
) -> None:
    good = packet(b"B", b"x" * 99) + packet(b"L", b"a\0b\0")
    events = [Read(b"x" * 99), Read([Header(b"a", b"b")])]
    assert functions.read_packets(good + bad + good, 100, TABLE) == (events, bad + good, 5, fault)


@pytest.mark.parametrize("functions", BOTH)
def test_fields_that_come_one_after_another_are_one_event(functions: Any) -> None:
    data = packet(b"L", b"a\0b\n c\0") + packet(b"L", b"\0\r\n\0\0") + packet(b"A") + packet(b"L", b"d\0\0")
    (first, _, second), *_ = functions.read_packets(data, 100, TABLE)
    assert first == Read([Header(b"a", b"b\r\n c"), Header(b"", b"\r\n\0")])
    assert second == Read([Header(b"d", b"")])
    assert {type(field) for field in first.a + second.a} == {Header}


@pytest.mark.parametrize("functions", BOTH)
def test_what_fails_to_be_made_is_no_fault_of_the_packet(functions: Any) -> None:
    for shape in Shape:
        if shape is Shape.NOTHING:
            continue
        table = PacketTable((Reading(shape, _refuse, "x", {0: "zero"}),) * 256, Header, 3)
        with pytest.raises(LookupError):
            functions.read_packets(packet(b"A", b"\0" * 12) * 2, 100, table)


def _refuse(*_values: object) -> object:
    raise LookupError


_NO_NUMBER = "a header field number that is none"
_NO_NAME = "an ill-formed header field name"
_NO_TEXT = "a CR or NUL octet in a header field value"
_NO_FOLD = "an ill-formed fold in a header field value"


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("number", "name", "value", "arguments"),
    [
        (None, b"X", b"", b"X\0\0"),
        (0, b"X-A", b" a\n b\n\tc", b"\0\0\0\0X-A\0 a\n b\n\tc\0"),
        (0x01020304, b"!~", b"\xff\n \v\fx", b"\1\2\3\4!~\0\xff\n \v\fx\0"),
        (2**32 - 1, b"X", b"\n a", b"\xff\xff\xff\xffX\0\n a\0"),
        (2**32, b"X", b"", _NO_NUMBER),
        (2**70, b"X", b"", _NO_NUMBER),
        (-(2**70), b"X", b"", _NO_NUMBER),
        (-1, b"", b"\r", _NO_NUMBER),
        (0, b"", b"\r", _NO_NAME),
        (0, b"a b", b"", _NO_NAME),
        (0, b"a:", b"", _NO_NAME),
        (None, b"a\n", b"", _NO_NAME),
        (0, b"\x7f", b"", _NO_NAME),
        (0, b"X", b"a\r\n b", _NO_TEXT),
        (0, b"X", b"a\n\0", _NO_TEXT),
        (0, b"X", b"a\n", _NO_FOLD),
        (0, b"X", b"a\nb", _NO_FOLD),
        (0, b"X", b"a\n b\n\nc", _NO_FOLD),
        (0, b"X", b"a\n b\n \n c", _NO_FOLD),
        (0, b"X", b"a\n\t\v\f", _NO_FOLD),
        (0, b"X", b"a\n\vb", _NO_FOLD),
    ],
)
def test_the_packet_of_a_header_edit_or_why_there_is_none(
    functions: Any, number: int | None, name: bytes, value: bytes, arguments: bytes | str
) -> None:
    expected = arguments if isinstance(arguments, str) else packet(b"i", arguments)
    assert functions.edit_packet(0x69, number, name, value) == expected


octets = st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join))


@needs_compiled
@settings(max_examples=500)
@given(octets)
def test_compiled_and_python_give_the_same(given_octets: bytes) -> None:
    assert difference(compiled, given_octets) == ""


@needs_compiled
def test_other_types_are_refused() -> None:
    field = Header(b"A", b"b")
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (compiled.body_piece, ("text", True)),
        (compiled.body_piece, (bytearray(b"x"), True)),
        (compiled.body_piece, (b"x",)),
        (compiled.line_ends, (b"x",)),
        (compiled.line_ends, (None, 0)),
        (compiled.line_ends, (b"x", "0")),
        (compiled.base64_octets, (b"QQ==",)),
        (compiled.relaxed_field, (b"x", "y")),
        (compiled.unsigned_value, (None,)),
        (compiled.plain_tags, ("a=b",)),
        (compiled.index_fields, ([field], 998, 1000)),
        (compiled.index_fields, (((b"A",),), 998, 1000)),
        (compiled.index_fields, (((b"A", "b"),), 998, 1000)),
        (compiled.index_fields, ((field,), "998", 1000)),
        (compiled.signed_data, ([], (), field, True)),
        (compiled.signed_data, ({"a": [field]}, ("a",), field, True)),
        (compiled.signed_data, ({"a": ("x",)}, ("a",), field, True)),
        (compiled.signed_data, ({}, (b"a",), field, True)),
        (compiled.signed_data, ({}, ("a",), None, True)),
        (compiled.fields_size, ((field,),)),
        (compiled.fields_size, ([b"x"],)),
        (compiled.edit_packet, (105, 0, b"X")),
        (compiled.edit_packet, (b"i", 0, b"X", b"")),
        (compiled.edit_packet, (105, 0.0, b"X", b"")),
        (compiled.edit_packet, (105, 0, "X", b"")),
        (compiled.edit_packet, (105, 0, b"X", "")),
        (compiled.read_packets, (b"", 10)),
        (compiled.read_packets, (bytearray(), 10, TABLE)),
        (compiled.read_packets, (b"", "10", TABLE)),
        (compiled.read_packets, (b"", 10, list(TABLE))),
        (compiled.read_packets, (b"", 10, TABLE._replace(readings=TABLE.readings[1:]))),
        (compiled.read_packets, (b"", 10, TABLE._replace(field=dict))),
        (compiled.read_packets, (b"", 10, TABLE._replace(field=Header(b"", b"")))),
        (compiled.read_packets, (b"", 10, (*TABLE[:2], "3"))),
    ]
    odd: Any
    for odd in (
        0,
        (),
        (9, Read, "", {}),
        ("1", Read, "", {}),
        (1, Read, b"", {}),
        (1, Read, "", ()),
        (1, 1, "", {}),
    ):
        table: Any = ((odd,) * 256, Header, 3)
        calls.append((compiled.read_packets, (packet(b"A"), 10, table)))
    for function, arguments in calls:
        with pytest.raises(TypeError):
            function(*arguments)


@needs_compiled
def test_nothing_is_kept_of_what_was_looked_at() -> None:
    inputs = [random_octets(random.Random(n)) for n in range(200)]

    def work() -> int:
        for each in inputs:
            assert difference(compiled, each) == ""
        return sys.getallocatedblocks()

    work()
    before = work()
    # a leaked object in any function would be 200 blocks and more
    assert work() - before < 100


@pytest.mark.slow
@needs_compiled
def test_built_with_sanitizers_it_reads_and_writes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    module = tmp_path / "_compiled.so"
    include = sysconfig.get_paths()["include"]
    flags = [
        "-std=c11",
        "-O1",
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-shared",
        "-fPIC",
    ]
    source = ROOT / "authmilter/octets/_compiled.c"
    subprocess.run(["gcc", *flags, f"-I{include}", str(source), "-o", str(module)], check=True)
    runtime = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime,
        # the interpreter itself leaks what it keeps until its end; each object in memory of its own, with red zones
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/octets/both.py"), str(module), "20000", "sanitized"],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20000 inputs, no difference" in done.stdout


@pytest.mark.parametrize("size", [1, 2, 65_535, 65_536, 65_537, 131_072, 200_003])
@pytest.mark.parametrize("functions", BOTH)
def test_runs_of_blanks_become_one_wherever_a_piece_of_work_ends(functions: Any, size: int) -> None:
    source = random.Random(size)
    gaps = [b" ", b"  ", b"a", b"b c", b"~", b"\x7f", b"    ", b"\0"]
    mixed = b"".join(source.choice(gaps) for _ in range(size))[:size]
    around = (b"x" * 65_530 + b" " * 12 + b"y" * size)[:size]
    for octets in (mixed, around, b" " * size, b"ab" * size, mixed + "\u00e9".encode() + mixed):
        whole, _empty, held = functions.body_piece(octets + b".", True)
        assert held == b""
        assert whole == re.sub(b"  +", b" ", octets + b".")
