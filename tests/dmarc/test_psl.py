"""The public suffix list's room."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.dmarc import psl
from authmilter.names import Domain


@pytest.mark.parametrize(
    ("name", "organization"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("a.example.co.uk", "example.co.uk"),
        ("a.b.c.kobe.jp", "b.c.kobe.jp"),
        ("x.city.kobe.jp", "city.kobe.jp"),
        ("x.user.github.io", "user.github.io"),
        ("a.b.unlisted-tld", "b.unlisted-tld"),
        ("a.b.xn--p1ai", "b.xn--p1ai"),
        ("my-bank.com", "my-bank.com"),
        ("com", "com"),
        ("co.uk", "co.uk"),
        ("github.io", "github.io"),
    ],
)
def test_organizational_domains(name: str, organization: str) -> None:
    assert psl.organizational_domain(Domain.parse(name)) == Domain.parse(organization)


@pytest.mark.parametrize(
    "name", ["com", "co.uk", "github.io", "c.kobe.jp", "unlisted-tld", "localhost", "xn--p1ai"]
)
def test_public_suffixes(name: str) -> None:
    assert psl.is_public_suffix(Domain.parse(name))


@pytest.mark.parametrize("name", ["example.com", "example.co.uk", "city.kobe.jp", "www.ck", "bank.example"])
def test_names_that_are_none(name: str) -> None:
    assert not psl.is_public_suffix(Domain.parse(name))


def test_the_version_names_package_and_day() -> None:
    assert re.fullmatch(r"publicsuffixlist \d[\w.]*, list of \d{4}-\d\d-\d\d", psl.version())


_LABELS = st.sampled_from(
    ["com", "uk", "co", "jp", "kobe", "city", "io", "github", "ck", "www", "a", "b", "s3", "amazonaws"]
)


@given(st.lists(_LABELS, min_size=1, max_size=6))
def test_names_between_a_name_and_its_organizational_domain_share_it(labels: list[str]) -> None:
    """What lets alignment leave walks out: see the text of `alignment`."""
    name = Domain.parse(".".join(labels))
    organization = psl.organizational_domain(name)
    assert name.is_at_or_below(organization)
    count = len(organization.labels)
    for n in range(count, len(labels) + 1):
        assert psl.organizational_domain(name.rightmost(n)) == organization
    if organization != name:
        assert not psl.is_public_suffix(organization)
        parent = organization.parent
        assert parent is not None
        assert psl.is_public_suffix(parent)
