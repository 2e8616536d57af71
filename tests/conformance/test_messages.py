"""What comes of a message: nothing, an answer or an error frame; frames and their limits."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conformance.conftest import Unknown, case
from tests.conformance.gateway import Client, Gateway, Script

FRAME = 32 * 1024
MESSAGE = 128 * 1024
SERVER_ERROR = "Internal server error"
TIMED_OUT = "Endpoint request timed out"


async def assert_error_frame(client: Client, message: str) -> None:
    """The next frame is this error's, byte for byte."""
    frame = await client.received()
    request_id = json.loads(frame)["requestId"]
    assert frame == f'{{"message": "{message}", "connectionId":"{await client.id()}", "requestId":"{request_id}"}}'


async def assert_silence(client: Client) -> None:
    """The next frame is what was asked for after the message in question had been handled."""
    await client.do(["post", "self", "the next frame"])
    assert await client.received() == "the next frame"


# One-way routes


@case("E12", "C", "WSCAT-notes; AWS's page on route responses")
@pytest.mark.parametrize("status", [200, 201, 301, 401, 500, 501])
async def test_answer_of_a_one_way_route_is_not_sent(main: Gateway, status: int) -> None:
    client = await main.open()

    await client.do(["post", "self", "handled"], returns={"statusCode": status, "body": "not for the client"})

    assert await client.received() == "handled"
    await assert_silence(client)


@case("3.2", "L", "REST's malformed responses")
async def test_every_member_of_a_proxy_response_is_accepted(main: Gateway) -> None:
    client = await main.open()
    answer = {
        "statusCode": 200,
        "headers": {"a": "b"},
        "multiValueHeaders": {"c": ["d"]},
        "body": "",
        "isBase64Encoded": False,
    }

    await client.do(["post", "self", "handled"], returns=answer)

    assert await client.received() == "handled"
    await assert_silence(client)


@case("SO7", "C", "serverless-offline's suite; WSCAT-notes")
@pytest.mark.parametrize("how", [{"raises": "on purpose"}, {"raises": "Unauthorized"}], ids=str)
async def test_error_of_the_function_is_told(main: Gateway, how: Script) -> None:
    client = await main.open()

    await client.do(**how)

    await assert_error_frame(client, SERVER_ERROR)


@case("SO9", "C", "serverless-offline's suite; WSCAT-notes")
async def test_crash_of_the_function_is_told(main: Gateway) -> None:
    client = await main.open()

    await client.do(["exit", 1])

    await assert_error_frame(client, SERVER_ERROR)


@case("E13", "C", "middy#1219; architect#1093")
@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": 200, "Data": "x"},
        {"ConnectionId": "x", "Data": "y", "statusCode": 200},
        {"body": "no status"},
        {},
    ],
    ids=str,
)
async def test_malformed_answer_is_told_even_on_a_one_way_route(main: Gateway, answer: Any) -> None:
    client = await main.open()

    await client.do(returns=answer)

    await assert_error_frame(client, SERVER_ERROR)


@case("3.2", "L", "architect#1093; REST's malformed responses")
@pytest.mark.parametrize("answer", [None, "text", 200, [], {"statusCode": "two hundred"}], ids=str)
async def test_answer_that_is_no_object_or_has_no_valid_status_is_told(main: Gateway, answer: Any) -> None:
    client = await main.open()

    await client.do(returns=answer)

    await assert_error_frame(client, SERVER_ERROR)


@case("SO8", "L", "serverless-offline's suite; architect#1093 for the frame")
async def test_reply_comes_before_the_error_of_an_answer_that_is_null(main: Gateway) -> None:
    client = await main.open()

    await client.do(["post", "self", "reply"], returns=None)

    assert await client.received() == "reply"
    await assert_error_frame(client, SERVER_ERROR)


@case("3.2", "C", "aws-cdk#18208")
async def test_missing_permission_to_invoke_is_told(main: Gateway) -> None:
    client = await main.open()

    await client.send('{"action": "unpermitted"}')

    await assert_error_frame(client, SERVER_ERROR)


