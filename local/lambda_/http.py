"""A minimal HTTP server for the Lambda Runtime API."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from httptools import HttpRequestParser


class HttpConnection(asyncio.Protocol):
    """An HTTP/1.1 connection for a client that waits for each response before its next request.

    A server library would be more convenient, but it would take a fifth of a message's total time.
    """

    def __init__(self) -> None:
        self.parser = HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.target = self.body = b""

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.serve(self.parser.get_method().decode(), self.target.decode(), self.body)

    def serve(self, method: str, target: str, body: bytes) -> None:
        """Handle a request; call `answer` now or later."""
        raise NotImplementedError

    def answer(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)
