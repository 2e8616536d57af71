"""The events of functions: their exact members, and the values."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conformance.conftest import case
from tests.conformance.gateway import Event, Gateway

ID = re.compile(r"[A-Za-z0-9_-]{14}[AQgw]=")
TRACE_ID = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}")
KINDS = ("authorizer", "$connect", "$default", "$disconnect")
QUERY = {"queryStringParameters", "multiValueQueryStringParameters"}
HEADERS = {"headers", "multiValueHeaders"}
# Of every event.
CONTEXT = {
    "routeKey",
    "eventType",
    "extendedRequestId",
    "requestTime",
    "messageDirection",
    "stage",
    "connectedAt",
    "requestTimeEpoch",
    "identity",
    "requestId",
    "domainName",
    "connectionId",
    "apiId",
}
HANDSHAKE_HEADERS = {
    "Host",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "User-Agent",
    "X-Amzn-Trace-Id",
    "X-Forwarded-For",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
}

Events = dict[str, Event]


async def run_connection(gateway: Gateway, **how: Any) -> Events:
    """Connect, send a message and close; return the events by kind."""
    observer, its_id = await gateway.observer()
    client = await gateway.open(observer=its_id, **how)
    events = {kind: await observer.event(kind) for kind in KINDS[:2]}
    await client.send('{"text": "hello"}')
    events["$default"] = await observer.event("$default")
    await client.socket.close()
    return events | {"$disconnect": await observer.event("$disconnect")}


async def connect_events(gateway: Gateway, **how: Any) -> tuple[Event, Event]:
    """Connect; return the events of the authorizer and of `$connect`."""
    observer, its_id = await gateway.observer()
    await gateway.open(headers={"X-Observer": its_id, **how.pop("headers", {})}, **how)
    return await observer.event("authorizer"), await observer.event("$connect")


def get_contexts(events: Events) -> list[dict[str, Any]]:
    return [event["requestContext"] for event in events.values()]


# Members


@case("event-authorizer-members")
async def test_members_of_the_authorizers_event(main: Gateway) -> None:
    event = (await run_connection(main))["authorizer"]

    assert event.keys() == {"type", "methodArn", "stageVariables", "requestContext"} | QUERY | HEADERS
    assert event["requestContext"].keys() == CONTEXT
    assert event["stageVariables"] == {}


@case("event-connect-members")
async def test_members_of_a_connect_event(main: Gateway) -> None:
    event = (await run_connection(main))["$connect"]

    assert event.keys() == {"requestContext", "isBase64Encoded"} | QUERY | HEADERS
    assert event["requestContext"].keys() == CONTEXT | {"authorizer"}
    assert event["isBase64Encoded"] is False


@case("event-message-members")
async def test_members_of_a_message_event(main: Gateway) -> None:
    event = (await run_connection(main))["$default"]

    assert event.keys() == {"requestContext", "isBase64Encoded", "body"}
    assert event["requestContext"].keys() == CONTEXT | {"authorizer", "messageId"}
    assert (event["body"], event["isBase64Encoded"]) == ('{"text": "hello"}', False)


@case("event-disconnect-members")
async def test_members_of_a_disconnect_event(main: Gateway) -> None:
    event = (await run_connection(main))["$disconnect"]

    assert event.keys() == {"requestContext", "isBase64Encoded"} | HEADERS
    assert event["requestContext"].keys() == CONTEXT | {"authorizer", "disconnectStatusCode", "disconnectReason"}
    assert event["isBase64Encoded"] is False


@case("event-no-authorizer")
async def test_events_of_an_api_without_authorizer_have_no_authorizer(bare: Gateway) -> None:
    event = await (await bare.open()).report()

    assert event["requestContext"].keys() == CONTEXT | {"messageId"}


@case("event-stage-variables")
async def test_stage_variables_are_in_every_event(guarded: Gateway) -> None:
    events = await run_connection(guarded)

    assert [event["stageVariables"] for event in events.values()] == [{"colour": "blue"}] * 4


@case("event-context-values")
async def test_context_names_event_type_route_direction_and_stage(main: Gateway) -> None:
    found = get_contexts(await run_connection(main))

    assert [each["eventType"] for each in found] == ["CONNECT", "CONNECT", "MESSAGE", "DISCONNECT"]
    assert [each["routeKey"] for each in found] == ["$connect", "$connect", "$default", "$disconnect"]
    assert {each["messageDirection"] for each in found} == {"IN"}
    assert {each["stage"] for each in found} == {main.stage.name}


# Identifiers and times


@case("event-id-format")
async def test_ids_are_base64url_of_eleven_bytes(main: Gateway) -> None:
    found = get_contexts(await run_connection(main))

    ids = [each[name] for each in found for name in ("connectionId", "requestId", "messageId") if name in each]
    assert len(ids) == 9
    assert [each for each in ids if not ID.fullmatch(each)] == []


@case("event-extended-request-id")
async def test_extended_request_id_is_the_request_id(main: Gateway) -> None:
    found = get_contexts(await run_connection(main))

    assert [each["extendedRequestId"] for each in found] == [each["requestId"] for each in found]


@case("event-connection-constant")
async def test_connection_keeps_its_id_and_time(main: Gateway) -> None:
    found = get_contexts(await run_connection(main))

    assert len({(each["connectionId"], each["connectedAt"]) for each in found}) == 1


@case("event-message-ids")
async def test_each_message_has_ids_of_its_own(main: Gateway) -> None:
    client = await main.open()

    found = [(await client.report())["requestContext"] for _ in range(3)]

    assert len({each["messageId"] for each in found} | {each["requestId"] for each in found}) == 6


@case("event-shared-request-id")
async def test_authorizer_and_connect_share_their_request_id(main: Gateway) -> None:
    authorizer, connect, *_ = get_contexts(await run_connection(main))

    assert authorizer["requestId"] == connect["requestId"]


@case("event-domain-and-arn")
async def test_domain_name_and_method_arn_name_api_and_stage(main: Gateway) -> None:
    events = await run_connection(main)

    context = events["authorizer"]["requestContext"]
    api_id, region = context["apiId"], main.stage.region
    assert {each["domainName"] for each in get_contexts(events)} == {f"{api_id}.execute-api.{region}.amazonaws.com"}
    assert re.fullmatch(
        rf"arn:aws:execute-api:{region}:\d{{12}}:{api_id}/{main.stage.name}/\$connect",
        events["authorizer"]["methodArn"],
    )


@case("event-request-time")
async def test_request_time_is_the_epoch_in_common_log_format(main: Gateway) -> None:
    for each in get_contexts(await run_connection(main)):
        time = datetime.fromtimestamp(each["requestTimeEpoch"] // 1000, UTC)
        assert each["requestTime"] == time.strftime("%d/%b/%Y:%H:%M:%S +0000")


@case("event-times-in-order")
async def test_times_are_in_order(main: Gateway) -> None:
    authorizer, connect, message, disconnect = get_contexts(await run_connection(main))

    connected_at = authorizer["connectedAt"]
    times = [each["requestTimeEpoch"] for each in (authorizer, connect, message, disconnect)]
    assert {type(each) for each in [connected_at, *times]} == {int}
    assert connected_at - 10 <= times[0]
    assert times == sorted(times)


@case("event-identity")
async def test_identity_is_address_and_user_agent(main: Gateway) -> None:
    events = await run_connection(main, options={"user_agent_header": "my-client/1.0"})

    address = events["$connect"]["headers"]["X-Forwarded-For"]
    identities = [each["identity"] for each in get_contexts(events)]
    assert identities[1:] == [{"userAgent": "my-client/1.0", "sourceIp": address}] * 3


@case("event-identity-no-user-agent")
async def test_identity_has_no_user_agent_if_the_client_sent_none(main: Gateway) -> None:
    events = await run_connection(main, options={"user_agent_header": None})

    address = events["$connect"]["headers"]["X-Forwarded-For"]
    assert [each["identity"] for each in get_contexts(events)] == [{"sourceIp": address}] * 4


# Headers


@case("event-connect-headers")
async def test_headers_of_a_connect_event(open_: Gateway) -> None:
    _, connect = await connect_events(open_)

    assert connect["headers"].keys() == HANDSHAKE_HEADERS | {"X-Observer"}
    assert connect["multiValueHeaders"] == {name: [value] for name, value in connect["headers"].items()}


@case("event-authorizer-headers")
async def test_headers_of_the_authorizers_event(open_: Gateway) -> None:
    authorizer, connect = await connect_events(open_)

    headers = authorizer["headers"]
    assert headers.keys() == HANDSHAKE_HEADERS | {"X-Observer", "Connection", "content-length", "Upgrade"}
    assert authorizer["multiValueHeaders"] == {name: [value] for name, value in headers.items()}
    assert (headers["Connection"].lower(), headers["content-length"], headers["Upgrade"]) == (
        "upgrade",
        "0",
        "websocket",
    )
    assert {name: headers[name] for name in connect["headers"]} == connect["headers"]


@case("event-disconnect-headers")
async def test_headers_of_a_disconnect_event(main: Gateway) -> None:
    event = (await run_connection(main))["$disconnect"]

    host = event["requestContext"]["domainName"]
    assert event["headers"] == {"Host": host, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
    assert event["multiValueHeaders"] == {name: [value] for name, value in event["headers"].items()}


@case("event-forwarded-headers")
async def test_gateway_adds_the_forwarded_headers(open_: Gateway) -> None:
    for event in await connect_events(open_):
        headers = event["headers"]
        assert headers["Host"] == event["requestContext"]["domainName"]
        assert (headers["X-Forwarded-Port"], headers["X-Forwarded-Proto"]) == ("443", "https")
        assert headers["X-Forwarded-For"] == event["requestContext"]["identity"]["sourceIp"]


@case("event-client-forwarded-for")
async def test_forwarded_for_header_of_the_client_is_replaced(open_: Gateway) -> None:
    for event in await connect_events(open_, headers={"X-Forwarded-For": "192.0.2.1"}):
        assert event["headers"]["X-Forwarded-For"] == event["requestContext"]["identity"]["sourceIp"]


@case("event-trace-header")
async def test_trace_header_has_a_root_only(open_: Gateway) -> None:
    authorizer, connect = await connect_events(open_)

    assert TRACE_ID.fullmatch(connect["headers"]["X-Amzn-Trace-Id"])
    assert authorizer["headers"]["X-Amzn-Trace-Id"] == connect["headers"]["X-Amzn-Trace-Id"]


@case("event-client-trace-root")
async def test_root_of_the_clients_trace_header_is_kept(open_: Gateway) -> None:
    root = "Root=1-65c66e5f-1a2b3c4d5e6f708192a3b4c5"

    _, connect = await connect_events(open_, headers={"X-Amzn-Trace-Id": f"{root};Parent=1a2b3c4d5e6f7081;Sampled=1"})

    assert connect["headers"]["X-Amzn-Trace-Id"] == root


@case("event-header-spelling")
async def test_well_known_headers_have_their_usual_spelling_and_others_the_clients(open_: Gateway) -> None:
    observer, its_id = await open_.observer()
    sent = {"user-agent": "raw", "sec-websocket-version": "13", "test": "test", "X-MiXeD": "mixed"}

    await open_.handshake_head(open_.url(observer=its_id), sent)

    for event in (await observer.event("authorizer"), await observer.event("$connect")):
        expected = {"User-Agent": "raw", "Sec-WebSocket-Version": "13", "test": "test", "X-MiXeD": "mixed"}
        assert {name: event["headers"].get(name) for name in expected} == expected
        assert event["headers"].keys().isdisjoint({"user-agent", "sec-websocket-version"})


@case("event-repeated-header")
async def test_all_values_of_a_repeated_header_are_in_the_multi_value_map_only(open_: Gateway) -> None:
    observer, its_id = await open_.observer()

    await open_.open(headers=[("X-Observer", its_id), ("x-many", "one"), ("x-many", "two")])

    for event in (await observer.event("authorizer"), await observer.event("$connect")):
        assert event["multiValueHeaders"]["x-many"] == ["one", "two"]
        assert event["headers"]["x-many"] == "two"


@case("event-offered-subprotocols")
async def test_offered_subprotocols_are_a_header(open_: Gateway) -> None:
    _, connect = await connect_events(open_, options={"subprotocols": ["chat", "log"]})

    assert connect["headers"]["Sec-WebSocket-Protocol"].replace(" ", "") == "chat,log"


@case("event-unsent-headers")
async def test_headers_that_the_client_did_not_send_are_absent(open_: Gateway) -> None:
    _, connect = await connect_events(open_, options={"user_agent_header": None, "compression": None})

    absent = {"User-Agent", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"}
    assert connect["headers"].keys().isdisjoint(absent)


# Query string


@case("event-query-absent")
async def test_connect_event_has_no_query_maps_without_a_query(open_: Gateway) -> None:
    _, connect = await connect_events(open_)

    assert connect.keys() == {"requestContext", "isBase64Encoded"} | HEADERS


@case("event-query")
async def test_connect_event_has_the_query(open_: Gateway) -> None:
    _, connect = await connect_events(open_, query={"now": "1600000000000", "before": "123456789"})

    assert connect["queryStringParameters"] == {"now": "1600000000000", "before": "123456789"}
    assert connect["multiValueQueryStringParameters"] == {"now": ["1600000000000"], "before": ["123456789"]}


@case("event-authorizer-empty-query")
async def test_authorizers_event_has_empty_query_maps_without_a_query(open_: Gateway) -> None:
    authorizer, _ = await connect_events(open_)

    assert [authorizer[name] for name in QUERY] == [{}, {}]


@case("event-repeated-parameter")
async def test_all_values_of_a_repeated_parameter_are_in_the_multi_value_map_only(open_: Gateway) -> None:
    events = await connect_events(open_, query=[("room", "a"), ("other", "x"), ("room", "b")])

    for event in events:
        assert event["multiValueQueryStringParameters"] == {"room": ["a", "b"], "other": ["x"]}
        assert event["queryStringParameters"] == {"room": "b", "other": "x"}


@case("event-parameters-decoded")
@pytest.mark.parametrize("value", ["two words", "a&b=c", "50%", "ü", "a+b", ""], ids=ascii)
async def test_parameters_are_decoded(open_: Gateway, value: str) -> None:
    events = await connect_events(open_, query={"room": value})

    assert [event["queryStringParameters"] for event in events] == [{"room": value}] * 2
