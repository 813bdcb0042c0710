"""Keys that take turns under a running service: every signature holds by the zone of its moment, and none is mixed."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from authmilter.dkim.crypto import KeyKind, generate_signing_key, load_signing_key
from authmilter.dkim.result import DkimStatus
from authmilter.signing.rotation import STATE_FILE, KeyState, RotationState, parse
from tests.milter.client import Client, MilterGone, deliver_all
from tests.service.helpers import USER, a_service, ask, eventually, run, run_cli, workers
from tests.support.dkim_keys import dkimpy_verifies, judge
from tests.support.nameserver import NameServer
from tests.support.postfix import wait_until
from tests.support.service import Service

MESSAGE = (
    b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: hello\r\nDate: d\r\n"
    b"Message-ID: <1@example.org>\r\n\r\nbody\r\n"
)
#: an own network of the service's configuration: its mail is signed
INSIDE = Client(address=b"10.99.0.5")


def _give(path: Path) -> None:
    """Give a file or folder to the service's user."""
    if USER is not None:
        user = pwd.getpwnam(USER)
        os.chown(path, user.pw_uid, user.pw_gid)


@dataclass
class Signed:
    """Clients that send all the time; `seen` counts the selectors of each message, `wrong` says what did not hold.

    `broken` are the sessions that ended with their worker.
    """

    service: Service
    server: NameServer
    zone: dict[str, object]
    clients: int = 4
    seen: Counter[tuple[str, ...]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _stopped: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self.clients)]
        await self.more()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def more(self) -> tuple[str, ...]:
        """Wait until each client has had a message that began after this; return the selectors of the last one."""
        goal = self.seen.total() + 3 * self.clients
        async with asyncio.timeout(30):
            while self.seen.total() < goal and not self.wrong:
                self._news.clear()
                await self._news.wait()
        return self._last

    async def _client(self) -> None:
        while not self._stopped:
            try:
                outcomes = await deliver_all(self.service.for_postfix, [(INSIDE, MESSAGE)] * 2)
            except (MilterGone, OSError) as e:
                self.broken.append(repr(e))  # its worker died
                continue
            for outcome in outcomes:
                self._judge(outcome.final, outcome.header_block)
            self._news.set()

    def _judge(self, final: str, header: bytes) -> None:
        message = header + b"\r\nbody\r\n"
        results = judge(message, self.zone) if b"DKIM-Signature" in header else ()
        selectors = tuple(sorted(str(r.selector) for r in results))
        if final != "accept" or any(r.status is not DkimStatus.PASS for r in results):
            self.wrong.append(f"{final}: {[(r.selector, r.status, r.detail) for r in results]}")
        if selectors not in self.seen or self.seen.total() % 50 == 0:
            ours = [i for i in range(len(results)) if not dkimpy_verifies(message, self.zone, i)]
            self.wrong += [f"dkimpy refuses {selectors[i]}" for i in ours]
        self.seen[selectors] += 1
        self._last = selectors


