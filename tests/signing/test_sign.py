"""Signatures: the published vectors, the verifier and dkimpy as judges, what oversigning holds, what is refused."""

from __future__ import annotations

import base64
import itertools
import re
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dkim.canonical import BodyHasher, Canonicalization
from authmilter.dkim.crypto import KeyKind, load_signing_key
from authmilter.dkim.result import DkimProblem, DkimStatus
from authmilter.dkim.sign import (
    CURES,
    NEVER_SIGNED,
    Risk,
    SignatureSettings,
    SigningEntry,
    SigningPlan,
    Unsignable,
    UnsignableReason,
    body_needs,
    body_risks,
    finish,
    plan,
)
from authmilter.errors import InvalidName
from authmilter.message import MAX_FIELDS, Message
from authmilter.names import Domain
from tests.support.dkim_keys import MESSAGE, dkimpy_verifies, judge, naive_header, split
from tests.support.signing import (
    SIGNED_AT,
    an_entry,
    both,
    sign_values,
    signing_key,
    with_signatures,
    zone_of,
)

ENTRIES = both()
ZONE = zone_of(ENTRIES)
SETTINGS = SignatureSettings()


def passes(raw: bytes, zone: dict[str, object] = ZONE) -> list[DkimProblem | None]:
    """Return what the verifier has against each signature, judged an hour after signing."""
    return [r.problem for r in judge(raw, zone, now=SIGNED_AT + timedelta(hours=1))]


# ----- the published vectors ------------------------------------------------------------------------------------

# RFC 8463 appendix A.1
RFC_8463_ED25519 = b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
RFC_8463_RSA = b"""-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
"""
# appendix A.3: the two fields without the value of b=, and the b= that each must get
RFC_8463_SIGNED = (
    (
        RFC_8463_ED25519,
        (
            b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
            b" d=football.example.com; i=@football.example.com;\r\n"
            b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
            b" subject : date : message-id : from : subject : date;\r\n"
            b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b="
        ),
        "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==",
    ),
    (
        RFC_8463_RSA,
        (
            b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"
            b" d=football.example.com; i=@football.example.com;\r\n"
            b" q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"
            b" date : message-id : from : subject : date;\r\n"
            b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b="
        ),
        (
            "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3"
            "DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz"
            "dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8="
        ),
    ),
)
RFC_8463_MESSAGE = (
    b"From: Joe SixPack <joe@football.example.com>\r\n"
    b"To: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
    b"\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n\r\n"
)


@pytest.mark.parametrize(("secret", "field", "expected"), RFC_8463_SIGNED)
def test_the_signatures_of_rfc_8463_are_made_again_octet_for_octet(
    secret: bytes, field: bytes, expected: str
) -> None:
    headers, _ = split(RFC_8463_MESSAGE)
    data = b"".join(naive_header(h, "relaxed") + b"\r\n" for h in headers) + naive_header(field, "relaxed")
    assert base64.b64encode(load_signing_key(secret).sign(data)).decode() == expected


def test_the_keys_of_rfc_8463_sign_its_message_and_both_judges_say_yes() -> None:
    domain = Domain.parse("football.example.com")
    entries = (
        SigningEntry(domain=domain, selector="brisbane", key=load_signing_key(RFC_8463_ED25519)),
        SigningEntry(domain=domain, selector="test", key=load_signing_key(RFC_8463_RSA)),
    )
    assert entries[0].key.record == "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    signed = with_signatures(RFC_8463_MESSAGE, sign_values(RFC_8463_MESSAGE, entries))
    # the body hash that the RFC prints
    assert signed.count(b"bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;") == 2
    assert passes(signed, zone_of(entries)) == [None, None]
    assert [dkimpy_verifies(signed, zone_of(entries), i) for i in (0, 1)] == [True, True]


# ----- any message, any chunking --------------------------------------------------------------------------------

words = st.text(alphabet="abc é,;:=<>()\"'\t", max_size=14)
values = st.lists(words, min_size=1, max_size=5).map(lambda ws: "\r\n ".join([" x", *(w + "." for w in ws)]))
optional = st.lists(
    st.tuples(
        st.sampled_from(
            ["Cc", "to", "SUBJECT", "Date", "Message-Id", "X-a", "Received", "Reply-To", "MIME-Version",
             "Content-Type", "Sender", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "DKIM-Signature"]
        ),
        values,
    ),
    max_size=9,
)  # fmt: skip
lines = st.one_of(
    st.text(alphabet="ab .\té", max_size=12).map(lambda t: t.encode()),
    st.integers(0, 1200).map(lambda n: b"x" * n),
)
froms = st.sampled_from(
    [" Alice <alice@example.com>", "alice@example.com", '\r\n "A, B"\r\n <alice@example.com> (c)\t']
)


