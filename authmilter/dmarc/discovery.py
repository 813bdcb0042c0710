"""Where a domain's DMARC Policy Record and Organizational Domain are found (RFC 9989 §4.10; RFC 7489 by list).

`Discovery` asks for one message, remembers what came and writes the trace. Two methods:

* `treewalk` (RFC 9989 §4.10): from the name upward, at most `MAX_QUERIES` questions.
* `psl` (legacy, RFC 7489 §6.6.3): the name, then its Organizational Domain by the public suffix list.

What is asked when. RFC 9989 §4.10 says which questions decide, not when they are asked: the Author Domain is
asked first, alone or together with its Organizational Domain as the public suffix list guesses it (most
authors have a record at one of the two); where it has no record, the rest of its walk is asked at once, since
the walk uses all of it unless a `psd` tag ends it early. So a cold walk takes two rounds at most. The trace
(`queries`) lists what the algorithm used, in its order, and nothing that was only asked ahead.

Guards, in both methods (RFC 9989 §11.8): strangers must not share an Organizational Domain.

* A record at a public suffix of the list or at a single label counts as `psd=y`, whatever it says.
* An Organizational Domain is never above the registrable name of the list: a public suffix between the two
  cuts it. This narrows alignment only; the policy is still taken from the record the RFC finds, if the
  registrable name has none.

Promises: total besides `Missing`; no loop is longer than `MAX_QUERIES` names per domain. A DNS failure is never
"no record": an outcome that a failed question could have changed has `failure` set. One failure cannot change
anything: at a name above the registrable name, where that one has a record (§4.10.1: the record of a public
suffix is not used then, and the guards hold the Organizational Domain where it is).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from authmilter.dmarc import psl
from authmilter.dmarc.record import Absence, select
from authmilter.dmarc.result import DiscoveryMethod, DmarcRecord, Psd, Query
from authmilter.dns.answer import Answer, Failed, FailureKind, Found, NxDomain, Question, RdType
from authmilter.errors import InvalidName
from authmilter.names import Domain
from authmilter.ports import Lookup

__all__ = [
    "MAX_QUERIES",
    "Discovery",
    "Failure",
    "Organization",
    "Policy",
    "select_organizational_domain",
    "walk_names",
]

#: RFC 9989 §4.10: the first name and then at most seven.
MAX_QUERIES = 8
#: RFC 9989 §4.10 step 4: how many labels a long name is cut down to after the first question.
_KEPT_LABELS = MAX_QUERIES - 1

_FOR_POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Failure:
    """A question that decides and has no answer: `name` was asked, `kind` says why nobody knows."""

    name: str
    kind: FailureKind

    @property
    def limited(self) -> bool:
        """True if our own budget ran out: says nothing about DNS."""
        return self.kind is FailureKind.LIMIT

    def __str__(self) -> str:
        return f"the question for {self.name} failed: {self.kind}"


@dataclass(frozen=True, slots=True)
class Organization:
    """The Organizational Domain of a name, and `because` in our words; None with the `failure` that hides it."""

    domain: Domain | None
    because: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The record that applies to an Author Domain and the name `at` which it stands; None where there is none.

    `organization` is that of the author where finding the record told it. With `failure` nothing is known.
    """

    record: DmarcRecord | None = None
    at: Domain | None = None
    organization: Organization | None = None
    because: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """What `_dmarc` of one name says. `psd` is after the guards; `guard` says which one spoke."""

    domain: Domain
    query: str
    answer: str
    record: DmarcRecord | None = None
    psd: Psd = Psd.UNKNOWN
    guard: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class _Walk:
    found: tuple[_Step, ...]
    failure: Failure | None = None


@lru_cache(maxsize=4096)
def walk_names(domain: Domain) -> tuple[Domain, ...]:
    """Return the names of a DNS Tree Walk from `domain`, in order: 1 to `MAX_QUERIES` (RFC 9989 §4.10)."""
    labels = domain.labels
    # steps 3, 4 and 7: one label less each time, after a cut to the right-most 7 labels where there are 8 or more
    kept = min(len(labels) - 1, _KEPT_LABELS)
    return (domain, *(Domain(".".join(labels[-count:])) for count in range(kept, 0, -1)))


