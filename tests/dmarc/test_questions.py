"""How many questions common messages cost, in how many rounds, and what `prefetch` leaves to ask."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dmarc.check import check, prefetch
from authmilter.dmarc.result import DiscoveryMethod, DmarcResult, DmarcStatus
from authmilter.dmarc.settings import DmarcSettings
from authmilter.message import AuthorHeader
from authmilter.names import Domain
from authmilter.ports import Lookup
from tests.dmarc.builders import ColdLookup, Zone, a_domain, an_author, dkim, evaluate, spf

_SETTINGS = DmarcSettings()
_ZONE: Zone = {
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject; sp=quarantine"]},
    "_dmarc.np.example": {"TXT": ["v=DMARC1; p=none; np=reject"]},
}


def cold(
    author: str | AuthorHeader,
    *,
    sender: str | None = None,
    signers: tuple[str, ...] = (),
    zone: Zone = _ZONE,
    settings: DmarcSettings = _SETTINGS,
    ahead: bool = False,
    hints: int = 100,
    warm: frozenset[str] = frozenset(),
) -> tuple[DmarcResult, ColdLookup]:
    """Evaluate from an empty cache, with or without `prefetch` before."""
    authors = an_author(author) if isinstance(author, str) else author
    lookup = ColdLookup(zone, hints=hints, warm=warm)
    domains = [a_domain(d) for d in signers]
    if ahead:
        mail_from = None if sender is None else a_domain(sender)

        def early(to: Lookup) -> None:
            prefetch(authors, domains, mail_from, to, settings)

        lookup.run(early)

    def whole(to: Lookup) -> DmarcResult:
        signed = tuple(dkim(d) for d in signers)
        return check(authors, None if sender is None else spf(sender), signed, to, settings)

    return lookup.run(whole), lookup


def test_an_author_with_a_record_and_nothing_but_itself_costs_one_question() -> None:
    """RFC 9989 §4.10.2: no walk where all are the same domain."""
    result, lookup = cold("example.com", sender="example.com", signers=("example.com", "example.com"))
    assert result.status is DmarcStatus.PASS
    assert lookup.sent == ["_dmarc.example.com TXT"]
    assert lookup.rounds == 1
    assert result.organizational_domain == a_domain("example.com")
    assert len(result.queries) == 1


def test_strangers_cost_nothing() -> None:
    result, lookup = cold(
        "example.com", sender="bounce.esp.net", signers=tuple(f"s{n}.esp.net" for n in range(10))
    )
    assert result.status is DmarcStatus.FAIL
    assert lookup.sent == ["_dmarc.example.com TXT"]
    assert result.organizational_domain == Domain("example.com")  # told by the guards, without a question


def test_a_subdomain_and_its_organizational_domain_are_asked_together() -> None:
    warm = frozenset({"_dmarc.com"})
    result, lookup = cold("news.example.com", signers=("news.example.com",), warm=warm)
    assert result.status is DmarcStatus.PASS
    assert lookup.sent == ["_dmarc.news.example.com TXT", "_dmarc.example.com TXT"]
    assert lookup.rounds == 1
    _, lookup = cold("news.example.com", signers=("news.example.com",))
    assert lookup.rounds == 2


def test_names_above_a_psd_tag_are_not_asked() -> None:
    """RFC 9989 §B.4.3: the author's walk ends at bank.example, and so does that of the sender."""
    zone = {
        "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject; psd=y"]},
        "_dmarc.giant.bank.example": {"TXT": ["v=DMARC1; p=quarantine; psd=n"]},
    }
    result, lookup = cold("giant.bank.example", sender="mail.giant.bank.example", zone=zone, hints=0)
    assert result.status is DmarcStatus.PASS
    assert lookup.sent == ["_dmarc.giant.bank.example TXT", "_dmarc.mail.giant.bank.example TXT"]
    result, lookup = cold("mail.giant.bank.example", sender="giant.bank.example", zone=zone, hints=0)
    assert result.status is DmarcStatus.PASS
    assert "_dmarc.giant.bank.example" in [q.name for q in result.queries]


def test_the_organizational_domain_is_looked_up_where_alignment_needs_it_only() -> None:
    zone: Zone = {"_dmarc.mail.example.com": {"TXT": ["v=DMARC1; p=reject"]}}
    result, lookup = cold("mail.example.com", zone=zone, sender="esp.net", signers=("mail.example.com",))
    assert result.status is DmarcStatus.PASS
    assert "_dmarc.com TXT" not in lookup.sent
    assert result.organizational_domain is None


def test_several_authors_are_asked_together() -> None:
    result, lookup = cold(an_author("example.com", "np.example"))
    assert result.status is DmarcStatus.PERMERROR
    assert lookup.rounds == 1


def test_a_bounce_domain_below_the_author_costs_its_own_name_and_the_top() -> None:
    result, lookup = cold("example.com", sender="bounce.example.com")
    assert result.status is DmarcStatus.PASS
    assert sorted(lookup.sent) == [
        "_dmarc.bounce.example.com TXT",
        "_dmarc.com TXT",
        "_dmarc.example.com TXT",
    ]
    assert lookup.rounds == 2


def test_strict_alignment_costs_no_walk() -> None:
    zone = {"_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject; aspf=s; adkim=s"]}}
    _, lookup = cold("example.com", sender="bounce.example.com", signers=("a.example.com",), zone=zone)
    assert lookup.sent == ["_dmarc.example.com TXT"]


