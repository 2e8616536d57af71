"""WebSocket function: store a connection on `$connect`, delete it on `$disconnect`, answer every other message."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import botocore.session  # boto3 takes longer to import, and adds nothing that is used here
from botocore.config import Config
from botocore.exceptions import ConnectionError as EndpointError
from botocore.exceptions import HTTPClientError

if TYPE_CHECKING:
    from types_boto3_apigatewaymanagementapi import ApiGatewayManagementApiClient
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

logger = logging.getLogger(__name__)
logging.getLogger("aws_xray_sdk").setLevel(logging.ERROR)  # it warns at each invocation without a trace
logging.getLogger("botocore").setLevel(logging.WARNING)  # at INFO it logs at each cold start where it found credentials

MAX_CONNECTION_SECONDS = 2 * 60 * 60  # API Gateway closes a connection at this age
MAX_HANDSHAKE_SECONDS = 30  # API Gateway waits 29 s for `$connect`
MIN_LIMITED_SECONDS = MAX_CONNECTION_SECONDS - 10  # least age of a row at that limit: rows are younger than connections
FUNCTION_NAME = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
MAX_POST_BYTES = 128 * 1024  # limit of a post to `@connections`
SUBPROTOCOL = "echo.v1"
KEEPALIVE = {"keepalive": True}
TOKEN_EXPIRED = {"error": "token_expired", "message": "Your token has expired: reconnect with a new one."}
TOO_LARGE = {"error": "message_too_large", "message": "This message is larger than the limit."}

Event = dict[str, Any]
Response = dict[str, Any]
Frame = dict[str, Any]
Item = dict[str, "AttributeValueTypeDef"]
Facts = dict[str, Any]  # what the log line and the trace say about an invocation


class Settings(NamedTuple):
    """The function's settings, from its environment variables.

    Attributes:
        callback_url: endpoint of `@connections`.
        max_connections: how many connections a user may have, counted in `user_table`; 0: no limit.
    """

    connection_table: str
    callback_url: str
    max_message_bytes: int
    max_connections: int
    user_table: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read and check the variables.

        Raises:
            RuntimeError: a variable is missing or malformed; the message names the variable and the rule.
        """

        def read_text(name: str) -> str:
            if not environ.get(name):
                raise RuntimeError(f"environment variable {name} is required")
            return environ[name]

        def read_number(name: str, default: int) -> int:
            value = environ.get(name) or str(default)
            if not re.fullmatch("[0-9]{1,6}", value):
                raise RuntimeError(f"environment variable {name} is malformed, it must be a number of up to 6 digits")
            return int(value)

        max_connections = read_number("MAX_CONNECTIONS_PER_USER", 0)
        return cls(
            connection_table=read_text("CONNECTION_TABLE_NAME"),
            callback_url=environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI") or read_text("CALLBACK_URL"),
            max_message_bytes=read_number("MAX_MESSAGE_BYTES", 64 * 1024),
            max_connections=max_connections,
            user_table=read_text("USER_TABLE_NAME") if max_connections else "",
        )


