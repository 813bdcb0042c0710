"""Cost against size: of the message, its header, its signatures, the policy and its lists, row by row.

Each row doubles or multiplies one size and leaves the others. Processor time, the least of several runs; `grows` is the
factor of the cost over the factor of the size since the row above: 1 is linear, less is better, clearly more than 1 is
worse than linear. The fixed cost of a message makes first rows look better than linear; the last ones tell.

    scale.py [--only TEXT] [--markdown]        rows: size, header, folds, signatures, rules, list, recipients, sessions
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Table

from authmilter.dkim.signature import DkimLimits
from authmilter.engine import Runtime
from authmilter.mail import Mail
from authmilter.message import Message
from authmilter.policy import loader
from authmilter.policy.rules import Policy
from authmilter.runtime import with_policy
from authmilter.verdict import Verdict
from tests.benchmarks.corpus import Letter, zone
from tests.benchmarks.load import Meter, negotiated, prepare, run
from tests.benchmarks.machine import about
from tests.benchmarks.workloads import judged, letter, verification
from tests.support.road import a_runtime
from tests.support.service import Service

__all__ = ["ROWS", "Row"]

#: Growth over this is worse than linear (a measurement on a busy machine is not better than this).
_SUSPICIOUS = 1.3


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: `cost` in seconds of processor time (or octets, as `unit` says) at `size`."""

    family: str
    what: str
    size: int
    cost: float
    unit: str = "s"
    note: str = ""


class _Silent:
    def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:
        """Forget it."""

    def bug(self, where: str, error: BaseException) -> None:
        """Fail loudly: a bug would be fast."""
        raise RuntimeError(where) from error


def _least(work: Callable[[], object], seconds: float = 0.6) -> float:
    best = float("inf")
    until = time.perf_counter() + seconds
    rounds = 0
    gc.collect()
    gc.disable()
    try:
        while rounds < 3 or time.perf_counter() < until:
            before = time.process_time()
            work()
            best = min(best, time.process_time() - before)
            rounds += 1
    finally:
        gc.enable()
    return best


def _runtime() -> Runtime:
    return a_runtime("authserv_id: mx.recv.example\npolicy: monitor\n", zone(), _Silent())


def _judge(built: Runtime, each: Letter) -> Callable[[], Verdict]:
    def work() -> Verdict:
        message, start = Message.parse(each.raw)
        return verification(built, each, message, each.raw[start:])

    return work


def _sizes() -> Iterator[Row]:
    built = _runtime()
    for size in (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000):
        for kind in ("prose", "blanks", "base64") if size >= 100_000 else ("prose",):
            work = _judge(built, letter(size, kind=kind))
            assert work().evidence.dmarc is not None
            yield Row(f"size, {kind}", f"{size // 1000:,} KB", size, _least(work))


def _headers() -> Iterator[Row]:
    built = _runtime()
    for fields in (10, 30, 100, 300, 1000):
        yield Row("header", f"{fields} fields", fields, _least(_judge(built, letter(2_000, fields=fields))))


def _folds() -> Iterator[Row]:
    built = _runtime()
    for folds in (10, 100, 1000, 10_000):
        each = letter(2_000)
        raw = b"X-Folded: a\r\n" + b"\t b\r\n" * folds + each.raw
        yield Row(
            "folds", f"one field of {folds:,} lines", folds, _least(_judge(built, replace(each, raw=raw)))
        )


def _results() -> Iterator[Row]:
    built = _runtime()
    for count in (10, 64, 200, 1000):
        each = letter(2_000)
        line = b"Authentication-Results: mx.recv.example; spf=pass smtp.mailfrom=a.example; dkim=pass header.d=a.example\r\n"
        yield Row(
            "forged results",
            f"{count} fields",
            count,
            _least(_judge(built, replace(each, raw=line * count + each.raw))),
        )


def _signatures() -> Iterator[Row]:
    built = _runtime()
    limit = DkimLimits().signatures
    for count in (0, 1, 2, 5, limit, 2 * limit, 100):
        each = letter(10_000, signatures=count)
        note = "the limit" if count == limit else "the rest is not looked at" if count > limit else ""
        verdict = _judge(built, each)()
        passes = sum(r.status == "pass" for r in verdict.evidence.dkim or ())
        assert passes >= min(count, limit) - (count > limit) * limit, (passes, count)
        yield Row(
            "signatures",
            f"{count}",
            max(count, 1),
            _least(_judge(built, each)),
            note=note or f"{passes} pass",
        )


def _policy_of(rules: int, lists: str = "") -> Policy:
    lines = "".join(
        f"  - id: rule-{n}\n    when:\n      spf.domain: [never{n}.example, '*.never{n}.example']\n"
        f"      dmarc.status: [fail, permerror]\n    then: accept\n"
        for n in range(rules)
    )
    return loader.load(f"version: 1\ndefault: accept\n{lists}rules:\n{lines}", "scale.yaml")


