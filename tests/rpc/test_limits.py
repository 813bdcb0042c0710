"""Limits, deadlines, cancelling, faults of ours, and peers that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # it has no types

from authmilter.deadline import Deadline, monotonic
from authmilter.dns.answer import Answer, Question
from authmilter.engine import Runtime
from authmilter.errors import AuthMilterError
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.methods import METHODS
from authmilter.rpc.settings import Identity, RpcSettings, token_hash
from tests.rpc.local import ANYBODY, Local, details, local, run
from tests.rpc.test_calls import SCENARIO, a_request

CODE = grpc.StatusCode


class Silent:
    """A resolver whose answers never come; knows how many questions wait, and how many were given up."""

    def __init__(self) -> None:
        self.waiting = 0
        self.given_up = 0
        self.asked = asyncio.Event()

    def known(self, _question: Question) -> Answer | None:
        return None

    async def fetch(self, _question: Question, _deadline: Deadline) -> Answer:
        self.waiting += 1
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        finally:
            self.waiting -= 1
        raise AssertionError


async def _until_nothing_waits(silent: Silent) -> None:
    async with asyncio.timeout(5):
        while silent.waiting:
            await asyncio.get_running_loop().run_in_executor(None, gc.collect)


def _with(**more: Any) -> RpcSettings:
    return RpcSettings(identities=(replace(ANYBODY, **more),))


# -- who and how often -----------------------------------------------------------------------------------------------


def test_an_unknown_caller_is_unauthenticated_on_every_call(tmp_path: Path) -> None:
    gateway = Identity(name="gateway", tokens=frozenset({token_hash(b"secret-token")}))

    async def work() -> None:
        async with local(tmp_path, RpcSettings(identities=(gateway,))) as server:
            assert (await server.client.refused("Verify", a_request())).code() is CODE.UNAUTHENTICATED
            assert (await server.client.refused("VerifyUpload")).code() is CODE.UNAUTHENTICATED
            assert (
                await server.with_token("other").refused("Verify", a_request())
            ).code() is CODE.UNAUTHENTICATED
            with pytest.raises(grpc.aio.AioRpcError) as error:
                async for _ in server.client("VerifyStream", pb.VerifyStreamRequest(request=a_request())):
                    pass
            assert error.value.code() is CODE.UNAUTHENTICATED
            known = server.with_token("secret-token")
            assert (await known("Verify", a_request())).id == "m1"
            assert (await known.refused("GetStatus", pb.GetStatusRequest())).code() is CODE.PERMISSION_DENIED
            assert server.notes.bugs == []

    run(work)


def test_over_its_rate_a_caller_is_told_when_to_come_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path, _with(rate=0.001, burst=2)) as server:
            for _ in range(2):
                await server.client("Verify", a_request())
            error = await server.client.refused("Verify", a_request())
            assert error.code() is CODE.RESOURCE_EXHAUSTED
            retry = error_details_pb2.RetryInfo()
            assert details(error).details[0].Unpack(retry)
            assert retry.retry_delay.seconds > 100
            answers = [
                a async for a in server.client("VerifyStream", pb.VerifyStreamRequest(request=a_request()))
            ]
            assert answers[0].error.code == CODE.RESOURCE_EXHAUSTED.value[0]
            assert (await server.client.refused("VerifyUpload")).code() is CODE.RESOURCE_EXHAUSTED

    run(work)


def test_over_its_concurrency_a_caller_is_refused_and_then_not(tmp_path: Path) -> None:
    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, _with(concurrency=1), resolver=silent) as server:
            first = server.client("Verify", a_request())
            await silent.asked.wait()
            error = await server.client.refused("Verify", a_request())
            assert error.code() is CODE.RESOURCE_EXHAUSTED
            first.cancel()
            await _until_nothing_waits(silent)
            answer = await server.client("Verify", a_request(message=b"", session=pb.Session()), timeout=0.5)
            assert answer.id == "m1"

    run(work)


def test_more_calls_than_allowed_are_refused(tmp_path: Path) -> None:
    settings = RpcSettings(identities=(ANYBODY,), max_calls=2)

    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, settings, resolver=silent) as server:
            waiting = [server.client("Verify", a_request()) for _ in range(2)]
            while silent.waiting < 2:
                await asyncio.get_running_loop().run_in_executor(None, gc.collect)
            assert (await server.client.refused("Verify", a_request())).code() is CODE.RESOURCE_EXHAUSTED
            for call in waiting:
                call.cancel()

    run(work)


# -- sizes --------------------------------------------------------------------------------------------------------------


def test_an_oversized_message_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    settings = RpcSettings(identities=(ANYBODY,), max_message=100_000)

    async def work() -> None:
        async with local(tmp_path, settings) as server:
            error = await server.client.refused("Verify", a_request(message=b"x" * (4 << 20)))
            assert error.code() is CODE.RESOURCE_EXHAUSTED
            assert (await server.client("Verify", a_request())).id == "m1"

    run(work)


def test_an_oversized_upload_or_piece_is_refused(tmp_path: Path) -> None:
    settings = RpcSettings(identities=(ANYBODY,), max_upload=100_000, max_chunk=60_000)
    start = pb.VerifyUploadRequest(start=pb.VerifyUploadStart(id="u"))
    piece = pb.VerifyUploadRequest(chunk=b"y" * 60_000)

    async def work() -> None:
        async with local(tmp_path, settings) as server:
            error = await server.client.refused("VerifyUpload", start, piece, piece)
            assert error.code() is CODE.RESOURCE_EXHAUSTED
            large = pb.VerifyUploadRequest(chunk=b"y" * 60_001)
            assert (await server.client.refused("VerifyUpload", start, large)).code() is CODE.INVALID_ARGUMENT
            assert (await server.client("VerifyUpload", start, piece)).id == "u"
            assert len(server.notes.records) == 1

    run(work)


# -- time ---------------------------------------------------------------------------------------------------------------


def test_a_clients_deadline_bounds_the_work_and_a_verdict_still_comes(tmp_path: Path) -> None:
    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, resolver=silent) as server:
            began = monotonic()
            answer = await server.client("Verify", a_request(), timeout=2.0)
            assert 1.0 < monotonic() - began < 2.0
            assert answer.verdict.evidence.spf.problem == pb.SPF_PROBLEM_LIMIT
            assert answer.verdict.evidence.dmarc.problem == pb.DMARC_PROBLEM_LIMIT
            question = pb.DiscoverDmarcRequest(domain="example.com")
            found = await server.client("DiscoverDmarc", question, timeout=1.0)
            assert found.dmarc.problem == pb.DMARC_PROBLEM_LIMIT
            assert silent.waiting == 0

    run(work)


def test_a_deadline_that_has_passed_is_told_so(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            error = await server.client.refused("Verify", a_request(), timeout=0.000001)
            assert error.code() is CODE.DEADLINE_EXCEEDED

    run(work)


@pytest.mark.parametrize("call", ["Verify", "DiscoverDmarc", "VerifyUpload", "VerifyStream"])
def test_cancelling_a_call_stops_its_work(call: str, tmp_path: Path) -> None:
    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, resolver=silent) as server:
            start = pb.VerifyUploadStart(session=a_request().session, envelope=a_request().envelope)
            given: dict[str, list[Any]] = {
                "Verify": [a_request()],
                "DiscoverDmarc": [pb.DiscoverDmarcRequest(domain="example.com")],
                "VerifyUpload": [pb.VerifyUploadRequest(start=start)],
                "VerifyStream": [pb.VerifyStreamRequest(request=a_request())],
            }
            under_way = server.client(call, *given[call], timeout=None)
            await silent.asked.wait()
            assert silent.waiting > 0
            under_way.cancel()
            await _until_nothing_waits(silent)
            assert silent.given_up > 0
            while server.server.open_calls:
                await asyncio.get_running_loop().run_in_executor(None, gc.collect)
            assert server.notes.records == []
            assert server.notes.bugs == []

    run(work)


def test_a_client_gone_in_the_middle_of_an_upload_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, resolver=silent) as server:
            channel = grpc.aio.insecure_channel(
                server.target, options=[("grpc.use_local_subchannel_pool", 1)]
            )
            other = Local(
                server.server,
                server.target,
                server.notes,
                server.control,
                server.runtime,
                type(server.client)(channel),
            )
            call = other.client.open("VerifyUpload", timeout=None)
            await call.write(
                pb.VerifyUploadRequest(
                    start=pb.VerifyUploadStart(session=a_request().session, envelope=a_request().envelope)
                )
            )
            await call.write(pb.VerifyUploadRequest(chunk=SCENARIO.message[:200]))
            await silent.asked.wait()
            await channel.close(None)
            await _until_nothing_waits(silent)
            while server.server.open_calls:
                await asyncio.get_running_loop().run_in_executor(None, gc.collect)
            assert server.notes.records == []
            assert server.notes.bugs == []

    run(work)


def test_an_upload_that_is_broken_off_is_never_taken_for_a_whole_message(tmp_path: Path) -> None:
    """To its reader a call that is cancelled ends as one that is complete: seen with grpc's blocking client."""

    def broken() -> Iterator[pb.VerifyUploadRequest]:
        yield pb.VerifyUploadRequest(start=pb.VerifyUploadStart(id="u"))
        yield pb.VerifyUploadRequest(chunk=SCENARIO.message[:-20])
        raise OSError("the disc has gone")

    def send(target: str) -> int:
        with grpc.insecure_channel(target) as channel:
            method = METHODS["VerifierService"]["VerifyUpload"]
            call: Any = channel.stream_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.read_response,
            )
            refused = 0
            for _ in range(150):
                with contextlib.suppress(grpc.RpcError):
                    call(broken())
                    refused -= 1
                refused += 1
            return refused

    async def work() -> None:
        async with local(tmp_path) as server:
            assert await asyncio.to_thread(send, server.target) == 150
            while server.server.open_calls:
                await asyncio.get_running_loop().run_in_executor(None, gc.collect)
            assert server.notes.records == []
            assert server.notes.bugs == []

    run(work)


