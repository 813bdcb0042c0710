"""`make bench`: the rig beside other milters where it is present, else our micro-benchmarks against their baseline.

    bench.py                  the rig if it is there and its peers run, else --micro
    bench.py --micro          the micro-benchmarks: each one's time divided by a yardstick's of the same run, beside the
                              same ratio in baseline.json; what is over 10 % slower is marked (and measured once more)
    bench.py --micro --renew  the same, and write baseline.json anew
    --only TEXT               only the benchmarks with TEXT in their name;   --strict: exit 1 if one is slower
    --json FILE               write what was measured to FILE as JSON;       --markdown: print a table for the documents
    bench.py --rig            the rig or an error; REPS, CONC and ONLY of the environment are its --reps, --conc, --only;
                              the peers are stopped at the end unless KEEP_PEERS is set

Times are processor time, of which the least of many rounds counts, so that a busy machine does little harm. The rig lies
in a folder `shared/perf` beside the project, or where PERF_RIG says; what it made lies in PERF_BASE.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Table

from authmilter.octets import chosen as octets
from tests.benchmarks.load import negotiated, raise_limits
from tests.benchmarks.machine import about

__all__ = ["ratios"]

ROOT = Path(__file__).resolve().parents[2]
_BASELINE = Path(__file__).with_name("baseline.json")
_SLOWER = 1.10
_PEERS = ("rspamd2", "opendkim", "opendmarc-spf", "opendkim-sign")


# -- the micro-benchmarks ----------------------------------------------------------------------------------------


def measure(only: str) -> list[dict[str, Any]]:
    """Run pytest-benchmark over micro.py, and return its rows."""
    with tempfile.TemporaryDirectory(prefix="authmilter-bench-") as folder:
        file = Path(folder) / "rows.json"
        command = [
            sys.executable, "-m", "pytest", "tests/benchmarks/micro.py", "-q", "-p", "no:cacheprovider",
            f"--benchmark-json={file}", "--benchmark-timer=time.process_time", "--benchmark-max-time=0.5",
            "--benchmark-min-rounds=5", "--benchmark-disable-gc", "--benchmark-quiet",
        ]  # fmt: skip
        if only:
            command += ["-k", f"yardstick or {only}"] if only.isidentifier() else []
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        rows: list[dict[str, Any]] = json.loads(file.read_text())["benchmarks"]
    return rows


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, by name, each benchmark's least time in microseconds and its ratio to its yardstick's.

    The yardstick's time is the mean of the least before and the least after: a shared machine is faster at times.
    """
    found = {}
    for at, row in enumerate(rows):
        yardstick = row["extra_info"].get("yardstick")
        if yardstick is None:
            continue
        places = [n for n, r in enumerate(rows) if r["extra_info"].get("is_yardstick") == yardstick]
        before, after = max(n for n in places if n < at), min(n for n in places if n > at)
        length = (rows[before]["stats"]["min"] + rows[after]["stats"]["min"]) / 2
        found[row["param"]] = {
            "yardstick": yardstick,
            "ratio": float(f"{row['stats']['min'] / length:.4g}"),
            "microseconds": round(row["stats"]["min"] * 1e6, 1),
        }
    return found


def _slower(found: dict[str, dict[str, Any]], was: dict[str, float]) -> list[str]:
    return [n for n, row in found.items() if n in was and row["ratio"] > was[n] * _SLOWER]


