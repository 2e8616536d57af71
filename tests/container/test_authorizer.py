"""The authorizer in Lambda's runtime."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from benchmarks.user_pool import SUB
from tests.fixtures.emf import read_metrics
from tests.fixtures.emulator import Emulate, Emulator
from tests.fixtures.events import EventFactory, add_headers, load_event
from tests.fixtures.functions import AUTHORIZER, get_effect
from tests.fixtures.network import find_free_port
from tests.fixtures.tokens import JWKS_ENDPOINT, Sign, sign_rs256


def test_valid_token_is_allowed(authorizer: Emulator, authorizer_event: EventFactory, sign: Sign) -> None:
    event = authorizer_event(queryStringParameters={"idToken": sign(sub="user-1", exp=4102444800)})

    status, answer = authorizer.invoke(event)

    assert (status, get_effect(answer)) == (200, "Allow")
    assert answer["context"] == {"userId": "user-1", "exp": "4102444800"}


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"aud": "another-client"},
        {"token_use": "access"},
        {"iss": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Another01"},
        {"sub": None},
        {"header": {"alg": "none"}},
        {"header": {"kid": "unknown"}},
        {"header": {"jku": "https://example.com/jwks.json"}},
    ],
    ids=str,
)
def test_token_with_one_wrong_claim_or_header_is_denied(
    authorizer: Emulator, authorizer_event: EventFactory, sign: Sign, changes: dict[str, Any]
) -> None:
    status, answer = authorizer.invoke(authorizer_event(queryStringParameters={"idToken": sign(**changes)}))

    assert (status, get_effect(answer)) == (200, "Deny")


def test_token_signed_by_another_key_is_denied(
    authorizer: Emulator, authorizer_event: EventFactory, sign: Sign, signing_key: RSAKey, other_key: RSAKey
) -> None:
    token = sign(key=other_key, header={"kid": signing_key.kid})

    status, answer = authorizer.invoke(authorizer_event(queryStringParameters={"idToken": token}))

    assert (status, get_effect(answer)) == (200, "Deny")


@pytest.mark.parametrize(
    "payload", ["[" * 5000, '{"deep": ' + "[" * 2500 + "]" * 2500 + "}"], ids=["no object", "object"]
)
def test_deeply_nested_payload_is_denied(
    authorizer: Emulator, authorizer_event: EventFactory, signing_key: RSAKey, payload: str
) -> None:
    token = sign_rs256(signing_key, json.dumps({"alg": "RS256", "kid": signing_key.kid}), payload)

    status, answer = authorizer.invoke(authorizer_event(queryStringParameters={"idToken": token}))

    assert (status, get_effect(answer)) == (200, "Deny")


@pytest.mark.parametrize("parameters", [{}, {"idToken": ""}, {"idToken": "hello"}], ids=str)
def test_missing_or_malformed_token_is_denied(
    authorizer: Emulator, authorizer_event: EventFactory, parameters: dict[str, str]
) -> None:
    status, answer = authorizer.invoke(authorizer_event(queryStringParameters=parameters))

    assert (status, get_effect(answer)) == (200, "Deny")


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("queryStringParameters", {"idToken": "\ud800"}, "malformed_token"),
        ("queryStringParameters", {"idToken\ud800": "a.b.c"}, "missing_token"),
        ("queryStringParameters", {"idToken": "a.b.c", "other": "\ud800"}, "malformed_token"),
        ("headers", {"User-Agent": "\ud800"}, "unsupported_algorithm"),
        ("headers", {"\ud800": "curl"}, "unsupported_algorithm"),
    ],
    ids=ascii,
)
def test_lone_surrogate_is_denied_and_logged(
    authorizer: Emulator, member: str, value: dict[str, str], reason: str
) -> None:
    """JSON can contain a lone surrogate, but UTF-8 cannot."""
    connection_id = str(uuid.uuid4())

    status, answer = authorizer.invoke(load_event("authorizer", connectionId=connection_id, **{member: value}))

    assert (status, get_effect(answer)) == (200, "Deny")
    assert authorizer.wait_for_records("connection rejected", connectionId=connection_id, reason=reason)


def test_unreachable_keys_are_an_error_and_not_a_denial(
    emulate: Emulate, authorizer_event: EventFactory, sign: Sign
) -> None:
    with emulate("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: f"http://127.0.0.1:{find_free_port()}"}) as authorizer:
        _, answer = authorizer.invoke(authorizer_event(queryStringParameters={"idToken": sign()}))
        (record,) = authorizer.wait_for_records("key set unavailable")

    assert answer["errorType"] == "KeySetUnavailable"
    assert record["requestId"] == answer["requestId"]
    assert read_metrics(record).values == {"KeysUnavailable": 1}


def test_json_log_has_the_reason_and_not_the_token(authorizer: Emulator, sign: Sign) -> None:
    token, connection_id = sign(aud="another-client"), str(uuid.uuid4())

    authorizer.invoke(load_event("authorizer", queryStringParameters={"idToken": token}, connectionId=connection_id))

    (record,) = authorizer.wait_for_records("connection rejected", connectionId=connection_id)
    assert (record["level"], record["logger"], record["reason"]) == ("WARNING", "authorizer", "invalid_claim.aud")
    assert [segment for segment in token.split(".") if segment in authorizer.log()] == []


def test_accepted_connection_is_logged_in_the_runtimes_format(authorizer: Emulator, sign: Sign) -> None:
    """The authorizer writes this line itself, to save time."""
    records = {}
    for message, token in {"connection accepted": sign(), "connection rejected": sign(aud="another-client")}.items():
        connection_id = str(uuid.uuid4())
        event = load_event("authorizer", queryStringParameters={"idToken": token}, connectionId=connection_id)
        authorizer.invoke(event)
        (records[message],) = authorizer.wait_for_records(message, connectionId=connection_id)

    accepted, rejected = records.values()
    assert accepted.keys() - {"sub"} == rejected.keys() - {"reason", "ReasonClass"}
    for record in (accepted, rejected):
        assert list(read_metrics(record).values) == ["Refused"]
        assert read_metrics(record).dimensions[0] == {"FunctionName": "test_function"}
        assert time.strptime(record["timestamp"], "%Y-%m-%dT%H:%M:%SZ")
        assert (record["logger"], record["apiRequestId"]) == ("authorizer", event["requestContext"]["requestId"])
        assert f"END RequestId: {record['requestId']}" in authorizer.log()
    assert accepted["requestId"] != rejected["requestId"]


# Options


ORIGIN, HEADER = ("Origin", "https://app.example.com"), "Sec-WebSocket-Protocol"
IN_GROUP: dict[str, Any] = {"cognito:groups": ["members"]}


def test_member_with_an_allowed_origin_and_an_offered_token_is_allowed(strict_authorizer: Emulator, sign: Sign) -> None:
    token, connection_id = sign(**IN_GROUP), str(uuid.uuid4())
    event = load_event("authorizer", queryStringParameters=None, connectionId=connection_id)

    _, answer = strict_authorizer.invoke(add_headers(event, ORIGIN, (HEADER, f"echo.v1, idToken.{token}")))

    assert get_effect(answer) == "Allow"
    assert strict_authorizer.wait_for_records("connection accepted", connectionId=connection_id, sub=SUB)
    assert [segment for segment in token.split(".") if segment in strict_authorizer.log()] == []


@pytest.mark.parametrize(
    ("lines", "claims", "reason"),
    [
        ([(HEADER, "idToken.{}")], IN_GROUP, "missing_origin"),
        ([("Origin", "https://app.example.com.evil.example"), (HEADER, "idToken.{}")], IN_GROUP, "origin_not_allowed"),
        ([ORIGIN, ORIGIN, (HEADER, "idToken.{}")], IN_GROUP, "repeated_origin"),
        ([ORIGIN], IN_GROUP, "missing_token"),
        ([ORIGIN, (HEADER, "echo.v1"), (HEADER, "idToken.{}")], IN_GROUP, "repeated_sec-websocket-protocol"),
        ([ORIGIN, (HEADER, "idToken.{}")], {}, "missing_group"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_client_without_one_of_the_required_values_is_denied(
    strict_authorizer: Emulator, sign: Sign, lines: list[tuple[str, str]], claims: dict[str, Any], reason: str
) -> None:
    token, connection_id = sign(**claims), str(uuid.uuid4())
    event = load_event("authorizer", queryStringParameters={"idToken": token}, connectionId=connection_id)

    _, answer = strict_authorizer.invoke(add_headers(event, *[(name, value.format(token)) for name, value in lines]))

    assert get_effect(answer) == "Deny"
    assert strict_authorizer.wait_for_records("connection rejected", connectionId=connection_id, reason=reason)
