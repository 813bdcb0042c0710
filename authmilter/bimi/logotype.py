"""The logotype extension of a mark certificate: the image it carries, and whether the hash beside it holds.

RFC 9399 (and RFC 3709 before it) §4.1. A mark certificate names one image of the subject, as a `data:` URI with an SVG
document in base64, mostly compressed. Promises: bounded work, whatever the octets. How it fails: `LogotypeError`, with
a machine word and our own words.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from authmilter.bimi import der
from authmilter.bimi.der import DerError
from authmilter.bimi.gzipped import is_gzip, unpack

__all__ = ["MAX_EXTENSION", "MAX_IMAGE", "Logotype", "LogotypeError", "read_logotype"]

#: Octets of the extension that are read; one with a 32 KiB image in base64, not compressed, stays far below.
MAX_EXTENSION = 512 << 10
#: Octets of an image, uncompressed; the image's own rules allow less.
MAX_IMAGE = 256 << 10

#: RFC 9399 §4.1 LogotypeExtn: subjectLogo [2] EXPLICIT; §4.1 LogotypeInfo: direct [0].
_SUBJECT_LOGO, _DIRECT = der.context(2), der.context(0)
#: Hash algorithms by their object identifiers. SHA-1 is in use for this (the image is in the same signed certificate,
#: so nothing rests on it alone); MD5 is not read.
_HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
# RFC 2397   dataurl := "data:" [ mediatype ] [ ";base64" ] "," data ; RFC 6170 §4: image/svg+xml or its compressed form
_DATA = re.compile(
    rb"data:image/svg\+xml(?:[+-](?:gzip|compressed))?(?:;charset=utf-8)?;base64,", re.IGNORECASE
)
_MEDIA_TYPES = frozenset({b"image/svg+xml", b"image/svg+xml+gzip", b"image/svg+xml-compressed"})


class LogotypeError(ValueError):
    """The extension cannot be used: `problem` is a machine word, the message our own words."""

    def __init__(self, problem: str, message: str) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Logotype:
    """The image of a certificate's subject: `svg` uncompressed, and the name of the `hash` that was held against it."""

    svg: bytes
    hash: str


def read_logotype(extension: bytes) -> Logotype:
    """Return the image in a logotype extension (its DER value), its hash verified.

    Raises:
        LogotypeError: `logotype_malformed`, `logotype_image` (not exactly one embedded SVG image of the subject),
            `logotype_hash_algorithm` or `logotype_hash`.
    """
    if len(extension) > MAX_EXTENSION:
        raise LogotypeError(
            "logotype_malformed", f"the logotype extension is longer than {MAX_EXTENSION} octets"
        )
    try:
        media_type, hashes, uris = _details(extension)
    except DerError as e:
        raise LogotypeError("logotype_malformed", f"the logotype extension cannot be read: {e}") from None
    if media_type.lower() not in _MEDIA_TYPES:
        raise LogotypeError("logotype_image", "the embedded image is not of type image/svg+xml")
    embedded = [uri for uri in uris if uri[:5].lower() == b"data:"]
    if len(embedded) != 1:
        raise LogotypeError("logotype_image", "the image is not embedded as one data: URI")
    data = _decode(embedded[0])
    svg = data
    if is_gzip(data):
        unpacked = unpack(data, MAX_IMAGE)
        if unpacked is None:
            raise LogotypeError(
                "logotype_image", f"the embedded image does not unpack to at most {MAX_IMAGE} octets"
            )
        svg = unpacked
    elif len(svg) > MAX_IMAGE:
        raise LogotypeError("logotype_image", f"the embedded image is longer than {MAX_IMAGE} octets")
    return Logotype(svg=svg, hash=_verified(hashes, data, svg))


def _details(extension: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...], tuple[bytes, ...]]:
    """Return the media type, hashes and addresses of the subject's one image."""
    logos = [e for e in der.children(der.only(extension, der.SEQUENCE)) if e.tag == _SUBJECT_LOGO]
    if len(logos) != 1:
        raise LogotypeError("logotype_image", "the certificate has no subject logo")
    info = der.children(logos[0].content)
    if len(info) != 1 or info[0].tag != _DIRECT:
        raise LogotypeError("logotype_image", "the subject logo is a reference, not an image")
    # LogotypeData ::= SEQUENCE { image SEQUENCE OF LogotypeImage OPTIONAL, audio [1] ... OPTIONAL }
    images = [e for e in der.children(info[0].content) if e.tag == der.SEQUENCE]
    found = der.children(images[0].content) if images else ()
    if len(found) != 1:
        raise LogotypeError("logotype_image", "the subject logo does not have exactly one image")
    # LogotypeImage ::= SEQUENCE { imageDetails LogotypeDetails, imageInfo ... OPTIONAL }
    image = der.children(_content(found[0], der.SEQUENCE))
    if not image:
        raise DerError("an image is empty")
    details = der.children(_content(image[0], der.SEQUENCE))
    # LogotypeDetails ::= SEQUENCE { mediaType IA5String, logotypeHash SEQUENCE OF ..., logotypeURI SEQUENCE OF ... }
    if len(details) != 3:
        raise DerError("the details of an image do not have three parts")
    hashes = tuple(_hash(e) for e in der.children(_content(details[1], der.SEQUENCE)))
    uris = tuple(_content(e, der.IA5_STRING) for e in der.children(_content(details[2], der.SEQUENCE)))
    return _content(details[0], der.IA5_STRING), hashes, uris


def _content(element: der.Element, tag: int) -> bytes:
    if element.tag != tag:
        raise DerError(f"an element has tag {element.tag:#04x} where {tag:#04x} should be")
    return element.content


def _hash(element: der.Element) -> tuple[str, bytes]:
    """Return the algorithm's object identifier and the hash (HashAlgAndValue)."""
    parts = der.children(_content(element, der.SEQUENCE))
    if len(parts) != 2:
        raise DerError("a hash does not have two parts")
    algorithm = der.children(_content(parts[0], der.SEQUENCE))
    if not algorithm:
        raise DerError("a hash has no algorithm")
    return der.oid(_content(algorithm[0], der.OID)), _content(parts[1], der.OCTET_STRING)


def _decode(uri: bytes) -> bytes:
    head = _DATA.match(uri)
    if head is None:
        raise LogotypeError("logotype_image", "the embedded image is not an SVG document in base64")
    try:
        return base64.b64decode(uri[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise LogotypeError("logotype_image", "the embedded image is not well-formed base64") from None


def _verified(hashes: tuple[tuple[str, bytes], ...], data: bytes, svg: bytes) -> str:
    """Return the name of the hash that holds.

    RFC 9399 §4.1 hashes what the address gives; the authorities hash the document uncompressed (RFC 6170 §4). Each
    stands for the same image, so that either is taken; a known hash that does not hold fails the certificate.
    """
    known = [(_HASHES[algorithm], value) for algorithm, value in hashes if algorithm in _HASHES]
    if not known:
        raise LogotypeError("logotype_hash_algorithm", "no hash of the image is of a known algorithm")
    for name, value in known:
        if value not in (hashlib.new(name, svg).digest(), hashlib.new(name, data).digest()):
            raise LogotypeError(
                "logotype_hash", f"the {name} hash in the certificate is not that of the image"
            )
    return known[-1][0]
