"""`authmilter run`, `status` and `reload`: the service and its control socket.

rich and pydantic are loaded where something is shown or read: `run` stays in memory, and never needs them.
"""

from __future__ import annotations

import gc
import json
import re
import signal
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from authmilter.cli.output import CONFIG_OPTION, ExitCode, console, fail, reports_errors
from authmilter.errors import AuthMilterError, ConfigError
from authmilter.startup import StartError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from authmilter.config.model import Config
    from authmilter.supervisor import Supervisor

__all__ = ["SilentServiceError", "ask", "reload_", "run", "show", "status"]

_MAX_ANSWER = 4 << 20
#: Longer than the supervisor takes at most to read a configuration and bring its workers to use it.
_PATIENCE = 180.0


@click.command()
@CONFIG_OPTION
@click.option(
    "--only",
    "role",
    type=click.Choice(["milter", "grpc"]),
    help="Run one worker of this role in this process, without the supervisor (no control socket, no restarts).",
)
@click.option("--show-postfix", is_flag=True, help="First print the lines to add to Postfix's main.cf.")
@reports_errors
def run(config_path: str | None, *, role: str | None, show_postfix: bool) -> None:
    """Start the service in the foreground (a service manager or a container keeps it there).

    SIGHUP or SIGUSR1 reloads; SIGTERM stops once open sessions have ended (after milter.drain at the latest), and
    a second SIGTERM at once.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # a reload before anything is loaded has nothing to do
    from authmilter.supervise.reading import look  # noqa: PLC0415 - `status` and `reload` need none of it

    try:
        supervisor = _supervisor(config_path) if role is None else None
        if show_postfix:
            click.echo(postfix_lines(look(config_path).config))
        if supervisor is not None:
            code = supervisor.run()
        else:
            from authmilter.worker import serve_alone, serve_grpc_alone  # noqa: PLC0415 - as above

            code = serve_grpc_alone(config_path) if role == "grpc" else serve_alone(config_path)
    except StartError as e:
        raise fail(str(e), ExitCode.OS) from None
    raise click.exceptions.Exit(code)


def _supervisor(config_path: str | None) -> Supervisor:
    """Return the service, not yet begun; its larger part is loaded while a child reads the configuration."""
    from authmilter.supervise.loop import Loop  # noqa: PLC0415 - `status` and `reload` need none of it
    from authmilter.supervise.reading import Look  # noqa: PLC0415 - as above

    loop = Loop()
    gc.disable()  # what is loaded stays: the collector would look at all of it again and again
    settings = Look(config_path, loop.leave)
    from authmilter.supervisor import Supervisor  # noqa: PLC0415 - takes longer than all else

    gc.freeze()
    gc.enable()
    return Supervisor(config_path, loop, settings)


def postfix_lines(config: Config) -> str:
    """Return the lines that wire the first listener into Postfix's main.cf."""
    from authmilter.milter.sockets import ListenSpec  # noqa: PLC0415 - only this text needs it

    where = ListenSpec.parse(config.milter.listen[0]).for_postfix
    return (
        "# add to /etc/postfix/main.cf, then: postfix reload\n"
        f"smtpd_milters = {{ {where}, default_action=tempfail }}\n"
        "non_smtpd_milters = $smtpd_milters"
    )


_SOCKET_OPTION = click.option(
    "--socket", "control", metavar="PATH", help="The control socket; default: as the configuration says."
)


@click.command()
@CONFIG_OPTION
@_SOCKET_OPTION
@click.option("--json", "as_json", is_flag=True, help="For machines: everything there is, in one line.")
@reports_errors
def status(config_path: str | None, *, control: str | None, as_json: bool) -> None:
    """Show the running service: generation, policy, workers, sessions, and what became of the messages."""
    answer = _ask(control or _control_path(config_path), "status")
    if as_json:
        click.echo(json.dumps(answer))
    else:
        show(answer, console())


