"""The policies that come with authmilter: they load without a warning and do what their tests say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from authmilter import documents
from authmilter.errors import PolicyError
from authmilter.policy import loader, shipped, testing
from authmilter.policy.rules import ActionKind, Mode, Policy
from authmilter.verdict import Disposition

CASES = {"monitor": 19, "enforce": 32, "strict": 24}


def a_shipped(name: str) -> Policy:
    return loader.load(shipped.shipped_text(name), f"{name}.yaml")


@pytest.mark.parametrize("name", shipped.NAMES)
def test_it_loads_without_a_warning(name: str) -> None:
    policy = a_shipped(name)
    assert policy.name == name
    assert policy.warnings == ()
    assert policy.mode is (Mode.MONITOR if name == "monitor" else Mode.ENFORCE)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_its_own_tests_hold_and_reach_every_rule(name: str) -> None:
    policy = a_shipped(name)
    outcomes = testing.run(policy, shipped.shipped_tests(name), f"{name}.test.yaml")
    assert [(o.name, o.problem) for o in outcomes if o.problem] == []
    assert len(outcomes) == CASES[name]
    assert testing.uncovered(policy, outcomes) == ()


def test_monitor_has_the_rules_of_enforce_so_that_it_says_what_that_would_do() -> None:
    monitor, enforce = (documents.parse(shipped.shipped_text(n), n).data for n in ("monitor", "enforce"))
    assert isinstance(monitor, dict)
    assert isinstance(enforce, dict)
    assert {k: v for k, v in monitor.items() if k not in {"mode", "would_have_header"}} == enforce


def test_monitor_only_ever_accepts() -> None:
    policy = a_shipped("monitor")
    for name in shipped.NAMES:
        for outcome in testing.run(
            policy,
            re.sub(
                r"(?m)^    expect:.*\n(      .*\n)*",
                "    expect: {disposition: accept}\n",
                shipped.shipped_tests(name),
            ),
            name,
        ):
            assert outcome.decision.disposition is Disposition.ACCEPT
            assert outcome.decision.reply is None


@pytest.mark.parametrize("name", ["enforce", "strict"])
def test_postmaster_and_abuse_come_before_every_refusal(name: str) -> None:
    rules = a_shipped(name).rules
    first = next(
        i for i, r in enumerate(rules) if r.action.kind not in {ActionKind.CONTINUE, ActionKind.ACCEPT}
    )
    assert "role-accounts" in [r.id for r in rules[:first]]


@pytest.mark.parametrize("name", shipped.NAMES)
def test_every_rule_says_why_and_every_line_is_readable(name: str) -> None:
    text = shipped.shipped_text(name)
    assert text.count("- id: ") == text.count("\n    because: ")
    assert max(map(len, text.split("\n"))) <= 125
    assert text.isascii()


def test_the_files_beside_the_project_are_the_ones_in_the_package() -> None:
    folder = Path(__file__).resolve().parents[2] / "policies"
    assert {p.name for p in folder.glob("*.yaml")} == {
        f"{n}{t}.yaml" for n in shipped.NAMES for t in ("", ".test")
    }
    for name in shipped.NAMES:
        assert (folder / f"{name}.yaml").read_text("utf-8") == shipped.shipped_text(name)


@pytest.mark.parametrize(
    ("setting", "path"),
    [("monitor", False), ("strict.yaml", True), ("./x", True), ("a.yml", True), ("x", False)],
)
def test_a_word_or_a_path(setting: str, path: bool) -> None:  # noqa: FBT001 - a table's column
    assert shipped.is_path(setting) is path


def test_an_unknown_word_is_told() -> None:
    with pytest.raises(
        PolicyError, match=r"policy: there is no policy `enforced` \(did you mean `enforce`\? A path has"
    ):
        shipped.shipped_text("enforced")
