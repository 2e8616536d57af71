"""Messages from clients: routes, replies, order and limits."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from local.apigateway.events import Event
from local.lambda_.invocation import Invocation
from tests.fixtures.apis import OUR_ROUTES, api
from tests.fixtures.gateway import PATIENCE_SECONDS, Behaviour, Gateway, Serve, receive, wait_until_closed

FRAME = 32 * 1024
MESSAGE = 128 * 1024


async def test_message_arrives_at_its_route_unchanged(serve: Serve) -> None:
    gateway = await serve(api("$default", "send"))
    peer = await gateway.connect()

    messages = ['{"text": "こんにちは",\n"action": "send"}', "plain", r'{"action": "\ud83d"}']
    for message in messages:
        await peer.send(message)

    events = [await gateway.functions.wait_for_event(route) for route in ("send", "$default", "$default")]
    assert [event["body"] for event in events] == messages


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
async def test_client_gets_an_error_frame_for_a_failed_message_and_stays_connected(
    gateway: Gateway, answer: Invocation, message: str
) -> None:
    peer, connection_id = await gateway.connect_with_id()
    gateway.functions.behaviour["$default"] = answer

    for _ in range(2):
        await peer.send("hello")
        event = await gateway.functions.wait_for_event("$default")
        ids = f'"connectionId":"{connection_id}", "requestId":"{event["requestContext"]["requestId"]}"'
        assert await receive(peer) == f'{{"message": "{message}", {ids}}}'


async def test_message_without_a_route_is_forbidden_and_the_client_stays_connected(serve: Serve) -> None:
    gateway = await serve(api("$connect", "send"))
    peer, connection_id = await gateway.connect_with_id()

    await peer.send("hello")
    frame = await receive(peer)
    await peer.send('{"action": "send"}')

    assert frame.startswith(f'{{"message": "Forbidden", "connectionId":"{connection_id}", "requestId":"')
    assert (await gateway.functions.wait_for_event("send"))["body"] == '{"action": "send"}'


async def test_client_gets_an_error_frame_after_the_time_limit_of_the_route(serve: Serve) -> None:
    gateway = await serve(api(*OUR_ROUTES, routes={"$default": {"timeout_seconds": 0.05}}))
    gateway.functions.behaviour["$default"] = blocked(asyncio.Event(), "hello")
    peer = await gateway.connect()

    await peer.send("hello")

    assert (await receive(peer)).startswith('{"message": "Endpoint request timed out", "connectionId":"')


# Replies


@pytest.fixture
async def two_way(serve: Serve) -> Gateway:
    """A gateway whose route `ask` is two-way and whose `$default` is not."""
    return await serve(api("$connect", "$default", "ask", routes={"ask": {"two_way": True}}))


ASK = '{"action": "ask"}'


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ({"statusCode": 200, "body": "こんにちは 👋"}, "こんにちは 👋"),
        ({"statusCode": 200, "body": '{"a": 1}', "headers": {"Content-Type": "application/json"}}, '{"a": 1}'),
        (
            {"statusCode": 200, "body": base64.b64encode("こんにちは".encode()).decode(), "isBase64Encoded": True},
            "こんにちは",
        ),
        ({"statusCode": 500, "body": "failed"}, "failed"),
        ({"statusCode": 301, "body": "moved"}, "moved"),
        ({"statusCode": 200, "body": ""}, ""),
        ({"statusCode": 200}, ""),
    ],
    ids=["text", "JSON", "base64", "500", "301", "empty", "none"],
)
async def test_two_way_route_sends_its_body(two_way: Gateway, answer: dict[str, Any], sent: str) -> None:
    two_way.functions.behaviour["ask"] = Invocation(answer)
    peer = await two_way.connect()

    for _ in range(2):
        await peer.send(ASK)
        assert await receive(peer) == sent


@pytest.mark.parametrize("status", [200, 500])
async def test_one_way_route_sends_nothing(two_way: Gateway, status: int) -> None:
    two_way.functions.behaviour["$default"] = Invocation({"statusCode": status, "body": "not for the client"})
    two_way.functions.behaviour["ask"] = Invocation({"statusCode": 200, "body": "for the client"})
    peer = await two_way.connect()

    await peer.send("hello")
    await two_way.functions.wait_for_event("$default")
    await peer.send(ASK)

    assert await receive(peer) == "for the client"


@pytest.mark.parametrize(
    "answer",
    [
        Invocation(error="KeyError", message="'secret'"),
        Invocation({"body": "no status"}),
        Invocation({"statusCode": 200, "body": {"a": 1}}),
        Invocation({"statusCode": 200, "body": "/w==", "isBase64Encoded": True}),
        Invocation({"statusCode": 200, "body": "\ud83d"}),
        Invocation({"statusCode": 200, "body": "x" * (MESSAGE + 1)}),
    ],
    ids=["error", "no status", "object", "not UTF-8", "lone surrogate", "too large"],
)
async def test_failed_two_way_route_sends_only_an_error_frame(two_way: Gateway, answer: Invocation) -> None:
    two_way.functions.behaviour["ask"] = answer
    peer = await two_way.connect()

    await peer.send(ASK)
    frame = await receive(peer)
    two_way.functions.behaviour["ask"] = Invocation({"statusCode": 200, "body": "works"})
    await peer.send(ASK)

    assert frame.startswith('{"message": "Internal server error", "connectionId":"')
    assert await receive(peer) == "works"


async def test_reply_goes_to_the_connection_of_its_message(two_way: Gateway) -> None:
    async def own_id(event: Event) -> Invocation:
        return Invocation({"statusCode": 200, "body": event["requestContext"]["connectionId"]})

    two_way.functions.behaviour["ask"] = own_id
    peers = [await two_way.connect_with_id() for _ in range(2)]

    for peer, _ in peers:
        await peer.send(ASK)

    assert [await receive(peer) for peer, _ in peers] == [connection_id for _, connection_id in peers]


async def test_body_of_a_two_way_connect_route_is_not_sent(serve: Serve) -> None:
    two_way = {"two_way": True}
    gateway = await serve(api("$connect", "$default", routes={"$connect": two_way, "$default": two_way}))
    gateway.functions.behaviour["$connect"] = Invocation({"statusCode": 200, "body": "connected"})
    gateway.functions.behaviour["$default"] = Invocation({"statusCode": 200, "body": "answered"})
    peer = await gateway.connect()

    await peer.send("hello")

    assert await receive(peer) == "answered"


# Order


def blocked(until: asyncio.Event, body: str) -> Behaviour:
    """Return a function that echoes messages, but waits for an event before it echoes one of them."""

    async def answer(event: Event) -> Invocation:
        if event["body"] == body:
            await until.wait()
        return Invocation({"statusCode": 200, "body": event["body"]})

    return answer


async def test_message_does_not_wait_for_the_previous_one(gateway: Gateway) -> None:
    may_end = asyncio.Event()
    gateway.functions.behaviour["$default"] = blocked(may_end, "first")
    peer = await gateway.connect()
    await peer.send("first")
    await peer.send("second")

    bodies = [(await gateway.functions.wait_for_event("$default"))["body"] for _ in range(2)]
    may_end.set()
    assert bodies == ["first", "second"]


async def test_replies_may_come_in_another_order_than_their_messages(serve: Serve) -> None:
    gateway = await serve(api("$default", routes={"$default": {"two_way": True}}))
    may_end = asyncio.Event()
    gateway.functions.behaviour["$default"] = blocked(may_end, "first")
    peer = await gateway.connect()

    await peer.send("first")
    await peer.send("second")
    answers = [await receive(peer)]
    may_end.set()
    answers.append(await receive(peer))

    assert answers == ["second", "first"]


async def pong(peer: ClientConnection) -> None:
    """Wait until the gateway has received everything that the client has sent."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await (await peer.ping())


