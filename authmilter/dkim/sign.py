"""DKIM signing, RFC 6376 §5 with 8301 and 8463, in two steps, because the body comes last.

    planned = plan(message, entries, settings)          # which fields; or why this message cannot be signed
    hasher = BodyHasher(body_needs(planned), watch=True)  # the body as it arrives
    values = finish(planned, message, hasher.finish(), now)  # one DKIM-Signature value for each entry

Promises: a signature covers every instance of each field it names, and one more where the field is oversigned
(RFC 6376 §8.15), so that none can be added; there is no l=; nothing is repaired. What a later hop is known to
change is told as `Risk`, each with its cure.

Fails: `plan` answers `Unsignable`; `finish` raises `ValueError` only where it is given another message's digests.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from authmilter import grammar
from authmilter.dkim.canonical import BodyDigests, BodyNeed, Canonicalization
from authmilter.dkim.crypto import SigningKey
from authmilter.dns.answer import Question, RdType
from authmilter.errors import InvalidName
from authmilter.mail import BodyFacts
from authmilter.message import DefectKind, Header, Message
from authmilter.names import Domain
from authmilter.octets.chosen import signed_data

__all__ = [
    "CURES",
    "NEVER_SIGNED",
    "Risk",
    "SignatureSettings",
    "SigningEntry",
    "SigningPlan",
    "Unsignable",
    "UnsignableReason",
    "body_needs",
    "body_risks",
    "finish",
    "fold_base64",
    "fold_names",
    "key_question",
    "plan",
]

#: Names in one h=; verifiers set limits too, ours is 100. A message that would need more is not signed.
MAX_NAMES = 80
#: Octets in a line of what is written, where nothing longer than a line has to stand in one piece (RFC 6376 §3.5
#: allows folds; RFC 5322 §2.1.1: SHOULD be no more than 78).
MAX_WIDTH = 77

# RFC 5322 §3.6.8
_FIELD_NAME = re.compile(r"[!-9;-~]{1,70}")

#: Fields of the way a message takes, or that others write and remove; signing one would break the signature or
#: say something that is not ours to say (RFC 6376 §5.4; draft-brand-indicators-for-message-identification).
NEVER_SIGNED: Final = frozenset(
    {
        "authentication-results",
        "bcc",
        "bimi-indicator",
        "bimi-location",
        "bimi-logo-preference",
        "comments",
        "dkim-signature",
        "keywords",
        "received",
        "received-spf",
        "resent-bcc",
        "return-path",
    }
)
_NEVER_SIGNED_PREFIX = ("arc-", "x-authmilter-")


class Risk(StrEnum):
    """What may break a signature, or change a message that bears one, after it was made: a closed list."""

    #: a body line over 998 octets: Postfix's client splits it
    LONG_LINE = "long_line"
    #: octets over 127 in the body: re-encoded toward a hop without 8BITMIME
    EIGHT_BIT = "eight_bit"
    #: CR without LF, or LF without CR, in the body: made CRLF, or taken out, by some hop
    BARE_CR = "bare_cr"
    BARE_LF = "bare_lf"
    #: a signed field with a line over 998 octets
    LONG_HEADER_LINE = "long_header_line"
    #: no Date, or no Message-ID: a hop may add one. It is not oversigned, so that this breaks nothing
    NO_DATE = "no_date"
    NO_MESSAGE_ID = "no_message_id"
    #: To, Cc, Subject or Message-ID stands twice, against RFC 5322 §3.6: some verifiers then say no
    REPEATED_FIELD = "repeated_field"

    @property
    def of_body(self) -> bool:
        """True of what makes a body unsafe."""
        return self in _BODY_RISKS


# RFC 5322 §3.6: fields of which there is one at most (those that rspamd counts)
_ONCE = ("to", "cc", "subject", "message-id")
_BODY_RISKS = frozenset({Risk.LONG_LINE, Risk.EIGHT_BIT, Risk.BARE_CR, Risk.BARE_LF})

#: For each risk the setting that cures it.
CURES: Final[Mapping[Risk, str]] = {
    Risk.LONG_LINE: "Postfix: smtp_line_length_limit = 0 sends long lines as they are (default 998 splits them); "
    "Sendmail: L=0 in the mailer; better: the sender encodes the body as base64 or quoted-printable",
    Risk.EIGHT_BIT: "Postfix: disable_mime_output_conversion = yes; Sendmail: no 8->7 bit conversion in the mailer "
    "(F=8); better: the sender encodes the body as base64 or quoted-printable",
    Risk.BARE_CR: "Postfix: cleanup_replace_stray_cr_lf = yes (its default) makes a blank of it before it is signed",
    Risk.BARE_LF: "Postfix: cleanup_replace_stray_cr_lf = yes (its default) leaves none to be signed",
    Risk.LONG_HEADER_LINE: "the sender must fold its header lines below 998 octets (RFC 5322 §2.1.1)",
    Risk.NO_DATE: "Postfix: always_add_missing_headers = yes, or local_header_rewrite_clients covering the client; "
    "Sendmail adds it after the milters: let the sender write it",
    Risk.NO_MESSAGE_ID: "Postfix: always_add_missing_headers = yes, or local_header_rewrite_clients covering the "
    "client; Sendmail adds it after the milters: let the sender write it",
    Risk.REPEATED_FIELD: "the sender must write To, Cc, Subject and Message-ID once (RFC 5322 §3.6): rspamd calls the "
    "signature of such a message wrong",
}


def key_question(domain: Domain, selector: str) -> Question:
    """Return where a public key is published (RFC 6376 §3.6.2.1).

    Raises:
        InvalidName: the two give too long a DNS name.
    """
    return Question.of(f"{selector}._domainkey.{domain.ascii}", RdType.TXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningEntry:
    """A signature to make: d= `domain`, s= `selector` (lower case, A-labels), and its key.

    Raises:
        InvalidName: the selector is none (RFC 6376 §3.1), or the two give too long a DNS name.
    """

    domain: Domain
    selector: str
    key: SigningKey

    def __post_init__(self) -> None:
        labels = self.selector.split(".")
        if len(self.selector) > 253 or not all(map(grammar.LABEL.fullmatch, labels)):
            raise InvalidName("the selector is not made of labels of lower-case letters, digits and hyphens")
        _ = self.question

    @property
    def question(self) -> Question:
        """Where the public key is published (RFC 6376 §3.6.2.1)."""
        return key_question(self.domain, self.selector)


@lru_cache(maxsize=64)
def _names(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.lower() for text in texts))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSettings:
    """What signatures cover and say.

    Attributes:
        oversign: fields named once more than they stand in the message, present or not: none can be added.
        oversign_present: the same where the message has the field; where it has none, one may be added later
            (a hop may add Date and Message-ID to a message without).
        sign: fields named as often as they stand in the message.
        one_click: sign List-Unsubscribe and List-Unsubscribe-Post where the latter is present: one-click
            unsubscription needs it (RFC 8058 §4). Other List-* fields and Sender are never signed by default, because
            every mailing list writes its own.
        header_form: canonicalization of the fields.
        body_form: canonicalization of the body.
        expire: seconds from t= to x=, or None for no x=.

    Raises:
        ValueError: a name that is no field name or is never signed, no From among `oversign`, or an `expire` that
            is not positive.
    """

    oversign: tuple[str, ...] = (
        "From",
        "Reply-To",
        "To",
        "Cc",
        "Subject",
        "In-Reply-To",
        "References",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    )
    oversign_present: tuple[str, ...] = (
        "Date",
        "Message-ID",
        "Content-Disposition",
        "BIMI-Selector",
        "Autocrypt",
        "OpenPGP",
    )
    sign: tuple[str, ...] = ()
    one_click: bool = True
    header_form: Canonicalization = Canonicalization.RELAXED
    body_form: Canonicalization = Canonicalization.RELAXED
    expire: int | None = None

    def __post_init__(self) -> None:
        for name in (*self.oversign, *self.oversign_present, *self.sign):
            key = name.lower()
            if not _FIELD_NAME.fullmatch(name) or ";" in name:
                raise ValueError(f"{name!a} is no field name")
            if key in NEVER_SIGNED or key.startswith(_NEVER_SIGNED_PREFIX):
                raise ValueError(f"{name} is never signed: others write or remove it on the way")
        if "from" not in _names(self.oversign):
            # RFC 6376 §5.4: The From header field MUST be signed; §8.15 for the second one that nobody may add
            raise ValueError("From must be among the oversigned fields")
        if self.expire is not None and self.expire <= 0:
            raise ValueError("expire must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningPlan:
    """What will be signed: the `entries`, the `names` of h= in order, the `message` whose fields they are, and how.

    `risks` are those that the header block shows; `because` is the line of the configuration that decided, for the
    log.
    """

    entries: tuple[SigningEntry, ...]
    names: tuple[str, ...]
    message: Message = field(repr=False)
    settings: SignatureSettings
    risks: frozenset[Risk] = frozenset()
    because: str = ""


class UnsignableReason(StrEnum):
    """Why a header block cannot be signed so that everybody reads the same: a closed list."""

    #: there is no From field
    NO_FROM = "no_from"
    #: the fields to be signed are more than h= should name
    TOO_MANY_FIELDS = "too_many_fields"
    #: a line that is no field, a signed field with NUL, bare CR or LF, or a blank before its colon; or not all was read
    MALFORMED_HEADER = "malformed_header"


@dataclass(frozen=True, slots=True)
class Unsignable:
    """The message cannot be signed: why, and `detail` in our own words."""

    reason: UnsignableReason
    detail: str


# Another hop would end the header block there, or read it in another way.
_BLOCK_DEFECTS = frozenset(
    {
        DefectKind.NOT_A_FIELD,
        DefectKind.LEADING_CONTINUATION,
        DefectKind.TOO_MANY_FIELDS,
        DefectKind.TOO_LARGE,
    }
)
_FIELD_DEFECTS = frozenset(
    {DefectKind.NUL, DefectKind.BARE_CR, DefectKind.BARE_LF, DefectKind.SPACE_BEFORE_COLON}
)


def plan(
    message: Message,
    entries: tuple[SigningEntry, ...],
    settings: SignatureSettings,
    *,
    because: str = "",
) -> SigningPlan | Unsignable:
    """Decide what the signatures of a message cover.

    Args:
        message: the header block as it will leave: what we add later is in no h=, what we change must be changed.
        entries: the signatures to make, at least one; they share one h=.
        settings: see there.
        because: kept in the plan.
    """
    index = message.by_name
    if "from" not in index:
        # RFC 6376 §5.4: The From header field MUST be signed
        return Unsignable(UnsignableReason.NO_FROM, "there is no From field")
    names: list[str] = []
    for name in _names(settings.oversign):
        names.append(name)
        if name in index:
            names += [name] * len(index[name])
    for name in _names(settings.oversign_present):
        if name in index:
            names += [name] * (len(index[name]) + 1)
    plain = settings.sign
    if settings.one_click and "list-unsubscribe-post" in index:
        # RFC 8058 §4: The message needs a valid signature that covers at least the List-Unsubscribe and
        # List-Unsubscribe-Post headers.
        plain = (*plain, "list-unsubscribe", "list-unsubscribe-post")
    already = set(names)
    for name in _names(plain):
        if name not in already:
            names += [name] * len(index.get(name, ()))
    if len(names) > MAX_NAMES:
        return Unsignable(
            UnsignableReason.TOO_MANY_FIELDS, f"h= would name {len(names)} fields, more than {MAX_NAMES}"
        )
    signed = set(names)
    for defect in message.defects:
        if defect.kind in _BLOCK_DEFECTS or (defect.kind in _FIELD_DEFECTS and defect.field in signed):
            where = f" in {defect.field}" if defect.field in signed else ""
            return Unsignable(UnsignableReason.MALFORMED_HEADER, f"{defect.kind.value}{where}")
    return SigningPlan(
        entries=entries,
        names=tuple(names),
        message=message,
        settings=settings,
        risks=_header_risks(message, signed),
        because=because,
    )


def _header_risks(message: Message, signed: set[str]) -> frozenset[Risk]:
    risks = set()
    index = message.by_name
    if message.defects and any(d.kind is DefectKind.LONG_LINE and d.field in signed for d in message.defects):
        risks.add(Risk.LONG_HEADER_LINE)
    if "date" not in index:
        risks.add(Risk.NO_DATE)
    if "message-id" not in index:
        risks.add(Risk.NO_MESSAGE_ID)
    for name in _ONCE:
        if name in index and len(index[name]) > 1:
            risks.add(Risk.REPEATED_FIELD)
    return frozenset(risks)


def body_needs(planned: SigningPlan) -> frozenset[BodyNeed]:
    """Return the body hash that the signatures need: one for all, of the whole body."""
    return frozenset({BodyNeed(planned.settings.body_form)})


def body_risks(facts: BodyFacts) -> frozenset[Risk]:
    """Return what makes the body unsafe; `facts` of a hasher that was told to watch."""
    risks = set()
    if facts.long_line:
        risks.add(Risk.LONG_LINE)
    if facts.eight_bit:
        risks.add(Risk.EIGHT_BIT)
    if facts.bare_cr:
        risks.add(Risk.BARE_CR)
    if facts.bare_lf:
        risks.add(Risk.BARE_LF)
    return frozenset(risks)


def finish(planned: SigningPlan, digests: BodyDigests, now: datetime) -> tuple[bytes, ...]:
    """Make the signatures.

    Args:
        planned: what `plan` gave.
        digests: what the hasher of `body_needs` gave at the end of the whole body.
        now: the time of signing, with its zone; t= is its second.

    Returns:
        The value of a DKIM-Signature field for each entry, in their order: without a leading space, which is to be
        written after the colon; folds are CRLF and a space.

    Raises:
        ValueError: the body's hash is not among the digests.
    """
    settings = planned.settings
    digest = digests.get(BodyNeed(settings.body_form))
    if digest is None:
        raise ValueError("the digests are not those that the plan needs")
    index, relaxed = planned.message.by_name, settings.header_form is Canonicalization.RELAXED
    names = fold_names(planned.names)
    body_hash = base64.b64encode(digest.digest)
    seconds = int(now.timestamp())
    times = f"t={seconds};"
    if settings.expire is not None:
        times += f" x={seconds + settings.expire};"
    values: list[bytes] = []
    for entry in planned.entries:
        unsigned = _unsigned(entry, settings, times, names, body_hash)
        own = Header(b"DKIM-Signature", b" " + unsigned)
        signature = base64.b64encode(entry.key.sign(signed_data(index, planned.names, own, relaxed)))
        values.append(unsigned + fold_base64(signature))
    return tuple(values)


_FOLD = b"\r\n "


def _unsigned(
    entry: SigningEntry, settings: SignatureSettings, times: str, names: bytes, body_hash: bytes
) -> bytes:
    """Return the field's value up to and with `b=`."""
    tags = (
        "v=1;",
        f"a={entry.key.kind.algorithm};",
        f"c={settings.header_form.value}/{settings.body_form.value};",
        f"d={entry.domain.ascii};",
        f"s={entry.selector};",
        *times.split(" "),
    )
    lines: list[str] = []
    width = len("DKIM-Signature:")
    line = ""
    for tag in tags:
        if line and width + len(line) + 1 + len(tag) > MAX_WIDTH:
            lines.append(line)
            line, width = "", 0
        line = f"{line} {tag}" if line else tag
    lines.append(line)
    head = "\r\n ".join(lines).encode("ascii")
    return head + _FOLD + names + _FOLD + b"bh=" + body_hash + b";" + _FOLD + b"b="


@lru_cache(maxsize=256)
def fold_names(names: tuple[str, ...]) -> bytes:
    """Return `h=...;` folded behind colons."""
    lines: list[str] = []
    line = "h="
    for position, name in enumerate(names):
        piece = name + (":" if position + 1 < len(names) else ";")
        if len(line) + len(piece) >= MAX_WIDTH:
            lines.append(line)
            line = ""
        line += piece
    lines.append(line)
    return "\r\n ".join(lines).encode("ascii")


def fold_base64(text: bytes) -> bytes:
    """Return base64 folded so that its first line has room for ` b=` before it."""
    first = MAX_WIDTH - len(" b=")
    rest = MAX_WIDTH - 1
    pieces = [text[:first], *(text[i : i + rest] for i in range(first, len(text), rest))]
    return _FOLD.join(pieces)
