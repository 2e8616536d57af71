"""Fixtures that open the built page in Chromium, with a whole local system behind it.

Browser and systems share one event loop, so each test module sets `pytestmark = pytest.mark.asyncio(loop_scope="package")`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from tests.fixtures.engine import skip_or_fail
from tests.page.browser import Console
from tests.page.local_run import PATIENCE_SECONDS, LocalRun, start_local_run

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
    # Only names of this machine resolve, so that no test reaches beyond it.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE [::1]",
]
expect.set_options(timeout=PATIENCE_SECONDS * 1000)


# The browser


@pytest.fixture(autouse=True)
def console() -> Iterator[Console]:
    """Fail each test in which a page writes an unexpected error or warning to the console."""
    console = Console()
    yield console
    assert console.find_unexpected_lines() == []


@pytest.fixture(scope="package")
def chromium(pytestconfig: pytest.Config) -> str:
    """Return the path of Chromium: from `CHROMIUM` in the environment, or the first that is installed."""
    named = os.environ.get("CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else PROGRAMS)), None)
    if found is None:
        missing = f"no program at CHROMIUM={named}" if named else f"no Chromium ({', '.join(PROGRAMS)})"
        skip_or_fail(pytestconfig, f"{missing}: install one, e.g. Debian's chromium", option="--require-browser")
    return found


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="package")
async def context(browser: Browser, console: Console) -> AsyncIterator[BrowserContext]:
    """Create a browser context. Its pages are tabs that share a session."""
    # In a transition axe-core would check a colour between two others.
    context = await browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    console.listen(context)
    yield context
    await context.close()


# The local runs


StartRun = Callable[..., Awaitable[LocalRun]]


@pytest.fixture(scope="package")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Write the systems' logs to another folder than a `make up` that runs beside the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "LOGS", tmp_path_factory.mktemp("logs"))
        yield


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def start_run(chromium: str, own_state: None) -> AsyncIterator[StartRun]:
    """Return a function that starts a local run of a template with options. It runs until the last test."""
    async with AsyncExitStack() as stack:

        async def start(template: Path, **options: Any) -> LocalRun:
            return await stack.enter_async_context(start_local_run(template, **options))

        yield start


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def local_run(start_run: StartRun, tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """Start a local run for all tests that change only their own users.

    Everybody may sign up, as with `make up`. Clients send the token as a subprotocol; in the other local runs, in the
    query string.
    """
    context = {"selfSignUp": "true", "credential": "subprotocol"}
    template = await asyncio.to_thread(synthesize, ROOT, tmp_path_factory.mktemp("cdk.out"), context)
    return await start_run(template, inspector_port=0)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def proxied_run(start_run: StartRun, own_template: Path) -> LocalRun:
    """Start a local run with a proxy before its gateway. A test that stops the gateway or the proxy restarts it."""
    return await start_run(own_template, proxied=True, environments=1)


COMPRESSED = Limits(idle_seconds=5, connection_seconds=12)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def compressed_run(start_run: StartRun, own_template: Path) -> LocalRun:
    """Start a local run whose connections end after 12 s, or after 5 s without messages."""
    return await start_run(own_template, environments=1, limits=COMPRESSED)
