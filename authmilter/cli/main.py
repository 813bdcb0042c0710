"""The `authmilter` command: its groups, and how it leaves."""

from __future__ import annotations

import sys
import traceback

import click

from authmilter.cli.output import ExitCode, say_error

__all__ = ["cli", "main"]

#: command -> (module, function): loaded when asked for, so that `--help` and `version` are quick.
_COMMANDS = {
    "run": ("authmilter.cli.run", "run"),
    "status": ("authmilter.cli.run", "status"),
    "reload": ("authmilter.cli.run", "reload_"),
    "verify": ("authmilter.cli.verify", "verify"),
    "call": ("authmilter.cli.call", "call"),
    "sign": ("authmilter.cli.sign", "sign"),
    "keys": ("authmilter.cli.keys", "keys"),
    "config": ("authmilter.cli.config", "config"),
    "policy": ("authmilter.cli.policy", "policy"),
    "bimi": ("authmilter.cli.bimi", "bimi"),
    "grpc": ("authmilter.cli.grpc", "grpc"),
    "version": ("authmilter.cli.config", "version"),
}


class _Lazy(click.Group):
    """A group that imports a command only when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's shape
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module = __import__(place[0], fromlist=[place[1]])
        command = getattr(module, place[1])
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 found wrong, 64 usage, 65 bad input, 66 input not readable, 69 service not "
    "reachable, 70 internal error, 71 refused by the system, 77 not permitted by the service, 78 configuration.",
)
def cli() -> None:
    """SPF, DKIM, DMARC and iprev for Postfix and Sendmail, in one milter, with a policy that explains itself.

    \b
    authmilter run                          start the service in the foreground
    authmilter verify mail.eml --ip 192.0.2.1 --mail-from a@example.com
                                            judge one message and show why
    authmilter call verify mail.eml --server unix:/run/authmilter/grpc.sock
                                            have a running service judge it, over gRPC
    authmilter config check                 read the configuration, list every mistake
    authmilter policy check FILE            the same for a policy
    """  # noqa: D301 - the backspace is click's mark for a paragraph to be left as it is


def main() -> None:
    """Run the command line; never shows a traceback for a wrong command line."""
    try:
        code = cli.main(standalone_mode=False, prog_name="authmilter")
    except click.UsageError as e:
        e.show()
        sys.exit(int(ExitCode.USAGE))
    except click.ClickException as e:
        e.show()
        sys.exit(int(ExitCode.NO_INPUT) if isinstance(e, click.FileError) else int(ExitCode.USAGE))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as e:  # noqa: BLE001 - the door's outermost line: a fault of ours has an exit code of its own
        say_error(
            "".join(traceback.format_exception(e)) + "internal error: please report it with the lines above"
        )
        sys.exit(int(ExitCode.SOFTWARE))
    sys.exit(code if isinstance(code, int) else 0)