def show(answer: dict[str, Any], out: Console) -> None:
    """Print the supervisor's answer to `status` for a person."""
    from rich.table import Table  # noqa: PLC0415 - see above

    out.print(
        f"authmilter {_e(answer['version'])}, up {_span(answer['uptime_seconds'])}, configuration"
        f" {_e(answer['config'])}, policy {_e(answer['policy'])} (digest {_e(answer['digest'])})"
    )
    state = "stopping" if answer["stopping"] else "reloading" if answer["reloading"] else "serving"
    out.print(
        f"{state}, generation {answer['generation']}, engine {_e(answer['engine'])}, listening on"
        f" {_e(', '.join(answer['listen'])) or 'nothing'}"
    )
    last = answer["last_reload"]
    if "error" in last:
        out.print(f"[bold red]the last reload, {_span(last['seconds_ago'])} ago, was refused:[/]")
        for line in str(last["error"]).splitlines():
            out.print(f"  {_e(line)}")
    table = Table("worker", "role", "generation", "up", "sessions", "messages", "state", "settings")
    for item in answer["workers"]:
        word = "draining" if item["draining"] else "ready" if item["ready"] else "starting"
        table.add_row(
            *(str(item["pid"]), str(item["role"]), str(item["generation"]), _span(item["uptime_seconds"])),
            *(str(item["sessions"]), f"{item['messages']:.0f}", word, _e(item["digest"])),
        )
    out.print(table)
    out.print(
        f"{answer['sessions']} sessions open; workers restarted"
        f" {answer['restarts']} times; ended by us: {answer['sessions_closed']} sessions between messages,"
        f" {answer['sessions_cut']} at work"
    )
    _show_counters({str(k): float(v) for k, v in answer["counters"].items()}, out)


def _show_counters(counters: dict[str, float], out: Console) -> None:
    from rich.table import Table  # noqa: PLC0415 - see above

    families = _families(counters)
    total = families.pop("messages", {}).pop("", 0.0)
    out.print(f"\n{total:.0f} messages{_costs(families, total)}")
    origins = {k: v for k, v in _families(counters).get("messages", {}).items() if k}
    would = families.pop("would_have", {})
    parts = (
        ("origin", {k.removeprefix("origin="): v for k, v in origins.items()}),
        ("disposition", families.pop("disposition", {})),
        ("rule", families.pop("rule", {})),
    )
    decided = Table("decided by", "", "messages", "share")
    for title, numbers in parts:
        _add_rows(decided, title, numbers, total)
    if decided.row_count:
        out.print(decided)
    if would:
        held_back = Table(
            "would have been", "by rule", "messages", "share", title="not enforced (monitor mode)"
        )
        for key, number in _by_size(would):
            disposition, _, rule = key.partition(",rule=")
            held_back.add_row(_e(disposition), _e(rule), f"{number:.0f}", _share(number, total))
        out.print(held_back)
    checks = Table("check", "result", "messages", "share")
    for name in ("spf", "dkim", "dmarc", "arc", "iprev"):
        _add_rows(checks, name, families.pop(name, {}), total)
    if checks.row_count:
        out.print(checks)
    rest = Table("also counted", "", "number")
    for name, numbers in sorted(families.items()):
        for key, number in _by_size(numbers):
            rest.add_row(_e(name), _e(key), f"{number:g}")
    if rest.row_count:
        out.print(rest)


def _costs(families: dict[str, dict[str, float]], total: float) -> str:
    """Take the counters of time and DNS out, and say what a message cost."""
    seconds, asked, remembered = (
        families.pop(name, {}).get("", 0.0) for name in ("verdict_seconds", "dns_questions", "dns_remembered")
    )
    if not total:
        return ""
    return (
        f", {1000 * seconds / total:.1f} ms each from end to verdict, {asked / total:.1f} DNS questions each"
        f" ({remembered / total:.1f} remembered)"
    )


