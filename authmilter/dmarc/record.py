"""DMARC Policy Records: text to value (RFC 9989 §4.5, §4.7, §4.8).

Promises: linear in the record's length, bounded by `MAX_RECORD` and `MAX_TAGS`, and total: any octets give
a record or none. A tag with an error is discarded, has its default, and is named in `faults`, which holds
nothing of the stranger's text but the names of known tags.

Where the RFC is silent: tag names are read without regard to case, as ABNF literals are and as RFC 7489's own
grammar spelt them; of a repeated tag the first counts and the others are a fault; a record longer than
`MAX_RECORD` is one whose every tag is discarded (so it has no policy, visibly).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import TypeVar

from authmilter.dmarc.result import Alignment, DmarcPolicy, DmarcRecord, Psd

__all__ = ["MAX_RECORD", "MAX_TAGS", "MAX_TEXTS", "MAX_URIS", "Absence", "parse", "select"]

_T = TypeVar("_T")
_D = TypeVar("_D")

#: Octets of a record that are read; real ones stay far below 1,000.
MAX_RECORD = 4096
#: Tags of a record that are read.
MAX_TAGS = 64
#: Addresses in `rua` or `ruf` that are kept.
MAX_URIS = 32
#: TXT records at one name that are looked at.
MAX_TEXTS = 100

#: The fault of a record or a part of it that is not written `tag = value`, or is beyond a limit.
_SYNTAX = "syntax"
_LIMIT = "limit"

# RFC 9989 §4.8   dmarc-version = "v" equals %s"DMARC1" ; equals = *WSP "=" *WSP ; dmarc-sep = *WSP ";" *WSP
_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
# RFC 9989 §4.8   dmarc-tag = 1*ALPHA equals 1*dmarc-value ; dmarc-value = %x20-3A / %x3C-7E
# (the white space around name and value is cut off before)
_TAG = re.compile(r"([A-Za-z]+)[ \t]*=[ \t]*([ -:<-~]+)")
# RFC 3986 §3.1, §2: scheme ":" and the characters of a URI without "," "!" ";", which RFC 9989 §4.8 wants encoded
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):((?:[A-Za-z0-9._~:/?#\[\]@$&'()*+=-]|%[0-9A-Fa-f]{2})+)")
# RFC 9989 §4.8   obs-dmarc-report-size = "!" 1*DIGIT [ "k" / "m" / "g" / "t" ]
_SIZE = re.compile(r"![0-9]+[kmgtKMGT]?\Z")
_PERCENT = re.compile(r"[0-9]{1,3}")

_POLICIES = {p.value: p for p in DmarcPolicy}
_ALIGNMENTS = {a.value: a for a in Alignment}
_PSDS = {p.value: p for p in Psd}
_FLAGS = {"y": True, "n": False}
_FO = frozenset({"0", "1", "d", "s"})
#: Tags that are processed (RFC 9989 §4.7); `pct` is historic and kept for BIMI only.
_KNOWN = frozenset({"adkim", "aspf", "fo", "np", "p", "pct", "psd", "rua", "ruf", "sp", "t"})


class Absence(StrEnum):
    """Why a name has no DMARC Policy Record, although its TXT records could be read."""

    #: none of its TXT records begins with `v=DMARC1`
    NO_RECORD = "no record"
    #: more than one does: all are discarded (RFC 9989 §4.10 step 2)
    SEVERAL = "several records"


def select(texts: Iterable[bytes]) -> DmarcRecord | Absence:
    """Return the one DMARC Policy Record among the TXT records of a name, or why there is none.

    Args:
        texts: the TXT records, each as its joined strings (RFC 9989 §4.5). Any octets.
    """
    record: DmarcRecord | None = None
    for text in islice(texts, MAX_TEXTS):
        # RFC 9989 §4.10 step 2: records that do not start with the version are discarded
        found = parse(text)
        if found is None:
            continue
        if record is not None:
            return Absence.SEVERAL
        record = found
    return Absence.NO_RECORD if record is None else record


def parse(text: bytes) -> DmarcRecord | None:
    """Return the DMARC Policy Record in `text`, or None if it is not one (RFC 9989 §4.7 `v`). Total."""
    version = _VERSION.match(text)
    if version is None:
        return None
    if len(text) > MAX_RECORD:
        return DmarcRecord(faults=(_LIMIT,))
    return _parse(text[version.end() :])


@lru_cache(maxsize=4096)
def _parse(tags: bytes) -> DmarcRecord:
    """Read what follows the version."""
    values: dict[str, str] = {}
    # a dict keeps the faults in order, each once
    faults: dict[str, None] = {}
    # an octet over 127 becomes U+FFFD, which no tag may hold
    pieces = tags.decode("ascii", "replace").split(";", MAX_TAGS)
    if len(pieces) > MAX_TAGS:
        faults[_LIMIT] = None
        pieces.pop()
    for raw in pieces:
        piece = raw.strip(" \t")
        if not piece:
            continue
        tag = _TAG.fullmatch(piece)
        if tag is None:
            # RFC 9989 §4.8: syntax errors are discarded in favour of default values
            name = piece.partition("=")[0].rstrip(" \t").lower()
            faults[name if name in _KNOWN else _SYNTAX] = None
            continue
        name = tag[1].lower()
        if name not in _KNOWN:
            continue  # RFC 9989 §4.7: unknown tags MUST be ignored
        if name in values or name in faults:
            faults[name] = None
            continue
        values[name] = tag[2]
    ruf = _uris(values, "ruf", faults)
    return DmarcRecord(
        p=_word(values, "p", _POLICIES, faults, None),
        sp=_word(values, "sp", _POLICIES, faults, None),
        np=_word(values, "np", _POLICIES, faults, None),
        adkim=_word(values, "adkim", _ALIGNMENTS, faults, Alignment.RELAXED),
        aspf=_word(values, "aspf", _ALIGNMENTS, faults, Alignment.RELAXED),
        psd=_word(values, "psd", _PSDS, faults, Psd.UNKNOWN),
        testing=_word(values, "t", _FLAGS, faults, default=False),
        fo=_failure_options(values, faults) if ruf else ("0",),  # RFC 9989 §4.7: fo is ignored without ruf
        rua=_uris(values, "rua", faults),
        ruf=ruf,
        pct=_percent(values),
        faults=tuple(faults),
    )


def _word(
    values: dict[str, str], name: str, words: Mapping[str, _T], faults: dict[str, None], default: _D
) -> _T | _D:
    """Read a keyword, without regard to case (RFC 5234 §2.3)."""
    text = values.get(name)
    if text is None:
        return default
    word = words.get(text.lower())
    if word is None:
        faults[name] = None
        return default
    return word


def _failure_options(values: dict[str, str], faults: dict[str, None]) -> tuple[str, ...]:
    """Read `fo` (RFC 9989 §4.7, §4.8 dmarc-fo): each option once, 0 and 1 exclude each other."""
    text = values.get("fo")
    if text is None:
        return ("0",)
    options = tuple(o.strip(" \t") for o in text.lower().split(":"))
    chosen = frozenset(options)
    if len(chosen) != len(options) or not chosen <= _FO or {"0", "1"} <= chosen:
        faults["fo"] = None
        return ("0",)
    return options


def _uris(values: dict[str, str], name: str, faults: dict[str, None]) -> tuple[str, ...]:
    """Read a dmarc-urilist (RFC 9989 §4.8): the URIs that are well-formed, without an obsolete size."""
    text = values.get(name)
    if text is None:
        return ()
    uris: list[str] = []
    for item in text.split(",", MAX_URIS)[:MAX_URIS]:
        uri = _SIZE.sub("", item.strip(" \t"))
        if _is_uri(uri):
            uris.append(uri)
        else:
            faults[name] = None
    return tuple(uris)


def _is_uri(text: str) -> bool:
    found = _URI.fullmatch(text)
    if found is None:
        return False
    if found[1].lower() != "mailto":
        return True
    # RFC 6068 §2: `to`; a report needs an address to go to
    local, at, host = found[2].partition("?")[0].rpartition("@")
    return bool(local and at and host)


def _percent(values: dict[str, str]) -> int:
    """Read the historic `pct` (RFC 7489 §6.3); no fault, since RFC 9989 does not know the tag."""
    text = values.get("pct", "100")
    return min(int(text), 100) if _PERCENT.fullmatch(text) else 100
