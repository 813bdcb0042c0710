"""The worker's end of its channel to the supervisor.

The channel keeps messages whole and in order. What comes: `{"accept": true}`, from when on connections may be taken;
pieces of text (marked by `PIECE`) and then `{"reload": DIGEST}` or `{"answer": N}`, which say what the text is;
`{"drain": SECONDS, "grace": SECONDS, "empty": [LISTENER]}`, which may come again with less; `empty` names listeners that
are closed for good: who waits on them is taken first. What goes back: `{"sessions": OPEN}`, at least once a second, as a
sign of life; `{"accepts": true}` once connections are accepted, and `false` once no more are; `{"digest"}` once that runtime is in use; `{"counters":
{...}}`, those that changed; `{"ask": COMMAND, "n": N}`, which is answered as the control socket answers; `{"error"}`;
`{"ended": [CLOSED, CUT]}` at the end. Nothing is said for each connection: that would cost more than accepting it.

If the channel closes, the supervisor is gone: the worker finishes its sessions as if told to drain.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from authmilter.config.checked import checked
from authmilter.config.loaded import Loaded
from authmilter.engine import Runtime
from authmilter.observe.journal import LogJournal
from authmilter.ports import Resolver

__all__ = ["MAX_ERROR", "OLD_RESOLVER", "PIECE", "Door", "Link", "Work", "close_resolver"]

#: A message that begins so is a piece of text, not JSON.
PIECE = b"+"
#: How often the supervisor hears of us, in seconds.
_REPORT_EVERY = 1.0
#: Counters in one message.
_COUNTERS = 200
#: Characters of an error that the supervisor is told.
MAX_ERROR = 8000
#: Octets of one message from the supervisor, and messages read in one go.
_MAX_MESSAGE = 1 << 18
_BURST = 64
#: A resolver that a reload has replaced serves the messages that began with it; then its sockets are closed.
OLD_RESOLVER = 60.0


class Work(Protocol):
    """What judges in this process."""

    runtime: Runtime
    journal: LogJournal

    @property
    def loaded(self) -> Loaded:
        """The configuration that the runtime was built from."""

    def note(self, name: str, sentence: str) -> None:
        """Write and count something an administrator should know."""

    def cache_counters(self) -> dict[str, float]:
        """Return how often DNS answers and whole results were at hand, and how often not."""

    def reload(self, loaded: Loaded, digest: str | None = None) -> Resolver | None:
        """Build the runtime anew and use it; returns the resolver that is no longer needed.

        Raises:
            AuthMilterError: it cannot be built, or gives another digest than this; the old one stays.
        """


class Door(Protocol):
    """An engine at work in this process, as its link to the supervisor sees it."""

    @property
    def open_sessions(self) -> int:
        """How many sessions are open."""

    def begin(self) -> None:
        """Accept connections from now on."""

    def leave(self, empty: Sequence[str] | None) -> None:
        """Accept nothing more; take first who waits on these listeners (None: on all that will be closed)."""

    async def finish(self, seconds: float, grace: float) -> tuple[int, int]:
        """Let the sessions end; return how many were closed between messages, and cut in one."""


class Link:
    """The worker's end of the channel to the supervisor; made inside the running loop.

    Args:
        work: what judges.
        channel: the socket to the supervisor.
        door: makes the engine, given what is to be called whenever a session has ended.
        patience: seconds that sessions may go on once the supervisor has gone.
    """

    def __init__(
        self,
        work: Work,
        channel: socket.socket,
        door: Callable[[Callable[[], None]], Door],
        *,
        patience: float,
    ) -> None:
        self._patience = patience
        self._work = work
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._door = door(self._changed)
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reloading = asyncio.Lock()
        self._text = bytearray()
        self._outbox: deque[bytes] = deque()
        self._sessions_due = True
        self._flush_due = False
        self._reported: dict[str, float] = {}
        self._draining: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._questions = 0
        self._alone = False
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

    async def ask(self, command: str) -> dict[str, Any]:
        """Ask the supervisor what the control socket is asked (`status`, `reload`); returns its answer.

        Raises:
            ConnectionError: there is no supervisor any more.
        """
        if self._alone:
            raise ConnectionError("the supervisor has gone")
        self._questions = number = self._questions + 1
        waiting: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._asked[number] = waiting
        self._say({"ask": command, "n": number})
        try:
            return await waiting
        finally:
            self._asked.pop(number, None)

    # -- what is said --------------------------------------------------------------------------------------

    def _say(self, message: Mapping[str, object]) -> None:
        self._outbox.append(json.dumps(message).encode())
        self._flush_soon()

    def _changed(self) -> None:
        """Note that the number of sessions has."""
        self._sessions_due = True
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Say what is to be said, as far as there is room."""
        self._flush_due = False
        try:
            while self._outbox:
                self._channel.send(self._outbox[0])
                self._outbox.popleft()
            if self._sessions_due:
                self._channel.send(json.dumps({"sessions": self._door.open_sessions}).encode())
                self._sessions_due = False
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._channel.fileno(), self._flush)
            return
        except OSError:
            self._outbox.clear()  # the supervisor has gone
        self._loop.remove_writer(self._channel.fileno())

    def _report(self) -> None:
        self._report_counters()
        self._changed()
        self._loop.call_later(_REPORT_EVERY, self._report)

    def _report_counters(self) -> None:
        counters = {**self._work.journal.counters.snapshot(), **self._work.cache_counters()}
        changed = [(k, v) for k, v in counters.items() if self._reported.get(k) != v]
        self._reported = counters
        for at in range(0, len(changed), _COUNTERS):
            self._say({"counters": dict(changed[at : at + _COUNTERS])})

    # -- what is heard -------------------------------------------------------------------------------------

    def _read(self) -> None:
        for _ in range(_BURST):
            try:
                data = self._channel.recv(_MAX_MESSAGE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._channel.fileno())
                self._alone = True
                for waiting in [each for each in self._asked.values() if not each.done()]:
                    waiting.set_exception(ConnectionError("the supervisor has gone"))
                self._drain(self._patience, self._work.loaded.config.limits.message, None)
                return
            if data.startswith(PIECE):
                self._text += data[len(PIECE) :]
            else:
                self._obey(json.loads(data))

    def _obey(self, message: dict[str, Any]) -> None:
        if "accept" in message:
            self._door.begin()
            self._say({"accepts": True})
        if "reload" in message:
            text, self._text = bytes(self._text), bytearray()
            self._spawn(self._reload(text, str(message["reload"])))
        if "answer" in message:
            text, self._text = bytes(self._text), bytearray()
            waiting = self._asked.pop(int(message["answer"]), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(json.loads(text))
        if "drain" in message:
            self._drain(float(message["drain"]), float(message["grace"]), message["empty"])

    async def _reload(self, text: bytes, digest: str) -> None:
        async with self._reloading:
            try:
                loaded = checked(json.loads(text))
                # beside the loop: sessions go on while a large list is read
                old = await asyncio.to_thread(self._work.reload, loaded, digest)
            except Exception as e:  # noqa: BLE001 - whatever it was, the old runtime stays and the supervisor is told
                self._say({"error": f"reload: {type(e).__name__}: {e}"[:MAX_ERROR]})
                return
            self._say({"digest": self._work.runtime.digest})
            if old is not None:
                self._loop.call_later(OLD_RESOLVER, close_resolver, old)

    def _drain(self, seconds: float, grace: float, empty: Sequence[str] | None) -> None:
        async def drain() -> None:
            self._ended = await self._door.finish(seconds, grace)
            self._done.set()

        if self._draining is not None:
            self._draining.cancel()
        else:
            self._door.leave(empty)
            self._say({"accepts": False})
        self._draining = self._spawn(drain())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def close_resolver(resolver: Resolver) -> None:
    """Close what a resolver holds open."""
    close: Callable[[], None] | None = getattr(resolver, "close", None)
    if close is not None:
        close()
