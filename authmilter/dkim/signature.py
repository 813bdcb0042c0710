"""DKIM-Signature fields (RFC 6376 §3.5, §6.1.1, RFC 8616): text becomes a `Signature`, before any DNS question.

`read` is total: every field gives a `Signature`, and `problem` says why it can never verify, as far as its
own text decides that. A signature without a problem has everything that verifying needs, checked; only such
a signature has a `question` to ask and a `need` to hash. Work is linear in the fields and bounded by `DkimLimits`.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from authmilter import grammar, idn
from authmilter.dkim.canonical import BodyNeed, Canonicalization
from authmilter.dkim.result import DkimProblem
from authmilter.dkim.taglist import TagList, TagListError, parse_tag_list
from authmilter.dns.answer import Question, RdType
from authmilter.errors import InvalidName
from authmilter.makers import maker
from authmilter.message import Header, Message
from authmilter.names import Domain
from authmilter.octets.chosen import base64_octets, plain_tags

__all__ = ["DkimLimits", "Signature", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimLimits:
    """The limits and choices of DKIM verification; the defaults are those of the documentation.

    `signatures` are checked per message (those of the author's domain first, then topmost first) and `listed`
    appear in the results at all; `header_bytes` and `folds` bound one DKIM-Signature field, `h_names` the
    names in its h=, `body_hashes` the different hashes made of one body; `key_records` TXT records are tried
    per key, each of at most `txt_bytes` octets. RSA keys outside `min_rsa_bits`-`max_rsa_bits` never pass.
    `clock_skew` is in seconds, for t= and x=. `unsigned_body`: a signature whose l= leaves octets unsigned is
    `policy`, or accepted. `testing`: a pass by a key in testing mode is credited, or is `policy`.
    `allow_expired`: x= is not looked at (a stored message is judged later).
    """

    signatures: int = 10
    listed: int = 100
    header_bytes: int = 8192
    folds: int = 64
    h_names: int = 100
    body_hashes: int = 8
    key_records: int = 3
    txt_bytes: int = 4096
    min_rsa_bits: int = 1024
    max_rsa_bits: int = 8192
    clock_skew: int = 300
    unsigned_body: Literal["policy", "accept"] = "policy"
    testing: Literal["credit", "ignore"] = "credit"
    allow_expired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One DKIM-Signature field.

    `position` is its place among the DKIM-Signature fields (0: topmost), `domain`, `selector` (A-labels),
    `identity` (as written, without folds), `algorithm`, `body_length`, `timestamp` and `expires` its d=, s=,
    i=, a=, l=, t= and x=; `names` its h= in lower case, in order; `signature_start` the first characters of
    b=, enough to be told from the others' (RFC 6008 §3). `key_kind` is the kind of key that a= needs. What
    stands behind a `problem` may be missing or, in d=, s= and i=, be there for the report only.
    """

    position: int
    header: Header
    domain: Domain | None = None
    selector: str = ""
    identity: str = ""
    identity_domain: Domain | None = None
    algorithm: str = ""
    key_kind: str = ""
    header_form: Canonicalization = Canonicalization.SIMPLE
    body_form: Canonicalization = Canonicalization.SIMPLE
    names: tuple[str, ...] = ()
    body_length: int | None = None
    timestamp: int | None = None
    expires: int | None = None
    signature: bytes = b""
    body_hash: bytes = b""
    signature_start: str = ""
    question: Question | None = None
    need: BodyNeed | None = None
    problem: DkimProblem | None = None
    detail: str = ""


_KEY = "dkim-signature"

# RFC 6376 §3.5 sig-a-tag-alg  =  sig-a-tag-k "-" sig-a-tag-h ; each ALPHA *(ALPHA / DIGIT)
_ALGORITHM = re.compile(r"[A-Za-z][A-Za-z0-9]{0,30}-[A-Za-z][A-Za-z0-9]{0,30}")
#: a= -> the kind of key it needs (RFC 8301 §3.1, RFC 8463 §3)
_KEY_KINDS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}

# RFC 6376 §3.5 h=: sig-h-tag = hdr-name *( [FWS] ":" [FWS] hdr-name ) ; RFC 5322 §3.6.8 ftext
_FIELD_NAME = re.compile(r"[!-9;-~]+")
# RFC 6376 §3.5 l=: 1*76DIGIT ; t=, x=: 1*12DIGIT
_LENGTH = re.compile(r"[0-9]{1,76}")
_TIME = re.compile(r"[0-9]{1,12}")
# RFC 6376 §2.11 hex-octet = "=" 2(DIGIT / "A" / "B" / "C" / "D" / "E" / "F")
_HEX_OCTET = re.compile(rb"=([0-9A-F]{2})")
# A look at d= without reading the whole list, to choose among too many signatures.
_D_TAG = re.compile(rb"(?:\A|;)[ \t\r\n]*d[ \t\r\n]*=[ \t\r\n]*([^; \t\r\n]+)")

