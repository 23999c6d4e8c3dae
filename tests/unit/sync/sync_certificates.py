"""Certificates for 127.0.0.1, of any time, alone or by an authority."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, begins: datetime.datetime, ends: datetime.datetime) -> bytes:
        """A server's certificate and its key; PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder("app", self.certificate.subject, key.public_key(), begins, ends)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM) + _private(key)


def authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    now, year = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=365)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = _builder(name, subject, key.public_key(), now - year, now + year)
    authority = x509.BasicConstraints(ca=True, path_length=None)
    return Authority(builder.add_extension(authority, True).sign(key, hashes.SHA256()), key)


def self_signed(
    name: str, begins: datetime.datetime | None = None, ends: datetime.datetime | None = None
) -> tuple[bytes, bytes]:
    """A certificate that is its own authority, and its key; PEM. Valid today if no times are given."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = _builder(name, subject, key.public_key(), begins or now - day, ends or now + day)
    authority = x509.BasicConstraints(ca=True, path_length=None)
    certificate = builder.add_extension(authority, True).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), _private(key)


def _builder(
    name: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
