"""Where a mail comes from, told from the session alone; the first line that fits decides and is named.

The order is: authenticated submission, our own hops, our own relays, own networks, internet. Hops and relays
stand before own networks because they are written down one by one, mostly as loopback or private addresses that
lie inside `internal.networks`: the more particular line has to win.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from authmilter.mail import Origin, Session
from authmilter.names import Domain, IPAddress

__all__ = ["Hop", "Network", "OriginRules", "Relay"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRules:
    """The administrator's answer to `where does this come from`."""

    internal: tuple[Network, ...] = ()
    authenticated: bool = True
    daemon_names: tuple[str, ...] = ()
    hops: tuple[Hop, ...] = ()
    relays: tuple[Relay, ...] = ()

    def decide(self, session: Session) -> tuple[Origin, str, Relay | None]:
        """Return the origin, the line that decided (for people and logs), and the relay where it is one."""
        if self.authenticated and session.authenticated is not None:
            return Origin.SUBMISSION, "submission.authenticated: the session is authenticated", None
        if session.daemon_name and session.daemon_name in self.daemon_names:
            return Origin.SUBMISSION, f"submission.daemon_names: {session.daemon_name}", None
        ip = session.client_ip
        if ip is not None:
            for n, hop in enumerate(self.hops):
                net = _match(ip, hop.networks)
                if net is not None and (not hop.daemon_names or session.daemon_name in hop.daemon_names):
                    return Origin.TRUSTED_HOP, f"trusted_hops[{n}]: {net}", None
            for n, relay in enumerate(self.relays):
                net = _match(ip, relay.networks)
                if net is not None:
                    return Origin.TRUSTED_RELAY, f"trusted_relays[{n}]: {net}", relay
            net = _match(ip, self.internal)
            if net is not None:
                return Origin.INTERNAL, f"internal.networks: {net}", None
        return Origin.INTERNET, "no other line fits", None


def _match(ip: IPAddress, networks: tuple[Network, ...]) -> Network | None:
    for network in networks:
        if ip.version == network.version and ip in network:
            return network
    return None
