"""Serves one stage of a WebSocket API: opening handshakes, messages, and the end of connections."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from websockets.http11 import Request

from local.apigateway import events, gateway, sockets
from local.apigateway.api import Api, Authorizer, Route
from local.apigateway.connections import Connections, Peer
from local.apigateway.events import Connection, Event, Handshake
from local.apigateway.gateway import IntegrationError, Refusal
from local.apigateway.limits import Limits, TokenBucket
from local.apigateway.management import Management
from local.apigateway.recording import MessageRecorder, record_decision, record_handshake, record_refused_invocation
from local.apigateway.sockets import ClientSocket, HttpRequest, HttpSocket, ProtocolSelector, build_http_response
from local.aws.iam import Iam
from local.journal import Journal
from local.lambda_.invocation import InvocationResult
from local.ports import SHUTDOWN_SECONDS

KEEP_ALIVE_SECONDS = 75.0  # how long an HTTP connection may wait for its next request
MAX_IN_FLIGHT = 256  # invocations of one connection that run at the same time; further messages wait
STOPPING = Refusal.of(HTTPStatus.SERVICE_UNAVAILABLE, "Service Unavailable")

logger = logging.getLogger(__name__)

Invoke = Callable[[str, Event], Awaitable[InvocationResult]]


class GatewayServer:
    """One stage of a WebSocket API, on a port of the loopback interface.

    Args:
        invoke: invokes the function with this ARN.
        in_turn: handle a connection's messages one after the other, which AWS does not promise.
        journal: where decisions and messages are recorded.

    Raises:
        TemplateError: the route selection expression cannot be evaluated locally.
    """

    def __init__(
        self,
        api: Api,
        invoke: Invoke,
        *,
        limits: Limits | None = None,
        iam: Iam | None = None,
        in_turn: bool = False,
        journal: Journal | None = None,
    ) -> None:
        self.invoke = invoke
        self.limits = limits or Limits()
        self.iam = iam or Iam()
        self.in_turn = in_turn
        self.journal = journal
        self.connections = Connections(self.limits)
        self._new_connections = TokenBucket(self.limits.new_connections)
        self._requests = TokenBucket(self.limits.requests)
        self._route_requests: dict[str, TokenBucket] = {}
        self._replace_api(api)
        self._management = Management(api, self.iam, self.connections, self._requests, journal)
        self._next_due: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unselected: set[asyncio.BaseTransport] = set()  # connections whose first request has not arrived
        self._sockets: set[ClientSocket] = set()
        self._http: web.Server
        self._server: asyncio.Server

    async def start(self, port: int = 0) -> int:
        """Listen on the port, or on a free one for 0; return it. Raise OSError if the port is taken."""
        loop = asyncio.get_running_loop()
        self._http = web.Server(self._serve_http, request_factory=partial(HttpRequest, loop=loop))
        make_http = partial(
            HttpSocket,
            self._http,
            loop=loop,
            access_log=None,  # type: ignore[arg-type] # None turns it off
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=sockets.CLOSE_SECONDS,
        )
        make_selector = partial(ProtocolSelector, self._unselected, self._make_socket, make_http)
        self._server = await loop.create_server(make_selector, "127.0.0.1", port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close every connection with 1001, and run its `$disconnect`."""
        self._server.close()
        for transport in self._unselected:
            transport.close()
        for socket in self._sockets:
            socket.close(1001, "Going away", cause="local run ends")
        while remaining := [*self._tasks, *(socket.closed for socket in self._sockets)]:
            await asyncio.wait(remaining)
        if self._next_due:
            self._next_due.cancel()
        await self._http.shutdown(SHUTDOWN_SECONDS)
        await self._server.wait_closed()

    def update(self, api: Api) -> None:
        """Replace the description of the stage. Open connections stay open.

        Raises:
            TemplateError: the new description cannot be served; the old one stays in use.
            ValueError: the new description is of another API or stage, which needs a restart.
        """
        for fact in ("id", "stage", "arn"):
            before, after = getattr(self.api, fact), getattr(api, fact)
            if before != after:
                raise ValueError(f"the API's {fact} was {before} and is {after}, which needs a restart")
        self._replace_api(api)

    def _replace_api(self, api: Api) -> None:
        api.route_selection  # noqa: B018 - raises TemplateError before anything is changed
        self.api = api
        routes, buckets = api.routes, self._route_requests
        unchanged = {key for key in routes.keys() & buckets if routes[key].throttle == buckets[key].throttle}
        self._route_requests = {
            key: buckets[key] if key in unchanged else TokenBucket(route.throttle) for key, route in routes.items()
        }

    # The opening handshake

    def _make_socket(self) -> ClientSocket:
        socket = ClientSocket(self._begin_handshake, 1 if self.in_turn else MAX_IN_FLIGHT)
        self._sockets.add(socket)
        socket.closed.add_done_callback(lambda _: self._sockets.discard(socket))
        return socket

    def _begin_handshake(self, socket: ClientSocket, request: Request) -> None:
        handshake = Handshake(request.path, tuple(request.headers.raw_items()))
        if refusal := gateway.check_request(self.api, handshake) or socket.negotiate(request):
            socket.refuse(refusal, handshake.request_id)
            self._record_decision(refusal, handshake)
        else:
            self._spawn(self._open(socket, handshake))

    async def _open(self, socket: ClientSocket, handshake: Handshake) -> None:
        """Decide about the handshake, then answer it."""
        connection = Connection(socket.source_ip, handshake.get_header("User-Agent"))
        if self.journal:
            record_handshake(self.journal, self.api, connection, handshake)
        try:
            decision = await self._decide(connection, handshake)
        except Exception:
            logger.exception("the handshake of %s failed", connection.id)
            decision = gateway.add_reason("a bug in the local gateway", gateway.INTERNAL_ERROR)
        if isinstance(decision, Refusal):
            socket.refuse(decision, handshake.request_id)
            self._record_decision(decision, handshake, connection)
            return
        socket.closed.add_done_callback(partial(self._disconnect, connection, socket))
        if not self._server.is_serving():
            socket.refuse(STOPPING, handshake.request_id)
            self._record_decision(STOPPING, handshake, connection)
            return
        peer = Peer(connection, socket, self.connections)
        self.connections.add(peer)
        if self._next_due is None:
            self._schedule_due()
        self._record_decision(decision, handshake, connection)
        socket.accept(decision, partial(self._begin_message, peer))

    async def _decide(self, connection: Connection, handshake: Handshake) -> str | Refusal | None:
        """Return the subprotocol of the 101, None for no subprotocol, or the refusal."""
        route = self.api.routes.get("$connect")
        if not self._new_connections.take(time.monotonic()) or (route and not self._take_request(route)):
            return gateway.add_reason("throttled", gateway.TOO_MANY_REQUESTS)
        if route is None:
            return None
        latency = None
        if route.authorizer:
            event = events.build_authorizer_event(self.api, connection, handshake)
            if not gateway.has_identity(route.authorizer, handshake, event):
                return gateway.add_reason("no identity source, so the authorizer is not invoked", gateway.UNAUTHORIZED)
            started = time.monotonic()
            result = await self._invoke_authorizer(route.authorizer, event)
            latency = round((time.monotonic() - started) * 1000)
            decision = gateway.evaluate_authorizer(result, event["methodArn"])
            if isinstance(decision, Refusal):
                return decision
            connection.authorizer = decision
        event = events.build_connect_event(self.api, connection, handshake, latency=latency)
        return gateway.evaluate_connect(await self._invoke_integration(route, event))

    def _record_decision(
        self, decision: str | Refusal | None, handshake: Handshake, connection: Connection | None = None
    ) -> None:
        if self.journal:
            record_decision(self.journal, decision, handshake, connection)
        elif connection and isinstance(decision, Refusal):
            logger.info("%s refused: %s", connection.id, decision.status, extra={"body": decision.body})

    # Messages

    def _begin_message(self, peer: Peer, message: str) -> asyncio.Task[None]:
        peer.touch()
        return self._spawn(self._handle_message(peer, message))

    async def _handle_message(self, peer: Peer, message: str) -> None:
        if not self._server.is_serving():
            return
        key = self.api.route_selection.select(self.api.routes, message)
        event = events.build_message_event(self.api, peer.connection, key or "$default", message)
        recorder = self.journal and MessageRecorder(self.journal, event, key)
        reason = None
        try:
            reply = await self._reply(self.api.routes.get(key or ""), event)
        except IntegrationError as error:
            reply, reason = gateway.format_error_frame(str(error), peer.connection, event).encode(), error.reason
        sent = reply is not None and peer.send(reply)
        if recorder:
            recorder.finish(reply if sent else None, reason)

    async def _reply(self, route: Route | None, event: Event) -> bytes | None:
        """Invoke the route's function; return its reply, or None for a one-way route. Raise IntegrationError if it fails."""
        if route is None:
            raise IntegrationError("Forbidden", "no route")
        if not self._take_request(route):
            raise IntegrationError("Too Many Requests", "throttled")
        return gateway.evaluate_reply(await self._invoke_integration(route, event), route)

    # The end of connections

    def _disconnect(
        self, connection: Connection, socket: ClientSocket, closed: asyncio.Future[tuple[int, str]]
    ) -> None:
        """Remove a connection whose socket is closed, and run `$disconnect`."""
        self.connections.remove(connection.id)
        code, reason = closed.result()
        if self.journal:
            self.journal.record("end", connection.id, code=code, reason=reason, cause=socket.end_cause)
        if route := self.api.routes.get("$disconnect"):
            event = events.build_disconnect_event(self.api, connection, code=code, reason=reason)
            self._spawn(self._invoke_integration(route, event))

    def _schedule_due(self) -> None:
        due = self.connections.find_next_due()
        self._next_due = None if due is None else asyncio.get_running_loop().call_at(due, self._close_due)

    def _close_due(self) -> None:
        """Close the connections that have reached the idle limit or the connection limit."""
        for peer, limit in self.connections.remove_due():
            peer.socket.close(1001, "Going away", cause=limit)
        self._schedule_due()

    # Functions

    def _take_request(self, route: Route) -> bool:
        """Take one request from the throttles of the route and of the account; return whether both allow it."""
        now = time.monotonic()
        return self._route_requests[route.key].take(now) and self._requests.take(now)

    def _invoke_authorizer(self, authorizer: Authorizer, event: Event) -> Coroutine[Any, Any, InvocationResult]:
        source = f"{self.api.arn.rpartition('/')[0]}/authorizers/{authorizer.id}"
        return self._invoke(authorizer.function_arn, event, source, self.limits.integration_seconds)

    def _invoke_integration(self, route: Route, event: Event) -> Coroutine[Any, Any, InvocationResult]:
        seconds = min(route.timeout_seconds, self.limits.integration_seconds)
        return self._invoke(route.function_arn, event, f"{self.api.arn}/{route.key}", seconds)

    async def _invoke(self, function_arn: str, event: Event, source: str, seconds: float) -> InvocationResult:
        if self.iam.enforced and not self.api.may_invoke(function_arn, source):
            name = function_arn.rpartition(":function:")[2]  # with the alias
            self.iam.advise(
                f"API Gateway may not invoke {name}: add an AWS::Lambda::Permission with SourceArn {source}"
            )
            refused = InvocationResult(error=gateway.NO_PERMISSION, message="no permission to invoke the function")
            if self.journal:
                record_refused_invocation(self.journal, name, event, refused)
            return refused
        try:
            async with asyncio.timeout(seconds):
                return await self.invoke(function_arn, event)
        except TimeoutError:
            return InvocationResult(error="Sandbox.Timedout", message=f"the integration took over {seconds:g} s")

    # HTTP

    async def _serve_http(self, request: web.BaseRequest) -> web.StreamResponse:
        path = unquote(request.rel_url.raw_path)
        prefix = f"/{self.api.stage}/@connections/"
        if path.startswith(prefix):
            return await self._management.serve(request, path.removeprefix(prefix))
        is_stage = f"{path.partition('?')[0]}/".startswith(f"/{self.api.stage}/")
        return build_http_response(gateway.UPGRADE_REQUIRED if is_stage else gateway.FORBIDDEN)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
