"""The whole road in one call: a message and its session as text, a zone, a configuration; mail and verdict come out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from authmilter import engine, runtime
from authmilter.config.load import Loaded, parse
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime
from authmilter.mail import Envelope, Mail, Session
from authmilter.names import parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.ports import Journal, Resolver
from authmilter.verdict import Verdict

__all__ = ["NOW", "Notes", "a_runtime", "travel"]

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Notes:
    """A journal that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[tuple[Mail, Verdict]] = []
        self.bugs: list[tuple[str, BaseException]] = []

    def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:  # noqa: ARG002 - the port's shape
        self.records.append((mail, verdict))

    def bug(self, where: str, error: BaseException) -> None:
        self.bugs.append((where, error))


def a_runtime(config: str, zone: Mapping[str, object] | Resolver, notes: Journal | None = None) -> Runtime:
    """Build a runtime from the text of a configuration, at a fixed time."""
    loaded = Loaded(config=parse(config, "test.yaml"), path=None, base=Path.cwd())
    resolver = ZoneResolver(zone) if isinstance(zone, Mapping) else zone
    built = runtime.build(loaded, journal=notes if notes is not None else Notes(), resolver=resolver)
    return replace(built, now=lambda: NOW, new_id=lambda: "TESTID")


def travel(
    message: bytes,
    built: Runtime,
    *,
    mail_from: str,
    helo: str | None,
    client_ip: str | None,
    rcpt_to: tuple[str, ...] = ("<user@recv.example>",),
    login: str | None = None,
) -> tuple[Mail, Verdict]:
    """Judge a message as `engine.verify` does."""
    session = Session(
        client_ip=parse_ip(client_ip) if client_ip is not None else None,
        helo=parse_helo(helo) if helo is not None else None,
        authenticated=login,
    )
    envelope = Envelope(
        mail_from=parse_reverse_path(mail_from), rcpt_to=tuple(parse_recipient(r) for r in rcpt_to)
    )
    return asyncio.run(engine.verify(message, built, session=session, envelope=envelope))
