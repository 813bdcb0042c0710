"""Stand-ins for what a milter session drives: a verification that writes down what it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from authmilter.evidence import Evidence
from authmilter.mail import Origin, Session
from authmilter.message import Message
from authmilter.milter.session import SessionFactory, SessionSettings
from authmilter.names import Recipient, ReversePath
from authmilter.verdict import Decision, Disposition, Edit, SmtpReply, Verdict

Call = tuple[str, ...]


def a_verdict(
    disposition: Disposition = Disposition.ACCEPT,
    *edits: Edit,
    reply: SmtpReply | None = None,
    ends_session: bool = False,
) -> Verdict:
    """A verdict of a disposition, with its edits."""
    return Verdict(
        mail_id="AAAABBBBCCCCDDDD",
        origin=Origin.INTERNET,
        origin_because="test",
        evidence=Evidence(),
        decision=Decision(
            disposition=disposition, rule="test", because="test", reply=reply, ends_session=ends_session
        ),
        edits=edits,
        authentication_results="",
    )


@dataclass(slots=True, kw_only=True)
class Plan:
    """What the recorded verifications are to do."""

    verdict: Verdict = field(default_factory=a_verdict)
    wants_body: bool = True
    body_chunks: int | None = None
    raises_at: str = ""
    waits: asyncio.Event | None = None
    seconds: float = 0.0


class Recorder:
    """One verification: every call is written down, readable and comparable."""

    def __init__(self, plan: Plan, calls: list[Call], session: Session) -> None:
        self.plan = plan
        self.calls = calls
        self.session = session
        self.chunks = 0
        self.octets = 0
        self.message = Message()
        self.cancelled = 0

    def _note(self, name: str, *values: object) -> None:
        self.calls.append((name, *map(repr, values)))
        if self.plan.raises_at == name:
            raise RuntimeError(f"a bug in {name}")

    def queue_id(self, queue_id: str) -> None:
        self._note("queue_id", queue_id)

    def sender(self, mail_from: ReversePath, options: tuple[str, ...]) -> None:
        self._note("sender", mail_from, options)

    def recipient(self, rcpt: Recipient) -> None:
        self._note("recipient", rcpt)

    def headers(self, message: Message) -> bool:
        self.message = message
        self._note("headers", message.headers)
        return self.plan.wants_body

    def body(self, chunk: bytes) -> bool:
        self.chunks += 1
        self.octets += len(chunk)
        self._note("body", len(chunk), chunk[:20])
        return self.plan.body_chunks is None or self.chunks < self.plan.body_chunks

    def body_cut(self) -> None:
        self._note("body_cut")

    async def verdict(self) -> Verdict:
        self._note("verdict")
        if self.plan.waits is not None:
            await self.plan.waits.wait()
        if self.plan.seconds:
            await asyncio.sleep(self.plan.seconds)
        return self.plan.verdict

    def cancel(self) -> None:
        self.cancelled += 1
        self._note("cancel")


@dataclass(slots=True, kw_only=True)
class Stage:
    """A session factory and all that is written down behind it."""

    plan: Plan = field(default_factory=Plan)
    settings: SessionSettings = field(default_factory=SessionSettings)
    calls: list[Call] = field(default_factory=list)
    verifications: list[Recorder] = field(default_factory=list)
    kind: type[Recorder] = Recorder
    bugs: list[tuple[str, BaseException]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def begin(self, session: Session, listener: str) -> Recorder:
        self.calls.append(("begin", repr(session), listener))
        if self.plan.raises_at == "begin":
            raise RuntimeError("a bug in begin")
        recorder = self.kind(self.plan, self.calls, session)
        self.verifications.append(recorder)
        return recorder

    def factory(self) -> SessionFactory:
        return SessionFactory(
            self.begin,
            bug=lambda where, error: self.bugs.append((where, error)),
            note=lambda name, sentence: self.notes.append((name, sentence)),
            settings=self.settings,
        )

    def named(self) -> list[str]:
        """The names of the calls, in order."""
        return [call[0] for call in self.calls]

    def whole(self) -> list[Call]:
        """The calls without how the body was cut into chunks."""
        return [call for call in self.calls if call[0] != "body"]
