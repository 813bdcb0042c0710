"""The published vectors: RFC 6376 appendix A, RFC 8463 appendix A, and the two hashes of an empty body."""

from __future__ import annotations

import base64
import hashlib

import pytest

from authmilter.dkim.canonical import BodyHasher, BodyNeed, Canonicalization, canonical_field
from authmilter.dkim.result import DkimProblem, DkimStatus
from authmilter.message import Message
from tests.support.dkim_keys import judge, judge_one

# RFC 6376 appendix A.2 with the key of appendix C; one blank after "game.", over which bh= was made.
RFC_6376 = b"""DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
RFC_6376_ZONE = {
    "brisbane._domainkey.example.com": {
        "TXT": [
            [
                "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJ",
                "W3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/R",
                "tdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPD",
                "dQPNUYckcQ2QIDAQAB",
            ]
        ]
    }
}

# RFC 8463 appendix A.3
RFC_8463 = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.

""".replace(b"\n", b"\r\n")
RFC_8463_ZONE = {
    "brisbane._domainkey.football.example.com": {
        "TXT": ["v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
    },
    "test._domainkey.football.example.com": {
        "TXT": [
            [
                "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3id",
                "Y6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lx",
                "j+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
            ]
        ]
    },
}


def test_the_message_of_rfc_6376_appendix_a_passes() -> None:
    result = judge_one(RFC_6376, RFC_6376_ZONE)
    assert result.status is DkimStatus.PASS, result.detail
    assert result.domain is not None
    assert result.domain.ascii == "example.com"
    assert result.selector == "brisbane"
    assert result.identity == "joe@football.example.com"
    assert result.algorithm == "rsa-sha256"
    assert result.key_bits == 1024
    assert result.signed_headers == ("received", "from", "to", "subject", "date", "message-id")
    assert result.unsigned_critical == ()
    assert result.signature_start == "AuUoFEfD"
    assert result.covers_from


def test_the_message_of_rfc_6376_fails_with_one_octet_changed_in_any_signed_part() -> None:
    for old, new, problem in (
        (b"Joe SixPack", b"joe SixPack", DkimProblem.SIGNATURE),
        (b"dinner ready", b"dinner  ready", DkimProblem.SIGNATURE),  # simple keeps every blank
        (b"q=dns/txt; i=", b"q=dns/txt;  i=", DkimProblem.SIGNATURE),
        (b"hungry yet", b"hungry Yet", DkimProblem.BODY_HASH),
        (b"game. Are", b"game.  Are", DkimProblem.BODY_HASH),
    ):
        assert old in RFC_6376
        result = judge_one(RFC_6376.replace(old, new, 1), RFC_6376_ZONE)
        assert (result.status, result.problem) == (DkimStatus.FAIL, problem)


def test_both_signatures_of_rfc_8463_appendix_a_pass() -> None:
    ed25519, rsa = judge(RFC_8463, RFC_8463_ZONE)
    assert (ed25519.status, ed25519.algorithm, ed25519.key_bits) == (DkimStatus.PASS, "ed25519-sha256", 256)
    assert (rsa.status, rsa.algorithm, rsa.key_bits) == (DkimStatus.PASS, "rsa-sha256", 1024)
    assert ed25519.timestamp == rsa.timestamp == 1528637909
    assert ed25519.signature_start == "/gCrinpc"


def test_both_signatures_of_rfc_8463_refuse_a_second_from() -> None:
    added = RFC_8463.replace(b"From: Joe", b"From: Eve <eve@example.net>\r\nFrom: Joe", 1)
    assert [r.problem for r in judge(added, RFC_8463_ZONE)] == [DkimProblem.SIGNATURE] * 2


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Canonicalization.SIMPLE, "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="),
        (Canonicalization.RELAXED, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    ],
)
@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n\r\n"])
def test_an_empty_body_has_the_published_hash(form: Canonicalization, expected: str, body: bytes) -> None:
    need = BodyNeed(form)
    hasher = BodyHasher(frozenset({need}))
    hasher.update(body)
    assert base64.b64encode(hasher.finish()[need].digest).decode() == expected


def test_the_example_of_rfc_6376_section_3_4_5() -> None:
    message = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n"
    parsed, start = Message.parse(message)
    relaxed = [canonical_field(h.name, h.value, Canonicalization.RELAXED) for h in parsed.headers]
    assert relaxed == [b"a:X", b"b:Y Z"]
    simple = [canonical_field(h.name, h.value, Canonicalization.SIMPLE) for h in parsed.headers]
    assert simple == [b"A: X", b"B : Y\t\r\n\tZ  "]
    relaxed_need, simple_need = BodyNeed(Canonicalization.RELAXED), BodyNeed(Canonicalization.SIMPLE)
    hasher = BodyHasher(frozenset({relaxed_need, simple_need}))
    hasher.update(message[start:])
    digests = hasher.finish()
    assert digests[relaxed_need].digest == hashlib.sha256(b" C\r\nD E\r\n").digest()
    assert digests[simple_need].digest == hashlib.sha256(b" C \r\nD \t E\r\n").digest()
