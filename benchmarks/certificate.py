"""Make a certificate for the loopback servers. On AWS every service uses TLS, whose cost is part of the first request."""

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

# For clients that have Cognito's address built in and are redirected here.
COGNITO_HOST = "cognito-idp.us-east-1.amazonaws.com"


@dataclass(frozen=True)
class Tls:
    """The TLS context of the servers, and the files with which their clients trust them."""

    context: ssl.SSLContext
    certificate: Path  # for clients that add it to their own root certificates
    directory: Path  # for OpenSSL, which finds a root certificate there by its hash
    bundle: Path  # the certificate and all roots that a client has on AWS, because loading them takes time


def make_tls(folder: Path) -> Tls:
    """Make a key and a certificate, and write the files for the clients to the folder."""
    key = generate_private_key(65537, 2048)
    certificate, bundle, private = folder / "certificate.pem", folder / "bundle.pem", folder / "key.pem"
    signed = sign_certificate(key)
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    directory = folder / "certificates"
    directory.mkdir()
    (directory / f"{hash_subject(signed)}.0").write_bytes(certificate.read_bytes())
    bundle.write_bytes(Path(where()).read_bytes() + certificate.read_bytes())
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    private.unlink()  # the folder is mounted into the containers
    return Tls(context, certificate, directory, bundle)


def hash_subject(certificate: x509.Certificate) -> str:
    """Return the hash by which OpenSSL finds a root certificate, as `openssl x509 -hash` prints it.

    The subject must be in lower case, without repeated spaces, and shorter than 128 octets in DER.
    """
    attributes = certificate.subject.public_bytes()[2:]  # without the sequence's tag and length
    return hashlib.sha1(attributes, usedforsecurity=False).digest()[3::-1].hex()


def sign_certificate(key: RSAPrivateKey) -> x509.Certificate:
    """Return a certificate for the loopback servers, signed by its own key."""
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
