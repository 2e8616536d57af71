"""The servers that the measured functions call. All listen on the loopback interface, in the one thread of this process."""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from local.ids import make_span_id, make_trace_id
from local.lambda_.http import HttpConnection

FUNCTION_SECONDS = 60.0
JSON = {"Content-Type": "application/json"}

Answer = Callable[[HTTPStatus, dict[str, str], bytes], None]


class FunctionError(Exception):
    """The function reported an error instead of an answer. The message is the report."""


class HttpServer:
    """An HTTP/1.1 server with keep-alive that counts its connections and requests."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> str:
        """Listen on a free port and return the address."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, ssl=tls)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def stop(self) -> None:
        self._server.close()

    def respond(self, target: str, body: bytes, answer: Answer) -> None:
        raise NotImplementedError


class Connection(HttpConnection):
    """A connection to an HttpServer, which counts it."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__()
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.server.connections += 1

    def serve(self, method: str, target: str, body: bytes) -> None:
        self.server.requests += 1
        self.server.respond(target, body, self.answer)


class FixedAnswer(HttpServer):
    """A server that gives the same answer to each request."""

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        super().__init__()
        self._body = body
        self._headers = headers

    def respond(self, target: str, body: bytes, answer: Answer) -> None:
        answer(HTTPStatus.OK, self._headers, self._body)


class RuntimeApi(HttpServer):
    """A Lambda Runtime API for one subject, https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html."""

    def __init__(self) -> None:
        super().__init__()
        self.expect_start()

    def expect_start(self) -> None:
        """Forget the last execution environment, and expect a new one."""
        self._next: asyncio.Future[tuple[float, Answer]] = asyncio.get_running_loop().create_future()
        self._answered: asyncio.Future[tuple[float, bytes]] = asyncio.get_running_loop().create_future()

    async def wait_until_idle(self) -> float:
        """Wait until the function asks for its next invocation; return the time at which it asked."""
        asked, _ = await asyncio.shield(self._next)  # a timeout here must not cancel it
        return asked

    async def invoke(self, event: bytes, *, sampled: bool | None) -> tuple[float, bytes]:
        """Send an invocation; return how many seconds the answer took, and the answer."""
        _, answer = await self._next
        loop = asyncio.get_running_loop()
        self._next, self._answered = loop.create_future(), loop.create_future()
        headers = {
            **JSON,  # awslambdaric 4.2.2 crashes without it
            "Lambda-Runtime-Aws-Request-Id": str(uuid.uuid4()),
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + FUNCTION_SECONDS) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:benchmark",
        }
        if sampled is not None:
            trace = f"Root={make_trace_id()};Parent={make_span_id()};Sampled={sampled:d}"
            headers["Lambda-Runtime-Trace-Id"] = trace
        started = time.perf_counter()
        answer(HTTPStatus.OK, headers, event)
        ended, body = await self._answered
        return ended - started, body

    def respond(self, target: str, body: bytes, answer: Answer) -> None:
        now = time.perf_counter()
        match target.removeprefix("/2018-06-01/runtime/").split("/"):
            case ["invocation", "next"]:
                self._next.set_result((now, answer))
                return
            case ["invocation", _, "response"]:
                self._answered.set_result((now, body))
            case ["invocation", _, "error"]:
                self._answered.set_exception(FunctionError(body.decode(errors="replace")))
            case ["init", "error"]:
                self._next.set_exception(FunctionError(body.decode(errors="replace")))
        answer(HTTPStatus.ACCEPTED, JSON, b'{"status":"OK"}')


class TraceDaemon(asyncio.DatagramProtocol):
    """A stand-in for the X-Ray daemon that counts the datagrams it receives."""

    def __init__(self) -> None:
        self.datagrams = 0

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.datagrams += 1
