"""The gateway's decisions, without a socket; those about authorizers and routes are in files of their own."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from local.apigateway import events, gateway
from local.apigateway.api import Authorizer, Route
from local.apigateway.events import Connection, Handshake
from local.apigateway.gateway import Refusal
from local.errors import TemplateError
from local.lambda_.invocation import Invocation
from tests.local.conftest import AUTHORIZER, CONNECTION_ID, OUR_ROUTES, WEBSOCKET, api, connection

TIMED_OUT = Invocation(error="Sandbox.Timedout", message="Task timed out after 3.00 seconds")
CRASHED = Invocation(error="Runtime.ExitError", message="the runtime exited with status 1")
NOT_PERMITTED = Invocation(error=gateway.NO_PERMISSION, message="no permission to invoke the function")
ONE_WAY = Route("send", WEBSOCKET)
TWO_WAY = Route("ask", WEBSOCKET, two_way=True)


def status(decision: object) -> int:
    """What the client gets to see of a decision about its handshake."""
    return decision.status if isinstance(decision, Refusal) else 101


# Identity sources


@pytest.mark.parametrize(
    "source",
    [
        "$request.header.Authorization",
        "method.request.header.Authorization",
        "route.request.body.a",
        "route.request.header.",
        "stageVariables.",
        "context",
    ],
)
def test_identity_source_that_cannot_be_evaluated_is_named(source: str) -> None:
    with pytest.raises(TemplateError) as error:
        gateway.check(api(*OUR_ROUTES, identity_sources=("route.request.header.Auth", source)))

    assert f" {source} " in str(error.value)


def has_identity(
    *sources: str, query: str = "", headers: tuple[tuple[str, str], ...] = (), variables: dict[str, str] | None = None
) -> bool:
    handshake = Handshake(f"/prod?{query}", headers)
    client = Connection(
        api(*OUR_ROUTES, stage_variables=variables or {}), "203.0.113.7", handshake.header("User-Agent")
    )
    event = events.authorizer_event(client, handshake)
    return gateway.has_identity(Authorizer(AUTHORIZER, sources), handshake, event)


@pytest.mark.parametrize("sent", ["Auth", "auth", "AUTH"])
def test_identity_header_is_found_whatever_its_case(sent: str) -> None:
    """RFC 9110 section 5.1."""
    assert has_identity("route.request.header.Auth", headers=((sent, "secret"),))


@pytest.mark.parametrize("headers", [(), (("Auth", ""),), (("Other", "secret"),)])
def test_identity_header_must_be_there_and_not_empty(headers: tuple[tuple[str, str], ...]) -> None:
    assert not has_identity("route.request.header.Auth", headers=headers)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("idToken=abc", True),
        ("a=b&idToken=abc&c=d", True),
        ("id%54oken=%61", True),
        ("idToken=", False),
        ("idToken", False),
        ("idtoken=abc", False),
        ("", False),
    ],
)
def test_identity_parameter_must_be_there_and_not_empty(query: str, found: bool) -> None:
    assert has_identity("route.request.querystring.idToken", query=query) is found


@pytest.mark.parametrize(
    ("variables", "found"),
    [({"tenant": "acme"}, True), ({"tenant": ""}, False), ({"Tenant": "acme"}, False), ({}, False)],
)
def test_identity_stage_variable_must_be_there_and_not_empty(variables: dict[str, str], found: bool) -> None:
    assert has_identity("stageVariables.tenant", variables=variables) is found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("context.identity.sourceIp", True),
        ("context.connectionId", True),
        ("context.stage", True),
        ("context.identity.userAgent", False),
        ("context.identity.sourceIp.deeper", False),
        ("context.authorizer.principalId", False),
        ("context.nothing", False),
    ],
)
def test_identity_in_the_context_must_be_there_and_not_empty(source: str, found: bool) -> None:
    assert has_identity(source) is found


def test_identity_in_the_context_depends_on_the_client() -> None:
    assert has_identity("context.identity.userAgent", headers=(("User-Agent", "phone/1.0"),))


@pytest.mark.parametrize("left_out", ["nothing", "query", "headers", "variables"])
def test_every_identity_source_is_needed(left_out: str) -> None:
    sources = ("route.request.querystring.a", "route.request.header.Auth", "stageVariables.t", "context.stage")
    client: dict[str, Any] = {"query": "a=1", "headers": (("Auth", "secret"),), "variables": {"t": "acme"}}
    client.pop(left_out, None)

    assert has_identity(*sources, **client) is (left_out == "nothing")


def test_authorizer_without_identity_sources_is_asked_about_everyone() -> None:
    assert has_identity()


# The URL


def misdirected(target: str, *, host: str = "localhost", **facts: Any) -> int | None:
    """The status of a handshake with this URL; None if it may go on."""
    refusal = gateway.misdirected(api(*OUR_ROUTES, **facts), Handshake(target, (("host", host),)))
    return refusal.status if refusal else None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/prod", None),
        ("/prod/", None),
        ("/prod?a=/x", None),
        ("/prod/?a=b", None),
        ("/", 403),
        ("/dev", 403),
        ("/PROD", 403),
        ("/production", 403),
        ("/prod/chat", 403),
        ("//prod", 403),
        ("/prod//", 403),
    ],
)
def test_websocket_is_at_the_stage_with_or_without_a_slash(target: str, expected: int | None) -> None:
    assert misdirected(target) == expected


def test_stage_that_was_never_deployed_is_forbidden() -> None:
    assert misdirected("/prod", deployed=False) == 403


@pytest.mark.parametrize(
    ("length", "expected"), [(4096, None), (4097, 414), (5000, 414)], ids=["at the limit", "just over", "over"]
)
@pytest.mark.parametrize("host", ["localhost", "localapi00.execute-api.us-east-1.amazonaws.com"])
def test_url_is_limited_as_the_client_writes_it(host: str, length: int, expected: int | None) -> None:
    target = "/prod?a=".ljust(length - len(f"wss://{host}"), "x")

    assert misdirected(target, host=host) == expected


# $connect


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"statusCode": 200}, 101),
        ({"statusCode": 201}, 101),
        ({"statusCode": "200"}, 101),
        ({"statusCode": 200, "body": "hi", "headers": None, "isBase64Encoded": False}, 101),
        ({"statusCode": 301}, 301),
        ({"statusCode": 400}, 400),
        ({"statusCode": 401}, 401),
        ({"statusCode": 501}, 501),
    ],
)
def test_connect_route_decides_by_its_status(answer: object, expected: int) -> None:
    assert status(gateway.connected(Invocation(answer))) == expected


@pytest.mark.parametrize(
    ("invocation", "expected"),
    [
        (Invocation(error="KeyError", message="'authorizer'"), 502),
        (CRASHED, 502),
        (TIMED_OUT, 504),
        (NOT_PERMITTED, 500),
    ],
    ids=["exception", "crash", "timeout", "no permission"],
)
def test_handshake_fails_with_the_connect_route(invocation: Invocation, expected: int) -> None:
    assert status(gateway.connected(invocation)) == expected


NO_TEXT = base64.b64encode(b"\xff").decode()
# Each with what the log says of it.
MALFORMED: list[tuple[object, str]] = [
    (None, "it is no object"),
    ("OK", "it is no object"),
    (200, "it is no object"),
    ([], "it is no object"),
    ({}, "statusCode is null"),
    ({"body": "OK"}, "statusCode is null"),
    ({"statusCode": None}, "statusCode is null"),
    ({"statusCode": "OK"}, 'statusCode is "OK"'),
    ({"statusCode": True}, "statusCode is true"),
    ({"statusCode": 100}, "statusCode is 100"),
    ({"statusCode": 2000}, "statusCode is 2000"),
    ({"statusCode": [200]}, "statusCode is [200]"),
    ({"statusCode": 200, "Data": "x", "ConnectionId": "y"}, "ConnectionId, Data is no part of a proxy response"),
    ({"statusCode": 200, "body": {"a": 1}}, "body is no string"),
    ({"statusCode": 200, "body": 1}, "body is no string"),
    ({"statusCode": 200, "headers": ["Sec-WebSocket-Protocol"]}, "headers is no object"),
    ({"statusCode": 200, "headers": "Sec-WebSocket-Protocol: chat"}, "headers is no object"),
    ({"statusCode": 200, "multiValueHeaders": ["chat"]}, "multiValueHeaders is no object of lists"),
    ({"statusCode": 200, "multiValueHeaders": {"a": "b"}}, "multiValueHeaders is no object of lists"),
    ({"statusCode": 200, "isBase64Encoded": True, "body": "a!"}, "body is no text in base64"),
    ({"statusCode": 200, "isBase64Encoded": True, "body": "é"}, "body is no text in base64"),
    ({"statusCode": 200, "isBase64Encoded": True, "body": NO_TEXT}, "body is no text in base64"),
]
malformed = pytest.mark.parametrize(("answer", "fault"), MALFORMED, ids=repr)


@malformed
def test_malformed_answer_of_the_connect_route_is_a_bad_gateway(
    caplog: pytest.LogCaptureFixture, answer: object, fault: str
) -> None:
    assert status(gateway.connected(Invocation(answer))) == 502
    assert caplog.messages == [f"the answer of $connect is not valid: {fault}"]


@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": 200},
        {"statusCode": "200", "body": None, "headers": None, "multiValueHeaders": None, "isBase64Encoded": None},
        {
            "statusCode": 599,
            "body": "",
            "headers": {},
            "multiValueHeaders": {"a": ["b", "c"]},
            "isBase64Encoded": False,
        },
        {"statusCode": 200, "body": "aGVsbG8=", "isBase64Encoded": True},
        {"statusCode": 200, "body": "not base64", "isBase64Encoded": False},
    ],
    ids=repr,
)
def test_proxy_response_has_no_fault(answer: object) -> None:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html."""
    assert gateway.malformed(answer) is None


