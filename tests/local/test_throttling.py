"""Throttles of handshakes, messages and calls of `@connections`."""

from __future__ import annotations

import asyncio
from typing import Any

import boto3
import pytest
from botocore.config import Config
from websockets.exceptions import InvalidStatus

from local.apigateway.api import Throttle
from local.apigateway.limits import Limits
from local.aws.clients import CREDENTIALS
from tests.fixtures.apis import OUR_ROUTES, api
from tests.fixtures.gateway import Gateway, Serve, get_refusal_status, receive


def allow_requests(burst: int) -> Throttle:
    """Return a throttle that lets so many requests through and then no more."""
    return Throttle(rate=0, burst=burst)


def create_client(gateway: Gateway) -> Any:
    """Return a boto3 client without retries."""
    url = f"http://127.0.0.1:{gateway.port}/prod"
    once = Config(retries={"total_max_attempts": 1})
    return boto3.client(
        "apigatewaymanagementapi", endpoint_url=url, region_name="us-east-1", config=once, **CREDENTIALS
    )


# Handshakes


async def test_too_many_new_connections_of_the_account_are_refused(serve: Serve) -> None:
    gateway = await serve(limits=Limits(new_connections=allow_requests(2)))

    for _ in range(2):
        await gateway.connect()
    with pytest.raises(InvalidStatus) as error:
        await gateway.connect()

    response = error.value.response
    assert (response.status_code, response.headers["x-amzn-ErrorType"]) == (429, "TooManyRequestsException")
    assert response.body == b'{"message":"Too Many Requests"}'
    assert gateway.functions.invoked == ["$connect", "$connect"]


async def test_new_connections_are_limited_without_a_connect_route_too(serve: Serve) -> None:
    gateway = await serve(api("$default"), limits=Limits(new_connections=allow_requests(1)))

    await gateway.connect()

    assert await get_refusal_status(gateway) == 429


async def test_authorizer_is_not_invoked_for_a_refused_connection(serve: Serve) -> None:
    guarded = api(*OUR_ROUTES, identity_sources=())
    gateway = await serve(guarded, limits=Limits(new_connections=allow_requests(1)))

    await gateway.connect()

    assert await get_refusal_status(gateway) == 429
    assert gateway.functions.invoked.count("authorizer") == 1


async def test_handshake_for_another_stage_does_not_count(serve: Serve) -> None:
    gateway = await serve(limits=Limits(new_connections=allow_requests(1)))

    assert await get_refusal_status(gateway, "/x") == 403

    await gateway.connect()


# Messages


async def test_client_gets_an_error_frame_for_each_message_too_many_and_stays_connected(serve: Serve) -> None:
    gateway = await serve(api("$connect", "$default", "send", routes={"$default": {"throttle": allow_requests(1)}}))
    peer, connection_id = await gateway.connect_with_id()

    for message in ("first", "second", "third"):
        await peer.send(message)
    frames = [await receive(peer), await receive(peer)]
    await peer.send('{"action": "send"}')

    for frame in frames:
        assert frame.startswith(f'{{"message": "Too Many Requests", "connectionId":"{connection_id}", "requestId":"')
    assert frames[0] != frames[1]
    assert (await gateway.functions.wait_for_event("send"))["body"] == '{"action": "send"}'
    assert gateway.functions.invoked == ["$connect", "$default", "send"]


async def test_connections_share_the_limit_of_a_route(serve: Serve) -> None:
    gateway = await serve(api(*OUR_ROUTES, routes={"$default": {"throttle": allow_requests(1)}}))
    peers = [await gateway.connect() for _ in range(2)]

    await peers[0].send("first")
    await gateway.functions.wait_for_event("$default")
    await peers[1].send("second")

    assert (await receive(peers[1])).startswith('{"message": "Too Many Requests"')


async def test_messages_share_the_limit_of_the_account(serve: Serve) -> None:
    gateway = await serve(api("$default", "send"), limits=Limits(requests=allow_requests(1)))
    peer = await gateway.connect()

    await peer.send("hello")
    await gateway.functions.wait_for_event("$default")
    await peer.send('{"action": "send"}')

    assert (await receive(peer)).startswith('{"message": "Too Many Requests"')
    assert gateway.functions.invoked == ["$default"]


async def test_message_without_a_route_is_not_throttled(serve: Serve) -> None:
    gateway = await serve(api("send"), limits=Limits(requests=allow_requests(0)))
    peer = await gateway.connect()

    await peer.send("hello")

    assert (await receive(peer)).startswith('{"message": "Forbidden"')


async def test_disconnect_is_not_throttled(serve: Serve) -> None:
    gateway = await serve(api(*OUR_ROUTES, routes={"$disconnect": {"throttle": allow_requests(0)}}))
    peer = await gateway.connect()

    await peer.close()

    assert await gateway.wait_for_disconnect() == (1000, "")


# @connections


async def test_call_over_the_limit_of_the_account_is_refused(serve: Serve) -> None:
    """Messages and calls share it: https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html."""
    gateway = await serve(limits=Limits(requests=allow_requests(3)))
    peer, connection_id = await gateway.connect_with_id()  # the first
    await peer.send("hello")  # the second
    await gateway.functions.wait_for_event("$default")
    client = create_client(gateway)
    await asyncio.to_thread(client.get_connection, ConnectionId=connection_id)

    with pytest.raises(client.exceptions.LimitExceededException) as error:
        await asyncio.to_thread(client.delete_connection, ConnectionId=connection_id)

    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert gateway.server.connections.get(connection_id)
