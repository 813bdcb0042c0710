"""The parent process: listening sockets, workers, reload, drain, restart, control.

What it does: opens the sockets, becomes the service user, forks the workers, accepts every connection and hands it to
the worker with the fewest open sessions (SCM_RIGHTS), replaces a worker that dies, and answers on the control socket.
What it never does: read mail, hold keys, run an event loop, libmilter or grpc. So it can fork at any time.

Why the parent accepts, for TCP too: workers that accept on one socket do not share the load, and the kernel's
SO_REUSEPORT spreads by hash, which for 16 connections is often 11 to 5. Counting spreads evenly, and as the
listening sockets live in one process, no reload, no worker's death and no new generation refuses a connection. A
connection stays open here until its worker has said that it took it: where the worker dies before, another gets it.
(With `engine: libmilter` a worker accepts by itself, on the same listening socket: libmilter takes no connections.)

Reload (SIGHUP, SIGUSR1, control socket): a short-lived child reads and builds everything. If that fails the old
settings stay, and all complaints are logged and answered. Otherwise every worker is sent the texts that the child
read. If sockets, workers, engine, log and user are as before, each worker builds the new runtime and uses it from the
next MAIL on; one that does not get there is replaced. Else a new generation of workers starts beside the old one,
which gets no new connections once the new one is complete, and ends when its sessions have, or after `milter.drain`.

How it fails: at start, with every complaint (ConfigError, PolicyError, StartError). Later, never by itself: a fault is
logged, and what it broke is made anew.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from authmilter import runtime, worker
from authmilter.config import load as config_load
from authmilter.config.load import Loaded
from authmilter.config.model import Config
from authmilter.config.texts import reader, recorder
from authmilter.control import Client, ControlServer
from authmilter.errors import AuthMilterError, Complaint, ConfigError, PolicyError, Span
from authmilter.milter.sockets import Family, ListenSpec, open_listener
from authmilter.observe.counters import add_up
from authmilter.observe.journal import Log, make_log
from authmilter.startup import (
    Listener,
    StartError,
    adapt,
    adopted,
    become,
    close_listener,
    listen,
    make_folder,
    raise_file_limit,
)
from authmilter.systemd import notify, passed_sockets, watchdog_seconds
from authmilter.text import printable

__all__ = ["Supervisor"]

#: Connections accepted in one go before anything else is looked at.
_ACCEPT_BURST = 64
#: A worker that lived less than this is, from the third on, replaced after a pause that doubles up to `_MAX_PAUSE`.
_SHORT_LIFE = 5.0
_MAX_PAUSE = 1.0
#: How long the child that checks a configuration may take, and then the workers that are to use it.
_CHECK_SECONDS = 60
_TAKE_SECONDS = 30.0
#: How long the sessions of the last generation but one may go on when a further one is to start.
_MAKE_ROOM = 5.0
#: Workers of a new generation that may die before it is complete.
_MAX_DEATHS = 3
#: How long a worker may take to end after its drain, and after it was told to end at once.
_GRACE = 5.0
_AT_ONCE = 1.0
#: A worker says something every second. One that is silent for so many of our own is hung, and killed.
_MAX_SILENCE = 20
#: A worker that left a connection untaken for so long gets no further ones.
_SLOW = 2.0
#: Octets of the texts in one message to a worker.
_PIECE = 48 * 1024
#: Octets of one message from a worker.
_MAX_MESSAGE = 1 << 18
_CONTROL_RETRY = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class _Settings:
    """What a generation of workers works by: the configuration and the texts of all files it names."""

    loaded: Loaded
    texts: dict[str, str]
    digest: str

    @property
    def config(self) -> Config:
        return self.loaded.config

    def slots(self, listeners: list[Listener]) -> int:
        """Return how many workers there are to be."""
        if self.config.milter.engine == "libmilter":
            return len(listeners)  # one process has one libmilter, and that has one socket
        return self.config.milter.workers or _processors()

    def messages(self) -> Iterable[bytes]:
        """Yield what tells a worker to use these settings."""
        packed = json.dumps(self.texts).encode()
        for at in range(0, len(packed), _PIECE):
            yield worker.PIECE + packed[at : at + _PIECE]
        yield json.dumps({"reload": self.digest}).encode()


@dataclass(slots=True, eq=False)
class _Worker:
    """One child. `open` is what it says; `pending` is what it was handed and has not said it took, by number."""

    pid: int
    number: int
    generation: int
    channel: socket.socket
    started: float
    role: str = "milter"
    ready: bool = False
    draining: bool = False
    full: bool = False
    open: int = 0
    given: int = 0
    pending: dict[int, tuple[float, socket.socket, str]] = field(default_factory=dict)
    outbox: deque[bytes] = field(default_factory=deque)
    digest: str = ""
    ended: tuple[int, int] = (0, 0)
    silent: int = 0
    trouble: str = ""
    counters: dict[str, float] = field(default_factory=dict)

    @property
    def load(self) -> int:
        """How many sessions it has, as far as we know."""
        return self.open + len(self.pending)

    def takes(self, now: float, most: int) -> bool:
        """Say whether it can be handed a connection."""
        if not self.ready or self.draining or self.full or self.outbox or self.load >= most:
            return False
        return not self.pending or now - next(iter(self.pending.values()))[0] < _SLOW


@dataclass(slots=True, eq=False)
class _Check:
    """A child that is reading the new configuration."""

    pid: int
    pipe: int
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False)
class _Change:
    """A start or reload under way, and who waits to hear of it.

    First `check` is set; then `settings` are, and `generation` is the number of the one that is growing (0: the
    running workers are to swap). `replaced` are the workers that were given up because they did not.
    """

    waiting: list[Client]
    deadline: float
    check: _Check | None = None
    settings: _Settings | None = None
    generation: int = 0
    listeners: list[Listener] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    deaths: int = 0
    trouble: str = ""
    replaced: int = 0


class Supervisor:
    """The service as a whole, which has the process to itself; `run` returns the exit code.

    Args:
        config_path: as for `config.load.load`.

    Raises:
        ConfigError: the configuration file cannot be used.
    """

    def __init__(self, config_path: str | None) -> None:
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._wake_read, self._wake_write = socket.socketpair()
        self._install_signals()  # before anything is read: what is asked for from here on is not forgotten
        self._config_path = config_path
        loaded = config_load.load(config_path)
        self._settings = _Settings(loaded, {}, "")
        self._log: Log = make_log(runtime.log_settings(loaded.config))
        self._listeners: list[Listener] = []
        self._leftover: list[Listener] = []
        self._accepting = False
        self._held: deque[tuple[socket.socket, str]] = deque()
        self._most = loaded.config.milter.max_sessions
        self._workers: dict[int, _Worker] = {}
        self._serving = 0
        self._last_generation = 0
        self._restarts = 0
        self._closed = 0
        self._cut = 0
        self._short_lives = 0
        self._not_before = 0.0
        self._counters_of_the_dead: dict[str, float] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._change: _Change | None = None
        self._again: list[Client] | None = None
        self._last_reload: dict[str, object] = {}
        self._control: ControlServer | None = None
        self._control_listener: Listener | None = None
        self._control_passed: socket.socket | None = None
        self._control_trouble = ""
        self._up = False
        self._stopping = False
        self._hurried = False
        self._failure: AuthMilterError | None = None
        self._started = self._last_tick = time.monotonic()

    @property
    def config(self) -> Config:
        """The settings in use."""
        return self._settings.config

    # -- start and stop ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit code.

        Raises:
            ConfigError, PolicyError: the configuration cannot be used; lists every mistake.
            StartError: a socket cannot be opened, a user not become, or no worker started.
        """
        worker.preload()
        self._tick()
        self._watchdog()
        self._begin_change([])
        try:
            while self._workers or self._change is not None or not self._stopping:
                self._turn()
        finally:
            self._close_all()
        if self._failure is not None:
            raise self._failure
        self._say("info", "stopped", sessions_closed=self._closed, sessions_cut=self._cut)
        return 0

    def _turn(self) -> None:
        """Wait for the next thing to do and do it."""
        due = min((at for at, _ in self._due), default=0.0)
        watched = self._selector.get_map()
        for key, events in self._selector.select(max(0.0, due - time.monotonic())):
            current = watched.get(key.fd)
            if current is not None and current.fileobj is key.fileobj:  # else this turn has closed it already
                self._guarded(partial(current.data, events))
        if self._signals:
            self._guarded(self._obey_signals)
        now = time.monotonic()
        ready = [action for at, action in self._due if at <= now]
        self._due = [item for item in self._due if item[0] > now]
        for action in ready:
            self._guarded(action)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as e:  # noqa: BLE001 - the parent outlives its bugs
            text = "".join(traceback.format_exception(e, limit=-8))
            self._say(
                "error", "bug", where="supervisor", error=type(e).__name__, traceback=printable(text, 4000)
            )

    def _say(self, level: str, event: str, **fields: object) -> None:
        with contextlib.suppress(Exception):  # a log that cannot be written must not end the service
            getattr(self._log, level)(event, **fields)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, action))

    def _tick(self) -> None:
        """Once a second: notice what nobody tells us of."""
        self._later(1.0, self._tick)
        now = time.monotonic()
        slept, self._last_tick = now - self._last_tick > 3.0, now
        for item in self._workers.values():
            # Our own seconds count, not the clock's: a machine that was paused has not made its workers hang.
            item.silent = 0 if slept else item.silent + 1
            if item.silent == _MAX_SILENCE:
                self._say("error", "worker hangs", pid=item.pid, sessions=item.open)
            if item.silent >= _MAX_SILENCE:
                self._kill(item)
        if self._control is not None:
            self._control.sweep(now)
        self._look_at_change()
        self._top_up()
        self._resume()

    def _watchdog(self) -> None:
        seconds = watchdog_seconds()
        if seconds:
            notify("WATCHDOG=1")
            self._later(seconds, self._watchdog)

    def _install_signals(self) -> None:
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._note_signal)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._wake)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _wake(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass

    def _obey_signals(self) -> None:
        signals, self._signals = self._signals, []
        if signal.SIGCHLD in signals:
            self._reap()
        for number in signals:
            if number in {signal.SIGTERM, signal.SIGINT}:
                self._stop()
        if signal.SIGHUP in signals or signal.SIGUSR1 in signals:
            self._begin_change([])

    def _stop(self) -> None:
        """Stop: let open sessions end. When told again: at once."""
        if self._stopping:
            if not self._hurried:
                self._hurried = True
                self._say("info", "stopping at once", sessions=self._sessions())
                for item in self._workers.values():
                    self._end(item)
            return
        self._stopping = True
        if self._failure is None:
            sessions, drain = self._sessions(), self.config.milter.drain
            self._say("info", "stopping", sessions=sessions, drain=drain)
            seconds = drain + self._last_message() + 2 * _GRACE
            notify(
                "STOPPING=1",
                f"STATUS=finishing {sessions} sessions",
                f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}",
            )
        self._give_up_change("the service is stopping")
        self._stop_accepting()
        for listener in self._listeners:
            self._let_go(listener)
        self._listeners = []
        for item in list(self._workers.values()):
            self._drain(item, self.config.milter.drain if item.generation == self._serving else 0.0)

    def _sessions(self) -> int:
        return sum(item.load for item in self._workers.values())

    def _last_message(self) -> float:
        """How long, after the drain, a message that has begun may take to its reply."""
        return self.config.limits.message

    def _close_all(self) -> None:
        for listener in (*self._listeners, *self._leftover):
            close_listener(listener)
        self._close_control()
        for connection, _ in self._held:
            self._cut += 1
            connection.close()
        self._selector.close()

    # -- sockets -------------------------------------------------------------------------------------------

    def _open_first(self, config: Config) -> None:
        """Open the sockets of the first generation, and become the service user.

        Raises:
            StartError: one cannot be had.
        """
        try:
            for passed in passed_sockets():
                if passed.name == "control":
                    self._control_passed = passed.sock
                else:
                    self._listeners.append(adopted(passed))
        except AuthMilterError as e:
            raise StartError(str(e)) from None
        for text in () if self._listeners else config.milter.listen:
            self._listeners.append(listen(config, text))
        self._open_control(config)
        self._limit(config)
        become(config)

    def _limit(self, config: Config) -> None:
        wanted = config.milter.max_sessions
        self._most = raise_file_limit(wanted)
        if self._most < wanted:
            warning = (
                f"milter.max_sessions is {wanted}, but the limit of open files allows a worker {self._most}"
            )
            self._say("warning", "configuration", warning=warning)

    def _listeners_for(self, config: Config) -> list[Listener]:
        """Return the listeners that the new settings want: open ones are kept.

        Raises:
            StartError: a new one cannot be opened; what was opened is closed again.
        """
        if any(listener.activated for listener in self._listeners):
            return list(self._listeners)
        # One whose path was removed by somebody is of no more use.
        kept = {listener.name: listener for listener in self._listeners if listener.reachable}
        found: list[Listener] = []
        try:
            for text in config.milter.listen:
                old = kept.get(text)
                if old is not None:
                    adapt(config, old)
                found.append(old or listen(config, text))
        except StartError:
            for listener in found:
                if listener not in self._listeners:
                    close_listener(listener)
            raise
        return found

    def _let_go(self, listener: Listener) -> None:
        """Close a listening socket for good; who has connected to it already is served."""
        if not listener.activated and self._native:
            for _ in range(_ACCEPT_BURST * 16):
                try:
                    connection, _peer = listener.sock.accept()
                except OSError:
                    break
                self._hand_over(connection, listener.name)
        self._close(listener)

    def _close(self, listener: Listener) -> None:
        if not close_listener(listener):
            self._leftover.append(
                listener
            )  # a libmilter still listens: the path is removed when all have ended

    @property
    def _native(self) -> bool:
        return self.config.milter.engine == "native"

    def _start_accepting(self) -> None:
        if self._accepting or self._stopping or not self._native:
            return
        for listener in self._listeners:
            self._selector.register(listener.sock, selectors.EVENT_READ, partial(self._accept, listener))
        self._accepting = True

    def _stop_accepting(self) -> None:
        if not self._accepting:
            return
        for listener in self._listeners:
            self._selector.unregister(listener.sock)
        self._accepting = False

    def _accept(self, listener: Listener, _events: int) -> None:
        for _ in range(_ACCEPT_BURST):
            if self._held or self._taker() is None:
                # Nobody can take it: it waits in the kernel's queue, which is not a refusal.
                self._stop_accepting()
                return
            try:
                connection, _peer = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                self._say("error", "accept", listen=listener.name, error=e.strerror)
                self._stop_accepting()
                return  # the next tick tries again
            self._hand_over(connection, listener.name)

    def _taker(self, without: _Worker | None = None) -> _Worker | None:
        """Return the worker with the fewest sessions (of these, the one that was handed the fewest so far)."""
        if not self._native:
            return None
        now = time.monotonic()
        return min(
            (
                w for w in self._workers.values()
                if w.generation == self._serving and w is not without and w.takes(now, self._most)
            ),
            key=lambda w: (w.load, w.given),
            default=None,
        )  # fmt: skip

    def _hand_over(self, connection: socket.socket, listener: str) -> None:
        """Hand a connection to a worker; hold it while none can take it."""
        failed: _Worker | None = None
        while (taker := self._taker(failed)) is not None:
            message = json.dumps({"open": listener, "n": taker.given + 1}).encode()
            try:
                socket.send_fds(taker.channel, [message], [connection.fileno()])
            except OSError:
                if failed is not None:
                    break
                failed = taker  # its queue is full, or it has just died: another one, or wait
                continue
            taker.given += 1
            taker.pending[taker.given] = (time.monotonic(), connection, listener)
            return
        self._held.append((connection, listener))

    def _resume(self) -> None:
        """Go on where it had to wait for a worker."""
        while self._held and self._taker() is not None:
            before = len(self._held)
            self._hand_over(*self._held.popleft())
            if len(self._held) >= before:
                self._held.rotate(1)  # it was put back at the end
                return
        if not self._held and not self._accepting and self._taker() is not None:
            self._start_accepting()

    # -- workers -------------------------------------------------------------------------------------------

    def _top_up(self) -> None:
        """Start the workers that are missing."""
        if self._stopping:
            return
        change = self._change
        if change is not None and change.generation and change.settings is not None and self._has_room():
            self._fill(change.generation, change.settings, change.listeners)
        if self._serving and time.monotonic() >= self._not_before:
            self._fill(self._serving, self._settings, self._listeners)

    def _has_room(self) -> bool:
        """At most two generations live: what is left of an earlier one must end before another one starts."""
        return all(item.generation >= self._serving for item in self._workers.values())

    def _fill(self, generation: int, settings: _Settings, listeners: list[Listener]) -> None:
        there = {
            item.number
            for item in self._workers.values()
            if item.generation == generation and not item.draining
        }
        missing = [number for number in range(settings.slots(listeners)) if number not in there]
        if missing:
            gc.collect()
            gc.freeze()  # the workers share what is loaded now, and their collectors never touch it
        for number in missing:
            try:
                self._spawn(number, generation, settings, listeners)
            except OSError as e:
                self._say("error", "fork", error=e.strerror)
                return  # the next tick tries again

    def _spawn(self, number: int, generation: int, settings: _Settings, listeners: list[Listener]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = listeners[number] if settings.config.milter.engine == "libmilter" else None
        pid = os.fork()
        if pid == 0:
            keep = {theirs.fileno()} | ({listener.sock.fileno()} if listener is not None else set())
            work = partial(worker.serve, settings.loaded, theirs, listener)
            self._in_child(work, close={ours.fileno()}, keep=keep)
        theirs.close()
        ours.setblocking(False)
        item = _Worker(pid=pid, number=number, generation=generation, channel=ours, started=time.monotonic())
        self._workers[pid] = item
        self._selector.register(ours, selectors.EVENT_READ, partial(self._on_channel, item))

    def _in_child(self, work: Callable[[], int], *, close: set[int], keep: set[int]) -> None:
        """Do `work` in a process that has just been forked, and end it; never returns.

        Args:
            work: returns the exit code.
            close: descriptors to close besides those of our state.
            keep: descriptors of our state that `work` needs.
        """
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                # They reach the whole group or control group; the parent decides what becomes of us.
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Closed by number: the objects would take themselves out of the parent's epoll, which is ours too.
            mine = {key.fd for key in self._selector.get_map().values()}
            self._selector.close()
            mine |= {self._wake_write.fileno(), *close}
            mine |= {listener.sock.fileno() for listener in (*self._listeners, *self._leftover)}
            mine |= {listener.sock.fileno() for listener in (self._change.listeners if self._change else ())}
            mine |= {sock.fileno() for sock, _ in self._held}
            for item in self._workers.values():
                mine |= {item.channel.fileno()} | {sock.fileno() for _, sock, _ in item.pending.values()}
            if self._control is not None:
                mine |= set(self._control.filenos())
            for fd in mine - keep - {-1}:
                os.close(fd)
            code = work()
        except BaseException as e:  # noqa: BLE001 - a child must never return into the parent's loop
            text = "".join(traceback.format_exception(e, limit=-8))
            self._say("error", "bug", where="child", error=type(e).__name__, traceback=printable(text, 4000))
        finally:
            os._exit(code)

    def _on_channel(self, item: _Worker, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(item)
        if events & selectors.EVENT_READ:
            self._hear(item)

    def _hear(self, item: _Worker) -> None:
        while item.channel.fileno() >= 0:
            try:
                data = item.channel.recv(_MAX_MESSAGE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self._close_channel(item)
                self._later(_AT_ONCE, partial(self._kill, item))  # it should be ending
                break
            item.silent = 0
            try:
                self._heard(item, json.loads(data))
            except (ValueError, TypeError, KeyError, AttributeError) as e:
                self._say("error", "worker", pid=item.pid, error=f"says what it must not: {e!r}")
                self._kill(item)
                break
        self._resume()

    def _close_channel(self, item: _Worker) -> None:
        if item.channel.fileno() >= 0:
            self._selector.unregister(item.channel)
            item.channel.close()
        item.ready = False
        item.outbox.clear()

    def _heard(self, item: _Worker, message: dict[str, Any]) -> None:
        if "missed" in message:
            # It had no descriptor left for this one.
            item.full = True
            self._later(_AT_ONCE, partial(setattr, item, "full", False))
            for _, connection, listener in (item.pending.pop(int(number)) for number in message["missed"]):
                self._hand_over(connection, listener)
        if "state" in message:
            taken, item.open = (int(number) for number in message["state"])
            for number in [n for n in item.pending if n <= taken]:
                item.pending.pop(number)[1].close()
        if "counters" in message:
            item.counters.update({str(k): float(v) for k, v in message["counters"].items()})
        if "ended" in message:
            item.ended = (int(message["ended"][0]), int(message["ended"][1]))
        if "error" in message:
            item.trouble = str(message["error"])
            for line in item.trouble.splitlines():
                self._say("error", "worker", pid=item.pid, error=line)
        if "digest" in message:
            item.digest = str(message["digest"])
            item.ready = True
        if "digest" in message or "error" in message:
            self._look_at_change()

    def _send(self, item: _Worker, *messages: bytes) -> None:
        """Tell a worker, now or as soon as it listens."""
        item.outbox.extend(messages)
        self._flush(item)

    def _flush(self, item: _Worker) -> None:
        try:
            while item.outbox:
                item.channel.send(item.outbox[0])
                item.outbox.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            item.outbox.clear()  # it has ended, which we shall be told
        if item.channel.fileno() >= 0:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if item.outbox else 0)
            self._selector.modify(item.channel, events, partial(self._on_channel, item))

    def _drain(self, item: _Worker, seconds: float) -> None:
        """Tell a worker to end when its sessions have, after `seconds` at most."""
        item.draining = True
        grace = self._last_message()
        self._send(item, json.dumps({"drain": seconds, "grace": grace}).encode())
        self._later(seconds + grace + _GRACE, partial(self._kill, item))

    def _end(self, item: _Worker) -> None:
        """Tell a worker to end at once."""
        item.draining = True
        self._send(item, json.dumps({"drain": 0, "grace": 0}).encode())
        self._later(_AT_ONCE, partial(self._kill, item))

    def _kill(self, item: _Worker) -> None:
        if self._workers.get(item.pid) is item:
            with contextlib.suppress(ProcessLookupError):
                os.kill(item.pid, signal.SIGKILL)

    def _replace(self, item: _Worker, why: str) -> None:
        """Start another worker in the place of one that does not do as told."""
        self._say("error", "worker replaced", pid=item.pid, why=why)
        self._drain(item, self.config.milter.drain)
        self._top_up()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if self._change is not None and self._change.check is not None and self._change.check.pid == pid:
                self._change.check.pid = 0  # what it has to say is in the pipe
            item = self._workers.get(pid)
            if item is not None:
                self._hear(item)
                del self._workers[pid]
                self._buried(item, status)
        self._look_at_change()
        self._top_up()
        self._resume()

    def _buried(self, item: _Worker, status: int) -> None:
        """Settle the affairs of a worker that has ended."""
        self._close_channel(item)
        self._counters_of_the_dead = add_up([self._counters_of_the_dead, item.counters])
        # What it never took, another one can.
        self._held.extendleft((sock, listener) for _, sock, listener in reversed(item.pending.values()))
        clean = item.draining and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        closed, cut = item.ended if clean else (0, item.open)
        self._closed += closed
        self._cut += cut
        if item.draining:
            self._say(
                "info", "worker ended", pid=item.pid, generation=item.generation, closed=closed, cut=cut
            )
            return
        signalled = os.WIFSIGNALED(status)
        why = f"signal {os.WTERMSIG(status)}" if signalled else f"exit code {os.WEXITSTATUS(status)}"
        change = self._change
        if change is not None and change.generation == item.generation:
            change.deaths += 1
            change.trouble = item.trouble or why
        else:
            self._restarts += 1
            short = time.monotonic() - item.started < _SHORT_LIFE
            self._short_lives = min(self._short_lives + 1, 10) if short else 0
            if self._short_lives > 2:
                pause = min(_MAX_PAUSE, 0.1 * 2 ** (self._short_lives - 3))
                self._not_before = time.monotonic() + pause
                self._later(pause, self._top_up)
        self._say(
            "error",
            "worker died",
            pid=item.pid,
            why=why,
            sessions_cut=cut,
            handed_on=len(item.pending),
            restarts=self._restarts,
        )

    # -- start and reload ----------------------------------------------------------------------------------

    def _begin_change(self, waiting: list[Client]) -> None:
        """Read the configuration in a child of its own; the parent never holds what only workers need."""
        if self._stopping:
            _answer(waiting, {"error": "the service is stopping"})
            return
        if self._change is not None:
            # One at a time: what came since is read in one further go.
            self._again = [*(self._again or ()), *waiting]
            return
        if self._up:
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._change = change = _Change(waiting, time.monotonic() + _CHECK_SECONDS)
        try:
            read, write = os.pipe()
            pid = os.fork()
        except OSError as e:
            self._finish_change({"error": f"cannot start a process: {e.strerror}"})
            return
        if pid == 0:
            work = partial(_check_into, write, self._config_path, first=not self._up)
            self._in_child(work, close={read}, keep={write})
        os.close(write)
        os.set_blocking(read, False)
        change.check = _Check(pid=pid, pipe=read)
        self._selector.register(read, selectors.EVENT_READ, partial(self._on_check, change))

    def _on_check(self, change: _Change, _events: int) -> None:
        check = change.check
        assert check is not None  # registered while it runs
        try:
            data = os.read(check.pipe, 1 << 16)
        except BlockingIOError:
            return
        if data:
            check.data += data
            return
        self._end_check(change)
        try:
            answer = json.loads(bytes(check.data))
        except ValueError:
            answer = {"error": "the child that read the configuration died"}
        if "error" in answer:
            self._finish_change(answer)
            return
        try:
            self._apply(change, answer)
        except AuthMilterError as e:
            if not self._up:
                self._failure = e
            self._finish_change({"error": str(e)})

    def _end_check(self, change: _Change) -> None:
        check, change.check = change.check, None
        if check is not None:
            self._selector.unregister(check.pipe)
            os.close(check.pipe)
            if check.pid:
                os.kill(check.pid, signal.SIGKILL)  # where it is late; it has not been waited for

    def _apply(self, change: _Change, answer: dict[str, Any]) -> None:
        """Make the workers use what the child found good: by a swap in each, or by a new generation.

        Raises:
            StartError: a new socket cannot be opened; everything stays as it was.
        """
        texts: dict[str, str] = answer["texts"]
        loaded = config_load.load(answer["path"], read=reader(texts))
        new = _Settings(loaded, texts, answer["digest"])
        change.warnings = answer["warnings"]
        old, config = self.config, loaded.config
        change.deadline = time.monotonic() + _TAKE_SECONDS
        if not self._up:
            self._open_first(config)
            if os.geteuid() == 0:
                change.warnings.append("the service runs as root: set `user`, or start it as another user")
            change.listeners = list(self._listeners)
        elif _same_processes(old, config):
            self._settings = change.settings = new
            for item in self._serving_workers():
                item.trouble = ""
                self._send(item, *new.messages())
            return
        else:
            if (old.user, old.group) != (config.user, config.group):
                change.warnings.append("`user` and `group` have effect at the next start")
            change.listeners = self._listeners_for(config)
            self._limit(config)
            for item in self._workers.values():
                if item.generation < self._serving:
                    self._drain(item, _MAKE_ROOM)
        self._last_generation += 1
        change.settings, change.generation = new, self._last_generation
        self._top_up()

    def _serving_workers(self) -> list[_Worker]:
        return [w for w in self._workers.values() if w.generation == self._serving and not w.draining]

    def _look_at_change(self) -> None:
        """See whether the change under way is complete, or will never be."""
        change = self._change
        if change is None:
            return
        late = time.monotonic() > change.deadline
        settings = change.settings
        if settings is None:
            if late:
                self._finish_change({"error": "reading the configuration took too long"})
        elif change.generation and not self._has_room():
            change.deadline = time.monotonic() + _TAKE_SECONDS  # the old ones are killed if they do not end
        elif change.generation:
            grown = [
                w for w in self._workers.values() if w.generation == change.generation and not w.draining
            ]
            if len(grown) == settings.slots(change.listeners) and all(w.ready for w in grown):
                self._switch(change, settings)
                self._finish_change({})
            elif late or change.deaths >= _MAX_DEATHS:
                why = change.trouble or f"not ready after {_TAKE_SECONDS:.0f} seconds"
                self._finish_change({"error": f"the workers do not start: {why}"})
        else:
            self._look_at_swap(change, settings, late=late)

    def _look_at_swap(self, change: _Change, settings: _Settings, *, late: bool) -> None:
        items = self._serving_workers()
        if len(items) == settings.slots(self._listeners) and all(
            w.ready and w.digest == settings.digest for w in items
        ):
            self._finish_change({})
            return
        wrong = [w for w in items if w.ready and w.digest != settings.digest and (late or w.trouble)]
        if late and (change.replaced or not wrong):
            self._finish_change({"error": "not every worker uses the new settings yet; see the log"})
            return
        for item in wrong:
            change.replaced += 1
            change.deadline = time.monotonic() + _TAKE_SECONDS
            self._replace(item, item.trouble or f"it did not take the new settings, it has {item.digest}")

    def _switch(self, change: _Change, settings: _Settings) -> None:
        """Let the new generation, which is complete, serve."""
        self._stop_accepting()
        old_listeners, self._listeners = self._listeners, change.listeners
        change.listeners = []
        for listener in old_listeners:
            if listener not in self._listeners:
                self._let_go(listener)
        control, drain = self.config.control.socket, self.config.milter.drain
        old, self._serving = self._serving, change.generation
        self._settings = settings
        while self._held and not self._native:  # libmilter takes only what it accepts itself
            self._cut += 1
            self._held.popleft()[0].close()
        self._log = make_log(runtime.log_settings(settings.config))
        for item in self._workers.values():
            if item.generation == old:
                self._drain(item, drain)
        if control != settings.config.control.socket and self._up and self._control_passed is None:
            self._close_control()
            self._open_control(settings.config)
        self._short_lives, self._not_before = 0, 0.0
        self._resume()

    def _finish_change(self, answer: dict[str, Any]) -> None:
        """Tell everybody how the change under way ended: well, or by `answer["error"]`."""
        change, self._change = self._change, None
        assert change is not None  # it is what ends
        self._end_check(change)
        settings = change.settings
        policy = self.config.policy
        for warning in change.warnings:
            self._say("warning", "configuration", warning=warning)
        if "error" in answer:
            for listener in change.listeners:
                if listener not in self._listeners:
                    self._close(listener)
            for item in self._workers.values():
                if change.generation and item.generation == change.generation and not item.draining:
                    self._drain(item, 0.0)
            if not self._up:
                self._failure = self._failure or _failure(answer)
                self._stop()
            else:
                for line in str(answer["error"]).splitlines():
                    self._say("error", "reload refused", complaint=line)
                if not self._stopping:
                    notify("READY=1", f"STATUS=reload refused; generation {self._serving}, policy {policy}")
        else:
            how = "generation" if change.generation else "swap"
            answer = {
                "ok": True,
                "how": how,
                "digest": self._settings.digest,
                "generation": self._serving,
                "warnings": change.warnings,
            }
            if self._up:
                self._say("info", "reloaded", how=how, generation=self._serving, digest=answer["digest"])
            else:
                self._say_started()
                self._up = True
            notify("READY=1", f"STATUS=generation {self._serving}, policy {policy}")
        if settings is not None or "error" in answer:
            self._last_reload = {**answer, "at": time.monotonic()}
        _answer(change.waiting, answer)
        again, self._again = self._again, None
        if again is not None:
            self._begin_change(again)

    def _give_up_change(self, why: str) -> None:
        again, self._again = self._again, None
        _answer(again or (), {"error": why})
        if self._change is None:
            return
        if not self._up:
            change, self._change = self._change, None
            self._end_check(change)
            return
        self._finish_change({"error": why})

    def _say_started(self) -> None:
        self._say(
            "info",
            "started",
            version=worker.VERSION,
            pid=os.getpid(),
            config=str(self._settings.loaded.path or "defaults"),
            policy=self.config.policy,
            digest=self._settings.digest,
            listen=[listener.name for listener in self._listeners],
            workers=len(self._workers),
            engine=self.config.milter.engine,
            seconds=round(time.monotonic() - self._started, 3),
        )

    # -- control -------------------------------------------------------------------------------------------

    def _open_control(self, config: Config) -> None:
        """Open the control socket; where that cannot be, say so once and go on trying."""
        sock, self._control_listener = self._control_passed, None
        if sock is None:
            path = config.control.socket
            if not path:
                return
            try:
                spec = ListenSpec(family=Family.UNIX, path=str(Path(path).absolute()))
                make_folder(Path(spec.path).parent, config)
                user = config.user if os.geteuid() == 0 else ""
                sock = open_listener(spec, mode=0o600, owner=user or None, backlog=64)
                self._control_listener = Listener(spec, sock)
            except (OSError, AuthMilterError) as e:
                reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
                if reason != self._control_trouble:
                    self._say("warning", "no control socket", path=path, error=reason)
                self._control_trouble = reason
                self._later(_CONTROL_RETRY, self._retry_control)
                return
        if self._control_trouble:
            self._say("info", "control socket open", path=config.control.socket)
        self._control_trouble = ""
        self._control = ControlServer(self._selector, sock, self._on_command)

    def _retry_control(self) -> None:
        if self._control is None and not self._stopping:
            self._open_control(self.config)

    def _close_control(self) -> None:
        if self._control is None:
            return
        self._control.close()
        self._control = None
        if self._control_listener is not None:
            close_listener(self._control_listener)

    def _on_command(self, client: Client, command: str) -> None:
        if command == "status":
            client.answer(self._status())
        elif command == "reload":
            self._begin_change([client])
        elif command == "stop":
            client.answer({"ok": True})
            self._stop()
        else:
            client.answer({"error": "commands: status, reload, stop"})

    def _status(self) -> dict[str, object]:
        workers = list(self._workers.values())
        last = dict(self._last_reload)
        if "at" in last:
            last["seconds_ago"] = round(time.monotonic() - float(str(last.pop("at"))), 1)
        return {
            "version": worker.VERSION,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "config": str(self._settings.loaded.path or "defaults"),
            "generation": self._serving,
            "digest": self._settings.digest,
            "policy": self.config.policy,
            "engine": self.config.milter.engine,
            "listen": [listener.name for listener in self._listeners],
            "activated": any(listener.activated for listener in self._listeners),
            "stopping": self._stopping,
            "reloading": self._change is not None,
            "last_reload": last,
            "restarts": self._restarts,
            "sessions": self._sessions(),
            "sessions_waiting": len(self._held),
            "sessions_closed": self._closed,
            "sessions_cut": self._cut,
            "workers": [
                {
                    "pid": w.pid,
                    "role": w.role,
                    "generation": w.generation,
                    "sessions": w.load,
                    "sessions_handed": w.given,
                    "messages": w.counters.get("messages", 0.0),
                    "ready": w.ready,
                    "draining": w.draining,
                    "digest": w.digest,
                    "uptime_seconds": round(time.monotonic() - w.started, 1),
                }
                for w in workers
            ],
            "counters": add_up([self._counters_of_the_dead, *(w.counters for w in workers)]),
        }


def _processors() -> int:
    """Return how many processors we may use: in a container often fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _same_processes(old: Config, new: Config) -> bool:
    """True if the new settings can be swapped into the running workers."""
    fixed = ("milter", "user", "group", "log", "control")
    return all(getattr(old, name) == getattr(new, name) for name in fixed)


def _check(config_path: str | None, *, first: bool) -> dict[str, object]:
    """Read and build everything, as a worker would; the answer is plain data.

    Args:
        config_path: the configuration file.
        first: become the service user before, as the service will once its sockets are open.
    """
    try:
        if first:
            become(config_load.load(config_path).config)
        texts: dict[str, str] = {}
        loaded = config_load.load(config_path, read=recorder(texts))
        worker.check_engine(loaded.config.milter.engine)
        built = runtime.build(loaded)
        warnings = [*config_load.warnings(loaded.config), *(str(w) for w in built.policy.warnings)]
        path = str(loaded.path) if loaded.path is not None else None
    except (ConfigError, PolicyError) as e:
        kind = "policy" if isinstance(e, PolicyError) else "config"
        complaints = [[c.span.file, c.span.line, c.span.column, c.message, c.hint] for c in e.complaints]
        return {"error": str(e), "kind": kind, "complaints": complaints}
    except AuthMilterError as e:
        return {"error": str(e)}
    except Exception as e:  # noqa: BLE001 - the child's outermost line; the parent logs it and goes on
        return {"error": f"internal error: {type(e).__name__}: {e}"}
    return {"digest": built.digest, "path": path, "texts": texts, "warnings": warnings}


def _check_into(pipe: int, config_path: str | None, *, first: bool) -> int:
    """Write what `_check` answers into a pipe; returns the exit code."""
    signal.alarm(_CHECK_SECONDS)  # in case the parent has gone
    answer = _check(config_path, first=first)
    with os.fdopen(pipe, "wb") as out:
        out.write(json.dumps(answer).encode())
    return 0


def _failure(answer: dict[str, Any]) -> AuthMilterError:
    """Return as an exception what a child answered."""
    if "complaints" not in answer:
        return StartError(str(answer["error"]))
    complaints = tuple(
        Complaint(span=Span(file=file, line=line, column=column), message=message, hint=hint)
        for file, line, column, message, hint in answer["complaints"]
    )
    return PolicyError(complaints) if answer["kind"] == "policy" else ConfigError(complaints)


def _answer(waiting: Iterable[Client], answer: dict[str, object]) -> None:
    for client in waiting:
        client.answer(answer)
