"""Sound tokens, some of them odd: were everything denied, the attacks would prove nothing."""

from __future__ import annotations

import json
import time

from benchmarks.user_pool import ISSUER, cognito_claims
from tests.attacks.cases import Recipe, claiming, headed_by, signed_by, tokens
from tests.attacks.claims import ANOTHER_CLIENT, REQUIRED, later
from tests.attacks.forgery import ABSENT, RS256, SHA256_PREFIX, emsa, encoded, id_token, jws, rs256
from tests.attacks.headers import of_published
from tests.attacks.structure import (
    MAX_TOKEN_CHARACTERS,
    and_member,
    of_length,
    with_exp,
    with_header,
    with_header_of,
    with_payload,
)

SOUND: dict[str, Recipe] = {
    "plain": id_token,
    "issuer-updated": claiming({"iss": ISSUER.replace("cognito-idp", "issuer-cognito-idp")}),
    "typ-jwt": headed_by({"typ": "JWT"}),
    "typ-in-lower-case": headed_by({"typ": "jwt"}),
    "alg-before-kid": with_header('{"alg":"RS256","kid":"signing1example="}'),
    "white-space-in-header": with_header('\r\n{ "kid" :\t"signing1example=" , "alg" : "RS256" }\n'),
    "escapes-in-header": with_header('{"\\u0061lg":"RS25\\u0036","kid":"signing1example\\u003d"}'),
    "header-of-384-octets": with_header_of(384),
    "white-space-in-payload": with_payload(lambda: json.dumps(cognito_claims(), indent=4)),
    "no-white-space": lambda pool: jws(
        json.dumps(RS256, separators=(",", ":")), json.dumps(cognito_claims(), separators=(",", ":")), rs256(pool.key)
    ),
    "claims-backwards": with_payload(lambda: json.dumps(dict(reversed([*cognito_claims().items()])))),
    "utf-8": with_payload(lambda: and_member('"name": "Jos\xe9 \N{KEY}"')),
    "nested-100-levels": with_payload(lambda: and_member('"a": ' + "[" * 100 + "]" * 100)),
    "unknown-claims": claiming({"foo": None, "bar": [1, {"baz": {}}], "locale": "", "address": {"country": "JP"}}),
    "claims-named-like-attributes": claiming({"validate": 1, "__class__": "x", "options": {}, "now": 1, "": 0}),
    "claims-that-decide-nothing": claiming({"effect": "Deny", "admin": True, "scope": "none", "active": False}),
    "groups": claiming({"cognito:groups": ["Admins"], "cognito:roles": ["arn:aws:iam::123456789012:role/admin"]}),
    "client-id-of-another": claiming({"client_id": ANOTHER_CLIENT, "azp": ANOTHER_CLIENT}),
    "exp-with-fraction": claiming({"exp": lambda: time.time() + 60.25}),
    "exp-in-a-minute": claiming({"exp": later(60)}),
    "exp-at-the-end-of-the-year-9999": claiming({"exp": 253402300799}),
    "exp-with-exponent": with_payload(lambda: with_exp("4.1e9")),
    "nbf-past": claiming({"nbf": later(-60)}),
    "nbf-zero": claiming({"nbf": 0}),
    "clock-a-little-ahead": claiming({"iat": later(3), "nbf": later(3), "auth_time": later(3)}),
    "without-iat": claiming({"iat": ABSENT}),
    "without-auth-time": claiming({"auth_time": ABSENT}),
    "without-what-is-not-required": with_payload(
        lambda: json.dumps({name: value for name, value in cognito_claims().items() if name in REQUIRED})
    ),
    "sub-of-255-characters": claiming({"sub": "s" * 255}),
    "sub-of-one-character": claiming({"sub": "s"}),
    "sub-with-punctuation": claiming({"sub": "auth0|jane doe+1@example.com~"}),
    "key-of-3072-bits": of_published("3072"),
    "key-of-4096-bits": of_published("4096"),
    "kid-of-128-characters": of_published("long-kid"),
    "kid-of-one-character": of_published("short-kid"),
    "kid-like-a-path": of_published("path-kid"),
    "of-8191-characters": of_length(MAX_TOKEN_CHARACTERS - 1),
    "of-8192-characters": of_length(MAX_TOKEN_CHARACTERS),
    "encoded-by-hand": signed_by(
        lambda pool: encoded(pool.key, lambda digest, size: emsa(SHA256_PREFIX + digest, size))
    ),
}
SOUND_TOKENS = [*tokens("sound", "Allow", SOUND)]
