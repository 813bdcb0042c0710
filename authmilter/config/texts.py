"""A configuration's text files as one value: read once, then the same for everybody.

Whoever checks a configuration reads its files with `recorder`; what it read travels as a mapping of path to text,
and whoever builds from it reads with `reader`. So all workers judge by what was checked, even if a file has changed
since, and a worker that is started later does too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from authmilter.config.loaded import read_text
from authmilter.errors import Complaint, ConfigError, Span

__all__ = ["reader", "recorder"]


def recorder(texts: dict[str, str]) -> Callable[[Path], str]:
    """Return a `read_text` that reads each file once, and notes in `texts` what it read."""

    def read(file: Path) -> str:
        name = str(file)
        if name not in texts:
            texts[name] = read_text(file)
        return texts[name]

    return read


def reader(texts: Mapping[str, str]) -> Callable[[Path], str]:
    """Return a `read_text` that knows these files and no others (ConfigError, as where a file is not there)."""

    def read(file: Path) -> str:
        text = texts.get(str(file))
        if text is None:
            complaint = Complaint(span=Span(file=str(file)), message="was not read when this was checked")
            raise ConfigError((complaint,)) from FileNotFoundError(
                errno.ENOENT, os.strerror(errno.ENOENT), str(file)
            )
        return text

    return read
