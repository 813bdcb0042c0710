"""The JSON form of a verdict: nothing of a result is missing from it, and it is JSON whatever strangers wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from ipaddress import ip_address
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.bimi.evidence import Indicator
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import (
    AlignedBy,
    DmarcPolicy,
    DmarcRecord,
    DmarcResult,
    DmarcStatus,
    PolicySource,
    Query,
)
from authmilter.evidence import Evidence
from authmilter.mail import Envelope, Mail, Origin, Session
from authmilter.message import AuthorHeader, Defect, DefectKind, Header, Message
from authmilter.names import (
    Address,
    AddressLiteral,
    Domain,
    LocalPart,
    Malformed,
    NullPath,
    parse_recipient,
    parse_reverse_path,
)
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from authmilter.verdict import (
    ChangeHeader,
    Decision,
    DeleteHeader,
    Disposition,
    InsertHeader,
    PassedOver,
    Quarantine,
    SmtpReply,
    Step,
    SubjectPrefix,
    TagHeader,
    Verdict,
    WouldHave,
)
from authmilter.verdict_json import verdict_to_dict, verdict_to_json

#: Kinds shown as text, with how the walker below has to make one.
TEXTS: dict[type, object] = {
    Domain: Domain("a.example"),
    Address: Address("joe", Domain("a.example")),
    NullPath: NullPath(),
    LocalPart: LocalPart("root"),
    AddressLiteral: AddressLiteral("joe", ip_address("192.0.2.1")),
    Malformed: Malformed("a@@b", "two"),
    type(ip_address("192.0.2.1")): ip_address("192.0.2.1"),
    type(ip_address("::1")): ip_address("::1"),
    datetime: datetime(2026, 11, 1, tzinfo=UTC),
    str: "text",
    int: 7,
    float: 1.5,
    bool: True,
    bytes: b"octets",
}
#: The one field that is left out: the message itself.
LEFT_OUT = {(Message, "headers"), (Message, "_index"), (Indicator, "svg")}


def a_verdict(**changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "mail_id": "m1",
        "origin": Origin.INTERNET,
        "origin_because": "",
        "evidence": Evidence(),
        "decision": Decision(disposition=Disposition.ACCEPT, rule="default", because="because"),
        "edits": (),
        "authentication_results": "",
    }
    return Verdict(**{**values, **changes})


def examples(hint: Any) -> Iterator[object]:
    """Values of every kind a field may hold, each with all of its fields set."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        for arg in args:
            if arg is not type(None):
                yield from examples(arg)
    elif origin is tuple:
        yield tuple(examples(args[0]))
    elif hint in TEXTS:
        yield TEXTS[hint]
    elif isinstance(hint, type) and issubclass(hint, Enum):
        yield next(iter(hint))
    elif is_dataclass(hint):
        assert isinstance(hint, type)
        yield whole(hint)
    else:
        raise AssertionError(f"a kind of field that is not known here: {hint}")


def whole(kind: type) -> Any:
    """A value of this kind with no field at None."""
    hints = get_type_hints(kind)
    values = {}
    for f in fields(kind):
        if (kind, f.name) not in LEFT_OUT or f.default is MISSING:
            values[f.name] = next(iter(examples(hints[f.name])))
    return kind(**values)


def check(value: object, data: object, where: str) -> int:
    """Compare a value with its data field by field; return how many fields of ours were seen."""
    if isinstance(value, tuple | list):
        assert isinstance(data, list), where
        return sum(check(v, d, f"{where}[{n}]") for n, (v, d) in enumerate(zip(value, data, strict=True)))
    if type(value) in TEXTS:
        assert isinstance(data, str | int | float | bool), where
        assert data == (value if isinstance(value, str | int | float | bool) else data)
        return 0
    if isinstance(value, Enum):
        assert data == value.value, where
        return 0
    assert is_dataclass(value), where
    assert isinstance(data, dict), where
    names = {f.name for f in fields(value) if (type(value), f.name) not in LEFT_OUT}
    assert set(data) - {"op"} == names, where
    return len(names) + sum(check(getattr(value, n), data[n], f"{where}.{n}") for n in names)


