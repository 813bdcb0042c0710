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
    code = "from authmilter.octets import chosen, python; print(chosen.COMPILED, chosen.relaxed_body is python.relaxed_body)"
    asked = {**os.environ, "AUTHMILTER_PURE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=asked, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("body", "relaxed"),
    [
        (b"", b""),
        (b"a b", b"a b"),
        (b"a  \t b \t\r\n", b"a b\r\n"),
        (b"\t\r\n  x", b"\r\n x"),
        (b" \r", b" \r"),
        (b" \n", b" \n"),
        (b"a ", b"a "),
        (b"x" * 63 + b"  y", b"x" * 63 + b" y"),
        (b"x" * 63 + b" \r\n", b"x" * 63 + b"\r\n"),
        (b"x" * 64 + b"\t" + b"y" * 100, b"x" * 64 + b" " + b"y" * 100),
        (b" " * 1000 + b"\r\n" + b" " * 1000, b"\r\n "),
    ],
)
def test_white_space_of_a_body(functions: Any, body: bytes, relaxed: bytes) -> None:
    assert functions.relaxed_body(body) == relaxed


@pytest.mark.parametrize("functions", BOTH)
@pytest.mark.parametrize(
    ("piece", "after_cr", "found"),
    [
        (b"", False, (False, False, False)),
        (b"", True, (False, False, True)),
        (b"a\r\nb", False, (False, False, False)),
        (b"\n", True, (False, False, False)),
        (b"\n", False, (False, True, False)),
        (b"a", True, (True, False, False)),
        (b"a\r", False, (False, False, True)),
        (b"a\rb\nc", False, (True, True, False)),
        (b"\n\r\r", True, (True, False, True)),
    ],
)
def test_line_ends_that_are_none(
    functions: Any,
    piece: bytes,
    after_cr: bool,  # noqa: FBT001 - a case of the table
    found: tuple[bool, bool, bool],
) -> None:
    assert functions.bare_line_ends(piece, after_cr) == found


@pytest.mark.parametrize("functions", BOTH)
def test_a_name_takes_its_fields_from_the_bottom_and_never_the_signature_itself(functions: Any) -> None:
    fields = (Header(b"A", b" 1"), Header(b"a", b"  2 "), Header(b"B", b" 3"), Header(b"A", b"4"))
    index, repeated = functions.index_fields(fields, 998, 1000)
    assert list(index) == ["a", "b"]
    assert repeated == ("a",)
    names = ("a", "b", "a", "none", "a", "b")
    assert functions.signed_fields(index, names, None, True) == b"a:4\r\nb:3\r\na:2\r\na:1\r\n"
    assert functions.signed_fields(index, names, fields[1], False) == b"A:4\r\nB: 3\r\nA: 1\r\n"
    # the same octets in another field are another field
    assert functions.signed_fields(index, ("b",), Header(b"B", b" 3"), True) == b"b:3\r\n"


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
        (compiled.relaxed_body, ("text",)),
        (compiled.relaxed_body, (bytearray(b"x"),)),
        (compiled.bare_line_ends, (b"x",)),
        (compiled.bare_line_ends, (None, True)),
        (compiled.relaxed_field, (b"x", "y")),
        (compiled.unsigned_value, (None,)),
        (compiled.plain_tags, ("a=b",)),
        (compiled.index_fields, ([field], 998, 1000)),
        (compiled.index_fields, (((b"A",),), 998, 1000)),
        (compiled.index_fields, (((b"A", "b"),), 998, 1000)),
        (compiled.index_fields, ((field,), "998", 1000)),
        (compiled.signed_fields, ([], (), None, True)),
        (compiled.signed_fields, ({"a": [field]}, ("a",), None, True)),
        (compiled.signed_fields, ({"a": ("x",)}, ("a",), None, True)),
        (compiled.signed_fields, ({}, (b"a",), None, True)),
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
