"""The gateway's sockets: WebSocket and `@connections` on one port, as on AWS."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
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
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidUpgrade
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol

from local import events, gateway
from local.events import Connection, Handshake
from local.gateway import Invocation, Refusal
from local.iam import Iam, UnknownAccessKeyError
from local.limits import MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_URL_CHARACTERS, Connections, Limits, TokenBucket
from local.resources import ACCOUNT_ID, Api, Authorizer, Route
from local.routing import RouteSelection

REQUEST_SECONDS = 10.0  # for a client to send its request's head, and as long for its body
KEEP_ALIVE_SECONDS = 75.0  # for its next request on the same connection
MAX_HEAD_BYTES = 16 * 1024
GRACE_SECONDS = 0.1  # aiohttp takes 0 for "wait for ever"
# websockets counts a compressed frame's own bytes too, so that a message of just the limit needs some room.
COMPRESSION_BYTES = 64
CLOSE_SECONDS = 1.0  # for a client to answer a close frame and hang up
UNREAD_SECONDS = 10.0  # for a client to read on when too much is unsent
MAX_UNSENT_BYTES = 256 * 1024  # to a client that does not read
MAX_IN_FLIGHT = 256  # messages of one connection whose functions have not answered; the next ones wait unread
ACCESS_KEY_ID = re.compile(r"AWS4-HMAC-SHA256 .*\bCredential=(?P<access_key_id>[^/\s]+)/[^,]+/aws4_request\b")
# What AWS was seen to choose.
DEFLATE = ServerPerMessageDeflateFactory(server_max_window_bits=12, compress_settings={"memLevel": 5})

logger = logging.getLogger(__name__)

Invoke = Callable[[str, dict[str, Any]], Awaitable[Invocation]]


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


@dataclass
class Peer:
    """An open connection and its socket."""

    connection: Connection
    socket: ClientSocket
    last_active_at: float
    in_flight: asyncio.Semaphore

    @property
    def id(self) -> str:
        return self.connection.id


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


class GatewayServer:
    """One stage of a WebSocket API on a port of the loopback interface.

    Args:
        in_turn: a connection's message waits for the one before, which AWS does not promise.
    """

    def __init__(
        self, api: Api, invoke: Invoke, *, limits: Limits | None = None, iam: Iam | None = None, in_turn: bool = False
    ) -> None:
        gateway.check(api)
        self.api = api
        self.invoke = invoke
        self.limits = limits or Limits()
        self.iam = iam or Iam()
        self.in_turn = in_turn
        self.route_selection = RouteSelection.parse(api.route_selection_expression)
        self.connections: Connections[Peer] = Connections(self.limits, time.monotonic)
        self._new_connections = TokenBucket(self.limits.new_connections)
        self._requests = TokenBucket(self.limits.requests)
        self._route_requests = {key: TokenBucket(route.throttle) for key, route in api.routes.items()}
        self._next_due: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.BaseTransport] = set()  # until their request's head has come
        self._http: web.Server
        self._server: Server

    async def start(self, port: int = 0) -> int:
        """Listens; returns the port. OSError if it is taken."""
        loop = asyncio.get_running_loop()
        self._http = web.Server(self._serve_http, request_factory=partial(Call, loop=loop))
        http = partial(
            HttpSocket,
            self._http,
            loop=loop,
            access_log=None,  # type: ignore[arg-type] # is how to turn it off
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=CLOSE_SECONDS,
        )
        self._server = await serve(  # FrontDoor makes every connection of it a ClientSocket
            self._serve_websocket,  # type: ignore[arg-type]
            "127.0.0.1",
            port,
            create_connection=lambda *args, **kwargs: FrontDoor(self._waiting, http, *args, **kwargs),  # type: ignore[arg-type]
            process_request=self._open,  # type: ignore[arg-type]
            process_response=self._add_headers,  # type: ignore[arg-type]
            server_header=None,
            open_timeout=2 * self.limits.integration_seconds + 2,  # the authorizer's and `$connect`'s together
            ping_interval=None,  # API Gateway answers pings and never sends one
            close_timeout=CLOSE_SECONDS,
            write_limit=2 * MAX_UNSENT_BYTES,  # so that a post is answered, not kept waiting for the client
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
        if self._next_due:
            self._next_due.cancel()
        await self._http.shutdown(GRACE_SECONDS)
        await self._server.wait_closed()

    async def _open(self, socket: ClientSocket, request: Request) -> Response | None:
        """The opening handshake: everything is decided before the 101."""
        self._track(asyncio.current_task())
        handshake = Handshake(request.path, tuple(request.headers.raw_items()))
        if len(request.headers.get_all("Host")) != 1:
            return refused(BAD_REQUEST)
        if refusal := gateway.misdirected(self.api, handshake):
            return refused(refusal)
        try:
            socket.protocol.process_request(request)
        except InvalidUpgrade:
            return None  # and websockets says what is wrong with it
        except InvalidHandshake as error:
            return refused(Refusal.of(HTTPStatus.BAD_REQUEST, str(error)))
        connection = Connection(self.api, socket.remote_address[0], handshake.header("User-Agent"))
        outcome = await self._admit(connection, handshake)
        if isinstance(outcome, Refusal):
            logger.info("%s refused: %s", connection.id, outcome.status, extra={"body": outcome.body})
            return refused(outcome)
        socket.response_headers = outcome
        socket.connection = connection
        in_flight = asyncio.Semaphore(1 if self.in_turn else MAX_IN_FLIGHT)
        self.connections.add(Peer(connection, socket, time.time(), in_flight))
        if self._next_due is None:
            self._await_due()
        self._spawn(self._close_out(connection, socket))
        return None

    async def _admit(self, connection: Connection, handshake: Handshake) -> dict[str, str] | Refusal:
        route = self.api.routes.get("$connect")
        if not self._new_connections.take(time.monotonic()) or (route and not self._within_throttle(route)):
            return gateway.TOO_MANY_REQUESTS
        if route is None:
            return {}
        latency = None
        if route.authorizer:
            event = events.authorizer_event(connection, handshake)
            if not gateway.has_identity(route.authorizer, handshake, event):
                return gateway.UNAUTHORIZED
            started = time.monotonic()
            invocation = await self._authorize(route.authorizer, event)
            latency = round((time.monotonic() - started) * 1000)
            decision = gateway.authorization(invocation, event["methodArn"])
            if isinstance(decision, Refusal):
                return decision
            connection.authorizer = decision
        event = events.connect_event(connection, handshake, latency=latency)
        return gateway.connected(await self._integrate(route, event))

    def _add_headers(self, socket: ClientSocket, request: Request, response: Response) -> None:
        for name, value in socket.response_headers.items():
            response.headers[name] = value

    async def _serve_websocket(self, socket: ClientSocket) -> None:
        peer = self.connections.get(socket.connection.id)
        if peer is None:  # its time was over before it began
            return
        try:
            async for message in socket:
                self._touch(peer)
                if isinstance(message, bytes):
                    await socket.close(1003)
                elif len(message.encode()) > MAX_MESSAGE_BYTES:
                    await socket.close(1009)
                else:
                    await peer.in_flight.acquire()
                    if not self._server.is_serving():
                        break
                    self._spawn(self._dispatch(peer, message)).add_done_callback(lambda _: peer.in_flight.release())
        except ConnectionClosed:
            pass  # `_close_out` tells why

    async def _dispatch(self, peer: Peer, message: str) -> None:
        """One message, without waiting for the one before."""
        key = self.route_selection.route_key(self.api.routes, message)
        event = events.message_event(peer.connection, key or "$default", message)
        if key is None:
            answer: str | None = gateway.error_frame("Forbidden", peer.connection, event)
        elif not self._within_throttle(self.api.routes[key]):
            answer = gateway.error_frame("Too Many Requests", peer.connection, event)
        else:
            route = self.api.routes[key]
            invocation = await self._integrate(route, event)
            error = gateway.message_error(invocation)
            answer = gateway.error_frame(error, peer.connection, event) if error else gateway.reply(invocation, route)
        if answer is not None:
            await self._send(peer, answer)

    async def _close_out(self, connection: Connection, socket: ClientSocket) -> None:
        """After the socket's end, whoever ended it and also if the 101 came too late for the client."""
        await socket.wait_closed()
        self.connections.remove(connection.id)
        code, reason = disconnect_status(socket.protocol)
        if route := self.api.routes.get("$disconnect"):
            await self._integrate(route, events.disconnect_event(connection, code=code, reason=reason))

    def _await_due(self) -> None:
        due = self.connections.next_due()
        self._next_due = None if due is None else asyncio.get_running_loop().call_at(due, self._close_due)

    def _close_due(self) -> None:
        """Ends the connections that were idle, or there, for too long."""
        for peer in self.connections.due():
            self._spawn(peer.socket.close(1001, "Going away"))
        self._await_due()

    def _within_throttle(self, route: Route) -> bool:
        now = time.monotonic()
        return self._route_requests[route.key].take(now) and self._requests.take(now)

    async def _authorize(self, authorizer: Authorizer, event: dict[str, Any]) -> Invocation:
        source = f"{self.api.arn.rpartition('/')[0]}/authorizers/{authorizer.id}"
        return await self._invoke(authorizer.function_arn, event, source, self.limits.integration_seconds)

    async def _integrate(self, route: Route, event: dict[str, Any]) -> Invocation:
        seconds = min(route.timeout_seconds, self.limits.integration_seconds)
        return await self._invoke(route.function_arn, event, f"{self.api.arn}/{route.key}", seconds)

    async def _invoke(self, function_arn: str, event: dict[str, Any], source: str, seconds: float) -> Invocation:
        if self.iam.enforced and not self.api.may_invoke(function_arn, source):
            name = function_arn.rpartition(":")[2]
            self.iam.advise(
                f"API Gateway may not invoke {name}: add an AWS::Lambda::Permission with SourceArn {source}"
            )
            return Invocation(error=gateway.NO_PERMISSION, message="no permission to invoke the function")
        try:
            async with asyncio.timeout(seconds):
                return await self.invoke(function_arn, event)
        except TimeoutError:
            return Invocation(error="Sandbox.Timedout", message=f"the integration's limit of {seconds:g} s has passed")

    async def _serve_http(self, request: web.BaseRequest) -> web.StreamResponse:
        path = unquote(request.rel_url.raw_path)
        prefix = f"/{self.api.stage}/@connections/"
        if not path.startswith(prefix):
            upgradable = f"{path.partition('?')[0]}/".startswith(f"/{self.api.stage}/")
            return answered(gateway.UPGRADE_REQUIRED if upgradable else gateway.FORBIDDEN)
        return await self._manage(request, path.removeprefix(prefix))

    async def _manage(self, request: web.BaseRequest, connection_id: str) -> web.Response:
        """`@connections`: PostToConnection, GetConnection, DeleteConnection."""
        if refusal := self._forbidden(request, connection_id):
            return answered(refusal)
        peer = self._addressed(connection_id)
        if isinstance(peer, Refusal):
            return answered(peer)
        match request.method:
            case "POST":
                data = await posted(request)
                return answered(data if isinstance(data, Refusal) else await self._post(peer, data))
            case "GET":
                return web.json_response(described(peer), headers=request_id())
            case _:
                self.connections.remove(connection_id)
                self._spawn(peer.socket.close(1000, "Connection Closed Normally"))
                return web.Response(status=204, headers=request_id())

    def _addressed(self, connection_id: str) -> Peer | Refusal:
        if not self._requests.take(time.monotonic()):
            return LIMIT_EXCEEDED
        if not events.CONNECTION_ID.fullmatch(connection_id):
            return Refusal.of(HTTPStatus.BAD_REQUEST, f"Invalid connectionId: {connection_id}", "BadRequestException")
        peer = self.connections.get(connection_id)
        return GONE if peer is None or peer.socket.state is not State.OPEN else peer

    def _forbidden(self, request: web.BaseRequest, connection_id: str) -> Refusal | None:
        """The refusal of a call without a signature, of an unknown method, or by a caller who may not make it."""
        signed = ACCESS_KEY_ID.match(request.headers.get("Authorization", ""))
        if signed is None or request.method not in {"POST", "GET", "DELETE"}:
            return MISSING_SIGNATURE
        resource = f"{self.api.arn}/{request.method}/@connections/"
        try:
            refused = self.iam.authorize(
                signed["access_key_id"],
                "execute-api:ManageConnections",
                resource + connection_id,
                advised=f"{resource}*",
            )
        except UnknownAccessKeyError:
            return UNKNOWN_ACCESS_KEY
        if refused is None:
            return None
        where = resource.replace(f":{ACCOUNT_ID}:", f":********{ACCOUNT_ID[-4:]}:")
        message = (
            f"User: {refused.session.arn} is not authorized to perform: {refused.action}"
            f" on resource: {where}{{connectionId}}"
        )
        body = json.dumps({"Message": message}, separators=(",", ":")).encode()
        return Refusal(HTTPStatus.FORBIDDEN, body, "AccessDeniedException")

    async def _post(self, peer: Peer, data: bytes) -> Refusal | None:
        if peer.socket.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return LIMIT_EXCEEDED
        try:
            message = data.decode()
        except UnicodeDecodeError:
            return NOT_TEXT
        return None if await self._send(peer, message) else GONE

    async def _send(self, peer: Peer, message: str) -> bool:
        """Sends one text message; False if the peer has gone."""
        try:
            await peer.socket.send(message)
        except ConnectionClosed:
            return False
        self._touch(peer)
        return True

    def _touch(self, peer: Peer) -> None:
        peer.last_active_at = time.time()
        self.connections.touch(peer.id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._track(task)
        return task

    def _track(self, task: asyncio.Task[Any] | None) -> None:
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


MISSING_SIGNATURE = Refusal.of(
    HTTPStatus.FORBIDDEN, "Missing Authentication Token", "MissingAuthenticationTokenException"
)
UNKNOWN_ACCESS_KEY = Refusal.of(
    HTTPStatus.FORBIDDEN, "The security token included in the request is invalid.", "UnrecognizedClientException"
)
BAD_REQUEST = Refusal.of(HTTPStatus.BAD_REQUEST, "Bad Request", "BadRequestException")
HEAD_TOO_LARGE = Refusal.of(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large")
LIMIT_EXCEEDED = Refusal.of(HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", "LimitExceededException")
NOT_TEXT = Refusal.of(HTTPStatus.BAD_REQUEST, "the data is not UTF-8", "BadRequestException")
TIMED_OUT = Refusal.of(HTTPStatus.REQUEST_TIMEOUT, "Request Timeout")
TOO_LARGE = Refusal.of(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Payload too large", "PayloadTooLargeException")
GONE = Refusal(HTTPStatus.GONE, b"", "GoneException")


def request_id() -> dict[str, str]:
    """The header that AWS adds to every answer."""
    return {"x-amzn-RequestId": str(uuid.uuid4())}


def refused(refusal: Refusal) -> Response:
    body = b"" if refusal.status == HTTPStatus.NOT_MODIFIED else refusal.body
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
    headers["Connection"] = "close"
    headers.update(request_id())
    if refusal.error_type:
        headers["x-amzn-ErrorType"] = refusal.error_type
    return Response(refusal.status, responses.get(refusal.status, ""), headers, body)


async def posted(request: web.BaseRequest) -> bytes | Refusal:
    """A request's body, unless it is too large, too slow or broken; no more of it is kept than may be posted."""
    if (request.content_length or 0) > MAX_MESSAGE_BYTES:
        return TOO_LARGE
    data = bytearray()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for chunk in request.content.iter_any():
                data += chunk
                if len(data) > MAX_MESSAGE_BYTES:
                    return TOO_LARGE
    except TimeoutError:
        return TIMED_OUT
    except (web.RequestPayloadError, ConnectionError):
        return BAD_REQUEST
    return bytes(data)


def answered(refusal: Refusal | None) -> web.Response:
    """The answer to a call of `@connections`: empty, or its refusal."""
    headers = request_id()
    if refusal is None:
        return web.Response(headers=headers)
    if refusal.error_type:
        headers["x-amzn-ErrorType"] = refusal.error_type
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
