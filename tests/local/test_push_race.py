"""Clients that connect during a push to their user, with the real gateway and a real DynamoDB."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from types import ModuleType
from typing import Any

import botocore.session
import pytest
from websockets.asyncio.client import ClientConnection, connect

import ops
from local.apigateway.events import Event
from local.aws.iam import ADMINISTRATOR
from local.aws.ministack import LocalAws
from local.lambda_.invocation import InvocationResult
from ops import Deployment
from tests.fixtures.apis import AUTHORIZER_ARN, OUR_ROUTES, allow, api
from tests.fixtures.functions import WEBSOCKET, ColdStart
from tests.fixtures.gateway import PATIENCE_SECONDS, Listen, receive

CLIENTS = 5
TABLE = "connections"

Push = Callable[[str, bytes], object]


@pytest.fixture
def websocket(cold_start: ColdStart, database: LocalAws) -> Iterator[ModuleType]:
    """The websocket function in this process, with a real DynamoDB."""
    credentials = {"AWS_ACCESS_KEY_ID": ADMINISTRATOR, "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR}
    module = cold_start("websocket", **WEBSOCKET, **credentials, AWS_ENDPOINT_URL_DYNAMODB=database.url)
    yield module
    module.dynamodb.close()


def make_push(database: LocalAws, url: str) -> Push:
    session = botocore.session.Session()
    session.set_credentials(ADMINISTRATOR, ADMINISTRATOR)
    endpoints = {"dynamodb": database.url}
    facts: dict[str, Any] = {
        "region": "us-east-1",
        "table_name": TABLE,
        "callback_url": url,
        "endpoint_urls": endpoints,
    }

    def push(user_id: str, message: bytes) -> None:
        with closing(Deployment(**facts, session=session, threads=2)) as deployment:
            ops.push(deployment, message, user_id)

    return push


class Pusher:
    """Pushes to a user without pauses."""

    def __init__(self, push: Push, user_id: str) -> None:
        self._push = push
        self._user_id = user_id
        self._ended = 0
        self._one_ended = asyncio.Condition()
        self._stopped = False

    async def run(self) -> None:
        while not self._stopped:
            await asyncio.to_thread(self._push, self._user_id, b"news")
            async with self._one_ended:
                self._ended += 1
                self._one_ended.notify_all()

    async def whole_push(self) -> None:
        """Wait until a push that begins after this call has ended."""
        async with self._one_ended:
            enough = self._ended + 2
            await self._one_ended.wait_for(lambda: self._ended >= enough)

    def stop(self) -> None:
        self._stopped = True


async def receive_until(peer: ClientConnection, message: str) -> None:
    while await receive(peer) != message:
        pass


async def test_clients_that_connect_during_a_push_are_reachable_afterwards(
    websocket: ModuleType, database: LocalAws, listen: Listen
) -> None:
    """`$connect` stores a connection before the 101. Until then a post to it gets 410."""
    user_id = str(uuid.uuid4())

    async def invoke(function_arn: str, event: Event) -> InvocationResult:
        if function_arn == AUTHORIZER_ARN:
            return InvocationResult(allow({"userId": user_id, "exp": str(int(time.time()) + 3600)}))
        answer = await asyncio.to_thread(websocket.handler, event, None)
        if event["requestContext"]["routeKey"] == "$connect":
            await pusher.whole_push()  # the connection is stored, but the answer is late
        return InvocationResult(answer)

    _, port = await listen(api(*OUR_ROUTES, identity_sources=()), invoke)
    push = make_push(database, f"http://127.0.0.1:{port}/prod")
    pusher = Pusher(push, user_id)
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE_SECONDS):
        pushing = asyncio.create_task(pusher.run())
        opening = (stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/prod")) for _ in range(CLIENTS))
        peers = await asyncio.gather(*opening)
        pusher.stop()
        await pushing

        await asyncio.to_thread(push, user_id, b"are you there?")

        await asyncio.gather(*(receive_until(peer, "are you there?") for peer in peers))
