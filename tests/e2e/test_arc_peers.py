"""What we seal, judged by another implementation as a daemon: Debian's rspamd. (dkimpy judges it in tests/arc.)"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.arc import MESSAGE, Forged, forge, sealed, zone_of
from tests.support.nameserver import NameServer
from tests.support.rspamd import PrivateRspamd

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_ARC = "arc { whitelisted_signers_map = []; }\n"
BODIES = {
    "plain": MESSAGE,
    "blanks": MESSAGE + b"a  b\t c  \r\n \r\n\r\n\r\n",
    "no line end": MESSAGE.removesuffix(b"\r\n"),
    "8-bit": MESSAGE + "Grüße\r\n".encode(),
    "folded fields": MESSAGE.replace(b"Subject: Hello", b"Subject:\r\n Hello\r\n\tagain  and  again"),
}


@pytest.fixture(scope="module")
def rspamd() -> Iterator[PrivateRspamd]:
    with (
        NameServer(zone_of("sealer.example", "second.example")) as server,
        PrivateRspamd(server.address, _ARC) as daemon,
    ):
        yield daemon


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("sets", [1, 2, 5])
def test_rspamd_takes_our_chains(rspamd: PrivateRspamd, name: str, sets: int) -> None:
    raw = BODIES[name]
    for number in range(sets):
        raw = sealed(raw, "second.example" if number % 2 else "sealer.example")
    assert "ARC_ALLOW" in rspamd.symbols(raw)


def test_rspamd_refuses_what_we_refuse(rspamd: PrivateRspamd) -> None:
    chain = sealed(sealed(MESSAGE), "second.example")
    assert "ARC_NA" in rspamd.symbols(MESSAGE)
    for broken in (
        chain + b"more\r\n",
        chain.replace(b"Subject: Hello", b"Subject: Bye"),
        chain.replace(b"i=1; mx.sealer", b"i=1; my.sealer"),
        forge(MESSAGE, [Forged(), Forged(seal={"cv": "fail"})]),
        sealed(MESSAGE, cv="fail"),
    ):
        assert "ARC_ALLOW" not in rspamd.symbols(broken)
