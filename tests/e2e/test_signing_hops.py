"""Signed mail over two mail servers: what a Postfix with OpenDKIM at the second hop says of it, and what breaks it.

The first Postfix has us as its milter. Where a mail goes on its way to the second, and what is done to it there, is
told by the recipient's domain (`WAYS`): each is one setting of Postfix, or one thing behind us, that does harm or
cures it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authmilter.signing.settings import OnUnsafeBody
from tests.support import dkim_keys
from tests.support.contentfilter import ContentFilter
from tests.support.nameserver import NameServer
from tests.support.opendkim import PrivateOpenDkim, seen
from tests.support.postfix import Delivered, PrivatePostfix, SmtpResult, free_port
from tests.support.scenarios import zone
from tests.support.sendmail import PrivateSendmail
from tests.support.service import Service
from tests.support.signing import logged

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HOSTNAME: Final = "mx1.hosts.good.example"
BOTH: Final = {("pass", "good.example", "s1"), ("pass", "good.example", "e1")}
BROKEN: Final = {("fail", "good.example", "s1"), ("fail", "good.example", "e1")}
#: Part of the recipient's domain -> options of the smtp client that carries the mail on from the first Postfix.
WAYS: Final = {
    "plain": "",
    "seven": "",  # to a hop without 8BITMIME
    "seven-raw": "-o disable_mime_output_conversion=yes",  # to the same
    "long": "-o smtp_line_length_limit=0",
    "generic": "-o smtp_generic_maps=inline:{user@good.example=other@good.example}",
    "checks": "-o { smtp_header_checks = regexp:{{/^Subject: (.*)/ REPLACE Subject: [out] $1}} }",
    "filter": "",  # through a content filter behind us
    "adds": "",  # to a hop that adds what is missing
}


#: Further submission ports of the first Postfix, all before the service that signs and warns: the smtpd's options.
SUBMISSION: Final = {
    "rewriting": "-o local_header_rewrite_clients=static:all -o cleanup_service_name=rewriting",
    "adding": "-o cleanup_service_name=adding",
    "stray": "-o cleanup_service_name=stray",
    # hands the mail to a content filter, which brings it back to be signed
    "filtered": "-o smtpd_milters= -o content_filter=smtp:[127.0.0.1]:{filter}",
}
CLEANUPS: Final = (
    "rewriting unix n - n - 0 cleanup -o masquerade_domains=good.example -o canonical_maps=inline:{alias@good.example=user@good.example}",
    "adding unix n - n - 0 cleanup -o always_add_missing_headers=yes",
    "stray unix n - n - 0 cleanup -o cleanup_replace_stray_cr_lf=no",
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, key in (("rsa.pem", dkim_keys.rsa_key()), ("ed.pem", dkim_keys.ed25519_key())):
        pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / name).write_bytes(pem)
        (folder / name).chmod(0o600)
    return folder


def _signing(keys: Path, **more: Any) -> dict[str, Any]:
    lines = [
        {"domain": "good.example", "selector": "s1", "key": str(keys / "rsa.pem")},
        {"domain": "good.example", "selector": "e1", "key": str(keys / "ed.pem")},
    ]
    senders = [
        {"users": ["*"], "authors": ["{login}"]},
        {"networks": ["127.0.0.0/8"], "authors": ["good.example", "*.good.example"]},
    ]
    return {
        "signing": {"domains": lines, "senders": senders, **more},
        "internal": {"networks": ["127.0.0.0/8"]},
        "authserv_id": HOSTNAME,
    }


@dataclass(frozen=True)
class Road:
    """The two mail servers, and the services that sign, by what they do with unsafe bodies."""

    first: PrivatePostfix
    second: PrivatePostfix
    services: dict[str, Service]
    ports: dict[str, int]

    def submit(self, message: bytes, to: str, *, by: str = "sign-and-warn", **about: Any) -> SmtpResult:
        """Send a message as an authenticated user, from a client elsewhere, to somebody at `to`.recv.example.

        `by` is the submission port: the word of `on_unsafe_body`, or one of `SUBMISSION`.
        """
        about = {"login": "user@good.example", "client_ip": "203.0.113.5", **about}
        return self.first.send(
            message,
            mail_from="user@good.example",
            rcpt_to=(f"somebody@{to}.recv.example",),
            port=self.ports[by],
            **about,
        )

    def carry(self, message: bytes, to: str, **about: Any) -> Delivered:
        """The same; it must be accepted, and what the second mail server delivers is returned."""
        said = self.submit(message, to, **about)
        assert said.code == 250, said
        return self.second.delivered()[0]

    def logged(self, mail: Delivered | SmtpResult, mode: str = "sign-and-warn") -> dict[str, Any]:
        """The service's line about a message that was delivered or refused."""
        return logged(self.services[mode], mail)