class Rejected(Exception):
    """The connection must be refused, because of something that the client did.

    Attributes:
        status: HTTP status of the refused handshake.
        reason: reason code for the log.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ServiceUnavailable(Exception):
    """An AWS service did not answer. The message names the service and the operation."""


def raise_with_service_name(**event: Any) -> None:
    """Replace a network error of botocore, which names only a URL, with one that names the service and the operation.

    botocore calls this on its event `after-call-error.<service>.<operation>`.
    """
    error = event["exception"]
    if isinstance(error, EndpointError | HTTPClientError):
        service, operation = event["event_name"].split(".")[1:]
        raise ServiceUnavailable(f"{service} gave no answer to {operation}: {error}") from error


# The init phase calls no service. The clients connect on first use, and keep their network connections.
settings = Settings.read(os.environ)
# All calls of a route with their retries take less than the function's timeout. So if a service hangs, the function
# raises an error and Lambda does not kill the environment. A post with a late answer is retried: delivery is at least once.
config = Config(
    region_name=os.environ.get("AWS_REGION"),  # botocore reads AWS_DEFAULT_REGION only
    connect_timeout=1,
    read_timeout=1,
    retries={"mode": "standard", "total_max_attempts": 2},
    tcp_keepalive=True,
)
session = botocore.session.get_session()
session.register("after-call-error", raise_with_service_name)
# The image has only these two services, and only the operations that trim.toml lists.
dynamodb = cast("DynamoDBClient", session.create_client("dynamodb", config=config))
management = cast(
    "ApiGatewayManagementApiClient",
    session.create_client("apigatewaymanagementapi", endpoint_url=settings.callback_url, config=config),
)


def handler(event: Event, context: object) -> Response:
    request = event["requestContext"]
    facts = {
        "connectionId": request["connectionId"],
        "apiRequestId": request.get("requestId"),
        "routeKey": request["routeKey"],
        "sub": request.get("authorizer", {}).get("userId"),
    }
    with trace(facts):
        if facts["routeKey"] == "$connect":
            return connect(event, facts)
        if facts["routeKey"] == "$disconnect":
            disconnect(event, facts)
        else:
            answer(event, facts)
        return {"statusCode": 200}


def build_line(facts: Facts, **metrics: int) -> dict[str, Any]:
    """Return the members of a log line: the facts, and the metrics that CloudWatch extracts from the line.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    directive = {
        "Namespace": "WebSocketApi",
        "Dimensions": [["FunctionName"], *([["FunctionName", "ReasonClass"]] if "ReasonClass" in facts else [])],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in metrics],
    }
    emf = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    return {**facts, **metrics, "FunctionName": FUNCTION_NAME, "_aws": emf}


@contextmanager
def trace(facts: Facts) -> Iterator[None]:
    """Record a subsegment with the AWS calls, annotated with the facts, if X-Ray samples the invocation.

    The X-Ray SDK is imported here, by the first sampled invocation, because the import slows down a cold start.
    """
    if "Sampled=1" not in os.environ.get("_X_AMZN_TRACE_ID", ""):
        yield
        return
    from aws_xray_sdk.core import patch, xray_recorder  # noqa: PLC0415 - see above

    patch(("botocore",))  # does nothing from the second time on
    with xray_recorder.in_subsegment("websocket") as subsegment:
        outcome = "ok"
        try:
            yield
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            if subsegment:
                subsegment.put_annotation("connection_id", facts["connectionId"])
                subsegment.put_annotation("route", facts["routeKey"])
                subsegment.put_annotation("reason", facts.get("reason", outcome))


def connect(event: Event, facts: Facts) -> Response:
    try:
        headers = select_subprotocol(event)
        store(event["requestContext"]["authorizer"], facts["connectionId"])
    except Rejected as rejection:
        facts |= {"reason": rejection.reason, "ReasonClass": "connect"}
        logger.warning("connection rejected", extra=build_line(facts, Refused=1))
        return {"statusCode": rejection.status, "body": json.dumps({"message": str(rejection)})}
    logger.info("connected", extra=build_line(facts, Accepted=1, Refused=0))
    return {"statusCode": 200, **headers}


def select_subprotocol(event: Event) -> Response:
    """Return the response's `headers`, with SUBPROTOCOL if the client offers subprotocols.

    The subprotocol that carries the token is never selected, because the response would then contain the token.

    Raises:
        Rejected: the client offers subprotocols, but not SUBPROTOCOL.
    """
    offers = [
        line
        for part in ("headers", "multiValueHeaders")  # only the latter has all lines of a header that is sent twice
        for name, value in (event.get(part) or {}).items()
        if name.lower() == "sec-websocket-protocol"
        for line in (value if isinstance(value, list) else [value])
    ]
    if not offers:
        return {}
    if SUBPROTOCOL not in {name.strip(" \t") for offer in offers for name in offer.split(",")}:
        raise Rejected(400, "unknown_subprotocol", f"Offer the subprotocol {SUBPROTOCOL}.")
    return {"headers": {"Sec-WebSocket-Protocol": SUBPROTOCOL}}


