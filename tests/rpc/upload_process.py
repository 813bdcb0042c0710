"""A child process: a gRPC server that says how much memory it has used at most, in KiB, when it is told to stop.

python tests/rpc/upload_process.py SOCKET
"""

from __future__ import annotations

import asyncio
import resource
import sys

from authmilter.rpc.server import GrpcServer
from authmilter.rpc.settings import RpcSettings
from tests.rpc.local import ANYBODY, Control
from tests.support.road import Notes, a_runtime


async def main(path: str) -> None:
    built = a_runtime("authserv_id: mx.recv.example\n", {}, Notes())
    server = GrpcServer(lambda: built, RpcSettings(identities=(ANYBODY,)), control=Control())
    await server.start([f"unix:{path}"])
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "peak":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
    await server.drain(1.0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
