"""The gateway's sockets: WebSocket and `@connections` on one port, as on AWS."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from http.client import responses
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event, Protocol, State

from local import events, gateway
from local.events import Connection, Handshake
from local.gateway import Invocation, Refusal
from local.template import Api

REQUEST_SECONDS = 10.0  # for a client to send its request's head
MAX_HEAD_BYTES = 16 * 1024
GRACE_SECONDS = 0.1  # aiohttp takes 0 for "wait for ever"
# websockets counts a compressed frame's own bytes too, so that a message of just the limit needs some room.
COMPRESSION_BYTES = 64
CLOSE_SECONDS = 1.0  # for a client to answer a close frame and hang up
HANDSHAKE_SECONDS = 2 * gateway.INTEGRATION_TIMEOUT_SECONDS + 2  # the authorizer's and `$connect`'s together
SIGNATURE = "AWS4-HMAC-SHA256 "

logger = logging.getLogger(__name__)

Invoke = Callable[[str, dict[str, Any]], Awaitable[Invocation]]


class ClientSocket(ServerConnection):
    """A WebSocket with what the opening handshake decided of it.

    It hangs up on a client that has said goodbye and does not.
    """

    connection: Connection
    response_headers: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    def process_event(self, event: Event) -> None:
        super().process_event(event)
        if isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


@dataclass
class Peer:
    """An open connection and its socket."""

    connection: Connection
    socket: ClientSocket
    last_active_at: float


class FrontDoor(asyncio.Protocol):
    """Reads a request's head and hands the socket to whom it is for: the WebSocket or the HTTP side."""

    def __init__(self, waiting: set[asyncio.BaseTransport], http: web.Server, *args: Any, **kwargs: Any) -> None:
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
        self.head += data
        head, end, _ = self.head.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES:
            self._done()
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()
        elif end:
            self._done()
            protocol: asyncio.Protocol = self.websocket() if is_upgrade(head) else self.http()
            self.transport.set_protocol(protocol)
            protocol.connection_made(self.transport)
            protocol.data_received(self.head)

    def _done(self) -> None:
        self.limit.cancel()
        self.waiting.discard(self.transport)


def is_upgrade(head: bytes) -> bool:
    request, *headers = head.lower().split(b"\r\n")
    return request.startswith(b"get ") and any(
        name.strip() == b"upgrade" and value.strip() == b"websocket"
        for name, _, value in (header.partition(b":") for header in headers)
    )


