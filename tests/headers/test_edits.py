"""What a verdict changes in a header block: forged fields out, ours in, tags, Subject, hold."""

from __future__ import annotations

import time
from dataclasses import replace
from email.header import decode_header, make_header

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authmilter.evidence import Evidence
from authmilter.headers.edits import HeaderSettings, Plan, claims_us, own_ids, plan, with_prefix
from authmilter.headers.foreign import Unparsable, authserv_id_of
from authmilter.headers.settings import removal
from authmilter.mail import Origin
from authmilter.message import Message
from authmilter.names import Domain
from authmilter.spf.result import SpfIdentity, SpfResult, SpfStatus
from authmilter.verdict import (
    ChangeHeader,
    Decision,
    DeleteHeader,
    Disposition,
    Edit,
    InsertHeader,
    Quarantine,
    SubjectPrefix,
    Tag,
    TagHeader,
)
from tests.headers.helpers import OUR_ID, a_decision, a_mail, applied, shown, some_evidence

AR = b"Authentication-Results"
OURS = HeaderSettings(authserv_id=OUR_ID)
FORGED = b" mx.our.example; dmarc=pass header.from=paypal.com"
FOREIGN = b" mx.google.example; dmarc=pass header.from=paypal.com"

Field = tuple[bytes, bytes]


def planned(
    *headers: Field,
    origin: Origin = Origin.INTERNET,
    how: HeaderSettings = OURS,
    tags: tuple[Tag, ...] = (),
    evidence: Evidence | None = None,
    options: tuple[str, ...] = (),
) -> Plan:
    mail = a_mail(*headers, origin=origin, options=options)
    decision = replace(a_decision(), tags=tags)
    return plan(mail, Evidence() if evidence is None else evidence, decision, how)


def after(*headers: Field, edits: tuple[Edit, ...]) -> list[str]:
    """The header block afterwards, as `Name:value` text."""
    return [(n + b":" + v).decode("utf-8", "replace") for n, v in applied(headers, edits)]


# -- forged Authentication-Results (RFC 8601 §5; attacks.md 41; standards.md §8.3, §11) --------------------------------

VARIANTS = [
    FORGED,
    b"mx.our.example;dmarc=pass",
    b" MX.Our.EXAMPLE; dmarc=pass",
    b' (x) "Mx.our.EXAMPLE" 1 (y); spf=pass',
    b" (x (y)) mx.our.example; dmarc=pass",
    b" mx.our.example (c) ; dmarc=pass",
    b" mx.our.example 1; dmarc=pass",
    b" mx.our.example 2; dmarc=pass",
    b"\r\n\tmx.our.example;\r\n\tdmarc=pass",
    b"\n mx.our.example;\n dmarc=pass",
    b' "mx.our.example"; dmarc=pass',
    b' "mx\\.our.ex\\ample"; dmarc=pass',
    b' "mx.our\r\n .example"; dmarc=pass',
    b' " mx.our.example "; dmarc=pass',
    b" mx.our.example.; dmarc=pass",
    b" mx.our.example",
    b" mx.our.example; none",
    "\uff4d\uff58.our.example; dmarc=pass".encode(),
    "mx\u3002our\uff0eexample; dmarc=pass".encode(),
    "mx.our.exa\u200bmple; dmarc=pass".encode(),
    "mx.our.exa\u00admple; dmarc=pass".encode(),
    # who wrote it cannot be told
    b"",
    b" ; dmarc=pass",
    b" dmarc=pass header.from=paypal.com",
    b" mx.our.example dmarc=pass",
    b" mx.our.example/x; dmarc=pass",
    b" other.example 7; dmarc=pass",
    b" (mx.our.example; dmarc=pass",
    b" ((((((mx)))))) x.example; dmarc=pass",
    b" =?utf-8?q?mx.our.example?=; dmarc=pass",
    b" \0mx.our.example; dmarc=pass",
    b" mx.our.example\0; dmarc=pass",
    b"\rmx.our.example; dmarc=pass",
    b" \xff.example; dmarc=pass",
    # the rest cannot be read, and we stand in it
    b" other.example; x=y (mx.our.example; dmarc=pass",
    b' other.example; x="y; mx.our.example; dmarc=pass',
    b" other.example; x=y\r mx.our.example; dmarc=pass",
    b" other.example; MX.our.example; dmarc=pass",
    b" other.example; x=y\0; z=mx.our.example",
    b' other.example; x="y; "mx.\r\n our.example"; dmarc=pass',
]


