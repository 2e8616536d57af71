"""The inspector's page, before a fake of its server and before the local run."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import BrowserContext, Locator, Page, expect
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import ops
from benchmarks.user_pool import SUB
from local.demo import open_deployment
from local.example import build_handshake
from tests.fixtures import ROOT
from tests.fixtures.events import CONNECTION_ID
from tests.page.browser import Console
from tests.page.echo_page import COLOURS, FIND_VIOLATIONS, NARROW, WIDE, read_axe
from tests.page.local_run import LocalRun

pytestmark = pytest.mark.asyncio(loop_scope="package")

DIST = ROOT / "frontend" / "dist" / "inspector"
POLICY = "default-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
LIMIT = 200
TRACE_ID = "1-6b0c212b-0123456789abcdef01234567"
REQUEST_ID, LAMBDA_REQUEST_ID = "CHtotejuIAMCIhw=", "9c0cbc3d-9d93-4a5e-8d8a-3f4a7b5cbd1a"
HOSTILE = "</pre><script>document.title = 'owned'</script><img src=/x onerror=\"document.title = 'owned'\">"

Summary = dict[str, Any]
Entry = dict[str, Any]


class FakeInspector:
    """The inspector's server with a journal that a test writes.

    Attributes:
        port: stays the same when the server starts again.
    """

    def __init__(self) -> None:
        self.summaries: dict[str, Summary] = {}
        self.timelines: dict[str, list[Entry]] = {}
        self.port = 0
        self._streams: set[asyncio.Queue[list[Summary]]] = set()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    async def start(self) -> None:
        application = web.Application()
        application.on_response_prepare.append(self._add_headers)
        application.router.add_get("/api/connections", self._serve_connections)
        application.router.add_get("/api/connections/{id}", self._serve_timeline)
        application.router.add_get("/api/events", self._serve_events)
        application.router.add_get("/{name:.*}", self._serve_file)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    def add_entries(self, connection_id: str, *entries: Entry, **facts: Any) -> None:
        """Add entries to a connection, change its summary, and send the summary to all open pages."""
        timeline = self.timelines.setdefault(connection_id, [])
        timeline.extend(entries)
        new = {"id": connection_id, "userId": SUB, "openedAt": time.time(), "endedAt": None, "status": 101}
        new |= {"cause": None, "messages": 0, "errors": 0, "lastAt": time.time()}
        self.summaries[connection_id] = {**self.summaries.get(connection_id, new), **facts}
        for stream in self._streams:
            stream.put_nowait([self.summaries[connection_id]])

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update({"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})

    async def _serve_connections(self, request: web.Request) -> web.Response:
        search = request.query["search"]
        found = [each for each in self.summaries.values() if self._has(each, search)]
        found.sort(key=lambda each: each["openedAt"], reverse=True)
        return web.json_response({"connections": found[:LIMIT], "total": len(found)})

    def _has(self, summary: Summary, search: str) -> bool:
        keys = {key for entry in self.timelines[summary["id"]] for key in entry["keys"]}
        return not search or search in {summary["id"], summary["userId"]} | keys

    async def _serve_timeline(self, request: web.Request) -> web.Response:
        connection_id = request.match_info["id"]
        if connection_id not in self.timelines:
            raise web.HTTPNotFound
        return web.json_response({"id": connection_id, "entries": self.timelines[connection_id]})

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        stream: asyncio.Queue[list[Summary]] = asyncio.Queue()
        self._streams.add(stream)
        try:
            await response.write(b":\n\n")
            while True:
                data = json.dumps({"connections": await stream.get()})
                await response.write(f"event: connections\ndata: {data}\n\n".encode())
        except ConnectionError:
            return response
        finally:
            self._streams.discard(stream)

    async def _serve_file(self, request: web.Request) -> web.FileResponse:
        file = DIST / (request.match_info["name"] or "inspector.html")
        if not file.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(file)


@pytest_asyncio.fixture(loop_scope="package")
async def server() -> AsyncIterator[FakeInspector]:
    fake = FakeInspector()
    await fake.start()
    yield fake
    await fake.stop()


def build_entry(at: float, kind: str, *keys: str, **facts: Any) -> Entry:
    return {"at": at, "kind": kind, "keys": list(keys), "facts": facts}


def build_handshake_entries(connection_id: str, at: float) -> list[Entry]:
    keys = (connection_id, REQUEST_ID)
    started = {"startedAt": at + 0.001, "endedAt": at + 0.03}
    invocation = {"function": "websocket", "purpose": "$connect", "event": {"a": 1}, "answer": {"statusCode": 200}}
    segments = [
        {"id": "a", "trace_id": TRACE_ID, "name": "websocket", "start_time": at, "end_time": at + 0.03},
        {"id": "b", "trace_id": TRACE_ID, "parent_id": "a", "name": "DynamoDB", "start_time": at + 0.01, "fault": True},
    ]
    return [
        build_entry(at, "handshake", *keys, method="GET", path="/prod", headers={}, sourceIp="127.0.0.1"),
        build_entry(at + 0.03, "invocation", *keys, LAMBDA_REQUEST_ID, TRACE_ID, **invocation, **started),
        *(build_entry(at + 0.03, "trace", TRACE_ID, document=segment) for segment in segments),
        build_entry(at + 0.04, "decision", *keys, status=101, effect="Allow"),
    ]


def add_idle_connection(server: FakeInspector, connection_id: str = CONNECTION_ID) -> None:
    now = time.time()
    end = build_entry(now, "end", connection_id, code=1001, reason="Going away", cause="idle limit")
    facts = {"openedAt": now - 600, "endedAt": now, "cause": "idle limit"}
    server.add_entries(connection_id, *build_handshake_entries(connection_id, now - 600), end, **facts)


async def open_inspector(context: BrowserContext, server: FakeInspector, fragment: str = "") -> Page:
    tab = await context.new_page()
    await tab.goto(f"{server.url}/{fragment}")
    await expect(get_updates_status(tab)).to_have_text("Live")
    return tab


def get_updates_status(tab: Page) -> Locator:
    return tab.get_by_role("status", name="Updates")


def get_row(tab: Page, connection_id: str) -> Locator:
    return tab.get_by_role("row").filter(has_text=connection_id)


def get_heading(tab: Page, connection_id: str = CONNECTION_ID) -> Locator:
    return tab.get_by_role("heading", level=2, name=f"Connection {connection_id}")


async def test_search_for_an_id_shows_why_the_connection_ended(server: FakeInspector, context: BrowserContext) -> None:
    add_idle_connection(server)
    server.add_entries("AnotherAAAAAAAA=")
    tab = await open_inspector(context, server)

    for found_by in (CONNECTION_ID, TRACE_ID):
        await tab.keyboard.press("/")
        await expect(tab.get_by_role("searchbox")).to_be_focused()
        await tab.keyboard.type(found_by)
        await tab.keyboard.press("Enter")

        await expect(get_heading(tab)).to_be_focused()
        end = tab.get_by_role("region", name="How it ended")
        await expect(end).to_contain_text("Closed by API Gateway: idle limit")
        await expect(end).to_contain_text("after 10 min 00 s, close code 1001 (going away)")
    assert tab.url == f"{server.url}/#/connections/{CONNECTION_ID}"


async def test_back_button_returns_the_focus_to_the_link_in_the_list(
    server: FakeInspector, context: BrowserContext
) -> None:
    add_idle_connection(server)
    server.add_entries("AnotherAAAAAAAA=")
    tab = await open_inspector(context, server)

    await tab.get_by_role("link", name=CONNECTION_ID).focus()
    await tab.keyboard.press("Enter")
    await expect(get_heading(tab)).to_be_focused()
    await tab.go_back()

    await expect(tab.get_by_role("link", name=CONNECTION_ID)).to_be_focused()


async def test_details_open_with_the_keyboard(server: FakeInspector, context: BrowserContext) -> None:
    add_idle_connection(server)
    tab = await open_inspector(context, server, f"#/connections/{CONNECTION_ID}")

    await tab.locator("summary", has_text="Trace: 2 segments in 30 ms").focus()
    await tab.keyboard.press("Enter")

    segments = tab.get_by_role("table", name="Segments of the trace").get_by_role("row")
    await expect(segments).to_have_text([re.compile("Start"), re.compile("30 ms"), re.compile("failed.*running")])
    save = tab.get_by_role("link", name="Save the trace as JSON")
    await expect(save).to_have_attribute("href", f"api/traces/{TRACE_ID}")


async def test_changes_arrive_unless_the_page_is_paused(server: FakeInspector, context: BrowserContext) -> None:
    tab = await open_inspector(context, server)
    await expect(tab.get_by_text("No connection yet.")).to_be_visible()

    server.add_entries("first")
    await expect(get_row(tab, "first")).to_contain_text("101 live")
    server.add_entries("first", endedAt=time.time(), cause="connection lost")
    await expect(get_row(tab, "first")).to_contain_text("connection lost")

    await tab.get_by_role("button", name="Pause").click()
    await expect(get_updates_status(tab)).to_have_text("Paused")
    server.add_entries("second")
    await tab.get_by_role("button", name="Continue").click()
    await expect(get_row(tab, "second")).to_be_visible()


async def test_open_timeline_shows_new_entries(server: FakeInspector, context: BrowserContext) -> None:
    server.add_entries(CONNECTION_ID, *build_handshake_entries(CONNECTION_ID, time.time()))
    tab = await open_inspector(context, server, f"#/connections/{CONNECTION_ID}")
    await expect(tab.get_by_role("region", name="How it ended")).to_contain_text("Open, live")
    details = tab.locator("summary", has_text="The client asked")
    await details.click()

    server.add_entries(
        CONNECTION_ID, build_entry(time.time(), "end", CONNECTION_ID, code=1006, reason="", cause="connection lost")
    )

    await expect(tab.get_by_role("heading", name="Connection lost")).to_be_visible()
    await expect(tab.get_by_role("status").filter(has_text="Connection lost")).to_have_count(1)
    await expect(tab.locator("details[open]")).to_have_count(1)


async def test_page_shows_that_the_local_run_ended_and_continues_with_the_next(
    server: FakeInspector, context: BrowserContext, console: Console
) -> None:
    console.expected.append(re.compile("Failed to load resource: net::ERR_"))
    server.add_entries("first")
    tab = await open_inspector(context, server)

    await server.stop()
    await expect(get_updates_status(tab)).to_have_text("Ended")
    await expect(tab.get_by_role("status").filter(has_text="The local run has ended.")).to_be_visible()
    await expect(get_row(tab, "first")).to_be_visible()

    server.summaries.clear()
    server.add_entries("next")
    await server.start()
    await expect(get_row(tab, "next")).to_be_visible()
    await expect(get_row(tab, "first")).to_have_count(0)
    await expect(get_updates_status(tab)).to_have_text("Live")


async def test_text_from_clients_is_not_rendered_as_html(server: FakeInspector, context: BrowserContext) -> None:
    now = time.time()
    message = build_entry(now, "message", CONNECTION_ID, REQUEST_ID, routeKey=HOSTILE, body=HOSTILE)
    end = build_entry(now, "end", CONNECTION_ID, code=4000, reason=HOSTILE, cause=HOSTILE)
    server.add_entries(CONNECTION_ID, message, end, userId=HOSTILE, cause=HOSTILE, endedAt=now)
    tab = await open_inspector(context, server)
    await expect(get_row(tab, CONNECTION_ID)).to_contain_text("<script>")

    await tab.get_by_role("link", name=CONNECTION_ID).click()
    await tab.locator("summary", has_text="The client sent").click()

    await expect(tab.locator("pre")).to_have_text(HOSTILE)
    assert await tab.locator("main script, main img").count() == 0
    assert await tab.title() == f"{CONNECTION_ID} | Inspector"


async def test_inspector_is_accessible(server: FakeInspector, context: BrowserContext) -> None:
    add_idle_connection(server)
    server.add_entries("refused", status=403, endedAt=time.time(), errors=1, userId=None)
    tab = await open_inspector(context, server)
    await expect(get_row(tab, "refused")).to_be_visible()
    await expect_accessible(tab)

    await tab.get_by_role("link", name=CONNECTION_ID).click()
    for summary in await tab.locator("summary").all():
        await summary.click()
    await expect_accessible(tab)


async def expect_accessible(tab: Page) -> None:
    """Expect no violation of axe-core's rules and no horizontal scrolling, in all colour schemes and widths."""
    await tab.evaluate(read_axe())
    for size in (NARROW, WIDE):
        await tab.set_viewport_size(size)
        for colours in COLOURS:
            await tab.emulate_media(color_scheme=colours)
            assert await tab.evaluate(FIND_VIOLATIONS) == [], (size, colours)


