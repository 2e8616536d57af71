"""Requests and connections of broken and hostile clients: the gateway answers or closes, and is unharmed.

test_bad_calls.py tests calls of `@connections`, test_bad_frames.py frames after the upgrade.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from local.apigateway import server, sockets
from tests.fixtures.apis import OUR_ROUTES, api
from tests.fixtures.gateway import HANDSHAKE, Dial, Gateway, RawClient, Serve
from tests.fixtures.hostile import (
    NO_LINGER,
    check_serves,
    check_unharmed,
    half_close,
    hold,
    read_status,
    read_until_closed,
    reset,
    send_and_read,
    send_repeatedly,
    wait_until,
)

SOON = 0.05  # seconds, for time limits that a test waits for
CLOSE = b"Host: localhost\r\nConnection: close\r\n\r\n"
UPGRADE = HANDSHAKE.removesuffix(b"\r\n")  # for another header to follow


@pytest.fixture
async def gateway(serve: Serve, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Gateway]:
    """A gateway whose authorizer is always invoked; the test fails if it is harmed."""
    gateway = await serve(api(*OUR_ROUTES, identity_sources=()))
    async with check_unharmed(gateway, caplog):
        yield gateway


# Heads


async def test_handshake_may_come_byte_by_byte(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port)
    for byte in HANDSHAKE:
        client.writer.write(bytes([byte]))
        await client.writer.drain()

    assert read_status(await client.read_head()) == 101


MALFORMED: dict[str, tuple[bytes, int | None]] = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", None),
    "HTTP/0.9": (b"GET /prod\r\n\r\n", 426),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/9.9": (b"GET /prod HTTP/9.9\r\n" + CLOSE, 400),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + CLOSE, 403),
    "CONNECT": (b"CONNECT localhost:80 HTTP/1.1\r\n" + CLOSE, 403),
    "NUL in target": (b"GET /pr\0od HTTP/1.1\r\n" + CLOSE, 400),
    "NUL in header": (b"GET /prod HTTP/1.1\r\nX: a\0b\r\n" + CLOSE, 400),
    "no colon": (b"GET /prod HTTP/1.1\r\nhello\r\n" + CLOSE, 400),
    "folded": (b"GET /prod HTTP/1.1\r\nX: a\r\n b\r\n" + CLOSE, 400),
    "two hosts": (b"GET /prod HTTP/1.1\r\nHost: a\r\n" + CLOSE, 400),
    "300 headers": (b"GET /prod HTTP/1.1\r\n" + b"X: a\r\n" * 300 + CLOSE, 400),
    "upgrade, no version": (HANDSHAKE.replace(b" HTTP/1.1", b""), None),
    "upgrade, HTTP/1.0": (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "upgrade, HTTP/9.9": (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/9.9"), None),
    "upgrade, NUL": (UPGRADE + b"X: a\0b\r\n\r\n", None),
    "upgrade, no colon": (UPGRADE + b"hello\r\n\r\n", None),
    "upgrade, folded": (UPGRADE + b"X: a\r\n b\r\n\r\n", None),
    "upgrade, bare LF": (UPGRADE + b"X: a\n\r\n\r\n", None),
    "upgrade, other bytes in target": (HANDSHAKE.replace(b"/prod", b"/prod?\xff"), None),
    "upgrade, with a body": (UPGRADE + b"Content-Length: 5\r\n\r\nhello", None),
    "upgrade, chunked": (UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
    "upgrade, 300 headers": (UPGRADE + b"X: a\r\n" * 300 + b"\r\n", 431),
    "upgrade, no host": (HANDSHAKE.replace(b"Host: localhost\r\n", b""), 400),
    "upgrade, two hosts": (UPGRADE + b"Host: localhost\r\n\r\n", 400),
    "upgrade, two keys": (UPGRADE + b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n", 400),
    "upgrade, no connection": (HANDSHAKE.replace(b"Connection: Upgrade\r\n", b""), 426),
    "upgrade, no key": (HANDSHAKE.replace(b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n", b""), 400),
    "upgrade, key too short": (HANDSHAKE.replace(b"MDEyMzQ1Njc4OWFiY2RlZg==", b"MDEy"), 400),
    "upgrade, key not in base64": (HANDSHAKE.replace(b"MDEyMzQ1Njc4OWFiY2RlZg==", b"\xff"), 400),
    "upgrade, old version": (HANDSHAKE.replace(b"Version: 13", b"Version: 8"), 400),
    "upgrade, two versions": (UPGRADE + b"Sec-WebSocket-Version: 8\r\n\r\n", 400),
    "upgrade, bad extension": (UPGRADE + b"Sec-WebSocket-Extensions: ;=;\r\n\r\n", 400),
    "upgrade, bad subprotocol": (UPGRADE + b"Sec-WebSocket-Protocol: ,@,\r\n\r\n", 400),
    "upgrade, bad connection": (HANDSHAKE.replace(b"Connection: Upgrade", b"Connection: (,)"), 400),
    "upgrade by POST": (HANDSHAKE.replace(b"GET", b"POST").replace(b"Connection: ", b"Connection: close, "), 426),
}


@pytest.mark.parametrize(("sent", "expected"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_head_is_refused_or_cut_and_invokes_no_function(
    gateway: Gateway, dial: Dial, sent: bytes, expected: int | None
) -> None:
    """RFC 9112 sections 2 to 5, RFC 6455 section 4.2.1."""
    assert read_status(await send_and_read(gateway, dial, sent)) == expected
    assert gateway.functions.invoked == []


async def test_tls_is_cut_at_once_and_the_log_says_why(
    gateway: Gateway, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    assert await send_and_read(gateway, dial, b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(200)) == b""
    assert "a client speaks TLS" in caplog.text


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"*", 400),
        (b"/", 403),
        (b"/production", 403),
        (b"//", 403),
        (b"//prod", 403),
        (b"/../prod", 403),
        (b"/%70rod", 426),
        (b"/dev/../prod", 403),
        (b"/prod/%00", 426),
        (b"/prod/%", 426),
        (b"/prod/%zz%ff", 426),
        (b"http://localhost/prod", 426),
        (b"http://localhost:99999999/", 400),
        (b"http://[/", 400),
        (b"prod", 400),
    ],
    ids=repr,
)
async def test_odd_target_is_refused(gateway: Gateway, dial: Dial, target: bytes, expected: int) -> None:
    """RFC 9112 section 3.2."""
    plain = await send_and_read(gateway, dial, b"GET %s HTTP/1.1\r\n%s" % (target, CLOSE))
    upgrade = await send_and_read(gateway, dial, HANDSHAKE.replace(b"/prod", target))

    assert read_status(plain) == expected
    assert read_status(upgrade) == 403
    assert gateway.functions.invoked == []


@pytest.mark.parametrize("start", [b"GET /prod HTTP/1.1\r\n", UPGRADE], ids=["plain", "upgrade"])
async def test_too_large_head_is_431(gateway: Gateway, dial: Dial, start: bytes) -> None:
    sent = start + b"X: " + b"x" * sockets.MAX_HEAD_BYTES + b"\r\n" + CLOSE

    assert read_status(await send_and_read(gateway, dial, sent)) == 431


@pytest.mark.parametrize("rest", [b" HTTP/1.1\r\n" + CLOSE, HANDSHAKE.removeprefix(b"GET /prod")], ids=["plain", "ws"])
async def test_too_long_url_is_414(gateway: Gateway, dial: Dial, rest: bytes) -> None:
    """API Gateway's limit is 4096 characters."""
    assert read_status(await send_and_read(gateway, dial, b"GET /prod?x=" + b"x" * 4096 + rest)) == 414


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /prod\r\n",
        b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(200),
        HANDSHAKE.replace(b"\r\n", b"\n"),
        b"\r\n\r\n",
        b"\r\n" * 10_000,
    ],
    ids=["nothing", "HTTP/0.9", "TLS", "bare LF", "empty lines", "many empty lines"],
)
@pytest.mark.parametrize("drip", [b"", b"x", b"\r\n"], ids=["silent", "letters", "lines"])
async def test_head_that_does_not_end_is_cut(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch, sent: bytes, drip: bytes
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", SOON)
    client = await dial(gateway.port, sent)

    async with send_repeatedly(client, drip):
        assert read_status(await read_until_closed(client)) in {None, 400, 426}
    assert gateway.functions.invoked == []


async def test_time_limit_of_heads_does_not_end_open_connections(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", SOON)
    async with await gateway.connect() as peer:
        await read_until_closed(await dial(gateway.port))

        await peer.send("still here")

        assert (await gateway.functions.wait_for_event("$default"))["body"] == "still here"


async def test_next_head_on_a_connection_has_a_time_limit_too(
    serve: Serve, dial: Dial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", SOON)
    gateway = await serve()
    async with check_unharmed(gateway, caplog):
        client = await dial(gateway.port, b"GET /prod HTTP/1.1\r\nHost: localhost\r\n\r\nGET /")

        async with send_repeatedly(client, b"x"):
            assert read_status(await read_until_closed(client)) == 426


# Connections


@pytest.fixture
def many_files() -> Iterator[int]:
    """The number of connections, up to 2000, for which this process may open both ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 5000 if hard == resource.RLIM_INFINITY else min(5000, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield min(2000, (max(soft, wanted) - 500) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_thousands_of_silent_connections_do_not_keep_others_out(
    gateway: Gateway, dial: Dial, many_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", 600.0)
    for _ in range(0, many_files, 50):
        await asyncio.gather(*(dial(gateway.port) for _ in range(50)))
    await wait_until(lambda: len(gateway.server._unselected) >= many_files)

    assert await check_serves(gateway)
    assert len(gateway.server._unselected) >= many_files


async def test_more_connects_than_the_backlog_do_no_harm(gateway: Gateway) -> None:
    """The backlog is 100, and the gateway accepts nothing until this test awaits."""
    with ExitStack() as clients:
        for _ in range(300):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", gateway.port))
        assert await check_serves(gateway)


Leave = Callable[[RawClient], None]
LEAVING = pytest.mark.parametrize("leave", [reset, half_close])


@LEAVING
@pytest.mark.parametrize("sent", [b"", HANDSHAKE[:50], b"POST /prod HTTP/1.1\r\nContent-Le"], ids=["", "GET", "POST"])
async def test_client_that_leaves_within_its_head_is_forgotten(
    gateway: Gateway, dial: Dial, leave: Leave, sent: bytes
) -> None:
    client = await dial(gateway.port, sent)
    await wait_until(lambda: gateway.server._unselected)

    leave(client)

    assert await read_until_closed(client) == b""
    assert gateway.functions.invoked == []


async def test_client_that_leaves_before_it_is_accepted_does_no_harm(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(HANDSHAKE)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)

    assert await check_serves(gateway)


@LEAVING
@pytest.mark.parametrize("route", ["authorizer", "$connect"])
async def test_client_that_leaves_during_its_handshake_is_disconnected(
    gateway: Gateway, dial: Dial, leave: Leave, route: str
) -> None:
    may_answer = hold(gateway, route)
    client = await dial(gateway.port, HANDSHAKE)
    await gateway.functions.wait_for_event(route)

    leave(client)
    await read_until_closed(client)
    may_answer.set()

    assert await gateway.wait_for_disconnect() == (1006, "")