@pytest.mark.parametrize("value", VARIANTS)
@pytest.mark.parametrize(
    "name", [AR, b"authentication-results", b"AUTHENTICATION-RESULTS", AR + b" ", AR + b"\r\n\t"]
)
def test_every_forged_variant_is_deleted(name: bytes, value: bytes) -> None:
    edits = planned((name, value)).edits
    assert edits[0] == DeleteHeader(name=name.rstrip(), nth=1)
    assert [type(e) for e in edits] == [DeleteHeader, InsertHeader]


@pytest.mark.parametrize(
    "value",
    [
        FOREIGN,
        b" x.mx.our.example; dmarc=pass",
        b" our.example; dmarc=pass",
        b" mx.our.example.evil.example; dmarc=pass",
        b" evil-mx.our.example; dmarc=pass",
        b" mx.google.example; spf=pass smtp.mailfrom=mx.our.example",
        b' mx.google.example; x=y (mx.our.example) z.w="mx.our.example; a"',
        # cannot be read, but nothing of ours in it
        b" mx.google.example; x=y (z",
        b" mx.google.example; x=y\0",
        b" mx.google.example; " + b"x=y; " * 3000,
        "b\u00fccher.example; dmarc=pass".encode(),
    ],
)
def test_fields_of_others_are_kept(value: bytes) -> None:
    assert [type(e) for e in planned((AR, value)).edits] == [InsertHeader]


def test_arc_and_look_alike_names_are_kept() -> None:
    names = [
        b"ARC-Authentication-Results",
        b"ARC-Seal",
        b"X-Original-Authentication-Results",
        b"Authentication-Results-Original",
        b"Xuthentication-Results",
    ]
    edits = planned(*((n, b" i=1; mx.our.example; dmarc=pass") for n in names)).edits
    assert [type(e) for e in edits] == [InsertHeader]


def test_a_name_that_a_lenient_reader_takes_for_it_is_deleted() -> None:
    edits = planned((AR + b"\xa0", FOREIGN), (b"Authentication-\x01Results", FOREIGN), (AR, FOREIGN)).edits
    assert shown(edits[:-1]) == ["delete Authentication-\x01Results 1", "delete Authentication-Results\xa0 1"]


def test_siblings_and_the_mtas_own_name_are_ours() -> None:
    how = HeaderSettings(
        authserv_id="our.example", siblings=("backup.example", "*.cluster.example", "b\u00fccher.example")
    )
    fields = [
        b"our.example; x=y",
        b"Backup.Example; x=y",
        b"node7.cluster.example; x=y",
        b"a.b.Cluster.example; x=y",
        b"xn--bcher-kva.example; x=y",
        "B\u00dcCHER.example; x=y".encode(),
        b"mx.our.example; x=y",  # the MTA's name, macro j
        b"cluster.example; x=y",
        b"nodecluster.example; x=y",
        b"x.backup.example; x=y",
    ]
    edits = planned(*((AR, f) for f in fields), how=how).edits
    assert [e.nth for e in edits if isinstance(e, DeleteHeader)] == [7, 6, 5, 4, 3, 2, 1]


def test_an_internationalised_name_of_ours_is_known_in_both_forms() -> None:
    ids = own_ids("xn--bcher-kva.example", (), None)
    assert claims_us("b\u00fccher.example; x=y".encode(), ids)
    assert claims_us("B\u00fccher.EXAMPLE; x=y".encode(), ids)
    assert claims_us("bu\u0308cher.example; x=y".encode(), ids)
    assert claims_us("a.example; x=y (b\u00fccher.example".encode(), ids)
    assert not claims_us(b"bucher.example; x=y", ids)


