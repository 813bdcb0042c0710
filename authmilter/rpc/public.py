"""The calls that everybody may make who can connect: `grpc.health.v1.Health` and server reflection.

By convention neither asks who calls: probes and balancers have no tokens, and the contract is published anyway. What
they cost is bounded instead: so many are open at a time, counted apart from the calls of known callers, and who
opens one and then says nothing is sent away. A watcher that does not read holds up nobody, nor the end.

How it fails: a status that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2  # type: ignore[import-untyped]  # it has no types
from grpc_reflection.v1alpha import reflection, reflection_pb2  # type: ignore[import-untyped]  # it has no types

from authmilter.rpc.methods import SERVICES
from authmilter.rpc.refusal import Refused, exhausted

__all__ = ["MAX_OPEN", "PublicCalls"]

Context = grpc.aio.ServicerContext[Any, Any]

#: Calls of one kind that are open at a time.
_MAX_KIND = 200
_KINDS = ("Check", "Watch", "ServerReflectionInfo")
#: Calls of all kinds that can be open.
MAX_OPEN = _MAX_KIND * len(_KINDS)
#: How long a caller may take to say what he wants, in seconds.
_PATIENCE = 10.0
#: The later name of the same service, whose messages are the same on the wire.
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class PublicCalls:
    """Health and reflection of one server; made inside the running loop.

    Args:
        patience: seconds that a caller may take to say what he wants.
    """

    __slots__ = ("_leaving", "_open", "_patience", "_reflection")

    def __init__(self, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._leaving = asyncio.Event()
        self._open = dict.fromkeys(_KINDS, 0)
        self._reflection = reflection.aio.ReflectionServicer(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        )

    @property
    def watchers(self) -> int:
        """How many watch our health."""
        return self._open["Watch"]

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what the server calls, for every service."""
        asked, said = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        check = grpc.stream_stream_rpc_method_handler(
            self._guarded("Check", self._check), asked.FromString, said.SerializeToString
        )
        watch = grpc.stream_stream_rpc_method_handler(
            self._guarded("Watch", self._watch), asked.FromString, said.SerializeToString
        )
        reflect = grpc.stream_stream_rpc_method_handler(
            self._guarded("ServerReflectionInfo", self._reflect),
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return [
            grpc.method_handlers_generic_handler(health.SERVICE_NAME, {"Check": check, "Watch": watch}),
            *(
                grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": reflect})
                for name in (reflection.SERVICE_NAME, _REFLECTION_V1)
            ),
        ]

    def leave(self) -> None:
        """Say NOT_SERVING from now on."""
        self._leaving.set()

    def _guarded(
        self, kind: str, work: Callable[[Context], Awaitable[None]]
    ) -> Callable[[Any, Context], Awaitable[None]]:
        async def call(_requests: object, context: Context) -> None:
            try:
                with self._room(kind):
                    # Answers are written in here: one that nobody takes is a call that is open.
                    try:
                        await work(context)
                    except Refused as e:
                        await context.abort(e.code, e.text)
            except Refused as e:
                await context.abort(e.code, e.text)

        return call

    @contextmanager
    def _room(self, kind: str) -> Generator[None, None, None]:
        if self._open[kind] >= _MAX_KIND:
            raise exhausted(f"{_MAX_KIND} calls of {kind} are open already")
        self._open[kind] += 1
        try:
            yield
        finally:
            self._open[kind] -= 1

    async def _read(self, context: Context) -> Any:
        """Return the next request, or `grpc.aio.EOF`."""
        try:
            async with asyncio.timeout(self._patience):
                return await context.read()
        except TimeoutError:
            raise Refused(StatusCode.DEADLINE_EXCEEDED, f"nothing came for {self._patience:g} s") from None
        except DecodeError:
            raise Refused(StatusCode.INVALID_ARGUMENT, "the request cannot be read") from None

    async def _named(self, context: Context) -> str:
        request = await self._read(context)
        if request is grpc.aio.EOF:
            raise Refused(StatusCode.INVALID_ARGUMENT, "the request is missing")
        return str(request.service)

    def _status(self, service: str) -> Message:
        values = health_pb2.HealthCheckResponse
        status = values.SERVING
        if service and service not in SERVICES:
            status = values.SERVICE_UNKNOWN
        elif self._leaving.is_set():
            status = values.NOT_SERVING
        made: Message = values(status=status)
        return made

    async def _check(self, context: Context) -> None:
        service = await self._named(context)
        if service and service not in SERVICES:
            raise Refused(StatusCode.NOT_FOUND, "there is no such service")
        await context.write(self._status(service))

    async def _watch(self, context: Context) -> None:
        service = await self._named(context)
        first = self._status(service)
        await context.write(first)
        await self._leaving.wait()
        last = self._status(service)
        if last != first:
            await context.write(last)
        await asyncio.Event().wait()  # he watches until one of us goes

    async def _reflect(self, context: Context) -> None:
        async def requests() -> AsyncIterator[Any]:
            while (request := await self._read(context)) is not grpc.aio.EOF:
                yield request

        async for answer in self._reflection.ServerReflectionInfo(requests(), context):
            await context.write(answer)
