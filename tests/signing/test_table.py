"""Which signatures a message gets, and who may have them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dkim.crypto import KeyKind
from authmilter.dkim.sign import SigningPlan
from authmilter.errors import ConfigError
from authmilter.mail import BodyFacts, Origin, Session
from authmilter.message import MAX_FIELDS, Message
from authmilter.names import Address, Domain
from authmilter.signing.keys import KeyProblem, KeyRing, KeySource
from authmilter.signing.settings import (
    Action,
    NotSigned,
    NotSignedReason,
    OnSigningError,
    OnUnsafeBody,
    SigningSettings,
    settle,
    sign_message,
    sign_plan_for,
)
from authmilter.signing.table import Binding, DomainTable, SenderBindings, parse_table
from tests.support.dkim_keys import judge
from tests.support.signing import SIGNED_AT, signing_key, with_signatures, zone_of

RING = KeyRing(
    keys={
        KeySource(path="r.pem"): signing_key(KeyKind.RSA),
        KeySource(path="e.pem"): signing_key(KeyKind.ED25519),
    },
    problems=(KeyProblem(KeySource(path="bad.pem"), "there is nothing in it"),),
)
TEXT = """
# author-domain        selector  key
example.com            r1        r.pem   # both kinds
example.com            e1        e.pem
*.example.com          w1        e.pem
*.deep.example.com     w2        e.pem
Example.NET            n1        e.pem
news.example.org       o1        e.pem   d=example.org
bücher.example         b1        e.pem
"""


def table(text: str = TEXT) -> DomainTable:
    return DomainTable.of(parse_table(text, "domains"), RING)


TABLE = table()


def found(author: str, asked: DomainTable = TABLE) -> tuple[list[str], str] | None:
    match = asked.find(Address.parse(author))
    return None if match is None else ([e.question.name for e in match.entries], match.line)


@pytest.mark.parametrize(
    ("author", "names", "line"),
    [
        (
            "a@example.com",
            ["r1._domainkey.example.com", "e1._domainkey.example.com"],
            "domains:3: example.com",
        ),
        (
            "a@EXAMPLE.com",
            ["r1._domainkey.example.com", "e1._domainkey.example.com"],
            "domains:3: example.com",
        ),
        ("a@x.example.com", ["w1._domainkey.example.com"], "domains:5: *.example.com"),
        ("a@x.y.example.com", ["w1._domainkey.example.com"], "domains:5: *.example.com"),
        ("a@deep.example.com", ["w1._domainkey.example.com"], "domains:5: *.example.com"),
        ("a@x.deep.example.com", ["w2._domainkey.deep.example.com"], "domains:6: *.deep.example.com"),
        ("a@example.net", ["n1._domainkey.example.net"], "domains:7: Example.NET"),
        ("a@news.example.org", ["o1._domainkey.example.org"], "domains:8: news.example.org"),
        ("a@xn--bcher-kva.example", ["b1._domainkey.xn--bcher-kva.example"], "domains:9: bücher.example"),
        # a bounce, by the longest configured parent of its host
        ("MAILER-DAEMON@mx1.example.net", ["n1._domainkey.example.net"], "domains:7: Example.NET"),
        ("mailer-daemon@a.b.news.example.org", ["o1._domainkey.example.org"], "domains:8: news.example.org"),
        ("MAILER-DAEMON@mx.example.com", ["w1._domainkey.example.com"], "domains:5: *.example.com"),
    ],
)
def test_the_line_that_is_nearest_decides(author: str, names: list[str], line: str) -> None:
    assert found(author) == (names, line)


@pytest.mark.parametrize(
    "author",
    ["a@com", "a@mx1.example.net", "a@example.org", "a@notexample.com", "MAILER-DAEMON@example.org", "a@net"],
)
def test_other_authors_have_no_line(author: str) -> None:
    assert found(author) is None


def test_every_entry_is_listed_once() -> None:
    twice = table("example.com s e.pem\n*.example.com s e.pem\n")
    assert [(line, e.question.name) for line, e in twice.listed] == [
        ("domains:1: example.com", "s._domainkey.example.com")
    ]
    assert len(TABLE.listed) == 7


def test_every_mistake_of_a_table_file_is_told_at_once() -> None:
    text = (
        "example.com\nexample.com s1 k x\n*. s1 k\n*.*.example.com s1 k\nexample.com S_1! k\n"
        "example.com s1 k d=a..b\n# fine\n\nexample.com s1 k\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse_table(text, "t")
    assert [c.span.line for c in caught.value.complaints] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ConfigError) as caught:
        table(
            "example.com s1 bad.pem\nexample.com s2 gone.pem\na.example s1 e.pem\na.example s1 e.pem\n"
            "example.net s1 e.pem\nexample.net s1 r.pem\n"
        )
    told = [str(c) for c in caught.value.complaints]
    assert len(told) == 4
    assert "there is nothing in it" in told[0]
    assert "not loaded" in told[1]
    assert "stands twice" in told[2]
    assert "another key under the same" in told[3]


def test_a_signature_that_dmarc_takes_no_account_of_is_told() -> None:
    other = table("example.com s1 e.pem d=esp.example\nx.example.com s1 e.pem d=example.com\n")
    assert len(other.warnings) == 1
    assert "d=esp.example is not the author's domain example.com" in other.warnings[0]


# ----- who may write as whom ------------------------------------------------------------------------------------


def session(login: str | None = None, ip: str | None = None, daemon: str = "") -> Session:
    return Session(
        authenticated=login, client_ip=ip_address(ip) if ip is not None else None, daemon_name=daemon
    )


BINDINGS = SenderBindings(
    (
        Binding(users=("alice@example.com",), authors=("{login}", "news.example.com"), line="one"),
        Binding(users=("*@example.net",), authors=("{login-domain}",), line="two"),
        Binding(users=("root",), authors=("*",), line="three"),
        Binding(
            networks=(ip_network("192.0.2.0/24"),), authors=("*.example.org", "x@example.com"), line="four"
        ),
        Binding(
            users=("*",), networks=(ip_network("::1/128"),), authors=("shared@example.com",), line="five"
        ),
        Binding(users=("*@example.org",), authors=("{login}",), line="six"),
    )
)


@pytest.mark.parametrize(
    ("who", "author", "allowed", "line"),
    [
        (session("alice@example.com"), "alice@example.com", True, "one"),
        (session("alice@example.com"), "Alice@example.com", True, "one"),
        (session("alice@example.com"), "a@news.example.com", True, "one"),
        (session("alice@example.com"), "bob@example.com", False, "one"),
        (session("alice@example.com"), "alice@example.net", False, "one"),
        (session("alice@example.com"), "shared@example.com", True, "five"),
        (session("ALICE@example.com"), "alice@example.com", False, "five"),
        (session("strasse@example.org"), "Strasse@example.org", True, "six"),
        (session("strasse@example.org"), "straße@example.org", False, "five"),
        (session("straße@example.org"), "straße@example.org", True, "six"),
        (session("straße@example.org"), "STRASSE@example.org", False, "five"),
        (session("bob@example.net"), "anybody@example.net", True, "two"),
        (session("bob@example.net"), "bob@sub.example.net", False, "two"),
        (session("bob"), "bob@example.net", False, "five"),
        (session("root"), "x@anything.example", True, "three"),
        (session(None, "192.0.2.7"), "a@b.example.org", True, "four"),
        (session(None, "192.0.2.7"), "a@example.org", False, "four"),
        (session(None, "192.0.2.7"), "x@example.com", True, "four"),
        (session(None, "192.0.2.7"), "y@example.com", False, "four"),
        (session("bob@example.net", "192.0.2.7"), "x@example.com", True, "four"),
        (session(None, "::1"), "shared@example.com", True, "five"),
        (session(None, "198.51.100.1"), "x@example.com", False, "signing.senders: no line fits the session"),
        (session(), "x@example.com", False, "signing.senders: no line fits the session"),
        (session("", None), "@example.com", False, "five"),
    ],
)
def test_a_session_may_write_as_its_own_authors_only(
    who: Session,
    author: str,
    allowed: bool,  # noqa: FBT001 - a parameter
    line: str,
) -> None:
    local, _, domain = author.partition("@")
    assert BINDINGS.decide(who, Address(local, Domain.parse(domain))) == (allowed, line)


def test_without_bindings_everybody_may() -> None:
    assert SenderBindings().decide(session(), Address.parse("a@example.com")) == (
        True,
        "signing.senders: none are bound",
    )


@pytest.mark.parametrize(
    ("users", "authors"),
    [((), ("*",)), (("a",), ()), (("",), ("*",)), (("a*",), ("*",)), (("*@a..b",), ("*",)),
     (("a",), ("*.",)), (("a",), ("a@b@c",)), (("a",), ("",)), (("a",), ("{user}",))],
)  # fmt: skip
def test_a_binding_that_says_nothing_is_refused(users: tuple[str, ...], authors: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"names|is no"):
        Binding(users=users, authors=authors, line="x")


# ----- the whole question ---------------------------------------------------------------------------------------

SETTINGS = SigningSettings(tables=(TABLE,), senders=BINDINGS, daemon_names=("FILTERED",))
ALICE = session("alice@example.com")


def asked(
    raw: bytes, who: Session = ALICE, origin: Origin = Origin.SUBMISSION, settings: SigningSettings = SETTINGS
) -> SigningPlan | NotSigned:
    message, _ = Message.parse(raw)
    return sign_plan_for(who, origin, message, settings)


def test_a_submitted_message_is_signed_by_both_keys_and_the_line_is_named() -> None:
    planned = asked(b"From: alice@example.com\r\nDate: d\r\nMessage-ID: <x>\r\n\r\n")
    assert isinstance(planned, SigningPlan)
    assert [e.key.kind for e in planned.entries] == [KeyKind.RSA, KeyKind.ED25519]
    assert planned.because == "domains:3: example.com"
    assert planned.risks == frozenset()


@pytest.mark.parametrize(
    ("raw", "who", "origin", "reason"),
    [
        (b"From: alice@example.com\r\n\r\n", ALICE, Origin.INTERNET, NotSignedReason.NOT_OUTBOUND),
        (b"From: alice@example.com\r\n\r\n", ALICE, Origin.TRUSTED_HOP, NotSignedReason.NOT_OUTBOUND),
        (b"To: alice@example.com\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.NO_AUTHOR),
        (b"From: nobody:;\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.NO_AUTHOR),
        (b"From: alice@example.com\r\n" * 2 + b"\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.SEVERAL_AUTHORS),
        (b"From: alice@example.com, b@example.com\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.SEVERAL_AUTHORS),
        (b"From: alice@example.com, b@example.net\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.SEVERAL_AUTHORS),
        (b"From: alice@example.com\r\nFrom : b@example.net\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.SEVERAL_AUTHORS),
        (b"From: alice@example.com, \r\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.MALFORMED_FROM),
        (b"From: <alice@example.com\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.MALFORMED_FROM),
        (b"From: alice@[192.0.2.1]\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.MALFORMED_FROM),
        (b"From: a@other.example\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.NO_KEY),
        (b"From: bob@example.com\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.SENDER_NOT_ALLOWED),
        (b"From: alice@example.com\r\n\r\n", session(), Origin.INTERNAL, NotSignedReason.SENDER_NOT_ALLOWED),
        (b"From: alice@example.com\r\nno field\r\n\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.MALFORMED_HEADER),
        (b"From: alice@example.com\r\n" + b"To: x\r\n" * 99 + b"\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.TOO_MANY_FIELDS),
        (b"From: alice@example.com\r\n" + b"X:\r\n" * (MAX_FIELDS + 1) + b"\r\n", ALICE, Origin.SUBMISSION, NotSignedReason.MALFORMED_FROM),
    ],
)  # fmt: skip
def test_every_reason_not_to_sign(raw: bytes, who: Session, origin: Origin, reason: NotSignedReason) -> None:
    refused = asked(raw, who, origin)
    assert isinstance(refused, NotSigned)
    assert refused.reason is reason
    assert refused.line
    assert (refused.line + refused.detail).isprintable()


def test_a_chosen_daemon_name_is_signed_wherever_it_comes_from() -> None:
    who = session("alice@example.com", daemon="FILTERED")
    assert isinstance(asked(b"From: alice@example.com\r\n\r\n", who, Origin.TRUSTED_HOP), SigningPlan)
    other = session("alice@example.com", daemon="OTHER")
    assert isinstance(asked(b"From: alice@example.com\r\n\r\n", other, Origin.TRUSTED_HOP), NotSigned)


def test_the_first_table_that_knows_the_author_decides() -> None:
    second = table("example.com s9 e.pem\nother.example s9 e.pem\n")
    both = SigningSettings(tables=(TABLE, second))
    for author, selector in ((b"a@example.com", "r1"), (b"a@other.example", "s9")):
        planned = asked(b"From: " + author + b"\r\n\r\n", settings=both)
        assert isinstance(planned, SigningPlan)
        assert planned.entries[0].selector == selector


def test_what_happens_to_an_unsafe_body() -> None:
    planned = asked(b"From: alice@example.com\r\n\r\n")
    for chosen, action in (
        (OnUnsafeBody.SIGN_AND_WARN, Action.SIGN),
        (OnUnsafeBody.TEMPFAIL, Action.TEMPFAIL),
        (OnUnsafeBody.PASS_UNSIGNED, Action.PASS_UNSIGNED),
    ):
        settings = SigningSettings(tables=(TABLE,), on_unsafe_body=chosen)
        settled = settle(planned, BodyFacts(long_line=True), settings)
        assert settled.action is action
        assert {r.value for r in settled.risks} == {"long_line", "no_date", "no_message_id"}
        assert settle(planned, BodyFacts(), settings).action is Action.SIGN


def test_what_happens_where_a_signature_cannot_be_made() -> None:
    error = NotSigned(NotSignedReason.MALFORMED_HEADER, "x")
    other = NotSigned(NotSignedReason.NO_KEY, "x")
    for chosen, action in (
        (OnSigningError.TEMPFAIL, Action.TEMPFAIL),
        (OnSigningError.PASS_UNSIGNED, Action.PASS_UNSIGNED),
    ):
        settings = SigningSettings(tables=(TABLE,), on_error=chosen)
        assert settle(error, BodyFacts(), settings).action is action
        assert settle(other, BodyFacts(), settings).action is Action.PASS_UNSIGNED


def test_a_whole_message_signed_as_the_settings_say_verifies() -> None:
    raw = b"From: alice@example.com\r\nSubject: x\r\n\r\nbody\r\n"
    values, settled = sign_message(raw, SETTINGS, session=ALICE, origin=Origin.SUBMISSION, now=SIGNED_AT)
    assert isinstance(values, tuple)
    assert settled.action is Action.SIGN
    zone = zone_of(e for _, e in TABLE.listed)
    assert [r.problem for r in judge(with_signatures(raw, values), zone)] == [None, None]
    refused, _ = sign_message(raw, SETTINGS, session=ALICE, origin=Origin.INTERNET, now=SIGNED_AT)
    assert isinstance(refused, NotSigned)
    long = raw + b"x" * 1000 + b"\r\n"
    careful = SigningSettings(tables=(TABLE,), on_unsafe_body=OnUnsafeBody.TEMPFAIL)
    assert sign_message(long, careful, session=ALICE, origin=Origin.SUBMISSION, now=SIGNED_AT)[0] == ()


noise = st.lists(
    st.sampled_from(
        [b"From: alice@example.com", b"From", b":", b" ", b"\t", b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"To: b", b"x",
         b"alice@example.com", b",", b"<", b">", b"\r\n\r\n", b"Subject: s", b"fRoM: bob@example.com"]
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(noise, st.booleans())
def test_any_octets_are_signed_so_that_they_verify_or_not_at_all(tail: bytes, first: bool) -> None:  # noqa: FBT001 - drawn
    raw = (b"From: alice@example.com\r\n" if first else b"") + tail
    values, settled = sign_message(raw, SETTINGS, session=ALICE, origin=Origin.SUBMISSION, now=SIGNED_AT)
    if isinstance(values, NotSigned):
        assert values.reason in NotSignedReason
        return
    assert settled.action is Action.SIGN
    assert Message.parse(raw)[0].authors.addresses == (Address.parse("alice@example.com"),)
    zone = zone_of(e for _, e in TABLE.listed)
    assert [r.problem for r in judge(with_signatures(raw, values), zone)] == [None, None]
