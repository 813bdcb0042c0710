"""Fetching what a stranger's record names, without being sent where he likes (the room of httpx).

A stranger chooses the address, so that the fetch is refused unless every step is harmless:

- https on port 443 (and plain http on 80 where the caller says so: revocation lists are signed), a host name, no user,
  no address in place of a name;
- the name is resolved once, by our own resolver; if any of its addresses is not one of the public Internet, nothing is
  connected to; the connection goes to the very address that was looked at, with the name in SNI, `Host` and the
  certificate's check, so that a second answer of the DNS changes nothing;
- each redirection begins again at the first step, and they are few;
- one limit of time for everything, one of size for what comes over the wire and what it unpacks to; no cookies, no
  proxy or other setting from the environment.

How it fails: `fetch` returns a `FetchFailure`, which says whether it may pass; it does not raise.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import zlib
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from urllib.parse import urljoin

import httpx

from authmilter.deadline import Deadline
from authmilter.dns.answer import Failed, Found, NxDomain, Question, RdType
from authmilter.names import Domain, IPAddress
from authmilter.ports import Resolver
from authmilter.text import printable

__all__ = [
    "MAX_ADDRESSES",
    "MAX_URL",
    "FetchFailure",
    "FetchProblem",
    "FetchSettings",
    "Fetched",
    "Fetcher",
    "Target",
    "is_public",
    "parse_url",
]

#: Characters of an address (URL) that are read.
MAX_URL = 2048
#: Addresses of a host that are looked at, and how many of them are tried.
MAX_ADDRESSES, _TRIED = 16, 3
#: Under which `_keep_location` puts it.
_LOCATION = "authmilter.location"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Answers that may be another one later: request timeout, too many requests; and every 5xx.
_PASSING = frozenset({408, 425, 429})
_USER_AGENT = "authmilter (BIMI evidence)"
_SHOWN = 100

# RFC 3986 §3: scheme "://" authority path [ "?" query ] [ "#" fragment ], printable US-ASCII without the characters a
# URI has to encode; a backslash is one of those (some read it as a slash)
_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE)
_NOT_IN_A_URL = re.compile(r'[^!-~]|["<>\\^`{|}]')
_PORT = re.compile(r"[0-9]{1,5}")
# https://url.spec.whatwg.org/#ends-in-a-number-checker: such a "name" is an IPv4 address to many a library
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")

#: Where no evidence is: the IANA special-purpose registries (RFC 6890), addresses of clouds' own services among them.
_NOT_PUBLIC = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        # IETF protocol assignments (Teredo, benchmarking, ORCHID), documentation, 6to4, AS112
        "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
    )
)  # fmt: skip
#: RFC 4291 §2.4, §2.5.4: global unicast is what IANA has given out of 2000::/3; loopback, mapped, translated, local and
#: multicast addresses are outside of it.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: RFC 6052 §2.1: an IPv4 address seen through NAT64 is what its last four octets are.
_NAT64 = IPv6Network("64:ff9b::/96")


class FetchProblem(StrEnum):
    """Why nothing was fetched: a closed list."""

    #: not an address of the form `https://host/path`, or far too long
    URL = "fetch_url"
    #: a scheme other than https
    SCHEME = "fetch_scheme"
    #: user or password before the host
    USERINFO = "fetch_userinfo"
    #: a port other than 443
    PORT = "fetch_port"
    #: an IP address, a single label or a number in place of a host name
    HOST = "fetch_host"
    #: the host's name does not exist or has no address
    NO_ADDRESS = "fetch_no_address"
    #: an address of the host is not one of the public Internet
    ADDRESS = "fetch_address"
    #: the DNS did not answer
    DNS = "fetch_dns"
    #: no connection, or it broke
    CONNECTION = "fetch_connection"
    #: no TLS, or a certificate that does not hold for the host
    TLS = "fetch_tls"
    #: time ran out
    TIMEOUT = "fetch_timeout"
    #: the server answers with an error
    STATUS = "fetch_status"
    #: more redirections than are followed, or a circle of them
    REDIRECTS = "fetch_redirects"
    #: larger than allowed, packed or unpacked
    SIZE = "fetch_size"
    #: a content encoding other than gzip, or damaged
    ENCODING = "fetch_encoding"


#: What may be otherwise at the next try.
_TEMPORARY = frozenset({FetchProblem.DNS, FetchProblem.CONNECTION, FetchProblem.TLS, FetchProblem.TIMEOUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """Limits of a fetch.

    Attributes:
        timeout: seconds for everything together: names, connections, redirections, content.
        redirects: how many are followed.
        ports: ports that may be asked for https. In production 443 alone.
        plain_ports: ports that may be asked for http, where the caller allows http at all.
        allow_loopback: connect to loopback addresses too. For tests against a server of their own; never in production.
        ca_file: a PEM file of authorities for TLS; empty: those of the system.
    """

    timeout: float = 10.0
    redirects: int = 3
    ports: frozenset[int] = frozenset({443})
    plain_ports: frozenset[int] = frozenset({80})
    allow_loopback: bool = False
    ca_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A document: its octets (content encoding undone), and where they came from.

    `url` is the address after redirections, `content_type` the server's word as printable ASCII (it decides nothing),
    `redirects` how many were followed.
    """

    url: str
    body: bytes
    content_type: str = ""
    redirects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFailure:
    """Why there is no document: `detail` are our own words, `temporary` says that another try may have it."""

    problem: FetchProblem
    detail: str
    temporary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address that may be asked, as `parse_url` reads it."""

    secure: bool
    host: Domain
    port: int
    path: str

    @property
    def url(self) -> str:
        """The address in one form, for comparing and showing."""
        scheme, usual = ("https", 443) if self.secure else ("http", 80)
        port = "" if self.port == usual else f":{self.port}"
        return f"{scheme}://{self.host}{port}{self.path}"


class _Refused(Exception):  # noqa: N818 - ends a fetch inside this module, never leaves it
    """A step of the fetch was refused."""

    def __init__(self, problem: FetchProblem, detail: str, *, temporary: bool | None = None) -> None:
        super().__init__(detail)
        self.failure = FetchFailure(
            problem=problem,
            detail=detail,
            temporary=problem in _TEMPORARY if temporary is None else temporary,
        )


def parse_url(text: str, settings: FetchSettings, *, plain: bool = False) -> Target | FetchFailure:
    """Read an address that a stranger gave.

    Args:
        text: the address.
        settings: for the ports.
        plain: http is allowed too.

    Returns:
        What to connect to, or why not. Nothing is repaired: white space, a backslash or a character that a URI has to
        encode makes it no address.
    """
    try:
        return _target(text, settings, plain=plain)
    except _Refused as refused:
        return refused.failure


def _target(text: str, settings: FetchSettings, *, plain: bool) -> Target:
    if len(text) > MAX_URL or _NOT_IN_A_URL.search(text):
        raise _Refused(FetchProblem.URL, "the address is too long or holds a character that does not belong")
    found = _URL.fullmatch(text)
    if found is None:
        scheme, colon, _ = text.partition("://")
        if colon and scheme.isalnum():
            raise _Refused(FetchProblem.SCHEME, f"{printable(scheme, 20)} is not fetched, only https is")
        raise _Refused(FetchProblem.URL, "the address is not of the form https://host/path")
    secure = found[1].lower() == "https"
    if not secure and not plain:
        raise _Refused(FetchProblem.SCHEME, "http is not fetched, only https is")
    authority: str = found[2]
    if "@" in authority:
        raise _Refused(FetchProblem.USERINFO, "the address has a user before the host")
    name, colon, digits = authority.partition(":")
    if name.startswith("[") or "%" in name:
        raise _Refused(FetchProblem.HOST, "the host of the address is not a name")
    port = 443 if secure else 80
    if colon:
        if not _PORT.fullmatch(digits):
            raise _Refused(FetchProblem.PORT, "the port of the address is not a number")
        port = int(digits)
    if port not in (settings.ports if secure else settings.plain_ports):
        raise _Refused(FetchProblem.PORT, f"port {port} is not asked")
    return Target(secure=secure, host=_host(name), port=port, path=(found[3] or "/") + (found[4] or ""))


def _host(name: str) -> Domain:
    host = Domain.maybe(name)
    if host is None or len(host.labels) < 2 or _NUMERIC.fullmatch(host.labels[-1]):
        raise _Refused(FetchProblem.HOST, f"the host {printable(name, 60)!r} is not a name of the public DNS")
    return host


def is_public(address: IPAddress) -> bool:
    """True of a unicast address of the public Internet: where a stranger may send us.

    Not private, shared, loopback, link-local (where clouds keep their metadata), multicast, unspecified, documentation
    or benchmarking; an IPv6 address that stands for an IPv4 one is not either (RFC 4291 §2.5.5, RFC 3056, RFC 4380),
    but for NAT64 (RFC 6052), where the IPv4 address decides.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    return not any(address.version == network.version and address in network for network in _NOT_PUBLIC)


