"""Each action and resource that the stack's roles and policies allow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from aws_cdk.assertions import Template

from tests.fixtures.stack import (
    EVERY_OPTION,
    find_functions,
    find_resources,
    get_only_properties,
    render,
    synthesize_template,
)

Grants = set[tuple[str, str]]

# The service authorization reference has no resource types for these two actions, so a policy cannot name any.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsx-ray.html
TRACES = {("xray:PutTelemetryRecords", "*"), ("xray:PutTraceSegments", "*")}


@pytest.fixture(scope="module", params=[{}, EVERY_OPTION], ids=["by default", "with every option"])
def template(request: pytest.FixtureRequest) -> Template:
    return synthesize_template(**request.param)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def find_role(template: Template, target: str) -> str:
    role: str = find_functions(template)[target]["Role"]["Fn::GetAtt"][0]
    return role


def find_grants(template: Template, role: str) -> Grants:
    """Return each action and resource that the policies of the stack allow this role."""
    return {
        grant
        for policy in find_resources(template, "AWS::IAM::Policy").values()
        if {"Ref": role} in policy["Properties"]["Roles"]
        for grant in read_grants(policy["Properties"])
    }


def read_grants(policy: dict[str, Any]) -> Grants:
    return {
        (action, render(resource))
        for statement in policy["PolicyDocument"]["Statement"]
        for action, resource in product(as_list(statement["Action"]), as_list(statement["Resource"]))
    }


def find_operator_grants(template: Template) -> Grants:
    return read_grants(get_only_properties(find_resources(template, "AWS::IAM::ManagedPolicy")))


def build_log_grants(template: Template, target: str) -> Grants:
    log_group = find_functions(template)[target]["LoggingConfig"]["LogGroup"]["Ref"]
    return {("logs:CreateLogStream", f"${{{log_group}.Arn}}"), ("logs:PutLogEvents", f"${{{log_group}.Arn}}")}


def find_table(template: Template, attribute: str) -> Iterator[str]:
    """Yield the ARN of the table with this partition key, if the stack has one."""
    for id_, table in find_resources(template, "AWS::DynamoDB::Table").items():
        if table["Properties"]["KeySchema"] == [{"AttributeName": attribute, "KeyType": "HASH"}]:
            yield f"${{{id_}.Arn}}"


def test_authorizer_may_log_and_trace_and_nothing_else(template: Template) -> None:
    """The keys that it downloads are public, and it stores nothing."""
    assert find_grants(template, find_role(template, "authorizer")) == build_log_grants(template, "authorizer") | TRACES


def test_websocket_function_may_also_use_its_tables_and_post_to_connections(template: Template) -> None:
    (api,) = find_resources(template, "AWS::ApiGatewayV2::Api")
    (connections,) = find_table(template, "connectionId")
    stage = f"arn:${{AWS::Partition}}:execute-api:${{AWS::Region}}:${{AWS::AccountId}}:${{{api}}}/prod"

    assert find_grants(template, find_role(template, "websocket")) == {
        *build_log_grants(template, "websocket"),
        *TRACES,
        ("dynamodb:PutItem", connections),
        ("dynamodb:DeleteItem", connections),
        *((f"dynamodb:{each}Item", users) for users in find_table(template, "userId") for each in ("Get", "Update")),
        ("execute-api:ManageConnections", f"{stage}/POST/@connections/*"),
        ("execute-api:ManageConnections", f"{stage}/DELETE/@connections/*"),
    }


def test_operators_may_do_what_the_operator_commands_do(template: Template) -> None:
    (api,) = find_resources(template, "AWS::ApiGatewayV2::Api")
    (user_pool,) = find_resources(template, "AWS::Cognito::UserPool")
    (connections,) = find_table(template, "connectionId")
    here = "${AWS::Region}:${AWS::AccountId}"
    stage = f"arn:${{AWS::Partition}}:execute-api:{here}:${{{api}}}/prod"

    assert find_operator_grants(template) == {
        ("cloudformation:DescribeStacks", f"arn:${{AWS::Partition}}:cloudformation:{here}:stack/Stack/*"),
        ("dynamodb:Query", f"{connections}/index/userIdIndex"),
        *((f"dynamodb:{each}", connections) for each in ("Scan", "GetItem", "UpdateItem", "DeleteItem")),
        *(("dynamodb:UpdateItem", users) for users in find_table(template, "userId")),
        *(
            ("execute-api:ManageConnections", f"{stage}/{method}/@connections/*")
            for method in ("POST", "GET", "DELETE")
        ),
        *(
            (f"cognito-idp:{each}", f"${{{user_pool}.Arn}}")
            for each in ("ListUsers", "AdminGetUser", "AdminDisableUser")
        ),
    }


def test_operators_policy_is_attached_to_nobody(template: Template) -> None:
    policy = get_only_properties(find_resources(template, "AWS::IAM::ManagedPolicy"))

    assert policy.keys() == {"Description", "Path", "PolicyDocument"}


def test_table_of_slots_exists_only_with_the_option() -> None:
    """So the grants above are only in a stack that needs them."""
    assert [*find_table(synthesize_template(), "userId")] == []
    assert len([*find_table(synthesize_template(**EVERY_OPTION), "userId")]) == 1


def test_only_traces_are_on_every_resource_and_no_action_is_a_pattern(template: Template) -> None:
    functions = {grant for role in find_resources(template, "AWS::IAM::Role") for grant in find_grants(template, role)}
    operators = find_operator_grants(template)
    patterns = {grant for grant in functions | operators if "*" in grant[1]}

    assert {action for action, _ in functions | operators if "*" in action or "?" in action} == set()
    assert {grant for grant in patterns if not grant[1].endswith(("/@connections/*", ":stack/Stack/*"))} == TRACES


def test_roles_are_those_of_the_functions_and_the_accounts_for_logs(template: Template) -> None:
    account = get_only_properties(find_resources(template, "AWS::ApiGateway::Account"))

    assert find_resources(template, "AWS::IAM::Role").keys() == {
        find_role(template, "authorizer"),
        find_role(template, "websocket"),
        account["CloudWatchRoleArn"]["Fn::GetAtt"][0],
    }


@pytest.mark.parametrize("target", ["authorizer", "websocket"])
def test_function_has_no_managed_policy_and_its_role_is_for_lambda_only(template: Template, target: str) -> None:
    role = find_resources(template, "AWS::IAM::Role")[find_role(template, target)]["Properties"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]

    assert role.keys() == {"AssumeRolePolicyDocument"}
    assert statement == {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": "lambda.amazonaws.com"},
    }


def test_accounts_role_for_logs_has_only_the_policy_that_aws_provides_for_it(template: Template) -> None:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html"""
    id_ = get_only_properties(find_resources(template, "AWS::ApiGateway::Account"))["CloudWatchRoleArn"]["Fn::GetAtt"][
        0
    ]
    role = find_resources(template, "AWS::IAM::Role")[id_]["Properties"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]

    assert role.keys() == {"AssumeRolePolicyDocument", "ManagedPolicyArns"}
    assert [render(arn).partition(":iam::")[2] for arn in role["ManagedPolicyArns"]] == [
        "aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
    ]
    assert statement["Principal"] == {"Service": "apigateway.amazonaws.com"}
    assert find_grants(template, id_) == set()


