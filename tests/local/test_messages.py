"""Messages that are handled in turn, and a reply that comes too late."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from local.apigateway.events import Event
from local.lambda_.invocation import InvocationResult
from tests.fixtures.apis import api
from tests.fixtures.gateway import PATIENCE_SECONDS, Behaviour, Gateway, Serve, receive


def blocked(until: asyncio.Event, body: str) -> Behaviour:
    """Return a function that echoes messages, but waits for an event before it echoes one of them."""

    async def answer(event: Event) -> InvocationResult:
        if event["body"] == body:
            await until.wait()
        return InvocationResult({"statusCode": 200, "body": event["body"]})

    return answer


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


async def test_client_that_left_gets_no_error_frame(gateway: Gateway) -> None:
    gone = asyncio.Event()

    async def fail_late(_: Event) -> InvocationResult:
        await gone.wait()
        return InvocationResult(error="KeyError", message="'x'")

    gateway.functions.behaviour["$default"] = fail_late
    peer = await gateway.connect()
    await peer.send("hello")
    await peer.close()
    await gateway.wait_for_disconnect()
    gone.set()

    with pytest.raises(ConnectionClosed):
        await receive(peer)
