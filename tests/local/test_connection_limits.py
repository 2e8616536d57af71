"""Connections at their limits: several at once, calls of `@connections`, and clients that do not close."""

from __future__ import annotations

import asyncio

import pytest

from local.apigateway import sockets
from local.apigateway.limits import Limits
from tests.fixtures.gateway import HANDSHAKE, PATIENCE_SECONDS, Dial, Gateway, Serve, wait_until_closed

GOING_AWAY = (1001, "Going away")
SHORT_SECONDS = 0.05
SHORT_IDLE_LIMIT = Limits(idle_seconds=SHORT_SECONDS)


async def test_every_idle_connection_is_closed(serve: Serve) -> None:
    gateway = await serve(limits=SHORT_IDLE_LIMIT)

    first = await gateway.connect()
    second = await gateway.connect()
    ends = [await wait_until_closed(first), await wait_until_closed(second)]
    third = await gateway.connect()

    assert [*ends, await wait_until_closed(third)] == [GOING_AWAY] * 3
    assert [await gateway.wait_for_disconnect() for _ in range(3)] == [GOING_AWAY] * 3


async def test_client_about_which_get_connection_is_called_is_idle(serve: Serve) -> None:
    gateway = await serve(limits=SHORT_IDLE_LIMIT)
    peer, connection_id = await gateway.connect_with_id()
    management = gateway.management

    async def ask_again_and_again() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                await asyncio.to_thread(management.get_connection, ConnectionId=connection_id)

    with pytest.raises(management.exceptions.GoneException):
        await ask_again_and_again()

    assert await wait_until_closed(peer) == GOING_AWAY


# Clients that do not answer the close frame


@pytest.fixture
def short_close_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the gateway abort clients that do not close at once."""
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", SHORT_SECONDS)


async def test_client_that_does_not_answer_the_close_frame_is_dropped(
    short_close_timeout: None, serve: Serve, dial: Dial
) -> None:
    gateway = await serve(limits=SHORT_IDLE_LIMIT)
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()

    assert await client.read_all() == b"\x88\x0c\x03\xe9Going away"
    assert await gateway.wait_for_disconnect() == GOING_AWAY


async def test_deleted_client_that_does_not_answer_the_close_frame_is_dropped(
    short_close_timeout: None, gateway: Gateway, dial: Dial
) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    connection_id = (await gateway.functions.wait_for_event("$connect"))["requestContext"]["connectionId"]

    await asyncio.to_thread(gateway.management.delete_connection, ConnectionId=connection_id)

    assert await client.read_all() == b"\x88\x1c\x03\xe8Connection Closed Normally"
    assert await gateway.wait_for_disconnect() == (1000, "Connection Closed Normally")


async def test_post_to_a_connection_that_is_due_gets_410(serve: Serve, dial: Dial) -> None:
    """Even while the gateway waits for the client to close."""
    gateway = await serve(limits=SHORT_IDLE_LIMIT)
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    connection_id = (await gateway.functions.wait_for_event("$connect"))["requestContext"]["connectionId"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        await client.reader.readexactly(len(b"\x88\x0c\x03\xe9Going away"))

    with pytest.raises(gateway.management.exceptions.ClientError, match="GoneException"):
        await asyncio.to_thread(gateway.management.post_to_connection, ConnectionId=connection_id, Data=b"late")
