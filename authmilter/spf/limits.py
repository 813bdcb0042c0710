"""The limits of one SPF check (RFC 7208 §4.6.4) and what counts as a network too wide to mean anything."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SpfLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpfLimits:
    """Limits of one check; the defaults are those of RFC 7208 §4.6.4.

    `terms`: include, a, mx, ptr, exists and redirect that may be evaluated in all; more is permerror.
    `voids`: void lookups; more is permerror. `mx`: exchanges of one mx term; more is permerror.
    `ptr`: names of the client that are looked at; the rest is ignored.
    `broad_prefix4`, `broad_prefix6`: a pass through a network with a shorter prefix is flagged `broad`.
    """

    terms: int = 10
    voids: int = 2
    mx: int = 10
    ptr: int = 10
    broad_prefix4: int = 8
    broad_prefix6: int = 16
