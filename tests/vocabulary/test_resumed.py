"""Coroutines whose first step somebody made by hand."""

from __future__ import annotations

import asyncio

import pytest

from authmilter.resumed import resumed
from tests.support.loops import Run


async def _twice(moments: list[str]) -> str:
    try:
        await asyncio.sleep(0.001)
        moments.append("once")
        await asyncio.sleep(0.001)
    except asyncio.CancelledError:
        moments.append("cancelled")
        raise
    return "done"


def test_a_task_can_be_made_of_the_rest(run: Run) -> None:
    async def work() -> None:
        moments: list[str] = []
        started = _twice(moments)
        task = asyncio.get_running_loop().create_task(resumed(started, started.send(None)))
        assert await task == "done"
        assert moments == ["once"]

    run(work())


def test_cancelling_reaches_it(run: Run) -> None:
    async def work() -> None:
        moments: list[str] = []
        started = _twice(moments)
        task = asyncio.get_running_loop().create_task(resumed(started, started.send(None)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert moments == ["cancelled"]

    run(work())


def test_what_it_raises_is_raised(run: Run) -> None:
    async def work() -> None:
        async def fails() -> None:
            await asyncio.sleep(0)
            raise ValueError("no")

        started = fails()
        with pytest.raises(ValueError, match="no"):
            await resumed(started, started.send(None))

    run(work())
