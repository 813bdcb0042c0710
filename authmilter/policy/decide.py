"""From facts and a policy to a decision. Pure and total: whatever the facts, there is a `Decision`.

`judge` is the one entry of the engine: origins, then `on_error`, then the rules. `decide` is the rules alone: in
order, the first that holds decides, `continue` goes on, and every rule passed over is named with the reason.

The way through the rules (`Course`) is remembered by the answers that led there (`tree`), and the whole decision where
no text of it is the message's own. With an empty memory the same comes out, more slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from authmilter.evidence import Evidence
from authmilter.mail import Mail, Origin
from authmilter.policy.exceptions import ForwarderException, excepted
from authmilter.policy.facts import SCHEMA, Facts, Kind, internal_errors
from authmilter.policy.replies import BOTH_FAILED, ONE_FAILED
from authmilter.policy.rules import (
    ERROR_HEADER,
    ON_ERROR_ID,
    QUARANTINE_HEADER,
    Action,
    ActionKind,
    AllOf,
    Condition,
    Course,
    HeaderTag,
    Leaf,
    Mode,
    OnMixed,
    Policy,
    PrefixTag,
    QuarantineBy,
    ReplySpec,
    Rule,
    asks,
)
from authmilter.policy.template import MAX_TEXT, MAX_VALUE, Template
from authmilter.text import printable
from authmilter.verdict import (
    Decision,
    Disposition,
    OverrideReason,
    PassedOver,
    SmtpReply,
    SubjectPrefix,
    Tag,
    TagHeader,
    WouldHave,
)

__all__ = ["OnError", "decide", "judge", "judge_facts", "on_error_decision"]

#: Recipients (or their domains) that are judged one by one; those beyond are judged together, nameless.
MAX_JUDGED = 1000
#: Recipients that a reason names.
MAX_NAMED = 5
#: Characters of a quarantine reason: it stands in the mail server's log.
MAX_REASON = 200

#: Parts that a course counts for in the tree, besides its rules (see `tree.MAX_KEPT`).
_COURSE = 50
#: A report says something of the message where the rule that spared it asked for facts of these names.
_COMMENTED = ("arc.", "exception.")

#: From mild to severe; a discarded message is lost without a word.
_SEVERITY = {
    Disposition.ACCEPT: 0,
    Disposition.QUARANTINE: 1,
    Disposition.TEMPFAIL: 2,
    Disposition.REJECT: 3,
    Disposition.DISCARD: 4,
}
_NOT_JUDGED = frozenset({Origin.SUBMISSION, Origin.INTERNAL, Origin.TRUSTED_HOP})
_INTERNET = Origin.INTERNET
_TRUSTED_RELAY = Origin.TRUSTED_RELAY
_PUBLISHED = {"none": 0, "quarantine": 1, "reject": 2}
_APPLIED = {
    Disposition.ACCEPT: 0,
    Disposition.QUARANTINE: 1,
    Disposition.REJECT: 2,
    Disposition.DISCARD: 2,
}


class OnError(StrEnum):
    """What a message gets when a method that the policy reads failed inside authmilter."""

    TEMPFAIL = "tempfail"
    ACCEPT = "accept"


def judge(mail: Mail, evidence: Evidence, policy: Policy, on_error: OnError = OnError.TEMPFAIL) -> Decision:
    """Return what is to be done with `mail`: origins first, then `on_error`, then the rules. Total."""
    if mail.origin is _INTERNET and not (
        policy.exceptions or policy.recipient_key or internal_errors(evidence)
    ):
        # Most mail: the rules alone decide, and what they come to is known.
        course = policy.courses.find_of(mail, evidence)
        if course is not None:
            return course.decision or _written(course, Facts.of(mail, evidence), policy)
    return judge_facts(Facts.of(mail, evidence), policy, on_error)


def judge_facts(facts: Facts, policy: Policy, on_error: OnError = OnError.TEMPFAIL) -> Decision:
    """Return what is to be done with a message of these facts; without an `origin` it is from the internet."""
    origin = facts.get("origin")
    if origin in _NOT_JUDGED:
        return Decision(
            disposition=Disposition.ACCEPT,
            rule=f"origin:{origin}",
            because=f"mail of origin {origin} is not judged",
            policy=policy.name,
        )
    errors = facts.get("internal_errors")
    broken = [e for e in errors if e in policy.reads] if errors and isinstance(errors, tuple) else None
    decision = _on_error(policy, on_error, ", ".join(broken), facts) if broken else decide(facts, policy)
    return _spared(decision, facts, policy) if origin == _TRUSTED_RELAY else decision


def on_error_decision(policy: Policy, on_error: OnError, what: str, mail: Mail) -> Decision:
    """Return the answer where `what` (our own word for a part of the program) failed: 451 4.3.0, or accepted.

    What is accepted carries a header field that says so. A policy in monitor mode accepts.
    """
    return _on_error(policy, on_error, what, Facts.of(mail, Evidence()))


def decide(facts: Facts, policy: Policy) -> Decision:
    """Return what the rules of `policy` say of a message with these facts. Total: it cannot raise."""
    if policy.exceptions:
        facts, exception = excepted(facts, policy.exceptions)
        decision = _ruled(facts, policy)
        return _noted(decision, exception, policy) if exception is not None else decision
    return _ruled(facts, policy)


def _noted(decision: Decision, exception: ForwarderException, policy: Policy) -> Decision:
    """Name the exception in the reason, where a rule that asks for exceptions decided."""
    decided = next((r for r in policy.rules if r.id == decision.rule), None)
    if decided is None or not asks(decided.conditions, "exception."):
        return decision
    return replace(decision, because=f"{decision.because}; {exception.text}")


def _ruled(facts: Facts, policy: Policy) -> Decision:
    if policy.recipient_key:
        return _joined(facts, policy)
    course = _course(facts, policy)
    return course.decision or _written(course, facts, policy)


def _written(course: Course, facts: Facts, policy: Policy) -> Decision:
    return _finished(facts, policy, _outcome(course, facts))


def _course(facts: Facts, policy: Policy) -> Course:
    """Return what the rules come to: as for a message before that gave the same answers, else by going through them."""
    course = policy.courses.find(facts)
    if course is None:
        noting = facts.unasked()
        course = _walk(noting, policy)
        if not policy.recipient_key and _is_fixed(course):
            # (this asks for the facts of an override only, and they are questions of the tree, too)
            course = replace(course, decision=_written(course, noting, policy))
        policy.courses.add(noting.asked, course, _COURSE + len(course.passed_over) + len(course.held))
    return course


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The rule that decided for one recipient (or all), and what was gathered on the way."""

    rule: Rule
    disposition: Disposition
    reply: SmtpReply | None
    tags: tuple[Tag, ...]
    would_have: tuple[WouldHave, ...]
    passed_over: tuple[PassedOver, ...]
    override: OverrideReason | None
    spared_by: Rule | None = None
    note: str = ""


