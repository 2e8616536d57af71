"""The Lambda authorizer: when it is invoked, how its answers are evaluated, and which events have its context."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.conftest import case
from tests.conformance.gateway import Event, Gateway, Observer, Script

BOTH = {"query": {"token": "abc"}, "headers": {"X-Token": "abc"}}


def statement(effect: str = "Allow", resource: Any = "{methodArn}", action: Any = "execute-api:Invoke") -> Any:
    return {"Effect": effect, "Action": action, "Resource": resource}


def policy(*statements: Any) -> Script:
    """Return a script whose policy has these statements. `{methodArn}` and `{stage}` stand for the connection's."""
    return {"answer": {"policyDocument": {"Version": "2012-10-17", "Statement": statements}}}


async def connect_and_get_first_event(gateway: Gateway, observer: Observer, its_id: str) -> Event:
    """Connect once more; return the first event that the observer gets, which shows that there was none before."""
    await gateway.open({"again": "yes"}, observer=its_id)
    return await observer.next()


# When it is invoked


@case("identity-missing-401")
@pytest.mark.parametrize("query", [{}, {"token": ""}, {"other": "abc"}], ids=str)
async def test_handshake_without_identity_source_gets_401_and_invokes_no_authorizer(
    main: Gateway, query: dict[str, str]
) -> None:
    observer, its_id = await main.observer()

    refusal = await main.expect_refusal(query, observer=its_id, with_identity=False)

    assert refusal.status == 401
    event = await connect_and_get_first_event(main, observer, its_id)
    assert event["queryStringParameters"]["again"] == "yes"


@case("identity-every-source")
@pytest.mark.parametrize(
    "identity",
    [
        BOTH | {"query": {}},
        BOTH | {"headers": {}},
        BOTH | {"query": {"token": ""}},
        BOTH | {"headers": {"X-Token": ""}},
        {"query": {"X-Token": "abc", "token": "abc"}},
    ],
    ids=["no parameter", "no header", "empty parameter", "empty header", "header as parameter"],
)
async def test_every_identity_source_must_have_a_value(guarded: Gateway, identity: dict[str, Any]) -> None:
    observer, its_id = await guarded.observer()

    refusal = await guarded.expect_refusal(**identity, observer=its_id, with_identity=False)

    assert refusal.status == 401
    event = await connect_and_get_first_event(guarded, observer, its_id)
    assert event["queryStringParameters"]["again"] == "yes"


@case("identity-every-source")
async def test_handshake_with_every_identity_source_invokes_the_authorizer(guarded: Gateway) -> None:
    observer, its_id = await guarded.observer()

    await guarded.open(**BOTH, observer=its_id, with_identity=False)

    assert (await observer.next())["type"] == "REQUEST"


@case("identity-header-case")
async def test_identity_source_header_may_have_another_case(guarded: Gateway) -> None:
    status = await guarded.status(query=BOTH["query"], headers={"x-token": "abc"}, with_identity=False)

    assert status == 101


@case("identity-no-sources")
async def test_every_handshake_invokes_an_authorizer_without_identity_sources(open_: Gateway) -> None:
    observer, its_id = await open_.observer()

    await open_.open(headers={"X-Observer": its_id})
    refusal = await open_.expect_refusal(authorizer={"raise": "Unauthorized"})

    assert (await observer.next())["type"] == "REQUEST"
    assert refusal.status == 401


@case("authorizer-not-cached")
async def test_every_handshake_invokes_the_authorizer_again(main: Gateway) -> None:
    observer, its_id = await main.observer()

    for _ in range(2):
        await main.open(observer=its_id)

    ids = {(await observer.event("authorizer"))["requestContext"]["connectionId"] for _ in range(2)}
    assert len(ids) == 2


@case("authorizer-connect-only")
async def test_messages_and_disconnect_invoke_no_authorizer(main: Gateway) -> None:
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id)

    await client.send("hello")
    await observer.event("$default")
    await client.socket.close()
    await observer.event("$disconnect")
    await main.open(observer=its_id)

    types = [(await observer.next()).get("type") for _ in range(3)]
    assert types == ["REQUEST", None, "REQUEST"]


# What its answers do


@case("policy-allow")
@pytest.mark.parametrize("resource", ["{methodArn}", "{stage}/*", "{stage}/$connect"])
async def test_policy_that_allows_the_method_arn_connects(main: Gateway, resource: str) -> None:
    client = await main.open(authorizer=policy(statement(resource=resource)))

    assert client.response.status_code == 101


