"""Published attacks on SPF and on what is made of it, with their secure outcome.

CK: "Composition Kills" (USENIX Security 2020); BS: "BreakSPF" (NDSS 2024); espoofer: its test suite.
L is legitimate.example, whose record passes nobody; A is the attacker's attack.example, whose record passes all.
"""

from __future__ import annotations

import inspect
import time

import pytest

from authmilter.mail import Session
from authmilter.names import Domain, parse_helo, parse_ip, parse_reverse_path
from authmilter.spf.check import SpfLimits, check_helo, check_mailfrom
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from tests.support.builders import a_lookup

IP = "198.51.100.66"
ZONE: dict[str, object] = {
    "legitimate.example": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
    "attack.example": {"TXT": ["v=spf1 ip4:198.51.100.66 -all"]},
    "helo.attack.example": {"TXT": ["v=spf1 ip4:198.51.100.66 -all"]},
    "any.attack.example": {"TXT": ["v=spf1 ip4:198.51.100.66 -all"]},
}
LEGITIMATE = Domain("legitimate.example")


def mail_of(path: str, zone: dict[str, object] | None = None, helo: str = "helo.attack.example") -> SpfResult:
    session = Session(client_ip=parse_ip(IP), helo=parse_helo(helo))
    lookup = a_lookup(ZONE if zone is None else zone)
    return check_mailfrom(session, parse_reverse_path(path), lookup, SpfLimits(), receiver="r.example")


def test_a_subdomain_that_does_not_exist_is_none_whatever_helo_passes() -> None:
    """espoofer server_a1, CK A1."""
    session = Session(client_ip=parse_ip(IP), helo=parse_helo("helo.attack.example"))
    helo = check_helo(session, a_lookup(ZONE), SpfLimits(), receiver="r.example")
    assert (helo.status, helo.identity) == (SpfStatus.PASS, SpfIdentity.HELO)
    result = mail_of("<any@mailfrom.notexist.legitimate.example>")
    assert (result.status, result.problem) == (SpfStatus.NONE, SpfProblem.NO_RECORD)
    assert result.identity is SpfIdentity.MAILFROM
    assert result.domain == Domain("mailfrom.notexist.legitimate.example")


@pytest.mark.parametrize(
    "path",
    [
        "<(any@legitimate.example>",
        "(any@legitimate.example",
        "<(any)@legitimate.example>",
        "<any@(legitimate.example>",
        "<any@legitimate.example",
        "any@legitimate.example>",
        "<any any@legitimate.example>",
        "<,any@legitimate.example>",
    ],
)
def test_a_reverse_path_that_others_might_read_as_empty_passes_for_nobody(path: str) -> None:
    """espoofer server_a2, CK A2."""
    result = mail_of(path)
    assert (result.status, result.problem) == (SpfStatus.NONE, SpfProblem.MALFORMED_PATH)
    assert result.domain is None


def test_the_null_reverse_path_speaks_for_helo_only() -> None:
    """CK A2."""
    result = mail_of("<>")
    assert (result.status, result.identity) == (SpfStatus.PASS, SpfIdentity.MAILFROM)
    assert result.domain == Domain("helo.attack.example")


@pytest.mark.parametrize(
    "path",
    [
        # espoofer server_a5, CK A5: a parenthesis in the domain
        "<any@legitimate.example(.attack.example>",
        "<any@legitimate.example(a.attack.example>",
        # espoofer server_a6: a quotation mark, two @
        "<any@legitimate.example'@any.attack.example>",
        '<any@legitimate.example"@any.attack.example>',
        "<any@legitimate.example@any.attack.example>",
        # espoofer server_a7: a source route that is none
        "<@legitimate.example,@any.com:'any@any@attack.example>",
        "<@legitimate.example'any@attack.example>",
    ],
)
def test_an_address_with_two_domains_passes_for_neither(path: str) -> None:
    result = mail_of(path)
    assert (result.status, result.problem) == (SpfStatus.NONE, SpfProblem.MALFORMED_PATH)
    assert result.domain is None


def test_the_domain_stands_after_the_last_unquoted_at_sign() -> None:
    """espoofer server_a6, quoted properly."""
    result = mail_of('<"any@legitimate.example"@any.attack.example>')
    assert (result.status, result.domain) == (SpfStatus.PASS, Domain("any.attack.example"))
    assert result.local == "any@legitimate.example"


def test_a_source_route_is_ignored_and_only_the_mailbox_counts() -> None:
    """espoofer server_a7."""
    result = mail_of("<@legitimate.example,@any.com:any@attack.example>")
    assert (result.status, result.domain) == (SpfStatus.PASS, Domain("attack.example"))
    assert mail_of("<@attack.example:any@legitimate.example>").status is SpfStatus.FAIL


