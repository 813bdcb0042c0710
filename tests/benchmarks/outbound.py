"""Outbound mail for measurements: messages of ours to be signed, and a service that signs them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from tests.benchmarks.corpus import SIZES, Letter, a_body, a_header
from tests.support import dkim_keys
from tests.support.service import Service

__all__ = ["DOMAIN", "key_file", "letters", "outbound", "signing_service"]

DOMAIN = "outbound.example"


def outbound(size: int, number: int = 0) -> Letter:
    """Return an unsigned message of ours, sent from this machine."""
    header = a_header(f"person@{DOMAIN}", number, 12)
    raw = header + b"\r\n" + a_body("base64" if size > 50_000 else "prose", size - len(header), number)
    return Letter(raw, f"<bounce@{DOMAIN}>", f"mail.{DOMAIN}", "127.0.0.1")


def letters() -> list[Letter]:
    """Return a hundred messages in the usual mix of sizes."""
    return [
        outbound(SIZES[0 if n % 10 < 6 else 1 if n % 10 < 9 else 3 if n == 99 else 2], n) for n in range(100)
    ]


def key_file(folder: Path, kind: str) -> Path:
    """Write a private key (PKCS#8) that only its owner reads, and return its path."""
    key = dkim_keys.rsa_key() if kind == "rsa" else dkim_keys.ed25519_key()
    path = folder / f"{kind}.pem"
    path.write_bytes(
        key.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    return path


def signing_service(kinds: tuple[str, ...] = ("rsa",), workers: int = 2, **settings: Any) -> Service:
    """Return a service (not yet started) that signs mail of `DOMAIN` with keys of these kinds."""
    folder = Path(tempfile.mkdtemp(prefix="authmilter-keys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    lines = [{"domain": DOMAIN, "selector": kind, "key": str(key_file(folder, kind))} for kind in kinds]
    return Service(
        zone={},
        policy="monitor",
        unix=True,
        workers=workers,
        settings={"internal": {"networks": ["127.0.0.0/8"]}, "signing": {"domains": lines}, **settings},
    )