def _is_loopback(address: IPAddress) -> bool:
    """Say so of the plain form only: Python 3.13 and later say it of mapped addresses, too."""
    return address.is_loopback and not (isinstance(address, IPv6Address) and address.ipv4_mapped)


class Fetcher:
    """Fetches one document at a time, or several: nothing is kept between them.

    Args:
        resolver: who resolves names; nothing else does.
        settings: the limits.

    Raises:
        OSError: `ca_file` cannot be read (ssl.SSLError: is no list of certificates).
    """

    __slots__ = ("_resolver", "_settings", "_tls")

    def __init__(self, resolver: Resolver, settings: FetchSettings | None = None) -> None:
        self._resolver = resolver
        self._settings = settings if settings is not None else FetchSettings()
        self._tls = ssl.create_default_context(cafile=self._settings.ca_file or None)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_alpn_protocols(["http/1.1"])

    @property
    def resolver(self) -> Resolver:
        """Who resolves names."""
        return self._resolver

    async def fetch(self, url: str, *, max_size: int, plain: bool = False) -> Fetched | FetchFailure:
        """Return the document at `url`, or why there is none.

        Args:
            url: where it is, as a stranger wrote it.
            max_size: octets, of what comes over the wire and of what it unpacks to.
            plain: http is allowed too (for what is signed itself).
        """
        deadline = Deadline.after(self._settings.timeout)
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await self._follow(url, max_size, deadline, plain=plain)
        except TimeoutError:
            return FetchFailure(
                problem=FetchProblem.TIMEOUT,
                detail=f"not fetched within {self._settings.timeout:g} s",
                temporary=True,
            )
        except _Refused as refused:
            return refused.failure

    async def _follow(self, url: str, max_size: int, deadline: Deadline, *, plain: bool) -> Fetched:
        seen: set[str] = set()
        for followed in range(self._settings.redirects + 1):
            target = _target(url, self._settings, plain=plain)
            if target.url in seen:
                raise _Refused(FetchProblem.REDIRECTS, "the redirections go in a circle")
            seen.add(target.url)
            addresses = await self._addresses(target.host, deadline)
            answer = await self._ask(target, addresses, max_size)
            if isinstance(answer, _Document):
                return Fetched(
                    url=target.url,
                    body=answer.body,
                    content_type=printable(answer.content_type, _SHOWN),
                    redirects=followed,
                )
            url = answer
        raise _Refused(FetchProblem.REDIRECTS, f"more than {self._settings.redirects} redirections")

    async def _addresses(self, host: Domain, deadline: Deadline) -> tuple[IPAddress, ...]:
        """Return the addresses of a host, all of them looked at."""
        questions = (Question.of(host.ascii, RdType.A), Question.of(host.ascii, RdType.AAAA))
        answers = await asyncio.gather(*(self._resolver.fetch(q, deadline) for q in questions))
        found = [a for answer in answers if isinstance(answer, Found) for a in answer.addresses()]
        if not found:
            failed = next((a for a in answers if isinstance(a, Failed)), None)
            if failed is not None:
                raise _Refused(FetchProblem.DNS, f"the addresses of {host} could not be asked: {failed.kind}")
            gone = isinstance(answers[0], NxDomain)
            raise _Refused(
                FetchProblem.NO_ADDRESS, f"{host} {'does not exist' if gone else 'has no address'}"
            )
        if len(found) > MAX_ADDRESSES:
            raise _Refused(FetchProblem.ADDRESS, f"{host} has more than {MAX_ADDRESSES} addresses")
        for address in found:
            # One that is not allowed refuses the host: who points a name inside has nothing to say outside.
            if not is_public(address) and not (self._settings.allow_loopback and _is_loopback(address)):
                raise _Refused(FetchProblem.ADDRESS, f"{host} has the address {address}, which is not public")
        return tuple(found)

    async def _ask(self, target: Target, addresses: tuple[IPAddress, ...], max_size: int) -> _Document | str:
        """Return the document, or the address that the server sends us to."""
        last = _Refused(FetchProblem.CONNECTION, f"no connection to {target.host}")
        for address in addresses[:_TRIED]:
            try:
                return await self._ask_at(target, address, max_size)
            except httpx.ConnectError as e:
                last = _Refused(
                    FetchProblem.TLS if _is_tls(e) else FetchProblem.CONNECTION,
                    f"no connection to {target.host}: {printable(str(e) or type(e).__name__, _SHOWN)}",
                )
            except httpx.TimeoutException:
                last = _Refused(FetchProblem.TIMEOUT, f"{target.host} did not answer in time")
            except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as e:
                problem = FetchProblem.TLS if _is_tls(e) else FetchProblem.CONNECTION
                last = _Refused(problem, f"the exchange with {target.host} broke ({type(e).__name__})")
        raise last

    async def _ask_at(self, target: Target, address: IPAddress, max_size: int) -> _Document | str:
        """Ask one address; the name is in SNI, in the certificate's check and in Host."""
        at = f"[{address}]" if address.version == 6 else str(address)
        scheme = "https" if target.secure else "http"
        port = "" if target.port == (443 if target.secure else 80) else f":{target.port}"
        async with (
            httpx.AsyncClient(
                verify=self._tls,
                trust_env=False,
                follow_redirects=False,
                event_hooks={"response": [_keep_location]},
                http1=True,
                http2=False,
                # so that a second address is tried where the first does not answer
                timeout=httpx.Timeout(self._settings.timeout, connect=self._settings.timeout / _TRIED),
            ) as client,
            client.stream(
                "GET",
                f"{scheme}://{at}:{target.port}{target.path}",
                headers={
                    "Host": f"{target.host}{port}",
                    "User-Agent": _USER_AGENT,
                    "Accept": "*/*",
                    "Accept-Encoding": "gzip, identity",
                    "Connection": "close",
                },
                extensions={"sni_hostname": target.host.ascii},
            ) as response,
        ):
            return await _read(response, target, max_size)


