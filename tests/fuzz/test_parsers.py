"""Every parser that eats strangers' bytes, in one table; a new parser gets a row.

The invariant: *whatever the bytes, a parser returns a value of the type it names (or raises the one exception its row
names), in time linear in their number.*
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter import documents, engine, idn
from authmilter.arc.chain import Chain, Link, MessageSignature, Seal
from authmilter.arc.chain import read as read_chain
from authmilter.arc.result import ArcResult, ArcSet, ArcStatus
from authmilter.arc.settings import ArcSettings, TrustedSealers
from authmilter.arc.trust import believe
from authmilter.bimi import der
from authmilter.bimi import record as bimi_record
from authmilter.bimi.fetch import FetchFailure, FetchSettings, Target, parse_url
from authmilter.bimi.logotype import Logotype, LogotypeError, read_logotype
from authmilter.bimi.result import BimiRecord
from authmilter.bimi.svg import SvgReport, check_svg
from authmilter.bimi.vmc import MarkReport, TrustRoots, check_mark
from authmilter.config import load as config_load
from authmilter.config.model import Config
from authmilter.dkim import key as dkim_key
from authmilter.dkim.signature import DkimLimits
from authmilter.dkim.signature import read as read_signatures
from authmilter.dmarc import record as dmarc_record
from authmilter.dmarc.record import Absence
from authmilter.dmarc.result import DmarcRecord
from authmilter.dns.answer import Failed, Found, NoData, NxDomain, RdType
from authmilter.dns.wire import Alias, read_reply
from authmilter.errors import ConfigError, InvalidName, PolicyError
from authmilter.headers import foreign
from authmilter.headers.received import RelayedClient, relayed_client
from authmilter.mail import Envelope, Mail, Session
from authmilter.mailboxes import Mailboxes, read_mailboxes
from authmilter.message import Header, Message, normalize_line_endings
from authmilter.milter.protocol import Decoder, RemoteProtocolError
from authmilter.milter.session import Pending, SessionFactory
from authmilter.milter.sockets import ListenSpec
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
from authmilter.policy import loader as policy_loader
from authmilter.policy.rules import Policy
from authmilter.spf import record as spf_record
from authmilter.text import printable
from authmilter.verdict import ChangeHeader, InsertHeader, Verdict
from tests.milter.client import packet
from tests.octets.both import same
from tests.support.attacks import attack_zone
from tests.support.road import a_runtime
from tests.support.scenarios import zone


@dataclass(frozen=True, slots=True)
class Parser:
    """One parser: what it is called, how it is given octets, what it returns, what it may raise, and how many octets
    of one kind it is given at once.
    """

    name: str
    call: Callable[[bytes], object]
    returns: tuple[type, ...]
    raises: tuple[type[Exception], ...] = ()
    most: int = 1_000_000


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """Give a parser of text the octets as a door does: UTF-8 with surrogateescape."""
    return lambda octets: parse(octets.decode("utf-8", "surrogateescape"))


def _lines(octets: bytes) -> list[tuple[bytes, bytes]]:
    """Cut octets into pairs, as a milter would be given field names and values."""
    return [(name, value) for name, _, value in (line.partition(b":") for line in octets.split(b"\n"))]


def _signatures(octets: bytes) -> object:
    return read_signatures(Message(headers=(Header(b"DKIM-Signature", octets),)), DkimLimits())


def _chain(octets: bytes) -> object:
    """Each line is a field, of the three in turn."""
    fields = tuple(Header(_ARC_FIELDS[n % 3], line) for n, line in enumerate(octets.split(b"\n")))
    return read_chain(Message(headers=fields), ArcSettings())


def _sealer_s_word(octets: bytes) -> object:
    """What a trusted sealer says, whatever it is, in a chain that passes."""
    domain = Domain.parse("sealer.example")
    fields = [Header(name, b" i=1;" + octets) for name in _ARC_FIELDS]
    link = Link(
        1,
        fields[0],
        MessageSignature(header=fields[1], instance=1),
        Seal(header=fields[2], instance=1, domain=domain),
    )
    passing = ArcResult(status=ArcStatus.PASS, sets=(ArcSet(instance=1, sealer=domain),), whole=True)
    return believe(passing, (link,), domain, TrustedSealers(exact=frozenset({domain})))


_ARC_FIELDS = (b"ARC-Authentication-Results", b"ARC-Message-Signature", b"ARC-Seal")


def _road(octets: bytes) -> object:
    """Judge octets as message, envelope and HELO at once; every field that comes of it must be well formed."""
    text = octets[:300].decode("utf-8", "surrogateescape")
    _mail, verdict = asyncio.run(
        engine.verify(
            octets,
            _runtime(),
            session=Session(client_ip=IPv4Address("192.0.2.1"), helo=parse_helo(text)),
            envelope=Envelope(mail_from=parse_reverse_path(text), rcpt_to=(parse_recipient(text),)),
        )
    )
    for edit in verdict.edits:
        if isinstance(edit, InsertHeader | ChangeHeader):
            assert not re.search(rb"[\x00\x7f]|\r(?!\n)|(?<!\r)\n|\r\n(?![ \t])", edit.value), edit
            assert max(map(len, edit.value.split(b"\r\n"))) <= 998
    reply = verdict.decision.reply
    assert reply is None or (reply.text.isascii() and reply.text.isprintable())
    return verdict


_COMMANDS = b"OCHMRTLLLNBEADQKU"
_BEGIN = packet("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF))


def _conversation(octets: bytes) -> object:
    """Take octets for a milter conversation: each line is a command (its first octet chooses) and its data."""
    session = SessionFactory(
        lambda about, listener: engine.Verification(_runtime(), about, listener=listener),
        bug=_Silence().bug,
        note=_ignore,
    )("fuzz")
    lines = octets.split(b"\n")[:200]
    raw = _BEGIN + b"".join(
        packet(chr(_COMMANDS[line[0] % len(_COMMANDS)]), line[1:].replace(b"~", b"\0"))
        for line in lines
        if line
    )
    replies: list[object] = []
    for event in Decoder().feed(raw):
        reply = session.handle(event)
        if not isinstance(reply, Pending):
            replies.append(reply)
            continue
        try:
            session.answer().send(None)
        except StopIteration as done:
            replies.extend(each.wire for each in done.value)
    session.lost()
    return replies


def _ignore(name: str, sentence: str) -> None:
    assert name
    assert sentence


class _Silence:
    """A journal that turns a bug into a failed test."""

    def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:
        """Nothing is written."""

    def bug(self, where: str, error: BaseException) -> None:
        raise AssertionError(where) from error


@lru_cache(maxsize=1)
def _runtime() -> engine.Runtime:
    return a_runtime(
        "policy: enforce\nheaders: {received_spf: true}\n", {**attack_zone(), **zone()}, _Silence()
    )


_RELAY = (Domain.parse("mx.example.com"),)
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
    Parser("octets.chosen", same, (str,)),
    Parser("dkim.signature", _signatures, (tuple,)),
    Parser("arc.chain", _chain, (Chain,)),
    Parser("arc.results", _sealer_s_word, (ArcResult,)),
    Parser("headers.clauses", foreign.clauses_of, (tuple, foreign.Unparsable)),
    Parser("dkim.key", dkim_key.parse, (dkim_key.KeyRecord,)),
    Parser("dmarc.record", lambda octets: dmarc_record.select([octets]), (DmarcRecord, Absence)),
    Parser(
        "bimi.record",
        lambda octets: bimi_record.select([b"v=BIMI1; l=https://" + octets]),
        (BimiRecord, bimi_record.Fault),
    ),
    Parser(
        "bimi.selector", lambda octets: bimi_record.read_selector(b" v=BIMI1; s=" + octets), (str, type(None))
    ),
    Parser("spf.record", lambda octets: spf_record.read_record(b"v=spf1 " + octets), (spf_record.Record,)),
    Parser("headers.authserv_id", foreign.authserv_id_of, (str, foreign.Unparsable)),
    Parser("headers.foreign", foreign.read, (foreign.ForeignResults, foreign.Unparsable)),
    Parser("headers.received", lambda octets: relayed_client(octets, _RELAY), (RelayedClient, type(None))),
    Parser(
        "dns.reply",
        lambda octets: read_reply(octets, (b"example", b"com"), RdType.TXT),
        (Found, NoData, NxDomain, Failed, Alias),
    ),
    Parser("milter.decoder", lambda octets: Decoder().feed(octets), (list,), (RemoteProtocolError,)),
    Parser("milter.session", _conversation, (list,), (RemoteProtocolError,), 100_000),
    Parser("milter.listen", _text(ListenSpec.parse), (ListenSpec,), (InvalidName,)),
    Parser("bimi.svg", check_svg, (SvgReport,)),
    Parser("bimi.der", der.children, (tuple,), (der.DerError,)),
    Parser("bimi.logotype", read_logotype, (Logotype,), (LogotypeError,)),
    Parser(
        "bimi.mark_certificate",
        lambda octets: check_mark(octets, roots=TrustRoots(), now=datetime(2026, 11, 1, tzinfo=UTC)),
        (MarkReport,),
    ),
    Parser("bimi.url", _text(lambda text: parse_url(text, FetchSettings())), (Target, FetchFailure)),
    # these read what administrators write; a tenth of the octets shows as well that time is linear in their number
    Parser(
        "documents",
        _text(lambda text: documents.parse(text, "fuzz")),
        (documents.Document,),
        (ConfigError,),
        100_000,
    ),
    Parser("config", _text(lambda text: config_load.parse(text, "fuzz")), (Config,), (ConfigError,), 100_000),
    Parser(
        "policy", _text(lambda text: policy_loader.load(text, "fuzz")), (Policy,), (PolicyError,), 100_000
    ),
    Parser("the whole road", _road, (Verdict,)),
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
        _check(parser, bytes([octet]) * parser.most)


def test_each_parser_is_listed_once() -> None:
    assert len({p.name for p in PARSERS}) == len(PARSERS)
