"""Matchers: does a fact's value meet what a rule wants?

Each is made once, when a policy is loaded, and takes linear time in the value whatever a stranger wrote there: a
glob is matched piece by piece, a long list of names or networks by looking up, not by walking.

Names and texts are compared without regard to case. Raises: the `parse` functions raise `ValueError` with the
complaint as text, and perhaps a hint as second argument; a matcher never raises for a value of its kind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from authmilter.errors import InvalidName
from authmilter.names import Domain, IPAddress
from authmilter.policy.facts import Kind

__all__ = [
    "MAX_INDEXED",
    "Any",
    "AtOrBelow",
    "Entry",
    "Index",
    "Matches",
    "Networks",
    "Range",
    "domain_pattern",
    "matcher",
    "network",
    "read",
]

#: A matcher as rules use it.
Matches = Callable[[object], bool]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Stars in one glob.
MAX_STARS = 8
#: Characters in a glob.
MAX_GLOB = 320


@dataclass(frozen=True, slots=True)
class _Glob:
    """Text with `*` for any run of characters: what it begins with, ends with, and holds between, in order."""

    head: str
    middle: tuple[str, ...]
    tail: str

    def matches(self, text: str) -> bool:
        if (
            len(text) < len(self.head) + len(self.tail)
            or not text.startswith(self.head)
            or not text.endswith(self.tail)
        ):
            return False
        # The leftmost place of each piece leaves the most room for the next, so no way back is needed.
        at, end = len(self.head), len(text) - len(self.tail)
        for piece in self.middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


def _glob(pattern: str) -> _Glob:
    head, *rest = pattern.split("*")
    if len(pattern) > MAX_GLOB:
        raise ValueError(f"a pattern is at most {MAX_GLOB} characters long")
    if len(rest) > MAX_STARS:
        raise ValueError(f"a pattern has at most {MAX_STARS} stars")
    return _Glob(head, tuple(p for p in rest[:-1] if p), rest[-1])


@dataclass(frozen=True, slots=True)
class Globs:
    """Texts, of which those with a `*` are globs; `heads` are what those with one at their end begin with."""

    exact: frozenset[str]
    heads: tuple[str, ...]
    globs: tuple[_Glob, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Globs:
        """Make a matcher of `patterns`, each in lower case."""
        exact: set[str] = set()
        heads: list[str] = []
        globs: list[_Glob] = []
        for pattern in patterns:
            if "*" not in pattern:
                exact.add(pattern)
                continue
            glob = _glob(pattern)
            if glob.middle or glob.tail:
                globs.append(glob)
            else:
                heads.append(glob.head)
        return cls(frozenset(exact), tuple(heads), tuple(globs))

    def __call__(self, value: object) -> bool:
        """True if the text `value` is one of them."""
        if not isinstance(value, str):
            return False
        lowered = value.lower()
        if lowered in self.exact or lowered.startswith(self.heads):
            return True
        return bool(self.globs) and any(g.matches(lowered) for g in self.globs)


def domain_pattern(text: str) -> str:
    """Return a domain or glob as it is compared: A-labels, lower case; `.example.com` is `*.example.com`.

    Raises:
        ValueError: it is no domain, and no glob of one.
    """
    pattern = f"*{text}" if text.startswith(".") else text
    if "*" not in pattern:
        try:
            return Domain.parse(pattern).ascii
        except InvalidName as e:
            raise ValueError(f"`{text}` is not a domain: {e}") from None
    if pattern == "*":
        return pattern
    # Each star stands for text we do not know; a letter in its place shows whether the rest can be a domain.
    probe = pattern.replace("*", "x")
    try:
        Domain.parse(probe)
    except InvalidName as e:
        raise ValueError(f"`{text}` is not a pattern of domains: {e}") from None
    if not pattern.isascii():
        # U-labels, as long as the star stands alone in its label
        labels = [
            p if p == "*" else Domain.parse(p).ascii for p in pattern.split(".") if p == "*" or "*" not in p
        ]
        if len(labels) != pattern.count(".") + 1:
            raise ValueError(f"in `{text}` a star must stand alone in its label")
        pattern = ".".join(labels)
    _glob(pattern)
    return pattern.lower()


@dataclass(frozen=True, slots=True)
class AtOrBelow:
    """Domains, and whatever is below them."""

    domains: frozenset[str]

    def __call__(self, value: object) -> bool:
        """True if the domain `value` is one of them or below one."""
        return isinstance(value, str) and (value in self.domains or _below(value, self.domains))


def _below(name: str, domains: frozenset[str]) -> bool:
    """True if a parent of `name` is among `domains`."""
    rest = name.partition(".")[2]
    while rest:
        if rest in domains:
            return True
        rest = rest.partition(".")[2]
    return False


@dataclass(frozen=True, slots=True)
class Names:
    """Domains, `*.domain` for those below one, and other globs."""

    exact: frozenset[str]
    below: frozenset[str]
    globs: tuple[_Glob, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Names:
        """Make a matcher of patterns as `domain_pattern` gives them."""
        exact: set[str] = set()
        below: set[str] = set()
        globs: list[_Glob] = []
        for pattern in patterns:
            if "*" not in pattern:
                exact.add(pattern)
            elif pattern.startswith("*.") and "*" not in pattern[2:]:
                below.add(pattern[2:])
            else:
                globs.append(_glob(pattern))
        return cls(frozenset(exact), frozenset(below), tuple(globs))

    def __call__(self, value: object) -> bool:
        """True if the domain `value` is one of them."""
        if not isinstance(value, str):
            return False
        return (
            value in self.exact
            or (bool(self.below) and _below(value, self.below))
            or any(g.matches(value) for g in self.globs)
        )


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)


def network(text: str) -> Network:
    """Read an IP address or CIDR network; IPv4-mapped IPv6 becomes IPv4, as in `client.ip`.

    Raises:
        ValueError: it is none; the second argument hints at the network that was meant.
    """
    if _IPV4.fullmatch(text):  # most entries of long lists; the library takes four times as long
        a, b, c, d = map(int, text.split("."))
        return ipaddress.IPv4Network((a << 24 | b << 16 | c << 8 | d, 32))
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"`{text}` is not an IP address or network") from None
    if "/" in text and found.network_address != ipaddress.ip_address(text.partition("/")[0]):
        raise ValueError(f"`{text}` has bits set outside its mask", f"did you mean `{found}`?")
    if isinstance(found, ipaddress.IPv6Network):
        if found.network_address.scope_id:
            raise ValueError(f"`{text}` is not an IP address or network")
        mapped = found.network_address.ipv4_mapped
        if mapped is not None and found.prefixlen >= 96:
            return ipaddress.IPv4Network((int(mapped), found.prefixlen - 96))
    return found


@dataclass(frozen=True, slots=True)
class Networks:
    """Networks, by IP version and length of mask: (version, bits to drop, the numbers left)."""

    masks: tuple[tuple[int, int, frozenset[int]], ...]

    @classmethod
    def of(cls, networks: Iterable[Network]) -> Networks:
        """Make a matcher of `networks`."""
        sets: dict[tuple[int, int], set[int]] = {}
        for item in networks:
            drop = item.max_prefixlen - item.prefixlen
            sets.setdefault((item.version, drop), set()).add(int(item.network_address) >> drop)
        return cls(
            tuple((version, drop, frozenset(numbers)) for (version, drop), numbers in sorted(sets.items()))
        )

    def __call__(self, value: object) -> bool:
        """True if the IP address `value` is in one of them."""
        if not isinstance(value, IPAddress):
            return False
        version, number = value.version, int(value)
        return any(v == version and (number >> drop) in numbers for v, drop, numbers in self.masks)


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`, both included; None: no bound."""

    low: int | None = None
    high: int | None = None

    def matches(self, value: object) -> bool:
        """True if the number `value` lies in the range."""
        return (
            isinstance(value, int)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
        )

    def meet(self, other: Range) -> Range:
        """Return the numbers in both; it may be empty."""
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return Range(max(lows, default=None), min(highs, default=None))

    @property
    def is_empty(self) -> bool:
        """True if no number lies in it."""
        return self.low is not None and self.high is not None and self.low > self.high


