"""ARC chain validation, RFC 8617 §5.2, in two steps, because the body comes last.

    chain = chain.read(message, settings)                          # the text alone
    outcome = verify_headers(message, chain, lookup, settings, ...) # keys, and every b=
    hasher = BodyHasher(body_needs(chain, settings))               # meanwhile, as the body arrives
    result = conclude(outcome, hasher.finish(), message, settings) # bh=, and whom we believe

`verify_headers` is restartable: it asks for all keys at once before any other work. A chain whose text cannot pass
asks nothing. Each field is made canonical once, and the seals are hashed in one run over the sets, so that fifty sets
cost fifty times what one does.

Errors of DNS make the chain `fail` (§5.2.1: all are permanent), but `problem` keeps them apart, and so does
`ArcResult.sure`: nobody seals cv=fail for want of an answer. Where one thing is established and another is not, the
established one is told.

Never raises but `Missing`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from authmilter.arc import trust
from authmilter.arc.chain import Chain, Link, MessageSignature, Seal
from authmilter.arc.chain import read as read_chain
from authmilter.arc.result import ArcCheck, ArcProblem, ArcResult, ArcSet, ArcStatus
from authmilter.arc.settings import ArcSettings
from authmilter.dkim import key as keys
from authmilter.dkim.canonical import BodyDigests, BodyHasher, BodyNeed, Canonicalization, canonical_field
from authmilter.dkim.result import DkimProblem
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Question
from authmilter.message import Header, Message
from authmilter.octets.chosen import signed_data, unsigned_value
from authmilter.ports import Lookup

__all__ = ["ArcOutcome", "body_needs", "broken", "conclude", "signed_block", "verify", "verify_headers"]

_RELAXED = Canonicalization.RELAXED
_CRLF = b"\r\n"


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with one signature or seal."""

    problem: ArcProblem
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArcOutcome:
    """What the headers and the keys say of a chain; the body is judged later.

    By instance, 1 first: `signatures` of message signatures over the header fields, `seals` of seals; None is a
    signature that holds. Both are empty where the chain's text decided.
    """

    chain: Chain
    signatures: tuple[_Fault | None, ...] = ()
    seals: tuple[_Fault | None, ...] = ()


def body_needs(chain: Chain, settings: ArcSettings) -> frozenset[BodyNeed]:
    """Return the body hashes that the message signatures need: the newest one's first, then as many as allowed."""
    if chain.problem is not None:
        return frozenset()
    needs: set[BodyNeed] = set()
    for link in reversed(chain.links):
        need = link.signature.need
        if need is not None and len(needs) < settings.body_hashes:
            needs.add(need)
    return frozenset(needs)


def verify_headers(
    message: Message, chain: Chain, lookup: Lookup, settings: ArcSettings, *, now: datetime
) -> ArcOutcome:
    """Verify all that does not need the body.

    Args:
        message: the header block the chain was read from.
        chain: what `chain.read` gave.
        lookup: where the keys come from.
        settings: bounds and choices.
        now: the time of arrival, aware of its zone.

    Raises:
        Missing: naming all the keys that are not at hand; nothing has been computed yet.
    """
    if chain.problem is not None or not chain.links:
        return ArcOutcome(chain=chain)
    links = chain.links
    seconds = int(now.timestamp()) + settings.clock_skew
    wanted: dict[Question, None] = {}
    for signed in (links[-1].signature, *(link.seal for link in reversed(links))):
        if signed.question is not None:
            wanted[signed.question] = None
    for link in reversed(links[:-1]):
        question = link.signature.question
        if question is not None and len(wanted) < settings.key_lookups:
            wanted[question] = None
    answers = dict(zip(wanted, lookup.ask_all(wanted), strict=True))
    return ArcOutcome(
        chain=chain,
        signatures=_signatures(links, message, answers, settings, seconds),
        seals=_seals(links, answers, settings, seconds),
    )


def _relaxed(header: Header) -> bytes:
    return canonical_field(header.name, header.value, _RELAXED) + _CRLF


def signed_block(message: Message, signature: MessageSignature) -> bytes:
    """Return what b= of a message signature is computed over (RFC 8617 §4.1.2 after RFC 6376 §3.7).

    Linear in the header block and h=.
    """
    return signed_data(message.by_name, signature.names, signature.header, signature.header_form is _RELAXED)


