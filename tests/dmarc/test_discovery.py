"""The DNS Tree Walk, policy discovery and Organizational Domains (RFC 9989 §4.10), and RFC 7489's way."""

from __future__ import annotations

import pytest

from authmilter.dmarc import psl
from authmilter.dmarc.discovery import (
    MAX_QUERIES,
    Discovery,
    Organization,
    select_organizational_domain,
    walk_names,
)
from authmilter.dmarc.result import DiscoveryMethod, DmarcPolicy, Psd
from authmilter.dns.answer import FailureKind
from tests.dmarc.builders import Zone, a_domain
from tests.support.builders import a_lookup

_REJECT = {"TXT": ["v=DMARC1; p=reject"]}
_PSD = {"TXT": ["v=DMARC1; p=reject; psd=y"]}
_TOP = {"TXT": ["v=DMARC1; p=reject; psd=n"]}


def a_discovery(zone: Zone, method: DiscoveryMethod = DiscoveryMethod.TREEWALK) -> Discovery:
    return Discovery(a_lookup(zone), method)


def organization(zone: Zone, name: str, method: DiscoveryMethod = DiscoveryMethod.TREEWALK) -> str | None:
    found = a_discovery(zone, method).organization(a_domain(name))
    return None if found.domain is None else found.domain.ascii


def policy_at(zone: Zone, name: str, method: DiscoveryMethod = DiscoveryMethod.TREEWALK) -> str | None:
    found = a_discovery(zone, method).find_policy(a_domain(name))
    assert found.failure is None
    return None if found.at is None else found.at.ascii


# -- the walk


@pytest.mark.parametrize(
    ("start", "names"),
    [
        ("com", ["com"]),
        ("example.com", ["example.com", "com"]),
        ("a.mail.example.com", ["a.mail.example.com", "mail.example.com", "example.com", "com"]),
        # 8 labels: nothing is skipped
        ("1.2.3.4.5.6.x.com", ["1.2.3.4.5.6.x.com", "2.3.4.5.6.x.com", "3.4.5.6.x.com", "4.5.6.x.com", "5.6.x.com", "6.x.com", "x.com", "com"]),
        # 9 labels: the one between is skipped
        ("0.1.2.3.4.5.6.x.com", ["0.1.2.3.4.5.6.x.com", "2.3.4.5.6.x.com", "3.4.5.6.x.com", "4.5.6.x.com", "5.6.x.com", "6.x.com", "x.com", "com"]),
    ],
)  # fmt: skip
def test_the_names_of_a_walk(start: str, names: list[str]) -> None:
    assert [n.ascii for n in walk_names(a_domain(start))] == names


def test_the_example_of_thirteen_labels() -> None:
    """RFC 9989 §4.10."""
    discovery = a_discovery({})
    discovery.find_policy(a_domain("a.b.c.d.e.f.g.h.i.j.mail.example.com"))
    assert [q.name for q in discovery.queries] == [
        "_dmarc.a.b.c.d.e.f.g.h.i.j.mail.example.com",
        "_dmarc.g.h.i.j.mail.example.com",
        "_dmarc.h.i.j.mail.example.com",
        "_dmarc.i.j.mail.example.com",
        "_dmarc.j.mail.example.com",
        "_dmarc.mail.example.com",
        "_dmarc.example.com",
        "_dmarc.com",
    ]


def test_a_hundred_labels_ask_eight_questions() -> None:
    lookup = a_lookup({})
    Discovery(lookup, DiscoveryMethod.TREEWALK).find_policy(a_domain("x." * 100 + "example.com"))
    assert lookup.asked == MAX_QUERIES


def test_a_skipped_name_is_not_asked_though_it_has_a_record() -> None:
    zone = {"_dmarc.1.2.3.4.5.6.x.com": _TOP, "_dmarc.2.3.4.5.6.x.com": _REJECT}
    assert policy_at(zone, "0.1.2.3.4.5.6.x.com") == "2.3.4.5.6.x.com"


@pytest.mark.parametrize("tag", ["psd=y", "psd=n"])
def test_the_walk_stops_at_a_psd_tag(tag: str) -> None:
    zone = {"_dmarc.b.example.com": {"TXT": [f"v=DMARC1; p=none; {tag}"]}, "_dmarc.example.com": _REJECT}
    discovery = a_discovery(zone)
    discovery.find_policy(a_domain("x.a.b.example.com"))
    assert [q.name for q in discovery.queries][-1] == "_dmarc.b.example.com"


