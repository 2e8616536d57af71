"""A certificate for the loopback servers: on AWS every service has TLS, and its cost is part of the first request."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from botocore.httpsession import where
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

# For clients whose bundle has the address of Cognito built in, and that are redirected here.
COGNITO_HOST = "cognito-idp.us-east-1.amazonaws.com"


@dataclass(frozen=True)
class Tls:
    """What the servers and their clients need."""

    context: ssl.SSLContext
    certificate: Path  # for clients that add it to the roots that they trust anyway
    directory: Path  # for OpenSSL, which looks there for a root that its own files do not have
    bundle: Path  # the certificate and as many roots as a client has on AWS: loading them takes time, too


def make_tls(folder: Path) -> Tls:
    """Write the files into the folder."""
    key = generate_private_key(65537, 2048)
    certificate, bundle, private = folder / "certificate.pem", folder / "bundle.pem", folder / "key.pem"
    signed = self_signed(key)
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    directory = folder / "certificates"
    directory.mkdir()
    (directory / f"{subject_hash(signed)}.0").write_bytes(certificate.read_bytes())
    bundle.write_bytes(Path(where()).read_bytes() + certificate.read_bytes())
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    private.unlink()  # the folder is mounted into the containers
    return Tls(context, certificate, directory, bundle)


def subject_hash(certificate: x509.Certificate) -> str:
    """Return what OpenSSL calls the file of a root, as `openssl x509 -hash` prints it.

    The name must be in lower case, without repeated spaces, and shorter than 128 octets in DER.
    """
    attributes = certificate.subject.public_bytes()[2:]  # without the sequence's tag and length
    return hashlib.sha1(attributes, usedforsecurity=False).digest()[3::-1].hex()


def self_signed(key: RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "make bench")])
    names = [x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost"), x509.DNSName(COGNITO_HOST)]
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
