"""Forged ID tokens, described by their differences from a sound one, and unusual ones that are sound."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from secrets import token_bytes
from typing import Any

from benchmarks.user_pool import APP_CLIENT_ID, ISSUER, KID, SUB, USER_POOL_ID, base64url, cognito_claims
from tests.attacks.forgery import ABSENT, ALLOW, Change, Forgery, Pool
from tests.attacks.signatures import (
    OTHER_ALGORITHMS,
    PUBLIC_SECRETS,
    SHA256_PREFIX,
    get_jwk,
    return_constant,
    set_trailing_bits,
    sign_digest_info,
    sign_mac,
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
ALGORITHM = [
    *[Forgery(f"alg-{name}", "unsupported_algorithm", header={"alg": alg}) for name, alg in ALGORITHMS.items()],
    *[
        Forgery(f"alg-{alg.lower()}-really-signed", "unsupported_algorithm", header={"alg": alg}, signature=sign)
        for alg, sign in OTHER_ALGORITHMS.items()
    ],
    *[
        Forgery(
            f"alg-hs256-with-{secret}", "unsupported_algorithm", header={"alg": "HS256"}, signature=sign_mac(secret)
        )
        for secret in PUBLIC_SECRETS
    ],
    Forgery(
        "alg-hs384-with-pem", "unsupported_algorithm", header={"alg": "HS384"}, signature=sign_mac("pem", "sha384")
    ),
    Forgery(
        "alg-hs512-with-pem", "unsupported_algorithm", header={"alg": "HS512"}, signature=sign_mac("pem", "sha512")
    ),
    Forgery(
        "alg-none-with-one-octet", "unsupported_algorithm", header={"alg": "none"}, signature=return_constant(b"\0")
    ),
    Forgery(
        "signature-empty-and-alg-none", "unsupported_algorithm", header={"alg": "none"}, signature=return_constant(b"")
    ),
    Forgery(
        "alg-es256-of-zeros", "unsupported_algorithm", header={"alg": "ES256"}, signature=return_constant(bytes(64))
    ),
    Forgery("alg-capitalized-only", "unsupported_algorithm", header={"alg": ABSENT, "Alg": "RS256"}),
    Forgery("header-empty", "unsupported_algorithm", header_json="{}"),
]

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


def get_attacker_url(pool: Pool) -> str:
    return f"{pool.attacker_url}/jwks.json"


def get_attacker_jwk(pool: Pool) -> dict[str, object]:
    return get_jwk(pool, "kty", "n", "e", key="attacker")


ATTACKER_HEADERS: dict[str, dict[str, Any]] = {
    "jku-of-the-attacker": {"key": "attacker", "header": {"jku": get_attacker_url}},
    "jku-of-the-attacker-and-kid-of-the-pool": {"key": "attacker", "header": {"kid": KID, "jku": get_attacker_url}},
    "x5u-of-the-attacker": {"key": "attacker", "header": {"x5u": get_attacker_url}},
    "x5u-of-the-attacker-and-kid-of-the-pool": {"key": "attacker", "header": {"kid": KID, "x5u": get_attacker_url}},
    "x5c-of-the-attacker": {"key": "attacker", "header": {"kid": KID, "x5c": ["MIIDQjCCAiqgAwIBAgIGATz"]}},
    "jwk-of-the-attacker": {"key": "attacker", "header": {"kid": KID, "jwk": get_attacker_jwk}},
    "jwk-of-the-attacker-without-kid": {"key": "attacker", "header": {"kid": ABSENT, "jwk": get_attacker_jwk}},
    "jwk-of-the-pool": {"header": {"jwk": lambda pool: get_jwk(pool, "kty", "n", "e")}},
    "jku-with-the-pool-as-userinfo": {
        "header": {"jku": lambda pool: pool.attacker_url.replace("//", "//cognito-idp.us-east-1.amazonaws.com@")}
    },
}
HEADER = [
    *[Forgery(f"header-{name}", "unsupported_header", header=header) for name, header in HEADERS.items()],
    *[Forgery(f"header-{name}", "unsupported_header", **changes) for name, changes in ATTACKER_HEADERS.items()],
]
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
TYPE = [Forgery(f"typ-{name}", "unsupported_type", header={"typ": typ}) for name, typ in TYPES.items()]

# The key's id: RFC 8725 section 3.10

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
KEY_ID = [
    *[Forgery(f"kid-{name}", "unknown_kid", header={"kid": kid}) for name, kid in UNKNOWN_KIDS.items()],
    *[Forgery(f"kid-{name}", "malformed_kid", header={"kid": kid}) for name, kid in MALFORMED_KIDS.items()],
    Forgery("kid-absent", "missing_kid", header={"kid": ABSENT}),
    Forgery("kid-null", "missing_kid", header={"kid": None}),
    Forgery("key-at-the-attackers-url", "unknown_kid", key="attacker", header={"kid": get_attacker_url}),
    Forgery("key-on-a-curve", "unknown_kid", header={"kid": "elliptic"}),
    Forgery("key-of-a-secret", "unknown_kid", header={"kid": "symmetric"}),
    Forgery("key-of-the-attacker", "unknown_kid", key="attacker"),
    Forgery(
        "key-of-the-attacker-and-his-issuer",
        "unknown_kid",
        key="attacker",
        claims={"iss": lambda pool: f"{pool.attacker_url}/{USER_POOL_ID}"},
    ),
    Forgery("key-for-encryption", "unknown_kid", key="encryption"),
    Forgery("key-for-rs512", "unknown_kid", key="rs512"),
    Forgery("key-of-1024-bits", "unknown_kid", key="weak"),
    Forgery("key-of-a-kid-published-twice", "unknown_kid", key="twice"),
    Forgery("key-published-with-its-private-half", "unknown_kid", key="private"),
]

# Segments, sizes and spellings: RFC 7515 section 7.1, RFC 4648 section 3.5

MAX_TOKEN_CHARACTERS = 8192
HEADER_JSON = json.dumps({"kid": KID, "alg": "RS256"})
JWE_HEADER = base64url(b'{"alg":"RSA-OAEP","enc":"A256GCM","cty":"JWT"}')


def to_json_serialization(token: str) -> dict[str, str]:
    return dict(zip(("protected", "payload", "signature"), token.split("."), strict=True))


def pad(octets: bytes, *, over: int) -> bytes:
    """Add white space until the length modulo 3 is `over`, which sets the unused bits of the last character."""
    return octets.ljust(len(octets) + (over - len(octets)) % 3)


def build_token_of_length(characters: int) -> Forgery:
    """Return a signed token of this length, with white space in its header if base64url has no such length."""
    header = HEADER_JSON
    room = characters - len(base64url(header.encode())) - len("..") - 342  # the length of a 2048-bit signature
    if room % 4 == 1:
        header += " "
        room = characters - len(base64url(header.encode())) - len("..") - 342
    return Forgery(
        f"structure-of-{characters}-characters",
        "exceeded_size",
        header_json=header,
        payload_json=lambda _, claims: claims.ljust(room * 3 // 4),
    )


# Texts that are sent instead of the token.
MALFORMED_TOKENS: dict[str, str | Callable[[Pool, str], str]] = {
    "one-segment": "{header}",
    "four-segments": "{token}.AAAA",
    "five-segments": "{token}.AAAA.AAAA",
    "six-segments": "{token}.{other}",
    "two-tokens-and-a-space": "{token} {other}",
    "two-tokens-and-a-comma": "{token},{other}",
    "dot-only": ".",
    "two-dots-only": "..",
    "many-dots": "." * 8000,
    "empty-header": ".{payload}.{signature}",
    "dot-before": ".{token}",
    "dot-after": "{token}.",
    "jws-json-flattened": lambda _, token: json.dumps(to_json_serialization(token)),
    "jws-json-general": lambda _, token: json.dumps({"payload": "e30", "signatures": [to_json_serialization(token)]}),
    "jwk": lambda pool, _: json.dumps(get_jwk(pool)),
    "word": "hello",
    "digits": "123456",
    "claims-in-clear": lambda *_: json.dumps(cognito_claims()),
    "space-before": " {token}",
    "space-around-a-dot": "{header} . {payload}.{signature}",
    "newline-before": "\n{token}",
    "nul-before": "\0{token}",
    "nul-and-more": "{token}\0.{other_header}",
    "byte-order-mark-before": "\ufeff{token}",
    "lone-surrogate": "\ud800",
    "lone-surrogate-before": "\ud800{token}",
    "lone-surrogate-after": "{token}\ud800",
    "backwards": "{signature}.{payload}.{header}",
    "full-width-letters": lambda _, token: token.replace("e", "\N{FULLWIDTH LATIN SMALL LETTER E}"),
    "dots-url-encoded": "{header}%2E{payload}%2E{signature}",
    "dots-ideographic": "{header}\N{IDEOGRAPHIC FULL STOP}{payload}\N{IDEOGRAPHIC FULL STOP}{signature}",
    "dots-of-leaders": "{header}\N{ONE DOT LEADER}{payload}\N{ONE DOT LEADER}{signature}",
    "dots-as-colons": "{header}:{payload}:{signature}",
    "quoted": '"{token}"',
    "bearer": "Bearer {token}",
    "bearer-in-lower-case": "bearer {token}",
    "named": "idToken={token}",
    "prefix-of-the-subprotocol": "idToken.{token}",
    "parameter-after": "{token}&idToken={other}",
    "url-encoded": lambda _, token: "".join(f"%{ord(character):02X}" for character in token),
    "in-base64-again": lambda _, token: base64url(token.encode()),
    "in-hexadecimal": lambda _, token: token.encode().hex(),
}
MALFORMED_HEADER_SEGMENTS: dict[str, Callable[[bytes], str]] = {
    "of-one-character": lambda _: "A",
    "padded": lambda header: base64url(pad(header, over=1)) + "==",
    "with-trailing-bits": lambda header: set_trailing_bits(base64url(pad(header, over=1))),
    "in-clear": lambda header: header.decode(),
    "in-lower-case": lambda header: base64url(pad(header, over=0)).lower(),
    "in-upper-case": lambda header: base64url(pad(header, over=0)).upper(),
    "with-its-case-swapped": lambda header: base64url(pad(header, over=0)).swapcase(),
}
MALFORMED_PAYLOAD_SEGMENTS: dict[str, Callable[[bytes], str]] = {
    "of-one-character": lambda _: "A",
    "padded": lambda payload: base64url(pad(payload, over=1)) + "==",
    "with-trailing-bits": lambda payload: set_trailing_bits(base64url(pad(payload, over=1))),
    "in-clear": lambda payload: payload.decode(),
}
TOO_LONG = {
    "8193-characters-and-no-token": "A" * (MAX_TOKEN_CHARACTERS + 1),
    "1-mib-and-no-token": "A" * 1048576,
    "100000-dots": "." * 100_000,
}
STRUCTURE = [
    *[Forgery(f"structure-{name}", "malformed_token", sent=sent) for name, sent in MALFORMED_TOKENS.items()],
    *[
        Forgery(f"structure-header-{name}", "malformed_token", encode_header=encode)
        for name, encode in MALFORMED_HEADER_SEGMENTS.items()
    ],
    *[
        Forgery(f"structure-payload-{name}", "malformed_token", encode_payload=encode)
        for name, encode in MALFORMED_PAYLOAD_SEGMENTS.items()
    ],
    build_token_of_length(MAX_TOKEN_CHARACTERS + 1),
    build_token_of_length(65536),
    *[Forgery(f"structure-of-{name}", "exceeded_size", sent=sent) for name, sent in TOO_LONG.items()],
    *[
        Forgery(f"structure-header-of-{size}-octets", "exceeded_size", header_json=HEADER_JSON.ljust(size))
        for size in (385, 513, 4000)
    ],
    Forgery("structure-header-and-payload-swapped", "unsupported_algorithm", sent="{payload}.{header}.{signature}"),
    Forgery("structure-jwe", "unsupported_algorithm", sent=f"{JWE_HEADER}.AAAA.AAAA.AAAA.AAAA"),
    Forgery("structure-jwe-with-empty-key", "unsupported_algorithm", sent=f"{JWE_HEADER}..AAAA.AAAA.AAAA"),
    Forgery("structure-empty", "missing_token", sent=""),
]

# JSON: RFC 7515 section 5.2, RFC 7519 sections 4 and 7.2, RFC 8259 sections 2 to 8

MALFORMED_HEADERS: dict[str, str | bytes | Change] = {
    "alg-twice-none-first": '{"alg":"none",MEMBERS}',
    "alg-twice-none-last": '{"alg":"RS256","alg":"none","kid":"signing1example="}',
    "alg-twice-the-same": '{"alg":"RS256",MEMBERS}',
    "alg-twice-once-escaped": '{"alg":"RS256","\\u0061lg":"none","kid":"signing1example="}',
    "kid-twice": '{"alg":"RS256","kid":"nobody","kid":"signing1example="}',
    "typ-twice": '{"alg":"RS256","typ":"at+jwt","typ":"JWT","kid":"signing1example="}',
    "unknown-twice-inside": '{MEMBERS,"jwk":{"a":1,"a":2}}',
    "not-a-number": '{"alg":"RS256","kid":NaN}',
    "infinity": '{"alg":"RS256","kid":Infinity}',
    "minus-infinity": '{"alg":"RS256","kid":-Infinity}',
    "byte-order-mark": "\ufeff{MEMBERS}",
    "utf-16": lambda _, header: header.encode("utf-16"),
    "utf-16-le": lambda _, header: header.encode("utf-16-le"),
    "utf-16-be": lambda _, header: header.encode("utf-16-be"),
    "utf-32-le": lambda _, header: header.encode("utf-32-le"),
    "latin-1": b'{"alg":"RS256","kid":"cl\xe9"}',
    "overlong-utf-8": b'{"alg":"RS256","kid":"\xc0\xaf"}',
    "surrogate-in-utf-8": b'{"alg":"RS256","kid":"\xed\xa0\x80"}',
    "utf-8-cut-off": b'{"alg":"RS256","kid":"\xf0\x9f\x94"}',
    "trailing-comma": "{MEMBERS,}",
    "comment": '{"alg":"RS256",/* */"kid":"signing1example="}',
    "single-quotes": "{'alg':'RS256','kid':'signing1example='}",
    "no-quotes": "{alg:RS256,kid:signing1example=}",
    "raw-newline-in-a-name": '{"alg":"RS256","k\nid":"signing1example="}',
    "nul-after": "{MEMBERS}\0",
    "vertical-tab-after": "{MEMBERS}\v",
    "no-break-space-after": "{MEMBERS}\xa0",
    "more-after": "{MEMBERS}x",
    "two-objects": "{MEMBERS}{}",
    "not-closed": "{MEMBERS",
    "number-cut-off": '{"alg":"RS256","kid":1' + "0" * 300,
    "space-only": " ",
    "null": "null",
    "true": "true",
    "number": "1",
    "string": '"RS256"',
    "list": "[{MEMBERS}]",
    "list-of-pairs": '[["alg","RS256"],["kid","signing1example="]]',
    "list-of-names": '["alg","kid"]',
    "list-of-names-and-b64": '["alg","b64"]',
    "string-of-names-and-b64": '"alg b64"',
    "empty-list": "[]",
    "deep": "[" * 384,
    "deep-and-closed": "[" * 192 + "]" * 192,
    "deep-objects": '{"a":' * 76,
    "cbor": bytes.fromhex("a201390100044f7369676e696e67316578616d706c65"),
    "yaml": "alg: RS256\nkid: signing1example=\n",
    "pickle": b"\x80\x04N.",
}
MALFORMED_PAYLOADS: dict[str, str | bytes | Change] = {
    "sub-twice": '{MEMBERS, "sub": "admin"}',
    "sub-twice-the-same": f'{{MEMBERS, "sub": "{SUB}"}}',
    "sub-twice-once-escaped": '{MEMBERS, "\\u0073ub": "admin"}',
    "exp-twice": '{MEMBERS, "exp": 4102444800}',
    "aud-twice": f'{{MEMBERS, "aud": "{APP_CLIENT_ID}"}}',
    "unknown-twice": '{MEMBERS, "a": 1, "a": 2}',
    "unknown-twice-inside": '{MEMBERS, "a": [{"b": 1, "b": 2}]}',
    "not-a-number": '{MEMBERS, "a": NaN}',
    "infinity": '{MEMBERS, "a": Infinity}',
    "minus-infinity": '{MEMBERS, "a": [-Infinity]}',
    "number-of-5000-digits": '{MEMBERS, "a": ' + "9" * 5000 + "}",
    "byte-order-mark": "\ufeff{MEMBERS}",
    "utf-16": lambda _, claims: claims.encode("utf-16"),
    "utf-16-le": lambda _, claims: claims.encode("utf-16-le"),
    "utf-16-be": lambda _, claims: claims.encode("utf-16-be"),
    "utf-32-le": lambda _, claims: claims.encode("utf-32-le"),
    "utf-32-be": lambda _, claims: claims.encode("utf-32-be"),
    "latin-1": b'{MEMBERS, "name": "Jan\xe9"}',
    "overlong-utf-8": b'{MEMBERS, "name": "\xc0\xaf"}',
    "surrogate-in-utf-8": b'{MEMBERS, "name": "\xed\xa0\x80"}',
    "surrogates-in-utf-8": b'{MEMBERS, "name": "\xed\xa0\xbd\xed\xb4\x91"}',
    "beyond-unicode": b'{MEMBERS, "name": "\xf4\x90\x80\x80"}',
    "trailing-comma": '{MEMBERS, "a": 1,}',
    "comment": '{MEMBERS, "a": 1 // 2}',
    "single-quotes": lambda _, claims: str(json.loads(claims)),
    "raw-newline-in-a-string": '{MEMBERS, "a": "\n"}',
    "leading-zero": '{MEMBERS, "a": 01}',
    "plus-sign": '{MEMBERS, "a": +1}',
    "hexadecimal": '{MEMBERS, "a": 0x1}',
    "nul-after": "{MEMBERS}\0",
    "more-after": "{MEMBERS}x",
    "two-objects": "{MEMBERS}{MEMBERS}",
    "not-closed": "{MEMBERS",
    "empty": "",
    "space-only": " ",
    "null": "null",
    "true": "true",
    "number": "1",
    "string": '"claims"',
    "list": "[{MEMBERS}]",
    "list-of-pairs": lambda _, claims: json.dumps([*json.loads(claims).items()]),
    "empty-list": "[]",
    "deep": "[" * 5000,
    "deep-objects": '{"a":' * 1000,
    "deep-in-a-claim-and-not-closed": '{MEMBERS, "a": ' + "[" * 4000,
    "form": f"iss={ISSUER}&sub={SUB}",
    "random": lambda *_: b"\xff" + token_bytes(64),
}
JSON_HEADER = [
    *[Forgery(f"header-json-{name}", "malformed_token", header_json=text) for name, text in MALFORMED_HEADERS.items()],
    Forgery("header-json-number-of-300-digits", "malformed_kid", header_json=f'{{"alg":"RS256","kid":1{"0" * 299}}}'),
]
JSON_PAYLOAD = [
    *[
        Forgery(f"payload-json-{name}", "malformed_token", payload_json=text)
        for name, text in MALFORMED_PAYLOADS.items()
    ],
    *[
        Forgery(
            f"payload-json-exp-{name}",
            "malformed_token",
            claims={"exp": ABSENT},
            payload_json=f'{{MEMBERS, "exp": {number}}}',
        )
        for name, number in {"not-a-number": "NaN", "infinity": "Infinity", "of-5000-digits": "9" * 5000}.items()
    ],
    Forgery(
        "payload-json-in-lower-case",
        "malformed_token",
        encode_payload=lambda payload: base64url(pad(payload, over=0)).lower(),
    ),
    Forgery(
        "payload-json-nested-jwt", "malformed_token", payload_json=lambda pool, _: Forgery("", "").build_token(pool)
    ),
    Forgery("payload-json-empty-object", "missing_claim.iss", payload_json="{}"),
]

# Claims: RFC 7519 section 4.1, RFC 8725 sections 3.8, 3.9 and 3.12

HOST = "cognito-idp.us-east-1.amazonaws.com"
ANOTHER_CLIENT = "another2client34567"
REQUIRED = ("iss", "aud", "sub", "token_use", "exp")
NO_TEXT: dict[str, object] = {"number": 1, "true": True, "false": False, "object": {}, "empty-list": [], "empty": ""}
WRONG_TEXTS: dict[str, dict[str, object]] = {
    "iss": {
        "list": [ISSUER],
        "list-of-two": [ISSUER, "https://example.com"],
        "as-name": {ISSUER: True},
        "slash-after": f"{ISSUER}/",
        "plain-http": ISSUER.replace("https", "http"),
        "upper-case-host": ISSUER.replace(HOST, HOST.upper()),
        "upper-case-scheme": ISSUER.replace("https", "HTTPS"),
        "lower-case-pool": ISSUER.lower(),
        "without-scheme": ISSUER.removeprefix("https://"),
        "pool-only": USER_POOL_ID,
        "without-pool": f"https://{HOST}",
        "of-another-pool": f"https://{HOST}/us-east-1_Another01",
        "of-another-region": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example01",
        "at-another-regions-host": f"https://cognito-idp.eu-west-1.amazonaws.com/{USER_POOL_ID}",
        "of-another-partition": ISSUER.replace("amazonaws.com", "amazonaws.com.cn"),
        "at-the-updated-host-of-another-pool": f"https://issuer-{HOST}/us-east-1_Another01",
        "at-the-updated-host-of-another-region": f"https://issuer-cognito-idp.eu-west-1.amazonaws.com/{USER_POOL_ID}",
        "at-nearly-the-updated-host": ISSUER.replace("cognito-idp", "issuer.cognito-idp"),
        "at-the-fips-host": ISSUER.replace("cognito-idp", "cognito-idp-fips"),
        "pool-shortened": ISSUER[:-1],
        "pool-lengthened": f"{ISSUER}0",
        "path-after": f"{ISSUER}/.well-known/jwks.json",
        "port": ISSUER.replace(HOST, f"{HOST}:443"),
        "dot-after-host": ISSUER.replace(HOST, f"{HOST}."),
        "as-userinfo": f"https://{HOST}@example.com/{USER_POOL_ID}",
        "as-subdomain": ISSUER.replace(HOST, f"{HOST}.example.com"),
        "as-path": f"https://example.com/{ISSUER}",
        "query": f"{ISSUER}?",
        "fragment": f"{ISSUER}#",
        "percent-encoded": ISSUER.replace("_", "%5F"),
        "dot-segment": f"https://{HOST}/x/../{USER_POOL_ID}",
        "two-slashes": f"https://{HOST}//{USER_POOL_ID}",
        "space-before": f" {ISSUER}",
        "space-after": f"{ISSUER} ",
        "newline-after": f"{ISSUER}\n",
        "nul-after": f"{ISSUER}\0",
        "cyrillic": ISSUER.replace("a", "\N{CYRILLIC SMALL LETTER A}"),
        "full-width-dots": ISSUER.replace(".", "\N{FULLWIDTH FULL STOP}"),
        "zero-width-space": f"{ISSUER}\N{ZERO WIDTH SPACE}",
    },
    "aud": {
        "of-another-client": ANOTHER_CLIENT,
        "list": [APP_CLIENT_ID],
        "list-of-two": [ANOTHER_CLIENT, APP_CLIENT_ID],
        "list-in-list": [[APP_CLIENT_ID]],
        "as-name": {APP_CLIENT_ID: True},
        "shortened": APP_CLIENT_ID[:-1],
        "lengthened": f"{APP_CLIENT_ID}0",
        "inside-another": f"x{APP_CLIENT_ID}x",
        "upper-case": APP_CLIENT_ID.upper(),
        "two-and-a-space": f"{APP_CLIENT_ID} {ANOTHER_CLIENT}",
        "two-and-a-comma": f"{ANOTHER_CLIENT},{APP_CLIENT_ID}",
        "space-after": f"{APP_CLIENT_ID} ",
        "newline-after": f"{APP_CLIENT_ID}\n",
        "nul-after": f"{APP_CLIENT_ID}\0",
        "cyrillic": APP_CLIENT_ID.replace("e", "\N{CYRILLIC SMALL LETTER IE}"),
        "wildcard": "*",
        "pool": USER_POOL_ID,
        "issuer": ISSUER,
    },
    "token_use": {
        "access": "access",
        "refresh": "refresh",
        "upper-case": "ID",
        "capitalized": "Id",
        "list": ["id"],
        "list-of-both": ["access", "id"],
        "as-name": {"id": True},
        "space-before": " id",
        "space-after": "id ",
        "newline-after": "id\n",
        "nul-after": "id\0",
        "two": "id access",
        "longer": "id_token",
        "dotless": "\N{LATIN SMALL LETTER DOTLESS I}d",
        "full-width": "\N{FULLWIDTH LATIN SMALL LETTER I}d",
    },
    "sub": {
        "list": [SUB],
        "as-name": {SUB: True},
        "of-256-characters": "s" * 256,
        "newline-after": f"{SUB}\n",
        "newline-inside": "some\nbody",
        "carriage-return": "some\rbody",
        "tab": "some\tbody",
        "nul": "some\0body",
        "escape": "\x1b[31m",
        "delete": "\x7f",
        "not-ascii": "jos\xe9",
        "emoji": "\N{KEY}",
        "full-width": "\N{FULLWIDTH LATIN SMALL LETTER A}dmin",
        "right-to-left-override": "\N{RIGHT-TO-LEFT OVERRIDE}nimda",
        "lone-surrogate": "\ud800",
    },
}
NO_DATE: dict[str, object] = {
    "true": True,
    "false": False,
    "digits": "4102444800",
    "empty": "",
    "text": "never",
    "iso-8601": "2099-12-31T23:59:59Z",
    "list": [4102444800],
    "empty-list": [],
    "object": {"$date": 4102444800},
    "beyond-the-year-9999": 253402300800,
    "beyond-64-bits": 1 << 64,
    "of-400-digits": 10**400,
    "huge": 1e308,
    "in-milliseconds": lambda _: int(time.time() + 3600) * 1000,
}


def count_from_now(seconds: float) -> Callable[[Pool], float]:
    """Return a function that adds seconds to the time at which the token is built."""
    return lambda _: int(time.time()) + seconds


EXPIRED: dict[str, object] = {
    "zero": 0,
    "minus-zero": -0.0,
    "one": 1,
    "tiny": 5e-324,
    "now": count_from_now(0),
    "a-second-ago": count_from_now(-1),
    "a-fraction-ago": count_from_now(-0.5),
    "in-the-leeway": count_from_now(-4),
    "an-hour-ago": count_from_now(-3600),
    "of-the-year-2001": 1_000_000_000,
    "in-minutes": lambda _: int(time.time() + 3600) // 60,
}
NOT_YET: dict[str, object] = {
    "in-a-minute": count_from_now(60),
    "in-a-minute-and-a-fraction": count_from_now(60.5),
    "in-an-hour": count_from_now(3600),
    "after-exp": count_from_now(7200),
    "in-a-year": count_from_now(31_536_000),
    "negative": -1,
}
WRONG_DATES: dict[str, dict[str, object]] = {
    "exp": NO_DATE | {"negative": -1, "very-negative": -1e308},
    "iat": NO_DATE | NOT_YET | {"null": None},
    "nbf": NO_DATE | NOT_YET | {"null": None},
    "auth_time": NO_DATE | {"null": None, "negative": -1},
}
# The claims of Cognito's access token. It has `aud` only if the app asked for a resource.
ACCESS_TOKEN: dict[str, object] = {
    "aud": ABSENT,
    "email": ABSENT,
    "email_verified": ABSENT,
    "cognito:username": ABSENT,
    "token_use": "access",
    "client_id": APP_CLIENT_ID,
    "scope": "openid",
    "username": SUB,
    "version": 2,
}
TEXT_CLAIM = [
    Forgery(f"{claim}-{name}", f"invalid_claim.{claim}", claims={claim: value})
    for claim, values in WRONG_TEXTS.items()
    for name, value in {**NO_TEXT, **values}.items()
]
MISSING_CLAIMS: dict[str, Callable[[str, object], dict[str, object]]] = {
    "absent": lambda claim, _: {claim: ABSENT},
    "null": lambda claim, _: {claim: None},
    "in-capitals-only": lambda claim, value: {claim: ABSENT, claim.upper(): value},
    "nested-only": lambda claim, value: {claim: ABSENT, "claims": {claim: value}},
}
MISSING_CLAIM = [
    Forgery(f"{claim}-{name}", f"missing_claim.{claim}", claims=changes(claim, cognito_claims()[claim]))
    for claim in REQUIRED
    for name, changes in MISSING_CLAIMS.items()
]
DATE = [
    *[
        Forgery(f"{claim}-{name}", f"invalid_claim.{claim}", claims={claim: value})
        for claim, values in WRONG_DATES.items()
        for name, value in values.items()
    ],
    *[
        # A number that is valid JSON, but too large for a float.
        Forgery(
            f"{claim}-infinite",
            f"invalid_claim.{claim}",
            claims={claim: ABSENT},
            payload_json=f'{{MEMBERS, "{claim}": 1e400}}',
        )
        for claim in WRONG_DATES
    ],
    *[Forgery(f"exp-{name}", "expired_token.exp", claims={"exp": exp}) for name, exp in EXPIRED.items()],
]
OTHER_CLAIM = [
    Forgery("jti-number", "invalid_claim.jti", claims={"jti": 1}),
    Forgery("jti-null", "invalid_claim.jti", claims={"jti": None}),
    Forgery("jti-list", "invalid_claim.jti", claims={"jti": ["jti"]}),
    Forgery(
        "iss-of-the-attacker",
        "invalid_claim.iss",
        claims={"iss": lambda pool: f"{pool.attacker_url}/{USER_POOL_ID}"},
    ),
    Forgery("access-token-as-cognito-writes-it", "missing_claim.aud", claims=ACCESS_TOKEN),
    Forgery("access-token-that-says-id", "missing_claim.aud", claims={**ACCESS_TOKEN, "token_use": "id"}),
    Forgery("access-token-for-a-resource", "invalid_claim.token_use", claims={**ACCESS_TOKEN, "aud": APP_CLIENT_ID}),
]

# Groups

WRONG_GROUPS: dict[str, object] = {
    "absent": ABSENT,
    "null": None,
    "empty": [],
    "others": ["Admins", "Readers"],
    "lower-case": ["chatters"],
    "upper-case": ["CHATTERS"],
    "longer": ["Chatters2"],
    "shorter": ["Chatter"],
    "space-after": ["Chatters "],
    "newline-after": ["Chatters\n"],
    "wildcard": ["*"],
    "cyrillic": ["\N{CYRILLIC CAPITAL LETTER ES}hatters"],
    "joined": ["Admins,Chatters"],
    "text": "Chatters",
    "text-around": "xChattersx",
    "text-of-two": "Admins,Chatters",
    "object": {"Chatters": True},
    "object-of-lists": {"groups": ["Chatters"]},
    "list-in-list": [["Chatters"]],
    "list-of-objects": [{"name": "Chatters"}],
    "list-of-null": [None],
    "number": 1,
    "true": True,
}
GROUP = [
    *[
        Forgery(f"group-{name}", "missing_group", configuration="group", claims={"cognito:groups": groups})
        for name, groups in WRONG_GROUPS.items()
    ],
    *[
        Forgery(f"group-in-{claim}", "missing_group", configuration="group", claims={claim: ["Chatters"]})
        for claim in ("groups", "cognito:roles", "Cognito:Groups", "scope")
    ],
    Forgery(
        "group-of-an-expired-token",
        "expired_token.exp",
        configuration="group",
        claims={"cognito:groups": ["Chatters"], "exp": 1},
    ),
    Forgery("group-only", ALLOW, configuration="group", claims={"cognito:groups": ["Chatters"]}),
    Forgery("group-last", ALLOW, configuration="group", claims={"cognito:groups": ["Admins", 1, None, "Chatters"]}),
]

# Sound tokens. They show that the authorizer does not deny everything

SOUND_CLAIMS: dict[str, dict[str, object]] = {
    "issuer-updated": {"iss": ISSUER.replace("cognito-idp", "issuer-cognito-idp")},
    "unknown-claims": {"foo": None, "bar": [1, {"baz": {}}], "locale": "", "address": {"country": "JP"}},
    "claims-named-like-attributes": {"validate": 1, "__class__": "x", "options": {}, "now": 1, "": 0},
    "claims-that-decide-nothing": {"effect": "Deny", "admin": True, "scope": "none", "active": False},
    "groups": {"cognito:groups": ["Admins"], "cognito:roles": ["arn:aws:iam::123456789012:role/admin"]},
    "client-id-of-another": {"client_id": ANOTHER_CLIENT, "azp": ANOTHER_CLIENT},
    "exp-with-fraction": {"exp": lambda _: time.time() + 60.25},
    "exp-in-a-minute": {"exp": count_from_now(60)},
    "exp-at-the-end-of-the-year-9999": {"exp": 253402300799},
    "nbf-past": {"nbf": count_from_now(-60)},
    "nbf-zero": {"nbf": 0},
    "clock-a-little-ahead": {"iat": count_from_now(3), "nbf": count_from_now(3), "auth_time": count_from_now(3)},
    "without-iat": {"iat": ABSENT},
    "without-auth-time": {"auth_time": ABSENT},
    "sub-of-255-characters": {"sub": "s" * 255},
    "sub-of-one-character": {"sub": "s"},
    "sub-with-punctuation": {"sub": "auth0|jane doe+1@example.com~"},
    "without-what-is-not-required": {name: ABSENT for name in cognito_claims() if name not in REQUIRED},
}
SOUND_JSON: dict[str, str | Change] = {
    "white-space-in-payload": lambda _, claims: json.dumps(json.loads(claims), indent=4),
    "claims-backwards": lambda _, claims: json.dumps(dict(reversed(json.loads(claims).items()))),
    "utf-8": '{MEMBERS, "name": "Jos\xe9 \N{KEY}"}',
    "nested-100-levels": f'{{MEMBERS, "a": {"[" * 100}{"]" * 100}}}',
}
SOUND = [
    Forgery("sound-plain", ALLOW),
    *[Forgery(f"sound-{name}", ALLOW, claims=claims) for name, claims in SOUND_CLAIMS.items()],
    *[Forgery(f"sound-{name}", ALLOW, payload_json=text) for name, text in SOUND_JSON.items()],
    Forgery("sound-exp-with-exponent", ALLOW, claims={"exp": ABSENT}, payload_json='{MEMBERS, "exp": 4.1e9}'),
    Forgery("sound-typ-jwt", ALLOW, header={"typ": "JWT"}),
    Forgery("sound-typ-in-lower-case", ALLOW, header={"typ": "jwt"}),
    Forgery("sound-alg-before-kid", ALLOW, header_json='{"alg":"RS256","kid":"signing1example="}'),
    Forgery(
        "sound-white-space-in-header",
        ALLOW,
        header_json='\r\n{ "kid" :\t"signing1example=" , "alg" : "RS256" }\n',
    ),
    Forgery("sound-escapes-in-header", ALLOW, header_json='{"\\u0061lg":"RS25\\u0036","kid":"signing1example\\u003d"}'),
    Forgery("sound-header-of-384-octets", ALLOW, header_json=HEADER_JSON.ljust(384)),
    Forgery(
        "sound-no-white-space",
        ALLOW,
        header_json=lambda _, header: header.replace(" ", ""),
        payload_json=lambda _, claims: claims.replace(" ", ""),
    ),
    Forgery("sound-key-of-3072-bits", ALLOW, key="3072"),
    Forgery("sound-key-of-4096-bits", ALLOW, key="4096"),
    Forgery("sound-kid-of-128-characters", ALLOW, key="long-kid"),
    Forgery("sound-kid-of-one-character", ALLOW, key="short-kid"),
    Forgery("sound-kid-like-a-path", ALLOW, key="path-kid"),
    replace(build_token_of_length(MAX_TOKEN_CHARACTERS - 1), name="sound-of-8191-characters", expected=ALLOW),
    replace(build_token_of_length(MAX_TOKEN_CHARACTERS), name="sound-of-8192-characters", expected=ALLOW),
    Forgery(
        "sound-encoded-by-hand",
        ALLOW,
        signature=sign_digest_info(SHA256_PREFIX.__add__),
    ),
]
