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


async def test_keyboard_is_enough_from_sign_up_to_sign_out(local_run: LocalRun, context: BrowserContext) -> None:
    email = make_address()
    page = await EchoPage.open(context, local_run)
    user = Keyboard(page)

    await expect(page.email).to_be_focused()
    await user.press(page.get_button("Sign up"))
    await expect(page.email).to_be_focused()
    await user.type(page.email, email)
    await user.type(page.password, PASSWORD)
    await user.keyboard.press("Enter")
    await expect(page.code).to_be_focused()
    await user.type(page.code, await local_run.wait_for_code(email))
    await user.press(page.get_button("Confirm"))
    await page.expect_state("Connected")
    await expect(page.message).to_be_focused()
    await user.type(page.message, "no mouse")
    await user.keyboard.press("Enter")
    await page.expect_echo("no mouse")
    await expect(page.message).to_be_focused()
    await user.go_to(page.log)  # it scrolls, so the keyboard must reach it
    await user.press(page.get_button("Sign out"))

    await expect(page.email).to_be_focused()


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


async def test_state_and_messages_are_announced_to_screen_readers(local_run: LocalRun, context: BrowserContext) -> None:
    page = await EchoPage.open_and_connect(context, local_run, await local_run.add_user())

    await page.send("hello")

    await expect(page.tab.get_by_role("status").filter(has_text="Connected")).to_be_visible()
    await expect(page.tab.get_by_role("log")).to_contain_text("hello")
    await expect(page.tab.get_by_role("heading", level=1)).to_have_text("WebSocket echo")
