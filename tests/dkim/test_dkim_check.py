"""Verification: every problem and what it means, limits, several keys, and running the check again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from authmilter.dkim import check
from authmilter.dkim.canonical import BodyHasher
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dkim.signature import DkimLimits, read
from authmilter.dns.answer import Answer, Failed, FailureKind, Question
from authmilter.dns.budget import BudgetLookup
from authmilter.dns.zone import ZoneResolver
from authmilter.message import Message
from authmilter.ports import Missing
from tests.support.builders import a_lookup
from tests.support.dkim_keys import (
    HEADERS,
    MESSAGE,
    NAMES,
    NOW,
    SHORT_KEYS,
    a_zone,
    ed25519_key,
    judge,
    judge_one,
    public_key_of,
    rsa_key,
    sign,
)

KEY = rsa_key(2048)
ZONE = a_zone(KEY)
WHERE = "s1._domainkey.example.com"
SIGNED = sign(MESSAGE, KEY)


def txt(*records: str | bytes) -> dict[str, object]:
    return {WHERE: {"TXT": list(records)}}


@pytest.mark.parametrize(
    "form", ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed", "relaxed", "simple"]
)
@pytest.mark.parametrize("key", [KEY, rsa_key(1024), rsa_key(4096), ed25519_key()], ids=lambda k: k.kind)
def test_a_good_signature_passes(form: str, key: object) -> None:
    assert isinstance(key, type(KEY))
    result = judge_one(sign(MESSAGE, key, form=form), a_zone(key))
    assert (result.status, result.problem, result.detail) == (DkimStatus.PASS, None, "")
    assert result.key_bits in {256, 1024, 2048, 4096}
    assert result.signed_headers == NAMES
    assert result.unsigned_critical == ()
    assert not result.testing


def test_an_unsigned_message_has_no_results() -> None:
    assert judge(MESSAGE, ZONE) == ()


# ----- every problem --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A message that shows one problem."""

    message: bytes
    zone: Mapping[str, object] = field(default_factory=lambda: ZONE)
    limits: DkimLimits = DkimLimits()
    now: datetime = NOW


def tagged(**tags: str | None) -> bytes:
    return sign(MESSAGE, KEY, tags=tags)


SIGNED_AT = int((NOW - timedelta(days=30)).timestamp())

