"""What DNS costs: with our cache, without it, and where nothing is cached and every query takes 20 ms.

    warm        the corpus again and again, answers from our cache; the name server answers at once
    cache off   the same with `dns.cache_size: 0` (whole results may still be recalled)
    new names   each message has names that nobody has asked for: no cache of ours can help
    held 20 ms  new names, and the name server holds every answer for 20 ms; `rounds` is the latency in such times, and
                behind it how many the message's longest chain of questions needs (SPF includes one in the other)

The name server is a process of its own (tests/support/nameserver.py); its processor time is told apart.

    dnsrows.py [--seconds 3] [--workers 2] [--hold 20]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Table

from tests.benchmarks.corpus import Letter, a_body, a_header, corpus, zone
from tests.benchmarks.load import Meter, negotiated, prepare, run
from tests.benchmarks.machine import about
from tests.support import dkim_keys
from tests.support.nameserver import NameServer
from tests.support.service import Service

_NAMES = ("from", "to", "subject", "date", "message-id")


class _Held(NameServer):
    """Holds every answer for `hold` seconds, and does not write down what it was asked."""

    hold = 0.0

    def answer(self, query: bytes, transport: str = "udp", client_port: int = 0) -> tuple[list[bytes], float]:
        messages, _delay = super().answer(query, transport, client_port)
        self.forget()
        return messages, self.hold


def serve(path: str, hold: float) -> None:
    """Serve a zone until killed."""
    with _Held(json.loads(Path(path).read_text())) as server:
        server.hold = hold
        print(server.address, flush=True)
        while True:
            time.sleep(3600)


def fresh(count: int, first: int, chain: int) -> tuple[list[Letter], dict[str, object]]:
    """Return signed messages each of a domain of its own, and their zone; SPF takes `chain` questions, one after another."""
    letters: list[Letter] = []
    found: dict[str, object] = {}
    key = dkim_keys.rsa_key()
    for number in range(first, first + count):
        domain = f"fresh{number}-{chain}.example"
        ip = f"192.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        names = [domain, *(f"i{n}.{domain}" for n in range(1, chain))]
        for here, below in zip(names, [*names[1:], ""], strict=True):
            found[here] = {"TXT": [f"v=spf1 {f'include:{below}' if below else f'ip4:{ip}'} -all"]}
        reverse = ".".join(reversed(ip.split(".")))
        found[f"{reverse}.in-addr.arpa"] = {"PTR": [f"mail.{domain}"]}
        found[f"mail.{domain}"] = {"A": [ip]}
        found[f"_dmarc.{domain}"] = {"TXT": ["v=DMARC1; p=reject"]}
        found[f"s1._domainkey.{domain}"] = {"TXT": [key.record]}
        header = a_header(f"person@{domain}", number, 20)
        raw = header + b"\r\n" + a_body("prose", 1500, number)
        raw = dkim_keys.sign(raw, key, domain=domain, names=_NAMES)
        letters.append(Letter(raw, f"<bounce@{domain}>", f"mail.{domain}", ip))
    return letters, found


def _service(address: str, workers: int, **dns: Any) -> Service:
    settings = {"dns": {"zone": None, "nameservers": [address], **dns}, "internal": {"networks": []}}
    return Service(zone={}, policy="monitor", unix=True, workers=workers, settings=settings)


def main(words: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hold", type=float, default=20.0)
    parser.add_argument("--serve", nargs=2)
    options = parser.parse_args(words)
    if options.serve:
        serve(options.serve[0], float(options.serve[1]) / 1000)
        return 0
    table = Table(
        *(
            "row",
            "sessions",
            "msg/s",
            "p50 ms",
            "p99 ms",
            "CPU ms",
            "busy cores",
            "DNS CPU ms",
            "rounds (chain)",
        ),
        title=about()["text"],
        title_justify="left",
    )
    few: list[Letter] = []
    far: list[Letter] = []
    found = zone()
    counts = {2: 4500, 6: 300}
    for chain, count in counts.items():
        letters, more = fresh(count, 0 if chain == 2 else 100_000, chain)
        found |= more
        (few if chain == 2 else far).extend(letters)
    common = corpus()
    # name, hold, settings, messages, sessions, how many (0: for some seconds), chain
    rows: list[tuple[str, float, dict[str, Any], list[Letter], int, int, int]] = [
        ("warm", 0, {}, common, 16, 0, 0),
        ("cache off", 0, {"cache_size": 0}, common, 16, 0, 0),
        ("new names", 0, {}, few[:1500], 16, 1500, 2),
        (f"held {options.hold:g} ms", options.hold, {}, few[1500:1600], 1, 100, 2),
        (f"held {options.hold:g} ms, long chain", options.hold, {}, far[:100], 1, 100, 6),
        (f"held {options.hold:g} ms", options.hold, {}, few[1600:3000], 100, 1400, 2),
        (f"held {options.hold:g} ms", options.hold, {}, few[3000:], 300, 1500, 2),
    ]
    with tempfile.TemporaryDirectory(prefix="authmilter-dns-") as folder:
        file = Path(folder) / "zone.json"
        file.write_text(json.dumps(found))
        for name, hold, dns, letters, sessions, most, chain in rows:
            server = subprocess.Popen(
                [sys.executable, __file__, "--serve", str(file), str(hold)], stdout=subprocess.PIPE, text=True
            )
            try:
                assert server.stdout is not None
                address = server.stdout.readline().strip()
                with _service(address, options.workers, **dns) as service:
                    place, meter, other = (
                        f"unix:{service.socket}",
                        Meter(service.process.pid),
                        Meter(server.pid),
                    )
                    answer = negotiated(place)
                    messages = [prepare(each, answer) for each in letters]
                    warm = [prepare(each, answer) for each in common]
                    run(place, warm, sessions=16, most=1000 if not hold else 400)
                    before, theirs = meter.cpu(), other.cpu()
                    limits: dict[str, Any] = (
                        {"most": most, "seconds": 120} if most else {"seconds": options.seconds}
                    )
                    done = run(place, messages, sessions=sessions, **limits)
                    spent = meter.cpu() - before
                    rounds = f"{done.ms(0.5) / hold:.1f} ({chain})" if hold and sessions == 1 else ""
                    table.add_row(
                        *(
                            name,
                            str(sessions),
                            f"{done.rate:.0f}",
                            f"{done.ms(0.5):.1f}",
                            f"{done.ms(0.99):.1f}",
                        ),
                        *(f"{1000 * spent / len(done.latencies):.2f}", f"{spent / done.seconds:.2f}"),
                        f"{1000 * (other.cpu() - theirs) / len(done.latencies):.2f}",
                        rounds,
                    )
                    kinds = {line.get("dmarc") for line in service.log_lines()[-100:]}
                    if kinds - {"pass", "fail"}:
                        print(f"{name}: DMARC gave {kinds}")
            finally:
                server.kill()
                server.wait()
    Console(width=max(Console().width, 120)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
