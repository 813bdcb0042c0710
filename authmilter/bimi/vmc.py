"""Mark certificates (VMC and CMC): does one vouch for an image of a domain? (draft-fetch-validation-vmc-wchuang-11)

Every rule gives a `Finding` with a machine word of its own. A certificate counts only if it leads to one of the roots
that the administrator has configured: the roots of the web, or none at all, vouch for nothing. The extensions that
`cryptography` does not know are read by `logotype.py`.

Promises: bounded work, whatever the octets: certificates in a file, signatures verified, sizes of keys have named
limits. Never raises for what is in a file; `read_roots` raises `ValueError` for what an administrator configured.
Whether a Signed Certificate Timestamp comes from a log that somebody trusts is not checked, only that one is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from authmilter.bimi.findings import Finding, first_failure
from authmilter.bimi.logotype import LogotypeError, read_logotype
from authmilter.bimi.settings import MARK_TYPES
from authmilter.bimi.svg import MAX_SVG, check_svg
from authmilter.names import Domain
from authmilter.text import printable

__all__ = [
    "MAX_BUNDLE",
    "MAX_CERTIFICATES",
    "MAX_CRL",
    "MAX_SIGNATURES",
    "Issued",
    "MarkReport",
    "TrustRoots",
    "check_mark",
    "check_revocation",
    "crl_addresses",
    "read_roots",
]

#: Octets of a certificate file, certificates in it, signatures verified for one, octets of a revocation list.
MAX_BUNDLE, MAX_CERTIFICATES, MAX_SIGNATURES, MAX_CRL = 4 << 20, 10, 16, 1 << 20
#: Certificates between the mark certificate and its root.
_MAX_INTERMEDIATES = 4
#: Addresses of revocation lists that are read from one certificate.
_MAX_ADDRESSES = 4
_SHOWN = 200

#: draft-chuang-bimi-certificate: id-kp-BrandIndicatorforMessageIdentification.
_BIMI = ObjectIdentifier("1.3.6.1.5.5.7.3.31")
#: The subject's mark type, the policy of mark certificates and the mark of a pilot (MC Requirements).
_MARK_TYPE = ObjectIdentifier("1.3.6.1.4.1.53087.1.13")
_POLICY = ObjectIdentifier("1.3.6.1.4.1.53087.1.1")
_PILOT = ObjectIdentifier("1.3.6.1.4.1.53087.4.1")
#: RFC 9399 §4.1 id-pe-logotype.
_LOGOTYPE = ObjectIdentifier("1.3.6.1.5.5.7.1.12")
#: Critical extensions that are understood: by the rules below, or because they restrict nothing (RFC 5280 §4.2).
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.NAME_CONSTRAINTS,  # a rule of its own
        _LOGOTYPE,
        _PILOT,
    }
)
#: What the library raises where a certificate, list or key is not what it should be.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_MIN_RSA, _MAX_RSA, _MIN_EC = 2048, 8192, 256

#: What each rule says when it holds, in the order they are told.
_RULES = {
    "mark_bundle": "the file is a list of PEM certificates, within bounds",
    "mark_order": "the mark certificate stands first, and the others are authorities",
    "mark_chain": "it leads to a configured root",
    "mark_algorithms": "every signature is RSA or ECDSA with SHA-256 or better",
    "mark_keys": f"every key is RSA of {_MIN_RSA} to {_MAX_RSA} bits or EC of {_MIN_EC} or more",
    "mark_dates": "it is valid now",
    "mark_chain_dates": "its authorities are valid now",
    "mark_constraints": "it is no authority, its issuers are, and no path length is exceeded",
    "mark_key_usage": "its key may not sign certificates, those of its issuers may",
    "mark_eku": "it is for brand indicators",
    "mark_issuer_eku": "its issuing authority is for brand indicators",
    "mark_critical": "every critical extension is understood",
    "mark_name_constraints": "no certificate has name constraints",
    "mark_policy": "it has the policy of mark certificates",
    "mark_type": "its subject has a known mark type",
    "mark_san": "it names the domain",
    "mark_logotype": "it holds one SVG image, and the hash beside it is that of the image",
    "mark_image": "the image is of the SVG Tiny PS profile",
    "mark_sct": "it holds a Signed Certificate Timestamp (whose log is not checked)",
    "mark_crl": "it says where its revocation list is",
}


class _Unreadable(Exception):  # noqa: N818 - ends the reading of one certificate inside this module
    """A certificate that cannot be read as one; the message is our own words."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of a verified path and the certificate that issued it."""

    certificate: x509.Certificate
    issuer: x509.Certificate


