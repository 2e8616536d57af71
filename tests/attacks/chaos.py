"""JWKS endpoints that misbehave: three tables of what the endpoint sends and what a client then gets.

A client gets `Allow`, `Deny`, or an error whose message ends with the text in the row. API Gateway answers 500 to an error.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import cycle
from typing import Any, NamedTuple

from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.fixtures.network import Answer, LoopbackHandler, LoopbackServer, Request

TICK_SECONDS = 0.01  # the interval between bytes that drip, and between checks for the client
PATIENCE_SECONDS = 8.0  # shorter than the function's timeout, so that the server ends the download
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close with an RST

Chaos = Callable[["ChaosServer"], Iterable[bytes]]
"""Yields all bytes of a response, with the status line; b"" only checks that the client is still connected."""
Table = dict[str, tuple[Chaos, str | tuple[str, ...]]]


class Keys(NamedTuple):
    signing: RSAKey  # the user pool's key
    rotated: RSAKey  # the user pool's next key
    attacker: RSAKey
    weak: RSAKey  # 1024 bits
    curve: ECKey
    secret: OctKey


class ChaosServer(LoopbackServer):
    """A JWKS endpoint. `switch_to` replaces its behaviour at any time; its redirects lead to `elsewhere`."""

    daemon_threads = False  # `server_close` joins them, so that none outlives the test

    def __init__(self, keys: Keys, elsewhere: str) -> None:
        super().__init__(Answer())
        self.RequestHandlerClass = ChaosHandler
        self.keys = keys
        self.elsewhere = elsewhere
        self.chaos: Chaos = good
        self.released = threading.Event()  # ends the behaviours that hang or drip
        self.connections: set[ChaosHandler] = set()  # the open ones
        self._accepting = threading.Event()
        self._accepting.set()
        self._queue: list[socket.socket] = []

    def switch_to(self, chaos: Chaos) -> None:
        self.chaos = chaos
        if chaos is never_accept:
            self._accepting.clear()
            self.socket.listen(0)  # one connection fills the queue, then the kernel answers no SYN
            self._queue.append(socket.create_connection(("127.0.0.1", self.server_port)))
        else:
            while self._queue:
                self._queue.pop().close()
            self.socket.listen(self.request_queue_size)
            self._accepting.set()

    def get_request(self) -> tuple[socket.socket, Any]:
        self._accepting.wait()
        return super().get_request()

    def ticks(self, seconds: float = TICK_SECONDS) -> Iterator[None]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.released.wait(seconds) and time.monotonic() < deadline:
            yield

    def wait(self) -> Iterator[bytes]:
        for _ in self.ticks():
            yield b""

    def __exit__(self, *exception: object) -> None:
        self.released.set()
        self.switch_to(send_nothing)
        super().__exit__(*exception)


class ChaosHandler(LoopbackHandler):
    server: ChaosServer

    def setup(self) -> None:
        self.server.connections.add(self)
        super().setup()

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:  # noqa: N802 - named by the standard library
        self.close_connection = True
        self.server.requests.append(Request(self.command, self.path, dict(self.headers), b""))
        self.connection.setblocking(False)
        try:
            for octets in self.server.chaos(self.server):
                self.send(octets)
        except ConnectionError:  # raised by the client's abort, or by the behaviour itself
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.connection.close()

    def send(self, octets: bytes) -> None:
        """Send. Raise ConnectionError when the client has closed, even if nothing can be sent."""
        while octets:
            try:
                octets = octets[self.connection.send(octets) :]
            except BlockingIOError:
                self.check_client()
                time.sleep(TICK_SECONDS)
        self.check_client()

    def check_client(self) -> None:
        with suppress(BlockingIOError):
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError

    def finish(self) -> None:
        super().finish()
        self.server.connections.discard(self)


# Answers


def build_response(body: bytes = b"", status: int = 200, *lines: str) -> bytes:
    """Return a response with these header lines, by default a Content-Length."""
    head = [f"HTTP/1.1 {status} Chaos", *(lines or [f"Content-Length: {len(body)}"])]
    return "\r\n".join([*head, "", ""]).encode() + body


def answer_with(octets: bytes, *, hang_up: bool = False) -> Chaos:
    """Send bytes, then wait until the client closes, or close with `hang_up`."""

    def send(server: ChaosServer) -> Iterator[bytes]:
        yield octets
        if not hang_up:
            yield from server.wait()

    return send


def build_jwk(key: RSAKey | ECKey | OctKey, *, private: bool = False, **changes: object) -> dict[str, object]:
    return {**key.as_dict(private=private), **changes}


def publish(jwks: Callable[[Keys], list[Any]]) -> Chaos:
    return lambda server: answer_with(build_response(json.dumps({"keys": jwks(server.keys)}).encode()))(server)


good = publish(lambda keys: [build_jwk(keys.signing)])


def publish_with(**changes: object) -> Chaos:
    """Publish the user pool's key and the attacker's with these members."""
    return publish(lambda keys: [{**build_jwk(key), **changes} for key in (keys.signing, keys.attacker)])


def publish_with_same_kid(jwks: Callable[[Keys], list[dict[str, object]]]) -> Chaos:
    """Publish keys, all with the `kid` of the user pool's key."""
    return publish(lambda keys: [{**each, "kid": keys.signing.kid} for each in jwks(keys)])