@lru_cache(maxsize=4096)
def _passed_over(rule: str, because: str) -> PassedOver:
    return PassedOver(rule=rule, because=because)


def _walk(facts: Facts, policy: Policy) -> Course:
    """Go through the rules until one decides. What it comes to depends on the conditions' facts alone."""
    passed: list[PassedOver] = []
    numbers: list[tuple[int, Rule, Condition]] = []
    held: list[Rule] = []
    override: OverrideReason | None = None
    spared_by: Rule | None = None
    decided = policy.default
    for rule in policy.rules:
        for condition in rule.conditions:
            if not condition.holds(facts):
                if _names_a_number(condition):
                    numbers.append((len(passed), rule, condition))
                passed.append(_passed_over(rule.id, condition.why_not(facts)))
                break
        else:
            if rule.mode is Mode.MONITOR:
                held.append(rule)
                continue
            if rule.override is not None:
                override, spared_by = rule.override, rule
            if rule.action.kind is not ActionKind.CONTINUE:
                decided = rule
                break
            held.append(rule)
    return Course(
        decided=decided,
        held=tuple(held),
        passed_over=tuple(passed),
        numbers=tuple(numbers),
        override=override,
        spared_by=spared_by,
    )


def _names_a_number(condition: Condition) -> bool:
    """True if the reason why it does not hold may name a number of the message; other values named are words."""
    if isinstance(condition, Leaf):
        return condition.shows and SCHEMA[condition.fact].kind is Kind.INT
    return isinstance(condition, AllOf) and any(map(_names_a_number, condition.parts))


