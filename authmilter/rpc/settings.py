"""What the gRPC door is told: who may call what, its limits and its certificates. Values only; grpc is not loaded.

`authmilter.runtime.grpc_settings` makes them of the configuration.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from authmilter.mail import Origin

__all__ = ["Identity", "Peers", "Permission", "RpcSettings", "TlsFiles", "token_hash"]


class Permission(StrEnum):
    """What a caller may do; each service asks for one."""

    VERIFY = "verify"
    SIGN = "sign"
    ADMIN = "admin"


class Peers(StrEnum):
    """Callers that are known by where they connect."""

    #: who can open the unix socket
    UNIX = "unix"
    #: everybody on this machine, on a port without TLS
    LOOPBACK = "loopback"


def token_hash(token: bytes) -> str:
    """Return the hash of a bearer token as the configuration writes it: `sha256:` and 64 hexadecimal digits.

    Tokens are random and long, so that a fast hash is enough: there is nothing to guess.
    """
    return "sha256:" + hashlib.sha256(token).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller: how he is known, and what he may do.

    `tokens` are hashes as `token_hash` writes them, `certificates` names in a client certificate. `rate` is in messages
    (or questions) a second in all processes together, `burst` how many may come at once, `concurrency` how many are at
    work at a time in each process; 0: no limit.
    """

    name: str
    tokens: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()
    peers: frozenset[Peers] = frozenset()
    permissions: frozenset[Permission] = frozenset({Permission.VERIFY})
    authserv_ids: frozenset[str] = frozenset()
    origins: frozenset[Origin] = frozenset()
    inline_zone: bool = False
    rate: float = 0.0
    burst: float = 0.0
    concurrency: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files: the certificate with its chain, its key, and the authorities of client certificates:
    given, every client needs one of theirs (grpcio cannot ask for a certificate without requiring it)."""

    certificate: str
    key: str
    client_ca: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcSettings:
    """All of it. Sizes are in octets, times in seconds.

    `plaintext_anywhere`: without `tls`, listen on addresses that other machines reach, too. `stream_window`: messages
    of one stream that are at work at a time. `max_chunk`: a piece of an upload. `upload_pause`: how long a client
    may take for the next one. `processes` divide the rates among them.
    """

    identities: tuple[Identity, ...] = (Identity(name="local", peers=frozenset(Peers)),)
    tls: TlsFiles | None = None
    plaintext_anywhere: bool = False
    socket_mode: int = 0o660
    max_message: int = 64 << 20
    max_upload: int = 256 << 20
    max_chunk: int = 4 << 20
    max_calls: int = 1000
    stream_window: int = 16
    upload_pause: float = 60.0
    max_connection_age: float = 1800.0
    idle_timeout: float = 3600.0
    drain: float = 30.0
    processes: int = 1
