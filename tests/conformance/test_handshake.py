"""The opening handshake: URL, response, outcomes of `$connect`, subprotocols."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.conftest import case
from tests.conformance.gateway import Gateway, Script

MAX_URL_CHARACTERS = 4096


# URL and transport


@case("open-101")
async def test_handshake_gets_101(gateway: Gateway) -> None:
    client = await gateway.open()

    assert client.response.status_code == 101


@case("open-trailing-slash")
async def test_stage_may_end_with_a_slash(gateway: Gateway) -> None:
    client = await gateway.open(path="/")

    assert client.response.status_code == 101


@case("open-unknown-stage")
async def test_stage_that_does_not_exist_is_forbidden(gateway: Gateway) -> None:
    refusal = await gateway.expect_refusal(path="-no-such-stage")

    assert refusal.status == 403


@case("open-no-upgrade-below-stage")
@pytest.mark.parametrize("path", ["/one", "/one/two"])
async def test_plain_request_below_the_stage_gets_426(gateway: Gateway, path: str) -> None:
    answer = await gateway.request("GET", f"/{gateway.stage.name}{path}")

    assert answer.status == 426


@case("open-no-upgrade-at-stage")
@pytest.mark.parametrize("rest", ["", "/", "?token=abc"])
async def test_plain_request_for_the_stage_gets_426(gateway: Gateway, rest: str) -> None:
    answer = await gateway.request("GET", f"/{gateway.stage.name}{rest}")

    assert answer.status == 426


@case("open-path-below-stage")
async def test_upgrade_below_the_stage_is_forbidden(gateway: Gateway) -> None:
    assert await gateway.status(path="/one") == 403


@case("open-url-at-limit")
async def test_url_of_4096_characters_is_accepted(gateway: Gateway) -> None:
    client = await gateway.open({"pad": make_padding(gateway, MAX_URL_CHARACTERS)})

    assert client.response.status_code == 101


@case("open-url-over-limit")
async def test_longer_url_is_refused(gateway: Gateway) -> None:
    refusal = await gateway.expect_refusal({"pad": make_padding(gateway, MAX_URL_CHARACTERS + 1)})

    assert 400 <= refusal.status < 500


def make_padding(gateway: Gateway, characters: int) -> str:
    """Return text that makes the URL this long. The length is counted with `wss`, as on AWS."""
    return "x" * (characters - len(gateway.url({"pad": ""}).replace("ws://", "wss://")))


# The response


@case("open-response-headers")
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_response_has_the_headers_of_rfc_6455_and_a_date(gateway: Gateway, compression: Any) -> None:
    client = await gateway.open(options={"compression": compression})

    names = {name.lower() for name, _ in client.response.headers.raw_items()}
    extensions = {"sec-websocket-extensions"} if compression else set()
    assert names == {"date", "connection", "upgrade", "sec-websocket-accept"} | extensions
    assert client.response.headers["Upgrade"].lower() == "websocket"
    assert client.response.headers["Connection"].lower() == "upgrade"


@case("open-upgrade-spelling")
@pytest.mark.parametrize(
    "headers", [{"connection": "keep-alive, Upgrade"}, {"Upgrade": "WebSocket", "Connection": "upgrade"}], ids=str
)
async def test_upgrade_headers_are_compared_without_case(gateway: Gateway, headers: dict[str, str]) -> None:
    head = await gateway.handshake_head(gateway.url(), headers)

    assert head.startswith("HTTP/1.1 101 ")


@case("open-compression")
async def test_compression_is_accepted_if_offered(gateway: Gateway) -> None:
    client = await gateway.open(options={"compression": "deflate"})

    assert client.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")


@case("open-compression")
async def test_compressed_messages_pass_both_ways(main: Gateway) -> None:
    client = await main.open(options={"compression": "deflate"})

    await client.do(["post", "self", "compressed " * 1000])

    assert await client.receive() == "compressed " * 1000


@case("open-compression-window")
@pytest.mark.parametrize("offer", ["permessage-deflate", "permessage-deflate; client_max_window_bits"])
async def test_compression_window_has_12_bits(gateway: Gateway, offer: str) -> None:
    head = await gateway.handshake_head(gateway.url(), {"Sec-WebSocket-Extensions": offer})

    assert "\r\nsec-websocket-extensions: permessage-deflate; server_max_window_bits=12\r\n" in head.lower()


@case("connect-success-is-dropped")
async def test_body_and_headers_of_connect_are_dropped(main: Gateway) -> None:
    answer = {"statusCode": 200, "headers": {"X-Mine": "mine", "Server": "mine"}, "body": "mine"}

    client = await main.open(connect={"return": answer})

    assert "mine" not in str(client.response)
    await client.do(["post", "self", "the first message"])
    assert await client.receive() == "the first message"


@case("open-waits-for-functions")
async def test_authorizer_and_connect_have_run_before_the_response(main: Gateway) -> None:
    observer, its_id = await main.observer()

    await main.open(observer=its_id, authorizer={"steps": [["sleep", 0.2]]}, connect={"steps": [["sleep", 0.2]]})

    observed = [await observer.next(), await observer.next()]
    assert [event.get("type") for event in observed] == ["REQUEST", None]
    assert [event["requestContext"]["routeKey"] for event in observed] == ["$connect", "$connect"]


# Outcomes of `$connect`


@case("connect-optional")
async def test_api_without_connect_route_accepts_every_handshake(bare: Gateway) -> None:
    client = await bare.open()

    assert client.response.status_code == 101


@case("connect-2xx-opens")
@pytest.mark.parametrize("status", [200, 201])
async def test_success_of_connect_opens_the_connection(main: Gateway, status: int) -> None:
    client = await main.open(connect={"return": {"statusCode": status}})

    assert client.response.status_code == 101


@case("connect-status-passed-on")
@pytest.mark.parametrize("status", [301, 400, 401, 403, 499, 500, 501])
async def test_other_status_of_connect_is_the_status_of_the_handshake(main: Gateway, status: int) -> None:
    refusal = await main.expect_refusal(connect={"return": {"statusCode": status}})

    assert refusal.status == status


@case("connect-error-502")
@pytest.mark.parametrize(
    "script", [{"raise": "on purpose"}, {"raise": "Unauthorized"}, {"steps": [["exit", 1]]}], ids=str
)
async def test_failure_of_connect_gets_502(main: Gateway, script: Script) -> None:
    refusal = await main.expect_refusal(connect=script)

    assert refusal.status == 502


@case("connect-malformed-502")
@pytest.mark.parametrize("answer", [None, {}, "200", {"statusCode": 200, "Data": "x"}], ids=str)
async def test_malformed_answer_of_connect_gets_502(main: Gateway, answer: Any) -> None:
    refusal = await main.expect_refusal(connect={"return": answer})

    assert refusal.status == 502


@case("connect-timeout-504")
async def test_connect_that_takes_too_long_gets_504(open_: Gateway) -> None:
    refusal = await open_.expect_refusal(connect={"steps": [["sleep", 5]]})

    assert refusal.status == 504


@case("connect-no-permission-500")
async def test_missing_permission_to_invoke_connect_gets_500(unpermitted: Gateway) -> None:
    refusal = await unpermitted.expect_refusal()

    assert refusal.status == 500


@case("connect-refusal-body")
async def test_client_gets_the_body_of_a_refusal_by_connect(main: Gateway) -> None:
    refusal = await main.expect_refusal(connect={"return": {"statusCode": 401, "body": "not today"}})

    assert refusal.body == b"not today"


@case("connect-post-410")
async def test_post_during_connect_gets_410_and_the_client_connects(main: Gateway) -> None:
    observer, its_id = await main.observer()

    client = await main.open(
        observer=its_id, connect={"steps": [["post", "self", "too early"], ["report", "observer"]]}
    )

    for _ in range(2):  # the authorizer's and `$connect`'s own
        await observer.next_report()
    (result,) = (await observer.next_report())["results"]
    assert (result["status"], result["Code"]) == (410, "GoneException")
    await client.do(["post", "self", "in time"])
    assert await client.receive() == "in time"


@case("connect-get-delete-410")
@pytest.mark.parametrize("step", ["get", "delete"])
async def test_other_call_during_connect_gets_410(main: Gateway, step: str) -> None:
    observer, its_id = await main.observer()

    status = await main.status(observer=its_id, connect={"steps": [[step, "self"], ["report", "observer"]]})

    for _ in range(2):
        await observer.next_report()
    (result,) = (await observer.next_report())["results"]
    assert (status, result["status"]) == (101, 410)


@case("throttle-handshakes")
async def test_more_handshakes_than_the_throttle_allows_get_429(throttled: Gateway) -> None:
    statuses = await asyncio.gather(*(throttled.status() for _ in range(40)))

    assert set(statuses) == {101, 429}


# Subprotocols


def offer_subprotocols(*subprotocols: str) -> dict[str, Any]:
    return {"subprotocols": subprotocols}


@case("subprotocol-not-selected")
async def test_gateway_selects_no_subprotocol(main: Gateway) -> None:
    client = await main.open(options=offer_subprotocols("chat"))

    assert "Sec-WebSocket-Protocol" not in client.response.headers


@case("subprotocol-by-connect")
async def test_connect_selects_the_subprotocol(main: Gateway) -> None:
    answer = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat"}}

    client = await main.open(connect={"return": answer}, options=offer_subprotocols("log", "chat"))

    assert client.socket.subprotocol == "chat"


@case("subprotocol-refused-by-status")
async def test_status_of_connect_refuses_a_subprotocol(main: Gateway) -> None:
    answer = {"statusCode": 400, "headers": {"Sec-WebSocket-Protocol": "chat"}}

    refusal = await main.expect_refusal(connect={"return": answer}, options=offer_subprotocols("log", "chat"))

    assert refusal.status == 400


@case("subprotocol-header-spelling")
@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": 200, "headers": {"sec-websocket-protocol": "chat"}},
        {"statusCode": 200, "multiValueHeaders": {"Sec-WebSocket-Protocol": ["chat"]}},
    ],
    ids=["lower case", "multiValueHeaders"],
)
async def test_other_spelling_of_the_subprotocol_header_is_understood(main: Gateway, answer: Any) -> None:
    client = await main.open(connect={"return": answer}, options=offer_subprotocols("chat"))

    assert client.socket.subprotocol == "chat"


@case("subprotocol-not-offered")
async def test_subprotocol_that_the_client_did_not_offer_is_sent(main: Gateway) -> None:
    answer = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "other"}}
    url = main.url(connect={"return": answer})

    head = await main.handshake_head(url, {"Sec-WebSocket-Protocol": "chat"})

    assert "sec-websocket-protocol: other" in head.lower()


# Bodies of refusals


@case("refusal-body")
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
async def test_refusal_has_the_body_and_error_type_of_a_rest_api(
    main: Gateway, refused: dict[str, Any], body: bytes, error_type: str
) -> None:
    refusal = await main.expect_refusal(**refused)

    assert (refusal.body, refusal.headers.get("x-amzn-errortype")) == (body, error_type)
