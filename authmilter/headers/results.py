"""Our Authentication-Results and Received-SPF fields: data in, header text out (RFC 8601, RFC 7208 §9.1).

Promises: whatever the evidence holds, the text is one well-formed field that says exactly the clauses asked for.
Every value, ours or a stranger's, passes through `pvalue`, `comment` or `phrase`; those give a form that cannot end
early, or None, and then the property is left out. No line is longer than 998 octets, and no line is longer than 77
columns unless a single word is.

What is shown: results and properties that a check established, never text that it could not read. A method that
ended in an error of our own (`internal_error`) has no clause at all: none of RFC 8601's words is true of it, and
a reader must not take our fault for the sender's. Several authors: no `header.from`.

Most of a field is the same again for the next message of the same sender. Each clause is therefore made by a function
of the few words and names it is written of, which keeps what it made last: plain texts, which say the same under any
settings and for any tenant. What belongs to one message alone (`header.b`, a local part in `header.i`) is in no key.

How it fails: it does not; all functions are total.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address

from authmilter import grammar
from authmilter.arc.result import ArcResult, ArcStatus
from authmilter.bimi.evidence import EvidenceStatus
from authmilter.bimi.result import BimiResult, BimiStatus
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import DmarcPolicy, DmarcProblem, DmarcResult, DmarcStatus
from authmilter.evidence import Evidence
from authmilter.headers import bimi
from authmilter.headers.settings import HeaderSettings
from authmilter.iprev.result import IprevProblem, IprevStatus
from authmilter.mail import Mail, Origin
from authmilter.names import Domain, IPAddress, NullPath
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from authmilter.verdict import Disposition

__all__ = [
    "MAX_VALUE",
    "authentication_results",
    "authentication_results_text",
    "comment",
    "phrase",
    "pvalue",
    "received_spf",
]

#: Octets of one value before it is quoted: a local part of 64, an @ and a domain of 253 (RFC 5321 §4.5.3.1) fit.
#: Quoted at worst twice as long, it stays far below the 998 octets of a line (RFC 5322 §2.1.1).
MAX_VALUE = 320
#: Columns of a folded line without its leading space and its `;` (RFC 5322 §2.1.1: at most 78 with them).
_COLUMNS = 75

_FOLD = "\r\n "
#: Each clause begins a line.
_NEXT_CLAUSE = ";" + _FOLD
#: Clauses of one method that are kept as written. Each is made of texts below `MAX_VALUE`, so that whatever strangers
#: send, a method's are a few megabytes at most; of honest mail, some hundred kilobytes.
_KEPT = 2048

# RFC 8601 §2.2  pvalue = [CFWS] ( value / [ [ local-part ] "@" ] domain-name ) [CFWS]
# RFC 2045 §5.1  value = token / quoted-string
# RFC 6376 §3.5  domain-name = sub-domain 1*("." sub-domain)
_SUB_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+"
_BARE = re.compile(
    rf"(?:{grammar.MIME_TOKEN.pattern}"
    rf"|(?:{_ATOM}(?:\.{_ATOM})*|\"(?:[ !#-\[\]-~]|\\[ -~])*\")?@{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})+)"
).fullmatch
# RFC 5322 §3.2.3 dot-atom
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*").fullmatch
# RFC 5322 §3.2.4, §3.2.2: what has to be escaped in a quoted-string and in a comment
_QUOTED_SPECIAL = re.compile(r'["\\]')
_COMMENT_SPECIAL = re.compile(r"[()\\]")

#: SPF results of the HELO identity that are worth a clause of their own beside MAIL FROM's.
_NOTHING_TO_SAY = frozenset({SpfStatus.NONE, SpfStatus.INTERNAL_ERROR})
_NO_SIGNATURE = f"{_NEXT_CLAUSE}dkim=none"
_NO_CHAIN = frozenset({ArcStatus.NONE, ArcStatus.INTERNAL_ERROR})

# Members that are asked for in every message.
_SUBMISSION = Origin.SUBMISSION
_DKIM_PASS = DkimStatus.PASS
_DKIM_BROKEN = DkimStatus.INTERNAL_ERROR

#: RFC 8601 has no word for the disposition; in the comment that receivers write by custom these three are known.
_DIS = {Disposition.ACCEPT: "none", Disposition.QUARANTINE: "quarantine", Disposition.REJECT: "reject"}


def pvalue(text: str, utf8: bool = False) -> str | None:  # noqa: FBT001, FBT002 - on the path of every message
    """Return any text as an RFC 8601 §2.2 pvalue: as a token or address, else as a quoted-string.

    None where it cannot be written: control characters, line ends, NUL, surrogates (raw octets) or invisible
    characters; more than `MAX_VALUE` octets; and non-ASCII unless the message is an internationalised one
    (`utf8`, RFC 6532 §3.2). Total.
    """
    if len(text) > MAX_VALUE:
        return None
    # Letters and digits alone, as most are, need no expression.
    if (text.isalnum() and text.isascii()) or _BARE(text):
        return text
    return _quoted(text, utf8)


def phrase(text: str, utf8: bool = False) -> str | None:  # noqa: FBT001, FBT002 - as above
    """Return any text as an RFC 7208 §9.1 value: dot-atom, else quoted-string; None as for `pvalue`. Total."""
    if len(text) > MAX_VALUE:
        return None
    if _DOT_ATOM(text):
        return text
    return _quoted(text, utf8)


def comment(text: str) -> str | None:
    """Return any text as an RFC 5322 §3.2.2 comment; None for control or non-ASCII characters or too much. Total."""
    if len(text) > MAX_VALUE or not text.isascii() or not text.isprintable():
        return None
    return f"({_COMMENT_SPECIAL.sub(_escape, text)})"


def _escape(match: re.Match[str]) -> str:
    return "\\" + match.group()


def _quoted(text: str, utf8: bool) -> str | None:  # noqa: FBT001 - as above
    # isprintable is false for every control, format (bidi, zero width), separator, private and surrogate character.
    if not text.isprintable():
        return None
    if not text.isascii() and (not utf8 or len(text.encode()) > MAX_VALUE):
        return None
    return f'"{_QUOTED_SPECIAL.sub(_escape, text)}"'


def authentication_results(
    authserv_id: str,
    evidence: Evidence,
    mail: Mail,
    settings: HeaderSettings,
    disposition: Disposition | None = None,
) -> bytes:
    """Return `authentication_results_text` as it stands in a message."""
    return authentication_results_text(authserv_id, evidence, mail, settings, disposition).encode()


def authentication_results_text(
    authserv_id: str,
    evidence: Evidence,
    mail: Mail,
    settings: HeaderSettings,
    disposition: Disposition | None = None,
) -> str:
    """Return the value of our Authentication-Results field: one field with all results (RFC 8601 §2.2).

    Args:
        authserv_id: our name (§2.5); what cannot be written becomes `localhost`.
        evidence: what the checks found; None slots were not asked and have no clause.
        mail: for SMTPUTF8, the null reverse-path and an authenticated sender.
        settings: whether comments and logins are written.
        disposition: what was decided, shown in DMARC's comment only.

    Returns:
        The value without leading space, folds as CRLF + space; `ID; none` where nothing was checked (§2.2).
    """
    envelope = mail.envelope
    utf8 = bool(envelope.mail_options) and envelope.smtputf8
    clauses = ""
    if mail.origin is _SUBMISSION and mail.session.authenticated is not None:
        clauses = _auth(mail.session.authenticated, settings, utf8)
    iprev = evidence.iprev
    if iprev is not None:
        clauses += _iprev(iprev.status, iprev.problem, iprev.ip, iprev.name if settings.comments else "")
    clauses += _spf_clauses(evidence, mail)
    if evidence.dkim is not None:
        clauses += _dkim_clauses(evidence.dkim, settings, utf8)
    # A message without a chain, as nearly all are, gets no clause (as in the examples of RFC 8617 §B).
    arc = evidence.arc
    if arc is not None and arc.status not in _NO_CHAIN:
        clauses += _clause(_arc(arc, mail, settings))
    if evidence.dmarc is not None:
        clauses += _dmarc_clause(evidence.dmarc, settings, disposition)
    if evidence.bimi is not None and evidence.bimi.status is not BimiStatus.INTERNAL_ERROR:
        clauses += _clause(_bimi(evidence.bimi, settings))
    return _written_id(authserv_id, utf8) + (clauses or "; none")


@lru_cache(maxsize=64)
def _written_id(authserv_id: str, utf8: bool) -> str:  # noqa: FBT001 - as above
    """Return our name as RFC 8601 §2.2 writes it: `value`, with A-labels unless the message is an EAI one (§5)."""
    if len(authserv_id) <= MAX_VALUE and grammar.MIME_TOKEN.fullmatch(authserv_id):
        return authserv_id
    if not authserv_id.isascii():
        domain = Domain.maybe(authserv_id)
        if domain is not None:
            return authserv_id if utf8 and authserv_id.isprintable() else domain.ascii
    return (_quoted(authserv_id, utf8) if 0 < len(authserv_id) <= MAX_VALUE else None) or "localhost"


def _auth(login: str, settings: HeaderSettings, utf8: bool) -> str:  # noqa: FBT001 - as above
    """RFC 8601 §2.7.4."""
    words = ["auth=pass"]
    value = pvalue(login, utf8) if settings.show_login else None
    if value is not None:
        words.append(f"smtp.auth={value}")
    return _clause(words)


@lru_cache(maxsize=_KEPT)
def _iprev(status: IprevStatus, problem: IprevProblem | None, ip: IPAddress, name: str) -> str:
    """RFC 8601 §2.7.3; `name` is shown in a comment (empty: none)."""
    if status is IprevStatus.INTERNAL_ERROR:
        return ""
    words = [f"iprev={status}"]
    if problem is not None:
        words.append(f"reason={problem}")
    # RFC 8601 §2.2: a colon is not allowed in a token, so an IPv6 address is quoted.
    words.append(f"policy.iprev={ip}" if isinstance(ip, IPv4Address) else f'policy.iprev="{ip}"')
    said = comment(name) if name else None
    if said is not None:
        words.append(said)
    return _clause(words)


def _spf_clauses(evidence: Evidence, mail: Mail) -> str:
    """RFC 8601 §2.7.2: one clause for each identity, in the order of checking (RFC 7208 §2.3).

    Readers that keep one `spf=` of several keep the last, which so is MAIL FROM's: the one DMARC goes by.
    """
    result, helo = evidence.spf, evidence.spf_helo
    # RFC 7208 §2.4: with the null reverse-path the domain came from HELO, and that is what is shown.
    null_path = isinstance(mail.envelope.mail_from, NullPath)
    said = ""
    if result is not None:
        domain = result.domain
        said = _spf(
            result.status,
            result.problem,
            domain.ascii if domain is not None else None,
            "smtp.helo" if null_path else "smtp.mailfrom",
        )
    if helo is not None and helo.status not in _NOTHING_TO_SAY and not (said and null_path):
        domain = helo.domain
        said = (
            _spf(helo.status, helo.problem, domain.ascii if domain is not None else None, "smtp.helo") + said
        )
    return said


@lru_cache(maxsize=4096)
def _spf(status: SpfStatus, problem: SpfProblem | None, domain: str | None, name: str) -> str:
    if status is SpfStatus.INTERNAL_ERROR:
        return ""
    words = [f"spf={status}"]
    if problem is not None:
        words.append(f"reason={problem}")
    if domain is not None:
        _add(words, name, domain, utf8=False)
    return _clause(words)


def _dkim_clauses(results: tuple[DkimResult, ...], settings: HeaderSettings, utf8: bool) -> str:  # noqa: FBT001 - as above
    """RFC 8601 §2.7.1: one clause for each signature, or `dkim=none`."""
    if not results:
        return _NO_SIGNATURE
    said = ""
    for result in results:
        status, domain = result.status, result.domain
        if status is _DKIM_BROKEN:
            continue
        bits = result.key_bits if settings.comments else 0
        name = domain.ascii if domain is not None else None
        identity, selector, algorithm = result.identity, result.selector, result.algorithm
        if len(selector) + len(algorithm) > MAX_VALUE:
            # What is too long to be written is kept nowhere.
            selector = selector if len(selector) <= MAX_VALUE else ""
            algorithm = algorithm if len(algorithm) <= MAX_VALUE else ""
        # i= says more than d= only where it is not its default (RFC 6376 §3.5), and is true only of a pass.
        if not identity or status is not _DKIM_PASS or name is None or identity == "@" + name:
            begun = _dkim(status, result.problem, bits, result.testing, name, selector, algorithm, utf8)
        else:
            begun = _dkim_begun(
                status, result.problem, bits, result.testing, name, selector, algorithm, utf8, identity
            )
        text, room = begun
        start = result.signature_start
        value = pvalue(start, utf8) if start else None  # RFC 6008 §4
        if value is not None:
            text += f" header.b={value}" if len(value) <= room else f"{_FOLD}header.b={value}"
        said += text
    return said


def _dkim_begun(  # noqa: PLR0917 - the key of what is kept
    status: DkimStatus,
    problem: DkimProblem | None,
    bits: int,
    testing: bool,  # noqa: FBT001 - as above
    domain: str | None,
    selector: str,
    algorithm: str,
    utf8: bool,  # noqa: FBT001 - as above
    identity: str = "",
) -> tuple[str, int]:
    """Return a clause up to where header.b may follow, and the columns that its last line has for the value of that."""
    words = [f"dkim={status}"]
    if bits:
        words.append(f"({bits:d}-bit key{', testing' if testing else ''})")
    if problem is not None:
        words.append(f"reason={problem}")
    # RFC 8601 §4: only what the method established; without a domain the rest is a stranger's text.
    if domain is not None and (d := pvalue(domain)) is not None:
        words.append(f"header.d={d}")
        if identity:
            _add(words, "header.i", identity, utf8)
        if selector:
            _add(words, "header.s", selector, utf8)
        if algorithm:
            _add(words, "header.a", algorithm, utf8)
    return _clause(words), _COLUMNS - len(_lines(words)[-1]) - len(" header.b=")


#: The same without header.i, which may hold a local part; kept as written.
_dkim = lru_cache(maxsize=_KEPT)(_dkim_begun)


def _arc(result: ArcResult, mail: Mail, settings: HeaderSettings) -> list[str]:
    """RFC 8617 §10.2: header.oldest-pass, and smtp.remote-ip, which the next sealer's results need."""
    words = [f"arc={result.status.value}"]
    if settings.comments and result.status is ArcStatus.PASS:
        newest = result.sets[-1].sealer
        sealer = newest.ascii if newest is not None else "nobody"
        said = comment(f"i={len(result.sets)} sealed by {sealer}{', trusted' if result.trusted else ''}")
        if said is not None:
            words.extend(said.split(" "))  # a comment may be folded at its spaces
    if result.problem is not None:
        words.append(f"reason={result.problem.value}")
    if result.oldest_pass is not None:
        words.append(f"header.oldest-pass={result.oldest_pass:d}")
    ip = mail.session.client_ip
    if ip is not None:
        words.append(f"smtp.remote-ip={ip}" if isinstance(ip, IPv4Address) else f'smtp.remote-ip="{ip}"')
    return words


