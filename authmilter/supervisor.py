"""The parent process: listening sockets, workers, reload, drain, restart, control.

What it does: opens the sockets, drops root, forks the workers, accepts every connection and hands it to the
worker with the fewest open sessions (SCM_RIGHTS), replaces a worker that dies, and answers on the control
socket. What it never does: read mail, hold keys, run an event loop, libmilter or grpc. So it can fork at any time.

Why the parent accepts, for TCP too: workers that accept on one socket do not share the load, and the kernel's
SO_REUSEPORT spreads by hash, which for 16 connections is often 11 to 5. Counting spreads evenly, and as the
listening sockets live in one process, no reload, no worker's death and no new generation refuses a connection.

Reload (SIGHUP, SIGUSR1, control socket): a short-lived child reads and builds everything; if that fails the
old settings stay and the complaints are logged. If sockets, workers, engine and user are as before, each worker
builds the new runtime and uses it from the next MAIL on. Otherwise a new generation of workers starts, and the
old one gets no new connections and ends when its sessions have, or after `milter.drain`.

How it fails: at start, with every complaint and exit code 78 (configuration) or 71 (sockets). Later, never by
itself: a fault is logged and counted.
"""

from __future__ import annotations

import contextlib
import gc
import grp
import json
import os
import pwd
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from authmilter import runtime, worker
from authmilter.config import load as config_load
from authmilter.config.load import Loaded
from authmilter.config.model import Config
from authmilter.errors import AuthMilterError, ConfigError, PolicyError
from authmilter.milter.sockets import ListenSpec, open_listener
from authmilter.observe.counters import add_up
from authmilter.observe.journal import Log, make_log

__all__ = ["StartError", "Supervisor"]

_BACKLOG = 1024
#: Connections accepted in one go before anything else is looked at.
_ACCEPT_BURST = 64
#: A worker that lived less than this is restarted with a growing pause.
_SHORT_LIFE = 5.0
_MAX_PAUSE = 5.0
#: How long the child that checks a configuration may take.
_CHECK_SECONDS = 60.0
#: How long a worker may take to end after it was told to, beyond its drain.
_GRACE = 3.0
_MAX_CONTROL = 65536
_LISTEN_FDS_START = 3


class StartError(AuthMilterError):
    """The service cannot start for a reason outside the configuration file (a socket, a user)."""


@dataclass(slots=True, eq=False)
class _Listener:
    spec: str
    sock: socket.socket
    activated: bool = False
    path: str = ""


@dataclass(slots=True, eq=False)
class _Worker:
    pid: int
    number: int
    generation: int
    channel: socket.socket
    started: float
    role: str = "milter"
    ready: bool = False
    draining: bool = False
    sessions: int = 0
    digest: str = ""
    counters: dict[str, float] = field(default_factory=dict)
    told_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Check:
    """A child that is reading the new configuration, and who waits for its answer."""

    pid: int
    pipe: int
    deadline: float
    data: bytearray = field(default_factory=bytearray)
    waiting: list[socket.socket] = field(default_factory=list)


