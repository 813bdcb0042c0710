"""The gRPC workers of the service: no call fails for callers with the published service config, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import resource
import shutil
import signal
import socket
import stat
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from authmilter.rpc._pb import authmilter_pb2 as pb
from tests.service.grpc_calls import Callers, Connection
from tests.service.helpers import (
    MESSAGE,
    Traffic,
    a_service,
    answer,
    ask,
    eventually,
    policy,
    reply,
    run,
    run_cli,
    workers,
)
from tests.service.test_systemd import Manager
from tests.support.postfix import wait_until
from tests.support.service import Service
from tests.support.signing import signing_key

LOCAL = {"name": "local", "peers": ["unix", "loopback"], "permissions": ["verify", "admin"]}


def grpc_service(*listen: str, grpc_workers: int = 1, **more: Any) -> Service:
    """A service with one milter worker, and gRPC on a port of its own choice unless told otherwise."""
    section = {
        "listen": list(listen) or ["127.0.0.1:0"],
        "workers": grpc_workers,
        "identities": [LOCAL],
        "drain": "5s",
    }
    settings = {"grpc": section, **more.pop("settings", {})}
    return a_service(unix=True, workers=1, settings=settings, **more)


def change_grpc(service: Service, **changes: Any) -> None:
    """Write other gRPC settings down."""
    service.settings["grpc"] = {**service.settings["grpc"], **changes}
    service.write_config()


def target(service: Service) -> str:
    """Where its gRPC listens, as a client writes it."""
    return str(service.ask("status")["listen"][-1])


def grpc_pids(service: Service) -> list[int]:
    """Its gRPC workers that serve."""
    return [w["pid"] for w in workers(service) if w["role"] == "grpc" and w["ready"] and not w["draining"]]


def open_folder(service: Service) -> str:
    """A unix place in the service's own folder, as the settings write it."""
    return f"unix:{service.base}/grpc.sock"


@contextlib.asynccontextmanager
async def connected(where: str, *, obeys: bool = True) -> AsyncIterator[Connection]:
    """A client that hangs up in the end."""
    connection = Connection(where, obeys=obeys)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(params=["tcp", "unix"])
def served(request: pytest.FixtureRequest) -> Any:
    """A running service with two gRPC workers on TCP, or the one that a unix socket has."""
    if request.param == "tcp":
        with grpc_service(grpc_workers=2) as service:
            yield service
        return
    with grpc_service() as service:
        service.stop()
        change_grpc(service, listen=[open_folder(service)])
        service.start()
        service.log_file.write_bytes(b"")
        yield service


def test_both_roles_serve(served: Service) -> None:
    async def main() -> None:
        async with connected(target(served)) as client:
            assert await client.healthy()
            assert await client.healthy("authmilter.v1.VerifierService")
            assert await client.verify() == "old"
        assert await answer(served) == reply("old")

    run(main())
    status = served.ask("status")
    expected = 2 if served.settings["grpc"]["workers"] == 2 else 1
    assert [w["role"] for w in status["workers"]].count("grpc") == expected
    assert len({w["digest"] for w in status["workers"]}) == 1
    shown = run_cli(served, "status")
    assert " grpc " in shown.stdout
    assert " milter " in shown.stdout


def test_the_parent_never_has_grpc_and_has_one_thread(served: Service) -> None:
    parent = Path(f"/proc/{served.process.pid}")
    assert "cygrpc" not in (parent / "maps").read_text()
    assert len(list((parent / "task").iterdir())) == 1
    milter = [w["pid"] for w in workers(served) if w["role"] == "milter"]
    assert all("cygrpc" not in Path(f"/proc/{pid}/maps").read_text() for pid in milter)
    assert all("cygrpc" in Path(f"/proc/{pid}/maps").read_text() for pid in grpc_pids(served))


def test_status_and_reload_reach_the_supervisor(served: Service) -> None:
    async def main() -> None:
        async with connected(target(served)) as client:
            await client.verify()
            assert await answer(served) == reply("old")

            # one message of each role
            await eventually(lambda: served.ask("status")["counters"].get("messages") == 2, "the counts")
            status = await client.call("AdminService", "GetStatus", pb.GetStatusRequest())
            assert status.counters["messages"] == 2
            asked = await ask(served, "status")
            assert status.digest == asked["digest"]
            assert status.generation == asked["generation"]
            assert status.version == asked["version"]
            served.policy = policy("new")
            served.write_config()
            told = await client.call("AdminService", "Reload", pb.ReloadRequest())
            assert told.digest != asked["digest"]
            assert await client.verify() == "new"
            assert await answer(served) == reply("new")
            # what is wrong is told, and changes nothing
            served.policy = policy("new").replace("when:", "whenever:")
            served.write_config()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.call("AdminService", "Reload", pb.ReloadRequest())
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "policy.yaml:4" in (refused.value.details() or "")
            assert await client.verify() == "new"

    run(main())


