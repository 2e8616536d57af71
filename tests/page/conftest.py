"""The built page in a real Chromium, with the whole local system behind it.

Browser and systems live in one event loop, so a test module says `pytestmark = pytest.mark.asyncio(loop_scope="package")`.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from playwright.async_api import Browser, BrowserContext, async_playwright

from local import mail
from local import system as local_system
from local.mail import Mail
from local.progress import Progress
from local.server import GatewayServer
from local.system import Options, System, running
from local.template import synthesize
from tests.conftest import ROOT, unavailable

PATIENCE_SECONDS = 30.0  # bounds a wait that ends at once where all is well
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--headless",
    "--no-first-run",
    "--no-sandbox",
    # No name but this machine's resolves, so that no test reaches further.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE [::1]",
]


# The browser


@pytest.fixture(scope="package")
def chromium(pytestconfig: pytest.Config) -> str:
    """The path of Chromium: `CHROMIUM` in the environment, or the first that is installed."""
    named = os.environ.get("CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else PROGRAMS)), None)
    if found is None:
        missing = f"no Chromium at {named}, where CHROMIUM says" if named else f"no Chromium ({', '.join(PROGRAMS)})"
        unavailable(pytestconfig, f"{missing}: install one, e.g. Debian's chromium", option="--require-browser")
    return found


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        await launched.close()


NewContext = Callable[..., Awaitable[BrowserContext]]


@pytest_asyncio.fixture(loop_scope="package")
async def new_context(browser: Browser) -> AsyncIterator[NewContext]:
    """Make browser contexts, each like the browser of another person, with options of Playwright's `new_context`."""
    made: list[BrowserContext] = []

    async def new(**options: Any) -> BrowserContext:
        context = await browser.new_context(**options)
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        made.append(context)
        return context

    yield new
    for context in made:
        await context.close()


@pytest_asyncio.fixture(loop_scope="package")
async def context(new_context: NewContext) -> BrowserContext:
    """A fresh browser context; its pages are the tabs of one person."""
    return await new_context()


# The system


@dataclass
class Desk:
    """A running system with its page, and its gateway, which a test may stop and start again."""

    system: System
    gateway: GatewayServer

    @property
    def url(self) -> str:
        """The page's address."""
        assert self.system.page_url
        return self.system.page_url

    async def stop_gateway(self) -> None:
        """Close all connections with 1001 and stop listening; the user pool and the functions run on."""
        await self.gateway.stop()

    async def start_gateway(self) -> None:
        """Listen again on the same port."""
        old = self.gateway
        self.gateway = GatewayServer(old.api, old.invoke, limits=old.limits, iam=old.iam, in_turn=old.in_turn)
        await self.gateway.start(self.system.port)

    async def mails_to(self, email: str, count: int = 1) -> list[Mail]:
        """Wait until so many mails to this address were sent; return them all, oldest first."""
        async with asyncio.timeout(PATIENCE_SECONDS), ClientSession() as session:
            while True:
                mails = [each for each in await mail.sent(session, self.system.aws.url) if each.to == email]
                if len(mails) >= count:
                    return mails
                await asyncio.sleep(0.05)

    async def code_mailed_to(self, email: str, count: int = 1) -> str:
        """Return the code in the newest mail to this address, once there are so many."""
        newest = (await self.mails_to(email, count))[-1]
        (code,) = re.findall(r"\b\d{6}\b", newest.text)
        return str(code)


Synthesize = Callable[[Mapping[str, str]], Path]
StartDesk = Callable[..., Awaitable[Desk]]


@pytest.fixture(scope="package")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Synthesize:
    """Synthesize our stack with a context; each context once."""
    templates: dict[tuple[tuple[str, str], ...], Path] = {}

    def template(context: Mapping[str, str]) -> Path:
        choices = tuple(sorted(context.items()))
        if choices not in templates:
            templates[choices] = synthesize(ROOT, tmp_path_factory.mktemp("cdk.out"), dict(context))
        return templates[choices]

    return template


@pytest.fixture(scope="package")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the systems' logs out of the way of a `make up` beside the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_system, "LOGS", tmp_path_factory.mktemp("logs"))
        yield


@asynccontextmanager
async def desk_with(template: Path, **options: Any) -> AsyncIterator[Desk]:
    gateways: list[GatewayServer] = []

    def recorded(*arguments: Any, **settings: Any) -> GatewayServer:
        gateways.append(GatewayServer(*arguments, **settings))
        return gateways[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_system, "GatewayServer", recorded)
        async with AsyncExitStack() as stack:
            chosen = Options(template=template, page_port=0, functions="process", **options)
            system = await stack.enter_async_context(running(chosen, Progress(io.StringIO())))
            desk = Desk(system, gateways[0])
            yield desk
            if desk.gateway is not gateways[0]:
                await desk.stop_gateway()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def desk(chromium: str, own_state: None, synthesized: Synthesize) -> AsyncIterator[Desk]:
    """The system as `make up` starts it; all tests that change nothing but their own users share it."""
    template = await asyncio.to_thread(synthesized, {})
    async with desk_with(template) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="package")
async def start_desk(chromium: str, own_state: None, synthesized: Synthesize) -> AsyncIterator[StartDesk]:
    """Start a system of the test's own: with a context of the stack, and with options such as `clock_speed`."""
    async with AsyncExitStack() as stack:

        async def start(context: Mapping[str, str] = {}, **options: Any) -> Desk:
            template = await asyncio.to_thread(synthesized, context)
            return await stack.enter_async_context(desk_with(template, **options))

        yield start
