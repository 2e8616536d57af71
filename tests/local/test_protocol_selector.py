"""Requests that are no WebSocket handshake and no call of `@connections`, and heads that arrive slowly or never."""

from __future__ import annotations

from contextlib import suppress

import pytest

from local.apigateway import sockets
from tests.fixtures.gateway import ADMINISTRATOR_KEYS, HANDSHAKE, Dial, Gateway, RawClient, request

# Requests without an upgrade


@pytest.mark.parametrize("path", ["/prod", "/prod/", "/prod?idToken=abc", "/prod/1", "/prod/1/2"])
async def test_plain_request_must_be_upgraded(gateway: Gateway, dial: Dial, path: str) -> None:
    """As on AWS, for the stage's path and for one or two segments below it."""
    status, *_ = await request(dial, gateway, f"GET {path}")

    assert status == 426
    assert gateway.functions.invoked == []


@pytest.mark.parametrize("path", ["/", "/dev", "/dev/@connections/x", "/production"])
async def test_plain_request_to_another_stage_is_forbidden(gateway: Gateway, dial: Dial, path: str) -> None:
    status, *_ = await request(dial, gateway, f"GET {path}", caller=ADMINISTRATOR_KEYS)

    assert status == 403


# Heads


async def test_handshake_may_come_byte_by_byte(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port)
    for byte in HANDSHAKE:
        client.writer.write(bytes([byte]))
        await client.writer.drain()

    assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "sent", [b"", b"GET /prod HTTP/1.1\r\nHost: loc", HANDSHAKE[:-2]], ids=["nothing", "part", "most"]
)
async def test_connection_without_a_head_times_out(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", 0.05)
    client = await dial(gateway.port, sent)

    assert await client.read_all() == b""
    assert gateway.functions.invoked == []


async def test_time_limit_of_heads_does_not_end_open_connections(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", 0.05)
    peer = await gateway.connect()
    idler = await dial(gateway.port)
    await idler.read_all()

    await peer.send("still here")

    assert (await gateway.functions.wait_for_event("$default"))["body"] == "still here"


LINE = b"X-Padding: " + b"x" * 1000 + b"\r\n"


@pytest.mark.parametrize("start", [b"GET /prod HTTP/1.1\r\n", HANDSHAKE[:-2]], ids=["http", "websocket"])
@pytest.mark.parametrize("padding", [LINE * 20, LINE * 200, b"X: " + b"x" * 100_000], ids=["long", "longer", "line"])
async def test_huge_head_ends_the_connection(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch, start: bytes, padding: bytes
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", 0.05)
    client = await dial(gateway.port, start + padding)

    await ended(client)
    assert gateway.functions.invoked == []


async def ended(client: RawClient) -> None:
    """Wait until the gateway has closed or reset the connection."""
    with suppress(ConnectionResetError):
        await client.read_all()


@pytest.mark.parametrize("sent", [b"hello", b"\x00\x01"], ids=repr)
async def test_bytes_that_are_not_http_are_a_bad_request(gateway: Gateway, dial: Dial, sent: bytes) -> None:
    client = await dial(gateway.port, sent + b"\r\n\r\n")

    assert b" 400 " in (await client.read_all()).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "line", ["OPTIONS * HTTP/1.1", "CONNECT localhost:80 HTTP/1.1", "GET http://localhost/ HTTP/1.1", "GET // HTTP/1.1"]
)
async def test_odd_target_is_refused_without_a_server_error(gateway: Gateway, dial: Dial, line: str) -> None:
    """RFC 9112 section 3.2."""
    client = await dial(gateway.port, f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    assert int((await client.read_all()).split()[1]) in range(400, 500)
