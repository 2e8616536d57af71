"""The local AWS: the ministack process, and the template's resources in it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.aws import ministack as local_aws
from local.aws.account import Account
from local.aws.ministack import LocalAws
from local.aws.resources import CreatedResources, create_resources
from local.aws.users import Users
from local.cloudformation.template import Template
from local.errors import CommandError, LaunchError, TemplateError
from tests.fixtures.gateway import PATIENCE_SECONDS
from tests.fixtures.processes import find_descendants, find_running

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito")

PASSWORD = "correct-Horse-battery-1"
RESOURCES: dict[str, dict[str, Any]] = {
    "Users": {
        "Type": "AWS::Cognito::UserPool",
        "Properties": {"UserPoolName": "users", "UsernameAttributes": ["email"]},
    },
    "Page": {
        "Type": "AWS::Cognito::UserPoolClient",
        "Properties": {"UserPoolId": {"Ref": "Users"}, "ExplicitAuthFlows": ["ALLOW_USER_SRP_AUTH"]},
    },
    "Connections": {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "KeySchema": [{"AttributeName": "connectionId", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "connectionId", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
            "TimeToLiveSpecification": {"AttributeName": "removedAt", "Enabled": True},
        },
    },
}


def template(folder: Path, resources: dict[str, dict[str, Any]]) -> Template:
    path = folder / "Chat.template.json"
    path.write_text(json.dumps({"Resources": resources}))
    return Template.read(path)


@pytest.fixture(scope="module")
def created(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> CreatedResources:
    return create_resources(template(tmp_path_factory.mktemp("template"), RESOURCES), aws)


# Resources


def test_created_resources_have_their_own_ids(aws: LocalAws, created: CreatedResources) -> None:
    pool, app_client = created.physical_ids["Users"], created.physical_ids["Page"]

    described = aws.client("cognito-idp").describe_user_pool_client(UserPoolId=pool, ClientId=app_client)

    assert pool.startswith("us-east-1_")
    assert described["UserPoolClient"]["ExplicitAuthFlows"] == ["ALLOW_USER_SRP_AUTH"]


def test_table_has_the_time_to_live_of_the_template(aws: LocalAws, created: CreatedResources) -> None:
    table = created.physical_ids["Connections"]

    found = aws.client("dynamodb").describe_time_to_live(TableName=table)["TimeToLiveDescription"]

    assert (table, found["AttributeName"]) == ("Chat-Connections", "removedAt")
    assert created.expiring == {table: "removedAt"}


@pytest.mark.parametrize("specification", [None, {"AttributeName": "removedAt", "Enabled": False}], ids=["none", "off"])
def test_table_without_a_time_to_live_deletes_nothing(
    aws: LocalAws, tmp_path: Path, specification: dict[str, Any] | None
) -> None:
    properties = {**RESOURCES["Connections"]["Properties"], "TableName": f"lasting-{specification is None}"}
    properties["TimeToLiveSpecification"] = specification
    kept = {name: value for name, value in properties.items() if value is not None}

    resources = {"Lasting": {"Type": "AWS::DynamoDB::Table", "Properties": kept}}
    assert create_resources(template(tmp_path, resources), aws).expiring == {}


def test_user_signs_in_with_the_right_password_only(aws: LocalAws, created: CreatedResources) -> None:
    users = Users(aws.url, created.physical_ids["Users"], created.physical_ids["Page"])
    users.add("ada@example.com", PASSWORD)

    assert users.get_id_token("ada@example.com", PASSWORD).count(".") == 2
    with pytest.raises(CommandError, match="Incorrect username or password"):
        users.get_id_token("ada@example.com", "wrong-Horse-battery-1")


def test_caller_with_other_keys_is_refused(aws: LocalAws) -> None:
    keys: dict[str, Any] = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "of somebody else"}
    stranger = boto3.client("dynamodb", endpoint_url=aws.url, region_name="us-east-1", **keys)

    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        stranger.list_tables()


@pytest.mark.parametrize(
    ("logical_id", "properties", "message"),
    [
        ("Page", {"UserPoolId": "us-east-1_NoSuch000"}, "Page: User pool us-east-1_NoSuch000 does not exist."),
        (
            "Users",
            {"MfaConfiguration": "ON"},
            "Users: MfaConfiguration ON needs a second factor, which users do not have",
        ),
        (
            "Connections",
            {"BillingMode": "PROVISIONED", "TableName": "provisioned"},
            "Connections: One or more parameter values were invalid: ProvisionedThroughput must be specified",
        ),
    ],
)
def test_error_of_a_refused_property_names_the_resource(
    aws: LocalAws, tmp_path: Path, logical_id: str, properties: dict[str, Any], message: str
) -> None:
    resource = RESOURCES[logical_id]
    broken = {**resource, "Properties": resource["Properties"] | properties}
    refused = template(tmp_path, {"Users": RESOURCES["Users"], logical_id: broken})

    with pytest.raises(TemplateError) as error:
        create_resources(refused, aws)

    assert str(error.value).startswith(message)


# As the CDK writes it for ordinary options: encryption, recovery, streams, insights, tags, second factors.
TABLE_OPTIONS = {
    "SSESpecification": {"SSEEnabled": "true", "SSEType": "KMS", "KMSMasterKeyId": {"Fn::ImportValue": "key"}},
    "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    "StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
    "ContributorInsightsSpecification": {"Enabled": True},
    "TableClass": "STANDARD_INFREQUENT_ACCESS",
    "Tags": [{"Key": "team", "Value": "chat"}],
    "DeletionProtectionEnabled": "true",
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "byConnection",
            "KeySchema": [{"AttributeName": "connectionId", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
            "ContributorInsightsSpecification": {"Enabled": True},
        }
    ],
}
USER_POOL_OPTIONS = {
    "MfaConfiguration": "OPTIONAL",
    "EnabledMfas": ["SOFTWARE_TOKEN_MFA"],
    "UserPoolTags": {"team": "chat"},
    "UserPoolTier": "ESSENTIALS",
    "Policies": {"PasswordPolicy": {"MinimumLength": "12"}},
    "Schema": [
        {"Name": "email", "Required": "true", "Mutable": "true"},
        {"Name": "tenant", "AttributeDataType": "String"},
    ],
    "AccountRecoverySetting": {"RecoveryMechanisms": [{"Name": "verified_email", "Priority": "1"}]},
    "DeviceConfiguration": {"ChallengeRequiredOnNewDevice": "true"},
    "LambdaConfig": {},
}


def test_ordinary_options_are_translated_or_left_out(aws: LocalAws, tmp_path: Path) -> None:
    table = RESOURCES["Connections"]["Properties"]
    replicas = [{"Region": {"Ref": "AWS::Region"}, "PointInTimeRecoverySpecification": {}, "Tags": []}]
    resources = {
        "Users": {"Type": "AWS::Cognito::UserPool", "Properties": USER_POOL_OPTIONS},
        "Page": {
            "Type": "AWS::Cognito::UserPoolClient",
            "Properties": {"UserPoolId": {"Ref": "Users"}, "GenerateSecret": "true", "IdTokenValidity": "5"},
        },
        "Staff": {"Type": "AWS::Cognito::UserPoolGroup", "Properties": {"UserPoolId": {"Ref": "Users"}}},
        "Rich": {"Type": "AWS::DynamoDB::Table", "Properties": {**table, **TABLE_OPTIONS, "TableName": "rich"}},
        "World": {
            "Type": "AWS::DynamoDB::GlobalTable",
            "Properties": {**table, "BillingMode": "PROVISIONED", "TableName": "world", "Replicas": replicas},
        },
    }

    read = template(tmp_path, resources)
    created = create_resources(read, aws)

    ids = created.physical_ids
    cognito, dynamodb = aws.client("cognito-idp"), aws.client("dynamodb")
    pool = cognito.describe_user_pool(UserPoolId=ids["Users"])["UserPool"]
    client = cognito.describe_user_pool_client(UserPoolId=ids["Users"], ClientId=ids["Page"])["UserPoolClient"]
    (group,) = cognito.list_groups(UserPoolId=ids["Users"])["Groups"]
    (index,) = dynamodb.describe_table(TableName="rich")["Table"]["GlobalSecondaryIndexes"]
    assert (pool["MfaConfiguration"], pool["Policies"]["PasswordPolicy"]["MinimumLength"]) == ("OPTIONAL", 12)
    assert (client["IdTokenValidity"], len(client["ClientSecret"]) > 0) == (5, True)
    assert (group["GroupName"], index["IndexName"]) == ("Chat-Staff", "byConnection")
    assert created.expiring == {"rich": "removedAt", "world": "removedAt"}
    assert read.read_created_definitions().keys() == ids.keys() == resources.keys()


async def test_resources_of_a_bound_stack_are_those_of_its_account(tmp_path: Path) -> None:
    aws = LocalAws(log=tmp_path / "log")
    aws.account = Account.of("123456789012", "eu-west-1")
    await aws.start()
    try:
        created = await asyncio.to_thread(create_resources, template(tmp_path, RESOURCES), aws)

        users = Users(aws.url, created.physical_ids["Users"], created.physical_ids["Page"])
        users.add("ada@example.com", PASSWORD)
        token = users.get_id_token("ada@example.com", PASSWORD)
        table = aws.client("dynamodb").describe_table(TableName="Chat-Connections")["Table"]
    finally:
        await aws.stop()

    assert created.physical_ids["Users"].startswith("eu-west-1_")
    assert table["TableArn"] == "arn:aws:dynamodb:eu-west-1:123456789012:table/Chat-Connections"
    assert token.count(".") == 2


async def test_another_dynamodb_may_be_used(tmp_path: Path) -> None:
    aws = LocalAws(log=tmp_path / "log", dynamodb_url="http://127.0.0.1:8000")

    urls = [aws.client(service).meta.endpoint_url for service in ("dynamodb", "cognito-idp")]

    await aws.stop()
    assert urls == ["http://127.0.0.1:8000", aws.url]


def test_functions_reach_what_was_started(aws: LocalAws) -> None:
    assert aws.urls == {"cognito-idp": aws.url, "dynamodb": aws.url}


async def test_functions_reach_nothing_that_was_not_started(tmp_path: Path) -> None:
    aws = LocalAws(log=tmp_path / "log", dynamodb_url="http://127.0.0.1:8000")

    urls = aws.urls

    await aws.stop()
    assert urls == {}


# The process


def find_states(folder: Path) -> list[Path]:
    """Return the folders in which ministack keeps its state, including the user pool's private key."""
    return list(folder.glob("local-aws-*"))


