"""What the micro-benchmarks do: small pieces of work with their input made ready, and yardsticks to hold them against.

A yardstick is work of the same kind that no change of ours can make slower: a time divided by it tells more of our code
than of the machine. `python` is interpreted code, `sha256` the hash of a megabyte, `rsa` and `ed25519` one signature by
the library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from authmilter.dkim import sign
from authmilter.dkim.canonical import BodyHasher, BodyNeed, Canonicalization
from authmilter.dkim.check import body_needs, conclude, verify, verify_headers
from authmilter.dkim.crypto import KeyKind, generate_signing_key
from authmilter.dkim.sign import SignatureSettings, SigningEntry, SigningPlan
from authmilter.dkim.signature import DkimLimits
from authmilter.dkim.signature import read as read_signatures
from authmilter.dmarc import check as dmarc
from authmilter.dmarc.settings import DmarcSettings
from authmilter.engine import Runtime, Verification
from authmilter.evidence import Evidence
from authmilter.headers import edits
from authmilter.mail import Mail, Session
from authmilter.memory import ResultMemory
from authmilter.message import Message
from authmilter.milter.protocol import Decoder
from authmilter.names import Domain, parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.observe.counters import Counters
from authmilter.observe.journal import LogJournal, LogSettings, make_log
from authmilter.policy import decide, loader, shipped
from authmilter.policy.rules import Policy
from authmilter.spf.check import SpfLimits, check_mailfrom
from authmilter.verdict import Verdict
from tests.benchmarks.corpus import BODIES, Letter, a_body, a_header, zone
from tests.benchmarks.load import negotiated_as, prepare
from tests.support import arc, dkim_keys
from tests.support.builders import a_lookup
from tests.support.road import a_runtime

__all__ = ["CASES", "YARDSTICKS", "Case", "finish", "judged", "letter", "verification"]

T = TypeVar("T")
Work = Callable[[], object]
_NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
_NAMES = ("from", "to", "subject", "date", "message-id", "mime-version", "content-type")
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A benchmark: what makes the work ready, and the yardstick it is held against."""

    make: Callable[[], Work]
    yardstick: str = "python"


# -- yardsticks --------------------------------------------------------------------------------------------------


def _python() -> Work:
    text = b"From: a@b.example\r\nTo: c@d.example\r\nSubject: x\r\n" * 5

    def work() -> int:
        found: dict[bytes, list[bytes]] = {}
        for line in text.split(b"\r\n"):
            name, _, value = line.partition(b":")
            found.setdefault(name.lower(), []).append(value.strip())
        return sum(len(v) + n for n, values in enumerate(found.values()) for v in values)

    return work


def _sha256() -> Work:
    data = a_body("prose", _MB)
    return lambda: hashlib.sha256(data).digest()


def _library_signature(kind: KeyKind) -> Work:
    key = generate_signing_key(kind)
    return lambda: key.sign(b"x" * 32)


YARDSTICKS: Mapping[str, Callable[[], Work]] = {
    "python": _python,
    "sha256": _sha256,
    "rsa": lambda: _library_signature(KeyKind.RSA),
    "ed25519": lambda: _library_signature(KeyKind.ED25519),
}


# -- input -------------------------------------------------------------------------------------------------------


def letter(
    size: int = 10_000,
    *,
    fields: int = 21,
    signatures: int = 1,
    keys: tuple[dkim_keys.DkimKey, ...] = (),
    kind: str = "prose",
) -> Letter:
    """Return one message of author domain sender00.example, with that many valid signatures."""
    header = a_header("person@sender00.example", 1, max(0, fields - signatures))
    raw = header + b"\r\n" + a_body(kind, max(2, size - len(header)))
    lines = b""
    for n in range(signatures):
        key = keys[n % len(keys)] if keys else dkim_keys.rsa_key()
        selector = "s1" if key.kind == "rsa" else "e1"
        # t= tells them apart: the same signature twice would be one
        signed = dkim_keys.sign(
            raw,
            key,
            domain="sender00.example",
            selector=selector,
            names=_NAMES,
            tags={"t": str(1_700_000_000 + n)},
        )
        lines += signed[: len(signed) - len(raw)]
    return Letter(lines + raw, "<bounce@sender00.example>", "mail.sender00.example", "192.0.2.0")


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run what never waits, without a loop."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError("it waits")


def verification(built: Runtime, each: Letter, message: Message, body: bytes) -> Verdict:
    """Judge a message as a door does, its body in chunks of 65,535 octets."""
    session = Session(client_ip=parse_ip(each.client_ip), helo=parse_helo(each.helo))
    one = Verification(built, session, listener="bench")
    one.sender(parse_reverse_path(each.mail_from))
    one.recipient(parse_recipient("<user@recv.example>"))
    one.headers(message)
    for at in range(0, len(body), 65535):
        one.body(body[at : at + 65535])
    return finish(one.verdict())


