"""The websocket function in this process: its own boto3 clients, whose answers botocore's Stubber gives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from tests.conftest import CONNECTION_ID, SUB, ColdStart, EventFactory

CALLBACK_URL = "https://abcdef123.execute-api.us-east-1.amazonaws.com/prod"
CONFIGURATION = {"CONNECTION_TABLE_NAME": "connections", "CALLBACK_URL": CALLBACK_URL}
NOW = 1_700_000_000
TWO_HOURS = 7200
MARGIN = 60


@pytest.fixture
def websocket(cold_start: ColdStart, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function after its init phase, at a time that stands still."""
    websocket = cold_start("websocket", **CONFIGURATION)
    monkeypatch.setattr(websocket, "time", SimpleNamespace(time=lambda: NOW + 0.9))
    return websocket


@pytest.fixture
def table(websocket: ModuleType) -> Iterator[Stubber]:
    """DynamoDB as the function sees it: exactly the expected calls, in their order."""
    with Stubber(websocket.connections.meta.client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def management(websocket: ModuleType) -> Iterator[Stubber]:
    """@connections as the function sees it: exactly the expected calls, in their order."""
    with Stubber(websocket.management) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def posted(message: str) -> dict[str, object]:
    return {"ConnectionId": CONNECTION_ID, "Data": f'{{"message": "{message}"}}'.encode()}


# $connect


@pytest.mark.parametrize(
    ("exp", "removed_at"),
    [
        (NOW + 600, NOW + 600 + MARGIN),
        (NOW + TWO_HOURS - 1, NOW + TWO_HOURS - 1 + MARGIN),
        (NOW + TWO_HOURS + 1, NOW + TWO_HOURS + MARGIN),
        (NOW + 86400, NOW + TWO_HOURS + MARGIN),
    ],
)
def test_connection_is_stored_until_its_token_expires_or_two_hours_have_passed(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, exp: int, removed_at: int
) -> None:
    item = {"connectionId": CONNECTION_ID, "userId": SUB, "removedAt": removed_at}
    table.add_response("put_item", {}, {"TableName": "connections", "Item": item})

    answer = websocket.handler(connect_event(authorizer={"userId": SUB, "exp": str(exp)}), None)

    assert answer == {"statusCode": 200}


def test_connection_that_cannot_be_stored_is_refused(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory
) -> None:
    table.add_client_error("put_item", "ProvisionedThroughputExceededException", http_status_code=400)

    with pytest.raises(ClientError, match="ProvisionedThroughputExceededException"):
        websocket.handler(connect_event(), None)


def test_connection_that_no_authorizer_let_in_is_refused(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory
) -> None:
    with pytest.raises(KeyError, match="authorizer"):
        websocket.handler(connect_event(authorizer=None), None)


# $disconnect


def test_disconnected_connection_is_forgotten(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory
) -> None:
    table.add_response("delete_item", {}, {"TableName": "connections", "Key": {"connectionId": CONNECTION_ID}})

    answer = websocket.handler(disconnect_event(), None)

    assert answer == {"statusCode": 200}


def test_connection_that_cannot_be_forgotten_is_an_incident(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory
) -> None:
    table.add_client_error("delete_item", "AccessDeniedException", http_status_code=400)

    with pytest.raises(ClientError, match="AccessDeniedException"):
        websocket.handler(disconnect_event(), None)


# Every other route


@pytest.mark.parametrize("route_key", ["$default", "sendMessage"])
def test_message_on_any_other_route_is_echoed(
    websocket: ModuleType, management: Stubber, message_event: EventFactory, route_key: str
) -> None:
    management.add_response("post_to_connection", {}, posted("hello"))

    answer = websocket.handler(message_event(routeKey=route_key), None)

    assert answer == {"statusCode": 200}


@pytest.mark.parametrize(
    ("body", "echoed"),
    [
        ("こんにちは 👋", "こんにちは 👋"),
        ('{"action": "x"}', r"{\"action\": \"x\"}"),
        ("two\nlines", r"two\nlines"),
        ("", ""),
        (None, ""),
    ],
)
def test_echo_is_json_in_utf_8_whatever_the_message(
    websocket: ModuleType, management: Stubber, message_event: EventFactory, body: str | None, echoed: str
) -> None:
    management.add_response("post_to_connection", {}, posted(echoed))

    answer = websocket.handler(message_event(body=body), None)

    assert answer == {"statusCode": 200}


def test_connection_that_is_gone_is_forgotten(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory
) -> None:
    management.add_client_error("post_to_connection", "GoneException", http_status_code=410)
    table.add_response("delete_item", {}, {"TableName": "connections", "Key": {"connectionId": CONNECTION_ID}})

    answer = websocket.handler(message_event(), None)

    assert answer == {"statusCode": 200}


@pytest.mark.parametrize("code", ["ForbiddenException", "LimitExceededException", "PayloadTooLargeException"])
def test_message_that_cannot_be_sent_is_an_incident(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory, code: str
) -> None:
    management.add_client_error("post_to_connection", code, http_status_code=400)

    with pytest.raises(ClientError, match=code):
        websocket.handler(message_event(), None)


# What the log says


def test_who_connects_and_disconnects_is_logged(
    websocket: ModuleType,
    table: Stubber,
    connect_event: EventFactory,
    disconnect_event: EventFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="websocket")
    table.add_response("put_item", {})
    table.add_response("delete_item", {})

    websocket.handler(connect_event(), None)
    websocket.handler(disconnect_event(), None)

    connected, disconnected = map(vars, caplog.records)
    assert (connected["message"], connected["sub"], connected["connectionId"]) == ("connected", SUB, CONNECTION_ID)
    assert (disconnected["message"], disconnected["connectionId"]) == ("disconnected", CONNECTION_ID)


def test_no_log_record_holds_the_token(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="websocket")
    table.add_response("put_item", {})
    event = connect_event()

    websocket.handler(event, None)

    logged = repr([vars(record) for record in caplog.records])
    assert CONNECTION_ID in logged
    assert event["queryStringParameters"]["idToken"] not in logged


def test_messages_leave_no_trace_in_the_log(
    websocket: ModuleType, management: Stubber, message_event: EventFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="websocket")
    management.add_response("post_to_connection", {})

    websocket.handler(message_event(), None)

    assert caplog.records == []


# Configuration


@pytest.mark.parametrize("name", ["CONNECTION_TABLE_NAME", "CALLBACK_URL"])
@pytest.mark.parametrize("environ", [{}, {"CONNECTION_TABLE_NAME": "", "CALLBACK_URL": ""}], ids=["unset", "empty"])
def test_missing_configuration_stops_the_init_phase_and_is_named(
    cold_start: ColdStart, name: str, environ: dict[str, str]
) -> None:
    others = {other: value for other, value in CONFIGURATION.items() if other != name}

    with pytest.raises(RuntimeError, match=f"^environment variable {name} is required$"):
        cold_start("websocket", **environ | others)


def test_messages_go_to_the_callback_url(websocket: ModuleType) -> None:
    assert websocket.management.meta.endpoint_url == CALLBACK_URL


def test_messages_go_to_the_sdk_endpoint_url_where_there_is_one(cold_start: ColdStart) -> None:
    websocket = cold_start(
        "websocket",
        CONNECTION_TABLE_NAME="connections",
        AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI="http://127.0.0.1:3001/prod",
    )

    assert websocket.management.meta.endpoint_url == "http://127.0.0.1:3001/prod"
