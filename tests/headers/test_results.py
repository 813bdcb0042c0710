"""Our Authentication-Results and Received-SPF fields: what they say, and that no text can make them say more."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import (
    DmarcPolicy,
    DmarcProblem,
    DmarcRecord,
    DmarcResult,
    DmarcStatus,
)
from authmilter.evidence import Evidence
from authmilter.headers import foreign, results
from authmilter.headers.foreign import ForeignResults, Unparsable
from authmilter.headers.results import (
    MAX_VALUE,
    authentication_results,
    comment,
    phrase,
    pvalue,
    received_spf,
)
from authmilter.headers.settings import HeaderSettings
from authmilter.iprev.result import IprevProblem, IprevResult, IprevStatus
from authmilter.mail import Mail, Origin
from authmilter.names import AddressLiteral, Domain, Malformed, NullPath, parse_helo
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from authmilter.verdict import Disposition
from tests.headers.helpers import OUR_ID, Clause, a_mail, some_evidence, strict_read, unfold

QUIET = HeaderSettings(authserv_id=OUR_ID, comments=False)
CHATTY = HeaderSettings(authserv_id=OUR_ID, comments=True)


def written(evidence: Evidence, mail: Mail | None = None, how: HeaderSettings = QUIET) -> str:
    return unfold(authentication_results(OUR_ID, evidence, mail or a_mail(), how))


def spf(
    status: SpfStatus = SpfStatus.PASS, domain: str | None = "sender.example", **more: object
) -> SpfResult:
    result = SpfResult(
        status=status, identity=SpfIdentity.MAILFROM, domain=Domain(domain) if domain is not None else None
    )
    return replace(result, **more)  # type: ignore[arg-type]  # a test's own field values


def helo(status: SpfStatus = SpfStatus.PASS, domain: str = "mail.sender.example") -> SpfResult:
    return SpfResult(status=status, identity=SpfIdentity.HELO, domain=Domain(domain))


# -- what is said ------------------------------------------------------------------------------------------------


def test_one_field_with_all_results_each_on_its_line() -> None:
    value = authentication_results(OUR_ID, some_evidence(), a_mail(), QUIET)
    assert value == (
        b"mx.our.example;\r\n"
        b" iprev=pass policy.iprev=192.0.2.1;\r\n"
        b" spf=pass smtp.helo=mail.sender.example;\r\n"
        b" spf=pass smtp.mailfrom=sender.example;\r\n"
        b" dkim=pass header.d=sender.example header.s=s1 header.a=rsa-sha256\r\n"
        b' header.b="Kd8a/x3=";\r\n'
        b" dmarc=pass header.from=sender.example policy.dmarc=reject"
    )


def test_comments_are_a_setting() -> None:
    value = authentication_results(OUR_ID, some_evidence(), a_mail(), CHATTY, Disposition.QUARANTINE)
    text = unfold(value)
    assert "iprev=pass policy.iprev=192.0.2.1 (mail.sender.example)" in text
    assert "dkim=pass (2048-bit key) header.d=" in text
    assert "dmarc=pass (p=reject dis=quarantine) header.from=" in text
    assert strict_read(value) == strict_read(authentication_results(OUR_ID, some_evidence(), a_mail(), QUIET))


def test_dmarc_comment_names_every_policy_tag_there_is() -> None:
    record = DmarcRecord(p=DmarcPolicy.REJECT, sp=DmarcPolicy.NONE, np=DmarcPolicy.QUARANTINE, testing=True)
    dmarc = DmarcResult(status=DmarcStatus.FAIL, author=Domain("a.example"), record=record)
    text = unfold(authentication_results(OUR_ID, Evidence(dmarc=dmarc), a_mail(), CHATTY, Disposition.ACCEPT))
    assert "(p=reject sp=none np=quarantine t=y dis=none)" in text
    missing = replace(dmarc, record=DmarcRecord())
    assert "(p=none)" in written(Evidence(dmarc=missing), how=CHATTY)


def test_nothing_checked_says_none() -> None:
    assert written(Evidence()) == "mx.our.example; none"  # RFC 8601 §2.2


def test_an_authenticated_sender_is_named_and_can_be_hidden() -> None:
    mail = a_mail(origin=Origin.SUBMISSION, authenticated="joe@our.example")
    assert written(Evidence(), mail) == "mx.our.example; auth=pass smtp.auth=joe@our.example"
    hidden = HeaderSettings(authserv_id=OUR_ID, show_login=False)
    assert written(Evidence(), mail, hidden) == "mx.our.example; auth=pass"


def test_a_login_on_other_mail_is_not_called_authentication() -> None:
    assert "auth=" not in written(Evidence(), a_mail(origin=Origin.INTERNET, authenticated="joe"))


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ("joe", "joe"),
        ("joe smith", '"joe smith"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ('"a b"@our.example', '"a b"@our.example'),
        ("joe@localhost", '"joe@localhost"'),
        ("DOM\\joe", '"DOM\\\\joe"'),
        ("", '""'),
        ("a;b", '"a;b"'),
        ("joe@our.example; dmarc=pass", '"joe@our.example; dmarc=pass"'),
    ],
)
def test_logins_are_tokens_addresses_or_quoted(login: str, expected: str) -> None:
    mail = a_mail(origin=Origin.SUBMISSION, authenticated=login)
    assert written(Evidence(), mail) == f"mx.our.example; auth=pass smtp.auth={expected}"


@pytest.mark.parametrize(
    "login", ["a\r\nX: y", "a\0b", "a\x1bb", "a\udcffb", "a\u202eb", "jos\u00e9", "x" * 321]
)
def test_a_login_that_cannot_be_written_is_left_out(login: str) -> None:
    assert (
        written(Evidence(), a_mail(origin=Origin.SUBMISSION, authenticated=login))
        == "mx.our.example; auth=pass"
    )


def test_non_ascii_text_is_written_in_internationalised_messages_only() -> None:
    mail = a_mail(origin=Origin.SUBMISSION, authenticated="jos\u00e9", options=("SMTPUTF8",))
    assert written(Evidence(), mail) == 'mx.our.example; auth=pass smtp.auth="jos\u00e9"'


def test_ipv6_is_quoted() -> None:
    iprev = IprevResult(status=IprevStatus.FAIL, ip=ip_address("2001:db8::1"), problem=IprevProblem.NO_MATCH)
    assert written(Evidence(iprev=iprev)) == (
        'mx.our.example; iprev=fail reason=no_match policy.iprev="2001:db8::1"'
    )


def test_spf_shows_both_identities_where_both_have_something_to_say() -> None:
    both = Evidence(spf=spf(SpfStatus.FAIL), spf_helo=helo(SpfStatus.NEUTRAL))
    assert written(both) == (
        "mx.our.example; spf=neutral smtp.helo=mail.sender.example; spf=fail smtp.mailfrom=sender.example"
    )
    for nothing in (SpfStatus.NONE, SpfStatus.INTERNAL_ERROR):
        one = Evidence(spf=spf(), spf_helo=helo(nothing))
        assert written(one) == "mx.our.example; spf=pass smtp.mailfrom=sender.example"


def test_a_helo_pass_does_not_hide_that_mail_from_has_none() -> None:
    """attacks.md 1: the HELO of an attacker passes, the domain of MAIL FROM does not exist."""
    evidence = Evidence(
        spf=spf(SpfStatus.NONE, "any.notexist.example", problem=SpfProblem.NO_RECORD), spf_helo=helo()
    )
    assert written(evidence) == (
        "mx.our.example; spf=pass smtp.helo=mail.sender.example;"
        " spf=none reason=no_record smtp.mailfrom=any.notexist.example"
    )


def test_the_null_path_shows_helo_once() -> None:
    """attacks.md 3."""
    mail = a_mail(mail_from="<>")
    evidence = Evidence(spf=spf(domain="helo.attack.example"), spf_helo=helo(domain="helo.attack.example"))
    assert written(evidence, mail) == "mx.our.example; spf=pass smtp.helo=helo.attack.example"
    only_helo = Evidence(spf=spf(SpfStatus.INTERNAL_ERROR), spf_helo=helo(SpfStatus.FAIL))
    assert written(only_helo, mail) == "mx.our.example; spf=fail smtp.helo=mail.sender.example"


def test_spf_shows_no_local_part_and_no_text_of_others() -> None:
    evidence = Evidence(spf=spf(SpfStatus.FAIL, local="joe", explanation="see http://x", mechanism="-all"))
    assert written(evidence) == "mx.our.example; spf=fail smtp.mailfrom=sender.example"


def test_a_path_that_is_no_address_shows_no_domain() -> None:
    """attacks.md 7: MAIL FROM any@legitimate.com(a.attack.com is no address of legitimate.com."""
    mail = a_mail(mail_from="<any@legitimate.com(a.attack.com>")
    assert isinstance(mail.envelope.mail_from, Malformed)
    evidence = Evidence(spf=spf(SpfStatus.NONE, None, problem=SpfProblem.MALFORMED_PATH))
    assert written(evidence, mail) == "mx.our.example; spf=none reason=malformed_path"


def test_unsigned_mail_is_dkim_none() -> None:
    assert written(Evidence(dkim=())) == "mx.our.example; dkim=none"


def test_each_signature_has_its_clause() -> None:
    good = DkimResult(
        status=DkimStatus.PASS,
        domain=Domain("a.example"),
        selector="s",
        algorithm="ed25519-sha256",
        signature_start="abcd1234",
        identity="@a.example",
    )
    sub = replace(good, identity="@sub.a.example")
    user = replace(good, identity="joe@a.example")
    bad = replace(user, status=DkimStatus.FAIL, problem=DkimProblem.BODY_HASH)
    text = written(Evidence(dkim=(good, sub, user, bad)))
    rest = "header.s=s header.a=ed25519-sha256 header.b=abcd1234"
    assert text == (
        f"mx.our.example; dkim=pass header.d=a.example {rest};"
        f" dkim=pass header.d=a.example header.i=@sub.a.example {rest};"
        f" dkim=pass header.d=a.example header.i=joe@a.example {rest};"
        f" dkim=fail reason=body_hash header.d=a.example {rest}"
    )


def test_a_signature_without_a_domain_shows_nothing_of_its_text() -> None:
    """attacks.md 4, 5, 6: a d= that is no domain."""
    bad = DkimResult(
        status=DkimStatus.PERMERROR,
        selector="x; dmarc=pass",
        identity="legitimate.com'a.attack.com",
        algorithm="rsa-sha256",
        problem=DkimProblem.BAD_DOMAIN,
    )
    assert written(Evidence(dkim=(bad,))) == "mx.our.example; dkim=permerror reason=bad_domain"


def test_our_own_errors_have_no_clause() -> None:
    evidence = Evidence(
        iprev=IprevResult(status=IprevStatus.INTERNAL_ERROR, ip=ip_address("192.0.2.1")),
        spf=spf(SpfStatus.INTERNAL_ERROR),
        spf_helo=helo(SpfStatus.INTERNAL_ERROR),
        dkim=(DkimResult(status=DkimStatus.INTERNAL_ERROR, problem=DkimProblem.INTERNAL),),
        dmarc=DmarcResult(status=DmarcStatus.INTERNAL_ERROR, problem=DmarcProblem.INTERNAL),
    )
    assert written(evidence) == "mx.our.example; none"


def test_several_authors_have_no_header_from() -> None:
    dmarc = DmarcResult(
        status=DmarcStatus.PERMERROR,
        author=Domain("a.example"),
        authors=(Domain("a.example"), Domain("b.example")),
        problem=DmarcProblem.SEVERAL_AUTHOR_DOMAINS,
    )
    assert written(Evidence(dmarc=dmarc)) == "mx.our.example; dmarc=permerror reason=several_author_domains"


@pytest.mark.parametrize(
    ("written_id", "options", "expected"),
    [
        ("mx.our.example", (), "mx.our.example"),
        ("a b", (), '"a b"'),
        ("", (), "localhost"),
        ("a\r\nb", (), "localhost"),
        ("b\u00fccher.example", (), "xn--bcher-kva.example"),
        ("b\u00fccher.example", ("SMTPUTF8",), "b\u00fccher.example"),
        ("x" * 400, (), "localhost"),
    ],
)
def test_our_own_name_is_written_as_a_value(written_id: str, options: tuple[str, ...], expected: str) -> None:
    value = authentication_results(written_id, Evidence(), a_mail(options=options), QUIET)
    assert value.decode() == f"{expected}; none"


# -- that no text makes it say more ---------------------------------------------------------------------------------

NASTY = (
    "a@b.example; dmarc=pass header.from=paypal.com",
    "legitimate.com(a.attack.com",
    "legitimate.com'a.attack.com",
    'x" ; dmarc=pass (',
    "x)\r\n dmarc=pass",
    "x\nAuthentication-Results: mx.our.example; dmarc=pass",
    "x\\",
    'x\\"',
    "sel._domainkey.attack.com.\0.any",
    "a\udcff\u202eb\u2028c",
    "none",
    "reason=x",
    "",
)
texts = (
    st.sampled_from(NASTY)
    | st.text(
        st.sampled_from('ab1;=()"\\@.,<>[]: /?%\t\r\n\0\x7f\x85\u00e9\u200b\u202e\u2028\udcff\U0001f600'),
        max_size=24,
    )
    | st.text(st.characters(), max_size=40)
    | st.integers(300, 700).map(lambda n: "y" * n)
)
domains = st.none() | texts.map(Domain)
paths = (
    st.just(NullPath())
    | texts.map(lambda t: Malformed(t, "x"))
    | texts.map(lambda t: AddressLiteral(t, ip_address("2001:db8::1")))
)


def results_of(kind: type[object], **fields: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.builds(kind, **fields)


spf_results = st.builds(
    SpfResult,
    status=st.sampled_from(SpfStatus),
    identity=st.sampled_from(SpfIdentity),
    domain=domains,
    local=texts,
    mechanism=texts,
    problem=st.none() | st.sampled_from(SpfProblem),
    detail=texts,
    explanation=texts,
)
dkim_results = st.builds(
    DkimResult,
    status=st.sampled_from(DkimStatus),
    domain=domains,
    selector=texts,
    identity=texts,
    algorithm=texts,
    key_bits=st.sampled_from([0, 256, 2048]),
    testing=st.booleans(),
    signature_start=texts,
    problem=st.none() | st.sampled_from(DkimProblem),
    detail=texts,
)
dmarc_results = st.builds(
    DmarcResult,
    status=st.sampled_from(DmarcStatus),
    author=domains,
    authors=st.lists(texts.map(Domain), max_size=2).map(tuple),
    record=st.none() | st.just(DmarcRecord(p=DmarcPolicy.REJECT)),
    policy=st.none() | st.sampled_from(DmarcPolicy),
    problem=st.none() | st.sampled_from(DmarcProblem),
    detail=texts,
)
iprev_results = st.builds(
    IprevResult,
    status=st.sampled_from(IprevStatus),
    ip=st.ip_addresses(),
    name=texts,
    problem=st.none() | st.sampled_from(IprevProblem),
    detail=texts,
)
evidences = st.builds(
    Evidence,
    iprev=st.none() | iprev_results,
    spf_helo=st.none() | spf_results,
    spf=st.none() | spf_results,
    dkim=st.none() | st.lists(dkim_results, max_size=2).map(tuple),
    dmarc=st.none() | dmarc_results,
)


def writable(text: str, *, utf8: bool) -> bool:
    """What a value may hold, in other words than the code's."""
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or not c.isprintable() for c in text):
        return False
    return len(text.encode()) <= MAX_VALUE and (utf8 or all(ord(c) < 127 for c in text))


