"""The page without a mouse and without a picture."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, Locator, expect

from tests.page.desk import PASSWORD, Desk, new_address
from tests.page.echo_page import EchoPage, with_longest_delays

pytestmark = pytest.mark.asyncio(loop_scope="package")

STOPS = 12  # more than any form of the page has


class Keyboard:
    """Somebody who uses nothing but the Tab key, the Enter key, and letters."""

    def __init__(self, page: EchoPage) -> None:
        self.keyboard = page.tab.keyboard

    async def go_to(self, target: Locator) -> None:
        await expect(target).to_be_visible()
        for _ in range(STOPS):
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


async def test_everything_from_sign_up_to_sign_out_can_be_done_with_the_keyboard(
    desk: Desk, context: BrowserContext
) -> None:
    email = new_address()
    page = await EchoPage.open(context, desk)
    user = Keyboard(page)

    await expect(page.email).to_be_focused()
    await user.press(page.button("Sign up"))
    await expect(page.email).to_be_focused()
    await user.type(page.email, email)
    await user.type(page.password, PASSWORD)
    await user.keyboard.press("Enter")
    await expect(page.code).to_be_focused()
    await user.type(page.code, await desk.code_mailed_to(email))
    await user.press(page.button("Confirm"))
    await page.expect_state("Connected")
    await expect(page.message).to_be_focused()
    await user.type(page.message, "no mouse")
    await user.keyboard.press("Enter")
    await page.expect_echo("no mouse")
    await expect(page.message).to_be_focused()
    await user.go_to(page.log)  # which scrolls
    await user.press(page.button("Sign out"))

    await expect(page.email).to_be_focused()


async def test_focus_stays_at_retry_now_until_the_page_is_connected_again(
    proxied_desk: Desk, context: BrowserContext
) -> None:
    await with_longest_delays(context)
    page = await EchoPage.connected(context, proxied_desk, await proxied_desk.add_user())
    user, retry = Keyboard(page), page.button("Retry now")
    await proxied_desk.stop_gateway()

    await user.press(retry)
    await expect(page.status).to_contain_text("The server refused the connection, or could not be reached.")
    await expect(retry).to_be_focused()
    await proxied_desk.start_gateway()
    await user.press(retry)

    await page.expect_state("Connected")
    await expect(page.message).to_be_focused()


async def test_state_and_messages_are_announced(desk: Desk, context: BrowserContext) -> None:
    page = await EchoPage.connected(context, desk, await desk.add_user())

    await page.send("hello")

    await expect(page.tab.get_by_role("status").filter(has_text="Connected")).to_be_visible()
    await expect(page.tab.get_by_role("log")).to_contain_text("hello")
    await expect(page.tab.get_by_role("heading", level=1)).to_have_text("WebSocket echo")
