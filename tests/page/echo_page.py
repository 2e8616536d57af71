"""The page in one tab, by the names that people read and hear."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Literal

from playwright.async_api import BrowserContext, FloatRect, Locator, Page, ViewportSize, expect
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from tests.fixtures import ROOT
from tests.page.desk import Desk, User

NARROW, WIDE = ViewportSize(width=360, height=740), ViewportSize(width=1280, height=800)
COLOURS: tuple[Literal["light", "dark"], ...] = ("light", "dark")
ECHO = re.compile(r"echo after \d+ ms")


class EchoPage:
    """A tab with the page of a desk."""

    def __init__(self, tab: Page, desk: Desk) -> None:
        self.tab = tab
        self.desk = desk
        self.email = tab.get_by_label("Email", exact=True)
        self.password = tab.get_by_label("Password", exact=True)
        self.new_password = tab.get_by_label("New password", exact=True)
        self.code = tab.get_by_label("Confirmation code", exact=True)
        self.message = tab.get_by_label("Message", exact=True)
        self.status = tab.get_by_role("region", name="Connection").get_by_role("status")
        self.log = tab.get_by_role("log")

    @classmethod
    async def open(cls, context: BrowserContext, desk: Desk) -> EchoPage:
        page = cls(await context.new_page(), desk)
        await page.tab.goto(desk.url)
        return page

    @classmethod
    async def connected(cls, context: BrowserContext, desk: Desk, user: User) -> EchoPage:
        """Open the page, sign in and wait until it is connected."""
        page = await cls.open(context, desk)
        await page.sign_in(user)
        await page.expect_state("Connected")
        return page

    # What a user does

    def button(self, name: str) -> Locator:
        return self.tab.get_by_role("button", name=name, exact=True)

    async def submit(self, button: str, fields: dict[Locator, str]) -> None:
        for field, value in fields.items():
            await field.fill(value)
        await self.button(button).click()

    async def sign_in(self, user: User) -> None:
        await self.submit("Sign in", {self.email: user.email, self.password: user.password})

    async def send(self, text: str) -> None:
        await self.submit("Send", {self.message: text})

    async def retry_until(self, state: str) -> None:
        """Click "Retry now" whenever it can be clicked, until the state is shown."""
        shown = self.status.get_by_text(state, exact=True)
        button = self.tab.locator("button:not([aria-disabled=true])", has_text="Retry now")
        while not await shown.is_visible():
            await expect(shown.or_(button).first).to_be_visible()
            if await button.is_visible() and not await shown.is_visible():
                with suppress(PlaywrightTimeoutError):  # the page was faster
                    await button.click(timeout=1000)

    # What a user sees

    def entry(self, kind: str, text: str) -> Locator:
        """An entry of the log, whose kind is "echo", "push", "error" or what became of a message that was sent."""
        return self.log.locator(f"[data-kind={kind}]", has_text=text)

    def echo(self, text: str) -> Locator:
        return self.entry("echo", text)

    def sent(self, text: str) -> Locator:
        """Return the entry of a message that was sent, in any state."""
        return self.log.locator("[data-kind]:not([data-kind=echo])", has_text=text)

    async def echoes(self) -> list[str]:
        return await self.log.locator("[data-kind=echo] .text").all_inner_texts()

    async def places(self) -> list[FloatRect | None]:
        """Return where the parts of the page are that a user reads or clicks while the connection changes."""
        return [await each.bounding_box() for each in (self.log, self.message, self.button("Send"))]

    async def expect_state(self, state: str) -> None:
        await expect(self.status.get_by_text(state, exact=True)).to_be_visible()

    async def expect_echo(self, text: str) -> None:
        await expect(self.echo(text)).to_contain_text(ECHO)

    async def expect_error(self, field: Locator, text: str) -> None:
        """Expect an error that belongs to the field, for eyes and for screen readers, and the focus there."""
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_accessible_description(re.compile(re.escape(text)))
        await expect(self.tab.get_by_text(text)).to_be_visible()
        await expect(field).to_be_focused()

    async def watch_states(self) -> Callable[[], Awaitable[list[str]]]:
        """Watch the connection's state from now on; return a function that returns its changes so far."""
        await self.status.evaluate(WATCH_CHANGES)
        return lambda: self.tab.evaluate("window.changes")

    async def expect_accessible(self) -> None:
        """Expect no violation that axe-core knows and nothing to scroll sideways, in all colours and widths."""
        await self.tab.evaluate(axe())
        found: list[str] = []
        for size in (NARROW, WIDE):
            await self.tab.set_viewport_size(size)
            for colours in COLOURS:
                await self.tab.emulate_media(color_scheme=colours)
                violations = await self.tab.evaluate(FIND_VIOLATIONS)
                found += [f"{size['width']} px, {colours}: {violation}" for violation in violations]
        assert not found, "\n".join(found)


async def with_longest_delays(context: BrowserContext) -> None:
    """Take the jitter out of the delays of all pages to come: each is as long as it can be."""
    await context.add_init_script("Math.random = () => 0.999")


@cache
def axe() -> str:
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
