"""Use the page in one tab by the names that its users see."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Literal

from playwright.async_api import BrowserContext, FloatRect, Locator, Page, ViewportSize, expect
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from tests.fixtures import ROOT
from tests.page.local_run import PATIENCE_SECONDS, LocalRun, User

NARROW, WIDE = ViewportSize(width=360, height=740), ViewportSize(width=1280, height=800)
COLOURS: tuple[Literal["light", "dark"], ...] = ("light", "dark")
ECHO = re.compile(r"echo after \d+ ms")


class EchoPage:
    """A tab with the page of a local run."""

    def __init__(self, tab: Page, local_run: LocalRun) -> None:
        self.tab = tab
        self.local_run = local_run
        self.email = tab.get_by_label("Email", exact=True)
        self.password = tab.get_by_label("Password", exact=True)
        self.new_password = tab.get_by_label("New password", exact=True)
        self.code = tab.get_by_label("Confirmation code", exact=True)
        self.message = tab.get_by_label("Message", exact=True)
        self.status = tab.get_by_role("region", name="Connection").get_by_role("status")
        self.log = tab.get_by_role("log")

    @classmethod
    async def open(cls, context: BrowserContext, local_run: LocalRun) -> EchoPage:
        page = cls(await context.new_page(), local_run)
        await page.tab.goto(local_run.url)
        return page

    @classmethod
    async def open_and_connect(cls, context: BrowserContext, local_run: LocalRun, user: User) -> EchoPage:
        """Open the page, sign in and wait until it is connected."""
        page = await cls.open(context, local_run)
        await page.sign_in(user)
        await page.expect_state("Connected")
        return page

    # What a user does

    def get_button(self, name: str) -> Locator:
        return self.tab.get_by_role("button", name=name, exact=True)

    async def submit(self, button: str, fields: dict[Locator, str]) -> None:
        for field, value in fields.items():
            await field.fill(value)
        await self.get_button(button).click()

    async def sign_in(self, user: User) -> None:
        await self.submit("Sign in", {self.email: user.email, self.password: user.password})

    async def send(self, text: str) -> None:
        await self.submit("Send", {self.message: text})

    async def retry_until(self, state: str) -> None:
        """Click "Retry now" each time that it is enabled, until the state is shown.

        With the longest delays, a page without these clicks becomes suspended only after the timeout.
        """
        shown = self.status.get_by_text(state, exact=True)
        button = self.tab.locator("button:not([aria-disabled=true])", has_text="Retry now")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await shown.is_visible():
                await expect(shown.or_(button).first).to_be_visible()
                if await button.is_visible() and not await shown.is_visible():
                    with suppress(PlaywrightTimeoutError):  # the button was disabled or removed before the click
                        await button.click(timeout=1000)

    # What a user sees

    def get_entry(self, kind: str, text: str) -> Locator:
        """Return an entry of the log. Its kind is "echo", "push", "error", or the state of a sent message."""
        return self.log.locator(f"[data-kind={kind}]", has_text=text)

    def get_echo(self, text: str) -> Locator:
        return self.get_entry("echo", text)

    def get_sent_message(self, text: str) -> Locator:
        """Return the log's entry of a message that the user has sent, in any state."""
        return self.log.locator("[data-kind]:not([data-kind=echo])", has_text=text)

    async def list_echoes(self) -> list[str]:
        return await self.log.locator("[data-kind=echo] .text").all_inner_texts()

    async def measure_layouts(self) -> list[FloatRect | None]:
        """Return the boxes of what a user reads or clicks while the connection changes, in all widths."""
        boxes: list[FloatRect | None] = []
        for size in (NARROW, WIDE):
            await self.tab.set_viewport_size(size)
            boxes += [await each.bounding_box() for each in (self.log, self.message, self.get_button("Send"))]
        return boxes

    async def expect_state(self, state: str) -> None:
        await expect(self.status.get_by_text(state, exact=True)).to_be_visible()

    async def expect_echo(self, text: str) -> None:
        await expect(self.get_echo(text)).to_contain_text(ECHO)

    async def expect_error(self, field: Locator, text: str) -> None:
        """Expect a visible error that is also the field's accessible description, and the focus on the field."""
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_accessible_description(re.compile(re.escape(text)))
        await expect(self.tab.get_by_text(text)).to_be_visible()
        await expect(field).to_be_focused()

    async def watch_states(self) -> Callable[[], Awaitable[list[str]]]:
        """Watch the connection's state from now on; return a function that returns its changes so far."""
        await self.status.evaluate(WATCH_CHANGES)
        return lambda: self.tab.evaluate("window.changes")

    async def expect_accessible(self) -> None:
        """Expect no violation of axe-core's rules and no horizontal scrolling, in all colour schemes and widths."""
        await self.tab.evaluate(read_axe())
        found: list[str] = []
        for size in (NARROW, WIDE):
            await self.tab.set_viewport_size(size)
            for colours in COLOURS:
                await self.tab.emulate_media(color_scheme=colours)
                violations = await self.tab.evaluate(FIND_VIOLATIONS)
                found += [f"{size['width']} px, {colours}: {violation}" for violation in violations]
        assert not found, "\n".join(found)


async def use_longest_delays(context: BrowserContext) -> None:
    """Make each random delay of the pages opened later as long as possible."""
    await context.add_init_script("Math.random = () => 0.999")


@cache
def read_axe() -> str:
    return (ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js").read_text()


WATCH_CHANGES = """status => {
  window.changes = [];
  const words = () => status.innerText.split(/\\s+/).join(" ");
  new MutationObserver(() => window.changes.push(words()))
    .observe(status, { characterData: true, childList: true, subtree: true });
}"""
FIND_VIOLATIONS = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  const page = document.documentElement;
  return [
    ...violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`)),
    ...(page.scrollWidth > page.clientWidth ? [`${page.scrollWidth - page.clientWidth} px too wide`] : []),
  ];
}"""
