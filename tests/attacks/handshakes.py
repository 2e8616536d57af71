"""Opening handshakes with a sound token, described by their differences from one that the configuration allows.

Some are events that API Gateway never sends. They must cause an error, or an Allow only for a sound token.
"""

from __future__ import annotations

from typing import Any

from tests.attacks.forgery import ABSENT, ALLOW, ERROR, IN_QUERY, ORIGIN, SUBPROTOCOLS, TOKEN, Handshake
from tests.fixtures.events import load_event

Changes = dict[str, dict[str, Any]]  # the arguments of a Handshake, by name

EVIL = "https://evil.example"
NOT_MAPS: dict[str, object] = {"true": True, "number": 1, "text": "idToken", "list": ["idToken"]}
EMPTY_MAPS: dict[str, object] = {"null": None, "empty": {}}  # API Gateway sends both
REQUEST_CONTEXT = load_event("authorizer")["requestContext"]

# The query string

OTHER_NAMES = {
    "in-capitals": "IDTOKEN",
    "in-lower-case": "idtoken",
    "capitalized": "IdToken",
    "snake-case": "id_token",
    "of-oauth": "access_token",
    "other": "token",
    "space-after": "idToken ",
    "space-before": " idToken",
    "nul-after": "idToken\0",
    "list": "idToken[]",
    "index": "idToken[0]",
    "escaped": "id%54oken",
    "look-alike": "id\N{CYRILLIC CAPITAL LETTER TE}oken",
    "lone-surrogate": "\ud800",
    "lone-surrogate-after": "idToken\ud800",
    "empty": "",
}
# API Gateway also sends the map with all values of each parameter; the authorizer must not take a token from it.
QUERIES_WITHOUT_TOKEN: Changes = {
    "id-token-is-null": {"query": {"idToken": None}},
    "id-token-is-empty": {"query": {"idToken": ""}},
    "nested": {"query": {"params": {"idToken": TOKEN}}},
    "is-null": {"query": {}, "members": {"queryStringParameters": None}},
    "is-empty": {"query": {}},
    "multi-value-only": {"members": {"queryStringParameters": {}}},
    "multi-value-only-and-null": {"members": {"queryStringParameters": None}},
    "absent": {"members": {"queryStringParameters": ABSENT, "multiValueQueryStringParameters": ABSENT}},
}
QUERY = [
    *[Handshake(f"query-name-{name}", "missing_token", query={other: TOKEN}) for name, other in OTHER_NAMES.items()],
    *[Handshake(f"query-{name}", "missing_token", **changes) for name, changes in QUERIES_WITHOUT_TOKEN.items()],
]
# The values of the parameter in the order of the URL.
REPEATED_TOKENS: dict[str, list[object]] = {
    "two-sound-tokens": [TOKEN, TOKEN],
    "two-equal-words": ["forged", "forged"],
    "forged-then-sound": ["forged", TOKEN],
    "sound-then-forged": [TOKEN, "forged"],
    "sound-then-empty": [TOKEN, ""],
    "empty-then-sound": ["", TOKEN],
    "sound-then-null": [TOKEN, None],
    "a-hundred": [*["forged"] * 99, TOKEN],
}
REPEATED_QUERY = [
    Handshake(f"query-repeated-{name}", "repeated_idToken", query=[("idToken", value) for value in values])
    for name, values in REPEATED_TOKENS.items()
]
TOKENS_ELSEWHERE: Changes = {
    "authorization-header": {"headers": {"Authorization": "Bearer {token}"}},
    "authorization-header-bare": {"headers": {"Authorization": TOKEN}},
    "header-named-id-token": {"headers": {"idToken": TOKEN}},
    "cookie": {"headers": {"Cookie": "idToken={token}"}},
    "subprotocol": {"headers": {SUBPROTOCOLS: "echo.v1, idToken.{token}"}},
    "referer": {"headers": {"Referer": "https://example.com/?idToken={token}"}},
    "body": {"members": {"body": '{"idToken":"{token}"}'}},
    "stage-variables": {"members": {"stageVariables": {"idToken": TOKEN}}},
    "path": {"members": {"path": "/idToken/{token}"}},
    "path-parameters": {"members": {"pathParameters": {"idToken": TOKEN}}},
    "top": {"members": {"idToken": TOKEN}},
    "authorization-token": {"members": {"type": "TOKEN", "authorizationToken": "Bearer {token}"}},
    "identity-source": {"members": {"identitySource": [TOKEN]}},
    "raw-query-string": {"members": {"rawQueryString": "idToken={token}"}},
    "request-context": {"members": {"requestContext": {**REQUEST_CONTEXT, "idToken": TOKEN}}},
    "answer-of-an-authorizer": {
        "members": {"requestContext": {**REQUEST_CONTEXT, "authorizer": {"principalId": "admin", "userId": "admin"}}}
    },
}
ELSEWHERE = [
    Handshake(f"elsewhere-{name}", "missing_token", query={}, **changes) for name, changes in TOKENS_ELSEWHERE.items()
]

