"""The route that a message takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import case
from tests.conformance.gateway import Event, Gateway

FORBIDDEN = r'{{"message": "Forbidden", "connectionId":"{}", "requestId":"{}"}}'


async def get_route(gateway: Gateway, message: str) -> str:
    """Send the message; return the route that it takes."""
    event = await get_event(gateway, message)
    assert event["body"] == message
    return str(event["requestContext"]["routeKey"])


async def get_event(gateway: Gateway, message: str) -> Event:
    observer, its_id = await gateway.observer()
    client = await gateway.open(observer=its_id)
    for _ in range(2):  # the authorizer's and `$connect`'s
        await observer.next()
    await client.send(message)
    return await observer.next()


@case("route-by-value")
@pytest.mark.parametrize("message", ['{"action": "custom"}', '{"data": {"action": "x"}, "action": "custom"}'])
async def test_message_takes_the_route_that_it_names(main: Gateway, message: str) -> None:
    assert await get_route(main, message) == "custom"


@case("route-default")
@pytest.mark.parametrize("action", ["Custom", "custom ", "other", "cust", "custom/more", ""], ids=repr)
async def test_message_that_names_no_route_takes_the_default(main: Gateway, action: str) -> None:
    assert await get_route(main, json.dumps({"action": action})) == "$default"


@case("route-missing-member")
@pytest.mark.parametrize(
    "message", ['{"hello": "world"}', "{}", '{"Action": "custom"}', '{"nested": {"action": "custom"}}']
)
async def test_message_without_the_member_takes_the_default(main: Gateway, message: str) -> None:
    assert await get_route(main, message) == "$default"


@case("route-not-json")
@pytest.mark.parametrize("message", ["hello", "action: custom", '{"action": "custom"', " ", "こんにちは"], ids=ascii)
async def test_message_that_is_not_json_takes_the_default(main: Gateway, message: str) -> None:
    assert await get_route(main, message) == "$default"


@case("route-json-no-value")
@pytest.mark.parametrize("message", ['"custom"', "5", "null", "true", '{"action": null}', '{"action": {"custom": 1}}'])
async def test_json_without_a_usable_value_takes_the_default(main: Gateway, message: str) -> None:
    assert await get_route(main, message) == "$default"


@case("route-unquoted-names")
@pytest.mark.parametrize("message", ['{action: "custom", data: "test"}', '{"action":"custom", body:"hello"}'])
async def test_names_need_no_quotes(main: Gateway, message: str) -> None:
    assert await get_route(main, message) == "custom"


@case("route-other-leniency")
@pytest.mark.parametrize(
    "message", ["{'action': 'custom'}", '{"action": "custom",}', '{"action": "custom" /* so */}', "{action: custom}"]
)
async def test_other_lenient_json_takes_the_default(main: Gateway, message: str) -> None:
    assert await get_route(main, message) == "$default"


@case("route-number-boolean")
@pytest.mark.parametrize(
    ("value", "route"), [(1, "1"), (True, "true"), ("1", "1"), (2, "$default"), (False, "$default")]
)
async def test_number_or_boolean_is_compared_as_text(main: Gateway, value: Any, route: str) -> None:
    assert await get_route(main, json.dumps({"action": value})) == route


@case("route-predefined-keys")
@pytest.mark.parametrize("action", ["$connect", "$disconnect", "$default"])
async def test_message_cannot_name_a_predefined_route(main: Gateway, action: str) -> None:
    assert await get_route(main, json.dumps({"action": action})) == "$default"


@case("route-top-level-array")
async def test_array_takes_the_default(main: Gateway) -> None:
    assert await get_route(main, '[{"action": "custom"}]') == "$default"


@case("event-body-verbatim")
async def test_body_is_the_message_byte_for_byte(main: Gateway) -> None:
    message = '{ "b": 1.0,\t"a": "\\u00fc ü 🚀 \\/",\r\n "action":"custom", "a": 2e3 }'

    event = await get_event(main, message)

    assert event["body"] == message
    assert event["isBase64Encoded"] is False


@case("event-route-key")
async def test_route_key_of_the_event_is_the_route_not_the_value(main: Gateway) -> None:
    event = await get_event(main, '{"action": "nowhere"}')

    assert event["requestContext"]["routeKey"] == "$default"


# Other expressions


@case("route-nested-member")
async def test_member_may_be_nested(guarded: Gateway) -> None:
    assert await get_route(guarded, '{"service":{"do":"echo"},"message":"1600000000000"}') == "echo"


@case("route-nested-missing")
@pytest.mark.parametrize(
    "message",
    ['{"service":"echo"}', '{"do":"echo"}', '{"service":{"do":{"do":"echo"}}}', '{"service":[{"do":"echo"}]}'],
)
async def test_nested_member_that_is_missing_takes_the_default(guarded: Gateway, message: str) -> None:
    assert await get_route(guarded, message) == "$default"


@case("route-joined-members")
async def test_members_are_joined_with_the_text_between_them(bare: Gateway) -> None:
    event = await (await bare.open()).report(service="chat", name="send")

    assert event["requestContext"]["routeKey"] == "chat-send"


@case("route-missing-is-empty")
async def test_missing_member_is_empty_text(bare: Gateway) -> None:
    event = await (await bare.open()).report(service="chat")

    assert event["requestContext"]["routeKey"] == "chat-"


@case("route-array-text")
async def test_array_is_its_items_in_brackets(open_: Gateway) -> None:
    event = await (await open_.open()).report(list=["a", "b"])

    assert event["requestContext"]["routeKey"] == "[a, b]"


@case("route-static")
async def test_expression_without_a_member_is_the_route(throttled: Gateway) -> None:
    client = await throttled.open_within_throttle()

    event = await client.report_within_throttle()

    assert event["requestContext"]["routeKey"] == "fixed"


# Without a route


@case("error-no-route")
@pytest.mark.parametrize("message", ['{"service": "chat", "name": "other"}', "hello", "{}"])
async def test_message_without_route_or_default_gets_the_forbidden_frame(bare: Gateway, message: str) -> None:
    client = await bare.open()

    await client.send(message)

    frame = await client.receive()
    request_id = json.loads(frame)["requestId"]
    assert frame == FORBIDDEN.format(await client.id(), request_id)


@case("error-keeps-open")
async def test_forbidden_message_leaves_the_connection_open(bare: Gateway) -> None:
    client = await bare.open()
    await client.send("hello")
    await client.receive()

    await client.do(["post", "self", "still here"])

    assert await client.receive() == "still here"
