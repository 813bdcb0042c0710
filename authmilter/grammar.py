"""Every regular expression over strangers' text, each under the RFC text it follows.

Only patterns that run in linear time are here: no nested or ambiguous repetition.
"""

from __future__ import annotations

import re

__all__ = [
    "ATEXT",
    "DOT_STRING",
    "FIELD_NAME",
    "LABEL",
    "MIME_TOKEN",
    "QUOTED_LOCAL",
    "QUOTED_PAIR",
    "SOURCE_ROUTE",
]

# RFC 1035 §2.3.1 / RFC 1123 §2.1 LDH labels; the underscore is allowed because deployed host names and
# RFC 8552 names carry it. RFC 1035 §2.3.4: 1 to 63 octets.
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")

# RFC 5322 §3.2.3 / RFC 5321 §4.1.2
#   atext = ALPHA / DIGIT / "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "/" / "=" / "?" / "^" /
#           "_" / "`" / "{" / "|" / "}" / "~"          ; RFC 6531 §3.3 adds UTF8-non-ascii
# Surrogates (raw bytes that are not UTF-8) are no atext.
ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\ud7ff\ue000-\U0010ffff"

# RFC 5321 §4.1.2   Dot-string = Atom *("." Atom)
DOT_STRING = re.compile(rf"[{ATEXT}]+(?:\.[{ATEXT}]+)*")

# RFC 5321 §4.1.2   Quoted-string = DQUOTE *QcontentSMTP DQUOTE
#                   quoted-pairSMTP = %d92 %d32-126 ; qtextSMTP = %d32-33 / %d35-91 / %d93-126 (+ UTF8)
QUOTED_LOCAL = re.compile(r'"((?:[ !#-\[\]-~\u00a0-\ud7ff\ue000-\U0010ffff]|\\[ -~])*)"')
QUOTED_PAIR = re.compile(r"\\([ -~])")

# RFC 5321 §4.1.2   A-d-l = At-domain *( "," At-domain ) ; At-domain = "@" Domain
SOURCE_ROUTE = re.compile(r"@[A-Za-z0-9._-]+(?:,@[A-Za-z0-9._-]+)*")

# RFC 5322 §3.6.8   field-name = 1*ftext ; ftext = %d33-57 / %d59-126
FIELD_NAME = re.compile(rb"[!-9;-~]+")

# RFC 2045 §5.1     token := 1*<any (US-ASCII) CHAR except SPACE, CTLs, or tspecials>
MIME_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+")
