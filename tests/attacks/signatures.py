"""Signatures that must not verify, because they are not the pool's RS256 of the signing input: RFC 8017 8.2.2, 9.2."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable
from secrets import token_bytes

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.user_pool import KID, base64url
from tests.attacks.forgery import Forgery, Pool, get_private_key, sign_rs256

MAX_SIGNATURE_BYTES = 768  # the signature of a key of 6144 bits
SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo, RFC 8017 section 9.2 note 1

Signature = Callable[[Pool, bytes], bytes]
Encode = Callable[[bytes, int], bytes]  # takes the SHA-256 digest and the size of the modulus in bytes


def sign_as_the_pool(pool: Pool, message: bytes) -> bytes:
    """Sign as the user pool does."""
    return sign_rs256(pool.keys["signing"], message)


def get_modulus(pool: Pool) -> int:
    return pool.keys["signing"].public_key.public_numbers().n


def to_bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def sign_pkcs1(algorithm: HashAlgorithm) -> Signature:
    return lambda pool, message: get_private_key(pool.keys["signing"]).sign(message, PKCS1v15(), algorithm)


def sign_pss(algorithm: HashAlgorithm) -> Signature:
    padding = PSS(MGF1(algorithm), algorithm.digest_size)
    return lambda pool, message: get_private_key(pool.keys["signing"]).sign(message, padding, algorithm)


def sign_ecdsa(curve: ec.EllipticCurve, algorithm: HashAlgorithm) -> Signature:
    """Sign with a new key, in JOSE's format (RFC 7518 section 3.4)."""
    size = (curve.key_size + 7) // 8

    def sign(_: Pool, message: bytes) -> bytes:
        r, s = decode_dss_signature(ec.generate_private_key(curve).sign(message, ec.ECDSA(algorithm)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


def sign_eddsa(_: Pool, message: bytes) -> bytes:
    return ed25519.Ed25519PrivateKey.generate().sign(message)


def sign_mac(secret: str, algorithm: str = "sha256") -> Signature:
    """Sign by HMAC with public bytes as the secret; the name is one of PUBLIC_SECRETS."""
    return lambda pool, message: hmac.digest(PUBLIC_SECRETS[secret](pool), message, algorithm)


def return_constant(signature: bytes) -> Signature:
    return lambda *_: signature


def flip(octets: bytes, index: int, bit: int) -> bytes:
    flipped = bytearray(octets)
    flipped[index] ^= bit
    return bytes(flipped)


def reencode_header(message: bytes) -> bytes:
    """Return the signing input with a space after the header's JSON, which means the same."""
    header, _, payload = message.partition(b".")
    return base64url(urlsafe_b64decode(header + b"==") + b" ").encode() + b"." + payload


def decode_segments(message: bytes) -> bytes:
    return b".".join(urlsafe_b64decode(segment + b"==") for segment in message.split(b"."))


def encode_public_key(encoding: Encoding, form: PublicFormat) -> Callable[[Pool], bytes]:
    return lambda pool: pool.keys["signing"].public_key.public_bytes(encoding, form)


def get_jwk(pool: Pool, *names: str, key: str = "signing") -> dict[str, object]:
    members = pool.keys[key].as_dict(private=False)
    return {name: members[name] for name in names or sorted(members)}


PEM = encode_public_key(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
# Public bytes that JOSE libraries have used as HMAC keys by mistake.
PUBLIC_SECRETS: dict[str, Callable[[Pool], bytes]] = {
    "pem": PEM,
    "pem-without-last-newline": lambda pool: PEM(pool).rstrip(),
    "pem-with-crlf": lambda pool: PEM(pool).replace(b"\n", b"\r\n"),
    "pkcs1-pem": encode_public_key(Encoding.PEM, PublicFormat.PKCS1),
    "der": encode_public_key(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "pkcs1-der": encode_public_key(Encoding.DER, PublicFormat.PKCS1),
    "openssh": encode_public_key(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "jwk": lambda pool: json.dumps(get_jwk(pool)).encode(),
    "jwk-thumbprint-input": lambda pool: json.dumps(get_jwk(pool, "e", "kty", "n"), separators=(",", ":")).encode(),
    "modulus": lambda pool: to_bytes(get_modulus(pool)),
    "modulus-base64url": lambda pool: base64url(to_bytes(get_modulus(pool))).encode(),
    "kid": lambda _: KID.encode(),
    "nothing": lambda _: b"",
}
# Signatures with the algorithm that the header names.
OTHER_ALGORITHMS: dict[str, Signature] = {
    "RS1": sign_pkcs1(SHA1()),  # noqa: S303 - a forger may use it
    "RS384": sign_pkcs1(SHA384()),
    "RS512": sign_pkcs1(SHA512()),
    "PS256": sign_pss(SHA256()),
    "PS384": sign_pss(SHA384()),
    "PS512": sign_pss(SHA512()),
    "ES256": sign_ecdsa(ec.SECP256R1(), SHA256()),
    "ES384": sign_ecdsa(ec.SECP384R1(), SHA384()),
    "ES512": sign_ecdsa(ec.SECP521R1(), SHA512()),
    "ES256K": sign_ecdsa(ec.SECP256K1(), SHA256()),
    "EdDSA": sign_eddsa,
    "Ed25519": sign_eddsa,
}
BAD_SIGNATURES: dict[str, Signature] = {
    "empty": return_constant(b""),
    "one-zero": return_constant(b"\0"),
    "all-zeros": return_constant(bytes(256)),
    "all-ones": return_constant(b"\xff" * 256),
    "number-one": return_constant((1).to_bytes(256, "big")),
    "random": lambda *_: token_bytes(256),
    "text": return_constant(b"signature"),
    "of-6144-bits": return_constant(b"\1" * MAX_SIGNATURE_BYTES),
    "modulus": lambda pool, _: to_bytes(get_modulus(pool)),
    "modulus-less-one": lambda pool, _: to_bytes(get_modulus(pool) - 1),
    "first-bit-flipped": lambda pool, message: flip(sign_as_the_pool(pool, message), 0, 0x80),
    "middle-bit-flipped": lambda pool, message: flip(sign_as_the_pool(pool, message), 128, 0x10),
    "last-bit-flipped": lambda pool, message: flip(sign_as_the_pool(pool, message), -1, 0x01),
    "first-octet-missing": lambda pool, message: sign_as_the_pool(pool, message)[1:],
    "last-octet-missing": lambda pool, message: sign_as_the_pool(pool, message)[:-1],
    "half": lambda pool, message: sign_as_the_pool(pool, message)[:128],
    "zero-before": lambda pool, message: b"\0" + sign_as_the_pool(pool, message),
    "zero-after": lambda pool, message: sign_as_the_pool(pool, message) + b"\0",
    "twice": lambda pool, message: sign_as_the_pool(pool, message) * 2,
    "little-endian": lambda pool, message: sign_as_the_pool(pool, message)[::-1],
    "in-hexadecimal": lambda pool, message: sign_as_the_pool(pool, message).hex().encode(),
    "in-base64-twice": lambda pool, message: b64encode(sign_as_the_pool(pool, message)),
    "in-der-octet-string": lambda pool, message: b"\x04\x82\x01\x00" + sign_as_the_pool(pool, message),
    "in-der-bit-string": lambda pool, message: b"\x03\x82\x01\x01\0" + sign_as_the_pool(pool, message),
    "negated": lambda pool, message: to_bytes(
        get_modulus(pool) - int.from_bytes(sign_as_the_pool(pool, message), "big")
    ),
    "plus-modulus-in-257-octets": lambda pool, message: (
        int.from_bytes(sign_as_the_pool(pool, message), "big") + get_modulus(pool)
    ).to_bytes(257, "big"),
    "of-another-key": lambda pool, message: sign_rs256(pool.keys["attacker"], message),
    "of-another-key-of-the-pool": lambda pool, message: sign_rs256(pool.keys["3072"], message),
    "sha-1": sign_pkcs1(SHA1()),  # noqa: S303 - a forger may use it
    "sha-384": sign_pkcs1(SHA384()),
    "sha-512": sign_pkcs1(SHA512()),
    "pss": sign_pss(SHA256()),
    "es256": sign_ecdsa(ec.SECP256R1(), SHA256()),
    "ed25519": sign_eddsa,
    "hs256-with-pem": sign_mac("pem"),
    "of-the-digest": lambda pool, message: sign_as_the_pool(pool, hashlib.sha256(message).digest()),
    "of-nothing": lambda pool, _: sign_as_the_pool(pool, b""),
    "of-the-header-only": lambda pool, message: sign_as_the_pool(pool, message.partition(b".")[0]),
    "of-the-payload-only": lambda pool, message: sign_as_the_pool(pool, message.partition(b".")[2]),
    "of-segments-without-dot": lambda pool, message: sign_as_the_pool(pool, message.replace(b".", b"")),
    "of-one-dot-more": lambda pool, message: sign_as_the_pool(pool, message + b"."),
    "of-decoded-segments": lambda pool, message: sign_as_the_pool(pool, decode_segments(message)),
    "of-a-header-in-other-spelling": lambda pool, message: sign_as_the_pool(pool, reencode_header(message)),
}


def sign_encoded(encode: Encode) -> Signature:
    """Sign any encoded message by RSASP1 of RFC 8017 section 5.2.1."""

    def sign(pool: Pool, message: bytes) -> bytes:
        n = get_modulus(pool)
        size = len(to_bytes(n))
        encoded = encode(hashlib.sha256(message).digest(), size)
        representative = int.from_bytes(encoded, "big")
        assert representative < n
        assert len(encoded) <= size
        return pow(representative, get_private_key(pool.keys["signing"]).private_numbers().d, n).to_bytes(size, "big")

    return sign


def encode_emsa(
    digest_info: bytes, size: int, *, block: bytes = b"\0\1", padding: bytes = b"\xff", end: bytes = b"\0"
) -> bytes:
    """Encode a DigestInfo. The default parts give EMSA-PKCS1-v1_5 of RFC 8017 section 9.2."""
    room = size - len(block) - len(end) - len(digest_info)
    return block + (padding * size)[:room] + end + digest_info


def sign_digest_info(digest_info: Callable[[bytes], bytes], **parts: bytes) -> Signature:
    return sign_encoded(lambda digest, size: encode_emsa(digest_info(digest), size, **parts))


# Wrong PKCS #1 v1.5 encodings. With e = 3 and a lax verifier a forger can produce them without the private key.
DIGEST_INFOS: dict[str, Callable[[bytes], bytes]] = {
    "without-null": lambda digest: bytes.fromhex("302f300b06096086480165030402010420") + digest,
    "with-oid-of-sha-512": lambda digest: bytes.fromhex("3031300d060960864801650304020305000420") + digest,
    "with-oid-of-sha-224": lambda digest: bytes.fromhex("3031300d060960864801650304020405000420") + digest,
    "with-oid-of-sha3-256": lambda digest: bytes.fromhex("3031300d060960864801650304020805000420") + digest,
    "with-oid-of-md5": lambda digest: bytes.fromhex("3030300c06082a864886f70d020505000420") + digest,
    "with-long-length": lambda digest: bytes.fromhex("308131300d060960864801650304020105000420") + digest,
    "with-long-length-of-digest": lambda digest: bytes.fromhex("3032300d06096086480165030402010500048120") + digest,
    "with-indefinite-length": lambda digest: (
        bytes.fromhex("3080300d060960864801650304020105000420") + digest + bytes(2)
    ),
    "with-more-in-its-sequence": lambda digest: (
        bytes.fromhex("3035300d060960864801650304020105000420") + digest + bytes.fromhex("04020000")
    ),
    "with-parameters": lambda digest: bytes.fromhex("3033300f06096086480165030402010402aaaa0420") + digest,
    "with-digest-of-31-octets": lambda digest: bytes.fromhex("3030300d06096086480165030402010500041f") + digest[:31],
    "with-digest-of-33-octets": lambda digest: bytes.fromhex("3032300d060960864801650304020105000421") + digest + b"\0",
    "with-bit-string": lambda digest: bytes.fromhex("3031300d060960864801650304020105000320") + digest,
    "with-wrong-length": lambda digest: bytes.fromhex("3030300d060960864801650304020105000420") + digest,
    "with-digest-of-nothing": lambda _: SHA256_PREFIX + hashlib.sha256().digest(),
    "with-zeros-as-digest": lambda _: SHA256_PREFIX + bytes(32),
    "left-out": lambda digest: digest,
    "empty": lambda _: b"",
}
# Wrong parts around the right DigestInfo.
PARTS: dict[str, dict[str, bytes]] = {
    "block-type-0": {"block": b"\0\0"},
    "block-type-0-padded-with-zeros": {"block": b"\0\0", "padding": b"\0"},
    "block-type-2": {"block": b"\0\2"},
    "block-type-2-padded-at-random": {"block": b"\0\2", "padding": b"\x17\x2a\x99\x81"},
    "padding-of-other-octets": {"padding": b"\xfe"},
    "padding-of-zeros": {"padding": b"\0"},
    "padding-with-one-other-octet": {"block": b"\0\1\xff\xff\x7f"},
    "without-separator": {"end": b"\xff"},
    "two-separators": {"end": b"\0\0"},
    "without-leading-zero": {"block": b"\1"},
}
ENCODINGS: dict[str, Encode] = {
    # Bleichenbacher's forgery of 2006: the forger chooses the bytes after the digest.
    "garbage-after-the-digest": lambda digest, size: (b"\0\1" + b"\xff" * 8 + b"\0" + SHA256_PREFIX + digest).ljust(
        size, b"\x5a"
    ),
    "one-octet-after-the-digest": lambda digest, size: encode_emsa(SHA256_PREFIX + digest + b"\0", size),
    "zeros-after-the-digest": lambda digest, size: encode_emsa(SHA256_PREFIX + digest + bytes(64), size),
    "garbage-in-the-parameters": lambda digest, size: encode_emsa(
        bytes.fromhex("3071304d0609608648016503040201") + b"\x04\x40" + b"\x5a" * 64 + b"\x04\x20" + digest, size
    ),
    "short-padding": lambda digest, size: (b"\0\1" + b"\xff" * 8 + b"\0" + SHA256_PREFIX + digest).rjust(size, b"\0"),
    "no-padding": lambda digest, size: (b"\0\1\0" + SHA256_PREFIX + digest).rjust(size, b"\0"),
    "digest-info-alone": lambda digest, size: (SHA256_PREFIX + digest).rjust(size, b"\0"),
}


def drop_leading_zero(pool: Pool, _: str) -> str:
    """Return a token whose signature lacks its leading zero, which must be there (RFC 8017 section 8.2.2).

    One signature in 256 begins with a zero, so this signs until one does.
    """
    while True:
        signing_input, _, signature = Forgery("", "").build_token(pool).rpartition(".")
        if (octets := urlsafe_b64decode(signature + "=="))[0] == 0:
            return f"{signing_input}.{base64url(octets[1:])}"


def add_modulus(pool: Pool, _: str) -> str:
    """Return a token whose signature is larger by the modulus and as long as before (RFC 8017 section 5.2.2 step 1)."""
    while True:
        signing_input, _, signature = Forgery("", "").build_token(pool).rpartition(".")
        number = int.from_bytes(urlsafe_b64decode(signature + "=="), "big") + get_modulus(pool)
        if number < 1 << 2048:
            return f"{signing_input}.{base64url(number.to_bytes(256, 'big'))}"


# Text after the token, which a lax decoder of base64url ignores: RFC 4648 section 3.5.
AFTER = {
    "one-character-too-many": "AAA",
    "padded": "==",
    "padded-too-much": "====",
    "with-a-space-after": " ",
    "with-a-newline-after": "\n",
    "with-a-crlf-after": "\r\n",
    "with-a-tab-after": "\t",
    "with-a-nul-after": "\0",
    "with-a-zero-width-space-after": "\N{ZERO WIDTH SPACE}",
    "with-a-letter-of-latin-1-after": "\xe9",
    "with-an-arabic-digit-after": "\N{ARABIC-INDIC DIGIT ONE}",
}
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def set_trailing_bits(segment: str) -> str:
    """Change the bits of the last character that a lax decoder ignores."""
    return segment[:-1] + BASE64URL[BASE64URL.index(segment[-1]) + 1]


SIGNATURES = [
    *[Forgery(f"signature-{name}", "bad_signature", signature=sign) for name, sign in BAD_SIGNATURES.items()],
    Forgery("signature-of-769-octets", "exceeded_size", signature=return_constant(b"\1" * (MAX_SIGNATURE_BYTES + 1))),
    Forgery("signature-without-its-leading-zero", "bad_signature", sent=drop_leading_zero),
    Forgery("signature-plus-modulus", "bad_signature", sent=add_modulus),
    Forgery("signature-of-another-token", "bad_signature", sent="{other_header}.{other_payload}.{signature}"),
    Forgery(
        "signature-under-the-claims-of-another-token", "bad_signature", sent="{header}.{other_payload}.{signature}"
    ),
    Forgery("signature-and-payload-swapped", "bad_signature", sent="{header}.{signature}.{payload}"),
    Forgery("signature-of-a-payload-that-is-left-out", "bad_signature", sent="{header}..{signature}"),
    Forgery("signature-missing", "malformed_token", sent="{header}.{payload}"),
    *[Forgery(f"signature-{name}", "bad_signature", sent=f"{{token}}{text}") for name, text in AFTER.items()],
    Forgery("signature-with-trailing-bits", "bad_signature", sent=lambda _, token: set_trailing_bits(token)),
    Forgery("signature-of-one-character", "bad_signature", sent="{header}.{payload}.A"),
    Forgery(
        "signature-in-the-other-alphabet", "bad_signature", sent=lambda _, token: f"{token[:-342]}+/{token[-340:]}"
    ),
    Forgery("signature-with-a-newline-inside", "bad_signature", sent=lambda _, token: f"{token[:-64]}\n{token[-64:]}"),
    Forgery("signature-with-a-space-inside", "bad_signature", sent=lambda _, token: f"{token[:-64]} {token[-64:]}"),
    Forgery("signature-with-a-tilde", "bad_signature", sent="{header}.{payload}.~{signature}"),
]
PKCS1 = [
    *[
        Forgery(f"pkcs1-digest-info-{name}", "bad_signature", signature=sign_digest_info(digest_info))
        for name, digest_info in DIGEST_INFOS.items()
    ],
    *[
        Forgery(f"pkcs1-{name}", "bad_signature", signature=sign_digest_info(SHA256_PREFIX.__add__, **parts))
        for name, parts in PARTS.items()
    ],
    *[Forgery(f"pkcs1-{name}", "bad_signature", signature=sign_encoded(encode)) for name, encode in ENCODINGS.items()],
]
