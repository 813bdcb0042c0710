"""A worker that dies takes its own sessions with it and nothing else; and nobody outlives the supervisor for long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
from pathlib import Path

import pytest

from tests.milter.client import Client, Conversation, converse, open_stream
from tests.service.helpers import (
    MESSAGE,
    Held,
    Traffic,
    a_service,
    alive,
    answer,
    eventually,
    policy,
    reply,
    run,
    said,
    workers,
)
from tests.support.postfix import wait_until
from tests.support.service import Service


def _ready(service: Service, count: int = 2) -> bool:
    return [worker["ready"] for worker in workers(service)].count(True) == count


def _descriptors(pid: int) -> list[str]:
    """What a process has open besides the standard streams: sockets and pipes with their numbers."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if int(entry.name) > 2:
            with contextlib.suppress(FileNotFoundError):
                found.append(str(entry.readlink()))
    return found


def _kinds(pid: int) -> list[str]:
    return sorted(name.partition(":")[0] for name in _descriptors(pid))


def _shared(pid: int, other: int) -> set[str]:
    """Sockets and pipes that two processes have both open, besides the one that all accept on."""
    both = set(_descriptors(pid)) & set(_descriptors(other))
    return {name for name in both if name.startswith(("socket:", "pipe:")) and name not in _listening()}


