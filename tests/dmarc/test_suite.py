"""The published RFC 9989 cases: every one that is not disputed, and our choice on the two that are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authmilter.dkim.result import DkimStatus
from authmilter.dmarc.result import (
    AlignedBy,
    DiscoveryMethod,
    DmarcPolicy,
    DmarcProblem,
    DmarcResult,
    DmarcStatus,
)
from authmilter.dmarc.settings import DmarcSettings
from authmilter.names import Domain
from authmilter.spf.result import SpfStatus
from tests.dmarc.builders import dkim, evaluate, spf
from tests.support.suites import suite_path

_SUITE = "dmarc/rfc9989-cases.json"
_UNDISPUTED = 29
_DISPUTED = ("m9989-multi-records-sub-no-inherit", "m9989-nop-norua")


def _suite() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(suite_path(_SUITE).read_text("utf-8"))
    return content


def _run(case: dict[str, Any], method: DiscoveryMethod = DiscoveryMethod.TREEWALK) -> DmarcResult:
    sender = next(iter(case["spf"]), None)
    return evaluate(
        case["from"].partition("@")[2],
        case["dns"],
        spf=None if sender is None else spf(sender[0], SpfStatus(sender[1])),
        dkim=tuple(dkim(domain, DkimStatus(status)) for domain, status in case["dkim"]),
        settings=DmarcSettings(discovery=method),
    )


def _mismatches(case: dict[str, Any], result: DmarcResult) -> list[str]:
    got = {
        "result": result.status.value,
        "policy": None if result.policy is None else result.policy.value,
        "org": None if result.organizational_domain is None else result.organizational_domain.ascii,
        "record": None if result.record_at is None else result.record_at.ascii,
        "queries": [q.name for q in result.queries if q.why == "policy"],
        "spf_aligned": AlignedBy.SPF in result.aligned,
        "dkim_aligned": AlignedBy.DKIM in result.aligned,
    }
    return [
        f"{case['id']}: {key} is {got[key]!r}, expected {wanted!r}"
        for key, wanted in case["expect"].items()
        if got[key] != wanted
    ]


def test_every_undisputed_case() -> None:
    cases = [c for c in _suite()["cases"] if c["spec"] != "disputed"]
    assert len(cases) == _UNDISPUTED
    assert [m for c in cases for m in _mismatches(c, _run(c))] == []


def test_the_disputed_cases_are_the_two_we_chose_about() -> None:
    assert tuple(c["id"] for c in _suite()["cases"] if c["spec"] == "disputed") == _DISPUTED


def test_several_records_at_a_subdomain_let_the_walk_go_on() -> None:
    """RFC 9989 §4.10 step 2 discards the set and goes on; RFC 7489 §6.6.3 ended there."""
    (case,) = (c for c in _suite()["cases"] if c["id"] == _DISPUTED[0])
    result = _run(case)
    assert result.status is DmarcStatus.FAIL
    assert result.policy is DmarcPolicy.NONE
    assert result.record_at == Domain.parse("example.com")
    assert _run(case, DiscoveryMethod.PSL).status is DmarcStatus.NONE


def test_neither_policy_nor_report_address_is_a_permanent_error() -> None:
    """No policy applies either way; permerror tells the owner that the record is of no use (RFC 9989 §9.2)."""
    (case,) = (c for c in _suite()["cases"] if c["id"] == _DISPUTED[1])
    result = _run(case)
    assert result.status is DmarcStatus.PERMERROR
    assert result.problem is DmarcProblem.UNUSABLE_RECORD
    assert result.policy is None


def test_the_alignment_pairs_by_the_public_suffix_list() -> None:
    """They are older than the tree walk. The last one has an empty label, which no domain of ours has."""
    pairs = _suite()["alignment"]
    assert len(pairs) == 5
    for author, signer, mode, aligned in pairs[:4]:
        zone = {f"_dmarc.{author}": {"TXT": [f"v=DMARC1; p=none; adkim={mode}"]}}
        method = DmarcSettings(discovery=DiscoveryMethod.PSL)
        result = evaluate(author, zone, dkim=(dkim(signer),), settings=method)
        assert (result.status is DmarcStatus.PASS) is aligned, author
    assert Domain.maybe(pairs[4][0]) is None


@pytest.mark.parametrize("method", list(DiscoveryMethod))
def test_cases_of_both_standards_hold_for_both_methods(method: DiscoveryMethod) -> None:
    cases = [c for c in _suite()["cases"] if c["spec"] == "both"]
    assert len(cases) == 19
    assert [m for c in cases for m in _mismatches(c, _run(c, method))] == []
