"""`authmilter grpc ...`: what the administrator of the gRPC service needs: tokens, and the service config for clients."""

from __future__ import annotations

import json
import re
import secrets

import click

from authmilter.cli.given import read_message
from authmilter.cli.output import reports_errors
from authmilter.rpc.settings import token_hash

__all__ = ["grpc"]

#: Octets of a token: 256 bits, which nobody guesses.
_OCTETS = 32
#: A caller's name, as the configuration has it.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@click.group()
def grpc() -> None:
    """Tokens for the callers of the gRPC service, and what its clients are to set."""


@grpc.command()
@click.argument("name")
@click.option("--hash", "given", metavar="FILE", help="Hash the token in this file (- for standard input).")
@reports_errors
def token(name: str, given: str | None) -> None:
    """Make a bearer token for the caller NAME, and the lines of the configuration that let him in.

    The token is shown this once and is for the caller's own file; the configuration holds only its hash, from which it
    cannot be had. With --hash the token is one that you have already, and is not shown.

    \b
    authmilter grpc token gateway
    authmilter grpc token gateway --hash token.txt
    """  # noqa: D301 - the backspace is click's mark for a paragraph to be left as it is
    if not _NAME.fullmatch(name):
        raise click.UsageError("a caller's name is of lower-case letters, digits, `.`, `_` and `-`")
    if given is None:
        made = secrets.token_urlsafe(_OCTETS)
        click.echo(f"# for the caller, sent as `authorization: Bearer TOKEN`:\n{made}\n")
    else:
        made = read_message(given).decode("utf-8", "replace").strip()
        if not made or not made.isascii() or not made.isprintable() or " " in made:
            raise click.UsageError("a token is printable US-ASCII without spaces")
    hashed = token_hash(made.encode())
    click.echo(f'# for grpc.identities in the configuration:\n- name: {name}\n  tokens: ["{hashed}"]')
    click.echo("  permissions: [verify]")


@grpc.command("service-config")
@reports_errors
def service_config() -> None:
    """Print the service config that every client is to set, as JSON, which gRPC takes in any language."""
    from authmilter.client import SERVICE_CONFIG  # noqa: PLC0415 - making a token needs no grpc

    click.echo(json.dumps(SERVICE_CONFIG, indent=2))
