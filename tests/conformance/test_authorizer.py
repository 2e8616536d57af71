"""The Lambda authorizer: when it is asked, what its answers do, and what becomes of its context."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.conftest import Unknown, case
from tests.conformance.gateway import Event, Gateway, Observer, Script

BOTH = {"query": {"token": "abc"}, "headers": {"X-Token": "abc"}}


def statement(effect: str = "Allow", resource: Any = "{methodArn}", action: Any = "execute-api:Invoke") -> Any:
    return {"Effect": effect, "Action": action, "Resource": resource}


def policy(*statements: Any) -> Script:
    """An authorizer's script; `{methodArn}` and `{stage}` stand for this connection's."""
    return {"answer": {"policyDocument": {"Version": "2012-10-17", "Statement": statements}}}


async def first_authorizer_event(gateway: Gateway, observer: Observer, its_id: str) -> Event:
    """Connects once more, so that something is to be seen; returns the first event since the observer is there."""
    await gateway.open({"again": "yes"}, observer=its_id)
    return await observer.next()


# When it is asked


@case("E1", "C", "AWS's page on Lambda authorizers")
@pytest.mark.parametrize("query", [{}, {"token": ""}, {"other": "abc"}], ids=str)
async def test_handshake_without_its_identity_source_is_unauthorized_and_nobody_is_asked(
    main: Gateway, query: dict[str, str]
) -> None:
    observer, its_id = await main.observer()

    refusal = await main.refused(query, observer=its_id, with_identity=False)

    assert refusal.status == 401
    event = await first_authorizer_event(main, observer, its_id)
    assert event["queryStringParameters"]["again"] == "yes"


@case("1.4.4", "C", "API Gateway V2 reference, Authorizer")
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
async def test_every_identity_source_must_be_there(guarded: Gateway, identity: dict[str, Any]) -> None:
    observer, its_id = await guarded.observer()

    refusal = await guarded.refused(**identity, observer=its_id, with_identity=False)

    assert refusal.status == 401
    event = await first_authorizer_event(guarded, observer, its_id)
    assert event["queryStringParameters"]["again"] == "yes"


@case("1.4.4", "C", "API Gateway V2 reference, Authorizer")
async def test_handshake_with_every_identity_source_is_put_to_the_authorizer(guarded: Gateway) -> None:
    observer, its_id = await guarded.observer()

    await guarded.open(**BOTH, observer=its_id, with_identity=False)

    assert (await observer.next())["type"] == "REQUEST"


@case("1.4.6", "U", "RFC 9110 compares names without case")
async def test_identity_source_header_in_another_case(guarded: Gateway, unknown: Unknown) -> None:
    status = await guarded.status(query=BOTH["query"], headers={"x-token": "abc"}, with_identity=False)

    unknown(status, 101)


@case("E2", "C", "serverless/examples#557")
async def test_authorizer_without_identity_sources_is_always_asked(open_: Gateway) -> None:
    observer, its_id = await open_.observer()

    await open_.open(headers={"X-Observer": its_id})
    refusal = await open_.refused(authorizer={"raise": "Unauthorized"})

    assert (await observer.next())["type"] == "REQUEST"
    assert refusal.status == 401


@case("E5", "C", "API Gateway V2 reference, authorizerResultTtlInSeconds")
async def test_each_handshake_asks_anew(main: Gateway) -> None:
    observer, its_id = await main.observer()

    for _ in range(2):
        await main.open(observer=its_id)

    ids = {(await observer.event("authorizer"))["requestContext"]["connectionId"] for _ in range(2)}
    assert len(ids) == 2


@case("1.4.10", "C", "$connect and $disconnect's page; localstack#10059")
async def test_authorizer_is_not_asked_for_messages_and_disconnects(main: Gateway) -> None:
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


@case("E3", "C", "AWS's page on Lambda authorizers; powertools-lambda-python#5800")
@pytest.mark.parametrize("resource", ["{methodArn}", "{stage}/*", "{stage}/$connect"])
async def test_policy_that_allows_the_method_arn_connects(main: Gateway, resource: str) -> None:
    client = await main.open(authorizer=policy(statement(resource=resource)))

    assert client.response.status_code == 101


@case("1.6", "L", "IAM's evaluation, as REST uses it")
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


@case("1.6", "L", "IAM's grammar")
async def test_single_statement_needs_no_list(main: Gateway) -> None:
    document = {"Version": "2012-10-17", "Statement": statement()}

    client = await main.open(authorizer={"answer": {"policyDocument": document}})

    assert client.response.status_code == 101


@case("E3", "C", "$connect and $disconnect's page; powertools-lambda-python#5800")
@pytest.mark.parametrize(
    "statements",
    [
        [statement("Deny")],
        [statement(), statement("Deny")],
        [statement("Deny", "{stage}/*"), statement()],
        [statement(resource="{stage}/*/*")],
        [statement(resource="{stage}/GET/*")],
        [],
    ],
    ids=["deny", "allow and deny", "deny and allow", "two levels", "REST's", "nothing"],
)
async def test_policy_that_denies_or_does_not_allow_is_forbidden(main: Gateway, statements: list[Any]) -> None:
    observer, its_id = await main.observer()

    refusal = await main.refused(observer=its_id, authorizer=policy(*statements))

    assert refusal.status == 403
    assert (await observer.next())["type"] == "REQUEST"
    assert (await first_authorizer_event(main, observer, its_id))["type"] == "REQUEST"  # no $connect in between


@case("1.6", "L", "IAM's evaluation, as REST uses it")
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
    refusal = await main.refused(authorizer=policy(other))

    assert refusal.status == 403


@case("1.6", "L", "IAM's evaluation, as REST uses it")
@pytest.mark.parametrize("effect", ["allow", "ALLOW", ""])
async def test_effect_that_is_misspelt_does_not_allow(main: Gateway, effect: str) -> None:
    refusal = await main.refused(authorizer=policy(statement(effect)))

    assert refusal.status in {403, 500}


@case("1.6", "U", "nobody")
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
async def test_rare_elements_of_a_statement(main: Gateway, unknown: Unknown, unusual: Any, status: int) -> None:
    unknown(await main.status(authorizer=policy(unusual)), status)


@case("1.6", "C", "dev-guide#121")
async def test_statements_on_other_routes_do_not_matter_later(main: Gateway) -> None:
    denied = policy(statement(), statement("Deny", "{stage}/custom"))
    client = await main.open(authorizer=denied)

    event = await client.report(action="custom")

    assert event["requestContext"]["routeKey"] == "custom"


@case("E4", "C", "AWS's page on Lambda authorizers")
async def test_error_unauthorized_is_unauthorized(main: Gateway) -> None:
    refusal = await main.refused(authorizer={"raise": "Unauthorized"})

    assert refusal.status == 401


@case("E4", "L", "REST's pages; serverless-offline#1244, #1376")
@pytest.mark.parametrize(
    "message", ["unauthorized", "Unauthorized ", "[401] Unauthorized", "Forbidden", "on purpose", ""]
)
async def test_any_other_error_is_a_server_error(main: Gateway, message: str) -> None:
    refusal = await main.refused(authorizer={"raise": message})

    assert refusal.status == 500


@case("E4", "C", "serverless/examples#557")
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
async def test_answer_without_a_policy_is_a_server_error(main: Gateway, answer: Any) -> None:
    refusal = await main.refused(authorizer={"return": answer})

    assert refusal.status == 500


@case("1.5", "L", "REST's pages")
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
async def test_answer_that_is_not_valid_is_a_server_error(main: Gateway, script: Script) -> None:
    refusal = await main.refused(authorizer=script)

    assert refusal.status == 500


@case("1.5", "L", "gateway response AUTHORIZER_FAILURE")
async def test_authorizer_that_takes_too_long_is_a_server_error(open_: Gateway) -> None:
    refusal = await open_.refused(authorizer={"steps": [["sleep", 5]]})

    assert refusal.status == 500


# What becomes of its context


async def contexts(main: Gateway, authorizer: Script) -> list[dict[str, Any]]:
    """`requestContext.authorizer` of a connection's three events, without what makes it observable."""
    observer, its_id = await main.observer()
    client = await main.open(observer=its_id, authorizer=authorizer)
    await client.send("hello")
    events = [await observer.event(route) for route in ("$connect", "$default")]
    await client.socket.close()
    events.append(await observer.event("$disconnect"))
    maps: list[dict[str, Any]] = [event["requestContext"]["authorizer"] for event in events]
    assert [each.pop("observer") for each in maps] == [its_id] * 3
    return maps