def _listening() -> set[str]:
    """All listening sockets of TCP."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return {f"socket:[{fields[9]}]" for fields in lines if fields[3] == "0A"}


def test_a_killed_worker_breaks_its_own_sessions_only(*, unix: bool) -> None:
    async def main(service: Service) -> None:
        held = await asyncio.gather(*(Held(service).open() for _ in range(8)))
        await eventually(lambda: [w["sessions"] for w in workers(service)] == [4, 4], "8 sessions")
        killed = workers(service)[0]["pid"]
        os.kill(killed, signal.SIGKILL)
        assert await answer(service) == reply("old"), "nobody is refused"
        works = await asyncio.gather(*(each.works() for each in held))
        assert sorted(works) == [False] * 4 + [True] * 4
        await eventually(lambda: _ready(service), "a new worker")
        status = service.ask("status")
        assert (status["restarts"], status["sessions_cut"]) == (1, 4)
        assert killed not in {w["pid"] for w in status["workers"]}
        again = await asyncio.gather(*(Held(service).open() for _ in range(4)))
        await eventually(
            lambda: [w["sessions"] for w in workers(service)] == [4, 4], "the new one to be used"
        )
        for each in (*held, *again):
            each.close()

    with a_service(unix=unix) as service:
        run(main(service))
        assert service.log_lines("worker died")[0]["why"] == "signal 9"


def test_a_connection_that_a_dying_worker_never_took_goes_to_its_successor(*, mostly_unix: bool) -> None:
    async def main(service: Service) -> None:
        worker = workers(service)[0]["pid"]
        os.kill(worker, signal.SIGSTOP)
        reader, writer = await open_stream(service.for_postfix)
        talk = Conversation()
        told = asyncio.create_task(converse(talk.deliver(Client(), MESSAGE), reader, writer))
        assert workers(service)[0]["sessions"] == 0
        os.kill(worker, signal.SIGKILL)
        assert said(await told) == reply("old")
        writer.close()
        assert service.ask("status")["sessions_cut"] == 0

    with a_service(unix=mostly_unix, workers=1) as service:
        run(main(service))
        assert service.log_lines("worker died")[0]["sessions_cut"] == 0


@pytest.mark.slow
def test_connections_wait_while_there_is_no_worker(*, mostly_unix: bool) -> None:
    async def main(service: Service) -> None:
        for _ in range(4):  # from the third on there is a pause
            os.kill(workers(service)[0]["pid"], signal.SIGKILL)
            answers = await asyncio.gather(*(answer(service) for _ in range(20)))
            assert set(answers) == {reply("old")}

    with a_service(unix=mostly_unix, workers=1) as service:
        run(main(service))
        assert service.ask("status")["restarts"] == 4


async def _killing(service: Service, *, clients: int, kills: int) -> Traffic:
    chance = random.Random(3)
    async with Traffic(service, clients=clients) as traffic:
        killed: set[int] = set()
        while len(killed) < kills:
            there = await asyncio.to_thread(workers, service)
            ready = [w["pid"] for w in there if w["ready"] and w["pid"] not in killed]
            if ready:
                pid = chance.choice(ready)
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
                await traffic.more(clients)
        await eventually(lambda: _ready(service, service.workers), "all workers to be back")
        await traffic.more(4 * clients)
    return traffic


def test_kill_after_kill_refuses_nobody(*, mostly_unix: bool) -> None:
    with a_service(unix=mostly_unix) as service:
        traffic = run(_killing(service, clients=8, kills=4))
        assert not traffic.refused
        assert len(traffic.broken) <= 4 * 8
        assert set(traffic.answers) == {reply("old")}
        assert service.ask("status")["restarts"] == 4
        assert not service.log_lines("bug")


@pytest.mark.slow
def test_many_kills_refuse_nobody(*, unix: bool) -> None:
    with a_service(unix=unix, workers=4) as service:
        traffic = run(_killing(service, clients=30, kills=40))
        assert not traffic.refused
        assert set(traffic.answers) == {reply("old")}
        assert not service.log_lines("bug")
        assert sum(w["sessions"] for w in workers(service)) == 0


def test_workers_have_nothing_of_the_supervisor_open() -> None:
    async def main(service: Service) -> None:
        usual = _kinds(workers(service)[0]["pid"])
        held = await asyncio.gather(*(Held(service).open() for _ in range(6)))
        # A control client is waiting, and connections are open, while a worker is replaced.
        _reader, writer = await asyncio.open_unix_connection(service.control)
        killed, kept = (w["pid"] for w in workers(service))
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: killed not in {w["pid"] for w in workers(service)}, "a new worker")
        await eventually(lambda: _ready(service), "it to be ready")
        new = next(w["pid"] for w in workers(service) if w["pid"] != kept)
        assert _kinds(new) == usual
        for pid, other in ((new, service.process.pid), (kept, service.process.pid), (new, kept)):
            assert not _shared(pid, other)
        writer.close()
        for each in held:
            each.close()

    with a_service() as service:
        run(main(service))


def test_workers_end_by_themselves_when_the_supervisor_is_killed() -> None:
    async def main(service: Service) -> None:
        pids = [worker["pid"] for worker in workers(service)]
        held = await Held(service).open()
        rest = await held.half_a_message()
        service.process.kill()
        await asyncio.to_thread(service.process.wait)
        assert said(await rest()) == reply("old")
        await eventually(lambda: sum(map(alive, pids)) == 1, "the worker without sessions to end")
        held.close()
        await eventually(lambda: not any(map(alive, pids)), "the other to end, too")
        # What it left behind does not keep the next one from starting.
        service.start()
        assert await answer(service) == reply("old")

    with a_service(unix=True, settings={"milter": {"drain": "60s"}}) as service:
        run(main(service))


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_nobody_waits_for_it() -> None:
    async def main(service: Service) -> None:
        hung = workers(service)[0]["pid"]
        os.kill(hung, signal.SIGSTOP)
        answers = await asyncio.gather(*(answer(service) for _ in range(6)))
        assert set(answers) == {reply("old")}
        assert not service.log_lines("worker hangs"), "it has not even been noticed"
        await eventually(lambda: hung not in {worker["pid"] for worker in workers(service)}, "its end", 40)

    with a_service() as service:
        run(main(service))
        assert len(service.log_lines("worker hangs")) == 1


@pytest.mark.slow
def test_a_worker_ignores_signals_that_are_meant_for_the_supervisor() -> None:
    with a_service() as service:
        before = workers(service)
        for worker in before:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                os.kill(worker["pid"], number)
        assert run(answer(service)) == reply("old")
        assert {w["pid"] for w in workers(service)} == {w["pid"] for w in before}
        assert service.ask("status")["restarts"] == 0


@pytest.mark.slow
def test_a_policy_of_the_disk_is_no_matter_to_a_worker_that_is_replaced() -> None:
    with a_service(workers=1) as service:
        (service.base / "policy.yaml").write_text(policy("new"))
        os.kill(workers(service)[0]["pid"], signal.SIGKILL)
        assert run(answer(service)) == reply("old")
        (service.base / "policy.yaml").unlink()
        os.kill(workers(service)[0]["pid"], signal.SIGKILL)
        assert run(answer(service)) == reply("old")
        wait_until(lambda: _ready(service, 1), 10, "the worker")


def test_a_connection_that_a_worker_has_no_descriptor_for_goes_to_another() -> None:
    async def main(service: Service) -> None:
        full = workers(service)[0]["pid"]
        limit = 3 + len(_descriptors(full))
        resource.prlimit(full, resource.RLIMIT_NOFILE, (limit, limit))
        held = await asyncio.gather(*(Held(service).open() for _ in range(6)))
        assert all(await asyncio.gather(*(each.works() for each in held)))
        found = {worker["pid"]: worker["sessions"] for worker in workers(service)}
        assert found.pop(full) == 0
        assert list(found.values()) == [6]
        for each in held:
            each.close()

    with a_service(user=None) as service:  # whose limits we may change
        run(main(service))
        assert service.ask("status")["restarts"] == 0
        assert service.log_lines("no_descriptors")
