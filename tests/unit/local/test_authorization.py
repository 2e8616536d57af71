"""Opening handshakes, by the answer of the authorizer."""

from __future__ import annotations

from typing import Any

import pytest

from local.apigateway import gateway
from local.apigateway.gateway import Refusal
from local.lambda_.invocation import InvocationResult
from tests.fixtures.apis import METHOD_ARN, allow

ARN = METHOD_ARN.removesuffix("/prod/$connect")


def get_status(decision: object) -> int:
    """Return the status that the client sees."""
    return decision.status if isinstance(decision, Refusal) else 101


# The policy


def statement(resource: object = METHOD_ARN, effect: str = "Allow", action: object = "execute-api:Invoke") -> Any:
    return {"Action": action, "Effect": effect, "Resource": resource}


def evaluate(answer: object) -> dict[str, Any] | Refusal:
    return gateway.evaluate_authorizer(InvocationResult(answer), METHOD_ARN)


def evaluate_policy(*statements: object) -> int:
    return get_status(evaluate(allow() | {"policyDocument": {"Statement": list(statements)}}))


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
def test_allow_that_covers_the_method_admits(resource: object) -> None:
    assert evaluate_policy(statement(resource)) == 101


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
def test_allow_that_covers_another_resource_is_an_implicit_deny(resource: object) -> None:
    """A REST-shaped ARN has one segment more than a WebSocket method's and does not cover it."""
    assert evaluate_policy(statement(resource)) == 403


@pytest.mark.parametrize("action", ["execute-api:Invoke", "execute-api:*", "*", ["dynamodb:*", "execute-api:Inv?ke"]])
def test_allow_of_invoke_admits(action: object) -> None:
    assert evaluate_policy(statement(action=action)) == 101


@pytest.mark.parametrize("action", ["execute-api:ManageConnections", "dynamodb:*", "execute-api", []])
def test_allow_of_another_action_is_an_implicit_deny(action: object) -> None:
    assert evaluate_policy(statement(action=action)) == 403


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
def test_not_action_and_not_resource_allow_all_others(covering: object, expected: int) -> None:
    assert evaluate_policy(covering) == expected


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
def test_not_action_and_not_resource_deny_all_others(denying: object, expected: int) -> None:
    assert evaluate_policy(statement(), denying) == expected


@pytest.mark.parametrize(
    "statements",
    [
        [statement(effect="Deny")],
        [statement("*"), statement(effect="Deny")],
        [statement(f"{ARN}/prod/*", effect="Deny"), statement()],
        [statement(), statement("*", effect="Deny", action="*")],
    ],
)
def test_deny_overrides_allow(statements: list[object]) -> None:
    assert evaluate_policy(*statements) == 403


def test_deny_that_covers_another_resource_has_no_effect() -> None:
    others = [statement(f"{ARN}/dev/*", effect="Deny"), statement("*", effect="Deny", action="dynamodb:*")]

    assert evaluate_policy(statement(), *others) == 101


def test_policy_without_statements_is_an_implicit_deny() -> None:
    assert evaluate_policy() == 403


def test_policy_may_have_one_statement_without_a_list() -> None:
    assert get_status(evaluate(allow() | {"policyDocument": {"Statement": statement()}})) == 101


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
def test_message_distinguishes_explicit_and_implicit_deny(statements: list[object], message: bytes) -> None:
    decision = evaluate(allow() | {"policyDocument": {"Statement": statements}})

    assert decision == Refusal(403, message, "AccessDeniedException")


# Errors and malformed answers


@pytest.mark.parametrize(
    ("message", "expected"),
    [("Unauthorized", 401), ("unauthorized", 500), ("Unauthorized ", 500), ("[401] Unauthorized", 500), ("", 500)],
)
def test_only_the_error_message_unauthorized_means_401(message: str, expected: int) -> None:
    decision = gateway.evaluate_authorizer(InvocationResult(error="Exception", message=message), METHOD_ARN)

    assert get_status(decision) == expected


@pytest.mark.parametrize("error", ["Sandbox.Timedout", "Runtime.ExitError", "KeyError", gateway.NO_PERMISSION])
def test_failed_authorizer_means_500(error: str) -> None:
    assert (
        get_status(gateway.evaluate_authorizer(InvocationResult(error=error, message="no answer"), METHOD_ARN)) == 500
    )


def remove_member(*path: str) -> dict[str, Any]:
    """Return a valid answer with one member removed."""
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
        remove_member("policyDocument"),
        remove_member("policyDocument", "Statement"),
        *(remove_member("policyDocument", "Statement", "0", member) for member in ("Action", "Effect", "Resource")),
        allow() | {"policyDocument": None},
        allow() | {"policyDocument": {"Statement": None}},
        allow() | {"policyDocument": {"Statement": [statement(resource=1)]}},
    ],
    ids=repr,
)
def test_answer_without_a_valid_policy_means_500(answer: object) -> None:
    assert get_status(evaluate(answer)) == 500


