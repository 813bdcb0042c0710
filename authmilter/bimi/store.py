"""The documents of records, fetched and checked behind the messages' backs.

`EvidenceStore` is the `EvidenceSource` of a worker. `peek` looks into memory, and where there is nothing begins a fetch
on the worker's loop and says so; no message ever waits. Promises: one fetch for one record at a time, few at once, few
waiting (what is beyond is forgotten, the next message asks again), fewer still for one sender, so that a slow server with
many names does not hold up the others; what is kept is bounded in number and octets.
What can take long (chains, images, files) runs in a small pool of threads. Nothing of it raises: a fault of ours is
reported, and stands as "could not be fetched" for a short time.

`collect` is the same road for whoever wants to wait and to see every rule: the command line.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from authmilter.bimi.evidence import EvidenceStatus, Indicator, MarkEvidence
from authmilter.bimi.fetch import Fetched, Fetcher, FetchFailure
from authmilter.bimi.findings import Finding, first_failure
from authmilter.bimi.folder import EvidenceFolder
from authmilter.bimi.settings import EvidenceSettings
from authmilter.bimi.svg import MAX_READ, SvgReport, check_svg
from authmilter.bimi.vmc import (
    MAX_CRL,
    MarkReport,
    TrustRoots,
    check_mark,
    check_revocation,
    crl_addresses,
)
from authmilter.deadline import monotonic
from authmilter.names import Domain
from authmilter.ports import Resolver

__all__ = ["Collection", "EvidenceStore", "Key", "StoreLimits", "collect"]

R = TypeVar("R")

#: Version of the files in the cache folder; another one is not read.
_FORMAT = 1
#: After which share of its time an entry is fetched anew, in the background.
_RENEW = 0.8
#: Octets that an entry costs beside its image.
_ENTRY = 2000


class Key(NamedTuple):
    """What evidence is about: the domain and selector a record was found at, its `l=` and its `a=`."""

    domain: Domain
    selector: str
    location: str
    authority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """Bounds of a store.

    `concurrent` fetches go on at once and `waiting` wait their turn, no more than `share` of both for names that end in
    the same two labels; `entries` and `octets` are kept in memory, `files`
    in the folder; `threads` compute. `unavailable` is how long (seconds) a failure that may pass is kept, `refused` how
    long one that will not by itself.
    """

    concurrent: int = 4
    waiting: int = 100
    share: int = 3
    entries: int = 2000
    octets: int = 16 << 20
    files: int = 2000
    threads: int = 2
    unavailable: float = 300.0
    refused: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What was fetched and checked: the `evidence`, and every finding on the way (of fetches, certificate, image)."""

    evidence: MarkEvidence
    findings: tuple[Finding, ...] = ()
    mark: MarkReport | None = None
    image: SvgReport | None = None


class _Pool:
    """Runs what can take long: in threads where there is a pool, at once where there is none."""

    def __init__(self, threads: ThreadPoolExecutor | None) -> None:
        self._threads = threads

    async def run(self, work: Callable[[], R]) -> R:
        if self._threads is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


async def collect(
    key: Key,
    *,
    fetcher: Fetcher,
    roots: TrustRoots,
    settings: EvidenceSettings,
    now: datetime,
    threads: ThreadPoolExecutor | None = None,
) -> Collection:
    """Fetch and check what a record names.

    Args:
        key: the record.
        fetcher: fetches.
        roots: what mark certificates have to lead to.
        settings: sizes, and whether revocation lists are asked.
        now: the time at which certificates have to be valid.
        threads: where long computations run; None: right here.

    Returns:
        The evidence. A mark certificate that holds passes with its own image even if `l=` cannot be fetched; `l=` then
        does not count (its `location` is empty). Where `l=` is another image than that of the certificate, the evidence
        fails (VMC draft: MAY; whoever shows the one for the other is misled).
    """
    pool = _Pool(threads)
    marked, shown = await asyncio.gather(
        _get(fetcher, key.authority, settings.max_certificate), _get(fetcher, key.location, settings.max_svg)
    )
    findings: list[Finding] = []
    mark: MarkReport | None = None
    image: SvgReport | None = None
    evidence = MarkEvidence(status=EvidenceStatus.NONE, authority=key.authority)
    if marked is not None:
        findings.append(_of_fetch("fetch_authority", "a=", marked))
        if isinstance(marked, FetchFailure):
            evidence = _unfetched(evidence, marked)
        else:
            mark, more = await _certificate(
                key, marked.body, pool=pool, fetcher=fetcher, roots=roots, settings=settings, now=now
            )
            findings += more
            evidence = _vouched(evidence, mark, first_failure(more))
    if shown is not None:
        got = _of_fetch("fetch_location", "l=", shown)
        if isinstance(shown, FetchFailure):
            # With a certificate the image is known without it.
            findings.append(replace(got, advisory=marked is not None))
            if marked is None:
                evidence = _unfetched(evidence, shown)
        else:
            body = shown.body
            image = await pool.run(lambda: check_svg(body, max_size=min(settings.max_svg, MAX_READ)))
            more = (got, *image.findings, *_compared(image, mark))
            findings += more
            evidence = _illustrated(evidence, key.location, image, first_failure(more))
    return Collection(evidence=evidence, findings=tuple(findings), mark=mark, image=image)