def micro(options: argparse.Namespace, out: Console) -> int:
    """Measure, compare, print."""
    found = ratios(measure(options.only))
    baseline = json.loads(_BASELINE.read_text()) if _BASELINE.exists() else {"ratios": {}}
    was: dict[str, float] = baseline["ratios"]
    for _ in range(2):  # a busy moment looks like a slower program: the best of three runs
        if not _slower(found, was) and not options.renew:
            break
        for name, row in ratios(measure(options.only)).items():
            if row["ratio"] < found[name]["ratio"]:
                found[name] = row
    found = {n: r for n, r in found.items() if options.only in n}
    slower = _slower(found, was)
    here = about()
    if options.markdown:
        print("| benchmark | µs | ratio | of |\n|---|--:|--:|---|")
        for name, row in found.items():
            print(f"| {name} | {row['microseconds']:g} | {row['ratio']:g} | {row['yardstick']} |")
    else:
        table = Table(
            "benchmark", "µs", "of", "was", "is", "change", title=f"{here['text']}", title_justify="left"
        )
        for name, row in found.items():
            before = was.get(name)
            change = "new" if before is None else f"{100 * (row['ratio'] / before - 1):+.0f} %"
            mark = (
                "[bold red]"
                if name in slower
                else "[green]"
                if before and row["ratio"] < before / _SLOWER
                else ""
            )
            table.add_row(
                *(name, f"{row['microseconds']:,.1f}", row["yardstick"]),
                *("" if before is None else f"{before:g}", f"{row['ratio']:g}", f"{mark}{change}"),
            )
        out.print(table)
    if baseline.get("python", platform.python_version()) != platform.python_version():
        out.print(
            f"The baseline was made with Python {baseline['python']}: ratios may differ for that alone."
        )
    if baseline.get("compiled", octets.COMPILED) != octets.COMPILED:
        parts = "with" if baseline["compiled"] else "without"
        out.print(f"The baseline was made {parts} the compiled parts: compare the same.")
    gone = sorted(set(was) - set(found)) if not options.only else []
    if gone:
        out.print(f"In the baseline, but measured no more: {', '.join(gone)}")
    for name in slower:
        out.print(f"[bold red]over 10 % slower[/]: {name}, {was[name]:g} -> {found[name]['ratio']:g}")
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": here, "benchmarks": found}, indent=1) + "\n")
    if options.renew:
        kept = {**(was if options.only else {}), **{n: r["ratio"] for n, r in found.items()}}
        text = {
            "made": f"{datetime.now(UTC):%Y-%m-%d}",
            "python": platform.python_version(),
            "machine": here["text"],
            "compiled": octets.COMPILED,
            "ratios": kept,
        }
        _BASELINE.write_text(json.dumps(text, indent=1) + "\n")
        out.print(f"baseline renewed: {len(kept)} ratios")
    return 1 if slower and options.strict and not options.renew else 0


# -- the rig -----------------------------------------------------------------------------------------------------


def rig_folder() -> tuple[Path, Path]:
    """Return where the rig's programs are, and what they have made."""
    rig = Path(os.environ.get("PERF_RIG", ROOT.parent / "shared" / "perf"))
    return rig, Path(os.environ.get("PERF_BASE", Path.home() / ".cache" / "authmilter-perf"))


def rig_lacks() -> str:
    """Return what is missing to run the rig, in words; empty if nothing is."""
    rig, base = rig_folder()
    if not (rig / "bench.py").exists():
        return "no rig is here"
    if os.geteuid() != 0:
        return "the rig wants root"
    if not (base / "loadgen" / "loadgen").exists() or not (base / "corpus" / "corpus.jsonl").exists():
        return "the rig is not set up: run its setup.sh"
    return ""


