"""`authmilter keys generate|check|rotate`: make keys, see whether the DNS publishes them, replace them in turn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Columns

from authmilter import runtime
from authmilter.cli.output import CONFIG_OPTION, ExitCode, console, reports_errors, say_error
from authmilter.cli.rotate import rotate
from authmilter.cli.sign import FixedTable
from authmilter.config import load as config_load
from authmilter.errors import InvalidName, KeyMaterialError
from authmilter.names import Domain
from authmilter.ports import Resolver
from authmilter.signing.keys import (
    KeyKind,
    KeyRing,
    KeySource,
    Publication,
    PublicationState,
    check_published,
    generate_signing_key,
    load,
    selector_from,
    write_key,
    zone_line,
    zone_strings,
)
from authmilter.signing.opendkim import OpenDkimTable, read_tables, table_path
from authmilter.signing.table import DomainTable, Signer, SigningEntry, Table, parse_table

__all__ = ["keys", "report"]


@click.group()
def keys() -> None:
    """Make DKIM keys, check what the DNS says of them, and replace them in turn."""


keys.add_command(rotate)


@keys.command()
@click.argument("domain")
@click.option(
    "--selector-template",
    "template",
    default="{kind}-{date}",
    show_default=True,
    help="How selectors are made: text with any of {kind}, {date}, {year}, {month}.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["both", "rsa", "ed25519"]),
    default="both",
    show_default=True,
    help="Which keys; with both, every message gets two signatures.",
)
@click.option(
    "--bits", type=click.IntRange(1024, 8192), default=2048, show_default=True, help="Of the RSA key."
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True),
    default=".",
    help="Where the private keys are written, as DOMAIN.SELECTOR.pem; default: the current one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a key.")
@reports_errors
def generate(*, domain: str, template: str, kind: str, bits: int, directory: str, as_json: bool) -> None:
    """Make keys for DOMAIN, write them, and print the TXT records to publish.

    Each record is printed as a line of a zone file, as one string, and in strings of at most 255 octets, as many
    providers' forms want it. A file that exists is never written over.
    """
    now = runtime.now()
    kinds = list(KeyKind) if kind == "both" else [KeyKind(kind)]
    try:
        base = Domain.parse(domain)
        selectors = [selector_from(template, k, now) for k in kinds]
    except InvalidName as e:
        raise click.UsageError(str(e)) from None
    if len(set(selectors)) != len(selectors):
        # RFC 6376 §3.6.2.2: several records under one name are undefined
        raise click.UsageError("both keys would have one selector: put {kind} into --selector-template")
    for one, selector in zip(kinds, selectors, strict=True):
        key = generate_signing_key(one, rsa_bits=bits)
        entry = Signer(domain=base, selector=selector, key=key).entry(base)
        if entry is None:
            raise click.UsageError("the selector and the domain give too long a DNS name")
        file = Path(directory) / f"{base.ascii}.{selector}.pem"
        write_key(file, key)
        _print_new(entry, file, as_json=as_json)


def _print_new(entry: SigningEntry, file: Path, *, as_json: bool) -> None:
    key, name = entry.key, entry.question.name
    if as_json:
        shown = {
            "domain": entry.domain.ascii,
            "selector": entry.selector,
            "type": key.kind.value,
            "bits": key.bits,
            "file": str(file),
            "name": name,
            "record": key.record,
            "strings": zone_strings(key),
            "zone_line": zone_line(entry),
        }
        click.echo(json.dumps(shown))
        return
    if key.warning:
        say_error(key.warning)
    click.echo(f"# {key.kind.value}, {key.bits} bits, selector {entry.selector}; private key in {file}")
    click.echo(f"# a line of a zone file:\n{zone_line(entry)}")
    click.echo(f"# TXT record at {name}, as one string:\n{key.record}")
    click.echo("# in strings of at most 255 octets:")
    for text in zone_strings(key):
        click.echo(f'"{text}"')
    click.echo("")


@keys.command()
@click.option("--table", "table_file", type=click.Path(dir_okay=False), help="A table of author domains.")
@click.option("--key-table", help="OpenDKIM's KeyTable (file: or a path).")
@click.option("--signing-table", help="OpenDKIM's SigningTable (file:, refile: or a path).")
@click.option("--domain", help="One key: its domain,")
@click.option("--selector", help="its selector,")
@click.option("--key", "key_file", type=click.Path(dir_okay=False), help="and its file.")
@click.option("--zone", type=click.Path(dir_okay=False), help="Answer DNS from this file (YAML or JSON).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a key.")
@CONFIG_OPTION
@reports_errors
def check(
    *,
    table_file: str | None,
    key_table: str | None,
    signing_table: str | None,
    domain: str | None,
    selector: str | None,
    key_file: str | None,
    zone: str | None,
    as_json: bool,
    config_path: str | None,
) -> None:
    """Ask the DNS whether it publishes what we hold, for every key at the same time.

    Without a table or key: every key that signs by the configuration.

    Exit code 1: some key is not published as it should be; 69: nothing is wrong, but some question had no answer.
    """
    found: list[Table] = []
    if table_file is not None:
        lines = parse_table(config_load.read_text(Path(table_file)), table_file)
        found.append(DomainTable.of(lines, _loaded((line.key for line in lines), Path(table_file).parent)))
    if (key_table is None) != (signing_table is None):
        raise click.UsageError("give both --key-table and --signing-table")
    if key_table is not None and signing_table is not None:
        found.append(_opendkim(key_table, signing_table))
    if domain is not None and selector is not None and key_file is not None:
        found.append(_single(domain, selector, key_file))
    elif domain is not None or selector is not None or key_file is not None:
        raise click.UsageError("give --domain, --selector and --key together")
    loaded = config_load.load(config_path)
    if not found:
        settings = runtime.signing_settings(loaded)
        if settings is None:
            raise click.UsageError(
                "the configuration has no `signing`: give --table, --key-table and --signing-table, or --domain, "
                "--selector and --key"
            )
        found += settings.tables
    resolver: Resolver = (
        runtime.load_zone(zone) if zone is not None else runtime.resolver_for(loaded.config, base=loaded)
    )
    code = report([item for one in found for item in one.listed], resolver, as_json=as_json)
    if code is not ExitCode.OK:
        raise click.exceptions.Exit(int(code))


def _loaded(sources: Iterable[KeySource], base: Path) -> KeyRing:
    """Load keys for a look at their public halves: who else may read them is told, and no reason to stop."""
    ring = load(sources, base=base, require_safe=False)
    for warning in ring.warnings:
        say_error(warning)
    return ring


def _opendkim(key_table: str, signing_table: str) -> OpenDkimTable:
    try:
        key_path, _ = table_path(key_table)
        signing_path, regular = table_path(signing_table)
    except ValueError as e:
        raise click.UsageError(str(e)) from None
    tables = read_tables(
        config_load.read_text(Path(key_path)),
        config_load.read_text(Path(signing_path)),
        key_file=key_path,
        signing_file=signing_path,
        regular=regular,
        multiple=True,
    )
    return OpenDkimTable.of(tables, _loaded(tables.sources, Path(key_path).parent))


def _single(domain: str, selector: str, key_file: str) -> FixedTable:
    source = KeySource(path=key_file)
    ring = _loaded([source], Path())
    if source not in ring.keys:
        raise KeyMaterialError(f"{source}: {ring.why_not(source)}")
    try:
        base = Domain.parse(domain)
        return FixedTable(base, (Signer(domain=base, selector=selector.lower(), key=ring.keys[source]),))
    except InvalidName as e:
        raise click.UsageError(str(e)) from None


_COLOURS = {
    PublicationState.PUBLISHED: "green",
    PublicationState.UNKNOWN: "yellow",
}


def report(
    entries: list[tuple[str, SigningEntry]], resolver: Resolver, *, as_json: bool, out: Console | None = None
) -> ExitCode:
    """Ask for every entry and print what the DNS says.

    Args:
        entries: the line of the configuration and the entry, as `Table.listed` has them.
        resolver: whom to ask.
        as_json: one JSON object a line, for programs.
        out: where a table for people goes; default: standard output.

    Returns:
        OK if all are published, FOUND if some is not, UNAVAILABLE if nothing else is wrong than that some
        question had no answer.
    """
    told = asyncio.run(check_published([entry for _, entry in entries], resolver))
    if as_json:
        for (line, _), one in zip(entries, told, strict=True):
            click.echo(json.dumps(_as_dict(line, one)))
    else:
        columns = Columns()
        # Names and states stay whole in 80 columns, so that they can be copied and searched for.
        for title in ("key", "DNS"):
            columns.add_column(title, no_wrap=True)
        columns.add_column("about", overflow="fold")
        for (line, entry), one in zip(entries, told, strict=True):
            colour = _COLOURS.get(one.state, "red")
            about = (f"{entry.key.kind.value} {entry.key.bits}", one.detail, line)
            columns.add_row(
                escape(entry.question.name),
                f"[{colour}]{one.state.value}[/]",
                "\n".join(escape(text) for text in about if text),
            )
        (out or console()).print(columns)
    states = {one.state for one in told}
    if not states <= {PublicationState.PUBLISHED, PublicationState.UNKNOWN}:
        return ExitCode.FOUND
    return ExitCode.UNAVAILABLE if PublicationState.UNKNOWN in states else ExitCode.OK


def _as_dict(line: str, one: Publication) -> dict[str, object]:
    entry = one.entry
    return {
        "name": entry.question.name,
        "domain": entry.domain.ascii,
        "selector": entry.selector,
        "type": entry.key.kind.value,
        "bits": entry.key.bits,
        "state": one.state.value,
        "detail": one.detail,
        "testing": one.testing,
        "line": line,
    }
