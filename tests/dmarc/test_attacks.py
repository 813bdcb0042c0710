"""Published spoofing and evasion attacks, as far as DMARC decides them.

`legitimate.com` has p=reject; `attack.com` is the attacker's, with everything in order.
"""

from __future__ import annotations

import pytest

from authmilter.dkim.result import DkimProblem, DkimStatus
from authmilter.dmarc import psl
from authmilter.dmarc.result import DiscoveryMethod, DmarcPolicy, DmarcProblem, DmarcStatus
from authmilter.dmarc.settings import DmarcSettings
from authmilter.message import AuthorHeader, AuthorProblem
from authmilter.spf.result import SpfIdentity, SpfStatus
from tests.dmarc.builders import a_domain, an_author, dkim, evaluate, spf

_ZONE: dict[str, object] = {
    "_dmarc.legitimate.com": {"TXT": ["v=DMARC1; p=reject"]},
    "legitimate.com": {"A": ["192.0.2.1"]},
    "_dmarc.attack.com": {"TXT": ["v=DMARC1; p=reject"]},
    "attack.com": {"A": ["192.0.2.2"]},
}


def test_a_helo_pass_is_not_credited_to_a_mail_from_that_does_not_exist() -> None:
    """Row 1."""
    for checked in (
        spf("mailfrom.notexist.legitimate.com", SpfStatus.NONE),
        spf("helo.attack.com", SpfStatus.PASS, identity=SpfIdentity.HELO),
        spf("legitimate.com", SpfStatus.PASS, identity=SpfIdentity.HELO),
    ):
        result = evaluate("legitimate.com", _ZONE, spf=checked)
        assert result.status is DmarcStatus.FAIL
        assert result.policy is DmarcPolicy.REJECT


def test_the_null_reverse_path_speaks_for_the_helo_domain_only() -> None:
    """Row 3: the MAIL FROM identity is then postmaster@HELO (RFC 7208 §2.4)."""
    assert evaluate("legitimate.com", _ZONE, spf=spf("helo.attack.com")).status is DmarcStatus.FAIL
    assert evaluate("legitimate.com", _ZONE, spf=spf("mx.legitimate.com")).status is DmarcStatus.PASS


@pytest.mark.parametrize("domains", [("attack.com", "legitimate.com"), ("legitimate.com", "attack.com")])
@pytest.mark.parametrize("problem", [AuthorProblem.REPEATED_FROM, AuthorProblem.SEVERAL_AUTHOR_DOMAINS])
def test_two_from_fields_or_two_authors_never_pass(domains: tuple[str, str], problem: AuthorProblem) -> None:
    """Rows 10, 11, 16, 20: also where both policies are equally strict."""
    result = evaluate(
        an_author(*domains, problem=problem), _ZONE, spf=spf("attack.com"), dkim=(dkim("attack.com"),)
    )
    assert result.status is DmarcStatus.PERMERROR
    assert result.problem is DmarcProblem(problem.value)
    assert result.policy is DmarcPolicy.REJECT
    assert result.author is None
    assert result.authors == tuple(a_domain(d) for d in domains)


def test_the_address_after_a_source_route_is_the_author() -> None:
    """Row 18: From: <@attack.com,@any.com:admin@legitimate.com>, if the header's parser reads it at all."""
    assert evaluate("legitimate.com", _ZONE, dkim=(dkim("attack.com"),)).status is DmarcStatus.FAIL
    refused = an_author("legitimate.com", problem=AuthorProblem.MALFORMED_FROM)
    assert evaluate(refused, _ZONE, dkim=(dkim("attack.com"),)).policy is DmarcPolicy.REJECT


def test_an_angle_address_and_a_bare_one_are_malformed() -> None:
    """Row 21."""
    authors = an_author("attack.com", "legitimate.com", problem=AuthorProblem.MALFORMED_FROM)
    result = evaluate(authors, _ZONE, dkim=(dkim("attack.com"),))
    assert result.status is DmarcStatus.PERMERROR
    assert result.policy is DmarcPolicy.REJECT


def test_an_empty_from_is_a_permanent_error() -> None:
    """Row 22."""
    result = evaluate(AuthorHeader(fields=1, problem=AuthorProblem.NO_AUTHOR), _ZONE, spf=spf("attack.com"))
    assert result.status is DmarcStatus.PERMERROR
    assert result.problem is DmarcProblem.NO_AUTHOR
    assert result.queries == ()


@pytest.mark.parametrize("record", ["p=reject", "p=none; np=reject", "p=none; sp=reject"])
def test_a_subdomain_that_does_not_exist_has_the_policy_for_it(record: str) -> None:
    """Row 25."""
    zone = {"_dmarc.legitimate.com": {"TXT": [f"v=DMARC1; {record}"]}}
    result = evaluate("nonexist.legitimate.com", zone, spf=spf("attack.com"))
    assert result.status is DmarcStatus.FAIL
    assert result.policy is DmarcPolicy.REJECT


def test_a_forwarder_s_signature_does_not_align() -> None:
    """Row 26."""
    result = evaluate("legitimate.com", _ZONE, spf=spf("forwarder.net"), dkim=(dkim("forwarder.net"),))
    assert result.status is DmarcStatus.FAIL
    assert result.policy is DmarcPolicy.REJECT