@dataclass(frozen=True, slots=True)
class TrustRoots:
    """The roots that mark certificates have to lead to; made by `read_roots`. Empty: nothing passes."""

    certificates: tuple[x509.Certificate, ...] = ()

    @property
    def digest(self) -> str:
        """A name for these very certificates, in lower-case hexadecimal."""
        digest = hashlib.sha256()
        for certificate in self.certificates:
            digest.update(certificate.fingerprint(hashes.SHA256()))
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkReport:
    """What the rules say of a mark certificate.

    `findings` are in the order of the rules; `mark_type`, `issuer` and `names` (of its subjectAltName) are printable
    ASCII; `not_after` is the earliest end among the certificates of the path, the root's included; `svg` the
    embedded image uncompressed with its SHA-256 in lower-case hexadecimal, None where it could not be read;
    `path` the verified certificates, the mark certificate first.
    """

    findings: tuple[Finding, ...]
    mark_type: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    not_after: datetime | None = None
    svg: bytes | None = None
    svg_sha256: str = ""
    path: tuple[Issued, ...] = ()

    @property
    def failure(self) -> Finding | None:
        """The first finding that refuses the certificate, or None."""
        return first_failure(self.findings)


def read_roots(pem: bytes) -> TrustRoots:
    """Read a file of roots.

    Raises:
        ValueError: it holds no certificate, one that cannot be read, or one that is no authority.
    """
    try:
        roots = tuple(_Read.of(c) for c in x509.load_pem_x509_certificates(pem))
    except _UNREADABLE as e:
        raise ValueError(f"no PEM certificates: {e}") from None
    except _Unreadable as e:
        raise ValueError(str(e)) from None
    for root in roots:
        if not root.is_authority:
            raise ValueError(f"{root.name} is no certificate of an authority")
    return TrustRoots(tuple(root.certificate for root in roots))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A certificate with everything read out of it that the rules ask for: reading happens once, and may fail."""

    certificate: x509.Certificate
    name: str
    issuer: str
    not_before: datetime
    not_after: datetime
    is_authority: bool
    path_length: int | None
    signs_certificates: bool | None
    purposes: frozenset[str] | None
    not_understood: tuple[str, ...]
    name_constraints: bool
    policies: frozenset[str]
    names: tuple[str, ...] | None
    logotype: bytes | None
    timestamps: int | None
    crls: tuple[str, ...] | None
    mark_types: tuple[str, ...]
    algorithm: str
    key: str

    @classmethod
    def of(cls, certificate: x509.Certificate) -> _Read:
        """Read a certificate.

        Raises:
            _Unreadable: some part of it is not what RFC 5280 says it is.
        """
        try:
            return _read(certificate)
        except _UNREADABLE as e:
            raise _Unreadable(f"a certificate cannot be read ({type(e).__name__})") from None

    def valid(self, now: datetime) -> bool:
        """True if it is valid at `now`."""
        return self.not_before <= now <= self.not_after


def _read(certificate: x509.Certificate) -> _Read:
    extensions = certificate.extensions
    values: dict[ObjectIdentifier, x509.ExtensionType] = {e.oid: e.value for e in extensions}
    basic = values.get(ExtensionOID.BASIC_CONSTRAINTS)
    usage = values.get(ExtensionOID.KEY_USAGE)
    purposes = values.get(ExtensionOID.EXTENDED_KEY_USAGE)
    policies = values.get(ExtensionOID.CERTIFICATE_POLICIES)
    names = values.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    logotype = values.get(_LOGOTYPE)
    timestamps = values.get(ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS)
    points = values.get(ExtensionOID.CRL_DISTRIBUTION_POINTS)
    return _Read(
        certificate=certificate,
        name=printable(certificate.subject.rfc4514_string(), _SHOWN),
        issuer=printable(certificate.issuer.rfc4514_string(), _SHOWN),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_authority=isinstance(basic, x509.BasicConstraints) and basic.ca,
        path_length=basic.path_length if isinstance(basic, x509.BasicConstraints) else None,
        signs_certificates=usage.key_cert_sign if isinstance(usage, x509.KeyUsage) else None,
        purposes=(
            frozenset(p.dotted_string for p in purposes)
            if isinstance(purposes, x509.ExtendedKeyUsage)
            else None
        ),
        not_understood=tuple(
            e.oid.dotted_string for e in extensions if e.critical and e.oid not in _UNDERSTOOD
        ),
        name_constraints=ExtensionOID.NAME_CONSTRAINTS in values,
        policies=(
            frozenset(p.policy_identifier.dotted_string for p in policies)
            if isinstance(policies, x509.CertificatePolicies)
            else frozenset()
        ),
        names=(
            tuple(names.get_values_for_type(x509.DNSName))
            if isinstance(names, x509.SubjectAlternativeName)
            else None
        ),
        logotype=logotype.value if isinstance(logotype, x509.UnrecognizedExtension) else None,
        timestamps=(
            len(list(timestamps))
            if isinstance(timestamps, x509.PrecertificateSignedCertificateTimestamps)
            else None
        ),
        crls=tuple(_points(points)) if isinstance(points, x509.CRLDistributionPoints) else None,
        mark_types=tuple(str(a.value) for a in certificate.subject.get_attributes_for_oid(_MARK_TYPE)),
        algorithm=_algorithm_fault(certificate),
        key=_key_fault(certificate),
    )


def _points(points: x509.CRLDistributionPoints) -> Iterator[str]:
    """Yield the http and https addresses of revocation lists, a few."""
    found = [
        name.value
        for point in points
        # RFC 5280 §4.2.1.13: a point for some reasons only, or of another issuer, does not speak for all
        if point.full_name is not None and point.reasons is None and point.crl_issuer is None
        for name in point.full_name
        if isinstance(name, x509.UniformResourceIdentifier) and name.value[:4].lower() == "http"
    ]
    yield from found[:_MAX_ADDRESSES]


def _algorithm_fault(certificate: x509.Certificate) -> str:
    """Return what is wrong with the algorithm of a certificate's signature, or nothing."""
    digest = certificate.signature_hash_algorithm
    if digest is None or not isinstance(digest, _HASHES):
        return f"is signed with {digest.name if digest is not None else 'an algorithm that is not read'}"
    return ""