def _judged(mail: Delivered) -> set[tuple[str, str, str]]:
    """What the second hop's OpenDKIM says of the signatures."""
    (field,) = [value for value in mail.fields("Authentication-Results") if "opendkim.recv.example" in value]
    return {(one.result, one.domain, one.selector) for one in seen(field)}


@pytest.fixture(scope="module")
def second() -> Iterator[tuple[PrivatePostfix, dict[str, int]]]:
    """The second hop, and its ports: `plain`, `seven` without 8BITMIME, `adds` which adds missing fields."""
    ports = {"seven": free_port(), "adds": free_port()}
    services = (
        f"127.0.0.1:{ports['seven']} inet n - n - - smtpd -o smtpd_discard_ehlo_keywords=8bitmime,smtputf8,silent-discard",
        f"127.0.0.1:{ports['adds']} inet n - n - - smtpd -o cleanup_service_name=adds",
        "adds unix n - n - 0 cleanup -o always_add_missing_headers=yes",
    )
    domains = ", ".join(["recv.example", *(f"{way}.recv.example" for way in WAYS)])
    with (
        NameServer(zone()) as nameserver,
        PrivateOpenDkim(nameserver.address) as opendkim,
        PrivatePostfix(
            milter=opendkim.for_postfix,
            extra={"virtual_mailbox_domains": domains},
            services=services,
            hostname="mx2.recv.example",
        ) as postfix,
    ):
        yield postfix, {"plain": postfix.port, **ports}


@pytest.fixture(scope="module")
def road(second: tuple[PrivatePostfix, dict[str, int]], keys: Path) -> Iterator[Road]:
    postfix, ports = second
    with contextlib.ExitStack() as stack:
        services = {}
        for mode in OnUnsafeBody:
            settings = _signing(keys, on_unsafe_body=mode.value)
            services[mode.value] = stack.enter_context(Service(zone=zone(), settings=settings, workers=1))
        ours = {name: free_port() for name in (*services, *SUBMISSION)}
        behind = stack.enter_context(ContentFilter(free_port(), _footer, hand_back=postfix.port))
        before = stack.enter_context(ContentFilter(free_port(), _footer, hand_back=ours["sign-and-warn"]))
        rows = [
            f"127.0.0.1:{ours[mode]} inet n - n - - smtpd -o smtpd_milters={service.for_postfix}"
            for mode, service in services.items()
        ]
        rows += [
            f"127.0.0.1:{ours[name]} inet n - n - - smtpd {options.format(filter=before.port)}"
            for name, options in SUBMISSION.items()
        ]
        rows += CLEANUPS
        targets = {
            "seven": ports["seven"],
            "seven-raw": ports["seven"],
            "adds": ports["adds"],
            "filter": behind.port,
        }
        rows += [f"to-{way} unix - - n - - smtp {options}" for way, options in WAYS.items()]
        transports = " ".join(
            f"{{{way}.recv.example = to-{way}:[127.0.0.1]:{targets.get(way, postfix.port)}}}" for way in WAYS
        )
        extra = {
            "virtual_mailbox_domains": "",
            "relay_domains": "recv.example, elsewhere.example",  # the latter bounces
            "transport_maps": f"inline:{{ {transports} {{elsewhere.example = error:5.1.2 nobody there}} }}",
            "internal_mail_filter_classes": "bounce",
        }
        signer = services["sign-and-warn"]
        yield Road(
            stack.enter_context(
                PrivatePostfix(
                    milter=signer.for_postfix, extra=extra, services=tuple(rows), hostname=HOSTNAME
                )
            ),
            postfix,
            services,
            ours,
        )


def _footer(message: bytes) -> bytes:
    return message + b"-- \r\nsent by somebody's list\r\n"


def _mail(
    body: bytes = b"Hello \r\n.dot\r\n\r\n\r\n", extra: bytes = b"", author: bytes = b"user@good.example"
) -> bytes:
    return (
        b"From: User <" + author + b">\r\nTo:  x@recv.example\r\nSubject: signed\r\n\todd   folding\r\n"
        b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <2@good.example>\r\n" + extra + b"\r\n" + body
    )


