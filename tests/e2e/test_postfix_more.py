"""What Postfix's clients are told, and what is delivered, byte for byte, through both engines."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import dkim_keys
from tests.support.contentfilter import ContentFilter
from tests.support.postfix import Delivered, PrivatePostfix, SmtpClient, free_port, smtp_send, wait_until
from tests.support.rig import ENGINES, Line, Rig, settled
from tests.support.scenarios import AUTHSERV_ID, SCENARIOS, a_message, signed, zone

pytestmark = pytest.mark.e2e

GOOD: dict[str, Any] = {
    "mail_from": "news@good.example",
    "client_ip": "192.0.2.10",
    "helo": "mail.good.example",
}
EVIL: dict[str, Any] = {
    "mail_from": "x@attacker.example",
    "client_ip": "203.0.113.66",
    "helo": "helo.attacker.example",
}
PLAIN = a_message("News <news@good.example>")
FORGED = a_message("Your Bank <service@bank.example>")
FROM_US = a_message("Local User <user@recv.example>")

POLICY = """
rules:
  - {id: percent, when: {rcpt.address: percent@recv.example},
     then: {reject: {code: 554, enhanced: 5.7.1, text: "100% sure: %s %d%% %n of {client.ip}"}}}
  - {id: long, when: {rcpt.address: long@recv.example},
     then: {reject: {code: 550, enhanced: 5.7.1, text: "LONG"}}}
  - {id: later, when: {rcpt.address: later@recv.example},
     then: {tempfail: {code: 451, enhanced: 4.7.1, text: "Not now"}}}
  - {id: bye, when: {rcpt.address: bye@recv.example},
     then: {tempfail: {code: 421, enhanced: 4.7.0, text: "Too much"}}}
  - {id: nobody, when: {rcpt.address: nobody@recv.example},
     then: {reject: {code: 550, enhanced: 5.1.1, text: "nobody here, 100% sure"}}}
  - {id: gone, when: {rcpt.address: gone@recv.example}, then: discard}
  - {id: held, when: {rcpt.address: held@recv.example}, then: {quarantine: {by: hold}}}
  - {id: marked, when: {rcpt.address: marked@recv.example},
     then: {quarantine: {by: header, header: X-Junk, value: "DMARC {dmarc.status} for {message.author.domain}"}}}
  - {id: prefix, when: {rcpt.address: prefix@recv.example}, then: accept, tag: {subject_prefix: "[EXTERN]"}}
  - {id: tags, when: {rcpt.address: tags@recv.example}, then: accept,
     tag: [{header: {name: X-First, value: "from {message.author.domain}, 100% {{sure}}"}},
           {header: {name: X-Second, value: two}}]}
  - {id: big, when: {rcpt.address: small@recv.example, message.size: {above: 2000}},
     then: {reject: {code: 552, enhanced: 5.3.4, text: "Too big"}}}
  - {id: bare, when: {rcpt.address: small@recv.example, message.defects: bare_cr},
     then: {reject: {code: 550, enhanced: 5.6.0, text: "A bare CR"}}}
default: accept
""".replace("LONG", "a long text " * 28)


def _zone() -> dict[str, object]:
    found = zone()
    found["xn--bcher-kva.example"] = {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]}
    found["_dmarc.xn--bcher-kva.example"] = {"TXT": ["v=DMARC1; p=reject"]}
    return found


SERVICES: dict[str, dict[str, Any]] = {
    "enforce": {
        "zone": _zone(),
        "policy": "enforce",
        "workers": 1,
        "settings": {
            "authserv_siblings": ["mx2.recv.example", "b\u00fccher.example"],
            "trusted_hops": [{"networks": ["127.0.0.1"], "daemon_names": ["REINJECT"]}],
            "trusted_relays": [{"networks": ["127.0.0.1"], "received_by": ["backup.recv.example"]}],
        },
    },
    "custom": {"zone": _zone(), "policy": POLICY, "workers": 1},
    "own": {
        "zone": _zone(),
        "policy": "enforce",
        "unix": True,
        "workers": 1,
        "settings": {"internal": {"networks": ["127.0.0.0/8", "10.99.0.0/16"]}},
    },
}


def _master(engine: str) -> tuple[str, ...]:
    """For an engine: a port whose mail goes through a content filter, the port where that hands it back, a backup MX,
    and a port for submission.
    """
    milter = f"smtpd -o smtpd_milters={{milter enforce {engine}}}"
    back = f"smtpd -o smtpd_milters= -o content_filter=smtp:[127.0.0.1]:{{line enforce {engine}}}"
    filtered = f"{milter} -o content_filter=smtp:[127.0.0.1]:{{port filter-{engine}}}"
    services = {
        "filtered": filtered,
        "reinject": f"{milter} -o milter_macro_daemon_name=REINJECT",
        "backup": f"{back} -o myhostname=backup.recv.example",
        "submission": f"{milter} -o milter_macro_daemon_name=ORIGINATING",
    }
    return tuple(f"127.0.0.1:{{port {n}-{engine}}} inet n - n - - {s}" for n, s in services.items())


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    extra = {
        "non_smtpd_milters": "{milter own native}, {milter own libmilter}",
        "internal_mail_filter_classes": "bounce",
        # as Postfix was before 3.9: by default it replaces a bare CR, so that no milter sees one
        "cleanup_replace_stray_cr_lf": "no",
        "transport_maps": "inline:{ {nobody@recv.example=smtp:[127.0.0.1]:{line custom native}} }",
    }
    with Rig(SERVICES, extra=extra, master=[row for engine in ENGINES for row in _master(engine)]) as made:
        yield made


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def enforce(rig: Rig, engine: str) -> Line:
    return rig.line("enforce", engine)


@pytest.fixture
def custom(rig: Rig, engine: str) -> Line:
    return rig.line("custom", engine)


def _ours(delivered: Delivered) -> list[str]:
    """The Authentication-Results fields that claim to be ours."""
    return [r for r in delivered.fields("Authentication-Results") if r.lower().startswith(AUTHSERV_ID)]


def _trace(helo: str, client_ip: str, *, protocol: str = "ESMTP", rcpt: str = "user@recv.example") -> str:
    """Postfix's own Received field, settled."""
    return (
        f"Received: from {helo} (unknown [{client_ip}])\n\tby mx.recv.example (Postfix) with {protocol} id QUEUEID\n"
        f"\tfor <{rcpt}>; DATE\n"
    )