def _vouched(blank: MarkEvidence, mark: MarkReport, failure: Finding | None) -> MarkEvidence:
    """Return the evidence that a mark certificate is."""
    evidence = replace(
        blank,
        status=EvidenceStatus.PASS,
        mark_type=mark.mark_type,
        issuer=mark.issuer,
        not_after=mark.not_after,
    )
    if failure is not None or mark.svg is None:
        return _refused(evidence, failure)
    return replace(evidence, indicator=Indicator(location="", svg_sha256=mark.svg_sha256, svg=mark.svg))


def _illustrated(
    evidence: MarkEvidence, location: str, image: SvgReport, failure: Finding | None
) -> MarkEvidence:
    """Return the evidence with the image that `l=` is; what has failed before stays so."""
    if evidence.status in {EvidenceStatus.FAIL, EvidenceStatus.TEMPERROR}:
        return evidence
    if failure is not None or image.svg is None:
        return _refused(evidence, failure)
    return replace(evidence, indicator=Indicator(location=location, svg_sha256=image.sha256, svg=image.svg))


def _compared(image: SvgReport, mark: MarkReport | None) -> tuple[Finding, ...]:
    """Return whether the image at `l=` is that of the certificate, where there are both."""
    if mark is None or mark.svg is None:
        return ()
    same = image.svg == mark.svg
    return (
        Finding(
            rule="indicator_match",
            passed=same,
            message="the image at l= is that of the mark certificate"
            if same
            else "the image at l= is another one than that of the mark certificate",
            problem="" if same else "indicator_mismatch",
        ),
    )


async def _get(fetcher: Fetcher, url: str, max_size: int) -> Fetched | FetchFailure | None:
    return await fetcher.fetch(url, max_size=max_size) if url else None


async def _certificate(
    key: Key,
    pem: bytes,
    *,
    pool: _Pool,
    fetcher: Fetcher,
    roots: TrustRoots,
    settings: EvidenceSettings,
    now: datetime,
) -> tuple[MarkReport, tuple[Finding, ...]]:
    """Return what the rules say of a certificate, its revocation included."""
    mark = await pool.run(
        lambda: check_mark(
            pem,
            roots=roots,
            now=now,
            domain=key.domain,
            selector=key.selector,
            max_svg=min(settings.max_svg, MAX_READ),
        )
    )
    if mark.failure is not None or not settings.crl:
        return mark, mark.findings
    lists: list[dict[str, bytes]] = []
    for addresses in crl_addresses(mark):
        fetched: dict[str, bytes] = {}
        for address in addresses:
            # RFC 5280 §4.2.1.13: revocation lists are mostly served by http, as they are signed
            found = await fetcher.fetch(address, max_size=MAX_CRL, plain=True)
            if isinstance(found, Fetched):
                fetched[address] = found.body
                break
        lists.append(fetched)
    return mark, (*mark.findings, *await pool.run(lambda: check_revocation(mark, lists, now=now)))


def _of_fetch(rule: str, tag: str, got: Fetched | FetchFailure) -> Finding:
    if isinstance(got, FetchFailure):
        return Finding(rule=rule, passed=False, message=f"{tag}: {got.detail}", problem=got.problem.value)
    served = f" as {got.content_type}" if got.content_type else ""
    return Finding(rule=rule, passed=True, message=f"{tag} was fetched, {len(got.body)} octets{served}")


def _unfetched(blank: MarkEvidence, failure: FetchFailure) -> MarkEvidence:
    status = EvidenceStatus.TEMPERROR if failure.temporary else EvidenceStatus.FAIL
    return replace(blank, status=status, problem=failure.problem.value, detail=failure.detail, indicator=None)


def _refused(evidence: MarkEvidence, failure: Finding | None) -> MarkEvidence:
    return replace(
        evidence,
        status=EvidenceStatus.FAIL,
        problem=failure.problem if failure is not None else "no_image",
        detail=failure.message if failure is not None else "there is no image",
        indicator=None,
    )