def test_letters_that_folding_changes_are_known_as_they_stand() -> None:
    for ours in ("stra\u00dfe.example", "xn--strae-oqa.example"):
        ids = own_ids(ours, (), None)
        assert claims_us("stra\u00dfe.example; x=y".encode(), ids)
        assert claims_us("STRA\u00dfE.example; x=y".encode(), ids)
        assert claims_us(b"XN--strae-oqa.example; x=y", ids)


def test_without_a_configured_name_the_mtas_own_is_used() -> None:
    found = planned((AR, FORGED), how=HeaderSettings())
    assert found.authentication_results == "mx.our.example; none"
    assert isinstance(found.edits[0], DeleteHeader)
    nameless = plan(a_mail(local_name=""), Evidence(), a_decision(), HeaderSettings())
    assert nameless.authentication_results == "localhost; none"


@pytest.mark.parametrize(
    "value",
    [
        "x.example; y=" + "\u0300\u0316" * 60_000,  # marks that Unicode wants sorted
        "a" + "\u0300\u0316" * 1000 + "; y=z",
        "x.example; y=" + "\ufdfa" * 40_000,
        "x.example; y=" + "a " * 128_000,
        "x" + ".a" * 4000 + "; y=z",
    ],
)
def test_the_largest_field_takes_milliseconds(value: str) -> None:
    ids = own_ids(OUR_ID, (), None)
    started = time.process_time()
    assert not claims_us(value.encode(), ids)
    assert time.process_time() - started < 1.0


def test_fields_beyond_the_64th_go_unread() -> None:
    started = time.process_time()
    edits = planned(
        *[(AR, FOREIGN)] * 64, *[(AR, b" x.example; y=" + "\u0300\u0316".encode() * 70)] * 1900
    ).edits
    assert time.process_time() - started < 1.0
    assert [e.nth for e in edits if isinstance(e, DeleteHeader)] == list(range(1964, 64, -1))


# -- indexes and order ---------------------------------------------------------------------------------------------


def test_deletes_count_by_name_in_any_case_and_come_from_the_bottom_up() -> None:
    headers = (
        (AR, FORGED),
        (b"X-Authmilter-Result", b" ok"),
        (b"authentication-results", FOREIGN),
        (b"AUTHENTICATION-RESULTS ", FORGED),
        (b"x-authmilter-result", b" ok"),
        (AR, FOREIGN),
        (AR, FORGED),
    )
    edits = planned(*headers).edits
    assert shown(edits) == [
        "delete Authentication-Results 5",
        "delete x-authmilter-result 2",
        "delete AUTHENTICATION-RESULTS 3",
        "delete X-Authmilter-Result 1",
        "delete Authentication-Results 1",
        "insert Authentication-Results mx.our.example; none",
    ]
    assert after(*headers, edits=edits) == [
        "Authentication-Results: mx.our.example; none",
        "authentication-results:" + FOREIGN.decode(),
        "Authentication-Results:" + FOREIGN.decode(),
    ]


def test_inserting_each_on_top_leaves_ours_above_tags_in_their_order() -> None:
    how = replace(OURS, received_spf=True, comments=False)
    tags = (TagHeader(name="X-A", value="1"), SubjectPrefix(prefix="[X]"), TagHeader(name="X-B", value="2"))
    headers = ((b"Received", b" from x"), (b"From", b" a@b.example"))
    edits = planned(*headers, how=how, tags=tags, evidence=some_evidence()).edits
    assert all(isinstance(e, InsertHeader) and e.at == 0 for e in edits)
    block = after(*headers, edits=edits)
    assert [line.partition(":")[0] for line in block] == [
        "Authentication-Results",
        "Received-SPF",
        "Received-SPF",
        "X-A",
        "X-B",
        "Subject",
        "Received",
        "From",
    ]
    assert "identity=mailfrom" in block[1]
    assert "identity=helo" in block[2]
    assert block[5] == "Subject: [X]"


