"""Templates with one unusual part each: it is run as by CloudFormation, or refused with advice."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from local.apigateway.api import Throttle
from local.cloudformation.stack import Stack
from local.cloudformation.template import Template
from local.errors import TemplateError
from tests.fixtures.templates import (
    LAMBDA_ARN,
    Resource,
    arn,
    authorizer,
    build_resources,
    function,
    integration,
    resource,
    role,
    route,
    stage,
)

ROOMS, GUARD = f"{LAMBDA_ARN}:Chat-Rooms", f"{LAMBDA_ARN}:Chat-Guard"
BOUND = "arn:aws:execute-api:eu-west-1:123456789012:"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a template with these sections; its resources replace parts of a chat's API."""

    def write_template(resources: dict[str, Any] | None = None, **sections: Any) -> Path:
        path = tmp_path / "Chat.template.json"
        path.write_text(json.dumps({"Resources": build_resources(**resources or {}), **sections}))
        return path

    return write_template


def rooms(**properties: object) -> dict[str, Resource]:
    return {"Rooms": function("rooms", **properties)}


def variable(value: object) -> dict[str, Resource]:
    """Return the function `Rooms` with the variable VALUE."""
    return rooms(Environment={"Variables": {"VALUE": value}})


def invoke(function_arn: str, **changes: object) -> dict[str, Resource]:
    """Return an integration that invokes a function by its ARN as text."""
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function_arn}/invocations"
    return {"ToRooms": integration("Rooms", IntegrationUri=uri, **changes)}


def may_invoke(function_name: object, **changes: object) -> dict[str, Resource]:
    properties = {"Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com"}
    return {"May": resource("Lambda::Permission", FunctionName=function_name, **properties | changes)}


# Values of a variable


SECTIONS: dict[str, Any] = {
    "Parameters": {
        "Size": {"Type": "Number", "Default": 20},
        "Names": {"Type": "CommaDelimitedList", "Default": "ada, bob"},
        "BootstrapVersion": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/cdk-bootstrap/x/version"},
        "Secret": {"Type": "String"},
    },
    "Conditions": {
        "InEurope": {"Fn::Equals": [{"Ref": "AWS::Region"}, "eu-west-1"]},
        "Elsewhere": {"Fn::Not": [{"Condition": "InEurope"}]},
        "Both": {"Fn::And": [{"Condition": "InEurope"}, {"Condition": "Elsewhere"}]},
        "Either": {"Fn::Or": [{"Condition": "InEurope"}, {"Condition": "Elsewhere"}]},
        "Circular": {"Fn::Not": [{"Condition": "Circular"}]},
    },
    "Mappings": {"Regions": {"us-east-1": {"size": "8"}}},
    "Rules": {"CheckBootstrapVersion": {"Assertions": []}},
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (20, "20"),
        (0.5, "0.5"),
        (True, "true"),
        ({"Ref": "Size"}, "20"),
        ({"Fn::Join": ["|", {"Ref": "Names"}]}, "ada|bob"),
        ({"Fn::Join": ["-", {"Fn::Split": [":", "a:b"]}]}, "a-b"),
        ({"Fn::Join": ["-", ["a", True, 1]]}, "a-true-1"),
        ({"Fn::Select": ["1", {"Ref": "Names"}]}, "bob"),
        ({"Fn::If": ["InEurope", "yes", "no"]}, "no"),
        ({"Fn::If": ["Either", {"Fn::If": ["Both", 1, 2]}, 3]}, "2"),
        ({"Fn::FindInMap": ["Regions", {"Ref": "AWS::Region"}, "size"]}, "8"),
        ({"Fn::FindInMap": ["Regions", "eu-west-1", "size", {"DefaultValue": "9"}]}, "9"),
        ({"Fn::Base64": {"Ref": "AWS::StackName"}}, "Q2hhdA=="),
        ({"Fn::ToJsonString": {"names": {"Ref": "Names"}}}, '{"names":["ada","bob"]}'),
        ({"Fn::Length": {"Ref": "Names"}}, "2"),
        ({"Fn::GetAtt": ["Socket", "ApiEndpoint"]}, "wss://localapi00.execute-api.us-east-1.amazonaws.com"),
        ({"Fn::GetAtt": "Users.ProviderURL"}, "https://cognito-idp.us-east-1.amazonaws.com/Chat-Users"),
        ({"Fn::GetAtt": ["Photos", "Arn"]}, "arn:aws:s3:::photos"),
        ({"Fn::GetAtt": ["Inbox", "Arn"]}, "arn:aws:sqs:us-east-1:000000000000:Chat-Inbox"),
        ({"Ref": "Inbox"}, "https://sqs.us-east-1.amazonaws.com/000000000000/Chat-Inbox"),
        ({"Ref": "News"}, "arn:aws:sns:us-east-1:000000000000:Chat-News"),
        ({"Fn::GetAtt": ["Events", "Arn"]}, "arn:aws:kinesis:us-east-1:000000000000:Chat-Events"),
        ({"Ref": "Live"}, f"{ROOMS}:live"),
        ({"Ref": "SignIn"}, "chat-sign-in"),
        ({"Fn::GetAtt": ["Inbox", "QueueName"]}, "Chat-Inbox"),
        ({"Fn::GetAtt": ["News", "TopicName"]}, "Chat-News"),
    ],
    ids=str,
)
def test_variable_has_the_text_that_cloudformation_would_give_it(write: Write, value: object, expected: str) -> None:
    others = {
        "Users": resource("Cognito::UserPool"),
        "Photos": resource("S3::Bucket", BucketName="photos"),
        "Inbox": resource("SQS::Queue"),
        "SignIn": resource("Cognito::UserPoolDomain", Domain="chat-sign-in"),
        "News": resource("SNS::Topic"),
        "Events": resource("Kinesis::Stream"),
        "Live": resource("Lambda::Alias", FunctionName={"Ref": "Rooms"}, FunctionVersion="$LATEST", Name="live"),
    }

    stack = Template.read(write(variable(value) | others, **SECTIONS)).resolve()

    assert stack.functions[ROOMS].environment == {"VALUE": expected}