def _signatures(
    links: tuple[Link, ...],
    message: Message,
    answers: dict[Question, Answer],
    settings: ArcSettings,
    seconds: int,
) -> tuple[_Fault | None, ...]:
    """Verify the message signatures, newest first; those older than what the octets allow are not looked at."""
    found: list[_Fault | None] = []
    octets = 0
    stopped = False
    for link in reversed(links):
        signature = link.signature
        fault = _before_key(signature, settings, seconds)
        question = signature.question
        if stopped:
            # RFC 8617 §5.2 step 5 looks for the first that fails; what lies behind it says nothing
            fault = _Fault(ArcProblem.LIMIT, "not looked at")
        elif fault is None and question is not None:
            if question not in answers or octets > settings.signed_octets:
                fault = _Fault(ArcProblem.LIMIT, "more keys or octets than are looked at")
            else:
                data = signed_block(message, signature)
                octets += len(data)
                digest = hashlib.sha256(data).digest()
                fault = _with_key(
                    signature, answers[question], digest, settings, ArcProblem.MESSAGE_SIGNATURE
                )
        stopped = fault is not None
        found.append(fault)
    found.reverse()
    return tuple(found)


def _seals(
    links: tuple[Link, ...],
    answers: dict[Question, Answer],
    settings: ArcSettings,
    seconds: int,
) -> tuple[_Fault | None, ...]:
    """Verify the seals: each is over all sets up to its own, in order, its own b= empty (RFC 8617 §5.1.1, §5.2 step 6)."""
    found: list[_Fault | None] = []
    running = hashlib.sha256()
    for link in links:
        seal = link.seal
        for header in (link.results, link.signature.header):
            running.update(_relaxed(header))
        fault = _before_key(seal, settings, seconds)
        if fault is None and seal.question is not None:
            whole = running.copy()
            whole.update(canonical_field(seal.header.name, unsigned_value(seal.header.value), _RELAXED))
            fault = _with_key(seal, answers[seal.question], whole.digest(), settings, ArcProblem.SEAL)
        running.update(_relaxed(seal.header))
        found.append(fault)
    return tuple(found)


def _before_key(signed: Seal | MessageSignature, settings: ArcSettings, seconds: int) -> _Fault | None:
    """Return what the text and the clock say; `seconds` is now and the allowed skew."""
    if signed.problem is not None:
        return _Fault(signed.problem, signed.detail)
    if signed.timestamp is not None and signed.timestamp > seconds:
        return _Fault(ArcProblem.TIMES, f"t= of instance {signed.instance} lies in the future")
    expires = signed.expires if isinstance(signed, MessageSignature) else None
    if expires is not None and expires < seconds - 2 * settings.clock_skew:
        return _Fault(ArcProblem.TIMES, f"x= of instance {signed.instance} has passed")
    return None


def _with_key(
    signed: Seal | MessageSignature,
    answer: Answer,
    digest: bytes,
    settings: ArcSettings,
    broken_by: ArcProblem,
) -> _Fault | None:
    """Verify with the key that `answer` holds."""
    where = f"{'seal' if broken_by is ArcProblem.SEAL else 'message signature'} {signed.instance}"
    if isinstance(answer, Failed):
        if answer.kind is FailureKind.LIMIT:
            return _Fault(ArcProblem.LIMIT, f"{where}: no answer for the key within our budget")
        return _Fault(ArcProblem.DNS, f"{where}: key lookup: {answer.kind.value}")
    texts = answer.texts() if isinstance(answer, Found) else ()
    records = keys.usable(texts, records=settings.key_records, octets=settings.txt_bytes)
    if not records:
        return _Fault(ArcProblem.NO_KEY, f"{where}: there is no key record")
    worst: _Fault | None = None
    for record in records:
        key = record.key
        why = _refused(record, signed.key_kind, settings)
        if not why and key is not None:
            if key.verify_digest(signed.signature, digest):
                return None
            worst = _Fault(broken_by, f"b= of {where} does not hold")
        elif worst is None:
            worst = _Fault(
                ArcProblem.LIMIT if record.problem is DkimProblem.LIMIT else ArcProblem.KEY, f"{where}: {why}"
            )
    return worst


def _refused(record: keys.KeyRecord, kind: str, settings: ArcSettings) -> str:
    """Return why this key cannot be used, or nothing (RFC 6376 §6.1.2, RFC 8301 §3.2)."""
    if record.problem is not None:
        return record.detail
    if record.kind != kind:
        return "the key is not of the kind that a= needs"
    if record.hashes is not None and "sha256" not in record.hashes:
        return "the key's h= does not allow sha256"
    if not record.for_mail:
        return "the key's s= does not allow e-mail"
    if record.kind == "rsa" and not settings.min_rsa_bits <= record.bits <= settings.max_rsa_bits:
        return f"the RSA key has {record.bits} bits"
    return ""


