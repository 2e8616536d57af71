"""WebSocket function: `$connect` stores who holds the connection, `$disconnect` forgets it, the rest is echoed."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

import boto3
from aws_xray_sdk.core import patch, xray_recorder
from botocore.config import Config

logger = logging.getLogger(__name__)
logging.getLogger("aws_xray_sdk").setLevel(logging.ERROR)  # it warns wherever there is no trace to join
logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells how it found credentials at every cold start
xray_recorder.configure(context_missing="IGNORE_ERROR")
patch(("botocore",))

MAX_CONNECTION_SECONDS = 2 * 60 * 60  # API Gateway ends every connection by then
REMOVAL_MARGIN_SECONDS = 60  # so that the row outlives the connection, not the other way round

Event = dict[str, Any]
Response = dict[str, Any]


def handler(event: Event, context: object) -> Response:
    route_key = event["requestContext"]["routeKey"]
    route = ROUTES.get(route_key, echo)
    route(event, event["requestContext"]["connectionId"])
    return {"statusCode": 200}


def remember(event: Event, connection_id: str) -> None:
    """Stores who holds the connection; it ends with the ID token or after two hours, the sooner of them."""
    authorizer = event["requestContext"]["authorizer"]
    ends_at = min(int(authorizer["exp"]), int(time.time()) + MAX_CONNECTION_SECONDS)
    connections.put_item(
        Item={
            "connectionId": connection_id,
            "userId": authorizer["userId"],
            "removedAt": ends_at + REMOVAL_MARGIN_SECONDS,
        }
    )
    logger.info("connected", extra={"sub": authorizer["userId"], "connectionId": connection_id})


def forget(event: Event, connection_id: str) -> None:
    connections.delete_item(Key={"connectionId": connection_id})
    logger.info("disconnected", extra={"connectionId": connection_id})


def echo(event: Event, connection_id: str) -> None:
    message = json.dumps({"message": event.get("body", "")}, ensure_ascii=False)
    try:
        management.post_to_connection(ConnectionId=connection_id, Data=message.encode())
    except management.exceptions.GoneException:  # the peer left first
        forget(event, connection_id)


ROUTES = {"$connect": remember, "$disconnect": forget}


def required(name: str) -> str:
    """The environment variable's value; RuntimeError names it if it is missing."""
    value = os.environ.get(name)
    if not value:
        raise RuntimeError(f"environment variable {name} is required")
    return value


# Init phase, once in an execution environment: no call is made, connections are opened on first use and kept alive.
CONFIG = Config(tcp_keepalive=True, connect_timeout=1, read_timeout=5, retries={"mode": "standard"})
session = boto3.Session(region_name=os.environ.get("AWS_REGION"))  # by itself it reads AWS_DEFAULT_REGION only
connections = session.resource("dynamodb", config=CONFIG).Table(required("CONNECTION_TABLE_NAME"))
management = session.client(
    "apigatewaymanagementapi",
    endpoint_url=os.environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI") or required("CALLBACK_URL"),
    config=CONFIG,
)
