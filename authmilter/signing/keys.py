"""Private keys in files, and their public halves in the DNS.

`load` reads every key of a configuration: each file's permissions are checked on the open file, each key is tried
(it signs a probe, which must verify with what its record will say), and every problem is told at once. What was
loaded is a value: a file that changes under a running service changes nothing until the next load, so that a
selector never meets another selector's key.

`publication` compares a key with what the DNS says; `check_published` asks for many at the same time.

Fails: a key that cannot be used is a `KeyProblem`, never an exception; DNS trouble is a state of its own.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from authmilter import grammar
from authmilter.deadline import Deadline
from authmilter.dkim import key as records
from authmilter.dkim.crypto import KeyKind, SigningKey, generate_signing_key, load_signing_key
from authmilter.dkim.result import DkimProblem
from authmilter.dkim.sign import SigningEntry
from authmilter.dns.answer import Answer, Failed, Found
from authmilter.errors import InvalidName, KeyMaterialError
from authmilter.ports import Resolver
from authmilter.text import printable

__all__ = [
    "FileAccess",
    "KeyKind",
    "KeyProblem",
    "KeyRing",
    "KeySource",
    "Publication",
    "PublicationState",
    "check_published",
    "generate_signing_key",
    "load",
    "publication",
    "read_key",
    "selector_from",
    "sync_folder",
    "write_file",
    "write_key",
    "zone_line",
    "zone_strings",
]

#: Keys read at the same time.
_WORKERS = 8
#: Key records asked for at the same time.
_QUESTIONS = 32
#: Octets in a key file; an RSA key of 8192 bits in PEM has 6,400.
_MAX_OCTETS = 64 * 1024
_MAX_RECORDS = 8
_MAX_RECORD_OCTETS = 4096
_PROBE = b"authmilter signs this to see whether the key is one\r\n"


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where a private key is: a file's `path` as written, or the key's own `text` (OpenDKIM's tables may hold it)."""

    path: str = ""
    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.path or "a key written into the table"


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """A key that cannot be used, and `why` in our words."""

    source: KeySource
    why: str

    def __str__(self) -> str:
        return f"{self.source}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The keys that were loaded, those that were not, and what is unwise about the others (a line each)."""

    keys: Mapping[KeySource, SigningKey]
    problems: tuple[KeyProblem, ...] = ()
    warnings: tuple[str, ...] = ()

    def why_not(self, source: KeySource) -> str:
        """Return why a key is not there."""
        return next((p.why for p in self.problems if p.source == source), "the key was not loaded")


def load(
    sources: Iterable[KeySource],
    *,
    base: Path | None = None,
    owners: frozenset[int] | None = None,
    require_safe: bool = True,
    validated: bool = False,
) -> KeyRing:
    """Load the keys; some at the same time, because the files may be far away.

    Args:
        sources: which; one that stands there twice is loaded once.
        base: where relative paths start.
        owners: user ids that may own a key file; default: root and this process's user (run by root: anybody).
        require_safe: refuse what others may read or replace; else it is a warning.
        validated: whoever checked the configuration has loaded these files before (see `load_signing_key`).
    """
    wanted = tuple(dict.fromkeys(sources))
    allowed = owners if owners is not None else _owners()

    def one(source: KeySource) -> tuple[SigningKey | None, str, tuple[str, ...]]:
        try:
            if source.path:
                file = base / source.path if base is not None else Path(source.path)
                data, unsafe = read_key(file, owners=allowed)
                if unsafe and require_safe:
                    return None, unsafe, ()
            else:
                data, unsafe = source.text.encode(), ""
            key = load_signing_key(data, validated=validated)
            _try(key)
        except KeyMaterialError as e:
            return None, str(e), ()
        return key, "", tuple(w for w in (unsafe, key.warning) if w)

    if len(wanted) > 1:
        with ThreadPoolExecutor(max_workers=min(_WORKERS, len(wanted))) as pool:
            loaded = list(pool.map(one, wanted))
    else:
        loaded = [one(source) for source in wanted]
    keys: dict[KeySource, SigningKey] = {}
    problems: list[KeyProblem] = []
    warnings: list[str] = []
    for source, (key, why, unwise) in zip(wanted, loaded, strict=True):
        if key is None:
            problems.append(KeyProblem(source, why))
        else:
            keys[source] = key
            warnings += [f"{source}: {text}" for text in unwise]
    return KeyRing(keys=keys, problems=tuple(problems), warnings=tuple(warnings))


def _owners() -> frozenset[int] | None:
    user = os.geteuid()
    # root serves another user, whose name is not known here
    return None if user == 0 else frozenset({0, user})


