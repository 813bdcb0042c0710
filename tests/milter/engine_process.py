"""A milter with a scripted verification, as a process of its own: `engine_process.py ENGINE SPEC CALLS [BODY_CAP]`.

The local part of the sender says what the verdict is; every call goes to the file CALLS as a line of JSON, so that
two engines can be compared. Says "ready" when it listens, and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TextIO

from authmilter.mail import Session
from authmilter.message import Message
from authmilter.milter import _pymilter
from authmilter.milter.native import NativeSettings, serve
from authmilter.milter.session import SessionFactory, SessionSettings
from authmilter.milter.sockets import ListenSpec, open_listener
from authmilter.names import Address, Recipient, ReversePath
from authmilter.verdict import (
    ChangeHeader,
    DeleteHeader,
    Disposition,
    InsertHeader,
    Quarantine,
    SmtpReply,
    Verdict,
)
from tests.milter.fakes import a_verdict

PROGRESS = 0.1

VERDICTS = {
    "reject": a_verdict(
        Disposition.REJECT, reply=SmtpReply(code=550, enhanced="5.7.26", text="100% of %s refused")
    ),
    "long": a_verdict(Disposition.REJECT, reply=SmtpReply(code=554, enhanced="5.7.1", text="word " * 300)),
    "tempfail": a_verdict(Disposition.TEMPFAIL, reply=SmtpReply(code=451, enhanced="4.7.24", text="later")),
    "shutdown": a_verdict(
        Disposition.TEMPFAIL, reply=SmtpReply(code=451, enhanced="4.7.0", text="go away"), ends_session=True
    ),
    "latin1": a_verdict(
        Disposition.ACCEPT,
        ChangeHeader(name=b"Subject", nth=1, value=b"[SPAM] \xe4"),
        InsertHeader(at=0, name=b"X-First", value=b"one"),
    ),
    "discard": a_verdict(Disposition.DISCARD),
    "unsendable": a_verdict(Disposition.ACCEPT, InsertHeader(at=0, name=b"X", value=b"a\r\nForged: b")),
    "edits": a_verdict(
        Disposition.QUARANTINE,
        DeleteHeader(name=b"X-Old", nth=1),
        DeleteHeader(name=b"X-Old", nth=3),
        ChangeHeader(name=b"Subject", nth=1, value="[SPAM] jörg".encode()),
        InsertHeader(at=0, name=b"X-First", value=b"one;\r\n two"),
        InsertHeader(at=0, name=b"Authentication-Results", value=b"mx.rig.example;\r\n\tspf=pass"),
        InsertHeader(at=1, name=b"X-Second", value=b"x"),
        Quarantine(reason="held for review"),
    ),
}


class Scripted:
    """Writes down what it is told, and says what its sender's local part asks for."""

    def __init__(self, calls: TextIO, session: Session, listener: str) -> None:
        self._calls = calls
        self._script = ""
        self._note("begin", session, listener)

    def _note(self, name: str, *values: object) -> None:
        self._calls.write(json.dumps([name, *map(repr, values)]) + "\n")
        self._calls.flush()

    def queue_id(self, queue_id: str) -> None:
        self._note("queue_id", queue_id)

    def sender(self, mail_from: ReversePath, options: tuple[str, ...]) -> None:
        self._note("sender", mail_from, options)
        self._script = mail_from.local if isinstance(mail_from, Address) else ""

    def recipient(self, rcpt: Recipient) -> None:
        self._note("recipient", rcpt)

    def headers(self, message: Message) -> bool:
        asyncio.get_running_loop()  # verifications may start tasks
        self._note("headers", message.headers)
        if self._script == "bug":
            raise RuntimeError("a bug")
        return self._script != "bodyless"

    def body(self, chunk: bytes) -> bool:
        self._note("body", len(chunk), chunk[:8], chunk[-8:])
        return True

    def body_cut(self) -> None:
        self._note("body_cut")

    async def verdict(self) -> Verdict:
        self._note("verdict")
        if self._script == "slow":
            await asyncio.sleep(PROGRESS * 3.5)
        if self._script == "cancelled":
            raise asyncio.CancelledError
        if self._script == "never":
            await asyncio.Event().wait()
        return VERDICTS.get(self._script, a_verdict())

    def cancel(self) -> None:
        self._note("cancel")


async def _native(spec: ListenSpec, factory: SessionFactory) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with open_listener(spec) as sock:
        server = await serve(
            [(str(spec), sock)], factory, NativeSettings(progress=PROGRESS, verdict_timeout=PROGRESS * 8)
        )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await ended.wait()
        await server.close()


def main(engine: str, spec_text: str, calls_file: str, body_cap: str = "") -> None:
    """Serve until SIGTERM."""
    spec = ListenSpec.parse(spec_text)
    with Path(calls_file).open("w", encoding="utf-8") as calls:

        def note(kind: str, *values: object) -> None:
            calls.write(json.dumps([kind, *map(str, values)]) + "\n")
            calls.flush()

        factory = SessionFactory(
            lambda session, listener: Scripted(calls, session, listener),
            bug=lambda where, error: note("bug", where, type(error).__name__),
            note=lambda name, sentence: note("note", name, sentence),
            settings=SessionSettings(body_cap=int(body_cap) if body_cap else None),
        )
        if engine == "native":
            asyncio.run(_native(spec, factory))
            return
        libmilter = _pymilter.LibmilterEngine(
            factory, _pymilter.LibmilterSettings(progress=PROGRESS, verdict_timeout=PROGRESS * 8)
        )
        libmilter.open(spec)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        libmilter.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
