"""What we sign, judged by the verifiers that others run: Debian's OpenDKIM and rspamd, as daemons of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from authmilter.cli.sign import FixedTable
from authmilter.dkim.crypto import KeyKind
from authmilter.mail import Origin, Session
from authmilter.names import Domain
from authmilter.signing.settings import NotSigned, SignatureSettings, SigningSettings, sign_message
from authmilter.signing.table import Signer
from tests.support.nameserver import NameServer
from tests.support.opendkim import DkimSeen, PrivateOpenDkim
from tests.support.rspamd import PrivateRspamd
from tests.support.scenarios import SCENARIOS, a_message
from tests.support.signing import signing_key, with_signatures

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DOMAIN: Final = Domain.parse("good.example")
SIGNERS: Final = {
    KeyKind.RSA: Signer(domain=DOMAIN, selector="s1", key=signing_key(KeyKind.RSA, 2048)),
    KeyKind.ED25519: Signer(domain=DOMAIN, selector="e1", key=signing_key(KeyKind.ED25519)),
}
ZONE: Final[dict[str, object]] = {
    f"{signer.selector}._domainkey.{DOMAIN}": {"TXT": [signer.key.record]} for signer in SIGNERS.values()
}
AUTHOR = "User <user@good.example>"
_HEAD = b"From: User <user@good.example>\r\nTo: x@recv.example\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n"


def _message(extra: bytes = b"", body: bytes = b"Hello.\r\n") -> bytes:
    return a_message(AUTHOR, extra=extra, body=body)


#: A DKIM-Signature field with its folds: the scenarios' own would be mistaken for ours.
_SIGNATURE = re.compile(rb"^DKIM-Signature:.*\r\n(?:[ \t].*\r\n)*", re.MULTILINE)
#: What a mail server hands on, the odd included.
CORPUS: Final[dict[str, bytes]] = {
    **{f"scenario {s.name}": _SIGNATURE.sub(b"", s.message) for s in SCENARIOS if s.name != "two-from"},
    "plain": _message(),
    "no body at all": _message(body=b""),
    "a body of empty lines": _message(body=b"\r\n\r\n\r\n"),
    "a body of blanks": _message(body=b" \t \r\n  \r\n"),
    "empty lines at the end": _message(body=b"Hello.\r\n\r\n \r\n\r\n\r\n"),
    "blanks within and at the ends of lines": _message(body=b"a  b\t\t c   \r\n\t\r\n  d \t\r\n"),
    "no line end at the end": _message(body=b"Hello."),
    "lines of dots": _message(body=b".\r\n..\r\n.a\r\n\r\n."),
    "a line of 5000": _message(body=b"x" * 5000 + b"\r\n" + b"y " * 700 + b"\r\n"),
    "8-bit body": _message(
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
        "Grüße, 水\r\n".encode(),
    ),
    "latin-1 body": _message(body=b"Gr\xfc\xdfe\r\n"),
    "a body of a megabyte": _message(body=b"0123456789 abcdefgh\tijklmnop  qrstuvwxyz \r\n" * 25_000),
    "bodies that begin like headers": _message(body=b"From: eve@evil.example\r\nSubject: no\r\n\r\nhi\r\n"),
    "folds": _HEAD
    + b"Subject:\r\n folded\r\n\tagain\r\n  and  again\r\nMessage-ID:\r\n <1@a>\r\n\r\nHello.\r\n",
    "a fold of blanks alone": _HEAD + b"Subject: a\r\n \t \r\n b\r\n\r\nHello.\r\n",
    "blanks at the ends of fields": _HEAD + b"Subject:   a  b \t \r\nMessage-ID:\t<1@a>  \r\n\r\nHello.\r\n",
    "no blank after the colon": b"from:user@good.example\r\nTO:x@recv.example\r\nsUBJECT:s\r\n\r\nHello.\r\n",
    "empty fields": _HEAD + b"Subject:\r\nCc: \r\nReply-To:\r\n \r\n\r\nHello.\r\n",
    "only a From": b"From: user@good.example\r\n\r\nHello.\r\n",
    "UTF-8 in fields": _HEAD + "Subject: Grüße\r\nCc: Jürgen <j@recv.example>\r\n\r\nHello.\r\n".encode(),
    "a subject of 900": _HEAD + b"Subject: " + b"word " * 180 + b"\r\n\r\nHello.\r\n",
    "many recipients, folded": _HEAD
    + b"Cc: "
    + b",\r\n ".join(b"Somebody %d <somebody%d@recv.example>" % (n, n) for n in range(300))
    + b"\r\n\r\nHello.\r\n",
    "many fields": _message(b"".join(b"X-Field-%d: %d\r\n" % (n, n) for n in range(300))),
    "the same field again and again": _message(b"References: <a@b>\r\nReply-To: c@d.example\r\n" * 10),
    "a field twice that is allowed once": _message(b"Cc: a@recv.example\r\nCc: b@recv.example\r\n"),
    "a reply, oversigned all over": _message(
        b"Reply-To: r@good.example\r\nCc: c@recv.example\r\nIn-Reply-To: <0@a>\r\nReferences: <0@a>\r\n <1@a>\r\n"
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\nContent-Disposition: inline\r\n"
        b"Autocrypt: addr=user@good.example; keydata=AAAA\r\nOpenPGP: id=12\r\nBIMI-Selector: v=BIMI1; s=a\r\n"
    ),
    "one-click unsubscription": _message(
        b"List-Unsubscribe: <https://good.example/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        b"List-Id: <l.good.example>\r\nSender: <l@good.example>\r\n"
    ),
    "multipart": _message(
        b'Content-Type: multipart/mixed; boundary="b; c"\r\n',
        b"--b; c\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--b; c\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b; c--\r\n",
    ),
    "signed by somebody before": b"DKIM-Signature: v=1; a=rsa-sha256; d=other.example; s=x; h=from; bh=AAAA; b=AAAA\r\n"
    + _message(),
}
#: rspamd 3.4 says fail to these, OpenDKIM and dkimpy pass: to a body of which no line has more than blanks (it hashes
#: a line end; RFC 6376 §3.4.4 leaves nothing), and on purpose to a repeated field that RFC 5322 §3.6 allows once.
REFUSED_BY_RSPAMD: Final = {"a body of blanks", "a field twice that is allowed once"}
KINDS: Final = {
    "rsa": (KeyKind.RSA,),
    "ed25519": (KeyKind.ED25519,),
    "both": (KeyKind.RSA, KeyKind.ED25519),
}


@pytest.fixture(scope="module")
def nameserver() -> Iterator[NameServer]:
    with NameServer(ZONE) as server:
        yield server


@pytest.fixture(scope="module", params=["opendkim", "rspamd"])
def peer(request: pytest.FixtureRequest, nameserver: NameServer) -> Iterator[PrivateOpenDkim | PrivateRspamd]:
    daemon = PrivateOpenDkim if request.param == "opendkim" else PrivateRspamd
    with daemon(nameserver.address) as running:
        yield running


def _signed(
    message: bytes,
    kinds: tuple[KeyKind, ...],
    settings: SignatureSettings | None = None,
    *,
    now: datetime | None = None,
) -> bytes:
    table = FixedTable(DOMAIN, tuple(SIGNERS[kind] for kind in kinds))
    values, _ = sign_message(
        message,
        SigningSettings(tables=(table,), signature=settings or SignatureSettings()),
        session=Session(),
        origin=Origin.SUBMISSION,
        now=now or datetime.now(UTC),
    )
    assert not isinstance(values, NotSigned), values
    return with_signatures(message, values)


def _expected(kinds: tuple[KeyKind, ...]) -> set[tuple[str, str, str]]:
    return {("pass", "good.example", SIGNERS[kind].selector) for kind in kinds}


def _ours(found: tuple[DkimSeen, ...]) -> set[tuple[str, str, str]]:
    return {(one.result, one.domain, one.selector) for one in found if one.domain == "good.example"}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_what_we_sign_verifies_in_daemons_that_others_run(
    peer: PrivateOpenDkim | PrivateRspamd, kinds: tuple[KeyKind, ...]
) -> None:
    wrong = {}
    for name, message in CORPUS.items():
        sent = _signed(message, kinds)
        # SMTP has no message without a line end at its end
        found = _ours(peer.judge(sent if sent.endswith(b"\r\n") else sent + b"\r\n"))
        if found != _expected(kinds):
            wrong[name] = {result for result, _, _ in found}
    refused = REFUSED_BY_RSPAMD if isinstance(peer, PrivateRspamd) else set()
    assert wrong == {name: {"fail"} for name in refused}
    assert len(CORPUS) == 39


def test_a_daemon_says_fail_where_a_field_is_added_or_the_body_changed(
    peer: PrivateOpenDkim | PrivateRspamd,
) -> None:
    whole = _signed(_message(), KINDS["both"])
    assert {one.result for one in peer.judge(whole)} == {"pass"}
    for name, changed in {
        "body": whole.replace(b"Hello.", b"Hallo."),
        "subject": whole.replace(b"Subject: hello", b"Subject: hallo"),
        "a second subject": b"Subject: evil\r\n" + whole,
        "a second from": whole.replace(b"From: ", b"From: eve@evil.example\r\nFrom: ", 1),
        "a reply-to where there was none": b"Reply-To: eve@evil.example\r\n" + whole,
        "a content type where there was none": b"Content-Type: text/html\r\n" + whole,
    }.items():
        found = peer.judge(changed)
        assert found, name
        assert "pass" not in {one.result for one in found}, name


def test_an_added_date_or_trace_field_breaks_nothing(peer: PrivateOpenDkim | PrivateRspamd) -> None:
    whole = _signed(_HEAD.replace(b"Date", b"X-Date") + b"\r\nHello.\r\n", KINDS["both"])
    added = b"Received: by b.example; Sun, 22 Nov 2026 12:00:00 +0000\r\nSender: l@b.example\r\nList-Id: <l.b.example>\r\n"
    for more in (added, b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n", b"Message-ID: <2@b.example>\r\n"):
        assert _ours(peer.judge(more + whole)) == _expected(KINDS["both"])


def test_an_expired_signature_is_not_valid_any_more(peer: PrivateOpenDkim | PrivateRspamd) -> None:
    settings = SignatureSettings(expire=3600)
    fresh = _signed(_message(), KINDS["both"], settings)
    assert b" x=" in fresh
    assert _ours(peer.judge(fresh)) == _expected(KINDS["both"])
    old = _signed(_message(), KINDS["both"], settings, now=datetime.now(UTC) - timedelta(days=1))
    assert "pass" not in {one.result for one in peer.judge(old)}