def _dmarc_clause(result: DmarcResult, settings: HeaderSettings, disposition: Disposition | None) -> str:
    """RFC 9989 §9.1, §9.2."""
    author = result.author if len(result.authors) < 2 else None
    domain = author.ascii if author is not None else None
    record = result.record if settings.comments else None
    if record is None:
        return _dmarc(result.status, result.problem, domain, result.policy)
    published = record.p, record.sp, record.np, record.testing, disposition
    return _dmarc(result.status, result.problem, domain, result.policy, published)


_Published = tuple[DmarcPolicy | None, DmarcPolicy | None, DmarcPolicy | None, bool, Disposition | None]


@lru_cache(maxsize=_KEPT)
def _dmarc(
    status: DmarcStatus,
    problem: DmarcProblem | None,
    author: str | None,
    policy: DmarcPolicy | None,
    published: _Published | None = None,
) -> str:
    """`published`: p, sp, np and t of the record, and what was done, for the comment."""
    if status is DmarcStatus.INTERNAL_ERROR:
        return ""
    words = [f"dmarc={status}"]
    if published is not None:
        words.append(_comment_on(*published))
    if problem is not None:
        words.append(f"reason={problem}")
    if author is not None:
        _add(words, "header.from", author, utf8=False)
    if policy is not None:
        words.append(f"policy.dmarc={policy}")
    return _clause(words)


