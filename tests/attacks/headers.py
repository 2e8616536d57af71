"""Attacks on the protected header: the algorithm, other parameters, the key's name; all of it is text of a stranger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import RSAKey

from benchmarks.user_pool import ISSUER, USER_POOL_ID, base64url, cognito_claims
from tests.attacks.cases import Token, headed_by, signed_by, tokens, with_headers
from tests.attacks.forgery import (
    ABSENT,
    KID,
    Pool,
    Signer,
    as_octets,
    constant,
    ecdsa,
    eddsa,
    id_token,
    jws,
    mac,
    modulus,
    pkcs1,
    pss,
    rs256,
)

# Algorithm: RFC 8725 sections 2.1, 3.1 and 3.2

ALGORITHMS: dict[str, object] = {
    "none": "none",
    "none-in-capitals": "NONE",
    "none-capitalized": "None",
    "none-in-mixed-case": "nOnE",
    "none-and-space": "none ",
    "none-and-nul": "none\0",
    "none-of-a-look-alike": "n\N{CYRILLIC SMALL LETTER O}ne",
    "null": None,
    "null-in-letters": "null",
    "absent": ABSENT,
    "empty": "",
    "space": " ",
    "number": 256,
    "zero": 0,
    "true": True,
    "false": False,
    "list": ["RS256"],
    "list-of-two": ["RS256", "none"],
    "empty-list": [],
    "object": {"RS256": True},
    "lower-case": "rs256",
    "mixed-case": "Rs256",
    "space-before": " RS256",
    "space-after": "RS256 ",
    "newline-after": "RS256\n",
    "nul-after": "RS256\0",
    "zero-width-space-after": "RS256\N{ZERO WIDTH SPACE}",
    "full-width": "\N{FULLWIDTH LATIN CAPITAL LETTER R}S256",
    "full-width-digit": "RS25\N{FULLWIDTH DIGIT SIX}",
    "cyrillic": "R\N{CYRILLIC CAPITAL LETTER DZE}256",
    "hyphen": "RS-256",
    "java-name": "SHA256withRSA",
    "xml-name": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
    "two-names": "RS256,none",
    "rsa-oaep": "RSA-OAEP-256",
    "rsa1_5": "RSA1_5",
    "direct": "dir",
    "hs256-signed-as-rs256": "HS256",
    "rs384-signed-as-rs256": "RS384",
}
REALLY_SIGNED: dict[str, Callable[[Pool], Signer]] = {
    "RS1": lambda pool: pkcs1(pool.key, SHA1()),  # noqa: S303 it is what a forger would use
    "RS384": lambda pool: pkcs1(pool.key, SHA384()),
    "RS512": lambda pool: pkcs1(pool.key, SHA512()),
    "PS256": lambda pool: pss(pool.key, SHA256()),
    "PS384": lambda pool: pss(pool.key, SHA384()),
    "PS512": lambda pool: pss(pool.key, SHA512()),
    "ES256": lambda _: ecdsa(ec.SECP256R1(), SHA256()),
    "ES384": lambda _: ecdsa(ec.SECP384R1(), SHA384()),
    "ES512": lambda _: ecdsa(ec.SECP521R1(), SHA512()),
    "ES256K": lambda _: ecdsa(ec.SECP256K1(), SHA256()),
    "EdDSA": lambda _: eddsa,
    "Ed25519": lambda _: eddsa,
}


def public_bytes(encoding: Encoding, form: PublicFormat) -> Callable[[Pool], bytes]:
    return lambda pool: pool.key.public_key.public_bytes(encoding, form)


def jwk(key: RSAKey, *names: str) -> dict[str, object]:
    members = key.as_dict(private=False)
    return {name: members[name] for name in names or sorted(members)}


PEM = public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
# What everybody knows, and some library took for an HMAC key.
PUBLIC_SECRETS: dict[str, Callable[[Pool], bytes]] = {
    "pem": PEM,
    "pem-without-last-newline": lambda pool: PEM(pool).rstrip(),
    "pem-with-crlf": lambda pool: PEM(pool).replace(b"\n", b"\r\n"),
    "pkcs1-pem": public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "der": public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "pkcs1-der": public_bytes(Encoding.DER, PublicFormat.PKCS1),
    "openssh": public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "jwk": lambda pool: json.dumps(jwk(pool.key)).encode(),
    "jwk-thumbprint-input": lambda pool: json.dumps(jwk(pool.key, "e", "kty", "n"), separators=(",", ":")).encode(),
    "modulus": lambda pool: as_octets(modulus(pool.key)),
    "modulus-base64url": lambda pool: base64url(as_octets(modulus(pool.key))).encode(),
    "kid": lambda _: KID.encode(),
    "nothing": lambda _: b"",
}


def symmetric(bits: int, secret: Callable[[Pool], bytes]) -> Callable[[Pool], str]:
    return signed_by(lambda pool: mac(secret(pool), f"sha{bits}"), {"alg": f"HS{bits}"})


def algorithm_tokens() -> Iterator[Token]:
    reason = "unsupported_algorithm"
    yield from with_headers("alg", reason, {name: {"alg": alg} for name, alg in ALGORITHMS.items()})
    yield from tokens(
        "alg",
        reason,
        {
            **{
                f"{alg.lower()}-really-signed": signed_by(signer, {"alg": alg}) for alg, signer in REALLY_SIGNED.items()
            },
            **{f"hs256-with-{name}": symmetric(256, secret) for name, secret in PUBLIC_SECRETS.items()},
            "hs384-with-pem": symmetric(384, PEM),
            "hs512-with-pem": symmetric(512, PEM),
            "none-with-one-octet": signed_by(lambda _: constant(b"\0"), {"alg": "none"}),
            "es256-of-zeros": signed_by(lambda _: constant(bytes(64)), {"alg": "ES256"}),
            "capitalized-only": headed_by({"alg": ABSENT, "Alg": "RS256"}),
        },
    )


# Other parameters: RFC 7515 sections 4.1.2 to 4.1.11, RFC 7797, RFC 8725 sections 3.10 and 3.11

HEADERS: dict[str, dict[str, object]] = {
    "crit-empty": {"crit": []},
    "crit-null": {"crit": None},
    "crit-text": {"crit": "exp"},
    "crit-of-alg": {"crit": ["alg"]},
    "crit-unknown": {"crit": ["https://example.com/critical"], "https://example.com/critical": True},
    "crit-of-what-is-absent": {"crit": ["exp"]},
    "crit-twice-the-same": {"crit": ["b64", "b64"], "b64": True},
    "b64-false": {"b64": False, "crit": ["b64"]},
    "b64-false-not-critical": {"b64": False},
    "b64-true": {"b64": True, "crit": ["b64"]},
    "zip": {"zip": "DEF"},
    "enc": {"enc": "A256GCM"},
    "x5t": {"x5t": "dGh1bWJwcmludA"},
    "x5t-sha256": {"x5t#S256": "dGh1bWJwcmludA"},
    "x5c": {"x5c": ["MIIB"]},
    "x5c-empty": {"x5c": []},
    "x5u-of-nobody": {"x5u": "https://example.com/x509.pem"},
    "jwk-empty": {"jwk": {}},
    "jku-empty": {"jku": ""},
    "jku-null": {"jku": None},
    "jku-of-a-file": {"jku": "file:///etc/passwd"},
    "jku-of-the-instance-metadata": {"jku": "http://169.254.169.254/latest/meta-data/"},
    "jku-of-the-pool-itself": {"jku": f"{ISSUER}/.well-known/jwks.json"},
    "cty-jwt": {"cty": "JWT"},
    "cty-json": {"cty": "application/json"},
    "iss-replicated": {"iss": ISSUER},
    "exp-replicated": {"exp": 4102444800},
    "unknown": {"foo": "bar"},
    "without-name": {"": ""},
    "alg-in-capitals-too": {"ALG": "none"},
    "kid-capitalized-too": {"Kid": "other"},
    "prototype": {"__proto__": {"alg": "none"}},
    "password-iterations": {"p2c": 2147483647},
}
TYPES: dict[str, object] = {
    "access-token": "at+jwt",
    "application-jwt": "application/jwt",
    "jose": "JOSE",
    "jose-json": "JOSE+JSON",
    "jws": "JWS",
    "logout-token": "logout+jwt",
    "dpop-proof": "dpop+jwt",
    "security-event": "secevent+jwt",
    "space-after": "JWT ",
    "nul-after": "JWT\0",
    "full-width": "\N{FULLWIDTH LATIN CAPITAL LETTER J}WT",
    "empty": "",
    "null": None,
    "number": 1,
    "true": True,
    "list": ["JWT"],
    "object": {"JWT": True},
}


def pointing(parameter: str, **header: object) -> Callable[[Pool], str]:
    """Signed by the attacker, whose key is where the header points."""
    return lambda pool: id_token(
        pool, key=pool.attacker_key, header={parameter: f"{pool.attacker_url}/jwks.json", **header}
    )


def header_tokens() -> Iterator[Token]:
    yield from with_headers("header", "unsupported_header", HEADERS)
    yield from tokens(
        "header",
        "unsupported_header",
        {
            "jku-of-the-attacker": pointing("jku"),
            "jku-of-the-attacker-and-kid-of-the-pool": pointing("jku", kid=KID),
            "x5u-of-the-attacker": pointing("x5u"),
            "x5u-of-the-attacker-and-kid-of-the-pool": pointing("x5u", kid=KID),
            "jku-with-the-pool-as-userinfo": lambda pool: id_token(
                pool, header={"jku": pool.attacker_url.replace("//", "//cognito-idp.us-east-1.amazonaws.com@")}
            ),
            "jwk-of-the-attacker": lambda pool: id_token(
                pool,
                key=pool.attacker_key,
                header={"kid": KID, "jwk": jwk(pool.attacker_key, "kty", "n", "e")},
            ),
            "jwk-of-the-attacker-without-kid": lambda pool: id_token(
                pool, key=pool.attacker_key, header={"kid": ABSENT, "jwk": jwk(pool.attacker_key, "kty", "n", "e")}
            ),
            "jwk-of-the-pool": lambda pool: id_token(pool, header={"jwk": jwk(pool.key, "kty", "n", "e")}),
            "x5c-of-the-attacker": lambda pool: id_token(
                pool, key=pool.attacker_key, header={"kid": KID, "x5c": ["MIIDQjCCAiqgAwIBAgIGATz"]}
            ),
        },
    )
    yield from with_headers("typ", "unsupported_type", {name: {"typ": typ} for name, typ in TYPES.items()})
    yield Token(
        "header-empty",
        lambda pool: jws({}, cognito_claims(), rs256(pool.key)),
        "unsupported_algorithm",
    )


# The key's name: RFC 8725 section 3.10

UNKNOWN_KIDS: dict[str, str] = {
    "of-nobody": "nobody",
    "of-128-characters": "u" * 128,
    "path-traversal": "../../../../../../etc/passwd",
    "path-traversal-encoded": "..%2f..%2fdev%2fnull",
    "device": "/dev/null",
    "sql": "' UNION SELECT 'secret' -- ",
    "ldap": "*)(kid=*",
    "shell": "$(id)",
    "shell-pipe": "|id",
    "format-string": "%s%s%n",
    "look-up": "${jndi:ldap://127.0.0.1/a}",
    "template": "{{7*7}}",
    "query": "?kid=signing1example=",
    "url": "https://example.com/jwks.json",
    "emoji": "\N{KEY}",
    "nul": "\0",
    "nul-after": f"{KID}\0",
    "newline-after": f"{KID}\n",
    "newline-and-a-log-record": f'{KID}\n{{"level":"INFO","message":"connection accepted"}}',
    "upper-case": KID.upper(),
    "capitalized": KID.capitalize(),
    "space-after": f"{KID} ",
    "space-before": f" {KID}",
    "without-its-end": KID.removesuffix("="),
    "first-letters": KID[:4],
    "longer": f"{KID}=",
    "percent-encoded": KID.replace("=", "%3D"),
    "full-width": KID.replace("=", "\N{FULLWIDTH EQUALS SIGN}"),
    "zero-width-space": f"{KID}\N{ZERO WIDTH SPACE}",
    "lone-surrogate": "\ud800",
    "default": "default",
    "index": "0",
    "list-in-text": f'["{KID}"]',
    "attribute": "__class__",
}
MALFORMED_KIDS: dict[str, object] = {
    "empty": "",
    "of-129-characters": "u" * 129,
    "number": 1,
    "zero": 0,
    "negative": -1,
    "fraction": 0.5,
    "true": True,
    "false": False,
    "list": [KID],
    "list-of-two": [KID, "other"],
    "empty-list": [],
    "object": {"kid": KID},
    "empty-object": {},
}


def of_published(name: str) -> Callable[[Pool], str]:
    return lambda pool: id_token(pool, key=pool.published[name])


def kid_tokens() -> Iterator[Token]:
    yield from with_headers("kid", "unknown_kid", {name: {"kid": kid} for name, kid in UNKNOWN_KIDS.items()})
    yield from with_headers("kid", "malformed_kid", {name: {"kid": kid} for name, kid in MALFORMED_KIDS.items()})
    yield from with_headers("kid", "missing_kid", {"absent": {"kid": ABSENT}, "null": {"kid": None}})
    yield from tokens(
        "key",
        "unknown_kid",
        {
            "of-the-attacker": lambda pool: id_token(pool, key=pool.attacker_key),
            "of-the-attacker-and-his-issuer": lambda pool: id_token(
                pool, key=pool.attacker_key, claims={"iss": f"{pool.attacker_url}/{USER_POOL_ID}"}
            ),
            "at-the-attackers-url": pointing("kid"),
            "for-encryption": of_published("encryption"),
            "for-rs512": of_published("rs512"),
            "of-1024-bits": of_published("weak"),
            "of-a-kid-published-twice": of_published("twice"),
            "published-with-its-private-half": of_published("private"),
            "on-a-curve": headed_by({"kid": "elliptic"}),
            "of-a-secret": headed_by({"kid": "symmetric"}),
        },
    )
