"""Start the local run with its page for tests, and read what its gateway, table and user pool contain."""

from __future__ import annotations

import asyncio
import io
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from local import serving
from local.apigateway.server import GatewayServer
from local.aws import mail
from local.aws.clients import client
from local.aws.mail import Mail
from local.journal import Journal
from local.lambda_.invocation import InvocationResult
from local.page_settings import build_local_settings
from local.progress import Progress
from local.system import Options, System, run_system
from tests.page.network import Network

PATIENCE_SECONDS = 30.0  # a timeout: the waits of a test that succeeds are much shorter
PASSWORD = "Correct-horse-7"

Event = dict[str, Any]


@dataclass(frozen=True)
class User:
    """A user of the pool.

    Attributes:
        id: the `sub` of the tokens.
    """

    email: str
    id: str
    password: str = PASSWORD


@dataclass
class LocalRun:
    """A running local system with its page.

    Attributes:
        gateway: may be stopped and started again by a test.
        events: the events of all invocations, oldest first.
        network: the proxy between the page and the gateway, if the run was started as `proxied`.
    """

    system: System
    gateway: GatewayServer
    events: list[Event]
    network: Network = field(default_factory=Network)
    gateway_is_listening: bool = True

    @property
    def url(self) -> str:
        """Return the page's URL."""
        assert self.system.page_url
        return self.system.page_url

    @property
    def settings(self) -> dict[str, Any]:
        """Return what the page reads as `config.json`."""
        assert self.system.page_settings
        return self.system.page_settings

    # The gateway

    async def stop_gateway(self) -> None:
        """Close all connections with 1001 and stop listening; the user pool and the functions run on."""
        await self.gateway.stop()
        self.gateway_is_listening = False

    async def start_gateway(self) -> None:
        """Listen again on the same port."""
        old = self.gateway
        self.gateway = GatewayServer(old.api, old.invoke, limits=old.limits, iam=old.iam, in_turn=old.in_turn)
        await self.gateway.start(self.system.port)
        self.gateway_is_listening = True

    def get_messages(self, user: User) -> list[str]:
        """Return the messages of a user for which the gateway has invoked `$default`, oldest first."""
        return [each["body"] for each in self.get_events(user, "$default")]

    def get_events(self, user: User, route_key: str) -> list[Event]:
        """Return the events of a route that came from a user's connections."""
        contexts = ((each, each["requestContext"]) for each in self.events if "methodArn" not in each)
        return [
            event
            for event, context in contexts
            if context["routeKey"] == route_key and context["authorizer"]["userId"] == user.id
        ]

    async def wait_for_events(self, user: User, route_key: str, count: int) -> list[Event]:
        """Wait until a user's connections have caused at least this number of a route's events; return them."""
        await wait_until(lambda: len(self.get_events(user, route_key)) >= count)
        return self.get_events(user, route_key)

    async def push(self, user: User, text: str) -> None:
        """Post a text to all connections of a user, as a server of a deployment does."""
        management = client("apigatewaymanagementapi", self.system.callback_url)
        for connection_id in await self.list_connections(user):
            await asyncio.to_thread(management.post_to_connection, ConnectionId=connection_id, Data=text.encode())

    # The table

    @cached_property
    def dynamodb(self) -> Any:
        return self.system.aws.client("dynamodb")

    async def list_connections(self, user: User) -> list[str]:
        """Return the ids of a user's connections from the table."""
        items = (await asyncio.to_thread(self.dynamodb.scan, TableName=self.system.table_name))["Items"]
        return [item["connectionId"]["S"] for item in items if item["userId"]["S"] == user.id]

    async def wait_for_connections(self, user: User, count: int) -> list[str]:
        """Wait until the table has exactly this number of a user's connections; return their ids."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found := await self.list_connections(user)) != count:
                await asyncio.sleep(0.05)
        return found

    async def wait_until_replaced(self, user: User, connection_id: str) -> None:
        """Wait until the table has one connection of the user, with another id."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.wait_for_connections(user, 1) == [connection_id]:
                await asyncio.sleep(0.05)

    # The user pool

    @cached_property
    def cognito(self) -> Any:
        return self.system.aws.client("cognito-idp")

    async def administer(self, operation: str, email: str, **parameters: Any) -> Any:
        """Call an `admin_…` operation of the user pool for a user."""
        call = getattr(self.cognito, operation)
        pool = {"UserPoolId": self.system.user_pool_id, "Username": email}
        return await asyncio.to_thread(partial(call, **pool, **parameters))

    async def add_user(self) -> User:
        """Add a confirmed user with a new email address."""
        email = make_address()
        await asyncio.to_thread(self.system.users.add, email, PASSWORD)
        return await self.get_user(email)

    async def sign_up(self) -> str:
        """Sign up a user and return the email address, which is not confirmed yet."""
        email = make_address()
        sign_up = partial(self.cognito.sign_up, ClientId=self.system.app_client_id, Username=email, Password=PASSWORD)
        await asyncio.to_thread(sign_up)
        return email

    async def get_user(self, email: str) -> User:
        """Return the user with this email address."""
        facts = await self.administer("admin_get_user", email)
        return User(email, next(each["Value"] for each in facts["UserAttributes"] if each["Name"] == "sub"))

    async def require_second_factor(self, user: User) -> None:
        """Make the user pool ask this user for a code from an authenticator app."""
        pool = {"UserPoolId": self.system.user_pool_id, "MfaConfiguration": "OPTIONAL"}
        await asyncio.to_thread(partial(self.cognito.set_user_pool_mfa_config, **pool))
        enabled = {"SoftwareTokenMfaSettings": {"Enabled": True, "PreferredMfa": True}}
        await self.administer("admin_set_user_mfa_preference", user.email, **enabled)

    @asynccontextmanager
    async def set_token_lifetime(self, seconds: int) -> AsyncIterator[None]:
        """Issue ID tokens that live for some seconds. The local Cognito allows this, AWS does not."""
        app_client = {"UserPoolId": self.system.user_pool_id, "ClientId": self.system.app_client_id}
        described = await asyncio.to_thread(partial(self.cognito.describe_user_pool_client, **app_client))
        before = described["UserPoolClient"]
        names = ("ExplicitAuthFlows", "IdTokenValidity", "TokenValidityUnits")
        usual = app_client | {name: before[name] for name in names}
        units = {**before["TokenValidityUnits"], "IdToken": "seconds"}
        short = usual | {"IdTokenValidity": seconds, "TokenValidityUnits": units}
        await asyncio.to_thread(partial(self.cognito.update_user_pool_client, **short))
        try:
            yield
        finally:
            await asyncio.to_thread(partial(self.cognito.update_user_pool_client, **usual))

    async def wait_for_mails(self, email: str, count: int = 1) -> list[Mail]:
        """Wait until at least `count` mails to this address were sent; return them, oldest first."""
        async with asyncio.timeout(PATIENCE_SECONDS), ClientSession() as session:
            while True:
                mails = [each for each in await mail.fetch_mails(session, self.system.aws.url) if each.to == email]
                if len(mails) >= count:
                    return mails
                await asyncio.sleep(0.05)

    async def wait_for_code(self, email: str, count: int = 1) -> str:
        """Wait until at least `count` mails to this address were sent; return the code in the newest."""
        newest = (await self.wait_for_mails(email, count))[-1]
        (code,) = re.findall(r"\b\d{6}\b", newest.text)
        return str(code)


