"""The protocols of the gateway's port. WebSocket clients and callers of `@connections` share the port, as on AWS."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import responses

from aiohttp import web
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from local.apigateway import gateway
from local.apigateway.gateway import BAD_REQUEST, Refusal
from local.apigateway.limits import MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_URL_CHARACTERS
from local.ids import make_id, random_bits

REQUEST_SECONDS = 10.0  # for a client to send the head of a request; the body has as long
MAX_HEAD_BYTES = 16 * 1024
# The library also compares the compressed size of a frame with its limits. Compression can make a frame larger.
COMPRESSION_BYTES = 64
MAX_FRAGMENTS = 4096  # of a message
MAX_WAITING = 16  # waiting messages of a client; reading pauses above that
WRITE_BUFFER_BYTES = 512 * 1024  # unsent data for a client; reading pauses above that
UNREAD_SECONDS = 10.0  # how long the write buffer may stay full before the client is aborted
CLOSE_SECONDS = 1.0  # how long a client may take to answer a close frame and to close
TLS_HANDSHAKE = b"\x16\x03"
DATA_OPCODES = {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}
# AWS was observed to select 12 bits.
DEFLATE = ServerPerMessageDeflateFactory(server_max_window_bits=12, compress_settings={"memLevel": 5})
HEAD_TOO_LARGE = Refusal.of(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large")

logger = logging.getLogger(__name__)
library_logger = logging.getLogger("local.websocket")
library_logger.setLevel(logging.WARNING)  # lower levels log the frames that are sent and received


@dataclass(eq=False)
class ProtocolSelector(asyncio.Protocol):
    """Reads the head of a connection's first request, then hands the connection to the WebSocket or HTTP protocol.

    Attributes:
        unselected: all transports without a selected protocol. This one is added, and removed when its protocol is selected.
    """

    unselected: set[asyncio.BaseTransport]
    make_websocket: Callable[[], asyncio.Protocol]
    make_http: Callable[[], asyncio.Protocol]
    received: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.unselected.add(transport)
        self.timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def data_received(self, data: bytes) -> None:
        self.received = (self.received + data).lstrip(b"\r\n")  # RFC 9112 section 2.2
        if self.received.startswith(TLS_HANDSHAKE):
            logger.warning("a client speaks TLS, and the gateway does not: its URL must begin with ws:// or http://")
            self._finish()
            self.transport.abort()
            return
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES:
            self._refuse(HEAD_TOO_LARGE)
        elif end and len(head.partition(b"\r\n")[0]) > MAX_URL_CHARACTERS:
            self._refuse(gateway.URL_TOO_LONG)
        elif end and is_upgrade(head):
            self._hand_over(self.make_websocket(), head + end, rest)
        elif end:
            self._hand_over(self.make_http(), self.received)

    def _hand_over(self, protocol: asyncio.Protocol, *received: bytes) -> None:
        self._finish()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        for data in received:
            protocol.data_received(data)

    def _refuse(self, refusal: Refusal) -> None:
        logger.warning("a request was refused: %d %s", refusal.status, HTTPStatus(refusal.status).phrase)
        self._finish()
        self.transport.write(build_handshake_response(refusal, make_id()).serialize())
        self.transport.close()

    def _finish(self) -> None:
        self.timer.cancel()
        self.unselected.discard(self.transport)


def is_upgrade(head: bytes) -> bool:
    request, *headers = head.lower().split(b"\r\n")
    return request.startswith(b"get ") and any(
        name.strip() == b"upgrade" and value.strip() == b"websocket"
        for name, _, value in (header.partition(b":") for header in headers)
    )


class ClientSocket(asyncio.Protocol):
    """A client's WebSocket, with API Gateway's limits. It drives the library's sans-I/O protocol.

    https://websockets.readthedocs.io/en/stable/howto/sansio.html

    Aborts clients that do not close, or that leave more than the write buffer unread. As backpressure, reading pauses
    while the client's write buffer is full or while many of its messages wait, so that no client can fill the memory.

    Args:
        on_request: called with the opening handshake; then `accept` or `refuse` must be called.
        max_in_flight: how many messages may be handled at the same time; others wait.

    Attributes:
        closed: done when the connection is lost; its result is the code and reason for the `$disconnect` event.
        end_cause: what ended the connection, once it is closed; shown to the user of the local run.
    """

    def __init__(self, on_request: Callable[[ClientSocket, Request], None], max_in_flight: int) -> None:
        limits = (MAX_MESSAGE_BYTES + COMPRESSION_BYTES, MAX_FRAME_BYTES + COMPRESSION_BYTES)
        self._protocol = ServerProtocol(extensions=[DEFLATE], max_size=limits, logger=library_logger)
        self._loop = asyncio.get_running_loop()
        self._on_request = on_request
        self._on_message: Callable[[str], asyncio.Future[None]]
        self._max_in_flight = max_in_flight
        self._response: Response
        self._early: bytes | None = None  # data that arrived before the handshake was answered
        self._message = bytearray()  # the fragments of an incomplete message
        self._fragments = 0
        self._waiting: deque[str] = deque()
        self._in_flight = 0
        self._has_failed = False  # the library has failed the connection; AWS is assumed to send no close reason then
        self._unread_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self.end_cause = "connection lost"

    @property
    def is_open(self) -> bool:
        return self._protocol.state is State.OPEN and not self.transport.is_closing()

    @property
    def source_ip(self) -> str:
        return str(self.transport.get_extra_info("peername")[0])

    # The opening handshake

    def negotiate(self, request: Request) -> Refusal | None:
        """Prepare the 101; return the refusal of a request that is not a WebSocket handshake."""
        self._response = self._protocol.accept(request)
        if self._response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            return None
        # The library's own answer may quote a header that carries a token.
        no_upgrade = self._response.status_code == HTTPStatus.UPGRADE_REQUIRED
        refusal = gateway.UPGRADE_REQUIRED if no_upgrade else BAD_REQUEST
        return gateway.add_reason("it is no WebSocket handshake", refusal)

    def accept(self, subprotocol: str | None, on_message: Callable[[str], asyncio.Future[None]]) -> None:
        """Send the 101, then call `on_message` with each message. It returns a future that is done when the message is handled."""
        early, self._early = self._early, None
        if self._protocol.state is not State.CONNECTING:
            return
        if subprotocol is not None:
            self._response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._on_message = on_message
        self._protocol.send_response(self._response)
        self._write()
        self.data_received(early or b"")

    def refuse(self, refusal: Refusal, request_id: str) -> None:
        """Answer the handshake with a refusal and close. `request_id` is API Gateway's, for a response header."""
        self._early = None
        if self._protocol.state is State.CONNECTING:
            self._protocol.send_response(build_handshake_response(refusal, request_id))
            self._write()
            self.transport.resume_reading()

    # Messages

    def send(self, message: bytes) -> bool:
        """Send a text message; return False if the client has disconnected."""
        if not self.is_open:
            return False
        self._protocol.send_text(message)
        self._write()
        return True

    def close(self, code: int, reason: str = "", *, cause: str = "") -> None:
        """Begin the closing handshake, unless the connection is closing or closed. `cause` becomes `end_cause`."""
        if self.is_open:
            self.end_cause = cause
            self._protocol.send_close(code, reason)
            self._write()

    def _assemble(self, frame: Frame) -> CloseCode | None:
        """Add a data frame to the message; return a close code if the connection must fail."""
        if frame.opcode is Opcode.BINARY:
            return CloseCode.UNSUPPORTED_DATA
        self._message += frame.data
        self._fragments += 1
        too_large = len(frame.data) > MAX_FRAME_BYTES or len(self._message) > MAX_MESSAGE_BYTES
        if too_large or self._fragments > MAX_FRAGMENTS:
            return CloseCode.MESSAGE_TOO_BIG
        if frame.fin:
            try:
                self._waiting.append(self._message.decode())
            except UnicodeDecodeError:
                return CloseCode.INVALID_DATA
            self._message, self._fragments = bytearray(), 0
        return None

    def _deliver(self) -> None:
        """Hand over waiting messages. Pause reading if too many still wait or the write buffer is full, else resume."""
        while self._waiting and self._in_flight < self._max_in_flight and not self._unread_timer:
            self._in_flight += 1
            self._on_message(self._waiting.popleft()).add_done_callback(self._acknowledge)
        if self._unread_timer or len(self._waiting) > MAX_WAITING:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _acknowledge(self, _: asyncio.Future[None]) -> None:
        self._in_flight -= 1
        self._deliver()

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            self._early += data
            if len(self._early) > MAX_HEAD_BYTES:
                self.transport.pause_reading()
            return
        was_open = self.is_open
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        if was_open and self._protocol.close_expected():
            self._has_failed = not any(isinstance(event, Frame) and event.opcode is Opcode.CLOSE for event in events)
            self.end_cause = "protocol error" if self._has_failed else "client"
        self._write()
        for event in events:
            if isinstance(event, Request):
                self._early = b""
                self._on_request(self, event)
            elif isinstance(event, Frame) and event.opcode in DATA_OPCODES and (code := self._assemble(event)):
                self.end_cause = "protocol error" if self.is_open else self.end_cause
                self._protocol.fail(code)
                self._write()
                break
        self._deliver()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self.transport.abort()  # asyncio's close() would wait until the client has read everything

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.receive_eof()
        for timer in (self._unread_timer, self._close_timer):
            if timer:
                timer.cancel()
        code, reason = find_disconnect_status(self._protocol.close_exc)
        self.closed.set_result((code, "" if self._has_failed else reason))

    def pause_writing(self) -> None:
        self._unread_timer = self._loop.call_later(UNREAD_SECONDS, self.transport.abort)
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self._unread_timer
        self._unread_timer.cancel()
        self._unread_timer = None
        self._deliver()

    def _write(self) -> None:
        """Write the protocol's pending data. If the client must close now, start the timer that aborts it."""
        frames = self._protocol.data_to_send()
        if data := b"".join(frames):
            self.transport.write(cut_reason(data) if self._has_failed else data)
        if SEND_EOF in frames:
            with suppress(OSError):  # the client has disconnected, and the event loop has not noticed yet
                self.transport.write_eof()
        if self._protocol.close_expected() and not self._close_timer:
            self._close_timer = self._loop.call_later(CLOSE_SECONDS, self.transport.abort)


