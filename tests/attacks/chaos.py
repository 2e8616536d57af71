"""JWKS endpoints that misbehave: three tables, each row with what the endpoint sends and what a client then gets.

A client gets `Allow`, `Deny`, or an error, whose message ends with the text in the row; API Gateway answers 500 for it.
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

TICK_SECONDS = 0.01  # between two octets of a drip, and between two looks at whether the client is still there
PATIENCE_SECONDS = 8.0  # less than the function's timeout: then it is the server that hangs up
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close with an RST

Chaos = Callable[["ChaosServer"], Iterable[bytes]]
"""Yields all that the server sends for a request, with the status line; b"" waits for the client to hang up."""
Table = dict[str, tuple[Chaos, str | tuple[str, ...]]]


class Keys(NamedTuple):
    signing: RSAKey  # the user pool's
    rotated: RSAKey  # the user pool's next one
    attacker: RSAKey
    weak: RSAKey  # 1024 bits
    curve: ECKey
    secret: OctKey


class ChaosServer(LoopbackServer):
    """An endpoint whose behaviour `turn` replaces at any time; its redirects lead to `elsewhere`."""

    daemon_threads = False  # none outlives the test

    def __init__(self, keys: Keys, elsewhere: str) -> None:
        super().__init__(Answer())
        self.RequestHandlerClass = ChaosHandler
        self.keys = keys
        self.elsewhere = elsewhere
        self.chaos: Chaos = good
        self.released = threading.Event()  # ends all that hangs or drips
        self.connections: set[ChaosHandler] = set()  # the open ones
        self._accepting = threading.Event()
        self._accepting.set()
        self._queue: list[socket.socket] = []

    def turn(self, chaos: Chaos) -> None:
        self.chaos = chaos
        if chaos is never_accepting:
            self._accepting.clear()
            self.socket.listen(0)  # one connection may queue up, then the kernel answers no more
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
        self.turn(silence)
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
        except ConnectionError:  # the client's, or the chaos itself
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.connection.close()

    def send(self, octets: bytes) -> None:
        """Send, and raise ConnectionError once the client has hung up, also if nothing can be sent."""
        while octets:
            try:
                octets = octets[self.connection.send(octets) :]
            except BlockingIOError:
                self.expect_client()
                time.sleep(TICK_SECONDS)
        self.expect_client()

    def expect_client(self) -> None:
        with suppress(BlockingIOError):
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError

    def finish(self) -> None:
        super().finish()
        self.server.connections.discard(self)


# Answers


def http(body: bytes = b"", status: int = 200, *lines: str) -> bytes:
    """Return an answer with these header lines, or with a Content-Length."""
    head = [f"HTTP/1.1 {status} Chaos", *(lines or [f"Content-Length: {len(body)}"])]
    return "\r\n".join([*head, "", ""]).encode() + body


def say(octets: bytes, *, hang_up: bool = False) -> Chaos:
    """Send this; then the client must hang up, as after a good answer, unless the server does."""

    def said(server: ChaosServer) -> Iterator[bytes]:
        yield octets
        if not hang_up:
            yield from server.wait()

    return said


def jwk(key: RSAKey | ECKey | OctKey, *, private: bool = False, **changes: object) -> dict[str, object]:
    return {**key.as_dict(private=private), **changes}


def publish(jwks: Callable[[Keys], list[Any]]) -> Chaos:
    return lambda server: say(http(json.dumps({"keys": jwks(server.keys)}).encode()))(server)


good = publish(lambda keys: [jwk(keys.signing)])


def odd(**changes: object) -> Chaos:
    """Publish the user pool's key and the attacker's, both with these members."""
    return publish(lambda keys: [{**jwk(key), **changes} for key in (keys.signing, keys.attacker)])


def same_kid(jwks: Callable[[Keys], list[dict[str, object]]]) -> Chaos:
    """Publish these, all with the `kid` of the user pool's key."""
    return publish(lambda keys: [{**each, "kid": keys.signing.kid} for each in jwks(keys)])


