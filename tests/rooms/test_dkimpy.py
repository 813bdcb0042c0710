"""dkimpy 1.1.8 as it is: one test for each oddity that keeps it out of the verdict.

It is our oracle, so its defects must be known by name. When one of these goes red, dkimpy has changed:
delete the test, and the exception that the oracle tests make for it.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import dkim
import dkim.crypto
import dkim.dnsplug
import pytest
from dkim.canonicalization import Relaxed

from tests.support.dkim_keys import (
    MESSAGE,
    NAMES,
    a_zone,
    dkimpy_body,
    dkimpy_header,
    dkimpy_sign,
    dkimpy_verifies,
    ed25519_key,
    rsa_key,
    sign,
)

KEY = rsa_key(1024)
ZONE = a_zone(KEY)
SIGNED = sign(MESSAGE, KEY)


def answering(text: bytes | str | None) -> Callable[..., bytes | str | None]:
    def lookup(name: bytes, timeout: int = 5) -> bytes | str | None:  # noqa: ARG001 - dkimpy's shape
        return text

    return lookup


def timing_out(name: bytes, timeout: int = 5) -> bytes:
    raise dkim.DnsTimeoutError(f"{name!r} {timeout}")


def test_the_oracle_works_at_all() -> None:
    assert dkimpy_verifies(SIGNED, ZONE)
    assert not dkimpy_verifies(SIGNED.replace(b"Hello", b"hello"), ZONE)


def test_a_timeout_a_missing_a_revoked_and_a_garbage_key_all_give_false() -> None:
    for lookup in (timing_out, answering(None), answering(b"v=DKIM1; p="), answering(b"garbage")):
        assert dkim.verify(SIGNED, dnsfunc=lookup) is False


def test_verify_leaves_its_results_on_the_object() -> None:
    verifier = dkim.DKIM(SIGNED)
    assert (verifier.domain, verifier.keysize) == (None, 0)
    verifier.verify(dnsfunc=answering(KEY.record.encode()))
    assert (verifier.domain, verifier.keysize) == (b"example.com", 1024)


def test_the_module_function_looks_at_the_topmost_signature_only() -> None:
    covered = b"DKIM-Signature: garbage\r\n" + SIGNED
    assert dkim.verify(covered, dnsfunc=answering(KEY.record.encode())) is False
    assert dkimpy_verifies(covered, ZONE, index=1)


def test_the_resolver_is_chosen_when_the_module_is_imported() -> None:
    assert inspect.signature(dkim.verify).parameters["dnsfunc"].default is dkim.dnsplug.get_txt


def test_several_services_of_a_key_are_taken_for_one_unknown_one() -> None:
    assert dkimpy_verifies(SIGNED, a_zone(KEY, extra="s=email;"))
    assert not dkimpy_verifies(SIGNED, a_zone(KEY, extra="s=tlsrpt:email;"))
    # the bare except swallows its own "unknown service type": there is an answer, and it is empty
    assert dkim.evaluate_pk(b"x", a_record(" s=other;"))[0] is None


def a_record(extra: str) -> bytes:
    return KEY.record.replace(" p=", f"{extra} p=").encode()


def test_a_keys_hashes_and_strictness_are_ignored() -> None:
    assert dkimpy_verifies(SIGNED, a_zone(KEY, extra="h=sha1;"))
    assert dkimpy_verifies(sign(MESSAGE, KEY, tags={"i": "@sub.example.com"}), a_zone(KEY, extra="t=s;"))


def test_rsa_sha1_verifies() -> None:
    assert dkimpy_verifies(sign(MESSAGE, KEY, tags={"a": "rsa-sha1"}), ZONE)


def test_a_body_appended_behind_l_verifies() -> None:
    assert dkimpy_verifies(sign(MESSAGE, KEY, tags={"l": "5"}) + b"appended\r\n", ZONE)


def test_a_signature_that_does_not_cover_from_verifies_with_any_from() -> None:
    signed = sign(MESSAGE, KEY, names=("to", "subject"))
    assert dkimpy_verifies(signed.replace(b"alice@example.com", b"ceo@example.com"), ZONE)


def test_clocks_may_differ_by_ten_hours() -> None:
    now = int(datetime.now(UTC).timestamp())
    for tags in ({"t": str(now + 35000)}, {"x": str(now - 35000)}):
        assert dkimpy_verifies(sign(MESSAGE, KEY, tags=tags), ZONE)


def test_a_selector_and_a_domain_may_hold_anything() -> None:
    asked: list[bytes] = []

    def lookup(name: bytes, timeout: int = 5) -> bytes:  # noqa: ARG001 - dkimpy's shape
        asked.append(name)
        return KEY.record.encode()

    assert dkim.verify(sign(MESSAGE, KEY, selector="x._domainkey.a.example.\0.any"), dnsfunc=lookup)
    assert dkim.verify(sign(MESSAGE, KEY, domain="example.com'a.attack.example"), dnsfunc=lookup)
    assert asked == [
        b"x._domainkey.a.example.\0.any._domainkey.example.com.",
        b"s1._domainkey.example.com'a.attack.example.",
    ]


def test_tag_values_are_read_loosely() -> None:
    # `\s` is more than FWS: a vertical tab may stand in base64
    assert dkimpy_verifies(re.sub(rb"(; b=.{20})", b"\\1\x0b", SIGNED, count=1), ZONE)


def test_white_space_behind_b_is_not_taken_out() -> None:
    signed = sign(MESSAGE, KEY, tail=b"; z=x")
    assert dkimpy_verifies(signed, ZONE)
    assert not dkimpy_verifies(signed.replace(b"; z=x", b" ; z=x"), ZONE)


def test_an_uncovered_second_from_is_the_one_addition_it_guards_against() -> None:
    assert not dkimpy_verifies(b"From: eve@example.net\r\n" + SIGNED, ZONE)
    assert dkimpy_verifies(b"Subject: another\r\n" + SIGNED, ZONE)


def test_a_from_with_a_blank_before_the_colon_is_taken_for_an_mbox_line() -> None:
    assert dkimpy_verifies(b"From : admin@example.com\r\n" + SIGNED, ZONE)
    assert dkimpy_verifies(SIGNED.replace(b"\r\n\r\n", b"\r\nFrom : admin@example.com\r\n\r\n", 1), ZONE)


def test_bare_line_feeds_become_line_ends() -> None:
    assert dkimpy_verifies(SIGNED.replace(b"\r\n", b"\n"), ZONE)


def test_header_canonicalization_strips_more_than_blanks() -> None:
    assert dkimpy_header(b"Subject", b" \x0bx\x0c ") == b"subject:x"
    assert dkimpy_header(b"Subject", b" a\n b") == b"subject:a b"


def test_a_last_line_of_blanks_without_line_end_is_kept() -> None:
    assert dkimpy_body(b"a\r\n ", "relaxed") == b"a\r\n \r\n"


# ----- crashes --------------------------------------------------------------------------------------------------


def test_a_message_that_begins_with_white_space_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        dkim.verify(b" From: a@example.com\r\n" + SIGNED, dnsfunc=answering(b""))


def test_key_text_beyond_ascii_is_a_unicode_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        dkim.verify(SIGNED, dnsfunc=answering(f"v=DKIM1; n=\u00fc; p={KEY.public}"))


def test_an_ed25519_key_for_an_rsa_signature_is_an_exception_with_or_without_pynacl() -> None:
    with pytest.raises((dkim.NaClNotFoundError, ValueError)):
        dkim.DKIM(SIGNED).verify(dnsfunc=answering(ed25519_key().record.encode()))


# ----- slow -----------------------------------------------------------------------------------------------------


def fastest(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def test_a_folded_signature_costs_the_square_of_its_folds() -> None:
    def emptied(folds: int) -> float:
        value = b" v=1; b=" + b"\r\n " * folds + b"!"
        return fastest(lambda: dkim.RE_BTAG.sub(b"\\1", value))

    assert emptied(4000) > 16 * emptied(500)  # linear: 8, squared: 64


def test_a_run_of_blanks_in_the_body_costs_the_square_of_its_length() -> None:
    def canonicalized(blanks: int) -> float:
        return fastest(lambda: Relaxed.canonicalize_body(b" " * blanks + b"x\r\n"))

    assert canonicalized(12_000) > 16 * canonicalized(1500)  # linear: 8, squared: 64


def test_rsa_signs_in_python_integers() -> None:
    assert "pow" in dkim.crypto.rsa_decrypt.__code__.co_names


# ----- ARC ------------------------------------------------------------------------------------------------------


def sealed(results: bytes) -> bytes:
    message = b"Authentication-Results: mx.example.com; " + results + b"\r\n" + MESSAGE
    names = [n.encode() for n in NAMES]
    lines = dkim.arc_sign(message, b"s1", b"example.com", KEY.pem, b"mx.example.com", include_headers=names)
    return b"".join(lines) + message


def test_the_timeout_of_arc_verify_is_ignored() -> None:
    timeouts: set[int] = set()

    def lookup(name: bytes, timeout: int) -> bytes:  # noqa: ARG001 - dkimpy's shape
        timeouts.add(timeout)
        return KEY.record.encode()

    result, _, _ = dkim.arc_verify(sealed(b"spf=pass"), dnsfunc=lookup, timeout=1)
    assert result == dkim.CV_Pass
    assert timeouts == {5}


def test_an_ended_arc_chain_is_reported_as_none() -> None:
    once = sealed(b"spf=pass")
    names = [n.encode() for n in NAMES]
    again = b"Authentication-Results: mx.example.com; arc=fail\r\n" + once
    lines = dkim.arc_sign(again, b"s1", b"example.com", KEY.pem, b"mx.example.com", include_headers=names)
    result, _, reason = dkim.arc_verify(b"".join(lines) + again, dnsfunc=answering(KEY.record.encode()))
    assert result is None
    assert "terminated" in reason


def test_an_arc_instance_without_a_blank_before_it_is_an_index_error() -> None:
    message = re.sub(rb"(ARC-Message-Signature:)\s*i=1;", rb"\1i=1;", sealed(b"spf=pass"), count=1)
    with pytest.raises(IndexError):
        dkim.arc_verify(message, dnsfunc=answering(KEY.record.encode()))


def test_it_signs_what_its_own_verifier_accepts() -> None:
    assert dkimpy_verifies(dkimpy_sign(MESSAGE, KEY), ZONE)
