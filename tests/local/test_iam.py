"""Policy statements and what they allow, who is refused with which words, and which grants nobody has used."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from local.aws.iam import (
    ADMINISTRATOR,
    Iam,
    PolicyError,
    Role,
    Session,
    Statement,
    UnknownAccessKeyError,
    effect,
    matches,
    parse_policy,
)

TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/Connections"
OTHER = "arn:aws:dynamodb:us-east-1:000000000000:table/Rooms"
POSTS = "arn:aws:execute-api:us-east-1:000000000000:localapi00/prod/POST/@connections/"
SESSION_ARN = "arn:aws:sts::000000000000:assumed-role/WebSocketRole/WebSocketFunction"
VALID: dict[str, Any] = {"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": TABLE}


def statement(**elements: Any) -> Statement:
    """A valid statement with elements replaced; None drops one."""
    return Statement.parse({name: value for name, value in {**VALID, **elements}.items() if value is not None})


def allow(*actions: str, on: str = TABLE) -> Statement:
    return Statement("Allow", actions, (on,))


def deny(*actions: str, on: str = TABLE) -> Statement:
    return Statement("Deny", actions, (on,))


# Parsing


@pytest.mark.parametrize(
    ("elements", "parsed"),
    [
        ({}, Statement("Allow", ("dynamodb:PutItem",), (TABLE,))),
        ({"Sid": "Rows", "Effect": "Deny"}, Statement("Deny", ("dynamodb:PutItem",), (TABLE,))),
        ({"Action": ["a:B", "c:*"], "Resource": ["x", "y"]}, Statement("Allow", ("a:B", "c:*"), ("x", "y"))),
        (
            {"Action": None, "NotAction": "a:B"},
            Statement("Allow", ("a:B",), (TABLE,), all_actions_but=True),
        ),
        (
            {"Resource": None, "NotResource": ["x"]},
            Statement("Allow", ("dynamodb:PutItem",), ("x",), all_resources_but=True),
        ),
    ],
    ids=str,
)
def test_statement_is_read_in_all_its_forms(elements: dict[str, Any], parsed: Statement) -> None:
    assert statement(**elements) == parsed


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ({"Effect": None}, "Effect"),
        ({"Effect": "allow"}, "Effect"),
        ({"Action": None}, "either Action or NotAction"),
        ({"NotAction": "a:B"}, "either Action or NotAction"),
        ({"Resource": None}, "either Resource or NotResource"),
        ({"NotResource": "x"}, "either Resource or NotResource"),
        ({"Action": 1}, "Action must be a string"),
        ({"Action": ["a:B", {"Ref": "C"}]}, "Action must be a string"),
        ({"Resource": {"Ref": "Table"}}, "Resource must be a string"),
        ({"Resource": None, "NotResource": [None]}, "NotResource must be a string"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}}, "Condition of a statement"),
        ({"Principal": "*", "Condition": {}}, "Condition, Principal of a statement"),
    ],
    ids=str,
)
def test_statement_that_cannot_be_evaluated_is_refused_by_name(elements: dict[str, Any], named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        statement(**elements)


@pytest.mark.parametrize("value", [None, "Allow", [VALID], 1])
def test_statement_is_an_object(value: object) -> None:
    with pytest.raises(PolicyError, match="Effect"):
        Statement.parse(value)


def test_policy_has_one_statement_or_a_list_of_them() -> None:
    one = parse_policy({"Version": "2012-10-17", "Statement": VALID})
    two = parse_policy({"Version": "2012-10-17", "Statement": [VALID, {**VALID, "Effect": "Deny"}]})

    assert (one, two) == ((statement(),), (statement(), statement(Effect="Deny")))


@pytest.mark.parametrize("document", [None, [], "Allow", {}, {"Version": "2012-10-17"}])
def test_policy_without_a_statement_is_refused(document: object) -> None:
    with pytest.raises(PolicyError, match="Statement"):
        parse_policy(document)


# Matching


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("*", "arn:aws:s3:::bucket/a/b"),
        ("*", ""),
        ("arn:*", "arn:aws:s3:::bucket/a/b"),
        ("arn:aws:execute-api:*/@connections/*", POSTS + "L0SM9cOFvHcCIhw="),
        ("table/Conn*ons", "table/Connections"),
        ("table/Conn*ons", "table/Connons"),
        ("table/?oom", "table/Room"),
        ("table/Ro?m", "table/Ro:m"),
        ("table/[ab]", "table/[ab]"),
        ("table/[!a]*", "table/[!a]b"),
        ("a]b", "a]b"),
    ],
)
def test_star_is_anything_and_question_mark_one_character(pattern: str, value: str) -> None:
    """Brackets are themselves: in IAM they mean nothing."""
    assert matches(pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("table/Rooms", "table/Room"),
        ("table/Room", "table/Rooms"),
        ("table/?oom", "table/oom"),
        ("table/Room?", "table/Room"),
        ("table/[ab]", "table/a"),
        ("table/[!a]", "table/b"),
        ("a.c", "abc"),
        ("", "a"),
        ("table/rooms", "table/Rooms"),
    ],
)
def test_everything_else_must_be_equal(pattern: str, value: str) -> None:
    assert not matches(pattern, value)


@pytest.mark.parametrize("pattern", ["dynamodb:PutItem", "DynamoDB:putitem", "dynamodb:*Item", "dynamodb:???Item", "*"])
def test_actions_are_compared_without_case(pattern: str) -> None:
    assert statement(Action=pattern).covers("dynamodb:PutItem", TABLE)


def test_resources_are_compared_with_case() -> None:
    assert not statement(Resource=TABLE.lower()).covers("dynamodb:PutItem", TABLE)


@pytest.mark.parametrize(("action", "resource"), [("dynamodb:GetItem", TABLE), ("dynamodb:PutItem", OTHER)])
def test_statement_covers_only_its_actions_on_its_resources(action: str, resource: str) -> None:
    assert not statement().covers(action, resource)


def test_one_of_several_actions_and_resources_is_enough() -> None:
    several = statement(Action=["dynamodb:GetItem", "dynamodb:PutItem"], Resource=[OTHER, TABLE])

    assert several.covers("dynamodb:PutItem", TABLE)


def test_not_action_covers_every_other_action() -> None:
    all_but = statement(Action=None, NotAction=["dynamodb:Delete*", "iam:*"])

    covered = [all_but.covers(f"dynamodb:{operation}", TABLE) for operation in ("PutItem", "DeleteItem", "deletetable")]
    assert covered == [True, False, False]


def test_not_resource_covers_every_other_resource() -> None:
    all_but = statement(Resource=None, NotResource=[OTHER, "arn:aws:s3:::*"])

    covered = [all_but.covers("dynamodb:PutItem", resource) for resource in (TABLE, OTHER, "arn:aws:s3:::bucket")]
    assert covered == [True, False, False]


# Evaluation


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([], None),
        ([allow("dynamodb:GetItem")], None),
        ([deny("dynamodb:GetItem")], None),
        ([allow("dynamodb:*")], "Allow"),
        ([deny("dynamodb:*")], "Deny"),
        ([allow("*"), deny("dynamodb:PutItem")], "Deny"),
        ([deny("dynamodb:PutItem"), allow("dynamodb:PutItem")], "Deny"),
        ([deny("dynamodb:PutItem", on=OTHER), allow("dynamodb:PutItem")], "Allow"),
    ],
    ids=str,
)
def test_deny_beats_allow_and_nothing_is_allowed_by_itself(statements: list[Statement], expected: str | None) -> None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html."""
    assert effect(statements, "dynamodb:PutItem", TABLE) == expected