@case("policy-wildcards")
@pytest.mark.parametrize(
    "allowing",
    [
        statement(resource="*"),
        statement(resource="{stage}/?connect"),
        statement(resource="arn:aws:execute-api:*"),
        statement(resource=["{stage}/other", "{methodArn}"]),
        statement(action="*"),
        statement(action="execute-api:*"),
        statement(action=["execute-api:ManageConnections", "execute-api:Invoke"]),
    ],
    ids=["*", "?", "* over slashes", "list of resources", "any action", "any of the service", "list of actions"],
)
async def test_wildcards_and_lists_allow_too(main: Gateway, allowing: Any) -> None:
    client = await main.open(authorizer=policy(allowing))

    assert client.response.status_code == 101


@case("policy-single-statement")
async def test_single_statement_needs_no_list(main: Gateway) -> None:
    document = {"Version": "2012-10-17", "Statement": statement()}

    client = await main.open(authorizer={"answer": {"policyDocument": document}})

    assert client.response.status_code == 101


async def assert_forbidden(main: Gateway, *statements: Any) -> None:
    """Connect with this policy, and assert that the answer is 403 and that `$connect` was not invoked."""
    observer, its_id = await main.observer()

    refusal = await main.expect_refusal(observer=its_id, authorizer=policy(*statements))

    assert refusal.status == 403
    assert (await observer.next())["type"] == "REQUEST"
    assert (await connect_and_get_first_event(main, observer, its_id))["type"] == "REQUEST"


@case("policy-deny-403")
async def test_deny_is_forbidden(main: Gateway) -> None:
    await assert_forbidden(main, statement("Deny"))


@case("policy-deny-wins")
@pytest.mark.parametrize(
    "statements",
    [[statement(), statement("Deny")], [statement("Deny", "{stage}/*"), statement()]],
    ids=["allow and deny", "deny and allow"],
)
async def test_deny_wins_over_an_allow(main: Gateway, statements: list[Any]) -> None:
    await assert_forbidden(main, *statements)


@case("policy-no-match-403")
@pytest.mark.parametrize(
    "statements",
    [[statement(resource="{stage}/*/*")], [statement(resource="{stage}/GET/*")], []],
    ids=["two levels", "REST's", "nothing"],
)
async def test_policy_without_a_matching_statement_is_forbidden(main: Gateway, statements: list[Any]) -> None:
    await assert_forbidden(main, *statements)


@case("policy-other-resource-403")
@pytest.mark.parametrize(
    "other",
    [
        statement(resource="{stage}/custom"),
        statement(resource="{methodArn}/more"),
        statement(resource="{stage}/$CONNECT"),
        statement(resource="{stage}/connect"),
        statement(action="execute-api:ManageConnections"),
        statement(action="s3:GetObject"),
    ],
    ids=["other route", "longer", "other case", "no dollar", "other action", "other service"],
)
async def test_policy_for_something_else_is_forbidden(main: Gateway, other: Any) -> None:
    refusal = await main.expect_refusal(authorizer=policy(other))

    assert refusal.status == 403


@case("policy-effect-case")
@pytest.mark.parametrize("effect", ["allow", "ALLOW", ""])
async def test_effect_that_is_misspelt_does_not_allow(main: Gateway, effect: str) -> None:
    refusal = await main.expect_refusal(authorizer=policy(statement(effect)))

    assert refusal.status in {403, 500}


