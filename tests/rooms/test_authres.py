"""What authres does that the room around it (authmilter/headers/foreign.py) makes up for, one test for each oddity.

When a new release changes one of these, its test goes red and the measure against it can be taken away.
"""

from __future__ import annotations

import sys

import authres
import pytest
from authres import AuthenticationResultsHeader, FeatureContext, SPFAuthenticationResult
from authres.core import AuthenticationResultProperty
from authres.core import SyntaxError as AuthresSyntaxError

from authmilter.headers.foreign import ForeignResults, Unparsable, authserv_id_of, read
from authmilter.headers.results import comment, pvalue


def stock(value: str) -> AuthenticationResultsHeader:
    """Read with the library as it is."""
    return FeatureContext().parse_value(value)


def properties(value: str) -> list[tuple[str, str]]:
    return [(p.name, p.value) for p in stock(value).results[0].properties]


def test_this_is_the_release_that_was_measured() -> None:
    assert authres.__version__ == "1.2.0"


# -- writing: the reasons we write ourselves ------------------------------------------------------------------------


def test_it_writes_anything_with_an_at_sign_unquoted() -> None:
    evil = "a@b.example; dmarc=pass header.from=paypal.com"
    text = str(
        AuthenticationResultsHeader(
            authserv_id="our.example", results=[SPFAuthenticationResult(result="fail", smtp_mailfrom=evil)]
        )
    )
    assert text == f"Authentication-Results: our.example; spf=fail smtp.mailfrom={evil}"
    assert [r.method for r in FeatureContext().parse(text).results] == ["spf", "dmarc"]
    # ours
    assert pvalue(evil) == f'"{evil}"'


def test_it_writes_line_ends() -> None:
    value = AuthenticationResultProperty("smtp", "mailfrom", "a@b.example\r\nX-Evil: yes")
    assert str(value) == "smtp.mailfrom=a@b.example\r\nX-Evil: yes"
    assert pvalue("a@b.example\r\nX-Evil: yes") is None


def test_it_writes_comments_unescaped() -> None:
    value = AuthenticationResultProperty("smtp", "mailfrom", "x", "y) header.from=paypal.com (z")
    assert str(value) == "smtp.mailfrom=x (y) header.from=paypal.com (z)"
    assert comment("y) header.from=paypal.com (z") == "(y\\) header.from=paypal.com \\(z)"


# -- reading: what the room puts right ------------------------------------------------------------------------------


def test_nested_comments_exhaust_the_stack() -> None:
    deep = "(" * sys.getrecursionlimit()
    with pytest.raises(RecursionError):
        stock("a.example; " + deep)
    assert read(b"a.example; " + deep.encode()) == Unparsable("comments nested too deep")


def test_a_bare_except_hides_what_went_wrong_in_a_property() -> None:
    deep = "(" * (2 * sys.getrecursionlimit())
    assert (
        properties("a.example; x=y header.d=z.example " + deep) == []
    )  # even the RecursionError, and header.d with it
    assert isinstance(read(b"a.example; x=y header.d=z.example " + deep.encode()), Unparsable)


def test_a_quoted_authserv_id_is_not_read() -> None:
    with pytest.raises(AuthresSyntaxError):
        stock('"a.example"; none')
    assert read(b'"a.example"; none') == ForeignResults(authserv_id="a.example")


def test_its_syntax_error_is_not_the_builtin() -> None:
    assert not issubclass(AuthresSyntaxError, SyntaxError)


def test_a_method_that_begins_with_none_cannot_be_read() -> None:
    with pytest.raises(AuthresSyntaxError):
        stock("a.example; nonesuch=pass")
    assert isinstance(read(b"a.example; nonesuch=pass"), Unparsable)


def test_a_quoted_value_before_another_property_is_forgotten() -> None:
    value = 'a.example; dkim=pass header.i="@a.example" header.d=a.example'
    assert properties(value) == [("d", "a.example")]
    found = read(value.encode())
    assert isinstance(found, ForeignResults)
    assert [p.name for p in found.results[0].properties] == ["i", "d"]


def test_backslashes_stay_in_quoted_values() -> None:
    assert properties('a.example; dkim=pass header.s="a\\"b"') == [("s", 'a\\"b')]
    found = read(b'a.example; dkim=pass reason="c\\\\d" header.s="a\\"b"')
    assert isinstance(found, ForeignResults)
    assert found.results[0].value("header", "s") == 'a"b'
    assert found.results[0].reason == "c\\d"


def test_a_semicolon_at_the_end_is_an_error() -> None:
    with pytest.raises(AuthresSyntaxError):
        stock("a.example; spf=pass;")
    assert isinstance(read(b"a.example; spf=pass;"), ForeignResults)


def test_none_among_results_is_kept_as_a_result() -> None:
    assert len(stock("a.example; spf=pass; none").results) == 2
    found = read(b"a.example; spf=pass; none")
    assert isinstance(found, ForeignResults)
    assert [r.method for r in found.results] == ["spf"]


def test_text_that_is_not_ascii_is_not_read() -> None:
    with pytest.raises(AuthresSyntaxError):
        stock('a.example; dkim=pass header.i="\u00e9"')
    assert isinstance(read('a.example; dkim=pass header.i="\u00e9"'.encode()), Unparsable)
    # whose field it is, is known all the same
    assert authserv_id_of('a.example; dkim=pass header.i="\u00e9"'.encode()) == "a.example"


def test_properties_of_unknown_types_are_left_out() -> None:
    assert properties("a.example; x=y dns.zone=z.example header.d=a.example") == [("d", "a.example")]


def test_the_authserv_id_is_lowered() -> None:
    assert stock("A.Example; none").authserv_id == "a.example"
    assert authserv_id_of(b"A.Example; none") == "A.Example"


def test_three_level_names_do_not_crash() -> None:
    assert properties("a.example; arc=pass header.i.foo=1") == [("i.foo", "1")]
