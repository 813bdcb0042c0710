"""What `bimi` in the configuration may say, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from authmilter.bimi.settings import MARK_TYPES, BimiSettings, EvidenceSettings
from authmilter.config.load import Loaded, parse, warnings
from authmilter.config.model import BimiConfig
from authmilter.errors import ConfigError
from authmilter.runtime import bimi_settings, evidence_settings
from tests.support.road import a_runtime


def test_it_is_off_until_it_is_switched_on() -> None:
    assert a_runtime("", {}).checks.bimi is None
    assert a_runtime("bimi: {enabled: true}", {}).checks.bimi == BimiSettings()


def test_the_defaults_of_the_configuration_are_those_of_the_parts() -> None:
    config = BimiConfig()
    assert config.mark_types == MARK_TYPES
    assert bimi_settings(parse("bimi: {enabled: true}", "f.yaml")) == BimiSettings()
    loaded = Loaded(config=parse("", "f.yaml"), path=None, base=Path("/etc/authmilter"))
    assert evidence_settings(loaded) == EvidenceSettings()


def test_every_choice_arrives() -> None:
    text = """\
bimi:
  enabled: true
  require_evidence: false
  require_dkim: false
  selectors: false
  mark_types: [Registered Mark]
  trust_roots: [roots.pem, /srv/more.pem]
  write_indicator: false
  cache_folder: /var/cache/authmilter
  cache_ttl: 2h
  fetch_timeout: 3s
  max_svg: 16K
  max_certificate: 64K
  crl: false
"""
    config = parse(text, "f.yaml")
    assert bimi_settings(config) == BimiSettings(
        require_evidence=False, require_dkim=False, selectors=False, mark_types=frozenset({"Registered Mark"})
    )
    assert a_runtime("bimi: {write_indicator: false}", {}).headers.bimi_indicator is False
    loaded = Loaded(config=config, path=None, base=Path("/etc/authmilter"))
    assert evidence_settings(loaded) == EvidenceSettings(
        trust_roots=("/etc/authmilter/roots.pem", "/srv/more.pem"),
        cache_folder="/var/cache/authmilter",
        cache_ttl=7200.0,
        fetch_timeout=3.0,
        max_svg=16 << 10,
        max_certificate=64 << 10,
        crl=False,
    )


MISTAKES = [
    ("mark_types: []", "`bimi.mark_types`"),
    ("mark_types: [registered]", "`bimi.mark_types[0]`"),
    ("cache_folder: cache", "`bimi.cache_folder`: expected an absolute path"),
    ("cache_ttl: 1s", "`bimi.cache_ttl`: expected a duration from"),
    ("fetch_timeout: 0s", "`bimi.fetch_timeout`: expected a duration from"),
    ("max_svg: 1", "`bimi.max_svg`: expected a size from 1K to 1M"),
    ("max_certificate: 1G", "`bimi.max_certificate`: expected a size from 1K to 4M"),
]


@pytest.mark.parametrize(("line", "wanted"), MISTAKES)
def test_a_mistake_is_told(line: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"bimi:\n  {line}\n", "f.yaml")
    assert wanted in str(caught.value)


def test_logos_without_roots_surprise() -> None:
    assert any("bimi.trust_roots" in w for w in warnings(parse("bimi: {enabled: true}", "f.yaml")))
    assert not warnings(parse("bimi: {enabled: true, trust_roots: [r.pem]}", "f.yaml"))
