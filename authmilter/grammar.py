"""Every regular expression over strangers' text, each under the RFC text it follows.

Promise: each runs in linear time. Repetition is possessive (`*+`, `++`: nothing is given back), or its parts
cannot match the same character. Where a pattern is narrower or wider than the RFC, the difference is argued beside it.
"""

from __future__ import annotations

import re

__all__ = [
    "ADDRESS_TOKEN",
    "ATEXT",
    "BARE_CR",
    "BARE_LF",
    "COMMENT_EDGE",
    "CONTROL",
    "DOT_STRING",
    "FIELD_LINES",
    "FIELD_NAME",
    "FIELD_NAMES",
    "FOLD",
    "FOLDED_NAME",
    "HIDDEN_FROM",
    "HIDDEN_FROM_IN_VALUE",
    "LABEL",
    "MIME_TOKEN",
    "PLAIN_PATH",
    "QUOTED_LOCAL",
    "QUOTED_PAIR",
    "SIMPLE_FROM",
    "SOURCE_ROUTE",
    "UNFOLDED_LF",
]

# ----- domain names -------------------------------------------------------------------------------------------

# RFC 1035 §2.3.1 / RFC 1123 §2.1 LDH labels; the underscore is allowed because deployed host names and
# RFC 8552 names carry it. RFC 1035 §2.3.4: 1 to 63 octets.
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")

# ----- addresses of the envelope (RFC 5321) ----------------------------------------------------------------

# RFC 5322 §3.2.3 / RFC 5321 §4.1.2
#   atext = ALPHA / DIGIT / "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "/" / "=" / "?" / "^" /
#           "_" / "`" / "{" / "|" / "}" / "~"          ; RFC 6531 §3.3, RFC 6532 §3.2 add UTF8-non-ascii
# Narrower: no C1 controls (U+0080 to U+009F; RFC 5198 §2 bars them from text on the net) and no surrogates,
# which stand for raw octets that are not UTF-8.
_ASCII_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
_UTF8 = r"\u00a0-\ud7ff\ue000-\U0010ffff"
ATEXT = _ASCII_ATEXT + _UTF8

# RFC 5321 §4.1.2   Dot-string = Atom *("." Atom)
DOT_STRING = re.compile(rf"[{ATEXT}]++(?:\.[{ATEXT}]++)*+")

# RFC 5321 §4.1.2   Quoted-string = DQUOTE *QcontentSMTP DQUOTE
#                   quoted-pairSMTP = %d92 %d32-126 ; qtextSMTP = %d32-33 / %d35-91 / %d93-126 (+ UTF8)
QUOTED_LOCAL = re.compile(rf'"((?:[ !#-\[\]-~{_UTF8}]++|\\[ -~])*+)"')

# RFC 5322 §3.2.1   quoted-pair = ("\" (VCHAR / WSP)) (+ UTF8, RFC 6532 §3.2)
QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

# RFC 5321 §4.1.2   Path = "<" Dot-string "@" Domain ">"
# Narrower: printable US-ASCII, one pair of angle brackets, no source route, Quoted-string or address literal.
PLAIN_PATH = re.compile(rf"<([{_ASCII_ATEXT}]++(?:\.[{_ASCII_ATEXT}]++)*+)@([A-Za-z0-9._-]++)>")

# RFC 5321 §4.1.2   A-d-l = At-domain *( "," At-domain ) ; At-domain = "@" Domain
SOURCE_ROUTE = re.compile(r"@[A-Za-z0-9._-]++(?:,@[A-Za-z0-9._-]++)*+")

# ----- lines and fields of a header block (RFC 5322 §2.2) ----------------------------------------------------

# RFC 5322 §3.6.8   field-name = 1*ftext ; ftext = %d33-57 / %d59-126
FIELD_NAME = re.compile(rb"[!-9;-~]+")
# Several of them, with the octet between that none can have.
FIELD_NAMES = re.compile(rb"[!-9;-~]++(?::[!-9;-~]++)*+")

# One field with its continuation lines and final line end (RFC 5322 §2.2.3). Lines end in LF, with or without CR.
FIELD_LINES = re.compile(rb"[^\n]*+(?:\n(?=[ \t])[^\n]*+)*+\n?")

# RFC 5322 §2.2.3: a fold is a line end before white space; to unfold is to remove the line end.
FOLD = re.compile(rb"\r?\n(?=[ \t])")

# A field's name whose colon stands on a continuation line, nothing but white space between.
FOLDED_NAME = re.compile(rb"[^:\n]*+(?:\n[ \t\r]*+)++(?=:)")

BARE_CR = re.compile(rb"\r(?!\n)")
BARE_LF = re.compile(rb"(?<!\r)\n")

# An LF that does not fold: inside one field's value it would be the end of that field.
UNFOLDED_LF = re.compile(rb"\n(?![ \t])")

# Text that some reader may take for a From field, though it is none: on a line that continues nothing ...
HIDDEN_FROM = re.compile(rb"(?:\A|[\r\n])[ \t]*+from[ \t\r\n]*+:", re.IGNORECASE)
# ... or within a field's value behind a line end that is none by RFC 5322 (a bare CR) or cannot be there.
HIDDEN_FROM_IN_VALUE = re.compile(rb"(?:\r[ \t]*+|\n)from[ \t\r\n]*+:", re.IGNORECASE)

# ----- address lists of the header (RFC 5322 §3.4) -------------------------------------------------------------

# What a From field may not contain anywhere, once unfolded: C0 and C1 controls other than the tab, and DEL.
# Narrower than RFC 5322 §4.1 (obs-NO-WS-CTL): an address around a control character is read differently by everybody.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")

# RFC 5322 §3.2.1-§3.2.4, on unfolded text without controls: FWS, atom, quoted-string, domain-literal, specials.
# A comment nests, which no regular expression can follow: its "(" is a token and COMMENT_EDGE finds its end.
ADDRESS_TOKEN = re.compile(
    rf"""
      (?P<space>   [ \t]++ )
    | (?P<atom>    [{ATEXT}]++ )
    | (?P<quoted>  "(?: [^"\\]++ | \\. )*+" )
    | (?P<literal> \[(?: [^\[\]\\]++ | \\. )*+\] )
    | (?P<special> [<>@,;:.(] )
    """,
    re.VERBOSE,
)
COMMENT_EDGE = re.compile(r"\\.|[()]")

# The commonest From fields, `Some Name <local@domain>`, `"Some Name" <local@domain>` and `local@domain`: a proper part
# of RFC 5322 §3.4 without comments, folds, escapes, groups and octets over 127. Groups: local, domain, local, domain.
# A phrase may hold dots after its first word (obs-phrase, RFC 5322 §4.1).
_ADDR = rb"([%(a)b]++(?:\.[%(a)b]++)*+)@([A-Za-z0-9._-]++)" % {b"a": _ASCII_ATEXT.encode("ascii")}
SIMPLE_FROM = re.compile(
    rb'[ \t]*+(?:(?:[%(a)b][%(a)b. \t]*+|"[\t !#-\[\]-~]*+"[ \t]*+)?<%(addr)b>|%(addr)b)[ \t]*+'
    % {b"a": _ASCII_ATEXT.encode("ascii"), b"addr": _ADDR}
)

# ----- others --------------------------------------------------------------------------------------------------

# RFC 2045 §5.1     token := 1*<any (US-ASCII) CHAR except SPACE, CTLs, or tspecials>
MIME_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+")