def test_refusing_connect_route_says_why() -> None:
    decision = gateway.connected(Invocation({"statusCode": 400, "body": "no room"}))

    assert decision == Refusal(400, b"no room")


def test_refusing_connect_route_may_say_it_in_base64() -> None:
    answer = {"statusCode": 400, "body": base64.b64encode("満室".encode()).decode(), "isBase64Encoded": True}

    assert gateway.connected(Invocation(answer)) == Refusal(400, "満室".encode())


@pytest.mark.parametrize("name", ["Sec-WebSocket-Protocol", "sec-websocket-protocol"])
def test_only_the_subprotocol_of_the_connect_route_reaches_the_client(name: str) -> None:
    headers = {name: "chat", "X-Other": "dropped", "Set-Cookie": "dropped"}

    assert gateway.connected(Invocation({"statusCode": 200, "headers": headers})) == {name: "chat"}


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ({"multiValueHeaders": {"Sec-WebSocket-Protocol": ["chat"]}}, "chat"),
        ({"multiValueHeaders": {"Sec-WebSocket-Protocol": ["log", "chat"]}}, "chat"),
        (
            {
                "headers": {"Sec-WebSocket-Protocol": "chat"},
                "multiValueHeaders": {"Sec-WebSocket-Protocol": ["log"], "X-Other": ["dropped"]},
            },
            "chat",
        ),
    ],
    ids=["one", "last of two", "headers first"],
)
def test_subprotocol_may_be_a_multi_value_header(answer: dict[str, object], chosen: str) -> None:
    headers = gateway.connected(Invocation({"statusCode": 200, **answer}))

    assert headers == {"Sec-WebSocket-Protocol": chosen}