def _comment_on(
    p: DmarcPolicy | None,
    sp: DmarcPolicy | None,
    np: DmarcPolicy | None,
    testing: bool,  # noqa: FBT001 - as above
    disposition: Disposition | None,
) -> str:
    """Return the comment that tells what the record says, and what was done."""
    said = [f"p={p or 'none'}"]
    if sp is not None:
        said.append(f"sp={sp}")
    if np is not None:
        said.append(f"np={np}")
    if testing:
        said.append("t=y")
    if disposition in _DIS:
        said.append(f"dis={_DIS[disposition]}")
    return f"({' '.join(said)})"


#: What the evidence is called in `policy.authority`; where it could not be fetched it was not checked.
_AUTHORITY = {EvidenceStatus.PASS: "pass", EvidenceStatus.FAIL: "fail"}
#: Characters of a logo's SHA-256 that are shown. The draft asks for the last 8 at least, which can be forged.
_INDICATOR_HASH = 32


def _bimi(result: BimiResult, settings: HeaderSettings) -> list[str]:
    """BIMI draft -12 §7.7; what the settings or a record's documents did not establish is not shown."""
    words = [f"bimi={result.status.value}"]
    evidence, record = result.evidence, result.record
    if settings.comments and result.status is BimiStatus.PASS and evidence is not None and evidence.mark_type:
        said = comment(evidence.mark_type)
        if said is not None:
            words.append(said)
    if result.problem is not None:
        words.append(f"reason={result.problem.value}")
    if result.domain is None or record is None:
        return words
    _add(words, "header.d", result.domain.ascii, utf8=False)
    _add(words, "header.selector", result.selector, utf8=False)
    if result.status is BimiStatus.DECLINED:
        return words
    authority = _AUTHORITY.get(evidence.status, "none") if evidence is not None else "none"
    words.append(f"policy.authority={authority}")
    if record.authority and authority != "none":
        _add(words, "policy.authority-uri", record.authority, utf8=False)
    indicator = evidence.indicator if evidence is not None else None
    if result.status is not BimiStatus.PASS or indicator is None:
        return words
    if indicator.location:
        _add(words, "policy.indicator-uri", indicator.location, utf8=False)
    if bimi.indicator(result, settings) is not None:
        # the hash may only be shown where the field is written
        words.append(f"policy.indicator-hash={indicator.svg_sha256[-_INDICATOR_HASH:]}")
    if record.preference is not None:
        words.append(f"policy.logo-preference={record.preference.value}")
    return words


