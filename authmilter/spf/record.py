"""SPF records: choosing the one that counts, and reading what is not a mechanism (RFC 7208 §4.5, §4.6, §6).

A record is split into the mechanisms (evaluated by pyspf, see `_pyspf`), its two modifiers, and the names that
an evaluation will probably ask for. Total: what is wrong with a record is in `Record.fault`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from authmilter.spf.macros import domain_spec_fault, is_macro_string
from authmilter.text import printable

__all__ = ["MAX_RECORD", "MAX_TERM", "Record", "Target", "TargetKind", "read_record", "spf_records"]

#: Octets of a record that are read; RFC 7208 §3.4 wants it to fit into 512, flattened ones have a few thousand.
MAX_RECORD = 8192
#: Octets of one term that are read: a macro-string may be longer than what it expands to, but not by much.
MAX_TERM = 512
#: Records longer than this are not remembered, so that the memory of read records is bounded in octets, too.
_REMEMBERED = 2048
#: Counted terms of one record that are noted for reading ahead; more than ten are an error anyway.
_MAX_TARGETS = 32

# RFC 7208 §4.6.1   unknown-modifier = name "=" macro-string
#                   name = ALPHA *( ALPHA / DIGIT / "-" / "_" / "." )
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=", re.IGNORECASE)

# RFC 7208 §5.6   ip4-cidr-length = "/" ( "0" / ...) ; ip6-cidr-length = "/" ...
#          §4.8   dual-cidr-length = [ ip4-cidr-length ] [ "/" ip6-cidr-length ]
_CIDR = re.compile(r"/[0-9]{1,3}(?://[0-9]{1,3})?\Z|//[0-9]{1,3}\Z")


class TargetKind(Enum):
    """The kinds of terms that ask DNS and count (RFC 7208 §4.6.4)."""

    INCLUDE = "include"
    REDIRECT = "redirect"
    A = "a"
    MX = "mx"
    PTR = "ptr"
    EXISTS = "exists"


_KINDS = {k.value: k for k in TargetKind if k is not TargetKind.REDIRECT}


@dataclass(frozen=True, slots=True)
class Target:
    """A counted term: its kind and the name it asks for: `` is the record's own, None depends on macros."""

    kind: TargetKind
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as read. `mechanisms` is a record again, without its modifiers.

    `redirect` and `explanation` are domain-specs; None where the modifier is not there, or (redirect) has no
    effect because of an `all`. `targets` are the (first) counted terms in order of evaluation, up to an `all`.
    `fault` says what is wrong, printable US-ASCII, and is empty where nothing is; `oversized` tells our own
    limits from the domain's mistakes.
    """

    mechanisms: str = ""
    redirect: str | None = None
    explanation: str | None = None
    targets: tuple[Target, ...] = ()
    fault: str = ""
    oversized: bool = False


def spf_records(texts: Iterable[bytes]) -> list[bytes]:
    """Return those of a name's TXT records that are SPF records (RFC 7208 §4.5)."""
    # RFC 7208 §4.5: exactly `v=spf1`, terminated by a space or the end of the record
    return [t for t in texts if t[:6].lower() == b"v=spf1" and t[6:7] in {b"", b" "}]


def read_record(text: bytes) -> Record:
    """Read an SPF record, as `spf_records` found it. Total; mechanisms are not checked here."""
    if len(text) > MAX_RECORD:
        return Record(fault=f"the record is longer than {MAX_RECORD} octets", oversized=True)
    return _remembered(text) if len(text) <= _REMEMBERED else _read(text)


def _read(text: bytes) -> Record:
    # RFC 7208 §3.1: US-ASCII; §4.6.1: terms are separated by spaces and made of visible characters
    record = text.decode("latin-1")
    if not record.isascii() or not record.isprintable():
        return Record(fault="a character that is not printable US-ASCII")
    mechanisms = ["v=spf1"]
    modifiers: dict[str, str] = {}
    targets: list[Target] = []
    ended = False
    for term in record[6:].split(" "):
        if not term:
            continue
        if len(term) > MAX_TERM:
            return Record(fault=f"a term is longer than {MAX_TERM} octets", oversized=True)
        modifier = _MODIFIER.match(term)
        if modifier is None:
            mechanisms.append(term)
            bare = term[1:] if term[0] in "+-?~" else term
            if bare.lower() == "all":
                ended = True
            elif not ended and len(targets) < _MAX_TARGETS:
                _add_target(bare, targets)
            continue
        # RFC 7208 §4.6.1: names are case-insensitive
        name, value = modifier.group(1).lower(), term[modifier.end() :]
        if name in {"redirect", "exp"}:
            # RFC 7208 §6: each at most once
            fault = f"{name}= stands more than once" if name in modifiers else domain_spec_fault(value)
            modifiers[name] = value
        else:
            # RFC 7208 §6: an unrecognized modifier is ignored wherever and however often it stands, if well-formed
            fault = "" if is_macro_string(value) else "invalid macro"
        if fault:
            return Record(fault=f"{fault}: {printable(term, 80)}")
    # RFC 7208 §6.1: redirect is ignored if there is an `all` anywhere
    redirect = None if ended else modifiers.get("redirect")
    if redirect is not None:
        targets.append(Target(TargetKind.REDIRECT, _literal(redirect)))
    return Record(
        mechanisms=" ".join(mechanisms),
        redirect=redirect,
        explanation=modifiers.get("exp"),
        targets=tuple(targets),
    )


_remembered = lru_cache(maxsize=2048)(_read)


def _add_target(term: str, targets: list[Target]) -> None:
    word, colon, spec = term.partition(":")
    kind = _KINDS.get(word.partition("/")[0].lower())
    if kind is None:
        return
    if colon and kind in {TargetKind.A, TargetKind.MX}:
        spec = _CIDR.sub("", spec)
    targets.append(Target(kind, _literal(spec)))


def _literal(spec: str) -> str | None:
    return None if "%" in spec else spec
