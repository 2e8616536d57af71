"""The websocket function in Lambda's runtime; its calls arrive at real HTTP servers."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest

from tests.conftest import CONNECTION_ID, SUB, EventFactory, Request, with_headers
from tests.rie.conftest import Emulator, FakeAws

CONNECTION_PATH = "/prod/@connections/L0SM9cOFvHcCIhw%3D"
OK = (200, {"statusCode": 200})
TOKEN = "idToken.eyJhbGciOiJub25lIn0.e30.AAAA"


@pytest.fixture(autouse=True)
def all_peers_are_there(aws: FakeAws) -> None:
    aws.gone.clear()
    aws.requests.clear()


def dynamodb(request: Request) -> tuple[str, Any]:
    """The operation and its input, without what the SDK adds."""
    body = json.loads(request.body)
    return request.headers["X-Amz-Target"].removeprefix("DynamoDB_20120810."), body


def posted(request: Request) -> Any:
    """What a post to the connection says."""
    assert (request.method, request.path) == ("POST", CONNECTION_PATH)
    return json.loads(request.body)


def test_connect_stores_who_holds_the_connection(
    websocket: Emulator, aws: FakeAws, connect_event: EventFactory
) -> None:
    invocation = websocket.invoke(connect_event(authorizer={"userId": SUB, "exp": "1707506799"}))

    assert invocation == OK
    assert [dynamodb(request) for request in aws.requests] == [
        (
            "PutItem",
            {
                "TableName": "connections",
                "Item": {"connectionId": {"S": CONNECTION_ID}, "userId": {"S": SUB}, "removedAt": {"N": "1707506799"}},
            },
        )
    ]


def test_connect_selects_the_subprotocol_that_is_no_token(
    websocket: Emulator, aws: FakeAws, connect_event: EventFactory
) -> None:
    event = with_headers(connect_event(), ("sec-websocket-protocol", f"{TOKEN}, echo.v1"))

    _, answer = websocket.invoke(event)

    assert answer == {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "echo.v1"}}
    assert len(aws.requests) == 1


def test_connect_without_a_subprotocol_that_is_spoken_is_a_bad_request(
    websocket: Emulator, aws: FakeAws, connect_event: EventFactory
) -> None:
    _, answer = websocket.invoke(with_headers(connect_event(), ("Sec-WebSocket-Protocol", TOKEN)))

    assert answer == {"statusCode": 400, "body": '{"message": "Offer the subprotocol echo.v1."}'}
    assert aws.requests == []
    assert websocket.records("connection rejected", reason="unknown_subprotocol")
    assert TOKEN not in websocket.log()


def test_third_connect_waits_for_one_of_two_places(
    limited_websocket: Emulator, connect_event: EventFactory, disconnect_event: EventFactory
) -> None:
    user = str(uuid.uuid4())

    def connect(name: str) -> Any:
        authorizer = {"userId": user, "exp": "4102444800"}
        return limited_websocket.invoke(connect_event(authorizer=authorizer, connectionId=f"{user}-{name}")).answer

    assert [connect(name)["statusCode"] for name in ("a", "b", "c")] == [200, 200, 429]
    assert limited_websocket.invoke(disconnect_event(connectionId=f"{user}-a")) == OK
    assert [connect(name)["statusCode"] for name in ("d", "e")] == [200, 429]


def test_disconnect_forgets_the_connection(websocket: Emulator, aws: FakeAws, disconnect_event: EventFactory) -> None:
    invocation = websocket.invoke(disconnect_event())

    assert invocation == OK
    assert [dynamodb(request) for request in aws.requests] == [
        (
            "DeleteItem",
            {"TableName": "connections", "Key": {"connectionId": {"S": CONNECTION_ID}}, "ReturnValues": "ALL_OLD"},
        )
    ]


@pytest.mark.parametrize("body", ["hello", "こんにちは 👋", '{"action": "x"}', "x" * 32768])
def test_default_sends_the_message_back(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory, body: str
) -> None:
    invocation = websocket.invoke(message_event(body=body))

    assert invocation == OK
    (request,) = aws.requests
    assert posted(request) == {"message": body}


def test_keepalive_gets_a_small_frame_instead_of_an_echo(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory
) -> None:
    invocation = websocket.invoke(message_event(routeKey="keepalive", body='{"action":"keepalive"}'))

    assert invocation == OK
    (request,) = aws.requests
    assert posted(request) == {"keepalive": True}


@pytest.mark.parametrize("body", ["x" * 65537, '"' * 65536], ids=["message", "echo"])
def test_message_that_is_too_large_is_refused_with_a_clear_frame(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory, body: str
) -> None:
    invocation = websocket.invoke(message_event(body=body))

    assert invocation == OK
    (request,) = aws.requests
    assert posted(request)["error"] == "message_too_large"


def test_message_after_the_expiry_ends_the_connection_with_a_clear_frame(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory
) -> None:
    expired = {"userId": SUB, "exp": str(int(time.time()))}

    invocation = websocket.invoke(message_event(authorizer=expired, body="hello"))

    assert invocation == OK
    post, delete = aws.requests
    assert posted(post)["error"] == "token_expired"
    assert (delete.method, delete.path) == ("DELETE", CONNECTION_PATH)


@pytest.mark.parametrize("exp", ["4102444800", "0"], ids=["before the expiry", "after the expiry"])
def test_peer_that_is_gone_is_forgotten(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory, exp: str
) -> None:
    aws.gone.add("L0SM9cOFvHcCIhw%3D")

    invocation = websocket.invoke(message_event(authorizer={"userId": SUB, "exp": exp}))

    assert invocation == OK
    post, delete = aws.requests
    assert post.path == CONNECTION_PATH
    assert dynamodb(delete)[0] == "DeleteItem"


def test_calls_are_signed_for_the_service_that_they_go_to(
    websocket: Emulator, aws: FakeAws, connect_event: EventFactory, message_event: EventFactory
) -> None:
    websocket.invoke(connect_event())
    websocket.invoke(message_event())

    put, post = aws.requests
    assert "/us-east-1/dynamodb/aws4_request" in put.headers["Authorization"]
    assert "/us-east-1/execute-api/aws4_request" in post.headers["Authorization"]


def test_event_that_the_function_cannot_serve_is_a_function_error(
    websocket: Emulator, connect_event: EventFactory
) -> None:
    _, answer = websocket.invoke(connect_event(authorizer=None))

    assert answer["errorType"] == "KeyError"


def test_json_log_tells_who_connected_and_never_the_token(websocket: Emulator, connect_event: EventFactory) -> None:
    event = connect_event()

    websocket.invoke(event)

    *_, record = websocket.records("connected")
    assert (record["level"], record["sub"], record["connectionId"]) == ("INFO", SUB, CONNECTION_ID)
    assert event["queryStringParameters"]["idToken"] not in websocket.log()
    assert {line["logger"] for line in websocket.json_log() if "logger" in line} == {
        "websocket"
    }  # no library adds to it
