"""A session over a reload, in several tabs, and when Cognito ends it."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.desk import Desk
from tests.page.echo_page import EchoPage

pytestmark = pytest.mark.asyncio(loop_scope="package")

NOTE_PASSWORD_FIELDS = """new MutationObserver(() => {
  window.hasShownPassword ||= document.querySelector("[type=password]") !== null;
}).observe(document, { childList: true, subtree: true })"""


async def test_reload_keeps_the_session_and_connects_without_a_sign_in_form(
    desk: Desk, context: BrowserContext
) -> None:
    user = await desk.add_user()
    page = await EchoPage.connected(context, desk, user)
    await context.add_init_script(NOTE_PASSWORD_FIELDS)
    (before,) = await desk.connections_of(user)

    await page.tab.reload()

    await page.expect_state("Connected")
    await page.send("still me")
    await page.expect_echo("still me")
    assert not await page.tab.evaluate("window.hasShownPassword")
    assert await desk.until_connections(user, 1) != [before]


async def test_sign_out_in_one_tab_ends_the_other_one_too(desk: Desk, context: BrowserContext) -> None:
    user = await desk.add_user()
    page = await EchoPage.connected(context, desk, user)
    other = await EchoPage.open(context, desk)
    await other.expect_state("Connected")
    assert len(await desk.connections_of(user)) == 2

    await page.button("Sign out").click()

    await expect(page.password).to_be_visible()
    await expect(other.password).to_be_visible()
    await expect(other.tab.get_by_text("the session ended in another tab")).to_be_visible()
    await desk.until_connections(user, 0)
    await other.expect_accessible()


async def test_sign_in_in_one_tab_connects_the_other_one_too(desk: Desk, context: BrowserContext) -> None:
    user = await desk.add_user()
    other = await EchoPage.open(context, desk)

    await EchoPage.connected(context, desk, user)

    await other.expect_state("Connected")
    await desk.until_connections(user, 2)


@pytest.mark.parametrize("operation", ["admin_disable_user", "admin_user_global_sign_out"])
async def test_session_that_an_administrator_ended_ends_at_the_next_refresh(
    proxied_desk: Desk, context: BrowserContext, operation: str
) -> None:
    desk = proxied_desk
    user = await desk.add_user()
    async with desk.tokens_that_live(20):  # each connection needs a new one then
        page = await EchoPage.connected(context, desk, user)
        await desk.administer(operation, user.email)

        await desk.network.cut()

        await page.retry_until("Failed")
        await expect(page.status).to_contain_text("Your session has ended. Sign in again to connect.")
    await desk.until_connections(user, 0)
    await page.expect_accessible()
    await page.send("hello?")
    await expect(page.tab.get_by_text("Not sent: there is no session. Sign in first.")).to_be_visible()
    await page.button("Sign in").click()
    await expect(page.email).to_have_value(user.email)
