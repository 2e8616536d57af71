"""How connections end, `$disconnect`, order and concurrency, the idle and the two-hour limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conformance.conftest import case
from tests.conformance.deployments import Limited
from tests.conformance.gateway import PATIENCE_SECONDS, Client, Gateway, Observer

LOST = 1006  # RFC 6455: there was no close frame
CLOSE_WITHOUT_A_CODE = b"\x88\x80\0\0\0\0"  # masked, as a client's frames are

End = Callable[[Gateway, Client], Awaitable[Any]]


async def open_observed(gateway: Gateway, **how: Any) -> tuple[Client, str, Observer]:
    """Connect; return the client, its connection's id, and an observer that has seen it connect."""
    observer, its_id = await gateway.observer()
    client = await gateway.open(observer=its_id, **how)
    await observer.event("authorizer")
    event = await observer.event("$connect")
    return client, event["requestContext"]["connectionId"], observer


async def wait_for_disconnect(observer: Observer) -> tuple[int, str]:
    """Return code and reason of the next `$disconnect`."""
    context = (await observer.event("$disconnect"))["requestContext"]
    return context["disconnectStatusCode"], context["disconnectReason"]


# `$disconnect`


@case("disconnect-no-code")
async def test_close_without_a_code_is_1005_in_the_event(main: Gateway) -> None:
    client, _, observer = await open_observed(main)

    client.socket.transport.write(CLOSE_WITHOUT_A_CODE)

    assert await wait_for_disconnect(observer) == (1005, "Client-side close frame status not set")


@case("disconnect-client-code")
@pytest.mark.parametrize(("code", "reason"), [(4001, "bye"), (1000, "Shutdown"), (1001, "leaving ü")])
async def test_code_and_reason_of_the_client_are_in_the_event(main: Gateway, code: int, reason: str) -> None:
    client, _, observer = await open_observed(main)

    await client.socket.close(code, reason)

    assert await wait_for_disconnect(observer) == (code, reason)


@case("disconnect-no-reason")
@pytest.mark.parametrize("code", [1000, 4001])
async def test_close_without_a_reason_has_an_empty_reason_in_the_event(main: Gateway, code: int) -> None:
    client, _, observer = await open_observed(main)

    await client.socket.close(code)

    assert await wait_for_disconnect(observer) == (code, "")


@case("close-answered")
async def test_close_frame_is_answered_with_its_code(gateway: Gateway) -> None:
    client = await gateway.open()

    await client.socket.close(4001, "bye")

    received = client.socket.protocol.close_rcvd
    assert received is not None
    assert received.code == 4001


@case("delete-closes-1000")
async def test_deleted_connection_closes_with_1000_and_runs_disconnect(main: Gateway) -> None:
    client, connection_id, observer = await open_observed(main)

    await main.call("delete_connection", connection_id)

    assert (await client.wait_closed())[0] == 1000
    context = (await observer.event("$disconnect"))["requestContext"]
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (1000, "Connection Closed Normally")
    assert context["connectionId"] == connection_id
    assert context["authorizer"]["principalId"] == "me"


@case("delete-close-reason")
async def test_close_frame_of_a_deleted_connection_has_the_reason_of_the_event(main: Gateway) -> None:
    client, connection_id, _ = await open_observed(main)

    await main.call("delete_connection", connection_id)

    assert await client.wait_closed() == (1000, "Connection Closed Normally")


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


@case("disconnect-other-codes")
@pytest.mark.parametrize(
    ("end", "expected"),
    [(drop, (1006, "")), (send_binary, (1003, "")), (send_too_much, (1009, ""))],
    ids=["TCP connection lost", "binary message", "frame too large"],
)
async def test_code_and_reason_of_other_ends(main: Gateway, end: End, expected: tuple[int, str]) -> None:
    client, _, observer = await open_observed(main)

    await end(main, client)

    assert await wait_for_disconnect(observer) == expected


