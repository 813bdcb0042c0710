"""The benchmarks do what they say; how long they take is no test's business."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.bench import ratios
from tests.benchmarks.corpus import BODIES, SIZES, a_body, corpus, zone
from tests.benchmarks.load import negotiated_as, percentile, prepare, run
from tests.benchmarks.workloads import CASES, YARDSTICKS, judged, letter
from tests.support.service import Service


@pytest.mark.parametrize("name", CASES)
def test_a_case_does_its_work(name: str) -> None:
    work = CASES[name].make()
    assert work() is not None or name == "log line"
    assert CASES[name].yardstick in YARDSTICKS


def test_the_baseline_knows_every_case_and_no_other() -> None:
    baseline = json.loads(Path(__file__).with_name("baseline.json").read_text())
    assert list(baseline["ratios"]) == list(CASES)
    assert all(0 < ratio < 10_000 for ratio in baseline["ratios"].values())


def test_a_ratio_is_to_the_yardsticks_beside_it() -> None:
    def row(name: str, least: float, **info: str) -> dict[str, Any]:
        return {"param": name, "stats": {"min": least}, "extra_info": info}

    rows = [
        row("", 1.0, is_yardstick="python"),
        row("", 50.0, is_yardstick="rsa"),
        row("a", 6.0, yardstick="python"),
        row("", 2.0, is_yardstick="python"),
        row("b", 4.0, yardstick="python"),
        row("", 2.0, is_yardstick="python"),
    ]
    assert {n: r["ratio"] for n, r in ratios(rows).items()} == {"a": 4.0, "b": 2.0}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("size", SIZES)
def test_a_body_has_the_size_it_is_asked_for(kind: str, size: int) -> None:
    body = a_body(kind, size)
    assert abs(len(body) - size) <= 2
    assert body.endswith(b"\r\n")


def test_what_is_measured_is_mail_that_passes() -> None:
    found: Counter[str] = Counter()
    for each in corpus(40):
        _mail, verdict, _built = judged(each)
        assert verdict.evidence.spf is not None
        assert verdict.evidence.dmarc is not None
        found[f"spf {verdict.evidence.spf.status}"] += 1
        found[f"dmarc {verdict.evidence.dmarc.status}"] += 1
    assert found == {"spf pass": 40, "dmarc pass": 40}


def test_what_is_prepared_is_what_a_service_understands() -> None:
    with Service(zone=zone(), policy="monitor", unix=True, workers=1) as service:
        messages = [prepare(each, negotiated_as()) for each in (letter(2_000), letter(300_000))]
        done = run(f"unix:{service.socket}", messages, sessions=3, most=10)
        lines = service.log_lines()
    assert (len(done.latencies), done.errors, done.verdicts) == (10, 0, {"a": 10})
    assert [line["dmarc"] for line in lines] == ["pass"] * 10
    assert percentile(done.latencies, 1.0) == max(done.latencies)
