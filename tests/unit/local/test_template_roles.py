"""The statements of a function's role, from every place where a template can define them."""

from __future__ import annotations

from typing import Any

import pytest

from local.aws.iam import Role, Statement
from local.errors import TemplateError
from tests.fixtures.templates import LAMBDA_ARN, Read, Resource, arn, build_resources, function, resource, role

PUT = Statement("Allow", ("dynamodb:PutItem",), ("arn:aws:dynamodb:us-east-1:000000000000:table/rows",))
POLICY = {"Statement": [{"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": arn("Rows")}]}
ROLE = {"Ref": "Role"}


def read_role(read: Read, own_role: Resource, **others: Resource) -> Role:
    """Return the role of the function `Rooms`."""
    table = resource("DynamoDB::Table", TableName="rows")
    return (
        read(**build_resources(Role=own_role, Rows=table, **others))
        .resolve()
        .functions[f"{LAMBDA_ARN}:Chat-Rooms"]
        .role
    )


@pytest.mark.parametrize(
    ("own_role", "others"),
    [
        (role(Policies=[{"PolicyName": "put", "PolicyDocument": POLICY}]), {}),
        (role(), {"Put": resource("IAM::Policy", PolicyName="put", PolicyDocument=POLICY, Roles=[ROLE])}),
        (role(), {"Put": resource("IAM::RolePolicy", PolicyName="put", PolicyDocument=POLICY, RoleName=ROLE)}),
        (role(), {"Put": resource("IAM::ManagedPolicy", PolicyDocument=POLICY, Roles=[ROLE])}),
        (role(ManagedPolicyArns=[{"Ref": "Put"}]), {"Put": resource("IAM::ManagedPolicy", PolicyDocument=POLICY)}),
    ],
    ids=["inline", "policy", "role policy", "managed policy with its roles", "role with its managed policies"],
)
def test_policy_counts_wherever_it_is_written(read: Read, own_role: Resource, others: dict[str, Resource]) -> None:
    assert read_role(read, own_role, **others) == Role("Chat-Role", (PUT,))


def test_policies_add_up(read: Read) -> None:
    inline = role(Policies=[{"PolicyName": "put", "PolicyDocument": POLICY}])
    deny = {"Statement": {"Effect": "Deny", "Action": ["dynamodb:*"], "NotResource": "*"}}

    found = read_role(read, inline, No=resource("IAM::Policy", PolicyName="no", PolicyDocument=deny, Roles=[ROLE]))

    assert found.statements == (PUT, Statement("Deny", ("dynamodb:*",), ("*",), not_resource=True))


@pytest.mark.parametrize("action", ["s3:GetObject", ["kms:Decrypt", "S3:*"]])
def test_statement_for_services_that_are_not_run_is_ignored(read: Read, action: object) -> None:
    other = {
        "Effect": "Allow",
        "Action": action,
        "Resource": {"Fn::ImportValue": "arn-of-another-stack"},
        "Condition": {"Bool": {"aws:SecureTransport": "true"}},
    }
    document = {"Statement": [other, *POLICY["Statement"]]}

    found = read_role(read, role(Policies=[{"PolicyName": "both", "PolicyDocument": document}]))

    assert found.statements == (PUT,)


@pytest.mark.parametrize("action", ["*", "d*:PutItem", ["s3:*", "dynamodb:GetItem"]])
def test_condition_of_a_statement_that_may_cover_a_local_service_is_refused(read: Read, action: object) -> None:
    statement = {"Effect": "Allow", "Action": action, "Resource": "*", "Condition": {"Bool": {"x": "true"}}}

    with pytest.raises(
        TemplateError,
        match=r"^Role: policy p: statement 1: Condition cannot be evaluated locally; leave it out of the local run$",
    ):
        read_role(read, role(Policies=[{"PolicyName": "p", "PolicyDocument": {"Statement": statement}}]))


