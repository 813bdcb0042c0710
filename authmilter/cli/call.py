"""`authmilter call ...`: ask a running service over gRPC, as other programs do."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import click
from rich.markup import escape
from rich.table import Table

from authmilter import documents
from authmilter.cli.given import read_file, read_message, read_time
from authmilter.cli.output import ExitCode, console, fail, reports_errors
from authmilter.cli.run import show as show_status
from authmilter.cli.shown import road, show
from authmilter.client import (
    About,
    CallError,
    Client,
    DeadlineExceededError,
    ExhaustedError,
    InvalidRequestError,
    PermissionDeniedError,
    PreconditionError,
    Sender,
    Tls,
    UnauthenticatedError,
    UnavailableError,
    messages,
    to_dict,
)
from authmilter.config import load as config_load
from authmilter.errors import DecodeError
from authmilter.text import printable

__all__ = ["call"]

P = ParamSpec("P")
R = TypeVar("R")

#: Messages over this many octets are sent in pieces.
_WHOLE = 4 << 20
#: How gRPC begins a long sentence whose end says why.
_NOBODY = "failed to connect to all addresses"
_CODES: dict[type[CallError], ExitCode] = {
    InvalidRequestError: ExitCode.DATA,
    UnauthenticatedError: ExitCode.FORBIDDEN,
    PermissionDeniedError: ExitCode.FORBIDDEN,
    PreconditionError: ExitCode.CONFIG,
    ExhaustedError: ExitCode.UNAVAILABLE,
    DeadlineExceededError: ExitCode.UNAVAILABLE,
    UnavailableError: ExitCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the service is, as the options say it."""

    server: str
    token_file: str | None
    tls: bool
    ca: str | None
    cert: str | None
    key: str | None
    server_name: str | None
    plaintext: bool
    timeout: float

    @contextmanager
    def connected(self) -> Iterator[Client]:
        """Connect; what a call ends with becomes an error line and an exit code."""
        tls = None
        if self.tls or self.ca or self.cert:
            try:
                tls = Tls(
                    authorities=read_file(self.ca) if self.ca else None,
                    certificate=read_file(self.cert) if self.cert else None,
                    key=read_file(self.key) if self.key else None,
                    server_name=self.server_name or "",
                )
            except ValueError as e:
                raise click.UsageError(f"--cert and --key: {e}") from None
        token = read_file(self.token_file).decode("utf-8", "replace").strip() if self.token_file else None
        try:
            client = Client(
                self.server, tls=tls, token=token, plaintext=self.plaintext, timeout=self.timeout, wait=False
            )
        except ValueError as e:
            raise click.UsageError(f"--server {self.server}: {e}") from None
        try:
            with client:
                yield client
        except CallError as e:
            # What the server says is its own, but who it is, is not sure.
            said = "\n".join(printable(line, 500) for line in e.text.splitlines())
            if said.startswith(_NOBODY):
                tried = said.partition("last error: ")[2].partition(": ")[2]
                why = tried if tried.startswith("ip") else said.rpartition(": ")[2]
                said = f"the service does not answer: {why}"
            raise fail(f"{self.server}: {said}", _CODES.get(type(e), ExitCode.SOFTWARE)) from None


def _connects(command: Callable[Concatenate[_Place, P], R]) -> Callable[P, R]:
    """Give a command the options of the connection, and the errors of all commands."""

    @reports_errors
    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        names = _Place.__dataclass_fields__
        place = _Place(**{name: kwargs.pop(name) for name in names})  # type: ignore[arg-type]  # click's values, by the options below
        return command(place, *args, **kwargs)

    made: Callable[P, R] = wrapped
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


_OPTIONS = (
    click.option(
        "--server", required=True, help="Where the service is: unix:/path, HOST:PORT or [IPv6]:PORT."
    ),
    click.option("--token-file", type=click.Path(dir_okay=False), help="The file of our bearer token."),
    click.option("--tls", is_flag=True, help="Use TLS, with the authorities of this system."),
    click.option("--ca", type=click.Path(dir_okay=False), help="Use TLS, with these authorities (PEM)."),
    click.option("--cert", type=click.Path(dir_okay=False), help="Our own certificate (PEM), for mTLS,"),
    click.option("--key", type=click.Path(dir_okay=False), help="and its key."),
    click.option(
        "--server-name", help="The name in the server's certificate, if it is not that of --server."
    ),
    click.option("--plaintext", is_flag=True, help="The token may be sent in the clear to another machine."),
    click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, help="Seconds; default 30."
    ),
)

_SESSION = (
    click.option("--ip", "client_ip", help="The client's address; without it SPF and iprev are not asked."),
    click.option("--helo", help="The name given in HELO or EHLO."),
    click.option("--mail-from", default="", help="The reverse-path; `<>` or empty for a bounce."),
    click.option("--rcpt", "rcpt_to", multiple=True, help="A recipient; may be repeated."),
    click.option("--login", help="The login of an authenticated sender."),
    click.option("--daemon-name", default="", help="The {daemon_name} that took the mail."),
)

