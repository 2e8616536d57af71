"""WebSocket function: store a connection on `$connect`, delete it on `$disconnect`, answer every other message."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Self

import botocore.session  # boto3 takes longer to import, and adds nothing that is used here
from botocore.config import Config
from botocore.exceptions import ConnectionError as EndpointError
from botocore.exceptions import HTTPClientError

logger = logging.getLogger(__name__)
logging.getLogger("aws_xray_sdk").setLevel(logging.ERROR)  # it warns about every invocation that has no trace
logging.getLogger("botocore").setLevel(logging.WARNING)  # it logs how it found credentials at every cold start

MAX_CONNECTION_SECONDS = 2 * 60 * 60  # API Gateway closes every connection by then
MAX_HANDSHAKE_SECONDS = 30  # API Gateway waits 29 s for `$connect`
MAX_POST_BYTES = 128 * 1024  # limit of `@connections`
SUBPROTOCOL = "echo.v1"
KEEPALIVE = {"keepalive": True}
TOKEN_EXPIRED = {"error": "token_expired", "message": "Your token has expired: reconnect with a new one."}
TOO_LARGE = {"error": "message_too_large", "message": "This message is larger than the limit."}

Event = dict[str, Any]
Response = dict[str, Any]
Frame = dict[str, Any]
Item = dict[str, dict[str, Any]]


class Settings(NamedTuple):
    """What the function reads from its environment.

    Attributes:
        callback_url: endpoint of `@connections`.
        max_connections: connections that one user may have, counted in `user_table`; 0 for no limit.
    """

    connection_table: str
    callback_url: str
    max_message_bytes: int
    max_connections: int
    user_table: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Raise RuntimeError for a variable that is missing or malformed; the message names the variable and the rule."""

        def text(name: str) -> str:
            if not environ.get(name):
                raise RuntimeError(f"environment variable {name} is required")
            return environ[name]

        def number(name: str, default: int) -> int:
            value = environ.get(name) or str(default)
            if not re.fullmatch("[0-9]{1,6}", value):
                raise RuntimeError(f"environment variable {name} is malformed, it must be a number of up to 6 digits")
            return int(value)

        max_connections = number("MAX_CONNECTIONS_PER_USER", 0)
        return cls(
            connection_table=text("CONNECTION_TABLE_NAME"),
            callback_url=environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI") or text("CALLBACK_URL"),
            max_message_bytes=number("MAX_MESSAGE_BYTES", 64 * 1024),
            max_connections=max_connections,
            user_table=text("USER_TABLE_NAME") if max_connections else "",
        )


class Rejected(Exception):
    """Refuse the connection because of what the client did.

    Attributes:
        status: HTTP status of the handshake.
        reason: code for the log.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ServiceUnavailable(Exception):
    """An AWS service gave no answer; the message names the service and the operation."""


def name_service(exception: Exception, event_name: str, **_: object) -> None:
    """Replace botocore's network errors, which name a URL only, on the event `after-call-error.<service>.<operation>`."""
    if isinstance(exception, EndpointError | HTTPClientError):
        service, operation = event_name.split(".")[1:]
        raise ServiceUnavailable(f"{service} gave no answer to {operation}: {exception}") from exception


# The init phase calls no service: clients connect on first use, and keep their connections.
settings = Settings.read(os.environ)
# All calls of a route with their retries end before the function's timeout, so a hanging service raises an error
# instead of killing the environment. A post whose answer is late is repeated: delivery is at least once.
config = Config(
    region_name=os.environ.get("AWS_REGION"),  # botocore reads AWS_DEFAULT_REGION only
    connect_timeout=1,
    read_timeout=1,
    retries={"mode": "standard", "total_max_attempts": 2},
    tcp_keepalive=True,
)
session = botocore.session.get_session()
session.register("after-call-error", name_service)
# The image has these services only, and of them the operations in trim.toml.
dynamodb: Any = session.create_client("dynamodb", config=config)
management: Any = session.create_client("apigatewaymanagementapi", endpoint_url=settings.callback_url, config=config)


def handler(event: Event, context: object) -> Response:
    trace_if_sampled()
    route_key, connection_id = event["requestContext"]["routeKey"], event["requestContext"]["connectionId"]
    if route_key == "$connect":
        return connect(event, connection_id)
    if route_key == "$disconnect":
        disconnect(event, connection_id)
    else:
        answer(event, connection_id)
    return {"statusCode": 200}


def trace_if_sampled() -> None:
    """Let X-Ray record AWS calls from the first sampled invocation on; the others do not wait for its import."""
    if "Sampled=1" in os.environ.get("_X_AMZN_TRACE_ID", ""):
        from aws_xray_sdk.core import patch  # noqa: PLC0415 - see above

        patch(("botocore",))  # only the first time


def connect(event: Event, connection_id: str) -> Response:
    try:
        headers = select_subprotocol(event)
        store(event["requestContext"]["authorizer"], connection_id)
    except Rejected as rejection:
        logger.warning("connection rejected", extra={"reason": rejection.reason, "connectionId": connection_id})
        return {"statusCode": rejection.status, "body": json.dumps({"message": str(rejection)})}
    return {"statusCode": 200, **headers}