def test_several_records_at_a_name_are_discarded_and_the_walk_goes_on() -> None:
    zone = {
        "_dmarc.mail.example.com": {"TXT": ["v=DMARC1; psd=n", "v=DMARC1; p=none; psd=n"]},
        "_dmarc.example.com": _REJECT,
    }
    discovery = a_discovery(zone)
    assert discovery.find_policy(a_domain("mail.example.com")).at == a_domain("example.com")
    assert [q.answer for q in discovery.queries] == ["several records", "record", "nxdomain"]


def test_a_name_too_long_to_ask_has_no_record_and_the_walk_goes_on() -> None:
    name = ".".join(["x" * 60] * 4 + ["abc", "com"])
    discovery = a_discovery({"_dmarc.abc.com": _REJECT})
    assert discovery.find_policy(a_domain(name)).at == a_domain("abc.com")
    assert discovery.queries[0].answer == "not asked: the name is too long"


# -- the choice of the Organizational Domain


def test_examples_of_the_choice() -> None:
    """RFC 9989 §4.10.2."""
    assert (
        organization(
            {"_dmarc.mail.example.com": _REJECT, "_dmarc.example.com": _REJECT}, "a.mail.example.com"
        )
        == "example.com"
    )
    assert (
        organization({"_dmarc.mail.example.com": _TOP, "_dmarc.example.com": _REJECT}, "a.mail.example.com")
        == "mail.example.com"
    )
    assert organization({"_dmarc.com": _PSD}, "a.mail.example.com") == "example.com"
    assert organization({}, "a.mail.example.com") == "a.mail.example.com"


def test_psd_yes_at_the_start_does_not_make_a_name_below_itself() -> None:
    assert organization({"_dmarc.bank.example": _PSD}, "bank.example") == "bank.example"


def test_one_label_below_a_public_suffix_even_where_the_walk_skipped_it() -> None:
    zone = {"_dmarc.3.4.5.6.7.x.com": _PSD}
    assert organization(zone, "a.b.1.2.3.4.5.6.7.x.com") == "2.3.4.5.6.7.x.com"
    assert policy_at(zone, "a.b.1.2.3.4.5.6.7.x.com") == "3.4.5.6.7.x.com"


@pytest.mark.parametrize(
    ("start", "found", "expected"),
    [
        ("a.b.c", [], "a.b.c"),
        ("a.b.c", [("a.b.c", Psd.UNKNOWN)], "a.b.c"),
        ("a.b.c", [("a.b.c", Psd.UNKNOWN), ("b.c", Psd.UNKNOWN), ("c", Psd.UNKNOWN)], "c"),
        ("a.b.c", [("a.b.c", Psd.NO)], "a.b.c"),
        ("a.b.c", [("a.b.c", Psd.YES)], "a.b.c"),
        ("a.b.c", [("a.b.c", Psd.UNKNOWN), ("b.c", Psd.YES)], "a.b.c"),
        ("z.a.b.c", [("z.a.b.c", Psd.UNKNOWN), ("b.c", Psd.YES)], "a.b.c"),
        ("z.a.b.c", [("b.c", Psd.NO)], "b.c"),
    ],
)
def test_the_rules_of_the_choice(start: str, found: list[tuple[str, Psd]], expected: str) -> None:
    chosen, because = select_organizational_domain(a_domain(start), [(a_domain(n), psd) for n, psd in found])
    assert chosen.ascii == expected
    assert because


# -- which record applies


def test_the_order_of_preference() -> None:
    """RFC 9989 §4.10.1: Author Domain, Organizational Domain, PSD; nothing between."""
    zone: dict[str, object] = {"_dmarc.com": _PSD}
    assert policy_at(zone, "a.b.example.com") == "com"
    zone["_dmarc.b.example.com"] = _REJECT
    assert policy_at(zone, "a.b.example.com") == "com"
    zone["_dmarc.example.com"] = _REJECT
    assert policy_at(zone, "a.b.example.com") == "example.com"
    zone["_dmarc.a.b.example.com"] = _REJECT
    assert policy_at(zone, "a.b.example.com") == "a.b.example.com"