def expected(evidence: Evidence, mail: Mail) -> list[Clause]:
    """The clauses that are to be read back."""
    utf8 = mail.envelope.smtputf8

    def props(*pairs: tuple[str, str | None]) -> tuple[tuple[str, str], ...]:
        return tuple((n, t) for n, t in pairs if t is not None and writable(t, utf8=utf8))

    def domain(name: Domain | None) -> str | None:
        return None if name is None or not name.ascii.isascii() else name.ascii

    def why(problem: object) -> str | None:
        return None if problem is None else str(problem)

    out: list[Clause] = []
    login = mail.session.authenticated
    if mail.origin is Origin.SUBMISSION and login is not None:
        out.append(Clause("auth", "pass", None, props(("smtp.auth", login))))
    if (i := evidence.iprev) and i.status != "internal_error":
        out.append(Clause("iprev", i.status, why(i.problem), props(("policy.iprev", str(i.ip)))))
    null = mail.envelope.mail_from == NullPath()
    known = evidence.spf is not None and evidence.spf.status != "internal_error"
    h = evidence.spf_helo
    if h is not None and h.status not in {"none", "internal_error"} and not (known and null):
        out.append(Clause("spf", h.status, why(h.problem), props(("smtp.helo", domain(h.domain)))))
    if evidence.spf is not None and known:
        name = "smtp.helo" if null else "smtp.mailfrom"
        s = evidence.spf
        out.append(Clause("spf", s.status, why(s.problem), props((name, domain(s.domain)))))
    if evidence.dkim == ():
        out.append(Clause("dkim", "none", None, ()))
    for k in evidence.dkim or ():
        if k.status == "internal_error":
            continue
        d = domain(k.domain)
        signer: list[tuple[str, str | None]] = []
        if k.domain is not None and d is not None and writable(d, utf8=False):
            shows_i = k.status == "pass" and k.identity not in {"", "@" + d}
            signer = [
                ("header.d", d),
                ("header.i", k.identity if shows_i else None),
                ("header.s", k.selector or None),
                ("header.a", k.algorithm or None),
            ]
        out.append(
            Clause("dkim", k.status, why(k.problem), props(*signer, ("header.b", k.signature_start or None)))
        )
    if (m := evidence.dmarc) and m.status != "internal_error":
        author = domain(m.author) if len(m.authors) < 2 else None
        policy = None if m.policy is None else str(m.policy)
        out.append(
            Clause(
                "dmarc", m.status, why(m.problem), props(("header.from", author), ("policy.dmarc", policy))
            )
        )
    return out


