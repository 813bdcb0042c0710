"""DKIM for tests: keys, signed messages, the naive reference, and dkimpy as the oracle.

Three ways to say what a signature is, none of them the code under test: `sign` with its own slow and plain
canonicalization over `cryptography`, `dkimpy_sign`, and the published vectors.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from dkim.canonicalization import Relaxed, Simple

from authmilter.dkim.check import verify
from authmilter.dkim.result import DkimResult
from authmilter.dkim.signature import DkimLimits
from authmilter.message import Message
from tests.support.builders import a_lookup

#: a moment after every t= that tests write, dkimpy's of today included
NOW = datetime(2100, 1, 1, tzinfo=UTC)

BODY = b"Hello,\r\n\r\nthis  is \t a body. \r\n\r\n\r\n"
HEADERS = (
    b"From: Alice <alice@example.com>\r\n"
    b"To: bob@example.net\r\n"
    b"Subject: two  blanks\r\n and a fold\r\n"
    b"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
)
MESSAGE = HEADERS + b"\r\n" + BODY
NAMES = ("from", "to", "subject", "date", "message-id")


@dataclass(frozen=True)
class DkimKey:
    """A private key; `kind` is rsa or ed25519."""

    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    @property
    def kind(self) -> str:
        return "rsa" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519"

    @property
    def public(self) -> str:
        """The value of p=."""
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            der = serialization.PublicFormat.SubjectPublicKeyInfo
            return _b64(public.public_bytes(serialization.Encoding.DER, der))
        return _b64(public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))

    @property
    def pkcs1(self) -> str:
        """The value of p= as RFC 6376 has it: RSAPublicKey."""
        public = self.private.public_key()
        return _b64(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1))

    @property
    def pem(self) -> bytes:
        """The private key as dkimpy wants it."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )

    @property
    def record(self) -> str:
        """A key record as most publish it."""
        return f"v=DKIM1; k={self.kind}; p={self.public}"

    def sign(self, data: bytes, *, sha1: bool = False) -> bytes:
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), SHA1() if sha1 else SHA256())  # noqa: S303 - to be refused
        return self.private.sign(hashlib.sha256(data).digest())


@dataclass(frozen=True)
class ShortKey:
    """A textbook RSA key too short for any library to make: 512 or 768 bits, signing as RFC 8017 §8.2.1 says."""

    p: int
    q: int

    @property
    def record(self) -> str:
        n = self.p * self.q
        return f"v=DKIM1; p={public_key_of(n, 65537)}"

    def sign(self, data: bytes) -> bytes:
        n = self.p * self.q
        octets = (n.bit_length() + 7) // 8
        info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(data).digest()
        padded = b"\0\1" + b"\xff" * (octets - len(info) - 3) + b"\0" + info
        private = pow(65537, -1, (self.p - 1) * (self.q - 1))
        return pow(int.from_bytes(padded, "big"), private, n).to_bytes(octets, "big")


SHORT_KEYS = {
    512: ShortKey(
        0xFFD9887E79D0FFC500D6363EBF7723B0BCE075F11F9B1DDAAEA25AF3A2F05B47,
        0xE0C1AF5A69A255562657F370C6D647F3D90A51F9EB0DCF3F62004E05C5D0E45B,
    ),
    768: ShortKey(
        0xFDC8AA8D8F9942B7C93ABBF8ED6072115063484EE9C523A38C38392E6D1C7B490CE715DBE0CE413EB6D283F640E73DD5,
        0xD0B2C755B8377E3DAEBD84299E08C073C70291EA52E7F69319F449FFBA5957FD3BBFE3C066F006B2BB5AD5D9AFE97D97,
    ),
}


def public_key_of(modulus: int, exponent: int) -> str:
    """Return p= (RSAPublicKey) of any two numbers; nobody need have the private key."""

    def der(tag: int, content: bytes) -> bytes:
        size = len(content)
        if size < 128:
            return bytes((tag, size)) + content
        length = size.to_bytes((size.bit_length() + 7) // 8, "big")
        return bytes((tag, 0x80 | len(length))) + length + content

    numbers = b"".join(der(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in (modulus, exponent))
    return _b64(der(0x30, numbers))


@cache
def rsa_key(bits: int = 2048, nth: int = 0) -> DkimKey:  # noqa: ARG001 - tells keys of one size apart
    return DkimKey(rsa.generate_private_key(65537, bits))


@cache
def ed25519_key() -> DkimKey:
    return DkimKey(ed25519.Ed25519PrivateKey.generate())


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


# ----- the naive reference: RFC 6376 §3.4, line by line ---------------------------------------------------------


def naive_header(raw: bytes, form: str) -> bytes:
    """Canonical form of `Name: value` (folds as CRLF + WSP), without the final CRLF."""
    if form == "simple":
        return raw
    name, _, value = raw.partition(b":")
    value = re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b""))
    return name.strip(b" \t\r\n").lower() + b":" + value.strip(b" ")


def naive_body(body: bytes, form: str) -> bytes:
    """Canonical form of a body; only CRLF ends a line, and what stands behind the last one is a line too."""
    lines = body.split(b"\r\n")
    if form == "relaxed":
        lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return b"" if form == "relaxed" else b"\r\n"
    return b"".join(line + b"\r\n" for line in lines)


# ----- signing --------------------------------------------------------------------------------------------------