def test_a_client_that_stops_sending_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    settings = RpcSettings(identities=(ANYBODY,), upload_pause=0.2)

    async def work() -> None:
        async with local(tmp_path, settings) as server:
            call = server.client.open("VerifyUpload", timeout=None)
            await call.write(pb.VerifyUploadRequest(start=pb.VerifyUploadStart(id="u")))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert error.value.code() is CODE.DEADLINE_EXCEEDED

    run(work)


# -- streams ------------------------------------------------------------------------------------------------------------


def test_a_stream_reads_no_more_than_its_window(tmp_path: Path) -> None:
    settings = RpcSettings(identities=(ANYBODY,), stream_window=3)

    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, settings, resolver=silent) as server:
            call = server.client.open("VerifyStream", timeout=None)
            only_dmarc = a_request(session=pb.Session(), message=b"From: a@x.example\r\n\r\n")
            for n in range(10):
                only_dmarc.id = f"m{n}"
                await call.write(pb.VerifyStreamRequest(request=only_dmarc))
            await silent.asked.wait()
            for _ in range(20):
                await asyncio.get_running_loop().run_in_executor(None, gc.collect)
            assert silent.waiting % 3 == 0
            per_item = silent.waiting // 3
            assert 1 <= per_item <= 3
            call.cancel()
            await _until_nothing_waits(silent)

    run(work)