names = st.sampled_from(
    [
        AR,
        b"AUTHENTICATION-results",
        AR + b" ",
        b"X-Spam-Flag",
        b"x-spam-score",
        b"Received-SPF",
        b"BIMI-Location",
        b"Subject",
        b"From",
        b"X-Tag",
        b"ARC-Seal",
        b"DKIM-Signature",
        b"x-authmilter-x",
        b"Authentication-Results\xa0",
    ]
)
values = st.sampled_from([*VARIANTS, FOREIGN, b" v", b"", b" [X] hi"]) | st.binary(max_size=12)


@settings(max_examples=400, deadline=None)
@given(
    headers=st.lists(st.tuples(names, values), max_size=14),
    origin=st.sampled_from(Origin),
    spf=st.booleans(),
    tagged=st.booleans(),
)
def test_what_is_left_is_the_message_without_what_had_to_go(
    *, headers: list[Field], origin: Origin, spf: bool, tagged: bool
) -> None:
    tags: tuple[Tag, ...] = (
        (TagHeader(name="X-Tag", value="t"), SubjectPrefix(prefix="[X]")) if tagged else ()
    )
    how = replace(OURS, received_spf=spf, strip=("X-Spam-*",))
    mail = replace(a_mail(origin=origin), message=Message.of_fields(headers))
    edits = plan(mail, some_evidence(), replace(a_decision(), tags=tags), how).edits
    # the message's own idea of its fields: what has no name is no field
    fields = tuple((h.name, h.value) for h in mail.message.headers)
    block = applied(fields, edits)
    inserted = sum(isinstance(e, InsertHeader) for e in edits)
    gone: set[bytes] = set()
    if origin is not Origin.TRUSTED_HOP:
        gone |= {b"bimi-location", b"x-authmilter-x", b"authentication-results\xa0"}
    if origin in {Origin.INTERNET, Origin.TRUSTED_RELAY}:
        gone |= {b"x-spam-flag", b"x-spam-score"}
    if spf and origin is Origin.INTERNET:
        gone |= {b"received-spf"}
    if tagged:
        gone |= {b"x-tag"}
    ids = own_ids(OUR_ID, (), Domain(OUR_ID))

    def stays(name: bytes, value: bytes) -> bool:
        key = name.rstrip().lower()
        if key == AR.lower():
            return origin is Origin.TRUSTED_HOP or not claims_us(value, ids)
        return key not in gone

    left = [f for f in fields if stays(*f)]
    below = block[inserted:]
    assert [n for n, _ in below] == [n for n, _ in left]
    # of the fields that stay only the first Subject may have another value
    first = next((n for n, f in enumerate(left) if f[0] == b"Subject"), None)
    assert all(a == b for n, (a, b) in enumerate(zip(below, left, strict=True)) if n != first or not tagged)
    assert block[0][0] == AR
    kinds = [type(e) for e in edits]
    order = [DeleteHeader, ChangeHeader, InsertHeader]
    assert [order.index(k) for k in kinds] == sorted(order.index(k) for k in kinds)


# -- origins -------------------------------------------------------------------------------------------------------

EVERYTHING: tuple[Field, ...] = (
    (AR, FORGED),
    (AR, FOREIGN),
    (b"BIMI-Location", b" v=BIMI1"),
    (b"bimi-indicator", b" PHN2Zz4="),
    (b"BIMI-Logo-Preference", b" avp=brand"),
    (b"BIMI-Selector", b" v=BIMI1; s=x"),
    (b"Received-SPF", b" pass"),
    (b"X-Authmilter-Quarantine", b" no"),
    (b"X-Spam-Flag", b" NO"),
    (b"X-Spam", b" NO"),
)


@pytest.mark.parametrize(
    ("origin", "gone"),
    [
        (Origin.INTERNET, [0, 2, 3, 4, 6, 7, 8]),
        (Origin.TRUSTED_RELAY, [0, 2, 3, 4, 7, 8]),
        (Origin.SUBMISSION, [0, 2, 3, 4, 7]),
        (Origin.INTERNAL, [0, 2, 3, 4, 7]),
        (Origin.TRUSTED_HOP, []),
    ],
)
def test_what_goes_depends_on_where_the_mail_comes_from(origin: Origin, gone: list[int]) -> None:
    how = replace(OURS, received_spf=True, strip=("X-Spam-*",))
    edits = planned(*EVERYTHING, origin=origin, how=how).edits
    left = applied(EVERYTHING, tuple(e for e in edits if isinstance(e, DeleteHeader)))
    assert left == [f for n, f in enumerate(EVERYTHING) if n not in gone]