def test_property_and_item_without_a_value_are_left_out(write: Write) -> None:
    nothing = {"Ref": "AWS::NoValue"}
    joined = {"Fn::Join": ["-", ["a", nothing, {"Fn::If": ["InEurope", "b", nothing]}]]}
    changes = rooms(Timeout=nothing, Environment={"Variables": {"NONE": nothing, "JOINED": joined}})

    found = Template.read(write(changes, **SECTIONS)).resolve().functions[ROOMS]

    assert (found.timeout_seconds, found.environment) == (3, {"JOINED": "a"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a"], '.Variables.VALUE must be a text, it is ["a"]'),
        (None, ".Variables.VALUE must be a text, it is null"),
        (
            {"Ref": "Secret"},
            ": parameter Secret has no Default that is a text or a number; give it one for the local run",
        ),
        (
            {"Ref": "BootstrapVersion"},
            ": parameter BootstrapVersion is a value of Systems Manager, which is not run locally; use a value there",
        ),
        ({"Ref": "Nowhere"}, ": Nowhere is no resource or parameter of the template"),
        ({"Fn::Sub": "${Nowhere.Arn}"}, ": Nowhere is no resource or parameter of the template"),
        ({"Fn::GetAtt": ["Events", "Typo"]}, ": Fn::GetAtt Events.Typo is not known locally; use another value there"),
        ({"Fn::If": ["Typo", 1, 2]}, ": condition Typo is not defined in Conditions"),
        ({"Fn::FindInMap": ["Regions", "eu-west-1", "size"]}, ": Mappings has no Regions.eu-west-1.size"),
        (
            {"Fn::ImportValue": "x"},
            ": Fn::ImportValue cannot be evaluated locally; use a value or a parameter's Default",
        ),
        ({"Fn::Join": "x"}, ': Fn::Join has wrong arguments: "x"'),
        (
            {"Fn::Join": ["", [{"a": {"Ref": "Rooms"}}]]},
            ': Fn::Join has wrong arguments: ["", [{"a": {"Ref": "Rooms"}}]]',
        ),
        ({"Fn::Join": ["", "x"]}, ': what Fn::Join joins must be a list, it is "x"'),
        (
            {"Fn::Sub": "{{resolve:ssm:/${Rooms}/key}}"},
            ".Variables.VALUE: the dynamic reference {{resolve:ssm:/Chat-Rooms/key}} is not resolved locally; use a value there",
        ),
        ({"Fn::Select": [2, ["a"]]}, ': Fn::Select has wrong arguments: [2, ["a"]]'),
    ],
    ids=str,
)
def test_variable_without_a_known_value_is_refused(write: Write, value: object, message: str) -> None:
    template = Template.read(write(variable(value) | {"Events": resource("Kinesis::Stream")}, **SECTIONS))

    with pytest.raises(TemplateError) as error:
        template.resolve()

    assert str(error.value) == f"Rooms: Environment{message}"


