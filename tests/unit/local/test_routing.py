"""Route selection, with every form of route selection expression."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from local.apigateway.routing import RouteSelection
from local.errors import TemplateError
from tests.fixtures.gateway import PATIENCE_SECONDS

ACTION = "$request.body.action"
OURS = ("$connect", "$disconnect", "$default")
MAX_MESSAGE = 128 * 1024


def route_key(body: str, *routes: str, expression: str = ACTION) -> str | None:
    return RouteSelection.parse(expression).select(routes, body)


# Expressions


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("$request.body.action", "send"),
        ("${request.body.action}", "send"),
        ("$request.body.service.do", "echo"),
        ("${request.body.service.do}", "echo"),
        ("$request.body.service['do it']", "again"),
        ("$request.body['action']", "send"),
        ("${request.body['service']['do it']}", "again"),
        ("$request.body.list[1]", "b"),
        ("$request.body.nested[0].name", "first"),
        ("${request.body.nested[1]['name']}", "second"),
        ("$request.body.snake_case", "snake"),
        ("$request.body.kebab-case", "kebab"),
    ],
)
def test_expression_reaches_any_value_of_the_message(expression: str, selected: str) -> None:
    message = {
        "action": "send",
        "service": {"do": "echo", "do it": "again"},
        "list": ["a", "b"],
        "nested": [{"name": "first"}, {"name": "second"}],
        "snake_case": "snake",
        "kebab-case": "kebab",
    }

    assert RouteSelection.parse(expression).evaluate(json.dumps(message)) == selected


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("${request.body.a}-${request.body.b}", "x-y"),
        ("${request.body.a}${request.body.b}", "xy"),
        ("v1/${request.body.a}:${request.body.b}!", "v1/x:y!"),
        ("${request.body.a} ${request.body.a}", "x x"),
        ("${request.body.a}-${request.body.missing}", "x-"),
        ("${request.body.missing}-${request.body.a}", "-x"),
        ("${request.body.a.deeper}-${request.body.a[0]}", "-"),
    ],
)
def test_values_are_joined_with_text_and_missing_values_are_empty(expression: str, value: str) -> None:
    assert RouteSelection.parse(expression).evaluate('{"a": "x", "b": "y"}') == value


def test_text_around_values_is_part_of_the_route_key() -> None:
    expression = "${request.body.service}.${request.body.do}"

    assert route_key('{"service": "rooms", "do": "join"}', "rooms.join", *OURS, expression=expression) == "rooms.join"
    assert route_key('{"service": "rooms"}', "rooms.", "rooms", *OURS, expression=expression) == "rooms."


@pytest.mark.parametrize("body", ['{"action": "send"}', "hello", "", "[1]"])
def test_static_text_selects_the_same_route_for_every_message(body: str) -> None:
    assert route_key(body, "all", "send", *OURS, expression="all") == "all"
    assert route_key(body, "send", *OURS, expression="all") == "$default"


def test_escaped_dollar_is_text() -> None:
    assert route_key("hello", "price$", *OURS, expression=r"price\$") == "price$"
    assert route_key('{"a": "x"}', "v$1-x", *OURS, expression=r"v\$1-${request.body.a}") == "v$1-x"


@pytest.mark.parametrize("body", ['{"action": "send"}', "hello"])
def test_escaped_default_sends_everything_to_the_default_route(body: str) -> None:
    assert route_key(body, "send", *OURS, expression=r"\$default") == "$default"


@pytest.mark.parametrize(
    "expression",
    [
        "$request.header.action",
        "$request.querystring.action",
        "$request.body",
        "$request.body.",
        "$request.body..action",
        "$request.body.*",
        "$request.body.list[*]",
        "$request.body.list[-1]",
        "$request.body.list[?(@.a)]",
        "$request.body.action ",
        "$request.body.action-${request.body.kind}",
        "${request.body}",
        "${request.header.action}",
        "${request.body.action",
        "${request.body.list[*]}",
        "$context.routeKey",
        "$default",
        "a$b",
    ],
)
def test_error_names_the_expression_and_the_rule(expression: str) -> None:
    with pytest.raises(TemplateError) as error:
        RouteSelection.parse(expression)

    assert f" {expression} " in str(error.value)
    assert "it must be $request.body.NAME" in str(error.value)


# Values


@pytest.mark.parametrize(
    ("body", "selected"),
    [
        ('{"action": "send"}', "send"),
        ('{"text": "hi", "action": "send"}', "send"),
        ('{"action": "\\u0073end"}', "send"),
        ('\n{"action"\t: "send"} ', "send"),
        ('{"action": "Send"}', "$default"),
        ('{"action": "send "}', "$default"),
        ('{"Action": "send"}', "$default"),
        ('{"action": "other"}', "$default"),
        ('{"action": ""}', "$default"),
        (r'{"action": "\ud83d"}', "$default"),
        ('{"text": "send"}', "$default"),
        ("{}", "$default"),
    ],
)
def test_route_is_an_exact_match_or_the_default(body: str, selected: str) -> None:
    assert route_key(body, "send", *OURS) == selected


@pytest.mark.parametrize(
    ("value", "selected"),
    [
        ("1", "1"),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("false", "false"),
        ('["a", "b"]', "[a, b]"),
        ('["a"]', "[a]"),
        ("[]", "[]"),
        ('[1, true, ["b"]]', "[1, true, [b]]"),
    ],
)
def test_value_becomes_a_string(value: str, selected: str) -> None:
    """AWS documents the form of arrays. For numbers and booleans, JSON's form is assumed."""
    assert route_key(f'{{"action": {value}}}', selected, *OURS) == selected
    assert route_key(f'{{"action": {value}}}', *OURS) == "$default"


