"""The gateway's sockets: who connects is handed to the WebSocket or to the HTTP side of one port, as on AWS."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.client import responses
from typing import Any

from aiohttp import web
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Response
from websockets.protocol import Protocol
from websockets.server import ServerProtocol

from local.apigateway import gateway
from local.apigateway.events import Connection
from local.apigateway.gateway import Refusal
from local.apigateway.limits import MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_URL_CHARACTERS
from local.ids import random_bits

REQUEST_SECONDS = 10.0  # for a client to send its request's head, and as long for its body
MAX_HEAD_BYTES = 16 * 1024
# websockets counts a compressed frame's own bytes too, so that a message of just the limit needs some room.
COMPRESSION_BYTES = 64
GRACE_SECONDS = 0.1  # for answers at the end; aiohttp takes 0 for "wait for ever"
CLOSE_SECONDS = 1.0  # for a client to answer a close frame and hang up
TLS_HANDSHAKE = b"\x16\x03"
UNREAD_SECONDS = 10.0  # for a client to read on when too much is unsent
# What AWS was seen to choose.
DEFLATE = ServerPerMessageDeflateFactory(server_max_window_bits=12, compress_settings={"memLevel": 5})

logger = logging.getLogger(__name__)

BAD_REQUEST = Refusal.of(HTTPStatus.BAD_REQUEST, "Bad Request", "BadRequestException")
HEAD_TOO_LARGE = Refusal.of(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large")


class GatewayProtocol(ServerProtocol):
    """RFC 6455, without the library's own reasons in close frames."""

    def fail(self, code: int, reason: str = "") -> None:
        super().fail(code)


class ClientSocket(ServerConnection):
    """A WebSocket with what the opening handshake decided of it.

    It hangs up on a client that should and does not, be it after a goodbye or a protocol error. A client that leaves
    too much unread is not read from either, or pings alone could fill the memory, and does not keep anybody waiting.
    """

    connection: Connection
    response_headers: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    def __init__(self, protocol: ServerProtocol, *args: Any, **kwargs: Any) -> None:
        limits = (MAX_MESSAGE_BYTES + COMPRESSION_BYTES, MAX_FRAME_BYTES)
        super().__init__(
            GatewayProtocol(extensions=[DEFLATE], max_size=limits, logger=protocol.logger), *args, **kwargs
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.recv_messages.resume = self._read_on

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.protocol.close_expected():
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def eof_received(self) -> None:
        super().eof_received()
        self.transport.abort()  # or asyncio closes once all is sent, and cannot abort() what it closed like that

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()
        self.unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread.cancel()
        self._read_on()

    def _read_on(self) -> None:
        if not self.paused and not self.recv_messages.paused:
            self.transport.resume_reading()


class Call(web.BaseRequest):
    """A request over HTTP, whose answer does not name the software that gives it."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.pop("Server", None)


class HttpSocket(web.RequestHandler):
    """An HTTP connection. What its client does wrong is answered as AWS would, and is no error of ours to log."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        response = answered(BAD_REQUEST)
        response.force_close()
        return response


class FrontDoor(asyncio.Protocol):
    """Reads a request's head and hands the socket to whom it is for: the WebSocket or the HTTP side."""

    def __init__(
        self, waiting: set[asyncio.BaseTransport], http: Callable[[], HttpSocket], *args: Any, **kwargs: Any
    ) -> None:
        self.waiting = waiting
        self.http = http
        self.websocket = partial(ClientSocket, *args, **kwargs)
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.waiting.add(transport)
        self.limit = asyncio.get_running_loop().call_later(REQUEST_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()

    def data_received(self, data: bytes) -> None:
        self.head = (self.head + data).lstrip(b"\r\n")  # RFC 9112 section 2.2
        if self.head.startswith(TLS_HANDSHAKE):
            logger.warning("a client speaks TLS, which is not spoken here: its URL must begin with ws:// or http://")
            self._done()
            self.transport.abort()
            return
        head, end, _ = self.head.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES:
            self._refuse(HEAD_TOO_LARGE)
        elif end and len(head.partition(b"\r\n")[0]) > MAX_URL_CHARACTERS:
            self._refuse(gateway.URL_TOO_LONG)
        elif end:
            self._done()
            protocol: asyncio.Protocol = self.websocket() if is_upgrade(head) else self.http()
            self.transport.set_protocol(protocol)
            protocol.connection_made(self.transport)
            protocol.data_received(self.head)

    def _refuse(self, refusal: Refusal) -> None:
        self._done()
        self.transport.write(refused(refusal).serialize())
        self.transport.close()

    def _done(self) -> None:
        self.limit.cancel()
        self.waiting.discard(self.transport)


def is_upgrade(head: bytes) -> bool:
    request, *headers = head.lower().split(b"\r\n")
    return request.startswith(b"get ") and any(
        name.strip() == b"upgrade" and value.strip() == b"websocket"
        for name, _, value in (header.partition(b":") for header in headers)
    )


def disconnect_status(protocol: Protocol) -> tuple[int, str]:
    """The `$disconnect` event's code and reason: those of whoever sent its close frame first."""
    first = protocol.close_rcvd if protocol.close_rcvd_then_sent else protocol.close_sent
    first = first or protocol.close_rcvd
    if first is None:
        return 1006, ""
    if first.code == 1005:
        return 1005, "Client-side close frame status not set"
    return int(first.code), first.reason


def request_id() -> dict[str, str]:
    """The header that AWS adds to every answer."""
    return {"x-amzn-RequestId": str(uuid.UUID(int=random_bits(128), version=4))}


def refused(refusal: Refusal) -> Response:
    body = b"" if refusal.status == HTTPStatus.NOT_MODIFIED else refusal.body
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
    headers["Connection"] = "close"
    headers.update(request_id())
    if refusal.error_type:
        headers["x-amzn-ErrorType"] = refusal.error_type
    return Response(refusal.status, responses.get(refusal.status, ""), headers, body)


def answered(refusal: Refusal | None) -> web.Response:
    """The answer to a call of `@connections`: empty, or its refusal."""
    headers = request_id()
    if refusal is None:
        return web.Response(headers=headers)
    if refusal.error_type:
        headers["x-amzn-ErrorType"] = refusal.error_type
    return web.Response(status=refusal.status, body=refusal.body, headers=headers, content_type="application/json")
