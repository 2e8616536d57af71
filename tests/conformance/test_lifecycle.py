"""A connection's end and `$disconnect`; order and concurrency; limits of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conformance.conftest import Unknown, case
from tests.conformance.deployments import Limited
from tests.conformance.gateway import PATIENCE_SECONDS, Client, Gateway, Observer

CLOSE_WITHOUT_A_CODE = b"\x88\x80\0\0\0\0"  # masked, as a client's frames are

End = Callable[[Gateway, Client], Awaitable[Any]]


async def watched(gateway: Gateway, **how: Any) -> tuple[Client, str, Observer]:
    """A client, its connection's id and its observer, which has seen it connect."""
    observer, its_id = await gateway.observer()
    client = await gateway.open(observer=its_id, **how)
    await observer.event("authorizer")
    event = await observer.event("$connect")
    return client, event["requestContext"]["connectionId"], observer


async def disconnected(observer: Observer) -> tuple[int, str]:
    """Code and reason of the next `$disconnect`."""
    context = (await observer.event("$disconnect"))["requestContext"]
    return context["disconnectStatusCode"], context["disconnectReason"]


# `$disconnect`


@case("E19", "C", "AWS's page on integration requests; captures")
async def test_client_that_closes_without_a_code(main: Gateway) -> None:
    client, _, observer = await watched(main)

    client.socket.transport.write(CLOSE_WITHOUT_A_CODE)

    assert await disconnected(observer) == (1005, "Client-side close frame status not set")


@case("E19", "C", "httpmaid's capture")
@pytest.mark.parametrize(("code", "reason"), [(4001, "bye"), (1000, "Shutdown"), (1001, "leaving ü")])
async def test_clients_code_and_reason_are_the_events(main: Gateway, code: int, reason: str) -> None:
    client, _, observer = await watched(main)

    await client.socket.close(code, reason)

    assert await disconnected(observer) == (code, reason)


@case("E19", "U", "nobody")
@pytest.mark.parametrize("code", [1000, 4001])
async def test_client_that_gives_a_code_and_no_reason(main: Gateway, unknown: Unknown, code: int) -> None:
    client, _, observer = await watched(main)

    await client.socket.close(code)

    unknown(await disconnected(observer), (code, ""))


@case("E19", "L", "RFC 6455 section 5.5.1")
async def test_close_frame_is_answered_with_its_code(gateway: Gateway) -> None:
    client = await gateway.open()

    await client.socket.close(4001, "bye")

    received = client.socket.protocol.close_rcvd
    assert received is not None
    assert received.code == 4001


@case("E20", "C", "chalice#2060; boto3#3789")
async def test_deleted_connection_closes_normally_and_is_disconnected(main: Gateway) -> None:
    client, connection_id, observer = await watched(main)

    await main.call("delete_connection", connection_id)

    assert (await client.closed())[0] == 1000
    context = (await observer.event("$disconnect"))["requestContext"]
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (1000, "Connection Closed Normally")
    assert context["connectionId"] == connection_id
    assert context["authorizer"]["principalId"] == "me"


@case("4.3", "U", "nobody")
async def test_reason_in_the_close_frame_of_a_deleted_connection(main: Gateway, unknown: Unknown) -> None:
    client, connection_id, _ = await watched(main)

    await main.call("delete_connection", connection_id)

    unknown(await client.closed(), (1000, "Connection Closed Normally"))


async def drop(_: Gateway, client: Client) -> None:
    client.vanish()


async def send_binary(_: Gateway, client: Client) -> None:
    await client.send(b"hello")


async def send_too_much(_: Gateway, client: Client) -> None:
    await client.send("x" * (32 * 1024 + 1))


async def say_goodbye(_: Gateway, client: Client) -> None:
    await client.socket.close()


async def be_deleted_by_the_function(_: Gateway, client: Client) -> None:
    await client.do(["delete", "self"])


