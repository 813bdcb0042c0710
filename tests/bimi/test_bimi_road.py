"""BIMI down the whole road: what a message is written, and what one without BIMI pays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from authmilter.bimi.evidence import EvidenceSource, MarkEvidence
from authmilter.bimi.result import BimiProblem, BimiStatus, SelectorSource
from authmilter.engine import Runtime
from authmilter.names import Domain
from authmilter.verdict import InsertHeader, Verdict
from authmilter.verdict_json import verdict_to_json
from tests.bimi.builders import CERTIFICATE, LOGO, RECORD, SVG, Marks
from tests.support import dkim_keys
from tests.support.road import Notes, a_runtime, travel

_KEY = dkim_keys.rsa_key(2048, 1)
OFF = "authserv_id: mx.recv.example\npolicy: enforce\n"
ON = OFF + "bimi: {enabled: true}\n"
ZONE: Mapping[str, object] = {
    "_dmarc.brand.example": {"TXT": ["v=DMARC1; p=reject"]},
    "s1._domainkey.brand.example": {"TXT": [_KEY.record]},
    "default._bimi.brand.example": {"TXT": [RECORD]},
    "spring._bimi.brand.example": {"TXT": [RECORD + "; avp=personal"]},
}
_FIELDS = b"From: Brand <news@brand.example>\r\nTo: user@recv.example\r\nSubject: hello\r\n"
_SELECTOR = b"BIMI-Selector: v=BIMI1; s=spring;\r\n"
MESSAGE = _FIELDS + b"\r\nHello.\r\n"


def signed(message: bytes = MESSAGE, *names: str) -> bytes:
    return dkim_keys.sign(
        message, _KEY, domain="brand.example", selector="s1", names=("from", "to", "subject", *names)
    )


def runtime(config: str = ON, source: EvidenceSource | None = None, notes: Notes | None = None) -> Runtime:
    built = a_runtime(config, ZONE, notes)
    return replace(built, checks=replace(built.checks, marks=source))


def judge(
    message: bytes, config: str = ON, source: EvidenceSource | None = None, notes: Notes | None = None
) -> Verdict:
    _mail, verdict = travel(
        message,
        runtime(config, source, notes),
        mail_from="<bounce@other.example>",
        helo="mail.brand.example",
        client_ip="192.0.2.9",
    )
    return verdict


def inserted(verdict: Verdict) -> list[bytes]:
    return [e.name for e in verdict.edits if isinstance(e, InsertHeader)]


def test_a_signed_mail_of_a_brand_has_its_logo() -> None:
    marks = Marks()
    verdict = judge(signed(), source=marks)
    assert verdict.evidence.bimi is not None
    assert verdict.evidence.bimi.status is BimiStatus.PASS
    assert marks.asked == [("brand.example", "default", LOGO, CERTIFICATE)]
    assert "bimi=pass (Registered Mark) header.d=brand.example" in " ".join(
        verdict.authentication_results.split()
    )
    assert {b"BIMI-Location", b"BIMI-Indicator", b"BIMI-Logo-Preference"} <= set(inserted(verdict))
    # Authentication-Results stays on top: fields are inserted bottom-most first
    assert inserted(verdict)[-1] == b"Authentication-Results"


def test_a_signed_selector_is_followed_and_an_added_one_is_not() -> None:
    followed = judge(signed(_SELECTOR + MESSAGE, "bimi-selector"), source=Marks()).evidence.bimi
    assert followed is not None
    assert (followed.selector, followed.selector_source) == ("spring", SelectorSource.HEADER)
    added = judge(_SELECTOR + signed(), source=Marks()).evidence.bimi
    assert added is not None
    assert (added.selector, added.selector_ignored) == ("default", "unsigned")


def test_the_first_mail_begins_a_fetch_and_the_next_one_has_the_logo() -> None:
    marks = Marks(answer=None)
    first = judge(signed(), source=marks)
    assert first.evidence.bimi is not None
    assert first.evidence.bimi.problem is BimiProblem.PENDING
    assert inserted(first) == [b"Authentication-Results"]
    marks.answer = Marks().answer
    second = judge(signed(), source=marks)
    assert second.evidence.bimi is not None
    assert second.evidence.bimi.status is BimiStatus.PASS


def test_the_log_has_the_digest_of_a_logo_and_not_the_logo() -> None:
    written = json.loads(verdict_to_json(judge(signed(), source=Marks())))
    found = written["evidence"]["bimi"]
    assert found["evidence"]["indicator"] == {"location": LOGO, "svg_sha256": "0123456789abcdef" * 4}
    assert found["queries"] == [{"name": "default._bimi.brand.example", "answer": "record"}]
    assert SVG.decode() not in json.dumps(found)


class Broken:
    """A source with a bug."""

    def peek(self, domain: Domain, selector: str, location: str, authority: str) -> MarkEvidence | None:
        raise RuntimeError(f"{domain} {selector} {location} {authority}")


def test_a_bug_of_ours_is_no_result_of_the_sender() -> None:
    notes = Notes()
    verdict = judge(signed(), source=Broken(), notes=notes)
    assert verdict.evidence.bimi is not None
    assert verdict.evidence.bimi.status is BimiStatus.INTERNAL_ERROR
    assert [where for where, _ in notes.bugs] == ["method:bimi"]
    assert "bimi=" not in verdict.authentication_results
    # no policy that is shipped reads BIMI, so the mail is judged as ever
    assert verdict.decision.reply is None


def test_switched_off_it_is_not_there_at_all() -> None:
    marks = Marks()
    verdict = judge(signed(), OFF, marks)
    assert verdict.evidence.bimi is None
    assert "bimi" not in {step.method for step in verdict.trace}
    assert "bimi" not in verdict.authentication_results
    assert inserted(verdict) == [b"Authentication-Results"]
    assert marks.asked == []


@pytest.mark.parametrize(
    "message",
    [MESSAGE, MESSAGE.replace(b"news@", b"a@brand.example, news@"), MESSAGE.replace(b"brand", b"other")],
    ids=["unsigned", "two-addresses", "no-dmarc"],
)
def test_a_mail_that_cannot_have_one_asks_nothing(message: bytes) -> None:
    verdict = judge(message, source=Marks())
    (step,) = (s for s in verdict.trace if s.method == "bimi")
    assert (step.questions, step.remembered) == (0, 0)
    assert verdict.evidence.bimi is not None
    assert verdict.evidence.bimi.status is BimiStatus.SKIPPED
