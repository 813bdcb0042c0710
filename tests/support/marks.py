"""Mark certificates as an authority would issue them, good unless told otherwise, and a TLS server's."""

from __future__ import annotations

import base64
import gzip
import hashlib
import ipaddress
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

__all__ = [
    "NOW", "SVG", "Authority", "Mark", "a_bundle", "a_crl", "a_key", "a_mark", "a_tls_certificate", "an_authority",
    "an_rsa_key", "der", "intermediate", "logotype", "pem", "root", "scts",
]  # fmt: skip

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

#: When the certificates below are valid.
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
BIMI = ObjectIdentifier("1.3.6.1.5.5.7.3.31")
MARK_TYPE = ObjectIdentifier("1.3.6.1.4.1.53087.1.13")
POLICY = ObjectIdentifier("1.3.6.1.4.1.53087.1.1")
PILOT = ObjectIdentifier("1.3.6.1.4.1.53087.4.1")
LOGOTYPE = ObjectIdentifier("1.3.6.1.5.5.7.1.12")
SCT = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
CRL = "http://crl.ca.example/marks.crl"

SVG = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 100 100">\n'
    b"<title>Example</title>\n"
    b'<rect x="0" y="0" width="100" height="100" fill="#fff"/>\n'
    b'<circle cx="50" cy="50" r="40" fill="#0e6cf1"/>\n'
    b"</svg>\n"
)


def der(tag: int, *contents: bytes) -> bytes:
    """Return a DER element."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


SHA1 = bytes.fromhex("2b0e03021a")
SHA256 = bytes.fromhex("608648016503040201")
MD5 = bytes.fromhex("2a864886f70d0205")


def logotype(
    svg: bytes = SVG,
    *,
    packed: bool = True,
    algorithm: bytes = SHA256,
    digest: bytes | None = None,
    media_type: bytes = b"image/svg+xml",
    uri: bytes | None = None,
    images: int = 1,
) -> bytes:
    """Return a logotype extension (RFC 9399 §4.1) with the image embedded."""
    data = gzip.compress(svg, mtime=0) if packed else svg
    value = hashlib.sha256(svg).digest() if digest is None else digest
    if uri is None:
        uri = b"data:image/svg+xml;base64," + base64.b64encode(data)
    hashed = der(0x30, der(0x30, der(0x06, algorithm), der(0x05)), der(0x04, value))
    details = der(0x30, der(0x16, media_type), der(0x30, hashed), der(0x30, der(0x16, uri)))
    return der(0x30, der(0xA2, der(0xA0, der(0x30, *[der(0x30, details)] * images))))


def scts(count: int = 1) -> bytes:
    """Return the value of the extension with Signed Certificate Timestamps (RFC 6962 §3.3)."""
    signature = der(0x30, der(0x02, b"\x01"), der(0x02, b"\x01"))
    one = b"\0" + bytes(32) + (1_700_000_000_000).to_bytes(8, "big") + b"\0\0\x04\x03"
    one += len(signature).to_bytes(2, "big") + signature
    entries = (len(one).to_bytes(2, "big") + one) * count
    return der(0x04, len(entries).to_bytes(2, "big") + entries)


@lru_cache(maxsize=64)
def a_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """Return a P-256 key, the same for the same number."""
    assert number >= 0
    return ec.generate_private_key(ec.SECP256R1())


@lru_cache(maxsize=4)
def an_rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """Return an RSA key of so many bits."""
    return rsa.generate_private_key(65537, bits)


@dataclass(frozen=True)
class Authority:
    """A certificate that issues others, with its key."""

    certificate: x509.Certificate
    key: Key


def _name(text: str, *more: x509.NameAttribute[str]) -> x509.Name:
    return x509.Name(
        [
            *more,
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
    )


def _public(key: Key) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
    return key.public_key()


def an_authority(
    name: str = "Mark Root",
    *,
    issuer: Authority | None = None,
    key: Key | None = None,
    ca: bool = True,
    path_length: int | None = None,
    signs: bool | None = True,
    purposes: tuple[ObjectIdentifier, ...] | None = (BIMI,),
    begin: datetime = NOW - 300 * DAY,
    end: datetime = NOW + 3000 * DAY,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    digest: hashes.HashAlgorithm | None = None,
) -> Authority:
    """Return an authority; a root unless it has an issuer."""
    own = key if key is not None else a_key(10 + zlib.crc32(name.encode()) % 40)
    above = issuer.certificate.subject if issuer is not None else _name(name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(above)
        .public_key(_public(own))
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    if signs is not None:
        builder = builder.add_extension(_usage(signs=signs), critical=True)
    if issuer is not None:
        builder = builder.add_extension(x509.CRLDistributionPoints([_point(CRL)]), critical=False)
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signer = issuer.key if issuer is not None else own
    return Authority(builder.sign(signer, _digest(signer, digest)), own)


def _digest(key: Key, digest: hashes.HashAlgorithm | None) -> hashes.SHA256 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    return digest or hashes.SHA256()  # type: ignore[return-value]  # a weak one, on purpose


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _point(url: str) -> x509.DistributionPoint:
    return x509.DistributionPoint(
        full_name=[x509.UniformResourceIdentifier(url)], relative_name=None, reasons=None, crl_issuer=None
    )


@lru_cache(maxsize=1)
def root() -> Authority:
    """Return the root that the certificates here lead to."""
    return an_authority("Mark Root", key=a_key(1))


@lru_cache(maxsize=1)
def intermediate() -> Authority:
    """Return the authority that issues mark certificates."""
    return an_authority("Mark CA 1", issuer=root(), key=a_key(2), path_length=0)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a mark certificate says; every default is right."""

    names: tuple[str, ...] | None = ("example.com",)
    mark_types: tuple[str, ...] = ("Registered Mark",)
    purposes: tuple[ObjectIdentifier, ...] | None = (BIMI,)
    policies: tuple[ObjectIdentifier, ...] = (POLICY,)
    logotype: bytes | None = field(default_factory=logotype)
    timestamps: bytes | None = field(default_factory=scts)
    crl: str | None = CRL
    begin: datetime = NOW - 30 * DAY
    end: datetime = NOW + 300 * DAY
    ca: bool = False
    signs: bool | None = None
    key: Key = field(default_factory=lambda: a_key(3))
    digest: hashes.HashAlgorithm | None = None
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    serial: int = 4711


