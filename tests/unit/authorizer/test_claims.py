"""Which claims the authorizer requires of an ID token, and when the token is valid."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from benchmarks.user_pool import cognito_claims
from tests.fixtures.functions import Authorize, Refusal, get_effect
from tests.fixtures.tokens import Sign, merge_to_json, sign_rs256

RS256 = {"kid": "signing1example=", "alg": "RS256"}


@pytest.mark.parametrize("claim", ["iss", "aud", "token_use", "sub", "exp"])
def test_token_without_a_required_claim_is_denied(refusal: Refusal, sign: Sign, claim: str) -> None:
    absent: dict[str, Any] = {claim: None}

    assert refusal(sign(**absent)) == f"missing_claim.{claim}"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Another01"),
        ("aud", "another-client"),
        ("token_use", "access"),
        ("sub", "a" * 256),
        ("sub", "zoë"),
        ("sub", 1),
        ("jti", 1),
    ],
    ids=str,
)
def test_token_with_one_wrong_claim_is_denied(refusal: Refusal, sign: Sign, claim: str, value: Any) -> None:
    assert refusal(sign(**{claim: value})) == f"invalid_claim.{claim}"


@pytest.mark.parametrize("claim", ["iss", "aud", "token_use"])
def test_list_that_has_the_right_value_is_denied(refusal: Refusal, sign: Sign, claim: str) -> None:
    changes: dict[str, Any] = {claim: [cognito_claims()[claim]]}

    assert refusal(sign(**changes)) == f"invalid_claim.{claim}"


@pytest.mark.parametrize("sub", ["a", "a" * 255, " ~"], ids=["shortest", "longest", "first and last character"])
def test_subject_is_up_to_255_characters_of_ascii(authorize: Authorize, sign: Sign, sub: str) -> None:
    """OpenID Connect Core 1.0 section 2."""
    answer = authorize(sign(sub=sub))

    assert (answer["principalId"], answer["context"]["userId"]) == (sub, sub)


# Numeric dates


def sign_with(key: RSAKey, claim: str, literal: str) -> str:
    """Return an ID token whose claim is exactly this JSON."""
    payload = merge_to_json({claim: "the literal"}, cognito_claims())
    return sign_rs256(key, json.dumps(RS256), payload.replace('"the literal"', literal))


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf", "auth_time"])
@pytest.mark.parametrize("literal", ["true", '"4102444800"', "-1", "253402300800", "1e400"])
def test_time_that_is_no_number_of_seconds_until_the_year_9999_is_denied(
    refusal: Refusal, signing_key: RSAKey, claim: str, literal: str
) -> None:
    """RFC 7519 section 2."""
    assert refusal(sign_with(signing_key, claim, literal)) == f"invalid_claim.{claim}"


def test_expiry_is_allowed_up_to_the_end_of_the_year_9999(authorize: Authorize, sign: Sign) -> None:
    assert authorize(sign(exp=253402300799))["context"]["exp"] == "253402300799"


# Time


def test_token_is_denied_from_the_second_of_its_expiry_on(refusal: Refusal, sign: Sign, now: int) -> None:
    """RFC 7519 section 4.1.4: a token must not be accepted on or after its exp."""
    assert refusal(sign(exp=now)) == "expired_token.exp"


def test_token_is_allowed_until_the_second_before_its_expiry(authorize: Authorize, sign: Sign, now: int) -> None:
    assert get_effect(authorize(sign(exp=now + 1))) == "Allow"


def test_token_expires_while_the_execution_environment_lives(
    monkeypatch: pytest.MonkeyPatch, authorize: Authorize, sign: Sign, now: int
) -> None:
    token = sign(exp=now + 600)
    before = authorize(token)
    monkeypatch.setattr(time, "time", lambda: now + 600.0)

    assert [get_effect(before), get_effect(authorize(token))] == ["Allow", "Deny"]


@pytest.mark.parametrize("claim", ["iat", "nbf"])
@pytest.mark.parametrize(
    ("options", "seconds"),
    [({}, 5), ({"CLOCK_SKEW_SECONDS": "0"}, 0)],
    ids=["default", "none"],
)
def test_token_from_a_clock_that_is_ahead_is_allowed_within_the_skew(
    *, authorize: Authorize, refusal: Refusal, sign: Sign, now: int, claim: str, seconds: int
) -> None:
    within: dict[str, Any] = {claim: now + seconds}
    beyond: dict[str, Any] = {claim: now + seconds + 1}

    assert get_effect(authorize(sign(**within))) == "Allow"
    assert refusal(sign(**beyond)) == f"invalid_claim.{claim}"


# Group


def build_groups(groups: object) -> dict[str, Any]:
    return {"cognito:groups": groups}


@pytest.mark.parametrize("options", [{"REQUIRED_GROUP": "members"}], ids=str)
@pytest.mark.parametrize("groups", [["members"], ["guests", "members"]], ids=str)
def test_member_of_the_required_group_is_allowed(authorize: Authorize, sign: Sign, groups: list[object]) -> None:
    assert get_effect(authorize(sign(**build_groups(groups)))) == "Allow"


@pytest.mark.parametrize("options", [{"REQUIRED_GROUP": "members"}], ids=str)
@pytest.mark.parametrize("groups", [None, ["guests"], "members"], ids=repr)
def test_user_who_is_not_in_the_required_group_is_denied(refusal: Refusal, sign: Sign, groups: object) -> None:
    assert refusal(sign(**build_groups(groups))) == "missing_group"


def test_group_is_checked_only_if_one_is_required(authorize: Authorize, sign: Sign) -> None:
    assert get_effect(authorize(sign())) == "Allow"