def test_a_swap_is_seen_by_the_next_call_and_changes_no_process(served: Service) -> None:
    async def main() -> None:
        pids = grpc_pids(served)
        async with Callers(target(served), clients=4, raw_clients=2) as callers:
            for number in range(4):
                word = "new" if number % 2 == 0 else "old"
                served.policy = policy(word)
                served.write_config()
                assert (await ask(served, "reload"))["how"] == "swap"
                async with connected(target(served)) as client:
                    assert await client.verify() == word
                await callers.more(20)
        assert not callers.failed
        assert not callers.raw, "a swap disturbs nobody"
        assert set(callers.answers) == {"old", "new"}
        assert grpc_pids(served) == pids

    run(main())


def test_new_generations_under_load_fail_no_call(
    served: Service, record_property: Callable[[str, object], None]
) -> None:
    async def main() -> None:
        where = target(served)
        async with Callers(where, clients=8, raw_clients=4) as callers, Traffic(served, clients=4) as mail:
            before = set(grpc_pids(served))
            for number in range(3):
                change_grpc(served, max_calls=500 + number)
                assert (await ask(served, "reload"))["how"] == "generation"
                await callers.more(60)
                assert not before & set(grpc_pids(served))
        assert not callers.failed
        assert not mail.refused
        assert not mail.broken
        assert target(served) == where, "also where the port was the system's choice"
        record_property("raw_failures", dict(callers.raw))
        record_property("raw_answers", callers.raw_answers)
        print(
            f"3 generations: {callers.answers.total()} answers, none failed, longest {callers.longest:.2f} s; "
            f"without the service config {sum(callers.raw.values())} of {callers.raw_answers} failed"
        )
        await eventually(lambda: all(not w["draining"] for w in workers(served)), "the old ones to end")

    run(main())
    assert served.ask("status")["restarts"] == 0
    assert not served.log_lines("bug")


def _replaced(service: Service, pids: list[int]) -> bool:
    """True once there is another worker for the first of `pids`."""
    now = grpc_pids(service)
    return pids[0] not in now and len(now) == len(pids)


def test_a_worker_killed_under_load_fails_no_call(
    served: Service, record_property: Callable[[str, object], None]
) -> None:
    async def main() -> None:
        async with Callers(target(served), clients=8, raw_clients=4) as callers:
            for number in range(3):
                pids = await asyncio.to_thread(grpc_pids, served)
                os.kill(pids[0], signal.SIGKILL)
                await eventually(partial(_replaced, served, pids), "another one")
                assert (await ask(served, "status"))["restarts"] == number + 1
                await callers.more(40)
        assert not callers.failed
        record_property("raw_failures", dict(callers.raw))
        print(
            f"3 kills: {callers.answers.total()} answers, none failed, longest {callers.longest:.2f} s; "
            f"without the service config {sum(callers.raw.values())} of {callers.raw_answers} failed"
        )

    run(main())
    died = served.log_lines("worker died")
    assert [(line["role"], line["why"]) for line in died] == [("grpc", "signal 9")] * 3
    assert not served.log_lines("bug")


def test_stop_under_load_ends_every_call_that_has_begun(served: Service) -> None:
    async def main() -> None:
        async with Callers(target(served), clients=8) as callers:
            async with connected(target(served)) as watcher:
                begun = asyncio.Event()
                watching = asyncio.create_task(watcher.watch(begun))
                await begun.wait()
                await callers.more(40)
                served.process.send_signal(signal.SIGTERM)
                said = await watching
            # What is begun now has nobody to go to: the callers end with what the service config lets them wait for.
            assert said == [1, 2], "SERVING, then NOT_SERVING"
            assert await asyncio.to_thread(served.process.wait, 15) == 0
            for task in callers._tasks:
                task.cancel()
            await asyncio.gather(*callers._tasks, return_exceptions=True)
            callers._tasks.clear()
        assert set(callers.answers) == {"old"}
        assert not [text for text in callers.failed if not text.startswith("UNAVAILABLE")]

    run(main())
    assert not list(served.base.glob("*.sock"))
    assert not [path for path in served.base.iterdir() if path.is_socket() or path.is_symlink()]
    assert not served.log_lines("bug")
    assert {line["role"] for line in served.log_lines("worker ended")} == {"milter", "grpc"}


