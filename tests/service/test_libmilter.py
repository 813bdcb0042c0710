"""The same service with libmilter: it accepts by itself, on sockets that stay the supervisor's."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from tests.milter.processes import need_pymilter
from tests.service.helpers import (
    Held,
    Traffic,
    a_service,
    answer,
    ask,
    eventually,
    policy,
    reply,
    run,
    said,
    workers,
)
from tests.service.test_stop import activated, listening
from tests.support.postfix import wait_until
from tests.support.service import Service


@pytest.fixture
def service(*, mostly_unix: bool) -> Iterator[Service]:
    need_pymilter()
    with a_service(unix=mostly_unix, engine="libmilter") as found:
        yield found


async def _change_under_load(service: Service, *, clients: int, changes: int) -> None:
    async with Traffic(service, clients=clients) as traffic:
        for number in range(changes):
            service.policy = policy("new" if number % 2 == 0 else "old")
            service.write_config(milter={"max_sessions": 2000 + number // 2})
            told = await ask(service, "reload")
            assert told["how"] == ("swap" if number % 2 else "generation")
            await traffic.more(clients)
    assert not traffic.refused
    assert not traffic.broken
    assert set(traffic.answers) == {reply("old"), reply("new")}
    await eventually(lambda: len(workers(service)) == 1, "the old generations to end")
    status = service.ask("status")
    assert (status["restarts"], status["sessions_cut"]) == (0, 0)


def test_swaps_and_new_generations_under_load(service: Service) -> None:
    run(_change_under_load(service, clients=4, changes=2))


@pytest.mark.slow
def test_many_changes_under_load(service: Service) -> None:
    run(_change_under_load(service, clients=20, changes=10))


@pytest.mark.slow
def test_open_sessions_are_counted_and_survive_a_new_generation(service: Service) -> None:
    async def main() -> None:
        held = await Held(service).open()
        rest = await held.half_a_message()
        await eventually(lambda: workers(service)[0]["sessions"] == 1, "the session to be counted")
        service.policy = policy("new")
        service.write_config(milter={"drain": "30s", "max_sessions": 2000})
        assert (await ask(service, "reload"))["how"] == "generation"
        assert await answer(service) == reply("new")
        assert said(await rest()) == reply("old")
        await held.message_ended()
        held.close()
        await eventually(lambda: len(workers(service)) == 1, "the old worker to end")
        assert service.ask("status")["sessions_cut"] == 0

    service.write_config(milter={"drain": "30s"})
    service.ask("reload")
    run(main())


def test_a_killed_worker_refuses_nobody(service: Service) -> None:
    async def main() -> None:
        async with Traffic(service, clients=4) as traffic:
            for count in range(1, 3):
                os.kill(workers(service)[0]["pid"], signal.SIGKILL)
                await eventually(lambda n=count: service.ask("status")["restarts"] == n, "its death")  # type: ignore[misc]  # a default binds
                await traffic.more(10)
        assert not traffic.refused
        assert len(traffic.broken) <= 8
        assert set(traffic.answers) == {reply("old")}

    run(main())


@pytest.mark.slow
def test_stopping_finishes_the_message(service: Service) -> None:
    async def main() -> None:
        held = await Held(service).open()
        rest = await held.half_a_message()
        service.process.send_signal(signal.SIGTERM)
        await eventually(lambda: bool(service.log_lines("stopping")), "the stop")
        assert said(await rest()) == reply("old")
        held.close()
        assert await asyncio.to_thread(service.process.wait, 15) == 0

    run(main())
    assert not service.socket.exists()
    assert not list(service.base.glob("*.s"))


@pytest.mark.slow
def test_a_restart_with_sockets_that_stay_open_refuses_nobody(service: Service, *, mostly_unix: bool) -> None:
    async def main() -> None:
        async with Traffic(service, clients=4, messages=1) as traffic:
            await traffic.more(20)
            assert await asyncio.to_thread(service.stop) == 0
            await asyncio.to_thread(service.start)
            await traffic.more(20)
        assert not traffic.refused
        assert not traffic.broken

    service.stop()
    with listening(unix=mostly_unix, service=service) as sock:
        activated(service, milter=sock)
        service.start()
        run(main())


@pytest.mark.slow
def test_engines_can_be_exchanged_under_load(service: Service) -> None:
    async def main() -> None:
        async with Traffic(service, clients=4) as traffic:
            for engine in ("native", "libmilter"):
                service.engine = engine
                service.write_config()
                assert (await ask(service, "reload"))["how"] == "generation"
                assert (await ask(service, "status"))["engine"] == engine
                await traffic.more(10)
        assert not traffic.refused
        assert not traffic.broken

    run(main())
    wait_until(lambda: len(workers(service)) == 1, 10, "the native workers to end")