def _envelope_lines(mail_from: str, rcpt: str = "user@recv.example") -> str:
    """What virtual(8) puts above everything."""
    return f"Return-Path: <{mail_from}>\nX-Original-To: {rcpt}\nDelivered-To: {rcpt}\n"


# -- replies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rcpt", "code", "text"),
    [
        ("percent", 554, "5.7.1 100% sure: %s %d%% %n of 192.0.2.10 (id MAILID)"),
        ("later", 451, "4.7.1 Not now (id MAILID)"),
        ("bye", 421, "4.7.0 Too much (id MAILID)"),
    ],
)
def test_the_client_sees_code_enhanced_code_and_text_as_the_policy_has_them(
    custom: Line, rcpt: str, code: int, text: str
) -> None:
    said = custom.send(PLAIN, rcpt_to=(f"{rcpt}@recv.example",), **GOOD)
    assert (said.code, settled(said.text.encode()).decode()) == (code, text)
    assert custom.logged()["id"] in said.text
    assert custom.logged()["reply"] == f"{said.code} {said.text}"
    assert custom.postfix.nothing_delivered()


def test_the_reply_of_a_shipped_policy_to_the_letter(enforce: Line) -> None:
    said = enforce.send(FORGED, **EVIL)
    assert (said.code, settled(said.text.encode()).decode()) == (
        550,
        "5.7.26 Unauthenticated mail from bank.example is not accepted due to its DMARC policy (id MAILID)"
        if "dkim=pass" in said.text
        else "5.7.1 Unauthenticated mail from bank.example is not accepted due to its DMARC policy (id MAILID)",
    )
    said = enforce.send(PLAIN, **{**EVIL, "mail_from": "news@good.example"})
    assert (said.code, settled(said.text.encode()).decode()) == (
        550,
        "5.7.26 Unauthenticated mail from good.example is not accepted due to its DMARC policy (id MAILID)",
    )


def test_a_reply_too_long_for_one_line_arrives_whole(custom: Line) -> None:
    said = custom.send(PLAIN, rcpt_to=("long@recv.example",), **GOOD)
    lines = said.text.split("\n")
    assert said.code == 550
    assert all(line.startswith("5.7.1 ") for line in lines)
    assert all(len(line) < 500 for line in lines)
    whole = " ".join(line.removeprefix("5.7.1 ").strip() for line in lines)
    assert whole.startswith("a long text a long text")
    assert custom.logged()["id"] in whole


def test_421_ends_the_session_and_451_does_not(custom: Line) -> None:
    with custom.session("mail.good.example", client_ip="192.0.2.10") as client:
        said = client.message(PLAIN, mail_from="news@good.example", rcpt_to=("later@recv.example",))
        assert said.code == 451
        assert client.say("NOOP").code == 250
        said = client.message(PLAIN, mail_from="news@good.example", rcpt_to=("bye@recv.example",))
        assert said.code == 421
        after = client.say("NOOP").code
        assert after == 0, "Postfix closes the connection"
    assert custom.postfix.nothing_delivered()


def test_discard_says_250_and_nothing_is_delivered(custom: Line) -> None:
    assert custom.send(PLAIN, rcpt_to=("gone@recv.example",), **GOOD).code == 250
    assert custom.logged()["disposition"] == "discard"
    # what comes after it is all that arrives
    custom.deliver(PLAIN, **GOOD)
    assert custom.postfix.nothing_delivered()


def test_of_several_recipients_the_mildest_answer_counts_and_all_get_the_mail(custom: Line) -> None:
    rcpts = ("percent@recv.example", "user@recv.example", "other@recv.example")
    assert custom.send(PLAIN, rcpt_to=rcpts, **GOOD).code == 250
    copies = custom.postfix.delivered(3)
    assert {d.fields("Delivered-To")[0] for d in copies} == set(rcpts)
    assert len({tuple(d.fields("Authentication-Results")) for d in copies}) == 1
    assert custom.logged()["recipients"] == 3


