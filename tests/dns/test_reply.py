"""Reading a server's message: every case of RFC 1035, 2308, 6604 and 6891 that a stub meets; and any bytes at all."""

from __future__ import annotations

import itertools
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Mx, NoData, NxDomain, RdType
from authmilter.dns.transport import is_reply
from authmilter.dns.wire import Alias, read_reply
from tests.support import dnspython_reply
from tests.support.nameserver import TYPES, Header, record, soa_record, wire_name

NAME = (b"example", b"com")
QUESTION = wire_name(NAME) + struct.pack("!HH", TYPES["TXT"], 1)
HEADER = Header(1, QUESTION, 1232)
ROOT_SOA = soa_record(300, 60)


def read(
    *,
    answers: list[bytes] | None = None,
    authority: list[bytes] | None = None,
    rcode: int = 0,
    flags: int = 0,
    rdtype: RdType = RdType.TXT,
) -> Answer | Alias:
    wire = HEADER.message(answers=answers, authority=authority, rcode=rcode, flags=flags)
    return read_reply(wire, NAME, rdtype)


def txt(*strings: bytes, owner: tuple[bytes, ...] = NAME, ttl: int = 300) -> bytes:
    return record(owner, "TXT", ttl, b"".join(bytes((len(s),)) + s for s in strings))


def cname(owner: tuple[bytes, ...], target: tuple[bytes, ...], ttl: int = 300) -> bytes:
    return record(owner, "CNAME", ttl, wire_name(target))


def kind_of(answer: Answer | Alias) -> FailureKind:
    assert isinstance(answer, Failed), answer
    return answer.kind


def test_the_strings_of_a_txt_record_are_joined_as_octets() -> None:
    assert read(answers=[txt(b"v=spf1 ", b"\xff\x00", b""), txt(b"")]) == Found(
        (b"v=spf1 \xff\x00", b""), 300.0
    )


def test_every_type_is_read() -> None:
    address = record(NAME, "A", 5, bytes((192, 0, 2, 1)))
    assert read(answers=[address], rdtype=RdType.A) == Found((IPv4Address("192.0.2.1"),), 5.0)
    address = record(NAME, "AAAA", 5, IPv6Address("2001:db8::1").packed)
    assert read(answers=[address], rdtype=RdType.AAAA) == Found((IPv6Address("2001:db8::1"),), 5.0)
    mx = [
        record(NAME, "MX", 5, b"\x00\x0a" + wire_name((b"MX", b"Example"))),
        record(NAME, "MX", 5, b"\x00\x00\x00"),
    ]
    assert read(answers=mx, rdtype=RdType.MX) == Found((Mx(10, "mx.example"), Mx(0, "")), 5.0)
    ptr = record(NAME, "PTR", 5, wire_name((b"Host", b"EXAMPLE")))
    assert read(answers=[ptr], rdtype=RdType.PTR) == Found(("host.example",), 5.0)


def test_a_compressed_name_in_record_data_is_read() -> None:
    data = b"\x00\x05\x02mx\xc0\x0c"
    assert read(answers=[record(NAME, "MX", 5, data)], rdtype=RdType.MX) == Found(
        (Mx(5, "mx.example.com"),), 5.0
    )


def test_names_that_no_question_can_hold_are_written_so_that_they_deceive_nobody() -> None:
    target = wire_name((b"evil.example\x00\n", b"\xe9\\", b"com"))
    assert read(answers=[record(NAME, "PTR", 5, target)], rdtype=RdType.PTR) == Found(
        ("evil\\046example\\000\\010.\\233\\.com",), 5.0
    )


def test_the_ttl_is_the_smallest_of_the_set_and_of_the_chain() -> None:
    www = (b"www", b"example")
    answers = [cname(NAME, www, ttl=70), txt(b"a", owner=www, ttl=90), txt(b"b", owner=www, ttl=80)]
    assert read(answers=answers) == Found((b"a", b"b"), 70.0)
    answers = [cname(NAME, www, ttl=100), txt(b"a", owner=www, ttl=90), txt(b"b", owner=www, ttl=80)]
    assert read(answers=answers) == Found((b"a", b"b"), 80.0)


def test_a_ttl_with_its_topmost_bit_set_is_zero() -> None:
    assert read(answers=[txt(b"a", ttl=1 << 31)]) == Found((b"a",), 0.0)
    assert read(answers=[txt(b"a", ttl=(1 << 31) - 1)]) == Found((b"a",), float((1 << 31) - 1))