def _is_fixed(course: Course) -> bool:
    """True if nothing in its texts is the message's own: no number, no placeholder, no reply (it has the id)."""
    if course.numbers or not all(map(_says_the_same, (*course.held, course.decided))):
        return False
    spared_by = course.spared_by
    return spared_by is None or not any(asks(spared_by.conditions, prefix) for prefix in _COMMENTED)


def _says_the_same(rule: Rule) -> bool:
    action = rule.action
    return (
        action.reply is None
        and (action.value is None or action.value.is_fixed)
        and all(isinstance(tag, PrefixTag) or tag.value.is_fixed for tag in rule.tags)
    )


def _outcome(course: Course, facts: Facts) -> _Outcome:
    """Return a course with its texts."""
    tags: list[Tag] = []
    would: list[WouldHave] = []
    for rule in course.held:
        if rule.mode is not Mode.MONITOR:
            _add_tags(tags, rule, facts)
            continue
        disposition = rule.action.kind.disposition
        if disposition is not None:
            reply = _reply(rule.action, facts)
            would.append(WouldHave(disposition=disposition, rule=rule.id, reply=reply))
    decided = course.decided
    _add_tags(tags, decided, facts)
    passed = course.passed_over
    if course.numbers:
        renewed = list(passed)
        for place, rule, condition in course.numbers:
            renewed[place] = _passed_over(rule.id, condition.why_not(facts))
        passed = tuple(renewed)
    return _Outcome(
        rule=decided,
        disposition=decided.action.kind.disposition or Disposition.ACCEPT,
        reply=_reply(decided.action, facts),
        tags=tuple(tags),
        would_have=tuple(would),
        passed_over=passed,
        override=course.override,
        spared_by=course.spared_by,
    )


def _add_tags(tags: list[Tag], rule: Rule, facts: Facts) -> None:
    for spec in rule.tags:
        tag: Tag
        if isinstance(spec, HeaderTag):
            tag = TagHeader(name=spec.name, value=spec.value.render(facts))
        else:
            tag = SubjectPrefix(prefix=spec.prefix)
        if tag not in tags:
            tags.append(tag)


def _reply(action: Action, facts: Facts) -> SmtpReply | None:
    spec: ReplySpec | None = action.reply
    if spec is None:
        return None
    enhanced = spec.enhanced
    if enhanced is None:
        # RFC 7372 §4: X.7.26 where more than one check failed and caused the rejection
        failed = facts.get("spf.status") != "pass" and facts.get("dkim.status") != "pass"
        enhanced = BOTH_FAILED if failed else ONE_FAILED
    return SmtpReply(code=spec.code, enhanced=enhanced, text=_with_id(spec.text, facts))


def _with_id(template: Template, facts: Facts) -> str:
    """Return the text with the support id at its end, all within MAX_TEXT characters."""
    mail_id = facts.get("mail.id")
    if not isinstance(mail_id, str):
        return template.render(facts)
    suffix = f" (id {printable(mail_id, 64)})"
    return template.render(facts, MAX_TEXT - len(suffix)) + suffix


