"""Opening handshakes, by real clients."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import PerMessageDeflate

from local.apigateway.events import Event
from local.apigateway.limits import Limits
from local.lambda_.invocation import Invocation
from tests.fixtures.apis import METHOD_ARN, OUR_ROUTES, allow, api
from tests.fixtures.gateway import HANDSHAKE, Dial, Gateway, Serve, get_refusal_status, receive

ID_TOKEN = ("route.request.querystring.idToken",)
DENY = {**allow(), "policyDocument": {"Statement": [{"Action": "*", "Effect": "Deny", "Resource": METHOD_ARN}]}}


@pytest.fixture
async def guarded(serve: Serve) -> Gateway:
    """A gateway whose authorizer has an idToken in the query string as its identity source."""
    return await serve(api(*OUR_ROUTES, identity_sources=ID_TOKEN))


# The opening handshake


async def test_authorizer_is_invoked_before_the_connect_route(guarded: Gateway) -> None:
    await guarded.connect("?idToken=abc")

    assert guarded.functions.invoked == ["authorizer", "$connect"]


async def test_context_of_the_authorizer_is_in_every_later_event(guarded: Gateway) -> None:
    guarded.functions.behaviour["authorizer"] = Invocation(allow({"n": 1, "yes": True, "s": "x"}))

    async with await guarded.connect("?idToken=abc") as peer:
        await peer.send("hello")
        events = [await guarded.functions.wait_for_event(route) for route in ("$connect", "$default")]
    events.append(await guarded.functions.wait_for_event("$disconnect"))

    connect, *others = [event["requestContext"]["authorizer"] for event in events]
    latency = connect.pop("integrationLatency")
    assert isinstance(latency, int)
    assert [connect, *others] == [{"principalId": "ada", "n": "1", "yes": "true", "s": "x"}] * 3


async def test_each_handshake_invokes_the_authorizer(guarded: Gateway) -> None:
    for _ in range(2):
        await guarded.connect("?idToken=abc")

    assert guarded.functions.invoked.count("authorizer") == 2


@pytest.mark.parametrize("query", ["", "?idToken=", "?other=abc"])
async def test_handshake_without_identity_is_refused_without_an_invocation(guarded: Gateway, query: str) -> None:
    assert await get_refusal_status(guarded, query) == 401
    assert guarded.functions.invoked == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Invocation(DENY), 403),
        (Invocation(allow() | {"policyDocument": {"Statement": []}}), 403),
        (Invocation(error="Exception", message="Unauthorized"), 401),
        (Invocation(error="KeyError", message="'kid'"), 500),
        (Invocation({"statusCode": 401}), 500),
        (Invocation(allow({"name": "\ud83d"})), 500),
    ],
    ids=["deny", "implicit deny", "Unauthorized", "error", "no policy", "lone surrogate"],
)
async def test_handshake_that_the_authorizer_refuses_does_not_invoke_connect(
    guarded: Gateway, answer: Invocation, status: int
) -> None:
    guarded.functions.behaviour["authorizer"] = answer

    assert await get_refusal_status(guarded, "?idToken=abc") == status
    assert guarded.functions.invoked == ["authorizer"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Invocation({"statusCode": 301}), 301),
        (Invocation({"statusCode": 401}), 401),
        (Invocation({"statusCode": 499}), 499),
        (Invocation({"statusCode": 501}), 501),
        (Invocation(error="KeyError", message="'x'"), 502),
        (Invocation({"body": "no status"}), 502),
        (Invocation({"statusCode": 400, "body": "\ud83d"}), 502),
        (Invocation({"statusCode": 400, "body": "x" * 131_073}), 502),
        (Invocation({"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat\r\nX-Other: x"}}), 502),
        (Invocation({"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "満室"}}), 502),
        (Invocation(error="Sandbox.Timedout", message="Task timed out"), 504),
    ],
    ids=["301", "401", "499", "501", "error", "malformed", "surrogate", "large", "header", "not latin-1", "timeout"],
)
async def test_handshake_that_connect_refuses_opens_no_connection(
    gateway: Gateway, answer: Invocation, status: int
) -> None:
    gateway.functions.behaviour["$connect"] = answer

    assert await get_refusal_status(gateway) == status
    assert gateway.functions.invoked == ["$connect"]
    assert len(gateway.server.connections) == 0


async def test_handshake_that_fails_by_a_bug_of_the_gateway_is_a_500_and_a_log_line(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    gateway = await serve()
    monkeypatch.setattr(gateway.server, "invoke", fail)

    assert await get_refusal_status(gateway) == 500
    assert "the handshake of " in caplog.text


async def hang(_: Event) -> Invocation:
    never: asyncio.Future[Invocation] = asyncio.get_running_loop().create_future()
    return await never


@pytest.mark.parametrize(("route", "status"), [("authorizer", 500), ("$connect", 504)])
async def test_handshake_has_a_time_limit(serve: Serve, route: str, status: int) -> None:
    gateway = await serve(api(*OUR_ROUTES, identity_sources=ID_TOKEN), limits=Limits(integration_seconds=0.05))
    gateway.functions.behaviour[route] = hang

    assert await get_refusal_status(gateway, "?idToken=abc") == status


async def test_connect_route_may_have_a_shorter_time_limit(serve: Serve) -> None:
    gateway = await serve(api(*OUR_ROUTES, routes={"$connect": {"timeout_seconds": 0.05}}))
    gateway.functions.behaviour["$connect"] = hang

    assert await get_refusal_status(gateway) == 504


async def test_api_without_a_connect_route_accepts_everybody(serve: Serve) -> None:
    gateway = await serve(api("$default"))

    async with await gateway.connect() as peer:
        await peer.send("hello")
        await gateway.functions.wait_for_event("$default")

    assert gateway.functions.invoked == ["$default"]


async def test_stage_may_end_with_a_slash(gateway: Gateway) -> None:
    await gateway.connect("/?room=a")

    assert (await gateway.functions.wait_for_event("$connect"))["queryStringParameters"] == {"room": "a"}


@pytest.mark.parametrize("path", ["x", "/x", "/../dev"])
async def test_unknown_stage_is_forbidden(gateway: Gateway, path: str) -> None:
    assert await get_refusal_status(gateway, path) == 403
    assert gateway.functions.invoked == []


async def test_stage_without_a_deployment_is_forbidden(serve: Serve) -> None:
    gateway = await serve(api(*OUR_ROUTES, deployed=False))

    assert await get_refusal_status(gateway) == 403
    assert gateway.functions.invoked == []


@pytest.mark.parametrize("length", [4097, 8000, 9000, 15_000])
async def test_url_over_4096_characters_is_too_long(gateway: Gateway, dial: Dial, length: int) -> None:
    """The two longest also exceed the limit of the WebSocket library for a line."""
    query = b"?idToken=".ljust(length - len(f"wss://127.0.0.1:{gateway.port}/prod"), b"x")
    handshake = HANDSHAKE.replace(b"/prod", b"/prod" + query).replace(b"localhost", b"127.0.0.1:%d" % gateway.port)

    answer = await (await dial(gateway.port, handshake)).read_all()

    assert answer.startswith(b"HTTP/1.1 414 ")
    assert gateway.functions.invoked == []


async def test_refusal_of_a_url_that_is_too_long_is_logged(
    gateway: Gateway, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    handshake = HANDSHAKE.replace(b"/prod", b"/prod?idToken=" + b"x" * 9000)

    await (await dial(gateway.port, handshake)).read_all()

    assert caplog.messages == ["a request was refused: 414 Request-URI Too Long"]


async def test_url_of_4096_characters_is_accepted(gateway: Gateway) -> None:
    token = "x" * (4096 - len(f"wss://127.0.0.1:{gateway.port}/prod?idToken="))

    await gateway.connect(f"?idToken={token}")

    assert (await gateway.functions.wait_for_event("$connect"))["queryStringParameters"] == {"idToken": token}


UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
KEY = b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (UPGRADE + b"Sec-WebSocket-Version: 13\r\n", 400),
        (UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", 400),
        (UPGRADE + b"Sec-WebSocket-Version: 8\r\n" + KEY, 400),
        (b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + KEY, 426),
    ],
    ids=["no key", "bad key", "old version", "no connection header"],
)
async def test_request_that_is_not_a_websocket_handshake_invokes_no_function(
    gateway: Gateway, dial: Dial, headers: bytes, status: int
) -> None:
    """RFC 6455 section 4.2.1."""
    client = await dial(gateway.port, b"GET /prod HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")

    response = await client.read_all()
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert gateway.functions.invoked == []


async def test_client_of_another_version_is_told_the_supported_one(gateway: Gateway, dial: Dial) -> None:
    """RFC 6455 section 4.4."""
    headers = UPGRADE + b"Sec-WebSocket-Version: 8\r\n" + KEY
    client = await dial(gateway.port, b"GET /prod HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")

    assert b"\r\nSec-WebSocket-Version: 13\r\n" in await client.read_all()


# Events and responses


async def test_every_kind_of_identity_source_is_evaluated(serve: Serve) -> None:
    sources = ("route.request.header.Auth", *ID_TOKEN, "stageVariables.tenant", "context.identity.sourceIp")
    gateway = await serve(api(*OUR_ROUTES, identity_sources=sources, stage_variables={"tenant": "acme"}))

    await gateway.connect("?idToken=abc", additional_headers={"auth": "secret"})

    assert gateway.functions.invoked == ["authorizer", "$connect"]
    assert await get_refusal_status(gateway, "?idToken=abc") == 401


async def test_client_may_send_the_root_of_its_trace(guarded: Gateway) -> None:
    root = "Root=1-65c66e5f-1a2b3c4d5e6f708192a3b4c5"
    sent = {"x-amzn-trace-id": f"{root};Parent=53995c3f42cd8ad8;Sampled=1"}

    await guarded.connect("?idToken=abc", additional_headers=sent)

    events = [await guarded.functions.wait_for_event(name) for name in ("authorizer", "$connect")]
    assert [event["headers"]["X-Amzn-Trace-Id"] for event in events] == [root, root]


@pytest.mark.parametrize(
    ("query", "answer", "status"),
    [
        ("", None, 401),
        ("x?idToken=abc", None, 403),
        ("?idToken=abc", Invocation({"statusCode": 400}), 400),
        ("?idToken=abc", Invocation(error="KeyError", message="'x'"), 502),
        (f"?idToken={'x' * 4096}", None, 414),
        (f"?idToken={'x' * 9000}", None, 414),
    ],
    ids=["no identity", "other stage", "refused", "failed", "long", "longer"],
)
async def test_every_refusal_has_a_request_id_of_its_own(
    guarded: Gateway, query: str, answer: Invocation | None, status: int
) -> None:
    if answer:
        guarded.functions.behaviour["$connect"] = answer

    responses = []
    for _ in range(2):
        with pytest.raises(InvalidStatus) as error:
            await guarded.connect(query)
        responses.append(error.value.response)

    assert [response.status_code for response in responses] == [status, status]
    first, second = (UUID(response.headers["x-amzn-RequestId"]) for response in responses)
    assert first != second
    assert len({response.headers["x-amz-apigw-id"] for response in responses}) == 2


async def test_refused_client_gets_the_request_id_that_the_functions_log(guarded: Gateway) -> None:
    guarded.functions.behaviour["$connect"] = Invocation({"statusCode": 400})

    with pytest.raises(InvalidStatus) as error:
        await guarded.connect("?idToken=abc")

    events = [await guarded.functions.wait_for_event(name) for name in ("authorizer", "$connect")]
    told = error.value.response.headers["x-amz-apigw-id"]
    assert [event["requestContext"]["requestId"] for event in events] == [told, told]


async def test_refusal_is_json_with_a_message(guarded: Gateway) -> None:
    with pytest.raises(InvalidStatus) as error:
        await guarded.connect()

    response = error.value.response
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["x-amzn-ErrorType"] == "UnauthorizedException"
    assert response.body == b'{"message":"Unauthorized"}'


# Subprotocol and extensions


async def test_connect_route_selects_the_subprotocol(gateway: Gateway) -> None:
    selected = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat", "X-Other": "dropped"}}
    gateway.functions.behaviour["$connect"] = Invocation(selected)

    peer = await gateway.connect(subprotocols=["log", "chat"])

    assert peer.subprotocol == "chat"
    assert peer.response is not None
    assert "X-Other" not in peer.response.headers


async def test_gateway_selects_no_subprotocol(gateway: Gateway) -> None:
    peer = await gateway.connect(subprotocols=["chat"])

    event = await gateway.functions.wait_for_event("$connect")
    assert event["headers"]["Sec-WebSocket-Protocol"] == "chat"
    assert peer.response is not None
    assert "Sec-WebSocket-Protocol" not in peer.response.headers


@pytest.mark.parametrize("offer", ["permessage-deflate", "permessage-deflate; client_max_window_bits"])
async def test_compression_is_negotiated_as_by_aws(gateway: Gateway, dial: Dial, offer: str) -> None:
    """RFC 7692. AWS was observed to select 12 bits for itself, and to set no limit for the client."""
    header = f"Sec-WebSocket-Extensions: {offer}\r\n\r\n".encode()

    head = await (await dial(gateway.port, HANDSHAKE[:-2] + header)).read_head()

    (negotiated,) = [line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-extensions:")]
    assert negotiated.partition(b": ")[2] == b"permessage-deflate; server_max_window_bits=12"


async def test_compressed_messages_go_both_ways(serve: Serve) -> None:
    gateway = await serve(api("$default", routes={"$default": {"two_way": True}}))
    gateway.functions.behaviour["$default"] = Invocation({"statusCode": 200, "body": "answered " * 1000})
    peer = await gateway.connect(compression="deflate")

    await peer.send("compressed " * 1000)

    assert [type(extension) for extension in peer.protocol.extensions] == [PerMessageDeflate]
    assert (await gateway.functions.wait_for_event("$default"))["body"] == "compressed " * 1000
    assert await receive(peer) == "answered " * 1000


async def test_compression_is_not_used_if_the_client_does_not_offer_it(gateway: Gateway) -> None:
    peer = await gateway.connect(compression=None)

    assert peer.response is not None
    assert "Sec-WebSocket-Extensions" not in peer.response.headers