def cut_reason(frames: bytes) -> bytes:
    """Remove the reason from the close frame, which follows the other control frames (RFC 6455 section 5)."""
    start = 0
    while frames[start] & 0x0F != Opcode.CLOSE:
        start += 2 + frames[start + 1]
    return frames[:start] + b"\x88\x02" + frames[start + 2 : start + 4]


def find_disconnect_status(end: ConnectionClosed) -> tuple[int, str]:
    """Return code and reason for the `$disconnect` event. They are those of the first close frame."""
    first = (end.rcvd if end.rcvd_then_sent else end.sent) or end.rcvd
    if first is None:
        return 1006, ""
    if first.code == CloseCode.NO_STATUS_RCVD:
        return 1005, "Client-side close frame status not set"
    return int(first.code), first.reason


class HttpRequest(web.BaseRequest):
    """An HTTP request. Its response has no header that names the server's software."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.pop("Server", None)


class HttpSocket(web.RequestHandler):
    """An HTTP connection. Answers a malformed request as AWS would, and does not log it as an error."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        response = build_http_response(BAD_REQUEST)
        response.force_close()
        return response


def build_request_id_header() -> dict[str, str]:
    """Return the header that AWS adds to every response."""
    return {"x-amzn-RequestId": str(uuid.UUID(int=random_bits(128), version=4))}


def build_refusal_headers(refusal: Refusal) -> dict[str, str]:
    headers = {"Content-Type": "application/json", **build_request_id_header()}
    return {**headers, "x-amzn-ErrorType": refusal.error_type} if refusal.error_type else headers


def build_handshake_response(refusal: Refusal, request_id: str) -> Response:
    body = b"" if refusal.status == HTTPStatus.NOT_MODIFIED else refusal.body
    headers = Headers(build_refusal_headers(refusal))
    headers.update({"Content-Length": str(len(body)), "Connection": "close"})
    headers["x-amz-apigw-id"] = request_id  # where REST APIs return `$context.extendedRequestId`
    if refusal in {BAD_REQUEST, gateway.UPGRADE_REQUIRED}:
        headers.update({"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})  # RFC 6455 section 4.4
    return Response(refusal.status, responses.get(refusal.status, ""), headers, body)


def build_http_response(refusal: Refusal | None) -> web.Response:
    """Return the HTTP response of a refusal; for None an empty 200."""
    if refusal is None:
        return web.Response(headers=build_request_id_header())
    return web.Response(status=refusal.status, body=refusal.body, headers=build_refusal_headers(refusal))
