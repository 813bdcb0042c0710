"""The main cases through a real Sendmail, with both engines.

Sendmail has no XCLIENT: clients come from addresses of 127.0.0.0/8, which the zone's SPF records allow or do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import dkim_keys
from tests.support.postfix import Delivered, SmtpClient, wait_until
from tests.support.rig import ENGINES
from tests.support.scenarios import AUTHSERV_ID, a_message, signed, zone
from tests.support.sendmail import PrivateSendmail
from tests.support.service import Service

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GOOD: dict[str, Any] = {"mail_from": "news@good.example", "source": "127.0.0.5", "helo": "mail.good.example"}
EVIL: dict[str, Any] = {
    "mail_from": "x@attacker.example",
    "source": "127.0.0.66",
    "helo": "helo.attacker.example",
}
PLAIN = a_message("News <news@good.example>")
FORGED = a_message("Your Bank <service@bank.example>")

POLICY = """
rules:
  - {id: percent, when: {rcpt.address: percent@recv.example},
     then: {reject: {code: 554, enhanced: 5.7.1, text: "100% sure: %s %d%% %n of {client.ip}"}}}
  - {id: later, when: {rcpt.address: later@recv.example},
     then: {tempfail: {code: 451, enhanced: 4.7.1, text: "Not now"}}}
  - {id: bye, when: {rcpt.address: bye@recv.example},
     then: {tempfail: {code: 421, enhanced: 4.7.0, text: "Too much"}}}
  - {id: gone, when: {rcpt.address: gone@recv.example}, then: discard}
  - {id: held, when: {rcpt.address: held@recv.example}, then: {quarantine: {by: hold}}}
  - {id: marked, when: {rcpt.address: marked@recv.example},
     then: {quarantine: {by: header, header: X-Junk, value: "DMARC {dmarc.status}, 100%"}}}
  - {id: prefix, when: {rcpt.address: prefix@recv.example}, then: accept, tag: {subject_prefix: "[EXTERN]"}}
  - {id: tags, when: {rcpt.address: tags@recv.example}, then: accept,
     tag: [{header: {name: X-First, value: "from {message.author.domain}"}}, {header: {name: X-Second, value: two}}]}
  - {id: dmarc, when: {dmarc.status: fail, dmarc.policy: reject}, then: reject}
