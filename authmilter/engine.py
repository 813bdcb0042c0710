"""The one road: a `Verification` takes a message stage by stage and ends in a `Verdict`.

Every door drives the same object: `sender` (SPF and iprev are asked), `recipient`, `headers` (DMARC, keys),
`body` chunk by chunk (hashed, not kept), `verdict`. Work starts as soon as its input is there. With all
answers at hand nothing ever waits: `verdict` then finishes without giving up the event loop.

How it fails: never. A method that raises becomes that method's `internal_error`, is told to the journal, and
the listener's `on_error` answers before the rules where the policy reads that method. Time running out is the
method's `limit`. Whatever the bytes, `verdict` returns a Verdict within its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import ParamSpec, TypeVar

from authmilter.arc import seal, sealing
from authmilter.arc.seal import SealSettings
from authmilter.deadline import Deadline, monotonic
from authmilter.dkim import sign
from authmilter.dkim.canonical import BodyDigests, BodyHasher, BodyNeed
from authmilter.dkim.sign import SigningPlan
from authmilter.dns.answer import Answer, Question
from authmilter.dns.budget import BudgetLookup
from authmilter.evidence import Evidence
from authmilter.headers import edits as header_edits
from authmilter.headers.edits import HeaderSettings, Plan
from authmilter.headers.received import relayed_client
from authmilter.mail import Envelope, Mail, MailId, Origin, Session
from authmilter.makers import maker
from authmilter.memory import ResultMemory, lifetime
from authmilter.message import Message
from authmilter.names import NullPath, Recipient, ReversePath
from authmilter.origins import OriginRules, Relay
from authmilter.pipeline import CONCLUDING, METHODS, CheckSettings, Inquiry, Method, Schedule
from authmilter.policy import decide
from authmilter.policy.decide import OnError
from authmilter.policy.rules import Mode, Policy
from authmilter.ports import Journal, Missing, Resolver
from authmilter.signing.settings import (
    Action,
    NotSigned,
    NotSignedReason,
    OnSigningError,
    SigningSettings,
    settle,
    sign_plan_for,
)
from authmilter.verdict import (
    Decision,
    Disposition,
    InsertHeader,
    Quarantine,
    Sealing,
    Signing,
    SmtpReply,
    Step,
    Verdict,
)

__all__ = ["Budget", "Runtime", "Verification", "ask", "verify"]

T = TypeVar("T")
P = ParamSpec("P")

#: Where mail comes from that is judged.
_JUDGED = frozenset({Origin.INTERNET, Origin.TRUSTED_RELAY})
_NO_NEEDS: frozenset[BodyNeed] = frozenset()
_NO_BODY = BodyHasher(_NO_NEEDS).facts()

_make_deadline = maker(Deadline)
_make_envelope = maker(Envelope)
_make_evidence = maker(Evidence)
_make_mail = maker(Mail)
_make_step = maker(Step)
_make_verdict = maker(Verdict)

#: How often one method may be run again with more answers: an SPF tree is at most 10 terms deep, each with a
#: record, exchanges and addresses; a tree walk has 8 names. Anything beyond is a fault of ours.
_MAX_ROUNDS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Seconds from the end of a message to its verdict (`message`), and the share SPF, DKIM and iprev may use
    (`checks`); a question asked earlier has only its own limit, `question`.
    """

    message: float = 20.0
    checks: float = 10.0
    question: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Everything a verification needs, frozen; a reload makes a new one.

    `now` tells the time of arrival, `new_id` makes a message id (letters and digits), `methods` is the
    table of checks, `memory` keeps whole results and belongs to the resolver, `digest` names the settings and policy it was built from,
    `policies` are further ones that a caller may name (gRPC).
    """

    policy: Policy
    resolver: Resolver
    journal: Journal
    now: Callable[[], datetime]
    new_id: Callable[[], MailId]
    checks: CheckSettings = field(default_factory=CheckSettings)
    headers: HeaderSettings
    origins: OriginRules = field(default_factory=OriginRules)
    budget: Budget = field(default_factory=Budget)
    on_error: OnError = OnError.TEMPFAIL
    signing: SigningSettings | None = None
    sealing: SealSettings | None = None
    methods: tuple[Method, ...] = METHODS
    memory: ResultMemory = field(default_factory=ResultMemory, compare=False)
    digest: str = ""
    policies: Mapping[str, Policy] = field(default_factory=dict)
    #: those of `methods` that the settings want, sorted
    schedule: Schedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", Schedule.of(self.methods, self.checks))


class _Run:
    """One method at work on one message: its share of the DNS, and its result once there is one.

    Args:
        method: what is run.
        inquiry: what is known of the message.
        runtime: the ports, and the memory of results.
        key: under which the result of what is run may be kept.

    What the memory has whole needs no run (`Verification._start` and `_conclude`).
    """

    __slots__ = (
        "bug", "concluding", "finished", "inquiry", "key", "lookup", "method", "recalled", "result", "runtime", "started",
        "task",
    )  # fmt: skip

    def __init__(self, method: Method, inquiry: Inquiry, runtime: Runtime, key: Hashable | None) -> None:
        self.method = method
        self.inquiry = inquiry
        self.runtime = runtime
        self.key = key
        self.started = monotonic()
        self.lookup = BudgetLookup(runtime.resolver, questions=method.questions, hints=method.hints)
        # of `early`, until `conclude` has ended
        self.result: object = None
        self.task: asyncio.Task[None] | None = None
        # False: `early` is at work or has ended, True: `conclude`
        self.concluding = False
        self.recalled = False
        self.bug = False
        # when what is at work ended; 0: it has not
        self.finished = 0.0

    def go(self) -> bool:
        """Run what is due as far as the answers at hand allow. False: the rest is done in the background."""
        missing = self._attempt()
        if missing is None:
            return True
        self.task = asyncio.get_running_loop().create_task(self._settle(missing))
        return False

    def go_on(self, key: Hashable | None) -> bool:
        """Go on to `conclude`, as `go`; its result may be kept under `key`."""
        self.concluding = True
        self.key = key
        self.finished = 0.0
        return self.go()

    def take(self, kept: object) -> None:
        """Have what the memory had: the whole result."""
        self.recalled = True
        self.result = _of_kept(self.method, self.inquiry, kept)
        self.finished = monotonic()

    def conclude(self) -> bool:
        """Go on from what `early` found to the result, if no answer has to be waited for; False: await `finish`."""
        if self.task is not None:
            return False
        method = self.method
        if method.conclude is None or self.bug:
            return True
        key = method.final_key(self.inquiry) if method.final_key is not None else None
        kept = self.runtime.memory.get(key) if key is not None else None
        if kept is None:
            return self.go_on(key)
        self.take(kept)
        return True

    async def finish(self, deadline: Deadline) -> None:
        """Make the result, waiting for answers until `deadline`; what then has none is over this method's limit."""
        if not self.concluding:
            await self._wait(deadline)
            self.task = None
            if self.conclude():
                return
        await self._wait(deadline)

    def cancel(self) -> None:
        """Stop; shared queries go on for whoever else waits for them."""
        if self.task is not None:
            self.task.cancel()

    def fail(self, error: Exception) -> None:
        """End with the result of a method that failed in a way nobody foresaw."""
        self.bug = True
        self.result = self.method.broken(self.inquiry)
        self.finished = monotonic()
        self.runtime.journal.bug(f"method:{self.method.name}", error)

    def step(self) -> Step:
        """Return this method's line of the trace."""
        lookup = self.lookup
        return _make_step(
            method=self.method.name,
            elapsed_ms=_milliseconds((self.finished or monotonic()) - self.started),
            questions=lookup.asked,
            remembered=lookup.remembered,
            bug=self.bug,
            limited=lookup.limited,
            recalled=self.recalled,
        )

    async def _wait(self, deadline: Deadline) -> None:
        """Wait for what runs in the background; what is not done by `deadline` is done with the answers there are."""
        task = self.task
        if task is not None and not task.done():
            await asyncio.wait((task,), timeout=deadline.remaining)
            if not task.done():
                task.cancel()
        if not self.finished:
            self._cut()

    def _cut(self) -> None:
        self.lookup.close()
        if self._attempt() is not None:  # a closed lookup never misses an answer
            self.fail(RuntimeError(f"{self.method.name} still misses answers from a closed lookup"))

    def _attempt(self) -> tuple[Question, ...] | None:
        """Run `early`, or `conclude`, once; return what it misses. None: it has ended, well or not."""
        method, lookup = self.method, self.lookup
        try:
            if self.concluding and method.conclude is not None:
                result = method.conclude(self.inquiry, self.result, lookup)
            else:
                result = method.early(self.inquiry, lookup)
        except Missing as missing:
            # not the exception: its traceback holds the frames of those who would hold it
            return missing.questions
        except Exception as e:  # noqa: BLE001 - the guard of ARCHITECTURE.md, Faults: a bug is a status of its own
            self.fail(e)
            return None
        self.result = result
        self.finished = monotonic()
        if self.key is not None and not lookup.limited:
            self.runtime.memory.put(self.key, result, lifetime(lookup.exchanged))
        return None

    async def _settle(self, questions: tuple[Question, ...]) -> None:
        lookup = self.lookup
        for _ in range(_MAX_ROUNDS):
            try:
                answers = await self._fetch(questions)
            except Exception as e:  # noqa: BLE001 - as in _attempt: a resolver that raises is a bug, not a limit
                self.fail(e)
                return
            for question, answer in zip(questions, answers, strict=True):
                lookup.give(question, answer)
            again = self._attempt()
            if again is None:
                return
            questions = again
        self._cut()

    async def _fetch(self, questions: tuple[Question, ...]) -> list[Answer]:
        resolver = self.runtime.resolver
        deadline = Deadline.after(self.runtime.budget.question)
        if len(questions) == 1:
            return [await resolver.fetch(questions[0], deadline)]
        return list(await asyncio.gather(*(resolver.fetch(q, deadline) for q in questions)))


