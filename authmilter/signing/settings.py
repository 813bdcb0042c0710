"""Whether an outbound mail is signed, by which line, and what happens where it cannot be.

    outcome = sign_plan_for(session, origin, message, settings)   # at the end of the header block
    settled = settle(outcome, facts, settings)                    # at the end of the body
    values = sign.finish(outcome, digests, now)                   # where settled.action is SIGN

The questions are asked in this order, and the first that says no gives the reason: is it outbound; has it exactly one
author, in a well-formed From field; does a table know the author; may this session write as that author; can the
header block be signed so that everybody reads the same. Every answer names the line that decided.

Pure and total: nothing here raises for any mail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from authmilter.dkim.canonical import BodyHasher
from authmilter.dkim.sign import (
    CURES,
    Risk,
    SignatureSettings,
    SigningPlan,
    Unsignable,
    UnsignableReason,
    body_needs,
    body_risks,
    finish,
    plan,
)
from authmilter.mail import BodyFacts, Origin, Session
from authmilter.message import AuthorProblem, Message
from authmilter.names import Address
from authmilter.signing.table import Match, SenderBindings, Table

__all__ = [
    "CURES",
    "Action",
    "NotSigned",
    "NotSignedReason",
    "OnSigningError",
    "OnUnsafeBody",
    "Risk",
    "Settled",
    "SignatureSettings",
    "SigningSettings",
    "preview",
    "settle",
    "sign_message",
    "sign_plan_for",
]


class OnSigningError(StrEnum):
    """What happens to a mail that a line says is signed, and that cannot be."""

    TEMPFAIL = "tempfail"
    PASS_UNSIGNED = "pass-unsigned"  # noqa: S105 - a word of the configuration


class OnUnsafeBody(StrEnum):
    """What happens to a mail whose body a later hop may change (see `Risk`)."""

    SIGN_AND_WARN = "sign-and-warn"
    TEMPFAIL = "tempfail"
    PASS_UNSIGNED = "pass-unsigned"  # noqa: S105 - as above


class NotSignedReason(StrEnum):
    """Why a mail is not signed: a closed list."""

    #: it comes from where nothing is signed
    NOT_OUTBOUND = "not_outbound"
    #: there is no From field, or it names nobody
    NO_AUTHOR = "no_author"
    #: there are several authors, or several From fields
    SEVERAL_AUTHORS = "several_authors"
    #: the From field is not well-formed
    MALFORMED_FROM = "malformed_from"
    #: no table has a line for the author
    NO_KEY = "no_key"
    #: this session may not write as that author
    SENDER_NOT_ALLOWED = "sender_not_allowed"
    #: the header block is read differently by different readers
    MALFORMED_HEADER = "malformed_header"
    #: more fields than a signature names
    TOO_MANY_FIELDS = "too_many_fields"
    #: we failed
    INTERNAL = "internal"

    @property
    def is_error(self) -> bool:
        """True where a line says that the mail is signed: `SigningSettings.on_error` decides what happens."""
        return self in {
            NotSignedReason.MALFORMED_HEADER,
            NotSignedReason.TOO_MANY_FIELDS,
            NotSignedReason.INTERNAL,
        }


@dataclass(frozen=True, slots=True)
class NotSigned:
    """A mail that is not signed: why, the `line` that decided (for the log), and `detail` in our words."""

    reason: NotSignedReason
    line: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSettings:
    """Everything the administrator says about signing, keys loaded; a reload makes a new one.

    Attributes:
        tables: asked in order; the first that knows the author decides.
        senders: which sessions may write as which authors; without bindings all may.
        signature: what signatures cover and say.
        origins: where mail that is signed comes from.
        daemon_names: {daemon_name}s whose mail is signed wherever it comes from (a content filter coming back).
        on_error: what happens where a line says that the mail is signed, and it cannot be.
        on_unsafe_body: what happens where a later hop may change the body.
        warnings: what is unwise, for the administrator, a line each.
        identity: names the lines and the public halves of all keys.
    """

    tables: tuple[Table, ...]
    senders: SenderBindings = SenderBindings()
    signature: SignatureSettings = field(default_factory=SignatureSettings)
    origins: frozenset[Origin] = frozenset({Origin.SUBMISSION, Origin.INTERNAL})
    daemon_names: tuple[str, ...] = ()
    on_error: OnSigningError = OnSigningError.TEMPFAIL
    on_unsafe_body: OnUnsafeBody = OnUnsafeBody.SIGN_AND_WARN
    warnings: tuple[str, ...] = ()
    identity: str = ""


_AUTHOR_REASONS = {
    AuthorProblem.NO_AUTHOR: NotSignedReason.NO_AUTHOR,
    AuthorProblem.REPEATED_FROM: NotSignedReason.SEVERAL_AUTHORS,
    AuthorProblem.MALFORMED_FROM: NotSignedReason.MALFORMED_FROM,
    AuthorProblem.SEVERAL_AUTHOR_DOMAINS: NotSignedReason.SEVERAL_AUTHORS,
}
_PLAN_REASONS = {
    UnsignableReason.NO_FROM: NotSignedReason.NO_AUTHOR,
    UnsignableReason.TOO_MANY_FIELDS: NotSignedReason.TOO_MANY_FIELDS,
    UnsignableReason.MALFORMED_HEADER: NotSignedReason.MALFORMED_HEADER,
}


def sign_plan_for(
    session: Session, origin: Origin, message: Message, settings: SigningSettings
) -> SigningPlan | NotSigned:
    """Decide at the end of the header block whether and how a mail is signed. Total.

    Args:
        session: who sends.
        origin: where from, as `OriginRules.decide` says.
        message: the header block as it will leave.
        settings: see there.
    """
    if origin not in settings.origins and not (
        session.daemon_name and session.daemon_name in settings.daemon_names
    ):
        return NotSigned(NotSignedReason.NOT_OUTBOUND, f"signing.origins: {origin.value} is not among them")
    author = _author(message)
    if isinstance(author, NotSigned):
        return author
    match: Match | None = None
    for table in settings.tables:
        match = table.find(author)
        if match is not None:
            break
    if match is None:
        return NotSigned(NotSignedReason.NO_KEY, f"signing: no line is for {author.domain}")
    allowed, line = settings.senders.decide(session, author)
    if not allowed:
        return NotSigned(
            NotSignedReason.SENDER_NOT_ALLOWED, line, f"the session may not write as {author.domain}"
        )
    planned = plan(message, match.entries, settings.signature, because=match.line)
    if isinstance(planned, Unsignable):
        return NotSigned(_PLAN_REASONS[planned.reason], match.line, planned.detail)
    return planned


def _author(message: Message) -> Address | NotSigned:
    """Return the one author, or why there is none."""
    authors = message.authors
    line = "From"
    if authors.problem is not None:
        return NotSigned(_AUTHOR_REASONS[authors.problem], line, authors.detail)
    if len(authors.addresses) != 1:
        # of one domain (else it were a problem): DMARC could use the signature, but whose word would it be?
        return NotSigned(
            NotSignedReason.SEVERAL_AUTHORS, line, f"{len(authors.addresses)} authors in the From field"
        )
    return authors.addresses[0]


class Action(StrEnum):
    """What to do at the end of the message: a closed list."""

    SIGN = "sign"
    PASS_UNSIGNED = "pass-unsigned"  # noqa: S105 - as above
    TEMPFAIL = "tempfail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What to do, and every risk seen in the message, for the trace; `CURES` has the setting against each."""

    action: Action
    risks: frozenset[Risk] = frozenset()


