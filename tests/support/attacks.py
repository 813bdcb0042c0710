"""The published spoofing attacks as whole messages: each with its session, its zone, and what must come of it.

`victim.example` publishes p=reject and sends from 192.0.2.0/24; `attacker.example` has SPF and DKIM of its own in
good order and sends from 203.0.113.0/24. A row is one attack; several messages may show the same row.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from authmilter.mail import Mail
from authmilter.verdict import DeleteHeader, InsertHeader, Verdict
from tests.support import arc, dkim_keys

__all__ = ["ATTACKS", "AUTHSERV_ID", "RCPT", "VICTIM", "Attack", "attack_zone"]

AUTHSERV_ID = "mx.recv.example"
RCPT = "user@recv.example"
VICTIM, ATTACKER = "victim.example", "attacker.example"
EVIL_IP, VICTIM_IP = "203.0.113.66", "192.0.2.10"

Check = Callable[[Mail, Verdict], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One message of an attack.

    `row` is its number among the published attacks. `code` is the reply with `enforce` (250: accepted), `dmarc` the
    status, `spf` and `dkim` where they matter. `genuine`: the message is the victim's own, so that its DMARC may
    pass; the attack is on what else is claimed. `fields` False: its header block is no list of fields, so that each
    mail server cuts it in its own way and no milter gets it as it is. `config` is the configuration it is judged
    with, `check` what else must hold.
    """

    row: int
    name: str
    message: bytes
    mail_from: str = "<x@attacker.example>"
    helo: str = "helo.attacker.example"
    client_ip: str = EVIL_IP
    code: int = 550
    dmarc: str = "fail"
    spf: str | None = None
    dkim: tuple[str, ...] | None = None
    genuine: bool = False
    fields: bool = True
    config: str = ""
    zone: Mapping[str, object] = field(default_factory=dict)
    check: Check | None = None

    @property
    def id(self) -> str:
        """Row and name, for a test's name."""
        return f"{self.row}-{self.name}"


_VICTIM_KEY, _ATTACKER_KEY = dkim_keys.rsa_key(2048, 1), dkim_keys.rsa_key(2048, 2)
_ED = dkim_keys.ed25519_key()
_NAMES = ("from", "to", "subject", "date")


