"""The gateway's decisions, without a socket; what an authorizer's answer means is in test_authorization.py."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from local import gateway
from local.events import Handshake
from local.gateway import Invocation, Refusal
from local.template import Authorizer, TemplateError
from tests.local.conftest import AUTHORIZER, CONNECTION_ID, OUR_ROUTES, PATIENCE_SECONDS, api, connection

TIMED_OUT = Invocation(error="Sandbox.Timedout", message="Task timed out after 3.00 seconds")
CRASHED = Invocation(error="Runtime.ExitError", message="the runtime exited with status 1")


def status(decision: object) -> int:
    """What the client gets to see of a decision about its handshake."""
    return decision.status if isinstance(decision, Refusal) else 101


# What the gateway can evaluate


@pytest.mark.parametrize(
    "expression",
    [
        "${request.body.action}",
        "$request.body.action-${request.body.kind}",
        "$request.body.a[0]",
        "static",
        r"\$default",
    ],
)
def test_route_selection_that_cannot_be_evaluated_is_named(expression: str) -> None:
    with pytest.raises(TemplateError) as error:
        gateway.check(api(*OUR_ROUTES, expression=expression))

    assert expression in str(error.value)


@pytest.mark.parametrize(
    "source",
    ["$request.header.Authorization", "stageVariables.key", "context.identity.sourceIp", "route.request.body.a"],
)
def test_identity_source_that_cannot_be_evaluated_is_named(source: str) -> None:
    with pytest.raises(TemplateError) as error:
        gateway.check(api(*OUR_ROUTES, identity_sources=("route.request.header.Auth", source)))

    assert source in str(error.value)


# Stage


@pytest.mark.parametrize(
    ("path", "is_stage"),
    [
        ("/prod", True),
        ("/prod/", True),
        ("/", False),
        ("/dev", False),
        ("/PROD", False),
        ("/production", False),
        ("/prod/chat", False),
        ("//prod", False),
    ],
)
def test_websocket_is_at_the_stage_with_or_without_a_slash(path: str, is_stage: bool) -> None:
    assert gateway.is_stage(api(*OUR_ROUTES), path) is is_stage


# Identity sources


def has_identity(*sources: str, query: str = "", headers: tuple[tuple[str, str], ...] = ()) -> bool:
    return gateway.has_identity(Authorizer(AUTHORIZER, sources), Handshake("/prod", query, headers))


@pytest.mark.parametrize("sent", ["Auth", "auth", "AUTH"])
def test_identity_header_is_found_whatever_its_case(sent: str) -> None:
    """RFC 9110 section 5.1."""
    assert has_identity("route.request.header.Auth", headers=((sent, "secret"),))


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


@pytest.mark.parametrize("headers", [(), (("Auth", ""),), (("Other", "secret"),)])
def test_identity_header_must_be_there_and_not_empty(headers: tuple[tuple[str, str], ...]) -> None:
    assert not has_identity("route.request.header.Auth", headers=headers)


@pytest.mark.parametrize(
    ("query", "headers", "found"),
    [
        ("a=1", (("Auth", "secret"),), True),
        ("a=1", (), False),
        ("", (("Auth", "secret"),), False),
        ("a=", (("Auth", "secret"),), False),
    ],
)
def test_every_identity_source_is_needed(query: str, headers: tuple[tuple[str, str], ...], found: bool) -> None:
    sources = ("route.request.querystring.a", "route.request.header.Auth")

    assert has_identity(*sources, query=query, headers=headers) is found


def test_authorizer_without_identity_sources_is_asked_about_everyone() -> None:
    assert has_identity()


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
    [(Invocation(error="KeyError", message="'authorizer'"), 502), (CRASHED, 502), (TIMED_OUT, 504)],
    ids=["exception", "crash", "timeout"],
)
def test_failed_connect_route_is_a_bad_gateway(invocation: Invocation, expected: int) -> None:
    assert status(gateway.connected(invocation)) == expected


MALFORMED: list[object] = [
    None,
    "OK",
    200,
    [],
    {},
    {"body": "OK"},
    {"statusCode": None},
    {"statusCode": "OK"},
    {"statusCode": True},
    {"statusCode": 200, "Data": "x"},
]


@pytest.mark.parametrize("answer", MALFORMED, ids=repr)
def test_malformed_answer_of_the_connect_route_is_a_bad_gateway(answer: object) -> None:
    assert status(gateway.connected(Invocation(answer))) == 502


@pytest.mark.parametrize("headers", [["Sec-WebSocket-Protocol"], "Sec-WebSocket-Protocol: chat"], ids=repr)
def test_malformed_headers_of_the_connect_route_are_a_bad_gateway(headers: object) -> None:
    assert status(gateway.connected(Invocation({"statusCode": 200, "headers": headers}))) == 502


def test_refusing_connect_route_says_why() -> None:
    decision = gateway.connected(Invocation({"statusCode": 400, "body": "no room"}))

    assert decision == Refusal(400, b"no room")


@pytest.mark.parametrize("name", ["Sec-WebSocket-Protocol", "sec-websocket-protocol"])
def test_only_the_subprotocol_of_the_connect_route_reaches_the_client(name: str) -> None:
    headers = {name: "chat", "X-Other": "dropped", "Set-Cookie": "dropped"}

    assert gateway.connected(Invocation({"statusCode": 200, "headers": headers})) == {name: "chat"}


# Route selection


@pytest.mark.parametrize(
    ("body", "selected"),
    [
        ('{"action": "send"}', "send"),
        ('{"text": "hi", "action": "send"}', "send"),
        ('{"action": "Send"}', "$default"),
        ('{"action": "send "}', "$default"),
        ('{"action": "other"}', "$default"),
        ('{"action": 1}', "1"),
        ('{"action": true}', "true"),
        ('{"action": ["a", "b"]}', "[a, b]"),
        ('{"action": null}', "$default"),
        ('{"action": {"send": 1}}', "$default"),
        ('{"text": "send"}', "$default"),
        ('["send"]', "$default"),
        ('"send"', "$default"),
        ("send", "$default"),
        ('{"action": "send"', "$default"),
        ("", "$default"),
        ("[" * 100_000, "$default"),
    ],
    ids=lambda value: value[:24],
)
def test_message_selects_the_route_of_its_action(body: str, selected: str) -> None:
    assert gateway.route_key(api("send", "1", "true", "[a, b]", *OUR_ROUTES), body) == selected


@pytest.mark.parametrize("body", ['{action: "send", data: "test"}', '{"action":"send", body:"hello"}'])
def test_unquoted_keys_are_read_as_by_aws(body: str) -> None:
    """API Gateway's JSON parser is lenient: both messages are captures from AWS."""
    assert gateway.route_key(api("send", *OUR_ROUTES), body) == "send"


