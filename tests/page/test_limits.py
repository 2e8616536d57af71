"""A connection outlives the idle limit. It is replaced before its token expires and before the two-hour limit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.echo_page import EchoPage, use_longest_delays
from tests.page.local_run import PATIENCE_SECONDS, LocalRun, User

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def talk_until_replaced(page: EchoPage, user: User, first: str) -> None:
    """Send messages without a pause until another connection has replaced the first.

    Expect that the page echoes each message once, in order.
    """
    local_run = page.local_run
    texts: list[str] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not texts or first in await local_run.list_connections(user):
            texts.append(f"message {len(texts):03}")
            await page.send(texts[-1])
            await page.expect_echo(texts[-1])

    await expect(page.log.locator("[data-kind=error]")).to_have_count(0)
    assert await page.list_echoes() == texts
    assert local_run.get_messages(user) == texts
    assert len(await local_run.list_connections(user)) == 1


async def test_idle_connection_is_kept_open_and_then_replaced_before_the_two_hour_limit(
    compressed_run: LocalRun, context: BrowserContext
) -> None:
    user = await compressed_run.add_user()
    await use_longest_delays(context)
    page = await EchoPage.open_and_connect(context, compressed_run, user)
    (first,) = await compressed_run.list_connections(user)
    states = await page.watch_states()

    await compressed_run.wait_for_events(user, "keepalive", 2)  # takes 8 s; the idle limit is 5 s
    assert first in await compressed_run.list_connections(user)
    await expect(page.log).not_to_contain_text("keepalive")

    await talk_until_replaced(page, user, first)
    assert await states() == []


async def test_connection_is_replaced_in_time_on_a_computer_whose_clock_is_slow(
    proxied_run: LocalRun, context: BrowserContext
) -> None:
    user = await proxied_run.add_user()
    await context.clock.install(time=datetime.now(UTC) - timedelta(hours=1))
    async with proxied_run.set_token_lifetime(4):
        page = await EchoPage.open_and_connect(context, proxied_run, user)
    states = await page.watch_states()

    await proxied_run.wait_for_events(user, "$connect", 2)
    await proxied_run.wait_for_connections(user, 1)

    await page.send("heard")
    await page.expect_echo("heard")
    assert await states() == []


async def test_token_that_expired_while_the_computer_slept_is_shown_and_replaced(
    proxied_run: LocalRun, context: BrowserContext
) -> None:
    user = await proxied_run.add_user()
    await context.clock.install()
    async with proxied_run.set_token_lifetime(4):
        page = await EchoPage.open_and_connect(context, proxied_run, user)
        await context.clock.pause_at(datetime.now(UTC) + timedelta(seconds=0.5))  # the clock jumps there and stops
    expired = page.log.get_by_text("Your token has expired: reconnect with a new one.")

    count = 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await expired.is_visible():
            count += 1
            await page.send(f"message {count}.")
            await expect(page.get_echo(f"message {count}.").or_(expired).first).to_be_visible()

    await expect(page.log).to_contain_text("error token_expired")
    await context.clock.resume()
    await page.send("heard again")
    await page.expect_echo("heard again")
    await page.expect_state("Connected")
