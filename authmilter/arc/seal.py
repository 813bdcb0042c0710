"""ARC sets made by us (RFC 8617 §5.1): the results, the message signature and the seal, for the top of the message.

    mode = wanted(settings, origin, recipients)              # before the body: is a set to be made, so is it hashed
    found = status_of(result, chain)                         # inbound: i= and cv= of what has just been validated
    fields = make(message, digests, found, results, ...)     # at the end: over the message as it leaves

The fields are returned top down, seal above message signature above results, and belong above everything else: so
write them Google and Microsoft, and Microsoft does not take another order. A set says cv=none on a message without
sets, cv=pass on a chain that passes, and cv=fail on one that is established to fail: its seal covers its own set alone
(§5.1.2), and nobody adds a set after it. A chain that could not be checked is never sealed as failed.

Only RSA keys: RFC 8617 knows no other algorithm (§4.1.3).

Pure and total: what cannot be sealed is a `NotSealed` that says why.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from authmilter.arc.chain import FIELDS, MAX_SETS, Chain
from authmilter.arc.result import ArcProblem, ArcResult, ArcStatus
from authmilter.dkim.canonical import BodyDigests, BodyNeed, Canonicalization, canonical_field
from authmilter.dkim.crypto import KeyKind
from authmilter.dkim.sign import (
    SignatureSettings,
    SigningEntry,
    Unsignable,
    fold_base64,
    fold_names,
    plan,
)
from authmilter.mail import Origin
from authmilter.message import Header, Message
from authmilter.names import Address, Domain, Recipient
from authmilter.octets.chosen import signed_data

__all__ = [
    "NEED",
    "NotSealed",
    "NotSealedReason",
    "OnDnsFailure",
    "RecipientPatterns",
    "SealMode",
    "SealSettings",
    "Sealable",
    "make",
    "status_of",
    "wanted",
]

_RELAXED = Canonicalization.RELAXED
#: The body hash that a message signature of ours needs.
NEED = BodyNeed(_RELAXED)
#: DKIM-Signature fields that a message signature covers (RFC 8617 §4.1.2: they SHOULD be).
MAX_DKIM = 20
_CRLF = b"\r\n"
_FOLD = b"\r\n "


class OnDnsFailure(StrEnum):
    """What happens to a message that is to be sealed and whose chain could not be checked."""

    TEMPFAIL = "tempfail"
    NO_SEAL = "no-seal"


class SealMode(StrEnum):
    """Where a message is sealed: a closed list."""

    #: as it comes in, for recipients whose mail goes on
    INBOUND = "inbound"
    #: as it comes back from a hop of ours that changes it
    OUTBOUND = "outbound"


class NotSealedReason(StrEnum):
    """Why a message gets no set: a closed list."""

    #: the newest seal says cv=fail (RFC 8617 §5.1.2: nothing is added)
    CHAIN_ENDED = "chain_ended"
    #: there are 50 sets
    CHAIN_FULL = "chain_full"
    #: the chain could not be checked for want of answers, or within our limits
    CHAIN_UNCHECKED = "chain_unchecked"
    #: no Authentication-Results of ours with a keyed id that fits
    NO_CUSTODY = "no_custody"
    #: the header block is read differently by different readers, or names too many fields
    UNSIGNABLE = "unsignable"
    #: the body was not read to its end
    NO_BODY = "no_body"
    #: the message is not delivered
    NOT_DELIVERED = "not_delivered"
    #: we failed
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class NotSealed:
    """A message without a set of ours, and why; `detail` in our own words."""

    reason: NotSealedReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sealable:
    """The place of the next set: its `instance` and `cv` (`none`, `pass`, `fail`)."""

    instance: int
    cv: str


@dataclass(frozen=True, slots=True)
class RecipientPatterns:
    """Recipients: `everybody`, whole `domains`, and single `addresses` (local part compared without case)."""

    everybody: bool = False
    domains: frozenset[Domain] = frozenset()
    addresses: frozenset[tuple[str, Domain]] = frozenset()

    @classmethod
    def of(cls, texts: tuple[str, ...]) -> RecipientPatterns:
        """Build it of `*`, `*@example.com` and `user@example.com`.

        Raises:
            ValueError: one of them is none of these; it is named.
        """
        domains: set[Domain] = set()
        addresses: set[tuple[str, Domain]] = set()
        for text in texts:
            if text == "*":
                continue
            local, _, rest = text.rpartition("@")
            domain = Domain.maybe(rest)
            if domain is None or not local:
                raise ValueError(f"{text!a} is no recipient: user@example.com, *@example.com or *")
            if local == "*":
                domains.add(domain)
            else:
                addresses.add((local.casefold(), domain))
        return cls(everybody="*" in texts, domains=frozenset(domains), addresses=frozenset(addresses))

    def __bool__(self) -> bool:
        return self.everybody or bool(self.domains) or bool(self.addresses)

    def fit(self, recipients: list[Recipient]) -> bool:
        """True if one of the recipients is meant."""
        if self.everybody:
            return bool(recipients)
        return any(
            isinstance(r, Address)
            and (r.domain in self.domains or (r.local.casefold(), r.domain) in self.addresses)
            for r in recipients
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealSettings:
    """Everything the administrator says about sealing, the key loaded.

    Attributes:
        entry: d=, s= and the key; an RSA key.
        inbound: whose mail is sealed as it comes in.
        on_dns_failure: what then happens to a message whose chain could not be checked.
        outbound: whose mail gets a keyed id as it comes in, so that it can be sealed when a trusted hop brings it back.
        secrets: for the keyed ids: the first makes them, all are accepted; each of at least 32 octets.
        max_age: seconds after which a keyed id is too old.
        signature: which fields are covered.

    Raises:
        ValueError: a key that is no RSA key, outbound without a secret, or a secret that is too short.
    """

    entry: SigningEntry
    inbound: RecipientPatterns = RecipientPatterns()
    on_dns_failure: OnDnsFailure = OnDnsFailure.TEMPFAIL
    outbound: RecipientPatterns = RecipientPatterns()
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    max_age: int = 30 * 86400
    signature: SignatureSettings = field(default_factory=SignatureSettings)

    def __post_init__(self) -> None:
        if self.entry.key.kind is not KeyKind.RSA:
            raise ValueError("the key is no RSA key: RFC 8617 has no other algorithm")
        if self.outbound and not self.secrets:
            raise ValueError("outbound needs a secret")
        if any(len(secret) < 32 for secret in self.secrets):
            raise ValueError("a secret has fewer than 32 octets")

    @property
    def identity(self) -> str:
        """A text that names the key and the secrets, and tells nothing of either."""
        secrets = hashlib.sha256(b"\0".join(self.secrets)).hexdigest()
        return f"{self.entry.domain.ascii} {self.entry.selector} {self.entry.key.public.hex()} {secrets}"


def wanted(settings: SealSettings, origin: Origin, recipients: list[Recipient]) -> SealMode | None:
    """Return where a message is to be sealed, as far as origin and recipients tell."""
    if origin is Origin.TRUSTED_HOP:
        return SealMode.OUTBOUND if settings.outbound else None
    if origin in {Origin.INTERNET, Origin.TRUSTED_RELAY} and settings.inbound.fit(recipients):
        return SealMode.INBOUND
    return None


def status_of(result: ArcResult | None, chain: Chain) -> Sealable | NotSealed:
    """Return the next set's place and chain value for a chain that has just been validated.

    Args:
        result: of the validation; None: there was none.
        chain: what it was made of.
    """
    if chain.ended:
        return NotSealed(NotSealedReason.CHAIN_ENDED, "the newest seal says cv=fail")
    if chain.highest >= MAX_SETS or (result is not None and result.problem is ArcProblem.TOO_MANY_SETS):
        return NotSealed(NotSealedReason.CHAIN_FULL, f"there are {MAX_SETS} sets")
    if result is None or not result.sure or result.status is ArcStatus.INTERNAL_ERROR:
        why = result.detail if result is not None else "the chain was not validated"
        return NotSealed(NotSealedReason.CHAIN_UNCHECKED, why)
    if result.status is ArcStatus.NONE:
        return Sealable(1, "none")
    return Sealable(chain.highest + 1, "pass" if result.status is ArcStatus.PASS else "fail")


def make(
    message: Message,
    digests: BodyDigests | None,
    place: Sealable,
    results: bytes,
    *,
    chain: Chain,
    settings: SealSettings,
    now: datetime,
) -> tuple[tuple[bytes, bytes], ...] | NotSealed:
    """Make a set.

    Args:
        message: the header block as it will leave, but for the set.
        digests: of the body as it will leave, with `NEED` among them.
        place: the set's instance and chain value.
        results: what our Authentication-Results field says: authserv-id and results, folds allowed.
        chain: the sets there are, by `chain.read`.
        settings: the key, and which fields are covered.
        now: the time of sealing, with its zone.

    Returns:
        Names and values of the three fields, top down; values without a leading space, which is to be written after
        the colon. Or why there are none.
    """
    digest = digests.get(NEED) if digests is not None else None
    if digest is None:
        return NotSealed(NotSealedReason.NO_BODY, "the body was not read to its end")
    planned = plan(message, (settings.entry,), settings.signature)
    if isinstance(planned, Unsignable):
        return NotSealed(NotSealedReason.UNSIGNABLE, planned.detail)
    signatures = min(len(message.fields("dkim-signature")), MAX_DKIM)
    names = (*planned.names, *["dkim-signature"] * signatures)
    entry = settings.entry
    where = f"d={entry.domain.ascii}; s={entry.selector};".encode("ascii")
    instance, seconds = b"i=%d;" % place.instance, b"t=%d;" % int(now.timestamp())
    aar = instance + b" " + results
    ams = (
        instance + b" a=rsa-sha256; c=relaxed/relaxed; " + seconds + _FOLD + where
        + _FOLD + fold_names(names) + _FOLD + b"bh=" + base64.b64encode(digest.digest) + b";" + _FOLD + b"b="
    )  # fmt: skip
    ams += _signature(entry, signed_data(message.by_name, names, Header(_NAMES[1], b" " + ams), True))
    seal = (
        instance
        + b" a=rsa-sha256; "
        + seconds
        + b" cv=%b;" % place.cv.encode()
        + _FOLD
        + where
        + _FOLD
        + b"b="
    )
    # RFC 8617 §5.1.2: the seal of a chain that failed covers its own set alone
    before = () if place.cv == "fail" else chain.links
    covered = [
        canonical_field(h.name, h.value, _RELAXED)
        for link in before
        for h in (link.results, link.signature.header, link.seal.header)
    ]
    covered += [_canonical(0, aar), _canonical(1, ams), _canonical(2, seal)]
    seal += _signature(entry, _CRLF.join(covered))
    return (_NAMES[2], seal), (_NAMES[1], ams), (_NAMES[0], aar)


_NAMES = (b"ARC-Authentication-Results", b"ARC-Message-Signature", b"ARC-Seal")
assert tuple(n.decode().lower() for n in _NAMES) == FIELDS


def _canonical(which: int, value: bytes) -> bytes:
    return canonical_field(_NAMES[which], b" " + value, _RELAXED)


def _signature(entry: SigningEntry, data: bytes) -> bytes:
    return fold_base64(base64.b64encode(entry.key.sign(data)))
