"""The wire format: any bytes are events or a RemoteProtocolError, in whatever pieces they come."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authmilter.message import Header as HeaderField
from authmilter.milter.protocol import (
    CHUNK_SIZE,
    DEFAULT_MAX_PACKET,
    MAX_STRINGS,
    Abort,
    Action,
    AddField,
    Body,
    ChangeField,
    Connect,
    Data,
    Decoder,
    EndOfHeaders,
    EndOfMessage,
    Event,
    Family,
    Fields,
    Header,
    Helo,
    InsertField,
    Lack,
    LocalProtocolError,
    Macros,
    Mail,
    Negotiate,
    QuarantineMessage,
    Quit,
    QuitNew,
    Rcpt,
    RemoteProtocolError,
    ReplyCode,
    Stage,
    Step,
    Unknown,
    Verb,
    negotiate,
)
from tests.milter.client import ACTIONS_OF_VERSION, STEPS_OF_VERSION, packet, strings

#: Every command, as the MTA sends it and as it is read.
COMMANDS: list[tuple[bytes, Event]] = [
    (packet("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF)), Negotiate(6, 0x1FF, 0x1FFFFF)),
    (packet("O", struct.pack(">IIII", 2, 1, 3, 99)), Negotiate(2, 1, 3)),
    (
        packet("D", b"C" + strings(b"j", b"mx", b"{x}", b"")),
        Macros(Stage.CONNECT, {b"j": b"mx", b"{x}": b""}),
    ),
    (packet("D", b"M"), Macros(Stage.MAIL, {})),
    (packet("D", b"E" + strings(b"i", b"Q1", b"odd")), Macros(Stage.END_OF_MESSAGE, {b"i": b"Q1"})),
    (packet("C", b"host\x004\x12\x67192.0.2.1\0"), Connect(b"host", Family.INET, 0x1267, b"192.0.2.1")),
    (packet("C", b"host\x006\0\0IPv6:2001:db8::1\0"), Connect(b"host", Family.INET6, 0, b"IPv6:2001:db8::1")),
    (packet("C", b"localhost\0L\0\0/run/x\0"), Connect(b"localhost", Family.UNIX, 0, b"/run/x")),
    (packet("C", b"unknown\0U"), Connect(b"unknown", Family.UNKNOWN, 0, b"")),
    (packet("H", b"mail.example.org\0"), Helo(b"mail.example.org")),
    (packet("M", strings(b"<a@b.example>", b"SIZE=1")), Mail((b"<a@b.example>", b"SIZE=1"))),
    (packet("M", b"\0"), Mail((b"",))),
    (packet("R", strings(b"<a@b.example>")), Rcpt((b"<a@b.example>",))),
    (packet("T"), Data()),
    (packet("L", strings(b"From", b" a@b\n c")), Fields([HeaderField(b"From", b" a@b\r\n c")])),
    (packet("L", strings(b"X", b"")), Fields([HeaderField(b"X", b"")])),
    (packet("L", b"X\0a\0b\0"), Fields([HeaderField(b"X", b"a\0b")])),
    (packet("N"), EndOfHeaders()),
    (packet("B", b"\0\xff" * 10), Body(b"\0\xff" * 10)),
    (packet("B"), Body(b"")),
    (packet("E"), EndOfMessage(b"")),
    (packet("E", b"last"), EndOfMessage(b"last")),
    (packet("A"), Abort()),
    (packet("Q"), Quit()),
    (packet("K"), QuitNew()),
    (packet("U", b"EXPN x\0"), Unknown(b"EXPN x")),
]

#: Packets that are none, each alone.
GARBAGE: list[bytes] = [
    b"\0\0\0\0\0",
    struct.pack(">I", DEFAULT_MAX_PACKET + 1) + b"B",
    b"GET / HTTP/1.1\r\n\r\n",
    packet("Z"),
    packet("c"),
    packet("O", b"\0" * 11),
    packet("D"),
    packet("D", b"Z" + strings(b"a", b"b")),
    packet("D", b"Ca"),
    packet("C"),
    packet("C", b"host"),
    packet("C", b"host\0"),
    packet("C", b"host\0X"),
    packet("C", b"host\x004"),
    packet("C", b"host\x004\0\0"),
    packet("C", b"host\x004\0\x001.2.3.4"),
    packet("H"),
    packet("H", b"name"),
    packet("M"),
    packet("M", b"<a@b>"),
    packet("R"),
    packet("L"),
    packet("L", b"From"),
    packet("L", b"From\0"),
    packet("L", b"From\0value"),
    packet("U"),
]


def one_by_one(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, Fields):
            yield from (Fields([field]) for field in event.fields)
        else:
            yield event


def read_all(
    data: bytes, cuts: tuple[int, ...] = (), max_packet: int = DEFAULT_MAX_PACKET
) -> tuple[list[Event], str | None]:
    """Feed `data`, cut at `cuts`; return the events and the error, if there is one.

    How many header fields come in one event depends on how the bytes came: here each has its own.
    """
    decoder = Decoder(max_packet)
    events: list[Event] = []
    ends = [*sorted(c for c in cuts if 0 < c < len(data)), len(data)]
    start = 0
    for end in ends:
        try:
            events += one_by_one(decoder.feed(data[start:end]))
        except RemoteProtocolError as e:
            return [*events, *one_by_one(e.events)], str(e)
        start = end
    return events, None


@pytest.mark.parametrize(("data", "event"), COMMANDS)
def test_each_command_is_read(data: bytes, event: Event) -> None:
    assert read_all(data) == ([event], None)


def test_all_commands_in_one_piece_and_octet_by_octet() -> None:
    data = b"".join(data for data, _ in COMMANDS)
    expected = [event for _, event in COMMANDS]
    assert len(expected) == 26
    assert read_all(data) == (expected, None)
    assert read_all(data, tuple(range(len(data)))) == (expected, None)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_refused_and_stays_refused(garbage: bytes) -> None:
    decoder = Decoder()
    with pytest.raises(RemoteProtocolError):
        decoder.feed(garbage)
    with pytest.raises(RemoteProtocolError):
        decoder.feed(packet("A"))


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_came_before_the_garbage_is_kept_however_it_is_cut(garbage: bytes) -> None:
    data = packet("A") + packet("T") + garbage
    whole = read_all(data)
    assert whole[0] == [Abort(), Data()]
    assert whole[1] is not None
    assert read_all(data, tuple(range(len(data)))) == whole


_packets = st.one_of(
    st.sampled_from([data for data, _ in COMMANDS]),
    st.sampled_from(GARBAGE),
    st.binary(max_size=30),
    st.builds(lambda c, p: packet(chr(c), p), st.integers(0, 255), st.binary(max_size=40)),
)


@settings(max_examples=300)
@given(st.lists(_packets, max_size=8), st.sets(st.integers(0, 400), max_size=30))
@example([b"\0\0\0\x01"], {1})
def test_any_bytes_cut_anywhere_give_the_same_events_or_the_same_error(
    pieces: list[bytes], cuts: set[int]
) -> None:
    data = b"".join(pieces)
    whole = read_all(data)
    assert read_all(data, tuple(cuts)) == whole
    assert read_all(data, tuple(range(len(data)))) == whole


def test_an_oversized_packet_is_refused_at_its_length() -> None:
    decoder = Decoder(max_packet=100)
    assert decoder.feed(packet("B", b"x" * 99)) == [Body(b"x" * 99)]
    with pytest.raises(RemoteProtocolError, match="101 octets"):
        decoder.feed(packet("B", b"x" * 100)[:5])


def test_the_default_limit_takes_a_header_field_of_postfix() -> None:
    value = b"x" * 102400
    assert read_all(packet("L", strings(b"Subject", value))) == (
        [Fields([HeaderField(b"Subject", value)])],
        None,
    )
    assert DEFAULT_MAX_PACKET > CHUNK_SIZE + 1


def test_fields_that_come_together_are_one_event_with_their_folds_as_crlf() -> None:
    values = (b" a", b" b\n c", b" d\r\n\te", b"", b"\n", b"\r")
    data = b"".join(packet("L", strings(b"X-%d" % n, value)) for n, value in enumerate(values))
    read = Decoder().feed(packet("T") + data + packet("N") + data[:20])
    folded = (b" a", b" b\r\n c", b" d\r\n\te", b"", b"\r\n", b"\r")
    fields = Fields([HeaderField(b"X-%d" % n, value) for n, value in enumerate(folded)])
    assert read == [Data(), fields, EndOfHeaders(), Fields([HeaderField(b"X-0", b" a")])]
    assert all(type(field) is HeaderField for field in fields.fields)


def test_a_packet_in_many_pieces_is_held_once() -> None:
    decoder = Decoder()
    data = packet("B", b"x" * 60000)
    for at in range(0, len(data) - 1, 7):
        assert decoder.feed(data[at : min(at + 7, len(data) - 1)]) == []
    assert decoder.held == len(data) - 1
    assert decoder.feed(data[-1:]) == [Body(b"x" * 60000)]
    assert decoder.held == 0


def test_strings_beyond_the_limit_are_dropped() -> None:
    events, error = read_all(packet("M", b"a\0" * 5000) + packet("D", b"C" + b"a\0b\0" * 5000))
    assert error is None
    mail, macros = events
    assert isinstance(mail, Mail)
    assert len(mail.args) == MAX_STRINGS
    assert macros == Macros(Stage.CONNECT, {b"a": b"b"})


# -- replies -----------------------------------------------------------------------------------------------------


def test_replies_without_arguments() -> None:
    wires = {verb.name: verb.wire for verb in Verb}
    assert wires == {
        "CONTINUE": b"\0\0\0\1c",
        "ACCEPT": b"\0\0\0\1a",
        "REJECT": b"\0\0\0\1r",
        "TEMPFAIL": b"\0\0\0\1t",
        "DISCARD": b"\0\0\0\1d",
        "SKIP": b"\0\0\0\1s",
        "PROGRESS": b"\0\0\0\1p",
        "SHUTDOWN": b"\0\0\0\x014",
    }


def test_an_smtp_reply_doubles_its_per_cent_signs() -> None:
    assert ReplyCode(550, "5.7.26", ("100% forged %s",)).wire == packet("y", b"550 5.7.26 100%% forged %%s\0")


def test_an_smtp_reply_of_several_lines() -> None:
    assert ReplyCode(451, "4.3.0", ("a", "b", "c")).wire == packet(
        "y", b"451-4.3.0 a\r\n451-4.3.0 b\r\n451 4.3.0 c\0"
    )


@pytest.mark.parametrize(
    ("code", "enhanced", "lines"),
    [
        (250, "2.0.0", ("ok",)),
        (600, "6.0.0", ("no",)),
        (550, "4.7.1", ("classes differ",)),
        (550, "5.7.1", ()),
        (550, "5.7.1", ("a\r\n250 ok",)),
        (550, "5.7.1", ("a\0",)),
        (550, "5.7.1", ("naïve",)),
        (550, "5.7.1\r\n", ("x",)),
    ],
)
def test_an_smtp_reply_that_postfix_would_refuse_cannot_be_made(
    code: int, enhanced: str, lines: tuple[str, ...]
) -> None:
    with pytest.raises(LocalProtocolError):
        ReplyCode(code, enhanced, lines)


def test_edits_on_the_wire() -> None:
    assert InsertField(0, b"X-A", b" v\n w").wire == packet("i", b"\0\0\0\0X-A\0 v\n w\0")
    assert ChangeField(3, b"X-A", b"").wire == packet("m", b"\0\0\0\3X-A\0\0")
    assert AddField(b"X-A", b"v").wire == packet("h", b"X-A\0v\0")
    assert QuarantineMessage("held").wire == packet("q", b"held\0")


@pytest.mark.parametrize("value", [b"a\r\n b", b"a\0b", b"a\nX: b", b"a\n", b"a\n \n b", b"a\n\t"])
def test_a_value_that_would_not_stay_one_field_cannot_be_made(value: bytes) -> None:
    for make in (
        lambda: InsertField(0, b"X", value),
        lambda: ChangeField(1, b"X", value),
        lambda: AddField(b"X", value),
    ):
        with pytest.raises(LocalProtocolError):
            make()


@pytest.mark.parametrize("name", [b"", b"X:", b"X Y", b"X\0", b"X\r\nY", b"\xc3\xa9"])
def test_a_name_that_is_none_cannot_be_made(name: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        InsertField(0, name, b"v")


def test_other_things_that_cannot_be_sent() -> None:
    for at in (-1, 2**32):
        with pytest.raises(LocalProtocolError):
            InsertField(at, b"X", b"v")
    for reason in ("", "a\nb", "é"):
        with pytest.raises(LocalProtocolError):
            QuarantineMessage(reason)


# -- negotiation -------------------------------------------------------------------------------------------------


def test_postfix_of_today_gets_everything_we_want() -> None:
    abilities, reply = negotiate(Negotiate(6, 0x1FF, 0x1FFFFF), want_skip=False)
    assert abilities.missing == ()
    assert abilities.answers == {}
    assert abilities.can_add
    assert abilities.can_change
    assert abilities.can_quarantine
    assert abilities.leading_space
    assert not abilities.can_skip
    assert reply.version == 6
    assert (
        reply.actions == Action.ADD_HEADERS | Action.CHANGE_HEADERS | Action.QUARANTINE | Action.SET_SYMBOLS
    )
    wanted = Step(reply.steps)
    assert Step.NO_REPLY_BODY in wanted
    assert Step.NO_UNKNOWN in wanted
    assert Step.NO_DATA in wanted
    assert not wanted & (
        Step.NO_HEADERS | Step.NO_BODY | Step.NO_MAIL | Step.NO_RCPT | Step.REJECTED_RCPT | Step.CHUNKS_1M
    )
    lists = dict(reply.symbols)
    assert b"{auth_authen}" in lists[2].split()
    assert b"{auth_author}" not in b" ".join(lists.values())
    assert reply.wire.startswith(
        struct.pack(">IcIII", len(reply.wire) - 4, b"O", 6, reply.actions, reply.steps)
    )


def test_with_a_body_cap_body_replies_are_kept_for_skip() -> None:
    abilities, reply = negotiate(Negotiate(6, 0x1FF, 0x1FFFFF), want_skip=True)
    assert abilities.can_skip
    assert abilities.answers == {Body: Verb.CONTINUE}
    assert reply.steps & Step.SKIP
    assert not reply.steps & Step.NO_REPLY_BODY
    older, _ = negotiate(Negotiate(6, 0x1FF, 0x1FFFFF & ~Step.SKIP), want_skip=True)
    assert older.missing == (Lack.SKIP,)
    assert not older.can_skip
    assert older.answers == {}


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_each_version_gets_the_and_of_its_offer(version: int) -> None:
    offer = Negotiate(version, ACTIONS_OF_VERSION[version], STEPS_OF_VERSION[version])
    abilities, reply = negotiate(offer, want_skip=False)
    assert reply.version == abilities.version == version
    assert reply.actions & ~offer.actions == 0
    assert reply.steps & ~offer.steps == 0
    if version < 6:
        assert set(abilities.missing) == {Lack.SYMBOLS, Lack.LEADING_SPACE, Lack.NO_REPLY}
        assert reply.symbols == ()
        assert (Header in abilities.answers) == (version < 4)
        assert Connect in abilities.answers


def test_a_newer_version_is_answered_with_ours_and_an_older_one_refused() -> None:
    assert negotiate(Negotiate(9, 0x1FF, 0x1FFFFF), want_skip=False)[1].version == 6
    for version in (0, 1):
        with pytest.raises(RemoteProtocolError):
            negotiate(Negotiate(version, 0x1FF, 0x1FFFFF), want_skip=False)


@pytest.mark.parametrize(
    ("lack", "actions", "steps"),
    [
        (Lack.ADD_HEADERS, Action.ADD_HEADERS, 0),
        (Lack.CHANGE_HEADERS, Action.CHANGE_HEADERS, 0),
        (Lack.QUARANTINE, Action.QUARANTINE, 0),
        (Lack.SYMBOLS, Action.SET_SYMBOLS, 0),
        (Lack.LEADING_SPACE, 0, Step.LEADING_SPACE),
        *(
            (Lack.NO_REPLY, 0, step)
            for step in Step
            if step.name and step.name.startswith("NO_REPLY") and step is not Step.NO_REPLY_BODY
        ),
    ],
)
def test_each_missing_ability_is_named(lack: Lack, actions: int, steps: int) -> None:
    abilities, reply = negotiate(Negotiate(6, 0x1FF & ~actions, 0x1FFFFF & ~steps), want_skip=False)
    assert abilities.missing == (lack,)
    assert not reply.actions & actions
    assert not reply.steps & steps


@given(
    version=st.integers(2, 2**32 - 1),
    actions=st.integers(0, 2**32 - 1),
    steps=st.integers(0, 2**32 - 1),
    want_skip=st.booleans(),
)
def test_nothing_is_asked_for_that_was_not_offered(
    *, version: int, actions: int, steps: int, want_skip: bool
) -> None:
    abilities, reply = negotiate(Negotiate(version, actions, steps), want_skip=want_skip)
    assert reply.version <= version
    assert reply.actions & ~actions == 0
    assert reply.steps & ~steps == 0
    assert bool(reply.symbols) == bool(actions & Action.SET_SYMBOLS)
    assert abilities.can_skip == (want_skip and bool(steps & Step.SKIP))
    if abilities.can_skip:
        assert Body in abilities.answers


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"\n", b"\r", b"\0", b" ", b"\t", b"\v", b"\f", b"a", b"X: y", b"\xa0"]), max_size=9
    )
)
def test_a_value_is_refused_exactly_where_a_line_of_it_could_be_taken_for_more_than_a_fold(
    pieces: list[bytes],
) -> None:
    value = b"".join(pieces)
    rest = value.split(b"\n")[1:]
    stays = (
        b"\r" not in value
        and b"\0" not in value
        and all(line[:1] in {b" ", b"\t"} and line.strip() for line in rest)
    )
    try:
        InsertField(0, b"X", value)
    except LocalProtocolError:
        assert not stays
    else:
        assert stays
