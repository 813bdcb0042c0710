"""The verdict: evidence, decision, edits and the trace of how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter

from authmilter.evidence import Evidence
from authmilter.mail import MailId, Origin

__all__ = [
    "ChangeHeader",
    "Decision",
    "DeleteHeader",
    "Disposition",
    "Edit",
    "InsertHeader",
    "OverrideReason",
    "PassedOver",
    "Quarantine",
    "Sealing",
    "Signing",
    "SmtpReply",
    "Step",
    "SubjectPrefix",
    "Tag",
    "TagHeader",
    "Verdict",
    "WouldHave",
]


class Disposition(StrEnum):
    """What is to be done with a message."""

    ACCEPT = "accept"
    QUARANTINE = "quarantine"
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    DISCARD = "discard"


class OverrideReason(StrEnum):
    """RFC 9990: why the published DMARC policy was not the one applied."""

    LOCAL_POLICY = "local_policy"
    MAILING_LIST = "mailing_list"
    TRUSTED_FORWARDER = "trusted_forwarder"
    POLICY_TEST_MODE = "policy_test_mode"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpReply:
    """An SMTP reply: basic `code` (400-599), `enhanced` code of the same class (RFC 3463), and one line of
    printable US-ASCII `text`."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TagHeader:
    """Add a header field `name: value` (both already safe to write)."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectPrefix:
    """Put `prefix` before the Subject's text, once."""

    prefix: str


Tag = TagHeader | SubjectPrefix


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A rule that was looked at and not taken, and the condition that did not hold."""

    rule: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldHave:
    """What a rule or policy in monitor mode would have done."""

    disposition: Disposition
    rule: str
    reply: SmtpReply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the policy decided: the `rule` that did and `because` in its author's words.

    `would_have` is what monitor mode held back, `ends_session` asks the MTA to close (421),
    `quarantine_reason` goes to the MTA's hold queue, `policy` names the policy. `override_comment` goes
    into the aggregate report beside `override` (RFC 9990; RFC 8617 §7.2.2 for an ARC chain).
    """

    disposition: Disposition
    rule: str
    because: str
    reply: SmtpReply | None = None
    tags: tuple[Tag, ...] = ()
    quarantine_reason: str = ""
    override: OverrideReason | None = None
    override_comment: str = ""
    would_have: tuple[WouldHave, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    ends_session: bool = False
    policy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertHeader:
    """Insert a field so that it becomes number `at` (0: above everything). `value` has no leading space; folds are CRLF + WSP."""

    at: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeHeader:
    """Replace the value of the `nth` (from 1, topmost first) field of that name."""

    name: bytes
    nth: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteHeader:
    """Delete the `nth` (from 1, topmost first) field of that name, as the message was received."""

    name: bytes
    nth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Ask the MTA to hold the message; `reason` is printable US-ASCII."""

    reason: str


Edit = InsertHeader | ChangeHeader | DeleteHeader | Quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check's part in the verdict: milliseconds from its start to its result, DNS questions it asked,
    how many of them were answered from memory, and whether it ended in a bug or a limit,
    or was recalled whole from an earlier message: without a question, it took no time that is worth measuring (0).
    """

    method: str
    elapsed_ms: float = 0.0
    questions: int = 0
    remembered: int = 0
    bug: bool = False
    limited: bool = False
    recalled: bool = False


_ASKED = attrgetter("questions")
_REMEMBERED = attrgetter("remembered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Whether an outbound mail is signed, and why.

    `signed` lists `DOMAIN/SELECTOR` of each signature made, `line` is the line of the configuration that decided,
    `reason` why there is none (a word of a closed list, or empty), `risks` what a later hop may change, `detail` our
    words about the reason.
    """

    signed: tuple[str, ...] = ()
    line: str = ""
    reason: str = ""
    risks: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """Whether a mail that was to be sealed (ARC) is, and why not.

    `mode` is `inbound` or `outbound`, `sealed` `DOMAIN/SELECTOR` of the seal (empty: none was made), `instance` and `cv`
    those of the set, `reason` why there is none (a word of a closed list), `detail` our words about it.
    """

    mode: str
    sealed: str = ""
    instance: int = 0
    cv: str = ""
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All of it. `authentication_results` is the header value as it is written (empty: none is written; of a refused
    mail: what would have been). `signing` is None where signing is not configured, `sealing` where no ARC set was wanted."""

    mail_id: MailId
    origin: Origin
    origin_because: str
    evidence: Evidence
    decision: Decision
    edits: tuple[Edit, ...]
    authentication_results: str
    signing: Signing | None = None
    sealing: Sealing | None = None
    trace: tuple[Step, ...] = ()
    elapsed_ms: float = 0.0

    def questions(self) -> tuple[int, int]:
        """Return how many DNS questions its checks asked, and how many of them were answered from memory."""
        trace = self.trace
        return sum(map(_ASKED, trace)), sum(map(_REMEMBERED, trace))
