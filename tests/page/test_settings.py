"""The page's settings: an error names each wrong setting, and the page then calls nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Request, expect

from tests.page.echo_page import EchoPage
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def answer_with_settings(context: BrowserContext, settings: dict[str, Any]) -> None:
    """Let the pages of a context read these settings instead of those of the local run."""
    await context.route("**/config.json", lambda route: route.fulfill(body=json.dumps(settings)))


async def test_page_shows_wrong_settings_and_calls_nothing_until_they_are_corrected(
    local_run: LocalRun, context: BrowserContext
) -> None:
    settings = {**local_run.settings}
    del settings["userPoolEndpoint"]  # a local page without this one would call AWS
    await answer_with_settings(context, settings)
    page = EchoPage(await context.new_page(), local_run)
    calls: list[str] = []

    def record_call(request: Request) -> None:
        if not request.url.startswith(local_run.url):
            calls.append(request.url)

    page.tab.on("request", record_call)
    page.tab.on("websocket", lambda socket: calls.append(socket.url))

    await page.tab.goto(local_run.url)
    await expect(page.tab.get_by_role("alert").get_by_role("listitem")).to_contain_text("userPoolEndpoint is missing")
    assert calls == []
    await page.expect_accessible()

    await context.unroute("**/config.json")
    await page.get_button("Try again").click()
    await expect(page.get_button("Sign in")).to_be_visible()


async def test_page_warns_if_its_origin_is_not_allowed(local_run: LocalRun, context: BrowserContext) -> None:
    await answer_with_settings(context, local_run.settings | {"allowedOrigins": ["https://app.example.com"]})

    page = await EchoPage.open(context, local_run)

    notice = page.tab.get_by_text("Connections from this page will be refused")
    await expect(notice).to_contain_text(f"{local_run.url} is not among the deployment's allowed origins.")
    await page.expect_accessible()
