"""WebSocket function: `$connect` stores the connection, `$disconnect` deletes it, a message gets an answer."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from typing import Any

import boto3
from aws_xray_sdk.core import patch
from botocore.config import Config

logger = logging.getLogger(__name__)
logging.getLogger("aws_xray_sdk").setLevel(logging.ERROR)  # it warns wherever there is no trace to join
logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells how it found credentials at every cold start
patch(("botocore",))

MAX_CONNECTION_SECONDS = 2 * 60 * 60  # API Gateway ends every connection by then
MAX_POST_BYTES = 128 * 1024  # of `@connections`
SUBPROTOCOL = "echo.v1"
EXPIRED = {"error": "token_expired", "message": "Your token has expired: reconnect with a new one."}
KEEPALIVE = {"keepalive": True}
TOO_LARGE = {"error": "message_too_large", "message": "This message is larger than what is taken here."}

Event = dict[str, Any]
Response = dict[str, Any]


class Rejected(Exception):
    """The caller's fault: `$connect` answers with the status; the reason is a code for logs."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


def handler(event: Event, context: object) -> Response:
    route_key, connection_id = event["requestContext"]["routeKey"], event["requestContext"]["connectionId"]
    if route_key == "$connect":
        return connect(event, connection_id)
    if route_key == "$disconnect":
        forget(event, connection_id)
    else:
        serve(event, connection_id)
    return {"statusCode": 200}


def connect(event: Event, connection_id: str) -> Response:
    try:
        subprotocol = chosen_subprotocol(event)
        remember(event["requestContext"]["authorizer"], connection_id)
    except Rejected as rejection:
        logger.warning("connection rejected", extra={"reason": rejection.reason, "connectionId": connection_id})
        return {"statusCode": rejection.status, "body": json.dumps({"message": str(rejection)})}
    return {"statusCode": 200, **subprotocol}


def chosen_subprotocol(event: Event) -> Response:
    """The header that selects one of the subprotocols that the client offers, of which one may be its token."""
    lines = [
        line
        for part in ("headers", "multiValueHeaders")  # the latter has them all, if there are several
        for name, value in (event.get(part) or {}).items()
        if name.lower() == "sec-websocket-protocol"
        for line in (value if isinstance(value, list) else [value])
    ]
    if not lines:
        return {}
    if SUBPROTOCOL not in {name.strip(" \t") for line in lines for name in line.split(",")}:
        raise Rejected(400, "unknown_subprotocol", f"Offer the subprotocol {SUBPROTOCOL}.")
    return {"headers": {"Sec-WebSocket-Protocol": SUBPROTOCOL}}


def remember(authorizer: dict[str, str], connection_id: str) -> None:
    """Stores who holds the connection, until the ID token expires or two hours have passed, the sooner of them."""
    user_id = authorizer["userId"]
    removed_at = min(int(authorizer["exp"]), int(time.time()) + MAX_CONNECTION_SECONDS)
    own = place(connection_id, removed_at)
    take_place(user_id, own)
    try:
        connections.put_item(Item={"connectionId": connection_id, "userId": user_id, "removedAt": removed_at})
    except Exception:
        free_places(user_id, {own})
        raise
    logger.info("connected", extra={"sub": user_id, "connectionId": connection_id})


def forget(event: Event, connection_id: str) -> None:
    row = connections.delete_item(Key={"connectionId": connection_id}, ReturnValues="ALL_OLD").get("Attributes")
    if row:
        free_places(row["userId"], {place(connection_id, row["removedAt"])})
    elif user_id := event["requestContext"].get("authorizer", {}).get("userId"):
        free_places(user_id, taken_places(user_id, connection_id))
    logger.info("disconnected", extra={"connectionId": connection_id})


def place(connection_id: str, until: int) -> str:
    return f"{until} {connection_id}"


