"""The parent process: listening sockets, workers, reload, drain, restart, control.

What it does: opens the sockets and keeps them open, becomes the service user, forks the workers, which accept on them,
replaces a worker that dies, and answers on the control socket.
What it never does: accept or read mail, hold keys, run an event loop, libmilter or grpc. So it can fork at any time.

Here its parts are put together; each does one thing: `supervise/loop.py` waits, `crew.py` has the workers,
`sockets.py` opens what is listened on, `changes.py` starts and reloads
(SIGHUP, SIGUSR1, control socket), `reading.py` reads the configuration in a child, `desk.py` has the control socket.

How it fails: at start, with every complaint (ConfigError, PolicyError, StartError). Later, never by itself: a fault is
logged, and what it broke is made anew.
"""

from __future__ import annotations

import json
import os
import signal
import time

from authmilter import runtime, worker
from authmilter.control import Client
from authmilter.observe.journal import make_log
from authmilter.supervise.changes import Asker, Changes
from authmilter.supervise.crew import Crew
from authmilter.supervise.desk import Desk
from authmilter.supervise.loop import Loop
from authmilter.supervise.member import Member
from authmilter.supervise.reading import Look
from authmilter.supervise.settings import Generation, Role, Settings, in_pieces
from authmilter.supervise.sockets import Sockets
from authmilter.supervise.state import State
from authmilter.systemd import notify, watchdog_seconds

__all__ = ["Supervisor"]


