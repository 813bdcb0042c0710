"""Private keys: every format that is read, and every mistake told in clear words."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.dkim import key as records
from authmilter.dkim.crypto import KeyKind, SigningKey, generate_signing_key, load_signing_key
from authmilter.errors import KeyMaterialError
from tests.support.signing import signing_key

RSA, ED = signing_key(KeyKind.RSA, 2048), signing_key(KeyKind.ED25519)
RSA_OBJECT = load_pem_private_key(RSA.pem(), None)
ED_OBJECT = load_pem_private_key(ED.pem(), None)
assert isinstance(RSA_OBJECT, rsa.RSAPrivateKey)
assert isinstance(ED_OBJECT, Ed25519PrivateKey)
PKCS1 = RSA_OBJECT.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
PKCS1_DER = RSA_OBJECT.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
PKCS8_DER = RSA_OBJECT.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
SEED = ED_OBJECT.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

FORMATS: dict[str, tuple[bytes, SigningKey]] = {
    "PKCS#1 PEM": (PKCS1, RSA),
    "PKCS#8 PEM, RSA": (RSA.pem(), RSA),
    "PKCS#8 PEM, Ed25519": (ED.pem(), ED),
    "PEM with CRLF": (PKCS1.replace(b"\n", b"\r\n"), RSA),
    "PEM with text around it": (b"Bag Attributes\n friendlyName: s1\n" + RSA.pem() + b"\ntrailing\n", RSA),
    "PEM with its public key behind it": (
        PKCS1 + RSA_OBJECT.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        RSA,
    ),
    "PKCS#1 DER": (PKCS1_DER, RSA),
    "PKCS#8 DER": (PKCS8_DER, RSA),
    "base64 of DER": (base64.encodebytes(PKCS1_DER), RSA),
    "32 octets": (SEED, ED),
    "base64 of 32 octets": (base64.b64encode(SEED), ED),
    "base64 of 32 octets and a line end": (base64.b64encode(SEED) + b"\n", ED),
    "64 octets, private and public": (SEED + ED.public, ED),
    "base64 of 64 octets": (base64.b64encode(SEED + ED.public) + b"\n", ED),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("validated", [False, True])
def test_every_format_of_a_key_file_is_read(name: str, validated: bool) -> None:  # noqa: FBT001 - a parameter
    data, expected = FORMATS[name]
    if len(SEED) == 32 and data is SEED and SEED.isascii():
        pytest.skip("once in 2^32 keys")
    key = load_signing_key(data, validated=validated)
    assert (key.kind, key.bits, key.public, key.warning) == (
        expected.kind,
        expected.bits,
        expected.public,
        "",
    )
    assert key.public_key().verify(key.sign(b"data"), b"data")
    assert not key.public_key().verify(key.sign(b"data"), b"Data")


def test_a_keys_record_is_read_by_the_verifier() -> None:
    for key in (RSA, ED):
        record = records.parse(key.record.encode())
        assert record.problem is None
        assert record.kind == key.kind.value
        assert record.key is not None
        assert record.key.verify(key.sign(b"x"), b"x")


def _refused(data: bytes) -> str:
    with pytest.raises(KeyMaterialError) as caught:
        load_signing_key(data)
    return str(caught.value)


def test_what_is_no_usable_key_is_refused_in_clear_words() -> None:
    encrypted = BestAvailableEncryption(b"secret")
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    cases = {
        b"": "nothing in it",
        b" \r\n": "nothing in it",
        b"hello": "no private key",
        b"x" * 70_000: "larger than 64 KiB",
        b"A" * 32: "no private key",
        SEED + bytes(32): "do not belong together",
        RSA.pem()[: len(RSA.pem()) // 2]: "damaged or cut off",
        RSA.pem().replace(b"M", b"N", 3): "damaged",
        PKCS1_DER[:-5]: "damaged",
        PKCS1 + RSA.pem(): "more than one",
        RSA_OBJECT.private_bytes(pem, pkcs8, encrypted): "passphrase",
        RSA_OBJECT.private_bytes(pem, PrivateFormat.TraditionalOpenSSL, encrypted): "passphrase",
        RSA_OBJECT.private_bytes(Encoding.DER, pkcs8, encrypted): "passphrase",
        RSA_OBJECT.public_key().public_bytes(pem, PublicFormat.SubjectPublicKeyInfo): "public key",
        b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n": "certificate",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nMII=\n-----END OPENSSH PRIVATE KEY-----\n": "no PRIVATE KEY",
        ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, NoEncryption()): "neither RSA nor",
        ed448.Ed448PrivateKey.generate().private_bytes(pem, pkcs8, NoEncryption()): "neither RSA nor",
    }
    assert len(cases) == 18
    for data, words in cases.items():
        said = _refused(data)
        assert words in said, (data[:40], said)
        assert "MII" not in said


def test_rsa_sizes() -> None:
    with pytest.raises(KeyMaterialError, match="512 bits: under 1024"):
        generate_signing_key(KeyKind.RSA, rsa_bits=512)
    with pytest.raises(KeyMaterialError, match="more than 8192"):
        generate_signing_key(KeyKind.RSA, rsa_bits=16384)
    assert "2048 or more are advised" in signing_key(KeyKind.RSA, 1024).warning
    assert RSA.warning == ""
    # RFC 5280 lets such a key be written; made by hand, because no library makes it any more
    assert "under 1024" in _refused(SHORT)


#: a 512-bit RSA key, PKCS#1
SHORT = b"""-----BEGIN RSA PRIVATE KEY-----
MIIBOgIBAAJBAM02a1G82Q8FDOj9mpI70Zz8WmKUvIEWzqPAbaY5vjqc/Mz7llLi
iSIO87Z14VM3bcPQoMyB0MBPG2es16Rp8OsCAwEAAQJAI7vaLD2KPodOnDOs+tHX
ylJXGttzh7cE/JbBgTSE34euabzuCL2qv7LiOR+BWpDS2T3r80p5R+3bM/+8t+OZ
AQIhAP6b7eVGJePnCw3w7mWXJMNho38ppY7t1f9t9hEPzaQhAiEAzlVortvXN4y5
BP9dywJ2UvCmgm2BnevL3CK+kO4nc4sCIGuv+eu6QrZk91j7KWnQhp0Yw/U54StV
zuhNUwEeZQThAiEAnmjOHOklOz2r0p1n2fNC+nxNqfb+u0qL0a9PFR/yY+8CIGsk
BqU5Il3dRH/o/FgiY7G8OPoKLvkzwZEtRuV1IA5I
-----END RSA PRIVATE KEY-----
"""


def test_a_private_key_never_shows() -> None:
    for key in (RSA, ED):
        shown = repr(key)
        assert "_key" not in shown
        assert repr(SEED) not in shown
        assert str(key) == shown


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(FORMATS)), st.integers(0, 3000))
def test_any_octets_give_a_key_or_an_error_of_ours(noise: bytes, name: str, place: int) -> None:
    data = FORMATS[name][0]
    place %= len(data)
    for candidate in (noise, data[:place] + noise + data[place:], data[:place]):
        try:
            key = load_signing_key(candidate)
        except KeyMaterialError:
            continue
        assert key.public_key().verify(key.sign(b"x"), b"x")