def spoil(spoilt: Callable[[bytes], bytes], *, hang_up: bool = False) -> Chaos:
    """Send what a function makes of the good JWK Set."""

    def said(server: ChaosServer) -> Iterable[bytes]:
        jwks = json.dumps({"keys": [jwk(server.keys.signing)]}).encode()
        return say(spoilt(jwks), hang_up=hang_up)(server)

    return said


def chunk(size: str) -> Chaos:
    """Send the good JWK Set as a chunk that gives another size."""
    return spoil(lambda jwks: b"%b\r\n%b\r\n%b\r\n0\r\n\r\n" % (CHUNKED, size.encode(), jwks))


def redirect(status: int) -> Chaos:
    return lambda server: say(http(b"", status, f"Location: {server.elsewhere}", "Content-Length: 0"))(server)


# Behaviour


def silence(server: ChaosServer) -> Iterator[bytes]:
    yield from server.wait()


def never_accepting(server: ChaosServer) -> Iterable[bytes]:
    """Never run: `turn` fills the queue of the listening socket."""
    return ()


def slow(seconds: float, then: Chaos) -> Chaos:
    def said(server: ChaosServer) -> Iterator[bytes]:
        server.released.wait(seconds)
        yield from then(server)

    return said


def drip(start: bytes, octets: bytes) -> Chaos:
    """Send the start at once, then the octets one by one, again and again."""

    def said(server: ChaosServer) -> Iterator[bytes]:
        yield start
        for octet, _ in zip(cycle(octets), server.ticks(), strict=False):
            yield bytes([octet])

    return said


def flood(start: bytes, octets: bytes) -> Chaos:
    """Send the octets again and again, as fast as possible."""

    def said(server: ChaosServer) -> Iterator[bytes]:
        yield start
        for _ in server.ticks(0):
            yield octets * 100

    return said


def reset(start: bytes) -> Chaos:
    def said(server: ChaosServer) -> Iterator[bytes]:
        yield start
        raise ConnectionResetError

    return said


# The tables

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
LAST = OK + b"Connection: close\r\n"
LAST_CHUNKED = CHUNKED + b"Connection: close\r\n"
NO_JSON, NO_TEXT, TOO_DEEP = (
    f"malformed: {name}" for name in ("JSONDecodeError", "UnicodeDecodeError", "RecursionError")
)
NO_KEY = "the JWKS has no RSA signature key"
TOO_LONG = "sent over 65536 bytes"
SHORT_SECONDS = 0.2  # for a download that never ends
TIMEOUT = f" did not answer completely within {SHORT_SECONDS} s"
GARBAGE = random.Random(1).randbytes(2048)  # noqa: S311 - the same each time

