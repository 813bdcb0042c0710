"""Which signatures a message gets: from its author to `SigningEntry`s, and who may have them.

A table is asked for an author and answers with the entries and the line that decided. `DomainTable` knows domains:

    example.com         s2026  /etc/authmilter/keys/s2026.pem           an exact domain
    example.com         e2026  /etc/authmilter/keys/e2026.pem           a second signature for the same
    *.example.com       s2026  /etc/authmilter/keys/s2026.pem           every name below it; d= is example.com
    news.example.net    s1     /etc/authmilter/keys/s1.pem  d=example.net

The exact line decides; without one the longest `*.`. A bounce (`MAILER-DAEMON@host`) is signed by the longest
configured parent of its host, which is relaxed alignment (RFC 9989 §4.4) and no line of its own for every host.

`SenderBindings` says which authors a session may write as; without any, every author that a table knows.

Fails: building raises `ConfigError` with every mistake at once; asking never fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from authmilter import grammar
from authmilter.dkim.crypto import SigningKey
from authmilter.dkim.sign import SigningEntry
from authmilter.errors import Complaint, ConfigError, InvalidName, Span
from authmilter.mail import Session
from authmilter.names import Address, Domain
from authmilter.origins import Network
from authmilter.signing.keys import KeyRing, KeySource
from authmilter.text import printable

__all__ = [
    "BOUNCER",
    "Binding",
    "DomainTable",
    "Match",
    "SenderBindings",
    "Signer",
    "SignerLine",
    "SigningEntry",
    "Table",
    "parse_table",
]

#: Lines of a table file that are read.
MAX_LINES = 200_000
#: Mistakes that are listed.
MAX_COMPLAINTS = 100
#: The local part of a mail server's own notices (RFC 3834 §3.3, as all servers write it).
BOUNCER = "mailer-daemon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A signature to make: d= `domain` (None: the author's own), s= `selector`, and the key."""

    domain: Domain | None
    selector: str
    key: SigningKey

    def entry(self, author: Domain) -> SigningEntry | None:
        """Return the entry for an author of that domain; None if its DNS name would be too long."""
        try:
            return SigningEntry(domain=self.domain or author, selector=self.selector, key=self.key)
        except InvalidName:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a table says of an author: the `entries` in the order written, and the `line` that decided."""

    entries: tuple[SigningEntry, ...]
    line: str


class Table(Protocol):
    """From an author to signatures."""

    def find(self, author: Address) -> Match | None:
        """Return what the author's mail is signed with, or None."""

    @property
    def listed(self) -> tuple[tuple[str, SigningEntry], ...]:
        """Every entry whose domain is known without a message, each once, with its line: for checking the DNS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerLine:
    """One line as written: for authors of `pattern` (`example.com`, `*.example.com`) a signature.

    `domain` is d=, None for the pattern's own; `span` is where the line stands; `name` is what logs call it.
    """

    pattern: str
    selector: str
    key: KeySource
    domain: Domain | None = None
    span: Span
    name: str


class DomainTable:
    """A table of author domains. Build it with `of`; `warnings` are for the administrator, a line each."""

    __slots__ = ("_below", "_exact", "_listed", "warnings")

    def __init__(
        self,
        exact: Mapping[Domain, Match],
        below: Mapping[Domain, Match],
        listed: tuple[tuple[str, SigningEntry], ...],
        warnings: tuple[str, ...],
    ) -> None:
        self._exact = exact
        self._below = below
        self._listed = listed
        self.warnings = warnings

    @classmethod
    def of(cls, lines: Iterable[SignerLine], ring: KeyRing) -> DomainTable:
        """Join the lines with the keys they name.

        Raises:
            ConfigError: a pattern or selector that is none, a key that was not loaded, or a line that stands twice.
        """
        exact: dict[Domain, Match] = {}
        below: dict[Domain, Match] = {}
        listed: dict[tuple[Domain, str], tuple[str, SigningEntry]] = {}
        keys: dict[tuple[Domain, str], KeySource] = {}
        complaints: list[Complaint] = []
        warnings: list[str] = []
        for line in lines:
            try:
                base = Domain.parse(line.pattern.removeprefix("*."))
                entry = _entry_of(line, base, ring, keys)
            except InvalidName as e:
                complaints.append(Complaint(span=line.span, message=f"`{printable(line.pattern, 60)}`: {e}"))
                continue
            into = below if line.pattern.startswith("*.") else exact
            before = into.get(base)
            if before is not None and entry in before.entries:
                complaints.append(Complaint(span=line.span, message="the line stands twice"))
                continue
            if not (base.is_at_or_below(entry.domain) or entry.domain.is_at_or_below(base)):
                warnings.append(
                    f"{line.name}: d={entry.domain} is not the author's domain {base}, nor above or below it: "
                    "DMARC takes no account of such a signature"
                )
            listed.setdefault((entry.domain, entry.selector), (line.name, entry))
            into[base] = (
                Match(entries=(entry,), line=line.name)
                if before is None
                else Match(entries=(*before.entries, entry), line=before.line)
            )
        if complaints:
            raise ConfigError(tuple(complaints[:MAX_COMPLAINTS]))
        return cls(exact, below, tuple(listed.values()), tuple(warnings))

    def find(self, author: Address) -> Match | None:
        """Return what the author's mail is signed with, or None. At most one look for each label of the domain."""
        domain = author.domain
        match = self._exact.get(domain)
        if match is not None:
            return match
        bounce = author.local.lower() == BOUNCER
        above = domain.parent
        while above is not None:
            match = self._below.get(above)
            if match is None and bounce:
                match = self._exact.get(above)
            if match is not None:
                return match
            above = above.parent
        return None

    @property
    def listed(self) -> tuple[tuple[str, SigningEntry], ...]:
        """Every entry, once, with its line."""
        return self._listed


