"""The libmilter engine's own parts, called as libmilter calls them."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authmilter.errors import AuthMilterError
from authmilter.milter._pymilter import LibmilterEngine, LibmilterSettings
from authmilter.milter.session import SessionSettings
from authmilter.milter.sockets import ListenSpec, open_listener
from authmilter.verdict import Disposition
from tests.milter.fakes import Plan, Stage
from tests.milter.processes import need_pymilter


class Context:
    """libmilter's side of a connection."""

    def __init__(self, symbols: dict[str, str | None]) -> None:
        self.symbols = symbols
        self.private: object = None
        self.lists: dict[int, str] = {}
        self.reply: tuple[str, ...] = ()
        self.fails_at = ""

    def getpriv(self) -> object:
        return self.private

    def setpriv(self, value: object) -> None:
        self.private = value

    def setsymlist(self, stage: int, names: str) -> None:
        self.lists[stage] = names

    def getsymval(self, name: str) -> str | None:
        if name == self.fails_at:
            raise MemoryError(name)
        return self.symbols.get(name)

    def setreply(self, *parts: str) -> None:
        self.reply = parts


@contextmanager
def an_engine(stage: Stage) -> Iterator[LibmilterEngine]:
    need_pymilter()
    engine = LibmilterEngine(stage.factory(), LibmilterSettings(progress=0.05, verdict_timeout=0.1))
    thread = threading.Thread(target=engine.loop.run_forever, daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        thread.join(10)
        engine.loop.close()


def call(engine: LibmilterEngine, ctx: Context, name: str, *args: object) -> int:
    return engine._wrap(name)(ctx, *args)


@pytest.mark.parametrize("on_error", [Disposition.TEMPFAIL, Disposition.ACCEPT])
@pytest.mark.parametrize("place", ["mail", "header"])
def test_a_bug_in_a_callback_breaks_the_message_and_not_the_connection(
    place: str, on_error: Disposition
) -> None:
    need_pymilter()
    import milter  # noqa: PLC0415 - only where it is installed

    stage = Stage(settings=SessionSettings(on_error=on_error))
    with an_engine(stage) as engine:
        ctx = Context({"{client_addr}": "192.0.2.1", "i": "Q1"})
        options = [0x1FF, 0x1FFFFF, 0, 0]
        assert call(engine, ctx, "negotiate", options) == milter.CONTINUE
        assert "{auth_authen}" in ctx.lists[2]
        assert (
            call(engine, ctx, "connect", "mail.example.org", int(socket.AF_INET), ("192.0.2.1", 25))
            == milter.NOREPLY
        )
        message = [
            ("mail", b"<a@b.example>"),
            ("rcpt", b"<c@d.example>"),
            ("header", "From", b" a@b.example"),
            ("end_of_headers",),
        ]
        for name, *args in message:
            # a macro that cannot be had, and what libmilter never hands over
            ctx.fails_at = "{auth_type}" if name == place == "mail" else ""
            given = [None] * len(args) if name == place != "mail" else args
            code = call(engine, ctx, str(name), *given)
            assert code == (milter.CONTINUE if name == place else milter.NOREPLY)
        assert [where for where, _ in stage.bugs] == [f"libmilter:{place}"]
        ctx.fails_at = ""
        code = call(engine, ctx, "end_of_message")
        if on_error is Disposition.TEMPFAIL:
            assert code == milter.TEMPFAIL
            assert ctx.reply == ("451", "4.3.0", "Internal error, please try again later")
        else:
            assert code == milter.CONTINUE
        assert all(v.cancelled == 1 for v in stage.verifications)
        for name, *args in message:
            call(engine, ctx, str(name), *args)
        assert call(engine, ctx, "end_of_message") == milter.CONTINUE
        assert stage.named()[-1] == "verdict"
        assert len(stage.bugs) == 1


def test_a_connection_that_is_lost_while_judging_is_cancelled() -> None:
    need_pymilter()
    import milter  # noqa: PLC0415 - only where it is installed

    class Gone(Context):
        def progress(self) -> None:
            raise milter.error("cannot notify progress")

    stage = Stage(plan=Plan(seconds=30))
    with an_engine(stage) as engine:
        ctx = Gone({})
        call(engine, ctx, "negotiate", [0x1FF, 0x1FFFFF, 0, 0])
        call(engine, ctx, "connect", "x", 0, None)
        call(engine, ctx, "mail", b"<>")
        assert call(engine, ctx, "end_of_message") == milter.TEMPFAIL
        call(engine, ctx, "close")
    assert stage.verifications[0].cancelled == 1
    assert stage.bugs == []


def test_a_path_that_is_taken_is_refused(tmp_path: Path) -> None:
    need_pymilter()
    spec = ListenSpec.parse(f"unix:{tmp_path}/m")
    engine = LibmilterEngine(Stage().factory())
    try:
        with open_listener(spec), pytest.raises(OSError, match="another server") as caught:
            engine.open(spec)
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(AuthMilterError, match="no user"):
            engine.open(spec, owner="nosuchuser")
    finally:
        engine.loop.close()
