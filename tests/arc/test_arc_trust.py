"""Whose chains are believed, and that an attacker's own chain changes nothing (published attack 27, and its variants)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from authmilter.arc.result import ArcStatus
from authmilter.arc.settings import TrustedSealers
from authmilter.names import Domain
from authmilter.verdict import Decision, Disposition, OverrideReason
from tests.support.arc import AAR, MESSAGE, NOW, Forged, forge, sealed, trusting, validate, zone_of
from tests.support.road import Notes, a_runtime, travel

SEALERS = ("sealer.example", "second.example", "attacker.example")
ZONE: dict[str, object] = {
    **zone_of(*SEALERS),
    "_dmarc.victim.example": {"TXT": ["v=DMARC1; p=reject"]},
    "victim.example": {"TXT": ["v=spf1 -all"]},
    "attacker.example": {"TXT": ["v=spf1 +all"]},
}
TRUST = "policy: enforce\nauthserv_id: mx.recv.example\narc: {trusted_sealers: [sealer.example, second.example]}\n"


def decided(raw: bytes, config: str = TRUST, zone: dict[str, object] | None = None) -> Decision:
    notes = Notes()
    _mail, verdict = travel(
        raw,
        a_runtime(config, zone or ZONE, notes),
        mail_from="<bounce@attacker.example>",
        helo="mx.attacker.example",
        client_ip="192.0.2.66",
    )
    assert notes.bugs == []
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "fail"  # whatever the chain says
    return verdict.decision


def test_a_trusted_sealer_gives_policy_a_reason_and_the_report_says_whom() -> None:
    results = AAR + b';\r\n arc=none smtp.remote-ip="2001:db8::1a"'
    raw = sealed(
        sealed(MESSAGE, results=results),
        "second.example",
        results=b"mx.second.example; dmarc=fail header.from=victim.example; arc=pass",
    )
    decision = decided(raw)
    assert decision.disposition is Disposition.ACCEPT
    assert decision.rule == "trusted-chain"
    assert decision.override is OverrideReason.LOCAL_POLICY
    # RFC 8617 §7.2.2
    assert decision.override_comment == (
        "arc=pass as[2].d=second.example as[2].s=arc1 as[1].d=sealer.example as[1].s=arc1 remote-ip[1]=2001:db8::1a"
    )


@pytest.mark.parametrize(
    "raw",
    [
        # 27: the attacker's own valid chain says that DMARC passed
        pytest.param(sealed(MESSAGE, "attacker.example"), id="own-chain"),
        pytest.param(sealed(sealed(MESSAGE, "attacker.example"), "attacker.example"), id="own-chain-of-two"),
        # a message that a trusted sealer sealed, changed, and sealed again by the attacker
        pytest.param(
            sealed(sealed(MESSAGE).replace(b"Hello there", b"Pay here"), "attacker.example"), id="changed-and-resealed"
        ),
        # the same without a new seal
        pytest.param(sealed(MESSAGE).replace(b"Hello there", b"Pay here"), id="changed"),
        pytest.param(sealed(MESSAGE).replace(b"alice@", b"mallory@"), id="other-author-part"),
        # the attacker below a trusted sealer, who says what they saw: no pass
        pytest.param(
            sealed(
                sealed(MESSAGE, "attacker.example"),
                results=b"mx.sealer.example; dmarc=fail header.from=victim.example; arc=pass",
            ),
            id="attacker-first",
        ),
        # the attacker between two trusted sealers
        pytest.param(
            sealed(sealed(sealed(MESSAGE), "attacker.example"), "second.example", results=b"mx.second.example; arc=pass"),
            id="attacker-between",
        ),
        # the trusted sealer saw a pass of another domain, several answers, a word that only looks like one
        pytest.param(sealed(MESSAGE, results=b"mx; dmarc=pass header.from=attacker.example"), id="other-domain"),
        pytest.param(sealed(MESSAGE, results=b"mx; dmarc=pass"), id="no-domain"),
        pytest.param(
            sealed(MESSAGE, results=b"mx; dmarc=fail header.from=victim.example; dmarc=pass header.from=victim.example"),
            id="two-answers",
        ),
        pytest.param(sealed(MESSAGE, results=b'mx; spf=pass smtp.mailfrom="x; dmarc=pass header.from=victim.example"'), id="in-quotes"),
        pytest.param(sealed(MESSAGE, results=b"mx; spf=pass (dmarc=pass header.from=victim.example)"), id="in-a-comment"),
        pytest.param(sealed(MESSAGE, results=b"mx; dmarc=bestguesspass header.from=victim.example"), id="best-guess"),
        pytest.param(sealed(MESSAGE, results=b"mx; x-dmarc=pass header.from=victim.example"), id="other-method"),
        pytest.param(sealed(MESSAGE, results=b"mx; dmarc/2=pass header.from=victim.example"), id="other-version"),
        pytest.param(sealed(MESSAGE, results=b"mx 2; dmarc=pass header.from=victim.example"), id="other-format"),
        pytest.param(
            sealed(MESSAGE, results=b"mx; dmarc=pass header.from=attacker.example header.from=victim.example"), id="two-domains"
        ),
        pytest.param(
            sealed(MESSAGE, results=b"mx; dmarc=pass (header.from=victim.example) header.from=sub.victim.example"), id="below"
        ),
        pytest.param(sealed(MESSAGE, results=b"mx; dmarc=pass policy.from=victim.example"), id="other-property"),
        # cv=none behind a trusted name, signed with the attacker's key
        pytest.param(forge(MESSAGE, [Forged(domain="attacker.example", seal={"d": "sealer.example"})]), id="borrowed-name"),
        # a message signature that leaves the author open, so that From can be replaced
        pytest.param(
            forge(MESSAGE, [Forged(ams={"h": "to:subject"})]).replace(b"From: Alice", b"From: Your bank"), id="author-open"
        ),
    ],
)  # fmt: skip
def test_nothing_else_does(raw: bytes) -> None:
    decision = decided(raw)
    assert decision.disposition is Disposition.REJECT
    assert decision.rule == "dmarc-reject"
    assert decision.override is None
    assert decision.override_comment == ""


_EXCEPTION = """
exceptions:
  - {author: victim.example, forwarder: sealer.example, proven_by: arc, owner: jane, reason: test, expires: 2026-11-22}
