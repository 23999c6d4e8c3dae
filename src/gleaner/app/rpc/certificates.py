"""Self-signed certificates for machines' own listeners, made when first asked for and kept while the app runs."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAYS = 90


@dataclass(frozen=True)
class MachineCertificate:
    """PEM texts."""

    certificate: str
    key: str
    expires: dt.datetime


class MachineCertificates:
    def __init__(self) -> None:
        self._made: dict[str, MachineCertificate] = {}
        self._lock = threading.Lock()

    def get(self, part_id: str, names: list[str]) -> MachineCertificate:
        """The part's certificate; a new one when the old has less than a third of its time left."""
        now = dt.datetime.now(dt.UTC)
        with self._lock:
            known = self._made.get(part_id)
            if known is None or known.expires - now < dt.timedelta(days=_DAYS / 3):
                known = self._made[part_id] = _make(names, now)
            return known


def _make(names: list[str], now: dt.datetime) -> MachineCertificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    expires = now + dt.timedelta(days=_DAYS)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(expires)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return MachineCertificate(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode(), expires)
