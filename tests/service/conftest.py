"""What runs once over TCP and once over a unix socket."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["tcp", "unix"])
def unix(request: pytest.FixtureRequest) -> bool:
    """Whether the service listens on a unix socket."""
    return bool(request.param == "unix")
