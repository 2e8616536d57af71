"""What is not WebSocket on the gateway's port: `@connections`, by boto3, and clients without manners."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from local import server
from local.aws import client
from local.events import Event, new_id
from local.gateway import Invocation
from tests.local.conftest import HANDSHAKE, Dial, Gateway, RawClient, received

OPERATIONS: list[tuple[str, dict[str, bytes]]] = [
    ("post_to_connection", {"Data": b"hello"}),
    ("get_connection", {}),
    ("delete_connection", {}),
]
GONE = ("GoneException", 410)
SIGNED = "Authorization: AWS4-HMAC-SHA256 Credential=test/20240209/us-east-1/execute-api/aws4_request"


async def call(gateway: Gateway, operation: str, connection_id: str, **parameters: Any) -> Any:
    """An operation of the management API, by boto3."""
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


async def request(dial: Dial, gateway: Gateway, line: str, *headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request's answer."""
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *headers])
    answer = await (await dial(gateway.port, f"{head}\r\n\r\n".encode())).read_all()
    start, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = start.decode().split("\r\n")
    names_and_values = (field.partition(": ") for field in fields)
    return int(status.split()[1]), {name.lower(): value for name, _, value in names_and_values}, body


# PostToConnection


@pytest.mark.parametrize("message", ["hello", "こんにちは 👋", '{"a": 1}', ""])
async def test_posted_bytes_reach_the_client_as_text(gateway: Gateway, message: str) -> None:
    peer, connection_id = await gateway.connected()

    assert await post(gateway, connection_id, message.encode()) == 200
    assert await received(peer) == message


async def test_post_reaches_its_connection_only(gateway: Gateway) -> None:
    peers = [await gateway.connected() for _ in range(2)]

    for peer, connection_id in peers:
        await post(gateway, connection_id, f"for {connection_id}".encode())
        assert await received(peer) == f"for {connection_id}"


async def test_post_of_128_kb_is_delivered(gateway: Gateway) -> None:
    peer, connection_id = await gateway.connected()

    assert await post(gateway, connection_id, b"x" * 131_072) == 200
    assert await received(peer) == "x" * 131_072


async def test_larger_post_is_refused_and_the_client_stays_connected(gateway: Gateway) -> None:
    peer, connection_id = await gateway.connected()

    error = await failure(gateway, "post_to_connection", connection_id, Data=b"x" * 131_073)
    await post(gateway, connection_id, b"next")

    assert code(error) == ("PayloadTooLargeException", 413)
    assert await received(peer) == "next"


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
    peer, connection_id = await gateway.connected(user_agent_header="phone/1.0")
    before = await call(gateway, "get_connection", connection_id)

    await peer.send("hello")
    await gateway.functions.event("$default")
    after = await call(gateway, "get_connection", connection_id)

    assert before["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "phone/1.0"}
    assert before["ConnectedAt"] == after["ConnectedAt"]
    assert before["ConnectedAt"] <= before["LastActiveAt"] <= after["LastActiveAt"] <= datetime.now(UTC)


async def test_description_is_the_documented_json(gateway: Gateway, dial: Dial) -> None:
    _, connection_id = await gateway.connected(user_agent_header=None)

    status, headers, body = await request(dial, gateway, f"GET /prod/@connections/{connection_id}", SIGNED)

    assert (status, headers["content-type"].partition(";")[0]) == (200, "application/json")
    described = json.loads(body)
    assert described.pop("identity") == {"sourceIp": "127.0.0.1"}
    assert described.keys() == {"connectedAt", "lastActiveAt"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time) for time in described.values())


@pytest.mark.parametrize("activity", ["message", "post"])
async def test_traffic_in_either_direction_is_activity(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, activity: str
) -> None:
    peer, connection_id = await gateway.connected()
    later = time.time() + 60
    monkeypatch.setattr(server, "time", SimpleNamespace(time=lambda: later, monotonic=time.monotonic))

    if activity == "message":
        await peer.send("hello")
        await gateway.functions.event("$default")
    else:
        await post(gateway, connection_id, b"hello")

    described = await call(gateway, "get_connection", connection_id)
    assert described["LastActiveAt"] == datetime.fromtimestamp(int(later * 1000) / 1000, UTC)


async def test_deleted_connection_is_gone(gateway: Gateway) -> None:
    _, connection_id = await gateway.connected()

    answer = await call(gateway, "delete_connection", connection_id)
    await gateway.disconnect_event()

    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert code(await failure(gateway, "get_connection", connection_id)) == GONE


