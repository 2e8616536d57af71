"""The opening handshake: URL, response, what `$connect` makes of it, subprotocols."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.conftest import Unknown, case
from tests.conformance.gateway import Gateway, Script

MAX_URL_CHARACTERS = 4096


# URL and transport


@case("SO2", "C", "serverless-offline's suite")
async def test_client_connects(gateway: Gateway) -> None:
    client = await gateway.open()

    assert client.response.status_code == 101


@case("1.1.1", "C", "AWS's wscat page")
async def test_stage_may_end_with_a_slash(gateway: Gateway) -> None:
    client = await gateway.open(path="/")

    assert client.response.status_code == 101


@case("1.1.5", "L", "terraform-provider-aws#17955")
async def test_stage_that_does_not_exist_is_forbidden(gateway: Gateway) -> None:
    refusal = await gateway.refused(path="-no-such-stage")

    assert refusal.status == 403


@case("SO1", "C", "serverless-offline's suite")
@pytest.mark.parametrize("path", ["/one", "/one/two"])
async def test_request_below_the_stage_that_is_no_upgrade_needs_one(gateway: Gateway, path: str) -> None:
    answer = await gateway.request("GET", f"/{gateway.stage.name}{path}")

    assert answer.status == 426


@case("1.1.6", "U", "nobody")
async def test_request_for_the_stage_itself_that_is_no_upgrade(gateway: Gateway, unknown: Unknown) -> None:
    answer = await gateway.request("GET", f"/{gateway.stage.name}")

    unknown(answer.status, 426)


@case("1.1.7", "U", "nobody")
async def test_upgrade_below_the_stage(gateway: Gateway, unknown: Unknown) -> None:
    unknown(await gateway.status(path="/one"), 403)


@case("1.1.9", "C", "quotas")
async def test_url_of_4096_characters_is_taken(gateway: Gateway) -> None:
    client = await gateway.open({"pad": padding(gateway, MAX_URL_CHARACTERS)})

    assert client.response.status_code == 101


@case("1.1.9", "C", "quotas; which status it is, nobody says")
async def test_longer_url_is_refused(gateway: Gateway) -> None:
    refusal = await gateway.refused({"pad": padding(gateway, MAX_URL_CHARACTERS + 1)})

    assert 400 <= refusal.status < 500


def padding(gateway: Gateway, characters: int) -> str:
    """As AWS counts, `wss` also where there is no TLS."""
    return "x" * (characters - len(gateway.url({"pad": ""}).replace("ws://", "wss://")))


# The response


@case("1.2", "C", "websockets#1065")
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_response_has_the_headers_of_rfc_6455_and_a_date(gateway: Gateway, compression: Any) -> None:
    client = await gateway.open(options={"compression": compression})

    names = {name.lower() for name, _ in client.response.headers.raw_items()}
    extensions = {"sec-websocket-extensions"} if compression else set()
    assert names == {"date", "connection", "upgrade", "sec-websocket-accept"} | extensions
    assert client.response.headers["Upgrade"].lower() == "websocket"
    assert client.response.headers["Connection"].lower() == "upgrade"


@case("1.2", "L", "RFC 6455 section 4.2.1; what Firefox sends")
@pytest.mark.parametrize(
    "headers", [{"connection": "keep-alive, Upgrade"}, {"Upgrade": "WebSocket", "Connection": "upgrade"}], ids=str
)
async def test_browsers_spellings_of_the_upgrade_are_understood(gateway: Gateway, headers: dict[str, str]) -> None:
    head = await gateway.handshake_head(gateway.url(), headers)

    assert head.startswith("HTTP/1.1 101 ")


@case("E27", "C", "websockets#1065")
async def test_compression_is_accepted_if_offered(gateway: Gateway) -> None:
    client = await gateway.open(options={"compression": "deflate"})

    assert client.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")


@case("E27", "C", "websockets#1065")
async def test_compressed_messages_pass_both_ways(main: Gateway) -> None:
    client = await main.open(options={"compression": "deflate"})

    await client.do(["post", "self", "compressed " * 1000])

    assert await client.received() == "compressed " * 1000


@case("1.2", "U", "websockets#1065 saw 12")
async def test_window_of_the_compression(gateway: Gateway, unknown: Unknown) -> None:
    client = await gateway.open(options={"compression": "deflate"})

    parameters = client.response.headers["Sec-WebSocket-Extensions"].replace(" ", "").split(";")
    unknown("server_max_window_bits=12" in parameters, True)


@case("1.2", "C", "chalice#1768")
async def test_body_and_headers_of_connect_are_dropped(main: Gateway) -> None:
    answer = {"statusCode": 200, "headers": {"X-Mine": "mine", "Server": "mine"}, "body": "mine"}

    client = await main.open(connect={"return": answer})

    assert "mine" not in str(client.response)
    await client.do(["post", "self", "the first message"])
    assert await client.received() == "the first message"


@case("1.3", "C", "$connect and $disconnect's page")
async def test_authorizer_and_connect_have_run_before_the_response(main: Gateway) -> None:
    observer, its_id = await main.observer()

    await main.open(observer=its_id, authorizer={"steps": [["sleep", 0.2]]}, connect={"steps": [["sleep", 0.2]]})

    observed = [await observer.next(), await observer.next()]
    assert [event.get("type") for event in observed] == ["REQUEST", None]
    assert [event["requestContext"]["routeKey"] for event in observed] == ["$connect", "$connect"]


# What `$connect` makes of it


@case("E9", "C", "$connect and $disconnect's page")
async def test_api_without_connect_route_lets_everybody_in(bare: Gateway) -> None:
    client = await bare.open()

    assert client.response.status_code == 101


@case("E7", "C", "WSCAT-notes")
@pytest.mark.parametrize("status", [200, 201])
async def test_success_of_connect_opens(main: Gateway, status: int) -> None:
    client = await main.open(connect={"return": {"statusCode": status}})

    assert client.response.status_code == 101


@case("E7", "C", "WSCAT-notes; AWS's page on subprotocols for 400")
@pytest.mark.parametrize("status", [301, 400, 401, 403, 500, 501])
async def test_other_status_of_connect_is_the_handshakes(main: Gateway, status: int) -> None:
    refusal = await main.refused(connect={"return": {"statusCode": status}})

    assert refusal.status == status


@case("E7", "C", "WSCAT-notes; serverless-offline#1301")
@pytest.mark.parametrize(
    "script", [{"raise": "on purpose"}, {"raise": "Unauthorized"}, {"steps": [["exit", 1]]}], ids=str
)
async def test_failure_of_connect_is_a_bad_gateway(main: Gateway, script: Script) -> None:
    refusal = await main.refused(connect=script)

    assert refusal.status == 502


@case("1.8", "L", "REST's malformed responses")
@pytest.mark.parametrize("answer", [None, {}, "200", {"statusCode": 200, "Data": "x"}], ids=str)
async def test_malformed_answer_of_connect_is_a_bad_gateway(main: Gateway, answer: Any) -> None:
    refusal = await main.refused(connect={"return": answer})

    assert refusal.status == 502


@case("1.8", "L", "gateway response INTEGRATION_TIMEOUT")
async def test_connect_that_takes_too_long_is_a_gateway_timeout(open_: Gateway) -> None:
    refusal = await open_.refused(connect={"steps": [["sleep", 5]]})

    assert refusal.status == 504


@case("1.8", "L", "REST's gateway responses")
async def test_missing_permission_to_invoke_connect_is_a_server_error(unpermitted: Gateway) -> None:
    refusal = await unpermitted.refused()

    assert refusal.status == 500


@case("1.8", "U", "nobody")
async def test_body_of_a_refusal_by_connect(main: Gateway, unknown: Unknown) -> None:
    refusal = await main.refused(connect={"return": {"statusCode": 401, "body": "not today"}})

    unknown(refusal.body, b"not today")


@case("E24", "C", "re:Post on 410; serverless-offline's suite")
async def test_post_inside_connect_is_gone_and_the_client_connects(main: Gateway) -> None:
    observer, its_id = await main.observer()

    client = await main.open(
        observer=its_id, connect={"steps": [["post", "self", "too early"], ["report", "observer"]]}
    )

    for _ in range(2):  # the authorizer's and `$connect`'s own
        await observer.next_report()
    (result,) = (await observer.next_report())["results"]
    assert (result["status"], result["Code"]) == (410, "GoneException")
    await client.do(["post", "self", "in time"])
    assert await client.received() == "in time"


@case("4.3", "U", "nobody")
@pytest.mark.parametrize("step", ["get", "delete"])
async def test_other_call_inside_connect(main: Gateway, unknown: Unknown, step: str) -> None:
    observer, its_id = await main.observer()

    status = await main.status(observer=its_id, connect={"steps": [[step, "self"], ["report", "observer"]]})

    for _ in range(2):
        await observer.next_report()
    (result,) = (await observer.next_report())["results"]
    unknown((status, result["status"]), (101, 410))


@case("1.11", "L", "ServerlessNetworkingClients#3")
async def test_more_handshakes_than_the_throttle_allows_are_too_many(throttled: Gateway) -> None:
    statuses = await asyncio.gather(*(throttled.status() for _ in range(40)))

    assert set(statuses) == {101, 429}


# Subprotocols


def offered(*subprotocols: str) -> dict[str, Any]:
    return {"subprotocols": subprotocols}


@case("E8", "C", "AWS's page on subprotocols; serverless-offline#1176")
async def test_subprotocol_is_not_chosen_by_the_gateway(main: Gateway) -> None:
    client = await main.open(options=offered("chat"))

    assert "Sec-WebSocket-Protocol" not in client.response.headers


@case("E8", "C", "AWS's page on subprotocols")
async def test_subprotocol_is_chosen_by_connect(main: Gateway) -> None:
    answer = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat"}}

    client = await main.open(connect={"return": answer}, options=offered("log", "chat"))

    assert client.socket.subprotocol == "chat"


@case("E8", "C", "AWS's page on subprotocols")
async def test_subprotocol_is_refused_by_the_status_of_connect(main: Gateway) -> None:
    answer = {"statusCode": 400, "headers": {"Sec-WebSocket-Protocol": "chat"}}

    refusal = await main.refused(connect={"return": answer}, options=offered("log", "chat"))

    assert refusal.status == 400


@case("1.10", "U", "nobody")
@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": 200, "headers": {"sec-websocket-protocol": "chat"}},
        {"statusCode": 200, "multiValueHeaders": {"Sec-WebSocket-Protocol": ["chat"]}},
    ],
    ids=["lower case", "multiValueHeaders"],
)
async def test_other_spelling_of_the_chosen_subprotocol(main: Gateway, unknown: Unknown, answer: Any) -> None:
    client = await main.open(connect={"return": answer}, options=offered("chat"))

    unknown(client.socket.subprotocol, "chat")


@case("1.10", "U", "nobody")
async def test_subprotocol_that_the_client_did_not_offer(main: Gateway, unknown: Unknown) -> None:
    answer = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "other"}}
    url = main.url(connect={"return": answer})

    head = await main.handshake_head(url, {"Sec-WebSocket-Protocol": "chat"})

    unknown("sec-websocket-protocol: other" in head.lower(), True)


# Bodies of refusals


@case("1.9", "U", "REST's responses")
@pytest.mark.parametrize(
    ("refused", "body", "error_type"),
    [
        ({"with_identity": False}, b'{"message":"Unauthorized"}', "UnauthorizedException"),
        ({"authorizer": {"raise": "Unauthorized"}}, b'{"message":"Unauthorized"}', "UnauthorizedException"),
        (
            {"authorizer": {"answer": {"policyDocument": {"Version": "2012-10-17", "Statement": []}}}},
            b'{"Message":"User is not authorized to access this resource"}',
            "AccessDeniedException",
        ),
        ({"authorizer": {"return": None}}, b'{"message":null}', "AuthorizerConfigurationException"),
        ({"path": "-no-such-stage"}, b'{"message":"Forbidden"}', "ForbiddenException"),
    ],
    ids=["no identity", "Unauthorized", "no statement", "no policy", "no such stage"],
)
async def test_body_of_a_refusal(
    main: Gateway, unknown: Unknown, refused: dict[str, Any], body: bytes, error_type: str
) -> None:
    refusal = await main.refused(**refused)

    unknown((refusal.body, refusal.headers.get("x-amzn-errortype")), (body, error_type))
