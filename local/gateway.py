"""What API Gateway decides, as functions without I/O: who may connect, which route, which answer.

Statuses and frames are those of AWS; ARCHITECTURE.md has the table with its sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any

from local.events import Connection, Event, Handshake
from local.template import Api, Authorizer, TemplateError

MAX_MESSAGE_BYTES = 128 * 1024
MAX_FRAME_BYTES = 32 * 1024
INTEGRATION_TIMEOUT_SECONDS = 29.0

IDENTITY_SOURCE = re.compile(r"route\.request\.(?P<where>header|querystring)\.(?P<name>.+)")
BODY_SELECTION = re.compile(r"\$request\.body((?:\.\w+)+)")
# Strings are matched to be passed over; nothing is ever read twice, or a client could keep the gateway busy.
BARE_NAME = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)|(?<![\w$])([A-Za-z_$][\w$]*+)(?=\s*:)', re.DOTALL)
PROXY_RESPONSE_KEYS = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}


@dataclass(frozen=True)
class Invocation:
    """What came of invoking a function: its answer, or why there is none.

    Attributes:
        error: the error's type, e.g. `KeyError` or `Sandbox.Timedout`; None for an answer.
        message: the error's message.
    """

    answer: Any = None
    error: str | None = None
    message: str = ""

    @property
    def timed_out(self) -> bool:
        return self.error == "Sandbox.Timedout"


@dataclass(frozen=True)
class Refusal:
    """An opening handshake that does not become a WebSocket."""

    status: int
    body: bytes
    error_type: str | None = None

    @classmethod
    def of(cls, status: HTTPStatus, message: str | None, error_type: str | None = None) -> Refusal:
        return cls(status, json.dumps({"message": message}, separators=(",", ":")).encode(), error_type)


UNAUTHORIZED = Refusal.of(HTTPStatus.UNAUTHORIZED, "Unauthorized", "UnauthorizedException")
FORBIDDEN = Refusal.of(HTTPStatus.FORBIDDEN, "Forbidden", "ForbiddenException")
UPGRADE_REQUIRED = Refusal.of(HTTPStatus.UPGRADE_REQUIRED, "Upgrade Required")
AUTHORIZER_FAILED = Refusal.of(HTTPStatus.INTERNAL_SERVER_ERROR, None, "AuthorizerConfigurationException")
INTEGRATION_FAILED = Refusal.of(HTTPStatus.BAD_GATEWAY, "Internal server error", "InternalServerErrorException")
INTEGRATION_TIMED_OUT = Refusal.of(HTTPStatus.GATEWAY_TIMEOUT, "Endpoint request timed out", "GatewayTimeoutException")


def check(api: Api) -> None:
    """TemplateError for what this gateway could only get wrong, before the first client does."""
    if not BODY_SELECTION.fullmatch(api.route_selection_expression):
        raise TemplateError(f"RouteSelectionExpression {api.route_selection_expression} cannot be evaluated locally")
    for route in api.routes.values():
        for source in route.authorizer.identity_sources if route.authorizer else ():
            if not IDENTITY_SOURCE.fullmatch(source):
                raise TemplateError(f"identity source {source} cannot be evaluated locally")


def is_stage(api: Api, path: str) -> bool:
    return path in {f"/{api.stage}", f"/{api.stage}/"}


def has_identity(authorizer: Authorizer, handshake: Handshake) -> bool:
    """Every identity source must be there and not empty, or the authorizer is not even asked."""
    for source in authorizer.identity_sources:
        match = IDENTITY_SOURCE.fullmatch(source)
        assert match, source
        if match["where"] == "header":
            value = handshake.header(match["name"])
        else:
            value = dict(handshake.parameters).get(match["name"])
        if not value:
            return False
    return True


def authorization(invocation: Invocation, method_arn: str) -> dict[str, Any] | Refusal:
    """The flat map that later events carry as `requestContext.authorizer`, or the refusal."""
    if invocation.error is not None:
        return UNAUTHORIZED if invocation.message == "Unauthorized" else AUTHORIZER_FAILED
    answer = invocation.answer
    try:
        principal_id, statements = answer["principalId"], answer["policyDocument"]["Statement"]
        values = {name: as_string(value) for name, value in (answer.get("context") or {}).items()}
        effect = effect_of(statements, method_arn)
    except (AttributeError, KeyError, TypeError):
        return AUTHORIZER_FAILED
    if not isinstance(principal_id, str):
        return AUTHORIZER_FAILED
    if effect != "Allow":
        explicit = " with an explicit deny" if effect == "Deny" else ""
        message = f"User is not authorized to access this resource{explicit}"
        body = json.dumps({"Message": message}, separators=(",", ":")).encode()
        return Refusal(HTTPStatus.FORBIDDEN, body, "AccessDeniedException")
    return {**values, "principalId": principal_id}


def effect_of(statements: Any, method_arn: str) -> str | None:
    """`Deny` if any statement that covers the method denies it, else `Allow` if one does, else None."""
    effects = {
        statement["Effect"]
        for statement in as_list(statements)
        if covers(as_list(statement["Action"]), "execute-api:Invoke")
        and covers(as_list(statement["Resource"]), method_arn)
    }
    return next((effect for effect in ("Deny", "Allow") if effect in effects), None)


def covers(patterns: Iterable[str], value: str) -> bool:
    """IAM's wildcards: `*` is any characters, slashes included, `?` is one."""
    return any(fnmatchcase(value, pattern.replace("[", "[[]")) for pattern in patterns)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def as_string(value: Any) -> str | None:
    """A context value as functions see it: `1` becomes "1", `true` "true"; null stays. TypeError if it is nested."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise TypeError("a context value is a string, a number or a boolean")
    return json.dumps(value)


def connected(invocation: Invocation) -> dict[str, str] | Refusal:
    """The response headers that `$connect` may add to the 101, or the refusal."""
    if invocation.timed_out:
        return INTEGRATION_TIMED_OUT
    if invocation.error is not None or not is_proxy_response(invocation.answer):
        return INTEGRATION_FAILED
    status = int(invocation.answer["statusCode"])
    if not 200 <= status < 300:
        return Refusal(status, str(invocation.answer.get("body") or "").encode())
    headers = invocation.answer.get("headers") or {}
    return {name: str(value) for name, value in headers.items() if name.lower() == "sec-websocket-protocol"}


def is_proxy_response(answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and answer.keys() <= PROXY_RESPONSE_KEYS
        and isinstance(answer.get("headers"), dict | None)
        and str(answer.get("statusCode", "")).isdecimal()
    )


def route_key(api: Api, body: str) -> str | None:
    """The route that a message selects: an exact match, else `$default`, else None."""
    match = BODY_SELECTION.fullmatch(api.route_selection_expression)
    assert match, api.route_selection_expression
    try:
        value = lenient_json(body)
        for name in match[1].split(".")[1:]:
            value = value[name]
        key = selected(value)
    except (ValueError, LookupError, TypeError, RecursionError):
        key = None
    if key is not None and not key.startswith("$") and key in api.routes:
        return key
    return "$default" if "$default" in api.routes else None


def lenient_json(text: str) -> Any:
    """API Gateway also reads JSON whose member names are not quoted, `{action: "send"}`. ValueError if not even that."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(BARE_NAME.sub(lambda match: f'"{match[1]}"' if match[1] else match[0], text))


def selected(value: Any) -> str | None:
    """A route selection value: an array becomes `[item1, item2]`."""
    if isinstance(value, list):
        return f"[{', '.join(str(as_string(item)) for item in value)}]"
    return as_string(value)


def message_error(invocation: Invocation) -> str | None:
    """What the client is told of a message's failed integration; None, as for any answer, is nothing."""
    if invocation.timed_out:
        return "Endpoint request timed out"
    if invocation.error is not None or not is_proxy_response(invocation.answer):
        return "Internal server error"
    return None


def error_frame(message: str, connection: Connection, event: Event) -> str:
    """Byte for byte what AWS sends, its odd spacing included."""
    request_id = event["requestContext"]["requestId"]
    return f'{{"message": "{message}", "connectionId":"{connection.id}", "requestId":"{request_id}"}}'