def test_every_field_of_every_kind_of_result_appears() -> None:
    verdict, mail = whole(Verdict), whole(Mail)
    data = verdict_to_dict(verdict, mail)
    about = data.pop("mail")
    seen = check(verdict, data, "verdict") + check(mail, about, "mail")
    assert seen > 150
    assert {type(e) for e in verdict.edits} == {InsertHeader, ChangeHeader, DeleteHeader, Quarantine}
    assert {type(t) for t in verdict.decision.tags} == {TagHeader, SubjectPrefix}
    assert json.loads(verdict_to_json(verdict, mail)) == {**data, "mail": about}


def test_names_and_words_are_those_of_the_documents() -> None:
    sender = Domain("sender.example")
    verdict = a_verdict(
        evidence=Evidence(
            spf=SpfResult(
                status=SpfStatus.PERMERROR,
                identity=SpfIdentity.MAILFROM,
                domain=sender,
                problem=SpfProblem.VOID_LIMIT,
            ),
            dkim=(
                DkimResult(
                    status=DkimStatus.FAIL, domain=sender, selector="s", problem=DkimProblem.BODY_HASH
                ),
            ),
            dmarc=DmarcResult(
                status=DmarcStatus.FAIL,
                author=sender,
                record_at=sender,
                organizational_domain=sender,
                record=DmarcRecord(p=DmarcPolicy.REJECT),
                policy=DmarcPolicy.REJECT,
                policy_source=PolicySource.P,
                aligned=(AlignedBy.SPF,),
                queries=(Query(name="_dmarc.sender.example", why="policy", answer="record"),),
            ),
        ),
        decision=Decision(
            disposition=Disposition.REJECT,
            rule="dmarc-reject",
            because="the domain asks for it",
            reply=SmtpReply(code=550, enhanced="5.7.1", text="no"),
            passed_over=(PassedOver(rule="a", because="b"),),
            would_have=(WouldHave(disposition=Disposition.REJECT, rule="c"),),
        ),
        edits=(InsertHeader(at=0, name=b"X", value=b"v\r\n w"), DeleteHeader(name=b"Y", nth=2)),
        trace=(Step(method="spf", elapsed_ms=1.25, questions=3),),
    )
    data: Any = verdict_to_dict(verdict)
    evidence, decision = data["evidence"], data["decision"]
    assert evidence["spf"]["status"] == "permerror"
    assert evidence["spf"]["problem"] == "void_limit"
    assert evidence["dkim"][0]["domain"] == "sender.example"
    assert evidence["dkim"][0]["problem"] == "body_hash"
    assert evidence["dmarc"]["aligned"] == ["spf"]
    assert evidence["dmarc"]["policy"] == "reject"
    assert evidence["dmarc"]["record"]["p"] == "reject"
    assert evidence["dmarc"]["queries"] == [
        {"name": "_dmarc.sender.example", "why": "policy", "answer": "record"}
    ]
    assert decision["reply"] == {"code": 550, "enhanced": "5.7.1", "text": "no"}
    assert decision["passed_over"] == [{"rule": "a", "because": "b"}]
    assert decision["would_have"] == [{"disposition": "reject", "rule": "c"}]
    assert data["edits"] == [
        {"op": "insert_header", "at": 0, "name": "X", "value": "v\r\n w"},
        {"op": "delete_header", "name": "Y", "nth": 2},
    ]
    assert data["trace"][0]["questions"] == 3
    assert (data["mail_id"], data["origin"]) == ("m1", "internet")


def test_what_was_not_asked_is_absent_and_what_was_not_there_is_empty() -> None:
    data: Any = verdict_to_dict(a_verdict(evidence=Evidence(dkim=())))
    assert data["evidence"] == {"dkim": []}
    assert "mail" not in data
    assert "reply" not in data["decision"]