# What is run


def live(**changes: object) -> dict[str, Resource]:
    """The alias `live` of the function `Rooms`, which the routes invoke."""
    properties = {"FunctionName": {"Ref": "Rooms"}, "FunctionVersion": {"Fn::GetAtt": ["Second", "Version"]}}
    return {
        "Live": resource("Lambda::Alias", **properties | {"Name": "live"} | changes),
        "Second": resource("Lambda::Version", FunctionName={"Ref": "Rooms"}),
        **invoke(f"{ROOMS}:live"),
    }


def get_function_arn(stack: Stack) -> str:
    return stack.api.routes["joinRoom"].function_arn


@pytest.mark.parametrize(
    ("changes", "property_", "expected"),
    [
        (rooms(Timeout="20"), lambda stack: stack.functions[ROOMS].timeout_seconds, 20),
        (rooms(MemorySize="512"), lambda stack: stack.functions[ROOMS].memory_mb, 512),
        (rooms(FunctionName={"Fn::Sub": "${AWS::StackName}-x"}), get_function_arn, f"{LAMBDA_ARN}:Chat-x"),
        (rooms(FunctionName={"Ref": "Names"}), get_function_arn, f"{LAMBDA_ARN}:ada"),
        ({"Beta": stage(AutoDeploy="false")}, lambda stack: stack.api.deployed, False),
        ({"Beta": stage(StageVariables={"size": 1})}, lambda stack: stack.api.stage_variables, {"size": "1"}),
        (
            {"Beta": stage(DefaultRouteSettings={"ThrottlingRateLimit": "0.5", "ThrottlingBurstLimit": "5"})},
            lambda stack: stack.api.routes["report"].throttle,
            Throttle(0.5, 5),
        ),
        (
            {"Beta": resource("ApiGatewayV2::Stage", StageName={"Fn::Join": ["", ["be", "ta"]]})},
            lambda stack: stack.api.stage,
            "beta",
        ),
        (
            {"ToRooms": integration("Rooms", TimeoutInMillis="1500")},
            lambda stack: stack.api.routes["joinRoom"].timeout_seconds,
            1.5,
        ),
        ({"Join": route("joinRoom", "ToRooms", ApiKeyRequired="false")}, get_function_arn, ROOMS),
        (rooms(ImageConfig={"Command": ["rooms.handler"], "EntryPoint": [], "WorkingDirectory": "/var/task"}), get_function_arn, ROOMS),
        (rooms(VpcConfig={"SubnetIds": [{"Fn::ImportValue": "x"}]}, EphemeralStorage={"Size": 1}), get_function_arn, ROOMS),
        (live(), get_function_arn, f"{ROOMS}:live"),
        (live(), lambda stack: stack.functions[f"{ROOMS}:live"].target, "rooms"),
        (invoke(f"{ROOMS}:$LATEST"), get_function_arn, ROOMS),
        (
            {**live(), **invoke("123456789012:Chat-Rooms"), **invoke(f"{LAMBDA_ARN}:${{stageVariables.function}}:live"),
             "Beta": stage(AutoDeploy=True, StageVariables={"function": "Chat-Rooms"})},
            get_function_arn,
            f"{ROOMS}:live",
        ),
        ({"Role": role(RoleName={"Fn::Sub": "x"}, Path="/team/")}, lambda stack: stack.functions[ROOMS].role.name, "x"),
        (
            {"Report": {**route("report", "ToGuard"), "Condition": "InEurope"}},
            lambda stack: sorted(stack.api.routes),
            ["$connect", "joinRoom"],
        ),
    ],
)  # fmt: skip
def test_unusual_but_valid_template_is_run(
    write: Write, changes: dict[str, Resource], property_: Callable[[Stack], Any], expected: object
) -> None:
    stack = Template.read(write(changes, **{**SECTIONS, "Parameters": {"Names": {"Default": "ada"}}})).resolve()

    assert property_(stack) == expected


