"""Calls of `@connections` over TLS and through a proxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
from botocore.exceptions import ClientError, ProxyConnectionError, SSLError

from benchmarks.certificate import make_tls
from ops.management import Management
from tests.fixtures.network import Answer, LoopbackServer
from tests.fixtures.ops import GONE, create_session


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    """Run a server whose certificate is in AWS_CA_BUNDLE."""
    tls = make_tls(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls.certificate))
    with LoopbackServer(Answer(headers={"Content-Length": "0"})) as server:
        server.socket = tls.context.wrap_socket(server.socket, server_side=True)
        yield server


def create_management(url: str) -> Management:
    return Management(f"{url}/prod/", "us-east-1", create_session(), 1)


def get_https_url(server: LoopbackServer) -> str:
    return server.url.replace("http:", "https:")


def test_post_over_tls_is_signed(tls_server: LoopbackServer) -> None:
    called = create_management(get_https_url(tls_server))

    called.post(GONE, b"news")
    called.close()

    (request,) = tls_server.requests
    assert (request.method, request.path, request.body) == ("POST", "/prod/%40connections/G0neOFvHcCIhwAA%3D", b"news")
    assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")


def test_unknown_certificate_is_refused(tls_server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")

    with pytest.raises(SSLError, match="certificate verify failed"):
        create_management(get_https_url(tls_server)).post(GONE, b"news")
    assert tls_server.requests == []


def test_proxy_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []

    def refuse(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            received.append(client.recv(4096))
            client.sendall(b"HTTP/1.1 503 Not now\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=[listener])
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://ada:p%40ss@127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        called = create_management("https://abcdef123.execute-api.us-east-1.amazonaws.com")
        with pytest.raises(ProxyConnectionError):
            called.post(GONE, b"news")
        thread.join()

    line, *headers = received[0].decode().split("\r\n")
    assert line.startswith("CONNECT abcdef123.execute-api.us-east-1.amazonaws.com:443 ")
    assert "Proxy-Authorization: Basic YWRhOnBAc3M=" in headers


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (Answer(410, headers={"x-amzn-ErrorType": "GoneException"}), "GoneException", "GoneException"),
        (
            Answer(403, [b'{"Message":"User: x"}'], {"x-amzn-ErrorType": "AccessDeniedException:http://x"}),
            "AccessDeniedException",
            "User: x",
        ),
        (Answer(502, [b"<html>"]), "status 502", "status 502"),
        (Answer(500, [b"[1]"]), "status 500", "status 500"),
    ],
    ids=["gone", "denied", "no JSON", "no object"],
)
def test_errors_have_the_format_of_the_sdk(answer: Answer, code: str, message: str) -> None:
    with LoopbackServer(answer) as server:
        called = Management(f"{server.url}/prod", "us-east-1", create_session(), 1)
        with pytest.raises(ClientError) as raised:
            called.delete(GONE)
        called.close()

    error = raised.value
    assert error.response["Error"] == {"Code": code, "Message": message}
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == answer.status
    assert error.operation_name == "DeleteConnection"


def test_session_without_credentials_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)

    with pytest.raises(Exception, match="Unable to locate credentials"):
        create_management("http://127.0.0.1:1").post(GONE, b"news")
