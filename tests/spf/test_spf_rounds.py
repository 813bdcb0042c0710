"""A cold record takes few rounds, and reading ahead changes nothing but their number."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from authmilter.mail import Session
from authmilter.names import parse_helo, parse_ip, parse_reverse_path
from authmilter.ports import Lookup
from authmilter.spf.check import SpfLimits, check_mailfrom
from authmilter.spf.result import SpfProblem, SpfResult, SpfStatus
from tests.support.rounds import in_rounds

IP = "192.0.2.7"


def check(lookup: Lookup, ip: str = IP) -> SpfResult:
    session = Session(client_ip=parse_ip(ip), helo=parse_helo("helo.example"))
    return check_mailfrom(session, parse_reverse_path("<u@d.example>"), lookup, SpfLimits(), receiver="r")


def three_includes() -> dict[str, object]:
    zone: dict[str, object] = {
        "d.example": {"TXT": ["v=spf1 include:a.example include:b.example include:c.example -all"]}
    }
    for name in ("a.example", "b.example", "c.example"):
        zone[name] = {"TXT": ["v=spf1 mx -all"], "MX": [f"{i} m{i}.{name}" for i in range(5)]}
        for i in range(5):
            zone[f"m{i}.{name}"] = {"A": ["198.51.100.1"], "AAAA": ["2001:db8:1::1"]}
    return zone


@pytest.mark.parametrize("ip", [IP, "2001:db8::7"])
def test_three_includes_of_five_exchanges_each_take_four_rounds(ip: str) -> None:
    result, rounds, lookup = in_rounds(lambda lookup: check(lookup, ip), three_includes())
    assert result.status is SpfStatus.FAIL
    assert rounds == 4
    assert (result.lookups, result.voids) == (6, 0)
    assert lookup.asked == 1 + 3 + 3 + 15


def test_without_a_share_for_hints_the_result_is_the_same() -> None:
    cold, rounds, _ = in_rounds(check, three_includes(), hints=0)
    warm, _, _ = in_rounds(check, three_includes())
    assert cold == warm
    assert rounds == 22


def test_a_match_in_the_first_include_asks_for_the_others_ahead_but_does_not_count_them() -> None:
    zone = three_includes() | {
        "a.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]},
        "b.example": {},
        "c.example": {},
    }
    result, rounds, lookup = in_rounds(check, zone)
    assert result.status is SpfStatus.PASS
    assert (rounds, result.lookups, result.voids, lookup.asked) == (2, 1, 0, 2)


def test_names_read_ahead_that_lead_to_nothing_are_no_void_lookups() -> None:
    zone: dict[str, object] = {
        "d.example": {
            "TXT": ["v=spf1 a:x.example ip4:192.0.2.7 a:y.example mx:z.example exists:w.example -all"]
        }
    }
    result, rounds, _ = in_rounds(check, zone)
    assert (result.status, result.voids, rounds) == (SpfStatus.PASS, 1, 2)


def test_every_kind_of_target_is_read_ahead() -> None:
    zone: dict[str, object] = {
        "d.example": {
            "TXT": [
                "v=spf1 a a:x.example/24 mx exists:e.example ptr:no.example include:i.example redirect=r.example"
            ],
            "A": ["198.51.100.1"],
            "MX": ["1 m.d.example"],
        },
        "x.example": {"A": ["198.51.100.2"]},
        "m.d.example": {"A": ["198.51.100.3"]},
        "7.2.0.192.in-addr.arpa": {"PTR": ["h.example"]},
        "h.example": {"A": [IP]},
        "i.example": {"TXT": ["v=spf1 a:x.example -all"]},
        "r.example": {"TXT": ["v=spf1 a:m.d.example ip4:192.0.2.7 -all"]},
    }
    result, rounds, _ = in_rounds(check, zone)
    assert (result.status, result.mechanism) == (SpfStatus.PASS, "ip4:192.0.2.7")
    assert rounds == 3


def test_terms_with_macros_are_not_read_ahead() -> None:
    zone: dict[str, object] = {
        "d.example": {"TXT": ["v=spf1 exists:%{i}.a.example exists:%{i}.b.example -all"]}
    }
    result, rounds, _ = in_rounds(check, zone)
    assert (result.status, rounds) == (SpfStatus.FAIL, 3)


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 include:d.example include:d.example -all",
        "v=spf1 redirect=d.example",
        "v=spf1 include:e.example",
    ],
)
def test_loops_end_in_permerror_and_few_questions(text: str) -> None:
    zone: dict[str, object] = {
        "d.example": {"TXT": [text]},
        "e.example": {"TXT": ["v=spf1 include:d.example"]},
    }
    result, rounds, lookup = in_rounds(check, zone)
    assert result.status is SpfStatus.PERMERROR
    assert rounds <= 2
    assert lookup.asked <= 2


def test_only_as_many_terms_as_are_allowed_are_read_ahead() -> None:
    names = " ".join(f"a:n{i}.example" for i in range(30))
    zone: dict[str, object] = {f"n{i}.example": {"A": ["198.51.100.1"]} for i in range(30)}
    zone["d.example"] = {"TXT": [f"v=spf1 {names} -all"]}
    result, rounds, lookup = in_rounds(check, zone)
    assert (result.problem, rounds, lookup.asked) == (SpfProblem.TERM_LIMIT, 2, 11)
    assert len(lookup.exchanged) == 11


def test_a_share_of_questions_that_runs_out_midway_ends_in_our_limit() -> None:
    result, _, _ = in_rounds(check, three_includes(), questions=10)
    assert (result.status, result.problem) == (SpfStatus.TEMPERROR, SpfProblem.LIMIT)


@pytest.mark.parametrize("hints", [0, 3, 60])
def test_names_of_the_client_are_asked_together(hints: int) -> None:
    names = [f"n{i}.d.example" for i in range(8)]
    zone: Mapping[str, object] = {
        "d.example": {"TXT": ["v=spf1 ptr -all"]},
        "7.2.0.192.in-addr.arpa": {"PTR": names},
        "n7.d.example": {"A": [IP]},
    }
    result, rounds, _ = in_rounds(check, zone, hints=hints)
    assert (result.status, result.voids, rounds) == (SpfStatus.PASS, 0, 3)
