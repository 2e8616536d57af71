"""What an authorizer's answer does to the opening handshake."""

from __future__ import annotations

from typing import Any

import pytest

from local.apigateway import gateway
from local.apigateway.gateway import Refusal
from local.lambda_.invocation import Invocation
from tests.local.conftest import METHOD_ARN, allow

ARN = METHOD_ARN.removesuffix("/prod/$connect")


def status(decision: object) -> int:
    """What the client gets to see of it."""
    return decision.status if isinstance(decision, Refusal) else 101


# The policy


def statement(resource: object = METHOD_ARN, effect: str = "Allow", action: object = "execute-api:Invoke") -> Any:
    return {"Action": action, "Effect": effect, "Resource": resource}


def authorization(answer: object) -> dict[str, Any] | Refusal:
    return gateway.authorization(Invocation(answer), METHOD_ARN)


def policy_status(*statements: object) -> int:
    return status(authorization(allow() | {"policyDocument": {"Statement": list(statements)}}))


@pytest.mark.parametrize(
    "resource",
    [
        METHOD_ARN,
        f"{ARN}/prod/*",
        f"{ARN}/*",
        "*",
        "arn:aws:execute-api:*:*:*/prod/$conn*",
        f"{ARN}/prod/$conn?ct",
        f"{ARN}/????/$connect",
        [f"{ARN}/dev/*", METHOD_ARN],
    ],
)
def test_allow_that_covers_the_method_lets_in(resource: object) -> None:
    assert policy_status(statement(resource)) == 101


@pytest.mark.parametrize(
    "resource",
    [
        f"{ARN}/prod/*/*",
        f"{ARN}/prod/GET/*",
        f"{ARN}/dev/*",
        f"{ARN}/prod/$default",
        f"{ARN}/prod/$connect?",
        f"{ARN}/prod/$conne?",
        f"{ARN}/prod/$connec[t]",
        f"{ARN}/PROD/$connect",
        METHOD_ARN.replace("000000000000", "123456789012"),
        [],
    ],
)
def test_allow_of_something_else_is_an_implicit_deny(resource: object) -> None:
    """A REST-shaped ARN has one segment more than a WebSocket method's and does not cover it."""
    assert policy_status(statement(resource)) == 403


@pytest.mark.parametrize("action", ["execute-api:Invoke", "execute-api:*", "*", ["dynamodb:*", "execute-api:Inv?ke"]])
def test_allow_of_invoking_lets_in(action: object) -> None:
    assert policy_status(statement(action=action)) == 101


@pytest.mark.parametrize("action", ["execute-api:ManageConnections", "dynamodb:*", "execute-api", []])
def test_allow_of_another_action_does_not_let_in(action: object) -> None:
    assert policy_status(statement(action=action)) == 403


def not_action(action: object, effect: str = "Allow") -> Any:
    return {"NotAction": action, "Effect": effect, "Resource": METHOD_ARN}


def not_resource(resource: object, effect: str = "Allow") -> Any:
    return {"Action": "execute-api:Invoke", "Effect": effect, "NotResource": resource}


@pytest.mark.parametrize(
    ("covering", "expected"),
    [
        (not_action("dynamodb:*"), 101),
        (not_action(["dynamodb:*", "execute-api:ManageConnections"]), 101),
        (not_action("execute-api:Invoke"), 403),
        (not_action(["dynamodb:*", "EXECUTE-API:*"]), 403),
        (not_resource(f"{ARN}/dev/*"), 101),
        (not_resource(f"{ARN}/prod/*"), 403),
    ],
    ids=repr,
)
def test_not_action_and_not_resource_allow_all_the_others(covering: object, expected: int) -> None:
    assert policy_status(covering) == expected


@pytest.mark.parametrize(
    ("denying", "expected"),
    [
        (not_action("dynamodb:*", "Deny"), 403),
        (not_action("execute-api:*", "Deny"), 101),
        (not_resource(f"{ARN}/dev/*", "Deny"), 403),
        (not_resource(METHOD_ARN, "Deny"), 101),
    ],
    ids=repr,
)
def test_not_action_and_not_resource_deny_all_the_others(denying: object, expected: int) -> None:
    assert policy_status(statement(), denying) == expected


@pytest.mark.parametrize(
    "statements",
    [
        [statement(effect="Deny")],
        [statement("*"), statement(effect="Deny")],
        [statement(f"{ARN}/prod/*", effect="Deny"), statement()],
        [statement(), statement("*", effect="Deny", action="*")],
    ],
)
def test_deny_wins(statements: list[object]) -> None:
    assert policy_status(*statements) == 403


def test_deny_of_something_else_does_no_harm() -> None:
    others = [statement(f"{ARN}/dev/*", effect="Deny"), statement("*", effect="Deny", action="dynamodb:*")]

    assert policy_status(statement(), *others) == 101


def test_policy_without_statements_lets_nobody_in() -> None:
    assert policy_status() == 403