def test_the_body_s_size_and_bare_cr_count_without_any_signature(custom: Line) -> None:
    big = a_message("News <news@good.example>", body=b"x" * 70 + b"\r\n" + b"y" * 2000 + b"\r\n")
    said = custom.send(big, rcpt_to=("small@recv.example",), **GOOD)
    assert (said.code, settled(said.text.encode())) == (552, b"5.3.4 Too big (id MAILID)")
    bare = a_message("News <news@good.example>", body=b"one\rtwo\r\n")
    said = custom.send(bare, rcpt_to=("small@recv.example",), **GOOD)
    assert (said.code, settled(said.text.encode())) == (550, b"5.6.0 A bare CR (id MAILID)")
    custom.deliver(PLAIN, rcpt_to=("small@recv.example",), **GOOD)


# -- what is delivered ---------------------------------------------------------------------------------------------


def _token(value: str) -> str:
    return f'"{value}"' if re.search(r"[^A-Za-z0-9!#$%&'*+.^_`{|}~-]", value) else value


def _expected_all_pass(message: bytes) -> bytes:
    e1, s1 = (b.decode()[:8] for b in re.findall(rb"; b=([^\r]*)", message)[:2])
    results = (
        "Authentication-Results: mx.recv.example;\n iprev=pass policy.iprev=192.0.2.10 (mail.good.example);\n"
        " spf=pass smtp.helo=mail.good.example;\n spf=pass smtp.mailfrom=good.example;\n"
        f" dkim=pass (256-bit key) header.d=good.example header.s=e1\n header.a=ed25519-sha256 header.b={_token(e1)};\n"
        f" dkim=pass (2048-bit key) header.d=good.example header.s=s1\n header.a=rsa-sha256 header.b={_token(s1)};\n"
        " dmarc=pass (p=reject dis=none) header.from=good.example policy.dmarc=reject\n"
    )
    head = message.split(b"\r\n\r\n")[0].replace(b"\r\n", b"\n") + b"\n"
    return (
        _envelope_lines("news@good.example") + results + _trace("mail.good.example", "192.0.2.10")
    ).encode() + head


def test_a_signed_message_s_whole_header_block(enforce: Line) -> None:
    message = SCENARIOS[0].message
    assert settled(enforce.deliver(message, **GOOD).header) == _expected_all_pass(message)


def test_an_unsigned_bounce_s_whole_header_block(enforce: Line) -> None:
    delivered = enforce.deliver(PLAIN, **{**GOOD, "mail_from": "<>"})
    assert settled(delivered.header).decode() == (
        _envelope_lines("")
        + "Authentication-Results: mx.recv.example;\n iprev=pass policy.iprev=192.0.2.10 (mail.good.example);\n"
        " spf=pass smtp.helo=mail.good.example;\n dkim=none;\n"
        " dmarc=pass (p=reject dis=none) header.from=good.example policy.dmarc=reject\n"
        + _trace("mail.good.example", "192.0.2.10")
        + PLAIN.split(b"\r\n\r\n")[0].decode().replace("\r\n", "\n")
        + "\n"
    )


def test_tags_stand_below_our_results_and_forged_ones_are_gone(custom: Line) -> None:
    forged = b"X-First: forged\r\nx-second: forged\r\nX-Authmilter-Note: forged\r\nX-Third: stays\r\n"
    delivered = custom.deliver(forged + PLAIN, rcpt_to=("tags@recv.example",), **GOOD)
    assert settled(delivered.header).decode() == (
        _envelope_lines("news@good.example", "tags@recv.example")
        + "Authentication-Results: mx.recv.example;\n iprev=pass policy.iprev=192.0.2.10 (mail.good.example);\n"
        " spf=pass smtp.helo=mail.good.example;\n spf=pass smtp.mailfrom=good.example;\n dkim=none;\n"
        " dmarc=pass (p=reject dis=none) header.from=good.example policy.dmarc=reject\n"
        "X-First: from good.example, 100% {sure}\nX-Second: two\n"
        + _trace("mail.good.example", "192.0.2.10", rcpt="tags@recv.example")
        + "X-Third: stays\n"
        + PLAIN.split(b"\r\n\r\n")[0].decode().replace("\r\n", "\n")
        + "\n"
    )


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (b"Subject: hello\r\n", b"\nSubject: [EXTERN] hello\n"),
        (b"Subject: [EXTERN] hello\r\n", b"\nSubject: [EXTERN] hello\n"),
        (b"Subject: Re: [EXTERN] hello\r\n", b"\nSubject: Re: [EXTERN] hello\n"),
        (b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_dir?=\r\n",
         b"\nSubject: [EXTERN] =?utf-8?q?gr=C3=BC=C3=9Fe?=\n =?utf-8?q?_dir?=\n"),
        (b"", b"\nSubject: [EXTERN]\n"),
    ],
    ids=["plain", "already", "reply", "encoded", "none"],
)  # fmt: skip
def test_the_subject_gets_its_prefix_once(custom: Line, subject: bytes, expected: bytes) -> None:
    message = PLAIN.replace(b"Subject: hello\r\n", subject)
    delivered = custom.deliver(message, rcpt_to=("prefix@recv.example",), **GOOD)
    assert expected in delivered.header
    assert delivered.header.lower().count(b"\nsubject:") == 1


