"""What a large message costs, measured in a process of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from authmilter.rpc._pb import authmilter_pb2 as pb
from tests.rpc.local import Client, run

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
PIECE = b"".join(f"{hashlib.sha256(bytes([n])).hexdigest()}\r\n".encode() for n in range(248)) * 4


@contextmanager
def _child(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "rpc" / "upload_process.py"), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


def _peak(process: subprocess.Popen[str]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("peak\n")
    process.stdin.flush()
    return int(process.stdout.readline()) * 1024


def test_an_upload_of_a_hundred_megabytes_does_not_cost_a_hundred_megabytes(tmp_path: Path) -> None:
    header = (
        b"From: a@example.com\r\nDKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s; "
        b"h=from; bh=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; b=AAAA\r\n\r\n"
    )
    count = 100 * MIB // len(PIECE)

    async def parts(pieces: int) -> AsyncIterator[Any]:
        yield pb.VerifyUploadRequest(
            start=pb.VerifyUploadStart(id="big", options=pb.VerifyOptions(explain=True))
        )
        yield pb.VerifyUploadRequest(chunk=header)
        for _ in range(pieces):
            yield pb.VerifyUploadRequest(chunk=PIECE)

    async def send(pieces: int) -> Any:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            call = Client(channel).open_with("VerifyUpload", parts(pieces), timeout=50.0)
            return await call

    with _child(tmp_path / "s") as process:
        run(lambda: send(20))
        before = _peak(process)
        answer = run(lambda: send(count))
        grown = _peak(process) - before
    assert answer.mail.body.size == count * len(PIECE) >= 99 * MIB
    assert [r.problem for r in answer.verdict.evidence.dkim.results] == [pb.DKIM_PROBLEM_NO_KEY]
    assert grown < 16 * MIB, f"{grown / MIB:.1f} MiB"
