"""The websocket function in Lambda's runtime. HTTP servers on loopback receive its calls."""

from __future__ import annotations

import copy
import json
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.user_pool import SUB
from tests.fixtures.emf import Metrics, read_metrics
from tests.fixtures.emulator import WEBSOCKET, Emulate, Emulator, FakeAws
from tests.fixtures.events import CONNECTION_ID, EventFactory, add_headers, load_event
from tests.fixtures.network import Request

CONNECTION_PATH = "/prod/@connections/L0SM9cOFvHcCIhw%3D"
OK = (200, {"statusCode": 200})
TOKEN = "idToken.eyJhbGciOiJub25lIn0.e30.AAAA"
UNKNOWN_SUBPROTOCOL = ("Sec-WebSocket-Protocol", TOKEN)
LONE_SURROGATE = "\ud800"  # JSON can contain one, but UTF-8 cannot


@pytest.fixture(autouse=True)
def connect_all_clients(aws: FakeAws) -> None:
    """Answer 410 for no connection, and forget earlier requests."""
    aws.gone.clear()
    aws.requests.clear()


def parse_call(request: Request) -> tuple[str, Any]:
    """Return the operation and its input, without the members that the SDK adds."""
    body = json.loads(request.body)
    return request.headers["X-Amz-Target"].removeprefix("DynamoDB_20120810."), body


def parse_post(request: Request) -> Any:
    """Return the message of a post to the connection."""
    assert (request.method, request.path) == ("POST", CONNECTION_PATH)
    return json.loads(request.body.decode())


def wait_for_complete_log(websocket: Emulator) -> None:
    """Invoke the function once more, and wait until that invocation is in the log."""
    connection_id = str(uuid.uuid4())
    websocket.invoke(add_headers(load_event("connect", connectionId=connection_id), UNKNOWN_SUBPROTOCOL))
    websocket.wait_for_records("connection rejected", connectionId=connection_id)


def find_errors(websocket: Emulator) -> list[tuple[str, str, str]]:
    """Return request id, type and message of each function error in the log."""
    records = (record for record in websocket.read_json_log() if "errorType" in record)
    return [(record["requestId"], record["errorType"], record["errorMessage"]) for record in records]


def test_connect_stores_who_holds_the_connection(
    websocket: Emulator, aws: FakeAws, connect_event: EventFactory
) -> None:
    started = int(time.time())

    invocation = websocket.invoke(connect_event(authorizer={"userId": SUB, "exp": "1707506799"}))

    assert invocation == OK
    (request,) = aws.requests
    operation, call = parse_call(request)
    connected_at = call["Item"].pop("connectedAt")
    assert started <= int(connected_at["N"]) <= time.time()
    assert (operation, call) == (
        "PutItem",
        {
            "TableName": "connections",
            "Item": {"connectionId": {"S": CONNECTION_ID}, "userId": {"S": SUB}, "removedAt": {"N": "1707506799"}},
        },
    )


def test_connect_selects_the_subprotocol_and_not_the_token(
    websocket: Emulator, aws: FakeAws, connect_event: EventFactory
) -> None:
    event = add_headers(connect_event(), ("sec-websocket-protocol", f"{TOKEN}, echo.v1"))

    _, answer = websocket.invoke(event)

    assert answer == {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "echo.v1"}}
    assert len(aws.requests) == 1


def test_connect_without_a_known_subprotocol_is_a_bad_request(
    websocket: Emulator, aws: FakeAws, connect_event: EventFactory
) -> None:
    _, answer = websocket.invoke(add_headers(connect_event(), UNKNOWN_SUBPROTOCOL))

    assert answer == {"statusCode": 400, "body": '{"message": "Offer the subprotocol echo.v1."}'}
    assert aws.requests == []
    assert websocket.wait_for_records("connection rejected", reason="unknown_subprotocol")
    assert TOKEN not in websocket.log()


def test_third_connect_is_refused_until_one_of_two_slots_is_free(
    limited_websocket: Emulator, connect_event: EventFactory, disconnect_event: EventFactory
) -> None:
    user = str(uuid.uuid4())

    def connect(name: str) -> Any:
        authorizer = {"userId": user, "exp": "4102444800"}
        return limited_websocket.invoke(connect_event(authorizer=authorizer, connectionId=f"{user}-{name}")).answer

    assert [connect(name)["statusCode"] for name in ("a", "b", "c")] == [200, 200, 429]
    assert limited_websocket.invoke(disconnect_event(connectionId=f"{user}-a")) == OK
    assert [connect(name)["statusCode"] for name in ("d", "e")] == [200, 429]


def test_disconnect_deletes_the_connection(websocket: Emulator, aws: FakeAws, disconnect_event: EventFactory) -> None:
    invocation = websocket.invoke(disconnect_event())

    assert invocation == OK
    assert [parse_call(request) for request in aws.requests] == [
        (
            "DeleteItem",
            {"TableName": "connections", "Key": {"connectionId": {"S": CONNECTION_ID}}, "ReturnValues": "ALL_OLD"},
        )
    ]


@pytest.mark.parametrize(
    "body",
    ["hello", "こんにちは 👋", '{"action": "x"}', f"{LONE_SURROGATE} alone", "x" * 32768],
    ids=["ASCII", "Unicode", "JSON", "lone surrogate", "32 KB"],
)
def test_message_is_echoed(websocket: Emulator, aws: FakeAws, message_event: EventFactory, body: str) -> None:
    invocation = websocket.invoke(message_event(body=body))

    assert invocation == OK
    (request,) = aws.requests
    assert parse_post(request) == {"message": body}