CASES: dict[DkimProblem, list[Case]] = {
    DkimProblem.SYNTAX: [Case(tagged(bh="!")), Case(b"DKIM-Signature: nonsense\r\n" + MESSAGE)],
    DkimProblem.VERSION: [Case(tagged(v="2"))],
    DkimProblem.MISSING_TAG: [Case(tagged(v=None)), Case(tagged(bh=None)), Case(tagged(b=None))],
    DkimProblem.BAD_DOMAIN: [Case(tagged(d="example..com")), Case(tagged(s="-"))],
    DkimProblem.IDENTITY_MISMATCH: [Case(tagged(i="alice@example.net")), Case(tagged(i="@com"))],
    DkimProblem.FROM_NOT_SIGNED: [Case(sign(MESSAGE, KEY, names=("to", "subject")))],
    DkimProblem.ALGORITHM: [Case(tagged(a="rsa-sha512"))],
    DkimProblem.SHA1: [Case(tagged(a="rsa-sha1"))],
    DkimProblem.CANONICALIZATION: [Case(tagged(c="nofws/relaxed"))],
    DkimProblem.QUERY_METHOD: [Case(tagged(q="http"))],
    DkimProblem.TIMES: [
        Case(tagged(t="200", x="100")),
        Case(tagged(t=str(SIGNED_AT)), now=NOW - timedelta(days=30, seconds=301)),
    ],
    DkimProblem.EXPIRED: [
        Case(tagged(x=str(SIGNED_AT)), now=NOW - timedelta(days=30) + timedelta(seconds=302))
    ],
    DkimProblem.NO_KEY: [Case(SIGNED, {}), Case(SIGNED, {WHERE: {"A": "192.0.2.1"}})],
    DkimProblem.KEY_SYNTAX: [Case(SIGNED, txt("v=spf1 -all")), Case(SIGNED, txt("p=nonsense"))],
    DkimProblem.KEY_REVOKED: [Case(SIGNED, txt("v=DKIM1; p="))],
    DkimProblem.KEY_TYPE: [Case(SIGNED, txt(ed25519_key().record)), Case(SIGNED, txt("k=dsa; p=AAAA"))],
    DkimProblem.KEY_HASH: [Case(SIGNED, a_zone(KEY, extra="h=sha1;"))],
    DkimProblem.KEY_SERVICE: [Case(SIGNED, a_zone(KEY, extra="s=tlsrpt;"))],
    DkimProblem.KEY_STRICT: [Case(tagged(i="@news.example.com"), a_zone(KEY, extra="t=s;"))],
    DkimProblem.KEY_TOO_SHORT: [
        *(Case(sign(MESSAGE, key), a_zone(key)) for key in SHORT_KEYS.values()),
        Case(sign(MESSAGE, rsa_key(1024)), a_zone(rsa_key(1024)), DkimLimits(min_rsa_bits=2048)),
    ],
    DkimProblem.KEY_TOO_LONG: [
        Case(SIGNED, txt(f"p={public_key_of((1 << 16383) + 1, 65537)}")),
        Case(SIGNED, txt(f"p={public_key_of((1 << 2047) + 1, (1 << 100) + 1)}")),
        Case(sign(MESSAGE, rsa_key(4096)), a_zone(rsa_key(4096)), DkimLimits(max_rsa_bits=2048)),
    ],
    DkimProblem.KEY_UNAVAILABLE: [
        Case(SIGNED, {WHERE: "TIMEOUT"}),
        Case(SIGNED, {WHERE: "SERVFAIL"}),
        Case(SIGNED, {WHERE: {"TXT": "REFUSED"}}),
    ],
    DkimProblem.BODY_HASH: [
        Case(SIGNED + b"more\r\n"),
        Case(SIGNED.replace(b"Hello", b"hello")),
        Case(tagged(bh="AAAA")),
        Case((SIGNED + b"more\r\n").replace(b"two  blanks", b"three blanks")),
    ],
    DkimProblem.SIGNATURE: [
        Case(SIGNED.replace(b"two  blanks", b"three blanks")),
        Case(SIGNED, a_zone(rsa_key(2048, 1))),
        Case(tagged(b="AAAA")),
        Case(tagged(b="A" * 4000)),
        Case(sign(MESSAGE, ed25519_key(), tags={"b": "AAAA"}), a_zone(ed25519_key())),
    ],
    DkimProblem.BODY_LENGTH: [Case(tagged(l="1000")), Case(tagged(l="9" * 76))],
    DkimProblem.UNSIGNED_BODY: [Case(tagged(l="5")), Case(tagged(l="0"))],
    DkimProblem.UNSIGNED_AUTHOR: [Case(b"From: eve@example.net\r\n" + SIGNED)],
    DkimProblem.TESTING: [Case(SIGNED, a_zone(KEY, extra="t=y;"), DkimLimits(testing="ignore"))],
    DkimProblem.LIMIT: [
        Case(tagged(h=":".join(["from"] * 200))),
        Case(SIGNED, txt("p=" + "A" * 5000)),
        Case(SIGNED, ZONE, DkimLimits(header_bytes=100)),
    ],
}

EXPECTED_STATUS = {
    "fail": {"body_hash", "signature", "body_length", "expired"},
    "policy": {"unsigned_body", "unsigned_author", "testing", "limit"},
    "neutral": {"syntax", "version", "algorithm", "canonicalization"},
    "temperror": {"key_unavailable"},
    "internal_error": {"internal"},
}


@pytest.mark.parametrize("problem", CASES)
def test_each_problem_is_found_and_has_its_status(problem: DkimProblem) -> None:
    for case in CASES[problem]:
        result = judge_one(case.message, case.zone, case.limits, now=case.now)
        assert result.problem is problem, result.detail
        assert result.status is check.STATUSES[problem]
        assert result.detail
        assert result.detail.isascii()


