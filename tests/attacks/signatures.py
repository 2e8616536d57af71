"""Attacks on the signature: RFC 8017 sections 8.2.2 and 9.2, RFC 4648 section 3.5."""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Iterator
from secrets import token_bytes

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512

from benchmarks.user_pool import base64url
from tests.attacks.cases import Token, claiming, signed_by, text, tokens
from tests.attacks.forgery import (
    SHA256_PREFIX,
    Pool,
    Signer,
    as_octets,
    constant,
    ecdsa,
    eddsa,
    emsa,
    encoded,
    id_token,
    mac,
    modulus,
    pkcs1,
    pss,
    rs256,
)
from tests.attacks.headers import PEM

BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MAX_OCTETS = 1024 * 3 // 4  # 6144 bits


def altered(change: Callable[[bytes], bytes]) -> Callable[[Pool], Signer]:
    """What becomes of the true signature."""
    return lambda pool: lambda message: change(rs256(pool.key)(message))


def over(change: Callable[[bytes], bytes]) -> Callable[[Pool], Signer]:
    """A true signature, of something else than the signing input."""
    return lambda pool: lambda message: rs256(pool.key)(change(message))


def flipped(octet: int, bit: int) -> Callable[[bytes], bytes]:
    def flip(signature: bytes) -> bytes:
        octets = bytearray(signature)
        octets[octet] ^= bit
        return bytes(octets)

    return flip


def in_other_spelling(message: bytes) -> bytes:
    header, _, payload = message.partition(b".")
    return base64url(urlsafe_b64decode(header + b"==") + b" ").encode() + b"." + payload


def in_clear(message: bytes) -> bytes:
    return b".".join(urlsafe_b64decode(segment + b"==") for segment in message.split(b"."))


BAD_SIGNATURES: dict[str, Callable[[Pool], Signer]] = {
    "one-zero": lambda _: constant(b"\0"),
    "all-zeros": lambda _: constant(bytes(256)),
    "all-ones": lambda _: constant(b"\xff" * 256),
    "number-one": lambda _: constant((1).to_bytes(256, "big")),
    "random": lambda _: constant(token_bytes(256)),
    "text": lambda _: constant(b"signature"),
    "of-6144-bits": lambda _: constant(b"\1" * MAX_OCTETS),
    "modulus": lambda pool: constant(as_octets(modulus(pool.key))),
    "modulus-less-one": lambda pool: constant(as_octets(modulus(pool.key) - 1)),
    "first-bit-flipped": altered(flipped(0, 0x80)),
    "middle-bit-flipped": altered(flipped(128, 0x10)),
    "last-bit-flipped": altered(flipped(-1, 0x01)),
    "first-octet-missing": altered(lambda signature: signature[1:]),
    "last-octet-missing": altered(lambda signature: signature[:-1]),
    "half": altered(lambda signature: signature[:128]),
    "zero-before": altered(lambda signature: b"\0" + signature),
    "zero-after": altered(lambda signature: signature + b"\0"),
    "twice": altered(lambda signature: signature * 2),
    "little-endian": altered(lambda signature: signature[::-1]),
    "in-hexadecimal": altered(lambda signature: signature.hex().encode()),
    "in-base64-twice": altered(b64encode),
    "in-der-octet-string": altered(lambda signature: b"\x04\x82\x01\x00" + signature),
    "in-der-bit-string": altered(lambda signature: b"\x03\x82\x01\x01\0" + signature),
    "negated": lambda pool: (
        lambda message: as_octets(modulus(pool.key) - int.from_bytes(rs256(pool.key)(message), "big"))
    ),
    "plus-modulus-in-257-octets": lambda pool: (
        lambda message: (int.from_bytes(rs256(pool.key)(message), "big") + modulus(pool.key)).to_bytes(257, "big")
    ),
    "of-another-key": lambda pool: rs256(pool.attacker_key),
    "of-another-key-of-the-pool": lambda pool: rs256(pool.published["3072"]),
    "sha-1": lambda pool: pkcs1(pool.key, SHA1()),  # noqa: S303 it is what a forger would use
    "sha-384": lambda pool: pkcs1(pool.key, SHA384()),
    "sha-512": lambda pool: pkcs1(pool.key, SHA512()),
    "pss": lambda pool: pss(pool.key, SHA256()),
    "es256": lambda _: ecdsa(ec.SECP256R1(), SHA256()),
    "ed25519": lambda _: eddsa,
    "hs256-with-pem": lambda pool: mac(PEM(pool)),
    "of-the-digest": over(lambda message: hashlib.sha256(message).digest()),
    "of-nothing": over(lambda _: b""),
    "of-the-header-only": over(lambda message: message.partition(b".")[0]),
    "of-the-payload-only": over(lambda message: message.partition(b".")[2]),
    "of-segments-without-dot": over(lambda message: message.replace(b".", b"")),
    "of-one-dot-more": over(lambda message: message + b"."),
    "of-decoded-segments": over(in_clear),
    "of-a-header-in-other-spelling": over(in_other_spelling),
}

