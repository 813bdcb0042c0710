"""The room of the `cryptography` library: public keys, private keys, signatures (RFC 8301, RFC 8463).

Strangers' public keys: a key that cannot be read is None; a signature that does not hold is False. Nothing
there raises for anything a stranger can send, and sizes are judged by the caller.

Our own private keys: `load_signing_key` and the generators give a `SigningKey` or raise `KeyMaterialError`
with words for the administrator. No text of a private key reaches an error or a `repr`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from authmilter.errors import KeyMaterialError

__all__ = [
    "Ed25519Key",
    "KeyKind",
    "PublicKey",
    "RsaKey",
    "SigningKey",
    "generate_signing_key",
    "load_ed25519",
    "load_rsa",
    "load_signing_key",
]

_PADDING = PKCS1v15()
_HASH = SHA256()
_DIGEST = Prehashed(_HASH)

#: RFC 8301 §3.2: Signers MUST use RSA keys of at least 1024 bits ...
MIN_RSA_BITS = 1024
#: ... and SHOULD use RSA keys of at least 2048 bits.
GOOD_RSA_BITS = 2048
#: RFC 8301 §3.2: Verifiers MUST be able to validate signatures with keys ranging from 1024 bits to 4096 bits.
SAFE_RSA_BITS = 4096
#: Beyond this nobody verifies, ourselves included.
MAX_RSA_BITS = 8192
#: Octets in a file with a private key; an RSA key of 8192 bits in PEM has 6,400.
MAX_KEY_OCTETS = 64 * 1024


@dataclass(frozen=True, slots=True)
class RsaKey:
    """An RSA public key: `bits` of its modulus and of its exponent."""

    key: RSAPublicKey
    bits: int
    exponent_bits: int

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Return whether `signature` is RSASSA-PKCS1-v1_5 with SHA-256 over `data` (RFC 6376 §3.3.2)."""
        try:
            self.key.verify(signature, data, _PADDING, _HASH)
        except InvalidSignature:
            return False
        return True

    def verify_digest(self, signature: bytes, digest: bytes) -> bool:
        """Do the same where the SHA-256 digest of the data is known."""
        try:
            self.key.verify(signature, digest, _PADDING, _DIGEST)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Ed25519Key:
    """An Ed25519 public key; `bits` is 256."""

    key: Ed25519PublicKey
    bits: int = 256

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Return whether `signature` is PureEdDSA over the SHA-256 digest of `data` (RFC 8463 §3)."""
        try:
            self.key.verify(signature, hashlib.sha256(data).digest())
        except InvalidSignature:
            return False
        return True

    def verify_digest(self, signature: bytes, digest: bytes) -> bool:
        """Do the same where the SHA-256 digest of the data is known."""
        try:
            self.key.verify(signature, digest)
        except InvalidSignature:
            return False
        return True


PublicKey = RsaKey | Ed25519Key


def load_rsa(der: bytes) -> RsaKey | None:
    """Return the RSA key of `der`: SubjectPublicKeyInfo, as deployed, or RSAPublicKey, as RFC 6376 §3.6.1 says.

    None if it is neither, or holds a key of another kind.
    """
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, RSAPublicKey):
        return None
    return RsaKey(key, key.key_size, key.public_numbers().e.bit_length())


def load_ed25519(raw: bytes) -> Ed25519Key | None:
    """Return the Ed25519 key whose 32 octets are `raw` (RFC 8463 §4); None if it is none."""
    try:
        return Ed25519Key(Ed25519PublicKey.from_public_bytes(raw))
    except (ValueError, UnsupportedAlgorithm):
        return None


class KeyKind(StrEnum):
    """k= of a key record (RFC 6376 §3.6.1, RFC 8463 §4)."""

    RSA = "rsa"
    ED25519 = "ed25519"

    @property
    def algorithm(self) -> str:
        """a= of a signature by such a key (RFC 8301 §3.1, RFC 8463 §3)."""
        return f"{self.value}-sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key that may sign: its `kind`, `bits` (the RSA modulus, or 256), and `public`, the octets of p=.

    `public` is SubjectPublicKeyInfo for RSA, as everybody publishes it, and the 32 octets for Ed25519 (RFC 8463 §4).
    `warning` says in our words what is unwise about the key, or is empty. The private part never shows.
    """

    kind: KeyKind
    bits: int
    public: bytes
    warning: str = ""
    _key: RSAPrivateKey | Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`: what b= holds, decoded (RFC 6376 §3.3, RFC 8463 §3)."""
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(data, _PADDING, _HASH)
        return self._key.sign(hashlib.sha256(data).digest())

    @property
    def record(self) -> str:
        """The text of the key's TXT record (RFC 6376 §3.6.1)."""
        return f"v=DKIM1; k={self.kind.value}; p={base64.b64encode(self.public).decode('ascii')}"

    def public_key(self) -> PublicKey:
        """Return the public key as a verifier reads it from `record`."""
        read = load_rsa(self.public) if self.kind is KeyKind.RSA else load_ed25519(self.public)
        if read is None:
            raise KeyMaterialError("the public part of the key cannot be read back")
        return read

    def pem(self) -> bytes:
        """Return the private key as PKCS#8 PEM (RFC 7468 §10), for the file it is kept in. It is a secret."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def generate_signing_key(kind: KeyKind, *, rsa_bits: int = GOOD_RSA_BITS) -> SigningKey:
    """Return a new private key.

    Args:
        kind: which.
        rsa_bits: the modulus's size, 1024 to 8192; for RSA only.

    Raises:
        KeyMaterialError: a size that is refused.
    """
    if kind is KeyKind.ED25519:
        return _ed25519(Ed25519PrivateKey.generate())
    _check_rsa_bits(rsa_bits)
    return _rsa(rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits))


def load_signing_key(data: bytes, *, validated: bool = False) -> SigningKey:
    """Return the private key that a file holds.

    Read are PEM (PKCS#1 `RSA PRIVATE KEY`, PKCS#8 `PRIVATE KEY`; text around it is passed over), DER of these, the 32
    octets of an Ed25519 key (RFC 8032 §5.1.5) or those followed by their public key, and base64 of any of these.

    Args:
        data: the file's octets.
        validated: these octets have been loaded before, by whoever checked the configuration: the primality tests
            of an RSA key, 28 ms for 2048 bits and 200 ms for 4096, are not done again.

    Raises:
        KeyMaterialError: it is none of these, a key of another kind, protected by a passphrase, or RSA of fewer
            than 1024 or more than 8192 bits.
    """
    if len(data) > MAX_KEY_OCTETS:
        raise KeyMaterialError(f"this is no private key: it is larger than {MAX_KEY_OCTETS >> 10} KiB")
    if not data.strip():
        raise KeyMaterialError("there is nothing in it")
    if b"-----BEGIN " in data:
        return _load_pem(data, validated=validated)
    # Before base64: 32 octets of a key are printable text once in 10^13, and such text is somebody's mistake.
    if len(data) in {32, 64} and not data.isascii():
        return _load_raw(data)
    octets = data
    if _BASE64.fullmatch(data):
        try:
            octets = binascii.a2b_base64(data, strict_mode=False)
        except binascii.Error:
            octets = b""
    if len(octets) in {32, 64} and octets is not data:
        return _load_raw(octets)
    if octets.startswith(b"\x30"):  # DER: a SEQUENCE
        return _loaded(lambda: load_der_private_key(octets, None, unsafe_skip_rsa_key_validation=validated))
    raise KeyMaterialError("this is no private key: neither PEM, nor DER, nor an Ed25519 key of 32 octets")


_BASE64 = re.compile(rb"[A-Za-z0-9+/ \t\r\n]+={0,2}[ \t\r\n]*")
# RFC 7468 §2
_PEM_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_PRIVATE_LABELS = (b"PRIVATE KEY", b"RSA PRIVATE KEY")
_PEM_BLOCK = re.compile(rb"-----BEGIN (?P<label>(?:RSA )?PRIVATE KEY)-----[^-]+-----END (?P=label)-----")


def _load_pem(data: bytes, *, validated: bool) -> SigningKey:
    labels = _PEM_LABEL.findall(data)
    private = [label for label in labels if label in _PRIVATE_LABELS]
    if len(private) > 1:
        raise KeyMaterialError("there is more than one private key in it")
    if private:
        block = _PEM_BLOCK.search(data)
        if block is None:
            # a `Proc-Type: 4,ENCRYPTED` line has a hyphen, and so has a file that was cut
            if b"ENCRYPTED" in data:
                raise KeyMaterialError(_ENCRYPTED)
            raise KeyMaterialError("the PEM text is damaged or cut off")
        pem = block.group()
        return _loaded(lambda: load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=validated))
    label = labels[0].decode("ascii") if labels else ""
    if label == "ENCRYPTED PRIVATE KEY":
        raise KeyMaterialError(_ENCRYPTED)
    if "PUBLIC KEY" in label or label == "CERTIFICATE":
        raise KeyMaterialError("this is a public key or certificate: the private key is needed")
    raise KeyMaterialError("there is no PRIVATE KEY or RSA PRIVATE KEY in the PEM text")


_ENCRYPTED = "the key is protected by a passphrase: keep it without one, readable by the service only"


def _loaded(load: Callable[[], object]) -> SigningKey:
    """Return what `load` gives, if it is a key that may sign."""
    try:
        key = load()
    except TypeError:
        raise KeyMaterialError(_ENCRYPTED) from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's words would quote our input.
        raise KeyMaterialError("the private key is damaged, or of a kind that is not supported") from None
    if isinstance(key, RSAPrivateKey):
        return _rsa(key)
    if isinstance(key, Ed25519PrivateKey):
        return _ed25519(key)
    raise KeyMaterialError("the key is neither RSA nor Ed25519: DKIM has no other (RFC 8301, RFC 8463)")


def _load_raw(octets: bytes) -> SigningKey:
    key = _ed25519(Ed25519PrivateKey.from_private_bytes(octets[:32]))
    if len(octets) == 64 and octets[32:] != key.public:
        raise KeyMaterialError("the two halves of the Ed25519 key do not belong together")
    return key


def _check_rsa_bits(bits: int) -> None:
    if bits < MIN_RSA_BITS:
        raise KeyMaterialError(
            f"the RSA key has {bits} bits: under {MIN_RSA_BITS} nobody accepts it (RFC 8301 §3.2)"
        )
    if bits > MAX_RSA_BITS:
        raise KeyMaterialError(f"the RSA key has {bits} bits: nobody verifies more than {MAX_RSA_BITS}")


def _rsa(key: RSAPrivateKey) -> SigningKey:
    bits = key.key_size
    _check_rsa_bits(bits)
    warning = ""
    if bits < GOOD_RSA_BITS:
        warning = f"the RSA key has {bits} bits: {GOOD_RSA_BITS} or more are advised (RFC 8301 §3.2)"
    elif bits > SAFE_RSA_BITS:
        warning = f"the RSA key has {bits} bits: verifiers need not accept more than {SAFE_RSA_BITS} (RFC 8301 §3.2)"
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(kind=KeyKind.RSA, bits=bits, public=public, warning=warning, _key=key)


def _ed25519(key: Ed25519PrivateKey) -> SigningKey:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return SigningKey(kind=KeyKind.ED25519, bits=256, public=public, _key=key)