# Events

EVENT = {**load_event("authorizer"), "queryStringParameters": {"idToken": TOKEN}}
NOT_TOKENS: dict[str, object] = {
    "number": 1,
    "fraction": 1.5,
    "true": True,
    "list": [TOKEN],
    "list-of-segments": lambda token: token.split("."),
    "list-of-null": [None],
    "object": {"idToken": TOKEN},
    "object-of-segments": lambda token: dict(zip("abc", token.split("."), strict=True)),
}
IMPOSSIBLE_EVENTS: Changes = {
    **{f"is-{name}": {"instead": value} for name, value in (NOT_MAPS | EMPTY_MAPS).items()},
    "is-the-token": {"instead": TOKEN},
    "is-a-list-of-events": {"instead": [EVENT]},
    "is-the-query": {"instead": {"idToken": TOKEN}},
    "is-of-a-queue": {"instead": {"Records": [{"body": TOKEN}]}},
    **{f"with-token-as-{name}": {"query": {"idToken": value}} for name, value in NOT_TOKENS.items()},
    **{f"with-query-as-{name}": {"members": {"queryStringParameters": value}} for name, value in NOT_MAPS.items()},
    "with-query-as-the-token": {"members": {"queryStringParameters": TOKEN}},
    "with-query-as-a-list-of-pairs": {"members": {"queryStringParameters": [["idToken", TOKEN]]}},
    "with-query-as-a-list-of-objects": {"members": {"queryStringParameters": [{"idToken": TOKEN}]}},
    "with-query-as-raw": {"members": {"queryStringParameters": "idToken={token}"}},
    **{f"with-request-context-{name}": {"members": {"requestContext": value}} for name, value in NOT_MAPS.items()},
    "with-method-arn-null": {"members": {"methodArn": None}},
    "with-method-arn-number": {"members": {"methodArn": 1}},
    "with-method-arn-list": {"members": {"methodArn": ["*"]}},
    "without-method-arn": {"members": {"methodArn": ABSENT}},
    "without-method-arn-and-forged": {"query": {"idToken": "forged"}, "members": {"methodArn": ABSENT}},
    "without-method-arn-but-route-arn": {
        "members": {"methodArn": ABSENT, "routeArn": "arn:aws:execute-api:us-east-1:1:a/*"}
    },
}
ODD_EVENTS: Changes = {
    "with-request-context-null": {"members": {"requestContext": None}},
    "with-request-context-empty": {"members": {"requestContext": {}}},
    "with-request-context-absent": {"members": {"requestContext": ABSENT}},
    "without-multi-value-parameters": {"members": {"multiValueQueryStringParameters": ABSENT}},
    "with-null-multi-value-parameters": {"members": {"multiValueQueryStringParameters": None}},
    "without-headers": {"members": {"headers": ABSENT, "multiValueHeaders": ABSENT}},
    "with-null-headers": {"members": {"headers": None, "multiValueHeaders": None}},
    "with-more-members": {"members": {"version": "1.0", "httpMethod": "GET", "body": None}},
    "with-other-parameters": {"query": [("idToken", TOKEN), ("IDTOKEN", "x"), ("v", "1"), ("v", "2")]},
    "with-a-forged-token-in-a-header": {"headers": {"Authorization": "Bearer forged"}},
    "of-any-origin-where-none-is-required": {"headers": {"Origin": EVIL}},
    "with-lone-surrogates-elsewhere": {
        "query": {"idToken": TOKEN, "\ud800": "\ud800"},
        "headers": {"\ud800": "\ud800"},
    },
}
IMPOSSIBLE = [Handshake(f"event-{name}", ERROR, **changes) for name, changes in IMPOSSIBLE_EVENTS.items()]
SOUND_EVENTS = [Handshake(f"event-{name}", ALLOW, **changes) for name, changes in ODD_EVENTS.items()]

