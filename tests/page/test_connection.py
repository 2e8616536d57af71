"""What a user sees, and the gateway gets, when the gateway is restarted or the network is gone."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, ViewportSize, expect

from tests.page.browser import NewContext
from tests.page.desk import Desk
from tests.page.echo_page import NARROW, WIDE, EchoPage, with_longest_delays

pytestmark = pytest.mark.asyncio(loop_scope="package")

REFRESH = "AWSCognitoIdentityProviderService.GetTokensFromRefreshToken"
NOT_CONFIRMED = "not confirmed"
NO_ANSWER_MS = 10_000  # the page takes a socket for dead when it gets no answer for so long


@pytest_asyncio.fixture(loop_scope="package")
async def desk(proxied_desk: Desk) -> AsyncIterator[Desk]:
    """A system whose gateway and network are back after each test."""
    yield proxied_desk
    proxied_desk.network.bring_back()
    if not proxied_desk.gateway_is_listening:
        await proxied_desk.start_gateway()


# The gateway is gone


async def test_messages_typed_while_the_gateway_restarts_are_sent_once_and_in_order(
    desk: Desk, context: BrowserContext
) -> None:
    user = await desk.add_user()
    page = await EchoPage.connected(context, desk, user)
    await page.send("before")
    await page.expect_echo("before")
    texts = ["first", "second", "third"]

    await desk.stop_gateway()
    await page.expect_state("Disconnected")
    for text in texts:
        await page.send(text)
        await expect(page.sent(text)).to_contain_text("queued")
    await desk.start_gateway()

    await page.expect_state("Connected")
    for text in texts:
        await page.expect_echo(text)
    assert await page.echoes() == ["before", *texts]
    assert desk.messages_of(user) == ["before", *texts]
    assert len(desk.events_of(user, "$connect")) == 2, "one connection before the restart and one after"
    assert len(await desk.connections_of(user)) == 1


async def test_long_outage_is_told_with_where_to_look_and_retry_now_ends_it(
    desk: Desk, context: BrowserContext
) -> None:
    user = await desk.add_user()
    await with_longest_delays(context)
    page = await EchoPage.connected(context, desk, user)

    await desk.stop_gateway()
    await expect(page.status).to_contain_text("The server closed the connection with code 1001 (Going away).")
    await page.expect_accessible()
    await page.retry_until("Suspended")

    await expect(page.status).to_contain_text("The server refused the connection, or could not be reached.")
    await expect(page.status).to_contain_text("Look at the terminal where make up runs.")
    await expect(page.tab.get_by_text(re.compile(r"Next attempt in \d+ s"))).to_be_visible()
    await page.expect_accessible()
    await page.send("at last")
    await desk.start_gateway()
    await page.button("Retry now").click()  # the next attempt by itself would be after this test's patience
    await page.expect_state("Connected")
    await page.expect_echo("at last")
    assert len(await desk.connections_of(user)) == 1


async def test_suspended_page_connects_at_once_when_the_browser_is_online_again(
    desk: Desk, context: BrowserContext
) -> None:
    user = await desk.add_user()
    await with_longest_delays(context)
    page = await EchoPage.connected(context, desk, user)
    await desk.stop_gateway()
    await page.retry_until("Suspended")
    await desk.start_gateway()

    await context.set_offline(True)
    await context.set_offline(False)

    await page.expect_state("Connected")


async def test_refused_page_refreshes_its_token_once_and_connects_when_there_is_room(
    restricted_desk: Desk, context: BrowserContext
) -> None:
    user = await restricted_desk.add_user()
    await with_longest_delays(context)
    first = await EchoPage.connected(context, restricted_desk, user)
    refused = EchoPage(await context.new_page(), restricted_desk)
    calls: list[str] = []
    refused.tab.on("request", lambda request: calls.append(request.headers.get("x-amz-target", "")))

    await refused.tab.goto(restricted_desk.url)
    await refused.retry_until("Suspended")

    assert [call for call in calls if "Token" in call] == [REFRESH]
    await first.tab.close()
    await restricted_desk.until_connections(user, 0)
    await refused.button("Retry now").click()
    await refused.expect_state("Connected")


# The network is gone


async def test_page_waits_for_an_answer_to_its_handshake(desk: Desk, context: BrowserContext) -> None:
    user = await desk.add_user()
    page = await EchoPage.open(context, desk)
    desk.network.take_away()

    await page.sign_in(user)

    await page.expect_state("Connecting")
    await page.expect_accessible()
    desk.network.bring_back()
    await page.expect_state("Connected")


@pytest.mark.parametrize("idle_limit_seconds", [600, 6])
async def test_dead_connection_is_noticed_by_an_unanswered_keep_alive(
    desk: Desk, context: BrowserContext, idle_limit_seconds: int
) -> None:
    user = await desk.add_user()
    settings = json.dumps(desk.settings | {"idleLimitSeconds": idle_limit_seconds})
    await context.route("**/config.json", lambda route: route.fulfill(body=settings))
    await context.clock.install()
    page = await EchoPage.connected(context, desk, user)
    desk.network.take_away()

    await context.clock.fast_forward(int(0.8 * idle_limit_seconds * 1000))  # then it asks
    await context.clock.fast_forward(NO_ANSWER_MS)
    await expect(page.status).to_contain_text("The server did not answer a keep-alive message.")
    desk.network.bring_back()

    await page.expect_state("Connected")
    await page.send("back")
    await page.expect_echo("back")
    await desk.until_connections(user, 1)


async def test_message_into_a_dead_connection_is_told_as_not_confirmed_and_not_sent_again(
    desk: Desk, context: BrowserContext
) -> None:
    user = await desk.add_user()
    await context.clock.install()
    page = await EchoPage.connected(context, desk, user)
    desk.network.take_away()

    await page.send("into the void")
    await context.clock.fast_forward(NO_ANSWER_MS)  # then it asks by a keep-alive
    await context.clock.fast_forward(NO_ANSWER_MS)
    await expect(page.sent("into the void")).to_contain_text(NOT_CONFIRMED)
    await page.send("queued")
    desk.network.bring_back()

    await page.expect_echo("queued")
    await page.expect_accessible()
    await expect(page.sent("into the void")).to_contain_text(NOT_CONFIRMED)
    await desk.until_connections(user, 1)
    # TCP delivered it after the outage, so it has arrived once.
    assert sorted(desk.messages_of(user)) == ["into the void", "queued"]


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
async def test_nothing_moves_when_the_connection_is_lost(
    desk: Desk, new_context: NewContext, size: ViewportSize
) -> None:
    context = await new_context(viewport=size)
    await with_longest_delays(context)
    page = await EchoPage.connected(context, desk, await desk.add_user())
    before = await page.places()
    await desk.stop_gateway()

    await page.expect_state("Disconnected")
    assert await page.places() == before
    await page.retry_until("Suspended")
    assert await page.places() == before
