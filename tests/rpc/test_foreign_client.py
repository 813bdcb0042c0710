"""A client that nobody here wrote: Node's @grpc/grpc-js, from nothing but the .proto, and from reflection.

Its packages (pinned in node/package-lock.json) are installed into a folder of the test's own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from authmilter.client import SERVICE_CONFIG
from authmilter.verdict_json import verdict_to_dict
from tests.rpc.local import Local, local, run
from tests.support.road import a_runtime, travel
from tests.support.scenarios import SCENARIOS, a_message, zone

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NODE = Path(__file__).parent / "node"
CONFIG = "authserv_id: mx.recv.example\npolicy: enforce\n"
#: Scenarios that a client describes with what `_job` sends.
SENT = tuple(s for s in SCENARIOS if s.login is None)


def _missing(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the packages; returns the script."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        _missing("there is no node and npm here: the client that nobody here wrote is not tried")
    folder = tmp_path_factory.mktemp("node")
    for file in NODE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    done = subprocess.run(
        [str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        _missing(f"npm cannot install the client's packages: {done.stderr[-500:]}")
    return folder / "client.js"


def _job() -> dict[str, Any]:
    return {
        "service_config": SERVICE_CONFIG,
        "messages": [
            {
                "id": s.name,
                "message": base64.b64encode(s.message).decode(),
                "session": {"client_ip": s.client_ip, "helo": s.helo},
                "envelope": {"mail_from": s.mail_from, "rcpt_to": list(s.rcpt_to)},
            }
            for s in SENT
        ],
    }


@pytest.mark.parametrize("source", ["the .proto", "reflection"])
def test_a_client_of_other_peoples_making(source: str, client: Path, tmp_path: Path) -> None:
    given = str(ROOT / "proto") if source == "the .proto" else "reflection"

    async def work() -> tuple[str, str]:
        async with local(tmp_path, config=CONFIG) as server:
            return await asyncio.to_thread(_node, server)

    def _node(server: Local) -> tuple[str, str]:
        done = subprocess.run(
            ["node", str(client), server.target, given],
            input=json.dumps(_job()),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        return done.stdout, done.stderr

    out, complaints = run(work)
    assert out, complaints
    found = json.loads(out)
    assert found["health"] == {"status": "SERVING"}
    if source == "reflection":
        assert "authmilter.v1.VerifierService" in found["services"]
        assert "grpc.health.v1.Health" in found["services"]
    assert found["refused"]["code"] == 3, "INVALID_ARGUMENT"
    assert "session.client_ip" in found["refused"]["status"]
    assert found["stream"]["wrong"]["error"]["code"] == 3
    assert found["spf"]["spf"]["status"] == "SPF_STATUS_PASS"
    for number, s in enumerate(SENT):
        _mail, verdict = travel(
            s.message,
            a_runtime(CONFIG, zone()),
            mail_from=s.mail_from,
            helo=s.helo,
            client_ip=s.client_ip,
            rcpt_to=s.rcpt_to,
        )
        ours: Any = verdict_to_dict(verdict)
        answers = (found["verify"][number], found["upload"][number], found["stream"][s.name]["response"])
        for answer in answers:
            theirs = answer["verdict"]
            assert answer["id"] == s.name
            assert answer["mail"]["session"]["client_ip"] == s.client_ip
            assert (
                theirs["decision"]["disposition"] == f"DISPOSITION_{ours['decision']['disposition'].upper()}"
            )
            assert theirs["decision"]["rule"] == ours["decision"]["rule"]
            assert (
                theirs["evidence"]["spf"]["status"]
                == f"SPF_STATUS_{ours['evidence']['spf']['status'].upper()}"
            )
            statuses = [f"DKIM_STATUS_{d['status'].upper()}" for d in ours["evidence"]["dkim"]]
            assert [d["status"] for d in theirs["evidence"]["dkim"].get("results", [])] == statuses
            assert len(theirs.get("edits", [])) == len(ours["edits"])
    assert len(SENT) >= 10


def test_the_node_example_of_the_manual_runs(client: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "grpc.md").read_text("utf-8")
    (code,) = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
    folder = client.parent
    (folder / "mail.eml").write_bytes(a_message("alice@good.example"))
    if not (folder / "proto").exists():
        (folder / "proto").symlink_to(ROOT / "proto")

    def example(server: Local) -> subprocess.CompletedProcess[str]:
        (folder / "example.js").write_text(code.replace("unix:/run/authmilter/grpc.sock", server.target))
        return subprocess.run(
            ["node", "example.js"], cwd=folder, capture_output=True, text=True, timeout=30, check=False
        )

    async def work() -> subprocess.CompletedProcess[str]:
        async with local(tmp_path, config=CONFIG) as server:
            return await asyncio.to_thread(example, server)

    done = run(work)
    assert done.stdout.startswith("DISPOSITION_REJECT DMARC fails"), done.stderr
