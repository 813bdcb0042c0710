"""Attacks on DKIM verifiers, numbered as in the list of published attacks; the secure outcome of each."""

from __future__ import annotations

import time

import pytest

from authmilter.dkim import check
from authmilter.dkim.result import DkimProblem, DkimStatus
from authmilter.dkim.signature import DkimLimits, read
from authmilter.message import Message
from tests.support.builders import a_lookup
from tests.support.dkim_keys import (
    BODY,
    HEADERS,
    MESSAGE,
    NAMES,
    NOW,
    SHORT_KEYS,
    a_zone,
    ed25519_key,
    judge,
    judge_one,
    public_key_of,
    rsa_key,
    sign,
)

KEY = rsa_key(2048)
ZONE = a_zone(KEY)
#: what the attacker has: a domain with a working key
EVIL = a_zone(KEY, domain="attack.example", selector="s1")


def asked(message: bytes) -> int:
    """Return how many keys were asked for."""
    parsed, _ = Message.parse(message)
    lookup = a_lookup({})
    check.verify_headers(parsed, read(parsed, DkimLimits()), lookup, DkimLimits(), now=NOW)
    return lookup.asked


@pytest.mark.parametrize(
    "tags",
    [
        {"s": "x._domainkey.attack.example.\0.any"},  # 4
        {"d": "example.com\0.attack.example"},  # 4
        {"d": "example.com'a.attack.example"},  # 5
        {"d": 'example.com"a.attack.example'},  # 5
        {"d": "example.com(.attack.example"},  # 6
        {"s": "a(b"},  # 6
        {"d": "example.com; header.d=x"},  # the rest of the list is then no tag list either
    ],
)
def test_rows_4_5_6_odd_octets_in_d_and_s_are_refused_without_a_question(tags: dict[str, str]) -> None:
    message = sign(MESSAGE, KEY, tags=tags)
    result = judge_one(message, EVIL)
    if ";" not in str(tags):
        assert (result.status, result.problem) == (DkimStatus.PERMERROR, DkimProblem.BAD_DOMAIN)
        assert result.domain is None or result.selector == ""
    assert result.status is not DkimStatus.PASS
    assert asked(message) == 0


def test_row_13_a_from_with_a_space_before_the_colon_is_a_from() -> None:
    mine = b"From: first@attack.example\r\nTo: b@example.net\r\n\r\n" + BODY
    signed = sign(mine, KEY, domain="attack.example", names=("from", "to"))
    assert judge_one(signed, EVIL).status is DkimStatus.PASS
    for other in (b"From : admin@example.com\r\n", b"FROM\t: admin@example.com\r\n"):
        on_top = judge_one(other + signed, EVIL)
        assert (on_top.status, on_top.problem) == (DkimStatus.POLICY, DkimProblem.UNSIGNED_AUTHOR)
        assert on_top.unsigned_critical == ("from",)
        below = judge_one(signed.replace(b"\r\n\r\n", b"\r\n" + other + b"\r\n", 1), EVIL)
        assert below.problem is DkimProblem.SIGNATURE


def test_row_14_a_from_with_a_folded_name_is_a_from() -> None:
    mine = b"From\r\n : first@attack.example\r\n\r\n" + BODY
    signed = sign(mine, KEY, domain="attack.example", names=("from",))
    results = judge(b"From: admin@example.com\r\n" + signed, EVIL)
    assert [r.status for r in results] == [DkimStatus.POLICY]
    assert results[0].problem is DkimProblem.UNSIGNED_AUTHOR


def test_a_from_that_only_some_readers_see_is_a_from() -> None:
    signed = sign(MESSAGE, KEY)
    for hidden in (b"\rFrom: eve@example.net\r\n", b"X: y\rFrom: eve@example.net\r\n"):
        result = judge_one(hidden + signed, ZONE)
        assert (result.status, result.problem) == (DkimStatus.POLICY, DkimProblem.UNSIGNED_AUTHOR)


def test_row_32_fields_that_are_not_signed_may_change_and_are_told() -> None:
    message = b"Content-Type: text/plain\r\nContent-Disposition: inline\r\n" + MESSAGE
    signed = sign(message, KEY, names=("from",))
    changed = signed.replace(b"text/plain", b"text/html").replace(b"two  blanks", b"another")
    result = judge_one(changed, ZONE)
    assert result.status is DkimStatus.PASS
    assert set(result.unsigned_critical) == {
        "subject",
        "to",
        "date",
        "message-id",
        "content-type",
        "content-disposition",
    }


@pytest.mark.parametrize("name", ["Subject", "To", "Date", "Message-ID", "Content-Type"])
def test_row_33_a_second_singleton_on_top_is_told(name: str) -> None:
    signed = sign(b"Content-Type: text/plain\r\n" + MESSAGE, KEY, names=(*NAMES, "content-type"))
    result = judge_one(name.encode() + b": another\r\n" + signed, ZONE)
    assert result.status is DkimStatus.PASS
    assert result.unsigned_critical == (name.lower(),)