# Authorization


def session(iam: Iam, *statements: Statement, function: str = "websocket") -> Session:
    return iam.open_session(function, Role("WebSocketRole", statements), SESSION_ARN)


def test_role_may_do_what_its_policies_allow() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem")).access_key_id

    assert iam.authorize(key, "dynamodb:PutItem", TABLE) is None
    assert iam.advice == {}


def test_role_is_refused_what_no_policy_allows_in_the_words_of_aws() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem")).access_key_id

    refused = iam.authorize(key, "dynamodb:Query", f"{TABLE}/index/userIdIndex")

    assert refused
    assert refused.message == (
        f"User: {SESSION_ARN} is not authorized to perform: dynamodb:Query on resource: {TABLE}/index/userIdIndex "
        "because no identity-based policy allows the dynamodb:Query action"
    )


def test_role_is_refused_what_a_policy_denies_in_the_words_of_aws() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:*"), deny("dynamodb:PutItem")).access_key_id

    refused = iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert refused
    assert refused.message == (
        f"User: {SESSION_ARN} is not authorized to perform: dynamodb:PutItem on resource: {TABLE} "
        "with an explicit deny in an identity-based policy"
    )


def test_refusal_says_which_statement_to_add(caplog: pytest.LogCaptureFixture) -> None:
    iam = Iam()
    key = session(iam).access_key_id

    with caplog.at_level(logging.WARNING):
        iam.authorize(key, "dynamodb:PutItem", TABLE)

    expected = (
        "websocket may not dynamodb:PutItem: add to role WebSocketRole the statement "
        f'{{"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": "{TABLE}"}}'
    )
    assert [*iam.advice] == [expected]
    assert caplog.messages == [expected]


def test_statement_to_add_is_json_and_allows_the_call_and_the_next() -> None:
    iam = Iam()
    key = session(iam).access_key_id
    refused = iam.authorize(key, "execute-api:ManageConnections", f"{POSTS}a", advised=f"{POSTS}*")
    assert refused
    _, _, advised = refused.advice.partition("the statement ")

    added = session(iam, Statement.parse(json.loads(advised))).access_key_id

    assert (refused.resource, refused.explicit) == (f"{POSTS}*", False)
    assert iam.authorize(added, "execute-api:ManageConnections", f"{POSTS}a") is None
    assert iam.authorize(added, "execute-api:ManageConnections", f"{POSTS}b") is None


