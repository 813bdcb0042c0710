"""The settings of authmilter: every key of `authmilter.yaml`, its type, its safe default and its meaning.

An empty file is a complete configuration. Durations are a number of seconds or a text such as `5s`, `300ms`,
`2m`, `1h`; sizes a number of octets or `64K`, `50M`. Unknown keys are errors.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from authmilter.errors import InvalidName
from authmilter.milter.sockets import ListenSpec
from authmilter.names import Domain

__all__ = [
    "Config",
    "ControlConfig",
    "DkimConfig",
    "DmarcConfig",
    "DnsConfig",
    "GrpcConfig",
    "HeaderConfig",
    "HopConfig",
    "InternalConfig",
    "LimitsConfig",
    "LogConfig",
    "MilterConfig",
    "RelayConfig",
    "SpfConfig",
    "SubmissionConfig",
]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*([kKmMgG])?[bB]?")
_SIZES = {None: 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _duration(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a duration such as 5s, 300ms or 2m")  # noqa: TRY004 - pydantic collects ValueError
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("expected a duration such as 5s, 300ms or 2m")
    return float(match.group(1)) * _UNITS[match.group(2)]


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected a size such as 65536, 64K or 50M")  # noqa: TRY004 - pydantic collects ValueError
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("expected a size such as 65536, 64K or 50M")
    unit = match.group(2)
    return int(match.group(1)) * _SIZES[unit.lower() if unit else None]


def _domain(value: str) -> str:
    try:
        return Domain.parse(value).ascii
    except InvalidName as e:
        raise ValueError(str(e)) from None


def _network(value: str) -> str:
    text = value.strip()
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("expected an IP address or network such as 192.0.2.0/24") from None


def _listen(value: str) -> str:
    return str(ListenSpec.parse(value))


def _mode(value: object) -> int:
    # YAML 1.1 reads 0660 as octal already, "0660" stays a text; both mean what chmod means by them.
    if isinstance(value, str) and re.fullmatch(r"0?o?[0-7]{3,4}", value):
        return int(value.replace("o", ""), 8)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    raise ValueError('expected a file mode such as "0660"')


Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=float | str), Field(ge=0)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str), Field(ge=0)]
DomainText = Annotated[str, AfterValidator(_domain)]
NetworkText = Annotated[str, AfterValidator(_network)]
ListenText = Annotated[str, AfterValidator(_listen)]
FileMode = Annotated[int, BeforeValidator(_mode, json_schema_input_type=int | str)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class MilterConfig(_Section):
    """The milter door."""

    listen: tuple[ListenText, ...] = Field(
        ("inet:8891@127.0.0.1",),
        description="where the MTA connects: inet:port@host, inet:host:port, inet6:port@[host], unix:/path, local:/path or a bare path",
    )
    engine: Literal["native", "libmilter"] = Field(
        "native",
        description="native: our own protocol engine on an event loop; libmilter: Sendmail's library through pymilter",
    )
    workers: int | None = Field(
        None, ge=1, le=256, description="worker processes; default one per processor core"
    )
    socket_mode: FileMode = Field(0o660, description="file mode of unix sockets")
    socket_owner: str = Field("", description="owner of unix sockets (user name); default: the service user")
    socket_group: str = Field("", description="group of unix sockets; for Postfix usually `postfix`")
    on_error: Literal["tempfail", "accept"] = Field(
        "tempfail",
        description="what a message gets when a check that the policy reads failed inside authmilter: 451 4.3.0, or accepted and tagged",
    )
    max_sessions: int = Field(
        5000, ge=1, description="open sessions per worker; more are turned away with 4xx"
    )
    idle_timeout: Duration = Field(
        600.0, description="a session without any traffic is closed after this long"
    )
    progress: Duration = Field(
        3.0, description="while a verdict waits for DNS, the MTA is told so this often"
    )
    body_cap: Size | None = Field(
        None,
        description="read at most this much of a body; signatures over a longer one are reported as unchecked (limit)",
    )
    drain: Duration = Field(300.0, description="on reload and stop, open sessions may go on for this long")


class GrpcConfig(_Section):
    """The gRPC door (not in this version: a non-empty `listen` is warned about and ignored)."""

    listen: tuple[str, ...] = Field((), description="HOST:PORT or unix:/path")


class DnsConfig(_Section):
    """Where answers come from."""

    nameservers: tuple[str, ...] = Field(
        (), description="resolvers as IP or IP:port; default: those of resolv.conf"
    )
    timeout: Duration = Field(5.0, gt=0, description="the longest one question may take, repeats included")
    cache_size: Size = Field(32 << 20, description="octets of answers kept per worker")
    min_ttl: Duration = Field(5.0, description="keep an answer at least this long")
    max_ttl: Duration = Field(86400.0, description="keep an answer at most this long")
    negative_max_ttl: Duration = Field(
        900.0, description="keep `no such name` and `no such record` at most this long"
    )
    failure_ttl: Duration = Field(
        3.0, ge=1, le=5, description="keep a failure this long (RFC 9520: 1 to 5 s)"
    )
    zone: str | None = Field(
        None, description="answer from this zone file instead of the network (tests, demonstrations)"
    )


class InternalConfig(_Section):
    """Own networks: mail from them is not judged."""

    networks: tuple[NetworkText, ...] = Field(
        ("127.0.0.0/8", "::1/128"), description="client networks of our own"
    )


class SubmissionConfig(_Section):
    """What counts as authenticated submission."""

    authenticated: bool = Field(True, description="a session with {auth_authen} or {auth_type} is submission")
    daemon_names: tuple[str, ...] = Field(
        ("ORIGINATING",),
        description="so is one whose {daemon_name} is one of these (Postfix: milter_macro_daemon_name)",
    )


class HopConfig(_Section):
    """Our content filter or list server handing mail back."""

    networks: tuple[NetworkText, ...] = Field((), description="addresses it comes from")
    daemon_names: tuple[str, ...] = Field((), description="if given, {daemon_name} must be one of these too")


class RelayConfig(_Section):
    """Our backup MX or edge: judged for the client it names, never refused."""

    networks: tuple[NetworkText, ...] = Field((), description="addresses it comes from")
    received_by: tuple[DomainText, ...] = Field(
        (),
        description="host names the relay writes after `by` in its Received field; the client's address is read from that field. Without them SPF and iprev are not asked",
    )


class SpfConfig(_Section):
    """SPF, RFC 7208."""

    void_limit: int = Field(2, ge=0, le=10, description="void lookups allowed (section 4.6.4)")


class DkimConfig(_Section):
    """DKIM verification, RFC 6376."""

    max_signatures: int = Field(10, ge=1, le=100, description="signatures checked per message")
    min_rsa_bits: int = Field(1024, ge=1024, description="shorter RSA keys never pass (RFC 8301: 1024)")
    clock_skew: Duration = Field(300.0, description="allowed difference of clocks for t= and x=")
    unsigned_body: Literal["policy", "accept"] = Field(
        "policy",
        description="a signature whose l= leaves octets of the body unsigned: dkim=policy, or accepted",
    )
    testing: Literal["credit", "ignore"] = Field(
        "credit", description="a pass by a key in testing mode (t=y): credited, or as if unsigned"
    )


class DmarcConfig(_Section):
    """DMARC, RFC 9989."""

    org_domain: Literal["treewalk", "psl"] = Field(
        "treewalk",
        description="how the Organizational Domain is found: RFC 9989 tree walk, or public suffix list (RFC 7489)",
    )
    credit_broad_spf: bool = Field(
        True, description="whether an SPF pass by +all or a huge network counts for alignment"
    )


class HeaderConfig(_Section):
    """Header fields written and removed."""

    received_spf: bool = Field(False, description="also write Received-SPF (RFC 7208 section 9.1)")
    comments: bool = Field(True, description="comments in Authentication-Results")
    show_login: bool = Field(True, description="the login of an authenticated sender in Authentication-Results (smtp.auth)")
    strip: tuple[str, ...] = Field((), description="further field names removed from internet mail")


class LimitsConfig(_Section):
    """The time one message may take, from its end to our answer."""

    message: Duration = Field(
        20.0, gt=0, le=280, description="everything (Postfix waits 300 s at this point)"
    )
    checks: Duration = Field(
        10.0, gt=0, description="SPF, DKIM and iprev; what is left of `message` stays DMARC's"
    )


class LogConfig(_Section):
    """The one line per message, and everything else the service says."""

    format: Literal["json", "console"] = Field("json", description="json for machines, console for people")
    redact_local_parts: bool = Field(False, description="write `*` for the part before the @")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line written"
    )


class ControlConfig(_Section):
    """The supervisor's control socket (`authmilter status`, `authmilter reload`)."""

    socket: str = Field("/run/authmilter/control.sock", description="its path; empty: none")


