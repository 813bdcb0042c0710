"""A gRPC server in this process, over a unix socket or a port, with a zone for a DNS; and a plain client for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # it has no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above

from authmilter import runtime
from authmilter.config.load import Loaded, parse
from authmilter.engine import Runtime
from authmilter.ports import Resolver
from authmilter.rpc.methods import METHODS
from authmilter.rpc.server import GrpcServer
from authmilter.rpc.settings import Identity, Peers, Permission, RpcSettings
from tests.support.road import Notes, a_runtime
from tests.support.scenarios import zone

__all__ = [
    "ALL",
    "ANYBODY",
    "Client",
    "Control",
    "Local",
    "details",
    "local",
    "run",
    "settings_of",
    "violations",
]

T = TypeVar("T")

ALL = frozenset(Permission)
#: Everybody on the unix socket may do everything.
ANYBODY = Identity(
    name="anybody",
    peers=frozenset(Peers),
    permissions=ALL,
    inline_zone=True,
)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test on a loop of its own, for at most a minute."""

    async def limited() -> T:
        async with asyncio.timeout(60):
            return await work()

    return asyncio.run(limited())


@dataclass
class Control:
    """What the admin calls ask."""

    answer: Mapping[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    refusal: Exception | None = None

    async def status(self) -> Mapping[str, Any]:
        self.told.append("status")
        return self.answer

    async def reload(self) -> Mapping[str, Any]:
        self.told.append("reload")
        if self.refusal is not None:
            raise self.refusal
        return self.answer


class Client:
    """Calls by name: `await client("Verify", request)`."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self.channel = channel
        self.metadata = tuple(metadata)

    def _call(self, name: str) -> tuple[Any, Any]:
        method = next(m for service in METHODS.values() for m in service.values() if m.name == name)
        kind = {(False, False): "unary_unary", (True, False): "stream_unary", (True, True): "stream_stream"}[
            method.client_streaming, method.server_streaming
        ]
        made = getattr(self.channel, kind)(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.read_response,
        )
        return made, method

    def __call__(self, name: str, *requests: Any, timeout: float | None = 30.0) -> Any:
        made, method = self._call(name)
        given = requests[0] if not method.client_streaming else None
        if method.client_streaming:
            given = iter_of(requests)
        return made(given, timeout=timeout, metadata=self.metadata)

    def open(self, name: str, timeout: float | None = 30.0) -> Any:
        """Open a stream that is written and read by hand."""
        return self._call(name)[0](timeout=timeout, metadata=self.metadata)

    def open_with(self, name: str, requests: AsyncIterator[Any], timeout: float | None = 30.0) -> Any:
        """Call with requests that are made as they are sent."""
        return self._call(name)[0](requests, timeout=timeout, metadata=self.metadata)

    async def refused(self, name: str, *requests: Any, timeout: float | None = 30.0) -> grpc.aio.AioRpcError:  # noqa: ASYNC109 - it is gRPC's deadline
        """Return the error that a call ends with."""
        try:
            await self(name, *requests, timeout=timeout)
        except grpc.aio.AioRpcError as e:
            return e
        raise AssertionError("it was not refused")


async def iter_of(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


@dataclass
class Local:
    """A running server; `runtime` may be replaced, as a reload does."""

    server: GrpcServer
    target: str
    notes: Notes
    control: Control
    runtime: Runtime
    client: Client

    def with_token(self, token: str) -> Client:
        return Client(self.client.channel, (("authorization", f"Bearer {token}"),))


def settings_of(text: str) -> RpcSettings:
    """Return the settings of a configuration's text."""
    return runtime.grpc_settings(Loaded(config=parse(text, "test.yaml"), path=None, base=Path.cwd()))


@contextlib.asynccontextmanager
async def local(
    folder: Path,
    settings: RpcSettings | None = None,
    *,
    config: str = "authserv_id: mx.recv.example\n",
    resolver: Mapping[str, object] | Resolver | None = None,
    listen: str | None = None,
    change: Callable[[Runtime], Runtime] = lambda built: built,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> AsyncIterator[Local]:
    """Serve while the block lasts."""
    notes, control = Notes(), Control()
    chosen = settings if settings is not None else RpcSettings(identities=(ANYBODY,))
    grpc_config = "grpc: {listen: ['unix:/x']}\n" if "grpc:" not in config else ""
    built = change(a_runtime(config + grpc_config, resolver if resolver is not None else zone(), notes))
    found: list[Local] = []
    server = GrpcServer(lambda: found[0].runtime, chosen, control=control)
    await server.start([listen or f"unix:{folder}/g.sock"])
    target = server.listening[0]
    many = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), *options]
    # a pool of its own, or channels of other tests to the same address would be shared
    many.append(("grpc.use_local_subchannel_pool", 1))
    channel = (
        grpc.aio.secure_channel(target, credentials, options=many)
        if credentials is not None
        else grpc.aio.insecure_channel(target, options=many)
    )
    found.append(Local(server, target, notes, control, built, Client(channel)))
    try:
        yield found[0]
    finally:
        await channel.close()
        await server.drain(0.2)


def details(error: grpc.aio.AioRpcError) -> Status:
    """Return the whole status of an error."""
    found = Status()
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            found.ParseFromString(value if isinstance(value, bytes) else value.encode())
    return found


def violations(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the fields that a request had wrong."""
    bad = error_details_pb2.BadRequest()
    (detail,) = details(error).details
    assert detail.Unpack(bad)
    return [v.field for v in bad.field_violations]
