"""A zone as data: every form an entry may take, what its answers are, and every mistake named."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.deadline import Deadline
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Mx, NoData, NxDomain, Question, RdType
from authmilter.dns.resolver import NetworkResolver, ResolverSettings
from authmilter.dns.zone import ZoneResolver
from authmilter.errors import DecodeError, InvalidName
from tests.support.nameserver import NameServer
from tests.support.suites import suite_path

ZONE: dict[str, object] = {
    "Example.COM.": {
        "TXT": ["v=spf1 -all", ["one record ", "of two strings"], "é", b"\xff", "\udcfe"],
        "A": ["192.0.2.1"],
        "aaaa": "2001:db8::1",
        "MX": ["10 MX.example.com.", "0  ."],
    },
    "www.example.com": {"CNAME": "example.com"},
    "far.example.com": {"CNAME": ["www.example.com"], "A": ["192.0.2.9"]},
    "dangling.example.com": {"CNAME": "nowhere.example"},
    "circle.example.com": {"CNAME": "circle.example.com"},
    "1.2.0.192.in-addr.arpa": {"PTR": ["MX.example.com."]},
    "empty.example.com": {"TXT": []},
    "silent.example": "TIMEOUT",
    "broken.example": "SERVFAIL",
    "half.example": {"TXT": "SERVFAIL", "A": "TIMEOUT", "MX": "REFUSED", "AAAA": ["2001:db8::2"]},
    "alias.example": {"CNAME": "SERVFAIL"},
    "a.b.below.example": {"A": ["192.0.2.3"]},
}


def ask(name: str, rdtype: RdType, zone: dict[str, object] | None = None) -> Answer:
    return ZoneResolver(ZONE if zone is None else zone).known(Question.of(name, rdtype))


@pytest.mark.parametrize(
    ("name", "rdtype", "records"),
    [
        (
            "example.com",
            RdType.TXT,
            (b"v=spf1 -all", b"one record of two strings", "é".encode(), b"\xff", b"\xfe"),
        ),
        ("EXAMPLE.com.", RdType.A, (IPv4Address("192.0.2.1"),)),
        ("example.com", RdType.AAAA, (IPv6Address("2001:db8::1"),)),
        ("example.com", RdType.MX, (Mx(10, "mx.example.com"), Mx(0, ""))),
        ("1.2.0.192.in-addr.arpa", RdType.PTR, ("mx.example.com",)),
        ("www.example.com", RdType.A, (IPv4Address("192.0.2.1"),)),
        ("far.example.com", RdType.AAAA, (IPv6Address("2001:db8::1"),)),
        ("far.example.com", RdType.A, (IPv4Address("192.0.2.9"),)),
        ("half.example", RdType.AAAA, (IPv6Address("2001:db8::2"),)),
    ],
)
def test_records_are_found(name: str, rdtype: RdType, records: tuple[object, ...]) -> None:
    answer = ask(name, rdtype)
    assert isinstance(answer, Found)
    assert answer.records == records


@pytest.mark.parametrize(
    "name", ["example", "b.below.example", "below.example", "arpa", "empty.example.com", "www.example.com"]
)
def test_a_name_with_something_at_or_below_it_exists(name: str) -> None:
    assert isinstance(ask(name, RdType.PTR), NoData)


@pytest.mark.parametrize(
    "name", ["nowhere.example", "x.example.com", "dangling.example.com", "com.example", "xample"]
)
def test_any_other_name_does_not(name: str) -> None:
    assert isinstance(ask(name, RdType.TXT), NxDomain)


@pytest.mark.parametrize(
    ("name", "rdtype", "kind"),
    [
        ("silent.example", RdType.A, FailureKind.TIMEOUT),
        ("silent.example", RdType.TXT, FailureKind.TIMEOUT),
        ("broken.example", RdType.A, FailureKind.SERVFAIL),
        ("half.example", RdType.TXT, FailureKind.SERVFAIL),
        ("half.example", RdType.A, FailureKind.TIMEOUT),
        ("half.example", RdType.MX, FailureKind.REFUSED),
        ("alias.example", RdType.A, FailureKind.SERVFAIL),
        ("circle.example.com", RdType.A, FailureKind.SERVFAIL),
    ],
)
def test_failures_are_failures(name: str, rdtype: RdType, kind: FailureKind) -> None:
    answer = ask(name, rdtype)
    assert isinstance(answer, Failed)
    assert answer.kind is kind


def test_a_record_that_reads_like_a_failure_is_one_only_as_a_word() -> None:
    assert ask("a.example", RdType.TXT, {"a.example": {"TXT": ["TIMEOUT"]}}) == Found((b"TIMEOUT",), 300.0)


def test_a_set_holds_a_record_once() -> None:
    assert ask("a.example", RdType.TXT, {"a.example": {"TXT": ["x", ["x"], "y"]}}) == Found(
        (b"x", b"y"), 300.0
    )


def test_a_chain_of_eleven_is_followed_and_one_of_twelve_is_not() -> None:
    zone: dict[str, object] = {f"n{i}.example": {"CNAME": f"n{i + 1}.example"} for i in range(12)}
    zone["n12.example"] = {"A": ["192.0.2.1"]}
    assert isinstance(ask("n1.example", RdType.A, zone), Found)
    assert isinstance(ask("n0.example", RdType.A, zone), Failed)


def test_fetching_is_the_same_as_knowing() -> None:
    zone = ZoneResolver(ZONE)
    question = Question.of("example.com", RdType.TXT)
    assert asyncio.run(zone.fetch(question, Deadline(0.0))) == zone.known(question)


def test_every_mistake_is_named_at_once() -> None:
    zone: dict[str, object] = {
        "a..b": {"A": ["192.0.2.1"]},
        "word.example": "NXDOMAIN",
        "list.example": ["192.0.2.1"],
        "none.example": None,
        "type.example": {"SRV": ["x"], "A": ["192.0.2.1"]},
        "twice.example": {"A": ["192.0.2.1"], "a": ["192.0.2.2"]},
        "a.example": {"A": ["2001:db8::1"]},
        "aaaa.example": {"AAAA": ["192.0.2.1"]},
        "number.example": {"A": [1]},
        "text.example": {"TXT": [None]},
        "mx.example": {"MX": ["mx.example.com"]},
        "mx2.example": {"MX": ["65536 mx.example.com"]},
        "mx3.example": {"MX": ["-1 mx.example.com"]},
        "mx4.example": {"MX": ["10 a..b"]},
        "ptr.example": {"PTR": ["x" * 64]},
        "cname.example": {"CNAME": ["a.example", "b.example"]},
        "surrogate.example": {"TXT": ["\ud800"]},
        "same.example": {"A": ["192.0.2.1"]},
        "SAME.example.": {"A": ["192.0.2.1"]},
        "good.example": {"A": ["192.0.2.1"]},
    }
    with pytest.raises(DecodeError) as caught:
        ZoneResolver(zone)
    lines = str(caught.value).splitlines()
    assert lines[0] == "this is not a zone:"
    assert len(lines) == 1 + 18
    for line, name in zip(
        lines[1:], [n for n in zone if n not in {"same.example", "good.example"}], strict=True
    ):
        assert f"`{name}`" in line


def test_a_name_that_is_no_text_is_a_mistake() -> None:
    with pytest.raises(DecodeError, match="`5` is not a name"):
        ZoneResolver({5: {}})  # type: ignore[dict-item]  # wrong on purpose


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=12)
    | st.sampled_from(["TIMEOUT", "192.0.2.1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*RdType, "CNAME", "SRV", "txt"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.dictionaries(st.text(max_size=12), JSON, max_size=4), st.text(max_size=12), st.sampled_from(RdType))
def test_any_mapping_is_a_zone_or_a_decode_error(zone: dict[str, object], name: str, rdtype: RdType) -> None:
    try:
        resolver = ZoneResolver(zone)
        question = Question.of(name, rdtype)
    except (DecodeError, InvalidName) as e:
        assert str(e)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(resolver.known(question), Found | NoData | NxDomain | Failed)


def test_the_zones_of_the_dmarc_suite_are_zones() -> None:
    cases = json.loads(suite_path("dmarc/rfc9989-cases.json").read_text())["cases"]
    assert len([ZoneResolver(case["dns"]) for case in cases if "dns" in case]) == len(cases) == 31


def test_a_zone_answers_as_a_name_server_with_that_zone_does() -> None:
    """Two readers of one zone, one of them through the wire: the same answer to every question, but for the TTL."""
    names = {*ZONE, "example", "below.example", "b.below.example", "nowhere.example", "x.example.com"}
    questions = [Question.of(name, rdtype) for name in sorted(names) for rdtype in RdType]
    zone = ZoneResolver(ZONE)

    async def all_answers() -> list[Answer]:
        return list(await asyncio.gather(*(network.fetch(q, Deadline.after(60)) for q in questions)))

    with NameServer(ZONE, ttl=300, negative_ttl=300) as server:
        network = NetworkResolver(ResolverSettings(nameservers=(server.address,), timeout=1.0))
        answers = asyncio.run(all_answers())
        network.close()
    assert len(answers) == len(questions) == 85
    for question, answer in zip(questions, answers, strict=True):
        expected = zone.known(question)
        if isinstance(expected, Failed):
            assert isinstance(answer, Failed)
            assert answer.kind is expected.kind, question
        else:
            assert answer == expected, question
