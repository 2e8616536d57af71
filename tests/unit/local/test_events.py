"""The events that are passed to functions. tests/events has an example of each documented form."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from local.apigateway import events
from local.apigateway.api import Api
from local.apigateway.events import Connection, Event, Handshake
from local.aws.account import Account
from local.ids import make_id
from tests.fixtures.apis import OUR_ROUTES, api
from tests.fixtures.events import EventFactory

ID = re.compile(r"[A-Za-z0-9_-]{14}[AQgw]=")
TRACE_HEADER = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}")
ADDED = {
    "connection",
    "content-length",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-proto",
}


API = api(*OUR_ROUTES)


def connection(**facts: Any) -> Connection:
    return Connection(**{"source_ip": "203.0.113.7", "user_agent": None, **facts})


def handshake(query: str = "", headers: Iterable[tuple[str, str]] = ()) -> Handshake:
    return Handshake(f"/prod?{query}" if query else "/prod", tuple(headers))


# The whole event


def parse_example(example: Event) -> tuple[Api, Connection]:
    """Return the API and the connection of the example."""
    context = example["requestContext"]
    authorizer = {name: value for name, value in context.get("authorizer", {}).items() if name != "integrationLatency"}
    api = Api(context["apiId"], context["stage"], "$request.body.action", {}, account=Account("123456789012"))
    return api, Connection(
        source_ip=context["identity"]["sourceIp"],
        user_agent=context["identity"]["userAgent"],
        id=context["connectionId"],
        connected_at=context["connectedAt"],
        authorizer=authorizer or None,
    )


def rebuild_handshake(example: Event) -> Handshake:
    """Return the request that causes the example: headers in lower case, without those that the gateway adds."""
    sent = [(name.lower(), value) for name, value in example["headers"].items()]
    ((parameter, value),) = example["queryStringParameters"].items()
    return Handshake(
        f"/prod?{parameter}={value}",
        tuple((name, value) for name, value in sent if name not in ADDED),
        request_id=example["requestContext"]["requestId"],
    )


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the clock to the time of the example."""
    return lambda example: monkeypatch.setattr(
        events, "get_unix_milliseconds", lambda: example["requestContext"]["requestTimeEpoch"]
    )


def test_authorizer_event_is_the_documented_one(at: Any, authorizer_event: EventFactory) -> None:
    example = authorizer_event()
    at(example)

    assert events.build_authorizer_event(*parse_example(example), rebuild_handshake(example)) == example


def test_connect_event_is_the_documented_one(at: Any, connect_event: EventFactory) -> None:
    example = connect_event()
    at(example)

    assert events.build_connect_event(*parse_example(example), rebuild_handshake(example), latency=21) == example


def test_message_event_is_the_documented_one(at: Any, message_event: EventFactory) -> None:
    example = message_event()
    at(example)

    event = events.build_message_event(*parse_example(example), "$default", "hello")

    assert event == message_event(**get_ids(event, "messageId"))


def test_disconnect_event_is_the_documented_one(at: Any, disconnect_event: EventFactory) -> None:
    example = disconnect_event()
    at(example)

    event = events.build_disconnect_event(
        *parse_example(example), code=1005, reason="Client-side close frame status not set"
    )

    assert event == disconnect_event(**get_ids(event))


def get_ids(event: Event, *more: str) -> dict[str, str]:
    """Return the ids that differ between events."""
    return {name: event["requestContext"][name] for name in ("requestId", "extendedRequestId", *more)}


# Each of the four


def build_all(connection: Connection, handshake: Handshake, api: Api = API) -> list[Event]:
    latency = None if connection.authorizer is None else 1
    return [
        events.build_authorizer_event(api, connection, handshake),
        events.build_connect_event(api, connection, handshake, latency=latency),
        events.build_message_event(api, connection, "$default", "hello"),
        events.build_disconnect_event(api, connection, code=1000, reason=""),
    ]


def test_ids_have_the_format_of_aws() -> None:
    contexts = [event["requestContext"] for event in build_all(connection(), handshake())]

    found = [context[name] for context in contexts for name in ("connectionId", "requestId")]
    assert [each for each in [*found, contexts[2]["messageId"]] if not ID.fullmatch(each)] == []


def test_ids_end_like_those_of_aws() -> None:
    assert {make_id()[-2] for _ in range(1000)} == {"A", "Q", "g", "w"}


def test_extended_request_id_is_the_request_id() -> None:
    for event in build_all(connection(), handshake()):
        assert event["requestContext"]["extendedRequestId"] == event["requestContext"]["requestId"]