# Subprotocols: RFC 6455 sections 4.1 and 11.3.4

OFFER = "echo.v1, idToken.{token}"
SPELLED_IN_LOWER_CASE = SUBPROTOCOLS.lower()
SPELLED_IN_CAPITALS = SUBPROTOCOLS.upper()
OFFERS_WITHOUT_TOKEN = {
    "of-no-prefix": "echo.v1, {token}",
    "of-the-token-alone": "{token}",
    "of-no-token": "echo.v1",
    "of-an-empty-token": "echo.v1, idToken.",
    "empty": "",
    "of-commas": ",,,",
    "of-prefix-in-lower-case": "echo.v1, idtoken.{token}",
    "of-prefix-in-capitals": "echo.v1, IDTOKEN.{token}",
    "of-prefix-without-dot": "echo.v1, idToken{token}",
    "of-prefix-as-pair": "echo.v1, idToken={token}",
    "of-prefix-and-token-as-two-names": "echo.v1, idToken, {token}",
    "of-prefix-after-more": "echo.v1, x-idToken.{token}",
    "of-a-look-alike": "echo.v1, id\N{CYRILLIC CAPITAL LETTER TE}oken.{token}",
    "of-a-quoted-name": 'echo.v1, "idToken.{token}"',
    "with-semicolon": "echo.v1; idToken.{token}",
    "with-space-only": "echo.v1 idToken.{token}",
    "as-bearer": "Bearer {token}",
    "as-kubernetes-does": "base64url.bearer.authorization.k8s.io.{token}",
    "of-prefix-after-a-lone-surrogate": "echo.v1, \ud800idToken.{token}",
}
MALFORMED_OFFERS = {
    "of-forged": "echo.v1, idToken.forged",
    "of-prefix-twice": "echo.v1, idToken.idToken.{token}",
    "of-prefix-and-space": "echo.v1, idToken. {token}",
    "of-a-lone-surrogate": "echo.v1, idToken.\ud800",
    "of-quoted-token": 'echo.v1, idToken."{token}"',
    "of-token-and-semicolon": "idToken.{token};echo.v1",
    "of-a-dot": "echo.v1, idToken..",
}
OFFERS_ELSEWHERE: Changes = {
    "in-the-authorization-header": {"headers": {"Authorization": "Bearer {token}"}},
    "in-the-extensions-header": {"headers": {"Sec-WebSocket-Extensions": OFFER}},
    "in-a-header-named-id-token": {"headers": {"idToken": TOKEN}},
    "under-another-name": {"headers": {"Sec-WebSocket-Protocols": OFFER}},
    "under-a-name-with-space": {"headers": {"Sec-WebSocket-Protocol ": OFFER}},
    "under-a-name-with-underscores": {"headers": {"Sec_WebSocket_Protocol": OFFER}},
    "under-a-name-with-a-lone-surrogate": {"headers": {"Sec-WebSocket-Protocol\ud800": OFFER}},
    "null": {"headers": {SUBPROTOCOLS: None}},
    "in-the-query-string-instead": {"query": IN_QUERY, "headers": {}},
    "in-the-query-string-besides-another": {"query": IN_QUERY, "headers": {SUBPROTOCOLS: "echo.v1"}},
    "in-multi-value-headers-only": {"headers": {}, "members": {"multiValueHeaders": {SUBPROTOCOLS: [OFFER]}}},
    "without-headers": {"members": {"headers": ABSENT, "multiValueHeaders": {}}},
    "where-headers-are-null": {"members": {"headers": None, "multiValueHeaders": {}}},
    "where-headers-are-empty": {"members": {"headers": {}, "multiValueHeaders": {}}},
}
MISSING_OFFER = [
    *[
        Handshake(f"offer-{name}", "missing_token", "subprotocol", headers={SUBPROTOCOLS: offer})
        for name, offer in OFFERS_WITHOUT_TOKEN.items()
    ],
    *[
        Handshake(f"offer-{name}", "missing_token", "subprotocol", **changes)
        for name, changes in OFFERS_ELSEWHERE.items()
    ],
]
WRONG_OFFERS = {
    **{name: ("malformed_token", offer) for name, offer in MALFORMED_OFFERS.items()},
    "of-token-and-space": ("bad_signature", "echo.v1, idToken.{token} x"),
    "of-token-padded": ("bad_signature", "echo.v1, idToken.{token}=="),
    "of-8193-characters": ("exceeded_size", f"echo.v1, idToken.{'A' * 8193}"),
}
WRONG_OFFER = [
    Handshake(f"offer-{name}", reason, "subprotocol", headers={SUBPROTOCOLS: offer})
    for name, (reason, offer) in WRONG_OFFERS.items()
]
# The header lines in their order.
REPEATED_OFFERS = {
    "of-one-token-twice": [(SUBPROTOCOLS, "idToken.{token}, idToken.{token}")],
    "of-forged-then-sound": [(SUBPROTOCOLS, "echo.v1, idToken.forged, idToken.{token}")],
    "of-sound-then-forged": [(SUBPROTOCOLS, "echo.v1, idToken.{token}, idToken.forged")],
    "of-sound-then-empty": [(SUBPROTOCOLS, "echo.v1, idToken.{token}, idToken.")],
    "in-two-headers": [(SUBPROTOCOLS, "echo.v1"), (SUBPROTOCOLS, "idToken.{token}")],
    "in-two-headers-backwards": [(SUBPROTOCOLS, "idToken.{token}"), (SUBPROTOCOLS, "echo.v1")],
    "in-two-equal-headers": [(SUBPROTOCOLS, OFFER), (SUBPROTOCOLS, OFFER)],
    "under-two-spellings": [(SUBPROTOCOLS, OFFER), (SPELLED_IN_LOWER_CASE, OFFER)],
    "under-three-spellings": [(SUBPROTOCOLS, OFFER), (SPELLED_IN_CAPITALS, OFFER), (SPELLED_IN_LOWER_CASE, OFFER)],
}
REPEATED_OFFER = [
    *[
        Handshake(f"offer-{name}", "repeated_sec-websocket-protocol", "subprotocol", headers=lines)
        for name, lines in REPEATED_OFFERS.items()
    ],
    Handshake(
        "offer-under-two-spellings-in-multi-value-headers",
        "repeated_sec-websocket-protocol",
        "subprotocol",
        members={"multiValueHeaders": {SUBPROTOCOLS: ["echo.v1"], SPELLED_IN_LOWER_CASE: ["echo.v1"]}},
    ),
]
IMPOSSIBLE_OFFER = [
    *[
        Handshake(f"offer-{name}", ERROR, "subprotocol", headers={SUBPROTOCOLS: value})
        for name, value in {"number": 1, "true": True, "list": [OFFER], "object": {"idToken": TOKEN}}.items()
    ],
    *[
        Handshake(f"offer-where-headers-are-{name}", ERROR, "subprotocol", members={"headers": value})
        for name, value in {**NOT_MAPS, "pairs": [[SUBPROTOCOLS, OFFER]]}.items()
    ],
]
SOUND_OFFERS = {
    "of-the-token-first": "idToken.{token}, echo.v1",
    "of-the-token-only": "idToken.{token}",
    "of-the-token-between": "echo.v1,idToken.{token},echo.v2",
    "with-spaces": "  echo.v1 ,   idToken.{token}  ",
    "with-tabs": "echo.v1,\tidToken.{token}\t",
    "with-empty-elements": ",echo.v1,, idToken.{token},",
    "of-a-name-like-the-prefix": "idtoken.v1, idToken.{token}",
    "of-a-lone-surrogate-too": "\ud800, idToken.{token}",
}
ODD_OFFERS: Changes = {
    "in-lower-case": {"headers": {SPELLED_IN_LOWER_CASE: OFFER}},
    "in-capitals": {"headers": {SPELLED_IN_CAPITALS: OFFER}},
    "without-multi-value-headers": {"members": {"multiValueHeaders": ABSENT}},
    "besides-a-forged-query-string": {"query": {"idToken": "forged"}},
}
SOUND_OFFER = [
    *[
        Handshake(f"offer-{name}", ALLOW, "subprotocol", headers={SUBPROTOCOLS: offer})
        for name, offer in SOUND_OFFERS.items()
    ],
    *[Handshake(f"offer-{name}", ALLOW, "subprotocol", **changes) for name, changes in ODD_OFFERS.items()],
]