#: One thing to be matched, as it is compared.
Entry = str | Network


def read(kind: Kind, text: str) -> Entry:
    """Read one thing that a DOMAIN, IP or TEXT fact may be compared with.

    Raises:
        ValueError: it is none; the second argument, if any, is a hint.
    """
    if kind is Kind.DOMAIN:
        return domain_pattern(text)
    if kind is Kind.IP:
        return network(text)
    if "*" in text:
        _glob(text)
    return text.lower()


def matcher(kind: Kind, entries: Iterable[Entry]) -> Matches:
    """Return what is true for a value that is one of `entries`, read for facts of that kind."""
    if kind is Kind.IP:
        return Networks.of(e for e in entries if not isinstance(e, str))
    texts = [e for e in entries if isinstance(e, str)]
    return Names.of(texts) if kind is Kind.DOMAIN else Globs.of(texts)


@dataclass(frozen=True, slots=True)
class Any:
    """A list of which one value or more meet `test`."""

    test: Matches

    def __call__(self, value: object) -> bool:
        """True if one of the values in the list does."""
        return isinstance(value, tuple) and any(map(self.test, value))


#: Entries of a test that is looked up together with others; longer lists are asked alone, and not held twice.
MAX_INDEXED = 1000


class _Lookup:
    """The places of tests by what they are met by."""

    __slots__ = ("_below", "_names", "_networks", "_texts")

    def __init__(self) -> None:
        self._names: dict[str, list[int]] = {}
        self._below: dict[str, list[int]] = {}
        self._texts: dict[str, list[int]] = {}
        self._networks: dict[tuple[int, int], dict[int, list[int]]] = {}

    def takes(self, place: int, test: Matches) -> bool:
        """Take in the test at `place`; False where it cannot be looked up."""
        if isinstance(test, Networks):
            if sum(len(numbers) for _, _, numbers in test.masks) > MAX_INDEXED:
                return False
            for version, drop, numbers in test.masks:
                _enter(self._networks.setdefault((version, drop), {}), numbers, place)
            return True
        if isinstance(test, AtOrBelow):
            names = below = test.domains
        elif isinstance(test, Names) and not test.globs:
            names, below = test.exact, test.below
        elif isinstance(test, Globs) and not test.globs and not test.heads and len(test.exact) <= MAX_INDEXED:
            _enter(self._texts, test.exact, place)
            return True
        else:
            return False
        if len(names) + len(below) > MAX_INDEXED:
            return False
        _enter(self._names, names, place)
        _enter(self._below, below, place)
        return True

    def find(self, value: object, found: set[int]) -> None:
        """Add the places of the tests that `value` meets."""
        if isinstance(value, str):
            found.update(self._names.get(value, ()))
            if self._texts:
                found.update(self._texts.get(value.lower(), ()))
            rest = value.partition(".")[2] if self._below else ""
            while rest:
                found.update(self._below.get(rest, ()))
                rest = rest.partition(".")[2]
        elif isinstance(value, IPAddress):
            version, number = value.version, int(value)
            for (v, drop), numbers in self._networks.items():
                if v == version:
                    found.update(numbers.get(number >> drop, ()))


T = TypeVar("T", str, int)


def _enter(places: dict[T, list[int]], keys: Iterable[T], place: int) -> None:
    for key in keys:
        places.setdefault(key, []).append(place)


class Index:
    """Which of many tests a value meets: names, texts and networks are looked up for all tests at once.

    Five hundred rules that want one domain each are then no more work than one. What is no name, text or network (a
    negation, a glob, a number) and what is a long list is asked by itself.
    """

    __slots__ = ("_each", "_one", "_others")

    def __init__(self, tests: Sequence[Matches]) -> None:
        self._one = _Lookup()
        # (tests that one value of a list must meet)
        self._each = _Lookup()
        self._others: list[tuple[int, Matches]] = []
        for place, test in enumerate(tests):
            inner = isinstance(test, Any) and self._each.takes(place, test.test)
            if not inner and not self._one.takes(place, test):
                self._others.append((place, test))

    def met(self, value: object) -> tuple[int, ...]:
        """Return the places of the tests that `value` meets, in order: exactly those that are true for it. Total."""
        found = {place for place, test in self._others if test(value)}
        if isinstance(value, tuple):
            for each in value:
                self._each.find(each, found)
        else:
            self._one.find(value, found)
        return tuple(sorted(found))
