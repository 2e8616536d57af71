"""A session's tokens are only where Amplify stores them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, Request, expect

from local.apigateway.api import Throttle
from local.apigateway.limits import TokenBucket
from tests.fixtures.leaks import Canary, Evidence
from tests.page.browser import Console
from tests.page.echo_page import EchoPage
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")

REFUSE_ALL = TokenBucket(Throttle(rate=0, burst=0))
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


class LeakDetector:
    """Marks each token of a session and collects everything that the page shows, stores or requests."""

    def __init__(self, page: EchoPage) -> None:
        self.page = page
        self.canary = Canary()
        self.tokens: set[str] = set()
        self.evidence: Evidence = {}
        self.requests: list[Request] = []
        page.tab.on("request", self._add_request)

    def _add_request(self, request: Request) -> None:
        self.requests.append(request)

    async def record(self, moment: str) -> None:
        """Mark the tokens that the session has now; collect what the page shows and stores."""
        for _, token in await self.page.tab.evaluate(TOKENS):
            if token not in self.tokens:
                self.tokens.add(self.canary.mark(token))
        seen = await self.page.tab.evaluate(READ_PAGE)
        self.evidence |= {f"{place} {moment}": text for place, text in seen.items()}
        self.evidence[f"stored {moment}"] = json.dumps(await self.page.tab.context.cookies())

    def find_leaks(self, console: Iterator[str]) -> list[str]:
        """Return the places where a token was found, except handshakes and calls of Cognito."""
        cognito = self.page.local_run.settings["userPoolEndpoint"]
        requests = (each for each in self.requests if each.url != cognito)
        texts = (f"{each.url} {each.headers} {each.post_data}" for each in requests)
        return self.canary.find({**self.evidence, "requests": "\n".join(texts), "console": "\n".join(console)})


async def run_session(local_run: LocalRun, context: BrowserContext, monkeypatch: pytest.MonkeyPatch) -> LeakDetector:
    """Run a session with each event that moves a token: refusals, refreshed tokens, a replacement, a sign-out."""
    user = await local_run.add_user()
    await context.clock.install()
    page = await EchoPage.open(context, local_run)
    detector = LeakDetector(page)
    await page.sign_in(user)
    await page.send("hello")
    await page.expect_echo("hello")
    await detector.record("after a message")

    with monkeypatch.context() as patch:
        patch.setattr(local_run.gateway, "_new_connections", REFUSE_ALL)
        await page.tab.reload()
        await page.retry_until("Suspended")
        await detector.record("after refusals")
    await page.get_button("Retry now").click()
    await page.expect_state("Connected")
    (before,) = await local_run.wait_for_connections(user, 1)
    await detector.record("with a refreshed token")

    handshakes = len(local_run.get_events(user, "$connect"))
    await context.clock.fast_forward("59:00")  # the token is about to expire
    await local_run.wait_for_events(user, "$connect", handshakes + 1)
    await context.clock.fast_forward("02:00")  # the page closes the old connection
    await local_run.wait_until_replaced(user, before)
    await page.send("hello again")
    await page.expect_echo("hello again")
    await detector.record("after the replacement")
    kinds = [kind for kind, _ in await page.tab.evaluate(TOKENS)]
    assert (len(kinds), len(detector.tokens)) == (3, 7), "ID and access token refreshed twice"

    await page.get_button("Sign out").click()
    await expect(page.password).to_be_visible()
    await detector.record("after the sign-out")
    return detector


async def test_token_in_a_subprotocol_is_only_in_the_session_and_the_handshakes(
    local_run: LocalRun, context: BrowserContext, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = await run_session(local_run, context, monkeypatch)

    assert detector.find_leaks(line.text for line in console.lines) == []


async def test_token_in_a_query_string_is_logged_by_the_browser_only(
    proxied_run: LocalRun, context: BrowserContext, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = await run_session(proxied_run, context, monkeypatch)

    assert detector.find_leaks(line.text for line in console.lines if not line.is_from_browser) == []
