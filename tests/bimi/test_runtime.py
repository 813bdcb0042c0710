"""The store of evidence as the configuration makes it, and as a reload finds it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from authmilter import engine, runtime
from authmilter.bimi.fetch import Fetcher
from authmilter.bimi.result import BimiProblem, BimiResult, BimiStatus
from authmilter.bimi.settings import EvidenceSettings
from authmilter.bimi.store import EvidenceStore
from authmilter.bimi.vmc import read_roots
from authmilter.config.load import Loaded, parse
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime
from authmilter.errors import ConfigError
from authmilter.mail import Envelope, Session
from authmilter.names import NullPath, parse_helo, parse_ip, parse_recipient
from authmilter.verdict import InsertHeader
from tests.support import dkim_keys, marks
from tests.support.marks import SVG, a_bundle, a_mark, an_authority, pem, root
from tests.support.road import Notes, a_runtime
from tests.support.webserver import answer, serving

RESOLVER = ZoneResolver({})


def loaded(folder: Path, config: str) -> Loaded:
    return Loaded(config=parse(config, "f.yaml"), path=folder / "f.yaml", base=folder)


def built(given: Loaded, before: Runtime | None = None, resolver: ZoneResolver = RESOLVER) -> Runtime:
    store = before.checks.marks if before is not None else None
    return runtime.build(given, resolver=resolver, marks=store)


ON = "policy: monitor\nbimi: {enabled: true, trust_roots: [roots.pem]}\n"


def test_nothing_is_fetched_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert built(loaded(tmp_path, "policy: monitor\n")).checks.marks is None


def test_a_reload_keeps_what_was_fetched(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(pem(root().certificate))
    first = built(loaded(tmp_path, ON))
    assert isinstance(first.checks.marks, EvidenceStore)
    again = built(loaded(tmp_path, ON.replace("monitor", "enforce")), first)
    assert again.checks.marks is first.checks.marks


def test_other_roots_settings_or_answers_make_another_store(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(pem(root().certificate))
    first = built(loaded(tmp_path, ON))
    assert built(loaded(tmp_path, ON), first, ZoneResolver({})).checks.marks is not first.checks.marks
    other = loaded(tmp_path, ON.replace("enabled: true", "enabled: true, crl: false"))
    assert built(other, first).checks.marks is not first.checks.marks
    (tmp_path / "roots.pem").write_bytes(pem(an_authority("Another Root").certificate))
    assert built(loaded(tmp_path, ON), first).checks.marks is not first.checks.marks


def test_a_store_that_was_closed_does_not_come_back(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(pem(root().certificate))
    first = built(loaded(tmp_path, ON))
    assert isinstance(first.checks.marks, EvidenceStore)
    first.checks.marks.close()
    assert built(loaded(tmp_path, ON), first).checks.marks is not first.checks.marks


@pytest.mark.parametrize("content", [None, b"", b"no certificates", pem(a_mark())])
def test_roots_that_cannot_be_used_are_a_mistake_of_the_configuration(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "roots.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"roots\.pem"):
        built(loaded(tmp_path, ON))


def test_several_files_of_roots_count_together(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(pem(root().certificate))
    (tmp_path / "more.pem").write_bytes(pem(an_authority("Another Root").certificate))
    both = loaded(tmp_path, ON.replace("[roots.pem]", "[roots.pem, more.pem]"))
    assert len(runtime.trust_roots(both).certificates) == 2
    assert (
        len(runtime.trust_roots(replace(both, config=parse("policy: monitor\n", "f.yaml"))).certificates) == 0
    )


def test_the_first_message_begins_a_fetch_and_the_second_has_the_logo(tmp_path: Path) -> None:
    key = dkim_keys.rsa_key(2048, 1)
    message = dkim_keys.sign(
        b"From: News <news@example.com>\r\nTo: user@recv.example\r\nSubject: hello\r\n\r\nHello.\r\n",
        key,
        domain="example.com",
        selector="s1",
        names=("from", "to", "subject"),
    )

    async def judge(given: Runtime) -> tuple[BimiResult | None, list[bytes]]:
        _mail, verdict = await engine.verify(
            message,
            given,
            session=Session(client_ip=parse_ip("192.0.2.9"), helo=parse_helo("mail.example.com")),
            envelope=Envelope(mail_from=NullPath(), rcpt_to=(parse_recipient("user@recv.example"),)),
        )
        return verdict.evidence.bimi, [e.name for e in verdict.edits if isinstance(e, InsertHeader)]

    async def travel() -> None:
        pages = {"/mark.pem": answer(a_bundle()), "/logo.svg": answer(SVG)}
        async with serving(tmp_path, pages) as server:
            record = f"v=BIMI1; l={server.url('/logo.svg')}; a={server.url('/mark.pem')}"
            zone = {
                "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
                "s1._domainkey.example.com": {"TXT": [key.record]},
                "default._bimi.example.com": {"TXT": [record]},
                "logo.example": {"A": ["127.0.0.1"]},
            }
            notes = Notes()
            config = "authserv_id: mx.recv.example\npolicy: enforce\nbimi: {enabled: true, crl: false}\n"
            given = a_runtime(config, zone, notes)
            store = EvidenceStore(
                Fetcher(given.resolver, server.settings),
                roots=read_roots(pem(root().certificate)),
                settings=EvidenceSettings(crl=False),
                now=lambda: marks.NOW,
                bug=notes.bug,
            )
            given = replace(given, checks=replace(given.checks, marks=store), now=lambda: marks.NOW)
            first, written = await judge(given)
            assert first is not None
            assert first.problem is BimiProblem.PENDING
            assert b"BIMI-Indicator" not in written
            await store.settled()
            second, written = await judge(given)
            assert second is not None
            assert second.status is BimiStatus.PASS
            assert second.evidence is not None
            assert second.evidence.mark_type == "Registered Mark"
            assert {b"BIMI-Location", b"BIMI-Indicator"} <= set(written)
            assert len(server.requests) == 2
            assert notes.bugs == []
            store.close()

    asyncio.run(travel())
