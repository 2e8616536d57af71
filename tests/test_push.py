"""The README's code for pushing to a user, run as it stands there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from local.aws.ministack import LocalAws
from tests.conftest import CALLBACK_URL, NOW, ROOT

TABLE = "connections"
HANDSHAKE_SECONDS = 30
LATER = NOW + 86400

Push = Callable[[str, bytes], None]


def readme_push(dynamodb: Any, management: Any, clock: Callable[[], float] = time.time) -> Push:
    """Return the README's function with these clients, at this time."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {
        "dynamodb": dynamodb,
        "management": management,
        "connection_table_name": TABLE,
        "suppress": suppress,
        "time": SimpleNamespace(time=clock),
    }
    exec(code, names)  # noqa: S102 - our own README
    push: Push = names["push"]
    return push


def stubbed(service: str, **options: str) -> Iterator[Any]:
    client = boto3.client(service, "us-east-1", aws_access_key_id="x", aws_secret_access_key="x", **options)
    with Stubber(client) as stubber:
        client.stubber = stubber
        yield client
        stubber.assert_no_pending_responses()


@pytest.fixture
def dynamodb() -> Iterator[Any]:
    yield from stubbed("dynamodb")


@pytest.fixture
def management() -> Iterator[Any]:
    yield from stubbed("apigatewaymanagementapi", endpoint_url=CALLBACK_URL)


@pytest.fixture
def push(dynamodb: Any, management: Any) -> Push:
    return readme_push(dynamodb, management, lambda: NOW + 0.9)


def add_rows(dynamodb: Any, *rows: tuple[str, int], more: str | None = None, after: str | None = None) -> None:
    """Add a page of the index: connections, when they end, and where the next page begins."""
    query = {
        "TableName": TABLE,
        "IndexName": "userIdIndex",
        "KeyConditionExpression": "userId = :user",
        "ExpressionAttributeValues": {":user": {"S": "ada"}},
    }
    items = [{"connectionId": {"S": name}, "userId": {"S": "ada"}, "removedAt": {"N": str(end)}} for name, end in rows]
    page = {"Items": items} | ({"LastEvaluatedKey": {"connectionId": {"S": more}}} if more else {})
    start = {"ExclusiveStartKey": {"connectionId": {"S": after}}} if after else {}
    dynamodb.stubber.add_response("query", page, query | start)


def expect_post(management: Any, connection_id: str) -> None:
    management.stubber.add_response("post_to_connection", {}, {"ConnectionId": connection_id, "Data": b"news"})


def answer_410(management: Any, operation: str = "post_to_connection") -> None:
    management.stubber.add_client_error(operation, "GoneException", http_status_code=410)


def test_every_connection_of_the_user_gets_the_message(push: Push, dynamodb: Any, management: Any) -> None:
    add_rows(dynamodb, ("phone", LATER), more="phone")
    add_rows(dynamodb, ("laptop", LATER), after="phone")
    expect_post(management, "phone")
    expect_post(management, "laptop")

    push("ada", b"news")


@pytest.mark.parametrize("removed_at", [NOW, NOW - 1])
def test_connection_whose_token_has_expired_is_closed_instead(
    push: Push, dynamodb: Any, management: Any, removed_at: int
) -> None:
    add_rows(dynamodb, ("phone", removed_at))
    management.stubber.add_response("delete_connection", {}, {"ConnectionId": "phone"})

    push("ada", b"news")


CALLS = pytest.mark.parametrize(
    ("operation", "removed_at"),
    [("post_to_connection", LATER), ("delete_connection", NOW - 1)],
    ids=["open", "expired"],
)


@CALLS
def test_connection_that_got_410_is_deleted_and_the_next_one_reached(
    push: Push, dynamodb: Any, management: Any, operation: str, removed_at: int
) -> None:
    add_rows(dynamodb, ("phone", removed_at), ("laptop", LATER))
    answer_410(management, operation)
    dynamodb.stubber.add_response(
        "delete_item",
        {},
        {
            "TableName": TABLE,
            "Key": {"connectionId": {"S": "phone"}},
            "ConditionExpression": "attribute_not_exists(connectedAt) OR connectedAt < :latest",
            "ExpressionAttributeValues": {":latest": {"N": str(NOW - HANDSHAKE_SECONDS)}},
        },
    )
    expect_post(management, "laptop")

    push("ada", b"news")


@CALLS
def test_young_connection_that_got_410_is_kept_and_the_next_one_reached(
    push: Push, dynamodb: Any, management: Any, operation: str, removed_at: int
) -> None:
    add_rows(dynamodb, ("phone", removed_at), ("laptop", LATER))
    answer_410(management, operation)
    dynamodb.stubber.add_client_error("delete_item", "ConditionalCheckFailedException", http_status_code=400)
    expect_post(management, "laptop")

    push("ada", b"news")


def test_connection_that_got_410_and_cannot_be_deleted_is_an_error(push: Push, dynamodb: Any, management: Any) -> None:
    add_rows(dynamodb, ("phone", LATER))
    answer_410(management)
    dynamodb.stubber.add_client_error("delete_item", "AccessDeniedException", http_status_code=400)

    with pytest.raises(ClientError, match="AccessDeniedException"):
        push("ada", b"news")


@pytest.mark.parametrize(
    ("connected_at", "kept"),
    [(NOW, True), (NOW - HANDSHAKE_SECONDS, True), (NOW - HANDSHAKE_SECONDS - 1, False), (None, False)],
    ids=["now", "30 s ago", "31 s ago", "stored by an earlier version"],
)
def test_row_of_a_connection_that_got_410_is_kept_for_30_seconds(
    database: LocalAws, management: Any, connected_at: int | None, kept: bool
) -> None:
    dynamodb = database.client("dynamodb")
    key = {"connectionId": {"S": f"connected at {connected_at}"}}
    row = {**key, "userId": {"S": f"user of {key}"}, "removedAt": {"N": str(LATER)}}
    if connected_at is not None:
        row["connectedAt"] = {"N": str(connected_at)}
    dynamodb.put_item(TableName=TABLE, Item=row)
    answer_410(management)

    readme_push(dynamodb, management, lambda: NOW + 0.9)(row["userId"]["S"], b"news")

    assert ("Item" in dynamodb.get_item(TableName=TABLE, Key=key)) is kept
