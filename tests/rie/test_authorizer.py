"""The authorizer in Lambda's runtime."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.conftest import EventFactory, Sign, effect, free_port
from tests.rie.conftest import AUTHORIZER, Emulate, Emulator


def test_valid_token_is_allowed(authorizer: Emulator, authorizer_event: EventFactory, sign: Sign) -> None:
    event = authorizer_event(queryStringParameters={"idToken": sign(sub="user-1", exp=4102444800)})

    status, answer = authorizer.invoke(event)

    assert (status, effect(answer)) == (200, "Allow")
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

    assert (status, effect(answer)) == (200, "Deny")


def test_token_signed_by_another_key_is_denied(
    authorizer: Emulator, authorizer_event: EventFactory, sign: Sign, signing_key: RSAKey, other_key: RSAKey
) -> None:
    token = sign(key=other_key, header={"kid": signing_key.kid})

    status, answer = authorizer.invoke(authorizer_event(queryStringParameters={"idToken": token}))

    assert (status, effect(answer)) == (200, "Deny")


@pytest.mark.parametrize("parameters", [{}, {"idToken": ""}, {"idToken": "hello"}], ids=str)
def test_anything_but_a_token_is_denied(
    authorizer: Emulator, authorizer_event: EventFactory, parameters: dict[str, str]
) -> None:
    status, answer = authorizer.invoke(authorizer_event(queryStringParameters=parameters))

    assert (status, effect(answer)) == (200, "Deny")


def test_unreachable_keys_are_a_function_error_and_not_a_denial(
    emulate: Emulate, authorizer_event: EventFactory, sign: Sign
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with emulate("authorizer", {**AUTHORIZER, "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": nowhere}) as authorizer:
        _, answer = authorizer.invoke(authorizer_event(queryStringParameters={"idToken": sign()}))

    assert answer["errorType"] == "KeySetUnavailable"


def test_json_log_gives_the_reason_and_never_the_token(
    authorizer: Emulator, authorizer_event: EventFactory, sign: Sign
) -> None:
    token = sign(aud="another-client")

    authorizer.invoke(authorizer_event(queryStringParameters={"idToken": token}))

    *_, record = authorizer.records("token rejected")
    assert (record["level"], record["logger"], record["reason"]) == ("WARNING", "authorizer", "invalid_claim.aud")
    assert [segment for segment in token.split(".") if segment in authorizer.log()] == []
