"""The events that API Gateway hands to functions, in today's shape: what does not apply is absent, not null.

Shapes: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-integration-requests.html
and the REQUEST authorizer's page beside it; tests/events/ has an example of each.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from local.apigateway.api import Api
from local.ids import new_id, new_trace_id

Event = dict[str, Any]

# API Gateway writes the well-known names like this, whatever the client's spelling; others stay as sent.
CANONICAL_NAMES = {
    name.lower(): name
    for name in (
        "Accept-Encoding",
        "Accept-Language",
        "Authorization",
        "Cache-Control",
        "Cookie",
        "Host",
        "Origin",
        "Pragma",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "User-Agent",
        "X-Amzn-Trace-Id",
        "X-Forwarded-For",
        "X-Forwarded-Port",
        "X-Forwarded-Proto",
    )
}
TRACE_ROOT = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}\b")
HOP_BY_HOP = {"connection", "content-length", "upgrade"}


def milliseconds() -> int:
    return int(time.time() * 1000)


@dataclass
class Connection:
    """What the gateway knows of one client from the opening handshake on.

    Attributes:
        id: as in `@connections/{id}`.
        connected_at: Unix time in milliseconds.
        authorizer: what the authorizer said, flattened, without the handshake's integrationLatency.
    """

    api: Api
    source_ip: str
    user_agent: str | None
    id: str = field(default_factory=new_id)
    connected_at: int = field(default_factory=milliseconds)
    authorizer: dict[str, Any] | None = None

    @property
    def identity(self) -> dict[str, str]:
        """As in events and in GetConnection: what the client did not send is absent."""
        known = {"sourceIp": self.source_ip}
        return known if self.user_agent is None else {"userAgent": self.user_agent, **known}


@dataclass(frozen=True)
class Handshake:
    """The client's opening handshake request, headers in order and as sent."""

    target: str
    headers: tuple[tuple[str, str], ...]
    request_id: str = field(default_factory=new_id)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """The last value sent under the name, compared without case (RFC 9110 section 5.1)."""
        values = [value for sent, value in self.headers if sent.lower() == name.lower()]
        return values[-1] if values else None

    @property
    def parameters(self) -> list[tuple[str, str]]:
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    @cached_property
    def trace_root(self) -> str:
        """The client's own, else a new one."""
        match = TRACE_ROOT.search(self.header("X-Amzn-Trace-Id") or "")
        return match[0] if match else f"Root={new_trace_id()}"


def authorizer_event(connection: Connection, handshake: Handshake) -> Event:
    transport = [("Connection", "upgrade"), ("content-length", "0"), ("Upgrade", "websocket")]
    headers = sorted([*_client_headers(connection, handshake), *transport], key=lambda item: item[0].lower())
    return {
        "type": "REQUEST",
        "methodArn": f"{connection.api.arn}/$connect",
        **_maps("headers", "multiValueHeaders", headers),
        **_maps("queryStringParameters", "multiValueQueryStringParameters", handshake.parameters),
        "stageVariables": connection.api.stage_variables,
        "requestContext": _context(connection, "$connect", "CONNECT", handshake.request_id),
    }


def connect_event(connection: Connection, handshake: Handshake, *, latency: int | None) -> Event:
    """`latency` is the authorizer's, in milliseconds; None where the route has no authorizer."""
    context = _context(connection, "$connect", "CONNECT", handshake.request_id, authorizer=connection.authorizer)
    if latency is not None:
        context["authorizer"] = {**context["authorizer"], "integrationLatency": latency}
    event = _maps("headers", "multiValueHeaders", _client_headers(connection, handshake))
    if handshake.parameters:
        event |= _maps("queryStringParameters", "multiValueQueryStringParameters", handshake.parameters)
    return {**event, **_stage_variables(connection), "requestContext": context, "isBase64Encoded": False}


def message_event(connection: Connection, route_key: str, body: str) -> Event:
    context = _context(connection, route_key, "MESSAGE", new_id(), authorizer=connection.authorizer, messageId=new_id())
    return {**_stage_variables(connection), "requestContext": context, "body": body, "isBase64Encoded": False}


def disconnect_event(connection: Connection, *, code: int, reason: str) -> Event:
    stub = {"Host": connection.api.domain_name, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
    context = _context(
        connection,
        "$disconnect",
        "DISCONNECT",
        new_id(),
        authorizer=connection.authorizer,
        disconnectStatusCode=code,
        disconnectReason=reason,
    )
    headers = _maps("headers", "multiValueHeaders", stub.items())
    return {**headers, **_stage_variables(connection), "requestContext": context, "isBase64Encoded": False}


def _stage_variables(connection: Connection) -> Event:
    """Only where the stage has some."""
    return {"stageVariables": connection.api.stage_variables} if connection.api.stage_variables else {}


def _context(connection: Connection, route_key: str, event_type: str, request_id: str, **more: Any) -> Event:
    now = milliseconds()
    context = {
        "routeKey": route_key,
        **more,
        "eventType": event_type,
        "extendedRequestId": request_id,
        "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now / 1000)),
        "messageDirection": "IN",
        "stage": connection.api.stage,
        "connectedAt": connection.connected_at,
        "requestTimeEpoch": now,
        "identity": connection.identity,
        "requestId": request_id,
        "domainName": connection.api.domain_name,
        "connectionId": connection.id,
        "apiId": connection.api.id,
    }
    return {name: value for name, value in context.items() if value is not None}


def _client_headers(connection: Connection, handshake: Handshake) -> list[tuple[str, str]]:
    """What the client sent, named as API Gateway names it, with what API Gateway adds or replaces."""
    added = {
        "Host": connection.api.domain_name,
        "X-Amzn-Trace-Id": handshake.trace_root,
        "X-Forwarded-For": connection.source_ip,
        "X-Forwarded-Port": "443",
        "X-Forwarded-Proto": "https",
    }
    sent = [
        (CANONICAL_NAMES.get(name.lower(), name), value)
        for name, value in handshake.headers
        if name.lower() not in HOP_BY_HOP
    ]
    kept = [(name, value) for name, value in sent if name not in added]
    return sorted([*kept, *added.items()], key=lambda item: item[0].lower())


def _maps(single: str, multi: str, pairs: Iterable[tuple[str, str]]) -> Event:
    """Both spellings of a header or query map: the last value of each name, and all of them."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {single: {name: each[-1] for name, each in values.items()}, multi: values}
