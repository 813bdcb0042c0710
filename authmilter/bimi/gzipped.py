"""gzip (RFC 1952) with a limit: what a stranger packed never grows beyond what was asked for. Never raises."""

from __future__ import annotations

import zlib

__all__ = ["is_gzip", "unpack"]

_MAGIC = b"\x1f\x8b"
#: zlib's word for "a gzip header and trailer, and nothing else".
_GZIP = 16 + zlib.MAX_WBITS


def is_gzip(octets: bytes) -> bool:
    """True if the octets begin as gzip does."""
    return octets.startswith(_MAGIC)


def unpack(octets: bytes, limit: int) -> bytes | None:
    """Return what was packed, or None: more than `limit` octets, cut, damaged, or followed by something."""
    reader = zlib.decompressobj(_GZIP)
    try:
        unpacked = reader.decompress(octets, limit + 1)
    except zlib.error:
        return None
    whole = reader.eof and not reader.unused_data and len(unpacked) <= limit
    return unpacked if whole else None
