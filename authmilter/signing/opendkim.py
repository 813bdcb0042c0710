"""OpenDKIM's KeyTable and SigningTable, read as they are, so that a migration is one line.

Text files only (`file:`, `refile:` and a bare path; no databases): a name, white space, a value on each line, `#`
begins a comment. What opendkim.conf(5) says is kept:

* KeyTable: `NAME  DOMAIN:SELECTOR:KEY`. DOMAIN `%` stands for the author's domain. KEY beginning with `/`, `./` or
  `../` is a file, in which `%` stands for the author's domain too; otherwise it is the key itself.
* SigningTable: `PATTERN  NAME [IDENTITY]`. NAME `%` stands for the author's domain. In a `refile:` the patterns are
  tried in their order, `*` standing for any characters. Else `user@host`, `host`, `user@.domain` for every domain
  above, `.domain` likewise, `user@*` and `*` are looked for in this order. Only the first match counts, unless
  `multiple` (MultipleSignatures), when all do.

Differences, each told: i= is not written (the second value is passed over), and a `%` in a file name has to be
known when the files are read, so that its SigningTable line must name one domain.

Two steps, because the files are read between them: `read_tables` (texts -> what to load), `OpenDkimTable.of`.

Fails: both raise `ConfigError` with every mistake at once; asking never fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from authmilter import grammar
from authmilter.dkim.sign import SigningEntry
from authmilter.errors import Complaint, ConfigError, Span
from authmilter.names import Address, Domain
from authmilter.signing.keys import KeyRing, KeySource
from authmilter.signing.table import BOUNCER, Match, Signer
from authmilter.text import printable

__all__ = ["OpenDkimLine", "OpenDkimTable", "OpenDkimTables", "read_tables", "table_path"]

#: Lines of each file that are read.
MAX_LINES = 200_000
#: Mistakes that are listed.
MAX_COMPLAINTS = 100
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyLine:
    """A KeyTable line: d= (None: `%`), s=, and the key as written."""

    domain: Domain | None
    selector: str
    key: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDkimLine:
    """A SigningTable line whose key is known: its pattern in lower case, and the signature to make.

    `own` is the author domain it is for where NAME is `%` (one line then stands for each KeyTable line).
    """

    pattern: str
    own: Domain | None
    domain: Domain | None
    selector: str
    key: KeySource
    span: Span

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"{self.span.file}:{self.span.line}: {self.pattern}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDkimTables:
    """What the two files say: the lines in order, whether patterns are a `refile`'s, and what was passed over."""

    lines: tuple[OpenDkimLine, ...]
    regular: bool
    multiple: bool
    warnings: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[KeySource, ...]:
        """The keys to load, each once."""
        return tuple(dict.fromkeys(line.key for line in self.lines))


def table_path(setting: str) -> tuple[str, bool]:
    """Return the file that a `KeyTable` or `SigningTable` setting names, and whether it is a `refile:`.

    Raises:
        ValueError: a kind of data set that is no text file.
    """
    kind, colon, rest = setting.partition(":")
    if not colon or kind.startswith(("/", ".")):
        return setting, False
    if kind in {"file", "refile"} and rest:
        return rest, kind == "refile"
    raise ValueError(f"`{printable(setting, _SHOWN)}`: only file: and refile: are read")


def read_tables(
    key_table: str,
    signing_table: str,
    *,
    key_file: str = "KeyTable",
    signing_file: str = "SigningTable",
    regular: bool = False,
    multiple: bool = False,
) -> OpenDkimTables:
    """Read the two texts.

    Args:
        key_table: the KeyTable's text.
        signing_table: the SigningTable's text.
        key_file: its name, for complaints and logs.
        signing_file: its name, likewise.
        regular: the SigningTable is a `refile:`.
        multiple: MultipleSignatures.

    Raises:
        ConfigError: with a complaint for every line that cannot be used.
    """
    complaints: list[Complaint] = []
    warnings: list[str] = []
    keys = _read_keys(key_table, key_file, complaints)
    lines: list[OpenDkimLine] = []
    for span, pattern, value in _lines(signing_table, signing_file, complaints):
        name, *identity = value.split(None, 1)
        if identity:
            warnings.append(f"{span.file}:{span.line}: the identity is passed over: i= is not written")
        try:
            lines += _signing_lines(span, pattern.lower(), name, keys, regular=regular)
        except ValueError as e:
            complaints.append(Complaint(span=span, message=str(e)))
    if complaints:
        raise ConfigError(tuple(complaints[:MAX_COMPLAINTS]))
    return OpenDkimTables(lines=tuple(lines), regular=regular, multiple=multiple, warnings=tuple(warnings))


