"""What goes wrong around a rotation: a state edited by hand, a full disk, links laid for root, clocks, odd templates."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from authmilter.dkim.crypto import KeyKind
from authmilter.errors import InvalidName, StoreError
from authmilter.names import Domain
from authmilter.signing.keys import KeySource, PublicationState, load, read_key, write_key
from authmilter.signing.rotation import (
    STATE_FILE,
    Disk,
    KeyState,
    RotatedKey,
    Rotation,
    RotationSettings,
    RotationState,
    Timing,
    advance,
    begin,
    dump,
    parse,
    signer_lines,
)
from authmilter.signing.table import DomainTable
from tests.support.signing import signing_key

A = Domain.parse("example.com")
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEYS = (RotatedKey(kind=KeyKind.ED25519, selector="s1", file="s1.pem"),)
TEXT = dump(begin(RotationState(), A, KEYS, 5)).decode()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"since": 5', '"since": 1e999', "`generations[0].since` is not a whole number"),
        ('"since": 5', '"since": NaN', "`generations[0].since` is not a whole number"),
        ('"since": 5', '"since": null', "`generations[0].since` is no time"),
        ('"since": 5', '"since": -1', "`generations[0].since` is no time"),
        ('"since": 5', f'"since": {10**30}', "`generations[0].since` is no time"),
        ('"since": 5', f'"since": {"9" * 5000}', "no JSON"),
        ('"since": 5', '"since": true', "`generations[0].since` is not a whole number"),
        ('"seen"', '"saw"', "`generations[0].seen` is missing"),
        ('"pending"', '"waiting"', "`generations[0].state` is none of pending, active, retiring, retired"),
        ("example.com", "a..b", "`generations[0].domain` is no domain"),
        ("ed25519", "dsa", "`generations[0].keys[0].kind` is none of rsa, ed25519"),
        ('"s1"', '"s 1"', "`generations[0].keys[0].selector` is no selector"),
        ('"s1"', "7", "`generations[0].keys[0].selector` is not a text"),
        ("s1.pem", "../s1.pem", "`generations[0].keys[0].file` is no file's name"),
        ("s1.pem", "..", "`generations[0].keys[0].file` is no file's name"),
        ('"taken": true', '"taken": 1', "`taken` is not true or false"),
        ('"version": 1', '"version": 2', "by another version"),
        ('"pending",', '"pending"', "/keys/rotation.json:8:4"),
        (TEXT, "", "/keys/rotation.json:1:1"),
        (TEXT, "\ufeff{}", "rotation.json"),
    ],
)
def test_a_state_that_was_edited_by_hand_is_refused_and_the_place_is_told(
    old: str, new: str, words: str
) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(StoreError) as told:
        parse(TEXT.replace(old, new), "/keys/rotation.json")
    assert words in str(told.value)
    assert str(told.value).startswith("/keys/rotation.json")


def test_a_selector_never_stands_twice_in_a_state() -> None:
    document = json.loads(TEXT)
    document["generations"].append({**document["generations"][0], "state": "active"})
    with pytest.raises(StoreError, match=r"`generations\[1\]\.keys\[0\]\.selector` stands twice"):
        parse(json.dumps(document))


@pytest.mark.parametrize("template", ["x" * 63, "a." + "y" * 63, "x" * 60])
def test_a_second_selector_of_a_long_template_is_a_selector(tmp_path: Path, template: str) -> None:
    rotation = Rotation(Disk(tmp_path), template=template, kinds=(KeyKind.ED25519, KeyKind.ED25519))
    first, second = rotation.begin(A, START)
    assert first.selector == template
    assert second.selector.endswith("-2")
    assert rotation.state().generations[0].keys == (first, second)


@pytest.mark.parametrize(
    ("template", "domain"),
    [
        ("{date}" * 8, "example.com"),
        ("{foo}", "example.com"),
        ("x" * 58, ".".join(["d" * 60] * 3) + ".example"),
    ],
)
def test_a_template_that_gives_no_name_in_the_dns_is_refused_before_any_key_is_made(
    tmp_path: Path, template: str, domain: str
) -> None:
    with pytest.raises(InvalidName):
        RotationSettings(folder=tmp_path, patterns=(domain,), template=template)
    with pytest.raises(InvalidName):
        Rotation(Disk(tmp_path), template=template, kinds=(KeyKind.ED25519,)).begin(
            Domain.parse(domain), START
        )
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_runs_back_and_a_zone_that_flaps_only_delay() -> None:
    timing = Timing(propagation=100, grace=50, queue_life=70)
    shown = {(A, "s1"): PublicationState.PUBLISHED}
    state = advance(begin(RotationState(), A, KEYS, 1000), shown, 1000, timing)
    for now in (900, 0, 1099):
        assert advance(state, shown, now, timing) == state
    for trouble in (PublicationState.MISSING, PublicationState.OTHER_KEY, PublicationState.REVOKED):
        flapped = advance(state, {(A, "s1"): trouble}, 1099, timing)
        assert flapped.generations[0].seen is None
        again = advance(flapped, shown, 1100, timing)
        assert advance(again, shown, 1199, timing).generations[0].state is KeyState.PENDING
        assert advance(again, shown, 1200, timing).generations[0].state is KeyState.ACTIVE
    unknown = {(A, "s1"): PublicationState.UNKNOWN}
    assert advance(state, unknown, 5000, timing) == state
    assert advance(state, shown, 1100, timing).generations[0].state is KeyState.ACTIVE


_FULL = """
import resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from authmilter.dkim.crypto import KeyKind
from authmilter.errors import AuthMilterError
from authmilter.names import Domain
from authmilter.signing.rotation import Disk, Rotation
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
disk = Disk(Path(sys.argv[1]))
try:
    with disk.locked():
        Rotation(disk, kinds=(KeyKind.ED25519,)).begin(Domain.parse("example.net"), datetime.now(UTC))
