"""A worker process: one event loop, the connections its supervisor hands it, the runtime it judges with.

The channel to the supervisor carries small JSON messages: `{"open": LISTENER}` with a connection attached,
`{"reload": true}`, `{"drain": SECONDS}` one way; `{"ready": true, "digest"}`, `{"sessions": N}` (how many have
closed), `{"counters": {...}}`, `{"error"}` the other. If the channel closes, the supervisor is gone: the worker
finishes its sessions as if told to drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from authmilter import runtime
from authmilter.config import load as config_load
from authmilter.config.load import Loaded
from authmilter.engine import Runtime, Verification
from authmilter.errors import AuthMilterError
from authmilter.mail import Session
from authmilter.milter.native import MilterServer, NativeSettings
from authmilter.milter.session import SessionFactory, SessionSettings
from authmilter.observe.counters import Counters
from authmilter.observe.journal import LogJournal, make_log
from authmilter.verdict import Disposition

__all__ = ["VERSION", "Worker", "serve"]

VERSION = importlib.metadata.version("authmilter")

#: How often the supervisor is told the counters, in seconds.
_REPORT_EVERY = 1.0
#: How long a session may take to end its message once its drain is over, in seconds.
_LAST_MESSAGE = 2.0


class Worker:
    """What lives as long as the process: the runtime of the moment, the journal, the server.

    Args:
        loaded: the configuration.
    """

    def __init__(self, loaded: Loaded) -> None:
        settings = runtime.log_settings(loaded.config)
        self._loaded = loaded
        self._log = make_log(settings)
        self.journal = LogJournal(self._log, settings, Counters())
        self.runtime: Runtime = runtime.build(loaded, journal=self.journal)

    @property
    def loaded(self) -> Loaded:
        """The configuration that the runtime was built from."""
        return self._loaded

    def note(self, name: str, sentence: str) -> None:
        """Write and count something an administrator should know about the other side."""
        self.journal.counters.add(f"notes{{{name}}}")
        self._log.warning(name, detail=sentence)

    def sessions(self) -> SessionFactory:
        """Return what makes the milter sessions of this process."""
        milter = self._loaded.config.milter
        settings = SessionSettings(body_cap=milter.body_cap, on_error=Disposition(milter.on_error))
        return SessionFactory(self.begin, bug=self.journal.bug, note=self.note, settings=settings)

    def begin(self, session: Session, listener: str) -> Verification:
        """Start judging a message: reads the runtime of this moment, once."""
        return Verification(self.runtime, session, listener=listener)

    def reload(self) -> None:
        """Build the runtime anew and use it from the next MAIL on; the DNS cache stays if its settings did.

        Raises:
            AuthMilterError: the configuration cannot be used; the old runtime stays.
        """
        loaded = config_load.load(self._loaded.path)
        same_dns = loaded.config.dns == self._loaded.config.dns and loaded.config.dns.zone is None
        self.runtime = runtime.build(
            loaded, journal=self.journal, resolver=self.runtime.resolver if same_dns else None
        )
        self._loaded = loaded


class _Server(MilterServer):
    """A milter server that says when a connection has ended."""

    def __init__(self, work: Worker, ended: Callable[[], None]) -> None:
        milter = work.loaded.config.milter
        settings = NativeSettings(
            max_sessions=milter.max_sessions, idle_timeout=milter.idle_timeout, progress=milter.progress
        )
        super().__init__((), work.sessions(), settings, work.note)
        self._ended = ended

    def gone(self, connection: Any) -> None:
        """Forget a connection and tell."""
        super().gone(connection)
        self._ended()


class _Link:
    """The worker's end of the channel to the supervisor."""

    def __init__(self, work: Worker, channel: socket.socket) -> None:
        self._work = work
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._server = _Server(work, lambda: self.say({"sessions": 1}))
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reported: dict[str, float] = {}
        channel.setblocking(False)
        self._loop.add_reader(channel.fileno(), self._read)
        self.say({"ready": True, "digest": work.runtime.digest})
        self._loop.call_later(_REPORT_EVERY, self._report)

    def say(self, message: dict[str, object]) -> None:
        """Tell the supervisor; what it has no room for, its next count will show."""
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps(message).encode())

    async def finished(self) -> None:
        """Wait until the worker has been told to end and its sessions have ended."""
        await self._done.wait()
        self.say({"counters": self._work.journal.counters.snapshot()})

    def _read(self) -> None:
        while True:
            try:
                data, fds, _flags, _address = socket.recv_fds(self._channel, 65536, 8)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._loop.remove_reader(self._channel.fileno())
                self._drain(self._work.loaded.config.milter.drain)
                return
            self._obey(json.loads(data), fds)

    def _obey(self, message: dict[str, object], fds: list[int]) -> None:
        if "open" in message:
            for fd in fds:
                self._spawn(self._adopt(socket.socket(fileno=fd), str(message["open"])))
        if message.get("reload"):
            try:
                self._work.reload()
                self.say({"digest": self._work.runtime.digest})
            except AuthMilterError as e:
                self.say({"error": f"reload: {e}"})
        if "drain" in message:
            self._drain(float(str(message["drain"])))

    async def _adopt(self, connection: socket.socket, listener: str) -> None:
        try:
            connection.setblocking(False)
            await self._server.adopt(connection, listener)
        except OSError:
            # the client went away between the supervisor's accept and here
            connection.close()
            self.say({"sessions": 1})

    def _drain(self, seconds: float) -> None:
        task = self._spawn(self._server.drain(seconds, grace=_LAST_MESSAGE))
        task.add_done_callback(lambda _task: self._done.set())

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _report(self) -> None:
        counters = self._work.journal.counters.snapshot()
        if counters != self._reported:
            self._reported = counters
            self.say({"counters": counters})
        self._loop.call_later(_REPORT_EVERY, self._report)


