"""What API Gateway decides, as functions without I/O: who may connect, which route, which answer.

Statuses and frames are those of AWS; ARCHITECTURE.md has the table with its sources.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from local.apigateway.api import Api, Authorizer, Route
from local.apigateway.events import Connection, Event, Handshake
from local.apigateway.limits import MAX_AUTHORIZER_RESULT_BYTES, MAX_MESSAGE_BYTES, MAX_URL_CHARACTERS
from local.aws import iam
from local.aws.iam import PolicyError, Statement
from local.errors import TemplateError
from local.lambda_.invocation import Invocation

IDENTITY_SOURCE = re.compile(
    r"route\.request\.(?P<part>header|querystring)\.(?P<name>.+)|(?P<map>stageVariables|context)\.(?P<path>.+)"
)
PROXY_RESPONSE_KEYS = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}

SUBPROTOCOL = "sec-websocket-protocol"
NO_PERMISSION = "Lambda.AccessDenied"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """An opening handshake that does not become a WebSocket."""

    status: int
    body: bytes
    error_type: str | None = None

    @classmethod
    def of(cls, status: HTTPStatus, message: str | None, error_type: str | None = None) -> Refusal:
        return cls(status, json.dumps({"message": message}, separators=(",", ":")).encode(), error_type)


def access_denied(message: str) -> Refusal:
    """Where AWS writes `Message` with a capital."""
    body = json.dumps({"Message": message}, separators=(",", ":")).encode()
    return Refusal(HTTPStatus.FORBIDDEN, body, "AccessDeniedException")


UNAUTHORIZED = Refusal.of(HTTPStatus.UNAUTHORIZED, "Unauthorized", "UnauthorizedException")
FORBIDDEN = Refusal.of(HTTPStatus.FORBIDDEN, "Forbidden", "ForbiddenException")
UPGRADE_REQUIRED = Refusal.of(HTTPStatus.UPGRADE_REQUIRED, "Upgrade Required")
AUTHORIZER_FAILED = Refusal.of(HTTPStatus.INTERNAL_SERVER_ERROR, None, "AuthorizerConfigurationException")
NOT_PERMITTED = Refusal.of(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error", "InternalServerErrorException")
TOO_MANY_REQUESTS = Refusal.of(HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", "TooManyRequestsException")
URL_TOO_LONG = Refusal.of(HTTPStatus.REQUEST_URI_TOO_LONG, "Request URI too long", "RequestUriTooLongException")
INTEGRATION_FAILED = Refusal.of(HTTPStatus.BAD_GATEWAY, "Internal server error", "InternalServerErrorException")
INTEGRATION_TIMED_OUT = Refusal.of(HTTPStatus.GATEWAY_TIMEOUT, "Endpoint request timed out", "GatewayTimeoutException")


def check(api: Api) -> None:
    """TemplateError for what this gateway could only get wrong, before the first client does."""
    for route in api.routes.values():
        for source in route.authorizer.identity_sources if route.authorizer else ():
            if not IDENTITY_SOURCE.fullmatch(source):
                raise TemplateError(f"identity source {source} cannot be evaluated locally")


def misdirected(api: Api, handshake: Handshake) -> Refusal | None:
    """The refusal of a handshake whose URL is too long or not the stage's."""
    if len(f"wss://{handshake.header('Host') or ''}{handshake.target}") > MAX_URL_CHARACTERS:
        return URL_TOO_LONG
    if not api.deployed or handshake.path not in {f"/{api.stage}", f"/{api.stage}/"}:
        return FORBIDDEN
    return None


def has_identity(authorizer: Authorizer, handshake: Handshake, event: Event) -> bool:
    """Every identity source must be there and not empty, or the authorizer is not even asked."""
    for source in authorizer.identity_sources:
        match = IDENTITY_SOURCE.fullmatch(source)
        assert match, source
        if match["part"] == "header":
            value: Any = handshake.header(match["name"])
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


def authorization(invocation: Invocation, method_arn: str) -> dict[str, Any] | Refusal:
    """The flat map that later events carry as `requestContext.authorizer`, or the refusal.

    The log says what is wrong with an answer that is not one.
    """
    if invocation.error is not None:
        return UNAUTHORIZED if invocation.message == "Unauthorized" else AUTHORIZER_FAILED
    try:
        principal_id, context, statements = parse_answer(invocation.answer)
    except PolicyError as error:
        logger.warning("the authorizer's answer is not valid: %s", error)
        return AUTHORIZER_FAILED
    effect = iam.effect(statements, "execute-api:Invoke", method_arn)
    if effect != "Allow":
        explicit = " with an explicit deny" if effect == "Deny" else ""
        return access_denied(f"User is not authorized to access this resource{explicit}")
    return {**context, "principalId": principal_id}