def store(authorizer: dict[str, str], connection_id: str) -> None:
    """Store the connection's row and take one of the user's slots, if connections are limited.

    The row expires with the ID token, or when API Gateway closes the connection.

    Raises:
        Rejected: the user has too many connections.
    """
    user_id = authorizer["userId"]
    now = int(time.time())
    removed_at = min(int(authorizer["exp"]), now + MAX_CONNECTION_SECONDS)
    row: Item = {
        "connectionId": {"S": connection_id},
        "userId": {"S": user_id},
        "connectedAt": {"N": str(now)},
        "removedAt": {"N": str(removed_at)},
    }
    try:
        if settings.max_connections:
            take_slot(user_id, build_slot(row))
        dynamodb.put_item(TableName=settings.connection_table, Item=row)
    except Rejected:
        raise
    except Exception:  # DynamoDB may have written the slot without confirming it
        release_slots(user_id, [build_slot(row)])
        raise


def build_slot(row: Item) -> str:
    """Return the connection's slot: when it expires, and the connection's id.

    A user's slots are a set, because a conditional update can count the members of a set.
    """
    return f"{row['removedAt']['N']} {row['connectionId']['S']}"


def take_slot(user_id: str, slot: str) -> None:
    """Take a slot for the connection. Release expired slots if no slot is free.

    Slots expire because API Gateway does not send `$disconnect` for every connection that ends.

    Raises:
        Rejected: the user has as many connections as allowed.
    """
    taken = add_slot(user_id, slot)
    expired = [each for each in taken if int(each.partition(" ")[0]) <= time.time()]
    if expired:
        release_slots(user_id, expired)
        taken = add_slot(user_id, slot)
    if taken:
        message = f"You already have {settings.max_connections} connections, which is the limit."
        raise Rejected(429, "too_many_connections", message)


