"""Messages for measurements, with the zone they live in: the mix of sizes and fields that mail servers see.

Sixty of a hundred messages have 2 KB, thirty 10 KB, nine 100 KB, one 1 MB; 21 header fields, one RSA-2048 signature,
some two, some none. Author domains are drawn by Zipf's law from forty. The same seed makes the same messages, but for
the keys, which are new in each run and cost the same.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass

from tests.support import dkim_keys

__all__ = ["BODIES", "SIZES", "Letter", "a_body", "a_header", "corpus", "zone"]

SIZES = (2_000, 10_000, 100_000, 1_000_000)
_DOMAINS = 40
_TEXT = (
    "the of and to in is that for it as was with be by on not he this are or his from at which but have an had "
    "they you were there one all we can her has their been if more when will would who so no said what up its about "
    "into than them only other time new some could these two may first then do any like my now over such our man"
)
_WORDS = tuple(_TEXT.split())


def a_body(kind: str, size: int, seed: int = 1) -> bytes:
    """Return a body of about `size` octets: one of `BODIES`."""
    rng = random.Random(seed)
    if kind == "base64":
        data = rng.randbytes(57 * (size // 78 + 1))
        lines = [base64.b64encode(data[at : at + 57]) for at in range(0, len(data), 57)]
        return b"\r\n".join(lines)[: max(size - 2, 0)] + b"\r\n"
    if kind == "huge-line":
        return b"a" * (size - 2) + b"\r\n"
    if kind == "long-lines":
        line = b" ".join(rng.choice(_WORDS).encode() for _ in range(400))[:990] + b"\r\n"
        return (line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    gap = {"prose": " ", "blanks": "    ", "tabs": "\t"}[kind]
    lines = []
    length = 0
    while length < size:
        line = (gap.join(rng.choice(_WORDS) for _ in range(12))[:76] + "\r\n").encode()
        lines.append(line)
        length += len(line)
    return b"".join(lines)[: size - 2] + b"\r\n"


#: What a body may consist of.
BODIES = ("prose", "blanks", "tabs", "base64", "long-lines", "huge-line")


def a_header(author: str, number: int, fields: int = 21) -> bytes:
    """Return a header block (CRLF, without the empty line) of about `fields` fields."""
    domain = author.rpartition("@")[2]
    base = [
        f"From: Someone {number} <{author}>",
        "To: user@recv.example",
        f"Subject: An ordinary message, number {number}, about nothing in particular",
        "Date: Sun, 22 Nov 2026 12:00:00 +0000",
        f"Message-ID: <{number:08d}.made@{domain}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        f"List-Unsubscribe: <mailto:off-{number}@{domain}>,\r\n <https://{domain}/off/{number}>",
    ]
    hops = max(0, min(5, fields - len(base)))
    received = [
        f"Received: from relay{n}.{domain} (relay{n}.{domain} [192.0.2.{n + 1}])\r\n"
        f"\tby mx{n}.{domain} (Postfix) with ESMTPS id 4cRg{number:05d}{n}\r\n"
        f"\tfor <user@recv.example>; Sun, 22 Nov 2026 12:00:0{n} +0000"
        for n in range(hops)
    ]
    more = [
        f"X-Campaign-{n}: {number:06d}-{n:03d}-abcdefghijklmnopqrstuvwxyz0123456789"
        for n in range(max(0, fields - len(base) - len(received)))
    ]
    return "\r\n".join([*received, *base, *more]).encode() + b"\r\n"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message and its envelope."""

    raw: bytes
    mail_from: str
    helo: str
    client_ip: str


def _domain(number: int) -> str:
    return f"sender{number:02d}.example"


def zone() -> dict[str, object]:
    """Return the zone of `corpus`: SPF with three includes, a key, a DMARC record and names for the clients."""
    rsa, ed25519 = dkim_keys.rsa_key(), dkim_keys.ed25519_key()
    found: dict[str, object] = {
        f"_spf{n}.esp.example": {"TXT": [f"v=spf1 ip4:198.51.{100 + n}.0/24 ip4:203.0.{113 + n}.0/25 ~all"]}
        for n in range(3)
    }
    for number in range(_DOMAINS):
        name = _domain(number)
        includes = " ".join(f"include:_spf{n}.esp.example" for n in range(3))
        found[name] = {
            "TXT": [f"v=spf1 {includes} ip4:192.0.2.{number}/32 -all", "another-text=1"],
            "A": ["192.0.2.200"],
        }
        found[f"mail.{name}"] = {"A": [f"192.0.2.{number}"]}
        found[f"_dmarc.{name}"] = {"TXT": [f"v=DMARC1; p=reject; rua=mailto:reports@{name}"]}
        found[f"s1._domainkey.{name}"] = {"TXT": [rsa.record]}
        found[f"e1._domainkey.{name}"] = {"TXT": [ed25519.record]}
        found[f"{number}.2.0.192.in-addr.arpa"] = {"PTR": [f"mail.{name}"]}
    return found


def corpus(count: int = 200, seed: int = 1) -> list[Letter]:
    """Return `count` messages."""
    rng = random.Random(seed)
    ranks = [1 / (n + 1) for n in range(_DOMAINS)]
    letters = []
    for number in range(count):
        which = rng.choices(range(_DOMAINS), ranks)[0]
        domain = _domain(which)
        size = SIZES[0 if number % 10 < 6 else 1 if number % 10 < 9 else 3 if number % 100 == 99 else 2]
        kind = "base64" if size > 50_000 else rng.choice(BODIES[:3])
        header = a_header(f"person@{domain}", number, 20)
        raw = header + b"\r\n" + a_body(kind, max(200, size - len(header)), number)
        dice = rng.random()
        names = ("from", "to", "subject", "date", "message-id", "mime-version", "content-type")
        if dice < 0.9:
            signed = dkim_keys.sign(raw, dkim_keys.rsa_key(), domain=domain, selector="s1", names=names)
            if dice < 0.1:
                second = dkim_keys.sign(
                    raw, dkim_keys.ed25519_key(), domain=domain, selector="e1", names=names
                )
                signed = second.removesuffix(raw) + signed
            raw = signed
        letters.append(Letter(raw, f"<bounce@{domain}>", f"mail.{domain}", f"192.0.2.{which}"))
    return letters
