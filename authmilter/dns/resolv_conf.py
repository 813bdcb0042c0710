"""The name servers of `/etc/resolv.conf` (resolv.conf(5)), and nothing else of it: no search list is ever used.

Read here and not by dnspython, whose resolver would have to be loaded for it: 20 ms of every start, and 2 MB.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from authmilter.errors import Complaint, ConfigError, Span

__all__ = ["named_servers"]


def named_servers(path: str) -> tuple[str, ...]:
    """Return the addresses that the file names, in its order.

    Raises:
        ConfigError: it cannot be read, names none, or names what is no address.
    """
    try:
        with Path(path).open(encoding="utf-8") as source:
            # A comment's first word is another: it has its sign at the line's beginning.
            words = [line.split() for line in source]
        found = tuple(each[1] for each in words if len(each) > 1 and each[0] == "nameserver")
        for text in found:
            ipaddress.ip_address(text)
    except (OSError, ValueError):  # (not UTF-8 is a ValueError, too)
        found = ()
    if found:
        return found
    complaint = Complaint(
        span=Span(file=path),
        message="no usable name server is named here",
        hint="name one in `dns: nameservers`",
    )
    raise ConfigError((complaint,))