@pytest.mark.parametrize("length", ["0", "7"])
def test_row_34_an_appended_body_is_policy_and_its_octets_are_counted(length: str) -> None:
    signed = sign(MESSAGE, KEY, tags={"l": length}, form="simple/simple")
    appended = b"<html>pay here</html>\r\n"
    before, after = judge_one(signed, ZONE), judge_one(signed + appended, ZONE)
    assert (after.status, after.problem) == (DkimStatus.POLICY, DkimProblem.UNSIGNED_BODY)
    # the two empty lines at the end of the body count once something follows them
    assert after.unsigned_body_bytes == before.unsigned_body_bytes + len(b"\r\n\r\n" + appended)


def test_row_35_a_replayed_message_passes_until_x_and_tells_its_times() -> None:
    now = int(NOW.timestamp())
    fresh = judge_one(sign(MESSAGE, KEY, tags={"t": str(now - 100), "x": str(now + 100)}), ZONE)
    assert (fresh.status, fresh.timestamp, fresh.expires) == (DkimStatus.PASS, now - 100, now + 100)
    stale = judge_one(sign(MESSAGE, KEY, tags={"t": str(now - 9000), "x": str(now - 8000)}), ZONE)
    assert (stale.status, stale.problem) == (DkimStatus.FAIL, DkimProblem.EXPIRED)


def test_row_36_a_signature_that_does_not_cover_from_never_passes() -> None:
    message = sign(MESSAGE, KEY, names=("to", "subject"))
    replaced = message.replace(b"alice@example.com", b"ceo@example.com")
    for raw in (message, replaced):
        result = judge_one(raw, ZONE)
        assert (result.status, result.problem) == (DkimStatus.PERMERROR, DkimProblem.FROM_NOT_SIGNED)
        assert not result.covers_from
        assert asked(raw) == 0


def test_row_37_sha1_and_short_keys_never_pass() -> None:
    sha1 = judge_one(sign(MESSAGE, KEY, tags={"a": "rsa-sha1"}), ZONE)
    assert (sha1.status, sha1.problem) == (DkimStatus.PERMERROR, DkimProblem.SHA1)
    for bits, key in SHORT_KEYS.items():
        signed = sign(MESSAGE, key)
        short = judge_one(signed, a_zone(key))
        assert (short.status, short.problem) == (DkimStatus.PERMERROR, DkimProblem.KEY_TOO_SHORT)
        assert short.key_bits == bits
        # and it is the length alone that is wrong with them
        assert judge_one(signed, a_zone(key), DkimLimits(min_rsa_bits=512)).status is DkimStatus.PASS


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("h=sha1;", DkimProblem.KEY_HASH),
        ("h=sha1:sha512;", DkimProblem.KEY_HASH),
        ("h=sha1:sha256;", None),
        ("t=s;", DkimProblem.KEY_STRICT),
        ("t=y:s;", DkimProblem.KEY_STRICT),
        ("s=other;", DkimProblem.KEY_SERVICE),
        ("s=other:*;", None),
        ("s=other:email;", None),
    ],
)
def test_row_38_a_keys_restrictions_are_enforced(extra: str, problem: DkimProblem | None) -> None:
    signed = sign(MESSAGE, KEY, tags={"i": "alice@sub.example.com"})
    assert judge_one(signed, a_zone(KEY, extra=extra)).problem is problem


def test_row_38_a_strict_key_allows_its_own_domain_in_any_spelling() -> None:
    for identity in ("@example.com", "alice@EXAMPLE.com", None):
        signed = sign(MESSAGE, KEY, tags={"i": identity})
        assert judge_one(signed, a_zone(KEY, extra="t=s;")).status is DkimStatus.PASS


def test_row_39_key_and_algorithm_of_different_kinds() -> None:
    rsa_with_ed = judge_one(sign(MESSAGE, KEY), a_zone(ed25519_key()))
    ed_with_rsa = judge_one(sign(MESSAGE, ed25519_key()), ZONE)
    for result in (rsa_with_ed, ed_with_rsa):
        assert (result.status, result.problem) == (DkimStatus.PERMERROR, DkimProblem.KEY_TYPE)
    lying = {"s1._domainkey.example.com": {"TXT": [f"k=rsa; p={ed25519_key().public}"]}}
    assert judge_one(sign(MESSAGE, KEY), lying).problem is DkimProblem.KEY_SYNTAX


@pytest.mark.parametrize("domain", ["com", "co.uk"])
def test_row_40_a_public_suffix_may_sign_and_names_itself_only(domain: str) -> None:
    result = judge_one(sign(MESSAGE, KEY, domain=domain), a_zone(KEY, domain=domain))
    assert result.status is DkimStatus.PASS
    assert result.domain is not None
    assert result.domain.ascii == domain