async def test_deleted_connection_is_gone_before_its_client_has_answered(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    connection_id = (await gateway.functions.event("$connect"))["requestContext"]["connectionId"]

    await call(gateway, "delete_connection", connection_id)

    for operation, parameters in OPERATIONS:
        assert code(await failure(gateway, operation, connection_id, **parameters)) == GONE


# What the management API refuses


@pytest.mark.parametrize(("operation", "parameters"), OPERATIONS)
async def test_unknown_connection_is_gone(gateway: Gateway, operation: str, parameters: dict[str, bytes]) -> None:
    error = await failure(gateway, operation, new_id(), **parameters)

    assert code(error) == GONE
    assert type(error).__name__ == "GoneException"


@pytest.mark.parametrize(("operation", "parameters"), OPERATIONS)
async def test_closed_connection_is_gone(gateway: Gateway, operation: str, parameters: dict[str, bytes]) -> None:
    peer, connection_id = await gateway.connected()
    await peer.close()

    assert code(await failure(gateway, operation, connection_id, **parameters)) == GONE


async def test_gone_is_told_by_a_header_alone(gateway: Gateway, dial: Dial) -> None:
    status, headers, body = await request(dial, gateway, f"GET /prod/@connections/{new_id()}", SIGNED)

    assert (status, headers["x-amzn-errortype"], body) == (410, "GoneException", b"")


@pytest.mark.parametrize("connection_id", ["x", "not-an-id", "L0SM9cOFvHcCIhw", "L0SM9cOFvHcCIhx="])
async def test_id_that_cannot_be_one_is_a_bad_request(gateway: Gateway, connection_id: str) -> None:
    error = await failure(gateway, "get_connection", connection_id)

    assert code(error) == ("BadRequestException", 400)
    assert f"Invalid connectionId: {connection_id}" in str(error)


@pytest.mark.parametrize("operation", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("authorization", [(), ("Authorization: Bearer abc",)], ids=["unsigned", "other"])
async def test_call_without_a_signature_is_forbidden(
    gateway: Gateway, dial: Dial, operation: str, authorization: tuple[str, ...]
) -> None:
    _, connection_id = await gateway.connected()

    status, *_ = await request(dial, gateway, f"{operation} /prod/@connections/{connection_id}", *authorization)

    assert status == 403
    assert connection_id in gateway.server.peers


@pytest.mark.parametrize("spelling", ["@connections", "%40connections"])
@pytest.mark.parametrize("escaped", [False, True], ids=["plain id", "escaped id"])
async def test_both_spellings_of_the_path_are_understood(
    gateway: Gateway, dial: Dial, spelling: str, escaped: bool
) -> None:
    _, connection_id = await gateway.connected()
    last = quote(connection_id) if escaped else connection_id

    status, *_ = await request(dial, gateway, f"GET /prod/{spelling}/{last}", SIGNED)

    assert status == 200


async def test_unknown_operation_is_forbidden(gateway: Gateway, dial: Dial) -> None:
    _, connection_id = await gateway.connected()

    status, *_ = await request(dial, gateway, f"PUT /prod/@connections/{connection_id}", SIGNED)

    assert status == 403


async def test_call_on_another_stage_is_forbidden(gateway: Gateway) -> None:
    _, connection_id = await gateway.connected()
    elsewhere = client("apigatewaymanagementapi", f"http://127.0.0.1:{gateway.port}/dev")

    with pytest.raises(ClientError) as error:
        await asyncio.to_thread(elsewhere.get_connection, ConnectionId=connection_id)

    assert code(error.value) == ("ForbiddenException", 403)


# Requests that are not for it


@pytest.mark.parametrize("path", ["/prod", "/prod/", "/prod?idToken=abc", "/prod/1", "/prod/1/2"])
async def test_plain_request_must_be_upgraded(gateway: Gateway, dial: Dial, path: str) -> None:
    """On AWS it is so at the stage and at one or two segments below."""
    status, *_ = await request(dial, gateway, f"GET {path}")

    assert status == 426
    assert gateway.functions.invoked == []


@pytest.mark.parametrize("path", ["/", "/dev", "/dev/@connections/x", "/production"])
async def test_plain_request_to_another_stage_is_forbidden(gateway: Gateway, dial: Dial, path: str) -> None:
    status, *_ = await request(dial, gateway, f"GET {path}", SIGNED)

    assert status == 403


# Clients without manners


async def test_request_may_come_byte_by_byte(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port)
    for byte in HANDSHAKE:
        client.writer.write(bytes([byte]))
        await client.writer.drain()

    assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "sent", [b"", b"GET /prod HTTP/1.1\r\nHost: loc", HANDSHAKE[:-2]], ids=["nothing", "part", "most"]
)
async def test_slow_head_is_closed(gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.05)
    client = await dial(gateway.port, sent)

    assert await client.read_all() == b""
    assert gateway.functions.invoked == []


async def test_limit_for_the_head_does_not_touch_who_has_sent_it(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.05)
    peer = await gateway.connect()
    idler = await dial(gateway.port)
    await idler.read_all()

    await peer.send("still here")

    assert (await gateway.functions.event("$default"))["body"] == "still here"


LINE = b"X-Padding: " + b"x" * 1000 + b"\r\n"


@pytest.mark.parametrize("start", [b"GET /prod HTTP/1.1\r\n", HANDSHAKE[:-2]], ids=["http", "websocket"])
@pytest.mark.parametrize("padding", [LINE * 20, LINE * 200, b"X: " + b"x" * 100_000], ids=["long", "longer", "line"])
async def test_huge_head_does_not_hang(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch, start: bytes, padding: bytes
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.05)
    client = await dial(gateway.port, start + padding)

    await ended(client)
    assert gateway.functions.invoked == []


async def ended(client: RawClient) -> None:
    """Returns when the gateway has closed the connection, in whatever way."""
    with suppress(ConnectionResetError):
        await client.read_all()


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00", b"hello"], ids=repr)
async def test_what_is_not_http_is_a_bad_request(gateway: Gateway, dial: Dial, sent: bytes) -> None:
    client = await dial(gateway.port, sent + b"\r\n\r\n")

    assert b" 400 " in (await client.read_all()).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "line", ["OPTIONS * HTTP/1.1", "CONNECT localhost:80 HTTP/1.1", "GET http://localhost/ HTTP/1.1", "GET // HTTP/1.1"]
)
async def test_odd_target_is_refused_and_not_an_accident(gateway: Gateway, dial: Dial, line: str) -> None:
    """RFC 9112 section 3.2."""
    client = await dial(gateway.port, f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    assert int((await client.read_all()).split()[1]) in range(400, 500)


async def test_large_url_is_read(gateway: Gateway) -> None:
    """4096 characters are what API Gateway takes."""
    token = "x" * (4096 - len(f"{gateway.url}?idToken="))

    await gateway.connect(f"?idToken={token}")

    assert (await gateway.functions.event("$connect"))["queryStringParameters"] == {"idToken": token}
