"""Frames of broken and hostile clients: the gateway fails their connection and is unharmed.

test_bad_input.py tests requests before the upgrade, test_floods.py too many valid frames.
"""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import AsyncIterator, Callable

import pytest

from local.apigateway import sockets
from tests.fixtures.gateway import HANDSHAKE, PATIENCE_SECONDS, Dial, Gateway, RawClient, Serve
from tests.fixtures.hostile import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    check_unharmed,
    close_frame,
    frame,
    half_close,
    hold,
    measure_peak_memory,
    open_websocket,
    read_until_closed,
    reset,
    send_repeatedly,
    wait_until,
)

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
HUGE = b"\x7f" + b"\xff" * 7  # the highest length of eight bytes
SOON = 0.05  # seconds, for time limits that a test waits for


@pytest.fixture
async def gateway(serve: Serve, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Gateway]:
    """A gateway with our three routes; the test fails if it is harmed."""
    gateway = await serve()
    async with check_unharmed(gateway, caplog):
        yield gateway


def deflate(data: bytes) -> bytes:
    """RFC 7692 section 7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


# Wrong frames


WRONG: dict[str, tuple[bytes, int]] = {
    "reserved data opcode": (frame(0x3), 1002),
    "reserved control opcode": (frame(0xB), 1002),
    "RSV1": (frame(TEXT, b"x", rsv=RSV1), 1002),
    "RSV2": (frame(TEXT, b"x", rsv=RSV2), 1002),
    "RSV3": (frame(TEXT, b"x", rsv=RSV3), 1002),
    "unmasked text": (frame(TEXT, b"x", masked=False), 1002),
    "unmasked ping": (frame(PING, b"x", masked=False), 1002),
    "fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "fragmented close": (frame(CLOSE, fin=False), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "long pong": (frame(PONG, b"x" * 126), 1002),
    "long close": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "close code of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close reason not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "text with a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text in overlong UTF-8": (frame(TEXT, b"\xc0\xaf"), 1007),
    "text with half a character": (frame(TEXT, b"\xc3"), 1007),
    "text not UTF-8 over two frames": (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28"), 1007),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "message within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "binary within a text": (frame(TEXT, b"x", fin=False) + frame(BINARY, b"y", fin=False), 1002),
    "length of exabytes": (b"\x81\xff" + HUGE, 1009),
    "negative length": (b"\x81\xff" + b"\xff" * 8, 1009),
    "length of exabytes within a message": (frame(TEXT, b"x", fin=False) + b"\x80\xff" + HUGE, 1009),
    "text after a close frame": (frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"x"), 1000),
    **{f"close code {code}": (frame(CLOSE, struct.pack("!H", code)), 1002) for code in (0, 999, 1004, 1005, 1006)},
    **{f"close code {code}": (frame(CLOSE, struct.pack("!H", code)), 1002) for code in (1015, 2999, 5000, 65_535)},
}


@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=WRONG.keys())
async def test_wrong_frame_fails_the_connection_without_a_reason(
    gateway: Gateway, dial: Dial, sent: bytes, code: int
) -> None:
    """RFC 6455 sections 5 to 8."""
    client = await open_websocket(gateway, dial)

    client.writer.write(sent)

    assert await read_until_closed(client) == close_frame(code)
    assert await gateway.wait_for_disconnect() == (code, "")
    assert "$default" not in gateway.functions.invoked


BOMB = deflate(bytes(50_000_000))
WRONGLY_DEFLATED: dict[str, tuple[bytes, int]] = {
    "corrupt": (frame(TEXT, b"\xff\xff\xff", rsv=RSV1), 1002),
    "corrupt later": (frame(TEXT, deflate(b"x"), rsv=RSV1, fin=False) + frame(CONTINUATION, b"\1\2\3\4"), 1002),
    "flagged twice": (frame(TEXT, rsv=RSV1, fin=False) + frame(CONTINUATION, rsv=RSV1), 1002),
    "flagged ping": (frame(PING, rsv=RSV1), 1002),
    "not UTF-8": (frame(TEXT, deflate(b"\xff"), rsv=RSV1), 1007),
    "bomb": (frame(TEXT, BOMB[:30_000], rsv=RSV1), 1009),
    "fragmented bomb": (
        frame(TEXT, BOMB[:20], rsv=RSV1, fin=False) + b"".join(frame(0, bytes([b]), fin=False) for b in BOMB[20:2000]),
        1009,
    ),
}


@pytest.mark.parametrize(("sent", "code"), WRONGLY_DEFLATED.values(), ids=WRONGLY_DEFLATED.keys())
async def test_wrongly_compressed_message_fails_the_connection_and_uses_little_memory(
    gateway: Gateway, dial: Dial, sent: bytes, code: int
) -> None:
    """RFC 7692 sections 6 and 7."""
    client = await open_websocket(gateway, dial, DEFLATE)

    with measure_peak_memory() as peak:
        client.writer.write(sent)
        said = await read_until_closed(client)

    assert said == close_frame(code)
    assert peak() < 2_000_000


async def test_message_of_endless_empty_fragments_is_too_large(gateway: Gateway, dial: Dial) -> None:
    client = await open_websocket(gateway, dial)
    client.writer.write(frame(TEXT, fin=False))

    with measure_peak_memory() as peak:
        async with send_repeatedly(client, frame(CONTINUATION, fin=False) * 1000, 0):
            said = await read_until_closed(client)

    assert said == close_frame(1009)
    assert peak() < 10_000_000


async def test_close_frame_within_a_message_ends_the_connection(gateway: Gateway, dial: Dial) -> None:
    client = await open_websocket(gateway, dial)

    client.writer.write(frame(TEXT, b"x", fin=False) + frame(CLOSE, b"\x03\xe8"))

    assert await read_until_closed(client) in {close_frame(1000), close_frame(1002)}
    assert await gateway.wait_for_disconnect() == (1000, "")


@pytest.mark.parametrize("sent", [frame(CLOSE), frame(0x3), HANDSHAKE, frame(TEXT, b"\xff"), frame(BINARY)], ids=repr)
async def test_wrong_frame_before_the_101_ends_the_connection(gateway: Gateway, dial: Dial, sent: bytes) -> None:
    """RFC 6455 section 4.1: a client waits for the 101."""
    client = await dial(gateway.port, HANDSHAKE + sent)

    await read_until_closed(client)

    code, _ = await gateway.wait_for_disconnect()
    assert code in {1002, 1003, 1005, 1006, 1007}
    assert "$default" not in gateway.functions.invoked


# Unusual frames that are valid


async def test_unusual_frames_are_understood(gateway: Gateway, dial: Dial) -> None:
    """RFC 6455 sections 5.4 to 5.6: empty fragments, control frames within a message, unsolicited pongs."""
    client = await open_websocket(gateway, dial)
    message = [
        frame(PONG, b"unasked"),
        frame(TEXT, b"", fin=False),
        frame(PING, b"within"),
        frame(CONTINUATION, b"caf\xc3", fin=False),
        frame(CONTINUATION, b"", fin=False),
        frame(CONTINUATION, b"\xa9"),
    ]

    client.writer.write(b"".join(message) + frame(TEXT) + frame(CLOSE, struct.pack("!H", 4999) + b"bye"))

    assert await read_until_closed(client) == b"\x8a\x06within" + b"\x88\x05\x13\x87bye"
    bodies = [(await gateway.functions.wait_for_event("$default"))["body"] for _ in range(2)]
    assert bodies == ["café", ""]
    assert await gateway.wait_for_disconnect() == (4999, "bye")


# Random input


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("extension", [b"", DEFLATE], ids=["", "deflate"])
async def test_random_bytes_do_no_harm(gateway: Gateway, dial: Dial, seed: int, extension: bytes) -> None:
    client = await open_websocket(gateway, dial, extension)

    client.writer.write(random.Random(seed).randbytes(5000))  # noqa: S311 - not a secret
    half_close(client)
    await read_until_closed(client)

    code, _ = await gateway.wait_for_disconnect()
    assert code in {1002, 1003, 1006, 1007, 1009}


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("extension", [b"", DEFLATE], ids=["", "deflate"])
async def test_random_frames_do_no_harm(gateway: Gateway, dial: Dial, seed: int, extension: bytes) -> None:
    client = await open_websocket(gateway, dial, extension)
    dice = random.Random(seed)  # noqa: S311 - not a secret

    def make_frame() -> bytes:
        payload = dice.choice([b"", b"{}", b"\x03\xe8", dice.randbytes(10), deflate(b"hello"), b"x" * 40_000])
        rsv = dice.choice([0, 0, 0, RSV1, RSV2])
        opcode = dice.choice([CONTINUATION, TEXT, TEXT, BINARY, CLOSE, PING, PONG, dice.randrange(16)])
        return frame(opcode, payload, fin=dice.random() < 0.7, rsv=rsv, masked=dice.random() < 0.95)

    client.writer.write(b"".join(make_frame() for _ in range(20)))
    half_close(client)
    await read_until_closed(client)

    code, _ = await gateway.wait_for_disconnect()
    assert code in {1000, 1002, 1003, 1005, 1006, 1007, 1009}


# Clients that leave, and clients that stay


@pytest.mark.parametrize("leave", [reset, half_close])
@pytest.mark.parametrize(
    "sent",
    [b"", b"\x81", frame(TEXT, b"hello")[:-2], frame(TEXT, b"hello", fin=False), frame(PING, b"x" * 125)[:50]],
    ids=["after the 101", "in a header", "in a frame", "in a message", "in a ping"],
)
async def test_client_that_leaves_at_any_moment_is_disconnected(
    gateway: Gateway, dial: Dial, leave: Callable[[RawClient], None], sent: bytes
) -> None:
    client = await open_websocket(gateway, dial)
    client.writer.write(sent)

    leave(client)
    await read_until_closed(client)

    assert await gateway.wait_for_disconnect() == (1006, "")
    assert "$default" not in gateway.functions.invoked


@pytest.mark.parametrize(
    ("leave", "code"),
    [(reset, 1006), (half_close, 1006), (lambda client: client.writer.write(frame(CLOSE, b"\x03\xe8")), 1000)],
    ids=["reset", "half_close", "close"],
)
async def test_client_that_leaves_while_its_message_is_answered_is_disconnected(
    gateway: Gateway, dial: Dial, leave: Callable[[RawClient], None], code: int
) -> None:
    may_answer = hold(gateway, "$default")
    client = await open_websocket(gateway, dial)
    client.writer.write(frame(TEXT, b"hello"))
    await gateway.functions.wait_for_event("$default")

    leave(client)
    await read_until_closed(client)

    assert await gateway.wait_for_disconnect() == (code, "")
    may_answer.set()


STAYING = {
    "reserved opcode": HANDSHAKE + frame(0x3),
    "not UTF-8": HANDSHAKE + frame(TEXT, b"\xff"),
    "binary": HANDSHAKE + frame(BINARY),
    "close": HANDSHAKE + frame(CLOSE),
    "malformed handshake": HANDSHAKE.replace(b"\r\n\r\n", b"\r\nno colon\r\n\r\n"),
    "refused handshake": HANDSHAKE.replace(b"Version: 13", b"Version: 8"),
}


async def connect_and_stay(gateway: Gateway, dial: Dial, sent: bytes) -> RawClient:
    """Return a client that has sent this, frames after their 101, and does not close when the gateway does."""
    head, end, frames = sent.partition(b"\r\n\r\n")
    client = await dial(gateway.port, head + end)
    if frames:
        await client.read_head()
        client.writer.write(frames)
    await client.reader.read()
    return client


@pytest.mark.parametrize("sent", STAYING.values(), ids=STAYING.keys())
@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "talking"])
async def test_client_that_does_not_close_is_cut(
    gateway: Gateway, dial: Dial, monkeypatch: pytest.MonkeyPatch, sent: bytes, drip: bytes
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", SOON)
    client = await connect_and_stay(gateway, dial, sent)

    async with send_repeatedly(client, drip):
        await wait_until(lambda: not gateway.server._sockets)
        assert gateway.server._sockets == set()


@pytest.mark.parametrize("kind", ["close", "refused handshake"])
async def test_stop_does_not_wait_for_a_client_that_does_not_close(serve: Serve, dial: Dial, kind: str) -> None:
    gateway = await serve()
    await connect_and_stay(gateway, dial, STAYING[kind])

    async with asyncio.timeout(PATIENCE_SECONDS):
        await gateway.server.stop()

    assert gateway.server._sockets == set()
