"""A TCP proxy between a page and its gateway. A test can pause its traffic or abort its connections."""

from __future__ import annotations

import asyncio


class Network:
    """A TCP proxy on a port of the loopback interface.

    Attributes:
        target_port: the port to which connections are forwarded.
    """

    def __init__(self) -> None:
        self.target_port = 0
        self._is_up = asyncio.Event()
        self._is_up.set()
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        await self.abort_connections()

    def pause(self) -> None:
        """Deliver nothing and close nothing, so that both sides notice only silence. New connections get no answer."""
        self._is_up.clear()

    def resume(self) -> None:
        """Deliver what was sent during the pause, as TCP does after an outage."""
        self._is_up.set()

    async def abort_connections(self) -> None:
        """End all connections without a closing handshake."""
        connections = [*self._connections]
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection
        self._connections.add(connection)
        writers = [writer]
        try:
            await self._is_up.wait()
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            writers.append(target_writer)
            await asyncio.gather(self._forward(reader, target_writer), self._forward(target_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the connection was refused, reset or aborted; both sides are aborted below
        finally:
            for each in writers:
                each.transport.abort()
            self._connections.discard(connection)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._is_up.wait()
            writer.write(data)
            await writer.drain()
        await self._is_up.wait()
        writer.write_eof()