def test_submitted_mail_has_two_signatures_that_the_second_hop_verifies(road: Road) -> None:
    mail = road.carry(_mail(), "plain")
    assert mail.raw.count(b"DKIM-Signature: ") == 2
    assert _judged(mail) == BOTH
    (field,) = [v for v in mail.fields("Authentication-Results") if "opendkim" in v]
    assert {one.algorithm for one in seen(field)} == {"rsa-sha256", "ed25519-sha256"}
    assert road.logged(mail)["signed"] == ["good.example/s1", "good.example/e1"]


def test_a_forged_submitter_is_not_signed(road: Road) -> None:
    mail = road.carry(_mail(author=b"boss@good.example"), "plain")
    assert b"DKIM-Signature" not in mail.header
    assert road.logged(mail)["not_signed"] == "sender_not_allowed"
    assert road.logged(mail)["signing_line"] == "signing.senders[0]"
    assert road.logged(mail)["not_signed_detail"] == "the session may not write as good.example"


def test_mail_of_the_program_sendmail_is_signed(road: Road) -> None:
    road.first.command(
        "sendmail", "-f", "user@good.example", "x@plain.recv.example", given=_mail().replace(b"\r\n", b"\n")
    )
    mail = road.second.delivered()[0]
    assert _judged(mail) == BOTH
    line = road.logged(mail)
    assert (line["origin"], line["origin_because"]) == ("internal", "internal.networks: 127.0.0.0/8")


def test_a_bounce_is_signed_by_the_longest_configured_parent_domain(road: Road) -> None:
    road.first.command(
        "sendmail", "-f", "x@plain.recv.example", "nobody@elsewhere.example",
        given=_mail(author=b"x@plain.recv.example").replace(b"\r\n", b"\n"),
    )  # fmt: skip
    bounce = road.second.delivered()[0]
    assert f"MAILER-DAEMON@{HOSTNAME}" in bounce.fields("From")[0]
    assert _judged(bounce) == BOTH
    assert road.logged(bounce)["signed"] == ["good.example/s1", "good.example/e1"]


# -- bodies that a later hop changes -----------------------------------------------------------------------------------

LONG: Final = b"x" * 1500 + b"\r\n"
EIGHT: Final = "Gr\u00fc\u00dfe\r\n".encode()
MIME: Final = (
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
)
EIGHT_BIT: Final[dict[str, Any]] = {"mail_options": ("BODY=8BITMIME",)}
UNSAFE: Final = {
    "long_line": (_mail(LONG), {}, "plain", "long"),
    "eight_bit": (_mail(EIGHT, MIME), EIGHT_BIT, "seven", "seven-raw"),
}


@pytest.mark.parametrize("risk", UNSAFE)
def test_an_unsafe_body_breaks_at_the_second_hop_and_the_setting_cures_it(road: Road, risk: str) -> None:
    message, about, bad, good = UNSAFE[risk]
    for way, verdict in ((bad, BROKEN), (good, BOTH)):
        mail = road.carry(message, way, **about)
        assert _judged(mail) == verdict
        assert road.logged(mail)["signing_risks"] == [risk]


@pytest.mark.parametrize("risk", UNSAFE)
def test_unsafe_bodies_are_refused_for_now_or_left_unsigned_where_it_says_so(road: Road, risk: str) -> None:
    message, about, bad, _ = UNSAFE[risk]
    said = road.submit(message, bad, by="tempfail", **about)
    assert (said.code, said.enhanced) == (451, "4.7.0")
    line = road.logged(said, "tempfail")
    assert (line["not_signed"], line["signing_risks"]) == ("unsafe_body", [risk])
    mail = road.carry(message, bad, by="pass-unsigned", **about)
    assert b"DKIM-Signature" not in mail.header
    assert road.logged(mail, "pass-unsigned")["not_signed"] == "unsafe_body"
    for mode in ("tempfail", "pass-unsigned"):
        assert _judged(road.carry(_mail(), "plain", by=mode)) == BOTH


def test_eight_bit_bodies_are_safe_toward_hops_with_8bitmime_and_seven_bit_ones_everywhere(
    road: Road,
) -> None:
    assert _judged(road.carry(_mail(EIGHT, MIME), "plain", **EIGHT_BIT)) == BOTH
    assert _judged(road.carry(_mail(), "seven", **EIGHT_BIT)) == BOTH
    # what the client announces makes no difference
    assert _judged(road.carry(_mail(EIGHT, MIME), "seven")) == BROKEN


