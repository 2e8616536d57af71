"""`make demo`: one user's life with the system, strangers who stay outside, and one whose token runs out."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from local.aws.clients import client
from local.example import opening
from local.progress import Progress, StepFailed
from local.system import Options, System, run_system

ANSWER_SECONDS = 10.0
HANDSHAKE_SECONDS = 30  # API Gateway waits 29 s for `$connect`
LIFETIME_SECONDS = 3  # of a token that runs out while we watch


async def demo(options: Options, progress: Progress) -> None:
    """Raises StepFailed for the first step that does not do what it should."""
    started = time.monotonic()
    async with run_system(options, progress) as system:
        try:
            await use(system, progress)
        except StepFailed as failure:
            raise StepFailed("\n".join((str(failure), *system.iam.advice))) from failure
    progress.say(f"\nEverything works; it took {time.monotonic() - started:.1f} s and left nothing running.")
    progress.say("Next: `make up` keeps the same system running, with a page to sign up and send messages.")


async def use(system: System, progress: Progress) -> None:
    ada, bob = "ada@example.com", "bob@example.com"
    passwords = {ada: password(), bob: password()}

    with progress.step("Ada signs in by SRP") as step:
        for email, secret in passwords.items():
            await asyncio.to_thread(system.users.add, email, secret)
        token = await asyncio.to_thread(system.users.id_token, ada, passwords[ada])
        step.result = f"an ID token of {len(token)} characters"

    with progress.step("table before") as step:
        expect(rows(system) == [], "the table is not empty")
        step.result = "empty"

    with progress.step("Ada connects with it") as step:
        phone = await connect(**opening(system, token))
        step.result = "101"
    with progress.step("table while connected") as step:
        (row,) = rows(system)
        user_id = row["userId"]["S"]
        expires = int(row["removedAt"]["N"]) - int(time.time())
        step.result = f"connection {row['connectionId']['S']} of user {user_id}, removed in {expires} s at the latest"

    with progress.step("message echoed") as step:
        await phone.send("hello")
        step.result = expect_message(await answer(phone), '{"message": "hello"}')

    with progress.step("push to all of Ada's") as step:
        laptop = await connect(**opening(system, token))
        pushed = await asyncio.to_thread(push, system, user_id, "news for Ada")
        for peer in (phone, laptop):
            expect_message(await answer(peer), "news for Ada")
        step.result = f"{pushed} connections found by userIdIndex, both got it"

    await refusals(system, progress, bob, passwords[bob])

    with progress.step("Ada disconnects") as step:
        await phone.close()
        await laptop.close()
        step.result = "phone and laptop"
    with progress.step("table after") as step:
        await until_empty(system)
        step.result = "empty"
    with progress.step("grants never used") as step:
        step.result = "; ".join(system.unused_grants()) or "none"


async def refusals(system: System, progress: Progress, email: str, secret: str) -> None:
    with progress.step("no token") as step:
        step.result = await refusal(401, uri=system.websocket_url)
    with progress.step("token of another app client") as step:
        other = await asyncio.to_thread(other_app_client, system)
        token = await asyncio.to_thread(system.users.id_token, email, secret, other)
        step.result = await refusal(403, **opening(system, token))
    with progress.step("Bob's token runs out") as step:
        token = await asyncio.to_thread(short_lived_token, system, email, secret)
        browser = await connect(**opening(system, token))
        await asyncio.sleep(LIFETIME_SECONDS)
        await browser.send("still there?")
        told = await answer(browser)
        expect("token_expired" in told, f"got {told}")
        try:
            raise AssertionError(f"got {await answer(browser)} instead of the connection's end")
        except ConnectionClosed:
            step.result = f"{told} and closed"
    with progress.step("expired token") as step:
        step.result = await refusal(403, **opening(system, token))


async def refusal(status: int, **opening: Any) -> str:
    try:
        await connect(**opening)
    except InvalidStatus as error:
        response = error.response
        expect(response.status_code == status, f"refused with {response.status_code} instead of {status}")
        return f"refused: {status} {(response.body or b'').decode()}"
    raise AssertionError(f"let in instead of refused with {status}")


async def answer(peer: ClientConnection) -> str:
    async with asyncio.timeout(ANSWER_SECONDS):
        return str(await peer.recv())


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def expect_message(received: str, expected: str) -> str:
    expect(received == expected, f"got {received} instead of {expected}")
    return received


def rows(system: System) -> list[dict[str, Any]]:
    return list(system.aws.client("dynamodb").scan(TableName=system.table_name)["Items"])


async def until_empty(system: System) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while await asyncio.to_thread(rows, system):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError("the connections are still in the table") from None


def push(system: System, user_id: str, message: str) -> int:
    """Send a message to all connections of a user as any server can, with boto3; return how many got it."""
    dynamodb = system.aws.client("dynamodb")
    management = client("apigatewaymanagementapi", system.callback_url)
    pages = dynamodb.get_paginator("query").paginate(
        TableName=system.table_name,
        IndexName="userIdIndex",
        KeyConditionExpression="userId = :user",
        ExpressionAttributeValues={":user": {"S": user_id}},
    )
    reached = 0
    for row in (row for page in pages for row in page["Items"]):
        connection_id = row["connectionId"]["S"]
        try:
            if int(row["removedAt"]["N"]) > time.time():
                management.post_to_connection(ConnectionId=connection_id, Data=message.encode())
                reached += 1
            else:  # its token has expired; DynamoDB's time to live takes days to delete the row
                management.delete_connection(ConnectionId=connection_id)
        except management.exceptions.GoneException:
            delete_gone(dynamodb, system.table_name, connection_id)
    return reached


def delete_gone(dynamodb: Any, table_name: str | None, connection_id: str) -> None:
    """Delete the row of a connection that got 410, unless its handshake may still be running."""
    with suppress(dynamodb.exceptions.ConditionalCheckFailedException):
        dynamodb.delete_item(
            TableName=table_name,
            Key={"connectionId": {"S": connection_id}},
            ConditionExpression="attribute_not_exists(connectedAt) OR connectedAt < :latest",
            ExpressionAttributeValues={":latest": {"N": str(int(time.time()) - HANDSHAKE_SECONDS)}},
        )


def other_app_client(system: System) -> str:
    cognito = system.aws.client("cognito-idp")
    created = cognito.create_user_pool_client(
        UserPoolId=system.user_pool_id, ClientName="another", ExplicitAuthFlows=["ALLOW_USER_SRP_AUTH"]
    )
    return str(created["UserPoolClient"]["ClientId"])


def short_lived_token(system: System, email: str, secret: str) -> str:
    """A real token of the real app client, valid for seconds: the local Cognito allows what AWS does not."""
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
        return system.users.id_token(email, secret)
    finally:
        cognito.update_user_pool_client(
            **app_client, ExplicitAuthFlows=flows, IdTokenValidity=before["IdTokenValidity"], TokenValidityUnits=units
        )


def password() -> str:
    """One that every password policy takes."""
    return f"Aa1!{secrets.token_urlsafe(16)}"
