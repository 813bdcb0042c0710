"""A worker process of the milter: one event loop, the connections it accepts, the runtime it judges with.

`link.py` is its end of the channel to the supervisor; `grpc_role.py` is the worker of the other role. How it fails: a
configuration that cannot be used, or a library that is missing, is told to the supervisor, and the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from authmilter import runtime
from authmilter.bimi.evidence import EvidenceSource
from authmilter.config.loaded import Loaded
from authmilter.engine import Runtime, Verification
from authmilter.errors import AuthMilterError
from authmilter.grpc_places import Place
from authmilter.link import MAX_ERROR, OLD_RESOLVER, Link, close_resolver
from authmilter.mail import Session
from authmilter.milter.native import MilterServer, NativeSettings
from authmilter.milter.seats import Seat
from authmilter.milter.session import SessionFactory, SessionSettings
from authmilter.observe.counters import Counters
from authmilter.observe.journal import LogJournal, make_log
from authmilter.observe.lines import LineWriter
from authmilter.ports import Resolver
from authmilter.startup import Listener, StartError, adopted, become, close_listener, listen, raise_file_limit
from authmilter.systemd import notify, passed_sockets
from authmilter.verdict import Disposition

__all__ = [
    "VERSION",
    "Worker",
    "check_engine",
    "check_grpc",
    "preload",
    "run_loop",
    "serve",
    "serve_alone",
    "serve_grpc",
    "serve_grpc_alone",
]

VERSION = importlib.metadata.version("authmilter")

#: How often a libmilter that is to stop is woken, and how long it may take to know what it has accepted, in seconds.
_HASTE = 0.05
_SETTLES = 1.0
#: The exit code where something outside the program is missing (EX_OSERR of sysexits.h).
_OS = 71


class Worker:
    """What lives as long as the process: the runtime of the moment, the journal, what makes sessions.

    Args:
        loaded: the configuration.
        digest: of the runtime that somebody has checked; None: nobody has.
        keys: load the signing keys; without them the runtime signs nothing.

    Raises:
        OtherKeysError: what there is now gives another digest.
        AuthMilterError: it cannot be used.
    """

    def __init__(self, loaded: Loaded, digest: str | None = None, *, keys: bool = True) -> None:
        settings = runtime.log_settings(loaded.config)
        self._loaded = loaded
        self.log = make_log(settings)
        self.journal = LogJournal(self.log, settings, Counters())
        self._keys = keys
        self.runtime: Runtime = _built(loaded, digest, keys=keys, journal=self.journal)
        self._lines: LineWriter | None = None
        #: what the caches counted that a reload has replaced
        self._replaced: dict[str, float] = {}

    @property
    def loaded(self) -> Loaded:
        """The configuration that the runtime was built from."""
        return self._loaded

    def cache_counters(self) -> dict[str, float]:
        """Return how often DNS answers and whole results were at hand, and how often not; these numbers only grow."""
        counted = runtime.cache_counters(self.runtime)
        return {name: value + self._replaced.get(name, 0) for name, value in counted.items()}

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

    def reload(self, loaded: Loaded, digest: str | None = None) -> Resolver | None:
        """Build the runtime anew and use it from the next MAIL on; the DNS cache stays if its settings did.

        Returns the resolver that is no longer needed once the messages of today have gone, if any.

        Raises:
            AuthMilterError: the configuration cannot be used, or gives another `digest`; the old runtime stays.
        """
        old = self.runtime.resolver
        same_dns = loaded.config.dns == self._loaded.config.dns and loaded.config.dns.zone is None
        resolver = old if same_dns else None
        before, marks = self.runtime, self.runtime.checks.marks
        counted = self.cache_counters()
        made = _built(loaded, digest, keys=self._keys, journal=self.journal, resolver=resolver, marks=marks)
        if same_dns and made.checks == before.checks:
            made = replace(made, memory=before.memory)  # the same answers, judged by the same settings
        self.runtime, self._replaced = made, {}
        now = self.cache_counters()
        self._replaced = {name: counted[name] - now[name] for name in counted}
        if marks is not self.runtime.checks.marks:
            _close_marks(marks)
        self._loaded = loaded
        return None if same_dns else old

    def gather_lines(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write the lines of messages in batches from now on, from a thread, until `close`."""
        self._lines = LineWriter(
            sys.stderr, loop.call_later, lambda lines: self.journal.counters.add("journal_failures", lines)
        )
        self.journal.write_through(self._lines)

    def close(self) -> None:
        """Close what the resolver holds open, and write the log's last lines."""
        close_resolver(self.runtime.resolver)
        _close_marks(self.runtime.checks.marks)
        if self._lines is not None:
            self.journal.write_through(None)
            self._lines.close()
            self._lines = None