# PKCS #1 v1.5 encodings that only a holder of the private key can sign, or whoever found e = 3 and a lax verifier.
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


def padded(digest_info: Callable[[bytes], bytes]) -> Callable[[bytes, int], bytes]:
    return lambda digest, size: emsa(digest_info(digest), size)


def around(**parts: bytes) -> Callable[[bytes, int], bytes]:
    """The true DigestInfo behind other parts than it should have."""
    return lambda digest, size: emsa(SHA256_PREFIX + digest, size, **parts)


def right_aligned(before: bytes) -> Callable[[bytes, int], bytes]:
    return lambda digest, size: (before + SHA256_PREFIX + digest).rjust(size, b"\0")


ENCODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    **{f"digest-info-{name}": padded(digest_info) for name, digest_info in DIGEST_INFOS.items()},
    # Bleichenbacher's forgery of 2006: whatever follows the digest is at the forger's disposal.
    "garbage-after-the-digest": lambda digest, size: (b"\0\1" + b"\xff" * 8 + b"\0" + SHA256_PREFIX + digest).ljust(
        size, b"\x5a"
    ),
    "one-octet-after-the-digest": lambda digest, size: emsa(SHA256_PREFIX + digest + b"\0", size),
    "zeros-after-the-digest": lambda digest, size: emsa(SHA256_PREFIX + digest + bytes(64), size),
    "garbage-in-the-parameters": lambda digest, size: emsa(
        bytes.fromhex("3071304d0609608648016503040201") + b"\x04\x40" + b"\x5a" * 64 + b"\x04\x20" + digest, size
    ),
    "short-padding": right_aligned(b"\0\1" + b"\xff" * 8 + b"\0"),
    "no-padding": right_aligned(b"\0\1\0"),
    "digest-info-alone": right_aligned(b""),
    "block-type-0": around(block=b"\0\0"),
    "block-type-0-padded-with-zeros": around(block=b"\0\0", padding=b"\0"),
    "block-type-2": around(block=b"\0\2"),
    "block-type-2-padded-at-random": around(block=b"\0\2", padding=b"\x17\x2a\x99\x81"),
    "padding-of-other-octets": around(padding=b"\xfe"),
    "padding-of-zeros": around(padding=b"\0"),
    "padding-with-one-other-octet": around(block=b"\0\1\xff\xff\x7f"),
    "without-separator": around(end=b"\xff"),
    "two-separators": around(end=b"\0\0"),
    "without-leading-zero": around(block=b"\1"),
}


def encoded_as(encoding: Callable[[bytes, int], bytes]) -> Callable[[Pool], Signer]:
    return lambda pool: encoded(pool.key, encoding)


def without_leading_zero(pool: Pool) -> str:
    """One signature in 256 starts with a zero octet, which belongs to it (RFC 8017 section 8.2.2 step 1)."""
    while True:
        signing_input, _, signature = id_token(pool).rpartition(".")
        if (octets := urlsafe_b64decode(signature + "=="))[0] == 0:
            return f"{signing_input}.{base64url(octets[1:])}"


