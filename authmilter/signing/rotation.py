"""The life of a domain's keys: pending -> active -> retiring -> retired.

Keys made together are a `Generation`. A new one is *pending* until the DNS has shown all its records for a while;
then it is *active* and the one before it *retiring*: for the grace time both sign, for verifiers that remember the
old answer, then the old one is stopped and signs no more, but its records stay until no queue can hold mail that it
signed; then it is *retired*, and its records may be emptied (`p=`). No key file is ever deleted or written over here.

Which keys sign is in the state alone, never in the clock: whoever reads the same state signs with the same keys,
and a service that nobody tells to read it goes on with the old keys. So the wait for the queues begins when a
service is known to have read the state that stopped a key (`confirm`), not when the state was written.

The transitions (`begin`, `advance`, `confirm`) are pure. `Rotation` keeps the state in one file and can be stopped at
any instant: a key is on the disk before the state names it, the state is replaced whole, and a selector is written
together with the key it is for. What a stopped step leaves behind is a key that no state names, never a state that
names no key; the next step makes another selector.

Fails: `StoreError` where the state cannot be read or says something that cannot be; `KeyMaterialError` where a key
cannot be written.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Protocol, TypeVar

from authmilter import grammar
from authmilter.dkim.crypto import KeyKind, SigningKey, generate_signing_key
from authmilter.dkim.sign import key_question
from authmilter.errors import InvalidName, KeyMaterialError, Span, StoreError
from authmilter.names import Domain
from authmilter.ports import Resolver
from authmilter.signing.keys import (
    FileAccess,
    KeyProblem,
    KeySource,
    Publication,
    PublicationState,
    check_published,
    load,
    selector_from,
    sync_folder,
    write_file,
)
from authmilter.signing.table import SignerLine, SigningEntry

__all__ = [
    "STATE_FILE",
    "Disk",
    "Files",
    "Generation",
    "KeyState",
    "Looked",
    "RotatedKey",
    "Rotation",
    "RotationSettings",
    "RotationState",
    "Timing",
    "advance",
    "begin",
    "confirm",
    "due",
    "dump",
    "look",
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
#: A service reads no larger file: about 3000 generations of two keys.
MAX_STATE_OCTETS = 1 << 20


class KeyState(StrEnum):
    """Where in its life a generation is: a closed list."""

    #: made, not used: the DNS has not shown it for long enough
    PENDING = "pending"
    #: signs
    ACTIVE = "active"
    #: signs for the grace time, then no more; its records must stay
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
    """Keys of one domain that were made together.

    Attributes (times in seconds of the epoch):
        since: when `state` began.
        seen: of a pending one: since when the DNS has shown all its records, each time somebody looked.
        stopped: of a retiring one: when the state said that it signs no more.
        quiet: of a stopped one: when a service was first known to have read that.
    """

    domain: Domain
    keys: tuple[RotatedKey, ...]
    state: KeyState
    since: int
    seen: int | None = None
    stopped: int | None = None
    quiet: int | None = None

    @property
    def signs(self) -> bool:
        """True if a service that reads this signs with it."""
        return self.state is KeyState.ACTIVE or (self.state is KeyState.RETIRING and self.stopped is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationState:
    """All generations, oldest first; `taken` is False until a service is known to have read what signs now."""

    generations: tuple[Generation, ...] = ()
    taken: bool = True

    def of(self, domain: Domain, state: KeyState) -> tuple[Generation, ...]:
        """Return a domain's generations in that state."""
        return tuple(g for g in self.generations if g.domain == domain and g.state is state)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """Every domain, once."""
        return tuple(dict.fromkeys(g.domain for g in self.generations))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things last, in seconds.

    Attributes:
        propagation: how long the DNS must have shown a new key before it is used: other resolvers may remember for
            a while that there was none.
        grace: how long old and new both sign.
        queue_life: how long mail may be on its way after its key signs no more.
    """

    propagation: int = 3600
    grace: int = 2 * 86400
    queue_life: int = 7 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationSettings:
    """Which keys take turns, and how; one folder each.

    Attributes:
        folder: of the state and the keys.
        patterns: `example.com`, `*.example.com` (authors below it, d=example.com).
        template: of selectors, see `selector_from`.
        kinds: which keys a generation has.
        rsa_bits: of RSA keys.
        timing: see there.
        every: seconds after which an active generation is due to be replaced; None: only when somebody says so.

    Raises:
        InvalidName: the template gives no selector, or, with a domain, too long a DNS name.
    """

    folder: Path
    patterns: tuple[str, ...]
    template: str = "{kind}-{date}"
    kinds: tuple[KeyKind, ...] = (KeyKind.RSA, KeyKind.ED25519)
    rsa_bits: int = 2048
    timing: Timing = Timing()
    every: int | None = 180 * 86400

    def __post_init__(self) -> None:
        for kind in self.kinds:
            # any day: all give as many letters
            selector = _numbered(
                selector_from(self.template, kind, datetime(2026, 1, 1, tzinfo=UTC)), _MAX_TRIES
            )
            for domain in self.domains:
                _ = key_question(domain, selector)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The domains that have keys, each once."""
        return tuple(dict.fromkeys(Domain.parse(p.removeprefix("*.")) for p in self.patterns))


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
    return replace(state, generations=(*state.generations, generation))


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
    looked = [_seen(g, published, now) if g.state is KeyState.PENDING else g for g in state.generations]
    ready = {
        g.domain
        for g in looked
        if g.seen is not None and now - g.seen >= timing.propagation and _shown(g, published) is True
    }
    found: list[Generation] = []
    for g in looked:
        if g.state is KeyState.PENDING and g.domain in ready:
            found.append(replace(g, state=KeyState.ACTIVE, since=now, seen=None))
        elif g.state is KeyState.ACTIVE and g.domain in ready:
            found.append(replace(g, state=KeyState.RETIRING, since=now))
        elif g.state is KeyState.RETIRING and g.stopped is None:
            # A record that was emptied early (a stolen key) ends the grace time: another key signs.
            over = now - g.since >= timing.grace or _shown(g, published) is False
            found.append(replace(g, stopped=now) if over else g)
        elif g.quiet is not None and g.state is KeyState.RETIRING and now - g.quiet >= timing.queue_life:
            found.append(replace(g, state=KeyState.RETIRED, since=now))
        else:
            found.append(g)
    same = [g.signs for g in state.generations] == [g.signs for g in found]
    return RotationState(generations=tuple(found), taken=state.taken and same)


