"""The facts: every name a rule may mention, its type, and where its value comes from.

`SCHEMA` is the one list; the loader checks policies against it, the manual's table is made of it. `Facts` gives
the values of one message, each computed when a rule first asks for it.

A value is a word, a truth value, a number, text, an IP address or a tuple of texts; a domain is its A-label text
in lower case. None means that there is no value: the method was not asked, or found nothing of the kind.

Promises: `Facts.get` is total, for every name and every mail; what a stranger wrote is at most `MAX_TEXT` long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.errors import HeaderParseError
from email.header import decode_header
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from authmilter.arc.result import ArcProblem, ArcResult, ArcStatus
from authmilter.bimi.evidence import EvidenceStatus
from authmilter.bimi.result import BimiProblem, BimiResult, BimiStatus, Preference, SelectorSource
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import (
    AlignedBy,
    DmarcPolicy,
    DmarcProblem,
    DmarcResult,
    DmarcStatus,
    PolicySource,
)
from authmilter.evidence import Evidence
from authmilter.iprev.result import IprevProblem, IprevStatus
from authmilter.mail import Mail, Origin
from authmilter.message import AuthorProblem, DefectKind, Header
from authmilter.names import (
    Address,
    AddressLiteral,
    Domain,
    IPAddress,
    LocalPart,
    NullPath,
    Recipient,
    parse_ip,
    parse_recipient,
)
from authmilter.spf.result import SpfProblem, SpfResult, SpfStatus

__all__ = ["METHODS", "SCHEMA", "Fact", "Facts", "Kind", "Standing", "Value", "internal_errors", "value_of"]

Value = str | bool | int | IPAddress | tuple[str, ...]

#: Characters of a stranger's text that a fact holds.
MAX_TEXT = 1000
#: Distinct values that a list fact holds.
MAX_LIST = 1000

#: The methods whose results a policy can read, by their names in Evidence.
METHODS = ("iprev", "spf_helo", "spf", "dkim", "arc", "dmarc", "bimi")


class Kind(StrEnum):
    """What a fact's value (or each value of a list) is."""

    WORD = "word"
    BOOL = "bool"
    INT = "int"
    DOMAIN = "domain"
    IP = "ip"
    TEXT = "text"


class Standing(StrEnum):
    """How far a fact can be believed, for the check that no policy accepts mail on claims alone."""

    #: the sender may write here what they like
    CLAIM = "claim"
    #: a sender cannot have it as they like; of a status only `pass` is a proof
    PROOF = "proof"
    #: says nothing of who sent
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One entry of the schema.

    `many`: the value is a list. `words`: all values of a WORD. `method`: whose result it reads (`` for none).
    `echo`: may be written into a reply or a header. `each`: has a value only while one recipient is judged.
    """

    name: str
    kind: Kind
    doc: str
    source: Callable[[Mail, Evidence], Value | None]
    many: bool = False
    words: tuple[str, ...] = ()
    method: str = ""
    standing: Standing = Standing.NEUTRAL
    echo: bool = True
    each: bool = False

    @property
    def type_text(self) -> str:
        """The type in words, for people."""
        one = {
            Kind.BOOL: "true or false",
            Kind.INT: "number",
            Kind.DOMAIN: "domain",
            Kind.IP: "IP address",
            Kind.TEXT: "text",
        }.get(self.kind, "one of " + ", ".join(self.words))
        if not self.many:
            return one
        return {Kind.DOMAIN: "list of domains", Kind.TEXT: "list of texts"}.get(
            self.kind, "list of " + ", ".join(self.words)
        )


# Members that are asked for in every message. (To find a member in its class takes as long as reading a fact.)
_DKIM_PASS = DkimStatus.PASS
_ALIGNED_BY_DKIM = AlignedBy.DKIM
_IPREV_BROKEN = IprevStatus.INTERNAL_ERROR
_SPF_BROKEN = SpfStatus.INTERNAL_ERROR
_DKIM_BROKEN = DkimStatus.INTERNAL_ERROR
_ARC_BROKEN = ArcStatus.INTERNAL_ERROR
_DMARC_BROKEN = DmarcStatus.INTERNAL_ERROR
_BIMI_BROKEN = BimiStatus.INTERNAL_ERROR


# -- sources: each takes (Mail, Evidence) and gives a value or None ----------------------------------------------


def _absent(_mail: Mail, _evidence: Evidence) -> Value | None:
    return None


def _ascii(domain: Domain | None) -> str | None:
    return None if domain is None else domain.ascii


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))[:MAX_LIST]


def _client_name(mail: Mail, _evidence: Evidence) -> str | None:
    name = mail.session.client_name
    # Postfix and Sendmail say `unknown` or `[192.0.2.1]` where there is no confirmed name.
    return None if not name or name == "unknown" else _ascii(Domain.maybe(name))


def _helo(mail: Mail, _evidence: Evidence) -> str | None:
    helo = mail.session.helo
    return helo.ascii if isinstance(helo, Domain) else None


def _helo_kind(mail: Mail, _evidence: Evidence) -> str | None:
    helo = mail.session.helo
    if helo is None:
        return None
    if isinstance(helo, Domain):
        return "domain"
    return "literal" if isinstance(helo, AddressLiteral) else "malformed"


def _path_kind(mail: Mail, _evidence: Evidence) -> str:
    path = mail.envelope.mail_from
    if isinstance(path, NullPath):
        return "null"
    if isinstance(path, Address):
        return "address"
    if isinstance(path, LocalPart):
        return "local_part"
    return "literal" if isinstance(path, AddressLiteral) else "malformed"


def _path_domain(mail: Mail, _evidence: Evidence) -> str | None:
    path = mail.envelope.mail_from
    return path.domain.ascii if isinstance(path, Address) else None


def _path_address(mail: Mail, _evidence: Evidence) -> str | None:
    return str(mail.envelope.mail_from)[:MAX_TEXT] or None


def _recipient_domain(recipient: Recipient) -> str | None:
    return recipient.domain.ascii if isinstance(recipient, Address) else None


def _recipients(mail: Mail, _evidence: Evidence) -> tuple[str, ...]:
    rcpt_to = mail.envelope.rcpt_to
    if len(rcpt_to) == 1:  # as most mail has
        return (str(rcpt_to[0])[:MAX_TEXT],)
    return _distinct([str(r)[:MAX_TEXT] for r in rcpt_to])


def _recipient_domains(mail: Mail, _evidence: Evidence) -> tuple[str, ...]:
    return _distinct(d for r in mail.envelope.rcpt_to if (d := _recipient_domain(r)) is not None)


def _defects(mail: Mail, _evidence: Evidence) -> tuple[str, ...]:
    found: list[str] = [d.kind for d in mail.message.defects]
    if mail.body.bare_cr:
        found.append(DefectKind.BARE_CR)
    if mail.body.bare_lf:
        found.append(DefectKind.BARE_LF)
    return _distinct(found) if found else ()


def _size(mail: Mail, _evidence: Evidence) -> int:
    # name, colon, value, CRLF; and the empty line
    return mail.body.size + 2 + sum(len(h.name) + len(h.value) + 3 for h in mail.message.headers)


def _subject(mail: Mail, _evidence: Evidence) -> str | None:
    fields = mail.message.fields("subject")
    return (_decoded(_text(fields[0])) or None) if fields else None


def _text(header: Header) -> str:
    """Return a field's text in one line, at most MAX_TEXT long."""
    return " ".join(header.value[: 4 * MAX_TEXT].decode("utf-8", "replace").split())[:MAX_TEXT]