def _finished(facts: Facts, policy: Policy, outcome: _Outcome) -> Decision:
    """Make the decision of an outcome: monitor mode, quarantine, override reason."""
    rule, disposition, reply, would = outcome.rule, outcome.disposition, outcome.reply, outcome.would_have
    if policy.mode is Mode.MONITOR and disposition is not Disposition.ACCEPT:
        would = (*would, WouldHave(disposition=disposition, rule=rule.id, reply=reply))
        disposition, reply = Disposition.ACCEPT, None
    because = rule.because + outcome.note
    tags = outcome.tags
    reason = ""
    if disposition is Disposition.QUARANTINE:
        if rule.action.by is QuarantineBy.HOLD:
            reason = _hold_reason(rule.id, because)
        else:
            value = rule.action.value.render(facts) if rule.action.value is not None else rule.id
            tags = (*tags, TagHeader(name=rule.action.header, value=value))
    if policy.would_have_header and would:
        tags = (*tags, *(TagHeader(name=policy.would_have_header, value=_would_text(w)) for w in would))
    override = _override(facts, disposition, outcome.override)
    spared_by = outcome.spared_by
    return Decision(
        disposition=disposition,
        rule=rule.id,
        because=because,
        reply=reply,
        tags=tags,
        quarantine_reason=reason,
        override=override,
        override_comment=_comment(facts, spared_by) if override is not None and spared_by is not None else "",
        would_have=would,
        passed_over=outcome.passed_over,
        # RFC 5321 §4.2.2: 421 closes the transmission channel
        ends_session=reply is not None and reply.code == 421,
        policy=policy.name,
    )


def _hold_reason(rule: str, because: str) -> str:
    return printable(f"{rule}: {because}", MAX_REASON)


def _would_text(would: WouldHave) -> str:
    reply = "" if would.reply is None else f"; reply={would.reply.code} {would.reply.enhanced}"
    return f"{would.disposition}; rule={would.rule}{reply}"


def _override(facts: Facts, disposition: Disposition, named: OverrideReason | None) -> OverrideReason | None:
    """Return why a DMARC policy was not applied (RFC 9990 §3.1.1.6 reason types); None where none was spared."""
    if facts.get("dmarc.status") != "fail":
        return None
    applies = facts.get("dmarc.policy")
    published = facts.get("dmarc.published") or applies
    applied = _APPLIED.get(disposition)
    if applied is None or not isinstance(published, str) or applied >= _PUBLISHED.get(published, 0):
        return None
    if named is not None:
        return named
    if (
        facts.get("dmarc.testing") is True
        and isinstance(applies, str)
        and applied >= _PUBLISHED.get(applies, 0)
    ):
        return OverrideReason.POLICY_TEST_MODE
    return OverrideReason.LOCAL_POLICY


def _comment(facts: Facts, rule: Rule) -> str:
    """Return what a report says beside the override: the chain or the forwarder that the rule went by."""
    words: list[str] = []
    chain = facts.get("arc.comment") if asks(rule.conditions, "arc.") else None
    if isinstance(chain, str):
        words.append(chain)
    forwarder = facts.get("exception.forwarder") if asks(rule.conditions, "exception.") else None
    if isinstance(forwarder, str):
        words.append(f"forwarder={forwarder}")
    return " ".join(words)


# -- several recipients ------------------------------------------------------------------------------------------------


def _joined(facts: Facts, policy: Policy) -> Decision:
    """Ask the rules for each recipient that could differ, and join the answers: one reply answers all."""
    groups: dict[tuple[str | None, str | None], list[int]] = {}
    for position, (address, domain) in enumerate(facts.recipients, start=1):
        key = (address if policy.recipient_key == "address" else None, domain)
        if key not in groups and len(groups) >= MAX_JUDGED:
            key = (None, None)
        groups.setdefault(key, []).append(position)
    if not groups:
        nobody = facts.for_recipient(None, None)
        return _finished(facts, policy, _outcome(_course(nobody, policy), nobody))
    outcomes: list[tuple[_Outcome, str | None, list[int]]] = []
    for key, at in groups.items():
        one = facts.for_recipient(*key)
        outcomes.append((_outcome(_course(one, policy), one), key[1], at))
    sign = 1 if policy.on_mixed is OnMixed.LEAST_SEVERE else -1
    # min() takes the first of equals, so the order of recipients decides among them.
    chosen, _, _ = min(outcomes, key=lambda o: sign * _SEVERITY[o[0].disposition])
    others = [o for o in outcomes if o[0].disposition is not chosen.disposition]
    overruled = [WouldHave(disposition=o.disposition, rule=o.rule.id, reply=o.reply) for o, _, _ in others]
    would = dict.fromkeys(w for o, _, _ in outcomes for w in o.would_have)
    for w in overruled:
        would.setdefault(w)
    joined = replace(
        chosen,
        tags=tuple(dict.fromkeys(tag for o, _, _ in outcomes for tag in o.tags)),
        would_have=tuple(would),
        note=f"; on_mixed {policy.on_mixed}, otherwise {_differing(others)}" if others else "",
    )
    return _finished(facts, policy, joined)


