"""The headers of the opening handshake: the credential as a subprotocol, and the page's origin."""

from __future__ import annotations

from collections.abc import Iterator

from tests.attacks.cases import (
    ALLOW,
    EMPTY_MAPS,
    ERROR,
    NO_MAPS,
    Case,
    Recipe,
    asked,
    asking,
    event_with,
    events,
    offer,
    offering,
)
from tests.attacks.forgery import ABSENT, Pool, id_token
from tests.fixtures.events import Event

NAME = "Sec-WebSocket-Protocol"

# Subprotocol: RFC 6455 sections 4.1 and 11.3.4


def offered(template: object, **members: object) -> Recipe:
    """Return the event of a client that offers this value, where {} stands for a sound token."""

    def event(pool: Pool) -> Event:
        value = template.format(id_token(pool)) if isinstance(template, str) else template
        return offering({NAME: value}, **members)

    return event


def under(*names: str) -> Recipe:
    return lambda pool: offering({name: offer(id_token(pool)) for name in names})


def in_two_headers(*templates: str) -> Recipe:
    def event(pool: Pool) -> Event:
        token = id_token(pool)
        values = [template.format(token) for template in templates]
        return offering({NAME: values[-1]}, multiValueHeaders={NAME: values})

    return event


def without_headers(headers: object) -> Recipe:
    return lambda _: event_with(headers=headers, multiValueHeaders={}, queryStringParameters={})


