"""A changed API in a running gateway: open connections stay, and everything new is served."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from local.apigateway.api import Throttle
from local.aws.account import Account
from local.errors import TemplateError
from tests.fixtures.apis import AUTHORIZER_ARN, OUR_ROUTES, WEBSOCKET_ARN, api
from tests.fixtures.gateway import Gateway, Serve, get_refusal_status, receive

ONCE = Throttle(rate=0, burst=1)
SEND = '{"action": "send"}'


async def test_open_connection_gets_new_routes(gateway: Gateway) -> None:
    peer = await gateway.connect()

    gateway.server.update(api(*OUR_ROUTES, "send"))
    await peer.send(SEND)

    assert (await gateway.functions.wait_for_event("send"))["body"] == SEND


async def test_open_connection_loses_removed_routes(gateway: Gateway) -> None:
    peer = await gateway.connect()

    gateway.server.update(api("$connect"))
    await peer.send("hello")
    frame = await receive(peer)
    await peer.close()
    await gateway.server.stop()

    assert frame.startswith('{"message": "Forbidden"')
    assert gateway.functions.invoked == ["$connect"]


async def test_open_connection_gets_a_new_route_selection_expression(serve: Serve) -> None:
    gateway = await serve(api("$default", "send"))
    peer = await gateway.connect()

    gateway.server.update(api("$default", "send", expression="$request.body.type"))
    await peer.send('{"type": "send"}')

    assert (await gateway.functions.wait_for_event("send"))["body"] == '{"type": "send"}'


async def test_route_may_become_two_way(gateway: Gateway) -> None:
    peer = await gateway.connect()

    gateway.server.update(api(*OUR_ROUTES, routes={"$default": {"two_way": True}}))
    await peer.send("hello")

    assert await receive(peer) == ""


async def test_events_of_an_open_connection_have_new_stage_variables(serve: Serve) -> None:
    gateway = await serve(api(*OUR_ROUTES, stage_variables={"tenant": "acme"}))
    peer = await gateway.connect()

    gateway.server.update(api(*OUR_ROUTES, stage_variables={"tenant": "globex"}))
    await peer.send("hello")
    await peer.close()

    events = [await gateway.functions.wait_for_event(route) for route in OUR_ROUTES]
    variables = {event["requestContext"]["routeKey"]: event["stageVariables"]["tenant"] for event in events}
    assert variables == {"$connect": "acme", "$default": "globex", "$disconnect": "globex"}


async def test_next_handshake_has_the_new_authorizer(gateway: Gateway) -> None:
    gateway.server.update(api(*OUR_ROUTES, identity_sources=("route.request.querystring.idToken",)))

    assert await get_refusal_status(gateway) == 401
    await gateway.connect("?idToken=abc")
    assert gateway.functions.invoked == ["authorizer", "$connect"]


async def test_permissions_are_those_of_the_new_api(gateway: Gateway) -> None:
    gateway.server.update(api(*OUR_ROUTES, permissions=frozenset({(AUTHORIZER_ARN, "*")})))
    assert await get_refusal_status(gateway) == 500

    gateway.server.update(api(*OUR_ROUTES, permissions=frozenset({(WEBSOCKET_ARN, "*")})))
    await gateway.connect()


async def test_unchanged_throttle_keeps_its_state(serve: Serve) -> None:
    gateway = await serve(api("$default", routes={"$default": {"throttle": ONCE}}))
    peer = await gateway.connect()
    await peer.send("first")
    await gateway.functions.wait_for_event("$default")

    gateway.server.update(api("$default", "send", routes={"$default": {"throttle": ONCE}, "send": {"throttle": ONCE}}))
    await peer.send("second")

    assert (await receive(peer)).startswith('{"message": "Too Many Requests"')


async def test_changed_throttle_starts_with_a_full_bucket(serve: Serve) -> None:
    gateway = await serve(api("$default", routes={"$default": {"throttle": ONCE}}))
    peer = await gateway.connect()
    await peer.send("first")
    await gateway.functions.wait_for_event("$default")

    gateway.server.update(api("$default", routes={"$default": {"throttle": Throttle(rate=0, burst=2)}}))
    for message in ("second", "third", "fourth"):
        await peer.send(message)

    assert (await receive(peer)).startswith('{"message": "Too Many Requests"')
    assert gateway.functions.invoked == ["$default"] * 3


@pytest.mark.parametrize(
    ("named", "change"),
    [("id", {"id": "otherapi00"}), ("stage", {"stage": "dev"}), ("arn", {"account": Account("123456789012")})],
)
async def test_another_stage_needs_a_restart(gateway: Gateway, named: str, change: dict[str, Any]) -> None:
    before = gateway.server.api

    with pytest.raises(ValueError, match=f"^the API's {named} was .*, which needs a restart$"):
        gateway.server.update(dataclasses.replace(before, **change))

    assert gateway.server.api == before


async def test_invalid_api_changes_nothing(gateway: Gateway) -> None:
    peer = await gateway.connect()

    with pytest.raises(TemplateError, match="cannot be evaluated locally"):
        gateway.server.update(api(*OUR_ROUTES, expression="$context.a"))
    await peer.send("hello")

    assert (await gateway.functions.wait_for_event("$default"))["body"] == "hello"
    await gateway.connect()
