"""Mark certificates: one good, and each fault with its own word."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.bimi.vmc import (
    MAX_BUNDLE,
    MAX_CERTIFICATES,
    MAX_CRL,
    MarkReport,
    TrustRoots,
    check_mark,
    check_revocation,
    crl_addresses,
    read_roots,
)
from authmilter.names import Domain
from tests.support import marks
from tests.support.marks import (
    DAY,
    NOW,
    SVG,
    Authority,
    Mark,
    a_bundle,
    a_crl,
    a_key,
    a_mark,
    an_authority,
    an_rsa_key,
    der,
    intermediate,
    logotype,
    pem,
    root,
    scts,
)

DOMAIN = Domain.parse("example.com")
ROOTS = read_roots(pem(root().certificate))
SHA256 = hashes.SHA256()


def report(
    bundle: bytes, *, roots: TrustRoots = ROOTS, domain: Domain | None = DOMAIN, selector: str = "default"
) -> MarkReport:
    return check_mark(bundle, roots=roots, now=NOW, domain=domain, selector=selector)


def problem(found: MarkReport) -> str:
    """Return the word of the first fault; all rules that are told without a fault hold."""
    assert found.failure is not None
    assert not found.failure.passed
    return found.failure.problem


def problems(found: MarkReport) -> set[str]:
    return {f.problem for f in found.findings if not f.passed}


def issued_by(issuer: Authority, *more: Authority, mark: Mark | None = None) -> bytes:
    return pem(a_mark(mark, issuer), issuer.certificate, *(m.certificate for m in more))


def test_a_good_certificate_holds_in_every_rule() -> None:
    found = report(a_bundle())
    assert found.failure is None
    assert len(found.findings) == 20
    assert all(f.passed for f in found.findings)
    assert found.svg == SVG
    assert found.svg_sha256 == hashlib.sha256(SVG).hexdigest()
    assert found.mark_type == "Registered Mark"
    assert found.issuer == "CN=Mark CA 1,O=Test"
    assert found.names == ("example.com",)
    assert found.not_after == NOW + 300 * DAY
    assert [link.certificate.subject for link in found.path] == [
        a_mark().subject,
        intermediate().certificate.subject,
    ]


def test_the_file_may_hold_the_root_as_well() -> None:
    assert report(a_bundle() + pem(root().certificate)).failure is None


@pytest.mark.parametrize(
    "mark_type", ["Registered Mark", "Government Mark", "Prior Use Mark", "Modified Registered Mark"]
)
def test_the_mark_types_of_vmc_and_cmc_are_told(mark_type: str) -> None:
    found = report(a_bundle(Mark(mark_types=(mark_type,))))
    assert found.failure is None
    assert found.mark_type == mark_type


# -- what is wrong with the mark certificate itself: (what it says, the word) -------------------------------------------

EXPIRED = Mark(begin=NOW - 30 * DAY, end=NOW - DAY)
WEB = ExtendedKeyUsageOID.SERVER_AUTH
FAULTS = {
    "expired": (EXPIRED, {"mark_expired"}),
    "not yet valid": (Mark(begin=NOW + DAY), {"mark_not_yet_valid"}),
    "is an authority": (Mark(ca=True), {"mark_is_authority"}),
    "may sign certificates": (Mark(signs=True), {"mark_key_usage"}),
    "for web servers": (Mark(purposes=(WEB,)), {"mark_eku"}),
    "without a purpose": (Mark(purposes=None), {"mark_eku"}),
    "without the policy": (Mark(policies=()), {"mark_policy"}),
    "another policy": (Mark(policies=(ObjectIdentifier("2.16.840.1.114412.0.2.5"),)), {"mark_policy"}),
    "without a name": (Mark(names=None), {"mark_san_missing"}),
    "another domain": (Mark(names=("example.net",)), {"mark_san"}),
    "without a mark type": (Mark(mark_types=()), {"mark_type_missing"}),
    "two mark types": (Mark(mark_types=("Registered Mark", "Government Mark")), {"mark_type_missing"}),
    "an unknown mark type": (Mark(mark_types=("Registered Mark\n",)), {"mark_type_unknown"}),
    "without a timestamp": (Mark(timestamps=None), {"mark_sct"}),
    "an empty list of timestamps": (Mark(timestamps=scts(0)), {"mark_sct"}),
    "without a revocation list": (Mark(crl=None), {"mark_crl"}),
    "a revocation list by ldap": (Mark(crl="ldap://ca.example/"), {"mark_crl"}),
    "a short RSA key": (Mark(key=an_rsa_key(1024)), {"mark_key"}),
    "an Ed25519 key": (Mark(key=ed25519.Ed25519PrivateKey.generate()), {"mark_key"}),
    "an unknown critical extension": (
        Mark(extensions=((x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),)),
        {"mark_critical"},
    ),
    "name constraints": (
        Mark(extensions=((x509.NameConstraints([x509.DNSName("example.com")], None), True),)),
        {"mark_name_constraints"},
    ),
    "without a logotype": (Mark(logotype=None), {"logotype_missing"}),
    "a logotype that is no DER": (Mark(logotype=b"\x30\x80\x00\x00"), {"logotype_malformed"}),
    "a cut logotype": (Mark(logotype=logotype()[:-5]), {"logotype_malformed"}),
    "octets behind the logotype": (Mark(logotype=logotype() + b"\0"), {"logotype_malformed"}),
    "an empty logotype": (Mark(logotype=der(0x30)), {"logotype_image"}),
    "an issuer's logo only": (
        Mark(logotype=der(0x30, der(0xA1, logotype()[4:]))),
        {"logotype_image"},
    ),
    "a logo by reference": (
        Mark(logotype=der(0x30, der(0xA2, der(0xA1, der(0x30))))),
        {"logotype_image"},
    ),
    "two images": (Mark(logotype=logotype(images=2)), {"logotype_image"}),
    "no image": (Mark(logotype=logotype(images=0)), {"logotype_image"}),
    "an image of another type": (Mark(logotype=logotype(media_type=b"image/png")), {"logotype_image"}),
    "an image elsewhere": (Mark(logotype=logotype(uri=b"https://example.com/logo.svg")), {"logotype_image"}),
    "an image of another type in the address": (
        Mark(logotype=logotype(uri=b"data:image/png;base64,AAAA")),
        {"logotype_image"},
    ),
    "an image that is no base64": (
        Mark(logotype=logotype(uri=b"data:image/svg+xml;base64,A=A")),
        {"logotype_image"},
    ),
    "a damaged compressed image": (
        Mark(
            logotype=logotype(
                uri=b"data:image/svg+xml;base64," + base64.b64encode(gzip.compress(SVG)[:-9])
            )
        ),
        {"logotype_image"},
    ),
    "a gzip bomb": (Mark(logotype=logotype(b" " * 3_000_000)), {"logotype_image"}),
    "the hash of another image": (
        Mark(logotype=logotype(digest=hashlib.sha256(b"x").digest())),
        {"logotype_hash"},
    ),
    "a hash of a broken algorithm": (
        Mark(logotype=logotype(algorithm=marks.MD5, digest=bytes(16))),
        {"logotype_hash_algorithm"},
    ),
    "an image with a script": (
        Mark(logotype=logotype(SVG.replace(b"<rect", b"<script/><rect"))),
        {"svg_script"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("mark", "words"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_of_the_mark_certificate_has_its_own_word(mark: Mark, words: set[str]) -> None:
    found = report(a_bundle(mark))
    assert problems(found) == words
    assert found.failure is not None
    message = found.failure.message
    assert message.isascii()
    assert message.isprintable()


def test_every_fault_of_the_table_is_one() -> None:
    assert len(FAULTS) == 39


def test_what_a_certificate_is_good_for_besides_does_no_harm() -> None:
    assert report(a_bundle(Mark(purposes=(marks.BIMI, WEB)))).failure is None


@pytest.mark.parametrize(
    ("names", "selector", "holds"),
    [
        (("example.com",), "default", True),
        (("example.com",), "brand", True),
        (("EXAMPLE.COM",), "default", True),
        (("example.net", "example.com"), "default", True),
        (("default._bimi.example.com",), "default", True),
        (("brand._bimi.example.com",), "brand", True),
        (("brand._bimi.example.com",), "BRAND", True),
        (("a.b._bimi.example.com",), "a.b", True),
        (("brand._bimi.example.com",), "default", False),
        (("default._bimi.example.net",), "default", False),
        (("sub.example.com",), "default", False),
        (("com",), "default", False),
        (("*.com",), "default", False),
        (("*",), "default", False),
        (("ample.com",), "default", False),
        (("example.com.evil.example",), "default", False),
        (("_bimi.example.com",), "default", False),
    ],
)
def test_the_names_of_a_certificate_are_compared_whole(
    names: tuple[str, ...], selector: str, *, holds: bool
) -> None:
    found = report(a_bundle(Mark(names=names)), selector=selector)
    assert problems(found) == (set() if holds else {"mark_san"})


def test_a_subdomain_is_not_named_by_its_parent() -> None:
    assert problem(report(a_bundle(), domain=Domain.parse("mail.example.com"))) == "mark_san"


def test_without_a_domain_names_are_not_looked_at() -> None:
    found = report(a_bundle(Mark(names=("example.net",))), domain=None)
    assert found.failure is None
    assert "mark_san" not in {f.rule for f in found.findings}


@pytest.mark.parametrize(
    "good",
    [
        logotype(packed=False),
        logotype(algorithm=marks.SHA1, digest=hashlib.sha1(SVG).digest()),  # noqa: S324 - as authorities write it
        logotype(digest=hashlib.sha256(gzip.compress(SVG, mtime=0)).digest()),
        logotype(media_type=b"image/svg+xml+gzip"),
    ],
    ids=["not compressed", "SHA-1", "hash of the compressed image", "compressed type"],
)
def test_the_ways_an_image_may_be_embedded(good: bytes) -> None:
    found = report(a_bundle(Mark(logotype=good)))
    assert found.failure is None
    assert found.svg == SVG


# -- the chain -----------------------------------------------------------------------------------------------------------


def test_without_roots_nothing_passes_and_it_says_so() -> None:
    found = report(a_bundle(), roots=TrustRoots())
    assert problems(found) == {"mark_no_roots"}
    assert found.failure is not None
    assert "no roots are configured" in found.failure.message


def test_a_chain_to_another_root_is_not_trusted() -> None:
    other = an_authority("Mark Root", key=a_key(7))  # same name, another key
    assert problems(report(a_bundle(), roots=read_roots(pem(other.certificate)))) == {"mark_untrusted"}


def test_a_certificate_without_its_authority_is_not_trusted() -> None:
    assert problems(report(pem(a_mark()))) == {"mark_untrusted"}


def test_a_self_signed_mark_certificate_is_not_trusted() -> None:
    own = an_authority("Example, Inc.", key=a_key(8))
    assert problem(report(issued_by(own))) == "mark_untrusted"


def test_a_signature_that_does_not_hold_is_no_link() -> None:
    imposter = Authority(intermediate().certificate, a_key(9))
    assert problems(report(issued_by(imposter))) == {"mark_untrusted"}


def test_a_certificate_that_was_changed_is_not_trusted() -> None:
    octets = bytearray(a_mark().public_bytes(Encoding.DER))
    at = octets.index(b"example.com")
    octets[at : at + 7] = b"exbmple"
    changed = x509.load_der_x509_certificate(bytes(octets))
    found = check_mark(
        pem(changed, intermediate().certificate), roots=ROOTS, now=NOW, domain=Domain.parse("exbmple.com")
    )
    assert problems(found) == {"mark_untrusted"}


def test_an_expired_authority_has_its_own_word() -> None:
    old = an_authority("Old CA", issuer=root(), end=NOW - DAY)
    found = report(issued_by(old))
    assert problems(found) == {"mark_chain_dates"}
    assert found.not_after == NOW - DAY


def test_an_expired_root_has_the_same_word() -> None:
    old = an_authority("Old Root", end=NOW - DAY)
    below = an_authority("CA of the old", issuer=old)
    assert problems(report(issued_by(below), roots=read_roots(pem(old.certificate)))) == {"mark_chain_dates"}


@pytest.mark.parametrize(
    ("issuer", "word"),
    [
        (an_authority("No CA", issuer=root(), ca=False, signs=None), "mark_issuer_no_authority"),
        (an_authority("Powerless CA", issuer=root(), signs=False), "mark_issuer_key_usage"),
        (an_authority("Web CA", issuer=root(), purposes=(WEB,)), "mark_issuer_eku"),
        (an_authority("Aimless CA", issuer=root(), purposes=None), "mark_issuer_eku"),
        (an_authority("Short CA", issuer=root(), key=an_rsa_key(1024)), "mark_key"),
        (
            an_authority(
                "Bound CA",
                issuer=root(),
                extensions=[(x509.NameConstraints(None, [x509.DNSName("example.com")]), True)],
            ),
            "mark_name_constraints",
        ),
        (
            an_authority("Strange CA", issuer=root(), extensions=[(x509.PolicyConstraints(0, None), True)]),
            "mark_critical",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_of_the_issuer_has_its_own_word(issuer: Authority, word: str) -> None:
    assert word in problems(report(issued_by(issuer)))


def test_a_path_longer_than_an_authority_allows_fails() -> None:
    lower = an_authority("Lower CA", issuer=intermediate())  # whose path length is 0
    found = report(issued_by(lower, intermediate()))
    assert problems(found) == {"mark_path_length"}


def test_a_path_over_two_authorities_holds_where_it_is_allowed() -> None:
    upper = an_authority("Upper CA", issuer=root(), path_length=1)
    lower = an_authority("Lower CA", issuer=upper)
    assert report(issued_by(lower, upper)).failure is None


def test_a_weak_signature_has_its_own_word() -> None:
    assert problems(report(a_bundle(Mark(digest=hashes.SHA224())))) == {"mark_algorithm"}


def test_authorities_that_issue_each_other_end_in_nothing() -> None:
    one = an_authority("Ring A", key=a_key(11))
    two = an_authority("Ring B", issuer=one, key=a_key(12))
    back = an_authority("Ring A", issuer=two, key=a_key(11))
    assert problem(report(issued_by(one, two, back))) == "mark_untrusted"


def test_many_authorities_of_one_name_are_tried_up_to_a_limit() -> None:
    many = [an_authority("Many CA", issuer=root(), key=a_key(13)) for _ in range(8)]
    other = Authority(many[0].certificate, a_key(14))  # so that no signature holds
    assert problem(report(issued_by(other, *many[1:]))) == "mark_untrusted"


# -- the file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        SVG,
        pem(root().certificate) * (MAX_CERTIFICATES + 1),
        a_bundle() + b" " * MAX_BUNDLE,
    ],
    ids=["empty", "text", "no DER", "cut", "a key", "an image", "too many", "too long"],
)
def test_a_file_that_is_none_has_its_own_word(octets: bytes) -> None:
    found = report(octets)
    assert problem(found) == "mark_bundle"
    assert len(found.findings) == 1


def test_an_authority_in_front_has_its_own_word() -> None:
    assert "mark_order" in problems(report(pem(intermediate().certificate, a_mark())))


def test_two_mark_certificates_have_their_own_word() -> None:
    second = a_mark(replace(Mark(), serial=4712))
    assert problems(report(a_bundle() + pem(second))) == {"mark_several"}


def test_a_certificate_twice_has_its_own_word() -> None:
    assert problems(report(a_bundle() + pem(intermediate().certificate))) == {"mark_repeated"}


# -- revocation ----------------------------------------------------------------------------------------------------------

#: For the mark certificate and its authority, in this order.
GOOD_LISTS = [{"x": a_crl()}, {"x": a_crl(root())}]


def test_where_the_revocation_lists_are_is_told_for_each_certificate() -> None:
    assert crl_addresses(report(a_bundle())) == ((marks.CRL,), (marks.CRL,))


def test_certificates_that_are_on_no_list_hold() -> None:
    found = check_revocation(report(a_bundle()), GOOD_LISTS, now=NOW)
    assert [f.passed for f in found] == [True, True]


def test_a_revoked_mark_certificate_fails() -> None:
    found = check_revocation(report(a_bundle()), [{"x": a_crl(None, 4711)}, GOOD_LISTS[1]], now=NOW)
    assert [(f.passed, f.advisory, f.problem) for f in found] == [
        (False, False, "mark_revoked"),
        (True, False, ""),
    ]


def test_a_revoked_authority_fails() -> None:
    serial = intermediate().certificate.serial_number
    found = check_revocation(report(a_bundle()), [GOOD_LISTS[0], {"x": a_crl(root(), serial)}], now=NOW)
    assert found[1].problem == "mark_revoked"


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (None, "could not be fetched"),
        (b"", "cannot be read"),
        (b"<html>", "cannot be read"),
        (a_crl(root()), "another issuer"),
        (a_crl(key=a_key(15)), "signature"),
        (a_crl(end=NOW - timedelta(hours=1)), "not of today"),
        (bytes(MAX_CRL + 1), "longer than"),
        (
            a_crl(extensions=[(x509.DeltaCRLIndicator(1), True)]),
            "critical extension",
        ),
        (
            a_crl(
                extensions=[
                    (
                        x509.IssuingDistributionPoint(
                            full_name=None,
                            relative_name=None,
                            only_contains_user_certs=False,
                            only_contains_ca_certs=True,
                            only_some_reasons=None,
                            indirect_crl=False,
                            only_contains_attribute_certs=False,
                        ),
                        True,
                    )
                ]
            ),
            "not for all",
        ),
    ],
    ids=[
        "missing", "empty", "a page", "another issuer", "another key", "old", "too long", "delta", "authorities only",
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_used_is_told_and_fails_nothing(octets: bytes | None, why: str) -> None:
    lists = [{"x": octets} if octets is not None else {}, GOOD_LISTS[1]]
    found = check_revocation(report(a_bundle()), lists, now=NOW)[0]
    assert (found.passed, found.advisory, found.problem) == (False, True, "mark_revocation_unknown")
    assert why in found.message


# -- roots ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"", b"x", pem(a_mark())], ids=["empty", "text", "no authority"])
def test_a_file_of_roots_that_is_none_is_an_error(octets: bytes) -> None:
    with pytest.raises(ValueError, match="certificate"):
        read_roots(octets)


def test_roots_have_a_name_of_their_own() -> None:
    assert ROOTS.digest == read_roots(pem(root().certificate)).digest
    assert ROOTS.digest != TrustRoots().digest


# -- strangers' octets -----------------------------------------------------------------------------------------------------

BUNDLE = a_bundle()
DER = a_mark().public_bytes(Encoding.DER)


# (what stands behind is the signature, which has more than one spelling)
SIGNED = 4 + len(a_mark().tbs_certificate_bytes)


@given(st.integers(0, SIGNED - 1), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_one_wrong_octet_in_what_is_signed_never_passes_nor_raises(at: int, octet: int) -> None:
    changed = bytearray(DER)
    if changed[at] == octet:
        octet ^= 1
    changed[at] = octet
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(changed))
    found = report(text + b"-----END CERTIFICATE-----\n" + pem(intermediate().certificate))
    assert found.failure is not None


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_octets_give_a_report(octets: bytes) -> None:
    assert report(octets).failure is not None
