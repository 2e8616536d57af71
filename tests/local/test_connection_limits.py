"""The idle limit and the connection limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from local.apigateway import sockets
from local.apigateway.events import Event
from local.apigateway.limits import Limits
from local.lambda_.invocation import Invocation
from tests.fixtures.apis import api
from tests.fixtures.gateway import HANDSHAKE, PATIENCE_SECONDS, Dial, Gateway, Serve, receive, wait_until_closed

GOING_AWAY = (1001, "Going away")
LONG_SECONDS = 600.0
SHORT_SECONDS = 0.05
# Short for the tests, and long enough for a message on a busy machine.
IDLE_SECONDS = 1.0
Activity = Callable[[], Awaitable[object]]

ECHO = api("$connect", "$disconnect", "$default", routes={"$default": {"two_way": True}})


async def echo(event: Event) -> Invocation:
    return Invocation({"statusCode": 200, "body": event["body"]})


async def limited(
    serve: Serve, *, idle_seconds: float = LONG_SECONDS, connection_seconds: float = LONG_SECONDS
) -> Gateway:
    """Start a gateway whose `$default` echoes, with long limits by default."""
    gateway = await serve(ECHO, limits=Limits(idle_seconds=idle_seconds, connection_seconds=connection_seconds))
    gateway.functions.behaviour["$default"] = echo
    return gateway


async def chat(peer: ClientConnection) -> None:
    await peer.send("hello")
    assert await receive(peer) == "hello"


async def ping(peer: ClientConnection) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await (await peer.ping())


async def repeat(activity: Activity) -> None:
    """Repeat until it fails."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await activity()


# The idle limit


async def test_idle_connection_is_closed(serve: Serve) -> None:
    gateway = await limited(serve, idle_seconds=SHORT_SECONDS)
    peer, connection_id = await gateway.connect_with_id()

    assert await wait_until_closed(peer) == GOING_AWAY
    assert await gateway.wait_for_disconnect() == GOING_AWAY
    assert gateway.server.connections.get(connection_id) is None


async def test_every_idle_connection_is_closed(serve: Serve) -> None:
    gateway = await limited(serve, idle_seconds=SHORT_SECONDS)

    first = await gateway.connect()
    second = await gateway.connect()
    ends = [await wait_until_closed(first), await wait_until_closed(second)]
    third = await gateway.connect()

    assert [*ends, await wait_until_closed(third)] == [GOING_AWAY] * 3
    assert [await gateway.wait_for_disconnect() for _ in range(3)] == [GOING_AWAY] * 3


async def outlasts_an_idle_one(gateway: Gateway, peer: ClientConnection, activity: Activity) -> bool:
    """Return whether a client with this activity stays connected longer than an idle client that connects later."""
    idle = await gateway.connect()
    while idle.state is State.OPEN:
        await activity()
        await asyncio.sleep(IDLE_SECONDS / 50)
    await activity()
    return peer.state is State.OPEN


async def test_client_that_sends_messages_is_not_idle(serve: Serve) -> None:
    gateway = await limited(serve, idle_seconds=IDLE_SECONDS)
    peer = await gateway.connect()

    assert await outlasts_an_idle_one(gateway, peer, lambda: chat(peer))


async def test_client_that_is_posted_to_is_not_idle(serve: Serve) -> None:
    gateway = await limited(serve, idle_seconds=IDLE_SECONDS)
    peer, connection_id = await gateway.connect_with_id()
    management = gateway.management

    async def post() -> None:
        await asyncio.to_thread(management.post_to_connection, ConnectionId=connection_id, Data=b"news")
        assert await receive(peer) == "news"

    assert await outlasts_an_idle_one(gateway, peer, post)


async def test_client_that_only_pings_is_idle(serve: Serve) -> None:
    gateway = await limited(serve, idle_seconds=SHORT_SECONDS)
    peer = await gateway.connect()

    with pytest.raises(ConnectionClosed):
        await repeat(lambda: ping(peer))

    assert await wait_until_closed(peer) == GOING_AWAY


async def test_client_about_which_get_connection_is_called_is_idle(serve: Serve) -> None:
    gateway = await limited(serve, idle_seconds=SHORT_SECONDS)
    peer, connection_id = await gateway.connect_with_id()
    management = gateway.management

    with pytest.raises(management.exceptions.GoneException):
        await repeat(lambda: asyncio.to_thread(management.get_connection, ConnectionId=connection_id))

    assert await wait_until_closed(peer) == GOING_AWAY


# The connection limit


async def test_connection_with_traffic_ends_at_its_limit_too(serve: Serve) -> None:
    gateway = await limited(serve, connection_seconds=IDLE_SECONDS)
    peer = await gateway.connect()

    with pytest.raises(ConnectionClosed):
        await repeat(lambda: chat(peer))

    assert await wait_until_closed(peer) == GOING_AWAY
    assert await gateway.wait_for_disconnect() == GOING_AWAY


async def test_client_that_is_not_idle_ends_at_the_connection_limit(serve: Serve) -> None:
    """Both limits apply at the same time, as on AWS."""
    gateway = await limited(serve, idle_seconds=IDLE_SECONDS, connection_seconds=2 * IDLE_SECONDS)
    peer = await gateway.connect()

    assert await outlasts_an_idle_one(gateway, peer, lambda: chat(peer))
    with pytest.raises(ConnectionClosed):
        await repeat(lambda: chat(peer))
    assert await wait_until_closed(peer) == GOING_AWAY
    assert await gateway.wait_for_disconnect() == GOING_AWAY


# Clients that do not answer the close frame


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the gateway abort clients that do not close at once."""
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", SHORT_SECONDS)


@pytest.mark.parametrize("limits", [{"idle_seconds": SHORT_SECONDS}, {"connection_seconds": SHORT_SECONDS}])
async def test_client_that_does_not_answer_the_close_frame_is_dropped(
    impatient: None, serve: Serve, dial: Dial, limits: dict[str, float]
) -> None:
    gateway = await limited(serve, **limits)
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()

    assert await client.read_all() == b"\x88\x0c\x03\xe9Going away"
    assert await gateway.wait_for_disconnect() == GOING_AWAY


async def test_deleted_client_that_does_not_answer_the_close_frame_is_dropped(
    impatient: None, gateway: Gateway, dial: Dial
) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    connection_id = (await gateway.functions.wait_for_event("$connect"))["requestContext"]["connectionId"]

    await asyncio.to_thread(gateway.management.delete_connection, ConnectionId=connection_id)

    assert await client.read_all() == b"\x88\x1c\x03\xe8Connection Closed Normally"
    assert await gateway.wait_for_disconnect() == (1000, "Connection Closed Normally")


async def test_post_to_a_connection_that_is_due_gets_410(serve: Serve, dial: Dial) -> None:
    """Even while the gateway waits for the client to close."""
    gateway = await limited(serve, idle_seconds=SHORT_SECONDS)
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    connection_id = (await gateway.functions.wait_for_event("$connect"))["requestContext"]["connectionId"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        await client.reader.readexactly(len(b"\x88\x0c\x03\xe9Going away"))

    with pytest.raises(gateway.management.exceptions.ClientError, match="GoneException"):
        await asyncio.to_thread(gateway.management.post_to_connection, ConnectionId=connection_id, Data=b"late")
