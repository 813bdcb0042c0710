"""Services with policies whose answers tell them apart, sessions held open, and clients that never stop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.milter.client import (
    Client,
    Conversation,
    MilterGone,
    Outcome,
    converse,
    deliver,
    open_stream,
    read_packet,
)
from tests.support.postfix import wait_until
from tests.support.service import ROOT, Service

T = TypeVar("T")

#: A service is never root here: who may remove sockets and who may not is part of what is tested.
USER = "nobody" if os.geteuid() == 0 else None
MESSAGE = b"From: alice@example.org\r\nTo: bob@rig.example\r\nSubject: hello\r\n\r\nbody\r\n"


def policy(word: str) -> str:
    """A policy that answers every message with a word."""
    return (
        "version: 1\nrules:\n"
        f"  - id: {word}\n    when: {{origin: internet}}\n"
        f'    then: {{tempfail: {{code: 451, enhanced: 4.7.1, text: "policy {word}"}}}}\n'
        "default: accept\n"
    )


def reply(word: str) -> str:
    """What a client is told by that policy."""
    return f"451 4.7.1 policy {word}"


def said(outcome: Outcome) -> str:
    """What a client was told, without the support id; empty where the message was accepted."""
    return outcome.reply.partition(" (id ")[0]


def a_service(*, unix: bool = False, **more: Any) -> Service:
    """A service without any DNS, whose policy is `old` unless told otherwise."""
    return Service(zone={}, unix=unix, **{"policy": policy("old"), "user": USER, **more})


def workers(service: Service) -> list[dict[str, Any]]:
    """The workers as the supervisor knows them."""
    found: list[dict[str, Any]] = service.ask("status")["workers"]
    return found


def run_cli(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    """Run an `authmilter` command with the service's configuration."""
    return subprocess.run(
        [sys.executable, "-m", "authmilter", *words, "-c", str(service.config)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "150"},
    )


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    """Wait for a condition while the loop goes on."""
    await asyncio.to_thread(wait_until, condition, seconds, what)


async def ask(service: Service, command: str) -> dict[str, Any]:
    """Say something on the control socket while the loop goes on."""
    return await asyncio.to_thread(service.ask, command)


async def answer(service: Service) -> str:
    """Deliver a message and return the reply (empty if it was accepted)."""
    outcome = await deliver(service.for_postfix, MESSAGE)
    assert outcome.final in {"accept", "tempfail", "reject"}
    return said(outcome)


class Held:
    """A milter session that is held open, as an SMTP client holds it that says nothing.

    Args:
        service: whom to connect to.
    """

    def __init__(self, service: Service) -> None:
        self._address = service.for_postfix
        self._talk = Conversation()

    async def open(self) -> Self:
        """Connect, and get as far as HELO."""
        self.reader, self.writer = await open_stream(self._address)
        await converse(self._talk.hello(Client()), self.reader, self.writer)
        return self

    async def message(self) -> Outcome:
        """Say a message; MilterGone if the session is broken."""
        try:
            outcome = await converse(self._talk.message(Client(), MESSAGE), self.reader, self.writer)
            await self.message_ended()
        except ConnectionError as e:
            raise MilterGone from e
        return outcome

    async def half_a_message(self) -> Callable[[], Awaitable[Outcome]]:
        """Say a message up to its first header field; what is returned says the rest and gives the outcome."""
        talk = self._talk.message(Client(), MESSAGE)
        item = next(talk)
        while item is None or item[4:5] != b"L":
            if item is None:
                item = talk.send(await read_packet(self.reader))
            else:
                self.writer.write(item)
                item = next(talk)
        self.writer.write(item)
        await self.writer.drain()
        return lambda: converse(talk, self.reader, self.writer)

    async def message_ended(self) -> None:
        """Say that the message is over, as Postfix does."""
        await converse(self._talk.abort(), self.reader, self.writer)

    async def works(self) -> bool:
        """Say whether the session still answers messages."""
        try:
            await self.message()
        except MilterGone:
            return False
        return True

    async def ended(self, seconds: float = 15) -> bool:
        """Wait for the other side to close; False if it does not."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read() == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


@dataclass
class Traffic:
    """Clients that connect, say some messages, quit and begin again, until the block is left.

    `answers` counts the replies; `refused` and `broken` say what went wrong.
    """

    service: Service
    clients: int = 8
    messages: int = 2
    answers: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _stopped: bool = False
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self.clients)]
        await self.more(self.clients)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await asyncio.gather(*self._tasks)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopped = True

    async def more(self, count: int, seconds: float = 20) -> None:
        """Wait for so many further answers."""
        goal = self.answers.total() + count
        async with asyncio.timeout(seconds):
            while self.answers.total() < goal:
                self._answered.clear()
                await self._answered.wait()

    async def _client(self) -> None:
        while not self._stopped:
            try:
                reader, writer = await open_stream(self.service.for_postfix)
            except OSError as e:
                self.refused.append(repr(e))
                await asyncio.sleep(0.01)
                continue
            talk = Conversation()
            try:
                await converse(talk.hello(Client()), reader, writer)
                for _ in range(self.messages):
                    outcome = await converse(talk.message(Client(), MESSAGE), reader, writer)
                    await converse(talk.abort(), reader, writer)
                    self.answers[said(outcome) or outcome.final] += 1
                    self._answered.set()
                await converse(talk.quit(), reader, writer)
            except (MilterGone, OSError, TimeoutError) as e:
                self.broken.append(repr(e))
            finally:
                writer.close()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine."""
    return asyncio.run(main)


def alive(pid: int) -> bool:
    """Say whether a process is there (and no zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
