"""Decides what API Gateway decides about handshakes and messages, without I/O.

Statuses and frames are those of AWS. docs/api-gateway.md lists them with their sources.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from local.apigateway.api import IDENTITY_SOURCE, Api, Authorizer, Route
from local.apigateway.events import Connection, Event, Handshake
from local.apigateway.limits import MAX_AUTHORIZER_RESULT_BYTES, MAX_MESSAGE_BYTES, MAX_URL_CHARACTERS
from local.aws import iam
from local.aws.iam import PolicyError, Statement
from local.lambda_.invocation import InvocationResult

PROXY_RESPONSE_KEYS = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
STATUS_CODE = re.compile(r"[2-5][0-9]{2}")
SUBPROTOCOL = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # a token of RFC 9110 section 5.6.2
NO_PERMISSION = "Lambda.AccessDenied"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """The answer to a handshake, or to a call of `@connections`, that is refused.

    Attributes:
        reason: shown to the user of the local run; no client gets it.
        effect: the effect of the authorizer's policy, if the policy is the reason.
    """

    status: int
    body: bytes
    error_type: str | None = None
    reason: str = field(default="", compare=False)
    effect: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, status: HTTPStatus, message: str | None, error_type: str | None = None) -> Refusal:
        return cls(status, json.dumps({"message": message}, separators=(",", ":")).encode(), error_type)


def add_reason(reason: str, refusal: Refusal, effect: str | None = None) -> Refusal:
    """Return a copy of the refusal with a reason, and with the effect of the authorizer's policy if that is the reason."""
    return dataclasses.replace(refusal, reason=reason, effect=effect)


def build_access_denied(message: str) -> Refusal:
    """Return a refusal by IAM. AWS writes `Message` with a capital letter in it."""
    body = json.dumps({"Message": message}, separators=(",", ":")).encode()
    return Refusal(HTTPStatus.FORBIDDEN, body, "AccessDeniedException")


