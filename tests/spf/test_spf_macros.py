"""Macros: RFC 7208 §7.4's examples, and what is no macro-string."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.spf.macros import (
    MAX_NAME,
    domain_spec_fault,
    expand,
    is_explanation,
    is_macro_string,
    letters,
    truncated,
)

_VALUES = {
    "s": "strong-bad@email.example.com",
    "l": "strong-bad",
    "o": "email.example.com",
    "d": "email.example.com",
    "i": "192.0.2.3",
    "p": "mx.example.org",
    "v": "in-addr",
    "h": "a-b_c.d",
    "c": "192.0.2.3",
    "r": "mx.example.net",
    "t": "1700000000",
}


@pytest.mark.parametrize(
    ("spec", "expanded"),
    [
        # RFC 7208 §7.4
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        # §7.1, §7.2, §7.3
        ("%%%_%-", "% %20"),
        ("%%{d}", "%{d}"),
        ("%{D2R}", "example.email"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("%{h-_}", "a.b.c.d"),
        ("%{h-}", "a.b_c.d"),
        ("%{d127}", "email.example.com"),
        ("%{d999999999}", "email.example.com"),
        ("%{d002}", "example.com"),
        ("plain.example", "plain.example"),
    ],
)
def test_expansion(spec: str, expanded: str) -> None:
    assert is_macro_string(spec)
    assert expand(spec, _VALUES.__getitem__) == expanded


@pytest.mark.parametrize(
    "spec",
    [
        "%",
        "%%%",
        "a%b",
        "%{d",
        "%{}",
        "%{x}",
        "%{d0}",
        "%{d00}",
        "%{dx}",
        "%{d2rr}",
        "%{c}",
        "a b",
        "\x7f",
        "%{d-",
        "%(d)",
    ],
)
def test_no_macro_string(spec: str) -> None:
    assert not is_macro_string(spec)


def test_letters_of_an_explanation_are_not_for_terms() -> None:
    for text in ("%{c} %{R}", "%{t}"):
        assert is_explanation(text)
        assert not is_macro_string(text)


@pytest.mark.parametrize(
    "spec",
    ["a.example", "a.example.", "%{d}", "x%{d2}", "a.b%%", "_x.a-b", "a.x--y", "a:b.example", "%{i}._spf.a1"],
)
def test_domain_specs(spec: str) -> None:
    assert domain_spec_fault(spec) == ""


@pytest.mark.parametrize(
    "spec",
    [
        "",
        ".",
        "example",
        "example.",
        "a.1",
        "a.1.2.3",
        "a.-b",
        "a.b-",
        "a.b_c",
        "a.x}",
        "a.%%{d}",
        "a..",
        "1.2.3.4",
    ],
)
def test_no_domain_specs(spec: str) -> None:
    assert domain_spec_fault(spec) != ""


def test_letters_are_those_that_occur() -> None:
    assert letters("%{L}.%{d2}.%%{s}") == {"l", "d"}
    assert letters("a.example") == frozenset()


def test_a_long_name_loses_labels_from_the_left() -> None:
    name = ".".join(["aaaaaaaaa"] * 30)
    cut = truncated(name)
    assert name.endswith("." + cut)
    assert len(cut) == 249
    assert truncated("a" * 300) == "a" * 300
    assert truncated("b." + "a" * 251) == "b." + "a" * 251
    assert truncated("bb." + "a" * 251) == "a" * 251


_PIECES = ["%", "{", "}", "d", "9", "r", "-", ".", "a", "%{d}", "%{l1r-}", "%%", "%_", "\xe9"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_whatever_is_a_macro_string_expands_to_text_without_macros_left(spec: str) -> None:
    if is_macro_string(spec):
        expanded = expand(spec, lambda letter: letter * 3)
        assert expanded.isascii()
        assert "%{" not in expanded.replace("%20", "") or "%%" in spec
        assert len(truncated(expanded)) <= MAX_NAME
    else:
        assert domain_spec_fault(spec) in {"invalid macro", "empty domain"}


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_reading_a_spec_is_total(spec: str) -> None:
    assert isinstance(domain_spec_fault(spec), str)
    assert is_explanation(spec) >= is_macro_string(spec)
