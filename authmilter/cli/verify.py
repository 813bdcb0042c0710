"""`authmilter verify`: judge a message as the milter would, and show why."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import socket
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import click

from authmilter import engine, runtime
from authmilter.cli.given import MAX_MESSAGE, read_file, read_message, read_time
from authmilter.cli.output import CONFIG_OPTION, ExitCode, console, fail, reports_errors
from authmilter.cli.shown import road, show
from authmilter.config import load as config_load
from authmilter.dns.servers import Server
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime
from authmilter.errors import DecodeError
from authmilter.mail import Envelope, Mail, Session
from authmilter.message import normalize_line_endings
from authmilter.names import Domain, IPAddress, parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.observe.journal import LogJournal, LogSettings, make_log
from authmilter.text import printable
from authmilter.verdict import Verdict
from authmilter.verdict_json import verdict_to_dict

__all__ = ["verify"]

#: A line of a batch holds a message in base64.
_MAX_LINE = MAX_MESSAGE * 3 // 2
#: How many cases of a batch are judged at the same time; the answers still come in order.
_WINDOW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One message to judge, as the options or a batch line describe it."""

    message: bytes | None
    client_ip: str | None = None
    helo: str | None = None
    mail_from: str | None = None
    rcpt_to: tuple[str, ...] = ()
    login: str | None = None
    daemon_name: str = ""
    now: datetime | None = None
    zone: ZoneResolver | None = None


@click.command()
@click.argument("message", required=False)
@click.option("--ip", "client_ip", help="The client's address; without it SPF and iprev are not asked.")
@click.option("--helo", help="The name given in HELO or EHLO.")
@click.option("--mail-from", help="The reverse-path; `<>` or empty for a bounce.")
@click.option("--rcpt", "rcpt_to", multiple=True, help="A recipient; may be repeated.")
@click.option("--login", help="The login of an authenticated sender.")
@click.option("--daemon-name", default="", help="The {daemon_name} that took the mail.")
@click.option(
    "--zone",
    type=click.Path(dir_okay=False),
    help="Answer DNS from this file (YAML or JSON) instead of the network.",
)
@click.option("--resolver", help="Ask this resolver, as IP or IP:port, instead of the configured ones.")
@click.option(
    "--policy", "policy_name", help="monitor, enforce, strict or a policy file; default: the configured one."
)
@click.option("--now", "now_text", help="Judge as of this time (RFC 3339), for old mail.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.option(
    "--explain",
    "explained",
    is_flag=True,
    help="Print only which lines decided: the direction, the disposition, and the signing.",
)
@click.option(
    "--batch",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Judge many: one JSON case a line; see below.",
)
@CONFIG_OPTION
@reports_errors
def verify(
    *,
    message: str | None,
    client_ip: str | None,
    helo: str | None,
    mail_from: str | None,
    rcpt_to: tuple[str, ...],
    login: str | None,
    daemon_name: str,
    zone: str | None,
    resolver: str | None,
    policy_name: str | None,
    now_text: str | None,
    as_json: bool,
    explained: bool,
    batch: str | None,
    config_path: str | None,
) -> None:
    """Judge MESSAGE (a file, or - for standard input) as the milter would, and show why.

    \b
    authmilter verify mail.eml --ip 192.0.2.1 --helo mx.example.com --mail-from a@example.com

    With --batch FILE (or -) each line is a JSON object with any of `id`, `path` or `message_base64`,
    `client_ip`, `helo`, `mail_from`, `rcpt_to`, `login`, `daemon_name`, `zone`, `now`; what is missing is taken from the options and
    MESSAGE, other keys are passed over. One line comes out per line, in order: `{"id", "verdict"}` or
    `{"id", "error"}`; a bad line never ends the run.
    """  # noqa: D301 - the backspace is click's mark for a paragraph to be left as it is
    if message is None and batch is None:
        raise click.UsageError("give a MESSAGE, or --batch FILE")
    if zone is not None and resolver is not None:
        raise click.UsageError("give --zone or --resolver, not both")
    try:
        base = _Case(
            message=None,
            client_ip=client_ip,
            helo=helo,
            mail_from=mail_from,
            rcpt_to=rcpt_to,
            login=login,
            daemon_name=daemon_name,
            now=read_time(now_text) if now_text else None,
        )
        _ip(base)  # wrong here, it would be wrong for every line
    except DecodeError as e:
        raise click.UsageError(str(e)) from None
    loaded = config_load.load(config_path)
    if resolver is not None:
        try:
            Server.parse(resolver)
        except ValueError as e:
            raise click.UsageError(f"--resolver: {e}") from None
        dns = loaded.config.dns.model_copy(update={"nameservers": (resolver,), "zone": None})
        loaded = replace(loaded, config=loaded.config.model_copy(update={"dns": dns}))
    settings = LogSettings(format="console", level="error")
    built = runtime.build(
        loaded,
        journal=LogJournal(make_log(settings), settings),
        resolver=runtime.load_zone(zone) if zone is not None else None,
        policy=runtime.load_policy(loaded, policy_name) if policy_name is not None else None,
    )
    if message is not None:
        base = replace(base, message=read_message(message))
    if batch is not None:
        _batch(built, base, batch)
        return
    mail, verdict = asyncio.run(_judge(built, base))
    if as_json:
        click.echo(json.dumps(verdict_to_dict(verdict)))
    elif explained:
        for line in road(verdict_to_dict(verdict), signing=built.signing is not None):
            click.echo(line)
    else:
        show(console(), verdict_to_dict(verdict, mail))


