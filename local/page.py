"""Serves the built page with the settings of the local run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from local.localhost import HASHED, LocalhostServer, find_file
from local.page_settings import find_built_page

FLAG = "--page-port"


class PageServer(LocalhostServer):
    """Serves the folder of the built page, and `config.json` from memory.

    The Content-Security-Policy allows connections to the local gateway and the local Cognito only. So a page with wrong
    settings cannot reach AWS.

    Raises:
        LaunchError: the page is not built, or the port is not available.
    """

    name = "page"

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = find_built_page(folder)
        super().__init__(port, FLAG)

    async def start(self, settings: dict[str, Any]) -> None:
        self._config = json.dumps(settings, indent=2)
        self._headers = {
            "Content-Security-Policy": build_content_security_policy(settings),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        application = web.Application()
        application.on_response_prepare.append(self._add_headers)
        application.router.add_get("/config.json", self._serve_config)
        application.router.add_get("/{name:.*}", self._serve_file)
        await self.serve(application)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)
        hashed = response.status < 400 and request.path.startswith(HASHED)
        response.headers.setdefault("Cache-Control", "max-age=31536000, immutable" if hashed else "no-cache")

    async def _serve_config(self, request: web.Request) -> web.Response:
        return web.json_response(text=self._config, headers={"Cache-Control": "no-store"})

    async def _serve_file(self, request: web.Request) -> web.FileResponse:
        file = find_file(self.folder, request.match_info["name"] or "index.html")
        if file == self.folder / "config.json":  # such a file has the settings of a deployment
            raise web.HTTPNotFound
        return web.FileResponse(file)


def build_content_security_policy(settings: dict[str, Any]) -> str:
    servers = (urlsplit(settings[name]) for name in ("webSocketEndpoint", "userPoolEndpoint"))
    connect = " ".join(("'self'", *(f"{server.scheme}://{server.netloc}" for server in servers)))
    return (
        f"default-src 'self'; connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    )
