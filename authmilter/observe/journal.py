"""The journal: one structured line per message, and one per bug (room: structlog).

Neither call raises or waits. Strangers' text is escaped before it reaches a line: JSON does so by itself, the
console form shows `repr`-like text.

The line of a message is on every message's path, so it is put together as JSON piece by piece (`LogJournal._line`), each
text through the encoder of the standard library. That is its one definition: the console form is read from it.

structlog writes the console form, and is loaded for that form only: it loads rich and pygments, 4 MB in every service.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from typing import Protocol, TextIO, cast

from authmilter.arc.result import ArcStatus
from authmilter.mail import Mail
from authmilter.names import Address, AddressLiteral, Domain, IPAddress, LocalPart, Malformed, ReversePath
from authmilter.observe.counters import Counters
from authmilter.observe.lines import LineWriter
from authmilter.text import printable
from authmilter.verdict import Verdict

__all__ = ["Log", "LogJournal", "LogSettings", "make_log"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_to_json = json.JSONEncoder(ensure_ascii=True, default=str).encode

#: The key of an event that is a line already.
_MADE = "line_as_made"


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
    """Return a line as it is written; adds to `fields`. One that was made before is returned as it is."""
    made = fields.get(_MADE)
    if made is not None:
        return f"{made}\n"
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
        log: where lines go; made by `make_log`.
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
            if not self._plain:
                self._log.info("message", **json.loads(line + "}"))
                return
            # as `_json_line` would write it; it is the hot path, and this a small part of its price
            arrived = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            line = f'{line}, "event": "message", "level": "info", "timestamp": "{arrived}"}}'
            if self._lines is None:
                self._log.info("message", **{_MADE: line})
            else:
                self._lines.put(line + "\n")
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

    def _line(self, mail: Mail, verdict: Verdict, queue_id: str, listener: str) -> str:
        """Return what is said of a message as a JSON object, without the bracket at its end.

        Only words of closed lists and numbers stand in it as they are; all else goes through `_text`.
        """
        evidence, decision, session = verdict.evidence, verdict.decision, mail.session
        authors = mail.message.authors
        client, helo, author = session.client_ip, session.helo, authors.domain
        helo_text = "" if helo is None else helo.ascii if isinstance(helo, Domain) else str(helo)
        line = [
            f'{{"id": {_text(mail.id)}, "queue_id": {_text(printable(queue_id, 64))}',
            f', "listener": {_text(listener)}, "origin": "{mail.origin}"',
            f', "origin_because": {_text(verdict.origin_because)}',
            f', "client": "{_ip_text(client) if client is not None else ""}"',
            f', "helo": {_text(printable(helo_text, 256))}',
            f', "mail_from": {_text(self._path(mail.envelope.mail_from))}',
            f', "recipients": {len(mail.envelope.rcpt_to)}',
            f', "author": {_text(author.ascii) if author is not None else _NOBODY}',
        ]
        add = line.append
        if authors.problem is not None:
            add(f', "author_problem": "{authors.problem}"')
        if session.authenticated is not None:
            user = printable(session.authenticated, 128)
            add(f', "authenticated": {_text("*" if self._redact else user)}')
        if evidence.iprev is not None:
            add(f', "iprev": "{evidence.iprev.status}"')
        if evidence.spf_helo is not None:
            add(f', "spf_helo": "{evidence.spf_helo.status}"')
        if evidence.spf is not None:
            add(f', "spf": "{evidence.spf.status}"')
        if evidence.dkim is not None:
            signatures = [
                f"{r.status}:{r.domain.ascii if r.domain is not None else '-'}"
                + (f":{r.problem}" if r.problem is not None else "")
                for r in evidence.dkim
            ]
            add(f', "dkim": {_texts(signatures)}')
        arc = evidence.arc
        if arc is not None and arc.status is not ArcStatus.NONE:
            add(f', "arc": "{arc.status}"')
            if arc.problem is not None:
                add(f', "arc_problem": "{arc.problem}"')
            elif arc.sets:
                sealers = [s.sealer.ascii if s.sealer is not None else "-" for s in arc.sets[-5:]]
                add(f', "arc_sealers": {_texts(sealers)}')
        dmarc = evidence.dmarc
        if dmarc is not None:
            add(f', "dmarc": "{dmarc.status}"')
            if dmarc.policy is not None:
                add(f', "dmarc_policy": "{dmarc.policy}"')
            if dmarc.problem is not None:
                add(f', "dmarc_problem": "{dmarc.problem}"')
        if evidence.bimi is not None:
            add(f', "bimi": "{evidence.bimi.status}"')
            if evidence.bimi.problem is not None:
                add(f', "bimi_problem": "{evidence.bimi.problem}"')
        if verdict.sealing is not None or verdict.signing is not None:
            add(_signed(verdict))
        add(
            f', "disposition": "{decision.disposition}", "rule": {_text(decision.rule)}'
            f', "policy": {_text(decision.policy)}, "because": {_text(decision.because)}'
        )
        if decision.override is not None:
            add(f', "override": "{decision.override}"')
            if decision.override_comment:
                add(f', "override_comment": {_text(printable(decision.override_comment, 1000))}')
        if decision.reply is not None:
            reply = decision.reply
            # The text may repeat an address, or a domain's own explanation with one (macro `l`).
            said = f"{reply.code} {reply.enhanced}" if self._redact else str(reply)
            add(f', "reply": {_text(said)}')
        if decision.would_have:
            add(f', "would_have": {_texts([f"{w.disposition}:{w.rule}" for w in decision.would_have])}')
        asked, remembered = verdict.questions()
        add(
            f', "size": {mail.body.size}, "elapsed_ms": {verdict.elapsed_ms!r}'
            f', "dns_questions": {asked}, "dns_remembered": {remembered}'
        )
        return "".join(line)

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


_NOBODY = _text("")


@lru_cache(maxsize=4096)
def _ip_text(ip: IPAddress) -> str:
    """Return an address as text; Python works it out anew each time, and the same clients come again and again."""
    return str(ip)


def _texts(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, texts))}]"


def _signed(verdict: Verdict) -> str:
    """Return what is said of our own seal and signatures."""
    sealing, signing = verdict.sealing, verdict.signing
    said: dict[str, object] = {}
    if sealing is not None:
        said["sealing"] = (
            {"mode": sealing.mode, "reason": sealing.reason}
            if sealing.reason
            else {
                "mode": sealing.mode,
                "sealed": sealing.sealed,
                "instance": sealing.instance,
                "cv": sealing.cv,
            }
        )
    if signing is not None:
        said["signed"] = signing.signed
        said["signing_line"] = signing.line
        if signing.reason:
            said["not_signed"] = signing.reason
            if signing.detail:
                said["not_signed_detail"] = signing.detail
        if signing.risks:
            said["signing_risks"] = signing.risks
    return f", {json.dumps(said)[1:-1]}"
