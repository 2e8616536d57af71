"""Attacks on the claims of a token that the pool did sign: RFC 7519 section 4.1, RFC 8725 sections 3.8, 3.9, 3.12."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from benchmarks.user_pool import APP_CLIENT_ID, ISSUER, SUB, USER_POOL_ID, cognito_claims
from tests.attacks.cases import Token, tokens, with_claims
from tests.attacks.forgery import ABSENT, RS256, Pool, changed, id_token, jws, rs256

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

# Dates

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
    "in-milliseconds": lambda: int(time.time() + 3600) * 1000,
}


def later(seconds: float) -> Callable[[], float]:
    """By so much than the second in which the token is made."""
    return lambda: int(time.time()) + seconds


EXPIRED: dict[str, object] = {
    "zero": 0,
    "minus-zero": -0.0,
    "one": 1,
    "tiny": 5e-324,
    "now": later(0),
    "a-second-ago": later(-1),
    "a-fraction-ago": later(-0.5),
    "in-the-leeway": later(-4),
    "an-hour-ago": later(-3600),
    "of-the-year-2001": 1_000_000_000,
    "in-minutes": lambda: int(time.time() + 3600) // 60,
}
NOT_YET: dict[str, object] = {
    "in-a-minute": later(60),
    "in-a-minute-and-a-fraction": later(60.5),
    "in-an-hour": later(3600),
    "after-exp": later(7200),
    "in-a-year": later(31_536_000),
    "negative": -1,
}


def infinite(claim: str) -> Callable[[Pool], str]:
    """1e400 is JSON, none of the constants that are not, and yet more than a float can hold."""
    return lambda pool: jws(
        RS256, json.dumps({**cognito_claims(), claim: "?"}).replace('"?"', "1e400"), rs256(pool.key)
    )


def date_tokens() -> Iterator[Token]:
    wrong = {
        "exp": NO_DATE | {"negative": -1, "very-negative": -1e308},
        "iat": NO_DATE | NOT_YET | {"null": None},
        "nbf": NO_DATE | NOT_YET | {"null": None},
        "auth_time": NO_DATE | {"null": None, "negative": -1},
    }
    for claim, values in wrong.items():
        reason = f"invalid_claim.{claim}"
        yield from with_claims(claim, reason, {name: {claim: value} for name, value in values.items()})
        yield Token(f"{claim}-infinite", infinite(claim), reason)
    yield from with_claims("exp", "expired_token.exp", {name: {"exp": exp} for name, exp in EXPIRED.items()})


def access_token(**changes: object) -> Callable[[Pool], str]:
    """As Cognito writes them: with `client_id`, and with `aud` only if the app asked for a resource."""
    claims: dict[str, object] = {
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
    return lambda pool: jws(RS256, changed(cognito_claims(), {**claims, **changes}), rs256(pool.key))


def claim_tokens() -> Iterator[Token]:
    for claim, values in WRONG_TEXTS.items():
        changes = {name: {claim: value} for name, value in {**NO_TEXT, **values}.items()}
        yield from with_claims(claim, f"invalid_claim.{claim}", changes)
    yield from with_claims(
        "jti", "invalid_claim.jti", {"number": {"jti": 1}, "null": {"jti": None}, "list": {"jti": ["jti"]}}
    )
    for claim in REQUIRED:
        sound = cognito_claims()[claim]
        yield from with_claims(
            claim,
            f"missing_claim.{claim}",
            {
                "absent": {claim: ABSENT},
                "null": {claim: None},
                "in-capitals-only": {claim: ABSENT, claim.upper(): sound},
                "nested-only": {claim: ABSENT, "claims": {claim: sound}},
            },
        )
    yield from date_tokens()
    yield Token(
        "iss-of-the-attacker",
        lambda pool: id_token(pool, claims={"iss": f"{pool.attacker_url}/{USER_POOL_ID}"}),
        "invalid_claim.iss",
    )
    yield from tokens(
        "access-token",
        "missing_claim.aud",
        {"as-cognito-writes-it": access_token(), "that-says-id": access_token(token_use="id")},
    )
    yield Token("access-token-for-a-resource", access_token(aud=APP_CLIENT_ID), "invalid_claim.token_use")
