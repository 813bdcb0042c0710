"""What we knew of a message when it came in, kept with it until a hop of ours brings it back.

A list server or content filter changes a message, and after that nobody can validate its chain any more. So where
outbound sealing is wanted, our Authentication-Results field ends in a result of our own:

    x-authmilter=pass policy.custody=TIME.SETS.CV.MAC

TIME is when it was written (seconds), SETS the highest ARC instance, CV what the chain was (`none`, `pass`, `fail`, or
`unsure` where it could not be checked), and MAC a keyed hash (HMAC-SHA256, RFC 2104) over these, the field's own text
in relaxed form, the Message-ID, and every ARC field. Who has not the secret cannot make one; one that was made for
another message, or before sets were added or removed, does not fit.

Forged ones never come this far: fields of ours are removed from all mail but that of trusted hops.

Pure and total.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime

from authmilter.arc.chain import FIELDS, Chain
from authmilter.arc.result import ArcResult, ArcStatus
from authmilter.arc.seal import NotSealed, NotSealedReason, Sealable, SealSettings, status_of
from authmilter.dkim.canonical import Canonicalization, canonical_field
from authmilter.message import Message

__all__ = ["Custody", "recall", "with_custody"]

#: Authentication-Results fields that are looked into, topmost first.
MAX_EXAMINED = 64
#: Octets of such a field.
MAX_VALUE = 16384
#: Seconds that a clock of ours may be behind.
_SKEW = 300
_UNSURE = "unsure"

_CUSTODY = re.compile(
    rb";[ \t\r\n]*x-authmilter=pass[ \t\r\n]+policy\.custody=([0-9]{1,12})\.([0-9]{1,2})\.(none|pass|fail|unsure)"
    rb"\.([A-Za-z0-9_-]{32})[ \t\r\n]*\Z"
)


@dataclass(frozen=True, slots=True)
class Custody:
    """What we said of a message: the `results` (authserv-id and clauses, as written), and the next set's place."""

    results: bytes
    place: Sealable


def with_custody(
    results: bytes,
    message: Message,
    chain: Chain,
    arc: ArcResult | None,
    settings: SealSettings,
    *,
    now: datetime,
) -> bytes:
    """Return the value of our Authentication-Results field with its keyed id at the end.

    Args:
        results: the value so far, with at least one result.
        message: the header block as received.
        chain: its ARC sets.
        arc: what their validation gave.
        settings: the secrets.
        now: the time, with its zone.
    """
    place = status_of(arc, chain)
    if isinstance(place, Sealable):
        cv = place.cv
    elif place.reason is NotSealedReason.CHAIN_UNCHECKED:
        cv = _UNSURE
    else:
        cv = "fail" if arc is None or arc.status is not ArcStatus.PASS else "pass"
    seconds, sets = str(int(now.timestamp())), str(chain.highest)
    mac = _mac(settings.secrets[0], (seconds, sets, cv), results, _digest(message))
    return b"%b;\r\n x-authmilter=pass policy.custody=%b" % (
        results, f"{seconds}.{sets}.{cv}.{mac}".encode("ascii"),
    )  # fmt: skip


def recall(message: Message, chain: Chain, settings: SealSettings, *, now: datetime) -> Custody | NotSealed:
    """Return what we said of a message that a trusted hop brings back, or why it cannot be sealed.

    Args:
        message: the header block as it comes back.
        chain: its ARC sets as they are now.
        settings: the secrets, and how old an id may be.
        now: the time, with its zone.
    """
    seconds = int(now.timestamp())
    why = "no Authentication-Results field of ours has a keyed id"
    digest = b""
    for header in message.fields("authentication-results")[:MAX_EXAMINED]:
        value = header.value
        if len(value) > MAX_VALUE or b"policy.custody=" not in value:
            continue
        found = _CUSTODY.search(value, max(0, len(value) - 400))
        if found is None:
            continue
        results = value[: found.start()].strip(b" \t\r\n")
        made, sets, cv, mac = (part.decode("ascii") for part in found.groups())
        # (once: strangers' fields may look like ours, and ARC fields be long)
        digest = digest or _digest(message)
        if not any(
            hmac.compare_digest(mac, _mac(secret, (made, sets, cv), results, digest))
            for secret in settings.secrets
        ):
            why = "the keyed id does not fit the message"
        elif not seconds - settings.max_age <= int(made) <= seconds + _SKEW:
            why = "the keyed id is too old"
        else:
            return _place(results, chain, cv)
    return NotSealed(NotSealedReason.NO_CUSTODY, why)


def _place(results: bytes, chain: Chain, cv: str) -> Custody | NotSealed:
    if cv == _UNSURE:
        return NotSealed(
            NotSealedReason.CHAIN_UNCHECKED, "the chain could not be checked when the message came in"
        )
    # (of the chain's own state, what hangs on no check)
    established = ArcResult(status={"none": ArcStatus.NONE, "pass": ArcStatus.PASS}.get(cv, ArcStatus.FAIL))
    place = status_of(established, chain)
    return place if isinstance(place, NotSealed) else Custody(results, place)


def _digest(message: Message) -> bytes:
    """Return a digest of the fields that an id is bound to."""
    parts: list[bytes] = []
    for key in ("message-id", *FIELDS):
        fields = message.fields(key)
        parts.append(b"%d %b" % (len(fields), key.encode("ascii")))
        parts += [canonical_field(h.name, h.value, Canonicalization.RELAXED) for h in fields]
    return hashlib.sha256(_joined(parts)).digest()


def _mac(secret: bytes, words: tuple[str, str, str], results: bytes, digest: bytes) -> str:
    """Return 32 characters over what the id stands for; `digest` is that of `_digest`."""
    parts = [b"authmilter custody 1", *(word.encode("ascii") for word in words)]
    parts.append(canonical_field(b"Authentication-Results", results, Canonicalization.RELAXED))
    parts.append(digest)
    return base64.urlsafe_b64encode(hmac.digest(secret, _joined(parts), "sha256")[:24]).decode("ascii")


def _joined(parts: list[bytes]) -> bytes:
    """Return parts as one text that stands for no others: each is preceded by its length."""
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)
