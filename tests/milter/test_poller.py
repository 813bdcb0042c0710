"""Descriptors watched as one, on both kinds of loops, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from authmilter.milter.poller import NOTHING, READ, WRITE, Poller
from tests.support.loops import Run


async def turns(count: int = 5) -> None:
    """Let the loop look at its descriptors a few times."""
    for _ in range(count):
        await asyncio.sleep(0.001)


def a_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for each in pair:
        each.setblocking(False)
    return pair


def test_each_owner_is_told_until_it_has_read(run: Run) -> None:
    async def work() -> None:
        poller = Poller(asyncio.get_running_loop())
        pairs = [a_pair() for _ in range(100)]
        got: dict[int, bytes] = {}

        def reader(n: int) -> Callable[[], None]:
            def ready() -> None:
                got[n] = got.get(n, b"") + pairs[n][0].recv(2)

            return ready

        for n, (mine, _) in enumerate(pairs):
            poller.watch(mine.fileno(), reader(n))
        await turns()
        assert got == {}
        for _, theirs in pairs:
            theirs.send(b"hello")
        await turns(20)
        assert got == dict.fromkeys(range(100), b"hello")
        poller.close()
        poller.close()
        for pair in pairs:
            for each in pair:
                each.close()

    run(work())


def test_what_is_watched_for_can_change(run: Run) -> None:
    async def work() -> None:
        poller = Poller(asyncio.get_running_loop())
        mine, theirs = a_pair()
        told = 0

        def ready() -> None:
            nonlocal told
            told += 1
            poller.change(mine.fileno(), NOTHING)

        poller.watch(mine.fileno(), ready, NOTHING)
        theirs.send(b"x")
        await turns()
        assert told == 0
        poller.change(mine.fileno(), WRITE)
        await turns()
        assert told == 1
        poller.change(mine.fileno(), READ)
        await turns()
        assert told == 2, "it was told of what came while it did not want to know"
        poller.unwatch(mine.fileno())
        poller.unwatch(mine.fileno())
        theirs.close()
        await turns()
        assert told == 2
        poller.close()
        mine.close()

    run(work())


def test_one_that_is_closed_by_another_in_the_same_turn_is_not_told(run: Run) -> None:
    async def work() -> None:
        poller = Poller(asyncio.get_running_loop())
        pairs = [a_pair() for _ in range(2)]
        told: list[int] = []

        def closes_both(n: int) -> Callable[[], None]:
            def ready() -> None:
                told.append(n)
                for mine, _ in pairs:
                    poller.forget(mine.fileno())
                    mine.close()

            return ready

        for n, (mine, _) in enumerate(pairs):
            poller.watch(mine.fileno(), closes_both(n))
        for _, theirs in pairs:
            theirs.send(b"x")
        await turns()
        assert len(told) == 1
        poller.close()
        for _, theirs in pairs:
            theirs.close()

    run(work())


def test_what_an_owner_raises_is_its_own(run: Run) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        poller = Poller(loop)
        complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _loop, context: complaints.append(context))
        pairs = [a_pair() for _ in range(2)]
        got: list[bytes] = []

        def bad() -> None:
            pairs[0][0].recv(10)
            raise RuntimeError("a bug")

        poller.watch(pairs[0][0].fileno(), bad)
        poller.watch(pairs[1][0].fileno(), lambda: got.append(pairs[1][0].recv(10)))
        for _, theirs in pairs:
            theirs.send(b"x")
        await turns()
        assert got == [b"x"]
        assert [str(context["exception"]) for context in complaints] == ["a bug"]
        poller.close()
        for pair in pairs:
            for each in pair:
                each.close()

    run(work())
