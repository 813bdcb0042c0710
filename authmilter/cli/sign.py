"""`authmilter sign`: sign a message as the milter would, for scripts and tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click

from authmilter import runtime
from authmilter.cli.output import CONFIG_OPTION, ExitCode, fail, reports_errors, say_error
from authmilter.config import load as config_load
from authmilter.errors import DecodeError, InvalidName, KeyMaterialError
from authmilter.mail import Origin, Session
from authmilter.message import Message, normalize_line_endings
from authmilter.names import Address, Domain, IPAddress, parse_ip
from authmilter.signing.keys import KeySource, load
from authmilter.signing.settings import (
    CURES,
    Action,
    NotSigned,
    Risk,
    SignatureSettings,
    SigningSettings,
    preview,
    sign_message,
)
from authmilter.signing.table import Match, Signer, SigningEntry
from authmilter.text import printable
from authmilter.verdict import Signing

__all__ = ["Explanation", "FixedTable", "explain", "sign", "signed", "told"]

_MAX_MESSAGE = 256 << 20
#: What stands for a line of the configuration where the options decide.
_COMMAND_LINE = "the command line"


class FixedTable:
    """A table that signs every author's mail with the same entries: what the command line says decides."""

    __slots__ = ("_match",)

    def __init__(self, domain: Domain, signers: tuple[Signer, ...]) -> None:
        entries = tuple(e for e in (signer.entry(domain) for signer in signers) if e is not None)
        if len(entries) != len(signers):
            raise InvalidName("the selector and the domain give no DNS name")
        self._match = Match(entries=entries, line=_COMMAND_LINE)

    def find(self, author: Address) -> Match | None:  # noqa: ARG002 - the table's shape
        """Return the entries."""
        return self._match

    @property
    def listed(self) -> tuple[tuple[str, SigningEntry], ...]:
        """Every entry."""
        return tuple((self._match.line, entry) for entry in self._match.entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a message is signed or not, every answer with the line of the configuration that gave it.

    Attributes:
        origin: the direction; `origin_because` the line that decided it.
        author: the one author, or empty.
        action: sign, pass-unsigned or tempfail.
        signing: as in the log.
        sender_line: which line says that the session may, or may not, write as the author; empty without an author.
    """

    origin: Origin
    origin_because: str
    author: str
    action: Action
    signing: Signing
    sender_line: str = ""

    def as_data(self) -> dict[str, object]:
        """Return it as data of JSON; each risk with its cure."""
        return {
            "origin": self.origin.value,
            "origin_because": self.origin_because,
            "author": self.author,
            "action": self.action.value,
            "signed": list(self.signing.signed),
            "line": self.signing.line,
            "reason": self.signing.reason,
            "detail": self.signing.detail,
            "sender_line": self.sender_line,
            "risks": {risk: CURES[Risk(risk)] for risk in self.signing.risks},
        }

    def lines(self) -> Iterator[str]:
        """Yield it as lines for a person."""
        yield f"direction: {self.origin.value} ({self.origin_because})"
        yield f"author: {self.author or 'not one'}"
        if self.sender_line:
            yield f"sender: {self.sender_line}"
        yield from told(self.signing)
        if self.action is Action.TEMPFAIL:
            yield "action: tempfail: the sender is told to try again later"


def told(signing: Signing) -> Iterator[str]:
    """Yield what was decided about signing as lines for a person: signed by which line, or why not; risks."""
    if signing.signed:
        yield f"signing: signed as {', '.join(signing.signed)} (decided by {signing.line})"
    else:
        more = f": {signing.detail}" if signing.detail else ""
        yield f"signing: not signed: {signing.reason}{more} (decided by {signing.line})"
    for risk in signing.risks:
        yield f"  risk {risk}: {CURES[Risk(risk)]}"


@click.command()
@click.argument("message")
@click.option(
    "--from-config", is_flag=True, help="Sign as the service would: keys and settings of `signing`."
)
@click.option("--login", help="With --from-config: the login of the sender.")
@click.option("--ip", "client_ip", help="With --from-config: the sender's address.")
@click.option("--daemon-name", help="With --from-config: the {daemon_name} that takes the mail.")
@click.option("--domain", help="The domain of d=.")
@click.option("--selector", "selectors", multiple=True, help="The selector; may be repeated.")
@click.option(
    "--key",
    "key_files",
    multiple=True,
    type=click.Path(dir_okay=False),
    help="The private key's file; one for each --selector, in the same order.",
)
@click.option("--expire", type=click.IntRange(min=1), help="Seconds until the signature expires (x=).")
@click.option("--header", "header_only", is_flag=True, help="Print the DKIM-Signature fields only.")
@click.option(
    "--explain",
    "explained",
    is_flag=True,
    help="Print, instead of the message, which lines decide where it comes from and what it is signed with.",
)
@click.option("--json", "as_json", is_flag=True, help="With --explain: as JSON.")
@CONFIG_OPTION
@reports_errors
def sign(
    *,
    message: str,
    from_config: bool,
    login: str | None,
    client_ip: str | None,
    daemon_name: str | None,
    config_path: str | None,
    domain: str | None,
    selectors: tuple[str, ...],
    key_files: tuple[str, ...],
    expire: int | None,
    header_only: bool,
    explained: bool,
    as_json: bool,
) -> None:
    """Sign MESSAGE (a file, or - for standard input) and print it with its DKIM-Signature fields on top.

    \b
    authmilter sign mail.eml --domain example.com --selector s1 --key s1.pem
    authmilter sign mail.eml --from-config
    authmilter sign mail.eml --from-config --login alice --explain

    With --from-config and any of --login, --ip and --daemon-name the mail comes from where the configuration says that
    such a session comes from; with none of them it is submission.

    Line ends come out as they went in; what is signed is the message with CRLF, as SMTP carries it. Exit code 1: the
    message is not one that is signed (no author or several, a header that cannot be signed).
    """  # noqa: D301 - the backspace is click's mark for a paragraph to be left as it is
    if as_json and not explained:
        raise click.UsageError("--json goes with --explain")
    if explained and header_only:
        raise click.UsageError("--explain prints no message: --header does not go with it")
    if from_config and (domain is not None or selectors or key_files or expire is not None):
        raise click.UsageError(
            "with --from-config the configuration says what signs: --domain, --selector, --key and --expire do not go "
            "with it"
        )
    if not from_config and (login is not None or client_ip is not None or daemon_name is not None):
        raise click.UsageError("--login, --ip and --daemon-name go with --from-config")
    session = Session(authenticated=login, client_ip=_ip(client_ip), daemon_name=daemon_name or "")
    if from_config:
        loaded = config_load.load(config_path)
        configured = runtime.signing_settings(loaded)
        if configured is None:
            raise fail("the configuration has no `signing`", ExitCode.CONFIG)
        origin, because = Origin.SUBMISSION, _COMMAND_LINE
        if login is not None or client_ip is not None or daemon_name is not None:
            origin, because, _ = runtime.origin_rules(loaded.config).decide(session)
        settings = configured
    else:
        origin, because = Origin.SUBMISSION, _COMMAND_LINE
        settings = _fixed(domain, selectors, key_files, expire)
    raw = _read(message)
    if not explained:
        sys.stdout.buffer.write(
            signed(raw, settings, session=session, origin=origin, header_only=header_only)
        )
        return
    explanation = explain(raw, settings, session=session, origin=origin, because=because)
    if as_json:
        click.echo(json.dumps(explanation.as_data()))
    else:
        for line in explanation.lines():
            click.echo(line)
    if explanation.action is not Action.SIGN:
        raise click.exceptions.Exit(ExitCode.FOUND)


def _ip(text: str | None) -> IPAddress | None:
    ip = parse_ip(text) if text is not None else None
    if text is not None and ip is None:
        raise click.UsageError(f"`{printable(text, 64)}` is no IP address")
    return ip


def _fixed(
    domain: str | None, selectors: tuple[str, ...], key_files: tuple[str, ...], expire: int | None
) -> SigningSettings:
    """Return the settings that --domain, --selector and --key give."""
    if domain is None or not selectors:
        raise click.UsageError("give --from-config, or --domain, --selector and --key")
    if len(selectors) != len(key_files):
        raise click.UsageError("give one --key for each --selector")
    ring = load(KeySource(path=name) for name in key_files)
    if ring.problems:
        raise KeyMaterialError("\n".join(str(problem) for problem in ring.problems))
    for warning in ring.warnings:
        say_error(warning)
    try:
        base = Domain.parse(domain)
        table = FixedTable(
            base,
            tuple(
                Signer(domain=base, selector=selector.lower(), key=ring.keys[KeySource(path=name)])
                for selector, name in zip(selectors, key_files, strict=True)
            ),
        )
    except InvalidName as e:
        raise click.UsageError(str(e)) from None
    return SigningSettings(tables=(table,), signature=replace(SignatureSettings(), expire=expire))


def explain(
    raw: bytes, settings: SigningSettings, *, session: Session, origin: Origin, because: str
) -> Explanation:
    """Return why a message is signed, or why not; nothing is signed with any key.

    Args:
        raw: the whole message.
        settings: keys and rules.
        session: who sends.
        origin: the direction.
        because: the line that decided it.
    """
    whole = normalize_line_endings(raw)
    outcome, settled = preview(whole, settings, session=session, origin=origin)
    authors = Message.parse(whole)[0].authors
    author = authors.addresses[0] if authors.problem is None and len(authors.addresses) == 1 else None
    risks = tuple(sorted(risk.value for risk in settled.risks))
    if isinstance(outcome, NotSigned):
        signing = Signing(line=outcome.line, reason=outcome.reason.value, detail=outcome.detail)
    elif settled.action is Action.SIGN:
        names = tuple(f"{e.domain.ascii}/{e.selector}" for e in outcome.entries)
        signing = Signing(line=outcome.because, risks=risks, signed=names)
    else:
        signing = Signing(
            line=outcome.because,
            risks=risks,
            reason="unsafe_body",
            detail=f"{settled.action.value} by on_unsafe_body",
        )
    return Explanation(
        origin=origin,
        origin_because=because,
        author=printable(str(author), 320) if author is not None else "",
        action=settled.action,
        signing=signing,
        sender_line=settings.senders.decide(session, author)[1] if author is not None else "",
    )


def signed(
    raw: bytes,
    settings: SigningSettings,
    *,
    session: Session | None = None,
    origin: Origin = Origin.SUBMISSION,
    header_only: bool = False,
) -> bytes:
    """Return the signed message, or its DKIM-Signature fields, with the line ends that `raw` has.

    Risks and refusals are told on standard error.

    Raises:
        click.exceptions.Exit: the message is not signed.
    """
    message = normalize_line_endings(raw)
    values, settled = sign_message(
        message, settings, session=session or Session(), origin=origin, now=runtime.now()
    )
    for risk in sorted(settled.risks):
        say_error(f"{risk.value}: {CURES[risk]}")
    if isinstance(values, NotSigned):
        detail = f": {values.detail}" if values.detail else ""
        raise fail(f"not signed: {values.reason.value}{detail} (decided by {values.line})", ExitCode.FOUND)
    if settled.action is not Action.SIGN:
        raise fail(f"not signed: {settled.action.value} by on_unsafe_body", ExitCode.FOUND)
    fields = b"".join(b"DKIM-Signature: " + value + b"\r\n" for value in values)
    whole = fields if header_only else fields + message
    return whole if message is raw or b"\r\n" in raw else whole.replace(b"\r\n", b"\n")


def _read(name: str) -> bytes:
    try:
        data = sys.stdin.buffer.read(_MAX_MESSAGE + 1) if name == "-" else Path(name).read_bytes()
    except OSError as e:
        raise fail(f"{printable(name, 200)}: {e.strerror}", ExitCode.NO_INPUT) from None
    if len(data) > _MAX_MESSAGE:
        raise DecodeError(f"{printable(name, 200)}: larger than {_MAX_MESSAGE >> 20} MiB")
    return data