def test_quarantine_by_header_delivers_with_that_header(custom: Line) -> None:
    delivered = custom.deliver(b"X-Junk: no\r\n" + PLAIN, rcpt_to=("marked@recv.example",), **GOOD)
    assert delivered.fields("X-Junk") == ["DMARC pass for good.example"]


def test_quarantine_by_hold_keeps_it_in_the_hold_queue_until_released(custom: Line) -> None:
    assert custom.send(PLAIN, rcpt_to=("held@recv.example",), **GOOD).code == 250
    postfix = custom.postfix
    assert postfix.held() == 1
    assert postfix.nothing_delivered()
    (queue_id,) = postfix.queued("hold")
    assert custom.logged()["queue_id"] == queue_id
    wait_until(
        lambda: re.search(f"{queue_id}: milter-hold: .* triggers HOLD action", postfix.log()), 5, postfix.log
    )
    postfix.command("postsuper", "-H", "ALL")
    postfix.command("postqueue", "-f")
    assert len(_ours(postfix.delivered()[0])) == 1


# -- bytes ---------------------------------------------------------------------------------------------------------

ODD = (
    b"X-Two:  two blanks\r\nX-Tab:\ttab\r\nX-None:none\r\nX-Empty:\r\nX-Blank: \r\nX-Fold:\r\n folded\r\n\t more \r\n"
    b"X-Eight: \xe4\xf6\xfc\r\nX-Colon: a:b: c\r\nX-Percent: %s%%n\r\nx-two: again\r\n"
)
ODD_BODY = b"8-bit: \xe4\xf6\xfc\r\n.\r\n..dots\r\n \t \r\ntrailing  \r\n\r\n\r\n"


@pytest.mark.parametrize("form", ["simple/simple", "relaxed/relaxed"])
def test_odd_headers_and_an_8_bit_body_arrive_as_sent_and_their_signature_holds(
    enforce: Line, form: str
) -> None:
    message = a_message("News <news@good.example>", extra=ODD, body=ODD_BODY)
    names = (
        "from",
        "to",
        "subject",
        "date",
        "x-two",
        "x-tab",
        "x-none",
        "x-empty",
        "x-fold",
        "x-eight",
        "x-two",
    )
    message = dkim_keys.sign(
        message, dkim_keys.rsa_key(), domain="good.example", selector="s1", names=names, form=form
    )
    delivered = enforce.deliver(message, mail_options=("BODY=8BITMIME",), **GOOD)
    assert enforce.logged()["dkim"] == ["pass:good.example"]
    sent_head, _, sent_body = message.replace(b"\r\n", b"\n").partition(b"\n\n")
    head, _, body = delivered.raw.partition(b"\n\n")
    assert head.endswith(b"; DATE\n".replace(b"DATE", _date(delivered)) + sent_head)
    assert body.rstrip(b"\n") == sent_body.rstrip(b"\n")


def _date(delivered: Delivered) -> bytes:
    return delivered.fields("Received")[0].rpartition("; ")[2].encode()


def test_smtputf8_addresses_and_header_arrive_as_sent(enforce: Line) -> None:
    message = (
        "From: J\u00fcrgen <j\u00fcrgen@b\u00fccher.example>\r\nTo: user@recv.example\r\nSubject: gr\u00fc\u00dfe\r\n"
        "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@xn--bcher-kva.example>\r\n\r\ngr\u00fc\u00dfe\r\n"
    ).encode()
    about: dict[str, Any] = {**GOOD, "mail_from": "j\u00fcrgen@b\u00fccher.example"}
    delivered = enforce.deliver(message, mail_options=("SMTPUTF8", "BODY=8BITMIME"), **about)
    (results,) = _ours(delivered)
    assert "spf=pass smtp.mailfrom=xn--bcher-kva.example" in results
    assert "dmarc=pass (p=reject dis=none) header.from=xn--bcher-kva.example" in results
    assert delivered.raw.endswith(
        message.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n\n"
    ) or delivered.raw.endswith(message.replace(b"\r\n", b"\n"))
    assert enforce.logged()["author"] == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("head", "reply"),
    [
        # Postfix takes `From ` at the very top for a mailbox's separator, and renames it
        (b"From : x@attacker.example\r\n", None),
        (b"X-A: b\r\nFrom : x@attacker.example\r\n", "5.6.0 The From field does not name one author (repeated_from) (id MAILID)"),
        # no header at all, then: what comes after it is body
        (b" From: x@attacker.example\r\n", "5.6.0 The From field does not name one author (no_author) (id MAILID)"),
        (b"From\r\n : x@attacker.example\r\n", "5.6.0 The From field does not name one author (no_author) (id MAILID)"),
        (b"FROM: x@attacker.example\r\n", "5.6.0 The From field does not name one author (repeated_from) (id MAILID)"),
        (b"From:\r\n", "5.6.0 The From field does not name one author (repeated_from) (id MAILID)"),
        (b"From\t:\tx@attacker.example\r\n", "5.6.0 The From field does not name one author (repeated_from) (id MAILID)"),
    ],
    ids=["space-top", "space", "leading-space", "folded-name", "upper", "empty", "tab"],
)  # fmt: skip
def test_a_second_from_in_disguise(enforce: Line, head: bytes, reply: str | None) -> None:
    said = enforce.send(head + PLAIN, **GOOD)
    if reply is None:
        assert said.code == 250
        delivered = enforce.postfix.delivered()[0]
        assert delivered.fields("From") == ["News <news@good.example>"]
        assert b"\nX-Mailbox-Line: From : x@attacker.example\n" in delivered.header
        return
    assert (said.code, settled(said.text.encode()).decode()) == (550, reply)
    assert enforce.postfix.nothing_delivered()