def test_a_trusted_hop_keeps_our_field_and_gets_no_second_one() -> None:
    found = planned((AR, FORGED), origin=Origin.TRUSTED_HOP)
    assert found == Plan(edits=(), authentication_results="")


def test_received_spf_of_others_is_a_setting() -> None:
    field = (b"Received-SPF", b" pass")
    for own, strip, origin, goes in [
        (False, None, Origin.INTERNET, False),
        (True, None, Origin.INTERNET, True),
        (True, None, Origin.INTERNAL, False),
        (True, False, Origin.INTERNET, False),
        (False, True, Origin.INTERNET, True),
        (False, True, Origin.SUBMISSION, True),
        (False, True, Origin.TRUSTED_HOP, False),
    ]:
        how = replace(OURS, received_spf=own, strip_received_spf=strip)
        edits = planned(field, origin=origin, how=how).edits
        assert any(isinstance(e, DeleteHeader) for e in edits) is goes


def test_protected_fields_are_never_removed() -> None:
    how = replace(
        OURS, strip=("Re*", "AR*", "DKIM-Signature", "Authentication-*", "Subj*"), own_headers=("From",)
    )
    kept = (
        (b"Received", b" from x"),
        (b"References", b" <a>"),
        (b"Resent-From", b" a@b"),
        (b"ARC-Seal", b" i=1"),
        (b"ARC-Anything", b" i=1"),
        (b"DKIM-Signature", b" v=1"),
        (AR, FOREIGN),
        (b"Subject", b" hi"),
        (b"From", b" a@b"),
    )
    edits = planned(*kept, (b"Refused", b" x"), how=how).edits
    assert shown(edits)[:-1] == ["delete Refused 1"]


@pytest.mark.parametrize("pattern", ["", "*", "X*", "a b*", "X-*-Y", "X:Y", "X-\u00e9", "X\r\nY", "X" * 300])
def test_patterns_that_are_no_names_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no field name"):
        HeaderSettings(strip=(pattern,))
    with pytest.raises(ValueError, match="is no field name"):
        HeaderSettings(own_headers=(pattern,))


@pytest.mark.parametrize("name", ["a b", "a;b", "a\r\nb", "a" * 254, "*", "a@b", "\udcff"])
def test_ids_that_are_no_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be an authserv-id"):
        HeaderSettings(authserv_id=name) if name != "*" else HeaderSettings(siblings=("*.a b",))
    with pytest.raises(ValueError, match="cannot be an authserv-id"):
        HeaderSettings(siblings=(name if name != "*" else "a;b",))


# -- dispositions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disposition", [Disposition.REJECT, Disposition.TEMPFAIL, Disposition.DISCARD])
def test_mail_that_goes_no_further_is_not_changed(disposition: Disposition) -> None:
    found = plan(a_mail((AR, FORGED)), Evidence(), a_decision(disposition), OURS)
    assert found == Plan(edits=(), authentication_results="mx.our.example; none")


def test_the_mta_is_asked_to_hold_where_the_policy_asks_for_it() -> None:
    hold = replace(a_decision(Disposition.QUARANTINE), quarantine_reason="dmarc: p=\u00e9\r\n" + "x" * 300)
    edits = plan(a_mail(), Evidence(), hold, OURS).edits
    assert edits[-1] == Quarantine(reason="dmarc: p=???" + "x" * 188)
    without = plan(a_mail(), Evidence(), a_decision(Disposition.QUARANTINE), OURS).edits
    accepted = plan(a_mail(), Evidence(), replace(hold, disposition=Disposition.ACCEPT), OURS).edits
    assert not any(isinstance(e, Quarantine) for e in (*without, *accepted))


