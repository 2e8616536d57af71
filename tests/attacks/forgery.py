"""Describe a case of the corpus, and build the event that API Gateway sends for it, without a JOSE library."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey

from benchmarks.user_pool import base64url, cognito_claims
from tests.fixtures.events import Event, load_event

ALLOW, ERROR = "Allow", "error"
ABSENT = object()  # drops a member; None is JSON's null
TOKEN = "{token}"  # stands for the client's ID token in a handshake
SUBPROTOCOLS = "Sec-WebSocket-Protocol"
ORIGIN = "https://app.example.com"
ORIGINS = f"{ORIGIN},{ORIGIN}:8443"

Members = Mapping[str, object]
Pairs = Mapping[str, object] | Sequence[tuple[str, object]]


class Configuration(NamedTuple):
    """The authorizer's variables, and the query and headers of a client that it then allows."""

    variables: Mapping[str, str]
    query: Pairs
    headers: Pairs


IN_QUERY = {"idToken": TOKEN}
CONFIGURATIONS = {
    "querystring": Configuration({}, IN_QUERY, {}),
    "subprotocol": Configuration({"CREDENTIAL_MODE": "subprotocol"}, {}, {SUBPROTOCOLS: f"echo.v1, idToken.{TOKEN}"}),
    "origins": Configuration({"ALLOWED_ORIGINS": ORIGINS}, IN_QUERY, {"Origin": ORIGIN}),
    "origins-or-none": Configuration(
        {"ALLOWED_ORIGINS": ORIGINS, "ALLOW_MISSING_ORIGIN": "true"}, IN_QUERY, {"Origin": ORIGIN}
    ),
    "group": Configuration({"REQUIRED_GROUP": "Chatters"}, IN_QUERY, {}),
}


class Pool(NamedTuple):
    """The user pool under attack.

    Attributes:
        keys: the keys by name. "signing" signs ID tokens. The JWK Set has all keys except "attacker".
        attacker_url: the server where the attacker publishes a key.
    """

    keys: Mapping[str, RSAKey]
    attacker_url: str


Change = Callable[[Pool, str], str | bytes]


@dataclass(frozen=True)
class Forgery:
    """An ID token, described by its differences from one that the user pool issues now.

    Attributes:
        expected: the logged reason of the Deny, or ALLOW.
        claims: replace Cognito's claims. A value that depends on the time or the pool is a function of the pool.
        header: replaces members of the header in the same way.
        key: the name of the signing key. The header has its `kid`.
        signature: computes the signature from the pool and the signing input.
        header_json: replaces the JSON of the header. MEMBERS in it stands for the members.
        payload_json: replaces the JSON of the claims in the same way.
        encode_header: encodes the JSON of the header, by default as base64url.
        encode_payload: encodes the JSON of the claims.
        sent: is sent instead of the token. Names in braces stand for the token, its segments, and those of a token that
            the user pool issued to another user.
    """

    name: str
    expected: str
    _: KW_ONLY
    configuration: str = "querystring"
    claims: Members = field(default_factory=dict)
    header: Members = field(default_factory=dict)
    key: str = "signing"
    signature: Callable[[Pool, bytes], bytes] | None = None
    header_json: str | bytes | Change = "{MEMBERS}"
    payload_json: str | bytes | Change = "{MEMBERS}"
    encode_header: Callable[[bytes], str] = base64url
    encode_payload: Callable[[bytes], str] = base64url
    sent: str | Change = TOKEN

    def build_token(self, pool: Pool) -> str:
        key = pool.keys[self.key]
        header = apply_changes({"kid": key.kid, "alg": "RS256"}, self.header, pool)
        claims = apply_changes(cognito_claims(), self.claims, pool)
        segments = [
            self.encode_header(fill_json(self.header_json, header, pool)),
            self.encode_payload(fill_json(self.payload_json, claims, pool)),
        ]
        signing_input = ".".join(segments).encode()
        segments.append(
            base64url(self.signature(pool, signing_input) if self.signature else sign_rs256(key, signing_input))
        )
        token = ".".join(segments)
        if callable(self.sent):
            return str(self.sent(pool, token))
        if self.sent == TOKEN:
            return token
        other = VICTIM.build_token(pool)
        names = ("header", "payload", "signature", "other_header", "other_payload", "other_signature")
        return self.sent.format(
            token=token, other=other, **dict(zip(names, [*segments, *other.split(".")], strict=True))
        )

    def build_event(self, pool: Pool) -> Any:
        """Return the event of a client that sends the token where the configuration expects it."""
        return Handshake(self.name, self.expected, self.configuration).build_event_with(self.build_token(pool))


