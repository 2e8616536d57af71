"""The page used with a keyboard or a screen reader."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, Locator, expect

from tests.page.echo_page import EchoPage, use_longest_delays
from tests.page.local_run import PASSWORD, LocalRun, make_address

pytestmark = pytest.mark.asyncio(loop_scope="package")

MAX_TAB_STOPS = 12  # more than any form of the page has


class Keyboard:
    """Uses a page with the Tab key, the Enter key and letters only."""

    def __init__(self, page: EchoPage) -> None:
        self.keyboard = page.tab.keyboard

    async def go_to(self, target: Locator) -> None:
        await expect(target).to_be_visible()
        for _ in range(MAX_TAB_STOPS):
            if await target.evaluate("element => element === document.activeElement"):
                return
            await self.keyboard.press("Tab")
        await expect(target).to_be_focused()

    async def press(self, button: Locator) -> None:
        await self.go_to(button)
        await self.keyboard.press("Enter")

    async def type(self, field: Locator, text: str) -> None:
        await self.go_to(field)
        await self.keyboard.type(text)


async def test_keyboard_is_enough_from_sign_up_to_sign_out_and_each_step_is_accessible(
    local_run: LocalRun, context: BrowserContext
) -> None:
    email = make_address()
    page = await EchoPage.open(context, local_run)
    keys = Keyboard(page)

    await expect(page.email).to_be_focused()
    await page.expect_accessible()
    await keys.press(page.get_button("Sign up"))
    await expect(page.email).to_be_focused()
    await page.expect_accessible()
    await keys.type(page.email, email)
    await keys.type(page.password, PASSWORD)
    await keys.keyboard.press("Enter")
    await expect(page.code).to_be_focused()
    await page.expect_accessible()
    await keys.type(page.code, await local_run.wait_for_code(email))
    await keys.press(page.get_button("Confirm"))

    await page.expect_state("Connected")
    await expect(page.tab.get_by_text(f"Signed in as {email}")).to_be_visible()
    await expect(page.message).to_be_focused()
    await page.expect_accessible()
    user = await local_run.get_user(email)
    assert len(await local_run.list_connections(user)) == 1
    await keys.type(page.message, "no mouse")
    await keys.keyboard.press("Enter")
    await page.expect_echo("no mouse")
    await expect(page.message).to_be_focused()
    await keys.go_to(page.log)  # it scrolls, so the keyboard must reach it

    await keys.press(page.get_button("Sign out"))
    await expect(page.email).to_be_focused()
    await local_run.wait_for_connections(user, 0)


async def test_focus_stays_at_retry_now_until_the_page_is_connected_again(
    proxied_run: LocalRun, context: BrowserContext
) -> None:
    await use_longest_delays(context)
    page = await EchoPage.open_and_connect(context, proxied_run, await proxied_run.add_user())
    user, retry = Keyboard(page), page.get_button("Retry now")
    await proxied_run.stop_gateway()

    await user.press(retry)
    await expect(page.status).to_contain_text("The server refused the connection, or could not be reached.")
    await expect(retry).to_be_focused()
    await proxied_run.start_gateway()
    await user.press(retry)

    await page.expect_state("Connected")
    await expect(page.message).to_be_focused()