def split(message: bytes) -> tuple[list[bytes], bytes]:
    """Return a message's raw fields (without their CRLF) and its body."""
    block, _, body = message.partition(b"\r\n\r\n")
    return re.split(rb"\r\n(?![ \t])", block), body


def sign(
    message: bytes,
    key: DkimKey | ShortKey,
    *,
    domain: str = "example.com",
    selector: str = "s1",
    form: str = "relaxed/relaxed",
    names: Iterable[str] = NAMES,
    tags: Mapping[str, str | None] | None = None,
    field: bytes = b"DKIM-Signature",
    tail: bytes = b"",
) -> bytes:
    """Put a signature on top of a message.

    `tags` adds or replaces tags, None takes one away; bh= and b= are computed over what is then there, so that
    the signature holds as far as mathematics goes. `tail` stands behind b= in the field (`; z=x`).
    """
    headers, body = split(message)
    names = tuple(names)
    header_form, _, body_form = form.partition("/")
    extra = dict(tags or {})
    length = extra.get("l")
    kind = key.kind if isinstance(key, DkimKey) else "rsa"
    hashed = naive_body(body, body_form or "simple")[: int(length) if length and length.isdigit() else None]
    sha1 = extra.get("a") == "rsa-sha1"
    digest = hashlib.sha1(hashed) if sha1 else hashlib.sha256(hashed)  # noqa: S324 - to be refused
    all_tags: dict[str, str | None] = {
        "v": "1",
        "a": f"{kind}-sha256",
        "c": form,
        "d": domain,
        "s": selector,
        "h": ":".join(names),
        "bh": _b64(digest.digest()),
        **extra,
    }
    b = all_tags.pop("b", "")
    value = " " + "; ".join(f"{n}={v}" for n, v in all_tags.items() if v is not None)
    raw = field + b":" + value.encode("utf-8", "surrogateescape") + (b"; b=" if b is not None else b"")
    left = list(headers)
    parts: list[bytes] = []
    for name in names:
        for i in range(len(left) - 1, -1, -1):
            if left[i].partition(b":")[0].strip().lower() == name.lower().encode():
                parts.append(naive_header(left.pop(i), header_form) + b"\r\n")
                break
    data = b"".join(parts) + naive_header(raw + tail, header_form)
    signature = key.sign(data, sha1=True) if sha1 and isinstance(key, DkimKey) else key.sign(data)
    if b == "":
        raw += _b64(signature).encode("ascii")
    elif b is not None:
        raw += b.encode("ascii")
    return raw + tail + b"\r\n" + message


def a_zone(
    key: DkimKey | ShortKey, *, domain: str = "example.com", selector: str = "s1", extra: str = ""
) -> dict[str, object]:
    """Return a zone with the key's record; `extra` is put before its p=."""
    record = key.record.replace(" p=", f" {extra} p=") if extra else key.record
    return {f"{selector}._domainkey.{domain}": {"TXT": [record]}}


def judge(
    message: bytes,
    zone: Mapping[str, object],
    limits: DkimLimits | None = None,
    *,
    now: datetime = NOW,
) -> tuple[DkimResult, ...]:
    """Verify with the code under test."""
    parsed, start = Message.parse(message)
    return verify(parsed, message[start:], a_lookup(zone), limits or DkimLimits(), now=now)


def judge_one(
    message: bytes, zone: Mapping[str, object], limits: DkimLimits | None = None, *, now: datetime = NOW
) -> DkimResult:
    """Verify a message that has one signature."""
    (result,) = judge(message, zone, limits, now=now)
    return result


# ----- dkimpy, the oracle ---------------------------------------------------------------------------------------


def dkimpy_sign(
    message: bytes,
    key: DkimKey,
    *,
    form: tuple[str, str] = ("relaxed", "relaxed"),
    names: Iterable[str] | None = None,
    domain: str = "example.com",
    selector: str = "s1",
    length: bool = False,
) -> bytes:
    """Let dkimpy sign (RSA) and put its field on top."""
    line: bytes = dkim.sign(
        message,
        selector.encode(),
        domain.encode(),
        key.pem,
        canonicalize=(form[0].encode(), form[1].encode()),
        include_headers=[n.encode() for n in names] if names is not None else None,
        length=length,
    )
    return line + message


def dkimpy_verifies(message: bytes, zone: Mapping[str, object], index: int = 0) -> bool:
    """Return whether dkimpy says yes to the signature with that index (0: topmost)."""

    def lookup(name: bytes, timeout: int = 5) -> bytes | None:  # noqa: ARG001 - dkimpy's shape
        node = zone.get(name.decode("ascii").removesuffix("."))
        if not isinstance(node, Mapping):
            return None
        first: object = node["TXT"][0]
        return first if isinstance(first, bytes) else str(first).encode()

    try:
        return bool(dkim.DKIM(message).verify(index, dnsfunc=lookup))
    except dkim.DKIMException:
        return False


def dkimpy_body(body: bytes, form: str) -> bytes:
    """Return dkimpy's canonical body."""
    canonical: bytes = (Relaxed if form == "relaxed" else Simple).canonicalize_body(body)
    return canonical


def dkimpy_header(name: bytes, value: bytes) -> bytes:
    """Return dkimpy's relaxed form of a field, without the final CRLF."""
    ((key, text),) = Relaxed.canonicalize_headers([(name, value + b"\r\n")])
    joined: bytes = key + b":" + text
    return joined.removesuffix(b"\r\n")
