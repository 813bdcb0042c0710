"""The functions of `python.py`: compiled ones where they were built, else those. `COMPILED` says which.

The environment variable AUTHMILTER_PURE, if it is set to anything, chooses Python: for the tests of both, and for an
administrator who wants to know whether a fault is the compiler's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

__all__ = [
    "COMPILED",
    "bare_line_ends",
    "edit_packet",
    "fields_size",
    "index_fields",
    "plain_tags",
    "read_packets",
    "relaxed_body",
    "relaxed_field",
    "signed_fields",
    "unsigned_value",
]

COMPILED = False

if TYPE_CHECKING or os.environ.get("AUTHMILTER_PURE"):
    from authmilter.octets.python import (
        bare_line_ends,
        edit_packet,
        fields_size,
        index_fields,
        plain_tags,
        read_packets,
        relaxed_body,
        relaxed_field,
        signed_fields,
        unsigned_value,
    )
else:
    try:
        from authmilter.octets._compiled import (
            bare_line_ends,
            edit_packet,
            fields_size,
            index_fields,
            plain_tags,
            read_packets,
            relaxed_body,
            relaxed_field,
            signed_fields,
            unsigned_value,
        )
    except ImportError:  # it is optional: no compiler when this was installed
        from authmilter.octets.python import (
            bare_line_ends,
            edit_packet,
            fields_size,
            index_fields,
            plain_tags,
            read_packets,
            relaxed_body,
            relaxed_field,
            signed_fields,
            unsigned_value,
        )
    else:
        COMPILED = True
