"""The room of pyspf: the one file that imports it, and the one caller that pays for its oddities.

pyspf reads mechanisms and walks them (RFC 7208 §4.6, §5). Around that everything is ours, by overriding instance
methods of one `spf.query` per call, no module global touched:

* DNS comes from a `Lookup`; `Failed` is `spf.TempError`, and a name that cannot exist is never asked;
* terms and void lookups are counted by RFC 7208 §4.6.4 (pyspf counts a redirect that is never followed, and one
  empty name as often as it is asked);
* modifiers are read by `record.py` (pyspf looks up `exp` on a pass, knows `redirect` in lower case only, and refuses
  a repeated unknown modifier); the explanation is looked up after a fail;
* macros are expanded by `macros.py` (pyspf is quadratic, does not read `R`, keeps the delimiters it should replace by
  dots, drops one label where it should drop as many as it takes, and lets a long number raise);
* DNS trouble with the client's own names means no match (pyspf: temperror for the domain).

`tests/rooms/test_pyspf.py` pins each of these: when upstream mends one, its test goes red and the override goes.

How it fails: `Missing` passes through (and is noted, because pyspf holds bare `except:` clauses). Of pyspf's own
exceptions none leaves this file. Anything else would be a bug and is left to the engine's guard.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec, module_from_spec
from ipaddress import ip_address
from threading import RLock
from typing import Any

import dns.rdatatype  # noqa: F401 - pyspf looks into it, and has it from the resolver

from authmilter.dns.answer import Answer, Failed, FailureKind, Found, NxDomain, Question, RdType
from authmilter.names import Domain, IPAddress
from authmilter.ports import Lookup, Missing
from authmilter.spf.ahead import address_type, question, read_ahead
from authmilter.spf.limits import SpfLimits
from authmilter.spf.macros import domain_spec_fault, expand, is_explanation, letters, truncated
from authmilter.spf.record import Record, read_record, spf_records
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from authmilter.text import printable


def _put_off(name: str) -> None:
    """Have a module loaded when somebody looks into it, and not yet when it is imported.

    Whoever else uses it, in any thread, finds it whole.
    """
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module, loader = module_from_spec(spec), spec.loader
    one_at_a_time, begun = RLock(), False

    def load(attribute: str) -> Any:
        nonlocal begun
        with one_at_a_time:
            if not begun:  # what it imports may look into it, too
                begun = True
                loader.exec_module(module)
        try:
            return vars(module)[attribute]
        except KeyError:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}") from None

    vars(module)["__getattr__"] = load  # PEP 562
    sys.modules[name] = module
    package, _, last = name.rpartition(".")
    setattr(sys.modules[package], last, module)


if "dns.resolver" not in sys.modules:
    # pyspf imports it for its own lookups, in whose place ours stand: 20 ms of every start, and 2 MB, for nothing.
    _put_off("dns.resolver")

import spf  # noqa: E402 - see above

__all__ = ["MAX_EXPLANATION", "evaluate"]

#: Octets of an explanation text that are read before its macros are expanded, and characters that are kept.
_MAX_EXPLANATION_SOURCE = 1024
MAX_EXPLANATION = 256
_MAX_DETAIL = 200

#: What a domain-spec becomes whose macros hold non-ASCII text: no name at all, so that no term can match by it.
_UNMATCHABLE = ".."
#: A record that says nothing, in the place of one at an unmatchable name.
_SILENT = Record(mechanisms="v=spf1")

_NETWORKS = frozenset({"a", "mx", "ip4", "ip6"})


def evaluate(
    *,
    client_ip: IPAddress,
    identity: SpfIdentity,
    local: str,
    domain: Domain,
    helo: str,
    receiver: str,
    lookup: Lookup,
    limits: SpfLimits,
) -> SpfResult:
    """Evaluate check_host() of RFC 7208 §4 for `local`@`domain`, a domain of several labels.

    Args:
        client_ip: the client's address, IPv4-mapped addresses as IPv4.
        identity: which identity this is, for the result.
        local: the local part (macro `l`), not empty; may be any text.
        domain: the domain to check.
        helo: the HELO argument as text (macro `h`).
        receiver: our own host name (macro `r`, in explanations).
        lookup: where answers come from.
        limits: the limits of RFC 7208 §4.6.4.

    Raises:
        Missing: answers are not at hand.
    """

    def result(status: SpfStatus, problem: SpfProblem | None, detail: str) -> SpfResult:
        return SpfResult(
            status=status, identity=identity, domain=domain, local=local, problem=problem, detail=detail
        )

    answer = lookup.ask(Question(domain.ascii, RdType.TXT))  # RFC 7208 §4.4: type TXT only
    if isinstance(answer, Failed):
        return result(SpfStatus.TEMPERROR, _cause(answer), f"{domain} TXT: {answer.kind}")
    records = spf_records(answer.texts()) if isinstance(answer, Found) else []
    if not records:
        # RFC 7208 §4.3, §4.5: no such domain, or no record
        gone = isinstance(answer, NxDomain)
        return result(SpfStatus.NONE, SpfProblem.NO_RECORD, f"{domain} does not exist" if gone else "")
    if len(records) > 1:
        return result(
            SpfStatus.PERMERROR, SpfProblem.SEVERAL_RECORDS, f"{len(records)} SPF records at {domain}"
        )
    query = _Query(
        client_ip=client_ip,
        local=local,
        domain=domain.ascii,
        helo=helo,
        receiver=receiver,
        lookup=lookup,
        limits=limits,
    )
    status = query.run(read_record(records[0]))
    return SpfResult(
        status=status,
        identity=identity,
        domain=domain,
        local=local,
        mechanism=query.mechanism or "",
        problem=query.problem,
        detail=query.detail,
        explanation=query.explanation,
        lookups=min(query.lookups, limits.terms),
        voids=min(len(query.voids), limits.voids),
        broad=status is SpfStatus.PASS and query.broad,
    )


def _cause(failed: Failed) -> SpfProblem:
    return SpfProblem.LIMIT if failed.kind is FailureKind.LIMIT else SpfProblem.DNS


class _Syntax(spf.query):
    """What pyspf needs of a query to read a mechanism that holds no macro."""

    def __init__(self, domain: str, version: str) -> None:
        self.d = domain
        self.v = version
        self.cidrmax = 32 if version == "in-addr" else 128
        self.strict = True

    def expand_domain(self, arg: str) -> str:
        """Check and expand a domain-spec (RFC 7208 §7.1), in linear time."""
        fault = domain_spec_fault(arg)
        if fault:
            raise spf.PermError(fault, arg)
        return self.expand(arg)

    def expand(self, s: str, stripdot: bool = True) -> str:  # noqa: FBT001, FBT002, ARG002 - upstream's signature
        """Return the text, which holds no macro, as the name it stands for."""
        return truncated(s.removesuffix("."))


#: A mechanism as pyspf hands it on: the term, its name, its argument, its prefix length, the result if it matches.
_Mechanism = tuple[str, str, Any, int, str]


@lru_cache(maxsize=4096)
def _literal_mechanism(term: str, domain: str, version: str) -> _Mechanism:
    """Read a mechanism without macros; the same for every client of one IP version.

    The argument of ip4 and ip6 becomes a number here, so that an address which is none is found in every record.
    """
    mechanism: _Mechanism = spf.query.validate_mechanism(_Syntax(domain, version), term)
    term, name, argument, prefix, matched = mechanism
    if name in {"ip4", "ip6"}:
        try:
            argument = int(ip_address(argument))
        except ValueError:
            raise spf.PermError("Invalid address", term) from None
    return term, name, argument, prefix, matched


class _Query(_Syntax):
    """One evaluation. Upstream calls the methods that carry its names; `run` is ours."""

    def __init__(
        self,
        *,
        client_ip: IPAddress,
        local: str,
        domain: str,
        helo: str,
        receiver: str,
        lookup: Lookup,
        limits: SpfLimits,
    ) -> None:
        spf.query.__init__(self, i=str(client_ip), s="", h="", receiver=_ascii(receiver))
        # Set by hand: pyspf cuts a sender at its first `@`, which may stand inside a quoted local part.
        # Single letters are macro values to pyspf, so every attribute of ours has a longer name.
        self.l, self.o, self.d = _ascii(local), domain, domain
        self.s = f"{self.l}@{domain}"
        self.h = _ascii(helo)
        # RFC 8616 §4: terms with a local part that is not ASCII match nothing; the same for such a HELO
        self.unusable = frozenset(("" if local.isascii() else "sl") + ("" if helo.isascii() else "h"))
        self.client_ip = client_ip
        self.client_bits = int(client_ip)
        self.address_type = address_type(client_ip)
        self.lookup = lookup
        self.limits = limits
        self.root = (_SILENT, domain)
        #: the domain whose record is being read
        self.reading = domain
        #: the void lookups that counted
        self.voids: set[Question] = set()
        self.in_term = False
        #: what the evaluation was broken off for; the exception itself would hold this object by its traceback
        self.missing: tuple[Question, ...] = ()
        self.mechanism: str | None = None
        self.matched_prefix = 0
        self.broad = False
        self.leaf = ("", "")
        self.problem: SpfProblem | None = None
        self.detail = ""
        self.explanation = ""

    def run(self, record: Record) -> SpfStatus:
        """Evaluate `record`, the domain's own; what was found besides the status stands in the attributes.

        Raises:
            Missing: answers are not at hand.
        """
        self.root = (record, self.d)
        word, _, _ = self.check(record)
        if self.missing:
            # swallowed on the way by a bare except of pyspf
            raise Missing(self.missing)
        status = SpfStatus(word)
        if status in {SpfStatus.TEMPERROR, SpfStatus.PERMERROR}:
            self.mechanism = None  # what was noted may be what matched in an include before
            if status is SpfStatus.PERMERROR:
                self._explain_error(self.perm_error)
        elif status is SpfStatus.PASS and self.leaf != (self.mechanism, self.root[1]):
            self.detail = printable(f"matched {self.leaf[0]} in the record of {self.leaf[1]}", _MAX_DETAIL)
        return status

    def _explain_error(self, error: Any) -> None:
        if self.problem is None:
            self.problem = SpfProblem.SYNTAX
        if not self.detail:
            term = f": {error.mech}" if error.mech else ""
            self.detail = printable(f"in the record of {self.reading}: {error.msg}{term}", _MAX_DETAIL)

    # -- upstream's methods ------------------------------------------------------------------------------------

    def log(self, mech: str, d: str, spf: str) -> None:
        """Say nothing, where upstream prints."""

    def check0(self, record: Record, recursion: int) -> tuple[str, int, str]:
        """Evaluate one record: the mechanisms upstream, the modifiers here. `recursion` is 0 outside of includes."""
        self.reading = self.d
        self.in_term = False  # names asked for while a record is read belong to no term
        if record.fault:
            # RFC 7208 §4.6: a syntax error anywhere is found before anything is evaluated
            raise self._permanent(SpfProblem.LIMIT if record.oversized else SpfProblem.SYNTAX, record.fault)
        result = self._walk(record.mechanisms)
        if self.mechanism is None and record.redirect is not None:
            # RFC 7208 §6.1: only now, when nothing matched, is the redirect followed (and counts as a term)
            target = self.expand(record.redirect)
            self.check_lookups()
            followed: tuple[str, int, str] = self.check1(self.dns_spf(target), target, recursion)
            return followed
        if result[0] == "pass" and self.mechanism is not None:
            self._note_breadth(self.mechanism)
        elif result[0] == "fail" and recursion == 0 and record.explanation is not None:
            # RFC 7208 §6.2: of the record that failed, never of an included one
            self.explanation = self._explain(record.explanation)
        return result

    def validate_mechanism(self, mech: str) -> _Mechanism:
        """Read a mechanism; those without macros are remembered."""
        if "%" in mech:
            mechanism: _Mechanism = spf.query.validate_mechanism(self, mech)
            return mechanism
        return _literal_mechanism(mech, self.d, self.v)

    def expand(self, s: str, stripdot: bool = True) -> str:  # noqa: FBT001, FBT002 - upstream's signature
        """Expand a domain-spec (`stripdot`), or else an explain-string."""
        if "%" in s:
            if stripdot and self.unusable and self.unusable & letters(s):
                return _UNMATCHABLE
            s = expand(s, self._macro)
        return truncated(s.removesuffix(".")) if stripdot else s

    def check_lookups(self) -> None:
        """Count a term (RFC 7208 §4.6.4)."""
        self.lookups += 1
        if self.lookups > self.limits.terms:
            raise self._permanent(SpfProblem.TERM_LIMIT, f"more than {self.limits.terms} terms that ask DNS")
        self.in_term = True

    def dns_spf(self, domain: str) -> Record:
        """Return the record of an include or redirect target; there must be one."""
        if domain == _UNMATCHABLE:
            return _SILENT
        records = spf_records(self.dns_txt(domain))
        if not records:
            # RFC 7208 §5.2, §6.1: a target without a record is a permerror
            raise self._permanent(SpfProblem.TARGET, f"no SPF record at {domain}")
        if len(records) > 1:
            raise self._permanent(SpfProblem.SEVERAL_RECORDS, f"{len(records)} SPF records at {domain}")
        return read_record(records[0])

    def dns(
        self,
        name: str,
        qtype: str,
        cnames: object = None,  # noqa: ARG002 - upstream's signature
        ignore_void: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
    ) -> list[Any]:
        """Return the records in the form upstream works on: numbers for addresses, (preference, name) for MX."""
        ask = question(name, RdType(qtype))
        if ask is None:
            return []
        answer = self._ask(ask)
        if isinstance(answer, Found):
            return self._rows(ask, answer)
        if isinstance(answer, Failed):
            raise self._temporary(ask, answer)
        if self.in_term and not ignore_void:
            self._count_void(ask)
        return []

    def cidrmatch(self, ipaddrs: Sequence[int], n: int) -> bool:
        """Return True if the client is in a network of prefix length `n` around one of the addresses."""
        shift = self.cidrmax - n
        mine = self.client_bits >> shift
        for bits in ipaddrs:
            if bits >> shift == mine:
                self.matched_prefix = n
                return True
        return False

    def validated_ptrs(self) -> list[str]:
        """Return the client's names that lead back to it (RFC 7208 §5.5)."""
        ask = Question(self.client_ip.reverse_pointer, RdType.PTR)
        answer = self._ask(ask)
        if isinstance(answer, Failed):
            # §5.5: DNS trouble here means no match; only our own limit must not pass for an answer
            return self._unless_limited(ask, answer)
        if not isinstance(answer, Found):
            if self.in_term:
                self._count_void(ask)
            return []
        # §4.6.4: names after the tenth are ignored
        asks = [question(name, self.address_type) for name in answer.names()[: self.limits.ptr]]
        names = [a for a in asks if a is not None]
        validated: list[str] = []
        for ask, addresses in zip(names, self._ask_all(names), strict=True):
            if isinstance(addresses, Failed):
                # §5.5: a name whose addresses cannot be asked is skipped
                self._unless_limited(ask, addresses)
            elif isinstance(addresses, Found) and self.client_ip in addresses.addresses():
                validated.append(ask.name)
        return validated

    # -- ours --------------------------------------------------------------------------------------------------

    def _walk(self, mechanisms: str) -> tuple[str, int, str]:
        """Let upstream evaluate mechanisms; `mechanism` is then the one that matched, or None."""
        self.mechanism = None
        # Upstream notes the match only at its recursion level 0.
        result: tuple[str, int, str] = spf.query.check0(self, mechanisms, 0)
        return result

    def _macro(self, letter: str) -> str:
        if letter == "p":
            # RFC 7208 §7.3 prefers names at or below the current domain, which changes with include
            self.p = None
            name: str = self.getp()
            return name
        value: str = getattr(self, letter)
        return value

    def _explain(self, spec: str) -> str:
        """Return the domain's explanation, or an empty text; nothing here changes the result (RFC 7208 §6.2)."""
        self.in_term = False  # §4.6.4: exp is no counted term
        try:
            ask = question(self.expand(spec), RdType.TXT)
            answer = self._ask(ask) if ask is not None else None
            texts = answer.texts() if isinstance(answer, Found) else ()
            if len(texts) != 1 or len(texts[0]) > _MAX_EXPLANATION_SOURCE:
                return ""
            text = texts[0].decode("latin-1")
            return (
                printable(self.expand(text, stripdot=False), MAX_EXPLANATION) if is_explanation(text) else ""
            )
        except spf.TempError:
            # the names of the client (macro p) could not be asked within our limit
            self.problem, self.detail = None, ""
            return ""

    def _note_breadth(self, mechanism: str) -> None:
        name = mechanism.removeprefix("+").partition(":")[0].partition("/")[0].lower()
        if name == "include":
            return  # what matched inside has been noted
        self.leaf = (mechanism, self.d)
        widest = self.limits.broad_prefix4 if self.v == "in-addr" else self.limits.broad_prefix6
        self.broad = name == "all" or (name in _NETWORKS and self.matched_prefix < widest)

    def _count_void(self, ask: Question) -> None:
        # RFC 7208 §4.6.4 limits the terms that lead to nothing: a term counts once, whatever number of exchanges
        # without an address it has, and a name is asked once, so it counts once.
        if ask in self.voids:
            return
        self.voids.add(ask)
        self.in_term = False
        if len(self.voids) > self.limits.voids:
            raise self._permanent(SpfProblem.VOID_LIMIT, f"more than {self.limits.voids} void lookups")

    def _rows(self, ask: Question, answer: Found) -> list[Any]:
        if ask.rdtype is RdType.TXT:
            return [(text,) for text in answer.texts()]
        if ask.rdtype is RdType.MX:
            exchanges = answer.exchanges()
            if len(exchanges) > self.limits.mx:
                # RFC 7208 §4.6.4
                raise self._permanent(
                    SpfProblem.TERM_LIMIT, f"more than {self.limits.mx} MX records at {ask.name}"
                )
            return [(m.preference, m.exchange) for m in exchanges]
        return [int(address) for address in answer.addresses()]

    def _ask(self, ask: Question) -> Answer:
        try:
            return self.lookup.ask(ask)
        except Missing:
            self._read_ahead()
        try:
            return self.lookup.ask(ask)
        except Missing as missing:
            self.missing = missing.questions
            raise

    def _ask_all(self, asks: list[Question]) -> tuple[Answer, ...]:
        try:
            return self.lookup.ask_all(asks)
        except Missing as missing:
            self.missing = missing.questions
            raise

    def _read_ahead(self) -> None:
        record, domain = self.root
        read_ahead(record, domain, self.client_ip, self.lookup, self.limits)

    def _permanent(self, problem: SpfProblem, detail: str) -> Exception:
        self.problem = problem
        if problem is not SpfProblem.SYNTAX:
            self.detail = printable(detail, _MAX_DETAIL)
        error: Exception = spf.PermError(detail)
        return error

    def _temporary(self, ask: Question, failed: Failed) -> Exception:
        self.problem = _cause(failed)
        self.detail = printable(f"{ask}: {failed.kind}", _MAX_DETAIL)
        error: Exception = spf.TempError(self.detail)
        return error

    def _unless_limited(self, ask: Question, failed: Failed) -> list[str]:
        if failed.kind is FailureKind.LIMIT:
            raise self._temporary(ask, failed)
        return []


def _ascii(text: str) -> str:
    return text if text.isascii() else text.encode("ascii", "replace").decode("ascii")
