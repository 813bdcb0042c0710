"""DKIM key records, RFC 6376 §3.6.1, RFC 8301 and RFC 8463: a TXT record's octets become a `KeyRecord`.

Total: whatever the octets, there is a record, and `problem` says what is wrong with it. Parsed records are
remembered by their octets, so that a key is decoded once however often its signer writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from authmilter.dkim import crypto
from authmilter.dkim.result import DkimProblem
from authmilter.dkim.taglist import TagListError, parse_tag_list
from authmilter.octets.chosen import base64_octets

__all__ = ["KeyRecord", "parse", "usable"]

#: A longer public exponent makes verifying as slow as signing; OpenSSL draws the same line for large keys.
_MAX_EXPONENT_BITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What a key record says.

    `kind` is k= (`rsa`, `ed25519` or what else stands there), `hashes` h= or None for all, `for_mail` whether
    s= allows e-mail, `testing` and `strict` the flags t=y and t=s, `key` the public key where p= holds one, `bits` its
    RSA modulus's, 256 for Ed25519, 0 without a key.
    `problem` is KEY_SYNTAX (not a key record at all), KEY_REVOKED, KEY_TYPE (a kind we do not know) or
    KEY_TOO_LONG (the exponent); what depends on the signature is judged by `check`.
    """

    kind: str = "rsa"
    hashes: frozenset[str] | None = None
    for_mail: bool = True
    testing: bool = False
    strict: bool = False
    key: crypto.PublicKey | None = None
    bits: int = 0
    problem: DkimProblem | None = None
    detail: str = ""


def _refused(detail: str) -> KeyRecord:
    return KeyRecord(problem=DkimProblem.KEY_SYNTAX, detail=detail)


def _words(value: str) -> frozenset[str]:
    """Split a colon-separated list, FWS allowed around the colons."""
    return frozenset(word.strip(" \t") for word in value.split(":"))


@lru_cache(maxsize=2048)
def parse(txt: bytes) -> KeyRecord:
    """Read one TXT record, its strings joined without anything between (RFC 6376 §3.6.2.2)."""
    try:
        tags = parse_tag_list(txt)
    except TagListError as e:
        return _refused(f"the record is no tag list: {e}")
    if tags.ill_formed:
        return _refused("the record holds a forbidden octet")
    values = tags.values
    version = values.get("v")
    # RFC 6376 §3.6.1 v=: if specified, it MUST be DKIM1 and the first tag; records beginning otherwise are discarded.
    if version is not None and (version != "DKIM1" or next(iter(values)) != "v"):
        return _refused("the record is not of version DKIM1")
    public = values.get("p")
    if public is None:
        return _refused("p= is missing")
    flags = _words(values.get("t", ""))
    services = _words(values.get("s", "*"))
    hashes = values.get("h")
    kind = values.get("k", "rsa")
    key: crypto.PublicKey | None = None
    problem: DkimProblem | None = None
    detail = ""
    if not public:
        # RFC 6376 §3.6.1 p=: an empty value means that this public key has been revoked.
        problem, detail = DkimProblem.KEY_REVOKED, "the key has been revoked"
    elif kind not in {"rsa", "ed25519"}:
        problem, detail = DkimProblem.KEY_TYPE, "the key is of an unknown kind"
    else:
        octets = base64_octets(public)
        if octets is None:
            problem, detail = DkimProblem.KEY_SYNTAX, "p= is no base64"
        elif kind == "rsa":
            key = rsa = crypto.load_rsa(octets)
            if rsa is None:
                problem, detail = DkimProblem.KEY_SYNTAX, "p= holds no RSA key"
            elif rsa.exponent_bits > _MAX_EXPONENT_BITS:
                problem, detail = (
                    DkimProblem.KEY_TOO_LONG,
                    f"the RSA exponent has over {_MAX_EXPONENT_BITS} bits",
                )
        else:
            key = crypto.load_ed25519(octets)
            if key is None:
                problem, detail = DkimProblem.KEY_SYNTAX, "p= holds no Ed25519 key"
    return KeyRecord(
        kind=kind,
        hashes=None if hashes is None else _words(hashes),
        for_mail=not services.isdisjoint({"*", "email"}),
        testing="y" in flags,
        strict="s" in flags,
        key=key,
        bits=key.bits if key is not None else 0,
        problem=problem,
        detail=detail,
    )


def usable(texts: Sequence[bytes], *, records: int, octets: int) -> tuple[KeyRecord, ...]:
    """Return the key records among the TXT records of one name: at most `records`, never empty for some text.

    RFC 6376 §3.6.2.2 leaves several records undefined: what is no key record (a wildcard's SPF or
    verification text) is passed over; if nothing else is there, that is the answer. A record of more than
    `octets` octets is not read: its problem is LIMIT.
    """
    if len(texts) == 1 and len(texts[0]) <= octets:
        return (parse(texts[0]),)  # most names
    found: list[KeyRecord] = []
    first: KeyRecord | None = None
    for txt in texts:
        if len(txt) > octets:
            record = KeyRecord(problem=DkimProblem.LIMIT, detail=f"the key record is over {octets} octets")
        else:
            record = parse(txt)
            if first is None:
                first = record
            if record.problem is DkimProblem.KEY_SYNTAX:
                continue
        found.append(record)
        if len(found) == records:
            break
    if not found and first is not None:
        found.append(first)
    return tuple(found)
