"""The errors that are retried, the delays of retries, and the explanations of other errors."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
)

from ops import errors
from ops.errors import OpsError, call_with_retries, choose_delay, explain, is_retryable

NETWORK: dict[str, Any] = {"endpoint_url": "https://example.com", "error": OSError("no route to host")}


def build_error(status: int, code: str, message: str = "text", operation: str = "PostToConnection") -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (build_error(429, "LimitExceededException"), True),
        (build_error(429, "TooManyRequestsException"), True),
        (build_error(429, ""), True),
        (build_error(400, "ThrottlingException"), True),
        (build_error(400, "ProvisionedThroughputExceededException"), True),
        (build_error(408, "Request Timeout"), True),
        (build_error(500, "InternalServerError"), True),
        (build_error(503, "ServiceUnavailable"), True),
        (EndpointConnectionError(**NETWORK), True),
        (ReadTimeoutError(**NETWORK), True),
        (build_error(400, "BadRequestException"), False),
        (build_error(400, "ConditionalCheckFailedException"), False),
        (build_error(400, "AccessDeniedException"), False),
        (build_error(403, "ForbiddenException"), False),
        (build_error(403, "ExpiredTokenException"), False),
        (build_error(404, "ResourceNotFoundException"), False),
        (build_error(410, "GoneException"), False),
        (build_error(413, "PayloadTooLargeException"), False),
        (SSLError(**NETWORK), False),
        (NoCredentialsError(), False),
        (ValueError("a fault of ours"), False),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_retry_decision(error: Exception, retried: bool) -> None:
    assert is_retryable(error) is retried


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the delays instead of waiting. Each is the longest that jitter allows."""
    recorded: list[float] = []
    monkeypatch.setattr(time, "sleep", recorded.append)
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    return recorded


def test_delays_grow_exponentially_up_to_a_limit(waits: list[float]) -> None:
    assert [choose_delay(attempt) for attempt in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_delays_have_full_jitter() -> None:
    random.seed(1)

    delays = [choose_delay(3) for _ in range(1000)]

    assert min(delays) < 0.01
    assert 0.79 < max(delays) <= 0.8


def test_call_is_retried_until_it_succeeds(waits: list[float]) -> None:
    answers = [build_error(429, ""), build_error(500, "")]

    def call(text: str) -> str:
        if answers:
            raise answers.pop()
        return text

    assert call_with_retries(call, "done") == "done"
    assert waits == [0.1, 0.2]


def test_last_error_is_raised(waits: list[float]) -> None:
    def call() -> None:
        raise build_error(429, "LimitExceededException")

    with pytest.raises(ClientError, match="LimitExceededException"):
        call_with_retries(call)
    assert len(waits) == errors.MAX_ATTEMPTS - 1


def test_error_that_stays_is_raised_at_once(waits: list[float]) -> None:
    def call() -> None:
        raise build_error(403, "AccessDeniedException")

    with pytest.raises(ClientError, match="AccessDenied"):
        call_with_retries(call)
    assert waits == []


SECRET = "IQoJb3JpZ2luX2VjEXAMPLE"
DENIAL = "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: dynamodb:Scan on resource: *"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OpsError("a reason"), "a reason"),
        (NoCredentialsError(), "there are no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or pass --profile"),
        (NoRegionError(), "no region is set: pass --region, or set AWS_REGION or a region in the profile"),
        (
            EndpointConnectionError(**NETWORK),
            'Could not connect to the endpoint URL: "https://example.com" (no route to host)',
        ),
        (ProfileNotFound(profile="prod"), "The config profile (prod) could not be found"),
        (
            build_error(400, "AccessDeniedException", DENIAL, "Scan"),
            f"Scan was denied: {DENIAL}; your role needs the policy in the stack's output OperatorPolicyArn",
        ),
        (
            build_error(403, "Forbidden", "Forbidden"),
            "PostToConnection was denied: Forbidden; your role needs the policy in the stack's output OperatorPolicyArn",
        ),
        (
            build_error(403, "ExpiredTokenException"),
            "PostToConnection failed: the AWS credentials have expired; sign in again, for example by `aws sso login`",
        ),
        (
            build_error(400, "UnrecognizedClientException", operation="Query"),
            "Query failed: AWS does not know the access key; check AWS_PROFILE or --profile",
        ),
        (
            build_error(403, "InvalidSignatureException", f"…\nx-amz-security-token:{SECRET}"),
            "PostToConnection failed: AWS refuses the signature; check the secret access key and this machine's clock",
        ),
        (
            build_error(400, "ResourceNotFoundException", "Requested resource not found", "Scan"),
            "Scan failed: ResourceNotFoundException: Requested resource not found",
        ),
        (
            build_error(400, "Strange", f"first\x1b[31m line\n{SECRET}"),
            "PostToConnection failed: Strange: first[31m line",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_explanation_is_one_line_without_secrets(error: Exception, line: str) -> None:
    assert explain(error) == line