@pytest.mark.parametrize(
    ("text", "broad"),
    [
        ("v=spf1 +all", True),
        ("v=spf1 all", True),
        ("v=spf1 ip4:0.0.0.0/0 -all", True),
        ("v=spf1 ip4:128.0.0.0/1 -all", True),
        ("v=spf1 ip4:198.0.0.0/7 -all", True),
        ("v=spf1 a:h.example/4 -all", True),
        ("v=spf1 mx:h.example/0 -all", True),
        ("v=spf1 include:pool.example -all", True),
        ("v=spf1 redirect=pool.example", True),
        ("v=spf1 ip4:198.0.0.0/8 -all", False),
        ("v=spf1 ip4:198.51.100.66 +all", False),
        ("v=spf1 a:h.example -all", False),
        ("v=spf1 include:narrow.example +all", False),
    ],
)
def test_a_pass_through_a_huge_network_is_flagged(text: str, *, broad: bool) -> None:
    """BS: the pass is right by the protocol; what it is worth is for the policy to say."""
    zone: dict[str, object] = {
        "legitimate.example": {"TXT": [text]},
        "pool.example": {"TXT": ["v=spf1 include:deep.example ip4:10.0.0.0/8 ~all"]},
        "deep.example": {"TXT": ["v=spf1 ip4:192.0.0.0/5 ~all"]},
        "narrow.example": {"TXT": ["v=spf1 ip4:198.51.100.0/24 ~all"]},
        "h.example": {"A": [IP], "MX": ["1 h.example"]},
    }
    result = mail_of("<any@legitimate.example>", zone)
    assert (result.status, result.broad) == (SpfStatus.PASS, broad)


def test_a_huge_network_of_ipv6_is_flagged() -> None:
    session = Session(client_ip=parse_ip("2001:db8::1"))
    for text, broad in (("v=spf1 ip6:2000::/3 -all", True), ("v=spf1 ip6:2001:db8::/16 -all", False)):
        lookup = a_lookup({"legitimate.example": {"TXT": [text]}})
        result = check_mailfrom(
            session, parse_reverse_path("<u@legitimate.example>"), lookup, SpfLimits(), receiver="r.example"
        )
        assert (result.status, result.broad) == (SpfStatus.PASS, broad)


def test_only_a_pass_is_broad() -> None:
    for text in ("v=spf1 ?all", "v=spf1 ?include:pool.example", "v=spf1 -ip4:0.0.0.0/0"):
        zone: dict[str, object] = {
            "legitimate.example": {"TXT": [text]},
            "pool.example": {"TXT": ["v=spf1 +all"]},
        }
        result = mail_of("<any@legitimate.example>", zone)
        assert (result.status is not SpfStatus.PASS, result.broad) == (True, False)


def test_no_header_of_the_message_is_an_input() -> None:
    """A forged Received-SPF field cannot be believed by what never sees it (OpenDMARC's tests)."""
    for check in (check_helo, check_mailfrom):
        given = set(inspect.signature(check).parameters)
        assert given <= {"session", "mail_from", "lookup", "limits", "receiver"}


def test_ten_terms_of_ten_exchanges_are_bounded() -> None:
    """RFC 7208 §11.1."""
    zone: dict[str, object] = {f"m{i}.victim.example": {"A": ["192.0.2.1"]} for i in range(200)}
    for term in range(12):
        zone[f"t{term}.attack.example"] = {"MX": [f"1 m{term * 10 + i}.victim.example" for i in range(10)]}
    mx = " ".join(f"mx:t{i}.attack.example" for i in range(12))
    zone["attack.example"] = {"TXT": [f"v=spf1 {mx} -all"]}
    lookup = a_lookup(zone)
    session = Session(client_ip=parse_ip(IP))
    result = check_mailfrom(
        session, parse_reverse_path("<u@attack.example>"), lookup, SpfLimits(), receiver="r"
    )
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.TERM_LIMIT)
    assert lookup.asked == 1 + 10 + 100


def test_void_lookups_at_a_victim_end_after_two() -> None:
    names = " ".join(f"a:x{i}.victim.example" for i in range(10))
    lookup = a_lookup({"attack.example": {"TXT": [f"v=spf1 {names} -all"]}})
    session = Session(client_ip=parse_ip(IP))
    result = check_mailfrom(
        session, parse_reverse_path("<u@attack.example>"), lookup, SpfLimits(), receiver="r"
    )
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.VOID_LIMIT)
    assert lookup.asked == 1 + 3


@pytest.mark.parametrize(
    "term",
    [
        "-exists:" + "%{s}." * 90 + "x.example ",
        "-exists:" + "%{s9r.-+,/_=}." * 28 + "x.example ",
        "-a:" + "a" * 500 + "! ",
        "-a:" + "a." * 250 + "b ",
        "a=" + "%{s}" * 100 + " ",
        "ip6:2001:db8:1234:5678:9abc:def0:1234:5678/64 ",
        "a:" + "/1" * 250 + " ",
    ],
)
def test_records_made_to_cost_time_do_not(term: str) -> None:
    many = "v=spf1 " + term * (8000 // len(term))
    includes = " ".join(f"include:i{i}.attack.example" for i in range(10))
    zone: dict[str, object] = {f"i{i}.attack.example": {"TXT": [many]} for i in range(10)}
    zone["attack.example"] = {"TXT": [f"v=spf1 {includes} -all exp=e.attack.example"]}
    zone["e.attack.example"] = {"TXT": ["%{s}." * 200]}
    before = time.process_time()
    result = mail_of("<" + "a." * 120 + "a@attack.example>", zone)
    assert time.process_time() - before < 0.5
    assert result.status in {SpfStatus.PERMERROR, SpfStatus.FAIL}