def _decoded(text: str) -> str:
    """Decode encoded words (RFC 2047); text that does not decode stays as it is."""
    if "=?" not in text:
        return text
    try:
        parts = decode_header(text)
        return "".join(
            p if isinstance(p, str) else p.decode(charset or "latin-1", "replace") for p, charset in parts
        )[:MAX_TEXT]
    except (HeaderParseError, LookupError, ValueError):
        return text


_ANGLE = re.compile(r"<([^<>]*)>\s*\Z")
_LIST_POST = re.compile(r"<mailto:[^<>@?]*@([^<>@?]*)(?:\?[^<>@]*)?>", re.IGNORECASE)


def _list_id_of(header: Header) -> str:
    text = _text(header)
    # RFC 2919 §2: the identifier stands in the angle brackets at the end
    found = _ANGLE.search(text[-300:])
    return (found.group(1) if found else text).strip().lower()


def _list_id(mail: Mail, _evidence: Evidence) -> str | None:
    fields = mail.message.fields("list-id")
    return (_list_id_of(fields[0]) or None) if fields else None


def _list_domain(mail: Mail, evidence: Evidence) -> str | None:
    """Return the list's domain if a passing signature at or above it covers the field that names it."""
    passing = [d for d in evidence.dkim or () if d.status is _DKIM_PASS and d.domain is not None]
    if not passing:
        return None
    for name in ("list-id", "list-post"):
        ours = mail.message.fields(name)
        if len(ours) != 1:
            # Of two fields a signature may cover the other one.
            continue
        if name == "list-id":
            claimed = Domain.maybe(_list_id_of(ours[0]))
        else:
            found = _LIST_POST.search(_text(ours[0]))
            claimed = Domain.maybe(found.group(1)) if found else None
        if claimed is not None and any(_vouches(d, claimed, name) for d in passing):
            return claimed.ascii
    return None


def _vouches(signature: DkimResult, claimed: Domain, field: str) -> bool:
    domain = signature.domain
    return (
        domain is not None
        and "." in domain.ascii  # a signature of a top-level domain vouches for nobody
        and claimed.is_at_or_below(domain)
        and field in signature.signed_headers
    )


def _spf(
    identity: Callable[[Evidence], SpfResult | None], value: Callable[[SpfResult], Value | None]
) -> Callable[[Mail, Evidence], Value | None]:
    def source(_mail: Mail, evidence: Evidence) -> Value | None:
        result = identity(evidence)
        return None if result is None else value(result)

    return source


def _helo_identity(evidence: Evidence) -> SpfResult | None:
    return evidence.spf_helo


def _mail_identity(evidence: Evidence) -> SpfResult | None:
    return evidence.spf


def _dmarc(value: Callable[[DmarcResult], Value | None]) -> Callable[[Mail, Evidence], Value | None]:
    def source(_mail: Mail, evidence: Evidence) -> Value | None:
        return None if evidence.dmarc is None else value(evidence.dmarc)

    return source


# Asked of nearly every message, so without a function for the value inside a function for the result.
def _spf_status(_mail: Mail, evidence: Evidence) -> SpfStatus | None:
    return None if evidence.spf is None else evidence.spf.status