@case("disconnect-every-end")
@pytest.mark.parametrize("end", [say_goodbye, drop, send_binary, send_too_much, be_deleted_by_the_function])
async def test_every_end_runs_disconnect_once(main: Gateway, end: End) -> None:
    client, connection_id, observer = await open_observed(main)
    other = await main.open(observer=await observer.id())

    await end(main, client)
    first = await observer.event("$disconnect")
    await other.socket.close()
    second = await observer.event("$disconnect")

    assert first["requestContext"]["connectionId"] == connection_id
    assert second["requestContext"]["connectionId"] != connection_id


@case("disconnect-failure")
async def test_failure_of_disconnect_changes_nothing_else(main: Gateway) -> None:
    client, _, observer = await open_observed(main, disconnect={"raise": "on purpose"})

    await client.socket.close()

    assert (await wait_for_disconnect(observer))[0] == 1000
    again, _, observer = await open_observed(main)
    await again.do(["post", "self", "as before"])
    assert await again.receive() == "as before"


@case("disconnect-not-retried")
async def test_disconnect_that_fails_is_not_repeated(main: Gateway) -> None:
    client, connection_id, observer = await open_observed(main, disconnect={"raise": "on purpose"})
    await client.socket.close()
    await observer.event("$disconnect")

    other = await main.open(observer=await observer.id())
    await other.socket.close()

    event = await observer.event("$disconnect")
    assert event["requestContext"]["connectionId"] != connection_id


@case("disconnect-after-refusal")
@pytest.mark.parametrize(
    "refusing",
    [{"authorizer": {"raise": "Unauthorized"}}, {"connect": {"return": {"statusCode": 401}}}],
    ids=["by the authorizer", "by $connect"],
)
async def test_refused_handshake_runs_no_disconnect(main: Gateway, refusing: dict[str, Any]) -> None:
    observer, its_id = await main.observer()
    await main.expect_refusal(observer=its_id, **refusing)
    refused = (await observer.event("authorizer"))["requestContext"]["connectionId"]

    client = await main.open(observer=its_id)
    await client.socket.close()

    event = await observer.event("$disconnect")
    assert event["requestContext"]["connectionId"] != refused


# Order and concurrency


@case("order-connections")
async def test_events_of_connections_come_in_order(main: Gateway) -> None:
    observer, its_id = await main.observer()
    seen = []

    async def wait_for_event(route: str) -> str:
        event = await observer.event(route)
        seen.append(event["requestContext"]["routeKey"])
        return str(event["requestContext"]["connectionId"])

    async def connect() -> tuple[Client, str]:
        return await main.open(observer=its_id), await wait_for_event("$connect")

    async def close_and_wait(client: Client) -> str:
        await client.socket.close()
        return await wait_for_event("$disconnect")

    (first, first_id), (second, second_id) = await connect(), await connect()
    assert await close_and_wait(second) == second_id
    third, third_id = await connect()
    assert await close_and_wait(first) == first_id
    assert await close_and_wait(third) == third_id
    assert len({first_id, second_id, third_id}) == 3
    assert seen == ["$connect", "$connect", "$disconnect", "$connect", "$disconnect", "$disconnect"]


@case("order-connect-first")
async def test_connect_has_run_before_the_first_message(main: Gateway) -> None:
    observer, its_id = await main.observer()

    client = await main.open(observer=its_id, connect={"steps": [["sleep", 0.3], ["report", "observer"]]})
    await client.send("first")

    routes = [(await observer.next())["requestContext"]["routeKey"] for _ in range(4)]
    assert routes == ["$connect", "$connect", "$connect", "$default"]


@case("order-messages")
async def test_message_does_not_wait_for_the_one_before(main: Gateway) -> None:
    client, other = await main.open(), await main.open()
    signal = await other.id()

    await client.do(["until gone", signal], ["post", "self", "first"])
    await client.do(["post", "self", "second"], ["delete", signal])

    assert [await client.receive(), await client.receive()] == ["second", "first"]


