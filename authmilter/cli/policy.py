"""`authmilter policy check|test|facts|schema|show`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from authmilter import runtime
from authmilter.cli.output import CONFIG_OPTION, ExitCode, console, fail, reports_errors
from authmilter.config import load as config_load
from authmilter.policy import facts as policy_facts
from authmilter.policy import schema as policy_schema
from authmilter.policy import shipped, testing

__all__ = ["policy"]


@click.group()
def policy() -> None:
    """Check and test policies, and list what a rule may ask about."""


@policy.command()
@click.argument("name", required=False)
@CONFIG_OPTION
@reports_errors
def check(name: str | None, config_path: str | None) -> None:
    """Check a policy: NAME is monitor, enforce, strict or a file; default: the configured one.

    Lists every mistake with file, line and column (exit 78); warnings do not fail.
    """
    found = runtime.load_policy(config_load.load(config_path), name)
    out = console()
    out.print(f"[green]ok[/] {escape(found.name)}: {len(found.rules)} rules, mode {found.mode}")
    for warning in found.warnings:
        out.print(f"[yellow]warning[/] {escape(str(warning))}")


@policy.command()
@click.argument("name")
@click.argument("cases", type=click.Path(dir_okay=False), required=False)
@CONFIG_OPTION
@reports_errors
def test(name: str, cases: str | None, config_path: str | None) -> None:
    """Run a policy's own tests: CASES, or the *.test.yaml beside the policy. Exit 1 if one fails.

    Rules that no case made true are named: they are not tested.
    """
    found = runtime.load_policy(config_load.load(config_path), name)
    if cases is None and not shipped.is_path(name):
        text, file = shipped.shipped_tests(name), f"{name}.test.yaml"
    else:
        path = Path(cases) if cases is not None else Path(name).with_name(f"{Path(name).stem}.test.yaml")
        if not path.exists():
            raise fail(f"{path}: there is no such file", ExitCode.NO_INPUT)
        text, file = config_load.read_text(path), str(path)
    outcomes = testing.run(found, text, file)
    out = console()
    for outcome in outcomes:
        if outcome.problem:
            out.print(f"[red]FAIL[/] {escape(outcome.name)}: {escape(outcome.problem)}")
    for rule in testing.uncovered(found, outcomes):
        out.print(f"[yellow]warning[/] no case makes the rule {escape(rule)} true")
    failed = sum(1 for o in outcomes if o.problem)
    out.print(f"{len(outcomes) - failed} passed, {failed} failed")
    if failed or not outcomes:
        raise click.exceptions.Exit(int(ExitCode.FOUND))


@policy.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def facts(*, as_json: bool) -> None:
    """List every fact a rule may mention, with its type and meaning."""
    rows = [(f.name, f.type_text, f.doc) for f in policy_facts.SCHEMA.values()]
    if as_json:
        click.echo(json.dumps([{"name": n, "type": t, "doc": d} for n, t, d in rows], indent=2))
        return
    table = Table("fact", "type", "meaning")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console().print(table)


@policy.command()
def schema() -> None:
    """Print the JSON Schema of a policy file."""
    click.echo(json.dumps(policy_schema.json_schema(), indent=2, sort_keys=True))


@policy.command()
@click.argument("name", type=click.Choice(list(shipped.NAMES)))
def show(name: str) -> None:
    """Print a shipped policy, as a starting point for your own."""
    click.echo(shipped.shipped_text(name), nl=False)