def test_a_chain_is_followed_in_any_order_and_case() -> None:
    b, c = (b"B", b"Example"), (b"c", b"example")
    answers = [
        txt(b"x", owner=(b"C", b"eXample")),
        cname((b"b", b"example"), c),
        cname((b"EXAMPLE", b"com"), b),
    ]
    assert read(answers=answers) == Found((b"x",), 300.0)


def test_a_chain_of_eleven_is_followed_and_one_of_twelve_or_a_circle_is_a_failure() -> None:
    names = [NAME, *((b"n%d" % i,) for i in range(12))]
    links = [cname(a, b) for a, b in itertools.pairwise(names)]
    assert read(answers=[*links[:11], txt(b"x", owner=names[11])]) == Found((b"x",), 300.0)
    assert kind_of(read(answers=[*links, txt(b"x", owner=names[12])])) is FailureKind.SERVFAIL
    assert kind_of(read(answers=[cname(NAME, (b"a",)), cname((b"a",), NAME)])) is FailureKind.SERVFAIL


def test_a_record_is_counted_once_and_only_for_the_name_asked() -> None:
    answers = [txt(b"a"), txt(b"a"), txt(b"forged", owner=(b"other", b"example")), txt(b"b")]
    assert read(answers=answers) == Found((b"a", b"b"), 300.0)


def test_records_of_another_class_or_type_are_skipped() -> None:
    chaos = wire_name(NAME) + struct.pack("!HHIH", TYPES["TXT"], 3, 300, 2) + b"\x01x"
    address = record(NAME, "A", 5, bytes(4))
    assert read(answers=[chaos, address], authority=[ROOT_SOA]) == NoData(60.0)


@pytest.mark.parametrize(
    ("ttl", "minimum", "kept"), [(300, 60, 60.0), (60, 300, 60.0), (1 << 31, 60, 0.0), (0, 9, 0.0)]
)
def test_absence_is_kept_for_the_smaller_of_the_soas_ttl_and_minimum(
    ttl: int, minimum: int, kept: float
) -> None:
    assert read(authority=[soa_record(ttl, minimum)]) == NoData(kept)
    assert read(authority=[soa_record(ttl, minimum)], rcode=3) == NxDomain(kept)


def test_absence_without_a_soa_of_a_zone_above_is_not_kept() -> None:
    other = soa_record(300, 60, owner=(b"other",))
    assert read() == NoData(0.0)
    assert read(rcode=3) == NxDomain(0.0)
    assert read(authority=[other], rcode=3) == NxDomain(0.0)
    assert read(authority=[soa_record(300, 60, owner=(b"COM",))], rcode=3) == NxDomain(60.0)


def test_nxdomain_at_the_end_of_a_chain_is_nxdomain() -> None:
    answer = read(answers=[cname(NAME, (b"gone",), ttl=30)], authority=[ROOT_SOA], rcode=3)
    assert answer == NxDomain(30.0)


def test_no_data_at_the_end_of_a_chain_needs_a_soa_else_the_target_is_asked() -> None:
    target = (b"www", b"example")
    link = cname(NAME, target, ttl=30)
    assert read(answers=[link], authority=[ROOT_SOA]) == NoData(30.0)
    assert read(answers=[link]) == Alias(target, 30.0, 1)
    assert read(answers=[link], authority=[soa_record(300, 60, owner=(b"com",))]) == Alias(target, 30.0, 1)


def test_records_of_a_name_that_does_not_exist_are_no_answer() -> None:
    assert kind_of(read(answers=[txt(b"a")], rcode=3)) is FailureKind.MALFORMED


@pytest.mark.parametrize(
    ("rcode", "kind"), [(2, "servfail"), (1, "refused"), (4, "refused"), (5, "refused"), (9, "refused")]
)
def test_any_other_rcode_is_a_failure(rcode: int, kind: str) -> None:
    assert kind_of(read(rcode=rcode, answers=[txt(b"a")])) == kind


def test_the_upper_bits_of_the_rcode_are_read_where_nothing_was_found() -> None:
    opt = struct.pack("!BHHIH", 0, TYPES["OPT"], 1232, 1 << 24, 0)
    wire = bytearray(Header(1, QUESTION, 0).message())
    wire[11] = 1
    answer = read_reply(bytes(wire) + opt, NAME, RdType.TXT)
    assert answer == Failed(FailureKind.REFUSED, "answered BADVERS")


