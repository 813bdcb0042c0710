"""What a person hands to a command: a message, a time.

How it fails: `DecodeError` for what cannot be used; a file that cannot be read ends the command.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from authmilter.cli.output import ExitCode, fail
from authmilter.errors import DecodeError
from authmilter.text import printable

__all__ = ["MAX_MESSAGE", "read_file", "read_message", "read_time"]

#: A message on the command line may be as large as Postfix's default message_size_limit several times over.
MAX_MESSAGE = 256 << 20


def read_message(name: str) -> bytes:
    """Return the message that the command line names: a file, or - for standard input.

    Raises:
        click.exceptions.Exit: it cannot be read.
        DecodeError: it is too large.
    """
    try:
        return _limited(sys.stdin.buffer, name) if name == "-" else read_file(name)
    except OSError as e:
        raise fail(f"{name}: {e.strerror}", ExitCode.NO_INPUT) from None


def read_file(path: str) -> bytes:
    """Return what a file holds.

    Raises:
        DecodeError: too much, or no name of a file.
        OSError: it cannot be read.
    """
    try:
        source = Path(path).open("rb")  # noqa: SIM115 - opened here, so that only opening it is a wrong name
    except ValueError:
        raise DecodeError(f"`{printable(path, 64)}` is no file name") from None
    with source:
        return _limited(source, path)


def _limited(source: BinaryIO, name: str) -> bytes:
    data = source.read(MAX_MESSAGE + 1)
    if len(data) > MAX_MESSAGE:
        raise DecodeError(f"{printable(name, 256)}: larger than {MAX_MESSAGE >> 20} MiB")
    return data


def read_time(text: str) -> datetime:
    """Return a time of RFC 3339, in UTC where it has no zone.

    Raises:
        DecodeError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DecodeError(f"`{printable(text, 64)}` is no time such as 2026-11-22T10:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
