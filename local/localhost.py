"""The base of HTTP servers for browsers on this machine."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from local.ports import SHUTDOWN_SECONDS, bind_localhost

HASHED = "/assets/"  # Vite puts a hash of their content into the names of these files
NAMES = ("localhost", "127.0.0.1", "[::1]")


class LocalhostServer:
    """An HTTP server on a port of `localhost`.

    It refuses requests for another host, as a protection against DNS rebinding.

    Attributes:
        name: the server's name in the answer to a refused request.
        url: the server's origin, as browsers send it.

    Raises:
        LaunchError: the port is not available.
    """

    name: str

    def __init__(self, port: int, flag: str) -> None:
        self._listeners = bind_localhost(port, flag)
        self.port: int = self._listeners[0].getsockname()[1]
        suffix = "" if self.port == 80 else f":{self.port}"  # browsers leave out HTTP's own port
        self.url = f"http://localhost{suffix}"
        self.hosts = {f"{name}{suffix}" for name in NAMES}
        self._runner: web.AppRunner | None = None

    async def serve(self, application: web.Application) -> None:
        application.middlewares.insert(0, self._refuse_other_hosts)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        for listener in self._listeners:
            await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
        for listener in self._listeners:
            listener.close()

    @web.middleware
    async def _refuse_other_hosts(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host.lower() not in self.hosts:
            raise web.HTTPMisdirectedRequest(text=f"The {self.name} is at {self.url}.\n")
        return await handler(request)


def find_file(folder: Path, name: str) -> Path:
    """Return a file of a folder. Raise HTTPNotFound if the folder has no file of this name."""
    try:
        file = (folder / name).resolve()
        if file.is_relative_to(folder) and file.is_file():
            return file
    except (OSError, ValueError):  # the name is not valid
        pass
    raise web.HTTPNotFound
