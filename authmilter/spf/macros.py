"""SPF macros: their grammar and their expansion (RFC 7208 §7).

Promises: time linear in the text and in what it expands to; nothing here asks DNS, and nothing raises.
What a macro letter stands for is asked of the caller, and only for letters that occur.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

__all__ = [
    "MAX_NAME",
    "domain_spec_fault",
    "expand",
    "is_explanation",
    "is_macro_string",
    "letters",
    "truncated",
]

#: RFC 1035 §2.3.4, as text without the dot at the end; RFC 7208 §7.3 cuts expanded names to it.
MAX_NAME = 253

# RFC 7208 §7.1
#   macro-string  = *( macro-expand / macro-literal )
#   macro-expand  = ( "%{" macro-letter transformers *delimiter "}" ) / "%%" / "%_" / "%-"
#   macro-literal = %x21-24 / %x26-7E
#   macro-letter  = "s" / "l" / "o" / "d" / "i" / "p" / "h" / "c" / "r" / "t" / "v"
#   transformers  = *DIGIT [ "r" ]           ; §7.3: the number, if there is one, is not zero
#   delimiter     = "." / "-" / "+" / "," / "/" / "_" / "="
# §7.2: c, r and t are for explanations only. ABNF letters are case-insensitive. The RFC asks for numbers up to
# 127 at least; more than nine digits (and nine zeros before them) is not read.
_TRANSFORM = r"(?:0{0,9}[1-9][0-9]{0,8})?[rR]?[.\-+,/_=]*"
_MACRO_STRING = re.compile(rf"(?:[!-$&-~]++|%(?:\{{[slodiphvSLODIPHV]{_TRANSFORM}\}}|[%_-]))*+")

# RFC 7208 §6.2   explain-string = *( macro-string / SP )
_EXPLANATION = re.compile(rf"(?:[ -$&-~]++|%(?:\{{[slodiphvcrtSLODIPHVCRT]{_TRANSFORM}\}}|[%_-]))*+")

_MACRO = re.compile(r"%(?:([%_-])|\{([a-zA-Z])([0-9]*)([rR]?)([.\-+,/_=]*)\})")
_LITERAL = {"%": "%", "_": " ", "-": "%20"}

# RFC 7208 §7.1
#   domain-end = ( "." toplabel [ "." ] ) / macro-expand
#   toplabel   = ( *alphanum ALPHA *alphanum ) / ( 1*alphanum "-" *( alphanum / "-" ) alphanum )
_LABEL = re.compile(r"[0-9a-z](?:[0-9a-z-]*[0-9a-z])?", re.IGNORECASE)


def is_macro_string(text: str) -> bool:
    """Return True if `text` is a macro-string as it may stand in a term."""
    return _MACRO_STRING.fullmatch(text) is not None


def is_explanation(text: str) -> bool:
    """Return True if `text` is an explain-string: printable US-ASCII with well-formed macros."""
    return _EXPLANATION.fullmatch(text) is not None


def domain_spec_fault(spec: str) -> str:
    """Return why `spec` is no domain-spec, or an empty text if it is one."""
    if not spec:
        return "empty domain"
    if not is_macro_string(spec):
        return "invalid macro"
    # A literal "}" does not end in a macro unless the text before it opens one.
    if spec[-1] in "}%_-" and _ends_in_macro(spec):
        return ""
    _, dot, top = spec.removesuffix(".").rpartition(".")
    if not dot:
        return "domain is not fully qualified"
    if not _LABEL.fullmatch(top) or top.isdigit():
        return "invalid top-level label"
    return ""


def _ends_in_macro(spec: str) -> bool:
    end = 0
    for macro in _MACRO.finditer(spec):
        end = macro.end()
    return end == len(spec)


def letters(spec: str) -> frozenset[str]:
    """Return the macro letters that occur in a macro-string or explain-string, lower case."""
    if "%{" not in spec:
        return frozenset()
    return frozenset(m.group(2).lower() for m in _MACRO.finditer(spec) if m.group(2))


def expand(spec: str, value: Callable[[str], str]) -> str:
    """Return a well-formed macro-string or explain-string with its macros expanded (RFC 7208 §7.3).

    Args:
        spec: what `is_macro_string` or `is_explanation` accepts.
        value: what a macro letter (lower case) stands for, US-ASCII; asked for letters that occur.
    """

    def one(macro: re.Match[str]) -> str:
        literal, letter, digits, reverse, delimiters = macro.groups()
        if literal:
            return _LITERAL[literal]
        text = value(letter.lower())
        if digits or reverse or delimiters:
            # §7.3: split, reverse, keep the right-most parts, join with dots whatever the delimiters were
            if delimiters and delimiters != ".":
                for delimiter in delimiters:
                    text = text.replace(delimiter, "\0")
                parts = text.split("\0")
            else:
                parts = text.split(".")
            if reverse:
                parts.reverse()
            if digits:
                parts = parts[-int(digits) :]
            text = ".".join(parts)
        # §7.3: an upper-case letter is URL-escaped, all but the unreserved characters of RFC 3986
        return quote(text, safe="") if letter.isupper() else text

    return _MACRO.sub(one, spec) if "%" in spec else spec


def truncated(name: str) -> str:
    """Return `name` without the left-most labels that make it longer than 253 characters (RFC 7208 §7.3)."""
    if len(name) <= MAX_NAME:
        return name
    return name[name.find(".", len(name) - MAX_NAME - 1) + 1 :]
