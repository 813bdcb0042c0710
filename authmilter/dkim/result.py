"""DKIM results with their evidence (RFC 6376 §3.9, RFC 8601 §2.7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from authmilter.names import Domain

__all__ = ["DkimProblem", "DkimResult", "DkimStatus"]


class DkimStatus(StrEnum):
    """RFC 8601 §2.7.1. One per signature; `none` does not occur, an unsigned message has no results."""

    #: verified and acceptable
    PASS = "pass"  # noqa: S105 - a result word
    #: the body hash or the signature does not hold, or the signature has expired
    FAIL = "fail"
    #: verified, but a local rule does not accept it (l= leaves bytes unsigned, ...)
    POLICY = "policy"
    #: the signature could not be read
    NEUTRAL = "neutral"
    #: DNS trouble
    TEMPERROR = "temperror"
    #: it can never verify: no key, revoked key, required tag missing, forbidden algorithm
    PERMERROR = "permerror"
    #: not of the RFC: we failed (never shown as pass, none or temperror)
    INTERNAL_ERROR = "internal_error"


class DkimProblem(StrEnum):
    """Why a signature is not a pass: a closed list."""

    # -- the signature's text (RFC 6376 §3.5, §6.1.1)
    #: not a tag list, duplicate tag, bad base64
    SYNTAX = "syntax"
    #: v= is not 1
    VERSION = "version"
    #: a required tag is missing
    MISSING_TAG = "missing_tag"
    #: d= or s= is no domain name / selector
    BAD_DOMAIN = "bad_domain"
    #: i= is not at or below d=
    IDENTITY_MISMATCH = "identity_mismatch"
    #: h= does not cover From
    FROM_NOT_SIGNED = "from_not_signed"
    #: a= is unknown
    ALGORITHM = "algorithm"
    #: a=rsa-sha1 (RFC 8301 §3.1)
    SHA1 = "sha1"
    #: c= is unknown
    CANONICALIZATION = "canonicalization"
    #: q= has no dns/txt
    QUERY_METHOD = "query_method"
    #: x= is not after t=, or t= lies in the future beyond the allowed skew
    TIMES = "times"
    #: x= has passed
    EXPIRED = "expired"
    # -- the key (RFC 6376 §3.6.1, §6.1.2)
    #: no key record
    NO_KEY = "no_key"
    #: the record is no usable key record
    KEY_SYNTAX = "key_syntax"
    #: p= is empty
    KEY_REVOKED = "key_revoked"
    #: key type and algorithm are of different kinds
    KEY_TYPE = "key_type"
    #: the key's h= does not allow the hash
    KEY_HASH = "key_hash"
    #: the key's s= does not allow e-mail
    KEY_SERVICE = "key_service"
    #: the key's t=s and i= is a subdomain
    KEY_STRICT = "key_strict"
    #: fewer than the allowed RSA bits (RFC 8301 §3.2)
    KEY_TOO_SHORT = "key_too_short"
    #: more RSA bits than we compute with
    KEY_TOO_LONG = "key_too_long"
    #: the DNS question for the key failed
    KEY_UNAVAILABLE = "key_unavailable"
    # -- the cryptography
    #: bh= is not the body's hash
    BODY_HASH = "body_hash"
    #: b= does not verify
    SIGNATURE = "signature"
    #: l= is longer than the body
    BODY_LENGTH = "body_length"
    #: l= leaves octets of the body unsigned
    UNSIGNED_BODY = "unsigned_body"
    #: the message has more From fields than h= names: one of them is not signed (RFC 6376 §8.15)
    UNSIGNED_AUTHOR = "unsigned_author"
    #: it verifies, but the key is in testing mode (t=y), and such keys are not credited
    TESTING = "testing"
    # -- ours
    #: over one of our limits (signatures, header size, tags, key lookups, time)
    LIMIT = "limit"
    #: we failed
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimResult:
    """What one DKIM-Signature field says, topmost first.

    `domain`, `selector`, `identity` are its d=, s=, i= (None or `` where unreadable), `algorithm` its a=,
    `key_bits` the RSA modulus or 256 for Ed25519 (0: no key seen), `signed_headers` the lower-case names of h=
    in order, `unsigned_critical` the singleton fields present but not covered, `body_length` l= or None,
    `unsigned_body_bytes` how many octets of the canonical body l= leaves out, `testing` the key's t=y,
    `signature_start` the first characters of b= (RFC 6008), `timestamp`/`expires` t= and x= in seconds.
    """

    status: DkimStatus
    domain: Domain | None = None
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    key_bits: int = 0
    signed_headers: tuple[str, ...] = ()
    unsigned_critical: tuple[str, ...] = ()
    body_length: int | None = None
    unsigned_body_bytes: int = 0
    testing: bool = False
    signature_start: str = ""
    timestamp: int | None = None
    expires: int | None = None
    problem: DkimProblem | None = None
    detail: str = ""

    @property
    def covers_from(self) -> bool:
        """True if h= names From."""
        return "from" in self.signed_headers