def test_a_homograph_has_its_own_result() -> None:
    """Row 28."""
    zone = {**_ZONE, "_dmarc.xn--80aa1cn6g67a.com": {"TXT": ["v=DMARC1; p=none"]}}
    result = evaluate("xn--80aa1cn6g67a.com", zone, dkim=(dkim("xn--80aa1cn6g67a.com"),))
    assert result.status is DmarcStatus.PASS
    assert result.author == a_domain("xn--80aa1cn6g67a.com")
    assert evaluate("xn--80aa1cn6g67a.com", zone, dkim=(dkim("legitimate.com"),)).status is DmarcStatus.FAIL


@pytest.mark.parametrize("method", list(DiscoveryMethod))
@pytest.mark.parametrize(
    ("author", "suffix", "what"),
    [
        ("example.com", "com", "a single label"),
        ("legitimate.co.uk", "co.uk", "public suffix"),
        ("a.legitimate.co.uk", "co.uk", "public suffix"),
        ("legitimate.unlisted", "unlisted", "a single label"),
        ("user.github.io", "github.io", "public suffix"),
    ],
)
@pytest.mark.parametrize("record", ["p=reject", "p=reject; psd=n"])
def test_a_public_suffix_speaks_for_nobody_below_it(
    method: DiscoveryMethod, author: str, suffix: str, what: str, record: str
) -> None:
    """Row 40: as d=, as SPF domain and as holder of a record."""
    chosen = DmarcSettings(discovery=method)
    zone = {
        f"_dmarc.{suffix}": {"TXT": [f"v=DMARC1; {record}"]},
        f"_dmarc.{author}": {"TXT": ["v=DMARC1; p=reject"]},
    }
    result = evaluate(author, zone, spf=spf(suffix), dkim=(dkim(suffix),), settings=chosen)
    assert result.status is DmarcStatus.FAIL
    notes = [n for n in result.guards if n.endswith("never aligned with names below it")]
    assert len(notes) == 2
    for note in notes:
        assert what in note
        assert (psl.version() in note) is ("." in suffix)
    sibling = evaluate(author, zone, dkim=(dkim(f"attacker.{suffix}"),), settings=chosen)
    assert sibling.status is DmarcStatus.FAIL


def test_names_under_an_unlisted_suffix_do_not_align_with_each_other() -> None:
    """Row 40."""
    zone = {"_dmarc.unlisted": {"TXT": ["v=DMARC1; p=reject"]}}
    result = evaluate("victim.unlisted", zone, dkim=(dkim("attacker.unlisted"),))
    assert result.status is DmarcStatus.FAIL
    assert result.record_at == a_domain("unlisted")
    assert result.guards == ("unlisted is a single label: its record counts as psd=y",)


def test_spf_alone_by_a_shared_network_is_told_apart() -> None:
    """Rows 45, 50: a policy can ask for DKIM, and a broad SPF pass need not count."""
    sent = spf("legitimate.com", broad=True)
    assert [by.value for by in evaluate("legitimate.com", _ZONE, spf=sent).aligned] == ["spf"]
    careful = DmarcSettings(credit_broad_spf=False)
    assert evaluate("legitimate.com", _ZONE, spf=sent, settings=careful).status is DmarcStatus.FAIL


def test_a_signature_that_leaves_the_body_open_does_not_count() -> None:
    """Row 34 as it reaches DMARC: the status is then `policy`."""
    signature = dkim("legitimate.com", DkimStatus.POLICY, problem=DkimProblem.UNSIGNED_BODY)
    assert evaluate("legitimate.com", _ZONE, dkim=(signature,)).status is DmarcStatus.FAIL


def test_an_address_in_the_display_name_is_nobody() -> None:
    """Row 51: From: "admin@legitimate.com" <x@attack.com> has the author attack.com."""
    result = evaluate("attack.com", _ZONE, dkim=(dkim("attack.com"),))
    assert result.status is DmarcStatus.PASS
    assert result.author == a_domain("attack.com")


def test_a_hyphen_is_part_of_the_name() -> None:
    """Row 52."""
    zone = {"_dmarc.my-bank.com": {"TXT": ["v=DMARC1; p=reject"]}, "_dmarc.my": {"TXT": ["v=DMARC1; p=none"]}}
    result = evaluate("my-bank.com", zone, dkim=(dkim("my.com"), dkim("bank.com")))
    assert result.status is DmarcStatus.FAIL
    assert result.policy is DmarcPolicy.REJECT
    assert result.record_at == a_domain("my-bank.com")


def test_ten_black_holed_signatures_of_strangers_do_not_soften_a_reject() -> None:
    signatures = tuple(
        dkim(f"s{n}.attack.com", DkimStatus.TEMPERROR, problem=DkimProblem.KEY_UNAVAILABLE) for n in range(10)
    )
    zone = {**_ZONE, **{f"_dmarc.s{n}.attack.com": "TIMEOUT" for n in range(10)}}
    result = evaluate("legitimate.com", zone, spf=spf("attack.com", SpfStatus.TEMPERROR), dkim=signatures)
    assert result.status is DmarcStatus.FAIL
    assert result.policy is DmarcPolicy.REJECT