# -- senders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "spf", "code", "domain"),
    [
        ("<>", "pass", 250, None),
        ("<root>", "none", 550, None),
        ("<news@[192.0.2.10]>", "none", 550, None),
        ("<@bank.example,@other.example:news@good.example>", "pass", 250, "good.example"),
        ("<(news@good.example>", "none", 550, None),
        ("<news@good.example(a.attacker.example>", "none", 550, None),
        ("<news@bank.example'@good.example>", "none", 550, None),
        ('<"a b;c@d"@good.example>', "pass", 250, "good.example"),
        ("<news@GOOD.Example>", "pass", 250, "good.example"),
        ('<"x; dmarc=pass header.from=bank.example"@good.example>', "pass", 250, "good.example"),
    ],
)
def test_odd_reverse_paths(enforce: Line, path: str, spf: str, code: int, domain: str | None) -> None:
    said = enforce.send(PLAIN, **{**GOOD, "mail_from": path})
    assert (said.code, enforce.logged()["spf"]) == (code, spf), said
    if code != 250:
        assert said.enhanced == "5.7.26"
        return
    (results,) = _ours(enforce.postfix.delivered()[0])
    assert "bank.example" not in results
    if domain is not None:
        assert f"smtp.mailfrom={domain}" in results


@pytest.mark.parametrize("helo", ["[192.0.2.10]", "a b(c; dmarc=pass", "-", "x" * 300, "mail.good.example."])
def test_odd_helos(enforce: Line, helo: str) -> None:
    (results,) = _ours(enforce.deliver(PLAIN, **{**GOOD, "helo": helo}))
    assert results.count(" dmarc=") == 1
    assert ("smtp.helo" in results) == (helo == "mail.good.example.")


# -- forged Authentication-Results ---------------------------------------------------------------------------------

FORGED_RESULTS = (
    b"Authentication-Results: mx.recv.example; dmarc=pass header.from=bank.example",
    b"authentication-results: mx.recv.example; dmarc=pass",
    b"AUTHENTICATION-RESULTS: MX.RECV.EXAMPLE; dmarc=pass",
    b'Authentication-Results: (x) "MX.Recv.Example" 1 (y); dmarc=pass',
    b"Authentication-Results: mx.recv.example 1; dmarc=pass",
    b"Authentication-Results: mx.recv.example 2; dmarc=pass",
    b"Authentication-Results: mx.recv.example.; dmarc=pass",
    b"Authentication-Results: mx.recv.example",
    b"Authentication-Results:mx.recv.example; none",
    b"Authentication-Results:\r\n\tmx.recv.example;\r\n dmarc=pass",
    b"Authentication-Results: ((a(b)c)\\) ) mx.recv.example (;); dmarc=pass",
    b'Authentication-Results: "mx\\.recv.example"; dmarc=pass',
    b"Authentication-Results: mx2.recv.example; dmarc=pass",
    b"Authentication-Results: b\xc3\xbccher.example; dmarc=pass",
    b"Authentication-Results: xn--BCHER-kva.example; dmarc=pass",
    b"Authentication-Results: =?utf-8?q?mx.recv.example?=; dmarc=pass",
    b"Authentication-Results: ; dmarc=pass",
    b"Authentication-Results: (mx.recv.example; dmarc=pass",
    b'Authentication-Results: "mx.recv.example; dmarc=pass',
    b"Authentication-Results:",
    b"Authentication-Results : mx.recv.example; dmarc=pass",
    b"Authentication-Results\t: mx.recv.example; dmarc=pass",
    b"Authentication-Results: \xef\xbd\x8dx.recv.example; dmarc=pass",
    b"BIMI-Location: v=BIMI1; l=https://evil.example/l.svg",
    b"bimi-indicator: PHN2Zz4=",
)
KEPT_RESULTS = (
    b"Authentication-Results: other.example; dmarc=pass header.from=good.example",
    b"Authentication-Results: mx.recv.example.evil.example; spf=pass",
    b"Authentication-Results: notmx.recv.example; spf=pass",
    b"Authentication-Results: recv.example; spf=pass",
    b"ARC-Authentication-Results: i=1; mx.recv.example; dmarc=pass",
    b"X-Authentication-Results: mx.recv.example; dmarc=pass",
    b"BIMI-Selector: v=BIMI1; s=default",
)


