"""Reading DKIM-Signature fields: what the text alone decides."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dkim.canonical import BodyNeed, Canonicalization
from authmilter.dkim.result import DkimProblem
from authmilter.dkim.signature import DkimLimits, Signature, read
from authmilter.dkim.taglist import TagListError, parse_tag_list
from authmilter.dns.answer import Question, RdType
from authmilter.message import Message
from authmilter.octets.chosen import base64_octets, unsigned_value

TAGS = {
    "v": "1",
    "a": "rsa-sha256",
    "c": "relaxed/simple",
    "d": "example.com",
    "s": "s1",
    "h": "From : to:\r\n\tDate",
    "bh": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=",
    "b": "dzdVyOfAKCdL\r\n XdJOc9G2q8LoXSlEniSbav+yuU4zGeeruD00lszZVoG4ZHRNiYzR",
}


def text_of(**changes: str | None) -> bytes:
    tags = {**TAGS, **changes}
    return (" " + "; ".join(f"{n}={v}" for n, v in tags.items() if v is not None)).encode()


def read_all(
    *values: bytes, author: str = "example.com", limits: DkimLimits | None = None
) -> tuple[Signature, ...]:
    fields = [(b"DKIM-Signature", value) for value in values]
    message = Message.of_fields([*fields, (b"From", f" a@{author}".encode())])
    return read(message, limits or DkimLimits())


def read_one(value: bytes, limits: DkimLimits | None = None) -> Signature:
    (signature,) = read_all(value, limits=limits)
    return signature


def test_a_good_signature_is_read_whole() -> None:
    signature = read_one(
        text_of(i="joe=20x@news.example.com", l="12", t="100", x="200", q="x/y : dns/txt", zz="?")
    )
    assert signature.problem is None, signature.detail
    assert signature.domain is not None
    assert signature.identity_domain is not None
    assert signature.domain.ascii == "example.com"
    assert signature.selector == "s1"
    assert signature.identity == "joe=20x@news.example.com"
    assert signature.identity_domain.ascii == "news.example.com"
    assert (signature.algorithm, signature.key_kind) == ("rsa-sha256", "rsa")
    assert (signature.header_form, signature.body_form) == (Canonicalization.RELAXED, Canonicalization.SIMPLE)
    assert signature.names == ("from", "to", "date")
    assert (signature.body_length, signature.timestamp, signature.expires) == (12, 100, 200)
    assert signature.body_hash == b"12345678901234567890123456789012"
    assert len(signature.signature) == 48
    assert signature.signature_start == "dzdVyOfA"
    assert signature.question == Question.of("s1._domainkey.example.com", RdType.TXT)
    assert signature.need == BodyNeed(Canonicalization.SIMPLE, "sha256", 12)


def test_the_defaults_are_those_of_the_standard() -> None:
    signature = read_one(text_of(c=None))
    assert signature.problem is None
    assert (signature.header_form, signature.body_form) == (Canonicalization.SIMPLE, Canonicalization.SIMPLE)
    assert signature.identity == "@example.com"
    assert signature.identity_domain == signature.domain
    assert (signature.body_length, signature.timestamp, signature.expires) == (None, None, None)


def test_one_canonicalization_leaves_the_body_simple() -> None:
    signature = read_one(text_of(c="relaxed"))
    assert (signature.header_form, signature.body_form) == (Canonicalization.RELAXED, Canonicalization.SIMPLE)


def test_a_semicolon_may_end_the_list() -> None:
    assert read_one(text_of() + b"; ").problem is None
    assert read_one(text_of() + b";\r\n ").problem is None


@pytest.mark.parametrize("name", ["v", "a", "b", "bh", "d", "h", "s"])
def test_each_required_tag_is_required(name: str) -> None:
    signature = read_one(text_of(**{name: None}))
    assert signature.problem is DkimProblem.MISSING_TAG
    assert f"{name}=" in signature.detail
    assert signature.question is None
    assert signature.need is None


def test_tag_names_are_case_sensitive() -> None:
    assert read_one(text_of(d=None, D="example.com")).problem is DkimProblem.MISSING_TAG


BAD = [
    ({"v": "2"}, DkimProblem.VERSION),
    ({"v": "1.0"}, DkimProblem.VERSION),
    ({"v": ""}, DkimProblem.VERSION),
    ({"a": "rsa"}, DkimProblem.SYNTAX),
    ({"a": ""}, DkimProblem.SYNTAX),
    ({"a": "rsa-sha1"}, DkimProblem.SHA1),
    ({"a": "rsa-sha512"}, DkimProblem.ALGORITHM),
    ({"a": "RSA-SHA256"}, DkimProblem.ALGORITHM),
    ({"a": "ed25519-sha1"}, DkimProblem.ALGORITHM),
    ({"b": ""}, DkimProblem.SYNTAX),
    ({"b": "abc"}, DkimProblem.SYNTAX),
    ({"b": "ab=c"}, DkimProblem.SYNTAX),
    ({"b": "ab!d"}, DkimProblem.SYNTAX),
    ({"b": "===="}, DkimProblem.SYNTAX),
    ({"bh": ""}, DkimProblem.SYNTAX),
    ({"bh": "*"}, DkimProblem.SYNTAX),
    ({"c": "relaxed/"}, DkimProblem.CANONICALIZATION),
    ({"c": ""}, DkimProblem.CANONICALIZATION),
    ({"c": "nowsp"}, DkimProblem.CANONICALIZATION),
    ({"c": "relaxed/simple/simple"}, DkimProblem.CANONICALIZATION),
    ({"c": "Relaxed/Relaxed"}, DkimProblem.CANONICALIZATION),
    ({"d": ""}, DkimProblem.BAD_DOMAIN),
    ({"d": "example..com"}, DkimProblem.BAD_DOMAIN),
    ({"d": "example.com."}, DkimProblem.BAD_DOMAIN),
    ({"d": "-.example.com"}, DkimProblem.BAD_DOMAIN),
    ({"d": "exam ple.com"}, DkimProblem.BAD_DOMAIN),
    ({"d": "192.0.2.1"}, DkimProblem.BAD_DOMAIN),
    ({"d": "a" * 64 + ".com"}, DkimProblem.BAD_DOMAIN),
    ({"s": ""}, DkimProblem.BAD_DOMAIN),
    ({"s": "a..b"}, DkimProblem.BAD_DOMAIN),
    ({"s": "a b"}, DkimProblem.BAD_DOMAIN),
    ({"s": "*"}, DkimProblem.BAD_DOMAIN),
    ({"s": ".".join(["a" * 60] * 4)}, DkimProblem.BAD_DOMAIN),
    ({"s": "x" * 64}, DkimProblem.BAD_DOMAIN),
    ({"h": ""}, DkimProblem.SYNTAX),
    ({"h": "from:"}, DkimProblem.SYNTAX),
    ({"h": "from::to"}, DkimProblem.SYNTAX),
    ({"h": "from:a b"}, DkimProblem.SYNTAX),
    ({"h": "from:\u212aeywords"}, DkimProblem.SYNTAX),
    ({"h": "to:subject"}, DkimProblem.FROM_NOT_SIGNED),
    ({"i": ""}, DkimProblem.SYNTAX),
    ({"i": "example.com"}, DkimProblem.SYNTAX),
    ({"i": "a=0Ab@example.com"}, DkimProblem.SYNTAX),
    ({"i": "a=FFb@example.com"}, DkimProblem.SYNTAX),
    ({"i": "@"}, DkimProblem.IDENTITY_MISMATCH),
    ({"i": "@com"}, DkimProblem.IDENTITY_MISMATCH),
    ({"i": "@notexample.com"}, DkimProblem.IDENTITY_MISMATCH),
    ({"i": "a@example.com@example.net"}, DkimProblem.IDENTITY_MISMATCH),
    ({"i": "@a..example.com"}, DkimProblem.IDENTITY_MISMATCH),
    ({"l": ""}, DkimProblem.SYNTAX),
    ({"l": "-1"}, DkimProblem.SYNTAX),
    ({"l": "+1"}, DkimProblem.SYNTAX),
    ({"l": "1_0"}, DkimProblem.SYNTAX),
    ({"l": "\u0661"}, DkimProblem.SYNTAX),
    ({"l": "1" * 77}, DkimProblem.SYNTAX),
    ({"q": "dns"}, DkimProblem.QUERY_METHOD),
    ({"q": ""}, DkimProblem.QUERY_METHOD),
    ({"t": "now"}, DkimProblem.SYNTAX),
    ({"t": "1" * 13}, DkimProblem.SYNTAX),
    ({"x": ""}, DkimProblem.SYNTAX),
    ({"t": "200", "x": "200"}, DkimProblem.TIMES),
    ({"t": "200", "x": "100"}, DkimProblem.TIMES),
    ({"d": "exam\0ple.com"}, DkimProblem.BAD_DOMAIN),
    ({"s": "s1\x7f"}, DkimProblem.BAD_DOMAIN),
    ({"n": "\x01"}, DkimProblem.SYNTAX),
    ({"n": "a\rb"}, DkimProblem.SYNTAX),
    ({"n": "a\nb"}, DkimProblem.SYNTAX),
    ({"n": "a\x85b"}, DkimProblem.SYNTAX),
]


@pytest.mark.parametrize(("changes", "problem"), BAD, ids=repr)
def test_a_malformed_value_is_refused(changes: dict[str, str], problem: DkimProblem) -> None:
    signature = read_one(text_of(**changes))
    assert signature.problem is problem
    assert signature.detail
    assert signature.question is None
    assert signature.need is None


GOOD = [
    {"d": "EXAMPLE.com"},
    {"d": "a_b.example.com"},
    {"s": "20260101"},
    {"s": "S1.mail._x"},
    {"i": "@sub.EXAMPLE.com"},
    {"i": "bounce+x=y@example.com"},
    {"i": '"a b"@example.com'},
    {"l": "1" * 76},
    {"l": "0"},
    {"x": "999999999999"},
    {"z": "From:a=20b|To:c"},
    {"r": "y"},
    {"b": "A A A A"},
    {"bh": "AA=="},
    {"h": "from:dkim-signature:x-!#$"},
]


@pytest.mark.parametrize("changes", GOOD, ids=repr)
def test_an_unusual_but_right_value_is_read(changes: dict[str, str]) -> None:
    signature = read_one(text_of(**changes))
    assert signature.problem is None, signature.detail
    assert signature.question is not None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b";",
        b"v=1;;a=rsa-sha256",
        b";v=1",
        b"v",
        b"=1",
        b"1v=1",
        b"v-x=1",
        b"v=1; v=1",
        b"v=1; a=rsa-sha256; v=2",
    ],
)
def test_what_is_no_tag_list_is_a_syntax_problem(value: bytes) -> None:
    assert read_one(value).problem is DkimProblem.SYNTAX


def test_a_duplicate_tag_makes_the_whole_list_invalid() -> None:
    signature = read_one(text_of() + b"; d=example.net")
    assert signature.problem is DkimProblem.SYNTAX
    with pytest.raises(TagListError):
        parse_tag_list(b"a=1; b=2; a=1")


def test_an_unreadable_signature_still_names_its_domain_for_the_report() -> None:
    signature = read_one(text_of(bh=None))
    assert signature.domain is not None
    assert (signature.domain.ascii, signature.selector) == ("example.com", "s1")


@pytest.mark.parametrize(
    ("value", "emptied"),
    [
        (b" v=1; b=abc; d=x", b" v=1; b=; d=x"),
        (b" v=1; b =\r\n a b\r\n c ; d=x", b" v=1; b =; d=x"),
        (b" bh=abc=; b=abc=", b" bh=abc=; b="),
        (b"b=abc;", b"b=;"),
        (b" v=1;\r\n\tb=ab\r\n", b" v=1;\r\n\tb="),
        (b" bb=1; sb=2;b=3", b" bb=1; sb=2;b="),
    ],
)
def test_the_value_of_b_is_taken_out_with_the_white_space_around_it(value: bytes, emptied: bytes) -> None:
    assert unsigned_value(value) == emptied


# ----- internationalized messages, RFC 8616 ---------------------------------------------------------------------


def test_u_labels_become_a_labels_for_the_question() -> None:
    signature = read_one(
        text_of(d="b\u00fccher.example", s="gr\u00fcn", i="j\u00f6rg@post.b\u00fccher.example")
    )
    assert signature.problem is None, signature.detail
    assert signature.question == Question.of("xn--grn-ioa._domainkey.xn--bcher-kva.example", RdType.TXT)
    assert signature.domain is not None
    assert signature.domain.ascii == "xn--bcher-kva.example"
    assert signature.identity == "j\u00f6rg@post.b\u00fccher.example"
    assert signature.identity_domain is not None
    assert signature.identity_domain.ascii == "post.xn--bcher-kva.example"


def test_an_a_label_and_its_u_label_are_one_domain() -> None:
    assert read_one(text_of(d="b\u00fccher.example", i="@xn--bcher-kva.example")).problem is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"d": "b\u00fccher.example"}, DkimProblem.BAD_DOMAIN),
        ({"s": "gr\u00fcn"}, DkimProblem.BAD_DOMAIN),
        ({"i": "j\u00f6rg@example.com"}, DkimProblem.SYNTAX),
        ({"i": "@b\u00fc.example.com"}, DkimProblem.SYNTAX),
    ],
)
def test_u_labels_are_refused_where_the_door_says_ascii(
    changes: dict[str, str], problem: DkimProblem
) -> None:
    message = Message.of_fields([(b"DKIM-Signature", text_of(**changes)), (b"From", b" a@example.com")])
    (signature,) = read(message, DkimLimits(), eai=False)
    assert signature.problem is problem


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"d=example.com", b"d=b\xfccher.example", DkimProblem.BAD_DOMAIN),  # Latin-1 is not UTF-8
        (b"s=s1", b"s=\xff", DkimProblem.BAD_DOMAIN),
        (b"s=s1", "s=s\u200b1".encode(), DkimProblem.BAD_DOMAIN),  # IDNA 2008 has no zero-width space
        (b"v=1", b"v=1; n=\xff", DkimProblem.SYNTAX),
        (b"v=1", "v=1; i=a\u200bb@example.com".encode(), DkimProblem.SYNTAX),
    ],
)
def test_octets_that_are_no_text_are_refused(old: bytes, new: bytes, problem: DkimProblem) -> None:
    assert read_one(text_of().replace(old, new, 1)).problem is problem


# ----- limits ---------------------------------------------------------------------------------------------------


def test_a_long_field_is_not_read() -> None:
    assert read_one(text_of(z="x" * 9000)).problem is DkimProblem.LIMIT
    assert read_one(text_of(z="x" * 7000)).problem is None


def test_a_field_of_many_folds_is_not_read() -> None:
    assert read_one(text_of(z="\r\n x" * 65)).problem is DkimProblem.LIMIT
    assert read_one(text_of(z="\r\n x" * 60)).problem is None


def test_an_h_of_many_names_is_not_read() -> None:
    assert read_one(text_of(h=":".join(["from"] * 101))).problem is DkimProblem.LIMIT
    assert read_one(text_of(h=":".join(["from"] * 100))).problem is None


def test_over_the_limit_the_topmost_signatures_are_read() -> None:
    signatures = read_all(*(text_of(d=f"d{n}.example.net") for n in range(15)))
    assert [s.problem for s in signatures] == [None] * 10 + [DkimProblem.LIMIT] * 5
    assert [s.position for s in signatures] == list(range(15))


def test_over_the_limit_the_authors_domain_comes_first_then_its_relatives() -> None:
    others = [text_of(d=f"d{n}.example.net") for n in range(10)]
    signatures = read_all(
        *others,
        text_of(d="mail.shop.example"),
        text_of(d="SHOP.example"),
        text_of(d="example"),
        text_of(d="notshop.example"),
        author="shop.example",
        limits=DkimLimits(signatures=4),
    )
    checked = [s.domain.ascii for s in signatures if s.problem is None and s.domain]
    assert checked == ["d0.example.net", "mail.shop.example", "shop.example", "example"]
    (first,) = (
        s
        for s in read_all(
            *others, text_of(d="SHOP.example"), author="shop.example", limits=DkimLimits(signatures=1)
        )
        if s.problem is None
    )
    assert first.position == 10


def test_over_the_limit_what_cannot_be_looked_at_comes_last() -> None:
    huge, unreadable, readable = text_of(z="x" * 9000), b"nonsense", text_of(d="d.example.net")
    signatures = read_all(huge, unreadable, readable, limits=DkimLimits(signatures=2))
    assert [s.problem for s in signatures] == [DkimProblem.LIMIT, DkimProblem.SYNTAX, None]
    signatures = read_all(huge, text_of(d="."), readable, text_of(), limits=DkimLimits(signatures=1))
    assert [s.problem for s in signatures] == [DkimProblem.LIMIT] * 3 + [None]


def test_thousands_of_signatures_are_not_all_listed() -> None:
    signatures = read_all(*[text_of()] * 900)
    assert len(signatures) == 100
    assert sum(s.problem is None for s in signatures) == 10
    assert all("900" in s.detail for s in signatures if s.problem is not None)


def test_one_body_is_hashed_in_a_few_ways_only() -> None:
    signatures = read_all(*(text_of(l=str(n)) for n in range(10)))
    assert [s.problem for s in signatures] == [None] * 8 + [DkimProblem.LIMIT] * 2
    assert len({s.need for s in signatures if s.need is not None}) == 8
    same = read_all(*(text_of(l="7") for _ in range(10)))
    assert all(s.problem is None for s in same)


def test_the_start_of_b_is_as_long_as_telling_them_apart_takes() -> None:
    one, two = (text_of(b="A" * 20 + c * 20) for c in "BC")
    assert [s.signature_start for s in read_all(one, two)] == ["A" * 20 + c * 12 for c in "BC"]
    assert [s.signature_start for s in read_all(one, text_of())] == ["A" * 8, "dzdVyOfA"]
    assert [len(s.signature_start) for s in read_all(one, one)] == [40, 40]
    assert [s.signature_start for s in read_all(b"x", b"y", one)] == ["", "", "A" * 8]


# ----- whatever the octets --------------------------------------------------------------------------------------

tag_like = st.lists(
    st.one_of(
        st.sampled_from(
            ["v=1", "a=rsa-sha256", "d=example.com", "s=s1", "h=from", "bh=AAAA", "b=AAAA", ";", "=", "\r\n "]
        ),
        st.text(alphabet=string.printable + "\u00fc\0\ud800", max_size=6),
    ),
    max_size=14,
).map(lambda parts: ";".join(parts).encode("utf-8", "surrogatepass"))


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=80), tag_like))
def test_whatever_the_octets_a_signature_is_ready_or_has_a_problem(value: bytes) -> None:
    message = Message.of_fields([(b"DKIM-Signature", value)])
    for signature in read(message, DkimLimits()):
        ready = signature.question is not None and signature.need is not None and signature.domain is not None
        assert ready == (signature.problem is None)
        assert signature.identity.isprintable()
        assert unsigned_value(value).count(b";") == value.count(b";")


@given(st.binary(max_size=40))
def test_base64_is_read_strictly(octets: bytes) -> None:
    text = octets.decode("latin-1")
    decoded = base64_octets(text)
    if decoded is not None:
        assert set(text) <= set(string.ascii_letters + string.digits + "+/= \t")
        assert len(decoded) == len(text.replace(" ", "").replace("\t", "").rstrip("=")) * 6 // 8


def test_tags_keep_their_order_and_inner_white_space() -> None:
    tags = parse_tag_list(b" k = a b ;\r\n n=\tx\r\n y ;z=")
    assert tags.values == {"k": "a b", "n": "x y", "z": ""}
    assert list(tags.values) == ["k", "n", "z"]
    assert not tags.ill_formed