def _close_marks(marks: EvidenceSource | None) -> None:
    """Stop fetching what BIMI records name."""
    close: Callable[[], None] | None = getattr(marks, "close", None)
    if close is not None:
        close()


class OtherKeysError(AuthMilterError):
    """The files of signing keys are not those that were checked: a reload reads them together with their selectors."""


def _built(
    loaded: Loaded,
    digest: str | None,
    *,
    keys: bool,
    journal: LogJournal,
    resolver: Resolver | None = None,
    marks: EvidenceSource | None = None,
) -> Runtime:
    """Build a runtime; with a digest, the one that was checked or none.

    All texts come from whoever checked them, but key files are read by every worker. Their octets may have changed
    since: then the digest, which covers the keys' public halves, is another. Where it is the same, the primality tests
    need not be done again. A worker that has no keys has the rest of what was checked, and its digest.
    """
    made = runtime.build(
        loaded, journal=journal, resolver=resolver, keys_validated=digest is not None, keys=keys, marks=marks
    )
    if digest is not None and not keys:
        return replace(made, digest=digest)
    if digest is not None and made.digest != digest:
        raise OtherKeysError(
            f"the files of the signing keys have changed since they were read (digest {made.digest}, not {digest})"
        )
    return made


class _NativeDoor(MilterServer):
    """The native engine, which accepts on these listeners; they are closed once it does no more."""

    def __init__(self, work: Worker, listeners: Sequence[Listener], seat: Seat | None = None) -> None:
        milter = work.loaded.config.milter
        settings = NativeSettings(
            max_sessions=raise_file_limit(milter.max_sessions),
            idle_timeout=milter.idle_timeout,
            progress=milter.progress,
        )
        sockets = tuple((each.name, each.sock) for each in listeners)
        super().__init__(sockets, work.sessions(), settings, work.note, seat)
        work.gather_lines(self.loop)
        self._sources = listeners

    def begin(self) -> None:
        """Accept connections from now on."""
        self.start()

    def leave(self, empty: Sequence[str] | None) -> None:
        """Accept nothing more; take first who waits on these listeners (None: on all that are ours alone)."""
        self.stop_accepting()
        for source in self._sources:
            if not source.activated and (empty is None or source.name in empty):
                self.empty(source.name)
            source.sock.close()
        self._sources = ()

    async def finish(self, seconds: float, grace: float) -> tuple[int, int]:
        """Let the sessions end; return how many were closed between messages, and cut in one."""
        drained = await self.drain(seconds, grace=grace)
        return drained.closed, drained.cut


def preload() -> None:
    """Import what every worker will need, so that the processes forked from here share it; starts nothing."""
    import uvloop  # noqa: PLC0415 - only where a service is started

    del uvloop
    runtime.preload()


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


def check_grpc() -> None:
    """Say whether gRPC can be had; loads it, so not for a process that forks.

    Raises:
        AuthMilterError: it is not installed.
    """
    try:
        from authmilter import grpc_role  # noqa: PLC0415 - loads grpc
    except ImportError as e:
        raise AuthMilterError(
            f"`grpc.listen` needs {e.name}, which is installed with authmilter but cannot be loaded: {e}"
        ) from None
    del grpc_role


