"""Sealing one message on its way through: what is done at its end, for the engine.

`Origin` and recipients choose the mode (`seal.wanted`). Inbound: the set is made over the message as our edits leave
it, with our own results of this very transaction. Outbound: what a trusted hop brings back is sealed with the results
that we wrote when it came in (`custody`). A message that is to come back gets its keyed id, and is not sealed inbound.

Pure and total, but for faults of ours, which the engine guards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from authmilter.arc import custody, seal
from authmilter.arc.chain import Chain
from authmilter.arc.chain import read as read_chain
from authmilter.arc.result import ArcResult
from authmilter.arc.seal import NotSealed, NotSealedReason, OnDnsFailure, Sealable, SealMode, SealSettings
from authmilter.arc.settings import ArcSettings
from authmilter.dkim.canonical import BodyDigests
from authmilter.headers.edits import Plan, applied
from authmilter.mail import Mail, Origin
from authmilter.message import Message
from authmilter.verdict import InsertHeader, Quarantine, Sealing

__all__ = ["Sealed", "finish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What became of it: the edits with the set or the keyed id among them, what the log says (None: nothing was
    wanted), and whether the message is to come again later.
    """

    plan: Plan
    told: Sealing | None = None
    defer: bool = False


def finish(
    mail: Mail,
    plan: Plan,
    settings: SealSettings,
    *,
    arc: ArcResult | None,
    limits: ArcSettings,
    digests: Callable[[], BodyDigests | None],
    now: datetime,
) -> Sealed:
    """Seal a message that is delivered, or give it its keyed id, or neither.

    Args:
        mail: the message as received.
        plan: our edits so far.
        settings: see there.
        arc: what the validation gave, if it was asked.
        limits: for reading the chain.
        digests: gives the hashes of the whole body; None: it was not read to its end.
        now: the time, with its zone.
    """
    recipients = list(mail.envelope.rcpt_to)
    if mail.origin is Origin.TRUSTED_HOP:
        if not settings.outbound:
            return Sealed(plan=plan)
        chain = read_chain(mail.message, limits)
        found = custody.recall(mail.message, chain, settings, now=now)
        if isinstance(found, NotSealed):
            return _not(plan, SealMode.OUTBOUND, found)
        return _set(
            mail, plan, settings, SealMode.OUTBOUND, found.place, found.results, chain, digests(), now
        )
    if mail.origin not in {Origin.INTERNET, Origin.TRUSTED_RELAY}:
        return Sealed(plan=plan)
    results = plan.authentication_results.encode()
    if settings.outbound.fit(recipients):
        chain = read_chain(mail.message, limits)
        return Sealed(plan=_with_id(plan, results, mail, chain, arc, settings, now))
    if not settings.inbound.fit(recipients):
        return Sealed(plan=plan)
    chain = read_chain(mail.message, limits)
    place = seal.status_of(arc, chain)
    if isinstance(place, NotSealed):
        unchecked = place.reason is NotSealedReason.CHAIN_UNCHECKED
        sealed = _not(plan, SealMode.INBOUND, place)
        # (a chain whose text is over a limit of ours will be so next time, too)
        later = unchecked and chain.problem is None
        return replace(sealed, defer=later and settings.on_dns_failure is OnDnsFailure.TEMPFAIL)
    return _set(mail, plan, settings, SealMode.INBOUND, place, results, chain, digests(), now)


def _not(plan: Plan, mode: SealMode, why: NotSealed) -> Sealed:
    return Sealed(plan=plan, told=Sealing(mode=mode.value, reason=why.reason.value, detail=why.detail))


def _set(  # noqa: PLR0917 - one call each of the two modes
    mail: Mail,
    plan: Plan,
    settings: SealSettings,
    mode: SealMode,
    place: Sealable,
    results: bytes,
    chain: Chain,
    digests: BodyDigests | None,
    now: datetime,
) -> Sealed:
    """Make the set over the message as it will leave, and put it above everything."""
    leaving = Message.of_fields(applied(mail.message.headers, plan.edits))
    made = seal.make(leaving, digests, place, results, chain=chain, settings=settings, now=now)
    if isinstance(made, NotSealed):
        return _not(plan, mode, made)
    fields = tuple(InsertHeader(at=0, name=name, value=value) for name, value in reversed(made))
    at = next((i for i, e in enumerate(plan.edits) if isinstance(e, Quarantine)), len(plan.edits))
    entry = settings.entry
    return Sealed(
        plan=replace(plan, edits=(*plan.edits[:at], *fields, *plan.edits[at:])),
        told=Sealing(
            mode=mode.value,
            sealed=f"{entry.domain.ascii}/{entry.selector}",
            instance=place.instance,
            cv=place.cv,
        ),
    )


def _with_id(  # noqa: PLR0917 - as above
    plan: Plan,
    results: bytes,
    mail: Mail,
    chain: Chain,
    arc: ArcResult | None,
    settings: SealSettings,
    now: datetime,
) -> Plan:
    """Return the plan with the keyed id at the end of our Authentication-Results field."""
    if not results or results.endswith(b"; none"):
        return plan  # nothing was checked: there is nothing to keep
    value = custody.with_custody(results, mail.message, chain, arc, settings, now=now)
    edits = tuple(
        replace(e, value=value)
        if isinstance(e, InsertHeader) and e.name == b"Authentication-Results" and e.value == results
        else e
        for e in plan.edits
    )
    return replace(plan, edits=edits, authentication_results=value.decode())
