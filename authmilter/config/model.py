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

from authmilter import grammar
from authmilter.dns.servers import Server
from authmilter.headers.settings import HeaderSettings, removal
from authmilter.milter.sockets import Family, ListenSpec
from authmilter.names import Domain

__all__ = [
    "SHIPPED_POLICIES",
    "ArcConfig",
    "BimiConfig",
    "Config",
    "ControlConfig",
    "DkimConfig",
    "DmarcConfig",
    "DnsConfig",
    "GrpcConfig",
    "GrpcIdentityConfig",
    "HeaderConfig",
    "HopConfig",
    "InternalConfig",
    "LimitsConfig",
    "LogConfig",
    "MilterConfig",
    "OpenDkimTablesConfig",
    "RelayConfig",
    "RotationConfig",
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
#: No template of selectors is longer, in characters.
MAX_TEMPLATE = 60
#: No size is larger, in octets.
MAX_SIZE = 1 << 40

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)[ \t]*(ms|s|m|h|d)?")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZE = re.compile(r"([0-9]{1,15})[ \t]*([kKmMgG])?[bB]?")
_SIZES = {"G": 1 << 30, "M": 1 << 20, "K": 1 << 10}
_TOKEN_HASH = re.compile(r"sha256:[0-9a-fA-F]{64}")
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


def _octets_within(low: int, high: int) -> AfterValidator:
    """Bound a size, in octets."""

    def check(octets: int) -> int:
        if not low <= octets <= high:
            raise ValueError(f"expected a size from {_size_text(low)} to {_size_text(high)}")
        return octets

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


def _sealer(value: str) -> str:
    return value if "/" in value or value.endswith(".txt") else _sibling(value)


def _recipient(value: str) -> str:
    if value != "*":
        local, _, rest = value.rpartition("@")
        if not local or Domain.maybe(rest) is None:
            raise ValueError("expected user@example.com, *@example.com or *")
    return value


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


def _grpc_listen(value: str) -> str:
    """Read an address as gRPC's own tools write it (`127.0.0.1:50051`), or as the milter's are written."""
    plain = not value.startswith("/") and value.partition(":")[0].lower() not in {
        "inet",
        "inet6",
        "unix",
        "local",
    }
    try:
        spec = ListenSpec.parse(f"inet:{value}" if plain else value)
    except ValueError:
        raise ValueError("expected 127.0.0.1:50051, [::1]:50051 or unix:/run/authmilter/grpc.sock") from None
    if spec.family is Family.UNIX:
        return f"unix:{spec.path}"
    return f"[{spec.host}]:{spec.port}" if ":" in spec.host else f"{spec.host}:{spec.port}"


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


def _absolute(value: str) -> str:
    if value and (not value.startswith("/") or "\0" in value):
        raise ValueError("expected an absolute path, or nothing")
    return value


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


def _pattern(value: str) -> str:
    below = value.startswith("*.")
    return ("*." if below else "") + str(Domain.parse(value.removeprefix("*.")))


def _selector_template(value: str) -> str:
    text = value
    # the longest that each may become
    for word, longest in (
        ("{kind}", "ed25519"),
        ("{date}", "20261122"),
        ("{year}", "2026"),
        ("{month}", "11"),
    ):
        text = text.replace(word, longest)
    if len(value) > MAX_TEMPLATE or not all(map(grammar.LABEL.fullmatch, text.lower().split("."))):
        raise ValueError(
            "expected a selector made of letters, digits, hyphens, {kind}, {date}, {year} and {month}"
        )
    return value


def _token_hash(value: str) -> str:
    if not _TOKEN_HASH.fullmatch(value):
        # Not shown: it may be the token itself.
        raise PydanticCustomError(
            "token", "this is no `sha256:` and 64 hexadecimal digits (write the hash, never the token)"
        )
    return value.lower()


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
PatternText = Annotated[str, AfterValidator(_pattern)]
DomainText = Annotated[str, AfterValidator(_domain)]
RecipientText = Annotated[str, AfterValidator(_recipient)]
SealerText = Annotated[str, AfterValidator(_sealer)]
SiblingText = Annotated[str, AfterValidator(_sibling)]
NetworkText = Annotated[str, AfterValidator(_network)]
ListenText = Annotated[str, AfterValidator(_listen)]
GrpcListenText = Annotated[str, AfterValidator(_grpc_listen)]
NameServerText = Annotated[str, AfterValidator(_name_server)]
FieldNameText = Annotated[str, AfterValidator(_field_name)]
TokenHash = Annotated[str, AfterValidator(_token_hash)]


