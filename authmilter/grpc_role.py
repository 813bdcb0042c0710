"""A worker process of the gRPC role: one event loop, one server, the runtime it answers with.

It binds its own sockets (`grpc_places.py`), and says that it is ready once it listens. A reload swaps its runtime, which
the next call uses; where other settings of gRPC itself change, the supervisor starts a new generation, and this process
drains: health says NOT_SERVING, clients are told to go elsewhere (GOAWAY), calls that have begun end.

Private keys are loaded only if somebody may sign. Status and reload, for callers who may ask for them, go to the
supervisor over the channel.

How it fails: a place that cannot be listened on is told to the supervisor, and the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from authmilter import runtime
from authmilter.config.loaded import Loaded
from authmilter.errors import AuthMilterError
from authmilter.grpc_places import GRPC_CONNECTIONS, Place, dress, forget_path, publish, release, reserve
from authmilter.link import OLD_RESOLVER, Link, close_resolver
from authmilter.rpc.server import GrpcServer
from authmilter.rpc.settings import Permission, RpcSettings
from authmilter.startup import StartError, become, raise_file_limit
from authmilter.systemd import notify
from authmilter.worker import VERSION, Worker, run_loop

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["serve", "serve_alone"]


async def serve(loaded: Loaded, channel: socket.socket, places: tuple[Place, ...], digest: str) -> None:
    """Serve until the supervisor says otherwise.

    Args:
        loaded: the configuration.
        channel: the socket to the supervisor.
        places: what to listen on.
        digest: of the runtime that was checked.

    Raises:
        AuthMilterError: the configuration cannot be used, or a place not be listened on.
    """
    work, settings = _worker(loaded, digest, places)
    admin = _Supervisor()
    server = GrpcServer(lambda: work.runtime, settings, control=admin, note=work.note)
    await _listen(server, places, work.loaded.config)
    gc.freeze()
    work.gather_lines(asyncio.get_running_loop())
    link = Link(work, channel, lambda _ended: _GrpcDoor(server), patience=settings.drain)
    admin.link.set_result(link)
    await link.finished()
    work.close()


def _worker(
    loaded: Loaded, digest: str | None, places: tuple[Place, ...], processes: int | None = None
) -> tuple[Worker, RpcSettings]:
    """Return what judges, and the door's settings; limits are divided by the workers that share a port."""
    settings = runtime.grpc_settings(loaded)
    if processes is None:
        processes = settings.processes if any(place.bound for place in places) else 1
    settings = replace(settings, processes=processes)
    signs = any(Permission.SIGN in identity.permissions for identity in settings.identities)
    return Worker(loaded, digest, keys=signs), settings


async def _listen(server: GrpcServer, places: tuple[Place, ...], config: Config) -> None:
    await server.start([place.address(os.getpid()) for place in places])
    for place in places:
        dress(place, os.getpid(), config)


class _Supervisor:
    """What the admin calls ask, answered by the supervisor."""

    def __init__(self) -> None:
        self.link: asyncio.Future[Link] = asyncio.get_running_loop().create_future()

    async def status(self) -> dict[str, Any]:
        """Return what `authmilter status --json` prints, for all workers.

        Raises:
            AuthMilterError: the supervisor has gone.
        """
        return await self._ask("status")

    async def reload(self) -> dict[str, Any]:
        """Reload; returns the new `digest`, or the `error` where nothing has changed.

        Raises:
            AuthMilterError: the supervisor has gone.
        """
        return await self._ask("reload")

    async def _ask(self, command: str) -> dict[str, Any]:
        try:
            return await (await asyncio.shield(self.link)).ask(command)
        except ConnectionError as e:
            raise AuthMilterError(str(e)) from None