#: A method whose `early` was recalled, and what it found: nothing was run yet.
_Ahead = tuple[Method, object]


def _of_kept(method: Method, inquiry: Inquiry, kept: object) -> object:
    """Return this message's result of one that the memory had."""
    recall = method.recall
    return recall(inquiry, kept) if recall is not None else kept


def _milliseconds(seconds: float) -> float:
    """Return milliseconds to the third digit, at a quarter of the price of `round`."""
    return int(seconds * 1e6 + 0.5) / 1000


@lru_cache(maxsize=64)
def _recalled(method: str) -> Step:
    """Return the line of the trace of a result that was recalled whole."""
    return Step(method=method, recalled=True)


class Verification:
    """One message on its way from MAIL FROM to a verdict; made at MAIL, with the runtime of that moment.

    Args:
        runtime: the settings, policy and ports.
        session: the SMTP session as known at MAIL.
        listener: the door's name for the log (`inet:8891@127.0.0.1`, `cli`).
        received_at: time of arrival; default: now.
        mail_id: our id of the message; default: a new one.
    """

    __slots__ = (
        "_body",
        "_body_whole",
        "_checked",
        "_inquiry",
        "_listener",
        "_mail_id",
        "_options",
        "_origin",
        "_origin_because",
        "_queue_id",
        "_recipients",
        "_relay",
        "_runtime",
        "_session",
        "_signing",
        "_steps",
        "_working",
        "mail",
    )

    def __init__(
        self,
        runtime: Runtime,
        session: Session,
        *,
        listener: str = "",
        received_at: datetime | None = None,
        mail_id: MailId | None = None,
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._listener = listener
        self._mail_id = mail_id or runtime.new_id()
        self._origin, self._origin_because, self._relay = runtime.origins.decide(session)
        self._inquiry = Inquiry.of(runtime.checks, session, received_at or runtime.now())
        self._checked = self._origin in _JUDGED
        # the lines of the trace, by method, in the order they began; of those at work they are not yet right
        self._steps: dict[str, Step] = {}
        # those that have no result yet
        self._working: dict[str, _Run | _Ahead] = {}
        self._recipients: list[Recipient] = []
        self._options: tuple[str, ...] = ()
        self._queue_id = ""
        self._body: BodyHasher | None = None
        self._body_whole = True
        self._signing: SigningPlan | NotSigned | None = None
        #: the mail as judged, once `verdict` has returned
        self.mail: Mail | None = None

    @property
    def origin(self) -> Origin:
        """Where the mail comes from."""
        return self._origin

    def queue_id(self, queue_id: str) -> None:
        """Note the MTA's queue id (known late in Postfix); for the log only."""
        self._queue_id = queue_id

    def sender(self, mail_from: ReversePath, options: tuple[str, ...] = ()) -> None:
        """Take the reverse-path and ESMTP options of MAIL; SPF and iprev start here."""
        self._inquiry.mail_from = mail_from
        self._options = options
        if self._checked and self._relay is None:
            self._start(self._runtime.schedule.at_mail)

    def recipient(self, rcpt: Recipient) -> None:
        """Take one RCPT."""
        self._recipients.append(rcpt)

    def headers(self, message: Message) -> bool:
        """Take the header block; DMARC and DKIM start here. True if the body is needed."""
        inquiry, runtime = self._inquiry, self._runtime
        inquiry.message = message
        planned = self._plan_signing(runtime.signing, message) if runtime.signing is not None else None
        needs = sign.body_needs(planned) if planned is not None else _NO_NEEDS
        if runtime.sealing is not None and seal.wanted(runtime.sealing, self._origin, self._recipients):
            needs |= {seal.NEED}
        if not self._checked:
            self._body = BodyHasher(needs, watch=planned is not None)
            return bool(needs)
        if self._relay is not None:
            self._through_relay(self._relay, message)
        starting = runtime.schedule.at_headers
        for method, prepare in runtime.schedule.preparing:
            try:
                more = prepare(inquiry)
            except Exception as e:  # noqa: BLE001 - the guard of ARCHITECTURE.md, Faults
                self._broken(method, e)
                starting = tuple(m for m in starting if m is not method)
            else:
                if more:
                    needs = needs | more if needs else more
        self._body = BodyHasher(needs, watch=planned is not None)
        self._start(starting)
        # Wanted without any signature too: rules ask for its size and for bare CR and LF in it.
        return True

    def body(self, chunk: bytes) -> bool:
        """Take a piece of the body. True while more is wanted."""
        if self._body is not None:
            self._body.update(chunk)
        return True

    def body_cut(self) -> None:
        """Say that the rest of the body will not come: signatures over it stay unchecked."""
        self._body_whole = False

    def cancel(self) -> None:
        """Stop all work: the message will not be finished. Harmless at any time, any number of times."""
        for run in self._working.values():
            if isinstance(run, _Run):
                run.cancel()

    async def verdict(self, deadline: Deadline | None = None) -> Verdict:
        """Return the verdict, within the message's budget or `deadline`, whichever is earlier. Total.

        Waits only for answers that are not at hand.
        """
        runtime, inquiry = self._runtime, self._inquiry
        ended = monotonic()
        try:
            if self._working and self._body is not None and self._body_whole:
                try:
                    self._body_digests()
                except Exception as e:  # noqa: BLE001 - the guard of ARCHITECTURE.md, Faults
                    runtime.journal.bug("body", e)
            order = iter(sorted(self._working, key=CONCLUDING.index))
            waiting = self._conclude(order)
            if waiting is not None:
                await self._wait(waiting, order, ended, deadline)
        except BaseException:
            # (who has concluded has nothing left to stop)
            self.cancel()
            raise
        evidence = _make_evidence(
            iprev=inquiry.iprev,
            spf_helo=inquiry.spf_helo,
            spf=inquiry.spf,
            dkim=inquiry.dkim,
            arc=inquiry.arc,
            dmarc=inquiry.dmarc,
            bimi=inquiry.bimi,
        )
        mail = self.mail = _make_mail(
            id=self._mail_id,
            session=self._session,
            envelope=_make_envelope(
                mail_from=inquiry.mail_from, rcpt_to=tuple(self._recipients), mail_options=self._options
            ),
            message=inquiry.message,
            received_at=inquiry.received_at,
            body=self._body.facts() if self._body is not None else _NO_BODY,
            origin=self._origin,
            origin_because=self._origin_because,
        )
        try:
            decision = decide.judge(mail, evidence, runtime.policy, runtime.on_error)
        except Exception as e:  # noqa: BLE001 - as above
            runtime.journal.bug("policy", e)
            decision = decide.on_error_decision(runtime.policy, runtime.on_error, "policy", mail)
        try:
            plan = header_edits.plan(mail, evidence, decision, runtime.headers)
        except Exception as e:  # noqa: BLE001 - as above
            runtime.journal.bug("headers", e)
            # Without a plan forged headers would stay in the mail: whatever the settings, the sender keeps it for now.
            strictly = replace(runtime.policy, mode=Mode.ENFORCE)
            decision = decide.on_error_decision(strictly, OnError.TEMPFAIL, "headers", mail)
            plan = Plan(edits=(), authentication_results="")
        signing: Signing | None = None
        if runtime.signing is not None:
            decision, plan, signing = self._sign(runtime.signing, mail, decision, plan)
        sealed: Sealing | None = None
        if runtime.sealing is not None:
            decision, plan, sealed = self._seal(runtime.sealing, mail, decision, plan)
        verdict = _make_verdict(
            mail_id=mail.id,
            origin=mail.origin,
            origin_because=mail.origin_because,
            evidence=evidence,
            decision=decision,
            edits=plan.edits,
            authentication_results=plan.authentication_results,
            signing=signing,
            sealing=sealed,
            trace=tuple(self._steps.values()),
            elapsed_ms=_milliseconds(monotonic() - ended),
        )
        runtime.journal.record(mail, verdict, queue_id=self._queue_id, listener=self._listener)
        return verdict

    def _broken(self, method: Method, error: Exception) -> None:
        """Give a method that failed to read the header block the result it has when it fails at work."""
        run = _Run(method, self._inquiry, self._runtime, None)
        self._working[method.name] = run
        self._steps[method.name] = run.step()
        run.fail(error)

    def _start(self, methods: tuple[Method, ...]) -> None:
        """Start those that apply. What the memory has whole is a result at once."""
        inquiry, runtime = self._inquiry, self._runtime
        steps, memory = self._steps, runtime.memory
        for method in methods:
            name = method.name
            key = method.key(inquiry) if method.key is not None else None
            kept = memory.get(key) if key is not None else None
            if kept is None:
                if method.applies is None or method.applies(inquiry):
                    run = self._working[name] = _Run(method, inquiry, runtime, key)
                    steps[name] = _recalled(name)  # (its place; the line follows with the result)
                    run.go()
            else:
                steps[name] = _recalled(name)
                if method.conclude is not None:
                    self._working[name] = method, kept
                elif method.recall is not None:
                    setattr(inquiry, name, method.recall(inquiry, kept))
                else:
                    setattr(inquiry, name, kept)

    def _conclude(self, order: Iterator[str]) -> _Run | None:
        """Make the results that are next in `order`, until one has to be waited for, and return that one's run."""
        working, inquiry = self._working, self._inquiry
        for name in order:
            run = working[name]
            if isinstance(run, tuple):
                method, early = run
                key = method.final_key(inquiry) if method.final_key is not None else None
                kept = self._runtime.memory.get(key) if key is not None else None
                if kept is not None:
                    setattr(inquiry, name, _of_kept(method, inquiry, kept))
                    continue
                run = working[name] = _Run(method, inquiry, self._runtime, None)
                run.result = early
                concluded = run.go_on(key)
            else:
                concluded = run.conclude()
            if not concluded:
                return run
            setattr(inquiry, name, run.result)
            self._steps[name] = run.step()
        return None

    async def _wait(
        self, waiting: _Run, order: Iterator[str], ended: float, deadline: Deadline | None
    ) -> None:
        """Make the result of `waiting` and those after it in `order`, within what is left of the message's budget."""
        budget = self._runtime.budget
        whole = _make_deadline(ended + budget.message)
        if deadline is not None and deadline.at < whole.at:
            whole = deadline
        checks = _make_deadline(min(whole.at, ended + budget.checks))
        run: _Run | None = waiting
        while run is not None:
            method = run.method
            await run.finish(whole if method.whole_budget else checks)
            setattr(self._inquiry, method.name, run.result)
            self._steps[method.name] = run.step()
            run = self._conclude(order)

    def _through_relay(self, relay: Relay, message: Message) -> None:
        received = message.fields("received")
        client = (
            relayed_client(received[0].value, relay.received_by) if received and relay.received_by else None
        )
        if client is None:
            self._session = replace(self._session, client_ip=None)
            self._origin_because += "; its Received field names no client, so SPF and iprev are not asked"
        else:
            self._session = replace(self._session, client_ip=client.ip, helo=client.helo)
            self._origin_because += "; client taken from its Received field"
        self._inquiry.ask_about(self._session)
        self._start(self._runtime.schedule.at_mail)

    def _plan_signing(self, settings: SigningSettings, message: Message) -> SigningPlan | None:
        """Decide whether the mail is signed, and return how; the body is hashed for it as it arrives."""
        session, origin = self._session, self._origin
        planned = self._guarded("signing", sign_plan_for, session, origin, message, settings)
        if planned is None:
            planned = NotSigned(NotSignedReason.INTERNAL, "signing: it failed inside authmilter")
        self._signing = planned
        return planned if isinstance(planned, SigningPlan) else None

    def _sign(
        self, settings: SigningSettings, mail: Mail, decision: Decision, plan: Plan
    ) -> tuple[Decision, Plan, Signing | None]:
        """Return the decision, the edits with signatures among them, and what the log says of signing."""
        outcome = self._signing
        if outcome is None or decision.disposition not in {Disposition.ACCEPT, Disposition.QUARANTINE}:
            return decision, plan, None
        settled = settle(outcome, mail.body, settings)
        risks = tuple(sorted(r.value for r in settled.risks))
        if isinstance(outcome, NotSigned):
            told = Signing(line=outcome.line, reason=outcome.reason.value, detail=outcome.detail)
        else:
            told = Signing(
                line=outcome.because,
                reason="" if settled.action is Action.SIGN else "unsafe_body",
                risks=risks,
                detail="" if settled.action is Action.SIGN else f"{settled.action.value} by on_unsafe_body",
            )
        action = settled.action
        if isinstance(outcome, SigningPlan) and action is Action.SIGN:
            values = self._guarded("signing", self._signatures, outcome)
            if values is not None:
                names = tuple(f"{e.domain.ascii}/{e.selector}" for e in outcome.entries)
                return decision, _with_signatures(plan, values), replace(told, signed=names)
            told = replace(told, reason=NotSignedReason.INTERNAL.value)
            action = Action.TEMPFAIL if settings.on_error is OnSigningError.TEMPFAIL else Action.PASS_UNSIGNED
        if action is Action.TEMPFAIL:
            reply = SmtpReply(
                code=451,
                enhanced="4.7.0",
                text=f"Message cannot be signed now, try again later (id {mail.id})",
            )
            decision = replace(
                decision,
                disposition=Disposition.TEMPFAIL,
                rule="signing",
                because=f"{told.line}: {told.reason}",
                reply=reply,
                tags=(),
            )
            plan = replace(plan, edits=())
        return decision, plan, told

    def _seal(
        self, settings: SealSettings, mail: Mail, decision: Decision, plan: Plan
    ) -> tuple[Decision, Plan, Sealing | None]:
        """Return the decision, the edits with an ARC set or a keyed id among them, and what the log says of it."""
        if decision.disposition not in {Disposition.ACCEPT, Disposition.QUARANTINE}:
            return decision, plan, None
        inquiry = self._inquiry
        done = self._guarded(
            "sealing",
            sealing.finish,
            mail,
            plan,
            settings,
            arc=inquiry.arc,
            limits=inquiry.settings.arc,
            digests=lambda: self._body_digests() if self._body is not None and self._body_whole else None,
            now=self._runtime.now(),
        )
        if done is None:
            return decision, plan, Sealing(mode="", reason=seal.NotSealedReason.INTERNAL.value)
        if not done.defer:
            return decision, done.plan, done.told
        because = f"the ARC chain could not be checked, and the mail is to be sealed: {done.told.detail if done.told else ''}"
        reply = SmtpReply(
            code=451,
            enhanced="4.7.0",
            text=f"ARC chain cannot be checked now, try again later (id {mail.id})",
        )
        decision = replace(
            decision, disposition=Disposition.TEMPFAIL, rule="sealing", because=because, reply=reply, tags=()
        )
        return decision, replace(done.plan, edits=()), done.told

    def _signatures(self, planned: SigningPlan) -> tuple[bytes, ...]:
        if self._body is None or not self._body_whole:
            raise ValueError("the body was not read to its end")
        return sign.finish(planned, self._body_digests(), self._runtime.now())

    def _body_digests(self) -> BodyDigests:
        """The body's hashes; made once, because checking and signing both ask."""
        digests = self._inquiry.digests
        if digests is None:
            assert self._body is not None  # who calls has looked
            digests = self._inquiry.digests = self._body.finish()
        return digests

    def _guarded(self, where: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return work(*args, **kwargs)
        except Exception as e:  # noqa: BLE001 - the guard of ARCHITECTURE.md, Faults
            self._runtime.journal.bug(where, e)
            return None


def _with_signatures(plan: Plan, values: tuple[bytes, ...]) -> Plan:
    """Put the signatures below our other fields: fields inserted at the top stand the other way round in the list."""
    fields = tuple(InsertHeader(at=0, name=b"DKIM-Signature", value=v) for v in reversed(values))
    at = next(
        (i for i, e in enumerate(plan.edits) if isinstance(e, InsertHeader | Quarantine)), len(plan.edits)
    )
    return replace(plan, edits=(*plan.edits[:at], *fields, *plan.edits[at:]))


async def ask(method: Method, inquiry: Inquiry, runtime: Runtime, deadline: Deadline) -> tuple[object, int]:
    """Run one method alone and return its result and how many DNS questions it asked. Total, as a verdict is."""
    key = method.key(inquiry) if method.key is not None else None
    kept = runtime.memory.get(key) if key is not None else None
    run = _Run(method, inquiry, runtime, key)
    try:
        if kept is None:
            run.go()
        elif method.conclude is None:
            run.take(kept)
        else:
            run.result = kept
        if not run.conclude():
            await run.finish(deadline.or_after(runtime.budget.message))
    finally:
        run.cancel()
    return run.result, run.lookup.asked


async def verify(
    raw: bytes,
    runtime: Runtime,
    *,
    session: Session,
    envelope: Envelope | None = None,
    received_at: datetime | None = None,
    mail_id: MailId | None = None,
    listener: str = "library",
    deadline: Deadline | None = None,
) -> tuple[Mail, Verdict]:
    """Judge one whole message, as it was received (CRLF line ends), and return it with its verdict. Total."""
    verification = Verification(runtime, session, listener=listener, received_at=received_at, mail_id=mail_id)
    asked = envelope or Envelope(mail_from=NullPath())
    verification.sender(asked.mail_from, asked.mail_options)
    for rcpt in asked.rcpt_to:
        verification.recipient(rcpt)
    message, start = Message.parse(raw)
    verification.headers(message)
    verification.body(raw[start:])
    verdict = await verification.verdict(deadline)
    assert verification.mail is not None  # set by verdict
    return verification.mail, verdict