def _dmarc_status(_mail: Mail, evidence: Evidence) -> DmarcStatus | None:
    return None if evidence.dmarc is None else evidence.dmarc.status


def _aligned_by_dkim(_mail: Mail, evidence: Evidence) -> bool | None:
    return None if evidence.dmarc is None else _ALIGNED_BY_DKIM in evidence.dmarc.aligned


def _bimi(value: Callable[[BimiResult], Value | None]) -> Callable[[Mail, Evidence], Value | None]:
    def source(_mail: Mail, evidence: Evidence) -> Value | None:
        return None if evidence.bimi is None else value(evidence.bimi)

    return source


def _authority(result: BimiResult) -> str:
    return EvidenceStatus.NONE if result.evidence is None else result.evidence.status


def _mark_type(result: BimiResult) -> str | None:
    return None if result.evidence is None else result.evidence.mark_type[:MAX_TEXT] or None


def _dkim(
    value: Callable[[tuple[DkimResult, ...]], Value | None],
) -> Callable[[Mail, Evidence], Value | None]:
    def source(_mail: Mail, evidence: Evidence) -> Value | None:
        return None if evidence.dkim is None else value(evidence.dkim)

    return source


def _arc(value: Callable[[ArcResult], Value | None]) -> Callable[[Mail, Evidence], Value | None]:
    def source(_mail: Mail, evidence: Evidence) -> Value | None:
        return None if evidence.arc is None else value(evidence.arc)

    return source


def _arc_sealers(result: ArcResult) -> tuple[str, ...] | None:
    if result.status is not ArcStatus.PASS:
        return None
    return _distinct(s.sealer.ascii for s in reversed(result.sets) if s.sealer is not None)


def _arc_sealer(result: ArcResult) -> str | None:
    """The newest sealer, where its message signature leaves neither the author nor the body's end open."""
    return _ascii(result.sets[-1].sealer) if result.status is ArcStatus.PASS and result.whole else None


def _arc_trusted_sealers(result: ArcResult) -> tuple[str, ...]:
    if not result.whole:
        return ()
    return _distinct(s.sealer.ascii for s in reversed(result.sets) if s.trusted and s.sealer is not None)


def _arc_comment(result: ArcResult) -> str | None:
    """RFC 8617 §7.2.2: what a report says of an override for the sake of a chain."""
    if result.status is not ArcStatus.PASS:
        return None
    words = ["arc=pass"]
    for each in reversed(result.sets):
        words.append(f"as[{each.instance}].d={each.sealer.ascii if each.sealer is not None else ''}")
        words.append(f"as[{each.instance}].s={each.selector}")
    words += [f"remote-ip[{s.instance}]={s.remote_ip}" for s in result.sets[:1] if s.remote_ip is not None]
    return " ".join(words)[:MAX_TEXT]


#: Of several signatures the first of these that one of them has is the message's.
_DKIM_ORDER = ("pass", "internal_error", "temperror", "policy", "fail", "permerror", "neutral")


def _dkim_status(results: tuple[DkimResult, ...]) -> str:
    statuses = [r.status for r in results]
    for word in _DKIM_ORDER:
        if word in statuses:
            return word
    return "none"


def _dkim_domains(results: tuple[DkimResult, ...]) -> tuple[str, ...]:
    return _distinct(r.domain.ascii for r in results if r.domain is not None)


def _dkim_pass_domains(results: tuple[DkimResult, ...]) -> tuple[str, ...]:
    return _distinct(r.domain.ascii for r in results if r.status is _DKIM_PASS and r.domain is not None)


def _dkim_unsigned(results: tuple[DkimResult, ...]) -> tuple[str, ...] | None:
    passing = [r for r in results if r.status is _DKIM_PASS]
    if not passing:
        return None
    if not passing[0].unsigned_critical:
        return ()
    return _distinct(
        n for n in passing[0].unsigned_critical if all(n in r.unsigned_critical for r in passing)
    )


#: What an altered message makes of a signature that was good.
_ALTERED = {
    DkimProblem.BODY_HASH: "body",
    DkimProblem.BODY_LENGTH: "body",
    DkimProblem.UNSIGNED_BODY: "body",
    DkimProblem.SIGNATURE: "header",
}
_NOT_FORWARDING = frozenset({SpfStatus.TEMPERROR, SpfStatus.PERMERROR, SpfStatus.INTERNAL_ERROR})


def _forwarding(mail: Mail, evidence: Evidence) -> tuple[str, ...] | None:
    """Return what of a DMARC failure forwarding explains."""
    dmarc, author = evidence.dmarc, mail.message.authors.domain
    if dmarc is None or author is None or dmarc.status is not DmarcStatus.FAIL:
        return None
    top = dmarc.organizational_domain or author
    own = [r for r in evidence.dkim or () if r.domain is not None and r.domain.is_at_or_below(top)]
    if own:
        return _distinct(_ALTERED[r.problem] for r in own if r.problem in _ALTERED)
    spf = evidence.spf
    return ("spf",) if spf is not None and spf.status not in _NOT_FORWARDING else ()