@dataclass(frozen=True, slots=True)
class _Document:
    body: bytes
    content_type: str


async def _keep_location(response: httpx.Response) -> None:
    """Put where a server sends us out of httpx's sight, which reads it even where it does not follow."""
    response.extensions[_LOCATION] = response.headers.get("location", "")
    if "location" in response.headers:
        del response.headers["location"]


async def _read(response: httpx.Response, target: Target, max_size: int) -> _Document | str:
    status = response.status_code
    if status in _REDIRECTS:
        location = response.extensions[_LOCATION]
        try:
            return urljoin(target.url, str(location))
        except ValueError:
            raise _Refused(FetchProblem.URL, "the server redirects to what is no address") from None
    if status != 200:
        passing = status in _PASSING or status >= 500
        raise _Refused(FetchProblem.STATUS, f"{target.host} answers {status}", temporary=passing)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", ""}:
        raise _Refused(FetchProblem.ENCODING, f"content encoding {printable(encoding, 20)} is not read")
    packed = encoding.endswith("gzip")
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > max_size:
        raise _Refused(FetchProblem.SIZE, f"the document has {int(length)} octets, {max_size} are allowed")
    # RFC 1952, unpacked as it comes so that a bomb stops at the limit
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed else None
    body, wire = bytearray(), 0
    # as it arrives: asked for pieces of a size, httpx would wait until one is full
    async for chunk in response.aiter_raw():
        wire += len(chunk)
        if reader is None:
            body += chunk
        else:
            try:
                body += reader.decompress(chunk, max_size + 1 - len(body))
            except zlib.error:
                raise _Refused(FetchProblem.ENCODING, "the compressed content is damaged") from None
        if wire > max_size or len(body) > max_size:
            raise _Refused(FetchProblem.SIZE, f"the document has more than {max_size} octets")
    if reader is not None and not reader.eof:
        raise _Refused(FetchProblem.ENCODING, "the compressed content is cut")
    return _Document(bytes(body), response.headers.get("content-type", ""))


def _is_tls(error: BaseException) -> bool:
    """True if a TLS failure is at the bottom of an exception (httpx folds it into its own)."""
    seen: BaseException | None = error
    for _ in range(8):
        if isinstance(seen, ssl.SSLError):
            return True
        if seen is None:
            return False
        seen = seen.__cause__ or seen.__context__
    return False
