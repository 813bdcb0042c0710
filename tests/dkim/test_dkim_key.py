"""Key records: TXT octets become keys, or say why not."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dkim import crypto, key
from authmilter.dkim.key import KeyRecord
from authmilter.dkim.result import DkimProblem
from tests.support.dkim_keys import SHORT_KEYS, ed25519_key, public_key_of, rsa_key

RSA = rsa_key(2048)
ELLIPTIC = base64.b64encode(
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
#: the same on a curve that nobody knows (the last octet of its object identifier changed)
UNKNOWN_CURVE = base64.b64encode(
    base64.b64decode(ELLIPTIC).replace(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f"))
).decode()


def record(text: str | bytes) -> KeyRecord:
    return key.parse(text if isinstance(text, bytes) else text.encode())


def test_an_rsa_key_is_read_in_both_of_its_forms() -> None:
    deployed, standard = record(f"v=DKIM1; k=rsa; p={RSA.public}"), record(f"p={RSA.pkcs1}")
    assert deployed.problem is None
    assert standard.problem is None
    assert deployed.bits == standard.bits == 2048
    assert deployed.kind == standard.kind == "rsa"
    assert isinstance(deployed.key, crypto.RsaKey)
    assert isinstance(standard.key, crypto.RsaKey)
    assert deployed.key.key.public_numbers() == standard.key.key.public_numbers()


def test_an_ed25519_key_is_its_32_octets() -> None:
    found = record(ed25519_key().record)
    assert (found.problem, found.kind, found.bits) == (None, "ed25519", 256)


def test_the_defaults_are_those_of_the_standard() -> None:
    found = record(f"p={RSA.public}")
    assert (found.hashes, found.for_mail, found.testing, found.strict) == (None, True, False, False)


def test_white_space_may_stand_around_everything_and_inside_p() -> None:
    spaced = " ".join(RSA.public[i : i + 60] for i in range(0, len(RSA.public), 60))
    found = record(
        f" v = DKIM1 ;\tk= rsa; t = y : s ; h = sha1 : sha256 ; s = tlsrpt : email ; p = {spaced} ; "
    )
    assert found.problem is None, found.detail
    assert found.hashes == frozenset({"sha1", "sha256"})
    assert (found.for_mail, found.testing, found.strict) == (True, True, True)


@pytest.mark.parametrize(
    ("services", "for_mail"),
    [("*", True), ("email", True), ("other:*", True), ("other : email", True), ("other", False), ("", False)],
)
def test_services_are_a_list(services: str, *, for_mail: bool) -> None:
    assert record(f"s={services}; p={RSA.public}").for_mail is for_mail


@pytest.mark.parametrize("flags", ["x", "Y", "yes", ""])
def test_unknown_flags_are_ignored(flags: str) -> None:
    found = record(f"t={flags}; p={RSA.public}")
    assert (found.problem, found.testing, found.strict) == (None, False, False)


def test_unknown_and_retired_tags_are_ignored() -> None:
    assert record(f"v=DKIM1; g=*; n=a note, b\u00fccher; x_y=1; p={RSA.public}").problem is None


BAD: list[tuple[str | bytes, DkimProblem]] = [
    ("", DkimProblem.KEY_SYNTAX),
    ("v=spf1 -all", DkimProblem.KEY_SYNTAX),
    ("google-site-verification=abc", DkimProblem.KEY_SYNTAX),
    ("v=DKIM1", DkimProblem.KEY_SYNTAX),
    ("v=DKIM1; k=rsa", DkimProblem.KEY_SYNTAX),
    (f"v=DKIM2; p={RSA.public}", DkimProblem.KEY_SYNTAX),
    (f"v=dkim1; p={RSA.public}", DkimProblem.KEY_SYNTAX),
    (f"k=rsa; v=DKIM1; p={RSA.public}", DkimProblem.KEY_SYNTAX),
    (f"p={RSA.public}; p={RSA.public}", DkimProblem.KEY_SYNTAX),
    (f"v=DKIM1;; p={RSA.public}", DkimProblem.KEY_SYNTAX),
    (f"v=DKIM1\\; p={RSA.public}", DkimProblem.KEY_SYNTAX),
    (f"v=DKIM1; n=\0; p={RSA.public}", DkimProblem.KEY_SYNTAX),
    (b"v=DKIM1; n=\xff; p=" + RSA.public.encode(), DkimProblem.KEY_SYNTAX),
    ("p=####", DkimProblem.KEY_SYNTAX),
    ("p=AAAA", DkimProblem.KEY_SYNTAX),
    (f"p={RSA.public[:-8]}", DkimProblem.KEY_SYNTAX),
    (f"p={RSA.public[:-4]}AAAA", DkimProblem.KEY_SYNTAX),
    (f"p={ELLIPTIC}", DkimProblem.KEY_SYNTAX),
    (f"p={UNKNOWN_CURVE}", DkimProblem.KEY_SYNTAX),
    (f"p={public_key_of(15, 1)}", DkimProblem.KEY_SYNTAX),
    (f"k=ed25519; p={RSA.public}", DkimProblem.KEY_SYNTAX),
    (f"k=ed25519; p={ed25519_key().public[:-4]}", DkimProblem.KEY_SYNTAX),
    (f"k=rsa; p={ed25519_key().public}", DkimProblem.KEY_SYNTAX),
    ("v=DKIM1; p=", DkimProblem.KEY_REVOKED),
    ("p=;", DkimProblem.KEY_REVOKED),
    (f"k=RSA; p={RSA.public}", DkimProblem.KEY_TYPE),
    ("k=dsa; p=AAAA", DkimProblem.KEY_TYPE),
    (f"p={public_key_of((1 << 2048) + 1, (1 << 64) + 1)}", DkimProblem.KEY_TOO_LONG),
]


# (numbered, because the keys are new in every process)
@pytest.mark.parametrize(
    ("text", "problem"), BAD, ids=[f"{n}-{problem}" for n, (_, problem) in enumerate(BAD)]
)
def test_what_is_no_usable_key_says_why(text: str | bytes, problem: DkimProblem) -> None:
    found = record(text)
    assert found.problem is problem
    assert found.detail


def test_short_keys_are_read_and_their_bits_told() -> None:
    assert {bits: record(SHORT_KEYS[bits].record).bits for bits in SHORT_KEYS} == {512: 512, 768: 768}


def test_a_record_is_parsed_once() -> None:
    text = f"v=DKIM1; n=once; p={RSA.public}"
    assert record(text) is record(text)


# ----- several records ------------------------------------------------------------------------------------------

GOOD = RSA.record.encode()
OTHER = b"v=spf1 include:_spf.example.com -all"


def problems(*texts: bytes) -> list[DkimProblem | None]:
    return [r.problem for r in key.usable(texts, records=3, octets=4096)]


def test_what_is_no_key_record_is_passed_over() -> None:
    assert problems(OTHER, b"x", GOOD, b"") == [None]


def test_at_most_three_are_tried() -> None:
    assert problems(b"p=", GOOD, b"p=", GOOD, GOOD) == [
        DkimProblem.KEY_REVOKED,
        None,
        DkimProblem.KEY_REVOKED,
    ]


def test_where_nothing_is_a_key_record_that_is_the_answer() -> None:
    assert problems(OTHER, b"x") == [DkimProblem.KEY_SYNTAX]
    assert problems() == []


def test_a_huge_record_is_not_read() -> None:
    huge = b"p=" + b"A" * 5000
    assert problems(huge) == [DkimProblem.LIMIT]
    assert problems(OTHER, huge, GOOD) == [DkimProblem.LIMIT, None]


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from(
                [b"v=DKIM1", b"k=rsa", b"k=ed25519", b"p=", b"p=AAAA", b"t=y:s", b"h=", b"\xff", b"\r\n", b""]
            ),
            max_size=6,
        ).map(b";".join),
    )
)
def test_whatever_the_octets_there_is_a_record(text: bytes) -> None:
    found = record(text)
    assert (found.problem is None) == (found.key is not None)
