"""Outbound mail through a real Postfix: submitted, bounced, forged; and what another verifier says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support import dkim_keys
from tests.support.postfix import PrivatePostfix
from tests.support.scenarios import zone
from tests.support.service import Service
from tests.support.signing import logged

pytestmark = pytest.mark.e2e

MESSAGE = (
    b"From: User <user@good.example>\r\nTo:  user@recv.example\r\nSubject: signed\r\n\todd   folding\r\n"
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <2@good.example>\r\n\r\nHello \r\n.dot\r\n\r\n\r\n"
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, key in (("rsa.pem", dkim_keys.rsa_key()), ("ed.pem", dkim_keys.ed25519_key())):
        pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / name).write_bytes(pem)
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture(scope="module", params=["native", "libmilter"])
def wired(request: pytest.FixtureRequest, keys: Path) -> Iterator[tuple[Service, PrivatePostfix]]:
    lines = [
        {"domain": "good.example", "selector": "s1", "key": str(keys / "rsa.pem")},
        {"domain": "good.example", "selector": "e1", "key": str(keys / "ed.pem")},
    ]
    senders = [{"users": ["*"], "authors": ["{login}"]}]
    settings = {"signing": {"domains": lines, "senders": senders}}
    with (
        Service(zone=zone(), engine=request.param, settings=settings) as service,
        PrivatePostfix(milter=service.for_postfix) as postfix,
    ):
        yield service, postfix


def _txt(name: bytes, timeout: int = 5) -> bytes:  # noqa: ARG001 - dkimpy's shape
    node = zone()[name.decode().removesuffix(".")]
    assert isinstance(node, dict)
    return str(node["TXT"][0]).encode()


def test_submitted_mail_is_delivered_with_two_signatures_that_dkimpy_verifies(
    wired: tuple[Service, PrivatePostfix],
) -> None:
    service, postfix = wired
    result = postfix.send(
        MESSAGE, mail_from="user@good.example", login="user@good.example", client_ip="203.0.113.5"
    )
    assert result.code == 250, service.log_text()[-2000:]
    mail = postfix.delivered()[0]
    raw = mail.raw.replace(b"\n", b"\r\n")
    assert raw.count(b"DKIM-Signature: ") == 2
    for index in range(2):
        assert dkim.DKIM(raw).verify(idx=index, dnsfunc=_txt)
    line = logged(service, mail)
    assert line["origin"] == "submission"
    assert line["signed"] == ["good.example/s1", "good.example/e1"]


def test_a_forged_submitter_is_not_signed(wired: tuple[Service, PrivatePostfix]) -> None:
    service, postfix = wired
    assert (
        postfix.send(
            MESSAGE, mail_from="eve@good.example", login="eve@good.example", client_ip="203.0.113.5"
        ).code
        == 250
    )
    mail = postfix.delivered()[0]
    assert b"DKIM-Signature" not in mail.header
    assert logged(service, mail)["not_signed"] == "sender_not_allowed"


def test_mail_from_the_internet_is_not_signed(wired: tuple[Service, PrivatePostfix]) -> None:
    service, postfix = wired
    assert postfix.send(MESSAGE, mail_from="user@good.example", client_ip="192.0.2.10").code == 250
    mail = postfix.delivered()[0]
    assert b"DKIM-Signature" not in mail.header
    assert logged(service, mail)["not_signed"] == "not_outbound"
