"""Whether a certificate, its key and the authorities of client certificates can be used; without grpc.

How it fails: `AuthMilterError`, in an administrator's words.
"""

from __future__ import annotations

import ssl

from authmilter.errors import AuthMilterError
from authmilter.rpc.settings import TlsFiles

__all__ = ["check_files"]


def check_files(files: TlsFiles) -> None:
    """Look whether the files can be used.

    Raises:
        AuthMilterError: they cannot; says which and why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    name = files.certificate
    try:
        # An encrypted key is refused: nobody is there to be asked.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
        name = files.client_ca
        if name:
            context.load_verify_locations(name)
    except ssl.SSLError as e:
        reason = e.reason.lower().replace("_", " ") if e.reason else "it holds no PEM certificate"
        beside = f" with the key {files.key}" if name == files.certificate else ""
        raise AuthMilterError(f"{name}{beside} cannot be used for TLS: {reason}") from None
    except OSError as e:
        which = name if name == files.client_ca else f"{files.certificate} or {files.key}"
        raise AuthMilterError(f"{which} cannot be read: {e.strerror}") from None