class GatewayServer:
    """One stage of a WebSocket API on a port of the loopback interface."""

    def __init__(self, api: Api, invoke: Invoke) -> None:
        gateway.check(api)
        self.api = api
        self.invoke = invoke
        self.peers: dict[str, Peer] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.BaseTransport] = set()  # until their request's head has come
        self._http: web.Server
        self._server: Server

    async def start(self, port: int = 0) -> int:
        """Listens; returns the port. OSError if it is taken."""
        self._http = web.Server(self._serve_http, access_log=None)
        self._server = await serve(  # FrontDoor makes every connection of it a ClientSocket
            self._serve_websocket,  # type: ignore[arg-type]
            "127.0.0.1",
            port,
            create_connection=lambda *args, **kwargs: FrontDoor(self._waiting, self._http, *args, **kwargs),  # type: ignore[arg-type]
            process_request=self._open,  # type: ignore[arg-type]
            process_response=self._add_headers,  # type: ignore[arg-type]
            server_header=None,
            open_timeout=HANDSHAKE_SECONDS,
            ping_interval=None,  # API Gateway answers pings and never sends one
            close_timeout=CLOSE_SECONDS,
            max_size=(gateway.MAX_MESSAGE_BYTES + COMPRESSION_BYTES, gateway.MAX_FRAME_BYTES),
            logger=logging.getLogger("local.websocket"),
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Closes every connection with 1001 and runs its `$disconnect`."""
        self._server.close(code=1001, reason="Going away")
        for transport in self._waiting:
            transport.close()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._http.shutdown(GRACE_SECONDS)
        await self._server.wait_closed()

    async def _open(self, socket: ClientSocket, request: Request) -> Response | None:
        """The opening handshake: everything is decided before the 101."""
        self._track(asyncio.current_task())
        path, _, query = request.path.partition("?")
        if not gateway.is_stage(self.api, path):
            return refused(gateway.FORBIDDEN)
        try:
            socket.protocol.process_request(request)
        except InvalidHandshake:
            return None  # and websockets says what is wrong with it
        handshake = Handshake(path, query, tuple(request.headers.raw_items()))
        connection = Connection(self.api, socket.remote_address[0], handshake.header("User-Agent"))
        outcome = await self._admit(connection, handshake)
        if isinstance(outcome, Refusal):
            logger.info("%s refused: %s", connection.id, outcome.status, extra={"body": outcome.body})
            return refused(outcome)
        socket.response_headers = outcome
        self.peers[connection.id] = Peer(connection, socket, time.time())
        socket.connection = connection
        self._spawn(self._close_out(connection, socket))
        return None

    async def _admit(self, connection: Connection, handshake: Handshake) -> dict[str, str] | Refusal:
        route = self.api.routes.get("$connect")
        if route is None:
            return {}
        latency = None
        if route.authorizer:
            if not gateway.has_identity(route.authorizer, handshake):
                return gateway.UNAUTHORIZED
            started = time.monotonic()
            event = events.authorizer_event(connection, handshake)
            invocation = await self._invoke(route.authorizer.function_arn, event)
            latency = round((time.monotonic() - started) * 1000)
            decision = gateway.authorization(invocation, event["methodArn"])
            if isinstance(decision, Refusal):
                return decision
            connection.authorizer = decision
        event = events.connect_event(connection, handshake, latency=latency)
        return gateway.connected(await self._invoke(route.function_arn, event))

    def _add_headers(self, socket: ClientSocket, request: Request, response: Response) -> None:
        for name, value in socket.response_headers.items():
            response.headers[name] = value

    async def _serve_websocket(self, socket: ClientSocket) -> None:
        peer = self.peers[socket.connection.id]
        try:
            async for message in socket:
                peer.last_active_at = time.time()
                if isinstance(message, bytes):
                    await socket.close(1003)
                elif len(message.encode()) > gateway.MAX_MESSAGE_BYTES:
                    await socket.close(1009)
                else:
                    self._spawn(self._dispatch(peer, message))
        except ConnectionClosed:
            pass  # `_close_out` tells why

    async def _dispatch(self, peer: Peer, message: str) -> None:
        """One message, without waiting for the one before."""
        key = gateway.route_key(self.api, message)
        event = events.message_event(peer.connection, key or "$default", message)
        if key is None:
            error: str | None = "Forbidden"
        else:
            error = gateway.message_error(await self._invoke(self.api.routes[key].function_arn, event))
        if error:
            await self._send(peer, gateway.error_frame(error, peer.connection, event))

    async def _close_out(self, connection: Connection, socket: ClientSocket) -> None:
        """After the socket's end, whoever ended it and also if the 101 came too late for the client."""
        await socket.wait_closed()
        self.peers.pop(connection.id, None)
        code, reason = disconnect_status(socket.protocol)
        if route := self.api.routes.get("$disconnect"):
            await self._invoke(route.function_arn, events.disconnect_event(connection, code=code, reason=reason))

    async def _invoke(self, function_arn: str, event: dict[str, Any]) -> Invocation:
        try:
            async with asyncio.timeout(gateway.INTEGRATION_TIMEOUT_SECONDS):
                return await self.invoke(function_arn, event)
        except TimeoutError:
            return Invocation(error="Sandbox.Timedout", message="the integration's limit of 29 s has passed")

    async def _serve_http(self, request: web.BaseRequest) -> web.StreamResponse:
        path = unquote(request.rel_url.raw_path)
        prefix = f"/{self.api.stage}/@connections/"
        if not path.startswith(prefix):
            upgradable = f"{path.partition('?')[0]}/".startswith(f"/{self.api.stage}/")
            return answered(gateway.UPGRADE_REQUIRED if upgradable else gateway.FORBIDDEN)
        if not request.headers.get("Authorization", "").startswith(SIGNATURE):
            return answered(MISSING_SIGNATURE)
        return await self._manage(request, path.removeprefix(prefix))

    async def _manage(self, request: web.BaseRequest, connection_id: str) -> web.Response:
        """`@connections`: PostToConnection, GetConnection, DeleteConnection."""
        if not events.CONNECTION_ID.fullmatch(connection_id):
            message = f"Invalid connectionId: {connection_id}"
            return answered(Refusal.of(HTTPStatus.BAD_REQUEST, message, "BadRequestException"))
        peer = self.peers.get(connection_id)
        if peer is None or peer.socket.state is not State.OPEN:
            return answered(GONE)
        match request.method:
            case "POST":
                return await self._post(peer, await request.content.read())
            case "GET":
                return web.json_response(described(peer))
            case "DELETE":
                self._spawn(peer.socket.close(1000, "Connection Closed Normally"))
                return web.Response(status=204)
        return answered(gateway.FORBIDDEN)

    async def _post(self, peer: Peer, data: bytes) -> web.Response:
        if len(data) > gateway.MAX_MESSAGE_BYTES:
            return answered(TOO_LARGE)
        return web.Response() if await self._send(peer, data) else answered(GONE)

    async def _send(self, peer: Peer, message: str | bytes) -> bool:
        """Sends one text message; False if the peer has gone."""
        try:
            await peer.socket.send(message, text=True)
        except ConnectionClosed:
            return False
        peer.last_active_at = time.time()
        return True

    def _spawn(self, work: Awaitable[None]) -> None:
        self._track(asyncio.ensure_future(work))

    def _track(self, task: asyncio.Task[Any] | None) -> None:
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


MISSING_SIGNATURE = Refusal.of(
    HTTPStatus.FORBIDDEN, "Missing Authentication Token", "MissingAuthenticationTokenException"
)
TOO_LARGE = Refusal.of(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Payload too large", "PayloadTooLargeException")
GONE = Refusal(HTTPStatus.GONE, b"", "GoneException")


def refused(refusal: Refusal) -> Response:
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(refusal.body))})
    headers["Connection"] = "close"
    if refusal.error_type:
        headers["x-amzn-ErrorType"] = refusal.error_type
    return Response(refusal.status, responses.get(refusal.status, ""), headers, refusal.body)


def answered(refusal: Refusal) -> web.Response:
    headers = {"x-amzn-ErrorType": refusal.error_type} if refusal.error_type else {}
    return web.Response(status=refusal.status, body=refusal.body, headers=headers, content_type="application/json")


def described(peer: Peer) -> dict[str, Any]:
    """GetConnection's answer."""
    connection = peer.connection
    return {
        "connectedAt": iso(connection.connected_at / 1000),
        "identity": connection.identity,
        "lastActiveAt": iso(peer.last_active_at),
    }


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def disconnect_status(protocol: Protocol) -> tuple[int, str]:
    """The `$disconnect` event's code and reason: those of whoever sent its close frame first."""
    first = protocol.close_rcvd if protocol.close_rcvd_then_sent else protocol.close_sent
    first = first or protocol.close_rcvd
    if first is None:
        return 1006, ""
    if first.code == 1005:
        return 1005, "Client-side close frame status not set"
    return int(first.code), first.reason
