"""What a case of the corpus is, and how its event carries the credential."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from tests.attacks.forgery import Pool, Signer, changed, id_token
from tests.fixtures.events import Event, load_event

ALLOW, ERROR = "Allow", "error"
CONFIGURATIONS: dict[str, dict[str, str]] = {
    "querystring": {},
    "subprotocol": {"CREDENTIAL_MODE": "subprotocol"},
    "origins": {"ALLOWED_ORIGINS": "https://app.example.com,https://app.example.com:8443"},
    "origins-or-none": {
        "ALLOWED_ORIGINS": "https://app.example.com,https://app.example.com:8443",
        "ALLOW_MISSING_ORIGIN": "true",
    },
    "group": {"REQUIRED_GROUP": "Chatters"},
}
NO_MAPS: dict[str, object] = {"true": True, "number": 1, "text": "idToken", "list": ["idToken"]}
EMPTY_MAPS: dict[str, object] = {"null": None, "empty": {}}  # API Gateway sends both

Recipe = Callable[[Pool], object]


class Token(NamedTuple):
    """What a client sends as its ID token; the other attributes are those of Case."""

    id: str
    recipe: Recipe
    expected: str


class Case(NamedTuple):
    """An event, and what is expected: Allow, an error, or a Deny with this reason in the log."""

    id: str
    event: Recipe
    expected: str
    configuration: str = "querystring"


def tokens(family: str, expected: str, recipes: Mapping[str, Recipe]) -> Iterator[Token]:
    for name, recipe in recipes.items():
        yield Token(f"{family}-{name}", recipe, expected)


def with_headers(family: str, expected: str, headers: Mapping[str, Mapping[str, object]]) -> Iterator[Token]:
    """Signed with RS256 by the pool's own key, whatever the header says."""
    return tokens(family, expected, {name: headed_by(header) for name, header in headers.items()})


def headed_by(header: Mapping[str, object]) -> Callable[[Pool], str]:
    return lambda pool: id_token(pool, header=header)


def with_claims(family: str, expected: str, claims: Mapping[str, Mapping[str, object]]) -> Iterator[Token]:
    """Really signed, whatever the claims are."""
    return tokens(family, expected, {name: claiming(changes) for name, changes in claims.items()})


def claiming(changes: Mapping[str, object]) -> Callable[[Pool], str]:
    return lambda pool: id_token(pool, claims=changes)


def signed_by(signer: Callable[[Pool], Signer], header: Mapping[str, object] = {}) -> Callable[[Pool], str]:
    return lambda pool: id_token(pool, header=header, signer=signer(pool))


def text(change: Callable[[str], object]) -> Recipe:
    """Of a sound token."""
    return lambda pool: change(id_token(pool))


def events(family: str, expected: str, recipes: Mapping[str, Recipe], configuration: str) -> Iterator[Case]:
    for name, recipe in recipes.items():
        yield Case(f"{family}-{name}", recipe, expected, configuration)


def event_with(**members: object) -> Event:
    """The example event with these members; ABSENT drops one."""
    return changed(load_event("authorizer"), members)


def asking(token: object, name: str = "idToken", **members: object) -> Event:
    """With the token in the query string, where API Gateway gives the last of a name, and all of a name."""
    query = {"queryStringParameters": {name: token}, "multiValueQueryStringParameters": {name: [token]}}
    return event_with(**{**query, **members})


def asked(name: str = "idToken", **members: object) -> Recipe:
    """With a sound token."""
    return lambda pool: asking(id_token(pool), name, **members)


def offering(headers: Mapping[str, object], **members: object) -> Event:
    """With these headers besides the example's, as API Gateway gives them, and no query string."""
    example = load_event("authorizer")
    parts = {
        "headers": {**example["headers"], **headers},
        "multiValueHeaders": {**example["multiValueHeaders"], **{name: [value] for name, value in headers.items()}},
        "queryStringParameters": {},
        "multiValueQueryStringParameters": {},
    }
    return event_with(**{**parts, **members})


def offer(token: object) -> str:
    """The value of Sec-WebSocket-Protocol that brings a token."""
    return f"echo.v1, idToken.{token}"