def internal_errors(evidence: Evidence) -> tuple[str, ...]:
    """Return the methods (names of METHODS) that ended in a fault of ours."""
    found: list[str] = []
    iprev, helo, spf, arc, dmarc = (
        evidence.iprev,
        evidence.spf_helo,
        evidence.spf,
        evidence.arc,
        evidence.dmarc,
    )
    if iprev is not None and iprev.status is _IPREV_BROKEN:
        found.append("iprev")
    if helo is not None and helo.status is _SPF_BROKEN:
        found.append("spf_helo")
    if spf is not None and spf.status is _SPF_BROKEN:
        found.append("spf")
    for signature in evidence.dkim or ():
        if signature.status is _DKIM_BROKEN:
            found.append("dkim")
            break
    if arc is not None and arc.status is _ARC_BROKEN:
        found.append("arc")
    if dmarc is not None and dmarc.status is _DMARC_BROKEN:
        found.append("dmarc")
    if evidence.bimi is not None and evidence.bimi.status is _BIMI_BROKEN:
        found.append("bimi")
    return tuple(found) if found else ()


# -- the schema ----------------------------------------------------------------------------------------------------


def _words(enum: type[StrEnum]) -> tuple[str, ...]:
    return tuple(str(member) for member in enum)


_CLAIM, _PROOF = Standing.CLAIM, Standing.PROOF

