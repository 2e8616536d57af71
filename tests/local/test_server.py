"""Opening handshakes that are refused: time limits, request ids, logging, and what clients are told."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from websockets.exceptions import InvalidStatus

from local.apigateway.events import Event
from local.apigateway.limits import Limits
from local.lambda_.invocation import InvocationResult
from tests.fixtures.apis import OUR_ROUTES, api
from tests.fixtures.gateway import HANDSHAKE, Dial, Gateway, Serve, get_refusal_status

ID_TOKEN = ("route.request.querystring.idToken",)


@pytest.fixture
async def guarded(serve: Serve) -> Gateway:
    """A gateway whose authorizer has an idToken in the query string as its identity source."""
    return await serve(api(*OUR_ROUTES, identity_sources=ID_TOKEN))


async def test_handshake_that_fails_by_a_bug_of_the_gateway_is_a_500_and_a_log_line(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    gateway = await serve()
    monkeypatch.setattr(gateway.server, "invoke", fail)

    assert await get_refusal_status(gateway) == 500
    assert "the handshake of " in caplog.text


async def hang(_: Event) -> InvocationResult:
    never: asyncio.Future[InvocationResult] = asyncio.get_running_loop().create_future()
    return await never


@pytest.mark.parametrize(("route", "status"), [("authorizer", 500), ("$connect", 504)])
async def test_handshake_has_a_time_limit(serve: Serve, route: str, status: int) -> None:
    gateway = await serve(api(*OUR_ROUTES, identity_sources=ID_TOKEN), limits=Limits(integration_seconds=0.05))
    gateway.functions.behaviour[route] = hang

    assert await get_refusal_status(gateway, "?idToken=abc") == status


async def test_refusal_of_a_url_that_is_too_long_is_logged(
    gateway: Gateway, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    handshake = HANDSHAKE.replace(b"/prod", b"/prod?idToken=" + b"x" * 9000)

    await (await dial(gateway.port, handshake)).read_all()

    assert caplog.messages == ["a request was refused: 414 Request-URI Too Long"]


async def test_client_of_another_version_is_told_the_supported_one(gateway: Gateway, dial: Dial) -> None:
    """RFC 6455 section 4.4."""
    client = await dial(gateway.port, HANDSHAKE.replace(b"Version: 13", b"Version: 8"))

    assert b"\r\nSec-WebSocket-Version: 13\r\n" in await client.read_all()


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 401), (f"?idToken={'x' * 4096}", 414), (f"?idToken={'x' * 9000}", 414)],
    ids=["no identity", "long", "longer than a line may be"],
)
async def test_every_refusal_has_a_request_id_of_its_own(guarded: Gateway, query: str, status: int) -> None:
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
    guarded.functions.behaviour["$connect"] = InvocationResult({"statusCode": 400})

    with pytest.raises(InvalidStatus) as error:
        await guarded.connect("?idToken=abc")

    events = [await guarded.functions.wait_for_event(name) for name in ("authorizer", "$connect")]
    told = error.value.response.headers["x-amz-apigw-id"]
    assert [event["requestContext"]["requestId"] for event in events] == [told, told]


async def test_refusal_says_that_its_body_is_json(guarded: Gateway) -> None:
    with pytest.raises(InvalidStatus) as error:
        await guarded.connect()

    assert error.value.response.headers["Content-Type"] == "application/json"
