"""DMARC of one message (RFC 9989 §5.3): results, policies and what a failure may change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dkim.result import DkimProblem, DkimStatus
from authmilter.dmarc import psl
from authmilter.dmarc.check import check
from authmilter.dmarc.result import (
    AlignedBy,
    DiscoveryMethod,
    DmarcPolicy,
    DmarcProblem,
    DmarcStatus,
    PolicySource,
)
from authmilter.dmarc.settings import DmarcSettings, KeysInTesting
from authmilter.dns.budget import BudgetLookup
from authmilter.message import AuthorHeader, AuthorProblem
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfStatus
from tests.dmarc.builders import ColdResolver, Zone, a_domain, an_author, dkim, evaluate, spf


def a_zone(record: str = "p=reject", at: str = "example.com") -> dict[str, object]:
    return {f"_dmarc.{at}": {"TXT": [f"v=DMARC1; {record}"]}}


# -- alignment (RFC 9989 §4.4, §4.10.2, §B.1)


@pytest.mark.parametrize(
    ("author", "identifier", "strict", "relaxed"),
    [
        ("example.com", "example.com", True, True),
        ("example.com", "child.example.com", False, True),
        ("child.example.com", "example.com", False, True),
        ("news.example.com", "foo.example.com", False, True),
        ("child.example.com", "example.net", False, False),
        ("example.com", "notexample.com", False, False),
        ("example.com", "example.com.evil.net", False, False),
    ],
)
@pytest.mark.parametrize("by", list(AlignedBy))
def test_strict_and_relaxed_alignment(
    author: str, identifier: str, *, strict: bool, relaxed: bool, by: AlignedBy
) -> None:
    for mode, expected in (("s", strict), ("r", relaxed)):
        zone = a_zone(f"p=reject; a{by}={mode}; a{'spf' if by is AlignedBy.DKIM else 'dkim'}=r")
        if by is AlignedBy.SPF:
            result = evaluate(author, zone, spf=spf(identifier))
        else:
            result = evaluate(author, zone, dkim=(dkim(identifier),))
        assert (result.status is DmarcStatus.PASS) is expected
        assert result.aligned == ((by,) if expected else ())
        assert result.aligned_domains == ((a_domain(identifier),) if expected else ())
        assert result.policy is DmarcPolicy.REJECT


def test_siblings_under_a_public_suffix_do_not_align() -> None:
    """RFC 9989 §B.4.3."""
    zone = a_zone("p=reject; psd=y", "bank.example")
    result = evaluate(
        "giant.bank.example", zone, dkim=(dkim("mail.mega.bank.example"), dkim("mega.bank.example"))
    )
    assert result.status is DmarcStatus.FAIL
    assert result.record_at == a_domain("bank.example")
    assert result.organizational_domain == a_domain("giant.bank.example")


@pytest.mark.parametrize("method", list(DiscoveryMethod))
def test_a_public_suffix_and_the_names_below_it_do_not_align(method: DiscoveryMethod) -> None:
    chosen = DmarcSettings(discovery=method)
    zone = {**a_zone("p=reject; psd=y", "bank.example"), **a_zone("p=reject", "giant.bank.example")}
    below = evaluate("giant.bank.example", zone, dkim=(dkim("bank.example"),), settings=chosen)
    above = evaluate("bank.example", zone, dkim=(dkim("giant.bank.example"),), settings=chosen)
    assert below.status is above.status is DmarcStatus.FAIL
    same = evaluate("bank.example", zone, dkim=(dkim("bank.example"),), settings=chosen)
    assert same.status is DmarcStatus.PASS


def test_all_that_aligns_is_told_and_what_does_not_is_explained() -> None:
    result = evaluate(
        "example.com",
        a_zone(),
        spf=spf("bounce.example.com"),
        dkim=(dkim("esp.net"), dkim("example.com"), dkim("example.com", DkimStatus.FAIL)),
    )
    assert result.status is DmarcStatus.PASS
    assert result.aligned == (AlignedBy.SPF, AlignedBy.DKIM)
    assert result.aligned_domains == (a_domain("example.com"), a_domain("bounce.example.com"))
    assert result.because == (
        "example.com has a record of its own, which applies",
        "DKIM domain example.com is the Author Domain: aligned",
        "DKIM domain esp.net has nothing to do with example.com: not aligned",
        "the Organizational Domain of example.com is example.com: no record stands above that of example.com",
        "SPF domain bounce.example.com has the Organizational Domain example.com, too: aligned",
        "p=reject applies",
    )


def test_the_organizational_domain_is_above_the_record() -> None:
    """The trap: the record that applies need not stand at the Organizational Domain."""
    zone = {**a_zone("p=reject", "mail.example.com"), **a_zone("p=none", "example.com")}
    result = evaluate("mail.example.com", zone, dkim=(dkim("other.example.com"),))
    assert result.status is DmarcStatus.PASS
    assert result.record_at == a_domain("mail.example.com")
    assert result.organizational_domain == a_domain("example.com")


def test_an_intended_organizational_domain_needs_psd_no() -> None:
    """RFC 9989 §11.8: the record above joins evil.example.com and mail.example.com; psd=n parts them."""
    signed = (dkim("mail.example.com"),)
    zone = {**a_zone("p=reject", "mail.example.com"), **a_zone("p=reject", "example.com")}
    assert evaluate("evil.example.com", zone, dkim=signed).status is DmarcStatus.PASS
    zone.update(a_zone("p=reject; psd=n", "mail.example.com"))
    assert evaluate("evil.example.com", zone, dkim=signed).status is DmarcStatus.FAIL
    assert evaluate("a.mail.example.com", zone, dkim=signed).status is DmarcStatus.PASS
    strict = {**zone, **a_zone("p=reject; adkim=s", "example.com")}
    assert evaluate("evil.example.com", strict, dkim=signed).status is DmarcStatus.FAIL


# -- what counts as authenticated (RFC 9989 §4.4.1, §4.4.2)


def test_a_helo_pass_counts_for_nothing() -> None:
    result = evaluate("example.com", a_zone(), spf=spf("example.com", identity=SpfIdentity.HELO))
    assert result.status is DmarcStatus.FAIL


@pytest.mark.parametrize(
    "status",
    [s for s in SpfStatus if s not in {SpfStatus.PASS, SpfStatus.TEMPERROR, SpfStatus.INTERNAL_ERROR}],
)
def test_an_spf_result_that_is_no_pass_does_not_count(status: SpfStatus) -> None:
    assert evaluate("example.com", a_zone(), spf=spf("example.com", status)).status is DmarcStatus.FAIL


@pytest.mark.parametrize(
    "status",
    [s for s in DkimStatus if s not in {DkimStatus.PASS, DkimStatus.TEMPERROR, DkimStatus.INTERNAL_ERROR}],
)
def test_a_signature_that_is_no_pass_does_not_count(status: DkimStatus) -> None:
    assert evaluate("example.com", a_zone(), dkim=(dkim("example.com", status),)).status is DmarcStatus.FAIL


def test_a_pass_by_a_testing_key_is_credited_unless_told_otherwise() -> None:
    signed = (dkim("example.com", testing=True),)
    assert evaluate("example.com", a_zone(), dkim=signed).status is DmarcStatus.PASS
    strictly = DmarcSettings(testing_keys=KeysInTesting.IGNORE)
    result = evaluate("example.com", a_zone(), dkim=signed, settings=strictly)
    assert result.status is DmarcStatus.FAIL
    assert "the DKIM pass for example.com is by a testing key and does not count" in result.because


def test_a_broad_spf_pass_is_credited_unless_told_otherwise() -> None:
    sent = spf("example.com", broad=True)
    assert evaluate("example.com", a_zone(), spf=sent).status is DmarcStatus.PASS
    result = evaluate("example.com", a_zone(), spf=sent, settings=DmarcSettings(credit_broad_spf=False))
    assert result.status is DmarcStatus.FAIL
    assert "the SPF pass for example.com is too broad to count" in result.because


# -- which policy (RFC 9989 §4.7, §4.10.1)


@pytest.mark.parametrize(
    ("record", "policy", "source"),
    [
        ("p=reject", "reject", "p"),
        ("p=reject; sp=quarantine", "quarantine", "sp"),
        ("p=reject; sp=quarantine; np=none", "quarantine", "sp"),
        ("p=quarantine; np=reject", "quarantine", "p"),
        ("sp=reject; rua=mailto:a@example.com", "reject", "sp"),
    ],
)
def test_the_policy_for_a_subdomain_that_exists(record: str, policy: str, source: str) -> None:
    result = evaluate("sub.example.com", {**a_zone(record), "sub.example.com": {"A": ["192.0.2.1"]}})
    assert (result.policy, result.policy_source) == (DmarcPolicy(policy), PolicySource(source))


@pytest.mark.parametrize(
    ("record", "policy", "source"),
    [
        ("p=none; np=reject", "reject", "np"),
        ("p=none; sp=quarantine", "quarantine", "sp"),
        ("p=reject; sp=quarantine; np=none", "none", "np"),
        ("p=reject", "reject", "p"),
        ("np=reject; rua=mailto:a@example.com", "reject", "np"),
    ],
)
def test_the_policy_for_a_subdomain_that_does_not_exist(record: str, policy: str, source: str) -> None:
    result = evaluate("nonexistent.example.com", a_zone(record))
    assert (result.policy, result.policy_source) == (DmarcPolicy(policy), PolicySource(source))


def test_sp_and_np_say_nothing_of_the_domain_itself_or_below_a_subdomain() -> None:
    """RFC 9989 §4.7 sp: ignored on a subdomain of the Organizational Domain."""
    assert evaluate("example.com", a_zone("p=none; sp=reject; np=reject")).policy is DmarcPolicy.NONE
    zone = {**a_zone("p=none; sp=reject; np=reject", "b.example.com"), **a_zone("p=quarantine")}
    assert evaluate("b.example.com", zone).policy is DmarcPolicy.NONE
    assert evaluate("a.b.example.com", zone).policy is DmarcPolicy.QUARANTINE


def test_a_public_suffix_s_policy_is_for_the_names_below_it() -> None:
    zone = {
        **a_zone("p=none; sp=quarantine; np=reject; psd=y", "bank.example"),
        "giant.bank.example": {"A": ["192.0.2.1"]},
    }
    assert evaluate("giant.bank.example", zone).policy is DmarcPolicy.QUARANTINE
    assert evaluate("nobody.bank.example", zone).policy is DmarcPolicy.REJECT
    assert evaluate("bank.example", zone).policy is DmarcPolicy.NONE


def test_a_failed_existence_question_counts_as_exists() -> None:
    zone = {**a_zone("p=none; np=reject"), "sub.example.com": "SERVFAIL"}
    result = evaluate("sub.example.com", zone)
    assert result.status is DmarcStatus.FAIL
    assert result.policy is DmarcPolicy.NONE
    assert result.queries[-1].answer == "failed: servfail"


@pytest.mark.parametrize(
    ("record", "policy"),
    [
        ("p=reject; t=y", "quarantine"),
        ("p=quarantine; t=y", "none"),
        ("p=none; t=y", "none"),
        ("p=reject; t=n", "reject"),
        ("p=reject; t=maybe", "reject"),
        ("p=reject; pct=0", "reject"),
    ],
)
def test_the_testing_tag_lowers_the_policy_by_one(record: str, policy: str) -> None:
    result = evaluate("example.com", a_zone(record))
    assert result.policy is DmarcPolicy(policy)
    assert result.testing is ("t=y" in record)
    assert result.published is DmarcPolicy(record[2:].partition(";")[0])


@pytest.mark.parametrize("record", ["p=wrong", "p=reject; sp=wrong", "p=reject; np=wrong", "sp=wrong"])
def test_an_invalid_policy_is_none_with_a_report_address_and_unusable_without(record: str) -> None:
    """RFC 9989 §4.10.1."""
    reported = evaluate(
        "example.com", a_zone(f"{record}; rua=mailto:a@example.com"), dkim=(dkim("example.com"),)
    )
    assert reported.status is DmarcStatus.PASS
    assert (reported.policy, reported.policy_source) == (DmarcPolicy.NONE, PolicySource.P)
    for rua in ("", "; rua=nothing"):
        silent = evaluate("example.com", a_zone(record + rua), dkim=(dkim("example.com"),))
        assert silent.status is DmarcStatus.PERMERROR
        assert silent.problem is DmarcProblem.UNUSABLE_RECORD
        assert silent.policy is None
        assert silent.record is not None


def test_a_missing_policy_is_none_with_a_report_address_and_unusable_without() -> None:
    """RFC 9989 §4.7 and §4.10.1 pull apart; see the text of `check`."""
    assert evaluate("example.com", a_zone("rua=mailto:a@example.com")).policy is DmarcPolicy.NONE
    assert evaluate("example.com", a_zone("adkim=s")).status is DmarcStatus.PERMERROR


def test_an_unusable_record_ends_the_discovery() -> None:
    zone = {**a_zone("p=wrong", "sub.example.com"), **a_zone()}
    assert evaluate("sub.example.com", zone).status is DmarcStatus.PERMERROR


def test_no_record_anywhere_is_none() -> None:
    result = evaluate("a.example.com", {}, dkim=(dkim("a.example.com"),))
    assert result.status is DmarcStatus.NONE
    assert (result.policy, result.record, result.problem) == (None, None, None)
    assert result.because == ("neither a.example.com nor a name above it has a record",)


# -- failures (RFC 9989 §5.3.6)


@pytest.mark.parametrize("word", ["TIMEOUT", "SERVFAIL", "REFUSED"])
@pytest.mark.parametrize("failed", ["_dmarc.sub.example.com", "_dmarc.example.com"])
def test_an_unknown_record_is_a_temporary_error_whatever_passed(word: str, failed: str) -> None:
    zone = {**a_zone(), failed: word}
    result = evaluate("sub.example.com", zone, dkim=(dkim("sub.example.com"),))
    assert result.status is DmarcStatus.TEMPERROR
    assert result.problem is DmarcProblem.DNS
    assert result.policy is None
    assert result.detail == f"the question for {failed} failed: {word.lower()}"


def test_an_aligned_identifier_in_dns_trouble_is_a_temporary_error() -> None:
    signature = dkim("mail.example.com", DkimStatus.TEMPERROR, problem=DkimProblem.KEY_UNAVAILABLE)
    result = evaluate("example.com", a_zone(), dkim=(signature,))
    assert result.status is DmarcStatus.TEMPERROR
    assert result.problem is DmarcProblem.DNS
    assert result.detail == "DKIM for mail.example.com ended in DNS trouble and could be aligned"
    sender = spf("example.com", SpfStatus.TEMPERROR, problem=SpfProblem.DNS)
    assert evaluate("example.com", a_zone(), spf=sender).status is DmarcStatus.TEMPERROR


def test_dns_trouble_changes_nothing_where_another_identifier_passed_aligned() -> None:
    signatures = (dkim("mail.example.com", DkimStatus.TEMPERROR), dkim("example.com"))
    result = evaluate("example.com", a_zone(), dkim=signatures, spf=spf("example.com", SpfStatus.TEMPERROR))
    assert result.status is DmarcStatus.PASS
    assert result.problem is None


def test_dns_trouble_of_strangers_changes_nothing() -> None:
    signatures = tuple(dkim(f"blackhole{n}.evil.net", DkimStatus.TEMPERROR) for n in range(10))
    result = evaluate("example.com", a_zone(), dkim=signatures, spf=spf("evil.net", SpfStatus.TEMPERROR))
    assert result.status is DmarcStatus.FAIL
    assert result.policy is DmarcPolicy.REJECT
    assert result.problem is None


def test_ten_passing_signatures_of_strangers_with_black_holed_dns_still_fail() -> None:
    zone = {
        **a_zone(),
        **{f"_dmarc.d{n}.evil.net": "TIMEOUT" for n in range(10)},
        "_dmarc.evil.net": "TIMEOUT",
    }
    result = evaluate("example.com", zone, dkim=tuple(dkim(f"d{n}.evil.net") for n in range(10)))
    assert result.status is DmarcStatus.FAIL
    assert result.policy is DmarcPolicy.REJECT
    assert [q.name for q in result.queries] == ["_dmarc.example.com"]


@pytest.mark.parametrize("status", [DkimStatus.TEMPERROR, DkimStatus.PASS])
def test_with_strict_alignment_trouble_of_a_subdomain_changes_nothing(status: DkimStatus) -> None:
    zone = {**a_zone("p=reject; adkim=s"), "_dmarc.mail.example.com": "TIMEOUT"}
    assert evaluate("example.com", zone, dkim=(dkim("mail.example.com", status),)).status is DmarcStatus.FAIL


def test_trouble_of_a_sibling_above_the_organizational_domain_changes_nothing() -> None:
    zone = a_zone("p=reject; psd=n", "mail.example.com")
    signatures = (dkim("other.example.com", DkimStatus.TEMPERROR),)
    assert evaluate("a.mail.example.com", zone, dkim=signatures).status is DmarcStatus.FAIL


def test_a_failed_walk_of_a_passing_identifier_is_a_temporary_error() -> None:
    zone = {**a_zone(), "_dmarc.mail.example.com": "TIMEOUT"}
    result = evaluate("example.com", zone, dkim=(dkim("mail.example.com"),))
    assert result.status is DmarcStatus.TEMPERROR
    assert result.problem is DmarcProblem.DNS
    assert result.policy is DmarcPolicy.REJECT
    assert (
        evaluate("example.com", zone, dkim=(dkim("mail.example.com"), dkim("example.com"))).status
        is DmarcStatus.PASS
    )


def test_a_failed_walk_of_the_author_is_a_temporary_error_only_where_alignment_needs_it() -> None:
    zone = {**a_zone("p=reject", "mail.example.com"), "_dmarc.example.com": "TIMEOUT"}
    assert (
        evaluate("mail.example.com", zone, dkim=(dkim("other.example.com"),)).status is DmarcStatus.TEMPERROR
    )
    assert evaluate("mail.example.com", zone, dkim=(dkim("evil.net"),)).status is DmarcStatus.FAIL
    assert evaluate("mail.example.com", zone).status is DmarcStatus.FAIL


def test_our_limit_on_the_record_is_a_temporary_error_named_limit() -> None:
    result = evaluate("sub.example.com", a_zone(), dkim=(dkim("sub.example.com"),), questions=1)
    assert result.status is DmarcStatus.TEMPERROR
    assert result.problem is DmarcProblem.LIMIT


def test_our_limit_on_an_identifier_means_it_did_not_pass() -> None:
    late = (dkim("example.com", DkimStatus.TEMPERROR, problem=DkimProblem.LIMIT),)
    slow = spf("example.com", SpfStatus.TEMPERROR, problem=SpfProblem.LIMIT)
    for found in (
        evaluate("example.com", a_zone(), dkim=late, spf=slow),
        evaluate("example.com", a_zone(), dkim=late),
        evaluate("sub.example.com", a_zone(), spf=slow),
    ):
        assert found.status is DmarcStatus.FAIL
        assert found.problem is DmarcProblem.LIMIT
        assert found.policy is DmarcPolicy.REJECT
    strangers = (dkim("evil.net", DkimStatus.TEMPERROR, problem=DkimProblem.LIMIT),)
    assert evaluate("example.com", a_zone(), dkim=strangers).problem is None


def test_the_organizational_domain_is_told_where_no_question_is_needed_for_it() -> None:
    for author, text in (("example.com", "p=reject"), ("a.b.example.com", "p=reject; psd=n")):
        result = evaluate(author, a_zone(text, author))
        assert result.status is DmarcStatus.FAIL
        assert result.organizational_domain == a_domain(author)
    below = evaluate("mail.example.com", a_zone("p=reject", "mail.example.com"))
    assert below.organizational_domain is None


@pytest.mark.parametrize("questions", [1, 2, 3])
def test_our_limit_on_a_walk_for_alignment_fails_and_says_so(questions: int) -> None:
    result = evaluate("example.com", a_zone(), dkim=(dkim("a.b.example.com"),), questions=questions)
    assert result.status is DmarcStatus.FAIL
    assert result.problem is DmarcProblem.LIMIT
    assert (
        evaluate("example.com", a_zone(), dkim=(dkim("a.b.example.com"),), questions=4).status
        is DmarcStatus.PASS
    )


def test_dns_trouble_is_told_before_our_own_limit() -> None:
    """Time ran out after some answers had come: the first signer is not known, the second failed."""
    zone = {**a_zone(), "_dmarc.b.example.com": "TIMEOUT"}
    known = frozenset({"_dmarc.example.com", "_dmarc.com", "_dmarc.b.example.com"})
    late = BudgetLookup(ColdResolver(zone, known), questions=100)
    late.close()
    signatures = (dkim("a.example.com"), dkim("b.example.com"))
    result = check(an_author("example.com"), None, signatures, late, DmarcSettings())
    assert result.status is DmarcStatus.TEMPERROR
    assert result.problem is DmarcProblem.DNS
    assert result.detail == "the question for _dmarc.b.example.com failed: timeout"


def test_too_many_identifiers_are_left_out_but_never_the_author_s_own() -> None:
    few = DmarcSettings(max_identifiers=2)
    crowd = tuple(dkim(f"d{n}.example.com") for n in range(5))
    apart = {**a_zone(), **{f"_dmarc.d{n}.example.com": {"TXT": ["v=DMARC1; psd=n"]} for n in range(5)}}
    result = evaluate("example.com", apart, dkim=crowd, settings=few)
    assert result.status is DmarcStatus.FAIL
    assert result.problem is DmarcProblem.LIMIT
    assert (
        evaluate("example.com", apart, dkim=(*crowd, dkim("example.com")), settings=few).status
        is DmarcStatus.PASS
    )


@pytest.mark.parametrize("domain", ["example.com", "mail.example.com", None])
def test_our_own_fault_where_it_could_have_decided_is_no_failure_of_the_sender(domain: str | None) -> None:
    for result in (
        evaluate("example.com", a_zone(), dkim=(dkim(domain, DkimStatus.INTERNAL_ERROR),)),
        evaluate("example.com", a_zone(), spf=spf(domain, SpfStatus.INTERNAL_ERROR)),
    ):
        assert result.status is DmarcStatus.INTERNAL_ERROR
        assert result.problem is DmarcProblem.INTERNAL
        assert result.aligned == ()


def test_our_own_fault_elsewhere_changes_nothing() -> None:
    broken = dkim("evil.net", DkimStatus.INTERNAL_ERROR)
    assert evaluate("example.com", a_zone(), dkim=(broken,)).status is DmarcStatus.FAIL
    unknown = dkim(None, DkimStatus.INTERNAL_ERROR)
    assert evaluate("example.com", a_zone(), dkim=(unknown, dkim("example.com"))).status is DmarcStatus.PASS


# -- no single Author Domain (RFC 9989 §4.4, §5.3.1, §11.5)


@pytest.mark.parametrize("problem", list(AuthorProblem))
def test_a_problem_with_the_author_is_a_permanent_error_of_that_name(problem: AuthorProblem) -> None:
    result = evaluate(AuthorHeader(problem=problem, detail="our words"))
    assert result.status is DmarcStatus.PERMERROR
    assert result.problem is DmarcProblem(problem.value)
    assert (result.author, result.policy) == (None, None)
    assert result.detail == "our words"


def test_no_domain_and_no_problem_named_is_no_author() -> None:
    assert evaluate(AuthorHeader()).problem is DmarcProblem.NO_AUTHOR


def test_of_several_authors_the_strictest_policy_that_fails_is_told() -> None:
    zone = {
        **a_zone("p=none", "a.example"),
        **a_zone("p=reject; t=y", "b.example"),
        **a_zone("p=reject", "victim.example"),
    }
    result = evaluate(an_author("a.example", "b.example", "victim.example"), zone, dkim=(dkim("a.example"),))
    assert result.status is DmarcStatus.PERMERROR
    assert result.policy is DmarcPolicy.REJECT
    assert result.record_at == a_domain("victim.example")
    assert result.authors == (a_domain("a.example"), a_domain("b.example"), a_domain("victim.example"))
    assert result.aligned == ()
    two = evaluate(an_author("a.example", "b.example"), zone)
    assert (two.policy, two.published, two.testing) == (DmarcPolicy.QUARANTINE, DmarcPolicy.REJECT, True)


def test_of_several_authors_one_that_passes_by_itself_does_not_count() -> None:
    zone = {**a_zone("p=reject", "a.example"), **a_zone("p=none", "b.example")}
    result = evaluate(an_author("a.example", "b.example"), zone, dkim=(dkim("a.example"),))
    assert result.status is DmarcStatus.PERMERROR
    assert result.policy is DmarcPolicy.NONE
    both = evaluate(an_author("a.example", "b.example"), zone, dkim=(dkim("a.example"), dkim("b.example")))
    assert both.status is DmarcStatus.PERMERROR
    assert both.policy is None


@pytest.mark.parametrize("problem", [AuthorProblem.REPEATED_FROM, AuthorProblem.MALFORMED_FROM])
def test_nothing_aligns_with_a_repeated_or_malformed_from(problem: AuthorProblem) -> None:
    zone = {**a_zone("p=reject", "victim.example"), **a_zone("p=none", "evil.example")}
    signed = (dkim("victim.example"), dkim("evil.example"))
    result = evaluate(an_author("evil.example", "victim.example", problem=problem), zone, dkim=signed)
    assert result.status is DmarcStatus.PERMERROR
    assert result.policy is DmarcPolicy.REJECT


def test_only_so_many_authors_are_evaluated() -> None:
    domains = tuple(f"d{n}.example" for n in range(50))
    zone: Zone = {f"_dmarc.{d}": {"TXT": ["v=DMARC1; p=none"]} for d in domains}
    result = evaluate(an_author(*domains), zone)
    assert len(result.queries) == 4
    assert "only the first 4 of 50 Author Domains were evaluated" in result.because


def test_trouble_with_one_of_several_authors_hides_nothing_of_the_others() -> None:
    zone = {**a_zone("p=reject", "victim.example"), "_dmarc.evil.example": "TIMEOUT"}
    result = evaluate(an_author("evil.example", "victim.example"), zone)
    assert result.status is DmarcStatus.PERMERROR
    assert result.policy is DmarcPolicy.REJECT
    assert "evil.example alone: temperror, policy unknown" in result.because


# -- never raises, never passes unearned

_STATUSES = st.sampled_from(list(DkimStatus))
_DOMAINS = st.sampled_from(
    ["example.com", "a.example.com", "b.a.example.com", "com", "co.uk", "x.co.uk", "evil.net"]
)
_RECORDS = st.sampled_from(
    ["v=DMARC1; p=reject", "v=DMARC1; psd=y", "v=DMARC1; psd=n; p=none", "v=DMARC1; p=x; rua=x", "v=DMARC1; p=reject; np=none", "x"]
)  # fmt: skip
_CONTENT = st.one_of(
    st.lists(_RECORDS, max_size=2).map(lambda r: {"TXT": r}),
    st.sampled_from(["TIMEOUT", "SERVFAIL", "REFUSED"]),
)


@settings(max_examples=300, deadline=None)
@given(
    authors=st.lists(_DOMAINS, max_size=3, unique=True),
    signed=st.lists(st.tuples(_DOMAINS, _STATUSES), max_size=3),
    sender=st.tuples(_DOMAINS, st.sampled_from(list(SpfStatus))),
    content=st.dictionaries(_DOMAINS.map("_dmarc.{}".format), _CONTENT, max_size=4),
    questions=st.integers(1, 12),
    method=st.sampled_from(list(DiscoveryMethod)),
)
def test_it_is_total_and_a_pass_rests_on_a_pass(
    *,
    authors: list[str],
    signed: list[tuple[str, DkimStatus]],
    sender: tuple[str, SpfStatus],
    content: dict[str, object],
    questions: int,
    method: DiscoveryMethod,
) -> None:
    result = evaluate(
        an_author(*authors),
        content,
        spf=spf(*sender),
        dkim=tuple(dkim(*s) for s in signed),
        settings=DmarcSettings(discovery=method),
        questions=questions,
    )
    passed = {d for d, s in signed if s is DkimStatus.PASS} | (
        {sender[0]} if sender[1] is SpfStatus.PASS else set()
    )
    assert (result.status is DmarcStatus.PASS) is bool(result.aligned)
    if result.status is DmarcStatus.PASS:
        assert len(authors) == 1
        assert result.record is not None
        assert {d.ascii for d in result.aligned_domains} <= passed
        # a public suffix never joins names of different owners
        for domain in result.aligned_domains:
            assert psl.organizational_domain(domain) == psl.organizational_domain(a_domain(authors[0]))
    if result.status is DmarcStatus.FAIL:
        assert result.policy is not None
    assert all(
        text.isascii() and text.isprintable() for text in (*result.because, *result.guards, result.detail)
    )
