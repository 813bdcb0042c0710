"""iprev: a name of the client's address leads back to it, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dns.answer import Answer, Failed, FailureKind, Found, NoData, NxDomain, Question, RdType
from authmilter.dns.budget import BudgetLookup
from authmilter.iprev.check import IprevLimits, check, reverse_question
from authmilter.iprev.result import IprevProblem, IprevResult, IprevStatus
from tests.support.builders import a_lookup
from tests.support.rounds import in_rounds

IP = "192.0.2.7"
PTR = "7.2.0.192.in-addr.arpa"
IP6 = "2001:db8::7"
PTR6 = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"


def of(zone: Mapping[str, object], ip: str = IP, *, names: int = 10, questions: int = 21) -> IprevResult:
    return check(ip_address(ip), a_lookup(zone, questions=questions), IprevLimits(names=names))


def test_reverse_names() -> None:
    assert reverse_question(IPv4Address(IP)) == Question(PTR, RdType.PTR)
    assert reverse_question(IPv6Address(IP6)) == Question(PTR6, RdType.PTR)


@pytest.mark.parametrize(
    ("ip", "ptr", "addresses"),
    [
        (IP, PTR, {"A": ["192.0.2.1", IP]}),
        (IP6, PTR6, {"AAAA": [IP6]}),
        ("::ffff:192.0.2.7", PTR, {"A": [IP]}),
    ],
)
def test_a_name_that_leads_back_is_pass(ip: str, ptr: str, addresses: dict[str, object]) -> None:
    result = of({ptr: {"PTR": ["Other.Example", "MX.Example."]}, "mx.example": addresses}, ip)
    assert result.status is IprevStatus.PASS
    assert (result.name, result.problem) == ("mx.example", None)
    assert result.ip == (ip_address(IP) if ptr == PTR else ip_address(IP6))


def test_a_client_with_a_zone_is_asked_for_without_it() -> None:
    lookup = a_lookup({})
    result = check(ip_address("fe80::1%eth0"), lookup, IprevLimits())
    assert (result.status, result.ip) == (IprevStatus.PERMERROR, ip_address("fe80::1"))
    assert lookup.asked == 1


@pytest.mark.parametrize("zone", [{}, {PTR: {"TXT": ["x"]}}])
def test_no_name_is_permerror(zone: dict[str, object]) -> None:
    result = of(zone)
    assert (result.status, result.problem) == (IprevStatus.PERMERROR, IprevProblem.NO_NAME)
    assert result.detail


@pytest.mark.parametrize(
    "forward",
    [
        {},
        {"mx.example": {"A": ["192.0.2.8"]}},
        {"mx.example": {"AAAA": [IP6]}},
        {"mx.example": {"TXT": ["x"]}},
    ],
)
def test_names_of_which_none_leads_back_are_fail(forward: dict[str, object]) -> None:
    result = of({PTR: {"PTR": ["mx.example"]}, **forward})
    assert (result.status, result.problem, result.name) == (IprevStatus.FAIL, IprevProblem.NO_MATCH, "")


@pytest.mark.parametrize("word", ["TIMEOUT", "SERVFAIL", "REFUSED"])
def test_dns_trouble_is_temperror(word: str) -> None:
    reverse = of({PTR: word})
    assert (reverse.status, reverse.problem) == (IprevStatus.TEMPERROR, IprevProblem.DNS)
    zone = {
        PTR: {"PTR": ["a.example", "b.example"]},
        "a.example": {"A": word},
        "b.example": {"A": ["192.0.2.8"]},
    }
    forward = of(zone)
    assert (forward.status, forward.problem) == (IprevStatus.TEMPERROR, IprevProblem.DNS)
    match = of({**zone, "b.example": {"A": [IP]}})
    assert (match.status, match.name) == (IprevStatus.PASS, "b.example")


def test_our_own_limit_is_kept_apart_from_dns_trouble() -> None:
    zone = {PTR: {"PTR": ["a.example", "b.example", "c.example"]}, "c.example": {"A": [IP]}}
    for questions in (0, 1, 2, 3):
        result = of(zone, questions=questions)
        assert (result.status, result.problem) == (IprevStatus.TEMPERROR, IprevProblem.LIMIT)
    trouble = of({**zone, "a.example": "TIMEOUT"}, questions=2)
    assert trouble.problem is IprevProblem.DNS


def test_only_so_many_names_are_looked_at() -> None:
    names = [f"n{i}.example" for i in range(100)]
    zone = {PTR: {"PTR": names}, "n10.example": {"A": [IP]}}
    lookup = a_lookup(zone)
    result = check(ip_address(IP), lookup, IprevLimits())
    assert result.status is IprevStatus.FAIL
    assert lookup.asked == 11
    assert result.detail == "none of the first 10 of 100 names leads back"
    assert of(zone, names=11).status is IprevStatus.PASS


def test_names_that_are_no_host_names_are_not_asked() -> None:
    lookup = BudgetLookup(
        _Names(("a b.example", "x..example", "1.2.3.4", "", "a" * 64 + ".example")), questions=21
    )
    result = check(ip_address(IP), lookup, IprevLimits())
    assert (result.status, result.problem, lookup.asked) == (IprevStatus.FAIL, IprevProblem.NO_MATCH, 1)


def test_a_name_given_twice_is_asked_once() -> None:
    lookup = BudgetLookup(_Names(("mx.example", "MX.example", "mx.example.")), questions=21)
    assert check(ip_address(IP), lookup, IprevLimits()).status is IprevStatus.FAIL
    assert lookup.asked == 2


def test_all_names_are_asked_in_one_round() -> None:
    zone = {PTR: {"PTR": [f"n{i}.example" for i in range(10)]}, "n9.example": {"A": [IP]}}
    result, rounds, _ = in_rounds(lambda lookup: check(ip_address(IP), lookup, IprevLimits()), zone, hints=0)
    assert (result.status, rounds) == (IprevStatus.PASS, 2)


class _Names:
    """A resolver whose every address has these names, and whose every name has no address but trouble, if any."""

    def __init__(self, names: tuple[str, ...], other: Answer | None = None) -> None:
        self.names, self.other = names, other

    def known(self, question: Question) -> Answer:
        if question.rdtype is RdType.PTR:
            return Found(self.names) if self.names else NxDomain()
        return self.other or NoData()

    async def fetch(self, question: Question, deadline: object) -> Answer:  # noqa: ARG002 - the port's shape
        return self.known(question)


@settings(max_examples=300, deadline=None)
@given(
    ip=st.ip_addresses(),
    names=st.lists(st.text(max_size=30), max_size=15),
    other=st.sampled_from([None, NxDomain(), Failed(FailureKind.SERVFAIL), Failed(FailureKind.LIMIT)]),
)
def test_whatever_the_names_there_is_a_result(
    ip: IPv4Address | IPv6Address, names: list[str], other: Answer | None
) -> None:
    lookup = BudgetLookup(_Names(tuple(names), other), questions=21)
    result = check(ip, lookup, IprevLimits())
    assert result.status in {IprevStatus.FAIL, IprevStatus.PERMERROR, IprevStatus.TEMPERROR}
    assert result.problem is not None
    assert result.detail.isascii()
    assert lookup.asked <= 11
