"""Sealing on the road: as mail comes in, and as a hop of ours brings it back; judged by our own verifier and dkimpy's."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dkim
import pytest

from authmilter.arc.chain import read as read_chain
from authmilter.arc.custody import recall
from authmilter.arc.result import ArcProblem, ArcStatus
from authmilter.arc.seal import NotSealed, NotSealedReason, RecipientPatterns, SealSettings
from authmilter.arc.settings import ArcSettings
from authmilter.dkim.crypto import KeyKind
from authmilter.errors import ConfigError
from authmilter.headers.edits import applied
from authmilter.message import Message
from authmilter.names import parse_recipient
from authmilter.verdict import Disposition, InsertHeader, Verdict
from tests.support.arc import MESSAGE, NOW, Forged, a_sealer, forge, sealed, validate, zone_of
from tests.support.road import Notes, a_runtime, travel
from tests.support.signing import an_entry

OURS = a_sealer("ours.example")
ZONE: dict[str, object] = {
    **zone_of("ours.example", "sealer.example"),
    "_dmarc.victim.example": {"TXT": ["v=DMARC1; p=reject"]},
    "victim.example": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
}
SENDER, HOP = "192.0.2.1", "192.0.2.77"
LIST = b"Subject: [list] Hello"


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Lists for outbound, a forward for inbound."""
    key, secret = tmp_path / "key.pem", tmp_path / "secret"
    for file, data in ((key, OURS.key.pem()), (secret, b"a" * 40 + b"\n" + b"b" * 40 + b"\n")):
        file.write_bytes(data)
        file.chmod(0o600)
    return f"""
authserv_id: mx.ours.example
policy: enforce
trusted_hops: [{{networks: [{HOP}]}}]
arc:
  seal:
    domain: ours.example
    selector: arc1
    key: {key}
    inbound: {{recipients: [forward@ours.example, "*@away.example"]}}
    outbound: {{recipients: ["*@lists.ours.example"], secret: {secret}}}
"""


def passed(
    raw: bytes,
    config: str,
    *,
    rcpt: str,
    client: str = SENDER,
    zone: Mapping[str, object] = ZONE,
    after: timedelta = timedelta(),
) -> tuple[Verdict, bytes]:
    """Send a message down the road; return the verdict, and the message as it leaves."""
    notes = Notes()
    built = replace(a_runtime(config, zone, notes), now=lambda: NOW + after)
    _mail, verdict = travel(
        raw,
        built,
        mail_from="<bob@victim.example>",
        helo="mx.victim.example",
        client_ip=client,
        rcpt_to=(f"<{rcpt}>",),
    )
    assert notes.bugs == []
    message, start = Message.parse(raw)
    fields = applied(message.headers, verdict.edits)
    return verdict, b"".join(n + b":" + v + b"\r\n" for n, v in fields) + b"\r\n" + raw[start:]


def dkimpy(raw: bytes) -> str:
    """What the oracle says of a chain."""
    texts = {n: str(r["TXT"][0]).encode() for n, r in ZONE.items() if isinstance(r, dict)}

    def ask(name: bytes, timeout: int = 5) -> bytes | None:
        assert timeout
        return texts.get(name.decode().rstrip("."))

    status, _sets, _why = dkim.arc_verify(raw, dnsfunc=ask)
    return status.decode() if status is not None else "none"


def names(raw: bytes) -> list[str]:
    return [h.name.decode() for h in Message.parse(raw)[0].headers]


def test_inbound_over_the_message_as_it_leaves(config: str) -> None:
    forged = b"Authentication-Results: mx.ours.example; dmarc=pass header.from=bank.example\r\n"
    verdict, out = passed(forged + MESSAGE, config, rcpt="Forward@ours.example")
    assert verdict.sealing is not None
    assert (verdict.sealing.mode, verdict.sealing.sealed) == ("inbound", "ours.example/arc1")
    assert (verdict.sealing.instance, verdict.sealing.cv) == (1, "none")
    # the big receivers' order, above everything
    assert names(out)[:5] == [
        "ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results", "Authentication-Results", "From",
    ]  # fmt: skip
    message, _ = Message.parse(out)
    ours = message.fields("authentication-results")
    assert len(ours) == 1
    aar = message.fields("arc-authentication-results")[0].value
    # all methods, in our words, without a keyed id
    assert aar == b" i=1;" + ours[0].value
    assert b"spf=pass" in aar
    assert b"dmarc=pass" in aar
    assert b"bank.example" not in aar
    assert b"custody" not in out
    found = validate(out, ZONE)
    assert found.status is ArcStatus.PASS
    assert found.whole
    assert dkimpy(out) == "pass"


