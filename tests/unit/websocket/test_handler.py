"""The websocket function in this process, with its own botocore clients, which botocore's Stubber answers."""

from __future__ import annotations

import json
import logging
import sys
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from benchmarks.user_pool import SUB
from tests.fixtures.events import CONNECTION_ID, EventFactory, add_headers
from tests.fixtures.functions import CALLBACK_URL, NOW, WEBSOCKET, ColdStart

TWO_HOURS = 7200
HANDSHAKE_SECONDS = 30
LONE_SURROGATE = "\ud800"  # JSON can contain one, but UTF-8 cannot
HEADER = "Sec-WebSocket-Protocol"
TOKEN = "idToken.eyJhbGciOiJub25lIn0.e30.AAAA"


def build_post(message: str) -> dict[str, object]:
    return {"ConnectionId": CONNECTION_ID, "Data": f'{{"message": "{message}"}}'.encode()}


def item(**attributes: str | int) -> dict[str, dict[str, str]]:
    """Return these attributes as DynamoDB JSON."""
    return {name: {"S" if isinstance(value, str) else "N": str(value)} for name, value in attributes.items()}


def build_deletion(**condition: object) -> dict[str, object]:
    return {
        "TableName": "connections",
        "Key": item(connectionId=CONNECTION_ID),
        "ReturnValues": "ALL_OLD",
        **condition,
    }


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
    row = item(connectionId=CONNECTION_ID, userId=SUB, connectedAt=NOW, removedAt=removed_at)
    table.add_response("put_item", {}, {"TableName": "connections", "Item": row})

    answer = websocket.handler(connect_event(authorizer={"userId": SUB, "exp": str(exp)}), None)

    assert answer == {"statusCode": 200}


def test_connection_that_cannot_be_stored_is_refused(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory
) -> None:
    table.add_client_error("put_item", "ProvisionedThroughputExceededException", http_status_code=400)

    with pytest.raises(ClientError, match="ProvisionedThroughputExceededException"):
        websocket.handler(connect_event(), None)


def test_connection_without_an_authorizer_is_refused(
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
def test_supported_subprotocol_is_selected_and_no_other_is_sent_back(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, name: str, offer: str
) -> None:
    table.add_response("put_item", {})

    answer = websocket.handler(add_headers(connect_event(), (name, offer)), None)

    assert answer == {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "echo.v1"}}


@pytest.mark.parametrize(
    "offer", ["", "echo", "echo.v2", "Echo.v1", "echo.v1.", "xecho.v1", "echo.v1;x", TOKEN, f"{TOKEN}, idToken.echo.v1"]
)
def test_offer_of_unknown_subprotocols_only_is_a_bad_request_and_not_stored(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, offer: str
) -> None:
    answer = websocket.handler(add_headers(connect_event(), (HEADER, offer)), None)

    assert (answer["statusCode"], json.loads(answer["body"])) == (400, {"message": "Offer the subprotocol echo.v1."})
    assert "headers" not in answer


@pytest.mark.parametrize("offers", [("echo.v1", "other"), ("other", "echo.v1")], ids=str)
def test_subprotocols_may_be_offered_in_several_lines(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, offers: tuple[str, str]
) -> None:
    """RFC 6455 section 11.3.4."""
    table.add_response("put_item", {})
    event = add_headers(connect_event(), *(("Sec-WebSocket-Protocol", offer) for offer in offers))

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
    [{}, {"Attributes": item(connectionId=CONNECTION_ID, userId=SUB, connectedAt=NOW, removedAt=NOW + 600)}],
    ids=["deleted before", "stored"],
)
def test_disconnected_connection_of_any_age_is_deleted_with_one_call(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory, found: dict[str, Any]
) -> None:
    table.add_response("delete_item", found, build_deletion())

    answer = websocket.handler(disconnect_event(), None)

    assert answer == {"statusCode": 200}


