"""The calls: each finds out who asks, reads the request, goes the one road, and writes the answer.

What holds for all: who calls is found out before any of his message is read (so that a single request is read as a
stream of one); an unknown caller, a missing permission, a wrong request or a limit is a status that says so; a fault
of ours is INTERNAL with an id, and the journal has the rest. The client's deadline bounds the work, a call that is
cancelled stops it. The runtime is read once for each message.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, cast

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from authmilter import questions
from authmilter.deadline import Deadline, monotonic
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime, Verification
from authmilter.errors import AuthMilterError, InvalidName
from authmilter.mail import Envelope, Mail, Origin, Session
from authmilter.message import Message, normalize_line_endings
from authmilter.origins import OriginRules, Relay
from authmilter.ports import Journal
from authmilter.resumed import resumed
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.auth import Caller, Callers
from authmilter.rpc.codec import Options, Problems, encode
from authmilter.rpc.methods import METHODS, RpcMethod
from authmilter.rpc.refusal import DETAILS_KEY, Refused, bad_request, exhausted
from authmilter.rpc.settings import Permission, RpcSettings
from authmilter.rpc.upload import MessageFeed
from authmilter.runtime import with_policy, with_zone
from authmilter.text import printable
from authmilter.verdict import Disposition, InsertHeader, Signing, Verdict

__all__ = ["AdminPort", "Servicer"]

Context = grpc.aio.ServicerContext[Any, Any]

#: Of a client's deadline this part, and at least and at most so many seconds, is kept for the answer's way back.
_WAY_BACK = 0.1
_WAY_BACK_LEAST, _WAY_BACK_MOST = 0.005, 0.25
#: A question without a deadline takes at most this long, in seconds.
_QUESTION = 20.0
#: Octets of a body hashed before others get their turn.
_TURN = 1 << 20
#: Runtimes made for callers' options that are kept.
_MAX_VIEWS = 256
#: Streams end after this part of a connection's age, before the connection is cut.
_STREAM_AGE = 0.9
#: RFC 6376 §3.1 selector, as BIMI uses it.
_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_AWAY = "the server is going away: send what is unanswered again on a new call"


class AdminPort(Protocol):
    """What `AdminService` asks: the supervisor, or whoever runs the server."""

    async def status(self) -> Mapping[str, Any]:
        """Return what `authmilter status --json` prints."""

    async def reload(self) -> Mapping[str, Any]:
        """Read configuration and policy again; return the new `digest`, or the `error` where nothing has changed.

        Raises:
            AuthMilterError: nothing has changed.
        """


class _Unrecorded:
    """A journal that is told of faults only."""

    __slots__ = ("_journal",)

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:
        """Do nothing."""

    def bug(self, where: str, error: BaseException) -> None:
        """Pass it on."""
        self._journal.bug(where, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared(OriginRules):
    """An origin that a caller declares, who may."""

    origin: Origin = Origin.INTERNET
    caller: str = ""

    def decide(self, session: Session) -> tuple[Origin, str, Relay | None]:  # noqa: ARG002 - the rules' shape
        """Return the declared origin."""
        return self.origin, f"grpc: declared by {self.caller}", None


class _View(NamedTuple):
    """What of the runtime a caller's options change; hashable."""

    sign: bool
    record: bool
    policy: str
    authserv_id: str
    origin: Origin | None
    caller: str
    signs_only: bool


