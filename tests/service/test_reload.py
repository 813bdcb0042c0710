"""Reload: nobody is refused or cut, every answer is by the old or by the new settings, and what is wrong changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.milter.client import deliver
from tests.service.helpers import (
    MESSAGE,
    Held,
    Traffic,
    a_service,
    answer,
    ask,
    eventually,
    policy,
    reply,
    run,
    run_cli,
    said,
    workers,
)
from tests.support.postfix import free_port, wait_until
from tests.support.service import Service


def _set_policy(service: Service, word: str) -> None:
    service.policy = policy(word)
    service.write_config()


async def _swap_under_load(service: Service, *, reloads: int, clients: int) -> None:
    async with Traffic(service, clients=clients) as traffic:
        for number in range(reloads):
            word = "new" if number % 2 == 0 else "old"
            _set_policy(service, word)
            told = await ask(service, "reload")
            assert told.get("how") == "swap", told
            # The reload is done when it is answered: nothing begun from here on is judged by the old policy.
            assert await answer(service) == reply(word)
            await traffic.more(clients)
    assert not traffic.refused
    assert not traffic.broken
    assert set(traffic.answers) == {reply("old"), reply("new")}


async def _generations_under_load(
    service: Service, changes: list[Callable[[Service], None]], *, clients: int
) -> None:
    async with Traffic(service, clients=clients) as traffic:
        for number, change in enumerate(changes):
            change(service)
            told = await ask(service, "reload")
            assert told.get("how") == "generation", told
            assert told["generation"] == number + 2
            await traffic.more(clients)
    assert not traffic.refused
    assert not traffic.broken
    assert set(traffic.answers) <= {reply("old"), reply("new")}
    await eventually(
        lambda: all(not w["draining"] and w["generation"] == len(changes) + 1 for w in workers(service)),
        "the old generations to end",
    )
    assert service.ask("status")["restarts"] == 0
    assert service.ask("status")["sessions_cut"] == 0
    assert not service.log_lines("bug")


def _workers_are(count: int) -> Callable[[Service], None]:
    def change(service: Service) -> None:
        service.workers = count
        service.write_config()

    return change


def _listens_also(port: int) -> Callable[[Service], None]:
    def change(service: Service) -> None:
        service.write_config(milter={"listen": [service.listen, f"inet:{port}@127.0.0.1"]})

    return change


def test_a_policy_is_swapped_under_load(*, unix: bool) -> None:
    with a_service(unix=unix) as service:
        run(_swap_under_load(service, reloads=4, clients=8))


def test_a_new_generation_takes_over_under_load(*, unix: bool) -> None:
    changes = [_workers_are(3), _listens_also(free_port()), _workers_are(1), _workers_are(2)]
    with a_service(unix=unix) as service:
        run(_generations_under_load(service, changes, clients=8))


@pytest.mark.slow
def test_many_reloads_under_much_load(*, unix: bool) -> None:
    with a_service(unix=unix, workers=3) as service:
        run(_swap_under_load(service, reloads=30, clients=40))
    changes = [_workers_are(n) for n in (1, 4, 2, 3, 1, 2, 4, 1, 3, 2)]
    with a_service(unix=unix) as service:
        run(_generations_under_load(service, changes, clients=40))


@pytest.mark.slow
def test_a_socket_that_is_added_serves_and_one_that_is_dropped_is_closed() -> None:
    port = free_port()
    with a_service(unix=True) as service:
        _listens_also(port)(service)
        assert service.ask("reload")["ok"]
        outcome = run(deliver(f"inet:127.0.0.1:{port}", MESSAGE))
        assert said(outcome) == reply("old")
        service.write_config(milter={"listen": [f"inet:{port}@127.0.0.1"]})
        assert service.ask("reload")["ok"]
        assert not service.socket.exists()
        service.write_config()
        assert service.ask("reload")["ok"]
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        assert run(answer(service)) == reply("old")


def test_a_message_that_has_begun_is_judged_by_the_policy_it_began_with() -> None:
    async def main(service: Service) -> None:
        held = await Held(service).open()
        rest = await held.half_a_message()
        _set_policy(service, "new")
        assert (await ask(service, "reload"))["how"] == "swap"
        assert said(await rest()) == reply("old")
        await held.message_ended()
        assert said(await held.message()) == reply("new")
        held.close()

    with a_service() as service:
        run(main(service))


def test_sessions_of_the_old_generation_go_on_until_they_end() -> None:
    async def main(service: Service) -> None:
        held = await Held(service).open()
        rest = await held.half_a_message()
        service.policy = policy("new")
        _workers_are(1)(service)
        assert (await ask(service, "reload"))["how"] == "generation"
        assert await answer(service) == reply("new")
        assert said(await rest()) == reply("old")
        await held.message_ended()
        assert said(await held.message()) == reply("old"), "its worker has the old settings"
        held.close()
        await eventually(lambda: len(workers(service)) == 1, "the old generation to end")
        assert service.ask("status")["sessions_cut"] == 0

    with a_service(settings={"milter": {"drain": "60s"}}) as service:
        run(main(service))


@pytest.mark.slow
def test_a_third_generation_waits_for_the_first_to_make_room() -> None:
    async def main(service: Service) -> None:
        held = await Held(service).open()
        _workers_are(1)(service)
        assert (await ask(service, "reload"))["how"] == "generation"
        _workers_are(3)(service)
        third = asyncio.create_task(ask(service, "reload"))
        assert await held.ended(), "it was between messages, so it is closed long before its drain is over"
        assert (await third)["how"] == "generation"
        await eventually(lambda: len({w["generation"] for w in workers(service)}) == 1, "one generation")
        status = service.ask("status")
        assert (status["sessions_closed"], status["sessions_cut"]) == (1, 0)
        held.close()

    with a_service(settings={"milter": {"drain": "60s"}}) as service:
        run(main(service))


def test_policy_and_list_files_are_read_again_though_the_configuration_is_the_same() -> None:
    text = (
        policy("listed")
        .replace("{origin: internet}", "{origin: internet, message.author.domain: {in_list: some}}")
        .replace("rules:", "lists: {some: {file: some.txt}}\nrules:")
    )

    with a_service() as service:
        (service.base / "policy.yaml").write_text(text)
        (service.base / "some.txt").write_text("example.net\n")
        assert service.ask("reload")["how"] == "swap"
        digest = service.ask("status")["digest"]
        assert run(answer(service)) == ""
        (service.base / "some.txt").write_text("example.net\nexample.org\n")
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(service.log_lines("reloaded")) == 2, 10, "the list to be read")
        assert service.ask("status")["digest"] != digest
        assert run(answer(service)) == reply("listed")


def test_a_wrong_policy_changes_nothing_and_every_complaint_is_said_and_logged() -> None:
    with a_service() as service:
        (service.base / "policy.yaml").write_text(
            "version: 1\nrules:\n  - id: a\n    when: {spf.status: passs}\n    then: accept\n"
            "  - id: b\n    when: {no.such: 1}\n    then: refuse\n"
        )
        digest = service.ask("status")["digest"]
        ran = run_cli(service, "reload")
        assert ran.returncode == 78
        told = [line for line in ran.stderr.splitlines() if "policy.yaml:" in line]
        assert len(told) >= 4
        for word in ("passs", "no.such", "refuse", "default"):
            assert any(word in line for line in told), word
        logged = [line["complaint"] for line in service.log_lines("reload refused")]
        assert len(logged) == len(told)
        status = service.ask("status")
        assert status["digest"] == digest
        assert status["generation"] == 1
        assert "passs" in status["last_reload"]["error"]
        assert run(answer(service)) == reply("old")
        # A worker that is started now has what was good last, not what is on the disk.
        os.kill(status["workers"][0]["pid"], signal.SIGKILL)
        wait_until(lambda: service.ask("status")["restarts"] == 1, 10, "the worker to be replaced")
        service.wait_ready()
        assert {worker["digest"] for worker in workers(service)} == {digest}
        assert {run(answer(service)) for _ in range(4)} == {reply("old")}


def test_a_wrong_configuration_changes_nothing_and_can_be_asked_about() -> None:
    with a_service() as service:
        wrong = json.loads(service.config.read_text())
        wrong["milter"] |= {"workers": 0, "engine": "nativ"}
        wrong["nonsense"] = True
        service.config.write_text(json.dumps(wrong))
        ran = run_cli(service, "reload")
        assert ran.returncode == 78
        for word in ("milter.workers", "nativ", "nonsense"):
            assert word in ran.stderr
        shown = run_cli(service, "status")
        assert shown.returncode == 0, shown.stderr
        assert "was refused" in shown.stdout
        assert run(answer(service)) == reply("old")


def test_a_new_socket_that_cannot_be_opened_changes_nothing() -> None:
    with a_service() as service, socket.create_server(("127.0.0.1", 0)) as taken:
        _listens_also(taken.getsockname()[1])(service)
        told = service.ask("reload")
        assert "cannot listen on" in told["error"]
        assert "in use" in told["error"]
        assert service.ask("status")["listen"] == [service.listen]
        assert run(answer(service)) == reply("old")


@pytest.mark.slow
def test_a_socket_whose_path_somebody_removed_is_opened_anew() -> None:
    with a_service(unix=True) as service:
        service.socket.unlink()
        _workers_are(1)(service)
        assert service.ask("reload")["how"] == "generation"
        assert run(answer(service)) == reply("old")


@pytest.mark.slow
def test_the_mode_of_an_open_socket_can_be_changed() -> None:
    with a_service(unix=True) as service:
        service.write_config(milter={"socket_mode": "0660"})
        assert service.ask("reload")["how"] == "generation"
        assert stat.S_IMODE(service.socket.stat().st_mode) == 0o660


def test_reloads_that_come_at_once_are_done_in_one_go() -> None:
    async def main(service: Service) -> None:
        answers = await asyncio.gather(*(ask(service, "reload") for _ in range(12)))
        assert all(told["ok"] for told in answers)
        for _ in range(5):
            service.process.send_signal(signal.SIGHUP)
        await eventually(lambda: not service.ask("status")["reloading"], "the last reload")

    with a_service() as service:
        run(main(service))
        assert 1 <= len(service.log_lines("reloaded")) <= 8, "17 requests"


@pytest.mark.slow
def test_a_reload_that_changes_nothing_keeps_the_workers() -> None:
    with a_service() as service:
        before = {worker["pid"] for worker in workers(service)}
        assert service.ask("reload")["how"] == "swap"
        assert {worker["pid"] for worker in workers(service)} == before


def _children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _kill_all_new_children(service: Service, until: asyncio.Task[Any]) -> None:
    old = {worker["pid"] for worker in workers(service)}
    while not until.done():
        new = _children(service.process.pid) - old
        if len(new) > 1:  # a single one is reading the configuration
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_generation_that_does_not_come_up_changes_nothing() -> None:
    async def main(service: Service) -> None:
        async with Traffic(service) as traffic:
            _workers_are(40)(service)  # so many that one can be caught before all are ready
            told = asyncio.create_task(ask(service, "reload"))
            await asyncio.to_thread(_kill_all_new_children, service, told)
            assert "the workers do not start: signal 9" in (await told)["error"]
            await traffic.more(20)
        assert not traffic.refused
        assert not traffic.broken
        await eventually(lambda: len(workers(service)) == 2, "the others to end")
        assert {worker["generation"] for worker in workers(service)} == {1}
        assert (await ask(service, "reload"))["generation"] == 3

    with a_service() as service:
        run(main(service))


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_the_reload_done() -> None:
    with a_service() as service:
        hung = workers(service)[0]["pid"]
        os.kill(hung, signal.SIGSTOP)
        _set_policy(service, "new")
        told = service.ask("reload")
        assert told["ok"], told
        assert hung not in {worker["pid"] for worker in workers(service)}
        assert {run(answer(service)) for _ in range(4)} == {reply("new")}
        assert service.log_lines("worker hangs")
