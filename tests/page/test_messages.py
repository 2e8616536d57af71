"""Messages that a user sends, and what the gateway or a server of the deployment answers."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import BrowserContext, expect

from local.apigateway.api import Throttle
from local.apigateway.limits import TokenBucket
from tests.page.echo_page import EchoPage
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")

KB = 1024
REFUSE_ALL = TokenBucket(Throttle(rate=0, burst=0))


async def test_log_shows_each_echo_with_its_round_trip_time_each_push_and_each_error(
    local_run: LocalRun, context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open_and_connect(context, local_run, user)
    texts = ["hello", '{"action": "keepalive?"}', "<b>ünïcödé</b> 👋", "  spaces  "]

    for text in texts:
        await page.send(text)
        await page.expect_echo(text.strip())
    assert await page.list_echoes() == texts

    await local_run.push(user, '{"order": 4711, "state": "shipped"}')
    push = page.get_entry("push", '{"order": 4711, "state": "shipped"}')
    await expect(push).to_contain_text("Server")
    await expect(push).to_contain_text(re.compile("push$"))

    with monkeypatch.context() as patch:
        patch.setitem(local_run.gateway._route_requests, "$default", REFUSE_ALL)
        await page.send("one too many")
        error = page.get_entry("error", "Too Many Requests")
        await expect(error).to_contain_text(re.compile(r"error of API Gateway, request \S{15}="))

    await expect(page.log).not_to_contain_text("undefined")
    await page.expect_accessible()


async def test_too_large_frame_gets_a_warning_and_is_shown_as_refused(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open_and_connect(context, local_run, user)
    text = "x" * 40 * KB

    await page.message.fill(text)
    await expect(page.message).to_have_accessible_description(re.compile("This message has 40 KB."))
    await page.expect_accessible()
    states = await page.watch_states()
    await page.get_button("Send").click()

    await expect(page.get_sent_message(text[:100])).to_contain_text("refused: larger than the server accepts")
    await page.retry_until("Connected")
    assert any("a message was too large" in state for state in await states())  # shown until the page reconnects
    await page.send("small")
    await page.expect_echo("small")
    assert local_run.get_messages(user) == ["small"]