async def test_in_turn_a_message_waits_for_the_previous_one(serve: Serve) -> None:
    gateway = await serve(api("$default", routes={"$default": {"two_way": True}}), in_turn=True)
    may_end = asyncio.Event()
    gateway.functions.behaviour["$default"] = blocked(may_end, "first")
    peer = await gateway.connect()

    await peer.send("first")
    await peer.send("second")
    await pong(peer)
    before = list(gateway.functions.invoked)
    may_end.set()

    assert before == ["$default"]
    assert [await receive(peer), await receive(peer)] == ["first", "second"]


async def test_in_turn_messages_of_other_connections_do_not_wait(serve: Serve) -> None:
    gateway = await serve(api("$default", routes={"$default": {"two_way": True}}), in_turn=True)
    may_end = asyncio.Event()
    gateway.functions.behaviour["$default"] = blocked(may_end, "first")
    peer, other = await gateway.connect(), await gateway.connect()

    await peer.send("first")
    await gateway.functions.wait_for_event("$default")
    await other.send("second")

    assert await receive(other) == "second"
    may_end.set()
    assert await receive(peer) == "first"


# Limits


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("size", [1, FRAME])
async def test_frame_up_to_32_kb_is_delivered(gateway: Gateway, compression: Any, size: int) -> None:
    peer = await gateway.connect(compression=compression)

    await peer.send("x" * size)

    assert (await gateway.functions.wait_for_event("$default"))["body"] == "x" * size


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_larger_frame_closes_the_connection(gateway: Gateway, compression: Any) -> None:
    peer = await gateway.connect(compression=compression)

    await peer.send("x" * (FRAME + 1))

    assert await wait_until_closed(peer) == (1009, "")
    assert await gateway.wait_for_disconnect() == (1009, "")
    assert "$default" not in gateway.functions.invoked


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_message_up_to_128_kb_is_delivered(gateway: Gateway, compression: Any) -> None:
    peer = await gateway.connect(compression=compression)

    await peer.send(["x" * FRAME] * 4)

    assert (await gateway.functions.wait_for_event("$default"))["body"] == "x" * MESSAGE


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_larger_message_closes_the_connection(gateway: Gateway, compression: Any) -> None:
    peer = await gateway.connect(compression=compression)

    await peer.send([*["x" * FRAME] * 4, "x"])

    assert await wait_until_closed(peer) == (1009, "")
    assert "$default" not in gateway.functions.invoked


async def test_size_of_a_frame_is_that_of_its_bytes(gateway: Gateway) -> None:
    peer = await gateway.connect()

    await peer.send("é" * (FRAME // 2 + 1))

    assert await wait_until_closed(peer) == (1009, "")


async def test_binary_message_closes_the_connection(gateway: Gateway) -> None:
    peer = await gateway.connect()

    await peer.send(b"hello")

    assert await wait_until_closed(peer) == (1003, "")
    assert await gateway.wait_for_disconnect() == (1003, "")
    assert "$default" not in gateway.functions.invoked


async def test_text_that_is_not_utf_8_closes_the_connection(gateway: Gateway) -> None:
    """RFC 6455 section 8.1."""
    peer = await gateway.connect()

    await peer.send(base64.b64decode("/w=="), text=True)

    assert await wait_until_closed(peer) == (1007, "")
    assert await gateway.wait_for_disconnect() == (1007, "")
    assert "$default" not in gateway.functions.invoked


async def test_gateway_answers_pings(gateway: Gateway) -> None:
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
    await gateway.wait_for_disconnect()
    gone.set()

    with pytest.raises(ConnectionClosed):
        await receive(peer)
