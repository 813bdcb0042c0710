"""Our Authentication-Results and Received-SPF fields: data in, header text out (RFC 8601, RFC 7208 §9.1).

Promises: whatever the evidence holds, the text is one well-formed field that says exactly the clauses asked for.
Every value, ours or a stranger's, passes through `pvalue`, `comment` or `phrase`; those give a form that cannot end
early, or None, and then the property is left out. No line is longer than 998 octets, and no line is longer than 77
columns unless a single word is.

What is shown: results and properties that a check established, never text that it could not read. A method that
ended in an error of our own (`internal_error`) has no clause at all: none of RFC 8601's words is true of it, and
a reader must not take our fault for the sender's. Several authors: no `header.from`.

How it fails: it does not; all functions are total.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address

from authmilter import grammar
from authmilter.arc.result import ArcResult, ArcStatus
from authmilter.bimi.evidence import EvidenceStatus
from authmilter.bimi.result import BimiResult, BimiStatus
from authmilter.dkim.result import DkimResult, DkimStatus
from authmilter.dmarc.result import DmarcResult, DmarcStatus
from authmilter.evidence import Evidence
from authmilter.headers import bimi
from authmilter.headers.settings import HeaderSettings
from authmilter.iprev.result import IprevResult, IprevStatus
from authmilter.mail import Mail, Origin
from authmilter.names import Domain, NullPath
from authmilter.spf.result import SpfIdentity, SpfResult, SpfStatus
from authmilter.verdict import Disposition

__all__ = ["MAX_VALUE", "authentication_results", "comment", "phrase", "pvalue", "received_spf"]

#: Octets of one value before it is quoted: a local part of 64, an @ and a domain of 253 (RFC 5321 §4.5.3.1) fit.
#: Quoted at worst twice as long, it stays far below the 998 octets of a line (RFC 5322 §2.1.1).
MAX_VALUE = 320
#: Columns of a folded line without its leading space and its `;` (RFC 5322 §2.1.1: at most 78 with them).
_COLUMNS = 75

_FOLD = "\r\n "

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
    if _BARE(text):
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
    utf8 = mail.envelope.smtputf8
    clauses: list[list[str]] = []
    if mail.origin is Origin.SUBMISSION and mail.session.authenticated is not None:
        clauses.append(_auth(mail.session.authenticated, settings, utf8))
    if evidence.iprev is not None and evidence.iprev.status is not IprevStatus.INTERNAL_ERROR:
        clauses.append(_iprev(evidence.iprev, settings))
    _spf_clauses(clauses, evidence, mail)
    if evidence.dkim is not None:
        _dkim_clauses(clauses, evidence.dkim, settings, utf8)
    # A message without a chain, as nearly all are, gets no clause (as in the examples of RFC 8617 §B).
    if evidence.arc is not None and evidence.arc.status not in {ArcStatus.NONE, ArcStatus.INTERNAL_ERROR}:
        clauses.append(_arc(evidence.arc, mail, settings))
    if evidence.dmarc is not None and evidence.dmarc.status is not DmarcStatus.INTERNAL_ERROR:
        clauses.append(_dmarc(evidence.dmarc, settings, disposition))
    if evidence.bimi is not None and evidence.bimi.status is not BimiStatus.INTERNAL_ERROR:
        clauses.append(_bimi(evidence.bimi, settings))
    head = _written_id(authserv_id, utf8)
    if not clauses:
        return f"{head}; none".encode()
    return _folded(head, clauses).encode()


def _written_id(authserv_id: str, utf8: bool) -> str:  # noqa: FBT001 - as above
    """Return our name as RFC 8601 §2.2 writes it: `value`, with A-labels unless the message is an EAI one (§5)."""
    if len(authserv_id) <= MAX_VALUE and grammar.MIME_TOKEN.fullmatch(authserv_id):
        return authserv_id
    if not authserv_id.isascii():
        domain = Domain.maybe(authserv_id)
        if domain is not None:
            return authserv_id if utf8 and authserv_id.isprintable() else domain.ascii
    return (_quoted(authserv_id, utf8) if 0 < len(authserv_id) <= MAX_VALUE else None) or "localhost"


def _auth(login: str, settings: HeaderSettings, utf8: bool) -> list[str]:  # noqa: FBT001 - as above
    """RFC 8601 §2.7.4."""
    words = ["auth=pass"]
    value = pvalue(login, utf8) if settings.show_login else None
    if value is not None:
        words.append(f"smtp.auth={value}")
    return words


def _iprev(result: IprevResult, settings: HeaderSettings) -> list[str]:
    """RFC 8601 §2.7.3."""
    words = [f"iprev={result.status.value}"]
    if result.problem is not None:
        words.append(f"reason={result.problem.value}")
    ip = result.ip
    # RFC 8601 §2.2: a colon is not allowed in a token, so an IPv6 address is quoted.
    words.append(f"policy.iprev={ip}" if isinstance(ip, IPv4Address) else f'policy.iprev="{ip}"')
    if settings.comments and result.name:
        name = comment(result.name)
        if name is not None:
            words.append(name)
    return words


def _spf_clauses(clauses: list[list[str]], evidence: Evidence, mail: Mail) -> None:
    """RFC 8601 §2.7.2: one clause for each identity, in the order of checking (RFC 7208 §2.3).

    Readers that keep one `spf=` of several keep the last, which so is MAIL FROM's: the one DMARC goes by.
    """
    shown = evidence.spf is not None and evidence.spf.status is not SpfStatus.INTERNAL_ERROR
    null_path = isinstance(mail.envelope.mail_from, NullPath)
    helo = evidence.spf_helo
    if helo is not None and helo.status not in _NOTHING_TO_SAY and not (shown and null_path):
        clauses.append(_spf(helo, "smtp.helo"))
    if evidence.spf is not None and shown:
        # RFC 7208 §2.4: with the null reverse-path the domain came from HELO, and that is what is shown.
        clauses.append(_spf(evidence.spf, "smtp.helo" if null_path else "smtp.mailfrom"))


def _spf(result: SpfResult, name: str) -> list[str]:
    words = [f"spf={result.status.value}"]
    if result.problem is not None:
        words.append(f"reason={result.problem.value}")
    if result.domain is not None:
        value = pvalue(result.domain.ascii)
        if value is not None:
            words.append(f"{name}={value}")
    return words


def _dkim_clauses(
    clauses: list[list[str]],
    results: tuple[DkimResult, ...],
    settings: HeaderSettings,
    utf8: bool,  # noqa: FBT001 - as above
) -> None:
    """RFC 8601 §2.7.1: one clause for each signature, or `dkim=none`."""
    if not results:
        clauses.append(["dkim=none"])
        return
    for result in results:
        status = result.status
        if status is DkimStatus.INTERNAL_ERROR:
            continue
        words = [f"dkim={status.value}"]
        if settings.comments and result.key_bits:
            testing = ", testing" if result.testing else ""
            words.append(f"({result.key_bits:d}-bit key{testing})")
        if result.problem is not None:
            words.append(f"reason={result.problem.value}")
        domain = result.domain
        # RFC 8601 §4: only what the method established; without a domain the rest is a stranger's text.
        if domain is not None and (d := pvalue(domain.ascii)) is not None:
            words.append(f"header.d={d}")
            identity = result.identity
            # i= says more than d= only where it is not its default (RFC 6376 §3.5), and is true only of a pass.
            if identity and status is DkimStatus.PASS and identity != "@" + domain.ascii:
                _add(words, "header.i", identity, utf8)
            if result.selector:
                _add(words, "header.s", result.selector, utf8)
            if result.algorithm:
                _add(words, "header.a", result.algorithm, utf8)
        if result.signature_start:
            _add(words, "header.b", result.signature_start, utf8)  # RFC 6008 §4
        clauses.append(words)


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


def _dmarc(result: DmarcResult, settings: HeaderSettings, disposition: Disposition | None) -> list[str]:
    """RFC 9989 §9.1, §9.2."""
    words = [f"dmarc={result.status.value}"]
    record = result.record
    if settings.comments and record is not None:
        said = [f"p={record.p.value if record.p else 'none'}"]
        if record.sp is not None:
            said.append(f"sp={record.sp.value}")
        if record.np is not None:
            said.append(f"np={record.np.value}")
        if record.testing:
            said.append("t=y")
        if disposition in _DIS:
            said.append(f"dis={_DIS[disposition]}")
        words.append(f"({' '.join(said)})")
    if result.problem is not None:
        words.append(f"reason={result.problem.value}")
    if result.author is not None and len(result.authors) < 2:
        value = pvalue(result.author.ascii)
        if value is not None:
            words.append(f"header.from={value}")
    if result.policy is not None:
        words.append(f"policy.dmarc={result.policy.value}")
    return words


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


def _folded(head: str, clauses: list[list[str]]) -> str:
    """Join clauses, each on a line of its own; a line breaks between words only (RFC 5322 §2.2.3)."""
    out = [head]
    for words in clauses:
        out.append(";" + _FOLD)
        line = " ".join(words)
        out.append(line if len(line) <= _COLUMNS else _FOLD.join(_lines(words)))
    return "".join(out)


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
