"""The worker processes: starting them, what they say and are told, their end.

What it promises: every child is waited for, and its counters and sessions are counted. The connections that it has not
accepted wait for another in the kernel's queue. A worker that dies is replaced at once; one that lives less than
`_SHORT_LIFE` for the third time after a pause that doubles up to `_MAX_PAUSE`, which workers of another role do not wait
for. A worker that is silent or does not end in time is killed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from authmilter import worker
from authmilter.grpc_places import forget_path
from authmilter.milter.seats import Seat
from authmilter.observe.counters import add_up
from authmilter.startup import Listener
from authmilter.supervise.loop import Loop
from authmilter.supervise.member import Member
from authmilter.supervise.settings import Generation, Post, Role
from authmilter.supervise.state import State

__all__ = ["Crew", "Parent"]

#: A worker that lived less than this is, from the third on, replaced after a pause that doubles up to `_MAX_PAUSE`.
_SHORT_LIFE = 5.0
_MAX_PAUSE = 1.0
#: How long a worker may take to end after its drain, and after it was told to end at once.
_GRACE = 5.0
_AT_ONCE = 1.0
#: A worker says something every second. One that is silent for so many of our own is hung, and killed.
_MAX_SILENCE = 20
#: Octets of one message from a worker.
_MAX_MESSAGE = 1 << 18


class Parent(Protocol):
    """Whom the crew tells what a worker did or said."""

    def filenos(self) -> set[int]:
        """Return the descriptors of our state that are not watched by the loop; a child closes them."""

    def settled(self) -> None:
        """Hear that a worker uses its settings, or cannot, or accepts connections, or no more, or has ended."""

    def ready(self, item: Member) -> None:
        """Hear that a worker serves."""

    def failed(self, item: Member, why: str) -> bool:
        """Hear that a worker died by itself; True if it was one of a generation that is growing."""

    def stale(self) -> None:
        """Hear that the files of signing keys are others than those that were checked."""

    def top_up(self) -> None:
        """Start what is missing."""

    def asked(self, item: Member, command: str, number: int) -> None:
        """Hear that a worker asks for what the control socket gives."""


@dataclass(slots=True)
class _Trouble:
    """The short lives of a role's workers, and when the next one may be started."""

    short_lives: int = 0
    not_before: float = 0.0