def serve(
    loaded: Loaded,
    channel: socket.socket,
    listeners: Sequence[Listener],
    digest: str | None = None,
    seat: Seat | None = None,
) -> int:
    """Run a worker until its supervisor says otherwise; returns the exit code.

    Args:
        loaded: the configuration.
        channel: the socket to the supervisor.
        listeners: what it accepts on; with libmilter one.
        digest: of the runtime that was checked; with other keys than those the worker ends, saying `stale`.
        seat: which connections are its own, among the workers that accept on the same; with the native engine.
    """
    try:
        work = Worker(loaded, digest)
        gc.freeze()
        if seat is None:
            _serve_libmilter(work, listeners[0], channel)
        else:
            run_loop(_serve_native(work, channel, listeners, seat))
    except AuthMilterError as e:
        return _give_up(channel, e)
    return 0


def serve_grpc(loaded: Loaded, channel: socket.socket, places: tuple[Place, ...], digest: str) -> int:
    """Run a worker of the gRPC role until its supervisor says otherwise; returns the exit code.

    grpc is loaded here, in a process of its own: it does not outlive a fork.

    Args:
        loaded: the configuration.
        channel: the socket to the supervisor.
        places: what it listens on.
        digest: as for `serve`.
    """
    from authmilter import grpc_role  # noqa: PLC0415 - loads grpc

    try:
        run_loop(grpc_role.serve(loaded, channel, places, digest))
    except AuthMilterError as e:
        return _give_up(channel, e)
    return 0


def serve_grpc_alone(config_path: str | None) -> int:
    """Run one worker of the gRPC role in the foreground, without a supervisor; returns the exit code.

    Args:
        config_path: as for `config.load.load`.

    Raises:
        AuthMilterError: the configuration cannot be used, or a place not be listened on.
    """
    check_grpc()
    from authmilter import grpc_role  # noqa: PLC0415 - loads grpc

    return grpc_role.serve_alone(config_path)


def _give_up(channel: socket.socket, error: AuthMilterError) -> int:
    """Tell the supervisor why; returns the exit code."""
    channel.setblocking(True)
    stale = {"stale": True} if isinstance(error, OtherKeysError) else {}
    channel.send(json.dumps({"error": str(error)[:MAX_ERROR], **stale}).encode())
    return _OS


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a loop of uvloop's, until it ends."""
    import uvloop  # noqa: PLC0415 - only where a loop is started

    uvloop.run(main)


async def _serve_native(
    work: Worker, channel: socket.socket, listeners: Sequence[Listener], seat: Seat
) -> None:
    door = _NativeDoor(work, listeners, seat)
    # It need not tell when a session has ended: the supervisor sees that in its seat.
    link = Link(work, channel, lambda _ended: door, patience=work.loaded.config.milter.drain)
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

    def begin(self) -> None:
        """Do nothing: libmilter accepts since it was started."""

    def leave(self, empty: Sequence[str] | None) -> None:
        """Take no more sessions."""
        del empty  # what libmilter has not accepted it never will
        self._engine.stop_accepting()
        _wake_main_thread()

    async def finish(self, seconds: float, grace: float) -> tuple[int, int]:
        """Let the open sessions end; libmilter then gives up the rest within 5 s."""
        del grace
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
        link = Link(work, supervisor, lambda ended: _LibmilterDoor(engine, ended), patience=milter.drain)
        await link.finished()
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
    from authmilter.config import load as config_load  # noqa: PLC0415 - loads pydantic

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
            run_loop(_serve_alone(work, config_path, listeners))
    finally:
        for listener in listeners:
            close_listener(listener)
    work.log.info("stopped")
    return 0


async def _serve_alone(work: Worker, config_path: str | None, listeners: list[Listener]) -> None:
    from authmilter.config import load as config_load  # noqa: PLC0415 - loads pydantic

    loop = asyncio.get_running_loop()
    door = _NativeDoor(work, listeners)
    door.start()
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
            loop.call_later(OLD_RESOLVER, close_resolver, old)
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