class _GrpcDoor:
    """The server, as the link to the supervisor sees it."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server

    @property
    def open_sessions(self) -> int:
        """How many calls are at work."""
        return self._server.open_calls

    def begin(self) -> None:
        """Do nothing: gRPC accepts since it was started."""

    def leave(self, empty: Sequence[str] | None) -> None:
        """Do nothing: the drain turns calls away."""

    async def finish(self, seconds: float, grace: float) -> tuple[int, int]:
        """Let calls end, which then are cut; returns how many were (none is open between messages)."""
        del grace  # a call has its deadline; what is to end after `seconds` ends
        calls = asyncio.ensure_future(self._server.drain(seconds))
        cut = 0
        try:
            async with asyncio.timeout(max(0.0, seconds - 0.1)):
                await asyncio.shield(calls)
        except TimeoutError:
            cut = self._server.open_calls
            await calls
        return 0, cut


def serve_alone(config_path: str | None) -> int:
    """Run one worker in the foreground, without a supervisor, on sockets of its own; returns the exit code.

    SIGTERM drains, and a second one ends at once; SIGHUP and SIGUSR1 reload (the policy and everything else that
    needs no new process).

    Args:
        config_path: as for `config.load.load`.

    Raises:
        AuthMilterError: the configuration cannot be used, or a place not be listened on.
    """
    from authmilter.config import load as config_load  # noqa: PLC0415 - loads pydantic

    config = config_load.load(config_path).config
    if not config.grpc.listen:
        raise StartError("`grpc.listen` names no place to listen on")
    raise_file_limit(GRPC_CONNECTIONS)
    become(config)
    places: list[Place] = []
    try:
        for text in config.grpc.listen:
            places += [reserve(text)]  # what was reserved is released where the next one cannot be
        run_loop(_serve_alone(config_path, tuple(places)))
    finally:
        for place in places:
            release(place)
            forget_path(place, os.getpid())
    return 0


class _Alone:
    """What the admin calls ask, answered by the process itself."""

    def __init__(self, work: Worker, reload: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._reload = reload

    async def status(self) -> dict[str, Any]:
        """Return what is known of this one worker."""
        built = self._work.runtime
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "generation": 1,
            "digest": built.digest,
            "policy": self._work.loaded.config.policy,
            "counters": self._work.journal.counters.snapshot(),
        }

    async def reload(self) -> dict[str, Any]:
        """Reload; returns the new `digest`.

        Raises:
            AuthMilterError: the configuration cannot be used, and nothing has changed.
        """
        await self._reload()
        return {"digest": self._work.runtime.digest}


async def _serve_alone(config_path: str | None, places: tuple[Place, ...]) -> None:
    from authmilter.config import load as config_load  # noqa: PLC0415 - loads pydantic

    loop = asyncio.get_running_loop()
    # The files are read by the user who will read them again.
    work, settings = _worker(config_load.load(config_path), None, places, processes=1)

    async def reload() -> None:
        try:
            old = await asyncio.to_thread(work.reload, config_load.load(config_path))
        except AuthMilterError as e:
            for line in str(e).splitlines():
                work.log.error("reload refused", complaint=line)  # noqa: TRY400 - a mistake of settings, no fault of ours
            raise
        work.log.info("reloaded", how="swap", digest=work.runtime.digest)
        if old is not None:
            loop.call_later(OLD_RESOLVER, close_resolver, old)

    server = GrpcServer(lambda: work.runtime, settings, control=_Alone(work, reload), note=work.note)
    await _listen(server, places, work.loaded.config)
    for place in places:
        publish(place, os.getpid())
    work.gather_lines(loop)
    told: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        loop.add_signal_handler(number, told.put_nowait, number)
    names = [place.name for place in places]
    work.log.info("started", version=VERSION, role="grpc", listen=names, policy=work.loaded.config.policy)
    notify("READY=1")
    while await told.get() not in {signal.SIGTERM, signal.SIGINT}:
        with contextlib.suppress(AuthMilterError):  # which is in the log
            await reload()
    notify("STOPPING=1")
    work.log.info("stopping", calls=server.open_calls, drain=settings.drain)
    ending = loop.create_task(server.drain(settings.drain))
    again = loop.create_task(told.get())
    await asyncio.wait((ending, again), return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not ending.done():
        await server.drain(0)
    ending.cancel()
    work.close()
    work.log.info("stopped")
