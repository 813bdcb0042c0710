"""Makers: the same values as by the class, refused alike."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from authmilter.makers import maker

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: object = None
    label: str = ""


make = maker(Point)


def test_what_is_made_is_what_the_class_makes() -> None:
    for by in (Point, make):
        assert by(1) == Point(1, None, "")
        assert by(1, 2, "c") == by(x=1, y=2, label="c") == by(label="c", y=2, x=1) == by(1, label="c", y=2)
        assert by(1, label="z") == Point(1, None, "z")
        assert type(by(1)) is Point
        assert hash(by(1, 2)) == hash(Point(1, 2))
        with pytest.raises(FrozenInstanceError):
            by(1).x = 2  # type: ignore[misc]  # that it cannot be is what is shown


def test_a_name_that_is_built_at_run_time_is_found_too() -> None:
    name = "LABEL".lower()
    values: dict[str, Any] = {"x": 1, name: "n"}
    assert make(**values) == Point(1, None, "n")


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((), {"y": 1}), ((1, 2, 3, 4), {}), ((1,), {"x": 2}), ((1,), {"z": 2}), ((1,), {"labe": ""})],
)
def test_wrong_arguments_are_a_type_error(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    for by in (Point, make):
        with pytest.raises(TypeError):
            by(*values, **named)


def test_classes_that_are_no_plain_values_are_refused() -> None:
    @dataclass(frozen=True)
    class WithoutSlots:
        x: int

    @dataclass(frozen=True, slots=True)
    class Checked:
        x: int

        def __post_init__(self) -> None:
            raise AssertionError

    @dataclass(frozen=True, slots=True)
    class Fresh:
        x: list[int] = field(default_factory=list)

    @dataclass(frozen=True, slots=True)
    class Below(Point):
        z: int = 0

    for kind in (WithoutSlots, Checked, Fresh, Below, int):
        with pytest.raises(TypeError):
            maker(kind)


def test_values_are_let_go_and_rings_of_them_are_found() -> None:
    class Kept:
        alive = 0

        def __init__(self) -> None:
            Kept.alive += 1

        def __del__(self) -> None:
            Kept.alive -= 1

    for n in range(100):
        make(n, Kept(), label="l")
        with pytest.raises(TypeError):
            make(n, Kept(), nothing=1)  # type: ignore[call-arg]  # that it cannot be is what is shown
    assert Kept.alive == 0
    ring: list[object] = [Kept()]
    ring.append(make(1, ring))
    del ring
    gc.collect()
    assert Kept.alive == 0


def test_without_the_compiled_one_the_class_itself_makes() -> None:
    code = "import authmilter.makers as m, authmilter.verdict as v; print(m.maker(v.Step) is v.Step)"
    for pure in ("1", ""):
        asked = {**os.environ, "AUTHMILTER_PURE": pure}
        done = subprocess.run(
            [sys.executable, "-c", code], env=asked, cwd=ROOT, capture_output=True, text=True, check=True
        )
        # (without a compiler the second answer would be the first; CI has one)
        if pure or os.environ.get("CI"):
            assert done.stdout.strip() == str(bool(pure))
