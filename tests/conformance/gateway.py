"""Connect clients to a stage, observe their events, and call `@connections`."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

PATIENCE_SECONDS = 20.0  # a timeout: the waits of a test that succeeds are shorter
POLL_SECONDS = 0.02
HANDSHAKE = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg=="),
)

Event = dict[str, Any]
Script = Mapping[str, Any]
Parameters = Iterable[tuple[str, str]] | Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """An HTTP response; `headers` are by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Stage:
    """A deployed stage of a WebSocket API.

    Attributes:
        url: `wss://…/stage`.
        query: parameters that all clients must send.
        headers: headers that all clients must send.
        message: a message that selects a route with a probe behind it.
    """

    url: str
    region: str
    session: boto3.Session
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    message: Mapping[str, Any] = field(default_factory=lambda: {"action": "custom"})

    @property
    def callback_url(self) -> str:
        return f"http{self.url.removeprefix('ws')}"

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.strip("/")

    @cached_property
    def management(self) -> Any:
        """Return a boto3 client of `@connections` that does not retry."""
        return self.session.client(
            "apigatewaymanagementapi",
            endpoint_url=self.callback_url,
            region_name=self.region,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def close(self) -> None:
        if "management" in vars(self):
            self.management.close()


def encode(script: Script) -> str:
    return urlsafe_b64encode(json.dumps(script).encode()).decode()


class Client:
    """A WebSocket to the stage."""

    def __init__(self, socket: ClientConnection, stage: Stage) -> None:
        self.socket = socket
        self.stage = stage
        self._id: str | None = None

    @property
    def response(self) -> Response:
        assert self.socket.response
        return self.socket.response

    async def send(self, message: str | bytes | Sequence[str]) -> None:
        """Send a message; a sequence is sent as one message with a frame for each item."""
        await self.socket.send(message)

    async def do(self, *steps: Sequence[Any], message: Mapping[str, Any] | None = None, **ending: Any) -> None:
        """Send a message that makes the probe take these steps, then return (`returns`) or raise (`raises`).

        `repeats` is the number of times that the returned answer contains its body.
        """
        script: dict[str, Any] = {"steps": steps}
        script |= {name.removesuffix("s"): value for name, value in ending.items()}
        await self.send(json.dumps({**(message or self.stage.message), "do": script}))

    async def receive(self) -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            message = await self.socket.recv()
        assert isinstance(message, str), "API Gateway sends text frames only"
        return message

    async def report(self, **message: Any) -> Event:
        """Send a message; return its event."""
        await self.do(["report", "self"], message=message or None)
        event: Event = json.loads(await self.receive())["event"]
        return event

    async def id(self) -> str:
        """Return the connection's id."""
        if self._id is None:
            self._id = (await self.report())["requestContext"]["connectionId"]
        return str(self._id)

    async def report_within_throttle(self) -> Event:
        """Send a message again until the throttle accepts it; return its event."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                await self.do(["report", "self"])
                answer: dict[str, Any] = json.loads(await self.receive())
                if "event" in answer:
                    return dict(answer["event"])
                await asyncio.sleep(POLL_SECONDS)

    async def ping(self, payload: bytes) -> None:
        """Send a ping and wait for its pong."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await (await self.socket.ping(payload))

    async def wait_closed(self, seconds: float = PATIENCE_SECONDS) -> tuple[int | None, str | None]:
        """Wait until the connection is closed; return close code and reason."""
        async with asyncio.timeout(seconds):
            await self.socket.wait_closed()
        return self.socket.close_code, self.socket.close_reason

    def vanish(self) -> None:
        """End the TCP connection without a close frame."""
        self.socket.transport.abort()


class Observer(Client):
    """A client to which the probe posts all events of other connections."""

    def __init__(self, socket: ClientConnection, stage: Stage) -> None:
        super().__init__(socket, stage)
        self._skipped: deque[dict[str, Any]] = deque()

    async def next_report(self) -> dict[str, Any]:
        if self._skipped:
            return self._skipped.popleft()
        report: dict[str, Any] = json.loads(await self.receive())
        return report

    async def report_of(self, kind: str) -> dict[str, Any]:
        """Return the next report of the authorizer (`authorizer`) or of a route; keep reports of other kinds."""
        skipped: list[dict[str, Any]] = []
        report = await self.next_report()
        while get_kind(report["event"]) != kind:
            skipped.append(report)
            report = await self.next_report()
        self._skipped.extendleft(reversed(skipped))
        return report

    async def next(self) -> Event:
        event: Event = (await self.next_report())["event"]
        return event

    async def event(self, kind: str) -> Event:
        """Return the event of the next report of this kind."""
        event: Event = (await self.report_of(kind))["event"]
        return event


def get_kind(event: Event) -> str:
    return "authorizer" if event.get("type") == "REQUEST" else str(event["requestContext"]["routeKey"])


class Gateway:
    """A stage for one test. The connections that it opens are closed after the test."""

    def __init__(self, stage: Stage, opened: AsyncExitStack) -> None:
        self.stage = stage
        self._opened = opened

    def url(
        self,
        query: Parameters = (),
        *,
        observer: str | None = None,
        path: str = "",
        with_identity: bool = True,
        authorizer: Script | None = None,
        connect: Script | None = None,
        disconnect: Script | None = None,
    ) -> str:
        """Return the stage's URL, with the probe's scripts for the authorizer, `$connect` and `$disconnect`."""
        scripts = {"authorizer": authorizer, "connect": connect, "disconnect": disconnect}
        parameters = [*(self.stage.query if with_identity else ()), *list_pairs(query)]
        parameters += [("observer", observer)] if observer else []
        parameters += [(name, encode(script)) for name, script in scripts.items() if script]
        return f"{self.stage.url}{path}{'?' if parameters else ''}{urlencode(parameters)}"

    async def open(
        self, query: Parameters = (), *, headers: Parameters = (), options: Mapping[str, Any] = {}, **rest: Any
    ) -> Client:
        return Client(await self._connect(query, headers, options, rest), self.stage)

    async def open_within_throttle(self) -> Client:
        """Connect again until the throttle accepts the handshake."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return await self.open()
                except InvalidStatus as refusal:
                    assert refusal.response.status_code == 429  # noqa: PT017
                await asyncio.sleep(POLL_SECONDS)

    async def observer(self) -> tuple[Observer, str]:
        """Return a new observer and its connection's id."""
        observer = Observer(await self._connect((), (), {}, {}), self.stage)
        return observer, await observer.id()

    async def _connect(
        self, query: Parameters, headers: Parameters, options: Mapping[str, Any], rest: Mapping[str, Any]
    ) -> ClientConnection:
        fixed = self.stage.headers if rest.get("with_identity", True) else ()
        sent = [*fixed, *list_pairs(headers)]
        socket = await connect(
            self.url(query, **rest),
            additional_headers=sent,
            open_timeout=PATIENCE_SECONDS,
            ping_interval=None,
            close_timeout=1,
            **{"max_queue": None, **options},  # with a limit, unread messages would hide a close frame
        )
        self._opened.push_async_callback(socket.close)
        return socket

    async def expect_refusal(self, query: Parameters = (), **rest: Any) -> Answer:
        """Send a handshake that must be refused; return the response."""
        with pytest.raises(InvalidStatus) as refusal:
            await self.open(query, **rest)
        response = refusal.value.response
        headers = {name.lower(): value for name, value in response.headers.raw_items()}
        return Answer(response.status_code, headers, bytes(response.body or b""))

    async def status(self, **rest: Any) -> int:
        """Connect; return the status of the handshake."""
        try:
            return (await self.open(**rest)).response.status_code
        except InvalidStatus as refusal:
            return refusal.response.status_code

    async def handshake_head(self, url: str, headers: Parameters) -> str:
        """Send a handshake; `headers` replace or extend those of RFC 6455. Return the head of the response."""
        parts = urlsplit(url)
        secure = ssl.create_default_context() if parts.scheme == "wss" else None
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
        self._opened.callback(writer.close)
        given = {name.lower() for name, _ in list_pairs(headers)}
        kept = [(name, value) for name, value in [("Host", parts.netloc), *HANDSHAKE] if name.lower() not in given]
        lines = [f"GET {parts.path}?{parts.query} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in [*kept, *list_pairs(headers)]]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await reader.readuntil(b"\r\n\r\n")).decode()

    # `@connections`

    @property
    def management(self) -> Any:
        if self.stage.session.get_credentials() is None:
            pytest.skip("no AWS credentials: see --profile")
        return self.stage.management

    async def call(self, operation: str, connection_id: str, **parameters: Any) -> dict[str, Any]:
        """Return boto3's response, or raise boto3's error."""
        method = getattr(self.management, operation)
        response: dict[str, Any] = await asyncio.to_thread(method, ConnectionId=connection_id, **parameters)
        return response

    async def post(self, connection_id: str, data: bytes) -> None:
        await self.call("post_to_connection", connection_id, Data=data)

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, signed: bool = False, headers: Parameters = ()
    ) -> Answer:
        """Send an HTTP request to a path on the stage's host. The path is sent without further encoding."""
        return await asyncio.to_thread(self._request, method, path, body, signed, dict(list_pairs(headers)))

    def _request(self, method: str, path: str, body: bytes | None, signed: bool, headers: dict[str, str]) -> Answer:
        parts = urlsplit(self.stage.callback_url)
        url = f"{parts.scheme}://{parts.netloc}{path}"
        if signed:
            assert self.management is not None
            credentials = self.stage.session.get_credentials()
            assert credentials is not None
            request = AWSRequest(method, url, headers, body)
            SigV4Auth(credentials.get_frozen_credentials(), "execute-api", self.stage.region).add_auth(request)
            headers = dict(request.headers.items())
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.netloc, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())
        finally:
            connection.close()


def list_pairs(parameters: Parameters) -> list[tuple[str, str]]:
    return [*parameters.items()] if isinstance(parameters, Mapping) else [*parameters]
