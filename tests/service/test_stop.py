"""Stopping: what has begun is finished, the sockets go, and where a service manager holds them nobody is refused."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.service.helpers import Held, Traffic, a_service, answer, eventually, reply, run, said
from tests.support.service import ROOT, Service


async def _exit_code(service: Service, seconds: float = 20) -> int:
    return await asyncio.to_thread(service.process.wait, seconds)


def _refused(service: Service) -> bool:
    with socket.socket(socket.AF_UNIX if service.unix else socket.AF_INET) as sock:
        return sock.connect_ex(str(service.socket) if service.unix else ("127.0.0.1", service.port)) != 0


def test_an_open_message_is_finished_and_the_socket_removed(*, mostly_unix: bool) -> None:
    async def main(service: Service) -> None:
        held = await Held(service).open()
        rest = await held.half_a_message()
        service.process.send_signal(signal.SIGTERM)
        # Each worker takes those who have connected already, and closes; from then on everybody is refused.
        await eventually(lambda: _refused(service), "the listening socket to close")
        with pytest.raises(OSError, match=r"111|refused|No such file"):
            await answer(service)
        assert said(await rest()) == reply("old")
        held.close()
        assert await _exit_code(service) == 0

    with a_service(unix=mostly_unix, settings={"milter": {"drain": "60s"}}) as service:
        run(main(service))
        assert not service.socket.exists()
        assert not service.control.exists()
        stopped = service.log_lines("stopped")[-1]
        assert (stopped["sessions_closed"], stopped["sessions_cut"]) == (0, 0)


def test_after_the_drain_sessions_are_closed_between_messages_only() -> None:
    async def main(service: Service) -> None:
        idle, busy = await Held(service).open(), await Held(service).open()
        rest = await busy.half_a_message()
        service.process.send_signal(signal.SIGTERM)
        assert await idle.ended(5), "it is between messages"
        assert said(await rest()) == reply("old"), "this one was not, and gets its reply after the drain"
        assert await busy.ended(5), "now it is"
        assert await _exit_code(service) == 0
        idle.close()
        busy.close()

    with a_service(settings={"milter": {"drain": "300ms"}}) as service:
        run(main(service))
        stopped = service.log_lines("stopped")[-1]
        assert (stopped["sessions_closed"], stopped["sessions_cut"]) == (2, 0)


def test_a_message_that_never_ends_is_cut_and_counted() -> None:
    async def main(service: Service) -> None:
        held = await Held(service).open()
        await held.half_a_message()
        service.process.send_signal(signal.SIGTERM)
        assert await _exit_code(service) == 0
        assert await held.ended()
        held.close()

    settings = {"milter": {"drain": "100ms"}, "limits": {"message": "500ms", "checks": "200ms"}}
    with a_service(settings=settings) as service:
        run(main(service))
        stopped = service.log_lines("stopped")[-1]
        assert (stopped["sessions_closed"], stopped["sessions_cut"]) == (0, 1)


def test_a_second_signal_stops_at_once() -> None:
    async def main(service: Service) -> None:
        held = await Held(service).open()
        await held.half_a_message()
        service.process.send_signal(signal.SIGTERM)
        await eventually(lambda: bool(service.log_lines("stopping")), "the stop")
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert await _exit_code(service) == 0
        assert time.monotonic() - began < 3
        assert await held.ended()
        held.close()

    with a_service(unix=True, settings={"milter": {"drain": "60s"}}) as service:
        run(main(service))
        assert service.log_lines("stopped")[-1]["sessions_cut"] == 1
        assert not service.socket.exists()


@pytest.mark.slow
def test_what_has_connected_when_it_is_told_to_stop_is_served() -> None:
    async def main(service: Service) -> None:
        async with Traffic(service, clients=30, messages=1) as traffic:
            await traffic.more(60)
            # Everything that was accepted or waits to be is served; what comes later is refused.
            service.process.send_signal(signal.SIGTERM)
            assert await _exit_code(service) == 0
            traffic.stop()
        assert set(traffic.answers) == {reply("old")}
        assert len(traffic.broken) <= 3, "only what connects in the very moment of closing"

    with a_service(unix=True) as service:
        run(main(service))
        stopped = service.log_lines("stopped")[-1]
        assert (stopped["sessions_closed"], stopped["sessions_cut"]) == (0, 0)


@pytest.mark.slow
def test_a_signal_while_it_starts_ends_it() -> None:
    with a_service(unix=True) as service:
        service.stop()
        codes = []
        for tenths in range(1, 16):
            service.start(wait=False)
            time.sleep(0.1 * tenths)
            service.process.send_signal(signal.SIGHUP)  # and this one never does
            service.process.send_signal(signal.SIGTERM)
            codes.append(service.process.wait(10))
            assert not service.socket.exists()
            assert not service.log_lines("bug")
        # Before Python has come as far as our own code, nothing can be caught.
        assert set(codes) <= {0, -signal.SIGTERM, -signal.SIGHUP}
        assert codes[-1] == 0


# -- sockets that somebody else holds ----------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(*, unix: bool, service: Service) -> Iterator[socket.socket]:
    """A listening socket of the test's own, where the service's configuration says."""
    if unix:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(service.socket))
        service.socket.chmod(0o666)
    else:
        sock = socket.create_server(("127.0.0.1", service.port), backlog=500)
    with sock:
        sock.listen(500)
        yield sock


def handing_over(**named: socket.socket) -> dict[str, object]:
    """Arguments of `Service` that hand sockets over as systemd does: as descriptors 3, 4, ... by name."""
    numbers = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 100) for sock in named.values()]
    moves = " ".join(f"{n}<&{fd} {fd}<&-" for n, fd in enumerate(numbers, 3))
    variables = f"LISTEN_PID=$$ LISTEN_FDS={len(numbers)} LISTEN_FDNAMES={':'.join(named)}"
    return {
        "wrapper": ("bash", "-c", f'export {variables}; exec "$@" {moves}', "bash"),
        "pass_fds": tuple(numbers),
    }


def activated(service: Service, **named: socket.socket) -> None:
    """Stop a service, and make its next starts take these sockets."""
    for name, value in handing_over(**named).items():
        setattr(service, name, value)


def test_a_restart_refuses_nobody_where_the_sockets_stay_open(*, mostly_unix: bool) -> None:
    async def main(service: Service) -> None:
        async with Traffic(service, clients=6, messages=1) as traffic:
            for _ in range(2):
                await traffic.more(30)
                assert await asyncio.to_thread(service.stop) == 0
                await asyncio.to_thread(service.start)
            await traffic.more(30)
        assert not traffic.refused
        assert not traffic.broken
        assert set(traffic.answers) == {reply("old")}

    with a_service(unix=mostly_unix) as service:
        service.stop()
        with listening(unix=mostly_unix, service=service) as sock:
            activated(service, milter=sock)
            service.start()
            status = service.ask("status")
            assert status["activated"]
            assert status["listen"] == [service.listen]
            run(main(service))
            service.stop()
            assert service.socket.exists() == mostly_unix, "it is not ours to remove"


@pytest.mark.slow
def test_the_control_socket_can_be_handed_over_too() -> None:
    with a_service() as service:
        service.stop()
        with socket.socket(socket.AF_UNIX) as control, listening(unix=False, service=service) as sock:
            control.bind(str(service.control))
            control.listen(5)
            activated(service, milter=sock, control=control)
            service.start()
            assert run(answer(service)) == reply("old")
            service.workers = 1
            service.write_config()
            assert service.ask("reload")["how"] == "generation"
            assert service.ask("status")["generation"] == 2
            assert service.stop() == 0
            assert service.control.exists()


def test_a_descriptor_that_is_no_listening_socket_is_refused() -> None:
    with a_service() as service:
        service.stop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
            activated(service, milter=wrong)
            service.start(wait=False)
            assert service.process.wait(10) == 71
            assert "descriptor 3" in service.log_text()


@pytest.mark.slow
def test_the_helper_script_activates_a_service() -> None:
    with a_service() as service:
        service.stop()
        script = str(ROOT / "contrib" / "socket_activate.py")
        service.wrapper = (sys.executable if service.user is None else "/usr/bin/python3", script)
        service.wrapper += ("--listen", f"milter={service.listen}", "--")
        service.start()
        assert service.ask("status")["activated"]
        assert run(answer(service)) == reply("old")
        assert service.stop() == 0
    wrong = subprocess.run(
        [sys.executable, script, "--", "true"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "--listen" in wrong.stderr
