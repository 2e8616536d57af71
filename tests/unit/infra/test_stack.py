"""The stack's template: one test for each promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_cognito as cognito
from aws_cdk.assertions import Template

from infra import auth
from infra.bake import BakeTarget
from local.apigateway.limits import Limits
from tests.fixtures import ROOT
from tests.fixtures.emulator import SETTINGS, TIMEOUTS
from tests.fixtures.stack import (
    EVERY_OPTION,
    build_stack,
    find_functions,
    find_resources,
    get_only_properties,
    read_outputs,
    render,
    synthesize_template,
)


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the cloud assembly of the stack with its defaults."""
    return tmp_path_factory.mktemp("cdk.out")


@pytest.fixture(scope="session")
def template(assembly: Path) -> Template:
    return Template.from_stack(build_stack(outdir=str(assembly)))


# What runs


@pytest.mark.parametrize(("platform", "architecture"), [("linux/amd64", "x86_64"), ("linux/arm64", "arm64")])
def test_architecture_is_that_of_the_images(monkeypatch: pytest.MonkeyPatch, platform: str, architecture: str) -> None:
    monkeypatch.setattr("infra.bake.read_platform", lambda: platform)

    template = Template.from_stack(build_stack())

    assert BakeTarget.read("authorizer").platform == platform
    assert [function["Architectures"] for function in find_functions(template).values()] == [[architecture]] * 2


def test_platform_that_lambda_does_not_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.bake.read_platform", lambda: "linux/riscv64")

    with pytest.raises(ValueError, match="Lambda"):
        build_stack()


@pytest.mark.parametrize("target", ["authorizer", "websocket"])
def test_function_is_the_image_that_bake_builds_from_these_sources(template: Template, target: str) -> None:
    function = find_functions(template)[target]

    assert function["PackageType"] == "Image"
    assert render(function["Code"]["ImageUri"]).endswith(f":{BakeTarget.read(target).source_hash}")


def test_assets_name_no_path_of_this_machine(assembly: Path, template: Template) -> None:
    assets = json.loads((assembly / "Stack.assets.json").read_text())["dockerImages"].values()

    for asset in assets:
        executable = asset["source"]["executable"]
        assert [argument for argument in executable if Path(argument).is_absolute()] == []
        assert ROOT in [(assembly / argument).resolve() for argument in executable]


# Who may connect


def test_only_connect_has_the_authorizer(template: Template) -> None:
    """API Gateway authorizes a WebSocket connection once, when it is opened."""
    routes = [route["Properties"] for route in find_resources(template, "AWS::ApiGatewayV2::Route").values()]
    (authorizer,) = find_resources(template, "AWS::ApiGatewayV2::Authorizer")

    assert {route["RouteKey"]: (route["AuthorizationType"], route.get("AuthorizerId")) for route in routes} == {
        "$connect": ("CUSTOM", {"Ref": authorizer}),
        "$disconnect": ("NONE", None),
        "$default": ("NONE", None),
        "keepalive": ("NONE", None),
    }


def test_authorizer_and_routes_each_call_their_own_function(template: Template) -> None:
    authorizer = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Authorizer"))
    integration = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Integration"))
    ids = {target: function["id"] for target, function in find_functions(template).items()}

    assert f"${{{ids['authorizer']}.Arn}}" in render(authorizer["AuthorizerUri"])
    assert f"${{{ids['websocket']}.Arn}}" in render(integration["IntegrationUri"])


def test_functions_may_be_called_by_this_api_only(template: Template) -> None:
    (api,) = find_resources(template, "AWS::ApiGatewayV2::Api")
    (authorizer,) = find_resources(template, "AWS::ApiGatewayV2::Authorizer")
    permissions = [each["Properties"] for each in find_resources(template, "AWS::Lambda::Permission").values()]

    assert {permission["Principal"] for permission in permissions} == {"apigateway.amazonaws.com"}
    assert {render(permission["SourceArn"]).rpartition(f"${{{api}}}/")[2] for permission in permissions} == {
        f"authorizers/${{{authorizer}}}",
        "*$connect",
        "*$disconnect",
        "*$default",
        "*keepalive",
    }


# Who the users are


