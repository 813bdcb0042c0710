"""Why a call, or one item of a stream, is not answered: a gRPC status with its details, as an exception.

`Refused` is raised anywhere below a call and becomes its status at the call's outermost line. Its text is ours and made
for the caller: nothing of the server's inside belongs there.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # googleapis-common-protos has no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above
from grpc import StatusCode

__all__ = ["DETAILS_KEY", "Refused", "Violation", "bad_request", "exhausted", "number"]

#: The trailing metadata that carries a whole google.rpc.Status.
DETAILS_KEY = "grpc-status-details-bin"
#: Characters of a status's text: it travels as one header.
_MAX_TEXT = 1500

#: Wrong fields that are named: trailing metadata has about 8 KB in all, and a client drops what is more.
_MAX_VIOLATIONS = 20
#: Characters of their sum, which travels twice.
_MAX_SUM = 800
#: Octets of a description.
_MAX_DESCRIPTION = 160

#: A wrong field: its path in the request, and what is wrong with it.
Violation = tuple[str, str]


class Refused(Exception):  # noqa: N818 - a status on its way to the caller, not a fault
    """A call or item ends with this status."""

    def __init__(self, code: StatusCode, text: str, *details: Message) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = _cut(text, _MAX_TEXT)
        self.details = details

    def status(self) -> Status:
        """Return it as a message."""
        packed = []
        for detail in self.details:
            packed.append(AnyMessage())
            packed[-1].Pack(detail)
        return Status(code=number(self.code), message=self.text, details=packed)


def number(code: StatusCode) -> int:
    """Return the number of a status code."""
    value: tuple[int, str] = code.value
    return value[0]


def bad_request(violations: Sequence[Violation]) -> Refused:
    """Return INVALID_ARGUMENT that names the wrong fields, the first twenty of them."""
    detail = error_details_pb2.BadRequest()
    told = [(field, _cut(text, _MAX_DESCRIPTION)) for field, text in violations[:_MAX_VIOLATIONS]]
    for field, description in told:
        detail.field_violations.add(field=field, description=description)
    text = "; ".join(f"{field}: {description}" for field, description in told)
    more = len(violations) - len(told)
    text = _cut(f"{more} more; {text}" if more else text, _MAX_SUM)
    return Refused(StatusCode.INVALID_ARGUMENT, text, detail)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def exhausted(text: str, retry_after: float | None = None) -> Refused:
    """Return RESOURCE_EXHAUSTED; `retry_after` in seconds, where waiting helps."""
    details: list[Message] = []
    if retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return Refused(StatusCode.RESOURCE_EXHAUSTED, text, *details)
