"""The room of the `cryptography` library: public keys, and whether a signature holds (RFC 8301, RFC 8463).

A key that cannot be read is None; a signature that does not hold is False. Nothing here raises for anything
a stranger can send. Sizes are not judged here: the caller decides which keys are long enough.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

__all__ = ["Ed25519Key", "PublicKey", "RsaKey", "load_ed25519", "load_rsa"]

_PADDING = PKCS1v15()
_HASH = SHA256()


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
