"""One question at a time, without a message: SPF, a DKIM key, a DMARC policy, BIMI; for tools and `authmilter.rpc`.

Each is the same row of `pipeline.METHODS` that judges mail, run alone over the same budgets.

How it fails: as `Verification` does, never: what has no answer in time is the result's `limit`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from authmilter.bimi.result import BimiResult
from authmilter.deadline import Deadline
from authmilter.dkim import key as dkim_key
from authmilter.dkim.key import KeyRecord
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dkim.signature import DkimLimits
from authmilter.dmarc.result import AlignedBy, DmarcResult, DmarcStatus
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Question, RdType
from authmilter.engine import Runtime, ask
from authmilter.mail import Session
from authmilter.message import Message
from authmilter.names import Domain, ReversePath
from authmilter.pipeline import Inquiry, Method, Stage
from authmilter.ports import Lookup
from authmilter.spf.result import SpfResult
from authmilter.text import printable

__all__ = ["DkimKey", "check_bimi", "check_dkim_key", "check_spf", "discover_dmarc"]

#: Characters of a key record that are shown.
_MAX_RECORD = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimKey:
    """A DKIM key as it is published; see `KeyRecord`. `problem` None: nothing speaks against it."""

    name: str
    record: str = ""
    kind: str = ""
    key_bits: int = 0
    hashes: tuple[str, ...] = ()
    testing: bool = False
    strict: bool = False
    problem: DkimProblem | None = None
    detail: str = ""


async def check_spf(
    runtime: Runtime, session: Session, mail_from: ReversePath, deadline: Deadline
) -> tuple[SpfResult, SpfResult | None, int]:
    """Return SPF for the reverse-path and, where HELO is known, for it, and how many DNS questions were asked.

    Args:
        runtime: the settings and ports.
        session: its client and HELO.
        mail_from: the reverse-path.
        deadline: what has no answer then is over the limit.
    """
    inquiry = Inquiry.of(runtime.checks, session, runtime.now())
    inquiry.mail_from = mail_from
    spf, asked = await ask(_row(runtime, "spf"), inquiry, runtime, deadline)
    assert isinstance(spf, SpfResult)  # what that row gives
    if session.helo is None:
        return spf, None, asked
    helo, more = await ask(_row(runtime, "spf_helo"), inquiry, runtime, deadline)
    assert isinstance(helo, SpfResult)  # as above
    return spf, helo, asked + more


async def discover_dmarc(runtime: Runtime, domain: Domain, deadline: Deadline) -> DmarcResult:
    """Return what DMARC says of a message by an author at `domain` with nothing that passed."""
    inquiry = Inquiry.of(runtime.checks, Session(), runtime.now())
    inquiry.message = Message.of_fields([(b"From", b" postmaster@" + domain.ascii.encode())])
    inquiry.dkim = ()
    found, _asked = await ask(_row(runtime, "dmarc"), inquiry, runtime, deadline)
    assert isinstance(found, DmarcResult)  # what that row gives
    return found


async def check_dkim_key(runtime: Runtime, domain: Domain, selector: str, deadline: Deadline) -> DkimKey:
    """Return the key that a signature by `domain` and `selector` would be verified with.

    Raises:
        InvalidName: the two give no DNS name.
    """
    question = Question.of(f"{selector}._domainkey.{domain.ascii}", RdType.TXT)
    limits = runtime.checks.dkim

    def early(_inquiry: Inquiry, lookup: Lookup) -> DkimKey:
        return _key(question.name, lookup.ask(question), limits)

    def broken(_inquiry: Inquiry) -> DkimKey:
        return DkimKey(name=question.name, problem=DkimProblem.INTERNAL)

    row = Method(name="dkim_key", stage=Stage.MAIL, questions=1, early=early, broken=broken)
    inquiry = Inquiry.of(runtime.checks, Session(), runtime.now())
    found, _asked = await ask(row, inquiry, runtime, deadline)
    assert isinstance(found, DkimKey)  # what the row gives
    return found


async def check_bimi(
    runtime: Runtime, domain: Domain, selector: str, deadline: Deadline
) -> BimiResult | None:
    """Return what BIMI says of a message that is all right: one author at `domain`, signed, with a DMARC pass.

    Args:
        runtime: the settings and ports.
        domain: the Author Domain.
        selector: of the record; empty: `default`.
        deadline: what has no answer then is over the limit.

    Returns:
        The result; None where BIMI is not enabled.
    """
    if runtime.checks.bimi is None:
        return None
    until = deadline.or_after(runtime.budget.message)
    dmarc = await discover_dmarc(runtime, domain, until)
    if dmarc.status is DmarcStatus.FAIL:
        # Nothing passed because nothing was sent; such a message would have passed by its signature.
        dmarc = replace(
            dmarc, status=DmarcStatus.PASS, aligned=(AlignedBy.DKIM,), aligned_domains=(domain,), problem=None
        )
    fields = [(b"From", b" postmaster@" + domain.ascii.encode())]
    if selector:
        fields.append((b"BIMI-Selector", b" v=BIMI1; s=" + selector.encode("ascii", "replace")))
    signed = DkimResult(
        status=DkimStatus.PASS,
        domain=domain,
        signed_headers=("from", "bimi-selector"),
        algorithm="rsa-sha256",
    )
    inquiry = Inquiry.of(runtime.checks, Session(), runtime.now())
    inquiry.message = Message.of_fields(fields)
    inquiry.dkim = (signed,)
    inquiry.dmarc = dmarc
    found, _asked = await ask(_row(runtime, "bimi"), inquiry, runtime, until)
    assert isinstance(found, BimiResult)  # what that row gives
    return found


def _row(runtime: Runtime, name: str) -> Method:
    return next(method for method in runtime.methods if method.name == name)


def _key(name: str, answer: Answer, limits: DkimLimits) -> DkimKey:
    if isinstance(answer, Failed):
        if answer.kind is FailureKind.LIMIT:
            return DkimKey(name=name, problem=DkimProblem.LIMIT, detail="no answer within our budget")
        return DkimKey(
            name=name, problem=DkimProblem.KEY_UNAVAILABLE, detail=f"key lookup: {answer.kind.value}"
        )
    texts = answer.texts() if isinstance(answer, Found) else ()
    records = dkim_key.usable(texts, records=limits.key_records, octets=limits.txt_bytes)
    if not records:
        return DkimKey(name=name, problem=DkimProblem.NO_KEY, detail="there is no key record")
    # Several are undefined (RFC 6376 §3.6.2.2); a signature is tried with each, so that the best one is shown.
    record = next((r for r in records if _problem(r, limits)[0] is None), records[0])
    problem, detail = _problem(record, limits)
    shown = next((t for t in texts if dkim_key.parse(t) is record), b"") if len(texts) > 1 else texts[0]
    return DkimKey(
        name=name,
        record=printable(shown, _MAX_RECORD),
        kind=printable(record.kind, 64),
        key_bits=record.bits,
        hashes=tuple(sorted(printable(h, 64) for h in record.hashes)) if record.hashes is not None else (),
        testing=record.testing,
        strict=record.strict,
        problem=problem,
        detail=detail,
    )


def _problem(record: KeyRecord, limits: DkimLimits) -> tuple[DkimProblem | None, str]:
    """Return why no signature with this key would pass, as the check of a signature would."""
    if record.problem is not None:
        return record.problem, record.detail
    if record.hashes is not None and "sha256" not in record.hashes:
        return DkimProblem.KEY_HASH, "the key's h= does not allow sha256"
    if not record.for_mail:
        return DkimProblem.KEY_SERVICE, "the key's s= does not allow e-mail"
    if record.kind == "rsa" and not limits.min_rsa_bits <= record.bits <= limits.max_rsa_bits:
        short = record.bits < limits.min_rsa_bits
        problem = DkimProblem.KEY_TOO_SHORT if short else DkimProblem.KEY_TOO_LONG
        return problem, f"the RSA key has {record.bits} bits"
    return None, ""
