"""Starting: what is wrong is said at once and in full, by text and exit code; what is left over does not matter."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from authmilter.milter import _pymilter
from tests.service.helpers import USER, a_service, answer, policy, reply, run, workers
from tests.support.postfix import free_port, wait_until
from tests.support.service import ROOT, Service

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def _run(folder: Path, config: dict[str, Any], *words: str, seconds: float = 20) -> tuple[int, str]:
    """Run the service with a configuration that it cannot use; returns the exit code and what it said."""
    file = folder / "authmilter.yaml"
    file.write_text(json.dumps({"control": {"socket": ""}, **config}))
    command = [sys.executable, "-m", "authmilter", "run", "-c", str(file), *words]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    return ran.returncode, ran.stderr


def test_every_mistake_of_the_configuration_is_said(tmp_path: Path) -> None:
    code, text = _run(
        tmp_path, {"milter": {"workers": 0, "engin": "native"}, "dns": {"timeout": "soon"}, "x": 1}
    )
    assert code == 78
    for word in ("milter.workers", "milter.engin", "dns.timeout", "`x`"):
        assert word in text
    assert text.count("authmilter.yaml:1:") == 4, "each with its place"


def test_every_mistake_of_the_policy_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "version: 1\nrules:\n  - {id: a, when: {spf.status: passs}, then: refuse}\n"
    )
    code, text = _run(tmp_path, {"policy": "./p.yaml"})
    assert code == 78
    for word in ("passs", "refuse", "default"):
        assert word in text
    assert text.count("p.yaml:") >= 3


def test_a_policy_or_list_or_zone_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert "nowhere.yaml: cannot be read: No such file" in _run(tmp_path, {"policy": "./nowhere.yaml"})[1]
    code, text = _run(tmp_path, {"dns": {"zone": "nowhere.json"}})
    assert (code, "nowhere.json: cannot be read: No such file" in text) == (78, True)
    (tmp_path / "p.yaml").write_text("version: 1\nlists: {a: {file: nowhere.txt}}\ndefault: accept\n")
    code, text = _run(tmp_path, {"policy": "./p.yaml"})
    assert (code, "nowhere.txt" in text) == (78, True)


def test_a_socket_that_is_in_use_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for engine in ("native", "libmilter"):
            if engine == "libmilter" and not _pymilter.available():
                continue
            code, text = _run(tmp_path, {"milter": {"listen": [f"inet:{port}@127.0.0.1"], "engine": engine}})
            assert code == 71
            assert f"cannot listen on inet:{port}@127.0.0.1: Address already in use" in text


def test_a_unix_path_that_is_in_use_or_no_socket_is_said_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "milter.sock"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen(1)
        code, text = _run(tmp_path, {"milter": {"listen": [f"unix:{path}"]}})
        assert (code, "another server listens" in text) == (71, True)
        assert path.is_socket()
    path.unlink()
    path.write_text("precious")
    code, text = _run(tmp_path, {"milter": {"listen": [f"unix:{path}"]}})
    assert (code, "not a socket" in text) == (71, True)
    assert path.read_text() == "precious"


def test_a_user_who_does_not_exist_or_cannot_be_become_is_said(tmp_path: Path) -> None:
    listen = {"listen": [f"inet:{free_port()}@127.0.0.1"]}
    code, text = _run(tmp_path, {"user": "no-such-user", "milter": listen})
    assert code == 71
    assert ("there is no user `no-such-user`") in text
    if os.geteuid() != 0:
        code, text = _run(tmp_path, {"user": "root", "milter": listen})
        assert (code, "only a service started as root can" in text) == (71, True)


# -- what was left behind ----------------------------------------------------------------------------------------------


def test_sockets_that_a_killed_service_left_are_replaced() -> None:
    with a_service(unix=True) as service:
        pids = [worker["pid"] for worker in workers(service)]
        service.process.kill()
        service.process.wait()
        assert service.socket.exists()
        assert service.control.exists()
        service.start()
        assert run(answer(service)) == reply("old")
        assert not set(pids) & {worker["pid"] for worker in workers(service)}


# -- the control socket ------------------------------------------------------------------------------------------------


def test_the_control_socket_is_for_its_owner_only() -> None:
    with a_service() as service:
        found = service.control.stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_uid == (pwd.getpwnam(USER).pw_uid if USER else os.geteuid())


def test_a_slow_or_silent_or_endless_client_is_nobody_elses_trouble() -> None:
    async def main(service: Service) -> None:
        path = str(service.control)
        clients = [await asyncio.open_unix_connection(path) for _ in range(10)]
        for _, writer in clients[:5]:
            writer.write(b'{"command":')
            await writer.drain()
        began = time.monotonic()
        assert (await asyncio.to_thread(service.ask, "status"))["generation"] == 1
        assert time.monotonic() - began < 1
        # What comes in pieces is understood.
        reader, writer = clients[0]
        writer.write(b' "status"}\n')
        assert json.loads(await reader.readline())["generation"] == 1
        # What never ends is not.
        reader, writer = clients[1]
        writer.write(b" " * 100_000)
        assert "commands:" in json.loads(await reader.readline())["error"]
        for _, writer in clients:
            writer.close()

    with a_service() as service:
        run(main(service))
        assert "commands:" in service.ask("dance")["error"]
        assert not service.log_lines("bug")


def test_a_client_that_hangs_up_while_it_waits_costs_nothing() -> None:
    with a_service() as service:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(service.control))
                sock.sendall(b'{"command": "reload"}\n')
        wait_until(lambda: not service.ask("status")["reloading"], 10, "the reload")
        assert service.log_lines("reloaded")
        assert not service.log_lines("bug")


@pytest.mark.slow
def test_a_client_that_says_nothing_is_closed_after_a_while() -> None:
    with a_service() as service, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(15)
        sock.connect(str(service.control))
        assert sock.recv(100) == b""


def test_without_a_place_for_its_control_socket_the_service_runs_all_the_same() -> None:
    with a_service() as service:
        service.stop()
        (service.base / "file").write_text("in the way")
        service.write_config(control={"socket": str(service.base / "file" / "control.sock")})
        service.start(wait=False)
        wait_until(lambda: bool(service.log_lines("started")[1:]), 10, "the start")
        assert len(service.log_lines("no control socket")) == 1
        assert run(answer(service)) == reply("old")


@pytest.mark.slow
def test_stop_can_be_asked_for() -> None:
    with a_service() as service:
        assert service.ask("stop")["ok"]
        assert service.process.wait(10) == 0


# -- another user ------------------------------------------------------------------------------------------------------


def _ids(pid: int) -> tuple[set[str], set[str], set[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.partition(":")[0]: set(line.partition(":")[2].split()) for line in lines}
    return found["Uid"], found["Gid"], found["Groups"]


@needs_root
def test_root_is_given_up_once_the_sockets_are_open() -> None:
    nobody = pwd.getpwnam("nobody")
    with a_service(unix=True, user=None, becomes="nobody", settings={"user": "nobody"}) as service:
        os.chown(service.base, nobody.pw_uid, -1)
        for pid in (service.process.pid, *(worker["pid"] for worker in workers(service))):
            uids, gids, groups = _ids(pid)
            assert uids == {str(nobody.pw_uid)}
            assert gids == {str(nobody.pw_gid)}
            assert "0" not in groups
        for path in (service.socket, service.control):
            assert path.stat().st_uid == nobody.pw_uid
        assert run(answer(service)) == reply("old")
        service.policy = policy("new")
        service.write_config()
        assert service.ask("reload")["how"] == "swap"
        assert run(answer(service)) == reply("new")
        assert service.stop() == 0
        assert not service.socket.exists()
        assert not service.control.exists()


@needs_root
@pytest.mark.parametrize(
    "name",
    ["policy.yaml", *(pytest.param(n, marks=pytest.mark.slow) for n in ("zone.json", "authmilter.yaml"))],
)
def test_a_file_that_the_service_user_cannot_read_is_said(name: str) -> None:
    with a_service(user=None, becomes="nobody", settings={"user": "nobody"}) as service:
        service.stop()
        (service.base / name).chmod(0o600)
        service.start(wait=False)
        assert service.process.wait(20) == 78
        assert f"{name}: cannot be read: Permission denied" in service.log_text()


@pytest.mark.slow
@needs_root
def test_a_group_can_be_given_too() -> None:
    settings = {"user": "nobody", "group": "daemon"}
    with a_service(user=None, becomes="nobody", settings=settings) as service:
        _, gids, _ = _ids(service.process.pid)
        assert len(gids) == 1
        assert gids != {str(pwd.getpwnam("nobody").pw_gid)}


# -- one worker alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", pytest.param("libmilter", marks=pytest.mark.slow)])
def test_one_worker_can_run_alone(engine: str, *, mostly_unix: bool) -> None:
    if engine == "libmilter" and not _pymilter.available():
        pytest.skip("pymilter is not installed")
    with a_service(unix=mostly_unix, engine=engine) as service:
        service.stop()
        service.options = ("--only", "milter")
        service.start(wait=False)
        wait_until(lambda: bool(service.log_lines("started")[1:]), 10, "the start")
        wait_until(lambda: _connects(service), 10, "the socket")
        assert run(answer(service)) == reply("old")
        if engine == "native":
            service.policy = policy("new")
            service.write_config()
            service.process.send_signal(signal.SIGHUP)
            wait_until(lambda: bool(service.log_lines("reloaded")), 10, "the reload")
            assert run(answer(service)) == reply("new")
            (service.base / "policy.yaml").write_text("version: 1\n")
            service.process.send_signal(signal.SIGHUP)
            wait_until(lambda: bool(service.log_lines("reload refused")), 10, "the refusal")
            assert run(answer(service)) == reply("new")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(10) == 0
        assert not service.socket.exists()


def _connects(service: Service) -> bool:
    try:
        run(answer(service))
    except OSError:
        return False
    return True