def take_place(user_id: str, own: str) -> None:
    """Counts the connection as one of its user's; DynamoDB decides, so two at once cannot both be the last.

    A place whose time is over is free: `$disconnect` is not sent for every connection's end. One that is ours already
    was taken by a call whose answer was lost, which the SDK then repeats.

    Raises:
        Rejected: the user has no place left.
    """
    if not MAX_CONNECTIONS:
        return
    try:
        users.update_item(
            Key={"userId": user_id},
            UpdateExpression="ADD places :own SET removedAt = :until",
            ConditionExpression="attribute_not_exists(places) OR size(places) < :max OR contains(places, :mine)",
            ExpressionAttributeValues={
                ":own": {own},
                ":mine": own,
                ":max": MAX_CONNECTIONS,
                ":until": int(time.time()) + MAX_CONNECTION_SECONDS,
            },
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except users.meta.client.exceptions.ConditionalCheckFailedException as full:
        over = {each for each in full.response["Item"]["places"]["SS"] if is_over(each)}
        if not over:
            message = f"You have {MAX_CONNECTIONS} connections, which is as many as there may be."
            raise Rejected(429, "too_many_connections", message) from None
        free_places(user_id, over)
        take_place(user_id, own)


def taken_places(user_id: str, connection_id: str) -> set[str]:
    """Those of the connection, whose row is gone: a push that met a peer that has left was faster than `$disconnect`."""
    if not MAX_CONNECTIONS:
        return set()
    row = users.get_item(Key={"userId": user_id}, ConsistentRead=True).get("Item", {})
    return {each for each in row.get("places", ()) if each.endswith(f" {connection_id}")}


def free_places(user_id: str, places: set[str]) -> None:
    if MAX_CONNECTIONS and places:
        users.update_item(
            Key={"userId": user_id},
            UpdateExpression="DELETE places :places",
            ExpressionAttributeValues={":places": places},
        )


def is_over(place: str) -> bool:
    return int(place.partition(" ")[0]) <= time.time()


def serve(event: Event, connection_id: str) -> None:
    """Answer a message, or close the connection if the token that opened it has expired."""
    try:
        if has_expired(event):
            logger.info("token expired", extra={"connectionId": connection_id})
            post(connection_id, json.dumps(EXPIRED))
            management.delete_connection(ConnectionId=connection_id)  # `$disconnect` follows and deletes the row
        else:
            post(connection_id, reply(event))
    except management.exceptions.GoneException:  # the client closed the connection first
        forget(event, connection_id)


def reply(event: Event) -> str:
    """Return the answer to a keep-alive, the echo of a message, or an error if the message is too large."""
    if event["requestContext"]["routeKey"] == "keepalive":
        return json.dumps(KEEPALIVE)
    body = event.get("body") or ""
    echo = json.dumps({"message": body}, ensure_ascii=False)
    if len(body.encode()) > MAX_MESSAGE_BYTES or len(echo.encode()) > MAX_POST_BYTES:
        return json.dumps(TOO_LARGE)
    return echo


def has_expired(event: Event) -> bool:
    """Of the token; `$connect` lets nobody in without an `exp`."""
    exp = event["requestContext"].get("authorizer", {}).get("exp")
    return exp is not None and int(exp) <= time.time()


def post(connection_id: str, message: str) -> None:
    management.post_to_connection(ConnectionId=connection_id, Data=message.encode())


def variable(name: str, default: str | None = None) -> str:
    """The environment variable's value; RuntimeError names it if it is missing without a default."""
    value = os.environ.get(name) or default
    if value is None:
        raise RuntimeError(f"environment variable {name} is required")
    return value


def number(name: str, default: int) -> int:
    """The environment variable's value; RuntimeError names it if it is no number."""
    value = variable(name, str(default))
    if not re.fullmatch(r"\d{1,6}", value):
        raise RuntimeError(f"environment variable {name} is malformed, it must be a number")
    return int(value)


# Init phase, once in an execution environment: no call is made, connections are opened on first use and kept alive.
CONFIG = Config(tcp_keepalive=True, connect_timeout=1, read_timeout=5, retries={"mode": "standard"})
MAX_MESSAGE_BYTES = number("MAX_MESSAGE_BYTES", 64 * 1024)
MAX_CONNECTIONS = number("MAX_CONNECTIONS_PER_USER", 0)  # 0: as many as they like
session = boto3.Session(region_name=os.environ.get("AWS_REGION"))  # by itself it reads AWS_DEFAULT_REGION only
dynamodb = session.resource("dynamodb", config=CONFIG)
connections = dynamodb.Table(variable("CONNECTION_TABLE_NAME"))
users: Any = dynamodb.Table(variable("USER_TABLE_NAME")) if MAX_CONNECTIONS else None
management = session.client(
    "apigatewaymanagementapi",
    endpoint_url=os.environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI") or variable("CALLBACK_URL"),
    config=CONFIG,
)