def test_inbound_on_top_of_a_chain(config: str) -> None:
    verdict, out = passed(sealed(MESSAGE), config, rcpt="x@away.example")
    assert verdict.sealing is not None
    assert (verdict.sealing.instance, verdict.sealing.cv) == (2, "pass")
    assert validate(out, ZONE).status is ArcStatus.PASS
    assert dkimpy(out) == "pass"
    assert b"arc=pass (i=1 sealed by sealer.example) header.oldest-pass=0" in re.sub(rb"\s+", b" ", out)


@pytest.mark.parametrize("rcpt", ["user@ours.example", "other@ours.example", "x@sub.away.example"])
def test_nobody_else_s_mail_is_sealed(config: str, rcpt: str) -> None:
    verdict, out = passed(MESSAGE, config, rcpt=rcpt)
    assert verdict.sealing is None
    assert b"ARC-" not in out
    assert b"custody" not in out


def test_a_chain_that_failed_is_closed_with_its_own_set_alone(config: str) -> None:
    broken = sealed(MESSAGE).replace(b"Subject: Hello", LIST)
    verdict, out = passed(broken, config, rcpt="x@away.example")
    assert verdict.sealing is not None
    assert (verdict.sealing.instance, verdict.sealing.cv) == (2, "fail")
    # RFC 8617 §5.1.2: as if this newest set was the only one
    message, _ = Message.parse(out)
    own = {
        k: message.fields(k)[0] for k in ("arc-authentication-results", "arc-message-signature", "arc-seal")
    }
    assert OURS.key.public_key().verify(_octets_of(own["arc-seal"].value), _covered(own))
    assert validate(out, ZONE).status is ArcStatus.FAIL
    # and nobody adds a set to it
    again, after = passed(out, config, rcpt="x@away.example")
    assert again.sealing is not None
    assert again.sealing.reason == NotSealedReason.CHAIN_ENDED
    assert names(after).count("ARC-Seal") == 2


def _octets_of(value: bytes) -> bytes:
    import base64  # noqa: PLC0415 - beside its only use

    found = re.search(rb"\bb=([^;]*)", value)
    assert found is not None
    return base64.b64decode(re.sub(rb"\s", b"", found.group(1)))


def _covered(own: Mapping[str, object]) -> bytes:
    lines = []
    for key, header in own.items():
        value = header.value  # type: ignore[attr-defined]  # a Header
        if key == "arc-seal":
            value = re.sub(rb"\bb=[^;]*", b"b=", value)
        lines.append(key.encode() + b":" + re.sub(rb"[ \t\r\n]+", b" ", value).strip())
    return b"\r\n".join(lines)


def test_no_set_beyond_fifty(config: str) -> None:
    verdict, out = passed(forge(MESSAGE, [Forged()] * 50), config, rcpt="x@away.example")
    assert verdict.sealing is not None
    assert verdict.sealing.reason == NotSealedReason.CHAIN_FULL
    assert names(out).count("ARC-Seal") == 50


@pytest.mark.parametrize("setting", ["tempfail", "no-seal"])
def test_dns_trouble_is_never_sealed_as_a_failure(config: str, setting: str) -> None:
    chosen = config.replace('"*@away.example"]', f'"*@away.example"], on_dns_failure: {setting}')
    zone = {**ZONE, "arc1._domainkey.sealer.example": {"TXT": "SERVFAIL"}}
    verdict, out = passed(sealed(MESSAGE), chosen, rcpt="x@away.example", zone=zone)
    assert verdict.evidence.arc is not None
    assert verdict.evidence.arc.status is ArcStatus.FAIL  # reported as RFC 8617 §5.2.1 says
    assert verdict.sealing is not None
    assert verdict.sealing.reason == NotSealedReason.CHAIN_UNCHECKED
    assert names(out).count("ARC-Seal") == 1
    if setting == "tempfail":
        assert verdict.decision.disposition is Disposition.TEMPFAIL
        assert (
            str(verdict.decision.reply)
            == "451 4.7.0 ARC chain cannot be checked now, try again later (id TESTID)"
        )
        assert verdict.edits == ()
    else:
        assert verdict.decision.disposition is Disposition.ACCEPT
        assert b"arc=fail reason=dns" in re.sub(rb"\s+", b" ", out)