@dataclass(frozen=True)
class Handshake:
    """An opening handshake with a sound token, described by its differences from one that the configuration allows.

    Attributes:
        expected: the logged reason of the Deny, or ALLOW, or ERROR.
        query: replaces the configuration's query parameters; pairs if a name is repeated.
        headers: replace the configuration's headers; pairs if a name is repeated. A browser's headers are always sent.
        members: replace members of the event that API Gateway sends for this query and these headers.
        instead: replaces the whole event.
    """

    name: str
    expected: str
    configuration: str = "querystring"
    _: KW_ONLY
    query: Pairs | None = None
    headers: Pairs | None = None
    members: Members = field(default_factory=dict)
    instead: object = ABSENT

    def build_event(self, pool: Pool) -> Any:
        return self.build_event_with(SOUND_TOKEN.build_token(pool))

    def build_event_with(self, token: object) -> Any:
        """Return the event with this token in place of TOKEN."""
        if self.instead is not ABSENT:
            return put_token(self.instead, token)
        sound = CONFIGURATIONS[self.configuration]
        query, all_query = build_maps(sound.query if self.query is None else self.query)
        headers, all_headers = build_maps(sound.headers if self.headers is None else self.headers)
        event = load_event("authorizer")
        event |= {
            "queryStringParameters": query,
            "multiValueQueryStringParameters": all_query,
            "headers": event["headers"] | headers,
            "multiValueHeaders": event["multiValueHeaders"] | all_headers,
            **self.members,
        }
        return put_token({name: value for name, value in event.items() if value is not ABSENT}, token)


Case = Forgery | Handshake
SOUND_TOKEN = Forgery("sound", ALLOW)
VICTIM = Forgery("victim", ALLOW, claims={"sub": "victim"})


def build_event_with_token(token: object, **members: object) -> Event:
    """Return the event of a client that sends the token in the query string; members replace the event's."""
    event: Event = Handshake("", ALLOW).build_event_with(token)
    return event | members


def build_maps(pairs: Pairs) -> tuple[dict[str, object], dict[str, list[object]]]:
    """Return API Gateway's two maps: with the last value of each name, and with all values of each name."""
    pairs = [*pairs.items()] if isinstance(pairs, Mapping) else pairs
    return dict(pairs), {name: [value for each, value in pairs if each == name] for name, _ in pairs}


def put_token(value: Any, token: Any) -> Any:
    """Replace TOKEN in all strings within a value, and each function with its result for the token."""
    if callable(value):
        return value(token)
    if isinstance(value, dict):
        return {name: put_token(member, token) for name, member in value.items()}
    if isinstance(value, list):
        return [put_token(each, token) for each in value]
    if value == TOKEN:
        return token
    return value.replace(TOKEN, token) if isinstance(value, str) else value


def apply_changes(members: Members, changes: Members, pool: Pool) -> dict[str, object]:
    values = {name: value(pool) if callable(value) else value for name, value in {**members, **changes}.items()}
    return {name: value for name, value in values.items() if value is not ABSENT}


def fill_json(template: str | bytes | Change, members: Members, pool: Pool) -> bytes:
    text = json.dumps(members)
    content = template(pool, text) if callable(template) else template
    octets = content if isinstance(content, bytes) else content.encode()
    return octets.replace(b"MEMBERS", text[1:-1].encode())


def sign_rs256(key: RSAKey, message: bytes) -> bytes:
    return get_private_key(key).sign(message, PKCS1v15(), SHA256())


def get_private_key(key: RSAKey) -> RSAPrivateKey:
    assert key.private_key is not None
    return key.private_key
