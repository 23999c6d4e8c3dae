"""TLS for anything but loopback: the owner's certificate, or one from a private authority made on first start.

`data_dir/tls` (0700) holds `ca.pem`, `ca.key`, `server.pem`, `server.key` (0600). Machines pin `ca.pem` when they are added;
the server's certificate is made again when it is about to end or does not name the addresses in use. The authority never changes.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gleaner.app.keys import write_private
from gleaner.app.settings import Settings

_CA_YEARS = 20
# Browsers refuse server certificates that are valid for longer than 398 days.
_SERVER_DAYS = 397
_RENEW_BEFORE = dt.timedelta(days=60)


class TlsProblem(Exception):
    """The owner's certificate cannot be used; the message is one line that says what to do."""


@dataclass(frozen=True)
class ServerTls:
    """`ca_certificate` is what clients must trust (PEM); empty when the owner's certificate is used."""

    cert_file: Path
    key_file: Path
    ca_certificate: str
    fingerprint: str

    def context(self, *, http2: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert_file, self.key_file)
        if http2:
            context.set_alpn_protocols(["h2"])
        return context


def server_tls(settings: Settings, names: list[str], now: dt.datetime) -> ServerTls | None:
    """What to serve with, or None on loopback without an own certificate. `names` are host names and addresses in use.

    Raises TlsProblem when the owner's certificate cannot be used.
    """
    if settings.tls_cert_file or settings.tls_key_file:
        return _owners(settings.tls_cert_file, settings.tls_key_file)
    if settings.is_loopback:
        return None
    folder = settings.data_dir / "tls"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_cert, ca_key = _authority(folder, now)
    cert_file, key_file = folder / "server.pem", folder / "server.key"
    if not _still_good(cert_file, key_file, names, now):
        _issue(cert_file, key_file, ca_cert, ca_key, names, now)
    ca_pem = ca_cert.public_bytes(serialization.Encoding.PEM)
    return ServerTls(cert_file, key_file, ca_pem.decode(), _fingerprint(ca_pem))


def _owners(cert_file: Path | None, key_file: Path | None) -> ServerTls:
    if cert_file is None or key_file is None:
        raise TlsProblem("An own certificate needs both --tls-cert-file and --tls-key-file: give the other one, too.")
    try:
        tls = ServerTls(cert_file, key_file, "", _fingerprint(cert_file.read_bytes()))
        key_file.read_bytes()
        tls.context()
    except ssl.SSLError as err:
        raise TlsProblem(
            f"{key_file} is not the private key (PEM, without a password) of the certificate in {cert_file}: {err.reason}"
        ) from err
    except OSError as err:
        raise TlsProblem(f"{err.filename} cannot be read: {err.strerror}. Check the path and who may read it.") from err
    except ValueError as err:
        raise TlsProblem(f"{cert_file} is not a certificate in PEM form (-----BEGIN CERTIFICATE-----).") from err
    return tls


def _authority(folder: Path, now: dt.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    cert_file, key_file = folder / "ca.pem", folder / "ca.key"
    if cert_file.exists() and key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(cert_file.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Gleaner private authority")])
    cert = (
        _builder(name, name, key.public_key(), now, dt.timedelta(days=365 * _CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(key_file, _pem(key))
    write_private(cert_file, cert.public_bytes(serialization.Encoding.PEM))
    return cert, key


def _issue(
    cert_file: Path,
    key_file: Path,
    ca_cert: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    names: list[str],
    now: dt.datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Gleaner app")])
    cert = (
        _builder(subject, ca_cert.subject, key.public_key(), now, dt.timedelta(days=_SERVER_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(key_file, _pem(key))
    write_private(cert_file, cert.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))  # machines' clocks may be a little behind
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _still_good(cert_file: Path, key_file: Path, names: list[str], now: dt.datetime) -> bool:
    if not (cert_file.exists() and key_file.exists()):
        return False
    cert = x509.load_pem_x509_certificate(cert_file.read_bytes())
    covered = set(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    return covered >= {_general_name(name) for name in names} and cert.not_valid_after_utc - now > _RENEW_BEFORE


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _fingerprint(pem: bytes) -> str:
    return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()