def test_a_referral_is_not_taken_for_absence() -> None:
    ns = record((b"com",), "NS", 300, wire_name((b"ns",)))
    assert kind_of(read(authority=[ns])) is FailureKind.REFUSED
    # RFC 2308 §2.2: no-data of type 1 has both
    assert read(authority=[ns, ROOT_SOA]) == NoData(60.0)
    assert read(authority=[ns], flags=0x0400) == NoData(0.0)


def test_truncation_in_a_whole_message_is_malformed() -> None:
    assert kind_of(read(answers=[txt(b"a")], flags=0x0200)) is FailureKind.MALFORMED


@pytest.mark.parametrize(
    "answers",
    [
        [record(NAME, "TXT", 300, b"\x05abc")],
        [record(NAME, "TXT", 300, b"\x01ab")],
        [b"\xc0\x0c"],
        [b"\xc0\xff" + txt(b"a")],
        [b"\x80" + txt(b"a")],
        [b"\x3f" * 300],
    ],
)
def test_bytes_that_are_no_records_are_malformed(answers: list[bytes]) -> None:
    assert kind_of(read(answers=answers)) is FailureKind.MALFORMED


def test_a_message_cut_short_anywhere_is_malformed() -> None:
    wire = Header(1, QUESTION, 0).message(answers=[txt(b"v=spf1 -all"), txt(b"b")])
    assert isinstance(read_reply(wire, NAME, RdType.TXT), Found)
    for size in range(len(wire)):
        assert kind_of(read_reply(wire[:size], NAME, RdType.TXT)) is FailureKind.MALFORMED


@pytest.mark.parametrize(
    ("rdtype", "data"),
    [
        (RdType.A, bytes(3)),
        (RdType.A, bytes(5)),
        (RdType.AAAA, bytes(4)),
        (RdType.MX, b"\x00"),
        (RdType.MX, b"\x00\x01"),
        (RdType.MX, b"\x00\x01\x00\x00"),
        (RdType.PTR, b""),
        (RdType.PTR, b"\x02a\x00"),
        (RdType.PTR, b"\xff\xff"),
    ],
)
def test_record_data_of_the_wrong_length_is_malformed(rdtype: RdType, data: bytes) -> None:
    assert kind_of(read(answers=[record(NAME, rdtype, 300, data)], rdtype=rdtype)) is FailureKind.MALFORMED


def test_more_than_a_thousand_records_are_refused() -> None:
    assert kind_of(read(answers=[txt(b"%d" % i) for i in range(1001)])) is FailureKind.MALFORMED
    assert isinstance(read(answers=[txt(b"%d" % i) for i in range(999)]), Found)


def test_a_message_answers_its_own_question_only() -> None:
    wire = HEADER.message(answers=[txt(b"a")])
    other = wire_name((b"other", b"com")) + QUESTION[-4:]
    assert is_reply(wire, 1, QUESTION)
    assert is_reply(wire.replace(b"example", b"eXAMPLE"), 1, QUESTION)
    assert not is_reply(wire, 2, QUESTION)
    assert not is_reply(wire, 1, other)
    assert not is_reply(wire, 1, QUESTION[:-4] + struct.pack("!HH", TYPES["A"], 1))
    assert not is_reply(wire[:2] + b"\x01" + wire[3:], 1, QUESTION), "a query is no answer"
    assert not is_reply(wire[:2] + b"\xa8" + wire[3:], 1, QUESTION), "another opcode"
    assert not is_reply(wire[:11], 1, QUESTION)


@pytest.mark.parametrize("rcode", range(16))
def test_only_four_failures_may_leave_the_question_out(rcode: int) -> None:
    wire = Header(1, b"", 0).message(rcode=rcode)
    assert is_reply(wire, 1, QUESTION) is (rcode in {1, 2, 4, 5})


def total(wire: bytes, rdtype: RdType) -> None:
    answer = read_reply(wire, NAME, rdtype)
    if wire[12 : 12 + len(QUESTION) - 4].lower() == QUESTION[:-4]:  # what has another question is not read
        assert answer == dnspython_reply.read_reply(wire, NAME, rdtype)
    assert isinstance(answer, Found | NoData | NxDomain | Failed | Alias)
    if isinstance(answer, Found):
        assert answer.records
        assert all(name.isprintable() and name.isascii() for name in answer.names())
        assert all(mx.exchange.isprintable() and mx.exchange.isascii() for mx in answer.exchanges())
        assert 0 <= answer.ttl < 1 << 31


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(RdType))
def test_any_bytes_are_an_answer(wire: bytes, rdtype: RdType) -> None:
    total(wire, rdtype)


