"""docs/grpc.md: its configurations are right, its examples run."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from authmilter.client import SERVICE_CONFIG
from authmilter.config.load import parse, warnings
from authmilter.config.model import Config
from tests.rpc.local import Local, local, run
from tests.support.scenarios import a_message

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "grpc.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
CONFIGS = re.findall(r"<!-- config -->\n```yaml\n(.*?)```", TEXT, re.DOTALL)
#: Where the examples find the service.
SOCKET = "/run/authmilter/grpc.sock"


@pytest.mark.parametrize("text", CONFIGS)
def test_a_configuration_of_the_manual_is_right_and_surprises_nobody(text: str) -> None:
    config = parse(text, "grpc.md")
    assert config.grpc != Config().grpc
    assert warnings(config) == ()


def test_there_are_as_many_as_there_were() -> None:
    assert len(CONFIGS) == 3


def test_the_service_config_of_the_manual_is_the_published_one() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert json.loads(text) == SERVICE_CONFIG


def test_the_limits_of_the_manual_are_the_defaults() -> None:
    defaults = Config().grpc
    told = {
        "max_message": f"{defaults.max_message >> 20} MB",
        "max_upload": f"{defaults.max_upload >> 20} MB",
        "max_calls": f"{defaults.max_calls} in each worker",
        "stream_window": f"{defaults.stream_window} messages of a stream",
        "max_connection_age": f"{defaults.max_connection_age / 60:.0f} minutes",
        "idle_timeout": f"{defaults.idle_timeout / 3600:.0f} hour",
    }
    for name, value in told.items():
        assert f"| `{name}` | {value} |" in TEXT


@pytest.mark.parametrize("text", [TEXT, README], ids=["grpc.md", "README.md"])
def test_the_python_example_runs(text: str, tmp_path: Path) -> None:
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "authmilter.client" in c]
    (tmp_path / "mail.eml").write_bytes(a_message("alice@good.example"))

    def example(server: Local) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code.replace(f"unix:{SOCKET}", server.target)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            timeout=30,
            check=False,
        )

    async def work() -> subprocess.CompletedProcess[str]:
        async with local(tmp_path) as server:
            return await asyncio.to_thread(example, server)

    done = run(work)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("accept ")
