"""A load generator: what Postfix says to a milter, prepared beforehand, so that the milter is what takes the time.

A connection for each message, as Postfix makes one for each SMTP session: negotiation, then the whole message in one
go as far as no reply is wanted, then the verdict. `run` sends over a number of sessions at once and returns rates and
latencies; `Meter` reads the processor time and memory of a process and all it has started.

From a shell: `python tests/benchmarks/load.py unix:/PATH|inet:HOST:PORT [SESSIONS] [SECONDS]` sends the corpus.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import uvloop

from authmilter.milter.protocol import Negotiate, negotiate
from tests.benchmarks.corpus import Letter, corpus
from tests.milter.client import Client, Conversation, Offer, packet

__all__ = [
    "Meter",
    "Prepared",
    "Result",
    "negotiated",
    "negotiated_as",
    "open_socket",
    "percentile",
    "prepare",
    "raise_limits",
    "run",
]

_HELLO = packet("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF))
_FINAL = b"acrtd4y"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message as bytes to send after the negotiation, and how many replies come before those to its end."""

    wire: bytes
    replies: int


@dataclass(slots=True)
class Result:
    """What a run gave; times in seconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    verdicts: dict[str, int] = field(default_factory=dict)
    errors: int = 0

    @property
    def rate(self) -> float:
        """Messages a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def ms(self, share: float) -> float:
        """The latency that this share of the messages does not exceed, in milliseconds."""
        return 1000.0 * percentile(self.latencies, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def raise_limits(files: int) -> int:
    """Allow this process, and those it starts, so many open files, or as many as may be; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return files
    for limits in ((files, max(hard, files)), (min(files, hard), hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return limits[0]
    return soft


def open_socket(address: str) -> socket.socket:
    """Connect, blocking, to `unix:/path` or `inet:host:port`."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(rest)
        return sock
    host, _, port = rest.rpartition(":")
    return socket.create_connection((host, int(port)))


def negotiated(address: str) -> bytes:
    """Ask the milter once what it wants, and return its answer's payload."""
    with open_socket(address) as sock:
        sock.settimeout(30)
        sock.sendall(_HELLO)
        data = b""
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            piece = sock.recv(4096)
            if not piece:
                raise ConnectionResetError("the milter closed the connection")
            data += piece
    return data[5 : 4 + int.from_bytes(data[:4], "big")]


def negotiated_as(*, skip: bool = False) -> bytes:
    """Return what our native engine answers to a new Postfix, without asking one."""
    _abilities, answer = negotiate(Negotiate(6, 0x1FF, 0x1FFFFF), want_skip=skip)
    return answer.wire[5:]


def prepare(letter: Letter, answer: bytes) -> Prepared:
    """Write down what Postfix would say about a message to a milter that gave this answer."""
    client = Client(
        hostname=letter.helo.encode(),
        address=letter.client_ip.encode(),
        helo=letter.helo.encode(),
        mail_from=(letter.mail_from.encode(),),
    )
    talk = Conversation(Offer()).deliver(client, letter.raw)
    parts: list[bytes] = []
    replies = 0
    item = next(talk)
    ended = False
    while not ended:
        if item is None:
            if not parts or parts == [_HELLO]:
                parts.clear()
                item = talk.send(("O", answer))
                continue
            replies += 1
            item = talk.send(("c", b""))
            continue
        parts.append(item)
        ended = item[4:5] == b"E"
        item = next(talk) if not ended else b""
    talk.close()
    return Prepared(b"".join(parts), replies)


class _Session(asyncio.Protocol):
    """One connection after another, until there is nothing more to send."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._held = b""
        self._negotiated = False
        self._left = 0
        self._began = 0.0
        self._message: Prepared | None = None
        self._transport: asyncio.Transport | None = None
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's are none by their class
        self._began = time.perf_counter()
        self._write(_HELLO)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        at = 0
        while len(data) - at >= 5:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                break
            self._packet(data[at + 4 : at + 5])
            at = end
        self._held = data[at:]

    def _packet(self, command: bytes) -> None:
        if not self._negotiated:
            self._negotiated = True
            message = self._run.take()
            self._left = message.replies
            self._write(message.wire)
        elif command == b"p":
            return
        elif self._left:
            self._left -= 1
        elif command in _FINAL and not self._over:
            self._over = True
            self._run.done(time.perf_counter() - self._began, command.decode())
            self._write(packet("A") + packet("Q"))
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._run.closed(lost=not self._over)


class _Run:
    def __init__(self, address: str, messages: Sequence[Prepared], until: float, most: int) -> None:
        self._address = address
        self._messages = messages
        self._until = until
        self._left = most
        self._next = 0
        self.result = Result()
        self._slots: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._open = 0
        self.ended = asyncio.Event()

    def take(self) -> Prepared:
        self._next += 1
        return self._messages[(self._next - 1) % len(self._messages)]

    def done(self, latency: float, command: str) -> None:
        self.result.latencies.append(latency)
        self.result.verdicts[command] = self.result.verdicts.get(command, 0) + 1

    def closed(self, *, lost: bool) -> None:
        self.result.errors += lost
        self._open -= 1
        self.begin()

    def begin(self) -> None:
        if self._left > 0 and time.perf_counter() < self._until:
            self._left -= 1
            self._open += 1
            task = self._loop.create_task(self._connect())
            self._slots.add(task)
            task.add_done_callback(self._slots.discard)
        elif not self._open:
            self.ended.set()

    async def _connect(self) -> None:
        scheme, _, rest = self._address.partition(":")
        try:
            if scheme == "unix":
                await self._loop.create_unix_connection(lambda: _Session(self), rest)
            else:
                host, _, port = rest.rpartition(":")
                await self._loop.create_connection(lambda: _Session(self), host, int(port))
        except OSError:
            await asyncio.sleep(0.01)
            self.closed(lost=True)


async def _run(
    address: str, messages: Sequence[Prepared], sessions: int, seconds: float, most: int
) -> Result:
    began = time.perf_counter()
    run = _Run(address, messages, began + seconds, most)
    for _ in range(sessions):
        run.begin()
    await run.ended.wait()
    run.result.seconds = time.perf_counter() - began
    return run.result


def run(
    address: str,
    messages: Sequence[Prepared],
    *,
    sessions: int = 16,
    seconds: float = 3.0,
    most: int = 1 << 60,
) -> Result:
    """Send `messages` over and over, over so many sessions at once, for `seconds` or until `most` are sent."""
    return uvloop.run(_run(address, messages, sessions, seconds, most))


class Meter:
    """Processor time and memory of a process and all that it has started."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def pids(self) -> list[int]:
        """Return the processes there are now, the first one first."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
        found, pending = [], [self._pid]
        while pending:
            pid = pending.pop()
            found.append(pid)
            pending += children.get(pid, [])
        return found

    def cpu(self) -> float:
        """Return the seconds of processor time used so far, those of ended children included."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                ticks += sum(int(word) for word in _stat(pid)[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[float, float]:
        """Return the proportional set size, and the sum of what each process holds in memory (RSS), in MB."""
        pss = rss = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        pss += int(line.split()[1])
                    elif line.startswith("Rss:"):
                        rss += int(line.split()[1])
        return pss / 1024, rss / 1024


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _arguments(words: list[str]) -> Iterator[str]:
    yield from words
    yield from ("16", "10")[len(words) - 1 :]


def main(words: list[str]) -> int:
    """Send the corpus and print what came of it."""
    if not words:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    address, sessions, seconds = _arguments(words)
    answer = negotiated(address)
    messages = [prepare(letter, answer) for letter in corpus()]
    result = run(address, messages, sessions=int(sessions), seconds=float(seconds))
    print(
        f"{result.rate:.0f} msg/s, p50 {result.ms(0.5):.1f} ms, p99 {result.ms(0.99):.1f} ms, {result.verdicts}, {result.errors} lost"
    )
    return 1 if result.errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
