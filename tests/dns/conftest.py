"""Fixtures of the DNS tests: both event loops, and a name server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator

import pytest
import uvloop

from authmilter.dns.answer import Answer
from tests.support.nameserver import NameServer


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[object, object, Answer]], Answer]:
    """Run a coroutine on a loop of its own."""
    runner: Callable[[Coroutine[object, object, Answer]], Answer]
    runner = uvloop.run if request.param == "uvloop" else asyncio.run
    return runner


@pytest.fixture
def server() -> Iterator[NameServer]:
    zone: dict[str, object] = {
        "example.com": {
            "TXT": ["v=spf1 -all", ["one record ", "of two strings"]],
            "A": ["192.0.2.1", "192.0.2.2"],
            "AAAA": ["2001:db8::1"],
            "MX": ["10 mx.example.com", "20 mx2.example.com"],
        },
        "www.example.com": {"CNAME": "example.com"},
        "far.example.com": {"CNAME": "www.example.com"},
        "gone.example.com": {"CNAME": "nowhere.invalid"},
        "circle.example.com": {"CNAME": "circle.example.com"},
        "bare.example.com": {"MX": ["0 ."]},
        "1.2.0.192.in-addr.arpa": {"PTR": ["example.com"]},
        "medium.example.com": {"TXT": ["x" * 800]},
        "large.example.com": {"TXT": ["x" * 3000]},
        "huge.example.com": {"TXT": ["x" * 60000]},
        "silent.example.com": "TIMEOUT",
        "broken.example.com": "SERVFAIL",
        "deep.below.example.com": {"A": ["192.0.2.3"]},
    }
    with NameServer(zone) as running:
        yield running
