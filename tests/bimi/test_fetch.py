"""Fetching what a stranger names: over a real TLS server on loopback, and every way to be led elsewhere refused."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.bimi.fetch import (
    MAX_ADDRESSES,
    MAX_URL,
    Fetched,
    Fetcher,
    FetchFailure,
    FetchProblem,
    FetchSettings,
    Target,
    is_public,
    parse_url,
)
from authmilter.deadline import Deadline
from authmilter.dns.answer import Answer, Found, NoData, Question, RdType
from authmilter.dns.zone import ZoneResolver
from authmilter.ports import Resolver
from tests.support.webserver import STALL, WebServer, answer, redirect, serving

ZONE: Mapping[str, object] = {
    "logo.example": {"A": ["127.0.0.1"]},
    "other.example": {"A": ["127.0.0.1"]},
    "inside.example": {"A": ["10.0.0.1"]},
    "metadata.example": {"A": ["169.254.169.254"]},
    "both.example": {"A": ["127.0.0.1", "192.168.0.1"]},
    "six.example": {"AAAA": ["fe80::1"]},
    "mapped.example": {"AAAA": ["::ffff:127.0.0.1"]},
    "half.example": {"A": ["127.0.0.1"], "AAAA": ["fd00::1"]},
    "many.example": {"A": [f"127.0.0.{n}" for n in range(1, MAX_ADDRESSES + 2)]},
    "mail.example": {"MX": ["10 mx.example"]},
    "late.example": "TIMEOUT",
}
DOCUMENT = b"<svg/>" * 100
STRICT = FetchSettings()


def fetch(
    folder: Path,
    pages: Mapping[str, bytes],
    path: str = "/a",
    *,
    url: str = "",
    max_size: int = 10_000,
    resolver: Resolver | None = None,
    timeout: float = 5.0,
    plain: bool = False,
    tls: bool = True,
    trusted: bool = True,
    expired: bool = False,
    names: tuple[str, ...] = ("logo.example",),
) -> tuple[Fetched | FetchFailure, WebServer]:
    """Serve pages, fetch one, and return what came with the server as it was left. `PORT` in pages is its port."""

    async def run() -> tuple[Fetched | FetchFailure, WebServer]:
        async with serving(
            folder, {}, timeout=timeout, tls=tls, trusted=trusted, expired=expired, names=names
        ) as server:
            port = str(server.port)
            server.pages.update({p: page.replace(b"PORT", port.encode()) for p, page in pages.items()})
            fetcher = Fetcher(resolver if resolver is not None else ZoneResolver(ZONE), server.settings)
            where = url.replace("PORT", port) if url else server.url(path)
            return await fetcher.fetch(where, max_size=max_size, plain=plain), server

    return asyncio.run(run())


def problem(found: Fetched | FetchFailure) -> FetchProblem:
    assert isinstance(found, FetchFailure)
    assert found.detail.isascii()
    assert found.detail.isprintable()
    return found.problem


def test_a_document_is_fetched_with_its_name_in_sni_and_host(tmp_path: Path) -> None:
    found, server = fetch(tmp_path, {"/a?b=c": answer(DOCUMENT, "Content-Type: image/svg+xml")}, "/a?b=c")
    assert found == Fetched(url=server.url("/a?b=c"), body=DOCUMENT, content_type="image/svg+xml")
    assert server.names == ["logo.example"]
    head = server.requests[0].lower()
    assert f"host: logo.example:{server.port}\r\n".encode() in head
    assert b"cookie" not in head
    assert b"authorization" not in head


def test_compressed_content_is_unpacked(tmp_path: Path) -> None:
    page = answer(gzip.compress(DOCUMENT), "Content-Encoding: gzip")
    found, _ = fetch(tmp_path, {"/a": page})
    assert isinstance(found, Fetched)
    assert found.body == DOCUMENT


def test_a_compressed_file_stays_as_it_is(tmp_path: Path) -> None:
    found, _ = fetch(tmp_path, {"/a": answer(gzip.compress(DOCUMENT, mtime=0))})
    assert isinstance(found, Fetched)
    assert found.body == gzip.compress(DOCUMENT, mtime=0)


def test_redirections_are_followed(tmp_path: Path) -> None:
    pages = {
        "/a": redirect("/b"),
        "/b": redirect("https://logo.example:PORT/c", "301 Moved"),
        "/c": redirect("d", "308 Permanent Redirect"),
        "/d": answer(DOCUMENT),
    }
    found, server = fetch(tmp_path, pages)
    assert found == Fetched(url=server.url("/d"), body=DOCUMENT, redirects=3)


def test_cookies_are_not_kept_over_a_redirection(tmp_path: Path) -> None:
    pages = {"/a": answer(b"", "Location: /b", "Set-Cookie: a=b", status="302 Found"), "/b": answer(b"x")}
    found, server = fetch(tmp_path, pages)
    assert isinstance(found, Fetched)
    assert b"cookie" not in server.requests[1].lower()


def test_a_proxy_of_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    found, _ = fetch(tmp_path, {"/a": answer(DOCUMENT)})
    assert isinstance(found, Fetched)


# -- addresses that a record may not name --------------------------------------------------------------------------------

REFUSED = {
    "http": ("http://logo.example/a", FetchProblem.SCHEME),
    "ftp": ("ftp://logo.example/a", FetchProblem.SCHEME),
    "file": ("file:///etc/passwd", FetchProblem.SCHEME),
    "gopher": ("gopher://logo.example:25/_EHLO", FetchProblem.SCHEME),
    "data": ("data:image/svg+xml,<svg/>", FetchProblem.URL),
    "javascript": ("javascript:alert(1)", FetchProblem.URL),
    "no scheme": ("//logo.example/a", FetchProblem.URL),
    "a path": ("/etc/passwd", FetchProblem.URL),
    "nothing": ("", FetchProblem.URL),
    "one slash": ("https:/logo.example/a", FetchProblem.URL),
    "a user": ("https://user@logo.example/a", FetchProblem.USERINFO),
    "a user and a password": ("https://user:secret@logo.example/a", FetchProblem.USERINFO),
    "a host as user": ("https://logo.example@127.0.0.1/a", FetchProblem.USERINFO),
    "a host and port as user": ("https://logo.example:443@evil.example/a", FetchProblem.USERINFO),
    "an empty user": ("https://@logo.example/a", FetchProblem.USERINFO),
    "port 80": ("https://logo.example:80/a", FetchProblem.PORT),
    "port 8443": ("https://logo.example:8443/a", FetchProblem.PORT),
    "port 22": ("https://logo.example:22/a", FetchProblem.PORT),
    "port 25": ("https://logo.example:25/a", FetchProblem.PORT),
    "port 0": ("https://logo.example:0/a", FetchProblem.PORT),
    "port 65979": ("https://logo.example:65979/a", FetchProblem.PORT),
    "an empty port": ("https://logo.example:/a", FetchProblem.PORT),
    "no number as port": ("https://logo.example:https/a", FetchProblem.PORT),
    "two ports": ("https://logo.example:443:25/a", FetchProblem.PORT),
    "an IPv4 address": ("https://127.0.0.1/a", FetchProblem.HOST),
    "a public IPv4 address": ("https://9.9.9.9/a", FetchProblem.HOST),
    "a decimal address": ("https://2130706433/a", FetchProblem.HOST),
    "an octal address": ("https://0177.0.0.1/a", FetchProblem.HOST),
    "a hexadecimal address": ("https://0x7f000001/a", FetchProblem.HOST),
    "a hexadecimal last part": ("https://127.0.0.0x1/a", FetchProblem.HOST),
    "a bare 0x": ("https://127.0.0.0x/a", FetchProblem.HOST),
    "a short address": ("https://127.1/a", FetchProblem.HOST),
    "zero": ("https://0/a", FetchProblem.HOST),
    "an address with a dot behind": ("https://127.0.0.1./a", FetchProblem.HOST),
    "IPv6 loopback": ("https://[::1]/a", FetchProblem.HOST),
    "IPv6 mapped": ("https://[::ffff:127.0.0.1]/a", FetchProblem.HOST),
    "IPv6 with a scope": ("https://[fe80::1%25eth0]/a", FetchProblem.HOST),
    "an encoded host": ("https://%6cogo.example/a", FetchProblem.HOST),
    "localhost": ("https://localhost/a", FetchProblem.HOST),
    "a single label": ("https://intranet/a", FetchProblem.HOST),
    "no host": ("https:///a", FetchProblem.HOST),
    "an empty label": ("https://logo..example/a", FetchProblem.HOST),
    "a wide dot": ("https://127\u30020\u30020\u30021/a", FetchProblem.URL),
    "a backslash": ("https://logo.example\\@127.0.0.1/a", FetchProblem.URL),
    "white space": ("https://logo.example /a", FetchProblem.URL),
    "a line end": ("https://logo.example/a\r\nHost: x", FetchProblem.URL),
    "a zero": ("https://logo.example/\0", FetchProblem.URL),
    "a U-label": ("https://b\u00fccher.example/a", FetchProblem.URL),
    "too long": ("https://logo.example/" + "a" * MAX_URL, FetchProblem.URL),
}  # fmt: skip


@pytest.mark.parametrize(("url", "why"), REFUSED.values(), ids=list(REFUSED))
def test_an_address_that_leads_elsewhere_is_refused(url: str, why: FetchProblem) -> None:
    found = parse_url(url, STRICT)
    assert isinstance(found, FetchFailure)
    assert found.problem is why
    assert not found.temporary


def test_every_refused_address_of_the_table_is_one() -> None:
    assert len(REFUSED) == 49


#: Those that mean something else where they are read relative to the address they came from.
RELATIVE = {"/etc/passwd", "https:/logo.example/a"}


@pytest.mark.parametrize(
    "url",
    [u for u, _ in REFUSED.values() if u.isascii() and u.isprintable() and u not in RELATIVE],
)
def test_a_redirection_is_looked_at_as_the_first_address_is(tmp_path: Path, url: str) -> None:
    found, server = fetch(tmp_path, {"/a": answer(b"", f"Location: {url}", status="302 Found")})
    assert isinstance(found, FetchFailure)
    assert not found.temporary
    assert len(server.requests) == 1


def test_a_relative_redirection_stays_on_its_server(tmp_path: Path) -> None:
    pages = {"/a": redirect("/etc/passwd"), "/etc/passwd": answer(b"a page")}
    found, server = fetch(tmp_path, pages)
    assert found == Fetched(url=server.url("/etc/passwd"), body=b"a page", redirects=1)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://logo.example", "https://logo.example/"),
        ("HTTPS://LOGO.Example./a", "https://logo.example/a"),
        ("https://logo.example:443/a?b=c#d", "https://logo.example/a?b=c"),
        ("https://logo.example?b", "https://logo.example/?b"),
    ],
)
def test_an_address_has_one_form(url: str, target: str) -> None:
    found = parse_url(url, STRICT)
    assert isinstance(found, Target)
    assert found.url == target


def test_http_is_for_those_who_ask_for_it(tmp_path: Path) -> None:
    found, _ = fetch(tmp_path, {"/a": answer(b"x")}, url="http://logo.example:PORT/a", tls=False, plain=True)
    assert isinstance(found, Fetched)
    found, server = fetch(tmp_path, {"/a": answer(b"x")}, url="http://logo.example:PORT/a", tls=False)
    assert problem(found) is FetchProblem.SCHEME
    assert server.requests == []


def test_a_redirection_never_leads_down_to_http(tmp_path: Path) -> None:
    found, server = fetch(tmp_path, {"/a": redirect("http://logo.example:PORT/b"), "/b": answer(b"x")})
    assert problem(found) is FetchProblem.SCHEME
    assert len(server.requests) == 1


# -- where names lead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["inside", "metadata", "both", "six", "mapped", "half", "many"])
def test_a_name_with_an_address_inside_is_refused(tmp_path: Path, host: str) -> None:
    found, server = fetch(tmp_path, {"/a": answer(b"x")}, url=f"https://{host}.example:PORT/a")
    assert problem(found) is FetchProblem.ADDRESS
    assert server.requests == []


@pytest.mark.parametrize("host", ["inside", "metadata", "both", "six", "mapped", "half"])
def test_a_redirection_to_a_name_inside_is_refused(tmp_path: Path, host: str) -> None:
    found, server = fetch(tmp_path, {"/a": redirect(f"https://{host}.example:PORT/b"), "/b": answer(b"x")})
    assert problem(found) is FetchProblem.ADDRESS
    assert len(server.requests) == 1


def test_loopback_is_refused_unless_a_test_allows_it() -> None:
    found = asyncio.run(Fetcher(ZoneResolver(ZONE)).fetch("https://logo.example/a", max_size=100))
    assert problem(found) is FetchProblem.ADDRESS


def test_a_redirection_to_loopback_by_number_is_refused(tmp_path: Path) -> None:
    found, server = fetch(tmp_path, {"/a": redirect("https://127.0.0.1:PORT/b"), "/b": answer(b"x")})
    assert problem(found) is FetchProblem.HOST
    assert len(server.requests) == 1


class Rebinding:
    """A resolver whose every answer for A is the next of a list."""

    def __init__(self, *addresses: str) -> None:
        self.left = list(addresses)
        self.asked = 0

    def known(self, question: Question) -> Answer | None:
        raise AssertionError(question)

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:
        assert not deadline.expired
        if question.rdtype is not RdType.A:
            return NoData()
        self.asked += 1
        return Found((ip_address(self.left.pop(0)),), ttl=0.0)


def test_the_connection_goes_to_the_address_that_was_looked_at(tmp_path: Path) -> None:
    resolver = Rebinding("127.0.0.1", "10.0.0.1")
    found, server = fetch(tmp_path, {"/a": answer(DOCUMENT)}, resolver=resolver)
    assert isinstance(found, Fetched)
    assert resolver.asked == 1
    assert len(server.requests) == 1


def test_a_name_that_turns_inside_before_a_redirection_is_refused(tmp_path: Path) -> None:
    resolver = Rebinding("127.0.0.1", "10.0.0.1")
    found, server = fetch(tmp_path, {"/a": redirect("/b"), "/b": answer(b"x")}, resolver=resolver)
    assert problem(found) is FetchProblem.ADDRESS
    assert len(server.requests) == 1


def test_a_name_without_an_address_is_no_document() -> None:
    for host, why in (
        ("nothing.example", FetchProblem.NO_ADDRESS),
        ("mail.example", FetchProblem.NO_ADDRESS),
        ("late.example", FetchProblem.DNS),
    ):
        found = asyncio.run(Fetcher(ZoneResolver(ZONE)).fetch(f"https://{host}/a", max_size=100))
        assert problem(found) is why
        assert isinstance(found, FetchFailure)
        assert found.temporary is (why is FetchProblem.DNS)


PUBLIC = ["9.9.9.9", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0", "2620:fe::9", "2a00:1450::1", "2001:200::1",
          "64:ff9b::909:909"]  # fmt: skip
NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:9.9.9.9", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:909:909::1", "3fff::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_of_the_public_internet_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_address_of_no_public_host_is_not(text: str) -> None:
    assert not is_public(ip_address(text))


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: object) -> None:
    parsed = ip_address(str(address))
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        assert not is_public(parsed)
    if parsed.is_private and parsed.version == 4:
        assert not is_public(parsed)


# -- TLS -----------------------------------------------------------------------------------------------------------------


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    found, server = fetch(tmp_path, {"/a": answer(b"x")}, url="https://other.example:PORT/a")
    assert problem(found) is FetchProblem.TLS
    assert server.requests == []


def test_a_certificate_for_the_address_is_not_one_for_the_name(tmp_path: Path) -> None:
    found, server = fetch(tmp_path, {"/a": answer(b"x")}, names=("127.0.0.1",))
    assert problem(found) is FetchProblem.TLS
    assert server.requests == []


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    found, _ = fetch(tmp_path, {"/a": answer(b"x")}, expired=True)
    assert problem(found) is FetchProblem.TLS


def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    found, _ = fetch(tmp_path, {"/a": answer(b"x")}, trusted=False)
    assert problem(found) is FetchProblem.TLS


def test_a_server_without_tls_is_refused(tmp_path: Path) -> None:
    found, _ = fetch(tmp_path, {"/a": answer(b"x")}, tls=False, timeout=1.0)
    assert problem(found) in {FetchProblem.TLS, FetchProblem.TIMEOUT}


# -- limits --------------------------------------------------------------------------------------------------------------


def test_the_size_is_limited_from_both_sides(tmp_path: Path) -> None:
    found, _ = fetch(tmp_path, {"/a": answer(b"x" * 1000)}, max_size=1000)
    assert isinstance(found, Fetched)
    found, _ = fetch(tmp_path, {"/a": answer(b"x" * 1001)}, max_size=1000)
    assert problem(found) is FetchProblem.SIZE
    found, _ = fetch(tmp_path, {"/a": answer(b"x" * 1001, length=False)}, max_size=1000)
    assert problem(found) is FetchProblem.SIZE


def test_a_document_that_never_ends_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    page = answer(b"x" * 2000 + STALL, length=False)
    found, _ = fetch(tmp_path, {"/a": page}, max_size=1000, timeout=30.0)
    assert problem(found) is FetchProblem.SIZE


def test_a_length_that_is_too_large_is_believed(tmp_path: Path) -> None:
    page = answer(STALL, "Content-Length: 99999999", length=False)
    found, _ = fetch(tmp_path, {"/a": page}, timeout=30.0)
    assert problem(found) is FetchProblem.SIZE


def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    page = answer(gzip.compress(bytes(20_000_000)), "Content-Encoding: gzip")
    found, _ = fetch(tmp_path, {"/a": page}, max_size=100_000)
    assert problem(found) is FetchProblem.SIZE


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (DOCUMENT, "gzip"),
        (gzip.compress(DOCUMENT)[:-9], "gzip"),
        (zlib.compress(DOCUMENT), "deflate"),
        (DOCUMENT, "br"),
        (DOCUMENT, "gzip, gzip"),
    ],
    ids=["not gzip", "cut", "deflate", "brotli", "twice"],
)
def test_a_content_encoding_that_is_not_read_is_refused(tmp_path: Path, body: bytes, encoding: str) -> None:
    found, _ = fetch(tmp_path, {"/a": answer(body, f"Content-Encoding: {encoding}")})
    assert problem(found) is FetchProblem.ENCODING


@pytest.mark.parametrize(
    "page",
    [STALL, b"HTTP/1.1 200 OK\r\n" + STALL, answer(b"x" * 10 + STALL, length=False)],
    ids=["no answer", "half a head", "half a body"],
)
def test_a_slow_server_is_given_up(tmp_path: Path, page: bytes) -> None:
    found, _ = fetch(tmp_path, {"/a": page}, timeout=0.3)
    assert problem(found) is FetchProblem.TIMEOUT
    assert isinstance(found, FetchFailure)
    assert found.temporary


def test_redirections_in_a_circle_are_noticed(tmp_path: Path) -> None:
    found, server = fetch(tmp_path, {"/a": redirect("/b"), "/b": redirect("/a#again")})
    assert problem(found) is FetchProblem.REDIRECTS
    assert len(server.requests) == 2


def test_redirections_are_limited_from_both_sides(tmp_path: Path) -> None:
    pages = {f"/{n}": redirect(f"/{n + 1}") for n in range(4)} | {"/4": answer(b"x")}
    found, _ = fetch(tmp_path, pages, "/1")
    assert isinstance(found, Fetched)
    found, server = fetch(tmp_path, pages, "/0")
    assert problem(found) is FetchProblem.REDIRECTS
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "temporary"),
    [
        ("404 Not Found", False),
        ("403 Forbidden", False),
        ("204 No Content", False),
        ("206 Partial Content", False),
        ("304 Not Modified", False),
        ("408 Request Timeout", True),
        ("429 Too Many Requests", True),
        ("500 Internal Server Error", True),
        ("503 Service Unavailable", True),
    ],
)
def test_an_error_of_the_server_is_no_document(tmp_path: Path, status: str, *, temporary: bool) -> None:
    found, _ = fetch(tmp_path, {"/a": answer(b"", status=status)})
    assert problem(found) is FetchProblem.STATUS
    assert isinstance(found, FetchFailure)
    assert found.temporary is temporary


@pytest.mark.parametrize(
    "page",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx",
     b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nx", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000 + b"\r\n"],
    ids=["nothing", "garbage", "a short body", "no length", "an endless head"],
)  # fmt: skip
def test_an_exchange_that_is_not_http_is_no_document(tmp_path: Path, page: bytes) -> None:
    found, _ = fetch(tmp_path, {"/a": page})
    assert problem(found) in {FetchProblem.CONNECTION, FetchProblem.SIZE}


def test_a_port_that_nobody_listens_on_is_no_document() -> None:
    settings = FetchSettings(ports=frozenset({9}), allow_loopback=True, timeout=5.0)
    found = asyncio.run(Fetcher(ZoneResolver(ZONE), settings).fetch("https://logo.example:9/a", max_size=100))
    assert problem(found) is FetchProblem.CONNECTION


@given(st.text(max_size=80) | st.text("htps:/.@[]1x%\\?#a-", max_size=40).map(lambda text: "https://" + text))
def test_any_text_is_an_address_or_not(text: str) -> None:
    found = parse_url(text, STRICT)
    if isinstance(found, Target):
        assert found.port == 443
        assert len(found.host.labels) > 1
        again = parse_url(found.url, STRICT)
        assert again == found
