"""A session after a reload, in several tabs, and after Cognito ends it."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.echo_page import EchoPage
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")

NOTE_PASSWORD_FIELDS = """new MutationObserver(() => {
  window.hasShownPassword ||= document.querySelector("[type=password]") !== null;
}).observe(document, { childList: true, subtree: true })"""


async def test_reload_keeps_the_session_and_connects_without_a_sign_in_form(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open_and_connect(context, local_run, user)
    await context.add_init_script(NOTE_PASSWORD_FIELDS)
    (before,) = await local_run.list_connections(user)

    await page.tab.reload()

    await page.expect_state("Connected")
    await page.send("still me")
    await page.expect_echo("still me")
    assert not await page.tab.evaluate("window.hasShownPassword")
    assert await local_run.wait_for_connections(user, 1) != [before]


async def test_sign_in_and_sign_out_reach_the_other_tab_and_leave_nothing_stored(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    other = await EchoPage.open(context, local_run)

    page = await EchoPage.open_and_connect(context, local_run, user)
    await other.expect_state("Connected")
    await local_run.wait_for_connections(user, 2)
    assert await page.tab.evaluate("localStorage.length") > 0

    await page.get_button("Sign out").click()
    await expect(page.password).to_be_visible()
    await expect(other.password).to_be_visible()
    await expect(other.tab.get_by_text("the session ended in another tab")).to_be_visible()
    await local_run.wait_for_connections(user, 0)
    await other.expect_accessible()
    assert await page.tab.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    assert await context.cookies() == []


async def test_session_that_an_administrator_ended_ends_at_the_next_refresh(
    proxied_run: LocalRun, context: BrowserContext
) -> None:
    local_run = proxied_run
    user = await local_run.add_user()
    async with local_run.set_token_lifetime(20):  # so that each connection needs a new token
        page = await EchoPage.open_and_connect(context, local_run, user)
        await local_run.administer("admin_user_global_sign_out", user.email)

        await local_run.network.abort_connections()

        await page.retry_until("Failed")
        await expect(page.status).to_contain_text("Your session has ended. Sign in again to connect.")
    await local_run.wait_for_connections(user, 0)
    await page.expect_accessible()
    await page.send("hello?")
    await expect(page.tab.get_by_text("Not sent: there is no session. Sign in first.")).to_be_visible()
    await page.get_button("Sign in").click()
    await expect(page.email).to_have_value(user.email)
