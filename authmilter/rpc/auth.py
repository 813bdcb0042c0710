"""Who calls, and what he may do: tokens, client certificates, unix and loopback peers; rates and concurrency.

A caller that shows a token is who the token says, or nobody: a wrong token is never passed over for what else he might
be. Then his certificate counts (only TLS that verified it hands one over), then where he connects.

How it fails: `Refused`, with UNAUTHENTICATED (nobody we know), PERMISSION_DENIED (somebody who may not) or
RESOURCE_EXHAUSTED (too often, too much at a time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from grpc import StatusCode

from authmilter.mail import Origin
from authmilter.rpc.refusal import Refused, exhausted
from authmilter.rpc.settings import Identity, Peers, Permission, token_hash

__all__ = ["Bucket", "Caller", "Callers"]

#: Characters of a token that is looked at.
_MAX_TOKEN = 4096
#: Names of a certificate that are looked at.
_MAX_NAMES = 100
#: The properties of a verified client certificate that name its owner, as gRPC calls them.
_NAMES = ("x509_subject_alternative_name", "x509_common_name")


class Bucket:
    """A token bucket: `rate` a second, at most `burst` at once. `now` tells seconds that never go back."""

    __slots__ = ("_burst", "_left", "_now", "_rate", "_seen")

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._now = now
        self._left = self._burst
        self._seen = now()

    def take(self) -> float:
        """Take one; return 0, or the seconds until there is one."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._rate


class Caller:
    """An identity at work in this process.

    Args:
        identity: who it is.
        share: how many processes divide the rate among them.
        now: tells seconds that never go back.
    """

    __slots__ = ("_bucket", "_busy", "identity")

    def __init__(self, identity: Identity, share: int, now: Callable[[], float]) -> None:
        self.identity = identity
        rate, burst = identity.rate / share, (identity.burst or identity.rate) / share
        self._bucket = Bucket(rate, burst, now) if rate else None
        self._busy = 0

    @property
    def busy(self) -> int:
        """How much is at work for him."""
        return self._busy

    def needs(self, permission: Permission) -> None:
        """Refuse him unless he has the permission."""
        if permission not in self.identity.permissions:
            raise Refused(
                StatusCode.PERMISSION_DENIED, f"`{self.identity.name}` has no permission `{permission}`"
            )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count one message or question against his rate and, while it lasts, his concurrency."""
        limit = self.identity.concurrency
        if limit and self._busy >= limit:
            raise exhausted(f"`{self.identity.name}` has {limit} at work already")
        if self._bucket is not None:
            wait = self._bucket.take()
            if wait:
                raise exhausted(f"`{self.identity.name}` is over its rate", wait)
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def may_name(self, authserv_id: str) -> bool:
        """True if he may ask for this authserv-id."""
        return authserv_id in self.identity.authserv_ids

    def may_say(self, origin: Origin) -> bool:
        """True if he may declare this origin."""
        return origin in self.identity.origins


class Callers:
    """All identities.

    Args:
        identities: as configured.
        tls: True if the ports have TLS: then being on this machine proves nothing (a proxy may be).
        share: how many processes divide the rates among them.
        now: tells seconds that never go back.
    """

    __slots__ = ("_by_certificate", "_by_peers", "_by_token")

    def __init__(
        self, identities: Iterable[Identity], *, tls: bool, share: int, now: Callable[[], float]
    ) -> None:
        self._by_token: dict[str, Caller] = {}
        self._by_certificate: dict[str, Caller] = {}
        self._by_peers: dict[Peers, Caller] = {}
        for identity in identities:
            caller = Caller(identity, share, now)
            self._by_token.update(dict.fromkeys(identity.tokens, caller))
            self._by_certificate.update(dict.fromkeys(identity.certificates, caller))
            self._by_peers.update(dict.fromkeys(identity.peers, caller))
        if tls:
            self._by_peers.pop(Peers.LOOPBACK, None)

    def find(
        self,
        peer: str,
        properties: Mapping[str, Iterable[bytes]],
        metadata: Iterable[tuple[str, str | bytes]],
    ) -> Caller:
        """Return who calls.

        Args:
            peer: where from, as gRPC writes it (`ipv4:127.0.0.1:40000`, `unix:`).
            properties: what TLS found out.
            metadata: of the call.

        Raises:
            Refused: UNAUTHENTICATED.
        """
        for key, value in metadata:
            if key == "authorization":
                return self._of_token(value)
        if properties and self._by_certificate:
            found = self._of_certificate(properties)
            if found is not None:
                return found
        kind = _peers(peer)
        if kind in self._by_peers:
            return self._by_peers[kind]
        raise Refused(
            StatusCode.UNAUTHENTICATED,
            "no caller is known by this connection: send `authorization: Bearer TOKEN`"
            + (", or a client certificate" if self._by_certificate else ""),
        )

    def _of_token(self, value: str | bytes) -> Caller:
        text = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        scheme, _, token = text.partition(b" ")
        if scheme.lower() == b"bearer" and 0 < len(token) <= _MAX_TOKEN:
            # Found by its hash: how long that takes says nothing about a token.
            caller = self._by_token.get(token_hash(token.strip()))
            if caller is not None:
                return caller
        raise Refused(StatusCode.UNAUTHENTICATED, "the token is not known")

    def _of_certificate(self, properties: Mapping[str, Iterable[bytes]]) -> Caller | None:
        for key in _NAMES:
            for count, name in enumerate(properties.get(key, ())):
                if count >= _MAX_NAMES:
                    break
                caller = self._by_certificate.get(name.decode("utf-8", "replace"))
                if caller is not None:
                    return caller
        return None


def _peers(peer: str) -> Peers | None:
    if peer.startswith("unix:") or peer == "unix":
        return Peers.UNIX
    if peer.startswith(
        ("ipv4:127.", "ipv6:[::1]:", "ipv6:%5B::1%5D:", "ipv6:[::ffff:127.", "ipv6:%5B::ffff:127.")
    ):
        return Peers.LOOPBACK
    return None