class Config(_Section):
    """Everything `authmilter.yaml` may say."""

    authserv_id: DomainText | None = Field(
        None, description="our name in Authentication-Results; default: the MTA's own name (macro j)"
    )
    authserv_siblings: tuple[DomainText, ...] = Field(
        (), description="further authserv-ids of our own: forged fields with these are removed too"
    )
    user: str = Field("", description="become this user once the sockets are open (needs root at start)")
    group: str = Field("", description="and this group; default: the user's own")
    milter: MilterConfig = MilterConfig()
    grpc: GrpcConfig = GrpcConfig()
    dns: DnsConfig = DnsConfig()
    internal: InternalConfig = InternalConfig()
    submission: SubmissionConfig = SubmissionConfig()
    trusted_hops: tuple[HopConfig, ...] = ()
    trusted_relays: tuple[RelayConfig, ...] = ()
    policy: str = Field(
        "monitor",
        description="monitor, enforce or strict, or a path (with / or ending in .yaml) relative to this file",
    )
    spf: SpfConfig = SpfConfig()
    dkim: DkimConfig = DkimConfig()
    dmarc: DmarcConfig = DmarcConfig()
    headers: HeaderConfig = HeaderConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    control: ControlConfig = ControlConfig()

    def as_document(self) -> dict[str, Any]:
        """Return the effective settings as plain data, defaults included."""
        return self.model_dump(mode="json")
