"""What SPF says of an identity: statuses, problems, counters and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

import pytest

from authmilter.dns.budget import BudgetLookup
from authmilter.mail import Session
from authmilter.names import Domain, parse_helo, parse_ip, parse_reverse_path
from authmilter.spf.check import SpfLimits, check_helo, check_mailfrom
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from tests.support.builders import a_lookup
from tests.support.rounds import NothingAtHand

IP = "192.0.2.7"
IP6 = "2001:db8::7"


def helo_of(helo: str, zone: Mapping[str, object], ip: str = IP) -> SpfResult:
    session = Session(client_ip=parse_ip(ip), helo=parse_helo(helo))
    return check_helo(session, a_lookup(zone), SpfLimits(), receiver="mx.receiver.example")


def mail_of(
    path: str,
    zone: Mapping[str, object],
    *,
    ip: str = IP,
    helo: str = "helo.example",
    limits: SpfLimits | None = None,
    questions: int = 1000,
) -> SpfResult:
    session = Session(client_ip=parse_ip(ip), helo=parse_helo(helo))
    lookup = a_lookup(zone, questions=questions)
    return check_mailfrom(
        session, parse_reverse_path(path), lookup, limits or SpfLimits(), receiver="mx.receiver.example"
    )


def record(text: str, **more: Mapping[str, object]) -> dict[str, object]:
    """A zone in which d.example has this SPF record; `more` names have their dots as underscores."""
    return {"d.example": {"TXT": [text]}, **{name.replace("_", "."): node for name, node in more.items()}}


def of_record(text: str, *, ip: str = IP, **more: Mapping[str, object]) -> SpfResult:
    return mail_of("<u@d.example>", record(text, **more), ip=ip)


# -- identities ---------------------------------------------------------------------------------------------------


def test_the_helo_identity_is_checked_with_the_local_part_postmaster() -> None:
    result = helo_of(
        "d.example", record("v=spf1 exists:%{l}.u.example -all", postmaster_u_example={"A": [IP]})
    )
    assert result.status is SpfStatus.PASS
    assert result.identity is SpfIdentity.HELO
    assert result.domain == Domain("d.example")
    assert result.local == "postmaster"


@pytest.mark.parametrize(
    "helo", ["localhost", "[192.0.2.7]", "[IPv6:2001:db8::1]", "a b", "", "bad..name", "1.2.3.4"]
)
def test_a_helo_that_is_no_domain_of_several_labels_is_none_and_asks_nothing(helo: str) -> None:
    lookup = a_lookup({"localhost": {"TXT": ["v=spf1 +all"]}})
    session = Session(client_ip=parse_ip(IP), helo=parse_helo(helo))
    for result in (
        check_helo(session, lookup, SpfLimits(), receiver="r"),
        check_mailfrom(session, parse_reverse_path("<>"), lookup, SpfLimits(), receiver="r"),
    ):
        assert result.status is SpfStatus.NONE
        assert result.problem is SpfProblem.NO_DOMAIN
    assert lookup.asked == 0


def test_no_helo_at_all_is_none() -> None:
    result = check_helo(Session(client_ip=parse_ip(IP)), a_lookup(), SpfLimits(), receiver="r")
    assert (result.status, result.problem) == (SpfStatus.NONE, SpfProblem.NO_DOMAIN)


def test_the_null_reverse_path_is_the_mail_from_identity_of_postmaster_at_helo() -> None:
    result = mail_of(
        "<>", record("v=spf1 exists:%{l}.u.example -all", postmaster_u_example={"A": [IP]}), helo="d.example"
    )
    assert result.status is SpfStatus.PASS
    assert result.identity is SpfIdentity.MAILFROM
    assert result.domain == Domain("d.example")
    assert result.local == "postmaster"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("<root>", SpfProblem.NO_DOMAIN),
        ("<u@[192.0.2.7]>", SpfProblem.NO_DOMAIN),
        ("<u@localhost>", SpfProblem.NO_DOMAIN),
        ("<u@bad..example>", SpfProblem.MALFORMED_PATH),
        ("<u@>", SpfProblem.MALFORMED_PATH),
        ("<u@d.example", SpfProblem.MALFORMED_PATH),
        ("< >", SpfProblem.MALFORMED_PATH),
    ],
)
def test_a_reverse_path_without_a_domain_is_none_and_never_the_helo_domain(
    path: str, problem: SpfProblem
) -> None:
    lookup = a_lookup({"helo.example": {"TXT": ["v=spf1 +all"]}, "localhost": {"TXT": ["v=spf1 +all"]}})
    session = Session(client_ip=parse_ip(IP), helo=parse_helo("helo.example"))
    result = check_mailfrom(session, parse_reverse_path(path), lookup, SpfLimits(), receiver="r")
    assert result.status is SpfStatus.NONE
    assert result.problem is problem
    assert result.domain is None
    assert lookup.asked == 0


def test_without_a_client_address_there_is_nothing_to_check() -> None:
    session = Session(client_ip=None, helo=parse_helo("d.example"))
    lookup = a_lookup(record("v=spf1 +all"))
    for result in (
        check_helo(session, lookup, SpfLimits(), receiver="r"),
        check_mailfrom(session, parse_reverse_path("<u@d.example>"), lookup, SpfLimits(), receiver="r"),
    ):
        assert result.status is SpfStatus.NONE
    assert lookup.asked == 0


def test_an_ipv4_mapped_client_is_an_ipv4_client() -> None:
    session = Session(client_ip=ip_address("::ffff:192.0.2.7"), helo=None)
    lookup = a_lookup(record("v=spf1 ip4:192.0.2.7 -all"))
    result = check_mailfrom(session, parse_reverse_path("<u@d.example>"), lookup, SpfLimits(), receiver="r")
    assert result.status is SpfStatus.PASS


def test_a_client_with_a_zone_is_checked_without_it() -> None:
    session = Session(client_ip=ip_address("fe80::1%eth0"), helo=None)
    lookup = a_lookup(record("v=spf1 ip6:fe80::/64 -all"))
    result = check_mailfrom(session, parse_reverse_path("<u@d.example>"), lookup, SpfLimits(), receiver="r")
    assert result.status is SpfStatus.PASS


# -- records ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status", "mechanism"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", SpfStatus.PASS, "ip4:192.0.2.0/24"),
        ("v=spf1 +IP4:192.0.2.7 -all", SpfStatus.PASS, "+IP4:192.0.2.7"),
        ("v=spf1 -all", SpfStatus.FAIL, "-all"),
        ("V=SPF1 ~ALL", SpfStatus.SOFTFAIL, "~ALL"),
        ("v=spf1 ?all", SpfStatus.NEUTRAL, "?all"),
        ("v=spf1", SpfStatus.NEUTRAL, ""),
        ("v=spf1  ip4:192.0.2.8", SpfStatus.NEUTRAL, ""),
        ("v=spf1 include:i.example -all", SpfStatus.PASS, "include:i.example"),
        ("v=spf1 a:i.example/24 -all", SpfStatus.PASS, "a:i.example/24"),
        ("v=spf1 REDIRECT=i.example", SpfStatus.PASS, "ip4:192.0.2.7"),
    ],
)
def test_the_mechanism_is_the_matched_term_as_written(text: str, status: SpfStatus, mechanism: str) -> None:
    result = of_record(text, i_example={"TXT": ["v=spf1 ip4:192.0.2.7 ~all"], "A": ["192.0.2.250"]})
    assert (result.status, result.mechanism, result.problem) == (status, mechanism, None)


def test_a_match_inside_an_include_is_told_in_the_detail() -> None:
    result = of_record("v=spf1 include:i.example -all", i_example={"TXT": ["v=spf1 ip4:192.0.2.0/28 ~all"]})
    assert result.detail == "matched ip4:192.0.2.0/28 in the record of i.example"


def test_no_record_and_no_such_domain_are_none() -> None:
    other = mail_of("<u@d.example>", {"d.example": {"TXT": ["v=spf10 -all", "v=spf1-all", "hello"]}})
    nothing = mail_of("<u@d.example>", {"d.example": {"A": [IP]}})
    gone = mail_of("<u@d.example>", {})
    for result in (other, nothing, gone):
        assert (result.status, result.problem) == (SpfStatus.NONE, SpfProblem.NO_RECORD)
        assert result.domain == Domain("d.example")
    assert gone.detail == "d.example does not exist"


def test_two_records_are_permerror() -> None:
    result = mail_of("<u@d.example>", {"d.example": {"TXT": ["v=spf1 +all", "V=spf1 -all"]}})
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.SEVERAL_RECORDS)


def test_two_records_at_an_include_are_permerror() -> None:
    result = of_record("v=spf1 include:i.example", i_example={"TXT": ["v=spf1 +all", "v=spf1 -all"]})
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.SEVERAL_RECORDS)


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 ip4:192.0.2.7 moo",
        "v=spf1 ip4:192.0.2.7 ip4:1.2.3.4/33",
        "v=spf1 ip4:192.0.2.7 ip6:1::2::3",
        "v=spf1 ip4:192.0.2.7 a:%{x}.example",
        "v=spf1 ip4:192.0.2.7 a:%{d0}.example",
        "v=spf1 ip4:192.0.2.7 exists:%{l" + "9" * 400 + "}.example",
        "v=spf1 ip4:192.0.2.7 redirect=a.example redirect=b.example",
        "v=spf1 ip4:192.0.2.7 exp=a.example EXP=b.example",
        "v=spf1 ip4:192.0.2.7 foo=%",
        "v=spf1 ip4:192.0.2.7 :a",
        "v=spf1 ip4:192.0.2.7 -",
        "v=spf1 ip4:192.0.2.7 include",
        "v=spf1 ip4:192.0.2.7 all:x",
        "v=spf1 ip4:192.0.2.7\t-all",
        "v=spf1 ip4:192.0.2.7 a:\u00e9.example",
        "v=spf1 include:i.example",
    ],
)
def test_a_syntax_error_anywhere_is_permerror_before_anything_matches(text: str) -> None:
    result = of_record(text, i_example={"TXT": ["v=spf1 ip4:192.0.2.7 moo"]})
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.SYNTAX)
    assert result.mechanism == ""
    assert result.detail.startswith("in the record of ")
    assert result.detail.isascii()
    assert result.detail.isprintable()


def test_the_detail_of_a_syntax_error_names_the_record_and_the_term() -> None:
    result = of_record("v=spf1 include:i.example -all", i_example={"TXT": ["v=spf1 a moo -all"]})
    assert result.detail == "in the record of i.example: Unknown mechanism found: moo"


def test_an_unknown_modifier_is_ignored_however_often_it_stands() -> None:
    assert of_record("v=spf1 x=1 x=2 default=pass op=a.b ip4:192.0.2.7 -all").status is SpfStatus.PASS


@pytest.mark.parametrize("text", ["v=spf1 include:i.example", "v=spf1 redirect=i.example"])
def test_a_target_without_a_record_is_permerror(text: str) -> None:
    result = of_record(text, i_example={"TXT": ["no"]})
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.TARGET)


def test_a_record_over_our_size_is_permerror_by_our_limit() -> None:
    result = of_record("v=spf1 " + "ip4:192.0.2.7 " * 600)
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.LIMIT)


def test_a_term_over_our_size_is_permerror_by_our_limit() -> None:
    result = of_record("v=spf1 ip4:192.0.2.7 exists:" + "%{s}." * 110 + "example")
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.LIMIT)


def test_redirect_has_no_effect_beside_all_wherever_it_stands() -> None:
    result = of_record("v=spf1 all redirect=gone.example")
    assert (result.status, result.mechanism, result.lookups) == (SpfStatus.PASS, "all", 0)


def test_redirect_inside_an_include_is_followed_there() -> None:
    result = of_record(
        "v=spf1 include:i.example -all",
        i_example={"TXT": ["v=spf1 redirect=r.example"]},
        r_example={"TXT": ["v=spf1 ip4:192.0.2.7 -all"]},
    )
    assert (result.status, result.mechanism, result.lookups) == (SpfStatus.PASS, "include:i.example", 2)


def test_an_included_fail_is_only_no_match_and_what_matched_before_does_not_stick() -> None:
    result = of_record("v=spf1 include:i.example", i_example={"TXT": ["v=spf1 -all exp=e.example"]})
    assert (result.status, result.mechanism, result.explanation) == (SpfStatus.NEUTRAL, "", "")


# -- DNS trouble, and our own limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["TIMEOUT", "SERVFAIL", "REFUSED"])
@pytest.mark.parametrize(
    "zone",
    [
        {"d.example": {"TXT": "?"}},
        record("v=spf1 include:i.example -all", i_example={"TXT": "?"}),
        record("v=spf1 a:i.example -all", i_example={"A": "?"}),
        record("v=spf1 mx:i.example -all", i_example={"MX": "?"}),
        record("v=spf1 mx:i.example -all", i_example={"MX": ["1 m.example"]}, m_example={"A": "?"}),
        record("v=spf1 exists:i.example -all", i_example={"A": "?"}),
        record("v=spf1 redirect=i.example", i_example={"TXT": "?"}),
    ],
)
def test_dns_trouble_is_temperror_and_never_no_record(zone: dict[str, dict[str, object]], word: str) -> None:
    broken = {n: {t: word if v == "?" else v for t, v in node.items()} for n, node in zone.items()}
    result = mail_of("<u@d.example>", broken)
    assert (result.status, result.problem) == (SpfStatus.TEMPERROR, SpfProblem.DNS)
    assert word.lower() in result.detail


def test_an_error_after_an_include_that_did_not_pass_has_no_mechanism() -> None:
    for node in ({"A": "TIMEOUT"}, {"MX": [f"{i} m{i}.example" for i in range(11)]}):
        kind = "a" if "A" in node else "mx"
        text = f"v=spf1 include:i.example {kind}:t.example -all"
        result = of_record(text, i_example={"TXT": ["v=spf1 -all"]}, t_example=node)
        assert result.status in {SpfStatus.TEMPERROR, SpfStatus.PERMERROR}
        assert result.mechanism == ""


def test_a_match_before_the_trouble_stands() -> None:
    assert (
        of_record("v=spf1 ip4:192.0.2.7 a:i.example -all", i_example={"A": "TIMEOUT"}).status
        is SpfStatus.PASS
    )


@pytest.mark.parametrize("questions", [0, 1, 2])
def test_running_out_of_our_own_questions_is_temperror_by_our_limit(questions: int) -> None:
    zone = record(
        "v=spf1 include:i.example -all", i_example={"TXT": ["v=spf1 a:b.example -all"]}, b_example={"A": [IP]}
    )
    result = mail_of("<u@d.example>", zone, questions=questions)
    assert (result.status, result.problem) == (SpfStatus.TEMPERROR, SpfProblem.LIMIT)


def test_a_closed_lookup_is_temperror_by_our_limit() -> None:
    lookup = BudgetLookup(NothingAtHand(), questions=10)
    lookup.close()
    session = Session(client_ip=parse_ip(IP), helo=parse_helo("d.example"))
    result = check_helo(session, lookup, SpfLimits(), receiver="r")
    assert (result.status, result.problem) == (SpfStatus.TEMPERROR, SpfProblem.LIMIT)


# -- counting -------------------------------------------------------------------------------------------------------


def test_ten_terms_are_evaluated_and_the_eleventh_is_permerror() -> None:
    terms = " ".join(f"exists:e{i}.example" for i in range(11))
    zone: dict[str, object] = {f"e{i}.example": {"TXT": ["x"]} for i in range(12)}
    limits = SpfLimits(voids=100)
    over = mail_of("<u@d.example>", zone | {"d.example": {"TXT": [f"v=spf1 {terms} -all"]}}, limits=limits)
    assert (over.status, over.problem, over.lookups) == (SpfStatus.PERMERROR, SpfProblem.TERM_LIMIT, 10)
    ten = terms.rsplit(" ", 1)[0]
    at = mail_of("<u@d.example>", zone | {"d.example": {"TXT": [f"v=spf1 {ten} -all"]}}, limits=limits)
    assert (at.status, at.lookups, at.voids) == (SpfStatus.FAIL, 10, 10)


def test_a_redirect_counts_when_it_is_followed_and_not_before() -> None:
    zone = {"i.example": {"TXT": ["x"], "A": ["198.51.100.1"]}, "r.example": {"TXT": ["v=spf1 -all"]}}
    ten = " ".join(["a:i.example"] * 9)
    followed = mail_of("<u@d.example>", zone | {"d.example": {"TXT": [f"v=spf1 {ten} redirect=r.example"]}})
    assert (followed.status, followed.lookups) == (SpfStatus.FAIL, 10)
    text = f"v=spf1 {ten} exists:i.example redirect=r.example"
    matched = mail_of("<u@d.example>", zone | {"d.example": {"TXT": [text]}})
    assert (matched.status, matched.lookups) == (SpfStatus.PASS, 10)


def test_a_third_void_lookup_is_permerror() -> None:
    two = of_record("v=spf1 a:x.example a:y.example -all")
    assert (two.status, two.voids, two.lookups) == (SpfStatus.FAIL, 2, 2)
    three = of_record("v=spf1 a:x.example a:y.example a:z.example -all")
    assert (three.status, three.problem, three.voids) == (SpfStatus.PERMERROR, SpfProblem.VOID_LIMIT, 2)
    assert (
        mail_of("<u@d.example>", record("v=spf1 a:x.example -all"), limits=SpfLimits(voids=0)).problem
        is SpfProblem.VOID_LIMIT
    )


def test_the_same_empty_name_is_one_void_lookup() -> None:
    result = of_record("v=spf1 a:x.example a:x.example mx:y.example a:x.example -all")
    assert (result.status, result.voids, result.lookups) == (SpfStatus.FAIL, 2, 4)


def test_exchanges_without_an_ipv6_address_are_one_void_lookup_of_their_term() -> None:
    zone = {f"m{i}.example": {"A": [IP]} for i in range(5)}
    result = mail_of(
        "<u@d.example>",
        zone | record("v=spf1 mx ip6:2001:db8::/32 -all") | {"d.example": {
            "TXT": ["v=spf1 mx ip6:2001:db8::/32 -all"], "MX": [f"1 m{i}.example" for i in range(5)]}},
        ip=IP6,
    )  # fmt: skip
    assert (result.status, result.voids) == (SpfStatus.PASS, 1)


def test_eleven_exchanges_are_permerror_even_if_the_first_matches() -> None:
    node = {"TXT": ["v=spf1 mx -all"], "MX": [f"{i} m{i}.example" for i in range(11)]}
    result = mail_of("<u@d.example>", {"d.example": node, "m0.example": {"A": [IP]}})
    assert (result.status, result.problem) == (SpfStatus.PERMERROR, SpfProblem.TERM_LIMIT)


def test_a_null_mx_matches_nothing() -> None:
    result = mail_of("<u@d.example>", {"d.example": {"TXT": ["v=spf1 mx -all"], "MX": ["0 ."]}})
    assert (result.status, result.voids) == (SpfStatus.FAIL, 0)


def test_a_name_that_cannot_exist_is_not_asked_and_does_not_match() -> None:
    lookup = a_lookup(record("v=spf1 a:x..example a:" + "a" * 64 + ".example mx:%{l}.example exists:. -all"))
    session = Session(client_ip=parse_ip(IP))
    path = parse_reverse_path("<" + "l" * 64 + "@d.example>")
    result = check_mailfrom(session, path, lookup, SpfLimits(), receiver="r")
    assert result.status is SpfStatus.PERMERROR  # `exists:.` is no domain-spec
    lookup = a_lookup(record("v=spf1 a:x..example a:" + "a" * 64 + ".example mx:%{l}.example -all"))
    result = check_mailfrom(session, path, lookup, SpfLimits(), receiver="r")
    assert (result.status, result.voids, lookup.asked) == (SpfStatus.FAIL, 0, 1)


# -- ptr and %{p} -----------------------------------------------------------------------------------------------------

PTR = "7.2.0.192.in-addr.arpa"


def test_ptr_matches_a_confirmed_name_at_or_below_the_target() -> None:
    zone = record("v=spf1 ptr:c.example -all")
    zone |= {PTR: {"PTR": ["x.c.example"]}, "x.c.example": {"A": [IP]}}
    assert mail_of("<u@d.example>", zone).mechanism == "ptr:c.example"
    assert mail_of("<u@d.example>", zone | {"x.c.example": {"A": ["192.0.2.8"]}}).status is SpfStatus.FAIL
    assert (
        mail_of("<u@d.example>", zone | {PTR: {"PTR": ["xc.example"]}, "xc.example": {"A": [IP]}}).status
        is SpfStatus.FAIL
    )


def test_dns_trouble_with_the_names_of_the_client_is_no_match() -> None:
    zone = record("v=spf1 ptr ip4:192.0.2.7 -all")
    assert mail_of("<u@d.example>", zone | {PTR: "TIMEOUT"}).mechanism == "ip4:192.0.2.7"
    names = {PTR: {"PTR": ["bad.d.example", "good.d.example"]}, "good.d.example": {"A": [IP]}}
    assert mail_of("<u@d.example>", zone | names | {"bad.d.example": {"A": "TIMEOUT"}}).mechanism == "ptr"


@pytest.mark.parametrize("questions", [1, 2])
def test_our_own_limit_is_not_taken_for_trouble_with_the_names_of_the_client(questions: int) -> None:
    zone = record("v=spf1 ptr ?all") | {PTR: {"PTR": ["x.d.example"]}, "x.d.example": {"A": [IP]}}
    result = mail_of("<u@d.example>", zone, questions=questions)
    assert (result.status, result.problem) == (SpfStatus.TEMPERROR, SpfProblem.LIMIT)


def test_only_ten_names_of_the_client_are_looked_at() -> None:
    names = [f"n{i}.example" for i in range(11)]
    zone = record("v=spf1 ptr:n10.example -all") | {PTR: {"PTR": names}, "n10.example": {"A": [IP]}}
    assert mail_of("<u@d.example>", zone).status is SpfStatus.FAIL
    assert mail_of("<u@d.example>", zone, limits=SpfLimits(ptr=11)).status is SpfStatus.PASS


def test_macro_p_prefers_the_domain_that_is_being_evaluated() -> None:
    zone = record("v=spf1 exists:%{p}.no.example include:i.example -all")
    zone |= {
        "i.example": {"TXT": ["v=spf1 exists:%{p}.yes.example"]},
        PTR: {"PTR": ["a.example", "b.i.example"]},
        "a.example": {"A": [IP]},
        "b.i.example": {"A": [IP]},
        "b.i.example.yes.example": {"A": ["127.0.0.2"]},
        "no.example": {"TXT": ["x"]},
    }
    assert mail_of("<u@d.example>", zone).mechanism == "include:i.example"


# -- macros with text that is not ASCII --------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["l", "L", "s", "S", "lr-", "s1"])
def test_terms_with_a_local_part_that_is_not_ascii_match_nothing(letter: str) -> None:
    wild = {
        f"{x}.u.example": {"A": [IP]} for x in ("jos%c3%a9", "jos", "%C3%A9", "d.example", "example", "?")
    }
    zone = wild | record(
        f"v=spf1 exists:%{{{letter}}}.u.example ?include:%{{{letter}}}.u.example ip4:192.0.2.7 -all"
    )
    result = mail_of("<jos\u00e9@d.example>", zone)
    assert (result.status, result.mechanism, result.local) == (SpfStatus.PASS, "ip4:192.0.2.7", "jos\u00e9")


def test_a_redirect_by_a_local_part_that_is_not_ascii_leads_nowhere() -> None:
    assert (
        mail_of("<jos\u00e9@d.example>", record("v=spf1 redirect=%{l}.u.example")).status is SpfStatus.NEUTRAL
    )


def test_raw_octets_in_helo_do_no_harm() -> None:
    zone = record("v=spf1 a:%{H}.example a:%{h}.example exp=e.example -all", e_example={"TXT": ["%{h} %{H}"]})
    result = mail_of("<u@d.example>", zone, helo="a\udcff\x00b")
    assert (result.status, result.explanation) == (SpfStatus.FAIL, "a?\\x00b a%3F%00b")


def test_the_helo_literal_is_what_macro_h_stands_for() -> None:
    zone = record("v=spf1 -all exp=e.example", e_example={"TXT": ["from %{h}"]})
    assert mail_of("<u@d.example>", zone, helo="[192.0.2.9]").explanation == "from [192.0.2.9]"


def test_a_quoted_local_part_with_an_at_sign_is_the_whole_local_part() -> None:
    zone = record("v=spf1 exp=e.example -all", e_example={"TXT": ["%{l} / %{s} / %{o} / %{d}"]})
    result = mail_of('<"a@evil.example"@d.example>', zone)
    assert result.explanation == "a@evil.example / a@evil.example@d.example / d.example / d.example"


# -- explanations --------------------------------------------------------------------------------------------------------


def test_an_explanation_is_asked_for_only_after_a_fail() -> None:
    zone = record("v=spf1 ip4:192.0.2.7 -all exp=e.example", e_example={"TXT": ["No: %{i}"]})
    lookup = a_lookup(zone)
    session = Session(client_ip=parse_ip(IP))
    result = check_mailfrom(session, parse_reverse_path("<u@d.example>"), lookup, SpfLimits(), receiver="r")
    assert (result.status, result.explanation, lookup.asked) == (SpfStatus.PASS, "", 1)
    assert mail_of("<u@d.example>", zone, ip="192.0.2.8").explanation == "No: 192.0.2.8"


@pytest.mark.parametrize(
    "node",
    [
        {"TXT": ["one", "two"]},
        {"TXT": "TIMEOUT"},
        {"A": [IP]},
        {"TXT": ["caf\u00e9"]},
        {"TXT": ["%{x}"]},
        {"TXT": ["100%"]},
        {"TXT": ["line\r\nX-Spam: no"]},
        {"TXT": ["x" * 1025]},
    ],
)
def test_an_explanation_that_cannot_be_used_is_left_out(node: dict[str, object]) -> None:
    result = of_record("v=spf1 -all exp=e.example", e_example=node)
    assert (result.status, result.explanation, result.problem, result.detail) == (
        SpfStatus.FAIL,
        "",
        None,
        "",
    )


def test_an_explanation_is_capped() -> None:
    result = of_record("v=spf1 -all exp=e.example", e_example={"TXT": ["x" * 1000]})
    assert len(result.explanation) == 256


def test_an_explanation_is_no_term_and_no_void_lookup() -> None:
    result = of_record("v=spf1 a:x.example a:y.example -all exp=gone.example")
    assert (result.status, result.lookups, result.voids) == (SpfStatus.FAIL, 2, 2)


def test_our_limit_reached_by_an_explanation_does_not_change_the_result() -> None:
    zone = record("v=spf1 -all exp=%{p}.e.example") | {PTR: {"PTR": ["x.d.example"]}}
    for questions in (1, 2):
        result = mail_of("<u@d.example>", zone, questions=questions)
        assert (result.status, result.problem, result.explanation) == (SpfStatus.FAIL, None, "")


def test_macros_of_an_explanation_know_the_receiver() -> None:
    result = of_record("v=spf1 -all exp=e.example", e_example={"TXT": ["%{r} refuses %{c}, 100%%"]})
    assert result.explanation == "mx.receiver.example refuses 192.0.2.7, 100%"
