"""The load is spread: no worker has many more open sessions than another."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.service.helpers import Held, a_service, eventually, run, workers
from tests.support.postfix import wait_until
from tests.support.service import Service


def _sessions(service: Service) -> list[int]:
    return [worker["sessions"] for worker in workers(service)]


async def _settled(service: Service, total: int) -> float:
    await eventually(lambda: sum(_sessions(service)) == total, f"{total} sessions")
    sessions = _sessions(service)
    return max(sessions) / (sum(sessions) / len(sessions))


def test_sessions_that_stay_open_are_spread_over_the_workers(*, unix: bool) -> None:
    async def main(service: Service) -> None:
        few = await asyncio.gather(*(Held(service).open() for _ in range(16)))
        assert await _settled(service, 16) <= 1.3
        many = list(few) + list(await asyncio.gather(*(Held(service).open() for _ in range(84))))
        assert await _settled(service, 100) <= 1.3
        # Those that end leave the workers unevenly loaded; those that come put that right.
        random.Random(7).shuffle(many)
        for held in many[:60]:
            held.close()
        await _settled(service, 40)
        many[:60] = await asyncio.gather(*(Held(service).open() for _ in range(60)))
        assert await _settled(service, 100) <= 1.3
        assert all(await asyncio.gather(*(held.works() for held in many)))
        for held in many:
            held.close()
        assert await _settled_at_none(service)

    with a_service(unix=unix, workers=4) as service:
        run(main(service))


async def _settled_at_none(service: Service) -> bool:
    await eventually(lambda: sum(_sessions(service)) == 0, "no sessions")
    return True


@pytest.mark.slow
def test_short_sessions_reach_every_worker() -> None:
    async def one_after_the_other(service: Service) -> None:
        for _ in range(10):
            held = await Held(service).open()
            assert await held.works()
            held.close()

    async def main(service: Service) -> None:
        await asyncio.gather(*(one_after_the_other(service) for _ in range(16)))

    with a_service(workers=4) as service:
        run(main(service))
        wait_until(lambda: sum(w["messages"] for w in workers(service)) == 160, 5, "the workers' counts")
        served = [worker["messages"] for worker in workers(service)]
        assert min(served) > 0, served
        assert max(served) <= 2 * 40, served