def test_authorizer_and_connect_route_share_a_request_id_and_others_have_their_own() -> None:
    authorizer, connect, *others = [
        event["requestContext"]["requestId"] for event in build_all(connection(), handshake())
    ]

    assert authorizer == connect
    assert len({connect, *others}) == 3


def test_connection_keeps_its_id_and_time_in_all_its_events() -> None:
    client = connection()

    facts = [event["requestContext"] for event in build_all(client, handshake())]

    assert {(each["connectionId"], each["connectedAt"]) for each in facts} == {(client.id, client.connected_at)}


def test_request_time_is_the_second_of_its_epoch_in_utc() -> None:
    for event in build_all(connection(), handshake()):
        context = event["requestContext"]
        time = datetime.strptime(context["requestTime"], "%d/%b/%Y:%H:%M:%S %z")
        assert time == datetime.fromtimestamp(context["requestTimeEpoch"] // 1000, UTC)
        assert context["requestTimeEpoch"] >= context["connectedAt"]


def test_event_names_its_route_and_type() -> None:
    contexts = [event["requestContext"] for event in build_all(connection(), handshake())]

    assert [(context["routeKey"], context["eventType"]) for context in contexts] == [
        ("$connect", "CONNECT"),
        ("$connect", "CONNECT"),
        ("$default", "MESSAGE"),
        ("$disconnect", "DISCONNECT"),
    ]


def find_nulls(value: Any, path: str = "") -> list[str]:
    """Return the paths of nulls in a document."""
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in find_nulls(item, f"{path}.{name}")]
    return [path] if value is None else []


def test_field_that_does_not_apply_is_absent_and_not_null() -> None:
    everything = build_all(connection(user_agent=None, authorizer=None), handshake())

    assert find_nulls(dict(enumerate(everything))) == []
    assert all("authorizer" not in event["requestContext"] for event in everything)
    assert all(event["requestContext"]["identity"] == {"sourceIp": "203.0.113.7"} for event in everything)


def test_null_in_the_context_of_the_authorizer_stays_null() -> None:
    client = connection(authorizer={"principalId": "ada", "team": None})

    _, *events_after_it = build_all(client, handshake())

    assert [event["requestContext"]["authorizer"]["team"] for event in events_after_it] == [None] * 3


def test_only_the_connect_event_has_the_latency_of_the_authorizer() -> None:
    client = connection(authorizer={"principalId": "ada"})

    _, *with_authorizer = [event["requestContext"].get("authorizer") for event in build_all(client, handshake())]

    principal = {"principalId": "ada"}
    assert with_authorizer == [{**principal, "integrationLatency": 1}, principal, principal]


@pytest.mark.parametrize("body", ["hello", "", " {} ", '{"b":1,\n"a":2}', "こんにちは 👋", '{"action": "x"}\r\n'])
def test_message_arrives_as_it_was_sent(body: str) -> None:
    assert events.build_message_event(API, connection(), "$default", body)["body"] == body


# Stage variables


def test_stage_variables_are_in_every_event() -> None:
    served = api(*OUR_ROUTES, stage_variables={"tenant": "acme"})

    assert [event["stageVariables"] for event in build_all(connection(), handshake(), served)] == [
        {"tenant": "acme"}
    ] * 4


def test_without_stage_variables_only_the_authorizer_has_the_map() -> None:
    authorizer, *others = build_all(connection(), handshake())

    assert authorizer["stageVariables"] == {}
    assert not any("stageVariables" in event for event in others)


# Query string


def build_queries(query: str) -> list[tuple[Any, Any]]:
    """Return both query maps of the authorizer event and of the connect event; None for an absent map."""
    request = handshake(query)
    both = (
        events.build_authorizer_event(API, connection(), request),
        events.build_connect_event(API, connection(), request, latency=None),
    )
    names = ("queryStringParameters", "multiValueQueryStringParameters")
    return [(event.get(names[0]), event.get(names[1])) for event in both]


@pytest.mark.parametrize(
    ("query", "single", "multi"),
    [
        ("room=a", {"room": "a"}, {"room": ["a"]}),
        ("room=a&room=b&x=1&room=c", {"room": "c", "x": "1"}, {"room": ["a", "b", "c"], "x": ["1"]}),
        ("empty=&flag", {"empty": "", "flag": ""}, {"empty": [""], "flag": [""]}),
        ("n%C3%A4me=%26%3D%2B", {"näme": "&=+"}, {"näme": ["&=+"]}),
        ("jwt=a.b-c_d==", {"jwt": "a.b-c_d=="}, {"jwt": ["a.b-c_d=="]}),
    ],
)
def test_query_is_decoded_into_last_and_all_values(query: str, single: object, multi: object) -> None:
    assert build_queries(query) == [(single, multi)] * 2