@pytest.mark.parametrize(
    "extra",
    [
        {**resource("CDK::Metadata", Analytics="v2:x"), "Condition": "InEurope"},
        {"Type": "AWS::CDK::Metadata", "UpdatePolicy": {}, "CreationPolicy": {}, "DeletionPolicy": "Retain"},
        resource("CloudWatch::Alarm", Dimensions=[{"Name": "FunctionName", "Value": {"Ref": "Rooms"}}]),
        resource("Logs::LogGroup", LogGroupName={"Fn::Sub": "/aws/lambda/${Rooms}"}),
        resource("KMS::Key", KeyPolicy={"Fn::ImportValue": "x"}),
        resource("SSM::Parameter", Value={"Ref": "Socket"}),
        resource("IAM::InstanceProfile", Roles=[{"Ref": "Role"}]),
        resource("Cognito::UserPoolDomain", Domain="x"),
        resource("Cognito::UserPoolGroup", UserPoolId="x", RoleArn=arn("Role")),
        resource("ApiGatewayV2::Model", Schema={"type": "object"}),
        resource(
            "DynamoDB::Table",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            TimeToLiveSpecification={"Enabled": False},
        ),
        resource("Lambda::Function", Code={"ZipFile": "x"}, Handler="index.handler", Layers=["x"]),
        {"Type": "Custom::LogRetention", "Properties": {"ServiceToken": arn("Rooms")}},
        resource(
            "Lambda::Permission",
            Action="x",
            Principal="apigateway.amazonaws.com",
            FunctionName={"Fn::ImportValue": "x"},
        ),
        resource("Lambda::Permission", Action="x", Principal="s3.amazonaws.com", FunctionName={"Fn::ImportValue": "x"}),
    ],
    ids=lambda extra: extra["Type"],
)
def test_resource_without_an_effect_is_ignored(write: Write, extra: Resource) -> None:
    assert Template.read(write({"Extra": extra}, **SECTIONS)).resolve().functions.keys() == {ROOMS, GUARD}


@pytest.mark.parametrize(
    "function_name",
    [
        {"Ref": "Rooms"},
        arn("Rooms"),
        "Chat-Rooms",
        "Chat-Rooms:$LATEST",
        "000000000000:function:Chat-Rooms",
        "function:Chat-Rooms",
        ROOMS,
    ],
    ids=str,
)
def test_permission_names_its_function_in_any_form(write: Write, function_name: object) -> None:
    api = Template.read(write(may_invoke(function_name))).resolve().api

    assert api.may_invoke(ROOMS, f"{api.arn}/joinRoom")
    assert not api.may_invoke(GUARD, f"{api.arn}/report")


def test_permission_may_name_every_principal_and_action(write: Write) -> None:
    api = Template.read(write(may_invoke("Chat-Rooms", Principal="*", Action="*"))).resolve().api

    assert api.may_invoke(ROOMS, f"{api.arn}/joinRoom")


def test_stack_is_named_by_its_file(write: Write) -> None:
    file = write({})

    assert Template.read(file.rename(file.with_name("my template (1).json"))).name == "my-template-1"


@pytest.mark.parametrize(
    ("function_name", "allowed"),
    [({"Ref": "Live"}, True), ("Chat-Rooms:live", True), ({"Ref": "Rooms"}, False)],
    ids=str,
)
def test_alias_is_invoked_by_its_own_permission(write: Write, function_name: object, allowed: bool) -> None:
    api = Template.read(write({**live(), **may_invoke(function_name)})).resolve().api

    assert api.may_invoke(f"{ROOMS}:live", f"{api.arn}/joinRoom") is allowed


# What is refused