def test_users_sign_in_by_srp_from_a_page_without_secrets(template: Template) -> None:
    client = get_only_properties(find_resources(template, "AWS::Cognito::UserPoolClient"))

    assert set(client["ExplicitAuthFlows"]) == {"ALLOW_USER_SRP_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}
    assert "GenerateSecret" not in client
    assert client["AllowedOAuthFlowsUserPoolClient"] is False


def test_nobody_learns_from_a_refusal_who_is_a_user(template: Template) -> None:
    client = get_only_properties(find_resources(template, "AWS::Cognito::UserPoolClient"))

    assert client["PreventUserExistenceErrors"] == "ENABLED"


def test_tokens_last_an_hour_and_can_be_renewed_for_a_month(template: Template) -> None:
    """The functions serve no message after the token's expiry."""
    client = get_only_properties(find_resources(template, "AWS::Cognito::UserPoolClient"))

    minutes = {"IdToken": "minutes", "AccessToken": "minutes", "RefreshToken": "minutes"}
    assert client["TokenValidityUnits"] == minutes
    assert (client["IdTokenValidity"], client["AccessTokenValidity"]) == (60, 60)
    assert client["RefreshTokenValidity"] == 30 * 24 * 60
    assert client["EnableTokenRevocation"] is True


def test_passwords_are_long_and_of_every_kind_of_character(template: Template) -> None:
    policies = get_only_properties(find_resources(template, "AWS::Cognito::UserPool"))["Policies"]

    assert policies == {
        "PasswordPolicy": {
            "MinimumLength": 12,
            "RequireLowercase": True,
            "RequireNumbers": True,
            "RequireSymbols": True,
            "RequireUppercase": True,
            "TemporaryPasswordValidityDays": 3,
        }
    }


def test_user_is_an_email_address_that_was_verified(template: Template) -> None:
    user_pool = get_only_properties(find_resources(template, "AWS::Cognito::UserPool"))

    assert user_pool["UsernameAttributes"] == ["email"]
    assert user_pool["UsernameConfiguration"] == {"CaseSensitive": False}
    assert user_pool["AutoVerifiedAttributes"] == ["email"]
    assert user_pool["AccountRecoverySetting"] == {"RecoveryMechanisms": [{"Name": "verified_email", "Priority": 1}]}


# What is kept, and for how long


def test_rows_of_both_tables_expire_at_removed_at() -> None:
    tables = find_resources(synthesize_template(**EVERY_OPTION), "AWS::DynamoDB::Table").values()

    expires = {"AttributeName": "removedAt", "Enabled": True}
    assert [table["Properties"]["TimeToLiveSpecification"] for table in tables] == [expires, expires]


def test_connections_of_a_user_can_be_found(template: Template) -> None:
    table = get_only_properties(find_resources(template, "AWS::DynamoDB::Table"))
    (index,) = table["GlobalSecondaryIndexes"]

    assert table["KeySchema"] == [{"AttributeName": "connectionId", "KeyType": "HASH"}]
    assert index["IndexName"] == "userIdIndex"
    assert index["KeySchema"] == [{"AttributeName": "userId", "KeyType": "HASH"}]


def test_every_log_is_kept_for_a_month(template: Template) -> None:
    groups = find_resources(template, "AWS::Logs::LogGroup").values()

    assert [group["Properties"]["RetentionInDays"] for group in groups] == [30, 30, 30]


@pytest.mark.parametrize(
    ("argument", "on_delete", "on_replacement"),
    [
        # A failed first deployment deletes what it created, so that the next one can succeed.
        ({}, "RetainExceptOnCreate", "Retain"),
        ({"removal_policy": cdk.RemovalPolicy.DESTROY}, "Delete", "Delete"),
    ],
    ids=["default", "destroy"],
)
def test_users_and_logs_are_kept_unless_asked_otherwise(
    argument: dict[str, Any], on_delete: str, on_replacement: str
) -> None:
    template = synthesize_template(**EVERY_OPTION, **argument)

    for type_ in ("AWS::Cognito::UserPool", "AWS::Logs::LogGroup"):
        for resource in find_resources(template, type_).values():
            assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == (on_delete, on_replacement)
    protection = get_only_properties(find_resources(template, "AWS::Cognito::UserPool")).get(
        "DeletionProtection", "INACTIVE"
    )
    assert protection == ("INACTIVE" if argument else "ACTIVE")


def test_tables_are_deleted_with_the_api() -> None:
    tables = find_resources(synthesize_template(**EVERY_OPTION), "AWS::DynamoDB::Table").values()

    assert [(each["DeletionPolicy"], each["UpdateReplacePolicy"]) for each in tables] == [("Delete", "Delete")] * 2


def test_stage_is_not_live_before_its_routes(template: Template) -> None:
    """Without `$connect` or its authorizer, everybody could connect."""
    (stage,) = find_resources(template, "AWS::ApiGatewayV2::Stage").values()
    parts = ("Route", "Integration", "Authorizer")
    expected = {id_ for part in parts for id_ in find_resources(template, f"AWS::ApiGatewayV2::{part}")}

    assert find_resources(template, "AWS::ApiGatewayV2::Route")
    assert expected <= set(stage["DependsOn"])


def test_accounts_log_role_outlives_the_stack() -> None:
    """It is a setting of the account that other APIs may need."""
    template = synthesize_template(removal_policy=cdk.RemovalPolicy.DESTROY)
    (account,) = find_resources(template, "AWS::ApiGateway::Account").values()
    role = account["Properties"]["CloudWatchRoleArn"]["Fn::GetAtt"][0]

    assert account["DeletionPolicy"] == "Retain"
    assert find_resources(template, "AWS::IAM::Role")[role]["DeletionPolicy"] == "Retain"


def test_stage_waits_for_the_accounts_log_role(template: Template) -> None:
    """A stage with an access log is refused in an account without that role."""
    (stage,) = find_resources(template, "AWS::ApiGatewayV2::Stage").values()

    assert find_resources(template, "AWS::ApiGateway::Account").keys() <= set(stage["DependsOn"])


def test_accounts_log_role_can_be_left_out() -> None:
    template = synthesize_template(log_role=False)

    assert find_resources(template, "AWS::ApiGateway::Account") == {}
    assert len(find_resources(template, "AWS::IAM::Role")) == 2


# What can be seen


def test_functions_log_json_and_trace(template: Template) -> None:
    for function in find_functions(template).values():
        assert function["LoggingConfig"]["LogFormat"] == "JSON"
        assert function["LoggingConfig"]["ApplicationLogLevel"] == "INFO"
        assert function["LoggingConfig"]["SystemLogLevel"] == "WARN"
        assert function["TracingConfig"] == {"Mode": "Active"}


def test_access_log_leaves_out_the_query_string_and_the_headers(template: Template) -> None:
    """The query string contains the token, and any header may contain it."""
    stage = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Stage"))
    logged = json.loads(stage["AccessLogSettings"]["Format"]).values()

    assert "$context.connectionId" in logged
    assert [variable for variable in logged if not variable.startswith("$context.")] == []
    assert [variable for variable in logged if "query" in variable.lower() or "header" in variable.lower()] == []
    assert "DataTraceEnabled" not in json.dumps(stage)  # it would log complete requests


def test_stage_logs_access_to_a_group_of_the_stack(template: Template) -> None:
    stage = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Stage"))

    arn = render(stage["AccessLogSettings"]["DestinationArn"])
    names = [f"${{{id_}}}" for id_ in find_resources(template, "AWS::Logs::LogGroup")]
    account = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}"
    assert arn in [f"{account}:log-group:{name}" for name in names]  # API Gateway stores it without `:*`