@settings(max_examples=600, deadline=None)
@given(evidence=evidences, login=st.none() | texts, path=paths, utf8=st.booleans(), comments=st.booleans())
@example(  # attacks.md 42
    evidence=Evidence(
        spf=SpfResult(
            status=SpfStatus.FAIL,
            identity=SpfIdentity.MAILFROM,
            domain=Domain("b.example; dmarc=pass header.from=paypal.com"),
        )
    ),
    login="a@b; dmarc=pass header.from=legitimate.com",
    path=Malformed("a@b; dmarc=pass", "x"),
    utf8=False,
    comments=True,
)
def test_whatever_goes_in_the_field_says_exactly_its_clauses(
    *,
    evidence: Evidence,
    login: str | None,
    path: NullPath | Malformed | AddressLiteral,
    utf8: bool,
    comments: bool,
) -> None:
    mail = a_mail(
        mail_from=path,
        options=("SMTPUTF8",) if utf8 else (),
        origin=Origin.SUBMISSION,
        authenticated=login,
    )
    how = HeaderSettings(authserv_id=OUR_ID, comments=comments)
    value = authentication_results(OUR_ID, evidence, mail, how, Disposition.ACCEPT)
    clauses = expected(evidence, mail)
    # a strict reader, written apart
    assert strict_read(value) == (OUR_ID, clauses)
    # the reader that decides what is stripped
    assert foreign.authserv_id_of(value) == OUR_ID
    assert foreign.fault_of(value) is None
    # and authres, which reads no UTF-8
    read = foreign.read(value)
    if value.isascii():
        assert isinstance(read, ForeignResults)
        found = [
            Clause(
                r.method,
                r.result,
                r.reason or None,
                tuple((f"{p.ptype}.{p.name}", p.value) for p in r.properties),
            )
            for r in read.results
        ]
        assert found == clauses
    else:
        assert utf8
        assert isinstance(read, Unparsable | ForeignResults)


