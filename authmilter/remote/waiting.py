"""`AsyncClient`: the service for asyncio; see `authmilter.client`.

How it fails: a `CallError` for a call; in a stream, for one message. A source that raises ends its upload unjudged, and
raises. Cancelling the task that waits cancels the call.
"""

# ruff: noqa: ASYNC109 - a deadline that the server is told is more than one that the client keeps
from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it has no types

from authmilter.remote.blocking import ATTEMPTS, DEFAULT_TIMEOUT, HEALTH_PATH, WINDOW, rewinds_to
from authmilter.remote.errors import AWAY, CallError, failure_of
from authmilter.remote.requests import (
    About,
    Sender,
    StreamAnswer,
    Zone,
    answer_of,
    pieces,
    sign_request,
    sign_start,
    verify_request,
    verify_start,
    zone_field,
)
from authmilter.remote.settings import Access, Tls, bounded, channel_options
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.methods import METHOD

__all__ = ["AsyncClient"]

#: A call's answer.
A = TypeVar("A", bound=Message)
T = TypeVar("T")


class AsyncClient:
    """A connection to the service, for the event loop in which it is made. `close` it, or use it in `async with`.

    Args:
        target: `unix:/path`, `HOST:PORT` or `[IPv6]:PORT`.
        tls: TLS; None: in the clear.
        token: a bearer token; needs `tls` unless the target is on this machine, or `plaintext` is said.
        plaintext: the token may be sent in the clear to another machine.
        timeout: seconds a call may take, where the call says nothing else.
        wait: wait for a server that is not there (until the timeout); else fail after a few attempts.

    Raises:
        ValueError: `target` is none, or the token could be read on its way.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        plaintext: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        wait: bool = True,
    ) -> None:
        access = Access(target=target, tls=tls, token=token, plaintext=plaintext)
        options = channel_options(access)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(tls.authorities, tls.key, tls.certificate)
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        self._metadata = access.metadata
        self._timeout = timeout
        self._wait = wait
        # gRPC itself asks again, as the service config says, where nothing is under way yet
        self._attempts = ATTEMPTS if wait else 1
        self._calls: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up; calls under way end."""
        await self._channel.close()

    # -- messages ------------------------------------------------------------------------------------------------

    async def verify(
        self, message: bytes, *, timeout: float | None = None, **about: Unpack[About]
    ) -> pb.VerifyResponse:
        """Have a message judged.

        Args:
            message: as SMTP carries it, or a file with LF line ends.
            timeout: seconds; what is not found out by then is reported as `limit`.
            about: its session and envelope, and how to judge it.

        Raises:
            CallError: there is no answer.
            ValueError: `about` holds what no request can.
        """
        return await self._unary("Verify", verify_request(message, **about), pb.VerifyResponse, timeout)

    async def verify_stream(
        self,
        requests: AsyncIterable[pb.VerifyRequest] | Iterable[pb.VerifyRequest],
        *,
        window: int = WINDOW,
        timeout: float | None = None,
    ) -> AsyncGenerator[StreamAnswer, None]:
        """Have many messages judged on one call; yields answers as they come, in any order, each with its id.

        At most `window` messages are without an answer at a time: `requests` is read no faster than answers are taken.
        What is unanswered when a server goes away is sent again to the next. Close the iterator (or exhaust it) to end the call.

        Args:
            requests: from `verify_request`; an empty id is given a number, ids under way must differ.
            window: messages without an answer.
            timeout: seconds for the whole stream; default: none.

        Raises:
            CallError: the stream, not one message of it, has failed.
            ValueError: two messages under way have the same id.
        """
        made = self._made("VerifyStream")
        feed = _Feed(requests, window)
        vain = 0
        try:
            while await feed.has_more():
                vain += 1
                call = made(
                    timeout=bounded(timeout, None),
                    metadata=self._metadata,
                    wait_for_ready=self._wait_for_ready,
                )
                sending = asyncio.create_task(feed.send(call))
                try:
                    while (answer := await call.read()) is not grpc.aio.EOF:
                        if feed.answered(answer.id):
                            vain = 0
                            yield answer_of(answer)
                    failure = CallError("UNKNOWN", "the server ended the stream before it had answered")
                    if await call.code() is not grpc.StatusCode.OK:
                        failure = failure_of(await _error_of(call))
                except grpc.aio.AioRpcError as e:
                    failure = failure_of(e)
                finally:
                    call.cancel()
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                if failure.code not in {"UNKNOWN", *AWAY}:
                    raise failure
                if vain >= self._attempts and feed.waits():
                    raise failure
            if feed.error is not None:
                raise feed.error
        finally:
            await feed.stop()

    async def verify_upload(
        self,
        source: BinaryIO | AsyncIterable[bytes] | Iterable[bytes],
        *,
        timeout: float | None = None,
        **about: Unpack[About],
    ) -> pb.VerifyUploadResponse:
        """Have a large message judged that is sent in pieces, of a file or an iterator; costs no memory for its size.

        A file is read on the event loop; where that may take long, give an asynchronous iterator. One that can be rewound
        is sent again where a server goes away; an iterator is not.

        Raises:
            CallError: there is no answer.
            ValueError: `about` holds what no request can.
            OSError: the file cannot be read; whatever `source` raises is raised, and nothing is judged.
        """
        start = pb.VerifyUploadRequest(start=verify_start(**about))
        return await self._upload("VerifyUpload", start, source, pb.VerifyUploadResponse, timeout)

    # -- single questions ----------------------------------------------------------------------------------------

    async def check_spf(
        self,
        client_ip: str,
        *,
        mail_from: str = "",
        helo: str = "",
        zone: Zone | None = None,
        timeout: float | None = None,
    ) -> pb.CheckSpfResponse:
        """Have SPF evaluated for a client; raises `CallError`."""
        request = pb.CheckSpfRequest(client_ip=client_ip, mail_from=mail_from, helo=helo)
        zone_field(request, zone)
        return await self._unary("CheckSpf", request, pb.CheckSpfResponse, timeout)

    async def check_dkim_key(
        self, domain: str, selector: str, *, zone: Zone | None = None, timeout: float | None = None
    ) -> pb.CheckDkimKeyResponse:
        """Have a DKIM key in DNS looked at; raises `CallError`."""
        request = pb.CheckDkimKeyRequest(domain=domain, selector=selector)
        zone_field(request, zone)
        return await self._unary("CheckDkimKey", request, pb.CheckDkimKeyResponse, timeout)

    async def discover_dmarc(
        self, domain: str, *, zone: Zone | None = None, timeout: float | None = None
    ) -> pb.DiscoverDmarcResponse:
        """Find the DMARC policy of an author domain; raises `CallError`."""
        request = pb.DiscoverDmarcRequest(domain=domain)
        zone_field(request, zone)
        return await self._unary("DiscoverDmarc", request, pb.DiscoverDmarcResponse, timeout)

    async def check_bimi(
        self, domain: str, *, selector: str = "", zone: Zone | None = None, timeout: float | None = None
    ) -> pb.CheckBimiResponse:
        """Have a domain's BIMI record and documents looked at; raises `CallError`."""
        request = pb.CheckBimiRequest(domain=domain, selector=selector)
        zone_field(request, zone)
        return await self._unary("CheckBimi", request, pb.CheckBimiResponse, timeout)

    # -- signing -------------------------------------------------------------------------------------------------

    async def sign(
        self, message: bytes, *, timeout: float | None = None, **sender: Unpack[Sender]
    ) -> pb.SignResponse:
        """Have a message signed: the fields to put above all others; raises `CallError`."""
        return await self._unary("Sign", sign_request(message, **sender), pb.SignResponse, timeout)

    async def sign_upload(
        self,
        source: BinaryIO | AsyncIterable[bytes] | Iterable[bytes],
        *,
        timeout: float | None = None,
        **sender: Unpack[Sender],
    ) -> pb.SignUploadResponse:
        """Have a large message signed that is sent in pieces; as `verify_upload`."""
        start = pb.SignUploadRequest(start=sign_start(**sender))
        return await self._upload("SignUpload", start, source, pb.SignUploadResponse, timeout)

    # -- the service itself --------------------------------------------------------------------------------------

    async def status(self, *, timeout: float | None = None) -> pb.GetStatusResponse:
        """Ask what runs; raises `CallError`."""
        return await self._unary("GetStatus", pb.GetStatusRequest(), pb.GetStatusResponse, timeout)

    async def reload(self, *, timeout: float | None = None) -> pb.ReloadResponse:
        """Have configuration and policy read again.

        Raises:
            PreconditionError: they cannot be used, and nothing has changed; the text has every mistake.
            CallError: there is no answer.
        """
        return await self._unary("Reload", pb.ReloadRequest(), pb.ReloadResponse, timeout)

    async def health(self, service: str = "", *, timeout: float | None = None) -> bool:
        """Ask whether the server (or one service of it, by its full name) serves; raises `CallError`."""
        call: Any = self._channel.unary_unary(
            HEALTH_PATH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = await call(
                request,
                timeout=bounded(timeout, self._timeout),
                metadata=self._metadata,
                wait_for_ready=self._wait,
            )
        except grpc.aio.AioRpcError as e:
            raise failure_of(e) from None
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    # -- how -----------------------------------------------------------------------------------------------------

    @property
    def _wait_for_ready(self) -> bool | None:
        # None: as the service config says
        return None if self._wait else False

    def _made(self, name: str) -> Any:
        """Return what begins a call of that name."""
        if name not in self._calls:
            method = METHOD[name]
            kinds: dict[tuple[bool, bool], Callable[..., Any]] = {
                (False, False): self._channel.unary_unary,
                (True, False): self._channel.stream_unary,
                (True, True): self._channel.stream_stream,
            }
            self._calls[name] = kinds[method.client_streaming, method.server_streaming](
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.read_response,
            )
        return self._calls[name]

    async def _unary(self, name: str, request: Message, answer: type[A], timeout: float | None) -> A:
        call = self._made(name)
        try:
            found = await call(
                request,
                timeout=bounded(timeout, self._timeout),
                metadata=self._metadata,
                wait_for_ready=self._wait_for_ready,
            )
        except grpc.aio.AioRpcError as e:
            raise failure_of(e) from None
        assert isinstance(found, answer)  # by the call
        return found

    async def _upload(
        self,
        name: str,
        start: Message,
        source: Any,
        answer: type[A],
        timeout: float | None,
    ) -> A:
        made = self._made(name)
        began = rewinds_to(source)
        for attempt in range(self._attempts):
            call = made(
                timeout=bounded(timeout, self._timeout),
                metadata=self._metadata,
                wait_for_ready=self._wait_for_ready,
            )
            try:
                found = await _sent(call, start, source)
            except grpc.aio.AioRpcError as e:
                failure = failure_of(e)
                if failure.code not in AWAY or began is None or attempt == self._attempts - 1:
                    raise failure from None
            else:
                assert isinstance(found, answer)  # by the call
                return found
            finally:
                call.cancel()
            source.seek(began)
        raise AssertionError("the last attempt returns or raises")


async def _sent(call: Any, start: Message, source: Any) -> Any:
    """Send all pieces of an upload; returns the answer, and raises what the call ends with as soon as it does."""
    parts = source if hasattr(source, "__aiter__") else pieces(source)
    try:
        await call.write(start)
        async for chunk in _each(parts):
            for part in pieces((chunk,)):
                await call.write(type(start)(chunk=part))
        await call.done_writing()
    except asyncio.InvalidStateError:
        pass  # the server has answered already: below
    return await call


async def _each(source: AsyncIterable[T] | Iterable[T]) -> AsyncGenerator[T, None]:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item


async def _error_of(call: Any) -> grpc.aio.AioRpcError:
    """Return what a stream has ended with."""
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


class _Feed:
    """The messages of a stream. They are read by one task, whatever call they are sent on."""

    def __init__(
        self, source: AsyncIterable[pb.VerifyRequest] | Iterable[pb.VerifyRequest], window: int
    ) -> None:
        self._source = source
        self._window = asyncio.Semaphore(window)
        self._pending: dict[str, pb.VerifyRequest] = {}
        # What has not been given to a call yet; None: there is no more.
        self._fresh: asyncio.Queue[pb.VerifyRequest | None] = asyncio.Queue()
        self._count = 0
        self._reading = asyncio.create_task(self._read())
        self._ended = False
        #: what the source raised
        self.error: Exception | None = None

    def waits(self) -> bool:
        """True while something has no answer."""
        return bool(self._pending)

    async def has_more(self) -> bool:
        """True while something is to be sent; waits for the source if nothing is at hand."""
        if self._pending:
            return True
        if not self._ended:
            # What comes is among the pending, which is all that a new call begins with.
            await self._next()
        return bool(self._pending)

    async def _next(self) -> pb.VerifyRequest | None:
        if self._ended:
            return None
        request = await self._fresh.get()
        self._ended = request is None
        return request

    async def send(self, call: Any) -> None:
        """Send what is unanswered, and then what comes, on this call."""
        again = list(self._pending.values())
        while not self._fresh.empty():  # which is among them
            self._ended = self._fresh.get_nowait() is None
        for request in again:
            if request.id in self._pending:
                await call.write(pb.VerifyStreamRequest(request=request))
        while (fresh := await self._next()) is not None:
            await call.write(pb.VerifyStreamRequest(request=fresh))
        await call.done_writing()

    def answered(self, ident: str) -> bool:
        """Count a message off; False if nobody waits for it."""
        if self._pending.pop(ident, None) is None:
            return False
        self._window.release()
        return True

    async def stop(self) -> None:
        """Read no more."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        source = _each(self._source)
        try:
            while True:
                await self._window.acquire()
                request = await anext(source, None)
                if request is None:
                    break
                self._count += 1
                if not request.id:
                    request.id = str(self._count)
                if request.id in self._pending:
                    raise ValueError(f"two messages under way have the id `{request.id}`")  # noqa: TRY301 - as if the source had raised it
                self._pending[request.id] = request
                self._fresh.put_nowait(request)
        except Exception as e:  # noqa: BLE001 - it belongs to who takes the answers
            self.error = e
        finally:
            await source.aclose()
            self._fresh.put_nowait(None)