def _families(counters: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return the counters by name and then by what stands in their braces."""
    found: dict[str, dict[str, float]] = {}
    for key, number in counters.items():
        match = re.fullmatch(r"([^{]*)(?:\{(.*)\})?", key, re.DOTALL)
        name, label = match.groups() if match is not None else (key, None)
        found.setdefault(name, {})[label or ""] = number
    return found


def _by_size(numbers: dict[str, float]) -> Iterable[tuple[str, float]]:
    return sorted(numbers.items(), key=lambda item: (-item[1], item[0]))


def _add_rows(table: Table, title: str, numbers: dict[str, float], total: float) -> None:
    for key, number in _by_size(numbers):
        table.add_row(title, _e(key), f"{number:.0f}", _share(number, total))
        title = ""
    if numbers:
        table.add_section()


def _share(number: float, total: float) -> str:
    return f"{100 * number / total:.1f} %" if total else ""


def _span(seconds: float) -> str:
    """Return a time span as people say it: `42 s`, `3 min`, `5 h 20 min`, `12 d 3 h`."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if not minutes:
        return f"{seconds:.0f} s"
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if not days else f"{days} d {hours % 24} h"


def _e(text: object) -> str:
    from rich.markup import escape  # noqa: PLC0415 - see above

    return escape(str(text))


@click.command("reload")
@CONFIG_OPTION
@_SOCKET_OPTION
@reports_errors
def reload_(config_path: str | None, *, control: str | None) -> None:
    """Read the configuration, policy and lists anew; if anything is wrong, the old ones stay (exit 78)."""
    answer = _ask(control or _control_path(config_path), "reload")
    if "error" in answer:
        raise fail(str(answer["error"]), ExitCode.CONFIG)
    for warning in answer["warnings"]:
        console().print(f"[yellow]warning[/] {_e(warning)}")
    how = "in new workers" if answer["how"] == "generation" else "in the running workers"
    click.echo(f"reloaded {how}: generation {answer['generation']}, digest {answer['digest']}")


def _control_path(config_path: str | None) -> str:
    """Return the control socket's path, also where the file is wrong: the service runs with an earlier one."""
    from authmilter import documents  # noqa: PLC0415 - see above
    from authmilter.config import load as config_load  # noqa: PLC0415 - see above
    from authmilter.config.model import Config  # noqa: PLC0415 - see above

    try:
        return config_load.load(config_path).config.control.socket
    except ConfigError:
        path = Path(config_path) if config_path is not None else config_load.DEFAULT_PATH
    default = Config().control.socket
    try:
        data = documents.parse(config_load.read_text(path), str(path)).data
    except ConfigError:
        return default
    section = data.get("control") if isinstance(data, dict) else None
    found = section.get("socket") if isinstance(section, dict) else None
    return found if isinstance(found, str) else default


class SilentServiceError(AuthMilterError):
    """Nobody answers on the control socket, or with something that is no answer."""


def _ask(path: str, command: str) -> dict[str, Any]:
    try:
        return ask(path, command)
    except SilentServiceError as e:
        raise fail(str(e), ExitCode.UNAVAILABLE) from None


def ask(path: str, command: str) -> dict[str, Any]:
    """Say `command` (status, reload, stop) on the control socket at `path` and return the service's answer.

    Raises:
        SilentServiceError: there is none.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(path)
            sock.sendall(json.dumps({"command": command}).encode() + b"\n")
            data = bytearray()
            while len(data) < _MAX_ANSWER and not data.endswith(b"\n"):
                piece = sock.recv(65536)
                if not piece:
                    break
                data += piece
    except OSError as e:
        raise SilentServiceError(f"{path}: the service does not answer: {e.strerror or e}") from None
    try:
        answer = json.loads(bytes(data))
    except ValueError:
        raise SilentServiceError(f"{path}: the service hung up without an answer") from None
    assert isinstance(answer, dict)  # our own supervisor wrote it
    return answer