def test_a_call_that_has_begun_is_answered_after_sigterm() -> None:
    with grpc_service() as service:

        async def main() -> None:
            async with connected(target(service), obeys=False) as client:
                assert await client.verify() == "old"
                upload = client.upload()
                await upload.begin()
                await eventually(lambda: service.ask("status")["sessions"] == 1, "the call")
                service.process.send_signal(signal.SIGTERM)
                await eventually(lambda: bool(service.log_lines("stopping")), "the order to stop")
                assert await upload.end() == "old"

        run(main())
        assert service.process.wait(15) == 0


def test_a_bad_configuration_leaves_everything_as_it_was(served: Service) -> None:
    async def main() -> None:
        pids = grpc_pids(served)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            listen = served.settings["grpc"]["listen"]
            async with Callers(target(served), clients=4, raw_clients=4) as callers:
                for bad, why in (
                    ({"listen": ["nonsense"]}, "listen"),
                    ({"listen": [*listen, f"127.0.0.1:{port}"]}, "Address already in use"),
                    ({"listen": [*listen, "unix:/nonexistent/grpc.sock"]}, "No such file or directory"),
                    ({"listen": listen, "certificate": "gone.pem", "key": "gone.key"}, "certificate"),
                ):
                    change_grpc(served, **{"certificate": "", "key": "", **bad})
                    told = await ask(served, "reload")
                    assert why in str(told.get("error")), told
                    await callers.more(10)
            assert not callers.failed
            assert not callers.raw
        assert grpc_pids(served) == pids
        change_grpc(served, listen=listen, certificate="", key="")
        assert "error" not in await ask(served, "reload")

    run(main())


def test_a_taken_port_or_path_ends_the_start() -> None:
    with socket.socket() as taken, grpc_service() as service:
        service.stop()
        # even one whose owner would share it
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        change_grpc(service, listen=[f"127.0.0.1:{taken.getsockname()[1]}"])
        service.start(wait=False)
        assert service.process.wait(15) == 71
        assert "Address already in use" in service.log_text()
        (service.base / "grpc.sock").write_text("somebody's file")
        change_grpc(service, listen=[open_folder(service)])
        service.start(wait=False)
        assert service.process.wait(15) == 71
        assert "is not a socket" in service.log_text()
        assert (service.base / "grpc.sock").read_text() == "somebody's file"


def test_a_unix_socket_has_its_mode_and_is_replaced_at_once() -> None:
    with grpc_service() as service:
        where = open_folder(service)
        path = Path(where.removeprefix("unix:"))
        change_grpc(service, listen=[where], socket_mode="0600")
        assert service.ask("reload").get("how") == "generation"
        first = path.readlink()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        change_grpc(service, socket_mode="0666")
        assert service.ask("reload").get("how") == "generation"
        assert path.readlink() != first
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        (pid,) = grpc_pids(service)
        # left behind by a supervisor that was killed: the next one takes the path
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 15, "the worker to end alone")
        service.start()
        assert run(_verified(target(service))) == "old"
        change_grpc(service, listen=["127.0.0.1:0"])
        assert service.ask("reload").get("how") == "generation"
        assert not path.is_symlink()


async def _verified(where: str, *, obeys: bool = True) -> str:
    async with connected(where, obeys=obeys) as client:
        return await client.verify()


def test_the_manager_hears_that_it_is_ready_when_both_roles_are() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        manager = Manager(Path(folder))
        with manager.sock, grpc_service(env={"NOTIFY_SOCKET": str(manager.path)}) as service:
            assert manager.next()["READY"] == "1"
            service.stop()
            assert manager.next()["STOPPING"] == "1"
            service.start(wait=False)
            assert manager.next()["READY"] == "1"
            assert {w["role"] for w in workers(service)} == {"milter", "grpc"}
            assert all(w["ready"] for w in workers(service))
            assert run(_verified(target(service), obeys=False)) == "old"


def test_the_role_alone_in_the_foreground() -> None:
    with grpc_service() as service:
        service.stop()
        change_grpc(service, listen=[open_folder(service)])
        service.options = ("--only", "grpc")
        service.start(wait=False)
        wait_until((service.base / "grpc.sock").exists, 15, "the socket")

        async def main() -> None:
            async with connected(open_folder(service)) as client:
                assert await client.verify() == "old"
                service.policy = policy("new")
                service.write_config()
                await client.call("AdminService", "Reload", pb.ReloadRequest())
                assert await client.verify() == "new"
                status = await client.call("AdminService", "GetStatus", pb.GetStatusRequest())
                assert status.counters["messages"] == 2
                service.policy = policy("old")
                service.write_config()
                service.process.send_signal(signal.SIGHUP)
                await eventually(lambda: bool(service.log_lines("reloaded")[1:]), "the reload")
                assert await client.verify() == "old"

        run(main())
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(15) == 0
        assert not (service.base / "grpc.sock").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_workers_are_the_service_user() -> None:
    becomes = "nobody"
    service = Service(
        zone={},
        unix=True,
        policy=policy("old"),
        workers=1,
        becomes=becomes,
        settings={"user": becomes, "grpc": {"listen": ["127.0.0.1:0"], "workers": 2, "identities": [LOCAL]}},
    )
    with service:
        uid = pwd.getpwnam(becomes).pw_uid
        for worker in workers(service):
            assert Path(f"/proc/{worker['pid']}").stat().st_uid == uid
        assert run(_verified(target(service))) == "old"