def test_a_mail_is_shown_without_its_header_fields() -> None:
    mail = Mail(
        id="m1",
        session=Session(client_ip=ip_address("2001:db8::1"), helo=Malformed("_", "x")),
        envelope=Envelope(
            mail_from=parse_reverse_path("<>"),
            rcpt_to=(parse_recipient("<joe@B\u00fccher.example>"), parse_recipient("postmaster")),
            mail_options=("BODY=8BITMIME",),
        ),
        message=Message(
            headers=(Header(b"Subject", b" secret"),),
            defects=(Defect(DefectKind.BARE_LF, "subject"),),
            authors=AuthorHeader(fields=1, addresses=(Address("a b", Domain("c.example")),)),
        ),
        received_at=datetime(2026, 11, 1, 12, 30, tzinfo=UTC),
    )
    about: Any = verdict_to_dict(a_verdict(), mail)["mail"]
    assert about["session"]["client_ip"] == "2001:db8::1"
    assert about["session"]["helo"] == "_"
    assert about["envelope"] == {
        "mail_from": "",
        "rcpt_to": ["joe@xn--bcher-kva.example", "postmaster"],
        "mail_options": ["BODY=8BITMIME"],
    }
    assert about["message"] == {
        "defects": [{"kind": "bare_lf", "field": "subject"}],
        "authors": {"fields": 1, "addresses": ['"a b"@c.example'], "domains": [], "detail": ""},
    }
    assert about["received_at"] == "2026-11-01T12:30:00+00:00"
    assert "secret" not in verdict_to_json(a_verdict(), mail)


def test_octets_and_surrogates_become_text() -> None:
    mail = Mail(
        id="m",
        session=Session(helo=Malformed("a\udcff\ud800\u00e9", "x"), client_name="\udcfe"),
        envelope=Envelope(mail_from=Malformed("x\udc80y", "not UTF-8")),
        message=Message(),
        received_at=datetime(2026, 11, 1, tzinfo=UTC),
    )
    data: Any = verdict_to_dict(
        a_verdict(edits=(InsertHeader(at=0, name=b"\xff", value=b"a\x80\xc3\xa9"),)), mail
    )
    assert data["mail"]["envelope"]["mail_from"] == "x\\x80y"
    assert data["mail"]["session"]["client_name"] == "\\xfe"
    assert data["mail"]["session"]["helo"] == "a\\udcff\\ud800\u00e9"
    assert data["edits"][0] == {"op": "insert_header", "at": 0, "name": "\\xff", "value": "a\\x80\u00e9"}


@settings(max_examples=200)
@given(text=st.text(st.characters(), max_size=40), octets=st.binary(max_size=40))
def test_the_log_line_is_one_line_of_ascii_json_whatever_strangers_wrote(text: str, octets: bytes) -> None:
    mail = Mail(
        id="m",
        session=Session(helo=Malformed(text, "x"), authenticated=text),
        envelope=Envelope(mail_from=Malformed(text, text), mail_options=(text,)),
        message=Message(),
        received_at=datetime(2026, 11, 1, tzinfo=UTC),
    )
    verdict = a_verdict(
        evidence=Evidence(
            spf=SpfResult(status=SpfStatus.FAIL, identity=SpfIdentity.HELO, domain=Domain(text), local=text),
            dkim=(DkimResult(status=DkimStatus.NEUTRAL, selector=text, identity=text),),
        ),
        edits=(ChangeHeader(name=b"Subject", nth=1, value=octets), Quarantine(reason=text)),
    )
    line = verdict_to_json(verdict, mail)
    assert line.isascii()
    assert line.isprintable()
    read = json.loads(line)
    read["mail"]["session"]["authenticated"].encode()  # no lone surrogate is left
    if text.isascii():
        assert read["evidence"]["dkim"][0]["selector"] == text


class Odd(StrEnum):
    """Not of ours."""

    A = "a"


def test_values_nobody_foresaw_are_shown_as_text() -> None:
    data: Any = verdict_to_dict(a_verdict(edits=frozenset({Odd.A}), origin_because=complex(1, 2)))
    assert data["edits"] == ["a"]
    assert data["origin_because"] == "(1+2j)"
