"""Signing beside OpenDKIM and dkimpy-milter: 2 KB, 10 KB, 100 KB and 1 MB, RSA-2048, Ed25519 and both.

The same messages, keys and load for each; the milters take turns row by row, so that a busy moment hits all alike. A
peer that is not installed, or cannot sign that way, has no rows. Each milter's first signed message is verified by our
verifier before its row counts. OpenDKIM signs with one algorithm for all keys, so it has no row for both.

    signrows.py [--seconds 2] [--rounds 3] [--sessions 16] [--workers 2] [--sizes 2,10,100,1000] [--kinds rsa,ed25519,both]

Needs Debian's opendkim and dkimpy-milter for the comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cryptography.hazmat.primitives import serialization
from rich.console import Console
from rich.table import Table

from tests.benchmarks.load import Meter, negotiated, prepare, run
from tests.benchmarks.machine import about
from tests.benchmarks.outbound import DOMAIN, key_file, outbound, signing_service
from tests.milter.client import OWN_RECEIVED, Client, deliver
from tests.support import dkim_keys

_KINDS = {"rsa": ("rsa",), "ed25519": ("ed25519",), "both": ("rsa", "ed25519")}


@dataclass(slots=True)
class Peer:
    """A milter that runs, and what each round gave."""

    name: str
    address: str
    pid: int
    rate: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@contextlib.contextmanager
def _daemon(name: str, command: list[str], folder: Path) -> Iterator[Peer | None]:
    """Run a daemon in the foreground; None if it does not come up."""
    address = f"unix:{folder}/{name}.sock"
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(200):
            if process.poll() is not None:
                break
            try:
                negotiated(address)
            except OSError:
                time.sleep(0.05)
                continue
            yield Peer(name, address, process.pid)
            return
        print(f"{name} does not run:", (folder / f"{name}.log").read_text()[-300:])
        yield None
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _opendkim(kind: str, folder: Path) -> list[str] | None:
    program = shutil.which("opendkim", path="/usr/sbin:/usr/bin")
    if program is None or kind == "both":
        return None
    (folder / "opendkim.conf").write_text(
        f"Syslog no\nMode s\nSocket local:{folder}/opendkim.sock\nUMask 000\nBackground no\nInternalHosts 127.0.0.1\n"
        f"Domain {DOMAIN}\nSelector {kind}\nKeyFile {folder}/{kind}.pem\nCanonicalization relaxed/relaxed\n"
        f"OversignHeaders From\nRequireSafeKeys no\nSignatureAlgorithm {kind}-sha256\n"
    )
    return [program, "-f", "-x", str(folder / "opendkim.conf")]


def _dkimpy(kind: str, folder: Path) -> list[str] | None:
    program = shutil.which("dkimpy-milter")
    if program is None:
        return None
    lines = [
        "Syslog no", "Mode s", f"Socket local:{folder}/dkimpy.sock", f"PidFile {folder}/dkimpy.pid", "UserID root",
        "UMask 000", "InternalHosts 127.0.0.1", f"Domain {DOMAIN}", "Canonicalization relaxed/relaxed",
    ]  # fmt: skip
    if kind != "ed25519":
        lines += ["Selector rsa", f"KeyFile {folder}/rsa-pkcs1.pem"]
        (folder / "rsa-pkcs1.pem").write_bytes(dkim_keys.rsa_key().pem)
    if kind != "rsa":
        raw = dkim_keys.ed25519_key().private.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        (folder / "ed25519.b64").write_bytes(base64.b64encode(raw) + b"\n")
        (folder / "ed25519.b64").chmod(0o600)
        lines += ["SelectorEd25519 ed25519", f"KeyFileEd25519 {folder}/ed25519.b64"]
    (folder / "dkimpy.conf").write_text("\n".join(lines) + "\n")
    return [program, str(folder / "dkimpy.conf")]


def _signs(peer: Peer, kind: str) -> str:
    """Send one message and return what is wrong with the signatures; empty if nothing is."""
    letter = outbound(2000)
    client = Client(
        hostname=b"localhost",
        address=b"127.0.0.1",
        helo=letter.helo.encode(),
        mail_from=(letter.mail_from.encode(),),
    )
    outcome = asyncio.run(deliver(peer.address, letter.raw, client))
    _, _, body = letter.raw.partition(b"\r\n\r\n")
    records = {"rsa": dkim_keys.rsa_key().record, "ed25519": dkim_keys.ed25519_key().record}
    zone: dict[str, object] = {f"{k}._domainkey.{DOMAIN}": {"TXT": [records[k]]} for k in records}
    block = b"".join(n + b":" + v + b"\r\n" for n, v in outcome.headers if (n, v) != OWN_RECEIVED)
    results = dkim_keys.judge(block + b"\r\n" + body, zone)
    good = sorted(r.selector for r in results if r.status == "pass")
    return "" if good == sorted(_KINDS[kind]) else f"{[(r.status, r.detail) for r in results]}"


def _row(kind: str, options: argparse.Namespace, table: Table) -> None:
    with tempfile.TemporaryDirectory(prefix="authmilter-sign-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for each in ("rsa", "ed25519"):
            key_file(folder, each)
        service = stack.enter_context(signing_service(_KINDS[kind], workers=options.workers))
        peers = [Peer("authmilter", f"unix:{service.socket}", service.process.pid)]
        for other, make in (("opendkim", _opendkim), ("dkimpy", _dkimpy)):
            command = make(kind, folder)
            if command is not None:
                peer = stack.enter_context(_daemon(other, command, folder))
                if peer is not None:
                    peers.append(peer)
        for peer in tuple(peers):
            wrong = _signs(peer, kind)
            if wrong:
                print(f"{peer.name}, {kind}: no good signature, no row: {wrong}")
                peers.remove(peer)
        for size in (int(1000 * float(s)) for s in options.sizes.split(",")):
            for peer in peers:
                peer.rate, peer.p99, peer.cpu = [], [], []
            letters = [outbound(size, n) for n in range(20 if size < 500_000 else 3)]
            for turn in range(options.rounds + 1):
                for peer in peers:
                    answer = negotiated(peer.address)
                    messages = [prepare(each, answer) for each in letters]
                    meter = Meter(peer.pid)
                    before = meter.cpu()
                    seconds = options.seconds if turn else 0.5  # the first is for warming up
                    done = run(peer.address, messages, sessions=options.sessions, seconds=seconds)
                    if turn:
                        peer.cpu.append(1000 * (meter.cpu() - before) / max(1, len(done.latencies)))
                        peer.rate.append(done.rate)
                        peer.p99.append(done.ms(0.99))
            ours = peers[0]
            for peer in peers:
                table.add_row(
                    *(
                        f"{size // 1000:,} KB",
                        kind,
                        peer.name,
                        f"{median(peer.rate):.0f}",
                        f"{median(peer.p99):.0f}",
                    ),
                    f"{median(peer.cpu):.2f}",
                    f"{median(ours.rate) / median(peer.rate):.2f}",
                    f"{median(ours.cpu) / median(peer.cpu):.2f}",
                )


def main(words: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sizes", default="2,10,100,1000")
    parser.add_argument("--kinds", default="rsa,ed25519,both")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args(words)
    heads = ("size", "keys", "milter", "msg/s", "p99 ms", "CPU ms", "our rate / its", "our CPU / its")
    table = Table(*heads, title=about()["text"], title_justify="left")
    for kind in options.kinds.split(","):
        _row(kind, options, table)
    if options.markdown:
        columns = [list(c.cells) for c in table.columns]
        print("| " + " | ".join(heads) + " |\n|--:|---|---|" + "--:|" * 5)
        for cells in zip(*columns, strict=True):
            print("| " + " | ".join(map(str, cells)) + " |")
        return 0
    Console(width=max(Console().width, 110)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
