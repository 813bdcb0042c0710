"""Large, many and broken, through a real Postfix: what takes long enough to belong to `make test-full`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.nameserver import Fault, NameServer
from tests.support.postfix import PrivatePostfix, SmtpClient, SmtpResult, wait_until
from tests.support.rig import ENGINES, Line, Rig
from tests.support.scenarios import SCENARIOS, a_message, signed, zone
from tests.support.service import Service

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GOOD: dict[str, Any] = {
    "mail_from": "news@good.example",
    "client_ip": "192.0.2.10",
    "helo": "mail.good.example",
}
EVIL: dict[str, Any] = {
    "mail_from": "x@attacker.example",
    "client_ip": "203.0.113.66",
    "helo": "helo.attacker.example",
}
PLAIN = a_message("News <news@good.example>")
#: How much a worker may take at its highest with 20 messages of 50 MB at once, in MiB.
MOST_MEMORY = 150


@cache
def _large() -> bytes:
    """Return a signed 8-bit message of 50 MB, with dots to stuff and bytes that cut CRLF at chunk ends."""
    line = b".\xe4\xf6\xfc " + b"0123456789abcdef" * 4 + b"\r\n"
    return signed(
        a_message("News <news@good.example>", body=line * (50_000_000 // len(line))), "good.example"
    )


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    extra = {"transport_maps": "inline:{ {away@recv.example=discard:} }"}
    with Rig({"enforce": {"zone": zone(), "policy": "enforce", "workers": 1}}, extra=extra) as made:
        yield made


@pytest.fixture(params=ENGINES)
def line(request: pytest.FixtureRequest, rig: Rig) -> Line:
    return rig.line("enforce", request.param)


def _at_once(number: int, work: Callable[[int], SmtpResult]) -> list[SmtpResult]:
    """Run `work` in as many threads, and return what each returns."""
    results: list[SmtpResult] = [SmtpResult(-1, "not done")] * number

    def one(n: int) -> None:
        results[n] = work(n)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    return results


def _worker(line: Line) -> int:
    """The process id of the service's only worker."""
    (worker,) = line.service.ask("status")["workers"]
    pid: int = worker["pid"]
    return pid