def _shown(generation: Generation, published: Mapping[tuple[Domain, str], PublicationState]) -> bool | None:
    """Return whether the DNS shows every key; None: some question had no answer, and the others say yes."""
    told = {published.get((generation.domain, k.selector), PublicationState.UNKNOWN) for k in generation.keys}
    if told <= {PublicationState.PUBLISHED}:
        return True
    return None if told <= {PublicationState.PUBLISHED, PublicationState.UNKNOWN} else False


def _seen(
    generation: Generation, published: Mapping[tuple[Domain, str], PublicationState], now: int
) -> Generation:
    match _shown(generation, published):
        case True:
            return generation if generation.seen is not None else replace(generation, seen=now)
        case False:
            return replace(generation, seen=None)
        case None:
            return generation


def confirm(state: RotationState, now: int) -> RotationState:
    """Note that a service has read the state: what was stopped is quiet from now on."""
    return RotationState(
        generations=tuple(
            replace(g, quiet=now) if g.stopped is not None and g.quiet is None else g
            for g in state.generations
        )
    )


def due(state: RotationState, settings: RotationSettings, now: int) -> tuple[Domain, ...]:
    """Return the domains that want a new generation: those without any, and those whose active one is old."""

    def wants(domain: Domain) -> bool:
        if state.of(domain, KeyState.PENDING):
            return False
        active = state.of(domain, KeyState.ACTIVE)
        return not active or (
            settings.every is not None and all(now - g.since >= settings.every for g in active)
        )

    return tuple(domain for domain in settings.domains if wants(domain))


