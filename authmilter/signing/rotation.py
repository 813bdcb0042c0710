"""The life of a domain's keys: pending -> active -> retiring -> retired.

Keys made together are a `Generation`. A new one is *pending* until the DNS shows all its records; then it is *active*
and the one before it *retiring*: for the grace time both sign, for verifiers that remember the old answer, then the
old one signs no more, but its records stay until no queue can hold mail that it signed; then it is *retired*, and
its records may be emptied (`p=`). No key file is ever deleted or written over here.

The transitions (`begin`, `advance`) are pure. `Rotation` keeps the state in one file and can be stopped at any
instant: a key is on the disk before the state names it, the state is replaced whole, and a selector is written
together with the key it is for. What a stopped step leaves behind is a key that no state names, never a state that
names no key; the next step makes another selector.

Fails: `StoreError` where the state cannot be read or says something that cannot be; `KeyMaterialError` where a key
cannot be written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Protocol

from authmilter import grammar
from authmilter.dkim.crypto import KeyKind, SigningKey, generate_signing_key
from authmilter.errors import KeyMaterialError, Span, StoreError
from authmilter.names import Domain
from authmilter.signing.keys import KeySource, PublicationState, selector_from, sync_folder, write_file
from authmilter.signing.table import SignerLine

__all__ = [
    "Disk",
    "Files",
    "Generation",
    "KeyState",
    "RotatedKey",
    "Rotation",
    "RotationState",
    "Timing",
    "advance",
    "begin",
    "dump",
    "parse",
    "signer_lines",
]

_VERSION = 1
#: The state file's name, and the one that the next is written under before it takes that name.
STATE_FILE = "rotation.json"
_NEXT_FILE = "rotation.json.next"
_LOCK_FILE = "rotation.lock"
#: Selectors tried for one new key on one day.
_MAX_TRIES = 100
_MAX_STATE_OCTETS = 64 << 20


class KeyState(StrEnum):
    """Where in its life a generation is: a closed list."""

    #: made, not used: the DNS has not shown it yet
    PENDING = "pending"
    #: signs
    ACTIVE = "active"
    #: signs for the grace time; its records must stay
    RETIRING = "retiring"
    #: signs no more, and nothing signed with it can be on its way: its records may be emptied
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKey:
    """One key: what it is, its selector, and its file's name. These three belong together and never change."""

    kind: KeyKind
    selector: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Keys of one domain that were made together; `since` is when `state` began, in seconds of the epoch."""

    domain: Domain
    keys: tuple[RotatedKey, ...]
    state: KeyState
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationState:
    """All generations, oldest first."""

    generations: tuple[Generation, ...] = ()

    def of(self, domain: Domain, state: KeyState) -> tuple[Generation, ...]:
        """Return a domain's generations in that state."""
        return tuple(g for g in self.generations if g.domain == domain and g.state is state)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """Every domain, once."""
        return tuple(dict.fromkeys(g.domain for g in self.generations))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds: `grace` is how long old and new both sign, `queue_life` how long mail may be on its way after that."""

    grace: int = 2 * 86400
    queue_life: int = 7 * 86400


# ----- the transitions: pure --------------------------------------------------------------------------------------


def begin(state: RotationState, domain: Domain, keys: Iterable[RotatedKey], now: int) -> RotationState:
    """Add a pending generation.

    Raises:
        StoreError: the domain has a pending one already, there are no keys, or a selector has been used before.
    """
    if state.of(domain, KeyState.PENDING):
        raise StoreError(f"{domain}: there is a pending generation already: publish it, or wait")
    new = tuple(keys)
    used = {k.selector for g in state.generations if g.domain == domain for k in g.keys}
    selectors = [k.selector for k in new]
    if not new or len(set(selectors)) != len(new) or used & set(selectors):
        raise StoreError(f"{domain}: a generation needs keys, each under a selector never used before")
    generation = Generation(domain=domain, keys=new, state=KeyState.PENDING, since=now)
    return RotationState(generations=(*state.generations, generation))


def advance(
    state: RotationState, published: Mapping[tuple[Domain, str], PublicationState], now: int, timing: Timing
) -> RotationState:
    """Take every step that time and the DNS allow; the same state where there is none.

    Args:
        state: where things are.
        published: what the DNS says of (domain, selector); what is not there is taken for unknown.
        now: seconds of the epoch; a clock that runs back only delays.
        timing: see there.
    """
    ready = {
        g.domain
        for g in state.generations
        if g.state is KeyState.PENDING
        and all(published.get((g.domain, k.selector)) is PublicationState.PUBLISHED for k in g.keys)
    }
    found: list[Generation] = []
    for g in state.generations:
        if g.state is KeyState.PENDING and g.domain in ready:
            found.append(replace(g, state=KeyState.ACTIVE, since=now))
        elif g.state is KeyState.ACTIVE and g.domain in ready:
            found.append(replace(g, state=KeyState.RETIRING, since=now))
        elif g.state is KeyState.RETIRING and now - g.since >= timing.grace + timing.queue_life:
            found.append(replace(g, state=KeyState.RETIRED, since=now))
        else:
            found.append(g)
    return RotationState(generations=tuple(found))


def _signs(generation: Generation, now: int, timing: Timing) -> bool:
    if generation.state is KeyState.RETIRING:
        return now - generation.since < timing.grace
    return generation.state is KeyState.ACTIVE


def signer_lines(state: RotationState, now: int, timing: Timing, *, folder: Path) -> tuple[SignerLine, ...]:
    """Return the lines of a `DomainTable` for all keys that sign now, the newest generation's first."""
    return tuple(
        SignerLine(
            pattern=g.domain.ascii,
            selector=key.selector,
            key=KeySource(path=str(folder / key.file)),
            span=Span(file=str(folder / STATE_FILE)),
            name=f"{folder / STATE_FILE}: {g.domain} ({g.state.value})",
        )
        for g in reversed(state.generations)
        if _signs(g, now, timing)
        for key in g.keys
    )


