"""What is odd about pymilter 1.0.5 and libmilter, one test each, with the line of `_pymilter` that pays for it.

When a test here goes red, the library has changed: look at what it names, and whether that can go.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from authmilter.errors import AuthMilterError
from authmilter.milter import _pymilter
from tests.milter.client import (
    Client,
    Conversation,
    MilterGone,
    Offer,
    Outcome,
    converse,
    open_stream,
    packet,
    read_packet,
    strings,
)
from tests.milter.fakes import Stage
from tests.milter.processes import ROOT, need_pymilter

RAW = b"From: alice@example.org\r\nSubject:  a\r\n\tfolded\r\n\r\nHello\r\n"
Scenario = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


@contextmanager
def odd_milter(folder: Path, oddity: str) -> Iterator[tuple[str, Callable[[], list[list[object]]]]]:
    need_pymilter()
    socket_path, calls_path = folder / "m.sock", folder / "calls"
    command = [
        sys.executable,
        "-m",
        "tests.rooms.pymilter_process",
        str(socket_path),
        str(calls_path),
        oddity,
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield (
                f"unix:{socket_path}",
                lambda: [json.loads(line) for line in calls_path.read_text().split("\n")[:-1]],
            )
        finally:
            process.kill()  # SIGTERM would wait five seconds for open sessions


def ask(folder: Path, oddity: str, scenario: Scenario) -> tuple[object, list[list[object]]]:
    """Play a scenario to the odd milter; return its outcome and the callbacks."""

    async def work(address: str) -> object:
        reader, writer = await open_stream(address)
        try:
            return await asyncio.wait_for(scenario(reader, writer), 20)
        finally:
            writer.close()

    with odd_milter(folder, oddity) as (address, calls):
        outcome = asyncio.run(work(address))
        return outcome, calls()


async def one_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Outcome:
    return await converse(Conversation().deliver(Client(), RAW), reader, writer)


def values(calls: list[list[object]], name: str) -> list[list[object]]:
    return [call[1:] for call in calls if call[0] == name]


def test_the_version_these_oddities_were_seen_in() -> None:
    need_pymilter()
    assert version("pymilter") == "1.0.5"


def test_without_pymilter_the_engine_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pymilter, "milter", None)
    assert not _pymilter.available()
    with pytest.raises(AuthMilterError, match=r"authmilter\[libmilter\]"):
        _pymilter.LibmilterEngine(Stage().factory())


def test_one_milter_in_a_process(tmp_path: Path) -> None:
    # LibmilterEngine: "there can be one"
    with odd_milter(tmp_path, "twice") as (_, calls):
        deadline = time.monotonic() + 10
        while not values(calls(), "second main"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert values(calls(), "second main") == [["error"]]


def test_header_values_come_with_lf_folds_and_their_exact_space(tmp_path: Path) -> None:
    # MilterSession._on_header makes CRLF of them
    _, calls = ask(tmp_path, "", one_message)
    assert values(calls, "header") == [["From", "b' alice@example.org'"], ["Subject", "b'  a\\n\\tfolded'"]]


def test_pymilters_own_class_turns_the_exact_space_off() -> None:
    # why the room stands on the `milter` module and not on Milter.Base
    need_pymilter()
    import Milter  # noqa: PLC0415 - only here, and only where it is installed

    assert Milter.Base.protocol_mask() & Milter.P_HDR_LEADSPC


def test_an_untrapped_exception_is_told_to_the_client(tmp_path: Path) -> None:
    # LibmilterEngine._wrap lets none out
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        talk = Conversation()
        await converse(talk.hello(Client()), reader, writer)
        writer.write(packet("M", strings(b"<a@b.example>")))
        return (await read_packet(reader))[1]

    reply, _ = ask(tmp_path, "exception", scenario)
    assert reply == b"451 4.3.0 pymilter: untrapped exception in oddities\0"


UNREADABLE = b"From: a\r\nX-\xff: lost\r\nTo: \xff\r\n\r\nHello\r\n"


async def unreadable_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    talk = Conversation()
    await converse(talk.hello(Client(helo=b"\xff")), reader, writer)
    try:
        outcome = await converse(talk.message(Client(), UNREADABLE), reader, writer, seconds=1)
    except TimeoutError:
        return "nothing is said"
    return outcome.final


def test_texts_that_are_not_utf8_do_not_arrive_and_end_the_talking(tmp_path: Path) -> None:
    # a callback that is refused without a reply being expected: why LibmilterEngine refuses none, see its _wrap
    outcome, calls = ask(tmp_path, "", unreadable_message)
    assert values(calls, "helo") == []
    assert values(calls, "header") == [["From", "b' a'"]]
    assert outcome == "nothing is said"


def test_with_exceptions_passed_over_only_the_text_is_lost(tmp_path: Path) -> None:
    # LibmilterEngine._register sets this policy; a known limit in the module's docstring
    outcome, calls = ask(tmp_path, "continue after exceptions", unreadable_message)
    assert values(calls, "helo") == []
    assert values(calls, "header") == [["From", "b' a'"], ["To", "b' \\xff'"]]
    assert outcome == "accept"


def test_macro_lists_are_str_and_odd_values_raise(tmp_path: Path) -> None:
    # _Connection.negotiate hands over str (Milter.Base.setsymlist hands over bytes); _symbol catches
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Conversation()
        await converse(talk.negotiate(), reader, writer)
        assert talk.symbols == {0: ["j"], 1: []}
        writer.write(packet("D", b"C" + strings(b"{odd}", b"\xff")))
        writer.write(packet("C", b"x\0U") + packet("H", b"x\0") + packet("M", strings(b"<a@b.example>")))
        assert (await read_packet(reader))[0] == "c"

    _, calls = ask(tmp_path, "symbols", scenario)
    assert values(calls, "setsymlist bytes") == [["TypeError"]]
    assert values(calls, "setsymlist str") == [["None"]]
    assert values(calls, "setsymlist empty") == [["None"]]
    assert values(calls, "getsymval") == [["UnicodeDecodeError"]]


def test_edits_take_text_that_is_utf8_only_and_doubled_per_cent_signs(tmp_path: Path) -> None:
    # _str and _Connection._apply; _give doubles
    outcome, calls = ask(tmp_path, "edits", one_message)
    assert values(calls, "addheader bytes") == [["TypeError"]]
    assert values(calls, "addheader surrogate") == [["UnicodeEncodeError"]]
    assert values(calls, "addheader") == [["None"]]
    assert values(calls, "setreply %") == [["None"]]  # not looked at; the MTA would
    assert values(calls, "setreply %%") == [["None"]]
    assert values(calls, "setreply CRLF") == [["error"]]
    assert isinstance(outcome, Outcome)
    assert outcome.reply == "550 5.7.1 100% x"


def test_quit_nc_loses_the_private_object_and_there_is_no_new_negotiation(tmp_path: Path) -> None:
    # LibmilterEngine.offer
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Conversation()
        await converse(talk.hello(Client()), reader, writer)
        await converse(talk.message(Client(), RAW), reader, writer)
        await converse(talk.quit(new=True), reader, writer)
        await converse(talk.connect(Client()), reader, writer)
        await converse(talk.message(Client(), RAW), reader, writer)

    _, calls = ask(tmp_path, "", scenario)
    assert len(values(calls, "negotiate")) == 1
    assert len(values(calls, "connect")) == 2
    assert values(calls, "priv") == [["None"], ["None"]]


def test_after_an_accepted_message_quit_nc_and_the_next_client_are_overlooked(tmp_path: Path) -> None:
    # _give says CONTINUE for ACCEPT; _Connection._check_client finds the new client in its macros
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Conversation()
        await converse(talk.hello(Client()), reader, writer)
        await converse(talk.message(Client(), RAW), reader, writer)
        await converse(talk.quit(new=True), reader, writer)
        await converse(talk.connect(Client(address=b"192.0.2.2")), reader, writer)
        await converse(talk.message(Client(), RAW), reader, writer)

    _, calls = ask(tmp_path, "accept", scenario)
    assert len(values(calls, "connect")) == 1
    assert len(values(calls, "mail")) == 2


def test_a_last_chunk_without_a_reply_loses_the_end_of_the_message(tmp_path: Path) -> None:
    # _Connection.negotiate keeps the replies to body chunks
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        talk = Conversation(last_chunk_with_end=True)
        await converse(talk.hello(Client()), reader, writer)
        try:
            await converse(talk.message(Client(), RAW), reader, writer, seconds=1)
        except TimeoutError:
            return "nothing is said"
        return "answered"

    outcome, calls = ask(tmp_path, "no reply to the body", scenario)
    assert outcome == "nothing is said"
    assert len(values(calls, "body")) == 1
    assert values(calls, "end of message") == []


def test_a_packet_over_64_kib_ends_the_connection(tmp_path: Path) -> None:
    # a known limit in the module's docstring
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        talk = Conversation(Offer())
        await converse(talk.hello(Client()), reader, writer)
        try:
            await converse(talk.message(Client(), b"Subject: " + b"x" * 70_000 + b"\r\n\r\n"), reader, writer)
        except (MilterGone, ConnectionError):
            return True
        return False

    assert ask(tmp_path, "", scenario)[0] is True


def test_macros_of_an_earlier_mail_stay_where_no_others_come(tmp_path: Path) -> None:
    # _ALWAYS_THERE makes others come; seen through our own engine with an MTA that takes no lists
    need_pymilter()
    from tests.milter.processes import engine_process  # noqa: PLC0415 - it needs pymilter

    async def scenario(address: str) -> None:
        reader, writer = await open_stream(address)
        talk = Conversation(Offer(actions=0x3F))
        client = Client(macros={"M": {"{auth_authen}": b"alice"}})
        await converse(talk.hello(client), reader, writer)
        await converse(talk.message(client, RAW), reader, writer)
        writer.write(
            packet("M", strings(b"<a@b.example>")) + packet("R", strings(b"<b@b.example>")) + packet("N")
        )
        writer.write(packet("E"))
        if not talk.steps & 0x80000:
            await read_packet(reader)
        writer.close()

    with engine_process("libmilter", tmp_path) as engine:
        asyncio.run(asyncio.wait_for(scenario(engine.address), 20))
        sessions = [call[1] for call in engine.calls() if call[0] == "begin"]
    assert ["authenticated='alice'" in session for session in sessions] == [True, True]