@pytest.mark.parametrize("value", ["null", '{"send": 1}', "{}", '[{"send": 1}]'])
def test_null_or_object_selects_the_default_route(value: str) -> None:
    assert route_key(f'{{"action": {value}}}', "send", "null", *OURS) == "$default"


def test_null_in_a_longer_key_is_empty() -> None:
    expression = "${request.body.a}-${request.body.b}"

    assert RouteSelection.parse(expression).evaluate('{"a": "x", "b": null}') == "x-"


@pytest.mark.parametrize(
    ("body", "selected"),
    [
        ('{"service": {"do": "send"}}', "send"),
        ('{"service": {"do": {}}}', "$default"),
        ('{"service": "send"}', "$default"),
        ('{"service": [{"do": "send"}]}', "$default"),
        ('{"service": null}', "$default"),
        ('{"do": "send"}', "$default"),
    ],
)
def test_path_leads_through_objects_only(body: str, selected: str) -> None:
    assert route_key(body, "send", *OURS, expression="$request.body.service.do") == selected


@pytest.mark.parametrize(
    ("body", "selected"),
    [
        ('{"list": ["a", "b", "send"]}', "send"),
        ('{"list": ["a", "b"]}', "$default"),
        ('{"list": "abs"}', "$default"),
        ('{"list": {"2": "send"}}', "$default"),
    ],
)
def test_index_leads_through_arrays_only(body: str, selected: str) -> None:
    assert route_key(body, "send", "s", *OURS, expression="$request.body.list[2]") == selected


# Messages that are no object


@pytest.mark.parametrize(
    "body", ["send", '"send"', "1", "null", "", " ", '{"action": "send"', '{"action": "send"}}', '{"action": "send",}']
)
def test_message_that_is_not_a_json_object_takes_the_default_route(body: str) -> None:
    assert route_key(body, "send", *OURS) == "$default"


@pytest.mark.parametrize("expression", ["$request.body[0]", "${request.body[0]}", ACTION])
def test_array_takes_the_default_route(expression: str) -> None:
    """AWS does not document the value of `$request.body[0]`."""
    assert route_key('["send"]', "send", *OURS, expression=expression) == "$default"


@pytest.mark.parametrize("body", ["hello", '{"action": "other"}', '{"action": "$default"}', "[]", "{}"])
def test_message_selects_no_route_if_there_is_no_default(body: str) -> None:
    assert route_key(body, "$connect", "send") is None


@pytest.mark.parametrize("key", ["$connect", "$disconnect"])
def test_message_cannot_select_the_gateways_own_routes(key: str) -> None:
    body = json.dumps({"action": key})

    assert route_key(body, "$connect", "$disconnect") is None
    assert route_key(body, *OURS) == "$default"


@pytest.mark.parametrize(
    ("expression", "body"),
    [(r"\$connect", "hello"), ("${request.body.a}", '{"a": "$connect"}'), ("${request.body.a}nect", '{"a": "$con"}')],
)
def test_expression_cannot_select_the_gateways_own_routes(expression: str, body: str) -> None:
    assert route_key(body, "$connect", "$disconnect", expression=expression) is None


# Names without quotes


@pytest.mark.parametrize("body", ['{action: "send", data: "test"}', '{"action":"send", body:"hello"}'])
def test_unquoted_keys_are_read_as_by_aws(body: str) -> None:
    """API Gateway's JSON parser is lenient: both messages are captures from AWS."""
    assert route_key(body, "send", *OURS) == "send"


@pytest.mark.parametrize(
    ("body", "selected"),
    [
        ('{action: "send", text: "a: b, {c: d}"}', "send"),
        ('{action: "send", text: "\\"}, action: \\"other"}', "send"),
        ('{text: "\\\\", action: "send"}', "send"),
        ('{ action : "send" }', "send"),
        ('{a1: true, $b_: null, action: "send"}', "send"),
        ('{text: {deeper: [1]}, action: "send"}', "send"),
        ("{action: send}", "$default"),
        ("{action: 'send'}", "$default"),
        ('{1: 2, action: "send"}', "$default"),
        ('action: "send"', "$default"),
        ('{action: "send"', "$default"),
    ],
)
def test_only_the_keys_may_be_unquoted(body: str, selected: str) -> None:
    assert route_key(body, "send", *OURS) == selected


# Malicious messages


@pytest.mark.parametrize("depth", [10, 400, 800, 1500, 20_000, MAX_MESSAGE // 2 - 20])
@pytest.mark.parametrize("start", ["", '{"action": ', '{"text": '])
def test_nesting_of_any_depth_selects_some_route(start: str, depth: int) -> None:
    body = f"{start}{'[' * depth}{']' * depth}{'}' if start else ''}"

    assert route_key(body, "send", *OURS) == "$default"


def test_number_of_any_length_selects_some_route() -> None:
    assert route_key(f'{{"action": {"9" * 100_000}}}', "send", *OURS) == "$default"


@pytest.fixture
def patience() -> Iterator[None]:
    """Fail a test that keeps the event loop busy."""

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
    body = (start + part * MAX_MESSAGE)[:MAX_MESSAGE]

    assert route_key(body, *OURS) == "$default"