_ZONE = click.option(
    "--zone",
    type=click.Path(dir_okay=False),
    help="Have DNS answered from this file (YAML or JSON), if the service lets us.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


def _with_session(command: Callable[P, R]) -> Callable[P, R]:
    made = command
    for option in reversed(_SESSION):
        made = option(made)
    return made


def _zone(path: str | None) -> dict[str, object] | None:
    if path is None:
        return None
    data = documents.parse(config_load.read_text(Path(path)), path).data
    if not isinstance(data, dict):
        raise DecodeError(f"{path}: is no zone: a mapping of names to records")
    return {**data}


@click.group()
def call() -> None:
    """Ask a running service over gRPC, as other programs do.

    \b
    authmilter call verify mail.eml --server unix:/run/authmilter/grpc.sock --ip 192.0.2.1
    authmilter call verify - --server mx.example.com:50051 --ca ca.pem --token-file token
    authmilter call spf --server unix:/run/authmilter/grpc.sock --ip 192.0.2.1 --mail-from a@example.com
    authmilter call status --server unix:/run/authmilter/grpc.sock

    The service has its own configuration, policy and DNS; nothing of this machine's is used. docs/grpc.md has the other side.

    Exit codes: 65 the request is wrong, 69 nobody answers (in time), or a limit, 77 not permitted, 78 the service is not
    set up for it.
    """  # noqa: D301 - the backspace is click's mark for a paragraph to be left as it is


@call.command()
@click.argument("message")
@_with_session
@_ZONE
@click.option("--policy", "policy_name", default="", help="One of the policies that the service has.")
@click.option("--authserv-id", default="", help="The name in Authentication-Results, if the service lets us.")
@click.option(
    "--origin", help="Where the mail comes from (internet, submission, ...), if the service lets us."
)
@click.option("--now", "now_text", help="Judge as of this time (RFC 3339), for old mail.")
@click.option("--no-record", is_flag=True, help="Keep it out of the service's records and counters.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.option(
    "--explain",
    "explained",
    is_flag=True,
    help="Print only which lines decided: the direction, the disposition, and the signing.",
)
@_connects
def verify(
    place: _Place,
    *,
    message: str,
    client_ip: str | None,
    helo: str | None,
    mail_from: str,
    rcpt_to: tuple[str, ...],
    login: str | None,
    daemon_name: str,
    zone: str | None,
    policy_name: str,
    authserv_id: str,
    origin: str | None,
    now_text: str | None,
    no_record: bool,
    as_json: bool,
    explained: bool,
) -> None:
    """Have MESSAGE (a file, or - for standard input) judged by the service; prints what `authmilter verify` prints.

    \b
    authmilter call verify mail.eml --server unix:/run/authmilter/grpc.sock --ip 192.0.2.1 --mail-from a@example.com
    """  # noqa: D301 - as above
    raw = read_message(message)
    about = About(
        client_ip=client_ip,
        helo=helo,
        mail_from=mail_from,
        rcpt_to=rcpt_to,
        login=login,
        daemon_name=daemon_name,
        policy=policy_name,
        authserv_id=authserv_id,
        now=read_time(now_text) if now_text else None,
        origin=origin,
        record=not no_record,
        explain=not as_json,
        zone=_zone(zone),
    )
    with place.connected() as client:
        answer = _judged(client, raw, about)
    verdict = to_dict(answer.verdict)
    if as_json:
        click.echo(json.dumps(verdict))
    elif explained:
        for line in road(verdict, signing=None):
            click.echo(line)
    else:
        show(console(), {**verdict, "mail": to_dict(answer.mail)})


def _judged(
    client: Client, raw: bytes, about: About
) -> messages.VerifyResponse | messages.VerifyUploadResponse:
    try:
        if len(raw) <= _WHOLE:
            return client.verify(raw, **about)
        return client.verify_upload(io.BytesIO(raw), **about)
    except ValueError as e:
        raise click.UsageError(str(e)) from None


@call.command()
@click.argument("message")
@_with_session
@click.option("--header", "header_only", is_flag=True, help="Print the DKIM-Signature fields only.")
@_JSON
@_connects
def sign(
    place: _Place,
    *,
    message: str,
    client_ip: str | None,
    helo: str | None,
    mail_from: str,
    rcpt_to: tuple[str, ...],
    login: str | None,
    daemon_name: str,
    header_only: bool,
    as_json: bool,
) -> None:
    """Have MESSAGE signed with the service's keys; prints it with its DKIM-Signature fields on top.

    \b
    authmilter call sign mail.eml --server unix:/run/authmilter/grpc.sock --login alice

    Exit code 1: the service does not sign it, and says why.
    """  # noqa: D301 - as above
    raw = read_message(message)
    with place.connected() as client:
        sender = Sender(
            client_ip=client_ip,
            helo=helo,
            mail_from=mail_from,
            rcpt_to=rcpt_to,
            login=login,
            daemon_name=daemon_name,
        )
        answer: messages.SignResponse | messages.SignUploadResponse = (
            client.sign(raw, **sender)
            if len(raw) <= _WHOLE
            else client.sign_upload(io.BytesIO(raw), **sender)
        )
    if as_json:
        click.echo(json.dumps(to_dict(answer)))
    if not answer.fields:
        said = f"not signed: {answer.signing.reason} (decided by {answer.signing.line})"
        raise fail(printable(said, 500), ExitCode.FOUND)
    if not as_json:
        text = "".join(f"{f.name}: {f.value}\r\n" for f in answer.fields)
        newline = "\r\n" if b"\r\n" in raw else "\n"
        click.echo(
            text.replace("\r\n", newline).encode() + (b"" if header_only else raw),
            nl=False,
        )


@call.command()
@click.option("--ip", "client_ip", required=True, help="The client's address.")
@click.option("--mail-from", default="", help="The reverse-path; `<>` or empty for a bounce.")
@click.option("--helo", default="", help="The name given in HELO or EHLO.")
@_ZONE
@_JSON
@_connects
def spf(place: _Place, *, client_ip: str, mail_from: str, helo: str, zone: str | None, as_json: bool) -> None:
    """Have SPF evaluated for a client and an identity."""
    with place.connected() as client:
        answer = to_dict(client.check_spf(client_ip, mail_from=mail_from, helo=helo, zone=_zone(zone)))
    _tell(answer, as_json=as_json)


@call.command("dkim-key")
@click.argument("domain")
@click.argument("selector")
@_ZONE
@_JSON
@_connects
def dkim_key(place: _Place, *, domain: str, selector: str, zone: str | None, as_json: bool) -> None:
    """Have the DKIM key of SELECTOR at DOMAIN looked at in DNS."""
    with place.connected() as client:
        answer = to_dict(client.check_dkim_key(domain, selector, zone=_zone(zone)))
    _tell(answer, as_json=as_json)


@call.command()
@click.argument("domain")
@_ZONE
@_JSON
@_connects
def dmarc(place: _Place, *, domain: str, zone: str | None, as_json: bool) -> None:
    """Find the DMARC policy that applies to mail of authors at DOMAIN, and how it was found."""
    with place.connected() as client:
        answer = to_dict(client.discover_dmarc(domain, zone=_zone(zone)))
    _tell(answer, as_json=as_json)


@call.command()
@click.argument("domain")
@click.option("--selector", default="", help="The selector; default: `default`.")
@_ZONE
@_JSON
@_connects
def bimi(place: _Place, *, domain: str, selector: str, zone: str | None, as_json: bool) -> None:
    """Have the BIMI record, logo and certificate of DOMAIN looked at."""
    with place.connected() as client:
        answer = to_dict(client.check_bimi(domain, selector=selector, zone=_zone(zone)))
    _tell(answer, as_json=as_json)


@call.command()
@click.option("--json", "as_json", is_flag=True, help="For machines: everything there is, in one line.")
@_connects
def status(place: _Place, *, as_json: bool) -> None:
    """Show what the service does, as `authmilter status`; needs the permission `admin`."""
    with place.connected() as client:
        answer = to_dict(client.status())
    if as_json:
        click.echo(json.dumps(answer))
    else:
        show_status(answer, console())


@call.command()
@_connects
def reload(place: _Place) -> None:
    """Have the configuration and policy read anew; if anything is wrong, the old ones stay (exit 78)."""
    with place.connected() as client:
        answer = client.reload()
    click.echo(f"reloaded: digest {answer.digest}")


@call.command()
@click.option("--service", default="", help="One service by its full name: authmilter.v1.VerifierService.")
@_connects
def health(place: _Place, *, service: str) -> None:
    """Ask whether the service serves; exit code 69 where it does not."""
    with place.connected() as client:
        serving = client.health(service)
    click.echo("serving" if serving else "not serving")
    if not serving:
        raise click.exceptions.Exit(int(ExitCode.UNAVAILABLE))


def _tell(answer: dict[str, object], *, as_json: bool) -> None:
    """Print an answer: as JSON, or a line for each fact."""
    if as_json:
        click.echo(json.dumps(answer))
        return
    table = Table("fact", "value", show_header=False)
    for name, value in _lines(answer, ""):
        table.add_row(name, escape(printable(value, 500)))
    console().print(table)


def _lines(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Yield what an answer says, by its path; what is empty is left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from _lines(item, f"{name}[{number}]")
    elif isinstance(value, list):
        if value:
            yield name, "; ".join(map(str, value))
    elif value is not None and value not in {"", False}:
        yield name, "yes" if value is True else str(value)