def plus_modulus(pool: Pool) -> str:
    """The same number modulo n in as many octets, where there is room (RFC 8017 section 5.2.2 step 1)."""
    while True:
        signing_input, _, signature = id_token(pool).rpartition(".")
        number = int.from_bytes(urlsafe_b64decode(signature + "=="), "big") + modulus(pool.key)
        if number < 1 << 2048:
            return f"{signing_input}.{base64url(number.to_bytes(256, 'big'))}"


def of_two(template: str) -> Callable[[Pool], str]:
    """Of two tokens that the pool did sign, the second for somebody else."""
    victim = claiming({"sub": "victim"})
    return lambda pool: template.format(*id_token(pool).split("."), *victim(pool).split("."))


def trailing_bits(segment: str) -> str:
    """The same octets to a decoder that ignores what is left over of the last character."""
    return segment[:-1] + BASE64URL[BASE64URL.index(segment[-1]) + 1]


def signature(change: Callable[[str], str]) -> Callable[[Pool], object]:
    """Another spelling of the true signature."""
    return text(lambda token: f"{token.rpartition('.')[0]}.{change(token.rpartition('.')[2])}")


# All that follows the second dot is the signature, in what is not base64url then.
AFTER = {
    "a-space": " ",
    "a-newline": "\n",
    "a-crlf": "\r\n",
    "a-tab": "\t",
    "a-nul": "\0",
    "a-zero-width-space": "\u200b",
    "a-letter-of-latin-1": "\xe9",
    "an-arabic-digit": "\N{ARABIC-INDIC DIGIT ONE}",
}


def signature_tokens() -> Iterator[Token]:
    yield from tokens(
        "signature", "bad_signature", {name: signed_by(signer) for name, signer in BAD_SIGNATURES.items()}
    )
    yield from tokens(
        "pkcs1", "bad_signature", {name: signed_by(encoded_as(encoding)) for name, encoding in ENCODINGS.items()}
    )
    yield from tokens(
        "signature",
        "bad_signature",
        {
            "without-its-leading-zero": without_leading_zero,
            "plus-modulus": plus_modulus,
            "of-another-token": of_two("{3}.{4}.{2}"),
            "under-the-claims-of-another-token": of_two("{0}.{4}.{2}"),
            "and-payload-swapped": of_two("{0}.{2}.{1}"),
            "of-a-payload-that-is-left-out": of_two("{0}..{2}"),
            "empty": of_two("{0}.{1}."),
            "empty-and-alg-rs256": signed_by(lambda _: constant(b"")),
            "of-one-character": of_two("{0}.{1}.A"),
            "with-trailing-bits": signature(trailing_bits),
            "one-character-too-many": signature(lambda segment: f"{segment}AAA"),
            "padded": signature(lambda segment: f"{segment}=="),
            "padded-too-much": signature(lambda segment: f"{segment}===="),
            "in-the-other-alphabet": signature(lambda segment: f"+/{segment[2:]}"),
            "with-a-newline-inside": signature(lambda segment: f"{segment[:64]}\n{segment[64:]}"),
            "with-a-space-inside": signature(lambda segment: f"{segment[:64]} {segment[64:]}"),
            "with-a-tilde": signature(lambda segment: f"~{segment}"),
            **{f"with-{name}-after": of_two(f"{{0}}.{{1}}.{{2}}{text}") for name, text in AFTER.items()},
        },
    )
    yield Token("signature-missing", of_two("{0}.{1}"), "malformed_token")
    yield Token(
        "signature-empty-and-alg-none", signed_by(lambda _: constant(b""), {"alg": "none"}), "unsupported_algorithm"
    )
    yield Token("signature-of-769-octets", signed_by(lambda _: constant(b"\1" * (MAX_OCTETS + 1))), "exceeded_size")
