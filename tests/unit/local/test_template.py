"""What is read from a template: functions, references, and the template of a CDK app."""

from __future__ import annotations

from typing import Any

import pytest

from local.aws.iam import Role
from local.errors import TemplateError
from local.lambda_.function import Function
from tests.fixtures.templates import LAMBDA_ARN, Read, arn, build_resources, function, resource, role

ROOMS, GUARD = f"{LAMBDA_ARN}:Chat-Rooms", f"{LAMBDA_ARN}:Chat-Guard"

# Functions


def test_function_is_read_with_all_its_settings(read: Read) -> None:
    variables = {"TABLE": {"Ref": "Connections"}, "LEVEL": "1"}
    logs = {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "LogGroup": {"Ref": "Log"}}
    settings = {"Timeout": 7, "MemorySize": 512, "Environment": {"Variables": variables}, "LoggingConfig": logs}
    rooms = function("rooms", **settings)

    connections = resource("DynamoDB::Table", KeySchema=[])
    template = read(**build_resources(Rooms=rooms, Connections=connections, Log=resource("Logs::LogGroup")))

    assert template.resolve().functions[ROOMS] == Function(
        "Chat-Rooms",
        ROOMS,
        "rooms",
        environment={"TABLE": "Chat-Connections", "LEVEL": "1"},
        timeout_seconds=7,
        memory_mb=512,
        logging={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "LogGroup": "Chat-Log"},
        role=Role("Chat-Role", ()),
    )


def test_function_has_the_defaults_of_lambda(read: Read) -> None:
    found = read(**build_resources(Rooms=function("rooms"))).resolve().functions[ROOMS]

    assert (found.timeout_seconds, found.memory_mb, found.environment, found.logging) == (3, 128, {}, {})


def test_function_that_the_api_does_not_invoke_is_not_checked(read: Read) -> None:
    report = resource("Lambda::Function", Role=arn("Nowhere"), Layers=["a"])

    assert read(**build_resources(Report=report)).resolve().functions.keys() == {ROOMS, GUARD}


# References


DATA = {"Users": resource("Cognito::UserPool"), "Rows": resource("DynamoDB::Table", TableName="rows")}


def resolve(read: Read, value: object) -> Any:
    template = read(Rooms=function("rooms"), Log=resource("Logs::LogGroup"), Role=role(), **DATA)
    return template.evaluate(value, "Somewhere")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Ref": "Rooms"}, "Chat-Rooms"),
        ({"Ref": "AWS::Region"}, "us-east-1"),
        ({"Ref": "AWS::AccountId"}, "000000000000"),
        ({"Ref": "AWS::Partition"}, "aws"),
        ({"Ref": "AWS::URLSuffix"}, "amazonaws.com"),
        ({"Ref": "AWS::StackName"}, "Chat"),
        ({"Fn::GetAtt": ["Rooms", "Arn"]}, f"{LAMBDA_ARN}:Chat-Rooms"),
        ({"Fn::GetAtt": "Rooms.Arn"}, f"{LAMBDA_ARN}:Chat-Rooms"),
        ({"Fn::GetAtt": ["Role", "Arn"]}, "arn:aws:iam::000000000000:role/Chat-Role"),
        ({"Fn::GetAtt": ["Users", "Arn"]}, "arn:aws:cognito-idp:us-east-1:000000000000:userpool/Chat-Users"),
        ({"Ref": "Rows"}, "rows"),
        ({"Fn::GetAtt": ["Rows", "Arn"]}, "arn:aws:dynamodb:us-east-1:000000000000:table/rows"),
        ({"Fn::GetAtt": ["Log", "Arn"]}, "arn:aws:logs:us-east-1:000000000000:log-group:Chat-Log:*"),
        ({"Fn::Join": ["", ["a", {"Ref": "AWS::Region"}, 1]]}, "aus-east-11"),
        ({"Fn::Join": [", ", [{"Fn::Join": ["-", ["a", "b"]]}, "c"]]}, "a-b, c"),
        ({"Fn::Sub": "${AWS::Region}/${Rooms}/${Rooms.Arn}"}, f"us-east-1/Chat-Rooms/{LAMBDA_ARN}:Chat-Rooms"),
        ({"Fn::Sub": ["${a}-${AWS::Region}", {"a": {"Ref": "Rooms"}}]}, "Chat-Rooms-us-east-1"),
        ({"Fn::Sub": "${!AWS::Region} $request.body.action"}, "${AWS::Region} $request.body.action"),
        ([{"Ref": "Rooms"}, {"a": [{"Ref": "Log"}]}], ["Chat-Rooms", {"a": ["Chat-Log"]}]),
        ({"Ref": "Rooms", "Other": 1}, {"Ref": "Rooms", "Other": 1}),
        ({"plain": None, "number": 1, "yes": True}, {"plain": None, "number": 1, "yes": True}),
        ({}, {}),
    ],
    ids=str,
)
def test_intrinsic_functions_are_evaluated(read: Read, value: object, expected: object) -> None:
    assert resolve(read, value) == expected


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"Ref": "Nowhere"}, "Nowhere"),
        ({"Fn::GetAtt": ["Nowhere", "Arn"]}, "Nowhere"),
        ({"Fn::GetAtt": ["Rooms", "Version"]}, "Rooms.Version"),
        ({"Fn::Sub": "${Nowhere}"}, "Nowhere"),
        ({"Fn::Sub": "${Rooms.Version}"}, "Rooms.Version"),
        ({"Fn::ImportValue": "other"}, "Fn::ImportValue"),
        ({"a": [{"Fn::GetAZs": ""}]}, "Fn::GetAZs"),
    ],
    ids=str,
)
def test_error_names_the_value_that_cannot_be_evaluated_and_its_place(read: Read, value: object, named: str) -> None:
    with pytest.raises(TemplateError) as error:
        resolve(read, value)

    assert named in str(error.value)
    assert str(error.value).startswith("Somewhere: ")


def test_id_of_a_created_resource_replaces_the_generated_one(read: Read) -> None:
    template = read(
        **build_resources(
            Users=resource("Cognito::UserPool"),
            Guard=function("g", Environment={"Variables": {"POOL": {"Ref": "Users"}}}),
        )
    )

    stack = template.with_physical_ids({"Users": "us-east-1_AbCdEf123"}).resolve()

    assert stack.functions[GUARD].environment == {"POOL": "us-east-1_AbCdEf123"}
    assert stack.find_first("AWS::Cognito::UserPool") == "us-east-1_AbCdEf123"
