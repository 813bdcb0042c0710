"""Addresses of name servers, and the circuit that sends a silent one to the end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dns.servers import Circuits, Server

A = Server.parse("127.0.0.2")
B = Server.parse("127.0.0.3")
C = Server.parse("9.9.9.9")


@pytest.mark.parametrize(
    ("text", "shown", "near"),
    [
        ("127.0.0.2", "127.0.0.2:53", True),
        ("127.0.0.2:5353", "127.0.0.2:5353", True),
        ("10.1.2.3", "10.1.2.3:53", True),
        ("9.9.9.9", "9.9.9.9:53", False),
        ("100.64.0.1", "100.64.0.1:53", False),
        ("::1", "[::1]:53", True),
        ("[::1]", "[::1]:53", True),
        ("[::1]:5353", "[::1]:5353", True),
        ("2620:FE::fe", "[2620:fe::fe]:53", False),
        ("fd00::1", "[fd00::1]:53", True),
        ("fe80::1%lo", "[fe80::1%lo]:53", True),
    ],
)
def test_a_server_is_an_address_with_or_without_a_port(text: str, shown: str, *, near: bool) -> None:
    server = Server.parse(text)
    assert (str(server), server.near) == (shown, near)
    assert Server.parse(str(server)) == server


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example",
        "127.0.0.2:",
        "127.0.0.2:0",
        "127.0.0.2:65536",
        "127.0.0.2:x",
        "127.0.0.2:٣",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[dns.example]:53",
        "300.0.0.1",
        "https://127.0.0.1/",
        "127.0.0.2:000053",
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a name server"):
        Server.parse(text)


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_parsing_raises_nothing_but_value_errors(text: str) -> None:
    try:
        server = Server.parse(text)
    except ValueError as e:
        assert "is not a name server" in str(e)  # noqa: PT017 - either outcome is right, and checked
    else:
        assert 0 < server.port < 65536


def test_servers_are_asked_in_their_order_while_they_speak() -> None:
    circuits = Circuits(strikes=3, rest=10.0)
    circuits.silent(A, 0.0)
    circuits.silent(A, 0.0)
    assert circuits.order((A, B, C), 0.0) == (A, B, C)


def test_a_server_silent_three_times_in_a_row_comes_last_for_ten_seconds() -> None:
    circuits = Circuits(strikes=3, rest=10.0)
    for now in (0.0, 1.0, 2.0):
        circuits.silent(A, now)
    assert circuits.order((A, B, C), 2.0) == (B, C, A)
    assert circuits.order((A, B, C), 11.9) == (B, C, A)
    assert circuits.order((A, B, C), 12.0) == (A, B, C)


def test_one_more_silence_after_the_rest_sends_it_back() -> None:
    circuits = Circuits(strikes=3, rest=10.0)
    for _ in range(3):
        circuits.silent(A, 0.0)
    circuits.silent(A, 20.0)
    assert circuits.order((A, B), 20.0) == (B, A)


def test_an_answer_closes_the_circuit() -> None:
    circuits = Circuits(strikes=3, rest=10.0)
    for _ in range(3):
        circuits.silent(A, 0.0)
    circuits.spoke(A)
    assert circuits.order((A, B), 0.0) == (A, B)
    circuits.silent(A, 0.0)
    assert circuits.order((A, B), 0.0) == (A, B)


def test_a_lone_server_is_asked_whatever_it_did() -> None:
    circuits = Circuits(strikes=1, rest=10.0)
    circuits.silent(A, 0.0)
    assert circuits.order((A,), 0.0) == (A,)
