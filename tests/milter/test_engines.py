"""Two engines, one session: the same traffic gives the same calls and the same outcome in both.

Each scenario is played to the native engine and to libmilter, in processes of their own, by a client that speaks as
Postfix does. What differs is named where it does (a limit of libmilter or pymilter, see `_pymilter`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.milter.client import (
    ADDHDRS,
    ALL_ACTIONS,
    ALL_STEPS,
    CHGHDRS,
    LEADSPC,
    NR_BODY,
    NR_HDR,
    QUARANTINE,
    SETSYMLIST,
    SKIP,
    Client,
    Conversation,
    MilterGone,
    Offer,
    Outcome,
    converse,
    deliver,
    deliver_all,
    open_stream,
    packet,
    split_message,
)
from tests.milter.fakes import Call
from tests.milter.processes import Engine, engine_process

Play = Callable[[Engine], Coroutine[Any, Any, object]]

RAW = (
    b"From: alice@example.org\r\nX-Old: 1\r\nSubject: a\r\n\tfolded\r\nX-Old:2\r\nx-old:  3\r\nX-Empty:\r\n"
    b"X-Eight: \xff\xc3\xb6\r\n\r\nHello\r\n.dot\r\n"
)


def sender(local: str) -> Client:
    return Client(mail_from=(f"<{local}@example.org>".encode(),))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    folder = tmp_path_factory.mktemp("engines")
    with engine_process("native", folder) as native, engine_process("libmilter", folder) as libmilter:
        yield native, libmilter


@pytest.fixture(scope="module")
def capped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    folder = tmp_path_factory.mktemp("capped")
    with (
        engine_process("native", folder, body_cap=100_000) as native,
        engine_process("libmilter", folder, body_cap=100_000) as libmilter,
    ):
        yield native, libmilter


def play(engine: Engine, scenario: Play) -> tuple[object, list[Call]]:
    """Play a scenario; return its outcome and the calls that it made, but for what comes at its own time (queue ids)."""
    before = len(engine.calls())
    outcome = asyncio.run(asyncio.wait_for(scenario(engine), 60))
    calls = [call for call in engine.calls()[before:] if call[0] not in {"note", "queue_id"}]
    return outcome, [tuple(part.replace(engine.address, "LISTENER") for part in call) for call in calls]


def both(engines: tuple[Engine, Engine], scenario: Play) -> tuple[object, list[Call]]:
    """Play a scenario to both engines and find the same."""
    native, libmilter = (play(engine, scenario) for engine in engines)
    assert libmilter == native
    return native


def one(raw: bytes = RAW, client: Client | None = None, offer: Offer | None = None) -> Play:
    async def scenario(engine: Engine) -> Outcome:
        outcome = await deliver(engine.address, raw, client, offer=offer)
        outcome.progress = min(outcome.progress, 1)
        return outcome

    return scenario


CLIENTS = {
    "plain": Client(),
    "null sender": Client(mail_from=(b"<>", b"SIZE=1")),
    "null sender of cleanup": Client(
        mail_from=(b"",), hostname=b"localhost", address=b"127.0.0.1", helo=b"localhost"
    ),
    "bare": Client(
        mail_from=(b"alice@example.org",), rcpt_to=((b"bob@rig.example",), (b"carol@rig.example",))
    ),
    "utf-8": Client(
        mail_from=("<jörg@exämple.org>".encode(), b"SMTPUTF8"), rcpt_to=(("<é@rig.example>".encode(),),)
    ),
    "raw octets": Client(mail_from=(b"<a\xff@example.org>",), rcpt_to=((b"<b\xfe@rig.example>",),)),
    "malformed": Client(mail_from=(b"<(any@legit.example>",), rcpt_to=((b"<>",),)),
    "many": Client(rcpt_to=tuple((f"<r{n}@rig.example>".encode(), b"NOTIFY=NEVER") for n in range(50))),
    "authenticated": Client(
        macros={
            "M": {"{auth_type}": b"PLAIN", "{auth_authen}": b"alice", "{auth_author}": b"mallory"},
            "H": {
                "{tls_version}": b"TLSv1.3",
                "{cipher}": b"AES",
                "{cert_subject}": b"CN",
                "{verify}": b"OK",
            },
        }
    ),
    "sendmail": Client(macros={"M": {"i": b"early"}, "C": {"{daemon_name}": b"MTA"}}, queue_id=b"early"),
    "ipv6": Client(family="6", address=b"2001:db8::1"),
    "ipv6 of sendmail": Client(family="6", address=b"IPv6:2001:db8::1"),
    "mapped": Client(family="6", address=b"::ffff:192.0.2.1"),
    "unix": Client(family="L", address=b"/run/x", hostname=b"localhost"),
    "unknown": Client(family="U", hostname=b"unknown", address=b"unknown"),
    "no helo": Client(helo=None),
    "literal helo": Client(helo=b"[192.0.2.1]"),
    "odd helo": Client(helo=b"(any 'thing"),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_and_envelopes(engines: tuple[Engine, Engine], name: str) -> None:
    outcome, calls = both(engines, one(client=CLIENTS[name]))
    assert isinstance(outcome, Outcome)
    assert outcome.final == "accept"
    assert [call[0] for call in calls if call[0] in {"begin", "headers", "verdict"}] == [
        "begin",
        "headers",
        "verdict",
    ]
    assert sum(call[0] == "recipient" for call in calls) == len(CLIENTS[name].rcpt_to)


MESSAGES = {
    "plain": RAW,
    "empty": b"\r\n\r\n",
    "no body": b"From: a@b.example\r\n\r\n",
    "no header": b"\r\n\r\nHello\r\n",
    "bare line ends": b"From: a@b.example\r\nX: a\rb\r\n\r\na\nb\rc\r\n",
    "large": b"From: a@b.example\r\n\r\n" + b"0123456789abcdef" * 20_000,
    "eight bit": b"Subject: \xe4\xf6\xfc\r\n\r\n\x80\x81\xff\r\n",
    "many fields": b"X-Field: value\r\n" * 3000 + b"\r\nHello\r\n",
    "long field": b"Subject: " + b"x" * 60_000 + b"\r\n\r\nHello\r\n",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(engines: tuple[Engine, Engine], name: str) -> None:
    outcome, calls = both(engines, one(MESSAGES[name]))
    assert isinstance(outcome, Outcome)
    assert outcome.final == "accept"
    body = split_message(MESSAGES[name])[1]
    assert sum(int(call[1]) for call in calls if call[0] == "body") == len(body)


@pytest.mark.parametrize(
    ("local", "final", "reply"),
    [
        ("accept", "accept", ""),
        ("bodyless", "accept", ""),
        ("reject", "reject", "550 5.7.26 100% of %s refused"),
        ("tempfail", "tempfail", "451 4.7.24 later"),
        ("shutdown", "tempfail", "421 4.7.0 go away"),
        ("discard", "discard", ""),
        ("slow", "accept", ""),
        ("never", "tempfail", "451 4.3.0 Internal error, please try again later"),
        ("cancelled", "tempfail", "451 4.3.0 Internal error, please try again later"),
        ("bug", "tempfail", "451 4.3.0 Internal error, please try again later"),
        ("unsendable", "tempfail", "451 4.3.0 Internal error, please try again later"),
    ],
)
def test_verdicts(engines: tuple[Engine, Engine], local: str, final: str, reply: str) -> None:
    outcome, calls = both(engines, one(client=sender(local)))
    assert isinstance(outcome, Outcome)
    assert (outcome.final, outcome.reply) == (final, reply)
    assert outcome.progress == (local in {"slow", "never"})
    broken = local in {"never", "cancelled", "bug", "unsendable"}
    assert sum(call[0] == "bug" for call in calls) == broken
    assert sum(call[0] == "cancel" for call in calls) == broken


def test_a_long_reply(engines: tuple[Engine, Engine]) -> None:
    outcome, _ = both(engines, one(client=sender("long")))
    assert isinstance(outcome, Outcome)
    assert len(outcome.reply.split("\r\n")) == 4


EDITED = (
    b"Authentication-Results: mx.rig.example;\r\n\tspf=pass\r\n"
    b"X-Second: x\r\nX-First: one;\r\n two\r\n"
    b"Received: by mx.rig.example; Mon, 1 Jun 2026 10:00:00 +0000\r\n"
    b"From: alice@example.org\r\nSubject: [SPAM] j\xc3\xb6rg\r\nX-Old:2\r\nX-Empty:\r\nX-Eight: \xff\xc3\xb6\r\n"
)


def test_edits(engines: tuple[Engine, Engine]) -> None:
    outcome, _ = both(engines, one(client=sender("edits")))
    assert isinstance(outcome, Outcome)
    assert (outcome.final, outcome.quarantined) == ("accept", "held for review")
    assert outcome.header_block == EDITED


def test_a_value_that_is_not_utf8_is_left_out_by_pymilter_alone(engines: tuple[Engine, Engine]) -> None:
    names = []
    for engine in engines:
        outcome, _ = play(engine, one(client=sender("latin1")))
        assert isinstance(outcome, Outcome)
        assert outcome.final == "accept"
        names.append([name for _, _, name, _ in outcome.edits])
    assert names == [[b"Subject", b"X-First"], [b"X-First"]]
    assert [call[1] for call in engines[1].calls() if call[0] == "note"][-1] == "milter_edit_not_possible"


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_versions(engines: tuple[Engine, Engine], version: int) -> None:
    offer = Offer.of_version(version)
    outcome, _ = both(engines, one(client=sender("edits"), offer=offer))
    assert isinstance(outcome, Outcome)
    assert (outcome.final, outcome.quarantined) == ("accept", "held for review")
    assert outcome.header_block == EDITED


@pytest.mark.parametrize(
    "missing", [ADDHDRS, CHGHDRS, QUARANTINE, SETSYMLIST, ADDHDRS | CHGHDRS | QUARANTINE]
)
def test_missing_actions(engines: tuple[Engine, Engine], missing: int) -> None:
    outcome, _ = both(engines, one(client=sender("edits"), offer=Offer(actions=ALL_ACTIONS & ~missing)))
    assert isinstance(outcome, Outcome)
    assert outcome.final == "accept"
    assert (outcome.quarantined is None) == bool(missing & QUARANTINE)
    assert {command for command, *_ in outcome.edits} == {"m", "i"} - (
        {"i"} if missing & ADDHDRS else set()
    ) - ({"m"} if missing & CHGHDRS else set())


@pytest.mark.parametrize(
    "missing", [1 << n for n in range(7, 21)] + [NR_HDR | NR_BODY | LEADSPC | SKIP, ALL_STEPS]
)
def test_missing_steps(engines: tuple[Engine, Engine], missing: int) -> None:
    outcome, _ = both(engines, one(client=sender("edits"), offer=Offer(steps=ALL_STEPS & ~missing)))
    assert isinstance(outcome, Outcome)
    assert outcome.final == "accept"
    assert outcome.header_block == EDITED


@pytest.mark.parametrize("missing", [0, SKIP, NR_BODY, SKIP | NR_BODY])
def test_a_body_over_the_cap(capped: tuple[Engine, Engine], missing: int) -> None:
    raw = b"From: a@b.example\r\n\r\n" + b"x" * 400_000
    outcome, calls = both(capped, one(raw, offer=Offer(steps=ALL_STEPS & ~missing)))
    assert isinstance(outcome, Outcome)
    assert outcome.skipped == (not missing & SKIP)
    assert sum(int(call[1]) for call in calls if call[0] == "body") == 100_000
    assert sum(call[0] == "body_cut" for call in calls) == 1


def test_the_last_piece_of_the_body_with_the_end(engines: tuple[Engine, Engine]) -> None:
    async def scenario(engine: Engine) -> Outcome:
        reader, writer = await open_stream(engine.address)
        talk = Conversation(last_chunk_with_end=True)
        outcome = await converse(talk.deliver(Client(), RAW), reader, writer)
        writer.close()
        return outcome

    _, calls = both(engines, scenario)
    assert [call[0] for call in calls][-2:] == ["body", "verdict"]


def test_several_messages(engines: tuple[Engine, Engine]) -> None:
    first = CLIENTS["authenticated"]

    async def scenario(engine: Engine) -> list[Outcome]:
        again = Client(macros={"M": {"{auth_authen}": b"bob"}}, queue_id=b"Second")
        return await deliver_all(engine.address, [(first, RAW), (sender("reject"), RAW), (again, RAW)])

    outcomes, calls = both(engines, scenario)
    assert [o.final for o in outcomes] == ["accept", "reject", "accept"]  # type: ignore[attr-defined]  # a list of them
    assert sum(call[0] == "begin" for call in calls) == 3


def test_two_hellos_with_an_abort_after_the_second_as_postfix_sends_it(
    engines: tuple[Engine, Engine],
) -> None:
    async def scenario(engine: Engine) -> Outcome:
        reader, writer = await open_stream(engine.address)
        talk = Conversation()
        client = Client(helo=b"second.example.org")
        await converse(talk.hello(Client()), reader, writer)
        await converse(talk.mail(Client()), reader, writer)
        await converse(talk.helo(client), reader, writer)
        await converse(talk.abort(), reader, writer)
        outcome = await converse(talk.message(client, RAW), reader, writer)
        await converse(talk.quit(), reader, writer)
        writer.close()
        return outcome

    _, calls = both(engines, scenario)
    assert [call[0] for call in calls][:4] == ["begin", "sender", "cancel", "begin"]
    assert "second.example.org" in calls[3][1]


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("how", ["abort", "mail"])
def test_an_end_in_the_middle_and_a_message_after_it(
    engines: tuple[Engine, Engine], place: int, how: str
) -> None:
    async def scenario(engine: Engine) -> Outcome:
        reader, writer = await open_stream(engine.address)
        talk, client = Conversation(), Client()
        await converse(talk.hello(client), reader, writer)
        part = Outcome()
        steps = [
            talk.mail(client),
            talk.rcpt(client),
            talk.data(client),
            talk.header(b"From", b" x"),
            talk.end_of_headers(client),
            talk.body(b"x" * 100_000, part),
        ]
        for step in steps[: place + 1]:
            await converse(step, reader, writer)
        if how == "abort":
            await converse(talk.abort(), reader, writer)
        outcome = await converse(talk.message(client, RAW), reader, writer)
        await converse(talk.quit(), reader, writer)
        writer.close()
        return outcome

    outcome, calls = both(engines, scenario)
    assert isinstance(outcome, Outcome)
    assert outcome.final == "accept"
    assert sum(call[0] == "cancel" for call in calls) == 1
    assert sum(call[0] == "verdict" for call in calls) == 1


@pytest.mark.parametrize("how", ["vanish", "quit", "half a packet"])
def test_a_client_that_goes_away_in_a_message(engines: tuple[Engine, Engine], how: str) -> None:
    async def scenario(engine: Engine) -> None:
        before = len(engine.calls())
        reader, writer = await open_stream(engine.address)
        talk, client = Conversation(), Client()
        await converse(talk.hello(client), reader, writer)
        for step in (
            talk.mail(client),
            talk.rcpt(client),
            talk.header(b"From", b" x"),
            talk.end_of_headers(client),
        ):
            await converse(step, reader, writer)
        # libmilter does not read what is left of a connection that is closed
        await engine.until("headers", before)
        if how == "quit":
            await converse(talk.quit(), reader, writer)
        elif how == "half a packet":
            writer.write(packet("B", b"x" * 99)[:50])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await engine.until("cancel", before)

    _, calls = both(engines, scenario)
    assert [call[0] for call in calls] == ["begin", "sender", "recipient", "headers", "cancel"]


@pytest.mark.parametrize("local", ["accept", "reject"])
@pytest.mark.parametrize("abort", [False, True])
def test_quit_nc_begins_anew_on_the_same_connection(
    engines: tuple[Engine, Engine], *, local: str, abort: bool
) -> None:
    async def scenario(engine: Engine) -> list[str]:
        reader, writer = await open_stream(engine.address)
        talk = Conversation()
        first = replace(CLIENTS["authenticated"], mail_from=sender(local).mail_from)
        second = Client(address=b"192.0.2.222", hostname=b"other.example.org")
        await converse(talk.hello(first), reader, writer)
        outcomes = [await converse(talk.message(first, RAW), reader, writer)]
        if abort:
            await converse(talk.abort(), reader, writer)
        await converse(talk.quit(new=True), reader, writer)
        await converse(talk.connect(second), reader, writer)
        await converse(talk.helo(second), reader, writer)
        outcomes.append(await converse(talk.message(second, RAW), reader, writer))
        await converse(talk.quit(), reader, writer)
        writer.close()
        return [outcome.final for outcome in outcomes]

    outcome, calls = both(engines, scenario)
    assert outcome == [local, "accept"]
    second = [call for call in calls if call[0] == "begin"][1]
    assert "192.0.2.222" in second[1]
    assert "client_name='other.example.org'" in second[1]
    assert "authenticated=None" in second[1]
    assert "tls=None" in second[1]


def test_unknown_commands_are_nothing(engines: tuple[Engine, Engine]) -> None:
    async def scenario(engine: Engine) -> Outcome:
        reader, writer = await open_stream(engine.address)
        talk = Conversation(Offer.of_version(3))
        talk.offer = Offer(version=6, steps=ALL_STEPS & ~0x100)
        client = Client()
        await converse(talk.hello(client), reader, writer)
        await converse(talk.unknown(b"XYZZY \xc3\xb6"), reader, writer)
        await converse(talk.mail(client), reader, writer)
        await converse(talk.unknown(b"TURN"), reader, writer)
        await converse(talk.abort(), reader, writer)
        outcome = await converse(talk.message(client, RAW), reader, writer)
        writer.close()
        return outcome

    outcome, calls = both(engines, scenario)
    assert isinstance(outcome, Outcome)
    assert outcome.final == "accept"
    assert [call[0] for call in calls][:3] == ["begin", "sender", "cancel"]


def test_names_that_are_not_utf8_cost_libmilter_a_field_and_nobody_the_message(
    engines: tuple[Engine, Engine],
) -> None:
    raw = b"From: a@b.example\r\nX-\xff: lost\r\nTo: \xff\r\n\r\nHello\r\n"
    fields = []
    for engine in engines:
        outcome, calls = play(engine, one(raw, Client(helo=b"mail\xff.example")))
        assert isinstance(outcome, Outcome)
        assert outcome.final == "accept"
        (headers,) = (call[1] for call in calls if call[0] == "headers")
        fields.append(headers.count("Header("))
    assert fields == [3, 2]


def test_garbage_ends_the_connection(engines: tuple[Engine, Engine]) -> None:
    async def scenario(engine: Engine) -> bool:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, packet("Z") + packet("Q")):
            reader, writer = await open_stream(engine.address)
            writer.write(garbage)
            with suppress(
                ConnectionError
            ):  # libmilter leaves what it did not read, which resets the connection
                assert await reader.read() == b""
            writer.close()
        outcome = await deliver(engine.address, RAW)
        return outcome.final == "accept"

    assert both(engines, scenario)[0] is True


def test_a_packet_over_libmilters_limit_is_the_native_engines_alone(engines: tuple[Engine, Engine]) -> None:
    native, libmilter = engines
    raw = b"Subject: " + b"x" * 100_000 + b"\r\n\r\n"
    outcome, _ = play(native, one(raw))
    assert isinstance(outcome, Outcome)
    assert outcome.final == "accept"

    async def gone(engine: Engine) -> bool:
        try:
            await deliver(engine.address, raw)
        except (MilterGone, ConnectionError):
            return True
        return False

    assert play(libmilter, gone)[0] is True


def test_many_sessions_at_once(engines: tuple[Engine, Engine]) -> None:
    async def scenario(engine: Engine) -> set[str]:
        outcomes = await asyncio.gather(*(deliver(engine.address, RAW, seconds=50) for _ in range(50)))
        return {outcome.final for outcome in outcomes}

    for engine in engines:
        outcome, calls = play(engine, scenario)
        assert outcome == {"accept"}
        assert sum(call[0] == "verdict" for call in calls) == 50


def test_a_tcp_socket_and_a_unix_sockets_mode(tmp_path: Path) -> None:
    with engine_process("libmilter", tmp_path / "a") as engine:
        path = Path(engine.address.removeprefix("unix:"))
        assert path.stat().st_mode & 0o777 == 0o660
    with engine_process("libmilter", tmp_path / "b", spec="inet:18917@127.0.0.1"):
        outcome = asyncio.run(deliver("inet:127.0.0.1:18917", RAW))
        assert outcome.final == "accept"
