"""Tokens and events that nobody thought of: whatever they are, the answer is the one Deny, unless they are sound."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from joserfc.jwk import RSAKey

from tests.attacks.cases import asking, event_with, offer
from tests.attacks.corpus import FORGED
from tests.attacks.forgery import KID, RS256, jws, rs256
from tests.attacks.handshakes import EVIL, NAME, ORIGIN
from tests.conftest import (
    APP_CLIENT_ID,
    ISSUER,
    ROOT,
    SUB,
    USER_POOL_ID,
    ColdStart,
    Event,
    LoopbackServer,
    Sign,
    base64url,
    cognito_claims,
    load_event,
)

set_hypothesis_home_dir(ROOT / ".pytest_cache" / "hypothesis")
FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
REASONS = {case.expected for case in FORGED}
MISSING_CLAIMS = r"missing_claim\.(aud|exp|iss|sub|token_use)(,(exp|iss|sub|token_use))*"
LOG_RECORD = set(vars(logging.makeLogRecord({}))) | {"message"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


class Judge:
    """Whether the authorizer lets in whom an event is about; anything but its two answers is an error."""

    def __init__(self, authorizer: Any, caplog: pytest.LogCaptureFixture) -> None:
        self._handler = authorizer.handler
        self._caplog = caplog

    def allows(self, event: Event) -> bool:
        self._caplog.clear()
        answer = self._handler(event, None)
        (record,) = self._caplog.records
        extra = {name: value for name, value in vars(record).items() if name not in LOG_RECORD}
        allowed = record.getMessage() == "connection accepted"
        if allowed:
            assert extra.pop("sub") == answer["principalId"] == answer["context"].pop("userId")
            assert re.fullmatch(r"\d+", answer["context"].pop("exp"))
        else:
            assert record.getMessage() == "connection rejected"
            assert answer["principalId"] == "anonymous"
            reason = extra.pop("reason")
            assert reason in REASONS or re.fullmatch(MISSING_CLAIMS, reason)
        assert extra == {"connectionId": connection_id(event)}
        assert record.exc_info is None
        assert set(answer) == {"principalId", "policyDocument", "context"}
        assert answer["context"] == {}
        effect = "Allow" if allowed else "Deny"
        statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": event["methodArn"]}
        assert answer["policyDocument"] == {"Version": "2012-10-17", "Statement": [statement]}
        return bool(allowed)


def connection_id(event: Event) -> object:
    context = event.get("requestContext")
    value = context.get("connectionId") if isinstance(context, dict) else None
    return value if isinstance(value, str) and value.isascii() else None  # as API Gateway makes them


@pytest.fixture
def judge(authorizer: Any, caplog: pytest.LogCaptureFixture) -> Judge:
    caplog.set_level(logging.INFO)
    return Judge(authorizer, caplog)


@pytest.fixture
def strict(cold_start: ColdStart, jwks: LoopbackServer, caplog: pytest.LogCaptureFixture) -> Judge:
    """Judges tokens that come as subprotocols, and from one origin."""
    caplog.set_level(logging.INFO)
    environ = {"USER_POOL_ID": USER_POOL_ID, "APP_CLIENT_ID": APP_CLIENT_ID, "CREDENTIAL_MODE": "subprotocol"}
    endpoint = {"AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": jwks.url}
    return Judge(cold_start("authorizer", **environ, **endpoint, ALLOWED_ORIGINS=ORIGIN), caplog)


# Tokens


@FUZZ
@given(token=st.text() | st.text(f"{BASE64URL}.=", max_size=200))
def test_no_text_is_taken_for_a_token(judge: Judge, token: str) -> None:
    assert not judge.allows(asking(token))


@FUZZ
@given(segments=st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_no_octets_are_taken_for_a_token(judge: Judge, segments: list[bytes]) -> None:
    assert not judge.allows(asking(".".join(map(base64url, segments))))


EDITS = st.tuples(
    st.sampled_from(["insert", "replace", "delete", "swap", "repeat"]),
    st.floats(0, 1),
    st.sampled_from(f"{BASE64URL}.=") | st.characters(),
)


def edited(token: str, edits: list[tuple[str, float, str]]) -> str:
    for kind, where, character in edits:
        at = int(where * (len(token) - 1))
        before, here, after = token[:at], token[at], token[at + 1 :]
        token = {
            "insert": before + character + here + after,
            "replace": before + character + after,
            "delete": before + after,
            "swap": before + after[:1] + here + after[1:],
            "repeat": before + here + here + after,
        }[kind]
    return token


@FUZZ
@given(edits=st.lists(EDITS, min_size=1, max_size=3))
def test_no_edit_leaves_a_sound_token_sound(judge: Judge, sign: Sign, edits: list[tuple[str, float, str]]) -> None:
    token = sign()
    forged = edited(token, edits)
    assume(forged != token)

    assert not judge.allows(asking(forged))


NAMES = ["alg", "kid", "typ", "cty", "crit", "b64", "zip", "enc", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"]
HEADERS = st.dictionaries(
    st.sampled_from(NAMES[:3]) | st.sampled_from(NAMES) | st.text(max_size=8),
    st.sampled_from(["RS256", "none", "HS256", KID, "JWT", "jwt", "at+jwt"]) | JSON,
    max_size=3,
)


@FUZZ
@given(header=HEADERS, dropped=st.sets(st.sampled_from(["alg", "kid"])))
@example(header={}, dropped=set())
@example(header={"typ": "Jwt"}, dropped=set())
def test_only_a_header_as_cognito_writes_it_is_sound(
    judge: Judge, signing_key: RSAKey, header: dict[str, Any], dropped: set[str]
) -> None:
    header = {name: value for name, value in RS256.items() if name not in dropped} | header
    typ = header.get("typ", "JWT")
    sound = {**header, "typ": "JWT"} == {**RS256, "typ": "JWT"} and isinstance(typ, str) and typ.upper() == "JWT"

    assert judge.allows(asking(jws(header, cognito_claims(), rs256(signing_key)))) == sound


CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "aud", "sub", "token_use", "exp", "iat", "nbf", "auth_time", "jti"]) | st.text(max_size=8),
    st.sampled_from([ISSUER, APP_CLIENT_ID, "id", SUB, [ISSUER], [APP_CLIENT_ID], ["id"], 4102444800]) | JSON,
    max_size=3,
)


def is_date(value: Any, *, earliest: float, latest: float) -> bool:
    return type(value) in {int, float} and earliest <= value <= latest


def are_sound(claims: Mapping[str, Any]) -> bool:
    now, last = time.time(), 253402300799
    return (
        (claims.get("iss"), claims.get("aud"), claims.get("token_use")) == (ISSUER, APP_CLIENT_ID, "id")
        and isinstance(claims.get("sub"), str)
        and re.fullmatch(r"[\x20-\x7e]{1,255}", claims["sub"]) is not None
        and is_date(claims.get("exp"), earliest=now, latest=last)
        and is_date(claims.get("iat", now), earliest=0, latest=now + 5)
        and is_date(claims.get("nbf", now), earliest=0, latest=now + 5)
        and is_date(claims.get("auth_time", now), earliest=0, latest=last)
        and isinstance(claims.get("jti", ""), str)
    )


@FUZZ
@given(changes=CLAIMS, dropped=st.sets(st.sampled_from([*cognito_claims()]), max_size=2))
@example(changes={}, dropped=set())
def test_only_sound_claims_are_sound(
    judge: Judge, signing_key: RSAKey, changes: dict[str, Any], dropped: set[str]
) -> None:
    claims = {name: value for name, value in cognito_claims().items() if name not in dropped} | changes

    assert judge.allows(asking(jws(RS256, claims, rs256(signing_key)))) == are_sound(claims)


@FUZZ
@given(payload=st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_else_that_the_pool_could_sign_is_taken_for_claims(
    judge: Judge, signing_key: RSAKey, payload: bytes
) -> None:
    assert not judge.allows(asking(jws(RS256, payload, rs256(signing_key))))


# Events


@FUZZ
@given(query=JSON | st.fixed_dictionaries({"idToken": JSON}), several=JSON | st.fixed_dictionaries({"idToken": JSON}))
def test_no_query_string_is_an_error(judge: Judge, query: object, several: object) -> None:
    assert not judge.allows(event_with(queryStringParameters=query, multiValueQueryStringParameters=several))


Path = tuple[str, ...]


def paths(members: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    for name, value in members.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from paths(value, (*above, name))


PATHS = [path for path in paths(load_event("authorizer")) if path != ("methodArn",)]


def put(event: Event, path: Path, value: object) -> None:
    """Where the path leads, unless what was above is gone."""
    *above, name = path
    members: Any = event
    for step in above:
        members = members.get(step) if isinstance(members, dict) else None
    if isinstance(members, dict):
        members[name] = value


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(PATHS), JSON, max_size=4))
def test_no_other_event_allows_more_than_the_token_in_it(judge: Judge, sign: Sign, changes: dict[Path, object]) -> None:
    event = asking(token := sign())
    for path, value in changes.items():
        put(event, path, value)
    query = event["queryStringParameters"]

    assert not judge.allows(event) or query["idToken"] == token


@FUZZ
@given(method_arn=st.text(), good=st.booleans())
def test_the_policy_is_about_the_events_method_only(judge: Judge, sign: Sign, method_arn: str, good: bool) -> None:
    assert judge.allows(asking(sign() if good else "forged", methodArn=method_arn)) == good


HEADER_NAMES = [NAME, NAME.lower(), "Origin", "origin", "ORIGIN"]
HANDSHAKES = JSON | st.dictionaries(st.sampled_from(HEADER_NAMES), JSON, max_size=4)


@FUZZ
@given(headers=HANDSHAKES, several=HANDSHAKES)
def test_no_headers_are_an_error(strict: Judge, headers: object, several: object) -> None:
    assert not strict.allows(event_with(headers=headers, multiValueHeaders=several))


SENT = st.lists(
    st.tuples(
        st.sampled_from(HEADER_NAMES) | st.text(max_size=8),
        st.sampled_from([offer("{}"), "idToken.{},echo.v1", "{}", "echo.v1", "idToken.", ORIGIN, EVIL, "null"])
        | st.text(max_size=20),
    ),
    max_size=4,
)


@FUZZ
@given(sent=SENT)
@example(sent=[(NAME, offer("{}")), ("Origin", ORIGIN)])
def test_a_handshake_needs_one_right_origin_and_one_sound_token(
    strict: Judge, sign: Sign, sent: list[tuple[str, str]]
) -> None:
    token = sign()
    values: dict[str, list[str]] = {}
    for name, template in sent:
        values.setdefault(name, []).append(template.replace("{}", token))
    origins, offers = (
        [value for name in values if name.lower() == header for value in values[name]]
        for header in ("origin", NAME.lower())
    )
    names = [name.strip() for offered in offers for name in offered.split(",")]
    tokens = [name for name in names if name.startswith("idToken.")]
    sound = origins == [ORIGIN] and len(offers) == 1 and tokens == [f"idToken.{token}"]

    event = event_with(headers={name: each[-1] for name, each in values.items()}, multiValueHeaders=values)

    assert strict.allows(event) == sound
