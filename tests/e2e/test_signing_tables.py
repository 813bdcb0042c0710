"""OpenDKIM's KeyTable and SigningTable, read by a real OpenDKIM and by us: the same d= and s= for the same authors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from authmilter.dkim.crypto import KeyKind
from tests.support.nameserver import NameServer
from tests.support.opendkim import PrivateOpenDkim
from tests.support.road import a_runtime, travel
from tests.support.scenarios import a_message
from tests.support.signing import signing_key

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KEYS: Final = """# name     domain:selector:key
good         good.example:s1:{base}/rsa.pem
sub          sub.good.example:s2:{base}/rsa.pem
any          %:s3:{base}/rsa.pem
other        other.example:S4:{base}/rsa.pem
named.example  %:s5:{base}/rsa.pem
"""
REFILE: Final = """
boss@good.example       sub
*@good.example          good

*@*.good.example        good   # below it
info@*                  any
sales*@other.example    other
*@named.example         %
*@OTHER.example         any
*lists.example          other
"""
FILE: Final = """
boss@good.example       sub
good.example            good
boss@.good.example      sub
.good.example           good
info@*                  any
.other.example          other
named.example           %
"""
STAR: Final = FILE + "*  any\n"
AUTHORS: Final = (
    "boss@good.example",
    "Boss@Good.Example",
    "user@good.example",
    "user@sub.good.example",
    "user@a.b.good.example",
    "boss@a.b.good.example",
    "info@a.example",
    "info@good.example",
    "information@a.example",
    "sales@other.example",
    "sales-eu@other.example",
    "user@other.example",
    "user@x.other.example",
    "user@named.example",
    "user@below.named.example",
    "user@notgood.example",
    "user@lists.example",
    "user@my-lists.example",
    "nobody@nowhere.example",
)


@dataclass(frozen=True)
class Both:
    """A running OpenDKIM and our reading of its files."""

    opendkim: PrivateOpenDkim
    config: str

    def ask(self, author: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return the (d=, s=) of each signature, theirs and ours, sorted: their order in the header is its own."""
        message = a_message(f"Somebody <{author}>")
        theirs = sorted((one.domain, one.selector.lower()) for one in self.opendkim.signs(message))
        _, verdict = travel(
            message, a_runtime(self.config, {}), mail_from=f"<{author}>", helo="a", client_ip="192.0.2.1", login="u"
        )  # fmt: skip
        assert verdict.signing is not None
        ours = sorted(tuple(name.split("/")) for name in verdict.signing.signed)
        return theirs, [(domain, selector) for domain, selector in ours]


@pytest.fixture(
    scope="module",
    params=[
        ("refile", REFILE, False),
        ("file", FILE, False),
        ("file", STAR, False),
        ("refile", REFILE, True),
    ],
    ids=["refile", "file", "star", "refile-multiple"],
)
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    kind, signing_table, multiple = request.param
    settings = {"KeyTable": "file:{base}/KeyTable", "SigningTable": kind + ":{base}/SigningTable"}
    if multiple:
        settings["MultipleSignatures"] = "yes"
    files = {
        "KeyTable": KEYS,
        "SigningTable": signing_table,
        "rsa.pem": signing_key(KeyKind.RSA, 2048).pem().decode(),
    }
    with (
        NameServer({}) as nameserver,
        PrivateOpenDkim(nameserver.address, signing=True, settings=settings, files=files) as opendkim,
    ):
        tables = {
            "key_table": f"file:{opendkim.base}/KeyTable",
            "signing_table": f"{kind}:{opendkim.base}/SigningTable",
            "multiple_signatures": multiple,
        }
        yield Both(opendkim, json.dumps({"signing": {"opendkim_tables": tables}}))


def test_the_same_signatures_are_chosen_for_every_author(both: Both) -> None:
    answers = {author: both.ask(author) for author in AUTHORS}
    assert {a: ours for a, (_, ours) in answers.items()} == {a: theirs for a, (theirs, _) in answers.items()}
    assert sum(bool(theirs) for theirs, _ in answers.values()) >= 10
