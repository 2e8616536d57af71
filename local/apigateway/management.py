"""Serves `@connections`, by which backends post to open connections, describe them and close them.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web

from local.apigateway import sockets
from local.apigateway.api import Api
from local.apigateway.connections import Connections, Peer
from local.apigateway.gateway import BAD_REQUEST, Refusal, build_access_denied
from local.apigateway.limits import MAX_MESSAGE_BYTES, TokenBucket
from local.apigateway.sockets import build_http_response, build_request_id_header
from local.aws.iam import Iam
from local.aws.signature import Signature, SignatureError
from local.ids import CONNECTION_ID, find_trace_id
from local.journal import Journal

MAX_UNSENT_BYTES = 256 * 1024  # in the write buffer of a client that reads slowly; a further post gets 429

UNKNOWN_METHOD = Refusal.of(HTTPStatus.FORBIDDEN, "Missing Authentication Token", "MissingAuthenticationTokenException")
LIMIT_EXCEEDED = Refusal.of(HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", "LimitExceededException")
NOT_TEXT = Refusal.of(HTTPStatus.BAD_REQUEST, "the data is not UTF-8", "BadRequestException")
TIMED_OUT = Refusal.of(HTTPStatus.REQUEST_TIMEOUT, "Request Timeout")
TOO_LARGE = Refusal.of(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Payload too large", "PayloadTooLargeException")
GONE = Refusal(HTTPStatus.GONE, b"", "GoneException")


@dataclass(frozen=True)
class Management:
    """PostToConnection, GetConnection and DeleteConnection of one stage.

    Attributes:
        requests: the account's throttle, which also counts messages.
        journal: where calls are recorded.
    """

    api: Api
    iam: Iam
    connections: Connections
    requests: TokenBucket
    journal: Journal | None = None

    async def serve(self, request: web.BaseRequest, connection_id: str) -> web.Response:
        """Check a call's signature and its caller's permission, then carry it out and return the response."""
        caller, data = None, b""
        try:
            signature = Signature.parse(request.raw_path, request.headers)
            signature.check(self.iam, "execute-api", self.api.account.region)
            body = await read_body(request)
            if isinstance(body, Refusal):
                response = build_http_response(body)
            else:
                signature.verify(self.iam, request.method, request.raw_path, request.headers, body)
                caller, data = signature.access_key_id, body
                response = self._carry_out(request.method, connection_id, signature, data)
        except SignatureError as error:
            response = build_http_response(Refusal.of(HTTPStatus.FORBIDDEN, str(error), error.type))
        if self.journal:
            text, sender = data.decode(errors="replace"), self._name_caller(caller)
            facts = {"method": request.method, "status": response.status, "caller": sender, "body": text}
            trace_id = find_trace_id(request.headers.get("X-Amzn-Trace-Id"))
            # A caller may have put any text there, which must not become a key of the journal.
            known = connection_id if CONNECTION_ID.fullmatch(connection_id) else None
            self.journal.record("management", known, trace_id, **facts)
            if request.method == "POST" and response.status == HTTPStatus.OK:
                self.journal.record("frame", connection_id, **{"body": text, "from": "@connections"})
        return response

    def _carry_out(self, method: str, connection_id: str, signature: Signature, data: bytes) -> web.Response:
        peer = self._check_permission(method, connection_id, signature) or self._find_peer(connection_id)
        if isinstance(peer, Refusal):
            return build_http_response(peer)
        match method:
            case "POST":
                return build_http_response(self._post(peer, data))
            case "GET":
                return web.json_response(describe_connection(peer), headers=build_request_id_header())
            case _:
                self.connections.remove(connection_id)
                peer.socket.close(1000, "Connection Closed Normally", cause="@connections DELETE")
                return web.Response(status=204, headers=build_request_id_header())

    def _name_caller(self, access_key_id: str | None) -> str | None:
        """Return the caller's role and function, or `the administrator`; None if no signature was verified."""
        session = self.iam.sessions.get(access_key_id) if access_key_id else None
        return f"{session.role.name}/{session.function}" if session else access_key_id and "the administrator"

    def _find_peer(self, connection_id: str) -> Peer | Refusal:
        if not self.requests.take(time.monotonic()):
            return LIMIT_EXCEEDED
        if not CONNECTION_ID.fullmatch(connection_id):
            return Refusal.of(HTTPStatus.BAD_REQUEST, f"Invalid connectionId: {connection_id}", "BadRequestException")
        peer = self.connections.get(connection_id)
        return GONE if peer is None or not peer.socket.is_open else peer

    def _check_permission(self, method: str, connection_id: str, signature: Signature) -> Refusal | None:
        """Return a refusal if the method is unknown, or if the caller's role does not allow the call."""
        if method not in {"POST", "GET", "DELETE"}:
            return UNKNOWN_METHOD
        resource = f"{self.api.arn}/{method}/@connections/"
        action = "execute-api:ManageConnections"
        refused = self.iam.authorize(signature.access_key_id, action, resource + connection_id, advised=f"{resource}*")
        if refused is None:
            return None
        account_id = self.api.account.id
        where = resource.replace(f":{account_id}:", f":********{account_id[-4:]}:")
        message = (
            f"User: {refused.session.arn} is not authorized to perform: {refused.action}"
            f" on resource: {where}{{connectionId}}"
        )
        return build_access_denied(message)

    def _post(self, peer: Peer, data: bytes) -> Refusal | None:
        if peer.socket.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return LIMIT_EXCEEDED
        try:
            data.decode()
        except UnicodeDecodeError:
            return NOT_TEXT
        return None if peer.send(data) else GONE


async def read_body(request: web.BaseRequest) -> bytes | Refusal:
    """Read a request's body; return a refusal if it is too large, too slow or broken.

    Reading stops at the limit of a message, so that no caller can fill the memory.
    """
    if (request.content_length or 0) > MAX_MESSAGE_BYTES:
        return TOO_LARGE
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    data = bytearray()
    try:
        if request.content.is_eof():  # a small body arrives together with the head
            data += await request.content.read()
        else:
            async with asyncio.timeout(sockets.REQUEST_SECONDS):
                async for chunk in request.content.iter_any():
                    data += chunk
                    if len(data) > MAX_MESSAGE_BYTES:
                        break
    except TimeoutError:
        return TIMED_OUT
    except (web.RequestPayloadError, ConnectionError):
        return BAD_REQUEST
    return TOO_LARGE if len(data) > MAX_MESSAGE_BYTES else bytes(data)


def describe_connection(peer: Peer) -> dict[str, Any]:
    """Return the body of GetConnection's response."""
    connection = peer.connection
    return {
        "connectedAt": format_time(connection.connected_at / 1000),
        "identity": connection.identity,
        "lastActiveAt": format_time(peer.last_active_at),
    }


def format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
