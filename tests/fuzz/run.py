"""`make fuzz`: every parser of tests/fuzz/test_parsers.py, with new input until its time is up.

FUZZ_SECONDS (default 60) is the time for each parser. Input is what Hypothesis makes of the grammar's characters, and
mutations of real messages and records. Prints a table; exit 1 if a parser broke its promise, with the input.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Table

from tests.fuzz.test_parsers import ALPHABET, PARSERS, Parser
from tests.support.scenarios import SCENARIOS, zone

_PIECES = (
    b"v=spf1 ", b"v=DMARC1; p=reject; ", b"v=DKIM1; p=", b"include:", b"%{ir}.", b"redirect=", b"From: ", b"\r\n", b"\r\n ",
    b"DKIM-Signature: v=1; a=rsa-sha256; d=", b"h=from:to; ", b"bh=", b"b=", b"Authentication-Results: ", b"=pass ",
    b"smtp.mailfrom=", b"rules:\n  - ", b"when: {", b"milter: {listen: [", b"\x00\x00\x00\x0dO\x00\x00\x00\x06", b"(((", b"xn--",
    b"<@a,@b:", b"[IPv6:", b"=?utf-8?q?", b"\xff\xfe", b"&a [*a, *a]",
)  # fmt: skip


def seeds() -> list[bytes]:
    """Return real messages and records to begin with."""
    texts = [t for node in zone().values() if isinstance(node, dict) for t in node.get("TXT", ())]
    policies = [p.read_bytes() for p in (Path(__file__).resolve().parents[2] / "policies").glob("*.yaml")]
    return [s.message for s in SCENARIOS] + [str(t).encode() for t in texts] + policies


def made(rng: random.Random, corpus: list[bytes]) -> bytes:
    """Return one input: pieces of grammar, or a seed with some octets changed, cut, doubled or put in."""
    if rng.random() < 0.4:
        return b"".join(
            rng.choice(_PIECES) if rng.random() < 0.5 else bytes(rng.choices(ALPHABET, k=rng.randrange(12)))
            for _ in range(rng.randrange(1, 30))
        )
    data = bytearray(rng.choice(corpus))
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


def fuzz(parser: Parser, seconds: float, rng: random.Random, corpus: list[bytes]) -> tuple[int, float, str]:
    """Return how many inputs a parser was given, the slowest one's milliseconds, and the fault (or nothing)."""
    end, count, slowest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end:
        octets = made(rng, corpus)
        began = time.perf_counter()
        try:
            value = parser.call(octets)
            if not isinstance(value, parser.returns):
                return count, slowest, f"returned {type(value).__name__} for {octets[:400]!r}"
        except parser.raises:
            pass
        except Exception as e:  # noqa: BLE001 - that is what is looked for
            return count, slowest, f"{type(e).__name__}: {e} for {octets[:400]!r}"
        slowest = max(slowest, (time.perf_counter() - began) * 1000)
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