def test_every_forged_result_is_gone_and_every_other_stays(enforce: Line) -> None:
    lines = [line for pair in zip(FORGED_RESULTS, KEPT_RESULTS, strict=False) for line in pair]
    lines += FORGED_RESULTS[len(KEPT_RESULTS) :]
    delivered = enforce.deliver(b"".join(line + b"\r\n" for line in lines) + PLAIN, **GOOD)
    below = delivered.header.partition(b"; " + _date(delivered) + b"\n")[2]
    assert (
        below
        == b"".join(line + b"\n" for line in KEPT_RESULTS)
        + PLAIN.split(b"\r\n\r\n")[0].replace(b"\r\n", b"\n")
        + b"\n"
    )
    assert len(_ours(delivered)) == len({"ours"} | {"mx.recv.example.evil.example"})


@pytest.mark.parametrize("line", FORGED_RESULTS, ids=[str(n) for n in range(len(FORGED_RESULTS))])
def test_each_forged_result_alone_is_gone(rig: Rig, line: bytes) -> None:
    delivered = rig.line("enforce", "native").deliver(line + b"\r\n" + PLAIN, **GOOD)
    assert len(_ours(delivered)) == 1
    assert len(delivered.fields("Authentication-Results")) == 1
    assert not delivered.fields("BIMI-Location") + delivered.fields("BIMI-Indicator")


# -- both engines --------------------------------------------------------------------------------------------------

SAME = [
    *((s.name, s.message, {"mail_from": s.mail_from, "client_ip": s.client_ip, "helo": s.helo, "login": s.login}) for s in SCENARIOS),
    ("odd", signed(a_message("News <news@good.example>", extra=ODD, body=ODD_BODY), "good.example"), GOOD),
    ("results", b"".join(line + b"\r\n" for line in (*KEPT_RESULTS, *FORGED_RESULTS)) + PLAIN, GOOD),
    ("literal", PLAIN, {**GOOD, "helo": "[192.0.2.10]", "mail_from": '<"a b;c@d"@good.example>'}),
]  # fmt: skip


@pytest.mark.parametrize(("message", "about"), [s[1:] for s in SAME], ids=[s[0] for s in SAME])
def test_both_engines_say_and_deliver_the_same(rig: Rig, message: bytes, about: dict[str, Any]) -> None:
    seen = []
    for engine in ENGINES:
        line = rig.line("enforce", engine)
        said = line.send(message, **about)
        raw = line.postfix.delivered()[0].raw if said.code == 250 else b""
        text = said.text if said.code != 250 else "ok"
        logged = {
            k: v
            for k, v in line.logged().items()
            if k
            not in {
                "id",
                "queue_id",
                "listener",
                "elapsed_ms",
                "timestamp",
                "reply",
                "dns_questions",
                "dns_remembered",
            }
        }
        seen.append((said.code, settled(text.encode()), settled(raw), logged))
    assert seen[0] == seen[1]


# -- several messages on one connection ------------------------------------------------------------------------------


def test_messages_on_one_connection_are_judged_each_for_itself(enforce: Line) -> None:
    before = len(enforce.service.log_lines())
    with enforce.session("helo.attacker.example", client_ip="203.0.113.66") as client:
        assert (
            client.message(a_message("Eve <eve@attacker.example>"), mail_from="eve@attacker.example").code
            == 250
        )
        assert client.message(FORGED, mail_from="x@attacker.example").code == 550
        assert client.envelope("news@good.example", ("user@recv.example",)).code == 250
        assert client.say("RSET").code == 250
        assert client.say("NOOP").code == 250
        assert client.say("MAIL FROM:<a@bank.example>").code == 250
        assert client.say("RSET").code == 250
        assert client.say("EHLO other.attacker.example").code == 250
        assert client.say("VRFY user@recv.example").code in {252, 550}
        assert client.say("NONSENSE").code in {500, 502}
        assert client.message(a_message("Eve <eve@attacker.example>"), mail_from="<>").code == 250
        assert client.envelope("late@attacker.example", ("stranger@elsewhere.example",)).code == 554
        assert client.say("RCPT TO:<user@recv.example>").code == 250
        assert client.data(a_message("Late <late@attacker.example>")).code == 250
    enforce.postfix.delivered(3)
    lines = enforce.service.log_lines()[before:]
    assert [(i["mail_from"], i["helo"], i["author"], i["dmarc"]) for i in lines] == [
        ("eve@attacker.example", "helo.attacker.example", "attacker.example", "none"),
        ("x@attacker.example", "helo.attacker.example", "bank.example", "fail"),
        ("", "other.attacker.example", "attacker.example", "none"),
        ("late@attacker.example", "other.attacker.example", "attacker.example", "none"),
    ]
    assert len({i["id"] for i in lines}) == 4


def test_a_client_that_vanishes_in_its_message_leaves_nothing_and_the_next_is_served(enforce: Line) -> None:
    before = len(enforce.service.log_lines())
    for part in (b"", b"From: a@good.example\r\n", PLAIN[:-10]):
        client = SmtpClient(enforce.port)
        client.hello("mail.good.example", client_ip="192.0.2.10")
        client.envelope("news@good.example", ("user@recv.example",))
        client.say("DATA")
        with contextlib.suppress(OSError):
            client.write(part)
        client.vanish()
    enforce.deliver(PLAIN, **GOOD)
    assert len(enforce.service.log_lines()) == before + 1
    wait_until(enforce.postfix.nothing_delivered, 10, "an empty queue")