CONDITION = {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}


@pytest.mark.parametrize(
    ("member", "value", "fault"),
    [
        ("Condition", CONDITION, "Condition cannot be evaluated locally"),
        ("Principal", "*", "Principal cannot be evaluated locally"),
        ("NotAction", "dynamodb:*", "it must have either Action or NotAction"),
        ("NotResource", "*", "it must have either Resource or NotResource"),
        ("Action", [1], "Action must be a string or a list of strings"),
        ("Resource", None, "Resource must be a string or a list of strings"),
        *(("Effect", effect, "Effect must be Allow or Deny") for effect in ("allow", "ALLOW", "", None)),
    ],
)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_statement_that_cannot_be_evaluated_means_500_and_a_log_line(
    caplog: pytest.LogCaptureFixture, effect: str, member: str, value: object, fault: str
) -> None:
    """Even if another statement allows the action, because this one might deny it."""
    doubtful = statement(effect=effect) | {member: value}

    decision = evaluate(allow() | {"policyDocument": {"Statement": [statement(), doubtful]}})

    assert decision == gateway.AUTHORIZER_FAILED
    assert caplog.messages == [f"the authorizer's answer is not valid: statement 2: {fault}"]


@pytest.mark.parametrize(("kilobytes", "expected"), [(7, 101), (9, 500)])
@pytest.mark.parametrize("where", ["context", "policy"])
def test_answer_over_8_kb_means_500(where: str, kilobytes: int, expected: int) -> None:
    padding = "x" * (kilobytes * 1024)
    sid = {"Sid": padding} if where == "policy" else {}
    document = {"Statement": [statement() | sid]}
    context = {"padding": padding} if where == "context" else {}

    assert get_status(evaluate(allow(context) | {"policyDocument": document})) == expected


def test_size_of_the_answer_is_that_in_utf_8() -> None:
    context = {"padding": "漢" * 2000}  # 6 KB in UTF-8, 12 KB if escaped

    assert get_status(evaluate(allow(context))) == 101


@pytest.mark.parametrize("principal", ["missing", None, 1, ["ada"]])
def test_answer_without_a_principal_means_500(principal: object) -> None:
    answer = remove_member("principalId") if principal == "missing" else allow() | {"principalId": principal}

    assert get_status(evaluate(answer)) == 500


@pytest.mark.parametrize("context", [{"user": {"id": 1}}, {"groups": ["admin"]}, {"empty": {}}, ["user"], "user", 1])
def test_nested_context_means_500(context: object) -> None:
    assert get_status(evaluate(allow() | {"context": context})) == 500


@pytest.mark.parametrize(
    "member",
    [{"principalId": "\ud83d"}, {"context": {"user": "\ud83d"}}, {"context": {"\ud83d": 1}}, {"other": "\udc4b\ud83d"}],
    ids=ascii,
)
def test_answer_with_a_lone_surrogate_means_500_and_a_log_line(
    caplog: pytest.LogCaptureFixture, member: dict[str, Any]
) -> None:
    """A function can send a lone surrogate as a JSON escape, but it cannot be encoded in UTF-8."""
    assert evaluate(allow() | member) == gateway.AUTHORIZER_FAILED
    (message,) = caplog.messages
    assert "surrogates not allowed" in message
    assert message.isascii()


def test_unknown_member_of_a_statement_is_logged_in_ascii(caplog: pytest.LogCaptureFixture) -> None:
    evaluate(allow() | {"policyDocument": {"Statement": statement() | {"\ud83d\n": 1}}})

    assert [message.isprintable() and message.isascii() for message in caplog.messages] == [True]


def test_deeply_nested_answer_means_500() -> None:
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]

    assert evaluate(allow() | {"other": nested}) == gateway.AUTHORIZER_FAILED


# The context


def test_control_characters_are_passed_on() -> None:
    answer = allow({"note": "line\r\n\0"}) | {"principalId": "a\nb"}

    assert evaluate(answer) == {"note": "line\r\n\0", "principalId": "a\nb"}


def test_context_values_become_strings() -> None:
    decision = evaluate(allow({"s": "x", "n": 1, "float": 1.5, "yes": True, "no": False, "null": None}))

    strings = {"s": "x", "n": "1", "float": "1.5", "yes": "true", "no": "false", "null": None}
    assert decision == {**strings, "principalId": "ada"}


@pytest.mark.parametrize("answer", [allow(), remove_member("context"), allow() | {"context": None}])
def test_context_is_optional(answer: object) -> None:
    assert evaluate(answer) == {"principalId": "ada"}
