"""A header block is parsed once, kept as it came, and what is wrong with it is listed."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.message import (
    MAX_FIELDS,
    MAX_FROM_FIELDS_READ,
    MAX_HEADER_OCTETS,
    AuthorHeader,
    AuthorProblem,
    Defect,
    DefectKind,
    Header,
    Message,
    normalize_line_endings,
)
from authmilter.names import Address, Domain

K = DefectKind
MEGABYTE = 1_000_000
PLAIN = b"Received: one\r\nReceived: two\r\n three\r\nFrom: A <a@b.example>\r\nSubject:  x \r\n\r\nbody\r\n\r\nmore"


def defects(data: bytes) -> set[tuple[str, str]]:
    return {(d.kind, d.field) for d in Message.parse(data)[0].defects}


def pairs(message: Message) -> list[tuple[bytes, bytes]]:
    return [(h.name, h.value) for h in message.headers]


# -- fields ------------------------------------------------------------------------------------------------------


def test_a_plain_message() -> None:
    message, body = Message.parse(PLAIN)
    assert pairs(message) == [
        (b"Received", b" one"),
        (b"Received", b" two\r\n three"),
        (b"From", b" A <a@b.example>"),
        (b"Subject", b"  x "),
    ]
    assert message.defects == ()
    assert message.authors == AuthorHeader(
        fields=1, addresses=(Address("a", Domain("b.example")),), domains=(Domain("b.example"),)
    )
    assert message.authors.domain == Domain("b.example")
    assert PLAIN[body:] == b"body\r\n\r\nmore"


def test_fields_are_found_by_their_key_top_to_bottom() -> None:
    message, _ = Message.parse(b"A: 1\r\nB: 2\r\na : 3\r\nA\r\n : 4\r\n\r\n")
    assert [h.value for h in message.fields("a")] == [b" 1", b" 3", b" 4"]
    assert [h.raw for h in message.fields("b")] == [b"B: 2"]
    assert message.fields("c") == ()
    assert message.fields("A") == ()


def test_the_keys_of_all_fields_are_known_each_once() -> None:
    fields = [(b"To", b" a"), (b"X-A \t", b" b"), (b"x-a", b" c"), (b"to", b" d")]
    expected = {"to", "x-a"}
    assert Message.of_fields(fields).by_name.keys() == expected
    assert Message(headers=tuple(Header(n, v) for n, v in fields)).by_name.keys() == expected
    assert not Message().by_name.keys()


def test_a_message_built_by_hand_finds_its_fields_too() -> None:
    header = Header(b"Subject", b" x")
    message = Message(headers=(header,))
    assert message.fields("subject") == (header,)
    other = dataclasses.replace(message, headers=(Header(b"To", b" y"),))
    assert other.fields("subject") == ()
    assert other.fields("to") == other.headers


def test_the_index_is_no_part_of_the_value() -> None:
    parsed, _ = Message.parse(PLAIN)
    twin = Message(headers=parsed.headers, defects=parsed.defects, authors=parsed.authors)
    assert twin == parsed
    assert hash(twin) == hash(parsed)
    assert repr(twin) == repr(parsed)
    assert "index" not in repr(parsed)
    for again in (copy.deepcopy(parsed), pickle.loads(pickle.dumps(parsed))):  # noqa: S301 - our own bytes
        assert again == parsed
        assert again.fields("received") == parsed.fields("received")


@pytest.mark.parametrize(
    ("data", "body", "count"),
    [
        (b"", 0, 0),
        (b"\r\n", 2, 0),
        (b"\n", 1, 0),
        (b"\r\nA: b\r\n", 2, 0),
        (b"A: b", 4, 1),
        (b"A: b\r\n", 6, 1),
        (b"A: b\r\n\r\n", 8, 1),
        (b"A: b\n\nbody", 6, 1),
        (b"A: b\r\n\nbody\r\n\r\nmore", 7, 1),
        (b"A: b\n\r\nbody\n\nmore", 7, 1),
        (b"A: b\r\n \r\nC: d\r\n\r\n", 17, 2),  # a line of white space is a continuation, not the end
        (b"A: b\r\r\n\r\nbody", 9, 1),
        (b"\r\r\n\r\nbody", 5, 0),
    ],
)
def test_where_the_body_begins(data: bytes, body: int, count: int) -> None:
    message, at = Message.parse(data)
    assert at == body
    assert len(message.headers) == count


@pytest.mark.parametrize(
    ("data", "name", "value", "key"),
    [
        (b"Subject:", b"Subject", b"", "subject"),
        (b"Subject:x:y", b"Subject", b"x:y", "subject"),
        (b"Subject \t: x", b"Subject \t", b" x", "subject"),
        (b"Subject\r\n\t\r\n : x\r\n y", b"Subject\r\n\t\r\n ", b" x\r\n y", "subject"),
        (b"A b: c", b"A b", b" c", "a b"),
        (b"\xc3\xa4: c", b"\xc3\xa4", b" c", "\xc3\xa4"),
        (b"A: b\n c", b"A", b" b\n c", "a"),
        (b"A: b\rc", b"A", b" b\rc", "a"),
        (
            b"From x@y.example Thu Jan  1 00:00:00 1970",
            b"From x@y.example Thu Jan  1 00",
            b"00:00 1970",
            "from x@y.example thu jan  1 00",
        ),
    ],
)
def test_the_bytes_of_a_field_are_kept(data: bytes, name: bytes, value: bytes, key: str) -> None:
    message, _ = Message.parse(data + b"\r\n\r\n")
    assert message.headers == (Header(name, value),)
    assert message.headers[0].raw == data
    assert message.headers[0].key == key


# -- defects -------------------------------------------------------------------------------------------------------

FROM = b"From: a@b.example\r\n"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"", set()),
        (b"Junk\r\n", {(K.NOT_A_FIELD, "")}),
        (b"Junk\r\n more: junk\r\n", {(K.NOT_A_FIELD, "")}),
        (b": x\r\n", {(K.NOT_A_FIELD, "")}),
        (b"A: b\r\n \t: c\r\n", set()),
        (b" x\r\n y\r\n", {(K.LEADING_CONTINUATION, "")}),
        (b"To : x\r\n", {(K.SPACE_BEFORE_COLON, "to")}),
        (b"To\r\n : x\r\n", {(K.SPACE_BEFORE_COLON, "to")}),
        (b"T o: x\r\n", {(K.FIELD_NAME, "t o")}),
        (b"T\x01: x\r\n", {(K.FIELD_NAME, "t\\x01")}),
        (b"T\xff : x\r\n", {(K.FIELD_NAME, "t\\xff"), (K.SPACE_BEFORE_COLON, "t\\xff")}
         | {(K.EIGHT_BIT, "t\\xff"), (K.NOT_UTF8, "t\\xff")}),
        (b"To: \x00\r\n", {(K.NUL, "to")}),
        (b"To: a\rb\r\n", {(K.BARE_CR, "to")}),
        (b"To: a\r\r\n", {(K.BARE_CR, "to")}),
        (b"To: a\n b\r\n", {(K.BARE_LF, "to")}),
        (b"To: a\n", {(K.BARE_LF, "to")}),
        (b"Junk\n", {(K.BARE_LF, ""), (K.NOT_A_FIELD, "")}),
        (b"To: \xc3\xa4\r\n", {(K.EIGHT_BIT, "to")}),
        (b"To: \xe4\r\n", {(K.EIGHT_BIT, "to"), (K.NOT_UTF8, "to")}),
        (b"Junk\xe4\x00\r\n", {(K.NOT_A_FIELD, ""), (K.NUL, ""), (K.EIGHT_BIT, ""), (K.NOT_UTF8, "")}),
        (b"To: " + b"x" * 994 + b"\r\n", set()),
        (b"To: " + b"x" * 995 + b"\r\n", {(K.LONG_LINE, "to")}),
        (b"To:\r\n " + b"x" * 997 + b"\r\n y\r\n", set()),
        (b"To:\r\n " + b"x" * 998 + b"\r\n y\r\n", {(K.LONG_LINE, "to")}),
        (b"to: x\r\nTO: x\r\nTo : x\r\n", {(K.REPEATED_SINGLETON, "to"), (K.SPACE_BEFORE_COLON, "to")}),
        (b"Content-Type: a\r\nContent-type: b\r\n", {(K.REPEATED_SINGLETON, "content-type")}),
        (b"MIME-Version: 1\r\nMime-Version: 1\r\n", {(K.REPEATED_SINGLETON, "mime-version")}),
        (b"From: c@d.example\r\n", {(K.REPEATED_SINGLETON, "from")}),
        (b"X: y\rFrom: c@d.example\r\n", {(K.REPEATED_SINGLETON, "from"), (K.BARE_CR, "x")}),
        (b"Received: a\r\nReceived: b\r\nComments: c\r\nComments: d\r\nKeywords: e\r\nKeywords: f\r\n", set()),
        (b"X: y\r\n" * (MAX_FIELDS - 1), set()),
        (b"X: y\r\n" * MAX_FIELDS, {(K.TOO_MANY_FIELDS, "")}),
        (b"Junk\r\n" * MAX_FIELDS, {(K.TOO_MANY_FIELDS, ""), (K.NOT_A_FIELD, "")}),
        (b"X: y\r\n" + (b"Y: " + b"x" * 900 + b"\r\n") * 1200, {(K.TOO_LARGE, "")}),
        (b"X" * 200 + b"\x00: y\r\n", {(K.FIELD_NAME, "x" * 61 + "..."), (K.NUL, "x" * 61 + "...")}),
    ],
)  # fmt: skip
def test_each_defect_is_listed_once(block: bytes, expected: set[tuple[str, str]]) -> None:
    message, _ = Message.parse(block + FROM + b"\r\n")
    assert {(d.kind, d.field) for d in message.defects} == expected
    assert len(message.defects) == len(expected)


def test_a_separator_of_bare_lf_is_a_defect_and_the_body_is_none() -> None:
    assert defects(FROM + b"\nbody\n\x00") == {(K.BARE_LF, "")}
    assert defects(FROM + b"\r\nbody\n\x00\rFrom: x@y.example") == set()
    assert defects(b"\n") == {(K.BARE_LF, "")}
    assert defects(b"\r\n") == set()


def test_every_kind_of_defect_can_be_met() -> None:
    block = b" x\r\nJunk\r\nA : \x00\r\nB c: \xe4\rx\r\n" + b"D: " + b"x" * 999 + b"\nTo: x\r\nTo: x\r\n"
    met = {kind for kind, _ in defects(block + b"E: f\r\n" * MAX_FIELDS)} | {
        kind for kind, _ in defects(b"x" * (MEGABYTE * 2))
    }
    assert met == set(DefectKind)


def test_what_lies_beyond_a_limit_is_not_read() -> None:
    message, _ = Message.parse(FROM + b"X: y\r\n" * (MAX_FIELDS + 10))
    assert len(message.headers) == MAX_FIELDS
    big = b"Y: " + b"x" * 990 + b"\r\n"
    message, _ = Message.parse(FROM + big * 2000)
    assert sum(len(h.raw) + 2 for h in message.headers) <= MAX_HEADER_OCTETS
    assert message.authors.problem is AuthorProblem.MALFORMED_FROM
    assert message.authors.addresses == (Address("a", Domain("b.example")),)
    many = Message.of_fields((b"X", b" y") for _ in range(10**9))  # an endless source is left off
    assert len(many.headers) == MAX_FIELDS


def test_the_limits_are_met_to_the_octet_in_both_ways() -> None:
    line = b"x" * 990
    fields = [(b"From", b" a@b.example"), *[(b"X", line)] * 1000]
    left = MAX_HEADER_OCTETS - sum(len(name) + len(value) + 3 for name, value in fields)
    folds = b"\r\n ".join([line] * (left // 993))
    fits = (b"Y", folds + b"\r\n " + b"z" * (left - len(folds) - 7))
    for last, kinds in ((fits, set()), ((b"Y", fits[1] + b"z"), {K.TOO_LARGE})):
        block = b"".join(name + b":" + value + b"\r\n" for name, value in [*fields, last])
        assert len(block) - MAX_HEADER_OCTETS == len(kinds)
        parsed, given_fields = Message.parse(block + b"\r\n")[0], Message.of_fields([*fields, last])
        assert parsed == given_fields
        assert {d.kind for d in parsed.defects} == kinds


# -- authors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "problem", "domains"),
    [
        (b" a@b.example, c@b.example", None, ["b.example"]),
        (b" g: a@b.example, C <c@B.Example.>;", None, ["b.example"]),
        (b" a@b.example, c@d.example", AuthorProblem.SEVERAL_AUTHOR_DOMAINS, ["b.example", "d.example"]),
        (b" a@b.example, c@x.b.example", AuthorProblem.SEVERAL_AUTHOR_DOMAINS, ["b.example", "x.b.example"]),
        (b" a@b.example, c", AuthorProblem.MALFORMED_FROM, ["b.example"]),
        (b" a@b.example, c@-", AuthorProblem.MALFORMED_FROM, ["b.example"]),
        (b" ", AuthorProblem.NO_AUTHOR, []),
        (b" g:;", AuthorProblem.NO_AUTHOR, []),
        (b",".join([b"a@b.example"] * 101), AuthorProblem.MALFORMED_FROM, ["b.example"]),
        (b"a@b.example " + b" " * 40_000, AuthorProblem.MALFORMED_FROM, []),
    ],
)
def test_the_author_domain(value: bytes, problem: AuthorProblem | None, domains: list[str]) -> None:
    authors = Message.of_fields([(b"From", value)]).authors
    assert authors.problem is problem
    assert [d.ascii for d in authors.domains] == domains
    assert authors.domain == (Domain(domains[0]) if problem is None else None)
    assert bool(authors.detail) == (problem is not None)


def test_of_many_from_fields_the_first_are_read() -> None:
    authors = Message.of_fields((b"From", b"a@b%d.example" % i) for i in range(20)).authors
    assert authors.fields == 20
    assert len(authors.addresses) == MAX_FROM_FIELDS_READ
    assert authors.problem is AuthorProblem.REPEATED_FROM


LIKE_FROM = [b"From", b"FROM", b" From", b"From ", b"From\r\n\t", b"Fr\x00om", b"From\xa0", b"\rFrom"]
UNLIKE_FROM = [b"Fromm", b"X-From", b"From-X", b"", b" "]


@pytest.mark.parametrize(("name", "fields"), [(n, 1) for n in LIKE_FROM] + [(n, 0) for n in UNLIKE_FROM])
def test_which_names_count_as_from(name: bytes, fields: int) -> None:
    authors = Message.of_fields([(name, b" a@b.example")]).authors
    assert authors.fields == fields
    regular = name in {b"From", b"FROM"}
    assert authors.problem is (
        None if regular else AuthorProblem.MALFORMED_FROM if fields else AuthorProblem.NO_AUTHOR
    )


def test_a_value_with_a_line_that_is_no_continuation_hides_nothing() -> None:
    message = Message.of_fields([(b"X", b" y\r\nFrom: c@d.example"), (b"From", b" a@b.example")])
    assert message.authors.problem is AuthorProblem.REPEATED_FROM
    assert Defect(K.NOT_A_FIELD, "x") in message.defects


# -- the two ways in -----------------------------------------------------------------------------------------------

LINE = st.binary(max_size=12).map(lambda b: b.translate(None, b"\r\n"))
FOLDED_VALUE = st.lists(LINE, min_size=1, max_size=3).map(b"\r\n ".join)
FTEXT = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=8
)
NAMES = st.sampled_from([b"From", b"from", b"To", b"DKIM-Signature", b"Received"]) | FTEXT.map(str.encode)
FIELDS = st.lists(st.tuples(NAMES, FOLDED_VALUE | st.just(b" a@b.example")), max_size=8)
PIECES = st.sampled_from(
    [b"From", b"from", b":", b" ", b"\t", b"\r\n", b"\n", b"\r", b"\r\n ", b"X", b"To: x\r\n"]
)
PIECES |= st.sampled_from(
    [b"From: a@b.example\r\n", b"a@b.example", b"\x00", b"\xc3\xa4", b"\xff", b"<", b'"', b"("]
)
MESSY = st.lists(PIECES, max_size=20).map(b"".join)


@given(FIELDS, st.binary(max_size=20))
def test_the_bytes_of_a_well_formed_block_are_kept_and_both_ways_agree(
    fields: list[tuple[bytes, bytes]], body: bytes
) -> None:
    block = b"".join(name + b":" + value + b"\r\n" for name, value in fields)
    message, at = Message.parse(block + b"\r\n" + body)
    assert at == len(block) + 2
    assert pairs(message) == fields
    assert b"".join(h.raw + b"\r\n" for h in message.headers) == block
    assert Message.of_fields(fields) == message
    assert all(message.fields(h.key).count(h) >= 1 for h in message.headers)


@given(MESSY)
@settings(max_examples=500)
def test_both_ways_agree_on_messy_blocks(data: bytes) -> None:
    message, body = Message.parse(data)
    assert 0 <= body <= len(data)
    kinds = {d.kind for d in message.defects}
    if not kinds & {K.NOT_A_FIELD, K.LEADING_CONTINUATION, K.BARE_LF}:
        # those lines reach no milter, and the line end of a field is not among what one is given
        assert Message.of_fields(pairs(message)) == message


@given(st.binary(max_size=120) | MESSY)
def test_any_octets_give_a_message(data: bytes) -> None:
    message, body = Message.parse(data)
    assert 0 <= body <= len(data)
    assert len(set(message.defects)) == len(message.defects)
    assert all(d.field.isascii() and d.field.isprintable() for d in message.defects)
    assert all(h.raw in data[:body] for h in message.headers)
    authors = message.authors
    assert (authors.problem is None) == (authors.domain is not None)
    assert (authors.problem is None) or authors.detail
    if authors.problem is None:
        assert authors.fields == 1
        assert [h.name.lower() for h in message.fields("from")] == [b"from"]


@given(st.lists(st.tuples(st.binary(max_size=10), st.binary(max_size=30)), max_size=6))
def test_any_fields_give_a_message(fields: list[tuple[bytes, bytes]]) -> None:
    message = Message.of_fields(fields)
    assert pairs(message) == [f for f in fields if f[0].strip(b" \t\r\n")]
    assert message.authors.domain is None or message.authors.fields == 1


@given(MESSY)
def test_a_domain_needs_a_from_that_a_plain_reader_sees(data: bytes) -> None:
    message, body = Message.parse(data)
    if message.authors.domain is not None:
        lines = data[:body].replace(b"\r", b"\n").split(b"\n")
        assert sum(line.lower().startswith(b"from:") for line in lines) == 1


HURTFUL = [
    b"From:",
    b"From:\r\n",
    b"From\r\n ",
    b"From : (\r\n",
    b"\r",
    b"\n ",
    b"\r\n ",
    b" ",
    b":",
    b"a:",
    b"a:\n",
]
HURTFUL += [
    b"a\n",
    b"\x00",
    b"\rFrom:",
    b"\rfrom\r",
    b"From: a@b.example,\r\n ",
    b"From: ((((\r\n",
    b"\xff:\r\n",
]
HURTFUL += [b'From: """"\r\n', b"\xff"]


@pytest.mark.parametrize("piece", HURTFUL)
def test_a_megabyte_made_to_hurt_is_parsed(piece: bytes) -> None:
    data = piece * (MEGABYTE // len(piece))
    for block in (data, b"From: " + data, b" " + data, b"From: a@b.example\r\nX: " + data):
        message, body = Message.parse(block)
        assert len(message.headers) <= MAX_FIELDS
        assert 0 <= body <= len(block)
        assert message.authors.domain is None or message.authors.fields == 1


# -- line ends of files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "normal"),
    [
        (b"", b""),
        (b"A: b\n\nc\n", b"A: b\r\n\r\nc\r\n"),
        (b"A: b\r\n\r\nc\n", b"A: b\r\n\r\nc\n"),
        (b"A: b\rc\n", b"A: b\rc\r\n"),
        (b"A: b", b"A: b"),
    ],
)
def test_a_file_without_crlf_gets_it(data: bytes, normal: bytes) -> None:
    assert normalize_line_endings(data) == normal
    assert normalize_line_endings(normal) == normal