def attack_zone(attack: Attack | None = None) -> dict[str, object]:
    """Return the zone that the attacks live in, with one attack's own records."""
    found: dict[str, object] = {
        VICTIM: {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"], "A": [VICTIM_IP], "MX": ["10 mail.victim.example"]},
        "mail.victim.example": {"A": [VICTIM_IP]},
        "_dmarc.victim.example": {"TXT": ["v=DMARC1; p=reject"]},
        "s1._domainkey.victim.example": {"TXT": [_VICTIM_KEY.record]},
        ATTACKER: {"TXT": ["v=spf1 ip4:203.0.113.0/24 -all"], "A": [EVIL_IP]},
        "helo.attacker.example": {"TXT": ["v=spf1 ip4:203.0.113.0/24 -all"], "A": [EVIL_IP]},
        "any.attacker.example": {"TXT": ["v=spf1 ip4:203.0.113.0/24 -all"]},
        "a.attacker.example": {"TXT": ["v=spf1 ip4:203.0.113.0/24 -all"]},
        "_dmarc.attacker.example": {"TXT": ["v=DMARC1; p=none"]},
        "s1._domainkey.attacker.example": {"TXT": [_ATTACKER_KEY.record]},
        "selector._domainkey.attacker.example": {"TXT": [_ATTACKER_KEY.record]},
        "66.113.0.203.in-addr.arpa": {"PTR": ["helo.attacker.example"]},
    }
    return {**found, **(attack.zone if attack is not None else {})}


def _message(
    author: bytes | str | None, *, above: bytes = b"", more: bytes = b"", body: bytes = b"Hello.\r\n"
) -> bytes:
    """Build a message; `author` is the value of From (None: no such field), `above` and `more` are further lines."""
    value = author.encode() if isinstance(author, str) else author
    head = above + (b"" if value is None else b"From: " + value + b"\r\n")
    return (
        head
        + b"To: user@recv.example\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
        + more
        + b"\r\n"
        + body
    )


def _signed(
    message: bytes, *, domain: str = ATTACKER, selector: str = "s1", names: tuple[str, ...] = _NAMES,
    key: dkim_keys.DkimKey | dkim_keys.ShortKey | None = None, tags: dict[str, str | None] | None = None,
) -> bytes:  # fmt: skip
    """Sign, by default as the attacker."""
    return dkim_keys.sign(
        message, key or _ATTACKER_KEY, domain=domain, selector=selector, names=names, tags=tags
    )


def _by_victim(
    message: bytes,
    *,
    selector: str = "s1",
    names: tuple[str, ...] = _NAMES,
    tags: dict[str, str | None] | None = None,
) -> bytes:
    """Sign as the victim would."""
    return _signed(message, domain=VICTIM, key=_VICTIM_KEY, selector=selector, names=names, tags=tags)


_FORGED = _message("Victim <admin@victim.example>")
_OWN = _message("Eve <eve@attacker.example>")


def _deleted(verdict: Verdict) -> int:
    return sum(isinstance(e, DeleteHeader) for e in verdict.edits)


def _inserted(verdict: Verdict, name: bytes) -> list[bytes]:
    return [e.value for e in verdict.edits if isinstance(e, InsertHeader) and e.name == name]


def _unquoted(value: bytes) -> bytes:
    """Return a value without its quoted strings."""
    return re.sub(rb'"(?:[^"\\]|\\.)*"', b'""', value, flags=re.DOTALL)


def _problems(*words: str) -> Check:
    """Check that the DKIM results have these problems, in their order."""
    return lambda _mail, verdict: tuple(r.problem or "" for r in verdict.evidence.dkim or ()) == words


def _spf_domain_is(domain: str | None) -> Check:
    def check(_mail: Mail, verdict: Verdict) -> bool:
        spf = verdict.evidence.spf
        return spf is not None and (spf.domain.ascii if spf.domain is not None else None) == domain

    return check


def _author_is(domain: str) -> Check:
    return lambda mail, _verdict: (
        mail.message.authors.domain is not None and mail.message.authors.domain.ascii == domain
    )


def _envelope_attacks() -> tuple[Attack, ...]:
    return (
        Attack(
            row=1, name="subdomain-that-does-not-exist", message=_FORGED,
            mail_from="<any@mailfrom.notexist.victim.example>", spf="none",
        ),
        Attack(
            row=2, name="parenthesis-in-path", message=_FORGED, mail_from="<(any@victim.example>", spf="none",
            check=_spf_domain_is(None),
        ),
        Attack(row=3, name="null-path", message=_FORGED, mail_from="<>", spf="pass", check=_spf_domain_is("helo.attacker.example")),
        Attack(
            row=7, name="parenthesis-in-domain", message=_FORGED,
            mail_from="<any@victim.example(a.attacker.example>", spf="none", check=_spf_domain_is(None),
        ),
        Attack(
            row=8, name="two-ats", message=_FORGED, mail_from="<any@victim.example'@any.attacker.example>", spf="none",
            check=_spf_domain_is(None),
        ),
        Attack(
            row=9, name="source-route", message=_FORGED,
            mail_from="<@victim.example,@any.attacker.example:any@attacker.example>", spf="pass",
            check=_spf_domain_is(ATTACKER),
        ),
        Attack(
            row=9, name="source-route-quote", message=_FORGED,
            mail_from="<@victim.example,@any.attacker.example:'any@attacker.example>", spf="pass",
            check=_spf_domain_is(ATTACKER),
        ),
        Attack(
            row=42, name="results-in-path", message=_FORGED, spf="none",
            mail_from="<a@b; dmarc=pass header.from=victim.example>",
        ),
        Attack(
            row=42, name="results-in-quoted-local-part", message=_FORGED, spf="pass",
            mail_from='<"a; dmarc=pass header.from=victim.example"@attacker.example>',
        ),
        Attack(
            row=42, name="line-in-path", message=_FORGED, spf="none",
            mail_from="<a@attacker.example\r\nAuthentication-Results: mx.recv.example; dmarc=pass>",
        ),
        Attack(
            row=42, name="line-in-helo", message=_FORGED, mail_from="<>", spf="none",
            helo="helo.attacker.example\r\nAuthentication-Results: mx.recv.example; dmarc=pass (",
        ),
        Attack(
            row=42, name="results-in-selector", spf="pass", dkim=("permerror",),
            message=_signed(_FORGED, selector="s1 dmarc=pass (x"),
        ),
        Attack(
            # a tag of its own, which nobody asked for: the signature is the attacker's s1
            row=42, name="results-behind-selector", spf="pass", dkim=("pass",),
            message=_signed(_FORGED, selector="s1; dmarc=pass header.from=victim.example"),
        ),
        Attack(
            row=42, name="results-in-identity", spf="pass", dkim=("pass",),
            message=_signed(_FORGED, tags={"i": '"a) dmarc=pass ("@attacker.example'}),
        ),
        Attack(
            row=43, name="received-spf-injection", message=_OWN, code=250, dmarc="pass",
            mail_from='<"x\\"; identity=mailfrom; \\"y"@attacker.example>', config="headers: {received_spf: true}",
            check=lambda _m, v: len(_inserted(v, b"Received-SPF")) >= 1
            and all(_unquoted(line).count(b"identity=") == 1 for line in _inserted(v, b"Received-SPF")),
        ),
        Attack(
            row=43, name="received-spf-line", message=_OWN, code=250, dmarc="fail", spf="none",
            mail_from="<x@attacker.example\r\nReceived-SPF: pass>", helo="h\r\nReceived-SPF: pass",
            config="headers: {received_spf: true}",
            check=lambda _m, v: all(b"\nReceived-SPF" not in line for line in _inserted(v, b"Received-SPF")),
        ),
    )  # fmt: skip


def _two_authors() -> tuple[Attack, ...]:
    first, victim = b"From: first@attacker.example\r\n", b"admin@victim.example"

    def several(row: int, name: str, message: bytes, *, fields: bool = True) -> Attack:
        return Attack(
            row=row, name=name, message=_signed(message), spf="pass", dmarc="permerror", fields=fields
        )

    def values(row: int, name: str, author: bytes | str, more: bytes = b"") -> Attack:
        return several(row, name, _message(author, more=more))

    return (
        several(10, "two-from-attacker-first", _message(victim, above=first)),
        several(11, "two-from-victim-first", _message(b"first@attacker.example", above=b"From: " + victim + b"\r\n")),
        # the line is no field, and no part of one: the victim is the author
        Attack(row=12, name="leading-space", message=_signed(_message(victim, above=b" " + first)), spf="pass", fields=False),
        several(13, "space-before-colon", _message(None, above=first + b"From : " + victim + b"\r\n")),
        several(13, "tab-before-colon", _message(None, above=first + b"From\t: " + victim + b"\r\n")),
        several(13, "space-before-the-first-colon", _message(victim, above=b"From : first@attacker.example\r\n")),
        several(14, "folded-name", _message(victim, above=b"From\r\n : first@attacker.example\r\n"), fields=False),
        several(
            15, "hidden-from-sender",
            _message(None, above=b"From\r\n : first@attacker.example\r\n", more=b"Sender: admin@victim.example\r\n"),
            fields=False,
        ),
        several(
            15, "hidden-from-resent",
            _message(None, above=b"From\r\n : first@attacker.example\r\n", more=b"Resent-From: admin@victim.example\r\n"),
            fields=False,
        ),
        several(15, "only-sender", _message(None, above=b"Sender: admin@victim.example\r\n")),
        values(16, "list-in-angles", b"<first@attacker.example>, <admin@victim.example>", b"Sender: s@attacker.example\r\n"),
        values(16, "list-victim-first", b"<admin@victim.example>, <first@attacker.example>"),
        values(16, "group", b"friends: first@attacker.example, admin@victim.example;"),
        values(17, "encoded-address", b"=?utf-8?B?" + base64.b64encode(b"<admin@victim.example>") + b"?=, <second@attacker.example>"),
        values(19, "quoted-pair", b"<admin@victim.example>\\,<second@attacker.example>"),
        values(20, "bare-and-angle", b"admin@victim.example,<second@attacker.example>"),
        values(21, "angle-then-bare", b"<any@attacker.example>admin@victim.example"),
        Attack(row=22, name="empty-from", message=_message(b""), mail_from="<>", dmarc="permerror"),
        Attack(row=22, name="no-from", message=_message(None), mail_from="<>", dmarc="permerror"),
        values(23, "eight-bit", b"admin@victim.example\xff@attacker.example"),
        several(23, "nul", _message(b"admin@victim.example\x00@attacker.example"), fields=False),
        several(23, "nul-after", _message(b"x@attacker.example\x00@victim.example"), fields=False),
        values(29, "zero-width-in-domain", "admin@victim.example\u200b"),
        values(29, "zero-width-inside", "admin@vic\u200btim.example"),
        values(29, "control", b"admin@victim.example\x01"),
        values(30, "right-to-left", "\u202emoc.mitciv@\u202dadmin"),
    )  # fmt: skip


def _other_authors() -> tuple[Attack, ...]:
    return (
        Attack(
            row=18, name="route-in-from", message=_signed(_message(b"<@attacker.example,@any.example:admin@victim.example>")),
            check=_author_is(VICTIM),
        ),
        Attack(
            row=24, name="encoded-name", message=_message(b"=?utf-8?Q?admin=40victim.example?= <x@attacker.example>"),
            code=250, dmarc="pass", check=_author_is(ATTACKER),
        ),
        Attack(
            row=24, name="encoded-name-without-end",
            message=_message(b"=?utf-8?Q?=3Cadmin=40victim.example=3E <x@attacker.example>"), code=250, dmarc="pass",
            check=_author_is(ATTACKER),
        ),
        Attack(
            row=24, name="encoded-name-split",
            message=_message(b"=?utf-8?B?PGFkbWlu?= =?utf-8?B?QHZpY3RpbS5leGFtcGxlPg==?= <x@attacker.example>"),
            code=250, dmarc="pass", check=_author_is(ATTACKER),
        ),
        Attack(row=25, name="subdomain-of-p-reject", message=_message(b"x@nonexist.victim.example")),
        Attack(
            row=25, name="subdomain-by-np", message=_message(b"x@nonexist.np.example"),
            zone={"np.example": {"A": ["192.0.2.1"]}, "_dmarc.np.example": {"TXT": ["v=DMARC1; p=none; np=reject"]}},
        ),
        Attack(
            row=25, name="subdomain-by-sp", message=_message(b"x@there.sp.example"),
            zone={"there.sp.example": {"A": ["192.0.2.1"]}, "_dmarc.sp.example": {"TXT": ["v=DMARC1; p=none; sp=reject"]}},
        ),
        Attack(
            row=26, name="forwarder-signs", spf="pass", dkim=("fail", "pass"),
            message=_signed(_by_victim(_FORGED).replace(b"Hello.", b"Hello!")), mail_from="<srs0=victim=admin@attacker.example>",
        ),
        Attack(
            row=28, name="homograph", message=_message(b"admin@xn--80aa1cn6g67a.example"), code=250, dmarc="none",
            check=_author_is("xn--80aa1cn6g67a.example"),
        ),
        Attack(
            row=28, name="homograph-raw", message=_message("admin@v\u0456ctim.example"), code=250, dmarc="none",
            check=lambda m, _v: str(m.message.authors.domain).startswith("xn--"),
        ),
        Attack(
            row=51, name="address-in-display-name", message=_message(b'"admin@victim.example" <x@attacker.example>'),
            code=250, dmarc="pass", check=_author_is(ATTACKER),
        ),
        Attack(
            row=51, name="address-in-comment", message=_message(b"x@attacker.example (admin@victim.example)"),
            code=250, dmarc="pass", check=_author_is(ATTACKER),
        ),
        Attack(
            row=52, name="hyphen", message=_message(b"u@my-bank.example"), check=_author_is("my-bank.example"),
            zone={"_dmarc.my-bank.example": {"TXT": ["v=DMARC1; p=reject"]}, "my": {"TXT": ["v=spf1 +all"]}},
        ),
    )  # fmt: skip


def _signature_attacks() -> tuple[Attack, ...]:
    to_read = _message(b"Victim <admin@victim.example>", body=b"one\r\ntwo\r\n")
    restricted = {
        "h1": f"v=DKIM1; h=sha1; p={_VICTIM_KEY.public}",
        "st": f"v=DKIM1; t=s; p={_VICTIM_KEY.public}",
        "ot": f"v=DKIM1; s=other; p={_VICTIM_KEY.public}",
        "ed": _ED.record,
        "rs": _VICTIM_KEY.record,
        "sh": dkim_keys.SHORT_KEYS[512].record,
        "s7": dkim_keys.SHORT_KEYS[768].record,
    }
    keys: dict[str, object] = {
        f"{s}._domainkey.victim.example": {"TXT": [record]} for s, record in restricted.items()
    }

    def victims(
        row: int, name: str, message: bytes, status: str, *problems: str, fields: bool = True
    ) -> Attack:
        # from elsewhere, so that only the signature could speak for it
        check = _problems(*problems)
        return Attack(
            row=row, name=name, message=message, dkim=(status,), check=check, zone=keys, fields=fields
        )

    return (
        victims(4, "nul-in-selector", _signed(_FORGED, domain=VICTIM, selector="selector._domainkey.attacker.example.\0.any"), "permerror", "bad_domain", fields=False),
        victims(4, "dots-in-selector", _signed(_FORGED, domain=VICTIM, selector="selector._domainkey.attacker.example."), "permerror", "bad_domain"),
        victims(5, "quote-in-d", _signed(_FORGED, domain="victim.example'a.attacker.example"), "permerror", "bad_domain"),
        victims(6, "parenthesis-in-d", _signed(_FORGED, domain="victim.example(.attacker.example"), "permerror", "bad_domain"),
        victims(34, "body-appended", _by_victim(to_read, tags={"l": "5"}).replace(b"two", b"TWO and much more"), "policy", "unsigned_body"),
        victims(34, "body-unsigned", _by_victim(to_read, tags={"l": "0"}), "policy", "unsigned_body"),
        victims(35, "replay-after-x", _by_victim(_FORGED, tags={"t": "1000000000", "x": "1000000100"}), "fail", "expired"),
        victims(36, "from-not-signed", _by_victim(_FORGED, names=("to", "subject", "date")), "permerror", "from_not_signed"),
        victims(37, "sha1", _by_victim(_FORGED, tags={"a": "rsa-sha1"}), "permerror", "sha1"),
        victims(37, "512-bits", _signed(_FORGED, domain=VICTIM, selector="sh", key=dkim_keys.SHORT_KEYS[512]), "permerror", "key_too_short"),
        victims(37, "768-bits", _signed(_FORGED, domain=VICTIM, selector="s7", key=dkim_keys.SHORT_KEYS[768]), "permerror", "key_too_short"),
        victims(38, "key-for-sha1", _by_victim(_FORGED, selector="h1"), "permerror", "key_hash"),
        victims(38, "strict-key", _by_victim(_FORGED, selector="st", tags={"i": "@sub.victim.example"}), "permerror", "key_strict"),
        victims(38, "key-for-other-services", _by_victim(_FORGED, selector="ot"), "permerror", "key_service"),
        victims(39, "rsa-signature-ed25519-key", _by_victim(_FORGED, selector="ed"), "permerror", "key_type"),
        victims(39, "ed25519-signature-rsa-key", _signed(_FORGED, domain=VICTIM, selector="rs", key=_ED), "permerror", "key_type"),
        Attack(
            row=40, name="top-level-domain-signs", dkim=("pass",), message=_signed(_FORGED, domain="example"),
            zone={"s1._domainkey.example": {"TXT": [_ATTACKER_KEY.record]}},
        ),
        Attack(
            row=40, name="public-suffix-signs", dkim=("pass",),
            message=_signed(_message(b"admin@victim.co.uk"), domain="co.uk"),
            zone={
                "s1._domainkey.co.uk": {"TXT": [_ATTACKER_KEY.record]},
                "_dmarc.victim.co.uk": {"TXT": ["v=DMARC1; p=reject"]},
            },
        ),
        Attack(
            row=40, name="public-suffix-signs-by-list", dkim=("pass",), config="dmarc: {org_domain: psl}",
            message=_signed(_message(b"admin@victim.co.uk"), domain="co.uk"),
            zone={
                "s1._domainkey.co.uk": {"TXT": [_ATTACKER_KEY.record]},
                "_dmarc.victim.co.uk": {"TXT": ["v=DMARC1; p=reject"]},
            },
        ),
        Attack(
            row=40, name="neighbours-under-an-unlisted-suffix", dkim=("pass",), config="dmarc: {org_domain: psl}",
            message=_signed(_message(b"admin@victim.unlisted"), domain="attacker.unlisted"),
            zone={
                "s1._domainkey.attacker.unlisted": {"TXT": [_ATTACKER_KEY.record]},
                "_dmarc.victim.unlisted": {"TXT": ["v=DMARC1; p=reject"]},
            },
        ),
        # the victim's own mail, with something added to it
        Attack(
            row=32, name="unsigned-headers", genuine=True, code=250, dmarc="pass", dkim=("pass",),
            message=_by_victim(_FORGED, names=("from",)).replace(b"Subject: hello", b"Subject: pay now"),
            check=lambda _m, v: "subject" in (v.evidence.dkim or ())[0].unsigned_critical,
        ),
        Attack(
            row=33, name="second-subject-on-top", genuine=True, code=250, dmarc="pass", dkim=("pass",),
            message=b"Subject: pay now\r\n" + _by_victim(_FORGED),
            check=lambda m, v: "subject" in (v.evidence.dkim or ())[0].unsigned_critical
            and any(d.kind == "repeated_singleton" for d in m.message.defects),
        ),
        Attack(
            row=35, name="replay", genuine=True, code=250, dmarc="pass", dkim=("pass",),
            message=_by_victim(_FORGED, tags={"t": "1000000000", "x": "9000000000"}),
            check=lambda _m, v: (v.evidence.dkim or ())[0].timestamp == 1000000000
            and (v.evidence.dkim or ())[0].expires == 9000000000,
        ),
    )  # fmt: skip


_FORGED_RESULTS = (
    b"Authentication-Results: mx.recv.example; dmarc=pass header.from=victim.example",
    b"authentication-results: MX.Recv.EXAMPLE; dmarc=pass",
    b'Authentication-Results: (x) "Mx.Recv.Example" 1 (y); dmarc=pass',
    b"Authentication-Results: mx.recv.example 1; dmarc=pass",
    b"Authentication-Results: mx.recv.example 2; dmarc=pass",
    b"Authentication-Results: mx.recv.example.; dmarc=pass",
    b"Authentication-Results: \xef\xbd\x8dx.recv.example; dmarc=pass",
    b"Authentication-Results:\r\n\tmx.recv.example; dmarc=pass",
    b"Authentication-Results : mx.recv.example; dmarc=pass",
    b"Authentication-Results: ; dmarc=pass",
)


def _header_attacks() -> tuple[Attack, ...]:
    forged = b"".join(line + b"\r\n" for line in _FORGED_RESULTS)
    odd = (
        b"Authentication-Results: other.example; dmarc=pass header.i.foo=x header.from.y.z=victim.example\r\n"
        b"Authentication-Results: other.example; __proto__=pass value=x; constructor=pass header.__class__=y\r\n"
        b"ARC-Authentication-Results: i=1; mx.recv.example; dmarc=pass header.i.foo=x\r\n"
        b"ARC-Authentication-Results: i=__proto__; mx.recv.example; dmarc.x=pass\r\n"
    )
    return (
        Attack(
            row=41, name="forged-results", message=forged + _OWN, code=250, dmarc="pass",
            check=lambda _m, v: _deleted(v) == len(_FORGED_RESULTS),
        ),
        Attack(row=41, name="forged-results-do-not-help", message=forged + _FORGED),
        Attack(
            row=46, name="forged-received-spf", message=b'Received-SPF: pass (x) client-ip=192.0.2.10; envelope-from="a@victim.example"\r\n' + _FORGED,
            mail_from="<admin@victim.example>", spf="fail",
        ),
        Attack(
            row=46, name="forged-received-spf-is-removed", message=b"Received-SPF: pass\r\n" + _OWN, code=250, dmarc="pass",
            config="headers: {received_spf: true}", check=lambda _m, v: _deleted(v) == 1,
        ),
        Attack(row=47, name="odd-property-names", message=odd + _OWN, code=250, dmarc="pass", check=lambda _m, v: _deleted(v) == 0),
        Attack(
            row=44, name="smuggled-lf", code=250, dmarc="pass",
            message=_signed(_message(b"eve@attacker.example", body=b"a\n.\r\nMAIL FROM:<admin@victim.example>\r\nDATA\r\nFrom: admin@victim.example\r\n\r\nx\r\n")),
            check=lambda m, _v: m.body.bare_lf and not m.body.bare_cr,
        ),
        Attack(
            row=44, name="smuggled-cr", code=250, dmarc="pass",
            message=_signed(_message(b"eve@attacker.example", body=b"a\r.\rMAIL FROM:<admin@victim.example>\r\n")),
            check=lambda m, _v: m.body.bare_cr and not m.body.bare_lf,
        ),
        Attack(
            row=44, name="smuggled-refused-by-strict", config="policy: strict", dmarc="pass",
            message=_signed(_message(b"eve@attacker.example", body=b"a\n.\r\nMAIL FROM:<admin@victim.example>\r\n")),
        ),
        Attack(
            row=44, name="smuggled-unsigned-refused-by-strict", config="policy: strict", dmarc="pass",
            message=_message(b"eve@attacker.example", body=b"a\n.\r\nMAIL FROM:<admin@victim.example>\r\n"),
        ),
        Attack(
            row=44, name="signature-is-not-inherited", dkim=("fail",),
            # what the victim signed is the first part only
            message=_by_victim(_message(b"admin@victim.example", body=b"a\r\n")).removesuffix(b"a\r\n") + b"a\r\n\n.\r\nMAIL FROM:<x@y>\r\n",
        ),
    )  # fmt: skip


def _cost_attacks() -> tuple[Attack, ...]:
    one = _signed(_FORGED)
    crowd = one[: len(one) - len(_FORGED)] * 1000 + _FORGED
    wide = _signed(_FORGED).replace(b"h=from:to", b"h=" + b"x:" * 50_000 + b"from:to", 1)
    big = dkim_keys.public_key_of((1 << 16383) + 1, 65537)
    voids = " ".join(f"a:void{n}.example" for n in range(9))
    exchanges = {
        f"mx{n}.attacker.example": {"MX": [f"{m} e{m}.mx{n}.attacker.example" for m in range(10)]}
        for n in range(10)
    }
    return (
        Attack(row=48, name="a-thousand-signatures", message=crowd, spf="pass"),
        Attack(row=48, name="a-hundred-kilobytes-of-names", message=wide, dkim=("policy",), check=_problems("limit")),
        Attack(
            row=48, name="a-key-of-16384-bits", message=_signed(_FORGED, selector="huge"), dkim=("permerror",),
            check=_problems("key_too_long"),
            zone={"huge._domainkey.attacker.example": {"TXT": [f"v=DKIM1; p={big}"]}},
        ),
        Attack(
            row=48, name="a-huge-record", message=_signed(_FORGED, selector="long"),
            zone={"long._domainkey.attacker.example": {"TXT": ["v=DKIM1; n=" + "x" * 60_000 + "; p=AAAA"]}},
        ),
        Attack(
            row=49, name="ten-times-ten-exchanges", message=_FORGED, mail_from="<x@many.attacker.example>", spf="permerror",
            zone=exchanges | {"many.attacker.example": {"TXT": ["v=spf1 " + " ".join(f"mx:mx{n}.attacker.example" for n in range(10)) + " a:x.attacker.example +all"]}},
        ),
        Attack(
            row=49, name="void-lookups", message=_FORGED, mail_from="<x@void.attacker.example>", spf="permerror",
            zone={"void.attacker.example": {"TXT": [f"v=spf1 {voids} +all"]}},
        ),
        Attack(
            row=49, name="macro-with-a-long-local-part", message=_FORGED, mail_from=f"<{'a.' * 30}a@mac.attacker.example>", spf="fail",
            zone={"mac.attacker.example": {"TXT": ["v=spf1 exists:" + "%{lr-}." * 30 + "attacker.example -all"]}},
        ),
        Attack(
            row=49, name="include-of-itself", message=_FORGED, mail_from="<x@loop.attacker.example>", spf="permerror",
            zone={"loop.attacker.example": {"TXT": ["v=spf1 include:loop.attacker.example -all"]}},
        ),
        # SPF passes as the victim published it: told, and refused where that is asked for
        Attack(
            row=45, name="everybody-may-send", genuine=True, code=250, dmarc="pass", spf="pass",
            message=_message(b"a@open.example"), mail_from="<a@open.example>",
            zone={"open.example": {"TXT": ["v=spf1 +all"]}, "_dmarc.open.example": {"TXT": ["v=DMARC1; p=reject"]}},
            check=lambda _m, v: v.evidence.spf is not None and v.evidence.spf.broad and bool(_inserted(v, b"X-Authmilter-Note")),
        ),
        Attack(
            row=45, name="everybody-may-send-not-credited", config="dmarc: {credit_broad_spf: false}", spf="pass",
            message=_message(b"a@open.example"), mail_from="<a@open.example>",
            zone={"open.example": {"TXT": ["v=spf1 ip4:128.0.0.0/1 -all"]}, "_dmarc.open.example": {"TXT": ["v=DMARC1; p=reject"]}},
        ),
    )  # fmt: skip


def _arc_attacks() -> tuple[Attack, ...]:
    """Chains that hold, and say that DMARC passed for the victim."""
    passed = arc.AAR
    trusted = "arc: {trusted_sealers: [sealer.example, second.example]}"
    keys = arc.zone_of(ATTACKER, "sealer.example", "second.example")
    theirs = arc.sealed(_FORGED, ATTACKER, results=passed)

    def held(mail: Mail, verdict: Verdict) -> bool:
        found = verdict.evidence.arc
        return (
            mail is not None
            and found is not None
            and found.status == "pass"
            and found.dmarc_passed_at == 0
            and verdict.decision.override is None
        )

    def failed(mail: Mail, verdict: Verdict) -> bool:
        found = verdict.evidence.arc
        return (
            mail is not None and found is not None and found.status == "fail" and found.dmarc_passed_at == 0
        )

    taken = arc.sealed(_FORGED, "sealer.example", results=passed)
    rows = {
        "own-chain": (theirs, "", held),
        "own-chain-though-others-are-trusted": (theirs, trusted, held),
        "own-chain-of-three": (arc.sealed(arc.sealed(theirs, ATTACKER, results=passed), ATTACKER, results=passed), trusted, held),
        "a-trusted-message-sealed-anew": (arc.sealed(taken.replace(b"hello", b"pay"), ATTACKER, results=passed), trusted, held),
        "a-trusted-message-changed": (taken.replace(b"hello", b"pay"), trusted, failed),
        "before-a-trusted-sealer": (arc.sealed(theirs, "sealer.example", results=b"mx; dmarc=fail header.from=victim.example; arc=pass"), trusted, held),
    }  # fmt: skip
    return tuple(
        Attack(row=27, name=name, message=message, config=config, zone=keys, spf="pass", check=check)
        for name, (message, config, check) in rows.items()
    )


_LOGO = b"BIMI-Location: v=BIMI1; l=https://evil.example/l.svg\r\nBIMI-Indicator: PHN2Zz4=\r\n"
_BIMI_ON = "bimi: {enabled: true}\n"
_BIMI_RECORD: dict[str, object] = {
    "default._bimi.victim.example": {"TXT": ["v=BIMI1; l=https://victim.example/l.svg; a=https://victim.example/c.pem"]},
    "other._bimi.victim.example": {"TXT": ["v=BIMI1; l=; a=;"]},
}  # fmt: skip


def _no_logo(problem: str, *, ignored: str | None = None) -> Check:
    """No field of BIMI is left or added, and the reason is this one."""

    def check(mail: Mail, verdict: Verdict) -> bool:
        found = verdict.evidence.bimi
        deleted = {e.name.lower() for e in verdict.edits if isinstance(e, DeleteHeader)}
        there = {h.name.lower() for h in mail.message.headers if h.name.lower().startswith(b"bimi-")}
        return (
            found is not None
            and found.problem == problem
            and found.selector_ignored == ignored
            and deleted == there - {b"bimi-selector"}
            and not any(
                _inserted(verdict, n) for n in (b"BIMI-Location", b"BIMI-Indicator", b"BIMI-Logo-Preference")
            )
        )

    return check


def _logo_attacks() -> tuple[Attack, ...]:
    """The victim's logo beside a mail that the victim did not sign whole (row 50, and what rows 32 and 34 make of it)."""
    author = "Victim <news@victim.example>"
    path, helo = "<news@victim.example>", "mail.victim.example"
    selector = b"BIMI-Selector: v=BIMI1; s=other\r\n"
    return (
        Attack(
            row=50, name="spf-alone-from-a-shared-provider", message=_message(author, above=_LOGO), genuine=True, code=250,
            dmarc="pass", spf="pass", config=_BIMI_ON, zone=_BIMI_RECORD, check=_no_logo("no_aligned_dkim"), mail_from=path, client_ip=VICTIM_IP, helo=helo,
        ),
        Attack(
            row=50, name="signed-by-the-provider", message=_signed(_message(author, above=_LOGO)), genuine=True, code=250,
            dmarc="pass", spf="pass", config=_BIMI_ON, zone=_BIMI_RECORD, check=_no_logo("no_aligned_dkim"), mail_from=path, client_ip=VICTIM_IP, helo=helo,
        ),
        Attack(
            row=50, name="fields-of-its-own-beside-a-true-signature", message=_LOGO + _by_victim(_message(author)),
            genuine=True, code=250, dmarc="pass", config=_BIMI_ON, zone={"default._bimi.victim.example": {"TXT": ["v=BIMI1; l=https://victim.example/l.svg"]}}, check=_no_logo("no_certificate"),
        ),
        Attack(
            row=32, name="another-selector-above-a-true-signature", message=selector + _by_victim(_message(author)),
            genuine=True, code=250, dmarc="pass", config=_BIMI_ON, zone={**_BIMI_RECORD, "default._bimi.victim.example": {"TXT": ["v=BIMI1; l=https://victim.example/l.svg"]}}, check=_no_logo("no_certificate", ignored="unsigned"),
        ),
        Attack(
            row=34, name="appended-behind-l", message=_by_victim(_message(author), tags={"l": "8"}) + b"More.\r\n", genuine=True,
            code=250, dmarc="pass", config=_BIMI_ON + "dkim: {unsigned_body: accept}\n", zone=_BIMI_RECORD, check=_no_logo("no_aligned_dkim"),
        ),
    )  # fmt: skip


ATTACKS: tuple[Attack, ...] = (
    *_envelope_attacks(),
    *_two_authors(),
    *_other_authors(),
    *_signature_attacks(),
    *_header_attacks(),
    *_cost_attacks(),
    *_logo_attacks(),
    *_arc_attacks(),
)
