"""Callers who mean harm: strangers who hold calls open, requests made to be slow, and what their errors look like."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it has no types
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]  # it has no types

from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.codec import Problems
from authmilter.rpc.methods import METHOD, METHODS
from authmilter.rpc.public import MAX_OPEN, PublicCalls
from authmilter.rpc.refusal import Refused
from authmilter.rpc.settings import Identity, RpcSettings, token_hash
from tests.rpc.local import ANYBODY, Local, local, run, violations
from tests.rpc.test_calls import VERIFIER, a_request
from tests.rpc.test_limits import Silent

CODE = grpc.StatusCode
GATEWAY = Identity(name="gateway", tokens=frozenset({token_hash(b"secret-token")}))
UNARY = sorted(name for name, method in METHOD.items() if not method.client_streaming)


def _held(server: Local, path: str) -> Any:
    """Open a call by its headers alone: nothing is sent on it yet."""
    return server.client.channel.stream_stream(path)()


async def _code(call: Any) -> grpc.StatusCode:
    async with asyncio.timeout(5):
        code: grpc.StatusCode = await call.code()
        return code


# -- strangers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD))
def test_a_stranger_is_refused_before_his_message_is_read(name: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path, RpcSettings(identities=(GATEWAY,))) as server:
            call = _held(server, METHOD[name].path)
            assert await _code(call) is CODE.UNAUTHENTICATED
            assert server.server.open_calls == 0

    run(work)


@pytest.mark.parametrize("name", UNARY)
def test_who_sends_no_request_is_told_so(name: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path, RpcSettings(identities=(ANYBODY,), upload_pause=0.2)) as server:
            assert await _code(_held(server, METHOD[name].path)) is CODE.DEADLINE_EXCEEDED
            nothing = _held(server, METHOD[name].path)
            await nothing.done_writing()
            assert await _code(nothing) is CODE.INVALID_ARGUMENT
            assert server.notes.bugs == []

    run(work)


def test_strangers_cannot_use_up_the_calls_of_others(tmp_path: Path) -> None:
    settings = RpcSettings(identities=(GATEWAY,), max_calls=2)

    async def work() -> None:
        async with local(tmp_path, settings) as server:
            watch: Any = server.client.channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            watching = [watch(health_pb2.HealthCheckRequest()) for _ in range(MAX_OPEN // 3)]
            for call in watching:
                assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
            silent = [_held(server, "/grpc.health.v1.Health/Check") for _ in range(20)]
            assert await _code(watch(health_pb2.HealthCheckRequest())) is CODE.RESOURCE_EXHAUSTED
            known = server.with_token("secret-token")
            assert (await known("Verify", a_request())).id == "m1"
            check: Any = server.client.channel.unary_unary("/grpc.health.v1.Health/Check")
            assert health_pb2.HealthCheckResponse.FromString(await check(b"")).status == 1
            for call in (*watching, *silent):
                call.cancel()

    run(work)


def test_a_caller_of_health_or_reflection_who_says_nothing_is_sent_away(tmp_path: Path) -> None:
    async def work() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(PublicCalls(patience=0.2).handlers())
        server.add_insecure_port(f"unix:{tmp_path}/p.sock")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/p.sock") as channel:
            for path in (
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch",
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            ):
                silent: Any = channel.stream_stream(path)()
                assert await _code(silent) is CODE.DEADLINE_EXCEEDED
            nothing: Any = channel.stream_stream("/grpc.health.v1.Health/Check")()
            await nothing.done_writing()
            assert await _code(nothing) is CODE.INVALID_ARGUMENT
            garbage: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert await _code(garbage(b"\xff\xff")) is CODE.INVALID_ARGUMENT
        await server.stop(None)

    run(work)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _who_takes_nothing(path: bytes, calls: int = 1) -> bytes:
    """Calls as octets: HTTP/2 (RFC 9113) by hand, because no library opens a stream with a window of nothing."""
    headers = b"\x83\x86\x04" + _text(path) + b"\x01" + _text(b"localhost")
    headers += b"\x00" + _text(b"content-type") + _text(b"application/grpc")
    headers += b"\x00" + _text(b"te") + _text(b"trailers")
    streams = range(1, 2 * calls, 2)
    sent = b"".join(_frame(1, 4, n, headers) + _frame(0, 1, n, bytes(5)) for n in streams)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"\x00\x04" + bytes(4)) + sent


async def _moment() -> None:
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)


def test_a_watcher_who_takes_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            _, writer = await asyncio.open_unix_connection(server.target.removeprefix("unix:"))
            writer.write(_who_takes_nothing(b"/grpc.health.v1.Health/Watch"))
            await writer.drain()
            async with asyncio.timeout(5):
                while server.server.watchers == 0:
                    await _moment()
            assert (await server.client("Verify", a_request())).id == "m1"
            async with asyncio.timeout(5):
                await server.server.drain(30)
            writer.close()

    run(work)


def test_probers_who_take_nothing_do_not_keep_others_from_the_service(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path, RpcSettings(identities=(ANYBODY,), max_calls=10)) as server:
            writers = []
            for _ in range(15):  # more than there may be calls in all
                _, writer = await asyncio.open_unix_connection(server.target.removeprefix("unix:"))
                writer.write(_who_takes_nothing(b"/grpc.health.v1.Health/Check", 200))
                writers.append(writer)
                await writer.drain()
                assert (await server.client("Verify", a_request())).id == "m1"
            for writer in writers:
                writer.close()

    run(work)


def test_reflection_has_its_later_name_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            for version in ("v1", "v1alpha"):
                call: Any = server.client.channel.stream_stream(
                    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
                )()
                await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                found = {s.name for s in (await call.read()).list_services_response.service}
                assert {f"authmilter.v1.{name}" for name in METHODS} < found
                call.cancel()

    run(work)


# -- requests made to be slow --------------------------------------------------------------------------------------------


def test_recipients_that_are_slow_to_read_are_few(tmp_path: Path) -> None:
    slow = "x@" + "ü." * 200 + "example"
    for many in (1000, 10_000):
        started = time.process_time()
        problems = Problems()
        problems.envelope(pb.Envelope(rcpt_to=[f"{n}{slow}" for n in range(many)]))
        assert time.process_time() - started < 2.0
        assert [field for field, _ in problems.found] == (["envelope.rcpt_to"] if many > 1000 else [])

    async def work() -> None:
        async with local(tmp_path) as server:
            error = await server.client.refused(
                "Verify", a_request(envelope=pb.Envelope(rcpt_to=[slow] * 1001))
            )
            assert error.code() is CODE.INVALID_ARGUMENT
            assert violations(error) == ["envelope.rcpt_to"]

    run(work)


def test_a_zone_of_who_may_not_bring_one_is_not_even_read(tmp_path: Path) -> None:
    wrong = Struct()
    wrong.update({"mail.example": "no records"})

    async def work() -> None:
        async with local(tmp_path, RpcSettings(identities=(VERIFIER,))) as server:
            for name, request in (
                ("Verify", a_request(options=pb.VerifyOptions(zone=wrong))),
                ("CheckSpf", pb.CheckSpfRequest(client_ip="192.0.2.1", zone=wrong)),
                ("DiscoverDmarc", pb.DiscoverDmarcRequest(domain="a.example", zone=wrong)),
            ):
                assert (await server.client.refused(name, request)).code() is CODE.PERMISSION_DENIED
        async with local(tmp_path, RpcSettings(identities=(ANYBODY,))) as server:
            error = await server.client.refused("Verify", a_request(options=pb.VerifyOptions(zone=wrong)))
            assert error.code() is CODE.INVALID_ARGUMENT

    run(work)


@pytest.mark.parametrize("seconds", [-62_135_596_800, -1, 0, 4_102_444_800, 253_402_300_799])
def test_any_time_can_be_judged_as_of(seconds: int, tmp_path: Path) -> None:
    options = pb.VerifyOptions(now=Timestamp(seconds=seconds, nanos=999_999_999))

    async def work() -> None:
        async with local(tmp_path) as server:
            answer = await server.client("Verify", a_request(options=options))
            assert answer.verdict.decision.rule
            assert [step.method for step in answer.verdict.trace if step.bug] == []
            assert server.notes.bugs == []

    run(work)


# -- what errors look like -------------------------------------------------------------------------------------------------


def test_an_error_with_very_many_wrong_fields_still_arrives(tmp_path: Path) -> None:
    request = a_request(envelope=pb.Envelope(rcpt_to=["x" * 1025] * 9000))

    async def work() -> None:
        async with local(tmp_path) as server:
            error = await server.client.refused("Verify", request)
            assert error.code() is CODE.INVALID_ARGUMENT
            assert len(violations(error)) == 20
            assert str(error.details()).startswith("8980 more; ")

    run(work)


def test_what_strangers_wrote_is_shown_escaped(tmp_path: Path) -> None:
    evil = "a\r\nx: \x1b[31m\u202eü"

    async def work() -> None:
        async with local(tmp_path) as server:
            for name, request in (
                ("Verify", a_request(session=pb.Session(client_ip=evil, local_name=evil))),
                ("Verify", a_request(options=pb.VerifyOptions(authserv_id=evil))),
                ("Verify", a_request(options=pb.VerifyOptions(policy=evil))),
                ("CheckDkimKey", pb.CheckDkimKeyRequest(domain=evil, selector=evil)),
                ("CheckDkimKey", pb.CheckDkimKeyRequest(domain="a.example", selector=evil)),
                ("CheckBimi", pb.CheckBimiRequest(domain="a.example", selector=evil)),
            ):
                error = await server.client.refused(name, request)
                assert error.code() is CODE.INVALID_ARGUMENT
                text = str(error.details())
                assert text.isascii()
                assert text.isprintable()

    run(work)


# -- what is left --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Verify", "VerifyStream", "VerifyUpload"])
def test_a_cancelled_call_leaves_no_task(name: str, tmp_path: Path) -> None:
    async def work() -> None:
        silent = Silent()
        async with local(tmp_path, resolver=silent) as server:
            before = len(asyncio.all_tasks())
            for _ in range(10):
                silent.asked.clear()
                call = server.client.open_with(name, _requests(name)) if name != "Verify" else None
                if call is None:
                    call = server.client(name, a_request())
                await silent.asked.wait()
                call.cancel()
            async with asyncio.timeout(10):
                while silent.waiting or server.server.open_calls or len(asyncio.all_tasks()) > before:
                    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)
            assert server.notes.bugs == []

    run(work)


async def _requests(name: str) -> Any:
    request = a_request()
    if name == "VerifyStream":
        for _ in range(5):
            yield pb.VerifyStreamRequest(request=request)
    else:
        start = pb.VerifyUploadStart(session=request.session, envelope=request.envelope)
        yield pb.VerifyUploadRequest(start=start)
        yield pb.VerifyUploadRequest(chunk=request.message)
    await asyncio.Event().wait()


def test_a_refusal_counts_neither_for_the_rate_nor_the_calls(tmp_path: Path) -> None:
    nobody = replace(ANYBODY, permissions=frozenset(), rate=0.001, burst=1)

    async def work() -> None:
        async with local(tmp_path, RpcSettings(identities=(nobody,), max_calls=1)) as server:
            for _ in range(5):
                assert (await server.client.refused("Verify", a_request())).code() is CODE.PERMISSION_DENIED

    run(work)


def test_a_refusal_is_short() -> None:
    problems = Problems()
    problems.add("x", "y" * 100_000)
    with pytest.raises(Refused) as error:
        problems.check()
    assert len(error.value.status().SerializeToString()) < 1500


def test_without_grpc_listen_grpc_is_not_loaded() -> None:
    code = (
        "import sys, authmilter.cli.main, authmilter.cli.run, authmilter.supervisor, authmilter.worker as w\n"
        "w.preload()\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('grpc', 'google')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
