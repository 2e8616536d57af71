"""Messages that a user sends, and what the gateway or a server of the deployment answers."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import BrowserContext, expect

from local.apigateway.api import Throttle
from local.apigateway.limits import TokenBucket
from tests.page.echo_page import EchoPage
from tests.page.local_run import LocalRun, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="package")

KB = 1024


async def test_each_message_is_echoed_with_its_round_trip_time(local_run: LocalRun, context: BrowserContext) -> None:
    page = await EchoPage.open_and_connect(context, local_run, await local_run.add_user())
    texts = ["hello", '{"action": "keepalive?"}', "<b>ünïcödé</b> 👋", "  spaces  "]

    for text in texts:
        await page.send(text)
        await page.expect_echo(text.strip())

    assert await page.list_echoes() == texts
    await expect(page.log).not_to_contain_text("undefined")
    await page.expect_accessible()


async def test_push_is_shown_as_a_push(local_run: LocalRun, context: BrowserContext) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open_and_connect(context, local_run, user)

    await local_run.push(user, '{"order": 4711, "state": "shipped"}')

    entry = page.get_entry("push", '{"order": 4711, "state": "shipped"}')
    await expect(entry).to_contain_text("Server")
    await expect(entry).to_contain_text(re.compile("push$"))


async def test_message_with_too_large_an_echo_is_shown_as_refused(local_run: LocalRun, context: BrowserContext) -> None:
    page = await EchoPage.open_and_connect(context, local_run, await local_run.add_user())
    await page.send("small")

    await page.send("\x01" * 30 * KB)  # JSON escapes each of these characters with six

    await expect(page.get_entry("error", "This message is larger than the limit.")).to_contain_text(
        "error message_too_large"
    )
    await expect(page.get_entry("refused", "\x01")).to_contain_text("larger than the server accepts")
    await page.expect_echo("small")
    await page.expect_state("Connected")


async def test_too_large_frame_gets_a_warning_and_is_shown_as_refused(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open_and_connect(context, local_run, user)
    text = "x" * 40 * KB

    await page.message.fill(text)
    await expect(page.message).to_have_accessible_description(re.compile("This message has 40 KB."))
    await page.expect_accessible()
    await page.get_button("Send").click()

    await expect(page.get_sent_message(text[:100])).to_contain_text("refused: larger than the server accepts")
    await expect(page.status).to_contain_text("a message was too large")
    await page.retry_until("Connected")
    await page.send("small")
    await page.expect_echo("small")
    assert local_run.get_messages(user) == ["small"]


async def test_error_of_api_gateway_is_shown_with_its_request_id(
    proxied_run: LocalRun, context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = await EchoPage.open_and_connect(context, proxied_run, await proxied_run.add_user())

    with monkeypatch.context() as patch:
        patch.setitem(proxied_run.gateway._route_requests, "$default", TokenBucket(Throttle(rate=0, burst=0)))
        await page.send("one too many")
        error = page.get_entry("error", "Too Many Requests")
        await expect(error).to_contain_text(re.compile(r"error of API Gateway, request \S{15}="))

    await page.expect_accessible()
    await page.send("fine again")
    await page.expect_echo("fine again")


async def test_token_is_sent_as_a_subprotocol_if_the_deployment_says_so(
    restricted_run: LocalRun, context: BrowserContext
) -> None:
    page = await EchoPage.open(context, restricted_run)
    addresses: list[str] = []
    page.tab.on("websocket", lambda socket: addresses.append(socket.url))

    await page.sign_in(await restricted_run.add_user())
    await page.expect_state("Connected")
    await page.send("hello")
    await page.expect_echo("hello")

    await wait_until(lambda: addresses != [])
    assert set(addresses) == {restricted_run.settings["webSocketEndpoint"]}
