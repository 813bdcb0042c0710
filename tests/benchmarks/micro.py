"""The micro-benchmarks, for pytest-benchmark: `pytest tests/benchmarks/micro.py`; `make bench` runs and compares them.

Its name keeps it out of the ordinary test run: what it measures is no test. The yardsticks run several times in between,
since a machine that others use too is not equally fast all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

from tests.benchmarks.workloads import CASES, YARDSTICKS

#: After so many cases the yardsticks run again.
_EVERY = 6


class Benchmark(Protocol):
    """What pytest-benchmark's fixture is."""

    extra_info: dict[str, str]

    def __call__(self, work: Callable[[], object], /) -> object:
        """Measure."""


def _rows() -> list[str]:
    rows = []
    for number, name in enumerate(CASES):
        if number % _EVERY == 0:
            rows += [f"yardstick {y} {number // _EVERY}" for y in YARDSTICKS]
        rows.append(name)
    return rows + [f"yardstick {y} last" for y in YARDSTICKS]


@pytest.mark.parametrize("row", _rows())
def test_speed(row: str, benchmark: Benchmark) -> None:
    if row in CASES:
        benchmark.extra_info["yardstick"] = CASES[row].yardstick
        benchmark(CASES[row].make())
    else:
        benchmark.extra_info["is_yardstick"] = row.split()[1]
        benchmark(YARDSTICKS[row.split()[1]]())
