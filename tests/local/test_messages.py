"""Messages from clients: where they go, what comes back, and which are too much."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from local.events import Event
from local.gateway import Invocation
from tests.local.conftest import PATIENCE_SECONDS, Gateway, Serve, api, received

FRAME = 32 * 1024
MESSAGE = 128 * 1024


async def close_code(peer: ClientConnection) -> int | None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await peer.wait_closed()
    return peer.close_code


async def test_message_reaches_its_route_as_it_was_sent(serve: Serve) -> None:
    gateway = await serve(api("$default", "send"))
    peer = await gateway.connect()

    await peer.send('{"text": "こんにちは",\n"action": "send"}')
    await peer.send("plain")

    events = [await gateway.functions.event(route) for route in ("send", "$default")]
    assert [event["body"] for event in events] == ['{"text": "こんにちは",\n"action": "send"}', "plain"]


async def test_message_does_not_wait_for_the_one_before(gateway: Gateway) -> None:
    may_end = asyncio.Event()

    async def slow(event: Event) -> Invocation:
        if event["body"] == "first":
            await may_end.wait()
        return Invocation({"statusCode": 200})

    gateway.functions.behaviour["$default"] = slow
    peer = await gateway.connect()
    await peer.send("first")
    await peer.send("second")

    bodies = [(await gateway.functions.event("$default"))["body"] for _ in range(2)]
    may_end.set()
    assert bodies == ["first", "second"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Invocation(error="KeyError", message="'secret'"), "Internal server error"),
        (Invocation({"ConnectionId": "x", "Data": "y", "statusCode": 200}), "Internal server error"),
        (Invocation(None), "Internal server error"),
        (Invocation(error="Sandbox.Timedout", message="Task timed out"), "Endpoint request timed out"),
    ],
    ids=["error", "unknown keys", "null", "timeout"],
)
async def test_client_is_told_of_a_failed_message_and_stays_connected(
    gateway: Gateway, answer: Invocation, message: str
) -> None:
    peer, connection_id = await gateway.connected()
    gateway.functions.behaviour["$default"] = answer

    for _ in range(2):
        await peer.send("hello")
        event = await gateway.functions.event("$default")
        ids = f'"connectionId":"{connection_id}", "requestId":"{event["requestContext"]["requestId"]}"'
        assert await received(peer) == f'{{"message": "{message}", {ids}}}'


async def test_message_without_a_route_is_forbidden_and_the_client_stays_connected(serve: Serve) -> None:
    gateway = await serve(api("$connect", "send"))
    peer, connection_id = await gateway.connected()

    await peer.send("hello")
    frame = await received(peer)
    await peer.send('{"action": "send"}')

    assert frame.startswith(f'{{"message": "Forbidden", "connectionId":"{connection_id}", "requestId":"')
    assert (await gateway.functions.event("send"))["body"] == '{"action": "send"}'


async def test_answer_to_a_message_is_not_sent(gateway: Gateway) -> None:
    gateway.functions.behaviour["$default"] = Invocation({"statusCode": 500, "body": "not for the client"})
    peer, connection_id = await gateway.connected()

    await peer.send("hello")
    await gateway.functions.event("$default")
    await asyncio.to_thread(gateway.management.post_to_connection, ConnectionId=connection_id, Data=b"for the client")

    assert await received(peer) == "for the client"


# Limits


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("size", [1, FRAME])
async def test_frame_up_to_32_kb_is_delivered(gateway: Gateway, compression: Any, size: int) -> None:
    peer = await gateway.connect(compression=compression)

    await peer.send("x" * size)

    assert (await gateway.functions.event("$default"))["body"] == "x" * size


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_larger_frame_closes_the_connection(gateway: Gateway, compression: Any) -> None:
    peer = await gateway.connect(compression=compression)

    await peer.send("x" * (FRAME + 1))

    assert await close_code(peer) == 1009
    code, _ = await gateway.disconnect_event()
    assert code == 1009
    assert "$default" not in gateway.functions.invoked


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_message_up_to_128_kb_is_delivered_in_one_piece(gateway: Gateway, compression: Any) -> None:
    peer = await gateway.connect(compression=compression)

    await peer.send(["x" * FRAME] * 4)

    assert (await gateway.functions.event("$default"))["body"] == "x" * MESSAGE


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_larger_message_closes_the_connection(gateway: Gateway, compression: Any) -> None:
    peer = await gateway.connect(compression=compression)

    await peer.send([*["x" * FRAME] * 4, "x"])

    assert await close_code(peer) == 1009
    assert "$default" not in gateway.functions.invoked


async def test_size_of_a_message_is_that_of_its_bytes(gateway: Gateway) -> None:
    peer = await gateway.connect()

    await peer.send("é" * (FRAME // 2 + 1))

    assert await close_code(peer) == 1009


async def test_binary_message_closes_the_connection(gateway: Gateway) -> None:
    peer = await gateway.connect()

    await peer.send(b"hello")

    assert await close_code(peer) == 1003
    assert await gateway.disconnect_event() == (1003, "")
    assert "$default" not in gateway.functions.invoked


async def test_text_that_is_not_utf_8_closes_the_connection(gateway: Gateway) -> None:
    """RFC 6455 section 8.1."""
    peer = await gateway.connect()

    await peer.send(base64.b64decode("/w=="), text=True)

    assert await close_code(peer) == 1007
    assert "$default" not in gateway.functions.invoked


async def test_ping_is_answered_by_the_gateway_itself(gateway: Gateway) -> None:
    peer = await gateway.connect()
    payload = os.urandom(125)

    async with asyncio.timeout(PATIENCE_SECONDS):
        await (await peer.ping(payload))

    assert gateway.functions.invoked == ["$connect"]


async def test_client_that_left_gets_no_error_frame(gateway: Gateway) -> None:
    gone = asyncio.Event()

    async def fail_late(_: Event) -> Invocation:
        await gone.wait()
        return Invocation(error="KeyError", message="'x'")

    gateway.functions.behaviour["$default"] = fail_late
    peer = await gateway.connect()
    await peer.send("hello")
    await peer.close()
    await gateway.disconnect_event()
    gone.set()

    with pytest.raises(ConnectionClosed):
        await received(peer)
