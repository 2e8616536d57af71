"""The websocket function's log lines: one for each decision, with its metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from benchmarks.user_pool import SUB
from tests.fixtures.emf import NO_METRICS, Metrics, drop_metrics, read_metrics
from tests.fixtures.events import CONNECTION_ID, Event, add_headers, load_event
from tests.fixtures.functions import NOW
from tests.fixtures.log_lines import Line, read_lines

Lines = Callable[[], list[Line]]

NAME = {"FunctionName": "socket"}
REQUEST_IDS = {"connect": "L0SM9dEPvHcFdUQ=", "default": "L0SNYdFXPHcFiVg=", "disconnect": "L0SQaFJqvHcFp5A="}
TWO_HOURS = 7200


@pytest.fixture
def lines(
    websocket: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> Lines:
    """Return how to read the lines that the function has logged so far."""
    monkeypatch.setattr(websocket, "FUNCTION_NAME", "socket")
    caplog.set_level(logging.DEBUG, logger="websocket")
    return lambda: read_lines(caplog, capsys)


def build_facts(kind: str, route_key: str) -> dict[str, str]:
    return {"connectionId": CONNECTION_ID, "apiRequestId": REQUEST_IDS[kind], "routeKey": route_key, "sub": SUB}


# $connect


def test_accepted_connection_is_one_line_with_the_user(websocket: ModuleType, table: Stubber, lines: Lines) -> None:
    table.add_response("put_item", {})

    websocket.handler(load_event("connect"), None)

    (line,) = lines()
    assert drop_metrics(line) == {"level": "INFO", "message": "connected", **build_facts("connect", "$connect")}
    assert read_metrics(line) == Metrics({"Accepted": 1, "Refused": 0}, [NAME])
    assert line["_aws"]["Timestamp"] == NOW * 1000 + 900


def refuse_subprotocol(event: Event, table: Stubber) -> Event:
    return add_headers(event, ("Sec-WebSocket-Protocol", "echo.v2"))


def refuse_slot(event: Event, table: Stubber) -> Event:
    full = {"Item": {"slots": {"SS": ["4102444800 other"]}}}
    table.add_client_error("update_item", "ConditionalCheckFailedException", modeled_fields=full)
    return event


@pytest.mark.parametrize("options", [{"MAX_CONNECTIONS_PER_USER": "1", "USER_TABLE_NAME": "users"}], ids=["limited"])
@pytest.mark.parametrize(
    ("refuse", "reason"), [(refuse_subprotocol, "unknown_subprotocol"), (refuse_slot, "too_many_connections")]
)
def test_refused_connection_is_one_line_with_the_reason_and_its_class(
    websocket: ModuleType, table: Stubber, lines: Lines, refuse: Callable[[Event, Stubber], Event], reason: str
) -> None:
    websocket.handler(refuse(load_event("connect"), table), None)

    (line,) = lines()
    assert drop_metrics(line) == {
        "level": "WARNING",
        "message": "connection rejected",
        **build_facts("connect", "$connect"),
        "reason": reason,
        "ReasonClass": "connect",
    }
    assert read_metrics(line) == Metrics({"Refused": 1}, [NAME, {**NAME, "ReasonClass": "connect"}])


# $disconnect


class End(NamedTuple):
    """The end of a connection as API Gateway reports it, the age of the row, and how long its token is still valid."""

    code: int | None
    text: str
    reason: str
    age: int = 60
    token_seconds: int = 600
    ended_by: str | None = None


ENDS = {
    "closed without a code": End(1005, "Client-side close frame status not set", "client_closed"),
    "closed with a code": End(4000, "bye", "client_closed"),
    "closed by DELETE": End(1000, "Connection Closed Normally", "client_closed"),
    "page left": End(1001, "", "client_closed"),
    "no code": End(None, "", "client_closed"),
    "kicked": End(1000, "Connection Closed Normally", "kicked", ended_by="ada@ops"),
    "kicked after the expiry": End(1000, "Connection Closed Normally", "kicked", token_seconds=-1, ended_by="ada@ops"),
    "token expired": End(1000, "Connection Closed Normally", "token_expired", token_seconds=0),
    "token expired, then idle": End(1001, "Going away", "token_expired", token_seconds=-500),
    "idle": End(1001, "Going away", "idle_limit"),
    "idle before the limit": End(1001, "Going away", "idle_limit", age=TWO_HOURS - 11),
    "limit": End(1001, "Going away", "connection_limit", age=TWO_HOURS - 10),
    "limit when the row expires": End(1001, "Going away", "connection_limit", age=TWO_HOURS, token_seconds=0),
    "old and closed by the client": End(1000, "", "client_closed", age=TWO_HOURS - 5),
    "lost": End(1006, "", "connection_lost"),
    "binary frame": End(1003, "", "refused_by_gateway"),
    "no UTF-8": End(1007, "", "refused_by_gateway"),
    "frame too large": End(1009, "", "refused_by_gateway"),
}


def row(end: End) -> dict[str, Any]:
    stored = {
        "connectionId": {"S": CONNECTION_ID},
        "userId": {"S": SUB},
        "connectedAt": {"N": str(NOW - end.age)},
        "removedAt": {"N": str(NOW + end.token_seconds)},
    }
    return stored | ({"endedBy": {"S": end.ended_by}} if end.ended_by else {})


def disconnect_event(end: End) -> Event:
    return load_event("disconnect", disconnectStatusCode=end.code, disconnectReason=end.text)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_end_of_a_connection_is_one_line_with_its_close_code_and_reason(
    websocket: ModuleType, table: Stubber, lines: Lines, end: End
) -> None:
    """The close reason is not logged, because a client can choose it."""
    table.add_response("delete_item", {"Attributes": row(end)})

    websocket.handler(disconnect_event(end), None)

    (line,) = lines()
    kicked = {"endedBy": end.ended_by} if end.ended_by else {}
    assert line == {
        "level": "INFO",
        "message": "disconnected",
        **build_facts("disconnect", "$disconnect"),
        "closeCode": end.code,
        "reason": end.reason,
        **kicked,
    }


@pytest.mark.parametrize(
    ("end", "reason"),
    [(ENDS["idle"], "idle_limit"), (ENDS["lost"], "connection_lost"), (ENDS["closed by DELETE"], "client_closed")],
)
def test_reason_of_an_end_without_a_row_follows_from_the_close_code(
    websocket: ModuleType, table: Stubber, lines: Lines, end: End, reason: str
) -> None:
    table.add_response("delete_item", {})

    websocket.handler(disconnect_event(end), None)

    (line,) = lines()
    assert (line["message"], line["reason"], "endedBy" in line) == ("disconnected", reason, False)


def test_end_of_a_row_without_connected_at_counts_as_the_idle_limit(
    websocket: ModuleType, table: Stubber, lines: Lines
) -> None:
    older = {name: value for name, value in row(ENDS["limit"]).items() if name != "connectedAt"}
    table.add_response("delete_item", {"Attributes": older})

    websocket.handler(disconnect_event(ENDS["limit"]), None)

    (line,) = lines()
    assert line["reason"] == "idle_limit"


# Messages


EXPIRED = {"userId": SUB, "exp": str(NOW)}


def fail_with(code: str, operation: str = "post_to_connection") -> Callable[[Stubber, Stubber], None]:
    def prepare(management: Stubber, table: Stubber) -> None:
        if operation == "delete_connection":
            management.add_response("post_to_connection", {})
        management.add_client_error(operation, code)
        if code == "GoneException":
            table.add_response("delete_item", {})

    return prepare


def succeed(management: Stubber, table: Stubber) -> None:
    management.add_response("post_to_connection", {})


def close(management: Stubber, table: Stubber) -> None:
    succeed(management, table)
    management.add_response("delete_connection", {})


class Case(NamedTuple):
    """A message, what AWS answers, and the expected log line."""

    prepare: Callable[[Stubber, Stubber], None]
    level: str
    message: str
    reason: str | None = None
    metric: str | None = None
    changes: Mapping[str, Any] = {}


MESSAGES = {
    "echo": Case(succeed, "DEBUG", "message answered"),
    "keep-alive": Case(succeed, "DEBUG", "message answered", changes={"routeKey": "keepalive"}),
    "too large": Case(succeed, "INFO", "message too large", "message_too_large", changes={"body": "x" * 65537}),
    "expired": Case(close, "INFO", "token expired", "token_expired", "Expired", {"authorizer": EXPIRED}),
    "gone": Case(fail_with("GoneException"), "INFO", "connection gone", "gone", "Gone"),
    "expired and gone": Case(
        fail_with("GoneException", "delete_connection"),
        "INFO",
        "connection gone",
        "gone",
        "Gone",
        {"authorizer": EXPIRED},
    ),
    "refused": Case(fail_with("ForbiddenException"), "ERROR", "echo failed", "ForbiddenException", "EchoFailed"),
    "unknown error": Case(fail_with("InternalError"), "ERROR", "echo failed", "ClientError", "EchoFailed"),
    "expired and refused": Case(
        fail_with("ForbiddenException", "delete_connection"),
        "ERROR",
        "echo failed",
        "ForbiddenException",
        "EchoFailed",
        {"authorizer": EXPIRED},
    ),
}


@pytest.mark.parametrize("case", MESSAGES.values(), ids=MESSAGES)
def test_message_is_one_line_with_its_outcome_and_not_its_text(
    websocket: ModuleType, management: Stubber, table: Stubber, lines: Lines, case: Case
) -> None:
    case.prepare(management, table)
    event = load_event("default", **{"body": "a secret", **case.changes})

    if case.metric == "EchoFailed":
        with pytest.raises(ClientError):
            websocket.handler(event, None)
    else:
        websocket.handler(event, None)

    (line,) = lines()
    reason = {"reason": case.reason} if case.reason else {}
    expected = build_facts("default", event["requestContext"]["routeKey"]) | reason
    assert drop_metrics(line) == {"level": case.level, "message": case.message, **expected}
    assert read_metrics(line) == (Metrics({case.metric: 1}, [NAME]) if case.metric else NO_METRICS)
    assert "a secret" not in repr(line)


def test_error_that_no_service_caused_is_logged_with_its_class(websocket: ModuleType, lines: Lines) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        websocket.handler(load_event("default", authorizer={"userId": SUB, "exp": "soon"}), None)

    (line,) = lines()
    assert (line["message"], line["reason"], line["apiRequestId"]) == (
        "echo failed",
        "ValueError",
        REQUEST_IDS["default"],
    )


def test_event_with_only_the_required_members_is_served(
    websocket: ModuleType, management: Stubber, lines: Lines
) -> None:
    management.add_response("post_to_connection", {})

    context = {"routeKey": "$default", "connectionId": CONNECTION_ID, "authorizer": {"exp": str(NOW + 600)}}

    answer = websocket.handler({"requestContext": context}, None)

    assert answer == {"statusCode": 200}
    (line,) = lines()
    assert (line["connectionId"], line["apiRequestId"], line["sub"]) == (CONNECTION_ID, None, None)
