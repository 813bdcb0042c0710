"""What a service manager is told, and when."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.helpers import a_service, policy
from tests.support.postfix import wait_until


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(self.path))
        self.path.chmod(0o777)
        self.sock.settimeout(10)

    def next(self) -> dict[str, str]:
        """The next message that is no sign of life."""
        while True:
            lines = self.sock.recv(4096).decode().splitlines()
            told = dict(line.split("=", 1) for line in lines)
            if told != {"WATCHDOG": "1"}:
                return told

    def signs_of_life(self, seconds: float) -> int:
        """How many signs of life come in that time."""
        end = time.monotonic() + seconds
        count = 0
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                count += self.sock.recv(4096) == b"WATCHDOG=1"
            except TimeoutError:
                break
        self.sock.settimeout(10)
        return count


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        found = Manager(Path(folder))
        with found.sock:
            yield found


def test_the_manager_is_told_in_order(manager: Manager) -> None:
    with a_service(env={"NOTIFY_SOCKET": str(manager.path)}) as service:
        ready = manager.next()
        assert ready["READY"] == "1"
        assert "generation 1" in ready["STATUS"]
        for count, word in ((2, "1"), (1, "2")):
            service.workers = count
            service.policy = policy("new")
            service.write_config()
            before = time.monotonic_ns() // 1000
            service.process.send_signal(signal.SIGHUP)
            told = manager.next()
            assert told["RELOADING"] == "1"
            assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            told = manager.next()
            assert told["READY"] == "1"
            assert f"generation {word}" in told["STATUS"]
        (service.base / "policy.yaml").write_text("nonsense")
        service.process.send_signal(signal.SIGHUP)
        assert manager.next()["RELOADING"] == "1"
        told = manager.next()
        assert told["READY"] == "1"
        assert "refused" in told["STATUS"]
        service.process.send_signal(signal.SIGTERM)
        told = manager.next()
        assert told["STOPPING"] == "1"
        assert int(told["EXTEND_TIMEOUT_USEC"]) > 3_000_000
        assert service.process.wait(10) == 0
        manager.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            manager.next()


@pytest.mark.slow
def test_a_worker_that_is_replaced_is_no_news_to_the_manager(manager: Manager) -> None:
    with a_service(env={"NOTIFY_SOCKET": str(manager.path)}) as service:
        assert manager.next()["READY"] == "1"
        os.kill(service.ask("status")["workers"][0]["pid"], signal.SIGKILL)
        wait_until(lambda: service.ask("status")["restarts"] == 1, 10, "the worker's death")
        service.wait_ready()
        manager.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            manager.next()


@pytest.mark.slow
def test_the_watchdog_is_fed(manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    with a_service(env=env) as service:
        assert manager.next()["READY"] == "1"
        assert 2 <= manager.signs_of_life(0.5) <= 7
        service.process.send_signal(signal.SIGSTOP)
        manager.signs_of_life(0.2)  # what was on its way
        assert manager.signs_of_life(0.4) == 0
        service.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_start_that_fails_is_never_called_ready(manager: Manager) -> None:
    with a_service(env={"NOTIFY_SOCKET": str(manager.path)}) as service:
        assert manager.next()["READY"] == "1"
        service.stop()
        assert manager.next()["STOPPING"] == "1"
        (service.base / "policy.yaml").write_text("nonsense")
        service.start(wait=False)
        assert service.process.wait(10) == 78
        manager.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            manager.next()