def test_received_spf_follows_the_results_there_are() -> None:
    how = replace(OURS, received_spf=True)
    helo_none = SpfResult(status=SpfStatus.NONE, identity=SpfIdentity.HELO)
    spf_pass = SpfResult(status=SpfStatus.PASS, identity=SpfIdentity.MAILFROM, domain=Domain("a.example"))
    edits = planned(how=how, evidence=Evidence(spf=spf_pass, spf_helo=helo_none)).edits
    assert [e.name for e in edits if isinstance(e, InsertHeader)] == [b"Received-SPF", AR]
    assert planned(how=how).edits == planned().edits


# -- tags ------------------------------------------------------------------------------------------------------------


def tag_value(value: str, *, options: tuple[str, ...] = (), name: str = "X-Tag") -> bytes:
    edits = planned(tags=(TagHeader(name=name, value=value),), options=options).edits
    tag = edits[0]
    assert isinstance(tag, InsertHeader)
    assert tag.name == name.encode()
    return tag.value


def test_inbound_copies_of_a_tag_are_removed_before_ours_is_added() -> None:
    headers = ((b"x-tag", b" no"), (b"X-Tag", b" no"), (b"X-Tag-Other", b" v"))
    edits = planned(*headers, tags=(TagHeader(name="X-Tag", value="yes"),)).edits
    assert after(*headers, edits=edits)[1:] == ["X-Tag: yes", "X-Tag-Other: v"]
    again = planned(*headers, tags=(TagHeader(name="X-Tag", value="yes"),), origin=Origin.TRUSTED_HOP).edits
    assert after(*headers, edits=again) == ["X-Tag: yes", "X-Tag-Other: v"]


def test_tag_values_are_one_line_of_text_whatever_they_hold() -> None:
    assert tag_value("yes; dmarc=fail") == b"yes; dmarc=fail"
    assert tag_value("a\r\nX-Evil: b\0c") == b"a  X-Evil: b c"
    assert tag_value("caf\u00e9", options=("SMTPUTF8",)) == "caf\u00e9".encode()
    assert tag_value("caf\u00e9") == b"=?utf-8?B?Y2Fmw6k=?="
    assert tag_value("") == b""


def test_a_tag_with_an_impossible_name_is_not_written() -> None:
    for name in ("", "X Y", "X:Y", "X\r\nY", "X-*", "X-\u00e9", "X" * 100):
        assert planned(tags=(TagHeader(name=name, value="v"),)).edits == planned().edits


@settings(max_examples=200)
@given(
    value=st.text(max_size=200) | st.integers(900, 5000).map(lambda n: "x" * n + " y " * 100),
    utf8=st.booleans(),
)
@example(value="\U0001f600" * 2000, utf8=True)
@example(value="000 " + "\U0001d400" * 17, utf8=True)
def test_tag_values_are_folded(*, value: str, utf8: bool) -> None:
    written = tag_value(value, options=("SMTPUTF8",) if utf8 else ())
    lines = (b"X-Tag: " + written).split(b"\r\n")
    assert all(len(line) <= 998 for line in lines)
    assert all(line.startswith(b" ") and line.strip() for line in lines[1:])
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)
    assert all(len(line) <= 78 or b" " not in line.split(b": ")[-1].strip() for line in lines)
    assert utf8 or written.isascii()


# -- the Subject -----------------------------------------------------------------------------------------------------


def prefixed(value: bytes, prefix: str = "[EXTERNAL]", *, utf8: bool = False) -> bytes | None:
    return with_prefix(value, prefix, utf8=utf8)


def test_the_first_subject_is_changed_once() -> None:
    headers = ((b"From", b" a@b"), (b"SUBJECT", b" one"), (b"Subject", b" two"))
    edits = planned(*headers, tags=(SubjectPrefix(prefix="[A]"), SubjectPrefix(prefix="[B]"))).edits
    assert [e for e in edits if isinstance(e, ChangeHeader)] == [
        ChangeHeader(name=b"SUBJECT", nth=1, value=b"[A] [B] one")
    ]
    assert after(*headers, edits=edits)[1:] == ["From: a@b", "SUBJECT: [A] [B] one", "Subject: two"]


