"""Serves the inspector: its page, and the journal as JSON and as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from local.journal import Journal, Summary
from local.page import HASHED, NAMES
from local.ports import SHUTDOWN_SECONDS, bind_localhost

FLAG = "--inspector-port"
ALIVE_SECONDS = 15.0  # between comments in a stream without events
NOT_BUILT = "the inspector's page is not built: run `make page`"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Inspector:
    """Serves the journal on a port of `localhost`.

    Requests for another host are refused, so that a foreign name that resolves to this machine (DNS rebinding) gets
    nothing, and so are those of pages from elsewhere.

    Attributes:
        url: the inspector's origin, as browsers send it.

    Raises:
        LaunchError: the port is not available.
    """

    def __init__(self, journal: Journal, built: Path, port: int) -> None:
        """Take the port; `built` is the folder of the built pages."""
        self.journal = journal
        self._built = built.resolve()
        self._listeners = bind_localhost(port, FLAG)
        self.port: int = self._listeners[0].getsockname()[1]
        suffix = "" if self.port == 80 else f":{self.port}"  # browsers leave out HTTP's own port
        self.url = f"http://localhost{suffix}"
        self._hosts = {f"{name}{suffix}" for name in NAMES}
        self._streams: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(middlewares=[self._refuse_others])
        application.on_response_prepare.append(self._add_headers)
        application.router.add_get("/api/connections", self._serve_connections)
        application.router.add_get("/api/connections/{id}", self._serve_timeline)
        application.router.add_get("/api/traces/{id}", self._serve_traces)
        application.router.add_get("/api/events", self._serve_events, allow_head=False)
        application.router.add_get("/{name:.*}", self._serve_file)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        for listener in self._listeners:
            await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        for stream in self._streams:
            stream.cancel()
        if self._runner:
            await self._runner.cleanup()
        for listener in self._listeners:
            listener.close()

    @web.middleware
    async def _refuse_others(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host.lower() not in self._hosts:
            raise web.HTTPMisdirectedRequest(text=f"The inspector is at {self.url}.\n")
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower().removeprefix("http://") not in self._hosts:
            raise web.HTTPForbidden(text="Only the inspector's own page may ask.\n")
        return await handler(request)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)
        hashed = response.status < 400 and request.path.startswith(HASHED)
        response.headers["Cache-Control"] = "max-age=31536000, immutable" if hashed else "no-store"

    async def _serve_connections(self, request: web.Request) -> web.Response:
        connections, total = self.journal.find(request.query.get("search", ""))
        return web.json_response({"connections": connections, "total": total})

    async def _serve_timeline(self, request: web.Request) -> web.Response:
        connection_id = request.match_info["id"]
        entries = self.journal.timeline(connection_id)
        if not entries:
            raise web.HTTPNotFound(text="The journal has no such connection.\n")
        return web.json_response({"id": connection_id, "entries": entries})

    async def _serve_traces(self, request: web.Request) -> web.Response:
        return web.json_response({"documents": self.journal.traces(request.match_info["id"])})

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        """Stream the connections that change, until the client goes away or the local run ends."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        task = asyncio.current_task()
        assert task
        self._streams.add(task)
        try:
            await response.prepare(request)
            async with aclosing(write_events(self.journal)) as events:
                async for event in events:
                    await response.write(event)
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._streams.discard(task)
        return response

    async def _serve_file(self, request: web.Request) -> web.StreamResponse:
        folder, index = find_page(self._built)
        if not (name := request.match_info["name"] or index):
            raise web.HTTPServiceUnavailable(text=NOT_BUILT)
        try:
            file = (folder / name).resolve()
            if file.is_relative_to(folder) and file.is_file() and file.suffix != ".json":
                return web.FileResponse(file)
        except (OSError, ValueError):  # no file can have this name
            pass
        raise web.HTTPNotFound


async def write_events(journal: Journal) -> AsyncGenerator[bytes, None]:
    """Yield server-sent events with the connections that change, and a comment when there are none for long."""
    yield b": connected\n\n"
    changes = journal.follow()
    following: asyncio.Task[list[Summary]] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait([following], timeout=ALIVE_SECONDS)
            if not done:
                yield b": alive\n\n"
                continue
            data = json.dumps({"connections": following.result()})
            following = None
            yield f"event: connections\ndata: {data}\n\n".encode()
    finally:
        if following:
            following.cancel()
            await asyncio.wait([following])
        await changes.aclose()


def find_page(built: Path) -> tuple[Path, str]:
    """Return the folder of the inspector's page and the page's name in it, which is empty if it is not built."""
    for folder, name in ((built / "inspector", "index.html"), (built, "inspector.html")):
        if (folder / name).is_file():
            return folder, name
    return built, ""
