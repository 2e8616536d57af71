"""API Gateway's permissions to invoke functions, and functions' permissions to call `@connections`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import boto3
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from local.aws.iam import Iam, Role, Session, Statement
from local.ids import make_id
from tests.fixtures.apis import AUTHORIZER_ARN, OUR_ROUTES, WEBSOCKET_ARN, api
from tests.fixtures.gateway import Dial, Gateway, Serve, get_refusal_status, receive, request

API_ARN = "arn:aws:execute-api:us-east-1:000000000000:localapi00"
CONNECT = (WEBSOCKET_ARN, f"{API_ARN}/*$connect")
ASK = (AUTHORIZER_ARN, f"{API_ARN}/authorizers/authorizer")


async def start_gateway(serve: Serve, *permissions: tuple[str, str], iam: Iam | None = None) -> Gateway:
    """Start a gateway with these permissions."""
    guarded = api(*OUR_ROUTES, identity_sources=(), permissions=frozenset(permissions))
    return await serve(guarded, iam=iam)


# Functions


async def test_authorizer_without_a_permission_means_500_and_advice(serve: Serve) -> None:
    gateway = await start_gateway(serve, CONNECT)

    assert await get_refusal_status(gateway) == 500
    assert gateway.functions.invoked == []
    assert list(gateway.server.iam.advice) == [
        f"API Gateway may not invoke authorizer: add an AWS::Lambda::Permission with SourceArn {ASK[1]}"
    ]


async def test_connect_route_without_a_permission_means_500_and_advice(serve: Serve) -> None:
    gateway = await start_gateway(serve, ASK)

    assert await get_refusal_status(gateway) == 500
    assert gateway.functions.invoked == ["authorizer"]
    (advice,) = gateway.server.iam.advice
    assert advice.endswith(f"add an AWS::Lambda::Permission with SourceArn {API_ARN}/prod/$connect")


async def test_message_without_a_permission_is_an_error_and_gives_advice(serve: Serve) -> None:
    gateway = await start_gateway(serve, ASK, CONNECT)
    peer = await gateway.connect()

    for _ in range(2):
        await peer.send("hello")
        assert (await receive(peer)).startswith('{"message": "Internal server error", "connectionId":"')

    (advice,) = gateway.server.iam.advice
    assert advice == (
        f"API Gateway may not invoke websocket: add an AWS::Lambda::Permission with SourceArn {API_ARN}/prod/$default"
    )


async def test_disconnect_route_without_a_permission_gives_advice(serve: Serve) -> None:
    gateway = await start_gateway(serve, ASK, CONNECT)
    peer = await gateway.connect()

    await peer.close()
    await gateway.server.stop()

    assert gateway.functions.invoked == ["authorizer", "$connect"]
    (advice,) = gateway.server.iam.advice
    assert advice.endswith(f"SourceArn {API_ARN}/prod/$disconnect")


async def test_permission_may_cover_every_route(serve: Serve) -> None:
    gateway = await start_gateway(serve, ASK, (WEBSOCKET_ARN, f"{API_ARN}/*"))
    peer = await gateway.connect()

    await peer.send("hello")
    await gateway.functions.wait_for_event("$default")

    assert list(gateway.server.iam.advice) == []


async def test_permissions_are_not_checked_if_iam_is_not_enforced(serve: Serve) -> None:
    gateway = await start_gateway(serve, iam=Iam(enforced=False))
    peer = await gateway.connect()

    await peer.send("hello")
    await gateway.functions.wait_for_event("$default")

    assert gateway.functions.invoked == ["authorizer", "$connect", "$default"]


# @connections

SESSION_ARN = "arn:aws:sts::000000000000:assumed-role/Chat-Role/Chat-Rooms"
POST = Statement("Allow", ("execute-api:ManageConnections",), (f"{API_ARN}/prod/POST/*",))


@pytest.fixture
def iam() -> Iam:
    return Iam()


@pytest.fixture
async def managed(serve: Serve, iam: Iam) -> Gateway:
    """A gateway with this `iam`."""
    return await serve(iam=iam)


def function(iam: Iam, *statements: Statement) -> Session:
    """Open the session of a function whose role has these statements."""
    return iam.open_session("rooms", Role("Chat-Role", statements), SESSION_ARN)


async def call(gateway: Gateway, session: Session, operation: str, connection_id: str, **parameters: Any) -> Any:
    management = boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=f"http://127.0.0.1:{gateway.port}/prod",
        region_name="us-east-1",
        aws_access_key_id=session.access_key_id,
        aws_secret_access_key=session.secret_access_key,
        aws_session_token=session.session_token,
    )
    return await asyncio.to_thread(getattr(management, operation), ConnectionId=connection_id, **parameters)


async def test_function_may_make_a_call_that_its_role_allows(managed: Gateway, iam: Iam) -> None:
    peer, connection_id = await managed.connect_with_id()

    await call(managed, function(iam, POST), "post_to_connection", connection_id, Data=b"hello")

    assert await receive(peer) == "hello"
    assert list(iam.unused_grants(["execute-api"])) == []


@pytest.mark.parametrize(("operation", "method"), [("get_connection", "GET"), ("delete_connection", "DELETE")])
async def test_function_may_not_make_a_call_that_its_role_does_not_allow(
    managed: Gateway, iam: Iam, operation: str, method: str
) -> None:
    _, connection_id = await managed.connect_with_id()

    with pytest.raises(ClientError, match="AccessDeniedException") as error:
        await call(managed, function(iam, POST), operation, connection_id)

    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert managed.server.connections.get(connection_id)
    (advice,) = iam.advice
    assert f'"Resource": "{API_ARN}/prod/{method}/@connections/*"' in advice


async def test_refusal_has_the_message_of_aws(managed: Gateway, iam: Iam, dial: Dial) -> None:
    """The account is masked and the connection id is a placeholder, as captured from AWS."""
    _, connection_id = await managed.connect_with_id()
    session = function(iam)
    caller = Credentials(session.access_key_id, session.secret_access_key, session.session_token)

    status, headers, body = await request(dial, managed, f"POST /prod/@connections/{connection_id}", caller=caller)

    assert (status, headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    assert json.loads(body) == {
        "Message": f"User: {SESSION_ARN} is not authorized to perform: execute-api:ManageConnections on resource: "
        "arn:aws:execute-api:us-east-1:********0000:localapi00/prod/POST/@connections/{connectionId}"
    }


async def test_unknown_access_key_is_refused(managed: Gateway, dial: Dial) -> None:
    _, connection_id = await managed.connect_with_id()
    nobody = Credentials("AKIDEXAMPLE", "secret")

    status, headers, _ = await request(dial, managed, f"GET /prod/@connections/{connection_id}", caller=nobody)

    assert (status, headers["x-amzn-errortype"]) == (403, "UnrecognizedClientException")


async def test_refusal_does_not_tell_whether_the_connection_exists(managed: Gateway, iam: Iam) -> None:
    _, connection_id = await managed.connect_with_id()

    for each in (connection_id, make_id(), "not-an-id"):
        with pytest.raises(ClientError, match="AccessDeniedException"):
            await call(managed, function(iam), "get_connection", each)


async def test_every_function_may_post_if_iam_is_not_enforced(serve: Serve) -> None:
    iam = Iam(enforced=False)
    gateway = await serve(iam=iam)
    peer, connection_id = await gateway.connect_with_id()

    await call(gateway, function(iam), "post_to_connection", connection_id, Data=b"hello")

    assert await receive(peer) == "hello"