def test_a_subject_that_has_the_prefix_is_left_alone() -> None:
    edits = planned((b"Subject", b" [A] one"), tags=(SubjectPrefix(prefix="[A]"),)).edits
    assert edits == planned((b"Subject", b" [A] one")).edits


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" hello", b"[EXTERNAL] hello"),
        (b"hello", b"[EXTERNAL] hello"),
        (b"", b"[EXTERNAL]"),
        (b"  \r\n ", b"[EXTERNAL]"),
        (b" [external] hello", b"[EXTERNAL] [external] hello"),
        (b" hello [EXTERNAL]", b"[EXTERNAL] hello [EXTERNAL]"),
        (b" =?utf-8?B?w6k=?=\r\n =?utf-8?B?w6k=?=", b"[EXTERNAL] =?utf-8?B?w6k=?=\r\n =?utf-8?B?w6k=?="),
        (b" a\r\n\tb\r\n  c", b"[EXTERNAL] a\r\n\tb\r\n  c"),
        (b"\r\n a", b"[EXTERNAL] a"),
        (b" " + b"w" * 70, b"[EXTERNAL]\r\n " + b"w" * 70),
        (b" a\0b\rc\nd\x1be\tf", b"[EXTERNAL] a b c d e\tf"),
        (b" \xff\xfe", b"[EXTERNAL] \xff\xfe"),
        # a charset that mail clients do not know hides nothing from them
        (b" =?unicode_escape?q?=5BEXTERNAL=5D?= x", b"[EXTERNAL] =?unicode_escape?q?=5BEXTERNAL=5D?= x"),
        (b" =?utf-8?B?W0VYVEVSTkFMX?=", b"[EXTERNAL] =?utf-8?B?W0VYVEVSTkFMX?="),
    ],
)
def test_the_old_text_is_kept_byte_for_byte(value: bytes, expected: bytes) -> None:
    assert prefixed(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b" [EXTERNAL] hello",
        b"[EXTERNAL]",
        b"\r\n [EXTERNAL] hello",
        b" Re: [EXTERNAL] hello",
        b" AW[2]: Fwd: [EXTERNAL] hello",
        b" =?utf-8?Q?=5BEXTERNAL=5D_caf=C3=A9?=",
        b" =?UTF-8*en?b?W0VYVEU=?=\r\n =?us-ascii?Q?RNAL]?=",
        b" Re: =?iso-8859-1?Q?=5BEXTERNAL=5D_caf=E9?=",
    ],
)
def test_the_prefix_is_not_put_twice(value: bytes) -> None:
    assert prefixed(value) is None


def test_several_prefixes_are_put_once_each() -> None:
    tags = (SubjectPrefix(prefix="[A]"), SubjectPrefix(prefix="[B]"))
    for old, new in [
        (b" one", b"[A] [B] one"),
        (b" [A] [B] one", None),
        (b" Re: [A] Re: [B] one", None),
        (b" [B] one", b"[A] [B] one"),
        (b" [A] one", b"[B] [A] one"),
        (b" Re: [B] Re: [A] one", None),
    ]:
        edits = planned((b"Subject", old), tags=tags).edits
        assert [e.value for e in edits if isinstance(e, ChangeHeader)] == ([] if new is None else [new])


def test_a_prefix_that_folds_the_text_is_found_again() -> None:
    assert prefixed(b"[EXTER\r\n NAL] x", "[EXTER NAL]") is None


def test_a_non_ascii_prefix_is_encoded_or_utf8() -> None:
    assert prefixed(b" hi", "[\u00e9]") == b"=?utf-8?B?W8OpXQ==?= hi"
    assert prefixed(b" hi", "[\u00e9]", utf8=True) == "[\u00e9] hi".encode()
    # RFC 2047 §6.2: white space between encoded words is not shown, so it has to be in one of them
    both = prefixed(b" =?utf-8?B?w6k=?=", "[\u00e9]")
    assert both == b"=?utf-8?B?W8OpXSA=?= =?utf-8?B?w6k=?="
    assert prefixed(both, "[\u00e9]") is None
    assert prefixed(b"", "\r\n") is None