class Supervisor:
    """The service as a whole; `run` returns the exit code.

    Args:
        config_path: as for `config.load.load`.
    """

    def __init__(self, config_path: str | None) -> None:
        self._config_path = config_path
        self._loaded: Loaded = config_load.load(config_path)
        self._log: Log = make_log(runtime.log_settings(self._loaded.config))
        self._selector = selectors.DefaultSelector()
        self._listeners: list[_Listener] = []
        self._accepting = False
        self._workers: dict[int, _Worker] = {}
        self._generation = 1
        self._digest = ""
        self._restarts = 0
        self._cut = 0
        self._counters_of_the_dead: dict[str, float] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._check: _Check | None = None
        self._check_again = False
        self._check_again_waiting: list[socket.socket] = []
        self._control: socket.socket | None = None
        self._stopping = False
        self._signals: set[int] = set()
        self._wake_read, self._wake_write = socket.socketpair()
        self._short_lives = 0
        self._spawn_when_alone = False
        self._started = time.monotonic()

    @property
    def _config(self) -> Config:
        return self._loaded.config

    # -- start and stop ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop.

        Raises:
            ConfigError, PolicyError: the configuration cannot be used.
            StartError: a socket cannot be opened or a user not become.
        """
        answer = _checked_in_child(self._loaded)
        if "error" in answer:
            raise StartError(str(answer["error"]))
        self._digest = str(answer.get("digest", ""))
        self._open_all()
        self._open_control()
        self._drop_root()
        self._install_signals()
        for warning in config_load.warnings(self._config):
            self._log.warning("configuration", warning=warning)
        gc.collect()
        gc.freeze()  # the workers share what is loaded now, and their collectors never touch it
        self._spawn_generation()
        self._log.info(
            "started",
            version=worker.VERSION,
            pid=os.getpid(),
            config=str(self._loaded.path or "defaults"),
            policy=self._config.policy,
            digest=self._digest,
            listen=[listener.spec for listener in self._listeners],
            workers=len(self._workers),
            engine=self._config.milter.engine,
        )
        try:
            while self._workers or not self._stopping:
                self._turn()
        finally:
            self._close_all()
        self._log.info("stopped", sessions_cut=self._cut)
        return 0

    def _turn(self) -> None:
        """Wait for the next thing to do and do it."""
        now = time.monotonic()
        due = min((at for at, _ in self._due), default=now + 5.0)
        for key, _ in self._selector.select(max(0.0, min(due - now, 5.0))):
            handle: Callable[[], None] = key.data
            try:
                handle()
            except Exception as e:  # noqa: BLE001 - the parent outlives its bugs
                self._log.error("bug", where="supervisor", error=f"{type(e).__name__}: {e}")
        now = time.monotonic()
        ready = [item for item in self._due if item[0] <= now]
        self._due = [item for item in self._due if item[0] > now]
        for _, action in ready:
            action()
        if self._check is not None and now > self._check.deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._check.pid, signal.SIGKILL)
            self._check_done({"error": "reading the configuration took too long"})

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, action))

    def _install_signals(self) -> None:
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._note_signal)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_signal)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.add(number)

    def _on_signal(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass
        signals, self._signals = self._signals, set()
        if signal.SIGCHLD in signals:
            self._reap()
        if signal.SIGTERM in signals or signal.SIGINT in signals:
            self._stop()
        elif signal.SIGHUP in signals or signal.SIGUSR1 in signals:
            self._reload([])

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        _notify("STOPPING=1")
        self._log.info("stopping", sessions=sum(w.sessions for w in self._workers.values()))
        self._stop_accepting()
        for listener in self._listeners:
            self._close_listener(listener)
        self._listeners = []
        for item in list(self._workers.values()):
            self._tell_drain(item)

    def _close_all(self) -> None:
        for listener in self._listeners:
            self._close_listener(listener)
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
            with contextlib.suppress(OSError):
                Path(self._config.control.socket).unlink()

    # -- sockets -------------------------------------------------------------------------------------------

    def _open_all(self) -> None:
        for sock in _activated():
            name = _describe(sock)
            self._listeners.append(_Listener(spec=name, sock=sock, activated=True))
        if self._listeners or self._config.milter.engine == "libmilter":
            return
        for text in self._config.milter.listen:
            self._listeners.append(self._open(text))

    def _open(self, text: str) -> _Listener:
        milter = self._config.milter
        spec = ListenSpec.parse(text)
        try:
            sock = open_listener(
                spec,
                backlog=_BACKLOG,
                mode=milter.socket_mode,
                owner=milter.socket_owner or (self._config.user if os.geteuid() == 0 else None) or None,
                group=milter.socket_group or None,
            )
        except (OSError, AuthMilterError) as e:
            reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
            raise StartError(f"cannot listen on {text}: {reason}") from e
        sock.setblocking(False)
        return _Listener(spec=text, sock=sock, path=spec.path)

    def _close_listener(self, listener: _Listener) -> None:
        listener.sock.close()
        if listener.path and not listener.activated:
            with contextlib.suppress(OSError):
                Path(listener.path).unlink()

    def _drop_root(self) -> None:
        config = self._config
        if not config.user or os.geteuid() != 0:
            return
        try:
            user = pwd.getpwnam(config.user)
            gid = grp.getgrnam(config.group).gr_gid if config.group else user.pw_gid
        except KeyError as e:
            raise StartError(f"there is no such user or group: {e.args[0]}") from e
        os.setgroups([])
        os.initgroups(config.user, gid)
        os.setgid(gid)
        os.setuid(user.pw_uid)

    def _start_accepting(self) -> None:
        if self._accepting or self._stopping:
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

    def _accept(self, listener: _Listener) -> None:
        for _ in range(_ACCEPT_BURST):
            takers = self._takers()
            if not takers:
                # Nobody can take it: it waits in the kernel's queue, which is not a refusal.
                self._stop_accepting()
                return
            try:
                connection, _peer = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                self._log.error("accept", listen=listener.spec, error=e.strerror)
                self._stop_accepting()
                self._later(0.2, self._start_accepting)
                return
            with connection:
                message = json.dumps({"open": listener.spec}).encode()
                for taker in takers:
                    try:
                        socket.send_fds(taker.channel, [message], [connection.fileno()])
                    except OSError:
                        continue  # its queue is full, or it just died: the next one takes it
                    taker.sessions += 1
                    break
                else:
                    self._cut += 1

    def _takers(self) -> list[_Worker]:
        limit = self._config.milter.max_sessions
        found = [
            w for w in self._workers.values()
            if w.ready and not w.draining and w.generation == self._generation and w.sessions < limit
        ]  # fmt: skip
        found.sort(key=lambda w: w.sessions)
        return found

    # -- workers -------------------------------------------------------------------------------------------

    def _spawn_generation(self) -> None:
        milter = self._config.milter
        if milter.engine == "libmilter":
            # libmilter opens its own socket and serves with threads: one process for each listener.
            for number, _ in enumerate(milter.listen):
                self._spawn(number)
            return
        for number in range(milter.workers or os.cpu_count() or 1):
            self._spawn(number)

    def _spawn(self, number: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = self._become_worker(number, ours, theirs)
            except BaseException as e:  # noqa: BLE001 - a child must never return into the parent's loop
                with contextlib.suppress(Exception):
                    self._log.error("bug", where="worker", error=f"{type(e).__name__}: {e}")
            finally:
                os._exit(code)
        theirs.close()
        ours.setblocking(False)
        item = _Worker(
            pid=pid, number=number, generation=self._generation, channel=ours, started=time.monotonic()
        )
        self._workers[pid] = item
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(item))

    def _become_worker(self, number: int, ours: socket.socket, theirs: socket.socket) -> int:
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(name, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches the group; the parent decides
        self._selector.close()
        for end in (self._wake_read, self._wake_write, ours):
            end.close()
        for listener in self._listeners:
            listener.sock.close()
        if self._control is not None:
            self._control.close()
        for other in self._workers.values():
            other.channel.close()
        return worker.serve(self._loaded, theirs, number)

    def _hear(self, item: _Worker) -> None:
        while True:
            try:
                data = item.channel.recv(1 << 20)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._selector.unregister(item.channel)
                item.channel.close()
                return
            self._heard(item, json.loads(data))

    def _heard(self, item: _Worker, message: dict[str, object]) -> None:
        if "sessions" in message:
            item.sessions = max(0, item.sessions - int(str(message["sessions"])))
            if not self._accepting:
                self._start_accepting()
        if "counters" in message and isinstance(message["counters"], dict):
            item.counters = {str(k): float(v) for k, v in message["counters"].items()}
        if "digest" in message:
            item.digest = str(message["digest"])
        if message.get("ready"):
            item.ready = True
            self._generation_ready()
        if "error" in message:
            self._log.error("worker", pid=item.pid, error=str(message["error"]))

    def _generation_ready(self) -> None:
        current = [w for w in self._workers.values() if w.generation == self._generation]
        self._start_accepting()
        if not all(w.ready for w in current):
            return
        _notify(f"READY=1\nSTATUS=generation {self._generation}, policy {self._config.policy}")
        for old in [w for w in self._workers.values() if w.generation != self._generation]:
            self._tell_drain(old)

    def _tell_drain(self, item: _Worker) -> None:
        if item.draining:
            return
        item.draining = True
        drain = self._config.milter.drain
        self._tell(item, {"drain": drain})
        item.told_at = time.monotonic()
        self._later(drain + _GRACE, lambda: self._end(item, signal.SIGTERM))
        self._later(drain + 2 * _GRACE, lambda: self._end(item, signal.SIGKILL))

    def _tell(self, item: _Worker, message: dict[str, object]) -> None:
        try:
            item.channel.send(json.dumps(message).encode())
        except OSError as e:
            self._log.error(
                "worker", pid=item.pid, error=f"cannot be told {next(iter(message))}: {e.strerror}"
            )

    def _end(self, item: _Worker, number: int) -> None:
        if self._workers.get(item.pid) is item:
            with contextlib.suppress(ProcessLookupError):
                os.kill(item.pid, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            item = self._workers.pop(pid, None)
            if item is None:
                continue  # a configuration check: its pipe tells
            if item.channel.fileno() >= 0:
                self._hear(item)
                if item.channel.fileno() >= 0:
                    self._selector.unregister(item.channel)
                    item.channel.close()
            self._counters_of_the_dead = add_up([self._counters_of_the_dead, item.counters])
            self._cut += item.sessions
            if self._spawn_when_alone and not self._workers and not self._stopping:
                self._spawn_when_alone = False
                self._spawn_generation()
            if item.draining or self._stopping:
                continue
            self._restarts += 1
            why = (
                f"signal {os.WTERMSIG(status)}"
                if os.WIFSIGNALED(status)
                else f"exit code {os.WEXITSTATUS(status)}"
            )
            self._log.error(
                "worker died", pid=pid, why=why, sessions_cut=item.sessions, restarts=self._restarts
            )
            short = time.monotonic() - item.started < _SHORT_LIFE
            self._short_lives = self._short_lives + 1 if short else 0
            pause = min(_MAX_PAUSE, 0.1 * 2 ** (self._short_lives - 3)) if self._short_lives > 2 else 0.0
            if item.generation == self._generation:
                self._later(pause, partial(self._respawn, item.number))

    def _respawn(self, number: int) -> None:
        if not self._stopping:
            self._spawn(number)

    # -- reload --------------------------------------------------------------------------------------------

    def _reload(self, waiting: list[socket.socket]) -> None:
        if self._stopping:
            _answer_all(waiting, {"error": "the service is stopping"})
            return
        if self._check is not None:
            # One at a time: what came since is read in one further go.
            self._check_again = True
            self._check_again_waiting += waiting
            return
        _notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                _answer_into(write, _check(self._config_path, None))
            finally:
                os._exit(0)
        os.close(write)
        os.set_blocking(read, False)
        self._check = _Check(pid=pid, pipe=read, deadline=time.monotonic() + _CHECK_SECONDS, waiting=waiting)
        self._selector.register(read, selectors.EVENT_READ, self._on_check)

    def _on_check(self) -> None:
        check = self._check
        if check is None:
            return
        try:
            data = os.read(check.pipe, 65536)
        except BlockingIOError:
            return
        if data:
            check.data += data
            return
        try:
            answer = json.loads(bytes(check.data))
        except ValueError:
            answer = {"error": "the child that read the configuration died"}
        self._check_done(answer)

    def _check_done(self, answer: dict[str, object]) -> None:
        check = self._check
        assert check is not None  # both callers looked
        self._selector.unregister(check.pipe)
        os.close(check.pipe)
        self._check = None
        if "error" not in answer:
            try:
                self._apply()
                self._digest = str(answer["digest"])
                answer = {"ok": True, "digest": self._digest, "generation": self._generation}
            except AuthMilterError as e:
                answer = {"error": str(e)}
        if "error" in answer:
            for line in str(answer["error"]).splitlines():
                self._log.error("reload refused", complaint=line)
            _notify(f"READY=1\nSTATUS=reload refused, generation {self._generation} goes on")
        _answer_all(check.waiting, answer)
        if self._check_again:
            again, self._check_again_waiting, self._check_again = self._check_again_waiting, [], False
            self._reload(again)

    def _apply(self) -> None:
        """Take the new configuration: by a swap in each worker, or by a new generation.

        Raises:
            ConfigError: the file changed again since it was checked, and is wrong now.
            StartError: a new socket cannot be opened; everything stays as it was.
        """
        new = config_load.load(self._config_path)
        old = self._loaded
        if _same_processes(old.config, new.config):
            self._loaded = new
            for item in self._workers.values():
                if not item.draining:
                    self._tell(item, {"reload": True})
            self._log.info("reloaded", how="swap", generation=self._generation)
            _notify(f"READY=1\nSTATUS=generation {self._generation}, policy {new.config.policy}")
            return
        kept = {listener.spec: listener for listener in self._listeners}
        self._loaded = new
        try:
            fresh = [] if new.config.milter.engine == "libmilter" else [
                kept.get(text) or self._open(text) for text in new.config.milter.listen
            ]  # fmt: skip
        except StartError:
            self._loaded = old
            raise
        if any(listener.activated for listener in self._listeners):
            fresh = self._listeners
        self._stop_accepting()
        for listener in self._listeners:
            if listener not in fresh:
                self._close_listener(listener)
        self._listeners = fresh
        # At most two generations live: a third is made only of the newest settings, the oldest must go now.
        for item in self._workers.values():
            if item.draining:
                self._end(item, signal.SIGTERM)
        self._generation += 1
        self._log = make_log(runtime.log_settings(new.config))
        if "libmilter" in {old.config.milter.engine, new.config.milter.engine} and self._workers:
            # libmilter's process owns its socket: the new one can have it only when the old one has gone.
            self._spawn_when_alone = True
            for item in self._workers.values():
                self._tell_drain(item)
        else:
            self._spawn_generation()
        self._log.info("reloaded", how="generation", generation=self._generation)

    # -- control -------------------------------------------------------------------------------------------

    def _open_control(self) -> None:
        path = self._config.control.socket
        if not path:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if Path(path).is_socket():
                Path(path).unlink()
            before = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            if self._config.user and os.geteuid() == 0:
                with contextlib.suppress(KeyError):
                    os.chown(path, pwd.getpwnam(self._config.user).pw_uid, -1)
            sock.listen(8)
        except OSError as e:
            sock.close()
            self._log.warning("no control socket", path=path, error=e.strerror)
            return
        sock.setblocking(False)
        self._control = sock
        self._selector.register(sock, selectors.EVENT_READ, self._on_control)

    def _on_control(self) -> None:
        assert self._control is not None  # registered only when open
        try:
            connection, _ = self._control.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._on_request(connection))
        self._later(10.0, lambda: self._forget(connection))

    def _forget(self, connection: socket.socket) -> None:
        """Give up a control connection that never said anything."""
        if connection.fileno() >= 0 and connection in self._selector.get_map():
            self._selector.unregister(connection)
            connection.close()

    def _on_request(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        try:
            request = json.loads(connection.recv(_MAX_CONTROL) or b"null")
            command = request.get("command") if isinstance(request, dict) else None
        except (OSError, ValueError):
            command = None
        if command == "status":
            _answer_all([connection], self._status())
        elif command == "reload":
            self._reload([connection])
        elif command == "stop":
            _answer_all([connection], {"ok": True})
            self._stop()
        else:
            _answer_all([connection], {"error": "commands: status, reload, stop"})

    def _status(self) -> dict[str, object]:
        workers = list(self._workers.values())
        return {
            "version": worker.VERSION,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "generation": self._generation,
            "digest": self._digest,
            "policy": self._config.policy,
            "engine": self._config.milter.engine,
            "listen": [listener.spec for listener in self._listeners] or list(self._config.milter.listen),
            "stopping": self._stopping,
            "restarts": self._restarts,
            "sessions": sum(w.sessions for w in workers),
            "sessions_cut": self._cut,
            "workers": [
                {
                    "pid": w.pid,
                    "role": w.role,
                    "generation": w.generation,
                    "sessions": w.sessions,
                    "ready": w.ready,
                    "draining": w.draining,
                    "digest": w.digest,
                }
                for w in workers
            ],
            "counters": add_up([self._counters_of_the_dead, *(w.counters for w in workers)]),
        }


def _same_processes(old: Config, new: Config) -> bool:
    """True if the new settings can be swapped into the running workers."""
    return (old.milter == new.milter and old.user == new.user and old.group == new.group and old.log == new.log)  # fmt: skip


def _check(config_path: str | None, loaded: Loaded | None) -> dict[str, object]:
    """Read and build everything, as a worker would; the answer is plain data."""
    try:
        found = loaded if loaded is not None else config_load.load(config_path)
        return {"digest": runtime.build(found).digest}
    except (ConfigError, PolicyError) as e:
        return {"error": str(e), "complaints": len(e.complaints)}
    except AuthMilterError as e:
        return {"error": str(e)}
    except Exception as e:  # noqa: BLE001 - the child's outermost line; the parent logs it and goes on
        return {"error": f"internal error: {type(e).__name__}: {e}"}


def _checked_in_child(loaded: Loaded) -> dict[str, object]:
    """Run `_check` in a child of its own and wait: the parent never holds what only workers need.

    Raises:
        ConfigError, PolicyError: as the child found (raised again here so that each complaint keeps its line).
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            _answer_into(write, _check(None, loaded))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    answer: dict[str, object] = (
        json.loads(data) if data else {"error": "the child that read the configuration died"}
    )
    if "complaints" in answer:
        runtime.build(loaded)  # raises what the child met
    return answer


def _answer_into(pipe: int, answer: dict[str, object]) -> None:
    with os.fdopen(pipe, "wb") as out:
        out.write(json.dumps(answer).encode())


def _answer_all(waiting: list[socket.socket], answer: dict[str, object]) -> None:
    for connection in waiting:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(2.0)
            connection.sendall(json.dumps(answer).encode() + b"\n")


def _activated() -> list[socket.socket]:
    """Return the sockets that a service manager opened for us (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    found: list[socket.socket] = []
    for fd in range(_LISTEN_FDS_START, _LISTEN_FDS_START + count):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        found.append(sock)
    return found


def _describe(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    kind = "inet6" if sock.family == socket.AF_INET6 else "inet"
    return f"{kind}:{name[1]}@{name[0]}"


def _notify(text: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where nobody asked."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.send(text.encode())
