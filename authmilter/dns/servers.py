"""Name servers: where they are, and which one is asked first.

A `Server` is a parsed address. `Circuits` remembers who kept silent: a server that left several tries in a
row unanswered is asked last for some seconds, so that one dead server does not cost each question its share
of time. Pure: `now` is a parameter.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

__all__ = ["Circuits", "Server"]

_PORT = 53


@dataclass(frozen=True, slots=True)
class Server:
    """A name server: `host` (an IP address, with its %zone if it has one) and `port`; build it with `parse`.

    `near` is True toward loopback and private addresses: nobody off the path can send from there, so a
    socket toward it may be kept (RFC 5452 §9.2 asks for unpredictable ports toward all others).
    """

    host: str
    port: int
    near: bool

    def __hash__(self) -> int:
        # Every question hashes it, and few ports are asked at one address.
        return hash(self.host)

    @classmethod
    def parse(cls, text: str) -> Server:
        """Read `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:5353`.

        Raises:
            ValueError: it is none of these; the message names the text.
        """
        host, port = text, ""
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f"`{text}` is not a name server: expected IP, IP:port or [IPv6]:port")
            port = rest[1:] if rest else ""
            if rest == ":":
                raise ValueError(f"`{text}` is not a name server: the port is missing")
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
            if not port:
                raise ValueError(f"`{text}` is not a name server: the port is missing")
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"`{text}` is not a name server: expected IP, IP:port or [IPv6]:port") from None
        if not port:
            return cls(str(ip), _PORT, _near(ip))
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise ValueError(f"`{text}` is not a name server: the port is not a number from 1 to 65535")
        return cls(str(ip), int(port), _near(ip))

    @property
    def is_ipv6(self) -> bool:
        """True for an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


def _near(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_loopback or ip.is_private or ip.is_link_local


class Circuits:
    """Who kept silent lately.

    Args:
        strikes: after how many unanswered tries in a row a server is asked last (1 or more).
        rest: for how long, in seconds; after that one more silence is enough to send it back.
    """

    __slots__ = ("_open_until", "_rest", "_silent", "_strikes")

    def __init__(self, *, strikes: int, rest: float) -> None:
        self._strikes = strikes
        self._rest = rest
        self._silent: dict[Server, int] = {}
        self._open_until: dict[Server, float] = {}

    def order(self, servers: tuple[Server, ...], now: float) -> tuple[Server, ...]:
        """Return `servers` in the given order, those that rest moved to the end."""
        if not self._open_until:
            return servers
        resting = [s for s in servers if self._open_until.get(s, 0.0) > now]
        if not resting:
            return servers
        return (*(s for s in servers if s not in resting), *resting)

    def silent(self, server: Server, now: float) -> None:
        """Note that `server` left a try unanswered, or could not be reached."""
        count = self._silent.get(server, 0) + 1
        self._silent[server] = count
        if count >= self._strikes:
            self._open_until[server] = now + self._rest

    def spoke(self, server: Server) -> None:
        """Note that `server` answered, whatever it said."""
        if self._silent:
            self._silent.pop(server, None)
            self._open_until.pop(server, None)