def test_without_a_query_only_the_authorizer_has_the_maps() -> None:
    assert build_queries("") == [({}, {}), (None, None)]


# Headers


def build_headers(*sent: tuple[str, str]) -> dict[str, list[str]]:
    """Return the headers of the connect event."""
    event = events.build_connect_event(API, connection(), handshake(headers=sent), latency=None)
    assert event["headers"] == {name: values[-1] for name, values in event["multiValueHeaders"].items()}
    return dict(event["multiValueHeaders"])


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("host", "Host"),
        ("sec-websocket-key", "Sec-WebSocket-Key"),
        ("SEC-WEBSOCKET-VERSION", "Sec-WebSocket-Version"),
        ("sec-websocket-extensions", "Sec-WebSocket-Extensions"),
        ("user-agent", "User-Agent"),
        ("origin", "Origin"),
        ("test", "test"),
        ("X-Custom-id", "X-Custom-id"),
        ("HeaderAuth1", "HeaderAuth1"),
    ],
)
def test_well_known_headers_are_spelt_canonically_and_others_as_sent(sent: str, seen: str) -> None:
    assert seen in build_headers((sent, "value"))
    assert seen == sent or sent not in build_headers((sent, "value"))


def test_repeated_header_has_all_its_values() -> None:
    assert build_headers(("test", "1"), ("test", "2"))["test"] == ["1", "2"]


def test_only_the_authorizer_event_has_hop_by_hop_headers() -> None:
    sent = (("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket"), ("Content-Length", "0"))
    request = handshake(headers=sent)

    authorizer = events.build_authorizer_event(API, connection(), request)["headers"]
    connect = events.build_connect_event(API, connection(), request, latency=None)["headers"]

    assert authorizer.items() - connect.items() == {
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("content-length", "0"),
    }


@pytest.mark.parametrize("name", ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "User-Agent"])
def test_optional_header_is_present_only_if_it_was_sent(name: str) -> None:
    assert name not in build_headers()
    assert build_headers((name.lower(), "value"))[name] == ["value"]


def test_gateway_replaces_host_and_forwarding_headers() -> None:
    seen = build_headers(("host", "127.0.0.1:4510"), ("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "http"))

    assert seen["Host"] == ["localapi00.execute-api.us-east-1.amazonaws.com"]
    assert seen["X-Forwarded-For"] == ["203.0.113.7"]
    assert (seen["X-Forwarded-Port"], seen["X-Forwarded-Proto"]) == (["443"], ["https"])


ROOT = "Root=1-65c66e5f-1a2b3c4d5e6f708192a3b4c5"


@pytest.mark.parametrize("sent", [ROOT, f"{ROOT};Parent=53995c3f42cd8ad8;Sampled=1", f"Self=1-65c66e5f-0;{ROOT}"])
def test_trace_header_keeps_the_clients_root_and_nothing_else(sent: str) -> None:
    assert build_headers(("x-amzn-trace-id", sent))["X-Amzn-Trace-Id"] == [ROOT]


@pytest.mark.parametrize("sent", [(), ("",), ("Sampled=1",), ("Root=1-65c66e5f",), (f"{ROOT}0",), (ROOT.upper(),)])
def test_trace_header_has_a_new_root_if_the_client_sent_none(sent: tuple[str, ...]) -> None:
    (trace,) = build_headers(*[("x-amzn-trace-id", value) for value in sent])["X-Amzn-Trace-Id"]

    assert TRACE_HEADER.fullmatch(trace)
    assert trace != ROOT


def test_authorizer_and_connect_route_share_a_trace() -> None:
    request = handshake()

    authorizer, connect, *_ = build_all(connection(), request)

    assert authorizer["headers"]["X-Amzn-Trace-Id"] == connect["headers"]["X-Amzn-Trace-Id"]


def test_every_handshake_has_a_trace_of_its_own() -> None:
    assert build_headers()["X-Amzn-Trace-Id"] != build_headers()["X-Amzn-Trace-Id"]


def test_gateway_adds_no_other_header() -> None:
    added = {"Host", "X-Amzn-Trace-Id", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"}

    assert build_headers().keys() == added
    assert not any("X-Amzn-Trace-Id" in event.get("headers", {}) for event in build_all(connection(), handshake())[2:])
