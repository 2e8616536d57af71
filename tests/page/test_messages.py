"""Messages: what a user sends, and everything that the gateway and a server of the deployment can answer."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import BrowserContext, expect

from local.apigateway.api import Throttle
from local.apigateway.limits import TokenBucket
from tests.page.desk import Desk, until
from tests.page.echo_page import EchoPage

pytestmark = pytest.mark.asyncio(loop_scope="package")

KB = 1024


async def test_messages_are_echoed_each_with_its_round_trip_time(desk: Desk, context: BrowserContext) -> None:
    page = await EchoPage.connected(context, desk, await desk.add_user())
    texts = ["hello", '{"action": "keepalive?"}', "<b>ünïcödé</b> 👋", "  spaces  "]

    for text in texts:
        await page.send(text)
        await page.expect_echo(text.strip())

    assert await page.echoes() == texts
    await expect(page.log).not_to_contain_text("undefined")
    await page.expect_accessible()


async def test_push_is_shown_as_a_push(desk: Desk, context: BrowserContext) -> None:
    user = await desk.add_user()
    page = await EchoPage.connected(context, desk, user)

    await desk.push(user, '{"order": 4711, "state": "shipped"}')

    entry = page.entry("push", '{"order": 4711, "state": "shipped"}')
    await expect(entry).to_contain_text("Server")
    await expect(entry).to_contain_text(re.compile("push$"))


async def test_message_whose_echo_is_too_large_is_told_as_refused(desk: Desk, context: BrowserContext) -> None:
    page = await EchoPage.connected(context, desk, await desk.add_user())
    await page.send("small")

    await page.send("\x01" * 30 * KB)  # JSON spells each of these characters with six

    await expect(page.entry("error", "This message is larger than the limit.")).to_contain_text(
        "error message_too_large"
    )
    await expect(page.entry("refused", "\x01")).to_contain_text("larger than the server accepts")
    await page.expect_echo("small")
    await page.expect_state("Connected")


async def test_frame_that_is_too_large_is_warned_of_and_told_as_refused(desk: Desk, context: BrowserContext) -> None:
    user = await desk.add_user()
    page = await EchoPage.connected(context, desk, user)
    text = "x" * 40 * KB

    await page.message.fill(text)
    await expect(page.message).to_have_accessible_description(re.compile("This message has 40 KB."))
    await page.expect_accessible()
    await page.button("Send").click()

    await expect(page.sent(text[:100])).to_contain_text("refused: larger than the server accepts")
    await expect(page.status).to_contain_text("a message was too large")
    await page.retry_until("Connected")
    await page.send("small")
    await page.expect_echo("small")
    assert desk.messages_of(user) == ["small"]


async def test_error_of_api_gateway_is_shown_with_its_request_id(
    proxied_desk: Desk, context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = await EchoPage.connected(context, proxied_desk, await proxied_desk.add_user())

    with monkeypatch.context() as patch:
        patch.setitem(proxied_desk.gateway._route_requests, "$default", TokenBucket(Throttle(rate=0, burst=0)))
        await page.send("one too many")
        error = page.entry("error", "Too Many Requests")
        await expect(error).to_contain_text(re.compile(r"error of API Gateway, request \S{15}="))

    await page.expect_accessible()
    await page.send("fine again")
    await page.expect_echo("fine again")


async def test_token_travels_as_a_subprotocol_where_the_deployment_says_so(
    restricted_desk: Desk, context: BrowserContext
) -> None:
    page = await EchoPage.open(context, restricted_desk)
    addresses: list[str] = []
    page.tab.on("websocket", lambda socket: addresses.append(socket.url))

    await page.sign_in(await restricted_desk.add_user())
    await page.expect_state("Connected")
    await page.send("hello")
    await page.expect_echo("hello")

    await until(lambda: addresses != [])
    assert set(addresses) == {restricted_desk.settings["webSocketEndpoint"]}
