"""The sample configuration says what is true, and the JSON Schema takes what the loader takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authmilter import documents
from authmilter.config.load import json_schema, load, parse
from authmilter.config.model import Config
from authmilter.errors import ConfigError
from tests.config.schema_check import faults

SAMPLE = Path(__file__).resolve().parents[2] / "contrib" / "authmilter.yaml"


def _leaves(data: object, path: str = "") -> Iterator[str]:
    if isinstance(data, dict) and data:
        for name, inner in data.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path


def _examples() -> list[tuple[str, str]]:
    """Return each block of `#>` lines as a document of its own, in the section it stands in."""
    found: list[tuple[str, str]] = []
    section, block = "", ""
    for line in [*SAMPLE.read_text("utf-8").splitlines(), ""]:
        example = re.fullmatch(r"( *)#> ?(.*)", line)
        if example is not None:
            block += f"{example[1]}{example[2]}\n"
            continue
        if block:
            found.append(
                (block.split(":")[0].strip(), (f"{section}:\n" if block.startswith(" ") else "") + block)
            )
            block = ""
        if re.match(r"[a-z]", line):
            section = line.partition(":")[0]
    return found


def test_the_sample_is_exactly_the_defaults() -> None:
    assert load(SAMPLE).config == Config()


def test_the_sample_names_every_setting() -> None:
    written = documents.parse(SAMPLE.read_text("utf-8"), "sample").data
    assert sorted(_leaves(written)) == sorted(_leaves(Config().as_document()))


def test_the_sample_explains_every_setting() -> None:
    lines = SAMPLE.read_text("utf-8").splitlines()
    # A group of settings may share the comment above it; a line between groups is empty.
    bare = [
        line
        for number, line in enumerate(lines)
        if re.match(r" *[a-z_]+: ", line) and not _is_explained(lines, number)
    ]
    assert bare == []


def _is_explained(lines: list[str], number: int) -> bool:
    for line in reversed(lines[:number]):
        if line.lstrip().startswith("#"):
            return True
        if not line.strip():
            return False
    return False


def test_the_sample_has_examples() -> None:
    assert len(_examples()) == 17


@pytest.mark.parametrize(("name", "text"), _examples(), ids=[name for name, _ in _examples()])
def test_an_example_of_the_sample_is_right_and_changes_something(name: str, text: str) -> None:
    assert parse(text, name) != Config()
    assert faults(documents.parse(text, name).data, json_schema()) == []


# -- the JSON Schema ------------------------------------------------------------------------------------------------


def test_the_schema_takes_the_sample_and_what_show_prints() -> None:
    schema = json_schema()
    assert faults(documents.parse(SAMPLE.read_text("utf-8"), "sample").data, schema) == []
    assert faults(Config().as_document(), schema) == []
    assert faults({}, schema) == []
    assert faults({"milter": None, "dns": None}, schema) == []


@pytest.mark.parametrize(
    "text",
    [
        "milterr: {}",
        "milter: {engine: nativ}",
        "milter: {workers: 0}",
        "milter: {listen: []}",
        "milter: {listen: unix:/a}",
        "milter: {drain: soon}",
        "milter: {socket_mode: '0999'}",
        "dns: {cache_size: 1.5M}",
        "trusted_hops: [{daemon_names: [x]}]",
        "trusted_hops: [{networks: []}]",
        "headers: {comments: 5}",
        "log: {format: xml}",
        "policy: 5",
        "spf: {void_limit: 11}",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text, "f")
    assert faults(documents.parse(text, "f").data, json_schema()) != []


def _objects(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for inner in schema.values():
            yield from _objects(inner)


def test_the_schema_describes_every_setting_and_gives_its_default_as_one_writes_it() -> None:
    schema = json_schema()
    for part in _objects(schema):
        assert part["additionalProperties"] is False
        if part is schema:
            continue
        for name, entry in part["properties"].items():
            assert entry.get("description"), name
            if "default" in entry:
                assert faults(entry["default"], entry, schema) == [], name
    assert schema["$defs"]["MilterConfig"]["properties"]["socket_mode"]["default"] == "0660"
    assert schema["$defs"]["MilterConfig"]["properties"]["idle_timeout"]["default"] == "2h"
