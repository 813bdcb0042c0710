"""Builders for tests: plain calls with a zone as data."""

from __future__ import annotations

from collections.abc import Mapping

from authmilter.dns.budget import BudgetLookup
from authmilter.dns.zone import ZoneResolver


def a_lookup(zone: Mapping[str, object] | None = None, *, questions: int = 1000) -> BudgetLookup:
    """A lookup over a zone: nothing is ever missing."""
    return BudgetLookup(ZoneResolver(zone or {}), questions=questions)
