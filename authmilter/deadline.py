"""Deadline: one monotonic budget, handed down a call tree.

The only file that reads the monotonic clock; everything else is given a `Deadline` or a time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Deadline", "monotonic"]


#: Returns seconds on a clock that never goes back (no meaning but differences).
monotonic = time.monotonic


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock after which work is not worth doing; `at` is in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline `seconds` (0 or more) from now."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        """True when no time is left."""
        return time.monotonic() >= self.at

    def or_after(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and `seconds` from now."""
        return Deadline(min(self.at, time.monotonic() + seconds))