@dataclass(slots=True)
class _Entry:
    """Evidence in memory; times are monotonic seconds."""

    evidence: MarkEvidence
    until: float
    renew: float
    octets: int = field(init=False)

    def __post_init__(self) -> None:
        indicator = self.evidence.indicator
        self.octets = _ENTRY + (len(indicator.svg) if indicator is not None else 0)


class EvidenceStore:
    """Implements `EvidenceSource`.

    Args:
        fetcher: fetches.
        roots: what mark certificates have to lead to.
        settings: sizes, times and the cache folder.
        now: tells the time, with its zone.
        bug: is told of an exception that nobody foresaw: where, and which.
        limits: the bounds.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        roots: TrustRoots,
        settings: EvidenceSettings,
        now: Callable[[], datetime],
        bug: Callable[[str, BaseException], None],
        limits: StoreLimits | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._fetcher = fetcher
        self._roots = roots
        self._settings = settings
        self._now = now
        self._bug = bug
        self._limits = limits if limits is not None else StoreLimits()
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._octets = 0
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._threads = ThreadPoolExecutor(self._limits.threads, thread_name_prefix="bimi")
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._folder = (
            EvidenceFolder(settings.cache_folder, self._limits.files) if settings.cache_folder else None
        )
        # What is kept in the folder holds for these roots and choices only.
        context = repr((_FORMAT, settings.max_svg, settings.max_certificate, settings.crl, roots.digest))
        self._context = context.encode()
        #: fetches begun, and misses that were forgotten because too many wait
        self.begun = self.forgotten = 0

    def peek(self, domain: Domain, selector: str, location: str, authority: str) -> MarkEvidence | None:
        """Return what is known of a record's documents, or None: a fetch has been begun, or waits its turn."""
        key = Key(domain, selector, location, authority)
        entry = self._entries.get(key)
        if entry is None:
            self._begin(key)
            return None
        at = self._clock()
        if entry.until <= at:
            self._drop(key)
            self._begin(key)
            return None
        self._entries.move_to_end(key)
        if entry.renew <= at:
            self._begin(key)  # before it is too old, so that no message in between goes without
        return entry.evidence

    def serves(self, resolver: Resolver, roots: TrustRoots, settings: EvidenceSettings) -> bool:
        """True if a store made of these would be this one."""
        same = roots.digest == self._roots.digest and settings == self._settings
        return same and self._fetcher.resolver is resolver and not self._closed

    async def settled(self) -> None:
        """Wait until nothing is fetched and nothing waits."""
        while self._running:
            await asyncio.wait(tuple(self._running.values()))

    def close(self) -> None:
        """Stop all fetches; `peek` goes on with what is in memory. Harmless at any time, and from any thread."""
        self._closed = True
        loop = self._loop
        if loop is None or loop.is_closed():
            self._threads.shutdown(wait=False, cancel_futures=True)
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended in between, and all its tasks
            loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._waiting.clear()
        for task in self._running.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def trouble(self) -> str:
        """Why the cache folder is not used, in our words; empty if all is well."""
        return self._folder.trouble if self._folder is not None else ""

    def _begin(self, key: Key) -> None:
        """Fetch a record's documents, or put it behind those that wait."""
        if self._closed or key in self._running or key in self._waiting:
            return
        site = _site(key)
        if sum(_site(other) == site for other in (*self._running, *self._waiting)) >= self._limits.share:
            self.forgotten += 1
            return
        if len(self._running) >= self._limits.concurrent:
            if len(self._waiting) < self._limits.waiting:
                self._waiting[key] = None
            else:
                self.forgotten += 1
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # nobody runs a loop here: nothing can be fetched
        self._loop = loop
        self.begun += 1
        task = loop.create_task(self._work(key))
        self._running[key] = task
        task.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: Key) -> None:
        self._running.pop(key, None)
        if self._waiting and not self._closed:
            following, _ = self._waiting.popitem(last=False)
            self._begin(following)

    async def _work(self, key: Key) -> None:
        """Fill in one entry: from the folder where another worker was here first, else from the network."""
        pool = _Pool(self._threads)
        try:
            now = self._now()
            folder = self._folder
            name = hashlib.sha256(self._context + repr(key).encode()).hexdigest()
            if folder is not None:
                kept = await pool.run(lambda: _read_kept(folder.load(name), key))
                if kept is not None and self._take(key, *kept, now):
                    return
            found = await collect(
                key,
                fetcher=self._fetcher,
                roots=self._roots,
                settings=self._settings,
                now=now,
                threads=self._threads,
            )
            if not self._take(key, found.evidence, now, now):
                return
            if folder is not None and found.evidence.status is not EvidenceStatus.TEMPERROR:
                content = _write_kept(key, found.evidence, now)
                await pool.run(lambda: folder.save(name, content))
        except Exception as e:  # noqa: BLE001 - nobody waits for this task: a bug is reported, and is no answer
            self._bug("bimi:evidence", e)
            unavailable = MarkEvidence(
                status=EvidenceStatus.TEMPERROR,
                problem="internal",
                detail="an error of ours",
                authority=key.authority,
            )
            self._put(key, unavailable, self._limits.unavailable)

    def _take(self, key: Key, evidence: MarkEvidence, since: datetime, now: datetime) -> bool:
        """Keep evidence that is as old as `since`; False if that is too old, or its certificate's time is over."""
        seconds = self._lifetime(evidence) - max(0.0, (now - since).total_seconds())
        if evidence.status is EvidenceStatus.PASS and evidence.not_after is not None:
            seconds = min(seconds, (evidence.not_after - now).total_seconds())
        held = self._entries.get(key)
        if seconds <= 0 or (since != now and held is not None and seconds < held.until - held.renew):
            return False  # (what another worker left is of no use where it has to be renewed itself)
        self._put(key, evidence, seconds)
        return True

    def _lifetime(self, evidence: MarkEvidence) -> float:
        if evidence.status is EvidenceStatus.TEMPERROR:
            return self._limits.unavailable
        if evidence.status is EvidenceStatus.FAIL:
            return min(self._limits.refused, self._settings.cache_ttl)
        return self._settings.cache_ttl

    def _put(self, key: Key, evidence: MarkEvidence, seconds: float) -> None:
        held = self._entries.get(key)
        at = self._clock()
        if evidence.status is EvidenceStatus.TEMPERROR and held is not None and held.until > at:
            # What was good is good until its time; the server may answer at the next try.
            held.renew = min(held.until, at + seconds)
            return
        self._drop(key)
        entry = _Entry(evidence=evidence, until=at + seconds, renew=at + seconds * _RENEW)
        self._entries[key] = entry
        self._octets += entry.octets
        while len(self._entries) > self._limits.entries or self._octets > self._limits.octets:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._octets -= entry.octets


