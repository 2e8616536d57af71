"""Makes AWS's host names local in functions, and terminates TLS for them.

In a function, resolver/sitecustomize.py resolves AWS's host names to the listener here. The function trusts a certificate
authority that is made for each run.
"""

from __future__ import annotations

import asyncio
import py_compile
import ssl
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import botocore
import trustme

from local.aws.resolver import sitecustomize

CHUNK_BYTES = 64 * 1024
BUNDLED_ROOTS = Path(botocore.__file__).with_name("cacert.pem")
TRUST_VARIABLES = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
NO_PROXY = ["127.0.0.1", "localhost", *(suffix.lstrip(".") for suffix in sitecustomize.SUFFIXES)]


class HostContext(ssl.SSLContext):
    """The TLS settings of one host name, with its certificate."""

    host: str


class Authority:
    """A certificate authority. Its key stays in memory; a host's key is in a private file while OpenSSL reads it."""

    def __init__(self) -> None:
        self._ca = trustme.CA(path_length=0, organization_name="local run")
        self.certificate = self._ca.cert_pem.bytes()
        self.get_context = lru_cache(maxsize=256)(self._make_context)

    def _make_context(self, host: str) -> HostContext:
        context = HostContext(ssl.PROTOCOL_TLS_SERVER)
        context.host = host
        self._ca.issue_cert(host).configure_cert(context)
        return context


class LocalNames:
    """A TLS proxy on the loopback interface. It relays the decrypted bytes to the local port that serves the host.

    Args:
        find_port: returns the local port that serves a host.

    Attributes:
        files: the folder that must be mounted read-only into a function's container, at the same path.
    """

    def __init__(self, find_port: Callable[[str], int]) -> None:
        self._find_port = find_port
        self._relays: set[asyncio.Task[None]] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="local-tls-")
        self.files = Path(self._folder.name) / "functions"

    async def start(self) -> None:
        self._authority = await asyncio.to_thread(Authority)
        write_files(self.files, self._authority.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._select
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=context)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        self._folder.cleanup()

    def build_environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that make AWS's names local in a function whose template sets `own`.

        If the template sets the root certificates of a function, they stay. The function then cannot call AWS's names,
        because it does not trust the local authority.
        """
        return {
            "LOCAL_AWS_PORT": str(self.port),
            "PYTHONPATH": ":".join(filter(None, [str(self.files), own.get("PYTHONPATH")])),
            **{name: str(self.files / "roots.pem") for name in TRUST_VARIABLES if name not in own},
            **{name: ",".join(filter(None, [*NO_PROXY, own.get(name)])) for name in ("NO_PROXY", "no_proxy")},
        }

    def _select(self, connection: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> int | None:
        if not sitecustomize.is_aws(host):
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        try:
            connection.context = self._authority.get_context(str(host).lower())
        except ValueError:  # no certificate can have this name
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        return None

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        context = writer.get_extra_info("ssl_object").context
        try:
            local_reader, local_writer = await asyncio.open_connection("127.0.0.1", self._find_port(context.host))
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
    """Copy from source to sink until one of the two closes."""
    with suppress(OSError):
        while some := await source.read(CHUNK_BYTES):
            sink.write(some)
            await sink.drain()
    sink.close()


def write_files(folder: Path, certificate: bytes) -> None:
    """Write the resolver and the root certificates that functions need. Containers' users can read them, too."""
    folder.mkdir()
    roots = Path(ssl.get_default_verify_paths().cafile or BUNDLED_ROOTS).read_bytes()
    (folder / "roots.pem").write_bytes(roots + b"\n" + certificate)
    module = folder / "sitecustomize.py"
    module.write_bytes(Path(sitecustomize.__file__).read_bytes())
    py_compile.compile(str(module), doraise=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
