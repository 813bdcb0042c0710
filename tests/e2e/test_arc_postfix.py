"""ARC through a real Postfix: sealed as it comes in, delivered byte for byte as it was sealed, and verified by dkimpy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dkim
import pytest

from tests.support.arc import a_sealer, zone_of
from tests.support.postfix import PrivatePostfix
from tests.support.scenarios import SCENARIOS, Scenario, zone
from tests.support.service import Service

pytestmark = pytest.mark.e2e

OURS = a_sealer("ours.example")
ZONE: dict[str, object] = {**zone(), **zone_of("ours.example")}
CASES = [s for s in SCENARIOS if s.name in {"all-pass", "arc-chain", "forged-results", "null-sender"}]


@pytest.fixture(scope="module", params=["native", "libmilter"])
def wired(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, PrivatePostfix]]:
    key: Path = tmp_path_factory.mktemp("arc") / "key.pem"
    key.write_bytes(OURS.key.pem())
    key.chmod(0o600)
    seal = {"domain": "ours.example", "selector": "arc1", "key": str(key), "inbound": {"recipients": ["*"]}}
    with (
        Service(zone=ZONE, engine=request.param, settings={"arc": {"seal": seal}}) as service,
        PrivatePostfix(milter=service.for_postfix) as postfix,
    ):
        yield service, postfix


def _txt(name: bytes, timeout: int = 5) -> bytes:
    assert timeout
    node = ZONE[name.decode().removesuffix(".")]
    assert isinstance(node, dict)
    return str(node["TXT"][0]).encode()


@pytest.mark.parametrize("case", CASES, ids=[s.name for s in CASES])
def test_what_is_delivered_has_a_chain_that_dkimpy_verifies(
    wired: tuple[Service, PrivatePostfix], case: Scenario
) -> None:
    service, postfix = wired
    result = postfix.send(case.message, mail_from=case.mail_from, helo=case.helo, client_ip=case.client_ip)
    assert result.code == 250, service.log_text()[-2000:]
    raw = postfix.delivered()[0].raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    names = [line.partition(b":")[0] for line in raw.split(b"\r\n") if line[:4] in {b"ARC-", b"Auth"}]
    # the set on top of our own field, seal first
    assert names[:4] == [
        b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results", b"Authentication-Results",
    ]  # fmt: skip
    status, sets, why = dkim.arc_verify(raw, dnsfunc=_txt)
    assert status == b"pass", why
    assert len(sets) == (3 if case.name == "arc-chain" else 1)
    line = service.log_lines()[-1]
    assert line["sealing"]["sealed"] == "ours.example/arc1"
