"""`authmilter call` and `authmilter grpc`: what they print, and how they end."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from authmilter.cli.main import cli
from authmilter.cli.output import ExitCode
from authmilter.config.load import Loaded, parse
from authmilter.errors import AuthMilterError
from authmilter.rpc.settings import Identity, Permission, RpcSettings, token_hash
from authmilter.runtime import grpc_settings
from tests.rpc.local import ALL, Local, local, run
from tests.support.scenarios import SCENARIOS, a_message, zone

CONFIG = "authserv_id: mx.recv.example\npolicy: enforce\n"
MESSAGE = a_message("alice@good.example")
_ID = re.compile(r"\b(TESTID|[0-9A-HJKMNP-TV-Z]{16})\b")
_TIMES = re.compile(r"[0-9.]+ ms, [0-9]+ DNS")


def invoke(*words: str, given: bytes = b"") -> Result:
    """Run a command in this process."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli, list(words), input=given)


def beside(folder: Path, work: Callable[[Local], Any], **more: Any) -> Any:
    """Run `work` in a thread, beside a server."""

    async def main() -> Any:
        async with local(folder, config=more.pop("config", CONFIG), **more) as server:
            return await asyncio.to_thread(work, server)

    return run(main)


def _settled(verdict: Mapping[str, Any]) -> str:
    """Return a verdict's JSON, without ids and times; how much was at hand depends on what came before."""
    found: dict[str, Any] = json.loads(json.dumps(verdict))
    del found["mail_id"], found["elapsed_ms"]
    for step in found["trace"]:
        for name in ("elapsed_ms", "questions", "remembered", "recalled"):
            del step[name]
    return _ID.sub("ID", json.dumps(found, sort_keys=True))


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.login is None], ids=lambda s: s.name)
def test_it_prints_what_verify_prints(scenario: Any, tmp_path: Path) -> None:
    (tmp_path / "zone.json").write_text(json.dumps(zone()))
    (tmp_path / "c.yaml").write_text(CONFIG)
    about = ["--ip", scenario.client_ip, "--helo", scenario.helo, "--mail-from", scenario.mail_from]
    for rcpt in scenario.rcpt_to:
        about += ["--rcpt", rcpt]
    here = [
        "verify",
        "-",
        *about,
        "--config",
        str(tmp_path / "c.yaml"),
        "--zone",
        str(tmp_path / "zone.json"),
    ]

    def work(server: Local) -> tuple[Result, ...]:
        there = ["call", "verify", "-", *about, "--server", server.target]
        return tuple(
            invoke(*command, *more, given=scenario.message)
            for more in (["--json"], [], ["--explain"])
            for command in (there, here)
        )

    json_there, json_here, there, here_, road_there, road_here = beside(tmp_path, work)
    for result in (json_there, json_here, there, here_, road_there, road_here):
        assert result.exit_code == 0, result.output
    assert _settled(json.loads(json_there.stdout)) == _settled(json.loads(json_here.stdout))
    assert _told(there) == _told(here_)
    # whether anything is configured to be signed is the service's own business
    assert road_there.stdout.splitlines() == road_here.stdout.splitlines()[:-1]


def _told(result: Result) -> list[str]:
    lines = [_TIMES.sub("", _ID.sub("ID", line)).rstrip() for line in result.stdout.splitlines()]
    assert len(lines) > 8
    return lines


def test_a_large_message_is_sent_in_pieces(tmp_path: Path) -> None:
    large = MESSAGE + b"A line.\r\n" * 600_000

    def work(server: Local) -> Result:
        return invoke("call", "verify", "-", "--server", server.target, "--json", given=large)

    result = beside(tmp_path, work, settings=RpcSettings(max_message=1 << 20))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["decision"]["rule"]


def test_the_single_questions(tmp_path: Path) -> None:
    def work(server: Local) -> dict[str, tuple[Result, Result]]:
        asked = {
            "spf": ("--ip", "192.0.2.10", "--mail-from", "a@good.example"),
            "dkim-key": ("good.example", "s1"),
            "dmarc": ("good.example",),
        }
        return {
            name: (
                invoke("call", name, *words, "--server", server.target, "--json"),
                invoke("call", name, *words, "--server", server.target),
            )
            for name, words in asked.items()
        }

    found = beside(tmp_path, work)
    assert json.loads(found["spf"][0].stdout)["spf"]["status"] == "pass"
    assert json.loads(found["dkim-key"][0].stdout)["kind"] == "rsa"
    assert json.loads(found["dmarc"][0].stdout)["dmarc"]["policy"] == "reject"
    assert re.search(r"spf\.status +│ pass", found["spf"][1].stdout)
    assert re.search(r"kind +│ rsa", found["dkim-key"][1].stdout)
    assert re.search(r"dmarc\.policy +│ reject", found["dmarc"][1].stdout)


def test_a_zone_is_sent_along(tmp_path: Path) -> None:
    file = tmp_path / "zone.yaml"
    file.write_text("made.example: {TXT: ['v=spf1 ip4:192.0.2.77 -all']}\n")

    def work(server: Local) -> list[Result]:
        words = ("--ip", "192.0.2.77", "--mail-from", "a@made.example", "--server", server.target, "--json")
        return [
            invoke("call", "spf", *words, "--zone", str(file)),
            invoke("call", "verify", "-", *words, "--zone", str(file), given=MESSAGE),
        ]

    spf, verify = beside(tmp_path, work)
    assert json.loads(spf.stdout)["spf"]["status"] == "pass"
    assert json.loads(verify.stdout)["evidence"]["spf"]["status"] == "pass"