def make_address() -> str:
    return f"{uuid.uuid4().hex[:12]}@example.com"


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def start_local_run(template: Path, *, proxied: bool = False, **options: Any) -> AsyncIterator[LocalRun]:
    """Start the local run with its page.

    Args:
        template: the stack's synthesized template.
        proxied: put a proxy, `LocalRun.network`, between the page and the gateway.
        options: further options of the local run.
    """
    gateways: list[GatewayServer] = []
    events: list[Event] = []
    network = Network()

    def create_gateway(
        api: Any, invoke: Callable[[str, Event], Awaitable[InvocationResult]], **settings: Any
    ) -> GatewayServer:
        def record_and_invoke(function_arn: str, event: Event) -> Awaitable[InvocationResult]:
            events.append(event)
            return invoke(function_arn, event)

        gateways.append(GatewayServer(api, record_and_invoke, **settings))
        return gateways[-1]

    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(serving, "GatewayServer", create_gateway)
            if proxied:
                port = await network.start()
                stack.push_async_callback(network.stop)
                patch.setattr(serving, "build_local_settings", partial(build_settings_with_proxy, network, port))
            chosen = Options(template=template, page_port=0, functions="process", **options)
            system = await stack.enter_async_context(run_system(chosen, Progress(io.StringIO()), Journal()))
        local_run = LocalRun(system, gateways[0], events, network)
        yield local_run
        if local_run.gateway_is_listening and local_run.gateway is not gateways[0]:
            await local_run.stop_gateway()


def build_settings_with_proxy(
    network: Network, port: int, output: dict[str, Any], *, websocket_url: str, **facts: Any
) -> dict[str, Any]:
    """Return the page's settings with the proxy's port instead of the gateway's, and make the gateway the target."""
    network.target_port = int(re.findall(r":(\d+)/", websocket_url)[0])
    return build_local_settings(
        output, websocket_url=websocket_url.replace(f":{network.target_port}/", f":{port}/"), **facts
    )
