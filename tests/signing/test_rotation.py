"""The life of a key: each transition, and a stop at every step of every one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dkim.crypto import KeyKind, load_signing_key
from authmilter.errors import KeyMaterialError, StoreError
from authmilter.names import Domain
from authmilter.signing.keys import PublicationState, load
from authmilter.signing.rotation import (
    STATE_FILE,
    Disk,
    KeyState,
    RotatedKey,
    Rotation,
    RotationState,
    Timing,
    advance,
    begin,
    dump,
    parse,
    signer_lines,
)
from authmilter.signing.table import DomainTable

A, B = Domain.parse("example.com"), Domain.parse("example.net")
START = datetime(2026, 11, 22, tzinfo=UTC)
TIMING = Timing(grace=100, queue_life=1000)
PUBLISHED = PublicationState.PUBLISHED


def a_key(selector: str) -> RotatedKey:
    return RotatedKey(kind=KeyKind.ED25519, selector=selector, file=f"{selector}.pem")


def states(state: RotationState, domain: Domain = A) -> list[str]:
    return [g.state.value for g in state.generations if g.domain == domain]


def signing(state: RotationState, now: int) -> list[str]:
    return [line.selector for line in signer_lines(state, now, TIMING, folder=Path("f"))]


def test_a_generation_goes_from_pending_to_retired() -> None:
    one = begin(RotationState(), A, [a_key("r1"), a_key("e1")], 0)
    assert (states(one), signing(one, 0)) == (["pending"], [])
    half: dict[tuple[Domain, str], PublicationState] = {(A, "r1"): PUBLISHED}
    for seen in ({}, half, {**half, (A, "e1"): PublicationState.UNKNOWN}, {**half, (B, "e1"): PUBLISHED}):
        assert advance(one, seen, 10**9, TIMING) == one
    both = {**half, (A, "e1"): PUBLISHED}
    active = advance(one, both, 10, TIMING)
    assert (states(active), signing(active, 10)) == (["active"], ["r1", "e1"])
    two = begin(active, A, [a_key("r2")], 20)
    assert signing(two, 20) == ["r1", "e1"]
    assert advance(two, both, 10**9, TIMING) == two  # only the old one is published
    swapped = advance(two, {(A, "r2"): PUBLISHED}, 30, TIMING)
    assert states(swapped) == ["retiring", "active"]
    assert signing(swapped, 129) == ["r2", "r1", "e1"]
    assert signing(swapped, 130) == ["r2"]
    assert advance(swapped, {}, 30 + 1099, TIMING) == swapped
    retired = advance(swapped, {}, 30 + 1100, TIMING)
    assert states(retired) == ["retired", "active"]
    assert advance(retired, both, 10**9, TIMING) == retired
    # a clock that runs back only delays
    assert advance(swapped, {}, -(10**6), TIMING) == swapped


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
        st.sampled_from(["begin", "publish", "wait", "advance", "advance"]),
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
    lines = signer_lines(rotation.state(), int(START.timestamp()) + 1, TIMING, folder=tmp_path)
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
