"""iprev results (RFC 8601 §2.7.3, §3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from authmilter.names import IPAddress

__all__ = ["IprevProblem", "IprevResult", "IprevStatus"]


class IprevStatus(StrEnum):
    """RFC 8601 §2.7.3."""

    #: a name of the address leads back to it
    PASS = "pass"  # noqa: S105 - a result word
    #: there are names, none leads back
    FAIL = "fail"
    #: DNS trouble
    TEMPERROR = "temperror"
    #: the address has no name
    PERMERROR = "permerror"
    #: not of the RFC: we failed
    INTERNAL_ERROR = "internal_error"


class IprevProblem(StrEnum):
    """Why, where the status alone does not say."""

    NO_NAME = "no_name"
    NO_MATCH = "no_match"
    DNS = "dns"
    LIMIT = "limit"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class IprevResult:
    """`ip` that was asked for, the confirmed `name` (lower case, `` where none), and why not."""

    status: IprevStatus
    ip: IPAddress
    name: str = ""
    problem: IprevProblem | None = None
    detail: str = ""
