"""The built page in a real Chromium, with the whole local system behind it.

Browser and systems live in one event loop, so a test module says `pytestmark = pytest.mark.asyncio(loop_scope="package")`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, async_playwright, expect

from local import paths
from local.apigateway.limits import Limits
from local.cloudformation.synthesis import synthesize
from tests.fixtures import ROOT
from tests.fixtures.engine import unavailable
from tests.page.browser import Console, NewContext, Synthesize
from tests.page.desk import PATIENCE_SECONDS, Desk, desk_with

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
expect.set_options(timeout=PATIENCE_SECONDS * 1000)


# The browser


@pytest.fixture(autouse=True)
def console() -> Iterator[Console]:
    """Fail every test during which a page of ours writes an error or a warning to the console."""
    console = Console()
    yield console
    assert console.complaints() == []


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


@pytest_asyncio.fixture(loop_scope="package")
async def new_context(browser: Browser, console: Console) -> AsyncIterator[NewContext]:
    """Make browser contexts, each like the browser of another person, with options of Playwright's `new_context`."""
    made: list[BrowserContext] = []

    async def new(**options: Any) -> BrowserContext:
        # Without motion axe-core never sees a colour that is on its way to another.
        context = await browser.new_context(**{"reduced_motion": "reduce", **options})
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        console.listen(context)
        made.append(context)
        return context

    yield new
    for context in made:
        await context.close()


@pytest_asyncio.fixture(loop_scope="package")
async def context(new_context: NewContext) -> BrowserContext:
    """A fresh browser context; its pages are the tabs of one person."""
    return await new_context()


# The systems


StartDesk = Callable[..., Awaitable[Desk]]


@pytest.fixture(scope="package")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Synthesize:
    """Synthesize our stack with a context; each context once."""
    templates: dict[tuple[tuple[str, str], ...], Path] = {}

    def template(context: Mapping[str, str]) -> Path:
        choices = tuple(sorted(context.items()))
        if choices not in templates:
            open_sign_up = {"selfSignUp": "true"} | dict(context)  # as `make up` has it
            templates[choices] = synthesize(ROOT, tmp_path_factory.mktemp("cdk.out"), open_sign_up)
        return templates[choices]

    return template


@pytest.fixture(scope="package")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the systems' logs out of the way of a `make up` beside the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "LOGS", tmp_path_factory.mktemp("logs"))
        yield


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def start_desk(chromium: str, own_state: None, synthesized: Synthesize) -> AsyncIterator[StartDesk]:
    """Start a system with a context of the stack and with options of the local run. It runs until the last test."""
    async with AsyncExitStack() as stack:

        async def start(context: Mapping[str, str] = {}, **options: Any) -> Desk:
            template = await asyncio.to_thread(synthesized, context)
            return await stack.enter_async_context(desk_with(template, **options))

        yield start


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def desk(start_desk: StartDesk) -> Desk:
    """The system as `make up` starts it; all tests that change nothing but their own users share it."""
    return await start_desk()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def proxied_desk(start_desk: StartDesk) -> Desk:
    """A system with a proxy before its gateway. A test may stop the one and the other, and starts them again."""
    return await start_desk(proxied=True, environments=1)


COMPRESSED = Limits(idle_seconds=5, connection_seconds=12)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def compressed_desk(start_desk: StartDesk) -> Desk:
    """A system whose connections end after 12 s, or after 5 s without messages."""
    return await start_desk(environments=1, limits=COMPRESSED)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def restricted_desk(start_desk: StartDesk) -> Desk:
    """A system without sign-up and with one connection for each user, which takes the token as a subprotocol."""
    context = {"selfSignUp": "false", "maxConnectionsPerUser": "1", "credential": "subprotocol"}
    return await start_desk(context, environments=1, limits=COMPRESSED)
