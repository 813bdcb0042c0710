"""The store of evidence: nobody waits, everything is bounded, and what is kept is what was verified."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.bimi import store as store_module
from authmilter.bimi.evidence import EvidenceStatus, MarkEvidence
from authmilter.bimi.fetch import Fetcher, FetchSettings
from authmilter.bimi.folder import MAX_FILE, EvidenceFolder
from authmilter.bimi.settings import EvidenceSettings
from authmilter.bimi.store import Collection, EvidenceStore, Key, StoreLimits, collect
from authmilter.bimi.vmc import TrustRoots, read_roots
from authmilter.dns.zone import ZoneResolver
from authmilter.names import Domain
from tests.support import marks
from tests.support.marks import NOW, SVG, Mark, a_bundle, a_crl, pem, root
from tests.support.webserver import STALL, WebServer, answer, serving

DOMAIN = Domain.parse("example.com")
ROOTS = read_roots(pem(root().certificate))
ZONE: Mapping[str, object] = {
    "logo.example": {"A": ["127.0.0.1"]},
    "late.example": "TIMEOUT",
    "inside.example": {"A": ["10.0.0.1"]},
}
PAGES = {"/mark.pem": answer(a_bundle()), "/logo.svg": answer(SVG)}
NO_CRL = EvidenceSettings(crl=False)


@dataclass
class Clock:
    """A clock that is set by hand; `now` follows it."""

    at: float = 1000.0
    bugs: list[str] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.at - 1000.0)

    def bug(self, where: str, error: BaseException) -> None:
        self.bugs.append(f"{where}: {error}")


Use = Callable[[EvidenceStore, WebServer, Clock], Awaitable[None]]


def with_store(
    folder: Path,
    use: Use,
    *,
    pages: Mapping[str, bytes] = PAGES,
    settings: EvidenceSettings = NO_CRL,
    limits: StoreLimits | None = None,
    roots: TrustRoots = ROOTS,
    timeout: float = 5.0,
) -> None:
    """Run `use` with a store over a server of its own."""

    async def run() -> None:
        async with serving(folder, pages, timeout=timeout) as server:
            clock = Clock()
            store = EvidenceStore(
                Fetcher(ZoneResolver(ZONE), server.settings),
                roots=roots,
                settings=settings,
                now=clock.now,
                bug=clock.bug,
                limits=limits,
                clock=clock.monotonic,
            )
            try:
                await use(store, server, clock)
            finally:
                store.close()
            assert clock.bugs == []

    asyncio.run(run())


def collected(
    folder: Path,
    *,
    location: str | None = "/logo.svg",
    authority: str | None = "/mark.pem",
    pages: Mapping[str, bytes] = PAGES,
    settings: EvidenceSettings = NO_CRL,
    roots: TrustRoots = ROOTS,
    zone: Mapping[str, object] = ZONE,
    domain: Domain = DOMAIN,
) -> Collection:
    """Fetch and check what a record names, at a server that says `pages`."""

    async def run() -> Collection:
        async with serving(folder, pages) as server:

            def at(path: str | None) -> str:
                if path is None:
                    return ""
                host, _, rest = path.removeprefix("//").partition("/")
                return server.url("/" + rest, host or "logo.example")

            return await collect(
                Key(domain, "default", at(location), at(authority)),
                fetcher=Fetcher(ZoneResolver(zone), server.settings),
                roots=roots,
                settings=settings,
                now=NOW,
            )

    return asyncio.run(run())


# -- what is made of what was fetched ------------------------------------------------------------------------------------


def test_a_certificate_and_its_image_pass(tmp_path: Path) -> None:
    found = collected(tmp_path)
    evidence = found.evidence
    assert evidence.status is EvidenceStatus.PASS
    assert evidence.problem == ""
    assert evidence.mark_type == "Registered Mark"
    assert evidence.issuer == "CN=Mark CA 1,O=Test"
    assert evidence.not_after == NOW + 300 * marks.DAY
    assert evidence.indicator is not None
    assert evidence.indicator.svg == SVG
    assert evidence.indicator.location.endswith("/logo.svg")
    assert all(f.passed for f in found.findings)
    assert {"fetch_authority", "mark_chain", "fetch_location", "svg_version", "indicator_match"} <= {
        f.rule for f in found.findings
    }


def test_a_compressed_image_is_the_same_as_that_of_the_certificate(tmp_path: Path) -> None:
    found = collected(tmp_path, pages={**PAGES, "/logo.svg": answer(gzip.compress(SVG))})
    assert found.evidence.status is EvidenceStatus.PASS
    assert found.evidence.indicator is not None
    assert found.evidence.indicator.svg == SVG


def test_an_image_without_a_certificate_is_no_evidence(tmp_path: Path) -> None:
    evidence = collected(tmp_path, authority=None).evidence
    assert evidence.status is EvidenceStatus.NONE
    assert evidence.indicator is not None
    assert evidence.mark_type == ""


def test_another_image_than_that_of_the_certificate_fails(tmp_path: Path) -> None:
    other = SVG.replace(b"#0e6cf1", b"#ff0000")
    evidence = collected(tmp_path, pages={**PAGES, "/logo.svg": answer(other)}).evidence
    assert (evidence.status, evidence.problem) == (EvidenceStatus.FAIL, "indicator_mismatch")
    assert evidence.indicator is None


@pytest.mark.parametrize("page", [answer(b"", status="404 Not Found"), answer(b"", status="500 Error")])
def test_a_certificate_passes_with_its_own_image_where_the_other_is_gone(tmp_path: Path, page: bytes) -> None:
    found = collected(tmp_path, pages={**PAGES, "/logo.svg": page})
    assert found.evidence.status is EvidenceStatus.PASS
    assert found.evidence.indicator is not None
    assert found.evidence.indicator.location == ""
    assert [f.advisory for f in found.findings if not f.passed] == [True]


@pytest.mark.parametrize(
    ("pages", "status", "problem"),
    [
        ({"/mark.pem": answer(b"", status="404 Not Found")}, EvidenceStatus.FAIL, "fetch_status"),
        ({"/mark.pem": answer(b"", status="503 Busy")}, EvidenceStatus.TEMPERROR, "fetch_status"),
        ({"/mark.pem": answer(b"x" * 200_000)}, EvidenceStatus.FAIL, "fetch_size"),
        ({"/mark.pem": answer(b"<html>")}, EvidenceStatus.FAIL, "mark_bundle"),
        ({"/mark.pem": answer(a_bundle(Mark(names=("example.net",))))}, EvidenceStatus.FAIL, "mark_san"),
        ({"/mark.pem": answer(a_bundle(Mark(end=NOW - marks.DAY)))}, EvidenceStatus.FAIL, "mark_expired"),
        ({"/logo.svg": answer(SVG.replace(b"1.2", b"1.1"))}, EvidenceStatus.FAIL, "svg_version"),
        ({"/logo.svg": answer(b"<html/>")}, EvidenceStatus.FAIL, "svg_root"),
    ],
)
def test_what_does_not_hold_has_its_word(
    tmp_path: Path, pages: Mapping[str, bytes], status: EvidenceStatus, problem: str
) -> None:
    evidence = collected(tmp_path, pages={**PAGES, **pages}).evidence
    assert (evidence.status, evidence.problem) == (status, problem)
    assert evidence.detail
    assert evidence.indicator is None


@pytest.mark.parametrize(
    ("authority", "status", "problem"),
    [
        ("//late.example/a", EvidenceStatus.TEMPERROR, "fetch_dns"),
        ("//inside.example/a", EvidenceStatus.FAIL, "fetch_address"),
        ("//10.0.0.1/a", EvidenceStatus.FAIL, "fetch_host"),
    ],
)
def test_an_address_that_is_refused_has_its_word(
    tmp_path: Path, authority: str, status: EvidenceStatus, problem: str
) -> None:
    evidence = collected(tmp_path, authority=authority).evidence
    assert (evidence.status, evidence.problem) == (status, problem)


def test_without_roots_no_certificate_passes(tmp_path: Path) -> None:
    evidence = collected(tmp_path, roots=TrustRoots()).evidence
    assert (evidence.status, evidence.problem) == (EvidenceStatus.FAIL, "mark_no_roots")


@pytest.mark.parametrize(
    ("crl", "status", "problem"),
    [
        (a_crl(), EvidenceStatus.PASS, ""),
        (a_crl(None, 4711), EvidenceStatus.FAIL, "mark_revoked"),
        (None, EvidenceStatus.PASS, ""),
    ],
    ids=["good", "revoked", "out of reach"],
)
def test_the_revocation_list_is_asked(
    tmp_path: Path, crl: bytes | None, status: EvidenceStatus, problem: str
) -> None:
    async def run() -> Collection:
        async with serving(tmp_path, {}) as server:
            where = f"https://crl.example:{server.port}/marks.crl"
            server.pages["/mark.pem"] = answer(a_bundle(Mark(crl=where)))
            if crl is not None:
                server.pages["/marks.crl"] = answer(crl)
            zone = {**ZONE, "crl.example": {"A": ["127.0.0.1"]}}
            return await collect(
                Key(DOMAIN, "default", "", server.url("/mark.pem")),
                fetcher=Fetcher(ZoneResolver(zone), server.settings),
                roots=ROOTS,
                settings=EvidenceSettings(),
                now=NOW,
            )

    found = asyncio.run(run())
    assert (found.evidence.status, found.evidence.problem) == (status, problem)
    told = [f for f in found.findings if f.rule == "mark_revocation"]
    assert len(told) == 2
    # the authority's own list is at a name that does not exist: told, and no reason to refuse
    assert (told[1].passed, told[1].advisory) == (False, True)


# -- nobody waits --------------------------------------------------------------------------------------------------------


def test_a_miss_begins_a_fetch_and_the_next_look_has_it(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, _clock: Clock) -> None:
        where = (DOMAIN, "default", server.url("/logo.svg"), server.url("/mark.pem"))
        assert store.peek(*where) is None
        assert store.peek(*where) is None  # still on its way
        assert store.begun == 1
        await store.settled()
        found = store.peek(*where)
        assert found is not None
        assert found.status is EvidenceStatus.PASS
        assert store.begun == 1
        assert len(server.requests) == 2

    with_store(tmp_path, use)


def test_without_a_loop_nothing_is_begun() -> None:
    clock = Clock()
    store = EvidenceStore(
        Fetcher(ZoneResolver(ZONE)), roots=ROOTS, settings=NO_CRL, now=clock.now, bug=clock.bug
    )
    assert store.peek(DOMAIN, "default", "https://logo.example/a", "") is None
    assert store.begun == 0
    store.close()


def test_each_record_has_evidence_of_its_own(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, _clock: Clock) -> None:
        location, authority = server.url("/logo.svg"), server.url("/mark.pem")
        other = Domain.parse("example.net")
        store.peek(DOMAIN, "default", location, authority)
        store.peek(other, "default", location, authority)
        await store.settled()
        good, bad = (store.peek(d, "default", location, authority) for d in (DOMAIN, other))
        assert good is not None
        assert bad is not None
        assert good.status is EvidenceStatus.PASS
        assert (bad.status, bad.problem) == (EvidenceStatus.FAIL, "mark_san")

    with_store(tmp_path, use)


def test_few_fetches_go_on_at_once_and_few_wait(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, _clock: Clock) -> None:
        for n in range(10):
            assert store.peek(DOMAIN, f"s{n}", server.url("/slow"), "") is None
        assert store.begun == 2
        assert store.forgotten == 5
        await store.settled()
        assert store.begun == 5
        assert store.peek(DOMAIN, "s9", server.url("/slow"), "") is None  # forgotten, begun only now

    with_store(
        tmp_path,
        use,
        pages={"/slow": STALL},
        limits=StoreLimits(concurrent=2, waiting=3, share=10),
        timeout=0.2,
    )


def test_one_sender_with_many_names_and_a_slow_server_holds_up_nobody(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, _clock: Clock) -> None:
        for n in range(50):
            evil = Domain.parse(f"n{n}.evil.example")
            assert store.peek(evil, f"s{n}", server.url("/slow"), "") is None
        assert (store.begun, store.forgotten) == (3, 47)
        location, authority = server.url("/logo.svg"), server.url("/mark.pem")
        assert store.peek(DOMAIN, "default", location, authority) is None
        assert store.begun == 4  # at once
        await store.settled()
        assert store.peek(DOMAIN, "default", location, authority) is not None

    with_store(tmp_path, use, pages={**PAGES, "/slow": STALL}, timeout=0.5)


def test_a_closed_store_begins_nothing(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, _clock: Clock) -> None:
        store.peek(DOMAIN, "a", server.url("/slow"), "")
        store.close()
        await store.settled()
        assert store.peek(DOMAIN, "b", server.url("/logo.svg"), "") is None
        assert store.begun == 1

    with_store(tmp_path, use, pages={"/slow": STALL})


# -- how long ------------------------------------------------------------------------------------------------------------


def test_evidence_is_renewed_before_it_is_too_old(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, clock: Clock) -> None:
        where = (DOMAIN, "default", server.url("/logo.svg"), "")
        store.peek(*where)
        await store.settled()
        clock.at += 86400 * 0.79
        assert store.peek(*where) is not None
        assert store.begun == 1
        clock.at += 86400 * 0.02
        assert store.peek(*where) is not None  # and fetched anew behind it
        assert store.begun == 2
        await store.settled()
        clock.at += 86400 * 0.7
        assert store.peek(*where) is not None
        clock.at += 86400
        assert store.peek(*where) is None

    with_store(tmp_path, use)


def test_a_failed_renewal_leaves_what_is_good_until_its_time(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, clock: Clock) -> None:
        where = (DOMAIN, "default", server.url("/logo.svg"), "")
        store.peek(*where)
        await store.settled()
        server.pages["/logo.svg"] = answer(b"", status="503 Busy")
        clock.at += 86400 * 0.9
        assert store.peek(*where) is not None
        await store.settled()
        found = store.peek(*where)
        assert found is not None
        assert found.status is EvidenceStatus.NONE
        clock.at += 86400 * 0.2
        assert store.peek(*where) is None
        await store.settled()
        found = store.peek(*where)
        assert found is not None
        assert found.status is EvidenceStatus.TEMPERROR

    with_store(tmp_path, use)


@pytest.mark.parametrize(
    ("page", "status", "kept"),
    [
        (answer(b"", status="503 Busy"), EvidenceStatus.TEMPERROR, 300.0),
        (answer(b"<html/>"), EvidenceStatus.FAIL, 3600.0),
        (answer(SVG), EvidenceStatus.NONE, 86400.0),
    ],
)
def test_failures_are_kept_for_a_shorter_time(
    tmp_path: Path, page: bytes, status: EvidenceStatus, kept: float
) -> None:
    async def use(store: EvidenceStore, server: WebServer, clock: Clock) -> None:
        where = (DOMAIN, "default", server.url("/logo.svg"), "")
        store.peek(*where)
        await store.settled()
        clock.at += kept - 1
        found = store.peek(*where)
        assert found is not None
        assert found.status is status
        await store.settled()
        clock.at += kept + 1
        assert store.peek(*where) is None

    with_store(tmp_path, use, pages={"/logo.svg": page})


def test_a_pass_ends_with_its_certificate(tmp_path: Path) -> None:
    pages = {**PAGES, "/mark.pem": answer(a_bundle(Mark(end=NOW + timedelta(hours=1))))}

    async def use(store: EvidenceStore, server: WebServer, clock: Clock) -> None:
        where = (DOMAIN, "default", server.url("/logo.svg"), server.url("/mark.pem"))
        store.peek(*where)
        await store.settled()
        clock.at += 3599
        assert store.peek(*where) is not None
        clock.at += 2
        assert store.peek(*where) is None

    with_store(tmp_path, use, pages=pages)


def test_memory_is_bounded_in_entries_and_octets(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, _clock: Clock) -> None:
        for n in range(6):
            store.peek(DOMAIN, f"s{n}", server.url("/logo.svg"), "")
            await store.settled()
        begun = store.begun
        assert store.peek(DOMAIN, "s5", server.url("/logo.svg"), "") is not None
        assert store.peek(DOMAIN, "s0", server.url("/logo.svg"), "") is None
        assert store.begun == begun + 1

    with_store(tmp_path, use, limits=StoreLimits(entries=3))
    with_store(tmp_path, use, limits=StoreLimits(octets=3 * (2000 + len(SVG))))


class Broken:
    """A resolver with a fault."""

    def known(self, question: object) -> None:
        raise AssertionError(question)

    async def fetch(self, question: object, deadline: object) -> None:
        raise KeyError(question, deadline)


def test_a_fault_of_ours_is_reported_and_is_no_answer() -> None:
    clock = Clock()

    async def run() -> MarkEvidence | None:
        store = EvidenceStore(
            Fetcher(Broken(), FetchSettings()),  # type: ignore[arg-type]  # a fault, on purpose
            roots=ROOTS,
            settings=NO_CRL,
            now=clock.now,
            bug=clock.bug,
        )
        where = (DOMAIN, "default", "https://logo.example/a", "")
        store.peek(*where)
        await store.settled()
        store.close()
        return store.peek(*where)

    found = asyncio.run(run())
    assert found is not None
    assert (found.status, found.problem) == (EvidenceStatus.TEMPERROR, "internal")
    assert len(clock.bugs) == 1
    assert clock.bugs[0].startswith("bimi:evidence: ")


# -- the folder ----------------------------------------------------------------------------------------------------------


def shared(tmp_path: Path) -> EvidenceSettings:
    return replace(NO_CRL, cache_folder=str(tmp_path / "cache"))


def test_what_one_worker_fetched_another_reads(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, clock: Clock) -> None:
        where = (DOMAIN, "default", server.url("/logo.svg"), server.url("/mark.pem"))
        store.peek(*where)
        await store.settled()
        first = store.peek(*where)
        other = EvidenceStore(
            Fetcher(ZoneResolver(ZONE), server.settings),
            roots=ROOTS,
            settings=shared(tmp_path),
            now=clock.now,
            bug=clock.bug,
            clock=clock.monotonic,
        )
        clock.at += 3600
        assert other.peek(*where) is None
        await other.settled()
        assert other.peek(*where) == first
        assert len(server.requests) == 2
        clock.at += 86400 - 3601  # as old as it is for the first one
        assert other.peek(*where) is not None
        await other.settled()
        other.close()
        assert store.trouble == ""

    with_store(tmp_path, use, settings=shared(tmp_path))
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 1
    assert len(files[0].name) == 64 + len(".json")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert files[0].stat().st_mode & 0o777 == 0o600


def test_what_is_kept_holds_for_the_same_roots_only(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, clock: Clock) -> None:
        where = (DOMAIN, "default", server.url("/logo.svg"), server.url("/mark.pem"))
        store.peek(*where)
        await store.settled()
        other = EvidenceStore(
            Fetcher(ZoneResolver(ZONE), server.settings),
            roots=TrustRoots(),
            settings=shared(tmp_path),
            now=clock.now,
            bug=clock.bug,
        )
        other.peek(*where)
        await other.settled()
        found = other.peek(*where)
        other.close()
        assert found is not None
        assert found.problem == "mark_no_roots"

    with_store(tmp_path, use, settings=shared(tmp_path))


def test_a_damaged_file_is_fetched_anew(tmp_path: Path) -> None:
    async def use(store: EvidenceStore, server: WebServer, clock: Clock) -> None:
        where = (DOMAIN, "default", server.url("/logo.svg"), "")
        store.peek(*where)
        await store.settled()
        (file,) = (tmp_path / "cache").iterdir()
        file.write_bytes(b"{")
        other = EvidenceStore(
            Fetcher(ZoneResolver(ZONE), server.settings),
            roots=ROOTS,
            settings=shared(tmp_path),
            now=clock.now,
            bug=clock.bug,
        )
        other.peek(*where)
        await other.settled()
        assert other.peek(*where) is not None
        other.close()
        assert len(server.requests) == 2
        assert json.loads(file.read_bytes())["status"] == "none"

    with_store(tmp_path, use, settings=shared(tmp_path))


def test_a_folder_that_others_may_write_into_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    kept = EvidenceFolder(str(folder))
    assert not kept.save("a" * 64, b"x")
    assert "others may write" in kept.trouble
    folder.chmod(0o700)
    assert kept.save("a" * 64, b"x")
    assert kept.trouble == ""
    folder.chmod(0o770)
    assert kept.load("a" * 64) is None


def test_a_file_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / f"{'a' * 64}.json").symlink_to(tmp_path / "secret")
    assert EvidenceFolder(str(tmp_path / "cache")).load("a" * 64) is None


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(tmp_path: Path) -> None:
    kept = EvidenceFolder(str(tmp_path / "missing" / "cache"))
    assert kept.load("a") is None
    assert not kept.save("a", b"x")
    assert "does not exist" in kept.trouble


def test_files_are_bounded_in_number_and_size(tmp_path: Path) -> None:
    kept = EvidenceFolder(str(tmp_path / "cache"), most=10)
    for n in range(41):
        assert kept.save(f"{n:064}", b"x")
        os.utime(tmp_path / "cache" / f"{n:064}.json", (n, n))
    left = sorted(p.name for p in (tmp_path / "cache").iterdir())
    assert len(left) == 10
    assert kept.load(f"{40:064}") == b"x"
    assert not kept.save("a" * 64, bytes(MAX_FILE + 1))
    (tmp_path / "cache" / "b.json").write_bytes(bytes(MAX_FILE + 1))
    assert kept.load("b") is None


def test_a_file_of_somebody_else_stays_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    for name in ("notes.txt", ".hidden", "a-b.json"):
        (folder / name).write_text("kept")
        os.utime(folder / name, (1, 1))
    kept = EvidenceFolder(str(folder), most=5)
    for n in range(41):
        assert kept.save(f"{n:064}", b"x")
    left = {p.name for p in folder.iterdir()}
    assert {"notes.txt", ".hidden", "a-b.json"} < left
    assert len(left) == 3 + 5


KEY = Key(DOMAIN, "default", "https://logo.example/a", "")


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["format", "key", "since", "svg", "status", "not_after"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_file_is_read_or_is_none(content: bytes) -> None:
    assert store_module._read_kept(content, KEY) is None


def test_what_was_written_is_read() -> None:
    evidence = MarkEvidence(status=EvidenceStatus.PASS, mark_type="x", issuer="y", not_after=NOW)
    written = store_module._write_kept(KEY, evidence, NOW)
    assert store_module._read_kept(written, KEY) == (evidence, NOW)
    assert store_module._read_kept(written, KEY._replace(selector="other")) is None
