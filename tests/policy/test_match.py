"""Globs, domains, networks and numbers."""

from __future__ import annotations

import fnmatch
import ipaddress
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.names import parse_ip
from authmilter.policy.facts import Kind
from authmilter.policy.match import (
    MAX_INDEXED,
    Any,
    AtOrBelow,
    Index,
    Matches,
    Range,
    domain_pattern,
    matcher,
    network,
    read,
)


def hit(kind: Kind, patterns: list[str], value: object) -> bool:
    return matcher(kind, [read(kind, p) for p in patterns])(value)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("a.example", "a.example", True),
        ("A.Example.", "a.example", True),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("*.a.example", "x.a.example", True),
        ("*.a.example", "y.x.a.example", True),
        ("*.a.example", "a.example", False),
        ("*.a.example", "xa.example", False),
        (".a.example", "x.a.example", True),
        (".a.example", "a.example", False),
        ("*.bücher.example", "x.xn--bcher-kva.example", True),
        ("*", "anything.example", True),
        ("mail-*.example", "mail-1.example", True),
        ("mail-*.example", "mail.example", False),
        ("*mail*.example", "x.mail7.example", True),
        ("a.*.example", "a.b.c.example", True),
        ("a.*.example", "a.example", False),
    ],
)
def test_domains(pattern: str, value: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    assert hit(Kind.DOMAIN, [pattern], value) is expected
    assert hit(Kind.DOMAIN, ["other.example", "*.other.example", pattern], value) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a..b",
        "exa mple",
        "*..example",
        "1.2.3.4",
        "a*.bücher*.example",
        "x" * 64,
        "*" * 9 + ".a",
        "@a.example",
    ],
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"domain|stars|star"):
        domain_pattern(text)


def test_at_or_below() -> None:
    wanted = AtOrBelow(frozenset({"a.example"}))
    assert [wanted(v) for v in ("a.example", "x.a.example", "y.x.a.example", "xa.example", "example", 7)] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("Hello", "hELLO", True),
        ("hello", "hello!", False),
        ("*free*money*", "Free, fast MONEY now", True),
        ("*free*money*", "money free", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*ab*bc*", "abc", False),
        ("*ab*bc*", "abbc", True),
        ("**", "", True),
        ("postmaster@*", "postmaster@here.example", True),
    ],
)
def test_texts(pattern: str, value: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    assert hit(Kind.TEXT, [pattern], value) is expected


def test_a_glob_has_limits() -> None:
    for text in ("*" * 9, "*" + "x" * 400):
        with pytest.raises(ValueError, match="a pattern"):
            read(Kind.TEXT, text)


def test_a_glob_takes_linear_time() -> None:
    wanted = matcher(Kind.TEXT, [read(Kind.TEXT, "*a*a*a*a*a*a*b")])
    started = time.perf_counter()
    assert not wanted("a" * 100_000)
    assert time.perf_counter() - started < 1


_GLOBBY = st.text(alphabet="ab*", max_size=8)


@settings(max_examples=500)
@given(_GLOBBY, st.text(alphabet="ab", max_size=10))
def test_globs_mean_what_shells_mean(pattern: str, value: str) -> None:
    assert hit(Kind.TEXT, [pattern], value) is fnmatch.fnmatchcase(value, pattern)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("0.0.0.0/0", "8.8.8.8", "::1"),
        ("2001:db8::/32", "2001:db8:1::5", "2001:db9::1"),
        ("::ffff:192.0.2.0/120", "192.0.2.9", "192.0.3.9"),
        ("::/0", "::1", "192.0.2.1"),
    ],
)
def test_networks(text: str, inside: str, outside: str) -> None:
    wanted = matcher(Kind.IP, [read(Kind.IP, text)])
    assert wanted(ipaddress.ip_address(inside))
    assert not wanted(ipaddress.ip_address(outside))
    assert not wanted("192.0.2.1")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("192.0.2.300", ("`192.0.2.300` is not an IP address or network",)),
        ("192.0.2.0/33", ("`192.0.2.0/33` is not an IP address or network",)),
        ("fe80::1%eth0", ("`fe80::1%eth0` is not an IP address or network",)),
        ("192.0.2.7/24", ("`192.0.2.7/24` has bits set outside its mask", "did you mean `192.0.2.0/24`?")),
    ],
)
def test_what_is_no_network_is_refused(text: str, complaint: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="`") as caught:
        network(text)
    assert caught.value.args == complaint


