"""Every example of the manual is a test, and its table of facts is the schema's."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from authmilter.errors import PolicyError
from authmilter.policy import loader, reference, testing

MANUAL = (Path(__file__).resolve().parents[2] / "docs" / "policy-language.md").read_text("utf-8")
_BLOCK = re.compile(
    r"<!-- (policy|cases|list|rules|mistakes|warnings) ?(\S*) -->\n```(?:yaml|text)\n(.*?)```(?:\n\n```text\n(.*?)```)?",
    re.DOTALL,
)
BLOCKS = [m.groups(default="") for m in _BLOCK.finditer(MANUAL)]


def of_kind(kind: str) -> dict[str, tuple[str, str]]:
    return {name or str(i): (text, after) for i, (k, name, text, after) in enumerate(BLOCKS) if k == kind}


LISTS = {name: text for name, (text, _) in of_kind("list").items()}


def test_every_block_of_yaml_is_an_example_that_runs() -> None:
    assert len(BLOCKS) == MANUAL.count("```yaml") + len(LISTS) == 24
    assert set(of_kind("cases")) == set(of_kind("policy"))


@pytest.mark.parametrize("name", of_kind("policy"))
def test_a_policy_of_the_manual_loads_without_a_warning_and_its_cases_hold(name: str) -> None:
    policy = loader.load(of_kind("policy")[name][0], f"{name}.yaml", read_list=LISTS.__getitem__)
    assert policy.warnings == ()
    outcomes = testing.run(policy, of_kind("cases")[name][0], f"{name}.test.yaml")
    assert [(o.name, o.problem) for o in outcomes if o.problem] == []
    assert testing.uncovered(policy, outcomes) == ()


def test_lone_rules_of_the_manual_load() -> None:
    for text, _ in of_kind("rules").values():
        assert loader.load("default: accept\nrules:\n" + textwrap.indent(text, "  "), "r.yaml").warnings == ()


def test_the_mistakes_of_the_manual_are_told_as_it_says() -> None:
    for text, told in of_kind("mistakes").values():
        with pytest.raises(PolicyError) as caught:
            loader.load(text, "policy.yaml")
        assert "\n".join(str(c) for c in caught.value.complaints) + "\n" == told


def test_the_warnings_of_the_manual_are_given_as_it_says() -> None:
    for text, told in of_kind("warnings").values():
        assert "".join(f"{w}\n" for w in loader.load(text, "policy.yaml").warnings) == told


def test_the_table_of_facts_is_as_the_schema_has_it() -> None:
    assert reference.updated(MANUAL) == MANUAL
    with pytest.raises(ValueError, match="no place"):
        reference.updated("")
