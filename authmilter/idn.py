"""The room of the `idna` package: internationalised domain names by IDNA 2008 (RFC 5891), strictly.

Python's own codec is IDNA 2003, whose mapping step silently drops a zero-width space and folds look-alikes,
so that a forged domain would become the domain it imitates. IDNA 2008 refuses those names instead.
"""

from __future__ import annotations

import idna

from authmilter.errors import InvalidName

__all__ = ["to_ascii", "to_unicode"]


def to_ascii(text: str) -> str:
    """Return `text` with every U-label as its A-label (lower case).

    Raises:
        InvalidName: a label that IDNA 2008 does not allow.
    """
    out: list[str] = []
    for label in text.split("."):
        if label.isascii():
            out.append(label.lower())
            continue
        try:
            # Lower-casing is the only mapping done (RFC 5895 §2.1); everything else must be right already.
            out.append(idna.encode(label.lower()).decode("ascii"))
        except (idna.IDNAError, UnicodeError):
            raise InvalidName("a label is not valid in IDNA 2008") from None
    return ".".join(out)


def to_unicode(ascii_name: str) -> str:
    """Return the U-label form for display; a label that does not decode stays as it is. Total."""
    out: list[str] = []
    for label in ascii_name.split("."):
        if not label.startswith("xn--"):
            out.append(label)
            continue
        try:
            out.append(idna.decode(label))
        except (idna.IDNAError, UnicodeError):
            out.append(label)
    return ".".join(out)