def _differing(others: Sequence[tuple[_Outcome, str | None, list[int]]]) -> str:
    """Name the recipients that would have been answered otherwise: by place and domain, never by local part."""
    named: list[str] = []
    for outcome, domain, positions in others[:MAX_NAMED]:
        places = ", ".join(map(str, positions[:MAX_NAMED])) + (", ..." if len(positions) > MAX_NAMED else "")
        at = f" (at {domain})" if domain is not None else ""
        named.append(f"{outcome.disposition} by rule {outcome.rule.id} for recipient {places}{at}")
    if len(others) > MAX_NAMED:
        named.append(f"and {len(others) - MAX_NAMED} more")
    return "; ".join(named)


# -- origins and our own faults ------------------------------------------------------------------------------------------


def _spared(decision: Decision, facts: Facts, policy: Policy) -> Decision:
    """Return the decision for mail of a trusted relay: what is refused there would bounce, so it is set apart."""
    refused = decision.disposition
    if refused not in {Disposition.REJECT, Disposition.TEMPFAIL, Disposition.DISCARD}:
        return decision
    because = f"{decision.because}; quarantined, for a trusted relay is not refused ({refused})"
    held = policy.quarantine_by is QuarantineBy.HOLD
    mark = TagHeader(name=QUARANTINE_HEADER, value=decision.rule)
    return replace(
        decision,
        disposition=Disposition.QUARANTINE,
        because=because,
        reply=None,
        ends_session=False,
        quarantine_reason=_hold_reason(decision.rule, because) if held else "",
        tags=decision.tags if held else (*decision.tags, mark),
        override=_override(facts, Disposition.QUARANTINE, decision.override),
        # (a refusal had no override, so there is nothing to say beside the one of the quarantine)
        override_comment="",
        would_have=(
            *decision.would_have,
            WouldHave(disposition=refused, rule=decision.rule, reply=decision.reply),
        ),
    )


_ERROR_TEXT = Template(("A check failed here, try again later",))


def _on_error(policy: Policy, on_error: OnError, what: str, facts: Facts) -> Decision:
    # RFC 3463 §3.4: X.3.0, other or undefined mail system status
    reply = SmtpReply(code=451, enhanced="4.3.0", text=_with_id(_ERROR_TEXT, facts))
    because = f"{printable(what, MAX_VALUE)} failed inside authmilter"
    if on_error is OnError.TEMPFAIL and policy.mode is Mode.ENFORCE:
        return Decision(
            disposition=Disposition.TEMPFAIL,
            rule=ON_ERROR_ID,
            because=because,
            reply=reply,
            policy=policy.name,
        )
    would = WouldHave(disposition=Disposition.TEMPFAIL, rule=ON_ERROR_ID, reply=reply)
    return Decision(
        disposition=Disposition.ACCEPT,
        rule=ON_ERROR_ID,
        because=because,
        tags=(TagHeader(name=ERROR_HEADER, value=printable(what, MAX_VALUE)),),
        override=_override(facts, Disposition.ACCEPT, None),
        would_have=(would,) if on_error is OnError.TEMPFAIL else (),
        policy=policy.name,
    )
