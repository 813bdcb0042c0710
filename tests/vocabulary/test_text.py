"""Strangers' text is shown as bounded printable ASCII."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.text import printable


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        (b"plain text", 10, "plain text"),
        ("plain text", 20, "plain text"),
        ("plain text", 8, "plain..."),
        (b"a\r\nb\x00", 20, "a\\r\\nb\\x00"),
        (b"\xffx", 20, "\\xffx"),
        ("\u202eabc", 20, "\\u202eabc"),
        ("a\\nb", 20, "a\\\\nb"),
        ("x\udcff", 20, "x\\udcff"),
        ("\U0001f600\U0001f600", 15, "\\U0001f600..."),
        ("\x7f\x7f", 6, "..."),
        ("ab", 2, "ab"),
        ("", 3, ""),
    ],
)
def test_what_is_shown(text: bytes | str, limit: int, shown: str) -> None:
    assert printable(text, limit) == shown


@given(st.binary(max_size=60) | st.text(max_size=60), st.integers(3, 80))
def test_it_is_printable_ascii_and_no_longer_than_asked(text: bytes | str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isascii()
    assert shown.isprintable()


@given(st.text(max_size=30))
def test_uncut_text_can_be_told_back(text: str) -> None:
    shown = printable(text, 1000).replace("'", "\\'")
    assert ast.literal_eval(f"'{shown}'") == text


def test_the_work_depends_on_the_limit_only() -> None:
    assert printable(b"\x00" * 50_000_000, 20) == "\\x00\\x00\\x00\\x00..."
