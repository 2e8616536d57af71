"""The page as it is first seen."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, ConsoleMessage

from tests.page.conftest import Desk

pytestmark = pytest.mark.asyncio(loop_scope="package")

EXPECTED = "You are using a custom Amazon"  # Amplify's remark on a user pool that is not at AWS


async def test_page_starts_with_the_settings_of_the_local_run(desk: Desk, context: BrowserContext) -> None:
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and EXPECTED not in message.text:
            complaints.append(message.text)

    page = await context.new_page()
    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))

    async with page.expect_response("**/config.json") as response:
        await page.goto(desk.url)

    assert await (await response.value).json() == desk.system.page_settings
    await page.get_by_role("button", name="Sign in").first.wait_for()
    assert complaints == []