def _lines(text: str, file: str, complaints: list[Complaint]) -> Iterator[tuple[Span, str, str]]:
    """Yield where each line stands, its name and its value."""
    for number, written in enumerate(text.splitlines(), 1):
        span = Span(file=file, line=number, column=1)
        if number > MAX_LINES:
            complaints.append(Complaint(span=span, message=f"more than {MAX_LINES} lines"))
            return
        words = written.partition("#")[0].split(None, 1)
        if len(words) == 2:
            yield span, words[0], words[1].strip()
        elif words:
            complaints.append(Complaint(span=span, message="expected a name, white space and a value"))


def _read_keys(text: str, file: str, complaints: list[Complaint]) -> dict[str, _KeyLine]:
    keys: dict[str, _KeyLine] = {}
    for span, name, value in _lines(text, file, complaints):
        parts = value.split(":", 2)
        why = ""
        domain = Domain.maybe(parts[0].strip()) if parts[0].strip() != "%" else None
        selector = parts[1].strip().lower() if len(parts) == 3 else ""
        if len(parts) != 3 or not parts[2].strip():
            why = "expected DOMAIN:SELECTOR:KEY"
        elif domain is None and parts[0].strip() != "%":
            why = f"`{printable(parts[0], _SHOWN)}` is no domain"
        elif not all(map(grammar.LABEL.fullmatch, selector.split("."))):
            why = f"`{printable(selector, _SHOWN)}` is no selector"
        elif name.lower() in keys:
            why = f"the name `{printable(name, _SHOWN)}` stands twice"
        if why:
            complaints.append(Complaint(span=span, message=why))
        else:
            keys[name.lower()] = _KeyLine(domain=domain, selector=selector, key=parts[2].strip(), span=span)
    return keys


def _signing_lines(
    span: Span, pattern: str, name: str, keys: dict[str, _KeyLine], *, regular: bool
) -> Iterator[OpenDkimLine]:
    """Yield what one SigningTable line says; ValueError says what is wrong with it."""
    if not regular and "*" in pattern and pattern != "*" and not pattern.endswith("@*"):
        raise ValueError(
            f"`{printable(pattern, _SHOWN)}`: a pattern needs refile: (in a file: only `*` and `user@*` have one)"
        )
    fixed = _fixed_domain(pattern)
    if name != "%":
        key = keys.get(name.lower())
        if key is None:
            raise ValueError(f"the KeyTable has no `{printable(name, _SHOWN)}`")
        yield _line(span, pattern, None, key, fixed)
        return
    # NAME is the author's domain: one line for each KeyTable line that is named for a domain the pattern can meet
    found = False
    for own_name, key in keys.items():
        own = Domain.maybe(own_name)
        if own is not None and own.parent is not None and (fixed is None or own == fixed):
            found = True
            yield _line(span, pattern, own, key, own)
    if not found:
        raise ValueError("the KeyTable has no key named for a domain that this line is for")


def _line(span: Span, pattern: str, own: Domain | None, key: _KeyLine, fixed: Domain | None) -> OpenDkimLine:
    if key.key.startswith(("/", "./", "../")):
        path = key.key
        if "%" in path:
            if fixed is None:
                raise ValueError(
                    f"`{printable(path, _SHOWN)}`: what % stands for is not known before the mail is there; "
                    "write a line for each domain"
                )
            path = path.replace("%", fixed.ascii)
        source = KeySource(path=path)
    else:
        # written on one line, \n for its line ends where it is PEM
        source = KeySource(text=key.key.replace("\\n", "\n"))
    return OpenDkimLine(
        pattern=pattern, own=own, domain=key.domain, selector=key.selector, key=source, span=span
    )


def _fixed_domain(pattern: str) -> Domain | None:
    """Return the one domain of the authors that a pattern is for; None if there may be more."""
    domain = pattern.rpartition("@")[2]
    return None if "*" in domain or domain.startswith(".") else Domain.maybe(domain)