def judged(each: Letter, policy: str = "monitor") -> tuple[Mail, Verdict, Runtime]:
    """Return a message's mail and verdict, and the runtime that judged it."""
    kept: list[tuple[Mail, Verdict]] = []

    class Keep:
        def record(self, mail: Mail, verdict: Verdict, *, queue_id: str, listener: str) -> None:
            del queue_id, listener
            kept.append((mail, verdict))

        def bug(self, where: str, error: BaseException) -> None:
            raise RuntimeError(where) from error

    built = a_runtime(f"authserv_id: mx.recv.example\npolicy: {policy}\n", zone(), Keep())
    message, start = Message.parse(each.raw)
    verification(built, each, message, each.raw[start:])
    return (*kept[0], built)


# -- the cases ---------------------------------------------------------------------------------------------------


def _parse(fields: int) -> Work:
    raw = letter(fields=fields).raw

    def work() -> object:
        message, _start = Message.parse(raw)
        return message.authors

    return work


def _canonicalize(kind: str) -> Work:
    body = a_body(kind, _MB)
    chunks = [body[at : at + 65535] for at in range(0, len(body), 65535)]
    needs = frozenset({BodyNeed(Canonicalization.RELAXED)})

    def work() -> object:
        hasher = BodyHasher(needs)
        for chunk in chunks:
            hasher.update(chunk)
        return hasher.finish()

    return work


def _verify(size: int, kinds: str) -> Work:
    keys = {"rsa": (dkim_keys.rsa_key(),), "ed25519": (dkim_keys.ed25519_key(),)}
    both = (*keys["rsa"], *keys["ed25519"])
    chosen = keys.get(kinds, both)
    raw = letter(size, keys=chosen, signatures=len(chosen)).raw
    message, start = Message.parse(raw)
    body, resolver, limits = raw[start:], zone(), DkimLimits()
    assert all(r.status == "pass" for r in verify(message, body, a_lookup(resolver), limits, now=_NOW))
    lookup = a_lookup(resolver)

    def work() -> object:
        signatures = read_signatures(message, limits)
        outcomes = verify_headers(message, signatures, lookup, limits, now=_NOW)
        hasher = BodyHasher(body_needs(signatures))
        hasher.update(body)
        return conclude(outcomes, hasher.finish(), limits)

    return work


def _sign(size: int, kinds: str) -> Work:
    entries = tuple(
        SigningEntry(
            domain=Domain.parse("sender00.example"), selector=kind.value, key=generate_signing_key(kind)
        )
        for kind in (KeyKind.RSA, KeyKind.ED25519)
        if kinds in {kind.value, "both"}
    )
    raw = letter(size, signatures=0).raw
    message, start = Message.parse(raw)
    body, settings = raw[start:], SignatureSettings()

    def work() -> object:
        planned = sign.plan(message, entries, settings)
        assert isinstance(planned, SigningPlan)
        hasher = BodyHasher(sign.body_needs(planned), watch=True)
        for at in range(0, len(body), 65535):
            hasher.update(body[at : at + 65535])
        return sign.finish(planned, hasher.finish(), _NOW)

    return work


def _spf() -> Work:
    lookup_zone = zone()
    resolver = a_lookup(lookup_zone)
    session = Session(client_ip=parse_ip("192.0.2.0"), helo=parse_helo("mail.sender00.example"))
    path, limits = parse_reverse_path("<bounce@sender00.example>"), SpfLimits()
    return lambda: check_mailfrom(session, path, resolver, limits, receiver="mx.recv.example")


def _tree_walk() -> Work:
    raw = b"From: a@one.two.three.four.sender00.example\r\n\r\n"
    message, _ = Message.parse(raw)
    lookup, settings = a_lookup(zone()), DmarcSettings()
    assert dmarc.check(message.authors, None, (), lookup, settings).organizational_domain is not None
    return lambda: dmarc.check(message.authors, None, (), lookup, settings)


def _decide(policy: str) -> Work:
    mail, verdict, _built = judged(letter())
    rules: Policy = loader.load(shipped.shipped_text(policy), policy)
    evidence: Evidence = verdict.evidence
    return lambda: decide.judge(mail, evidence, rules)


def _headers() -> Work:
    mail, verdict, built = judged(letter())
    return lambda: edits.plan(mail, verdict.evidence, verdict.decision, built.headers)


