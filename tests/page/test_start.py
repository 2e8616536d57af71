"""The page before a user signs in."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.echo_page import EchoPage
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_page_starts_with_the_settings_of_the_local_run(local_run: LocalRun, context: BrowserContext) -> None:
    page = EchoPage(await context.new_page(), local_run)

    async with page.tab.expect_response("**/config.json") as response:
        await page.tab.goto(local_run.url)

    assert await (await response.value).json() == local_run.settings
    await expect(page.get_button("Sign in")).to_be_visible()
