"""Every parser that eats strangers' bytes, in one table; a new parser gets a row.

The invariant: *whatever the bytes, a parser returns a value of the type it names (or raises the one exception its row
names), in time linear in their number.*
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter import idn
from authmilter.errors import InvalidName
from authmilter.mailboxes import Mailboxes, read_mailboxes
from authmilter.message import Message, normalize_line_endings
from authmilter.names import (
    Address,
    AddressLiteral,
    Domain,
    IPAddress,
    LocalPart,
    Malformed,
    NullPath,
    parse_helo,
    parse_ip,
    parse_recipient,
    parse_reverse_path,
)
from authmilter.text import printable


@dataclass(frozen=True, slots=True)
class Parser:
    """One parser: what it is called, how it is given octets, what it returns, what it may raise."""

    name: str
    call: Callable[[bytes], object]
    returns: tuple[type, ...]
    raises: tuple[type[Exception], ...] = ()


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """Give a parser of text the octets as a door does: UTF-8 with surrogateescape."""
    return lambda octets: parse(octets.decode("utf-8", "surrogateescape"))


def _lines(octets: bytes) -> list[tuple[bytes, bytes]]:
    """Cut octets into pairs, as a milter would be given field names and values."""
    return [(name, value) for name, _, value in (line.partition(b":") for line in octets.split(b"\n"))]


_IP = IPAddress.__args__

PARSERS = [
    Parser("message.parse", lambda octets: Message.parse(octets)[0], (Message,)),
    Parser("message.of_fields", lambda octets: Message.of_fields(_lines(octets)), (Message,)),
    Parser("message.normalize_line_endings", normalize_line_endings, (bytes,)),
    Parser("mailboxes.read_mailboxes", read_mailboxes, (Mailboxes,)),
    Parser("names.Domain", _text(Domain.parse), (Domain,), (InvalidName,)),
    Parser("names.Address", _text(Address.parse), (Address,), (InvalidName,)),
    Parser(
        "names.reverse_path",
        _text(parse_reverse_path),
        (NullPath, Address, LocalPart, AddressLiteral, Malformed),
    ),
    Parser("names.recipient", _text(parse_recipient), (Address, LocalPart, AddressLiteral, Malformed)),
    Parser("names.helo", _text(parse_helo), (Domain, AddressLiteral, Malformed)),
    Parser("names.ip", _text(parse_ip), (*_IP, type(None))),
    Parser("idn.to_ascii", _text(idn.to_ascii), (str,), (InvalidName,)),
    Parser("idn.to_unicode", _text(idn.to_unicode), (str,)),
    Parser("text.printable", lambda octets: printable(octets, 64), (str,)),
]

#: What grammars of mail are made of; random octets alone seldom get past a parser's first character.
ALPHABET = b"abfomrxv019.-_=;:,@<>()[]{}\"'\\/%+ \t\r\n\x00\x7f\xc3\xa4\xe2\x80\x8b\xff"
OCTETS = st.binary(max_size=200) | st.lists(st.sampled_from(ALPHABET), max_size=200).map(bytes)


def _check(parser: Parser, octets: bytes) -> None:
    try:
        value = parser.call(octets)
    except parser.raises:
        return
    assert isinstance(value, parser.returns)


@pytest.mark.parametrize("parser", PARSERS, ids=[p.name for p in PARSERS])
@given(octets=OCTETS)
@settings(max_examples=150, deadline=None)
def test_any_octets_give_a_value(parser: Parser, octets: bytes) -> None:
    _check(parser, octets)


@pytest.mark.parametrize("parser", PARSERS, ids=[p.name for p in PARSERS])
def test_a_megabyte_of_one_character_gives_a_value(parser: Parser) -> None:
    for octet in sorted(set(ALPHABET)):
        _check(parser, bytes([octet]) * 1_000_000)


def test_each_parser_is_listed_once() -> None:
    assert len({p.name for p in PARSERS}) == len(PARSERS)
