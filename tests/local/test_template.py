"""What is read from a synthesized template, and what is refused because it could only be run wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.aws.iam import Role
from local.cloudformation.synthesis import synthesize
from local.errors import TemplateError
from local.lambda_.function import Function
from tests.local.conftest import Read
from tests.local.parts import (
    LAMBDA_ARN,
    Resource,
    authorizer,
    function,
    integration,
    parts,
    resource,
    role,
    route,
    stage,
)

# Functions


def test_function_is_read_with_all_its_settings(read: Read) -> None:
    variables = {"TABLE": {"Ref": "Connections"}, "LEVEL": "1"}
    logs = {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "LogGroup": {"Ref": "Log"}}
    settings = {"Timeout": 7, "MemorySize": 512, "Environment": {"Variables": variables}, "LoggingConfig": logs}
    rooms = function("rooms", **settings)

    template = read(Rooms=rooms, Role=role(), Connections=resource("DynamoDB::Table"), Log=resource("Logs::LogGroup"))

    (found,) = template.functions().values()
    assert found == Function(
        "Chat-Rooms",
        f"{LAMBDA_ARN}:Chat-Rooms",
        "rooms",
        environment={"TABLE": "Chat-Connections", "LEVEL": "1"},
        timeout_seconds=7,
        memory_mb=512,
        logging={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "LogGroup": "Chat-Log"},
        role=Role("Chat-Role", ()),
    )


def test_function_has_the_defaults_of_lambda(read: Read) -> None:
    (found,) = read(Rooms=function("rooms"), Role=role()).functions().values()

    assert (found.timeout_seconds, found.memory_mb, found.environment, found.logging) == (3, 128, {}, {})


def test_function_without_a_bake_target_is_named(read: Read) -> None:
    with pytest.raises(TemplateError, match="Rooms: metadata BakeTarget is missing"):
        read(Rooms=resource("Lambda::Function")).functions()


# References


DATA = {"Users": resource("Cognito::UserPool"), "Rows": resource("DynamoDB::Table", TableName="rows")}


def resolved(read: Read, value: object) -> Any:
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
    assert resolved(read, value) == expected


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"Ref": "Nowhere"}, "Nowhere"),
        ({"Ref": "AWS::StackName"}, "AWS::StackName"),
        ({"Fn::GetAtt": ["Nowhere", "Arn"]}, "Nowhere"),
        ({"Fn::GetAtt": ["Rooms", "Version"]}, "Rooms.Version"),
        ({"Fn::Sub": "${Nowhere}"}, "Nowhere"),
        ({"Fn::Sub": "${Rooms.Version}"}, "Rooms.Version"),
        ({"Fn::ImportValue": "other"}, "Fn::ImportValue"),
        ({"Fn::If": ["Cond", 1, 2]}, "Fn::If"),
        ({"a": [{"Fn::Select": [0, ["x"]]}]}, "Fn::Select"),
        ({"Condition": "Cond"}, "Condition"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_named_with_its_place(read: Read, value: object, named: str) -> None:
    with pytest.raises(TemplateError) as error:
        resolved(read, value)

    assert named in str(error.value)
    assert str(error.value).startswith("Somewhere: ")


def test_id_of_a_real_resource_replaces_the_made_up_one(read: Read) -> None:
    template = read(
        Users=resource("Cognito::UserPool"),
        Role=role(),
        Guard=function("g", Environment={"Variables": {"P": {"Ref": "Users"}}}),
    )

    template.physical_ids["Users"] = "us-east-1_AbCdEf123"

    (guard,) = template.functions().values()
    assert guard.environment == {"P": "us-east-1_AbCdEf123"}


# What would be run wrong


@pytest.mark.parametrize("type_", ["AWS::ApiGatewayV2::IntegrationResponse", "AWS::SQS::Queue", "Custom::Thing"])
def test_resource_of_an_unknown_type_is_named(read: Read, type_: str) -> None:
    with pytest.raises(TemplateError, match=f"^Extra: {type_} "):
        read(**parts(Extra={"Type": type_}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"Second": resource("ApiGatewayV2::Api", ProtocolType="WEBSOCKET")}, "2 APIs and 1 stage"),
        ({"Second": resource("ApiGatewayV2::Stage", StageName="b")}, "1 APIs and 2 stages"),
        (
            {"Join": route("j", "ToRooms", AuthorizationType="CUSTOM", AuthorizerId={"Ref": "Door"})},
            "Join: only $connect",
        ),
        ({"Socket": resource("ApiGatewayV2::Api", ProtocolType="HTTP")}, "Socket: ProtocolType"),
        ({"Join": route("j", "ToRooms", AuthorizationType="AWS_IAM")}, "Join: AuthorizationType AWS_IAM"),
        ({"ToRooms": integration("Rooms", IntegrationType="MOCK")}, "IntegrationType MOCK"),
        ({"ToRooms": integration("Rooms", IntegrationUri="https://example.com")}, "https://example.com"),
        ({"Join": route("j", "Rooms")}, "Chat-Rooms is no AWS::ApiGatewayV2::Integration"),
        (
            {"Connect": route("$connect", "ToRooms", AuthorizationType="CUSTOM", AuthorizerId={"Ref": "Rooms"})},
            "Chat-Rooms is no AWS::ApiGatewayV2::Authorizer",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_api_that_cannot_be_run_is_refused_by_name(read: Read, changes: dict[str, Resource], named: str) -> None:
    with pytest.raises(TemplateError) as error:
        read(**parts(**changes)).api()

    assert named in str(error.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"Connect": route("$connect", "ToRooms", ApiKeyRequired=True)}, "ApiKeyRequired"),
        (
            {"Connect": route("$connect", "ToRooms", ModelSelectionExpression="$request.body.a")},
            "ModelSelectionExpression",
        ),
        ({"Beta": stage(ClientCertificateId="abc")}, "ClientCertificateId"),
        ({"Beta": stage(DefaultRouteSettings={"NoSuchSetting": 1})}, "Beta: NoSuchSetting"),
        ({"Beta": stage(RouteSettings={"joinRoom": {"NoSuchSetting": 1}})}, "Beta: NoSuchSetting"),
        ({"Beta": stage(RouteSettings={"joinRoon": {}})}, "Beta: RouteSettings has joinRoon, which is no route"),
        ({"ToRooms": integration("Rooms", RequestTemplates={"x": "y"})}, "RequestTemplates"),
        ({"ToRooms": integration("Rooms", ContentHandlingStrategy="CONVERT_TO_BINARY")}, "ContentHandlingStrategy"),
        ({"Door": authorizer(AuthorizerType="JWT")}, "JWT"),
        ({"Join": {**route("joinRoom", "ToRooms"), "Condition": "InProduction"}}, "Condition"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_property_that_would_change_the_behaviour_is_never_dropped(
    read: Read, changes: dict[str, Resource], named: str
) -> None:
    with pytest.raises(TemplateError) as error:
        read(**parts(**changes)).api()

    assert named in str(error.value)


# Synthesis


@pytest.fixture
def app(tmp_path: Path) -> Callable[[str], Path]:
    """A folder whose cdk.json runs this shell script."""

    def written(script: str) -> Path:
        (tmp_path / "app.sh").write_text(script)
        (tmp_path / "cdk.json").write_text(json.dumps({"app": "sh app.sh", "context": {"removalPolicy": "destroy"}}))
        return tmp_path

    return written


def test_synthesis_runs_the_app_as_the_cdk_would(app: Callable[[str], Path]) -> None:
    root = app('mkdir -p "$CDK_OUTDIR" && printf %s "$CDK_CONTEXT_JSON" > "$CDK_OUTDIR/Chat.template.json"')

    path = synthesize(root, root / "out")

    assert path == root / "out" / "Chat.template.json"
    assert json.loads(path.read_text()) == {"removalPolicy": "destroy"}


def test_failed_synthesis_tells_the_apps_last_words(app: Callable[[str], Path]) -> None:
    root = app("echo context removalPolicy must be one of destroy, retain >&2; exit 1")

    with pytest.raises(TemplateError) as error:
        synthesize(root, root / "out")

    assert str(error.value) == "sh app.sh failed:\ncontext removalPolicy must be one of destroy, retain"
