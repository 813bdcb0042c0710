"""Running `engine_process.py`, and asking for pymilter."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from authmilter.milter import _pymilter
from tests.milter.fakes import Call

ROOT = Path(__file__).resolve().parents[2]


def need_pymilter() -> None:
    """Skip without pymilter, except where everything has to be there."""
    if not _pymilter.available():
        if os.environ.get("CI") == "true":
            pytest.fail("pymilter is not installed")
        pytest.skip("pymilter is not installed: pip install authmilter[libmilter]")


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine: its name, its address, and the file its calls go to."""

    name: str
    address: str
    calls_file: Path
    pid: int

    def calls(self) -> list[Call]:
        """All calls so far."""
        lines = self.calls_file.read_text(encoding="utf-8").split("\n")
        return [tuple(json.loads(line)) for line in lines[:-1]]  # the last is empty, or being written

    async def until(self, name: str, since: int) -> None:
        """Wait until a call of that name stands after the first `since`."""
        while name not in {call[0] for call in self.calls()[since:]}:  # noqa: ASYNC110 - another process writes them
            await asyncio.sleep(0.005)


@contextmanager
def engine_process(
    name: str, folder: Path, *, body_cap: int | None = None, spec: str = ""
) -> Iterator[Engine]:
    """Run an engine in a process of its own."""
    if name == "libmilter":
        need_pymilter()
    folder.mkdir(parents=True, exist_ok=True)
    address = spec or f"unix:{folder}/{name}.sock"
    calls = folder / f"{name}.calls"
    command = [sys.executable, "-m", "tests.milter.engine_process", name, address, str(calls)]
    if body_cap is not None:
        command.append(str(body_cap))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Engine(name, address, calls, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