@pytest.mark.parametrize("values", [{}, {"Sec-WebSocket-Protocol": []}])
def test_without_a_value_no_subprotocol_is_chosen(values: dict[str, list[str]]) -> None:
    assert gateway.connected(Invocation({"statusCode": 200, "multiValueHeaders": values})) == {}


def test_subprotocol_that_is_null_is_none() -> None:
    assert gateway.connected(Invocation({"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": None}})) == {}


def test_subprotocol_is_one_header_however_often_and_however_it_is_spelt() -> None:
    answer = {"headers": {"sec-websocket-protocol": "b"}, "multiValueHeaders": {"Sec-WebSocket-Protocol": ["a"]}}

    assert gateway.connected(Invocation({"statusCode": 200, **answer})) == {"sec-websocket-protocol": "b"}


# What the client is told of its message


@pytest.mark.parametrize("answer", [{"statusCode": 200}, {"statusCode": 500, "body": "failed"}, {"statusCode": 301}])
def test_answer_to_a_message_is_not_shown_whatever_its_status(answer: object) -> None:
    assert gateway.message_error(Invocation(answer), TWO_WAY) is None


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ({"statusCode": 200, "body": "hello"}, "hello"),
        ({"statusCode": 500, "body": "failed"}, "failed"),
        ({"statusCode": 200, "body": "44GT", "isBase64Encoded": True}, "こ"),
        ({"statusCode": 200, "body": "44GT", "isBase64Encoded": False}, "44GT"),
        ({"statusCode": 200, "body": ""}, ""),
        ({"statusCode": 200, "body": None}, ""),
        ({"statusCode": 200}, ""),
    ],
    ids=["text", "non-2xx", "base64", "not base64", "empty", "null", "none"],
)
def test_two_way_route_sends_its_body_and_a_one_way_route_nothing(answer: object, sent: str) -> None:
    """The body goes out whatever the status; without one an empty message does."""
    assert gateway.reply(Invocation(answer), TWO_WAY) == sent
    assert gateway.reply(Invocation(answer), ONE_WAY) is None