def select_subprotocol(event: Event) -> Response:
    """Return the response's `headers`: SUBPROTOCOL if the client offers subprotocols, never the one with its token.

    Raises:
        Rejected: the client offers subprotocols, but not SUBPROTOCOL.
    """
    offers = [
        line
        for part in ("headers", "multiValueHeaders")  # a header that is sent twice is complete in the latter only
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
    """Store who holds the connection, until the ID token expires or API Gateway closes the connection.

    Raises:
        Rejected: the user has too many connections.
    """
    user_id = authorizer["userId"]
    now = int(time.time())
    removed_at = min(int(authorizer["exp"]), now + MAX_CONNECTION_SECONDS)
    row = {
        "connectionId": {"S": connection_id},
        "userId": {"S": user_id},
        "connectedAt": {"N": str(now)},
        "removedAt": {"N": str(removed_at)},
    }
    try:
        if settings.max_connections:
            take_slot(user_id, slot_of(row))
        dynamodb.put_item(TableName=settings.connection_table, Item=row)
    except Rejected:
        raise
    except Exception:  # DynamoDB may have written what it did not confirm
        release_slots(user_id, [slot_of(row)])
        raise
    logger.info("connected", extra={"sub": user_id, "connectionId": connection_id})


def slot_of(row: Item) -> str:
    """Return the connection's slot. A user's slots are a set, because one conditional update can count a set."""
    return f"{row['removedAt']['N']} {row['connectionId']['S']}"


def take_slot(user_id: str, slot: str) -> None:
    """Count the connection as one of its user's.

    An expired slot is free: API Gateway does not send `$disconnect` for every connection that ends.

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
    """Add the slot if one is left, else return the slots that are taken.

    DynamoDB decides atomically, so simultaneous connects cannot exceed the limit. If the slot is there already, the
    SDK is retrying a write that had succeeded.
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
        return list(failure.response["Item"]["slots"]["SS"])
    return []


def release_slots(user_id: str, slots: list[str]) -> None:
    if settings.max_connections and slots:
        dynamodb.update_item(
            TableName=settings.user_table,
            Key={"userId": {"S": user_id}},
            UpdateExpression="DELETE slots :slots",
            ExpressionAttributeValues={":slots": {"SS": slots}},
        )


def disconnect(event: Event, connection_id: str) -> None:
    row = delete_row(connection_id)
    user_id = event["requestContext"].get("authorizer", {}).get("userId")
    if not row and user_id and settings.max_connections:
        release_slots(user_id, find_slots(user_id, connection_id))
    logger.info("disconnected", extra={"connectionId": connection_id})


def delete_row(connection_id: str, **condition: Any) -> Item:
    """Delete the connection's row and release its slot; return the row, empty if there was none."""
    deleted = dynamodb.delete_item(
        TableName=settings.connection_table,
        Key={"connectionId": {"S": connection_id}},
        ReturnValues="ALL_OLD",
        **condition,
    )
    row: Item = deleted.get("Attributes", {})
    if row:
        release_slots(row["userId"]["S"], [slot_of(row)])
    return row


def find_slots(user_id: str, connection_id: str) -> list[str]:
    """Return the slots of a connection whose row was already deleted, for example by a push that got 410."""
    found = dynamodb.get_item(TableName=settings.user_table, Key={"userId": {"S": user_id}}, ConsistentRead=True)
    slots = found.get("Item", {}).get("slots", {}).get("SS", [])
    return [slot for slot in slots if slot.endswith(f" {connection_id}")]


def answer(event: Event, connection_id: str) -> None:
    """Answer a message, or close the connection if the token that opened it has expired."""
    try:
        if has_expired(event):
            logger.info("token expired", extra={"connectionId": connection_id})
            post(connection_id, TOKEN_EXPIRED)
            management.delete_connection(ConnectionId=connection_id)  # `$disconnect` follows and deletes the row
        else:
            post(connection_id, reply(event))
    except management.exceptions.GoneException:
        delete_gone(connection_id)


def has_expired(event: Event) -> bool:
    exp = event["requestContext"].get("authorizer", {}).get("exp")
    return exp is not None and int(exp) <= time.time()


def reply(event: Event) -> Frame:
    """Return the answer to a keep-alive, the echo of a message, or an error if the message is too large."""
    if event["requestContext"]["routeKey"] == "keepalive":
        return KEEPALIVE
    body = event.get("body") or ""
    echo = {"message": body}
    size = len(body.encode(errors="surrogatepass"))
    return TOO_LARGE if size > settings.max_message_bytes or len(encode(echo)) > MAX_POST_BYTES else echo


def post(connection_id: str, frame: Frame) -> None:
    management.post_to_connection(ConnectionId=connection_id, Data=encode(frame))


def encode(frame: Frame) -> bytes:
    """Return JSON in UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes its JSON escape."""
    return json.dumps(frame, ensure_ascii=False).encode(errors="backslashreplace")


def delete_gone(connection_id: str) -> None:
    """Delete the row of a connection that got 410, unless its handshake may still be running.

    `@connections` also answers 410 before a connection is established
    (https://repost.aws/knowledge-center/410-gone-api-gateway).
    """
    latest = str(int(time.time()) - MAX_HANDSHAKE_SECONDS)
    with suppress(dynamodb.exceptions.ConditionalCheckFailedException):  # then `$disconnect` deletes it
        delete_row(
            connection_id,
            ConditionExpression="attribute_not_exists(connectedAt) OR connectedAt < :latest",
            ExpressionAttributeValues={":latest": {"N": latest}},
        )