def test_single_statement_needs_no_list() -> None:
    assert status(authorization(allow() | {"policyDocument": {"Statement": statement()}})) == 101


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (
            [statement(effect="Deny")],
            b'{"Message":"User is not authorized to access this resource with an explicit deny"}',
        ),
        ([], b'{"Message":"User is not authorized to access this resource"}'),
    ],
    ids=["explicit", "implicit"],
)
def test_refusal_tells_an_explicit_deny_from_an_implicit_one(statements: list[object], message: bytes) -> None:
    decision = authorization(allow() | {"policyDocument": {"Statement": statements}})

    assert decision == Refusal(403, message, "AccessDeniedException")


# Errors and malformed answers


@pytest.mark.parametrize(
    ("message", "expected"),
    [("Unauthorized", 401), ("unauthorized", 500), ("Unauthorized ", 500), ("[401] Unauthorized", 500), ("", 500)],
)
def test_authorizer_that_raises_exactly_unauthorized_means_401(message: str, expected: int) -> None:
    decision = gateway.authorization(Invocation(error="Exception", message=message), METHOD_ARN)

    assert status(decision) == expected


@pytest.mark.parametrize("error", ["Sandbox.Timedout", "Runtime.ExitError", "KeyError", gateway.NO_PERMISSION])
def test_authorizer_that_does_not_answer_is_our_fault(error: str) -> None:
    assert status(gateway.authorization(Invocation(error=error, message="no answer"), METHOD_ARN)) == 500


def without(*path: str) -> dict[str, Any]:
    """The authorizer's good answer with one member missing."""
    answer = allow()
    members: Any = answer
    for step in path[:-1]:
        members = members[0] if step == "0" else members[step]
    del members[path[-1]]
    return answer


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "Allow",
        [],
        {},
        {"statusCode": 401},
        {"isAuthorized": True},
        without("policyDocument"),
        without("policyDocument", "Statement"),
        *(without("policyDocument", "Statement", "0", member) for member in ("Action", "Effect", "Resource")),
        allow() | {"policyDocument": None},
        allow() | {"policyDocument": {"Statement": None}},
        allow() | {"policyDocument": {"Statement": [statement(resource=1)]}},
    ],
    ids=repr,
)
def test_answer_without_a_valid_policy_is_our_fault(answer: object) -> None:
    assert status(authorization(answer)) == 500


CONDITION = {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}


@pytest.mark.parametrize(
    ("member", "value", "fault"),
    [
        ("Condition", CONDITION, "Condition of a statement cannot be evaluated locally"),
        ("Principal", "*", "Principal of a statement cannot be evaluated locally"),
        ("NotAction", "dynamodb:*", "a statement needs either Action or NotAction"),
        ("NotResource", "*", "a statement needs either Resource or NotResource"),
        ("Action", [1], "Action must be a string or a list of them"),
        ("Resource", None, "Resource must be a string or a list of them"),
        *(("Effect", effect, "a statement needs an Effect, Allow or Deny") for effect in ("allow", "ALLOW", "", None)),
    ],
)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_statement_that_cannot_be_evaluated_is_our_fault_and_the_log_names_it(
    caplog: pytest.LogCaptureFixture, effect: str, member: str, value: object, fault: str
) -> None:
    """Whether it allows or denies, and whatever the other statements say: guessing could only be wrong."""
    doubtful = statement(effect=effect) | {member: value}

    decision = authorization(allow() | {"policyDocument": {"Statement": [statement(), doubtful]}})

    assert decision == gateway.AUTHORIZER_FAILED
    assert caplog.messages == [f"the authorizer's answer is not valid: {fault}"]


@pytest.mark.parametrize(("kilobytes", "expected"), [(7, 101), (9, 500)])
@pytest.mark.parametrize("where", ["context", "policy"])
def test_answer_over_8_kb_is_our_fault(where: str, kilobytes: int, expected: int) -> None:
    padding = "x" * (kilobytes * 1024)
    sid = {"Sid": padding} if where == "policy" else {}
    document = {"Statement": [statement() | sid]}
    context = {"padding": padding} if where == "context" else {}

    assert status(authorization(allow(context) | {"policyDocument": document})) == expected


def test_answer_is_measured_in_the_bytes_that_the_function_sent() -> None:
    context = {"padding": "漢" * 2000}  # 6 KB in UTF-8, 12 KB if escaped

    assert status(authorization(allow(context))) == 101


@pytest.mark.parametrize("principal", ["missing", None, 1, ["ada"]])
def test_answer_without_a_principal_is_our_fault(principal: object) -> None:
    answer = without("principalId") if principal == "missing" else allow() | {"principalId": principal}

    assert status(authorization(answer)) == 500


@pytest.mark.parametrize("context", [{"user": {"id": 1}}, {"groups": ["admin"]}, {"empty": {}}, ["user"], "user", 1])
def test_context_that_is_not_flat_is_our_fault(context: object) -> None:
    assert status(authorization(allow() | {"context": context})) == 500


# The context


def test_context_values_become_strings() -> None:
    decision = authorization(allow({"s": "x", "n": 1, "float": 1.5, "yes": True, "no": False, "null": None}))

    strings = {"s": "x", "n": "1", "float": "1.5", "yes": "true", "no": "false", "null": None}
    assert decision == {**strings, "principalId": "ada"}


@pytest.mark.parametrize("answer", [allow(), without("context"), allow() | {"context": None}])
def test_context_is_optional(answer: object) -> None:
    assert authorization(answer) == {"principalId": "ada"}
