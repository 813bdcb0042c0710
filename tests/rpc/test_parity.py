"""The same mail through gRPC and through the library: one verdict, to the last field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.codec import plain
from authmilter.verdict_json import verdict_to_dict
from tests.rpc.local import local, run
from tests.support.attacks import ATTACKS, attack_zone
from tests.support.road import a_runtime, travel
from tests.support.scenarios import SCENARIOS, zone

_ID = re.compile(r"\b(TESTID|[0-9A-HJKMNP-TV-Z]{16})\b")
_GRPC = "authserv_id: mx.recv.example\ngrpc: {listen: ['unix:/x']}\n"


def _settled(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict's JSON without ids and times."""
    found: dict[str, Any] = json.loads(json.dumps(verdict))
    del found["mail_id"], found["elapsed_ms"]
    for step in found["trace"]:
        del step["elapsed_ms"]
    settled: dict[str, Any] = json.loads(_ID.sub("ID", json.dumps(found, sort_keys=True)))
    return settled


def _without_mail_ids(mail: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in json.loads(json.dumps(mail)).items() if k not in {"id", "received_at"}}


def _request(
    message: bytes,
    *,
    client_ip: str,
    helo: str,
    mail_from: str,
    rcpt: tuple[str, ...],
    login: str | None = None,
) -> pb.VerifyRequest:
    session = pb.Session(client_ip=client_ip, helo=helo)
    if login is not None:
        session.authenticated = login
    return pb.VerifyRequest(
        id="x",
        message=message,
        session=session,
        envelope=pb.Envelope(mail_from=mail_from, rcpt_to=rcpt),
        options=pb.VerifyOptions(explain=True),
    )


async def _all_ways(client: Any, request: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return verdict and mail by the unary call, the stream, and the upload cut in small and large pieces."""
    answers = [await client("Verify", request)]
    async for item in client("VerifyStream", pb.VerifyStreamRequest(request=request)):
        assert item.id == "x"
        answers.append(item.response)
    start = pb.VerifyUploadStart(
        id="x", session=request.session, envelope=request.envelope, options=request.options
    )
    for size in (7, 1 << 16):
        pieces = [request.message[at : at + size] for at in range(0, len(request.message), size)]
        parts = [pb.VerifyUploadRequest(start=start), *(pb.VerifyUploadRequest(chunk=p) for p in pieces)]
        answers.append(await client("VerifyUpload", *parts))
    assert all(a.id == "x" for a in answers)
    return [(_settled(plain(a.verdict)), _without_mail_ids(plain(a.mail))) for a in answers]


@pytest.mark.parametrize("policy", ["enforce", "monitor", "strict"])
def test_grpc_and_library_give_the_same_verdict(policy: str, tmp_path: Path) -> None:
    config = _GRPC + f"policy: {policy}\n"

    async def work() -> int:
        async with local(tmp_path, config=config) as server:
            for s in SCENARIOS:
                rcpt = tuple(f"<{r}>" for r in s.rcpt_to)
                answers = await _all_ways(
                    server.client,
                    _request(
                        s.message,
                        client_ip=s.client_ip,
                        helo=s.helo,
                        mail_from=s.mail_from,
                        rcpt=rcpt,
                        login=s.login,
                    ),
                )
                expected.append((s, rcpt, answers))
            assert server.notes.bugs == []
            assert len(server.notes.records) == 4 * len(SCENARIOS)
        return len(expected)

    expected: list[tuple[Any, tuple[str, ...], list[tuple[dict[str, Any], dict[str, Any]]]]] = []
    assert run(work) == len(SCENARIOS) >= 10
    for s, rcpt, answers in expected:
        mail, verdict = travel(
            s.message,
            a_runtime(config, zone()),
            mail_from=s.mail_from,
            helo=s.helo,
            client_ip=s.client_ip,
            rcpt_to=rcpt,
            login=s.login,
        )
        whole = verdict_to_dict(verdict, mail)
        ours_mail = _without_mail_ids(whole.pop("mail"))  # type: ignore[arg-type]  # a dict, by its key
        ours = _settled(whole)
        for theirs, theirs_mail in answers:
            # How much was at hand depends on what was asked before; what was found must not.
            assert _found(theirs) == _found(ours), s.name
            assert theirs_mail == ours_mail, s.name


def _found(verdict: dict[str, Any]) -> dict[str, Any]:
    for step in verdict["trace"]:
        for name in ("questions", "remembered", "recalled"):
            step.pop(name, None)
    return verdict


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.id)
def test_attacks_are_judged_the_same(attack: Any, tmp_path: Path) -> None:
    config = _GRPC + (attack.config if "policy:" in attack.config else "policy: enforce\n" + attack.config)

    async def work() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        async with local(tmp_path, config=config, resolver=attack_zone(attack)) as server:
            request = _request(
                attack.message,
                client_ip=attack.client_ip,
                helo=attack.helo,
                mail_from=attack.mail_from,
                rcpt=("<user@recv.example>",),
            )
            return await _all_ways(server.client, request)

    _, verdict = travel(
        attack.message,
        a_runtime(config, attack_zone(attack)),
        mail_from=attack.mail_from,
        helo=attack.helo,
        client_ip=attack.client_ip,
    )
    ours = _found(_settled(verdict_to_dict(verdict)))
    for theirs, _mail in run(work):
        assert _found(theirs) == ours


def test_the_corpus_is_as_large_as_it_was() -> None:
    assert len(SCENARIOS) >= 10
    assert len(ATTACKS) >= 60
