"""The network resolver against a name server on loopback, under asyncio and under uvloop."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authmilter.deadline import Deadline
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, Mx, NoData, NxDomain, Question, RdType
from authmilter.dns.resolver import NetworkResolver, NetworkStats, ResolverSettings
from authmilter.errors import ConfigError
from tests.support.nameserver import Fault, Header, NameServer, record

Run = Callable[[Coroutine[object, object, Answer]], Answer]

A, TXT = RdType.A, RdType.TXT
LONG = Deadline.after(3600)


@pytest.fixture
def second() -> Iterator[NameServer]:
    with NameServer({"example.com": {"A": ["192.0.2.99"]}}) as running:
        yield running


def resolver(
    *servers: NameServer, timeout: float = 5.0, attempts: int = 2, keep: float = 10.0
) -> NetworkResolver:
    nameservers = tuple(s.address for s in servers)
    return NetworkResolver(
        ResolverSettings(nameservers=nameservers, timeout=timeout, attempts=attempts, keep=keep)
    )


def ask(network: NetworkResolver, name: str, rdtype: RdType = A, run: Run = asyncio.run) -> Answer:
    return run(network.fetch(Question.of(name, rdtype), LONG))


def kind_of(answer: Answer) -> FailureKind:
    assert isinstance(answer, Failed), answer
    return answer.kind


@pytest.mark.parametrize(
    ("name", "rdtype", "answer"),
    [
        ("example.com", TXT, Found((b"v=spf1 -all", b"one record of two strings"), 300.0)),
        ("EXAMPLE.com.", A, Found((IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")), 300.0)),
        ("example.com", RdType.AAAA, Found((IPv6Address("2001:db8::1"),), 300.0)),
        ("example.com", RdType.MX, Found((Mx(10, "mx.example.com"), Mx(20, "mx2.example.com")), 300.0)),
        ("bare.example.com", RdType.MX, Found((Mx(0, ""),), 300.0)),
        ("1.2.0.192.in-addr.arpa", RdType.PTR, Found(("example.com",), 300.0)),
        ("far.example.com", RdType.AAAA, Found((IPv6Address("2001:db8::1"),), 300.0)),
        ("example.com", RdType.PTR, NoData(60.0)),
        ("www.example.com", RdType.PTR, NoData(60.0)),
        ("below.example.com", A, NoData(60.0)),
        ("nowhere.invalid", A, NxDomain(60.0)),
        ("gone.example.com", A, NxDomain(60.0)),
    ],
)
def test_each_kind_of_answer(server: NameServer, run: Run, name: str, rdtype: RdType, answer: Answer) -> None:
    with closing(resolver(server)) as network:
        assert ask(network, name, rdtype, run) == answer


def test_nothing_is_ever_at_hand(server: NameServer) -> None:
    assert resolver(server).known(Question.of("example.com", A)) is None


def test_the_name_is_absolute_and_asked_octet_for_octet(server: NameServer) -> None:
    with closing(resolver(server)) as network:
        for name in ("example", r"a\046b.c\.d.example", 'a"b ;$()@{}.example', "x" * 63 + ".example"):
            assert ask(network, name) == NxDomain(60.0)
            assert server.asked[-1].name == name


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, "é.example", ".".join(["x" * 60] * 5), "\ud800"])
def test_a_name_that_cannot_be_asked_is_a_failure_and_not_asked(server: NameServer, name: str) -> None:
    with closing(resolver(server)) as network:
        answer = asyncio.run(network.fetch(Question(name, A), LONG))
    assert kind_of(answer) is FailureKind.MALFORMED
    assert server.count() == 0


def test_edns_is_offered_and_answers_over_512_octets_come_in_one_datagram(
    server: NameServer, run: Run
) -> None:
    with closing(resolver(server)) as network:
        assert ask(network, "medium.example.com", TXT, run) == Found((b"x" * 800,), 300.0)
    assert [(a.transport, a.edns) for a in server.asked] == [("udp", 1232)]


@pytest.mark.parametrize(("name", "size"), [("large.example.com", 3000), ("huge.example.com", 60000)])
def test_a_truncated_answer_is_asked_for_over_tcp(server: NameServer, run: Run, name: str, size: int) -> None:
    with closing(resolver(server)) as network:
        assert ask(network, name, TXT, run) == Found((b"x" * size,), 300.0)
        assert network.stats() == NetworkStats(questions=1, sent=1, tcp=1)
    assert [a.transport for a in server.asked] == ["udp", "tcp"]


def test_truncation_on_demand(server: NameServer, run: Run) -> None:
    server.fault("example.com", Fault.TRUNCATE)
    with closing(resolver(server)) as network:
        assert isinstance(ask(network, "example.com", run=run), Found)
    assert (server.count(transport="udp"), server.count(transport="tcp")) == (1, 1)


def test_tcp_that_gives_no_answer_is_a_timeout(server: NameServer, run: Run) -> None:
    server.fault("example.com", Fault.TRUNCATE_ONLY)
    with closing(resolver(server, timeout=0.1)) as network:
        assert kind_of(ask(network, "example.com", run=run)) is FailureKind.TIMEOUT


def test_tcp_that_gives_another_answer_is_malformed(server: NameServer, run: Run) -> None:
    flip = iter([Fault.TRUNCATE])

    def reply(query: bytes) -> list[bytes]:
        number, question = int.from_bytes(query[:2], "big"), query[12:29]
        if next(flip, None):
            return [Header(number, question, 0).message(flags=0x0200)]
        return [Header(number ^ 1, question, 0).message()]

    server.reply_with("example.com", reply)
    with closing(resolver(server)) as network:
        assert kind_of(ask(network, "example.com", run=run)) is FailureKind.MALFORMED


def test_a_server_without_edns_is_asked_without(server: NameServer, run: Run) -> None:
    server.fault("example.com", Fault.NO_EDNS)
    with closing(resolver(server)) as network:
        assert isinstance(ask(network, "example.com", run=run), Found)
    assert [a.edns for a in server.asked] == [1232, 0]


def test_a_server_that_says_formerr_to_everything_is_asked_twice_only(server: NameServer, run: Run) -> None:
    server.reply_with(
        "example.com", lambda q: [Header(int.from_bytes(q[:2], "big"), b"", 0).message(rcode=1)]
    )
    with closing(resolver(server)) as network:
        assert kind_of(ask(network, "example.com", run=run)) is FailureKind.REFUSED
    assert server.count() == 2


def test_silence_is_a_timeout_after_all_attempts(server: NameServer, run: Run) -> None:
    with closing(resolver(server, timeout=0.1)) as network:
        assert kind_of(ask(network, "silent.example.com", run=run)) is FailureKind.TIMEOUT
        assert network.stats() == NetworkStats(questions=1, sent=2, silent=2, failed=1)
    assert server.count() == 2


def test_the_callers_deadline_counts_if_it_is_earlier(server: NameServer, run: Run) -> None:
    with closing(resolver(server, timeout=3600.0)) as network:
        answer = run(network.fetch(Question.of("silent.example.com", A), Deadline.after(0.05)))
    assert kind_of(answer) is FailureKind.TIMEOUT


def test_without_time_left_nobody_is_asked(server: NameServer, run: Run) -> None:
    with closing(resolver(server)) as network:
        answer = run(network.fetch(Question.of("example.com", A), Deadline.after(0)))
    assert kind_of(answer) is FailureKind.LIMIT
    assert server.count() == 0


def test_a_second_attempt_finds_what_the_first_lost(server: NameServer, run: Run) -> None:
    server.fault("example.com", Fault.DROP, times=1)
    with closing(resolver(server, timeout=1.0, attempts=10)) as network:
        assert isinstance(ask(network, "example.com", run=run), Found)
    assert server.count() == 2


def test_servfail_is_final_where_one_server_is_all(server: NameServer, run: Run) -> None:
    with closing(resolver(server)) as network:
        answer = ask(network, "broken.example.com", run=run)
    assert answer == Failed(FailureKind.SERVFAIL, f"{server.address} answered SERVFAIL")
    assert server.count() == 1


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.GARBAGE, Fault.REFERRAL])
def test_a_failing_server_is_followed_by_the_next(
    server: NameServer, second: NameServer, run: Run, fault: Fault
) -> None:
    server.fault("example.com", fault)
    with closing(resolver(server, second)) as network:
        assert ask(network, "example.com", run=run) == Found((IPv4Address("192.0.2.99"),), 300.0)
    assert (server.count(), second.count()) == (1, 1)


@pytest.mark.parametrize(
    ("first", "then", "kind"),
    [
        (Fault.SERVFAIL, Fault.REFUSED, FailureKind.SERVFAIL),
        (Fault.REFUSED, Fault.SERVFAIL, FailureKind.SERVFAIL),
        (Fault.GARBAGE, Fault.REFUSED, FailureKind.REFUSED),
        (Fault.GARBAGE, Fault.DROP, FailureKind.MALFORMED),
        (Fault.DROP, Fault.REFERRAL, FailureKind.REFUSED),
    ],
)
def test_the_failure_that_says_most_is_the_answer(
    server: NameServer, second: NameServer, first: Fault, then: Fault, kind: FailureKind
) -> None:
    server.fault("example.com", first)
    second.fault("example.com", then)
    with closing(resolver(server, second, timeout=0.2, attempts=1)) as network:
        assert kind_of(ask(network, "example.com")) is kind


def test_a_silent_server_is_followed_by_the_next(server: NameServer, second: NameServer, run: Run) -> None:
    server.fault("example.com", Fault.DROP)
    with closing(resolver(server, second, timeout=0.4)) as network:
        assert ask(network, "example.com", run=run) == Found((IPv4Address("192.0.2.99"),), 300.0)


def test_a_late_answer_counts_while_another_server_is_asked(server: NameServer, second: NameServer) -> None:
    server.fault("example.com", delay=0.6)
    second.fault("example.com", Fault.DROP)
    with closing(resolver(server, second, timeout=1.0, attempts=1)) as network:
        assert isinstance(ask(network, "example.com"), Found)
    assert (server.count(), second.count()) == (1, 1)


def test_a_late_answer_counts_after_the_last_server_failed(server: NameServer, second: NameServer) -> None:
    server.fault("example.com", delay=0.6)
    second.fault("example.com", Fault.SERVFAIL)
    with closing(resolver(server, second, timeout=1.0, attempts=1)) as network:
        assert isinstance(ask(network, "example.com"), Found)
    assert (server.count(), second.count()) == (1, 1)


def test_a_server_silent_three_times_is_not_asked_first(server: NameServer, second: NameServer) -> None:
    server.fault("example.com", Fault.DROP)
    with closing(resolver(server, second, timeout=0.3, attempts=1)) as network:
        for _ in range(5):
            assert isinstance(ask(network, "example.com"), Found)
    assert (server.count(), second.count()) == (3, 5)


def test_a_port_where_nobody_listens_is_a_network_failure_at_once(run: Run) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for keep in (0.0, 10.0):
        settings = ResolverSettings(nameservers=(f"127.0.0.1:{port}",), timeout=60.0, keep=keep)
        with closing(NetworkResolver(settings)) as network:
            answer = ask(network, "example.com", run=run)
            assert answer == Failed(FailureKind.NETWORK, f"127.0.0.1:{port} cannot be reached")
            assert network.stats().sent == 2


def test_a_server_that_comes_back_is_reached_again(run: Run) -> None:
    with NameServer({}) as server:
        address, port = server.address, server.port
    with closing(NetworkResolver(ResolverSettings(nameservers=(address,)))) as network:
        assert kind_of(ask(network, "example.com", run=run)) is FailureKind.NETWORK
        with NameServer({"example.com": {"A": ["192.0.2.1"]}}, port=port):
            assert isinstance(ask(network, "example.com", run=run), Found)


@pytest.mark.parametrize("keep", [0.0, 10.0])
@pytest.mark.parametrize("fault", [Fault.WRONG_ID, Fault.WRONG_QUESTION])
def test_a_forged_answer_before_the_right_one_is_dropped(
    server: NameServer, run: Run, fault: Fault, keep: float
) -> None:
    server.fault("example.com", fault)
    with closing(resolver(server, keep=keep)) as network:
        assert isinstance(ask(network, "example.com", run=run), Found)
        assert network.stats().sent == 1


@pytest.mark.parametrize("keep", [0.0, 10.0])
def test_an_answer_from_another_address_is_dropped(server: NameServer, run: Run, keep: float) -> None:
    def forge(query: bytes) -> list[bytes]:
        header = Header(int.from_bytes(query[:2], "big"), query[12:29], 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.9", 0))
            other.sendto(header.message(rcode=3), ("127.0.0.1", server.asked[-1].client_port))
        return [header.message(answers=[record((b"example", b"com"), "A", 7, bytes((192, 0, 2, 7)))])]

    server.reply_with("example.com", forge)
    with closing(resolver(server, keep=keep)) as network:
        assert ask(network, "example.com", run=run) == Found((IPv4Address("192.0.2.7"),), 7.0)


def test_many_wrong_answers_at_one_port_make_it_ask_over_tcp(server: NameServer, run: Run) -> None:
    def guess(query: bytes) -> list[bytes]:
        number, question = int.from_bytes(query[:2], "big"), query[12:29]
        return [Header(number ^ i, question, 0).message(rcode=3) for i in range(1, 20)]

    server.reply_with("example.com", guess, times=1)
    with closing(resolver(server, keep=0.0)) as network:
        assert isinstance(ask(network, "example.com", run=run), Found)
    assert [a.transport for a in server.asked] == ["udp", "tcp"]


def test_ids_and_ports_are_not_to_be_guessed(server: NameServer, run: Run) -> None:
    with closing(resolver(server, keep=0.0)) as network:
        for _ in range(30):
            ask(network, "example.com", run=run)
    assert len({a.number for a in server.asked}) > 25
    assert len({a.client_port for a in server.asked}) > 25
    assert min(a.client_port for a in server.asked) >= 16384


def test_a_socket_toward_loopback_is_shared_and_its_ids_are_random(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        names = [Question.of(f"n{i}.example.com", A) for i in range(100)]
        answers = await asyncio.gather(*(network.fetch(q, LONG) for q in names))
        assert set(answers) == {NxDomain(60.0)}
        return answers[0]

    with closing(resolver(server)) as network:
        run(main())
    assert len({a.client_port for a in server.asked}) == 1
    assert len({a.number for a in server.asked}) == 100


def test_a_chain_that_the_server_does_not_follow_is_followed(server: NameServer, run: Run) -> None:
    server.fault("far.example.com", Fault.CNAME_ONLY)
    server.fault("www.example.com", Fault.CNAME_ONLY)
    with closing(resolver(server)) as network:
        assert ask(network, "far.example.com", TXT, run) == ask(network, "example.com", TXT, run)
    assert [a.name for a in server.asked][:3] == ["far.example.com", "www.example.com", "example.com"]


@pytest.mark.parametrize("fault", [None, Fault.CNAME_ONLY])
def test_a_circle_of_cnames_ends(server: NameServer, run: Run, fault: Fault | None) -> None:
    server.fault("circle.example.com", fault)
    with closing(resolver(server)) as network:
        assert kind_of(ask(network, "circle.example.com", run=run)) is FailureKind.SERVFAIL
    assert server.count() <= 12


def test_a_failure_behind_a_cname_is_a_failure(server: NameServer, run: Run) -> None:
    server.replace({"a.example": {"CNAME": "b.example"}, "b.example": "SERVFAIL"})
    server.fault("a.example", Fault.CNAME_ONLY)
    with closing(resolver(server)) as network:
        assert kind_of(ask(network, "a.example", run=run)) is FailureKind.SERVFAIL


def test_the_ttl_of_cnames_asked_one_by_one_counts(server: NameServer) -> None:
    def alias(query: bytes) -> list[bytes]:
        header = Header(int.from_bytes(query[:2], "big"), query[12:-11], 0)
        owner, target = (b"www", b"example", b"com"), b"\x03www\x07example\x03net\x00"
        return [header.message(answers=[record(owner, "CNAME", 9, target)])]

    server.replace({"www.example.net": {"A": ["192.0.2.1"]}})
    server.reply_with("www.example.com", alias)
    with closing(resolver(server)) as network:
        assert ask(network, "www.example.com") == Found((IPv4Address("192.0.2.1"),), 9.0)
        assert ask(network, "www.example.com", TXT) == NoData(9.0)
        server.replace({})
        assert ask(network, "www.example.com") == NxDomain(9.0)


def test_more_questions_than_allowed_wait_their_turn(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        answers = await asyncio.gather(
            *(network.fetch(Question.of(f"n{i}.example", A), LONG) for i in range(20))
        )
        assert set(answers) == {NxDomain(60.0)}
        return answers[0]

    limits = ResolverSettings(nameservers=(server.address,), outstanding=2)
    with closing(NetworkResolver(limits)) as network:
        run(main())
    assert server.count() == 20


def test_who_gets_no_turn_in_time_has_met_our_limit_not_dns(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        hog = asyncio.create_task(network.fetch(Question.of("silent.example.com", A), Deadline.after(0.3)))
        await asyncio.sleep(0)
        answer = await network.fetch(Question.of("example.com", A), Deadline.after(0.05))
        assert kind_of(await hog) is FailureKind.TIMEOUT
        return answer

    limits = ResolverSettings(nameservers=(server.address,), outstanding=1)
    with closing(NetworkResolver(limits)) as network:
        assert kind_of(run(main())) is FailureKind.LIMIT


def test_a_cancelled_question_leaves_nothing_behind(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        for _ in range(3):
            task = asyncio.create_task(network.fetch(Question.of("silent.example.com", A), LONG))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        (transport,) = network._transports.values()
        assert [line._pending for line in transport._lines.values()] == [{}]
        return await network.fetch(Question.of("example.com", A), LONG)

    limits = ResolverSettings(nameservers=(server.address,), outstanding=1)
    with closing(NetworkResolver(limits)) as network:
        assert isinstance(run(main()), Found)


def test_one_resolver_serves_loop_after_loop_and_closes_what_it_opened(server: NameServer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        network = resolver(server)
        for runner in (asyncio.run, uvloop.run, asyncio.run, uvloop.run):
            assert isinstance(runner(network.fetch(Question.of("example.com", A), LONG)), Found)
            assert len(network._transports) == 1
        network.close()
        assert isinstance(asyncio.run(network.fetch(Question.of("example.com", A), LONG)), Found)
        network.close()
        del network
        gc.collect()
    assert len({a.client_port for a in server.asked}) == 5


def test_loops_in_two_threads_do_not_meet(server: NameServer) -> None:
    answers: list[Answer] = []

    def work() -> None:
        answers.extend(asyncio.run(network.fetch(Question.of("example.com", A), LONG)) for _ in range(20))

    with closing(resolver(server)) as network:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 80
    assert all(isinstance(a, Found) for a in answers)


def test_closing_while_questions_are_open_ends_them(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        task = asyncio.create_task(network.fetch(Question.of("silent.example.com", A), LONG))
        await asyncio.sleep(0)
        network.close()
        return await task

    network = resolver(server, timeout=3600.0)
    assert kind_of(run(main())) is FailureKind.NETWORK


def test_a_kept_socket_is_replaced_after_its_time(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        first = await network.fetch(Question.of("example.com", A), LONG)
        (transport,) = network._transports.values()
        for line in transport._lines.values():
            line.retire()
        await network.fetch(Question.of("example.com", A), LONG)
        return first

    with closing(resolver(server)) as network:
        run(main())
    assert len({a.client_port for a in server.asked}) == 2


def test_ipv6_servers_are_asked(run: Run) -> None:
    with NameServer({"example.com": {"A": ["192.0.2.1"]}}, host="::1") as server:
        server.fault("tcp.example.com", Fault.TRUNCATE)
        for keep in (0.0, 10.0):
            with closing(resolver(server, keep=keep)) as network:
                assert isinstance(ask(network, "example.com", run=run), Found)
                assert isinstance(ask(network, "tcp.example.com", run=run), NxDomain)


def test_a_server_without_a_route_is_a_network_failure(run: Run) -> None:
    servers = ResolverSettings(nameservers=("[fe80::1%nosuchdevice]:53",), timeout=60.0)
    with closing(NetworkResolver(servers)) as network:
        assert kind_of(ask(network, "example.com", run=run)) is FailureKind.NETWORK


def test_resolv_conf_names_the_servers_where_the_settings_do_not(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# ours\nsearch example.com\nnameserver 127.0.0.7\nnameserver ::1\noptions ndots:5 timeout:1\n"
    )
    assert NetworkResolver(ResolverSettings(resolv_conf=str(path))).servers == ("127.0.0.7:53", "[::1]:53")


@pytest.mark.parametrize("content", [None, "", "search example.com\n", "nameserver dns.example.com\n"])
def test_resolv_conf_without_a_server_is_a_configuration_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="no usable name server") as caught:
        NetworkResolver(ResolverSettings(resolv_conf=str(path)))
    assert caught.value.complaints[0].span.file == str(path)


@pytest.mark.parametrize(
    "values",
    [
        {"nameservers": ("dns.example",)},
        {"timeout": 0.0},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"attempts": 0},
        {"attempts": 11},
        {"edns_payload": 511},
        {"edns_payload": 4097},
        {"keep": -1.0},
        {"outstanding": 0},
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|is not a name server"):
        ResolverSettings(**values)  # type: ignore[arg-type]  # wrong on purpose


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=120),
    counts=st.tuples(*[st.integers(0, 3)] * 3),
    flags=st.sampled_from([0x8180, 0x8183, 0x8182, 0x8181, 0x8400, 0x8000]),
    rdtype=st.sampled_from(RdType),
)
def test_whatever_a_server_sends_is_an_answer(
    server: NameServer, body: bytes, counts: tuple[int, int, int], flags: int, rdtype: RdType
) -> None:
    server.reply_with(
        "example.com", lambda q: [q[:2] + struct.pack("!HHHHH", flags, 1, *counts) + q[12:29] + body]
    )
    with closing(resolver(server)) as network:
        answer = ask(network, "example.com", rdtype)
    assert isinstance(answer, Found | NoData | NxDomain | Failed)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(datagrams=st.lists(st.binary(max_size=40), min_size=1, max_size=30))
def test_datagrams_that_are_no_answer_are_dropped(server: NameServer, datagrams: list[bytes]) -> None:
    server.reply_with("example.com", lambda _: datagrams, times=1)
    with closing(resolver(server, timeout=0.5, attempts=10)) as network:
        assert isinstance(ask(network, "example.com"), Found)


def test_a_loop_that_ends_with_a_question_open_leaves_no_socket_behind(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        network.begin(Question.of("silent.example.com", A), LONG)
        return await network.fetch(Question.of("example.com", A), LONG)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        network = resolver(server, keep=0.0)
        assert isinstance(run(main()), Found)
        (ended,) = network._transports.values()
        assert len(ended._open) == 1
        assert isinstance(ask(network, "example.com", run=run), Found)
        assert ended._open == set()
        network.close()
        gc.collect()


def test_a_question_that_is_cancelled_gives_its_turn_back(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        held = network.begin(Question.of("silent.example.com", A), LONG)
        waiting = [network.begin(Question.of("example.com", A), LONG) for _ in range(3)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        held.cancel()
        return await waiting[2]

    limits = ResolverSettings(nameservers=(server.address,), outstanding=1)
    with closing(NetworkResolver(limits)) as network:
        assert isinstance(run(main()), Found)
    assert server.count("example.com") == 2


def test_a_question_leaves_nothing_to_the_collector(server: NameServer, run: Run) -> None:
    async def main() -> Answer:
        answer = await network.fetch(Question.of("example.com", TXT), LONG)
        for name in ("example.com", "broken.example.com", "cut.example.com"):
            gc.collect()
            gc.disable()
            try:
                await network.fetch(Question.of(name, TXT), LONG)
                await asyncio.sleep(0)  # what ends a question is called once the answer is there
                assert gc.collect() == 0, name
            finally:
                gc.enable()
        return answer

    server.fault("cut.example.com", Fault.CNAME_ONLY)
    with closing(resolver(server)) as network:
        assert isinstance(run(main()), Found)