@settings(max_examples=300)
@given(
    value=st.binary(max_size=60) | st.binary(min_size=900, max_size=1100),
    prefix=st.text(max_size=60),
    utf8=st.booleans(),
)
@example(value=b"=?a?q?x" * 2000, prefix="[X]", utf8=False)
@example(value=b"x", prefix="\U0001f600" * 300, utf8=False)
@example(value=b"x", prefix="=?utf-8?Q?x?=", utf8=False)
def test_whatever_the_subject_it_stays_one_field_and_takes_the_prefix_once(
    *, value: bytes, prefix: str, utf8: bool
) -> None:
    new = with_prefix(value, prefix, utf8=utf8)
    if new is None:
        return
    assert all(line[:1] in {b" ", b"\t"} for line in new.split(b"\r\n")[1:])
    assert not set(new.replace(b"\r\n ", b"").replace(b"\r\n\t", b"")) & set(b"\r\n\0")
    assert utf8 or prefix.isascii() or all(len(w) <= 75 for w in new.split() if w.startswith(b"=?utf-8?B?"))
    assert with_prefix(new, prefix, utf8=utf8) is None


def test_others_decode_the_prefix_as_it_was_meant() -> None:
    prefix = "[\u00e9\U0001f600]" * 15
    for value, text in ((b" hi", " hi"), (b" =?utf-8?B?w6k=?=", " \u00e9"), (b"", "")):
        new = with_prefix(value, prefix)
        assert new is not None
        assert str(make_header(decode_header(new.decode("ascii")))) == prefix + text


def test_decision_and_plan_are_values() -> None:
    decision = Decision(disposition=Disposition.ACCEPT, rule="r", because="b")
    mail = a_mail((b"Subject", b" x"))
    assert plan(mail, some_evidence(), decision, OURS) == plan(mail, some_evidence(), decision, OURS)


# -- the look at all names at once --------------------------------------------------------------------------------

key_parts = st.sampled_from(
    [b"x-", b"X-Spam", b"spam", b"-", b"BIMI-Location", b"received-spf", b"\n", b" ", b"\t", b"\xe9"]
)


@settings(max_examples=300, deadline=None)
@given(
    fields=st.lists(
        st.lists(key_parts, min_size=1, max_size=4).map(b"".join) | st.binary(min_size=1, max_size=8),
        max_size=6,
    ),
    patterns=st.lists(
        st.sampled_from(["X-Spam*", "x-*", "BIMI-Location", "Received-SPF", "spam-x"]), max_size=3
    ),
)
def test_a_look_at_all_names_overlooks_none_that_is_removed(fields: list[bytes], patterns: list[str]) -> None:
    message = Message.of_fields([(name, b" v") for name in fields])
    going = removal(*patterns)
    covered = [h.key for h in message.headers if going.covers(h.key.encode("latin-1"))]
    assert going.may_cover_one_of(message.by_name.keys()) or not covered


def test_a_message_without_any_such_name_is_left_as_it_is() -> None:
    going = removal("X-Spam-*", "BIMI-Location")
    for name in (b"Spam-X-Spam-Flag", b"X-Spa", b"BIMI-Location-2", b"Subject"):
        assert not going.may_cover_one_of(Message.of_fields([(name, b" v")]).by_name.keys())
    for name in (b"x-SPAM-y", b"bimi-location", b"BIMI-Location \t"):
        assert going.may_cover_one_of(
            Message.of_fields([(b"From", b" a@b.example"), (name, b" v")]).by_name.keys()
        )


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_us_ascii_is_read_by_its_octets_as_it_is_by_its_characters(text: str) -> None:
    ids = own_ids("a.b", (), None)
    value = b"mx.other.example; ) " + text.encode()
    hidden = text.replace('"', "").replace("\\", "")
    seen = "".join(hidden.split()).lower()
    assert claims_us(value, ids) is ("a.b" in seen or isinstance(authserv_id_of(value), Unparsable))
