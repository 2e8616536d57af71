"""The README's code for pushing to a user, run as it stands there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from tests.conftest import ROOT

TABLE = "connections"
TIME = int(time.time())  # of the beginning of all tests


@pytest.fixture
def dynamodb() -> Iterator[Any]:
    client = boto3.client("dynamodb", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stubber:
        client.stubber = stubber
        yield client
        stubber.assert_no_pending_responses()


@pytest.fixture
def management() -> Iterator[Any]:
    client = boto3.client(
        "apigatewaymanagementapi",
        "us-east-1",
        endpoint_url="https://api.invalid",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    with Stubber(client) as stubber:
        client.stubber = stubber
        yield client
        stubber.assert_no_pending_responses()


@pytest.fixture
def push(dynamodb: Any, management: Any) -> Callable[[str, bytes], None]:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {"dynamodb": dynamodb, "management": management, "time": time, "connection_table_name": TABLE}
    exec(code, names)  # noqa: S102 - our own README
    function: Callable[[str, bytes], None] = names["push"]
    return function


def found(dynamodb: Any, *rows: tuple[str, int], more: str | None = None, after: str | None = None) -> None:
    """What the index answers: connections and when they end, and where its next page begins."""
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


def forgets(dynamodb: Any, connection_id: str) -> None:
    dynamodb.stubber.add_response(
        "delete_item", {}, {"TableName": TABLE, "Key": {"connectionId": {"S": connection_id}}}
    )


def gets(management: Any, connection_id: str) -> None:
    management.stubber.add_response("post_to_connection", {}, {"ConnectionId": connection_id, "Data": b"news"})


def test_every_connection_of_the_user_gets_the_message(
    push: Callable[[str, bytes], None], dynamodb: Any, management: Any
) -> None:
    found(dynamodb, ("phone", TIME + 86400), more="phone")
    found(dynamodb, ("laptop", TIME + 86400), after="phone")
    gets(management, "phone")
    gets(management, "laptop")

    push("ada", b"news")


def test_connection_whose_token_has_expired_is_closed_instead(
    push: Callable[[str, bytes], None], dynamodb: Any, management: Any
) -> None:
    found(dynamodb, ("phone", TIME - 1))
    management.stubber.add_response("delete_connection", {}, {"ConnectionId": "phone"})

    push("ada", b"news")


@pytest.mark.parametrize(
    ("operation", "ends_at"),
    [("post_to_connection", TIME + 86400), ("delete_connection", TIME - 1)],
    ids=["open", "expired"],
)
def test_connection_that_is_gone_is_forgotten_and_the_next_one_reached(
    push: Callable[[str, bytes], None], dynamodb: Any, management: Any, operation: str, ends_at: int
) -> None:
    found(dynamodb, ("phone", ends_at), ("laptop", TIME + 86400))
    management.stubber.add_client_error(operation, "GoneException", http_status_code=410)
    forgets(dynamodb, "phone")
    gets(management, "laptop")

    push("ada", b"news")