def test_status_reload_and_health(tmp_path: Path) -> None:
    def work(server: Local) -> list[Result]:
        server.control.answer = {
            "version": "1.2", "generation": 3, "digest": "abc", "counters": {"messages": 7.0}, "policy": "enforce",
            "uptime_seconds": 5.0, "config": "/etc/x.yaml", "stopping": False, "reloading": False,
            "engine": "native", "listen": ["inet:x"], "last_reload": {}, "workers": [], "sessions": 0,
            "restarts": 0, "sessions_closed": 0, "sessions_cut": 0,
        }  # fmt: skip
        found = [
            invoke("call", "status", "--server", server.target, "--json"),
            invoke("call", "status", "--server", server.target),
            invoke("call", "reload", "--server", server.target),
            invoke("call", "health", "--server", server.target),
        ]
        server.control.refusal = AuthMilterError("policy.yaml:4: no such fact\npolicy.yaml:5: nor this")
        return [*found, invoke("call", "reload", "--server", server.target)]

    as_json, status, reload, health, refused = beside(tmp_path, work)
    assert json.loads(as_json.stdout)["generation"] == 3
    assert '"generation": 3,' in as_json.stdout
    assert "authmilter 1.2, up 5 s" in status.stdout
    assert "generation 3, engine native" in status.stdout
    assert reload.stdout == "reloaded: digest abc\n"
    assert health.stdout == "serving\n"
    assert refused.exit_code == ExitCode.CONFIG
    assert "policy.yaml:4" in refused.stderr
    assert "policy.yaml:5" in refused.stderr


def test_how_it_ends(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("of-somebody\n")
    wrong = tmp_path / "wrong"
    wrong.write_text("of-nobody")
    identity = Identity(name="gate", tokens=frozenset({token_hash(b"of-somebody")}))

    def work(server: Local) -> list[tuple[Result, ExitCode, str]]:
        where = ("--server", server.target)
        mine = (*where, "--token-file", str(token))
        return [
            (invoke("call", "verify", "-", *mine, "--json", given=MESSAGE), ExitCode.OK, ""),
            (invoke("call", "verify", "-", *where, given=MESSAGE), ExitCode.FORBIDDEN, "no caller is known"),
            (
                invoke("call", "verify", "-", *where, "--token-file", str(wrong), given=MESSAGE),
                ExitCode.FORBIDDEN,
                "not known",
            ),
            (invoke("call", "status", *mine), ExitCode.FORBIDDEN, "no permission `admin`"),
            (invoke("call", "sign", "-", *mine, given=MESSAGE), ExitCode.FORBIDDEN, "no permission `sign`"),
            (
                invoke("call", "verify", "-", *mine, "--ip", "nonsense", given=MESSAGE),
                ExitCode.DATA,
                "session.client_ip: `nonsense` is no IP address",
            ),
            (
                invoke("call", "verify", "-", *mine, "--origin", "nowhere", given=MESSAGE),
                ExitCode.USAGE,
                "no origin",
            ),
            (invoke("call", "bimi", "good.example", *mine), ExitCode.CONFIG, "does not check BIMI"),
            (invoke("call", "verify", str(tmp_path / "none"), *mine), ExitCode.NO_INPUT, "No such file"),
            (invoke("call", "verify", "-", "--server", "nonsense"), ExitCode.USAGE, "expected unix:"),
            (
                invoke("call", "health", "--server", f"unix:{tmp_path}/no.sock"),
                ExitCode.UNAVAILABLE,
                "no.sock: the service does not answer: No such file or directory",
            ),
            (invoke("call", "verify", "-"), ExitCode.USAGE, "--server"),
        ]

    for result, code, words in beside(tmp_path, work, settings=RpcSettings(identities=(identity,))):
        left_with = 64 if result.exit_code == 2 else result.exit_code  # as `main` has it
        assert left_with == code, result.output
        assert words in result.output
        assert "Traceback" not in result.output


def test_a_token_is_made_with_the_lines_that_let_it_in(tmp_path: Path) -> None:
    made = invoke("grpc", "token", "gateway")
    assert made.exit_code == 0
    token = made.stdout.splitlines()[1]
    assert len(token) >= 43
    assert invoke("grpc", "token", "gateway").stdout.splitlines()[1] != token
    identities = yaml.safe_load(made.stdout.partition("\n\n")[2])
    settings = grpc_settings(
        Loaded(
            config=parse(f"grpc: {{listen: ['unix:/x'], identities: {json.dumps(identities)}}}\n", "c.yaml"),
            path=None,
            base=tmp_path,
        )
    )
    (identity,) = settings.identities
    assert identity.name == "gateway"
    assert identity.permissions == {Permission.VERIFY} < ALL
    assert identity.tokens == {token_hash(token.encode())}
    hashed = invoke("grpc", "token", "gateway", "--hash", "-", given=token.encode() + b"\n")
    assert token not in hashed.stdout
    assert yaml.safe_load(hashed.stdout) == identities
    assert invoke("grpc", "token", "x", "--hash", "-", given=b"two words").exit_code != 0


def test_the_service_config_is_printed() -> None:
    printed = json.loads(invoke("grpc", "service-config").stdout)
    assert printed["methodConfig"][0]["waitForReady"] is True


def test_the_help_teaches() -> None:
    for words in (
        (),
        ("verify",),
        ("sign",),
        ("spf",),
        ("dkim-key",),
        ("dmarc",),
        ("bimi",),
        ("status",),
        ("reload",),
    ):
        shown = invoke("call", *words, "--help")
        assert shown.exit_code == 0
        assert len(shown.stdout) > 200
    assert "unix:/run/authmilter/grpc.sock" in invoke("call", "--help").stdout