@st.composite
def mails(draw: st.DrawFn) -> bytes:
    fields = draw(st.permutations([("From", draw(froms)), *draw(optional)]))
    block = "".join(f"{name}:{value}\r\n" for name, value in fields)
    body = b"".join(line + b"\r\n" for line in draw(st.lists(lines, max_size=8)))
    return (
        block.encode() + b"\r\n" + body + draw(st.sampled_from([b"", b"no line end", b" \r\n", b"\r\n\r\n"]))
    )


@settings(max_examples=150, deadline=None)
@given(
    mails(),
    st.lists(st.integers(0, 20_000), max_size=6),
    st.sampled_from(list(Canonicalization)),
    st.sampled_from(list(Canonicalization)),
    # (dkimpy asks the machine's clock about x=: a signature of this test must not expire)
    st.sampled_from([None, 100 * 366 * 86400]),
)
def test_any_message_in_any_pieces_verifies_here_and_in_dkimpy(
    raw: bytes, cuts: list[int], header: Canonicalization, body: Canonicalization, expire: int | None
) -> None:
    chosen = SignatureSettings(header_form=header, body_form=body, expire=expire)
    signed = with_signatures(raw, sign_values(raw, ENTRIES, chosen, cuts=cuts))
    results = judge(signed, ZONE, now=SIGNED_AT + timedelta(hours=1))
    # the message may bring DKIM-Signature fields of its own, which nobody can read
    assert [r.problem for r in results[:2]] == [None, None], [r.detail for r in results]
    assert [r.status for r in results[:2]] == [DkimStatus.PASS] * 2
    assert results[0].unsigned_critical in {(), ("sender",)}
    assert results[0].body_length is None
    assert [dkimpy_verifies(signed, ZONE, i) for i in (0, 1)] == [True, True]


@settings(max_examples=150, deadline=None)
@given(mails())
def test_what_is_written_is_folded_and_says_what_it_should(raw: bytes) -> None:
    for value, entry in zip(sign_values(raw, ENTRIES), ENTRIES, strict=True):
        first, *rest = value.split(b"\r\n")
        assert len(b"DKIM-Signature: " + first) < 78
        assert all(len(line) < 78 and line.startswith(b" ") and line == line.rstrip() for line in rest)
        assert value.isascii()
        tags = [t.partition(b"=")[0].strip().decode() for t in value.split(b";")]
        assert tags == ["v", "a", "c", "d", "s", "t", "h", "bh", "b"]
        assert f"a={entry.key.kind}-sha256;".encode() in value
        names = re.sub(rb"[\r\n ]", b"", value).partition(b"h=")[2].partition(b";")[0].decode().split(":")
        assert not set(names) & {*NEVER_SIGNED, "sender", "list-id"}
        assert {"from", "to", "cc", "subject", "reply-to", "content-type"} <= set(names)


def test_long_names_are_written_whole_and_the_rest_is_folded() -> None:
    domain = ".".join(["a" * 60] * 3 + ["example.com"])
    entry = an_entry(KeyKind.ED25519, domain=domain, selector="s" * 30 + ".b")
    (value,) = sign_values(MESSAGE, (entry,), SignatureSettings(expire=7200))
    assert max(len(line) for line in value.split(b"\r\n ")) == len(f"d={domain};")
    assert passes(with_signatures(MESSAGE, (value,)), zone_of((entry,))) == [None]


def test_times_and_expiry() -> None:
    (value,) = sign_values(MESSAGE, ENTRIES[1:], SignatureSettings(expire=3600))
    seconds = int(SIGNED_AT.timestamp())
    assert f"t={seconds}; x={seconds + 3600};".encode() in value
    signed = with_signatures(MESSAGE, (value,))
    assert passes(signed) == [None]
    late = judge(signed, ZONE, now=SIGNED_AT + timedelta(hours=2))
    assert [r.problem for r in late] == [DkimProblem.EXPIRED]


# ----- what is covered ------------------------------------------------------------------------------------------

FULL = (
    b"From: a@example.com\r\nTo: b@example.net\r\nSubject: s\r\nDate: d\r\nMessage-ID: <1@example.com>\r\n"
    b"Content-Disposition: inline\r\n\r\nbody\r\n"
)