def test_the_cases_reach_every_problem_but_our_own_failure() -> None:
    assert set(CASES) == set(DkimProblem) - {DkimProblem.INTERNAL}


def test_each_problem_has_the_status_of_the_documentation() -> None:
    assert set(check.STATUSES) == set(DkimProblem)
    by_status = {problem: status for status, problems in EXPECTED_STATUS.items() for problem in problems}
    assert {p.value: s.value for p, s in check.STATUSES.items()} == {
        p.value: by_status.get(p.value, "permerror") for p in DkimProblem
    }
    assert DkimStatus.PASS not in check.STATUSES.values()


def test_our_own_failure_is_told_for_each_signature_and_is_no_pass() -> None:
    message, _ = Message.parse(sign(SIGNED, ed25519_key(), selector="s2"))
    results = check.broken(read(message, DkimLimits()))
    assert [(r.status, r.problem) for r in results] == [(DkimStatus.INTERNAL_ERROR, DkimProblem.INTERNAL)] * 2
    assert [r.selector for r in results] == ["s2", "s1"]


# ----- choices --------------------------------------------------------------------------------------------------


def test_l_may_be_accepted_and_is_told_either_way() -> None:
    signed = tagged(l="5") + b"<b>appended</b>\r\n"
    strict, lax = judge_one(signed, ZONE), judge_one(signed, ZONE, DkimLimits(unsigned_body="accept"))
    assert (strict.status, lax.status) == (DkimStatus.POLICY, DkimStatus.PASS)
    assert strict.body_length == lax.body_length == 5
    assert strict.unsigned_body_bytes == lax.unsigned_body_bytes > len(b"<b>appended</b>\r\n")


def test_l_over_the_whole_body_is_a_plain_pass() -> None:
    length = len(b"Hello,\r\n\r\nthis is a body.\r\n")
    result = judge_one(tagged(l=str(length)), ZONE)
    assert (result.status, result.body_length, result.unsigned_body_bytes) == (DkimStatus.PASS, length, 0)


def test_a_testing_key_is_credited_by_default_and_told() -> None:
    result = judge_one(SIGNED, a_zone(KEY, extra="t=y;"))
    assert (result.status, result.testing) == (DkimStatus.PASS, True)
    failed = judge_one(SIGNED + b"x\r\n", a_zone(KEY, extra="t=y;"))
    assert (failed.status, failed.testing) == (DkimStatus.FAIL, True)


def test_clocks_may_differ_a_little() -> None:
    signed = tagged(t=str(SIGNED_AT), x=str(SIGNED_AT + 1000))
    at = datetime.fromtimestamp(SIGNED_AT, UTC)
    statuses = {
        s: judge_one(signed, ZONE, now=at + timedelta(seconds=s)).status.value
        for s in (-301, -300, 1300, 1301)
    }
    assert statuses == {-301: "permerror", -300: "pass", 1300: "pass", 1301: "fail"}


def test_x_may_be_disregarded() -> None:
    signed = tagged(x="1000")
    assert judge_one(signed, ZONE).problem is DkimProblem.EXPIRED
    result = judge_one(signed, ZONE, DkimLimits(allow_expired=True))
    assert (result.status, result.expires) == (DkimStatus.PASS, 1000)


def test_no_key_is_asked_for_where_the_text_or_the_time_decides() -> None:
    for message in (tagged(d="example..com"), tagged(x="1000"), tagged(a="rsa-sha1"), tagged(q="x")):
        lookup = a_lookup(ZONE)
        parsed, _ = Message.parse(message)
        check.verify_headers(parsed, read(parsed, DkimLimits()), lookup, DkimLimits(), now=NOW)
        assert lookup.asked == 0


