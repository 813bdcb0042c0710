"""`authmilter config check|show|schema` and `authmilter version`."""

from __future__ import annotations

import importlib.metadata
import json
import platform

import click
from rich.markup import escape

from authmilter import makers, runtime
from authmilter.cli.output import CONFIG_OPTION, console, reports_errors
from authmilter.config import load as config_load
from authmilter.octets import chosen as octets

__all__ = ["config", "version"]


@click.group()
def config() -> None:
    """Check, show or describe the configuration file."""


@config.command()
@CONFIG_OPTION
@reports_errors
def check(config_path: str | None) -> None:
    """Read the configuration and its policy; list every mistake with file, line and column (exit 78)."""
    loaded = config_load.load(config_path)
    policy = runtime.load_policy(loaded)
    runtime.resolver_for(loaded.config, base=loaded)
    runtime.arc_settings(loaded)
    out = console()
    where = str(loaded.path) if loaded.path is not None else "built-in defaults"
    out.print(f"[green]ok[/] {escape(where)}: policy {escape(policy.name)} with {len(policy.rules)} rules")
    for warning in (*config_load.warnings(loaded.config), *policy.warnings):
        out.print(f"[yellow]warning[/] {escape(str(warning))}")


@config.command()
@CONFIG_OPTION
@reports_errors
def show(config_path: str | None) -> None:
    """Print every effective setting, defaults included, as YAML."""
    from authmilter import documents  # noqa: PLC0415 - only this command writes YAML

    click.echo(documents.dump(config_load.load(config_path).config.as_document()), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file (editors use it to complete and check)."""
    click.echo(json.dumps(config_load.json_schema(), indent=2, sort_keys=True))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def version(*, as_json: bool) -> None:
    """Print the versions of authmilter and of what it stands on."""
    names = (
        "authmilter",
        "pyspf",
        "dkimpy",
        "authres",
        "dnspython",
        "cryptography",
        "publicsuffixlist",
        "uvloop",
        "pymilter",
    )
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["python"] = platform.python_version()
    parts = [name for name, used in (("octets", octets.COMPILED), ("makers", makers.COMPILED)) if used]
    found["compiled"] = (
        ", ".join(parts) or "nothing (no C compiler when it was installed, or AUTHMILTER_PURE)"
    )
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"authmilter {found.pop('authmilter')}")
    for name, text in found.items():
        click.echo(f"  {name} {text}")
