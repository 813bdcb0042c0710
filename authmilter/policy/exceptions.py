"""Forwarder exceptions: mail of one author domain that one forwarder breaks on its way, for a while and with an owner.

An exception applies to a message if all of this holds:

* DMARC fails, and the author domain is the exception's
* the failure is what forwarding does (`dmarc.forwarding`): the author's own signature meets an altered body or header,
  or there is none and SPF says nothing for the author
* the forwarder is proven in a way the exception names: its SPF, a DKIM signature of its own, its ARC seal on top of a
  chain that passes, or the confirmed name of the client
* its last day has not passed (by the day of arrival, UTC)

Rules then see `exception.applies`. Nothing is accepted by an exception alone: a rule says what it is worth.

Pure and total; what is wrong with an exception as written is noted with its place, and then there is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from authmilter.documents import Data, Path
from authmilter.errors import Span
from authmilter.names import Domain
from authmilter.policy.facts import Facts, Value
from authmilter.policy.notes import Notes, items_of, near, shown

__all__ = ["EXCEPTION_KEYS", "PROOFS", "ForwarderException", "excepted", "read"]

EXCEPTION_KEYS = ("author", "forwarder", "proven_by", "owner", "reason", "expires")
#: How a forwarder can be proven, from the strongest.
PROOFS = ("dkim", "arc", "spf", "iprev")
#: Without `proven_by`: a client's name alone proves a machine, not who uses it, so it has to be asked for.
DEFAULT_PROOFS = ("dkim", "arc", "spf")
MAX_EXCEPTIONS = 1000
MAX_LINE = 200

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderException:
    """One exception. `below`: for all names below `author` instead of that name; `expires` is its last day."""

    author: Domain
    below: bool = False
    forwarder: Domain
    proven_by: tuple[str, ...] = DEFAULT_PROOFS
    owner: str
    reason: str
    expires: date
    span: Span = Span(file="")

    @property
    def text(self) -> str:
        """The exception in words, for the log."""
        author = f"*.{self.author}" if self.below else str(self.author)
        return f"exception for {author} through {self.forwarder} until {self.expires}, {self.owner}: {self.reason}"

    def covers(self, author: Domain) -> bool:
        """True if the author domain is the exception's."""
        if self.below:
            return author != self.author and author.is_at_or_below(self.author)
        return author == self.author

    def is_proven(self, facts: Facts) -> bool:
        """True if the message shows in one of the ways named that the forwarder sent it."""
        return any(
            domain.is_at_or_below(self.forwarder) for way in self.proven_by for domain in _proven(way, facts)
        )


def _proven(way: str, facts: Facts) -> tuple[Domain, ...]:
    """Return the domains that a message proves in one way."""
    value: Value | None = None
    if way == "dkim":
        value = facts.get("dkim.pass_domains")
    elif way == "arc":
        value = facts.get("arc.sealer") if facts.get("arc.status") == "pass" else None
    elif way == "spf" and facts.get("spf.status") == "pass" and facts.get("spf.broad") is not True:
        value = facts.get("spf.domain")
    elif way == "iprev" and facts.get("iprev.status") == "pass":
        value = facts.get("iprev.name")
    texts = value if isinstance(value, tuple) else (value,)
    return tuple(d for t in texts if isinstance(t, str) and (d := Domain.maybe(t)) is not None)


def excepted(
    facts: Facts, exceptions: tuple[ForwarderException, ...]
) -> tuple[Facts, ForwarderException | None]:
    """Return the facts with those of the first exception that applies, and the exception. Total."""
    found = _applying(facts, exceptions)
    values: dict[str, Value | None] = {
        "exception.applies": found is not None,
        "exception.forwarder": found.forwarder.ascii if found is not None else None,
        "exception.owner": found.owner if found is not None else None,
        "exception.reason": found.reason if found is not None else None,
    }
    return facts.also(values), found


