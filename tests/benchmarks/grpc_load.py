"""Load on the gRPC door beside the milter door: the same corpus, one worker each, one service.

    grpc_load.py [--seconds S] [--rounds N] [--concurrent 1,16,100] [--json FILE]

For each number of messages at a time: messages a second, latencies, and processor time of the service's processes for
a message, by the milter, by `VerifyStream`, by unary `Verify`; and a bare grpc.aio server that takes calls of the same
octets and answers with as many as a verdict has, which is what any unary call costs. Rounds take turns, and the median
counts, as a shared machine is faster at times. The clients are processes of their own with nothing but octets in hand.

The goals: a stream costs at most 1.3 times the milter door, a unary call 1.3 times the milter door and the empty call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import grpc

from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.methods import METHODS
from tests.benchmarks.corpus import corpus, zone
from tests.benchmarks.load import Meter, negotiated, percentile, prepare, run
from tests.benchmarks.machine import about
from tests.support.service import Service

__all__ = ["measured"]

ROOT = Path(__file__).resolve().parents[2]
_PROCESSES = 2
#: A stream has at most so many messages at work in the service.
_STREAM = 16
_VERIFY = METHODS["VerifierService"]["Verify"].path
_STREAM_PATH = METHODS["VerifierService"]["VerifyStream"].path
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
GOAL = 1.3


# -- a client process --------------------------------------------------------------------------------------------


def _bodies(file: str) -> list[bytes]:
    data = Path(file).read_bytes()
    bodies, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        bodies.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return bodies


async def _client(
    target: str, mode: str, concurrent: int, seconds: float, bodies: Sequence[bytes]
) -> dict[str, Any]:
    latencies: list[float] = []
    errors = 0
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        await channel.channel_ready()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.perf_counter()
        until = began + seconds
        if mode == "stream":
            streams = -(-concurrent // _STREAM)
            shares = [concurrent // streams + (n < concurrent % streams) for n in range(streams)]
            errors = sum(
                await asyncio.gather(
                    *(
                        _streamed(channel, [*bodies[n:], *bodies[:n]], s, until, latencies)
                        for n, s in enumerate(shares)
                    )
                )
            )
        else:
            call: Any = channel.unary_unary(_VERIFY)
            errors = sum(
                await asyncio.gather(*(_called(call, bodies, n, until, latencies) for n in range(concurrent)))
            )
        took = time.perf_counter() - began
    return {"latencies": latencies, "seconds": took, "errors": errors}


async def _called(
    call: Any, bodies: Sequence[bytes], number: int, until: float, latencies: list[float]
) -> int:
    errors = 0
    number *= 7
    while (began := time.perf_counter()) < until:
        try:
            await call(bodies[number % len(bodies)])
            latencies.append(time.perf_counter() - began)
        except grpc.aio.AioRpcError:
            errors += 1
        number += 1
    return errors


async def _streamed(
    channel: grpc.aio.Channel, bodies: Sequence[bytes], window: int, until: float, latencies: list[float]
) -> int:
    call: Any = channel.stream_stream(_STREAM_PATH)()
    open_since: dict[bytes, float] = {}
    errors = number = 0

    async def send() -> None:
        nonlocal number
        body = bodies[number % len(bodies)]
        ident = b"%08d" % number
        number += 1
        open_since[ident] = time.perf_counter()
        # VerifyStreamRequest{request: VerifyRequest{id, the rest}}: the body's own fields follow its id
        inner = b"\x0a\x08" + ident + body
        await call.write(b"\x0a" + _varint(len(inner)) + inner)

    for _ in range(window):
        await send()
    while open_since:
        answer = await call.read()
        began = open_since.pop(answer[2:10])  # its id comes first
        latencies.append(time.perf_counter() - began)
        errors += answer[10:11] != b"\x12"  # field 2: a response
        if time.perf_counter() < until:
            await send()
    await call.done_writing()
    return errors


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# -- the server that does nothing ----------------------------------------------------------------------------------


async def _bare(path: str, octets: int) -> None:
    answer = b"\0" * octets

    async def call(_request: bytes, _context: Any) -> bytes:
        return answer

    service, name = _VERIFY.strip("/").split("/")
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {name: grpc.unary_unary_rpc_method_handler(call)}),)
    )
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop(0)


# -- the rig -------------------------------------------------------------------------------------------------------


def _spawn(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # it is a pipe
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a process of the rig has died")
    return line


def _let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None  # as above
    process.stdin.write("go\n")
    process.stdin.flush()


def measured(
    meter: Meter, target: str, mode: str, *, concurrent: int, seconds: float, file: Path
) -> dict[str, float]:
    """Send for so long from client processes; returns rate, latencies in ms, and processor ms for a message."""
    count = min(_PROCESSES, concurrent)
    shares = [concurrent // count + (n < concurrent % count) for n in range(count)]
    clients = [_spawn("client", target, mode, str(share), str(seconds), str(file)) for share in shares]
    for client in clients:
        _said(client)
    before = meter.cpu()
    for client in clients:
        _let_go(client)
    found = [json.loads(_said(client)) for client in clients]
    cpu = meter.cpu() - before
    for client in clients:
        client.wait()
    latencies = [x for f in found for x in f["latencies"]]
    return _row(latencies, max(f["seconds"] for f in found), cpu, sum(f["errors"] for f in found))


def _row(latencies: list[float], seconds: float, cpu: float, errors: int) -> dict[str, float]:
    return {
        "rate": len(latencies) / seconds,
        "p50": 1000 * percentile(latencies, 0.5),
        "p99": 1000 * percentile(latencies, 0.99),
        "cpu_ms": 1000 * cpu / len(latencies),
        "errors": errors,
    }


def main(words: list[str]) -> int:
    """Measure and print."""
    if words[:1] == ["client"]:
        target, mode, concurrent, seconds, file = words[1:]
        print(
            json.dumps(asyncio.run(_client(target, mode, int(concurrent), float(seconds), _bodies(file)))),
            flush=True,
        )
        return 0
    if words[:1] == ["bare"]:
        asyncio.run(_bare(words[1], int(words[2])))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrent", default="1,16,100")
    parser.add_argument("--json", dest="json_file")
    options = parser.parse_args(words)
    numbers = [int(n) for n in options.concurrent.split(",")]
    rows = _rows(numbers, options.seconds, options.rounds)
    here = about()
    _print(rows, here["text"])
    if options.json_file:
        Path(options.json_file).write_text(json.dumps({"machine": here, "rows": rows}, indent=1))
    return 0


def _rows(numbers: list[int], seconds: float, rounds: int) -> dict[int, dict[str, dict[str, float]]]:
    letters = corpus()
    requests = [
        pb.VerifyRequest(
            message=letter.raw,
            session=pb.Session(client_ip=letter.client_ip, client_name=letter.helo, helo=letter.helo),
            envelope=pb.Envelope(mail_from=letter.mail_from),
        ).SerializeToString()
        for letter in letters
    ]
    service = Service(zone=zone(), unix=True, workers=1)
    with service, tempfile.TemporaryDirectory(prefix="authmilter-grpc-load-") as folder:
        service.settings["grpc"] = {"listen": [f"unix:{service.base}/grpc.sock"], "workers": 1}
        service.stop()
        service.write_config()
        service.start()
        target = f"unix:{service.base}/grpc.sock"
        file = Path(folder) / "requests"
        file.write_bytes(b"".join(len(r).to_bytes(4, "big") + r for r in requests))
        octets = _answers(target, requests)
        milter = f"unix:{service.socket}"
        answer = negotiated(milter)
        prepared = [prepare(letter, answer) for letter in letters]
        bare = _spawn("bare", f"{folder}/bare.sock", str(octets))
        _said(bare)
        ours, theirs = Meter(service.process.pid), Meter(bare.pid)
        found: dict[int, dict[str, list[dict[str, float]]]] = {
            n: {"milter": [], "stream": [], "unary": [], "empty": []} for n in numbers
        }
        for turn in range(rounds + 1):  # the first to warm up
            for number in numbers:
                length = seconds if turn else 1.0
                before = ours.cpu()
                mail = run(milter, prepared, sessions=number, seconds=length)
                cpu = ours.cpu() - before
                rows = {
                    "milter": _row(mail.latencies, mail.seconds, cpu, mail.errors),
                    "stream": measured(ours, target, "stream", concurrent=number, seconds=length, file=file),
                    "unary": measured(ours, target, "unary", concurrent=number, seconds=length, file=file),
                    "empty": measured(
                        theirs,
                        f"unix:{folder}/bare.sock",
                        "unary",
                        concurrent=number,
                        seconds=length,
                        file=file,
                    ),
                }
                for name, row in rows.items():
                    if turn:
                        found[number][name].append(row)
        _let_go(bare)
        bare.wait()
    return {
        n: {name: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for name, rows in doors.items()}
        for n, doors in found.items()
    }


def _answers(target: str, requests: Sequence[bytes]) -> int:
    """Return the mean octets of an answer."""
    with grpc.insecure_channel(target, options=_OPTIONS) as channel:
        call: Any = channel.unary_unary(_VERIFY)
        return sum(len(call(r, wait_for_ready=True, timeout=30)) for r in requests) // len(requests)


def _print(rows: dict[int, dict[str, dict[str, float]]], machine: str) -> None:
    print(machine)
    print(
        "| at a time | by | msg/s | p50 ms | p99 ms | CPU ms a message | failed | of its yardstick | goal |"
    )
    print("|--:|---|--:|--:|--:|--:|--:|--:|--:|")
    for number, doors in rows.items():
        milter, empty = doors["milter"]["cpu_ms"], doors["empty"]["cpu_ms"]
        against = {"stream": milter, "unary": milter + empty}
        for name, row in doors.items():
            ratio = f"{row['cpu_ms'] / against[name]:.2f} | {GOAL}" if name in against else "|"
            print(
                f"| {number} | {name} | {row['rate']:.0f} | {row['p50']:.2f} | {row['p99']:.2f} | "
                f"{row['cpu_ms']:.3f} | {row['errors']:.0f} | {ratio} |"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
