"""What a forger has and does: keys, signatures of every kind, compact JWSs of any octets; no JOSE library is asked."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from joserfc.jwk import RSAKey

from benchmarks.user_pool import base64url, cognito_claims

KID = "signing1example="
RS256 = {"kid": KID, "alg": "RS256"}
SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo, RFC 8017 section 9.2 note 1
ABSENT = object()  # None is JSON's null

Signer = Callable[[bytes], bytes]


class Pool(NamedTuple):
    """The user pool under attack, and its attacker."""

    key: RSAKey
    published: Mapping[str, RSAKey]  # the pool's other keys, by what they are for
    attacker_key: RSAKey
    attacker_url: str


def id_token(
    pool: Pool,
    *,
    key: RSAKey | None = None,
    header: Mapping[str, object] = {},
    claims: Mapping[str, object] = {},
    signer: Signer | None = None,
) -> str:
    """An ID token like Cognito's own, but for the given key, members and signature; ABSENT drops a member."""
    key = key or pool.key
    return jws(
        changed({"kid": key.kid, "alg": "RS256"}, header),
        changed(cognito_claims(), claims),
        signer or rs256(key),
    )


def changed(members: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """A change that depends on the time is a function."""
    values = {name: value() if callable(value) else value for name, value in {**members, **changes}.items()}
    return {name: value for name, value in values.items() if value is not ABSENT}


def jws(header: Mapping[str, object] | str | bytes, payload: Mapping[str, object] | str | bytes, signer: Signer) -> str:
    signing_input = f"{base64url(octets(header))}.{base64url(octets(payload))}"
    return f"{signing_input}.{base64url(signer(signing_input.encode()))}"


def octets(content: Mapping[str, object] | str | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode()


# Keys


def private(key: RSAKey) -> RSAPrivateKey:
    assert key.private_key is not None
    return key.private_key


def modulus(key: RSAKey) -> int:
    return key.public_key.public_numbers().n


def as_octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


# Signatures


def rs256(key: RSAKey) -> Signer:
    return pkcs1(key, SHA256())


def pkcs1(key: RSAKey, algorithm: HashAlgorithm) -> Signer:
    return lambda message: private(key).sign(message, PKCS1v15(), algorithm)


def pss(key: RSAKey, algorithm: HashAlgorithm) -> Signer:
    return lambda message: private(key).sign(message, PSS(MGF1(algorithm), algorithm.digest_size), algorithm)


def ecdsa(curve: ec.EllipticCurve, algorithm: HashAlgorithm) -> Signer:
    """With a new key, as JOSE writes it (RFC 7518 section 3.4)."""
    size = (curve.key_size + 7) // 8

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(ec.generate_private_key(curve).sign(message, ec.ECDSA(algorithm)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


def eddsa(message: bytes) -> bytes:
    return ed25519.Ed25519PrivateKey.generate().sign(message)


def mac(secret: bytes, algorithm: str = "sha256") -> Signer:
    return lambda message: hmac.digest(secret, message, algorithm)


def constant(signature: bytes) -> Signer:
    return lambda _: signature


def encoded(key: RSAKey, encoding: Callable[[bytes, int], bytes]) -> Signer:
    """Opens, with the public key, as this encoding of the message's SHA-256 digest and the modulus's size in octets.

    RSASP1 of RFC 8017 section 5.2.1, so that what no honest signer encodes can be signed too.
    """

    def sign(message: bytes) -> bytes:
        numbers = private(key).private_numbers()
        n = numbers.public_numbers.n
        size = len(as_octets(n))
        encoded_message = encoding(hashlib.sha256(message).digest(), size)
        representative = int.from_bytes(encoded_message, "big")
        assert representative < n
        assert len(encoded_message) <= size
        return pow(representative, numbers.d, n).to_bytes(size, "big")

    return sign


def emsa(
    digest_info: bytes, size: int, *, block: bytes = b"\0\1", padding: bytes = b"\xff", end: bytes = b"\0"
) -> bytes:
    """EMSA-PKCS1-v1_5 of RFC 8017 section 9.2, as long as its parts are left alone."""
    room = size - len(block) - len(end) - len(digest_info)
    return block + (padding * size)[:room] + end + digest_info