def parse_answer(answer: Any) -> tuple[str, dict[str, str | None], tuple[Statement, ...]]:
    """An authorizer's answer: principal, context and policy. PolicyError says what is wrong with it."""
    if not isinstance(answer, dict) or not isinstance(answer.get("principalId"), str):
        raise PolicyError("it needs a principalId, which is a string")
    if len(json.dumps(answer, ensure_ascii=False).encode()) > MAX_AUTHORIZER_RESULT_BYTES:
        raise PolicyError(f"it is larger than {MAX_AUTHORIZER_RESULT_BYTES} bytes")
    context = answer.get("context") or {}
    if not isinstance(context, dict):
        raise PolicyError("its context must be an object")
    values = {name: as_string(value) for name, value in context.items()}
    return answer["principalId"], values, iam.parse_policy(answer.get("policyDocument"))


def as_string(value: Any) -> str | None:
    """A context value as functions see it: `1` becomes "1", `true` "true"; null stays. PolicyError if it is nested."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise PolicyError("a value of its context must be a string, a number or a boolean")
    return json.dumps(value)


def connected(invocation: Invocation) -> dict[str, str] | Refusal:
    """The response headers that `$connect` may add to the 101, or the refusal."""
    if invocation.timed_out:
        return INTEGRATION_TIMED_OUT
    if invocation.error == NO_PERMISSION:
        return NOT_PERMITTED
    if invocation.error is not None or (fault := malformed(invocation.answer)):
        if invocation.error is None:
            logger.warning("the answer of $connect is not valid: %s", fault)
        return INTEGRATION_FAILED
    status = int(invocation.answer["statusCode"])
    if not 200 <= status < 300:
        return Refusal(status, text(invocation.answer).encode())
    multi = {name: values[-1] for name, values in (invocation.answer.get("multiValueHeaders") or {}).items() if values}
    headers = {**multi, **(invocation.answer.get("headers") or {})}
    chosen = [
        (name, str(value)) for name, value in headers.items() if name.lower() == SUBPROTOCOL and value is not None
    ]
    return dict(chosen[-1:])


def malformed(answer: Any) -> str | None:
    """What keeps an answer from being a proxy response; None if it is one."""
    return next(faults(answer), None)


def faults(answer: Any) -> Iterator[str]:
    if not isinstance(answer, dict):
        yield "it is no object"
        return
    if unknown := answer.keys() - PROXY_RESPONSE_KEYS:
        yield f"{', '.join(sorted(unknown))} is no part of a proxy response"
    status = answer.get("statusCode")
    if isinstance(status, bool) or not re.fullmatch(r"[2-9]\d\d", str(status)):
        yield f"statusCode is {json.dumps(status)}"
    if not isinstance(answer.get("body"), str | None):
        yield "body is no string"
    if not isinstance(answer.get("headers"), dict | None):
        yield "headers is no object"
    lists = answer.get("multiValueHeaders") or {}
    if not (isinstance(lists, dict) and all(isinstance(each, list) for each in lists.values())):
        yield "multiValueHeaders is no object of lists"
    try:
        text(answer)
    except ValueError:
        yield "body is no text in base64"


def text(answer: dict[str, Any]) -> str:
    """The body of a proxy response."""
    body = str(answer.get("body") or "")
    return base64.b64decode(body, validate=True).decode() if answer.get("isBase64Encoded") else body


def reply(invocation: Invocation, route: Route) -> str | None:
    """What a two-way route sends back, be it empty; None from a one-way route."""
    return text(invocation.answer) if route.two_way else None


def message_error(invocation: Invocation, route: Route) -> str | None:
    """What the client is told of a message's failed integration; None, as for any answer, is nothing."""
    if invocation.timed_out:
        return "Endpoint request timed out"
    if invocation.error is not None:
        return "Internal server error"
    if fault := malformed(invocation.answer) or (route.two_way and too_large(invocation.answer)):
        logger.warning("a function's answer is not valid: %s", fault)
        return "Internal server error"
    return None


def too_large(answer: dict[str, Any]) -> str | None:
    """What keeps a proxy response from being sent as a message; None if nothing does."""
    if len(text(answer).encode()) > MAX_MESSAGE_BYTES:
        return f"its body has over {MAX_MESSAGE_BYTES} bytes, the limit of a message"
    return None


def error_frame(message: str, connection: Connection, event: Event) -> str:
    """Byte for byte what AWS sends, its odd spacing included."""
    request_id = event["requestContext"]["requestId"]
    return f'{{"message": "{message}", "connectionId":"{connection.id}", "requestId":"{request_id}"}}'
