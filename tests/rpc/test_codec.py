"""Values to messages and back to the One JSON; requests to values, with every wrong field named."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authmilter.evidence import Evidence
from authmilter.mail import Mail, Origin, Session
from authmilter.names import Address, AddressLiteral, Domain, LocalPart, Malformed, NullPath
from authmilter.questions import DkimKey
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.codec import Problems, encode, plain, word_of
from authmilter.rpc.refusal import Refused
from authmilter.verdict import Decision, Verdict
from authmilter.verdict_json import verdict_to_dict

MODEST = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

_domains = st.sampled_from(["example.com", "xn--bcher-kva.example", "a.b.c.d.e"]).map(Domain)
#: Any text, raw octets that Python keeps as surrogates among it.
_texts = st.one_of(
    st.text(max_size=12), st.binary(max_size=8).map(lambda b: b.decode("utf-8", "surrogateescape"))
)
_leaves: dict[Any, st.SearchStrategy[Any]] = {
    str: _texts,
    bytes: st.binary(max_size=12),
    bool: st.booleans(),
    int: st.integers(0, 2**31),
    float: st.floats(0, 1e6, allow_nan=False),
    Domain: _domains,
    Address: st.builds(Address, st.sampled_from(["a", "b c", "ü"]), _domains),
    LocalPart: st.builds(LocalPart, st.sampled_from(["root", "post master"])),
    AddressLiteral: st.builds(AddressLiteral, st.sampled_from(["", "u"]), st.ip_addresses()),
    Malformed: st.builds(Malformed, _texts, st.just("why")),
    NullPath: st.just(NullPath()),
    datetime: st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds have no zone
}


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """Return values of any type that our results are made of."""
    if kind in _leaves:
        return _leaves[kind]
    if kind is type(None):
        return st.none()
    origin = get_origin(kind)
    if origin is tuple:
        return st.lists(_values(get_args(kind)[0]), max_size=2).map(tuple)
    if get_args(kind):
        return st.one_of([_values(k) for k in get_args(kind)])
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(
            kind,
            **{
                f.name: _values(hints[f.name])
                for f in dataclasses.fields(kind)
                if f.init and f.name != "headers"
            },
        )
    return st.ip_addresses()


def _json(value: object) -> Any:
    return json.loads(json.dumps(value))


@MODEST
@given(_values(Verdict))
def test_a_verdict_comes_back_as_the_one_json(verdict: Verdict) -> None:
    sent = pb.Verdict(**encode(verdict, pb.Verdict)).SerializeToString()
    assert plain(pb.Verdict.FromString(sent)) == _json(verdict_to_dict(verdict))


@MODEST
@given(_values(Decision), _values(Evidence))
def test_parts_alone_do_too(decision: Decision, evidence: Evidence) -> None:
    whole = Verdict(
        mail_id="x",
        origin=Origin.INTERNET,
        origin_because="",
        evidence=evidence,
        decision=decision,
        edits=(),
        authentication_results="",
    )
    found = _json(verdict_to_dict(whole))
    assert plain(pb.Decision(**encode(decision, pb.Decision))) == found["decision"]
    assert plain(pb.Evidence(**encode(evidence, pb.Evidence))) == found["evidence"]


@MODEST
@given(_values(Mail))
def test_a_mail_comes_back_as_the_one_json(mail: Mail) -> None:
    sent = pb.Mail(**encode(mail, pb.Mail)).SerializeToString()
    verdict = Verdict(
        mail_id="x",
        origin=Origin.INTERNET,
        origin_because="",
        evidence=Evidence(),
        decision=_DECISION,
        edits=(),
        authentication_results="",
    )
    assert plain(pb.Mail.FromString(sent)) == _json(verdict_to_dict(verdict, mail))["mail"]


_DECISION = Decision(disposition="accept", rule="r", because="b")  # type: ignore[arg-type]  # its word is as good


def test_not_asked_differs_from_nothing_there() -> None:
    silent = plain(pb.Evidence(**encode(Evidence(), pb.Evidence)))
    assert silent == {}
    empty = pb.Evidence(**encode(Evidence(dkim=()), pb.Evidence))
    assert empty.HasField("dkim")
    assert plain(empty) == {"dkim": []}


def test_numbers_that_strangers_write_never_overflow() -> None:
    from authmilter.dkim.result import DkimResult, DkimStatus  # noqa: PLC0415 - beside its only use

    wild = DkimResult(status=DkimStatus.PASS, body_length=10**75, timestamp=10**30, expires=0)
    sent = pb.DkimResult(**encode(wild, pb.DkimResult))
    assert (sent.body_length, sent.timestamp, sent.expires) == (2**64 - 1, 2**64 - 1, 0)
    assert sent.HasField("expires")


def test_the_answer_about_a_key_is_written_by_the_same_walker() -> None:
    key = DkimKey(name="s._domainkey.example.com", kind="rsa", key_bits=2048, hashes=("sha256",))
    made = pb.CheckDkimKeyResponse(**encode(key, pb.CheckDkimKeyResponse))
    assert (made.name, made.kind, made.key_bits, list(made.hashes), made.problem) == (
        "s._domainkey.example.com", "rsa", 2048, ["sha256"], pb.DKIM_PROBLEM_UNSPECIFIED,
    )  # fmt: skip


# -- requests -----------------------------------------------------------------------------------------------------------


def _wrong(problems: Problems) -> list[str]:
    with pytest.raises(Refused) as refused:
        problems.check()
    (detail,) = refused.value.details
    return [v.field for v in detail.field_violations]  # type: ignore[attr-defined]  # a BadRequest


def test_every_wrong_field_of_a_request_is_named_at_once() -> None:
    problems = Problems()
    problems.ident("x" * 257)
    problems.session(
        pb.Session(
            client_ip="somewhere", client_name="n" * 2000, local_name="-", tls=pb.TlsInfo(cipher="c" * 2000)
        )
    )
    problems.envelope(pb.Envelope(rcpt_to=["a@example.com", "b" * 2000]))
    options = pb.VerifyOptions(authserv_id="not a name", origin=77)  # type: ignore[arg-type]  # a newer client's
    options.now.seconds = 10**15
    problems.options(options)
    assert _wrong(problems) == [
        "id", "session.client_ip", "session.local_name", "session.tls.cipher", "session.client_name",
        "envelope.rcpt_to[1]", "options.authserv_id", "options.origin", "options.now",
    ]  # fmt: skip


def test_too_many_of_anything_is_wrong() -> None:
    problems = Problems()
    problems.envelope(pb.Envelope(rcpt_to=["a@example.com"] * 10_001))
    problems.envelope(pb.Envelope(mail_options=["X"] * 101))
    assert _wrong(problems) == ["envelope.rcpt_to", "envelope.mail_options"]


def test_a_missing_address_is_not_known_and_not_wrong() -> None:
    problems = Problems()
    assert problems.session(pb.Session()) == Session()
    assert problems.session(pb.Session(client_ip="", helo="")) == Session()
    problems.check()


def test_a_record_flag_that_is_not_set_is_true() -> None:
    problems = Problems()
    assert problems.options(pb.VerifyOptions()).record
    assert not problems.options(pb.VerifyOptions(record=False)).record
    assert problems.options(pb.VerifyOptions(record=True)).record


def test_an_unusable_zone_is_wrong_and_said_why() -> None:
    options = pb.VerifyOptions()
    options.zone.update({"example.com": {"NS": ["x"]}})
    problems = Problems()
    problems.options(options)
    assert _wrong(problems) == ["options.zone"]
    assert "NS" in problems.found[0][1]
    large = pb.VerifyOptions()
    large.zone.update({"x": {"TXT": ["y" * (1 << 20)]}})
    problems = Problems()
    problems.options(large)
    assert _wrong(problems) == ["options.zone"]


@MODEST
@given(st.binary(max_size=200))
def test_any_octets_are_no_request_or_one_that_is_read_or_refused(octets: bytes) -> None:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - beside its only use

    try:
        request = pb.VerifyRequest.FromString(octets)
    except DecodeError:
        return
    problems = Problems()
    problems.session(request.session)
    problems.envelope(request.envelope)
    problems.options(request.options)
    assert all(field and text for field, text in problems.found)


def test_words_of_unknown_numbers_are_none() -> None:
    assert word_of(pb.SpfStatus.DESCRIPTOR, 0) is None
    assert word_of(pb.SpfStatus.DESCRIPTOR, 99) is None
    assert word_of(pb.SpfStatus.DESCRIPTOR, 5) == "softfail"
