"""`authmilter sign`: sign a message as the milter would, for scripts and tests."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from authmilter import runtime
from authmilter.cli.config import CONFIG_OPTION
from authmilter.cli.output import ExitCode, fail, reports_errors, say_error
from authmilter.config import load as config_load
from authmilter.errors import DecodeError, InvalidName, KeyMaterialError
from authmilter.mail import Origin, Session
from authmilter.message import normalize_line_endings
from authmilter.names import Address, Domain
from authmilter.signing.keys import KeySource, load
from authmilter.signing.settings import (
    CURES,
    Action,
    NotSigned,
    SignatureSettings,
    SigningSettings,
    sign_message,
)
from authmilter.signing.table import Match, Signer, SigningEntry
from authmilter.text import printable

__all__ = ["FixedTable", "sign", "signed"]

_MAX_MESSAGE = 256 << 20


class FixedTable:
    """A table that signs every author's mail with the same entries: what the command line says decides."""

    __slots__ = ("_match",)

    def __init__(self, domain: Domain, signers: tuple[Signer, ...]) -> None:
        entries = tuple(e for e in (signer.entry(domain) for signer in signers) if e is not None)
        if len(entries) != len(signers):
            raise InvalidName("the selector and the domain give no DNS name")
        self._match = Match(entries=entries, line="the command line")

    def find(self, author: Address) -> Match | None:  # noqa: ARG002 - the table's shape
        """Return the entries."""
        return self._match

    @property
    def listed(self) -> tuple[tuple[str, SigningEntry], ...]:
        """Every entry."""
        return tuple((self._match.line, entry) for entry in self._match.entries)


@click.command()
@click.argument("message")
@click.option(
    "--from-config", is_flag=True, help="Sign as the service would: keys and settings of `signing`."
)
@click.option("--login", help="With --from-config: the login of the sender.")
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
@CONFIG_OPTION
@reports_errors
def sign(
    *,
    message: str,
    from_config: bool,
    login: str | None,
    config_path: str | None,
    domain: str | None,
    selectors: tuple[str, ...],
    key_files: tuple[str, ...],
    expire: int | None,
    header_only: bool,
) -> None:
    r"""Sign MESSAGE (a file, or - for standard input) and print it with its DKIM-Signature fields on top.

    \b
    authmilter sign mail.eml --domain example.com --selector s1 --key s1.pem
    authmilter sign mail.eml --from-config

    Line ends come out as they went in; what is signed is the message with CRLF, as SMTP carries it. Exit code 1: the
    message is not one that is signed (no author or several, a header that cannot be signed).
    """
    if from_config:
        configured = runtime.signing_settings(config_load.load(config_path))
        if configured is None:
            raise fail("the configuration has no `signing`", ExitCode.CONFIG)
        session = Session(authenticated=login)
        sys.stdout.buffer.write(signed(_read(message), configured, session=session, header_only=header_only))
        return
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
    settings = SigningSettings(tables=(table,), signature=replace(SignatureSettings(), expire=expire))
    output = signed(_read(message), settings, header_only=header_only)
    sys.stdout.buffer.write(output)


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
