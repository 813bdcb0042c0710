"""How a client reaches the service: the published service config, targets, TLS and tokens.

How it fails: `ValueError` for what cannot be meant, `OSError` for a file that cannot be read.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authmilter.rpc.methods import SERVICES

__all__ = ["SERVICE_CONFIG", "Access", "Tls", "bounded", "channel_options"]

#: What every client is asked to do, in gRPC's own form; also in proto/authmilter/v1/service_config.json.
SERVICE_CONFIG: Mapping[str, object] = {
    "methodConfig": [
        {
            "name": [{"service": name} for name in SERVICES],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # CANCELLED: what a server that ends says of calls that reached it in that very moment.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}
#: Octets of a request that are kept to be sent again: gRPC's own limit of 256 KB would leave larger mail without retry.
_RETRY_BUFFER = 80 << 20
_UNIX = ("unix:", "unix-abstract:")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS as a client has it; PEM as octets.

    `authorities` are those that the server's certificate is held against (None: those of the system). `certificate` with
    its chain and `key` are the client's own (mTLS). `server_name` is the name in the server's certificate, where
    it is not the target's.
    """

    authorities: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate needs its key, and a key its certificate")

    @classmethod
    def from_files(
        cls,
        *,
        authorities: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        server_name: str = "",
    ) -> Tls:
        """Return the same, read from PEM files.

        Raises:
            OSError: one cannot be read.
            ValueError: a certificate without its key.
        """
        return cls(
            authorities=_read(authorities),
            certificate=_read(certificate),
            key=_read(key),
            server_name=server_name,
        )


def _read(path: str | Path | None) -> bytes | None:
    return Path(path).read_bytes() if path is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the service is and how to be let in.

    Args:
        target: `unix:/path`, `HOST:PORT`, `[IPv6]:PORT`, or another form of gRPC's with its scheme (`dns:///HOST:PORT`).
        tls: TLS; None: in the clear.
        token: a bearer token.
        plaintext: a token may be sent in the clear to another machine.

    Raises:
        ValueError: no target, or a token that others could read on its way.
    """

    target: str
    tls: Tls | None = None
    token: str | None = None
    plaintext: bool = False

    def __post_init__(self) -> None:
        if not (self.target.startswith(_UNIX) or ":///" in self.target or _HOST.fullmatch(self.target)):
            raise ValueError("expected unix:/path, HOST:PORT or [IPv6]:PORT")
        if self.token is not None:
            if (
                not self.token
                or not self.token.isascii()
                or not self.token.isprintable()
                or " " in self.token
            ):
                raise ValueError("a token is printable US-ASCII without spaces")
            if self.tls is None and not self.plaintext and not self._stays_here():
                raise ValueError("the token could be read on its way: give TLS, or say plaintext")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What is sent with each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token is not None else ()

    def _stays_here(self) -> bool:
        if self.target.startswith(_UNIX):
            return True
        host = self.target.rpartition(":")[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def channel_options(access: Access) -> list[tuple[str, Any]]:
    """Return the options of a channel: the service config, sizes, quick reconnection, keepalive."""
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # A server that has gone without a word is found out.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Two clients are two connections, which may be to two workers.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if access.tls is not None and access.tls.server_name:
        options.append(("grpc.ssl_target_name_override", access.tls.server_name))
    return options


def bounded(timeout: float | None, default: float | None) -> float | None:
    """Return a call's deadline in seconds from now, None for none: what is given, else the client's own; inf is none."""
    chosen = default if timeout is None else timeout
    return None if chosen is None or chosen == float("inf") else chosen
