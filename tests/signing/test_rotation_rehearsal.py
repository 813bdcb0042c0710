"""A rotation from the first key to a retired one: real commands, a zone that changes, a kill -9 before every step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authmilter import runtime
from authmilter.config import load as config_load
from authmilter.dkim.crypto import load_signing_key
from authmilter.dkim.result import DkimStatus
from authmilter.mail import Origin, Session
from authmilter.signing.rotation import STATE_FILE, KeyState, RotationState, parse
from authmilter.signing.settings import NotSigned, NotSignedReason, sign_message
from tests.signing.killed import Commands, Ran
from tests.support.dkim_keys import NOW, dkimpy_verifies, judge
from tests.support.nameserver import Fault, NameServer
from tests.support.signing import with_signatures

MESSAGE = (
    b"From: Alice <alice@example.com>\r\nTo: bob@example.net\r\nSubject: hello\r\nDate: d\r\n"
    b"Message-ID: <1@example.com>\r\n\r\nbody\r\n"
)


class Rehearsal:
    """A configuration, the folder of its keys, and the zone that an administrator keeps for it.

    Args:
        base: an empty folder.
        server: what answers from the zone.
        commands: what runs them.
    """

    def __init__(self, base: Path, server: NameServer, commands: Commands) -> None:
        self._base = base
        self.server = server
        self._commands = commands
        self.folder = base / "keys"
        self.folder.mkdir(mode=0o700)
        self.zone: dict[str, object] = {}
        self.publics: dict[str, bytes] = {}
        self.signed_once = False
        self.kinds = ["rsa", "ed25519"]
        self.times()

    def times(self, **times: str) -> None:
        """Set the times: instead of waiting a day, the day becomes short."""
        rotation = {
            "domains": ["example.com"],
            "folder": "keys",
            "kinds": self.kinds,
            "every": "300d",
            "propagation": "0s",
            "grace": "300d",
            "queue_life": "300d",
            **times,
        }
        config = {
            "dns": {"nameservers": [self.server.address], "timeout": "2s"},
            "control": {"socket": str(self._base / "none.sock")},
            "signing": {"rotation": [rotation]},
        }
        (self._base / "c.yaml").write_text(json.dumps(config))

    def rotate(self, *words: str, stop: int | None = None) -> Ran:
        """Run a command of `keys rotate`."""
        config = str(self._base / "c.yaml")
        return self._commands.run("keys", "rotate", *words, "-c", config, stop=stop)

    def run(self, stop: int | None = None) -> Ran:
        """Run what the timer runs."""
        return self.rotate("run", "--reloaded", stop=stop)

    @property
    def state(self) -> RotationState:
        """The state on the disk."""
        file = self.folder / STATE_FILE
        return parse(file.read_bytes()) if file.exists() else RotationState()

    def states(self) -> list[str]:
        return [g.state.value for g in self.state.generations]

    def publish(self, *states: KeyState, empty: bool = False) -> None:
        """Put the records of the generations in some states into the zone, or empty them."""
        for g in self.state.generations:
            for key in g.keys:
                if g.state in states:
                    record = load_signing_key((self.folder / key.file).read_bytes()).record
                    text = record.partition(" p=")[0] + " p=" if empty else record
                    self.zone[f"{key.selector}._domainkey.example.com"] = {"TXT": [text]}
        self.server.replace(self.zone)

    def check(self) -> list[str]:
        """Sign a message as a service would that starts now; return its selectors.

        Every key that was ever in the state is there and the same; all signatures verify by the zone of this moment.
        """
        for g in self.state.generations:
            for key in g.keys:
                public = load_signing_key((self.folder / key.file).read_bytes()).public
                assert self.publics.setdefault(key.selector, public) == public
        assert set(self.publics) <= {k.selector for g in self.state.generations for k in g.keys}
        settings = runtime.signing_settings(config_load.load(self._base / "c.yaml"))
        assert settings is not None
        values, _ = sign_message(
            MESSAGE, settings, session=Session(), origin=Origin.SUBMISSION, now=runtime.now()
        )
        if isinstance(values, NotSigned):
            assert values.reason is NotSignedReason.NO_KEY
            assert not self.signed_once, "signing stopped"
            return []
        self.signed_once = True
        signed = with_signatures(MESSAGE, values)
        results = judge(signed, self.zone, now=NOW)
        assert [r.status for r in results] == [DkimStatus.PASS] * len(values)
        assert all(dkimpy_verifies(signed, self.zone, index) for index in range(len(values)))
        return [str(r.selector) for r in results]

    def kill_at_every_step(self, run: Callable[[int | None], Ran]) -> int:
        """Kill a command before each of its steps, from the same start, and let the next run finish; count the kills.

        In the end the command has run once more, undisturbed.
        """
        start, publics, signed = self._base / "start", dict(self.publics), self.signed_once
        shutil.copytree(self.folder, start)
        outcomes = set()
        for stop in range(1000):
            shutil.rmtree(self.folder)
            shutil.copytree(start, self.folder)
            self.publics, self.signed_once = dict(publics), signed
            ran = run(stop)
            self.check()
            if not ran.killed:
                break
            run(None)
            self.check()
            outcomes.add(tuple(self.states()))
        assert not ran.killed
        assert ran.code == 0, ran.err
        outcomes.add(tuple(self.states()))
        assert len(outcomes) == 1, "a kill led elsewhere"
        shutil.rmtree(start)
        return stop


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as found:
        yield found


@pytest.fixture
def rehearsal(tmp_path: Path, commands: Commands) -> Iterator[Rehearsal]:
    with NameServer() as server:
        yield Rehearsal(tmp_path, server, commands)


@pytest.mark.parametrize("kinds", [["ed25519"], pytest.param(["rsa", "ed25519"], marks=pytest.mark.slow)])
def test_a_rotation_with_a_kill_before_every_step(rehearsal: Rehearsal, kinds: list[str]) -> None:
    rehearsal.kinds = kinds
    rehearsal.times()
    kills = [rehearsal.kill_at_every_step(rehearsal.run)]
    assert (rehearsal.states(), rehearsal.check()) == (["pending"], [])
    rehearsal.publish(KeyState.PENDING)
    kills.append(rehearsal.kill_at_every_step(rehearsal.run))
    first = rehearsal.check()
    assert (rehearsal.states(), len(first)) == (["active"], len(kinds))

    rehearsal.times(every="0s")
    kills.append(rehearsal.kill_at_every_step(rehearsal.run))
    assert (rehearsal.states(), rehearsal.check()) == (["active", "pending"], first)
    rehearsal.times()
    rehearsal.publish(KeyState.PENDING)
    kills.append(rehearsal.kill_at_every_step(rehearsal.run))
    both = rehearsal.check()
    assert rehearsal.states() == ["retiring", "active"]
    assert (len(both), both[len(kinds) :]) == (2 * len(kinds), first)

    rehearsal.times(grace="0s")
    kills.append(rehearsal.kill_at_every_step(rehearsal.run))
    assert (rehearsal.states(), rehearsal.check()) == (["retiring", "active"], both[: len(kinds)])
    rehearsal.times(grace="0s", queue_life="0s")
    kills.append(rehearsal.kill_at_every_step(rehearsal.run))
    assert rehearsal.states() == ["retired", "active"]
    rehearsal.publish(KeyState.RETIRED, empty=True)
    assert rehearsal.check() == both[: len(kinds)]
    rehearsal.run()
    assert (rehearsal.states(), rehearsal.check()) == (["retired", "active"], both[: len(kinds)])
    # each command writes the state at least once: a file, its name, and the folder
    assert all(count >= 8 for count in kills), kills
    assert sum(kills) > 70, kills


def _told(ran: Ran) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_a_key_is_not_used_while_the_dns_does_not_show_it(rehearsal: Rehearsal) -> None:
    began = rehearsal.rotate("begin", "example.com")
    assert began.code == 0
    assert began.out.count(" IN TXT ") == 2
    assert rehearsal.rotate("begin", "example.com").code == 65
    keys = _told(rehearsal.rotate("status", "--json"))["generations"][0]["keys"]
    one, other = (key["name"] for key in keys)
    rehearsal.publish(KeyState.PENDING)
    whole = dict(rehearsal.zone)

    def after(zone: dict[str, object], *faults: str) -> list[str]:
        rehearsal.server.replace(zone)
        for name in faults:
            rehearsal.server.fault(name, Fault.SERVFAIL)
        assert rehearsal.run().code == 0
        rehearsal.server.heal()
        return rehearsal.states()

    def seen() -> list[bool]:
        return [g.seen is not None for g in rehearsal.state.generations]

    assert after({}) == ["pending"]
    assert after({one: whole[one]}) == ["pending"]
    assert after({one: whole[one], other: whole[one]}) == ["pending"]  # another key's record
    assert after(whole, other) == ["pending"]  # nobody knows
    rehearsal.times(propagation="1h")
    assert after(whole) == ["pending"]
    assert "used from" in rehearsal.rotate("status").out
    assert seen() == [True]
    assert after({one: whole[one]}) == ["pending"]
    assert seen() == [False]
    rehearsal.times()
    assert after(whole) == ["active"]
    assert len(rehearsal.check()) == 2


def test_without_a_service_nothing_is_retired(rehearsal: Rehearsal) -> None:
    assert rehearsal.run().code == 0
    rehearsal.publish(KeyState.PENDING)
    unread = rehearsal.rotate("advance")
    assert (unread.code, rehearsal.states()) == (69, ["active"])
    assert "no service is known to have read the new state" in unread.err
    assert rehearsal.rotate("status").code == 1
    rehearsal.times(every="0s")
    rehearsal.run()
    rehearsal.publish(KeyState.PENDING)
    rehearsal.times(grace="0s", queue_life="0s")
    for _ in range(4):
        assert rehearsal.rotate("advance").code == 69
        assert rehearsal.states() == ["retiring", "active"]
    assert "no service is known to have read that" in rehearsal.rotate("status").out
    assert rehearsal.rotate("advance", "--reloaded").code == 0
    assert rehearsal.rotate("advance").code == 0
    assert rehearsal.states() == ["retired", "active"]
    told = rehearsal.rotate("status")
    assert told.code == 0
    assert told.out.count('p=" )') == 2
    rehearsal.publish(KeyState.RETIRED, empty=True)
    assert "nothing to do; its key files may be deleted" in rehearsal.rotate("status").out
    retired = rehearsal.state.generations[0]
    for key in retired.keys:
        (rehearsal.folder / key.file).unlink()
    assert rehearsal.rotate("status").code == 0
    assert rehearsal.run().code == 0


def test_a_stolen_key_stops_at_once(rehearsal: Rehearsal) -> None:
    for _ in range(2):
        rehearsal.times(every="0s")
        rehearsal.run()
        rehearsal.times()
        rehearsal.publish(KeyState.PENDING)
        assert rehearsal.run().code == 0
    assert len(rehearsal.check()) == 4
    rehearsal.publish(KeyState.RETIRING, empty=True)
    assert rehearsal.run().code == 0
    assert len(rehearsal.check()) == 2


def test_a_key_that_the_service_would_refuse_is_not_used(rehearsal: Rehearsal) -> None:
    rehearsal.run()
    rehearsal.publish(KeyState.PENDING)
    key = rehearsal.folder / rehearsal.state.generations[0].keys[0].file
    key.chmod(0o644)
    ran = rehearsal.run()
    assert (ran.code, rehearsal.states()) == (1, ["pending"])
    assert "open to everybody" in ran.err
    key.chmod(0o600)
    assert rehearsal.run().code == 0
    assert rehearsal.states() == ["active"]


def test_a_clock_that_was_wrong_is_told(rehearsal: Rehearsal) -> None:
    assert rehearsal.run().code == 0
    file = rehearsal.folder / STATE_FILE
    state = json.loads(file.read_text())
    assert "speaks of" not in rehearsal.rotate("status").err
    state["generations"][0]["since"] += 20 * 365 * 86400
    file.write_text(json.dumps(state))
    assert f"{file} speaks of 20" in rehearsal.rotate("status").err


def test_keys_are_made_for_all_domains_or_for_none(rehearsal: Rehearsal) -> None:
    config = rehearsal.folder.parent / "c.yaml"
    config.write_text(config.read_text().replace('["example.com"]', '["example.net", "example.com"]'))
    assert rehearsal.rotate("begin", "example.com").code == 0
    ran = rehearsal.rotate("begin", "example.net", "example.com")
    assert (ran.code, "example.com: there is a pending generation" in ran.err) == (65, True)
    assert [g.domain.ascii for g in rehearsal.state.generations] == ["example.com"]
    assert rehearsal.rotate("begin", "example.net").code == 0


def test_what_cannot_be_is_said(rehearsal: Rehearsal, tmp_path: Path) -> None:
    assert rehearsal.rotate("begin", "other.example").code == 78
    assert rehearsal.rotate("begin", "a..b").code == 64
    (rehearsal.folder / STATE_FILE).write_bytes(b"damaged")
    for command in ("advance", "run", "status"):
        ran = rehearsal.rotate(command)
        assert ran.code == 65
        assert f"{rehearsal.folder / STATE_FILE}:1:1: " in ran.err
        assert "damaged" in ran.err
    shutil.rmtree(rehearsal.folder)
    ran = rehearsal.rotate("run")
    assert (ran.code, "there is no such folder" in ran.err) == (78, True)
    (tmp_path / "c.yaml").write_text("")
    assert rehearsal.rotate("status").code == 78
