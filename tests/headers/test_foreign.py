"""Reading strangers' Authentication-Results fields: whose they are, whether they are well formed, what they say."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authmilter.headers.foreign import (
    MAX_DEPTH,
    MAX_EQUALS,
    MAX_VALUE,
    ForeignProperty,
    ForeignResult,
    ForeignResults,
    Unparsable,
    authserv_id_of,
    fault_of,
    read,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" example.com; none", "example.com"),
        (b"example.com", "example.com"),
        (b"example.com;", "example.com"),
        (b' (x) "Example.COM" 1 (y); spf=pass', "Example.COM"),
        (b"\r\n\texample.com\r\n 1\r\n ;\r\n spf=pass", "example.com"),
        (b"\n example.com; spf=pass", "example.com"),
        (b"(a (b (c (d (e))))) example.com; none", "example.com"),
        (b"(a \\) ; b) example.com (c;d)(e); none", "example.com"),
        (b"example.com(x)1(y);none", "example.com"),
        (b'"ex\\ample.com"; none', "example.com"),
        (b'"a b"; none', "a b"),
        (b'"example.\r\n com"; none', "example. com"),
        (b'""; none', ""),
        ("b\u00fccher.example; none".encode(), "b\u00fccher.example"),
        (b"example.com; " + b"x=y; " * 5000, "example.com"),
    ],
)
def test_the_authserv_id_is_found(value: bytes, expected: str) -> None:
    assert authserv_id_of(value) == expected


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "no authserv-id"),
        (b"; spf=pass", "no authserv-id"),
        (b"(only a comment)", "no authserv-id"),
        (b"spf=pass smtp.mailfrom=x", "something other than a version after the authserv-id"),
        (b"example.com spf=pass", "something other than a version after the authserv-id"),
        (b"example.com/x; none", "something other than a version after the authserv-id"),
        (b"example.com 1x; none", "something other than a version after the authserv-id"),
        (b"example.com 2; spf=pass", "unknown version"),
        (b"example.com 01; spf=pass", "unknown version"),
        (b"=?utf-8?q?example.com?=; none", "no authserv-id"),
        (b"(x example.com; none", "comment without end"),
        (b"(" * (MAX_DEPTH + 1) + b")" * (MAX_DEPTH + 1) + b"example.com", "comments nested too deep"),
        (b"(\0) example.com; none", "control character or line end in a comment"),
        (b"(\\\0) example.com; none", "control character or line end in a comment"),
        (b"(a\rb) example.com; none", "control character or line end in a comment"),
        (b"\rexample.com; none", "line end that is no fold"),
        (b"\r\nexample.com; none", "line end that is no fold"),
        (b"\0example.com; none", "no authserv-id"),
        (b'"example.com; none', "no authserv-id"),
        (b"\xff.example; none", "authserv-id is not UTF-8"),
        (b" " * MAX_VALUE + b"example.com; none", "no authserv-id"),
    ],
)
def test_what_is_no_authserv_id_is_told(value: bytes, why: str) -> None:
    assert authserv_id_of(value) == Unparsable(why)


@pytest.mark.parametrize(
    "value",
    [
        b"a.example; none",
        b"a.example; NONE (x)",
        b"a.example; spf=pass smtp.mailfrom=b.example; dkim=none;",
        b'a.example; spf=pass reason="a;b\\"c" (x;(y=z)) smtp.mailfrom="<x@y>"@z',
        b"a.example;;",
        b"a.example; x=y\r\n z.w=<a@b>[]:,?/",
        "a.example; x=\u00e9".encode(),
    ],
)
def test_well_formed_fields_have_no_fault(value: bytes) -> None:
    assert fault_of(value) is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"a.example; x=y (b", "comment without end"),
        (b'a.example; x="y', "quoted string without end"),
        (b"a.example; x=y)", "stray character"),
        (b"a.example; x=y\\;", "stray character"),
        (b"a.example; x=y\0", "stray character"),
        (b"a.example; x=y\rz", "line end that is no fold"),
        (b"a.example; x=y\nz", "line end that is no fold"),
        (b"a.example; b.example; x=y", "a clause that is no result"),
        (b"a.example; none none", "a clause that is no result"),
        (b'a.example; "none"', "a clause that is no result"),
        (b"a.example; " + b"x=y;" * (MAX_EQUALS + 1), "too many results"),
        (b"a.example; x=" + b"y" * MAX_VALUE, "too long"),
        (b"; x=y", "no authserv-id"),
    ],
)
def test_faults_are_told(value: bytes, why: str) -> None:
    assert fault_of(value) == Unparsable(why)
    assert read(value) == Unparsable(why)


def test_a_whole_field_is_read() -> None:
    value = (
        b' (x) "Relay.EXAMPLE" 1 ;\r\n'
        b' SPF=Pass reason="a \\"b\\"" (c) smtp.mailfrom=joe@sender.example;\r\n'
        b' dkim=pass header.i="@sender.example" header.d=sender.example header.b="a/b=";'
        b' iprev=fail policy.iprev="2001:db8::1" ; dmarc/1=none; new/2=pass'
    )
    found = read(value)
    assert found == ForeignResults(
        authserv_id="Relay.EXAMPLE",
        results=(
            ForeignResult(
                method="spf",
                result="pass",
                reason='a "b"',
                properties=(ForeignProperty("smtp", "mailfrom", "joe@sender.example"),),
            ),
            ForeignResult(
                method="dkim",
                result="pass",
                properties=(
                    ForeignProperty("header", "i", "@sender.example"),
                    ForeignProperty("header", "d", "sender.example"),
                    ForeignProperty("header", "b", "a/b="),
                ),
            ),
            ForeignResult(
                method="iprev", result="fail", properties=(ForeignProperty("policy", "iprev", "2001:db8::1"),)
            ),
            ForeignResult(method="dmarc", result="none"),
        ),
    )
    assert isinstance(found, ForeignResults)
    assert found.results[1].value("header", "d") == "sender.example"
    assert found.results[1].value("header", "s") is None


@pytest.mark.parametrize(
    "value", [b"a.example", b"a.example;", b"a.example; none", b"a.example 1 (x); none (y)"]
)
def test_no_results_are_none(value: bytes) -> None:
    assert read(value) == ForeignResults(authserv_id="a.example")


def test_crafted_property_names_do_not_crash_or_replace() -> None:
    """attacks.md 47."""
    found = read(b"a.example; arc=pass header.i=1 header.i.foo=2 header.i=3 __proto__.x=y value=3 smtp.x=")
    assert isinstance(found, ForeignResults)
    assert found.results[0].value("header", "i") == "1"
    assert found.results[0].value("header", "i.foo") == "2"
    assert [p.name for p in found.results[0].properties] == ["i", "i.foo", "i", "x"]
    assert found.results[0].value("smtp", "x") == ""


@pytest.mark.parametrize(
    "value",
    [
        b"a.example; x=y (caf\xc3\xa9)",
        b"a.example; nonesuch=pass",
        b"a.example; =pass",
        b"a.example; x=y <z>=1",
    ],
)
def test_what_authres_cannot_read_is_unparsable(value: bytes) -> None:
    found = read(value)
    assert isinstance(found, Unparsable)
    assert found.why.startswith("authres: ")


pieces = st.lists(
    st.sampled_from(
        [
            b"a.example",
            b"; ",
            b"=",
            b"spf",
            b"none",
            b'"',
            b"(",
            b")",
            b"\\",
            b"\r\n ",
            b"\n",
            b"\0",
            b" ",
            b"1",
            b"\xc3\xa9",
            b"header.d",
            b"reason",
            b"@",
            b".",
            b"/",
            b"\xff",
            b"((((((",
            b"<",
        ]
    ),
    max_size=30,
).map(b"".join)


@settings(max_examples=500)
@given(value=pieces | st.binary(max_size=60))
@example(value=b"(" * 5000)
@example(value=b"a.example; x=y " + b"(" * 5000)
@example(value=b"a.example; x=y " + b"()" * 3000)
@example(value=b'"' * 5000)
def test_whatever_the_bytes_each_reader_answers(value: bytes) -> None:
    owner, fault, found = authserv_id_of(value), fault_of(value), read(value)
    assert isinstance(owner, str | Unparsable)
    # a field without an owner is faulty, a faulty field is not read
    assert fault is not None or isinstance(owner, str)
    assert fault is None or found == fault
    if isinstance(found, ForeignResults):
        assert found.authserv_id == owner


@pytest.mark.parametrize(
    "value",
    [
        b"a.example; " + b"x=y;" * (MAX_VALUE // 4),
        b"a.example; " + b"()" * (MAX_VALUE // 2 - 20),
        b'a.example; x="' + b"\\a" * (MAX_VALUE // 2 - 20) + b'"',
        b'a.example; x="' + b"\r\n " * (MAX_VALUE // 3 - 20) + b'"',
        b'a.example; x="' + b"\n" * (MAX_VALUE - 20),
        b"a.example; " + b" " * (MAX_VALUE - 20),
        b"a.example; x=y header.d=" + b"a." * (MAX_VALUE // 2 - 20),
        b"(" + b"\\(" * (MAX_VALUE // 2 - 20),
        b"a.example; x=y " + b"h.a=b " * MAX_EQUALS,
        b"a.example; x=y " + b"h " * (MAX_VALUE // 2 - 20),
    ],
)
def test_the_largest_fields_take_milliseconds(value: bytes) -> None:
    started = time.process_time()
    read(value)
    authserv_id_of(value)
    assert time.process_time() - started < 0.5
