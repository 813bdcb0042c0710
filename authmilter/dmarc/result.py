"""DMARC results with their evidence (RFC 9989 §5.3, §9)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from authmilter.names import Domain

__all__ = [
    "AlignedBy",
    "Alignment",
    "DiscoveryMethod",
    "DmarcPolicy",
    "DmarcProblem",
    "DmarcRecord",
    "DmarcResult",
    "DmarcStatus",
    "DmarcSurvey",
    "PolicySource",
    "Psd",
    "Query",
]


class DmarcStatus(StrEnum):
    """RFC 9989 §9.1."""

    #: an aligned identifier passed
    PASS = "pass"  # noqa: S105 - a result word
    #: a record applies and nothing aligned passed
    FAIL = "fail"
    #: no record applies
    NONE = "none"
    #: DNS trouble that could have changed the answer
    TEMPERROR = "temperror"
    #: no single Author Domain, or a record that cannot be used
    PERMERROR = "permerror"
    #: not of the RFC: we failed
    INTERNAL_ERROR = "internal_error"


class DmarcPolicy(StrEnum):
    """RFC 9989 §4.7 `p`."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class Alignment(StrEnum):
    """RFC 9989 §4.7 `adkim`, `aspf`."""

    RELAXED = "r"
    STRICT = "s"


class Psd(StrEnum):
    """RFC 9989 §4.7 `psd`."""

    YES = "y"
    NO = "n"
    UNKNOWN = "u"


class PolicySource(StrEnum):
    """Which tag the policy came from."""

    P = "p"
    SP = "sp"
    NP = "np"


class AlignedBy(StrEnum):
    """Which mechanism gave an aligned pass."""

    SPF = "spf"
    DKIM = "dkim"


class DiscoveryMethod(StrEnum):
    """RFC 9990 discovery_method."""

    TREEWALK = "treewalk"
    PSL = "psl"


class DmarcProblem(StrEnum):
    """Why, where the status alone does not say: a closed list."""

    #: no From field, or one without an address
    NO_AUTHOR = "no_author"
    #: more than one From field (RFC 9989 §4.4)
    REPEATED_FROM = "repeated_from"
    #: the From field cannot be read
    MALFORMED_FROM = "malformed_from"
    #: authors of several domains (RFC 9989 §11.5)
    SEVERAL_AUTHOR_DOMAINS = "several_author_domains"
    #: the record has no usable p and no rua (§4.7, §4.10.1)
    UNUSABLE_RECORD = "unusable_record"
    #: a DNS question that decides failed
    DNS = "dns"
    #: our own budget of questions or time ran out
    LIMIT = "limit"
    #: we failed
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcRecord:
    """A DMARC Policy Record (RFC 9989 §4.7); tags with errors have their default. `p` None: missing or invalid.

    `rua` and `ruf` are URIs without their obsolete size suffix; `faults` names the tags that were discarded;
    `pct` is kept for BIMI only (historic, RFC 9989 ignores it).
    """

    p: DmarcPolicy | None = None
    sp: DmarcPolicy | None = None
    np: DmarcPolicy | None = None
    adkim: Alignment = Alignment.RELAXED
    aspf: Alignment = Alignment.RELAXED
    psd: Psd = Psd.UNKNOWN
    testing: bool = False
    fo: tuple[str, ...] = ("0",)
    rua: tuple[str, ...] = ()
    ruf: tuple[str, ...] = ()
    pct: int = 100
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One step of the discovery trace: the `name` asked, what came, and what it meant (our own words).

    `why` says for whom it was asked: `policy`, `organizational domain of NAME`, `existence of NAME`.
    `answer` is `record`, `no record`, `several records`, `nxdomain`, `failed: KIND`, `exists` or, where the
    name would be over 253 octets, `not asked: the name is too long`.
    """

    name: str
    why: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcResult:
    """What DMARC says of a message.

    `author` is the Author Domain, `record_at` the name whose record applies, `organizational_domain` that of
    the author (None where it was not needed, or is not known), `policy` the one that applies after sp, np and t
    (None where no record applies),
    `policy_source` the tag it came from, `published` the same before t=y, `aligned` what passed aligned,
    `queries` the discovery trace in order, `because` what was chosen and why, `guards` which guards spoke
    (public suffix list with its version, single label), `authors` all Author Domains where there are several.
    """

    status: DmarcStatus
    author: Domain | None = None
    authors: tuple[Domain, ...] = ()
    record_at: Domain | None = None
    organizational_domain: Domain | None = None
    record: DmarcRecord | None = None
    policy: DmarcPolicy | None = None
    published: DmarcPolicy | None = None
    policy_source: PolicySource | None = None
    aligned: tuple[AlignedBy, ...] = ()
    aligned_domains: tuple[Domain, ...] = ()
    testing: bool = False
    discovery: DiscoveryMethod = DiscoveryMethod.TREEWALK
    queries: tuple[Query, ...] = ()
    because: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    problem: DmarcProblem | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcSurvey:
    """What an Author Domain and its Organizational Domain publish, whichever of the two records applies.

    `own` is the record at `author`, `organizational` that at `organizational_domain` (the same record where the two
    are one domain); None: there is none. With a `problem` (`dns` or `limit`) it is not known, and `detail` says why.
    """

    author: Domain
    organizational_domain: Domain | None = None
    own: DmarcRecord | None = None
    organizational: DmarcRecord | None = None
    problem: DmarcProblem | None = None
    detail: str = ""
