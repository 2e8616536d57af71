"""Policies, denied calls with their advice, and unused grants."""

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
    evaluate,
    matches,
    parse_policy,
)

TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/Connections"
OTHER = "arn:aws:dynamodb:us-east-1:000000000000:table/Rooms"
POSTS = "arn:aws:execute-api:us-east-1:000000000000:localapi00/prod/POST/@connections/"
SESSION_ARN = "arn:aws:sts::000000000000:assumed-role/WebSocketRole/WebSocketFunction"
VALID: dict[str, Any] = {"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": TABLE}


def statement(**elements: Any) -> Statement:
    """Return a valid statement with elements replaced; None removes one."""
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
            Statement("Allow", ("a:B",), (TABLE,), not_action=True),
        ),
        (
            {"Resource": None, "NotResource": ["x"]},
            Statement("Allow", ("dynamodb:PutItem",), ("x",), not_resource=True),
        ),
    ],
    ids=str,
)
def test_statement_is_parsed(elements: dict[str, Any], parsed: Statement) -> None:
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
        ({"Condition": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}}, "Condition cannot be"),
        ({"Principal": "*", "Condition": {}}, "Condition, Principal cannot be"),
    ],
    ids=str,
)
def test_error_names_the_element_that_cannot_be_evaluated(elements: dict[str, Any], named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        statement(**elements)


@pytest.mark.parametrize("value", [None, "Allow", [VALID], 1])
def test_statement_must_be_an_object(value: object) -> None:
    with pytest.raises(PolicyError, match="Effect"):
        Statement.parse(value)


def test_policy_has_one_statement_or_a_list_of_them() -> None:
    one = parse_policy({"Version": "2012-10-17", "Statement": VALID})
    two = parse_policy({"Version": "2012-10-17", "Statement": [VALID, {**VALID, "Effect": "Deny"}]})

    assert (one, two) == ((statement(),), (statement(), statement(Effect="Deny")))


@pytest.mark.parametrize("document", [None, [], "Allow", {}, {"Version": "2012-10-17"}])
def test_policy_must_have_a_statement(document: object) -> None:
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
    """Brackets have no meaning in IAM."""
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
def test_other_characters_must_be_equal(pattern: str, value: str) -> None:
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


def test_not_action_covers_all_other_actions() -> None:
    statement_ = statement(Action=None, NotAction=["dynamodb:Delete*", "iam:*"])

    covered = [
        statement_.covers(f"dynamodb:{operation}", TABLE) for operation in ("PutItem", "DeleteItem", "deletetable")
    ]
    assert covered == [True, False, False]


def test_not_resource_covers_all_other_resources() -> None:
    statement_ = statement(Resource=None, NotResource=[OTHER, "arn:aws:s3:::*"])

    covered = [statement_.covers("dynamodb:PutItem", resource) for resource in (TABLE, OTHER, "arn:aws:s3:::bucket")]
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
def test_deny_overrides_allow_and_the_default_is_no_effect(statements: list[Statement], expected: str | None) -> None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html."""
    assert evaluate(statements, "dynamodb:PutItem", TABLE) == expected


# Authorization


def session(iam: Iam, *statements: Statement, function: str = "websocket") -> Session:
    return iam.open_session(function, Role("WebSocketRole", statements), SESSION_ARN)


def test_role_may_do_what_its_policies_allow() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem")).access_key_id

    assert iam.authorize(key, "dynamodb:PutItem", TABLE) is None
    assert iam.advice == {}


def test_implicit_denial_has_the_message_of_aws() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem")).access_key_id

    denial = iam.authorize(key, "dynamodb:Query", f"{TABLE}/index/userIdIndex")

    assert denial
    assert denial.message == (
        f"User: {SESSION_ARN} is not authorized to perform: dynamodb:Query on resource: {TABLE}/index/userIdIndex "
        "because no identity-based policy allows the dynamodb:Query action"
    )


def test_explicit_denial_has_the_message_of_aws() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:*"), deny("dynamodb:PutItem")).access_key_id

    denial = iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert denial
    assert denial.message == (
        f"User: {SESSION_ARN} is not authorized to perform: dynamodb:PutItem on resource: {TABLE} "
        "with an explicit deny in an identity-based policy"
    )


def test_advice_for_an_implicit_denial_is_to_add_a_statement(caplog: pytest.LogCaptureFixture) -> None:
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


def test_advised_statement_allows_the_call() -> None:
    iam = Iam()
    key = session(iam).access_key_id
    denial = iam.authorize(key, "execute-api:ManageConnections", f"{POSTS}a", advised=f"{POSTS}*")
    assert denial
    _, _, advised = denial.advice.partition("the statement ")

    added = session(iam, Statement.parse(json.loads(advised))).access_key_id

    assert (denial.resource, denial.explicit) == (f"{POSTS}*", False)
    assert iam.authorize(added, "execute-api:ManageConnections", f"{POSTS}a") is None
    assert iam.authorize(added, "execute-api:ManageConnections", f"{POSTS}b") is None


def test_advice_for_an_explicit_denial_is_to_remove_the_deny() -> None:
    iam = Iam()

    iam.authorize(session(iam, deny("*", on="*")).access_key_id, "dynamodb:PutItem", TABLE)

    assert [*iam.advice] == [
        f"websocket may not dynamodb:PutItem: remove the Deny on dynamodb:PutItem for {TABLE} from role WebSocketRole"
    ]


def test_advice_is_kept_once_and_in_order() -> None:
    iam = Iam()
    key = session(iam).access_key_id

    for action in ("dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:PutItem"):
        iam.authorize(key, action, TABLE)

    assert [advice.split()[3] for advice in iam.advice] == ["dynamodb:PutItem:", "dynamodb:DeleteItem:"]


def test_each_session_has_its_own_role() -> None:
    iam = Iam()
    guard = session(iam, function="authorizer")
    rooms = session(iam, allow("dynamodb:PutItem"))

    denials = [iam.authorize(each.access_key_id, "dynamodb:PutItem", TABLE) for each in (guard, rooms)]

    assert [denial and denial.session for denial in denials] == [guard, None]


def test_each_session_has_its_own_credentials() -> None:
    iam = Iam()
    one, other = session(iam).build_environment(), session(iam).build_environment()

    assert one.keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert not {*one.values()} & {*other.values()}
    assert one["AWS_ACCESS_KEY_ID"].startswith("ASIA")  # as of every assumed role


@pytest.mark.parametrize("enforced", [True, False])
def test_unknown_access_key_is_an_error(enforced: bool) -> None:
    iam = Iam(enforced=enforced)
    session(iam, allow("*", on="*"))

    with pytest.raises(UnknownAccessKeyError):
        iam.authorize("ASIA0000000000000000", "dynamodb:PutItem", TABLE)


def test_administrator_may_do_everything() -> None:
    iam = Iam()

    assert iam.authorize(ADMINISTRATOR, "iam:CreateUser", "*") is None
    assert iam.advice == {}


@pytest.mark.parametrize("statements", [(), (deny("*", on="*"),)], ids=["implicit", "explicit"])
def test_everything_is_allowed_if_iam_is_not_enforced(statements: tuple[Statement, ...]) -> None:
    iam = Iam(enforced=False)

    assert iam.authorize(session(iam, *statements).access_key_id, "dynamodb:PutItem", TABLE) is None
    assert iam.advice == {}


# Changed roles


def test_session_with_another_role_keeps_its_credentials() -> None:
    iam = Iam()
    rooms = session(iam, allow("dynamodb:PutItem"))
    other = iam.open_session(
        "websocket", Role("Other", (allow("dynamodb:PutItem"),)), "arn:aws:sts::0:assumed-role/Other/Alias"
    )
    before = rooms.build_environment()

    iam.update_role("WebSocketFunction", Role("NewRole", (allow("dynamodb:GetItem"),)))

    assert rooms.build_environment() == before
    assert rooms.arn == SESSION_ARN.replace("WebSocketRole", "NewRole")
    assert iam.authorize(rooms.access_key_id, "dynamodb:GetItem", TABLE) is None
    assert iam.authorize(rooms.access_key_id, "dynamodb:PutItem", TABLE)
    assert iam.authorize(other.access_key_id, "dynamodb:PutItem", TABLE) is None


def test_statement_of_the_new_role_that_was_used_before_stays_used() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem")).access_key_id
    iam.authorize(key, "dynamodb:PutItem", TABLE)

    iam.update_role("WebSocketFunction", Role("WebSocketRole", (allow("dynamodb:PutItem"), allow("dynamodb:GetItem"))))

    assert [*iam.unused_grants(["dynamodb"])] == [f"websocket: dynamodb:GetItem on {TABLE}"]


# Unused grants


def test_unused_grants_are_listed_with_function_and_resources() -> None:
    iam = Iam()
    row = Statement("Allow", ("dynamodb:PutItem", "dynamodb:DeleteItem"), (TABLE, f"{TABLE}/index/*"))
    key = session(iam, row).access_key_id

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert [*iam.unused_grants(["dynamodb"])] == [f"websocket: dynamodb:DeleteItem on {TABLE}, {TABLE}/index/*"]


@pytest.mark.parametrize("pattern", ["dynamodb:*", "DynamoDB:*Item", "dynamodb:PutIte?", "dynamodb:putitem"])
def test_pattern_is_used_as_soon_as_a_call_matches_it(pattern: str) -> None:
    iam = Iam()
    key = session(iam, allow(pattern)).access_key_id
    before = [*iam.unused_grants(["dynamodb"])]

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert (before, [*iam.unused_grants(["dynamodb"])]) == ([f"websocket: {pattern} on {TABLE}"], [])


def test_denied_call_uses_no_grant() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem", on=OTHER), allow("dynamodb:GetItem")).access_key_id

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert len([*iam.unused_grants(["dynamodb"])]) == 2


def test_grants_are_recorded_as_used_if_iam_is_not_enforced() -> None:
    iam = Iam(enforced=False)
    key = session(iam, allow("dynamodb:PutItem", "dynamodb:GetItem")).access_key_id

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert [*iam.unused_grants(["dynamodb"])] == [f"websocket: dynamodb:GetItem on {TABLE}"]


def test_grant_of_two_functions_may_be_unused_by_one() -> None:
    iam = Iam()
    key = session(iam, allow("dynamodb:PutItem"), function="one").access_key_id
    session(iam, allow("dynamodb:PutItem"), function="other")

    iam.authorize(key, "dynamodb:PutItem", TABLE)

    assert [*iam.unused_grants(["dynamodb"])] == [f"other: dynamodb:PutItem on {TABLE}"]


def test_grants_of_other_services_are_left_out() -> None:
    iam = Iam()
    session(iam, allow("logs:PutLogEvents", "xray:*", "*", on="*"), allow("DynamoDB:GetItem"))

    assert [*iam.unused_grants(["dynamodb"])] == [f"websocket: DynamoDB:GetItem on {TABLE}"]


def test_denies_and_not_actions_are_left_out() -> None:
    iam = Iam()
    session(iam, deny("dynamodb:*"), statement(Action=None, NotAction="dynamodb:GetItem"))

    assert [*iam.unused_grants(["dynamodb"])] == []


def test_policy_variable_cannot_be_evaluated() -> None:
    resource = "arn:aws:dynamodb:*:*:table/${aws:PrincipalTag/team}"

    with pytest.raises(PolicyError, match="a policy variable in Resource"):
        Statement.parse({"Effect": "Allow", "Action": "dynamodb:*", "Resource": resource})
