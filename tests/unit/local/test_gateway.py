"""The gateway's decisions, without a socket. Tests of authorizers and of route selection are in other files."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from local.apigateway import events, gateway
from local.apigateway.api import Authorizer, Route
from local.apigateway.events import Connection, Handshake
from local.apigateway.gateway import IntegrationError, ProxyResponse, Refusal
from local.errors import TemplateError
from local.lambda_.invocation import InvocationResult
from tests.fixtures.apis import AUTHORIZER_ARN, OUR_ROUTES, WEBSOCKET_ARN, api, connection
from tests.fixtures.events import CONNECTION_ID

TIMED_OUT = InvocationResult(error="Sandbox.Timedout", message="Task timed out after 3.00 seconds")
CRASHED = InvocationResult(error="Runtime.ExitError", message="the runtime exited with status 1")
NOT_PERMITTED = InvocationResult(error=gateway.NO_PERMISSION, message="no permission to invoke the function")
ONE_WAY = Route("send", WEBSOCKET_ARN)
TWO_WAY = Route("ask", WEBSOCKET_ARN, two_way=True)


def get_status(decision: object) -> int:
    """Return the status that the client sees."""
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
def test_error_names_the_identity_source_and_the_rule(source: str) -> None:
    with pytest.raises(TemplateError) as error:
        Authorizer("arn", ("route.request.header.Auth", source))

    assert str(error.value).startswith(f"identity source {source} cannot be evaluated locally; ")
    assert "it must be route.request.header.NAME, " in str(error.value)


def has_identity(
    *sources: str, query: str = "", headers: tuple[tuple[str, str], ...] = (), variables: dict[str, str] | None = None
) -> bool:
    handshake = Handshake(f"/prod?{query}", headers)
    client = Connection("203.0.113.7", handshake.get_header("User-Agent"))
    event = events.build_authorizer_event(api(*OUR_ROUTES, stage_variables=variables or {}), client, handshake)
    return gateway.has_identity(Authorizer(AUTHORIZER_ARN, sources), handshake, event)


@pytest.mark.parametrize("sent", ["Auth", "auth", "AUTH"])
def test_case_of_an_identity_header_does_not_matter(sent: str) -> None:
    """RFC 9110 section 5.1."""
    assert has_identity("route.request.header.Auth", headers=((sent, "secret"),))


@pytest.mark.parametrize("headers", [(), (("Auth", ""),), (("Other", "secret"),)])
def test_identity_header_must_have_a_value(headers: tuple[tuple[str, str], ...]) -> None:
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
def test_identity_parameter_must_have_a_value(query: str, found: bool) -> None:
    assert has_identity("route.request.querystring.idToken", query=query) is found


@pytest.mark.parametrize(
    ("variables", "found"),
    [({"tenant": "acme"}, True), ({"tenant": ""}, False), ({"Tenant": "acme"}, False), ({}, False)],
)
def test_identity_stage_variable_must_have_a_value(variables: dict[str, str], found: bool) -> None:
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
def test_identity_in_the_context_must_have_a_value(source: str, found: bool) -> None:
    assert has_identity(source) is found


def test_identity_in_the_context_may_depend_on_the_client() -> None:
    assert has_identity("context.identity.userAgent", headers=(("User-Agent", "phone/1.0"),))


@pytest.mark.parametrize("left_out", ["nothing", "query", "headers", "variables"])
def test_every_identity_source_is_needed(left_out: str) -> None:
    sources = ("route.request.querystring.a", "route.request.header.Auth", "stageVariables.t", "context.stage")
    client: dict[str, Any] = {"query": "a=1", "headers": (("Auth", "secret"),), "variables": {"t": "acme"}}
    client.pop(left_out, None)

    assert has_identity(*sources, **client) is (left_out == "nothing")


def test_authorizer_without_identity_sources_is_always_invoked() -> None:
    assert has_identity()


# The request


def refuse(target: str, *hosts: str, **facts: Any) -> int | None:
    """Return the status of a handshake that is refused for its URL or Host header; None if it is not refused."""
    handshake = Handshake(target, tuple(("host", host) for host in hosts or ("localhost",)))
    refusal = gateway.check_request(api(*OUR_ROUTES, **facts), handshake)
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
def test_path_must_be_the_stage_with_or_without_a_slash(target: str, expected: int | None) -> None:
    assert refuse(target) == expected


def test_stage_without_a_deployment_is_forbidden() -> None:
    assert refuse("/prod", deployed=False) == 403


def test_request_must_have_one_host() -> None:
    assert refuse("/prod", "localhost", "localhost") == 400


@pytest.mark.parametrize(
    ("length", "expected"), [(4096, None), (4097, 414), (5000, 414)], ids=["at the limit", "just over", "over"]
)
@pytest.mark.parametrize("host", ["localhost", "localapi00.execute-api.us-east-1.amazonaws.com"])
def test_length_of_the_whole_url_is_limited(host: str, length: int, expected: int | None) -> None:
    target = "/prod?a=".ljust(length - len(f"wss://{host}"), "x")

    assert refuse(target, host) == expected


# Proxy responses

NOT_TEXT = base64.b64encode(b"\xff").decode()
DEEP: list[Any] = []
for _ in range(10_000):
    DEEP = [DEEP]
STATUS_CODE = "statusCode must be a number from 200 to 599"
HEADER_VALUE = "the value of a header must be a string, a number or a boolean"
MULTI_VALUE_HEADERS = "multiValueHeaders must be an object of lists"
BASE64 = "body must be text in base64, because isBase64Encoded is set"


def expect_reason(reason: str, *answers: object) -> list[tuple[object, str]]:
    """Return each answer with the reason that is expected in the log."""
    return [(answer, reason) for answer in answers]


def build_responses(**members: list[Any]) -> list[dict[str, Any]]:
    """Return proxy responses with one of these values for the member."""
    ((name, values),) = members.items()
    return [{"statusCode": 200, name: value} for value in values]


MALFORMED = [
    *expect_reason("it must be an object", None, "OK", 200, []),
    *expect_reason(STATUS_CODE, {}, {"body": "OK"}),
    *expect_reason(
        STATUS_CODE, *build_responses(statusCode=[None, "OK", True, 100, 600, 2000, -200, 200.5, [200], {}, DEEP])
    ),
    *expect_reason(STATUS_CODE, *build_responses(statusCode=["٢٠٠", "\ud83d"])),
    *expect_reason(
        '"ConnectionId" is not a member of a proxy response', {"statusCode": 200, "Data": "x", "ConnectionId": "y"}
    ),
    *expect_reason('"\\ud83d\\n" is not a member of a proxy response', {"statusCode": 200, "\ud83d\n": 1}),
    *expect_reason("body must be a string", *build_responses(body=[{"a": 1}, 1, 0, [], False])),
    *expect_reason(
        "headers must be an object",
        *build_responses(headers=[["Sec-WebSocket-Protocol"], "Sec-WebSocket-Protocol: chat", []]),
    ),
    *expect_reason(HEADER_VALUE, *build_responses(headers=[{"a": ["b"]}, {"a": {}}, {"a": DEEP}])),
    *expect_reason(HEADER_VALUE, *build_responses(multiValueHeaders=[{"a": [["b"]]}, {"a": [{}]}])),
    *expect_reason(MULTI_VALUE_HEADERS, *build_responses(multiValueHeaders=[["chat"], "", {"a": "b"}])),
    *expect_reason(
        BASE64, *({**each, "isBase64Encoded": True} for each in build_responses(body=["a!", "é", "\ud83d", NOT_TEXT]))
    ),
]
malformed = pytest.mark.parametrize(("answer", "reason"), MALFORMED)


@malformed
def test_malformed_answer_to_connect_means_502_and_a_log_line(
    caplog: pytest.LogCaptureFixture, answer: object, reason: str
) -> None:
    assert get_status(gateway.evaluate_connect(InvocationResult(answer))) == 502
    assert caplog.messages == [f"the answer of $connect is not valid: {reason}"]


@malformed
def test_malformed_answer_to_a_message_is_an_error_and_a_log_line(
    caplog: pytest.LogCaptureFixture, answer: object, reason: str
) -> None:
    assert get_error(InvocationResult(answer), ONE_WAY) == "Internal server error"
    assert caplog.messages == [f"the answer of route send is not valid: {reason}"]


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
        {"statusCode": 200, "headers": {"a": 1, "b": True, "c": None}, "multiValueHeaders": {"a": [1, None]}},
        {"statusCode": 200, "headers": {"X-Name": "満室\r\n"}},
        {"statusCode": 200, "body": "aGVsbG8=", "isBase64Encoded": True},
        {"statusCode": 200, "body": "not base64", "isBase64Encoded": False},
    ],
    ids=ascii,
)
def test_proxy_response_is_valid(answer: object) -> None:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html."""
    ProxyResponse.parse(answer)