# Origin: RFC 6455 section 10.2, RFC 6454 sections 4 to 7

WRONG_ORIGINS: dict[str, object] = {
    "another": EVIL,
    "subdomain": "https://evil.app.example.com",
    "parent": "https://example.com",
    "sibling": "https://app2.example.com",
    "suffix": "https://app.example.com.evil.example",
    "prefix": "https://evil-app.example.com",
    "prefix-glued": "https://evilapp.example.com",
    "lengthened": "https://app.example.community",
    "shortened": "https://app.example.co",
    "dash-for-dot": "https://app-example.com",
    "letter-for-dot": "https://appxexample.com",
    "plain-http": "http://app.example.com",
    "websocket-scheme": "wss://app.example.com",
    "other-scheme": "ftp://app.example.com",
    "no-scheme": "app.example.com",
    "no-scheme-but-slashes": "//app.example.com",
    "one-slash": "https:/app.example.com",
    "three-slashes": "https:///app.example.com",
    "extension": "chrome-extension://app.example.com",
    "file": "file://",
    "data": "data:text/html,x",
    "blob": "blob:https://app.example.com",
    "null-in-letters": "null",
    "default-port": "https://app.example.com:443",
    "other-port": "https://app.example.com:8444",
    "port-shortened": "https://app.example.com:844",
    "port-lengthened": "https://app.example.com:84430",
    "port-with-zero": "https://app.example.com:08443",
    "port-empty": "https://app.example.com:",
    "port-0": "https://app.example.com:0",
    "upper-case": "HTTPS://APP.EXAMPLE.COM",
    "upper-case-host": "https://APP.example.com",
    "upper-case-scheme": "Https://app.example.com",
    "slash-after": "https://app.example.com/",
    "dot-after": "https://app.example.com.",
    "path": "https://app.example.com/x",
    "query": "https://app.example.com?",
    "fragment": "https://app.example.com#",
    "as-userinfo": "https://app.example.com@evil.example",
    "as-userinfo-with-port": "https://app.example.com:8443@evil.example",
    "with-userinfo": "https://evil.example@app.example.com",
    "backslash": "https://app.example.com\\@evil.example",
    "encoded-slash": "https://app.example.com%2f.evil.example",
    "encoded-dot": "https://app%2eexample.com",
    "nul": "https://app.example.com\0.evil.example",
    "newline-after": "https://app.example.com\n",
    "crlf-and-a-header": "https://app.example.com\r\nX-Evil: 1",
    "space-after": "https://app.example.com ",
    "space-before": " https://app.example.com",
    "tab-after": "https://app.example.com\t",
    "empty": "",
    "space": " ",
    "wildcard": "*",
    "wildcard-host": "https://*.example.com",
    "two-and-a-space": "https://app.example.com https://evil.example",
    "two-and-a-comma": "https://app.example.com, https://evil.example",
    "the-whole-list": "https://app.example.com,https://app.example.com:8443",
    "cyrillic": "https://\N{CYRILLIC SMALL LETTER A}pp.example.com",
    "punycode-of-cyrillic": "https://xn--pp-6kc.example.com",
    "full-width": "https://\N{FULLWIDTH LATIN SMALL LETTER A}pp.example.com",
    "ideographic-dot": "https://app\N{IDEOGRAPHIC FULL STOP}example.com",
    "zero-width-space": "https://app\N{ZERO WIDTH SPACE}.example.com",
    "soft-hyphen": "https://a\N{SOFT HYPHEN}pp.example.com",
    "lone-surrogate": "\ud800",
    "lone-surrogate-after": "https://app.example.com\ud800",
    "localhost": "http://localhost",
    "loopback": "https://127.0.0.1",
    "ipv6": "https://[::1]",
    "quoted": '"https://app.example.com"',
    "list": [ORIGIN],
    "empty-list": [],
    "object": {ORIGIN: True},
    "number": 1,
    "zero": 0,
    "true": True,
    "false": False,
}
WRONG_ORIGIN = [
    Handshake(f"{configuration}-{name}", "origin_not_allowed", configuration, headers={"Origin": origin})
    for configuration in ("origins", "origins-or-none")
    for name, origin in WRONG_ORIGINS.items()
]
MISSING_ORIGINS: Changes = {
    "missing": {"headers": {}},
    "in-another-header": {"headers": {"X-Origin": ORIGIN}},
    "in-the-referer": {"headers": {"Referer": ORIGIN}},
    "in-sec-websocket-origin": {"headers": {"Sec-WebSocket-Origin": ORIGIN}},
    "in-a-name-with-space": {"headers": {"Origin ": ORIGIN}},
    "null": {"headers": {"Origin": None}},
    "in-the-query-string": {"query": {"idToken": TOKEN, "Origin": ORIGIN}, "headers": {}},
    "where-headers-are-null": {"members": {"headers": None, "multiValueHeaders": None}},
}
MISSING_ORIGIN = [
    *[
        Handshake(f"origins-{name}", "missing_origin", "origins", **changes)
        for name, changes in MISSING_ORIGINS.items()
    ],
    Handshake("origins-or-none-missing", ALLOW, "origins-or-none", headers={}),
]
# The map that has the last value of each header, and the map that has all values of each header.
REPEATED_ORIGINS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "two-different": ({"Origin": ORIGIN}, {"Origin": [EVIL, ORIGIN]}),
    "two-different-backwards": ({"Origin": EVIL}, {"Origin": [ORIGIN, EVIL]}),
    "two-allowed": ({"Origin": ORIGIN}, {"Origin": [f"{ORIGIN}:8443", ORIGIN]}),
    "two-equal": ({"Origin": ORIGIN}, {"Origin": [ORIGIN, ORIGIN]}),
    "two-spellings": ({"Origin": ORIGIN, "origin": EVIL}, {"Origin": [ORIGIN]}),
    "two-spellings-in-multi-value-headers": ({"Origin": ORIGIN}, {"Origin": [ORIGIN], "ORIGIN": [EVIL]}),
    "two-in-multi-value-headers-only": ({}, {"Origin": [ORIGIN, EVIL]}),
}
REPEATED_ORIGIN = [
    Handshake(
        f"{configuration}-{name}",
        "repeated_origin",
        configuration,
        members={"headers": headers, "multiValueHeaders": all_headers},
    )
    for configuration in ("origins", "origins-or-none")
    for name, (headers, all_headers) in REPEATED_ORIGINS.items()
]
FORGED: Changes = {
    "origins": {"query": {"idToken": "forged"}},
    "origins-or-none": {"query": {"idToken": "forged"}, "headers": {}},
}
FORGED_BEHIND_ORIGIN = [
    Handshake(f"{configuration}-and-forged", "malformed_token", configuration, **changes)
    for configuration, changes in FORGED.items()
]
IMPOSSIBLE_ORIGIN = [
    Handshake("origins-where-headers-are-pairs", ERROR, "origins", members={"headers": [["Origin", ORIGIN]]}),
    Handshake("origins-where-headers-are-text", ERROR, "origins", members={"headers": f"Origin: {ORIGIN}"}),
]
SOUND_ORIGINS: Changes = {
    "first": {"headers": {"Origin": ORIGIN}},
    "second": {"headers": {"Origin": f"{ORIGIN}:8443"}},
    "name-in-lower-case": {"headers": {"origin": ORIGIN}},
    "name-in-capitals": {"headers": {"ORIGIN": ORIGIN}},
    "without-multi-value-headers": {"members": {"multiValueHeaders": None}},
}
SOUND_ORIGIN = [
    Handshake(f"{configuration}-{name}", ALLOW, configuration, **changes)
    for configuration in ("origins", "origins-or-none")
    for name, changes in SOUND_ORIGINS.items()
]