def test_row_44_smuggled_lines_are_hashed_as_they_stand() -> None:
    smuggled = b"text\n.\r\nMAIL FROM:<a@example.com>\r\rmore\r\n"
    for form in ("simple/simple", "relaxed/relaxed"):
        signed = sign(HEADERS + b"\r\n" + smuggled, KEY, form=form)
        assert judge_one(signed, ZONE).status is DkimStatus.PASS
        for normal in (smuggled.replace(b"\n.", b"\r\n."), smuggled.replace(b"\r\r", b"\r\n\r\n")):
            assert judge_one(signed.replace(smuggled, normal), ZONE).problem is DkimProblem.BODY_HASH


# ----- row 48: exhaustion ---------------------------------------------------------------------------------------


def seconds(message: bytes, zone: dict[str, object], limits: DkimLimits) -> float:
    parsed, start = Message.parse(message)
    began = time.process_time()
    results = check.verify(parsed, message[start:], a_lookup(zone), limits, now=NOW)
    spent = time.process_time() - began
    assert all(r.status is not DkimStatus.INTERNAL_ERROR for r in results)
    return spent


WIDE = DkimLimits(signatures=1000, listed=5000, header_bytes=10_000_000, folds=1_000_000, h_names=1_000_000)


def test_row_48_a_folded_signature_of_24_kilobytes() -> None:
    """dkimpy needs seconds for it."""
    folded = sign(MESSAGE, KEY, tags={"z": "\r\n " * 8000 + "x"})
    assert judge_one(folded, ZONE).problem is DkimProblem.LIMIT
    for z in ("\r\n " * 8000 + "x", "\r\n x" * 6000, " " * 24000, "x=" * 12000):
        message = sign(MESSAGE, KEY, tags={"z": z})
        assert seconds(message, ZONE, WIDE) < 0.5
        assert judge_one(message, ZONE, WIDE).status is DkimStatus.PASS
    in_b = sign(MESSAGE, KEY).replace(b"; b=", b"; b=" + b"\r\n " * 8000)
    assert seconds(in_b, ZONE, WIDE) < 0.5
    assert judge_one(in_b, ZONE, WIDE).status is DkimStatus.PASS


def test_row_48_a_hundred_thousand_names_in_h() -> None:
    many = ":".join(["from", *(f"x{n}" for n in range(50_000)), *["x"] * 50_000])
    value = f" v=1; a=rsa-sha256; d=example.com; s=s1; h={many}; bh=AAAA; b=AAAA".encode()
    fields = [
        (b"DKIM-Signature", value),
        *((b"X", b" %d" % n) for n in range(900)),
        (b"From", b" a@example.com"),
    ]
    message = Message.of_fields(fields)
    began = time.process_time()
    (signature,) = read(message, DkimLimits())
    assert signature.problem is DkimProblem.LIMIT
    assert read(message, DkimLimits(header_bytes=10_000_000))[0].problem is DkimProblem.LIMIT
    signatures = read(message, WIDE)
    check.verify_headers(message, signatures, a_lookup(ZONE), WIDE, now=NOW)
    assert time.process_time() - began < 2.0


def test_row_48_thousands_of_signatures() -> None:
    one = sign(MESSAGE, KEY)[: -len(MESSAGE)]
    crowd = one * 900 + MESSAGE
    assert seconds(crowd, ZONE, DkimLimits()) < 0.5
    results = judge(crowd, ZONE)
    assert len(results) <= 100
    assert sum(r.status is DkimStatus.PASS for r in results) == 10


def test_row_48_a_key_of_16384_bits_is_not_computed_with() -> None:
    zone: dict[str, object] = {
        "s1._domainkey.example.com": {"TXT": [f"p={public_key_of((1 << 16383) + 1, 65537)}"]}
    }
    result = judge_one(sign(MESSAGE, KEY), zone)
    assert (result.problem, result.key_bits) == (DkimProblem.KEY_TOO_LONG, 16384)


def test_row_48_an_oversized_record_and_many_records() -> None:
    huge: dict[str, object] = {"s1._domainkey.example.com": {"TXT": ["p=" + "A" * 60_000]}}
    assert judge_one(sign(MESSAGE, KEY), huge).problem is DkimProblem.LIMIT
    wrong = [f"n={n}; p={rsa_key(2048, 1).public}" for n in range(500)]
    crowd: dict[str, object] = {"s1._domainkey.example.com": {"TXT": [*wrong, KEY.record]}}
    assert judge_one(sign(MESSAGE, KEY), crowd).problem is DkimProblem.SIGNATURE
    assert seconds(sign(MESSAGE, KEY), crowd, DkimLimits()) < 0.5
