"""The websocket function in this process: its own boto3 clients, whose answers botocore's Stubber gives."""

from __future__ import annotations

import json
import logging
from types import ModuleType

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from tests.conftest import CALLBACK_URL, CONNECTION_ID, NOW, SUB, ColdStart, EventFactory, with_headers

CONFIGURATION = {"CONNECTION_TABLE_NAME": "connections", "CALLBACK_URL": CALLBACK_URL}
TWO_HOURS = 7200
HEADER = "Sec-WebSocket-Protocol"
TOKEN = "idToken.eyJhbGciOiJub25lIn0.e30.AAAA"


def posted(message: str) -> dict[str, object]:
    return {"ConnectionId": CONNECTION_ID, "Data": f'{{"message": "{message}"}}'.encode()}


def row(**attributes: str | int) -> dict[str, object]:
    """An answer of DynamoDB with these attributes."""
    return {"Attributes": {name: {"S" if isinstance(v, str) else "N": str(v)} for name, v in attributes.items()}}


# $connect


@pytest.mark.parametrize(
    ("exp", "removed_at"),
    [
        (NOW + 1, NOW + 1),
        (NOW + 600, NOW + 600),
        (NOW + TWO_HOURS - 1, NOW + TWO_HOURS - 1),
        (NOW + TWO_HOURS, NOW + TWO_HOURS),
        (NOW + TWO_HOURS + 1, NOW + TWO_HOURS),
        (NOW + 86400, NOW + TWO_HOURS),
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


@pytest.mark.parametrize("missing", ["userId", "exp"])
def test_connection_that_the_authorizer_does_not_describe_is_refused(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, missing: str
) -> None:
    described = {name: value for name, value in {"userId": SUB, "exp": str(NOW + 600)}.items() if name != missing}

    with pytest.raises(KeyError, match=missing):
        websocket.handler(connect_event(authorizer=described), None)


# Subprotocols


@pytest.mark.parametrize(
    ("name", "offer"),
    [
        (HEADER, "echo.v1"),
        (HEADER, f"echo.v1, {TOKEN}"),
        (HEADER, f"{TOKEN},echo.v1"),
        (HEADER, f" a ,\techo.v1 ,{TOKEN}"),
        ("sec-websocket-protocol", f"{TOKEN}, echo.v1"),
        ("SEC-WEBSOCKET-PROTOCOL", "echo.v2, echo.v1, echo.v0"),
    ],
)
def test_subprotocol_that_is_spoken_is_selected_and_no_other_is_ever_sent_back(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, name: str, offer: str
) -> None:
    table.add_response("put_item", {})

    answer = websocket.handler(with_headers(connect_event(), (name, offer)), None)

    assert answer == {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "echo.v1"}}


@pytest.mark.parametrize(
    "offer", ["", "echo", "echo.v2", "Echo.v1", "echo.v1.", "xecho.v1", "echo.v1;x", TOKEN, f"{TOKEN}, idToken.echo.v1"]
)
def test_offer_of_unknown_subprotocols_only_is_a_bad_request_and_not_stored(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, offer: str
) -> None:
    answer = websocket.handler(with_headers(connect_event(), (HEADER, offer)), None)

    assert (answer["statusCode"], json.loads(answer["body"])) == (400, {"message": "Offer the subprotocol echo.v1."})
    assert "headers" not in answer


@pytest.mark.parametrize("offers", [("echo.v1", "other"), ("other", "echo.v1")], ids=str)
def test_subprotocols_may_be_offered_in_several_lines(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, offers: tuple[str, str]
) -> None:
    """RFC 6455 section 11.3.4."""
    table.add_response("put_item", {})
    event = with_headers(connect_event(), *(("Sec-WebSocket-Protocol", offer) for offer in offers))

    assert websocket.handler(event, None)["headers"] == {"Sec-WebSocket-Protocol": "echo.v1"}


@pytest.mark.parametrize("headers", [{}, None], ids=["none", "null"])
def test_client_that_offers_no_subprotocol_gets_none(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, headers: dict[str, str] | None
) -> None:
    table.add_response("put_item", {})

    answer = websocket.handler(connect_event() | {"headers": headers}, None)

    assert answer == {"statusCode": 200}


# $disconnect


@pytest.mark.parametrize(
    "found",
    [{}, row(connectionId=CONNECTION_ID, userId=SUB, removedAt=NOW + 600)],
    ids=["forgotten before", "remembered"],
)
def test_disconnected_connection_is_forgotten_with_one_call(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory, found: dict[str, object]
) -> None:
    table.add_response(
        "delete_item",
        found,
        {"TableName": "connections", "Key": {"connectionId": CONNECTION_ID}, "ReturnValues": "ALL_OLD"},
    )

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


def test_keepalive_gets_a_small_frame_instead_of_an_echo(
    websocket: ModuleType, management: Stubber, message_event: EventFactory
) -> None:
    management.add_response("post_to_connection", {}, {"ConnectionId": CONNECTION_ID, "Data": b'{"keepalive": true}'})

    answer = websocket.handler(message_event(routeKey="keepalive", body='{"action":"keepalive"}'), None)

    assert answer == {"statusCode": 200}


@pytest.mark.parametrize("route_key", ["$default", "keepalive"])
def test_connection_that_is_gone_is_forgotten(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory, route_key: str
) -> None:
    management.add_client_error("post_to_connection", "GoneException", http_status_code=410)
    table.add_response("delete_item", {})

    answer = websocket.handler(message_event(routeKey=route_key), None)

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


def test_who_is_refused_is_logged_with_the_reason(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, caplog: pytest.LogCaptureFixture
) -> None:
    websocket.handler(with_headers(connect_event(), (HEADER, "echo.v2")), None)

    (refused,) = map(vars, caplog.records)
    assert (refused["levelname"], refused["message"]) == ("WARNING", "connection rejected")
    assert (refused["reason"], refused["connectionId"]) == ("unknown_subprotocol", CONNECTION_ID)


def test_no_log_record_holds_a_token(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="websocket")
    table.add_response("put_item", {})
    event = connect_event()

    for offer in (f"echo.v1, {TOKEN}", TOKEN):
        websocket.handler(with_headers(event, (HEADER, offer)), None)

    logged = repr([vars(record) for record in caplog.records])
    assert [message for message in ("connected", "connection rejected") if message not in logged] == []
    assert [token for token in (TOKEN, event["queryStringParameters"]["idToken"]) if token in logged] == []


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