# Before the local run


async def search_and_open(tab: Page, text: str) -> Locator:
    """Search for a text that one connection has; return the region that tells how the connection ended."""
    await tab.get_by_role("searchbox").fill(text)
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("heading", level=2, name=re.compile("^Connection "))).to_be_focused()
    return tab.get_by_role("region", name="How it ended")


async def test_ids_that_clients_get_show_why_they_were_refused_or_disconnected(
    local_run: LocalRun, context: BrowserContext
) -> None:
    system, user = local_run.system, await local_run.add_user()
    tab = await context.new_page()
    await tab.goto(system.inspector_url or "")

    with pytest.raises(InvalidStatus) as refused:
        await connect(**build_handshake(system, "no.such.token"))
    end = await search_and_open(tab, refused.value.response.headers["x-amz-apigw-id"])
    await expect(end).to_contain_text("Handshake refused: 403")
    await expect(end).to_contain_text("Reason: the token is not a JSON Web Token (malformed_token)")

    token = await asyncio.to_thread(system.users.get_id_token, user.email, user.password)
    async with connect(**build_handshake(system, token)) as peer:
        await peer.send(["x" * 30_000] * 3)
        frame = json.loads(await peer.recv())
        with closing(open_deployment(system)) as deployment:
            await asyncio.to_thread(ops.kick, deployment, "grace", connection_id=frame["connectionId"])
        await peer.wait_closed()
    end = await search_and_open(tab, frame["connectionId"])
    await expect(end).to_contain_text("Reason: an operator ended the connection: grace (kicked)")
