"""BIMI results with their evidence (draft-brand-indicators-for-message-identification-12, below: BIMI)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from authmilter.bimi.evidence import MarkEvidence
from authmilter.names import Domain

__all__ = [
    "BimiProblem",
    "BimiQuery",
    "BimiRecord",
    "BimiResult",
    "BimiStatus",
    "Preference",
    "SelectorFault",
    "SelectorSource",
]


class BimiStatus(StrEnum):
    """BIMI §7.7."""

    #: the sender may have a logo, and it was verified as the settings ask
    PASS = "pass"  # noqa: S105 - a result word
    #: the sender publishes no record
    NONE = "none"
    #: the record, or a document it names, does not hold
    FAIL = "fail"
    #: trouble that may pass: DNS, or a document that could not be fetched
    TEMPERROR = "temperror"
    #: the sender says that this mail has no logo
    DECLINED = "declined"
    #: the message does not qualify, or we do not accept or do not know yet what the record names
    SKIPPED = "skipped"
    #: not of the draft: we failed
    INTERNAL_ERROR = "internal_error"


class BimiProblem(StrEnum):
    """Why there is no logo: a closed list. Each belongs to one status."""

    # -- skipped: the message (BIMI §7.1)
    #: not exactly one From field with exactly one address
    NO_SINGLE_AUTHOR = "no_single_author"
    #: DMARC is not pass
    DMARC_NOT_PASS = "dmarc_not_pass"  # noqa: S105 - not a password
    #: the Author Domain or its Organizational Domain does not ask for quarantine or reject
    POLICY_NOT_ENFORCING = "policy_not_enforcing"
    #: no aligned DKIM signature over the whole body
    NO_ALIGNED_DKIM = "no_aligned_dkim"
    #: DMARC passes only by an SPF record that lets nearly everybody send
    BROAD_SPF = "broad_spf"
    # -- skipped: the logo
    #: the record names no mark certificate, and the settings ask for one
    NO_CERTIFICATE = "no_certificate"
    #: the certificate is of a mark type that the settings do not accept
    MARK_TYPE = "mark_type"
    #: the documents are being fetched; the next message has them
    PENDING = "evidence_pending"
    #: nothing is fetched here
    NOT_FETCHED = "evidence_not_fetched"
    # -- none
    #: no record at the Author Domain, nor at its Organizational Domain
    NO_RECORD = "no_record"
    # -- fail
    #: several records at one name (§7.2 step 9)
    SEVERAL_RECORDS = "several_records"
    #: the record is no list of tags, or names a tag twice
    SYNTAX = "syntax"
    #: the record is longer than we read
    TOO_LONG = "too_long"
    #: the record has no `l=`, or an empty one beside an `a=` (§7.3 step 1)
    NO_LOCATION = "no_location"
    #: `l=` is no https URI with a host name
    LOCATION = "location"
    #: `l=` ends like an image that is no SVG (§4.3.2)
    LOCATION_FORMAT = "location_format"
    #: `a=` is no https URI with a host name
    AUTHORITY = "authority"
    #: a document was fetched and does not hold (the evidence says why)
    EVIDENCE = "evidence"
    #: the certificate has expired
    EXPIRED = "expired"
    #: the documents hold, but no image was found that may be shown
    NO_INDICATOR = "no_indicator"
    # -- temperror
    #: a DNS question failed
    DNS = "dns"
    #: our own budget of questions or time ran out
    LIMIT = "limit"
    #: the key of a signature that could be aligned is not known
    DKIM_UNKNOWN = "dkim_unknown"
    #: a document could not be fetched
    UNAVAILABLE = "evidence_unavailable"
    # -- internal_error
    #: we failed
    INTERNAL = "internal"


class Preference(StrEnum):
    """BIMI §4.3 `avp`: which picture the sender would rather have shown."""

    BRAND = "brand"
    PERSONAL = "personal"


class SelectorSource(StrEnum):
    """Where the selector of the record came from."""

    #: nothing said otherwise
    DEFAULT = "default"
    #: a signed BIMI-Selector field (BIMI §5.1)
    HEADER = "header"
    #: the author's local part, by `lps=` (BIMI §4.5)
    LOCAL_PART = "local_part"


class SelectorFault(StrEnum):
    """Why a BIMI-Selector field was not followed."""

    #: no aligned passing signature over the whole body covers it (BIMI §5.5)
    UNSIGNED = "unsigned"
    #: it is not `v=BIMI1; s=SELECTOR`
    MALFORMED = "malformed"
    #: there are several
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True, kw_only=True)
class BimiRecord:
    """A BIMI Assertion Record (BIMI §4.3).

    `location` is its `l=`, `authority` its `a=`: https URIs of at most 900 octets of US-ASCII, without quotes, commas
    and semicolons; empty: there is none. `preference` is None where its value is none of the draft's. `local_parts` is
    `lps=` in lower case: beginnings of local parts, empty for all; None: no such tag.
    """

    location: str = ""
    authority: str = ""
    preference: Preference | None = Preference.BRAND
    local_parts: tuple[str, ...] | None = None

    @property
    def declines(self) -> bool:
        """True if it says that there is to be no logo (BIMI §4.3.1)."""
        return not self.location and not self.authority


@dataclass(frozen=True, slots=True, kw_only=True)
class BimiQuery:
    """One step of the discovery: the `name` asked, and what came.

    `answer` is `record`, `no record`, `several records`, `unusable record`, `nxdomain`, `failed: KIND` or, where the
    name would be over 253 octets, `not asked: the name is too long`.
    """

    name: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BimiResult:
    """What BIMI says of a message.

    `problem` says why it is no pass (None for pass and declined), `detail` the same in our words. `domain` is where
    the record was found, `selector` the selector it was found under and `selector_source` where that came from;
    `selector_ignored` says why a BIMI-Selector was not followed. `evidence` is what is known of its documents, None
    where nothing was asked or nothing is here yet. `queries` are the questions of discovery, at most 4.
    """

    status: BimiStatus
    problem: BimiProblem | None = None
    detail: str = ""
    domain: Domain | None = None
    selector: str = ""
    selector_source: SelectorSource | None = None
    selector_ignored: SelectorFault | None = None
    record: BimiRecord | None = None
    evidence: MarkEvidence | None = None
    queries: tuple[BimiQuery, ...] = ()
