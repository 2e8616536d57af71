"""Calls of `@connections` by broken and hostile callers: they are answered or aborted, and disturb no one else."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator, Callable

import pytest

from local.apigateway import sockets
from tests.fixtures.gateway import Dial, Gateway, RawClient, Serve, receive
from tests.fixtures.hostile import (
    call,
    check_serves,
    check_unharmed,
    half_close,
    measure_peak_memory,
    post,
    read_status,
    read_until_closed,
    reset,
    send_and_read,
    send_repeatedly,
    wait_until,
)

SOON = 0.2  # seconds, for limits that a test waits to pass
CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture
async def gateway(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """A gateway with short timeouts. The test fails if the gateway does not work afterwards."""
    monkeypatch.setattr(sockets, "REQUEST_SECONDS", SOON)
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", SOON)
    gateway = await serve()
    async with check_unharmed(gateway, caplog):
        yield gateway


async def send_valid_post(gateway: Gateway, dial: Dial, connection_id: str) -> int | None:
    """Return the status of a valid call."""
    return read_status(
        await send_and_read(gateway, dial, post(connection_id, CLOSE + b"Content-Length: 4\r\n", b"next"))
    )


async def test_any_other_connection_id_is_a_bad_request_that_quotes_it(gateway: Gateway, dial: Dial) -> None:
    ids = {
        "%ff%fe": "\ufffd\ufffd",
        "a%0d%0aSet-Cookie:%20a=b": "a\r\nSet-Cookie: a=b",
        "%00": "\0",
        "%": "%",
        "%zz%1": "%zz%1",
        "%22%5c%3cscript%3e": '"\\<script>',
        "..%2f..": "../..",
        "*": "*",
        "L0SM9cOFvHcCIhw": "L0SM9cOFvHcCIhw",
        "L0SM9cOFvHcCIhx=": "L0SM9cOFvHcCIhx=",
        "x" * 3000: "x" * 3000,
    }
    for sent, quoted in ids.items():
        said = await send_and_read(gateway, dial, call("GET", sent, CLOSE))

        head, _, body = said.partition(b"\r\n\r\n")
        assert read_status(head) == 400
        assert b"Set-Cookie" not in head
        assert json.loads(body) == {"message": f"Invalid connectionId: {quoted}"}


ZEROS = gzip.compress(bytes(100_000_000))
BROKEN: dict[str, tuple[bytes, bytes, int]] = {
    "length negative": (b"Content-Length: -1\r\n", b"hello", 400),
    "length signed": (b"Content-Length: +5\r\n", b"hello", 400),
    "length no number": (b"Content-Length: 1e1\r\n", b"hello", 400),
    "length astronomic": (b"Content-Length: 99999999999999999999999\r\n", b"hello", 400),
    "length twice": (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!", 400),
    "length too long": (b"Content-Length: 6\r\n", b"hello", 408),
    "never begun": (b"Content-Length: 5\r\n", b"", 408),
    "100 MB declared": (b"Content-Length: 100000000\r\n", b"hello", 413),
    "chunk too long": (CHUNKED, b"6\r\nhello\r\n0\r\n\r\n", 400),
    "chunk too short": (CHUNKED, b"4\r\nhello\r\n0\r\n\r\n", 400),
    "chunk negative": (CHUNKED, b"-5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk no number": (CHUNKED, b"5\r\nhello\r\nzz\r\n", 400),
    "chunk huge": (CHUNKED, b"ffffffffffffffff1\r\nhello", 400),
    "chunk large": (CHUNKED, b"40000000\r\nhello", 408),
    "chunks without end": (CHUNKED, b"5\r\nhello\r\n", 408),
    "chunked unlike": (b"Transfer-Encoding: gzip, chunked, identity\r\n", b"5\r\nhello\r\n0\r\n\r\n", 400),
    "not UTF-8": (CLOSE + b"Content-Length: 2\r\n", b"\xc3\x28", 400),
    "gzip": (CLOSE + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(ZEROS), ZEROS, 400),
}


@pytest.mark.parametrize(("headers", "body", "expected"), BROKEN.values(), ids=BROKEN.keys())
async def test_broken_body_is_refused_and_not_delivered(
    gateway: Gateway, dial: Dial, headers: bytes, body: bytes, expected: int
) -> None:
    peer, connection_id = await gateway.connect_with_id()
    async with peer:
        broken = await send_and_read(gateway, dial, post(connection_id, headers, body))

        assert read_status(broken) == expected
        assert await send_valid_post(gateway, dial, connection_id) == 200
        assert await receive(peer) == "next"


async def test_client_that_asks_before_it_sends_is_told_to(gateway: Gateway, dial: Dial) -> None:
    """RFC 9110 section 10.1.1."""
    peer, connection_id = await gateway.connect_with_id()
    async with peer:
        whole = post(connection_id, b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"hello")
        client = await dial(gateway.port, whole.removesuffix(b"hello"))
        interim = await client.read_head()
        client.writer.write(b"hello")

        assert (read_status(interim), read_status(await client.read_head())) == (100, 200)
        assert await receive(peer) == "hello"


async def test_chunk_that_is_broken_later_is_refused(gateway: Gateway, dial: Dial) -> None:
    peer, connection_id = await gateway.connect_with_id()
    async with peer:
        client = await dial(gateway.port, post(connection_id, CHUNKED, b"5\r\nhello\r\n"))
        async with send_repeatedly(client, b"z"):
            assert read_status(await read_until_closed(client)) in {400, 408}


async def test_slow_body_times_out(gateway: Gateway, dial: Dial) -> None:
    peer, connection_id = await gateway.connect_with_id()
    async with peer:
        client = await dial(gateway.port, post(connection_id, b"Content-Length: 100000\r\n"))
        async with send_repeatedly(client, b"x"):
            assert read_status(await read_until_closed(client)) == 408


async def test_body_without_end_is_refused_and_not_kept(gateway: Gateway, dial: Dial) -> None:
    chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    peer, connection_id = await gateway.connect_with_id()
    async with peer:
        client = await dial(gateway.port, post(connection_id, CHUNKED))
        with measure_peak_memory() as peak:
            async with send_repeatedly(client, chunk, 0):
                said = await read_until_closed(client)

    assert read_status(said) == 413
    assert peak() < 4_000_000


@pytest.mark.parametrize("leave", [reset, half_close])
@pytest.mark.parametrize(
    ("headers", "body"), [(b"Content-Length: 10\r\n", b"hello"), (CHUNKED, b"5\r\nhel")], ids=["length", "chunk"]
)
async def test_client_that_leaves_within_a_body_is_forgotten(
    gateway: Gateway, dial: Dial, leave: Callable[[RawClient], None], headers: bytes, body: bytes
) -> None:
    peer, connection_id = await gateway.connect_with_id()
    async with peer:
        client = await dial(gateway.port, post(connection_id, headers, body))
        await wait_until(lambda: gateway.server._http.connections)

        leave(client)

        assert await read_until_closed(client) == b""


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\n" + CHUNKED,
        CHUNKED + b"Content-Length: 5\r\n",
        CHUNKED + b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"X: a\rContent-Length: 0\r\n" + CHUNKED,
        b"Content-Length: 5, 5\r\n",
    ],
    ids=repr,
)
async def test_request_cannot_be_smuggled_behind_another(gateway: Gateway, dial: Dial, headers: bytes) -> None:
    """RFC 9112 section 11.2."""
    peer, connection_id = await gateway.connect_with_id()
    async with peer:
        smuggled = b"0\r\n\r\n" + post(connection_id, b"Content-Length: 8\r\n", b"smuggled")
        said = await send_and_read(gateway, dial, post(connection_id, headers, smuggled))

        assert (read_status(said), said.count(b"HTTP/1.")) == (400, 1)
        assert await send_valid_post(gateway, dial, connection_id) == 200
        assert await receive(peer) == "next"


async def test_pipelined_requests_are_answered_in_turn(gateway: Gateway, dial: Dial) -> None:
    """RFC 9112 section 9.3.2. Requests behind a malformed one are not answered."""
    peer, connection_id = await gateway.connect_with_id(user_agent_header=None)
    async with peer:
        gets = b"".join(call("GET", each) for each in [connection_id, "x", "y", connection_id] * 50)
        good = read_statuses(
            await send_and_read(gateway, dial, gets + b"GET / HTTP/1.1\r\nHost: localhost\r\n" + CLOSE + b"\r\n")
        )
        *before, last = read_statuses(await send_and_read(gateway, dial, gets + b"garbage\r\n\r\n" + gets))

    expected = [200, 400, 400, 200] * 50
    assert good == [*expected, 403]
    assert before == expected[: len(before)]
    assert last == 400


def read_statuses(answers: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answers)]


async def test_client_that_reads_no_answers_is_not_waited_for(gateway: Gateway, dial: Dial) -> None:
    client = await dial(gateway.port)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined] # it is a socket's
    async with send_repeatedly(client, b"GET /prod HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000, 0):
        await wait_until(lambda: client.writer.transport.get_write_buffer_size() > 0)
        assert await check_serves(gateway)
    reset(client)