def serve(loaded: Loaded, channel: socket.socket, number: int) -> int:
    """Run a worker until its supervisor says otherwise; returns the exit code.

    Args:
        loaded: the configuration.
        channel: the socket to the supervisor.
        number: which worker this is, from 0 (with `engine: libmilter`: which listener).
    """
    work = Worker(loaded)
    gc.freeze()
    if loaded.config.milter.engine == "libmilter":
        return _serve_libmilter(work, channel, number)

    import uvloop  # noqa: PLC0415 - only where a loop is started

    uvloop.run(_serve_native(work, channel))
    return 0


async def _serve_native(work: Worker, channel: socket.socket) -> None:
    await _Link(work, channel).finished()


def _serve_libmilter(work: Worker, channel: socket.socket, number: int) -> int:
    """Serve one listener with libmilter, which owns the main thread; the channel is read in a thread beside it."""
    import uvloop  # noqa: PLC0415 - only where a loop is started

    from authmilter.milter._pymilter import LibmilterEngine, LibmilterSettings  # noqa: PLC0415 - loads GPL pymilter
    from authmilter.milter.sockets import ListenSpec  # noqa: PLC0415 - only here

    milter = work.loaded.config.milter
    engine = LibmilterEngine(
        work.sessions(), LibmilterSettings(progress=milter.progress), loop_factory=uvloop.new_event_loop
    )
    engine.open(
        ListenSpec.parse(milter.listen[number]),
        mode=milter.socket_mode,
        owner=milter.socket_owner or None,
        group=milter.socket_group or None,
    )
    threading.Thread(target=_obey_beside, args=(work, channel, engine.stop), daemon=True).start()
    engine.run()
    return 0


def _obey_beside(work: Worker, channel: socket.socket, stop: Callable[[], None]) -> None:
    """Read the supervisor's messages until it says to end, and tell it the counters."""
    channel.settimeout(_REPORT_EVERY)
    reported: dict[str, float] = {}

    def say(message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            channel.send(json.dumps(message).encode())

    say({"ready": True, "digest": work.runtime.digest})
    while True:
        try:
            data = channel.recv(65536)
        except TimeoutError:
            counters = work.journal.counters.snapshot()
            if counters != reported:
                reported = counters
                say({"counters": counters})
            continue
        except OSError:
            data = b""
        message = json.loads(data) if data else {"drain": 0}
        if message.get("reload"):
            try:
                work.reload()
                say({"digest": work.runtime.digest})
            except AuthMilterError as e:
                say({"error": f"reload: {e}"})
        if "drain" in message:
            # libmilter knows no drain: it gives open sessions 5 s and ends.
            say({"counters": work.journal.counters.snapshot()})
            stop()
            return
