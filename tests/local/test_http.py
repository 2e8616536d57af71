"""`@connections`, by boto3."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from local.apigateway import connections
from local.apigateway.events import Event
from local.aws.clients import client
from local.aws.iam import ADMINISTRATOR
from local.ids import make_id
from local.lambda_.invocation import Invocation
from tests.fixtures.gateway import ADMINISTRATOR_KEYS, HANDSHAKE, PATIENCE_SECONDS, Dial, Gateway, receive, request

MANY = 10_000  # posts that no socket's buffers would hold
FRAME_HEAD = b"\x81\x7f\0\0\0\0\0\x02\0\0"  # RFC 6455 section 5.2: a text frame of 128 KB
OPERATIONS: list[tuple[str, dict[str, bytes]]] = [
    ("post_to_connection", {"Data": b"hello"}),
    ("get_connection", {}),
    ("delete_connection", {}),
]
GONE = ("GoneException", 410)


async def call(gateway: Gateway, operation: str, connection_id: str, **parameters: Any) -> Any:
    """Call an operation of the management API by boto3."""
    return await asyncio.to_thread(getattr(gateway.management, operation), ConnectionId=connection_id, **parameters)


async def post(gateway: Gateway, connection_id: str, data: bytes) -> int:
    answer = await call(gateway, "post_to_connection", connection_id, Data=data)
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


async def failure(gateway: Gateway, operation: str, connection_id: str, **parameters: Any) -> ClientError:
    with pytest.raises(ClientError) as error:
        await call(gateway, operation, connection_id, **parameters)
    return error.value


def code(error: ClientError) -> tuple[str, int]:
    return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]


# PostToConnection


@pytest.mark.parametrize("message", ["hello", "こんにちは 👋", '{"a": 1}', ""])
async def test_posted_bytes_reach_the_client_as_text(gateway: Gateway, message: str) -> None:
    peer, connection_id = await gateway.connect_with_id()

    assert await post(gateway, connection_id, message.encode()) == 200
    assert await receive(peer) == message


async def test_post_reaches_its_connection_only(gateway: Gateway) -> None:
    peers = [await gateway.connect_with_id() for _ in range(2)]

    for peer, connection_id in peers:
        await post(gateway, connection_id, f"for {connection_id}".encode())
        assert await receive(peer) == f"for {connection_id}"


async def test_post_of_128_kb_is_delivered(gateway: Gateway) -> None:
    peer, connection_id = await gateway.connect_with_id()

    assert await post(gateway, connection_id, b"x" * 131_072) == 200
    assert await receive(peer) == "x" * 131_072


async def test_larger_post_is_refused_and_the_client_stays_connected(gateway: Gateway) -> None:
    peer, connection_id = await gateway.connect_with_id()

    error = await failure(gateway, "post_to_connection", connection_id, Data=b"x" * 131_073)
    await post(gateway, connection_id, b"next")

    assert code(error) == ("PayloadTooLargeException", 413)
    assert await receive(peer) == "next"


@pytest.mark.parametrize("data", [b"\xff", b"hello \xe3\x81", "hello".encode("utf-16")], ids=repr)
async def test_post_that_is_not_utf_8_is_refused_and_the_client_stays_connected(gateway: Gateway, data: bytes) -> None:
    peer, connection_id = await gateway.connect_with_id()

    error = await failure(gateway, "post_to_connection", connection_id, Data=data)
    await post(gateway, connection_id, b"next")

    assert code(error) == ("BadRequestException", 400)
    assert await receive(peer) == "next"


async def test_post_to_a_client_that_does_not_read_is_refused_until_it_reads(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    connection_id = (await gateway.functions.wait_for_event("$connect"))["requestContext"]["connectionId"]
    line = f"POST /prod/@connections/{connection_id}"

    posted = 0
    while (answer := await request(dial, gateway, line, body=b"x" * 131_072, caller=ADMINISTRATOR_KEYS))[0] == 200:
        posted += 1
        assert posted < MANY, "everything was taken"
    status, headers, _ = answer
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(posted):
            await client.reader.readexactly(len(FRAME_HEAD) + 131_072)
    again, *_ = await request(dial, gateway, line, body=b"read", caller=ADMINISTRATOR_KEYS)

    assert (status, headers["x-amzn-errortype"]) == (429, "LimitExceededException")
    assert again == 200


async def test_gateway_never_posts_to_a_client_that_is_not_yet_connected(gateway: Gateway) -> None:
    """The opening handshake is not finished while `$connect` runs."""
    codes = []

    async def post_to_itself(event: Event) -> Invocation:
        connection_id = event["requestContext"]["connectionId"]
        codes.append(code(await failure(gateway, "post_to_connection", connection_id, Data=b"early")))
        return Invocation({"statusCode": 200})

    gateway.functions.behaviour["$connect"] = post_to_itself

    await gateway.connect()

    assert codes == [GONE]


# GetConnection and DeleteConnection


async def test_connection_is_described(gateway: Gateway) -> None:
    peer, connection_id = await gateway.connect_with_id(user_agent_header="phone/1.0")
    before = await call(gateway, "get_connection", connection_id)

    await peer.send("hello")
    await gateway.functions.wait_for_event("$default")
    after = await call(gateway, "get_connection", connection_id)

    assert before["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "phone/1.0"}
    assert before["ConnectedAt"] == after["ConnectedAt"]
    assert before["ConnectedAt"] <= before["LastActiveAt"] <= after["LastActiveAt"] <= datetime.now(UTC)


async def test_description_is_the_documented_json(gateway: Gateway, dial: Dial) -> None:
    _, connection_id = await gateway.connect_with_id(user_agent_header=None)

    status, headers, body = await request(
        dial, gateway, f"GET /prod/@connections/{connection_id}", caller=ADMINISTRATOR_KEYS
    )

    assert (status, headers["content-type"].partition(";")[0]) == (200, "application/json")
    described = json.loads(body)
    assert described.pop("identity") == {"sourceIp": "127.0.0.1"}
    assert described.keys() == {"connectedAt", "lastActiveAt"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time) for time in described.values())


@pytest.mark.parametrize("activity", ["message", "post"])
async def test_traffic_in_either_direction_is_activity(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, activity: str
) -> None:
    peer, connection_id = await gateway.connect_with_id()
    later = time.time() + 60
    monkeypatch.setattr(connections, "time", SimpleNamespace(time=lambda: later, monotonic=time.monotonic))

    if activity == "message":
        await peer.send("hello")
        await gateway.functions.wait_for_event("$default")
    else:
        await post(gateway, connection_id, b"hello")

    described = await call(gateway, "get_connection", connection_id)
    assert described["LastActiveAt"] == datetime.fromtimestamp(int(later * 1000) / 1000, UTC)


async def test_deleted_connection_is_gone(gateway: Gateway) -> None:
    _, connection_id = await gateway.connect_with_id()

    answer = await call(gateway, "delete_connection", connection_id)
    await gateway.wait_for_disconnect()

    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert code(await failure(gateway, "get_connection", connection_id)) == GONE


async def test_deleted_connection_is_gone_before_its_client_has_answered(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    connection_id = (await gateway.functions.wait_for_event("$connect"))["requestContext"]["connectionId"]

    await call(gateway, "delete_connection", connection_id)

    for operation, parameters in OPERATIONS:
        assert code(await failure(gateway, operation, connection_id, **parameters)) == GONE


# What the management API refuses


@pytest.mark.parametrize(("operation", "parameters"), OPERATIONS)
async def test_unknown_connection_is_gone(gateway: Gateway, operation: str, parameters: dict[str, bytes]) -> None:
    error = await failure(gateway, operation, make_id(), **parameters)

    assert code(error) == GONE
    assert type(error).__name__ == "GoneException"


@pytest.mark.parametrize(("operation", "parameters"), OPERATIONS)
async def test_closed_connection_is_gone(gateway: Gateway, operation: str, parameters: dict[str, bytes]) -> None:
    peer, connection_id = await gateway.connect_with_id()
    await peer.close()

    assert code(await failure(gateway, operation, connection_id, **parameters)) == GONE


async def test_gone_response_has_a_header_and_no_body(gateway: Gateway, dial: Dial) -> None:
    status, headers, body = await request(
        dial, gateway, f"GET /prod/@connections/{make_id()}", caller=ADMINISTRATOR_KEYS
    )

    assert (status, headers["x-amzn-errortype"], body) == (410, "GoneException", b"")


@pytest.mark.parametrize("connection_id", ["x", "not-an-id", "L0SM9cOFvHcCIhw", "L0SM9cOFvHcCIhx="])
async def test_malformed_connection_id_is_a_bad_request(gateway: Gateway, connection_id: str) -> None:
    error = await failure(gateway, "get_connection", connection_id)

    assert code(error) == ("BadRequestException", 400)
    assert f"Invalid connectionId: {connection_id}" in str(error)


@pytest.mark.parametrize("operation", ["POST", "GET", "DELETE"])
async def test_call_without_a_signature_is_forbidden(gateway: Gateway, dial: Dial, operation: str) -> None:
    _, connection_id = await gateway.connect_with_id()

    status, headers, body = await request(dial, gateway, f"{operation} /prod/@connections/{connection_id}")

    assert (status, headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")
    assert body == b'{"message":"Missing Authentication Token"}'
    assert gateway.server.connections.get(connection_id)


async def test_call_with_a_wrong_signature_is_forbidden(gateway: Gateway, dial: Dial) -> None:
    """With a message in lower case, https://github.com/agilord/aws_client/issues/440."""
    _, connection_id = await gateway.connect_with_id()
    wrong = Credentials(ADMINISTRATOR, "wrong")

    status, headers, body = await request(
        dial, gateway, f"POST /prod/@connections/{connection_id}", body=b"hello", caller=wrong
    )

    assert (status, headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    message = json.loads(body)["message"]
    assert message.startswith("The request signature we calculated does not match the signature you provided.")
    assert f"\n'POST\n/prod/%40connections/{quote(connection_id)}\n" in message


@pytest.mark.parametrize("spelling", ["@connections", "%40connections"])
@pytest.mark.parametrize("escaped", [False, True], ids=["plain id", "escaped id"])
async def test_both_spellings_of_the_path_are_understood(
    gateway: Gateway, dial: Dial, spelling: str, escaped: bool
) -> None:
    _, connection_id = await gateway.connect_with_id()
    last = quote(connection_id) if escaped else connection_id

    status, *_ = await request(dial, gateway, f"GET /prod/{spelling}/{last}", caller=ADMINISTRATOR_KEYS)

    assert status == 200


async def test_every_answer_has_a_request_id_of_its_own(gateway: Gateway, dial: Dial) -> None:
    _, connection_id = await gateway.connect_with_id()
    path = f"/prod/@connections/{connection_id}"
    calls = [
        (f"GET {path}", 403, None),
        (f"PUT {path}", 403, ADMINISTRATOR_KEYS),
        ("GET /dev", 403, ADMINISTRATOR_KEYS),
        ("GET /prod", 426, ADMINISTRATOR_KEYS),
        (f"GET {path}x", 400, ADMINISTRATOR_KEYS),
        (f"GET /prod/@connections/{make_id()}", 410, ADMINISTRATOR_KEYS),
        (f"GET {path}", 200, ADMINISTRATOR_KEYS),
        (f"POST {path}", 200, ADMINISTRATOR_KEYS),
        (f"DELETE {path}", 204, ADMINISTRATOR_KEYS),
        (f"POST {path}", 410, ADMINISTRATOR_KEYS),
    ]

    answers = [await request(dial, gateway, line, caller=caller) for line, _, caller in calls]

    assert [status for status, *_ in answers] == [status for _, status, _ in calls]
    assert len({UUID(headers["x-amzn-requestid"]) for _, headers, _ in answers}) == len(calls)


async def test_unknown_operation_is_forbidden(gateway: Gateway, dial: Dial) -> None:
    _, connection_id = await gateway.connect_with_id()

    status, *_ = await request(dial, gateway, f"PUT /prod/@connections/{connection_id}", caller=ADMINISTRATOR_KEYS)

    assert status == 403


async def test_call_on_another_stage_is_forbidden(gateway: Gateway) -> None:
    _, connection_id = await gateway.connect_with_id()
    elsewhere = client("apigatewaymanagementapi", f"http://127.0.0.1:{gateway.port}/dev")

    with pytest.raises(ClientError) as error:
        await asyncio.to_thread(elsewhere.get_connection, ConnectionId=connection_id)

    assert code(error.value) == ("ForbiddenException", 403)