def test_postfix_leaves_no_stray_line_end_for_us_to_sign(road: Road) -> None:
    for body in (b"a\nb\r\n", b"a\rb\r\n"):
        mail = road.carry(_mail(body), "plain")
        assert _judged(mail) == BOTH
        assert "signing_risks" not in road.logged(mail)
    mail = road.carry(_mail(b"a\rb\r\n"), "plain", by="stray")
    assert _judged(mail) == BROKEN
    assert road.logged(mail)["signing_risks"] == ["bare_cr"]


def test_what_changes_the_body_behind_us_breaks_it_and_before_us_does_not(road: Road) -> None:
    mail = road.carry(_mail(), "filter")
    assert b"sent by somebody's list" in mail.raw
    assert _judged(mail) == BROKEN
    mail = road.carry(_mail(), "plain", by="filtered")
    assert b"sent by somebody's list" in mail.raw
    assert _judged(mail) == BOTH


# -- header fields that the mail server rewrites or adds ---------------------------------------------------------------


@pytest.mark.parametrize("way", ["generic", "checks"])
def test_what_the_smtp_client_of_postfix_rewrites_breaks_signatures(road: Road, way: str) -> None:
    assert _judged(road.carry(_mail(), way)) == BROKEN


def test_what_the_cleanup_of_postfix_rewrites_is_rewritten_before_we_sign(road: Road) -> None:
    for written in (b"user@host.good.example", b"alias@good.example", b"user"):
        mail = road.carry(_mail(author=written), "plain", by="rewriting")
        assert mail.fields("From") == ["User <user@good.example>"]
        assert _judged(mail) == BOTH


def test_an_author_without_a_domain_is_not_signed_where_nobody_completes_it(road: Road) -> None:
    mail = road.carry(_mail(author=b"user"), "plain")
    assert b"DKIM-Signature" not in mail.header
    assert road.logged(mail)["not_signed"] == "malformed_from"


BARE: Final = b"From: User <user@good.example>\r\nSubject: s\r\n\r\nHello\r\n"


def test_a_date_and_message_id_that_the_second_hop_adds_break_nothing(road: Road) -> None:
    mail = road.carry(BARE, "adds")
    assert mail.fields("Date")
    assert mail.fields("Message-ID")
    assert road.logged(mail)["signing_risks"] == ["no_date", "no_message_id"]
    # nor To, which we oversign: what Postfix would add is no To field
    assert _judged(mail) == BOTH


def test_what_our_own_postfix_adds_is_signed(road: Road) -> None:
    mail = road.carry(BARE, "adds", by="adding")
    assert "signing_risks" not in road.logged(mail)
    assert _judged(mail) == BOTH
    (signature, _) = mail.fields("DKIM-Signature")
    assert ":date:date:message-id:message-id" in signature.replace(" ", "")
    mail = road.carry(BARE[BARE.index(b"Subject") :], "plain", by="adding")
    assert mail.fields("From") == ["user@good.example"]
    assert _judged(mail) == BOTH


def test_without_a_from_field_nothing_is_signed(road: Road) -> None:
    mail = road.carry(BARE[BARE.index(b"Subject") :], "plain")
    assert b"DKIM-Signature" not in mail.header
    assert road.logged(mail)["not_signed"] == "no_author"


# -- Sendmail before the second hop ------------------------------------------------------------------------------------

#: Part of the recipient's domain -> flags and line length of the mailer that carries the mail on from Sendmail.
MAILERS: Final = {
    "plain": "F=mDFMuXa, L=990",  # as its own esmtp
    "long": "F=mDFMuXa, L=0",
    "seven": "F=mDFMuXa, L=990",
    "seven-raw": "F=mDFMuXa8, L=990",
}


@pytest.fixture(scope="module")
def sendmail(
    second: tuple[PrivatePostfix, dict[str, int]], keys: Path
) -> Iterator[tuple[PrivateSendmail, PrivatePostfix, Service]]:
    postfix, ports = second
    mailers, rules = "", ""
    for name, options in MAILERS.items():
        port = ports["seven" if name.startswith("seven") else "plain"]
        mailers += (
            f"M{name.replace('-', '')}, P=[IPC], {options}, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, "
            f"T=DNS/RFC822/SMTP, A=TCP $h {port}\n"
        )
        rules += (
            f"R$+ < @ {name}.recv.example . > $*\t$#{name.replace('-', '')} $@ [127.0.0.1] "
            f"$: $1 < @ {name}.recv.example . > $2\n"
        )
    features = (
        "MASQUERADE_AS(`good.example')dnl\nMASQUERADE_DOMAIN(`inner.example')dnl\nFEATURE(`limited_masquerade')dnl\n"
        "define(`confBAD_RCPT_THROTTLE', `0')dnl\nFEATURE(`relay_entire_domain')dnl\nRELAY_DOMAIN(`recv.example')dnl\n"
    )
    settings = _signing(keys)
    settings["signing"]["domains"].append(
        {
            "domain": "inner.example",
            "selector": "s1",
            "key": str(keys / "rsa.pem"),
            "signing_domain": "good.example",
        }
    )
    settings["signing"]["senders"] = [{"networks": ["127.0.0.0/8"], "authors": ["*"]}]
    with (
        Service(zone=zone(), settings=settings, workers=1) as service,
        PrivateSendmail(milter=service.listen, features=features, mailers=mailers, rules=rules) as running,
    ):
        yield running, postfix, service