def _add(words: list[str], name: str, text: str, utf8: bool) -> None:  # noqa: FBT001 - as above
    value = pvalue(text, utf8)
    if value is not None:
        words.append(f"{name}={value}")


def _clause(words: list[str]) -> str:
    """Return the next clause, on as few lines as its words need; a line breaks between words only (RFC 5322 §2.2.3)."""
    return _NEXT_CLAUSE + _FOLD.join(_lines(words))


def _lines(words: list[str], room: int = _COLUMNS) -> list[str]:
    """Fill lines with words; the first has `room` columns."""
    lines: list[str] = []
    line = ""
    for word in words:
        if line and len(line) + 1 + len(word) > room:
            lines.append(line)
            line = word
            room = _COLUMNS
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return lines


def received_spf(result: SpfResult, mail: Mail, settings: HeaderSettings, receiver: str) -> bytes | None:
    """Return the value of a Received-SPF field for one identity (RFC 7208 §9.1), folded; None for our own error.

    Values that cannot be written (see `pvalue`) are left out; `receiver` is our host name.
    """
    if result.status is SpfStatus.INTERNAL_ERROR:
        return None
    utf8 = mail.envelope.smtputf8
    words = [result.status.value]
    if settings.comments:
        said = comment(f"{receiver}: {_SPF_SAYS[result.status]}")
        if said is not None:
            words.extend(said.split(" "))  # a comment may be folded at its spaces
    pairs: list[str] = []

    def pair(key: str, text: str) -> None:
        value = phrase(text, utf8)
        if value is not None:
            pairs.append(f"{key}={value}")

    pair("identity", "helo" if result.identity is SpfIdentity.HELO else "mailfrom")
    if mail.session.client_ip is not None:
        pair("client-ip", str(mail.session.client_ip))
    if mail.session.helo is not None:
        pair("helo", str(mail.session.helo))
    # The null reverse-path is written as "" (RFC 7208 §9.1 wants the sender as it was given).
    pair("envelope-from", str(mail.envelope.mail_from))
    pair("receiver", receiver)
    if result.mechanism:
        pair("mechanism", result.mechanism)
    if result.problem is not None:
        pair("problem", result.problem.value)
    words.extend(f"{p};" for p in pairs[:-1])
    words.extend(pairs[-1:])
    return _FOLD.join(_lines(words, _COLUMNS - len("Received-SPF:"))).encode()


_SPF_SAYS = {
    SpfStatus.NONE: "no SPF record to go by",
    SpfStatus.NEUTRAL: "domain neither permits nor denies the client",
    SpfStatus.PASS: "domain permits the client",
    SpfStatus.FAIL: "domain does not permit the client",
    SpfStatus.SOFTFAIL: "domain probably does not permit the client",
    SpfStatus.TEMPERROR: "DNS trouble",
    SpfStatus.PERMERROR: "domain has an unusable SPF record",
}
