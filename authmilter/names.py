"""Names that arrive from strangers: parsed once, compared only when parsed.

`Domain`, `Address` and the kinds a reverse-path, a recipient or a HELO argument may be. Each parse either
gives a value or says why not; nothing is repaired. A `Domain` is lower case, A-labels, no dot at the end,
so that two domains are equal exactly when their texts are. An `Address` never holds a character that does not
show: its local part is printable text.

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
    "is_local_part",
    "parse_helo",
    "parse_ip",
    "parse_recipient",
    "parse_reverse_path",
    "quote_local",
]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: RFC 5321 §4.5.3.1.3 allows 256 octets; a little more is read so that the verdict can name the address.
MAX_PATH = 1024

#: RFC 1035 §2.3.4 allows 253 characters (255 octets on the wire); U-labels may be longer than their A-labels.
MAX_DOMAIN_TEXT = 1024

#: Names and addresses come again and again, and are parsed once. What is remembered is bounded in texts and in the
#: characters of each, so that no stranger fills our memory with long ones; a longer text is parsed every time.
_MAX_KEPT_TEXT = 255

_DOT_STRING = grammar.DOT_STRING.fullmatch


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
        return _parse_domain(text) if len(text) <= _MAX_KEPT_TEXT else _read_domain(text)

    @classmethod
    def maybe(cls, text: str) -> Domain | None:
        """Like `parse`, with None instead of an exception."""
        return _parse_domain_or_none(text) if len(text) <= _MAX_KEPT_TEXT else _read_domain_or_none(text)

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

    def __hash__(self) -> int:
        # The text keeps its own hash: half the price of the tuple that the dataclass would make.
        return hash(self.ascii)

    def __str__(self) -> str:
        return self.ascii


def _read_domain(text: str) -> Domain:
    if len(text) > MAX_DOMAIN_TEXT:
        raise InvalidName("domain name is far too long")
    name = text.removesuffix(".")
    if not name:
        raise InvalidName("empty domain name")
    if not name.isascii():
        # A U-label grows by four octets at least (RFC 5890 §2.3.2.1): what cannot fit is not worth the conversion.
        if len(name) + 4 * sum(not label.isascii() for label in name.split(".")) > 253:
            raise InvalidName("domain name is longer than 253 octets")
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


_parse_domain = lru_cache(maxsize=8192)(_read_domain)


def _read_domain_or_none(text: str) -> Domain | None:
    try:
        return Domain.parse(text)
    except InvalidName:
        return None


_parse_domain_or_none = lru_cache(maxsize=4096)(_read_domain_or_none)


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: `local` part as written without its quotes (may be UTF-8 text), and a parsed `domain`.

    Build it with `parse`, or from a local part that `is_local_part` and a parsed domain.
    """

    local: str
    domain: Domain

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an RFC 5321 §4.1.2 Mailbox (`dot-string@domain` or `"quoted"@domain`), no angle brackets.

        Raises:
            InvalidName: not a mailbox whose part after the last unquoted `@` is a domain, or a local part with
                a character that does not show (`str.isprintable`: zero-width, direction override, unassigned).
        """
        local, rest = _split_local(text)
        return cls(local, Domain.parse(rest))

    def __str__(self) -> str:
        local = self.local
        # most are a Dot-string, which is written as it is
        return f"{local if _DOT_STRING(local) else quote_local(local)}@{self.domain.ascii}"


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
    ip: IPAddress

    def __str__(self) -> str:
        literal = f"[IPv6:{self.ip}]" if self.ip.version == 6 else f"[{self.ip}]"
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
    """Return a local part as RFC 5321 §4.1.2 writes it: bare if a Dot-string, else a Quoted-string.

    The inverse of what the parsers do: for every `Address` a, `Address.parse(str(a)) == a`.
    """
    if _DOT_STRING(local):
        return local
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse_ip(text: str) -> IPAddress | None:
    """Read an IP address; IPv4-mapped IPv6 becomes IPv4 (RFC 7208 §5); None if it is none.

    An IPv6 address may carry the tag `IPv6:` (any case), as an MTA or an address literal writes it. An address with
    a scope (`fe80::1%eth0`) means something only to the host it is on and is none here. Total.
    """
    return _parse_ip(text) if len(text) <= _MAX_KEPT_TEXT else _read_ip(text)


def _read_ip(text: str) -> IPAddress | None:
    tagged = text[:5].lower() == "ipv6:"
    try:
        ip = ipaddress.ip_address(text[5:] if tagged else text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return None if tagged else ip
    if ip.scope_id is not None:
        return None
    return ip.ipv4_mapped or ip


_parse_ip = lru_cache(maxsize=4096)(_read_ip)


def _parse_literal(text: str) -> IPAddress | None:
    """Read `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3): the tag is not optional."""
    inside = text[1:-1]
    if ":" in inside and inside[:5].lower() != "ipv6:":
        return None
    return parse_ip(inside)


def is_local_part(text: str) -> bool:
    """True if every character of a local part (without its quotes) shows.

    RFC 6531 §3.3 and RFC 6532 §3.2 allow any character over U+007F. A zero-width space, a direction override or an
    unassigned code point there serves only to make one address look like another, so that no address has one.
    """
    return text.isprintable()


def _split_local(text: str) -> tuple[str, str]:
    """Split a Mailbox into its local part (unquoted) and the rest after the `@`."""
    quoted = grammar.QUOTED_LOCAL.match(text)
    if quoted:
        local = grammar.QUOTED_PAIR.sub(r"\1", quoted.group(1))
        rest = text[quoted.end() :]
        if not rest.startswith("@"):
            raise InvalidName("no @ after the quoted local part")
        rest = rest[1:]
    else:
        # No Dot-string holds an @, so that splitting at the last is splitting at the only one.
        local, at, rest = text.rpartition("@")
        if not at:
            raise InvalidName("no @")
        if not grammar.DOT_STRING.fullmatch(local):
            raise InvalidName("ill-formed local part")
    if not is_local_part(local):
        raise InvalidName("a character in the local part does not show")
    return local, rest


def _read_path(raw: str) -> Address | LocalPart | AddressLiteral | Malformed:
    if len(raw) > MAX_PATH:
        return _malformed(raw, "path is too long")
    plain = grammar.PLAIN_PATH.fullmatch(raw)
    if plain is not None:
        # Nearly all mail. What it matches has its parts where the steps below would find them.
        domain = Domain.maybe(plain[2])
        if domain is not None:
            return Address(plain[1], domain)
    text = raw
    if text.startswith("<") or text.endswith(">"):
        if not (text.startswith("<") and text.endswith(">")):
            return _malformed(raw, "unbalanced angle brackets")
        text = text[1:-1]
    if text.startswith("@"):
        # RFC 5321 §4.1.1.3, appendix C: a source route is accepted and ignored; only the mailbox counts.
        route, colon, text = text.partition(":")
        if not colon or not grammar.SOURCE_ROUTE.fullmatch(route):
            return _malformed(raw, "ill-formed source route")
        if "@" not in text:
            return _malformed(raw, "no mailbox after the source route")
    try:
        if "@" not in text and grammar.DOT_STRING.fullmatch(text) and is_local_part(text):
            return LocalPart(text)
        local, rest = _split_local(text)
        if not (rest.startswith("[") and rest.endswith("]")):
            return Address(local, Domain.parse(rest))
    except InvalidName as e:
        return _malformed(raw, str(e))
    ip = _parse_literal(rest)
    return AddressLiteral(local, ip) if ip is not None else _malformed(raw, "ill-formed address literal")


_parse_path = lru_cache(maxsize=4096)(_read_path)


def _malformed(raw: str, why: str) -> Malformed:
    return Malformed(raw[:MAX_PATH], why)


_NULL_PATH = NullPath()


def parse_reverse_path(raw: str) -> ReversePath:
    """Read a MAIL FROM argument, with or without its angle brackets: an MTA may hand over either.

    `<>` and the empty text are the null path (RFC 5321 §4.5.5); whatever is not a mailbox, a lone local
    part or an address literal is `Malformed`, never the null path. Total.
    """
    if raw in {"", "<>"}:
        return _NULL_PATH
    return _parse_path(raw) if len(raw) <= _MAX_KEPT_TEXT else _read_path(raw)


def parse_recipient(raw: str) -> Recipient:
    """Read a RCPT TO argument, with or without its angle brackets. Total."""
    if raw in {"", "<>"}:
        return _malformed(raw, "empty recipient")
    return _parse_path(raw) if len(raw) <= _MAX_KEPT_TEXT else _read_path(raw)


def parse_helo(raw: str) -> Helo:
    """Read a HELO/EHLO argument (RFC 5321 §4.1.1.1): a domain, an address literal, or `Malformed`. Total."""
    return _parse_helo(raw) if len(raw) <= _MAX_KEPT_TEXT else _read_helo(raw)


def _read_helo(raw: str) -> Helo:
    if raw.startswith("[") and raw.endswith("]"):
        ip = _parse_literal(raw)
        return AddressLiteral("", ip) if ip is not None else _malformed(raw, "ill-formed address literal")
    try:
        return Domain.parse(raw)
    except InvalidName as e:
        return _malformed(raw, str(e))


_parse_helo = lru_cache(maxsize=4096)(_read_helo)
