"""Our client while the service under it changes: reloads, new generations, killed workers. Every message has its answer."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import pytest

from authmilter.client import AsyncClient, CallError, Client, messages, verify_request
from tests.service.helpers import MESSAGE, ask, eventually, policy, run
from tests.service.test_grpc_role import change_grpc, grpc_pids, grpc_service, open_folder, target
from tests.support.service import Service

ABOUT: dict[str, Any] = {
    "client_ip": "192.0.2.1",
    "helo": "mail.example.org",
    "mail_from": "alice@example.org",
    "rcpt_to": ["bob@rig.example"],
}
#: Larger than what gRPC keeps by itself to send it again.
LARGE = MESSAGE + b"Another line of a large message.\r\n" * 20_000


@pytest.fixture(params=["tcp", "unix"])
def served(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A running service with two gRPC workers on TCP, or the one that a unix socket has."""
    if request.param == "tcp":
        with grpc_service(grpc_workers=2) as service:
            yield service
        return
    with grpc_service() as service:
        service.stop()
        change_grpc(service, listen=[open_folder(service)])
        service.start()
        yield service


@dataclass
class Work:
    """Clients that ask without end until the block is left: by call, stream and upload, waiting and not."""

    target: str
    answers: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    twice: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._calls()),
            asyncio.create_task(self._streams()),
            asyncio.create_task(self._uploads()),
            asyncio.create_task(asyncio.to_thread(self._blocking_stream)),
            asyncio.create_task(asyncio.to_thread(self._blocking_calls)),
        ]
        await self.more(3)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait for so many further answers by every way."""
        goals = {
            way: self.answers[way] + count for way in ("call", "stream", "upload", "threads", "one by one")
        }
        await eventually(lambda: all(self.answers[w] >= g for w, g in goals.items()), "further answers", 40)

    async def _calls(self) -> None:
        async with AsyncClient(self.target, timeout=20) as client:
            while not self.stopped.is_set():
                for message in (MESSAGE, LARGE):
                    await self._noted("call", client.verify(message, **ABOUT))

    async def _uploads(self) -> None:
        async with AsyncClient(self.target, timeout=20) as client:
            while not self.stopped.is_set():
                await self._noted("upload", client.verify_upload(io.BytesIO(LARGE), **ABOUT))

    async def _noted(self, way: str, call: Any) -> None:
        try:
            answer = await call
        except CallError as e:
            self.failed.append(f"{way}: {e}")
        else:
            assert answer.verdict.decision.rule
            self.answers[way] += 1

    async def _streams(self) -> None:
        sent, seen = Counter[str](), Counter[str]()

        async def requests() -> AsyncIterator[messages.VerifyRequest]:
            number = 0
            while not self.stopped.is_set():
                number += 1
                sent[str(number)] += 1
                yield verify_request(MESSAGE, id=str(number), **ABOUT)

        try:
            async with AsyncClient(self.target) as client:
                async for answer in client.verify_stream(requests(), window=16):
                    assert answer.verdict().decision.rule
                    seen[answer.id] += 1
                    self.answers["stream"] += 1
        except CallError as e:
            self.failed.append(f"stream: {e}")
        assert seen == sent, "each has one answer"

    def _blocking_stream(self) -> None:
        sent, seen = Counter[str](), Counter[str]()

        def requests() -> Iterator[messages.VerifyRequest]:
            number = 0
            while not self.stopped.is_set():
                number += 1
                sent[str(number)] += 1
                yield verify_request(MESSAGE, id=str(number), **ABOUT)

        try:
            with Client(self.target) as client:
                for answer in client.verify_stream(requests(), window=16):
                    assert answer.verdict().decision.rule
                    seen[answer.id] += 1
                    self.answers["threads"] += 1
        except CallError as e:
            self.failed.append(f"blocking stream: {e}")
        assert seen == sent, "each has one answer"

    def _blocking_calls(self) -> None:
        with Client(self.target, timeout=20) as client:
            while not self.stopped.is_set():
                try:
                    client.verify(LARGE, **ABOUT)
                    client.verify_upload(io.BytesIO(LARGE), **ABOUT)
                except CallError as e:
                    self.failed.append(f"one by one: {e}")
                else:
                    self.answers["one by one"] += 1


def test_reloads_and_new_generations_fail_no_call(served: Service) -> None:
    async def main() -> None:
        async with Work(target(served)) as work:
            for number in range(3):
                served.policy = policy("new" if number % 2 == 0 else "old")
                served.write_config()
                assert (await ask(served, "reload"))["how"] == "swap"
                await work.more(5)
                change_grpc(served, max_calls=500 + number)
                assert (await ask(served, "reload"))["how"] == "generation"
                await work.more(5)
        assert work.failed == []
        assert work.answers.total() > 100
        print(f"3 reloads, 3 generations: {dict(work.answers)}, none failed")

    run(main())
    assert not served.log_lines("bug")


def test_workers_killed_under_load_fail_no_call(served: Service) -> None:
    async def main() -> None:
        async with Work(target(served)) as work:
            for _ in range(3):
                pids = await asyncio.to_thread(grpc_pids, served)
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                await eventually(partial(_replaced, served, pids), "others")
                await work.more(5)
        assert work.failed == []
        print(f"3 times all workers killed: {dict(work.answers)}, none failed")

    run(main())
    assert not served.log_lines("bug")


def _replaced(service: Service, pids: list[int]) -> bool:
    now = grpc_pids(service)
    return not set(pids) & set(now) and len(now) == len(pids)
