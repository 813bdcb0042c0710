"""The asyncio engine over real sockets: limits, waiting verdicts, lost peers, drain."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from authmilter.milter.native import MilterServer, NativeSettings, serve
from authmilter.milter.protocol import Reply
from authmilter.milter.seats import Board, Seat
from authmilter.milter.session import MilterSession, Phase, SessionSettings
from authmilter.milter.sockets import ListenSpec, open_listener
from authmilter.verdict import Disposition, InsertHeader, SmtpReply, Verdict
from tests.milter.client import (
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
    read_packet,
    strings,
)
from tests.milter.fakes import Plan, Recorder, Stage, a_verdict
from tests.support.loops import Run

RAW = b"From: alice@example.org\r\nSubject: a\r\n folded\r\n\r\nHello\r\n"
#: How an MTA of version 2 begins, in which every command after it gets a reply.
OLD_START = (
    packet("O", b"".join(number.to_bytes(4, "big") for number in (2, 0x3F, 0x7F)))
    + packet("C", b"x\0U")
    + packet("M", strings(b"<a@b.example>"))
)
UNKNOWN = packet("U", b"x\0")
AR = InsertHeader(at=0, name=b"Authentication-Results", value=b"mx.example;\r\n spf=pass")


async def flood(sock: socket.socket) -> tuple[int, memoryview]:
    """Send commands, of which each gets a reply that nobody reads, until there is no more room for any.

    Returns how many octets were sent, and the rest of what was begun.
    """
    commands = memoryview(UNKNOWN * 5000)
    rest = commands
    sent = stalled = 0
    while stalled < 50:
        try:
            taken = sock.send(rest)
        except BlockingIOError:
            stalled += 1
            await asyncio.sleep(0.002)
        else:
            sent += taken
            rest, stalled = rest[taken:] or commands, 0
    return sent, rest


@asynccontextmanager
async def serving(
    stage: Stage, spec: str, settings: NativeSettings | None = None
) -> AsyncIterator[tuple[MilterServer, str]]:
    with open_listener(ListenSpec.parse(spec)) as sock:
        address = spec
        if sock.family != socket.AF_UNIX:
            host, port = sock.getsockname()[:2]
            address = f"inet:{host}:{port}"
        server = await serve(
            [("test", sock)],
            stage.factory(),
            settings,
            note=lambda name, sentence: stage.notes.append((name, sentence)),
        )
        try:
            yield server, address
        finally:
            await server.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the loop to have done something; the test as a whole has a time limit."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event to set
        await asyncio.sleep(0.002)


async def hello(
    address: str, offer: Offer | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Conversation]:
    reader, writer = await open_stream(address)
    talk = Conversation(offer)
    await converse(talk.hello(Client()), reader, writer)
    return reader, writer, talk


async def expect_closed(reader: asyncio.StreamReader) -> None:
    while not reader.at_eof():
        try:
            await read_packet(reader)
        except MilterGone:
            return


@pytest.mark.parametrize("spec", ["unix", "inet:0@127.0.0.1"])
@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_a_message_is_delivered(run: Run, tmp_path: Path, spec: str, version: int) -> None:
    async def work() -> None:
        stage = Stage(plan=Plan(verdict=a_verdict(Disposition.ACCEPT, AR)))
        async with serving(stage, f"unix:{tmp_path}/m" if spec == "unix" else spec) as (server, address):
            outcome = await deliver(address, RAW, offer=Offer.of_version(version))
            await until(lambda: server.open_sessions == 0)
            assert outcome.final == "accept"
            assert outcome.header_block.startswith(
                b"Authentication-Results: mx.example;\r\n spf=pass\r\nReceived: "
            )
            assert (server.counters.accepted, server.counters.messages) == (1, 1)
        assert stage.bugs == []
        assert stage.named()[-1] == "verdict"

    run(work())


def test_several_messages_and_a_rejection(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        reply = SmtpReply(code=550, enhanced="5.7.26", text="100% refused")
        stage = Stage(plan=Plan(verdict=a_verdict(Disposition.REJECT, reply=reply)))
        async with serving(stage, f"unix:{tmp_path}/m") as (_, address):
            outcomes = await deliver_all(address, [(Client(), RAW)] * 3)
        assert [o.reply for o in outcomes] == ["550 5.7.26 100% refused"] * 3
        assert len(stage.verifications) == 3

    run(work())


def test_every_octet_alone_gives_the_same(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage(plan=Plan(verdict=a_verdict(Disposition.ACCEPT, AR)))
        async with serving(stage, f"unix:{tmp_path}/m") as (_, address):
            whole = await deliver(address, RAW)
            in_one_piece = list(stage.calls)
            stage.calls.clear()
            reader, writer = await open_stream(address)
            talk = Conversation().deliver(Client(), RAW)
            item = next(talk)
            outcome: Outcome | None = None
            while outcome is None:
                try:
                    if item is None:
                        item = talk.send(await read_packet(reader))
                        continue
                    for octet in item:
                        writer.write(bytes([octet]))
                        await writer.drain()
                        await asyncio.sleep(0)
                    item = next(talk)
                except StopIteration as done:
                    outcome = done.value
            writer.close()
            assert outcome == whole
            assert stage.calls == in_one_piece

    run(work())


def test_a_verdict_that_waits_keeps_the_mta_waiting(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage(plan=Plan(waits=asyncio.Event()))
        settings = NativeSettings(progress=0.01)
        async with serving(stage, f"unix:{tmp_path}/m", settings) as (_, address):
            delivery = asyncio.create_task(deliver(address, RAW))
            await until(lambda: "verdict" in stage.named())
            quick = Stage()
            assert quick.plan.waits is None
            await asyncio.sleep(0.05)
            assert stage.plan.waits is not None
            stage.plan.waits.set()
            outcome = await delivery
            assert outcome.final == "accept"
            assert outcome.progress >= 2
        assert stage.bugs == []
        assert stage.verifications[0].cancelled == 0

    run(work())


@pytest.mark.parametrize("how", ["abort", "quit", "quit_nc", "close", "garbage", "mail"])
def test_giving_up_cancels_a_waiting_verdict(run: Run, tmp_path: Path, how: str) -> None:
    last_words = {
        "abort": packet("A"),
        "quit": packet("Q"),
        "quit_nc": packet("K"),
        "close": b"",
        "garbage": b"\0\0\0\0\0",
        "mail": packet("M", strings(b"<a@b.example>")),
    }

    async def work() -> None:
        ended: list[str] = []

        class Waiting(Recorder):
            async def verdict(self) -> Verdict:
                try:
                    return await super().verdict()
                finally:
                    ended.append("verdict")

        stage = Stage(plan=Plan(waits=asyncio.Event()), kind=Waiting)
        async with serving(stage, f"unix:{tmp_path}/m", NativeSettings(progress=0.01)) as (server, address):
            reader, writer, talk = await hello(address)
            delivery = asyncio.create_task(converse(talk.message(Client(), RAW), reader, writer))
            await until(lambda: "verdict" in stage.named())
            await asyncio.sleep(0.03)
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)
            writer.write(last_words[how])
            if how == "close":
                writer.close()
            await until(lambda: bool(ended))
            assert stage.verifications[0].cancelled == 1
            assert stage.bugs == []
            if how == "abort":
                stage.plan.waits = None
                outcome = await converse(talk.message(Client(), RAW), reader, writer)
                assert outcome.final == "accept"
            elif how in {"quit", "garbage", "mail"}:
                await expect_closed(reader)
                await until(lambda: server.open_sessions == 0)
                assert server.counters.protocol_errors == (how != "quit")
            writer.close()

    run(work())


def test_a_verdict_that_never_comes_is_a_bug_and_a_451(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage(plan=Plan(waits=asyncio.Event()))
        settings = NativeSettings(progress=0.02, verdict_timeout=0.05)
        async with serving(stage, f"unix:{tmp_path}/m", settings) as (server, address):
            reader, writer, talk = await hello(address)
            outcome = await converse(talk.message(Client(), RAW), reader, writer)
            assert outcome.reply == "451 4.3.0 Internal error, please try again later"
            assert server.counters.verdict_timeouts == 1
            assert [(where, type(e)) for where, e in stage.bugs] == [("milter:verdict", TimeoutError)]
            stage.plan.waits = None
            assert (await converse(talk.message(Client(), RAW), reader, writer)).final == "accept"
            writer.close()

    run(work())


def test_a_verdict_that_cancels_itself_is_a_bug_and_a_451(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        class Cancelling(Recorder):
            async def verdict(self) -> Verdict:
                await asyncio.sleep(0.001)
                raise asyncio.CancelledError

        stage = Stage(kind=Cancelling)
        async with serving(stage, f"unix:{tmp_path}/m") as (_, address):
            outcome = await deliver(address, RAW)
            assert outcome.reply == "451 4.3.0 Internal error, please try again later"
            assert len(stage.bugs) == 1

    run(work())


def test_a_verdict_may_use_tasks_and_timeouts_once_it_has_waited(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        class Busy(Recorder):
            async def verdict(self) -> Verdict:
                done, _ = await asyncio.wait(
                    {asyncio.get_running_loop().create_task(asyncio.sleep(0.001, 7))}, timeout=5
                )
                assert {task.result() for task in done} == {7}
                assert await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0.001, 2)) == [1, 2]  # type: ignore[comparison-overlap]  # a list, whatever its stub says
                async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                    inner = group.create_task(asyncio.sleep(0.001, 3))
                assert inner.result() == 3
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await asyncio.Event().wait()
                return self.plan.verdict

        stage = Stage(kind=Busy)
        async with serving(stage, f"unix:{tmp_path}/m") as (_, address):
            assert (await deliver(address, RAW)).final == "accept"
        assert stage.bugs == []

    run(work())


def test_a_peer_that_breaks_the_protocol_is_closed_and_nobody_else(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            good_reader, good_writer, good = await hello(address)
            for garbage in (
                b"GET / HTTP/1.1\r\n\r\n",
                packet("O", b"\0\0\0\1" * 3),
                packet("R", b"<a>\0"),
                b"\xff" * 5,
            ):
                reader, writer = await open_stream(address)
                writer.write(garbage)
                await expect_closed(reader)
                writer.close()
            await until(lambda: server.open_sessions == 1)
            assert server.counters.protocol_errors == 4
            assert [name for name, _ in stage.notes] == ["milter_protocol_error"] * 4
            assert (await converse(good.message(Client(), RAW), good_reader, good_writer)).final == "accept"
            good_writer.close()
        assert stage.bugs == []

    run(work())


def test_events_before_a_fault_in_the_same_packet_are_answered(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (_, address):
            reader, writer = await open_stream(address)
            offer = packet(
                "O", (6).to_bytes(4, "big") + (0x1FF).to_bytes(4, "big") + (0x1FFFFF).to_bytes(4, "big")
            )
            writer.write(
                offer + packet("C", b"x\0U") + packet("M", strings(b"<a@b.example>")) + b"\0\0\0\0\0"
            )
            assert (await read_packet(reader))[0] == "O"
            await expect_closed(reader)
            assert stage.named() == ["begin", "sender", "cancel"]
            writer.close()

    run(work())


def test_a_peer_that_stops_in_the_middle_is_closed_in_time(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        settings = NativeSettings(idle_timeout=0.05, header_timeout=60, sweep=0.01)
        async with serving(stage, f"unix:{tmp_path}/m", settings) as (server, address):
            reader, writer, talk = await hello(address)
            await converse(talk.mail(Client()), reader, writer)
            writer.write(packet("B", b"x" * 1000)[:500])
            await expect_closed(reader)
            assert stage.named()[-1] == "cancel"
            await until(lambda: server.open_sessions == 0)
            assert server.counters.idle_closed == 1
            writer.close()

    run(work())


def test_a_header_that_never_ends_is_closed_though_the_peer_is_not_idle(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        settings = NativeSettings(header_timeout=0.05, sweep=0.01)
        async with serving(stage, f"unix:{tmp_path}/m", settings) as (server, address):
            reader, writer, talk = await hello(address)
            await converse(talk.mail(Client()), reader, writer)
            while server.open_sessions:
                writer.write(packet("L", strings(b"X", b" y")))
                await asyncio.sleep(0.005)
            assert server.counters.header_timeouts == 1
            assert stage.named()[-1] == "cancel"
            writer.close()

    run(work())


def test_no_more_sessions_than_allowed_and_the_rest_wait(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        settings = NativeSettings(max_sessions=2)
        async with serving(stage, f"unix:{tmp_path}/m", settings) as (server, address):
            open_ones = [await hello(address) for _ in range(2)]
            assert server.open_sessions == 2
            waiting = asyncio.create_task(deliver(address, RAW))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert server.open_sessions == 2
            open_ones[0][1].close()
            assert (await waiting).final == "accept"
            open_ones[1][1].close()
            await until(lambda: server.open_sessions == 0)
            outcomes = await asyncio.gather(*(deliver(address, RAW) for _ in range(20)))
            assert {o.final for o in outcomes} == {"accept"}
            assert server.counters.paused >= 1

    run(work())


def test_a_socket_that_cannot_be_listened_on_is_an_error(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        good = open_listener(ListenSpec.parse(f"unix:{tmp_path}/m"))
        bad, other = socket.socketpair()
        with good, bad, other:
            with pytest.raises(OSError, match="not a listening socket"):
                await serve([("good", good), ("bad", bad)], stage.factory())
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{tmp_path}/m")  # it waits; nobody is there any more to accept it
                client.setblocking(False)
                await asyncio.sleep(0.02)
                with pytest.raises(BlockingIOError):
                    client.recv(1)

    run(work())


def test_a_peer_that_does_not_read_is_not_read_from(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (_, address):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.setblocking(False)
                rude.connect(address.removeprefix("unix:"))
                rude.send(OLD_START)
                sent, _ = await flood(rude)
                assert sent < 20_000_000
                assert (await deliver(address, RAW)).final == "accept"

    run(work())


def test_replies_that_find_no_room_come_later_in_order(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            with socket.socket(socket.AF_UNIX) as slow:
                slow.setblocking(False)
                slow.connect(address.removeprefix("unix:"))
                slow.send(OLD_START)
                sent, rest = await flood(slow)
                asked = 2 + (sent + len(rest)) // len(UNKNOWN)
                loop = asyncio.get_running_loop()

                async def read() -> bytes:
                    got = b""
                    while not got.endswith(b"end"):
                        piece = await loop.sock_recv(slow, 65536)
                        got += piece or b"end"
                    return got

                reading = asyncio.create_task(read())
                await loop.sock_sendall(slow, rest)
                await loop.sock_sendall(slow, packet("Q"))
                got = await reading
            assert got[:5] == b"\0\0\0\x0dO"
            assert got[17:-3] == packet("c") * asked
            await until(lambda: server.open_sessions == 0)
        assert stage.bugs == []

    run(work())


def test_a_peer_that_goes_without_its_replies_is_forgotten(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.setblocking(False)
                rude.connect(address.removeprefix("unix:"))
                rude.send(OLD_START)
                await flood(rude)
            await until(lambda: server.open_sessions == 0)
            assert (await deliver(address, RAW)).final == "accept"

    run(work())


def test_a_bug_between_loop_and_session_ends_that_connection_only(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        with open_listener(ListenSpec.parse(f"unix:{tmp_path}/m")) as sock:

            class Broken:
                """A session that breaks its promise to raise nothing else."""

                listener = "test"
                phase = Phase.CLIENT
                between_messages = True

                def take(self, events: Iterator[object], _replies: list[Reply]) -> bool:
                    raise RuntimeError(f"no {type(next(events)).__name__}")

                def lost(self) -> None:
                    self.phase = Phase.CLOSED

            made = 0

            def sessions(listener: str) -> MilterSession:
                nonlocal made
                made += 1
                return cast("MilterSession", Broken()) if made == 1 else stage.factory()(listener)

            notes: list[tuple[str, str]] = []
            server = await serve([("test", sock)], sessions, note=lambda *said: notes.append(said))
            reader, writer = await open_stream(f"unix:{tmp_path}/m")
            writer.write(packet("O", b"\0" * 12))
            await expect_closed(reader)
            writer.close()
            assert notes == [("milter_connection_broken", "test: RuntimeError('no Negotiate')")]
            assert (await deliver(f"unix:{tmp_path}/m", RAW)).final == "accept"
            await server.close()

    run(work())


def test_a_large_body_passes_in_constant_memory(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        chunk = packet("B", b"x" * 65535)
        async with serving(stage, f"unix:{tmp_path}/m") as (_, address):
            reader, writer, talk = await hello(address)
            await converse(talk.mail(Client()), reader, writer)
            tracemalloc.start()
            for _ in range(800):
                writer.write(chunk)
                await writer.drain()
            writer.write(packet("E"))
            while (await read_packet(reader))[0] != "a":
                pass
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            writer.close()
        assert stage.verifications[0].octets == 800 * 65535
        assert peak < 5_000_000

    run(work())


def test_two_hundred_sessions_at_once(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage(plan=Plan(seconds=0.01))
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            outcomes = await asyncio.gather(
                *(deliver_all(address, [(Client(), RAW)] * 2) for _ in range(200))
            )
            assert {o.final for each in outcomes for o in each} == {"accept"}
            assert server.counters.messages == 400
            await until(lambda: server.open_sessions == 0)
        assert len(stage.verifications) == 400
        assert stage.bugs == []

    run(work())


def test_a_body_cap_skips_over_a_socket(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage(settings=SessionSettings(body_cap=1000))
        async with serving(stage, f"unix:{tmp_path}/m") as (_, address):
            outcome = await deliver(address, b"From: a@b.example\r\n\r\n" + b"x" * 500_000)
            assert (outcome.skipped, outcome.body_octets) == (True, 65535)
            assert stage.verifications[0].octets == 1000

    run(work())


def test_servers_on_one_socket_share_the_sessions(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage, board = Stage(), Board(2)
        with open_listener(ListenSpec.parse(f"unix:{tmp_path}/m")) as sock, sock.dup() as same:
            servers = [
                await serve([("m", each)], stage.factory(), seat=Seat(board, n))
                for n, each in enumerate((sock, same))
            ]
            ends = [await hello(f"unix:{tmp_path}/m") for _ in range(16)]
            few = [server.open_sessions for server in servers]
            assert (sum(few), max(few)) in {(16, 8), (16, 9)}
            # One that accepts nothing leaves all to the other.
            servers[0].stop_accepting()
            ends += [await hello(f"unix:{tmp_path}/m") for _ in range(4)]
            assert [server.open_sessions for server in servers] == [few[0], few[1] + 4]
            assert [board.sessions(n) for n in range(2)] == [few[0], few[1] + 4]
            for _, writer, _ in ends:
                writer.close()
            await until(lambda: not any(server.open_sessions for server in servers))
            assert [(board.sessions(n), board.taken(n)) for n in range(2)] == [(0, few[0]), (0, few[1] + 4)]
            for server in servers:
                await server.close()

    run(work())


def test_what_comes_one_at_a_time_is_one_worker_s_and_the_other_is_there_when_needed(
    run: Run, tmp_path: Path
) -> None:
    async def work() -> None:
        stage, board = Stage(), Board(2)
        with open_listener(ListenSpec.parse(f"unix:{tmp_path}/m")) as sock, sock.dup() as same:
            servers = [
                await serve([("m", each)], stage.factory(), seat=Seat(board, n))
                for n, each in enumerate((sock, same))
            ]
            for _ in range(100):
                assert (await deliver(f"unix:{tmp_path}/m", RAW)).final == "accept"
                await until(lambda: not any(server.open_sessions for server in servers))
            first, second = (board.taken(n) for n in range(2))
            assert first >= 95, (first, second)
            # Some that stay: the one that rests is back in a moment.
            ends = [await hello(f"unix:{tmp_path}/m") for _ in range(4)]
            await asyncio.sleep(0.05)
            ends += [await hello(f"unix:{tmp_path}/m") for _ in range(12)]
            assert min(server.open_sessions for server in servers) >= 6
            for _, writer, _ in ends:
                writer.close()
            for server in servers:
                await server.close()

    run(work())


@pytest.mark.parametrize("mine", [0, 1])
def test_nobody_waits_long_for_a_worker_that_does_not_come(run: Run, tmp_path: Path, mine: int) -> None:
    async def work() -> None:
        stage, board = Stage(), Board(2)
        # it hangs: it has fewer sessions, or goes first, and takes nobody
        Seat(board, 1 - mine).accept(True)
        with open_listener(ListenSpec.parse(f"unix:{tmp_path}/m")) as sock:
            server = await serve([("m", sock)], stage.factory(), seat=Seat(board, mine))
            ends = [await hello(f"unix:{tmp_path}/m") for _ in range(6)]
            assert server.open_sessions == 6
            for _, writer, _ in ends:
                writer.close()
            await server.close()

    run(work())


def test_who_waits_on_a_listener_that_will_be_closed_is_served(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m", NativeSettings(max_sessions=1)) as (server, address):
            one = await hello(address)
            waiting = [asyncio.create_task(hello(address)) for _ in range(3)]
            await asyncio.sleep(0.02)
            assert server.open_sessions == 1
            server.stop_accepting()
            server.empty("test")
            ends = [one, *(await asyncio.gather(*waiting))]
            assert server.open_sessions == 4
            for _, writer, _ in ends:
                writer.close()

    run(work())


# -- drain -----------------------------------------------------------------------------------------------------------


def test_drain_lets_sessions_end_by_themselves(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            reader, writer, talk = await hello(address)
            draining = asyncio.create_task(server.drain(30))
            await asyncio.sleep(0.01)
            for _ in range(2):
                assert (await converse(talk.message(Client(), RAW), reader, writer)).final == "accept"
            await converse(talk.quit(), reader, writer)
            drained = await draining
            assert (drained.finished, drained.closed, drained.cut) == (1, 0, 0)
            writer.close()

    run(work())


def test_drain_accepts_nothing_more(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            assert (await server.drain(0)).cut == 0
            # the supervisor still has the listening socket: the connection waits for the next generation
            _, writer = await open_stream(address)
            await asyncio.sleep(0.02)
            assert server.counters.accepted == 0
            writer.close()

    run(work())


def test_drain_closes_idle_sessions_when_time_is_up_and_messages_after_their_end(
    run: Run, tmp_path: Path
) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            idle_reader, idle_writer, _ = await hello(address)
            busy_reader, busy_writer, talk = await hello(address)
            await converse(talk.mail(Client()), busy_reader, busy_writer)
            await until(lambda: "sender" in stage.named())
            draining = asyncio.create_task(server.drain(0.01))
            await expect_closed(idle_reader)
            assert server.open_sessions == 1
            busy_writer.write(packet("L", strings(b"From", b" a@b.example")) + packet("N") + packet("E"))
            assert (await read_packet(busy_reader))[0] == "a"
            await expect_closed(busy_reader)
            drained = await draining
            assert (drained.finished, drained.closed, drained.cut) == (0, 2, 0)
            for writer in (idle_writer, busy_writer):
                writer.close()

    run(work())


def test_drain_waits_for_a_verdict_and_cuts_what_never_ends(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage(plan=Plan(waits=asyncio.Event()))
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            judged = asyncio.create_task(deliver(address, RAW))
            await until(lambda: "verdict" in stage.named())
            reader, writer, talk = await hello(address)
            await converse(talk.mail(Client()), reader, writer)
            await until(lambda: stage.named().count("sender") == 2)
            draining = asyncio.create_task(server.drain(0.01, grace=0.2))
            await asyncio.sleep(0.05)
            assert stage.plan.waits is not None
            stage.plan.waits.set()
            assert (await judged).final == "accept"
            drained = await draining
            assert (drained.finished, drained.closed, drained.cut) == (0, 1, 1)
            assert server.counters.cut == 1
            await expect_closed(reader)
            assert stage.verifications[1].cancelled == 1
            writer.close()

    run(work())


def test_closing_twice_is_harmless(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        stage = Stage()
        async with serving(stage, f"unix:{tmp_path}/m") as (server, address):
            reader, writer, _ = await hello(address)
            await server.close()
            await expect_closed(reader)
            await server.close()
            assert server.open_sessions == 0
            writer.close()

    run(work())