async def test_stop_ends_the_process_and_removes_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = find_descendants(os.getpid()).keys()
    aws = LocalAws(log=tmp_path / "log")
    await aws.start()
    processes = find_descendants(os.getpid()).keys() - others
    kept = find_states(tmp_path)

    await aws.stop()

    assert (len(processes), find_running(processes)) == (2, [])  # ministack and its reaper
    assert len(kept) == 1
    assert find_states(tmp_path) == []


def test_state_is_for_its_owner_only(aws: LocalAws) -> None:
    assert aws._state.stat().st_mode & 0o077 == 0


async def fail_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> str:
    """Return the error if this script runs instead of ministack, or for None if nothing is installed."""
    monkeypatch.setattr(local_aws, "ROOT", tmp_path)
    monkeypatch.setattr(local_aws, "VENVS", tmp_path / "venvs")
    if script is not None:
        python = tmp_path / "venvs" / "aws" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    aws = LocalAws(log=tmp_path / "log")
    try:
        with pytest.raises(LaunchError) as error:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await aws.start()
    finally:
        await aws.stop()
    return str(error.value)


async def test_missing_installation_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "run `make setup`" in await fail_to_start(tmp_path, monkeypatch, None)


async def test_process_that_ends_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = await fail_to_start(tmp_path, monkeypatch, "echo out of memory; exit 3")

    assert message == f"the local AWS ended with status 3, see {tmp_path / 'log'}"
    assert (tmp_path / "log").read_text() == "out of memory\n"


async def test_port_that_another_program_took_before_the_start_is_an_error(tmp_path: Path) -> None:
    aws = LocalAws(log=tmp_path / "log")
    with socket.create_server(("127.0.0.1", aws.port)):
        with pytest.raises(LaunchError, match="the local AWS ended with status 1"):
            await aws.start()
        await aws.stop()

    assert f"127.0.0.1:{aws.port} is already in use" in aws.log.read_text()


async def test_process_that_never_answers_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_aws, "START_SECONDS", 0.1)

    assert str(tmp_path / "log") in await fail_to_start(tmp_path, monkeypatch, "exec sleep 600")
