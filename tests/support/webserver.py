"""A real HTTPS server on loopback, in the loop of the test, that says what it is told to say."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from authmilter.bimi.fetch import FetchSettings
from tests.support.marks import a_tls_authority, a_tls_certificate, pem

__all__ = ["STALL", "WebServer", "answer", "redirect", "serving"]

#: In an answer: nothing more is sent from here on, and the connection stays open.
STALL = b"\0stall\0"


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """Return an HTTP response."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    """Return a response that sends to another address."""
    return answer(b"", f"Location: {location}", status=status)


@dataclass
class WebServer:
    """A server at work: what it was asked, and how to fetch from it."""

    port: int
    settings: FetchSettings
    #: request heads as they came, and the names in SNI
    requests: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    pages: dict[str, bytes] = field(default_factory=dict)

    def url(self, path: str, host: str = "logo.example") -> str:
        """Return the address of a page."""
        return f"https://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    pages: Mapping[str, bytes],
    *,
    names: tuple[str, ...] = ("logo.example", "crl.example"),
    expired: bool = False,
    timeout: float = 5.0,  # noqa: ASYNC109 - the fetcher's, not ours
    tls: bool = True,
    trusted: bool = True,
) -> AsyncIterator[WebServer]:
    """Serve pages (path -> whole response) until the block ends."""
    certificate, key = a_tls_certificate(*names, expired=expired)
    (folder / "server.pem").write_bytes(certificate + key)
    (folder / "ca.pem").write_bytes(pem(a_tls_authority().certificate))
    context: ssl.SSLContext | None = None
    running = WebServer(0, FetchSettings(), pages=dict(pages))
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        context.sni_callback = lambda _socket, name, _context: running.names.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            running.requests.append(head)
            page = running.pages.get(head.split(b" ", 2)[1].decode(), answer(b"", status="404 Not Found"))
            said, stalled, _ = page.partition(STALL)
            writer.write(said)
            await writer.drain()
            if stalled:
                await reader.read()  # until the other side has had enough
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    running.port = server.sockets[0].getsockname()[1]
    running.settings = FetchSettings(
        timeout=timeout,
        ports=frozenset({running.port}),
        plain_ports=frozenset({running.port}),
        allow_loopback=True,
        ca_file=str(folder / "ca.pem") if trusted else "",
    )
    async with server:
        yield running