def test_answers_do_not_wait_for_slower_ones_before_them(tmp_path: Path) -> None:
    class Half(Silent):
        def known(self, question: Question) -> Answer | None:
            return None if "slow" in question.name else zone.known(question)

    from authmilter.dns.zone import ZoneResolver  # noqa: PLC0415 - beside its only use

    zone = ZoneResolver({})

    async def work() -> None:
        async with local(tmp_path, resolver=Half()) as server:
            call = server.client.open("VerifyStream", timeout=None)
            for name in ("slow", "quick", "slower", "quicker"):
                message = f"From: a@{name}.example\r\n\r\n".encode()
                request = a_request(id=name, message=message, session=pb.Session())
                await call.write(pb.VerifyStreamRequest(request=request))
            assert (await call.read()).id == "quick"
            answer = await call.read()
            assert answer.id in {"quicker", "slower"}  # `slower` has no `slow.` in its name's middle
            call.cancel()

    run(work)


def test_a_slow_reader_stops_his_own_stream_and_holds_up_nobody(tmp_path: Path) -> None:
    settings = RpcSettings(identities=(ANYBODY,), stream_window=4)
    narrow = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))

    async def work() -> None:
        async with local(tmp_path, settings, options=narrow) as server:
            slow = server.client.open("VerifyStream", timeout=None)

            async def send() -> None:
                for n in range(3000):
                    await slow.write(pb.VerifyStreamRequest(request=a_request(id=f"m{n}")))

            sending = asyncio.ensure_future(send())
            judged, before = 0, -1
            while judged != before:
                before = judged
                for _ in range(20):  # others are served meanwhile
                    await server.client("Verify", a_request(options=pb.VerifyOptions(record=False)))
                judged = len(server.notes.records)
            assert 4 <= judged < 1000  # nobody reads the answers, so no more is read, judged and kept
            async with asyncio.timeout(20):
                for _ in range(judged + 50):
                    assert (await slow.read()).WhichOneof("result") == "response"
            sending.cancel()
            slow.cancel()
            while server.server.open_calls:
                await asyncio.get_running_loop().run_in_executor(None, gc.collect)
            assert server.notes.bugs == []

    run(work)