def rig(out: Console) -> int:
    """Start DNS, peers and the service, and run the rig's own bench.py and report.py."""
    folder, base = rig_folder()
    raise_limits(65536)
    env = {**os.environ, "PERF_BASE": str(base)}
    wanted = [p for p in _PEERS if p in os.environ.get("PEERS", " ".join(_PEERS)).split()]
    subprocess.run(["bash", str(folder / "start-dns.sh")], env=env, check=True)
    subprocess.run(["bash", str(folder / "start-peers.sh"), *wanted], env=env, check=False)
    with tempfile.TemporaryDirectory(prefix="authmilter-rig-") as name:
        settings: dict[str, Any] = {
            "authserv_id": "mx.local.rig",
            "milter": {"listen": [f"unix:{name}/m.sock"], "workers": 2, "socket_mode": "0666"},
            "internal": {"networks": []},
            "submission": {"authenticated": True},
            "dns": {"nameservers": ["127.0.0.2:53"]},
            "control": {"socket": f"{name}/control"},
        }
        signing = {
            **settings,
            "milter": {**settings["milter"], "listen": [f"unix:{name}/s.sock"]},
            "internal": {"networks": ["127.0.0.0/8"]},
            "signing": {
                "domains": [
                    {"domain": "local-rig.org", "selector": "sel", "key": str(base / "conf/sign.pem")}
                ]
            },
            "control": {"socket": f"{name}/control-s"},
        }
        results = Path(name) / "results.jsonl"
        services = []
        try:
            for word, config in (("m", settings), ("s", signing)):
                path = Path(name) / f"{word}.yaml"
                path.write_text(json.dumps(config))
                with (Path(name) / f"{word}.log").open("w") as log:
                    services.append(
                        subprocess.Popen(
                            [sys.executable, "-m", "authmilter", "run", "-c", str(path)], stderr=log, cwd=ROOT
                        )
                    )
                _wait(f"unix:{name}/{word}.sock", services[-1], Path(name) / f"{word}.log")
            subprocess.run(
                [
                    sys.executable, str(folder / "bench.py"), "--reps", os.environ.get("REPS", "3"),
                    "--conc", os.environ.get("CONC", "1,16,100"),
                    "--only", os.environ.get("ONLY", "rspamd2,chain2,sign:opendkim"), "--out", str(results),
                    "--extra", f"authmilter=unix:{name}/m.sock:{services[0].pid}",
                    "--sign-extra", f"sign:authmilter=unix:{name}/s.sock:{services[1].pid}",
                ],
                env=env, check=True,
            )  # fmt: skip
        finally:
            for service in services:
                service.terminate()
            for service in services:
                service.wait(30)
            if "KEEP_PEERS" not in os.environ:
                subprocess.run(["bash", str(folder / "stop-peers.sh")], env=env, check=False)
        out.print(about()["text"])
        _report(results, out)
    return 0


def _wait(address: str, service: subprocess.Popen[bytes], log: Path) -> None:
    import time  # noqa: PLC0415 - only here

    for _ in range(200):
        if service.poll() is not None:
            raise SystemExit(f"the service ended:\n{log.read_text()}")
        try:
            negotiated(address)
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing listens on {address}")


def _report(results: Path, out: Console) -> None:
    """Print the medians, and what they are of the best peer's."""
    from statistics import median  # noqa: PLC0415 - only here

    rows = [json.loads(line) for line in results.read_text().splitlines()]
    table = Table("milter", "sessions", "msg/s", "p50 ms", "p99 ms", "CPU ms", "PSS MB", "rate / best peer")
    keys = sorted({(r["peer"].startswith("sign:"), r["conc"], r["peer"]) for r in rows})

    def middle(peer: str, sessions: int, value: Any) -> float:
        return float(median(value(r) for r in rows if r["peer"] == peer and r["conc"] == sessions))

    for signs, sessions, peer in keys:
        others = [p for s, c, p in keys if s == signs and c == sessions and not p.endswith("authmilter")]
        rate = middle(peer, sessions, lambda r: r.get("rate", 0))
        best = max((middle(p, sessions, lambda r: r.get("rate", 0)) for p in others), default=0.0)
        table.add_row(
            *(peer, str(sessions), f"{rate:.0f}"),
            f"{middle(peer, sessions, lambda r: r.get('lat_ms', {}).get('p50', 0)):.1f}",
            f"{middle(peer, sessions, lambda r: r.get('lat_ms', {}).get('p99', 0)):.1f}",
            f"{middle(peer, sessions, lambda r: r['cpu_ms']):.2f}",
            f"{middle(peer, sessions, lambda r: r['pss']):.0f}",
            f"{rate / best:.2f}" if best else "",
        )
    out.print(table)


def main(words: list[str]) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--micro", action="store_true")
    parser.add_argument("--rig", action="store_true")
    parser.add_argument("--renew", action="store_true")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", default="")
    options = parser.parse_args(words)
    out = Console(width=max(Console().width, 120))
    lacks = rig_lacks()
    if options.rig and lacks:
        out.print(lacks)
        return 2
    if options.rig or not (lacks or options.micro or options.renew or options.strict or options.only):
        return rig(out)
    if lacks and not options.micro:
        out.print(f"{lacks}: our own micro-benchmarks")
    return micro(options, out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
