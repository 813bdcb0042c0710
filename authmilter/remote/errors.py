"""What a call to the service can end with instead of an answer: one exception for each kind, under `CallError`.

How it fails: `failure_of` and `failure_of_status` are total; details that cannot be read are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # googleapis-common-protos has no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above

from authmilter.errors import AuthMilterError
from authmilter.rpc.refusal import DETAILS_KEY, number

__all__ = [
    "AWAY",
    "CallError",
    "DeadlineExceededError",
    "ExhaustedError",
    "InvalidRequestError",
    "PermissionDeniedError",
    "PreconditionError",
    "ServerFaultError",
    "UnauthenticatedError",
    "UnavailableError",
    "Violation",
    "failure_of",
    "failure_of_status",
]


#: Codes of a server that is going, or gone: ask again. (CANCELLED is what calls are told that reach it in that moment.)
AWAY = frozenset({"UNAVAILABLE", "CANCELLED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A wrong field of a request: its path (`session.client_ip`), and what is wrong with it."""

    field: str
    description: str


class CallError(AuthMilterError):
    """A call, or one message of a stream, has no answer.

    Attributes:
        code: the gRPC status code's name (`UNAVAILABLE`).
        text: what the server, or gRPC, says.
        violations: every wrong field, where the request was at fault.
        retry_after: seconds after which to ask again; None: not said.
    """

    def __init__(
        self,
        code: str,
        text: str,
        *,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text
        self.violations = violations
        self.retry_after = retry_after


class InvalidRequestError(CallError):
    """The request is wrong: `violations` names the fields. Asking again does not help."""


class UnauthenticatedError(CallError):
    """The server does not know the caller: no token, a wrong one, or no certificate."""


class PermissionDeniedError(CallError):
    """The server knows the caller, who may not do this."""


class PreconditionError(CallError):
    """The server is not set up for this (no signing keys, no BIMI), or refuses a reload: the text has every mistake."""


class ExhaustedError(CallError):
    """A limit: of the caller's rate or concurrency (`retry_after`), of a message's size, or of the server."""


class DeadlineExceededError(CallError):
    """There was no answer in time."""


class UnavailableError(CallError):
    """Nobody answers there, or the server went away and asking again did not help."""


class ServerFaultError(CallError):
    """The server failed; the text has an id to be looked for in its log."""


_KINDS: Mapping[str, type[CallError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "FAILED_PRECONDITION": PreconditionError,
    "RESOURCE_EXHAUSTED": ExhaustedError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "UNAVAILABLE": UnavailableError,
    "CANCELLED": UnavailableError,
    "INTERNAL": ServerFaultError,
}
#: What grpc.aio says, in place of the call's status, where a message could not be sent any more.
_BROKEN = "Internal error from Core"
_NAMES = {number(code): code.name for code in grpc.StatusCode}


def failure_of(error: grpc.RpcError) -> CallError:
    """Return what a call ended with as an exception of ours."""
    # grpc raises what is an error and a call at the same time; only the types of one of its halves say so.
    call: Any = error
    code, text = call.code().name, call.details() or ""
    if code == "INTERNAL" and text == _BROKEN:
        code, text = "UNAVAILABLE", "the connection broke while a piece was sent"
    metadata: Iterable[tuple[str, str | bytes]] = call.trailing_metadata() or ()
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = Status.FromString(value)
            except DecodeError:
                break
            return _made(code, text, status)
    return _made(code, text, Status())


def failure_of_status(status: Status) -> CallError:
    """Return what one message of a stream ended with as an exception of ours."""
    return _made(_NAMES.get(status.code, "UNKNOWN"), status.message, status)


def _made(code: str, text: str, status: Status) -> CallError:
    violations: list[Violation] = []
    retry_after = None
    for detail in status.details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        try:
            if detail.Unpack(bad):
                violations += [
                    Violation(field=v.field, description=v.description) for v in bad.field_violations
                ]
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        except DecodeError:
            continue
    kind = _KINDS.get(code, CallError)
    return kind(code, text or "no reason is given", violations=tuple(violations), retry_after=retry_after)
