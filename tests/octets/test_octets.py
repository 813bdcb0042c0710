"""The functions that walk over every octet: what they do, and that the compiled ones do the same as Python's."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
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
from tests.octets.both import PIECES, difference, random_octets

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


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b"", {}),
        (b"M", {}),
        (b"Mi", None),
        (b"M\0", {}),
        (b"Mi\0", {}),
        (b"Mi\0Q1\0", {b"i": b"Q1"}),
        (b"Mi\0Q1\0j\0", {b"i": b"Q1"}),
        (b"M\0\0", {b"": b""}),
        (b"Ma\0b\0a\0c\0", {b"a": b"c"}),
        (b"M" + b"".join(b"%d\0v\0" % n for n in range(9)), {b"%d" % n: b"v" for n in range(5)}),
    ],
)
def test_macros_of_a_packet(functions: Any, payload: bytes, values: dict[bytes, bytes] | None) -> None:
    assert functions.macro_values(payload, 5) == values


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
        (compiled.macro_values, ("M", 5)),
        (compiled.macro_values, (b"M", "5")),
        (compiled.split_packets, (b"", 10, dict)),
        (compiled.split_packets, (b"", 10, Header(b"", b""))),
        (compiled.split_packets, (bytearray(), 10, Header)),
    ]
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
