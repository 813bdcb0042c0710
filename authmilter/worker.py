"""A worker process: one event loop, the connections its supervisor hands it, the runtime it judges with.

The channel to the supervisor keeps messages whole and in order. What comes: `{"open": LISTENER, "n": N}` with a
connection attached; pieces of text (marked by `PIECE`) and then `{"reload": DIGEST}`; `{"drain": SECONDS, "grace":
SECONDS}`, which may come again with less. What goes back: `{"state": [TAKEN, OPEN]}`, the number of the last connection
taken and how many sessions are open (absolute, so that one that is lost does no harm; at least one a second, as a sign
of life); `{"missed": [N]}` for connections that came without their descriptor; `{"digest"}` once that runtime is in
use; `{"counters": {...}}`, those that changed; `{"error"}`; `{"ended": [CLOSED, CUT]}` at the end. A connection is said
to be taken before anything is read from it: until then the supervisor can hand it to another.

If the channel closes, the supervisor is gone: the worker finishes its sessions as if told to drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import json
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from authmilter import runtime
from authmilter.config import load as config_load
from authmilter.config.load import Loaded
from authmilter.config.texts import reader
from authmilter.engine import Runtime, Verification
from authmilter.errors import AuthMilterError
from authmilter.mail import Session
from authmilter.milter.native import MilterServer, NativeSettings
from authmilter.milter.session import SessionFactory, SessionSettings
from authmilter.observe.counters import Counters
from authmilter.observe.journal import LogJournal, make_log
from authmilter.ports import Resolver
from authmilter.startup import Listener, StartError, adopted, become, close_listener, listen, raise_file_limit
from authmilter.systemd import notify, passed_sockets
from authmilter.verdict import Disposition

__all__ = ["PIECE", "VERSION", "Worker", "check_engine", "preload", "serve", "serve_alone"]

VERSION = importlib.metadata.version("authmilter")

#: A message that begins so is a piece of text, not JSON.
PIECE = b"+"
#: How often the supervisor hears of us, in seconds.
_REPORT_EVERY = 1.0
#: Counters in one message.
_COUNTERS = 200
#: Characters of an error that the supervisor is told.
_MAX_ERROR = 8000
#: Octets of one message from the supervisor, and messages read in one go.
_MAX_MESSAGE = 1 << 18
_BURST = 64
#: A resolver that a reload has replaced serves the messages that began with it; then its sockets are closed.
_OLD_RESOLVER = 60.0
#: How often a libmilter that is to stop is woken, and how long it may take to know what it has accepted, in seconds.
_HASTE = 0.05
_SETTLES = 1.0
#: The exit code where something outside the program is missing (EX_OSERR of sysexits.h).
_OS = 71


class Worker:
    """What lives as long as the process: the runtime of the moment, the journal, what makes sessions.

    Args:
        loaded: the configuration.

    Raises:
        AuthMilterError: it cannot be used.
    """

    def __init__(self, loaded: Loaded) -> None:
        settings = runtime.log_settings(loaded.config)
        self._loaded = loaded
        self.log = make_log(settings)
        self.journal = LogJournal(self.log, settings, Counters())
        self.runtime: Runtime = runtime.build(loaded, journal=self.journal)

    @property
    def loaded(self) -> Loaded:
        """The configuration that the runtime was built from."""
        return self._loaded

    def note(self, name: str, sentence: str) -> None:
        """Write and count something an administrator should know about the other side."""
        self.journal.counters.add(f"notes{{{name}}}")
        with contextlib.suppress(OSError, ValueError):  # the log cannot be written
            self.log.warning(name, detail=sentence)

    def sessions(self) -> SessionFactory:
        """Return what makes the milter sessions of this process."""
        milter = self._loaded.config.milter
        settings = SessionSettings(body_cap=milter.body_cap, on_error=Disposition(milter.on_error))
        return SessionFactory(self.begin, bug=self.journal.bug, note=self.note, settings=settings)

    def begin(self, session: Session, listener: str) -> Verification:
        """Start judging a message: reads the runtime of this moment, once."""
        return Verification(self.runtime, session, listener=listener)

    def reload(self, loaded: Loaded) -> Resolver | None:
        """Build the runtime anew and use it from the next MAIL on; the DNS cache stays if its settings did.

        Returns the resolver that is no longer needed once the messages of today have gone, if any.

        Raises:
            AuthMilterError: the configuration cannot be used; the old runtime stays.
        """
        old = self.runtime.resolver
        same_dns = loaded.config.dns == self._loaded.config.dns and loaded.config.dns.zone is None
        self.runtime = runtime.build(loaded, journal=self.journal, resolver=old if same_dns else None)
        self._loaded = loaded
        return None if same_dns else old

    def close(self) -> None:
        """Close what the resolver holds open."""
        _close(self.runtime.resolver)


def _close(resolver: Resolver) -> None:
    close: Callable[[], None] | None = getattr(resolver, "close", None)
    if close is not None:
        close()


class _Door(Protocol):
    """An engine at work in this process, as its link to the supervisor sees it."""

    @property
    def open_sessions(self) -> int:
        """How many sessions are open."""

    async def adopt(self, sock: socket.socket, listener: str) -> None:
        """Take a connection over; OSError if it is none any more."""

    async def finish(self, seconds: float, grace: float) -> tuple[int, int]:
        """Let the sessions end; return how many were closed between messages, and cut in one."""


class _NativeDoor(MilterServer):
    """The native engine; tells when a connection has ended."""

    def __init__(
        self, work: Worker, ended: Callable[[], None], listeners: tuple[tuple[str, socket.socket], ...] = ()
    ) -> None:
        milter = work.loaded.config.milter
        settings = NativeSettings(
            max_sessions=milter.max_sessions, idle_timeout=milter.idle_timeout, progress=milter.progress
        )
        super().__init__(listeners, work.sessions(), settings, work.note)
        self._ended = ended

    def gone(self, connection: Any) -> None:
        """Forget a connection and tell."""
        super().gone(connection)
        self._ended()

    async def finish(self, seconds: float, grace: float) -> tuple[int, int]:
        """Let the sessions end; return how many were closed between messages, and cut in one."""
        drained = await self.drain(seconds, grace=grace)
        return drained.closed, drained.cut


class _Link:
    """The worker's end of the channel to the supervisor; made inside the running loop.

    Args:
        work: what judges.
        channel: the socket to the supervisor.
        door: makes the engine, given what is to be called whenever a session has ended.
    """

    def __init__(
        self, work: Worker, channel: socket.socket, door: Callable[[Callable[[], None]], _Door]
    ) -> None:
        self._work = work
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._door = door(self._changed)
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reloading = asyncio.Lock()
        self._text = bytearray()
        self._outbox: deque[bytes] = deque()
        self._taken = 0
        self._missed: list[int] = []
        self._new: list[tuple[socket.socket, str]] = []
        self._adopting = 0
        self._adopted = asyncio.Event()
        self._state_due = True
        self._flush_due = False
        self._reported: dict[str, float] = {}
        self._draining: asyncio.Task[None] | None = None
        self._ended = (0, 0)
        channel.setblocking(False)
        self._loop.add_reader(channel.fileno(), self._read)
        self._say({"digest": work.runtime.digest})
        self._report()

    async def finished(self) -> None:
        """Wait until the worker has been told to end and its sessions have ended, and say so."""
        await self._done.wait()
        self._loop.remove_reader(self._channel.fileno())
        self._report_counters()
        self._say({"ended": self._ended})
        self._channel.settimeout(_REPORT_EVERY)  # these are the last words, and nobody else is waiting
        self._flush()

    # -- what is said --------------------------------------------------------------------------------------

    def _say(self, message: Mapping[str, object]) -> None:
        self._outbox.append(json.dumps(message).encode())
        self._flush_soon()

    def _changed(self) -> None:
        """Note that the number of sessions has."""
        self._state_due = True
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Say what is to be said, as far as there is room; then take over what was said to be taken."""
        self._flush_due = False
        try:
            while self._outbox:
                self._channel.send(self._outbox[0])
                self._outbox.popleft()
            if self._state_due:
                sessions = self._door.open_sessions + self._adopting + len(self._new)
                self._channel.send(json.dumps({"state": (self._taken, sessions)}).encode())
                self._state_due = False
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._channel.fileno(), self._flush)
            return
        except OSError:
            self._outbox.clear()  # the supervisor has gone; what it gave us is ours alone
        self._loop.remove_writer(self._channel.fileno())
        new, self._new = self._new, []
        for connection, listener in new:
            self._adopting += 1
            self._spawn(self._adopt(connection, listener))

    def _report(self) -> None:
        self._report_counters()
        self._changed()
        self._loop.call_later(_REPORT_EVERY, self._report)

    def _report_counters(self) -> None:
        counters = self._work.journal.counters.snapshot()
        changed = [(k, v) for k, v in counters.items() if self._reported.get(k) != v]
        self._reported = counters
        for at in range(0, len(changed), _COUNTERS):
            self._say({"counters": dict(changed[at : at + _COUNTERS])})

    # -- what is heard -------------------------------------------------------------------------------------

    def _read(self) -> None:
        for _ in range(_BURST):
            try:
                data, fds, _flags, _address = socket.recv_fds(self._channel, _MAX_MESSAGE, 1)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data, fds = b"", []
            if not data:
                self._loop.remove_reader(self._channel.fileno())
                config = self._work.loaded.config
                self._drain(config.milter.drain, config.limits.message)
                return
            if data.startswith(PIECE):
                self._text += data[len(PIECE) :]
            else:
                self._obey(json.loads(data), fds)
        if self._missed:
            missed, self._missed = self._missed, []
            self._say({"missed": missed})
            self._work.note(
                "no_descriptors", "no descriptor is left for a connection: raise the limit of open files"
            )

    def _obey(self, message: dict[str, Any], fds: list[int]) -> None:
        if "open" in message:
            self._taken = int(message["n"])
            if fds:
                self._new.append((socket.socket(fileno=fds[0]), str(message["open"])))
            else:
                self._missed.append(self._taken)
            self._changed()
        if "reload" in message:
            text, self._text = bytes(self._text), bytearray()
            self._spawn(self._reload(text))
        if "drain" in message:
            self._drain(float(message["drain"]), float(message["grace"]))

    async def _adopt(self, connection: socket.socket, listener: str) -> None:
        try:
            connection.setblocking(False)
            await self._door.adopt(connection, listener)
        except OSError:
            connection.close()  # the client went away between the supervisor's accept and here
        finally:
            self._adopting -= 1
            self._adopted.set()
            self._changed()

    async def _reload(self, text: bytes) -> None:
        async with self._reloading:
            try:
                loaded = config_load.load(self._work.loaded.path, read=reader(json.loads(text)))
                # beside the loop: sessions go on while a large list is read
                old = await asyncio.to_thread(self._work.reload, loaded)
            except Exception as e:  # noqa: BLE001 - whatever it was, the old runtime stays and the supervisor is told
                self._say({"error": f"reload: {type(e).__name__}: {e}"[:_MAX_ERROR]})
                return
            self._say({"digest": self._work.runtime.digest})
            if old is not None:
                self._loop.call_later(_OLD_RESOLVER, _close, old)

    def _drain(self, seconds: float, grace: float) -> None:
        async def drain() -> None:
            while self._new or self._adopting:  # handed over before we were told to end
                self._adopted.clear()
                await self._adopted.wait()
            self._ended = await self._door.finish(seconds, grace)
            self._done.set()

        if self._draining is not None:
            self._draining.cancel()
        self._draining = self._spawn(drain())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def preload() -> None:
    """Import what every worker will need, so that the processes forked from here share it; starts nothing."""
    import uvloop  # noqa: PLC0415 - only where a service is started

    del uvloop


