"""Reading the Received field that a relay of our own wrote (RFC 5321 §4.4), to know the client it talked to.

Only ever used on the topmost field of a message that came from a configured `trusted_relays` address, and
only if its `by` names that relay: anything else is somebody's text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from authmilter.names import Domain, Helo, IPAddress, parse_helo, parse_ip

__all__ = ["RelayedClient", "relayed_client"]

_MAX = 2048
# RFC 5321 §4.4  From-domain = "FROM" FWS Extended-Domain
#                Extended-Domain = Domain / ( Domain FWS "(" TCP-info ")" ) / ( address-literal FWS "(" TCP-info ")" )
#                TCP-info = address-literal / ( Domain FWS address-literal )
# Postfix and Sendmail write `from HELO (NAME [IP])`, the latter with `IDENT:USER@` before NAME; Exim writes
# `from NAME ([IP]:PORT helo=HELO)` or, for a client without a name, `from [IP]:PORT (helo=HELO)`.
# What the client said (HELO, and USER) may be an address literal too: where the address stands decides.
_FROM = re.compile(r"\s*from\s+(\S{1,255})\s+\(([^()]{1,600})\)\s+by\s+(\S{1,255})", re.IGNORECASE)
_LITERAL = r"\[([0-9A-Fa-f:.]{2,45}|IPv6:[0-9A-Fa-f:.]{2,45})\]"
_AT_START = re.compile(_LITERAL + r"(?=[:\s]|\Z)", re.IGNORECASE)
_AT_END = re.compile(r"\s" + _LITERAL + r"\s*\Z", re.IGNORECASE)
_WHOLE = re.compile(_LITERAL + r"(?::\d{1,5})?", re.IGNORECASE)
_EXIM_NAMELESS = re.compile(r"(?:port|helo|ident)=", re.IGNORECASE)
_EXIM_HELO = re.compile(r"(?:\A|\s)helo=(\S{1,255})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedClient:
    """The client a relay says it talked to."""

    ip: IPAddress
    helo: Helo


def relayed_client(value: bytes, received_by: tuple[Domain, ...]) -> RelayedClient | None:
    """Return the client named by a Received field's `value`, or None if it is not the relay's or unreadable."""
    text = value[:_MAX].decode("ascii", "replace")
    match = _FROM.match(text)
    if match is None:
        return None
    said, info, by = match.groups()
    if Domain.maybe(by.rstrip(";")) not in received_by:
        return None
    literal = (
        _WHOLE.fullmatch(said)
        if _EXIM_NAMELESS.match(info)
        else _AT_START.match(info) or _AT_END.search(info)
    )
    ip = parse_ip(literal.group(1)) if literal else None
    if ip is None:
        return None
    exim = _EXIM_HELO.search(info)
    return RelayedClient(ip=ip, helo=parse_helo(exim.group(1) if exim else said))