# ----- the state's text -------------------------------------------------------------------------------------------


def dump(state: RotationState) -> bytes:
    """Return the state as JSON text."""
    generations = [
        {
            "domain": g.domain.ascii,
            "state": g.state.value,
            "since": g.since,
            "keys": [{"kind": k.kind.value, "selector": k.selector, "file": k.file} for k in g.keys],
        }
        for g in state.generations
    ]
    return json.dumps({"version": _VERSION, "generations": generations}, indent=1).encode() + b"\n"


def parse(data: bytes) -> RotationState:
    """Read what `dump` wrote.

    Raises:
        StoreError: it is something else.
    """
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise StoreError("the state of the keys was written by another version")
        return RotationState(
            generations=tuple(
                Generation(
                    domain=Domain.parse(g["domain"]),
                    state=KeyState(g["state"]),
                    since=int(g["since"]),
                    keys=tuple(_key(k) for k in g["keys"]),
                )
                for g in document["generations"]
            )
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise StoreError("the state of the keys cannot be read: it is damaged") from None


def _key(data: Mapping[str, str]) -> RotatedKey:
    key = RotatedKey(kind=KeyKind(data["kind"]), selector=data["selector"], file=data["file"])
    if "/" in key.file or not all(map(grammar.LABEL.fullmatch, key.selector.split("."))):
        raise ValueError("no selector, or no file's name")
    return key


# ----- the state on the disk --------------------------------------------------------------------------------------


class Files(Protocol):
    """A folder, by the few steps that a stop may come between; names without a path."""

    def read(self, name: str) -> bytes | None:
        """Return a file's octets, or None if there is none."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file, on the disk when this returns; False if there is one of that name already."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whether or not it exists; on the disk when this returns."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what has it; all or nothing, on the disk when this returns."""


class Disk:
    """A real folder; what is written there only its owner may read."""

    __slots__ = ("_folder",)

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """Return a file's octets, or None if there is none."""
        try:
            with (self._folder / name).open("rb") as source:
                data = source.read(_MAX_STATE_OCTETS + 1)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StoreError(f"{self._folder / name}: cannot be read: {e.strerror}") from None
        if len(data) > _MAX_STATE_OCTETS:
            raise StoreError(f"{self._folder / name}: is far too large")
        return data

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; False if there is one of that name already."""
        file = self._folder / name
        if file.exists():
            return False
        write_file(file, data, new=True)
        return True

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whether or not it exists."""
        write_file(self._folder / name, data, new=False)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what has it."""
        try:
            (self._folder / old).replace(self._folder / new)
            sync_folder(self._folder)
        except OSError as e:
            raise StoreError(f"{self._folder / new}: cannot be written: {e.strerror}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the folder at the same time; a stopped process holds no lock."""
        try:
            descriptor = os.open(self._folder / _LOCK_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise StoreError(f"{self._folder / _LOCK_FILE}: cannot be written: {e.strerror}") from None
        try:
            flock(descriptor, LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class Rotation:
    """The state in its file, and the steps on it; one at a time (see `Disk.locked`).

    Args:
        files: the folder of the state and the keys.
        timing: how long things last.
        template: of selectors, see `selector_from`.
        kinds: which keys a generation has.
        rsa_bits: of RSA keys.
    """

    __slots__ = ("_files", "_kinds", "_rsa_bits", "_template", "_timing")

    def __init__(
        self,
        files: Files,
        *,
        timing: Timing | None = None,
        template: str = "{kind}-{date}",
        kinds: tuple[KeyKind, ...] = (KeyKind.RSA, KeyKind.ED25519),
        rsa_bits: int = 2048,
    ) -> None:
        self._files = files
        self._timing = timing if timing is not None else Timing()
        self._template = template
        self._kinds = kinds
        self._rsa_bits = rsa_bits

    def state(self) -> RotationState:
        """Return the state; an empty one where there is no file yet.

        Raises:
            StoreError: the file cannot be read.
        """
        data = self._files.read(STATE_FILE)
        return RotationState() if data is None else parse(data)

    def begin(self, domain: Domain, now: datetime) -> tuple[RotatedKey, ...]:
        """Make a pending generation for a domain and return its keys: their records are to be published.

        Raises:
            StoreError: there is a pending one already, or the state cannot be read or written.
            KeyMaterialError: a key cannot be written.
            InvalidName: the template gives no selector.
        """
        state = self.state()
        if state.of(domain, KeyState.PENDING):
            raise StoreError(f"{domain}: there is a pending generation already: publish it, or wait")
        used = {k.selector for g in state.generations if g.domain == domain for k in g.keys}
        made: list[RotatedKey] = []
        for kind in self._kinds:
            key = generate_signing_key(kind, rsa_bits=self._rsa_bits)
            new = self._keep(domain, key, used, now)
            used.add(new.selector)
            made.append(new)
        self._save(begin(state, domain, made, int(now.timestamp())))
        return tuple(made)

    def advance(
        self, published: Mapping[tuple[Domain, str], PublicationState], now: datetime
    ) -> tuple[RotationState, RotationState]:
        """Take every step that time and the DNS allow; return the state before and after. Harmless at any time.

        Raises:
            StoreError: the state cannot be read or written.
        """
        before = self.state()
        after = advance(before, published, int(now.timestamp()), self._timing)
        if after != before:
            self._save(after)
        return before, after

    def _keep(self, domain: Domain, key: SigningKey, used: set[str], now: datetime) -> RotatedKey:
        """Write a new key under a selector that nothing has had, state or file."""
        base = selector_from(self._template, key.kind, now)
        for attempt in range(1, _MAX_TRIES + 1):
            selector = base if attempt == 1 else f"{base}-{attempt}"
            file = f"{domain.ascii}.{selector}.pem"
            if selector not in used and self._files.create(file, key.pem()):
                return RotatedKey(kind=key.kind, selector=selector, file=file)
        raise KeyMaterialError(f"{domain}: {_MAX_TRIES} selectors made of `{self._template}` have been used")

    def _save(self, state: RotationState) -> None:
        self._files.write(_NEXT_FILE, dump(state))
        self._files.rename(_NEXT_FILE, STATE_FILE)
