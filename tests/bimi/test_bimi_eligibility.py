"""Who may have a logo (BIMI draft -12 §7.1): every row of the table, and the attacks on it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from authmilter.bimi.eligibility import screen
from authmilter.bimi.result import BimiProblem, BimiStatus, SelectorFault, SelectorSource
from authmilter.bimi.settings import BimiSettings
from authmilter.dkim.result import DkimProblem, DkimStatus
from authmilter.dmarc.check import check as dmarc_check
from authmilter.dmarc.result import DiscoveryMethod, DmarcResult, DmarcStatus
from authmilter.dmarc.settings import DmarcSettings
from authmilter.dmarc.survey import survey
from authmilter.message import Message
from authmilter.names import Domain
from tests.bimi.builders import RECORD, ZONE, Marks, a_message, a_signature, an_spf, evaluate
from tests.support.builders import a_lookup

LAX = BimiSettings(require_dkim=False)


def published(own: str | None, top: str | None = None) -> dict[str, object]:
    """A zone in which mail.brand.example and brand.example publish these DMARC records, and both have a logo."""
    zone: dict[str, object] = {
        "mail.brand.example": {"A": ["192.0.2.1"]},
        "default._bimi.mail.brand.example": {"TXT": [RECORD]},
        "default._bimi.brand.example": {"TXT": [RECORD]},
    }
    if own is not None:
        zone["_dmarc.mail.brand.example"] = {"TXT": [own]}
    if top is not None:
        zone["_dmarc.brand.example"] = {"TXT": [top]}
    return zone


P = "v=DMARC1; p="
#: the record of brand.example, for mail from brand.example itself; and what comes of it
OWN_POLICY = [
    (P + "reject", True),
    (P + "quarantine", True),
    (P + "none", False),
    (P + "reject; sp=reject; np=reject", True),
    (P + "reject; sp=quarantine", True),
    (P + "reject; sp=none", False),
    (P + "quarantine; sp=none", False),
    (P + "reject; np=none", False),
    (P + "reject; np=quarantine", True),
    (P + "quarantine; pct=100", True),
    (P + "quarantine; pct=99", False),
    (P + "quarantine; pct=0", False),
    (P + "reject; pct=50", True),
    (P + "reject; t=y", False),
    (P + "quarantine; t=y", False),
    (P + "reject; t=n", True),
    (P + "reject; psd=n", True),
    (P + "reject; sp=maybe; rua=mailto:a@brand.example", False),
    (P + "maybe; rua=mailto:a@brand.example", False),
    ("v=DMARC1; rua=mailto:a@brand.example", False),
]


@pytest.mark.parametrize(("record", "enforcing"), OWN_POLICY, ids=[r for r, _ in OWN_POLICY])
def test_the_policy_has_to_enforce(record: str, *, enforcing: bool) -> None:
    result = evaluate({**ZONE, "_dmarc.brand.example": {"TXT": [record]}})
    if enforcing:
        assert result.status is BimiStatus.PASS
    else:
        assert result.status is BimiStatus.SKIPPED
        assert result.problem is BimiProblem.POLICY_NOT_ENFORCING
        assert "brand.example" in result.detail
        assert result.queries == ()


#: the records of mail.brand.example and brand.example, for mail from mail.brand.example
BOTH_POLICIES = [
    (None, P + "reject", True),
    (None, P + "reject; sp=none", False),
    (None, P + "reject; sp=quarantine", True),
    (None, P + "none; sp=reject", False),
    (None, P + "quarantine; pct=20", False),
    (None, P + "reject; t=y", False),
    (P + "reject", P + "reject", True),
    (P + "quarantine", P + "reject", True),
    (P + "reject", P + "none", False),
    (P + "reject", P + "reject; sp=none", False),
    (P + "none", P + "reject", False),
    (P + "reject; sp=none", P + "reject", False),
    (P + "quarantine; pct=10", P + "reject", False),
    (P + "reject; t=y", P + "reject", False),
    (P + "reject", P + "quarantine; pct=10", False),
    # the tree walk makes the author its own Organizational Domain
    (P + "reject", None, True),
    (P + "reject; psd=n", P + "none", True),
    # several records are none (RFC 9989 §4.10), and the walk goes on
    ("twice", P + "reject", True),
]


@pytest.mark.parametrize(("own", "top", "enforcing"), BOTH_POLICIES)
def test_both_the_author_and_its_organization_have_to_enforce(
    own: str | None, top: str | None, *, enforcing: bool
) -> None:
    zone = published(own, top)
    if own == "twice":
        zone["_dmarc.mail.brand.example"] = {"TXT": [P + "none", P + "reject"]}
    message = a_message(author="news@mail.brand.example")
    result = evaluate(zone, message=message, dkim=(a_signature("mail.brand.example"),))
    assert result.status is (BimiStatus.PASS if enforcing else BimiStatus.SKIPPED), result.detail
    assert (result.problem is BimiProblem.POLICY_NOT_ENFORCING) is not enforcing


def test_by_the_public_suffix_list_the_organization_needs_a_record_of_its_own() -> None:
    author = Domain.parse("mail.brand.example")
    zone = published(P + "reject")
    found = survey(author, a_lookup(zone), DmarcSettings(discovery=DiscoveryMethod.PSL))
    assert found.organizational_domain == Domain.parse("brand.example")
    assert found.own is not None
    assert found.organizational is None


@pytest.mark.parametrize("failing", ["_dmarc.mail.brand.example", "_dmarc.brand.example"])
def test_a_policy_that_dns_hides_is_a_temperror(failing: str) -> None:
    zone = published(P + "reject", P + "reject")
    good = dmarc_check(
        a_message(author="news@mail.brand.example").authors,
        None,
        (a_signature("mail.brand.example"),),
        a_lookup(zone),
        DmarcSettings(),
    )
    zone[failing] = "SERVFAIL"
    result = evaluate(
        zone,
        message=a_message(author="news@mail.brand.example"),
        dkim=(a_signature("mail.brand.example"),),
        dmarc=good,
    )
    assert (result.status, result.problem) == (BimiStatus.TEMPERROR, BimiProblem.DNS)
    assert result.queries == ()


def test_our_own_limit_is_told_as_one() -> None:
    result = evaluate(lookup=a_lookup(ZONE, questions=0))
    assert (result.status, result.problem) == (BimiStatus.TEMPERROR, BimiProblem.LIMIT)
    result = evaluate(lookup=a_lookup(ZONE, questions=2))
    assert (result.status, result.problem) == (BimiStatus.TEMPERROR, BimiProblem.LIMIT)


# -- one author, DMARC pass


AUTHORS = [
    b"From: a@brand.example, b@brand.example\r\n\r\n",
    b"From: a@brand.example, b@other.example\r\n\r\n",
    b"From: a@brand.example\r\nFrom: a@brand.example\r\n\r\n",
    b"From : a@brand.example\r\n\r\n",
    b"From:\r\n\r\n",
    b"Sender: a@brand.example\r\n\r\n",
    b"From: undisclosed:;\r\n\r\n",
    b"From: a@brand.example\xe2\x80\x8b\r\n\r\n",
]


@pytest.mark.parametrize("raw", AUTHORS)
def test_anything_but_one_author_is_skipped(raw: bytes) -> None:
    passed = DmarcResult(status=DmarcStatus.PASS, author=Domain.parse("brand.example"))
    result = evaluate(message=Message.parse(raw)[0], dmarc=passed)
    assert (result.status, result.problem) == (BimiStatus.SKIPPED, BimiProblem.NO_SINGLE_AUTHOR)
    assert result.queries == ()


@pytest.mark.parametrize("status", [s for s in DmarcStatus if s is not DmarcStatus.PASS])
def test_without_a_dmarc_pass_nothing_is_asked_and_nothing_made(status: DmarcStatus) -> None:
    message = a_message()
    dmarc = DmarcResult(status=status, author=message.authors.domain)
    lookup = a_lookup(ZONE, questions=10)
    result = evaluate(message=message, dmarc=dmarc, lookup=lookup)
    assert (result.status, result.problem) == (BimiStatus.SKIPPED, BimiProblem.DMARC_NOT_PASS)
    assert lookup.asked == 0
    assert screen(message.authors, dmarc) is screen(message.authors, dmarc)


def test_a_pass_for_somebody_else_is_none() -> None:
    dmarc = DmarcResult(status=DmarcStatus.PASS, author=Domain.parse("other.example"))
    assert evaluate(dmarc=dmarc).problem is BimiProblem.DMARC_NOT_PASS
    unasked = screen(a_message().authors, None)
    assert unasked is not None
    assert unasked.problem is BimiProblem.DMARC_NOT_PASS


# -- attack 50: the brand's logo by SPF alone, from a shared provider; and what else is no signature of the brand


def test_spf_alone_gives_no_logo() -> None:
    result = evaluate(dkim=(), spf=an_spf())
    assert (result.status, result.problem) == (BimiStatus.SKIPPED, BimiProblem.NO_ALIGNED_DKIM)
    assert result.queries == ()


def test_spf_alone_gives_one_where_that_is_chosen() -> None:
    assert evaluate(dkim=(), spf=an_spf(), settings=LAX).status is BimiStatus.PASS


def test_an_spf_record_for_everybody_gives_none_even_then() -> None:
    result = evaluate(dkim=(), spf=an_spf(broad=True), settings=LAX)
    assert (result.status, result.problem) == (BimiStatus.SKIPPED, BimiProblem.BROAD_SPF)
    assert evaluate(spf=an_spf(broad=True), settings=LAX).status is BimiStatus.PASS


NOT_WHOLE = [
    {"body_length": 0},
    {"body_length": 100},
    {"body_length": 100, "unsigned_body_bytes": 7},
    {"testing": True},
    {"status": DkimStatus.FAIL, "problem": DkimProblem.BODY_HASH},
    {"status": DkimStatus.POLICY, "problem": DkimProblem.UNSIGNED_BODY},
    {"domain": "provider.example"},
    {"domain": "brand.example.evil.example"},
]


@pytest.mark.parametrize("changes", NOT_WHOLE, ids=str)
def test_a_signature_that_does_not_vouch_for_it_all_gives_no_logo(changes: Mapping[str, object]) -> None:
    given = dict(changes)
    signature = a_signature(str(given.pop("domain", "brand.example")), **given)
    result = evaluate(dkim=(signature,), spf=an_spf())
    assert (result.status, result.problem) == (BimiStatus.SKIPPED, BimiProblem.NO_ALIGNED_DKIM)
    # a good one beside it is enough
    assert evaluate(dkim=(signature, a_signature()), spf=an_spf()).status is BimiStatus.PASS


def test_alignment_is_as_dmarc_asks_for_it() -> None:
    strict: dict[str, object] = {**ZONE, "_dmarc.brand.example": {"TXT": [P + "reject; adkim=s; aspf=r"]}}
    below = a_signature("mail.brand.example")
    # SPF makes mail.brand.example an aligned domain, DKIM of the same name is not aligned
    result = evaluate(strict, dkim=(below,), spf=an_spf("mail.brand.example"))
    assert result.problem is BimiProblem.NO_ALIGNED_DKIM
    assert evaluate(strict, dkim=(below, a_signature()), spf=an_spf()).status is BimiStatus.PASS
    assert evaluate(dkim=(below,), spf=an_spf()).status is BimiStatus.PASS


def test_a_key_that_dns_hides_is_a_temperror() -> None:
    hidden = a_signature(status=DkimStatus.TEMPERROR, problem=DkimProblem.KEY_UNAVAILABLE)
    result = evaluate(dkim=(hidden,), spf=an_spf())
    assert (result.status, result.problem) == (BimiStatus.TEMPERROR, BimiProblem.DKIM_UNKNOWN)
    limited = a_signature(status=DkimStatus.TEMPERROR, problem=DkimProblem.LIMIT)
    assert evaluate(dkim=(limited,), spf=an_spf()).problem is BimiProblem.LIMIT
    stranger = a_signature("other.example", status=DkimStatus.TEMPERROR)
    assert evaluate(dkim=(stranger,), spf=an_spf()).problem is BimiProblem.NO_ALIGNED_DKIM


# -- BIMI-Selector (§5.1, §5.5)

_SELECTED = {
    **ZONE,
    "spring._bimi.brand.example": {"TXT": ["v=BIMI1; l=https://brand.example/spring.svg; a=https://brand.example/s.pem"]},
}  # fmt: skip
_FIELD = "BIMI-Selector: v=BIMI1; s=spring;"


def test_a_signed_selector_is_followed() -> None:
    marks = Marks()
    result = evaluate(_SELECTED, message=a_message(_FIELD), source=marks)
    assert (result.selector, result.selector_source) == ("spring", SelectorSource.HEADER)
    assert result.selector_ignored is None
    assert marks.asked == [
        ("brand.example", "spring", "https://brand.example/spring.svg", "https://brand.example/s.pem")
    ]


IGNORED = [
    ((_FIELD,), ("from", "subject"), SelectorFault.UNSIGNED),
    ((_FIELD, _FIELD), ("from", "bimi-selector", "bimi-selector"), SelectorFault.REPEATED),
    (("BIMI-Selector: s=spring",), ("from", "bimi-selector"), SelectorFault.MALFORMED),
    (("BIMI-Selector: v=BIMI1; s=../x",), ("from", "bimi-selector"), SelectorFault.MALFORMED),
]


@pytest.mark.parametrize(("fields", "signed", "fault"), IGNORED)
def test_a_selector_that_nobody_vouches_for_is_ignored(
    fields: tuple[str, ...], signed: tuple[str, ...], fault: SelectorFault
) -> None:
    result = evaluate(_SELECTED, message=a_message(*fields), dkim=(a_signature(signed_headers=signed),))
    assert (result.selector, result.selector_source) == ("default", SelectorSource.DEFAULT)
    assert result.selector_ignored is fault
    assert result.status is BimiStatus.PASS


def test_a_strangers_signature_over_the_selector_counts_for_nothing() -> None:
    own = a_signature(signed_headers=("from",))
    for other in (
        a_signature("list.example"),
        a_signature(status=DkimStatus.FAIL, problem=DkimProblem.SIGNATURE),
        a_signature(body_length=5),
    ):
        result = evaluate(_SELECTED, message=a_message(_FIELD), dkim=(own, other))
        assert result.selector_ignored is SelectorFault.UNSIGNED


def test_selectors_can_be_switched_off() -> None:
    zone = {**_SELECTED, "default._bimi.brand.example": {"TXT": [RECORD + "; lps="]}}
    result = evaluate(zone, message=a_message(_FIELD), settings=BimiSettings(selectors=False))
    assert (result.selector, result.selector_ignored) == ("default", None)
    assert [q.name for q in result.queries] == ["default._bimi.brand.example"]