def publish_changed(change: Callable[[bytes], bytes], *, hang_up: bool = False) -> Chaos:
    """Send what `change` returns for the good JWK Set."""

    def send(server: ChaosServer) -> Iterable[bytes]:
        jwks = json.dumps({"keys": [build_jwk(server.keys.signing)]}).encode()
        return answer_with(change(jwks), hang_up=hang_up)(server)

    return send


def send_chunk(size: str) -> Chaos:
    """Send the good JWK Set as a chunk with this size field."""
    return publish_changed(lambda jwks: b"%b\r\n%b\r\n%b\r\n0\r\n\r\n" % (CHUNKED, size.encode(), jwks))


def redirect(status: int) -> Chaos:
    return lambda server: answer_with(
        build_response(b"", status, f"Location: {server.elsewhere}", "Content-Length: 0")
    )(server)


# Behaviour


def send_nothing(server: ChaosServer) -> Iterator[bytes]:
    yield from server.wait()


def never_accept(server: ChaosServer) -> Iterable[bytes]:
    """Do nothing. `switch_to` recognizes this function, and fills the queue of the listening socket."""
    return ()


def delay(seconds: float, then: Chaos) -> Chaos:
    def send(server: ChaosServer) -> Iterator[bytes]:
        server.released.wait(seconds)
        yield from then(server)

    return send


def drip(start: bytes, octets: bytes) -> Chaos:
    """Send `start` at once, then repeat `octets`, one byte at a time."""

    def send(server: ChaosServer) -> Iterator[bytes]:
        yield start
        for octet, _ in zip(cycle(octets), server.ticks(), strict=False):
            yield bytes([octet])

    return send


def flood(start: bytes, octets: bytes) -> Chaos:
    """Send `start`, then repeat `octets` as fast as possible."""

    def send(server: ChaosServer) -> Iterator[bytes]:
        yield start
        for _ in server.ticks(0):
            yield octets * 100

    return send


def reset(start: bytes) -> Chaos:
    def send(server: ChaosServer) -> Iterator[bytes]:
        yield start
        raise ConnectionResetError

    return send


# The tables

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
OK_AND_CLOSE = OK + b"Connection: close\r\n"
CHUNKED_AND_CLOSE = CHUNKED + b"Connection: close\r\n"
NO_JSON, NO_TEXT, TOO_DEEP = (
    f"malformed: {name}" for name in ("JSONDecodeError", "UnicodeDecodeError", "RecursionError")
)
NO_KEY = "the JWKS has no RSA signature key"
TOO_LONG = "sent over 65536 bytes"
SHORT_SECONDS = 0.2  # the timeout for downloads that never end
TIMEOUT = f" did not answer completely within {SHORT_SECONDS} s"
GARBAGE = random.Random(1).randbytes(2048)  # noqa: S311 - must be the same in each run