rules:
  - {id: excepted, when: {dmarc.status: fail, exception.applies: true}, then: accept}
  - {id: dmarc-reject, when: {dmarc.status: [fail, permerror]}, then: reject}
default: accept
"""
_OPEN = forge(MESSAGE, [Forged(ams={"h": "to:subject"})])
_CUT = forge(MESSAGE, [Forged(ams={"l": str(len(b"Hello there\r\n"))})])


@pytest.mark.parametrize(
    ("raw", "excepted"),
    [
        pytest.param(sealed(MESSAGE), True, id="the-forwarder"),
        pytest.param(sealed(MESSAGE, "attacker.example"), False, id="another-sealer"),
        pytest.param(sealed(sealed(MESSAGE), "attacker.example"), False, id="not-the-newest"),
        pytest.param(sealed(MESSAGE).replace(b"Hello there", b"Pay here"), False, id="changed"),
        pytest.param(
            forge(MESSAGE, [Forged(domain="attacker.example", seal={"d": "sealer.example"})]),
            False,
            id="borrowed-name",
        ),
        # what the forwarder sealed leaves the author, or the end of the body, to whoever sends it again
        pytest.param(_OPEN.replace(b"From: Alice", b"From: Your bank"), False, id="author-open"),
        pytest.param(_CUT, True, id="length-to-the-end"),
        pytest.param(_CUT + b"Pay here\r\n", False, id="end-open"),
        # several authors, one of them the exception's
        pytest.param(sealed(b"From: x@attacker.example\r\n" + MESSAGE), False, id="two-from-fields"),
        pytest.param(
            sealed(MESSAGE.replace(b"<alice@victim.example>", b"<alice@victim.example>, x@attacker.example")),
            False,
            id="two-authors",
        ),
    ],
)
def test_a_forwarder_is_proven_by_its_seal_on_this_very_message(
    tmp_path: Path, raw: bytes, *, excepted: bool
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(_EXCEPTION)
    config = f"policy: {policy}\nauthserv_id: mx.recv.example\n"
    built = replace(a_runtime(config, ZONE, Notes()), now=lambda: NOW)
    _mail, verdict = travel(
        raw, built, mail_from="<b@attacker.example>", helo="mx.attacker.example", client_ip="192.0.2.66"
    )
    assert (verdict.decision.rule == "excepted") is excepted
    assert (verdict.decision.disposition is Disposition.ACCEPT) is excepted


def test_without_a_list_nobody_is_trusted() -> None:
    decision = decided(sealed(MESSAGE), "policy: enforce\nauthserv_id: mx.recv.example\n")
    assert decision.rule == "dmarc-reject"


def test_dns_trouble_at_the_sealer_is_no_reason() -> None:
    zone = {**ZONE, "arc1._domainkey.sealer.example": {"TXT": "SERVFAIL"}}
    assert decided(sealed(MESSAGE), zone=zone).rule == "dmarc-reject"


def test_two_from_fields_have_no_author_to_vouch_for() -> None:
    raw = sealed(b"From: x@attacker.example\r\n" + MESSAGE)
    found = validate(raw, ZONE, trusting("sealer.example"))
    assert found.dmarc_passed_at == 0


@pytest.mark.parametrize("name", [b"From ", b"FROM", b"from\t"])
def test_a_from_field_that_the_sealer_did_not_see_leaves_nobody_to_vouch_for(name: bytes) -> None:
    raw = name + b": x@attacker.example\r\n" + sealed(MESSAGE)
    found = validate(raw, ZONE, trusting("sealer.example"))
    assert not found.whole
    assert found.dmarc_passed_at == 0
    assert not found.trusted


@pytest.mark.parametrize(
    "results",
    [
        # as the big ones write them
        (b"mx.google.com;\r\n dkim=pass header.i=@victim.example header.s=s1 header.b=abc;\r\n arc=pass (i=1 spf=pass"
        b" spfdomain=victim.example dkim=pass dmarc=pass fromdomain=victim.example);\r\n spf=pass (google.com: domain of"
        b" a@victim.example designates 192.0.2.1 as permitted sender) smtp.mailfrom=a@victim.example;\r\n"
        b" dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=victim.example"),
        (b"mx.microsoft.com 1; spf=pass (sender ip is 192.0.2.4) smtp.rcpttodomain=y.example smtp.mailfrom=victim.example;"
        b" dmarc=pass (p=reject sp=reject pct=100) action=none header.from=victim.example; dkim=pass (signature was"
        b" verified) header.d=victim.example; arc=pass (0 oda=1 ltdi=1 spf=[1,1,smtp.mailfrom=victim.example]"
        b" dkim=[1,1,header.d=victim.example] dmarc=[1,1,header.from=victim.example])"),
        # RFC 8617's own form of an IPv6 address is beyond the grammar of its clause, and spoils only that
        b"mx.sealer.example; arc=none smtp.remote-ip=2001:DB8::1A; DMARC=pass header.from=victim.example",
    ],
)  # fmt: skip
def test_results_as_they_are_written_in_the_wild(results: bytes) -> None:
    found = validate(sealed(MESSAGE, results=results), ZONE, trusting("*.example"))
    assert found.status is ArcStatus.PASS
    assert found.trusted
    assert found.dmarc_passed_at == 1


def test_patterns() -> None:
    trusted = TrustedSealers.of(("a.example", "*.b.example"))
    names = ("a.example", "x.a.example", "b.example", "x.b.example", "y.x.b.example", "c.example")
    assert [n for n in names if trusted.covers(Domain.parse(n))] == [
        "a.example",
        "x.b.example",
        "y.x.b.example",
    ]
    assert not trusted.covers(None)
    assert not TrustedSealers()
    with pytest.raises(ValueError, match="no domain"):
        TrustedSealers.of(("*",))


def test_a_file_of_sealers(tmp_path: object) -> None:
    file = f"{tmp_path}/sealers.txt"
    with open(file, "w", encoding="utf-8") as f:  # noqa: PTH123 - one line
        f.write("# ours\nsealer.example  # the list server\n\n*.second.example\n")
    config = TRUST.replace("[sealer.example, second.example]", f"[{file}]")
    assert decided(sealed(MESSAGE), config).rule == "trusted-chain"
    assert decided(sealed(MESSAGE, "second.example"), config).rule == "dmarc-reject"
