"""Names that arrive from strangers: parsed once, compared only when parsed.

`Domain`, `Address` and the kinds a reverse-path, a recipient or a HELO argument may be. Each parse either
gives a value or says why not; nothing is repaired. A `Domain` is lower case, A-labels, no dot at the end,
so that two domains are equal exactly when their texts are.

Raises: `Domain.parse` and `Address.parse` raise `InvalidName`; `parse_reverse_path`, `parse_recipient`
and `parse_helo` are total and answer `Malformed` instead.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from authmilter import grammar, idn
from authmilter.errors import InvalidName

__all__ = [
    "Address",
    "AddressLiteral",
    "Domain",
    "Helo",
    "IPAddress",
    "LocalPart",
    "Malformed",
    "NullPath",
    "Recipient",
    "ReversePath",
    "parse_helo",
    "parse_ip",
    "parse_recipient",
    "parse_reverse_path",
]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: RFC 5321 §4.5.3.1.3 allows 256 octets; a little more is read so that the verdict can name the address.
MAX_PATH = 1024


@dataclass(frozen=True, slots=True, order=True)
class Domain:
    """A domain name in A-labels, lower case, without a dot at the end; build it with `parse` only."""

    ascii: str

    @classmethod
    def parse(cls, text: str) -> Domain:
        """Read `text` (A-labels or U-labels, one dot at the end allowed) as a domain name.

        Raises:
            InvalidName: empty label, label over 63 or name over 253 octets (RFC 1035 §2.3.4), a character
                outside letters, digits, hyphen and underscore, an all-digit last label (it would be read
                as an address, RFC 3696 §2), or U-labels that IDNA 2008 (RFC 5891) refuses.
        """
        return _parse_domain(text)

    @classmethod
    def maybe(cls, text: str) -> Domain | None:
        """Like `parse`, with None instead of an exception."""
        try:
            return _parse_domain(text)
        except InvalidName:
            return None

    @property
    def unicode(self) -> str:
        """The name with U-labels where IDNA 2008 gives them (for people, never for comparing)."""
        return idn.to_unicode(self.ascii)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, leftmost first."""
        return tuple(self.ascii.split("."))

    @property
    def parent(self) -> Domain | None:
        """The name without its leftmost label; None for a single label."""
        _, dot, rest = self.ascii.partition(".")
        return Domain(rest) if dot else None

    def rightmost(self, count: int) -> Domain:
        """Return the `count` (1 or more) rightmost labels, or the name itself where it has no more."""
        return Domain(".".join(self.ascii.rsplit(".", count)[-count:]))

    def is_at_or_below(self, other: Domain) -> bool:
        """True if this is `other` or one of its subdomains."""
        return self.ascii == other.ascii or self.ascii.endswith("." + other.ascii)

    def __str__(self) -> str:
        return self.ascii


@lru_cache(maxsize=8192)
def _parse_domain(text: str) -> Domain:
    name = text.removesuffix(".") if text != "." else text
    if not name:
        raise InvalidName("empty domain name")
    if len(name) > 1024:
        raise InvalidName("domain name is far too long")
    if not name.isascii():
        name = idn.to_ascii(name)
    name = name.lower()
    if len(name) > 253:
        raise InvalidName("domain name is longer than 253 octets")
    labels = name.split(".")
    for label in labels:
        if not grammar.LABEL.fullmatch(label):
            raise InvalidName("empty, over-long or ill-formed label in domain name")
    if labels[-1].isdigit():
        raise InvalidName("the last label is all digits")
    return Domain(name)


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: `local` part as written without its quotes (may be UTF-8 text), and a parsed `domain`."""

    local: str
    domain: Domain

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an RFC 5321 §4.1.2 Mailbox (`dot-string@domain` or `"quoted"@domain`), no angle brackets.

        Raises:
            InvalidName: not a mailbox whose part after the last unquoted `@` is a domain.
        """
        local, rest = _split_local(text)
        return cls(local, Domain.parse(rest))

    def __str__(self) -> str:
        return f"{quote_local(self.local)}@{self.domain.ascii}"


