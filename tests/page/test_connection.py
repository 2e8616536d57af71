"""What a user sees and the gateway receives when the gateway restarts or the network fails."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, ViewportSize, expect

from tests.page.browser import NewContext
from tests.page.echo_page import NARROW, WIDE, EchoPage, use_longest_delays
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")

REFRESH = "AWSCognitoIdentityProviderService.GetTokensFromRefreshToken"
NOT_CONFIRMED = "not confirmed"
NO_ANSWER_MS = 10_000  # the page's timeout for an answer


@pytest_asyncio.fixture(loop_scope="package")
async def local_run(proxied_run: LocalRun) -> AsyncIterator[LocalRun]:
    """Restore gateway and network after each test."""
    yield proxied_run
    proxied_run.network.resume()
    if not proxied_run.gateway_is_listening:
        await proxied_run.start_gateway()


# The gateway is stopped


async def test_messages_typed_while_the_gateway_restarts_are_sent_once_and_in_order(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open_and_connect(context, local_run, user)
    await page.send("before")
    await page.expect_echo("before")
    texts = ["first", "second", "third"]

    await local_run.stop_gateway()
    await page.expect_state("Disconnected")
    for text in texts:
        await page.send(text)
        await expect(page.get_sent_message(text)).to_contain_text("queued")
    await local_run.start_gateway()

    await page.expect_state("Connected")
    for text in texts:
        await page.expect_echo(text)
    assert await page.list_echoes() == ["before", *texts]
    assert local_run.get_messages(user) == ["before", *texts]
    assert len(local_run.get_events(user, "$connect")) == 2, "one connection before the restart and one after"
    assert len(await local_run.list_connections(user)) == 1


async def test_long_outage_shows_where_to_look_and_retry_now_reconnects(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    await use_longest_delays(context)
    page = await EchoPage.open_and_connect(context, local_run, user)

    await local_run.stop_gateway()
    await expect(page.status).to_contain_text("The server closed the connection with code 1001 (Going away).")
    await page.expect_accessible()
    await page.retry_until("Suspended")

    await expect(page.status).to_contain_text("The server refused the connection, or could not be reached.")
    await expect(page.status).to_contain_text("Look at the terminal where make up runs.")
    await expect(page.tab.get_by_text(re.compile(r"Next attempt in \d+ s"))).to_be_visible()
    await page.expect_accessible()
    await page.send("at last")
    await local_run.start_gateway()
    await page.get_button("Retry now").click()  # the next automatic attempt would come after this test's timeout
    await page.expect_state("Connected")
    await page.expect_echo("at last")
    assert len(await local_run.list_connections(user)) == 1


async def test_suspended_page_connects_at_once_when_the_browser_comes_online(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    await use_longest_delays(context)
    page = await EchoPage.open_and_connect(context, local_run, user)
    await local_run.stop_gateway()
    await page.retry_until("Suspended")
    await local_run.start_gateway()

    await context.set_offline(True)
    await context.set_offline(False)

    await page.expect_state("Connected")


async def test_refused_page_refreshes_its_token_once_and_connects_when_a_slot_is_free(
    restricted_run: LocalRun, context: BrowserContext
) -> None:
    user = await restricted_run.add_user()
    await use_longest_delays(context)
    first = await EchoPage.open_and_connect(context, restricted_run, user)
    refused = EchoPage(await context.new_page(), restricted_run)
    calls: list[str] = []
    refused.tab.on("request", lambda request: calls.append(request.headers.get("x-amz-target", "")))

    await refused.tab.goto(restricted_run.url)
    await refused.retry_until("Suspended")

    assert [call for call in calls if "Token" in call] == [REFRESH]
    await first.tab.close()
    await restricted_run.wait_for_connections(user, 0)
    await refused.get_button("Retry now").click()
    await refused.expect_state("Connected")


# The network delivers nothing


async def test_page_waits_for_the_answer_to_its_handshake(local_run: LocalRun, context: BrowserContext) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open(context, local_run)
    local_run.network.pause()

    await page.sign_in(user)

    await page.expect_state("Connecting")
    await page.expect_accessible()
    local_run.network.resume()
    await page.expect_state("Connected")


@pytest.mark.parametrize("idle_limit_seconds", [600, 6])
async def test_unanswered_keep_alive_reveals_a_dead_connection(
    local_run: LocalRun, context: BrowserContext, idle_limit_seconds: int
) -> None:
    user = await local_run.add_user()
    settings = json.dumps(local_run.settings | {"idleLimitSeconds": idle_limit_seconds})
    await context.route("**/config.json", lambda route: route.fulfill(body=settings))
    await context.clock.install()
    page = await EchoPage.open_and_connect(context, local_run, user)
    local_run.network.pause()

    await context.clock.fast_forward(int(0.8 * idle_limit_seconds * 1000))  # the page sends a keep-alive
    await context.clock.fast_forward(NO_ANSWER_MS)
    await expect(page.status).to_contain_text("The server did not answer a keep-alive message.")
    local_run.network.resume()

    await page.expect_state("Connected")
    await page.send("back")
    await page.expect_echo("back")
    await local_run.wait_for_connections(user, 1)


async def test_message_into_a_dead_connection_is_shown_as_not_confirmed_and_not_sent_again(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    await context.clock.install()
    page = await EchoPage.open_and_connect(context, local_run, user)
    local_run.network.pause()

    await page.send("into the void")
    await context.clock.fast_forward(NO_ANSWER_MS)  # the page sends a keep-alive
    await context.clock.fast_forward(NO_ANSWER_MS)
    await expect(page.get_sent_message("into the void")).to_contain_text(NOT_CONFIRMED)
    await page.send("queued")
    local_run.network.resume()

    await page.expect_echo("queued")
    await page.expect_accessible()
    await expect(page.get_sent_message("into the void")).to_contain_text(NOT_CONFIRMED)
    await local_run.wait_for_connections(user, 1)
    # TCP delivered the first message after the outage. A second copy would mean that the page sent it again.
    assert sorted(local_run.get_messages(user)) == ["into the void", "queued"]


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
async def test_layout_does_not_move_when_the_connection_is_lost(
    local_run: LocalRun, new_context: NewContext, size: ViewportSize
) -> None:
    context = await new_context(viewport=size)
    await use_longest_delays(context)
    page = await EchoPage.open_and_connect(context, local_run, await local_run.add_user())
    before = await page.measure_layout()
    await local_run.stop_gateway()

    await page.expect_state("Disconnected")
    assert await page.measure_layout() == before
    await page.retry_until("Suspended")
    assert await page.measure_layout() == before