def add_slot(user_id: str, slot: str) -> list[str]:
    """Add the slot and return an empty list; if the user has no free slot, return the slots that are taken.

    DynamoDB decides atomically, so simultaneous connects cannot exceed the limit. If our slot exists, an SDK retry is
    repeating a write that succeeded.
    """
    try:
        dynamodb.update_item(
            TableName=settings.user_table,
            Key={"userId": {"S": user_id}},
            UpdateExpression="ADD slots :slots SET removedAt = :removedAt",
            ConditionExpression="attribute_not_exists(slots) OR size(slots) < :max OR contains(slots, :slot)",
            ExpressionAttributeValues={
                ":slots": {"SS": [slot]},
                ":slot": {"S": slot},
                ":max": {"N": str(settings.max_connections)},
                ":removedAt": {"N": str(int(time.time()) + MAX_CONNECTION_SECONDS)},
            },
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException as failure:
        response: Any = failure.response  # the type stubs lack `Item`
        return list(response["Item"]["slots"]["SS"])
    return []


def release_slots(user_id: str, slots: list[str]) -> None:
    if settings.max_connections and slots:
        dynamodb.update_item(
            TableName=settings.user_table,
            Key={"userId": {"S": user_id}},
            UpdateExpression="DELETE slots :slots",
            ExpressionAttributeValues={":slots": {"SS": slots}},
        )


def disconnect(event: Event, facts: Facts) -> None:
    connection_id, user_id = facts["connectionId"], facts["sub"]
    row = delete_row(connection_id)
    if not row and user_id and settings.max_connections:
        release_slots(user_id, find_slots(user_id, connection_id))
    facts["closeCode"] = event["requestContext"].get("disconnectStatusCode")
    facts["reason"] = find_reason(event["requestContext"], row)
    if "endedBy" in row:
        facts["endedBy"] = row["endedBy"]["S"]
    logger.info("disconnected", extra=facts)


def find_reason(request: Mapping[str, Any], row: Item) -> str:
    """Return the reason code for the end of a connection. `row` is empty if it was already deleted.

    The code is not proof: a client can send every close code and close reason that API Gateway uses.
    """
    now, code = time.time(), request.get("disconnectStatusCode")
    is_limit = (code, request.get("disconnectReason")) == (1001, "Going away")
    if "endedBy" in row:
        return "kicked"
    # Checked before the token's expiry: `removedAt` is this limit, too, if the token is valid for longer.
    if is_limit and "connectedAt" in row and now - int(row["connectedAt"]["N"]) >= MIN_LIMITED_SECONDS:
        return "connection_limit"
    if row and int(row["removedAt"]["N"]) <= now:
        return "token_expired"
    if is_limit:
        return "idle_limit"
    if code in {1003, 1007, 1009}:
        return "refused_by_gateway"
    return "connection_lost" if code == 1006 else "client_closed"


def delete_row(connection_id: str, **condition: Any) -> Item:
    """Delete the connection's row and release its slot. Return the row, empty if there was none."""
    deleted = dynamodb.delete_item(
        TableName=settings.connection_table,
        Key={"connectionId": {"S": connection_id}},
        ReturnValues="ALL_OLD",
        **condition,
    )
    row = deleted.get("Attributes", {})
    if row:
        release_slots(row["userId"]["S"], [build_slot(row)])
    return row


def find_slots(user_id: str, connection_id: str) -> list[str]:
    """Return the slots of a connection whose row was already deleted, for example by a push that got 410."""
    found = dynamodb.get_item(TableName=settings.user_table, Key={"userId": {"S": user_id}}, ConsistentRead=True)
    slots = found.get("Item", {}).get("slots", {}).get("SS", [])
    return [slot for slot in slots if slot.endswith(f" {connection_id}")]


def answer(event: Event, facts: Facts) -> None:
    """Answer a message, or close the connection if the token that opened it has expired."""
    connection_id = facts["connectionId"]
    try:
        if has_expired(event):
            post_error(TOKEN_EXPIRED, facts)
            management.delete_connection(ConnectionId=connection_id)  # `$disconnect` follows and deletes the row
            logger.info("token expired", extra=build_line(facts, Expired=1))
        elif (frame := reply(event)) is TOO_LARGE:
            post_error(TOO_LARGE, facts)
            logger.info("message too large", extra=facts)
        else:
            post(connection_id, frame)
            logger.debug("message answered", extra=facts)
    except management.exceptions.GoneException:
        facts["reason"] = "gone"
        logger.info("connection gone", extra=build_line(facts, Gone=1))
        delete_gone(connection_id)
    except Exception as error:
        facts["reason"] = type(error).__name__
        logger.error("echo failed", extra=build_line(facts, EchoFailed=1))
        raise


def has_expired(event: Event) -> bool:
    """Return whether the token that opened the connection has expired.

    Raises:
        KeyError: no authorizer allowed this connection, so its messages are not answered.
    """
    return int(event["requestContext"]["authorizer"]["exp"]) <= time.time()


def reply(event: Event) -> Frame:
    """Return the frame that answers a message: for a keep-alive KEEPALIVE, for a message its echo, or TOO_LARGE."""
    if event["requestContext"]["routeKey"] == "keepalive":
        return KEEPALIVE
    body = event.get("body") or ""
    echo = {"message": body}
    size = len(body.encode(errors="surrogatepass"))
    return TOO_LARGE if size > settings.max_message_bytes or len(encode(echo)) > MAX_POST_BYTES else echo


def post_error(frame: Frame, facts: Facts) -> None:
    """Post an error frame, with the same ids as API Gateway's own error frames."""
    facts["reason"] = frame["error"]
    post(facts["connectionId"], {**frame, "connectionId": facts["connectionId"], "requestId": facts["apiRequestId"]})


def post(connection_id: str, frame: Frame) -> None:
    management.post_to_connection(ConnectionId=connection_id, Data=encode(frame))


def encode(frame: Frame) -> bytes:
    """Return JSON in UTF-8. A lone surrogate, which UTF-8 cannot encode, becomes its JSON escape."""
    return json.dumps(frame, ensure_ascii=False).encode(errors="backslashreplace")


def delete_gone(connection_id: str) -> None:
    """Delete the row of a connection that got 410, unless its handshake may still be running.

    `@connections` also answers 410 before a connection is established
    (https://repost.aws/knowledge-center/410-gone-api-gateway).
    """
    latest = str(int(time.time()) - MAX_HANDSHAKE_SECONDS)
    with suppress(dynamodb.exceptions.ConditionalCheckFailedException):  # `$disconnect` deletes a younger row
        delete_row(
            connection_id,
            ConditionExpression="attribute_not_exists(connectedAt) OR connectedAt < :latest",
            ExpressionAttributeValues={":latest": {"N": latest}},
        )