def test_connection_that_cannot_be_deleted_is_an_incident(
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
    management.add_response("post_to_connection", {}, build_post("hello"))

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
def test_echo_of_every_message_is_json_in_utf_8(
    websocket: ModuleType, management: Stubber, message_event: EventFactory, body: str | None, echoed: str
) -> None:
    management.add_response("post_to_connection", {}, build_post(echoed))

    answer = websocket.handler(message_event(body=body), None)

    assert answer == {"statusCode": 200}


def test_keepalive_gets_a_small_frame_instead_of_an_echo(
    websocket: ModuleType, management: Stubber, message_event: EventFactory
) -> None:
    management.add_response("post_to_connection", {}, {"ConnectionId": CONNECTION_ID, "Data": b'{"keepalive": true}'})

    answer = websocket.handler(message_event(routeKey="keepalive", body='{"action":"keepalive"}'), None)

    assert answer == {"statusCode": 200}


@pytest.mark.parametrize(
    "body",
    [LONE_SURROGATE, f"{LONE_SURROGATE}x", f'"\\{LONE_SURROGATE}\\', "\udc4b\ud83d", "👋\udfff"],
    ids=["alone", "before text", "after a backslash", "pair in the wrong order", "after a pair"],
)
def test_message_with_a_lone_surrogate_is_echoed_as_json_in_utf_8(
    websocket: ModuleType, monkeypatch: pytest.MonkeyPatch, message_event: EventFactory, body: str
) -> None:
    posts: list[bytes] = []
    monkeypatch.setattr(websocket.management, "post_to_connection", lambda **call: posts.append(call["Data"]))

    answer = websocket.handler(message_event(body=body), None)

    (post,) = posts
    assert (answer, json.loads(post.decode())) == ({"statusCode": 200}, {"message": body})


# A post that gets 410


CONDITION = {
    "ConditionExpression": "attribute_not_exists(connectedAt) OR connectedAt < :latest",
    "ExpressionAttributeValues": {":latest": {"N": str(NOW - HANDSHAKE_SECONDS)}},
}


@pytest.mark.parametrize("route_key", ["$default", "keepalive"])
def test_connection_that_got_410_is_deleted_unless_its_handshake_may_still_be_running(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory, route_key: str
) -> None:
    management.add_client_error("post_to_connection", "GoneException", http_status_code=410)
    table.add_response("delete_item", {}, build_deletion(**CONDITION))

    answer = websocket.handler(message_event(routeKey=route_key), None)

    assert answer == {"statusCode": 200}


def test_young_connection_that_got_410_is_no_error(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory
) -> None:
    management.add_client_error("post_to_connection", "GoneException", http_status_code=410)
    table.add_client_error("delete_item", "ConditionalCheckFailedException", http_status_code=400)

    answer = websocket.handler(message_event(), None)

    assert answer == {"statusCode": 200}


def test_connection_that_got_410_and_cannot_be_deleted_is_an_incident(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory
) -> None:
    management.add_client_error("post_to_connection", "GoneException", http_status_code=410)
    table.add_client_error("delete_item", "AccessDeniedException", http_status_code=400)

    with pytest.raises(ClientError, match="AccessDeniedException"):
        websocket.handler(message_event(), None)


# A post that fails


@pytest.mark.parametrize("code", ["ForbiddenException", "LimitExceededException", "PayloadTooLargeException"])
def test_message_that_cannot_be_sent_is_an_incident(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory, code: str
) -> None:
    management.add_client_error("post_to_connection", code, http_status_code=400)

    with pytest.raises(ClientError, match=code):
        websocket.handler(message_event(), None)


# What the log does not say


def test_no_log_record_holds_a_token(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="websocket")
    table.add_response("put_item", {})
    event = connect_event()

    for offer in (f"echo.v1, {TOKEN}", TOKEN):
        websocket.handler(add_headers(event, (HEADER, offer)), None)

    logged = repr([vars(record) for record in caplog.records])
    assert [message for message in ("connected", "connection rejected") if message not in logged] == []
    assert [token for token in (TOKEN, event["queryStringParameters"]["idToken"]) if token in logged] == []


# X-Ray


TRACE_ID = "Root=1-5759e988-aaaaaaaaaaaaaaaaaaaaaaaa;Parent=53995c3f42cd8ad8"


@pytest.mark.parametrize(
    "environ",
    [{}, {"_X_AMZN_TRACE_ID": TRACE_ID}, {"_X_AMZN_TRACE_ID": f"{TRACE_ID};Sampled=0"}],
    ids=["untraced", "undecided", "unsampled"],
)
def test_invocation_that_is_not_sampled_does_not_import_the_x_ray_sdk(
    websocket: ModuleType,
    table: Stubber,
    connect_event: EventFactory,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "aws_xray_sdk.core", None)  # importing it raises ImportError
    table.add_response("put_item", {})

    assert websocket.handler(connect_event(), None) == {"statusCode": 200}


def test_calls_are_recorded_from_the_first_sampled_invocation_on(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real SDK, which patches botocore permanently, runs in tests/container/test_tracing.py."""
    patched: list[object] = []
    monkeypatch.setattr("aws_xray_sdk.core.patch", patched.append)
    for _ in range(2):
        table.add_response("delete_item", {})

    websocket.handler(disconnect_event(), None)
    assert patched == []
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"{TRACE_ID};Sampled=1")
    websocket.handler(disconnect_event(), None)
    assert patched == [("botocore",)]


@pytest.mark.parametrize("trace_id", [f"{TRACE_ID};Sampled=1", "Sampled=1", "Root=1;Sampled=1"])
def test_sampled_invocation_needs_no_daemon(
    websocket: ModuleType,
    table: Stubber,
    disconnect_event: EventFactory,
    monkeypatch: pytest.MonkeyPatch,
    trace_id: str,
) -> None:
    monkeypatch.setattr("aws_xray_sdk.core.patch", str)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace_id)
    table.add_response("delete_item", {})
    table.add_client_error("delete_item", "AccessDeniedException")

    assert websocket.handler(disconnect_event(), None) == {"statusCode": 200}
    with pytest.raises(ClientError, match="AccessDeniedException"):
        websocket.handler(disconnect_event(), None)


def test_annotations_have_the_outcome(
    *,
    websocket: ModuleType,
    table: Stubber,
    connect_event: EventFactory,
    disconnect_event: EventFactory,
    subsegments: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aws_xray_sdk.core.patch", str)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"{TRACE_ID};Sampled=1")
    table.add_response("put_item", {})
    table.add_response("delete_item", {})
    table.add_client_error("put_item", "AccessDeniedException")

    websocket.handler(connect_event(), None)
    websocket.handler(disconnect_event(), None)
    with pytest.raises(ClientError):
        websocket.handler(connect_event(), None)
    with pytest.raises(KeyError):
        websocket.handler(connect_event(authorizer=None), None)

    assert [(each["name"], each["annotations"], "fault" in each) for each in subsegments] == [
        ("websocket", {"connection_id": CONNECTION_ID, "route": route, "reason": reason}, failed)
        for route, reason, failed in [
            ("$connect", "ok", False),
            ("$disconnect", "client_closed", False),
            ("$connect", "ClientError", True),
            ("$connect", "KeyError", True),
        ]
    ]


# Settings


def test_settings_have_defaults(websocket: ModuleType) -> None:
    assert websocket.Settings.read(WEBSOCKET)._asdict() == {
        "connection_table": "connections",
        "callback_url": CALLBACK_URL,
        "max_message_bytes": 65536,
        "max_connections": 0,
        "user_table": "",
    }


def test_settings_are_read_from_every_variable(websocket: ModuleType) -> None:
    options = {"MAX_MESSAGE_BYTES": "5", "MAX_CONNECTIONS_PER_USER": "3", "USER_TABLE_NAME": "users"}

    assert websocket.Settings.read(WEBSOCKET | options)._asdict() == {
        "connection_table": "connections",
        "callback_url": CALLBACK_URL,
        "max_message_bytes": 5,
        "max_connections": 3,
        "user_table": "users",
    }


@pytest.mark.parametrize("name", [*WEBSOCKET, "USER_TABLE_NAME"])
@pytest.mark.parametrize("empty", [True, False], ids=["empty", "unset"])
def test_missing_variable_is_named(websocket: ModuleType, name: str, empty: bool) -> None:
    environ = WEBSOCKET | {"MAX_CONNECTIONS_PER_USER": "3", "USER_TABLE_NAME": "users"}
    if empty:
        environ[name] = ""
    else:
        del environ[name]

    with pytest.raises(RuntimeError, match=f"^environment variable {name} is required$"):
        websocket.Settings.read(environ)


@pytest.mark.parametrize("name", ["MAX_MESSAGE_BYTES", "MAX_CONNECTIONS_PER_USER"])
@pytest.mark.parametrize("value", ["many", "-1", "1.5", "1e3", " 1", "1\n", "0x10", "1000000", "64K", "\uff11"])
def test_malformed_number_is_named(websocket: ModuleType, name: str, value: str) -> None:
    rule = "it must be a number of up to 6 digits"

    with pytest.raises(RuntimeError, match=f"^environment variable {name} is malformed, {rule}$"):
        websocket.Settings.read(WEBSOCKET | {"USER_TABLE_NAME": "users", name: value})


def test_missing_variable_stops_the_init_phase(cold_start: ColdStart) -> None:
    with pytest.raises(RuntimeError, match=r"^environment variable CALLBACK_URL is required$"):
        cold_start("websocket", CONNECTION_TABLE_NAME="connections")


def test_messages_go_to_the_callback_url(websocket: ModuleType) -> None:
    assert websocket.management.meta.endpoint_url == CALLBACK_URL


@pytest.mark.parametrize("others", [{}, {"CALLBACK_URL": CALLBACK_URL}], ids=["alone", "beside CALLBACK_URL"])
def test_messages_go_to_the_endpoint_url_of_the_sdk_if_there_is_one(
    cold_start: ColdStart, others: dict[str, str]
) -> None:
    endpoint_url = "http://127.0.0.1:3001/prod"
    variables = others | {"AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": endpoint_url}

    websocket = cold_start("websocket", CONNECTION_TABLE_NAME="connections", **variables)

    assert websocket.management.meta.endpoint_url == endpoint_url
