"""`authmilter run`, `status` and `reload`: the service and its control socket."""

from __future__ import annotations

import json
import socket

import click
from rich.markup import escape
from rich.table import Table

from authmilter.cli.config import CONFIG_OPTION
from authmilter.cli.output import ExitCode, console, fail, reports_errors
from authmilter.config import load as config_load
from authmilter.config.model import Config
from authmilter.supervisor import StartError, Supervisor

__all__ = ["reload_", "run", "status"]

_MAX_ANSWER = 4 << 20


@click.command()
@CONFIG_OPTION
@click.option("--show-postfix", is_flag=True, help="First print the lines to add to Postfix's main.cf.")
@reports_errors
def run(config_path: str | None, *, show_postfix: bool) -> None:
    """Start the service in the foreground (a service manager or a container keeps it there).

    SIGHUP or SIGUSR1 reloads, SIGTERM stops after open sessions have ended (at most milter.drain).
    """
    supervisor = Supervisor(config_path)
    if show_postfix:
        click.echo(postfix_lines(config_load.load(config_path).config))
    try:
        code = supervisor.run()
    except StartError as e:
        raise fail(str(e), ExitCode.OS) from None
    raise click.exceptions.Exit(code)


def postfix_lines(config: Config) -> str:
    """Return the lines that wire the first listener into Postfix's main.cf."""
    from authmilter.milter.sockets import ListenSpec  # noqa: PLC0415 - only this text needs it

    where = ListenSpec.parse(config.milter.listen[0]).for_postfix
    return (
        "# add to /etc/postfix/main.cf, then: postfix reload\n"
        f"smtpd_milters = {{ {where}, default_action=tempfail }}\n"
        "non_smtpd_milters = $smtpd_milters"
    )


@click.command()
@CONFIG_OPTION
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@reports_errors
def status(config_path: str | None, *, as_json: bool) -> None:
    """Show the running service: generation, policy, workers, sessions and counters."""
    answer = _ask(config_path, {"command": "status"})
    if as_json:
        click.echo(json.dumps(answer))
        return
    out = console()
    out.print(
        f"authmilter {escape(str(answer['version']))}, up {answer['uptime_seconds']} s, generation "
        f"{answer['generation']}, policy {escape(str(answer['policy']))} (digest {escape(str(answer['digest']))})"
    )
    listen = answer["listen"]
    assert isinstance(listen, list)  # the supervisor's own answer
    out.print("listening on " + escape(", ".join(str(item) for item in listen)))
    table = Table("worker", "generation", "sessions", "state")
    workers = answer["workers"]
    assert isinstance(workers, list)  # as above
    for item in workers:
        state = "draining" if item["draining"] else "ready" if item["ready"] else "starting"
        table.add_row(str(item["pid"]), str(item["generation"]), str(item["sessions"]), state)
    out.print(table)
    counters = answer["counters"]
    assert isinstance(counters, dict)  # as above
    for key in sorted(counters):
        out.print(f"  {escape(key)} {counters[key]:g}")
    out.print(f"  restarts {answer['restarts']}, sessions cut {answer['sessions_cut']}")


@click.command("reload")
@CONFIG_OPTION
@reports_errors
def reload_(config_path: str | None) -> None:
    """Read the configuration, policy and lists anew; if anything is wrong, the old ones stay (exit 78)."""
    answer = _ask(config_path, {"command": "reload"})
    if "error" in answer:
        raise fail(str(answer["error"]), ExitCode.CONFIG)
    click.echo(f"reloaded: generation {answer['generation']}, digest {answer['digest']}")


def _ask(config_path: str | None, request: dict[str, object]) -> dict[str, object]:
    path = config_load.load(config_path).config.control.socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(90.0)
            sock.connect(path)
            sock.sendall(json.dumps(request).encode() + b"\n")
            data = bytearray()
            while len(data) < _MAX_ANSWER and not data.endswith(b"\n"):
                piece = sock.recv(65536)
                if not piece:
                    break
                data += piece
    except OSError as e:
        raise fail(f"{path}: the service does not answer: {e.strerror or e}", ExitCode.UNAVAILABLE) from None
    answer = json.loads(bytes(data) or b'{"error": "no answer"}')
    assert isinstance(answer, dict)  # our own supervisor wrote it
    return answer
