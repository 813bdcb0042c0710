"""The fields that tell a mail reader of a logo: BIMI-Location, BIMI-Indicator, BIMI-Logo-Preference (BIMI draft -12).

Promises: each function is total, and gives the value of a field only for a pass. A record's URIs have been checked to be
URIs without spaces, quotes, commas and semicolons, so they stand here as they are. No line is longer than 998 octets.
"""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache

from authmilter.bimi.evidence import EvidenceStatus
from authmilter.bimi.result import BimiResult, BimiStatus
from authmilter.headers.settings import HeaderSettings

__all__ = ["MAX_INDICATOR", "indicator", "location", "preference"]

_FOLD = b"\r\n "
#: Octets of a BIMI-Indicator's value: Sendmail takes no more than 65,535 of a milter at once.
MAX_INDICATOR = 60_000
#: Characters of base64 on a line, and on the first one, which begins with the field's name.
_LINE = 76
_FIRST_LINE = 60


def location(result: BimiResult) -> bytes | None:
    """Return the value of BIMI-Location (BIMI §5.2, §7.9), folded; None unless BIMI is pass.

    It has `a=` where the mark certificate was verified, and `l=` where its document is known to be the very image.
    """
    record, evidence = result.record, result.evidence
    if result.status is not BimiStatus.PASS or record is None or evidence is None:
        return None
    tags = ["v=BIMI1"]
    if evidence.indicator is not None and evidence.indicator.location == record.location:
        tags.append(f"l={record.location}")
    if evidence.status is EvidenceStatus.PASS:
        tags.append(f"a={record.authority}")
    return (b";" + _FOLD).join(tag.encode("ascii", "replace") for tag in tags) if len(tags) > 1 else None


def indicator(result: BimiResult, settings: HeaderSettings) -> bytes | None:
    """Return the value of BIMI-Indicator (BIMI §5.3, §7.10), folded; None unless BIMI is pass and it is to be written.

    None also for a logo whose field would be longer than an MTA takes.
    """
    evidence = result.evidence
    if result.status is not BimiStatus.PASS or evidence is None or evidence.indicator is None:
        return None
    return _folded(evidence.indicator.svg) if settings.bimi_indicator else None


@lru_cache(maxsize=32)
def _folded(svg: bytes) -> bytes | None:
    """Return the base64 of an image in lines (the same few logos come again and again)."""
    if not svg or len(svg) > MAX_INDICATOR * 3 // 4:
        return None
    text = b64encode(svg)
    lines = [text[:_FIRST_LINE]]
    lines.extend(text[i : i + _LINE] for i in range(_FIRST_LINE, len(text), _LINE))
    value = _FOLD.join(lines)
    return value if len(value) <= MAX_INDICATOR else None


def preference(result: BimiResult) -> bytes | None:
    """Return the value of BIMI-Logo-Preference (BIMI §5.4, §7.11); None unless BIMI is pass and the value is valid."""
    record = result.record
    if result.status is not BimiStatus.PASS or record is None or record.preference is None:
        return None
    return f"avp={record.preference.value};".encode()