SOUND: Table = {
    "good": (good, "Allow"),
    "new key beside the old": (publish(lambda keys: [build_jwk(keys.rotated), build_jwk(keys.signing)]), "Allow"),
    "new key only": (publish(lambda keys: [build_jwk(keys.rotated)]), "Deny"),
    "slower than a connection may be": (delay(1.5, good), "Allow"),
    "in pieces": (
        publish_changed(lambda jwks: b"%b\r\n1\r\n{\r\n%x\r\n%b\r\n0\r\n\r\n" % (CHUNKED, len(jwks) - 1, jwks[1:])),
        "Allow",
    ),
    "called text": (
        publish_changed(
            lambda jwks: build_response(jwks, 200, "Content-Type: text/plain", f"Content-Length: {len(jwks)}")
        ),
        "Allow",
    ),
    "65536 bytes": (publish_changed(lambda jwks: build_response(jwks.ljust(65536))), "Allow"),
    "32 keys": (
        publish(lambda keys: [build_jwk(keys.signing, kid=f"{n}") for n in range(31)] + [build_jwk(keys.signing)]),
        "Allow",
    ),
    "same key twice": (publish(lambda keys: [build_jwk(keys.signing)] * 2), "Allow"),
    "bad key, then good": (
        publish_with_same_kid(lambda keys: [build_jwk(keys.curve), build_jwk(keys.signing)]),
        "Allow",
    ),
    "good key, then bad": (
        publish_with_same_kid(lambda keys: [build_jwk(keys.signing), build_jwk(keys.attacker, use="enc")]),
        "Allow",
    ),
    "kid in other case": (
        publish(lambda keys: [build_jwk(keys.signing, kid=str(keys.signing.kid).swapcase())]),
        "Deny",
    ),
    "not only keys": (publish(lambda keys: [None, 7, [], "key", {}, build_jwk(keys.signing)]), "Allow"),
}
FAULTY: Table = {
    **{
        f"{status}": (answer_with(build_response(b"", status)), f"answered {status}")
        for status in (204, 403, 404, 500, 503)
    },
    **{f"redirect {status}": (redirect(status), f"answered {status}") for status in (301, 302, 303, 307, 308)},
    "part of the content": (publish_changed(lambda jwks: build_response(jwks, 206)), "answered 206"),
    "keys in an error": (publish_changed(lambda jwks: build_response(jwks, 500)), "answered 500"),
    "error page": (answer_with(build_response(b"<html><title>Sorry</title></html>")), NO_JSON),
    "error object": (answer_with(build_response(b'{"message": "Sorry"}')), "malformed: KeyError"),
    "empty": (answer_with(build_response()), NO_JSON),
    "no keys": (answer_with(build_response(b'{"keys": []}')), NO_KEY),
    "NaN for keys": (answer_with(build_response(b'{"keys": NaN}')), "malformed: TypeError"),
    "5000 digits": (answer_with(build_response(b'{"keys": %s}' % (b"9" * 5000))), "malformed: ValueError"),
    "deep nesting": (answer_with(build_response(b"[" * 60_000)), TOO_DEEP),
    "deep kid": (answer_with(build_response(b'{"keys": [{"kid": %s' % (b"[" * 60_000))), TOO_DEEP),
    "garbage": (answer_with(build_response(GARBAGE)), NO_TEXT),
    "truncated": (publish_changed(lambda jwks: build_response(jwks[:-9])), NO_JSON),
    "two sets": (publish_changed(lambda jwks: build_response(jwks * 2)), NO_JSON),
    "gzip, unasked": (publish_changed(lambda jwks: build_response(gzip.compress(jwks))), NO_TEXT),
    "65537 bytes": (publish_changed(lambda jwks: build_response(jwks.ljust(65537))), TOO_LONG),
    "endless body": (flood(OK_AND_CLOSE + b"\r\n", b" "), TOO_LONG),
    "endless chunks": (flood(CHUNKED + b"\r\n", b"8\r\n        \r\n"), TOO_LONG),
    "endless chunk size": (flood(CHUNKED + b"\r\n1;", b"x"), "LineTooLong"),
    "33 keys": (publish(lambda keys: [build_jwk(keys.signing, kid=f"{n}") for n in range(33)]), "over 32 keys"),
    "length too short": (publish_changed(lambda jwks: build_response(jwks, 200, "Content-Length: 99")), NO_JSON),
    "cut short": (  # depends on the version of Python
        publish_changed(lambda jwks: build_response(jwks[:-9], 200, f"Content-Length: {len(jwks)}"), hang_up=True),
        (NO_JSON, "IncompleteRead"),
    ),
    "chunk without size": (send_chunk("zz"), "IncompleteRead"),
    "chunk too short": (send_chunk("9"), "IncompleteRead"),
    "chunk of negative size": (send_chunk("-5"), ": ValueError"),
    "elliptic curve": (publish_with_same_kid(lambda keys: [build_jwk(keys.curve)]), NO_KEY),
    "elliptic curve, called RSA": (publish_with_same_kid(lambda keys: [build_jwk(keys.curve, kty="RSA")]), NO_KEY),
    "symmetric": (publish_with_same_kid(lambda keys: [build_jwk(keys.secret, private=True)]), NO_KEY),
    "RSA, called symmetric": (publish_with(kty="oct"), NO_KEY),
    "use=enc": (publish_with(use="enc"), NO_KEY),
    **{f"alg={alg}": (publish_with(alg=alg), NO_KEY) for alg in ("RS512", "PS256", "HS256", "none", None)},
    "1024 bits": (publish_with_same_kid(lambda keys: [build_jwk(keys.weak)]), NO_KEY),
    "e=1": (publish_with(e="AQ"), NO_KEY),
    "e=65536": (publish_with(e="AQAA"), NO_KEY),
    "e=null": (publish_with(e=None), NO_KEY),
    "n=NaN": (publish_with(n=math.nan), NO_KEY),
    "n=!": (publish_with(n="!"), NO_KEY),
    **{f"kid={kid}": (publish_with(kid=kid), NO_KEY) for kid in (None, 7, "", ["signing1example="])},
    "private key": (publish(lambda keys: [build_jwk(keys.signing, private=True)]), NO_KEY),  # anybody can sign with it
    "private exponent": (
        publish(lambda keys: [build_jwk(keys.signing, d=build_jwk(keys.signing, private=True)["d"])]),
        NO_KEY,
    ),
    "private prime": (
        publish(lambda keys: [build_jwk(keys.signing, p=build_jwk(keys.signing, private=True)["p"])]),
        NO_KEY,
    ),
    "key_ops=sign": (publish_with(key_ops=["sign"]), NO_KEY),
    "key_ops=7": (publish_with(key_ops=7), NO_KEY),
    "two keys of a kid": (
        publish_with_same_kid(lambda keys: [build_jwk(keys.signing), build_jwk(keys.attacker)]),
        NO_KEY,
    ),
    "two keys of a kid, bad first": (
        publish_with_same_kid(lambda keys: [build_jwk(keys.attacker), build_jwk(keys.signing)]),
        NO_KEY,
    ),
    "hangs up": (answer_with(b"", hang_up=True), "RemoteDisconnected"),
    "reset": (reset(b""), "ConnectionResetError"),
    "reset in the head": (reset(OK + b"Content-Le"), "ConnectionResetError"),
    "reset in the body": (reset(OK + b'Content-Length: 99\r\n\r\n{"ke'), "ConnectionResetError"),
    "HTTP/0.9": (publish_changed(lambda jwks: jwks, hang_up=True), "BadStatusLine"),
    "HTTP/2.0": (publish_changed(lambda jwks: build_response(jwks).replace(b"/1.1", b"/2.0", 1)), "UnknownProtocol"),
    "no status": (answer_with(b"HTTP/1.1 OK\r\n\r\n"), "BadStatusLine"),
    "header flood": (flood(OK, b"X-Flood: 1\r\n"), "HTTPException"),
    "endless header": (flood(OK + b"X-Flood: ", b"1"), "LineTooLong"),
}
UNENDING: Table = {
    "never accepts": (never_accept, TIMEOUT),
    "never answers": (send_nothing, TIMEOUT),
    "head without end": (answer_with(OK), TIMEOUT),
    "body without end": (answer_with(OK + b'Content-Length: 99\r\n\r\n{"keys": ['), TIMEOUT),
    "last body without end": (answer_with(OK_AND_CLOSE + b'\r\n{"keys": ['), TIMEOUT),
    "length too long": (publish_changed(lambda jwks: build_response(jwks, 200, "Content-Length: 9999")), TIMEOUT),
    "status drips": (drip(b"", OK), TIMEOUT),
    "head drips": (drip(OK, b"X"), TIMEOUT),
    "body drips": (drip(OK + b"Content-Length: 9999\r\n\r\n", b" "), TIMEOUT),
    "last body drips": (drip(OK_AND_CLOSE + b"\r\n", b" "), TIMEOUT),
    "chunk size drips": (drip(CHUNKED + b"\r\n1;", b"x"), TIMEOUT),
    "trailer drips": (drip(CHUNKED + b"\r\n0\r\n", b"X: 1\r\n"), TIMEOUT),
    "trailer flood": (flood(CHUNKED + b"\r\n0\r\n", b"X: 1\r\n"), TIMEOUT),
    "last chunk size drips": (drip(CHUNKED_AND_CLOSE + b"\r\n1;", b"x"), TIMEOUT),
    "last trailer drips": (drip(CHUNKED_AND_CLOSE + b"\r\n0\r\n", b"X: 1\r\n"), TIMEOUT),
    "last trailer flood": (flood(CHUNKED_AND_CLOSE + b"\r\n0\r\n", b"X: 1\r\n"), TIMEOUT),
    "100 Continue flood": (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), TIMEOUT),
}
