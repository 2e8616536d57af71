"""The messages that the websocket function does not echo: those after the token's expiry, and those that are too large."""

from __future__ import annotations

import json
from types import ModuleType, SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from benchmarks.user_pool import SUB
from tests.fixtures.events import CONNECTION_ID, Event, EventFactory
from tests.fixtures.functions import NOW

CONNECTION = {"ConnectionId": CONNECTION_ID}
IDS = {"connectionId": CONNECTION_ID, "requestId": "L0SNYdFXPHcFiVg="}  # as in API Gateway's own error frames
TOKEN_EXPIRED = {"error": "token_expired", "message": "Your token has expired: reconnect with a new one.", **IDS}
LONE_SURROGATE = "\ud800"  # JSON can contain one, but UTF-8 cannot; it counts as 3 bytes, like its code point
ESCAPED_SURROGATE = r"\ud800"
MESSAGE_TOO_LARGE = {"error": "message_too_large", "message": "This message is larger than the limit.", **IDS}


def build_post(frame: dict[str, str]) -> dict[str, object]:
    text = json.dumps(frame, ensure_ascii=False).replace(LONE_SURROGATE, ESCAPED_SURROGATE)
    return {**CONNECTION, "Data": text.encode()}


# After the token's expiry


@pytest.fixture
def late_event(message_event: EventFactory) -> Event:
    """Return a message after the expiry of the token that opened the connection."""
    return message_event(authorizer={"userId": SUB, "exp": str(NOW - 600)})


@pytest.mark.parametrize("exp", [NOW, NOW - 1, NOW - 86400, 0], ids=["now", "a second ago", "yesterday", "1970"])
def test_message_after_the_expiry_gets_an_error_frame_and_ends_the_connection(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory, exp: int
) -> None:
    management.add_response("post_to_connection", {}, build_post(TOKEN_EXPIRED))
    management.add_response("delete_connection", {}, CONNECTION)

    answer = websocket.handler(message_event(authorizer={"userId": SUB, "exp": str(exp)}), None)

    assert answer == {"statusCode": 200}


def test_keepalive_after_the_expiry_gets_the_same_answer_as_a_message(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory
) -> None:
    management.add_response("post_to_connection", {}, build_post(TOKEN_EXPIRED))
    management.add_response("delete_connection", {}, CONNECTION)
    event = message_event(routeKey="keepalive", authorizer={"userId": SUB, "exp": str(NOW)})

    answer = websocket.handler(event, None)

    assert answer == {"statusCode": 200}


def test_message_in_the_second_of_the_expiry_is_not_served(
    monkeypatch: pytest.MonkeyPatch, websocket: ModuleType, management: Stubber, message_event: EventFactory
) -> None:
    """The token has expired in that second, too (RFC 7519 section 4.1.4)."""
    monkeypatch.setattr(websocket, "time", SimpleNamespace(time=lambda: float(NOW)))
    management.add_response("post_to_connection", {}, build_post(TOKEN_EXPIRED))
    management.add_response("delete_connection", {}, CONNECTION)

    websocket.handler(message_event(authorizer={"userId": SUB, "exp": str(NOW)}), None)


@pytest.mark.parametrize(
    "authorizer",
    [{"userId": SUB, "exp": str(NOW + 1)}, {"userId": SUB, "exp": str(NOW + 86400)}],
    ids=["a second left", "a day left"],
)
def test_message_before_the_expiry_is_echoed(
    websocket: ModuleType, management: Stubber, message_event: EventFactory, authorizer: dict[str, str] | None
) -> None:
    management.add_response("post_to_connection", {}, build_post({"message": "hello"}))

    answer = websocket.handler(message_event(authorizer=authorizer), None)

    assert answer == {"statusCode": 200}


@pytest.mark.parametrize("authorizer", [{"userId": SUB}, {}, None], ids=["no expiry", "nothing", "no authorizer"])
@pytest.mark.parametrize("route", ["$default", "keepalive"])
def test_connection_without_an_authorizer_is_not_served(
    websocket: ModuleType, message_event: EventFactory, authorizer: dict[str, str] | None, route: str
) -> None:
    """API Gateway answers with its own error frame. Nothing is posted."""
    with pytest.raises(KeyError):
        websocket.handler(message_event(routeKey=route, authorizer=authorizer), None)


@pytest.mark.parametrize("gone_before", ["post_to_connection", "delete_connection"])
def test_expired_connection_that_is_gone_is_deleted(
    websocket: ModuleType, management: Stubber, table: Stubber, late_event: Event, gone_before: str
) -> None:
    if gone_before == "delete_connection":
        management.add_response("post_to_connection", {})
    management.add_client_error(gone_before, "GoneException", http_status_code=410)
    table.add_response("delete_item", {})

    answer = websocket.handler(late_event, None)

    assert answer == {"statusCode": 200}


