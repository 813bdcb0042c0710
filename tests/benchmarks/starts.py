"""Start, reload and memory: seconds from the command to the first verdict, and what `gc.freeze()` is worth.

    starts.py start [--rounds 5]     command to listening socket, to the first verdict (1 and 2 workers, both engines)
    starts.py freeze [--rounds 4]    the same load with and without freezing the collector's objects after the start,
                                     in turn: processor time a message, PSS, private memory; ratios of the medians

`freeze` starts the service through a launcher that takes `gc.freeze` away; nothing else differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Table

from tests.benchmarks.corpus import corpus, zone
from tests.benchmarks.load import Meter, negotiated, prepare, run
from tests.benchmarks.machine import about
from tests.support.service import Service

#: Read by Python at its start, as `sitecustomize`.
_NO_FREEZE = "import gc\ngc.freeze = lambda: None\n"


def _first_verdict(engine: str, workers: int) -> tuple[float, float]:
    """Start a service and return the seconds to its socket, and to its first verdict."""
    letter = corpus(1)[0]
    started = {}

    class Timed(Service):
        def start(self, *, wait: bool = True, extra_env: dict[str, str] | None = None) -> None:
            started["at"] = time.perf_counter()
            super().start(wait=False, extra_env=extra_env)
            del wait

    with Timed(zone=zone(), policy="monitor", unix=True, engine=engine, workers=workers) as each:
        while True:
            try:
                answer = negotiated(f"unix:{each.socket}")
                break
            except OSError:
                time.sleep(0.002)
        listening = time.perf_counter() - started["at"]
        done = run(f"unix:{each.socket}", [prepare(letter, answer)], sessions=1, most=1)
        assert done.verdicts
        return listening, time.perf_counter() - started["at"]


def start(rounds: int, out: Console) -> None:
    """Print the table of starts."""
    table = Table(
        "engine, workers",
        "s to negotiate",
        "s to the first verdict",
        title=about()["text"],
        title_justify="left",
    )
    for engine, workers in (("native", 1), ("native", 2), ("libmilter", 1)):
        found = [_first_verdict(engine, workers) for _ in range(rounds)]
        table.add_row(
            f"{engine}, {workers}", f"{median(f[0] for f in found):.2f}", f"{median(f[1] for f in found):.2f}"
        )
    out.print(table)


def _private(meter: Meter) -> float:
    total = 0
    for pid in meter.pids():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                total += int(line.split()[1])
    return total / 1024


def freeze(rounds: int, out: Console) -> None:
    """Print what freezing changes."""
    values: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="authmilter-freeze-") as folder:
        (Path(folder) / "sitecustomize.py").write_text(_NO_FREEZE)
        for _ in range(rounds):
            for name, env in (("frozen", {}), ("not frozen", {"PYTHONPATH": folder})):
                with Service(zone=zone(), policy="monitor", unix=True, workers=2, env=env) as service:
                    address, meter = f"unix:{service.socket}", Meter(service.process.pid)
                    answer = negotiated(address)
                    messages = [prepare(letter, answer) for letter in corpus()]
                    run(address, messages, sessions=16, most=1000)
                    before = meter.cpu()
                    done = run(address, messages, sessions=16, most=6000, seconds=60)
                    row = values.setdefault(name, {})
                    row.setdefault("CPU ms a message", []).append(
                        1000 * (meter.cpu() - before) / len(done.latencies)
                    )
                    row.setdefault("p99 ms", []).append(done.ms(0.99))
                    row.setdefault("PSS MB", []).append(meter.memory()[0])
                    row.setdefault("RSS MB, all processes", []).append(meter.memory()[1])
                    row.setdefault("private MB", []).append(_private(meter))
    table = Table("", "frozen", "not frozen", "frozen / not", title=about()["text"], title_justify="left")
    for what, found in values["frozen"].items():
        other = median(values["not frozen"][what])
        table.add_row(what, f"{median(found):.3g}", f"{other:.3g}", f"{median(found) / other:.2f}")
    out.print(table)


def main(words: list[str]) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("start", "freeze"))
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args(words)
    out = Console(width=max(Console().width, 100))
    (start if options.what == "start" else freeze)(options.rounds, out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