@case("E11", "C", "chalice#1406; mangum#128")
@pytest.mark.parametrize(
    ("route", "seconds"), [("slow", 4), ("hurried", 1)], ids=["function's timeout", "integration's timeout"]
)
async def test_timeout_is_told(main: Gateway, route: str, seconds: float) -> None:
    client = await main.open()

    await client.do(["sleep", seconds], message={"action": route})

    await assert_error_frame(client, TIMED_OUT)


@case("3.5", "C", "serverless-offline's suite; WSCAT-notes")
async def test_error_leaves_the_connection_open(main: Gateway) -> None:
    client = await main.open()
    for _ in range(2):
        await client.do(raises="on purpose")
        await assert_error_frame(client, SERVER_ERROR)

    await assert_silence(client)


@case("3.5", "L", "captures")
async def test_error_frame_names_the_request_of_its_event(main: Gateway) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.do(raises="on purpose")

    frame = json.loads(await client.received())
    context = (await observer.event("custom"))["requestContext"]
    assert (frame["connectionId"], frame["requestId"]) == (context["connectionId"], context["requestId"])


# Two-way routes

TWO_WAY = {"action": "two-way"}


@case("3.3", "C", "AWS's page on route responses; React-Chat-App#2")
@pytest.mark.parametrize("status", [200, 301, 400, 500])
async def test_body_of_a_two_way_route_is_sent_whatever_the_status(main: Gateway, status: int) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, returns={"statusCode": status, "body": '{"answer": "ü"}'})

    assert await client.received() == '{"answer": "ü"}'


@case("3.3", "L", "serverless#6816")
async def test_two_way_route_without_a_body_sends_an_empty_message(main: Gateway) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, returns={"statusCode": 200})

    assert await client.received() == ""


@case("3.3", "U", "nobody")
async def test_body_of_a_two_way_route_in_base64(main: Gateway, unknown: Unknown) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, returns={"statusCode": 200, "body": "aGVsbG8=", "isBase64Encoded": True})

    unknown(await client.received(), "hello")


@case("3.3", "U", "nobody; the limit is that of the quotas")
async def test_body_of_a_two_way_route_over_the_limit_of_a_message(main: Gateway, unknown: Unknown) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, returns={"statusCode": 200, "body": "é"}, repeats=MESSAGE // 2)
    assert len((await client.received()).encode()) == MESSAGE

    await client.do(message=TWO_WAY, returns={"statusCode": 200, "body": "é"}, repeats=MESSAGE // 2 + 1)
    unknown(json.loads(await client.received())["message"], SERVER_ERROR)


@case("3.2", "C", "WSCAT-notes; middy#1219")
@pytest.mark.parametrize("how", [{"raises": "on purpose"}, {"returns": {"body": "no status"}}], ids=str)
async def test_failure_of_a_two_way_route_is_told(main: Gateway, how: Script) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, **how)

    await assert_error_frame(client, SERVER_ERROR)


# Frames


def described(body: str) -> str:
    """How the probe reports a large body."""
    return f"{len(body.encode())} bytes, SHA-256 {hashlib.sha256(body.encode()).hexdigest()}"


