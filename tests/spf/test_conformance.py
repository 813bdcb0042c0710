"""The openspf test suite for RFC 7208, all of it, explanations included."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from authmilter.mail import Session
from authmilter.names import Address, Domain, ReversePath, parse_helo, parse_ip, parse_reverse_path
from authmilter.spf.check import SpfLimits, check_mailfrom
from authmilter.spf.result import SpfIdentity, SpfResult
from tests.support.builders import a_lookup
from tests.support.rounds import in_rounds
from tests.support.suites import suite_path

_TYPES = ("A", "AAAA", "CNAME", "MX", "PTR", "TXT")


def _records(entries: list[Any]) -> dict[str, list[Any]]:
    records: dict[str, list[Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        for rdtype, data in entry.items():
            if rdtype == "MX":
                data = f"{data[0]} {data[1] or '.'}"  # noqa: PLW2901 - the suite's form becomes the zone's
            elif rdtype in {"TXT", "SPF"}:
                strings = data if isinstance(data, list) else [data]
                # characters of the suite's texts stand for octets
                data = [s.encode("latin-1") for s in strings] if data != "NONE" else None  # noqa: PLW2901 - as above
            records.setdefault(rdtype, []).append(data)
    return records


def _zone(suite: dict[str, list[Any]]) -> dict[str, object]:
    """The suite's zone as ours: SPF records double as TXT where there is no TXT, TIMEOUT is for the other types."""
    zone: dict[str, object] = {}
    for name, entries in suite.items():
        records = _records(entries)
        if "TXT" not in records and "SPF" in records:
            records["TXT"] = records["SPF"]
        node: dict[str, object] = {
            rdtype: [r for r in data if r is not None] for rdtype, data in records.items() if rdtype != "SPF"
        }
        if "TIMEOUT" in entries:
            node.update({rdtype: "TIMEOUT" for rdtype in _TYPES if not node.get(rdtype)})
        zone[name] = node
    return zone


def _reverse_path(mail_from: str) -> ReversePath:
    if mail_from.startswith("@"):
        # No MTA lets an empty local part through; check_host() has a rule for it all the same (§4.3).
        return Address("", Domain.parse(mail_from[1:]))
    if " " in mail_from:
        local, _, domain = mail_from.partition("@")
        return Address(local, Domain.parse(domain))
    return parse_reverse_path(mail_from)


def _run(test: dict[str, Any], zone: dict[str, object]) -> SpfResult:
    session = Session(client_ip=parse_ip(test["host"]), helo=parse_helo(test["helo"]))
    path = _reverse_path(test["mailfrom"])
    return check_mailfrom(session, path, a_lookup(zone), SpfLimits(), receiver="receiver.example")


def _cases() -> Iterator[tuple[str, dict[str, Any], dict[str, object]]]:
    with suite_path("spf/rfc7208-tests.yml").open(encoding="utf-8") as file:
        for scenario in yaml.safe_load_all(file):
            zone = _zone(scenario["zonedata"])
            for name, test in scenario["tests"].items():
                yield f"{scenario['description']}: {name}", test, zone


def test_every_result_of_the_suite_is_ours() -> None:
    wrong: list[str] = []
    ran = 0
    for name, test, zone in _cases():
        ran += 1
        result = _run(test, zone)
        allowed = test["result"] if isinstance(test["result"], list) else [test["result"]]
        if result.status not in allowed or result.identity is not SpfIdentity.MAILFROM:
            wrong.append(f"{name}: {result} but {allowed}")
    assert wrong == []
    assert ran == 203


def test_every_result_is_the_same_when_nothing_is_at_hand() -> None:
    ran = 0
    for _, test, zone in _cases():
        session = Session(client_ip=parse_ip(test["host"]), helo=parse_helo(test["helo"]))
        path = _reverse_path(test["mailfrom"])
        check = partial(check_mailfrom, session, path, limits=SpfLimits(), receiver="receiver.example")
        cold, rounds, _ = in_rounds(check, zone)
        assert cold == _run(test, zone)
        assert rounds <= 12
        ran += 1
    assert ran == 203


def test_every_explanation_of_the_suite_is_ours() -> None:
    wrong: list[str] = []
    given = default = 0
    for name, test, zone in _cases():
        expected = test.get("explanation")
        if expected is None:
            continue
        # DEFAULT is the receiver's own text in the absence of an explanation; we have none, so ours is empty
        if expected == "DEFAULT":
            default += 1
            expected = ""
        else:
            given += 1
        result = _run(test, zone)
        if result.explanation != expected:
            wrong.append(f"{name}: {result} but {expected!r}")
    assert wrong == []
    assert (given, default) == (14, 8)


@pytest.mark.parametrize("status", ["pass", "neutral", "softfail", "temperror", "permerror", "none"])
def test_only_a_fail_has_an_explanation(status: str) -> None:
    results = [_run(test, zone) for _, test, zone in _cases()]
    assert [r for r in results if r.status == status]
    assert not [r for r in results if r.status == status and r.explanation]
