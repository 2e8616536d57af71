"""Every attack on the authorizer, and next to them what is sound and must not be taken for one.

Project Wycheproof's vectors for JWS come in no package: what they try (algorithm confusion, a key in the header, other
spellings of base64url, segments too many or too few, keys for something else) is generated here with keys of this run.
Its RSA vectors do come in one, see `test_wycheproof`.
"""

from __future__ import annotations

from itertools import chain

from tests.attacks.cases import ALLOW, ERROR, Case, Recipe, asking, offer, offering
from tests.attacks.claims import claim_tokens
from tests.attacks.events import group_cases, query_cases
from tests.attacks.handshakes import NAME, origin_cases, subprotocol_cases
from tests.attacks.headers import algorithm_tokens, header_tokens, kid_tokens
from tests.attacks.signatures import signature_tokens
from tests.attacks.sound import SOUND_TOKENS
from tests.attacks.structure import json_tokens, structure_tokens

# Tokens of each family, to show that they go the same way in a header as in the query string.
ALSO_OFFERED = {
    "alg-none",
    "alg-hs256-with-pem",
    "alg-none-with-one-octet",
    "header-jku-of-the-attacker",
    "header-jwk-of-the-attacker",
    "typ-access-token",
    "kid-path-traversal",
    "kid-absent",
    "key-of-the-attacker",
    "signature-of-another-key",
    "signature-empty",
    "signature-with-trailing-bits",
    "pkcs1-garbage-after-the-digest",
    "structure-four-segments",
    "signature-with-a-nul-after",
    "structure-lone-surrogate",
    "structure-of-8193-characters",
    "header-json-alg-twice-none-last",
    "payload-json-sub-twice",
    "iss-of-another-pool",
    "aud-list",
    "token_use-access",
    "exp-now",
    "access-token-as-cognito-writes-it",
    "sound-plain",
    "sound-of-8192-characters",
}
TOKENS = [
    *algorithm_tokens(),
    *header_tokens(),
    *kid_tokens(),
    *signature_tokens(),
    *structure_tokens(),
    *json_tokens(),
    *claim_tokens(),
    *SOUND_TOKENS,
]


def in_query(recipe: Recipe) -> Recipe:
    return lambda pool: asking(recipe(pool))


def in_offer(recipe: Recipe) -> Recipe:
    return lambda pool: offering({NAME: offer(recipe(pool))})


CASES = [
    *chain(
        [Case(token.id, in_query(token.recipe), token.expected) for token in TOKENS],
        [
            Case(f"offer-{token.id}", in_offer(token.recipe), token.expected, "subprotocol")
            for token in TOKENS
            if token.id in ALSO_OFFERED
        ],
        query_cases(),
        subprotocol_cases(),
        origin_cases(),
        group_cases(),
    )
]
SOUND = [case for case in CASES if case.expected == ALLOW]
BROKEN = [case for case in CASES if case.expected == ERROR]
FORGED = [case for case in CASES if case.expected not in {ALLOW, ERROR}]