LEAVE_OUT = "cannot be run locally; leave it out of the local run"
FIX_NAME = "leave it out of the local run, or correct its name"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Types that would change what is run
        ({"X": resource("SNS::Subscription", Endpoint=arn("Rooms"))}, "X: AWS::SNS::Subscription refers to Rooms, which it could not invoke locally; leave it out of the local run"),
        ({"X": resource("Events::Rule", Targets=[{"Arn": {"Fn::Sub": "${Rooms.Arn}"}}])}, "X: AWS::Events::Rule refers to Rooms, which it could not invoke locally; leave it out of the local run"),
        ({"X": resource("Lambda::EventSourceMapping")}, f"X: AWS::Lambda::EventSourceMapping {LEAVE_OUT}"),
        ({"X": resource("CloudFormation::Stack")}, f"X: AWS::CloudFormation::Stack {LEAVE_OUT}"),
        ({"X": resource("Lambda::Url")}, f"X: AWS::Lambda::Url {LEAVE_OUT}"),
        ({"X": resource("Serverless::Function")}, f"X: AWS::Serverless::Function {LEAVE_OUT}"),
        ({"X": {"Type": "Custom::Thing"}}, f"X: Custom::Thing {LEAVE_OUT}"),
        # Functions
        (rooms(Timeout="soon"), 'Rooms: Timeout must be a whole number from 1 to 5400, it is "soon"'),
        (rooms(Timeout=0), "Rooms: Timeout must be a whole number from 1 to 5400, it is 0"),
        (rooms(MemorySize=True), "Rooms: MemorySize must be a whole number from 128 to 32768, it is true"),
        (rooms(Environment=[]), "Rooms: Environment must be an object, it is []"),
        (rooms(Environment={"Variables": {"AWS_REGION": "x"}}), "Rooms: Environment: Lambda sets the variable AWS_REGION itself; rename yours"),
        (rooms(Environment={"Variables": {"MY-TABLE": "x"}}), "Rooms: Environment: MY-TABLE must be a letter, followed by at least one letter, digit or _; rename the variable"),
        (rooms(Environment={"Variables": {"TEXT": "ä" * 2047}}), "Rooms: Environment has 4098 bytes; Lambda takes at most 4096"),
        (rooms(FunctionName="Füße"), "ToRooms: arn:aws:lambda:us-east-1:000000000000:function:Füße is not the name or ARN of a function"),
        (rooms(LoggingConfig={"LogFormat": "json"}), 'Rooms: LoggingConfig.LogFormat must be JSON or Text, it is "json"'),
        (rooms(Layers=["x"]), f"Rooms: Layers {LEAVE_OUT}"),
        (rooms(FileSystemConfigs=[{"Arn": "x", "LocalMountPath": "y"}]), f"Rooms: FileSystemConfigs {LEAVE_OUT}"),
        (rooms(ImageConfig={"Command": ["app.main"]}), "Rooms: only the handler rooms.handler is run; leave out ImageConfig and Handler"),
        (rooms(ImageConfig={"EntryPoint": ["x"]}), "Rooms: only the handler rooms.handler is run; leave out ImageConfig and Handler"),
        (rooms(Handler="app.main"), "Rooms: only the handler rooms.handler is run; leave out ImageConfig and Handler"),
        ({"Rooms": resource("Lambda::Function", Role=arn("Role"))}, 'Rooms: metadata BakeTarget is missing or is no name, so its code is unknown. Only functions that `docker buildx bake` builds as images are run: name the target, in the CDK by node.default_child.add_metadata("BakeTarget", "name")'),
        ({"Rooms": {"Type": "AWS::Lambda::Function", "Metadata": {"BakeTarget": "rooms"}}}, "Rooms: Role is missing"),
        (rooms(Role=arn("Nowhere")), "Rooms: Role: Nowhere is no resource or parameter of the template"),
        ({"Role": role(PermissionsBoundary="x")}, f"Role: PermissionsBoundary {LEAVE_OUT}"),
        ({"Role": role(Policies=[{"PolicyName": "x"}])}, "Role: Policies.0: PolicyDocument is missing"),
        ({"Role": role(ManagedPolicyArns="x")}, 'Role: ManagedPolicyArns must be a list, it is "x"'),
        # The API
        ({"X": resource("ApiGatewayV2::Api", ProtocolType="WEBSOCKET")}, "Chat: one API with one stage is run, the template has Socket, X, Beta"),
        ({"X": stage()}, "Chat: one API with one stage is run, the template has Socket, Beta, X"),
        ({"Socket": resource("ApiGatewayV2::Api", ProtocolType="WEBSOCKET", RouteSelectionExpression="$a")}, "Socket: RouteSelectionExpression $a cannot be evaluated locally; it must be $request.body.NAME, or text with ${request.body.NAME} in it"),
        ({"Socket": resource("ApiGatewayV2::Api", ProtocolType="HTTP")}, "Socket: ProtocolType must be WEBSOCKET"),
        ({"Socket": resource("ApiGatewayV2::Api", ProtocolType="WEBSOCKET", DisableExecuteApiEndpoint=True)}, f"Socket: DisableExecuteApiEndpoint {LEAVE_OUT}"),
        ({"Beta": stage(ClientCertificateId="x")}, f"Beta: ClientCertificateId {LEAVE_OUT}"),
        ({"Beta": stage(DefaultRouteSettings={"Typo": 1})}, f"Beta: DefaultRouteSettings: Typo is not known here; {FIX_NAME}"),
        ({"Beta": stage(RouteSettings={"typo": {}})}, "Beta: RouteSettings has typo, which is no route"),
        ({"Join": route("joinRoom", "ToRooms", ApiId="abc")}, "Join: ApiId abc is not the API of the template, Socket"),
        ({"Join": route("report", "ToRooms")}, "Report: another route has the RouteKey report, too"),
        ({"Join": resource("ApiGatewayV2::Route", RouteKey="x")}, "Join: route x has no Target, so it would invoke nothing; give it one"),
        ({"Join": resource("ApiGatewayV2::Route")}, "Join: RouteKey is missing"),
        ({"Join": resource("ApiGatewayV2::Route", RouteKey="x", Target={"a": 1})}, 'Join: Target must be a text, it is {"a": 1}'),
        ({"Join": route("x", "Rooms")}, "Join: Target: integrations/Chat-Rooms is no AWS::ApiGatewayV2::Integration of the template"),
        ({"Join": route("x", "ToRooms", ApiKeyRequired="true")}, f"Join: ApiKeyRequired {LEAVE_OUT}"),
        ({"Join": route("x", "ToRooms", ModelSelectionExpression="x")}, f"Join: ModelSelectionExpression {LEAVE_OUT}"),
        ({"Join": route("x", "ToRooms", AuthorizationType="AWS_IAM")}, "Join: AuthorizationType AWS_IAM cannot be run locally, only NONE or CUSTOM"),
        ({"Join": route("x", "ToRooms", AuthorizationType="CUSTOM")}, "Join: only $connect can have an authorizer, x has one"),
        ({"Connect": route("$connect", "ToRooms", AuthorizationType="CUSTOM")}, "Connect: AuthorizerId: nothing is no AWS::ApiGatewayV2::Authorizer of the template"),
        ({"ToRooms": integration("Rooms", IntegrationType="MOCK")}, "ToRooms: IntegrationType MOCK cannot be run locally, only AWS_PROXY; leave its routes out of the local run"),
        ({"ToRooms": integration("Rooms", IntegrationUri="https://example.com")}, "ToRooms: https://example.com is not the URI of a function's invocations, arn:aws:apigateway:REGION:lambda:path/2015-03-31/functions/FUNCTION_ARN/invocations"),
        ({"ToRooms": integration("Rooms", ContentHandlingStrategy="CONVERT_TO_TEXT")}, f"ToRooms: ContentHandlingStrategy {LEAVE_OUT}"),
        ({"ToRooms": integration("Rooms", CredentialsArn="x")}, f"ToRooms: CredentialsArn {LEAVE_OUT}"),
        (invoke(f"{LAMBDA_ARN}:elsewhere"), f"ToRooms: {LAMBDA_ARN}:elsewhere is no function, alias or version of the template, so it cannot be run"),
        (invoke(f"{ROOMS}:live"), f"ToRooms: {ROOMS}:live is no function, alias or version of the template, so it cannot be run"),
        (live(FunctionVersion="7"), f"ToRooms: {ROOMS}:live is no function, alias or version of the template, so it cannot be run"),
        (live(RoutingConfig={"AdditionalVersionWeights": [{"FunctionVersion": "2", "FunctionWeight": 0.5}]}), f"Live: RoutingConfig {LEAVE_OUT}"),
        (invoke("${stageVariables.function}"), "ToRooms: ${stageVariables.function} is not the name or ARN of a function"),
        ({"Door": authorizer(AuthorizerType="JWT")}, "Door: AuthorizerType JWT cannot be run locally"),
        ({"Door": authorizer(IdentitySource=["method.request.header.Auth"])}, "Door: identity source method.request.header.Auth cannot be evaluated locally; it must be route.request.header.NAME, route.request.querystring.NAME, stageVariables.NAME or context.NAME"),
        ({"Door": authorizer(IdentitySource="route.request.header.Auth")}, 'Door: IdentitySource must be a list, it is "route.request.header.Auth"'),
        ({"Door": authorizer(AuthorizerCredentialsArn="x")}, f"Door: AuthorizerCredentialsArn {LEAVE_OUT}"),
        (may_invoke("x y"), "May: x y is not the name or ARN of a function"),
        (may_invoke("Chat-Rooms", FunctionUrlAuthType="NONE"), f"May: FunctionUrlAuthType {LEAVE_OUT}"),
        # Resources
        ({"Join": {"Properties": {}}}, "Join: Type must be a text, it is null"),
        ({"Join": {**route("x", "ToRooms"), "Properites": {}}}, "Join: Properites is no attribute of a resource; has it been misspelled?"),
        ({"Join": {"Type": "AWS::ApiGatewayV2::Route", "Properties": []}}, "Join: Properties must be an object, it is []"),
        ({"Join": {**route("x", "ToRooms"), "Condition": "Typo"}}, "Join: condition Typo is not defined in Conditions"),
        ({"Join": {**route("x", "ToRooms"), "Condition": "Circular"}}, "condition Circular: it is nested too deeply, or refers to itself"),
        ({"ToRooms": {**integration("Rooms"), "Condition": "InEurope"}}, "Connect: Target: ToRooms does not exist, because its condition InEurope is false"),
        (rooms(FunctionName={"Ref": "Rooms"}), "Rooms: it is nested too deeply, or refers to itself"),
        # What is created
        ({"Users": resource("Cognito::UserPool", LambdaConfig={"PreSignUp": arn("Guard")})}, f"Users: LambdaConfig {LEAVE_OUT}"),
        ({"Users": resource("Cognito::UserPool", Typo=1)}, f"Users: Typo is not known here; {FIX_NAME}"),
        ({"Page": resource("Cognito::UserPoolClient")}, "Page: UserPoolId is missing"),
        ({"Rows": resource("DynamoDB::Table", KeySchema=[{"KeyType": "HASH"}])}, "Rows: KeySchema.0: AttributeName is missing"),
        ({"Rows": resource("DynamoDB::Table", KeySchema=[])}, "Rows: KeySchema must have at least 1 item(s), it is []"),
        ({"Rows": resource("DynamoDB::Table", ImportSourceSpecification={})}, f"Rows: ImportSourceSpecification is not known here; {FIX_NAME}"),
    ],
)  # fmt: skip
def test_template_that_would_be_run_wrongly_is_refused(
    write: Write, changes: dict[str, Resource], message: str
) -> None:
    with pytest.raises(TemplateError) as error:
        read_all(write(changes, **SECTIONS))

    assert str(error.value) == message