def test_the_critical_fields_that_are_not_signed_are_told() -> None:
    added = b"Reply-To: eve@example.net\r\nContent-Type: text/html\r\nSubject: new\r\nX-Other: x\r\n"
    result = judge_one(added + SIGNED, ZONE)
    assert result.status is DkimStatus.PASS
    assert result.unsigned_critical == ("reply-to", "subject", "content-type")


def test_a_signature_may_cover_the_one_below_but_never_itself() -> None:
    other = sign(SIGNED, KEY, names=(*NAMES, "dkim-signature", "dkim-signature"))
    assert [r.status.value for r in judge(other, ZONE)] == ["pass", "pass"]
    alone = sign(MESSAGE, KEY, names=(*NAMES, "dkim-signature"))
    assert judge_one(alone, ZONE).status is DkimStatus.PASS
    assert judge(b"DKIM-Signature: v=2\r\n" + alone, ZONE)[1].problem is DkimProblem.SIGNATURE


def test_fields_are_taken_from_the_bottom_up() -> None:
    message = b"X-Trace: 1\r\nX-Trace: 2\r\nX-Trace: 3\r\n" + MESSAGE
    signed = sign(message, KEY, names=(*NAMES, "x-trace", "X-Trace"))
    assert judge_one(signed, ZONE).status is DkimStatus.PASS
    assert judge_one(signed.replace(b"X-Trace: 1", b"X-Trace: 9"), ZONE).status is DkimStatus.PASS
    assert judge_one(b"X-Trace: 0\r\n" + signed, ZONE).status is DkimStatus.PASS
    assert judge_one(signed.replace(b"X-Trace: 2", b"X-Trace: 9"), ZONE).problem is DkimProblem.SIGNATURE
    assert (
        judge_one(signed.replace(b"\r\n\r\n", b"\r\nX-Trace: 4\r\n\r\n", 1), ZONE).problem
        is DkimProblem.SIGNATURE
    )


def test_an_oversigned_field_cannot_be_added() -> None:
    signed = sign(MESSAGE, KEY, names=(*NAMES, "from", "cc"))
    assert judge_one(signed, ZONE).status is DkimStatus.PASS
    assert judge_one(b"From: eve@example.net\r\n" + signed, ZONE).problem is DkimProblem.SIGNATURE
    assert judge_one(b"Cc: eve@example.net\r\n" + signed, ZONE).problem is DkimProblem.SIGNATURE


def test_relaxed_bears_what_mail_servers_do_to_fields_and_simple_does_not() -> None:
    def changed(message: bytes) -> bytes:
        return message.replace(b"Subject: two  blanks\r\n and", b"SUBJECT:two blanks \r\n\tand")

    assert judge_one(changed(SIGNED), ZONE).status is DkimStatus.PASS
    simple = sign(MESSAGE, KEY, form="simple/simple")
    assert judge_one(changed(simple), ZONE).problem is DkimProblem.SIGNATURE


def test_an_internationalized_signature_passes() -> None:
    domain, selector = "b\u00fccher.example", "gr\u00fcn"
    signed = sign(MESSAGE, KEY, domain=domain, selector=selector, tags={"i": f"j\u00f6rg@{domain}"})
    zone = a_zone(KEY, domain="xn--bcher-kva.example", selector="xn--grn-ioa")
    result = judge_one(signed, zone)
    assert result.status is DkimStatus.PASS
    assert result.domain is not None
    assert result.domain.ascii == "xn--bcher-kva.example"
    assert result.identity == f"j\u00f6rg@{domain}"


# ----- several keys, several signatures -------------------------------------------------------------------------


def test_several_records_are_each_tried() -> None:
    wrong = rsa_key(2048, 1).record
    assert judge_one(SIGNED, txt("v=spf1 -all", wrong, "k=dsa; p=AAAA", KEY.record)).status is DkimStatus.PASS
    assert judge_one(SIGNED, txt("k=dsa; p=AAAA", "p=", wrong, KEY.record)).problem is DkimProblem.SIGNATURE
    assert judge_one(SIGNED, txt("p=", "k=dsa; p=AAAA")).problem is DkimProblem.KEY_REVOKED