@settings(max_examples=300)
@given(
    counts=st.tuples(*[st.integers(0, 4)] * 3),
    rcode=st.sampled_from((0, 0, 0, 3)),
    body=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.builds(
                record,
                st.sampled_from([NAME, (), (b"a",)]),
                st.sampled_from([*RdType, "CNAME", "SOA", "NS"]),
                st.integers(0, (1 << 32) - 1),
                st.one_of(
                    st.binary(max_size=24),
                    st.sampled_from([wire_name(NAME), wire_name((b"a",)), b"\xc0\x0c"]),
                ),
            ),
        ),
        max_size=6,
    ),
    rdtype=st.sampled_from(RdType),
)
def test_any_bytes_after_a_good_header_are_an_answer(
    counts: tuple[int, int, int], rcode: int, body: list[bytes], rdtype: RdType
) -> None:
    head = struct.pack("!HHHHHH", 1, 0x8180 | rcode, 1, *counts)
    total(head + QUESTION + b"".join(body), rdtype)


@settings(max_examples=300)
@given(st.data())
def test_a_good_message_with_a_few_octets_changed_is_an_answer(data: st.DataObject) -> None:
    target = (b"www", b"example")
    answers = [
        cname(NAME, target),
        txt(b"v=spf1 -all", owner=target),
        record(target, "MX", 5, b"\x00\x01\xc0\x0c"),
    ]
    wire = bytearray(HEADER.message(answers=answers, authority=[ROOT_SOA]))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    total(bytes(wire), data.draw(st.sampled_from(RdType)))


_NAMES = st.one_of(
    st.builds(wire_name, st.sampled_from([NAME, (b"A", b"b"), (b"x" * 63,) * 4, ()])),
    st.integers(0, 120).map(lambda at: bytes((0xC0, at))),
    st.builds(
        lambda label, at: bytes((len(label),)) + label + bytes((0xC0, at)),
        st.sampled_from([b"mx", b"y" * 63]),
        st.integers(0, 120),
    ),
)


@st.composite
def _compressed(draw: st.DrawFn) -> bytes:
    """A record whose owner and data may be continued anywhere in the message, or nowhere."""
    kind = draw(st.sampled_from(["MX", "PTR", "CNAME", "SOA"]))
    data = draw(_NAMES)
    if kind == "MX":
        data = b"\x00\x05" + data
    elif kind == "SOA":
        data += draw(_NAMES) + bytes(19) + b"\x07"
    head = struct.pack("!HHIH", TYPES[kind], 1, draw(st.integers(0, 9)), len(data))
    owner: bytes = draw(st.one_of(st.just(b"\xc0\x0c"), _NAMES))
    return owner + head + data


@settings(max_examples=500)
@given(
    answers=st.lists(_compressed(), max_size=5),
    authority=st.lists(_compressed(), max_size=2),
    rdtype=st.sampled_from([RdType.MX, RdType.PTR, RdType.TXT]),
)
def test_compressed_names_are_read_as_dnspython_reads_them(
    answers: list[bytes], authority: list[bytes], rdtype: RdType
) -> None:
    total(HEADER.message(answers=answers, authority=authority), rdtype)


def test_a_name_in_more_than_seventeen_pieces_is_malformed() -> None:
    # a chain of pointers, each to the one before it, in the data of a record that is skipped
    first = len(HEADER.message()[: 12 + len(QUESTION)]) + len(NAME) + sum(map(len, NAME)) + 1 + 10
    for hops in (16, 17):
        chain = b"\x00" + b"".join(
            struct.pack("!H", 0xC000 | max(first, first + 2 * n - 1)) for n in range(hops - 1)
        )
        skipped = record(NAME, "NS", 5, chain)
        last = first + len(chain) - 2
        answers = [skipped, record(NAME, "PTR", 5, struct.pack("!H", 0xC000 | last))]
        answer = read(answers=answers, rdtype=RdType.PTR)
        assert (answer == Found(("",), 5.0)) is (hops == 16), hops