@pytest.mark.parametrize("type_", ["IAM::Policy", "IAM::ManagedPolicy"])
def test_policy_of_another_role_does_not_count(read: Read, type_: str) -> None:
    others = resource(type_, PolicyDocument=POLICY, Roles=[{"Ref": "Other"}])

    assert read_role(read, role(), Other=role(), Put=others).statements == ()


def test_role_may_be_known_by_its_own_name(read: Read) -> None:
    put = resource("IAM::Policy", PolicyDocument=POLICY, Roles=["archivist"])

    assert read_role(read, role(RoleName="archivist"), Put=put) == Role("archivist", (PUT,))


@pytest.mark.parametrize("name", ["service-role/AWSLambdaBasicExecutionRole", "AWSXRayDaemonWriteAccess"])
def test_policy_of_aws_for_logs_or_traces_allows_nothing_that_is_run(read: Read, name: str) -> None:
    policy_arn = {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, f":iam::aws:policy/{name}"]]}

    assert read_role(read, role(ManagedPolicyArns=[policy_arn])).statements == ()


def test_policy_may_name_a_role_of_another_stack_too(read: Read) -> None:
    put = resource("IAM::Policy", PolicyDocument=POLICY, Roles=[{"Fn::ImportValue": "role"}, {"Ref": "Role"}])

    assert read_role(read, role(), Put=put).statements == (PUT,)


def test_each_function_has_its_own_role(read: Read) -> None:
    strong = role(Policies=[{"PolicyName": "put", "PolicyDocument": POLICY}])
    rooms = function("rooms", Role=arn("Strong"))
    table = resource("DynamoDB::Table", TableName="rows")

    functions = read(**build_resources(Rooms=rooms, Strong=strong, Rows=table)).resolve().functions

    assert {each.target: each.role for each in functions.values()} == {
        "rooms": Role("Chat-Strong", (PUT,)),
        "guard": Role("Chat-Role", ()),
    }


# Roles that cannot be evaluated


def build_policy(**elements: object) -> dict[str, Any]:
    return {"Statement": [{"Effect": "Allow", "Action": "dynamodb:*", "Resource": "*", **elements}]}


CONDITION = {"StringEquals": {"aws:PrincipalTag/team": "chat"}}


@pytest.mark.parametrize(
    ("own_role", "others", "named"),
    [
        (
            role(ManagedPolicyArns=["arn:aws:iam::aws:policy/AdministratorAccess"]),
            {},
            "Role: arn:aws:iam::aws:policy/A",
        ),
        (role(PermissionsBoundary="arn:aws:iam::aws:policy/PowerUserAccess"), {}, "Role: PermissionsBoundary"),
        (
            role(Policies=[{"PolicyName": "p", "PolicyDocument": build_policy(Condition=CONDITION)}]),
            {},
            "Role: policy p: statement 1: Condition",
        ),
        (
            role(),
            {"Put": resource("IAM::Policy", PolicyDocument=build_policy(Effect="allow"), Roles=[ROLE])},
            "Put: ",
        ),
        (role(), {"Put": resource("IAM::Policy", PolicyDocument={}, Roles=[ROLE])}, "Put: "),
    ],
    ids=["unknown policy of AWS", "boundary", "condition", "bad effect", "no statement"],
)
def test_role_that_cannot_be_evaluated_is_named(
    read: Read, own_role: Resource, others: dict[str, Resource], named: str
) -> None:
    with pytest.raises(TemplateError) as error:
        read_role(read, own_role, **others)

    assert str(error.value).startswith(named)


def test_role_from_elsewhere_is_named(read: Read) -> None:
    elsewhere = "arn:aws:iam::000000000000:role/elsewhere"

    with pytest.raises(TemplateError, match=f"^Rooms: Role {elsewhere} is no role of the template"):
        read(**build_resources(Rooms=function("rooms", Role=elsewhere))).resolve()


def test_function_without_a_role_is_named(read: Read) -> None:
    rooms = function("rooms")
    del rooms["Properties"]["Role"]

    with pytest.raises(TemplateError, match="Rooms: Role"):
        read(**build_resources(Rooms=rooms)).resolve()