def _key_fault(certificate: x509.Certificate) -> str:
    """Return what is wrong with a certificate's key, or nothing."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if not _MIN_RSA <= key.key_size <= _MAX_RSA:
            return f"has an RSA key of {key.key_size} bits"
        return ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"has an EC key of {key.key_size} bits" if key.key_size < _MIN_EC else ""
    return "has a key that is neither RSA nor EC"


class _Notes:
    """Findings as they are made; a rule that was looked at and has no complaint holds."""

    def __init__(self) -> None:
        self.broken: dict[str, Finding] = {}
        self.looked: set[str] = set()

    def look(self, rule: str, problem: str, message: str) -> None:
        """Note that a rule was looked at; with a problem, that it does not hold (the first counts)."""
        self.looked.add(rule)
        if problem:
            self.broken.setdefault(rule, Finding(rule=rule, passed=False, message=message, problem=problem))

    def findings(self) -> tuple[Finding, ...]:
        return tuple(
            self.broken.get(rule) or Finding(rule=rule, passed=True, message=holds)
            for rule, holds in _RULES.items()
            if rule in self.looked
        )


def check_mark(
    pem: bytes,
    *,
    roots: TrustRoots,
    now: datetime,
    domain: Domain | None = None,
    selector: str = "default",
    max_svg: int = MAX_SVG,
) -> MarkReport:
    """Hold a file of certificates against the rules.

    Args:
        pem: the file as it was fetched: the mark certificate, then its authorities.
        roots: what it has to lead to.
        now: the time (with its zone) at which it has to be valid.
        domain: the domain its record was found at; None: what it names is not looked at.
        selector: the selector its record was found under.
        max_svg: octets of the embedded image, uncompressed.

    Returns:
        A finding for every rule that could be looked at.
    """
    notes = _Notes()
    try:
        certificates = _bundle(pem)
    except _Unreadable as e:
        notes.look("mark_bundle", "mark_bundle", str(e))
        return MarkReport(findings=notes.findings())
    notes.look("mark_bundle", "", "")
    mark, others = certificates[0], certificates[1:]
    _look_at_order(mark, others, notes)
    path = _path(mark, others, roots, notes)
    _look_at_path(mark, path, now, notes)
    mark_type = _look_at_mark(mark, notes)
    if domain is not None:
        problem, message = _named(mark.names, domain, selector)
        notes.look("mark_san", problem, message)
    svg = _look_at_image(mark, max_svg, notes)
    links = (mark, *path)
    return MarkReport(
        findings=notes.findings(),
        mark_type=mark_type,
        issuer=mark.issuer,
        names=tuple(printable(name, _SHOWN) for name in (mark.names or ())[:20]),
        not_after=min(c.not_after for c in links),
        svg=svg,
        svg_sha256=hashlib.sha256(svg).hexdigest() if svg is not None else "",
        path=tuple(Issued(link.certificate, above.certificate) for link, above in pairwise(links)),
    )


def _bundle(pem: bytes) -> list[_Read]:
    if len(pem) > MAX_BUNDLE:
        raise _Unreadable(f"the file is longer than {MAX_BUNDLE} octets")
    count = pem.count(b"-----BEGIN ")
    if not count:
        raise _Unreadable("the file holds no PEM certificate")
    if count > MAX_CERTIFICATES:
        raise _Unreadable(f"the file holds more than {MAX_CERTIFICATES} certificates")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except _UNREADABLE:
        raise _Unreadable("the file cannot be read as PEM certificates") from None
    return [_Read.of(certificate) for certificate in certificates]


def _look_at_order(mark: _Read, others: list[_Read], notes: _Notes) -> None:
    if mark.is_authority and any(not c.is_authority for c in others):
        notes.look("mark_order", "mark_order", "an authority stands first, the mark certificate behind it")
    elif any(not c.is_authority for c in others):
        notes.look(
            "mark_order", "mark_several", "the file holds more than one certificate that is no authority"
        )
    elif len({c.certificate for c in (mark, *others)}) <= len(others):
        notes.look("mark_order", "mark_repeated", "the file holds a certificate twice")
    else:
        notes.look("mark_order", "", "")


def _path(mark: _Read, others: list[_Read], roots: TrustRoots, notes: _Notes) -> list[_Read]:
    """Return the authorities from the issuer of the mark certificate to a root, or nothing."""
    if not roots.certificates:
        notes.look(
            "mark_chain", "mark_no_roots", "no roots are configured, so that no mark certificate is trusted"
        )
        return []
    anchors = [_Read.of(root) for root in roots.certificates]
    left = MAX_SIGNATURES
    pending: list[tuple[_Read, ...]] = [(mark,)]
    while pending:
        links = pending.pop()
        last = links[-1]
        for issuer in (*anchors, *others):
            if last.certificate.issuer != issuer.certificate.subject or issuer in links:
                continue
            if not left:
                notes.look(
                    "mark_chain", "mark_chain_limit", f"more than {MAX_SIGNATURES} signatures to verify"
                )
                return []
            left -= 1
            if not _issued(last.certificate, issuer.certificate):
                continue
            if issuer in anchors:
                notes.look("mark_chain", "", "")
                return [*links[1:], issuer]
            if len(links) <= _MAX_INTERMEDIATES:
                pending.append((*links, issuer))
    notes.look("mark_chain", "mark_untrusted", "it leads to none of the configured roots")
    return []


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def _look_at_path(mark: _Read, path: list[_Read], now: datetime, notes: _Notes) -> None:
    """Look at what holds for the path as a whole; `path` ends in the root, which is trusted as it is (RFC 5280 §6.1)."""
    signed = (mark, *path[:-1])
    weak = next((c for c in signed if c.algorithm), None)
    notes.look(
        "mark_algorithms", "mark_algorithm" if weak else "", f"{weak.name} {weak.algorithm}" if weak else ""
    )
    small = next((c for c in (mark, *path) if c.key), None)
    notes.look("mark_keys", "mark_key" if small else "", f"{small.name} {small.key}" if small else "")
    if now < mark.not_before:
        notes.look("mark_dates", "mark_not_yet_valid", f"it is valid from {mark.not_before:%Y-%m-%d}")
    elif now > mark.not_after:
        notes.look("mark_dates", "mark_expired", f"it expired on {mark.not_after:%Y-%m-%d}")
    else:
        notes.look("mark_dates", "", "")
    if path:
        stale = next((c for c in path if not c.valid(now)), None)
        notes.look(
            "mark_chain_dates",
            "mark_chain_dates" if stale else "",
            f"{stale.name} is not valid now" if stale else "",
        )
    _look_at_constraints(mark, path, notes)
    strange = next((c for c in signed if c.not_understood), None)
    notes.look(
        "mark_critical",
        "mark_critical" if strange else "",
        f"{strange.name} has the critical extension {strange.not_understood[0]}" if strange else "",
    )
    bound = next((c for c in signed if c.name_constraints), None)
    # RFC 5280 §4.2.1.10: what is not processed has to be refused
    notes.look(
        "mark_name_constraints",
        "mark_name_constraints" if bound else "",
        f"{bound.name} has name constraints, which are not read" if bound else "",
    )


def _look_at_constraints(mark: _Read, path: list[_Read], notes: _Notes) -> None:
    if mark.is_authority:
        notes.look("mark_constraints", "mark_is_authority", "it is the certificate of an authority")
    for above, issuer in enumerate(path):
        if not issuer.is_authority:
            notes.look("mark_constraints", "mark_issuer_no_authority", f"{issuer.name} is no authority")
        # RFC 5280 §4.2.1.9: intermediate certificates that may follow it, the last one not counted
        elif issuer.path_length is not None and above > issuer.path_length:
            notes.look("mark_constraints", "mark_path_length", f"more authorities than {issuer.name} allows")
    notes.look("mark_constraints", "", "")
    if mark.signs_certificates:
        notes.look("mark_key_usage", "mark_key_usage", "its key may sign certificates")
    # RFC 5280 §4.2.1.3: an authority without the extension is not held to it
    powerless = next((c for c in path if c.signs_certificates is False), None)
    if powerless is not None:
        notes.look(
            "mark_key_usage",
            "mark_issuer_key_usage",
            f"the key of {powerless.name} may not sign certificates",
        )
    notes.look("mark_key_usage", "", "")
    meant = _for_marks(mark.purposes)
    notes.look(
        "mark_eku", "" if meant else "mark_eku", f"it is not for brand indicators ({_BIMI.dotted_string})"
    )
    if path[:-1]:
        # The root is trusted for what it was configured for; every authority below says so itself.
        wrong = next((c for c in path[:-1] if not _for_marks(c.purposes)), None)
        notes.look(
            "mark_issuer_eku",
            "mark_issuer_eku" if wrong else "",
            f"{wrong.name} is not for brand indicators" if wrong else "",
        )


def _for_marks(purposes: frozenset[str] | None) -> bool:
    return purposes is not None and _BIMI.dotted_string in purposes


def _look_at_mark(mark: _Read, notes: _Notes) -> str:
    """Look at what makes it a mark certificate; return its mark type."""
    without = _POLICY.dotted_string not in mark.policies
    notes.look(
        "mark_policy",
        "mark_policy" if without else "",
        f"it does not have the policy {_POLICY.dotted_string}",
    )
    shown = printable(mark.mark_types[0], 60) if mark.mark_types else ""
    if len(mark.mark_types) != 1:
        found = "no mark type" if not mark.mark_types else "several mark types"
        notes.look("mark_type", "mark_type_missing", f"its subject has {found}")
    elif shown not in MARK_TYPES:
        notes.look("mark_type", "mark_type_unknown", f"its mark type is {shown!r}")
    else:
        notes.look("mark_type", "", "")
    if not mark.timestamps:
        notes.look("mark_sct", "mark_sct", "it holds no Signed Certificate Timestamp")
    notes.look("mark_sct", "", "")
    notes.look("mark_crl", "" if mark.crls else "mark_crl", "it does not say where its revocation list is")
    return shown


def _named(names: tuple[str, ...] | None, domain: Domain, selector: str) -> tuple[str, str]:
    """Return the problem and the message of the rule about names: both empty if the domain is named.

    VMC draft, subjectAltName: a name with `SELECTOR._bimi.` in front stands for that selector only, any other one for
    every selector; compared in full, without regard to case, and `*` stands for itself.
    """
    if not names:
        return "mark_san_missing", "it has no DNS name in subjectAltName"
    for name in names:
        text = name.lower().removesuffix(".")
        front, bimi, rest = text.partition("._bimi.")
        if (bimi and (front, rest) == (selector.lower(), domain.ascii)) or (
            not bimi and text == domain.ascii
        ):
            return "", ""
    shown = ", ".join(printable(name, 80) for name in names[:5])
    return "mark_san", f"it is for {shown}, not for selector {printable(selector, 63)} of {domain}"


def _look_at_image(mark: _Read, max_svg: int, notes: _Notes) -> bytes | None:
    if mark.logotype is None:
        notes.look("mark_logotype", "logotype_missing", "it has no logotype extension")
        return None
    try:
        logotype = read_logotype(mark.logotype)
    except LogotypeError as e:
        notes.look("mark_logotype", e.problem, str(e))
        return None
    notes.look("mark_logotype", "", "")
    failure = check_svg(logotype.svg, max_size=max_svg).failure
    notes.look(
        "mark_image",
        failure.problem if failure is not None else "",
        f"the embedded image: {failure.message}" if failure is not None else "",
    )
    return logotype.svg


def crl_addresses(report: MarkReport) -> tuple[tuple[str, ...], ...]:
    """Return, for each certificate of the path below the root, where its revocation list is (as strangers wrote it)."""
    return tuple(tuple(_Read.of(link.certificate).crls or ()) for link in report.path)


def check_revocation(
    report: MarkReport, lists: Iterable[Mapping[str, bytes]], *, now: datetime
) -> tuple[Finding, ...]:
    """Hold the path of a mark certificate against revocation lists.

    Args:
        report: what `check_mark` said.
        lists: for each certificate of `report.path`, the lists that were fetched, by address.
        now: the time.

    Returns:
        A finding for each certificate: `mark_revoked` fails it; a list that is missing or cannot be used
        (`mark_revocation_unknown`) is told and fails nothing.
    """
    return tuple(_revocation(link, fetched, now) for link, fetched in zip(report.path, lists, strict=True))


def _revocation(link: Issued, fetched: Mapping[str, bytes], now: datetime) -> Finding:
    name = printable(link.certificate.subject.rfc4514_string(), _SHOWN)
    why = "its revocation list could not be fetched"
    for octets in fetched.values():
        try:
            revoked, why = _on_list(octets, link, now)
        except _UNREADABLE:
            why = "its revocation list cannot be read"
            continue
        if revoked:
            return Finding(
                rule="mark_revocation", passed=False, message=f"{name} was revoked", problem="mark_revoked"
            )
        if not why:
            return Finding(rule="mark_revocation", passed=True, message=f"{name} is not revoked")
    return Finding(
        rule="mark_revocation",
        passed=False,
        advisory=True,
        message=f"whether {name} was revoked is not known: {why}",
        problem="mark_revocation_unknown",
    )


def _on_list(octets: bytes, link: Issued, now: datetime) -> tuple[bool, str]:
    """Return whether a certificate is on a revocation list, and why the list cannot be used (RFC 5280 §6.3)."""
    if len(octets) > MAX_CRL:
        return False, f"its revocation list is longer than {MAX_CRL} octets"
    pem = octets.startswith(b"-----BEGIN")
    crl = x509.load_pem_x509_crl(octets) if pem else x509.load_der_x509_crl(octets)
    if crl.issuer != link.certificate.issuer:
        return False, "its revocation list is of another issuer"
    key = link.issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or not crl.is_signature_valid(key):
        return False, "the signature of its revocation list does not hold"
    end = crl.next_update_utc
    if crl.last_update_utc > now or end is None or end < now:
        return False, "its revocation list is not of today"
    of_authority = _Read.of(link.certificate).is_authority
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.IssuingDistributionPoint):
            partial = value.indirect_crl or value.only_contains_attribute_certs or value.only_some_reasons
            others = value.only_contains_user_certs if of_authority else value.only_contains_ca_certs
            if partial or others:
                return False, "its revocation list is not for all certificates"
        elif extension.critical:
            return False, "its revocation list has a critical extension that is not read"
    entry = crl.get_revoked_certificate_by_serial_number(link.certificate.serial_number)
    return entry is not None, ""