# -- where mail comes from -----------------------------------------------------------------------------------------


def _filter_changes(message: bytes) -> bytes:
    return b"X-Filtered: yes\r\n" + message.replace(b"this is a test", b"this was looked into")


def test_mail_from_our_content_filter_keeps_our_results_and_is_not_judged_again(
    rig: Rig, enforce: Line, engine: str
) -> None:
    forged = b"Authentication-Results: mx.recv.example; dmarc=pass header.from=bank.example\r\n"
    before = len(enforce.service.log_lines())
    with ContentFilter(
        rig.port(f"filter-{engine}"), _filter_changes, rig.port(f"reinject-{engine}")
    ) as content_filter:
        said = rig.postfix.send(forged + SCENARIOS[0].message, port=rig.port(f"filtered-{engine}"), **GOOD)
        assert said.code == 250
        delivered = rig.postfix.delivered()[0]
    assert len(content_filter.seen) == 1
    assert delivered.fields("X-Filtered") == ["yes"]
    assert b"this was looked into" in delivered.raw
    (results,) = _ours(delivered)
    assert "dkim=pass (2048-bit key) header.d=good.example" in results
    assert "dmarc=pass (p=reject dis=none) header.from=good.example" in results
    first, second = enforce.service.log_lines()[before:]
    assert (first["origin"], first["origin_because"]) == ("internet", "no other line fits")
    assert (second["origin"], second["origin_because"]) == ("trusted_hop", "trusted_hops[0]: 127.0.0.1/32")
    assert "dkim" not in second
    assert "dmarc" not in second


def test_a_stranger_at_the_filter_s_door_is_no_trusted_hop(rig: Rig, enforce: Line, engine: str) -> None:
    forged = b"Authentication-Results: mx.recv.example; dmarc=pass header.from=bank.example\r\n"
    said = rig.postfix.send(forged + FORGED, port=rig.port(f"reinject-{engine}"), **EVIL)
    assert said.code == 550
    assert enforce.logged()["origin"] == "internet"


def test_mail_from_our_backup_mx_is_judged_for_its_client_and_never_refused(
    rig: Rig, enforce: Line, engine: str
) -> None:
    said = rig.postfix.send(SCENARIOS[0].message, port=rig.port(f"backup-{engine}"), **GOOD)
    assert said.code == 250
    (results,) = _ours(rig.postfix.delivered()[0])
    assert "iprev=pass policy.iprev=192.0.2.10" in results
    assert "spf=pass smtp.helo=mail.good.example" in results
    logged = enforce.logged()
    assert (logged["origin"], logged["client"]) == ("trusted_relay", "192.0.2.10")
    assert logged["origin_because"] == "trusted_relays[0]: 127.0.0.1/32; client taken from its Received field"

    said = rig.postfix.send(FORGED, port=rig.port(f"backup-{engine}"), **EVIL)
    assert said.code == 250
    delivered = rig.postfix.delivered()[0]
    assert delivered.fields("X-Authmilter-Quarantine")
    logged = enforce.logged()
    assert (logged["client"], logged["spf"], logged["dmarc"]) == ("203.0.113.66", "pass", "fail")
    assert logged["disposition"] == "quarantine"


def test_a_client_cannot_write_the_backup_mx_s_received_field_itself(
    rig: Rig, enforce: Line, engine: str
) -> None:
    lie = b"Received: from mail.good.example (unknown [192.0.2.10]) by backup.recv.example with ESMTP id 1; now\r\n"
    helo = "x (y [192.0.2.10]) by backup.recv.example"
    about: dict[str, Any] = {"mail_from": "news@good.example", "client_ip": "203.0.113.66", "helo": helo}
    said = rig.postfix.send(lie + PLAIN, port=rig.port(f"backup-{engine}"), **about)
    assert said.code == 250
    rig.postfix.delivered()
    logged = enforce.logged()
    assert (logged["client"], logged["spf"], logged["dmarc"]) == ("203.0.113.66", "fail", "fail")


def test_without_a_received_field_of_the_relay_s_spf_is_not_asked(enforce: Line) -> None:
    said = smtp_send(
        enforce.port,
        PLAIN,
        mail_from="news@good.example",
        rcpt_to=("user@recv.example",),
        helo="mail.good.example",
    )
    assert said.code == 250
    (results,) = _ours(enforce.postfix.delivered()[0])
    assert "spf=" not in results
    assert enforce.logged()["origin_because"] == (
        "trusted_relays[0]: 127.0.0.1/32; its Received field names no client, so SPF and iprev are not asked"
    )


def test_submission_by_login(enforce: Line) -> None:
    forged = b"Authentication-Results: mx.recv.example; dmarc=pass header.from=bank.example\r\n"
    about: dict[str, Any] = {
        "mail_from": "user@recv.example",
        "client_ip": "203.0.113.66",
        "helo": "laptop",
        "login": "user",
    }
    delivered = enforce.deliver(forged + FROM_US, **about)
    assert [r.split(";")[0] for r in delivered.fields("Authentication-Results")] == [AUTHSERV_ID]
    assert "smtp.auth=user" in _ours(delivered)[0]
    logged = enforce.logged()
    assert (logged["origin"], logged["authenticated"]) == ("submission", "user")
    assert logged["origin_because"] == "submission.authenticated: the session is authenticated"


