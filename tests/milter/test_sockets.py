"""Socket forms, and opening unix and TCP sockets safely."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.errors import AuthMilterError, InvalidName
from authmilter.milter.sockets import Family, ListenSpec, open_listener, owner_ids, remove_listener


@pytest.mark.parametrize(
    ("text", "canonical", "postfix"),
    [
        ("inet:8891@127.0.0.1", "inet:8891@127.0.0.1", "inet:127.0.0.1:8891"),
        ("inet:127.0.0.1:8891", "inet:8891@127.0.0.1", "inet:127.0.0.1:8891"),
        ("inet:8891@localhost", "inet:8891@localhost", "inet:localhost:8891"),
        ("INET:milter.example.com:1", "inet:1@milter.example.com", "inet:milter.example.com:1"),
        ("inet6:8891@[::1]", "inet6:8891@[::1]", "inet:[::1]:8891"),
        ("inet6:8891@::1", "inet6:8891@[::1]", "inet:[::1]:8891"),
        ("inet6:[::1]:8891", "inet6:8891@[::1]", "inet:[::1]:8891"),
        ("inet:[::1]:8891", "inet6:8891@[::1]", "inet:[::1]:8891"),
        ("inet6:[2001:DB8::0:1]:65535", "inet6:65535@[2001:db8::1]", "inet:[2001:db8::1]:65535"),
        ("inet6:8891@localhost", "inet6:8891@localhost", "inet:localhost:8891"),
        ("local:/run/a.sock", "unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:/run/a.sock", "unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix:/run/a.sock", "unix:/run/a.sock"),
        ("/run/a.sock", "unix:/run/a.sock", "unix:/run/a.sock"),
    ],
)
def test_every_known_form_is_read_and_has_one_text(text: str, canonical: str, postfix: str) -> None:
    spec = ListenSpec.parse(text)
    assert str(spec) == canonical
    assert spec.for_postfix == postfix
    assert ListenSpec.parse(canonical) == spec
    assert ListenSpec.parse(spec.for_postfix).family in {spec.family, Family.INET}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "no listening address"),
        ("8891", "no listening address"),
        ("tcp:127.0.0.1:8891", "no listening address"),
        ("run/a.sock", "no listening address"),
        ("inet:8891", "names no address"),
        ("inet:8891@", "names no address"),
        ("inet::8891", "names no address"),
        ("inet:65536@127.0.0.1", "no port number"),
        ("inet:-1@127.0.0.1", "no port number"),
        ("inet:٣@127.0.0.1", "no port number"),
        ("inet:127.0.0.1:", "no port number"),
        ("inet:x@127.0.0.1", "no port number"),
        ("inet:8891@a b", "neither an address nor a host name"),
        ("inet:8891@*", "neither an address nor a host name"),
        ("inet6:8891@127.0.0.1", "is an IPv4 address"),
        ("unix:run/a.sock", "absolute path"),
        ("unix:", "absolute path"),
        ("/run/", "absolute path"),
        ("unix:/run/a\0b", "NUL"),
        ("unix:/" + "x" * 107, "at most 107 octets"),
    ],
)
def test_other_texts_are_refused_with_a_reason(text: str, hint: str) -> None:
    with pytest.raises(InvalidName, match=hint):
        ListenSpec.parse(text)


@given(
    st.text(max_size=40)
    | st.sampled_from(["inet:", "inet6:[", "unix:/"]).flatmap(
        lambda p: st.text(max_size=20).map(lambda t: p + t)
    )
)
def test_any_text_is_a_place_or_refused(text: str) -> None:
    try:
        spec = ListenSpec.parse(text)
    except InvalidName:
        return
    assert ListenSpec.parse(str(spec)) == spec


def test_for_libmilter_has_no_brackets() -> None:
    assert ListenSpec.parse("inet6:[::1]:8891").for_libmilter == "inet6:8891@::1"
    assert ListenSpec.parse("/run/a").for_libmilter == "unix:/run/a"


def _spec(folder: Path, name: str = "m.sock") -> ListenSpec:
    return ListenSpec.parse(f"unix:{folder / name}")


def _connects(spec: ListenSpec) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(spec.path) == 0


def test_a_unix_socket_has_its_mode_and_listens(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    with open_listener(spec, mode=0o640) as sock:
        assert stat.S_IMODE(os.lstat(spec.path).st_mode) == 0o640
        assert _connects(spec)
        assert not sock.getblocking()
        assert not sock.get_inheritable()
    assert [path.name for path in tmp_path.iterdir()] == ["m.sock"]


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    open_listener(spec).close()
    assert not _connects(spec)
    with open_listener(spec) as sock:
        assert _connects(spec)
        with pytest.raises(OSError, match="another server listens") as caught:
            open_listener(spec)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.filename == spec.path
        assert _connects(spec)
        sock.listen()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    Path(spec.path).write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        open_listener(spec)
    assert Path(spec.path).read_text() == "precious"


def test_a_symbolic_link_in_the_way_is_left_alone(tmp_path: Path) -> None:
    target = _spec(tmp_path, "target")
    open_listener(target).close()
    Path(tmp_path / "m.sock").symlink_to(target.path)
    with pytest.raises(OSError, match="not a socket"):
        open_listener(_spec(tmp_path))


def test_a_folder_that_is_not_there_is_an_error_with_the_path(tmp_path: Path) -> None:
    spec = _spec(tmp_path / "absent")
    with pytest.raises(FileNotFoundError) as caught:
        open_listener(spec)
    assert caught.value.filename == spec.path


def test_a_folder_name_that_leaves_no_room_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 103:
        folder /= "x" * min(50, 103 - len(str(folder)))
    folder.mkdir(parents=True)
    with pytest.raises(OSError, match="too long"):
        open_listener(ListenSpec.parse(f"unix:{str(folder)[:103]}/m"))


def test_removing_spares_a_successor(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    first = open_listener(spec)
    assert remove_listener(spec, first)
    assert not Path(spec.path).exists()
    second = open_listener(spec)
    with second:
        with socket.socket(socket.AF_UNIX) as predecessor:
            assert not remove_listener(spec, predecessor)
        assert _connects(spec)


def test_owner_and_group_by_name_or_number() -> None:
    assert owner_ids(None, None) == (-1, -1)
    assert owner_ids("root", "0") == (0, 0)
    with pytest.raises(AuthMilterError, match="no user `nosuchuser`"):
        owner_ids("nosuchuser", None)
    with pytest.raises(AuthMilterError, match="no group `nosuchgroup`"):
        owner_ids(None, "nosuchgroup")


def test_an_owner_is_set(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may give a socket away")
    spec = _spec(tmp_path)
    with open_listener(spec, owner="1234", group="4321"):
        found = os.lstat(spec.path)
        assert (found.st_uid, found.st_gid) == (1234, 4321)


def test_tcp_sockets_listen_and_may_share_a_port() -> None:
    with open_listener(ListenSpec.parse("inet:0@127.0.0.1"), reuse_port=True) as first:
        host, port = first.getsockname()
        again = ListenSpec.parse(f"inet:{host}:{port}")
        with open_listener(again, reuse_port=True) as second:
            assert second.getsockname() == first.getsockname()
        with pytest.raises(OSError, match=str(port)) as caught:
            open_listener(again)
        assert caught.value.errno == errno.EADDRINUSE
        with socket.create_connection((host, port), timeout=5):
            pass


def test_tcp_over_ipv6_is_ipv6_only() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        sock = open_listener(ListenSpec.parse("inet6:0@[::1]"))
    except OSError as e:
        pytest.skip(f"no IPv6 loopback here: {e}")
    with sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