def _try(key: SigningKey) -> None:
    """Sign and verify, as a verifier would: a key whose parts do not belong together never signs mail."""
    try:
        holds = key.public_key().verify(key.sign(_PROBE), _PROBE)
    except ValueError:
        holds = False
    if not holds:
        raise KeyMaterialError("the key does not verify what it signs: its parts do not belong together")


def read_key(file: Path, *, owners: frozenset[int] | None = None) -> tuple[bytes, str]:
    """Return a key file's octets, and why it is not safe (empty: it is).

    Safe is a regular file of root's or the service user's that nobody else may write, and nobody else read but
    the group of a file that is root's (`0640 root:authmilter`), in a folder where not everybody may put another in
    its place. Asked of the open file, so that what was checked is what is read.

    Raises:
        KeyMaterialError: it cannot be read, or is no file of a key's size.
    """
    try:
        # (not to wait for a named pipe's other end)
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as e:
        raise KeyMaterialError(
            f"cannot be read: {getattr(e, 'strerror', None) or 'this is no file name'}"
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyMaterialError("is no regular file")
        data = b""
        while len(data) <= _MAX_OCTETS:
            piece = os.read(descriptor, _MAX_OCTETS + 1 - len(data))
            if not piece:
                break
            data += piece
    except OSError as e:
        raise KeyMaterialError(f"cannot be read: {e.strerror}") from None
    finally:
        os.close(descriptor)
    return data, _unsafe(file, status, owners)


def _unsafe(file: Path, status: os.stat_result, owners: frozenset[int] | None) -> str:
    mode = stat.S_IMODE(status.st_mode)
    cure = "chmod 0600, or 0640 with owner root and the service's group"
    if mode & 0o007:
        return f"is open to everybody (mode {mode:04o}): {cure}"
    if mode & 0o020:
        return f"its group may write it (mode {mode:04o}): {cure}"
    if mode & 0o040 and status.st_uid != 0:
        return f"its group may read it and its owner is not root (mode {mode:04o}): {cure}"
    if owners is not None and status.st_uid not in owners:
        return f"belongs to user id {status.st_uid}, neither root nor the service's user"
    try:
        # of the file, and of the link to it, if that is what was named
        folders = {
            parent: parent.stat().st_mode for parent in (file.resolve().parent, file.absolute().parent)
        }
    except OSError:
        return ""
    if any(folder & stat.S_IWOTH and not folder & stat.S_ISVTX for folder in folders.values()):
        return "everybody may put another file in its place: chmod o-w its folder"
    return ""


# ----- the DNS ----------------------------------------------------------------------------------------------------


class PublicationState(StrEnum):
    """What the DNS says of a key that we hold: a closed list."""

    #: the record is there and holds this key: it may sign
    PUBLISHED = "published"
    #: there is no key record
    MISSING = "missing"
    #: the record holds another key: every signature would fail
    OTHER_KEY = "other_key"
    #: p= is empty
    REVOKED = "revoked"
    #: there is a record, but no verifier may use it for mail
    UNUSABLE = "unusable"
    #: nobody knows: the question failed
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What the DNS says of `entry`; `detail` is in our words, `testing` the record's t=y."""

    entry: SigningEntry
    state: PublicationState
    detail: str = ""
    testing: bool = False


def publication(entry: SigningEntry, answer: Answer) -> Publication:
    """Compare a key with the answer to `entry.question`."""
    if isinstance(answer, Failed):
        return Publication(
            entry=entry, state=PublicationState.UNKNOWN, detail=f"the question failed: {answer.kind}"
        )
    texts = answer.texts() if isinstance(answer, Found) else ()
    found = records.usable(texts, records=_MAX_RECORDS, octets=_MAX_RECORD_OCTETS)
    if not found:
        return Publication(entry=entry, state=PublicationState.MISSING, detail="there is no TXT record")
    signature = entry.key.sign(_PROBE)

    def ours(record: records.KeyRecord) -> bool:
        return (
            record.key is not None
            and record.kind == entry.key.kind.value
            and record.key.verify(signature, _PROBE)
        )

    if any(map(ours, found)) and not all(map(ours, found)):
        # RFC 6376 §3.6.2.2: the results are undefined
        return _unusable(entry, "several key records at one name: verifiers may take another")
    state, detail = PublicationState.UNUSABLE, ""
    for record in found:
        if record.problem is DkimProblem.KEY_REVOKED:
            state, detail = PublicationState.REVOKED, record.detail
        elif record.problem is not None or record.key is None:
            state, detail = PublicationState.UNUSABLE, record.detail
        elif not ours(record):
            state, detail = (
                PublicationState.OTHER_KEY,
                f"the record holds another key ({record.kind}, {record.bits} bits)",
            )
        elif record.hashes is not None and "sha256" not in record.hashes:
            return _unusable(entry, "its h= does not allow sha256")
        elif not record.for_mail:
            return _unusable(entry, "its s= does not allow e-mail")
        else:
            note = "t=y: in testing mode" if record.testing else ""
            return Publication(
                entry=entry, state=PublicationState.PUBLISHED, detail=note, testing=record.testing
            )
    return Publication(entry=entry, state=state, detail=detail)


def _unusable(entry: SigningEntry, detail: str) -> Publication:
    return Publication(entry=entry, state=PublicationState.UNUSABLE, detail=detail)


async def check_published(
    entries: Iterable[SigningEntry], resolver: Resolver, *, seconds: float = 5.0
) -> tuple[Publication, ...]:
    """Ask the DNS for every entry, many at the same time; the answers come in the entries' order.

    Args:
        entries: which.
        resolver: whom to ask.
        seconds: the most that one question may take.
    """
    room = asyncio.Semaphore(_QUESTIONS)

    async def one(entry: SigningEntry) -> Publication:
        async with room:
            answer = await resolver.fetch(entry.question, Deadline.after(seconds))
        return publication(entry, answer)

    return tuple(await asyncio.gather(*(one(entry) for entry in entries)))


#: RFC 1035 §3.3: a character-string has at most 255 octets.
_STRING = 255


def zone_strings(key: SigningKey) -> tuple[str, ...]:
    """Return the key's record in strings of at most 255 octets, as a zone and many providers want it."""
    text = key.record
    return tuple(text[i : i + _STRING] for i in range(0, len(text), _STRING))


def zone_line(entry: SigningEntry) -> str:
    """Return the key's record as a line of a zone file (RFC 1035 §5.1)."""
    strings = " ".join(f'"{text}"' for text in zone_strings(entry.key))
    return f"{entry.question.name}. IN TXT ( {strings} )"


# ----- new keys ---------------------------------------------------------------------------------------------------


def selector_from(template: str, kind: KeyKind, now: datetime) -> str:
    """Return a selector made of a template.

    Args:
        template: text with any of `{kind}` (rsa, ed25519), `{date}` (20261122), `{year}` and `{month}`.
        kind: of the key.
        now: the day.

    Raises:
        InvalidName: what comes out is no selector (RFC 6376 §3.1).
    """
    text = template
    for word, value in (
        ("{kind}", kind.value),
        ("{date}", f"{now:%Y%m%d}"),
        ("{year}", f"{now:%Y}"),
        ("{month}", f"{now:%m}"),
    ):
        text = text.replace(word, value)
    text = text.lower()
    if len(text) > 190 or not all(map(grammar.LABEL.fullmatch, text.split("."))):
        raise InvalidName(f"`{printable(template, 60)}` does not give a selector")
    return text


def write_key(file: Path, key: SigningKey) -> None:
    """Write a private key into a new file, on the disk when this returns: its owner may read it, and nobody else.

    Where root writes it, it is made as the folder is, see `FileAccess`, so that the service can read it.

    Raises:
        KeyMaterialError: there is such a file already (a key is never written over), or it cannot be written.
    """
    try:
        access = FileAccess.like(file.parent)
    except OSError:
        access = None  # there is no folder: whoever opens a file in it says so
    write_file(file, key.pem(), access=access)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAccess:
    """Whom a file that root makes for the service is for: the folder's owner, or, if that is root, its group."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def like(cls, folder: Path) -> FileAccess | None:
        """Return what suits a folder, or None where we are not root and the file is ours; raises OSError."""
        if os.geteuid() != 0:
            return None
        status = folder.stat()
        group_reads = status.st_uid == 0 and status.st_gid != 0
        return cls(uid=status.st_uid, gid=status.st_gid, mode=0o640 if group_reads else 0o600)

    def give(self, descriptor: int) -> None:
        """Apply it to an open file; raises OSError."""
        os.fchown(descriptor, self.uid, self.gid)
        os.fchmod(descriptor, self.mode)


def write_file(file: Path, data: bytes, *, access: FileAccess | None = None) -> None:
    """Write a new file that only its owner (or `access`) may read; it and its name are on the disk when this returns.

    Raises:
        KeyMaterialError: it cannot be written, or exists.
    """
    try:
        # (O_EXCL follows no link)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if access is not None:
                access.give(descriptor)
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(file.parent)
    except FileExistsError:
        raise KeyMaterialError(f"{file}: exists already, and a key is never written over") from None
    except OSError as e:
        raise KeyMaterialError(f"{file}: cannot be written: {e.strerror}") from None


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