def signer_lines(state: RotationState, patterns: Iterable[str], *, folder: Path) -> tuple[SignerLine, ...]:
    """Return the lines of a `DomainTable` for all keys that sign, the newest generation's first.

    Args:
        state: of the rotation.
        patterns: as in `RotationSettings`.
        folder: where state and keys are.
    """
    signing = [g for g in reversed(state.generations) if g.signs]
    return tuple(
        SignerLine(
            pattern=pattern,
            selector=key.selector,
            key=KeySource(path=str(folder / key.file)),
            span=Span(file=str(folder / STATE_FILE)),
            name=f"signing.rotation: {pattern} {key.selector} ({g.state.value})",
        )
        for pattern in patterns
        for base in (Domain.parse(pattern.removeprefix("*.")),)
        for g in signing
        if g.domain == base
        for key in g.keys
    )


# ----- what the DNS says ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What the DNS says of every key by (domain, selector), and the keys that a service would refuse to load."""

    found: Mapping[tuple[Domain, str], Publication]
    problems: tuple[KeyProblem, ...] = ()

    @property
    def published(self) -> Mapping[tuple[Domain, str], PublicationState]:
        """The same as `advance` takes it: a key that cannot be loaded is not there, so it is never used."""
        return {place: one.state for place, one in self.found.items()}


async def look(generations: Iterable[Generation], resolver: Resolver, *, folder: Path) -> Looked:
    """Load the keys of some generations, as a service would, and ask the DNS for all of them at the same time."""
    wanted = [
        (g, key.selector, KeySource(path=str(folder / key.file))) for g in generations for key in g.keys
    ]
    ring = load(source for _, _, source in wanted)
    # The files of retired keys may have been deleted.
    needed = {source for g, _, source in wanted if g.state is not KeyState.RETIRED}
    problems = [problem for problem in ring.problems if problem.source in needed]
    places: list[tuple[Domain, str]] = []
    entries: list[SigningEntry] = []
    for g, selector, source in wanted:
        if source in ring.keys:
            try:
                entry = SigningEntry(domain=g.domain, selector=selector, key=ring.keys[source])
            except InvalidName as e:
                problems.append(KeyProblem(source, str(e)))
                continue
            places.append((g.domain, selector))
            entries.append(entry)
    told = await check_published(entries, resolver)
    return Looked(found=dict(zip(places, told, strict=True)), problems=tuple(problems))


# ----- the state's text -------------------------------------------------------------------------------------------


def dump(state: RotationState) -> bytes:
    """Return the state as JSON text."""
    generations = [
        {
            "domain": g.domain.ascii,
            "state": g.state.value,
            "since": g.since,
            "seen": g.seen,
            "stopped": g.stopped,
            "quiet": g.quiet,
            "keys": [{"kind": k.kind.value, "selector": k.selector, "file": k.file} for k in g.keys],
        }
        for g in state.generations
    ]
    document = {"version": _VERSION, "taken": state.taken, "generations": generations}
    return json.dumps(document, indent=1).encode() + b"\n"


def parse(data: bytes | str, file: str = STATE_FILE) -> RotationState:
    """Read what `dump` wrote.

    Args:
        data: the text.
        file: its name, for complaints.

    Raises:
        StoreError: it is something else; says the line and column, or the member, at which.
    """
    try:
        document = json.loads(data)
    except json.JSONDecodeError as e:
        raise StoreError(
            f"{_DAMAGED}: {e.msg}", span=Span(file=file, line=e.lineno, column=e.colno)
        ) from None
    except (ValueError, RecursionError):  # no text, a number of thousands of digits, thousands of brackets
        raise StoreError(f"{_DAMAGED}: this is no JSON of ours", span=Span(file=file)) from None
    try:
        if _member(document, "version", "", int) != _VERSION:
            raise StoreError("the state of the keys was written by another version", span=Span(file=file))
        found = [
            _generation(g, f"generations[{n}]")
            for n, g in enumerate(_member(document, "generations", "", list))
        ]
        _each_selector_once(found)
        return RotationState(generations=tuple(found), taken=_member(document, "taken", "", bool))
    except ValueError as e:
        raise StoreError(f"{_DAMAGED}: {e}", span=Span(file=file)) from None