_FACTS: tuple[Fact, ...] = (
    # -- the session
    Fact(
        name="origin",
        kind=Kind.WORD,
        words=_words(Origin),
        standing=_PROOF,
        doc="Where the mail comes from. Rules judge `internet` and `trusted_relay` only; other mail is accepted before them.",
        source=lambda m, _: m.origin,
    ),
    Fact(name="mail.id", kind=Kind.TEXT, doc="Our own id of the message.", source=lambda m, _: m.id),
    Fact(
        name="mail.date",
        kind=Kind.TEXT,
        doc="The day of arrival (UTC), such as `2026-11-22`.",
        source=lambda m, _: m.received_at.astimezone(UTC).date().isoformat(),
    ),
    Fact(
        name="client.ip",
        kind=Kind.IP,
        standing=_PROOF,
        doc="The address of the client; an IPv4-mapped IPv6 address counts as IPv4.",
        source=lambda m, _: m.session.client_ip,
    ),
    Fact(
        name="client.name",
        kind=Kind.DOMAIN,
        standing=_PROOF,
        doc="The client's name as the mail server found it in DNS; no value where it found none.",
        source=_client_name,
    ),
    Fact(
        name="helo",
        kind=Kind.DOMAIN,
        standing=_CLAIM,
        doc="The HELO or EHLO name, if it is a domain.",
        source=_helo,
    ),
    Fact(
        name="helo.kind",
        kind=Kind.WORD,
        words=("domain", "literal", "malformed"),
        doc="What the HELO or EHLO argument is: a domain, an address literal such as `[192.0.2.1]`, or neither.",
        source=_helo_kind,
    ),
    Fact(
        name="authenticated",
        kind=Kind.BOOL,
        standing=_PROOF,
        doc="Whether the client logged in (SMTP AUTH).",
        source=lambda m, _: m.session.authenticated is not None,
    ),
    Fact(
        name="daemon_name",
        kind=Kind.TEXT,
        doc="The mail server's name for the service that took the mail ({daemon_name}).",
        source=lambda m, _: m.session.daemon_name or None,
    ),
    Fact(
        name="tls",
        kind=Kind.BOOL,
        doc="Whether the session is encrypted.",
        source=lambda m, _: m.session.tls is not None,
    ),
    Fact(
        name="tls.version",
        kind=Kind.TEXT,
        doc="The TLS version as the mail server names it, such as `TLSv1.3`.",
        source=lambda m, _: None if m.session.tls is None else m.session.tls.version or None,
    ),
    # -- the envelope
    Fact(
        name="mail_from.kind",
        kind=Kind.WORD,
        words=("null", "address", "local_part", "literal", "malformed"),
        doc="What the reverse-path is: `<>`, an address, a local part alone, an address at an IP literal, or malformed.",
        source=_path_kind,
    ),
    Fact(
        name="mail_from.domain",
        kind=Kind.DOMAIN,
        standing=_CLAIM,
        doc="The domain of the reverse-path.",
        source=_path_domain,
    ),
    Fact(
        name="mail_from.address",
        kind=Kind.TEXT,
        standing=_CLAIM,
        doc="The reverse-path as text; no value for `<>`.",
        source=_path_address,
    ),
    Fact(
        name="rcpt.count",
        kind=Kind.INT,
        doc="The number of recipients.",
        source=lambda m, _: len(m.envelope.rcpt_to),
    ),
    Fact(name="rcpt.addresses", kind=Kind.TEXT, many=True, doc="All recipients.", source=_recipients),
    Fact(
        name="rcpt.domains",
        kind=Kind.DOMAIN,
        many=True,
        doc="The domains of all recipients.",
        source=_recipient_domains,
    ),
    Fact(
        name="rcpt.address",
        kind=Kind.TEXT,
        each=True,
        doc="One recipient: a policy that mentions it is asked for each recipient, and `on_mixed` joins the answers.",
        source=_absent,
    ),
    Fact(
        name="rcpt.domain",
        kind=Kind.DOMAIN,
        each=True,
        doc="One recipient's domain: asked for each recipient as `rcpt.address`.",
        source=_absent,
    ),
    # -- the message
    Fact(
        name="message.author.domain",
        kind=Kind.DOMAIN,
        standing=_CLAIM,
        doc="The one Author Domain, from the From field; no value where there is a problem.",
        source=lambda m, _: _ascii(m.message.authors.domain),
    ),
    Fact(
        name="message.author.domains",
        kind=Kind.DOMAIN,
        many=True,
        standing=_CLAIM,
        doc="All domains of the From field.",
        source=lambda m, _: _distinct(d.ascii for d in m.message.authors.domains),
    ),
    Fact(
        name="message.author.addresses",
        kind=Kind.TEXT,
        many=True,
        standing=_CLAIM,
        doc="All addresses of the From field.",
        source=lambda m, _: _distinct(str(a)[:MAX_TEXT] for a in m.message.authors.addresses),
    ),
    Fact(
        name="message.author.count",
        kind=Kind.INT,
        doc="The number of addresses in the From field.",
        source=lambda m, _: len(m.message.authors.addresses),
    ),
    Fact(
        name="message.author.problem",
        kind=Kind.WORD,
        words=_words(AuthorProblem),
        doc="Why there is no single Author Domain; no value where there is one.",
        source=lambda m, _: m.message.authors.problem,
    ),
    Fact(
        name="message.defects",
        kind=Kind.WORD,
        many=True,
        words=_words(DefectKind),
        doc="What is wrong with the form of the message.",
        source=_defects,
    ),
    Fact(
        name="message.headers",
        kind=Kind.TEXT,
        many=True,
        standing=_CLAIM,
        echo=False,
        doc="The names of the header fields, in lower case.",
        source=lambda m, _: _distinct(h.key for h in m.message.headers),
    ),
    Fact(
        name="message.subject",
        kind=Kind.TEXT,
        standing=_CLAIM,
        echo=False,
        doc="The Subject, decoded, in one line.",
        source=_subject,
    ),
    Fact(
        name="message.list_id",
        kind=Kind.TEXT,
        standing=_CLAIM,
        echo=False,
        doc="The identifier in List-Id; anybody can write one.",
        source=_list_id,
    ),
    Fact(
        name="message.list_domain",
        kind=Kind.DOMAIN,
        standing=_PROOF,
        method="dkim",
        doc="The domain in List-Id (or List-Post) where a passing DKIM signature of that domain, or of one above it, covers the field.",
        source=_list_domain,
    ),
    Fact(
        name="message.is_list",
        kind=Kind.BOOL,
        method="dkim",
        doc="Whether `message.list_domain` has a value: a list that signs what it sends. Anybody can run one.",
        source=lambda m, e: _list_domain(m, e) is not None,
    ),
    Fact(name="message.size", kind=Kind.INT, doc="The size of the message in octets.", source=_size),
    # -- SPF
    Fact(
        name="spf.status",
        kind=Kind.WORD,
        words=_words(SpfStatus),
        method="spf",
        standing=_PROOF,
        doc="The SPF result for the reverse-path (for `<>`: for postmaster at the HELO name).",
        source=_spf_status,
    ),
    Fact(
        name="spf.domain",
        kind=Kind.DOMAIN,
        method="spf",
        standing=_CLAIM,
        doc="The domain that SPF was asked for.",
        source=_spf(_mail_identity, lambda r: _ascii(r.domain)),
    ),
    Fact(
        name="spf.problem",
        kind=Kind.WORD,
        words=_words(SpfProblem),
        method="spf",
        doc="Why, where the SPF status alone does not say.",
        source=_spf(_mail_identity, lambda r: r.problem),
    ),
    Fact(
        name="spf.broad",
        kind=Kind.BOOL,
        method="spf",
        doc="Whether the SPF record lets nearly everybody send (`+all`, or a very wide network).",
        source=_spf(_mail_identity, lambda r: r.broad),
    ),
    Fact(
        name="spf.explanation",
        kind=Kind.TEXT,
        method="spf",
        doc="The domain's own explanation of an SPF fail.",
        source=_spf(_mail_identity, lambda r: r.explanation[:MAX_TEXT] or None),
    ),
    Fact(
        name="spf_helo.status",
        kind=Kind.WORD,
        words=_words(SpfStatus),
        method="spf_helo",
        standing=_PROOF,
        doc="The SPF result for the HELO name.",
        source=_spf(_helo_identity, lambda r: r.status),
    ),
    Fact(
        name="spf_helo.domain",
        kind=Kind.DOMAIN,
        method="spf_helo",
        standing=_CLAIM,
        doc="The HELO name that SPF was asked for.",
        source=_spf(_helo_identity, lambda r: _ascii(r.domain)),
    ),
    Fact(
        name="spf_helo.problem",
        kind=Kind.WORD,
        words=_words(SpfProblem),
        method="spf_helo",
        doc="Why, where the status of the HELO name alone does not say.",
        source=_spf(_helo_identity, lambda r: r.problem),
    ),
    # -- DKIM
    Fact(
        name="dkim.status",
        kind=Kind.WORD,
        words=(*_DKIM_ORDER, "none"),
        method="dkim",
        standing=_PROOF,
        doc="The message's DKIM result: of several signatures the first of these words that one has; `none`: not signed.",
        source=_dkim(_dkim_status),
    ),
    Fact(
        name="dkim.statuses",
        kind=Kind.WORD,
        many=True,
        words=_words(DkimStatus),
        method="dkim",
        doc="The results of all signatures.",
        source=_dkim(lambda rs: _distinct(r.status for r in rs)),
    ),
    Fact(
        name="dkim.problems",
        kind=Kind.WORD,
        many=True,
        words=_words(DkimProblem),
        method="dkim",
        doc="Why signatures are no pass.",
        source=_dkim(lambda rs: _distinct(r.problem for r in rs if r.problem is not None)),
    ),
    Fact(
        name="dkim.count",
        kind=Kind.INT,
        method="dkim",
        doc="The number of signatures.",
        source=_dkim(len),
    ),
    Fact(
        name="dkim.domains",
        kind=Kind.DOMAIN,
        many=True,
        method="dkim",
        standing=_CLAIM,
        doc="The signing domains of all signatures, good or bad.",
        source=_dkim(_dkim_domains),
    ),
    Fact(
        name="dkim.pass_domains",
        kind=Kind.DOMAIN,
        many=True,
        method="dkim",
        standing=_PROOF,
        doc="The signing domains of the signatures that pass.",
        source=_dkim(_dkim_pass_domains),
    ),
    Fact(
        name="dkim.unsigned_headers",
        kind=Kind.TEXT,
        many=True,
        method="dkim",
        echo=False,
        doc="Important header fields that no passing signature covers.",
        source=_dkim(_dkim_unsigned),
    ),
    Fact(
        name="dkim.aligned",
        kind=Kind.BOOL,
        method="dmarc",
        standing=_PROOF,
        doc="Whether a passing signature is aligned with the Author Domain (as DMARC says).",
        source=_aligned_by_dkim,
    ),
    # -- ARC
    Fact(
        name="arc.status",
        kind=Kind.WORD,
        words=_words(ArcStatus),
        method="arc",
        doc="The result of the ARC chain. A pass alone proves nothing but who sealed: anybody can seal anything.",
        source=_arc(lambda r: r.status),
    ),
    Fact(
        name="arc.problem",
        kind=Kind.WORD,
        words=_words(ArcProblem),
        method="arc",
        doc="Why the chain does not pass; `dns` and `limit`: it could not be checked.",
        source=_arc(lambda r: r.problem),
    ),
    Fact(
        name="arc.count",
        kind=Kind.INT,
        method="arc",
        doc="The number of ARC sets.",
        source=_arc(lambda r: len(r.sets)),
    ),
    Fact(
        name="arc.oldest_pass",
        kind=Kind.INT,
        method="arc",
        doc="The oldest set whose message signature still holds; 0: all do. Only where the chain passes.",
        source=_arc(lambda r: r.oldest_pass),
    ),
    Fact(
        name="arc.sealer",
        kind=Kind.DOMAIN,
        method="arc",
        standing=_PROOF,
        doc="Who sealed last, if the chain passes and that sealer's signature covers the From field and the whole body.",
        source=_arc(_arc_sealer),
    ),
    Fact(
        name="arc.sealers",
        kind=Kind.DOMAIN,
        many=True,
        method="arc",
        standing=_CLAIM,
        doc="All sealers of a chain that passes, the last first. Whoever has a sealed message can change it and seal again, so an earlier sealer vouches for nothing.",
        source=_arc(_arc_sealers),
    ),
    Fact(
        name="arc.trusted",
        kind=Kind.BOOL,
        method="arc",
        standing=_PROOF,
        doc="Whether the chain passes and all its sealers are among `arc.trusted_sealers` of the configuration.",
        source=_arc(lambda r: r.trusted),
    ),
    Fact(
        name="arc.trusted_sealers",
        kind=Kind.DOMAIN,
        many=True,
        method="arc",
        standing=_PROOF,
        doc="The sealers, from the last one back, that are trusted and after whom all are; none where the chain does not pass.",
        source=_arc(_arc_trusted_sealers),
    ),
    Fact(
        name="arc.dmarc_passed",
        kind=Kind.BOOL,
        method="arc",
        standing=_PROOF,
        doc="Whether a trusted sealer says that DMARC passed for this author domain when the mail came to it, and all sealers from there on are trusted. Never where the chain does not pass.",
        source=_arc(lambda r: r.dmarc_passed_at > 0),
    ),
    Fact(
        name="arc.comment",
        kind=Kind.TEXT,
        method="arc",
        doc="The sealers in the words of RFC 8617 7.2.2, for reports.",
        source=_arc(_arc_comment),
    ),
    # -- DMARC
    Fact(
        name="dmarc.status",
        kind=Kind.WORD,
        words=_words(DmarcStatus),
        method="dmarc",
        standing=_PROOF,
        doc="The DMARC result.",
        source=_dmarc_status,
    ),
    Fact(
        name="dmarc.policy",
        kind=Kind.WORD,
        words=_words(DmarcPolicy),
        method="dmarc",
        doc="The policy that applies to this message, after `sp`, `np` and `t=y`; no value without a record.",
        source=_dmarc(lambda r: r.policy),
    ),
    Fact(
        name="dmarc.published",
        kind=Kind.WORD,
        words=_words(DmarcPolicy),
        method="dmarc",
        doc="The same before `t=y` lowers it.",
        source=_dmarc(lambda r: r.published),
    ),
    Fact(
        name="dmarc.policy_source",
        kind=Kind.WORD,
        words=_words(PolicySource),
        method="dmarc",
        doc="The tag of the record that the policy came from.",
        source=_dmarc(lambda r: r.policy_source),
    ),
    Fact(
        name="dmarc.problem",
        kind=Kind.WORD,
        words=_words(DmarcProblem),
        method="dmarc",
        doc="Why, where the DMARC status alone does not say; `limit` is our own limit, `dns` is DNS trouble.",
        source=_dmarc(lambda r: r.problem),
    ),
    Fact(
        name="dmarc.aligned",
        kind=Kind.WORD,
        many=True,
        words=_words(AlignedBy),
        method="dmarc",
        standing=_PROOF,
        doc="What passed and is aligned with the Author Domain.",
        source=_dmarc(lambda r: _distinct(r.aligned)),
    ),
    Fact(
        name="dmarc.aligned_domains",
        kind=Kind.DOMAIN,
        many=True,
        method="dmarc",
        standing=_PROOF,
        doc="The domains that passed and are aligned.",
        source=_dmarc(lambda r: _distinct(d.ascii for d in r.aligned_domains)),
    ),
    Fact(
        name="dmarc.testing",
        kind=Kind.BOOL,
        method="dmarc",
        doc="Whether the record says `t=y`.",
        source=_dmarc(lambda r: r.testing),
    ),
    Fact(
        name="dmarc.author",
        kind=Kind.DOMAIN,
        method="dmarc",
        standing=_CLAIM,
        doc="The Author Domain that DMARC was asked for.",
        source=_dmarc(lambda r: _ascii(r.author)),
    ),
    Fact(
        name="dmarc.record_at",
        kind=Kind.DOMAIN,
        method="dmarc",
        standing=_CLAIM,
        doc="The name whose DMARC record applies.",
        source=_dmarc(lambda r: _ascii(r.record_at)),
    ),
    Fact(
        name="dmarc.organizational_domain",
        kind=Kind.DOMAIN,
        method="dmarc",
        standing=_CLAIM,
        doc="The Organizational Domain of the author.",
        source=_dmarc(lambda r: _ascii(r.organizational_domain)),
    ),
    Fact(
        name="dmarc.forwarding",
        kind=Kind.WORD,
        many=True,
        words=("spf", "body", "header"),
        method="dmarc",
        doc="What of a DMARC failure forwarding would explain: `body` or `header`: the author's own signature meets an altered body or header field; `spf`: the author has no signature, and SPF says nothing for them. None where the failure has another cause (no key, expired, DNS trouble).",
        source=_forwarding,
    ),
    # -- exceptions of the policy
    Fact(
        name="exception.applies",
        kind=Kind.BOOL,
        standing=_PROOF,
        doc="Whether one of the policy's `exceptions` applies: its author domain, its forwarder, proven, before its last day, and a failure that looks like forwarding.",
        source=_absent,
    ),
    Fact(
        name="exception.forwarder",
        kind=Kind.DOMAIN,
        standing=_PROOF,
        doc="The forwarder of that exception.",
        source=_absent,
    ),
    Fact(name="exception.owner", kind=Kind.TEXT, doc="Who answers for that exception.", source=_absent),
    Fact(name="exception.reason", kind=Kind.TEXT, doc="Why there is that exception.", source=_absent),
    # -- iprev
    Fact(
        name="iprev.status",
        kind=Kind.WORD,
        words=_words(IprevStatus),
        method="iprev",
        standing=_PROOF,
        doc="Whether a name of the client's address leads back to it.",
        source=lambda _, e: None if e.iprev is None else e.iprev.status,
    ),
    Fact(
        name="iprev.name",
        kind=Kind.DOMAIN,
        method="iprev",
        standing=_PROOF,
        doc="That name.",
        source=lambda _, e: None if e.iprev is None else _ascii(Domain.maybe(e.iprev.name)),
    ),
    Fact(
        name="iprev.problem",
        kind=Kind.WORD,
        words=_words(IprevProblem),
        method="iprev",
        doc="Why, where the iprev status alone does not say.",
        source=lambda _, e: None if e.iprev is None else e.iprev.problem,
    ),
    # -- BIMI
    Fact(
        name="bimi.status",
        kind=Kind.WORD,
        words=_words(BimiStatus),
        method="bimi",
        standing=_PROOF,
        doc="The BIMI result; no value where `bimi.enabled` is off.",
        source=_bimi(lambda r: r.status),
    ),
    Fact(
        name="bimi.problem",
        kind=Kind.WORD,
        words=_words(BimiProblem),
        method="bimi",
        doc="Why there is no logo.",
        source=_bimi(lambda r: r.problem),
    ),
    Fact(
        name="bimi.domain",
        kind=Kind.DOMAIN,
        method="bimi",
        standing=_CLAIM,
        doc="The domain whose BIMI record speaks for the message.",
        source=_bimi(lambda r: _ascii(r.domain)),
    ),
    Fact(
        name="bimi.selector",
        kind=Kind.TEXT,
        method="bimi",
        standing=_CLAIM,
        doc="The selector of that record.",
        source=_bimi(lambda r: r.selector or None),
    ),
    Fact(
        name="bimi.selector_source",
        kind=Kind.WORD,
        words=_words(SelectorSource),
        method="bimi",
        doc="Where the selector came from: nowhere, a signed BIMI-Selector, or the author's local part.",
        source=_bimi(lambda r: r.selector_source),
    ),
    Fact(
        name="bimi.authority",
        kind=Kind.WORD,
        words=_words(EvidenceStatus),
        method="bimi",
        standing=_PROOF,
        doc="What is known of the mark certificate; `none`: there is none, or it was not looked at.",
        source=_bimi(_authority),
    ),
    Fact(
        name="bimi.mark_type",
        kind=Kind.TEXT,
        method="bimi",
        standing=_CLAIM,
        doc="The mark type of the certificate, such as `Registered Mark`.",
        source=_bimi(_mark_type),
    ),
    Fact(
        name="bimi.preference",
        kind=Kind.WORD,
        words=_words(Preference),
        method="bimi",
        doc="Which picture the sender would rather have shown (`avp=`).",
        source=_bimi(lambda r: None if r.record is None else r.record.preference),
    ),
    # -- ourselves
    Fact(
        name="internal_errors",
        kind=Kind.WORD,
        many=True,
        words=METHODS,
        doc="The methods that failed inside authmilter. Those a policy reads are answered by `on_error` before the rules.",
        source=lambda _, e: internal_errors(e),
    ),
)

