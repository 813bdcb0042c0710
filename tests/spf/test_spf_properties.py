"""Whatever a stranger writes: no exception but Missing, and always an SpfResult that is safe to show."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authmilter.deadline import Deadline
from authmilter.dns.answer import (
    Answer,
    Failed,
    FailureKind,
    Found,
    Mx,
    NoData,
    NxDomain,
    Question,
    RdType,
    Record,
)
from authmilter.dns.budget import BudgetLookup
from authmilter.mail import Session
from authmilter.names import Address, Domain, parse_helo, parse_reverse_path
from authmilter.ports import Lookup, Missing
from authmilter.spf.check import SpfLimits, check_helo, check_mailfrom
from authmilter.spf.result import SpfResult, SpfStatus
from tests.support.rounds import NothingAtHand

_FRAGMENTS = [
    "a",
    "mx",
    "ptr",
    "exists",
    "include",
    "all",
    "ip4",
    "ip6",
    "redirect=",
    "exp=",
    ":",
    "/",
    "//",
    "=",
    "%",
    "+",
    "-",
    "~",
    "?",
    ".",
    ",",
    "\\",
    "%{",
    "}",
    "%{l}",
    "%{s}",
    "%{i}",
    "%{p}",
    "%{H}",
    "%{d2r}",
    "%{lr-}",
    "%{t}",
    "%{c}",
    "%{l99999999999999999999}",
    "%%",
    "%_",
    "%-",
    "x.example",
    "d.example.",
    "1.2.3.4",
    "::1",
    "/0",
    "/33",
    "//129",
    "all.",
    "include:x.example",
    "a:x.example",
    "mx:x.example/24",
    "redirect=x.example",
    "exp=x.example",
    "v=spf1",
    "ip4:0.0.0.0/0",
    "ip6:::",
    "foo=%{l}",
    "\x00",
    "\t",
    "\r\n",
    "ÿ",
]
_TERMS = st.lists(st.sampled_from([*_FRAGMENTS, " ", " ", " "]), max_size=14).map("".join)
_RECORDS = (_TERMS | st.text(max_size=30)).map(lambda t: b"v=spf1 " + t.encode("utf-8", "surrogatepass"))
_NAMES = st.sampled_from(
    ["x.example", "d.example", "", "a" * 300, "..", "x y.example", "m\\.example", "_-_", "1.2.3.4"]
)


class _Any:
    """A resolver that gives the drawn answers, whatever is asked; some are missing the first time."""

    def __init__(self, texts: list[bytes], names: list[str], trouble: list[Answer | None]) -> None:
        self.texts, self.names, self.trouble = texts, names, trouble
        self.asked = 0

    def known(self, question: Question) -> Answer | None:
        self.asked += 1
        if self.trouble and self.asked > 1:
            other = self.trouble[self.asked % len(self.trouble)]
            if other is not None:
                return other
        return Found(self._records(question.rdtype), 60.0)

    def _records(self, rdtype: RdType) -> tuple[Record, ...]:
        if rdtype is RdType.TXT:
            return tuple(self.texts)
        if rdtype is RdType.MX:
            return tuple(Mx(i, name) for i, name in enumerate(self.names)) or (Mx(0, ""),)
        if rdtype is RdType.PTR:
            return tuple(self.names) or ("x.example",)
        return (IPv4Address("198.51.100.1"),) if rdtype is RdType.A else (IPv6Address("2001:db8::1"),)

    async def fetch(self, question: Question, deadline: Deadline) -> Answer:  # noqa: ARG002 - the port's shape
        return self.known(question) or NoData()


_TROUBLE: list[Answer | None] = [
    None,
    NoData(),
    NxDomain(),
    Failed(FailureKind.TIMEOUT),
    Failed(FailureKind.LIMIT),
]


def _sound(result: SpfResult) -> None:
    assert isinstance(result, SpfResult)
    assert result.status is not SpfStatus.INTERNAL_ERROR
    for text in (result.mechanism, result.explanation, result.detail):
        assert text == "" or (text.isascii() and text.isprintable())
        assert len(text) <= 512
    assert 0 <= result.lookups <= 10
    assert 0 <= result.voids <= 2
    assert result.status is SpfStatus.FAIL or result.explanation == ""
    assert result.status is SpfStatus.PASS or not result.broad


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    records=st.lists(_RECORDS, min_size=1, max_size=2),
    names=st.lists(_NAMES, max_size=12),
    trouble=st.lists(st.sampled_from(_TROUBLE), max_size=5),
    local=st.text(max_size=20) | st.sampled_from(["a\\9b", "\udcff", "a@b", "%{l}", "a" * 900, "..", "x\0y"]),
    helo=st.text(max_size=20) | st.sampled_from(["d.example", "\udcff\udcfe", "%{h}", "[192.0.2.1]", "list"]),
    ip=st.ip_addresses(),
)
def test_whatever_the_record_and_the_names_there_is_a_result(
    *,
    records: list[bytes],
    names: list[str],
    trouble: list[Answer | None],
    local: str,
    helo: str,
    ip: IPv4Address | IPv6Address,
) -> None:
    session = Session(client_ip=ip, helo=parse_helo(helo))
    lookup = BudgetLookup(_Any(records, names, trouble), questions=150, hints=60)
    path = Address(local, Domain("d.example"))
    _sound(check_mailfrom(session, path, lookup, SpfLimits(), receiver="r.example"))


@settings(max_examples=300, deadline=None)
@given(
    path=st.text(max_size=40) | st.binary(max_size=40).map(lambda b: b.decode("utf-8", "surrogateescape")),
    helo=st.text(max_size=30),
)
def test_whatever_the_envelope_there_is_a_result(path: str, helo: str) -> None:
    session = Session(client_ip=IPv4Address("192.0.2.1"), helo=parse_helo(helo))
    lookup = BudgetLookup(_Any([b"v=spf1 exists:%{l}.%{h}.%{s} exp=%{L} -all"], [], []), questions=150)
    _sound(check_mailfrom(session, parse_reverse_path(path), lookup, SpfLimits(), receiver="r.example"))
    _sound(check_helo(session, lookup, SpfLimits(), receiver="r.example"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records=st.lists(_RECORDS, min_size=1, max_size=1), names=st.lists(_NAMES, max_size=4))
def test_restarting_with_more_answers_ends_in_the_result_of_having_them_all(
    records: list[bytes], names: list[str]
) -> None:
    source = _Any(records, names, [])
    session = Session(client_ip=IPv4Address("192.0.2.1"), helo=parse_helo("h.example"))

    def check(lookup: Lookup) -> SpfResult:
        path = Address("u", Domain("d.example"))
        return check_mailfrom(session, path, lookup, SpfLimits(), receiver="r.example")

    cold = BudgetLookup(NothingAtHand(), questions=150, hints=20)
    result: SpfResult | None = None
    for _ in range(100):
        try:
            result = check(cold)
            break
        except Missing as missing:
            for question in missing.questions:
                cold.give(question, source.known(question) or NoData())
    warm = check(BudgetLookup(source, questions=150, hints=20))
    # the time of day is a macro of explanations
    assert result == warm or "%{t}" in repr(records).lower()
