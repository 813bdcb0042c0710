"""The server's certificate and key, read again when their files change: no restart, and no connection is closed.

gRPC asks before each handshake. Then the files' times and sizes are looked at; if one has changed, all are read, and
used if they fit together. If they do not (half of a pair has been replaced so far, or it is no certificate at all),
the old ones stay in use until the files change again.

How it fails: `Certificates(...)` raises `AuthMilterError` in an administrator's words; later failures go to `note`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc

from authmilter.errors import AuthMilterError
from authmilter.rpc.settings import TlsFiles
from authmilter.rpc.tls_files import check_files

__all__ = ["Certificates"]

_Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """Gives gRPC the certificate of the moment.

    Args:
        files: where they are.
        note: told, in a sentence, that new files cannot be used; once for each change.

    Raises:
        AuthMilterError: they cannot be used.
    """

    __slots__ = ("_current", "_files", "_note", "_refused", "_stamp")

    def __init__(self, files: TlsFiles, note: Callable[[str], None]) -> None:
        self._files = files
        self._note = note
        self._refused: _Stamp | None = None
        self._stamp = self._look()
        self._current = self._load()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._current, self.newest, require_client_authentication=bool(self._files.client_ca)
        )

    def newest(self) -> grpc.ServerCertificateConfiguration:
        """Return what the next handshake uses. Called by gRPC's threads; what it raises would end the handshake."""
        stamp = self._look()
        if stamp in (self._stamp, self._refused):
            return self._current
        try:
            self._current = self._load()
            self._stamp, self._refused = stamp, None
        except AuthMilterError as e:
            self._refused = stamp
            self._note(f"{e}; the certificate read before stays in use")
        return self._current

    def _look(self) -> _Stamp:
        return tuple(_stamp(path) for path in _paths(self._files))

    def _load(self) -> grpc.ServerCertificateConfiguration:
        check_files(self._files)
        try:
            key, chain = Path(self._files.key).read_bytes(), Path(self._files.certificate).read_bytes()
            authorities = Path(self._files.client_ca).read_bytes() if self._files.client_ca else None
        except OSError as e:
            raise AuthMilterError(f"{e.filename} cannot be read: {e.strerror}") from None
        return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def _paths(files: TlsFiles) -> list[str]:
    return [path for path in (files.certificate, files.key, files.client_ca) if path]
