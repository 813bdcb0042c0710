"""`signing.rotation` in the configuration: what is taken, what is refused, and what names a state."""

from __future__ import annotations

from pathlib import Path

import pytest

from authmilter import runtime
from authmilter.config.load import Loaded, parse
from authmilter.config.texts import reader, recorder
from authmilter.dkim.crypto import KeyKind
from authmilter.errors import ConfigError
from authmilter.names import Address, Domain
from authmilter.signing.keys import PublicationState, write_key
from authmilter.signing.rotation import STATE_FILE, Disk, Rotation, Timing
from authmilter.signing.settings import SigningSettings
from tests.support.signing import SIGNED_AT, signing_key

ROTATION = (
    "signing:\n  rotation:\n    - {domains: [example.com, '*.example.com'], folder: keys, kinds: [ed25519]}\n"
)


def _loaded(base: Path, text: str = ROTATION) -> Loaded:
    return Loaded(config=parse(text, "test.yaml"), path=None, base=base)


def _settings(loaded: Loaded) -> SigningSettings:
    found = runtime.signing_settings(loaded)
    assert found is not None
    return found


def _selectors(settings: SigningSettings, author: str) -> list[str]:
    for table in settings.tables:
        match = table.find(Address.parse(author))
        if match is not None:
            return [entry.selector for entry in match.entries]
    return []


def _rotated(base: Path) -> Rotation:
    """A folder with an active key."""
    (base / "keys").mkdir(mode=0o700, exist_ok=True)
    rotation = Rotation(
        Disk(base / "keys"), kinds=(KeyKind.ED25519,), timing=Timing(propagation=0, grace=0, queue_life=0)
    )
    domain = Domain.parse("example.com")
    (made,) = rotation.begin(domain, SIGNED_AT)
    rotation.advance({(domain, made.selector): PublicationState.PUBLISHED}, SIGNED_AT)
    return rotation


def test_before_the_first_key_nothing_is_signed_and_the_administrator_is_told(tmp_path: Path) -> None:
    settings = _settings(_loaded(tmp_path))
    assert _selectors(settings, "a@example.com") == []
    assert [w for w in settings.warnings if "no key signs for example.com yet" in w]


def test_the_active_key_signs_for_the_patterns(tmp_path: Path) -> None:
    _rotated(tmp_path)
    settings = _settings(_loaded(tmp_path))
    assert settings.warnings == ()
    for author in ("a@example.com", "a@below.example.com"):
        assert _selectors(settings, author) == ["ed25519-20261122"]
    assert _selectors(settings, "a@example.net") == []


def test_a_line_of_its_own_decides_until_the_first_rotated_key_is_active(tmp_path: Path) -> None:
    write_key(tmp_path / "old.pem", signing_key())
    text = ROTATION + "  domains:\n    - {domain: example.com, selector: old, key: old.pem}\n"
    assert _selectors(_settings(_loaded(tmp_path, text)), "a@example.com") == ["old"]
    _rotated(tmp_path)
    assert _selectors(_settings(_loaded(tmp_path, text)), "a@example.com") == ["ed25519-20261122"]


def test_the_state_travels_with_the_texts_that_were_checked(tmp_path: Path) -> None:
    rotation = _rotated(tmp_path)
    texts: dict[str, str] = {}
    checked = Loaded(config=parse(ROTATION, "test.yaml"), path=None, base=tmp_path, read=recorder(texts))
    wanted = _settings(checked)
    assert list(texts) == [str(tmp_path / "keys" / STATE_FILE)]
    # the folder goes on; who builds from the texts does not
    rotation.begin(Domain.parse("example.com"), SIGNED_AT)
    rotation.advance(
        {(Domain.parse("example.com"), "ed25519-20261122-2"): PublicationState.PUBLISHED}, SIGNED_AT
    )
    later = Loaded(config=checked.config, path=None, base=tmp_path, read=reader(texts))
    assert _settings(later).identity == wanted.identity
    assert _selectors(_settings(later), "a@example.com") == ["ed25519-20261122"]
    now = _settings(_loaded(tmp_path))
    assert now.identity != wanted.identity
    assert _selectors(now, "a@example.com") == ["ed25519-20261122-2", "ed25519-20261122"]


def test_the_identity_names_the_keys_too(tmp_path: Path) -> None:
    text = "signing:\n  domains:\n    - {domain: example.com, selector: s1, key: k.pem}\n"
    found = set()
    for kind in (KeyKind.ED25519, KeyKind.RSA, KeyKind.ED25519):
        (tmp_path / "k.pem").unlink(missing_ok=True)
        write_key(tmp_path / "k.pem", signing_key(kind))
        found.add(_settings(_loaded(tmp_path, text)).identity)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("    - {domains: [a..b], folder: k}", "label"),
        ("    - {domains: [], folder: k}", "at least one"),
        ("    - {domains: [a.example], folder: k, selector: '{sort}'}", "expected a selector"),
        ("    - {domains: [a.example], folder: k, rsa_bits: 1024}", "2048"),
        ("    - {domains: [a.example], folder: k, kinds: [dsa]}", "rsa"),
        ("    - {domains: [a.example], folder: k, grace: soon}", "duration"),
        (
            "    - {domains: [a.example], folder: k}\n    - {domains: [b.example], folder: k}",
            "has the folder",
        ),
        (
            "    - {domains: [a.example], folder: k}\n    - {domains: ['*.a.example'], folder: l}",
            "has the domain a.example",
        ),
        (
            "    - {domains: [a.example], folder: k, selector: '" + "{date}" * 8 + "'}",
            "expected a selector",
        ),
        (
            "    - {domains: [" + f"{'d' * 60}." * 3 + "example], folder: k, selector: '" + "x" * 58 + "'}",
            r"signing.rotation\[0\]",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        runtime.signing_settings(_loaded(tmp_path, f"signing:\n  rotation:\n{text}\n"))


def test_a_damaged_state_or_a_lost_key_is_no_empty_one(tmp_path: Path) -> None:
    _rotated(tmp_path)
    key = next((tmp_path / "keys").glob("*.pem"))
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        runtime.signing_settings(_loaded(tmp_path))
    key.write_bytes(kept)
    key.chmod(0o600)
    (tmp_path / "keys" / STATE_FILE).write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        runtime.signing_settings(_loaded(tmp_path))


def test_one_selector_never_means_two_keys(tmp_path: Path) -> None:
    _rotated(tmp_path)
    write_key(tmp_path / "old.pem", signing_key())
    line = "  domains:\n    - {domain: example.com, selector: ed25519-20261122, key: old.pem}\n"
    with pytest.raises(ConfigError, match="another key"):
        runtime.signing_settings(_loaded(tmp_path, ROTATION + line))
