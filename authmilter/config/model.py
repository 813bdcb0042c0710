"""The settings of authmilter: every key of `authmilter.yaml`, its type, its safe default and its meaning.

An empty file is a complete configuration, and an empty section (`dns:`) is that section's defaults. Durations are
a number of seconds or a text such as `5s`, `300ms`, `2m`, `1h`; sizes a number of octets or `64K`, `50M`; a file
mode is written as for chmod. Unknown keys are errors.

Whatever passes here can be built from: what a part would refuse later (a name server's address, a field name that
cannot be removed) is refused here, where the file's line is known.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    model_validator,
)
from pydantic_core import PydanticCustomError

from authmilter.dns.servers import Server
from authmilter.headers.settings import HeaderSettings, removal
from authmilter.milter.sockets import ListenSpec
from authmilter.names import Domain

__all__ = [
    "SHIPPED_POLICIES",
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
    "OpenDkimTablesConfig",
    "RelayConfig",
    "SenderConfig",
    "SigningConfig",
    "SigningLineConfig",
    "SpfConfig",
    "SubmissionConfig",
]

#: The words that may stand for a policy (those of policy/shipped.py, which the configuration does not import).
SHIPPED_POLICIES = ("monitor", "enforce", "strict")

#: No duration is longer, in seconds: a year. Timers take no more than some years.
MAX_DURATION = 366 * 86400.0
#: No size is larger, in octets.
MAX_SIZE = 1 << 40

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)[ \t]*(ms|s|m|h|d)?")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZE = re.compile(r"([0-9]{1,15})[ \t]*([kKmMgG])?[bB]?")
_SIZES = {"G": 1 << 30, "M": 1 << 20, "K": 1 << 10}
_MODE = re.compile(r"(?:0o)?0?[0-7]{3}")
# The same for the JSON Schema, whose patterns are looked for anywhere in a text unless tied to its ends.
_DURATION_PATTERN, _SIZE_PATTERN, _MODE_PATTERN = (
    f"^{known.pattern}$" for known in (_DURATION, _SIZE, _MODE)
)


def _duration(value: object) -> float:
    """Read a duration in seconds, to the microsecond."""
    seconds = -1.0
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is not None:
            seconds = float(match.group(1)) * _UNITS[match.group(2) or "s"]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if math.isnan(seconds) or seconds < 0:
        raise ValueError("expected a duration such as 5s, 300ms or 2m")
    if seconds > MAX_DURATION:
        raise ValueError("expected a duration of at most 366 days")
    return round(seconds, 6)


def _duration_text(seconds: float) -> str:
    """Write a duration so that `_duration` reads the same."""
    for unit, length in _UNITS.items():
        count = round(seconds / length, 6)
        if count >= 1 and count.is_integer():
            return f"{int(count)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _within(low: float, high: float) -> AfterValidator:
    """Bound a duration, in seconds."""

    def check(seconds: float) -> float:
        if not low <= seconds <= high:
            raise ValueError(f"expected a duration from {_duration_text(low)} to {_duration_text(high)}")
        return seconds

    return AfterValidator(check)


def _size(value: object) -> int:
    """Read a number of octets."""
    octets = -1
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is not None:
            octets = int(match.group(1)) * _SIZES.get((match.group(2) or "").upper(), 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        octets = value
    if octets < 0:
        raise ValueError("expected a size such as 65536, 64K or 50M")
    if octets > MAX_SIZE:
        raise ValueError("expected a size of at most 1024G")
    return octets


def _size_text(octets: int) -> str | int:
    """Write a size so that `_size` reads the same."""
    for unit, size in _SIZES.items():
        if octets and octets % size == 0:
            return f"{octets // size}{unit}"
    return octets


def _domain(value: str) -> str:
    return Domain.parse(value).ascii


def _sibling(value: str) -> str:
    stem = value.removeprefix("*.")
    return value[: len(value) - len(stem)] + _domain(stem)


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value.strip(), strict=False)
    except ValueError:
        raise ValueError("expected an IP address or network such as 192.0.2.0/24") from None
    # Clients come as plain IPv4 addresses, however the MTA writes them; so must the networks they are looked for in.
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.ip_network((mapped, network.prefixlen - 96))
    return str(network)


def _listen(value: str) -> str:
    return str(ListenSpec.parse(value))


def _name_server(value: str) -> str:
    Server.parse(value)
    return value


def _field_name(value: str) -> str:
    HeaderSettings(strip=(value,))
    if not value.endswith("*") and not removal(value).covers(value.lower().encode()):
        raise ValueError("this field is part of every message or signature and is never removed")
    return value


def _socket_path(value: str) -> str:
    return ListenSpec.parse(f"unix:{value}").path if value else value


def _policy(value: str) -> str:
    if value in SHIPPED_POLICIES or "/" in value or value.endswith((".yaml", ".yml")):
        return value
    # Written as pydantic writes a closed list's error, so that it is explained as one.
    raise PydanticCustomError(
        "literal_error",
        "expected {expected}, or a path with a `/` or ending in .yaml",
        {"expected": "'monitor', 'enforce' or 'strict'"},
    )


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    # Not `min_length`: that also complains of a list whose entries are wrong.
    if not values:
        raise PydanticCustomError("too_short", "expected at least one entry")
    return values


def _no_repeats(values: tuple[str, ...]) -> tuple[str, ...]:
    for position, value in enumerate(values):
        if value in values[:position]:
            raise PydanticCustomError("repeated", "stands twice in the list", {"at": position})
    return values


def _mode(value: object) -> int:
    # A number is decimal only by accident: our YAML keeps `0660` a text, and who writes 660 means chmod's 660 too.
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and _MODE.fullmatch(text):
        return int(text.removeprefix("0o"), 8)
    raise ValueError('expected a file mode such as "0660"')


def _mode_text(mode: int) -> str:
    return f"{mode:04o}"


Duration = Annotated[
    float,
    BeforeValidator(
        _duration,
        json_schema_input_type=Annotated[float, Field(ge=0)]
        | Annotated[str, Field(pattern=_DURATION_PATTERN)],
    ),
    PlainSerializer(_duration_text, return_type=str, when_used="json"),
]
Size = Annotated[
    int,
    BeforeValidator(
        _size,
        json_schema_input_type=Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=_SIZE_PATTERN)],
    ),
    PlainSerializer(_size_text, when_used="json"),
]
FileMode = Annotated[
    int,
    BeforeValidator(_mode, json_schema_input_type=int | Annotated[str, Field(pattern=_MODE_PATTERN)]),
    PlainSerializer(_mode_text, return_type=str, when_used="json"),
]
#: Strict, because `true` is no 1.
Count = Annotated[int, Strict()]
DomainText = Annotated[str, AfterValidator(_domain)]
SiblingText = Annotated[str, AfterValidator(_sibling)]
NetworkText = Annotated[str, AfterValidator(_network)]
ListenText = Annotated[str, AfterValidator(_listen)]
NameServerText = Annotated[str, AfterValidator(_name_server)]
FieldNameText = Annotated[str, AfterValidator(_field_name)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return {} if value is None else value


class MilterConfig(_Section):
    """The milter door."""

    listen: Annotated[tuple[ListenText, ...], AfterValidator(_not_empty), AfterValidator(_no_repeats)] = (
        Field(
            ("inet:8891@127.0.0.1",),
            json_schema_extra={"minItems": 1},
            description="where the MTA connects: inet:port@host, inet:host:port, inet6:port@[host], unix:/path, local:/path or a bare path",
        )
    )
    engine: Literal["native", "libmilter"] = Field(
        "native",
        description="native: our own protocol engine on an event loop; libmilter: Sendmail's library through pymilter",
    )
    workers: Count | None = Field(
        None, ge=1, le=256, description="worker processes; default one per processor core"
    )
    socket_mode: FileMode = Field(0o660, description="file mode of unix sockets")
    socket_owner: str = Field("", description="owner of unix sockets (user name); default: the service user")
    socket_group: str = Field("", description="group of unix sockets; for Postfix usually `postfix`")
    on_error: Literal["tempfail", "accept"] = Field(
        "tempfail",
        description="what a message gets when a check that the policy reads failed inside authmilter: 451 4.3.0, or accepted and tagged",
    )
    max_sessions: Count = Field(
        5000, ge=1, le=1_000_000, description="open sessions per worker; further ones wait to be accepted"
    )
    idle_timeout: Annotated[Duration, _within(10, MAX_DURATION)] = Field(
        7200.0,
        description="a session without any traffic is closed after this long; while a client is slow to send its message there is none",
    )
    progress: Annotated[Duration, _within(0.1, 25)] = Field(
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

    nameservers: tuple[NameServerText, ...] = Field(
        (), description="resolvers as IP or IP:port; default: those of resolv.conf"
    )
    timeout: Annotated[Duration, _within(0.01, 60)] = Field(
        5.0, description="the longest one question may take, repeats included"
    )
    cache_size: Size = Field(32 << 20, description="octets of answers kept per worker")
    min_ttl: Duration = Field(5.0, description="keep an answer at least this long")
    max_ttl: Duration = Field(86400.0, description="keep an answer at most this long")
    negative_max_ttl: Duration = Field(
        900.0, description="keep `no such name` and `no such record` at most this long"
    )
    failure_ttl: Annotated[Duration, _within(1, 5)] = Field(
        3.0, description="keep a failure this long (RFC 9520: 1 to 5 s)"
    )
    zone: str | None = Field(
        None, description="answer from this zone file instead of the network (tests, demonstrations)"
    )

    @model_validator(mode="after")
    def _ttls_have_an_order(self) -> DnsConfig:
        for name, limit in (("max_ttl", self.max_ttl), ("negative_max_ttl", self.negative_max_ttl)):
            if limit < self.min_ttl:
                shorter, least = _duration_text(limit), _duration_text(self.min_ttl)
                raise PydanticCustomError(
                    "order", "{name} ({shorter}) is shorter than min_ttl ({least})",
                    {"name": name, "shorter": shorter, "least": least, "at": name if name in self.model_fields_set else "min_ttl"},
                )  # fmt: skip
        return self


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

    networks: Annotated[tuple[NetworkText, ...], AfterValidator(_not_empty)] = Field(
        description="addresses it comes from", json_schema_extra={"minItems": 1}
    )
    daemon_names: tuple[str, ...] = Field((), description="if given, {daemon_name} must be one of these too")


class RelayConfig(_Section):
    """Our backup MX or edge: judged for the client it names, never refused."""

    networks: Annotated[tuple[NetworkText, ...], AfterValidator(_not_empty)] = Field(
        description="addresses it comes from", json_schema_extra={"minItems": 1}
    )
    received_by: tuple[DomainText, ...] = Field(
        (),
        description="host names the relay writes after `by` in its Received field; the client's address is read from that field. Without them SPF and iprev are not asked",
    )


class SpfConfig(_Section):
    """SPF, RFC 7208."""

    void_limit: Count = Field(2, ge=0, le=10, description="void lookups allowed (section 4.6.4)")


class DkimConfig(_Section):
    """DKIM verification, RFC 6376."""

    max_signatures: Count = Field(10, ge=1, le=100, description="signatures checked per message")
    min_rsa_bits: Count = Field(
        1024, ge=1024, le=8192, description="shorter RSA keys never pass (RFC 8301: 1024)"
    )
    clock_skew: Duration = Field(300.0, description="allowed difference of clocks for t= and x=")
    unsigned_body: Literal["policy", "accept"] = Field(
        "policy",
        description="a signature whose l= leaves octets of the body unsigned: dkim=policy, or accepted",
    )
    testing: Literal["credit", "ignore"] = Field(
        "credit", description="a pass by a key in testing mode (t=y): credited, or as if unsigned"
    )


class SigningLineConfig(_Section):
    """A signature for mail of an author domain."""

    domain: str = Field(description="the author domain: example.com, or *.example.com for all below it")
    selector: str = Field(description="the key's selector (s=)")
    key: str = Field(description="the private key's file, relative to this file")
    signing_domain: DomainText | None = Field(None, description="d=; default: the author domain of this line")


class OpenDkimTablesConfig(_Section):
    """OpenDKIM's own tables, read as they are."""

    key_table: str = Field(description="KeyTable: a path, file:PATH or refile:PATH")
    signing_table: str = Field(description="SigningTable: a path, file:PATH or refile:PATH")
    multiple_signatures: bool = Field(False, description="OpenDKIM's MultipleSignatures")