def _journal() -> LogJournal:
    """A journal that writes to nowhere, as it would to a file."""
    settings = LogSettings()
    nowhere = Path("/dev/null").open("w", encoding="utf-8")  # noqa: SIM115 - it is open for as long as this program runs
    return LogJournal(make_log(settings, nowhere), settings, Counters())


def _log_line() -> Work:
    mail, verdict, _built = judged(letter())
    journal = _journal()
    return lambda: journal.record(mail, verdict, queue_id="4cRgTestId", listener="inet:8891@127.0.0.1")


def _protocol() -> Work:
    wire = prepare(letter(2_000), negotiated_as()).wire

    def work() -> object:
        return Decoder().feed(wire)

    return work


def _whole(size: int, *, recalled: bool) -> Work:
    each = letter(size)
    mail, verdict, built = judged(each)
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "pass", (mail, verdict)
    journal = _journal()
    built = replace(built, journal=journal, memory=ResultMemory() if recalled else ResultMemory(0))
    raw = each.raw

    def work() -> object:
        message, start = Message.parse(raw)
        return verification(built, each, message, raw[start:])

    return work


def _chained(sets: int) -> Work:
    """A small message with so many ARC sets of trusted sealers, every answer at hand."""
    sealers = ("sealer.example", "second.example", "third.example")[:sets]
    raw = arc.MESSAGE
    for sealer in sealers:
        raw = arc.sealed(raw, sealer)
    trusted = f"arc: {{trusted_sealers: [{', '.join(sealers)}]}}"
    built = a_runtime(f"authserv_id: mx.recv.example\npolicy: monitor\n{trusted}\n", arc.zone_of(*sealers))
    each = Letter(raw, "<bounce@victim.example>", "mail.victim.example", "192.0.2.1")

    def work() -> Verdict:
        message, start = Message.parse(raw)
        return verification(built, each, message, raw[start:])

    found = work().evidence.arc
    assert found is not None
    assert found.status == ("pass" if sets else "none")
    return work


def _marked(*, on: bool) -> Work:
    """A signed message of an author domain that has a BIMI record; the row asks for it where `on`."""
    each = letter(2_000)
    answers = {
        **zone(),
        "default._bimi.sender00.example": {"TXT": ["v=BIMI1; l=https://sender00.example/l.svg; a="]},
    }
    bimi = f"bimi: {{enabled: {'true' if on else 'false'}}}\n"
    built = a_runtime(f"authserv_id: mx.recv.example\npolicy: monitor\n{bimi}", answers)

    def work() -> Verdict:
        message, start = Message.parse(each.raw)
        return verification(built, each, message, each.raw[start:])

    assert (work().evidence.bimi is not None) is on
    return work


def _cases() -> dict[str, Case]:
    found: dict[str, Case] = {
        "parse, 21 fields": Case(lambda: _parse(21)),
        "parse, 100 fields": Case(lambda: _parse(100)),
    }
    for kind in BODIES:
        found[f"canonicalize 1 MB, {kind}"] = Case(partial(_canonicalize, kind), "sha256")
    for kinds in ("rsa", "ed25519", "both"):
        found[f"verify 2 KB, {kinds}"] = Case(partial(_verify, 2_000, kinds))
    found["verify 1 MB, rsa"] = Case(lambda: _verify(_MB, "rsa"), "sha256")
    for size, name in ((2_000, "2 KB"), (10_000, "10 KB"), (100_000, "100 KB"), (_MB, "1 MB")):
        for kinds in ("rsa", "ed25519", "both"):
            yardstick = "sha256" if size == _MB else "ed25519" if kinds == "ed25519" else "rsa"
            found[f"sign {name}, {kinds}"] = Case(partial(_sign, size, kinds), yardstick)
    found["SPF, three includes"] = Case(_spf)
    found["DMARC, tree walk of five names"] = Case(_tree_walk)
    found["policy, monitor"] = Case(lambda: _decide("monitor"))
    found["policy, strict"] = Case(lambda: _decide("strict"))
    found["header writing"] = Case(_headers)
    found["log line"] = Case(_log_line)
    found["protocol, 2 KB message"] = Case(_protocol)
    for size, name in ((2_000, "2 KB"), (10_000, "10 KB"), (100_000, "100 KB")):
        found[f"whole message, {name}"] = Case(partial(_whole, size, recalled=True))
    found["whole message, 10 KB, nothing recalled"] = Case(lambda: _whole(10_000, recalled=False))
    found["whole message, no ARC field"] = Case(lambda: _chained(0))
    found["whole message, three ARC sets"] = Case(lambda: _chained(3), "rsa")
    found["whole message, BIMI off"] = Case(lambda: _marked(on=False))
    found["whole message, BIMI on, record read"] = Case(lambda: _marked(on=True))
    return found


CASES: Mapping[str, Case] = _cases()
