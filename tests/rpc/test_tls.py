"""TLS and client certificates: good, expired, wrong, missing, and swapped under a live server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authmilter import runtime
from authmilter.config.load import load
from authmilter.errors import AuthMilterError, ConfigError
from authmilter.rpc.certificates import Certificates
from authmilter.rpc.settings import Identity, RpcSettings, TlsFiles, token_hash
from authmilter.rpc.tls_files import check_files
from tests.rpc.local import Client, Local, local, run, settings_of
from tests.rpc.test_calls import a_request

DAY = timedelta(days=1)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Authority:
    """A certificate authority of the test's own."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now + 10 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                    key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        return cls(key, made)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, name: str, *, expired: bool = False, client: bool = False) -> tuple[bytes, bytes]:
        """Return a key and a certificate, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        end = now - DAY if expired else now + DAY
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CN of {name}")]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 5 * DAY)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return _pem(key), made.public_bytes(Encoding.PEM)


OURS, OTHER = Authority.make("our authority"), Authority.make("another authority")
DESK = Identity(name="desk", certificates=frozenset({"desk.example"}))
TOKEN = Identity(name="token", tokens=frozenset({token_hash(b"the-token")}))


def _install(folder: Path, pair: tuple[bytes, bytes], *, client_ca: bool = False) -> TlsFiles:
    for name, octets in (("key.pem", pair[0]), ("cert.pem", pair[1]), ("ca.pem", OURS.pem)):
        beside = folder / f"{name}.new"
        beside.write_bytes(octets)
        beside.rename(folder / name)
    return TlsFiles(
        certificate=str(folder / "cert.pem"),
        key=str(folder / "key.pem"),
        client_ca=str(folder / "ca.pem") if client_ca else "",
    )


def _channel(
    target: str, authority: Authority, pair: tuple[bytes, bytes] | None = None, name: str = "mx.example"
) -> Any:
    credentials = grpc.ssl_channel_credentials(
        authority.pem, *((pair[0], pair[1]) if pair is not None else (None, None))
    )
    options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(target, credentials, options=options)


async def _ask(server: Local, authority: Authority = OURS, pair: tuple[bytes, bytes] | None = None, *, token: str = "", name: str = "mx.example") -> str:  # fmt: skip
    """Return who we were taken for, or the status's name."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with _channel(server.target, authority, pair, name) as channel:
        try:
            await Client(channel, metadata)("Verify", a_request(), timeout=5.0)
        except grpc.aio.AioRpcError as e:
            return e.code().name
    return "answered"


def test_tls_with_a_token(tmp_path: Path) -> None:
    async def work() -> None:
        files = _install(tmp_path, OURS.issue("mx.example"))
        async with local(
            tmp_path, RpcSettings(identities=(TOKEN,), tls=files), listen="127.0.0.1:0"
        ) as server:
            assert await _ask(server, token="the-token") == "answered"
            assert await _ask(server) == "UNAUTHENTICATED"
            assert await _ask(server, OTHER, token="the-token") == "UNAVAILABLE"
            assert await _ask(server, token="the-token", name="other.example") == "UNAVAILABLE"
            error = await server.client.refused("Verify", a_request(), timeout=3.0)  # in the clear
            assert error.code() is grpc.StatusCode.UNAVAILABLE

    run(work)


def test_a_public_port_with_tls_may_be_opened(tmp_path: Path) -> None:
    async def work() -> None:
        files = _install(tmp_path, OURS.issue("mx.example"))
        async with local(tmp_path, RpcSettings(identities=(TOKEN,), tls=files), listen="0.0.0.0:0") as server:
            server.target = server.target.replace("0.0.0.0", "127.0.0.1")
            assert await _ask(server, token="the-token") == "answered"

    run(work)


def test_client_certificates_say_who_calls(tmp_path: Path) -> None:
    async def work() -> None:
        files = _install(tmp_path, OURS.issue("mx.example"), client_ca=True)
        settings = RpcSettings(identities=(DESK, TOKEN), tls=files)
        async with local(tmp_path, settings, listen="127.0.0.1:0") as server:
            assert await _ask(server, pair=OURS.issue("desk.example", client=True)) == "answered"
            assert await _ask(server, pair=OURS.issue("else.example", client=True)) == "UNAUTHENTICATED"
            # a token goes before the certificate, and needs one too
            assert (
                await _ask(server, pair=OURS.issue("else.example", client=True), token="the-token")
                == "answered"
            )
            assert (
                await _ask(server, pair=OURS.issue("desk.example", client=True), token="x")
                == "UNAUTHENTICATED"
            )
            assert await _ask(server, token="the-token") == "UNAVAILABLE"
            # those of others, or that have expired, end in the handshake
            assert await _ask(server, pair=OTHER.issue("desk.example", client=True)) != "answered"
            assert (
                await _ask(server, pair=OURS.issue("desk.example", client=True, expired=True)) != "answered"
            )

    run(work)


