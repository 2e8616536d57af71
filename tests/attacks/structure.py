"""Attacks on the form: segments, sizes, spellings (RFC 7515 section 7.1), and the JSON within (RFC 8259, RFC 7519)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from secrets import token_bytes

from benchmarks.user_pool import APP_CLIENT_ID, ISSUER, SUB, base64url, cognito_claims
from tests.attacks.cases import Recipe, Token, text, tokens
from tests.attacks.forgery import KID, RS256, Pool, id_token, jws, rs256
from tests.attacks.headers import jwk
from tests.attacks.signatures import of_two, trailing_bits

MAX_TOKEN_CHARACTERS = 8192
JWE_HEADER = base64url(b'{"alg":"RSA-OAEP","enc":"A256GCM","cty":"JWT"}')
HEADER = json.dumps(RS256)


def respelt(
    header: Callable[[str], str] = str, payload: Callable[[str], str] = str, *, octets_left: int = 1
) -> Callable[[Pool], str]:
    """Truly signed as it is spelt, which no encoder does; what is left of three octets leaves bits to spare."""

    def token(pool: Pool) -> str:
        texts = [json.dumps(members) for members in (RS256, cognito_claims())]
        padded = [text.ljust(len(text) + (octets_left - len(text)) % 3) for text in texts]
        segments = [base64url(text.encode()) for text in padded]
        signing_input = f"{header(segments[0])}.{payload(segments[1])}"
        return f"{signing_input}.{base64url(rs256(pool.key)(signing_input.encode()))}"

    return token


def of_length(characters: int) -> Callable[[Pool], str]:
    """A signed token of exactly this length; white space in its header if base64url has no such length."""

    def token(pool: Pool) -> str:
        for header in (HEADER, HEADER + " "):
            room = characters - len(base64url(header.encode())) - len("..") - 342  # 2048 bits
            if room % 4 != 1:
                break
        signed = jws(header, json.dumps(cognito_claims()).ljust(room * 3 // 4), rs256(pool.key))
        assert len(signed) == characters
        return signed

    return token


def with_header_of(octets: int) -> Callable[[Pool], str]:
    return lambda pool: jws(HEADER.ljust(octets), cognito_claims(), rs256(pool.key))


def json_serialization(pool: Pool) -> dict[str, str]:
    return dict(zip(("protected", "payload", "signature"), id_token(pool).split("."), strict=True))


MALFORMED_TOKENS: dict[str, Recipe] = {
    "one-segment": of_two("{0}"),
    "four-segments": of_two("{0}.{1}.{2}.AAAA"),
    "five-segments": of_two("{0}.{1}.{2}.AAAA.AAAA"),
    "six-segments": of_two("{0}.{1}.{2}.{3}.{4}.{5}"),
    "two-tokens-and-a-space": of_two("{0}.{1}.{2} {3}.{4}.{5}"),
    "two-tokens-and-a-comma": of_two("{0}.{1}.{2},{3}.{4}.{5}"),
    "dot-only": lambda _: ".",
    "two-dots-only": lambda _: "..",
    "many-dots": lambda _: "." * 8000,
    "empty-header": of_two(".{1}.{2}"),
    "dot-before": of_two(".{0}.{1}.{2}"),
    "dot-after": of_two("{0}.{1}.{2}."),
    "jws-json-flattened": lambda pool: json.dumps(json_serialization(pool)),
    "jws-json-general": lambda pool: json.dumps({"payload": "e30", "signatures": [json_serialization(pool)]}),
    "jwk": lambda pool: json.dumps(jwk(pool.key)),
    "word": lambda _: "hello",
    "digits": lambda _: "123456",
    "claims-in-clear": lambda _: json.dumps(cognito_claims()),
    "header-of-one-character": respelt(header=lambda _: "A"),
    "payload-of-one-character": respelt(payload=lambda _: "A"),
    "header-padded": respelt(header=lambda segment: f"{segment}=="),
    "payload-padded": respelt(payload=lambda segment: f"{segment}=="),
    "header-with-trailing-bits": respelt(header=trailing_bits),
    "payload-with-trailing-bits": respelt(payload=trailing_bits),
    "header-in-clear": respelt(header=lambda _: HEADER),
    "payload-in-clear": respelt(payload=lambda _: json.dumps(cognito_claims())),
    "space-before": of_two(" {0}.{1}.{2}"),
    "space-around-a-dot": of_two("{0} . {1}.{2}"),
    "newline-before": of_two("\n{0}.{1}.{2}"),
    "nul-before": of_two("\0{0}.{1}.{2}"),
    "nul-and-more": of_two("{0}.{1}.{2}\0.{3}"),
    "byte-order-mark-before": of_two("\ufeff{0}.{1}.{2}"),
    "lone-surrogate": lambda _: "\ud800",
    "lone-surrogate-before": of_two("\ud800{0}.{1}.{2}"),
    "lone-surrogate-after": of_two("{0}.{1}.{2}\ud800"),
    "backwards": of_two("{2}.{1}.{0}"),
    "header-in-lower-case": respelt(header=str.lower, octets_left=0),
    "header-in-upper-case": respelt(header=str.upper, octets_left=0),
    "header-with-its-case-swapped": respelt(header=str.swapcase, octets_left=0),
    "full-width-letters": text(lambda token: token.replace("e", "\N{FULLWIDTH LATIN SMALL LETTER E}")),
    "dots-url-encoded": of_two("{0}%2E{1}%2E{2}"),
    "dots-ideographic": of_two("{0}\N{IDEOGRAPHIC FULL STOP}{1}\N{IDEOGRAPHIC FULL STOP}{2}"),
    "dots-of-leaders": of_two("{0}\N{ONE DOT LEADER}{1}\N{ONE DOT LEADER}{2}"),
    "dots-as-colons": of_two("{0}:{1}:{2}"),
    "quoted": of_two('"{0}.{1}.{2}"'),
    "bearer": of_two("Bearer {0}.{1}.{2}"),
    "bearer-in-lower-case": of_two("bearer {0}.{1}.{2}"),
    "named": of_two("idToken={0}.{1}.{2}"),
    "prefix-of-the-subprotocol": of_two("idToken.{0}.{1}.{2}"),
    "parameter-after": of_two("{0}.{1}.{2}&idToken={3}.{4}.{5}"),
    "url-encoded": text(lambda token: "".join(f"%{ord(character):02X}" for character in token)),
    "in-base64-again": text(lambda token: base64url(token.encode())),
    "in-hexadecimal": text(lambda token: token.encode().hex()),
}


def structure_tokens() -> Iterator[Token]:
    yield from tokens("structure", "malformed_token", MALFORMED_TOKENS)
    yield from tokens(
        "structure",
        "exceeded_size",
        {
            "of-8193-characters": of_length(MAX_TOKEN_CHARACTERS + 1),
            "of-8193-characters-and-no-token": lambda _: "A" * (MAX_TOKEN_CHARACTERS + 1),
            "of-64-kib": of_length(65536),
            "of-1-mib-and-no-token": lambda _: "A" * 1048576,
            "of-100000-dots": lambda _: "." * 100_000,
            "header-of-385-octets": with_header_of(385),
            "header-of-513-octets": with_header_of(513),
            "header-of-4000-octets": with_header_of(4000),
        },
    )
    yield from tokens(
        "structure",
        "unsupported_algorithm",
        {
            "header-and-payload-swapped": of_two("{1}.{0}.{2}"),
            "jwe": lambda _: f"{JWE_HEADER}.AAAA.AAAA.AAAA.AAAA",
            "jwe-with-empty-key": lambda _: f"{JWE_HEADER}..AAAA.AAAA.AAAA",
        },
    )
    yield Token("structure-empty", lambda _: "", "missing_token")


# JSON: RFC 7515 section 5.2, RFC 7519 sections 4 and 7.2, RFC 8259 sections 2 to 8

KEY_ID = f'"kid":"{KID}"'
MALFORMED_HEADERS: dict[str, str | bytes] = {
    "alg-twice-none-first": f'{{"alg":"none","alg":"RS256",{KEY_ID}}}',
    "alg-twice-none-last": f'{{"alg":"RS256","alg":"none",{KEY_ID}}}',
    "alg-twice-the-same": f'{{"alg":"RS256","alg":"RS256",{KEY_ID}}}',
    "alg-twice-once-escaped": f'{{"alg":"RS256","\\u0061lg":"none",{KEY_ID}}}',
    "kid-twice": f'{{"alg":"RS256","kid":"nobody",{KEY_ID}}}',
    "typ-twice": f'{{"alg":"RS256","typ":"at+jwt","typ":"JWT",{KEY_ID}}}',
    "unknown-twice-inside": f'{{"alg":"RS256",{KEY_ID},"jwk":{{"a":1,"a":2}}}}',
    "not-a-number": '{"alg":"RS256","kid":NaN}',
    "infinity": '{"alg":"RS256","kid":Infinity}',
    "minus-infinity": '{"alg":"RS256","kid":-Infinity}',
    "byte-order-mark": f'\ufeff{{"alg":"RS256",{KEY_ID}}}',
    "utf-16": f'{{"alg":"RS256",{KEY_ID}}}'.encode("utf-16"),
    "utf-16-le": f'{{"alg":"RS256",{KEY_ID}}}'.encode("utf-16-le"),
    "utf-16-be": f'{{"alg":"RS256",{KEY_ID}}}'.encode("utf-16-be"),
    "utf-32-le": f'{{"alg":"RS256",{KEY_ID}}}'.encode("utf-32-le"),
    "latin-1": b'{"alg":"RS256","kid":"cl\xe9"}',
    "overlong-utf-8": b'{"alg":"RS256","kid":"\xc0\xaf"}',
    "surrogate-in-utf-8": b'{"alg":"RS256","kid":"\xed\xa0\x80"}',
    "utf-8-cut-off": b'{"alg":"RS256","kid":"\xf0\x9f\x94"}',
    "trailing-comma": f'{{"alg":"RS256",{KEY_ID},}}',
    "comment": f'{{"alg":"RS256",/* */{KEY_ID}}}',
    "single-quotes": "{'alg':'RS256','kid':'signing1example='}",
    "no-quotes": "{alg:RS256,kid:signing1example=}",
    "raw-newline-in-a-name": '{"alg":"RS256","k\nid":"signing1example="}',
    "nul-after": f'{{"alg":"RS256",{KEY_ID}}}\0',
    "vertical-tab-after": f'{{"alg":"RS256",{KEY_ID}}}\v',
    "no-break-space-after": f'{{"alg":"RS256",{KEY_ID}}}\xa0',
    "more-after": f'{{"alg":"RS256",{KEY_ID}}}x',
    "two-objects": f'{{"alg":"RS256",{KEY_ID}}}{{}}',
    "not-closed": f'{{"alg":"RS256",{KEY_ID}',
    "number-cut-off": '{"alg":"RS256","kid":1' + "0" * 300,
    "space-only": " ",
    "null": "null",
    "true": "true",
    "number": "1",
    "string": '"RS256"',
    "list": f'[{{"alg":"RS256",{KEY_ID}}}]',
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


def and_member(member: str) -> str:
    """Sound claims, and what else shall be in their object."""
    return f"{json.dumps(cognito_claims())[:-1]}, {member}}}"


def and_name(octets: bytes) -> bytes:
    return and_member('"name": "?"').encode().replace(b"?", octets)


def with_exp(number: str) -> str:
    return json.dumps({**cognito_claims(), "exp": "?"}).replace('"?"', number)


MALFORMED_PAYLOADS: dict[str, Callable[[], str | bytes]] = {
    "sub-twice": lambda: and_member('"sub": "admin"'),
    "sub-twice-the-same": lambda: and_member(f'"sub": "{SUB}"'),
    "sub-twice-once-escaped": lambda: and_member('"\\u0073ub": "admin"'),
    "exp-twice": lambda: and_member('"exp": 4102444800'),
    "aud-twice": lambda: and_member(f'"aud": "{APP_CLIENT_ID}"'),
    "unknown-twice": lambda: and_member('"a": 1, "a": 2'),
    "unknown-twice-inside": lambda: and_member('"a": [{"b": 1, "b": 2}]'),
    "not-a-number": lambda: and_member('"a": NaN'),
    "infinity": lambda: and_member('"a": Infinity'),
    "minus-infinity": lambda: and_member('"a": [-Infinity]'),
    "exp-not-a-number": lambda: with_exp("NaN"),
    "exp-infinity": lambda: with_exp("Infinity"),
    "exp-of-5000-digits": lambda: with_exp("9" * 5000),
    "number-of-5000-digits": lambda: and_member('"a": ' + "9" * 5000),
    "byte-order-mark": lambda: "\ufeff" + json.dumps(cognito_claims()),
    "utf-16": lambda: json.dumps(cognito_claims()).encode("utf-16"),
    "utf-16-le": lambda: json.dumps(cognito_claims()).encode("utf-16-le"),
    "utf-16-be": lambda: json.dumps(cognito_claims()).encode("utf-16-be"),
    "utf-32-le": lambda: json.dumps(cognito_claims()).encode("utf-32-le"),
    "utf-32-be": lambda: json.dumps(cognito_claims()).encode("utf-32-be"),
    "latin-1": lambda: and_name(b"Jan\xe9"),
    "overlong-utf-8": lambda: and_name(b"\xc0\xaf"),
    "surrogate-in-utf-8": lambda: and_name(b"\xed\xa0\x80"),
    "surrogates-in-utf-8": lambda: and_name(b"\xed\xa0\xbd\xed\xb4\x91"),
    "beyond-unicode": lambda: and_name(b"\xf4\x90\x80\x80"),
    "trailing-comma": lambda: and_member('"a": 1,'),
    "comment": lambda: and_member('"a": 1 // 2'),
    "single-quotes": lambda: str(cognito_claims()),
    "raw-newline-in-a-string": lambda: and_member('"a": "\n"'),
    "leading-zero": lambda: and_member('"a": 01'),
    "plus-sign": lambda: and_member('"a": +1'),
    "hexadecimal": lambda: and_member('"a": 0x1'),
    "nul-after": lambda: json.dumps(cognito_claims()) + "\0",
    "more-after": lambda: json.dumps(cognito_claims()) + "x",
    "two-objects": lambda: json.dumps(cognito_claims()) * 2,
    "not-closed": lambda: json.dumps(cognito_claims())[:-1],
    "empty": lambda: "",
    "space-only": lambda: " ",
    "null": lambda: "null",
    "true": lambda: "true",
    "number": lambda: "1",
    "string": lambda: '"claims"',
    "list": lambda: json.dumps([cognito_claims()]),
    "list-of-pairs": lambda: json.dumps([*cognito_claims().items()]),
    "empty-list": lambda: "[]",
    "deep": lambda: "[" * 5000,
    "deep-objects": lambda: '{"a":' * 1000,
    "deep-in-a-claim-and-not-closed": lambda: json.dumps(cognito_claims())[:-1] + ', "a": ' + "[" * 4000,
    "form": lambda: f"iss={ISSUER}&sub={SUB}",
    "random": lambda: b"\xff" + token_bytes(64),
}


def with_header(header: str | bytes) -> Recipe:
    return lambda pool: jws(header, cognito_claims(), rs256(pool.key))


def with_payload(payload: Callable[[], str | bytes]) -> Recipe:
    return lambda pool: jws(RS256, payload(), rs256(pool.key))


def json_tokens() -> Iterator[Token]:
    yield from tokens(
        "header-json", "malformed_token", {name: with_header(header) for name, header in MALFORMED_HEADERS.items()}
    )
    yield from tokens(
        "payload-json",
        "malformed_token",
        {
            **{name: with_payload(payload) for name, payload in MALFORMED_PAYLOADS.items()},
            "in-lower-case": respelt(payload=str.lower, octets_left=0),
            "nested-jwt": lambda pool: jws(RS256, id_token(pool), rs256(pool.key)),
        },
    )
    yield Token(
        "header-json-number-of-300-digits",
        with_header('{"alg":"RS256","kid":1' + "0" * 299 + "}"),
        "malformed_kid",
    )
    yield Token("payload-json-empty-object", with_payload(lambda: "{}"), "missing_claim.iss")
