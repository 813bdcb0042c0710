"""One private Postfix in front of several services: one for each engine and configuration, each on its own port.

What passes through different services of a rig has passed through the same mail server, so that what is delivered
can be compared byte for byte.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.support.postfix import Delivered, PrivatePostfix, SmtpClient, SmtpResult, free_port
from tests.support.service import Service

__all__ = ["ENGINES", "Line", "Rig", "settled"]

ENGINES = ("native", "libmilter")

_VARIABLE = (
    (re.compile(rb"(\bid )[0-9A-F]{9,12}\b"), rb"\1QUEUEID"),  # Postfix's
    (re.compile(rb"(\bid )[0-9A-HJKMNP-TV-Z]{16}\b"), rb"\1MAILID"),  # ours
    (re.compile(rb"[A-Z][a-z]{2}, +\d+ [A-Z][a-z]{2} \d{4} [\d:]{8} \+0000 \(UTC\)"), b"DATE"),
)


def settled(octets: bytes) -> bytes:
    """Return a header block (or a reply) with ids and the mail server's dates replaced by words."""
    for pattern, word in _VARIABLE:
        octets = pattern.sub(word, octets)
    return octets


@dataclass(frozen=True, slots=True)
class Line:
    """A way through the rig: an SMTP port, and the service behind it."""

    rig: Rig
    port: int
    service: Service

    @property
    def postfix(self) -> PrivatePostfix:
        """The mail server."""
        return self.rig.postfix

    def session(self, helo: str = "mail.sender.example", *, client_ip: str = "192.0.2.1") -> SmtpClient:
        """Open an SMTP session that has said EHLO."""
        client = SmtpClient(self.port)
        client.hello(helo, client_ip=client_ip)
        return client

    def send(self, message: bytes, **about: Any) -> SmtpResult:
        """Send one message; see `PrivatePostfix.send`."""
        return self.postfix.send(message, port=self.port, **about)

    def deliver(self, message: bytes, *, code: int = 250, count: int = 1, **about: Any) -> Delivered:
        """Send one message, which must be accepted, and return it as delivered (of several copies the first)."""
        said = self.send(message, **about)
        assert said.code == code, f"{said}\n{self.service.log_text()[-2000:]}"
        return self.postfix.delivered(count)[0]

    def logged(self) -> dict[str, Any]:
        """The service's last line about a message."""
        return self.service.log_lines()[-1]


class Rig:
    """Start with `with`.

    Args:
        services: name -> arguments of `Service`, without the engine.
        engines: a service is started for each of these.
        extra: further main.cf settings.
        master: further master.cf lines. In these and in `extra`, `{port NAME}` stands for the port of a new service
            of that name, `{milter NAME ENGINE}` for where a service listens, `{line NAME ENGINE}` for the SMTP port
            before it.
        smtpd: service name -> further options (`-o key=value`) of its smtpd.
    """

    def __init__(
        self,
        services: Mapping[str, Mapping[str, Any]],
        *,
        engines: Sequence[str] = ENGINES,
        extra: Mapping[str, str] | None = None,
        master: Sequence[str] = (),
        smtpd: Mapping[str, str] | None = None,
    ) -> None:
        self._services = services
        self._engines = tuple(engines)
        self._extra = dict(extra or {})
        self._master = tuple(master)
        self._smtpd = smtpd or {}
        self._stack = contextlib.ExitStack()
        self._lines: dict[tuple[str, str], Line] = {}
        self._ports: dict[str, int] = {}
        self.postfix: PrivatePostfix

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            rows = []
            for name, arguments in self._services.items():
                for engine in self._engines:
                    service = stack.enter_context(Service(engine=engine, **arguments))
                    line = self._lines[name, engine] = Line(self, free_port(), service)
                    rows.append(
                        f"127.0.0.1:{line.port} inet n - n - 250 smtpd -o smtpd_milters={service.for_postfix} "
                        + self._smtpd.get(name, "")
                    )
            rows += [self._filled(row) for row in self._master]
            first = next(iter(self._lines.values()))
            extra = {name: self._filled(value) for name, value in self._extra.items()}
            self.postfix = stack.enter_context(
                PrivatePostfix(milter=first.service.for_postfix, extra=extra, services=tuple(rows))
            )
            # Each takes some seconds to end: told at once, they end together.
            stack.callback(self._end_services)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def line(self, name: str, engine: str) -> Line:
        """The way through one service."""
        return self._lines[name, engine]

    def port(self, name: str) -> int:
        """The port of a `{port NAME}` in the master.cf lines."""
        return self._ports[name]

    def _filled(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            kind, _, name = found.group(1).partition(" ")
            if kind == "port":
                return str(self._ports.setdefault(name, 0) or self._new_port(name))
            line = self._lines[name.split(" ")[0], name.split(" ")[1]]
            return line.service.for_postfix if kind == "milter" else str(line.port)

        return re.sub(r"\{((?:port|milter|line) [^{}]+)\}", value, text)

    def _new_port(self, name: str) -> int:
        port = self._ports[name] = free_port()
        return port

    def _end_services(self) -> None:
        for line in self._lines.values():
            line.service.process.terminate()
