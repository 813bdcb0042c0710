"""The command as a user runs it: a process, its two outputs and its exit code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ran", "run"]

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """What came of it."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The error lines, without the command's name."""
        return [line.removeprefix("authmilter: ") for line in self.err.splitlines()]


def run(*arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> Ran:
    """Run `authmilter` with these arguments; from `cwd`, to show that nothing depends on the source's folder."""
    done = subprocess.run(
        [sys.executable, "-m", "authmilter", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        cwd=cwd or _ROOT,
        env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "LC_ALL": "C.UTF-8"},
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
