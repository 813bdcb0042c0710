"""The room of the `idna` package: internationalised domain names by IDNA 2008 (RFC 5891), strictly.

Python's own codec is IDNA 2003, whose mapping step silently drops a zero-width space and folds look-alikes,
so that a forged domain would become the domain it imitates. IDNA 2008 refuses those names instead, and so do we:
the one mapping done is to lower case, and only of text that is in NFC already. Ideographic and full-width dots
separate nothing here.

Fails: `to_ascii` raises `InvalidName`; `to_unicode` is total.
"""

from __future__ import annotations

import unicodedata

import idna

from authmilter.errors import InvalidName

__all__ = ["to_ascii", "to_unicode"]

#: An A-label has 63 octets at most (RFC 5890 §2.3.2.1) and its U-label fewer characters than that.
_MAX_LABEL = 63


def to_ascii(text: str) -> str:
    """Return `text` with every U-label as its A-label, and every label in lower case.

    ASCII labels are not looked into: `Domain.parse` judges those.

    Raises:
        InvalidName: a label that IDNA 2008 does not allow.
    """
    return ".".join(
        label.lower() if label.isascii() else _a_label(label)
        for label in text.split(".")  # RFC 5891 §4.1: no other character is a separator
    )


def _a_label(label: str) -> str:
    if len(label) > _MAX_LABEL:
        raise InvalidName("a label is too long")
    # RFC 5891 §4.1: NFC. Asked before lower-casing, because the Kelvin sign's lower case is the letter k and would make
    # another domain of this one.
    if not unicodedata.is_normalized("NFC", label):
        raise InvalidName("a label is not in Unicode normalization form C")
    try:
        # RFC 5895 §2.1: upper case is mapped to lower case. `alabel`, not `encode`: that one splits at other dots.
        return idna.alabel(label.lower()).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise InvalidName("a label is not valid in IDNA 2008") from None


def to_unicode(ascii_name: str) -> str:
    """Return the U-label form for display; a label that does not decode stays as it is. Total."""
    return ".".join(
        _u_label(label) if label.startswith("xn--") else label  # RFC 5890 §2.3.2.1: the ACE prefix
        for label in ascii_name.split(".")
    )


def _u_label(label: str) -> str:
    if len(label) > _MAX_LABEL:
        return label
    try:
        return idna.ulabel(label)
    except (idna.IDNAError, UnicodeError):
        return label