def _entry_of(
    line: SignerLine, base: Domain, ring: KeyRing, keys: dict[tuple[Domain, str], KeySource]
) -> SigningEntry:
    """Return a line's entry, or raise `InvalidName`; `keys` remembers which key each published name stands for."""
    key = ring.keys.get(line.key)
    if key is None:
        raise InvalidName(f"{line.key}: {ring.why_not(line.key)}")
    entry = SigningEntry(domain=line.domain or base, selector=line.selector.lower(), key=key)
    if keys.setdefault((entry.domain, entry.selector), line.key) != line.key:
        raise InvalidName("another line has another key under the same d= and selector")
    return entry


def parse_table(text: str, file: str) -> tuple[SignerLine, ...]:
    """Read a table file: `PATTERN SELECTOR KEY-FILE [d=DOMAIN]` on each line, `#` begins a comment.

    Raises:
        ConfigError: with a complaint for every line that says something else.
    """
    found: list[SignerLine] = []
    complaints: list[Complaint] = []
    for number, written in enumerate(text.splitlines(), 1):
        words = written.partition("#")[0].split()
        if not words:
            continue
        span = Span(file=file, line=number, column=1)
        if number > MAX_LINES:
            complaints.append(Complaint(span=span, message=f"more than {MAX_LINES} lines"))
            break
        domain: Domain | None = None
        why = ""
        if not 3 <= len(words) <= 4 or (len(words) == 4 and not words[3].startswith("d=")):
            why = "expected PATTERN SELECTOR KEY-FILE and, if wanted, d=DOMAIN"
        else:
            if len(words) == 4:
                domain = Domain.maybe(words[3][2:])
                if domain is None:
                    why = f"`{printable(words[3], 60)}` is no domain"
            if Domain.maybe(words[0].removeprefix("*.")) is None:
                why = f"`{printable(words[0], 60)}` is no domain, with or without `*.` before it"
            elif not all(map(grammar.LABEL.fullmatch, words[1].lower().split("."))):
                why = f"`{printable(words[1], 60)}` is no selector"
        if why:
            complaints.append(Complaint(span=span, message=why))
            continue
        found.append(
            SignerLine(
                pattern=words[0],
                selector=words[1].lower(),
                key=KeySource(path=words[2]),
                domain=domain,
                span=span,
                name=f"{file}:{number}: {words[0]}",
            )
        )
    if complaints:
        raise ConfigError(tuple(complaints[:MAX_COMPLAINTS]))
    return tuple(found)