# Answers that are valid and cannot be sent

TOO_LARGE = "x" * (128 * 1024 + 1)
UNSENDABLE = pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"body": "a\ud83d"}, "body cannot be written in UTF-8: "),
        ({"body": "\udc4b\ud83d"}, "body cannot be written in UTF-8: "),
        ({"body": TOO_LARGE}, "body has 131073 bytes, and the limit of a message is 131072"),
        ({"body": "é" + TOO_LARGE[3:] + "é"}, "body has 131074 bytes, "),
        ({"body": base64.b64encode(TOO_LARGE.encode()).decode(), "isBase64Encoded": True}, "body has 131073 bytes, "),
    ],
    ids=["half a pair", "pair in the wrong order", "large", "large in UTF-8", "large in base64"],
)


@UNSENDABLE
def test_reply_that_cannot_be_sent_is_an_error_and_a_log_line(
    caplog: pytest.LogCaptureFixture, answer: dict[str, object], reason: str
) -> None:
    assert get_error(InvocationResult({"statusCode": 200, **answer}), TWO_WAY) == "Internal server error"
    assert [message.startswith(f"the answer of route ask is not valid: {reason}") for message in caplog.messages] == [
        True
    ]
    assert caplog.text.isascii()


@UNSENDABLE
def test_refusal_that_cannot_be_sent_means_502_and_a_log_line(
    caplog: pytest.LogCaptureFixture, answer: dict[str, object], reason: str
) -> None:
    assert gateway.evaluate_connect(InvocationResult({"statusCode": 400, **answer})) == gateway.INTEGRATION_FAILED
    assert [message.startswith(f"the answer of $connect is not valid: {reason}") for message in caplog.messages] == [
        True
    ]