class Supervisor:
    """The service as a whole, which has the process to itself; `run` returns the exit code.

    Args:
        config_path: as for `config.load.load`.
        loop: the process's, made before anything was read: no signal since then is forgotten.
        settings: is reading the configuration file.

    Raises:
        ConfigError: the configuration file cannot be used.
        StartError: the process that reads it has died.
    """

    def __init__(self, config_path: str | None, loop: Loop, settings: Look) -> None:
        self._loop = loop
        seen = settings.seen()
        log = make_log(runtime.log_settings(seen.loaded.config))
        nothing = Generation(0, Settings(seen.loaded, {}, ""))
        self._state = State(nothing, log, time.monotonic())
        self._sockets = Sockets()
        self._crew = Crew(self._state, self._loop, self)
        self._desk = Desk(self._state, self._loop, self._on_command)
        self._changes = Changes(
            config_path,
            seen,
            self._state,
            self._loop,
            crew=self._crew,
            sockets=self._sockets,
            desk=self._desk,
            stop=self._stop,
        )
        self._hurried = False
        self._last_tick = self._state.started

    # -- start and stop ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit code.

        Raises:
            ConfigError, PolicyError: the configuration cannot be used; lists every mistake.
            StartError: a socket cannot be opened, a user not become, or no worker started.
        """
        self._tick()
        self._watchdog()
        self._changes.begin([])
        worker.preload()  # beside the child that reads the configuration; the workers are forked after both
        try:
            while not self._crew.empty or self._changes.under_way or not self._state.stopping:
                self._loop.turn(self._obey, self._say_bug)
        finally:
            self._close_all()
        if self._changes.failure is not None:
            raise self._changes.failure
        crew = self._crew
        self._state.say("info", "stopped", sessions_closed=crew.closed, sessions_cut=crew.cut)
        return 0

    def _tick(self) -> None:
        """Once a second: notice what nobody tells us of."""
        self._loop.later(1.0, self._tick)
        now = time.monotonic()
        slept, self._last_tick = now - self._last_tick > 3.0, now
        self._crew.watch_silence(slept=slept)
        self._desk.sweep(now)
        self._changes.look()
        self._changes.top_up()

    def _say_bug(self, error: Exception) -> None:
        self._state.say_bug(error)

    def _watchdog(self) -> None:
        seconds = watchdog_seconds()
        if seconds:
            notify("WATCHDOG=1")
            self._loop.later(seconds, self._watchdog)

    def _obey(self, signals: list[int]) -> None:
        if signal.SIGCHLD in signals:
            self._crew.reap(self._changes.reaped)
        for number in signals:
            if number in {signal.SIGTERM, signal.SIGINT}:
                self._stop()
        if signal.SIGHUP in signals or signal.SIGUSR1 in signals:
            self._changes.begin([])

    def _stop(self) -> None:
        """Stop: let open sessions end. When told again: at once."""
        state, crew = self._state, self._crew
        if state.stopping:
            if not self._hurried:
                self._hurried = True
                state.say("info", "stopping at once", sessions=crew.sessions)
                crew.end()
            return
        state.stopping = True
        drain = state.config.milter.drain
        if self._changes.failure is None:
            state.say("info", "stopping", sessions=crew.sessions, drain=drain)
            notify(
                "STOPPING=1",
                f"STATUS=finishing {crew.sessions} sessions",
                f"EXTEND_TIMEOUT_USEC={int(crew.longest_drain() * 1e6)}",
            )
        self._changes.give_up("the service is stopping")
        serving = state.serving
        listeners, serving.listeners = serving.listeners, []
        for item in crew.members():
            early = item.role is Role.MILTER and item.generation != serving.number
            crew.drain(item, 0.0 if early else None, empty=() if early else listeners)
        for listener in listeners:
            self._sockets.close(listener)

    def _close_all(self) -> None:
        self._sockets.close_all(self._state.serving)
        self._desk.close()
        self._loop.close()

    # -- what the crew tells -------------------------------------------------------------------------------

    def filenos(self) -> set[int]:
        """Return the descriptors of our state that are not watched by the loop; a child closes them."""
        return self._sockets.filenos(self._changes.generations) | self._desk.filenos()

    def settled(self) -> None:
        """Hear that a worker uses its settings, or cannot, or accepts connections, or no more, or has ended."""
        self._changes.look()
        if not (self._state.stopping and self._crew.accepting):  # looking costs them a connection
            self._sockets.sweep()

    def ready(self, item: Member) -> None:
        """Hear that a worker serves."""
        self._changes.ready(item)

    def failed(self, item: Member, why: str) -> bool:
        """Hear that a worker died by itself; True if it was one of a generation that is growing."""
        return self._changes.failed(item, why)

    def stale(self) -> None:
        """Hear that the files of signing keys are others than those that were checked: read everything anew."""
        self._changes.begin([])

    def top_up(self) -> None:
        """Start what is missing."""
        self._changes.top_up()

    def asked(self, item: Member, command: str, number: int) -> None:
        """Hear that a worker asks for what the control socket gives, except to stop."""
        asker = _Worker(self._crew, item, number)
        if command == "status":
            asker.answer(self._status())
        elif command == "reload":
            self._changes.begin([asker])
        else:
            asker.answer({"error": "commands: status, reload"})

    # -- control -------------------------------------------------------------------------------------------

    def _on_command(self, client: Client, command: str) -> None:
        if command == "status":
            client.answer(self._status())
        elif command == "reload":
            self._changes.begin([client])
        elif command == "stop":
            client.answer({"ok": True})
            self._stop()
        else:
            client.answer({"error": "commands: status, reload, stop"})

    def _status(self) -> dict[str, object]:
        state, crew, serving = self._state, self._crew, self._state.serving
        now = time.monotonic()
        return {
            "version": worker.VERSION,
            "pid": os.getpid(),
            "uptime_seconds": round(now - state.started, 1),
            "config": str(serving.settings.loaded.path or "defaults"),
            "generation": serving.number,
            "digest": serving.settings.digest,
            "policy": serving.config.policy,
            "engine": serving.config.milter.engine,
            "listen": serving.names,
            "activated": any(listener.activated for listener in serving.listeners),
            "stopping": state.stopping,
            "reloading": self._changes.under_way,
            "last_reload": self._changes.last,
            "restarts": crew.restarts,
            "sessions": crew.sessions,
            "sessions_closed": crew.closed,
            "sessions_cut": crew.cut,
            "workers": [
                {
                    "pid": w.pid,
                    "role": w.role,
                    "generation": w.generation,
                    "sessions": w.load,
                    "sessions_taken": w.taken,
                    "messages": w.counters.get("messages", 0.0),
                    "ready": w.serves,
                    "draining": w.draining,
                    "digest": w.digest,
                    "uptime_seconds": round(now - w.started, 1),
                }
                for w in crew.members()
            ],
            "counters": crew.counters(),
        }


class _Worker(Asker):
    """A worker that waits for an answer, which reaches it in pieces."""

    def __init__(self, crew: Crew, item: Member, number: int) -> None:
        self._crew = crew
        self._item = item
        self._number = number

    def answer(self, answer: dict[str, object]) -> None:
        """Send the answer; nothing if the worker has gone."""
        end = json.dumps({"answer": self._number}).encode()
        self._crew.send(self._item, *in_pieces(answer), end)
