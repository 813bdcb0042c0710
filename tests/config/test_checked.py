"""The settings without pydantic: the same names and values, whatever was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authmilter.config.checked import checked, note, pack, unpack
from authmilter.config.load import load, parse
from authmilter.config.model import Config
from authmilter.config.texts import recorder
from authmilter.errors import ConfigError
from tests.architecture.source import ROOT

_TEXTS = {
    "nothing": "",
    "some": "milter: {listen: [unix:/run/x, inet:8891@127.0.0.1], idle_timeout: 90, socket_mode: '0666'}\ndns: {timeout: 300ms}",
    "sections in lists": "trusted_hops: [{networks: [192.0.2.0/24, '2001:db8::/32']}, {networks: [10.0.0.1], daemon_names: [a, b]}]",
    "the shipped one": (ROOT / "contrib" / "authmilter.yaml").read_text("utf-8"),
}


def _values(section: Any) -> object:
    """Return a section of either kind as plain data, types and order included."""
    if isinstance(section, tuple):
        return tuple(map(_values, section))
    if section is None or isinstance(section, str | int | float):
        return (type(section), section)
    return {name: _values(value) for name, value in vars(section).items()}


@pytest.mark.parametrize("text", _TEXTS.values(), ids=_TEXTS)
def test_unpacked_settings_have_all_names_and_values_of_the_model(text: str) -> None:
    config = parse(text, "x.yaml")
    again = unpack(pack(config))
    assert _values(again) == _values(config)
    assert pack(again) == pack(config)


def test_unpacked_settings_are_compared_by_their_values_and_not_to_be_changed() -> None:
    one, same, other = (unpack(pack(parse(t, "x"))) for t in ("", "dns: {}", "dns: {timeout: 1}"))
    assert one == same
    assert one.dns == same.dns
    assert hash(one) == hash(same)
    assert one != other
    assert one.dns != other.dns
    assert one.milter == other.milter
    with pytest.raises(AttributeError, match="not changed"):
        one.dns.timeout = 3.0  # type: ignore[misc]  # what must be refused


def test_what_is_packed_names_the_settings_in_any_order_of_the_file() -> None:
    one = pack(parse("user: a\ngroup: b", "x"))
    assert one == pack(parse("group: b\nuser: a", "x"))
    assert one != pack(Config())


def test_a_checked_configuration_is_where_it_was_and_reads_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("user: somebody")
    (tmp_path / "list").write_text("old")
    texts: dict[str, str] = {}
    loaded = load(tmp_path / "c.yaml", read=recorder(texts))
    loaded.read(loaded.resolve("list"))
    note(texts, loaded)
    (tmp_path / "c.yaml").write_text("user: another")
    (tmp_path / "list").write_text("new")
    found = checked(texts)
    assert (found.config.user, found.path, found.base) == ("somebody", loaded.path, loaded.base)
    assert found.read(found.resolve("list")) == "old"
    with pytest.raises(ConfigError):
        found.read(found.base / "other")
