"""How the authorizer downloads the user pool's keys: what it takes for an answer, and how long it waits for one."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.conftest import JWKS_PATH, Answer, LoopbackServer

GOOD = "signing1example="


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server whose one connection is up to the test; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=serve, args=[server])
        thread.start()
        try:
            yield f"localhost:{server.getsockname()[1]}"
        finally:
            thread.join()


# What it takes for an answer


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Encoding": "identity"}], ids=str)
def test_keys_are_read_from_the_body_whatever_the_headers_say(
    authorizer: ModuleType, jwks: LoopbackServer, headers: dict[str, str]
) -> None:
    jwks.answer = jwks.answer._replace(headers=headers)

    assert authorizer.key_set.find(GOOD)


def test_body_in_pieces_is_put_together(authorizer: ModuleType, jwks: LoopbackServer) -> None:
    (body,) = jwks.answer.body
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:1], body[1:100], body[100:], b"")]
    jwks.answer = Answer(headers={"Transfer-Encoding": "chunked"}, body=pieces)

    assert authorizer.key_set.find(GOOD)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        pytest.param(Answer(404), "answered 404", id="not found"),
        pytest.param(Answer(500), "answered 500", id="server error"),
        pytest.param(Answer(302, headers={"Location": JWKS_PATH}), "answered 302", id="redirect"),
        pytest.param(Answer(body=[b" " * 65536, b" "]), "sent over 65536 bytes", id="too much"),
        pytest.param(Answer(body=[b"<html>"]), "malformed: JSONDecodeError", id="HTML"),
        pytest.param(Answer(body=[b"\xff"]), "malformed: UnicodeDecodeError", id="not text"),
        pytest.param(Answer(body=[b"["] * 65536), "malformed: RecursionError", id="deep nesting"),
        pytest.param(Answer(body=[b"{}"]), "malformed: KeyError", id="empty object"),
        pytest.param(Answer(body=[b"[]"]), "malformed: TypeError", id="array"),
        pytest.param(Answer(body=[b'{"keys": null}']), "malformed: TypeError", id="null for keys"),
        pytest.param(Answer(body=[b'{"keys": ["key"]}']), "the JWKS ", id="text for a key"),
        pytest.param(
            Answer(body=[b'{"keys": [{"kty": "RSA", "kid": "signing1example="}]}']),
            "the JWKS ",
            id="key without modulus",
        ),
        pytest.param(Answer(body=[b'{"keys": []}']), "no RSA signature key", id="no key"),
        pytest.param(
            Answer(headers={"Content-Encoding": "gzip"}, body=[gzip.compress(b'{"keys": []}')]),
            "malformed: UnicodeDecodeError",
            id="compressed",
        ),
        pytest.param(
            Answer(headers={"Transfer-Encoding": "chunked"}, body=[b"c\r\n{"]), "IncompleteRead", id="cut short"
        ),
    ],
)
def test_bad_answer_makes_the_keys_unavailable(
    authorizer: ModuleType, jwks: LoopbackServer, answer: Answer, fault: str
) -> None:
    jwks.answer = answer

    with pytest.raises(authorizer.KeySetUnavailable, match=fault):
        authorizer.key_set.find(GOOD)
    assert len(jwks.requests) == 1


# How long it waits


HEAD_WITHOUT_END = b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 1000
BODY_WITHOUT_END = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 1000


@pytest.mark.parametrize("answer", [b"", HEAD_WITHOUT_END, BODY_WITHOUT_END], ids=["nothing", "head", "body"])
def test_server_that_never_comes_to_an_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, authorizer: ModuleType, answer: bytes
) -> None:
    """However many bytes it sends to be waited for."""
    monkeypatch.setattr(authorizer, "JWKS_SECONDS", 0.2)
    left = threading.Event()

    def drip(server: socket.socket) -> None:
        client, _ = server.accept()
        with client, contextlib.suppress(ConnectionError):
            for position in range(len(answer)):
                client.sendall(answer[position : position + 1])
                time.sleep(0.01)
            while client.recv(1024):
                pass
        left.set()

    with listening(drip) as address:
        with pytest.raises(authorizer.KeySetUnavailable, match="TimeoutError"):
            authorizer.RemoteKeySet(f"http://{address}/").find("any")

        assert left.wait(10), "the connection was left open"


def test_name_whose_resolution_takes_too_long_is_given_up(
    monkeypatch: pytest.MonkeyPatch, authorizer: ModuleType
) -> None:
    """And the server that it is found to be in the end is asked for nothing."""
    monkeypatch.setattr(authorizer, "JWKS_SECONDS", 0.2)
    given_up, received, resolve = threading.Event(), list[bytes](), socket.getaddrinfo

    def resolve_late(*name: Any, **options: Any) -> Any:
        given_up.wait(10)
        return resolve(*name, **options)

    def listen(server: socket.socket) -> None:
        client, _ = server.accept()
        with client:
            received.append(client.recv(1024))

    monkeypatch.setattr(socket, "getaddrinfo", resolve_late)
    with listening(listen) as address:
        with pytest.raises(authorizer.KeySetUnavailable, match="TimeoutError"):
            authorizer.RemoteKeySet(f"http://{address}/").find("any")
        given_up.set()

    assert received == [b""]


def test_refused_connection_makes_the_keys_unavailable(authorizer: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"

    with pytest.raises(authorizer.KeySetUnavailable, match="ConnectionRefusedError"):
        authorizer.RemoteKeySet(url).find("any")


# Whom it believes


def test_server_with_a_certificate_that_nobody_vouches_for_is_not_believed(
    authorizer: ModuleType, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed("localhost", tmp_path / "localhost.pem"))

    def greet(server: socket.socket) -> None:
        client, _ = server.accept()
        with client, contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as session:
            session.recv(1024)

    with listening(greet) as address, pytest.raises(authorizer.KeySetUnavailable, match="SSLCertVerificationError"):
        authorizer.RemoteKeySet(f"https://{address}/").find("any")


def self_signed(host: str, path: Path) -> Path:
    """A certificate and its key, made by the host itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    return path