@settings(max_examples=300)
@given(text=texts, utf8=st.booleans())
def test_a_pvalue_is_one_value_or_nothing(*, text: str, utf8: bool) -> None:
    value = pvalue(text, utf8)
    assert (value is not None) == writable(text, utf8=utf8)
    if value is not None:
        assert strict_read(f"id; dkim=pass header.s={value}; spf=none".encode()) == (
            "id",
            [Clause("dkim", "pass", None, (("header.s", text),)), Clause("spf", "none", None, ())],
        )


@settings(max_examples=200)
@given(text=texts)
def test_a_comment_ends_where_it_should(text: str) -> None:
    value = comment(text)
    if value is not None:
        assert strict_read(f"id; dkim=pass {value}; spf=none".encode())[1] == [
            Clause("dkim", "pass", None, ()),
            Clause("spf", "none", None, ()),
        ]


def test_values_are_bare_where_they_may_be() -> None:
    bare = [
        "example.com",
        "rsa-sha256",
        "@example.com",
        "joe@example.com",
        "a/b=c@example.com",
        '"a b"@example.com',
    ]
    assert [pvalue(t) for t in bare] == bare
    assert [pvalue(t) for t in ("2001:db8::1", "a/b=", "https://x", "a@b")] == [
        '"2001:db8::1"',
        '"a/b="',
        '"https://x"',
        '"a@b"',
    ]
    assert phrase("a@b") == '"a@b"'