_UNSAFE_ACTIONS = {
    OnUnsafeBody.SIGN_AND_WARN: Action.SIGN,
    OnUnsafeBody.TEMPFAIL: Action.TEMPFAIL,
    OnUnsafeBody.PASS_UNSIGNED: Action.PASS_UNSIGNED,
}


def settle(outcome: SigningPlan | NotSigned, facts: BodyFacts, settings: SigningSettings) -> Settled:
    """Decide at the end of the message what is done. Total.

    Args:
        outcome: what `sign_plan_for` said.
        facts: of the body, from a hasher that was told to watch.
        settings: the same as there.
    """
    if isinstance(outcome, NotSigned):
        if outcome.reason.is_error and settings.on_error is OnSigningError.TEMPFAIL:
            return Settled(action=Action.TEMPFAIL)
        return Settled(action=Action.PASS_UNSIGNED)
    unsafe = body_risks(facts)
    action = _UNSAFE_ACTIONS[settings.on_unsafe_body] if unsafe else Action.SIGN
    return Settled(action=action, risks=outcome.risks | unsafe)


def preview(
    raw: bytes, settings: SigningSettings, *, session: Session, origin: Origin
) -> tuple[SigningPlan | NotSigned, Settled]:
    """Decide about a whole message (CRLF line ends) and sign nothing: what `--explain` shows."""
    message, start = Message.parse(raw)
    outcome = sign_plan_for(session, origin, message, settings)
    hasher = BodyHasher(frozenset(), watch=True)
    hasher.update(raw[start:])
    return outcome, settle(outcome, hasher.facts(), settings)


def sign_message(
    raw: bytes, settings: SigningSettings, *, session: Session, origin: Origin, now: datetime
) -> tuple[tuple[bytes, ...] | NotSigned, Settled]:
    """Sign a whole message (CRLF line ends): all the steps in one, for the command line and the library.

    Returns:
        The values of its DKIM-Signature fields (empty where `Settled.action` is not SIGN), or why it is not signed.
    """
    message, start = Message.parse(raw)
    outcome = sign_plan_for(session, origin, message, settings)
    if isinstance(outcome, NotSigned):
        return outcome, settle(outcome, BodyFacts(), settings)
    hasher = BodyHasher(body_needs(outcome), watch=True)
    hasher.update(raw[start:])
    settled = settle(outcome, hasher.facts(), settings)
    if settled.action is not Action.SIGN:
        return (), settled
    return finish(outcome, hasher.finish(), now), settled