def test_a_signature_of_each_kind_may_share_a_selector() -> None:
    both = sign(SIGNED, ed25519_key())
    zone = txt(KEY.record, ed25519_key().record)
    assert [(r.status.value, r.key_bits) for r in judge(both, zone)] == [("pass", 256), ("pass", 2048)]


def test_results_stand_in_the_order_of_the_fields_and_no_signature_stops_another() -> None:
    message = sign(MESSAGE, KEY, selector="good")
    message = sign(message, KEY, selector="slow")
    message = b"DKIM-Signature: \xff\r\n" + message
    message = sign(message, KEY, selector="none")
    message = sign(message, KEY, selector="good", tags={"x": "1000"})
    zone = {**a_zone(KEY, selector="good"), "slow._domainkey.example.com": "TIMEOUT"}
    results = judge(message, zone)
    assert [r.status.value for r in results] == ["fail", "permerror", "neutral", "temperror", "pass"]
    assert [r.selector for r in results] == ["good", "none", "", "slow", "good"]


def test_ten_signatures_on_black_holed_domains_do_not_hide_the_one_that_counts() -> None:
    message = sign(MESSAGE, KEY)
    for n in range(12):
        message = sign(message, KEY, domain=f"d{n}.example.net")
    zone = {**ZONE, **{f"s1._domainkey.d{n}.example.net": "TIMEOUT" for n in range(12)}}
    results = judge(message, zone)
    assert len(results) == 13
    assert results[-1].status is DkimStatus.PASS
    assert [r.problem for r in results].count(DkimProblem.LIMIT) == 3


# ----- running again --------------------------------------------------------------------------------------------


class Cold:
    """A resolver that knows only what it has been told."""

    def __init__(self) -> None:
        self.answers: dict[Question, Answer] = {}

    def known(self, question: Question) -> Answer | None:
        return self.answers.get(question)

    async def fetch(self, question: Question, deadline: object) -> Answer:
        raise AssertionError((question, deadline))


class Recorder(BudgetLookup):
    """A lookup that says when it is asked."""

    def __init__(self, resolver: Cold, asked: Callable[[], None]) -> None:
        super().__init__(resolver, questions=10)
        self._told = asked

    def ask_all(self, questions: Iterable[Question]) -> tuple[Answer, ...]:
        self._told()
        return super().ask_all(questions)


def two_signatures() -> tuple[Message, bytes]:
    raw = sign(SIGNED, KEY, selector="s2")
    message, start = Message.parse(raw)
    return message, raw[start:]


def test_all_keys_are_asked_for_at_once_and_before_any_work() -> None:
    message, _ = two_signatures()
    limits = DkimLimits()
    resolver = Cold()
    times = 0

    def count() -> None:
        nonlocal times
        times += 1

    lookup = Recorder(resolver, count)
    with pytest.raises(Missing) as missing:
        check.verify_headers(message, read(message, limits), lookup, limits, now=NOW)
    assert [q.name for q in missing.value.questions] == ["s2._domainkey.example.com", WHERE]
    assert times == 1
    zone = ZoneResolver({**a_zone(KEY, selector="s2"), **ZONE})
    for question in missing.value.questions:
        lookup.give(question, zone.known(question))
    outcomes = check.verify_headers(message, read(message, limits), lookup, limits, now=NOW)
    assert times == 2
    assert [o.result.problem for o in outcomes] == [None, None]


def test_a_closed_lookup_is_our_limit_and_not_dns_trouble() -> None:
    message, body = two_signatures()
    limits = DkimLimits()
    resolver = Cold()
    lookup = BudgetLookup(resolver, questions=10)
    signatures = read(message, limits)
    with pytest.raises(Missing) as missing:
        check.verify_headers(message, signatures, lookup, limits, now=NOW)
    slow, quick = missing.value.questions
    lookup.give(quick, ZoneResolver(ZONE).known(quick))
    lookup.close()
    outcomes = check.verify_headers(message, signatures, lookup, limits, now=NOW)
    hasher = BodyHasher(check.body_needs(signatures))
    hasher.update(body)
    late, good = check.conclude(outcomes, hasher.finish(), limits)
    assert slow.name == "s2._domainkey.example.com"
    assert (late.status, late.problem) == (DkimStatus.POLICY, DkimProblem.LIMIT)
    assert good.status is DkimStatus.PASS