class _Stream:
    """A stream that may be told to read no more."""

    __slots__ = ("_ended", "_reading", "_task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._reading = False
        self._ended = False

    def is_ended(self) -> bool:
        """True if it was told to end."""
        return self._ended

    def end(self) -> None:
        """Let it finish what it has read, and end."""
        self._ended = True
        if self._reading:
            self._task.cancel()

    async def read(self, context: Context) -> Any:
        """Return the next request, or `grpc.aio.EOF` where there is none or none is to be read."""
        if self.is_ended():
            return grpc.aio.EOF
        self._reading = True
        try:
            return await context.read()
        except asyncio.CancelledError:
            if not self.is_ended() or context.cancelled():
                raise
            self._task.uncancel()  # it was us
            return grpc.aio.EOF
        finally:
            self._reading = False


class Servicer:
    """All services over one runtime.

    Args:
        runtime: gives the runtime of the moment.
        settings: who may call what, and the limits.
        control: what `AdminService` asks.
    """

    def __init__(self, runtime: Callable[[], Runtime], settings: RpcSettings, control: AdminPort) -> None:
        self._runtime = runtime
        self._settings = settings
        self._control = control
        self._callers = Callers(
            settings.identities, tls=settings.tls is not None, share=settings.processes, now=monotonic
        )
        self._base: Runtime | None = None
        self._views: dict[_View, Runtime] = {}
        self._streams: set[_Stream] = set()
        self._calls = 0
        self._leaving = False
        self._idle = asyncio.Event()
        self._idle.set()

    # -- the server's side -------------------------------------------------------------------------------------

    @property
    def open_calls(self) -> int:
        """How many calls are under way."""
        return self._calls

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what the server calls, for every service."""
        work: dict[str, dict[str, tuple[Permission, Callable[[Any, Context, Caller], Awaitable[Any]]]]] = {
            "VerifierService": {
                "Verify": (Permission.VERIFY, self._verify),
                "VerifyStream": (Permission.VERIFY, self._verify_stream),
                "VerifyUpload": (Permission.VERIFY, self._verify_upload),
                "CheckSpf": (Permission.VERIFY, self._check_spf),
                "CheckDkimKey": (Permission.VERIFY, self._check_dkim_key),
                "DiscoverDmarc": (Permission.VERIFY, self._discover_dmarc),
                "CheckBimi": (Permission.VERIFY, self._check_bimi),
            },
            "SignerService": {
                "Sign": (Permission.SIGN, self._sign),
                "SignUpload": (Permission.SIGN, self._sign_upload),
            },
            "AdminService": {
                "GetStatus": (Permission.ADMIN, self._get_status),
                "Reload": (Permission.ADMIN, self._reload),
            },
        }
        found = []
        for service, methods in METHODS.items():
            handlers = {
                name: _handler(method, self._guarded(method, *work[service][name]))
                for name, method in methods.items()
            }
            path = next(iter(methods.values())).service
            found.append(grpc.method_handlers_generic_handler(path, handlers))
        return found

    def drain(self) -> None:
        """Take no more calls, and let streams finish what they have read."""
        self._leaving = True
        for stream in tuple(self._streams):
            stream.end()

    async def idle(self) -> None:
        """Wait until no call is under way."""
        await self._idle.wait()

    def _guarded(
        self,
        method: RpcMethod,
        permission: Permission,
        work: Callable[[Any, Context, Caller], Awaitable[Any]],
    ) -> Callable[[Any, Context], Coroutine[Any, Any, Any]]:
        """Return the outermost line of a call."""

        async def call(_requests: object, context: Context) -> Any:
            if self._leaving:
                return await context.abort(StatusCode.UNAVAILABLE, _AWAY)
            self._calls += 1
            self._idle.clear()
            try:
                caller = self._callers.find(
                    context.peer(), context.auth_context(), context.invocation_metadata() or ()
                )
                caller.needs(permission)
                self._has_room()
                request = None if method.client_streaming else await self._only(context)
                return await work(request, context, caller)
            except Refused as e:
                refused = e
            except grpc.aio.BaseError:
                raise asyncio.CancelledError from None  # the client has gone: nobody is there to be told
            except Exception as e:  # noqa: BLE001 - the door's outermost line: a fault is told to nobody but the journal
                refused = self._fault(method.name, e)
            finally:
                self._calls -= 1
                if not self._calls:
                    self._idle.set()
            details = ((DETAILS_KEY, refused.status().SerializeToString()),) if refused.details else ()
            return await context.abort(refused.code, refused.text, details)

        return call

    def _has_room(self) -> None:
        """Refuse the call that is one too many; only those of known callers count."""
        if self._calls > self._settings.max_calls:
            raise exhausted(f"{self._settings.max_calls} calls are at work already")

    def _fault(self, where: str, error: Exception) -> Refused:
        runtime = self._runtime()
        ident = runtime.new_id()
        error.add_note(f"told to the caller as id {ident}")
        runtime.journal.bug(f"grpc:{where}", error)
        return Refused(StatusCode.INTERNAL, f"internal error (id {ident})")

    # -- verifying -----------------------------------------------------------------------------------------------

    async def _verify(self, request: pb.VerifyRequest, context: Context, caller: Caller) -> pb.VerifyResponse:
        return await self._judge(request, caller, _deadline(context))

    async def _judge(
        self, request: pb.VerifyRequest, caller: Caller, deadline: Deadline | None
    ) -> pb.VerifyResponse:
        with caller.working():
            options = self._read(request, caller)
            raw = normalize_line_endings(request.message)
            message, start = Message.parse(raw)
            with self._verification(options, caller, request) as verification:
                verification.headers(message)
                if len(raw) - start <= _TURN:
                    verification.body(raw[start:])
                else:
                    for at in range(start, len(raw), _TURN):
                        verification.body(raw[at : at + _TURN])
                        await _next_turn()
                verdict = await verification.verdict(deadline)
            return pb.VerifyResponse(
                id=request.id,
                verdict=encode(verdict, pb.Verdict),
                mail=encode(verification.mail, pb.Mail) if options.explain else None,
            )

    def _read(self, request: pb.VerifyRequest | pb.VerifyUploadStart, caller: Caller) -> Options:
        _may_bring_zone(request.options, caller)
        problems = Problems()
        problems.ident(request.id)
        options = problems.options(request.options) if request.HasField("options") else _NO_OPTIONS
        problems.check()
        self._allow(options, caller)
        return options

    def _allow(self, options: Options, caller: Caller) -> None:
        """Refuse what the caller may not ask for."""
        name = caller.identity.name
        own = self._runtime().headers.authserv_id
        if options.authserv_id and options.authserv_id != own and not caller.may_name(options.authserv_id):
            raise Refused(
                StatusCode.PERMISSION_DENIED,
                f"`{name}` may not ask for the authserv-id {options.authserv_id}",
            )
        if options.origin is not None and not caller.may_say(options.origin):
            raise Refused(
                StatusCode.PERMISSION_DENIED, f"`{name}` may not declare the origin {options.origin}"
            )

    @contextmanager
    def _verification(
        self, options: Options, caller: Caller, request: Any, forced: Origin | None = None
    ) -> Generator[Verification, None, None]:
        """Start judging; whatever happens, its work ends with the block."""
        problems = Problems()
        session = problems.session(request.session) if request.HasField("session") else _NO_SESSION
        envelope = problems.envelope(request.envelope) if request.HasField("envelope") else _NO_ENVELOPE
        problems.check()
        verification = Verification(
            self._view(options, caller, forced),
            session,
            listener=f"grpc:{caller.identity.name}",
            received_at=options.now,
        )
        try:
            verification.sender(envelope.mail_from, envelope.mail_options)
            for recipient in envelope.rcpt_to:
                verification.recipient(recipient)
            yield verification
        finally:
            verification.cancel()

    def _view(self, options: Options, caller: Caller, forced: Origin | None = None) -> Runtime:
        """Return the runtime as the caller's options and rights change it."""
        base = self._runtime()
        if base is not self._base:
            self._base = base
            self._views.clear()
        view = _View(
            sign=Permission.SIGN in caller.identity.permissions,
            record=options.record and options.zone is None,
            policy=options.policy,
            authserv_id=options.authserv_id,
            origin=forced or options.origin,
            caller=caller.identity.name,
            signs_only=forced is not None,
        )
        runtime = self._views.get(view)
        if runtime is None:
            runtime = self._made(base, view)
            if len(self._views) < _MAX_VIEWS:
                self._views[view] = runtime
        if options.zone is None:
            return runtime
        # Whose DNS is made up has no documents fetched from the web.
        return with_zone(replace(runtime, checks=replace(runtime.checks, marks=None)), options.zone)

    def _made(self, base: Runtime, view: _View) -> Runtime:
        runtime = base
        if view.policy and view.policy != base.policy.name:
            policy = base.policies.get(view.policy)
            if policy is None:
                known = ", ".join(sorted({base.policy.name, *base.policies}))
                raise bad_request(
                    [("options.policy", f"no policy `{printable(view.policy, 64)}` here; there are: {known}")]
                )
            runtime = with_policy(runtime, policy)
        headers = runtime.headers
        if view.authserv_id and view.authserv_id != headers.authserv_id:
            siblings = (*headers.siblings, headers.authserv_id) if headers.authserv_id else headers.siblings
            headers = replace(headers, authserv_id=view.authserv_id, siblings=siblings)
        origins = runtime.origins
        if view.origin is not None:
            origins = _Declared(origin=view.origin, caller=view.caller)
        return replace(
            runtime,
            headers=headers,
            origins=origins,
            journal=runtime.journal if view.record else _Unrecorded(runtime.journal),
            # A signature is not to be had by calling oneself authenticated.
            signing=runtime.signing if view.sign else None,
            # Nor is a seal, which says that we have seen the mail come in.
            sealing=runtime.sealing if view.sign and not view.signs_only else None,
        )

    async def _verify_stream(self, _requests: object, context: Context, caller: Caller) -> None:
        stream = _Stream(_this_task())
        self._streams.add(stream)
        window = asyncio.Semaphore(self._settings.stream_window)
        writing = asyncio.Lock()
        tasks: set[asyncio.Task[None]] = set()
        age = asyncio.get_running_loop().call_later(
            self._settings.max_connection_age * _STREAM_AGE, stream.end
        )

        async def answer(response: pb.VerifyStreamResponse) -> None:
            async with writing:
                await context.write(response)

        async def finish(item: Coroutine[Any, Any, pb.VerifyStreamResponse], waited_for: Any) -> None:
            try:
                await answer(await resumed(item, waited_for))
            finally:
                window.release()

        try:
            while True:
                await window.acquire()
                request = await stream.read(context)
                if request is grpc.aio.EOF:
                    break
                item = self._item(request.request, context, caller)
                try:
                    waited_for = item.send(None)  # what needs no waiting needs no task
                except StopIteration as done:
                    await answer(done.value)
                    window.release()
                else:
                    task = asyncio.create_task(finish(item, waited_for))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            if tasks:
                await asyncio.gather(*tasks)
        finally:
            age.cancel()
            self._streams.discard(stream)
            for task in tasks:
                task.cancel()
        if stream.is_ended():
            raise Refused(StatusCode.UNAVAILABLE, _AWAY)

    async def _item(
        self, request: pb.VerifyRequest, context: Context, caller: Caller
    ) -> pb.VerifyStreamResponse:
        try:
            _needs_id(request)
            response = await self._judge(request, caller, _deadline(context))
        except Refused as e:
            refused = e
        except Exception as e:  # noqa: BLE001 - the outermost line of an item: it must not end the others
            refused = self._fault("VerifyStream", e)
        else:
            return pb.VerifyStreamResponse(id=request.id, response=response)
        return pb.VerifyStreamResponse(id=request.id[:256], error=refused.status())

    async def _verify_upload(
        self, _requests: object, context: Context, caller: Caller
    ) -> pb.VerifyUploadResponse:
        with caller.working():
            start = await self._start(context)
            options = self._read(start, caller)
            with self._verification(options, caller, start) as verification:
                await self._gather(context, MessageFeed(verification))
                verdict = await verification.verdict(_deadline(context))
            return pb.VerifyUploadResponse(
                id=start.id,
                verdict=encode(verdict, pb.Verdict),
                mail=encode(verification.mail, pb.Mail) if options.explain else None,
            )

    async def _start(self, context: Context) -> Any:
        first = await self._piece(context)
        if first is grpc.aio.EOF or first.WhichOneof("part") != "start":
            raise bad_request([("start", "is missing: the first piece has it")])
        return first.start

    async def _gather(self, context: Context, feed: MessageFeed) -> None:
        """Read the pieces of an upload to their end."""
        size, settings = 0, self._settings
        while (piece := await self._piece(context)) is not grpc.aio.EOF:
            if piece.WhichOneof("part") != "chunk":
                raise bad_request([("start", "is given twice, or a piece is empty")])
            chunk = piece.chunk
            size += len(chunk)
            if len(chunk) > settings.max_chunk:
                raise bad_request(
                    [("chunk", f"has {len(chunk)} octets; at most {settings.max_chunk} are read")]
                )
            if size > settings.max_upload:
                raise exhausted(f"the message is larger than {settings.max_upload} octets")
            feed.feed(chunk)
        # A call that is cancelled ends for its reader as one that is complete does; but nothing can be sent on it
        # any more. So no message is judged whose sender broke off.
        await context.send_initial_metadata(())
        feed.end()

    async def _only(self, context: Context) -> Any:
        """Return the request of a call that has one."""
        request = await self._piece(context)
        if request is grpc.aio.EOF:
            raise Refused(StatusCode.INVALID_ARGUMENT, "the request is missing")
        return request

    async def _piece(self, context: Context) -> Any:
        try:
            async with asyncio.timeout(self._settings.upload_pause):
                return await context.read()
        except TimeoutError:
            raise Refused(
                StatusCode.DEADLINE_EXCEEDED, f"nothing came for {self._settings.upload_pause:g} s"
            ) from None

    # -- single questions ----------------------------------------------------------------------------------------

    def _asked(self, request: Any, caller: Caller, problems: Problems) -> Runtime:
        """Return the runtime that answers a question, from the caller's zone where he may bring one."""
        _may_bring_zone(request, caller)
        zone: ZoneResolver | None = problems.zone(request.zone, "zone") if request.HasField("zone") else None
        problems.check()
        return self._view(Options(zone=zone), caller)

    async def _check_spf(
        self, request: pb.CheckSpfRequest, context: Context, caller: Caller
    ) -> pb.CheckSpfResponse:
        with caller.working():
            problems = Problems()
            if not request.client_ip:
                problems.add("client_ip", "is missing")
            given = pb.Session(client_ip=request.client_ip, helo=request.helo)
            path = pb.Envelope(mail_from=request.mail_from)
            session, envelope = problems.session(given, ""), problems.envelope(path, "")
            problems.found = [(field.removeprefix("."), text) for field, text in problems.found]
            runtime = self._asked(request, caller, problems)
            spf, helo, asked = await questions.check_spf(
                runtime, session, envelope.mail_from, _deadline(context) or Deadline.after(_QUESTION)
            )
            return pb.CheckSpfResponse(
                spf=encode(spf, pb.SpfResult),
                spf_helo=encode(helo, pb.SpfResult) if helo is not None else None,
                questions=asked,
            )

    async def _check_dkim_key(
        self, request: pb.CheckDkimKeyRequest, context: Context, caller: Caller
    ) -> pb.CheckDkimKeyResponse:
        with caller.working():
            problems = Problems()
            domain = problems.domain(request.domain)
            if not request.selector:
                problems.add("selector", "is missing")
            runtime = self._asked(request, caller, problems)
            deadline = _deadline(context) or Deadline.after(_QUESTION)
            try:
                key = await questions.check_dkim_key(runtime, domain, request.selector, deadline)
            except InvalidName as e:
                raise bad_request([("selector", printable(str(e), 200))]) from None
            return pb.CheckDkimKeyResponse(**encode(key, pb.CheckDkimKeyResponse))

    async def _discover_dmarc(
        self, request: pb.DiscoverDmarcRequest, context: Context, caller: Caller
    ) -> pb.DiscoverDmarcResponse:
        with caller.working():
            problems = Problems()
            domain = problems.domain(request.domain)
            runtime = self._asked(request, caller, problems)
            deadline = _deadline(context) or Deadline.after(_QUESTION)
            dmarc = await questions.discover_dmarc(runtime, domain, deadline)
            return pb.DiscoverDmarcResponse(dmarc=encode(dmarc, pb.DmarcResult))

    async def _check_bimi(
        self, request: pb.CheckBimiRequest, context: Context, caller: Caller
    ) -> pb.CheckBimiResponse:
        with caller.working():
            problems = Problems()
            domain = problems.domain(request.domain)
            if request.selector and not _SELECTOR.fullmatch(request.selector):
                problems.add("selector", f"`{printable(request.selector, 64)}` is no selector")
            runtime = self._asked(request, caller, problems)
            deadline = _deadline(context) or Deadline.after(_QUESTION)
            bimi = await questions.check_bimi(runtime, domain, request.selector, deadline)
            if bimi is None:
                raise Refused(StatusCode.FAILED_PRECONDITION, "this server does not check BIMI")
            response = pb.CheckBimiResponse(bimi=encode(bimi, pb.BimiResult))
            if bimi.evidence is not None and bimi.evidence.indicator is not None:
                response.bimi.evidence.indicator.svg = bimi.evidence.indicator.svg
            return response

    # -- signing -------------------------------------------------------------------------------------------------

    async def _sign(self, request: pb.SignRequest, context: Context, caller: Caller) -> pb.SignResponse:
        with caller.working():
            self._can_sign(request)
            raw = normalize_line_endings(request.message)
            message, start = Message.parse(raw)
            with self._verification(_NO_OPTIONS, caller, request, Origin.SUBMISSION) as verification:
                verification.headers(message)
                for at in range(start, len(raw), _TURN):
                    verification.body(raw[at : at + _TURN])
                    if len(raw) - at > _TURN:
                        await _next_turn()
                verdict = await verification.verdict(_deadline(context))
            return pb.SignResponse(id=request.id, **_signed(verdict))

    async def _sign_upload(
        self, _requests: object, context: Context, caller: Caller
    ) -> pb.SignUploadResponse:
        with caller.working():
            start = await self._start(context)
            self._can_sign(start)
            with self._verification(_NO_OPTIONS, caller, start, Origin.SUBMISSION) as verification:
                await self._gather(context, MessageFeed(verification))
                verdict = await verification.verdict(_deadline(context))
            return pb.SignUploadResponse(id=start.id, **_signed(verdict))

    def _can_sign(self, request: pb.SignRequest | pb.SignUploadStart) -> None:
        problems = Problems()
        problems.ident(request.id)
        problems.check()
        if self._runtime().signing is None:
            raise Refused(StatusCode.FAILED_PRECONDITION, "this server has no signing keys")

    # -- the service itself --------------------------------------------------------------------------------------

    async def _get_status(
        self, _request: pb.GetStatusRequest, _context: Context, _caller: Caller
    ) -> pb.GetStatusResponse:
        status = await self._control.status()
        return pb.GetStatusResponse(
            version=str(status.get("version", "")),
            generation=int(status.get("generation", 0)),
            digest=str(status.get("digest", "")),
            policy=str(status.get("policy", "")),
            uptime_seconds=float(status.get("uptime_seconds", 0.0)),
            stopping=bool(status.get("stopping", False)),
            counters={str(k): float(v) for k, v in status.get("counters", {}).items()},
            details=json_format.ParseDict(json.loads(json.dumps(dict(status))), Struct()),
        )

    async def _reload(
        self, _request: pb.ReloadRequest, _context: Context, _caller: Caller
    ) -> pb.ReloadResponse:
        try:
            answer = await self._control.reload()
        except AuthMilterError as e:
            answer = {"error": str(e)}
        if answer.get("error"):
            raise Refused(StatusCode.FAILED_PRECONDITION, str(answer["error"]))
        return pb.ReloadResponse(digest=str(answer.get("digest", "")))


_NO_OPTIONS = Options()
_NO_SESSION = Session()
_NO_ENVELOPE = Envelope()


def _may_bring_zone(given: Any, caller: Caller) -> None:
    """Refuse a zone of who may not bring one, before it is read."""
    if given.HasField("zone") and not caller.identity.inline_zone:
        raise Refused(StatusCode.PERMISSION_DENIED, f"`{caller.identity.name}` may not bring a zone along")


def _needs_id(request: pb.VerifyRequest) -> None:
    if not request.id:
        raise bad_request([("request.id", "is missing")])


def _signed(verdict: Verdict) -> dict[str, Any]:
    """Return what an answer says of signing, as its fields."""
    fields = [
        {"name": e.name.decode("ascii"), "value": e.value.decode("ascii", "backslashreplace")}
        for e in reversed(verdict.edits)
        if isinstance(e, InsertHeader) and e.name == b"DKIM-Signature"
    ]
    decision, signing = verdict.decision, verdict.signing
    if signing is None:  # the policy did not let it come to that
        signing = Signing(line=f"policy {decision.policy}, rule {decision.rule}", reason="refused")
    return {
        "fields": fields,
        "signing": encode(signing, pb.Signing),
        "tempfail": decision.disposition is Disposition.TEMPFAIL,
    }


def _deadline(context: Context) -> Deadline | None:
    """Return when the work has to end for the answer to be in time; None where the client set no deadline.

    Raises:
        Refused: it has passed.
    """
    remaining = cast("float | None", context.time_remaining())
    if remaining is None or remaining > 1e9:
        return None
    if remaining <= 0.0:
        raise Refused(StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
    return Deadline.after(remaining - min(max(remaining * _WAY_BACK, _WAY_BACK_LEAST), _WAY_BACK_MOST))


def _handler(
    method: RpcMethod, call: Callable[[Any, Context], Coroutine[Any, Any, Any]]
) -> grpc.RpcMethodHandler[Any, Any]:
    # On the wire one request is a stream of one. Declared as such, the call comes to us with its headers alone: gRPC
    # would else read (and keep) whole messages of callers that nobody has looked at.
    kind: Callable[..., grpc.RpcMethodHandler[Any, Any]] = (
        grpc.stream_stream_rpc_method_handler
        if method.server_streaming
        else grpc.stream_unary_rpc_method_handler
    )

    def read(octets: bytes) -> Any:
        try:
            return method.read_request(octets)
        except DecodeError:
            raise Refused(
                StatusCode.INVALID_ARGUMENT, f"what was sent is no {method.request.DESCRIPTOR.name}"
            ) from None

    return kind(call, request_deserializer=read, response_serializer=method.response.SerializeToString)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # a call runs in one
    return task


async def _next_turn() -> None:
    """Let everything else that is ready go first."""
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(_done, turn)
    await turn


def _done(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
