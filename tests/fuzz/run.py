"""`make fuzz`: every parser of tests/fuzz/test_parsers.py, with new input until its time is up.

FUZZ_SECONDS (default 60) is the time for each parser, FUZZ_SEED (default: the time) says which input is made. Input is
pieces of the grammars and random octets between them, and mutations of real messages, records, replies, configurations
and conversations. Prints a table; exit 1 if a parser broke its promise, with the input that shows it.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Table

from tests.fuzz.test_parsers import ALPHABET, PARSERS, Parser
from tests.support.attacks import ATTACKS
from tests.support.marks import SVG, a_bundle, logotype
from tests.support.nameserver import NameServer, wire_name
from tests.support.scenarios import SCENARIOS, zone

_PIECES = (
    b"v=spf1 ", b"v=DMARC1; p=reject; ", b"v=DKIM1; p=", b"include:", b"%{ir}.", b"redirect=", b"From: ", b"\r\n", b"\r\n ",
    b"DKIM-Signature: v=1; a=rsa-sha256; d=", b"h=from:to; ", b"bh=", b"b=", b"Authentication-Results: ", b"=pass ",
    b"smtp.mailfrom=", b"rules:\n  - ", b"when: {", b"milter: {listen: [", b"\x00\x00\x00\x0dO\x00\x00\x00\x06", b"(((", b"xn--",
    b"<@a,@b:", b"[IPv6:", b"=?utf-8?q?", b"\xff\xfe", b"&a [*a, *a]",
)  # fmt: skip


def seeds() -> list[list[bytes]]:
    """Return what to begin with, in groups of which one is chosen first: messages are many, replies few."""
    texts = [t for node in zone().values() if isinstance(node, dict) for t in node.get("TXT", ())]
    policies = [p.read_bytes() for p in (Path(__file__).resolve().parents[2] / "policies").glob("*.yaml")]
    messages = [s.message for s in SCENARIOS] + [a.message for a in ATTACKS if len(a.message) < 10_000]
    records = [str(text).encode() for text in texts]
    return [
        messages,
        records,
        policies,
        _replies(),
        [_CONVERSATION],
        list(_ODDITIES),
        [SVG, a_bundle(), logotype()],
    ]


#: What `tests.fuzz.test_parsers` takes for a milter conversation: CONNECT to the end of the message, and QUIT.
_CONVERSATION = (
    b"\x01mx.example.org~4\x12\x34192.0.2.10~\n\x02mx.example.org~\n\x03<a@good.example>~SIZE=100~\n"
    b"\x04<b@recv.example>~\n\x05\n\x06From~ a@good.example~\n\x07Subject~ x~\n\x09\n\x0abody\n\x0b\n\x0e\n"
)
_ODDITIES = (
    b"inet:8891@127.0.0.1", b"unix:/run/x.sock", b"milter: {listen: ['inet6:8891@[::1]'], workers: 2}\ndns: {timeout: 5s}\n",
    b'mx.recv.example 1; spf=pass (a(b)\\)) reason="x;y" smtp.mailfrom="a b"@c.example; dmarc=fail header.from=d.example',
    b" from a.example (b.example [192.0.2.1])\r\n\tby mx.example.com (Postfix) with ESMTP id 1; now",
    "\u202emoc.elpmaxe@\u202da <j\u00fcrgen@b\u00fccher.example>".encode(), b"xn--bcher-kva.example", b"[IPv6:2001:db8::1]",
)  # fmt: skip


def _replies() -> list[bytes]:
    """Return DNS replies of a name server, to the question that the parser's row has asked."""
    question = wire_name((b"example", b"com")) + struct.pack("!HH", 16, 1)
    zones: list[dict[str, object]] = [
        {"example.com": {"TXT": ["v=spf1 -all", "x" * 600]}},
        {"example.com": {"CNAME": "other.example"}, "other.example": {"TXT": ["v=spf1 -all"]}},
        {"other.example": {"A": ["192.0.2.1"]}},
        {"example.com": {"A": ["192.0.2.1"]}},
    ]
    query = (
        struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 1) + question + struct.pack("!BHHIH", 0, 41, 1232, 0, 0)
    )
    return [message for zone_ in zones for message in NameServer(zone_).answer(query, "tcp")[0]]


def made(rng: random.Random, corpus: list[list[bytes]]) -> bytes:
    """Return one input: pieces of grammar, or a seed with some octets changed, cut, doubled or put in."""
    if rng.random() < 0.4:
        return b"".join(
            rng.choice(_PIECES) if rng.random() < 0.5 else bytes(rng.choices(ALPHABET, k=rng.randrange(12)))
            for _ in range(rng.randrange(1, 30))
        )
    data = bytearray(rng.choice(rng.choice(corpus)))
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at:at] = rng.choice(_PIECES)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
        elif at < len(data):
            data[at] = rng.randrange(256)
    return bytes(data)


def fuzz(
    parser: Parser, seconds: float, rng: random.Random, corpus: list[list[bytes]]
) -> tuple[int, float, str]:
    """Return how many inputs a parser was given, the milliseconds (of processor time) of the slowest one, and the fault (or nothing)."""
    end, count, slowest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end:
        octets = made(rng, corpus)
        began = time.thread_time()
        try:
            value = parser.call(octets)
            if not isinstance(value, parser.returns):
                return count, slowest, f"returned {type(value).__name__} for {octets[:400]!r}"
        except parser.raises:
            pass
        except Exception as e:  # noqa: BLE001 - that is what is looked for
            return count, slowest, f"{type(e).__name__}: {e} for {octets[:400]!r}"
        slowest = max(slowest, (time.thread_time() - began) * 1000)
        count += 1
    return count, slowest, ""


def main() -> int:
    """Fuzz all parsers and print the table."""
    seconds = float(os.environ.get("FUZZ_SECONDS", "60"))
    seed = int(os.environ.get("FUZZ_SEED", str(time.time_ns() % 2**32)))
    rng, corpus, out, broken = random.Random(seed), seeds(), Console(width=120), 0
    table = Table("parser", "inputs", "slowest ms", "fault", title=f"{seconds:g} s each, FUZZ_SEED={seed}")
    for parser in PARSERS:
        out.print(f"[dim]{parser.name} ...[/]")
        count, slowest, fault = fuzz(parser, seconds, rng, corpus)
        broken += bool(fault)
        table.add_row(parser.name, str(count), f"{slowest:.1f}", fault or "-")
    out.print(table)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
