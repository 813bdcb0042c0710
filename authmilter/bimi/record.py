"""BIMI Assertion Records and BIMI-Selector: text to value (BIMI draft -12 §4.3, §4.5, §5.1).

Promises: linear in the text's length, bounded by the constants below, and total: any octets give a record, a fault or
nothing. Nothing is repaired (§4.3: syntax and capitals count), so names and words are case-sensitive.

Where the draft is silent: a tag that stands twice makes the whole record faulty (it follows RFC 6376 §3.2, which says
so); of `lps=` items that no local part can begin with nothing is made, they match nobody; a URI has at most `MAX_URI`
octets and a host name with a top level that is a name, so that no spelling of an address passes for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from authmilter.bimi.result import BimiProblem, BimiRecord, Preference
from authmilter.names import Domain

__all__ = [
    "MAX_RECORD",
    "MAX_SELECTOR_FIELD",
    "MAX_TAGS",
    "MAX_TEXTS",
    "MAX_URI",
    "Fault",
    "local_part_selector",
    "parse",
    "read_selector",
    "select",
]

#: Octets of a record that are read; real ones stay below 500.
MAX_RECORD = 4096
#: Tags of a record that are read.
MAX_TAGS = 32
#: TXT records at one name that are looked at.
MAX_TEXTS = 100
#: Octets of a URI: written into a header it must fit on a line (RFC 5322 §2.1.1).
MAX_URI = 900
#: Items of `lps=` that are kept.
MAX_LOCAL_PARTS = 64
#: Octets of a BIMI-Selector field: a domain name's length is the most a selector can have.
MAX_SELECTOR_FIELD = 512

# BIMI §4.3   bimi-version = "v" *WSP "=" *WSP "BIMI1" ; bimi-sep = *WSP ";" *WSP
_VERSION = re.compile(rb"v[ \t]*+=[ \t]*+BIMI1[ \t]*+(?:;|\Z)")
# RFC 6376 §3.2   tag-name = ALPHA *ALNUMPUNC ; tval = 1*VALCHAR *( (WSP / FWS) 1*VALCHAR ) ; what stands around
# name and value is cut off before
_TAG = re.compile(r"([A-Za-z][A-Za-z0-9_]*+)[ \t]*+=[ \t]*+([\t -:<-~]*+)")
# RFC 3986 §3: https, a host name, a port, path, query and fragment; without "," (BIMI §4.3) and ";" (ends the tag)
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+=:@-]|%[0-9A-Fa-f]{2})"
_URI = re.compile(
    rf"[Hh][Tt][Tt][Pp][Ss]://([A-Za-z0-9._-]++)(?::([0-9]{{1,5}}))?"
    rf"((?:/{_PCHAR}*+)*+)(?:\?(?:{_PCHAR}|[/?])*+)?(?:\#(?:{_PCHAR}|[/?])*+)?"
)
_TOP_LEVEL = re.compile(r"[a-z][a-z0-9-]*[a-z0-9]")
# BIMI §4.3.2: only SVG, plain or gzip-compressed, is registered; these are other image formats
_OTHER_FORMAT = re.compile(
    r"\.(?:apng|avif|bmp|cur|eps|gif|heic|heif|ico|jfif|jpe?g|jxl|pdf|png|ps|tiff?|webp)", re.IGNORECASE
)
# BIMI §4.4   selector = sub-domain *( "." sub-domain ) ; RFC 5321 §4.1.2 sub-domain = Let-dig [Ldh-str]
_SUB_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})*")
# BIMI §5.1   bimi-selector-header = bimi-header-version bimi-sep bimi-selector [bimi-sep]; folds are taken out before
_SELECTOR_FIELD = re.compile(
    r"[ \t]*+v[ \t]*+=[ \t]*+BIMI1[ \t]*+;[ \t]*+s[ \t]*+=[ \t]*+([A-Za-z0-9.-]++)[ \t]*+(?:;[ \t]*+)?"
)
# BIMI §4.5 step 3
_TO_DASH = re.compile(r"[._]+")
_NORMALIZED = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, slots=True)
class Fault:
    """A text that says it is a BIMI record and cannot be used: why, and the same in our words."""

    problem: BimiProblem
    detail: str


def select(texts: Iterable[bytes]) -> BimiRecord | Fault | None:
    """Return the one Assertion Record among the TXT records of a name (BIMI §7.2 steps 4, 9, 10).

    Args:
        texts: the TXT records, each as its joined strings. Any octets.

    Returns:
        The record; a fault where it cannot be used or there are several; None where there is none.
    """
    found: BimiRecord | Fault | None = None
    for text in islice(texts, MAX_TEXTS):
        record = parse(text)
        if record is None:
            continue
        if found is not None:
            return Fault(BimiProblem.SEVERAL_RECORDS, "there are several BIMI records at this name")
        found = record
    return found


def parse(text: bytes) -> BimiRecord | Fault | None:
    """Return the Assertion Record in `text`, why it cannot be used, or None if it is no BIMI1 record. Total."""
    version = _VERSION.match(text)
    if version is None:
        return None
    if len(text) > MAX_RECORD:
        return Fault(BimiProblem.TOO_LONG, f"the record is longer than {MAX_RECORD} octets")
    return _parse(text[version.end() :])


@lru_cache(maxsize=2048)
def _parse(tags: bytes) -> BimiRecord | Fault:
    """Read what follows the version."""
    values = _tags(tags.decode("ascii", "replace"))  # an octet over 127 becomes U+FFFD, which no tag may hold
    if isinstance(values, Fault):
        return values
    location, authority = values.get("l"), values.get("a", "")
    if location is None:
        return Fault(BimiProblem.NO_LOCATION, "the record has no l=")
    if authority and not _is_https(authority):
        return Fault(BimiProblem.AUTHORITY, "a= is no https URI with a host name")
    if location and not _is_https(location):
        return Fault(BimiProblem.LOCATION, "l= is no https URI with a host name")
    if authority and not location:
        # BIMI §7.3 step 1: without a valid location Indicator Discovery has failed
        return Fault(BimiProblem.NO_LOCATION, "l= is empty and a= is not")
    if location and _has_other_format(location):
        return Fault(BimiProblem.LOCATION_FORMAT, "l= names an image that is no SVG")
    avp = values.get("avp", Preference.BRAND)
    return BimiRecord(
        location=location,
        authority=authority,
        # BIMI §4.3 `avp`: other values MUST be ignored
        preference=Preference(avp) if avp in {"brand", "personal"} else None,
        local_parts=_local_parts(values["lps"]) if "lps" in values else None,
    )


def _tags(text: str) -> dict[str, str] | Fault:
    """Split a tag list after its version (RFC 6376 §3.2); unknown tags are kept and ignored by the caller."""
    pieces = text.split(";", MAX_TAGS)
    if len(pieces) > MAX_TAGS:
        return Fault(BimiProblem.TOO_LONG, f"the record has more than {MAX_TAGS} tags")
    if not pieces[-1].strip(" \t"):
        pieces.pop()  # tag-list = tag-spec *( ";" tag-spec ) [ ";" ]
    values: dict[str, str] = {"v": ""}
    for piece in pieces:
        tag = _TAG.fullmatch(piece.strip(" \t"))
        if tag is None:
            return Fault(BimiProblem.SYNTAX, "a part between semicolons is no tag=value")
        if tag[1] in values:
            return Fault(BimiProblem.SYNTAX, "a tag stands twice")
        values[tag[1]] = tag[2]
    return values


def _is_https(uri: str) -> bool:
    """True of an https URI with a host name of at least two labels, no user information, in US-ASCII."""
    if len(uri) > MAX_URI:
        return False
    found = _URI.fullmatch(uri)
    if found is None or (found[2] is not None and not 0 < int(found[2]) < 65536):
        return False
    host = Domain.maybe(found[1])
    if host is None or host.ascii != found[1].lower():
        return False
    _, dot, top_level = host.ascii.rpartition(".")
    return bool(dot) and _TOP_LEVEL.fullmatch(top_level) is not None


def _has_other_format(uri: str) -> bool:
    found = _URI.fullmatch(uri)
    path = found[3] if found is not None else ""
    dot = path.rfind(".")
    return dot >= 0 and _OTHER_FORMAT.fullmatch(path, dot) is not None


def _local_parts(text: str) -> tuple[str, ...] | None:
    """Read `lps`: beginnings of normalized local parts, separated by commas; empty: all local parts."""
    if not text:
        return ()
    items = (item.strip(" \t").lower() for item in text.split(",", MAX_LOCAL_PARTS)[:MAX_LOCAL_PARTS])
    # a list of which nothing can be used names nobody, as a record without one
    return tuple(item for item in items if _NORMALIZED.fullmatch(item)) or None


def local_part_selector(record: BimiRecord, local: str) -> str | None:
    """Return the selector that a record's `lps` asks to be tried for the author's local part (BIMI §4.5), or None.

    Args:
        record: the record that was found.
        local: the local part of the author's address, as written without quotes.
    """
    if record.local_parts is None:
        return None
    base = local.partition("+")[0]
    if not base.isascii():  # asked before the case is folded: some letters beyond fold into ASCII
        return None
    selector = _TO_DASH.sub("-", base).strip("-").lower()
    if not _NORMALIZED.fullmatch(selector):
        return None
    if record.local_parts and not selector.startswith(record.local_parts):
        return None
    return selector


def read_selector(value: bytes) -> str | None:
    """Return the selector (lower case) that a BIMI-Selector field's value names, or None if it is malformed. Total."""
    if len(value) > MAX_SELECTOR_FIELD or not value.isascii():
        return None
    # RFC 5322 §2.2.3: to unfold is to remove the line ends before white space; one elsewhere leaves no match
    text = value.decode("ascii").replace("\r\n ", " ").replace("\r\n\t", "\t")
    found = _SELECTOR_FIELD.fullmatch(text)
    if found is None or _SELECTOR.fullmatch(found[1]) is None:
        return None
    return found[1].lower()