@pytest.mark.parametrize(
    "name", [*SETTINGS.oversign, "Date", "Message-ID", "Content-Disposition", "cc", "FROM", "reply-to"]
)
@pytest.mark.parametrize("where", ["top", "bottom"])
def test_an_added_field_breaks_every_signature(name: str, where: str) -> None:
    signed = with_signatures(FULL, sign_values(FULL, ENTRIES))
    assert passes(signed) == [None, None]
    added = f"{name}: forged@example.net\r\n".encode()
    changed = added + signed if where == "top" else signed.replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n", 1)
    assert passes(changed) == [DkimProblem.SIGNATURE] * 2


def test_every_instance_of_a_repeated_field_is_covered() -> None:
    raw = b"To: a@example.net\r\nTo: b@example.net\r\n" + FULL
    signed = with_signatures(raw, sign_values(raw, ENTRIES))
    assert passes(signed) == [None, None]
    for address in (b"a@example.net", b"b@example.net\r\nFrom", b"b@example.net\r\nSubject"):
        assert address in signed
        assert passes(signed.replace(address, b"c" + address, 1)) == [DkimProblem.SIGNATURE] * 2


def test_what_others_write_may_change() -> None:
    raw = b"Received: one\r\nSender: s@example.com\r\nList-Id: <l.example.com>\r\nX-Own: 1\r\n" + FULL
    signed = with_signatures(raw, sign_values(raw, ENTRIES))
    changed = signed.replace(b"s@example.com", b"l@lists.example.net").replace(b"<l.", b"<m.")
    changed = b"Received: two\r\nAuthentication-Results: x; none\r\nReturn-Path: <>\r\n" + changed
    changed = changed.replace(b"X-Own: 1", b"X-Own: 2")
    assert passes(changed) == [None, None]


def test_a_missing_date_or_message_id_may_be_added_later_and_is_told() -> None:
    raw = b"From: a@example.com\r\n\r\nbody\r\n"
    message, _ = Message.parse(raw)
    planned = plan(message, ENTRIES, SETTINGS)
    assert isinstance(planned, SigningPlan)
    assert planned.risks == {Risk.NO_DATE, Risk.NO_MESSAGE_ID}
    signed = with_signatures(raw, sign_values(raw, ENTRIES))
    assert passes(b"Date: d\r\nMessage-ID: <m@x>\r\n" + signed) == [None, None]


def test_one_click_unsubscription_is_covered_where_it_is_offered() -> None:
    post = (
        b"List-Unsubscribe: <https://example.com/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    )
    for raw, covered in (
        (post + FULL, True),
        (b"List-Unsubscribe: <mailto:u@example.com>\r\n" + FULL, False),
    ):
        message, _ = Message.parse(raw)
        planned = plan(message, ENTRIES, SETTINGS)
        assert isinstance(planned, SigningPlan)
        assert ("list-unsubscribe" in planned.names) == covered
        off = plan(message, ENTRIES, SignatureSettings(one_click=False))
        assert isinstance(off, SigningPlan)
        assert "list-unsubscribe" not in off.names


def test_chosen_names_are_signed_as_often_as_they_stand() -> None:
    chosen = SignatureSettings(oversign=("From",), oversign_present=("Date",), sign=("X-A", "Date", "X-B"))
    message, _ = Message.parse(b"X-A: 1\r\nX-A: 2\r\n" + FULL)
    planned = plan(message, ENTRIES, chosen, because="line 7")
    assert isinstance(planned, SigningPlan)
    assert planned.names == ("from", "from", "date", "date", "x-a", "x-a")
    assert planned.because == "line 7"


# ----- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"To: a@example.com\r\n\r\n", UnsignableReason.NO_FROM),
        (b"\r\n", UnsignableReason.NO_FROM),
        (b"Cc: a@example.com\r\n" * 90 + FULL, UnsignableReason.TOO_MANY_FIELDS),
        (b"X: y\r\n" * (MAX_FIELDS + 1) + FULL, UnsignableReason.MALFORMED_HEADER),
        (b"no field\r\n" + FULL, UnsignableReason.MALFORMED_HEADER),
        (b" leading\r\n" + FULL, UnsignableReason.MALFORMED_HEADER),
        (b"Cc : a@example.com\r\n" + FULL, UnsignableReason.MALFORMED_HEADER),
        (b"Cc: a\rFrom: b@example.com\r\n" + FULL, UnsignableReason.MALFORMED_HEADER),
        (b"Cc: a\0\r\n" + FULL, UnsignableReason.MALFORMED_HEADER),
        (b"Cc: a\n b\r\n" + FULL, UnsignableReason.MALFORMED_HEADER),
    ],
)
def test_a_header_block_that_readers_read_differently_is_not_signed(
    raw: bytes, reason: UnsignableReason
) -> None:
    # (where the fields are too many, a From stands above them)
    message, _ = Message.parse(b"From: z@example.com\r\n" + raw if raw.startswith(b"X: y") else raw)
    refused = plan(message, ENTRIES, SETTINGS)
    assert isinstance(refused, Unsignable)
    assert refused.reason is reason
    assert refused.detail.isascii()


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in (
        {"oversign": ("To",)},
        {"oversign": ("From", "Received")},
        {"sign": ("ARC-Seal",)},
        {"sign": ("DKIM-Signature",)},
        {"sign": ("X A",)},
        {"sign": ("",)},
        {"sign": ("A;b",)},
        {"oversign_present": ("Return-Path",)},
    ):
        with pytest.raises(ValueError, match=r"never signed|no field name|must be among"):
            SignatureSettings(**wrong)
    with pytest.raises(ValueError, match="positive"):
        SignatureSettings(expire=0)