def check_engine(engine: str) -> None:
    """Say whether the engine can be had; loads it, so not for a process that is not to have loaded it.

    Raises:
        AuthMilterError: it is not installed.
    """
    if engine == "libmilter":
        from authmilter.milter import _pymilter  # noqa: PLC0415 - loads GPL pymilter

        if not _pymilter.available():
            raise AuthMilterError(
                "`engine: libmilter` needs pymilter: install authmilter[libmilter], or set `engine: native`"
            )


def serve(loaded: Loaded, channel: socket.socket, listener: Listener | None) -> int:
    """Run a worker until its supervisor says otherwise; returns the exit code.

    Args:
        loaded: the configuration.
        channel: the socket to the supervisor.
        listener: what libmilter accepts on; None with the native engine, which is handed connections.
    """
    try:
        work = Worker(loaded)
        gc.freeze()
        if listener is not None:
            _serve_libmilter(work, listener, channel)
        else:
            import uvloop  # noqa: PLC0415 - only where a loop is started

            uvloop.run(_serve_native(work, channel))
    except AuthMilterError as e:
        channel.setblocking(True)
        channel.send(json.dumps({"error": str(e)[:_MAX_ERROR]}).encode())
        return _OS
    return 0


async def _serve_native(work: Worker, channel: socket.socket) -> None:
    link = _Link(work, channel, lambda ended: _NativeDoor(work, ended))
    await link.finished()
    work.close()


