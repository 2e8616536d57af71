"""What the local run knows of our own application: how its clients connect, and what its table holds.

Another template's application may differ; the packages know neither.
"""

from __future__ import annotations

from typing import Any

from local.system import System

SUBPROTOCOL_SOURCE = "route.request.header.Sec-WebSocket-Protocol"


def opening(system: System, token: str) -> dict[str, Any]:
    """Return how a client opens a connection with its token, as arguments of websockets' `connect`."""
    route = system.stack.api.routes.get("$connect")
    sources = route.authorizer.identity_sources if route and route.authorizer else ()
    if SUBPROTOCOL_SOURCE in sources:
        return {"uri": system.websocket_url, "subprotocols": ["echo.v1", f"idToken.{token}"]}
    return {"uri": f"{system.websocket_url}?idToken={token}"}
