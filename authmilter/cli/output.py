"""What every command shares: the option that names the configuration, exit codes, error lines, consoles.

rich is loaded where something is written with it, so that the service (`authmilter run`) does not hold it in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from authmilter.errors import AuthMilterError, ConfigError, PolicyError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["CONFIG_OPTION", "ExitCode", "console", "fail", "reports_errors", "say_error"]

CONFIG_OPTION = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(dir_okay=False),
    help="Configuration file; default /etc/authmilter/authmilter.yaml, else the built-in defaults.",
)

P = ParamSpec("P")
R = TypeVar("R")


class ExitCode(IntEnum):
    """Exit codes, those of sysexits.h where one fits."""

    OK = 0
    #: something was found wrong that the command was asked to look for (policy check, config check)
    FOUND = 1
    #: the command line is wrong (EX_USAGE)
    USAGE = 64
    #: the input is not what it should be (EX_DATAERR)
    DATA = 65
    #: the input cannot be read (EX_NOINPUT)
    NO_INPUT = 66
    #: the service does not answer (EX_UNAVAILABLE)
    UNAVAILABLE = 69
    #: we failed (EX_SOFTWARE)
    SOFTWARE = 70
    #: the operating system refused (EX_OSERR)
    OS = 71
    #: the service does not let us (EX_NOPERM)
    FORBIDDEN = 77
    #: the configuration or policy cannot be used (EX_CONFIG)
    CONFIG = 78


def console(*, stderr: bool = False) -> Console:
    """Return a console for people: colour on a terminal only, and `:name:` stays as it is written."""
    from rich.console import Console  # noqa: PLC0415 - see above

    return Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)


def say_error(message: str) -> None:
    """Write one error to standard error, whole lines, no traceback."""
    from rich.markup import escape  # noqa: PLC0415 - see above

    out = console(stderr=True)
    for line in message.splitlines():
        out.print(f"[bold red]authmilter:[/] {escape(line)}")


def fail(message: str, code: ExitCode) -> click.exceptions.Exit:
    """Write an error and return what to raise to leave with `code`."""
    say_error(message)
    return click.exceptions.Exit(int(code))


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn operational errors into lines on standard error and an exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ConfigError as e:
            raise fail(str(e), ExitCode.CONFIG) from None
        except PolicyError as e:
            raise fail(str(e), ExitCode.CONFIG) from None
        except AuthMilterError as e:
            raise fail(str(e), ExitCode.DATA) from None
        except BrokenPipeError:
            # Whoever read our output (head, less) has gone: nothing left to say.
            sys.stderr.close()
            raise click.exceptions.Exit(int(ExitCode.OK)) from None
        except OSError as e:
            name = f"{e.filename}: " if e.filename else ""
            raise fail(f"{name}{e.strerror or e}", ExitCode.OS) from None

    return wrapped
