"""The journal: one structured line per message, and one per bug (room: structlog).

Neither call raises or waits. Strangers' text is escaped before it reaches a line: JSON does so by itself, the
console form shows `repr`-like text.

The line of a message is on every message's path, so it is put together as JSON piece by piece (`LogJournal._line`), each
text through the encoder of the standard library. That is its one definition: the console form is read from it. Pieces
that say the same of many messages are kept ready; none of them holds a local part or a text without a bound.

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

from authmilter.arc.result import ArcResult, ArcStatus
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import DmarcPolicy, DmarcProblem, DmarcStatus
from authmilter.iprev.result import IprevStatus
from authmilter.mail import Mail, Origin
from authmilter.names import Address, AddressLiteral, Domain, IPAddress, LocalPart, Malformed, ReversePath
from authmilter.observe.counters import Counters
from authmilter.observe.lines import LineWriter
from authmilter.spf.result import SpfStatus
from authmilter.text import printable
from authmilter.verdict import Disposition, Verdict

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

    __slots__ = ("_lines", "_log", "_plain", "_redact", "_told", "counters")

    def __init__(self, log: Log, settings: LogSettings, counters: Counters | None = None) -> None:
        self._log = log
        self._redact = settings.redact_local_parts
        self._told = _LEVELS[settings.level] <= _LEVELS["info"]
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
            if not self._told:
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
        evidence, decision, session, envelope = (
            verdict.evidence,
            verdict.decision,
            mail.session,
            mail.envelope,
        )
        authors, helo, path = mail.message.authors, session.helo, envelope.mail_from
        if isinstance(helo, Domain):
            whence = _whence(listener, mail.origin, verdict.origin_because, session.client_ip, helo.ascii)
        else:
            # what is no domain may be long, and is kept nowhere
            said = "" if helo is None else str(helo)
            whence = _read_whence(listener, mail.origin, verdict.origin_because, session.client_ip, said)
        author = authors.domain
        who = f', "author": {_text(author.ascii) if author is not None else _NOBODY}'
        if authors.problem is not None:
            who += f', "author_problem": "{authors.problem}"'
        if session.authenticated is not None:
            who += f', "authenticated": {_text("*") if self._redact else _shown(session.authenticated, 128)}'
        iprev, spf_helo, spf = evidence.iprev, evidence.spf_helo, evidence.spf
        results = _sender_results(
            iprev.status if iprev is not None else None,
            spf_helo.status if spf_helo is not None else None,
            spf.status if spf is not None else None,
        )
        if evidence.dkim is not None:
            results += _signatures(evidence.dkim)
        arc = evidence.arc
        if arc is not None and arc.status is not _NO_CHAIN:
            results += _chain(arc)
        dmarc = evidence.dmarc
        if dmarc is not None:
            results += _dmarc(dmarc.status, dmarc.policy, dmarc.problem)
        if evidence.bimi is not None:
            results += f', "bimi": "{evidence.bimi.status}"'
            if evidence.bimi.problem is not None:
                results += f', "bimi_problem": "{evidence.bimi.problem}"'
        if verdict.sealing is not None or verdict.signing is not None:
            results += _signed(verdict)
        decided = _decided(decision.disposition, decision.rule, decision.policy, decision.because)
        if decision.override is not None:
            decided += f', "override": "{decision.override}"'
            if decision.override_comment:
                decided += f', "override_comment": {_shown(decision.override_comment, 1000)}'
        if decision.reply is not None:
            reply = decision.reply
            # The text may repeat an address, or a domain's own explanation with one (macro `l`).
            said = f"{reply.code} {reply.enhanced}" if self._redact else str(reply)
            decided += f', "reply": {_text(said)}'
        if decision.would_have:
            decided += f', "would_have": {_texts([f"{w.disposition}:{w.rule}" for w in decision.would_have])}'
        asked, remembered = verdict.questions()
        return (
            f'{{"id": {_text(mail.id)}, "queue_id": {_shown(queue_id, 64)}{whence}'
            f', "mail_from": {_shown(_redacted(path) if self._redact else str(path), 320)}'
            f', "recipients": {len(envelope.rcpt_to)}{who}{results}{decided}'
            f', "size": {mail.body.size}, "elapsed_ms": {verdict.elapsed_ms!r}'
            f', "dns_questions": {asked}, "dns_remembered": {remembered}'
        )


_NOBODY = _text("")
_NO_CHAIN = ArcStatus.NONE


def _shown(text: str, limit: int) -> str:
    """Return a stranger's text as `printable` shows it, as JSON."""
    if len(text) <= limit:
        made = _text(text)
        # What JSON has nothing to escape in, `printable` has not either.
        if len(made) == len(text) + 2:
            return made
    return _text(printable(text, limit))


def _redacted(path: ReversePath) -> str:
    """Return a reverse-path as text without its local part."""
    if isinstance(path, Address):
        return f"*@{path.domain.ascii}"
    if isinstance(path, AddressLiteral):
        return str(AddressLiteral("*", path.ip))
    if isinstance(path, LocalPart):
        return "*"
    return "malformed" if isinstance(path, Malformed) else str(path)


# -- pieces of the line that come again and again, and are kept as they are written ----------------------------------


def _read_whence(listener: str, origin: Origin, because: str, client: IPAddress | None, helo: str) -> str:
    return (
        f', "listener": {_text(listener)}, "origin": "{origin}", "origin_because": {_text(because)}'
        f', "client": "{client if client is not None else ""}", "helo": {_shown(helo, 256)}'
    )


_whence = lru_cache(maxsize=4096)(_read_whence)


@lru_cache(maxsize=1024)
def _sender_results(iprev: IprevStatus | None, spf_helo: SpfStatus | None, spf: SpfStatus | None) -> str:
    asked = (("iprev", iprev), ("spf_helo", spf_helo), ("spf", spf))
    return "".join([f', "{method}": "{status}"' for method, status in asked if status is not None])


def _signatures(results: tuple[DkimResult, ...]) -> str:
    said = ""
    for result in results:
        domain = result.domain
        said += _signature(result.status, domain.ascii if domain is not None else "-", result.problem)
    # (each is said with a comma before it)
    return f', "dkim": [{said[2:]}]'


@lru_cache(maxsize=4096)
def _signature(status: DkimStatus, domain: str, problem: DkimProblem | None) -> str:
    said = f"{status}:{domain}"
    return f", {_text(said if problem is None else f'{said}:{problem}')}"


def _chain(result: ArcResult) -> str:
    said = f', "arc": "{result.status}"'
    if result.problem is not None:
        said += f', "arc_problem": "{result.problem}"'
    elif result.sets:
        sealers = [s.sealer.ascii if s.sealer is not None else "-" for s in result.sets[-5:]]
        said += f', "arc_sealers": {_texts(sealers)}'
    return said


@lru_cache(maxsize=1024)
def _dmarc(status: DmarcStatus, policy: DmarcPolicy | None, problem: DmarcProblem | None) -> str:
    said = f', "dmarc": "{status}"'
    if policy is not None:
        said += f', "dmarc_policy": "{policy}"'
    if problem is not None:
        said += f', "dmarc_problem": "{problem}"'
    return said


@lru_cache(maxsize=1024)
def _decided(disposition: Disposition, rule: str, policy: str, because: str) -> str:
    return (
        f', "disposition": "{disposition}", "rule": {_text(rule)}'
        f', "policy": {_text(policy)}, "because": {_text(because)}'
    )


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