def select_organizational_domain(start: Domain, found: Sequence[tuple[Domain, Psd]]) -> tuple[Domain, str]:
    """Return the Organizational Domain of `start` and why it is that (RFC 9989 §4.10.2).

    Args:
        start: where the walk started.
        found: the names at which the walk retrieved valid records, longest first, each with its `psd`.
    """
    for name, psd in found:
        # rule 1
        if psd is Psd.NO:
            return name, f"{name} says psd=n"
        # rule 2: other than the one for the domain where the Tree Walk started
        if psd is Psd.YES and name != start:
            below = start.rightmost(name.ascii.count(".") + 2)
            return below, f"{name} is a public suffix and {below} is one label below it"
    # rule 3: the fewest labels
    if found:
        top = found[-1][0]
        return top, f"no record stands above that of {top}"
    return start, "no record stands at it or above it"


class Discovery:
    """What `_dmarc` says of the names of one message; make a new one for each evaluation.

    Args:
        lookup: where answers come from.
        method: how records and Organizational Domains are found.

    Every method may raise `Missing`; nothing else is raised.
    """

    __slots__ = ("_guards", "_lookup", "_method", "_queries", "_steps")

    def __init__(self, lookup: Lookup, method: DiscoveryMethod) -> None:
        self._lookup = lookup
        self._method = method
        self._steps: dict[Domain, _Step] = {}
        self._queries: dict[str, Query] = {}
        self._guards: dict[str, None] = {}

    @property
    def queries(self) -> tuple[Query, ...]:
        """The questions that the algorithm used so far, each once, in order."""
        return tuple(self._queries.values())

    @property
    def guards(self) -> tuple[str, ...]:
        """What the guards said so far, each once, in order."""
        return tuple(self._guards)

    def guard(self, note: str) -> None:
        """Note that a guard spoke; `note` is in our own words."""
        self._guards[note] = None

    def find_policy(self, author: Domain) -> Policy:
        """Return the DMARC Policy Record that applies to `author` (RFC 9989 §4.10.1, RFC 7489 §6.6.3)."""
        registrable = psl.organizational_domain(author)
        if registrable != author:
            self._want((registrable,))
        self._ask((author,))
        own = self._use(author, _FOR_POLICY)
        if own.failure is not None:
            return Policy(failure=own.failure)
        if own.record is not None:
            # RFC 9989 §4.10.1: the Author Domain's own record is preferred to any other
            return Policy(own.record, author, because=f"{author} has a record of its own, which applies")
        if self._method is DiscoveryMethod.PSL:
            return self._find_by_list(author, own)
        return self._find_by_walk(author)

    def organization(self, domain: Domain) -> Organization:
        """Return the Organizational Domain of `domain` for alignment (RFC 9989 §4.10.2, RFC 7489 §3.2)."""
        if self._method is DiscoveryMethod.PSL:
            return self._organization_by_list(domain)
        walk = self._walk(domain, f"organizational domain of {domain}")
        return self._organization_of(domain, walk)

    def published(self, domain: Domain) -> DmarcRecord | Failure | None:
        """Return the one DMARC Policy Record at `domain` itself, or why nobody knows, or None where there is none."""
        self._ask((domain,))
        step = self._steps[domain]
        return step.record if step.failure is None else step.failure

    def expect_policy(self, authors: Iterable[Domain]) -> None:
        """Hint that the records that apply to `authors` will be wanted."""
        self._want(name for author in authors for name in (author, psl.organizational_domain(author)))

    def expect(self, domains: Iterable[Domain]) -> None:
        """Hint that the Organizational Domains of `domains` will be wanted: asked together with what is missing."""
        self._want(name for domain in domains for name in self._open_names(domain))

    def ask_ahead(self, domains: Iterable[Domain]) -> None:
        """Ask at once what the Organizational Domains of `domains` depend on; the answers count when used."""
        self._ask(name for domain in domains for name in self._open_names(domain))

    def exists(self, domain: Domain) -> bool:
        """True unless DNS says that `domain` does not exist (RFC 9989 §3.2.13: NXDOMAIN for the name itself).

        A failed question counts as exists: `sp` then applies, which the owner meant for its real names, and
        the message is judged instead of being put off for a question of detail.
        """
        # An address question: small answers, and any type tells NXDOMAIN from a name without that type.
        answer = self._lookup.ask(Question(domain.ascii, RdType.A))
        if isinstance(answer, NxDomain):
            word = "nxdomain"
        else:
            word = f"failed: {answer.kind}" if isinstance(answer, Failed) else "exists"
        why = f"existence of {domain}"
        self._queries[why] = Query(name=domain.ascii, why=why, answer=word)
        return not isinstance(answer, NxDomain)

    # -- RFC 9989

    def _find_by_walk(self, author: Domain) -> Policy:
        walk = self._walk(author, _FOR_POLICY)
        if walk.failure is not None:
            return Policy(failure=walk.failure)
        organization = self._organization_of(author, walk)
        if not walk.found:
            because = f"neither {author} nor a name above it has a record"
            return Policy(organization=organization, because=because)
        # RFC 9989 §4.10.1: the Organizational Domain's record before that of the PSD; those at other names between
        # are not used. The record where the walk ended is one of the two, or, where the guard put the Organizational
        # Domain below it, the one that RFC 9989 takes.
        step = next((s for s in walk.found if s.domain == organization.domain), walk.found[-1])
        if step.domain == organization.domain:
            what = "its Organizational Domain"
        else:
            what = "its public suffix" if step.psd is Psd.YES else "the higher name"
        because = f"{author} has no record; that of {what} {step.domain} applies"
        return Policy(step.record, step.domain, organization, because)

    def _walk(self, start: Domain, why: str) -> _Walk:
        """Walk the tree (RFC 9989 §4.10) and return the records found, longest name first."""
        self._ask(self._open_names(start))
        found: list[_Step] = []
        for name in walk_names(start):
            step = self._use(name, why)
            if step.failure is not None:
                registrable = psl.organizational_domain(start)
                if any(f.domain == registrable for f in found):
                    break  # cannot change anything: see the module's text
                return _Walk(tuple(found), step.failure)
            if step.record is None:
                continue
            found.append(step)
            if step.psd is not Psd.UNKNOWN:
                break  # RFC 9989 §4.10 steps 2 and 6
        return _Walk(tuple(found))

    def _organization_of(self, start: Domain, walk: _Walk) -> Organization:
        """Return the Organizational Domain of `start` (RFC 9989 §4.10.2) after the guards."""
        if walk.failure is not None:
            return Organization(None, failure=walk.failure)
        chosen, because = select_organizational_domain(start, [(s.domain, s.psd) for s in walk.found])
        registrable = psl.organizational_domain(start)
        if len(chosen.ascii) < len(registrable.ascii):
            self.guard(
                f"{chosen} is above a public suffix: Organizational Domain is {registrable} ({psl.version()})"
            )
            return Organization(registrable, f"{chosen} is above its public suffix")
        return Organization(chosen, because)

    # -- RFC 7489

    def _find_by_list(self, author: Domain, own: _Step) -> Policy:
        organization = psl.organizational_domain(author)
        if organization == author:
            return Policy(organization=Organization(author), because=f"{author} has no record")
        if own.answer == Absence.SEVERAL:
            # RFC 7489 §6.6.3 step 5: several records end the discovery
            return Policy(because=f"{author} has several records, so that none applies")
        self._ask((organization,))
        step = self._use(organization, _FOR_POLICY)
        if step.failure is not None:
            return Policy(failure=step.failure)
        if step.record is None:
            return Policy(
                organization=Organization(organization),
                because=f"neither {author} nor its Organizational Domain {organization} has a record",
            )
        because = f"{author} has no record; that of its Organizational Domain {organization} applies"
        return Policy(step.record, organization, self._organization_by_list(author), because)

    def _organization_by_list(self, domain: Domain) -> Organization:
        organization = psl.organizational_domain(domain)
        if organization == domain:
            return Organization(domain, "by the public suffix list")
        self._ask((organization,))
        step = self._use(organization, f"organizational domain of {domain}")
        if step.failure is not None:
            return Organization(None, failure=step.failure)
        if step.psd is Psd.YES:
            # The guard of the tree walk: a list that does not know this suffix must not make its names align.
            below = domain.rightmost(organization.ascii.count(".") + 2)
            self.guard(f"{organization} says psd=y: Organizational Domain of {domain} is {below}")
            return Organization(below, f"{organization} says psd=y and {below} is one label below it")
        return Organization(organization, "by the public suffix list")

    # -- questions and answers

    def _open_names(self, start: Domain) -> tuple[Domain, ...]:
        """The names whose answers an Organizational Domain may depend on and that were not asked yet."""
        if self._method is DiscoveryMethod.PSL:
            organization = psl.organizational_domain(start)
            return () if organization == start or organization in self._steps else (organization,)
        names: list[Domain] = []
        for name in walk_names(start):
            step = self._steps.get(name)
            if step is None:
                names.append(name)
            elif step.failure is not None or step.psd is not Psd.UNKNOWN:
                break  # the walk will end here
        return tuple(names)

    def _ask(self, names: Iterable[Domain]) -> None:
        """Ask for names together, those that were not asked yet."""
        wanted: dict[Domain, Question] = {}
        for name in names:
            if name in self._steps:
                continue
            question = _question(name)
            if question is None:
                self._steps[name] = _Step(name, f"_dmarc.{name}", "not asked: the name is too long")
            else:
                wanted[name] = question
        if wanted:
            answers = self._lookup.ask_all(wanted.values())
            for (name, question), answer in zip(wanted.items(), answers, strict=True):
                self._steps[name] = _step(name, question.name, answer)

    def _want(self, names: Iterable[Domain]) -> None:
        questions = (_question(name) for name in names if name not in self._steps)
        self._lookup.want(q for q in questions if q is not None)

    def _use(self, name: Domain, why: str) -> _Step:
        """Return what was asked of `name` and put it on the trace."""
        step = self._steps[name]
        if step.query not in self._queries:
            self._queries[step.query] = Query(name=step.query, why=why, answer=step.answer)
        if step.guard:
            self.guard(step.guard)
        return step


@lru_cache(maxsize=8192)
def _question(name: Domain) -> Question | None:
    """The question for `_dmarc` of a name; None where that is over 253 octets, so that it cannot exist."""
    try:
        return Question.of(f"_dmarc.{name.ascii}", RdType.TXT)
    except InvalidName:
        return None


def _step(domain: Domain, query: str, answer: Answer) -> _Step:
    """Read what came for `_dmarc` of a name."""
    if isinstance(answer, Failed):
        return _Step(domain, query, f"failed: {answer.kind}", failure=Failure(query, answer.kind))
    if not isinstance(answer, Found):
        return _Step(domain, query, "nxdomain" if isinstance(answer, NxDomain) else Absence.NO_RECORD)
    record = select(answer.texts())
    if isinstance(record, Absence):
        return _Step(domain, query, record)
    if record.psd is Psd.YES or not psl.is_public_suffix(domain):
        return _Step(domain, query, "record", record, record.psd)
    # RFC 9989 §11.8: a public suffix that forgot its psd=y would be everybody's Organizational Domain below it
    what = f"a public suffix ({psl.version()})" if "." in domain.ascii else "a single label"
    return _Step(domain, query, "record", record, Psd.YES, f"{domain} is {what}: its record counts as psd=y")