def _site(key: Key) -> tuple[str, ...]:
    """Return what the names of one sender have in common: whoever has a domain has all names below it."""
    return tuple(key.domain.labels[-2:])


def _write_kept(key: Key, evidence: MarkEvidence, since: datetime) -> bytes:
    """Return evidence as a file of the cache folder."""
    indicator = evidence.indicator
    kept = {
        "format": _FORMAT,
        "key": _written_key(key),
        "since": since.isoformat(),
        "status": evidence.status.value,
        "problem": evidence.problem,
        "detail": evidence.detail,
        "mark_type": evidence.mark_type,
        "issuer": evidence.issuer,
        "not_after": evidence.not_after.isoformat() if evidence.not_after is not None else "",
        "location": indicator.location if indicator is not None else "",
        "svg": base64.b64encode(indicator.svg).decode("ascii") if indicator is not None else "",
    }
    return json.dumps(kept).encode("ascii")


def _read_kept(content: bytes | None, key: Key) -> tuple[MarkEvidence, datetime] | None:
    """Return what a file of the cache folder says of `key` and since when, or None: it is not ours, or damaged."""
    if content is None:
        return None
    try:
        kept = json.loads(content)
        if kept["format"] != _FORMAT or kept["key"] != _written_key(key):
            return None
        svg = base64.b64decode(kept["svg"], validate=True)
        since = datetime.fromisoformat(kept["since"])
        not_after = datetime.fromisoformat(kept["not_after"]) if kept["not_after"] else None
        indicator = Indicator(
            location=str(kept["location"]), svg_sha256=hashlib.sha256(svg).hexdigest(), svg=svg
        )
        evidence = MarkEvidence(
            status=EvidenceStatus(kept["status"]),
            problem=str(kept["problem"]),
            detail=str(kept["detail"]),
            mark_type=str(kept["mark_type"]),
            authority=key.authority,
            issuer=str(kept["issuer"]),
            not_after=not_after,
            indicator=indicator if svg else None,
        )
        since.astimezone(UTC)  # a time without a zone, or far out of range, is not ours
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, binascii.Error):
        return None
    if since.tzinfo is None or (not_after is not None and not_after.tzinfo is None):
        return None
    return evidence, since


def _written_key(key: Key) -> list[str]:
    return [key.domain.ascii, key.selector, key.location, key.authority]
