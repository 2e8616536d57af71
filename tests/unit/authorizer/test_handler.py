"""The authorizer in this process: real keys, really signed tokens, and the user pool's keys from a real HTTP server."""

from __future__ import annotations

import json
import logging
import time
from types import ModuleType
from typing import Any

import pytest
from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import RSAKey

from benchmarks.user_pool import SUB, base64url
from tests.fixtures.events import METHOD_ARN, EventFactory
from tests.fixtures.functions import Authorize, Refusal, get_effect
from tests.fixtures.log_lines import read_lines
from tests.fixtures.network import LoopbackServer
from tests.fixtures.tokens import JWKS_PATH, Sign, sign_rs256

RS256 = {"kid": "signing1example=", "alg": "RS256"}


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


# The header


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, "unsupported_algorithm"),
        ({"jku": "https://example.com/jwks.json"}, "unsupported_header"),
        ({"typ": "at+jwt"}, "unsupported_type"),
        ({"kid": None}, "missing_kid"),
        ({"kid": ["signing1example="]}, "malformed_kid"),
        ({"kid": ""}, "malformed_kid"),
        ({"kid": "a" * 129}, "malformed_kid"),
    ],
    ids=str,
)
def test_header_that_cognito_does_not_write_is_denied_before_a_key_is_looked_up(
    refusal: Refusal, sign: Sign, jwks: LoopbackServer, header: dict[str, object], reason: str
) -> None:
    assert refusal(sign(header=header)) == reason
    assert jwks.requests == []


@pytest.mark.parametrize("typ", ["JWT", "jwt"])
def test_header_may_say_that_it_is_of_a_jwt(authorize: Authorize, sign: Sign, typ: str) -> None:
    """RFC 7519 section 5.1: in any case of the letters."""
    assert get_effect(authorize(sign(header={"typ": typ}))) == "Allow"


@pytest.mark.parametrize("kid", ["a" * 128, "../../etc/passwd"])
def test_key_id_is_looked_up_exactly_and_goes_nowhere_else(
    refusal: Refusal, sign: Sign, jwks: LoopbackServer, kid: str
) -> None:
    assert refusal(sign(header={"kid": kid})) == "unknown_kid"
    assert [request.path for request in jwks.requests] == [JWKS_PATH]


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b'{"alg": "RS256", "alg": "none", "kid": "signing1example="}',
        b'{"alg": "RS256", "kid": NaN}',
        b"\xff\xfe{}",
    ],
    ids=["not closed", "array", "member twice", "NaN", "not UTF-8"],
)
def test_header_that_is_not_strictly_a_json_object_is_denied_before_a_key_is_looked_up(
    refusal: Refusal, jwks: LoopbackServer, header: bytes
) -> None:
    assert refusal(f"{base64url(header)}.e30.AAAA") == "malformed_token"
    assert jwks.requests == []


# The payload


@pytest.mark.parametrize(
    "payload",
    ["hello", "[]", '{"exp": NaN}', '{"a": {"b": 1, "b": 2}}'],
    ids=["no JSON", "array", "NaN", "inner member twice"],
)
def test_signed_payload_that_is_not_strictly_a_json_object_is_denied(
    refusal: Refusal, signing_key: RSAKey, payload: str
) -> None:
    assert refusal(sign_rs256(signing_key, json.dumps(RS256), payload)) == "malformed_token"


def test_signed_payload_that_is_nested_beyond_what_python_parses_is_denied(
    monkeypatch: pytest.MonkeyPatch, authorizer: ModuleType, refusal: Refusal, signing_key: RSAKey
) -> None:
    """Newer Pythons parse more than fits into a token."""
    monkeypatch.setattr(authorizer, "MAX_TOKEN_CHARACTERS", 100_000)

    assert refusal(sign_rs256(signing_key, json.dumps(RS256), "[" * 60_000)) == "malformed_token"


# The signature


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


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_library_verifies_rs256_only(authorizer: ModuleType, algorithm: str) -> None:
    """RFC 8725 section 3.1: a second check, after the one of the header."""
    with pytest.raises(UnsupportedAlgorithmError):
        authorizer.RS256.get_alg(algorithm)


# The event


def test_event_without_method_arn_is_an_error(
    authorizer: ModuleType, authorizer_event: EventFactory, sign: Sign
) -> None:
    """Nobody is allowed or denied what nobody asked for."""
    event = authorizer_event(queryStringParameters={"idToken": sign()}, methodArn=None)

    with pytest.raises(KeyError, match="methodArn"):
        authorizer.handler(event, None)
    with pytest.raises(TypeError, match="methodArn must be a string"):
        authorizer.handler(event | {"methodArn": 1}, None)


# What the log does not say


def test_lone_surrogate_is_answered_and_not_logged(
    refusal: Refusal, sign: Sign, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON can have it, UTF-8 cannot."""
    assert refusal(f"{sign()}\ud800") == "malformed_token"

    (line,) = read_lines(caplog, capsys)
    assert "d800" not in ascii(line)


@pytest.mark.parametrize(
    "changes",
    [{}, {"exp": 1}],
    ids=str,
)
def test_no_log_record_holds_the_token_or_what_it_says_of_the_user(
    authorize: Authorize,
    sign: Sign,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
) -> None:
    caplog.set_level(logging.DEBUG)
    token = sign(email="jane@example.com", jti="secret-jti", **changes)

    authorize(token)

    logged = repr([vars(record) for record in caplog.records]) + capsys.readouterr().out
    assert "connection " in logged
    assert [secret for secret in (*token.split("."), "jane@example.com", "secret-jti") if secret in logged] == []
    assert (SUB in logged) == (not changes)