def test_connections_that_say_nothing_do_no_harm(record_property: Callable[[str, object], None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 2000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 1000), hard))
    idle: list[socket.socket] = []
    try:
        with grpc_service() as service:
            host, _, port = target(service).rpartition(":")
            for _ in range(count):
                sock = socket.create_connection((host, int(port)))
                # HTTP/2's preface and empty settings: a client that is there and asks nothing
                sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">IBI", 4, 0, 0)[1:] + b"\0")
                idle.append(sock)
            for sock in idle:
                sock.settimeout(20)
                assert sock.recv(9), "the server's settings"

            async def main() -> None:
                async with Callers(target(service), clients=4, raw_clients=4) as callers:
                    await callers.more(200)
                assert not callers.failed
                assert not callers.raw
                print(f"{count} idle connections, longest call {callers.longest:.3f} s")

            run(main())
            (pid,) = grpc_pids(service)
            memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
            record_property("idle_connections", count)
            record_property("resident_octets", memory)
            print(f"{memory / 1e6:.0f} MB resident with {count} idle connections")
            assert memory < 2e9
            # and none of them keeps the service from stopping
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(15) == 0
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _sign(where: str) -> Any:
    request = pb.SignRequest(
        message=MESSAGE,
        session=pb.Session(client_ip="192.0.2.1", authenticated="alice"),
        envelope=pb.Envelope(mail_from="alice@example.org"),
    )
    async with connected(where) as client:
        return await client.call("SignerService", "Sign", request)


def test_keys_are_loaded_only_where_somebody_may_sign() -> None:
    with grpc_service() as service:
        key = service.base / "key.pem"

        def put_key() -> None:
            key.write_bytes(signing_key().pem())
            key.chmod(0o600)
            shutil.chown(key, service.user or os.geteuid())

        put_key()
        service.settings["signing"] = {
            "domains": [{"domain": "example.org", "selector": "one", "key": "key.pem"}],
            "senders": [{"users": ["alice"], "authors": ["example.org"]}],
        }
        service.write_config()
        assert "error" not in service.ask("reload")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            run(_sign(target(service)))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        # Without its file, only a worker that has no use for the key can be started.
        key.unlink()
        (pid,) = grpc_pids(service)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(set(grpc_pids(service)) - {pid}) == 1, 15, "another worker")
        assert run(_verified(target(service))) == "old"
        put_key()
        change_grpc(service, identities=[{**LOCAL, "permissions": ["verify", "sign"]}])
        assert "error" not in service.ask("reload")
        signed = run(_sign(target(service)))
        assert [field.name for field in signed.fields] == ["DKIM-Signature"]
        assert "d=example.org; s=one" in " ".join(signed.fields[0].value.split())


def test_a_policy_that_callers_name_is_reloaded_and_has_a_part_in_the_digest() -> None:
    with grpc_service() as service:
        named = service.base / "named.yaml"
        named.write_text(policy("first"))
        change_grpc(service, policies=[str(named)])

        async def main() -> None:
            assert "error" not in await ask(service, "reload")
            pids, digest = grpc_pids(service), service.ask("status")["digest"]
            async with connected(target(service)) as client:
                for number in range(4):
                    assert await client.verify(policy="named") == ("second" if number % 2 else "first")
                    named.write_text(policy("first" if number % 2 else "second"))
                    told = await ask(service, "reload")
                    assert told["how"] == "swap"
                    assert told["digest"] != digest
                    digest = told["digest"]
                named.write_text("version: 1\nrules: nonsense\n")
                told = await ask(service, "reload")
                assert f"{named}:2:8" in str(told["error"])
                assert await client.verify(policy="named") == "first"
            assert grpc_pids(service) == pids

        run(main())


def test_a_named_policy_that_is_wrong_ends_the_start_with_its_place() -> None:
    with grpc_service() as service:
        service.stop()
        named = service.base / "named.yaml"
        named.write_text("version: 1\nrules: nonsense\n")
        change_grpc(service, policies=[str(named)])
        service.start(wait=False)
        assert service.process.wait(15) == 78
        assert f"{named}:2:8" in service.log_text()
