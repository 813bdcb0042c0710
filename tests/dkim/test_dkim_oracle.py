"""dkimpy as the oracle: what it signs verifies, and on generated and mutated mail both say the same.

dkimpy's known defects (tests/rooms/test_dkimpy.py pins each) are the only differences allowed, each by name.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from tests.support.dkim_keys import (
    MESSAGE,
    NAMES,
    NOW,
    a_zone,
    dkimpy_sign,
    dkimpy_verifies,
    judge_one,
    rsa_key,
    sign,
)

KEY = rsa_key(1024)  # the oracle computes in pure Python
ZONE = a_zone(KEY)
forms = st.tuples(st.sampled_from(["simple", "relaxed"]), st.sampled_from(["simple", "relaxed"]))

words = st.text(alphabet="abc ,;:=<>()\"'\t", max_size=12)
field_values = st.lists(words, min_size=1, max_size=4).map(
    lambda ws: " " + "\r\n ".join(["x", *(w + "." for w in ws)])
)
optional = st.lists(
    st.tuples(st.sampled_from(["Cc", "X-a", "x-A", "Received", "Reply-To"]), field_values), max_size=5
)
lines = st.text(alphabet="ab .\t", max_size=10)


@st.composite
def mails(draw: st.DrawFn) -> bytes:
    fields = [("From", " Alice <alice@example.com>"), ("Subject", draw(field_values)), *draw(optional)]
    order = draw(st.permutations(fields))
    block = "".join(f"{name}:{value}\r\n" for name, value in order)
    body = "".join(line + "\r\n" for line in draw(st.lists(lines, max_size=8)))
    return (block + "\r\n" + body).encode()


@settings(max_examples=60, deadline=None)
@given(mails(), forms, st.booleans())
def test_what_dkimpy_signs_passes(mail: bytes, form: tuple[str, str], length: bool) -> None:  # noqa: FBT001 - drawn
    names = ["from", "subject", "from", "x-a", "cc", "reply-to", "x-a", "x-missing"]
    signed = dkimpy_sign(mail, KEY, form=form, names=names, length=length)
    result = judge_one(signed, ZONE)
    assert result.status is DkimStatus.PASS, (result.problem, result.detail)
    assert dkimpy_verifies(signed, ZONE)


@settings(max_examples=60, deadline=None)
@given(mails(), forms)
def test_what_the_reference_signs_passes_here_and_in_dkimpy(mail: bytes, form: tuple[str, str]) -> None:
    signed = sign(mail, KEY, form="/".join(form), names=("from", "from", "subject", "x-a", "x-a", "cc"))
    assert judge_one(signed, ZONE).status is DkimStatus.PASS
    assert dkimpy_verifies(signed, ZONE)


# ----- mutations ------------------------------------------------------------------------------------------------

edits = st.tuples(
    st.sampled_from(["delete", "insert", "replace", "double", "swap"]),
    st.integers(min_value=0, max_value=2000),
    st.sampled_from(
        [
            b"a",
            b"A",
            b" ",
            b"\t",
            b";",
            b"=",
            b":",
            b"\r\n ",
            b"\r\n",
            b"0",
            b"\x80",
            b"From: e@example.net\r\n",
        ]
    ),
)


def mutate(raw: bytes, edit: tuple[str, int, bytes]) -> bytes:
    kind, place, octets = edit
    place %= len(raw)
    match kind:
        case "delete":
            return raw[:place] + raw[place + 1 :]
        case "insert":
            return raw[:place] + octets + raw[place:]
        case "replace":
            return raw[:place] + octets + raw[place + 1 :]
        case "double":
            return raw[:place] + raw[place : place + 1] + raw[place:]
        case _:
            return raw[:place] + raw[place + 1 : place + 2] + raw[place : place + 1] + raw[place + 2 :]


def allowed(raw: bytes, ours: DkimResult, oracle: bool) -> str:  # noqa: FBT001 - the oracle's answer
    """Name the defect of dkimpy that explains a difference; an empty text if none does."""
    fields = re.split(rb"\r\n(?![ \t])", raw.partition(b"\r\n\r\n")[0])
    if oracle and ours.problem is DkimProblem.SYNTAX:
        return "reads tag lists and values loosely"
    if oracle and ours.problem is DkimProblem.BAD_DOMAIN:
        return "does not validate d= and s="
    if re.search(rb"\r(?!\n)|(?<!\r)\n", raw):
        return "normalizes line ends"
    if oracle and any(b"\x0b" in f or b"\x0c" in f for f in fields):
        return "takes vertical tab and form feed for white space"
    if not oracle and re.search(rb"b=[^;]*[ \t\r\n](?:\Z|;)", fields[0]):
        return "leaves white space behind b= in place"
    if not all(re.match(rb"[!-9;-~]+:", f) for f in fields):
        return "refuses the message for a line that is no field, or a blank before the colon"
    return ""


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["simple/simple", "relaxed/relaxed", "relaxed/simple"]),
    st.lists(edits, min_size=1, max_size=2),
)
def test_both_say_the_same_of_mutated_mail(form: str, changes: list[tuple[str, int, bytes]]) -> None:
    raw = sign(MESSAGE, KEY, form=form)
    for edit in changes:
        raw = mutate(raw, edit)
    assume(raw.lower().count(b"dkim-signature:") == 1 and raw.lower().startswith(b"dkim-signature:"))
    result = judge_one(raw, ZONE)
    try:
        oracle = dkimpy_verifies(raw, ZONE)
    except (IndexError, ValueError):  # UnicodeError is one: crashes of the oracle are its own
        oracle = False
    if (result.status is DkimStatus.PASS) != oracle:
        assert allowed(raw, result, oracle), (raw, result.problem, result.detail, oracle)


@pytest.mark.parametrize("form", ["simple/simple", "relaxed/relaxed"])
def test_every_single_octet_of_a_signed_message_matters_to_both_alike(form: str) -> None:
    signed = sign(MESSAGE, KEY, form=form, names=(*NAMES, "from"))
    end = len(signed) - len(b" \r\n\r\n\r\n")
    differences = []
    for place in range(len(b"DKIM-Signature:"), end, 3):
        raw = signed[:place] + bytes((signed[place] ^ 1,)) + signed[place + 1 :]
        if raw.lower().count(b"dkim-signature:") != 1:
            continue
        result = judge_one(raw, ZONE)
        try:
            oracle = dkimpy_verifies(raw, ZONE)
        except (IndexError, ValueError):
            oracle = False
        if (result.status is DkimStatus.PASS) != oracle and not allowed(raw, result, oracle):
            differences.append((place, raw[place - 5 : place + 5], result.problem, oracle))
    assert not differences


# ----- the differences, by name ---------------------------------------------------------------------------------


def at(seconds: int) -> str:
    return str(int(datetime.now(UTC).timestamp()) + seconds)


def test_ours_refuses_what_dkimpy_lets_pass() -> None:
    key, zone = KEY, ZONE
    cases = {
        DkimProblem.SHA1: (sign(MESSAGE, key, tags={"a": "rsa-sha1"}), zone),
        DkimProblem.FROM_NOT_SIGNED: (sign(MESSAGE, key, names=("to", "subject")), zone),
        DkimProblem.UNSIGNED_BODY: (sign(MESSAGE, key, tags={"l": "5"}) + b"appended\r\n", zone),
        DkimProblem.KEY_HASH: (sign(MESSAGE, key), a_zone(key, extra="h=sha1;")),
        DkimProblem.KEY_STRICT: (
            sign(MESSAGE, key, tags={"i": "@sub.example.com"}),
            a_zone(key, extra="t=s;"),
        ),
        DkimProblem.BAD_DOMAIN: (
            sign(MESSAGE, key, domain="example.com'a.attack.example"),
            a_zone(key, domain="example.com_a.attack.example")
            | {"s1._domainkey.example.com'a.attack.example": {"TXT": [key.record]}},
        ),
        DkimProblem.EXPIRED: (sign(MESSAGE, key, tags={"x": at(-7200)}), zone),
        DkimProblem.TIMES: (sign(MESSAGE, key, tags={"t": at(7200)}), zone),
    }
    for problem, (raw, published) in cases.items():
        assert dkimpy_verifies(raw, published), problem
        result = judge_one(raw, published, now=datetime.now(UTC))
        assert result.problem is problem
        assert result.status is not DkimStatus.PASS


def test_ours_accepts_what_dkimpy_wrongly_refuses() -> None:
    # white space behind the value of b= is part of what is taken out (RFC 6376 §3.7)
    raw = sign(MESSAGE, KEY, tail=b"; z=x")
    spaced = raw.replace(b"; z=x", b" ; z=x")
    assert judge_one(raw, ZONE).status is DkimStatus.PASS
    assert dkimpy_verifies(raw, ZONE)
    assert judge_one(spaced, ZONE, now=NOW + timedelta(days=1)).status is DkimStatus.PASS
    assert not dkimpy_verifies(spaced, ZONE)
    # s= of a key is a list
    zone = a_zone(KEY, extra="s=tlsrpt:email;")
    assert judge_one(raw, zone).status is DkimStatus.PASS
    assert not dkimpy_verifies(raw, zone)
