"""What a reply says where a rule leaves it open: code, enhanced code and text that fit the rule's cause.

The cause is read off the rule's conditions when the policy is loaded. The enhanced codes are those of RFC 7372
where one fits; RFC 9989 names no code of its own, its §7.2 wants the word DMARC in the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from authmilter.policy.rules import ActionKind, AllOf, AnyOf, Condition, Leaf, ReplySpec
from authmilter.policy.template import Template

__all__ = ["BOTH_FAILED", "ONE_FAILED", "default_reply"]

#: RFC 7372 §3.3, §4: more than one authentication check failed; else delivery not authorized (RFC 3463 §3.8).
BOTH_FAILED = "5.7.26"
ONE_FAILED = "5.7.1"


def default_reply(kind: ActionKind, conditions: tuple[Condition, ...]) -> ReplySpec:
    """Return the reply of a rule of `kind` (REJECT or TEMPFAIL) with these conditions, as far as it gives none."""
    leaves = tuple(_positive(conditions))
    code, enhanced, text = _reject(leaves) if kind is ActionKind.REJECT else _tempfail(leaves)
    return ReplySpec(code=code, enhanced=enhanced, text=Template.parse(text))


def _positive(conditions: tuple[Condition, ...]) -> Iterator[Leaf]:
    """Yield what is wanted to hold; what stands under `not` is no cause."""
    for condition in conditions:
        if isinstance(condition, Leaf):
            yield condition
        elif isinstance(condition, AllOf | AnyOf):
            yield from _positive(condition.parts)


def _wants(leaves: tuple[Leaf, ...], fact: str, words: set[str]) -> bool:
    """True if a leaf wants `fact` to be one of `words` and nothing else."""
    return any(leaf.fact == fact and leaf.allowed is not None and leaf.allowed <= words for leaf in leaves)


def _mentions(leaves: tuple[Leaf, ...], *facts: str) -> bool:
    return any(leaf.fact in facts for leaf in leaves)


_SPF_NOT_PASS = {"none", "neutral", "fail", "softfail", "temperror", "permerror", "internal_error"}
_DKIM_NOT_PASS = {"none", "policy", "fail", "neutral", "temperror", "permerror", "internal_error"}
_ERRORS = {"temperror", "permerror"}


def _reject(leaves: tuple[Leaf, ...]) -> tuple[int, str | None, str]:
    if _mentions(leaves, "message.author.problem", "message.author.count"):
        return 550, "5.6.0", "The From field does not name one author"
    if _mentions(leaves, "message.defects"):
        return 550, "5.6.0", "The form of the message is not that of RFC 5322"
    if _wants(leaves, "dmarc.status", _ERRORS) or (
        _mentions(leaves, "dmarc.problem") and not _wants(leaves, "dmarc.status", {"fail"})
    ):
        return 550, "5.7.1", "DMARC cannot be evaluated for mail from {message.author.domain}"
    if _wants(leaves, "dmarc.status", {"fail", *_ERRORS}) or _mentions(
        leaves, "dmarc.policy", "dmarc.published"
    ):
        # RFC 9989 §7.2; 5.7.26 where SPF and DKIM both failed, see decide.py
        return (
            550,
            None,
            "Unauthenticated mail from {message.author.domain} is not accepted due to its DMARC policy",
        )
    spf = _wants(leaves, "spf.status", _SPF_NOT_PASS)
    if spf and _wants(leaves, "dkim.status", _DKIM_NOT_PASS):
        return 550, BOTH_FAILED, "Neither SPF nor DKIM authenticates this mail"
    if _wants(leaves, "spf.status", _ERRORS) or _mentions(leaves, "spf.problem"):
        return 550, "5.7.24", "The SPF record of {spf.domain} cannot be evaluated"
    if spf:
        return 550, "5.7.23", "SPF does not allow {client.ip} to send mail for {spf.domain}"
    if _wants(leaves, "spf_helo.status", _ERRORS):
        return 550, "5.7.24", "The SPF record of {spf_helo.domain} cannot be evaluated"
    if _wants(leaves, "spf_helo.status", _SPF_NOT_PASS):
        return 550, "5.7.23", "SPF does not allow {client.ip} to call itself {spf_helo.domain}"
    if _wants(leaves, "dkim.aligned", {"false"}):
        return 550, "5.7.22", "No passing DKIM signature is of the author's domain"
    if _wants(leaves, "dkim.status", _DKIM_NOT_PASS):
        return 550, "5.7.20", "No passing DKIM signature"
    if _mentions(
        leaves, "dkim.status", "dkim.statuses", "dkim.problems", "dkim.pass_domains", "dkim.unsigned_headers"
    ):
        return 550, "5.7.21", "No acceptable DKIM signature"
    if _mentions(leaves, "iprev.status", "iprev.problem"):
        return 550, "5.7.25", "No name of {client.ip} in DNS leads back to it"
    return 550, "5.7.1", "Not accepted by local policy"


def _tempfail(leaves: tuple[Leaf, ...]) -> tuple[int, str, str]:
    if _wants(leaves, "dmarc.status", {"fail", *_ERRORS}) or _mentions(
        leaves, "dmarc.problem", "dmarc.policy"
    ):
        # RFC 3463 §3.5: directory server failure
        code = (
            "4.4.3"
            if _wants(leaves, "dmarc.status", _ERRORS) or _mentions(leaves, "dmarc.problem")
            else "4.7.1"
        )
        return (
            451,
            code,
            "DMARC cannot be evaluated for mail from {message.author.domain} now, try again later",
        )
    if _mentions(leaves, "spf.status", "spf.problem"):
        return 451, "4.7.24", "The SPF record of {spf.domain} cannot be evaluated now, try again later"
    if _mentions(leaves, "dkim.status", "dkim.statuses", "dkim.problems"):
        return 451, "4.7.20", "No passing DKIM signature now, try again later"
    if _mentions(leaves, "iprev.status", "iprev.problem"):
        return 450, "4.7.25", "No name of {client.ip} in DNS leads back to it now, try again later"
    return 451, "4.7.1", "Not accepted now by local policy, try again later"
