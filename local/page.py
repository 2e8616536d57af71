"""Serves the built page with the settings of the local run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from local.apigateway.limits import Limits
from local.errors import LaunchError, TemplateError
from local.localhost import HASHED, LocalhostServer, find_file

FLAG = "--page-port"
PAGE_CONFIG = "PageConfig"  # the stack's output with the page's settings


def parse_page_config(outputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings in a stack's output `PageConfig`; None without that output. TemplateError if it is not JSON."""
    if PAGE_CONFIG not in outputs:
        return None
    text = outputs[PAGE_CONFIG]
    try:
        config = json.loads(text)
    except (TypeError, ValueError) as error:
        raise TemplateError(f"output {PAGE_CONFIG}: {text!r} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise TemplateError(f"output {PAGE_CONFIG}: {text!r} is not a JSON object")
    return config


def local_settings(output: dict[str, Any], *, websocket_url: str, aws_url: str, limits: Limits) -> dict[str, Any]:
    """Return what the page reads as `config.json`: the stack's settings with the local addresses and limits."""
    return {
        **{name: value for name, value in output.items() if name != "authorizerLogGroup"},
        "webSocketEndpoint": websocket_url,
        "userPoolEndpoint": f"{aws_url}/",
        "idleLimitSeconds": limits.idle_seconds,
        "connectionLimitSeconds": limits.connection_seconds,
    }


class PageServer(LocalhostServer):
    """Serves a folder, and `config.json` from memory.

    Its Content-Security-Policy lets the page connect to the local gateway and the local Cognito and nowhere else, so
    that a page with wrong settings cannot reach AWS.

    Raises:
        LaunchError: the page is not built, or the port is not available.
    """

    name = "page"

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.resolve()
        if not (self.folder / "index.html").is_file():
            raise LaunchError("the page is not built: run `make page`")
        super().__init__(port, FLAG)

    async def start(self, settings: dict[str, Any]) -> None:
        self._config = json.dumps(settings, indent=2)
        self._headers = {
            "Content-Security-Policy": content_security_policy(settings),
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
        if file == self.folder / "config.json":  # it has the settings of a deployment
            raise web.HTTPNotFound
        return web.FileResponse(file)


def content_security_policy(settings: dict[str, Any]) -> str:
    servers = (urlsplit(settings[name]) for name in ("webSocketEndpoint", "userPoolEndpoint"))
    connect = " ".join(("'self'", *(f"{server.scheme}://{server.netloc}" for server in servers)))
    return (
        f"default-src 'self'; connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    )