@case("order-posts")
async def test_posts_of_a_function_arrive_in_order(main: Gateway) -> None:
    client = await main.open()

    await client.do(*[["post", "self", str(number)] for number in range(30)])

    assert [await client.receive() for _ in range(30)] == [str(number) for number in range(30)]


@case("order-clients")
async def test_every_client_gets_the_answers_to_its_messages(main: Gateway) -> None:
    clients = [await main.open() for _ in range(10)]

    await asyncio.gather(*(client.do(["post", "self", str(number)]) for number, client in enumerate(clients)))

    assert [await client.receive() for client in clients] == [str(number) for number in range(10)]


@case("order-function-outlives")
async def test_function_goes_on_after_its_client_has_left(main: Gateway) -> None:
    client, _, observer = await open_observed(main)
    await client.do(["report", "self"], ["until gone", "self"], ["post", "self", "too late"], ["report", "observer"])
    await client.receive()

    await client.socket.close()

    await observer.event("$disconnect")
    await observer.event("custom")
    results = (await observer.report_of("custom"))["results"]
    assert (results[2]["status"], results[2]["Code"]) == (410, "GoneException")


# Limits of time


@asynccontextmanager
async def keep_sending(client: Client, every: float, *steps: list[Any]) -> AsyncIterator[None]:
    """Send messages again and again."""

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


@case("limit-idle")
async def test_idle_connection_is_closed(limited: Gateway, limits: Limited) -> None:
    client, _, observer = await open_observed(limited)

    async with keep_sending(observer, limits.idle_seconds / 4):
        end = await client.wait_closed(limits.idle_seconds + PATIENCE_SECONDS)

    assert end == (1001, "Going away")
    assert await wait_for_disconnect(observer) == (1001, "Going away")


@case("limit-idle-messages")
@pytest.mark.parametrize("direction", ["in", "out"])
async def test_messages_in_either_direction_keep_a_connection_open(
    limited: Gateway, limits: Limited, direction: str
) -> None:
    active, helper, idle = await limited.open(), await limited.open(), await limited.open()
    busy, steps = (active, []) if direction == "in" else (helper, [["post", await active.id(), "news"]])

    async with keep_sending(busy, limits.idle_seconds / 4, *steps):
        end = await idle.wait_closed(limits.idle_seconds + PATIENCE_SECONDS)
        await active.ping(b"still here")

    assert end == (1001, "Going away")


@case("limit-idle-pings")
async def test_pings_keep_no_connection_open(limited: Gateway, limits: Limited) -> None:
    client, silent = await limited.open(), await limited.open()
    task = asyncio.create_task(ping_until_closed(client, limits.idle_seconds / 4))

    await silent.wait_closed(limits.idle_seconds + PATIENCE_SECONDS)
    await asyncio.wait([task], timeout=limits.idle_seconds / 2)

    task.cancel()
    assert client.socket.close_code == 1001


async def ping_until_closed(client: Client, every: float) -> None:
    with suppress(ConnectionClosed):
        while True:
            await client.socket.ping()
            await asyncio.sleep(every)


async def end_of_active_connection(limited: Gateway, limits: Limited) -> tuple[int | None, str | None]:
    """Send messages until the connection is closed; return close code and reason."""
    client = await limited.open()
    async with keep_sending(client, limits.idle_seconds / 4):
        return await client.wait_closed(limits.connection_seconds + PATIENCE_SECONDS)


@case("limit-two-hours")
async def test_active_connection_is_closed_in_the_end(limited: Gateway, limits: Limited) -> None:
    code, _ = await end_of_active_connection(limited, limits)

    assert code != LOST


@case("limit-two-hours-code")
async def test_active_connection_is_closed_with_1001(limited: Gateway, limits: Limited) -> None:
    assert await end_of_active_connection(limited, limits) == (1001, "Going away")