def test_a_login_does_not_outlive_its_session(enforce: Line) -> None:
    with SmtpClient(enforce.port) as client:
        client.hello("laptop", client_ip="203.0.113.66", login="user")
        assert client.message(FROM_US, mail_from="user@recv.example").code == 250
    said = enforce.send(FORGED, **EVIL)
    assert said.code == 550
    enforce.postfix.delivered()


def test_submission_by_daemon_name(rig: Rig, enforce: Line, engine: str) -> None:
    said = rig.postfix.send(
        FROM_US, port=rig.port(f"submission-{engine}"), **{**EVIL, "mail_from": "user@recv.example"}
    )
    assert said.code == 250
    rig.postfix.delivered()
    logged = enforce.logged()
    assert (logged["origin"], logged["origin_because"]) == (
        "submission",
        "submission.daemon_names: ORIGINATING",
    )


def test_through_a_unix_socket(rig: Rig, engine: str) -> None:
    line = rig.line("own", engine)
    (results,) = _ours(line.deliver(SCENARIOS[0].message, **GOOD))
    assert " dmarc=pass" in results
    assert line.send(FORGED, **EVIL).code == 550
    assert str(line.logged()["listener"]).startswith("unix:")


def test_an_internal_network(enforce: Line) -> None:
    about: dict[str, Any] = {"mail_from": "user@recv.example", "client_ip": "10.99.1.2", "helo": "printer"}
    delivered = enforce.deliver(b"Authentication-Results: mx.recv.example; dmarc=pass\r\n" + FROM_US, **about)
    assert [r.split(";")[0] for r in delivered.fields("Authentication-Results")] == [AUTHSERV_ID]
    logged = enforce.logged()
    assert (logged["origin"], logged["origin_because"]) == ("internal", "internal.networks: 10.99.0.0/16")


@pytest.mark.parametrize("client_ip", ["IPv6:2001:db8::1", "IPv6:::ffff:192.0.2.10"])
def test_ipv6_clients(enforce: Line, client_ip: str) -> None:
    enforce.send(PLAIN, **{**GOOD, "client_ip": client_ip})
    logged = enforce.logged()
    mapped = client_ip.endswith("192.0.2.10")
    assert logged["client"] == ("192.0.2.10" if mapped else "2001:db8::1")
    assert logged["spf"] == ("pass" if mapped else "fail")
    if mapped:
        enforce.postfix.delivered()


# -- mail that does not come by SMTP -------------------------------------------------------------------------------


def _own_lines(rig: Rig) -> list[list[dict[str, object]]]:
    return [rig.line("own", engine).service.log_lines() for engine in ENGINES]


@pytest.mark.parametrize("sender", ["user@recv.example", "", "root"])
def test_mail_from_the_sendmail_command_is_internal(rig: Rig, sender: str) -> None:
    before = [len(lines) for lines in _own_lines(rig)]
    message = FROM_US.replace(b"\r\n", b"\n")
    rig.postfix.command("sendmail", "-f", sender or "<>", "-i", "user@recv.example", given=message)
    delivered = rig.postfix.delivered()[0]
    assert _ours(delivered)
    assert delivered.raw.endswith(b"Hello,\nthis is a test.\n\n") or delivered.raw.endswith(
        b"this is a test.\n"
    )
    for lines, old in zip(_own_lines(rig), before, strict=True):
        (line,) = lines[old:]
        assert (line["origin"], line["origin_because"]) == ("internal", "internal.networks: 127.0.0.0/8")
        assert line["client"] == "127.0.0.1"
        assert str(line["mail_from"]).startswith(sender)


def test_a_bounce_of_our_own_is_accepted_and_delivered(rig: Rig) -> None:
    before = [len(lines) for lines in _own_lines(rig)]
    enforce = rig.line("enforce", "native")
    about: dict[str, Any] = {
        "mail_from": "user@recv.example",
        "client_ip": "203.0.113.66",
        "helo": "laptop",
        "login": "user",
    }
    assert enforce.send(FROM_US, rcpt_to=("nobody@recv.example",), **about).code == 250
    bounce = rig.postfix.delivered()[0]
    assert bounce.fields("Return-Path") == ["<>"]
    assert b"550 5.1.1 nobody here, 100% sure" in bounce.raw.replace(b"\n    ", b" ")
    wait_until(rig.postfix.nothing_delivered, 10, "an empty queue")
    for lines, old in zip(_own_lines(rig), before, strict=True):
        (line,) = lines[old:]
        assert (line["origin"], line["mail_from"]) == ("internal", "")


# -- trouble -------------------------------------------------------------------------------------------------------


def test_without_a_milter_the_client_is_told_to_come_again(rig: Rig) -> None:
    # a port of its own whose milter nobody runs
    del rig
    with PrivatePostfix(milter=f"inet:127.0.0.1:{free_port()}") as postfix:
        said = postfix.send(PLAIN, **GOOD)
        assert said.code == 451
        assert said.enhanced == "4.7.1"
        assert postfix.nothing_delivered()
