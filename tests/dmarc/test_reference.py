"""Random trees against a slow reading of RFC 9989 §4.10, written apart from the code it checks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dmarc.result import AlignedBy, DmarcResult, DmarcStatus
from tests.dmarc.builders import dkim, evaluate, spf

# The only public suffix of these trees is their single last label, so that the guards reduce to one rule:
# a record at `zz` counts as psd=y.
_LABEL = st.sampled_from(["a", "b"])
_NAME = st.lists(_LABEL, max_size=9).map(lambda labels: ".".join([*labels, "org", "zz"]))
_RECORD = st.sampled_from(
    [
        "v=DMARC1; p=reject",
        "v=DMARC1; p=quarantine; sp=none",
        "v=DMARC1; p=none; psd=u",
        "v=DMARC1; p=reject; psd=n",
        "v=DMARC1; p=quarantine; psd=y",
        "v=DMARC1; p=reject; psd=y; sp=quarantine",
    ]
)
_TEXTS = st.one_of(
    _RECORD.map(lambda r: [r]),
    st.just(["v=spf1 -all"]),
    st.just(["v=DMARC1; p=none", "v=DMARC1; p=reject; psd=n"]),
)
_HOLDER = st.one_of(
    _NAME, st.lists(_LABEL, max_size=3).map(lambda ls: ".".join([*ls, "org", "zz"])), st.just("zz")
)
_TREE = st.dictionaries(_HOLDER, _TEXTS, max_size=5)


def _record_at(tree: dict[str, list[str]], name: str) -> str | None:
    records = [t for t in tree.get(name, []) if t.startswith("v=DMARC1")]
    return records[0] if len(records) == 1 else None


def _psd(name: str, record: str) -> str:
    if name == "zz" or "psd=y" in record:
        return "y"
    return "n" if "psd=n" in record else "u"


def _naive_walk(tree: dict[str, list[str]], start: str) -> tuple[list[str], list[str]]:
    """The names asked, and those with a record, by the seven steps of RFC 9989 §4.10."""
    asked = [start]
    found: list[str] = []
    target = start
    while True:
        record = _record_at(tree, target)
        if record is not None:
            found.append(target)
            if _psd(target, record) in {"y", "n"}:
                return asked, found
        labels = target.split(".")
        labels.pop(0)
        if target == start:
            while len(labels) > 7:
                labels.pop(0)
        if not labels:
            return asked, found
        target = ".".join(labels)
        asked.append(target)


def _naive_organization(tree: dict[str, list[str]], start: str) -> str:
    """RFC 9989 §4.10.2."""
    _, found = _naive_walk(tree, start)
    for name in found:
        psd = _psd(name, _record_at(tree, name) or "")
        if psd == "n":
            return name
        if psd == "y" and name != start:
            rest = start[: -len(name) - 1]
            return f"{rest.split('.')[-1]}.{name}"
    return found[-1] if found else start


def _naive_policy_at(tree: dict[str, list[str]], author: str) -> str | None:
    """RFC 9989 §4.10.1."""
    if _record_at(tree, author) is not None:
        return author
    organization = _naive_organization(tree, author)
    _, found = _naive_walk(tree, author)
    if organization in found:
        return organization
    psds = [name for name in found if _psd(name, _record_at(tree, name) or "") == "y"]
    return psds[0] if psds else None


def _zone(tree: dict[str, list[str]], failing: frozenset[str] = frozenset()) -> dict[str, object]:
    zone: dict[str, object] = {f"_dmarc.{name}": {"TXT": texts} for name, texts in tree.items()}
    zone.update({f"_dmarc.{name}": "SERVFAIL" for name in failing})
    return zone


@settings(max_examples=400, deadline=None)
@given(_TREE, _NAME)
def test_the_record_and_the_questions_are_those_of_the_reference(
    tree: dict[str, list[str]], author: str
) -> None:
    result = evaluate(author, _zone(tree))
    expected = _naive_policy_at(tree, author)
    assert (None if result.record_at is None else result.record_at.ascii) == expected
    asked = [author] if expected == author else _naive_walk(tree, author)[0]
    assert [q.name for q in result.queries if q.why == "policy"] == [f"_dmarc.{n}" for n in asked]
    if expected is None:
        assert result.status is DmarcStatus.NONE
    elif expected != author:
        assert result.organizational_domain is not None
        assert result.organizational_domain.ascii == _naive_organization(tree, author)


@settings(max_examples=400, deadline=None)
@given(_TREE, _NAME, _NAME, st.lists(_NAME, max_size=3))
def test_alignment_with_walks_left_out_is_that_of_all_walks(
    tree: dict[str, list[str]], author: str, sender: str, signers: list[str]
) -> None:
    result = evaluate(author, _zone(tree), spf=spf(sender), dkim=tuple(dkim(d) for d in signers))
    if _naive_policy_at(tree, author) is None:
        assert result.status is DmarcStatus.NONE
        return
    organization = _naive_organization(tree, author)

    def aligned(name: str) -> bool:
        return name == author or _naive_organization(tree, name) == organization

    assert (AlignedBy.SPF in result.aligned) is aligned(sender)
    assert (AlignedBy.DKIM in result.aligned) is any(aligned(d) for d in signers)
    expected = DmarcStatus.PASS if result.aligned else DmarcStatus.FAIL
    assert result.status is expected


def _told(result: DmarcResult) -> tuple[object, ...]:
    return (result.status, result.record_at, result.policy)


@settings(max_examples=300, deadline=None)
@given(_TREE, _NAME, _NAME, st.frozensets(_HOLDER, max_size=3), st.dictionaries(_HOLDER, _TEXTS, max_size=3))
def test_what_is_told_despite_failures_holds_whatever_the_failed_names_hide(
    tree: dict[str, list[str]],
    author: str,
    signer: str,
    failing: frozenset[str],
    hidden: dict[str, list[str]],
) -> None:
    despite = evaluate(author, _zone(tree, failing), dkim=(dkim(signer),))
    if despite.status is DmarcStatus.TEMPERROR:
        return
    truth = {n: t for n, t in tree.items() if n not in failing} | {
        n: hidden[n] for n in failing if n in hidden
    }
    assert _told(despite) == _told(evaluate(author, _zone(truth), dkim=(dkim(signer),)))