def conclude(
    outcome: ArcOutcome, digests: BodyDigests | None, message: Message, settings: ArcSettings
) -> ArcResult:
    """Join what the headers gave with the body's digests, and with whom we believe. Total.

    Args:
        outcome: what `verify_headers` gave.
        digests: of the whole body; None: it was not read to its end, and no chain passes.
        message: the header block, for its author.
        settings: bounds and choices.
    """
    chain = outcome.chain
    if not chain.present:
        return ArcResult(status=ArcStatus.NONE)
    if chain.problem is not None:
        return ArcResult(
            status=ArcStatus.FAIL,
            sets=tuple(_set(link, ArcCheck.UNCHECKED, ArcCheck.UNCHECKED) for link in chain.links),
            problem=chain.problem,
            instance=chain.instance,
            detail=chain.detail,
        )
    links = chain.links
    signatures = tuple(
        fault or _body_fault(link.signature, digests)
        for link, fault in zip(links, outcome.signatures, strict=True)
    )
    sets = tuple(
        _set(link, _check_of(signature), _check_of(seal))
        for link, signature, seal in zip(links, signatures, outcome.seals, strict=True)
    )
    # RFC 8617 §5.2: step 4 before step 6; what is established before what is not
    body = _body_fault(links[-1].signature, digests) if signatures[-1] is not None else None
    faults = [(len(links), signatures[-1])]
    if body is not None and body.problem is ArcProblem.BODY_HASH:
        faults.insert(0, (len(links), body))
    faults += [(i, outcome.seals[i - 1]) for i in range(len(links), 0, -1)]
    told: tuple[int, _Fault] | None = None
    for instance, fault in faults:
        if fault is None:
            continue
        sure = fault.problem not in {ArcProblem.DNS, ArcProblem.LIMIT}
        if told is None or sure:
            told = (instance, fault)
        if sure:
            break
    if told is not None:
        return ArcResult(
            status=ArcStatus.FAIL, sets=sets, problem=told[1].problem, instance=told[0], detail=told[1].detail
        )
    oldest = next((s.instance + 1 for s in reversed(sets) if s.signature is not ArcCheck.PASS), 0)
    result = ArcResult(
        status=ArcStatus.PASS,
        sets=sets,
        oldest_pass=oldest,
        whole=_is_whole(links[-1].signature, digests, message),
    )
    return trust.believe(result, links, message.authors.domain, settings.trusted)


def _body_fault(signature: MessageSignature, digests: BodyDigests | None) -> _Fault | None:
    need = signature.need
    digest = digests.get(need) if digests is not None and need is not None else None
    if digest is None or need is None:
        return _Fault(ArcProblem.LIMIT, "the body was not hashed for it")
    if (need.length is not None and need.length > digest.length) or digest.digest != signature.body_hash:
        return _Fault(
            ArcProblem.BODY_HASH, f"bh= of message signature {signature.instance} is not the body's hash"
        )
    return None


def _is_whole(signature: MessageSignature, digests: BodyDigests | None, message: Message) -> bool:
    """True if nobody could have changed the author or added to the body after the newest message signature."""
    need = signature.need
    digest = digests.get(need) if digests is not None and need is not None else None
    if digest is None or need is None or (need.length is not None and need.length < digest.length):
        return False
    named = signature.names.count("from")
    return named > 0 and named >= max(len(message.fields("from")), message.authors.fields)


def _check_of(fault: _Fault | None) -> ArcCheck:
    if fault is None:
        return ArcCheck.PASS
    unsure = fault.problem in {ArcProblem.DNS, ArcProblem.LIMIT}
    return ArcCheck.UNCHECKED if unsure else ArcCheck.FAIL


def _set(link: Link, signature: ArcCheck, seal: ArcCheck) -> ArcSet:
    return ArcSet(
        instance=link.instance,
        sealer=link.seal.domain,
        selector=link.seal.selector,
        cv=link.seal.cv,
        signer=link.signature.domain,
        seal=seal,
        signature=signature,
    )


def verify(
    message: Message, body: bytes, lookup: Lookup, settings: ArcSettings, *, now: datetime
) -> ArcResult:
    """Validate the chain of a message whose body is at hand: all the steps in one.

    Raises:
        Missing: as `verify_headers`.
    """
    chain = read_chain(message, settings)
    outcome = verify_headers(message, chain, lookup, settings, now=now)
    hasher = BodyHasher(body_needs(chain, settings))
    hasher.update(body)
    return conclude(outcome, hasher.finish(), message, settings)


def broken() -> ArcResult:
    """Return the result of a validation that failed in a way nobody foresaw: never a pass."""
    return ArcResult(status=ArcStatus.INTERNAL_ERROR, problem=ArcProblem.INTERNAL, detail="the check failed")