def test_long_lists_are_looked_up_not_walked() -> None:
    names = matcher(
        Kind.DOMAIN, [read(Kind.DOMAIN, f"d{i}.example") for i in range(20_000)] + ["*.below.example"]
    )
    networks = matcher(Kind.IP, [network(f"10.{i >> 8}.{i & 255}.0/24") for i in range(20_000)])
    started = time.perf_counter()
    for _ in range(1000):
        assert not names("a.b.c.d.e.f.g.nowhere.example")
        assert not networks(ipaddress.ip_address("192.0.2.1"))
    assert time.perf_counter() - started < 1


def test_ranges() -> None:
    assert Range(1, 3).meet(Range(2)) == Range(2, 3)
    assert Range(1, 3).meet(Range(high=0)).is_empty
    assert not Range().is_empty
    assert [Range(1, 2).matches(v) for v in (0, 1, 2, 3, "1")] == [False, True, True, False, False]


# -- many tests at once ----------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(
    ["a.example", "b.a.example", "c.b.a.example", "example", "xa.example", "d.example", "", "A.Example"]
)
_PATTERNS = st.lists(
    st.sampled_from(["a.example", "*.a.example", "*.example", "b.a.example", "x*", "*", "*a*", "example"]),
    min_size=1,
    max_size=3,
)
_NETWORKS = st.lists(
    st.sampled_from(["192.0.2.0/24", "192.0.2.1", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1", "::/0"]), min_size=1, max_size=3
)  # fmt: skip
_ONE: st.SearchStrategy[Matches] = st.one_of(
    _PATTERNS.map(lambda texts: matcher(Kind.DOMAIN, texts)),
    _PATTERNS.map(lambda texts: matcher(Kind.TEXT, texts)),
    st.sets(st.sampled_from(["a.example", "example"]), min_size=1).map(
        lambda names: AtOrBelow(frozenset(names))
    ),
    _NETWORKS.map(lambda texts: matcher(Kind.IP, map(network, texts))),
    st.sampled_from([Range(1, 2).matches, frozenset({"a.example"}).__contains__]),
)
_TESTS: st.SearchStrategy[Matches] = _ONE | _ONE.map(Any) | _ONE.map(Any).map(Any)
_SINGLE = (
    _NAMES
    | st.integers(0, 3)
    | st.sampled_from(["192.0.2.1", "192.0.3.1", "2001:db8::1", "::1"]).map(parse_ip)
)


@settings(max_examples=300)
@given(
    st.lists(_TESTS, max_size=12),
    st.lists(_SINGLE | st.lists(_SINGLE, max_size=3).map(tuple), min_size=1, max_size=8),
)
def test_an_index_tells_what_each_test_tells(tests: list[Matches], values: list[object]) -> None:
    index = Index(tests)
    for value in values:
        assert index.met(value) == tuple(place for place, test in enumerate(tests) if test(value))


@pytest.mark.parametrize("size", [MAX_INDEXED, MAX_INDEXED + 1])
def test_long_lists_are_asked_by_themselves_and_mean_the_same(size: int) -> None:
    names = [f"d{n}.example" for n in range(size)]
    networks = [network(f"10.0.{n >> 8}.{n & 255}") for n in range(size)]
    index = Index(
        [matcher(Kind.DOMAIN, names), matcher(Kind.TEXT, names), AtOrBelow(frozenset(names[: size // 2]))]
    )
    assert index.met("d7.example") == (0, 1, 2)
    assert index.met("x.d7.example") == (2,)
    assert index.met(names[-1]) == (0, 1)
    assert Index([matcher(Kind.IP, networks)]).met(parse_ip("10.0.3.231")) == (0,)
    assert Index([matcher(Kind.IP, networks)]).met(parse_ip("10.0.5.0")) == ()