class _Section(BaseModel):
    # (built within `Config`, and by itself only where somebody uses one alone)
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, defer_build=True)

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


class GrpcIdentityConfig(_Section):
    """A caller of the gRPC service: how he is known, and what he may do."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] = Field(
        description="his name in the log: lower-case letters, digits, `.`, `_` and `-`"
    )
    tokens: Annotated[tuple[TokenHash, ...], AfterValidator(_no_repeats)] = Field(
        (),
        description="hashes of his bearer tokens: `sha256:` and the 64 hexadecimal digits of the token's SHA-256",
    )
    certificates: Annotated[tuple[str, ...], AfterValidator(_no_repeats)] = Field(
        (),
        description="names in his client certificate: a DNS name, URI or address of its subject alternative names, or the common name of its subject",
    )
    peers: tuple[Literal["unix", "loopback"], ...] = Field(
        (),
        description="unix: everybody who can open the unix socket; loopback: everybody on this machine, on a port without TLS",
    )
    permissions: Annotated[tuple[Literal["verify", "sign", "admin"], ...], AfterValidator(_no_repeats)] = (
        Field(("verify",), description="which services he may call")
    )
    authserv_ids: tuple[DomainText, ...] = Field(
        (), description="names besides our own that he may ask for in Authentication-Results"
    )
    origins: tuple[Literal["internet", "submission", "internal", "trusted_hop", "trusted_relay"], ...] = (
        Field((), description="origins he may declare; else the rules decide, as for the milter")
    )
    inline_zone: bool = Field(False, description="may bring the DNS answers along (for tests and training)")
    rate: Count = Field(
        0,
        ge=0,
        le=1_000_000,
        description="messages and questions a second, all workers together; 0: no limit",
    )
    burst: Count = Field(
        0, ge=0, le=1_000_000, description="how many may come at once after a pause; 0: one second's worth"
    )
    concurrency: Count = Field(
        0,
        ge=0,
        le=1_000_000,
        description="messages and questions at work at a time, in each worker; 0: no limit",
    )

    @model_validator(mode="after")
    def _can_be_known(self) -> GrpcIdentityConfig:
        if not (self.tokens or self.certificates or self.peers):
            raise PydanticCustomError(
                "unknowable", "nobody can be this caller: give tokens, certificates or peers"
            )
        return self


#: What has to be written out for a port that anybody can listen to on its way.
_PLAINTEXT = "i-know-that-mail-and-tokens-can-be-read-on-the-way"


class GrpcConfig(_Section):
    """The gRPC door."""

    listen: Annotated[tuple[GrpcListenText, ...], AfterValidator(_no_repeats)] = Field(
        (),
        description="where programs connect: HOST:PORT, [IPv6]:PORT or unix:/path; empty: no gRPC service",
    )
    workers: Count = Field(1, ge=1, le=256, description="worker processes; a unix socket has one of them")
    socket_mode: FileMode = Field(0o660, description="file mode of unix sockets")
    socket_owner: str = Field("", description="owner of unix sockets (user name); default: the service user")
    socket_group: str = Field("", description="group of unix sockets")
    certificate: str = Field(
        "",
        description="PEM file of the server's certificate chain, its own first; read again when it changes",
    )
    key: str = Field("", description="PEM file of its private key")
    client_ca: str = Field(
        "",
        description="PEM file of authorities of client certificates (mTLS): every client on a port must have one of theirs, also one that shows a token",
    )
    plaintext_on_public_addresses: Literal["no", "i-know-that-mail-and-tokens-can-be-read-on-the-way"] = (
        Field("no", description="listen without TLS elsewhere than on loopback")
    )
    identities: tuple[GrpcIdentityConfig, ...] = Field(
        (GrpcIdentityConfig(name="local", peers=("unix", "loopback")),), description="who may call what"
    )
    policies: tuple[str, ...] = Field(
        (),
        description="further policies that callers may name, besides the one that runs and the shipped ones: files, named by their last part without .yaml",
    )
    max_message: Annotated[Size, _octets_within(1024, 1 << 30)] = Field(
        64 << 20, description="the largest message sent whole, and the largest item of a stream"
    )
    max_upload: Annotated[Size, _octets_within(1024, MAX_SIZE)] = Field(
        256 << 20, description="the largest message sent in pieces"
    )
    max_calls: Count = Field(
        1000,
        ge=1,
        le=100_000,
        description="calls at a time in each worker; further ones are RESOURCE_EXHAUSTED",
    )
    stream_window: Count = Field(
        16,
        ge=1,
        le=1000,
        description="messages of one stream at work at a time; further ones are not read yet",
    )
    max_connection_age: Annotated[Duration, _within(1, MAX_DURATION)] = Field(
        1800.0,
        description="after about this long a connection is asked to be made anew, which spreads clients over workers",
    )
    idle_timeout: Annotated[Duration, _within(1, MAX_DURATION)] = Field(
        3600.0, description="a connection without calls is closed after this long"
    )
    drain: Annotated[Duration, _within(0, 3600)] = Field(
        30.0, description="on reload of these settings and on stop, calls may go on for this long"
    )

    @model_validator(mode="after")
    def _is_safe(self) -> GrpcConfig:
        if bool(self.certificate) != bool(self.key):
            given, other = ("certificate", "key") if self.certificate else ("key", "certificate")
            raise _grpc_error("{given} needs {other}, too", at=given, given=given, other=other)
        if self.client_ca and not self.certificate:
            raise _grpc_error(
                "client_ca needs certificate and key: client certificates are part of TLS", at="client_ca"
            )
        if not self.certificate and self.plaintext_on_public_addresses != _PLAINTEXT:
            for text in self.listen:
                if not _stays_on_this_machine(text):
                    raise _grpc_error(
                        "{text} can be reached from other machines and has no TLS: give certificate and key, or "
                        "listen on 127.0.0.1, [::1] or a unix socket",
                        at="listen", text=text,
                    )  # fmt: skip
        names: set[str] = set()
        tokens: set[str] = set()
        certificates: set[str] = set()
        for identity in self.identities:
            if identity.name in names:
                raise _grpc_error("two callers are named {name}", at="identities", name=identity.name)
            if tokens & {*identity.tokens} or certificates & {*identity.certificates}:
                raise _grpc_error(
                    "{name} is known by the same token or certificate as another",
                    at="identities",
                    name=identity.name,
                )
            if identity.certificates and not self.client_ca:
                raise _grpc_error(
                    "{name} is known by a certificate, which needs client_ca",
                    at="identities",
                    name=identity.name,
                )
            names.add(identity.name)
            tokens |= {*identity.tokens}
            certificates |= {*identity.certificates}
        for peer in ("unix", "loopback"):
            if sum(peer in identity.peers for identity in self.identities) > 1:
                raise _grpc_error(
                    "two callers are known by the same peers: {peer}", at="identities", peer=peer
                )
        return self


def _grpc_error(message: str, *, at: str, **context: str) -> PydanticCustomError:
    return PydanticCustomError("grpc", message, {**context, "at": at})


def _stays_on_this_machine(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    if listen.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: nobody knows where it leads


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


class RotationConfig(_Section):
    """Keys that are made, used and retired in turn by `authmilter keys rotate`."""

    domains: Annotated[tuple[PatternText, ...], AfterValidator(_not_empty), AfterValidator(_no_repeats)] = (
        Field(
            description="author domains: example.com, or *.example.com for all below it",
            json_schema_extra={"minItems": 1},
        )
    )
    folder: str = Field(
        description="where the keys and their state are, relative to this file; a folder for each entry"
    )
    selector: Annotated[str, AfterValidator(_selector_template)] = Field(
        "{kind}-{date}",
        description="how selectors are made: text with any of {kind}, {date}, {year}, {month}",
    )
    kinds: Annotated[
        tuple[Literal["rsa", "ed25519"], ...], AfterValidator(_not_empty), AfterValidator(_no_repeats)
    ] = Field(
        ("rsa", "ed25519"),
        description="which keys; with both, every message gets two signatures",
        json_schema_extra={"minItems": 1},
    )
    rsa_bits: Count = Field(2048, ge=2048, le=4096, description="size of RSA keys")
    every: Duration | None = Field(
        180 * 86400.0, description="keys of this age are replaced; null: only by `keys rotate begin`"
    )
    propagation: Duration = Field(
        3600.0, description="a new key is used once the DNS has shown it for this long"
    )
    grace: Duration = Field(2 * 86400.0, description="the old and the new key both sign for this long")
    queue_life: Duration = Field(
        7 * 86400.0,
        description="how long mail may wait in queues: the old key's records stay for this long after",
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
    rotation: tuple[RotationConfig, ...] = Field(
        (),
        description="domains whose keys take turns (`authmilter keys rotate`); asked before the tables above",
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


class InboundSealConfig(_Section):
    """Sealing as mail comes in."""

    recipients: tuple[RecipientText, ...] = Field(
        (), description="recipients whose mail goes on to other hosts: user@example.com, *@example.com, *"
    )
    on_dns_failure: Literal["tempfail", "no-seal"] = Field(
        "tempfail",
        description="mail for these recipients whose chain could not be checked: 451, or passed on without a seal",
    )


class OutboundSealConfig(_Section):
    """Sealing of what a trusted hop brings back."""

    recipients: tuple[RecipientText, ...] = Field(
        (), description="the list's or filter's recipients, whose mail comes back by a trusted hop"
    )
    secret: str = Field(
        "",
        description="file of secrets, one a line, of 32 characters at least: the first makes keyed ids, all are accepted",
    )
    max_age: Annotated[Duration, _within(60, MAX_DURATION)] = Field(
        30 * 86400.0, description="mail that comes back later than this is not sealed"
    )


class SealConfig(_Section):
    """ARC sets made by us; without recipients nothing is sealed."""

    domain: DomainText | None = Field(None, description="d= of our seals")
    selector: str = Field("", description="s= of our seals")
    key: str = Field("", description="the private key's file (RSA), relative to this file")
    inbound: InboundSealConfig = Field(InboundSealConfig(), description="sealing as mail comes in")
    outbound: OutboundSealConfig = Field(
        OutboundSealConfig(), description="sealing of what a trusted hop brings back"
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> SealConfig:
        if not self.inbound.recipients and not self.outbound.recipients:
            return self
        wanted = {"domain": self.domain, "selector": self.selector, "key": self.key}
        if self.outbound.recipients:
            wanted["outbound.secret"] = self.outbound.secret
        missing = [name for name, value in wanted.items() if not value]
        if missing:
            raise PydanticCustomError(
                "unknowable",
                "sealing needs {missing}",
                {"missing": ", ".join(f"`{name}`" for name in missing)},
            )
        return self


class ArcConfig(_Section):
    """ARC, RFC 8617; docs/arc.md."""

    trusted_sealers: tuple[SealerText, ...] = Field(
        (),
        description="sealers whose results are believed: example.com, *.example.com for all below it, or a file (a path with a / or ending in .txt) with one a line",
    )
    seal: SealConfig = Field(
        SealConfig(), description="ARC sets of our own; nothing is sealed without recipients"
    )


class BimiConfig(_Section):
    """Logos of senders (draft-brand-indicators-for-message-identification-12)."""

    enabled: bool = Field(False, description="look for logos; off: no question is asked, no field is written")
    require_evidence: bool = Field(
        True, description="only show a logo that a mark certificate (VMC or CMC) vouches for"
    )
    require_dkim: bool = Field(
        True, description="ask for an aligned DKIM signature over the whole body; SPF alone is not enough"
    )
    selectors: bool = Field(
        True,
        description="follow a signed BIMI-Selector and `lps=`; else only the record named `default` counts",
    )
    mark_types: Annotated[
        tuple[
            Literal["Registered Mark", "Government Mark", "Prior Use Mark", "Modified Registered Mark"], ...
        ],
        AfterValidator(_not_empty),
    ] = Field(
        ("Registered Mark", "Government Mark", "Prior Use Mark", "Modified Registered Mark"),
        description="mark types accepted; the first two are those of a VMC, the others of a CMC",
    )
    trust_roots: tuple[str, ...] = Field(
        (),
        description="PEM files with the roots of mark certificates, relative to this file; none are shipped",
    )
    write_indicator: bool = Field(
        True, description="write the logo itself into BIMI-Indicator (up to 60 KB a message)"
    )
    cache_folder: Annotated[str, AfterValidator(_absolute)] = Field(
        "", description="absolute path of the folder that keeps fetched documents; empty: in memory only"
    )
    cache_ttl: Annotated[Duration, _within(60, MAX_DURATION)] = Field(
        86400.0, description="fetch a document again after this long"
    )
    fetch_timeout: Annotated[Duration, _within(0.1, 120)] = Field(
        10.0, description="the longest that fetching one document may take; no message waits for it"
    )
    max_svg: Annotated[Size, _octets_within(1 << 10, 1 << 20)] = Field(
        32 << 10, description="octets of a logo, as fetched and uncompressed"
    )
    max_certificate: Annotated[Size, _octets_within(1 << 10, 4 << 20)] = Field(
        128 << 10, description="octets of a mark certificate file"
    )
    crl: bool = Field(True, description="ask the revocation list of a mark certificate")


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
    arc: ArcConfig = ArcConfig()
    bimi: BimiConfig = BimiConfig()
    signing: SigningConfig = SigningConfig()
    headers: HeaderConfig = HeaderConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    control: ControlConfig = ControlConfig()

    def as_document(self) -> dict[str, Any]:
        """Return the effective settings as plain data, defaults included."""
        return self.model_dump(mode="json")
