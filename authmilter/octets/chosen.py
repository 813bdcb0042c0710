"""The functions of `python.py`: compiled ones where they were built, else those. `COMPILED` says which.

The environment variable AUTHMILTER_PURE, if it is set to anything, chooses Python: for the tests of both, and for an
administrator who wants to know whether a fault is the compiler's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from authmilter.octets.python import AFTER_CR, BARE_CR, BARE_LF

__all__ = [
    "AFTER_CR",
    "BARE_CR",
    "BARE_LF",
    "COMPILED",
    "base64_octets",
    "body_piece",
    "edit_packet",
    "fields_size",
    "index_fields",
    "line_ends",
    "plain_tags",
    "read_packets",
    "relaxed_field",
    "signed_data",
    "unsigned_value",
]

COMPILED = False

if TYPE_CHECKING or os.environ.get("AUTHMILTER_PURE"):
    from authmilter.octets.python import (
        base64_octets,
        body_piece,
        edit_packet,
        fields_size,
        index_fields,
        line_ends,
        plain_tags,
        read_packets,
        relaxed_field,
        signed_data,
        unsigned_value,
    )
else:
    try:
        from authmilter.octets._compiled import (
            base64_octets,
            body_piece,
            edit_packet,
            fields_size,
            index_fields,
            line_ends,
            plain_tags,
            read_packets,
            relaxed_field,
            signed_data,
            unsigned_value,
        )
    except ImportError:  # it is optional: no compiler when this was installed
        from authmilter.octets.python import (
            base64_octets,
            body_piece,
            edit_packet,
            fields_size,
            index_fields,
            line_ends,
            plain_tags,
            read_packets,
            relaxed_field,
            signed_data,
            unsigned_value,
        )
    else:
        COMPILED = True
