"""The journal: one structured line per message, and one per bug (room: structlog).

Neither call raises or waits. Strangers' text is escaped before it reaches a line: JSON does so by itself, the
console form shows `repr`-like text.

structlog writes the console form, and is loaded for that form only: it loads rich and pygments, 4 MB in every service.
"""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TextIO, cast

from authmilter.arc.result import ArcStatus
from authmilter.mail import Mail
from authmilter.names import Address, AddressLiteral, LocalPart, Malformed, ReversePath
from authmilter.observe.counters import Counters
from authmilter.observe.lines import LineWriter
from authmilter.text import printable
from authmilter.verdict import Verdict

__all__ = ["Log", "LogJournal", "LogSettings", "make_log"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_to_json = json.JSONEncoder(ensure_ascii=True, default=str).encode


class Log(Protocol):
    """Writes a line: an event in a few words, and what belongs to it, by name. May raise what the stream raises."""

    def debug(self, event: str, **fields: object) -> object:
        """Write what only a developer wants to know."""

    def info(self, event: str, **fields: object) -> object:
        """Write what happened."""

    def warning(self, event: str, **fields: object) -> object:
        """Write what an administrator should look at."""

    def error(self, event: str, **fields: object) -> object:
        """Write what failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`format` json or console, `level` the least severe line written, `redact_local_parts` as it says."""

    format: str = "json"
    level: str = "info"
    redact_local_parts: bool = False


class _JsonLog:
    """A `Log` of lines in JSON, each written at once and flushed."""

    def __init__(self, out: TextIO, least: int) -> None:
        self._out = out
        self._least = least

    def debug(self, event: str, **fields: object) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        if _LEVELS[level] >= self._least:
            # one call, so that lines of other threads and processes do not get between
            self._out.write(_json_line(event, level, fields))
            self._out.flush()


def _json_line(event: str, level: str, fields: dict[str, object]) -> str:
    """Return a line as it is written; adds to `fields`."""
    fields["event"] = event
    fields["level"] = level
    fields["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return _to_json(fields) + "\n"


def make_log(settings: LogSettings, stream: TextIO | None = None) -> Log:
    """Return a logger that writes to `stream` (default: standard error, where service managers look)."""
    out = stream if stream is not None else sys.stderr
    if settings.format == "json":
        return _JsonLog(out, _LEVELS[settings.level])
    import structlog  # noqa: PLC0415 - only where people read the lines

    logger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        cache_logger_on_first_use=True,
    )
    return cast("Log", logger)


class LogJournal:
    """Implements `ports.Journal` over a logger and counters.

    Args:
        log: where lines go.
        settings: how.
        counters: what is counted besides.

    Lines are written one by one, until `write_through` gives them a `LineWriter`.
    """

    __slots__ = ("_level", "_lines", "_log", "_plain", "_redact", "counters")

    def __init__(self, log: Log, settings: LogSettings, counters: Counters | None = None) -> None:
        self._log = log
        self._redact = settings.redact_local_parts
        self._level = _LEVELS[settings.level]
        self._plain = settings.format == "json"
        self._lines: LineWriter | None = None
        self.counters = counters if counters is not None else Counters()

    def write_through(self, lines: LineWriter | None) -> None:
        """Write the lines of messages with `lines`; None: one by one again. The console format always is."""
        self._lines = lines

    def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:
        """Count the message and write its line."""
        try:
            self.counters.count(mail, verdict)
            if self._level > _LEVELS["info"]:
                return
            line = self._line(mail, verdict, queue_id, listener)
            if self._lines is None or not self._plain:
                self._log.info("message", **line)
                return
            self._lines.put(_json_line("message", "info", line))
        except Exception as e:  # noqa: BLE001 - a full disk or closed pipe must not cost a mail
            self.counters.add("journal_failures")
            del e

    def bug(self, where: str, error: BaseException) -> None:
        """Count an unforeseen exception and write its traceback."""
        self.counters.add(f"bugs{{where={where}}}")
        try:
            text = "".join(traceback.format_exception(error, limit=-20))
            self._log.error("bug", where=where, error=type(error).__name__, traceback=printable(text, 8000))
        except Exception as e:  # noqa: BLE001 - as above
            self.counters.add("journal_failures")
            del e

    def _line(self, mail: Mail, verdict: Verdict, queue_id: str, listener: str) -> dict[str, object]:
        evidence, decision, session = verdict.evidence, verdict.decision, mail.session
        authors = mail.message.authors
        line: dict[str, object] = {
            "id": mail.id,
            "queue_id": printable(queue_id, 64),
            "listener": listener,
            "origin": mail.origin.value,
            "origin_because": verdict.origin_because,
            "client": str(session.client_ip) if session.client_ip is not None else "",
            "helo": printable(str(session.helo), 256) if session.helo is not None else "",
            "mail_from": self._path(mail.envelope.mail_from),
            "recipients": len(mail.envelope.rcpt_to),
            "author": authors.domain.ascii if authors.domain is not None else "",
        }
        if authors.problem is not None:
            line["author_problem"] = authors.problem.value
        if session.authenticated is not None:
            user = printable(session.authenticated, 128)
            line["authenticated"] = "*" if self._redact else user
        if evidence.iprev is not None:
            line["iprev"] = evidence.iprev.status.value
        if evidence.spf_helo is not None:
            line["spf_helo"] = evidence.spf_helo.status.value
        if evidence.spf is not None:
            line["spf"] = evidence.spf.status.value
        if evidence.dkim is not None:
            line["dkim"] = [
                f"{r.status.value}:{r.domain.ascii if r.domain else '-'}"
                + (f":{r.problem.value}" if r.problem else "")
                for r in evidence.dkim
            ]
        arc = evidence.arc
        if arc is not None and arc.status is not ArcStatus.NONE:
            line["arc"] = arc.status.value
            if arc.problem is not None:
                line["arc_problem"] = arc.problem.value
            elif arc.sets:
                line["arc_sealers"] = [s.sealer.ascii if s.sealer is not None else "-" for s in arc.sets[-5:]]
        if evidence.dmarc is not None:
            line["dmarc"] = evidence.dmarc.status.value
            if evidence.dmarc.policy is not None:
                line["dmarc_policy"] = evidence.dmarc.policy.value
            if evidence.dmarc.problem is not None:
                line["dmarc_problem"] = evidence.dmarc.problem.value
        if evidence.bimi is not None:
            line["bimi"] = evidence.bimi.status.value
            if evidence.bimi.problem is not None:
                line["bimi_problem"] = evidence.bimi.problem.value
        sealing = verdict.sealing
        if sealing is not None:
            line["sealing"] = (
                {"mode": sealing.mode, "reason": sealing.reason}
                if sealing.reason
                else {
                    "mode": sealing.mode,
                    "sealed": sealing.sealed,
                    "instance": sealing.instance,
                    "cv": sealing.cv,
                }
            )
        signing = verdict.signing
        if signing is not None:
            line["signed"] = list(signing.signed)
            line["signing_line"] = signing.line
            if signing.reason:
                line["not_signed"] = signing.reason
                if signing.detail:
                    line["not_signed_detail"] = signing.detail
            if signing.risks:
                line["signing_risks"] = list(signing.risks)
        line["disposition"] = decision.disposition.value
        line["rule"] = decision.rule
        line["policy"] = decision.policy
        line["because"] = decision.because
        if decision.override is not None:
            line["override"] = decision.override.value
            if decision.override_comment:
                line["override_comment"] = printable(decision.override_comment, 1000)
        if decision.reply is not None:
            reply = decision.reply
            # The text may repeat an address, or a domain's own explanation with one (macro `l`).
            line["reply"] = f"{reply.code} {reply.enhanced}" if self._redact else str(reply)
        if decision.would_have:
            line["would_have"] = [f"{w.disposition.value}:{w.rule}" for w in decision.would_have]
        line["size"] = mail.body.size
        line["elapsed_ms"] = verdict.elapsed_ms
        line["dns_questions"] = sum(s.questions for s in verdict.trace)
        line["dns_remembered"] = sum(s.remembered for s in verdict.trace)
        return line

    def _path(self, path: ReversePath) -> str:
        if self._redact:
            if isinstance(path, Address):
                return f"*@{path.domain.ascii}"
            if isinstance(path, AddressLiteral):
                return str(AddressLiteral("*", path.ip))
            if isinstance(path, LocalPart):
                return "*"
            if isinstance(path, Malformed):
                return "malformed"
        return printable(str(path), 320)
