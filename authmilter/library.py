"""authmilter as a library: load once, judge messages.

    from authmilter import load_runtime, verify_message

    runtime = load_runtime(policy="enforce")
    verdict = verify_message(raw, runtime, client_ip="192.0.2.1", helo="mx.example.com", mail_from="a@example.com")
    print(verdict.decision.disposition, verdict.evidence.dmarc)

The same road as the milter's; `authmilter.engine.verify` is the asyncio form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from authmilter import engine, runtime
from authmilter.config import load as config_load
from authmilter.dns.cache import CachingResolver
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime
from authmilter.errors import DecodeError
from authmilter.mail import Envelope, Session
from authmilter.message import normalize_line_endings
from authmilter.names import parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.ports import Journal
from authmilter.verdict import Verdict

__all__ = ["load_runtime", "verify_message"]


def load_runtime(
    config: str | Path | None = None,
    *,
    policy: str | None = None,
    zone: Mapping[str, object] | None = None,
    journal: Journal | None = None,
) -> Runtime:
    """Read the configuration and return what judging needs.

    Args:
        config: the configuration file; default: as the service chooses it, without one the defaults.
        policy: monitor, enforce, strict or a policy file; default: the configured one.
        zone: answer DNS from this mapping (see `authmilter.dns.zone`) instead of the network.
        journal: told of each verdict and bug; default: log lines as configured.

    Raises:
        ConfigError, PolicyError: something cannot be used; lists every mistake.
        DecodeError: `zone` is not a zone.
    """
    loaded = config_load.load(config)
    return runtime.build(
        loaded,
        journal=journal,
        resolver=ZoneResolver(zone) if zone is not None else None,
        policy=runtime.load_policy(loaded, policy) if policy is not None else None,
    )


def verify_message(
    raw: bytes,
    built: Runtime,
    *,
    client_ip: str | None = None,
    helo: str | None = None,
    mail_from: str = "",
    rcpt_to: Sequence[str] = (),
    received_at: datetime | None = None,
) -> Verdict:
    """Judge one message and wait for the verdict (not from within a running event loop).

    Args:
        raw: the message; a file with bare LF line ends is read as SMTP would carry it.
        built: from `load_runtime`.
        client_ip: the client's address; without it SPF and iprev are not asked.
        helo: the HELO or EHLO argument.
        mail_from: the reverse-path, with or without its brackets; empty: the null path.
        rcpt_to: the recipients.
        received_at: judge as of this time (with its zone); default: now.

    Raises:
        DecodeError: `client_ip` is no IP address.
    """
    ip = parse_ip(client_ip) if client_ip is not None else None
    if client_ip is not None and ip is None:
        raise DecodeError("client_ip is no IP address")

    async def judge() -> Verdict:
        try:
            _mail, verdict = await engine.verify(
                normalize_line_endings(raw),
                built,
                session=Session(client_ip=ip, helo=parse_helo(helo) if helo else None),
                envelope=Envelope(
                    mail_from=parse_reverse_path(mail_from),
                    rcpt_to=tuple(parse_recipient(r) for r in rcpt_to),
                ),
                received_at=received_at,
            )
        finally:
            if isinstance(built.resolver, CachingResolver):
                built.resolver.close()  # its sockets belong to this call's event loop; its answers stay
        return verdict

    return asyncio.run(judge())
