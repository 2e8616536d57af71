"""Connections are replaced before their token or API Gateway's two hours run out, and held over its ten idle minutes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.desk import PATIENCE_SECONDS, Desk, User
from tests.page.echo_page import EchoPage, with_longest_delays

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def talk_until_replaced(page: EchoPage, user: User) -> None:
    """Send messages without a pause until another connection has replaced the first one.

    Expect that the user sees no other state than "Connected", and that each message is echoed once, in order.
    """
    desk = page.desk
    (first,) = await desk.connections_of(user)
    states = await page.watch_states()
    texts: list[str] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while first in await desk.connections_of(user):
            texts.append(f"message {len(texts):03}")
            await page.send(texts[-1])
            await page.expect_echo(texts[-1])

    assert await states() == []
    await expect(page.log.locator("[data-kind=error]")).to_have_count(0)
    assert await page.echoes() == texts
    assert desk.messages_of(user) == texts
    assert len(await desk.connections_of(user)) == 1


async def test_connection_is_replaced_before_its_token_expires(proxied_desk: Desk, context: BrowserContext) -> None:
    user = await proxied_desk.add_user()
    await with_longest_delays(context)
    async with proxied_desk.tokens_that_live(12):
        page = await EchoPage.connected(context, proxied_desk, user)

        await talk_until_replaced(page, user)


async def test_connection_is_replaced_before_its_two_hours_are_over(
    compressed_desk: Desk, context: BrowserContext
) -> None:
    user = await compressed_desk.add_user()
    await with_longest_delays(context)
    page = await EchoPage.connected(context, compressed_desk, user)

    await talk_until_replaced(page, user)


async def test_keep_alive_holds_an_idle_connection(compressed_desk: Desk, context: BrowserContext) -> None:
    user = await compressed_desk.add_user()
    page = await EchoPage.connected(context, compressed_desk, user)
    before = await compressed_desk.connections_of(user)
    states = await page.watch_states()

    await compressed_desk.until_events(user, "keepalive", 2)  # after 8 s, and idle connections end after 5 s

    assert await states() == []
    assert await compressed_desk.connections_of(user) == before
    await expect(page.log).not_to_contain_text("keepalive")


async def test_connection_that_cannot_be_replaced_is_kept_to_its_end(
    restricted_desk: Desk, context: BrowserContext
) -> None:
    user = await restricted_desk.add_user()
    await with_longest_delays(context)
    page = await EchoPage.connected(context, restricted_desk, user)
    (before,) = await restricted_desk.connections_of(user)
    states = await page.watch_states()

    await restricted_desk.until_events(user, "$connect", 2)  # which is refused: the user has one connection already
    await page.send("still here")
    await page.expect_echo("still here")
    assert await states() == []
    assert await restricted_desk.connections_of(user) == [before]

    await restricted_desk.until_events(user, "$disconnect", 1)
    await page.send("here again")
    await page.expect_echo("here again")
    assert (await states())[0].startswith("Disconnected The server closed the connection with code 1001")
    await restricted_desk.until_replaced(user, before)


async def test_connection_is_replaced_in_time_on_a_computer_whose_clock_is_slow(
    proxied_desk: Desk, context: BrowserContext
) -> None:
    user = await proxied_desk.add_user()
    await context.clock.install(time=datetime.now(UTC) - timedelta(hours=1))
    async with proxied_desk.tokens_that_live(4):
        page = await EchoPage.connected(context, proxied_desk, user)
    states = await page.watch_states()

    await proxied_desk.until_events(user, "$connect", 2)
    await proxied_desk.until_connections(user, 1)

    await page.send("heard")
    await page.expect_echo("heard")
    assert await states() == []


async def test_token_that_expired_while_the_computer_slept_is_told_and_replaced(
    proxied_desk: Desk, context: BrowserContext
) -> None:
    user = await proxied_desk.add_user()
    await context.clock.install()
    async with proxied_desk.tokens_that_live(4):
        page = await EchoPage.connected(context, proxied_desk, user)
        await context.clock.pause_at(datetime.now(UTC) + timedelta(seconds=0.5))  # it jumps there and sleeps
    expired = page.log.get_by_text("Your token has expired: reconnect with a new one.")

    count = 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await expired.is_visible():
            count += 1
            await page.send(f"message {count}.")
            await expect(page.echo(f"message {count}.").or_(expired).first).to_be_visible()

    await expect(page.log).to_contain_text("error token_expired")
    await context.clock.resume()
    await page.send("heard again")
    await page.expect_echo("heard again")
    await page.expect_state("Connected")
