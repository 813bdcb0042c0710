"""ARC results with their evidence (RFC 8617 §4.4, §5.2): the chain, each set of it, and what trust makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from authmilter.names import Domain, IPAddress

__all__ = ["ArcCheck", "ArcProblem", "ArcResult", "ArcSet", "ArcStatus"]


class ArcStatus(StrEnum):
    """RFC 8617 §4.4: the chain validation status. There is no temperror: an error of DNS is `fail` (§5.2.1)."""

    #: the message has no ARC fields
    NONE = "none"
    #: every seal, and the newest message signature, hold
    PASS = "pass"  # noqa: S105 - a result word
    #: the chain does not hold, or could not be checked (`ArcResult.problem` tells which)
    FAIL = "fail"
    #: not of the RFC: we failed (never shown as pass or none)
    INTERNAL_ERROR = "internal_error"


class ArcProblem(StrEnum):
    """Why a chain is no pass: a closed list."""

    # -- its structure (RFC 8617 §5.2 steps 1 to 3)
    #: a field's instance is missing, or no number from 1 to 50
    INSTANCE = "instance"
    #: more sets than 50
    TOO_MANY_SETS = "too_many_sets"
    #: an instance is missing, or lacks one of its three fields
    INCOMPLETE = "incomplete"
    #: an instance has one of its three fields twice
    REPEATED = "repeated"
    #: the newest seal says that the chain failed before
    FAILED_BEFORE = "failed_before"
    #: a seal's cv= is not what its place in the chain asks for
    CHAIN_VALUE = "chain_value"
    #: a seal has h= (§4.1.3)
    SEAL_NAMES_FIELDS = "seal_names_fields"
    # -- the text of a signature or seal
    #: no tag list, a tag that stands twice, bad base64, a bad value
    SYNTAX = "syntax"
    #: a required tag is missing
    MISSING_TAG = "missing_tag"
    #: d= or s= is no domain name / selector
    BAD_DOMAIN = "bad_domain"
    #: a= is none that may be used
    ALGORITHM = "algorithm"
    #: a message signature covers an ARC-Seal (§4.1.2)
    COVERS_SEAL = "covers_seal"
    #: t= lies in the future, x= is not after t=, or has passed
    TIMES = "times"
    # -- the key
    #: there is no key record
    NO_KEY = "no_key"
    #: the key cannot be used: wrong form or kind, revoked, too short, not for mail
    KEY = "key"
    # -- the cryptography
    #: bh= of the newest message signature is not the hash of the body
    BODY_HASH = "body_hash"
    #: b= of the newest message signature does not hold
    MESSAGE_SIGNATURE = "message_signature"
    #: b= of a seal does not hold
    SEAL = "seal"
    # -- nobody knows: such a chain is reported as fail, and never sealed as failed
    #: a question for a key had no answer
    DNS = "dns"
    #: over one of our own limits (octets, folds, key lookups, time)
    LIMIT = "limit"
    #: we failed
    INTERNAL = "internal"


class ArcCheck(StrEnum):
    """What is known of one signature of a set: a closed list."""

    PASS = "pass"  # noqa: S105 - a result word
    FAIL = "fail"
    #: not looked at: the chain had failed before, or a limit of ours was reached
    UNCHECKED = "unchecked"


#: Problems that establish nothing about the chain.
_UNSURE = frozenset({ArcProblem.DNS, ArcProblem.LIMIT, ArcProblem.INTERNAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArcSet:
    """One ARC set.

    `instance` is its i=, `sealer` and `selector` d= and s= of its seal, `cv` the seal's chain value as written (one
    of `none`, `pass`, `fail`), `signer` d= of its message signature; `seal` and `signature` what was found of the two.
    `trusted`: the sealer, and every one after it, is on the list of trusted sealers. Of a trusted set also what its
    ARC-Authentication-Results says: `authserv_id`, `dmarc` (the result word, empty where there is not exactly one),
    `dmarc_from` (its header.from) and `remote_ip` (smtp.remote-ip of its arc result, RFC 8617 §10.2: the client
    that the sealer had the message from).
    """

    instance: int
    sealer: Domain | None = None
    selector: str = ""
    cv: str = ""
    signer: Domain | None = None
    seal: ArcCheck = ArcCheck.UNCHECKED
    signature: ArcCheck = ArcCheck.UNCHECKED
    trusted: bool = False
    authserv_id: str = ""
    dmarc: str = ""
    dmarc_from: Domain | None = None
    remote_ip: IPAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArcResult:
    """What the ARC fields of a message say.

    `sets` are the sets by instance, empty where the structure is none; `oldest_pass` is RFC 8617 §5.2 step 5 (0: all
    message signatures hold; None: not established); `problem` why there is no pass, `instance` the set it concerns (0:
    none in particular). `whole`: the newest message signature covers every From field and the whole body.
    `dmarc_passed_at`: the newest trusted set whose sealer says that DMARC passed for this message's author domain
    (0: none), which needs a chain that passes, is `whole`, and whose sealers from there on are all trusted.
    """

    status: ArcStatus
    sets: tuple[ArcSet, ...] = ()
    oldest_pass: int | None = None
    problem: ArcProblem | None = None
    instance: int = 0
    whole: bool = False
    dmarc_passed_at: int = 0
    detail: str = ""

    @property
    def sure(self) -> bool:
        """False where the chain could not be checked: it is reported as fail, and must not be sealed as failed."""
        return self.problem not in _UNSURE

    @property
    def trusted(self) -> bool:
        """True if the chain passes, is `whole`, and all its sealers are trusted."""
        return self.status is ArcStatus.PASS and self.whole and all(s.trusted for s in self.sets)