MISSING_TOKENS: dict[str, Recipe] = {
    "of-no-prefix": offered("echo.v1, {}"),
    "of-the-token-alone": offered("{}"),
    "of-no-token": offered("echo.v1"),
    "of-an-empty-token": offered("echo.v1, idToken."),
    "empty": offered(""),
    "of-commas": offered(",,,"),
    "null": offered(None),
    "of-prefix-in-lower-case": offered("echo.v1, idtoken.{}"),
    "of-prefix-in-capitals": offered("echo.v1, IDTOKEN.{}"),
    "of-prefix-without-dot": offered("echo.v1, idToken{}"),
    "of-prefix-as-pair": offered("echo.v1, idToken={}"),
    "of-prefix-and-token-as-two-names": offered("echo.v1, idToken, {}"),
    "of-prefix-after-more": offered("echo.v1, x-idToken.{}"),
    "of-a-look-alike": offered("echo.v1, id\N{CYRILLIC CAPITAL LETTER TE}oken.{}"),
    "of-a-quoted-name": offered('echo.v1, "idToken.{}"'),
    "with-semicolon": offered("echo.v1; idToken.{}"),
    "with-space-only": offered("echo.v1 idToken.{}"),
    "as-bearer": offered("Bearer {}"),
    "as-kubernetes-does": offered("base64url.bearer.authorization.k8s.io.{}"),
    "in-the-query-string-instead": asked(),
    "in-the-query-string-besides-another": asked(headers={NAME: "echo.v1"}),
    "in-the-authorization-header": lambda pool: offering({"Authorization": f"Bearer {id_token(pool)}"}),
    "in-the-extensions-header": under("Sec-WebSocket-Extensions"),
    "in-a-header-named-id-token": lambda pool: offering({"idToken": id_token(pool)}),
    "under-another-name": under("Sec-WebSocket-Protocols"),
    "under-a-name-with-space": under("Sec-WebSocket-Protocol "),
    "under-a-name-with-underscores": under("Sec_WebSocket_Protocol"),
    "under-a-name-with-a-lone-surrogate": under("Sec-WebSocket-Protocol\ud800"),
    "of-prefix-after-a-lone-surrogate": offered("echo.v1, \ud800idToken.{}"),
    "in-multi-value-headers-only": lambda pool: offering({}, multiValueHeaders={NAME: [offer(id_token(pool))]}),
    "without-headers": without_headers(ABSENT),
    **{f"where-headers-are-{name}": without_headers(value) for name, value in EMPTY_MAPS.items()},
}
# No client can make API Gateway send these.
IMPOSSIBLE: dict[str, Recipe] = {
    "number": offered(1),
    "true": offered(template=True),
    "list": lambda pool: offering({NAME: [offer(id_token(pool))]}),
    "object": lambda pool: offering({NAME: {"idToken": id_token(pool)}}),
    **{f"where-headers-are-{name}": without_headers(value) for name, value in NO_MAPS.items()},
    "where-headers-are-pairs": lambda pool: event_with(headers=[[NAME, offer(id_token(pool))]]),
}
MALFORMED_TOKENS: dict[str, Recipe] = {
    "of-forged": offered("echo.v1, idToken.forged"),
    "of-prefix-twice": offered("echo.v1, idToken.idToken.{}"),
    "of-prefix-and-space": offered("echo.v1, idToken. {}"),
    "of-a-lone-surrogate": offered("echo.v1, idToken.\ud800"),
    "of-quoted-token": offered('echo.v1, idToken."{}"'),
    "of-token-and-semicolon": offered("idToken.{};echo.v1"),
    "of-a-dot": offered("echo.v1, idToken.."),
}
BAD_SIGNATURES: dict[str, Recipe] = {
    "of-token-and-space": offered("echo.v1, idToken.{} x"),
    "of-token-padded": offered("echo.v1, idToken.{}=="),
}
REPEATED: dict[str, Recipe] = {
    "of-one-token-twice": offered("idToken.{0}, idToken.{0}"),
    "of-forged-then-sound": offered("echo.v1, idToken.forged, idToken.{}"),
    "of-sound-then-forged": offered("echo.v1, idToken.{}, idToken.forged"),
    "of-sound-then-empty": offered("echo.v1, idToken.{}, idToken."),
    "in-two-headers": in_two_headers("echo.v1", "idToken.{}"),
    "in-two-headers-backwards": in_two_headers("idToken.{}", "echo.v1"),
    "in-two-equal-headers": in_two_headers("echo.v1, idToken.{}", "echo.v1, idToken.{}"),
    "under-two-spellings": under("Sec-WebSocket-Protocol", "sec-websocket-protocol"),
    "under-three-spellings": under("Sec-WebSocket-Protocol", "SEC-WEBSOCKET-PROTOCOL", "sec-websocket-protocol"),
    "under-two-spellings-in-multi-value-headers": offered(
        "echo.v1, idToken.{}", multiValueHeaders={NAME: ["echo.v1"], NAME.lower(): ["echo.v1"]}
    ),
}
SOUND_OFFERS: dict[str, Recipe] = {
    "of-the-token-first": offered("idToken.{}, echo.v1"),
    "of-the-token-only": offered("idToken.{}"),
    "of-the-token-between": offered("echo.v1,idToken.{},echo.v2"),
    "with-spaces": offered("  echo.v1 ,   idToken.{}  "),
    "with-tabs": offered("echo.v1,\tidToken.{}\t"),
    "with-empty-elements": offered(",echo.v1,, idToken.{},"),
    "of-a-name-like-the-prefix": offered("idtoken.v1, idToken.{}"),
    "of-a-lone-surrogate-too": offered("\ud800, idToken.{}"),
    "in-lower-case": under("sec-websocket-protocol"),
    "in-capitals": under("SEC-WEBSOCKET-PROTOCOL"),
    "without-multi-value-headers": offered("echo.v1, idToken.{}", multiValueHeaders=ABSENT),
    "besides-a-forged-query-string": offered("echo.v1, idToken.{}", queryStringParameters={"idToken": "forged"}),
}


def subprotocol_cases() -> Iterator[Case]:
    configuration = "subprotocol"
    yield from events("offer", "missing_token", MISSING_TOKENS, configuration)
    yield from events("offer", "malformed_token", MALFORMED_TOKENS, configuration)
    yield from events("offer", "bad_signature", BAD_SIGNATURES, configuration)
    yield from events("offer", "repeated_sec-websocket-protocol", REPEATED, configuration)
    yield Case(
        "offer-of-8193-characters", lambda _: offering({NAME: offer("A" * 8193)}), "exceeded_size", configuration
    )
    yield from events("offer", ERROR, IMPOSSIBLE, configuration)
    yield from events("offer", ALLOW, SOUND_OFFERS, configuration)


