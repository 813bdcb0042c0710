"""Internationalised names: IDNA 2008 strictly, nothing mapped but upper case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter import idn
from authmilter.errors import InvalidName


@pytest.mark.parametrize(
    ("text", "ascii_name"),
    [
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("B\u00dcCHER.Example", "xn--bcher-kva.example"),
        ("fa\u00df.de", "xn--fa-hia.de"),  # IDNA 2003 would say fass.de
        ("\u0438\u0441\u043f\u044b\u0442\u0430\u043d\u0438\u0435.test", "xn--80akhbyknj4f.test"),
        ("plain.example", "plain.example"),
    ],
)
def test_u_labels_become_a_labels(text: str, ascii_name: str) -> None:
    assert idn.to_ascii(text) == ascii_name


@pytest.mark.parametrize(
    "text",
    [
        "legit\u200bimate.com",  # zero-width space
        "legit\u00adimate.com",  # soft hyphen
        "\u202emoc.com",  # direction override
        "\uff4cegitimate.com",  # full-width letter
        "legitimate\u3002com",  # ideographic full stop is no dot here
        "legitimate\uff0ecom",  # full-width full stop
        "\u212aick.com",  # the Kelvin sign, whose lower case is the letter k
        "\u212bs.com",  # the Angstrom sign, likewise
        "bu\u0308cher.de",  # not in normalization form C
        "\u0301abc.com",  # begins with a combining mark
        "a\u2044b.com",  # fraction slash
        "xn--\u00fc.com",
        "\udcff.com",
        "\u00fc" * 64 + ".com",
        "\u00fc" * 60 + ".com",
        "\u0627a\u0627.com",  # breaks the Bidi rule (RFC 5893)
    ],
)
def test_what_imitates_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        idn.to_ascii(text)


@pytest.mark.parametrize(
    ("ascii_name", "text"),
    [
        ("xn--bcher-kva.example", "b\u00fccher.example"),
        ("plain.example", "plain.example"),
        ("xn--zzzzzzzzzz--0.example", "xn--zzzzzzzzzz--0.example"),
        ("xn--.example", "xn--.example"),
        ("xn--" + "a" * 100, "xn--" + "a" * 100),
    ],
)
def test_a_labels_are_shown_as_u_labels_where_they_are(ascii_name: str, text: str) -> None:
    assert idn.to_unicode(ascii_name) == text


@given(st.text(max_size=70))
def test_to_ascii_gives_ascii_or_invalid_name(text: str) -> None:
    try:
        ascii_name = idn.to_ascii(text)
    except InvalidName:
        return
    assert ascii_name.isascii()
    assert ascii_name.count(".") == text.count(".")
    assert idn.to_ascii(idn.to_unicode(ascii_name)) == ascii_name


@given(st.text(st.sampled_from("xn-aZ09.\u00fc\u0430"), max_size=70))
def test_to_unicode_is_total(text: str) -> None:
    assert idn.to_unicode(text).count(".") == text.count(".")


def test_a_megabyte_of_a_label_is_refused_at_once() -> None:
    with pytest.raises(InvalidName):
        idn.to_ascii("\u0430" * 1_000_000)
    assert len(idn.to_unicode("xn--" + "a" * 1_000_000)) == 1_000_004