def test_explicit_deny_is_to_be_removed_since_no_statement_helps() -> None:
    iam = Iam()

    iam.authorize(session(iam, deny("*", on="*")).access_key_id, "dynamodb:PutItem", TABLE)

    assert [*iam.advice] == [
        f"websocket may not dynamodb:PutItem: remove the Deny on dynamodb:PutItem for {TABLE} from role WebSocketRole"
    ]


def test_advice_is_given_once_and_in_turn() -> None:
    iam = Iam()
    key = session(iam).access_key_id

    for action in ("dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:PutItem"):
        iam.authorize(key, action, TABLE)

    assert [advice.split()[3] for advice in iam.advice] == ["dynamodb:PutItem:", "dynamodb:DeleteItem:"]


def test_each_role_is_asked_for_itself() -> None:
    iam = Iam()
    guard = session(iam, function="authorizer")
    rooms = session(iam, allow("dynamodb:PutItem"))

    refused = [iam.authorize(each.access_key_id, "dynamodb:PutItem", TABLE) for each in (guard, rooms)]

    assert [each and each.session for each in refused] == [guard, None]


def test_sessions_share_no_credentials() -> None:
    iam = Iam()
    one, other = session(iam).environment(), session(iam).environment()

    assert one.keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert not {*one.values()} & {*other.values()}
    assert one["AWS_ACCESS_KEY_ID"].startswith("ASIA")  # as of every assumed role


@pytest.mark.parametrize("enforced", [True, False])
def test_access_key_of_nobody_is_unknown(enforced: bool) -> None:
    iam = Iam(enforced=enforced)
    session(iam, allow("*", on="*"))

    with pytest.raises(UnknownAccessKeyError):
        iam.authorize("ASIA0000000000000000", "dynamodb:PutItem", TABLE)


def test_administrator_may_do_everything() -> None:
    iam = Iam()

    assert iam.authorize(ADMINISTRATOR, "iam:CreateUser", "*") is None
    assert iam.advice == {}


@pytest.mark.parametrize("statements", [(), (deny("*", on="*"),)], ids=["implicit", "explicit"])
def test_everybody_may_do_everything_where_iam_is_off(statements: tuple[Statement, ...]) -> None:
    iam = Iam(enforced=False)

    assert iam.authorize(session(iam, *statements).access_key_id, "dynamodb:PutItem", TABLE) is None
    assert iam.advice == {}


# Grants that nobody has used


def test_unused_grants_are_listed_with_function_and_resources() -> None:
    iam = Iam()
    row = Statement("Allow", ("dynamodb:PutItem", "dynamodb:DeleteItem"), (TABLE, f"{TABLE}/index/*"))
    key = session(iam, row).access_key_id

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert [*iam.unused(["dynamodb"])] == [f"websocket: dynamodb:DeleteItem on {TABLE}, {TABLE}/index/*"]


@pytest.mark.parametrize("pattern", ["dynamodb:*", "DynamoDB:*Item", "dynamodb:PutIte?", "dynamodb:putitem"])
def test_pattern_is_used_as_soon_as_anything_matches_it(pattern: str) -> None:
    iam = Iam()
    key = session(iam, allow(pattern)).access_key_id
    before = [*iam.unused(["dynamodb"])]

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert (before, [*iam.unused(["dynamodb"])]) == ([f"websocket: {pattern} on {TABLE}"], [])


def test_refused_call_uses_no_grant() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem", on=OTHER), allow("dynamodb:GetItem")).access_key_id

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert len([*iam.unused(["dynamodb"])]) == 2


def test_grants_count_as_used_where_iam_is_off_too() -> None:
    iam = Iam(enforced=False)
    key = session(iam, allow("dynamodb:PutItem", "dynamodb:GetItem")).access_key_id

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert [*iam.unused(["dynamodb"])] == [f"websocket: dynamodb:GetItem on {TABLE}"]


def test_same_grant_of_two_functions_is_used_by_each_for_itself() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem"), function="one").access_key_id
    session(iam, allow("dynamodb:PutItem"), function="other")

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert [*iam.unused(["dynamodb"])] == [f"other: dynamodb:PutItem on {TABLE}"]


def test_services_that_are_not_run_locally_are_left_out() -> None:
    iam = Iam()
    session(iam, allow("logs:PutLogEvents", "xray:*", "*", on="*"), allow("DynamoDB:GetItem"))

    assert [*iam.unused(["dynamodb"])] == [f"websocket: DynamoDB:GetItem on {TABLE}"]


def test_denials_and_not_actions_are_no_grants_to_be_used() -> None:
    iam = Iam()
    session(iam, deny("dynamodb:*"), statement(Action=None, NotAction="dynamodb:GetItem"))

    assert [*iam.unused(["dynamodb"])] == []


def test_policy_variable_is_refused() -> None:
    resource = "arn:aws:dynamodb:*:*:table/${aws:PrincipalTag/team}"

    with pytest.raises(PolicyError, match="a policy variable in Resource"):
        Statement.parse({"Effect": "Allow", "Action": "dynamodb:*", "Resource": resource})
