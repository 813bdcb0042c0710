"""The tests' own name server, where the resolver's tests do not show it: replacing the zone, and the command."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from authmilter.deadline import Deadline
from authmilter.dns.answer import Answer, Found, NxDomain, Question, RdType
from authmilter.dns.resolver import NetworkResolver, ResolverSettings
from authmilter.errors import DecodeError
from tests.support.nameserver import Fault, NameServer

ROOT = Path(__file__).resolve().parents[2]
Q = Question.of("example.com", RdType.A)


def ask(address: str) -> Answer:
    with closing(NetworkResolver(ResolverSettings(nameservers=(address,)))) as network:
        return asyncio.run(network.fetch(Q, Deadline.after(60)))


def a_zone(address: str) -> dict[str, object]:
    return {"example.com": {"A": [address]}}


def test_the_zone_can_be_replaced_while_it_runs() -> None:
    with NameServer() as server:
        assert ask(server.address) == NxDomain(60.0)
        server.replace(a_zone("192.0.2.1"))
        assert ask(server.address) == Found((IPv4Address("192.0.2.1"),), 300.0)
        with pytest.raises(DecodeError):
            server.replace({"example.com": {"A": ["x"]}})
        assert isinstance(ask(server.address), Found)
        assert server.count("example.com", "A", "udp") == server.count() == 3
        server.forget()
        assert server.asked == ()


def test_faults_can_be_taken_back() -> None:
    with NameServer(a_zone("192.0.2.1")) as server:
        server.fault("example.com", Fault.SERVFAIL, rdtype="TXT")
        assert isinstance(ask(server.address), Found)
        server.fault("example.com", Fault.TRUNCATE)
        server.heal("example.com")
        server.heal()
        assert isinstance(ask(server.address), Found)
        assert server.count(transport="tcp") == 0


def test_the_command_serves_a_file_reads_it_again_and_stops(tmp_path: Path) -> None:
    path = tmp_path / "zone.json"
    path.write_text(json.dumps(a_zone("192.0.2.1")))
    command = [sys.executable, "-m", "tests.support.nameserver", str(path), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, address = process.stdout.readline().split()
            assert word == "ready"
            assert ask(address) == Found((IPv4Address("192.0.2.1"),), 300.0)
            path.write_text(json.dumps(a_zone("192.0.2.2")))
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == f"ready {address}\n"
            assert ask(address) == Found((IPv4Address("192.0.2.2"),), 300.0)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