_DAMAGED = "the state of the keys cannot be read, it is damaged"
#: The end of the year 9999, beyond which no date can be told.
_MAX_TIME = 253_402_300_799
_T = TypeVar("_T")
_KINDS: Mapping[type, str] = {int: "a whole number", str: "a text", list: "a list", bool: "true or false"}


def _member(data: object, name: str, place: str, kind: type[_T]) -> _T:
    """Return a member of a JSON object; ValueError says which is missing or of another type."""
    path = f"{place}.{name}" if place else name
    if not isinstance(data, dict) or name not in data:
        raise ValueError(f"`{path}` is missing")
    value = data[name]
    if type(value) is not kind:  # True is an int to isinstance
        raise ValueError(f"`{path}` is not {_KINDS[kind]}")
    return value


def _generation(data: object, place: str) -> Generation:
    state = _member(data, "state", place, str)
    if state not in tuple(KeyState):
        raise ValueError(f"`{place}.state` is none of {', '.join(KeyState)}")
    domain = Domain.maybe(_member(data, "domain", place, str))
    if domain is None:
        raise ValueError(f"`{place}.domain` is no domain")
    keys = tuple(_key(k, f"{place}.keys[{n}]") for n, k in enumerate(_member(data, "keys", place, list)))
    if not keys:
        raise ValueError(f"`{place}.keys` is empty")
    since = _time(data, "since", place)
    if since is None:
        raise ValueError(f"`{place}.since` is no time")
    return Generation(
        domain=domain,
        state=KeyState(state),
        since=since,
        seen=_time(data, "seen", place),
        stopped=_time(data, "stopped", place),
        quiet=_time(data, "quiet", place),
        keys=keys,
    )


def _time(data: object, name: str, place: str) -> int | None:
    if isinstance(data, dict) and name in data and data[name] is None:
        return None
    value = _member(data, name, place, int)
    if not 0 <= value <= _MAX_TIME:
        raise ValueError(f"`{place}.{name}` is no time (seconds since 1970)")
    return value


def _key(data: object, place: str) -> RotatedKey:
    kind, selector = _member(data, "kind", place, str), _member(data, "selector", place, str)
    file = _member(data, "file", place, str)
    if kind not in tuple(KeyKind):
        raise ValueError(f"`{place}.kind` is none of {', '.join(KeyKind)}")
    if not all(map(grammar.LABEL.fullmatch, selector.split("."))):
        raise ValueError(f"`{place}.selector` is no selector")
    if "/" in file or file in {"", ".", ".."}:
        raise ValueError(f"`{place}.file` is no file's name")
    return RotatedKey(kind=KeyKind(kind), selector=selector, file=file)


def _each_selector_once(generations: Iterable[Generation]) -> None:
    seen: set[tuple[Domain, str]] = set()
    for n, generation in enumerate(generations):
        for m, key in enumerate(generation.keys):
            if (generation.domain, key.selector) in seen:
                raise ValueError(f"`generations[{n}].keys[{m}].selector` stands twice")
            seen.add((generation.domain, key.selector))