@dataclass
class Stage:
    """A service, and the domain that its administrator keeps."""

    service: Service
    server: NameServer
    zone: dict[str, object] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.service.base / "keys"

    @property
    def state(self) -> RotationState:
        return parse((self.folder / STATE_FILE).read_bytes())

    def times(self, **times: str) -> None:
        """Set the times; the service hears of them with the next reload."""
        self.service.write_config(signing={"rotation": [_rotation(**times)]})

    def publish(self, *states: KeyState, empty: bool = False) -> None:
        for g in self.state.generations:
            for key in g.keys:
                if g.state in states:
                    record = load_signing_key((self.folder / key.file).read_bytes()).record
                    text = record.partition(" p=")[0] + " p=" if empty else record
                    self.zone[f"{key.selector}._domainkey.example.org"] = {"TXT": [text]}
        self.server.replace(self.zone)

    async def rotate(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        ran = await asyncio.to_thread(run_cli, self.service, "keys", "rotate", *words)
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran

    def selectors(self, state: KeyState) -> tuple[str, ...]:
        return tuple(sorted(k.selector for g in self.state.generations if g.state is state for k in g.keys))


def _rotation(**times: str) -> dict[str, Any]:
    return {
        "domains": ["example.org"],
        "folder": "keys",
        "propagation": "0s",
        "grace": "300d",
        "queue_life": "300d",
        **times,
    }


@contextmanager
def a_stage(**more: Any) -> Iterator[Stage]:
    with NameServer() as server:
        settings = {
            "dns": {"zone": None, "nameservers": [server.address]},
            "signing": {"rotation": [_rotation()]},
        }
        with a_service(settings=settings, policy="monitor", unix=True, **more) as service:
            stage = Stage(service, server)
            stage.folder.mkdir(mode=0o700)
            _give(stage.folder)
            yield stage


async def _a_whole_rotation(stage: Stage) -> None:
    async with Signed(stage.service, stage.server, stage.zone) as mail:
        assert await mail.more() == ()
        await stage.rotate("run")
        assert await mail.more() == ()
        stage.publish(KeyState.PENDING)
        assert "the service has read the new state" in (await stage.rotate("run")).stdout
        first = stage.selectors(KeyState.ACTIVE)
        assert await mail.more() == first
        await stage.rotate("begin", "example.org")
        stage.publish(KeyState.PENDING)
        await stage.rotate("advance")
        second = stage.selectors(KeyState.ACTIVE)
        both = tuple(sorted((*first, *second)))
        assert await mail.more() == both
        stage.times(grace="0s")
        await stage.rotate("run")
        assert await mail.more() == second
        stage.times(grace="0s", queue_life="0s")
        await stage.rotate("run")
        assert stage.selectors(KeyState.RETIRED) == first
        stage.publish(KeyState.RETIRED, empty=True)
        assert await mail.more() == second
        # a worker that is started later has the same keys as the others
        os.kill(workers(stage.service)[0]["pid"], signal.SIGKILL)
        await asyncio.to_thread(
            wait_until, lambda: stage.service.ask("status")["restarts"] == 1, 10, "the death"
        )
        await asyncio.to_thread(stage.service.wait_ready)
    assert mail.wrong == []
    assert len(mail.broken) <= mail.clients
    assert set(mail.seen) == {(), first, both, second}
    assert len({w["digest"] for w in workers(stage.service)}) == 1
    assert stage.service.log_lines("bug") == []
    # a selector means one key for ever
    assert len({*first, *second}) == 4


def test_a_rotation_under_load() -> None:
    with a_stage() as stage:
        run(_a_whole_rotation(stage))


def test_a_service_that_does_not_take_the_keys_is_told_of_and_asked_again() -> None:
    async def main(stage: Stage) -> None:
        service = stage.service

        def taken() -> bool:
            return stage.state.taken

        await stage.rotate("run")
        stage.publish(KeyState.PENDING)
        service.policy = "version: 1\nrules: nonsense\n"
        stage.times()
        refused = await stage.rotate("run", code=78)
        assert "no service is known to have read the new state" in refused.stderr
        assert not taken()
        service.policy = "monitor"
        stage.times()
        # the service is asked again, though there is no step to take
        again = await stage.rotate("run", "--json")
        assert json.loads(again.stdout)["reload"]["ok"] is True
        assert taken()
        # another configuration's service is no service of these keys
        stage.times(grace="299d")
        await ask(service, "reload")
        other = service.base / "other.yaml"
        text = service.config.read_text()
        assert "299d" in text
        other.write_text(text.replace("299d", "298d"))
        if USER is not None:
            _give(other)
        await stage.rotate("begin", "example.org")
        stage.publish(KeyState.PENDING)
        service.config, config = other, service.config
        wrong = await stage.rotate("advance", code=78)
        assert "does it run with this configuration?" in wrong.stderr
        service.config = config
        await stage.rotate("advance")
        assert taken()
        # nobody there
        service.stop()
        stage.times(grace="0s")
        gone = await stage.rotate("advance", code=69)
        assert "does not answer" in gone.stderr

    with a_stage() as stage:
        run(main(stage))


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_key_file_that_is_replaced_is_used_with_its_selector_or_not_at_all(kind: KeyKind) -> None:
    """A worker that starts later finds another key: it does not serve, and everything is read anew."""

    async def main(service: Service, server: NameServer) -> None:
        zone: dict[str, object] = {}

        def put(selector: str) -> None:
            key = generate_signing_key(kind)
            file = service.base / "key.pem"
            file.unlink(missing_ok=True)
            file.write_bytes(key.pem())
            file.chmod(0o600)
            _give(file)
            zone[f"{selector}._domainkey.example.org"] = {"TXT": [key.record]}
            server.replace(zone)
            line = {"domain": "example.org", "selector": selector, "key": "key.pem"}
            service.write_config(signing={"domains": [line]})

        put("s1")
        assert (await ask(service, "reload")).get("ok"), service.log_text()
        async with Signed(service, server, zone) as mail:
            assert await mail.more() == ("s1",)
            put("s2")  # and nobody says reload
            assert await mail.more() == ("s1",)
            os.kill(workers(service)[0]["pid"], signal.SIGKILL)
            async with asyncio.timeout(20):
                while await mail.more() != ("s2",) and not mail.wrong:
                    pass
            assert await mail.more() == ("s2",)
        assert mail.wrong == []
        assert set(mail.seen) == {("s1",), ("s2",)}
        assert any("have changed since they were read" in w["error"] for w in service.log_lines("worker"))
        await eventually(
            lambda: len({w["digest"] for w in workers(service)}) == 1, "the same keys everywhere"
        )

    with NameServer() as server:
        settings = {"dns": {"zone": None, "nameservers": [server.address]}}
        with a_service(settings=settings, policy="monitor", unix=True) as service:
            run(main(service, server))
