"""Domains, addresses and envelope arguments: parsed or refused, never repaired."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.errors import InvalidName
from authmilter.names import (
    MAX_PATH,
    Address,
    AddressLiteral,
    Domain,
    LocalPart,
    Malformed,
    NullPath,
    parse_helo,
    parse_ip,
    parse_recipient,
    parse_reverse_path,
    quote_local,
)

V4 = ipaddress.IPv4Address("192.0.2.1")
V6 = ipaddress.IPv6Address("2001:db8::1")
MESSY = st.text(st.sampled_from("ab1.@<>\"\\ ,:;[]()'-_\x00\r\n\u00fc\u200b\udcff"), max_size=40)
LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "ascii_name"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("my-bank.com", "my-bank.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("xn--80aa1cn6g67a.com", "xn--80aa1cn6g67a.com"),
        ("1.2.3.example", "1.2.3.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 49] * 5) + ".abc", ".".join(["a" * 49] * 5) + ".abc"),  # 253 octets
    ],
)
def test_a_domain_is_lower_case_a_labels(text: str, ascii_name: str) -> None:
    assert Domain.parse(text) == Domain(ascii_name)
    assert Domain.maybe(text) == Domain(ascii_name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.b..",
        "-a.com",
        "a-.com",
        "a b.com",
        "a\x00.com",
        "a.com\r\n",
        "a'b.com",
        "a(b.com",
        "a@b.com",
        "192.0.2.1",
        "example.123",
        "[192.0.2.1]",
        "a" * 64 + ".com",
        ".".join(["a" * 49] * 5) + ".abcd",
        "a" * 2000,
        "legit\u200bimate.com",
        "legitimate\u3002com",
        "\u212aick.com",
        "a\udcff.com",
        "\u0661.com\u0661",
    ],
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as refused:
        Domain.parse(text)
    assert str(refused.value).isascii()
    assert Domain.maybe(text) is None


def test_the_parts_of_a_domain() -> None:
    domain = Domain.parse("a.b.example.com")
    assert domain.labels == ("a", "b", "example", "com")
    assert domain.parent == Domain("b.example.com")
    assert Domain("com").parent is None
    assert domain.rightmost(2) == Domain("example.com")
    assert domain.rightmost(9) == domain
    assert str(Domain.parse("b\u00fccher.example")) == "xn--bcher-kva.example"
    assert Domain.parse("b\u00fccher.example").unicode == "b\u00fccher.example"


def test_below_is_by_labels_not_by_letters() -> None:
    assert Domain("a.example.com").is_at_or_below(Domain("example.com"))
    assert Domain("example.com").is_at_or_below(Domain("example.com"))
    assert not Domain("notexample.com").is_at_or_below(Domain("example.com"))
    assert not Domain("example.com").is_at_or_below(Domain("a.example.com"))


@given(st.lists(LABELS, min_size=1, max_size=6))
def test_a_parsed_domain_parses_to_itself(labels: list[str]) -> None:
    domain = Domain.maybe(".".join([*labels, "example"]))
    assert domain is not None
    assert Domain.parse(domain.ascii) == domain == Domain.parse(domain.ascii.upper() + ".")
    assert Domain(".".join(domain.labels)) == domain


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("user@example.com", "user", "example.com"),
        ("first.last+tag@Example.com", "first.last+tag", "example.com"),
        ('"a b"@example.com', "a b", "example.com"),
        ('"a@b"@example.com', "a@b", "example.com"),
        ('"a\\"\\\\b"@example.com', 'a"\\b', "example.com"),
        ('""@example.com', "", "example.com"),
        ("\u00fcser@b\u00fccher.example", "\u00fcser", "xn--bcher-kva.example"),
        ("=?utf-8?Q?x?=@example.com", "=?utf-8?Q?x?=", "example.com"),
    ],
)
def test_an_address(text: str, local: str, domain: str) -> None:
    assert Address.parse(text) == Address(local, Domain(domain))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user",
        "@example.com",
        "user@",
        "a@b@example.com",
        "a b@example.com",
        ".a@example.com",
        "a..b@example.com",
        "a.@example.com",
        '"a@example.com',
        '"a"b@example.com',
        '"a"',
        '"a\x00"@example.com',
        "<user@example.com>",
        "user@[192.0.2.1]",
        "us\u200ber@example.com",
        '"us\u200ber"@example.com',
        "\u202euser@example.com",
        "us\x80er@example.com",
        "us\udcffer@example.com",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        Address.parse(text)


@given(st.text(st.characters(codec="utf-8"), max_size=20) | MESSY)
def test_an_address_as_text_parses_to_itself(local: str) -> None:
    if not local.isprintable():
        return
    address = Address(local, Domain("example.com"))
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("local", "written"),
    [("a.b", "a.b"), ("", '""'), ("a..b", '"a..b"'), ('a"\\', '"a\\"\\\\"'), ("a b", '"a b"')],
)
def test_a_local_part_is_quoted_where_it_must_be(local: str, written: str) -> None:
    assert quote_local(local) == written


@pytest.mark.parametrize(
    ("raw", "expected", "written"),
    [
        ("", NullPath(), ""),
        ("<>", NullPath(), ""),
        ("<user@example.com>", Address("user", Domain("example.com")), "user@example.com"),
        ("user@example.com", Address("user", Domain("example.com")), "user@example.com"),
        ("<@a.example,@b.example:user@c.example>", Address("user", Domain("c.example")), "user@c.example"),
        ("<root>", LocalPart("root"), "root"),
        ("postmaster", LocalPart("postmaster"), "postmaster"),
        ("<u@[192.0.2.1]>", AddressLiteral("u", V4), "u@[192.0.2.1]"),
        ("<u@[IPv6:2001:db8::1]>", AddressLiteral("u", V6), "u@[IPv6:2001:db8::1]"),
        ("<u@[ipv6:::ffff:192.0.2.1]>", AddressLiteral("u", V4), "u@[192.0.2.1]"),
    ],
)
def test_a_reverse_path(raw: str, expected: object, written: str) -> None:
    path = parse_reverse_path(raw)
    assert path == expected
    assert str(path) == written


@pytest.mark.parametrize(
    "raw",
    [
        "<",
        ">",
        "< >",
        "<user@example.com",
        "user@example.com>",
        "<<user@example.com>>",
        " user@example.com",
        "user@example.com ",
        "user@example.com\r\nRCPT TO:<x@y>",
        "<@a.example>",
        "<@a.example:>",
        "<@a.example:root>",
        "<@:user@example.com>",
        "<@a example:user@example.com>",
        "<@@a.example:user@example.com>",
        "<user@[]>",
        "<user@[192.0.2.10>",
        "<user@0192.0.2.1]>",
        "<user@[192.0.2.01]>",
        "<user@[2001:db8::1]>",
        "<user@[IPv6:192.0.2.1]>",
        "<user@[IPv6:fe80::1%eth0]>",
        "<user@[tag:content]>",
        "<us\u200ber>",
        '<"root">',
        "<us er>",
        "<" + "a" * 2000 + "@example.com>",
        "a" * 2000,
        "\udcff@example.com",
    ],
)
def test_what_is_no_path_is_malformed_and_never_the_null_path(raw: str) -> None:
    for path in (parse_reverse_path(raw), parse_recipient(raw)):
        assert isinstance(path, Malformed)
        assert path.why.isascii()
        assert str(path) == raw[:MAX_PATH]


def test_a_path_may_be_as_long_as_the_limit() -> None:
    longest = "a" * (MAX_PATH - len("@b.example")) + "@b.example"
    assert isinstance(parse_reverse_path(longest), Address)
    assert isinstance(parse_reverse_path("a" + longest), Malformed)


def test_a_text_is_parsed_once_unless_it_is_long() -> None:
    def long(name: str) -> str:
        return "a." * 120 + name  # a name of 253 octets at most, in a text of more than 255 with the rest

    for parse, text in (
        (parse_reverse_path, f"<{'b' * 16}@{long('example')}>"),
        (parse_recipient, f"<{'b' * 16}@{long('example')}>"),
        (parse_helo, "x" * 256),
    ):
        assert parse("<joe@b.example>") is parse("<joe@b.example>")
        assert len(text) > 255
        assert parse(text) == parse(text)
        assert parse(text) is not parse(text)
    assert parse_ip("2001:db8::1") is parse_ip("2001:db8::1")
    assert parse_ip("0" * 300) is None
    assert Domain.parse("b.example") is Domain.parse("b.example")
    assert Domain.maybe("ü." * 200) is None


def test_domains_that_are_equal_have_one_hash() -> None:
    assert len({Domain.parse("B.example."), Domain("b.example"), Domain.parse("c.example")}) == 2


def test_a_recipient_is_never_empty() -> None:
    assert isinstance(parse_recipient("<>"), Malformed)
    assert isinstance(parse_recipient(""), Malformed)
    assert parse_recipient("<postmaster>") == LocalPart("postmaster")
    assert parse_recipient("<a@b.example>") == Address("a", Domain("b.example"))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("mail.example.com", Domain("mail.example.com")),
        ("MAIL.example.com.", Domain("mail.example.com")),
        ("[192.0.2.1]", AddressLiteral("", V4)),
        ("[IPv6:2001:db8::1]", AddressLiteral("", V6)),
    ],
)
def test_a_helo(raw: str, expected: object) -> None:
    assert parse_helo(raw) == expected


def test_an_address_literal_of_helo_is_written_without_a_local_part() -> None:
    assert str(AddressLiteral("", V4)) == "[192.0.2.1]"
    assert str(AddressLiteral("", V6)) == "[IPv6:2001:db8::1]"


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "[]",
        "192.0.2.1",
        "a b",
        "[192.0.2.10",
        "0192.0.2.1]",
        "[2001:db8::1]",
        "[" + "1" * 2000 + "]",
        "a" * 2000,
        "x\r\ny",
        "a;b.example",
    ],
)
def test_what_is_no_helo_is_malformed(raw: str) -> None:
    helo = parse_helo(raw)
    assert isinstance(helo, Malformed)
    assert len(helo.raw) <= MAX_PATH


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("192.0.2.1", V4),
        ("2001:db8::1", V6),
        ("IPv6:2001:db8::1", V6),
        ("IPV6:2001:DB8::1", V6),
        ("::ffff:192.0.2.1", V4),
        ("IPv6:192.0.2.1", None),
        ("fe80::1%eth0", None),
        ("unknown", None),
        ("", None),
        ("192.0.2.256", None),
        ("192.0.2", None),
        ("\u0661.2.3.4", None),
        ("1" * 100_000, None),
    ],
)
def test_an_ip_address(text: str, ip: object) -> None:
    assert parse_ip(text) == ip


@given(st.text(max_size=60) | MESSY)
def test_the_parsers_of_envelope_arguments_are_total(raw: str) -> None:
    path = parse_reverse_path(raw)
    assert isinstance(path, NullPath | Address | LocalPart | AddressLiteral | Malformed)
    assert isinstance(path, NullPath) == (raw in {"", "<>"})
    assert isinstance(parse_recipient(raw), Address | LocalPart | AddressLiteral | Malformed)
    assert isinstance(parse_helo(raw), Domain | AddressLiteral | Malformed)
    ip = parse_ip(raw)
    assert ip is None or parse_ip(str(ip)) == ip


@given(MESSY)
def test_a_path_that_parses_is_written_as_one_that_parses_the_same(raw: str) -> None:
    path = parse_reverse_path(raw)
    if not isinstance(path, Malformed):
        assert parse_reverse_path(f"<{path}>") == path
        assert parse_reverse_path(str(path)) == path


@given(MESSY)
def test_angle_brackets_change_nothing(raw: str) -> None:
    if raw.startswith("<") or raw.endswith(">"):
        return
    bare, bracketed = parse_reverse_path(raw), parse_reverse_path(f"<{raw}>")
    assert isinstance(bare, Malformed) == isinstance(bracketed, Malformed)
    assert bare == bracketed or isinstance(bare, Malformed)