@case("2.6", "U", "nobody; the natural values")
@pytest.mark.parametrize(
    ("end", "expected"),
    [(drop, (1006, "")), (send_binary, (1003, "")), (send_too_much, (1009, ""))],
    ids=["TCP connection lost", "binary message", "frame too large"],
)
async def test_code_and_reason_of_other_ends(
    main: Gateway, unknown: Unknown, end: End, expected: tuple[int, str]
) -> None:
    client, _, observer = await watched(main)

    await end(main, client)

    unknown(await disconnected(observer), expected)


@case("5", "C", "$connect and $disconnect's page")
@pytest.mark.parametrize("end", [say_goodbye, drop, send_binary, send_too_much, be_deleted_by_the_function])
async def test_every_end_is_disconnected_once(main: Gateway, end: End) -> None:
    client, connection_id, observer = await watched(main)
    other = await main.open(observer=await observer.id())

    await end(main, client)
    first = await observer.event("$disconnect")
    await other.socket.close()
    second = await observer.event("$disconnect")

    assert first["requestContext"]["connectionId"] == connection_id
    assert second["requestContext"]["connectionId"] != connection_id


@case("5", "C", "follows from $connect and $disconnect's page")
async def test_failure_of_disconnect_does_no_harm(main: Gateway) -> None:
    client, _, observer = await watched(main, disconnect={"raise": "on purpose"})

    await client.socket.close()

    assert (await disconnected(observer))[0] == 1000
    again, _, observer = await watched(main)
    await again.do(["post", "self", "as before"])
    assert await again.received() == "as before"


@case("5", "U", "nobody")
async def test_disconnect_that_fails_is_not_repeated(main: Gateway, unknown: Unknown) -> None:
    client, connection_id, observer = await watched(main, disconnect={"raise": "on purpose"})
    await client.socket.close()
    await observer.event("$disconnect")

    other = await main.open(observer=await observer.id())
    await other.socket.close()

    event = await observer.event("$disconnect")
    unknown(event["requestContext"]["connectionId"] == connection_id, False)


@case("5", "U", "nobody")
@pytest.mark.parametrize(
    "refusing",
    [{"authorizer": {"raise": "Unauthorized"}}, {"connect": {"return": {"statusCode": 401}}}],
    ids=["by the authorizer", "by $connect"],
)
async def test_refused_handshake_is_not_disconnected(main: Gateway, unknown: Unknown, refusing: dict[str, Any]) -> None:
    observer, its_id = await main.observer()
    await main.refused(observer=its_id, **refusing)
    refused = (await observer.event("authorizer"))["requestContext"]["connectionId"]

    client = await main.open(observer=its_id)
    await client.socket.close()

    event = await observer.event("$disconnect")
    unknown(event["requestContext"]["connectionId"] == refused, False)


# Order and concurrency


@case("SO12", "C", "serverless-offline's suite")
async def test_observer_sees_connections_come_and_go_in_order(main: Gateway) -> None:
    observer, its_id = await main.observer()
    seen = []

    async def next_of(route: str) -> str:
        event = await observer.event(route)
        seen.append(event["requestContext"]["routeKey"])
        return str(event["requestContext"]["connectionId"])

    async def connected() -> tuple[Client, str]:
        return await main.open(observer=its_id), await next_of("$connect")

    async def closed(client: Client) -> str:
        await client.socket.close()
        return await next_of("$disconnect")

    (first, first_id), (second, second_id) = await connected(), await connected()
    assert await closed(second) == second_id
    third, third_id = await connected()
    assert await closed(first) == first_id
    assert await closed(third) == third_id
    assert len({first_id, second_id, third_id}) == 3
    assert seen == ["$connect", "$connect", "$disconnect", "$connect", "$disconnect", "$disconnect"]


@case("5", "C", "$connect and $disconnect's page")
async def test_connect_has_run_before_the_first_message(main: Gateway) -> None:
    observer, its_id = await main.observer()

    client = await main.open(observer=its_id, connect={"steps": [["sleep", 0.3], ["report", "observer"]]})
    await client.send("first")

    routes = [(await observer.next())["requestContext"]["routeKey"] for _ in range(4)]
    assert routes == ["$connect", "$connect", "$connect", "$default"]


