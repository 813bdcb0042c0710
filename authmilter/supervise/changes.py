"""Start and reload: from a configuration that a child has read to workers that use it.

If sockets, workers, engine, log and user are as before, each worker builds the new runtime and uses it from the next
MAIL or call on; one that does not get there is replaced. Else a new generation of workers starts beside the old one,
which accepts nothing more once the new one is complete, and ends when its sessions have, or after `milter.drain` or
`grpc.drain`. The change is done when the new one accepts and the old one has said that it does no more.
One change goes on at a time; what is asked for meanwhile is read in one further go, and at most two generations live.

How it fails: a start by `failure`, which ends the service. A reload that fails leaves the old settings in use, and all
complaints are logged and answered.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from authmilter import runtime, worker
from authmilter.config.checked import checked
from authmilter.errors import AuthMilterError
from authmilter.grpc_places import GRPC_CONNECTIONS, publish
from authmilter.observe.journal import make_log
from authmilter.startup import StartError, become, raise_file_limit
from authmilter.supervise.crew import Crew
from authmilter.supervise.desk import Desk
from authmilter.supervise.loop import Loop
from authmilter.supervise.member import Member
from authmilter.supervise.reading import CHECK_SECONDS, Seen, failure, read_into
from authmilter.supervise.settings import Generation, Role, Settings, same_processes
from authmilter.supervise.sockets import Sockets
from authmilter.supervise.state import State
from authmilter.systemd import notify

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["Asker", "Changes"]

#: How long the workers may take that are to use a configuration.
_TAKE_SECONDS = 30.0
#: How long the old generation may take to say that it accepts nothing more; who does not say so hangs.
_LEAVE_SECONDS = 2.0
#: How long the sessions of the last generation but one may go on when a further one is to start.
_MAKE_ROOM = 5.0
#: Workers of a new generation that may die before it is complete.
_MAX_DEATHS = 3


class Asker(Protocol):
    """Somebody who waits to hear how a change ended."""

    def answer(self, answer: dict[str, object]) -> None:
        """Take the answer; never raises."""


@dataclass(slots=True, eq=False)
class _Check:
    """A child that is reading the new configuration."""

    pid: int
    pipe: int
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False)
class _Change:
    """A start or reload under way, and who waits to hear of it.

    First `check` is set; then `settings` are, and `growing` is the new generation (None: the running workers are to
    swap). `replaced` are the workers that were given up because they did not. `leaving` is the generation that gives way
    to the new one, which serves by then.
    """

    waiting: list[Asker]
    deadline: float
    check: _Check | None = None
    settings: Settings | None = None
    growing: Generation | None = None
    leaving: Generation | None = None
    warnings: list[str] = field(default_factory=list)
    deaths: int = 0
    trouble: str = ""
    replaced: int = 0


class Changes:
    """Brings the settings into use, one change at a time.

    Args:
        config_path: as for `config.load.load`.
        seen: what the settings were before the start.
        state: the service as it stands.
        loop: watches the child.
        crew: the workers.
        sockets: what they listen on.
        desk: the control socket.
        stop: ends the service, where it cannot start.
    """

    def __init__(
        self,
        config_path: str | None,
        seen: Seen,
        state: State,
        loop: Loop,
        *,
        crew: Crew,
        sockets: Sockets,
        desk: Desk,
        stop: Callable[[], None],
    ) -> None:
        self._config_path = config_path
        self._seen: Seen | None = seen
        self._state = state
        self._loop = loop
        self._crew = crew
        self._sockets = sockets
        self._desk = desk
        self._stop = stop
        self._change: _Change | None = None
        self._again: list[Asker] | None = None
        self._last_generation = 0
        self._last: dict[str, object] = {}
        #: why the service could not start
        self.failure: AuthMilterError | None = None

    @property
    def under_way(self) -> bool:
        """True while settings are read or brought into use."""
        return self._change is not None

    @property
    def last(self) -> dict[str, object]:
        """How the last change ended; `seconds_ago` says when."""
        last = dict(self._last)
        if "at" in last:
            last["seconds_ago"] = round(time.monotonic() - float(str(last.pop("at"))), 1)
        return last

    @property
    def generations(self) -> list[Generation]:
        """The generation that serves, and the one that is growing."""
        change = self._change
        others = (change.growing, change.leaving) if change is not None else ()
        return [self._state.serving, *(each for each in others if each is not None)]

    # -- reading -------------------------------------------------------------------------------------------

    def begin(self, waiting: list[Asker]) -> None:
        """Read the configuration, in a child of its own, and use it if it is good."""
        if self._state.stopping:
            _answer(waiting, {"error": "the service is stopping"})
            return
        if self._change is not None:
            # One at a time: what came since is read in one further go.
            self._again = [*(self._again or ()), *waiting]
            return
        if self._state.up:
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._change = change = _Change(waiting, time.monotonic() + CHECK_SECONDS)
        try:
            read, write = os.pipe()
            pid = os.fork()
        except OSError as e:
            self._finish({"error": f"cannot start a process: {e.strerror}"})
            return
        if pid == 0:
            work = partial(read_into, write, self._config_path, seen=None if self._state.up else self._seen)
            self._crew.in_child(work, close={read}, keep={write})
        os.close(write)
        os.set_blocking(read, False)
        change.check = _Check(pid=pid, pipe=read)
        self._loop.watch(read, selectors.EVENT_READ, partial(self._on_check, change))

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
            self._finish(answer)
            return
        try:
            self._apply(change, answer)
        except AuthMilterError as e:
            if not self._state.up:
                self.failure = e
            self._finish({"error": str(e)})

    def _end_check(self, change: _Change) -> None:
        check, change.check = change.check, None
        if check is not None:
            self._loop.forget(check.pipe)
            os.close(check.pipe)
            if check.pid:
                os.kill(check.pid, signal.SIGKILL)  # where it is late; it has not been waited for

    def reaped(self, pid: int) -> None:
        """Hear that a child has ended: what ours had to say is in the pipe."""
        check = self._change.check if self._change is not None else None
        if check is not None and check.pid == pid:
            check.pid = 0

    # -- using ---------------------------------------------------------------------------------------------

    def _apply(self, change: _Change, answer: dict[str, Any]) -> None:
        """Make the workers use what the child found good: by a swap in each, or by a new generation.

        Raises:
            StartError: a new socket cannot be opened; everything stays as it was.
        """
        texts: dict[str, str] = answer["texts"]
        loaded = checked(texts)
        new = Settings(loaded, texts, answer["digest"])
        change.warnings = answer["warnings"]
        serving, config = self._state.serving, loaded.config
        change.deadline = time.monotonic() + _TAKE_SECONDS
        if self._state.up and same_processes(serving.config, config):
            serving.settings = change.settings = new
            for item in self._crew.of(serving.number):
                item.trouble = ""
                self._crew.send(item, *new.messages())
            self._crew.forgive()
            self.top_up()  # what could not live with the old settings may with these
            return
        growing = Generation(self._last_generation + 1, new)
        if not self._state.up:
            self._open_first(growing)
            if os.geteuid() == 0:
                change.warnings.append("the service runs as root: set `user`, or start it as another user")
        else:
            if (serving.config.user, serving.config.group) != (config.user, config.group):
                change.warnings.append("`user` and `group` have effect at the next start")
            self._sockets.open_next(serving, growing)
            self._limit(config)
            for item in self._crew.members():
                if item.generation < serving.number:
                    self._crew.drain(item, _MAKE_ROOM)
        self._last_generation += 1
        change.settings, change.growing = new, growing
        self.top_up()

    def _open_first(self, growing: Generation) -> None:
        """Open the sockets of the first generation, and become the service user.

        Raises:
            StartError: one cannot be had.
        """
        # Whatever happens, the serving generation has these: they are closed with it.
        serving, config = self._state.serving, growing.config
        serving.settings = growing.settings
        self._sockets.open_milter(serving)
        growing.listeners = list(serving.listeners)
        self._desk.begin(config, self._sockets.control)
        self._limit(config)
        become(config)
        self._sockets.open_grpc(serving)
        growing.places = list(serving.places)

    def _limit(self, config: Config) -> None:
        wanted = config.milter.max_sessions
        most = raise_file_limit(wanted)
        if most < wanted:
            warning = f"milter.max_sessions is {wanted}, but the limit of open files allows a worker {most}"
            self._state.say("warning", "configuration", warning=warning)
        found = raise_file_limit(GRPC_CONNECTIONS) if config.grpc.listen else GRPC_CONNECTIONS
        if found < GRPC_CONNECTIONS:
            warning = f"the limit of open files allows a gRPC worker {found} connections"
            self._state.say("warning", "configuration", warning=warning)

    def top_up(self) -> None:
        """Start the workers that are missing."""
        if self._state.stopping:
            return
        growing = self._change.growing if self._change is not None else None
        if growing is not None and self._has_room():
            self._crew.fill(growing, patient=False)
        if self._state.serving.number:
            self._crew.fill(self._state.serving, patient=True)

    def _has_room(self) -> bool:
        """At most two generations live: what is left of an earlier one must end before another one starts."""
        return all(item.generation >= self._state.serving.number for item in self._crew.members())

    def ready(self, item: Member) -> None:
        """Let a worker that replaces another one accept and be found; those of a growing generation do when it serves."""
        if item.generation == self._state.serving.number and not item.draining:
            self._let_serve(item)

    def _let_serve(self, item: Member) -> None:
        self._crew.begin(item)
        for place in item.post.places:
            try:
                publish(place, item.pid)
            except StartError as e:
                self._state.say("error", "worker", pid=item.pid, role=item.role, error=str(e))

    def failed(self, item: Member, why: str) -> bool:
        """Hear that a worker died by itself; True if it was one of a generation that is growing."""
        change = self._change
        growing = change.growing if change is not None and change.leaving is None else None
        if change is None or growing is None or growing.number != item.generation:
            return False
        change.deaths += 1
        change.trouble = item.trouble or why
        return True

    def look(self) -> None:
        """See whether the change under way is complete, or will never be."""
        change = self._change
        if change is None:
            return
        late = time.monotonic() > change.deadline
        settings, growing = change.settings, change.growing
        if settings is None:
            if late:
                self._finish({"error": "reading the configuration took too long"})
        elif change.leaving is not None:
            grown = self._crew.of(self._state.serving.number)
            if late or (change.leaving.number not in self._crew.accepting and all(w.serves for w in grown)):
                self._finish({})
        elif growing is None:
            self._look_at_swap(change, settings, late=late)
        elif not self._has_room():
            change.deadline = time.monotonic() + _TAKE_SECONDS  # the old ones are killed if they do not end
        else:
            grown = self._crew.of(growing.number)
            if len(grown) == len(growing.posts()) and all(w.ready for w in grown):
                change.leaving, change.growing = self._state.serving, growing
                change.deadline = time.monotonic() + _LEAVE_SECONDS
                self._switch(growing)
                self.look()
            elif late or change.deaths >= _MAX_DEATHS:
                why = change.trouble or f"not ready after {_TAKE_SECONDS:.0f} seconds"
                self._finish({"error": f"the workers do not start: {why}"})

    def _look_at_swap(self, change: _Change, settings: Settings, *, late: bool) -> None:
        serving = self._state.serving
        items = self._crew.of(serving.number)
        if len(items) == len(serving.posts()) and all(w.ready and w.digest == settings.digest for w in items):
            self._finish({})
            return
        wrong = [w for w in items if w.ready and w.digest != settings.digest and (late or w.trouble)]
        if late and (change.replaced or not wrong):
            self._finish({"error": "not every worker uses the new settings yet; see the log"})
            return
        for item in wrong:
            change.replaced += 1
            change.deadline = time.monotonic() + _TAKE_SECONDS
            self._crew.replace(
                item, item.trouble or f"it did not take the new settings, it has {item.digest}"
            )

    def _switch(self, growing: Generation) -> None:
        """Let the new generation, which is complete, serve."""
        old = self._state.serving
        dropped = [listener for listener in old.listeners if listener not in growing.listeners]
        self._state.serving = growing
        for item in self._crew.of(growing.number):
            self._let_serve(item)
        config = growing.config
        self._state.log = make_log(runtime.log_settings(config))
        for item in self._crew.of(old.number):
            self._crew.drain(item, empty=dropped)
        if self._state.up and old.config.control.socket != config.control.socket:
            self._desk.reopen(config)
        self._crew.forgive()

    # -- the end of a change -------------------------------------------------------------------------------

    def _finish(self, answer: dict[str, Any]) -> None:
        """Tell everybody how the change under way ended: well, or by `answer["error"]`."""
        change, self._change = self._change, None
        assert change is not None  # it is what ends
        self._end_check(change)
        state = self._state
        for warning in change.warnings:
            state.say("warning", "configuration", warning=warning)
        if "error" in answer:
            self._take_back(change, answer)
        else:
            if change.leaving is not None:
                self._sockets.close_other(change.leaving, state.serving)
            answer = self._say_done(change)
        self._sockets.sweep()
        if change.settings is not None or "error" in answer:
            self._last = {**answer, "at": time.monotonic()}
        _answer(change.waiting, answer)
        again, self._again = self._again, None
        if again is not None:
            self.begin(again)

    def _take_back(self, change: _Change, answer: dict[str, Any]) -> None:
        state, growing = self._state, change.growing
        if growing is not None:
            self._sockets.close_other(growing, state.serving)
            for item in self._crew.of(growing.number):
                self._crew.drain(
                    item, 0.0 if item.role is Role.MILTER else None
                )  # gRPC may have calls already
        if not state.up:
            self.failure = self.failure or failure(answer)
            self._stop()
            return
        for line in str(answer["error"]).splitlines():
            state.say("error", "reload refused", complaint=line)
        if not state.stopping:
            serving = state.serving
            notify(
                "READY=1",
                f"STATUS=reload refused; generation {serving.number}, policy {serving.config.policy}",
            )

    def _say_done(self, change: _Change) -> dict[str, Any]:
        state = self._state
        serving = state.serving
        how = "generation" if change.growing is not None else "swap"
        digest = serving.settings.digest
        if state.up:
            state.say("info", "reloaded", how=how, generation=serving.number, digest=digest)
        else:
            self._say_started()
            state.up = True
        notify("READY=1", f"STATUS=generation {serving.number}, policy {serving.config.policy}")
        return {
            "ok": True,
            "how": how,
            "digest": digest,
            "generation": serving.number,
            "warnings": change.warnings,
        }

    def give_up(self, why: str) -> None:
        """End the change under way, and tell who waits."""
        again, self._again = self._again, None
        _answer(again or (), {"error": why})
        if self._change is None:
            return
        if self._change.leaving is not None:
            self._finish({})  # all but done
            return
        if not self._state.up:
            change, self._change = self._change, None
            self._end_check(change)
            return
        self._finish({"error": why})

    def _say_started(self) -> None:
        state = self._state
        serving = state.serving
        state.say(
            "info",
            "started",
            version=worker.VERSION,
            pid=os.getpid(),
            config=str(serving.settings.loaded.path or "defaults"),
            policy=serving.config.policy,
            digest=serving.settings.digest,
            listen=serving.names,
            workers=len(self._crew.members()),
            engine=serving.config.milter.engine,
            seconds=round(time.monotonic() - state.started, 3),
        )


def _answer(waiting: Iterable[Asker], answer: dict[str, object]) -> None:
    for asker in waiting:
        asker.answer(answer)