BAD_REQUEST = Refusal.of(HTTPStatus.BAD_REQUEST, "Bad Request", "BadRequestException")
UNAUTHORIZED = Refusal.of(HTTPStatus.UNAUTHORIZED, "Unauthorized", "UnauthorizedException")
FORBIDDEN = Refusal.of(HTTPStatus.FORBIDDEN, "Forbidden", "ForbiddenException")
UPGRADE_REQUIRED = Refusal.of(HTTPStatus.UPGRADE_REQUIRED, "Upgrade Required")
AUTHORIZER_FAILED = Refusal.of(HTTPStatus.INTERNAL_SERVER_ERROR, None, "AuthorizerConfigurationException")
INTERNAL_ERROR = Refusal.of(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error", "InternalServerErrorException")
TOO_MANY_REQUESTS = Refusal.of(HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", "TooManyRequestsException")
URL_TOO_LONG = Refusal.of(HTTPStatus.REQUEST_URI_TOO_LONG, "Request URI too long", "RequestUriTooLongException")
INTEGRATION_FAILED = Refusal.of(HTTPStatus.BAD_GATEWAY, "Internal server error", "InternalServerErrorException")
INTEGRATION_TIMED_OUT = Refusal.of(HTTPStatus.GATEWAY_TIMEOUT, "Endpoint request timed out", "GatewayTimeoutException")


# The opening handshake


def check_request(api: Api, handshake: Handshake) -> Refusal | None:
    """Return a refusal if the handshake has not exactly one Host header, too long a URL, or the path of another stage."""
    if sum(name.lower() == "host" for name, _ in handshake.headers) != 1:
        return add_reason("it must have one Host header", BAD_REQUEST)
    if len(f"wss://{handshake.get_header('Host')}{handshake.target}") > MAX_URL_CHARACTERS:
        return URL_TOO_LONG
    if not api.deployed or handshake.path not in {f"/{api.stage}", f"/{api.stage}/"}:
        reason = f"its path is not /{api.stage}" if api.deployed else "the stage has no deployment"
        return add_reason(reason, FORBIDDEN)
    return None


def has_identity(authorizer: Authorizer, handshake: Handshake, event: Event) -> bool:
    """Return whether every identity source has a value. Without one, API Gateway does not invoke the authorizer."""
    for source in authorizer.identity_sources:
        match = IDENTITY_SOURCE.fullmatch(source)
        assert match, source
        if match["part"] == "header":
            value: Any = handshake.get_header(match["name"])
        elif match["part"] == "querystring":
            value = dict(handshake.parameters).get(match["name"])
        elif match["map"] == "stageVariables":
            value = event["stageVariables"].get(match["path"])
        else:
            value = event["requestContext"]
            for name in match["path"].split("."):
                value = value.get(name) if isinstance(value, dict) else None
        if not value:
            return False
    return True


def evaluate_authorizer(result: InvocationResult, method_arn: str) -> dict[str, Any] | Refusal:
    """Return `requestContext.authorizer` for later events, or the refusal. Log why an answer is not valid."""
    if result.error is not None:
        if result.message == "Unauthorized":
            return add_reason("the authorizer raised Unauthorized", UNAUTHORIZED)
        return add_reason(f"the authorizer failed: {result.error}", AUTHORIZER_FAILED)
    try:
        principal_id, context, statements = parse_authorizer_answer(result.answer)
    except PolicyError as error:
        logger.warning("the authorizer's answer is not valid: %s", error)
        return add_reason("the authorizer's answer is not valid", AUTHORIZER_FAILED)
    effect = iam.evaluate(statements, "execute-api:Invoke", method_arn)
    if effect != "Allow":
        explicit = " with an explicit deny" if effect == "Deny" else ""
        refusal = build_access_denied(f"User is not authorized to access this resource{explicit}")
        reason = "the authorizer denied" if explicit else "the authorizer's policy does not allow it"
        return add_reason(reason, refusal, effect or "implicit deny")
    return {**context, "principalId": principal_id}


def parse_authorizer_answer(answer: Any) -> tuple[str, dict[str, str | None], tuple[Statement, ...]]:
    """Return principalId, context and policy. Raise PolicyError if one of them is not valid."""
    if not isinstance(answer, dict) or not isinstance(answer.get("principalId"), str):
        raise PolicyError("principalId must be a string")
    context = answer.get("context") or {}
    if not isinstance(context, dict) or any(isinstance(value, dict | list) for value in context.values()):
        raise PolicyError("context must be an object, and its values strings, numbers or booleans")
    statements = iam.parse_policy(answer.get("policyDocument"))
    try:
        size = len(json.dumps(answer, ensure_ascii=False).encode())
    except (UnicodeEncodeError, RecursionError) as error:  # a lone surrogate such as "\ud83d", or deep nesting
        raise PolicyError(f"it cannot be written as JSON in UTF-8: {error}") from error
    if size > MAX_AUTHORIZER_RESULT_BYTES:
        raise PolicyError(f"it has {size} bytes, and the limit is {MAX_AUTHORIZER_RESULT_BYTES}")
    return answer["principalId"], {name: to_text(value) for name, value in context.items()}, statements


def to_text(value: str | float | None) -> str | None:
    """Return the value as the text that API Gateway passes on: `1` becomes "1", `true` becomes "true", null stays."""
    return value if isinstance(value, str | None) else json.dumps(value)


def evaluate_connect(result: InvocationResult) -> str | Refusal | None:
    """Return the subprotocol that `$connect` selects, None for no subprotocol, or the refusal."""
    if result.timed_out:
        return add_reason("$connect timed out", INTEGRATION_TIMED_OUT)
    if result.error is not None:
        refusal = INTERNAL_ERROR if result.error == NO_PERMISSION else INTEGRATION_FAILED
        return add_reason(f"$connect failed: {result.error}", refusal)
    try:
        response = ProxyResponse.parse(result.answer)
        if not 200 <= response.status < 300:
            return Refusal(response.status, response.encode_body(), reason=f"$connect answered {response.status}")
        return response.find_subprotocol()
    except ProxyResponseError as error:
        logger.warning("the answer of $connect is not valid: %s", error)
        return add_reason("the answer of $connect is not valid", INTEGRATION_FAILED)


# Messages


class IntegrationError(Exception):
    """The integration of a message failed. The exception's message is sent to the client.

    Attributes:
        reason: shown to the user of the local run.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def evaluate_reply(result: InvocationResult, route: Route) -> bytes | None:
    """Return the message that a two-way route sends back; None for a one-way route.

    Raises:
        IntegrationError: the function failed, or its answer is not valid.
    """
    if result.timed_out:
        raise IntegrationError("Endpoint request timed out", "the function timed out")
    if result.error is not None:
        raise IntegrationError("Internal server error", f"the function failed: {result.error}")
    try:
        response = ProxyResponse.parse(result.answer)
        return response.encode_body() if route.two_way else None
    except ProxyResponseError as error:
        logger.warning("the answer of route %s is not valid: %s", route.key, error)
        raise IntegrationError("Internal server error", f"the answer is not valid: {error}") from error


def format_error_frame(message: str, connection: Connection, event: Event) -> str:
    """Return the error frame that AWS sends, byte for byte: the irregular spacing is AWS's."""
    request_id = event["requestContext"]["requestId"]
    return f'{{"message": "{message}", "connectionId":"{connection.id}", "requestId":"{request_id}"}}'


# Answers of functions


class ProxyResponseError(ValueError):
    """A function's answer is not a proxy response, or its body cannot be sent. The message says why."""


@dataclass(frozen=True)
class ProxyResponse:
    """A function's answer, parsed and with its body decoded.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
    """

    status: int
    headers: list[tuple[str, str]]
    body: str

    @classmethod
    def parse(cls, answer: Any) -> ProxyResponse:
        """Parse an answer. Raise ProxyResponseError if API Gateway would call it malformed."""
        if not isinstance(answer, dict):
            raise ProxyResponseError("it must be an object")
        if unknown := answer.keys() - PROXY_RESPONSE_KEYS:
            raise ProxyResponseError(f"{json.dumps(min(unknown))[:100]} is not a member of a proxy response")
        status = answer.get("statusCode")
        if not isinstance(status, int | str) or isinstance(status, bool) or not STATUS_CODE.fullmatch(str(status)):
            raise ProxyResponseError("statusCode must be a number from 200 to 599")
        return cls(int(status), parse_headers(answer), decode_body(answer))

    def find_subprotocol(self) -> str | None:
        """Return the subprotocol for the 101; API Gateway drops all other headers. Raise ProxyResponseError if it is no token."""
        values = [value for name, value in self.headers if name.lower() == "sec-websocket-protocol"]
        if values and not SUBPROTOCOL.fullmatch(values[-1]):
            raise ProxyResponseError("header Sec-WebSocket-Protocol must be one subprotocol, a token of RFC 9110")
        return values[-1] if values else None

    def encode_body(self) -> bytes:
        """Return the body in UTF-8. Raise ProxyResponseError if it cannot be sent."""
        try:
            data = self.body.encode()
        except UnicodeEncodeError as error:  # a lone surrogate such as "\ud83d"
            raise ProxyResponseError(f"body cannot be written in UTF-8: {error}") from error
        if len(data) > MAX_MESSAGE_BYTES:
            raise ProxyResponseError(f"body has {len(data)} bytes, and the limit of a message is {MAX_MESSAGE_BYTES}")
        return data


def parse_headers(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values of `multiValueHeaders`, then those of `headers`, without nulls."""
    single, multi = answer.get("headers"), answer.get("multiValueHeaders")
    if not isinstance(single, dict | None):
        raise ProxyResponseError("headers must be an object")
    if not isinstance(multi, dict | None) or not all(isinstance(values, list) for values in (multi or {}).values()):
        raise ProxyResponseError("multiValueHeaders must be an object of lists")
    headers = [(name, value) for name, values in (multi or {}).items() for value in values] + list(
        (single or {}).items()
    )
    if any(isinstance(value, dict | list) for _, value in headers):
        raise ProxyResponseError("the value of a header must be a string, a number or a boolean")
    return [(name, text) for name, value in headers if (text := to_text(value)) is not None]


def decode_body(answer: dict[str, Any]) -> str:
    body = answer.get("body")
    if not isinstance(body, str | None):
        raise ProxyResponseError("body must be a string")
    if not body or not answer.get("isBase64Encoded"):
        return body or ""
    try:
        return base64.b64decode(body, validate=True).decode()
    except ValueError as error:
        raise ProxyResponseError("body must be text in base64, because isBase64Encoded is set") from error