def test_policies_only_allow_and_no_user_or_group_has_one(template: Template) -> None:
    """So the grants above are complete: there is no condition, no NotAction, no user and no group."""
    policies = [policy["Properties"] for policy in find_resources(template, "AWS::IAM::Policy").values()]
    every = [*policies, get_only_properties(find_resources(template, "AWS::IAM::ManagedPolicy"))]
    statements = [statement for policy in every for statement in policy["PolicyDocument"]["Statement"]]

    assert {frozenset(policy) for policy in policies} == {frozenset({"PolicyDocument", "PolicyName", "Roles"})}
    assert {frozenset(statement) for statement in statements} == {frozenset({"Action", "Effect", "Resource"})}
    assert {statement["Effect"] for statement in statements} == {"Allow"}


def test_nothing_else_of_the_stack_grants_anything(template: Template) -> None:
    """Other tests check the permissions to invoke the functions and to publish alarms."""
    resources = template.to_json()["Resources"].values()
    granting = {each["Type"] for each in resources if re.search("IAM|Policy|Permission|Grant", each["Type"])}

    assert granting - {"AWS::SNS::TopicPolicy"} == {
        "AWS::IAM::Role",
        "AWS::IAM::Policy",
        "AWS::IAM::ManagedPolicy",
        "AWS::Lambda::Permission",
    }
    assert [each for each in resources if "ResourcePolicy" in each.get("Properties", {})] == []
