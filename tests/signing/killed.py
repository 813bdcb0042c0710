"""The real command in a process of its own, which kills itself (SIGKILL) before its n-th step on the disk.

    python -m tests.signing.killed < REQUESTS > ANSWERS

Each request is a line of JSON, `{"words": [...], "stop": 3}`; the command runs in a fork of this process, so that
its modules are loaded once. The answer is `{"killed": true}` or `{"code": 0, "out": "...", "err": "..."}`. Nothing of
the command is replaced: the interpreter's profiler is told of each call into the operating system.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
#: Calls that change a folder, or order its changes.
STEPS = frozenset(
    {("posix", n) for n in ("open", "write", "fsync", "replace", "fchown", "fchmod")} | {("fcntl", "flock")}
)


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    killed: bool
    code: int = -1
    out: str = ""
    err: str = ""


class Commands:
    """A context manager that runs commands; `run` says how each ended."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.signing.killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def run(self, *words: str, stop: int | None = None) -> Ran:
        """Run `authmilter WORDS`, killed before its step `stop` (0 is the first) if it has so many."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "stop": stop}) + "\n")
        self._process.stdin.flush()
        return Ran(**json.loads(self._process.stdout.readline()))


def _kill_at(stop: int) -> None:
    left = stop

    def heard(_frame: FrameType, event: str, called: Any) -> None:
        nonlocal left
        if event == "c_call" and (getattr(called, "__module__", ""), called.__name__) in STEPS:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.setprofile(heard)


def _command(words: list[str], stop: int | None) -> None:
    from authmilter.cli.main import main as command  # noqa: PLC0415 - loaded before the first fork

    sys.argv = ["authmilter", *words]
    if stop is not None:
        _kill_at(stop)
    command()


def main() -> None:
    from authmilter.cli import keys  # noqa: PLC0415 - so that each fork has it

    del keys
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                try:
                    _command(request["words"], request["stop"])
                finally:
                    sys.setprofile(None)
                    sys.stdout.flush()
                    error = sys.exception()
                    os._exit(
                        error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 70
                    )
            status = os.waitpid(pid, 0)[1]
            answer: dict[str, Any] = {"killed": True}
            if not os.WIFSIGNALED(status):
                texts = []
                for file in (out, err):
                    file.seek(0)
                    texts.append(file.read().decode())
                answer = {
                    "killed": False,
                    "code": os.waitstatus_to_exitcode(status),
                    "out": texts[0],
                    "err": texts[1],
                }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