class OpenDkimTable:
    """The two files as a table. Build it with `of`; `warnings` are for the administrator, a line each."""

    __slots__ = ("_exact", "_globs", "_listed", "_multiple", "_regular", "_signers", "warnings")

    def __init__(self, tables: OpenDkimTables, signers: tuple[tuple[OpenDkimLine, Signer], ...]) -> None:
        self._signers = signers
        self._regular = tables.regular
        self._multiple = tables.multiple
        self.warnings = tables.warnings
        # Plain texts and `*@domain` are looked up; only true patterns are tried one by one. A line for one domain is
        # kept under that domain, so that ten thousand keys named for their domains cost one look.
        exact: dict[tuple[str, Domain | None], list[int]] = {}
        globs: dict[Domain | None, list[tuple[int, tuple[str, ...]]]] = {}
        listed: dict[str, tuple[str, SigningEntry]] = {}
        for i, (line, signer) in enumerate(signers):
            local, at, domain = line.pattern.partition("@")
            if tables.regular and "*" in line.pattern and not (at and local == "*" and "*" not in domain):
                globs.setdefault(line.own, []).append((i, tuple(line.pattern.split("*"))))
            else:
                exact.setdefault((line.pattern, line.own), []).append(i)
            for_domain = line.own or _fixed_domain(line.pattern) or signer.domain
            entry = signer.entry(for_domain) if for_domain is not None else None
            if entry is not None:
                listed.setdefault(entry.question.name, (line.name, entry))
        self._exact = exact
        self._globs = globs
        self._listed = tuple(listed.values())

    @classmethod
    def of(cls, tables: OpenDkimTables, ring: KeyRing) -> OpenDkimTable:
        """Join the lines with the keys they name.

        Raises:
            ConfigError: a key was not loaded; told at every line that names it.
        """
        complaints: list[Complaint] = []
        signers: list[tuple[OpenDkimLine, Signer]] = []
        for line in tables.lines:
            key = ring.keys.get(line.key)
            if key is None:
                complaints.append(Complaint(span=line.span, message=f"{line.key}: {ring.why_not(line.key)}"))
            else:
                signers.append((line, Signer(domain=line.domain, selector=line.selector, key=key)))
        if complaints:
            raise ConfigError(tuple(complaints[:MAX_COMPLAINTS]))
        return cls(tables, tuple(signers))

    def find(self, author: Address) -> Match | None:
        """Return what the author's mail is signed with, or None; a bounce's host is looked for up to its top."""
        match = self._find(author)
        if match is None and author.local.lower() == BOUNCER:
            above = author.domain.parent
            while match is None and above is not None:
                match = self._find(Address(author.local, above))
                above = above.parent
        return match

    def _find(self, author: Address) -> Match | None:
        entries: list[SigningEntry] = []
        decided = ""
        for i in self._matching(author):
            line, signer = self._signers[i]
            entry = signer.entry(author.domain)
            if entry is None or entry in entries:
                continue
            decided = decided or line.name
            entries.append(entry)
            if not self._multiple:
                break
        return Match(entries=tuple(entries), line=decided) if entries else None

    @property
    def listed(self) -> tuple[tuple[str, SigningEntry], ...]:
        """Every entry whose domain is known without a message, once, with its line."""
        return self._listed

    def _matching(self, author: Address) -> Iterator[int]:
        """Yield the lines that match, in the order in which they count."""
        local, domain = author.local.lower(), author.domain.ascii
        address = f"{local}@{domain}"
        if self._regular:
            found = [*self._at(address, author.domain), *self._at(f"*@{domain}", author.domain)]
            for own in (None, author.domain):
                found += (i for i, parts in self._globs.get(own, ()) if _matches(parts, address))
            yield from sorted(found)
            return
        above = [domain.split(".", n)[n] for n in range(1, len(author.domain.labels))]
        for pattern in (
            address,
            domain,
            *(f"{local}@.{d}" for d in above),
            *(f".{d}" for d in above),
            f"{local}@*",
            "*",
        ):
            yield from sorted(self._at(pattern, author.domain))

    def _at(self, pattern: str, own: Domain) -> list[int]:
        return [*self._exact.get((pattern, None), ()), *self._exact.get((pattern, own), ())]


def _matches(parts: tuple[str, ...], text: str) -> bool:
    """Tell whether `text` is `parts` with anything between them; each place is looked at once."""
    first, *middle, last = parts
    if not text.startswith(first):
        return False
    at, end = len(first), len(text) - len(last)
    if end < at or not text.endswith(last):
        return False
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
