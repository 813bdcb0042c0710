"""The same mail through every door gives the same verdict: milter, gRPC, library, command line, batch.

Every door of a case starts from the same things: message, session, zone, configuration, time. What may differ is
taken out before comparing: our id of the message, and times.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authmilter.cli.main import cli
from authmilter.client import AsyncClient, to_dict
from authmilter.engine import Runtime, Verification
from authmilter.mail import Session
from authmilter.milter.session import SessionFactory
from authmilter.verdict_json import verdict_to_dict
from tests.milter.client import Client, Conversation, Local, Outcome, deliver
from tests.rpc.local import local, run
from tests.support.attacks import ATTACKS, attack_zone
from tests.support.rig import ENGINES
from tests.support.road import NOW, Notes, a_runtime, travel
from tests.support.scenarios import SCENARIOS, zone
from tests.support.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A mail with everything that a door is told of it."""

    name: str
    message: bytes
    mail_from: str
    helo: str
    client_ip: str
    rcpt_to: tuple[str, ...] = ("<user@recv.example>",)
    login: str | None = None
    config: str = "policy: enforce\n"
    zone: Mapping[str, object] = field(default_factory=dict)
    #: its header block is a list of fields, as an MTA passes it on
    fields: bool = True

    @property
    def full_config(self) -> str:
        return "authserv_id: mx.recv.example\n" + self.config


def _cases() -> Iterator[Case]:
    for s in SCENARIOS:
        for policy in ("enforce", "monitor", "strict"):
            yield Case(
                name=f"{s.name}-{policy}",
                message=s.message,
                mail_from=s.mail_from if s.mail_from.startswith("<") else f"<{s.mail_from}>",
                helo=s.helo,
                client_ip=s.client_ip,
                login=s.login,
                rcpt_to=tuple(f"<{r}>" for r in s.rcpt_to),
                config=f"policy: {policy}\n",
                zone=zone(),
            )
    for a in ATTACKS:
        yield Case(
            name=a.id,
            message=a.message,
            mail_from=a.mail_from,
            helo=a.helo,
            client_ip=a.client_ip,
            config=a.config if "policy:" in a.config else "policy: enforce\n" + a.config,
            zone=attack_zone(a),
            fields=a.fields,
        )


CASES = tuple(_cases())
BY_COMMAND = tuple(c for c in CASES if c.login is None)
BY_MILTER = tuple(c for c in CASES if c.fields)
_ID = re.compile(r"\b(TESTID|[0-9A-HJKMNP-TV-Z]{16})\b")