@case("E6", "C", "mapping reference; L for proxy events")
async def test_values_of_the_context_become_strings(main: Gateway) -> None:
    connect, *others = await contexts(main, {"answer": {"context": {"n": 1, "b": True, "s": "x"}}})

    del connect["integrationLatency"]
    assert [connect, *others] == [{"principalId": "me", "n": "1", "b": "true", "s": "x"}] * 3


@case("1.7", "L", "DefinitelyTyped#69823, of REST")
async def test_null_stays_and_other_numbers_are_written_as_they_are(main: Gateway) -> None:
    context = {"null": None, "fraction": 1.5, "negative": -7, "false": False, "empty": "", "text": 'a"ü'}

    _, message, _ = await contexts(main, {"answer": {"context": context}})

    strings = {"fraction": "1.5", "negative": "-7", "false": "false", "empty": "", "text": 'a"ü'}
    assert message == {"principalId": "me", "null": None, **strings}


@case("E6", "C", "aws-lambda-typing#65; httpmaid")
async def test_latency_of_the_authorizer_is_a_number_on_connect_only(main: Gateway) -> None:
    connect, *others = await contexts(main, {})

    assert isinstance(connect.pop("integrationLatency"), int)
    assert [connect, *others] == [{"principalId": "me"}] * 3


@case("1.4.11", "C", "quotas")
async def test_large_context_within_the_limit_arrives(main: Gateway) -> None:
    _, message, _ = await contexts(main, {"pad": 7000})

    assert message["pad"] == "x" * 7000


@case("1.7", "U", "nobody")
async def test_context_with_a_principal_of_its_own(main: Gateway, unknown: Unknown) -> None:
    _, message, _ = await contexts(main, {"answer": {"context": {"principalId": "you"}}})

    unknown(message["principalId"], "me")
