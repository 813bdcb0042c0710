"""The room of `publicsuffixlist`: which names are public suffixes, by the list that the package carries.

The whole list is used, the section of private domains included: hosts of strangers' names are the danger
(`github.io`), not only registries. A name that no rule knows follows the list's default rule `*`: its last
label is a public suffix. The list is read once, at the first question (about 30 ms): call `version` before
forking to have it read by then. Total once the list is read.

Raises: OSError at the first question where the package's data file cannot be read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import metadata, resources

from publicsuffixlist import PublicSuffixList

from authmilter.names import Domain

__all__ = ["is_public_suffix", "organizational_domain", "version"]

_DATE = re.compile(rb"^// VERSION: (\d{4}-\d\d-\d\d)", re.MULTILINE)


@lru_cache(maxsize=1)
def _load() -> tuple[PublicSuffixList, str]:
    file = resources.files("publicsuffixlist").joinpath("public_suffix_list.dat")
    with file.open("rb") as source:
        # the date stands among the comments at the top
        dated = _DATE.search(source.read(4096))
    with file.open("rb") as source:
        # Line by line: the whole text and a list of its lines would leave 3 MB of holes in the memory.
        found = PublicSuffixList(source)
    package = metadata.version("publicsuffixlist")
    date = dated[1].decode("ascii") if dated else "unknown date"
    return found, f"publicsuffixlist {package}, list of {date}"


def version() -> str:
    """Return which list is used: the package's version and the day of the list it carries."""
    return _load()[1]


def organizational_domain(domain: Domain) -> Domain:
    """Return the name one label below the longest public suffix of `domain` (RFC 7489 §3.2).

    A public suffix has no such name above it and is its own Organizational Domain.
    """
    return _organizational_domain(domain.ascii)


def is_public_suffix(domain: Domain) -> bool:
    """True if strangers may own names directly below `domain`, by the list; true for every single label."""
    return _is_public_suffix(domain.ascii)


@lru_cache(maxsize=8192)
def _organizational_domain(name: str) -> Domain:
    return Domain(_load()[0].privatesuffix(name) or name)


@lru_cache(maxsize=8192)
def _is_public_suffix(name: str) -> bool:
    return "." not in name or _load()[0].is_public(name)
