"""What a worker counts: messages by disposition and rule, what monitor mode held back, bugs, time.

Plain numbers in a flat mapping, so that workers can report them to the supervisor and the supervisor can add
them up; keys are `name` or `name{label=value}` with values from our own closed lists or the policy's rule ids.
"""

from __future__ import annotations

from collections.abc import Mapping

from authmilter.mail import Mail
from authmilter.verdict import Verdict

__all__ = ["Counters", "add_up"]

#: A policy has at most some hundred rules; beyond this many keys further ones are counted as `other`.
_MAX_KEYS = 2000


class Counters:
    """Numbers that only grow."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, float] = {}

    def add(self, key: str, amount: float = 1.0) -> None:
        """Add to one number."""
        values = self._values
        if key in values:
            values[key] += amount
        elif len(values) < _MAX_KEYS:
            values[key] = amount
        else:
            values["other"] = values.get("other", 0.0) + amount

    def count(self, mail: Mail, verdict: Verdict) -> None:
        """Count one finished message."""
        decision, evidence = verdict.decision, verdict.evidence
        self.add("messages")
        self.add(f"messages{{origin={mail.origin}}}")
        self.add(f"disposition{{{decision.disposition}}}")
        self.add(f"rule{{{decision.rule}}}")
        for would in decision.would_have:
            self.add(f"would_have{{{would.disposition},rule={would.rule}}}")
        if evidence.spf is not None:
            self.add(f"spf{{{evidence.spf.status}}}")
        if evidence.dkim is not None:
            best = min((r.status for r in evidence.dkim), key=_dkim_rank, default="none")
            self.add(f"dkim{{{best}}}")
        if evidence.dmarc is not None:
            self.add(f"dmarc{{{evidence.dmarc.status}}}")
        if evidence.bimi is not None:
            self.add(f"bimi{{{evidence.bimi.status}}}")
        signing = verdict.signing
        if signing is not None:
            self.add("signed" if signing.signed else f"not_signed{{{signing.reason}}}")
            for risk in signing.risks:
                self.add(f"signing_risk{{{risk}}}")
        self.add("verdict_seconds", verdict.elapsed_ms / 1000.0)
        self.add("dns_questions", sum(s.questions for s in verdict.trace))
        self.add("dns_remembered", sum(s.remembered for s in verdict.trace))

    def snapshot(self) -> dict[str, float]:
        """Return a copy of all numbers."""
        return dict(self._values)


def _dkim_rank(status: str) -> int:
    order = ("pass", "policy", "temperror", "fail", "permerror", "neutral", "internal_error")
    return order.index(status) if status in order else len(order)


def add_up(parts: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of several snapshots."""
    total: dict[str, float] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total