# -- length ------------------------------------------------------------------------------------------------------


def test_lines_stay_under_78_columns_where_words_allow() -> None:
    many = DkimResult(
        status=DkimStatus.PASS,
        domain=Domain("a-rather-long-domain-name-of-a-sender.example"),
        selector="a-rather-long-selector-20261122",
        identity="@mail.a-rather-long-domain-name-of-a-sender.example",
        algorithm="rsa-sha256",
        signature_start="abcdefgh",
    )
    value = authentication_results(OUR_ID, Evidence(dkim=(many,) * 10), a_mail(), CHATTY)
    lines = ("Authentication-Results: " + value.decode()).split("\r\n")
    assert len(lines) == 41
    assert max(map(len, lines)) < 78


def test_the_longest_words_stay_under_998_octets() -> None:
    worst = '"' * MAX_VALUE
    wide = "\U0001f600" * (MAX_VALUE // 4)
    result = DkimResult(
        status=DkimStatus.PASS, domain=Domain("a.example"), selector=worst, identity=wide, algorithm=worst
    )
    value = authentication_results(OUR_ID, Evidence(dkim=(result,)), a_mail(options=("SMTPUTF8",)), CHATTY)
    assert max(len(line) for line in value.split(b"\r\n")) == len(f' header.s="{worst}{worst}"')
    assert dict(strict_read(value)[1][0].properties)["header.i"] == wide


# -- Received-SPF ------------------------------------------------------------------------------------------------

_RSPF_COMMENT = r"(?: \((?:[ !-'*-\[\]-~]|\\[ -~])*\))?"
_RSPF_VALUE = r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+|\"((?:[ !#-\[\]-~]|[^\x00-\x9f]|\\[ -~])*)\")"


def read_received_spf(value: bytes) -> tuple[str, dict[str, str]]:
    """RFC 7208 §9.1, strictly."""
    text = unfold(value, "Received-SPF")
    head = re.match(rf"(pass|fail|softfail|neutral|none|temperror|permerror){_RSPF_COMMENT}(?= )", text)
    assert head, text
    at, pairs = head.end(), {}
    while at < len(text):
        pair = re.compile(rf" ([a-z-]+)=({_RSPF_VALUE})(;|$)").match(text, at)
        assert pair, text[at:]
        quoted = pair.group(3)
        assert pair.group(1) not in pairs
        pairs[pair.group(1)] = pair.group(2) if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = pair.end()
    return head.group(1), pairs


def test_received_spf_says_who_asked_what() -> None:
    mail = a_mail(helo=parse_helo("mail.sender.example"), ip="2001:db8::1")
    value = received_spf(spf(mechanism="include:_spf.sender.example"), mail, CHATTY, OUR_ID)
    assert value is not None
    assert read_received_spf(value) == (
        "pass",
        {
            "identity": "mailfrom",
            "client-ip": "2001:db8::1",
            "helo": "mail.sender.example",
            "envelope-from": "joe@sender.example",
            "receiver": "mx.our.example",
            "mechanism": "include:_spf.sender.example",
        },
    )
    assert b"(mx.our.example: domain permits the client)" in value


def test_received_spf_of_helo_and_the_null_path() -> None:
    value = received_spf(
        replace(helo(SpfStatus.PERMERROR), problem=SpfProblem.SYNTAX),
        a_mail(mail_from="<>", ip=None),
        QUIET,
        OUR_ID,
    )
    assert value == b'permerror identity=helo; envelope-from="";\r\n receiver=mx.our.example; problem=syntax'


def test_received_spf_is_not_written_for_our_own_error() -> None:
    assert received_spf(spf(SpfStatus.INTERNAL_ERROR), a_mail(), QUIET, OUR_ID) is None


@settings(max_examples=300, deadline=None)
@given(result=spf_results, sender=texts, said=texts, utf8=st.booleans(), comments=st.booleans())
@example(  # attacks.md 43
    result=SpfResult(status=SpfStatus.FAIL, identity=SpfIdentity.MAILFROM, mechanism='x" y'),
    sender='a"; receiver=evil\r\nX: y',
    said="x\r\nX: y",
    utf8=False,
    comments=True,
)
def test_whatever_goes_in_received_spf_is_one_field(
    *, result: SpfResult, sender: str, said: str, utf8: bool, comments: bool
) -> None:
    mail = a_mail(
        mail_from=Malformed(sender, "x"), helo=Malformed(said, "x"), options=("SMTPUTF8",) if utf8 else ()
    )
    value = received_spf(result, mail, HeaderSettings(comments=comments), OUR_ID)
    if value is None:
        assert result.status is SpfStatus.INTERNAL_ERROR
        return
    status, pairs = read_received_spf(value)
    assert status == result.status
    for key, text in (("envelope-from", sender), ("helo", said)):
        assert pairs.get(key) == (text if writable(text, utf8=utf8) else None)
    assert pairs["receiver"] == OUR_ID


# -- what is kept as written --------------------------------------------------------------------------------------


def a_signature(**more: object) -> DkimResult:
    result = DkimResult(
        status=DkimStatus.PASS,
        domain=Domain("kept.example"),
        selector="s1",
        identity="@kept.example",
        algorithm="rsa-sha256",
        key_bits=2048,
        signature_start="AbCd1234",
    )
    return replace(result, **more)  # type: ignore[arg-type]  # a test's own field values


def test_a_clause_that_was_kept_is_not_written_under_other_settings_or_for_another_result() -> None:
    dmarc = DmarcResult(
        status=DmarcStatus.PASS, author=Domain("kept.example"), record=DmarcRecord(p=DmarcPolicy.REJECT)
    )
    iprev = IprevResult(status=IprevStatus.PASS, ip=ip_address("192.0.2.9"), name="kept.example")
    evidence = Evidence(iprev=iprev, spf=spf(), dkim=(a_signature(),), dmarc=dmarc)
    first = [written(evidence, how=how) for how in (CHATTY, QUIET, CHATTY, QUIET)]
    assert first[:2] == first[2:]
    for said in ("(kept.example)", "(2048-bit key)", "(p=reject)"):
        assert (said in first[0], said in first[1]) == (True, False)
    others = Evidence(
        iprev=replace(iprev, status=IprevStatus.FAIL, problem=IprevProblem.NO_MATCH),
        spf=spf(SpfStatus.FAIL),
        dkim=(a_signature(status=DkimStatus.FAIL, problem=DkimProblem.BODY_HASH, testing=True),),
        dmarc=replace(dmarc, status=DmarcStatus.FAIL, record=DmarcRecord(p=DmarcPolicy.NONE, testing=True)),
    )
    text = written(others, how=CHATTY)
    for said in (
        "iprev=fail reason=no_match",
        "spf=fail",
        "dkim=fail (2048-bit key, testing) reason=body_hash",
    ):
        assert said in text
    assert "dmarc=fail (p=none t=y)" in text
    rejected = authentication_results(OUR_ID, evidence, a_mail(), CHATTY, Disposition.REJECT)
    assert b"(p=reject dis=reject)" in rejected


def test_what_belongs_to_one_message_fills_no_memory() -> None:
    def keep(number: int) -> None:
        per_message = a_signature(signature_start=f"b{number:07d}", identity=f"user{number}@kept.example")
        long = a_signature(status=DkimStatus.PERMERROR, selector="s" * 400 + str(number), algorithm="a" * 400)
        path = spf(local=f"user{number}", detail=f"detail {number}", explanation=f"user{number} may not")
        text = written(Evidence(spf=path, dkim=(per_message, long)))
        assert f"header.i=user{number}@kept.example" in text
        assert f"header.b=b{number:07d}" in text

    def kept() -> int:
        return results._dkim.cache_info().currsize + results._spf.cache_info().currsize

    keep(0)
    before = kept()
    for number in range(1, 50):
        keep(number)
    assert kept() == before


@pytest.mark.parametrize("length", range(1, 80))
def test_what_follows_a_kept_beginning_is_folded_as_if_all_were_written_at_once(length: int) -> None:
    value = authentication_results(
        OUR_ID, Evidence(dkim=(a_signature(selector="s" * length),)), a_mail(), CHATTY
    ).decode()
    clause = value.partition(";\r\n ")[2]
    words = [
        "dkim=pass", "(2048-bit key)", "header.d=kept.example", f"header.s={'s' * length}",
        "header.a=rsa-sha256", "header.b=AbCd1234",
    ]  # fmt: skip
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= 75:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    assert clause == "\r\n ".join(lines)