def _ip(case: _Case) -> IPAddress | None:
    ip = parse_ip(case.client_ip) if case.client_ip else None
    if case.client_ip and ip is None:
        raise DecodeError(f"`{printable(case.client_ip, 64)}` is no IP address")
    return ip


async def _judge(built: Runtime, case: _Case) -> tuple[Mail, Verdict]:
    session = Session(
        client_ip=_ip(case),
        helo=parse_helo(case.helo) if case.helo else None,
        authenticated=case.login,
        daemon_name=case.daemon_name,
        local_name=Domain.maybe(socket.gethostname()),
    )
    envelope = Envelope(
        mail_from=parse_reverse_path(case.mail_from or ""),
        rcpt_to=tuple(parse_recipient(r) for r in case.rcpt_to),
    )
    chosen = runtime.with_zone(built, case.zone) if case.zone is not None else built
    return await engine.verify(
        normalize_line_endings(case.message or b""),
        chosen,
        session=session,
        envelope=envelope,
        received_at=case.now,
        listener="cli",
    )


def _batch(built: Runtime, base: _Case, name: str) -> None:
    """Judge every line of a file, or of standard input, as it comes."""
    if name == "-":
        asyncio.run(_judge_lines(built, base, sys.stdin.buffer))
        return
    try:
        source = Path(name).open("rb")  # noqa: SIM115 - opened here, so that only opening it is no input
    except OSError as e:
        raise fail(f"{name}: {e.strerror}", ExitCode.NO_INPUT) from None
    with source:
        asyncio.run(_judge_lines(built, base, source))


async def _judge_lines(built: Runtime, base: _Case, source: BinaryIO) -> None:
    """Judge every line, some at the same time; answers come in order, each as soon as those before it have."""
    answers: asyncio.Queue[asyncio.Task[str] | None] = asyncio.Queue(_WINDOW)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_print_in_order(answers))
            # in a thread, so that answers are printed while the next line is not there yet
            while line := await asyncio.to_thread(_next_line, source):
                await answers.put(group.create_task(_one(built, base, line)))
            await answers.put(None)
    except ExceptionGroup as e:
        raise e.exceptions[0] from None


async def _print_in_order(answers: asyncio.Queue[asyncio.Task[str] | None]) -> None:
    while (answer := await answers.get()) is not None:
        click.echo(await answer)


def _next_line(source: BinaryIO) -> bytes:
    """Return the next line; of one that is too long the beginning, which is no JSON; at the end nothing."""
    line = rest = source.readline(_MAX_LINE)
    while len(rest) == _MAX_LINE and not rest.endswith(b"\n"):
        rest = source.readline(_MAX_LINE)
    return line


async def _one(built: Runtime, base: _Case, line: bytes) -> str:
    ident: object = None
    try:
        data = _object(line)
        ident = _ident(data)
        _mail, verdict = await _judge(built, _case(base, data))
    except DecodeError as e:
        return json.dumps({"id": ident, "error": str(e)})
    except OSError as e:
        return json.dumps({"id": ident, "error": f"{e.filename}: {e.strerror}"})
    except Exception as e:  # noqa: BLE001 - the door's outermost line: one case must not end the run
        built.journal.bug("cli:batch", e)
        return json.dumps({"id": ident, "error": "internal error"})
    return json.dumps({"id": ident, "verdict": verdict_to_dict(verdict)})


def _object(line: bytes) -> dict[str, object]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise DecodeError("the line is not JSON") from None
    if not isinstance(data, dict):
        raise DecodeError("the line is not a JSON object")
    return data


def _ident(data: dict[str, object]) -> object:
    ident = data.get("id")
    if not isinstance(ident, str | int | None):
        raise DecodeError("`id` must be a text or a whole number")
    return ident


def _text(data: dict[str, object], key: str, default: str | None) -> str | None:
    value = data.get(key)
    if value is None:  # null is missing, too
        return default
    if not isinstance(value, str):
        raise DecodeError(f"`{key}` must be a text")
    return value


def _case(base: _Case, data: dict[str, object]) -> _Case:
    # Other keys are the caller's own (what a corpus expects, a comment) and say nothing to us.
    path, encoded = _text(data, "path", None), _text(data, "message_base64", None)
    if path is not None and encoded is not None:
        raise DecodeError("give `path` or `message_base64`, not both")
    if path is not None:
        message = read_file(path)
    elif encoded is None:
        if base.message is None:
            raise DecodeError("give `path` or `message_base64`")
        message = base.message
    else:
        try:
            message = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise DecodeError("`message_base64` is not base64") from None
    rcpt = data.get("rcpt_to")
    if rcpt is None:
        rcpt = list(base.rcpt_to)
    if not isinstance(rcpt, list) or not all(isinstance(r, str) for r in rcpt):
        raise DecodeError("`rcpt_to` must be a list of texts")
    zone = base.zone
    if data.get("zone") is not None:
        if not isinstance(data["zone"], dict):
            raise DecodeError("`zone` must be an object")
        zone = ZoneResolver(data["zone"])
    now = _text(data, "now", None)
    return _Case(
        message=message,
        client_ip=_text(data, "client_ip", base.client_ip),
        helo=_text(data, "helo", base.helo),
        mail_from=_text(data, "mail_from", base.mail_from),
        rcpt_to=tuple(rcpt),
        login=_text(data, "login", base.login),
        daemon_name=_text(data, "daemon_name", base.daemon_name) or "",
        now=read_time(now) if now else base.now,
        zone=zone,
    )
