"""What holds for all tests: a property test has no deadline of its own, for a busy machine is no defect of the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("authmilter", deadline=None)
settings.load_profile("authmilter")