@malformed
def test_malformed_answer_to_a_message_is_an_error(
    caplog: pytest.LogCaptureFixture, answer: object, fault: str
) -> None:
    assert gateway.message_error(Invocation(answer), ONE_WAY) == "Internal server error"
    assert caplog.messages == [f"a function's answer is not valid: {fault}"]


@pytest.mark.parametrize("encoded", [False, True])
def test_two_way_route_sends_no_more_than_a_message_may_have(caplog: pytest.LogCaptureFixture, encoded: bool) -> None:
    def answering(size: int) -> Invocation:
        body = base64.b64encode(b"x" * size).decode() if encoded else "x" * (size - 2) + "é"
        return Invocation({"statusCode": 200, "body": body, "isBase64Encoded": encoded})

    assert gateway.message_error(answering(128 * 1024), TWO_WAY) is None
    assert gateway.message_error(answering(128 * 1024 + 1), ONE_WAY) is None
    assert caplog.messages == []

    assert gateway.message_error(answering(128 * 1024 + 1), TWO_WAY) == "Internal server error"
    assert caplog.messages == [
        "a function's answer is not valid: its body has over 131072 bytes, the limit of a message"
    ]


@pytest.mark.parametrize(
    ("invocation", "message"),
    [
        (Invocation(error="KeyError", message="'secret'"), "Internal server error"),
        (CRASHED, "Internal server error"),
        (NOT_PERMITTED, "Internal server error"),
        (TIMED_OUT, "Endpoint request timed out"),
    ],
    ids=["exception", "crash", "no permission", "timeout"],
)
def test_client_is_told_that_its_message_failed_but_not_why(invocation: Invocation, message: str) -> None:
    assert gateway.message_error(invocation, TWO_WAY) == message


@pytest.mark.parametrize(
    "message", ["Forbidden", "Internal server error", "Endpoint request timed out", "Too Many Requests"]
)
def test_error_frame_is_byte_for_byte_that_of_aws(message: str) -> None:
    event = {"requestContext": {"requestId": "XDmGEE2RoE0FRdQ="}}

    frame = gateway.error_frame(message, connection(), event)

    assert frame == f'{{"message": "{message}", "connectionId":"{CONNECTION_ID}", "requestId":"XDmGEE2RoE0FRdQ="}}'