@case("E15", "C", "quotas")
@pytest.mark.parametrize(
    "frames",
    [["x" * FRAME], ["x" * FRAME] * 4, ["x", "", "y" * FRAME], ["é" * (FRAME // 2)]],
    ids=["a frame of 32 KB", "128 KB in four", "unequal frames", "two bytes a character"],
)
async def test_message_within_the_limits_is_one_event(main: Gateway, frames: list[str]) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id, options={"compression": None})

    await client.send(frames)

    assert (await observer.event("$default"))["body"] == described("".join(frames))


@case("E15", "C", "quotas; important notes")
@pytest.mark.parametrize(
    "frames",
    [["x" * (FRAME + 1)], [*["x" * FRAME] * 4, "x"], ["é" * (FRAME // 2) + "x"]],
    ids=["a frame of 32 KB and a byte", "128 KB and a byte in five", "bytes, not characters"],
)
async def test_larger_frame_or_message_closes_the_connection(gateway: Gateway, frames: list[str]) -> None:
    client = await gateway.open(options={"compression": None})

    await client.send(frames)

    assert (await client.closed())[0] == 1009


@case("3.4", "U", "nobody")
async def test_limit_is_that_of_the_message_before_its_compression(main: Gateway, unknown: Unknown) -> None:
    client = await main.open(options={"compression": "deflate"})

    await client.do(["post", "self", "x" * FRAME])

    unknown(await answer_or_close_code(client), 1009)


async def answer_or_close_code(client: Client) -> str | int | None:
    try:
        return await client.received()
    except ConnectionClosed:
        return client.socket.close_code


@case("E14", "C", "AWS's page on binary media types")
async def test_binary_message_closes_the_connection(gateway: Gateway) -> None:
    client = await gateway.open()

    await client.send(b"hello")

    assert (await client.closed())[0] == 1003


@case("E14", "C", "AWS's page on binary media types")
@pytest.mark.parametrize(
    ("message", "code"), [(b"hello", 1003), ("x" * (FRAME + 1), 1009)], ids=["binary", "too large"]
)
async def test_message_that_closes_the_connection_reaches_no_function(
    main: Gateway, message: str | bytes, code: int
) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.send(message)

    assert (await client.closed())[0] == code
    routes = [(await observer.next())["requestContext"]["routeKey"] for _ in range(3)]
    assert routes == ["$connect", "$connect", "$disconnect"]


@case("3.4", "U", "nobody")
@pytest.mark.parametrize("message", [b"hello", "x" * (FRAME + 1)], ids=["binary", "too large"])
async def test_reason_of_a_close_frame_for_the_wrong_message(
    main: Gateway, unknown: Unknown, message: str | bytes
) -> None:
    client = await main.open()

    await client.send(message)

    unknown((await client.closed())[1], "")


@case("E16", "C", "dvmatyun/web_socket#13; compiler-explorer/infra#2229")
async def test_ping_is_answered(gateway: Gateway) -> None:
    client = await gateway.open()

    await client.pinged(b"payload")
    await client.pinged(b"")


@case("E16", "C", "dvmatyun/web_socket#13; compiler-explorer/infra#2229")
async def test_ping_reaches_no_function(main: Gateway) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.pinged(b"payload")
    await client.send("hello")

    events = [await observer.next() for _ in range(3)]
    assert [event.get("body") for event in events] == [None, None, "hello"]


@case("3.4", "U", "nobody")
async def test_empty_message(main: Gateway, unknown: Unknown) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.send("")
    await client.send("after it")

    bodies = {(await observer.event("$default"))["body"] for _ in range(2)}
    unknown(bodies, {"", "after it"})


@case("3.4", "U", "RFC 6455 section 8.1")
async def test_text_that_is_not_utf_8(main: Gateway, unknown: Unknown) -> None:
    client = await main.open()

    await client.socket.send(b"\xff", text=True)

    unknown((await client.closed())[0], 1007)


@case("3.4", "L", "subscriptionless#3")
async def test_text_passes_both_ways_unchanged(main: Gateway) -> None:
    client = await main.open()
    text = 'ü € 🚀 "quoted"\n\t\\u0041 \u2028'

    await client.do(["post", "self", text])

    assert await client.received() == text


@case("3.4", "U", "nobody")
async def test_more_messages_than_the_throttle_allows(throttled: Gateway, unknown: Unknown) -> None:
    client = await throttled.open_within_throttle()

    for _ in range(40):
        await client.send("hello")

    unknown(json.loads(await client.received())["message"], "Too Many Requests")


@case("3.4", "U", "nobody")
async def test_connection_after_a_message_too_many(throttled: Gateway, unknown: Unknown) -> None:
    client = await throttled.open_within_throttle()
    for _ in range(40):
        await client.send("hello")

    event = await client.report_within_throttle()

    unknown(event["requestContext"]["routeKey"], "fixed")
