"""`Client`: the service for programs that wait for each answer; see `authmilter.client`.

How it fails: a `CallError` for a call; in a stream, for one message. A source that raises ends its upload unjudged, and
raises.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it has no types

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

__all__ = ["ATTEMPTS", "DEFAULT_TIMEOUT", "HEALTH_PATH", "WINDOW", "Client", "rewinds_to"]

#: A call's answer.
A = TypeVar("A", bound=Message)

#: Seconds that a call may take unless it is told otherwise.
DEFAULT_TIMEOUT = 60.0
#: How often an upload, or a stream that brings nothing, is begun before it fails.
ATTEMPTS = 5
#: Seconds in which gRPC's thread is to let go of a file after its call has ended.
_HANDOVER = 10.0
#: Messages of a stream that are without an answer at a time.
WINDOW = 64
HEALTH_PATH = "/grpc.health.v1.Health/Check"


class Client:
    """A connection to the service. Threads may share it; `close` it, or use it in a `with` block.

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
            self._channel = grpc.insecure_channel(target, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(tls.authorities, tls.key, tls.certificate)
            self._channel = grpc.secure_channel(target, credentials, options=options)
        self._metadata = access.metadata
        self._timeout = timeout
        self._wait = wait
        # gRPC itself asks again, as the service config says, where nothing is under way yet
        self._attempts = ATTEMPTS if wait else 1
        self._calls: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; calls under way end."""
        self._channel.close()

    # -- messages ------------------------------------------------------------------------------------------------

    def verify(
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
        return self._unary("Verify", verify_request(message, **about), pb.VerifyResponse, timeout)

    def verify_stream(
        self, requests: Iterable[pb.VerifyRequest], *, window: int = WINDOW, timeout: float | None = None
    ) -> Generator[StreamAnswer, None, None]:
        """Have many messages judged on one call; yields answers as they come, in any order, each with its id.

        At most `window` messages are without an answer at a time: `requests` is read no faster (from a thread of
        gRPC's) than answers are taken from the iterator. What is unanswered when a server goes away is sent again to the next.
        Close the iterator (or exhaust it) to end the call.

        Args:
            requests: from `verify_request`; an empty id is given a number, ids under way must differ.
            window: messages without an answer.
            timeout: seconds for the whole stream; default: none.

        Raises:
            CallError: the stream, not one message of it, has failed.
            ValueError: two messages under way have the same id.
        """
        return self._stream(_Feed(iter(requests), window), timeout)

    def _stream(self, feed: _Feed, timeout: float | None) -> Generator[StreamAnswer, None, None]:
        made = self._made("VerifyStream")
        vain = 0
        while feed.has_more():
            vain += 1
            call = made(
                feed.requests(feed.begin()),
                timeout=bounded(timeout, None),
                metadata=self._metadata,
                wait_for_ready=self._wait_for_ready,
            )
            try:
                for answer in call:
                    if feed.answered(answer.id):
                        vain = 0
                        yield answer_of(answer)
                failure = CallError("UNKNOWN", "the server ended the stream before it had answered")
            except grpc.RpcError as e:
                failure = failure_of(e)
                if failure.code not in AWAY:
                    raise failure from None
            finally:
                feed.stop()
                call.cancel()
            if vain >= self._attempts and feed.waits():
                raise failure
        if feed.error is not None:
            raise feed.error

    def verify_upload(
        self,
        source: BinaryIO | Iterable[bytes],
        *,
        timeout: float | None = None,
        **about: Unpack[About],
    ) -> pb.VerifyUploadResponse:
        """Have a large message judged that is sent in pieces, of a file or an iterator; costs no memory for its size.

        A file that can be rewound is sent again where a server goes away; an iterator is not.

        Raises:
            CallError: there is no answer.
            ValueError: `about` holds what no request can.
            OSError: the file cannot be read; whatever `source` raises is raised, and nothing is judged.
        """
        start = pb.VerifyUploadRequest(start=verify_start(**about))
        return self._upload("VerifyUpload", start, source, pb.VerifyUploadResponse, timeout)

    # -- single questions ----------------------------------------------------------------------------------------

    def check_spf(
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
        return self._unary("CheckSpf", request, pb.CheckSpfResponse, timeout)

    def check_dkim_key(
        self, domain: str, selector: str, *, zone: Zone | None = None, timeout: float | None = None
    ) -> pb.CheckDkimKeyResponse:
        """Have a DKIM key in DNS looked at; raises `CallError`."""
        request = pb.CheckDkimKeyRequest(domain=domain, selector=selector)
        zone_field(request, zone)
        return self._unary("CheckDkimKey", request, pb.CheckDkimKeyResponse, timeout)

    def discover_dmarc(
        self, domain: str, *, zone: Zone | None = None, timeout: float | None = None
    ) -> pb.DiscoverDmarcResponse:
        """Find the DMARC policy of an author domain; raises `CallError`."""
        request = pb.DiscoverDmarcRequest(domain=domain)
        zone_field(request, zone)
        return self._unary("DiscoverDmarc", request, pb.DiscoverDmarcResponse, timeout)

    def check_bimi(
        self, domain: str, *, selector: str = "", zone: Zone | None = None, timeout: float | None = None
    ) -> pb.CheckBimiResponse:
        """Have a domain's BIMI record and documents looked at; raises `CallError`."""
        request = pb.CheckBimiRequest(domain=domain, selector=selector)
        zone_field(request, zone)
        return self._unary("CheckBimi", request, pb.CheckBimiResponse, timeout)

    # -- signing -------------------------------------------------------------------------------------------------

    def sign(
        self, message: bytes, *, timeout: float | None = None, **sender: Unpack[Sender]
    ) -> pb.SignResponse:
        """Have a message signed: the fields to put above all others; raises `CallError`."""
        return self._unary("Sign", sign_request(message, **sender), pb.SignResponse, timeout)

    def sign_upload(
        self,
        source: BinaryIO | Iterable[bytes],
        *,
        timeout: float | None = None,
        **sender: Unpack[Sender],
    ) -> pb.SignUploadResponse:
        """Have a large message signed that is sent in pieces; as `verify_upload`."""
        start = pb.SignUploadRequest(start=sign_start(**sender))
        return self._upload("SignUpload", start, source, pb.SignUploadResponse, timeout)

    # -- the service itself --------------------------------------------------------------------------------------

    def status(self, *, timeout: float | None = None) -> pb.GetStatusResponse:
        """Ask what runs; raises `CallError`."""
        return self._unary("GetStatus", pb.GetStatusRequest(), pb.GetStatusResponse, timeout)

    def reload(self, *, timeout: float | None = None) -> pb.ReloadResponse:
        """Have configuration and policy read again.

        Raises:
            PreconditionError: they cannot be used, and nothing has changed; the text has every mistake.
            CallError: there is no answer.
        """
        return self._unary("Reload", pb.ReloadRequest(), pb.ReloadResponse, timeout)

    def health(self, service: str = "", *, timeout: float | None = None) -> bool:
        """Ask whether the server (or one service of it, by its full name) serves; raises `CallError`."""
        call = self._channel.unary_unary(
            HEALTH_PATH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = call(
                request,
                timeout=bounded(timeout, self._timeout),
                metadata=self._metadata,
                wait_for_ready=self._wait,
            )
        except grpc.RpcError as e:
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

    def _unary(self, name: str, request: Message, answer: type[A], timeout: float | None) -> A:
        call = self._made(name)
        try:
            found = call(
                request,
                timeout=bounded(timeout, self._timeout),
                metadata=self._metadata,
                wait_for_ready=self._wait_for_ready,
            )
        except grpc.RpcError as e:
            raise failure_of(e) from None
        assert isinstance(found, answer)  # by the call
        return found

    def _upload(
        self,
        name: str,
        start: Message,
        source: BinaryIO | Iterable[bytes],
        answer: type[A],
        timeout: float | None,
    ) -> A:
        made = self._made(name)
        began = rewinds_to(source)
        for attempt in range(self._attempts):
            parts = _Parts(start, source)
            future = made.future(
                parts.each(),
                timeout=bounded(timeout, self._timeout),
                metadata=self._metadata,
                wait_for_ready=self._wait_for_ready,
            )
            parts.call.put(future)
            try:
                found = future.result()
            except grpc.FutureCancelledError:
                raise parts.error or CallError("CANCELLED", "the client has been closed") from None
            except grpc.RpcError as e:
                if parts.error is not None:
                    raise parts.error from None
                failure = failure_of(e)
                if failure.code not in AWAY or began is None or attempt == self._attempts - 1:
                    raise failure from None
            else:
                assert isinstance(found, answer)  # by the call
                return found
            finally:
                future.cancel()  # if we were interrupted
            if not parts.finished.wait(_HANDOVER):
                raise failure  # somebody still reads the file: it cannot be begun again
            source.seek(began)  # type: ignore[union-attr]  # it has a place, so it is a file
        raise AssertionError("the last attempt returns or raises")


def rewinds_to(source: object) -> int | None:
    """Return where a file stands that can be rewound; None for anything else."""
    seekable = getattr(source, "seekable", None)
    if seekable is None or not seekable():
        return None
    found: int = source.tell()  # type: ignore[attr-defined]  # what is seekable has it
    return found


class _Parts:
    """The parts of an upload, read by a thread of gRPC's; a source that raises ends the call unjudged."""

    def __init__(self, start: Message, source: BinaryIO | Iterable[bytes]) -> None:
        self._start = start
        self._source = source
        #: the call, once it is begun
        self.call: queue.SimpleQueue[Any] = queue.SimpleQueue()
        #: what the source raised
        self.error: Exception | None = None
        #: set when the source is not read any more
        self.finished = threading.Event()

    def each(self) -> Iterator[Message]:
        """Yield them."""
        try:
            yield self._start
            for chunk in pieces(self._source):
                yield type(self._start)(chunk=chunk)
        except Exception as e:  # noqa: BLE001 - it belongs to the caller, not to gRPC's thread
            self.error = e
            self.call.get().cancel()
        finally:
            self.finished.set()


class _Feed:
    """The messages of a stream: read by gRPC's threads, one at a time, and counted off by who takes the answers.

    Each call on which the stream is carried has a number; a thread of an earlier call takes nothing more, and what it
    has in hand goes to the present one.
    """

    def __init__(self, source: Iterator[pb.VerifyRequest], window: int) -> None:
        self._source = source
        self._window = window
        self._changed = threading.Condition()
        self._call = 0
        self._pending: dict[str, pb.VerifyRequest] = {}
        self._again: deque[pb.VerifyRequest] = deque()
        self._reading = False
        self._ended = False
        self._count = 0
        #: what the source raised
        self.error: Exception | None = None

    def waits(self) -> bool:
        """True while something has no answer."""
        return bool(self._pending)

    def has_more(self) -> bool:
        """True while something is to be sent; waits for the source if nothing is at hand."""
        with self._changed:
            if self._pending or self._reading:
                return True
            if self._ended:
                return False
        request = self._read()
        with self._changed:
            return request is not None and self._take(request)

    def begin(self) -> int:
        """Start a call: all that is unanswered is to be sent; returns its number."""
        with self._changed:
            self._call += 1
            self._again = deque(self._pending.values())
            self._changed.notify_all()
            return self._call

    def stop(self) -> None:
        """End the present call's sending."""
        with self._changed:
            self._call += 1
            self._changed.notify_all()

    def requests(self, call: int) -> Iterator[pb.VerifyStreamRequest]:
        """Yield what is to be sent on this call."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: call != self._call or self._is_ready())
                if call != self._call:
                    return
                if self._again:
                    request: pb.VerifyRequest | None = self._again.popleft()
                elif self._ended:
                    return
                else:
                    request = None
                    self._reading = True
            if request is None:
                request = self._read()
                with self._changed:
                    self._reading = False
                    self._changed.notify_all()
                    if request is None or not self._take(request):
                        return
                    if call != self._call:
                        self._again.append(request)
                        return
            yield pb.VerifyStreamRequest(request=request)

    def answered(self, ident: str) -> bool:
        """Count a message off; False if nobody waits for it."""
        with self._changed:
            found = self._pending.pop(ident, None)
            self._changed.notify_all()
            return found is not None

    def _is_ready(self) -> bool:
        if self._again:
            return True
        return not self._reading and (self._ended or len(self._pending) < self._window)

    def _read(self) -> pb.VerifyRequest | None:
        """Read one from the source; None at its end."""
        try:
            return next(self._source)
        except StopIteration:
            self._ended = True
        except Exception as e:  # noqa: BLE001 - it belongs to who takes the answers, not to gRPC's thread
            self.error = e
            self._ended = True
        return None

    def _take(self, request: pb.VerifyRequest) -> bool:
        """Note that this one is under way; False if it cannot be told from another."""
        self._count += 1
        if not request.id:
            request.id = str(self._count)
        if request.id in self._pending:
            self.error = ValueError(f"two messages under way have the id `{request.id}`")
            self._ended = True
            return False
        self._pending[request.id] = request
        return True
