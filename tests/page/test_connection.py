"""What a user sees and the gateway receives when the gateway restarts or the network fails."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.page.echo_page import EchoPage, use_longest_delays
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")

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


async def test_long_outage_is_explained_moves_nothing_and_ends_when_the_browser_comes_online(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    await use_longest_delays(context)
    page = await EchoPage.open_and_connect(context, local_run, user)
    layout = await page.measure_layouts()

    await local_run.stop_gateway()
    await expect(page.status).to_contain_text("The server closed the connection with code 1001 (Going away).")
    assert await page.measure_layouts() == layout
    await page.expect_accessible()

    await page.retry_until("Suspended")
    await expect(page.status).to_contain_text("The server refused the connection, or could not be reached.")
    await expect(page.status).to_contain_text("Look at the terminal where make up runs.")
    await expect(page.tab.get_by_text(re.compile(r"Next attempt in \d+ s"))).to_be_visible()
    assert await page.measure_layouts() == layout
    await page.expect_accessible()

    await page.send("at last")
    await local_run.start_gateway()
    await context.set_offline(True)
    await context.set_offline(False)  # the next automatic attempt would come after this test's timeout
    await page.expect_state("Connected")
    await page.expect_echo("at last")
    assert len(await local_run.list_connections(user)) == 1


# The network delivers nothing


async def test_page_on_a_silent_network_waits_for_its_handshake_and_sends_no_message_twice(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    await context.clock.install()
    page = await EchoPage.open(context, local_run)

    local_run.network.pause()
    await page.sign_in(user)
    await page.expect_state("Connecting")
    await page.expect_accessible()
    local_run.network.resume()
    await page.expect_state("Connected")

    local_run.network.pause()
    await page.send("into the void")
    await context.clock.fast_forward(NO_ANSWER_MS)  # the page sends a keep-alive
    await context.clock.fast_forward(NO_ANSWER_MS)
    await expect(page.status).to_contain_text("The server did not answer a keep-alive message.")
    await expect(page.get_sent_message("into the void")).to_contain_text("not confirmed")
    await page.send("queued")
    local_run.network.resume()

    await page.expect_echo("queued")
    await page.expect_accessible()
    await expect(page.get_sent_message("into the void")).to_contain_text("not confirmed")
    await local_run.wait_for_connections(user, 1)
    # TCP delivered the first message after the outage. A second copy would mean that the page sent it again.
    assert sorted(local_run.get_messages(user)) == ["into the void", "queued"]