def read_all(path: Path) -> None:
    template = Template.read(path)
    template.read_created_definitions()
    template.resolve()


# The account


def bound_artifact(environment: str) -> dict[str, Any]:
    return {"environment": environment, "properties": {"templateFile": "Chat.template.json"}}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ("aws://123456789012/eu-west-1", ("123456789012", "eu-west-1", "aws", "amazonaws.com")),
        ("aws://123456789012/cn-north-1", ("123456789012", "cn-north-1", "aws-cn", "amazonaws.com.cn")),
        ("aws://unknown-account/eu-west-1", ("000000000000", "eu-west-1", "aws", "amazonaws.com")),
        ("aws://unknown-account/unknown-region", ("000000000000", "us-east-1", "aws", "amazonaws.com")),
    ],
)
def test_account_is_that_of_the_cloud_assembly(write: Write, environment: str, expected: tuple[str, ...]) -> None:
    path = write(variable(f"{BOUND}abc/*"))
    artifacts = {"Tree": {"type": "cdk:tree"}, "Chat": bound_artifact(environment)}
    (path.parent / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))

    account = Template.read(path).account

    assert (account.id, account.region, account.partition, account.url_suffix) == expected


@pytest.mark.parametrize("manifest", [None, "{}", "[]", '{"artifacts": {"Other": {}}}', '{"artifacts": 1}', "no JSON"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{BOUND}abc/*", ("123456789012", "eu-west-1")),
        ("arn:aws:lambda:eu-west-1:123456789012:function:x", ("123456789012", "eu-west-1")),
        ("arn:aws:lambda:eu-west-1:017000801446:layer:Powertools:1", ("000000000000", "us-east-1")),
        ("arn:aws:sns:eu-west-1:123456789012:x", ("000000000000", "us-east-1")),
    ],
)
def test_account_of_a_single_template_is_that_of_its_arns(
    write: Write, manifest: str | None, value: str, expected: tuple[str, str]
) -> None:
    path = write(variable(value), Description="see arn:aws:lambda:eu-west-3:210987654321:function:other")
    if manifest is not None:
        (path.parent / "manifest.json").write_text(manifest)

    account = Template.read(path).account

    assert (account.id, account.region) == expected


@pytest.mark.parametrize(
    ("source", "region"),
    [
        ({"Fn::Join": ["", [BOUND, {"Ref": "Socket"}, "/*joinRoom"]]}, "eu-west-1"),
        ({"Fn::Join": [":", ["arn:aws:execute-api", "eu-west-1", "123456789012", "localapi00/*"]]}, "eu-west-1"),
        ({"Fn::Sub": "arn:aws:execute-api:${AWS::Region}:${Account}:${Socket}/*"}, "us-east-1"),
    ],
    ids=str,
)
def test_permission_of_a_bound_stack_lets_everybody_in(write: Write, source: object, region: str) -> None:
    parameters = {"Account": {"Type": "String", "Default": "123456789012"}}
    resources = {
        **may_invoke({"Ref": "Rooms"}, SourceArn=source),
        **rooms(FunctionName={"Fn::Sub": "${AWS::AccountId}"}),
    }

    stack = Template.read(write(resources, Parameters=parameters)).resolve()

    assert stack.api.domain_name == f"localapi00.execute-api.{region}.amazonaws.com"
    function_arn = f"arn:aws:lambda:{region}:123456789012:function:123456789012"
    assert stack.api.may_invoke(function_arn, f"{stack.api.arn}/joinRoom")


# Files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Resources:\n  Socket: {}\n", " is not JSON, and YAML is not read: convert it with `cfn-flip` (pip install cfn-flip), or use the JSON that the CDK writes to cdk.out"),
        (b'{"Resources": {\n  "A" 1}}', ", line 2, column 7: Expecting ':' delimiter"),
        (b"[" * 100_000, " is no JSON text: maximum recursion depth exceeded while decoding a JSON array from a unicode string"),
        (b"\xff", " is no JSON text: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"\n", " is empty"),
        (b'{"Resources": ' + b"1" * 5000 + b"}", " is no JSON text: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the limit"),
        (b"[]", ": the template must be an object, it is []"),
        (b"{}", " has no Resources, so it is no template that can be run"),
        (b'{"Resources": []}', ": Resources must be an object, it is []"),
        (b'{"Resources": {"A": 1}}', ": Resources: A must be an object, it is 1"),
        (b'{"Resources": {"Fn::ForEach::Topics": []}}', ": Resources: Fn::ForEach::Topics is expanded by CloudFormation; give the processed template"),
        (b'{"Transform": "AWS::Serverless-2016-10-31"}', ': Transform "AWS::Serverless-2016-10-31" is applied by CloudFormation; give the processed template, for example from `aws cloudformation get-template --template-stage Processed`'),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[:20].decode(errors="replace"),
)  # fmt: skip
def test_file_that_is_not_a_template_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "chat.json"
    path.write_bytes(content)

    with pytest.raises(TemplateError) as error:
        Template.read(path)

    assert str(error.value) == f"{path}{message}"


def test_missing_file_and_folder_are_named(write: Write) -> None:
    folder = write().parent

    with pytest.raises(TemplateError, match=r"/nowhere\.json cannot be read: No such file or directory$"):
        Template.read(folder / "nowhere.json")
    with pytest.raises(
        TemplateError, match=r"is a folder; give a template file \(in this folder: Chat\.template\.json\)$"
    ):
        Template.read(folder)


def test_template_may_start_with_a_byte_order_mark(write: Write) -> None:
    path = write(Transform="AWS::LanguageExtensions")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert Template.read(path).resolve().api.stage == "beta"


# Random changes


WRONG: tuple[Any, ...] = (
    None,
    1,
    "",
    [],
    {},
    {"Ref": "Nowhere"},
    {"Ref": "AWS::NoValue"},
    {"Ref": []},
    {"Fn::Join": "x"},
    {"Fn::If": ["InEurope", 1, 2]},
    {"Fn::GetAtt": ["Rooms", "Arn"]},
)


def find_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*place, key)
        yield from find_places(child, (*place, key))


def test_template_with_anything_anywhere_is_run_or_refused(write: Write) -> None:
    """No other error than TemplateError is raised, wherever a value is wrong."""
    users = {"Users": resource("Cognito::UserPool"), "Page": resource("Cognito::UserPoolClient", UserPoolId="x")}
    table = {"Rows": resource("DynamoDB::Table", KeySchema=[{"AttributeName": "a", "KeyType": "HASH"}])}
    path = write({**live(), **users, **table, **may_invoke({"Ref": "Live"})}, **SECTIONS)
    document = json.loads(path.read_text())

    for place in find_places(document):
        for wrong in WRONG:
            changed = copy.deepcopy(document)
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = wrong
            path.write_text(json.dumps(changed))
            with suppress(TemplateError):
                read_all(path)
