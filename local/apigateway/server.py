"""One stage of a WebSocket API: opening handshakes, messages, and the end of connections."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from websockets.asyncio.server import Server, serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidUpgrade
from websockets.http11 import Request, Response

from local.apigateway import events, gateway, sockets
from local.apigateway.api import Api, Authorizer, Route
from local.apigateway.connections import Connections, Peer
from local.apigateway.events import Connection, Handshake
from local.apigateway.gateway import Refusal
from local.apigateway.limits import MAX_MESSAGE_BYTES, Limits, TokenBucket
from local.apigateway.management import MAX_UNSENT_BYTES, Management
from local.apigateway.routing import RouteSelection
from local.apigateway.sockets import (
    BAD_REQUEST,
    Call,
    ClientSocket,
    FrontDoor,
    HttpSocket,
    answered,
    disconnect_status,
    refused,
)
from local.aws.iam import Iam
from local.lambda_.invocation import Invocation

KEEP_ALIVE_SECONDS = 75.0  # for a client's next request on the same HTTP connection
MAX_IN_FLIGHT = 256  # messages of one connection whose functions have not answered; the next ones wait unread

logger = logging.getLogger(__name__)
logging.getLogger("local.websocket").setLevel(logging.WARNING)  # below, it tells all that is sent and received

Invoke = Callable[[str, dict[str, Any]], Awaitable[Invocation]]


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
        self._management = Management(api, self.iam, self.connections, self._requests, self._spawn)
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
            lingering_time=sockets.CLOSE_SECONDS,
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
            close_timeout=sockets.CLOSE_SECONDS,
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
        await self._http.shutdown(sockets.GRACE_SECONDS)
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
        except InvalidHandshake:
            response = refused(BAD_REQUEST)  # what is wrong may be quoted from a header that carries a token
            response.headers["Sec-WebSocket-Version"] = "13"  # RFC 6455 section 4.4
            return response
        connection = Connection(self.api, socket.remote_address[0], handshake.header("User-Agent"))
        outcome = await self._admit(connection, handshake)
        if isinstance(outcome, Refusal):
            logger.info("%s refused: %s", connection.id, outcome.status, extra={"body": outcome.body})
            return refused(outcome)
        socket.response_headers = outcome
        socket.connection = connection
        in_flight = asyncio.Semaphore(1 if self.in_turn else MAX_IN_FLIGHT)
        self.connections.add(Peer(connection, socket, self.connections, in_flight))
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
                peer.touch()
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

    def _dispatch(self, peer: Peer, message: str) -> Coroutine[Any, Any, object]:
        """Begins what a message sets off, without waiting for the one before; returns what is left to do."""
        key = self.route_selection.route_key(self.api.routes, message)
        event = events.message_event(peer.connection, key or "$default", message)
        if key is None:
            return peer.send(gateway.error_frame("Forbidden", peer.connection, event))
        route = self.api.routes[key]
        if not self._within_throttle(route):
            return peer.send(gateway.error_frame("Too Many Requests", peer.connection, event))
        return self._reply(peer, route, event, self._integrate(route, event))

    async def _reply(self, peer: Peer, route: Route, event: dict[str, Any], invocation: Awaitable[Invocation]) -> None:
        outcome = await invocation
        error = gateway.message_error(outcome, route)
        answer = gateway.error_frame(error, peer.connection, event) if error else gateway.reply(outcome, route)
        if answer is not None:
            await peer.send(answer)

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

    def _authorize(self, authorizer: Authorizer, event: dict[str, Any]) -> Awaitable[Invocation]:
        source = f"{self.api.arn.rpartition('/')[0]}/authorizers/{authorizer.id}"
        return self._invoke(authorizer.function_arn, event, source, self.limits.integration_seconds)

    def _integrate(self, route: Route, event: dict[str, Any]) -> Awaitable[Invocation]:
        seconds = min(route.timeout_seconds, self.limits.integration_seconds)
        return self._invoke(route.function_arn, event, f"{self.api.arn}/{route.key}", seconds)

    def _invoke(
        self, function_arn: str, event: dict[str, Any], source: str, seconds: float
    ) -> Coroutine[Any, Any, Invocation]:
        """Begins at once, as far as the function does."""
        if self.iam.enforced and not self.api.may_invoke(function_arn, source):
            name = function_arn.rpartition(":")[2]
            self.iam.advise(
                f"API Gateway may not invoke {name}: add an AWS::Lambda::Permission with SourceArn {source}"
            )
            return not_permitted()
        return within(seconds, self.invoke(function_arn, event))

    async def _serve_http(self, request: web.BaseRequest) -> web.StreamResponse:
        path = unquote(request.rel_url.raw_path)
        prefix = f"/{self.api.stage}/@connections/"
        if not path.startswith(prefix):
            upgradable = f"{path.partition('?')[0]}/".startswith(f"/{self.api.stage}/")
            return answered(gateway.UPGRADE_REQUIRED if upgradable else gateway.FORBIDDEN)
        return await self._management.serve(request, path.removeprefix(prefix))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        task = asyncio.create_task(work)
        self._track(task)
        return task

    def _track(self, task: asyncio.Task[Any] | None) -> None:
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def not_permitted() -> Invocation:
    return Invocation(error=gateway.NO_PERMISSION, message="no permission to invoke the function")


async def within(seconds: float, invocation: Awaitable[Invocation]) -> Invocation:
    try:
        async with asyncio.timeout(seconds):
            return await invocation
    except TimeoutError:
        return Invocation(error="Sandbox.Timedout", message=f"the integration's limit of {seconds:g} s has passed")