def test_a_chain_over_our_own_limits_is_neither_sealed_nor_sent_back(config: str) -> None:
    """It would be over them at the next try, too: nothing says that the chain failed, and the mail is not held up."""
    chosen = config.replace('"*@away.example"]', '"*@away.example"], on_dns_failure: tempfail')
    large = sealed(MESSAGE, results=b"mx.sealer.example; x=" + b"a" * 16384)
    verdict, out = passed(large, chosen, rcpt="x@away.example")
    assert verdict.evidence.arc is not None
    assert verdict.evidence.arc.problem is ArcProblem.LIMIT
    assert verdict.decision.disposition is Disposition.ACCEPT
    assert verdict.sealing is not None
    assert verdict.sealing.reason == NotSealedReason.CHAIN_UNCHECKED
    assert names(out).count("ARC-Seal") == 1


def test_what_is_refused_is_not_sealed(config: str) -> None:
    verdict, _out = passed(MESSAGE, config, rcpt="x@away.example", client="192.0.2.66")
    assert verdict.decision.disposition is Disposition.REJECT
    assert verdict.sealing is None
    assert not any(isinstance(e, InsertHeader) for e in verdict.edits)


# -- outbound ------------------------------------------------------------------------------------------------------


def by_the_list(raw: bytes) -> bytes:
    """What a list server does: a prefix, a footer, a field of its own; folds of others' fields made anew."""
    raw = raw.replace(b"Subject: Hello", LIST) + b"-- \r\nthe list\r\n"
    raw = re.sub(rb";\r\n ", rb";\r\n\t", raw)
    return b"List-Id: <l.lists.ours.example>\r\nReceived: by list\r\n" + raw


def test_what_a_list_brings_back_is_sealed_with_what_we_knew(config: str) -> None:
    for message, instance, cv, after in (
        (MESSAGE, 1, "none", timedelta()),
        (sealed(MESSAGE), 2, "pass", timedelta()),
        (MESSAGE, 1, "none", timedelta(days=3)),
    ):
        came, inside = passed(message, config, rcpt="l@lists.ours.example")
        assert came.sealing is None
        assert re.search(rb"x-authmilter=pass\s+policy\.custody=[0-9]+\.[0-9]\.(none|pass)\.", inside)
        assert came.authentication_results in inside.decode()
        verdict, out = passed(by_the_list(inside), config, rcpt="member@far.example", client=HOP, after=after)
        assert verdict.origin == "trusted_hop"
        assert verdict.sealing is not None
        assert (verdict.sealing.mode, verdict.sealing.reason) == ("outbound", "")
        assert (verdict.sealing.instance, verdict.sealing.cv) == (instance, cv)
        aar = Message.parse(out)[0].fields("arc-authentication-results")[0].value
        assert b"dmarc=pass" in aar
        assert b"custody" not in aar
        assert names(out)[:3] == ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"]
        found = validate(out, ZONE, now=NOW + after)
        assert found.status is ArcStatus.PASS, found.detail
        assert found.oldest_pass == (0 if instance == 1 else 2)
        # (its clock is the machine's, which need not be later than three days from now)
        assert after or dkimpy(out) == "pass"


def test_a_chain_that_failed_at_arrival_is_closed_when_it_comes_back(config: str) -> None:
    _came, inside = passed(
        sealed(MESSAGE).replace(b"Subject: Hello", b"Subject: Bye"), config, rcpt="l@lists.ours.example"
    )
    verdict, _out = passed(inside, config, rcpt="member@far.example", client=HOP)
    assert verdict.sealing is not None
    assert (verdict.sealing.instance, verdict.sealing.cv) == (2, "fail")


@pytest.mark.parametrize(
    ("change", "after"),
    [
        # no field of ours, another text, another message, another time
        (lambda raw: re.sub(rb"Authentication-Results: mx(?:.*\r\n)(?:[ \t].*\r\n)*", b"", raw), timedelta()),
        (lambda raw: raw.replace(b"spf=pass", b"spf=fail"), timedelta()),
        (lambda raw: raw.replace(b"<1@victim", b"<2@victim"), timedelta()),
        (lambda raw: raw.replace(b"custody=1", b"custody=2"), timedelta()),
        (lambda raw: raw.replace(b".none.", b".pass."), timedelta()),
        (lambda raw: raw, timedelta(days=31)),
        (lambda raw: raw, timedelta(hours=-1)),
        # a set was added, or taken away, on the way
        (sealed, timedelta()),
        # an id that was made for another message, put on top of this one
        (lambda raw: b"Authentication-Results: mx.ours.example; spf=pass;\r\n x-authmilter=pass policy.custody=1795305600.0.none." + b"A" * 32 + b"\r\n" + raw.replace(b"policy.custody", b"policy.was"), timedelta()),
    ],
)  # fmt: skip
def test_without_an_id_that_fits_there_is_no_seal(config: str, change: object, after: timedelta) -> None:
    _came, inside = passed(MESSAGE, config, rcpt="l@lists.ours.example")
    changed = change(inside)  # type: ignore[operator]  # a function of octets
    verdict, out = passed(changed, config, rcpt="member@far.example", client=HOP, after=after)
    assert verdict.sealing is not None
    assert verdict.sealing.reason == NotSealedReason.NO_CUSTODY
    assert verdict.sealing.detail
    assert b"d=ours.example" not in out


