"""What a policy says but cannot mean: warnings, each with its place. None of them keeps a policy from loading.

The findings are sound, not complete: what is reported is so for every message, and much is not looked into.

* a rule that is never reached, because an earlier one takes every message it could take
* conditions that contradict each other, so that the rule never holds
* a rule that does nothing
* mail accepted on claims alone: on names that a sender writes as they like
* a list that no rule uses
* exceptions that have expired, that last longer than a year, or that no rule asks about
"""

from __future__ import annotations

from datetime import date, timedelta

from authmilter.errors import Complaint
from authmilter.policy.rules import ActionKind, AllOf, AnyOf, Condition, Leaf, Mode, Not, Policy, Rule, asks

__all__ = ["warnings"]

#: A policy with more rules is not compared rule by rule (the work grows with the square).
MAX_COMPARED = 300
#: An exception is to be looked at again after this long at most.
LONGEST_EXCEPTION = timedelta(days=366)


def warnings(policy: Policy, today: date | None = None) -> tuple[Complaint, ...]:
    """Return what is to be said of `policy`, in order of place; `today` for what expires."""
    found: list[Complaint] = []
    never: set[str] = set()
    for rule in policy.rules:
        clash = _contradiction(rule.conditions)
        if clash is not None:
            never.add(rule.id)
            one, other = clash
            why = (
                f"`{one.text}` contradicts `{other.text}`"
                if one is not other
                else f"nothing meets `{one.text}`"
            )
            message = f"rule `{rule.id}` never holds: {why}"
            found.append(Complaint(span=other.span, message=message))
        if rule.action.kind is ActionKind.CONTINUE and not rule.tags:
            message = f"rule `{rule.id}` does nothing: it goes on and adds no tag"
            found.append(Complaint(span=rule.span, message=message))
        if _trusts_claims(rule):
            message = f"rule `{rule.id}` accepts mail on names that any sender can write"
            hint = "add what proves them, such as `dmarc.status: pass`, `dkim.pass_domains` or `client.ip`"
            found.append(Complaint(span=rule.span, message=message, hint=hint))
    found.extend(_unreached(policy.rules[:MAX_COMPARED], never))
    found.extend(
        Complaint(span=each.span, message=f"no rule uses the list `{each.name}`")
        for each in policy.lists
        if not each.used
    )
    found.extend(_exceptions(policy, today))
    return tuple(sorted(found, key=lambda c: (c.span.line, c.span.column)))


def _exceptions(policy: Policy, today: date | None) -> list[Complaint]:
    found: list[Complaint] = []
    if policy.exceptions and not any(asks(rule.conditions, "exception.") for rule in policy.rules):
        message = "no rule asks about the exceptions"
        hint = "`exception.applies: true` in a rule that accepts"
        found.append(Complaint(span=policy.exceptions[0].span, message=message, hint=hint))
    for each in policy.exceptions:
        if today is None:
            break
        what = f"the exception for {each.author} through {each.forwarder}"
        if each.expires < today:
            message = f"{what} expired on {each.expires} and is not applied"
            found.append(
                Complaint(span=each.span, message=message, hint=f"ask its owner, {each.owner}, or remove it")
            )
        elif each.expires > today + LONGEST_EXCEPTION:
            message = f"{what} lasts longer than a year"
            found.append(
                Complaint(span=each.span, message=message, hint="let it expire within a year, and look again")
            )
    return found


def _decides(rule: Rule) -> bool:
    """True if nothing comes after a rule that holds."""
    return rule.mode is Mode.ENFORCE and rule.action.kind is not ActionKind.CONTINUE


def _unreached(rules: tuple[Rule, ...], never: set[str]) -> list[Complaint]:
    found: list[Complaint] = []
    for position, rule in enumerate(rules):
        for earlier in rules[:position]:
            if earlier.id in never or not _decides(earlier):
                continue
            if all(_implied(want, rule.conditions) for want in earlier.conditions):
                what = "every message" if not earlier.conditions else "all that it could take"
                message = f"rule `{rule.id}` is never reached: rule `{earlier.id}` at line {earlier.span.line} takes {what}"
                found.append(Complaint(span=rule.span, message=message))
                break
    return found


def _implied(want: Condition, given: tuple[Condition, ...]) -> bool:
    """True if `want` holds wherever all of `given` hold."""
    if isinstance(want, AllOf):
        return all(_implied(part, given) for part in want.parts)
    if any(_same(want, have) or _narrower(have, want) for have in given):
        return True
    if isinstance(want, AnyOf):
        return any(_implied(part, given) for part in want.parts)
    return False


def _same(one: Condition, other: Condition) -> bool:
    # Equal texts mean equal conditions only as long as nothing is left out of them.
    return type(one) is type(other) and one == other and " more" not in one.text


def _narrower(have: Condition, want: Condition) -> bool:
    """True if `have` holds only where `want` does."""
    if isinstance(have, AllOf):
        return any(_narrower(part, want) or _same(part, want) for part in have.parts)
    if isinstance(have, AnyOf):
        return all(_narrower(part, want) or _same(part, want) for part in have.parts)
    if not isinstance(have, Leaf) or not isinstance(want, Leaf) or have.fact != want.fact or have.if_missing:
        return False
    if have.allowed is not None and want.allowed is not None:
        return have.allowed <= want.allowed
    if have.interval is not None and want.interval is not None:
        return have.interval.meet(want.interval) == have.interval
    if have.elements is not None and want.elements is not None:
        return have.elements <= want.elements
    return False


def _contradiction(conditions: tuple[Condition, ...]) -> tuple[Leaf, Leaf] | None:
    """Return two conditions, of those that must all hold, that never do together."""
    leaves = [c for c in conditions if isinstance(c, Leaf)]
    for position, later in enumerate(leaves):
        for earlier in leaves[: position + 1]:
            if earlier.fact == later.fact and _disjoint(earlier, later):
                return earlier, later
    return None


def _disjoint(one: Leaf, other: Leaf) -> bool:
    if one.allowed is not None and other.allowed is not None:
        return not one.allowed & other.allowed
    if one.interval is not None and other.interval is not None:
        return one.interval.meet(other.interval).is_empty
    return False


def _trusts_claims(rule: Rule) -> bool:
    return (
        rule.action.kind is ActionKind.ACCEPT
        and _claimed(rule.conditions)
        and not any(_proven(part) for part in rule.conditions)
    )


def _claimed(parts: tuple[Condition, ...]) -> bool:
    """True if a claim is among what is wanted (what stands under `not` is not wanted)."""
    for part in parts:
        if isinstance(part, Leaf):
            if part.claim and not part.if_missing:
                return True
        elif not isinstance(part, Not) and _claimed(part.parts):
            return True
    return False


def _proven(part: Condition) -> bool:
    if isinstance(part, Leaf):
        return part.proof
    if isinstance(part, AllOf):
        return any(_proven(inner) for inner in part.parts)
    if isinstance(part, AnyOf):
        return all(_proven(inner) for inner in part.parts)
    return False