def _applying(facts: Facts, exceptions: tuple[ForwarderException, ...]) -> ForwarderException | None:
    if facts.get("dmarc.status") != "fail" or not facts.get("dmarc.forwarding"):
        return None
    author, day = facts.get("message.author.domain"), facts.get("mail.date")
    domain = Domain.maybe(author) if isinstance(author, str) else None
    if domain is None or not isinstance(day, str):
        return None
    for each in exceptions:
        if each.covers(domain) and day <= each.expires.isoformat() and each.is_proven(facts):
            return each
    return None


# -- reading -------------------------------------------------------------------------------------------------------


def read(notes: Notes, data: Data) -> tuple[ForwarderException, ...]:
    """Read `exceptions` of a policy; every mistake is noted."""
    if data is None:
        return ()
    if not isinstance(data, list):
        notes.at(("exceptions",), f"`exceptions` wants a list, not {shown(data)}")
        return ()
    if len(data) > MAX_EXCEPTIONS:
        notes.at(("exceptions", MAX_EXCEPTIONS), f"a policy has at most {MAX_EXCEPTIONS} exceptions")
        return ()
    found = (_one(notes, item, ("exceptions", position)) for position, item in enumerate(data))
    return tuple(each for each in found if each is not None)


def _one(notes: Notes, data: Data, path: Path) -> ForwarderException | None:
    if not isinstance(data, dict):
        notes.at(path, f"an exception is a mapping, not {shown(data)}")
        return None
    notes.keys(data, path, EXCEPTION_KEYS, "key of an exception")
    missing = [k for k in EXCEPTION_KEYS if k not in data and k != "proven_by"]
    if missing:
        notes.at(path, f"the exception has no {', '.join(f'`{k}`' for k in missing)}")
        return None
    author = _domain(notes, data["author"], (*path, "author"), "`author`", wild=True)
    forwarder = _domain(notes, data["forwarder"], (*path, "forwarder"), "`forwarder`", wild=False)
    owner = notes.line(data["owner"], (*path, "owner"), "`owner`", MAX_LINE)
    reason = notes.line(data["reason"], (*path, "reason"), "`reason`", MAX_LINE)
    expires = _day(notes, data["expires"], (*path, "expires"))
    proofs = (
        _proofs(notes, data["proven_by"], (*path, "proven_by")) if "proven_by" in data else DEFAULT_PROOFS
    )
    if (
        author is None
        or forwarder is None
        or owner is None
        or reason is None
        or expires is None
        or not proofs
    ):
        return None
    return ForwarderException(
        author=author[0],
        below=author[1],
        forwarder=forwarder[0],
        proven_by=proofs,
        owner=owner.strip(),
        reason=reason.strip(),
        expires=expires,
        span=notes.document.span(path),
    )


def _domain(notes: Notes, data: Data, path: Path, what: str, *, wild: bool) -> tuple[Domain, bool] | None:
    stem = data.removeprefix("*.") if wild and isinstance(data, str) else data
    domain = Domain.maybe(stem) if isinstance(stem, str) else None
    if domain is None:
        notes.at(
            path,
            f"{what} cannot be {shown(data)}",
            "a domain" + (", or `*.domain` for all below it" if wild else ""),
        )
    elif domain.parent is None:
        notes.at(path, f"{what} cannot be {shown(data)}: that is a whole top-level domain")
    else:
        return domain, stem != data
    return None


def _day(notes: Notes, data: Data, path: Path) -> date | None:
    try:
        if isinstance(data, str) and _DAY.fullmatch(data):
            return date.fromisoformat(data)
    except ValueError:
        pass
    notes.at(path, f"`expires` cannot be {shown(data)}", "a day such as `2027-06-30`")
    return None


def _proofs(notes: Notes, data: Data, path: Path) -> tuple[str, ...]:
    found: list[str] = []
    for item, where in items_of(data, path):
        if isinstance(item, str) and item in PROOFS:
            found.append(item)
        else:
            hint = near(item, PROOFS) if isinstance(item, str) else "known: " + ", ".join(PROOFS)
            notes.at(where, f"`proven_by` cannot be {shown(item)}", hint)
            return ()
    if not found:
        notes.at(path, "`proven_by` names nothing", "known: " + ", ".join(PROOFS))
    return tuple(dict.fromkeys(found))