@dataclass(frozen=True, slots=True)
class NullPath:
    """The null reverse-path `<>` (RFC 5321 §4.5.5): a bounce."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class LocalPart:
    """An address without a domain (`<root>`, `<postmaster>`): locally submitted mail, RFC 5321 §4.1.1.3."""

    local: str

    def __str__(self) -> str:
        return quote_local(self.local)


@dataclass(frozen=True, slots=True)
class AddressLiteral:
    """`user@[192.0.2.1]` (RFC 5321 §4.1.3); as a HELO argument `local` is empty."""

    local: str
    ip: IPAddress | None

    def __str__(self) -> str:
        if self.ip is None:
            literal = "[]"
        elif self.ip.version == 6:
            literal = f"[IPv6:{self.ip}]"
        else:
            literal = f"[{self.ip}]"
        return f"{quote_local(self.local)}@{literal}" if self.local else literal


@dataclass(frozen=True, slots=True)
class Malformed:
    """What a stranger wrote where a name should be: `raw` (decoded with surrogateescape) and `why` not."""

    raw: str
    why: str

    def __str__(self) -> str:
        return self.raw


ReversePath = NullPath | Address | LocalPart | AddressLiteral | Malformed
Recipient = Address | LocalPart | AddressLiteral | Malformed
Helo = Domain | AddressLiteral | Malformed


def quote_local(local: str) -> str:
    """Return a local part as RFC 5321 §4.1.2 writes it: bare if a Dot-string, else a Quoted-string."""
    if grammar.DOT_STRING.fullmatch(local):
        return local
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse_ip(text: str) -> IPAddress | None:
    """Read an IP address; IPv4-mapped IPv6 becomes IPv4 (RFC 7208 §5); None if it is none."""
    try:
        ip = ipaddress.ip_address(text.removeprefix("IPv6:").removeprefix("ipv6:"))
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id:
            return None
        return ip.ipv4_mapped or ip
    return ip


def _split_local(text: str) -> tuple[str, str]:
    """Split a Mailbox into its local part (unquoted) and the rest after the `@`."""
    quoted = grammar.QUOTED_LOCAL.match(text)
    if quoted:
        local = grammar.QUOTED_PAIR.sub(r"\1", quoted.group(1))
        rest = text[quoted.end() :]
        if not rest.startswith("@"):
            raise InvalidName("no @ after the quoted local part")
        return local, rest[1:]
    local, at, rest = text.rpartition("@")
    if not at:
        raise InvalidName("no @")
    if not grammar.DOT_STRING.fullmatch(local):
        raise InvalidName("ill-formed local part")
    return local, rest


def _parse_path(raw: str) -> Address | LocalPart | AddressLiteral | Malformed:
    text = raw
    if text.startswith("<") or text.endswith(">"):
        if not (text.startswith("<") and text.endswith(">") and len(text) > 1):
            return Malformed(raw, "unbalanced angle brackets")
        text = text[1:-1]
    if len(text) > MAX_PATH:
        return Malformed(raw[:MAX_PATH], "path is too long")
    if text.startswith("@"):
        # RFC 5321 §4.1.1.3, appendix C: a source route is accepted and ignored; only the mailbox counts.
        route, colon, text = text.partition(":")
        if not colon or not grammar.SOURCE_ROUTE.fullmatch(route):
            return Malformed(raw, "ill-formed source route")
    try:
        local, rest = _split_local(text)
    except InvalidName as e:
        if "@" not in text and grammar.DOT_STRING.fullmatch(text):
            return LocalPart(text)
        return Malformed(raw, str(e))
    if rest.startswith("[") and rest.endswith("]"):
        ip = parse_ip(rest[1:-1])
        if ip is None:
            return Malformed(raw, "ill-formed address literal")
        return AddressLiteral(local, ip)
    try:
        return Address(local, Domain.parse(rest))
    except InvalidName as e:
        return Malformed(raw, str(e))


def parse_reverse_path(raw: str) -> ReversePath:
    """Read a MAIL FROM argument, with or without its angle brackets (standards: milter passes both).

    `<>` and the empty text are the null path (RFC 5321 §4.5.5); whatever is not a mailbox, a lone local
    part or an address literal is `Malformed`, never the null path. Total.
    """
    if raw in {"", "<>"}:
        return NullPath()
    return _parse_path(raw)


def parse_recipient(raw: str) -> Recipient:
    """Read a RCPT TO argument, with or without its angle brackets. Total."""
    if raw in {"", "<>"}:
        return Malformed(raw, "empty recipient")
    return _parse_path(raw)


def parse_helo(raw: str) -> Helo:
    """Read a HELO/EHLO argument (RFC 5321 §4.1.1.1): a domain, an address literal, or `Malformed`. Total."""
    if raw.startswith("[") and raw.endswith("]"):
        ip = parse_ip(raw[1:-1])
        return AddressLiteral("", ip) if ip is not None else Malformed(raw, "ill-formed address literal")
    try:
        return Domain.parse(raw)
    except InvalidName as e:
        return Malformed(raw[:MAX_PATH], str(e))
