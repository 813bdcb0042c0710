"""The life of a key: each transition, and a stop at every step of every one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dkim.crypto import KeyKind, load_signing_key
from authmilter.errors import KeyMaterialError, StoreError
from authmilter.names import Domain
from authmilter.signing.keys import FileAccess, KeySource, PublicationState, load
from authmilter.signing.rotation import (
    MAX_STATE_OCTETS,
    STATE_FILE,
    Disk,
    Generation,
    KeyState,
    RotatedKey,
    Rotation,
    RotationSettings,
    RotationState,
    Timing,
    advance,
    begin,
    confirm,
    due,
    dump,
    parse,
    signer_lines,
)
from authmilter.signing.table import DomainTable

A, B = Domain.parse("example.com"), Domain.parse("example.net")
START = datetime(2026, 11, 22, tzinfo=UTC)
TIMING = Timing(propagation=0, grace=100, queue_life=1000)
PUBLISHED = PublicationState.PUBLISHED


def a_key(selector: str) -> RotatedKey:
    return RotatedKey(kind=KeyKind.ED25519, selector=selector, file=f"{selector}.pem")


def states(state: RotationState, domain: Domain = A) -> list[str]:
    return [g.state.value for g in state.generations if g.domain == domain]


def signing(state: RotationState) -> list[str]:
    return [line.selector for line in signer_lines(state, [A.ascii, B.ascii], folder=Path("f"))]


def test_a_generation_goes_from_pending_to_retired() -> None:
    one = begin(RotationState(), A, [a_key("r1"), a_key("e1")], 0)
    assert (states(one), signing(one)) == (["pending"], [])
    half: dict[tuple[Domain, str], PublicationState] = {(A, "r1"): PUBLISHED}
    for seen in ({}, half, {**half, (A, "e1"): PublicationState.UNKNOWN}, {**half, (B, "e1"): PUBLISHED}):
        assert advance(one, seen, 10**9, TIMING) == one
    both = {**half, (A, "e1"): PUBLISHED}
    active = advance(one, both, 10, TIMING)
    assert (states(active), signing(active), active.taken) == (["active"], ["r1", "e1"], False)
    active = confirm(active, 11)
    assert active.taken
    two = begin(active, A, [a_key("r2")], 20)
    assert (signing(two), two.taken) == (["r1", "e1"], True)
    assert advance(two, both, 10**9, TIMING) == two  # only the old one is published
    swapped = advance(two, {(A, "r2"): PUBLISHED}, 30, TIMING)
    assert states(swapped) == ["retiring", "active"]
    assert signing(swapped) == ["r2", "r1", "e1"]
    assert advance(confirm(swapped, 40), both, 129, TIMING) == confirm(swapped, 40)
    stopped = advance(confirm(swapped, 40), both, 130, TIMING)
    assert (states(stopped), signing(stopped), stopped.taken) == (["retiring", "active"], ["r2"], False)
    # no service is known to have read that: however long it takes, the records stay
    assert advance(stopped, {}, 10**9, TIMING) == stopped
    quiet = confirm(stopped, 200)
    assert confirm(quiet, 300) == quiet
    assert advance(quiet, {}, 1199, TIMING) == quiet
    retired = advance(quiet, {}, 1200, TIMING)
    assert (states(retired), retired.taken) == (["retired", "active"], True)
    assert advance(retired, both, 10**9, TIMING) == retired
    # a clock that runs back only delays
    for state in (swapped, quiet):
        assert advance(state, {}, -(10**6), TIMING) == state


def test_a_new_key_is_used_once_the_dns_has_shown_it_for_long_enough() -> None:
    timing = Timing(propagation=50, grace=0, queue_life=0)
    one = begin(RotationState(), A, [a_key("r1")], 0)
    shown: dict[tuple[Domain, str], PublicationState] = {(A, "r1"): PUBLISHED}
    seen = advance(one, shown, 100, timing)
    assert (states(seen), seen.generations[0].seen, seen.taken) == (["pending"], 100, True)
    assert advance(seen, shown, 149, timing) == seen
    # nobody knows: no step, and no new wait either
    assert advance(seen, {}, 200, timing) == seen
    assert advance(seen, {(A, "r1"): PublicationState.UNKNOWN}, 200, timing) == seen
    for gone in (PublicationState.MISSING, PublicationState.OTHER_KEY, PublicationState.REVOKED):
        assert advance(seen, {(A, "r1"): gone}, 200, timing) == one
    assert states(advance(seen, shown, 150, timing)) == ["active"]


def test_a_record_that_is_emptied_early_ends_the_grace_time() -> None:
    state = advance(
        begin(RotationState(), A, [a_key("r1"), a_key("e1")], 0),
        {(A, "r1"): PUBLISHED, (A, "e1"): PUBLISHED},
        1,
        TIMING,
    )
    state = advance(begin(state, A, [a_key("r2")], 2), {(A, "r2"): PUBLISHED}, 3, TIMING)
    assert signing(state) == ["r2", "r1", "e1"]
    assert advance(state, {(A, "r1"): PublicationState.UNKNOWN}, 4, TIMING) == state
    stopped = advance(state, {(A, "r1"): PUBLISHED, (A, "e1"): PublicationState.REVOKED}, 4, TIMING)
    assert signing(stopped) == ["r2"]
    # the only one goes on: unsigned mail is no better
    alone = advance(begin(RotationState(), A, [a_key("r1")], 0), {(A, "r1"): PUBLISHED}, 1, TIMING)
    assert signing(advance(alone, {(A, "r1"): PublicationState.REVOKED}, 2, TIMING)) == ["r1"]


def test_old_keys_are_due_to_be_replaced() -> None:
    settings_ = RotationSettings(
        folder=Path(), patterns=(A.ascii, f"*.{A.ascii}", f"*.{B.ascii}"), every=1000
    )
    assert settings_.domains == (A, B)
    one = begin(RotationState(), A, [a_key("r1")], 0)
    assert due(RotationState(), settings_, 0) == (A, B)
    assert due(one, settings_, 10**9) == (B,)
    active = advance(one, {(A, "r1"): PUBLISHED}, 10, TIMING)
    assert (due(active, settings_, 1009), due(active, settings_, 1010)) == ((B,), (A, B))
    assert due(active, replace(settings_, every=None), 10**9) == (B,)


def test_a_pattern_below_a_domain_signs_with_the_domain() -> None:
    state = advance(begin(RotationState(), A, [a_key("r1")], 0), {(A, "r1"): PUBLISHED}, 1, TIMING)
    lines = signer_lines(state, ["*.example.com", "other.example"], folder=Path("f"))
    assert [(line.pattern, line.selector, line.domain, line.key.path) for line in lines] == [
        ("*.example.com", "r1", None, "f/r1.pem")
    ]


def test_what_is_not_a_step_is_refused() -> None:
    one = begin(RotationState(), A, [a_key("s1")], 0)
    begin(one, B, [a_key("s1")], 0)
    active = advance(one, {(A, "s1"): PUBLISHED}, 1, TIMING)
    for state, keys in (
        (one, [a_key("s2")]),
        (active, []),
        (active, [a_key("s1")]),
        (active, [a_key("s2")] * 2),
    ):
        with pytest.raises(StoreError):
            begin(state, A, keys, 2)


def test_the_state_is_read_as_it_was_written() -> None:
    state = begin(begin(RotationState(), A, [a_key("s1")], 5), B, [a_key("s1"), a_key("s2")], 7)
    assert parse(dump(state)) == state
    full = advance(advance(state, {}, 8, TIMING), {(A, "s1"): PUBLISHED}, 8, TIMING)
    full = advance(begin(full, A, [a_key("s3")], 9), {(A, "s3"): PUBLISHED}, 9, TIMING)
    full = confirm(advance(full, {}, 10**6, TIMING), 10**6)
    assert any(g.quiet for g in full.generations)
    assert parse(dump(full).decode()) == full
    good = json.loads(dump(state))
    for wrong in (
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        dump(state)[:-9],
        json.dumps({**good, "version": 2}).encode(),
        dump(state).replace(b"pending", b"waiting"),
        dump(state).replace(b"s1.pem", b"../s1.pem"),
        dump(state).replace(b'"s1"', b'"s 1"'),
        dump(state).replace(b"ed25519", b"dsa"),
        dump(state).replace(b"example.com", b"a..b"),
        dump(state).replace(b'"seen": null', b'"seen": "x"'),
        dump(state).replace(b'"quiet": null', b'"quiet": true'),
    ):
        with pytest.raises(StoreError):
            parse(wrong)


# ----- a stop at every step -------------------------------------------------------------------------------------


class Stopped(BaseException):
    """The machine went out."""


class Memory:
    """A folder that is stopped at one of its steps: before it, or (of writing) half way."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.left: int | None = None
        self.half = False

    def _step(self, name: str = "", data: bytes = b"") -> None:
        if self.left is not None:
            if self.left == 0:
                self.left = None
                if name and self.half:
                    self.files[name] = data[: len(data) // 2]
                raise Stopped
            self.left -= 1

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def create(self, name: str, data: bytes) -> bool:
        if name in self.files:
            return False
        self._step(name, data)
        self.files[name] = data
        return True

    def write(self, name: str, data: bytes) -> None:
        assert not name.endswith(".pem"), "a key is never written over"
        self._step(name, data)
        self.files[name] = data

    def rename(self, old: str, new: str) -> None:
        assert not new.endswith(".pem")
        self._step()
        self.files[new] = self.files.pop(old)


def a_rotation(files: Memory) -> Rotation:
    return Rotation(files, timing=TIMING, template="{date}", kinds=(KeyKind.ED25519, KeyKind.ED25519))


actions = st.lists(
    st.tuples(
        st.sampled_from(["begin", "publish", "wait", "advance", "advance", "confirm"]),
        st.sampled_from([A, B]),
        st.one_of(st.none(), st.integers(0, 5)),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=250, deadline=None)
@given(actions)
def test_a_stop_at_any_step_loses_no_key(
    steps: list[tuple[str, Domain, int | None, bool]],
) -> None:
    files, now = Memory(), START
    published: dict[tuple[Domain, str], PublicationState] = {}
    publics: dict[tuple[Domain, str], bytes] = {}
    had_active: set[Domain] = set()
    for what, domain, stop, half in steps:
        rotation = a_rotation(files)  # a new process each time
        files.left, files.half = stop, half
        now += timedelta(seconds=600 if what == "wait" else 1)
        try:
            if what == "begin":
                rotation.begin(domain, now)
            elif what == "publish":
                for g in rotation.state().of(domain, KeyState.PENDING):
                    published |= {(domain, k.selector): PUBLISHED for k in g.keys}
            elif what == "advance":
                rotation.advance(published, now)
            elif what == "confirm":
                rotation.confirm(now)
        except (Stopped, StoreError):
            pass
        files.left = None
        state = a_rotation(files).state()
        for g in state.generations:
            for key in g.keys:
                # every key that the state names is there, whole, and the one its selector has always meant
                public = load_signing_key(files.files[key.file]).public
                assert publics.setdefault((g.domain, key.selector), public) == public
                if g.state is not KeyState.PENDING:
                    assert published[g.domain, key.selector] is PUBLISHED
            if g.state is KeyState.ACTIVE:
                had_active.add(g.domain)
        for domain_ in had_active:
            assert len(state.of(domain_, KeyState.ACTIVE)) == 1
            assert len(state.of(domain_, KeyState.PENDING)) <= 1


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("stop", range(8))
def test_a_stopped_rotation_is_finished_by_the_next(stop: int, half: bool) -> None:  # noqa: FBT001 - a parameter
    files = Memory()
    files.left, files.half = stop, half
    seen: dict[tuple[Domain, str], PublicationState] = {}
    for _ in range(3):
        try:
            rotation = a_rotation(files)
            if not rotation.state().generations:
                rotation.begin(A, START)
            seen = {(A, k.selector): PUBLISHED for g in rotation.state().generations for k in g.keys}
            rotation.advance(seen, START)
        except Stopped:
            continue
    assert states(a_rotation(files).state()) == ["active"]


# ----- on a real disk -------------------------------------------------------------------------------------------


def test_a_rotation_on_the_disk_gives_a_table_that_signs(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    rotation = Rotation(disk, timing=TIMING, rsa_bits=1024)
    with disk.locked():
        first = rotation.begin(A, START)
        with pytest.raises(StoreError, match="pending generation already"):
            rotation.begin(A, START)
    assert [k.selector for k in first] == ["rsa-20261122", "ed25519-20261122"]
    rotation.advance({(A, k.selector): PUBLISHED for k in first}, START)
    second = rotation.begin(A, START)
    assert [k.selector for k in second] == ["rsa-20261122-2", "ed25519-20261122-2"]
    before, after = rotation.advance({(A, k.selector): PUBLISHED for k in second}, START)
    assert (states(before), states(after)) == (["active", "pending"], ["retiring", "active"])
    assert not rotation.state().taken
    assert rotation.confirm(START) == rotation.state()
    assert rotation.state().taken
    lines = signer_lines(rotation.state(), [A.ascii], folder=tmp_path)
    ring = load(line.key for line in lines)
    assert ring.problems == ()
    table = DomainTable.of(lines, ring)
    assert [entry.selector for _, entry in table.listed] == [k.selector for k in (*second, *first)]
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}
    assert not list(tmp_path.glob("*.next"))


def test_trouble_with_the_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(b"damaged")
    rotation = Rotation(Disk(tmp_path), kinds=(KeyKind.ED25519,))
    with pytest.raises(StoreError, match="damaged"):
        rotation.state()
    with pytest.raises(StoreError):
        rotation.begin(A, START)
    assert [p.name for p in tmp_path.iterdir()] == [STATE_FILE]
    gone = Rotation(Disk(tmp_path / "gone"), kinds=(KeyKind.ED25519,))
    assert gone.state() == RotationState()
    with pytest.raises(KeyMaterialError, match="cannot be written"):
        gone.begin(A, START)
    with pytest.raises(StoreError), Disk(tmp_path / "gone").locked():
        pytest.fail("there is no such folder")


def test_selectors_run_out_in_words() -> None:
    files = Memory()
    rotation = Rotation(files, template="one", kinds=(KeyKind.ED25519,))
    files.files = {f"example.com.one{n}.pem": b"" for n in ["", *(f"-{i}" for i in range(2, 101))]}
    with pytest.raises(KeyMaterialError, match="100 selectors"):
        rotation.begin(A, START)


def test_a_state_that_no_service_would_read_is_not_written() -> None:
    files = Memory()
    state = RotationState(
        generations=tuple(
            Generation(
                domain=Domain.parse(f"d{n}.example"), keys=(a_key("s1"),), state=KeyState.ACTIVE, since=0
            )
            for n in range(6000)
        )
    )
    files.files[STATE_FILE] = dump(state)
    assert len(dump(state)) > MAX_STATE_OCTETS
    with pytest.raises(StoreError, match="divide the domains"):
        a_rotation(files).begin(A, START)
    assert files.files[STATE_FILE] == dump(state)


def test_what_root_writes_the_service_can_read(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        assert FileAccess.like(tmp_path) is None
        return
    for owner, group, expected in (
        (65534, 65534, (65534, 65534, 0o600)),
        (0, 65534, (0, 65534, 0o640)),
        (0, 0, (0, 0, 0o600)),
    ):
        folder = tmp_path / f"{owner}-{group}"
        folder.mkdir(mode=0o750)
        os.chown(folder, owner, group)
        disk = Disk(folder)
        with disk.locked():
            Rotation(disk, kinds=(KeyKind.ED25519,)).begin(A, START)
        for file in folder.iterdir():
            status = file.stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == expected, file
        assert len(list(folder.iterdir())) == 3
        assert load([KeySource(path=str(next(folder.glob("*.pem"))))]).problems == ()
