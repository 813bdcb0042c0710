"""The ARC fields of a message: text becomes a `Chain`, before any DNS question (RFC 8617 §4.1, §4.2, §5.2 steps 1-3).

`read` is total: whatever the fields, there is a `Chain`, and `problem` says why it can never pass, as far as its own
text decides that. A chain without a problem is whole (instances 1 to N, one of each field), its seals' cv= are what
their places ask for, and its seals and its newest message signature have all that verifying needs. What is wrong with
an older message signature is no problem of the chain's: only `oldest-pass` hangs on it.

Work is linear in the fields and bounded by `ArcSettings`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from authmilter import grammar, idn
from authmilter.arc.result import ArcProblem
from authmilter.arc.settings import ArcSettings
from authmilter.dkim.canonical import BodyNeed, Canonicalization
from authmilter.dkim.taglist import TagListError, parse_tag_list
from authmilter.dns.answer import Question, RdType
from authmilter.errors import InvalidName
from authmilter.message import Header, Message
from authmilter.names import Domain
from authmilter.octets.chosen import base64_octets

__all__ = ["FIELDS", "MAX_SETS", "Chain", "Link", "MessageSignature", "Seal", "read"]

#: RFC 8617 §4.2.1, §5.2 step 1: the largest instance.
MAX_SETS = 50
#: The three fields of a set: results, message signature, seal.
FIELDS = ("arc-authentication-results", "arc-message-signature", "arc-seal")
_FIELDS = frozenset(FIELDS)

# RFC 8617 §4.2.1  instance = [CFWS] %s"i" [CFWS] "=" [CFWS] position [CFWS] ";"
_CFWS = rb"(?:[ \t\r\n]|\([^()\\]{0,200}\))*"
_AAR_HEAD = re.compile(rb"%b[iI]%b=%b([0-9]{1,9})%b;" % ((_CFWS,) * 4))
# position: 1 to 50; `01` and `1` are not the same to every reader
_POSITION = re.compile(r"[1-9][0-9]?")
# As in a DKIM signature (RFC 6376 §3.5); RFC 8617 §4.1.2 takes the tags over.
_FIELD_NAME = re.compile(r"[!-9;-~]*")
_LENGTH = re.compile(r"[0-9]{1,76}")
_TIME = re.compile(r"[0-9]{1,12}")
_KEY_KINDS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
_CHAIN_VALUES = frozenset({"none", "pass", "fail"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """What a seal and a message signature have in common; behind a `problem` anything may be missing."""

    header: Header
    instance: int = 0
    domain: Domain | None = None
    selector: str = ""
    key_kind: str = ""
    signature: bytes = b""
    question: Question | None = None
    timestamp: int | None = None
    problem: ArcProblem | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(_Signed):
    """An ARC-Seal field (RFC 8617 §4.1.3). `cv` is its chain value: `none`, `pass`, `fail`, or empty for anything else."""

    cv: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSignature(_Signed):
    """An ARC-Message-Signature field (RFC 8617 §4.1.2): h= in lower case, in order, c=, and what bh= is compared with."""

    names: tuple[str, ...] = ()
    header_form: Canonicalization = Canonicalization.SIMPLE
    need: BodyNeed | None = None
    body_hash: bytes = b""
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """One whole set: `results` is the ARC-Authentication-Results field, of which only i= has been read."""

    instance: int
    results: Header
    signature: MessageSignature
    seal: Seal


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The sets by instance, 1 first; empty without ARC fields, and where they are no whole sets.

    `highest` is the largest instance seen (0: none that is one), `problem` why the chain cannot pass, `instance` the
    set it concerns. `ended`: the newest seal says cv=fail, after which nobody adds a set (RFC 8617 §5.1.2).
    """

    links: tuple[Link, ...] = ()
    highest: int = 0
    problem: ArcProblem | None = None
    instance: int = 0
    detail: str = ""

    @property
    def ended(self) -> bool:
        """True if the newest seal says that the chain failed."""
        return self.problem is ArcProblem.FAILED_BEFORE

    @property
    def present(self) -> bool:
        """True if the message has ARC fields."""
        return bool(self.links) or self.problem is not None


