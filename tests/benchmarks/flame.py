"""`make profile`: records a worker under load and draws where its time goes, into profile.svg.

The service runs as in production (native engine, one worker, a zone file for DNS); `load.py` sends it the corpus. py-spy
records the worker alone (`--native` shows compiled libraries too); where there is no py-spy, perf records. Needs root, or a kernel that lets one look at one's own processes; says so otherwise.

    flame.py [--seconds 10] [--sessions 16] [--out profile.svg] [--native] [--sign] [--text]

`--sign` profiles signing instead of verifying; `--text` prints the functions that took most time, too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.corpus import corpus, zone
from tests.benchmarks.load import Meter, Result, negotiated, prepare, run
from tests.benchmarks.outbound import letters, signing_service
from tests.support.service import Service

_RATE = 500
_LINE = re.compile(r":\d+(?=\)$)")


def _py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _lacks() -> str:
    """Return what is missing, in words; empty if nothing is."""
    if _py_spy() is None and shutil.which("perf") is None:
        return "neither py-spy (pip install py-spy) nor perf (apt-get install linux-perf) is here"
    if os.geteuid() != 0:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope")
        if scope.exists() and scope.read_text().strip() != "0":
            return "run it as root (or set kernel.yama.ptrace_scope to 0): the recorder must look into another process"
    return ""


def _record(pid: int, options: argparse.Namespace, out: Path) -> subprocess.Popen[bytes]:
    spy = _py_spy()
    if spy is None:
        command = ["perf", "record", "-q", "-F", str(_RATE), "-g", "-p", str(pid), "-o", f"{out}.perf"]
        return subprocess.Popen([*command, "--", "sleep", str(options.seconds)])
    command = [spy, "record", "-p", str(pid), "-d", str(options.seconds), "-r", str(_RATE), "-o", str(out)]
    command += ["--native"] if options.native else []
    return subprocess.Popen(
        [*command, "-f", "raw" if out.suffix == ".txt" else "flamegraph"], stdout=subprocess.DEVNULL
    )


def _tell(raw: Path) -> None:
    """Print the functions by the share of samples that they were on top of, and in."""
    top: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    total = 0
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_LINE.sub("", frame) for frame in stack.split(";")]
        number = int(count)
        total += number
        top[frames[-1]] += number
        for frame in set(frames):
            inside[frame] += number
    print(f"{total} samples; own share, share with all that is called:")
    for frame, own in top.most_common(40):
        print(f"{100 * own / total:5.1f} %  {100 * inside[frame] / total:5.1f} %  {frame}")


def main(words: list[str]) -> int:
    """Record; exit 2 if something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("profile.svg"))
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--sign", action="store_true")
    parser.add_argument("--text", action="store_true")
    options = parser.parse_args(words)
    lacks = _lacks()
    if lacks:
        print(lacks)
        return 2
    service = (
        signing_service(workers=1)
        if options.sign
        else Service(zone=zone(), policy="monitor", unix=True, workers=1)
    )
    with service:
        address = f"unix:{service.socket}"
        answer = negotiated(address)
        messages = [prepare(each, answer) for each in (letters() if options.sign else corpus())]
        run(address, messages, sessions=options.sessions, most=len(messages))
        worker = service.ask("status")["workers"][0]["pid"]
        results: list[Result] = []
        outs = [options.out, *([options.out.with_suffix(".txt")] if options.text else [])]
        recorded: list[int] = []
        for out in outs:
            recorder = _record(worker, options, out)
            meter, before = Meter(worker), Meter(worker).cpu()
            arguments: dict[str, Any] = {"sessions": options.sessions, "seconds": options.seconds}
            thread = threading.Thread(target=lambda: results.append(run(address, messages, **arguments)))  # noqa: B023 - it ends in this round
            thread.start()
            thread.join()
            spent = meter.cpu() - before
            recorded.append(recorder.wait())
    if any(recorded):
        print("the recorder failed; see above")
        return 1
    done = results[-1]
    print(
        f"{done.rate:.0f} msg/s, {1000 * spent / len(done.latencies):.2f} ms processor time a message in the worker (recorded): {options.out}"
    )
    if _py_spy() is None:
        print(
            f"perf has written {options.out}.perf; draw it: perf script report flamegraph -i {options.out}.perf"
        )
    if options.text:
        _tell(options.out.with_suffix(".txt"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
