"""What is read from a synthesized template, and what is refused because it could only be run wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.template import Authorizer, Function, Route, Template, TemplateError, synthesize

Resource = dict[str, Any]
Read = Callable[..., Template]

LAMBDA_ARN = "arn:aws:lambda:us-east-1:000000000000:function"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a template file `Chat` with these resources."""

    def written(**resources: Resource) -> Template:
        path = tmp_path / "Chat.template.json"
        path.write_text(json.dumps({"Resources": resources}))
        return Template.read(path)

    return written


def resource(type_: str, **properties: object) -> Resource:
    return {"Type": f"AWS::{type_}", "Properties": properties}


def function(target: str, **properties: object) -> Resource:
    return {**resource("Lambda::Function", **properties), "Metadata": {"BakeTarget": target}}


def invocation(logical_id: str) -> Resource:
    """The URI by which API Gateway invokes a function of the template."""
    path = "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions"
    return {"Fn::Sub": f"{path}/${{{logical_id}.Arn}}/invocations"}


def integration(logical_id: str, **changes: object) -> Resource:
    properties = {"IntegrationType": "AWS_PROXY", "IntegrationUri": invocation(logical_id)}
    return resource("ApiGatewayV2::Integration", **properties | changes)


def route(key: str, integration: str, **more: object) -> Resource:
    target = {"Fn::Join": ["/", ["integrations", {"Ref": integration}]]}
    return resource("ApiGatewayV2::Route", RouteKey=key, Target=target, **more)


def authorizer(**changes: object) -> Resource:
    properties = {"AuthorizerType": "REQUEST", "AuthorizerUri": invocation("Guard")}
    return resource("ApiGatewayV2::Authorizer", **properties | changes)


def parts(**changes: Resource) -> dict[str, Resource]:
    """An API of somebody else: two functions, two identity sources, routes of their own, no `$default`."""
    guarded = {"AuthorizationType": "CUSTOM", "AuthorizerId": {"Ref": "Door"}}
    return {
        "Socket": resource(
            "ApiGatewayV2::Api", ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.service.do"
        ),
        "Beta": resource("ApiGatewayV2::Stage", StageName="beta", ApiId={"Ref": "Socket"}),
        "Guard": function("guard"),
        "Rooms": function("rooms", Timeout=7),
        "Door": authorizer(IdentitySource=["route.request.header.Auth", "route.request.querystring.room"]),
        "ToRooms": integration("Rooms"),
        "ToGuard": integration("Guard"),
        "Connect": route("$connect", "ToRooms", **guarded),
        "Join": route("joinRoom", "ToRooms", AuthorizationType="NONE"),
        "Report": route("report", "ToGuard"),
        **changes,
    }


# The API


def test_every_route_leads_to_its_function(read: Read) -> None:
    routes = read(**parts()).api().routes

    guard = Authorizer(f"{LAMBDA_ARN}:Chat-Guard", ("route.request.header.Auth", "route.request.querystring.room"))
    assert routes == {
        "$connect": Route("$connect", f"{LAMBDA_ARN}:Chat-Rooms", guard),
        "joinRoom": Route("joinRoom", f"{LAMBDA_ARN}:Chat-Rooms", None),
        "report": Route("report", f"{LAMBDA_ARN}:Chat-Guard", None),
    }


def test_api_is_reached_by_its_stage_and_its_own_id(read: Read) -> None:
    api = read(**parts()).api()

    assert (api.stage, api.route_selection_expression) == ("beta", "$request.body.service.do")
    assert api.domain_name == f"{api.id}.execute-api.us-east-1.amazonaws.com"
    assert api.arn == f"arn:aws:execute-api:us-east-1:000000000000:{api.id}/beta"


def test_api_needs_no_connect_route(read: Read) -> None:
    without = {name: part for name, part in parts().items() if name not in {"Connect", "Door"}}

    assert read(**without).api().routes.keys() == {"joinRoom", "report"}


def test_messages_are_routed_by_their_action_unless_the_api_says_otherwise(read: Read) -> None:
    api = read(**parts(Socket=resource("ApiGatewayV2::Api", ProtocolType="WEBSOCKET"))).api()

    assert api.route_selection_expression == "$request.body.action"


def test_authorizer_may_have_no_identity_source(read: Read) -> None:
    route = read(**parts(Door=authorizer())).api().routes["$connect"]

    assert route.authorizer == Authorizer(f"{LAMBDA_ARN}:Chat-Guard", ())


# Functions


def test_function_is_read_with_all_its_settings(read: Read) -> None:
    variables = {"TABLE": {"Ref": "Connections"}, "LEVEL": "1"}
    logs = {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "LogGroup": {"Ref": "Log"}}
    settings = {"Timeout": 7, "MemorySize": 512, "Environment": {"Variables": variables}, "LoggingConfig": logs}
    rooms = function("rooms", **settings)

    template = read(Rooms=rooms, Connections=resource("DynamoDB::Table"), Log=resource("Logs::LogGroup"))

    (found,) = template.functions().values()
    assert found == Function(
        "Chat-Rooms",
        f"{LAMBDA_ARN}:Chat-Rooms",
        "rooms",
        environment={"TABLE": "Chat-Connections", "LEVEL": "1"},
        timeout_seconds=7,
        memory_mb=512,
        logging={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "LogGroup": "Chat-Log"},
    )


def test_function_has_the_defaults_of_lambda(read: Read) -> None:
    (found,) = read(Rooms=function("rooms")).functions().values()

    assert (found.timeout_seconds, found.memory_mb, found.environment, found.logging) == (3, 128, {}, {})


def test_function_without_a_bake_target_is_named(read: Read) -> None:
    with pytest.raises(TemplateError, match="Rooms: metadata BakeTarget is missing"):
        read(Rooms=resource("Lambda::Function")).functions()


# References


def resolved(read: Read, value: object) -> Any:
    template = read(Rooms=function("rooms"), Log=resource("Logs::LogGroup"), Role=resource("IAM::Role"))
    return template.resolve(value, "Somewhere")


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
        Users=resource("Cognito::UserPool"), Guard=function("g", Environment={"Variables": {"P": {"Ref": "Users"}}})
    )

    template.physical_ids["Users"] = "us-east-1_AbCdEf123"

    (guard,) = template.functions().values()
    assert guard.environment == {"P": "us-east-1_AbCdEf123"}


# What would be run wrong


@pytest.mark.parametrize("type_", ["AWS::ApiGatewayV2::RouteResponse", "AWS::SQS::Queue", "Custom::Thing"])
def test_resource_of_an_unknown_type_is_named(read: Read, type_: str) -> None:
    with pytest.raises(TemplateError, match=f"^Extra: {type_} "):
        read(**parts(Extra={"Type": type_}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"Second": resource("ApiGatewayV2::Api", ProtocolType="WEBSOCKET")}, "2 APIs and 1 stage"),
        ({"Second": resource("ApiGatewayV2::Stage", StageName="b")}, "1 APIs and 2 stages"),
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
        ({"Beta": resource("ApiGatewayV2::Stage", StageName="b", StageVariables={"a": "b"})}, "StageVariables"),
        ({"ToRooms": integration("Rooms", TimeoutInMillis=100)}, "TimeoutInMillis"),
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