# ----- who may write as whom --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Sessions, and the authors they may write as.

    Attributes:
        users: logins as written, `*@example.com` for every login of that domain, `*` for every login.
        networks: client networks; a session fits by its login or by its network.
        authors: `example.com`, `*.example.com` (every name below it), `user@example.com`, `*`, `{login}` (the login
            itself, where it is an address) and `{login-domain}` (the login's domain).
        line: what logs call it.

    Raises:
        ValueError: a user or an author that is none of these, or nobody, or nothing.
    """

    users: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    authors: tuple[str, ...]
    line: str

    def __post_init__(self) -> None:
        if not self.users and not self.networks:
            raise ValueError("names neither users nor networks")
        if not self.authors:
            raise ValueError("names no authors")
        for user in self.users:
            if not user or ("*" in user and user != "*" and Domain.maybe(user.removeprefix("*@")) is None):
                raise ValueError(f"{user!a} is no login, `*@domain` or `*`")
        for author in self.authors:
            if author in {"*", "{login}", "{login-domain}"}:
                continue
            try:
                if "@" in author:
                    Address.parse(author)
                else:
                    Domain.parse(author.removeprefix("*."))
            except InvalidName as e:
                raise ValueError(f"{author!a} is no author: {e}") from None

    def fits(self, session: Session) -> bool:
        """True if the session is one of these."""
        login = session.authenticated
        if login is not None:
            for user in self.users:
                if user in {login, "*"}:
                    return True
                if user.startswith("*@") and _login_domain(login) == Domain.maybe(user[2:]):
                    return True
        ip = session.client_ip
        return ip is not None and any(ip.version == n.version and ip in n for n in self.networks)

    def covers(self, author: Address, session: Session) -> bool:
        """True if the session may write as that author."""
        login = session.authenticated or ""
        for written in self.authors:
            if written == "*":
                return True
            if written == "{login}":
                if _same(_login_address(login), author):
                    return True
            elif written == "{login-domain}":
                if _login_domain(login) == author.domain:
                    return True
            elif "@" in written:
                if _same(Address.parse(written), author):
                    return True
            elif written.startswith("*."):
                base = Domain.parse(written[2:])
                if author.domain != base and author.domain.is_at_or_below(base):
                    return True
            elif Domain.parse(written) == author.domain:
                return True
        return False


def _login_address(login: str) -> Address | None:
    try:
        return Address.parse(login)
    except InvalidName:
        return None


def _login_domain(login: str) -> Domain | None:
    address = _login_address(login)
    return address.domain if address is not None else None


def _same(one: Address | None, other: Address) -> bool:
    """Compare as mailboxes are handed out: whoever has `alice` has `Alice` too.

    ASCII letters only: to Unicode `strasse` and `straße` are equal without case, and belong to two people.
    """
    if one is None or one.domain != other.domain:
        return False
    return one.local == other.local or (
        one.local.isascii() and other.local.isascii() and one.local.lower() == other.local.lower()
    )


@dataclass(frozen=True, slots=True)
class SenderBindings:
    """All bindings. Several that fit a session add up; none at all means that every session may write as anybody."""

    bindings: tuple[Binding, ...] = ()

    def decide(self, session: Session, author: Address) -> tuple[bool, str]:
        """Return whether the session may write as the author, and the line that decided."""
        if not self.bindings:
            return True, "signing.senders: none are bound"
        fitting = ""
        for binding in self.bindings:
            if binding.fits(session):
                if binding.covers(author, session):
                    return True, binding.line
                fitting = fitting or binding.line
        return False, fitting or "signing.senders: no line fits the session"
