"""Where published conformance data is found: beside the project, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SUITES = Path(__file__).resolve().parents[2].parent / "shared" / "suites"


def suite_path(name: str) -> Path:
    """Return the path of a suite's file; without it fail where CI=true, else skip and say so."""
    path = _SUITES / name
    if not path.exists():
        message = f"conformance suite {name} is not here ({path})"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path