def test_the_choice_is_explained() -> None:
    def why(zone: Zone, name: str) -> str:
        return a_discovery(zone).find_policy(a_domain(name)).because

    assert why({"_dmarc.x.com": _REJECT}, "x.com") == "x.com has a record of its own, which applies"
    assert (
        why({"_dmarc.x.com": _REJECT}, "a.x.com")
        == "a.x.com has no record; that of its Organizational Domain x.com applies"
    )
    assert (
        why({"_dmarc.com": _PSD}, "a.x.com") == "a.x.com has no record; that of its public suffix com applies"
    )
    assert (
        why({"_dmarc.amazonaws.com": _REJECT}, "b.s3.amazonaws.com")
        == "b.s3.amazonaws.com has no record; that of the higher name amazonaws.com applies"
    )
    assert why({}, "a.x.com") == "neither a.x.com nor a name above it has a record"


def test_an_intermediate_record_applies_only_with_psd_no() -> None:
    assert (
        policy_at({"_dmarc.b.example.com": _REJECT, "_dmarc.example.com": _REJECT}, "a.b.example.com")
        == "example.com"
    )
    assert (
        policy_at({"_dmarc.b.example.com": _TOP, "_dmarc.example.com": _REJECT}, "a.b.example.com")
        == "b.example.com"
    )
    assert policy_at({"_dmarc.b.example.com": _REJECT}, "a.b.example.com") == "b.example.com"


def test_a_single_label_is_asked_and_the_root_never() -> None:
    discovery = a_discovery({"_dmarc.example": _PSD})
    found = discovery.find_policy(a_domain("foo.example"))
    assert found.at == a_domain("example")
    assert found.organization == Organization(
        a_domain("foo.example"), "example is a public suffix and foo.example is one label below it"
    )
    assert [q.name for q in discovery.queries] == ["_dmarc.foo.example", "_dmarc.example"]


# -- guards


def test_a_public_suffix_that_forgot_its_psd_tag() -> None:
    discovery = a_discovery({"_dmarc.co.uk": _REJECT})
    found = discovery.find_policy(a_domain("mail.victim.co.uk"))
    assert found.at == a_domain("co.uk")
    assert found.organization is not None
    assert found.organization.domain == a_domain("victim.co.uk")
    assert discovery.guards == (f"co.uk is a public suffix ({psl.version()}): its record counts as psd=y",)


def test_a_public_suffix_that_says_it_is_none() -> None:
    assert organization({"_dmarc.github.io": _TOP}, "a.github.io") == "a.github.io"


def test_a_single_label_that_forgot_its_psd_tag() -> None:
    discovery = a_discovery({"_dmarc.corp": _REJECT})
    assert discovery.organization(a_domain("a.b.corp")).domain == a_domain("b.corp")
    assert discovery.guards == ("corp is a single label: its record counts as psd=y",)


def test_a_record_above_a_public_suffix_does_not_join_the_names_below_it() -> None:
    zone = {"_dmarc.amazonaws.com": _REJECT}
    assert psl.is_public_suffix(a_domain("s3.amazonaws.com"))
    assert organization(zone, "a.bucket.s3.amazonaws.com") == "bucket.s3.amazonaws.com"
    assert organization(zone, "mail.amazonaws.com") == "amazonaws.com"
    discovery = a_discovery(zone)
    discovery.organization(a_domain("bucket.s3.amazonaws.com"))
    assert discovery.guards == (
        f"amazonaws.com is above a public suffix: Organizational Domain is bucket.s3.amazonaws.com ({psl.version()})",
    )


def test_the_guard_takes_no_policy_away() -> None:
    zone: dict[str, object] = {"_dmarc.amazonaws.com": _REJECT}
    assert policy_at(zone, "a.bucket.s3.amazonaws.com") == "amazonaws.com"
    zone["_dmarc.bucket.s3.amazonaws.com"] = {"TXT": ["v=DMARC1; p=quarantine"]}
    assert policy_at(zone, "a.bucket.s3.amazonaws.com") == "bucket.s3.amazonaws.com"


def test_a_public_suffix_is_its_own_organizational_domain() -> None:
    assert organization({"_dmarc.github.io": _REJECT}, "github.io") == "github.io"
    assert organization({"_dmarc.amazonaws.com": _REJECT}, "s3.amazonaws.com") == "s3.amazonaws.com"


# -- failures


@pytest.mark.parametrize("failed", ["a.b.example.com", "b.example.com", "example.com", "com"])
def test_a_failed_question_that_could_have_decided(failed: str) -> None:
    found = a_discovery({f"_dmarc.{failed}": "TIMEOUT"}).find_policy(a_domain("a.b.example.com"))
    assert found.failure is not None
    assert found.failure.name == f"_dmarc.{failed}"
    assert found.failure.kind is FailureKind.TIMEOUT
    assert found.record is None


