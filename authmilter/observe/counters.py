"""What a worker counts: messages by disposition and rule, what monitor mode held back, bugs, time.

Plain numbers in a flat mapping, so that workers can report them to the supervisor and the supervisor can add
them up; keys are `name` or `name{label=value}` with values from our own closed lists or the policy's rule ids.
"""

from __future__ import annotations

from collections.abc import Mapping

from authmilter.dkim.result import DkimResult
from authmilter.mail import Mail
from authmilter.verdict import Verdict

__all__ = ["Counters", "add_up"]

#: A policy has at most some hundred rules; beyond this many keys further ones are counted as `other`.
_MAX_KEYS = 2000
_OF_EVERY_MESSAGE = ("verdict_seconds", "dns_questions", "dns_remembered")
#: Kinds of messages whose keys are kept; beyond, all are made anew.
_MAX_KINDS = 1000


class Counters:
    """Numbers that only grow."""

    __slots__ = ("_asked", "_kinds", "_milliseconds", "_new", "_remembered", "_values")

    def __init__(self) -> None:
        # those of every message are there from the start, and so within the limit
        self._values: dict[str, float] = dict.fromkeys(_OF_EVERY_MESSAGE, 0.0)
        #: the keys that a message counts under, by what they are made of
        self._kinds: dict[tuple[str | None, ...], tuple[str, ...]] = {}
        #: messages of each of these kinds that are not among the numbers yet
        self._new: dict[tuple[str | None, ...], int] = {}
        #: what messages took and asked, and how much of that was remembered, as far as it is not among the numbers yet
        self._milliseconds = 0.0
        self._asked = 0
        self._remembered = 0

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
        spf, dkim, dmarc, bimi = evidence.spf, evidence.dkim, evidence.dmarc, evidence.bimi
        kind = (
            mail.origin,
            decision.disposition,
            decision.rule,
            spf.status if spf is not None else None,
            None if dkim is None else dkim[0].status if len(dkim) == 1 else _best(dkim),
            dmarc.status if dmarc is not None else None,
            bimi.status if bimi is not None else None,
        )
        # Nearly every message is of a kind that came before: counted as one of that kind until somebody asks.
        before = self._new.get(kind)
        if before is None:
            if kind not in self._kinds:
                self._keys(*kind)
            before = 0
        self._new[kind] = before + 1
        for would in decision.would_have:
            self.add(f"would_have{{{would.disposition},rule={would.rule}}}")
        signing = verdict.signing
        if signing is not None:
            self.add("signed" if signing.signed else f"not_signed{{{signing.reason}}}")
            for risk in signing.risks:
                self.add(f"signing_risk{{{risk}}}")
        asked, remembered = verdict.questions()
        self._milliseconds += verdict.elapsed_ms
        self._asked += asked
        self._remembered += remembered

    def _keys(  # noqa: PLR0917 - the key of what is kept
        self,
        origin: str | None,
        disposition: str | None,
        rule: str | None,
        spf: str | None,
        dkim: str | None,
        dmarc: str | None,
        bimi: str | None,
    ) -> tuple[str, ...]:
        """Return the keys that all messages of this kind count under, and keep them."""
        keys = [
            "messages",
            f"messages{{origin={origin}}}",
            f"disposition{{{disposition}}}",
            f"rule{{{rule}}}",
        ]
        for name, status in (("spf", spf), ("dkim", dkim), ("dmarc", dmarc), ("bimi", bimi)):
            if status is not None:
                keys.append(f"{name}{{{status}}}")
        for at, key in enumerate(keys):
            if key not in self._values and len(self._values) >= _MAX_KEYS:
                keys[at] = "other"
            self._values.setdefault(keys[at], 0.0)
        if len(self._kinds) >= _MAX_KINDS:
            self._settle()
            self._kinds.clear()
        kept = self._kinds[origin, disposition, rule, spf, dkim, dmarc, bimi] = tuple(keys)
        return kept

    def snapshot(self) -> dict[str, float]:
        """Return a copy of all numbers."""
        self._settle()
        return dict(self._values)

    def _settle(self) -> None:
        """Add the messages of each kind to the numbers they count under, and what they took and asked."""
        values, new = self._values, self._new
        self._new = {}
        values["verdict_seconds"] += self._milliseconds / 1000.0
        values["dns_questions"] += self._asked
        values["dns_remembered"] += self._remembered
        self._milliseconds = 0.0
        self._asked = self._remembered = 0
        for kind, messages in new.items():
            for key in self._kinds[kind]:
                values[key] += messages


#: Which of several signatures a message is counted by.
_DKIM_RANK = {
    status: rank
    for rank, status in enumerate(
        ("pass", "policy", "temperror", "fail", "permerror", "neutral", "internal_error")
    )
}


def _best(results: tuple[DkimResult, ...]) -> str:
    return min((r.status for r in results), key=_DKIM_RANK.__getitem__, default="none")


def add_up(parts: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of several snapshots."""
    total: dict[str, float] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total