except AuthMilterError as e:
    print(e)
    sys.exit(3)
"""


@pytest.mark.parametrize("octets", [0, 40, 150])
def test_a_disk_that_is_full_costs_no_key_and_no_state(tmp_path: Path, octets: int) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    rotation = Rotation(Disk(tmp_path), kinds=(KeyKind.ED25519,))
    rotation.begin(A, START)
    kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    run = [sys.executable, "-c", _FULL, str(tmp_path), str(octets)]
    ran = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (ran.returncode, "cannot be written: File too large" in ran.stdout) == (3, True), ran
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    made = rotation.begin(Domain.parse("example.net"), START)
    assert load([KeySource(path=str(tmp_path / made[0].file))]).problems == ()
    assert [g.domain.ascii for g in rotation.state().generations] == ["example.com", "example.net"]


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.write_text("a file")
    with pytest.raises(StoreError, match="Not a directory"), Disk(folder).locked():
        pytest.fail("this is no folder")
    with pytest.raises(StoreError, match="Not a directory"):
        Disk(folder).write("x", b"")


@pytest.mark.parametrize("name", ["rotation.json.next", "rotation.lock"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_that_the_service_lays_for_root_are_not_followed(
    tmp_path: Path, name: str, link: object
) -> None:
    folder, precious = tmp_path / "keys", tmp_path / "precious"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    precious.write_text("precious")
    before = precious.stat()
    assert callable(link)
    link(precious, folder / name)
    rotation = Rotation(Disk(folder), kinds=(KeyKind.ED25519,))
    try:
        with Disk(folder).locked():
            rotation.begin(A, START)
    except StoreError as e:
        assert name == "rotation.lock", e  # noqa: PT017 - the other name must not raise
    after = precious.stat()
    assert precious.read_text() == "precious"
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_a_link_in_a_folder_where_anybody_may_swap_it_is_not_safe(tmp_path: Path) -> None:
    kept, open_ = tmp_path / "kept", tmp_path / "open"
    kept.mkdir(mode=0o700)
    open_.mkdir()
    write_key(kept / "k.pem", signing_key())
    (open_ / "link").symlink_to(kept / "k.pem")
    assert read_key(open_ / "link")[1] == ""
    open_.chmod(0o777)
    assert "another file in its place" in read_key(open_ / "link")[1]


def test_two_hosts_that_read_one_state_sign_alike(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    rotation = Rotation(Disk(here), kinds=(KeyKind.ED25519,), timing=Timing(propagation=0))
    (key,) = rotation.begin(A, START)
    rotation.advance({(A, key.selector): PublicationState.PUBLISHED}, START)
    # a host that has the keys copied, and one that was not told yet
    there.mkdir()
    for name in (key.file, STATE_FILE):
        (there / name).write_bytes((here / name).read_bytes())
        (there / name).chmod(0o600)
    found = []
    for folder in (here, there):
        lines = signer_lines(Rotation(Disk(folder)).state(), [A.ascii], folder=folder)
        table = DomainTable.of(lines, load(line.key for line in lines))
        found.append([(e.question.name, e.key.public) for _, e in table.listed])
    assert found[0] == found[1]
    assert len(found[0]) == 1