def _numbered(base: str, attempt: int) -> str:
    """Return the selector of a further attempt: `-2` behind, in place of what would be too long for a label."""
    if attempt == 1:
        return base
    head, dot, last = base.rpartition(".")
    suffix = f"-{attempt}"
    # RFC 1035 §2.3.4: a label has at most 63 octets
    return f"{head}{dot}{last[: 63 - len(suffix)]}{suffix}"


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
    """A real folder; what is written there is for the service alone.

    Files are their writer's (0600). Where root writes, they are made as the folder is, so that the service can read
    them: they belong to the folder's owner (0600), or, if that is root, its group may read them (0640).
    """

    __slots__ = ("_folder",)

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """Return a file's octets, or None if there is none."""
        try:
            with (self._folder / name).open("rb") as source:
                data = source.read(MAX_STATE_OCTETS + 1)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StoreError(f"{self._folder / name}: cannot be read: {e.strerror}") from None
        if len(data) > MAX_STATE_OCTETS:
            raise StoreError(f"{self._folder / name}: is far too large")
        return data

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; False if there is one of that name already."""
        file = self._folder / name
        if os.path.lexists(file):
            return False
        write_file(file, data, access=self._access())
        return True

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whether or not it exists."""
        file = self._folder / name
        try:
            # Made anew, so that no link is followed: root may write in a folder that is not root's.
            file.unlink(missing_ok=True)
        except OSError as e:
            raise StoreError(f"{file}: cannot be written: {e.strerror}") from None
        write_file(file, data, access=self._access())

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what has it."""
        try:
            (self._folder / old).replace(self._folder / new)
            sync_folder(self._folder)
        except OSError as e:
            raise StoreError(f"{self._folder / new}: cannot be written: {e.strerror}") from None

    def _give(self, descriptor: int, access: FileAccess) -> None:
        """Give the lock to whom the folder is for, unless it is another file that was put in its place."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise StoreError(f"{self._folder / _LOCK_FILE}: is no lock of ours: remove it")
        try:
            access.give(descriptor)
        except OSError as e:
            raise StoreError(f"{self._folder / _LOCK_FILE}: cannot be written: {e.strerror}") from None

    def _access(self) -> FileAccess | None:
        try:
            return FileAccess.like(self._folder)
        except OSError:
            return None  # there is no folder: whoever opens a file in it says so

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the folder at the same time; a stopped process holds no lock."""
        access = self._access()
        try:
            how = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._folder / _LOCK_FILE, how, 0o600)
        except OSError as e:
            raise StoreError(f"{self._folder / _LOCK_FILE}: cannot be written: {e.strerror}") from None
        try:
            if access is not None:
                self._give(descriptor, access)
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
        place: the state file, for complaints.
    """

    __slots__ = ("_files", "_kinds", "_place", "_rsa_bits", "_template", "_timing")

    def __init__(
        self,
        files: Files,
        *,
        timing: Timing | None = None,
        template: str = "{kind}-{date}",
        kinds: tuple[KeyKind, ...] = (KeyKind.RSA, KeyKind.ED25519),
        rsa_bits: int = 2048,
        place: str = STATE_FILE,
    ) -> None:
        self._files = files
        self._place = place
        self._timing = timing if timing is not None else Timing()
        self._template = template
        self._kinds = kinds
        self._rsa_bits = rsa_bits

    @classmethod
    def of(cls, settings: RotationSettings, files: Files) -> Rotation:
        """Return the rotation that the settings describe."""
        return cls(
            files,
            timing=settings.timing,
            template=settings.template,
            kinds=settings.kinds,
            rsa_bits=settings.rsa_bits,
            place=str(settings.folder / STATE_FILE),
        )

    def state(self) -> RotationState:
        """Return the state; an empty one where there is no file yet.

        Raises:
            StoreError: the file cannot be read.
        """
        data = self._files.read(STATE_FILE)
        return RotationState() if data is None else parse(data, self._place)

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

    def confirm(self, now: datetime) -> RotationState:
        """Note that a service has read the state as it stands; call it after the service said so. Harmless twice.

        Raises:
            StoreError: the state cannot be read or written.
        """
        before = self.state()
        after = confirm(before, int(now.timestamp()))
        if after != before:
            self._save(after)
        return after

    def _keep(self, domain: Domain, key: SigningKey, used: set[str], now: datetime) -> RotatedKey:
        """Write a new key under a selector that nothing has had, state or file."""
        base = selector_from(self._template, key.kind, now)
        for attempt in range(1, _MAX_TRIES + 1):
            selector = _numbered(base, attempt)
            _ = key_question(domain, selector)  # nothing is written under a name that cannot be published
            file = f"{domain.ascii}.{selector}.pem"
            if selector not in used and self._files.create(file, key.pem()):
                return RotatedKey(kind=key.kind, selector=selector, file=file)
        raise KeyMaterialError(f"{domain}: {_MAX_TRIES} selectors made of `{self._template}` have been used")

    def _save(self, state: RotationState) -> None:
        data = dump(state)
        if len(data) > MAX_STATE_OCTETS:
            raise StoreError(
                f"the state of the keys would have {len(data)} octets, more than a service reads "
                f"({MAX_STATE_OCTETS}): divide the domains among several folders"
            )
        self._files.write(_NEXT_FILE, data)
        self._files.rename(_NEXT_FILE, STATE_FILE)