@pytest.mark.parametrize("selector", ["", "S1", "a..b", "a b", "x" * 64, "a.", "ü", ".".join(["a" * 63] * 4)])
def test_a_selector_that_is_none_is_refused(selector: str) -> None:
    with pytest.raises(InvalidName):
        SigningEntry(domain=Domain.parse("example.com"), selector=selector, key=signing_key())


def test_no_signature_is_made_over_another_bodys_hash() -> None:
    message, _ = Message.parse(FULL)
    planned = plan(message, ENTRIES, SETTINGS)
    assert isinstance(planned, SigningPlan)
    with pytest.raises(ValueError, match="digests"):
        finish(planned, BodyHasher(frozenset()).finish(), SIGNED_AT)


# ----- bodies that a later hop may change -----------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(990, 1010), st.integers(0, 30), st.just(3000)).map(lambda n: b"x" * n)
        | st.sampled_from([b"\xc3\xa9", b"a\rb", b"a\nb", b"\r", b"\n"]),
        max_size=8,
    ),
    st.lists(st.integers(0, 20_000), max_size=8),
    st.booleans(),
)
def test_unsafe_bodies_are_seen_however_they_arrive(
    parts: list[bytes],
    cuts: list[int],
    ended: bool,  # noqa: FBT001 - drawn
) -> None:
    body = b"\r\n".join(parts) + (b"\r\n" if ended else b"")
    hasher = BodyHasher(frozenset(), watch=True)
    places = [0, *sorted(c % (len(body) + 1) for c in cuts), len(body)]
    for begin, end in itertools.pairwise(places):
        hasher.update(body[begin:end])
    facts = hasher.facts()
    longest = max(len(line.removesuffix(b"\r")) for line in body.split(b"\n"))
    if not (facts.bare_lf or facts.bare_cr):
        assert facts.long_line == (longest > 998)
    assert facts.eight_bit == (not body.isascii())
    assert (Risk.EIGHT_BIT in body_risks(facts)) == facts.eight_bit


@pytest.mark.parametrize(("length", "long"), [(997, False), (998, False), (999, True), (5000, True)])
@pytest.mark.parametrize("chunk", [1, 7, 998, 1000, 10_000])
def test_the_longest_line_that_is_safe_has_998_octets(length: int, long: bool, chunk: int) -> None:  # noqa: FBT001 - a parameter
    body = b"a\r\n" + b"x" * length + b"\r\nb\r\n"
    hasher = BodyHasher(frozenset(), watch=True)
    for i in range(0, len(body), chunk):
        hasher.update(body[i : i + chunk])
    assert hasher.facts().long_line == long
    quiet = BodyHasher(frozenset())
    quiet.update(body + b"\xff")
    assert not quiet.facts().long_line
    assert not quiet.facts().eight_bit


def test_every_risk_has_its_cure() -> None:
    assert set(CURES) == set(Risk)
    assert {r for r in Risk if r.of_body} == {Risk.LONG_LINE, Risk.EIGHT_BIT, Risk.BARE_CR, Risk.BARE_LF}


def test_a_long_line_in_a_signed_field_is_told() -> None:
    message, _ = Message.parse(b"Cc: " + b"a@example.net, " * 100 + b"b@example.net\r\n" + FULL)
    planned = plan(message, ENTRIES, SETTINGS)
    assert isinstance(planned, SigningPlan)
    assert planned.risks == {Risk.LONG_HEADER_LINE}


def test_one_body_hash_serves_all_signatures() -> None:
    message, _ = Message.parse(FULL)
    planned = plan(message, ENTRIES, SETTINGS)
    assert isinstance(planned, SigningPlan)
    assert len(body_needs(planned)) == 1
