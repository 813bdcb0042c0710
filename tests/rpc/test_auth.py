"""Who calls, and how often: tokens, certificates, peers, rates, concurrency."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from grpc import StatusCode

from authmilter.config.load import parse
from authmilter.errors import ConfigError
from authmilter.rpc.auth import Bucket, Caller, Callers
from authmilter.rpc.refusal import Refused
from authmilter.rpc.settings import Identity, Peers, Permission, token_hash
from tests.rpc.local import settings_of

TOKEN = "an-example-of-a-token-that-is-long-enough"
GATEWAY = Identity(name="gateway", tokens=frozenset({token_hash(TOKEN.encode())}))
DESK = Identity(name="desk", certificates=frozenset({"desk.example.com", "Abuse Desk"}))
LOCAL = Identity(name="local", peers=frozenset({Peers.UNIX}))
HOST = Identity(name="host", peers=frozenset({Peers.LOOPBACK}))


def _now() -> float:
    return 0.0


def _callers(*identities: Identity, tls: bool = False) -> Callers:
    return Callers(identities or (GATEWAY, DESK, LOCAL, HOST), tls=tls, share=1, now=_now)


def _name(
    callers: Callers, peer: str, properties: Mapping[str, list[bytes]], *metadata: tuple[str, str]
) -> str:
    return callers.find(peer, properties, metadata).identity.name


def test_a_token_says_who_calls() -> None:
    callers = _callers()
    assert _name(callers, "ipv4:198.51.100.1:9", {}, ("authorization", f"Bearer {TOKEN}")) == "gateway"
    assert _name(callers, "unix:", {}, ("x", "y"), ("authorization", f"bearer {TOKEN}")) == "gateway"


@pytest.mark.parametrize(
    "value",
    ["Bearer wrong", "Bearer ", "Bearer", "", f"Basic {TOKEN}", TOKEN, "Bearer " + "x" * 5000, "Bearer ü"],
)
def test_a_wrong_token_is_nobody_even_where_another_way_would_do(value: str) -> None:
    with pytest.raises(Refused) as refused:
        _name(_callers(), "unix:", {}, ("authorization", value))
    assert refused.value.code is StatusCode.UNAUTHENTICATED
    assert value not in refused.value.text or not value


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"x509_subject_alternative_name": [b"other.example", b"desk.example.com"]}, "desk"),
        ({"x509_common_name": [b"Abuse Desk"]}, "desk"),
        ({"x509_common_name": [b"desk.example.com.evil.example"]}, None),
        ({"x509_subject_alternative_name": [b"x"] * 101 + [b"desk.example.com"]}, None),
        ({"x509_pem_cert": [b"desk.example.com"]}, None),
        ({}, None),
    ],
)
def test_a_certificate_says_who_calls_by_its_names(
    properties: Mapping[str, list[bytes]], name: str | None
) -> None:
    callers = _callers(tls=True)
    if name is not None:
        assert _name(callers, "ipv4:198.51.100.1:9", properties) == name
        return
    with pytest.raises(Refused) as refused:
        _name(callers, "ipv4:198.51.100.1:9", properties)
    assert refused.value.code is StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("unix:", "local"),
        ("unix:/run/x.sock", "local"),
        ("ipv4:127.0.0.1:40000", "host"),
        ("ipv6:[::1]:40000", "host"),
        ("ipv6:%5B::1%5D:40000", "host"),
        ("ipv4:192.0.2.1:40000", None),
        ("ipv6:[2001:db8::127.0.0.1]:1", None),
        ("ipv4:1.127.0.0:1", None),
    ],
)
def test_peers_say_who_calls(peer: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(Refused):
            _name(_callers(), peer, {})
    else:
        assert _name(_callers(), peer, {}) == name


def test_with_tls_being_on_this_machine_proves_nothing() -> None:
    with pytest.raises(Refused):
        _name(_callers(tls=True), "ipv4:127.0.0.1:1", {})
    assert _name(_callers(tls=True), "unix:", {}) == "local"


def test_a_permission_is_needed() -> None:
    caller = Caller(GATEWAY, 1, _now)
    caller.needs(Permission.VERIFY)
    for missing in (Permission.SIGN, Permission.ADMIN):
        with pytest.raises(Refused) as refused:
            caller.needs(missing)
        assert refused.value.code is StatusCode.PERMISSION_DENIED


def test_a_bucket_gives_a_rate_and_a_burst() -> None:
    clock = [100.0]
    bucket = Bucket(8.0, 5.0, lambda: clock[0])
    assert [bucket.take() for _ in range(5)] == [0.0] * 5
    assert bucket.take() == 0.125
    clock[0] += 0.125
    assert bucket.take() == 0.0
    assert bucket.take() > 0
    clock[0] += 1000
    assert [bucket.take() for _ in range(6)][4:] == [0.0, 0.125]


def test_rates_are_divided_among_processes() -> None:
    clock = [0.0]
    caller = Caller(Identity(name="x", rate=10, burst=10), 5, lambda: clock[0])
    for _ in range(2):
        with caller.working():
            assert caller.busy == 1
    with pytest.raises(Refused) as refused, caller.working():
        pass
    assert refused.value.code is StatusCode.RESOURCE_EXHAUSTED
    assert [type(d).__name__ for d in refused.value.details] == ["RetryInfo"]


def test_concurrency_is_counted_and_given_back() -> None:
    caller = Caller(Identity(name="x", concurrency=2), 1, _now)
    with caller.working(), caller.working():
        assert caller.busy == 2
        with pytest.raises(Refused) as refused, caller.working():
            pass
        assert refused.value.code is StatusCode.RESOURCE_EXHAUSTED
    with contextlib.suppress(KeyError), caller.working():
        raise KeyError
    assert caller.busy == 0


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("grpc: {listen: ['0.0.0.0:50051']}", "f:1", "can be reached from other machines and has no TLS"),
        ("grpc:\n  listen: ['[2001:db8::1]:50051']", "f:2", "has no TLS"),
        ("grpc: {listen: ['mail.example.com:50051']}", "f:1", "has no TLS"),
        ("grpc: {plaintext_on_public_addresses: 'yes'}", "f:1", "i-know-that-mail-and-tokens"),
        ("grpc:\n  identities: [{name: a, tokens: [hunter2]}]", "f:2", "write the hash, never the token"),
        ("grpc: {identities: [{name: a}]}", "f:1", "nobody can be this caller"),
        ("grpc: {identities: [{name: a, peers: [unix]}, {name: a, peers: [loopback]}]}", "f:1", "named a"),
        ("grpc: {identities: [{name: a, peers: [unix]}, {name: b, peers: [unix]}]}", "f:1", "same peers"),
        ("grpc: {identities: [{name: a, certificates: [x]}]}", "f:1", "client_ca"),
        ("grpc: {certificate: x.pem}", "f:1", "certificate needs key"),
        ("grpc: {client_ca: x.pem}", "f:1", "client_ca needs certificate"),
        ("grpc: {listen: ['nowhere']}", "f:1", "expected 127.0.0.1:50051"),
        ("grpc: {max_message: 10}", "f:1", "expected a size from 1K to 1G"),
    ],
)
def test_a_mistake_in_the_settings_is_named_with_its_place(text: str, at: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text, "f")
    (complaint, *_) = error.value.complaints
    assert str(complaint.span).startswith(at)
    assert said in str(complaint)
    assert "hunter2" not in str(error.value)


def test_an_empty_configuration_lets_this_machine_ask_and_nobody_sign() -> None:
    (only,) = settings_of(
        "grpc: {listen: ['127.0.0.1:1', 'unix:/a', '[::1]:2', 'inet:3@localhost']}"
    ).identities
    assert only.peers == {Peers.UNIX, Peers.LOOPBACK}
    assert only.permissions == {Permission.VERIFY}
    assert not only.inline_zone


def test_a_public_port_without_tls_has_to_be_asked_for_in_so_many_words() -> None:
    found = settings_of(
        "grpc: {listen: ['0.0.0.0:1'], plaintext_on_public_addresses: i-know-that-mail-and-tokens-can-be-read-on-the-way}"
    )
    assert found.plaintext_anywhere
