"""The authorizer in this process: real keys, really signed tokens, and the user pool's keys from a real HTTP server."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.conftest import (
    APP_CLIENT_ID,
    ISSUER,
    JWKS_PATH,
    SUB,
    USER_POOL_ID,
    Authorize,
    ColdStart,
    EventFactory,
    LoopbackServer,
    Sign,
    base64url,
    effect,
    rs256,
)

METHOD_ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef123/prod/$connect"
RS256 = {"kid": "signing1example=", "alg": "RS256"}

Refusal = Callable[[object], str]


@pytest.fixture
def refusal(authorize: Authorize, caplog: pytest.LogCaptureFixture) -> Refusal:
    """The reason code in the log with which this token is denied."""

    def reason(token: object) -> str:
        assert effect(authorize(token)) == "Deny"
        return logged_reason(caplog)

    return reason


def logged_reason(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    return str(vars(record)["reason"])


# The answer


def test_a_valid_id_token_is_allowed_to_do_exactly_what_was_asked(authorize: Authorize, sign: Sign) -> None:
    exp = int(time.time()) + 600

    answer = authorize(sign(exp=exp))

    assert answer == {
        "principalId": SUB,
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": METHOD_ARN}],
        },
        "context": {"userId": SUB, "exp": str(exp)},
    }


def test_a_refusal_denies_exactly_what_was_asked_and_names_nobody(authorize: Authorize, sign: Sign) -> None:
    answer = authorize(sign(aud="another-client"))

    assert answer == {
        "principalId": "anonymous",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Deny", "Resource": METHOD_ARN}],
        },
        "context": {},
    }


def test_fractional_expiry_reaches_the_integration_as_whole_seconds(authorize: Authorize, sign: Sign) -> None:
    """RFC 7519 section 2: a NumericDate may have a fraction."""
    exp = int(time.time()) + 600

    answer = authorize(sign(exp=exp + 0.5))

    assert answer["context"]["exp"] == str(exp)


# What is refused, and the reason that the log gives


@pytest.mark.parametrize(
    ("claim", "value", "reason"),
    [
        ("iss", "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Another01", "invalid_claim.iss"),
        ("iss", [ISSUER], "invalid_claim.iss"),
        ("iss", None, "missing_claim.iss"),
        ("aud", "another-client", "invalid_claim.aud"),
        ("aud", [APP_CLIENT_ID], "invalid_claim.aud"),
        ("aud", None, "missing_claim.aud"),
        ("token_use", "access", "invalid_claim.token_use"),
        ("token_use", ["id"], "invalid_claim.token_use"),
        ("token_use", None, "missing_claim.token_use"),
        ("sub", 1, "invalid_claim.sub"),
        ("sub", "", "invalid_claim.sub"),
        ("sub", None, "missing_claim.sub"),
        ("exp", "2100-01-01", "invalid_claim.exp"),
        ("exp", True, "invalid_claim.exp"),
        ("exp", None, "missing_claim.exp"),
    ],
)
def test_token_with_one_wrong_claim_is_denied(
    refusal: Refusal, sign: Sign, claim: str, value: Any, reason: str
) -> None:
    assert refusal(sign(**{claim: value})) == reason


@pytest.mark.parametrize(
    ("claim", "seconds_from_now", "reason"),
    [
        ("exp", 0, "expired_token.exp"),
        ("exp", -60, "expired_token.exp"),
        ("nbf", 60, "invalid_claim.nbf"),
        ("iat", 60, "invalid_claim.iat"),
    ],
)
def test_token_outside_its_own_time_is_denied(
    refusal: Refusal, sign: Sign, claim: str, seconds_from_now: int, reason: str
) -> None:
    """RFC 7519 section 4.1.4: a token must not be accepted on or after its exp."""
    changes: dict[str, Any] = {claim: int(time.time()) + seconds_from_now}

    assert refusal(sign(**changes)) == reason


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_token_of_a_clock_a_little_ahead_of_ours_is_allowed(authorize: Authorize, sign: Sign, claim: str) -> None:
    changes: dict[str, Any] = {claim: int(time.time()) + 3}

    assert effect(authorize(sign(**changes))) == "Allow"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, "unsupported_algorithm"),
        ({"alg": "HS256"}, "unsupported_algorithm"),
        ({"alg": "RS512"}, "unsupported_algorithm"),
        ({"alg": "rs256"}, "unsupported_algorithm"),
        ({"alg": ["RS256"]}, "unsupported_algorithm"),
        ({"alg": None}, "unsupported_algorithm"),
        ({"jku": "https://example.com/jwks.json"}, "unsupported_header"),
        ({"jwk": {"kty": "RSA"}}, "unsupported_header"),
        ({"crit": ["exp"], "exp": 1}, "unsupported_header"),
        ({"b64": False}, "unsupported_header"),
        ({"kid": ["signing1example="]}, "malformed_kid"),
        ({"kid": None}, "missing_kid"),
    ],
    ids=str,
)
def test_header_that_cognito_does_not_write_is_denied_unheard(
    refusal: Refusal, sign: Sign, jwks: LoopbackServer, header: dict[str, object], reason: str
) -> None:
    assert refusal(sign(header=header)) == reason
    assert jwks.requests == []


@pytest.mark.parametrize(
    "header",
    [
        "{",
        "[]",
        '"RS256"',
        '{"alg": "RS256", "alg": "none", "kid": "signing1example="}',
        '{"alg": "RS256", "kid": NaN}',
        '{"alg": "RS256", "kid": "signing1example=", "typ": Infinity}',
    ],
)
def test_header_that_is_not_strictly_a_json_object_is_denied(
    refusal: Refusal, signing_key: RSAKey, header: str
) -> None:
    assert refusal(rs256(signing_key, header, "{}")) == "malformed_header"


def test_header_that_is_not_text_is_denied(refusal: Refusal) -> None:
    assert refusal(base64url(b"\xff\xfe{}") + ".e30.AAAA") == "malformed_header"


@pytest.mark.parametrize("payload", ["hello", "[]", '{"exp": NaN}', '{"sub": "me", "sub": "you"}'])
def test_signed_payload_that_is_not_strictly_a_json_object_is_denied(
    refusal: Refusal, signing_key: RSAKey, payload: str
) -> None:
    assert refusal(rs256(signing_key, json.dumps(RS256), payload)) == "invalid_payload"


def test_token_whose_key_id_the_user_pool_does_not_publish_is_denied(
    refusal: Refusal, sign: Sign, other_key: RSAKey
) -> None:
    assert refusal(sign(key=other_key)) == "unknown_kid"


def test_token_signed_by_another_key_under_the_right_key_id_is_denied(
    refusal: Refusal, sign: Sign, other_key: RSAKey
) -> None:
    assert refusal(sign(key=other_key, header=RS256)) == "bad_signature"


def test_token_whose_claims_were_changed_after_signing_is_denied(refusal: Refusal, sign: Sign) -> None:
    header, _, signature = sign().split(".")
    _, payload, _ = sign(sub="somebody-else").split(".")

    assert refusal(f"{header}.{payload}.{signature}") == "bad_signature"


@pytest.mark.parametrize("parameters", [{}, {"queryStringParameters": None}, {"queryStringParameters": []}], ids=str)
def test_event_without_query_string_is_denied(
    authorizer: ModuleType,
    authorizer_event: EventFactory,
    caplog: pytest.LogCaptureFixture,
    parameters: dict[str, object],
) -> None:
    answer = authorizer.handler(authorizer_event(queryStringParameters=None) | parameters, None)

    assert effect(answer) == "Deny"
    assert logged_reason(caplog) == "missing_token"


@pytest.mark.parametrize("token", [None, "", [], {}], ids=repr)
def test_absent_token_is_denied(refusal: Refusal, token: object) -> None:
    assert refusal(token) == "missing_token"


@pytest.mark.parametrize(
    "token",
    [1, ["a.b.c"], {"a": "b.c.d"}, "a.b", "a.b.c.d.e", "a.b.", "a.b.c=", "a.b.c\n", "é.b.c", "A.e30.AAAA"],
    ids=repr,
)
def test_anything_but_one_compact_jws_is_denied(refusal: Refusal, token: object) -> None:
    """RFC 7515 section 7.1: three segments of base64url without padding."""
    assert refusal(token) == "malformed_token"


@pytest.mark.parametrize(("characters", "reason"), [(8192, "bad_signature"), (8193, "exceeded_size")])
def test_token_over_8192_characters_is_denied_unread(
    refusal: Refusal, sign: Sign, characters: int, reason: str
) -> None:
    header, _, signature = sign().split(".")
    payload = "A" * (characters - len(f"{header}..{signature}"))

    assert refusal(f"{header}.{payload}.{signature}") == reason


def test_header_over_512_bytes_is_denied_unread(refusal: Refusal) -> None:
    assert refusal(f"{base64url(b' ' * 513)}.e30.AAAA") == "malformed_token"


def test_the_example_event_is_denied_without_asking_for_keys(
    authorizer: ModuleType, authorizer_event: EventFactory, jwks: LoopbackServer
) -> None:
    answer = authorizer.handler(authorizer_event(), None)

    assert effect(answer) == "Deny"
    assert jwks.requests == []


# What the log says


def test_acceptance_is_logged_with_the_subject(
    authorize: Authorize, sign: Sign, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    authorize(sign())

    (record,) = caplog.records
    assert (record.levelname, record.message, vars(record)["sub"]) == ("INFO", "connection accepted", SUB)


@pytest.mark.parametrize(
    "changes",
    [{}, {"exp": 1}, {"aud": "another-client"}, {"header": {"kid": "x"}}, {"header": {"alg": "none"}}],
    ids=str,
)
def test_no_log_record_holds_the_token_or_what_it_says_of_the_user(
    authorize: Authorize, sign: Sign, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = sign(email="jane@example.com", jti="secret-jti", **changes)

    authorize(token)

    logged = repr([vars(record) for record in caplog.records])
    assert "connection " in logged
    assert [secret for secret in (*token.split("."), "jane@example.com", "secret-jti") if secret in logged] == []


# Configuration


@pytest.mark.parametrize("name", ["USER_POOL_ID", "APP_CLIENT_ID"])
@pytest.mark.parametrize(
    ("value", "rule"), [(None, "is required"), ("", "is required"), ("https://example.com/", "is malformed")]
)
def test_bad_configuration_stops_the_init_phase_and_is_named(
    cold_start: ColdStart, name: str, value: str | None, rule: str
) -> None:
    environ = {"USER_POOL_ID": USER_POOL_ID, "APP_CLIENT_ID": APP_CLIENT_ID, name: value}

    with pytest.raises(RuntimeError, match=f"^environment variable {name} {rule}"):
        cold_start("authorizer", **{name: value for name, value in environ.items() if value is not None})


@pytest.mark.parametrize("environ", [{}, {"AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": ""}], ids=["unset", "empty"])
def test_keys_come_from_the_user_pool_in_its_own_region(cold_start: ColdStart, environ: dict[str, str]) -> None:
    authorizer = cold_start("authorizer", USER_POOL_ID="eu-west-3_Example01", APP_CLIENT_ID=APP_CLIENT_ID, **environ)

    with pytest.raises(
        authorizer.KeySetUnavailable,
        match=r"^https://cognito-idp\.eu-west-3\.amazonaws\.com/eu-west-3_Example01/\.well-known/jwks\.json: ",
    ):
        authorizer.key_set.find("any")


def test_an_endpoint_url_may_end_with_a_slash(cold_start: ColdStart, jwks: LoopbackServer) -> None:
    environ = {"AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": f"{jwks.url}/cognito/"}
    authorizer = cold_start("authorizer", USER_POOL_ID=USER_POOL_ID, APP_CLIENT_ID=APP_CLIENT_ID, **environ)

    assert authorizer.key_set.find("signing1example=")
    assert [request.path for request in jwks.requests] == [f"/cognito{JWKS_PATH}"]


def test_an_endpoint_url_moves_the_download_but_not_whose_tokens_are_believed(
    authorize: Authorize, refusal: Refusal, sign: Sign, jwks: LoopbackServer
) -> None:
    assert effect(authorize(sign(iss=ISSUER))) == "Allow"
    assert [(request.method, request.path) for request in jwks.requests] == [("GET", JWKS_PATH)]
    assert refusal(sign(iss=f"{jwks.url}/{USER_POOL_ID}")) == "invalid_claim.iss"