def test_existence_is_asked_only_where_np_would_change_the_policy_of_a_message_that_does_not_pass() -> None:
    failing, lookup = cold("nobody.np.example")
    assert lookup.sent[-1] == "nobody.np.example A"
    assert failing.queries[-1].why == "existence of nobody.np.example"
    passing, lookup = cold("nobody.np.example", signers=("np.example",))
    assert passing.status is DmarcStatus.PASS
    assert all("nobody.np.example A" not in sent for sent in lookup.sent)
    for author in ("np.example", "nobody.example.com"):
        _, lookup = cold(author)
        assert all(sent.endswith(" TXT") for sent in lookup.sent)
    for record in (
        "p=none; sp=reject; np=reject",
        "p=reject; np=reject",
        "p=bad; np=reject; rua=mailto:a@example.net",
    ):
        zone: Zone = {"_dmarc.example.net": {"TXT": [f"v=DMARC1; {record}"]}}
        result, lookup = cold("nobody.example.net", zone=zone)
        assert result.status is DmarcStatus.FAIL
        assert all(sent.endswith(" TXT") for sent in lookup.sent)


def test_the_deepest_author_without_a_record_takes_two_rounds_and_eight_questions() -> None:
    result, lookup = cold("a.b.c.d.e.f.g.h.i.j.mail.example.org")
    assert result.status is DmarcStatus.NONE
    assert len(lookup.sent) == len(result.queries) == 8
    assert lookup.rounds == 2


def test_without_hints_the_answer_is_the_same() -> None:
    wanted, _ = cold("a.example.com", sender="x.y.example.com", signers=("z.example.com",))
    got, lookup = cold("a.example.com", sender="x.y.example.com", signers=("z.example.com",), hints=0)
    assert got == wanted
    assert lookup.rounds == 3


@pytest.mark.parametrize(
    ("author", "sender", "signers"),
    [
        ("example.com", "example.com", ("example.com",)),
        ("example.com", "bounce.example.com", ("mail.example.com", "esp.net")),
        ("news.example.com", "bounce.news.example.com", ("example.com",)),
        ("nobody.np.example", "x.np.example", ()),
        ("x.nothing.example", "x.nothing.example", ("nothing.example",)),
    ],
)
@pytest.mark.parametrize("method", list(DiscoveryMethod))
def test_after_the_prefetch_nothing_is_missing(
    author: str, sender: str, signers: tuple[str, ...], method: DiscoveryMethod
) -> None:
    chosen = DmarcSettings(discovery=method)
    lookup = ColdLookup(_ZONE)
    authors = an_author(author)
    domains = [a_domain(d) for d in signers]
    lookup.run(lambda to: prefetch(authors, domains, a_domain(sender), to, chosen))
    assert lookup.rounds <= 3
    lookup.rounds = 0
    signed = tuple(dkim(d) for d in signers)
    result = lookup.run(lambda to: check(authors, spf(sender), signed, to, chosen))
    assert lookup.rounds == 0
    assert result == evaluate(author, _ZONE, spf=spf(sender), dkim=signed, settings=chosen)


def test_prefetch_asks_of_strangers_nothing() -> None:
    _, lookup = cold("example.com", sender="esp.net", signers=("a.esp.net", "b.esp.net"), ahead=True)
    assert lookup.sent == ["_dmarc.example.com TXT"]


def test_prefetch_of_a_common_message_takes_one_round() -> None:
    _, lookup = cold("example.com", sender="bounce.example.com", signers=("example.com",), ahead=True)
    assert lookup.rounds == 1
    assert sorted(lookup.sent) == [
        "_dmarc.bounce.example.com TXT",
        "_dmarc.com TXT",
        "_dmarc.example.com TXT",
    ]


def test_prefetch_asks_for_several_authors_and_for_none() -> None:
    _, lookup = cold(an_author("example.com", "np.example"), ahead=True)
    assert sorted(lookup.sent) == ["_dmarc.example.com TXT", "_dmarc.np.example TXT"]
    assert lookup.rounds == 1
    _, lookup = cold(AuthorHeader(), ahead=True)
    assert lookup.sent == []


_NAMES = st.sampled_from(
    ["example.com", "a.example.com", "b.a.example.com", "x.example.org", "example.org", "co.uk"]
)
_CONTENT = st.sampled_from(
    [
        {"TXT": ["v=DMARC1; p=reject"]},
        {"TXT": ["v=DMARC1; p=none; np=reject; psd=n"]},
        {"TXT": ["v=DMARC1; p=quarantine; np=none; psd=y"]},
        "TIMEOUT",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    author=_NAMES,
    sender=_NAMES,
    signers=st.lists(_NAMES, max_size=3).map(tuple),
    zone=st.dictionaries(_NAMES.map("_dmarc.{}".format), _CONTENT, max_size=4),
    ahead=st.booleans(),
    hints=st.sampled_from([0, 2, 100]),
    method=st.sampled_from(list(DiscoveryMethod)),
)
def test_a_cold_cache_gives_what_a_warm_one_gives(
    *,
    author: str,
    sender: str,
    signers: tuple[str, ...],
    zone: dict[str, object],
    ahead: bool,
    hints: int,
    method: DiscoveryMethod,
) -> None:
    chosen = DmarcSettings(discovery=method)
    got, lookup = cold(
        author, sender=sender, signers=signers, zone=zone, settings=chosen, ahead=ahead, hints=hints
    )
    assert got == evaluate(
        author, zone, spf=spf(sender), dkim=tuple(dkim(d) for d in signers), settings=chosen
    )
    assert len(lookup.sent) == len(set(lookup.sent))