def _rules() -> Iterator[Row]:
    built = _runtime()
    each = letter(2_000)
    for rules in (5, 50, 500):
        began = time.process_time()
        policy = _policy_of(rules)
        loading = time.process_time() - began
        yield Row("rules", f"{rules}", rules, _least(_judge(with_policy(built, policy), each)))
        yield Row("rules, to load", f"{rules}", rules, loading)


def _list_policy(kind: str, size: int) -> tuple[Policy, float, float]:
    if kind == "networks":
        entries = "\n".join(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(size))
        fact = "client.ip"
    else:
        entries = "\n".join(f"name{n}.example" for n in range(size))
        fact = "spf.domain"
    text = (
        "version: 1\ndefault: accept\nlists:\n  big: {file: big.txt}\nrules:\n  - id: listed\n"
        f"    when:\n      {fact}: {{in_list: big}}\n    then: accept\n"
    )
    gc.collect()
    began = time.process_time()
    policy = loader.load(text, "scale.yaml", read_list=lambda _name: entries)
    spent = time.process_time() - began
    tracemalloc.start()
    kept = loader.load(text, "scale.yaml", read_list=lambda _name: entries)
    octets, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return policy, spent, float(octets)


def _lists() -> Iterator[Row]:
    built = _runtime()
    each = letter(2_000)
    for kind in ("domains", "networks"):
        for size in (10, 1_000, 100_000, 1_000_000):
            try:
                policy, spent, octets = _list_policy(kind, size)
            except Exception as e:  # noqa: BLE001 - a limit of ours is a row of the table, too
                yield Row(f"list of {kind}", f"{size:,}", size, 0.0, note=str(e).splitlines()[0][:70])
                continue
            yield Row(f"list of {kind}", f"{size:,}", size, _least(_judge(with_policy(built, policy), each)))
            yield Row(f"list of {kind}, to load", f"{size:,}", size, spent)
            yield Row(f"list of {kind}, held", f"{size:,}", size, octets, unit="B")


def _through_service() -> Iterator[Row]:
    """Processor time of all processes for each message, by sessions at once; and memory by message size."""
    with Service(zone=zone(), policy="monitor", unix=True, workers=2) as service:
        address, meter = f"unix:{service.socket}", Meter(service.process.pid)
        answer = negotiated(address)
        messages = [prepare(letter(10_000), answer)]
        run(address, messages, sessions=8, most=400)
        for sessions in (1, 16, 100):
            before = meter.cpu()
            done = run(address, messages, sessions=sessions, seconds=2.0)
            cost = (meter.cpu() - before) / len(done.latencies)
            yield Row(
                "sessions", f"{sessions}", 1, cost, note=f"{done.rate:.0f} msg/s, p99 {done.ms(0.99):.0f} ms"
            )
        for size in (10_000, 1_000_000, 50_000_000):
            one = [prepare(letter(size, kind="base64"), answer)]
            run(address, one, sessions=4, most=8)
            yield Row(
                "memory after messages of", f"{size // 1000:,} KB", 1, meter.memory()[0] * 1e6, unit="B"
            )


ROWS: dict[str, Callable[[], Iterator[Row]]] = {
    "size": _sizes,
    "header": _headers,
    "folds": _folds,
    "results": _results,
    "signatures": _signatures,
    "rules": _rules,
    "list": _lists,
    "sessions": _through_service,
}


def _shown(row: Row) -> str:
    if row.unit == "B":
        return f"{row.cost / 1e6:,.2f} MB"
    if not row.cost:
        return ""
    return f"{row.cost:.2f} s" if row.cost >= 1 else f"{1000 * row.cost:,.3f} ms"


def main(words: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args(words)
    judged(letter())  # everything is loaded before the first row
    lines: list[tuple[str, str, str, str, str]] = []
    last: dict[str, Row] = {}
    for name, make in ROWS.items():
        if options.only and options.only not in name:
            continue
        for row in make():
            before = last.get(row.family)
            grows = ""
            if before is not None and before.cost and row.cost and row.size > before.size:
                factor = (row.cost / before.cost) / (row.size / before.size)
                grows = f"{factor:.2f}" + (" (!)" if factor > _SUSPICIOUS else "")
            last[row.family] = row
            lines.append((row.family, row.what, _shown(row), grows, row.note))
    heads = ("of", "size", "cost", "grows", "")
    if options.markdown:
        print("| " + " | ".join(heads) + " |\n|---|--:|--:|--:|---|")
        for line in lines:
            print("| " + " | ".join(line) + " |")
        return 0
    table = Table(*heads, title=about()["text"], title_justify="left")
    for line in lines:
        table.add_row(*line)
    Console(width=max(Console().width, 110)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
