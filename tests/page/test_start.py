"""The page as it is first seen."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.desk import Desk
from tests.page.echo_page import EchoPage

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_page_starts_with_the_settings_of_the_local_run(desk: Desk, context: BrowserContext) -> None:
    page = EchoPage(await context.new_page(), desk)

    async with page.tab.expect_response("**/config.json") as response:
        await page.tab.goto(desk.url)

    assert await (await response.value).json() == desk.settings
    await expect(page.button("Sign in")).to_be_visible()
