"""The timer and its service: systemd takes them, and the command is the one that runs unattended."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "contrib" / "systemd"
PROGRAM = "/opt/authmilter/bin/authmilter"


def test_systemd_takes_the_units_of_the_keys(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    for unit in UNITS.iterdir():
        # systemd asks whether the program exists
        (tmp_path / unit.name).write_text(unit.read_text("utf-8").replace(PROGRAM, sys.executable), "utf-8")
    names = [str(tmp_path / name) for name in ("authmilter-keys.timer", "authmilter-keys.service")]
    ran = subprocess.run(
        ["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    ours = [line for line in ran.stderr.splitlines() if "authmilter-keys" in line]
    assert (ran.returncode, ours) == (0, [])


def test_the_timer_runs_the_unattended_command() -> None:
    text = (UNITS / "authmilter-keys.service").read_text("utf-8")
    assert f"ExecStart={PROGRAM} keys rotate run " in text
    assert "StateDirectory=authmilter authmilter/keys\nStateDirectoryMode=0700\n" in text
    assert "OnCalendar=hourly" in (UNITS / "authmilter-keys.timer").read_text("utf-8")
