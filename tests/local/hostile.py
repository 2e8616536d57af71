"""Shared by the tests of bad input: bytes that no proper client sends, and a check that they do no harm."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from local.lambda_.invocation import Invocation
from tests.local.conftest import HANDSHAKE, PATIENCE_SECONDS, Dial, Gateway, RawClient, sign

# Traces of Python and its libraries. One header is left out: in it AWS names an exception of its model.
INTERNALS = re.compile(
    rb"Traceback|File \"|\.py\b|\b[A-Z]\w*(?:Error|Exception)\b|aiohttp|asyncio|websockets|[Pp]ython|\bb'|0x[0-9a-f]{6}"
)
ERROR_TYPE = re.compile(rb"x-amzn-ErrorType: \w+\r\n")
OK = Invocation({"statusCode": 200})
NO_LINGER = struct.pack("ii", 1, 0)  # for SO_LINGER: close with an RST

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA  # RFC 6455 section 11.8
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Return a client's frame, valid or not. Its masking key is zero, so the payload stays readable."""
    start = bytes([fin << 7 | rsv | opcode])
    mask_bit = masked << 7
    if len(payload) < 126:
        length = bytes([mask_bit | len(payload)])
    elif len(payload) < 65_536:
        length = struct.pack("!BH", mask_bit | 126, len(payload))
    else:
        length = struct.pack("!BQ", mask_bit | 127, len(payload))
    return start + length + bytes(4 if masked else 0) + payload


def close_frame(code: int) -> bytes:
    """Return the gateway's close frame with a code and without a reason."""
    return b"\x88\x02" + struct.pack("!H", code)


def post(connection_id: str, headers: bytes, body: bytes = b"") -> bytes:
    """Return a PostToConnection with additional headers."""
    return call("POST", connection_id, headers, body)


def call(method: str, connection_id: str, headers: bytes = b"", body: bytes = b"") -> bytes:
    """Return a signed call of `@connections`."""
    line = f"{method} /prod/@connections/{connection_id}"
    signed = "\r\n".join(sign(line, body)).encode()
    return b"%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n%s\r\n%s" % (line.encode(), signed, headers, body)


async def heard(client: RawClient) -> bytes:
    """Return everything that the gateway sends until it closes. Fail if that reveals internals."""
    said = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while some := await client.reader.read(65_536):
                said += some
        except ConnectionError:
            pass
    client.writer.close()
    assert not INTERNALS.search(ERROR_TYPE.sub(b"", said)), said[:1000]
    return said


async def answer(gateway: Gateway, dial: Dial, sent: bytes) -> bytes:
    """Send this on a new connection; return everything that the gateway sends until it closes."""
    return await heard(await dial(gateway.port, sent))


def status(answer: bytes) -> int | None:
    """Return the status of a response; None for no response."""
    return int(answer.split()[1]) if answer else None


def reset(client: RawClient) -> None:
    """Abort the connection with an RST."""
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    client.writer.transport.abort()


def half_close(client: RawClient) -> None:
    """Send a FIN, and keep reading."""
    client.writer.write_eof()


def hold(gateway: Gateway, route: str) -> asyncio.Event:
    """Let the function of a route, or the authorizer, wait for the event that this returns."""
    may_answer = asyncio.Event()
    answer = gateway.functions.behaviour.get(route, OK)
    assert isinstance(answer, Invocation)

    async def held(_: Any) -> Invocation:
        await may_answer.wait()
        return answer

    gateway.functions.behaviour[route] = held
    return may_answer


@asynccontextmanager
async def dripping(client: RawClient, drip: bytes, seconds: float = 0.005) -> AsyncIterator[None]:
    """Send these bytes again and again in the background."""

    async def send() -> None:
        with suppress(ConnectionError):
            while True:
                client.writer.write(drip)
                await client.writer.drain()
                await asyncio.sleep(seconds)

    task = asyncio.create_task(send())
    yield
    task.cancel()
    await asyncio.wait([task])


async def upgraded(gateway: Gateway, dial: Dial, extensions: bytes = b"") -> RawClient:
    """Return a connection after its 101."""
    client = await dial(gateway.port, HANDSHAKE.removesuffix(b"\r\n") + extensions + b"\r\n")
    assert status(await client.read_head()) == 101
    return client


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Measure the peak of the memory in bytes that is allocated from here on."""
    tracemalloc.start()
    peak = 0
    try:
        yield lambda: peak
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition is true, or for PATIENCE_SECONDS; the test then asserts it."""
    for _ in range(round(PATIENCE_SECONDS / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))  # also where there is no /proc


async def serves(gateway: Gateway) -> bool:
    """Return True after a new client has connected and sent a message."""
    async with await gateway.connect() as peer:
        await peer.send("hello from the next one")
        while (await gateway.functions.event("$default"))["body"] != "hello from the next one":
            pass
    return True


@asynccontextmanager
async def unharmed(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Check at the end that the gateway has kept no connection, task or file, serves clients, and logged no error."""
    server = gateway.server
    files = open_files()
    behaviour = dict(gateway.functions.behaviour)

    def left() -> dict[str, Any]:
        remains = {
            "connections": len(server.connections),
            "heads awaited": len(server._unselected),
            "HTTP connections": len(server._http.connections),
            "tasks": server._tasks | asyncio.all_tasks() - {asyncio.current_task()},
            "files": max(0, open_files() - files),
        }
        return {what: remain for what, remain in remains.items() if remain}

    yield
    gateway.functions.behaviour.update(behaviour)
    await eventually(lambda: not left())
    assert left() == {}

    assert await serves(gateway)
    logged = [record for when in ("setup", "call", "teardown") for record in caplog.get_records(when)]
    assert [record.getMessage() for record in logged if record.levelno >= logging.ERROR or record.exc_info] == []
