"""Replies and error frames, frames and their limits."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conformance.conftest import case
from tests.conformance.gateway import Client, Gateway, Script

FRAME = 32 * 1024
MESSAGE = 128 * 1024
SERVER_ERROR = "Internal server error"
TIMED_OUT = "Endpoint request timed out"
compressions = pytest.mark.parametrize("compression", [None, "deflate"])


async def assert_error_frame(client: Client, message: str) -> None:
    """Assert that the next frame is this error frame, byte for byte."""
    frame = await client.receive()
    request_id = json.loads(frame)["requestId"]
    assert frame == f'{{"message": "{message}", "connectionId":"{await client.id()}", "requestId":"{request_id}"}}'


async def assert_silence(client: Client) -> None:
    """Assert that no frame is waiting: the next one is the answer to a message that is sent now."""
    await client.do(["post", "self", "the next frame"])
    assert await client.receive() == "the next frame"


# One-way routes


@case("reply-one-way")
@pytest.mark.parametrize("status", [200, 201, 301, 401, 500, 501])
async def test_answer_of_a_one_way_route_is_not_sent(main: Gateway, status: int) -> None:
    client = await main.open()

    await client.do(["post", "self", "handled"], returns={"statusCode": status, "body": "not for the client"})

    assert await client.receive() == "handled"
    await assert_silence(client)


@case("reply-members")
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

    assert await client.receive() == "handled"
    await assert_silence(client)


@case("error-function-failed")
@pytest.mark.parametrize("how", [{"raises": "on purpose"}, {"raises": "Unauthorized"}], ids=str)
async def test_error_of_the_function_sends_an_error_frame(main: Gateway, how: Script) -> None:
    client = await main.open()

    await client.do(**how)

    await assert_error_frame(client, SERVER_ERROR)


@case("error-function-failed")
async def test_crash_of_the_function_sends_an_error_frame(main: Gateway) -> None:
    client = await main.open()

    await client.do(["exit", 1])

    await assert_error_frame(client, SERVER_ERROR)


@case("error-malformed-answer")
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
async def test_malformed_answer_sends_an_error_frame_on_a_one_way_route_too(main: Gateway, answer: Any) -> None:
    client = await main.open()

    await client.do(returns=answer)

    await assert_error_frame(client, SERVER_ERROR)


@case("error-no-object")
@pytest.mark.parametrize("answer", [None, "text", 200, [], {"statusCode": "two hundred"}], ids=str)
async def test_answer_without_object_or_valid_status_sends_an_error_frame(main: Gateway, answer: Any) -> None:
    client = await main.open()

    await client.do(returns=answer)

    await assert_error_frame(client, SERVER_ERROR)


@case("error-null-after-reply")
async def test_reply_comes_before_the_error_frame_of_a_null_answer(main: Gateway) -> None:
    client = await main.open()

    await client.do(["post", "self", "reply"], returns=None)

    assert await client.receive() == "reply"
    await assert_error_frame(client, SERVER_ERROR)


@case("error-no-permission")
async def test_missing_permission_to_invoke_sends_an_error_frame(main: Gateway) -> None:
    client = await main.open()

    await client.send('{"action": "unpermitted"}')

    await assert_error_frame(client, SERVER_ERROR)


@case("error-timeout")
@pytest.mark.parametrize(
    ("route", "seconds"), [("slow", 4), ("short-timeout", 1)], ids=["function's timeout", "integration's timeout"]
)
async def test_timeout_sends_an_error_frame(main: Gateway, route: str, seconds: float) -> None:
    client = await main.open()

    await client.do(["sleep", seconds], message={"action": route})

    await assert_error_frame(client, TIMED_OUT)


@case("error-keeps-open")
async def test_error_leaves_the_connection_open(main: Gateway) -> None:
    client = await main.open()
    for _ in range(2):
        await client.do(raises="on purpose")
        await assert_error_frame(client, SERVER_ERROR)

    await assert_silence(client)


@case("error-request-id")
async def test_error_frame_names_the_request_of_its_event(main: Gateway) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.do(raises="on purpose")

    frame = json.loads(await client.receive())
    context = (await observer.event("custom"))["requestContext"]
    assert (frame["connectionId"], frame["requestId"]) == (context["connectionId"], context["requestId"])


# Two-way routes

TWO_WAY = {"action": "two-way"}


@case("reply-two-way")
@pytest.mark.parametrize("status", [200, 301, 400, 500])
async def test_body_of_a_two_way_route_is_sent_for_any_status(main: Gateway, status: int) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, returns={"statusCode": status, "body": '{"answer": "ü"}'})

    assert await client.receive() == '{"answer": "ü"}'


@case("reply-two-way")
async def test_body_of_a_two_way_route_is_sent_to_the_client_that_asked(main: Gateway) -> None:
    clients = [await main.open() for _ in range(2)]

    for number, client in enumerate(clients):
        await client.do(message=TWO_WAY, returns={"statusCode": 200, "body": str(number)})

    assert [await client.receive() for client in clients] == ["0", "1"]


@case("reply-two-way-no-body")
async def test_two_way_route_without_a_body_sends_an_empty_message(main: Gateway) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, returns={"statusCode": 200})

    assert await client.receive() == ""


@case("reply-two-way-base64")
async def test_base64_body_of_a_two_way_route_is_decoded(main: Gateway) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, returns={"statusCode": 200, "body": "aGVsbG8=", "isBase64Encoded": True})

    assert await client.receive() == "hello"


@case("reply-two-way-over-limit")
async def test_body_of_a_two_way_route_over_the_limit_sends_an_error_frame(main: Gateway) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, returns={"statusCode": 200, "body": "é"}, repeats=MESSAGE // 2)
    assert len((await client.receive()).encode()) == MESSAGE

    await client.do(message=TWO_WAY, returns={"statusCode": 200, "body": "é"}, repeats=MESSAGE // 2 + 1)
    assert json.loads(await client.receive())["message"] == SERVER_ERROR


@case("error-two-way")
@pytest.mark.parametrize("how", [{"raises": "on purpose"}, {"returns": {"body": "no status"}}], ids=str)
async def test_failure_of_a_two_way_route_sends_an_error_frame(main: Gateway, how: Script) -> None:
    client = await main.open()

    await client.do(message=TWO_WAY, **how)

    await assert_error_frame(client, SERVER_ERROR)


# Frames


def describe(body: str) -> str:
    """Describe a large body as the probe reports it."""
    return f"{len(body.encode())} bytes, SHA-256 {hashlib.sha256(body.encode()).hexdigest()}"


@case("message-within-limits")
@compressions
@pytest.mark.parametrize(
    "frames",
    [["x" * FRAME], ["x" * FRAME] * 4, ["x", "", "y" * FRAME], ["é" * (FRAME // 2)]],
    ids=["a frame of 32 KB", "128 KB in four", "unequal frames", "two bytes a character"],
)
async def test_message_within_the_limits_is_one_event(main: Gateway, frames: list[str], compression: Any) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id, options={"compression": compression})

    await client.send(frames)

    assert (await observer.event("$default"))["body"] == describe("".join(frames))


@case("message-over-limit")
@compressions
@pytest.mark.parametrize(
    "frames",
    [["x" * (FRAME + 1)], [*["x" * FRAME] * 4, "x"], ["é" * (FRAME // 2) + "x"]],
    ids=["a frame of 32 KB and a byte", "128 KB and a byte in five", "bytes, not characters"],
)
async def test_larger_frame_or_message_closes_the_connection(
    gateway: Gateway, frames: list[str], compression: Any
) -> None:
    client = await gateway.open(options={"compression": compression})

    await client.send(frames)

    assert (await client.wait_closed())[0] == 1009


@case("message-limit-decompressed")
async def test_sizes_are_counted_after_decompression(main: Gateway) -> None:
    client = await main.open(options={"compression": "deflate"})

    await client.do(["post", "self", "x" * FRAME])

    assert await answer_or_close_code(client) == 1009


async def answer_or_close_code(client: Client) -> str | int | None:
    try:
        return await client.receive()
    except ConnectionClosed:
        return client.socket.close_code


@case("message-binary")
async def test_binary_message_closes_the_connection(gateway: Gateway) -> None:
    client = await gateway.open()

    await client.send(b"hello")

    assert (await client.wait_closed())[0] == 1003


@case("message-refused-no-function")
@pytest.mark.parametrize(
    ("message", "code"), [(b"hello", 1003), ("x" * (FRAME + 1), 1009)], ids=["binary", "too large"]
)
async def test_message_that_closes_the_connection_invokes_no_route(
    main: Gateway, message: str | bytes, code: int
) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.send(message)

    assert (await client.wait_closed())[0] == code
    routes = [(await observer.next())["requestContext"]["routeKey"] for _ in range(3)]
    assert routes == ["$connect", "$connect", "$disconnect"]


@case("message-refused-reason")
@pytest.mark.parametrize("message", [b"hello", "x" * (FRAME + 1)], ids=["binary", "too large"])
async def test_close_frame_for_a_refused_message_has_no_reason(main: Gateway, message: str | bytes) -> None:
    client = await main.open()

    await client.send(message)

    assert (await client.wait_closed())[1] == ""


@case("ping-answered")
async def test_ping_is_answered(gateway: Gateway) -> None:
    client = await gateway.open()

    await client.ping(b"payload")
    await client.ping(b"")


@case("ping-no-function")
async def test_ping_invokes_no_function(main: Gateway) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.ping(b"payload")
    await client.send("hello")

    events = [await observer.next() for _ in range(3)]
    assert [event.get("body") for event in events] == [None, None, "hello"]


@case("message-empty")
async def test_empty_message_is_an_event(main: Gateway) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.send("")
    await client.send("after it")

    bodies = {(await observer.event("$default"))["body"] for _ in range(2)}
    assert bodies == {"", "after it"}


@case("message-invalid-utf-8")
async def test_text_that_is_not_utf_8_closes_the_connection(main: Gateway) -> None:
    client = await main.open()

    await client.socket.send(b"\xff", text=True)

    assert (await client.wait_closed())[0] == 1007


@case("message-text-unchanged")
async def test_text_passes_both_ways_unchanged(main: Gateway) -> None:
    client = await main.open()
    text = 'ü € 🚀 "quoted"\n\t\\u0041 \u2028'

    await client.do(["post", "self", text])

    assert await client.receive() == text


@case("throttle-message-frame")
async def test_message_over_the_throttle_sends_an_error_frame(throttled: Gateway) -> None:
    client = await throttled.open_within_throttle()

    for _ in range(40):
        await client.send("hello")

    assert json.loads(await client.receive())["message"] == "Too Many Requests"


@case("throttle-message-keeps-open")
async def test_message_over_the_throttle_leaves_the_connection_open(throttled: Gateway) -> None:
    client = await throttled.open_within_throttle()
    for _ in range(40):
        await client.send("hello")

    event = await client.report_within_throttle()

    assert event["requestContext"]["routeKey"] == "fixed"
