"""`make demo`: shows a user's connection from sign-in to disconnect, refused handshakes, and a token that expires."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import ops
from local import example
from local.aws.iam import ADMINISTRATOR
from local.aws.models import get_session
from local.aws.users import make_password
from local.errors import LaunchError
from local.progress import Progress, StepFailed
from local.system import Options, System, run_system
from ops import Deployment

ANSWER_SECONDS = 10.0
LIFETIME_SECONDS = 3  # of the token that expires during the demo


async def demo(options: Options, progress: Progress) -> None:
    """Run the system, show everything, and end.

    Raises:
        StepFailed: a step failed; the demo ends with it.
    """
    started = time.monotonic()
    async with run_system(options, progress) as system:
        if not example.takes_id_token(system.stack) or example.find_connection_table(system.stack) is None:
            raise LaunchError("the demo shows our own application, and this template has another: use `make up`")
        try:
            await show_everything(system, progress)
        except StepFailed as failure:
            raise StepFailed("\n".join((str(failure), *system.iam.advice))) from failure
    progress.say(f"\nEverything works; it took {time.monotonic() - started:.1f} s and left nothing running.")
    progress.say("Next: `make up` keeps the same system running, with a page to sign up and send messages.")


async def show_everything(system: System, progress: Progress) -> None:
    ada, bob = "ada@example.com", "bob@example.com"
    passwords = {ada: make_password(), bob: make_password()}
    groups = example.find_required_groups(system.stack)

    with progress.step("Ada signs in by SRP") as step:
        for email, secret in passwords.items():
            await asyncio.to_thread(system.users.add, email, secret, groups)
        token = await asyncio.to_thread(system.users.get_id_token, ada, passwords[ada])
        step.result = f"an ID token of {len(token)} characters"

    with progress.step("table before") as step:
        expect(scan_rows(system) == [], "the table is not empty")
        step.result = "empty"

    with progress.step("Ada connects with it") as step:
        peers = {"phone": await open_connection(system, token)}
        step.result = "101"
    with progress.step("table while connected") as step:
        (row,) = scan_rows(system)
        user_id = row["userId"]["S"]
        expires = int(row["removedAt"]["N"]) - int(time.time())
        step.result = f"connection {row['connectionId']['S']} of user {user_id}, removed in {expires} s at the latest"

    with progress.step("message echoed") as step:
        await peers["phone"].send("hello")
        step.result = expect_message(await receive(peers["phone"]), '{"message": "hello"}')

    with progress.step("push to all of Ada's") as step:
        if example.find_connection_limit(system.stack) != 1:
            peers["laptop"] = await open_connection(system, token)
        pushed = await asyncio.to_thread(push, system, user_id, "news for Ada")
        for peer in peers.values():
            expect_message(await receive(peer), "news for Ada")
        found = "1 connection" if len(peers) == 1 else f"{len(peers)} connections"
        step.result = f"{found} found by userIdIndex, {'it' if len(peers) == 1 else 'both'} got it"
        expect(pushed == len(peers), f"{pushed} of {len(peers)} posts arrived")

    await show_refusals(system, progress, bob, passwords[bob])

    with progress.step("Ada disconnects") as step:
        for peer in peers.values():
            await peer.close()
        step.result = " and ".join(peers)
    with progress.step("table after") as step:
        await wait_until_empty(system)
        step.result = "empty"
    with progress.step("grants never used") as step:
        step.result = "; ".join(system.unused_grants()) or "none"


async def show_refusals(system: System, progress: Progress, email: str, secret: str) -> None:
    with progress.step("no token") as step:
        step.result = await expect_refusal(401, system, None)
    with progress.step("token of another app client") as step:
        other = await asyncio.to_thread(create_app_client, system)
        token = await asyncio.to_thread(system.users.get_id_token, email, secret, other)
        step.result = await expect_refusal(403, system, token)
    with progress.step("Bob's token runs out") as step:
        token = await asyncio.to_thread(get_short_lived_token, system, email, secret)
        browser = await open_connection(system, token)
        await asyncio.sleep(LIFETIME_SECONDS)
        await browser.send("still there?")
        told = await receive(browser)
        expect("token_expired" in told, f"got {told}")
        try:
            raise AssertionError(f"got {await receive(browser)} instead of the connection's end")
        except ConnectionClosed:
            step.result = f"{told} and closed"
    with progress.step("expired token") as step:
        step.result = await expect_refusal(403, system, token)


async def open_connection(system: System, token: str | None) -> ClientConnection:
    """Connect as our own clients do. With None, connect without a token."""
    handshake = example.build_handshake(system, token or "")
    if token is None:
        handshake = {"uri": system.websocket_url, "proxy": None}
    return await connect(**handshake)


async def expect_refusal(status: int, system: System, token: str | None) -> str:
    try:
        await open_connection(system, token)
    except InvalidStatus as error:
        response = error.response
        expect(response.status_code == status, f"refused with {response.status_code} instead of {status}")
        return f"refused: {status} {(response.body or b'').decode()}"
    raise AssertionError(f"let in instead of refused with {status}")


async def receive(peer: ClientConnection) -> str:
    async with asyncio.timeout(ANSWER_SECONDS):
        return str(await peer.recv())


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def expect_message(received: str, expected: str) -> str:
    expect(received == expected, f"got {received} instead of {expected}")
    return received


def scan_rows(system: System) -> list[dict[str, Any]]:
    return list(system.aws.client("dynamodb").scan(TableName=system.table_name)["Items"])


async def wait_until_empty(system: System) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while await asyncio.to_thread(scan_rows, system):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError("the connections are still in the table") from None


def push(system: System, user_id: str, message: str) -> int:
    """Push a message to all connections of a user by `ops`; return how many got it."""
    with closing(open_deployment(system)) as deployment:
        return ops.push(deployment, message.encode(), user_id).outcomes["delivered"]


def open_deployment(system: System) -> Deployment:
    """Return the running system as a deployment for `ops`."""
    assert system.table_name
    session = get_session()
    session.set_credentials(ADMINISTRATOR, ADMINISTRATOR)
    return Deployment(
        region=system.aws.account.region,
        table_name=system.table_name,
        callback_url=system.callback_url,
        session=session,
        endpoint_urls={"dynamodb": system.aws.dynamodb_url},
    )


def create_app_client(system: System) -> str:
    cognito = system.aws.client("cognito-idp")
    created = cognito.create_user_pool_client(
        UserPoolId=system.user_pool_id, ClientName="another", ExplicitAuthFlows=["ALLOW_USER_SRP_AUTH"]
    )
    return str(created["UserPoolClient"]["ClientId"])


def get_short_lived_token(system: System, email: str, secret: str) -> str:
    """Return a token of the app client that is valid for seconds. The local Cognito allows such a lifetime; AWS does not."""
    cognito = system.aws.client("cognito-idp")
    app_client = {"UserPoolId": system.user_pool_id, "ClientId": system.app_client_id}
    before = cognito.describe_user_pool_client(**app_client)["UserPoolClient"]
    units = before["TokenValidityUnits"]
    flows = before["ExplicitAuthFlows"]
    validity = {**units, "IdToken": "seconds"}
    cognito.update_user_pool_client(
        **app_client, ExplicitAuthFlows=flows, IdTokenValidity=LIFETIME_SECONDS, TokenValidityUnits=validity
    )
    try:
        return system.users.get_id_token(email, secret)
    finally:
        cognito.update_user_pool_client(
            **app_client, ExplicitAuthFlows=flows, IdTokenValidity=before["IdTokenValidity"], TokenValidityUnits=units
        )