def _by_sendmail(
    sendmail: tuple[PrivateSendmail, PrivatePostfix, Service], message: bytes, to: str, **about: Any
) -> Delivered:
    running, postfix, _ = sendmail
    said = running.send(
        message, mail_from="user@good.example", rcpt_to=(f"x@{to}.recv.example",), source="127.0.0.5", **about
    )
    assert said.code == 250, said
    return postfix.delivered(seconds=6)[0]


Running = tuple[PrivateSendmail, PrivatePostfix, Service]


def test_mail_through_sendmail_verifies_at_the_second_hop(sendmail: Running) -> None:
    # what Sendmail adds (Date, Message-ID) and how it folds breaks nothing, nor do blanks in its address lists
    for message in (
        _mail(),
        BARE,
        _mail(extra=b"Cc: a@recv.example, b@recv.example,\r\n   c@recv.example\r\n"),
        _mail().replace(b"User <user@good.example>", b"user@good.example (User   Name)"),
    ):
        mail = _by_sendmail(sendmail, message, "plain")
        assert mail.fields("Message-ID")
        assert _judged(mail) == BOTH


@pytest.mark.parametrize("risk", UNSAFE)
def test_an_unsafe_body_through_sendmail_and_the_mailer_that_cures_it(sendmail: Running, risk: str) -> None:
    message, about, bad, good = UNSAFE[risk]
    mail = _by_sendmail(sendmail, message, bad, **about)
    assert _judged(mail) == BROKEN
    assert logged(sendmail[2], mail)["signing_risks"] == [risk]
    assert _judged(_by_sendmail(sendmail, message, good, **about)) == BOTH


def test_sendmail_takes_no_stray_line_ends(sendmail: Running) -> None:
    for body in (b"a\nb\r\n", b"a\rb\r\n"):
        said = sendmail[0].send(_mail(body), rcpt_to=("x@plain.recv.example",), source="127.0.0.5")
        assert said.code == 421, said


def test_what_sendmail_rewrites_after_us_breaks_signatures(sendmail: Running) -> None:
    # MASQUERADE_AS makes good.example of the author's domain, behind the milter
    mail = _by_sendmail(sendmail, _mail(author=b"user@inner.example"), "plain")
    assert mail.fields("From") == ["User <user@good.example>"]
    assert _judged(mail) == {("fail", "good.example", "s1")}
    # a comma in an address list gets a blank behind it
    mail = _by_sendmail(sendmail, _mail(extra=b"Cc: a@recv.example,b@recv.example\r\n"), "plain")
    assert mail.fields("Cc") == ["a@recv.example, b@recv.example"]
    assert _judged(mail) == BROKEN


def test_a_second_pass_through_sendmail_signs_what_the_first_has_written(sendmail: Running) -> None:
    for author, extra in ((b"user@inner.example", b""), (b"user", b"Cc: a@recv.example,b@recv.example\r\n")):
        # the first pass: another signature, or none; what it has made of the message comes in again
        first = _by_sendmail(sendmail, _mail(author=author, extra=extra), "plain").raw.replace(b"\n", b"\r\n")
        again = first[first.index(b"From: ") :]
        assert _judged(_by_sendmail(sendmail, again, "plain")) == BOTH


def test_an_author_that_sendmail_completes_behind_us_is_not_signed(sendmail: Running) -> None:
    for message, reason in (
        (_mail(author=b"user"), "malformed_from"),
        (BARE[BARE.index(b"Subject") :], "no_author"),
    ):
        mail = _by_sendmail(sendmail, message, "plain")
        assert "user@good.example" in mail.fields("From")[0]
        assert b"DKIM-Signature" not in mail.header
        assert logged(sendmail[2], mail)["not_signed"] == reason
