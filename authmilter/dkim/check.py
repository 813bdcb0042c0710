"""DKIM verification, RFC 6376 §6 with 8301, 8463 and 8616, in two steps, because the body comes last.

    signatures = signature.read(message, limits)                # the text alone
    outcomes = verify_headers(message, signatures, lookup, ...) # keys, and b= over the header fields
    hasher = BodyHasher(body_needs(signatures))                 # meanwhile, as the body arrives
    results = conclude(outcomes, hasher.finish(), limits)       # bh=, and what local rules say

`verify_headers` is restartable: it asks for every key at once before any other work, so that a `Missing`
costs nothing, and the pass that has all answers is the only one that computes. No signature can keep
another from being verified: a key that has no answer is that signature's problem.

Never raises but `Missing`. What a problem means for the result (RFC 8601 §2.7.1 leaves slack; ours):

| status | problems |
|---|---|
| `pass` | none: b= and bh= hold |
| `fail` | `signature`, `body_hash`, `body_length`, `expired` |
| `policy` | it holds, but: `unsigned_body`, `unsigned_author`, `testing`; not computed by choice: `limit` |
| `neutral` | it cannot be read: `syntax`, `version`, `algorithm`, `canonicalization` |
| `permerror` | it can never verify: `missing_tag`, `bad_domain`, `identity_mismatch`, `from_not_signed`, `sha1`, `query_method`, `times`, and every `key_*` but the next; `no_key` |
| `temperror` | `key_unavailable` |
| `internal_error` | `internal` |

`limit` is `policy` and not `temperror`, because running out of our own budget says nothing about the DNS.
Where several things are wrong the first in the order of RFC 6376 §6.1 is told: text, times, key, body, b=.
A key in testing mode is told by `testing` in the result; RFC 6376 §3.6.1 wants its failures treated as no
signature, which a result that is no pass is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Final

from authmilter.dkim import key as keys
from authmilter.dkim.canonical import BodyDigests, BodyHasher, BodyNeed, Canonicalization
from authmilter.dkim.key import KeyRecord
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dkim.signature import DkimLimits, Signature, read
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Question
from authmilter.makers import maker
from authmilter.message import Message
from authmilter.octets.chosen import signed_data
from authmilter.ports import Lookup

__all__ = ["STATUSES", "HeaderOutcome", "body_needs", "broken", "conclude", "verify", "verify_headers"]

#: What each problem makes of a signature: the table above.
STATUSES: Final[dict[DkimProblem, DkimStatus]] = {
    DkimProblem.SYNTAX: DkimStatus.NEUTRAL,
    DkimProblem.VERSION: DkimStatus.NEUTRAL,
    DkimProblem.ALGORITHM: DkimStatus.NEUTRAL,
    DkimProblem.CANONICALIZATION: DkimStatus.NEUTRAL,
    DkimProblem.MISSING_TAG: DkimStatus.PERMERROR,
    DkimProblem.BAD_DOMAIN: DkimStatus.PERMERROR,
    DkimProblem.IDENTITY_MISMATCH: DkimStatus.PERMERROR,
    DkimProblem.FROM_NOT_SIGNED: DkimStatus.PERMERROR,
    DkimProblem.SHA1: DkimStatus.PERMERROR,
    DkimProblem.QUERY_METHOD: DkimStatus.PERMERROR,
    DkimProblem.TIMES: DkimStatus.PERMERROR,
    DkimProblem.EXPIRED: DkimStatus.FAIL,
    DkimProblem.NO_KEY: DkimStatus.PERMERROR,
    DkimProblem.KEY_SYNTAX: DkimStatus.PERMERROR,
    DkimProblem.KEY_REVOKED: DkimStatus.PERMERROR,
    DkimProblem.KEY_TYPE: DkimStatus.PERMERROR,
    DkimProblem.KEY_HASH: DkimStatus.PERMERROR,
    DkimProblem.KEY_SERVICE: DkimStatus.PERMERROR,
    DkimProblem.KEY_STRICT: DkimStatus.PERMERROR,
    DkimProblem.KEY_TOO_SHORT: DkimStatus.PERMERROR,
    DkimProblem.KEY_TOO_LONG: DkimStatus.PERMERROR,
    DkimProblem.KEY_UNAVAILABLE: DkimStatus.TEMPERROR,
    DkimProblem.BODY_HASH: DkimStatus.FAIL,
    DkimProblem.SIGNATURE: DkimStatus.FAIL,
    DkimProblem.BODY_LENGTH: DkimStatus.FAIL,
    DkimProblem.UNSIGNED_BODY: DkimStatus.POLICY,
    DkimProblem.UNSIGNED_AUTHOR: DkimStatus.POLICY,
    DkimProblem.TESTING: DkimStatus.POLICY,
    DkimProblem.LIMIT: DkimStatus.POLICY,
    DkimProblem.INTERNAL: DkimStatus.INTERNAL_ERROR,
}

#: Fields that a message has once and that decide what its reader sees (RFC 5322 §3.6, RFC 2045, RFC 2183).
_CRITICAL = (
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "date",
    "subject",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
)


@dataclass(frozen=True, slots=True)
class HeaderOutcome:
    """What the headers and the key say of one signature; the body is judged later.

    `result` is what the signature gives if the body is the signed one, and nothing else speaks against it.
    """

    signature: Signature
    result: DkimResult


_make_dkim_result = maker(DkimResult)
_make_header_outcome = maker(HeaderOutcome)
_RELAXED = Canonicalization.RELAXED
_PASS = DkimStatus.PASS
_SIGNATURE = DkimProblem.SIGNATURE
_NO_RECORD = KeyRecord()
_need = attrgetter("need")


def body_needs(signatures: Iterable[Signature]) -> frozenset[BodyNeed]:
    """Return the body hashes that the readable signatures need (at most `DkimLimits.body_hashes`)."""
    return frozenset(filter(None, map(_need, signatures)))


def verify_headers(
    message: Message, signatures: tuple[Signature, ...], lookup: Lookup, limits: DkimLimits, *, now: datetime
) -> tuple[HeaderOutcome, ...]:
    """Verify b= of each signature, in their order: everything except the body hash.

    Args:
        message: the header block the signatures were read from.
        signatures: what `signature.read` gave.
        lookup: where the keys come from.
        limits: bounds and choices.
        now: the time of arrival, aware of its zone.

    Raises:
        Missing: naming all the keys that are not at hand; nothing has been computed yet.
    """
    seconds = int(now.timestamp())
    questions: dict[Question, None] = {}
    refused: dict[int, tuple[DkimProblem, str]] = {}
    for signature in signatures:
        refusal = _before_key(signature, limits, seconds)
        if refusal is not None:
            refused[signature.position] = refusal
        elif signature.question is not None:
            questions[signature.question] = None
    answers: dict[Question | None, Answer] = dict(zip(questions, lookup.ask_all(questions), strict=True))
    outcomes: list[HeaderOutcome] = []
    for signature in signatures:
        refusal = refused.get(signature.position)
        if refusal is None:
            result = _with_key(message, signature, answers[signature.question], limits)
        else:
            result = _result(message, signature, *refusal)
        outcomes.append(_make_header_outcome(signature, result))
    return tuple(outcomes)


def conclude(
    outcomes: Iterable[HeaderOutcome], digests: BodyDigests | None, limits: DkimLimits
) -> tuple[DkimResult, ...]:
    """Join what the headers gave with the body's digests, in the same order.

    `digests` None: the body was not hashed whole, and no signature passes.
    """
    return tuple([_conclude(outcome, digests, limits) for outcome in outcomes])


def verify(
    message: Message, body: bytes, lookup: Lookup, limits: DkimLimits, *, now: datetime
) -> tuple[DkimResult, ...]:
    """Verify every signature of a message whose body is at hand: all the steps in one.

    Raises:
        Missing: as `verify_headers`.
    """
    signatures = read(message, limits)
    outcomes = verify_headers(message, signatures, lookup, limits, now=now)
    hasher = BodyHasher(body_needs(signatures))
    hasher.update(body)
    return conclude(outcomes, hasher.finish(), limits)


def broken(signatures: Iterable[Signature]) -> tuple[DkimResult, ...]:
    """Return the results of signatures whose verification failed in a way nobody foresaw: never a pass."""
    return tuple(_result(None, s, DkimProblem.INTERNAL, "the check failed") for s in signatures)


def _before_key(signature: Signature, limits: DkimLimits, now: int) -> tuple[DkimProblem, str] | None:
    """Return what the text and the time say against the signature; None: it has a question, and the key decides."""
    if signature.problem is not None:
        return signature.problem, signature.detail
    if signature.timestamp is not None and signature.timestamp > now + limits.clock_skew:
        return DkimProblem.TIMES, "t= lies in the future"
    if (
        signature.expires is not None
        and not limits.allow_expired
        and signature.expires + limits.clock_skew < now
    ):
        return DkimProblem.EXPIRED, "x= has passed"
    return None


@lru_cache(maxsize=512)
def _critical(names: tuple[str, ...]) -> tuple[tuple[tuple[str, int], ...], frozenset[str]]:
    """Return each critical field with how often h= names it, and those it does not name at all.

    Signers name the same fields in every signature.
    """
    named = tuple((name, names.count(name)) for name in _CRITICAL)
    return named, frozenset(name for name, times in named if not times)


def _unsigned_critical(message: Message, signature: Signature) -> tuple[str, ...]:
    """Return the critical fields of which the message has more than h= names."""
    names = signature.names
    if not names:
        return ()
    index = message.by_name
    named, unnamed = _critical(names)
    if not message.defects and unnamed.isdisjoint(index):
        return ()  # most mail: no critical field stands there twice, and h= names all there are
    found = [name for name, times in named if name in index and len(index[name]) > times]
    if "from" not in found and message.authors.fields > names.count("from"):
        # a From that only some readers see, such as one behind a bare CR
        found.insert(0, "from")
    return tuple(found)


def _with_key(message: Message, signature: Signature, answer: Answer, limits: DkimLimits) -> DkimResult:
    """Verify with the key that `answer` holds."""
    texts: tuple[bytes, ...] = ()
    if isinstance(answer, Found):
        texts = answer.texts()
    elif isinstance(answer, Failed):
        if answer.kind is FailureKind.LIMIT:
            return _result(message, signature, DkimProblem.LIMIT, "no answer for the key within our budget")
        # RFC 6376 §6.1.2: If the query ... fails to respond, the Verifier MAY seek a later verification attempt
        return _result(message, signature, DkimProblem.KEY_UNAVAILABLE, f"key lookup: {answer.kind.value}")
    records = keys.usable(texts, records=limits.key_records, octets=limits.txt_bytes)
    if not records:
        return _result(message, signature, DkimProblem.NO_KEY, "there is no key record")
    data = b""
    worst: tuple[DkimProblem, str, KeyRecord] | None = None
    for record in records:
        refused = _refused(record, signature, limits)
        if refused is None and record.key is not None:
            # RFC 6376 §3.7. Linear in the header block and h=.
            data = data or signed_data(
                message.by_name, signature.names, signature.header, signature.header_form is _RELAXED
            )
            if record.key.verify(signature.signature, data):
                return _result(message, signature, None, "", record)
            # A key that could have made the signature and did not says more than one that could not have.
            if worst is None or worst[0] is not _SIGNATURE:
                worst = _SIGNATURE, "b= does not hold for the signed header fields", record
        elif worst is None and refused is not None:
            worst = (*refused, record)
    assert worst is not None  # one of the branches was taken: a record without a problem has a key
    return _result(message, signature, *worst)


def _refused(record: KeyRecord, signature: Signature, limits: DkimLimits) -> tuple[DkimProblem, str] | None:
    """Return why this key cannot be used for this signature, or None (RFC 6376 §6.1.2)."""
    if record.problem is not None:
        return record.problem, record.detail
    if record.kind != signature.key_kind:
        return DkimProblem.KEY_TYPE, "the key is not of the kind that a= needs"
    if record.hashes is not None and "sha256" not in record.hashes:
        return DkimProblem.KEY_HASH, "the key's h= does not allow sha256"
    if not record.for_mail:
        return DkimProblem.KEY_SERVICE, "the key's s= does not allow e-mail"
    if record.strict and signature.identity_domain != signature.domain:
        # RFC 6376 §3.6.1 t=s: the domain of i= MUST be the same as d=
        return DkimProblem.KEY_STRICT, "the key's t=s forbids a subdomain in i="
    if record.kind == "rsa":
        if record.bits < limits.min_rsa_bits:
            # RFC 8301 §3.2: Verifiers MUST NOT consider signatures using RSA keys of less than 1024 bits as valid
            return DkimProblem.KEY_TOO_SHORT, f"the RSA key has {record.bits} bits"
        if record.bits > limits.max_rsa_bits:
            return DkimProblem.KEY_TOO_LONG, f"the RSA key has {record.bits} bits"
    return None


def _conclude(outcome: HeaderOutcome, digests: BodyDigests | None, limits: DkimLimits) -> DkimResult:
    signature, result = outcome.signature, outcome.result
    problem = result.problem
    if problem is not None and problem is not _SIGNATURE:
        return result
    digest = digests.get(signature.need) if digests is not None and signature.need is not None else None
    if digest is None:
        if problem is None:
            return _refuted(result, DkimProblem.LIMIT, "the body was not hashed to its end")
        return result
    length = signature.body_length
    if length is not None:
        if length > digest.length:
            # RFC 6376 §3.5 l=: the value MUST NOT be larger than the actual number of octets
            return _refuted(result, DkimProblem.BODY_LENGTH, "l= is longer than the body")
        result = replace(result, unsigned_body_bytes=digest.length - length)
    if digest.digest != signature.body_hash:
        # RFC 6376 §6.1.3 step 2, told before a b= that does not hold either: the body is what changed
        return _refuted(result, DkimProblem.BODY_HASH, "bh= is not the hash of the body")
    if problem is not None:
        return result
    if "from" in result.unsigned_critical:
        return _refuted(result, DkimProblem.UNSIGNED_AUTHOR, "a From field of the message is not signed")
    unsigned = result.unsigned_body_bytes
    if unsigned and limits.unsigned_body == "policy":
        detail = f"l= leaves {unsigned} octets of the body unsigned"
        return _refuted(result, DkimProblem.UNSIGNED_BODY, detail)
    if result.testing and limits.testing == "ignore":
        return _refuted(result, DkimProblem.TESTING, "the key is in testing mode")
    return result


def _refuted(result: DkimResult, problem: DkimProblem, detail: str) -> DkimResult:
    return replace(result, status=STATUSES[problem], problem=problem, detail=detail)


def _result(
    message: Message | None,
    signature: Signature,
    problem: DkimProblem | None,
    detail: str,
    record: KeyRecord = _NO_RECORD,
) -> DkimResult:
    """Return what a signature gives before the body is looked at; `message` None: nothing is said of its fields."""
    return _make_dkim_result(
        status=_PASS if problem is None else STATUSES[problem],
        domain=signature.domain,
        selector=signature.selector,
        identity=signature.identity,
        algorithm=signature.algorithm,
        key_bits=record.bits,
        signed_headers=signature.names,
        unsigned_critical=_unsigned_critical(message, signature) if message is not None else (),
        body_length=signature.body_length,
        testing=record.testing,
        signature_start=signature.signature_start,
        timestamp=signature.timestamp,
        expires=signature.expires,
        problem=problem,
        detail=detail,
    )
