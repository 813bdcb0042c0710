"""A From field's value: RFC 5322 §3.4 with its obsolete forms, an answer or a complaint."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter import grammar
from authmilter.mailboxes import (
    MAX_COMMENT_DEPTH,
    MAX_MAILBOXES,
    MAX_VALUE_OCTETS,
    Mailboxes,
    _read_by_grammar,
    read_mailboxes,
)
from authmilter.names import Address, Domain

MEGABYTE = 1_000_000


def written(mailboxes: Mailboxes) -> list[str]:
    return [str(a) for a in mailboxes.addresses]


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (" a@b.example", ["a@b.example"]),
        ("a@B.Example", ["a@b.example"]),
        (" <a@b.example>", ["a@b.example"]),
        (" A. B. Name <a@b.example>", ["a@b.example"]),
        (' "Name, A" <a@b.example>', ["a@b.example"]),
        (' "<x@y.example>" <a@b.example>', ["a@b.example"]),
        (' "x\\"<x@y.example>\\"" <a@b.example>', ["a@b.example"]),
        ("\r\n A\r\n\t<a@b.example>", ["a@b.example"]),
        ("A\n <a@b.example>", ["a@b.example"]),
        # quoted local parts
        ('"a b"@b.example', ['"a b"@b.example']),
        ('<"x@y.example"@b.example>', ['"x@y.example"@b.example']),
        ('"x\\@y"@b.example', ['"x@y"@b.example']),
        ('""@b.example', ['""@b.example']),
        # obsolete forms, RFC 5322 §4.4
        ("a . b @ c . example", ["a.b@c.example"]),
        ("a(x).(y)b(z)@(w)c(v).(u)example(t)", ["a.b@c.example"]),
        ('"a".b."c d"@e.example', ['"a.b.c d"@e.example']),
        ("<@x.example:a@b.example>", ["a@b.example"]),
        ("<@x.example,@y.example:a@b.example>", ["a@b.example"]),
        ("<,@x.example,,@[192.0.2.1],:a@b.example>", ["a@b.example"]),
        ("a@b.example,,c@d.example,", ["a@b.example", "c@d.example"]),
        (",a@b.example", ["a@b.example"]),
        # comments
        ("(c) a@b.example (d)", ["a@b.example"]),
        ("A (c(d(e)\\)\\()) <a@b.example>", ["a@b.example"]),
        ("(<x@y.example>) a@b.example", ["a@b.example"]),
        ("(" * MAX_COMMENT_DEPTH + ")" * MAX_COMMENT_DEPTH + "a@b.example", ["a@b.example"]),
        # several and groups
        ("a@b.example, C <c@b.example>", ["a@b.example", "c@b.example"]),
        ("group: a@b.example, C <c@d.example>;", ["a@b.example", "c@d.example"]),
        ("a@b.example, G H:;, c@d.example", ["a@b.example", "c@d.example"]),
        ('"a group":;', []),
        ("undisclosed recipients: (none) , ;", []),
        ("", []),
        (" (nobody) ", []),
        (",", []),
        # encoded words are atoms
        ("=?utf-8?Q?x=40y=2Eexample?= <a@b.example>", ["a@b.example"]),
        ("=?utf-8?B?eEB5?=@b.example", ["=?utf-8?B?eEB5?=@b.example"]),
        # UTF-8, RFC 6532
        ("J\u00fcrgen <j\u00fcrgen@b\u00fccher.example>", ["j\u00fcrgen@xn--bcher-kva.example"]),
        ('"J\u00fcrgen" <a@b.example>', ["a@b.example"]),
        ("\u200eName <a@b.example>", ["a@b.example"]),
        # one dot at the end of a domain, RFC 9989
        ("a@b.example.", ["a@b.example"]),
        ("(x) a@b.example.", ["a@b.example"]),
        ("N <a@my-bank.example>", ["a@my-bank.example"]),
        ("a@_x.example", ["a@_x.example"]),
        ("a@localhost", ["a@localhost"]),
    ],
)
def test_what_is_well_formed(value: str, addresses: list[str]) -> None:
    mailboxes = read_mailboxes(value.encode())
    assert mailboxes.complaint == ""
    assert written(mailboxes) == addresses


@pytest.mark.parametrize(
    ("value", "before"),
    [
        (b"a", []),
        (b"root", []),
        (b"a b@c.example", []),
        (b"a@", []),
        (b"@b.example", []),
        (b"<>", []),
        (b"<a>", []),
        (b"<a@b.example", []),
        (b"a@b.example>", ["a@b.example"]),
        (b"<<a@b.example>>", []),
        (b"<a@b.example> <c@d.example>", ["a@b.example"]),
        (b"<a@b.example>c@d.example", ["a@b.example"]),
        (b"<a@b.example> N", ["a@b.example"]),
        (b"a@b.example <c@d.example>", ["a@b.example"]),
        (b"a@b.example c@d.example", ["a@b.example"]),
        (b"a@b.example; c@d.example", ["a@b.example"]),
        (b"a@b.example@c.example", ["a@b.example"]),
        (b"a..b@c.example", []),
        (b".a@b.example", []),
        (b"a.@b.example", []),
        (b".A <a@b.example>", []),
        (b'"a"b@c.example', []),
        (b'"a""b"@c.example', []),
        (b"a(c)b@c.example", []),
        (b"a@b..example", []),
        (b"a@.b.example", []),
        (b"a@b.example..", []),
        (b"a@b example", ["a@b"]),
        (b"a@-b.example", []),
        (b"a@b.example-", []),
        (b"a@192.0.2.1", []),
        (b"a@[192.0.2.1]", []),
        (b"a@[b.example]", []),
        (b"a@b'c.example", []),
        (b"a@b=c.example", []),
        (b'a@"b.example"', []),
        (b"a@=?utf-8?Q?b?=.example", []),
        (b'"a@b.example', []),
        (b'"a\\"@b.example', []),
        (b"(a@b.example", []),
        (b"c@d.example,a@b.example)", ["c@d.example"]),
        (b"(" * (MAX_COMMENT_DEPTH + 1) + b")" * (MAX_COMMENT_DEPTH + 1) + b"a@b.example", []),
        (b"a\\@b.example", []),
        (b"a@b.example\\", []),
        (b"<a@b.example>\\,<c@d.example>", []),
        # groups
        (b"g: a@b.example", ["a@b.example"]),
        (b": a@b.example;", []),
        (b"g: h: a@b.example;;", []),
        (b"g:; a@b.example", []),
        (b"g:;;", []),
        (b"a@b.example;", ["a@b.example"]),
        (b"a@b.example:", ["a@b.example"]),
        (b".g:;", []),
        # source routes
        (b"<@x.example a@b.example>", []),
        (b"<@x.example,a@b.example>", []),
        (b"<@x.example@y.example:a@b.example>", []),
        (b"<@:a@b.example>", []),
        (b"<:a@b.example>", []),
        (b"<,:a@b.example>", []),
        (b"<@x.example:>", []),
        (b"<@x.example>", []),
        (b"@x.example:a@b.example", []),
        # octets
        (b"a@b.example\x00", []),
        (b"\x00a@b.example", []),
        (b'"\x1b" <a@b.example>', []),
        (b'"\x7f" <a@b.example>', []),
        (b'"\\\x00" <a@b.example>', []),
        (b"N\r <a@b.example>", []),
        (b"a@b.example\r", []),
        (b"a@b.example\r\n", []),
        (b"a@b.example\r\nc@d.example", []),
        (b"a@b.example\nc@d.example", []),
        (b"N\xff <a@b.example>", []),
        (b"N\xc3 <a@b.example>", []),
        (b'"\xed\xa0\x80" <a@b.example>', []),
        (b"N\xc2\x85 <a@b.example>", []),
        ("a\u200b@b.example".encode(), []),
        ("a\u00a0@b.example".encode(), []),
        (b'"a\t"@b.example', []),
        ("a@b\u200b.example".encode(), []),
        ("a@b\u3002example".encode() + b", c@d.example", []),
        ("\uff1ca@b.example\uff1e".encode(), []),
    ],
)
def test_what_is_not_well_formed(value: bytes, before: list[str]) -> None:
    mailboxes = read_mailboxes(value)
    assert mailboxes.complaint
    assert mailboxes.complaint.isascii()
    assert written(mailboxes) == before


def test_the_limits() -> None:
    assert len(read_mailboxes(b",".join([b"a@b.example"] * MAX_MAILBOXES)).addresses) == MAX_MAILBOXES
    more = read_mailboxes(b",".join([b"a@b.example"] * (MAX_MAILBOXES + 1)))
    assert len(more.addresses) == MAX_MAILBOXES
    assert more.complaint == "too many mailboxes"
    longest = b"a@b.example" + b" " * (MAX_VALUE_OCTETS - 11)
    assert read_mailboxes(longest).complaint == ""
    assert read_mailboxes(longest + b" ").complaint == "the field is too long"


# -- the short way and the long way agree ---------------------------------------------------------------------

#: SIMPLE_FROM with ordinary repetition in place of possessive, which the generator does not know; the same language.
SIMPLE = re.compile(re.sub(rb"([*+?])\+", rb"\1", grammar.SIMPLE_FROM.pattern))
PIECES = st.sampled_from('@.,:;<>"\\()[]-_9a \t\x00\u00fc\u200b')
PIECES |= st.sampled_from(["b.c", "b.example", "<a@b.example>", '"q"', "(c)", "=?x?=", "\r\n "])


@given(st.from_regex(SIMPLE, fullmatch=True))
def test_the_short_way_answers_as_the_grammar_does(value: bytes) -> None:
    assert read_mailboxes(value) == _read_by_grammar(value)


@given(st.lists(PIECES, max_size=12).map("".join))
@settings(max_examples=400)
def test_both_ways_agree_on_anything(text: str) -> None:
    value = text.encode()
    assert read_mailboxes(value) == _read_by_grammar(value)


@given(st.binary(max_size=80))
def test_any_octets_give_an_answer_or_a_complaint(value: bytes) -> None:
    mailboxes = read_mailboxes(value)
    assert mailboxes == _read_by_grammar(value)
    assert all(Address.parse(str(a)) == a for a in mailboxes.addresses)


# -- what is written by the grammar is read as it was meant ------------------------------------------------------

ATOM = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00fc-]{1,6}", fullmatch=True)
QTEXT = st.text(st.sampled_from('ab @<>,;:.()[]"\\\u00fc'), max_size=6)
COMMENT = st.recursive(
    st.sampled_from(["()", "(c)", "(<x@y.example>)", "(\\))", "(\\()"]),
    lambda inner: st.lists(inner, max_size=2).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=4,
)
CFWS = st.lists(st.sampled_from([" ", "\t", "\r\n "]) | COMMENT, max_size=2).map("".join)
DOMAIN = st.lists(st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True), min_size=1, max_size=3).map(
    lambda labels: [*labels, "example"]
)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def addr_spec(draw: st.DrawFn) -> tuple[str, Address]:
    words = draw(
        st.lists(ATOM.map(lambda a: (a, a)) | QTEXT.map(lambda q: (_quoted(q), q)), min_size=1, max_size=3)
    )
    labels = draw(DOMAIN)
    spaced = [draw(CFWS) + w[0] + draw(CFWS) for w in words]
    domain = ".".join(draw(CFWS) + label + draw(CFWS) for label in labels)
    text = ".".join(spaced) + "@" + domain
    return text, Address(".".join(w[1] for w in words), Domain(".".join(labels)))


@st.composite
def mailbox(draw: st.DrawFn) -> tuple[str, list[Address]]:
    text, address = draw(addr_spec())
    if draw(st.booleans()):
        return text, [address]
    name = draw(st.lists(ATOM | QTEXT.map(_quoted), max_size=3))
    phrase = "".join(draw(CFWS) + word + " " for word in name)
    route = draw(st.sampled_from(["", "@x.example:", "@x.example, ,@[y]:"]))
    return f"{phrase}{draw(CFWS)}<{draw(CFWS)}{route}{text}>{draw(CFWS)}", [address]


@st.composite
def group(draw: st.DrawFn) -> tuple[str, list[Address]]:
    members = draw(st.lists(mailbox(), max_size=2))
    return f"{draw(ATOM)}:{','.join(m[0] for m in members)};{draw(CFWS)}", [a for m in members for a in m[1]]


@given(st.lists(mailbox() | group(), min_size=1, max_size=3))
def test_what_the_grammar_writes_is_read_as_meant(elements: list[tuple[str, list[Address]]]) -> None:
    value = ",".join(e[0] for e in elements).encode()
    assert read_mailboxes(value) == Mailboxes(tuple(a for e in elements for a in e[1]))


# -- size --------------------------------------------------------------------------------------------------------


HURTFUL = b'( () (\\ " "" "a" "\\ < <a@b>, , : a: a:;, ; @ @a, <@a, a. . [ [] \\ a@b.example, a =?x?='.split(
    b" "
)
HURTFUL += [b" ", b"\r\n ", b"a ", b'"a" ', b"\xc3\xbc", b"\xff"]


@pytest.mark.parametrize("piece", HURTFUL)
def test_a_megabyte_made_to_hurt_is_read(piece: bytes) -> None:
    value = piece * (MEGABYTE // len(piece))
    assert read_mailboxes(value).complaint == "the field is too long"
    assert len(_read_by_grammar(value).addresses) <= MAX_MAILBOXES
    assert len(_read_by_grammar(b"<@a:" + value).addresses) <= MAX_MAILBOXES
    assert len(_read_by_grammar(b"a@b(" + value + b")").addresses) <= MAX_MAILBOXES
