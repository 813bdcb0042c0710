"""What runs once over TCP and once over a unix socket."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["unix", pytest.param("tcp", marks=pytest.mark.slow)])
def mostly_unix(request: pytest.FixtureRequest) -> bool:
    """The same, over TCP only where there is time."""
    return bool(request.param == "unix")


@pytest.fixture(params=["tcp", "unix"])
def unix(request: pytest.FixtureRequest) -> bool:
    """Whether the service listens on a unix socket."""
    return bool(request.param == "unix")
