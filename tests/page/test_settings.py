"""The page's settings: an error names each wrong setting, and the page then calls nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Request, expect

from tests.page.browser import Console
from tests.page.echo_page import EchoPage
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")

MISSING = object()
ENDPOINT_AT_AWS = "wss://abcdef123.execute-api.us-east-1.amazonaws.com/prod"


async def open_with_config(context: BrowserContext, local_run: LocalRun, **answer: Any) -> tuple[EchoPage, list[str]]:
    """Open the page with another answer for config.json; return the page and the list of its calls to other hosts."""
    await context.route("**/config.json", lambda route: route.fulfill(**answer))
    page = EchoPage(await context.new_page(), local_run)
    calls: list[str] = []

    def record_call(request: Request) -> None:
        if not request.url.startswith(local_run.url):
            calls.append(request.url)

    page.tab.on("request", record_call)
    page.tab.on("websocket", lambda socket: calls.append(socket.url))
    await page.tab.goto(local_run.url)
    return page, calls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("userPoolId", MISSING),
        ("userPoolId", "pool"),
        ("appClientId", ""),
        ("webSocketEndpoint", MISSING),
        ("webSocketEndpoint", "http://127.0.0.1/prod"),
        ("credential", "cookie"),
        ("selfSignUp", "yes"),
        ("passwordPolicy", MISSING),
        ("allowedOrigins", "*"),
        ("idleLimitSeconds", 0),
        # With these the local page would call AWS.
        ("webSocketEndpoint", "ws://192.0.2.1/prod"),
        ("userPoolEndpoint", MISSING),
        ("userPoolEndpoint", "https://cognito-idp.us-east-1.amazonaws.com/"),
    ],
)
async def test_wrong_setting_is_shown_with_its_value_and_nothing_is_called(
    local_run: LocalRun, context: BrowserContext, name: str, value: object
) -> None:
    settings = {**local_run.settings, name: value}
    if value is MISSING:
        del settings[name]

    page, calls = await open_with_config(context, local_run, body=json.dumps(settings))

    problem = page.tab.get_by_role("alert").get_by_role("listitem")
    await expect(problem).to_have_text(re.compile(f"^{name} "))
    await expect(problem).to_contain_text("missing" if value is MISSING else json.dumps(value).strip('"'))
    assert calls == []


async def test_page_of_a_deployment_refuses_a_local_user_pool(local_run: LocalRun, context: BrowserContext) -> None:
    deployed = local_run.settings | {"webSocketEndpoint": ENDPOINT_AT_AWS, "authorizerLogGroup": "authorizer"}

    page, calls = await open_with_config(context, local_run, body=json.dumps(deployed))

    problem = page.tab.get_by_role("alert").get_by_role("listitem")
    await expect(problem).to_contain_text("userPoolEndpoint")
    await expect(problem).to_contain_text("wss://")
    assert calls == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"status": 404, "body": "404: Not Found"}, "There is no config.json next to this page (HTTP 404)."),
        ({"body": "<!doctype html><title>Echo</title>"}, "There is no config.json next to this page (HTTP 200)."),
        ({"body": "{"}, "config.json is not valid JSON."),
        ({"body": "7"}, "config.json"),
    ],
    ids=["none", "a page", "no JSON", "no object"],
)
async def test_unusable_settings_file_shows_an_error_and_nothing_is_called(
    local_run: LocalRun, context: BrowserContext, console: Console, answer: dict[str, Any], problem: str
) -> None:
    console.expected.append(re.compile("Failed to load resource: the server responded with a status of 404"))

    page, calls = await open_with_config(context, local_run, **answer)

    await expect(page.tab.get_by_role("alert")).to_contain_text(problem)
    assert calls == []


async def test_page_starts_after_its_settings_were_corrected(local_run: LocalRun, context: BrowserContext) -> None:
    page, _ = await open_with_config(context, local_run, body="{}")
    await expect(page.tab.get_by_role("alert")).to_contain_text("userPoolId is missing.")
    await page.expect_accessible()
    await context.unroute("**/config.json")

    await page.get_button("Try again").click()

    await expect(page.get_button("Sign in")).to_be_visible()


async def test_page_warns_if_its_origin_is_not_allowed(local_run: LocalRun, context: BrowserContext) -> None:
    settings = local_run.settings | {"allowedOrigins": ["https://app.example.com"]}

    page, _ = await open_with_config(context, local_run, body=json.dumps(settings))

    notice = page.tab.get_by_text("Connections from this page will be refused")
    await expect(notice).to_contain_text(f"{local_run.url} is not among the deployment's allowed origins.")
    await page.expect_accessible()


async def test_page_of_an_allowed_origin_shows_no_warning(local_run: LocalRun, context: BrowserContext) -> None:
    settings = local_run.settings | {"allowedOrigins": ["https://app.example.com", local_run.url]}

    page, _ = await open_with_config(context, local_run, body=json.dumps(settings))

    await expect(page.get_button("Sign in")).to_be_visible()
    await expect(page.tab.get_by_text("will be refused")).to_have_count(0)
