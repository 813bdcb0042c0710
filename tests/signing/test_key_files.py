"""Key files: permissions, loading, and what the DNS says of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authmilter.dkim import crypto
from authmilter.dkim.crypto import KeyKind, SigningKey
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, NoData, NxDomain
from authmilter.dns.zone import ZoneResolver
from authmilter.errors import KeyMaterialError
from authmilter.signing.keys import (
    KeySource,
    PublicationState,
    check_published,
    load,
    publication,
    read_key,
    zone_line,
)
from tests.support.signing import an_entry, both, signing_key, zone_of

ED, RSA = signing_key(KeyKind.ED25519), signing_key(KeyKind.RSA)
SELF = frozenset({os.geteuid()})


def key_file(folder: Path, name: str = "k.pem", mode: int = 0o600, data: bytes | None = None) -> Path:
    file = folder / name
    file.write_bytes(ED.pem() if data is None else data)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o600, ""), (0o400, ""), (0o700, ""),
        (0o604, "open to everybody (mode 0604)"), (0o602, "open to everybody"), (0o644, "open to everybody"),
        (0o620, "its group may write it"), (0o660, "its group may write it"),
    ],
)  # fmt: skip
def test_permissions(tmp_path: Path, mode: int, words: str) -> None:
    file = key_file(tmp_path, mode=mode)
    _, unsafe = read_key(file, owners=SELF)
    assert words in unsafe
    assert bool(words) == bool(unsafe)
    source = KeySource(path=str(file))
    ring = load([source], owners=SELF)
    assert (source in ring.keys) == (not words)
    lax = load([source], owners=SELF, require_safe=False)
    assert source in lax.keys
    assert len(lax.warnings) == bool(words)


def test_a_group_may_read_what_root_owns_only(tmp_path: Path) -> None:
    file = key_file(tmp_path, mode=0o640)
    _, unsafe = read_key(file, owners=None)
    assert ("its group may read it" in unsafe) == (file.stat().st_uid != 0)
    if os.geteuid() == 0:
        os.chown(file, 12345, 12345)
        assert "its group may read it and its owner is not root" in read_key(file)[1]


def test_a_key_of_somebody_else_is_not_safe(tmp_path: Path) -> None:
    _, unsafe = read_key(key_file(tmp_path), owners=frozenset({987654}))
    assert unsafe == f"belongs to user id {os.geteuid()}, neither root nor the service's user"


def test_a_folder_where_anybody_may_swap_the_file_is_not_safe(tmp_path: Path) -> None:
    file = key_file(tmp_path)
    tmp_path.chmod(0o777)
    assert "another file in its place" in read_key(file, owners=SELF)[1]
    tmp_path.chmod(0o1777)
    assert read_key(file, owners=SELF)[1] == ""


def test_what_is_no_file_is_refused_in_clear_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "is no regular file"),
        (tmp_path / "pipe", "is no regular file"),
        (Path("a\0b"), "no file name"),
        (Path("/dev/zero"), "is no regular file"),
    ):
        with pytest.raises(KeyMaterialError, match=words):
            read_key(path)
    big = key_file(tmp_path, "big", data=b"x" * 1_000_000)
    assert "larger than" in str(load([KeySource(path=str(big))]).problems[0])


def test_many_keys_are_loaded_and_every_problem_is_told(tmp_path: Path) -> None:
    good = [key_file(tmp_path, f"k{i}") for i in range(30)]
    key_file(tmp_path, "empty", data=b"")
    key_file(tmp_path, "open", mode=0o644)
    key_file(tmp_path, "short", data=RSA.pem())
    sources = [KeySource(path=f.name) for f in good] * 2
    sources += [KeySource(path=n) for n in ("empty", "open", "gone", "short")]
    ring = load(sources, base=tmp_path, owners=SELF)
    assert len(ring.keys) == 31
    assert [p.source.path for p in ring.problems] == ["empty", "open", "gone"]
    assert ring.why_not(KeySource(path="empty")) == "there is nothing in it"
    assert ring.why_not(KeySource(path="never asked")) == "the key was not loaded"
    assert [w.partition(":")[0] for w in ring.warnings] == ["short"]
    assert len(load(sources, base=tmp_path, owners=SELF, validated=True).keys) == 31


def test_a_key_whose_parts_do_not_belong_together_is_not_loaded(tmp_path: Path) -> None:
    # RFC 8017 A.1.2: version, n, e, d, p, q, ...; another e gives a key that signs and never verifies
    der = crypto.load_signing_key(RSA.pem())._key.private_bytes(
        Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    assert der.count(b"\x02\x03\x01\x00\x01") == 1
    wrong = key_file(tmp_path, data=der.replace(b"\x02\x03\x01\x00\x01", b"\x02\x03\x01\x00\x03"))
    source = KeySource(path=str(wrong))
    for validated in (False, True):
        ring = load([source], owners=SELF, validated=validated)
        assert ring.keys == {}
        assert len(ring.problems) == 1


# ----- the DNS --------------------------------------------------------------------------------------------------


def of(*texts: str) -> Found:
    return Found(tuple(t.encode() for t in texts))


def other(key: SigningKey) -> SigningKey:
    return crypto.generate_signing_key(key.kind, rsa_bits=1024)


@pytest.mark.parametrize("kind", list(KeyKind))
def test_what_the_dns_says_of_a_key(kind: KeyKind) -> None:
    entry = an_entry(kind)
    record = entry.key.record
    cases: list[tuple[Answer, PublicationState, str]] = [
        (of(record), PublicationState.PUBLISHED, ""),
        (of(record.replace("v=DKIM1; ", "v=DKIM1; t=y; ")), PublicationState.PUBLISHED, "testing"),
        (of("v=spf1 -all", record), PublicationState.PUBLISHED, ""),
        (of(other(entry.key).record, record), PublicationState.UNUSABLE, "several key records"),
        (of(record, "v=DKIM1; p="), PublicationState.UNUSABLE, "several key records"),
        (of(other(entry.key).record), PublicationState.OTHER_KEY, "another key"),
        (
            of(both()[0].key.record if kind is KeyKind.ED25519 else ED.record),
            PublicationState.OTHER_KEY,
            "another key",
        ),
        (of("v=DKIM1; p="), PublicationState.REVOKED, "revoked"),
        (of("v=spf1 -all"), PublicationState.UNUSABLE, "not of version DKIM1"),
        (of(record.replace("v=DKIM1; ", "v=DKIM1; h=sha1; ")), PublicationState.UNUSABLE, "sha256"),
        (of(record.replace("v=DKIM1; ", "v=DKIM1; s=tlsrpt; ")), PublicationState.UNUSABLE, "e-mail"),
        (of(record[:-8]), PublicationState.UNUSABLE, ""),
        (NxDomain(), PublicationState.MISSING, "no TXT record"),
        (NoData(), PublicationState.MISSING, "no TXT record"),
        (Failed(FailureKind.TIMEOUT), PublicationState.UNKNOWN, "timeout"),
    ]
    for answer, state, words in cases:
        told = publication(entry, answer)
        assert (told.state, words in told.detail) == (state, True), (answer, told)
        assert told.testing == ("testing" in told.detail)


def test_all_entries_are_checked_together() -> None:
    entries = both() + both("example.net")
    zone = zone_of(entries[:3])
    told = asyncio.run(check_published(entries, ZoneResolver(zone)))
    assert [t.entry for t in told] == list(entries)
    assert [t.state for t in told] == [PublicationState.PUBLISHED] * 3 + [PublicationState.MISSING]


def test_a_zone_line_holds_the_record_in_strings_of_255_octets() -> None:
    entry = an_entry(KeyKind.RSA)
    long = type(entry)(domain=entry.domain, selector="s", key=signing_key(KeyKind.RSA, 2048))
    line = zone_line(long)
    strings = line.split('"')[1::2]
    assert line.startswith("s._domainkey.example.com. IN TXT ( ")
    assert "".join(strings) == long.key.record
    assert [len(s) <= 255 for s in strings] == [True, True]
