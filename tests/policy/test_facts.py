"""What a rule may ask about, and where the answer comes from."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.arc.result import ArcResult, ArcStatus
from authmilter.bimi.result import BimiResult, BimiStatus
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
from authmilter.iprev.result import IprevProblem, IprevResult, IprevStatus
from authmilter.mail import BodyFacts, Mail, Origin
from authmilter.message import AuthorHeader, AuthorProblem, Defect, DefectKind
from authmilter.names import Domain
from authmilter.policy.facts import METHODS, SCHEMA, Facts, Kind, value_of
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from tests.support.policies import a_mail, value

D = Domain.parse
IP = ipaddress.ip_address("192.0.2.1")


def a_signature(
    status: DkimStatus = DkimStatus.PASS, domain: str = "list.example", *covers: str
) -> DkimResult:
    return DkimResult(status=status, domain=D(domain), signed_headers=("from", *covers))


FULL = Evidence(
    iprev=IprevResult(status=IprevStatus.PASS, ip=IP, name="mx.sender.example"),
    spf_helo=SpfResult(status=SpfStatus.NONE, identity=SpfIdentity.HELO, domain=D("h.example"), problem=SpfProblem.NO_RECORD),
    spf=SpfResult(status=SpfStatus.FAIL, identity=SpfIdentity.MAILFROM, domain=D("s.example"), problem=SpfProblem.TARGET, explanation="no", broad=True),
    dkim=(
        DkimResult(status=DkimStatus.FAIL, domain=D("a.example"), problem=DkimProblem.BODY_HASH),
        DkimResult(status=DkimStatus.PASS, domain=D("b.example"), unsigned_critical=("subject", "to")),
        DkimResult(status=DkimStatus.PASS, domain=D("b.example"), unsigned_critical=("to",)),
        DkimResult(status=DkimStatus.NEUTRAL),
    ),
    dmarc=DmarcResult(
        status=DmarcStatus.PASS,
        author=D("sub.b.example"),
        record_at=D("b.example"),
        organizational_domain=D("b.example"),
        policy=DmarcPolicy.QUARANTINE,
        published=DmarcPolicy.REJECT,
        policy_source=PolicySource.SP,
        aligned=(AlignedBy.DKIM,),
        aligned_domains=(D("b.example"),),
        testing=True,
        problem=DmarcProblem.DNS,
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ("iprev.status", "pass"),
        ("iprev.name", "mx.sender.example"),
        ("iprev.problem", None),
        ("spf_helo.status", "none"),
        ("spf_helo.domain", "h.example"),
        ("spf_helo.problem", "no_record"),
        ("spf.status", "fail"),
        ("spf.domain", "s.example"),
        ("spf.problem", "target"),
        ("spf.broad", True),
        ("spf.explanation", "no"),
        ("dkim.status", "pass"),
        ("dkim.statuses", ("fail", "pass", "neutral")),
        ("dkim.problems", ("body_hash",)),
        ("dkim.count", 4),
        ("dkim.domains", ("a.example", "b.example")),
        ("dkim.pass_domains", ("b.example",)),
        ("dkim.unsigned_headers", ("to",)),
        ("dkim.aligned", True),
        ("dmarc.status", "pass"),
        ("dmarc.author", "sub.b.example"),
        ("dmarc.record_at", "b.example"),
        ("dmarc.organizational_domain", "b.example"),
        ("dmarc.policy", "quarantine"),
        ("dmarc.published", "reject"),
        ("dmarc.policy_source", "sp"),
        ("dmarc.aligned", ("dkim",)),
        ("dmarc.aligned_domains", ("b.example",)),
        ("dmarc.testing", True),
        ("dmarc.problem", "dns"),
        ("internal_errors", ()),
    ],
)
def test_facts_of_methods(fact: str, expected: object) -> None:
    assert value(fact, a_mail(), FULL) == expected


def test_a_method_that_was_not_asked_gives_no_value() -> None:
    facts = Facts.of(a_mail(), Evidence())
    assert [
        name for name, fact in SCHEMA.items() if fact.method and facts.get(name) not in {None, False}
    ] == []
    assert facts.get("message.is_list") is False


def test_facts_of_the_session_and_envelope() -> None:
    mail = a_mail(
        ip="::ffff:192.0.2.1",
        name="mx.sender.example",
        rcpt=("<a@x.example>", "<postmaster>", "<b@x.example>"),
    )
    got = {
        name: value(name, mail)
        for name in SCHEMA
        if not SCHEMA[name].method and not name.startswith(("message", "exception"))
    }
    assert got == {
        "origin": "internet",
        "mail.date": "2026-11-22",
        "mail.id": "ABC123",
        "client.ip": IP,
        "client.name": "mx.sender.example",
        "helo": "client.example",
        "helo.kind": "domain",
        "authenticated": False,
        "daemon_name": None,
        "tls": False,
        "tls.version": None,
        "mail_from.kind": "address",
        "mail_from.domain": "sender.example",
        "mail_from.address": "bob@sender.example",
        "rcpt.count": 3,
        "rcpt.addresses": ("a@x.example", "postmaster", "b@x.example"),
        "rcpt.domains": ("x.example",),
        "rcpt.address": None,
        "rcpt.domain": None,
        "internal_errors": (),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "kind", "domain", "address"),
    [
        ("<>", "null", None, None),
        ("<root>", "local_part", None, "root"),
        ("<a@[192.0.2.9]>", "literal", None, "a@[192.0.2.9]"),
        ("<(any@l.example>", "malformed", None, "<(any@l.example>"),
        ("<A@L.example>", "address", "l.example", "A@l.example"),
    ],
)
def test_kinds_of_reverse_path(path: str, kind: str, domain: str | None, address: str | None) -> None:
    mail = a_mail(mail_from=path)
    assert (
        value("mail_from.kind", mail),
        value("mail_from.domain", mail),
        value("mail_from.address", mail),
    ) == (kind, domain, address)


@pytest.mark.parametrize(
    ("helo", "kind", "name"),
    [
        ("mx.example", "domain", "mx.example"),
        ("[192.0.2.1]", "literal", None),
        ("bad_(name", "malformed", None),
        (None, None, None),
    ],
)
def test_kinds_of_helo(helo: str | None, kind: str | None, name: str | None) -> None:
    assert (value("helo.kind", a_mail(helo=helo)), value("helo", a_mail(helo=helo))) == (kind, name)


@pytest.mark.parametrize("name", ["", "unknown", "[192.0.2.1]", "not a name"])
def test_a_client_without_a_confirmed_name_has_none(name: str) -> None:
    assert value("client.name", a_mail(name=name)) is None


def test_facts_of_the_message() -> None:
    author = AuthorHeader(
        fields=2, problem=AuthorProblem.REPEATED_FROM, domains=(D("a.example"), D("b.example"))
    )
    mail = a_mail(
        authors=author,
        defects=(Defect(DefectKind.NUL), Defect(DefectKind.NUL, "subject")),
        body=BodyFacts(size=10, bare_cr=True, bare_lf=True),
        headers=(("From", "x"), ("SUBJECT ", "=?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n again"), ("Subject", "second")),
    )
    assert value("message.author.domain", mail) is None
    assert value("message.author.domains", mail) == ("a.example", "b.example")
    assert value("message.author.problem", mail) == "repeated_from"
    assert value("message.author.count", mail) == 0
    assert value("message.author.addresses", mail) == ()
    assert value("message.defects", mail) == ("nul", "bare_cr", "bare_lf")
    assert value("message.headers", mail) == ("from", "subject")
    assert value("message.subject", mail) == "Grüße again"
    assert value("message.size", mail) == 10 + 2 + len(b"From: x\r\n") + len(
        mail.message.headers[1].raw
    ) + 2 + len(b"Subject: second\r\n")
    assert value("message.author.domain", a_mail()) == "author.example"
    assert value("message.author.addresses", a_mail()) == ("bob@author.example",)
    assert value("message.subject", a_mail()) is None


@pytest.mark.parametrize(
    ("text", "list_id"),
    [
        ('"My <b> list" <l.LIST.example>', "l.list.example"),
        ("l.list.example", "l.list.example"),
        ("<>", None),
        ("", None),
    ],
)
def test_list_id(text: str, list_id: str | None) -> None:
    assert value("message.list_id", a_mail(headers=(("List-ID", text),))) == list_id


LIST = (("List-Id", "News <news.list.example>"),)
POST = (("List-Post", "<mailto:news@list.example?subject=x>"),)


@pytest.mark.parametrize(
    ("headers", "signature", "domain"),
    [
        (LIST, a_signature(DkimStatus.PASS, "list.example", "list-id"), "news.list.example"),
        (LIST, a_signature(DkimStatus.PASS, "news.list.example", "list-id"), "news.list.example"),
        (POST, a_signature(DkimStatus.PASS, "list.example", "list-post"), "list.example"),
        # a signature of somebody else, of a name below, of a top-level domain
        (LIST, a_signature(DkimStatus.PASS, "other.example", "list-id"), None),
        (LIST, a_signature(DkimStatus.PASS, "x.news.list.example", "list-id"), None),
        (LIST, a_signature(DkimStatus.PASS, "example", "list-id"), None),
        # one that does not pass, one that does not cover the field
        (LIST, a_signature(DkimStatus.FAIL, "list.example", "list-id"), None),
        (LIST, a_signature(DkimStatus.POLICY, "list.example", "list-id"), None),
        (LIST, a_signature(DkimStatus.PASS, "list.example", "list-post"), None),
        # two fields, of which the signature may cover the other
        (LIST + LIST, a_signature(DkimStatus.PASS, "list.example", "list-id"), None),
        # nothing that names a domain
        ((("List-Id", "<no domain>"),), a_signature(DkimStatus.PASS, "list.example", "list-id"), None),
        ((("List-Post", "NO"),), a_signature(DkimStatus.PASS, "list.example", "list-post"), None),
        ((), a_signature(DkimStatus.PASS, "list.example", "list-id"), None),
    ],
)
def test_a_list_is_one_only_if_it_signed_its_name(
    headers: tuple[tuple[str, str], ...], signature: DkimResult, domain: str | None
) -> None:
    mail, evidence = a_mail(headers=headers), Evidence(dkim=(signature,))
    assert value("message.list_domain", mail, evidence) == domain
    assert value("message.is_list", mail, evidence) is (domain is not None)


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        ((), "none"),
        (("fail", "temperror"), "temperror"),
        (("neutral", "permerror"), "permerror"),
        (("permerror", "fail", "policy"), "policy"),
        (("temperror", "internal_error"), "internal_error"),
        (("internal_error", "pass"), "pass"),
    ],
)
def test_the_dkim_status_of_several_signatures(statuses: tuple[str, ...], word: str) -> None:
    evidence = Evidence(dkim=tuple(DkimResult(status=DkimStatus(s)) for s in statuses))
    assert value("dkim.status", a_mail(), evidence) == word


def test_internal_errors_name_their_methods() -> None:
    evidence = Evidence(
        iprev=IprevResult(status=IprevStatus.INTERNAL_ERROR, ip=IP, problem=IprevProblem.INTERNAL),
        spf_helo=SpfResult(status=SpfStatus.INTERNAL_ERROR, identity=SpfIdentity.HELO),
        spf=SpfResult(status=SpfStatus.INTERNAL_ERROR, identity=SpfIdentity.MAILFROM),
        dkim=(a_signature(), DkimResult(status=DkimStatus.INTERNAL_ERROR)),
        arc=ArcResult(status=ArcStatus.INTERNAL_ERROR),
        dmarc=DmarcResult(status=DmarcStatus.INTERNAL_ERROR),
        bimi=BimiResult(status=BimiStatus.INTERNAL_ERROR),
    )
    assert value("internal_errors", a_mail(), evidence) == METHODS


def test_every_origin_is_a_word() -> None:
    assert SCHEMA["origin"].words == tuple(str(o) for o in Origin)
    assert value("origin", a_mail(origin=Origin.TRUSTED_RELAY)) == "trusted_relay"


def test_facts_given_by_name_are_held_to_their_types() -> None:
    facts = Facts.from_mapping(
        {
            "spf.status": "passs",
            "client.ip": "::ffff:192.0.2.1",
            "mail_from.domain": "BÜCHER.example.",
            "rcpt.addresses": "a@b.example",
            "dkim.pass_domains": ["A.example", "not a domain"],
            "rcpt.count": True,
            "tls": "yes",
            "message.subject": "",
            "nothing": 1,
        }
    )
    got = {n: facts.get(n) for n in ("spf.status", "client.ip", "mail_from.domain", "rcpt.addresses")}
    assert got == {
        "spf.status": None,
        "client.ip": IP,
        "mail_from.domain": "xn--bcher-kva.example",
        "rcpt.addresses": ("a@b.example",),
    }
    assert [
        facts.get(n) for n in ("dkim.pass_domains", "rcpt.count", "tls", "message.subject", "nothing")
    ] == [None] * 5


def test_the_schema_is_whole() -> None:
    assert len(SCHEMA) == 85
    for name, fact in SCHEMA.items():
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+){0,2}", name)
        assert fact.doc.endswith(".")
        assert "|" not in fact.doc
        assert bool(fact.words) is (fact.kind is Kind.WORD)
        assert fact.method in {"", *METHODS}
        assert fact.type_text


def test_what_a_stranger_wrote_is_bounded() -> None:
    mail = a_mail(
        headers=(("Subject", "x" * 100_000), ("List-Id", "y" * 100_000)),
        mail_from="<" + "z" * 5000 + "@s.example>",
        rcpt=tuple(f"<u{i}@d{i}.example>" for i in range(3000)),
    )
    for name in SCHEMA:
        got = value(name, mail)
        assert not isinstance(got, str) or len(got) <= 1024
        assert not isinstance(got, tuple) or len(got) <= 1000


_TEXT = st.text(max_size=30) | st.sampled_from(
    ["=?utf-8?b?!!?=", "=?idna?q?=ff?=", "=?zlib?b?AAAA?=", "<mailto:a@b>", "<a.example>"]
)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(["Subject", "List-Id", "List-Post", "x"]), _TEXT), max_size=4),
    _TEXT,
    st.lists(_TEXT, max_size=3),
    _TEXT,
)
def test_facts_are_total(headers: list[tuple[str, str]], path: str, rcpt: list[str], helo: str) -> None:
    clean = tuple(
        (n, v.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")) for n, v in headers
    )
    mail: Mail = a_mail(headers=clean, mail_from=path, rcpt=tuple(rcpt), helo=helo, name=helo)
    facts = Facts.of(mail, FULL)
    for name, fact in SCHEMA.items():
        got = facts.get(name)
        if got is not None:
            assert value_of(fact, got) == got or fact.kind in {Kind.TEXT, Kind.IP}