# Origin: RFC 6455 section 10.2, RFC 6454 sections 4 to 7

ORIGIN = "https://app.example.com"
EVIL = "https://evil.example"
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


def from_page(origin: object, name: str = "Origin") -> Recipe:
    return asked(headers={name: origin}, multiValueHeaders={name: [origin]})


def from_pages(headers: object, multi_value_headers: object) -> Recipe:
    return asked(headers=headers, multiValueHeaders=multi_value_headers)


MISSING_ORIGINS: dict[str, Recipe] = {
    "missing": asked(),
    "null": from_pages({"Origin": None}, {}),
    "in-another-header": from_page(ORIGIN, "X-Origin"),
    "in-the-referer": from_page(ORIGIN, "Referer"),
    "in-sec-websocket-origin": from_page(ORIGIN, "Sec-WebSocket-Origin"),
    "in-a-name-with-space": from_page(ORIGIN, "Origin "),
    "in-the-query-string": lambda pool: event_with(
        queryStringParameters={"idToken": id_token(pool), "Origin": ORIGIN}, multiValueQueryStringParameters={}
    ),
    "where-headers-are-null": from_pages(None, None),
}
IMPOSSIBLE_ORIGINS: dict[str, Recipe] = {
    "where-headers-are-pairs": from_pages([["Origin", ORIGIN]], {}),
    "where-headers-are-text": from_pages(f"Origin: {ORIGIN}", {}),
}
REPEATED_ORIGINS: dict[str, Recipe] = {
    "two-different": from_pages({"Origin": ORIGIN}, {"Origin": [EVIL, ORIGIN]}),
    "two-different-backwards": from_pages({"Origin": EVIL}, {"Origin": [ORIGIN, EVIL]}),
    "two-allowed": from_pages({"Origin": ORIGIN}, {"Origin": [f"{ORIGIN}:8443", ORIGIN]}),
    "two-equal": from_pages({"Origin": ORIGIN}, {"Origin": [ORIGIN, ORIGIN]}),
    "two-spellings": from_pages({"Origin": ORIGIN, "origin": EVIL}, {"Origin": [ORIGIN]}),
    "two-spellings-in-multi-value-headers": from_pages({"Origin": ORIGIN}, {"Origin": [ORIGIN], "ORIGIN": [EVIL]}),
    "two-in-multi-value-headers-only": from_pages({}, {"Origin": [ORIGIN, EVIL]}),
}
SOUND_ORIGINS: dict[str, Recipe] = {
    "first": from_page(ORIGIN),
    "second": from_page(f"{ORIGIN}:8443"),
    "name-in-lower-case": from_page(ORIGIN, "origin"),
    "name-in-capitals": from_page(ORIGIN, "ORIGIN"),
    "without-multi-value-headers": from_pages({"Origin": ORIGIN}, None),
}


def origin_cases() -> Iterator[Case]:
    wrong = {name: from_page(origin) for name, origin in WRONG_ORIGINS.items()}
    for configuration in ("origins", "origins-or-none"):
        yield from events(configuration, "origin_not_allowed", wrong, configuration)
        yield from events(configuration, "repeated_origin", REPEATED_ORIGINS, configuration)
        yield from events(configuration, ALLOW, SOUND_ORIGINS, configuration)
    yield from events("origins", "missing_origin", MISSING_ORIGINS, "origins")
    yield from events("origins", ERROR, IMPOSSIBLE_ORIGINS, "origins")
    yield Case("origins-or-none-missing", asked(), ALLOW, "origins-or-none")
    yield Case("origins-or-none-missing-and-forged", lambda _: asking("forged"), "malformed_token", "origins-or-none")
    forged: dict[str, Recipe] = {"allowed-and-forged": lambda _: asking("forged", headers={"Origin": ORIGIN})}
    yield from events("origins", "malformed_token", forged, "origins")