class _LibmilterDoor:
    """libmilter, which has its own threads."""

    def __init__(self, engine: Any, ended: Callable[[], None]) -> None:
        self._engine = engine
        self._tell = ended
        self._one_ended = asyncio.Event()
        engine.ended = self._on_end

    @property
    def open_sessions(self) -> int:
        """How many sessions are open."""
        return len(self._engine.connections)

    async def adopt(self, sock: socket.socket, listener: str) -> None:
        """Refuse: libmilter takes no connections (and is handed none)."""
        raise OSError(f"{listener}: {sock.fileno()} cannot be handed to libmilter")

    async def finish(self, seconds: float, grace: float) -> tuple[int, int]:
        """Take no more sessions and let the open ones end; libmilter then gives up the rest within 5 s."""
        del grace
        self._engine.stop_accepting()
        _wake_main_thread()
        until = asyncio.get_running_loop().time() + seconds
        await self._wait(
            _SETTLES, lambda: False
        )  # what libmilter has just accepted is not among its sessions yet
        await self._wait(until - asyncio.get_running_loop().time(), lambda: not self._engine.connections)
        return 0, self.open_sessions

    async def _wait(self, seconds: float, condition: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                while not condition():
                    self._one_ended.clear()
                    await self._one_ended.wait()

    def _on_end(self) -> None:
        self._one_ended.set()
        self._tell()


def _serve_libmilter(work: Worker, listener: Listener, channel: socket.socket | None) -> None:
    """Serve one listener with libmilter, which owns the main thread; its loop, in a thread beside, has the channel.

    Raises:
        AuthMilterError: libmilter cannot be had, or stopped.
    """
    import uvloop  # noqa: PLC0415 - only where a loop is started

    from authmilter.milter._pymilter import LibmilterEngine, LibmilterSettings  # noqa: PLC0415 - loads GPL pymilter

    milter = work.loaded.config.milter
    settings = LibmilterSettings(progress=milter.progress, idle_timeout=max(1, int(milter.idle_timeout)))
    engine = LibmilterEngine(work.sessions(), settings, loop_factory=uvloop.new_event_loop)
    engine.serve_on(listener.spec, listener.sock)
    listener.sock.close()

    async def listen_to(supervisor: socket.socket) -> None:
        await _Link(work, supervisor, lambda ended: _LibmilterDoor(engine, ended)).finished()
        work.close()
        hasten()
        await asyncio.to_thread(engine.stop)  # it waits until libmilter looks up

    def hasten() -> None:
        _wake_main_thread()
        engine.loop.call_later(_HASTE, hasten)  # the signal may come just before it falls asleep

    task = engine.loop.create_task(listen_to(channel)) if channel is not None else None
    signal.signal(signal.SIGUSR2, lambda _number, _frame: None)
    engine.run()
    del task


def _wake_main_thread() -> None:
    """Make libmilter look up: it looks only every 5 s whether it is to stop, or to listen elsewhere."""
    main = threading.main_thread().ident
    assert main is not None  # it has been started
    signal.pthread_kill(main, signal.SIGUSR2)


def serve_alone(config_path: str | None) -> int:
    """Run one worker in the foreground, without a supervisor, on sockets of its own; returns the exit code.

    SIGTERM drains, and a second one ends at once; SIGHUP and SIGUSR1 reload (the policy and everything else that
    needs no new process). With libmilter, which takes the signals for itself, all but SIGUSR1 end it.

    Args:
        config_path: as for `config.load.load`.

    Raises:
        AuthMilterError: the configuration cannot be used, or a socket not be opened.
    """
    config = config_load.load(config_path).config
    check_engine(config.milter.engine)
    listeners = [adopted(passed) for passed in passed_sockets() if passed.name != "control"]
    listeners += [] if listeners else [listen(config, text) for text in config.milter.listen]
    try:
        raise_file_limit(config.milter.max_sessions)
        become(config)
        # The files are read by the user who will read them again.
        work = Worker(config_load.load(config_path))
        names = [listener.name for listener in listeners]
        work.log.info("started", version=VERSION, role="milter", listen=names, policy=config.policy)
        if config.milter.engine == "libmilter":
            if len(listeners) != 1:
                raise StartError("`engine: libmilter` without a supervisor serves one socket only")
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            # libmilter waits for these; no thread of ours may be struck by them instead
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
            notify("READY=1")
            _serve_libmilter(work, listeners[0], None)
        else:
            import uvloop  # noqa: PLC0415 - only where a loop is started

            uvloop.run(_serve_alone(work, config_path, listeners))
    finally:
        for listener in listeners:
            close_listener(listener)
    work.log.info("stopped")
    return 0


async def _serve_alone(work: Worker, config_path: str | None, listeners: list[Listener]) -> None:
    loop = asyncio.get_running_loop()
    door = _NativeDoor(work, lambda: None, tuple((each.name, each.sock) for each in listeners))
    await door.start()
    told: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        loop.add_signal_handler(number, told.put_nowait, number)
    notify("READY=1")
    while await told.get() not in {signal.SIGTERM, signal.SIGINT}:
        old, refusal = None, ""
        try:
            old = await asyncio.to_thread(work.reload, config_load.load(config_path))
        except AuthMilterError as e:
            refusal = str(e)
        for line in refusal.splitlines():
            work.log.error("reload refused", complaint=line)
        if not refusal:
            work.log.info("reloaded", how="swap", digest=work.runtime.digest)
        if old is not None:
            loop.call_later(_OLD_RESOLVER, _close, old)
    notify("STOPPING=1")
    config = work.loaded.config
    work.log.info("stopping", sessions=door.open_sessions, drain=config.milter.drain)
    ending = loop.create_task(door.finish(config.milter.drain, config.limits.message))
    again = loop.create_task(told.get())
    await asyncio.wait((ending, again), return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    ending.cancel()
    await door.close()
    work.close()
