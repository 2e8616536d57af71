"""Events, as API Gateway sends them and as it never would: where the credential is, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tests.attacks.cases import ALLOW, EMPTY_MAPS, ERROR, NO_MAPS, Case, Recipe, asked, asking, event_with, events
from tests.attacks.forgery import ABSENT, Pool, id_token
from tests.fixtures.events import Event, load_event

QUERYSTRING = "querystring"
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


def repeated(*values: Recipe) -> Recipe:
    """Return the event for a parameter that the URL has more than once: one map has the last value, the other all."""

    def event(pool: Pool) -> Event:
        sent = [value(pool) for value in values]
        return event_with(
            queryStringParameters={"idToken": sent[-1]}, multiValueQueryStringParameters={"idToken": sent}
        )

    return event


def constantly(value: object) -> Recipe:
    return lambda _: value


def elsewhere(**members: Callable[[str], object]) -> Recipe:
    """Return the event of a client that sends a sound token where the authorizer does not look for it."""

    def event(pool: Pool) -> Event:
        token = id_token(pool)
        others = {name: member(token) for name, member in members.items()}
        return event_with(**{"queryStringParameters": {}, "multiValueQueryStringParameters": {}, **others})

    return event


def in_header(name: str, template: str) -> Recipe:
    return elsewhere(
        headers=lambda token: {name: template.format(token)},
        multiValueHeaders=lambda token: {name: [template.format(token)]},
    )


def missing_tokens() -> Mapping[str, Recipe]:
    return {
        **{f"is-{name}": asked(queryStringParameters=value) for name, value in EMPTY_MAPS.items()},
        **{f"name-{name}": asked(other) for name, other in OTHER_NAMES.items()},
        "absent": asked(queryStringParameters=ABSENT, multiValueQueryStringParameters=ABSENT),
        "nested": lambda pool: event_with(queryStringParameters={"params": {"idToken": id_token(pool)}}),
        "multi-value-only": asked(queryStringParameters={}),
        "multi-value-only-and-null": asked(queryStringParameters=None),
        "id-token-is-null": lambda _: asking(None),
        "id-token-is-empty": lambda _: asking(""),
    }


NO_TEXT: dict[str, Recipe] = {
    "number": lambda _: asking(1),
    "fraction": lambda _: asking(1.5),
    "true": lambda _: asking(token=True),
    "list": lambda pool: asking([id_token(pool)]),
    "list-of-segments": lambda pool: asking(id_token(pool).split(".")),
    "list-of-null": lambda _: asking([None]),
    "object": lambda pool: asking({"idToken": id_token(pool)}),
    "object-of-segments": lambda pool: asking(dict(zip("abc", id_token(pool).split("."), strict=True))),
}
NO_QUERIES: dict[str, Recipe] = {
    **{name: asked(queryStringParameters=value) for name, value in NO_MAPS.items()},
    "the-token": lambda pool: event_with(queryStringParameters=id_token(pool)),
    "a-list-of-pairs": lambda pool: event_with(queryStringParameters=[["idToken", id_token(pool)]]),
    "a-list-of-objects": lambda pool: event_with(queryStringParameters=[{"idToken": id_token(pool)}]),
    "raw": lambda pool: event_with(queryStringParameters=f"idToken={id_token(pool)}"),
}
REPEATED: dict[str, Recipe] = {
    "two-sound-tokens": repeated(id_token, id_token),
    "two-equal-words": repeated(constantly("forged"), constantly("forged")),
    "forged-then-sound": repeated(constantly("forged"), id_token),
    "sound-then-forged": repeated(id_token, constantly("forged")),
    "sound-then-empty": repeated(id_token, constantly("")),
    "empty-then-sound": repeated(constantly(""), id_token),
    "sound-then-null": repeated(id_token, constantly(None)),
    "a-hundred": repeated(*[constantly("forged")] * 99, id_token),
}
ELSEWHERE: dict[str, Recipe] = {
    "authorization-header": in_header("Authorization", "Bearer {}"),
    "authorization-header-bare": in_header("Authorization", "{}"),
    "header-named-id-token": in_header("idToken", "{}"),
    "cookie": in_header("Cookie", "idToken={}"),
    "subprotocol": in_header("Sec-WebSocket-Protocol", "echo.v1, idToken.{}"),
    "referer": in_header("Referer", "https://example.com/?idToken={}"),
    "body": elsewhere(body=lambda token: f'{{"idToken":"{token}"}}'),
    "stage-variables": elsewhere(stageVariables=lambda token: {"idToken": token}),
    "path": elsewhere(path=lambda token: f"/idToken/{token}"),
    "path-parameters": elsewhere(pathParameters=lambda token: {"idToken": token}),
    "top": elsewhere(idToken=lambda token: token),
    "authorization-token": elsewhere(type=lambda _: "TOKEN", authorizationToken=lambda token: f"Bearer {token}"),
    "identity-source": elsewhere(identitySource=lambda token: [token]),
    "raw-query-string": elsewhere(rawQueryString=lambda token: f"idToken={token}"),
    "request-context": elsewhere(requestContext=lambda token: request_context(idToken=token)),
    "answer-of-an-authorizer": elsewhere(
        requestContext=lambda _: request_context(authorizer={"principalId": "admin", "userId": "admin"})
    ),
}


def request_context(**members: object) -> Event:
    """Return the example event's context with these members too."""
    return {**load_event("authorizer")["requestContext"], **members}