def test_strangers_fields_that_look_like_ours_cost_little() -> None:
    """Fields of other names are not removed, so a list may bring back many of them, and a long chain with them."""
    lookalike = b" other.example; x=y;\r\n x-authmilter=pass policy.custody=1795305600.0.none." + b"A" * 32
    chain_fields = [
        (name, b" i=%d; " % number + b"a " * 8000)
        for number in range(1, 51)
        for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results")
    ]
    fields = [(b"Authentication-Results", lookalike)] * 64 + chain_fields
    message = Message.of_fields((*fields, (b"From", b" a@victim.example"), (b"Message-ID", b" <1@x>")))
    settings = SealSettings(
        entry=OURS, outbound=RecipientPatterns(everybody=True), secrets=(b"a" * 40, b"b" * 40)
    )
    chain = read_chain(message, ArcSettings())
    began = time.process_time()
    found = recall(message, chain, settings, now=NOW)
    assert isinstance(found, NotSealed)
    assert found.reason is NotSealedReason.NO_CUSTODY
    assert time.process_time() - began < 0.1


def test_only_the_trusted_hop_brings_something_back(config: str) -> None:
    _came, inside = passed(MESSAGE, config, rcpt="l@lists.ours.example")
    verdict, out = passed(inside, config, rcpt="member@far.example")
    assert verdict.sealing is None
    assert b"custody" not in out  # from the internet such a field is forged


def test_dns_trouble_at_arrival_leaves_nothing_to_seal(config: str) -> None:
    zone = {**ZONE, "arc1._domainkey.sealer.example": {"TXT": "SERVFAIL"}}
    _came, inside = passed(sealed(MESSAGE), config, rcpt="l@lists.ours.example", zone=zone)
    assert b".unsure." in inside
    verdict, out = passed(inside, config, rcpt="member@far.example", client=HOP)
    assert verdict.sealing is not None
    assert verdict.sealing.reason == NotSealedReason.CHAIN_UNCHECKED
    assert names(out).count("ARC-Seal") == 1


def test_an_older_secret_is_still_accepted(config: str, tmp_path: Path) -> None:
    _came, inside = passed(MESSAGE, config, rcpt="l@lists.ours.example")
    (tmp_path / "secret").write_bytes(b"c" * 40 + b"\n" + b"a" * 40 + b"\n")
    verdict, _out = passed(inside, config, rcpt="m@far.example", client=HOP)
    assert verdict.sealing is not None
    assert verdict.sealing.sealed
    (tmp_path / "secret").write_bytes(b"d" * 40)
    verdict, _out = passed(inside, config, rcpt="m@far.example", client=HOP)
    assert verdict.sealing is not None
    assert verdict.sealing.reason == NotSealedReason.NO_CUSTODY


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("    selector: arc1\n", ""), "sealing needs `selector`"),
        (("secret: ", "was: "), "was"),
        (("forward@ours.example", "forward"), "expected user@example.com"),
    ],
)
def test_mistakes_in_the_settings(config: str, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        a_runtime(config.replace(*change), ZONE)
    assert message in str(caught.value)


def test_keys_and_secrets_that_are_refused(config: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(ConfigError, match="fewer than 32"):
        a_runtime(config, ZONE)
    (tmp_path / "secret").write_bytes(b"a" * 40)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match="secret"):
        a_runtime(config, ZONE)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "key.pem").write_bytes(an_entry(KeyKind.ED25519).key.pem())
    with pytest.raises(ConfigError, match="no RSA key"):
        a_runtime(config, ZONE)
    with pytest.raises(ValueError, match="needs a secret"):
        SealSettings(entry=OURS, outbound=RecipientPatterns(everybody=True))


def test_recipient_patterns() -> None:
    patterns = RecipientPatterns.of(("Joe@a.example", "*@b.example"))
    fits = [
        t
        for t in ("joe@a.example", "x@a.example", "x@b.example", "x@c.b.example")
        if patterns.fit([parse_recipient(t)])
    ]
    assert fits == ["joe@a.example", "x@b.example"]
    assert RecipientPatterns.of(("*",)).fit([parse_recipient("anybody")])
    assert not RecipientPatterns.of(("*",)).fit([])
    with pytest.raises(ValueError, match="no recipient"):
        RecipientPatterns.of(("a.example",))