def test_a_failure_beyond_a_psd_tag_was_not_needed() -> None:
    zone = {"_dmarc.b.example.com": _TOP, "_dmarc.example.com": "SERVFAIL"}
    assert policy_at(zone, "a.b.example.com") == "b.example.com"
    assert organization(zone, "a.b.example.com") == "b.example.com"


def test_a_failure_above_the_registrable_name_with_a_record_changes_nothing() -> None:
    zone = {"_dmarc.example.co.uk": _REJECT, "_dmarc.co.uk": "SERVFAIL", "_dmarc.uk": "TIMEOUT"}
    assert policy_at(zone, "mail.example.co.uk") == "example.co.uk"
    assert organization(zone, "mail.example.co.uk") == "example.co.uk"


def test_running_out_of_questions_is_a_limit_and_not_dns() -> None:
    discovery = Discovery(a_lookup({}, questions=2), DiscoveryMethod.TREEWALK)
    found = discovery.find_policy(a_domain("a.b.example.com"))
    assert found.failure is not None
    assert found.failure.limited


# -- existence


@pytest.mark.parametrize(
    ("zone", "exists", "answer"),
    [
        ({}, False, "nxdomain"),
        ({"a.example.com": {"A": ["192.0.2.1"]}}, True, "exists"),
        ({"a.example.com": {"MX": ["1 mx.example"]}}, True, "exists"),
        ({"below.a.example.com": {"A": ["192.0.2.1"]}}, True, "exists"),
        ({"a.example.com": "SERVFAIL"}, True, "failed: servfail"),
    ],
)
def test_existence_is_anything_but_nxdomain(zone: Zone, *, exists: bool, answer: str) -> None:
    discovery = a_discovery(zone)
    assert discovery.exists(a_domain("a.example.com")) is exists
    assert [(q.name, q.why, q.answer) for q in discovery.queries] == [
        ("a.example.com", "existence of a.example.com", answer)
    ]


# -- RFC 7489

_PSL = DiscoveryMethod.PSL


def test_by_list_the_author_and_then_its_organizational_domain() -> None:
    discovery = a_discovery({"_dmarc.example.com": _REJECT, "_dmarc.b.example.com": _TOP}, _PSL)
    found = discovery.find_policy(a_domain("a.b.example.com"))
    assert found.at == a_domain("example.com")
    assert found.record is not None
    assert found.record.p is DmarcPolicy.REJECT
    assert [q.name for q in discovery.queries] == ["_dmarc.a.b.example.com", "_dmarc.example.com"]


def test_by_list_no_record_above_the_organizational_domain() -> None:
    assert policy_at({"_dmarc.com": _PSD}, "example.com", _PSL) is None
    assert policy_at({"_dmarc.com": _PSD}, "a.example.com", _PSL) is None


def test_by_list_several_records_end_the_discovery() -> None:
    zone = {
        "_dmarc.a.example.com": {"TXT": ["v=DMARC1; p=none", "v=DMARC1; p=reject"]},
        "_dmarc.example.com": _REJECT,
    }
    assert policy_at(zone, "a.example.com", _PSL) is None


def test_by_list_a_failure_is_a_failure() -> None:
    found = a_discovery({"_dmarc.example.com": "TIMEOUT"}, _PSL).find_policy(a_domain("a.example.com"))
    assert found.failure is not None
    assert organization({"_dmarc.example.com": "TIMEOUT"}, "a.example.com", _PSL) is None


def test_by_list_organizational_domains() -> None:
    assert organization({}, "a.b.example.co.uk", _PSL) == "example.co.uk"
    assert organization({}, "co.uk", _PSL) == "co.uk"
    assert organization({"_dmarc.example.com": _TOP}, "a.example.com", _PSL) == "example.com"


def test_by_list_a_suffix_that_the_list_does_not_know() -> None:
    discovery = a_discovery({"_dmarc.bank.example": _PSD}, _PSL)
    assert discovery.organization(a_domain("mail.mega.bank.example")).domain == a_domain("mega.bank.example")
    assert discovery.guards == (
        "bank.example says psd=y: Organizational Domain of mail.mega.bank.example is mega.bank.example",
    )
