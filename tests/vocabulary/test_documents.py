"""YAML as this project reads it: plain data, the place of everything, every mistake at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter import documents
from authmilter.documents import Document
from authmilter.errors import Complaint, ConfigError, Span


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        documents.parse(text, "f.yaml")
    return [str(c) for c in caught.value.complaints]


def parse(text: str) -> Document:
    return documents.parse(text, "f.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0660", "0660"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("9" * 30, "9" * 30),
        ("1.5", 1.5),
        ("1.5e3", 1500.0),
        (".5", ".5"),
        (".inf", ".inf"),
        ("5.7.1", "5.7.1"),
        ("2026-11-22", "2026-11-22"),
        ("inet:8891@127.0.0.1", "inet:8891@127.0.0.1"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ('"12"', "12"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("=", "="),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">\n  a\n  b\n", "a b\n"),
    ],
)
def test_a_scalar_means_what_it_looks_like(text: str, value: object) -> None:
    data = parse(text).data
    assert data == value
    assert type(data) is type(value)


def test_data_is_plain_and_keys_are_text() -> None:
    document = parse("550: a\ntrue: b\nlist: [1, {x: ~}]\n'': empty\n")
    assert document.data == {"550": "a", "true": "b", "list": [1, {"x": None}], "": "empty"}


def test_every_value_and_key_has_its_place() -> None:
    document = parse("a: 1\nb:\n  - x\n  - {c: 2, d: [3]}\n")
    assert document.span() == Span(file="f.yaml", line=1, column=1)
    assert str(document.span(("a",))) == "f.yaml:1:4"
    assert str(document.key_span(("b",))) == "f.yaml:2:1"
    assert str(document.span(("b",))) == "f.yaml:3:3"
    assert str(document.span(("b", 0))) == "f.yaml:3:5"
    assert str(document.key_span(("b", 1, "d"))) == "f.yaml:4:12"
    assert str(document.span(("b", 1, "d", 0))) == "f.yaml:4:16"
    # a list position has no key; its value's place serves
    assert str(document.key_span(("b", 0))) == "f.yaml:3:5"


def test_a_path_that_leads_nowhere_ends_where_it_left_the_file() -> None:
    document = parse("a: {b: 1}\n")
    assert str(document.span(("a", "nothing", 3))) == "f.yaml:1:4"
    assert str(document.key_span(("a", "nothing", 3))) == "f.yaml:1:4"
    assert str(document.key_span(("nothing",))) == "f.yaml:1:1"
    assert str(document.key_span(())) == "f.yaml:1:1"


def test_an_empty_file_is_none_and_has_a_place() -> None:
    assert parse("").data is None
    assert parse("# only a comment\n").data is None
    assert str(parse("").span(("a",))) == "f.yaml:1:1"


def test_all_mistakes_are_told_at_once() -> None:
    assert mistakes("a: 1\nb: !x 2\na: 3\n<<: {c: 1}\n~: 4\n?\n: 5\nd: !!python/name:os.system ''\n") == [
        "f.yaml:2:4: the tag `!x` is not known (write the value without it)",
        "f.yaml:3:1: duplicate key `a` (it stands already at line 1)",
        "f.yaml:4:1: merge keys (`<<`) are not known (repeat the settings)",
        "f.yaml:5:1: `~` cannot be a key",
        "f.yaml:6:2: a key is missing before the colon",
        "f.yaml:8:4: the tag `tag:yaml.org,2002:python/name:os.system` is not known (write the value without it)",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1, 2\nb: 3\n", "f.yaml:2:2: is not YAML: expected ',' or ']', but got ':' (while parsing a flow sequence)"),
        ("a: 'x\n", "f.yaml:2:1: is not YAML: found unexpected end of stream (while scanning a quoted scalar)"),
        ("a:\n\tb: 1\n", "f.yaml:2:1: is not YAML: found character '\\t' that cannot start any token (while scanning for the next token) (a tab cannot indent)"),
        ("--- a\n--- b\n", "f.yaml:2:1: a second document begins here (one file holds one document)"),
        ("[a]: 1\n", "f.yaml:1:1: a key must be text"),
        ("x: &x 1\n*x : 2\n", "f.yaml:2:1: a key must be text"),
        ("a: *b\n", "f.yaml:1:4: there is no anchor `&b` before this alias"),
        ("a: &a [*a]\n", "f.yaml:1:8: the alias `*a` stands within its own anchor"),
        ("a: !x [1]\n", "f.yaml:1:4: the tag `!x` is not known (write the value without it)"),
        ("a: x\x00y\n", "f.yaml:1:5: the character U+0000 may not stand in a file"),
        ("a: 1\r\nb: \x07\n", "f.yaml:2:4: the character U+0007 may not stand in a file"),
        ('a: "\\ud800"\n', "f.yaml:1:4: half of a surrogate pair is no character"),
        ('a: "\\U00110000"\n', "f.yaml: is not YAML"),
        ("[" * 50, "f.yaml:1:41: more than 40 lists and mappings within each other"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, complaint: str) -> None:
    assert mistakes(text) == [complaint]


def test_deep_nesting_is_refused_quickly() -> None:
    assert len(mistakes("[" * 1_000_000)) == 1


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert mistakes("\n".join(lines)) == ["f.yaml:6:20: more than 300000 values"]


def test_aliases_are_counted() -> None:
    text = "a: &a 1\nb: [" + "*a, " * 201 + "]\n"
    assert mistakes(text) == ["f.yaml:2:805: more than 200 aliases"]


def test_a_file_that_is_too_long_is_refused() -> None:
    assert mistakes("#" * (documents.MAX_CHARS + 1)) == ["f.yaml: is longer than 2097152 characters"]


def test_complaints_are_bounded() -> None:
    assert len(mistakes("a: 1\n" * 1000)) == documents.MAX_COMPLAINTS


def test_an_alias_stands_where_it_is_used() -> None:
    document = parse("a: &x {k: [1]}\nb: *x\n")
    assert document.data == {"a": {"k": [1]}, "b": {"k": [1]}}
    assert str(document.span(("b",))) == "f.yaml:2:4"
    assert str(document.span(("b", "k", 0))) == "f.yaml:1:12"


def test_json_is_read_with_tabs_and_surrogate_pairs() -> None:
    document = parse('{\n\t"a.example":\t{"TXT": ["v=spf1 -all", "\\ud83d\\ude00 \\t"]}\n}\n')
    assert document.data == {"a.example": {"TXT": ["v=spf1 -all", "\U0001f600 \t"]}}
    assert str(document.span(("a.example", "TXT", 0))) == "f.yaml:2:24"


def test_a_tab_within_yaml_text_stays() -> None:
    assert parse("{a: 'x\ty'}").data == {"a": "x\ty"}


def _everywhere(value: object, document: Document, path: tuple[str | int, ...] = ()) -> None:
    assert document.span(path).line >= 1
    if isinstance(value, dict):
        for key, inner in value.items():
            assert document.key_span((*path, key)).line >= 1
            _everywhere(inner, document, (*path, key))
    if isinstance(value, list):
        for position, inner in enumerate(value):
            _everywhere(inner, document, (*path, position))


_YAMLISH = st.text(
    alphabet=st.sampled_from(list("ab1 \n\t-:,[]{}&*!|>'\"#%@`?~<=.\\xuU0\u00e9\r")), max_size=60
)


@settings(max_examples=400)
@given(_YAMLISH | st.text(max_size=40))
def test_any_text_gives_a_document_or_complaints(text: str) -> None:
    complaints: tuple[Complaint, ...] | None = None
    try:
        document = parse(text)
    except ConfigError as e:
        complaints = e.complaints
    else:
        _everywhere(document.data, document)
    assert complaints is None or (
        complaints and all(c.span.file == "f.yaml" and c.message for c in complaints)
    )


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc-.", max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(_JSON)
def test_json_round_trips(value: object) -> None:
    assert parse(json.dumps(value, indent="\t")).data == value


def test_mistakes_that_leave_the_rest_readable_can_be_collected() -> None:
    mistakes: list[Complaint] = []
    document = documents.parse("a: 1\na: 2\nb: !x 3\n", "f.yaml", mistakes=mistakes)
    assert document.data == {"a": 1, "b": "3"}
    assert [(c.span.line, c.span.column) for c in mistakes] == [(2, 1), (3, 4)]
    with pytest.raises(ConfigError) as caught:
        documents.parse("a: 1\na: 2\nb: [", "f.yaml", mistakes=mistakes)
    assert len(caught.value.complaints) == 2
