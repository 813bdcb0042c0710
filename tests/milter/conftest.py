"""Fixtures that tests of this folder share with others."""

from __future__ import annotations

from tests.support.loops import run

__all__ = ["run"]