def test_tests_behind_the_emulator_have_the_functions_memory_and_timeouts(template: Template) -> None:
    found = find_functions(template)

    assert {name: function["Timeout"] for name, function in found.items()} == TIMEOUTS
    assert {str(function["MemorySize"]) for function in found.values()} == {SETTINGS["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]}


def test_websocket_function_has_the_time_that_api_gateway_waits_for_it(template: Template) -> None:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html"""
    assert find_functions(template)["websocket"]["Timeout"] == Limits().integration_seconds


def test_stage_is_deployed_automatically(template: Template) -> None:
    assert get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Stage"))["AutoDeploy"] is True


def test_stage_neither_logs_messages_nor_measures_each_route(template: Template) -> None:
    """Data tracing and execution logs would contain messages and tokens. Metrics of each route cost money."""
    route_settings = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Stage"))["DefaultRouteSettings"]

    assert route_settings == {"ThrottlingRateLimit": 500, "ThrottlingBurstLimit": 1000}


def test_throttle_is_an_argument() -> None:
    template = synthesize_template(throttle=cdk.aws_apigatewayv2.ThrottleSettings(rate_limit=5, burst_limit=10))

    settings = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Stage"))["DefaultRouteSettings"]
    assert settings == {"ThrottlingRateLimit": 5, "ThrottlingBurstLimit": 10}


def test_nothing_has_a_name_that_a_second_stack_would_collide_with() -> None:
    template = synthesize_template(**EVERY_OPTION)
    names = {
        "AlarmName",
        "DashboardName",
        "FunctionName",
        "LogGroupName",
        "ManagedPolicyName",
        "RoleName",
        "TableName",
        "TopicName",
        "UserPoolName",
    }
    resources = template.to_json()["Resources"]

    named = {id_: names & resource.get("Properties", {}).keys() for id_, resource in resources.items()}
    assert {
        id_ for id_ in named if named[id_] and id_ not in find_resources(template, "AWS::Lambda::Permission")
    } == set()


def test_outputs_have_all_that_clients_and_operators_need(template: Template) -> None:
    outputs = read_outputs(template)
    (api,) = find_resources(template, "AWS::ApiGatewayV2::Api")
    (user_pool,) = find_resources(template, "AWS::Cognito::UserPool")
    (client,) = find_resources(template, "AWS::Cognito::UserPoolClient")
    (table,) = find_resources(template, "AWS::DynamoDB::Table")
    (dashboard,) = find_resources(template, "AWS::CloudWatch::Dashboard")
    (policy,) = find_resources(template, "AWS::IAM::ManagedPolicy")
    stage = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Stage"))
    host = f"${{{api}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}"

    assert {name: value for name, value in outputs.items() if name != "PageConfig"} == {
        "Region": "${AWS::Region}",
        "UserPoolId": f"${{{user_pool}}}",
        "AppClientId": f"${{{client}}}",
        "WebSocketEndpoint": f"wss://{host}/prod",
        "CallbackUrl": f"https://{host}/prod",
        "ConnectionTableName": f"${{{table}}}",
        "AuthorizerLogGroup": render(find_functions(template)["authorizer"]["LoggingConfig"]["LogGroup"]),
        "WebSocketLogGroup": render(find_functions(template)["websocket"]["LoggingConfig"]["LogGroup"]),
        "AccessLogGroup": render(stage["AccessLogSettings"]["DestinationArn"]).rpartition(":")[2],
        "DashboardName": f"${{{dashboard}}}",
        "OperatorPolicyArn": f"${{{policy}}}",
    }


def test_page_config_is_json_with_the_settings_of_the_page(template: Template) -> None:
    outputs = read_outputs(template)

    assert json.loads(outputs["PageConfig"]) == {
        "userPoolId": outputs["UserPoolId"],
        "appClientId": outputs["AppClientId"],
        "webSocketEndpoint": outputs["WebSocketEndpoint"],
        "credential": "querystring",
        "selfSignUp": False,
        "passwordPolicy": {
            "minimumLength": 12,
            "requireLowercase": True,
            "requireUppercase": True,
            "requireNumbers": True,
            "requireSymbols": True,
        },
        "allowedOrigins": [],
        "authorizerLogGroup": outputs["AuthorizerLogGroup"],
    }


def test_page_shows_the_password_policy_of_the_user_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weaker = cognito.PasswordPolicy(
        min_length=8, require_lowercase=True, require_uppercase=True, require_digits=False, require_symbols=False
    )
    monkeypatch.setattr(auth, "PASSWORD_POLICY", weaker)

    template = Template.from_stack(build_stack())

    policy = get_only_properties(find_resources(template, "AWS::Cognito::UserPool"))["Policies"]["PasswordPolicy"]
    shown = json.loads(read_outputs(template)["PageConfig"])["passwordPolicy"]
    assert shown == {name[0].lower() + name[1:]: value for name, value in policy.items()}


def test_websocket_function_posts_to_the_url_of_the_outputs(template: Template) -> None:
    variables = find_functions(template)["websocket"]["Environment"]["Variables"]
    outputs = template.to_json()["Outputs"]

    assert variables == {
        "CALLBACK_URL": outputs["CallbackUrl"]["Value"],
        "CONNECTION_TABLE_NAME": outputs["ConnectionTableName"]["Value"],
    }
