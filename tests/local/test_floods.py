"""Clients that send faster than functions answer, or do not read: memory is bounded, and others are served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from local.apigateway import server, sockets
from local.apigateway.sockets import ClientSocket
from local.lambda_.invocation import InvocationResult
from tests.fixtures.apis import OUR_ROUTES, api
from tests.fixtures.gateway import PATIENCE_SECONDS, Dial, Gateway, RawClient, Serve
from tests.fixtures.hostile import (
    PING,
    TEXT,
    check_serves,
    check_unharmed,
    frame,
    half_close,
    hold,
    measure_peak_memory,
    open_websocket,
    post,
    read_status,
    read_until_closed,
    reset,
    send_repeatedly,
    wait_until,
)

SOON = 0.05  # seconds, for time limits that a test waits for
IN_FLIGHT = 10
UNSENT_BYTES = 1_000_000  # more than the gateway keeps for a client, less than a flood
PINGS = frame(PING, b"x" * 125) * 1000
MESSAGES = frame(TEXT, b'{"action": "echo", "text": "%s"}' % (b"x" * 10_000)) * 100
BOTH = frame(TEXT, b"x") * 20 + PINGS
ECHO = InvocationResult({"statusCode": 200, "body": "x" * 10_000})


@pytest.fixture
async def gateway(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """A gateway with few messages in flight and a two-way route; the test fails if it is harmed."""
    monkeypatch.setattr(server, "MAX_IN_FLIGHT", IN_FLIGHT)
    gateway = await serve(api(*OUR_ROUTES, "echo", routes={"echo": {"two_way": True}}))
    async with check_unharmed(gateway, caplog):
        yield gateway


async def connect_deaf(gateway: Gateway, dial: Dial) -> tuple[RawClient, ClientSocket, str]:
    """Return a client that does not read, the gateway's socket, and the connection's id."""
    client = await open_websocket(gateway, dial)
    connection_id = (await gateway.functions.wait_for_event("$connect"))["requestContext"]["connectionId"]
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined] # it is a socket's
    peer = gateway.server.connections.get(connection_id)
    assert peer
    return client, peer.socket, connection_id


# Messages faster than functions


async def test_messages_over_the_limit_in_flight_wait_and_none_is_lost(gateway: Gateway, dial: Dial) -> None:
    may_answer = hold(gateway, "$default")
    client = await open_websocket(gateway, dial)
    client.writer.write(b"".join(frame(TEXT, b"%d" % number) for number in range(500)))
    await wait_until(lambda: gateway.functions.invoked.count("$default") == IN_FLIGHT)

    assert await check_serves(gateway)
    assert gateway.functions.invoked.count("$default") == IN_FLIGHT + 1

    may_answer.set()
    bodies = [(await gateway.functions.wait_for_event("$default"))["body"] for _ in range(500 - IN_FLIGHT)]
    assert bodies[-1] == "499"


async def test_flood_of_large_messages_uses_little_memory(gateway: Gateway, dial: Dial) -> None:
    may_answer = hold(gateway, "$default")
    client = await open_websocket(gateway, dial)
    large = frame(TEXT, b"x" * 32_768)

    with measure_peak_memory() as peak:
        async with send_repeatedly(client, large, 0):
            await wait_until(lambda: gateway.functions.invoked.count("$default") == IN_FLIGHT)
            await wait_until(lambda: client.writer.transport.get_write_buffer_size() > len(large))
            assert await check_serves(gateway)

    assert peak() < 5_000_000
    reset(client)
    may_answer.set()


@pytest.mark.parametrize("in_turn", [False, True])
async def test_stop_does_not_handle_messages_that_wait(
    serve: Serve, dial: Dial, monkeypatch: pytest.MonkeyPatch, in_turn: bool
) -> None:
    monkeypatch.setattr(server, "MAX_IN_FLIGHT", IN_FLIGHT)
    gateway = await serve(in_turn=in_turn)
    begun = 1 if in_turn else IN_FLIGHT
    may_answer = hold(gateway, "$default")
    client = await open_websocket(gateway, dial)
    client.writer.write(MESSAGES)
    await wait_until(lambda: gateway.functions.invoked.count("$default") == begun)

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.server.stop())
        await wait_until(lambda: not gateway.server._server.is_serving())
        may_answer.set()

    assert gateway.functions.invoked.count("$default") == begun


async def test_client_that_leaves_during_its_flood_is_disconnected(gateway: Gateway, dial: Dial) -> None:
    may_answer = hold(gateway, "echo")
    client = await open_websocket(gateway, dial)
    async with send_repeatedly(client, MESSAGES, 0):
        await wait_until(lambda: gateway.functions.invoked.count("echo") == IN_FLIGHT)

    reset(client)
    may_answer.set()

    assert await gateway.wait_for_disconnect() == (1006, "")


# Clients that do not read


@pytest.mark.parametrize("flood", [PINGS, MESSAGES, BOTH], ids=["pings", "messages", "both"])
async def test_gateway_does_not_read_from_a_client_that_does_not_read(
    gateway: Gateway, dial: Dial, flood: bytes
) -> None:
    """Pings get pongs, and messages get replies or nothing. A message without a reply must not end the pause."""
    gateway.functions.behaviour["echo"] = ECHO
    client, peer, _ = await connect_deaf(gateway, dial)

    async with send_repeatedly(client, flood, 0):
        await wait_until(lambda: peer._unread_timer)
        assert await check_serves(gateway)

    assert not peer.transport.is_reading()
    assert peer.transport.get_write_buffer_size() < UNSENT_BYTES
    assert len(gateway.server._tasks) < 2 * IN_FLIGHT

    client.writer.transport.resume_reading()  # type: ignore[attr-defined] # it is a socket's
    hearing = asyncio.create_task(read_until_closed(client))
    await wait_until(lambda: not peer._unread_timer and client.writer.transport.get_write_buffer_size() == 0)
    client.writer.write(frame(TEXT, b"good again"))
    while (await gateway.functions.wait_for_event("$default"))["body"] != "good again":
        pass
    client.writer.write_eof()
    await hearing


async def test_client_that_does_not_read_for_too_long_is_cut(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "UNREAD_SECONDS", SOON)
    client, _, _ = await connect_deaf(gateway, dial)

    async with send_repeatedly(client, PINGS, 0):
        assert await gateway.wait_for_disconnect() == (1006, "")


async def test_stop_does_not_wait_for_a_client_that_does_not_read(
    serve: Serve, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "UNREAD_SECONDS", 10 * SOON)
    gateway = await serve()
    client, peer, _ = await connect_deaf(gateway, dial)

    async with send_repeatedly(client, PINGS, 0):
        await wait_until(lambda: peer._unread_timer)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await gateway.server.stop()

    assert len(gateway.server.connections) == 0


async def test_posts_to_a_client_that_does_not_read_are_refused_until_it_reads(gateway: Gateway, dial: Dial) -> None:
    """429 is LimitExceededException, "the client is sending more than the allowed number of requests per unit of time"."""
    client, peer, connection_id = await connect_deaf(gateway, dial)
    call = post(connection_id, b"Connection: close\r\nContent-Length: 131072\r\n", b"x" * 131_072)
    delivered = 0

    while (code := read_status(await read_until_closed(await dial(gateway.port, call)))) == 200:
        delivered += 1
    unsent = peer.transport.get_write_buffer_size()

    assert code == 429
    assert unsent < UNSENT_BYTES
    client.writer.transport.resume_reading()  # type: ignore[attr-defined] # it is a socket's
    async with asyncio.timeout(PATIENCE_SECONDS):
        messages = await client.reader.readexactly(delivered * (131_072 + 10))
    assert messages.count(b"x") == delivered * 131_072
    assert read_status(await read_until_closed(await dial(gateway.port, call))) == 200


async def test_client_that_closes_with_unread_posts_is_disconnected(gateway: Gateway, dial: Dial) -> None:
    client, peer, connection_id = await connect_deaf(gateway, dial)
    call = post(connection_id, b"Connection: close\r\nContent-Length: 131072\r\n", b"x" * 131_072)
    while peer.transport.get_write_buffer_size() == 0:
        assert read_status(await read_until_closed(await dial(gateway.port, call))) == 200

    half_close(client)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined] # it is a socket's
    await read_until_closed(client)

    assert await gateway.wait_for_disconnect() == (1006, "")