class SenderConfig(_Section):
    """Who may write as whom; without any, everybody whose mail is signed may use every configured domain."""

    users: tuple[str, ...] = Field((), description="logins: alice, *@example.com, *")
    networks: tuple[NetworkText, ...] = Field((), description="client networks")
    authors: tuple[str, ...] = Field(
        description="example.com, *.example.com, user@example.com, {login}, {login-domain}, *"
    )


class SigningConfig(_Section):
    """DKIM signatures on outbound mail (submission and own networks); docs/signing.md."""

    domains: tuple[SigningLineConfig, ...] = Field(
        (), description="author domains and their keys; two lines make two signatures"
    )
    tables: tuple[str, ...] = Field((), description="files with lines `PATTERN SELECTOR KEY-FILE [d=DOMAIN]`")
    opendkim_tables: OpenDkimTablesConfig | None = Field(
        None, description="OpenDKIM's KeyTable and SigningTable"
    )
    senders: tuple[SenderConfig, ...] = Field(
        (), description="which logins and networks may write as which authors"
    )
    daemon_names: tuple[str, ...] = Field(
        (), description="also sign mail of these {daemon_name}s, wherever it comes from"
    )
    expire: Duration | None = Field(None, description="x=: how long a signature is valid")
    on_error: Literal["tempfail", "pass-unsigned"] = Field(
        "tempfail", description="mail that a line says is signed, and that cannot be"
    )
    on_unsafe_body: Literal["sign-and-warn", "tempfail", "pass-unsigned"] = Field(
        "sign-and-warn", description="mail whose body a later hop may change (long lines, 8-bit)"
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
    show_login: bool = Field(
        True, description="the login of an authenticated sender in Authentication-Results (smtp.auth)"
    )
    strip: tuple[FieldNameText, ...] = Field(
        (), description="further field names removed from internet mail (`X-Spam-Flag`, `X-Spam-*`)"
    )


class LimitsConfig(_Section):
    """The time one message may take, from its end to our answer."""

    message: Annotated[Duration, _within(0.1, 280)] = Field(
        20.0, description="everything (Postfix waits 300 s at this point)"
    )
    checks: Annotated[Duration, _within(0.1, 280)] = Field(
        10.0, description="SPF, DKIM and iprev; what is left of `message` stays DMARC's"
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

    socket: Annotated[str, AfterValidator(_socket_path)] = Field(
        "/run/authmilter/control.sock", description="its absolute path; empty: none"
    )


class Config(_Section):
    """Everything `authmilter.yaml` may say."""

    authserv_id: DomainText | None = Field(
        None, description="our name in Authentication-Results; default: the MTA's own name (macro j)"
    )
    authserv_siblings: tuple[SiblingText, ...] = Field(
        (),
        description="further authserv-ids of our own: forged fields with these are removed too; `*.example.com` stands for every name below example.com",
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
    policy: Annotated[str, AfterValidator(_policy)] = Field(
        "monitor",
        description="monitor, enforce or strict, or a path (with / or ending in .yaml) relative to this file",
    )
    spf: SpfConfig = SpfConfig()
    dkim: DkimConfig = DkimConfig()
    dmarc: DmarcConfig = DmarcConfig()
    signing: SigningConfig = SigningConfig()
    headers: HeaderConfig = HeaderConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    control: ControlConfig = ControlConfig()

    def as_document(self) -> dict[str, Any]:
        """Return the effective settings as plain data, defaults included."""
        return self.model_dump(mode="json")
