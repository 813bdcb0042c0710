"""gRPC clients of the service: one call, and callers that never stop. Here alone do these tests import grpc."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # it has no types

from authmilter.remote.settings import SERVICE_CONFIG
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.methods import METHODS
from tests.service.helpers import MESSAGE

__all__ = ["Callers", "Connection", "Upload", "rule_of", "verify_request"]


def verify_request() -> pb.VerifyRequest:
    """A message from the internet."""
    return pb.VerifyRequest(
        message=MESSAGE,
        session=pb.Session(client_ip="192.0.2.1", helo="mail.example.org"),
        envelope=pb.Envelope(mail_from="alice@example.org", rcpt_to=["bob@rig.example"]),
    )


def rule_of(response: Any) -> str:
    """The rule that decided; the services' policies are told apart by it."""
    return str(response.verdict.decision.rule)


class Upload:
    """A message that comes in two pieces, with time between."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def begin(self) -> None:
        """Send all but the end of the message."""
        whole = verify_request()
        start = pb.VerifyUploadStart(session=whole.session, envelope=whole.envelope)
        await self._call.write(pb.VerifyUploadRequest(start=start))
        await self._call.write(pb.VerifyUploadRequest(chunk=MESSAGE[:-6]))

    async def end(self) -> str:
        """Send the rest; returns the rule."""
        await self._call.write(pb.VerifyUploadRequest(chunk=MESSAGE[-6:]))
        await self._call.done_writing()
        return rule_of(await self._call)


class Connection:
    """One client.

    Args:
        target: as gRPC writes it: `127.0.0.1:PORT` or `unix:/path`.
        obeys: it has the published service config; else it neither waits nor asks again.
    """

    def __init__(self, target: str, *, obeys: bool = True) -> None:
        options: list[tuple[str, Any]] = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
        ]
        if obeys:
            options.append(("grpc.service_config", json.dumps(SERVICE_CONFIG)))
        else:
            options.append(("grpc.enable_retries", 0))
        self._channel = grpc.aio.insecure_channel(target, options=options)

    async def call(self, service: str, name: str, request: Any, seconds: float = 20) -> Any:
        """Make a unary call."""
        method = METHODS[service][name]
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.read_response,
        )
        return await call(request, timeout=seconds)

    async def verify(self, seconds: float = 20, *, policy: str = "") -> str:
        """Have a message judged; returns the rule."""
        request = verify_request()
        if policy:
            request.options.policy = policy
        return rule_of(await self.call("VerifierService", "Verify", request, seconds))

    def upload(self) -> Upload:
        """Begin to have a message judged that comes in pieces."""
        method = METHODS["VerifierService"]["VerifyUpload"]
        call = self._channel.stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.read_response,
        )
        return Upload(call(timeout=20))

    async def healthy(self, service: str = "") -> bool:
        """Ask for its health."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        answer = await stub.Check(
            health_pb2.HealthCheckRequest(service=service), timeout=10, wait_for_ready=True
        )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def watch(self, begun: asyncio.Event) -> list[int]:
        """Watch its health until the server goes; returns what was said. Sets `begun` with the first of it."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        call = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=30, wait_for_ready=True)
        said = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (answer := await call.read()) is not grpc.aio.EOF:
                said.append(answer.status)
                begun.set()
        return said

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()


@dataclass
class Callers:
    """Clients that call without end until the block is left.

    `answers` counts the rules that decided, `failed` what callers with the published service config were refused with,
    `raw` the same for `raw_clients` further ones without it; `longest` is the longest any call took, in seconds.
    """

    target: str
    clients: int = 8
    raw_clients: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    raw: Counter[str] = field(default_factory=Counter)
    raw_answers: int = 0
    longest: float = 0.0
    _stopped: bool = False
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(obeys=True)) for _ in range(self.clients)]
        self._tasks += [asyncio.create_task(self._client(obeys=False)) for _ in range(self.raw_clients)]
        await self.more(self.clients)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int, seconds: float = 30) -> None:
        """Wait for so many further answers."""
        goal = self.answers.total() + count
        async with asyncio.timeout(seconds):
            while self.answers.total() < goal:
                self._answered.clear()
                await self._answered.wait()

    async def ended(self) -> None:
        """Wait until no caller is at work any more, beginning nothing new."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _client(self, *, obeys: bool) -> None:
        connection = Connection(self.target, obeys=obeys)
        while not self._stopped:
            began = time.monotonic()
            try:
                rule = await connection.verify()
            except grpc.aio.AioRpcError as e:
                if obeys:
                    self.failed.append(f"{e.code().name}: {e.details()}")
                else:
                    self.raw[e.code().name] += 1
                await asyncio.sleep(0.02)
                continue
            if obeys:
                self.longest = max(self.longest, time.monotonic() - began)
                self.answers[rule] += 1
                self._answered.set()
            else:
                self.raw_answers += 1
        await connection.close()