def test_a_spent_budget_is_our_limit() -> None:
    message = SIGNED
    for n in range(4):
        message = sign(message, KEY, selector=f"t{n}")
    parsed, _ = Message.parse(message)
    limits = DkimLimits()
    lookup = a_lookup({}, questions=2)
    outcomes = check.verify_headers(parsed, read(parsed, limits), lookup, limits, now=NOW)
    assert [o.result.problem for o in outcomes] == [DkimProblem.NO_KEY] * 2 + [DkimProblem.LIMIT] * 3


def test_every_kind_of_failure_is_told_apart_from_no_key() -> None:
    for kind in FailureKind:
        resolver = Cold()
        message, _ = Message.parse(SIGNED)
        signatures = read(message, DkimLimits())
        question = signatures[0].question
        assert question is not None
        resolver.answers[question] = Failed(kind)
        (outcome,) = check.verify_headers(
            message, signatures, BudgetLookup(resolver, questions=3), DkimLimits(), now=NOW
        )
        expected = DkimProblem.LIMIT if kind is FailureKind.LIMIT else DkimProblem.KEY_UNAVAILABLE
        assert outcome.result.problem is expected


# ----- the body -------------------------------------------------------------------------------------------------


def conclude_without_body(message: bytes) -> DkimResult:
    parsed, _ = Message.parse(message)
    limits = DkimLimits()
    outcomes = check.verify_headers(parsed, read(parsed, limits), a_lookup(ZONE), limits, now=NOW)
    (result,) = check.conclude(outcomes, None, limits)
    return result


def test_a_body_that_was_not_hashed_is_never_a_pass() -> None:
    result = conclude_without_body(SIGNED)
    assert (result.status, result.problem) == (DkimStatus.POLICY, DkimProblem.LIMIT)
    result = conclude_without_body(SIGNED.replace(b"two  blanks", b"three"))
    assert (result.status, result.problem) == (DkimStatus.FAIL, DkimProblem.SIGNATURE)


def test_digests_of_another_need_are_never_a_pass() -> None:
    parsed, _ = Message.parse(SIGNED)
    limits = DkimLimits()
    outcomes = check.verify_headers(parsed, read(parsed, limits), a_lookup(ZONE), limits, now=NOW)
    (result,) = check.conclude(outcomes, {}, limits)
    assert result.problem is DkimProblem.LIMIT


def test_the_body_is_needed_for_readable_signatures_only() -> None:
    message, _ = Message.parse(sign(tagged(d="-"), KEY, form="simple/simple", tags={"l": "3"}))
    needs = check.body_needs(read(message, DkimLimits()))
    assert [(n.canonicalization.value, n.length) for n in needs] == [("simple", 3)]
    assert check.body_needs(()) == frozenset()


def test_a_message_without_body_passes() -> None:
    for form in ("simple/simple", "relaxed/relaxed"):
        signed = sign(HEADERS + b"\r\n", KEY, form=form)
        assert judge_one(signed, ZONE).status is DkimStatus.PASS
        assert judge_one(signed + b"\r\n\r\n", ZONE).status is DkimStatus.PASS
        assert judge_one(signed + b"x\r\n", ZONE).problem is DkimProblem.BODY_HASH


@pytest.mark.parametrize("name", check._CRITICAL)
def test_a_critical_field_that_stands_twice_is_a_defect_of_its_message(name: str) -> None:
    # what the check trusts where it does not count: no defects, no critical field twice
    block = f"{name}: a@b.example\r\n{name}: c@d.example\r\n\r\n".encode()
    assert name in {defect.field for defect in Message.parse(block)[0].defects}
