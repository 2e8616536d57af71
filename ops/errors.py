"""Retry calls that may succeed later, and explain other errors to the operator."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    SSLError,
)
from botocore.exceptions import ConnectionError as EndpointError

MAX_ATTEMPTS = 8
FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0
THROTTLED = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
EXPIRED = {"ExpiredToken", "ExpiredTokenException"}
UNKNOWN_KEY = {"InvalidClientTokenId", "UnrecognizedClientException"}
WRONG_SIGNATURE = {"IncompleteSignature", "InvalidSignatureException", "SignatureDoesNotMatch"}
DENIED = {"AccessDenied", "AccessDeniedException", "ForbiddenException"}

Answer = TypeVar("Answer")


class OpsError(Exception):
    """An operation cannot be carried out. The message says why, and what to do next."""


def read_code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))


def read_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_retryable(error: Exception) -> bool:
    """Return whether the same call may succeed later: after throttling, a fault of the service, or a network error."""
    if isinstance(error, ClientError):
        status = read_status(error)
        return status in {408, 429} or status >= 500 or read_code(error) in THROTTLED
    return isinstance(error, EndpointError | HTTPClientError) and not isinstance(error, SSLError)


def choose_delay(attempt: int) -> float:
    """Return how long to wait after this attempt: exponential backoff with full jitter."""
    return random.uniform(0, min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**attempt))  # noqa: S311 - no secret


def call_with_retries(call: Callable[..., Answer], *arguments: Any, **parameters: Any) -> Answer:
    """Make a call, and retry it while its error is retryable, in at most MAX_ATTEMPTS attempts.

    The SDK also retries, but gives up sooner.
    """
    for attempt in range(MAX_ATTEMPTS - 1):
        try:
            return call(*arguments, **parameters)
        except (ClientError, BotoCoreError) as error:
            if not is_retryable(error):
                raise
            time.sleep(choose_delay(attempt))
    return call(*arguments, **parameters)


def explain(error: Exception) -> str:
    """Return one line that says what failed, why, and what to do next, without a signature or a session token."""
    match error:
        case ClientError():
            return explain_client_error(error)
        case NoCredentialsError():
            return "there are no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or pass --profile"
        case NoRegionError():
            return "no region is set: pass --region, or set AWS_REGION or a region in the profile"
        case OSError(strerror=str(what)):
            return f"cannot go on: {what}"
    reason = getattr(error, "kwargs", {}).get("error")  # botocore leaves it out of the messages of network errors
    return clean(" ".join(f"{error}".split()) + (f" ({reason})" if reason else "")) or type(error).__name__


def explain_client_error(error: ClientError) -> str:
    """Return one line about an error that AWS answered."""
    code, operation = read_code(error), error.operation_name
    if code in EXPIRED:
        return f"{operation} failed: the AWS credentials have expired; sign in again, for example by `aws sso login`"
    if code in UNKNOWN_KEY:
        return f"{operation} failed: AWS does not know the access key; check AWS_PROFILE or --profile"
    if code in WRONG_SIGNATURE:  # AWS's message contains the signed headers, and so the session token
        return f"{operation} failed: AWS refuses the signature; check the secret access key and this machine's clock"
    message = clean(error.response["Error"].get("Message") or f"status {read_status(error)}")
    if code in DENIED or read_status(error) == 403:
        return f"{operation} was denied: {message}; your role needs the policy in the stack's output OperatorPolicyArn"
    return f"{operation} failed: {code}: {message}"


def clean(text: str, length: int = 500) -> str:
    """Return the printable characters of the first line, because others could control a terminal."""
    line = next(iter(text.strip().splitlines()), "")
    return "".join(character for character in line if character.isprintable())[:length]