SOUND: Table = {
    "good": (good, "Allow"),
    "new key beside the old": (publish(lambda keys: [jwk(keys.rotated), jwk(keys.signing)]), "Allow"),
    "new key only": (publish(lambda keys: [jwk(keys.rotated)]), "Deny"),
    "slower than a connection may be": (slow(1.5, good), "Allow"),
    "in pieces": (
        spoil(lambda jwks: b"%b\r\n1\r\n{\r\n%x\r\n%b\r\n0\r\n\r\n" % (CHUNKED, len(jwks) - 1, jwks[1:])),
        "Allow",
    ),
    "called text": (
        spoil(lambda jwks: http(jwks, 200, "Content-Type: text/plain", f"Content-Length: {len(jwks)}")),
        "Allow",
    ),
    "65536 bytes": (spoil(lambda jwks: http(jwks.ljust(65536))), "Allow"),
    "32 keys": (
        publish(lambda keys: [jwk(keys.signing, kid=f"{n}") for n in range(31)] + [jwk(keys.signing)]),
        "Allow",
    ),
    "same key twice": (publish(lambda keys: [jwk(keys.signing)] * 2), "Allow"),
    "bad key, then good": (same_kid(lambda keys: [jwk(keys.curve), jwk(keys.signing)]), "Allow"),
    "good key, then bad": (same_kid(lambda keys: [jwk(keys.signing), jwk(keys.attacker, use="enc")]), "Allow"),
    "kid in other case": (publish(lambda keys: [jwk(keys.signing, kid=str(keys.signing.kid).swapcase())]), "Deny"),
    "not only keys": (publish(lambda keys: [None, 7, [], "key", {}, jwk(keys.signing)]), "Allow"),
}
FAULTY: Table = {
    **{f"{status}": (say(http(b"", status)), f"answered {status}") for status in (204, 403, 404, 500, 503)},
    **{f"redirect {status}": (redirect(status), f"answered {status}") for status in (301, 302, 303, 307, 308)},
    "part of the content": (spoil(lambda jwks: http(jwks, 206)), "answered 206"),
    "keys in an error": (spoil(lambda jwks: http(jwks, 500)), "answered 500"),
    "error page": (say(http(b"<html><title>Sorry</title></html>")), NO_JSON),
    "error object": (say(http(b'{"message": "Sorry"}')), "malformed: KeyError"),
    "empty": (say(http()), NO_JSON),
    "no keys": (say(http(b'{"keys": []}')), NO_KEY),
    "NaN for keys": (say(http(b'{"keys": NaN}')), "malformed: TypeError"),
    "5000 digits": (say(http(b'{"keys": %s}' % (b"9" * 5000))), "malformed: ValueError"),
    "deep nesting": (say(http(b"[" * 60_000)), TOO_DEEP),
    "deep kid": (say(http(b'{"keys": [{"kid": %s' % (b"[" * 60_000))), TOO_DEEP),
    "garbage": (say(http(GARBAGE)), NO_TEXT),
    "truncated": (spoil(lambda jwks: http(jwks[:-9])), NO_JSON),
    "two sets": (spoil(lambda jwks: http(jwks * 2)), NO_JSON),
    "gzip, unasked": (spoil(lambda jwks: http(gzip.compress(jwks))), NO_TEXT),
    "65537 bytes": (spoil(lambda jwks: http(jwks.ljust(65537))), TOO_LONG),
    "endless body": (flood(LAST + b"\r\n", b" "), TOO_LONG),
    "endless chunks": (flood(CHUNKED + b"\r\n", b"8\r\n        \r\n"), TOO_LONG),
    "endless chunk size": (flood(CHUNKED + b"\r\n1;", b"x"), "LineTooLong"),
    "33 keys": (publish(lambda keys: [jwk(keys.signing, kid=f"{n}") for n in range(33)]), "over 32 keys"),
    "length too short": (spoil(lambda jwks: http(jwks, 200, "Content-Length: 99")), NO_JSON),
    "cut short": (  # either, by Python's version
        spoil(lambda jwks: http(jwks[:-9], 200, f"Content-Length: {len(jwks)}"), hang_up=True),
        (NO_JSON, "IncompleteRead"),
    ),
    "chunk without size": (chunk("zz"), "IncompleteRead"),
    "chunk too short": (chunk("9"), "IncompleteRead"),
    "chunk of negative size": (chunk("-5"), ": ValueError"),
    "elliptic curve": (same_kid(lambda keys: [jwk(keys.curve)]), NO_KEY),
    "elliptic curve, called RSA": (same_kid(lambda keys: [jwk(keys.curve, kty="RSA")]), NO_KEY),
    "symmetric": (same_kid(lambda keys: [jwk(keys.secret, private=True)]), NO_KEY),
    "RSA, called symmetric": (odd(kty="oct"), NO_KEY),
    "use=enc": (odd(use="enc"), NO_KEY),
    **{f"alg={alg}": (odd(alg=alg), NO_KEY) for alg in ("RS512", "PS256", "HS256", "none", None)},
    "1024 bits": (same_kid(lambda keys: [jwk(keys.weak)]), NO_KEY),
    "e=1": (odd(e="AQ"), NO_KEY),
    "e=65536": (odd(e="AQAA"), NO_KEY),
    "e=null": (odd(e=None), NO_KEY),
    "n=NaN": (odd(n=math.nan), NO_KEY),
    "n=!": (odd(n="!"), NO_KEY),
    **{f"kid={kid}": (odd(kid=kid), NO_KEY) for kid in (None, 7, "", ["signing1example="])},
    "private key": (publish(lambda keys: [jwk(keys.signing, private=True)]), NO_KEY),  # so anybody may have signed
    "private exponent": (publish(lambda keys: [jwk(keys.signing, d=jwk(keys.signing, private=True)["d"])]), NO_KEY),
    "private prime": (publish(lambda keys: [jwk(keys.signing, p=jwk(keys.signing, private=True)["p"])]), NO_KEY),
    "key_ops=sign": (odd(key_ops=["sign"]), NO_KEY),
    "key_ops=7": (odd(key_ops=7), NO_KEY),
    "two keys of a kid": (same_kid(lambda keys: [jwk(keys.signing), jwk(keys.attacker)]), NO_KEY),
    "two keys of a kid, bad first": (same_kid(lambda keys: [jwk(keys.attacker), jwk(keys.signing)]), NO_KEY),
    "hangs up": (say(b"", hang_up=True), "RemoteDisconnected"),
    "reset": (reset(b""), "ConnectionResetError"),
    "reset in the head": (reset(OK + b"Content-Le"), "ConnectionResetError"),
    "reset in the body": (reset(OK + b'Content-Length: 99\r\n\r\n{"ke'), "ConnectionResetError"),
    "HTTP/0.9": (spoil(lambda jwks: jwks, hang_up=True), "BadStatusLine"),
    "HTTP/2.0": (spoil(lambda jwks: http(jwks).replace(b"/1.1", b"/2.0", 1)), "UnknownProtocol"),
    "no status": (say(b"HTTP/1.1 OK\r\n\r\n"), "BadStatusLine"),
    "header flood": (flood(OK, b"X-Flood: 1\r\n"), "HTTPException"),
    "endless header": (flood(OK + b"X-Flood: ", b"1"), "LineTooLong"),
}
UNENDING: Table = {
    "never accepts": (never_accepting, TIMEOUT),
    "never answers": (silence, TIMEOUT),
    "head without end": (say(OK), TIMEOUT),
    "body without end": (say(OK + b'Content-Length: 99\r\n\r\n{"keys": ['), TIMEOUT),
    "last body without end": (say(LAST + b'\r\n{"keys": ['), TIMEOUT),
    "length too long": (spoil(lambda jwks: http(jwks, 200, "Content-Length: 9999")), TIMEOUT),
    "status drips": (drip(b"", OK), TIMEOUT),
    "head drips": (drip(OK, b"X"), TIMEOUT),
    "body drips": (drip(OK + b"Content-Length: 9999\r\n\r\n", b" "), TIMEOUT),
    "last body drips": (drip(LAST + b"\r\n", b" "), TIMEOUT),
    "chunk size drips": (drip(CHUNKED + b"\r\n1;", b"x"), TIMEOUT),
    "trailer drips": (drip(CHUNKED + b"\r\n0\r\n", b"X: 1\r\n"), TIMEOUT),
    "trailer flood": (flood(CHUNKED + b"\r\n0\r\n", b"X: 1\r\n"), TIMEOUT),
    "last chunk size drips": (drip(LAST_CHUNKED + b"\r\n1;", b"x"), TIMEOUT),
    "last trailer drips": (drip(LAST_CHUNKED + b"\r\n0\r\n", b"X: 1\r\n"), TIMEOUT),
    "last trailer flood": (flood(LAST_CHUNKED + b"\r\n0\r\n", b"X: 1\r\n"), TIMEOUT),
    "100 Continue flood": (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), TIMEOUT),
}