_NOTHING = Chain()


class _Refused(Exception):  # noqa: N818 - control flow inside this file
    """Raised by the readers below where a tag decides."""

    def __init__(self, problem: ArcProblem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


def _refuse(problem: ArcProblem, detail: str) -> NoReturn:
    raise _Refused(problem, detail)


def read(message: Message, settings: ArcSettings) -> Chain:
    """Read the message's ARC fields. Total; nothing is computed for a message without them."""
    index = message.by_name
    if _FIELDS.isdisjoint(index):
        return _NOTHING
    results, signatures, seals = [index.get(name, ()) for name in FIELDS]
    if max(len(results), len(signatures), len(seals)) > MAX_SETS:
        return Chain(
            highest=MAX_SETS, problem=ArcProblem.TOO_MANY_SETS, detail=f"there are more than {MAX_SETS} sets"
        )
    read_seals = [_read_seal(h, settings) for h in seals]
    read_signatures = [_read_signature(h, settings) for h in signatures]
    positions = [_aar_instance(h, settings) for h in results]
    numbers = [*positions, *(s.instance for s in read_signatures), *(s.instance for s in read_seals)]
    highest = max(numbers)
    # RFC 8617 §5.2 step 2
    newest = max(read_seals, key=lambda s: s.instance, default=None)
    if newest is not None and newest.instance == highest and newest.cv == "fail":
        return _failed(
            highest, ArcProblem.FAILED_BEFORE, highest, "the newest seal says that the chain failed"
        )
    # RFC 8617 §5.2 step 3
    for texts in (read_signatures, read_seals):
        for text in texts:
            if not text.instance:
                return _failed(highest, text.problem or ArcProblem.INSTANCE, 0, text.detail)
    if any(_too_large(h, settings) for h in results):
        # (nothing of it has been read, so nothing is established)
        return _failed(
            highest, ArcProblem.LIMIT, 0, "ARC-Authentication-Results is larger than what is looked at"
        )
    if 0 in positions:
        return _failed(
            highest,
            ArcProblem.INSTANCE,
            0,
            "ARC-Authentication-Results does not begin with an instance from 1 to 50",
        )
    found_results = dict(zip(positions, results, strict=True))
    found_signatures = {s.instance: s for s in read_signatures}
    found_seals = {s.instance: s for s in read_seals}
    if (len(found_results), len(found_signatures), len(found_seals)) != (
        len(results),
        len(signatures),
        len(seals),
    ):
        return _failed(highest, ArcProblem.REPEATED, 0, "a field of one instance stands twice")
    if not len(results) == len(signatures) == len(seals) == highest:
        return _failed(
            highest, ArcProblem.INCOMPLETE, 0, f"there are not three fields of each instance up to {highest}"
        )
    links = tuple(
        Link(i, found_results[i], found_signatures[i], found_seals[i]) for i in range(1, highest + 1)
    )
    return _judged(links)


def _failed(highest: int, problem: ArcProblem, instance: int, detail: str) -> Chain:
    return Chain(highest=highest, problem=problem, instance=instance, detail=detail)


def _judged(links: tuple[Link, ...]) -> Chain:
    """Look for what the text of a whole chain decides: chain values, the newest signature, all seals."""
    highest = len(links)
    problem: ArcProblem | None = None
    instance, detail = 0, ""
    signature = links[-1].signature
    if signature.problem is not None:
        problem, instance, detail = signature.problem, highest, signature.detail
    for link in reversed(links):
        seal = link.seal
        wanted = "none" if link.instance == 1 else "pass"
        if seal.problem is not None:
            problem, instance, detail = seal.problem, link.instance, seal.detail
        elif seal.cv != wanted:
            problem, instance = ArcProblem.CHAIN_VALUE, link.instance
            detail = f"cv= of seal {link.instance} is not {wanted}"
        else:
            continue
        break
    return Chain(links=links, highest=highest, problem=problem, instance=instance, detail=detail)


def _aar_instance(header: Header, settings: ArcSettings) -> int:
    """Return i= of an ARC-Authentication-Results field, 0 where there is none or it is too large a field."""
    if _too_large(header, settings):
        return 0
    found = _AAR_HEAD.match(header.value)
    return _position(found.group(1).decode("ascii")) if found is not None else 0


def _position(text: str) -> int:
    """Return an instance, 0 if it is none."""
    number = int(text) if _POSITION.fullmatch(text) else 0
    return number if number <= MAX_SETS else 0


def _too_large(header: Header, settings: ArcSettings) -> bool:
    return len(header.value) > settings.header_bytes or header.value.count(b"\n") > settings.folds


def _tags(header: Header, settings: ArcSettings) -> dict[str, str]:
    """Return a field's tags, or raise `_Refused`."""
    if _too_large(header, settings):
        raise _Refused(
            ArcProblem.LIMIT, f"a field is over {settings.header_bytes} octets or {settings.folds} folds"
        )
    try:
        tags = parse_tag_list(header.value)
    except TagListError as e:
        raise _Refused(ArcProblem.SYNTAX, str(e)) from None
    if tags.ill_formed:
        raise _Refused(ArcProblem.SYNTAX, "a tag holds a forbidden octet")
    return dict(tags.values)


def _instance_of(values: dict[str, str]) -> int:
    instance = _position(values.get("i", ""))
    if not instance:
        raise _Refused(ArcProblem.INSTANCE, "i= is no number from 1 to 50")
    return instance


def _need_tags(values: dict[str, str], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in values]
    if missing:
        raise _Refused(ArcProblem.MISSING_TAG, f"{', '.join(f'{name}=' for name in missing)} missing")


def _read_seal(header: Header, settings: ArcSettings) -> Seal:
    instance, cv = 0, ""
    domain: Domain | None = None
    selector = ""
    try:
        values = _tags(header, settings)
        cv = values.get("cv", "") if values.get("cv", "") in _CHAIN_VALUES else ""
        domain, selector = _domain(values), _selector(values)
        instance = _instance_of(values)
        if "h" in values:
            # RFC 8617 §4.1.3: h= in a seal, and the chain fails
            _refuse(ArcProblem.SEAL_NAMES_FIELDS, "a seal has h=")
        _need_tags(values, ("a", "b", "cv", "d", "s"))
        if not cv:
            _refuse(ArcProblem.CHAIN_VALUE, "cv= is not none, pass or fail")
        kind = _kind(values["a"])
        signature = _octets(values["b"], "b")
        question = _question(domain, selector)
        timestamp = _time(values.get("t"), "t")
    except _Refused as refused:
        return Seal(
            header=header, instance=instance, domain=domain, selector=selector, cv=cv,
            problem=refused.problem, detail=refused.detail,
        )  # fmt: skip
    return Seal(
        header=header, instance=instance, domain=domain, selector=selector, key_kind=kind, signature=signature,
        question=question, timestamp=timestamp, cv=cv,
    )  # fmt: skip


def _read_signature(header: Header, settings: ArcSettings) -> MessageSignature:
    instance = 0
    domain: Domain | None = None
    selector = ""
    try:
        values = _tags(header, settings)
        domain, selector = _domain(values), _selector(values)
        instance = _instance_of(values)
        # RFC 8617 §4.1.2: i= is the instance, and there is no v=; else the tags of DKIM
        _need_tags(values, ("a", "b", "bh", "d", "h", "s"))
        kind = _kind(values["a"])
        signature = _octets(values["b"], "b")
        body_hash = _octets(values["bh"], "bh")
        names = _names(values["h"], settings)
        question = _question(domain, selector)
        # RFC 8617 names no default of its own, and DKIM's is simple/simple; the published suite, and those who pass
        # it, take a signature without c= for relaxed/relaxed.
        header_form, body_form = _forms(values.get("c", "relaxed/relaxed"))
        length = values.get("l")
        if length is not None and not _LENGTH.fullmatch(length):
            _refuse(ArcProblem.SYNTAX, "l= is no number of at most 76 digits")
        if "dns/txt" not in (method.strip(" \t") for method in values.get("q", "dns/txt").split(":")):
            _refuse(ArcProblem.SYNTAX, "q= has no dns/txt")
        timestamp, expires = _time(values.get("t"), "t"), _time(values.get("x"), "x")
        if timestamp is not None and expires is not None and expires <= timestamp:
            _refuse(ArcProblem.TIMES, "x= is not after t=")
    except _Refused as refused:
        return MessageSignature(
            header=header, instance=instance, domain=domain, selector=selector,
            problem=refused.problem, detail=refused.detail,
        )  # fmt: skip
    return MessageSignature(
        header=header, instance=instance, domain=domain, selector=selector, key_kind=kind, signature=signature,
        question=question, timestamp=timestamp, expires=expires, names=names, header_form=header_form,
        need=BodyNeed(body_form, "sha256", int(length) if length is not None else None), body_hash=body_hash,
    )  # fmt: skip


def _kind(algorithm: str) -> str:
    kind = _KEY_KINDS.get(algorithm)
    if kind is None:
        raise _Refused(ArcProblem.ALGORITHM, "a= is no algorithm that may be used")
    return kind


def _octets(text: str, tag: str) -> bytes:
    octets = base64_octets(text)
    if octets is None:
        raise _Refused(ArcProblem.SYNTAX, f"{tag}= is no base64")
    return octets


def _names(value: str, settings: ArcSettings) -> tuple[str, ...]:
    """Return the names of h=; empty ones are allowed here, and stand for nothing (the published suite wants it)."""
    if value.count(":") >= settings.h_names:
        raise _Refused(ArcProblem.LIMIT, f"h= has over {settings.h_names} names")
    names = tuple(name.strip(" \t") for name in value.lower().split(":"))
    if not value.isascii() or not all(map(_FIELD_NAME.fullmatch, names)):
        raise _Refused(ArcProblem.SYNTAX, "h= is no list of field names")
    if FIELDS[2] in names:
        # RFC 8617 §4.1.2: ARC-Seal is not among the fields that a message signature covers
        raise _Refused(ArcProblem.COVERS_SEAL, "h= names ARC-Seal")
    return names


def _forms(value: str) -> tuple[Canonicalization, Canonicalization]:
    header, slash, body = value.partition("/")
    try:
        return Canonicalization(header), Canonicalization(body) if slash else Canonicalization.SIMPLE
    except ValueError:
        raise _Refused(ArcProblem.SYNTAX, "c= is unknown") from None


def _time(value: str | None, tag: str) -> int | None:
    if value is None:
        return None
    if not _TIME.fullmatch(value):
        raise _Refused(ArcProblem.SYNTAX, f"{tag}= is no number of at most 12 digits")
    return int(value)


def _domain(values: dict[str, str]) -> Domain | None:
    text = values.get("d", "")
    return None if text.endswith(".") else Domain.maybe(text)


def _selector(values: dict[str, str]) -> str:
    text = values.get("s", "")
    if not text.isascii():
        try:
            text = idn.to_ascii(text)
        except InvalidName:
            return ""
    text = text.lower()
    return text if len(text) <= 253 and all(map(grammar.LABEL.fullmatch, text.split("."))) else ""


def _question(domain: Domain | None, selector: str) -> Question:
    if domain is None or not selector:
        raise _Refused(ArcProblem.BAD_DOMAIN, "d= is no domain name, or s= no selector")
    try:
        return Question.of(f"{selector}._domainkey.{domain.ascii}", RdType.TXT)
    except InvalidName:
        raise _Refused(ArcProblem.BAD_DOMAIN, "d= and s= give too long a name") from None