def test_an_expired_server_certificate_is_refused_by_clients_and_replaced_without_a_restart(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        files = _install(tmp_path, OURS.issue("mx.example", expired=True))
        settings = RpcSettings(identities=(TOKEN,), tls=files)
        async with local(tmp_path, settings, listen="127.0.0.1:0") as server:
            assert await _ask(server, token="the-token") == "UNAVAILABLE"
            _install(tmp_path, OURS.issue("mx.example"))
            assert await _ask(server, token="the-token") == "answered"

    run(work)


def test_a_swap_under_a_live_server_reaches_new_connections_and_ends_no_old_one(tmp_path: Path) -> None:
    async def work() -> None:
        files = _install(tmp_path, OURS.issue("mx.example"))
        settings = RpcSettings(identities=(TOKEN,), tls=files)
        async with (
            local(tmp_path, settings, listen="127.0.0.1:0") as server,
            _channel(server.target, OURS) as channel,
        ):
            old = Client(channel, (("authorization", "Bearer the-token"),))
            await old("Verify", a_request())
            _install(tmp_path, OTHER.issue("mx.example"))
            assert await _ask(server, OTHER, token="the-token") == "answered"
            assert await _ask(server, OURS, token="the-token") == "UNAVAILABLE"
            assert (await old("Verify", a_request())).id == "m1"
            # half a pair, or rubbish, changes nothing
            (tmp_path / "key.pem").write_bytes(OURS.issue("mx.example")[0])
            assert await _ask(server, OTHER, token="the-token") == "answered"
            (tmp_path / "cert.pem").write_bytes(b"rubbish")
            assert await _ask(server, OTHER, token="the-token") == "answered"
            (tmp_path / "cert.pem").unlink()
            assert await _ask(server, OTHER, token="the-token") == "answered"
            _install(tmp_path, OURS.issue("mx.example"))
            assert await _ask(server, OURS, token="the-token") == "answered"

    run(work)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = _install(tmp_path, OURS.issue("mx.example"), client_ca=True)
    check_files(good)
    (tmp_path / "other.pem").write_bytes(OURS.issue("mx.example")[0])
    (tmp_path / "rubbish.pem").write_bytes(b"rubbish")
    for files, said in (
        (TlsFiles(certificate=good.certificate, key=str(tmp_path / "other.pem")), "with the key"),
        (TlsFiles(certificate=str(tmp_path / "rubbish.pem"), key=good.key), "rubbish.pem"),
        (TlsFiles(certificate=str(tmp_path / "absent.pem"), key=good.key), "absent.pem"),
        (
            TlsFiles(certificate=good.certificate, key=good.key, client_ca=str(tmp_path / "rubbish.pem")),
            "rubbish.pem",
        ),
    ):
        with pytest.raises(AuthMilterError, match=said):
            check_files(files)
    with pytest.raises(ConfigError, match=r"grpc\.certificate"):
        settings_of(f"grpc: {{certificate: {tmp_path}/rubbish.pem, key: {tmp_path}/key.pem}}")
    assert settings_of(f"grpc: {{certificate: {tmp_path}/cert.pem, key: {tmp_path}/key.pem}}").tls is not None


def test_a_refused_change_is_told_once(tmp_path: Path) -> None:
    files = _install(tmp_path, OURS.issue("mx.example"))
    told: list[str] = []
    certificates = Certificates(files, told.append)
    first = certificates.newest()
    assert certificates.newest() is first
    (tmp_path / "cert.pem").write_bytes(b"rubbish")
    os.utime(tmp_path / "cert.pem", ns=(1, 1))
    assert [certificates.newest() is first for _ in range(3)] == [True] * 3
    assert len(told) == 1
    assert "the certificate read before stays in use" in told[0]
    _install(tmp_path, OURS.issue("mx.example"))
    assert certificates.newest() is not first


def test_a_wrong_grpc_setting_is_shown_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "authmilter.yaml"
    file.write_text("grpc:\n  listen: ['127.0.0.1:0']\n  certificate: gone.pem\n  key: gone.key\n")
    with pytest.raises(ConfigError, match=r"authmilter\.yaml:3:16: `grpc\.certificate`: .*cannot be read"):
        runtime.grpc_settings(load(file))
    file.write_text("grpc:\n  listen: ['127.0.0.1:0']\n  policies: [a.yaml, enforce.yaml]\n")
    (tmp_path / "a.yaml").write_text("version: 1\nrules: []\ndefault: accept\n")
    with pytest.raises(ConfigError, match=r"authmilter\.yaml:3:22: `grpc\.policies`: .*`enforce`"):
        runtime.build(load(file))


def test_half_written_files_never_replace_good_ones(tmp_path: Path) -> None:
    files = _install(tmp_path, OURS.issue("mx.example"))
    told: list[str] = []
    certificates = Certificates(files, told.append)
    first = certificates.newest()
    key, whole = OURS.issue("mx.example")
    (tmp_path / "key.pem").write_bytes(key)
    for cut in range(0, len(whole) - 30, 97):
        (tmp_path / "cert.pem").write_bytes(whole[:cut])
        assert certificates.newest() is first
    assert len(told) >= 1
    (tmp_path / "cert.pem").write_bytes(whole)
    assert certificates.newest() is not first