def a_mark(mark: Mark | None = None, issuer: Authority | None = None) -> x509.Certificate:
    """Return a mark certificate."""
    mark = mark if mark is not None else Mark()
    issuer = issuer if issuer is not None else intermediate()
    marks = [x509.NameAttribute(MARK_TYPE, text) for text in mark.mark_types]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("Example, Inc.", *marks))
        .issuer_name(issuer.certificate.subject)
        .public_key(_public(mark.key))
        .serial_number(mark.serial)
        .not_valid_before(mark.begin)
        .not_valid_after(mark.end)
        .add_extension(x509.BasicConstraints(ca=mark.ca, path_length=None), critical=True)
        # as the authorities issue them: a pilot's extension, critical
        .add_extension(x509.UnrecognizedExtension(PILOT, der(0x0C, b"Mark Certificate")), critical=True)
    )
    found: list[x509.ExtensionType] = []
    if mark.names is not None:
        found.append(x509.SubjectAlternativeName([x509.DNSName(n) for n in mark.names]))
    if mark.purposes is not None:
        found.append(x509.ExtendedKeyUsage(mark.purposes))
    if mark.policies:
        found.append(x509.CertificatePolicies([x509.PolicyInformation(p, None) for p in mark.policies]))
    if mark.logotype is not None:
        found.append(x509.UnrecognizedExtension(LOGOTYPE, mark.logotype))
    if mark.timestamps is not None:
        found.append(x509.UnrecognizedExtension(SCT, mark.timestamps))
    if mark.crl is not None:
        found.append(x509.CRLDistributionPoints([_point(mark.crl)]))
    if mark.signs is not None:
        found.append(_usage(signs=mark.signs))
    for extension in found:
        builder = builder.add_extension(extension, critical=False)
    for extra, critical in mark.extensions:
        builder = builder.add_extension(extra, critical=critical)
    return builder.sign(issuer.key, _digest(issuer.key, mark.digest))


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as a file."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def a_bundle(mark: Mark | None = None) -> bytes:
    """Return the file that `a=` names: the mark certificate and its authority."""
    return pem(a_mark(mark), intermediate().certificate)


def a_crl(
    issuer: Authority | None = None,
    *revoked: int,
    end: datetime = NOW + DAY,
    key: Key | None = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """Return a revocation list."""
    issuer = issuer if issuer is not None else intermediate()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(NOW - 2 * DAY)
        .next_update(end)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()
        builder = builder.add_revoked_certificate(entry)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signer = key if key is not None else issuer.key
    assert not isinstance(signer, ed25519.Ed25519PrivateKey)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def a_tls_certificate(
    *names: str, issuer: Authority | None = None, expired: bool = False
) -> tuple[bytes, bytes]:
    """Return a TLS server's certificate for these names (valid around the real now) and its key, as PEM."""
    key = a_key(4)
    today = datetime.now(UTC)
    issuer = issuer if issuer is not None else a_tls_authority()
    alternatives: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(names[0]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - 20 * DAY)
        .not_valid_after(today - 10 * DAY if expired else today + 10 * DAY)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # Python 3.13 and later want what RFC 5280 §4.2.1.1 asks for
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(issuer.key)), critical=False
        )
        .sign(issuer.key, _digest(issuer.key, None))
    )
    return pem(certificate), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@lru_cache(maxsize=1)
def a_tls_authority() -> Authority:
    """Return the authority of the TLS certificates here, valid around the real now."""
    today = datetime.now(UTC)
    key = a_key(5)
    named = x509.SubjectKeyIdentifier.from_public_key(_public(key))
    return an_authority(
        "TLS Root", key=key, begin=today - 30 * DAY, end=today + 30 * DAY, extensions=[(named, False)]
    )
