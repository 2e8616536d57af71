"""All attacks on the authorizer by family, and sound tokens and events that it must allow.

No package has Project Wycheproof's vectors for JWS. The families repeat what these vectors try with keys of this run:
algorithm confusion, a key in the header, non-canonical base64url, too many or too few segments, keys for another use.
`test_wycheproof` has its RSA vectors.
"""

from __future__ import annotations

from dataclasses import replace

from tests.attacks import handshakes, signatures, tokens
from tests.attacks.forgery import ALLOW, ERROR, Case, Forgery

TOKENS: dict[str, list[Forgery]] = {
    "sound tokens": tokens.SOUND,
    "algorithm": tokens.ALGORITHM,
    "header": tokens.HEADER,
    "type": tokens.TYPE,
    "key id": tokens.KEY_ID,
    "signature": signatures.SIGNATURES,
    "PKCS #1": signatures.PKCS1,
    "structure": tokens.STRUCTURE,
    "JSON of the header": tokens.JSON_HEADER,
    "JSON of the payload": tokens.JSON_PAYLOAD,
    "text claim": tokens.TEXT_CLAIM,
    "missing claim": tokens.MISSING_CLAIM,
    "date": tokens.DATE,
    "other claim": tokens.OTHER_CLAIM,
}
# These tokens are also offered as a subprotocol, and must get the same answer as in the query string.
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
FAMILIES: dict[str, list[Case]] = {
    **{family: [*forgeries] for family, forgeries in TOKENS.items()},
    "offered tokens": [
        replace(forgery, name=f"offer-{forgery.name}", configuration="subprotocol")
        for forgeries in TOKENS.values()
        for forgery in forgeries
        if forgery.name in ALSO_OFFERED
    ],
    "group": [*tokens.GROUP],
    "query string": [*handshakes.QUERY],
    "repeated parameter": [*handshakes.REPEATED_QUERY],
    "token elsewhere": [*handshakes.ELSEWHERE],
    "impossible event": [*handshakes.IMPOSSIBLE],
    "sound event": [*handshakes.SOUND_EVENTS],
    "missing offer": [*handshakes.MISSING_OFFER],
    "wrong offer": [*handshakes.WRONG_OFFER],
    "repeated offer": [*handshakes.REPEATED_OFFER],
    "impossible offer": [*handshakes.IMPOSSIBLE_OFFER],
    "sound offer": [*handshakes.SOUND_OFFER],
    "wrong origin": [*handshakes.WRONG_ORIGIN],
    "missing origin": [*handshakes.MISSING_ORIGIN],
    "repeated origin": [*handshakes.REPEATED_ORIGIN],
    "forged token of an allowed origin": [*handshakes.FORGED_BEHIND_ORIGIN],
    "impossible origin": [*handshakes.IMPOSSIBLE_ORIGIN],
    "sound origin": [*handshakes.SOUND_ORIGIN],
}
CASES = [case for family in FAMILIES.values() for case in family]
SOUND = [case for case in CASES if case.expected == ALLOW]
IMPOSSIBLE = [case for case in CASES if case.expected == ERROR]
FORGED = [case for case in CASES if case.expected not in {ALLOW, ERROR}]