def _peak(pid: int) -> int:
    """The most memory that a process has had, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(row.split()[1]) for row in text.splitlines() if row.startswith("VmHWM:")) // 1024


def test_a_message_of_50_mb_verifies_and_arrives_whole(line: Line) -> None:
    message = _large()
    delivered = line.deliver(message, mail_options=("BODY=8BITMIME",), timeout=180, **GOOD)
    logged = line.logged()
    assert logged["dkim"] == ["pass:good.example"]
    assert logged["dmarc"] == "pass"
    assert logged["size"] == len(message.partition(b"\r\n\r\n")[2])
    assert delivered.raw.partition(b"\n\n")[2].rstrip(b"\n") == message.partition(b"\r\n\r\n")[2].replace(
        b"\r\n", b"\n"
    ).rstrip(b"\n")


def test_200_sessions_at_once_are_all_served(line: Line) -> None:
    before = len(line.service.log_lines())
    all_there = threading.Barrier(200, timeout=120)

    def work(n: int) -> SmtpResult:
        scenario = SCENARIOS[n % 2]
        with SmtpClient(line.port, timeout=180) as client:
            client.hello(scenario.helo, client_ip=scenario.client_ip)
            client.envelope(scenario.mail_from, ("away@recv.example",))
            all_there.wait()
            return client.data(scenario.message)

    results = _at_once(200, work)
    assert Counter(r.code for r in results) == {250: 100, 550: 100}
    assert len(line.service.log_lines()) == before + 200
    wait_until(line.postfix.nothing_delivered, 60, "an empty queue")


def test_memory_does_not_grow_with_20_messages_of_50_mb_at_once(
    line: Line, record_property: Callable[[str, object], None]
) -> None:
    quoted = _large().replace(b"\r\n.", b"\r\n..")
    pid = _worker(line)
    idle = _peak(pid)
    all_there = threading.Barrier(20, timeout=120)

    def work(_n: int) -> SmtpResult:
        with SmtpClient(line.port, timeout=280) as client:
            client.hello("mail.good.example", client_ip="192.0.2.10")
            client.envelope("news@good.example", ("away@recv.example",), ("BODY=8BITMIME",))
            client.say("DATA")
            all_there.wait()
            for at in range(0, len(quoted), 1 << 16):
                client.write(quoted[at : at + (1 << 16)])
            return client.end()

    began = time.monotonic()
    results = _at_once(20, work)
    peak = _peak(pid)
    record_property("seconds", round(time.monotonic() - began, 1))
    record_property("peak_mib", peak)
    print(f"{line.service.engine}: {idle} MiB before, at most {peak} MiB, {time.monotonic() - began:.0f} s")
    assert Counter(r.code for r in results) == {250: 20}
    assert _worker(line) == pid
    assert [i["dkim"] for i in line.service.log_lines()[-20:]] == [["pass:good.example"]] * 20
    assert peak < MOST_MEMORY
    wait_until(line.postfix.nothing_delivered, 60, "an empty queue")


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=ENGINES)
def own(request: pytest.FixtureRequest) -> Iterator[tuple[Service, PrivatePostfix]]:
    """A service that a test may break."""
    with (
        Service(zone=zone(), policy="enforce", engine=request.param) as service,
        PrivatePostfix(milter=service.for_postfix) as postfix,
    ):
        yield service, postfix


def test_a_stopped_authmilter_means_4xx_and_nothing_is_lost(own: tuple[Service, PrivatePostfix]) -> None:
    service, postfix = own
    assert postfix.send(PLAIN, **GOOD).code == 250
    service.stop()
    refused = [postfix.send(PLAIN, **GOOD) for _ in range(3)]
    assert {r.code for r in refused} == {451}
    assert {r.enhanced for r in refused} == {"4.7.1"}
    # what does not come by SMTP waits in the queue
    postfix.command(
        "sendmail", "-f", "user@recv.example", "-i", "user@recv.example", given=PLAIN.replace(b"\r\n", b"\n")
    )
    assert len(postfix.delivered()) == 1
    time.sleep(1)
    assert len(postfix.queued()) == 1
    service.start()
    assert [postfix.send(PLAIN, **GOOD).code for _ in range(3)] == [250] * 3
    postfix.command("postqueue", "-f")
    assert len(postfix.delivered(4, seconds=90)) == 4
    assert postfix.nothing_delivered()


def _kill_workers(service: Service) -> None:
    for worker in service.ask("status")["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)


@pytest.mark.parametrize("when", ["envelope", "header", "body"])
def test_a_worker_killed_in_the_middle_of_a_message_means_4xx_and_the_retry_is_accepted(
    own: tuple[Service, PrivatePostfix], when: str
) -> None:
    service, postfix = own
    with SmtpClient(postfix.port) as client:
        client.hello("mail.good.example", client_ip="192.0.2.10")
        client.envelope("news@good.example", ("user@recv.example",))
        if when == "envelope":
            _kill_workers(service)
            said = client.data(PLAIN)
        else:
            client.say("DATA")
            # more than buffers hold, so that the worker has seen some of it
            client.write(PLAIN if when == "header" else PLAIN + b"x" * 70 + b"\r\n" * 200_000)
            time.sleep(0.3)
            _kill_workers(service)
            client.write(b"the rest\r\n")
            said = client.end()
        assert said.code == 451, said
        again = client.message(PLAIN, mail_from="news@good.example")
        if again.code == 0 or again.code >= 400:
            assert again.code < 500  # Postfix gives up the milter for the rest of this session
    service.wait_ready()
    assert postfix.nothing_delivered() or len(postfix.delivered()) == 1
    assert postfix.send(PLAIN, **GOOD).code == 250
    assert len(postfix.delivered()) == 1
    assert postfix.nothing_delivered()
    assert service.ask("status")["restarts"] >= 1


def test_every_message_under_kills_is_delivered_exactly_as_often_as_it_was_accepted(
    own: tuple[Service, PrivatePostfix],
) -> None:
    service, postfix = own
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.7):
            with contextlib.suppress(OSError):
                _kill_workers(service)

    accepted: list[str] = []

    def work(n: int) -> SmtpResult:
        for serial in range(8):
            name = f"{n}-{serial}"
            for _ in range(60):
                try:
                    said = postfix.send(f"X-Name: {name}\r\n".encode() + PLAIN, **GOOD)
                except OSError:
                    continue
                if said.code == 250:
                    accepted.append(name)
                    break
                assert 400 <= said.code < 500 or said.code == 0, said
                time.sleep(0.2)
        return SmtpResult(250, "")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        _at_once(4, work)
    finally:
        over.set()
        killer.join()
    assert len(accepted) == 32
    delivered = [d.fields("X-Name")[0] for d in postfix.delivered(32, seconds=60)]
    assert sorted(delivered) == sorted(accepted)


# -- DNS that does not answer ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nameserver() -> Iterator[NameServer]:
    with NameServer(zone()) as server:
        yield server


def _dns(server: NameServer) -> dict[str, Any]:
    return {
        "dns": {"zone": None, "nameservers": [server.address], "timeout": "1s"},
        "limits": {"message": "6s", "checks": "3s"},
    }


@pytest.fixture(scope="module")
def cold(nameserver: NameServer) -> Iterator[Rig]:
    services = {
        policy: {"zone": zone(), "policy": policy, "workers": 1, "settings": _dns(nameserver)}
        for policy in ("enforce", "strict")
    }
    with Rig(services) as made:
        yield made


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "nameserver" in request.fixturenames:
        request.getfixturevalue("nameserver").heal()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_real_name_server_s_answers_give_the_same_replies(
    cold: Rig, nameserver: NameServer, engine: str
) -> None:
    del nameserver
    line = cold.line("enforce", engine)
    for scenario in SCENARIOS:
        if scenario.name != "dns-down":
            said = line.send(
                scenario.message, mail_from=scenario.mail_from, client_ip=scenario.client_ip, helo=scenario.helo, login=scenario.login,
            )  # fmt: skip
            assert said.code == scenario.code, (scenario.name, said)
            if said.code == 250:
                cold.postfix.delivered()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_dmarc_record_that_does_not_come_is_accepted_and_marked_or_deferred(
    cold: Rig, nameserver: NameServer, engine: str
) -> None:
    nameserver.fault("_dmarc.slow.example", Fault.DROP)
    message = a_message("Info <info@slow.example>")
    line = cold.line("enforce", engine)
    began = time.monotonic()
    delivered = line.deliver(message, **EVIL)
    assert time.monotonic() - began < 10
    assert line.logged()["dmarc"] == "temperror"
    assert delivered.fields("X-Authmilter-Note")
    assert "dmarc=temperror" in delivered.fields("Authentication-Results")[0]
    said = cold.line("strict", engine).send(message, **EVIL)
    assert (said.code, said.enhanced) == (451, "4.4.3")
    assert cold.postfix.nothing_delivered()


@pytest.mark.parametrize("engine", ENGINES)
def test_ten_signatures_of_domains_that_do_not_answer_do_not_soften_a_refusal(
    cold: Rig, nameserver: NameServer, engine: str
) -> None:
    message = a_message("Your Bank <service@bank.example>")
    for n in range(10):
        nameserver.fault(f"s1._domainkey.hole{n}.{engine}.example", Fault.DROP)
        message = signed(message, "attacker.example").replace(
            b"d=attacker.example", f"d=hole{n}.{engine}.example".encode(), 1
        )
    line = cold.line("enforce", engine)
    with line.session("helo.attacker.example", client_ip="203.0.113.66") as client:
        client.envelope("x@attacker.example", ("user@recv.example",))
        client.say("DATA")
        for piece in (message[:-10], message[-10:-5], message[-5:]):
            client.write(piece)
            time.sleep(1)
        said = client.end()
    assert said.code == 550, said
    assert line.logged()["dmarc"] == "fail"


@pytest.mark.parametrize("engine", ENGINES)
def test_no_dns_at_all_loses_nothing(cold: Rig, nameserver: NameServer, engine: str) -> None:
    names = (
        "dark.example",
        "_dmarc.dark.example",
        "mail.dark.example",
        "_dmarc.example",
        "9.2.0.192.in-addr.arpa",
    )
    for name in names:
        nameserver.fault(name, Fault.DROP)
    line = cold.line("enforce", engine)
    about: dict[str, Any] = {
        "mail_from": "a@dark.example",
        "client_ip": "192.0.2.9",
        "helo": "mail.dark.example",
    }
    delivered = line.deliver(a_message("a@dark.example"), **about)
    logged = line.logged()
    assert {logged["spf"], logged["dmarc"], logged["iprev"]} == {"temperror"}
    assert "spf=temperror" in delivered.fields("Authentication-Results")[0]
    said = cold.line("strict", engine).send(a_message("a@dark.example"), **about)
    assert said.code == 451
