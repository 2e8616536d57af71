"""A session's tokens are where Amplify keeps them and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, Request, expect

from local.apigateway.api import Throttle
from local.apigateway.limits import TokenBucket
from tests.fixtures.leaks import Canary, Evidence
from tests.page.browser import Console
from tests.page.desk import Desk
from tests.page.echo_page import EchoPage

pytestmark = pytest.mark.asyncio(loop_scope="package")

REFUSING = TokenBucket(Throttle(rate=0, burst=0))
TOKENS = """Object.entries(localStorage).filter(([name]) => /[.](id|access|refresh)Token$/i.test(name))"""
READ_PAGE = """async () => ({
  DOM: document.documentElement.outerHTML,
  inputs: [...document.querySelectorAll("input")].map(({ value }) => value).join("\\n"),
  address: location.href,
  title: document.title,
  history: JSON.stringify(history.state),
  name: window.name,
  cookies: document.cookie,
  sessionStorage: JSON.stringify(Object.entries(sessionStorage)),
  localStorage: JSON.stringify(
    Object.entries(localStorage).filter(([name]) => !name.startsWith("CognitoIdentityServiceProvider.")),
  ),
  databases: JSON.stringify(await indexedDB.databases()),
  caches: JSON.stringify(await caches.keys()),
})"""


class Witness:
    """Marks each token of a session and collects the evidence of where it has come to."""

    def __init__(self, page: EchoPage) -> None:
        self.page = page
        self.canary = Canary()
        self.tokens: set[str] = set()
        self.evidence: Evidence = {}
        self.requests: list[Request] = []
        page.tab.on("request", self.note)

    def note(self, request: Request) -> None:
        self.requests.append(request)

    async def look(self, moment: str) -> None:
        """Mark the tokens that the session has now, and note all that can be seen of the page."""
        for _, token in await self.page.tab.evaluate(TOKENS):
            if token not in self.tokens:
                self.tokens.add(self.canary.mark(token))
        seen = await self.page.tab.evaluate(READ_PAGE)
        self.evidence |= {f"{place} {moment}": text for place, text in seen.items()}
        self.evidence[f"stored {moment}"] = json.dumps(await self.page.tab.context.cookies())

    def leaks(self, console: Iterator[str]) -> list[str]:
        """Return where tokens were seen, except in the handshakes and in the calls of Cognito."""
        cognito = self.page.desk.settings["userPoolEndpoint"]
        requests = (each for each in self.requests if each.url != cognito)
        texts = (f"{each.url} {each.headers} {each.post_data}" for each in requests)
        return self.canary.hits({**self.evidence, "requests": "\n".join(texts), "console": "\n".join(console)})


async def witness_session(desk: Desk, context: BrowserContext, monkeypatch: pytest.MonkeyPatch) -> Witness:
    """Sign in, talk, be refused, connect with a refreshed token, let the connection be replaced, and sign out."""
    user = await desk.add_user()
    await context.clock.install()
    page = await EchoPage.open(context, desk)
    witness = Witness(page)
    await page.sign_in(user)
    await page.send("hello")
    await page.expect_echo("hello")
    await witness.look("after a message")

    with monkeypatch.context() as patch:
        patch.setattr(desk.gateway, "_new_connections", REFUSING)
        await page.tab.reload()
        await page.retry_until("Suspended")
        await witness.look("after refusals")
    await page.button("Retry now").click()
    await page.expect_state("Connected")
    (before,) = await desk.until_connections(user, 1)
    await witness.look("with a refreshed token")

    handshakes = len(desk.events_of(user, "$connect"))
    await context.clock.fast_forward("59:00")  # so that the token is about to expire
    await desk.until_events(user, "$connect", handshakes + 1)
    await context.clock.fast_forward("02:00")  # so that the old connection is closed
    await desk.until_replaced(user, before)
    await page.send("hello again")
    await page.expect_echo("hello again")
    await witness.look("after the replacement")
    kinds = [kind for kind, _ in await page.tab.evaluate(TOKENS)]
    assert (len(kinds), len(witness.tokens)) == (3, 7), "ID and access token refreshed twice"

    await page.button("Sign out").click()
    await expect(page.password).to_be_visible()
    await witness.look("after the sign-out")
    return witness


async def test_token_in_a_subprotocol_is_nowhere_but_in_the_session_and_the_handshakes(
    restricted_desk: Desk, context: BrowserContext, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = await witness_session(restricted_desk, context, monkeypatch)

    assert witness.leaks(line.text for line in console.lines) == []


async def test_token_in_a_query_string_is_in_no_line_of_the_page_either(
    proxied_desk: Desk, context: BrowserContext, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = await witness_session(proxied_desk, context, monkeypatch)

    assert witness.leaks(line.text for line in console.lines if not line.is_of_the_browser) == []


async def test_session_leaves_nothing_behind_after_a_sign_out(desk: Desk, context: BrowserContext) -> None:
    page = await EchoPage.connected(context, desk, await desk.add_user())
    assert await page.tab.evaluate(TOKENS)

    await page.button("Sign out").click()

    await expect(page.password).to_be_visible()
    assert await page.tab.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    assert await context.cookies() == []
