"""What an administrator says about header fields: our names, what is written, what is removed.

A value, checked when it is made. How it fails: `HeaderSettings(...)` raises `ValueError` where a text could not be
written into, or looked for in, a header; nothing fails later.
"""

from __future__ import annotations

import re
from collections.abc import KeysView, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from authmilter import grammar
from authmilter.mail import Origin
from authmilter.names import Domain

__all__ = ["PROTECTED", "HeaderSettings", "Removal", "removal"]

# RFC 5322 §3.6.8 field-name, here with an optional * at the end: at least two letters must stand before it.
_PATTERN = re.compile(r"[!-)+-9;-~]{2,200}\*?")
#: Fields that no setting and no tag can remove: those a message is made of (RFC 5322 §3.6, RFC 2045), its
#: signatures (RFC 6376, and every ARC field: RFC 8617 §4.1) and Authentication-Results, which has its own rule.
PROTECTED = frozenset(
    {
        b"authentication-results",
        b"bcc",
        b"bimi-selector",
        b"cc",
        b"content-disposition",
        b"content-transfer-encoding",
        b"content-type",
        b"date",
        b"dkim-signature",
        b"from",
        b"in-reply-to",
        b"message-id",
        b"mime-version",
        b"received",
        b"references",
        b"reply-to",
        b"return-path",
        b"sender",
        b"subject",
        b"to",
    }
)
#: draft-brand-indicators-for-message-identification §7.7: a receiver's own fields, never a sender's
_BIMI = ("BIMI-Location", "BIMI-Indicator", "BIMI-Logo-Preference")
_PROTECTED_PREFIX = (b"arc-", b"resent-")


@dataclass(frozen=True, slots=True)
class Removal:
    """A set of field names to remove: exact names and beginnings of names, both lower case, of `patterns`."""

    patterns: tuple[str, ...] = ()
    exact: frozenset[bytes] = frozenset()
    prefixes: tuple[bytes, ...] = ()
    #: the same as text, for the keys of `Message.by_name`: names, and line end and prefix
    _names: frozenset[str] = frozenset()
    _line_starts: tuple[str, ...] = ()

    def covers(self, key: bytes) -> bool:
        """True if a field whose lower-case name is `key` is to be removed; never for a protected name."""
        if key in self.exact or (self.prefixes and key.startswith(self.prefixes)):
            return key not in PROTECTED and not key.startswith(_PROTECTED_PREFIX)
        return False

    def also(self, *names: str) -> Removal:
        """Return the same with these names."""
        return removal(*self.patterns, *names)

    def may_cover_one_of(self, keys: KeysView[str]) -> bool:
        """False if none of a message's `keys` is of a name to remove: most often so, and known without a loop."""
        if not keys.isdisjoint(self._names):
            return True
        # All names as one text, each on a line: to search that costs less than to ask every name for its beginning.
        lines = "\n" + "\n".join(keys)
        for start in self._line_starts:  # noqa: SIM110 - a generator costs more than the search
            if start in lines:
                return True
        return False


@lru_cache(maxsize=64)
def removal(*patterns: str) -> Removal:
    """Return the `Removal` of field names written as `Name` or `Prefix*`."""
    exact = {p.lower().encode("ascii") for p in patterns if not p.endswith("*")}
    prefixes = {p[:-1].lower().encode("ascii") for p in patterns if p.endswith("*")}
    return Removal(
        patterns,
        frozenset(exact),
        tuple(sorted(prefixes)),
        frozenset(name.decode("ascii") for name in exact),
        tuple(f"\n{prefix.decode('ascii')}" for prefix in sorted(prefixes)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderSettings:
    """What is written into and removed from header blocks.

    Attributes:
        authserv_id: our name in Authentication-Results (RFC 8601 §2.5); empty: the MTA's own name.
        siblings: further authserv-ids of our own; fields with these are removed as forged (§5). `*.example.com`
            stands for every name below example.com.
        received_spf: also write Received-SPF (RFC 7208 §9.1), one for each identity.
        comments: write comments into Authentication-Results and Received-SPF; some readers misread them.
        show_login: write the login of an authenticated sender (`smtp.auth=`); without it only `auth=pass`.
        strip_received_spf: remove Received-SPF fields of others. None: from internet mail, if we write our own;
            True: from all mail that is not a trusted hop's; False: never.
        strip: further field names (`X-Spam-Flag`, `X-Spam-*`) removed from internet and relayed mail.
        own_headers: field names that only this service may write (its tags); removed from all mail but a trusted
            hop's, so that nobody can forge them.
        receiver: our host name in Received-SPF; empty: the authserv-id.
        bimi_indicator: write the logo itself into BIMI-Indicator where BIMI is pass.
        removals: the names of which every field is removed, by where a mail comes from; it follows from the others.

    Raises:
        ValueError: an id or a name that cannot stand in a header, or a pattern that would take everything.
    """

    authserv_id: str = ""
    siblings: tuple[str, ...] = ()
    received_spf: bool = False
    comments: bool = True
    show_login: bool = True
    strip_received_spf: bool | None = None
    strip: tuple[str, ...] = ()
    own_headers: tuple[str, ...] = ("X-Authmilter-*",)
    receiver: str = ""
    bimi_indicator: bool = True
    removals: Mapping[Origin, Removal] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for text in (self.authserv_id, self.receiver, *(s.removeprefix("*.") for s in self.siblings)):
            if len(text) > 253 or (text and not (grammar.MIME_TOKEN.fullmatch(text) or Domain.maybe(text))):
                raise ValueError(f"{text!a} cannot be an authserv-id: it is no host name")
        for pattern in (*self.strip, *self.own_headers):
            if not _PATTERN.fullmatch(pattern):
                raise ValueError(f"{pattern!a} is no field name, with or without a * at its end")
        object.__setattr__(self, "removals", {origin: self._removal(origin) for origin in Origin})

    def _removal(self, origin: Origin) -> Removal:
        if origin is Origin.TRUSTED_HOP:
            # What it brings back we may have written ourselves.
            return removal()
        patterns = [*_BIMI, *self.own_headers]
        if origin in {Origin.INTERNET, Origin.TRUSTED_RELAY}:
            patterns += self.strip
        if self.strip_received_spf or (
            self.strip_received_spf is None and self.received_spf and origin is Origin.INTERNET
        ):
            patterns.append("Received-SPF")
        return removal(*patterns)
