"""A configuration that was read, and the texts of the files that it names; needs no library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from authmilter.errors import Complaint, ConfigError, Span

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["Loaded", "read_text"]

_MAX_OCTETS = 1 << 20


def read_text(file: Path) -> str:
    """Return the text of a UTF-8 file of at most 1 MiB; raise ConfigError in an administrator's words."""
    try:
        with file.open("rb") as source:
            data = source.read(_MAX_OCTETS + 1)
    except OSError as e:
        raise _unreadable(file, f"cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise _unreadable(Path(repr(str(file))), "cannot be read: this is no file name") from e
    if len(data) > _MAX_OCTETS:
        raise _unreadable(file, "is larger than 1 MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        before = data[: e.start].decode("utf-8")
        line_start = before.rfind("\n") + 1
        span = Span(file=str(file), line=before.count("\n") + 1, column=len(before) - line_start + 1)
        raise ConfigError((Complaint(span=span, message="is not UTF-8 text"),)) from e


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration and where it came from: `path` None means the defaults; relative paths start at `base`.

    `read` reads the files that it names (policy, lists, zone); it raises ConfigError as `read_text` does.
    """

    config: Config
    path: Path | None
    base: Path
    read: Callable[[Path], str] = read_text

    def resolve(self, name: str) -> Path:
        """Return the path that a setting names, relative to the configuration file."""
        return self.base / name


def _unreadable(file: Path, message: str) -> ConfigError:
    return ConfigError((Complaint(span=Span(file=str(file)), message=message),))