def test_a_draining_stream_answers_what_it_has_read_and_says_that_it_goes(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            call = server.client.open("VerifyStream", timeout=None)
            for n in range(3):
                await call.write(pb.VerifyStreamRequest(request=a_request(id=f"m{n}")))
            got = [(await call.read()).id for _ in range(3)]
            draining = asyncio.ensure_future(server.server.drain(10.0))

            async def rest() -> None:
                while (answer := await call.read()) is not grpc.aio.EOF:
                    got.append(answer.id)

            with pytest.raises(grpc.aio.AioRpcError) as error:  # else it ended as if all were well
                await rest()
            assert error.value.code() is CODE.UNAVAILABLE
            assert sorted(got) == ["m0", "m1", "m2"]
            async with asyncio.timeout(5):
                await draining

    run(work)


def test_a_draining_server_finishes_its_calls_and_takes_no_more(tmp_path: Path) -> None:
    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, resolver=silent) as server:
            under_way = server.client("Verify", a_request(), timeout=2.0)
            await silent.asked.wait()
            draining = asyncio.ensure_future(server.server.drain(10.0))
            answer = await under_way
            assert answer.id == "m1"
            async with asyncio.timeout(5):
                await draining
            error = await server.client.refused("Verify", a_request(), timeout=2.0)
            assert error.code() is CODE.UNAVAILABLE

    run(work)


def test_after_the_grace_what_is_left_is_cut(tmp_path: Path) -> None:
    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, resolver=silent) as server:
            under_way = server.client("Verify", a_request(), timeout=30.0)
            await silent.asked.wait()
            async with asyncio.timeout(5):
                await server.server.drain(0.2)
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await under_way
            assert silent.waiting == 0

    run(work)


# -- faults of ours, and peers that are none -------------------------------------------------------------------------------


def _broken(built: Runtime) -> Runtime:
    def now() -> Any:
        raise RuntimeError("a secret of the server")

    return replace(built, now=now)


def test_a_fault_of_ours_is_an_id_to_the_caller_and_a_traceback_to_the_journal(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path, change=_broken) as server:
            error = await server.client.refused("Verify", a_request())
            assert (error.code(), error.details()) == (CODE.INTERNAL, "internal error (id TESTID)")
            assert details(error).details == [] or not details(error).message
            (where, bug) = server.notes.bugs[0]
            assert where == "grpc:Verify"
            assert "TESTID" in "".join(bug.__notes__)
            answers = [
                a async for a in server.client("VerifyStream", pb.VerifyStreamRequest(request=a_request()))
            ]
            assert (answers[0].error.code, answers[0].error.message) == (13, "internal error (id TESTID)")
            assert len(server.notes.bugs) == 2

    run(work)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 5000,
        b"\x16\x03\x01",
    ],
)
def test_garbage_on_the_port_harms_nobody(garbage: bytes, tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path, listen="127.0.0.1:0") as server:
            host, _, port = server.target.rpartition(":")
            assert int(port) > 0
            for _ in range(20):
                reader, writer = await asyncio.open_connection(host, int(port))
                with contextlib.suppress(ConnectionError):
                    writer.write(garbage)
                    await writer.drain()
                writer.close()
                del reader
            assert (await server.client("Verify", a_request())).id == "m1"
            assert server.notes.bugs == []

    run(work)


def test_octets_that_are_no_request_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            raw: Any = server.client.channel.unary_unary("/authmilter.v1.VerifierService/Verify")
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await raw(b"\xff\xff\xff")
            assert error.value.code() is CODE.INVALID_ARGUMENT
            assert error.value.details() == "what was sent is no VerifyRequest"
            assert server.notes.bugs == []  # a stranger's octets are no fault of ours
            unknown: Any = server.client.channel.unary_unary("/authmilter.v1.VerifierService/Nothing")
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await unknown(b"")
            assert error.value.code() is CODE.UNIMPLEMENTED

    run(work)


def test_a_unix_socket_has_its_mode_from_the_start(tmp_path: Path) -> None:
    async def work() -> None:
        settings = RpcSettings(identities=(ANYBODY,), socket_mode=0o600)
        async with local(tmp_path, settings):
            assert stat.S_IMODE((tmp_path / "g.sock").stat().st_mode) == 0o600

    mask = os.umask(0o022)
    try:
        run(work)
    finally:
        assert os.umask(mask) == 0o022


def test_a_port_that_is_taken_is_an_error_in_plain_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async def work() -> None:
            async with local(tmp_path, listen=f"127.0.0.1:{port}"):
                pass

        with pytest.raises(AuthMilterError, match="cannot listen on"):
            run(work)


def test_processes_share_a_port(tmp_path: Path) -> None:
    async def work() -> None:
        async with (
            local(tmp_path, listen="127.0.0.1:0") as one,
            local(tmp_path, listen=one.target) as two,
        ):
            assert two.target == one.target
            assert (await two.client("Verify", a_request())).id == "m1"

    run(work)


def test_many_idle_connections_cost_little_and_hold_nobody_up(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path, listen="127.0.0.1:0") as server:
            host, _, port = server.target.rpartition(":")
            idle = [await asyncio.open_connection(host, int(port)) for _ in range(300)]
            assert (await server.client("Verify", a_request())).id == "m1"
            for _, writer in idle:
                writer.close()

    run(work)