def _settled(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict's JSON without ids and times."""
    found: dict[str, Any] = json.loads(json.dumps(verdict))
    del found["mail_id"], found["elapsed_ms"]
    for step in found["trace"]:
        del step["elapsed_ms"]
    text = json.dumps(found, sort_keys=True)
    settled: dict[str, Any] = json.loads(_ID.sub("ID", text))
    return settled


def _by_engine(case: Case) -> dict[str, Any]:
    built = a_runtime(case.full_config, case.zone)
    _mail, verdict = travel(
        case.message,
        built,
        mail_from=case.mail_from,
        helo=case.helo,
        client_ip=case.client_ip,
        rcpt_to=case.rcpt_to,
        login=case.login,
    )
    return _settled(verdict_to_dict(verdict))


def _client(case: Case) -> Client:
    macros = {"M": {"{auth_authen}": case.login.encode()}} if case.login is not None else {}
    return Client(
        hostname=b"unknown",
        address=case.client_ip.encode(),
        helo=case.helo.encode(),
        mail_from=(case.mail_from.encode(),),
        rcpt_to=tuple((r.encode(),) for r in case.rcpt_to),
        macros=macros,
    )


def _by_session(case: Case) -> tuple[dict[str, Any], Outcome]:
    notes = Notes()
    built: Runtime = a_runtime(case.full_config, case.zone, notes)

    def begin(session: Session, listener: str) -> Verification:
        return Verification(built, session, listener=listener)

    def bug(where: str, error: BaseException) -> None:
        raise AssertionError(where) from error

    factory = SessionFactory(begin, bug=bug, note=lambda _name, _sentence: None)
    outcome = Local(factory("parity")).run(Conversation().deliver(_client(case), case.message))
    ((_mail, verdict),) = notes.records
    return _settled(verdict_to_dict(verdict)), outcome


@pytest.mark.parametrize("case", BY_MILTER, ids=lambda c: c.name)
def test_milter_and_library_give_the_same_verdict(case: Case) -> None:
    assert _by_session(case)[0] == _by_engine(case)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_grpc_and_library_give_the_same_verdict(case: Case, tmp_path: Path) -> None:
    async def asked() -> dict[str, object]:
        async with local(tmp_path, config=case.full_config + "\n", resolver=case.zone) as server:
            async with AsyncClient(server.target) as client:
                answer = await client.verify(
                    case.message,
                    client_ip=case.client_ip,
                    helo=case.helo,
                    mail_from=case.mail_from,
                    rcpt_to=case.rcpt_to,
                    login=case.login,
                )
            return to_dict(answer.verdict)

    assert _settled(run(asked)) == _by_engine(case)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path


def _run(arguments: list[str], given: bytes) -> str:
    done = CliRunner().invoke(cli, arguments, input=given)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def _config_file(folder: Path, case: Case) -> str:
    file = folder / "authmilter.yaml"
    file.write_text(case.full_config)
    return str(file)


@pytest.mark.parametrize("case", BY_COMMAND, ids=lambda c: c.name)
def test_command_line_and_library_give_the_same_verdict(case: Case, files: Path) -> None:
    (files / "zone.json").write_text(json.dumps(case.zone))
    arguments = [
        "verify",
        "-",
        "--json",
        "--config",
        _config_file(files, case),
        "--zone",
        str(files / "zone.json"),
    ]
    arguments += [
        "--ip",
        case.client_ip,
        "--helo",
        case.helo,
        "--mail-from",
        case.mail_from,
        "--now",
        NOW.isoformat(),
    ]
    for rcpt in case.rcpt_to:
        arguments += ["--rcpt", rcpt]
    assert _settled(json.loads(_run(arguments, case.message))) == _by_engine(case)


@pytest.mark.parametrize("config", sorted({c.config for c in BY_COMMAND}))
def test_batch_and_library_give_the_same_verdicts(config: str, files: Path) -> None:
    cases = [c for c in BY_COMMAND if c.config == config]
    lines = [
        json.dumps(
            {
                "id": c.name,
                "message_base64": base64.b64encode(c.message).decode(),
                "client_ip": c.client_ip,
                "helo": c.helo,
                "mail_from": c.mail_from,
                "rcpt_to": c.rcpt_to,
                "zone": c.zone,
                "now": NOW.isoformat(),
            }
        )
        for c in cases
    ]
    out = _run(
        ["verify", "--batch", "-", "--config", _config_file(files, cases[0])],
        "\n".join(lines).encode() + b"\n",
    )
    answers = [json.loads(line) for line in out.splitlines()]
    assert [a["id"] for a in answers] == [c.name for c in cases]
    for case, answer in zip(cases, answers, strict=True):
        assert _settled(answer["verdict"]) == _by_engine(case), case.name


@pytest.fixture(scope="module", params=ENGINES)
def services(request: pytest.FixtureRequest) -> Iterator[Service]:
    with Service(zone=dict(zone()), policy="enforce", engine=request.param, workers=1) as service:
        yield service


@pytest.mark.parametrize(
    "case",
    [c for c in BY_MILTER if c.config == "policy: enforce\n" and c.name.endswith("-enforce")],
    ids=lambda c: c.name,
)
def test_the_service_says_and_edits_what_the_session_in_memory_does(services: Service, case: Case) -> None:
    address = f"inet:127.0.0.1:{services.port}"
    theirs = asyncio.run(deliver(address, case.message, _client(case)))
    ours = _by_session(case)[1]
    assert (theirs.final, _ID.sub("ID", theirs.reply)) == (ours.final, _ID.sub("ID", ours.reply))
    assert theirs.edits == ours.edits
    assert theirs.header_block == ours.header_block
    assert theirs.quarantined == ours.quarantined


def test_the_corpus_is_as_large_as_it_was() -> None:
    assert len(SCENARIOS) >= 10
    assert len(BY_COMMAND) >= 100
    assert len(BY_MILTER) >= 100
    assert len({c.name for c in CASES}) == len(CASES)