default: accept
"""


def _zone() -> dict[str, object]:
    found = zone()
    found["good.example"] = {"TXT": ["v=spf1 ip4:127.0.0.0/27 -all"], "A": ["127.0.0.5"]}
    found["mail.good.example"] = {"TXT": ["v=spf1 a -all"], "A": ["127.0.0.5"]}
    found["5.0.0.127.in-addr.arpa"] = {"PTR": ["mail.good.example"]}
    for name in ("attacker.example", "helo.attacker.example"):
        found[name] = {"TXT": ["v=spf1 ip4:127.0.0.64/26 -all"], "A": ["127.0.0.66"]}
    return found


@pytest.fixture(scope="module", params=ENGINES)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Service, PrivateSendmail]]:
    settings = {"internal": {"networks": []}, "authserv_siblings": ["mx2.recv.example"]}
    with (
        Service(zone=_zone(), policy=POLICY, engine=request.param, settings=settings, workers=1) as service,
        PrivateSendmail(milter=service.listen) as sendmail,
    ):
        yield service, sendmail


@pytest.fixture
def service(pair: tuple[Service, PrivateSendmail]) -> Service:
    return pair[0]


@pytest.fixture
def sendmail(pair: tuple[Service, PrivateSendmail]) -> PrivateSendmail:
    return pair[1]


def _deliver(sendmail: PrivateSendmail, message: bytes, **about: Any) -> Delivered:
    said = sendmail.send(message, **about)
    assert said.code == 250, said
    return sendmail.delivered()[0]


def _to(name: str) -> tuple[str, ...]:
    return (f"{name}@recv.example",)


def _settled(octets: bytes) -> bytes:
    octets = re.sub(rb"(\bid )[0-9A-Za-z]{14}\b", rb"\1QUEUEID", octets)
    octets = re.sub(rb"(\bid )[0-9A-HJKMNP-TV-Z]{16}\b", rb"\1MAILID", octets)
    octets = re.sub(rb"\(8\.[0-9./]+\)", b"(VERSION)", octets)
    return re.sub(
        rb"[A-Z][a-z]{2}, +\d+ [A-Z][a-z]{2} \d{4} [\d:]{8} (?:GMT|\+0000)(?: \(UTC\))?(?=\n)",
        b"DATE",
        octets,
    )


RESULTS = (
    "Authentication-Results: mx.recv.example;\n iprev=pass policy.iprev=127.0.0.5 (mail.good.example);\n"
    " spf=pass smtp.helo=mail.good.example;\n spf=pass smtp.mailfrom=good.example;\n dkim=none;\n"
    " dmarc=pass (p=reject dis=none) header.from=good.example policy.dmarc=reject\n"
)
TRACE = (
    "Received: from mail.good.example (client5.example [127.0.0.5])\n\tby mx.recv.example (VERSION) with ESMTP id QUEUEID\n"
    "\tfor <user@recv.example>; DATE\n"
)


def test_an_accepted_message_s_whole_header_block(service: Service, sendmail: PrivateSendmail) -> None:
    delivered = _deliver(sendmail, PLAIN, **GOOD)
    sent = PLAIN.split(b"\r\n\r\n")[0].decode().replace("\r\n", "\n") + "\n"
    assert _settled(delivered.header) == _settled((RESULTS + TRACE + sent).encode())
    line = service.log_lines()[-1]
    assert (line["origin"], line["spf"], line["dmarc"]) == ("internet", "pass", "pass")
    assert line["queue_id"]


@pytest.mark.parametrize(
    ("rcpt", "code", "text"),
    [
        ("percent", 554, "5.7.1 100% sure: %s %d%% %n of 127.0.0.5 (id MAILID)"),
        ("later", 451, "4.7.1 Not now (id MAILID)"),
        ("bye", 421, "4.7.0 Too much (id MAILID)"),
    ],
)
def test_the_client_sees_code_enhanced_code_and_text_as_the_policy_has_them(
    service: Service, sendmail: PrivateSendmail, rcpt: str, code: int, text: str
) -> None:
    said = sendmail.send(PLAIN, rcpt_to=_to(rcpt), **GOOD)
    assert (said.code, _settled(said.text.encode()).decode()) == (code, text)
    assert service.log_lines()[-1]["id"] in said.text
    assert sendmail.nothing_delivered()


def test_a_forged_author_is_refused_and_the_session_goes_on(
    service: Service, sendmail: PrivateSendmail
) -> None:
    with SmtpClient(sendmail.port, source="127.0.0.66") as client:
        assert client.hello("helo.attacker.example").code == 250
        said = client.message(FORGED, mail_from="x@attacker.example")
        assert said.code == 550
        assert said.enhanced in {"5.7.1", "5.7.26"}
        assert "bank.example" in said.text
        assert client.envelope("a@bank.example", ("user@recv.example",)).code == 250
        assert client.say("RSET").code == 250
        assert client.message(a_message("Eve <eve@attacker.example>"), mail_from="<>").code == 250
    (delivered,) = sendmail.delivered()
    assert "spf=pass smtp.helo=helo.attacker.example" in delivered.fields("Authentication-Results")[0]
    assert [i["mail_from"] for i in service.log_lines()[-2:]] == ["x@attacker.example", ""]


def test_421_ends_the_session(sendmail: PrivateSendmail) -> None:
    with SmtpClient(sendmail.port, source="127.0.0.5") as client:
        client.hello("mail.good.example")
        assert client.message(PLAIN, mail_from="news@good.example", rcpt_to=_to("bye")).code == 421
        assert client.say("NOOP").code in {0, 421}


def test_discard_says_250_and_nothing_is_delivered(service: Service, sendmail: PrivateSendmail) -> None:
    assert sendmail.send(PLAIN, rcpt_to=_to("gone"), **GOOD).code == 250
    assert service.log_lines()[-1]["disposition"] == "discard"
    _deliver(sendmail, PLAIN, **GOOD)
    wait_until(sendmail.nothing_delivered, 10, "an empty queue")


def test_quarantine_by_hold_keeps_it_in_the_queue_with_its_reason(
    service: Service, sendmail: PrivateSendmail
) -> None:
    assert sendmail.send(PLAIN, rcpt_to=_to("held"), **GOOD).code == 250
    wait_until(sendmail.queued, 5, "a quarantined message")
    ((name, control),) = sendmail.queued().items()
    assert name.startswith("hf")
    assert re.search(r"^q.*held", control, re.MULTILINE), control
    assert "Authentication-Results: mx.recv.example" in control
    assert service.log_lines()[-1]["disposition"] == "quarantine"
    (sendmail.base / "queue" / name).unlink()


def test_quarantine_by_header_tags_and_prefix(sendmail: PrivateSendmail) -> None:
    marked = _deliver(sendmail, b"X-Junk: no\r\n" + PLAIN, rcpt_to=_to("marked"), **GOOD)
    assert marked.fields("X-Junk") == ["DMARC pass, 100%"]
    tagged = _deliver(
        sendmail, b"X-First: forged\r\nX-Second: forged\r\n" + PLAIN, rcpt_to=_to("tags"), **GOOD
    )
    assert tagged.header.decode().startswith(
        RESULTS + "X-First: from good.example\nX-Second: two\nReceived: "
    )
    assert tagged.fields("X-First") == ["from good.example"]
    for subject, expected in (
        (b"Subject: hello\r\n", "[EXTERN] hello"),
        (b"Subject: Re: [EXTERN] hello\r\n", "Re: [EXTERN] hello"),
        (
            b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_dir?=\r\n",
            "[EXTERN] =?utf-8?q?gr=C3=BC=C3=9Fe?= =?utf-8?q?_dir?=",
        ),
        (b"", "[EXTERN]"),
    ):
        message = PLAIN.replace(b"Subject: hello\r\n", subject)
        assert _deliver(sendmail, message, rcpt_to=_to("prefix"), **GOOD).fields("Subject") == [expected]


KEPT = (
    b"Authentication-Results: other.example; spf=pass",
    b"Authentication-Results: mx.recv.example.evil.example; spf=pass",
    b"Authentication-Results: third.example;\r\n\tspf=pass",
    b"ARC-Authentication-Results: i=1; mx.recv.example; dmarc=pass",
)
GONE = (
    b"Authentication-Results: mx.recv.example; dmarc=pass header.from=bank.example",
    b'authentication-results: (x) "MX.Recv.Example" 1 (y); dmarc=pass',
    b"AUTHENTICATION-RESULTS:\r\n\tmx.recv.example.;\r\n dmarc=pass",
    b"Authentication-Results: mx2.recv.example; none",
    b"Authentication-Results: ; dmarc=pass",
    b"BIMI-Location: v=BIMI1; l=https://evil.example/l.svg",
    b"Authentication-Results:mx.recv.example",
)  # fmt: skip


def test_every_forged_result_is_gone_and_every_other_stays(sendmail: PrivateSendmail) -> None:
    lines = [line for pair in zip(GONE, KEPT, strict=False) for line in pair] + list(GONE[len(KEPT) :])
    delivered = _deliver(sendmail, b"".join(line + b"\r\n" for line in lines) + PLAIN, **GOOD)
    results = delivered.fields("Authentication-Results")
    assert results[0].startswith(AUTHSERV_ID + ";")
    assert [r.split(";")[0] for r in results[1:]] == [
        "other.example",
        "mx.recv.example.evil.example",
        "third.example",
    ]
    assert delivered.fields("ARC-Authentication-Results") == ["i=1; mx.recv.example; dmarc=pass"]
    assert b"BIMI" not in delivered.header
    assert b"header.from=bank.example" not in delivered.header


def test_results_of_their_own_fold_as_sent(sendmail: PrivateSendmail) -> None:
    delivered = _deliver(sendmail, signed(PLAIN, "good.example", ed25519_too=True), **GOOD)
    assert b"\r" not in delivered.header
    block = delivered.header.split(b"Received:")[0]
    assert all(line.startswith((b"Authentication-Results: ", b" ")) for line in block.splitlines())
    assert (
        b"\n dkim=pass (256-bit key) header.d=good.example header.s=e1\n header.a=ed25519-sha256 header.b="
        in block
    )


@pytest.mark.parametrize("form", ["simple/simple", "relaxed/relaxed"])
def test_an_8_bit_message_with_odd_headers_verifies_and_arrives(
    service: Service, sendmail: PrivateSendmail, form: str
) -> None:
    extra = b"X-Two:  two blanks\r\nX-Tab:\ttab\r\nX-None:none\r\nX-Fold: one\r\n two\r\n\t three \r\nX-Percent: %s%%n\r\n"
    body = b"8-bit: \xe4\xf6\xfc\r\n.\r\n..dots\r\ntrailing  \r\n\r\n"
    message = a_message("News <news@good.example>", extra=extra, body=body)
    names = ("from", "to", "subject", "date", "x-two", "x-tab", "x-none", "x-fold", "x-percent")
    message = dkim_keys.sign(
        message, dkim_keys.rsa_key(), domain="good.example", selector="s1", names=names, form=form
    )
    delivered = _deliver(sendmail, message, mail_options=("BODY=8BITMIME",), **GOOD)
    assert service.log_lines()[-1]["dkim"] == ["pass:good.example"]
    assert delivered.raw.partition(b"\n\n")[2].rstrip(b"\n") == body.replace(b"\r\n", b"\n").rstrip(b"\n")


@pytest.mark.parametrize(
    ("path", "spf", "code"),
    [
        ("<>", "pass", 250),
        ("<root>", "none", 550),
        ("<news@[127.0.0.5]>", "none", 550),
        ('<"a b"@good.example>', "pass", 250),
    ],
)
def test_odd_reverse_paths(
    service: Service, sendmail: PrivateSendmail, path: str, spf: str, code: int
) -> None:
    said = sendmail.send(PLAIN, **{**GOOD, "mail_from": path})
    assert said.stage == "data"
    assert (said.code, service.log_lines()[-1]["spf"]) == (code, spf)
    if code == 250:
        sendmail.delivered()


@pytest.mark.parametrize(
    "head", [b"From: x@attacker.example\r\n", b"X-A: b\r\nFrom : x@attacker.example\r\n", b"FROM: x@attacker.example\r\n"],
    ids=["plain", "space", "upper"],
)  # fmt: skip
def test_a_second_from_never_passes(service: Service, sendmail: PrivateSendmail, head: bytes) -> None:
    said = sendmail.send(head + PLAIN, **GOOD)
    if said.code == 250:
        sendmail.delivered()
    assert service.log_lines()[-1]["dmarc"] == "permerror"


def test_submission_by_daemon_name(service: Service, sendmail: PrivateSendmail) -> None:
    about = {**EVIL, "mail_from": "user@recv.example"}
    _deliver(sendmail, a_message("Local User <user@recv.example>"), port=sendmail.submission_port, **about)
    line = service.log_lines()[-1]
    assert (line["origin"], line["origin_because"]) == ("submission", "submission.daemon_names: ORIGINATING")


def test_a_large_message_verifies(service: Service, sendmail: PrivateSendmail) -> None:
    body = (b"0123456789abcdef" * 4 + b"\r\n") * 80_000
    message = signed(a_message("News <news@good.example>", body=body), "good.example")
    delivered = _deliver(sendmail, message, **GOOD)
    assert service.log_lines()[-1]["dkim"] == ["pass:good.example"]
    assert len(delivered.raw) > 5_000_000


def test_without_authmilter_sendmail_answers_4xx(sendmail: PrivateSendmail, service: Service) -> None:
    service.stop()
    try:
        said = sendmail.send(PLAIN, **GOOD)
        assert 400 <= said.code < 500
        assert sendmail.nothing_delivered()
    finally:
        service.start()
    _deliver(sendmail, PLAIN, **GOOD)
