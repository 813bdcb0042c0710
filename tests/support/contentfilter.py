"""A content filter for tests: takes mail by SMTP, changes it, and hands it back to the mail server by SMTP."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

from tests.support.postfix import smtp_send

__all__ = ["ContentFilter"]


class ContentFilter:
    """Start with `with`; it listens on `port` of 127.0.0.1.

    Args:
        port: where to listen.
        hand_back: the SMTP port that gets the mail back; to be set before mail comes.
        change: what is done to a message (CRLF line ends).
    """

    def __init__(self, port: int, change: Callable[[bytes], bytes], hand_back: int = 0) -> None:
        self.port = port
        self.hand_back = hand_back
        self.change = change
        self.seen: list[bytes] = []

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", self.port), _Session)
        self._server.filter = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def take(self, mail_from: str, rcpt_to: tuple[str, ...], message: bytes) -> str:
        """Hand a message back, changed; returns the mail server's reply."""
        self.seen.append(message)
        said = smtp_send(
            self.hand_back,
            self.change(message),
            mail_from=f"<{mail_from}>",
            rcpt_to=rcpt_to,
            helo="filter.recv.example",
        )
        return f"{said.code} {said.text}"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    filter: ContentFilter


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        mail_from = ""
        rcpt_to: list[str] = []
        self._say("220 filter.recv.example ESMTP")
        while line := self.rfile.readline():
            command = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            verb = command[:4].upper()
            if verb == "EHLO":
                self._say("250-filter.recv.example", "250-8BITMIME", "250 SMTPUTF8")
            elif verb == "MAIL":
                mail_from, rcpt_to = _path(command), []
                self._say("250 2.1.0 Ok")
            elif verb == "RCPT":
                rcpt_to.append(_path(command))
                self._say("250 2.1.5 Ok")
            elif verb == "DATA":
                self._say("354 go on")
                server = cast("_Server", self.server)
                self._say(server.filter.take(mail_from, tuple(rcpt_to), self._message()))
            elif verb == "QUIT":
                self._say("221 2.0.0 Bye")
                return
            else:
                self._say("250 2.0.0 Ok")

    def _message(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


def _path(command: str) -> str:
    return command.partition("<")[2].partition(">")[0]
