"""Where gRPC listens: ports that are held without listening, and links to sockets of workers."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from authmilter.grpc_places import forget_path, own_path, publish, release, reserve
from authmilter.startup import StartError


def _bind(address: str, *, shared: bool) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, int(port)))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
def test_a_port_is_held_for_those_who_share_it(text: str) -> None:
    place = reserve(text)
    address = place.address(1)
    assert not address.endswith(":0")
    assert place.name == address
    with pytest.raises(OSError, match="already in use"):
        _bind(address, shared=False)
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host.strip("[]"), int(port)))
    first, second = _bind(address, shared=True), _bind(address, shared=True)
    # a second service does not join those who share it
    with pytest.raises(StartError, match="already in use"):
        reserve(address)
    for sock in (first, second):
        sock.close()
    release(place)
    _bind(address, shared=False).close()


def test_a_path_leads_to_the_last_worker_that_was_published(tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    other = reserve(f"unix:{tmp_path}/other.sock")
    place = reserve(f"unix:{path}")
    workers = []
    for pid in (1, 4194304):
        assert place.address(pid) == f"unix:{own_path(place, pid)}"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(own_path(place, pid))
        sock.listen()
        workers.append(sock)
        publish(place, pid)
        assert path.readlink().name == Path(own_path(place, pid)).name
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        with pytest.raises(StartError, match="another server listens"):
            reserve(f"unix:{path}")
    assert own_path(other, 1) != own_path(place, 1)
    for sock, pid in zip(workers, (1, 4194304), strict=True):
        sock.close()
        forget_path(place, pid)
    assert reserve(f"unix:{path}").text == place.text, "a link that leads nowhere is no obstacle"
    release(place)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    place = reserve(f"unix:{path}")
    path.symlink_to("somewhere")
    release(place)
    assert path.is_symlink()
    path.unlink()
    path.write_text("a file")
    release(place)
    with pytest.raises(StartError, match="is not a socket"):
        reserve(f"unix:{path}")
    assert path.read_text() == "a file"


def test_a_folder_must_be_there_and_not_too_long(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        reserve(f"unix:{tmp_path}/none/grpc.sock")
    folder = tmp_path / ("x" * (95 - len(os.fsencode(tmp_path))))
    with pytest.raises(StartError, match="too long"):
        reserve(f"unix:{folder}/g")
