"""Clients that leave during their handshake, and the end of the gateway."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from local.apigateway import sockets
from local.apigateway.events import Event
from local.lambda_.invocation import InvocationResult
from tests.fixtures.apis import api
from tests.fixtures.gateway import HANDSHAKE, PATIENCE_SECONDS, Dial, Functions, Gateway, Serve, wait_until_closed

CLOSE_WITHOUT_A_CODE = b"\x88\x80mask"  # RFC 6455 section 5.5.1: a masked close frame without a payload
KEEP_ALIVE = b"GET /prod HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = InvocationResult({"statusCode": 200})
REFUSED = InvocationResult({"statusCode": 400})


async def test_connection_is_removed_without_a_disconnect_route(serve: Serve) -> None:
    gateway = await serve(api("$connect", "$default"))
    peer = await gateway.connect()

    await peer.close()
    await gateway.server.stop()

    assert len(gateway.server.connections) == 0
    assert gateway.functions.invoked == ["$connect"]


# Clients that leave early


def answer_after(event: asyncio.Event, answer: InvocationResult, functions: Functions, route: str) -> None:
    async def waiting(_: Event) -> InvocationResult:
        await event.wait()
        return answer

    functions.behaviour[route] = waiting


async def test_client_that_leaves_before_it_is_refused_is_not_disconnected(gateway: Gateway, dial: Dial) -> None:
    gone = asyncio.Event()
    answer_after(gone, REFUSED, gateway.functions, "$connect")
    client = await dial(gateway.port, HANDSHAKE)
    await gateway.functions.wait_for_event("$connect")
    client.writer.transport.abort()
    await client.writer.wait_closed()
    gone.set()
    await gateway.server.stop()

    assert gateway.functions.invoked == ["$connect"]


async def test_client_that_leaves_while_its_refusal_is_written_does_no_harm(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has noticed that the client disconnected, but the event loop has not."""

    def shut_down(_: socket.socket, __: int) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(socket.socket, "shutdown", shut_down)
    gateway.functions.behaviour["$connect"] = REFUSED

    client = await dial(gateway.port, HANDSHAKE)

    assert await client.read_head()


# The end of the gateway


async def stop(gateway: Gateway) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await gateway.server.stop()


def answer_slowly(gateway: Gateway, *routes: str) -> list[tuple[str, str]]:
    """Make these routes slow. Return a list, to which each invocation adds its route and connection at its end."""
    ended: list[tuple[str, str]] = []

    async def slow(event: Event) -> InvocationResult:
        for _ in range(100):
            await asyncio.sleep(0)
        ended.append((event["requestContext"]["routeKey"], event["requestContext"]["connectionId"]))
        return OK

    gateway.functions.behaviour |= dict.fromkeys(routes, slow)
    return ended


async def test_stop_closes_connections_with_1001(gateway: Gateway) -> None:
    peer = await gateway.connect()

    await stop(gateway)

    assert await wait_until_closed(peer) == (1001, "Going away")
    assert await gateway.wait_for_disconnect() == (1001, "Going away")


async def test_stop_waits_for_messages_and_for_disconnect(gateway: Gateway) -> None:
    ended = answer_slowly(gateway, "$default", "$disconnect")
    peers = [await gateway.connect_with_id() for _ in range(2)]
    for peer, _ in peers:
        await peer.send("hello")
        await gateway.functions.wait_for_event("$default")

    await stop(gateway)

    assert set(ended) == {(route, connection_id) for route in ("$default", "$disconnect") for _, connection_id in peers}


async def test_stop_during_a_handshake_runs_its_disconnect(gateway: Gateway, dial: Dial) -> None:
    ended = answer_slowly(gateway, "$disconnect")
    stopping = asyncio.Event()
    answer_after(stopping, OK, gateway.functions, "$connect")
    client = await dial(gateway.port, HANDSHAKE)
    event = await gateway.functions.wait_for_event("$connect")

    async def answer_now() -> None:
        stopping.set()

    _, _, answer = await asyncio.gather(stop(gateway), answer_now(), client.read_all())

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert ended == [("$disconnect", event["requestContext"]["connectionId"])]


async def test_stop_closes_clients_of_every_kind(gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", 600.0)
    clients = [await dial(gateway.port, b"GET /pr"), await dial(gateway.port, KEEP_ALIVE)]
    await clients[-1].read_head()

    await stop(gateway)

    for client in clients:
        await client.read_all()
        assert client.reader.at_eof()


async def test_stop_does_not_wait_for_a_client_that_does_not_answer(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()

    await stop(gateway)

    assert await gateway.wait_for_disconnect() == (1001, "Going away")


async def test_stop_leaves_no_task(serve: Serve, dial: Dial) -> None:
    before = asyncio.all_tasks()
    gateway = await serve()
    client = await dial(gateway.port, KEEP_ALIVE)
    await client.read_head()
    peer = await gateway.connect()
    await peer.send("hello")

    await stop(gateway)

    await peer.wait_closed()
    assert asyncio.all_tasks() - before == set()


async def test_stop_frees_the_port(gateway: Gateway, dial: Dial) -> None:
    await stop(gateway)

    with pytest.raises(ConnectionRefusedError):
        await dial(gateway.port)


async def test_port_that_is_taken_is_an_error(gateway: Gateway, serve: Serve) -> None:
    other = await serve()

    with pytest.raises(OSError, match=str(gateway.port)):
        await other.server.start(gateway.port)
