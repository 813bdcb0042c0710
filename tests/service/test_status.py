"""`authmilter status`: what an administrator sees of a running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from authmilter.cli.run import show
from tests.service.helpers import a_service, answer, run, run_cli
from tests.support.postfix import wait_until
from tests.support.service import ROOT

MONITOR = """version: 1
mode: monitor
rules:
  - id: strangers
    when: {origin: internet, message.author.domain: example.org}
    then: reject
    because: we know them
default: accept
"""


def test_monitor_mode_shows_what_it_would_have_done() -> None:
    with a_service(policy=MONITOR) as service:
        assert [run(answer(service)) for _ in range(3)] == ["", "", ""]
        wait_until(lambda: service.ask("status")["counters"].get("messages") == 3, 5, "the counts")
        shown = run_cli(service, "status")
        assert shown.returncode == 0, shown.stderr
        lines = [" ".join(line.replace("│", " ").split()) for line in shown.stdout.splitlines()]
        assert "reject strangers 3 100.0 %" in lines
        assert any("not enforced (monitor mode)" in line for line in lines)
        assert "disposition accept 3 100.0 %" in lines
        assert any(line.startswith("3 messages, ") for line in lines)
        assert any(str(service.process.pid) or "generation 1" in line for line in lines)
        answered = json.loads(run_cli(service, "status", "--json").stdout)
        assert answered["counters"]["would_have{reject,rule=strangers}"] == 3
        assert answered["pid"] == service.process.pid
        assert [worker["role"] for worker in answered["workers"]] == ["milter", "milter"]
        by_path = subprocess.run(
            [sys.executable, "-m", "authmilter", "status", "--socket", str(service.control), "--json"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert json.loads(by_path.stdout)["pid"] == service.process.pid


def test_counts_of_ended_workers_are_kept() -> None:
    with a_service() as service:
        for _ in range(4):
            run(answer(service))
        service.workers = 1
        service.write_config()
        assert service.ask("reload")["how"] == "generation"
        wait_until(lambda: len(service.ask("status")["workers"]) == 1, 10, "the old generation to end")
        assert service.ask("status")["counters"]["messages"] == 4


@pytest.mark.slow
def test_without_a_service_it_says_so(tmp_path: Path) -> None:
    config = tmp_path / "authmilter.yaml"
    config.write_text(json.dumps({"control": {"socket": str(tmp_path / "none.sock")}}))
    for command in ("status", "reload"):
        ran = subprocess.run(
            [sys.executable, "-m", "authmilter", command, "-c", str(config)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert ran.returncode == 69
        assert "none.sock: the service does not answer" in ran.stderr


def test_what_is_shown_is_ours_alone() -> None:
    # Names of rules and files come from an administrator: square brackets in them are no markup.
    answered = {
        "version": "1", "uptime_seconds": 90061, "config": "[red]c", "policy": "[/]p", "digest": "d", "stopping": False,
        "reloading": True, "generation": 2, "engine": "native", "listen": ["unix:/[x]"], "sessions": 0,
        "last_reload": {"error": "a:1:1: [bold]wrong\nb:2:2: worse", "seconds_ago": 61},
        "restarts": 0, "sessions_closed": 0, "sessions_cut": 0,
        "workers": [{"pid": 1, "role": "milter", "generation": 2, "uptime_seconds": 7300, "sessions": 3, "messages": 5.0,
                     "ready": False, "draining": False, "digest": "d"}],
        "counters": {"rule{a[b]}": 2.0, "messages": 2.0, "messages{origin=internet}": 2.0, "notes{x}": 1.0,
                     "odd{": 1.0, "bugs{where=method:spf}": 1.0, "verdict_seconds": 0.004, "dns_questions": 5.0},
    }  # fmt: skip
    out = Console(width=120, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115 - ends with the process
    show(answered, out)
    text = out.export_text()
    for part in ("[red]c", "[/]p", "unix:/[x]", "[bold]wrong", "b:2:2: worse", "a[b]", "1 d 1 h", "2 h 1 min",
                 "starting", "reloading", "2.0 ms each", "2.5 DNS questions each", "method:spf"):  # fmt: skip
        assert part in text
