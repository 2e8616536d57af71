"""TLS for whatever host name of AWS a function calls, with a certificate authority that lives as long as the run."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

import trustme

from local.aws.resolver.sitecustomize import is_aws

CHUNK_BYTES = 64 * 1024


class HostContext(ssl.SSLContext):
    """The TLS settings of one host name, with its certificate."""

    host: str


class Authority:
    """A certificate authority. Its key stays in memory; a host's is in a private file while OpenSSL reads it."""

    def __init__(self) -> None:
        self._ca = trustme.CA(path_length=0, organization_name="local run")
        self.certificate = self._ca.cert_pem.bytes()
        self.context_of = lru_cache(maxsize=256)(self._make_context)

    def _make_context(self, host: str) -> HostContext:
        context = HostContext(ssl.PROTOCOL_TLS_SERVER)
        context.host = host
        self._ca.issue_cert(host).configure_cert(context)
        return context


class TlsListener:
    """Listens on the loopback interface, ends TLS, and relays the bytes to the local port that serves the host."""

    def __init__(self, authority: Authority, port_of: Callable[[str], int]) -> None:
        self.authority = authority
        self.port_of = port_of
        self._relays: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Return the port."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._select
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=context)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def _select(self, connection: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> int | None:
        if not is_aws(host):
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        try:
            connection.context = self.authority.context_of(str(host).lower())
        except ValueError:  # a name that no certificate may have
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        return None

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        context = writer.get_extra_info("ssl_object").context
        try:
            local_reader, local_writer = await asyncio.open_connection("127.0.0.1", self.port_of(context.host))
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(copy(reader, local_writer))
                both.create_task(copy(local_reader, writer))
        finally:
            local_writer.close()
            writer.close()


async def copy(source: StreamReader, sink: StreamWriter) -> None:
    """Write what is read, up to the end of either."""
    with suppress(OSError):
        while some := await source.read(CHUNK_BYTES):
            sink.write(some)
            await sink.drain()
    sink.close()
