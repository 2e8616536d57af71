"""The gateway's sockets: opening handshakes and messages, by real clients."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import PerMessageDeflate

from local import gateway as decisions
from local.events import Event
from local.gateway import Invocation
from tests.local.conftest import (
    METHOD_ARN,
    OUR_ROUTES,
    PATIENCE_SECONDS,
    Dial,
    Gateway,
    Serve,
    allow,
    api,
    received,
)

FRAME = 32 * 1024
MESSAGE = 128 * 1024
ID_TOKEN = ("route.request.querystring.idToken",)
DENY = {**allow(), "policyDocument": {"Statement": [{"Action": "*", "Effect": "Deny", "Resource": METHOD_ARN}]}}


@pytest.fixture
async def guarded(serve: Serve) -> Gateway:
    """A gateway whose authorizer wants an idToken in the query string."""
    return await serve(api(*OUR_ROUTES, identity_sources=ID_TOKEN))


async def refused(gateway: Gateway, query: str = "") -> int:
    """The status of a handshake that does not get its 101."""
    with pytest.raises(InvalidStatus) as error:
        await gateway.connect(query)
    return error.value.response.status_code


async def close_code(peer: ClientConnection) -> int | None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await peer.wait_closed()
    return peer.close_code


# The opening handshake


async def test_handshake_is_decided_by_authorizer_and_connect_route_in_turn(guarded: Gateway) -> None:
    await guarded.connect("?idToken=abc")

    assert guarded.functions.invoked == ["authorizer", "$connect"]


async def test_what_the_authorizer_says_is_in_every_later_event(guarded: Gateway) -> None:
    guarded.functions.behaviour["authorizer"] = Invocation(allow({"n": 1, "yes": True, "s": "x"}))

    async with await guarded.connect("?idToken=abc") as peer:
        await peer.send("hello")
        events = [await guarded.functions.event(route) for route in ("$connect", "$default")]
    events.append(await guarded.functions.event("$disconnect"))

    connect, *others = [event["requestContext"]["authorizer"] for event in events]
    latency = connect.pop("integrationLatency")
    assert isinstance(latency, int)
    assert [connect, *others] == [{"principalId": "ada", "n": "1", "yes": "true", "s": "x"}] * 3


async def test_each_handshake_is_authorized_anew(guarded: Gateway) -> None:
    for _ in range(2):
        await guarded.connect("?idToken=abc")

    assert guarded.functions.invoked.count("authorizer") == 2


@pytest.mark.parametrize("query", ["", "?idToken=", "?other=abc"])
async def test_handshake_without_identity_is_refused_without_asking(guarded: Gateway, query: str) -> None:
    assert await refused(guarded, query) == 401
    assert guarded.functions.invoked == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Invocation(DENY), 403),
        (Invocation(allow() | {"policyDocument": {"Statement": []}}), 403),
        (Invocation(error="Exception", message="Unauthorized"), 401),
        (Invocation(error="KeyError", message="'kid'"), 500),
        (Invocation({"statusCode": 401}), 500),
    ],
    ids=["deny", "implicit deny", "Unauthorized", "error", "no policy"],
)
async def test_refusal_of_the_authorizer_is_final(guarded: Gateway, answer: Invocation, status: int) -> None:
    guarded.functions.behaviour["authorizer"] = answer

    assert await refused(guarded, "?idToken=abc") == status
    assert guarded.functions.invoked == ["authorizer"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Invocation({"statusCode": 301}), 301),
        (Invocation({"statusCode": 401}), 401),
        (Invocation({"statusCode": 499}), 499),
        (Invocation({"statusCode": 501}), 501),
        (Invocation(error="KeyError", message="'x'"), 502),
        (Invocation({"body": "no status"}), 502),
        (Invocation(error="Sandbox.Timedout", message="Task timed out"), 504),
    ],
    ids=["301", "401", "499", "501", "error", "malformed", "timeout"],
)
async def test_refusal_of_the_connect_route_is_final(gateway: Gateway, answer: Invocation, status: int) -> None:
    gateway.functions.behaviour["$connect"] = answer

    assert await refused(gateway) == status
    assert gateway.functions.invoked == ["$connect"]
    assert gateway.server.peers == {}


async def hang(_: Event) -> Invocation:
    never: asyncio.Future[Invocation] = asyncio.get_running_loop().create_future()
    return await never


@pytest.mark.parametrize(("route", "status"), [("authorizer", 500), ("$connect", 504)])
async def test_handshake_waits_only_so_long(
    guarded: Gateway, monkeypatch: pytest.MonkeyPatch, route: str, status: int
) -> None:
    monkeypatch.setattr(decisions, "INTEGRATION_TIMEOUT_SECONDS", 0.05)
    guarded.functions.behaviour[route] = hang

    assert await refused(guarded, "?idToken=abc") == status


async def test_api_without_a_connect_route_lets_everybody_in(serve: Serve) -> None:
    gateway = await serve(api("$default"))

    async with await gateway.connect() as peer:
        await peer.send("hello")
        await gateway.functions.event("$default")

    assert gateway.functions.invoked == ["$default"]


async def test_stage_may_end_with_a_slash(gateway: Gateway) -> None:
    await gateway.connect("/?room=a")

    assert (await gateway.functions.event("$connect"))["queryStringParameters"] == {"room": "a"}


@pytest.mark.parametrize("path", ["x", "/x", "/../dev"])
async def test_unknown_stage_is_forbidden(gateway: Gateway, path: str) -> None:
    assert await refused(gateway, path) == 403
    assert gateway.functions.invoked == []


UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
KEY = b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (UPGRADE + b"Sec-WebSocket-Version: 13\r\n", 400),
        (UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", 400),
        (UPGRADE + b"Sec-WebSocket-Version: 8\r\n" + KEY, 400),
        (b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + KEY, 426),
    ],
    ids=["no key", "bad key", "old version", "no connection header"],
)
async def test_request_that_is_no_websocket_handshake_does_not_reach_the_functions(
    gateway: Gateway, dial: Dial, headers: bytes, status: int
) -> None:
    """RFC 6455 section 4.2.1."""
    client = await dial(gateway.port, b"GET /prod HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")

    response = await client.read_all()
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert gateway.functions.invoked == []


# Subprotocol and extensions


async def test_subprotocol_is_chosen_by_the_connect_route(gateway: Gateway) -> None:
    chosen = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat", "X-Other": "dropped"}}
    gateway.functions.behaviour["$connect"] = Invocation(chosen)

    peer = await gateway.connect(subprotocols=["log", "chat"])

    assert peer.subprotocol == "chat"
    assert peer.response is not None
    assert "X-Other" not in peer.response.headers


async def test_subprotocol_is_not_chosen_by_the_gateway(gateway: Gateway) -> None:
    peer = await gateway.connect(subprotocols=["chat"])

    event = await gateway.functions.event("$connect")
    assert event["headers"]["Sec-WebSocket-Protocol"] == "chat"
    assert peer.response is not None
    assert "Sec-WebSocket-Protocol" not in peer.response.headers


async def test_compression_is_accepted(gateway: Gateway) -> None:
    """RFC 7692."""
    peer = await gateway.connect(compression="deflate")

    await peer.send("compressed " * 1000)

    assert [type(extension) for extension in peer.protocol.extensions] == [PerMessageDeflate]
    assert (await gateway.functions.event("$default"))["body"] == "compressed " * 1000


# Messages


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