@case("5", "L", "serverless-patterns#139; formally unknown")
async def test_message_does_not_wait_for_the_one_before(main: Gateway) -> None:
    client, other = await main.open(), await main.open()
    signal = await other.id()

    await client.do(["until gone", signal], ["post", "self", "first"])
    await client.do(["post", "self", "second"], ["delete", signal])

    assert [await client.received(), await client.received()] == ["second", "first"]


@case("5", "L", "a single TCP stream")
async def test_posts_of_a_function_arrive_in_order(main: Gateway) -> None:
    client = await main.open()

    await client.do(*[["post", "self", str(number)] for number in range(30)])

    assert [await client.received() for _ in range(30)] == [str(number) for number in range(30)]


@case("5", "C", "AWS's page on integrations")
async def test_messages_of_several_clients_are_answered_to_each(main: Gateway) -> None:
    clients = [await main.open() for _ in range(10)]

    await asyncio.gather(*(client.do(["post", "self", str(number)]) for number, client in enumerate(clients)))

    assert [await client.received() for client in clients] == [str(number) for number in range(10)]


@case("5", "L", "follows from $connect and $disconnect's page")
async def test_message_on_its_way_outlives_its_connection(main: Gateway) -> None:
    client, _, observer = await watched(main)
    await client.do(["report", "self"], ["until gone", "self"], ["post", "self", "too late"], ["report", "observer"])
    await client.received()

    await client.socket.close()

    await observer.event("$disconnect")
    await observer.event("custom")
    results = (await observer.report_of("custom"))["results"]
    assert (results[2]["status"], results[2]["Code"]) == (410, "GoneException")


# Limits of time


@asynccontextmanager
async def kept_alive(client: Client, every: float, *steps: list[Any]) -> AsyncIterator[None]:
    """Messages again and again."""

    async def send() -> None:
        while True:
            await client.do(*steps)
            await asyncio.sleep(every)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@case("E17", "C", "wscat transcript; capture of the event")
async def test_idle_connection_goes_away(limited: Gateway, limits: Limited) -> None:
    client, _, observer = await watched(limited)

    async with kept_alive(observer, limits.idle_seconds / 4):
        end = await client.closed(limits.idle_seconds + PATIENCE_SECONDS)

    assert end == (1001, "Going away")
    assert await disconnected(observer) == (1001, "Going away")


@case("E17", "C", "hotsock's transcript; ef-cms#1760")
@pytest.mark.parametrize("direction", ["in", "out"])
async def test_messages_in_either_direction_keep_a_connection(
    limited: Gateway, limits: Limited, direction: str
) -> None:
    active, helper, idle = await limited.open(), await limited.open(), await limited.open()
    busy, steps = (active, []) if direction == "in" else (helper, [["post", await active.id(), "news"]])

    async with kept_alive(busy, limits.idle_seconds / 4, *steps):
        end = await idle.closed(limits.idle_seconds + PATIENCE_SECONDS)
        await active.pinged(b"still here")

    assert end == (1001, "Going away")


@case("3.4", "U", "agentmux#1953")
async def test_pings_alone_keep_no_connection(limited: Gateway, limits: Limited, unknown: Unknown) -> None:
    client, silent = await limited.open(), await limited.open()
    task = asyncio.create_task(ping_until_closed(client, limits.idle_seconds / 4))

    await silent.closed(limits.idle_seconds + PATIENCE_SECONDS)
    await asyncio.wait([task], timeout=limits.idle_seconds / 2)

    task.cancel()
    unknown(client.socket.close_code, 1001)


async def ping_until_closed(client: Client, every: float) -> None:
    with suppress(ConnectionClosed):
        while True:
            await client.socket.ping()
            await asyncio.sleep(every)


@case("E18", "C", "quotas; hotsock's transcript. L for code and reason")
async def test_connection_ends_in_any_case(limited: Gateway, limits: Limited) -> None:
    client = await limited.open()

    async with kept_alive(client, limits.idle_seconds / 4):
        end = await client.closed(limits.connection_seconds + PATIENCE_SECONDS)

    assert end == (1001, "Going away")