#: Every fact by its name, in the order of the manual.
SCHEMA: Mapping[str, Fact] = {fact.name: fact for fact in _FACTS}
_SOURCES = {fact.name: fact.source for fact in _FACTS}


class Facts:
    """The values of the facts of one message; each is found when it is first asked for, and kept.

    What is not known is asked of `base`, where there is one, and else found of the mail and the evidence.
    """

    __slots__ = ("_base", "_evidence", "_given", "_known", "_mail")

    def __init__(
        self,
        mail: Mail | None,
        evidence: Evidence | None,
        known: dict[str, Value | None],
        base: Facts | None = None,
    ) -> None:
        self._mail = mail
        self._evidence = evidence
        self._known = known
        self._base = base
        self._given = bool(known) or base is not None

    @classmethod
    def of(cls, mail: Mail, evidence: Evidence) -> Facts:
        """Return the facts of a mail and what the checks found."""
        return cls(mail, evidence, {})

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Facts:
        """Return facts given by name (policy tests). Total: what is no value of its fact is no value at all."""
        known: dict[str, Value | None] = {}
        for name, given in values.items():
            fact = SCHEMA.get(name)
            if fact is not None:
                known[name] = value_of(fact, given)
        return cls(None, None, known)

    def get(self, name: str) -> Value | None:
        """Return the value of a fact, or None where it has none (or where there is no such fact). Total."""
        known = self._known
        if name in known:
            return known[name]
        value: Value | None = None
        if self._base is not None:
            value = self._base.get(name)
        elif self._mail is not None and self._evidence is not None:
            source = _SOURCES.get(name)
            if source is not None:
                value = source(self._mail, self._evidence)
        known[name] = value
        return value

    @property
    def whole(self) -> tuple[Mail, Evidence] | None:
        """The mail and the evidence, where all facts are found of them; None where others were given."""
        mail, evidence = self._mail, self._evidence
        return None if mail is None or evidence is None or self._given else (mail, evidence)

    @property
    def asked(self) -> Mapping[str, Value | None]:
        """The facts that were asked for and their values, in the order in which they were (after those given)."""
        return self._known

    @property
    def recipients(self) -> tuple[tuple[str, str | None], ...]:
        """Every recipient: address as text, and domain (None where it has none)."""
        if self._mail is not None:
            return tuple((str(r)[:MAX_TEXT], _recipient_domain(r)) for r in self._mail.envelope.rcpt_to)
        addresses = self.get("rcpt.addresses")
        if not isinstance(addresses, tuple):
            return ()
        return tuple((a, _recipient_domain(parse_recipient(a))) for a in addresses)

    def also(self, values: Mapping[str, Value | None]) -> Facts:
        """Return the same facts with these set."""
        return Facts(self._mail, self._evidence, {**self._known, **values}, self._base)

    def for_recipient(self, address: str | None, domain: str | None) -> Facts:
        """Return the same facts with `rcpt.address` and `rcpt.domain` set."""
        return Facts(self._mail, self._evidence, {"rcpt.address": address, "rcpt.domain": domain}, self)

    def unasked(self) -> Facts:
        """Return the same facts, none of them asked for yet."""
        return Facts(self._mail, self._evidence, {}, self)


def value_of(fact: Fact, given: object) -> Value | None:
    """Return what `given` (plain data) is as a value of `fact`; None where it is none. Total."""
    if fact.many:
        items = given if isinstance(given, list | tuple) else [given]
        values = [_one(fact, item) for item in items[:MAX_LIST]]
        if any(not isinstance(v, str) for v in values):
            return None
        return _distinct(v for v in values if isinstance(v, str))
    return _one(fact, given)


def _one(fact: Fact, given: object) -> str | bool | int | IPAddress | None:
    kind = fact.kind
    if kind is Kind.BOOL:
        return given if isinstance(given, bool) else None
    if kind is Kind.INT:
        return given if isinstance(given, int) and not isinstance(given, bool) else None
    if isinstance(given, IPv4Address | IPv6Address):
        given = str(given)
    if not isinstance(given, str):
        return None
    if kind is Kind.WORD:
        return given if given in fact.words else None
    if kind is Kind.DOMAIN:
        return _ascii(Domain.maybe(given))
    if kind is Kind.IP:
        return parse_ip(given)
    return given[:MAX_TEXT] or None
