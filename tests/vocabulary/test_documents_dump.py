"""What we write as YAML, we read back as it was."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter import documents

# What the reader takes for numbers; characters that YAML can write at all.
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.integers(-(10**9), 10**9).map(lambda n: n / 1024)
    | _TEXT
    | st.sampled_from(
        ["yes", "0660", "1:30", "<<", "=", "~", "null", "", "on", "2026-11-22", "1_000", "! x", "- a", ".5"]
    )
)
_DATA = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(_DATA)
def test_what_is_written_is_read_back(data: documents.Data) -> None:
    assert documents.parse(documents.dump(data), "f.yaml").data == data


def test_keys_keep_their_order_and_shared_values_are_written_twice() -> None:
    shared: documents.Data = ["x"]
    assert documents.dump({"b": shared, "a": shared}) == "b:\n- x\na:\n- x\n"


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "off", "0660", "1:30", "true", "null", "~", "12", "2026-11-22"]
)
def test_a_text_stays_a_text(word: str) -> None:
    assert documents.parse(documents.dump({"a": word}), "f.yaml").data == {"a": word}


@pytest.mark.parametrize("text", ["\x85", "a\x85b", "\u2028", "a \u2029 b", "\xa0", "a\nb\x85"])
def test_line_ends_of_other_kinds_survive(text: str) -> None:
    assert documents.parse(documents.dump({"a": {"b": text}}), "f").data == {"a": {"b": text}}
