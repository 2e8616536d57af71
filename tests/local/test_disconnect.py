"""The end of connections, the `$disconnect` event, and the end of the gateway."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from local.apigateway import sockets
from local.apigateway.events import Event
from local.lambda_.invocation import Invocation
from tests.fixtures.apis import api
from tests.fixtures.gateway import HANDSHAKE, PATIENCE_SECONDS, Dial, Functions, Gateway, Serve, wait_until_closed

CLOSE_WITHOUT_A_CODE = b"\x88\x80mask"  # RFC 6455 section 5.5.1: a masked close frame without a payload
KEEP_ALIVE = b"GET /prod HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = Invocation({"statusCode": 200})
REFUSED = Invocation({"statusCode": 400})


# The code and reason of the event


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1000, "Shutdown"), (1001, ""), (4001, "bye")])
async def test_code_and_reason_are_those_of_the_client(gateway: Gateway, code: int, reason: str) -> None:
    peer = await gateway.connect()

    await peer.close(code, reason)

    assert await gateway.wait_for_disconnect() == (code, reason)


async def test_close_frame_without_a_code_means_1005(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()

    client.writer.write(CLOSE_WITHOUT_A_CODE)
    await client.read_all()

    assert await gateway.wait_for_disconnect() == (1005, "Client-side close frame status not set")


@pytest.mark.parametrize("way", ["reset", "end of file"])
async def test_lost_tcp_connection_means_1006(gateway: Gateway, dial: Dial, way: str) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()

    if way == "reset":
        client.writer.transport.abort()
    else:
        client.writer.write_eof()

    assert await gateway.wait_for_disconnect() == (1006, "")


async def test_deleted_connection_means_1000(gateway: Gateway) -> None:
    peer, connection_id = await gateway.connect_with_id()

    await asyncio.to_thread(gateway.management.delete_connection, ConnectionId=connection_id)

    assert await wait_until_closed(peer) == (1000, "Connection Closed Normally")
    assert await gateway.wait_for_disconnect() == (1000, "Connection Closed Normally")


async def test_stop_closes_connections_with_1001(gateway: Gateway) -> None:
    peer = await gateway.connect()

    await gateway.server.stop()

    assert await wait_until_closed(peer) == (1001, "Going away")
    assert await gateway.wait_for_disconnect() == (1001, "Going away")


async def test_connection_is_removed_without_a_disconnect_route(serve: Serve) -> None:
    gateway = await serve(api("$connect", "$default"))
    peer = await gateway.connect()

    await peer.close()
    await gateway.server.stop()

    assert len(gateway.server.connections) == 0
    assert gateway.functions.invoked == ["$connect"]


async def test_failed_disconnect_route_has_no_effect(gateway: Gateway) -> None:
    gateway.functions.behaviour["$disconnect"] = Invocation(error="KeyError", message="'x'")

    for _ in range(2):
        await (await gateway.connect()).close()
        await gateway.wait_for_disconnect()


async def test_id_time_and_identity_are_the_same_in_all_events(gateway: Gateway) -> None:
    peer = await gateway.connect(user_agent_header="phone/1.0")
    await peer.send("hello")
    await peer.close()

    contexts = [
        (await gateway.functions.wait_for_event(route))["requestContext"]
        for route in ("$connect", "$default", "$disconnect")
    ]
    facts = [[context[name] for name in ("connectionId", "connectedAt", "identity")] for context in contexts]
    assert facts == [facts[0]] * 3
    assert facts[0][2] == {"userAgent": "phone/1.0", "sourceIp": "127.0.0.1"}


# Clients that leave early


def answer_after(event: asyncio.Event, answer: Invocation, functions: Functions, route: str) -> None:
    async def waiting(_: Event) -> Invocation:
        await event.wait()
        return answer

    functions.behaviour[route] = waiting


async def leave_during_connect(gateway: Gateway, dial: Dial, answer: Invocation) -> None:
    """Open a connection that the client aborts before its `$connect` has answered."""
    gone = asyncio.Event()
    answer_after(gone, answer, gateway.functions, "$connect")
    client = await dial(gateway.port, HANDSHAKE)
    await gateway.functions.wait_for_event("$connect")
    client.writer.transport.abort()
    await client.writer.wait_closed()
    gone.set()


async def test_client_that_leaves_during_connect_is_disconnected(gateway: Gateway, dial: Dial) -> None:
    await leave_during_connect(gateway, dial, OK)

    assert await gateway.wait_for_disconnect() == (1006, "")
    assert len(gateway.server.connections) == 0


async def test_client_that_leaves_before_it_is_refused_is_not_disconnected(gateway: Gateway, dial: Dial) -> None:
    await leave_during_connect(gateway, dial, REFUSED)

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


async def test_refused_client_is_not_disconnected(gateway: Gateway, dial: Dial) -> None:
    gateway.functions.behaviour["$connect"] = REFUSED
    client = await dial(gateway.port, HANDSHAKE)

    await client.read_all()
    await gateway.server.stop()

    assert gateway.functions.invoked == ["$connect"]


# The end of the gateway


async def stop(gateway: Gateway) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await gateway.server.stop()


def answer_slowly(gateway: Gateway, *routes: str) -> list[tuple[str, str]]:
    """Make these routes slow. Return a list, to which each invocation adds its route and connection at its end."""
    ended: list[tuple[str, str]] = []

    async def slow(event: Event) -> Invocation:
        for _ in range(100):
            await asyncio.sleep(0)
        ended.append((event["requestContext"]["routeKey"], event["requestContext"]["connectionId"]))
        return OK

    gateway.functions.behaviour |= dict.fromkeys(routes, slow)
    return ended


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


@pytest.mark.parametrize("sent", [b"GET /pr", b""], ids=["part of a head", "nothing"])
async def test_stop_closes_clients_of_every_kind(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", 600.0)
    clients = [await dial(gateway.port, sent), await dial(gateway.port, KEEP_ALIVE)]
    await clients[-1].read_head()

    await stop(gateway)

    for client in clients:
        await client.read_all()
        assert client.reader.at_eof()


async def test_stop_does_not_wait_for_a_client_that_sends_a_close_frame_and_stays(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    client.writer.write(CLOSE_WITHOUT_A_CODE)
    await client.reader.read()

    await stop(gateway)

    assert gateway.functions.invoked == ["$connect", "$disconnect"]


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