@UNSENDABLE
def test_body_that_is_not_sent_is_not_checked(answer: dict[str, object], reason: str) -> None:
    invocation = InvocationResult({"statusCode": 200, **answer})

    assert gateway.evaluate_reply(invocation, ONE_WAY) is None
    assert gateway.evaluate_connect(invocation) is None


@pytest.mark.parametrize(
    "value",
    ["", " ", "chat, log", "chat room", "chat\r\nX: y", "chat\n", "chat\0", "chät", "満室", "\ud83d", "a" + "\x7f"],
)
@pytest.mark.parametrize("name", ["headers", "multiValueHeaders"])
def test_illegal_subprotocol_means_502_and_a_log_line(caplog: pytest.LogCaptureFixture, name: str, value: str) -> None:
    """A subprotocol is one token: RFC 6455 section 4.1."""
    header = {"Sec-WebSocket-Protocol": value if name == "headers" else [value]}

    assert gateway.evaluate_connect(InvocationResult({"statusCode": 200, name: header})) == gateway.INTEGRATION_FAILED
    reason = "header Sec-WebSocket-Protocol must be one subprotocol, a token of RFC 9110"
    assert caplog.messages == [f"the answer of $connect is not valid: {reason}"]


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
def test_status_of_connect_decides(answer: object, expected: int) -> None:
    assert get_status(gateway.evaluate_connect(InvocationResult(answer))) == expected


@pytest.mark.parametrize(
    ("invocation", "expected"),
    [
        (InvocationResult(error="KeyError", message="'authorizer'"), 502),
        (CRASHED, 502),
        (TIMED_OUT, 504),
        (NOT_PERMITTED, 500),
    ],
    ids=["exception", "crash", "timeout", "no permission"],
)
def test_handshake_fails_if_connect_fails(invocation: InvocationResult, expected: int) -> None:
    assert get_status(gateway.evaluate_connect(invocation)) == expected


def test_refusal_of_connect_has_its_body() -> None:
    decision = gateway.evaluate_connect(InvocationResult({"statusCode": 400, "body": "no room"}))

    assert decision == Refusal(400, b"no room")


def test_refusal_of_connect_may_be_in_base64() -> None:
    answer = {"statusCode": 400, "body": base64.b64encode("満室".encode()).decode(), "isBase64Encoded": True}

    assert gateway.evaluate_connect(InvocationResult(answer)) == Refusal(400, "満室".encode())


