"""Our client against our server: every call, both forms, and what becomes of errors."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from click.testing import CliRunner

from authmilter.cli.main import cli
from authmilter.client import (
    SERVICE_CONFIG,
    About,
    AsyncClient,
    CallError,
    Client,
    DeadlineExceededError,
    ExhaustedError,
    InvalidRequestError,
    PermissionDeniedError,
    PreconditionError,
    ServerFaultError,
    StreamAnswer,
    Tls,
    UnauthenticatedError,
    UnavailableError,
    messages,
    to_dict,
    verify_request,
    word,
)
from authmilter.errors import AuthMilterError
from authmilter.remote.errors import failure_of
from authmilter.rpc.methods import SERVICES
from authmilter.rpc.settings import Identity, Peers, RpcSettings, token_hash
from authmilter.verdict_json import verdict_to_dict
from tests.rpc.local import ANYBODY, Local, local, run
from tests.rpc.test_tls import DESK, OTHER, OURS, TOKEN, _install
from tests.support.road import a_runtime, travel
from tests.support.scenarios import SCENARIOS, a_message, zone

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
CONFIG = "authserv_id: mx.recv.example\npolicy: enforce\n"
MESSAGE = a_message("alice@good.example")
NAMED = About(id="a", client_ip="192.0.2.10", helo="mail.good.example", mail_from="alice@good.example")
EXPLAINED = About(explain=True, client_ip="192.0.2.10")


def both(
    folder: Path,
    ask: Callable[[Client], T],
    ask_async: Callable[[AsyncClient], Coroutine[Any, Any, T]],
    settings: RpcSettings | None = None,
    **client: Any,
) -> tuple[T, T]:
    """Ask one server with both clients."""

    async def work() -> tuple[T, T]:
        async with local(folder, settings, config=CONFIG) as server:

            def blocking() -> T:
                with Client(server.target, **client) as one:
                    return ask(one)

            first = await asyncio.to_thread(blocking)
            async with AsyncClient(server.target, **client) as other:
                return first, await ask_async(other)

    return run(work)


def served(folder: Path, work: Callable[[Local], Coroutine[Any, Any, T]], **more: Any) -> T:
    """Run `work` beside a server."""

    async def main() -> T:
        async with local(folder, config=CONFIG, **more) as server:
            return await work(server)

    return run(main)


def test_verify_gives_the_verdict_of_the_library(tmp_path: Path) -> None:
    found = both(
        tmp_path,
        lambda c: c.verify(MESSAGE, **NAMED),
        lambda c: c.verify(MESSAGE, **NAMED),
    )
    _mail, verdict = travel(
        MESSAGE,
        a_runtime(CONFIG, zone()),
        mail_from="alice@good.example",
        helo="mail.good.example",
        client_ip="192.0.2.10",
    )
    ours = verdict_to_dict(verdict)
    for answer in found:
        assert answer.id == "a"
        theirs = to_dict(answer.verdict)
        assert list(theirs) == list(ours), "the same keys in the same order"
        assert json.loads(json.dumps(theirs["evidence"])) == json.loads(json.dumps(ours["evidence"]))
        assert word(answer.verdict.decision, "disposition") == verdict.decision.disposition
        assert word(answer.verdict.evidence.spf, "status") == "pass"
    with pytest.raises(KeyError):
        word(found[0].verdict.decision, "rule")


def test_everything_about_a_message_gets_there(tmp_path: Path) -> None:
    about = About(
        id="x",
        client_ip="192.0.2.10",
        client_name="name.example",
        helo="h.example",
        local_name="mx.local.example",
        login="alice",
        daemon_name="ORIGINATING",
        tls=messages.TlsInfo(version="TLSv1.3"),
        mail_from="<alice@good.example>",
        rcpt_to=["bob@recv.example"],
        mail_options=["SMTPUTF8"],
        policy="strict",
        now=datetime(2026, 11, 1, tzinfo=UTC),
        origin="submission",
        record=False,
        explain=True,
        zone={"good.example": {"TXT": ["v=spf1 -all"]}},
    )
    identity = replace(ANYBODY, origins=frozenset({"submission"}))  # type: ignore[arg-type]  # its words are its values

    async def work(server: Local) -> Any:
        async with AsyncClient(server.target) as client:
            answer = await client.verify(MESSAGE, **about)
        assert server.notes.records == []
        return answer

    answer = served(tmp_path, work, settings=RpcSettings(identities=(identity,)))
    mail = to_dict(answer.mail)
    session: Any = mail["session"]
    assert session["client_ip"] == "192.0.2.10"
    assert session["client_name"] == "name.example"
    assert session["helo"] == "h.example"
    assert session["local_name"] == "mx.local.example"
    assert session["authenticated"] == "alice"
    assert session["daemon_name"] == "ORIGINATING"
    assert session["tls"]["version"] == "TLSv1.3"
    envelope: Any = mail["envelope"]
    assert envelope["rcpt_to"] == ["bob@recv.example"]
    assert envelope["mail_options"] == ["SMTPUTF8"]
    assert str(mail["received_at"]).startswith("2026-11-01T00:00:00")
    assert answer.verdict.decision.policy == "strict"
    assert word(answer.verdict, "origin") == "submission"


def test_what_no_request_can_hold_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no origin"):
        verify_request(b"", origin="nowhere")
    with pytest.raises(ValueError, match="plain data"):
        verify_request(b"", zone={"a": object()})


@pytest.mark.parametrize("window", [1, 5, 64])
def test_a_stream_answers_each_message(window: int, tmp_path: Path) -> None:
    def requests() -> Iterator[messages.VerifyRequest]:
        for number in range(40):
            ip = "nonsense" if number % 10 == 3 else "192.0.2.10"
            yield verify_request(MESSAGE, id=f"m{number}", client_ip=ip)

    def check(answers: list[StreamAnswer]) -> int:
        assert sorted(a.id for a in answers) == sorted(f"m{n}" for n in range(40))
        for answer in answers:
            if int(answer.id[1:]) % 10 == 3:
                with pytest.raises(InvalidRequestError) as refused:
                    answer.verdict()
                assert [v.field for v in refused.value.violations] == ["session.client_ip"]
            else:
                assert answer.response is not None
                assert answer.response.id == answer.id
                assert answer.verdict().decision.rule
        return len(answers)

    async def collected(client: AsyncClient) -> int:
        return check([a async for a in client.verify_stream(requests(), window=window)])

    assert both(tmp_path, lambda c: check(list(c.verify_stream(requests(), window=window))), collected) == (
        40,
        40,
    )


def test_a_stream_reads_its_source_no_faster_than_its_answers_are_taken(tmp_path: Path) -> None:
    async def work(server: Local) -> None:
        given: list[int] = []

        def requests() -> Iterator[messages.VerifyRequest]:
            for number in itertools.count():
                given.append(number)
                yield verify_request(MESSAGE)

        def blocking() -> None:
            with (
                Client(server.target) as client,
                contextlib.closing(client.verify_stream(requests(), window=4)) as answers,
            ):
                for taken in range(1, 31):
                    next(answers)
                    assert len(given) <= taken + 4
                assert len(given) >= 30

        await asyncio.to_thread(blocking)
        given.clear()
        async with AsyncClient(server.target) as client:
            taken = 0
            async with contextlib.aclosing(client.verify_stream(requests(), window=4)) as answers:
                async for _answer in answers:
                    taken += 1
                    assert len(given) <= taken + 4
                    if taken == 30:
                        break
            assert len(given) >= 30

    served(tmp_path, work)


def test_what_a_streams_source_raises_is_raised_after_the_answers(tmp_path: Path) -> None:
    def requests() -> Iterator[messages.VerifyRequest]:
        yield verify_request(MESSAGE)
        yield verify_request(MESSAGE)
        raise OSError("the folder has gone")

    def twice() -> Iterator[messages.VerifyRequest]:
        for _ in range(100):  # some of them are read before the one before is answered
            yield verify_request(MESSAGE * 1000, id="one")

    def blocking(client: Client) -> int:
        answers, first = client.verify_stream(requests()), []
        first += [next(answers), next(answers)]
        with pytest.raises(OSError, match="folder"):
            next(answers)
        with pytest.raises(ValueError, match="the id `one`"):
            list(client.verify_stream(twice()))
        return len(first)

    async def waiting(client: AsyncClient) -> int:
        answers, first = client.verify_stream(requests()), []
        first += [await anext(answers), await anext(answers)]
        with pytest.raises(OSError, match="folder"):
            await anext(answers)
        with pytest.raises(ValueError, match="the id `one`"):
            async for _ in client.verify_stream(twice()):
                pass
        return len(first)

    assert both(tmp_path, blocking, waiting) == (2, 2)


def test_a_file_an_iterator_and_octets_can_be_uploaded(tmp_path: Path) -> None:
    large = MESSAGE + b"A line of the body.\r\n" * 20_000

    async def asynchronous() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 100_000):
            yield large[at : at + 100_000]

    def blocking(client: Client) -> set[int]:
        sources: tuple[Any, ...] = (io.BytesIO(large), [large[:7], large[7:]], large)
        return {client.verify_upload(s, **EXPLAINED).mail.body.size for s in sources}

    async def waiting(client: AsyncClient) -> set[int]:
        sources: tuple[Any, ...] = (io.BytesIO(large), [large[:7], large[7:]], large, asynchronous())
        return {(await client.verify_upload(s, **EXPLAINED)).mail.body.size for s in sources}

    size = len(large.partition(b"\r\n\r\n")[2])
    assert both(tmp_path, blocking, waiting) == ({size}, {size})


def test_an_upload_whose_source_raises_is_not_judged(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield MESSAGE
        raise OSError("the disc has gone")

    async def work(server: Local) -> None:
        def blocking() -> None:
            with Client(server.target) as client, pytest.raises(OSError, match="disc"):
                client.verify_upload(broken())

        await asyncio.to_thread(blocking)
        async with AsyncClient(server.target) as client:
            with pytest.raises(OSError, match="disc"):
                await client.verify_upload(broken())
        await server.server.drain(5)
        assert server.notes.records == []
        assert server.notes.bugs == []

    served(tmp_path, work)


def test_the_single_questions(tmp_path: Path) -> None:
    def blocking(client: Client) -> list[str | None]:
        return [
            word(client.check_spf("192.0.2.10", mail_from="a@good.example").spf, "status"),
            client.check_dkim_key("good.example", "s1").kind,
            word(client.discover_dmarc("good.example").dmarc, "policy"),
            word(
                client.check_spf("192.0.2.1", mail_from="a@x.example", zone={"x.example": {}}).spf, "status"
            ),
            str(client.health()),
            str(client.health("authmilter.v1.VerifierService")),
        ]

    async def waiting(client: AsyncClient) -> list[str | None]:
        empty: dict[str, Any] = {"x.example": {"TXT": []}}
        return [
            word((await client.check_spf("192.0.2.10", mail_from="a@good.example")).spf, "status"),
            (await client.check_dkim_key("good.example", "s1")).kind,
            word((await client.discover_dmarc("good.example")).dmarc, "policy"),
            word((await client.check_spf("192.0.2.1", mail_from="a@x.example", zone=empty)).spf, "status"),
            str(await client.health()),
            str(await client.health("authmilter.v1.VerifierService")),
        ]

    expected = ["pass", "rsa", "reject", "none", "True", "True"]
    assert both(tmp_path, blocking, waiting) == (expected, expected)


def test_what_the_server_is_not_set_up_for(tmp_path: Path) -> None:
    def blocking(client: Client) -> int:
        asked: tuple[Callable[[], object], ...] = (
            lambda: client.check_bimi("good.example"),
            lambda: client.sign(MESSAGE, login="alice"),
            lambda: client.sign_upload(io.BytesIO(MESSAGE), login="alice"),
        )
        for ask in asked:
            with pytest.raises(PreconditionError):
                ask()
        return len(asked)

    async def waiting(client: AsyncClient) -> int:
        asked = (
            client.check_bimi("good.example"),
            client.sign(MESSAGE, login="alice"),
            client.sign_upload(io.BytesIO(MESSAGE), login="alice"),
        )
        for ask in asked:
            with pytest.raises(PreconditionError):
                await ask
        return len(asked)

    assert both(tmp_path, blocking, waiting) == (3, 3)


def test_status_and_reload(tmp_path: Path) -> None:
    async def work(server: Local) -> None:
        server.control.answer = {"version": "1", "generation": 3, "digest": "d", "counters": {"messages": 7}}
        async with AsyncClient(server.target) as client:
            assert (await client.status()).counters["messages"] == 7
            assert (await client.reload()).digest == "d"
            server.control.refusal = AuthMilterError("policy.yaml:4: no such fact")
            with pytest.raises(PreconditionError):
                await client.reload()
        server.control.refusal = None

        def blocking() -> tuple[int, str]:
            with Client(server.target) as client:
                return client.status().generation, client.reload().digest

        assert await asyncio.to_thread(blocking) == (3, "d")

    served(tmp_path, work)


def test_errors_say_what_and_where(tmp_path: Path) -> None:
    token = "a-token-of-somebody"
    known = Identity(name="gate", tokens=frozenset({token_hash(token.encode())}), rate=0.001, burst=1)
    settings = RpcSettings(identities=(known,), max_message=1 << 20)

    async def work(server: Local) -> None:
        async with AsyncClient(server.target, token=token) as client:
            with pytest.raises(InvalidRequestError) as invalid:
                await client.verify(MESSAGE, client_ip="nonsense", helo="x" * 2000)
            assert [v.field for v in invalid.value.violations] == ["session.client_ip", "session.helo"]
            assert isinstance(invalid.value, CallError | AuthMilterError)
            assert invalid.value.code == "INVALID_ARGUMENT"
            with pytest.raises(ExhaustedError) as often:
                await client.verify(MESSAGE)
            assert often.value.retry_after is not None
            assert often.value.retry_after > 1
            with pytest.raises(PermissionDeniedError):
                await client.sign(MESSAGE)
            with pytest.raises(ExhaustedError):
                await client.verify(b"x" * (4 << 20))
        for wrong in (None, "another-token"):
            async with AsyncClient(server.target, token=wrong) as client:
                with pytest.raises(UnauthenticatedError):
                    await client.verify(MESSAGE)

    served(tmp_path, work, settings=settings)


def test_nobody_there_is_unavailable_or_waited_for(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/nobody.sock"
    with Client(target, wait=False) as client:
        with pytest.raises(UnavailableError):
            client.verify(MESSAGE)
        with pytest.raises(UnavailableError):
            list(client.verify_stream([verify_request(MESSAGE)]))
        with pytest.raises(UnavailableError):
            client.verify_upload(io.BytesIO(MESSAGE))
        with pytest.raises(UnavailableError):
            client.health()
    with Client(target, timeout=0.2) as client, pytest.raises(DeadlineExceededError):
        client.verify(MESSAGE)

    async def waiting() -> None:
        async with AsyncClient(target, wait=False) as client:
            with pytest.raises(UnavailableError):
                await client.verify(MESSAGE)
            with pytest.raises(UnavailableError):
                async for _ in client.verify_stream([verify_request(MESSAGE)]):
                    pass
            with pytest.raises(UnavailableError):
                await client.verify_upload(io.BytesIO(MESSAGE))
        async with AsyncClient(target, timeout=0.2) as client:
            with pytest.raises(DeadlineExceededError):
                await client.verify(MESSAGE)

    run(waiting)


def test_a_stream_goes_on_with_the_next_server(tmp_path: Path) -> None:
    """The server drains in the middle, twice; every message has one answer."""

    async def work() -> tuple[list[str], list[str]]:
        target = f"unix:{tmp_path}/g.sock"

        async def requests(client: str) -> AsyncIterator[messages.VerifyRequest]:
            for number in range(60):
                if number in {20, 40}:
                    await asyncio.sleep(0.05)
                yield verify_request(MESSAGE, id=f"{client}{number}")

        found: tuple[list[str], list[str]] = [], []

        def blocking(ready: threading.Event) -> None:
            def plain() -> Iterator[messages.VerifyRequest]:
                for number in range(60):
                    yield verify_request(MESSAGE, id=f"b{number}")

            with Client(target) as client:
                for answer in client.verify_stream(plain(), window=3):
                    found[0].append(answer.id)
                    if len(found[0]) == 10:
                        ready.set()

        async def waiting() -> None:
            async with AsyncClient(target) as client:
                async for answer in client.verify_stream(requests("a"), window=3):
                    found[1].append(answer.id)

        ready = threading.Event()
        async with local(tmp_path, config=CONFIG):
            tasks = [asyncio.create_task(asyncio.to_thread(blocking, ready)), asyncio.create_task(waiting())]
            await asyncio.to_thread(ready.wait, 20)
        async with local(tmp_path, config=CONFIG):
            await asyncio.sleep(0.1)
        async with local(tmp_path, config=CONFIG):
            await asyncio.gather(*tasks)
        return found

    blocking, waiting = run(work)
    assert sorted(blocking) == sorted(f"b{n}" for n in range(60))
    assert sorted(waiting) == sorted(f"a{n}" for n in range(60))


@pytest.mark.parametrize(
    ("target", "token", "more", "allowed"),
    [
        ("mx.example:50051", "t", {}, False),
        ("192.0.2.1:50051", "t", {}, False),
        ("dns:///mx.example:50051", "t", {}, False),
        ("192.0.2.1:50051", "t", {"plaintext": True}, True),
        ("192.0.2.1:50051", "t", {"tls": Tls()}, True),
        ("192.0.2.1:50051", None, {}, True),
        ("127.0.0.1:50051", "t", {}, True),
        ("[::1]:50051", "t", {}, True),
        ("localhost:50051", "t", {}, True),
        ("unix:/x", "t", {}, True),
        ("127.0.0.1:50051", "with space", {}, False),
        ("127.0.0.1:50051", "two\nlines", {}, False),
        ("127.0.0.1:50051", "", {}, False),
        ("nonsense", None, {}, False),
        ("/run/x.sock", None, {}, False),
    ],
)
def test_a_token_is_not_sent_where_others_can_read_it(
    target: str, token: str | None, more: dict[str, Any], *, allowed: bool
) -> None:
    with contextlib.nullcontext() if allowed else pytest.raises(ValueError, match=r"token|expected"):
        Client(target, token=token, **more).close()


def test_a_client_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="needs its key"):
        Tls(certificate=b"x")


def test_the_published_service_config_is_the_one_that_the_client_sets() -> None:
    published = json.loads((ROOT / "proto/authmilter/v1/service_config.json").read_text())
    assert published == SERVICE_CONFIG
    assert [n["service"] for n in published["methodConfig"][0]["name"]] == list(SERVICES)


def test_the_scenarios_are_judged_the_same_by_both_clients(tmp_path: Path) -> None:
    def blocking(client: Client) -> list[tuple[str, str]]:
        found = [
            client.verify(s.message, client_ip=s.client_ip, helo=s.helo, mail_from=s.mail_from, login=s.login)
            for s in SCENARIOS
        ]
        return [(a.verdict.decision.rule, str(word(a.verdict.decision, "disposition"))) for a in found]

    async def waiting(client: AsyncClient) -> list[tuple[str, str]]:
        requests = [
            verify_request(
                s.message, id=str(n), client_ip=s.client_ip, helo=s.helo, mail_from=s.mail_from, login=s.login
            )
            for n, s in enumerate(SCENARIOS)
        ]
        found = {a.id: a.verdict() async for a in client.verify_stream(requests)}
        ordered = [found[str(n)] for n in range(len(SCENARIOS))]
        return [(v.decision.rule, str(word(v.decision, "disposition"))) for v in ordered]

    first, second = both(tmp_path, blocking, waiting)
    assert first == second
    assert len(first) == len(SCENARIOS)


def test_peers_are_a_closed_list() -> None:
    assert set(Peers) == {"unix", "loopback"}


def test_tls_tokens_and_certificates(tmp_path: Path) -> None:
    files = _install(tmp_path, OURS.issue("mx.example"), client_ca=True)
    pair = OURS.issue("desk.example", client=True)
    (tmp_path / "ours.pem").write_bytes(OURS.pem)
    for name, data in zip(("desk.pem", "desk.key"), reversed(pair), strict=True):
        (tmp_path / name).write_bytes(data)
    tls = Tls.from_files(
        authorities=tmp_path / "ours.pem",
        certificate=tmp_path / "desk.pem",
        key=tmp_path / "desk.key",
        server_name="mx.example",
    )

    async def asked(target: str, tls: Tls, token: str | None = None) -> str:
        async with AsyncClient(target, tls=tls, token=token, wait=False) as client:
            try:
                await client.verify(MESSAGE, timeout=5)
            except CallError as e:
                return e.code

        def blocking() -> str:
            with Client(target, tls=tls, token=token) as one:
                return one.verify(MESSAGE, timeout=5).verdict.decision.rule

        assert await asyncio.to_thread(blocking)
        return "answered"

    async def work(server: Local) -> None:
        where = server.target
        assert await asked(where, tls) == "answered"
        assert await asked(where, tls, "the-token") == "answered"
        assert await asked(where, tls, "another") == "UNAUTHENTICATED"
        assert await asked(where, replace(tls, server_name="other.example")) == "UNAVAILABLE"
        assert await asked(where, replace(tls, authorities=OTHER.pem)) == "UNAVAILABLE"
        assert await asked(where, replace(tls, certificate=None, key=None)) == "UNAVAILABLE"
        key, chain = OURS.issue("desk.example", client=True, expired=True)
        assert await asked(where, replace(tls, certificate=chain, key=key)) == "UNAVAILABLE"
        ran = await asyncio.to_thread(_command, server.target, tmp_path)
        assert json.loads(ran)["decision"]["rule"]
        # expired now: who connects anew is told so by his own library, and those that are connected go on
        _install(tmp_path, OURS.issue("mx.example", expired=True))
        assert await asked(where, tls) == "UNAVAILABLE"

    served(tmp_path, work, settings=RpcSettings(identities=(DESK, TOKEN), tls=files), listen="127.0.0.1:0")


def _command(target: str, folder: Path) -> str:
    words = ["--ca", "ours.pem", "--cert", "desk.pem", "--key", "desk.key"]
    paths = [w if w.startswith("--") else str(folder / w) for w in words]
    done = CliRunner().invoke(
        cli,
        ["call", "verify", "-", "--json", "--server", target, "--server-name", "mx.example", *paths],
        input=MESSAGE,
    )
    assert done.exit_code == 0, done.output
    return done.stdout


class _Ended(grpc.RpcError):
    """What gRPC raises."""

    def __init__(self, code: grpc.StatusCode, text: str, details: bytes = b"") -> None:
        self._code, self._text, self._details = code, text, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._details),) if self._details else ()


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_is_an_error_of_ours(code: grpc.StatusCode) -> None:
    error = failure_of(_Ended(code, "why"))
    assert (error.code, error.text, str(error)) == (code.name, "why", f"why ({code.name})")
    kinds = {
        "INVALID_ARGUMENT": InvalidRequestError, "UNAUTHENTICATED": UnauthenticatedError,
        "PERMISSION_DENIED": PermissionDeniedError, "FAILED_PRECONDITION": PreconditionError,
        "RESOURCE_EXHAUSTED": ExhaustedError, "DEADLINE_EXCEEDED": DeadlineExceededError,
        "UNAVAILABLE": UnavailableError, "CANCELLED": UnavailableError, "INTERNAL": ServerFaultError,
    }  # fmt: skip
    assert type(error) is kinds.get(code.name, CallError)


def test_details_that_cannot_be_read_are_left_out() -> None:
    error = failure_of(_Ended(grpc.StatusCode.INVALID_ARGUMENT, "", b"\xff\xff\xff"))
    assert error.violations == ()
    assert error.text == "no reason is given"


def test_a_connection_that_broke_under_a_write_is_asked_again() -> None:
    assert failure_of(_Ended(grpc.StatusCode.INTERNAL, "Internal error from Core")).code == "UNAVAILABLE"