def test_expired_connection_that_cannot_be_closed_is_an_incident(
    websocket: ModuleType, management: Stubber, table: Stubber, late_event: Event
) -> None:
    management.add_response("post_to_connection", {})
    management.add_client_error("delete_connection", "ForbiddenException", http_status_code=403)

    with pytest.raises(ClientError, match="ForbiddenException"):
        websocket.handler(late_event, None)


# Beyond a size


def build_echo(body: str) -> dict[str, object]:
    return build_post({"message": body})


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({}, "x" * 65536),
        ({}, "é" * 32768),
        ({}, "👋" * 16384),
        ({"MAX_MESSAGE_BYTES": ""}, "x" * 65536),
        ({"MAX_MESSAGE_BYTES": "5"}, "hello"),
        ({"MAX_MESSAGE_BYTES": "5"}, "éé!"),
        ({"MAX_MESSAGE_BYTES": "5"}, f"{LONE_SURROGATE}xx"),
        ({"MAX_MESSAGE_BYTES": "0"}, ""),
        ({"MAX_MESSAGE_BYTES": "100000"}, "x" * 100_000),
    ],
    ids=[
        "ASCII",
        "two bytes each",
        "four bytes each",
        "empty option",
        "option",
        "option in bytes",
        "lone surrogate",
        "0",
        "larger",
    ],
)
def test_message_of_the_largest_size_is_echoed(
    websocket: ModuleType, management: Stubber, message_event: EventFactory, body: str
) -> None:
    management.add_response("post_to_connection", {}, build_echo(body))

    websocket.handler(message_event(body=body), None)


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({}, "x" * 65537),
        ({}, "é" * 32768 + "x"),
        ({}, "👋" * 16384 + "x"),
        ({"MAX_MESSAGE_BYTES": "5"}, "hello!"),
        ({"MAX_MESSAGE_BYTES": "5"}, "ééé"),
        ({"MAX_MESSAGE_BYTES": "5"}, f"{LONE_SURROGATE}xxx"),
        ({"MAX_MESSAGE_BYTES": "0"}, "x"),
        ({"MAX_MESSAGE_BYTES": "999999"}, "x" * 131072),
    ],
    ids=[
        "ASCII",
        "two bytes each",
        "four bytes each",
        "option",
        "option in bytes",
        "lone surrogate",
        "0",
        "more than can be posted",
    ],
)
def test_message_a_byte_larger_gets_an_error_frame_and_the_connection_stays(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory, body: str
) -> None:
    management.add_response("post_to_connection", {}, build_post(MESSAGE_TOO_LARGE))

    answer = websocket.handler(message_event(body=body), None)

    assert answer == {"statusCode": 200}


OVERHEAD = len('{"message": ""}')
LARGEST = 131072 - OVERHEAD


@pytest.mark.parametrize(
    "body",
    [
        '"' * (LARGEST // 2) + "x" * (LARGEST % 2),
        "\x01" * (LARGEST // 6) + "x" * (LARGEST % 6),
        LONE_SURROGATE * (LARGEST // 6) + "x" * (LARGEST % 6),
    ],
    ids=["quotes", "control characters", "lone surrogates"],
)
def test_echo_of_131072_bytes_is_posted_and_one_byte_more_is_not(
    websocket: ModuleType, management: Stubber, message_event: EventFactory, body: str
) -> None:
    """This is the limit of @connections. In JSON a quote takes two bytes, a control character or lone surrogate six."""
    assert len(json.dumps({"message": body})) == 131072
    management.add_response("post_to_connection", {}, build_echo(body))
    management.add_response("post_to_connection", {}, build_post(MESSAGE_TOO_LARGE))

    websocket.handler(message_event(body=body), None)
    websocket.handler(message_event(body=f"{body}x"), None)


def test_large_message_after_the_expiry_is_answered_like_other_messages(
    websocket: ModuleType, management: Stubber, late_event: Event
) -> None:
    management.add_response("post_to_connection", {}, build_post(TOKEN_EXPIRED))
    management.add_response("delete_connection", {}, CONNECTION)

    websocket.handler(late_event | {"body": "x" * 65537}, None)


def test_connection_that_is_gone_is_deleted_when_its_message_is_too_large(
    websocket: ModuleType, management: Stubber, table: Stubber, message_event: EventFactory
) -> None:
    management.add_client_error("post_to_connection", "GoneException", http_status_code=410)
    table.add_response("delete_item", {})

    assert websocket.handler(message_event(body="x" * 65537), None) == {"statusCode": 200}