CHAT = {"Sec-WebSocket-Protocol": "chat"}


@pytest.mark.parametrize(
    ("answer", "subprotocol"),
    [
        ({}, None),
        ({"headers": {**CHAT, "X-Other": "dropped", "Set-Cookie": "dropped"}}, "chat"),
        ({"headers": {"sec-websocket-protocol": "chat"}}, "chat"),
        ({"headers": {"Sec-WebSocket-Protocol": "not!offered"}}, "not!offered"),
        ({"headers": {"Sec-WebSocket-Protocol": 13}}, "13"),
        ({"headers": {"Sec-WebSocket-Protocol": True}}, "true"),
        ({"headers": {"Sec-WebSocket-Protocol": None}}, None),
        ({"multiValueHeaders": {"Sec-WebSocket-Protocol": ["chat"]}}, "chat"),
        ({"multiValueHeaders": {"Sec-WebSocket-Protocol": ["log", "chat"]}}, "chat"),
        ({"multiValueHeaders": {"Sec-WebSocket-Protocol": []}}, None),
        ({"headers": CHAT, "multiValueHeaders": {"Sec-WebSocket-Protocol": ["log"], "X-Other": ["dropped"]}}, "chat"),
        ({"headers": {"sec-websocket-protocol": "b"}, "multiValueHeaders": {"Sec-WebSocket-Protocol": ["a"]}}, "b"),
    ],
    ids=ascii,
)
def test_connect_selects_the_subprotocol(answer: dict[str, object], subprotocol: str | None) -> None:
    assert gateway.evaluate_connect(InvocationResult({"statusCode": 200, **answer})) == subprotocol


# Replies to messages


def get_error(invocation: InvocationResult, route: Route) -> str:
    """Return the message of the error frame."""
    with pytest.raises(IntegrationError) as error:
        gateway.evaluate_reply(invocation, route)
    return str(error.value)


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ({"statusCode": 200, "body": "hello"}, "hello"),
        ({"statusCode": 500, "body": "failed"}, "failed"),
        ({"statusCode": 301, "body": "moved"}, "moved"),
        ({"statusCode": 200, "body": "44GT", "isBase64Encoded": True}, "こ"),
        ({"statusCode": 200, "body": "44GT", "isBase64Encoded": False}, "44GT"),
        ({"statusCode": 200, "body": json.loads('"\\ud83d\\udc4b"')}, "👋"),
        ({"statusCode": 200, "body": ""}, ""),
        ({"statusCode": 200, "body": None}, ""),
        ({"statusCode": 200}, ""),
        ({"statusCode": 200, "body": TOO_LARGE[1:]}, TOO_LARGE[1:]),
    ],
    ids=["text", "500", "301", "base64", "not base64", "surrogate pair", "empty", "null", "none", "at the limit"],
)
def test_two_way_route_sends_its_body_and_a_one_way_route_nothing(answer: object, sent: str) -> None:
    """A two-way route sends its body with any status, and an empty message without a body."""
    assert gateway.evaluate_reply(InvocationResult(answer), TWO_WAY) == sent.encode()
    assert gateway.evaluate_reply(InvocationResult(answer), ONE_WAY) is None


@pytest.mark.parametrize(
    ("invocation", "message"),
    [
        (InvocationResult(error="KeyError", message="'secret'"), "Internal server error"),
        (CRASHED, "Internal server error"),
        (NOT_PERMITTED, "Internal server error"),
        (TIMED_OUT, "Endpoint request timed out"),
    ],
    ids=["exception", "crash", "no permission", "timeout"],
)
def test_client_is_told_that_its_message_failed_but_not_why(invocation: InvocationResult, message: str) -> None:
    assert get_error(invocation, TWO_WAY) == message


@pytest.mark.parametrize(
    "message", ["Forbidden", "Internal server error", "Endpoint request timed out", "Too Many Requests"]
)
def test_error_frame_is_byte_for_byte_that_of_aws(message: str) -> None:
    event = {"requestContext": {"requestId": "XDmGEE2RoE0FRdQ="}}

    frame = gateway.format_error_frame(message, connection(), event)

    assert frame == f'{{"message": "{message}", "connectionId":"{CONNECTION_ID}", "requestId":"XDmGEE2RoE0FRdQ="}}'
