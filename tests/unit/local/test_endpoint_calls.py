"""Which grants a function's call needs before it is passed on to the local AWS."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.aws.endpoint import Grant, UnknownCallError, list_grants

ACCOUNT = "us-east-1:000000000000"
ROWS = f"arn:aws:dynamodb:{ACCOUNT}:table/Rows"
ROOMS = f"arn:aws:dynamodb:{ACCOUNT}:table/Rooms"
POOL = f"arn:aws:cognito-idp:{ACCOUNT}:userpool/"


def list_needed(service: str, operation: str, **parameters: Any) -> list[Grant]:
    return [*list_grants(service, f"Prefix_20120810.{operation}", json.dumps(parameters).encode())]


@pytest.mark.parametrize(
    "operation", ["PutItem", "GetItem", "UpdateItem", "DeleteItem", "Query", "Scan", "CreateTable"]
)
def test_call_of_a_table_needs_its_own_action_on_the_table(operation: str) -> None:
    assert list_needed("dynamodb", operation, TableName="Rows") == [(f"dynamodb:{operation}", ROWS)]


@pytest.mark.parametrize("operation", ["Query", "Scan"])
@pytest.mark.parametrize("table", ["Rows", ROWS])
def test_call_of_an_index_needs_the_action_on_the_index(operation: str, table: str) -> None:
    found = list_needed("dynamodb", operation, TableName=table, IndexName="byUser")

    assert found == [(f"dynamodb:{operation}", f"{ROWS}/index/byUser")]


def test_table_may_be_named_by_its_arn() -> None:
    assert list_needed("dynamodb", "PutItem", TableName=ROWS) == list_needed("dynamodb", "PutItem", TableName="Rows")


@pytest.mark.parametrize("operation", ["BatchGetItem", "BatchWriteItem"])
def test_batch_needs_its_action_on_each_of_its_tables(operation: str) -> None:
    found = list_needed("dynamodb", operation, RequestItems={"Rows": [], ROOMS: []})

    assert found == [(f"dynamodb:{operation}", ROWS), (f"dynamodb:{operation}", ROOMS)]


def test_transaction_needs_the_action_of_each_of_its_items() -> None:
    """https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html."""
    items = [{name: {"TableName": "Rows"}} for name in ("Put", "Update", "Delete")]

    found = list_needed(
        "dynamodb", "TransactWriteItems", TransactItems=[*items, {"ConditionCheck": {"TableName": ROOMS}}]
    )

    operations = ["PutItem", "UpdateItem", "DeleteItem"]
    assert found == [*((f"dynamodb:{each}", ROWS) for each in operations), ("dynamodb:ConditionCheckItem", ROOMS)]


def test_transaction_of_reads_needs_get_item() -> None:
    items = [{"Get": {"TableName": name}} for name in ("Rows", "Rooms")]

    found = list_needed("dynamodb", "TransactGetItems", TransactItems=items)

    assert found == [("dynamodb:GetItem", ROWS), ("dynamodb:GetItem", ROOMS)]


@pytest.mark.parametrize("operation", ["ListTables", "DescribeLimits", "DescribeEndpoints"])
def test_call_of_the_account_needs_its_action_on_everything(operation: str) -> None:
    assert list_needed("dynamodb", operation) == [(f"dynamodb:{operation}", "*")]


def test_call_without_a_body_is_one_without_parameters() -> None:
    assert [*list_grants("dynamodb", "DynamoDB_20120810.ListTables", b"")] == [("dynamodb:ListTables", "*")]


@pytest.mark.parametrize(
    ("operation", "parameters", "resource"),
    [
        ("AdminGetUser", {"UserPoolId": "us-east-1_Example01", "Username": "ada"}, f"{POOL}us-east-1_Example01"),
        ("ListUserPools", {"MaxResults": 5}, "*"),
        ("InitiateAuth", {"ClientId": "1example23456789"}, "*"),
    ],
)
def test_call_of_cognito_needs_its_action_on_the_user_pool(
    operation: str, parameters: dict[str, Any], resource: str
) -> None:
    assert list_needed("cognito-idp", operation, **parameters) == [(f"cognito-idp:{operation}", resource)]


@pytest.mark.parametrize(
    ("service", "target", "body", "named"),
    [
        ("dynamodb", "DynamoDB_20120810.ExecuteStatement", b'{"Statement": "SELECT 1"}', "dynamodb:ExecuteStatement"),
        ("dynamodb", "DynamoDB_20120810.PutItem", b"{}", "dynamodb:PutItem"),
        ("dynamodb", "DynamoDB_20120810.PutItem", b"<xml/>", "not JSON"),
        ("dynamodb", "DynamoDB_20120810.PutItem", b"\xff", "not JSON"),
        ("dynamodb", "DynamoDB_20120810.PutItem", b"[]", "dynamodb"),
        ("dynamodb", "", b"{}", "dynamodb"),
        ("secretsmanager", "secretsmanager.GetSecretValue", b"{}", "secretsmanager"),
    ],
)
def test_call_that_cannot_be_evaluated_is_named(service: str, target: str, body: bytes, named: str) -> None:
    with pytest.raises(UnknownCallError, match=named):
        [*list_grants(service, target, body)]