def impossible_events() -> Mapping[str, Recipe]:
    """Return events that no client can make API Gateway send."""
    return {
        **{f"is-{name}": constantly(value) for name, value in (NO_MAPS | EMPTY_MAPS).items()},
        **{f"with-token-as-{name}": recipe for name, recipe in NO_TEXT.items()},
        **{f"with-query-as-{name}": recipe for name, recipe in NO_QUERIES.items()},
        **{f"with-request-context-{name}": asked(requestContext=value) for name, value in NO_MAPS.items()},
        **{
            f"with-method-arn-{name}": asked(methodArn=value)
            for name, value in {"null": None, "number": 1, "list": ["*"]}.items()
        },
        "is-the-token": id_token,
        "is-a-list-of-events": lambda pool: [asking(id_token(pool))],
        "is-the-query": lambda pool: {"idToken": id_token(pool)},
        "is-of-a-queue": lambda pool: {"Records": [{"body": id_token(pool)}]},
        "without-method-arn": asked(methodArn=ABSENT),
        "without-method-arn-and-forged": lambda _: asking("forged", methodArn=ABSENT),
        "without-method-arn-but-route-arn": asked(methodArn=ABSENT, routeArn="arn:aws:execute-api:us-east-1:1:a/*"),
    }


SOUND: dict[str, Recipe] = {
    "with-other-parameters": lambda pool: event_with(
        queryStringParameters={"idToken": id_token(pool), "IDTOKEN": "x", "v": "2"},
        multiValueQueryStringParameters={"v": ["1", "2"]},
    ),
    **{
        f"with-request-context-{name}": asked(requestContext=value)
        for name, value in {**EMPTY_MAPS, "absent": ABSENT}.items()
    },
    "without-multi-value-parameters": asked(multiValueQueryStringParameters=ABSENT),
    "with-null-multi-value-parameters": asked(multiValueQueryStringParameters=None),
    "without-headers": asked(headers=ABSENT, multiValueHeaders=ABSENT),
    "with-null-headers": asked(headers=None, multiValueHeaders=None),
    "with-a-forged-token-in-a-header": asked(headers={"Authorization": "Bearer forged"}),
    "of-any-origin-where-none-is-required": asked(headers={"Origin": "https://evil.example"}),
    "with-more-members": asked(version="1.0", httpMethod="GET", body=None),
    "with-lone-surrogates-elsewhere": lambda pool: event_with(
        queryStringParameters={"idToken": id_token(pool), "\ud800": "\ud800"}, headers={"\ud800": "\ud800"}
    ),
}


def query_cases() -> Iterator[Case]:
    yield from events("query", "missing_token", missing_tokens(), QUERYSTRING)
    yield from events("query-repeated", "repeated_idToken", REPEATED, QUERYSTRING)
    yield from events("elsewhere", "missing_token", ELSEWHERE, QUERYSTRING)
    yield from events("event", ERROR, impossible_events(), QUERYSTRING)
    yield from events("event", ALLOW, SOUND, QUERYSTRING)


# Group

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


def grouped(claim: str, groups: object, **claims: object) -> Recipe:
    return lambda pool: asking(id_token(pool, claims={claim: groups, **claims}))


def group_cases() -> Iterator[Case]:
    claim, group = "cognito:groups", "Chatters"
    wrong = {name: grouped(claim, groups) for name, groups in WRONG_GROUPS.items()}
    other = {f"in-{name}": grouped(name, [group]) for name in ("groups", "cognito:roles", "Cognito:Groups", "scope")}
    yield from events("group", "missing_group", {**wrong, **other}, "group")
    yield Case("group-of-an-expired-token", grouped(claim, [group], exp=1), "expired_token.exp", "group")
    sound = {"only": grouped(claim, [group]), "last": grouped(claim, ["Admins", 1, None, group])}
    yield from events("group", ALLOW, sound, "group")