class Crew:
    """All workers.

    Args:
        state: the service as it stands.
        loop: watches their channels.
        parent: is told what they do.
    """

    def __init__(self, state: State, loop: Loop, parent: Parent) -> None:
        self._state = state
        self._loop = loop
        self._parent = parent
        self._members: dict[int, Member] = {}
        self._trouble = {role: _Trouble() for role in Role}
        self._counters_of_the_dead: dict[str, float] = {}
        #: workers that were replaced because they died
        self.restarts = 0
        #: sessions ended by us between messages, and at work
        self.closed = 0
        self.cut = 0

    def members(self) -> list[Member]:
        """Return all workers there are."""
        return list(self._members.values())

    def of(self, generation: int) -> list[Member]:
        """Return those of a generation that have not been told to end."""
        return [w for w in self._members.values() if w.generation == generation and not w.draining]

    @property
    def empty(self) -> bool:
        """True if there is none."""
        return not self._members

    @property
    def sessions(self) -> int:
        """How many sessions are open in all."""
        return sum(item.load for item in self._members.values())

    @property
    def accepting(self) -> set[int]:
        """The generations of which a worker may still accept connections."""
        return {item.generation for item in self._members.values() if item.begun}

    def counters(self) -> dict[str, float]:
        """Return the counters of all, also of those that have ended."""
        return add_up([self._counters_of_the_dead, *(w.counters for w in self._members.values())])

    # -- starting ------------------------------------------------------------------------------------------

    def fill(self, generation: Generation, *, patient: bool) -> None:
        """Start the workers that a generation lacks.

        Args:
            generation: which.
            patient: leave out the roles whose workers have lately died too often.
        """
        there = {(item.role, item.post.number) for item in self.of(generation.number)}
        now = time.monotonic()
        missing = [
            post
            for post in generation.posts()
            if (post.role, post.number) not in there
            and not (patient and now < self._trouble[post.role].not_before)
        ]
        if missing:
            gc.collect()
            gc.freeze()  # the workers share what is loaded now, and their collectors never touch it
        for post in missing:
            try:
                self._spawn(post, generation)
            except OSError as e:
                self._state.say("error", "fork", error=e.strerror)
                return  # the next tick tries again

    def _spawn(self, post: Post, generation: Generation) -> None:
        number = self._free_seat(generation) if post.role is Role.MILTER and generation.native else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            keep = {theirs.fileno(), *(listener.sock.fileno() for listener in post.listeners)}
            settings = generation.settings
            if post.role is Role.GRPC:
                work = partial(worker.serve_grpc, settings.loaded, theirs, post.places, settings.digest)
            else:
                seat = Seat(generation.board, number) if number is not None else None
                work = partial(worker.serve, settings.loaded, theirs, post.listeners, settings.digest, seat)
            self.in_child(work, close={ours.fileno()}, keep=keep)
        theirs.close()
        ours.setblocking(False)
        config = generation.config
        drain = config.grpc.drain if post.role is Role.GRPC else config.milter.drain
        item = Member(pid, post, generation.number, ours, drain, time.monotonic())
        if number is not None:
            item.board, item.seat = generation.board, number
            item.taken_before = item.board.taken(number)
        self._members[pid] = item
        self._loop.watch(ours, selectors.EVENT_READ, partial(self._on_channel, item))

    def _free_seat(self, generation: Generation) -> int:
        """Return the first seat of a generation that nobody has.

        Raises:
            OSError: those who were replaced have not ended yet, and have them all.
        """
        board = generation.board
        used = {item.seat for item in self._members.values() if item.board is board}
        for number in range(board.seats):
            if number not in used:
                return number
        raise OSError(errno.EAGAIN, "too many workers that were replaced are still ending")

    def in_child(self, work: Callable[[], int], *, close: set[int], keep: set[int]) -> None:
        """Do `work` in a process that has just been forked, and end it; never returns.

        Args:
            work: returns the exit code.
            close: descriptors to close besides those of our state.
            keep: descriptors of our state that `work` needs.
        """
        code = 70
        try:
            mine = self._loop.leave() | self._parent.filenos() | close
            mine |= {item.channel.fileno() for item in self._members.values()}
            for fd in mine - keep - {-1}:
                os.close(fd)
            code = work()
        except BaseException as e:  # noqa: BLE001 - a child must never return into the parent's loop
            self._state.say_bug(e, "child")
        finally:
            os._exit(code)

    # -- hearing and telling -------------------------------------------------------------------------------

    def send(self, item: Member, *messages: bytes) -> None:
        """Tell a worker, now or as soon as it listens; nothing if it has gone."""
        if item.channel.fileno() >= 0:
            item.outbox.extend(messages)
            self._flush(item)

    def _flush(self, item: Member) -> None:
        try:
            while item.outbox:
                item.channel.send(item.outbox[0])
                item.outbox.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            item.outbox.clear()  # it has ended, which we shall be told
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if item.outbox else 0)
        self._loop.rewatch(item.channel, events, partial(self._on_channel, item))

    def _on_channel(self, item: Member, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(item)
        if events & selectors.EVENT_READ:
            self._hear(item)

    def _hear(self, item: Member) -> None:
        while item.channel.fileno() >= 0:
            try:
                data = item.channel.recv(_MAX_MESSAGE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self._close_channel(item)
                self._loop.later(_AT_ONCE, partial(self._kill, item))  # it should be ending
                break
            item.silent = 0
            try:
                self._heard(item, json.loads(data))
            except (ValueError, TypeError, KeyError, AttributeError) as e:
                self._state.say(
                    "error", "worker", pid=item.pid, role=item.role, error=f"says what it must not: {e!r}"
                )
                self._kill(item)
                break

    def begin(self, item: Member) -> None:
        """Let a worker of the native engine accept connections."""
        if item.board is not None and not item.begun:
            item.begun = True
            self.send(item, json.dumps({"accept": True}).encode())

    def _close_channel(self, item: Member) -> None:
        if item.channel.fileno() >= 0:
            self._loop.forget(item.channel)
            item.channel.close()
        item.ready = False
        item.outbox.clear()

    def _heard(self, item: Member, message: dict[str, Any]) -> None:
        if "sessions" in message:
            item.sessions = int(message["sessions"])
        if "accepts" in message:
            item.accepts = bool(message["accepts"])
            item.begun = item.begun and item.accepts
        if "counters" in message:
            item.counters.update({str(k): float(v) for k, v in message["counters"].items()})
        if "ended" in message:
            item.ended = (int(message["ended"][0]), int(message["ended"][1]))
        if "error" in message:
            item.trouble = str(message["error"])
            for line in item.trouble.splitlines():
                self._state.say("error", "worker", pid=item.pid, role=item.role, error=line)
        if "digest" in message:
            item.digest = str(message["digest"])
            item.ready = True
            self._parent.ready(item)
        if "stale" in message:
            self._parent.stale()
        if not message.keys().isdisjoint(("digest", "error", "accepts")):
            self._parent.settled()
        if "ask" in message:
            self._parent.asked(item, str(message["ask"]), int(message["n"]))

    # -- ending --------------------------------------------------------------------------------------------

    def drain(self, item: Member, seconds: float | None = None, *, empty: Iterable[Listener] = ()) -> None:
        """Tell a worker to end when its sessions have.

        Args:
            item: which.
            seconds: after these at most; default: as the settings that it works by say for its role.
            empty: listening sockets that will be closed; it takes first who waits there.
        """
        item.draining = True
        wait = item.drain if seconds is None else seconds
        grace = self._state.config.limits.message  # what a message that has begun may take to its reply
        names = [listener.name for listener in empty]
        self.send(item, json.dumps({"drain": wait, "grace": grace, "empty": names}).encode())
        self._loop.later(wait + grace + _GRACE, partial(self._kill, item))

    def longest_drain(self) -> float:
        """Return how long `stop` may take at most, in seconds."""
        longest = max((item.drain for item in self._members.values()), default=0.0)
        return longest + self._state.config.limits.message + 2 * _GRACE

    def end(self) -> None:
        """Tell all workers to end at once."""
        for item in self._members.values():
            item.draining = True
            self.send(item, json.dumps({"drain": 0, "grace": 0, "empty": []}).encode())
            self._loop.later(_AT_ONCE, partial(self._kill, item))

    def replace(self, item: Member, why: str) -> None:
        """Start another worker in the place of one that does not do as told."""
        self._state.say("error", "worker replaced", pid=item.pid, role=item.role, why=why)
        self.drain(item)
        self._parent.top_up()

    def forgive(self) -> None:
        """Forget what died before: a new generation serves."""
        self._trouble = {role: _Trouble() for role in Role}

    def watch_silence(self, *, slept: bool) -> None:
        """Once a second: kill who has said nothing for long.

        Args:
            slept: the machine was paused, which has not made its workers hang.
        """
        for item in self._members.values():
            # Our own seconds count, not the clock's.
            item.silent = 0 if slept else item.silent + 1
            if item.silent == _MAX_SILENCE:
                self._state.say("error", "worker hangs", pid=item.pid, role=item.role, sessions=item.load)
            if item.silent >= _MAX_SILENCE:
                self._kill(item)

    def _kill(self, item: Member) -> None:
        if self._members.get(item.pid) is item:
            with contextlib.suppress(ProcessLookupError):
                os.kill(item.pid, signal.SIGKILL)

    def reap(self, other: Callable[[int], None]) -> None:
        """Wait for the children that have ended.

        Args:
            other: is told the process of each, before it is looked up among the workers.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            other(pid)
            item = self._members.get(pid)
            if item is not None:
                self._hear(item)
                del self._members[pid]
                self._bury(item, status)
        self._parent.settled()
        self._parent.top_up()

    def _bury(self, item: Member, status: int) -> None:
        """Settle the affairs of a worker that has ended."""
        self._close_channel(item)
        self._counters_of_the_dead = add_up([self._counters_of_the_dead, item.counters])
        for place in item.post.places:
            forget_path(place, item.pid)
        clean = item.draining and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        closed, cut = item.ended if clean else (0, item.load)
        self.closed += closed
        self.cut += cut
        if item.board is not None:
            item.board.clear(item.seat)
        if item.draining:
            self._state.say(
                "info",
                "worker ended",
                pid=item.pid,
                role=item.role,
                generation=item.generation,
                closed=closed,
                cut=cut,
            )
            return
        signalled = os.WIFSIGNALED(status)
        why = f"signal {os.WTERMSIG(status)}" if signalled else f"exit code {os.WEXITSTATUS(status)}"
        if not self._parent.failed(item, why):
            self.restarts += 1
            trouble = self._trouble[item.role]
            short = time.monotonic() - item.started < _SHORT_LIFE
            trouble.short_lives = min(trouble.short_lives + 1, 10) if short else 0
            if trouble.short_lives > 2:
                pause = min(_MAX_PAUSE, 0.1 * 2 ** (trouble.short_lives - 3))
                trouble.not_before = time.monotonic() + pause
                self._loop.later(pause, self._parent.top_up)
        self._state.say(
            "error",
            "worker died",
            pid=item.pid,
            role=item.role,
            why=why,
            sessions_cut=cut,
            restarts=self.restarts,
        )