@case("policy-rare-elements")
@pytest.mark.parametrize(
    ("unusual", "status"),
    [
        ({"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}, 101),
        ({"Effect": "Allow", "Action": "*", "NotResource": "{stage}/custom"}, 101),
        ({"Effect": "Allow", "Action": "*", "NotResource": "{stage}/*"}, 403),
        (statement() | {"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}}, 500),
    ],
    ids=["NotAction", "NotResource, another", "NotResource, this", "Condition"],
)
async def test_rare_elements_of_a_statement_are_evaluated_or_refused(main: Gateway, unusual: Any, status: int) -> None:
    assert await main.status(authorizer=policy(unusual)) == status


@case("policy-later-messages")
async def test_statements_about_other_routes_have_no_effect_on_messages(main: Gateway) -> None:
    denied = policy(statement(), statement("Deny", "{stage}/custom"))
    client = await main.open(authorizer=denied)

    event = await client.report(action="custom")

    assert event["requestContext"]["routeKey"] == "custom"


@case("authorizer-unauthorized-401")
async def test_error_unauthorized_gets_401(main: Gateway) -> None:
    refusal = await main.expect_refusal(authorizer={"raise": "Unauthorized"})

    assert refusal.status == 401


@case("authorizer-error-500")
@pytest.mark.parametrize(
    "message", ["unauthorized", "Unauthorized ", "[401] Unauthorized", "Forbidden", "on purpose", ""]
)
async def test_any_other_error_gets_500(main: Gateway, message: str) -> None:
    refusal = await main.expect_refusal(authorizer={"raise": message})

    assert refusal.status == 500


@case("authorizer-no-policy-500")
@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": 401},
        {"principalId": "me"},
        {"principalId": "me", "policyDocument": {}},
        {"isAuthorized": True},
        "Allow",
        None,
    ],
    ids=str,
)
async def test_answer_without_a_policy_gets_500(main: Gateway, answer: Any) -> None:
    refusal = await main.expect_refusal(authorizer={"return": answer})

    assert refusal.status == 500


@case("authorizer-invalid-answer-500")
@pytest.mark.parametrize(
    "script",
    [
        {"answer": {"principalId": None}},
        {"answer": {"context": {"nested": {"a": 1}}}},
        {"answer": {"context": {"nested": ["a"]}}},
        {"pad": 8192},
        {"steps": [["exit", 1]]},
    ],
    ids=["no principalId", "object in context", "array in context", "over 8 KB", "crash"],
)
async def test_invalid_answer_gets_500(main: Gateway, script: Script) -> None:
    refusal = await main.expect_refusal(authorizer=script)

    assert refusal.status == 500


@case("authorizer-timeout-500")
async def test_authorizer_that_takes_too_long_gets_500(open_: Gateway) -> None:
    refusal = await open_.expect_refusal(authorizer={"steps": [["sleep", 5]]})

    assert refusal.status == 500


# Where its context appears


async def get_authorizer_contexts(main: Gateway, authorizer: Script) -> list[dict[str, Any]]:
    """Return `requestContext.authorizer` of a connection's three events, without the observer's id."""
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id, authorizer=authorizer)
    await client.send("hello")
    events = [await observer.event(route) for route in ("$connect", "$default")]
    await client.socket.close()
    events.append(await observer.event("$disconnect"))
    maps: list[dict[str, Any]] = [event["requestContext"]["authorizer"] for event in events]
    assert [each.pop("observer") for each in maps] == [its_id] * 3
    return maps


@case("context-values-are-strings")
async def test_values_of_the_context_become_strings(main: Gateway) -> None:
    connect, *others = await get_authorizer_contexts(main, {"answer": {"context": {"n": 1, "b": True, "s": "x"}}})

    del connect["integrationLatency"]
    assert [connect, *others] == [{"principalId": "me", "n": "1", "b": "true", "s": "x"}] * 3


@case("context-null-and-numbers")
async def test_null_stays_and_other_numbers_are_written_as_json(main: Gateway) -> None:
    context = {"null": None, "fraction": 1.5, "negative": -7, "false": False, "empty": "", "text": 'a"ü'}

    _, message, _ = await get_authorizer_contexts(main, {"answer": {"context": context}})

    strings = {"fraction": "1.5", "negative": "-7", "false": "false", "empty": "", "text": 'a"ü'}
    assert message == {"principalId": "me", "null": None, **strings}


@case("context-in-events")
async def test_context_is_in_every_event_and_the_latency_in_connect_only(main: Gateway) -> None:
    connect, *others = await get_authorizer_contexts(main, {})

    assert isinstance(connect.pop("integrationLatency"), int)
    assert [connect, *others] == [{"principalId": "me"}] * 3


@case("authorizer-result-8-kb")
async def test_large_context_within_the_limit_arrives(main: Gateway) -> None:
    _, message, _ = await get_authorizer_contexts(main, {"pad": 7000})

    assert message["pad"] == "x" * 7000


@case("context-own-principal")
async def test_context_does_not_replace_the_principal(main: Gateway) -> None:
    _, message, _ = await get_authorizer_contexts(main, {"answer": {"context": {"principalId": "you"}}})

    assert message["principalId"] == "me"
