"""Where a mail comes from, told from the session alone; the first line that fits decides and is named.

The order is: authenticated submission, our own hops, our own relays, own networks, internet. Hops and relays
stand before own networks because they are written down one by one, mostly as loopback or private addresses that
lie inside `internal.networks`: the more particular line has to win.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from authmilter.mail import Origin, Session
from authmilter.names import Domain

__all__ = ["Hop", "Network", "OriginRules", "Relay"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: What is decided where no line fits: most mail.
_FROM_ANYWHERE = (Origin.INTERNET, "no other line fits", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A content filter or list of ours: its `networks`, and {daemon_name}s (empty: any)."""

    networks: tuple[Network, ...]
    daemon_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A backup MX or edge of ours: its `networks`, and the names it writes after `by` in Received."""

    networks: tuple[Network, ...]
    received_by: tuple[Domain, ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    """One network, as the `number` of its first address and its `mask`, and what it decides."""

    version: int
    number: int
    mask: int
    origin: Origin
    because: str
    daemon_names: tuple[str, ...] = ()
    relay: Relay | None = None

    @classmethod
    def of(
        cls,
        network: Network,
        origin: Origin,
        line: str,
        *,
        daemon_names: tuple[str, ...] = (),
        relay: Relay | None = None,
    ) -> _Line:
        number, mask = int(network.network_address), int(network.netmask)
        return cls(network.version, number, mask, origin, f"{line}: {network}", daemon_names, relay)


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRules:
    """The administrator's answer to `where does this come from`."""

    internal: tuple[Network, ...] = ()
    authenticated: bool = True
    daemon_names: tuple[str, ...] = ()
    hops: tuple[Hop, ...] = ()
    relays: tuple[Relay, ...] = ()
    # The lines about client addresses, in order, with their networks as numbers: they are gone through for every message.
    _lines: tuple[_Line, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lines = [
            _Line.of(network, Origin.TRUSTED_HOP, f"trusted_hops[{n}]", daemon_names=hop.daemon_names)
            for n, hop in enumerate(self.hops)
            for network in hop.networks
        ]
        lines += [
            _Line.of(network, Origin.TRUSTED_RELAY, f"trusted_relays[{n}]", relay=relay)
            for n, relay in enumerate(self.relays)
            for network in relay.networks
        ]
        lines += [_Line.of(network, Origin.INTERNAL, "internal.networks") for network in self.internal]
        object.__setattr__(self, "_lines", tuple(lines))

    def decide(self, session: Session) -> tuple[Origin, str, Relay | None]:
        """Return the origin, the line that decided (for people and logs), and the relay where it is one."""
        if session.authenticated is not None and self.authenticated:
            return Origin.SUBMISSION, "submission.authenticated: the session is authenticated", None
        if session.daemon_name and session.daemon_name in self.daemon_names:
            return Origin.SUBMISSION, f"submission.daemon_names: {session.daemon_name}", None
        ip = session.client_ip
        if ip is not None and self._lines:
            number, version = int(ip), ip.version
            for line in self._lines:
                if (
                    number & line.mask == line.number
                    and version == line.version
                    and (not line.daemon_names or session.daemon_name in line.daemon_names)
                ):
                    return line.origin, line.because, line.relay
        return _FROM_ANYWHERE
