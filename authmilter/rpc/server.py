"""The gRPC server of one process: its sockets, TLS, limits, health and reflection, and its end.

    server = GrpcServer(lambda: runtime, settings, control=control)
    await server.start(["unix:/run/authmilter/grpc.sock"])
    ...
    await server.drain(30.0)

Made and started inside a running event loop; grpc must not be started before a fork.

How it fails: `start` raises `AuthMilterError` in an administrator's words, and nothing listens then.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from authmilter.engine import Runtime
from authmilter.errors import AuthMilterError, InvalidName
from authmilter.milter.sockets import Family, ListenSpec
from authmilter.rpc.certificates import Certificates
from authmilter.rpc.public import MAX_OPEN, PublicCalls
from authmilter.rpc.servicer import AdminPort, Servicer
from authmilter.rpc.settings import RpcSettings

__all__ = ["AdminPort", "GrpcServer", "RpcSettings"]

#: What a request may be besides its message.
_BESIDE = 2 << 20
#: Octets of the metadata of a call.
_METADATA = 16 << 10
#: Calls at a time on one connection.
_STREAMS = 1000
#: Calls that are on their way to being refused.
_PASSING = 1000
#: How long the last answers may take to be written, in seconds.
_LAST_WORDS = 0.5
#: How long new calls are turned away before the end; less than the first pause of the published service config.
_TURN_AWAY = 0.05


class GrpcServer:
    """All services of one process; see the module.

    Args:
        runtime: gives the runtime of the moment; asked once for each message, so that a reload needs nothing here.
        settings: who may call what, limits, certificates.
        control: what `AdminService` asks.
        note: told, by a word and in a sentence, what an administrator should know.
    """

    def __init__(
        self,
        runtime: Callable[[], Runtime],
        settings: RpcSettings,
        *,
        control: AdminPort,
        note: Callable[[str, str], None] = lambda _name, _sentence: None,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._control = control
        self._note = note
        self._server: grpc.aio.Server | None = None
        self._servicer: Servicer | None = None
        self._public: PublicCalls | None = None
        #: where it listens, with the ports that it got
        self.listening: tuple[str, ...] = ()

    @property
    def open_calls(self) -> int:
        """How many calls are under way (health and reflection not counted)."""
        return self._servicer.open_calls if self._servicer is not None else 0

    @property
    def watchers(self) -> int:
        """How many watch our health."""
        return self._public.watchers if self._public is not None else 0

    async def start(self, listeners: Sequence[str]) -> None:
        """Listen and serve.

        Args:
            listeners: `HOST:PORT`, `[IPv6]:PORT`, `unix:/path`, or the forms of `ListenSpec`. Port 0 is chosen by the
                system. Ports are shared with other processes that ask for them, paths are taken.

        Raises:
            AuthMilterError: a place cannot be had, is not safe without TLS, or the certificate cannot be used.
        """
        settings = self._settings
        certificates = None
        if settings.tls is not None:
            certificates = Certificates(settings.tls, lambda text: self._note("grpc_certificate", text))
        specs = [_place(text) for text in listeners]
        if certificates is None and not settings.plaintext_anywhere:
            for spec in specs:
                if not _stays_here(spec):
                    raise AuthMilterError(
                        f"gRPC on {_written(spec)} could be read on its way: give it TLS, or say "
                        "grpc.plaintext_on_public_addresses"
                    )
        servicer = Servicer(self._runtime, settings, self._control)
        public = PublicCalls()
        # The servicer counts the calls of known callers: nobody else can use up what they may have at a time.
        most = settings.max_calls + MAX_OPEN + _PASSING
        server = grpc.aio.server(options=_options(settings), maximum_concurrent_rpcs=most)
        server.add_generic_rpc_handlers([*servicer.handlers(), *public.handlers()])
        try:
            self.listening = tuple(_bind(server, spec, certificates, settings) for spec in specs)
            await server.start()
        except BaseException:
            await server.stop(None)
            raise
        self._server, self._servicer, self._public = server, servicer, public

    async def drain(self, grace: float) -> None:
        """Stop: health says NOT_SERVING, new calls are sent elsewhere, those under way end within `grace` seconds.

        Returns when all have ended. Harmless a second time, also with a shorter grace.
        """
        server, servicer, public = self._server, self._servicer, self._public
        if server is None or servicer is None or public is None:
            return
        servicer.drain()
        public.leave()
        # Shutting down, grpc cancels (CANCELLED) the calls that it has taken from the network and not handed to us yet.
        # So that these are few, all new ones are first told UNAVAILABLE for a moment, on which every client may ask
        # again; those who wait before that as the service config says come back when this connection has gone.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TURN_AWAY):
                await asyncio.Event().wait()
        stopping = asyncio.ensure_future(server.stop(grace))
        idle = asyncio.ensure_future(servicer.idle())
        try:
            await asyncio.wait((stopping, idle), return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                # What is left are answers on their way, and watchers of our health, who would stay for ever.
                await asyncio.wait((stopping,), timeout=_LAST_WORDS)
                await server.stop(None)
            await stopping
        finally:
            idle.cancel()


def _options(settings: RpcSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_message + _BESIDE),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", _METADATA),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.max_connection_age_ms", int(settings.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.drain * 1000)),
        ("grpc.max_connection_idle_ms", int(settings.idle_timeout * 1000)),
        # Clients may ask whether we live, and a client that has gone without a word is found out.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 120_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def _place(text: str) -> ListenSpec:
    scheme = text.partition(":")[0].lower()
    plain = not text.startswith("/") and scheme not in {"inet", "inet6", "unix", "local"}
    try:
        return ListenSpec.parse(f"inet:{text}" if plain else text)
    except InvalidName as e:
        raise AuthMilterError(f"gRPC cannot listen on {text}: {e}") from None


def _written(spec: ListenSpec) -> str:
    if spec.family is Family.UNIX:
        return f"unix:{spec.path}"
    return f"[{spec.host}]:{spec.port}" if spec.family is Family.INET6 else f"{spec.host}:{spec.port}"


def _stays_here(spec: ListenSpec) -> bool:
    """True of a place that only this machine can reach."""
    if spec.family is Family.UNIX or spec.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(spec.host).is_loopback
    except ValueError:
        return False


def _bind(
    server: grpc.aio.Server, spec: ListenSpec, certificates: Certificates | None, settings: RpcSettings
) -> str:
    text = _written(spec)
    try:
        if spec.family is Family.UNIX:
            # A unix socket is reached by who may open it, and needs no TLS.
            with _umask(0o777 & ~settings.socket_mode):
                server.add_insecure_port(text)
            return text
        if certificates is not None:
            port = server.add_secure_port(text, certificates.credentials())
        else:
            port = server.add_insecure_port(text)
    except RuntimeError:
        port = 0
    if port == 0:
        raise AuthMilterError(f"gRPC cannot listen on {text}: it is taken, or not ours to have")
    return text if spec.family is Family.UNIX else f"{text.rpartition(':')[0]}:{port}"


@contextlib.contextmanager
def _umask(mask: int) -> Any:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