_REQUIRED = ("v", "a", "b", "bh", "d", "h", "s")
#: characters of b= shown where eight do not tell the signatures apart (RFC 6008 §3)
_LONGER_STARTS = (16, 32, 64)


class _Refused(Exception):  # noqa: N818 - control flow inside this file
    """Raised by the readers below where a tag decides that the signature can never verify."""

    def __init__(self, problem: DkimProblem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


def read(message: Message, limits: DkimLimits, *, eai: bool = True) -> tuple[Signature, ...]:
    """Read the message's DKIM-Signature fields, topmost first.

    At most `limits.signatures` of them are read, those first whose d= is the author's domain, then those whose
    d= is above or below it, then topmost first; the rest have the problem LIMIT, and beyond `limits.listed`
    fields they do not appear.

    Args:
        message: the parsed header block.
        limits: bounds, see `DkimLimits`.
        eai: whether U-labels may stand in d=, s= and i= (RFC 8616 §5: in internationalized messages only).
            A header field with UTF-8 in it makes a message one (RFC 6532 §2), so only a door that knows
            better, from the envelope, says False.
    """
    named = message.fields(_KEY)
    if not named:
        return ()
    if len(named) == 1 and limits.signatures and limits.body_hashes:
        return (_read_field(0, named[0], limits, eai=eai),)  # most mail
    fields = list(enumerate(named))
    order = fields
    if len(fields) > limits.signatures:
        order = _by_closeness(fields, message.authors.domains, limits)
    found: list[Signature] = []
    needs: set[BodyNeed] = set()
    for position, header in order[: limits.signatures]:
        signature = _read_field(position, header, limits, eai=eai)
        need = signature.need
        if need is not None and need not in needs:
            if len(needs) < limits.body_hashes:
                needs.add(need)
            else:
                signature = _over(signature, f"more than {limits.body_hashes} different body hashes")
        found.append(signature)
    beyond = order[limits.signatures : max(limits.listed, limits.signatures)]
    detail = f"one of {len(fields)} signatures, of which {limits.signatures} are checked"
    found += [
        Signature(position=position, header=header, problem=DkimProblem.LIMIT, detail=detail)
        for position, header in beyond
    ]
    found.sort(key=lambda s: s.position)
    return _tell_apart(found)


def _over(signature: Signature, detail: str) -> Signature:
    return replace(signature, problem=DkimProblem.LIMIT, detail=detail, question=None, need=None)


def _by_closeness(
    fields: list[tuple[int, Header]], authors: tuple[Domain, ...], limits: DkimLimits
) -> list[tuple[int, Header]]:
    """Order the fields by how d= relates to the author: the same, above or below, neither, too long to look."""

    def rank(field: tuple[int, Header]) -> int:
        value = field[1].value
        if len(value) > limits.header_bytes:
            return 3
        tag = _D_TAG.search(value)
        domain = Domain.maybe(tag.group(1).decode("utf-8", "surrogateescape")) if tag else None
        if domain is None:
            return 2
        if domain in authors:
            return 0
        return 1 if any(domain.is_at_or_below(a) or a.is_at_or_below(domain) for a in authors) else 2

    return sorted(fields, key=rank)


def _tell_apart(found: list[Signature]) -> tuple[Signature, ...]:
    """Lengthen `signature_start` where eight characters of b= do not tell two signatures apart (RFC 6008 §3)."""
    for length in _LONGER_STARTS:
        starts = [s.signature_start for s in found if s.signature_start]
        if len(set(starts)) == len(starts):
            break
        found = [replace(s, signature_start=_start(s.signature, length)) for s in found]
    return tuple(found)


def _start(signature: bytes, length: int = 8) -> str:
    """Return the first characters of b= as the header property header.b shows them."""
    return binascii.b2a_base64(signature[: length // 4 * 3], newline=False).decode("ascii")


@dataclass(slots=True)
class _Draft:
    """What has been read of a signature so far."""

    domain: Domain | None = None
    selector: str = ""
    identity: str = ""
    identity_domain: Domain | None = None
    algorithm: str = ""
    key_kind: str = ""
    header_form: Canonicalization = Canonicalization.SIMPLE
    body_form: Canonicalization = Canonicalization.SIMPLE
    names: tuple[str, ...] = ()
    body_length: int | None = None
    timestamp: int | None = None
    expires: int | None = None
    signature: bytes = b""
    body_hash: bytes = b""
    signature_start: str = ""
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class _Shape:
    """What all signatures of a signer mostly have in common, read and checked: every tag but b=, bh=, t= and x=."""

    domain: Domain | None
    selector: str
    identity: str
    identity_domain: Domain | None
    algorithm: str
    key_kind: str
    header_form: Canonicalization
    body_form: Canonicalization
    names: tuple[str, ...]
    body_length: int | None
    question: Question | None
    need: BodyNeed


_make_signature = maker(Signature)
_SHAPING = ("v", "a", "c", "d", "h", "i", "l", "q", "s")
#: The field of a remembered shape has at most this many octets, so that strangers cannot make the memory large. One by
#: a key of 4096 bits has a thousand without h=.
_MAX_REMEMBERED = 2048


@lru_cache(maxsize=1024)
def _shape(written: tuple[str | None, ...], h_names: int, *, eai: bool) -> _Shape | None:
    """Return the shape of these tags, `_SHAPING` in order; None if anything in them is refused."""
    values = {name: value for name, value in zip(_SHAPING, written, strict=True) if value is not None}
    draft = _Draft()
    try:
        _read_signer(draft, values, eai=eai)
        _check_present(values, [name for name in _REQUIRED if name in _SHAPING])
        _read_algorithm(draft, values["a"])
        _read_rest(draft, values, h_names, eai=eai)
    except _Refused:
        return None
    return _Shape(
        domain=draft.domain,
        selector=draft.selector,
        identity=draft.identity,
        identity_domain=draft.identity_domain,
        algorithm=draft.algorithm,
        key_kind=draft.key_kind,
        header_form=draft.header_form,
        body_form=draft.body_form,
        names=draft.names,
        body_length=draft.body_length,
        question=draft.question,
        need=BodyNeed(draft.body_form, "sha256", draft.body_length),
    )


def _of_shape(position: int, header: Header, limits: DkimLimits, *, eai: bool) -> Signature | None:
    """Return a signature that has nothing wrong with it, by its shape; None: `_read_field` says what is wrong, if anything."""
    value = header.value
    size = len(value)
    if size > _MAX_REMEMBERED or size > limits.header_bytes or value.count(b"\n") > limits.folds:
        return None
    values = plain_tags(value)
    if values is None:
        return None
    shape = _shape(tuple(map(values.get, _SHAPING)), limits.h_names, eai=eai)
    if shape is None:
        return None
    signature, body_hash = base64_octets(values.get("b", "")), base64_octets(values.get("bh", ""))
    if signature is None or body_hash is None:
        return None
    try:
        timestamp, expires = _times(values)
    except _Refused:
        return None
    return _make_signature(
        position=position,
        header=header,
        domain=shape.domain,
        selector=shape.selector,
        identity=shape.identity,
        identity_domain=shape.identity_domain,
        algorithm=shape.algorithm,
        key_kind=shape.key_kind,
        header_form=shape.header_form,
        body_form=shape.body_form,
        names=shape.names,
        body_length=shape.body_length,
        timestamp=timestamp,
        expires=expires,
        signature=signature,
        body_hash=body_hash,
        signature_start=_start(signature),
        question=shape.question,
        need=shape.need,
    )


def _read_field(position: int, header: Header, limits: DkimLimits, *, eai: bool) -> Signature:
    ready = _of_shape(position, header, limits, eai=eai)
    if ready is not None:
        return ready
    problem: DkimProblem | None = None
    detail = ""
    need: BodyNeed | None = None
    draft = _Draft()
    try:
        _fill(draft, _tags(header, limits), limits, eai=eai)
        need = BodyNeed(draft.body_form, "sha256", draft.body_length)
    except _Refused as refused:
        problem, detail = refused.problem, refused.detail
    return Signature(
        position=position,
        header=header,
        domain=draft.domain,
        selector=draft.selector,
        identity=draft.identity,
        identity_domain=draft.identity_domain,
        algorithm=draft.algorithm,
        key_kind=draft.key_kind,
        header_form=draft.header_form,
        body_form=draft.body_form,
        names=draft.names,
        body_length=draft.body_length,
        timestamp=draft.timestamp,
        expires=draft.expires,
        signature=draft.signature,
        body_hash=draft.body_hash,
        signature_start=draft.signature_start,
        question=draft.question if problem is None else None,
        need=need,
        problem=problem,
        detail=detail,
    )


def _tags(header: Header, limits: DkimLimits) -> TagList:
    value = header.value
    if len(value) > limits.header_bytes:
        raise _Refused(DkimProblem.LIMIT, f"the field is over {limits.header_bytes} octets")
    if value.count(b"\n") > limits.folds:
        raise _Refused(DkimProblem.LIMIT, f"the field has over {limits.folds} folds")
    try:
        return parse_tag_list(value)
    except TagListError as e:
        raise _Refused(DkimProblem.SYNTAX, str(e)) from None


def _fill(draft: _Draft, tags: TagList, limits: DkimLimits, *, eai: bool) -> None:
    """Read every tag into `draft`; raise `_Refused` at the first that decides."""
    values = tags.values
    _read_signer(draft, values, eai=eai)
    _check_present(values, _REQUIRED)
    _check_octets(tags)
    algorithm = values["a"]
    if not _ALGORITHM.fullmatch(algorithm):
        raise _Refused(DkimProblem.SYNTAX, "a= is no algorithm name")
    draft.algorithm = algorithm
    _read_hashes(draft, values["b"], values["bh"])
    _read_algorithm(draft, algorithm)
    _read_rest(draft, values, limits.h_names, eai=eai)
    draft.timestamp, draft.expires = _times(values)


def _read_signer(draft: _Draft, values: Mapping[str, str], *, eai: bool) -> None:
    """Read, for the report, whose signature it claims to be, and which, even where it is refused later."""
    draft.domain = _domain(values.get("d", ""), eai=eai)
    draft.selector = _selector(values.get("s", ""), eai=eai)


def _check_present(values: Mapping[str, str], required: Sequence[str]) -> None:
    # RFC 6376 §6.1.1: other versions, and missing tags
    if values.get("v", "1") != "1":
        raise _Refused(DkimProblem.VERSION, "v= is not 1")
    missing = [name for name in required if name not in values]
    if missing:
        raise _Refused(DkimProblem.MISSING_TAG, f"{', '.join(f'{name}=' for name in missing)} missing")


def _read_rest(draft: _Draft, values: Mapping[str, str], h_names: int, *, eai: bool) -> None:
    """Read the tags behind those that say who signed, and how."""
    _read_names(draft, values["h"], h_names)
    _read_key_name(draft)
    _read_forms(draft, values.get("c", "simple/simple"))
    _read_identity(draft, values.get("i"), eai=eai)
    length = values.get("l")
    if length is not None:
        if not _LENGTH.fullmatch(length):
            raise _Refused(DkimProblem.SYNTAX, "l= is no number of at most 76 digits")
        draft.body_length = int(length)
    # RFC 6376 §3.5 q=: unrecognized query types are ignored
    if "dns/txt" not in (method.strip(" \t") for method in values.get("q", "dns/txt").split(":")):
        raise _Refused(DkimProblem.QUERY_METHOD, "q= has no dns/txt")


def _times(values: Mapping[str, str]) -> tuple[int | None, int | None]:
    timestamp = _time(values["t"], "t") if "t" in values else None
    expires = _time(values["x"], "x") if "x" in values else None
    if timestamp is not None and expires is not None and expires <= timestamp:
        # RFC 6376 §3.5 x=: the value MUST be greater than the value of t= if both are present.
        raise _Refused(DkimProblem.TIMES, "x= is not after t=")
    return timestamp, expires


def _check_octets(tags: TagList) -> None:
    if not tags.ill_formed:
        return
    if tags.ill_formed <= {"d", "s"}:
        raise _Refused(DkimProblem.BAD_DOMAIN, "d= or s= holds a forbidden octet")
    raise _Refused(DkimProblem.SYNTAX, "a tag holds a forbidden octet")


def _read_hashes(draft: _Draft, signature: str, body_hash: str) -> None:
    octets = base64_octets(signature)
    if octets is None:
        raise _Refused(DkimProblem.SYNTAX, "b= is no base64")
    draft.signature = octets
    draft.signature_start = _start(octets)
    octets = base64_octets(body_hash)
    if octets is None:
        raise _Refused(DkimProblem.SYNTAX, "bh= is no base64")
    draft.body_hash = octets


def _read_algorithm(draft: _Draft, algorithm: str) -> None:
    draft.algorithm = algorithm
    if algorithm == "rsa-sha1":
        # RFC 8301 §3.1: Verifiers MUST NOT consider signatures using rsa-sha1 valid
        raise _Refused(DkimProblem.SHA1, "a=rsa-sha1 is forbidden")
    kind = _KEY_KINDS.get(algorithm)
    if kind is None:
        raise _Refused(DkimProblem.ALGORITHM, "a= is unknown")
    draft.key_kind = kind


def _read_names(draft: _Draft, value: str, most: int) -> None:
    if value.count(":") >= most:
        raise _Refused(DkimProblem.LIMIT, f"h= has over {most} names")
    names = tuple(name.strip(" \t") for name in value.lower().split(":"))
    # (beyond ASCII, lower case is not one to one: KELVIN SIGN becomes k)
    if not value.isascii() or not all(map(_FIELD_NAME.fullmatch, names)):
        raise _Refused(DkimProblem.SYNTAX, "h= is no list of field names")
    draft.names = names
    if "from" not in names:
        # RFC 6376 §6.1.1: If the h= tag does not include the From header field, ... ignore the signature
        raise _Refused(DkimProblem.FROM_NOT_SIGNED, "h= does not name From")


def _read_key_name(draft: _Draft) -> None:
    if draft.domain is None:
        raise _Refused(DkimProblem.BAD_DOMAIN, "d= is no domain name")
    if not draft.selector:
        raise _Refused(DkimProblem.BAD_DOMAIN, "s= is no selector")
    try:
        # RFC 6376 §3.6.2.1
        draft.question = Question.of(f"{draft.selector}._domainkey.{draft.domain.ascii}", RdType.TXT)
    except InvalidName:
        raise _Refused(DkimProblem.BAD_DOMAIN, "d= and s= give too long a name") from None


def _read_forms(draft: _Draft, value: str) -> None:
    # RFC 6376 §3.5 c=: if only one algorithm is named, simple is used for the body.
    header, _, body = value.partition("/")
    try:
        draft.header_form = Canonicalization(header)
        draft.body_form = Canonicalization(body) if "/" in value else Canonicalization.SIMPLE
    except ValueError:
        raise _Refused(DkimProblem.CANONICALIZATION, "c= is unknown") from None


def _read_identity(draft: _Draft, value: str | None, *, eai: bool) -> None:
    domain = draft.domain
    assert domain is not None  # read before
    if value is None:
        draft.identity, draft.identity_domain = f"@{domain.ascii}", domain
        return
    # RFC 6376 §3.5 i=: dkim-quoted-printable, white space without meaning, of [ Local-part ] "@" domain-name.
    # The local part decides nothing, so that a `=` that begins no hex-octet may stand in it (bounce+x=y@...).
    written = value.replace(" ", "").replace("\t", "")
    plain = written
    if "=" in written:
        octets = _HEX_OCTET.sub(lambda m: bytes((int(m[1], 16),)), written.encode())
        plain = octets.decode("utf-8", "surrogateescape")
    if not plain.isprintable() or "@" not in plain or not (eai or plain.isascii()):
        raise _Refused(DkimProblem.SYNTAX, "i= is no identity")
    draft.identity = written
    draft.identity_domain = _domain(plain.rpartition("@")[2], eai=eai)
    # RFC 6376 §6.1.1: the domain of i= must be d= or a subdomain of it
    if draft.identity_domain is None or not draft.identity_domain.is_at_or_below(domain):
        raise _Refused(DkimProblem.IDENTITY_MISMATCH, "i= is not at or below d=")


def _time(value: str, tag: str) -> int:
    if not _TIME.fullmatch(value):
        raise _Refused(DkimProblem.SYNTAX, f"{tag}= is no number of at most 12 digits")
    return int(value)


def _domain(text: str, *, eai: bool) -> Domain | None:
    """Return the domain of d= or i= (RFC 6376 §3.5: sub-domains of RFC 5321, no dot at the end), or None."""
    if text.endswith(".") or not (eai or text.isascii()):
        return None
    return Domain.maybe(text)


def _selector(text: str, *, eai: bool) -> str:
    """Return the selector in A-labels and lower case (RFC 6376 §3.1: sub-domain *( "." sub-domain )), or ``."""
    if not text.isascii():
        if not eai:
            return ""
        try:
            text = idn.to_ascii(text)
        except InvalidName:
            return ""
    text = text.lower()
    if len(text) > 253 or not all(grammar.LABEL.fullmatch(label) for label in text.split(".")):
        return ""
    return text