def test_keepalive_gets_a_small_frame_instead_of_an_echo(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory
) -> None:
    invocation = websocket.invoke(message_event(routeKey="keepalive", body='{"action":"keepalive"}'))

    assert invocation == OK
    (request,) = aws.requests
    assert parse_post(request) == {"keepalive": True}


@pytest.mark.parametrize("body", ["x" * 65537, '"' * 65536], ids=["message", "echo"])
def test_too_large_message_gets_an_error_frame(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory, body: str
) -> None:
    invocation = websocket.invoke(message_event(body=body))

    assert invocation == OK
    (request,) = aws.requests
    assert parse_post(request) == {
        "error": "message_too_large",
        "message": "This message is larger than the limit.",
        "connectionId": CONNECTION_ID,
        "requestId": "L0SNYdFXPHcFiVg=",
    }


def test_message_after_the_expiry_gets_an_error_frame_and_closes_the_connection(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory
) -> None:
    expired = {"userId": SUB, "exp": str(int(time.time()))}

    invocation = websocket.invoke(message_event(authorizer=expired, body="hello"))

    assert invocation == OK
    post, delete = aws.requests
    assert parse_post(post)["error"] == "token_expired"
    assert (delete.method, delete.path) == ("DELETE", CONNECTION_PATH)


@pytest.mark.parametrize("exp", ["4102444800", "0"], ids=["before the expiry", "after the expiry"])
def test_connection_that_got_410_is_deleted_unless_it_is_young(
    websocket: Emulator, aws: FakeAws, message_event: EventFactory, exp: str
) -> None:
    aws.gone.add("L0SM9cOFvHcCIhw%3D")

    invocation = websocket.invoke(message_event(authorizer={"userId": SUB, "exp": exp}))

    assert invocation == OK
    post, delete = aws.requests
    assert post.path == CONNECTION_PATH
    operation, call = parse_call(delete)
    assert operation == "DeleteItem"
    assert call["ConditionExpression"] == "attribute_not_exists(connectedAt) OR connectedAt < :latest"


def test_calls_are_signed_for_their_service(
    websocket: Emulator, aws: FakeAws, connect_event: EventFactory, message_event: EventFactory
) -> None:
    websocket.invoke(connect_event())
    websocket.invoke(message_event())

    put, post = aws.requests
    assert "/us-east-1/dynamodb/aws4_request" in put.headers["Authorization"]
    assert "/us-east-1/execute-api/aws4_request" in post.headers["Authorization"]


def test_event_without_an_authorizer_context_is_a_function_error(
    websocket: Emulator, connect_event: EventFactory
) -> None:
    _, answer = websocket.invoke(connect_event(authorizer=None))

    assert answer["errorType"] == "KeyError"


def test_service_without_an_answer_is_one_error_in_the_log_and_in_the_answer(
    emulate: Emulate, connect_event: EventFactory, message_event: EventFactory
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts connections, but nothing answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        endpoints = {"AWS_ENDPOINT_URL_DYNAMODB": url, "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": url}
        with emulate("websocket", WEBSOCKET | endpoints) as websocket:
            answers = [websocket.invoke(event).answer for event in (connect_event(), message_event())]
            wait_for_complete_log(websocket)
            logged = find_errors(websocket)

    assert [(answer["errorType"], answer["errorMessage"].partition(":")[0]) for answer in answers] == [
        ("ServiceUnavailable", "dynamodb gave no answer to PutItem"),
        ("ServiceUnavailable", "apigatewaymanagementapi gave no answer to PostToConnection"),
    ]
    assert logged == [(answer["requestId"], answer["errorType"], answer["errorMessage"]) for answer in answers]


def yield_with_lone_surrogate(event: Any) -> Iterator[Any]:
    """Yield the event once for each of its strings, with that string replaced by a lone surrogate."""
    if isinstance(event, str):
        yield LONE_SURROGATE
    elif isinstance(event, (dict, list)):
        for key in event if isinstance(event, dict) else range(len(event)):
            for changed in yield_with_lone_surrogate(event[key]):
                copied = copy.copy(event)
                copied[key] = changed
                yield copied


@pytest.mark.parametrize("kind", ["connect", "default", "disconnect"])
def test_lone_surrogate_in_any_string_of_an_event_gets_an_answer_and_each_error_is_logged(
    websocket: Emulator, kind: str
) -> None:
    """Clients cannot send a lone surrogate in a logged field: API Gateway and the authorizer write those fields."""
    answers = [websocket.invoke(event).answer for event in yield_with_lone_surrogate(load_event(kind))]
    wait_for_complete_log(websocket)

    failed = [
        (answer["requestId"], answer["errorType"], answer["errorMessage"])
        for answer in answers
        if "statusCode" not in answer
    ]
    assert failed
    assert [error for error in find_errors(websocket) if error in failed] == failed


def test_json_log_has_the_user_and_not_the_token(websocket: Emulator, connect_event: EventFactory) -> None:
    event = connect_event()

    websocket.invoke(event)

    *_, record = websocket.wait_for_records("connected")
    assert (record["level"], record["sub"], record["connectionId"]) == ("INFO", SUB, CONNECTION_ID)
    assert read_metrics(record) == Metrics({"Accepted": 1, "Refused": 0}, [{"FunctionName": "test_function"}])
    assert f"RequestId: {record['requestId']}" in websocket.log()
    assert event["queryStringParameters"]["idToken"] not in websocket.log()
    loggers = {line["logger"] for line in websocket.read_json_log() if "logger" in line}
    assert loggers == {"websocket"}  # so no library writes lines
