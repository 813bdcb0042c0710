"""Fixtures of the end-to-end tests: they need root (Postfix's master does) and skip aloud without it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("the end-to-end tests must run as root in CI")
        pytest.skip("a private Postfix needs root")
