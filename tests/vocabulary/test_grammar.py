"""The regular expressions match what their RFC text says, and stay linear on a megabyte made to hurt them."""

from __future__ import annotations

import re

import pytest

from authmilter import grammar

PATTERNS = {name: getattr(grammar, name) for name in grammar.__all__ if name != "ATEXT"}

#: Pieces that make a backtracking matcher try again and again.
HURTFUL = [
    "a",
    "a.",
    '"',
    "\\",
    '\\"',
    "(",
    "((",
    ")",
    "<",
    "@",
    "@a,",
    ",",
    ":",
    ";",
    "[",
    "[\\",
    " ",
    "\t",
    "\r",
    "\n",
]
HURTFUL += [
    "\r\n ",
    "\r\n",
    "from",
    "\rfrom ",
    "\nfrom\r",
    "from\r\n ",
    "a@",
    "a@b.",
    "-",
    "a-",
    "=?",
    "\n \n",
    "\u00fc",
]


def test_every_pattern_is_compiled_and_listed() -> None:
    compiled = {name for name, value in vars(grammar).items() if isinstance(value, re.Pattern)}
    assert compiled == set(PATTERNS)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_a_megabyte_made_to_hurt_is_searched(name: str) -> None:
    pattern = PATTERNS[name]
    for piece in HURTFUL:
        text = piece * (1_000_000 // len(piece)) + "!"
        subject = text if isinstance(pattern.pattern, str) else text.encode()
        found, whole = pattern.match(subject), pattern.fullmatch(subject)
        assert found is None or found.end() <= len(subject)
        assert whole is None or whole.end() == len(subject)


@pytest.mark.parametrize(
    "name", ["BARE_CR", "BARE_LF", "CONTROL", "FOLD", "HIDDEN_FROM", "HIDDEN_FROM_IN_VALUE", "UNFOLDED_LF"]
)
def test_a_pattern_that_is_searched_for_is_linear_from_every_start(name: str) -> None:
    pattern = PATTERNS[name]
    for piece in HURTFUL:
        text = piece * (1_000_000 // len(piece))
        subject = text if isinstance(pattern.pattern, str) else text.encode()
        assert sum(1 for _ in pattern.finditer(subject)) <= len(subject)


def test_comment_edges_are_linear_from_every_start() -> None:
    assert sum(1 for _ in grammar.COMMENT_EDGE.finditer("(\\)" * 300_000)) == 600_000


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("LABEL", ["a", "a-b", "_dmarc", "x" * 63, "0"], ["", "-a", "a-", "A", "x" * 64, "a.b", "\u00fc"]),
        (
            "DOT_STRING",
            ["a", "a.b", "a+b", "=?x?=", "\u00fc.b"],
            ["", ".a", "a.", "a..b", "a b", "\x80", "\udc80", "a@b"],
        ),
        ("QUOTED_LOCAL", ['""', '"a b"', '"\\""', '"\u00fc"'], ['"', '"a"b"', '"\\"', '"\t"', '"\x00"', "a"]),
        ("SOURCE_ROUTE", ["@a", "@a,@b.c"], ["a", "@", "@a,", "@a,b", "@a@b", "@a, @b"]),
        ("MIME_TOKEN", ["a", "a-b.c"], ["", "a b", "a=b", "a:b", "a/b", "a\x00", "a@b"]),
        (
            "CONTROL",
            ["\x00", "\r", "\n", "\x1b", "\x7f", "\x85", "\x9f"],
            ["\t", " ", "a", "\u00a0", "\u200b"],
        ),
    ],
)
def test_text_patterns(name: str, yes: list[str], no: list[str]) -> None:
    pattern = PATTERNS[name]
    assert [text for text in yes if not pattern.fullmatch(text)] == []
    assert [text for text in no if pattern.fullmatch(text)] == []


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        (
            "FIELD_NAME",
            [b"From", b"X-1", b"a!"],
            [b"", b"a b", b"a:", b"a\x00", b"a\xff", b"a\x7f", b"From "],
        ),
        ("FIELD_LINES", [b"a", b"a\r\n", b"a\r\n b\r\n", b"a\n\t\n \n"], [b"a\nb", b"a\n\n", b"a\r\n\r\n"]),
        ("FOLD", [b"\r\n", b"\n"], [b"\r", b""]),
        ("FOLDED_NAME", [], [b"From", b"From:", b"From\r\n"]),
        (
            "SIMPLE_FROM",
            [b"a@b", b" a@b ", b"A B. <a.b@c-d.e>", b'"A, B" <a@b>', b"=?x?= <a@b>", b"<a@b>"],
            [
                b"",
                b"a",
                b"a@b, c@d",
                b"a b@c",
                b"a@b (c)",
                b'"a\\"" <a@b>',
                b".A <a@b>",
                b"a@b\r\n",
                b"a..b@c",
                b"<a@b>c",
            ],
        ),
    ],
)
def test_octet_patterns(name: str, yes: list[bytes], no: list[bytes]) -> None:
    pattern = PATTERNS[name]
    searched = name == "FOLD"
    assert [
        text for text in yes if not (pattern.search(text + b" ") if searched else pattern.fullmatch(text))
    ] == []
    assert [
        text for text in no if (pattern.search(text + b" ") if searched else pattern.fullmatch(text))
    ] == []


def test_a_folded_name_ends_before_its_colon() -> None:
    found = grammar.FOLDED_NAME.match(b"From\r\n \r\n\t: x")
    assert found is not None
    assert found.group() == b"From\r\n \r\n\t"
    assert grammar.FOLDED_NAME.match(b"From x:\r\n : y") is None
    assert grammar.FOLDED_NAME.match(b"From\r\n x : y") is None


@pytest.mark.parametrize("text", [b" From:", b"\tfrom :", b"x\r\n  FROM\r\n :", b"x\rfrom:", b"from:"])
def test_a_hidden_from_is_seen(text: bytes) -> None:
    assert len(grammar.HIDDEN_FROM.findall(text)) == 1


@pytest.mark.parametrize("text", [b"X-From:", b"a from:", b"Resent-From:", b"from", b"\r\n fromage:"])
def test_what_is_no_hidden_from(text: bytes) -> None:
    assert grammar.HIDDEN_FROM.findall(text) == []


@pytest.mark.parametrize("text", [b"x\rFrom: a", b"x\r \tfrom :", b"x\nFrom:", b"x\r\nfrom:"])
def test_a_hidden_from_in_a_value_is_seen(text: bytes) -> None:
    assert len(grammar.HIDDEN_FROM_IN_VALUE.findall(text)) == 1


@pytest.mark.parametrize("text", [b"x\r\n From: a", b"x\n\tfrom: a", b"From: a", b"x from: a"])
def test_a_fold_hides_no_from(text: bytes) -> None:
    assert grammar.HIDDEN_FROM_IN_VALUE.findall(text) == []
