"""Builds the events that API Gateway passes to functions. A field that does not apply is absent, not null.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-integration-requests.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html
tests/events/ has an example of each.
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
from local.ids import make_id, make_trace_id

Event = dict[str, Any]

# API Gateway changes the names of well-known headers to this spelling, and keeps the spelling of all others.
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


def get_unix_milliseconds() -> int:
    return int(time.time() * 1000)


@dataclass
class Connection:
    """A client's connection, from the opening handshake on.

    Attributes:
        id: the connection id, as in `@connections/{id}`.
        connected_at: Unix time in milliseconds.
        authorizer: the authorizer's context and principalId; None without an authorizer.
    """

    source_ip: str
    user_agent: str | None
    id: str = field(default_factory=make_id)
    connected_at: int = field(default_factory=get_unix_milliseconds)
    authorizer: dict[str, Any] | None = None

    @property
    def identity(self) -> dict[str, str]:
        """The object `identity` of events and of GetConnection."""
        source = {"sourceIp": self.source_ip}
        return source if self.user_agent is None else {"userAgent": self.user_agent, **source}


@dataclass(frozen=True)
class Handshake:
    """A client's opening handshake request. The headers keep the client's order and spelling."""

    target: str
    headers: tuple[tuple[str, str], ...]
    request_id: str = field(default_factory=make_id)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def get_header(self, name: str) -> str | None:
        """Return the header's last value. Names are compared without case (RFC 9110 section 5.1)."""
        values = [value for sent, value in self.headers if sent.lower() == name.lower()]
        return values[-1] if values else None

    @property
    def parameters(self) -> list[tuple[str, str]]:
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    @cached_property
    def trace_root(self) -> str:
        """The trace root of the header X-Amzn-Trace-Id; without such a header, a new one."""
        match = TRACE_ROOT.search(self.get_header("X-Amzn-Trace-Id") or "")
        return match[0] if match else f"Root={make_trace_id()}"


def build_authorizer_event(api: Api, connection: Connection, handshake: Handshake) -> Event:
    hop_by_hop = [("Connection", "upgrade"), ("content-length", "0"), ("Upgrade", "websocket")]
    headers = sorted(
        [*_build_client_headers(api, connection, handshake), *hop_by_hop], key=lambda item: item[0].lower()
    )
    return {
        "type": "REQUEST",
        "methodArn": f"{api.arn}/$connect",
        **_build_maps("headers", "multiValueHeaders", headers),
        **_build_maps("queryStringParameters", "multiValueQueryStringParameters", handshake.parameters),
        "stageVariables": api.stage_variables,
        "requestContext": _build_context(api, connection, "$connect", "CONNECT", handshake.request_id),
    }


def build_connect_event(api: Api, connection: Connection, handshake: Handshake, *, latency: int | None) -> Event:
    """Return the event of `$connect`; `latency` is what the authorizer took in milliseconds, None without one."""
    authorizer = connection.authorizer
    if latency is not None:
        authorizer = {**(authorizer or {}), "integrationLatency": latency}
    context = _build_context(api, connection, "$connect", "CONNECT", handshake.request_id, authorizer=authorizer)
    event = _build_maps("headers", "multiValueHeaders", _build_client_headers(api, connection, handshake))
    if handshake.parameters:
        event |= _build_maps("queryStringParameters", "multiValueQueryStringParameters", handshake.parameters)
    return {**event, **_build_stage_variables(api), "requestContext": context, "isBase64Encoded": False}


def build_message_event(api: Api, connection: Connection, route_key: str, body: str) -> Event:
    more = {"authorizer": connection.authorizer, "messageId": make_id()}
    context = _build_context(api, connection, route_key, "MESSAGE", make_id(), **more)
    return {**_build_stage_variables(api), "requestContext": context, "body": body, "isBase64Encoded": False}


def build_disconnect_event(api: Api, connection: Connection, *, code: int, reason: str) -> Event:
    more = {"authorizer": connection.authorizer, "disconnectStatusCode": code, "disconnectReason": reason}
    context = _build_context(api, connection, "$disconnect", "DISCONNECT", make_id(), **more)
    stub = {"Host": api.domain_name, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
    headers = _build_maps("headers", "multiValueHeaders", stub.items())
    return {**headers, **_build_stage_variables(api), "requestContext": context, "isBase64Encoded": False}


def _build_stage_variables(api: Api) -> Event:
    return {"stageVariables": api.stage_variables} if api.stage_variables else {}


def _build_context(
    api: Api, connection: Connection, route_key: str, event_type: str, request_id: str, **more: Any
) -> Event:
    now = get_unix_milliseconds()
    context = {
        "routeKey": route_key,
        **more,
        "eventType": event_type,
        "extendedRequestId": request_id,
        "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now / 1000)),
        "messageDirection": "IN",
        "stage": api.stage,
        "connectedAt": connection.connected_at,
        "requestTimeEpoch": now,
        "identity": connection.identity,
        "requestId": request_id,
        "domainName": api.domain_name,
        "connectionId": connection.id,
        "apiId": api.id,
    }
    return {name: value for name, value in context.items() if value is not None}


def _build_client_headers(api: Api, connection: Connection, handshake: Handshake) -> list[tuple[str, str]]:
    """Return the client's headers and those that API Gateway adds or replaces, sorted by name."""
    added = {
        "Host": api.domain_name,
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


def _build_maps(single: str, multi: str, pairs: Iterable[tuple[str, str]]) -> Event:
    """Return two maps of headers or query parameters: `single` has each name's last value, `multi` has all its values."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {single: {name: each[-1] for name, each in values.items()}, multi: values}
