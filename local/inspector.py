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
from local.localhost import HASHED, LocalhostServer, find_file

FLAG = "--inspector-port"
ALIVE_SECONDS = 15.0  # between comments in a stream without events
INDEX = "inspector.html"
NOT_BUILT = "the inspector's page is not built: run `make page`"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Inspector(LocalhostServer):
    """Serves the journal to the inspector's page. Requests of pages with another origin are refused.

    Raises:
        LaunchError: the port is not available.
    """

    name = "inspector"

    def __init__(self, journal: Journal, built: Path, port: int) -> None:
        """Bind the port; `built` is the folder of the built page."""
        super().__init__(port, FLAG)
        self.journal = journal
        self._built = built.resolve()
        self._streams: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        application = web.Application(middlewares=[self._refuse_other_pages])
        application.on_response_prepare.append(self._add_headers)
        application.router.add_get("/api/connections", self._serve_connections)
        application.router.add_get("/api/connections/{id}", self._serve_timeline)
        application.router.add_get("/api/traces/{id}", self._serve_traces)
        application.router.add_get("/api/events", self._serve_events, allow_head=False)
        application.router.add_get("/{name:.*}", self._serve_file)
        await self.serve(application)

    async def stop(self) -> None:
        for stream in self._streams:
            stream.cancel()
        await super().stop()

    @web.middleware
    async def _refuse_other_pages(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower().removeprefix("http://") not in self.hosts:
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
        entries = self.journal.get_timeline(connection_id)
        if not entries:
            raise web.HTTPNotFound(text="The journal has no such connection.\n")
        return web.json_response({"id": connection_id, "entries": entries})

    async def _serve_traces(self, request: web.Request) -> web.Response:
        return web.json_response({"documents": self.journal.find_traces(request.match_info["id"])})

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        """Stream the connections that change, until the client disconnects or the local run ends."""
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
            pass  # the client has disconnected
        finally:
            self._streams.discard(task)
        return response

    async def _serve_file(self, request: web.Request) -> web.FileResponse:
        name = request.match_info["name"]
        if not name and not (self._built / INDEX).is_file():
            raise web.HTTPServiceUnavailable(text=NOT_BUILT)
        file = find_file(self._built, name or INDEX)
        if file.suffix == ".json":  # it may have the settings of a deployment
            raise web.HTTPNotFound
        return web.FileResponse(file)


async def write_events(journal: Journal) -> AsyncGenerator[bytes, None]:
    """Yield server-sent events with the connections that change, and a comment if none changes for ALIVE_SECONDS."""
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
