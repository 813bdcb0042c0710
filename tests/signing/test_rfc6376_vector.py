"""RFC 6376 appendix A.2, signed again with the key of appendix C.

RSASSA-PKCS1-v1_5 has no randomness, so the value of b= must come out octet for octet. The field around it is the
RFC's own text: our signer never writes i= or q=, and never names Received, which every hop adds; so what is compared
are the body hash and the signature, over the octets that RFC 6376 §3.7 says.
"""

from __future__ import annotations

import base64
import re

from authmilter.dkim.canonical import BodyHasher, BodyNeed, Canonicalization, canonical_field
from authmilter.dkim.crypto import load_signing_key
from authmilter.message import Message
from tests.dkim.test_dkim_vectors import RFC_6376, RFC_6376_ZONE

# RFC 6376 appendix C
KEY = b"""-----BEGIN RSA PRIVATE KEY-----
MIICXwIBAAKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFC
jxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gb
to/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB
AoGBALmn+XwWk7akvkUlqb+dOxyLB9i5VBVfje89Teolwc9YJT36BGN/l4e0l6QX
/1//6DWUTB3KI6wFcm7TWJcxbS0tcKZX7FsJvUz1SbQnkS54DJck1EZO/BLa5ckJ
gAYIaqlA9C0ZwM6i58lLlPadX/rtHb7pWzeNcZHjKrjM461ZAkEA+itss2nRlmyO
n1/5yDyCluST4dQfO8kAB3toSEVc7DeFeDhnC1mZdjASZNvdHS4gbLIA1hUGEF9m
3hKsGUMMPwJBAPW5v/U+AWTADFCS22t72NUurgzeAbzb1HWMqO4y4+9Hpjk5wvL/
eVYizyuce3/fGke7aRYw/ADKygMJdW8H/OcCQQDz5OQb4j2QDpPZc0Nc4QlbvMsj
7p7otWRO5xRa6SzXqqV3+F0VpqvDmshEBkoCydaYwc2o6WQ5EBmExeV8124XAkEA
qZzGsIxVP+sEVRWZmW6KNFSdVUpk3qzK0Tz/WjQMe5z0UunY9Ax9/4PVhp/j61bf
eAYXunajbBSOLlx4D+TunwJBANkPI5S9iylsbLs6NkaMHV6k5ioHBBmgCak95JGX
GMot/L2x0IYyMLAz6oLWh2hm7zwtb0CgOrPo1ke44hFYnfc=
-----END RSA PRIVATE KEY-----
"""


def test_the_signature_of_rfc_6376_is_made_again_octet_for_octet() -> None:
    message, start = Message.parse(RFC_6376)
    signature, *fields = message.headers
    simple = Canonicalization.SIMPLE
    unsigned, count = re.subn(rb"( b=)[^;]*", rb"\1", signature.value)
    assert count == 1
    # RFC 6376 §3.7: the named fields in the order of h=, here that of the message, then the field itself without CRLF
    data = b"".join(canonical_field(h.name, h.value, simple) + b"\r\n" for h in fields)
    data += canonical_field(signature.name, unsigned, simple)
    key = load_signing_key(KEY)
    made = base64.b64encode(key.sign(data))
    assert made in b"".join(signature.value.split())
    assert made.startswith(b"AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB")
    need = BodyNeed(simple)
    hasher = BodyHasher(frozenset({need}))
    hasher.update(RFC_6376[start:])
    assert base64.b64encode(hasher.finish()[need].digest) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="


def test_the_record_of_rfc_6376_is_that_of_its_private_key() -> None:
    (strings,) = RFC_6376_ZONE["brisbane._domainkey.example.com"]["TXT"]
    published = "".join(strings).partition("p=")[2]
    assert load_signing_key(KEY).record == f"v=DKIM1; k=rsa; p={published}"
