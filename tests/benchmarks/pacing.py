"""The engines under hostile pacing, and with 1, 2 and N workers: what honest sessions notice of it.

For each engine and number of workers, runs of honest load alternate without and with hostile clients beside it: 5,000
connections that have negotiated and say nothing more, 10 that send message after message and read no reply, 100 that
send one octet ten times a second. Reported are medians of the rounds, and what the honest load's p99 is of the quiet
one's. The hostile clients are a process of their own, and honest ones make the same number of messages per run.

    pacing.py [--rounds 3] [--seconds 4] [--sessions 8] [--idle 5000] [--rows native:1,native:2,native:4,libmilter:1]

Raises its own limit of open files, which needs root where the hard limit is lower.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Table

from tests.benchmarks.corpus import corpus, zone
from tests.benchmarks.load import Meter, Prepared, negotiated, open_socket, prepare, raise_limits, run
from tests.benchmarks.machine import about
from tests.milter.client import packet
from tests.support.service import Service

_HELLO = packet("O", b"\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff")


# -- the hostile side --------------------------------------------------------------------------------------------


def _connect(address: str) -> socket.socket:
    for _ in range(2000):
        try:
            return open_socket(address)
        except (BlockingIOError, ConnectionRefusedError):
            time.sleep(0.005)  # the queue of those not yet accepted is full
    raise SystemExit("the service accepts nobody")


def hostile(address: str, idle: int, deaf: int, slow: int) -> None:
    """Open the connections, say `ready`, and go on until killed."""
    raise_limits(65536)
    answer = negotiated(address)
    letter = corpus(1)[0]
    # QUIT_NC: the next message begins with CONNECT again, without a negotiation
    wire = prepare(letter, answer).wire + packet("K")
    kept: list[socket.socket] = []
    for _ in range(idle):
        sock = _connect(address)
        sock.sendall(_HELLO)
        kept.append(sock)
    for _ in range(deaf):
        sock = _connect(address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(_HELLO)
        # stuck as soon as the replies fill the buffers
        sock.settimeout(0.2)
        try:
            for _ in range(3000):
                sock.sendall(wire)
        except OSError:
            pass
        kept.append(sock)
    slowly = []
    for _ in range(slow):
        sock = _connect(address)
        sock.sendall(_HELLO)
        sock.setblocking(True)
        slowly.append(sock)
    print("ready", flush=True)
    at = 0
    while True:
        for n, sock in enumerate(slowly):
            try:
                sock.sendall(wire[at % len(wire) :][:1])
            except OSError:
                slowly[n] = _connect(address)
                slowly[n].sendall(_HELLO + wire[: at % len(wire) + 1])
            if n % 10 == 9:
                time.sleep(0.01)  # spread over the tenth of a second
        at += 1


# -- the honest side ---------------------------------------------------------------------------------------------


class Row:
    """What one engine with one number of workers gave, run by run."""

    def __init__(self) -> None:
        self.rate: list[float] = []
        self.p50: list[float] = []
        self.p99: list[float] = []
        self.cpu: list[float] = []
        self.pss = 0.0
        self.lost = 0


def _measure(row: Row, service: Service, messages: list[Prepared], options: argparse.Namespace) -> None:
    meter = Meter(service.process.pid)
    before = meter.cpu()
    done = run(f"unix:{service.socket}", messages, sessions=options.sessions, seconds=options.seconds)
    row.cpu.append(1000 * (meter.cpu() - before) / max(1, len(done.latencies)))
    row.rate.append(done.rate)
    row.p50.append(done.ms(0.5))
    row.p99.append(done.ms(0.99))
    row.pss = meter.memory()[0]
    row.lost += done.errors


def compare(engine: str, workers: int, options: argparse.Namespace) -> tuple[Row, Row]:
    """Measure without and with hostile clients, in turn."""
    quiet, loud = Row(), Row()
    settings = {"milter": {"max_sessions": 20_000}}
    with Service(
        zone=zone(), policy="monitor", unix=True, engine=engine, workers=workers, settings=settings
    ) as service:
        address = f"unix:{service.socket}"
        answer = negotiated(address)
        messages = [prepare(each, answer) for each in corpus()]
        run(address, messages, sessions=options.sessions, most=len(messages))
        for _ in range(options.rounds):
            _measure(quiet, service, messages, options)
            other = subprocess.Popen(
                [
                    *(sys.executable, __file__, "--hostile", address),
                    *(f"--{n}={getattr(options, n)}" for n in ("idle", "deaf", "slow")),
                ],
                stdout=subprocess.PIPE,
            )
            try:
                assert other.stdout is not None
                if other.stdout.readline() != b"ready\n":
                    raise SystemExit("the hostile clients could not connect")
                time.sleep(0.5)
                _measure(loud, service, messages, options)
            finally:
                other.kill()
                other.wait()
            time.sleep(1.0)
    return quiet, loud


def main(words: list[str]) -> int:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--rows", default="native:1,native:2,native:4,libmilter:1")
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--deaf", type=int, default=10)
    parser.add_argument("--slow", type=int, default=100)
    parser.add_argument("--hostile", default="")
    options = parser.parse_args(words)
    if options.hostile:
        hostile(options.hostile, options.idle, options.deaf, options.slow)
        return 0
    allowed = raise_limits(65536)
    if allowed < options.idle + options.deaf + options.slow + 1500:
        print(f"only {allowed} open files are allowed here: fewer connections, or raise `ulimit -Hn`")
        return 2
    out = Console(width=max(Console().width, 130))
    title = f"{about()['text']}; {options.sessions} honest sessions, {options.idle} idle, {options.deaf} that never read, {options.slow} of one octet at a time"
    table = Table(
        *(
            "engine, workers",
            "hostile",
            "msg/s",
            "p50 ms",
            "p99 ms",
            "CPU ms",
            "PSS MB",
            "lost",
            "p99 / quiet",
        ),
        title=title,
        title_justify="left",
    )
    for text in options.rows.split(","):
        engine, _, workers = text.partition(":")
        quiet, loud = compare(engine, int(workers), options)
        for name, row in (("no", quiet), ("yes", loud)):
            table.add_row(
                *(f"{engine}, {workers}", name, f"{median(row.rate):.0f}", f"{median(row.p50):.1f}"),
                *(f"{median(row.p99):.1f}", f"{median(row.cpu):.2f}", f"{row.pss:.0f}", str(row.lost)),
                f"{median(row.p99) / median(quiet.p99):.2f}",
            )
    out.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
