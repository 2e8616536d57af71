"""Which claims the authorizer requires of an ID token, and when the token is valid."""

from __future__ import annotations

import json
import time
from itertools import product
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from benchmarks.user_pool import APP_CLIENT_ID, ISSUER, SUB, cognito_claims
from tests.fixtures.functions import Authorize, Refusal, effect
from tests.fixtures.tokens import Sign, json_with, rs256

RS256 = {"kid": "signing1example=", "alg": "RS256"}


# Text


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
        ("sub", "a" * 256, "invalid_claim.sub"),
        ("sub", "zoë", "invalid_claim.sub"),
        ("sub", "ada\n", "invalid_claim.sub"),
        ("sub", "ada\x7f", "invalid_claim.sub"),
        ("sub", [SUB], "invalid_claim.sub"),
        ("sub", None, "missing_claim.sub"),
        ("exp", None, "missing_claim.exp"),
    ],
)
def test_token_with_one_wrong_claim_is_denied(
    refusal: Refusal, sign: Sign, claim: str, value: Any, reason: str
) -> None:
    assert refusal(sign(**{claim: value})) == reason


@pytest.mark.parametrize("sub", ["a", "a" * 255, " ~"], ids=["shortest", "longest", "first and last character"])
def test_subject_is_up_to_255_characters_of_ascii(authorize: Authorize, sign: Sign, sub: str) -> None:
    """OpenID Connect Core 1.0 section 2."""
    answer = authorize(sign(sub=sub))

    assert (answer["principalId"], answer["context"]["userId"]) == (sub, sub)


@pytest.mark.parametrize("claims", [{"zoneinfo": "Mars"}, {"admin": True}, {"cognito:groups": "none"}], ids=str)
def test_other_claims_change_nothing(authorize: Authorize, sign: Sign, claims: dict[str, Any]) -> None:
    assert effect(authorize(sign(**claims))) == "Allow"


# Numeric dates


def signed_with(key: RSAKey, claim: str, literal: str) -> str:
    """Return an ID token whose claim is exactly this JSON."""
    payload = json_with({claim: "the literal"}, cognito_claims())
    return rs256(key, json.dumps(RS256), payload.replace('"the literal"', literal))


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf", "auth_time"])
@pytest.mark.parametrize(
    "literal",
    ["true", "false", '"4102444800"', "[4102444800]", "{}", "1e400", "253402300800", f"1{'0' * 400}"],
    ids=["true", "false", "text", "array", "object", "beyond a float", "year 10000", "long"],
)
def test_time_that_is_no_numeric_date_is_denied(
    refusal: Refusal, signing_key: RSAKey, claim: str, literal: str
) -> None:
    """RFC 7519 section 2: a NumericDate is a number of seconds."""
    assert refusal(signed_with(signing_key, claim, literal)) == f"invalid_claim.{claim}"


@pytest.mark.parametrize(
    ("claim", "literal"),
    [("exp", "-1"), ("exp", "-1e308"), *product(["iat", "nbf", "auth_time"], ["-1", "null"])],
)
def test_time_before_1970_or_null_is_denied(refusal: Refusal, signing_key: RSAKey, claim: str, literal: str) -> None:
    assert refusal(signed_with(signing_key, claim, literal)) == f"invalid_claim.{claim}"


def test_expiry_is_allowed_up_to_the_end_of_the_year_9999(authorize: Authorize, sign: Sign) -> None:
    assert authorize(sign(exp=253402300799))["context"]["exp"] == "253402300799"


# Time


@pytest.mark.parametrize("exp", [0, -1, -60, -1_000_000_000, 0.5], ids=str)
def test_token_is_denied_from_the_second_of_its_expiry_on(refusal: Refusal, sign: Sign, now: int, exp: float) -> None:
    """RFC 7519 section 4.1.4: a token must not be accepted on or after its exp."""
    assert refusal(sign(exp=now + exp)) == "expired_token.exp"


def test_token_is_allowed_until_the_second_before_its_expiry(authorize: Authorize, sign: Sign, now: int) -> None:
    assert effect(authorize(sign(exp=now + 1))) == "Allow"


def test_token_expires_while_the_execution_environment_lives(
    monkeypatch: pytest.MonkeyPatch, authorize: Authorize, sign: Sign, now: int
) -> None:
    token = sign(exp=now + 600)
    before = authorize(token)
    monkeypatch.setattr(time, "time", lambda: now + 600.0)

    assert [effect(before), effect(authorize(token))] == ["Allow", "Deny"]


@pytest.mark.parametrize("claim", ["iat", "nbf"])
@pytest.mark.parametrize(
    ("options", "seconds"),
    [({}, 5), ({"CLOCK_SKEW_SECONDS": "5"}, 5), ({"CLOCK_SKEW_SECONDS": "2"}, 2), ({"CLOCK_SKEW_SECONDS": "0"}, 0)],
    ids=["default", "5", "2", "0"],
)
def test_token_from_a_clock_that_is_ahead_is_allowed_within_the_skew(
    authorize: Authorize, sign: Sign, now: int, claim: str, seconds: int
) -> None:
    within: dict[str, Any] = {claim: now + seconds}
    beyond: dict[str, Any] = {claim: now + seconds + 1}

    assert effect(authorize(sign(**within))) == "Allow"
    assert effect(authorize(sign(**beyond))) == "Deny"


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_token_from_the_future_is_denied(refusal: Refusal, sign: Sign, claim: str) -> None:
    changes: dict[str, Any] = {claim: int(time.time()) + 60}

    assert refusal(sign(**changes)) == f"invalid_claim.{claim}"


@pytest.mark.parametrize("options", [{"CLOCK_SKEW_SECONDS": "5"}, {"CLOCK_SKEW_SECONDS": "0"}], ids=str)
def test_skew_does_not_make_a_token_last_longer(refusal: Refusal, sign: Sign, now: int) -> None:
    assert refusal(sign(exp=now)) == "expired_token.exp"


# Group


def in_groups(groups: object) -> dict[str, Any]:
    return {"cognito:groups": groups}


@pytest.mark.parametrize("options", [{"REQUIRED_GROUP": "members"}], ids=str)
@pytest.mark.parametrize("groups", [["members"], ["guests", "members"], ["members", 1, None]], ids=str)
def test_member_of_the_required_group_is_allowed(authorize: Authorize, sign: Sign, groups: list[object]) -> None:
    assert effect(authorize(sign(**in_groups(groups)))) == "Allow"


@pytest.mark.parametrize("options", [{"REQUIRED_GROUP": "members"}], ids=str)
@pytest.mark.parametrize(
    "groups",
    [None, [], ["guests"], ["Members"], ["members "], ["members,guests"], [["members"]], "members", {"members": 1}, 1],
    ids=repr,
)
def test_user_who_is_not_in_the_required_group_is_denied(refusal: Refusal, sign: Sign, groups: object) -> None:
    assert refusal(sign(**in_groups(groups))) == "missing_group"


@pytest.mark.parametrize("options", [{}, {"REQUIRED_GROUP": ""}], ids=["unset", "empty"])
def test_group_is_checked_only_if_one_is_required(authorize: Authorize, sign: Sign) -> None:
    assert effect(authorize(sign())) == "Allow"