@pytest.mark.parametrize(
    ("body", "selected"),
    [
        ('{action: "send", text: "a: b, {c: d}"}', "send"),
        ('{action: "send", text: "\\"}, action: \\"other"}', "send"),
        ('{text: "\\\\", action: "send"}', "send"),
        ('{ action : "send" }', "send"),
        ('{a1: true, $b_: null, action: "send"}', "send"),
        ("{action: send}", "$default"),
        ("{action: 'send'}", "$default"),
        ('{1: 2, action: "send"}', "$default"),
        ('action: "send"', "$default"),
        ('{action: "send"', "$default"),
    ],
)
def test_only_the_keys_may_be_unquoted(body: str, selected: str) -> None:
    assert gateway.route_key(api("send", *OUR_ROUTES), body) == selected


@pytest.fixture
def patience() -> Iterator[None]:
    """Fails a test that would keep the event loop busy."""

    def fail(*_: object) -> None:
        pytest.fail(f"it took over {PATIENCE_SECONDS} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "part", ["x", '"', "\\", '\\"', "a:", "a ", "a", " ", "{", "[", '{"', '"a', "$", "1", "é", '{a:"b",']
)
@pytest.mark.parametrize("start", ["", '{"action": "', "{action", "{a: "])
def test_no_message_keeps_the_gateway_busy(patience: None, start: str, part: str) -> None:
    body = (start + part * (128 * 1024))[: 128 * 1024]

    assert gateway.route_key(api(*OUR_ROUTES), body) == "$default"


@pytest.mark.parametrize("key", ["$connect", "$disconnect"])
def test_message_cannot_select_the_gateways_own_routes(key: str) -> None:
    assert gateway.route_key(api("$connect", "$disconnect"), f'{{"action": "{key}"}}') is None


@pytest.mark.parametrize("body", ["hello", '{"action": "other"}', '{"action": "$default"}'])
def test_message_without_a_route_selects_none_where_there_is_no_default(body: str) -> None:
    assert gateway.route_key(api("$connect", "send"), body) is None


@pytest.mark.parametrize(
    ("body", "selected"),
    [
        ('{"service": {"do": "send"}}', "send"),
        ('{"service": "send"}', "$default"),
        ('{"service": [{"do": "send"}]}', "$default"),
        ('{"do": "send"}', "$default"),
    ],
)
def test_selection_expression_may_reach_deeper(body: str, selected: str) -> None:
    assert gateway.route_key(api("send", "$default", expression="$request.body.service.do"), body) == selected


# What the client is told of its message


@pytest.mark.parametrize("answer", [{"statusCode": 200}, {"statusCode": 500, "body": "failed"}, {"statusCode": 301}])
def test_answer_to_a_message_is_not_shown_whatever_its_status(answer: object) -> None:
    assert gateway.message_error(Invocation(answer)) is None


@pytest.mark.parametrize("answer", MALFORMED, ids=repr)
def test_malformed_answer_to_a_message_is_an_error(answer: object) -> None:
    assert gateway.message_error(Invocation(answer)) == "Internal server error"


@pytest.mark.parametrize(
    ("invocation", "message"),
    [
        (Invocation(error="KeyError", message="'secret'"), "Internal server error"),
        (CRASHED, "Internal server error"),
        (TIMED_OUT, "Endpoint request timed out"),
    ],
    ids=["exception", "crash", "timeout"],
)
def test_client_is_told_that_its_message_failed_but_not_why(invocation: Invocation, message: str) -> None:
    assert gateway.message_error(invocation) == message


@pytest.mark.parametrize("message", ["Forbidden", "Internal server error", "Endpoint request timed out"])
def test_error_frame_is_byte_for_byte_that_of_aws(message: str) -> None:
    event = {"requestContext": {"requestId": "XDmGEE2RoE0FRdQ="}}

    frame = gateway.error_frame(message, connection(), event)

    assert frame == f'{{"message": "{message}", "connectionId":"{CONNECTION_ID}", "requestId":"XDmGEE2RoE0FRdQ="}}'
